/* SPDX-License-Identifier: GPL-2.0-only */
/* What a waiting user sees: a bar on a terminal, lines elsewhere. */
#ifndef VFIO_MIGRATE_PROGRESS_H
#define VFIO_MIGRATE_PROGRESS_H

#include "policy.h"
#include "transfer.h"

/* Look at it as often as you like; it is shown now and then. */
void progress_show(const struct transfer *t);

/*
 * The line that progress_show() draws: @columns wide at most; 0 for a plain line of any
 * length. The phase and the time that is left are always there.
 */
void progress_line(const struct transfer *t, uint64_t now, int columns, char *buf, size_t size);

/**
 * struct arrival - what a target's user sees
 * @of: bytes that there are in all, 0 if unknown
 * @bytes: how many have come
 * @began: when the first look was
 * @rate: of these
 * @looked: when that was seen, 0 before
 */
struct arrival {
	uint64_t	of;
	uint64_t	bytes;
	uint64_t	began;
	struct rate	rate;
	uint64_t	looked;
};

/* @startup_ns: how long the device still needs to start, 0 or NEVER if unknown */
void progress_arrival(struct arrival *arrival, uint64_t bytes, uint64_t startup_ns);

/* Somebody else shows it. */
void progress_disable(void);

/* Off the line, so that something else can be said. */
void progress_clear(void);

#endif /* VFIO_MIGRATE_PROGRESS_H */
