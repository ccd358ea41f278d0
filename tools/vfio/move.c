// SPDX-License-Identifier: GPL-2.0-only
/*
 * The command "move": sender and receiver on one host, as two processes with a socket. The
 * process of the target keeps the device as long as the user wants.
 */
#include <errno.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keep.h"
#include "progress.h"
#include "send.h"
#include "transfer.h"
#include "util.h"

static void target_process(struct device *source, struct device *target, int fd,
			   struct keep *keep)
{
	const struct options *opt = keep->opt;
	int ret;

	/* End with the parent, because no other process knows about this one */
	prctl(PR_SET_PDEATHSIG, SIGTERM);
	/* The source's process displays the progress of both */
	progress_disable();
	device_close(source);
	/* The reason of a failure is sent to the source's process, which prints it */
	silent = true;
	ret = receive_device(target, fd, opt);
	silent = false;
	close(fd);
	if (!ret) {
		ret = keep_target(keep, target, ret);
		/* The source's process does not know about this failure, so print it here */
		if (opt->json)
			failure_summary(opt->command, ret);
	}
	keep_forget(keep);
	/* Do not return, because a thread may be blocked in the driver */
	exit(ret);
}

static int wait_status(pid_t child)
{
	int status;

	while (waitpid(child, &status, 0) < 0)
		if (errno != EINTR)
			return fail_errno(ST_AFTER, "how the target's process ended is unknown");
	if (WIFEXITED(status))
		return WEXITSTATUS(status);
	return fail(ST_AFTER, "the process that had the target was killed by signal %d",
		    WTERMSIG(status));
}

/* Wait until the user releases the device; the process of the target handles signals */
static int wait_kept(pid_t child)
{
	bool passed_on = false;
	siginfo_t info;

	for (;;) {
		info.si_pid = 0;
		if (waitid(P_PID, child, &info, WEXITED | WNOHANG | WNOWAIT) || info.si_pid)
			return wait_status(child);
		wait_fds(NULL, 0, now_ns() + 50 * NS_PER_MS);
		if (interrupted() && !passed_on) {
			kill(child, SIGTERM);
			passed_on = true;
		}
	}
}

/* The process notices the end of the connection, and resets its device */
static void end_target(pid_t child)
{
	uint64_t deadline = now_ns() + 3 * NS_PER_S;
	int status;

	while (now_ns() < deadline) {
		if (waitpid(child, &status, WNOHANG))
			return;
		wait_fds(NULL, 0, now_ns() + 20 * NS_PER_MS);
	}
	kill(child, SIGKILL);
	waitpid(child, &status, 0);
}

/* @status: result of the source's process, which knows whether the target was told to run */
static int wait_for_target(pid_t child, int status)
{
	int kept;

	if (status && status != ST_AFTER && status != ST_UNKNOWN) {
		end_target(child);
		return status;
	}
	kept = wait_kept(child);
	/* The target did not answer in time, but it runs */
	if (status == ST_UNKNOWN)
		return kept ? status : ST_OK;
	return kept ?: status;
}

static int move(struct device *source, struct device *target, struct keep *keep)
{
	pid_t child;
	int fds[2], ret;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		return fail_errno(ST_FAILED, "a socket pair cannot be created");
	fflush(NULL);
	child = fork();
	if (child < 0)
		return fail_errno(ST_FAILED, "a second process cannot be started");
	if (!child) {
		close(fds[0]);
		target_process(source, target, fds[1], keep);
	}
	close(fds[1]);
	keep_leave(keep);
	device_close(target);
	ret = send_device(source, fds[0], keep->opt);
	close(fds[0]);
	device_close(source);
	return wait_for_target(child, ret);
}

int cmd_move(const struct options *opt)
{
	struct device source, target;
	struct keep keep;
	int ret;

	ret = device_find(&source, opt->device) ?: device_find(&target, opt->target) ?:
	      device_open(&source, opt->iommu, NULL);
	if (ret)
		return ret;
	ret = device_open(&target, opt->iommu, &source) ?: keep_begin(&keep, &target, opt);
	if (ret)
		return ret;
	ret = fill_regions(&source, opt) ?: move(&source, &target, &keep);
	/* If the target's process was killed, it may have left temporary files */
	keep_forget(&keep);
	return ret;
}
