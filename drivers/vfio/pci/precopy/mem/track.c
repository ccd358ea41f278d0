// SPDX-License-Identifier: GPL-2.0-only
/*
 * Arming, collecting and disarming of the dirty tracker.
 *
 * Prepare: make room in the sets for what is in use, and later for what comes
 *	    into use, so that nothing below can fail.
 * Arm:     take a snapshot of what is in use, point the memory to the tracker,
 *	    remove all page table entries.
 * Collect: take pages out of a set (mig/save_stream.c, under memory.sem for write),
 *	    then protect them, flushed, then look for pins, and only then copy. A
 *	    store that the copy misses comes after the protection, so it faults
 *	    and marks the page again.
 * Disarm:  take the tracker away from the memory, remove all page table
 *	    entries; those that come next are writable.
 */

#include <linux/bitmap.h>
#include <linux/ktime.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/poll.h>
#include <linux/rmap.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/wait.h>

#include "layout.h"
#include "mig/stream.h"
#include "precopy.h"
#include "ram.h"
#include "trace.h"
#include "track.h"

/* Of 2 MiB, to be looked at by one read(); 0.1 to 0.2 ms */
#define PRECOPY_RECHECK_UNITS	16

/**
 * precopy_tracker_init - allocate the sets
 * @tracker: zeroed
 * @size: of the memory, bytes
 * @wait: woken when there is a first dirty page
 *
 * Return: 0 or -ENOMEM; either way precopy_tracker_destroy() may be called.
 */
int precopy_tracker_init(struct precopy_tracker *tracker, u64 size,
			 struct wait_queue_head *wait)
{
	unsigned long nr_pages = size >> PAGE_SHIFT;

	tracker->wait = wait;
	xa_init_flags(&tracker->reserve, XA_FLAGS_ACCOUNT);
	tracker->loose = bitmap_zalloc(precopy_stream_units(size),
				       GFP_KERNEL_ACCOUNT);
	if (!tracker->loose)
		return -ENOMEM;
	return precopy_dirty_init(&tracker->initial, nr_pages) ?:
	       precopy_dirty_init(&tracker->dirty, nr_pages) ?:
	       precopy_dirty_init(&tracker->pinned, nr_pages);
}

/**
 * precopy_tracker_destroy - free the sets
 * @tracker: initialised, or zeroed; no memory points to it any more
 */
void precopy_tracker_destroy(struct precopy_tracker *tracker)
{
	precopy_dirty_destroy(&tracker->initial);
	precopy_dirty_destroy(&tracker->dirty);
	precopy_dirty_destroy(&tracker->pinned);
	if (tracker->loose)
		precopy_layout_unreserve(&tracker->reserve);
	bitmap_free(tracker->loose);
}

/**
 * precopy_tracker_reserve - make room for marks in a unit
 * @tracker: of the memory, or to be armed
 * @unit: unit number
 * @gfp: how hard to try
 *
 * Context: may sleep.
 * Return: 0 or -ENOMEM.
 */
int precopy_tracker_reserve(struct precopy_tracker *tracker,
			    unsigned long unit, gfp_t gfp)
{
	return precopy_dirty_reserve(&tracker->initial, unit, gfp) ?:
	       precopy_dirty_reserve(&tracker->dirty, unit, gfp) ?:
	       precopy_dirty_reserve(&tracker->pinned, unit, gfp);
}

/**
 * precopy_tracker_reserved - is there room for marks in a unit?
 * @tracker: of the memory, or to be armed
 * @unit: unit number
 *
 * Return: true if so; it will not change back.
 */
bool precopy_tracker_reserved(const struct precopy_tracker *tracker,
			      unsigned long unit)
{
	return precopy_dirty_reserved(&tracker->initial, unit) &&
	       precopy_dirty_reserved(&tracker->dirty, unit) &&
	       precopy_dirty_reserved(&tracker->pinned, unit);
}

/**
 * precopy_tracker_mark - a page is about to be, or was, written
 * @tracker: of the memory
 * @page: page number in the BAR
 *
 * A page that waits to be sent anyway, for the first time or once it is
 * released, needs no mark: it is protected before it is copied.
 *
 * Context: read section of memory.sem that also contains the store, or the
 * insertion of the page table entry that allows it; and that found room for the
 * page's unit.
 */
void precopy_tracker_mark(struct precopy_tracker *tracker, unsigned long page)
{
	if (precopy_dirty_test(&tracker->initial, page) ||
	    precopy_dirty_test(&tracker->pinned, page))
		return;
	if (precopy_dirty_mark(&tracker->dirty, page) &&
	    wq_has_sleeper(tracker->wait))
		wake_up_poll(tracker->wait, EPOLLIN | EPOLLRDNORM);
}

/**
 * precopy_tracker_writable - may entries of a unit be writable?
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
	return !precopy_ram_huge_folio(mem->ram, unit) ||
	       test_bit(unit, mem->tracker->loose);
}

/**
 * precopy_tracker_loosen - a unit cannot be split, but will be written
 * @tracker: of the memory
 * @unit: unit number, one folio
 *
 * Nobody can tell which pages are written: all wait, as those do on which
 * somebody has a reference. Also those that were taken and are not copied yet:
 * they are in no set, and what is copied of them is not what counts.
 *
 * Context: memory.sem held for write.
 */
void precopy_tracker_loosen(struct precopy_tracker *tracker, unsigned long unit)
{
	unsigned long page = unit * PRECOPY_UNIT_PAGES;
	unsigned long end = page + PRECOPY_UNIT_PAGES;

	for (; page < end; page++)
		if (!precopy_dirty_test(&tracker->initial, page) &&
		    !precopy_dirty_test(&tracker->dirty, page))
			precopy_dirty_mark(&tracker->pinned, page);
	__set_bit(unit, tracker->loose);
}

/**
 * precopy_tracker_tighten - pages of a unit are about to be taken
 * @pcd: the device
 * @tracker: of the memory
 * @unit: unit number
 *
 * Context: memory.sem held for write. All TLBs are flushed on return.
 */
void precopy_tracker_tighten(struct precopy_device *pcd,
			     struct precopy_tracker *tracker,
			     unsigned long unit)
{
	lockdep_assert_held_write(&pcd->memory.sem);
	if (__test_and_clear_bit(unit, tracker->loose))
		precopy_memory_zap_unit(pcd, unit);
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
 * @tracker: of the memory
 *
 * Context: memory.sem held for write, until the tracker is armed.
 */
void precopy_tracker_clear(struct precopy_tracker *tracker)
{
	precopy_tracker_clear_set(&tracker->initial);
	precopy_tracker_clear_set(&tracker->dirty);
	precopy_tracker_clear_set(&tracker->pinned);
	bitmap_zero(tracker->loose, tracker->initial.nr_units);
}

static unsigned long precopy_tracker_next_used(struct precopy_memory *mem,
					       unsigned long from)
{
	return mem->ram ? precopy_ram_next_unit(mem->ram, from) : ULONG_MAX;
}

/* The next unit to prepare, and whether it may have to be split */
static unsigned long precopy_tracker_next_prepare(struct precopy_memory *mem,
						  unsigned long from, bool *huge)
{
	unsigned long unit;

	guard(rwsem_read)(&mem->sem);
	unit = precopy_tracker_next_used(mem, from);
	*huge = unit != ULONG_MAX && precopy_ram_huge_folio(mem->ram, unit);
	return unit;
}

/* The pages of one spare unit are all that splits need at a time */
static int precopy_tracker_try_spare(struct precopy_memory *mem)
{
	struct precopy_ram *ram = NULL;
	int ret = 0;

	scoped_guard(rwsem_read, &mem->sem)
		if (mem->ram)
			ram = precopy_ram_get(mem->ram);
	if (ram)
		ret = precopy_layout_try_spare(ram);
	precopy_ram_put(ram);
	return ret;
}

/* One unit at a time, so that nobody waits for the memory to be found */
static int precopy_tracker_prepare_units(struct precopy_memory *mem,
					 struct precopy_tracker *tracker)
{
	bool huge, any_huge = false;
	unsigned long unit = 0;
	int ret;

	while ((unit = precopy_tracker_next_prepare(mem, unit, &huge)) !=
	       ULONG_MAX) {
		if (fatal_signal_pending(current))
			return -EINTR;
		ret = precopy_tracker_reserve(tracker, unit, PRECOPY_GFP);
		huge &= tracker->expect_stores;
		if (!ret && huge)
			ret = precopy_layout_reserve(&tracker->reserve, unit);
		if (ret)
			return ret;
		any_huge |= huge;
		unit++;
		cond_resched();
	}
	return any_huge ? precopy_tracker_try_spare(mem) : 0;
}

/**
 * precopy_tracker_prepare - make room for all that is in use
 * @pcd: the device
 * @tracker: of the memory, or to be armed
 *
 * Room for marks, and what it takes to split every unit that is one folio.
 *
 * Context: may sleep; memory.sem not held.
 * Return: 0, -ENOMEM, or -EINTR after a fatal signal.
 */
int precopy_tracker_prepare(struct precopy_device *pcd,
			    struct precopy_tracker *tracker)
{
	struct mem_cgroup *memcg = precopy_memory_memcg(&pcd->memory);
	struct mem_cgroup *old = set_active_memcg(memcg);
	int ret;

	ret = precopy_tracker_prepare_units(&pcd->memory, tracker);
	set_active_memcg(old);
	mem_cgroup_put(memcg);
	if (ret == -ENOMEM)
		dev_err_ratelimited(precopy_dev(pcd),
				    "not enough memory to track what is written\n");
	return ret;
}

/* A unit that is not one folio any more needs no reserve */
static bool precopy_tracker_unit_prepared(const struct precopy_memory *mem,
					  struct precopy_tracker *tracker,
					  unsigned long unit)
{
	return precopy_tracker_reserved(tracker, unit) &&
	       (!tracker->expect_stores ||
		!precopy_ram_huge_folio(mem->ram, unit) ||
		xa_load(&tracker->reserve, unit));
}

/**
 * precopy_tracker_prepared - is there room for all that is in use?
 * @pcd: the device
 * @tracker: of the memory, or to be armed
 *
 * Context: memory.sem held for write, until the tracker is armed.
 * Return: false if something has come into use since precopy_tracker_prepare().
 */
bool precopy_tracker_prepared(struct precopy_device *pcd,
			      struct precopy_tracker *tracker)
{
	struct precopy_memory *mem = &pcd->memory;
	unsigned long unit;

	lockdep_assert_held_write(&mem->sem);
	for (unit = precopy_tracker_next_used(mem, 0); unit != ULONG_MAX;
	     unit = precopy_tracker_next_used(mem, unit + 1)) {
		if (!precopy_tracker_unit_prepared(mem, tracker, unit))
			return false;
		cond_resched();
	}
	return true;
}

/**
 * precopy_tracker_arm - begin tracking
 * @pcd: the device
 * @tracker: prepared, empty sets; the initial one is filled with what is in use
 *
 * Costs in proportion to what is in use and mapped.
 *
 * Context: memory.sem held for write.
 */
void precopy_tracker_arm(struct precopy_device *pcd,
			 struct precopy_tracker *tracker)
{
	struct precopy_memory *mem = &pcd->memory;
	DECLARE_BITMAP(pages, PRECOPY_UNIT_PAGES);
	unsigned long unit;

	lockdep_assert_held_write(&mem->sem);
	for (unit = precopy_tracker_next_used(mem, 0); unit != ULONG_MAX;
	     unit = precopy_tracker_next_used(mem, unit + 1)) {
		/* It has come this moment, and nobody can have stored to it yet */
		if (!precopy_tracker_reserved(tracker, unit))
			continue;
		precopy_ram_unit_pages(mem->ram, unit, pages);
		precopy_dirty_fill(&tracker->initial, unit, pages);
		cond_resched();
	}
	WRITE_ONCE(mem->tracker, tracker);
	precopy_memory_zap(pcd);
	trace_precopy_arm(precopy_dev(pcd),
			  precopy_dirty_count(&tracker->initial));
}

/**
 * precopy_tracker_disarm - stop tracking
 * @pcd: the device
 *
 * Entries that tracking left read-only would each cost a fault: remove them.
 * The page tables stay, though, and while they do there is no room for 2 MiB
 * entries. They go when the user unmaps, or with MADV_DONTNEED; a driver has
 * no means to free them.
 *
 * Context: memory.sem held for write.
 */
void precopy_tracker_disarm(struct precopy_device *pcd)
{
	ktime_t began = ktime_get();

	lockdep_assert_held_write(&pcd->memory.sem);
	if (!pcd->memory.tracker)
		return;
	WRITE_ONCE(pcd->memory.tracker, NULL);
	precopy_memory_zap(pcd);
	atomic64_set(&pcd->stats.last_disarm_ns, ktime_get() - began);
	trace_precopy_disarm(precopy_dev(pcd));
}

/* Write-protect and clean: a walk with one flush for each */
static void precopy_tracker_clean(struct precopy_device *pcd,
				  unsigned long unit,
				  const unsigned long *pages)
{
	struct address_space *mapping = pcd->core->vdev.inode->i_mapping;
	unsigned long first = find_first_bit(pages, PRECOPY_UNIT_PAGES);
	unsigned long last = find_last_bit(pages, PRECOPY_UNIT_PAGES);
	pgoff_t start = PRECOPY_BAR_PGOFF + unit * PRECOPY_UNIT_PAGES + first;
	DECLARE_BITMAP(cleaned, PRECOPY_UNIT_PAGES) = {};
	pgoff_t cleaned_start = 0, cleaned_end = 0;
	unsigned long nr = last - first + 1;

	wp_shared_mapping_range(mapping, start, nr);
	clean_record_shared_mapping_range(mapping, start, nr, start, cleaned,
					  &cleaned_start, &cleaned_end);
}

/* How many of @max pages, all of them there, follow each other in memory? */
static unsigned long precopy_tracker_run(struct precopy_ram *ram,
					 unsigned long page, unsigned long max)
{
	unsigned long pfn = page_to_pfn(precopy_ram_page(ram, page));
	unsigned long n = 1;

	while (n < max &&
	       page_to_pfn(precopy_ram_page(ram, page + n)) == pfn + n)
		n++;
	return n;
}

/*
 * An entry that is read-only but dirty can become writable again without a
 * fault: the mm (mprotect, NUMA hinting) takes it for one whose store was
 * notified. Between the two walks of precopy_tracker_clean() entries are like
 * that, and neither order of the walks closes the gap (the model in
 * tests/dirty_kunit.c shows it). So a last walk makes every entry read-only
 * and clean in one step under its page table lock. It would flush entry by
 * entry, but hardly ever finds one to change; what remains is a call of the
 * MMU notifiers for each run of pages.
 */
static void precopy_tracker_seal(struct precopy_device *pcd, unsigned long unit,
				 const unsigned long *pages)
{
	struct address_space *mapping = pcd->core->vdev.inode->i_mapping;
	struct precopy_ram *ram = pcd->memory.ram;
	unsigned long start, end, first, n;

	for_each_set_bitrange(start, end, pages, PRECOPY_UNIT_PAGES) {
		for (; start < end; start += n) {
			first = unit * PRECOPY_UNIT_PAGES + start;
			n = precopy_tracker_run(ram, first, end - start);
			mapping_wrprotect_range(mapping,
						PRECOPY_BAR_PGOFF + first,
						page_to_pfn(precopy_ram_page(ram, first)),
						n);
		}
	}
}

/**
 * precopy_tracker_protect - let the next store to each of some pages fault
 * @pcd: the device
 * @unit: that the pages are in
 * @pages: bitmap of PRECOPY_UNIT_PAGES bits, not empty, taken out of a set
 *	   before
 *
 * Entries of a unit that is one folio are read-only and clean already, as they
 * have been since they were made; or the unit became loose after the pages were
 * taken, and then they are sent once more (see precopy_tracker_loosen()).
 *
 * Context: may sleep; memory.sem held, and the memory tracked, so that the pages
 * stay, and no 2 MiB entry is writable. All TLBs are flushed on return.
 */
void precopy_tracker_protect(struct precopy_device *pcd, unsigned long unit,
			     const unsigned long *pages)
{
	lockdep_assert_held(&pcd->memory.sem);
	if (!precopy_ram_huge_folio(pcd->memory.ram, unit)) {
		precopy_tracker_clean(pcd, unit, pages);
		precopy_tracker_seal(pcd, unit, pages);
	}
	trace_precopy_collect(precopy_dev(pcd), unit,
			      bitmap_weight(pages, PRECOPY_UNIT_PAGES));
}

/**
 * precopy_tracker_set_aside - do not send now what may be written unseen
 * @pcd: the device
 * @tracker: of the memory
 * @unit: that the pages are in
 * @pages: bitmap of PRECOPY_UNIT_PAGES bits, protected; pages with references
 *	   that page tables do not explain are removed from it
 *
 * Context: memory.sem held for write, the tracker being that of the memory;
 * state_lock held, so that no count misses them.
 * Return: pages set aside.
 */
unsigned long precopy_tracker_set_aside(struct precopy_device *pcd,
					struct precopy_tracker *tracker,
					unsigned long unit,
					unsigned long *pages)
{
	DECLARE_BITMAP(busy, PRECOPY_UNIT_PAGES);
	unsigned long i, nr;

	lockdep_assert_held_write(&pcd->memory.sem);
	if (!precopy_ram_busy(pcd->memory.ram, unit, pages, busy))
		return 0;
	for_each_set_bit(i, busy, PRECOPY_UNIT_PAGES)
		precopy_dirty_mark(&tracker->pinned,
				   unit * PRECOPY_UNIT_PAGES + i);
	bitmap_andnot(pages, pages, busy, PRECOPY_UNIT_PAGES);
	nr = bitmap_weight(busy, PRECOPY_UNIT_PAGES);
	atomic64_add(nr, &pcd->stats.set_aside_pages);
	return nr;
}

/* What is in neither set for a moment must not be missing from the counts */
static void precopy_tracker_release(struct precopy_device *pcd,
				    struct precopy_tracker *tracker,
				    unsigned long unit, bool all)
{
	DECLARE_BITMAP(pages, PRECOPY_UNIT_PAGES);
	DECLARE_BITMAP(busy, PRECOPY_UNIT_PAGES) = {};
	unsigned long page, i;

	guard(spinlock)(&pcd->state_lock);
	precopy_dirty_take(&tracker->pinned, unit, pages);
	if (!all)
		precopy_ram_busy(pcd->memory.ram, unit, pages, busy);
	for_each_set_bit(i, pages, PRECOPY_UNIT_PAGES) {
		page = unit * PRECOPY_UNIT_PAGES + i;
		precopy_dirty_mark(test_bit(i, busy) ? &tracker->pinned :
						       &tracker->dirty, page);
	}
}

/*
 * Does any page set aside of a unit look released? memory.sem is held for read
 * only: while a page is being mapped it may look released and is not, so a yes
 * is looked at again.
 */
static bool precopy_tracker_released(struct precopy_device *pcd,
				     struct precopy_tracker *tracker,
				     unsigned long unit)
{
	const unsigned long *pages = precopy_dirty_unit(&tracker->pinned, unit);
	DECLARE_BITMAP(busy, PRECOPY_UNIT_PAGES);

	precopy_ram_busy(pcd->memory.ram, unit, pages, busy);
	return !bitmap_equal(pages, busy, PRECOPY_UNIT_PAGES);
}

static void precopy_tracker_recheck_unit(struct precopy_device *pcd,
					 struct precopy_tracker *tracker,
					 unsigned long unit, bool all)
{
	struct precopy_memory *mem = &pcd->memory;

	scoped_guard(rwsem_read, &mem->sem) {
		if (mem->tracker != tracker)
			return;
		if (!all && !precopy_tracker_released(pcd, tracker, unit))
			return;
	}
	guard(rwsem_write)(&mem->sem);
	if (mem->tracker == tracker)
		precopy_tracker_release(pcd, tracker, unit, all);
}

static unsigned long
precopy_tracker_next_pinned(const struct precopy_tracker *tracker,
			    unsigned long from)
{
	const struct precopy_dirty *pinned = &tracker->pinned;
	unsigned long unit = precopy_dirty_next_unit(pinned, from);

	return unit < pinned->nr_units ? unit :
					 precopy_dirty_next_unit(pinned, 0);
}

/**
 * precopy_tracker_recheck - look again at some of the pages set aside
 * @pcd: the device
 * @tracker: of the memory, or of a session that is over
 * @all: whether or not they still have the references
 *
 * What was released, or all, becomes dirty. Looks at no more than
 * PRECOPY_RECHECK_UNITS units, and the next call goes on from there: however
 * much is set aside, for however long, a read() that finds nothing to send costs
 * a bounded time. Each unit is a section of its own, and one for read unless
 * something was released, so that no access waits for long.
 *
 * Context: may sleep; memory.sem not held; one caller at a time.
 */
void precopy_tracker_recheck(struct precopy_device *pcd,
			     struct precopy_tracker *tracker, bool all)
{
	unsigned long first, unit, n = 0;

	first = precopy_tracker_next_pinned(tracker, tracker->recheck_from);
	unit = first;
	while (unit < tracker->pinned.nr_units) {
		precopy_tracker_recheck_unit(pcd, tracker, unit, all);
		unit = precopy_tracker_next_pinned(tracker, unit + 1);
		if (++n == PRECOPY_RECHECK_UNITS || unit == first)
			break;
		cond_resched();
	}
	tracker->recheck_from = unit;
	atomic64_add(n, &pcd->stats.rechecked_units);
}
