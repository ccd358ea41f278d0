// SPDX-License-Identifier: GPL-2.0-only
/*
 * Arming, collecting and disarming of the dirty tracker.
 *
 * Prepare: make room in the sets for what is in use, and later for what comes
 *	    into use, so that nothing below can fail.
 * Arm:     take a snapshot of what is in use, and point the memory to the tracker.
 *	    Page table entries stay, writable as they are: all of them map pages of
 *	    the initial set, which need no mark. Units that are one folio are loose.
 * Collect: take pages out of a set (mig/memory_save.c, under memory.sem for write),
 *	    then protect them, flushed, then look for pins, and only then copy. A
 *	    store that the copy misses comes after the protection, so it faults
 *	    and marks the page again. Taking pages of a loose unit removes all of its
 *	    entries, in the same section, because those of a folio are not protected
 *	    one by one.
 * Disarm:  take the tracker away from the memory. Entries that are read-only stay so
 *	    until a store faults, which makes all of their unit writable.
 */

#include <linux/bitmap.h>
#include <linux/dev_printk.h>
#include <linux/ktime.h>
#include <linux/math.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include <kunit/visibility.h>

#define CREATE_TRACE_POINTS
#include "trace.h"

#include "charge.h"
#include "entries.h"
#include "memory.h"
#include "move.h"
#include "ram.h"
#include "reserve.h"
#include "track.h"

/* Of 2 MiB, to be looked at by one read(); 0.1 to 0.2 ms */
#define PRECOPY_RECHECK_UNITS	16

/**
 * precopy_tracker_create - allocate a tracker with empty sets
 * @size: size of the memory, bytes
 * @expect_stores: whether the device may be written while it is tracked
 * @wait: woken when there is a first dirty page
 * @lock: spinlock that the caller holds to count pages, and that is held while
 *	  pages move from one set to another
 *
 * Context: may sleep.
 * Return: the tracker, or NULL.
 */
struct precopy_tracker *precopy_tracker_create(u64 size, bool expect_stores,
					       wait_queue_head_t *wait,
					       spinlock_t *lock)
{
	struct precopy_tracker *tracker =
		kzalloc_obj(*tracker, GFP_KERNEL_ACCOUNT);
	unsigned long nr_units = DIV_ROUND_UP(size, PRECOPY_UNIT_SIZE);
	int set, ret;

	if (!tracker)
		return NULL;
	tracker->expect_stores = expect_stores;
	tracker->prepared = ULONG_MAX;
	tracker->wait = wait;
	tracker->lock = lock;
	ret = precopy_reserve_init(&tracker->reserve, nr_units);
	for (set = 0; !ret && set < PRECOPY_SETS; set++)
		ret = precopy_dirty_init(&tracker->sets[set],
					 size >> PAGE_SHIFT);
	tracker->loose = bitmap_zalloc(nr_units, GFP_KERNEL_ACCOUNT);
	if (!ret && tracker->loose)
		return tracker;
	precopy_tracker_free(tracker);
	return NULL;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_tracker_create);

/**
 * precopy_tracker_free - free a tracker
 * @tracker: the tracker, or NULL; no memory points to it any more
 *
 * Context: may sleep.
 */
void precopy_tracker_free(struct precopy_tracker *tracker)
{
	int set;

	if (!tracker)
		return;
	for (set = 0; set < PRECOPY_SETS; set++)
		precopy_dirty_destroy(&tracker->sets[set]);
	precopy_reserve_destroy(&tracker->reserve);
	bitmap_free(tracker->loose);
	kfree(tracker);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_tracker_free);

/**
 * precopy_tracker_reserve - make room for marks in a unit
 * @tracker: tracker of the memory, or to be armed
 * @unit: unit number
 * @gfp: how hard to try
 *
 * Context: may sleep.
 * Return: 0 or -ENOMEM.
 */
int precopy_tracker_reserve(struct precopy_tracker *tracker,
			    unsigned long unit, gfp_t gfp)
{
	int set, ret = 0;

	for (set = 0; !ret && set < PRECOPY_SETS; set++)
		ret = precopy_dirty_reserve(&tracker->sets[set], unit, gfp);
	return ret;
}

/**
 * precopy_tracker_mark - note that a page is about to be, or was, written
 * @mem: the memory, tracked
 * @page: page number in the BAR
 *
 * A page that waits to be sent anyway, for the first time or once it is
 * released, needs no mark: it is protected before it is copied.
 *
 * Context: read section of memory.sem that also contains the store, or the
 * insertion of the page table entry that allows it; and that found room for the
 * page's unit.
 */
void precopy_tracker_mark(struct precopy_memory *mem, unsigned long page)
{
	struct precopy_tracker *tracker = mem->tracker;

	lockdep_assert_held(&mem->sem);
	if (precopy_dirty_test(&tracker->sets[PRECOPY_INITIAL], page) ||
	    precopy_dirty_test(&tracker->sets[PRECOPY_PINNED], page))
		return;
	if (precopy_dirty_mark(&tracker->sets[PRECOPY_DIRTY], page) &&
	    wq_has_sleeper(tracker->wait))
		wake_up_poll(tracker->wait, EPOLLIN | EPOLLRDNORM);
}

/**
 * precopy_tracker_writable - check whether entries of a unit may be writable
 * @mem: the memory, tracked
 * @unit: unit number
 *
 * Context: memory.sem held.
 * Return: true if it is single pages, or loose; false if it has to be split
 * first.
 */
bool precopy_tracker_writable(const struct precopy_memory *mem,
			      unsigned long unit)
{
	lockdep_assert_held(&mem->sem);
	return !precopy_ram_huge_folio(mem->ram, unit) ||
	       test_bit(unit, mem->tracker->loose);
}

/**
 * precopy_tracker_loosen - let a unit be written that cannot be split
 * @mem: the memory, tracked
 * @unit: unit number, one folio
 *
 * Nobody can tell which pages are written: all wait, as those do on which
 * somebody has a reference. Also those that were taken and are not copied yet:
 * they are in no set, and what is copied of them is not what counts.
 *
 * Context: memory.sem held for write.
 */
void precopy_tracker_loosen(struct precopy_memory *mem, unsigned long unit)
{
	struct precopy_dirty *sets = mem->tracker->sets;
	unsigned long page = unit * PRECOPY_UNIT_PAGES;
	unsigned long end = page + PRECOPY_UNIT_PAGES;

	lockdep_assert_held_write(&mem->sem);
	for (; page < end; page++)
		if (!precopy_dirty_test(&sets[PRECOPY_INITIAL], page) &&
		    !precopy_dirty_test(&sets[PRECOPY_DIRTY], page))
			precopy_dirty_mark(&sets[PRECOPY_PINNED], page);
	__set_bit(unit, mem->tracker->loose);
}

static void precopy_tracker_clear_set(struct precopy_dirty *set)
{
	DECLARE_BITMAP(ignored, PRECOPY_UNIT_PAGES);
	unsigned long unit;

	for (unit = precopy_dirty_next_unit(set, 0); unit < set->nr_units;
	     unit = precopy_dirty_next_unit(set, unit + 1))
		precopy_dirty_take(set, unit, ignored);
}

/**
 * precopy_tracker_clear - forget all pages, to arm again
 * @mem: the memory, tracked
 *
 * Context: memory.sem held for write, until the tracker is armed.
 */
void precopy_tracker_clear(struct precopy_memory *mem)
{
	struct precopy_tracker *tracker = mem->tracker;
	int set;

	lockdep_assert_held_write(&mem->sem);
	for (set = 0; set < PRECOPY_SETS; set++)
		precopy_tracker_clear_set(&tracker->sets[set]);
	bitmap_zero(tracker->loose, tracker->sets[PRECOPY_INITIAL].nr_units);
}

static unsigned long
precopy_tracker_next_used(const struct precopy_memory *mem, unsigned long from)
{
	return mem->ram ? precopy_ram_next_unit(mem->ram, from) : ULONG_MAX;
}

/* The next units to prepare, and which of them may have to be split */
static unsigned long precopy_tracker_next_batch(struct precopy_memory *mem,
						unsigned long from,
						unsigned long *used,
						unsigned long *huge)
{
	guard(rwsem_read)(&mem->sem);
	return mem->ram ? precopy_ram_units(mem->ram, from, used, huge) :
			  ULONG_MAX;
}

/* The pages of one spare unit are all that splits need, if they take turns */
static int precopy_tracker_try_spare(struct precopy_memory *mem)
{
	struct precopy_ram *ram = NULL;
	int ret = 0;

	scoped_guard(rwsem_read, &mem->sem)
		if (mem->ram)
			ram = precopy_ram_get(mem->ram);
	if (ram)
		ret = precopy_reserve_try_spare(ram);
	precopy_ram_put(ram);
	return ret;
}

/* A batch consists of whole chunks. */
static_assert(PRECOPY_BATCH_UNITS % PRECOPY_DIRTY_CHUNK == 0);

/* Room is made for a chunk at a time, so one unit of each is enough. */
static int precopy_tracker_reserve_batch(struct precopy_tracker *tracker,
					 unsigned long first,
					 const unsigned long *used)
{
	unsigned long i = find_first_bit(used, PRECOPY_BATCH_UNITS);
	int ret = 0;

	while (!ret && i < PRECOPY_BATCH_UNITS) {
		ret = precopy_tracker_reserve(tracker, first + i, PRECOPY_GFP);
		i = find_next_bit(used, PRECOPY_BATCH_UNITS,
				  round_up(i + 1, PRECOPY_DIRTY_CHUNK));
	}
	return ret;
}

/* Some units at a time, so that nobody waits for the memory to be found */
static int precopy_tracker_prepare_units(struct precopy_memory *mem,
					 struct precopy_tracker *tracker)
{
	DECLARE_BITMAP(used, PRECOPY_BATCH_UNITS);
	DECLARE_BITMAP(huge, PRECOPY_BATCH_UNITS);
	unsigned long unit = 0;
	bool splits = false;
	int ret;

	while ((unit = precopy_tracker_next_batch(mem, unit, used, huge)) !=
	       ULONG_MAX) {
		if (fatal_signal_pending(current))
			return -EINTR;
		ret = precopy_tracker_reserve_batch(tracker, unit, used);
		if (!ret && tracker->expect_stores) {
			ret = precopy_reserve_units(&tracker->reserve, unit,
						    huge);
			splits |= !bitmap_empty(huge, PRECOPY_BATCH_UNITS);
		}
		if (ret)
			return ret;
		unit += PRECOPY_BATCH_UNITS;
		cond_resched();
	}
	return splits ? precopy_tracker_try_spare(mem) : 0;
}

static unsigned long precopy_tracker_changes(struct precopy_memory *mem)
{
	guard(rwsem_read)(&mem->sem);
	return precopy_ram_changes(mem->ram);
}

/**
 * precopy_tracker_prepare - make room for all that is in use
 * @mem: the memory
 * @tracker: tracker of the memory, or to be armed
 *
 * Room for marks, and what it takes to split every unit that is one folio.
 *
 * Context: may sleep; memory.sem not held.
 * Return: 0, -ENOMEM, or -EINTR after a fatal signal.
 */
int precopy_tracker_prepare(struct precopy_memory *mem,
			    struct precopy_tracker *tracker)
{
	struct mem_cgroup *memcg __free(precopy_memcg) = precopy_memcg_get(mem);
	unsigned long changes = precopy_tracker_changes(mem);
	int ret;

	CLASS(precopy_charge, old)(memcg);
	ret = precopy_tracker_prepare_units(mem, tracker);
	if (!ret)
		tracker->prepared = changes;
	if (ret == -ENOMEM)
		dev_err_ratelimited(mem->dev,
				    "not enough memory to track what is written\n");
	return ret;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_tracker_prepare);

/* A unit that is not one folio any more needs no reserve */
static bool precopy_tracker_unit_prepared(const struct precopy_memory *mem,
					  struct precopy_tracker *tracker,
					  unsigned long unit)
{
	return precopy_tracker_reserved(tracker, unit) &&
	       (!tracker->expect_stores ||
		!precopy_ram_huge_folio(mem->ram, unit) ||
		precopy_reserve_has(&tracker->reserve, unit));
}

/**
 * precopy_tracker_prepared - check whether there is room for all that is in use
 * @mem: the memory
 * @tracker: tracker of the memory, or to be armed
 *
 * Takes no time if nothing has come into use since precopy_tracker_prepare().
 *
 * Context: memory.sem held for write, until the tracker is armed.
 * Return: false if there is no room for something that has.
 */
bool precopy_tracker_prepared(const struct precopy_memory *mem,
			      struct precopy_tracker *tracker)
{
	unsigned long unit;

	lockdep_assert_held_write(&mem->sem);
	if (tracker->prepared == precopy_ram_changes(mem->ram))
		return true;
	for (unit = precopy_tracker_next_used(mem, 0); unit != ULONG_MAX;
	     unit = precopy_tracker_next_used(mem, unit + 1)) {
		if (!precopy_tracker_unit_prepared(mem, tracker, unit))
			return false;
		cond_resched();
	}
	return true;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_tracker_prepared);

/*
 * A unit without room has come since precopy_tracker_prepared(), as pages may that
 * this does not find: nobody can have mapped them yet, let alone stored to them.
 */
static void precopy_tracker_arm_unit(unsigned long unit,
				     const unsigned long *pages, bool whole,
				     bool huge, void *arg)
{
	struct precopy_tracker *tracker = arg;

	if (!precopy_tracker_reserved(tracker, unit))
		return;
	if (pages)
		precopy_dirty_fill(&tracker->sets[PRECOPY_INITIAL], unit, pages);
	else
		precopy_dirty_fill_whole(&tracker->sets[PRECOPY_INITIAL], unit);
	if (huge)
		__set_bit(unit, tracker->loose);
}

/**
 * precopy_tracker_arm - begin tracking
 * @mem: the memory
 * @tracker: prepared, in the same section of memory.sem; empty sets; the initial one
 *	     is filled with what is in use
 *
 * Entries may be there, and writable. Whoever made one held memory.sem, and pages
 * and units stay, so each maps a page that is found in use here. Stores through it
 * need no mark while the page is in the initial set, and whoever takes the page out
 * has to protect it. Splits that are under way copy their units once more: since
 * tracking ended, or from now on if it is begun anew, stores may come unseen. (They give
 * up if they end while nobody tracks.)
 *
 * Costs in proportion to what is in use.
 *
 * Context: memory.sem held for write.
 */
void precopy_tracker_arm(struct precopy_memory *mem,
			 struct precopy_tracker *tracker)
{
	lockdep_assert_held_write(&mem->sem);
	if (mem->ram)
		precopy_ram_walk(mem->ram, precopy_tracker_arm_unit, tracker);
	WRITE_ONCE(mem->tracker, tracker);
	precopy_moves_cancel(mem);
	trace_precopy_arm(mem->dev,
			  precopy_tracker_count(tracker, PRECOPY_INITIAL));
}

/**
 * precopy_tracker_disarm - stop tracking
 * @mem: the memory
 *
 * Entries stay. Those that tracking left read-only cost a store one fault for each
 * unit, as none at all would cost any access, and nobody waits for their removal.
 * The page tables stay as well, and while they do there is no room for 2 MiB
 * entries. They go when the user unmaps, or with MADV_DONTNEED; a driver has
 * no means to free them.
 *
 * Context: memory.sem held for write.
 */
void precopy_tracker_disarm(struct precopy_memory *mem)
{
	ktime_t began = ktime_get();

	lockdep_assert_held_write(&mem->sem);
	if (!mem->tracker)
		return;
	WRITE_ONCE(mem->tracker, NULL);
	atomic64_set(&mem->stats->last_disarm_ns, ktime_get() - began);
	trace_precopy_disarm(mem->dev);
}

/**
 * precopy_tracker_armed - check whether a tracker is that of the memory
 * @mem: the memory
 * @tracker: the tracker
 *
 * Context: memory.sem held.
 * Return: true if so; false before precopy_tracker_arm(), and after a disarm, a
 * discard or a reset.
 */
bool precopy_tracker_armed(const struct precopy_memory *mem,
			   const struct precopy_tracker *tracker)
{
	lockdep_assert_held(&mem->sem);
	return mem->tracker == tracker;
}

/* --- The sets --------------------------------------------------------- */

/**
 * precopy_tracker_count - count the pages of a set
 * @tracker: the tracker
 * @set: which set
 *
 * Context: any. With the tracker's lock held no page is missing that moves from
 * one set to another.
 * Return: number of pages.
 */
unsigned long precopy_tracker_count(const struct precopy_tracker *tracker,
				    enum precopy_set set)
{
	return precopy_dirty_count(&tracker->sets[set]);
}

/**
 * precopy_tracker_next - find a unit with pages in a set
 * @tracker: the tracker
 * @set: which set
 * @from: unit to start from
 *
 * Context: any; a snapshot unless memory.sem is held for write.
 * Return: the first such unit at or after @from, ULONG_MAX if there is none.
 */
unsigned long precopy_tracker_next(const struct precopy_tracker *tracker,
				   enum precopy_set set, unsigned long from)
{
	const struct precopy_dirty *d = &tracker->sets[set];
	unsigned long unit = precopy_dirty_next_unit(d, from);

	return unit < d->nr_units ? unit : ULONG_MAX;
}

/**
 * precopy_tracker_whole - count the units that are in a set as a whole
 * @tracker: the tracker
 * @set: which set
 *
 * Context: as for precopy_tracker_next().
 * Return: number of units of which all PRECOPY_UNIT_PAGES pages are in the set, as far
 * as one look tells. precopy_tracker_next_partial() finds all others.
 */
unsigned long precopy_tracker_whole(const struct precopy_tracker *tracker,
				    enum precopy_set set)
{
	return precopy_dirty_nr_whole(&tracker->sets[set]);
}

/**
 * precopy_tracker_next_partial - find a unit that precopy_tracker_whole() did not count
 * @tracker: the tracker
 * @set: which set
 * @from: unit to start from
 *
 * Context: as for precopy_tracker_next().
 * Return: the first such unit with pages in @set at or after @from, ULONG_MAX if there
 * is none.
 */
unsigned long precopy_tracker_next_partial(const struct precopy_tracker *tracker,
					   enum precopy_set set,
					   unsigned long from)
{
	const struct precopy_dirty *d = &tracker->sets[set];
	unsigned long unit = precopy_dirty_next_partial(d, from);

	return unit < d->nr_units ? unit : ULONG_MAX;
}

/**
 * precopy_tracker_pages - get the pages of a unit that are in a set
 * @tracker: the tracker
 * @set: which set
 * @unit: unit number, of a unit with room
 *
 * Context: as for precopy_tracker_next().
 * Return: bitmap of PRECOPY_UNIT_PAGES bits.
 */
const unsigned long *
precopy_tracker_pages(const struct precopy_tracker *tracker,
		      enum precopy_set set, unsigned long unit)
{
	return precopy_dirty_unit(&tracker->sets[set], unit);
}

/**
 * precopy_tracker_begin_take - find pages to take out of a set
 * @mem: the memory, tracked
 * @set: which set
 * @from: unit to start from
 *
 * If the unit is loose, all of its entries are removed, so that the next store
 * faults. From then on its entries are read-only until it is split.
 *
 * Context: may sleep; memory.sem held for write until precopy_tracker_take().
 * Return: the first unit at or after @from with pages in @set, ULONG_MAX if there
 * is none.
 */
unsigned long precopy_tracker_begin_take(struct precopy_memory *mem,
					 enum precopy_set set,
					 unsigned long from)
{
	unsigned long unit = precopy_tracker_next(mem->tracker, set, from);

	lockdep_assert_held_write(&mem->sem);
	if (unit != ULONG_MAX &&
	    __test_and_clear_bit(unit, mem->tracker->loose))
		precopy_entries_remove_unit(mem, unit);
	return unit;
}

/**
 * precopy_tracker_take - take the pages of a unit out of a set
 * @mem: the memory, tracked
 * @set: which set
 * @unit: result of precopy_tracker_begin_take()
 * @pages: result: bitmap of PRECOPY_UNIT_PAGES bits
 *
 * The caller has to protect the pages (precopy_tracker_protect()) before it looks
 * at what they hold.
 *
 * Context: memory.sem held for write, and the tracker's lock inside it.
 * Return: number of pages taken.
 */
unsigned long precopy_tracker_take(struct precopy_memory *mem,
				   enum precopy_set set, unsigned long unit,
				   unsigned long *pages)
{
	lockdep_assert_held_write(&mem->sem);
	lockdep_assert_held(mem->tracker->lock);
	return precopy_dirty_take(&mem->tracker->sets[set], unit, pages);
}

/**
 * precopy_tracker_protect - let the next store to each of some pages fault
 * @mem: the memory
 * @unit: unit that the pages are in
 * @pages: bitmap of PRECOPY_UNIT_PAGES bits, not empty, taken out of a set
 *	   before
 *
 * Entries of a unit that is one folio are read-only and clean already, as they
 * have been since they were made: those that were not were removed when the pages
 * were taken (see precopy_tracker_begin_take()). Or the unit became loose after that,
 * and then the pages are sent once more (see precopy_tracker_loosen()).
 *
 * Context: may sleep; memory.sem held, and the memory tracked, so that the pages
 * stay, and no 2 MiB entry is writable. All TLBs are flushed on return.
 */
void precopy_tracker_protect(struct precopy_memory *mem, unsigned long unit,
			     const unsigned long *pages)
{
	lockdep_assert_held(&mem->sem);
	if (!precopy_ram_huge_folio(mem->ram, unit))
		precopy_entries_protect(mem, unit, pages);
	trace_precopy_collect(mem->dev, unit,
			      bitmap_weight(pages, PRECOPY_UNIT_PAGES));
}

/**
 * precopy_tracker_set_aside - keep back pages that may be written unseen
 * @mem: the memory, tracked
 * @unit: unit that the pages are in
 * @pages: bitmap of PRECOPY_UNIT_PAGES bits, protected; pages with references
 *	   that page tables do not explain are removed from it
 *
 * Context: memory.sem held for write, and the tracker's lock inside it.
 * Return: number of pages set aside.
 */
unsigned long precopy_tracker_set_aside(struct precopy_memory *mem,
					unsigned long unit,
					unsigned long *pages)
{
	struct precopy_dirty *pinned = &mem->tracker->sets[PRECOPY_PINNED];
	DECLARE_BITMAP(busy, PRECOPY_UNIT_PAGES);
	unsigned long i, nr;

	lockdep_assert_held_write(&mem->sem);
	lockdep_assert_held(mem->tracker->lock);
	if (!precopy_ram_busy(mem->ram, unit, pages, busy))
		return 0;
	for_each_set_bit(i, busy, PRECOPY_UNIT_PAGES)
		precopy_dirty_mark(pinned, unit * PRECOPY_UNIT_PAGES + i);
	bitmap_andnot(pages, pages, busy, PRECOPY_UNIT_PAGES);
	nr = bitmap_weight(busy, PRECOPY_UNIT_PAGES);
	atomic64_add(nr, &mem->stats->set_aside_pages);
	return nr;
}

/* The lock is held so that no count misses the pages that are in neither set */
static void precopy_tracker_release(struct precopy_memory *mem,
				    unsigned long unit, bool all)
{
	struct precopy_tracker *tracker = mem->tracker;
	struct precopy_dirty *pinned = &tracker->sets[PRECOPY_PINNED];
	struct precopy_dirty *dirty = &tracker->sets[PRECOPY_DIRTY];
	DECLARE_BITMAP(pages, PRECOPY_UNIT_PAGES);
	DECLARE_BITMAP(busy, PRECOPY_UNIT_PAGES) = {};
	unsigned long i;

	lockdep_assert_held_write(&mem->sem);
	guard(spinlock)(tracker->lock);
	precopy_dirty_take(pinned, unit, pages);
	if (!all)
		precopy_ram_busy(mem->ram, unit, pages, busy);
	for_each_set_bit(i, pages, PRECOPY_UNIT_PAGES)
		precopy_dirty_mark(test_bit(i, busy) ? pinned : dirty,
				   unit * PRECOPY_UNIT_PAGES + i);
}

/*
 * Does any page set aside of a unit look released? memory.sem is held for read
 * only: while a page is being mapped it may look released and is not, so a yes
 * is looked at again.
 */
static bool precopy_tracker_released(struct precopy_memory *mem,
				     unsigned long unit)
{
	const unsigned long *pages =
		precopy_tracker_pages(mem->tracker, PRECOPY_PINNED, unit);
	DECLARE_BITMAP(busy, PRECOPY_UNIT_PAGES);

	precopy_ram_busy(mem->ram, unit, pages, busy);
	return !bitmap_equal(pages, busy, PRECOPY_UNIT_PAGES);
}

static void precopy_tracker_recheck_unit(struct precopy_memory *mem,
					 struct precopy_tracker *tracker,
					 unsigned long unit, bool all)
{
	scoped_guard(rwsem_read, &mem->sem) {
		if (mem->tracker != tracker)
			return;
		if (!all && !precopy_tracker_released(mem, unit))
			return;
	}
	guard(rwsem_write)(&mem->sem);
	if (mem->tracker == tracker)
		precopy_tracker_release(mem, unit, all);
}

static unsigned long
precopy_tracker_next_pinned(const struct precopy_tracker *tracker,
			    unsigned long from)
{
	unsigned long unit = precopy_tracker_next(tracker, PRECOPY_PINNED,
						  from);

	return unit != ULONG_MAX ? unit :
		precopy_tracker_next(tracker, PRECOPY_PINNED, 0);
}

/**
 * precopy_tracker_recheck - look again at some of the pages set aside
 * @mem: the memory
 * @tracker: tracker of the memory, or of a session that is over
 * @all: true to take pages that still have references, too
 *
 * Marks released pages, or all pages, as dirty. Each call looks at no more than
 * PRECOPY_RECHECK_UNITS units, and the next call continues after them, so the
 * time of a read() that finds nothing to send is bounded, however many pages are
 * set aside. The lock is taken for each unit separately, and for write only if
 * a page was released, so no access waits for long.
 *
 * Context: may sleep; memory.sem not held; one caller at a time.
 */
void precopy_tracker_recheck(struct precopy_memory *mem,
			     struct precopy_tracker *tracker, bool all)
{
	unsigned long first, unit, n = 0;

	first = precopy_tracker_next_pinned(tracker, tracker->recheck_from);
	unit = first;
	while (unit != ULONG_MAX) {
		precopy_tracker_recheck_unit(mem, tracker, unit, all);
		unit = precopy_tracker_next_pinned(tracker, unit + 1);
		if (++n == PRECOPY_RECHECK_UNITS || unit == first)
			break;
		cond_resched();
	}
	tracker->recheck_from = unit;
	atomic64_add(n, &mem->stats->rechecked_units);
}
