/* SPDX-License-Identifier: GPL-2.0-only */
/* Display of progress: a bar on a terminal, lines elsewhere. */
#ifndef VFIO_MIGRATE_PROGRESS_H
#define VFIO_MIGRATE_PROGRESS_H

#include "policy.h"
#include "transfer.h"

/* Update the display. May be called at any rate; it is redrawn at intervals. */
void progress_show(const struct transfer *t);

/*
 * Format the line that progress_show() draws, at most @columns wide; 0 for a plain line of
 * any length. The line always has the phase and the remaining time.
 */
void progress_line(const struct transfer *t, uint64_t now, int columns, char *buf, size_t size);

/**
 * struct arrival - progress of a target
 * @of: total number of bytes, 0 if unknown
 * @bytes: number of bytes received
 * @began: time of the first call
 * @rate: rate of reception
 * @looked: time of the last measurement of @rate, 0 before
 */
struct arrival {
	uint64_t	of;
	uint64_t	bytes;
	uint64_t	began;
	struct rate	rate;
	uint64_t	looked;
};

/* @startup_ns: time in ns until the device has started, 0 or NEVER if unknown */
void progress_arrival(struct arrival *arrival, uint64_t bytes, uint64_t startup_ns);

/* Turn the display off, because another process draws it. */
void progress_disable(void);

/* Clear the bar, so that a message can be printed. */
void progress_clear(void);

#endif /* VFIO_MIGRATE_PROGRESS_H */
