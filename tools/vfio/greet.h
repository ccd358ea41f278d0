/* SPDX-License-Identifier: GPL-2.0-only */
/* Waiting for the first frame of a source, among other connections. */
#ifndef VFIO_MIGRATE_GREET_H
#define VFIO_MIGRATE_GREET_H

#include <stdint.h>

#include "endpoint.h"
#include "frame.h"

/* Maximum number of waiting connections; a further one replaces the oldest */
#define GREET_WAITING	16
/* Number of connections that are not from a source before this side gives up */
#define GREET_STRAYS	1000

/*
 * Wait for a connection that begins with a valid HELLO, until @deadline. Others are
 * closed and reported: those that send anything else, or no HELLO within @timeout_ns.
 * Returns a status; with ST_OK the connection is in @fd, and only @hello was read from it.
 */
int greet_source(struct listener *listener, uint64_t deadline, uint64_t timeout_ns, int *fd,
		 struct frame_hello *hello);

#endif /* VFIO_MIGRATE_GREET_H */
