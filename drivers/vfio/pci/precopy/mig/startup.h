/* SPDX-License-Identifier: GPL-2.0-only */
/* The startup of a target: what initial data is for. */
#ifndef PRECOPY_STARTUP_H
#define PRECOPY_STARTUP_H

#include <linux/atomic.h>
#include <linux/ktime.h>
#include <linux/types.h>
#include <linux/workqueue.h>

#include "section.h"

struct precopy_decoder;
struct precopy_device;
struct precopy_session;
struct precopy_startup;
struct vfio_precopy_startup;

#define PRECOPY_STARTUP_WORKERS	4U

/**
 * enum precopy_startup_phase - how far the startup is
 * @PRECOPY_STARTUP_WAITING: no PREFACE yet
 * @PRECOPY_STARTUP_STARTING: the work is running
 * @PRECOPY_STARTUP_READY: done
 * @PRECOPY_STARTUP_FAILED: given up
 */
enum precopy_startup_phase {
	PRECOPY_STARTUP_WAITING,
	PRECOPY_STARTUP_STARTING,
	PRECOPY_STARTUP_READY,
	PRECOPY_STARTUP_FAILED,
};

/* One of the works that share a startup */
struct precopy_startup_worker {
	struct work_struct	work;
	struct precopy_startup	*startup;
};

/**
 * struct precopy_startup - preparing a target in the background
 * @session: the resuming session that this is part of; the running workers hold
 *	     one reference on it
 * @workers: the workers. While they run, they own everything down to @took_ns.
 * @parts: parts of the sections that have something to prepare; NULL after the
 *	   last. Fixed from precopy_startup_init() on.
 * @delay_ms: the test knob, when the workers were queued, ms
 * @prepared: what the sections have prepared, bytes
 * @allocated: what was not there before and was allocated for that, bytes
 * @running: number of workers that have not ended
 * @failed: errno that the first of them failed with, or 0
 * @took_ns: time that the startup took, once it is complete, ns
 * @began: when PREFACE arrived. From here on protected by state_lock.
 * @bytes_in_use: what it said, bytes
 * @bytes_wanted: what the sections are to prepare, bytes
 * @phase: how far it is
 * @error: why it failed
 */
struct precopy_startup {
	struct precopy_session		*session;
	struct precopy_startup_worker	workers[PRECOPY_STARTUP_WORKERS];
	struct precopy_startup_part	*parts[PRECOPY_MAX_SECTIONS + 1];
	u32				delay_ms;
	atomic64_t			prepared;
	atomic64_t			allocated;
	atomic_t			running;
	atomic_t			failed;
	u64				took_ns;
	ktime_t				began;
	u64				bytes_in_use;
	u64				bytes_wanted;
	enum precopy_startup_phase	phase;
	int				error;
};

int precopy_startup_init(struct precopy_startup *startup,
			 struct precopy_session *session);
void precopy_startup_destroy(struct precopy_startup *startup);
struct precopy_startup_part *
precopy_startup_part(struct precopy_startup *startup,
		     const struct precopy_section *section);
int precopy_startup_begin(struct precopy_startup *startup,
			  const struct precopy_decoder *dec);
int precopy_startup_result(struct precopy_startup *startup);
int precopy_startup_wait(struct precopy_startup *startup);
void precopy_startup_tell(const struct precopy_startup *startup,
			  struct vfio_precopy_startup *info);
u64 precopy_startup_estimate(struct precopy_device *pcd, u64 bytes,
			     bool *measured);
const char *precopy_startup_phase_name(const struct precopy_startup *startup);

#endif /* PRECOPY_STARTUP_H */
