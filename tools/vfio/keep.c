// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "keep.h"
#include "util.h"

int fill_regions(const struct device *dev, const struct options *opt)
{
	int i, ret = ST_OK;

	for (i = 0; !ret && i < opt->nr_fill; i++)
		ret = device_fill_region(dev, opt->fill[i].index, opt->fill[i].path);
	return ret;
}

int dump_regions(const struct device *dev, const struct options *opt)
{
	int i, ret = ST_OK;

	for (i = 0; !ret && i < opt->nr_dump; i++)
		ret = device_dump_region(dev, opt->dump[i].index, opt->dump[i].path);
	return ret;
}

static void run_child(const struct device *dev, char **run)
{
	char number[16];

	snprintf(number, sizeof(number), "%d", dev->fd);
	setenv("VFIO_MIGRATE_FD", number, 1);
	fcntl(dev->fd, F_SETFD, 0);
	signals_default();
	execvp(run[0], run);
	fail_errno(ST_NOEXEC, "%s", run[0]);
	_exit(ST_NOEXEC);
}

static int exit_status(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : ST_SIGNAL + WTERMSIG(status);
}

/* Whoever stops us means the command: it has the device */
static int wait_for(pid_t child)
{
	struct pollfd pfd = { .events = POLLIN };
	bool passed_on = false;
	int status;
	pid_t ret;

	pfd.fd = syscall(SYS_pidfd_open, child, 0);
	while (!(ret = waitpid(child, &status, WNOHANG))) {
		wait_fds(&pfd, pfd.fd >= 0, now_ns() + (pfd.fd < 0 ? 20 * NS_PER_MS : NS_PER_S));
		if (interrupted() && !passed_on) {
			kill(child, SIGTERM);
			passed_on = true;
		}
	}
	if (pfd.fd >= 0)
		close(pfd.fd);
	if (ret < 0)
		return fail_errno(ST_FAILED, "how the command ended is unknown");
	return exit_status(status);
}

static int run_command(const struct device *dev, char **run)
{
	pid_t child = fork();

	if (child < 0)
		return fail_errno(ST_NOEXEC, "%s", run[0]);
	if (!child)
		run_child(dev, run);
	return wait_for(child);
}

int keep_device(const struct device *dev, const struct options *opt)
{
	int ret = dump_regions(dev, opt);

	if (ret)
		return ret;
	if (opt->run)
		return run_command(dev, opt->run);
	if (!opt->hold)
		return ST_OK;
	say("%s is held until a signal (Ctrl-C)", dev->name);
	while (!interrupted())
		wait_fds(NULL, 0, NEVER);
	return ST_OK;
}
