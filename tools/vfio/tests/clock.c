// SPDX-License-Identifier: GPL-2.0-only
/*
 * Preloaded into vfio-migrate by tests: from when the file $CLOCK_FAST appears, the
 * monotonic clock runs FASTER times as fast while the program waits and nothing
 * happens. Until then timeouts can be long enough for a busy machine; and as time that
 * the program spends on anything else is not made longer, they are so after that.
 *
 * In the end the program writes to $CLOCK_FAST.PID for how many ms of that clock it has
 * received nothing.
 */
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#define FASTER		50
#define NS_PER_S	1000000000LL
/* How soon whoever waits sees the file */
#define LOOK_NS		10000000

static _Atomic int64_t ahead;
static _Atomic int64_t received;

static int is_fast(void)
{
	static atomic_int fast;
	const char *file = getenv("CLOCK_FAST");

	if (!fast && file && !access(file, F_OK))
		fast = 1;
	return fast;
}

int clock_gettime(clockid_t id, struct timespec *ts)
{
	int ret = syscall(SYS_clock_gettime, id, ts);
	int64_t ns;

	if (!ret && id == CLOCK_MONOTONIC) {
		ns = ts->tv_nsec + ahead;
		ts->tv_sec += ns / NS_PER_S;
		ts->tv_nsec = ns % NS_PER_S;
	}
	return ret;
}

static int64_t now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

int ppoll(struct pollfd *fds, nfds_t nr, const struct timespec *timeout, const sigset_t *mask)
{
	int64_t ns = timeout ? timeout->tv_sec * NS_PER_S + timeout->tv_nsec : NS_PER_S;
	struct timespec ts = { };
	int ret, fast = is_fast();

	if (fast)
		ns /= FASTER;
	if (ns > LOOK_NS)
		ns = LOOK_NS;
	ts.tv_nsec = ns;
	ret = syscall(SYS_ppoll, fds, nr, &ts, mask, _NSIG / 8);
	if (fast && !ret)
		ahead += ns * (FASTER - 1);
	return ret;
}

ssize_t recv(int fd, void *buf, size_t len, int flags)
{
	ssize_t ret = syscall(SYS_recvfrom, fd, buf, len, flags, NULL, NULL);

	if (ret > 0)
		received = now();
	return ret;
}

static void __attribute__((destructor)) report(void)
{
	char name[4096];
	FILE *file;

	if (!received || !is_fast())
		return;
	snprintf(name, sizeof(name), "%s.%d", getenv("CLOCK_FAST"), getpid());
	file = fopen(name, "w");
	if (!file)
		return;
	fprintf(file, "%lld\n", (long long)(now() - received) / 1000000);
	fclose(file);
}
