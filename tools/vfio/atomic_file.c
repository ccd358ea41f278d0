// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <linux/magic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "atomic_file.h"
#include "util.h"

/* Maximum number of successive symbolic links, as in the kernel */
#define MAX_LINKS	40

/* Name of the file for messages */
static const char *shown(const struct atomic_file *file)
{
	return strcmp(file->path, "-") ? file->path : "standard output";
}

/* --- Finding what the user means; 0, or -1 with errno ------------------------- */

/*
 * Resolve @text, which is relative to file->dir, and set file->dir and file->name. @text is
 * modified.
 */
static int enter(struct atomic_file *file, char *text)
{
	char *slash = strrchr(text, '/');
	const char *name = slash ? slash + 1 : text;
	int dir;

	if (!*name || strlen(name) > NAME_MAX) {
		errno = *name ? ENAMETOOLONG : *text ? EISDIR : ENOENT;
		return -1;
	}
	memcpy(file->name, name, strlen(name) + 1);
	if (slash)
		slash[slash == text] = '\0';
	dir = openat(file->dir, slash ? text : ".", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (dir < 0)
		return -1;
	if (file->dir >= 0)
		close(file->dir);
	file->dir = dir;
	return 0;
}

/* Links in these directories lead to open files, which may have no name */
static bool on_procfs(const struct atomic_file *file)
{
	struct statfs fs;

	return !fstatfs(file->dir, &fs) && fs.f_type == PROC_SUPER_MAGIC;
}

static int follow_links(struct atomic_file *file)
{
	char text[PATH_MAX];
	ssize_t n;
	int nr;

	memcpy(text, file->path, sizeof(text));
	for (nr = 0; nr < MAX_LINKS; nr++) {
		if (enter(file, text))
			return -1;
		n = readlinkat(file->dir, file->name, text, sizeof(text) - 1);
		if (n < 0)
			return errno == EINVAL || errno == ENOENT ? 0 : -1;
		if (on_procfs(file))
			return 0;
		text[n] = '\0';
	}
	errno = ELOOP;
	return -1;
}

/* --- Opening it; the same -------------------------------------------------------- */

static bool same_file(const struct stat *a, const struct stat *b)
{
	return a->st_dev == b->st_dev && a->st_ino == b->st_ino;
}

/* Return the file descriptor that a path such as /dev/stdout stands for, or -1 */
static int find_open_file(const struct atomic_file *file)
{
	struct stat ours, named;
	char *end;
	long fd;

	if (!strcmp(file->path, "-"))
		return STDOUT_FILENO;
	fd = strtol(file->name, &end, 10);
	if (!on_procfs(file) || end == file->name || *end || fd < 0 || fd > INT_MAX)
		return -1;
	if (fstat(fd, &ours) || fstatat(file->dir, file->name, &named, 0))
		return -1;
	return same_file(&ours, &named) ? fd : -1;
}

/* Duplicate it to keep its position and flags: it may have been opened for appending */
static int share(struct atomic_file *file, int fd)
{
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0)
		return -1;
	if (flags & O_PATH || (flags & O_ACCMODE) == O_RDONLY ||
	    (fd < 3 && standard_file_missing(fd))) {
		errno = EBADF;
		return -1;
	}
	file->fd = fcntl(fd, F_DUPFD_CLOEXEC, 3);
	return file->fd < 0 ? -1 : 0;
}

static int open_directly(struct atomic_file *file)
{
	sigset_t mask;

	signals_allow(&mask);
	file->fd = openat(file->dir, file->name, O_WRONLY | O_TRUNC | O_CLOEXEC);
	signals_restore(&mask);
	return file->fd < 0 ? -1 : 0;
}

/* Give the new file the owner and mode of the old file, so that access does not change */
static void adopt(const struct atomic_file *file, const struct stat *before)
{
	mode_t mode = before->st_mode & 0777;

	if (fchown(file->fd, before->st_uid, before->st_gid))
		mode &= 0700;
	fchmod(file->fd, mode);
}

static int open_temporary(struct atomic_file *file, const struct stat *before)
{
	const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC;
	uint32_t random;

	do {
		/*
		 * Do not derive the name from the file's own name, which may have the
		 * maximum length
		 */
		if (getrandom(&random, sizeof(random), 0) < 0)
			return -1;
		snprintf(file->temporary, sizeof(file->temporary), ".vfio-migrate.%08x", random);
		file->fd = openat(file->dir, file->temporary, flags, 0600);
	} while (file->fd < 0 && errno == EEXIST);
	if (file->fd < 0) {
		file->temporary[0] = '\0';
		return -1;
	}
	fchmod(file->fd, 0600);
	if (before)
		adopt(file, before);
	return 0;
}

static int open_it(struct atomic_file *file)
{
	struct stat st;
	bool exists;
	int fd;

	if (strcmp(file->path, "-") && follow_links(file))
		return -1;
	fd = find_open_file(file);
	if (fd >= 0)
		return share(file, fd);
	exists = !fstatat(file->dir, file->name, &st, 0);
	if (exists && (!S_ISREG(st.st_mode) || on_procfs(file)))
		return open_directly(file);
	return open_temporary(file, exists ? &st : NULL);
}

/* --- All of it ---------------------------------------------------------------------- */

static bool is_null(const struct stat *st)
{
	return S_ISCHR(st->st_mode) && st->st_rdev == makedev(1, 3);
}

/* Nothing but the data may be written to standard output */
static int claim(const struct atomic_file *file)
{
	struct stat ours, standard;

	if (isatty(file->fd))
		return fail(ST_USAGE, "%s is a terminal, and the data is binary: name a file",
			    shown(file));
	if (fstat(file->fd, &ours) || fstat(STDOUT_FILENO, &standard) ||
	    !same_file(&ours, &standard) || is_null(&ours))
		return ST_OK;
	if (data_on_stdout)
		return fail(ST_USAGE, "%s: standard output can take one file only", shown(file));
	data_on_stdout = true;
	return ST_OK;
}

int atomic_file_open(struct atomic_file *file, const char *path)
{
	int ret;

	*file = (struct atomic_file){ .dir = AT_FDCWD, .fd = -1 };
	if (strlen(path) >= sizeof(file->path))
		return fail(ST_FILE, "%s: the name is too long", path);
	memcpy(file->path, path, strlen(path) + 1);
	if (!open_it(file))
		ret = claim(file);
	else if (errno == EINTR && interrupted())
		ret = interrupted();
	else
		ret = fail_errno(ST_FILE, "%s", shown(file));
	return ret ? atomic_file_close(file, ret) : ST_OK;
}

/* Size of a write to a pipe that does not block if poll() reports POLLOUT */
static int write_piece(struct atomic_file *file, const char *buf, size_t len, size_t *done)
{
	struct pollfd pfd = { .fd = file->fd, .events = POLLOUT };
	ssize_t n;

	if (wait_fds(&pfd, 1, NEVER) <= 0)
		return interrupted();
	n = write(file->fd, buf, min_u64(len, PIPE_BUF));
	if (n < 0 && errno != EINTR && errno != EAGAIN)
		return fail_errno(ST_FILE, "%s", shown(file));
	*done += n > 0 ? n : 0;
	return ST_OK;
}

int atomic_file_write(struct atomic_file *file, const void *buf, size_t len)
{
	size_t done = 0;
	int ret = ST_OK;

	if (file->temporary[0])
		return write_all(file->fd, buf, len) ? ST_OK :
		       fail_errno(ST_FILE, "%s", shown(file));
	while (!ret && done < len)
		ret = write_piece(file, (const char *)buf + done, len - done, &done);
	return ret;
}

/* Pipes and some file systems do not support this */
static int sync_fd(int fd)
{
	return fsync(fd) && errno != EINVAL && errno != EROFS ? -1 : 0;
}

/* The directory must be written to disk, so that the name survives a crash */
static int sync_directory(const struct atomic_file *file)
{
	int fd = openat(file->dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int ret;

	/* The user may have write permission for the directory, but no read permission */
	if (fd < 0)
		return errno == EACCES ? 0 : -1;
	ret = sync_fd(fd);
	close(fd);
	return ret;
}

static int publish(struct atomic_file *file)
{
	if (sync_fd(file->fd))
		return fail_errno(ST_FILE, "%s", shown(file));
	if (!file->temporary[0])
		return ST_OK;
	if (renameat(file->dir, file->temporary, file->dir, file->name))
		return fail_errno(ST_FILE, "%s", shown(file));
	file->temporary[0] = '\0';
	return sync_directory(file) ? fail_errno(ST_FILE, "%s", shown(file)) : ST_OK;
}

int atomic_file_close(struct atomic_file *file, int status)
{
	if (!status)
		status = publish(file);
	if (file->temporary[0])
		unlinkat(file->dir, file->temporary, 0);
	file->temporary[0] = '\0';
	if (file->fd >= 0 && close(file->fd) && !status)
		status = fail_errno(ST_FILE, "%s", shown(file));
	if (file->dir >= 0)
		close(file->dir);
	file->fd = -1;
	file->dir = -1;
	return status;
}
