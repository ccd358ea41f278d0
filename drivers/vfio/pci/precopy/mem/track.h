/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Which pages a saving session has still to send: what mem/ knows of it beyond the
 * verbs in mem/memory.h.
 */
#ifndef PRECOPY_TRACK_H
#define PRECOPY_TRACK_H

#include <linux/bitops.h>
#include <linux/lockdep.h>
#include <linux/types.h>

#include "dirty.h"
#include "memory.h"
#include "reserve.h"

/**
 * struct precopy_tracker - pages that are still to be sent
 * @sets: the sets, see enum precopy_set
 * @loose: bitmap of the units that are one folio and may have writable entries all
 *	   the same: those that nothing was taken of since the tracker was armed, and
 *	   those that could not be split. All of their pages are in one of the sets;
 *	   taking any of them out of the initial or the dirty set ends it. Written
 *	   with memory.sem held for write.
 * @reserve: memory for the splits of units that are one folio (see mem/reserve.h)
 * @expect_stores: whether @reserve is filled. Not in a session that begins when
 *		   the device has stopped. Constant.
 * @prepared: number of changes of the memory (precopy_ram_changes()) before room was
 *	      made for all of it; ULONG_MAX if it never was. Owned by whoever is
 *	      about to arm.
 * @wait: woken when there is a first dirty page. Constant.
 * @lock: held while pages move from one set to another, so that a count taken
 *	  with it held misses none. Constant.
 * @recheck_from: unit from which on the pinned set is looked at next; owned by the
 *		  thread that has the session busy
 *
 * A page is in one of the sets, but may be both dirty and pinned if it was written
 * just before it was set aside; it is then sent once more than needed. Where a
 * page of a unit may be marked in one of them, all three have room. Marking
 * happens in read sections of memory.sem, taking out of a set in write sections.
 * A saving session owns the tracker; memory.tracker points to it while tracking.
 */
struct precopy_tracker {
	struct precopy_dirty	sets[PRECOPY_SETS];
	unsigned long		*loose;
	struct precopy_reserve	reserve;
	bool			expect_stores;
	unsigned long		prepared;
	wait_queue_head_t	*wait;
	spinlock_t		*lock;	/* see above */
	unsigned long		recheck_from;
};

int precopy_tracker_reserve(struct precopy_tracker *tracker,
			    unsigned long unit, gfp_t gfp);
void precopy_tracker_mark(struct precopy_memory *mem, unsigned long page);

bool precopy_tracker_writable(const struct precopy_memory *mem,
			      unsigned long unit);
void precopy_tracker_loosen(struct precopy_memory *mem, unsigned long unit);

/**
 * precopy_tracker_notices - check whether stores to a unit have to be noticed
 * @mem: the memory
 * @unit: unit number
 *
 * Context: memory.sem held, until an entry of the unit is made.
 * Return: false if any entry of the unit may be writable, of any size and without a
 * mark: if nobody tracks, or if the unit is loose, so that all of its pages will be
 * sent and its entries removed before.
 */
static inline bool
precopy_tracker_notices(const struct precopy_memory *mem, unsigned long unit)
{
	lockdep_assert_held(&mem->sem);
	return mem->tracker && !test_bit(unit, mem->tracker->loose);
}

/**
 * precopy_tracker_reserved - check whether there is room for marks in a unit
 * @tracker: tracker of the memory, or to be armed
 * @unit: unit number
 *
 * Return: true if so; it will not change back.
 */
static inline bool
precopy_tracker_reserved(const struct precopy_tracker *tracker,
			 unsigned long unit)
{
	int set;

	for (set = 0; set < PRECOPY_SETS; set++)
		if (!precopy_dirty_reserved(&tracker->sets[set], unit))
			return false;
	return true;
}

#endif /* PRECOPY_TRACK_H */
