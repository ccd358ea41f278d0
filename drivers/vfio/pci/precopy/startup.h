/* SPDX-License-Identifier: GPL-2.0-only */
/* The startup of a target: what initial data is for. */
#ifndef PRECOPY_STARTUP_H
#define PRECOPY_STARTUP_H

#include <linux/ktime.h>
#include <linux/types.h>
#include <linux/workqueue.h>

struct precopy_session;

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

/**
 * struct precopy_startup - preparing a target in the background
 * @session: the resuming session that this is part of; the work holds a
 *	     reference on it
 * @work: does it
 * @units: units of memory that the source uses; written before the work is
 *	   queued
 * @nr_units: units in the BAR
 * @began: when PREFACE arrived
 * @phase: how far it is. From here on protected by state_lock.
 * @error: why it failed
 */
struct precopy_startup {
	struct precopy_session		*session;
	struct work_struct		work;
	unsigned long			*units;
	u32				nr_units;
	ktime_t				began;
	enum precopy_startup_phase	phase;
	int				error;
};

int precopy_startup_init(struct precopy_startup *startup,
			 struct precopy_session *session);
void precopy_startup_destroy(struct precopy_startup *startup);
int precopy_startup_begin(struct precopy_startup *startup);
int precopy_startup_result(struct precopy_startup *startup);
int precopy_startup_wait(struct precopy_startup *startup);
const char *precopy_startup_phase_name(const struct precopy_startup *startup);

#endif /* PRECOPY_STARTUP_H */
