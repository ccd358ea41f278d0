/* SPDX-License-Identifier: GPL-2.0-only */
/* A file that has its name only when it is complete. */
#ifndef VFIO_MIGRATE_ATOMIC_FILE_H
#define VFIO_MIGRATE_ATOMIC_FILE_H

#include <limits.h>
#include <stddef.h>

struct atomic_file {
	char	path[PATH_MAX];
	char	temporary[PATH_MAX];	/* "" if @path is not a regular file */
	int	fd;
};

/* "-" is standard output. Anything but a regular file is written to directly. */
int atomic_file_open(struct atomic_file *file, const char *path);

/* All of it. A pipe that nobody reads does not keep a signal from being heard. */
int atomic_file_write(struct atomic_file *file, const void *buf, size_t len);

/*
 * With @status ST_OK the file gets its name, on the disk, or the reason why not
 * is returned; with any other status nothing is left of it, and @status returned.
 */
int atomic_file_close(struct atomic_file *file, int status);

#endif /* VFIO_MIGRATE_ATOMIC_FILE_H */
