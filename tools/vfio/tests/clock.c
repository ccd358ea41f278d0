// SPDX-License-Identifier: GPL-2.0-only
/*
 * Preloaded into vfio-migrate by tests: when the file $CLOCK_AHEAD appears, the
 * monotonic clock goes an hour forward, so that every timeout has run out. Until then
 * timeouts can be long enough for a busy machine.
 */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

/* How soon whoever waits sees that */
#define LOOK_NS	10000000

static int is_ahead(void)
{
	const char *file = getenv("CLOCK_AHEAD");

	return file && !access(file, F_OK);
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
	int ret = syscall(SYS_clock_gettime, id, ts);

	if (!ret && id == CLOCK_MONOTONIC && is_ahead())
		ts->tv_sec += 3600;
	return ret;
}

int ppoll(struct pollfd *fds, nfds_t nr, const struct timespec *timeout, const sigset_t *mask)
{
	struct timespec ts = { .tv_nsec = LOOK_NS };

	if (timeout && !timeout->tv_sec && timeout->tv_nsec < LOOK_NS)
		ts.tv_nsec = timeout->tv_nsec;
	return syscall(SYS_ppoll, fds, nr, &ts, mask, _NSIG / 8);
}
