// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <libgen.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "atomic_file.h"
#include "util.h"

/* A pipe, a terminal or /dev/null has no name to lose */
static bool is_special(const char *path)
{
	struct stat st;

	return !stat(path, &st) && !S_ISREG(st.st_mode);
}

static int open_temporary(struct atomic_file *file)
{
	const char *slash = strrchr(file->path, '/');
	int dir = slash ? slash - file->path + 1 : 0;
	mode_t mask = umask(0);

	umask(mask);
	if (snprintf(file->temporary, sizeof(file->temporary), "%.*s.%s.XXXXXX", dir,
		     file->path, file->path + dir) >= (int)sizeof(file->temporary))
		return fail(ST_FILE, "%s: the name is too long", file->path);
	file->fd = mkostemp(file->temporary, O_CLOEXEC);
	if (file->fd < 0)
		return fail_errno(ST_FILE, "%s cannot be created", file->temporary);
	fchmod(file->fd, 0666 & ~mask);
	return ST_OK;
}

int atomic_file_open(struct atomic_file *file, const char *path)
{
	*file = (struct atomic_file){ .fd = -1 };
	if (strlen(path) >= sizeof(file->path))
		return fail(ST_FILE, "%s: the name is too long", path);
	memcpy(file->path, path, strlen(path) + 1);
	if (!strcmp(path, "-"))
		file->fd = fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	else if (is_special(path))
		file->fd = open_slow(path, O_WRONLY);
	else
		return open_temporary(file);
	return file->fd < 0 ? fail_errno(ST_FILE, "%s", path) : ST_OK;
}

/* A write to a pipe of that size does not block once there is room */
static int write_piece(struct atomic_file *file, const char *buf, size_t len, size_t *done)
{
	struct pollfd pfd = { .fd = file->fd, .events = POLLOUT };
	ssize_t n;

	if (wait_fds(&pfd, 1, NEVER) <= 0)
		return interrupted();
	n = write(file->fd, buf, min_u64(len, PIPE_BUF));
	if (n < 0 && errno != EINTR && errno != EAGAIN)
		return fail_errno(ST_FILE, "%s", file->path);
	*done += n > 0 ? n : 0;
	return ST_OK;
}

int atomic_file_write(struct atomic_file *file, const void *buf, size_t len)
{
	size_t done = 0;
	int ret = ST_OK;

	if (file->temporary[0])
		return write_all(file->fd, buf, len) ? ST_OK :
		       fail_errno(ST_FILE, "%s", file->path);
	while (!ret && done < len)
		ret = write_piece(file, (const char *)buf + done, len - done, &done);
	return ret;
}

/* The name is as durable as the contents only if the directory is */
static int sync_directory(const struct atomic_file *file)
{
	char copy[PATH_MAX];
	int fd, ret;

	memcpy(copy, file->path, sizeof(copy));
	fd = open(dirname(copy), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -1;
	ret = fsync(fd);
	close(fd);
	/* Not every file system can */
	return ret && errno != EINVAL ? ret : 0;
}

static int publish(struct atomic_file *file)
{
	if (fsync(file->fd) && errno != EINVAL && errno != EROFS)
		return fail_errno(ST_FILE, "%s", file->path);
	if (rename(file->temporary, file->path))
		return fail_errno(ST_FILE, "%s", file->path);
	file->temporary[0] = '\0';
	if (sync_directory(file))
		return fail_errno(ST_FILE, "%s", file->path);
	return ST_OK;
}

int atomic_file_close(struct atomic_file *file, int status)
{
	if (!status && file->temporary[0])
		status = publish(file);
	if (file->temporary[0])
		unlink(file->temporary);
	if (close(file->fd) && !status)
		status = fail_errno(ST_FILE, "%s", file->path);
	file->fd = -1;
	return status;
}
