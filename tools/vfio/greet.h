/* SPDX-License-Identifier: GPL-2.0-only */
/* The first frame of a source, among whatever else connects. */
#ifndef VFIO_MIGRATE_GREET_H
#define VFIO_MIGRATE_GREET_H

#include <stdint.h>

#include "endpoint.h"
#include "frame.h"

/* Connections that may wait at a time; the oldest makes room for one more */
#define GREET_WAITING	16
/* Connections that may come to nothing before this side gives up */
#define GREET_STRAYS	1000

/*
 * Wait for a connection that begins with a valid HELLO, until @deadline. Others are
 * closed and reported: those that send anything else, or no HELLO within @timeout_ns.
 * Returns a status; ST_OK with the connection in @fd, from which nothing but @hello was
 * taken.
 */
int greet_source(struct listener *listener, uint64_t deadline, uint64_t timeout_ns, int *fd,
		 struct frame_hello *hello);

#endif /* VFIO_MIGRATE_GREET_H */
