/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A file whose reads take as long as the test wants. It is on a 9p mount that
 * the test itself serves. Read with O_DIRECT, the buffer is pinned from the
 * question to the answer, and what stores to it is the kernel, through the pin.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_SLOW_FILE_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_SLOW_FILE_H

#include <pthread.h>
#include <sys/types.h>

#include <linux/types.h>

#define SLOW_FILE_LEN	4096

struct slow_file {
	int dir;		/* where the file is */
	int fd;			/* of a read that is under way */
	int sock;		/* the kernel's end of the connection */
	int asked;		/* pipe: a byte for each read that has arrived */
	int answer;		/* pipe: what it shall return */
	pid_t server;
	pthread_t reader;
	void *to;
};

/*
 * Needs root; the mount is in a namespace that goes with this process. Must come
 * before a device is opened: the server is a process, so that it outlives a
 * test that fails in the middle, and must not keep the device open.
 */
int slow_file_open(struct slow_file *f);
void slow_file_close(struct slow_file *f);

/* Reads SLOW_FILE_LEN bytes to @to; returns when that is under way... */
void slow_file_ask(struct slow_file *f, void *to);
/* ...and completes it with @data. Then nothing is pinned any more. */
void slow_file_answer(struct slow_file *f, const void *data);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_SLOW_FILE_H */
