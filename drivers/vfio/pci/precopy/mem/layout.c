// SPDX-License-Identifier: GPL-2.0-only
/*
 * Large or small: when a unit is one folio, and when it is single pages.
 *
 * One folio lets a unit be mapped by one entry. But the mm knows whether a
 * folio was written, not which page of it: mprotect() and NUMA hinting change
 * the entries of a folio in batches and give all of them the dirty bit of any,
 * and an entry that is dirty may become writable without a fault. So what is
 * tracked by page has to be a folio by page: the first store to a unit that has to
 * be noticed splits it. Until then it is mapped read-only, except while it is loose.
 * The contents move to new pages, as there is no other way to divide a folio that is
 * not in a page cache.
 *
 * Both directions need memory.sem for write, nothing mapped, and no reference
 * but ours and those of page faults that wait for the split. Both copy most of the
 * contents before, while others may hold the lock (see mem/move.h): a split while the
 * unit is mapped read-only, a collapse while it is not mapped. A split that cannot be
 * done makes the unit loose (see mem/track.h); a collapse is left out.
 */

#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/mm_types.h>
#include <linux/mutex.h>
#include <linux/wait.h>

#include "entries.h"
#include "layout.h"
#include "memory.h"
#include "move.h"
#include "ram.h"
#include "reserve.h"
#include "track.h"

/*
 * A fault holds a reference for a moment before and after precopy_ram_hold()
 * notes it: the split waits for those, and not for others.
 */
#define PRECOPY_SPLIT_TRIES	8

static bool precopy_layout_splittable(const struct precopy_memory *mem,
				      unsigned long unit)
{
	lockdep_assert_held(&mem->sem);
	return mem->tracker && !precopy_tracker_writable(mem, unit);
}

static bool precopy_layout_collapsible(const struct precopy_memory *mem,
				       unsigned long unit)
{
	lockdep_assert_held(&mem->sem);
	return !mem->tracker && mem->ram &&
	       !precopy_ram_huge_folio(mem->ram, unit) &&
	       precopy_ram_unit_full(mem->ram, unit);
}

/* Get the contents and note the caller's reference, if the unit has to be split */
static struct precopy_ram *precopy_layout_hold(struct precopy_memory *mem,
					       unsigned long unit,
					       const struct folio *held)
{
	guard(rwsem_read)(&mem->sem);
	if (!precopy_layout_splittable(mem, unit))
		return NULL;
	precopy_ram_hold(mem->ram, unit, held);
	return precopy_ram_get(mem->ram);
}

static void precopy_layout_unhold(struct precopy_memory *mem,
				  struct precopy_ram *ram, unsigned long unit,
				  const struct folio *held)
{
	scoped_guard(rwsem_read, &mem->sem)
		precopy_ram_unhold(ram, unit, held);
	precopy_ram_put(ram);
}

/*
 * May the contents be copied while stores are noted? A reference is one through which
 * a store might come unseen. None can be added: what has one was not writable since
 * the unit was taken, and the flush of that ended the last walk which could have pinned.
 */
static bool precopy_layout_begin_copy(struct precopy_memory *mem,
				      struct precopy_ram *ram,
				      unsigned long unit)
{
	guard(rwsem_write)(&mem->sem);
	if (mem->ram != ram || !precopy_layout_splittable(mem, unit) ||
	    !precopy_ram_idle(ram, unit))
		return false;
	precopy_move_begin(mem, unit, false);
	return true;
}

/* Test knob: what happens between the copy and the end of a move, at leisure */
static void precopy_layout_linger(struct precopy_memory *mem)
{
	if (IS_ENABLED(CONFIG_PRECOPY_VFIO_PCI_TEST) &&
	    cmpxchg(&mem->hold_split, PRECOPY_SPLIT_HOLD,
		    PRECOPY_SPLIT_HELD) == PRECOPY_SPLIT_HOLD)
		wait_event_killable(mem->wait, READ_ONCE(mem->hold_split) !=
					       PRECOPY_SPLIT_HELD);
}

/* Copying 2 MiB takes long: others can fault and load meanwhile */
static void precopy_layout_copy(struct precopy_memory *mem,
				struct precopy_ram *ram, unsigned long unit,
				struct precopy_ram_unit *spare)
{
	if (precopy_ram_copy(ram, unit, spare)) {
		precopy_layout_linger(mem);
		return;
	}
	guard(rwsem_write)(&mem->sem);
	precopy_move_cancel(mem, unit);
}

/* Return: false to try again */
static bool precopy_layout_try_split(struct precopy_memory *mem,
				     struct precopy_ram *ram,
				     unsigned long unit,
				     struct precopy_ram_unit *spare, bool last)
{
	const unsigned long *pages;

	if (spare && precopy_layout_begin_copy(mem, ram, unit))
		precopy_layout_copy(mem, ram, unit, spare);
	guard(rwsem_write)(&mem->sem);
	pages = precopy_move_end(mem, unit);
	/* There is no reason any more */
	if (mem->ram != ram || !precopy_layout_splittable(mem, unit))
		return true;
	precopy_entries_remove_unit(mem, unit);
	if (spare && precopy_ram_swap(ram, unit, spare, pages)) {
		atomic64_inc(&mem->stats->splits);
		return true;
	}
	if (spare && !last)
		return false;
	precopy_tracker_loosen(mem, unit);
	atomic64_inc(&mem->stats->failed_splits);
	return true;
}

/*
 * The contents, and a table for the single pages if one is reserved, if the unit
 * is still to be split
 */
static struct precopy_ram *
precopy_layout_begin_split(struct precopy_memory *mem, unsigned long unit,
			   struct page ***pages)
{
	guard(rwsem_read)(&mem->sem);
	if (!precopy_layout_splittable(mem, unit))
		return NULL;
	*pages = precopy_reserve_use(&mem->tracker->reserve, unit);
	return precopy_ram_get(mem->ram);
}

static void precopy_layout_use_spare(struct precopy_memory *mem,
				     struct precopy_ram *ram, unsigned long unit,
				     struct precopy_ram_unit *spare)
{
	int try = 0;

	while (!precopy_layout_try_split(mem, ram, unit, spare,
					 ++try == PRECOPY_SPLIT_TRIES))
		usleep_range(20, 100);
	precopy_ram_unit_free(ram, spare);
}

/* While others split other units. Return: false if there is no memory. */
static bool precopy_layout_split_beside(struct precopy_memory *mem,
					struct precopy_ram *ram,
					unsigned long unit, struct page **pages)
{
	struct precopy_ram_unit *spare;

	guard(rwsem_read)(&mem->split_sem);
	spare = precopy_ram_spare(ram, false, pages, PRECOPY_GFP_EASY);
	if (!spare)
		return false;
	precopy_layout_use_spare(mem, ram, unit, spare);
	return true;
}

/* When all others have given back as many pages as they allocated */
static void precopy_layout_split_alone(struct precopy_memory *mem,
				       struct precopy_ram *ram,
				       unsigned long unit)
{
	guard(rwsem_write)(&mem->split_sem);
	precopy_layout_use_spare(mem, ram, unit,
				 precopy_ram_spare(ram, false, NULL,
						   PRECOPY_GFP_EASY));
}

/* One thread a unit, so that a second one finds the unit split and allocates nothing */
static void precopy_layout_do_split(struct precopy_memory *mem,
				    unsigned long unit)
{
	struct precopy_ram *ram;
	struct page **pages;

	guard(mutex)(&precopy_move_of(mem, unit)->lock);
	ram = precopy_layout_begin_split(mem, unit, &pages);
	if (!ram)
		return;
	if (!precopy_layout_split_beside(mem, ram, unit, pages))
		precopy_layout_split_alone(mem, ram, unit);
	precopy_ram_put(ram);
}

/**
 * precopy_layout_split - make a unit fit to be written while it is tracked
 * @mem: the memory
 * @unit: unit number
 * @held: folio that the mm has a reference on for the caller, or NULL
 *
 * Does nothing if it is that already, or is not tracked.
 *
 * Context: a page fault; may sleep, no lock of this driver held.
 */
void precopy_layout_split(struct precopy_memory *mem, unsigned long unit,
			  const struct folio *held)
{
	struct precopy_ram *ram = precopy_layout_hold(mem, unit, held);

	if (!ram)
		return;
	precopy_layout_do_split(mem, unit);
	precopy_layout_unhold(mem, ram, unit, held);
}

static bool precopy_layout_may_collapse(struct precopy_memory *mem,
					unsigned long unit)
{
	guard(rwsem_read)(&mem->sem);
	return precopy_layout_collapsible(mem, unit);
}

/* Get the contents, if the unit can be made one folio */
static struct precopy_ram *
precopy_layout_begin_collapse(struct precopy_memory *mem, unsigned long unit)
{
	guard(rwsem_read)(&mem->sem);
	return precopy_layout_collapsible(mem, unit) ?
	       precopy_ram_get(mem->ram) : NULL;
}

/*
 * As for a split. Nobody but a page fault can make an entry or get a reference once the
 * entries are gone, and page faults wait.
 */
static bool precopy_layout_begin_move(struct precopy_memory *mem,
				      struct precopy_ram *ram,
				      unsigned long unit)
{
	guard(rwsem_write)(&mem->sem);
	if (mem->ram != ram || !precopy_layout_collapsible(mem, unit))
		return false;
	precopy_entries_remove_unit(mem, unit);
	if (!precopy_ram_idle(ram, unit))
		return false;
	precopy_move_begin(mem, unit, true);
	return true;
}

/* A move that was cancelled is not worth another try */
static void precopy_layout_end_move(struct precopy_memory *mem,
				    struct precopy_ram *ram,
				    unsigned long unit,
				    struct precopy_ram_unit *spare)
{
	const unsigned long *pages;
	bool begun;

	guard(rwsem_write)(&mem->sem);
	begun = precopy_move_begun(mem, unit);
	pages = precopy_move_end(mem, unit);
	if (begun && mem->ram == ram && precopy_layout_collapsible(mem, unit) &&
	    precopy_ram_swap(ram, unit, spare, pages))
		atomic64_inc(&mem->stats->collapses);
}

/**
 * precopy_layout_collapse - make a unit one folio
 * @mem: the memory
 * @unit: unit number
 *
 * Does nothing if it is one, is tracked, or has holes; nor if there is no such
 * folio to be had, or somebody has a reference on a page.
 *
 * Context: a page fault; may sleep, no lock of this driver held.
 */
void precopy_layout_collapse(struct precopy_memory *mem, unsigned long unit)
{
	struct precopy_ram_unit *spare;
	struct precopy_ram *ram;

	/* Most units cannot be, and need not wait for others */
	if (!precopy_layout_may_collapse(mem, unit))
		return;
	guard(mutex)(&precopy_move_of(mem, unit)->lock);
	ram = precopy_layout_begin_collapse(mem, unit);
	if (!ram)
		return;
	spare = precopy_ram_spare(ram, true, NULL, PRECOPY_GFP_EASY);
	if (spare && precopy_layout_begin_move(mem, ram, unit)) {
		precopy_layout_copy(mem, ram, unit, spare);
		precopy_layout_end_move(mem, ram, unit, spare);
	}
	precopy_ram_unit_free(ram, spare);
	precopy_ram_put(ram);
}

/**
 * precopy_layout_wait - wait until a unit may get page table entries
 * @mem: the memory
 * @unit: unit number
 *
 * Context: a page fault; may sleep for as long as a copy of the unit takes, no lock of
 * this driver held.
 */
void precopy_layout_wait(struct precopy_memory *mem, unsigned long unit)
{
	scoped_guard(rwsem_read, &mem->sem)
		if (!precopy_move_closed(mem, unit))
			return;
	guard(mutex)(&precopy_move_of(mem, unit)->lock);
}
