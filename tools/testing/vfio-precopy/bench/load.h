/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Threads that load from and store to mapped memory at random, in bursts with
 * pauses between, and measure the time of each access.
 *
 * On a machine with fewer processors than threads, most of a long time may be that
 * of the scheduler. So an access that takes long is divided by what the kernel
 * counts for its thread: the time in which it could run but had no processor
 * (schedstat's run_delay), the time in which it ran, and the rest, in which it slept
 * for a lock. Counters are read before a burst and after a long access, so the time
 * asleep is too short by what the accesses between took, and never too long. If the
 * machine is virtual itself, the time in which its processor did not run counts as
 * time in which the thread ran.
 */
#ifndef VFIO_PRECOPY_BENCH_LOAD_H
#define VFIO_PRECOPY_BENCH_LOAD_H

#include <stdint.h>

#include "hist.h"

#define LOAD_PHASES	16

enum load_kind {
	LOAD_READ,
	LOAD_WRITE,
	LOAD_KINDS,
};

enum load_time {
	LOAD_WALL,		/* all of it */
	LOAD_DRIVER,		/* without the time that there was no processor */
	LOAD_ASLEEP,		/* asleep; only of accesses that took long */
	LOAD_TIMES,
};

struct load;

/* Starts @nr threads of each kind, paused. */
struct load *load_start(int nr);
void load_stop(struct load *load);

/* While paused: go on with the @nr_pages pages at @at, without any times yet. */
void load_resume(struct load *load, char *at, uint64_t nr_pages);
/* Returns when no access is in flight. */
void load_pause(struct load *load);

/*
 * Accesses that begin from now on belong to phase @phase, below LOAD_PHASES. One
 * that began in a phase that is not @busy and ends in a later one belongs to the
 * next phase after its own: that is what delayed it.
 */
void load_phase(struct load *load, int phase, int busy);

/* While paused: adds the times of one phase and kind to @hist. */
void load_times(const struct load *load, int phase, enum load_kind kind,
		enum load_time time, struct hist *hist);

#endif /* VFIO_PRECOPY_BENCH_LOAD_H */
