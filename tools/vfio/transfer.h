/* SPDX-License-Identifier: GPL-2.0-only */
/* What is measured of one transfer, for progress and summary. */
#ifndef VFIO_MIGRATE_TRANSFER_H
#define VFIO_MIGRATE_TRANSFER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum phase {
	PHASE_INITIAL,	/* pre-copy: what there was when it began */
	PHASE_WAIT,	/* for the target to start */
	PHASE_DIRTY,	/* pre-copy: what was written since */
	PHASE_STOPPED,	/* the device stands still */
	PHASE_FINISH,	/* all is sent, the target completes */
	PHASE_NR
};

/**
 * struct transfer - one transfer
 * @phase: now
 * @bytes: sent, by phase
 * @total: sent, in all
 * @pending: still in the source
 * @in_flight: not yet written at the target
 * @bandwidth: bytes a second, measured
 * @dirty_rate: bytes a second, measured
 * @startup_ns: until the target has started, estimated; NEVER if unknown
 * @promised_ns: the downtime that was expected when the source was stopped
 * @acked: the target has acknowledged that it has started
 * @acked_running: and did so before the source was stopped
 * @began: when
 * @marked: when all initial bytes were sent, 0 before
 * @wait_ns: from then until the acknowledgment, or until the source was stopped
 * @stopped: when the source was told to stop, 0 before
 * @ended: when the target ran, or the file was complete
 */
struct transfer {
	enum phase	phase;
	uint64_t	bytes[PHASE_NR];
	uint64_t	total;
	uint64_t	pending;
	uint64_t	in_flight;
	double		bandwidth;
	double		dirty_rate;
	uint64_t	startup_ns;
	uint64_t	promised_ns;
	bool		acked;
	bool		acked_running;
	uint64_t	began;
	uint64_t	marked;
	uint64_t	wait_ns;
	uint64_t	stopped;
	uint64_t	ended;
};

const char *phase_name(enum phase phase);

/* @what: "move" and the like. ST_AFTER if it cannot be printed. */
int transfer_summary(const struct transfer *t, const char *what, bool json);

/* The same for a target that took @bytes within @ns; as text, a line of news. */
int arrival_summary(const char *what, const char *device, uint64_t bytes, uint64_t ns, bool json);

/* With --json: that @what has failed, and why, unless nothing of ours has. */
void failure_summary(const char *what, int status);

#endif /* VFIO_MIGRATE_TRANSFER_H */
