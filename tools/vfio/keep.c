// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <paths.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
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

/* --- The command ------------------------------------------------------------------ */

static bool is_executable(const char *path)
{
	struct stat st;

	if (stat(path, &st))
		return false;
	if (S_ISREG(st.st_mode))
		return !faccessat(AT_FDCWD, path, X_OK, AT_EACCESS);
	errno = EACCES;
	return false;
}

/* Search the COMMAND in the same directories as execvp() */
static bool is_in_path(const char *name)
{
	const char *dir = getenv("PATH") ?: _PATH_DEFPATH, *end;
	int error = ENOENT;
	char path[PATH_MAX];

	for (;; dir = end + 1) {
		end = strchrnul(dir, ':');
		if (snprintf(path, sizeof(path), "%.*s%s%s", (int)(end - dir), dir,
			     end > dir ? "/" : "", name) < (int)sizeof(path)) {
			if (is_executable(path))
				return true;
			if (errno == EACCES)
				error = EACCES;
		}
		if (!*end)
			break;
	}
	errno = error;
	return false;
}

static int find_command(const char *name)
{
	bool found = strchr(name, '/') || !*name ? is_executable(name) : is_in_path(name);

	return found ? ST_OK : fail_errno(ST_NOEXEC, "%s", name);
}

static void run_child(const struct device *dev, char **run, int report)
{
	char number[16];
	int error;

	snprintf(number, sizeof(number), "%d", dev->fd);
	setenv("VFIO_MIGRATE_FD", number, 1);
	fcntl(dev->fd, F_SETFD, 0);
	signals_default();
	execvp(run[0], run);
	error = errno;
	_exit(write(report, &error, sizeof(error)) < 0 ? ST_NOEXEC : ST_AFTER);
}

static int exit_status(int status)
{
	return WIFEXITED(status) ? WEXITSTATUS(status) : ST_SIGNAL + WTERMSIG(status);
}

/* Forward the signal to the COMMAND, which has the device */
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
		return fail_errno(ST_AFTER, "how the command ended is unknown");
	return exit_status(status);
}

/* The pipe shows whether the COMMAND could not be run or has returned a status */
static int run_command(const struct device *dev, char **run)
{
	int report[2], error, status;
	pid_t child;
	ssize_t n;

	if (pipe2(report, O_CLOEXEC))
		return fail_errno(ST_AFTER, "%s", run[0]);
	child = fork();
	if (!child)
		run_child(dev, run, report[1]);
	close(report[1]);
	if (child < 0) {
		close(report[0]);
		return fail_errno(ST_AFTER, "%s", run[0]);
	}
	n = read(report[0], &error, sizeof(error));
	close(report[0]);
	status = wait_for(child);
	if (n != sizeof(error))
		return status;
	errno = error;
	return fail_errno(ST_AFTER, "%s cannot be run", run[0]);
}

/* --- The files --------------------------------------------------------------------- */

static int dump_regions(struct keep *keep, const struct device *dev)
{
	const struct options *opt = keep->opt;
	int i, ret = ST_OK;

	for (i = 0; !ret && i < keep->nr_dump; i++) {
		ret = device_dump_region(dev, opt->dump[i].index, &keep->dump[i]);
		ret = atomic_file_close(&keep->dump[i], ret);
	}
	return ret ? ST_AFTER : ST_OK;
}

void keep_leave(struct keep *keep)
{
	int i;

	for (i = 0; i < keep->nr_dump; i++) {
		close(keep->dump[i].fd);
		keep->dump[i].fd = -1;
	}
}

void keep_forget(struct keep *keep)
{
	int i;

	for (i = 0; i < keep->nr_dump; i++)
		atomic_file_close(&keep->dump[i], ST_FAILED);
	keep->nr_dump = 0;
}

/* --- Both --------------------------------------------------------------------------- */

int keep_begin(struct keep *keep, const struct device *dev, const struct options *opt)
{
	int i, ret = opt->run ? find_command(opt->run[0]) : ST_OK;

	*keep = (struct keep){ .opt = opt };
	for (i = 0; !ret && i < opt->nr_dump; i++) {
		ret = device_check_region(dev, opt->dump[i].index) ?:
		      atomic_file_open(&keep->dump[i], opt->dump[i].path);
		if (!ret)
			keep->nr_dump++;
	}
	if (ret)
		keep_forget(keep);
	return ret;
}

int keep_source(struct keep *keep, const struct device *dev, int status)
{
	int ret = dump_regions(keep, dev);

	keep_forget(keep);
	return status ?: ret;
}

static int hold(const struct device *dev)
{
	say("%s is held until a signal arrives (Ctrl-C)", dev->name);
	while (!interrupted())
		wait_fds(NULL, 0, NEVER);
	return ST_OK;
}

int keep_target(struct keep *keep, const struct device *dev, int status)
{
	int ret = ST_OK, dumped = ST_OK;

	if (!status || status == ST_AFTER)
		dumped = dump_regions(keep, dev);
	keep_forget(keep);
	if (status && status != ST_AFTER)
		return status;
	/* The state exists only in this device, so keep it even if the copy has failed */
	if (keep->opt->run)
		ret = run_command(dev, keep->opt->run);
	else if (keep->opt->hold)
		ret = hold(dev);
	return ret ?: dumped ?: status;
}
