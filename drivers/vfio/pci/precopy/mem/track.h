/* SPDX-License-Identifier: GPL-2.0-only */
/* Which pages a saving session has still to send. */
#ifndef PRECOPY_TRACK_H
#define PRECOPY_TRACK_H

#include <linux/types.h>
#include <linux/xarray.h>

#include "dirty.h"

struct precopy_device;
struct precopy_memory;
struct wait_queue_head;

/**
 * struct precopy_tracker - pages that are still to be sent
 * @initial: in use when the session began and not sent yet
 * @dirty: written after they were sent, or first used since the session began
 * @pinned: set aside, because of references that can write unseen, or because
 *	    the unit is loose. Sent when released, at the latest when the
 *	    device has stopped.
 * @loose: units that are one folio and have writable entries all the same. All
 *	   of their pages are in one of the sets; taking any of them out of
 *	   @initial or @dirty ends it. Written with memory.sem held for write.
 * @reserve: unit number to struct precopy_reserve, for units that are one folio
 *	     and were not split yet (see mem/layout.c)
 * @expect_stores: whether @reserve is filled. Not in a session that begins when
 *		   the device has stopped. Constant.
 * @wait: woken when there is a first dirty page
 * @recheck_from: unit from which on @pinned is looked at next; owned by who has
 *		  the session busy
 *
 * A page is in one of them, but may be both dirty and pinned if it was written
 * just before it was set aside; it is then sent once more than needed. Where a
 * page of a unit may be marked in one of them, all three have room. Marking
 * happens in read sections of memory.sem, taking out of a set in write
 * sections. The tracker is part of a saving session; memory.tracker points to
 * it while tracking.
 */
struct precopy_tracker {
	struct precopy_dirty	initial;
	struct precopy_dirty	dirty;
	struct precopy_dirty	pinned;
	unsigned long		*loose;
	struct xarray		reserve;
	bool			expect_stores;
	struct wait_queue_head	*wait;
	unsigned long		recheck_from;
};

int precopy_tracker_init(struct precopy_tracker *tracker, u64 size,
			 struct wait_queue_head *wait);
void precopy_tracker_destroy(struct precopy_tracker *tracker);

int precopy_tracker_reserve(struct precopy_tracker *tracker,
			    unsigned long unit, gfp_t gfp);
bool precopy_tracker_reserved(const struct precopy_tracker *tracker,
			      unsigned long unit);
int precopy_tracker_prepare(struct precopy_device *pcd,
			    struct precopy_tracker *tracker);
bool precopy_tracker_prepared(struct precopy_device *pcd,
			      struct precopy_tracker *tracker);
void precopy_tracker_arm(struct precopy_device *pcd,
			 struct precopy_tracker *tracker);
void precopy_tracker_clear(struct precopy_tracker *tracker);
void precopy_tracker_disarm(struct precopy_device *pcd);
void precopy_tracker_mark(struct precopy_tracker *tracker, unsigned long page);

bool precopy_tracker_writable(const struct precopy_memory *mem,
			      unsigned long unit);
void precopy_tracker_loosen(struct precopy_tracker *tracker,
			    unsigned long unit);
void precopy_tracker_tighten(struct precopy_device *pcd,
			     struct precopy_tracker *tracker,
			     unsigned long unit);

void precopy_tracker_protect(struct precopy_device *pcd,
			     unsigned long unit, const unsigned long *pages);
unsigned long precopy_tracker_set_aside(struct precopy_device *pcd,
					struct precopy_tracker *tracker,
					unsigned long unit,
					unsigned long *pages);
void precopy_tracker_recheck(struct precopy_device *pcd,
			     struct precopy_tracker *tracker, bool all);

#endif /* PRECOPY_TRACK_H */
