/* SPDX-License-Identifier: GPL-2.0-only */
/* Common functions: status, messages, time, signals. */
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
 * Result of a command: returned by functions, and used as the exit status. The numbers are
 * documented in vfio-migrate.8.
 */
enum status {
	ST_OK = 0,
	ST_FAILED = 1,
	ST_USAGE = 2,
	ST_DEVICE = 3,		/* a device cannot be opened, or cannot migrate */
	ST_PEER = 4,		/* the connection failed, or the peer */
	ST_DOWNTIME = 5,	/* the maximum downtime cannot be met */
	ST_UNKNOWN = 6,		/* it is unknown whether the target runs */
	ST_FILE = 7,		/* a file cannot be read or written, or is invalid */
	ST_AFTER = 8,		/* success, but a later step failed */
	ST_STUCK = 9,		/* failure, and the source could not be resumed */
	ST_NOEXEC = 126,	/* the COMMAND cannot be run */
	ST_SIGNAL = 128,	/* plus the number of the signal */
};

/* Print a failure on standard error, keep it for the peer, and return @status. */
__attribute__((format(printf, 2, 3)))
int fail(int status, const char *fmt, ...);

/* The same, with a colon and the text of errno at the end. */
__attribute__((format(printf, 2, 3)))
int fail_errno(int status, const char *fmt, ...);

/* Return the last failure; "" if there was none. */
const char *last_failure(void);
/* Return all failures of this process, separated by semicolons. */
const char *all_failures(void);

/* Print one line of information on standard error, except with --quiet. */
__attribute__((format(printf, 1, 2)))
void say(const char *fmt, ...);

/* Print a line on standard error, even with --quiet. */
__attribute__((format(printf, 1, 2)))
void warn(const char *fmt, ...);

/* Print a line on standard error, only with --verbose. */
__attribute__((format(printf, 1, 2)))
void detail(const char *fmt, ...);

extern bool quiet;
extern bool verbose;
/* Keep failures, but do not print them. */
extern bool silent;
/* Standard output is used for a device's contents, and must have nothing else. */
extern bool data_on_stdout;

/* File for summaries: standard output, or standard error if the former has data. */
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

/* Format "4.0 MiB" or "3.1 s" to @buf, and return @buf. */
char *text_bytes(char *buf, size_t size, uint64_t bytes);
char *text_ns(char *buf, size_t size, uint64_t ns);

/*
 * Open /dev/null as standard input, output or error if the caller has closed it. Otherwise
 * the next opened file would get its number, and messages would be written to this file.
 */
void standard_files_init(void);
/* Return true if @fd, 0 to 2, was closed when the program started. */
bool standard_file_missing(int fd);

/*
 * Block all terminating signals, such as SIGINT and SIGTERM, except during wait_fds() and
 * interrupted(), so that no signal is lost between a check and a wait. Signals that the
 * caller has ignored stay ignored.
 */
void signals_init(void);
/* Restore the signals of the caller, for a child that executes another program. */
void signals_default(void);
/* Unblock signals for a system call that signals may interrupt. */
void signals_allow(sigset_t *before);
/* Block them again. Does not change errno. */
void signals_restore(const sigset_t *before);
/* Return 0, or the exit status for a signal that has arrived. */
int interrupted(void);
/* poll() until @deadline, or until a signal. Returns like poll(), but never EINTR. */
int wait_fds(struct pollfd *fds, nfds_t nr, uint64_t deadline);

/* open() that signals can interrupt, because opening a pipe waits for its other end. */
int open_slow(const char *path, int flags);

/* Write all of @buf. Returns false and sets errno on failure. */
bool write_all(int fd, const void *buf, size_t len);

/* Read the first line of a file, such as in sysfs. Returns false if this fails. */
bool read_line(const char *path, char *buf, size_t size);
/* Read the last component of the target of a symbolic link. */
bool read_link_name(const char *path, char *buf, size_t size);

#endif /* VFIO_MIGRATE_UTIL_H */
