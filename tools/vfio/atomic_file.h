/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A file that a whole is written to. A regular file has its name only when it is
 * complete; anything else is written to directly.
 */
#ifndef VFIO_MIGRATE_ATOMIC_FILE_H
#define VFIO_MIGRATE_ATOMIC_FILE_H

#include <limits.h>
#include <stddef.h>

/**
 * struct atomic_file - a file that is being written
 * @path: what the user calls it, for messages
 * @name: its name in @dir, with all symbolic links followed
 * @temporary: its name in @dir until it is complete, "" if it is written to directly
 * @dir: its directory, -1 if none is needed
 * @fd: open for writing, -1 if closed
 */
struct atomic_file {
	char	path[PATH_MAX];
	char	name[NAME_MAX + 1];
	char	temporary[32];
	int	dir;
	int	fd;
};

/*
 * "-" is standard output. Symbolic links are followed. Pipes, devices and what is
 * already open (/dev/stdout, /dev/fd/N) are written to directly. Terminals are
 * refused. The contents are a device's memory: a new file is for its owner only,
 * one that replaces another gets the owner and the mode of that.
 */
int atomic_file_open(struct atomic_file *file, const char *path);

/* All of it. A pipe that nobody reads does not keep a signal from being heard. */
int atomic_file_write(struct atomic_file *file, const void *buf, size_t len);

/*
 * With @status ST_OK the file gets its name, on the disk, or the reason why not
 * is returned; with any other status nothing is left of it, and @status returned.
 */
int atomic_file_close(struct atomic_file *file, int status);

#endif /* VFIO_MIGRATE_ATOMIC_FILE_H */
