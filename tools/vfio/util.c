// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include <fcntl.h>

#include "progress.h"
#include "util.h"

bool quiet;
bool verbose;
bool silent;
bool data_on_stdout;

/* Enough for a name of maximum length and an error text */
#define MESSAGE_MAX	(PATH_MAX + 256)

static char failure[MESSAGE_MAX];
static char failures[2 * MESSAGE_MAX];
static volatile sig_atomic_t caught;
static sigset_t normal_mask;

/* --- Messages ------------------------------------------------------------- */

static void print_line(const char *text)
{
	progress_clear();
	fprintf(stderr, "vfio-migrate: %s\n", text);
}

/* All failures, for the JSON output */
static void collect(void)
{
	size_t len = strlen(failures);

	snprintf(failures + len, sizeof(failures) - len, "%s%s", len ? "; " : "", failure);
}

int fail(int status, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	vsnprintf(failure, sizeof(failure), fmt, args);
	va_end(args);
	if (silent)
		return status;
	print_line(failure);
	collect();
	return status;
}

int fail_errno(int status, const char *fmt, ...)
{
	char what[PATH_MAX + 128];
	int error = errno;
	va_list args;

	va_start(args, fmt);
	vsnprintf(what, sizeof(what), fmt, args);
	va_end(args);
	return fail(status, "%s: %s", what, strerror(error));
}

const char *last_failure(void)
{
	return failure;
}

const char *all_failures(void)
{
	return failures;
}

void say(const char *fmt, ...)
{
	char text[MESSAGE_MAX];
	va_list args;

	if (quiet)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	print_line(text);
}

void detail(const char *fmt, ...)
{
	char text[512];
	va_list args;

	if (!verbose)
		return;
	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	print_line(text);
}

void warn(const char *fmt, ...)
{
	char text[MESSAGE_MAX];
	va_list args;

	va_start(args, fmt);
	vsnprintf(text, sizeof(text), fmt, args);
	va_end(args);
	print_line(text);
}

FILE *report_file(void)
{
	return data_on_stdout ? stderr : stdout;
}

/* --- Time and numbers ------------------------------------------------------- */

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

char *text_bytes(char *buf, size_t size, uint64_t bytes)
{
	static const char * const units[] = { "KiB", "MiB", "GiB", "TiB" };
	double value = bytes / 1024.0;
	size_t i = 0;

	if (bytes < KIB) {
		snprintf(buf, size, "%u B", (unsigned int)bytes);
		return buf;
	}
	while (value >= 1024 && i < ARRAY_LEN(units) - 1) {
		value /= 1024;
		i++;
	}
	snprintf(buf, size, "%.1f %s", value, units[i]);
	return buf;
}

char *text_ns(char *buf, size_t size, uint64_t ns)
{
	if (ns == NEVER)
		snprintf(buf, size, "unknown");
	else if (ns < 10 * NS_PER_S)
		snprintf(buf, size, "%.1f ms", ns / 1e6);
	else
		snprintf(buf, size, "%.1f s", ns / 1e9);
	return buf;
}

/* --- Standard files ----------------------------------------------------------- */

static bool missing[3];

void standard_files_init(void)
{
	int fd;

	for (fd = 0; fd < 3; fd++) {
		if (fcntl(fd, F_GETFD) >= 0)
			continue;
		missing[fd] = true;
		if (open("/dev/null", O_RDWR) != fd)
			_exit(ST_FAILED);
	}
}

bool standard_file_missing(int fd)
{
	return missing[fd];
}

/* --- Signals -------------------------------------------------------------------- */

/* Signal handling of the caller, which a child restores */
static struct sigaction inherited[_NSIG];

static void on_signal(int nr)
{
	caught = nr;
}

/*
 * Return true for a signal that terminates a program, except those for errors of the
 * program itself. SIGPIPE and SIGXFSZ are ignored, so that write() returns an error
 * instead.
 */
static bool ends_program(int nr)
{
	switch (nr) {
	case SIGILL:
	case SIGTRAP:
	case SIGBUS:
	case SIGFPE:
	case SIGSEGV:
	case SIGSYS:
	case SIGKILL:
	case SIGSTOP:
	case SIGTSTP:
	case SIGTTIN:
	case SIGTTOU:
	case SIGCONT:
	case SIGCHLD:
	case SIGURG:
	case SIGWINCH:
	case SIGPIPE:
	case SIGXFSZ:
		return false;
	default:
		return nr <= SIGSYS || nr >= SIGRTMIN;
	}
}

/*
 * Keep ignoring signals that the caller has ignored, for nohup and for "&" in a shell.
 * SIGTERM is an exception, because the processes of this program use it to end each other.
 */
static bool handles_signal(int nr)
{
	return ends_program(nr) && (inherited[nr].sa_handler != SIG_IGN || nr == SIGTERM);
}

/*
 * The signals are blocked before they have a handler: one that was handled outside of a
 * wait would not end the next wait.
 */
void signals_init(void)
{
	struct sigaction sa = { .sa_handler = on_signal };
	sigset_t set;
	int nr;

	sigemptyset(&set);
	for (nr = 1; nr <= SIGRTMAX; nr++) {
		sigaction(nr, NULL, &inherited[nr]);
		if (handles_signal(nr))
			sigaddset(&set, nr);
	}
	sigprocmask(SIG_BLOCK, &set, &normal_mask);
	for (nr = 1; nr <= SIGRTMAX; nr++) {
		if (sigismember(&set, nr) != 1)
			continue;
		sigaction(nr, &sa, NULL);
		/* Unblock signals that the caller has blocked, so that Ctrl-C works */
		sigdelset(&normal_mask, nr);
	}
	signal(SIGPIPE, SIG_IGN);
	signal(SIGXFSZ, SIG_IGN);
	/* If SIGCHLD were ignored, the exit status of a child would be lost */
	signal(SIGCHLD, SIG_DFL);
}

void signals_default(void)
{
	int nr;

	for (nr = 1; nr <= SIGRTMAX; nr++)
		sigaction(nr, &inherited[nr], NULL);
	sigprocmask(SIG_SETMASK, &normal_mask, NULL);
}

void signals_allow(sigset_t *before)
{
	sigprocmask(SIG_SETMASK, &normal_mask, before);
}

void signals_restore(const sigset_t *before)
{
	int error = errno;

	sigprocmask(SIG_SETMASK, before, NULL);
	errno = error;
}

int interrupted(void)
{
	struct timespec none = { };

	if (!caught)
		ppoll(NULL, 0, &none, &normal_mask);
	return caught ? ST_SIGNAL + caught : 0;
}

int wait_fds(struct pollfd *fds, nfds_t nr, uint64_t deadline)
{
	struct timespec ts;
	uint64_t now = now_ns(), left;
	int ret;

	left = deadline == NEVER ? 3600 * NS_PER_S : deadline > now ? deadline - now : 0;
	/* A signal that came while it was allowed (signals_allow()) may not be known yet */
	if (deadline == NEVER && caught)
		left = 0;
	ts.tv_sec = left / NS_PER_S;
	ts.tv_nsec = left % NS_PER_S;
	ret = ppoll(fds, nr, &ts, &normal_mask);
	if (ret < 0 && errno == EINTR) {
		for (nfds_t i = 0; i < nr; i++)
			fds[i].revents = 0;
		return 0;
	}
	return ret;
}

/* --- Files ------------------------------------------------------------------------ */

int open_slow(const char *path, int flags)
{
	sigset_t mask;
	int fd;

	signals_allow(&mask);
	fd = open(path, flags | O_CLOEXEC);
	signals_restore(&mask);
	return fd;
}

bool write_all(int fd, const void *buf, size_t len)
{
	size_t done = 0;
	ssize_t n;

	while (done < len) {
		n = write(fd, (const char *)buf + done, len - done);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return false;
		done += n;
	}
	return true;
}

bool read_line(const char *path, char *buf, size_t size)
{
	FILE *file = fopen(path, "re");
	bool ok;

	if (!file)
		return false;
	ok = fgets(buf, size, file);
	fclose(file);
	if (ok)
		buf[strcspn(buf, "\n")] = '\0';
	return ok;
}

bool read_link_name(const char *path, char *buf, size_t size)
{
	char target[512];
	ssize_t n = readlink(path, target, sizeof(target) - 1);
	const char *name;

	if (n < 0)
		return false;
	target[n] = '\0';
	name = strrchr(target, '/');
	snprintf(buf, size, "%s", name ? name + 1 : target);
	return true;
}
