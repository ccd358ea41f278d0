/* SPDX-License-Identifier: GPL-2.0-only */
/* What everything here shares: how it ends, what it says, time, signals. */
#ifndef VFIO_MIGRATE_UTIL_H
#define VFIO_MIGRATE_UTIL_H

#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#define ARRAY_LEN(a)	(sizeof(a) / sizeof((a)[0]))
#define KIB		1024ULL
#define MIB		(1024 * KIB)
#define NS_PER_MS	1000000ULL
#define NS_PER_S	1000000000ULL
#define NEVER		UINT64_MAX

/*
 * How a command ended: what functions return, and the exit status. The numbers
 * are documented in vfio-migrate.8.
 */
enum status {
	ST_OK = 0,
	ST_FAILED = 1,
	ST_USAGE = 2,
	ST_DEVICE = 3,		/* cannot be opened, or cannot migrate */
	ST_PEER = 4,		/* connection, or what came through it */
	ST_DOWNTIME = 5,	/* the bound cannot be kept */
	ST_UNKNOWN = 6,		/* nobody can tell whether the target runs */
	ST_FILE = 7,		/* a file cannot be read, written, or understood */
	ST_AFTER = 8,		/* it is done, and what should follow has failed */
	ST_STUCK = 9,		/* it has failed, and the source is not back */
	ST_NOEXEC = 126,	/* the command to run cannot be run */
	ST_SIGNAL = 128,	/* + number of the signal */
};

/* Says why on standard error, keeps it for the peer, and returns @status. */
__attribute__((format(printf, 2, 3)))
int fail(int status, const char *fmt, ...);

/* The same, with a colon and what errno says at the end. */
__attribute__((format(printf, 2, 3)))
int fail_errno(int status, const char *fmt, ...);

/* What was last said by these two; "" if nothing. */
const char *last_failure(void);
/* All that was said so by this process, with semicolons between. */
const char *all_failures(void);

/* One line of news on standard error, unless told to be quiet. */
__attribute__((format(printf, 1, 2)))
void say(const char *fmt, ...);

/* A line on standard error whatever was asked for. */
__attribute__((format(printf, 1, 2)))
void warn(const char *fmt, ...);

/* The same, only if the user wants details. */
__attribute__((format(printf, 1, 2)))
void detail(const char *fmt, ...);

extern bool quiet;
extern bool verbose;
/* Failures are kept, but not printed. */
extern bool silent;
/* Standard output takes a device's contents: nothing else may be written there. */
extern bool data_on_stdout;

/* Where summaries go: standard output, or standard error if that takes data. */
FILE *report_file(void);

uint64_t now_ns(void);

static inline uint64_t min_u64(uint64_t a, uint64_t b)
{
	return a < b ? a : b;
}

static inline uint64_t max_u64(uint64_t a, uint64_t b)
{
	return a > b ? a : b;
}

/* "4.0 MiB", "3.1 s"; in @buf, which they return. */
char *text_bytes(char *buf, size_t size, uint64_t bytes);
char *text_ns(char *buf, size_t size, uint64_t ns);

/*
 * Opens /dev/null as standard input, output or error if the caller has closed it:
 * otherwise the next file to be opened would get its number, and our messages.
 */
void standard_files_init(void);
/* Was @fd, 0 to 2, closed when the program started? */
bool standard_file_missing(int fd);

/*
 * All signals that end a program, such as SIGINT and SIGTERM, are blocked but for
 * the time in wait_fds() and interrupted(), so that none is lost between a look
 * and a wait. Those that the caller has ignored stay ignored.
 */
void signals_init(void);
/* For a child that becomes another program: as the caller had set them. */
void signals_default(void);
/* For the time of a system call that a signal shall end. */
void signals_allow(sigset_t *before);
/* Keeps errno. */
void signals_restore(const sigset_t *before);
/* 0, or the status to end with because a signal came. */
int interrupted(void);
/* poll() until @deadline, or until a signal. As poll() returns, but never EINTR. */
int wait_fds(struct pollfd *fds, nfds_t nr, uint64_t deadline);

/* As open(), but a signal ends it: a pipe waits for its other end. */
int open_slow(const char *path, int flags);

/* All of it, or false with errno. */
bool write_all(int fd, const void *buf, size_t len);

/* A first line of a file in sysfs or the like; false if it cannot be read. */
bool read_line(const char *path, char *buf, size_t size);
/* The last component of where a link leads to. */
bool read_link_name(const char *path, char *buf, size_t size);

#endif /* VFIO_MIGRATE_UTIL_H */
