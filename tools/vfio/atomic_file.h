/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Output files. A regular file gets its name when it is complete. Other files, such as
 * pipes, are written to directly.
 */
#ifndef VFIO_MIGRATE_ATOMIC_FILE_H
#define VFIO_MIGRATE_ATOMIC_FILE_H

#include <limits.h>
#include <stddef.h>

/**
 * struct atomic_file - a file that is being written
 * @path: name on the command line, for messages
 * @name: name in @dir, with all symbolic links resolved
 * @temporary: name in @dir until the file is complete, "" if it is written to
 *	directly
 * @dir: file descriptor of its directory, -1 if none is needed
 * @fd: file descriptor for writing, -1 if closed
 */
struct atomic_file {
	char	path[PATH_MAX];
	char	name[NAME_MAX + 1];
	char	temporary[32];
	int	dir;
	int	fd;
};

/*
 * Open a file for writing. "-" is standard output. Symbolic links are followed. Pipes,
 * devices and open files (/dev/stdout, /dev/fd/N) are written to directly. Terminals are
 * refused. Because the contents are a device's memory, only the owner can access a new
 * file. A file that replaces another gets the owner and the mode of the old file.
 */
int atomic_file_open(struct atomic_file *file, const char *path);

/* Write all of @buf. Signals interrupt a write to a pipe that nobody reads. */
int atomic_file_write(struct atomic_file *file, const void *buf, size_t len);

/*
 * Close the file. If @status is ST_OK, write it to disk, give it its name, and return the
 * status of this. Otherwise remove it, and return @status.
 */
int atomic_file_close(struct atomic_file *file, int status);

#endif /* VFIO_MIGRATE_ATOMIC_FILE_H */
