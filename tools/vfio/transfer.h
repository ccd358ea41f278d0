/* SPDX-License-Identifier: GPL-2.0-only */
/* Measurements of one transfer, for progress and summary. */
#ifndef VFIO_MIGRATE_TRANSFER_H
#define VFIO_MIGRATE_TRANSFER_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

enum phase {
	PHASE_INITIAL,	/* pre-copy: data from its beginning */
	PHASE_WAIT,	/* waiting for the target to start */
	PHASE_DIRTY,	/* pre-copy: data written since */
	PHASE_STOPPED,	/* the device is stopped */
	PHASE_FINISH,	/* all data is sent; the target completes the load */
	PHASE_NR
};

/**
 * struct transfer - measurements of one transfer; times in ns
 * @phase: present phase
 * @bytes: number of bytes sent, by phase
 * @total: number of bytes sent in all phases
 * @pending: number of bytes that remain in the source
 * @in_flight: number of bytes sent and not yet written by the target
 * @bandwidth: measured bandwidth in bytes per second
 * @dirty_rate: measured rate of new dirty data in bytes per second
 * @startup_ns: estimated time until the target has started; NEVER if unknown
 * @promised_ns: expected downtime when the source was stopped
 * @acked: true if the target has acknowledged that it has started
 * @acked_running: true if the acknowledgment arrived before the source was
 *	stopped
 * @began: time of the beginning
 * @marked: time at which all initial bytes were sent, 0 before
 * @wait_ns: time from @marked until the acknowledgment, or until the source was
 *	stopped
 * @stopped: time at which the source was told to stop, 0 before
 * @ended: time at which the target ran, or the file was complete
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

/* Print the summary of command @what. Returns ST_AFTER if it cannot be printed. */
int transfer_summary(const struct transfer *t, const char *what, bool json);

/* Print the summary of a target that received @bytes in @ns; as text, one line. */
int arrival_summary(const char *what, const char *device, uint64_t bytes, uint64_t ns, bool json);

/* With --json, print the failure of command @what, unless only the COMMAND has failed. */
void failure_summary(const char *what, int status);

#endif /* VFIO_MIGRATE_TRANSFER_H */
