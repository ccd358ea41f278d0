// SPDX-License-Identifier: GPL-2.0-only
/*
 * The memory's section of the stream, at the source. Pages are taken out of a
 * set of the tracker, a unit at a time, protected, set aside if somebody may
 * write them unseen, and only then copied.
 */

#include <linux/bitmap.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "mem/memory.h"
#include "precopy.h"
#include "section.h"
#include "session.h"
#include "trace.h"

#define PRECOPY_MAX_RUN		(PRECOPY_MAX_DATA / PAGE_SIZE)
/* A dirty page has a record of its own: what is left is known without a scan */
#define PRECOPY_DIRTY_COST	PRECOPY_SECTION_ROOM
/* Pages of 4 KiB that one estimate may look at: 32 MiB, a few ms */
#define PRECOPY_SCAN_PAGES	SZ_8K

/**
 * struct precopy_memory_save - the memory in a saving session
 *
 * @part: common part of all sections
 * @tracker: the pages that are still to be sent and not taken yet
 *
 * @stage: part of the stream that the last record was for. From here on owned by
 *	   whoever has the session busy.
 * @stopped: true if the device had stopped before the last record was requested
 * @unit: unit of @pages, and where to look for more
 * @pages: pages taken and not sent yet
 * @zero_next: true if the last DATA record ended because the first of @pages was
 *	       zero; that page is sent as zero
 * @unit_cost: bytes by which @initial_left still counts @pages and the part of
 *	       @unit that was sent
 *
 * @initial_left: bytes of initial data that were not made yet; never too low.
 *		  From here on protected by state_lock.
 * @taken: number of dirty pages in @pages
 * @restarting: true while the initial data is counted again. The dirty set may
 *		have pages then that @initial_left counts.
 */
struct precopy_memory_save {
	struct precopy_save_part	part;
	struct precopy_tracker		*tracker;

	/* Owned by whoever has the session busy */
	enum precopy_save_stage		stage;
	unsigned long			unit;
	DECLARE_BITMAP(pages, PRECOPY_UNIT_PAGES);
	bool				stopped;
	bool				zero_next;
	u64				unit_cost;

	/* Protected by state_lock */
	u64				initial_left;
	u64				taken;
	bool				restarting;
};

static struct precopy_memory_save *to_memory_save(struct precopy_save_part *part)
{
	return container_of(part, struct precopy_memory_save, part);
}

static struct precopy_device *precopy_save_pcd(const struct precopy_memory_save *ms)
{
	return ms->part.session->pcd;
}

/* Bytes that @nr pages in a row cost, see below */
static u64 precopy_save_run_cost(unsigned long nr)
{
	return (u64)DIV_ROUND_UP(nr, PRECOPY_MAX_RUN) * PRECOPY_REC_HDR_LEN +
	       nr * PAGE_SIZE;
}

/*
 * Bytes that @pages, a bitmap of one unit, cost as initial data; never too few.
 *
 * The cost of DATA records that end only where they are full or the pages do.
 * A DATA record ends earlier before a zero page, and that page is in a ZERO
 * record then: 32 bytes, and the header of the next DATA record, in place of
 * the 4096 that are counted here.
 */
static u64 precopy_save_initial_cost(const unsigned long *pages)
{
	unsigned long start, end;
	u64 cost = 0;

	for_each_set_bitrange(start, end, pages, PRECOPY_UNIT_PAGES)
		cost += precopy_save_run_cost(end - start);
	return cost;
}

/*
 * Does the memory still report to this session? No more after a reset, nor
 * after an arc has ended the session; both hold memory.sem for write.
 */
static bool precopy_save_current(const struct precopy_memory_save *ms)
{
	return precopy_tracker_armed(&precopy_save_pcd(ms)->memory, ms->tracker);
}

/*
 * How far do zero pages go, from @start? They may be written meanwhile, but
 * then they count as dirty again. The first @known of them were found to be
 * zero before.
 */
static unsigned int precopy_save_zero_run(struct precopy_memory_save *ms,
					  unsigned long start, unsigned int max,
					  unsigned int known)
{
	unsigned long end = find_next_zero_bit(ms->pages,
					       PRECOPY_UNIT_PAGES, start);
	unsigned int n;

	max = min(max, end - start);
	start += ms->unit * PRECOPY_UNIT_PAGES;
	for (n = known; n < max; n++)
		if (!precopy_memory_is_zero(&precopy_save_pcd(ms)->memory,
					    start + n))
			break;
	return n;
}

/*
 * Copy pages as they are now, from @start to the first that is zero or has a
 * memory error. A page that is zero stays zero for the stream, whatever is stored
 * to it before the next record is made: as data it would need a header that
 * nobody counted.
 *
 * Return: pages in the run, or -EIO if the first of them has an error.
 */
static int precopy_save_data_run(struct precopy_memory_save *ms, void *to,
				 unsigned long start, unsigned int max)
{
	unsigned long first = ms->unit * PRECOPY_UNIT_PAGES + start;
	struct precopy_memory *mem = &precopy_save_pcd(ms)->memory;
	int n = 0;

	do {
		if (precopy_memory_copy_out(mem, first + n, to))
			return n ?: -EIO;
		to += PAGE_SIZE;
		n++;
		if (n == (int)max || start + n == PRECOPY_UNIT_PAGES ||
		    !test_bit(start + n, ms->pages))
			return n;
		ms->zero_next = precopy_memory_is_zero(mem, first + n);
	} while (!ms->zero_next);
	return n;
}

/*
 * Copy the next run of pages that are alike: all zero, which takes no copy, or
 * none.
 *
 * Return: pages in the run, -ENODEV if the session is over, -EIO at a page with a
 * memory error.
 */
static int precopy_save_copy_run(struct precopy_memory_save *ms, void *to,
				 unsigned long start, unsigned int max,
				 bool *zero)
{
	int n;

	precopy_memory_give_way(&precopy_save_pcd(ms)->memory);
	guard(rwsem_read)(&precopy_save_pcd(ms)->memory.sem);
	if (!precopy_save_current(ms))
		return -ENODEV;
	/* A dirty page has a record of its own, others are not limited */
	n = precopy_save_zero_run(ms, start,
				  max > 1 ? PRECOPY_UNIT_PAGES : 1,
				  ms->zero_next);
	ms->zero_next = false;
	*zero = n;
	return n ?: precopy_save_data_run(ms, to, start, max);
}

static size_t precopy_save_encode(struct precopy_memory_save *ms, void *buf,
				  u64 offset, u64 nr_bytes, bool zero)
{
	trace_precopy_save_record(precopy_dev(precopy_save_pcd(ms)),
				  zero ? PRECOPY_REC_ZERO : PRECOPY_REC_DATA,
				  offset, nr_bytes);
	if (zero)
		return precopy_encode_zero(ms->part.enc, buf, offset, nr_bytes);
	return precopy_encode_record(ms->part.enc, buf, PRECOPY_REC_DATA,
				     offset, nr_bytes);
}

/*
 * Encode one record of pages taken, of up to @max of them if it holds data.
 *
 * Return: its length, -ENODEV if the session is over, -EIO at a page with a memory
 * error.
 */
static ssize_t precopy_save_run(struct precopy_memory_save *ms, void *buf,
				unsigned int max)
{
	unsigned long start = find_first_bit(ms->pages, PRECOPY_UNIT_PAGES);
	u64 offset = (ms->unit * PRECOPY_UNIT_PAGES + start) * PAGE_SIZE;
	struct precopy_stats *stats = &precopy_save_pcd(ms)->stats;
	ktime_t mark = ktime_get();
	ssize_t len;
	bool zero;
	int n;

	n = precopy_save_copy_run(ms, buf + PRECOPY_REC_HDR_LEN, start, max,
				  &zero);
	if (n < 0)
		return n;
	precopy_stat_lap(&stats->save_copy_ns, &mark);
	bitmap_clear(ms->pages, start, n);
	len = precopy_save_encode(ms, buf, offset, n * PAGE_SIZE, zero);
	precopy_stat_lap(&stats->save_checksum_ns, &mark);
	return len;
}

/* From one count to the other in one step; memory.sem is held for write */
static void precopy_save_set_aside(struct precopy_memory_save *ms)
{
	struct precopy_device *pcd = precopy_save_pcd(ms);
	unsigned long nr;
	u64 cost;

	lockdep_assert_held_write(&pcd->memory.sem);
	guard(spinlock)(&pcd->state_lock);
	nr = precopy_tracker_set_aside(&pcd->memory, ms->unit, ms->pages);
	if (ms->stage == PRECOPY_STAGE_DIRTY) {
		ms->taken -= nr;
	} else if (nr) {
		cost = precopy_save_initial_cost(ms->pages);
		ms->initial_left -= ms->unit_cost - cost;
		ms->unit_cost = cost;
	}
}

/* Protect the pages just taken, and set aside those that may be pinned */
static int precopy_save_protect(struct precopy_memory_save *ms)
{
	struct precopy_device *pcd = precopy_save_pcd(ms);

	precopy_memory_give_way(&pcd->memory);
	scoped_guard(rwsem_read, &pcd->memory.sem) {
		if (!precopy_save_current(ms))
			return -ENODEV;
		precopy_tracker_protect(&pcd->memory, ms->unit, ms->pages);
	}
	precopy_memory_give_way(&pcd->memory);
	guard(rwsem_write)(&pcd->memory.sem);
	if (!precopy_save_current(ms))
		return -ENODEV;
	/* Nobody writes to a stopped device; what is left must go now */
	if (ms->stopped)
		return 0;
	precopy_save_set_aside(ms);
	return 0;
}

/*
 * Take the next unit's pages out of the initial or the dirty set.
 *
 * Return: the number taken, 0 if there are none from @unit on, -ENODEV if the
 * session is over.
 */
static long precopy_save_take_unit(struct precopy_memory_save *ms)
{
	struct precopy_device *pcd = precopy_save_pcd(ms);
	bool live = ms->stage == PRECOPY_STAGE_DIRTY;
	enum precopy_set set = live ? PRECOPY_DIRTY : PRECOPY_INITIAL;
	struct precopy_memory *mem = &pcd->memory;
	long nr;

	precopy_memory_give_way(mem);
	guard(rwsem_write)(&mem->sem);
	if (!precopy_save_current(ms))
		return -ENODEV;
	ms->unit = precopy_tracker_begin_take(mem, set, ms->unit);
	if (ms->unit == ULONG_MAX)
		return 0;
	guard(spinlock)(&pcd->state_lock);
	nr = precopy_tracker_take(mem, set, ms->unit, ms->pages);
	if (live)
		ms->taken = nr;
	return nr;
}

/*
 * The same, going round after the last unit. Before that, pages that were set
 * aside become dirty again if they were released. In a stopped device at least
 * one page becomes dirty as long as any is set aside, so the stream does not
 * end without it.
 */
static long precopy_save_take(struct precopy_memory_save *ms)
{
	long nr = precopy_save_take_unit(ms);

	if (nr)
		return nr;
	precopy_tracker_recheck(&precopy_save_pcd(ms)->memory, ms->tracker,
				ms->stopped);
	ms->unit = 0;
	return precopy_save_take_unit(ms);
}

/*
 * Have pages of one unit at hand. The unit they are of is done when none of
 * them are left.
 *
 * Return: 1, 0 if the set is empty, -ENODEV if the session is over, -EINTR
 * after a fatal signal.
 */
static int precopy_save_more_pages(struct precopy_memory_save *ms)
{
	struct precopy_stats *stats = &precopy_save_pcd(ms)->stats;
	ktime_t mark;
	long ret;

	while (bitmap_empty(ms->pages, PRECOPY_UNIT_PAGES)) {
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
		ret = precopy_save_take(ms);
		if (ret <= 0)
			return ret;
		atomic64_add(ret, &stats->collected_pages);
		ms->unit_cost = precopy_save_initial_cost(ms->pages);
		mark = ktime_get();
		ret = precopy_save_protect(ms);
		precopy_stat_lap(&stats->save_protect_ns, &mark);
		if (ret)
			return ret;
		if (!bitmap_empty(ms->pages, PRECOPY_UNIT_PAGES))
			break;
		/* All of them set aside */
		ms->unit++;
	}
	return 1;
}

static ssize_t precopy_save_memory(struct precopy_save_part *part,
				   const struct precopy_save_request *request)
{
	bool initial = request->stage == PRECOPY_STAGE_INITIAL;
	struct precopy_memory_save *ms = to_memory_save(part);
	int ret;

	if (request->stage == PRECOPY_STAGE_TAIL)
		return 0;
	ms->stage = request->stage;
	ms->stopped = request->stopped;
	ret = precopy_save_more_pages(ms);
	if (ret <= 0)
		return ret;
	return precopy_save_run(ms, request->buf, initial ? PRECOPY_MAX_RUN : 1);
}

/* --- Accounting ------------------------------------------------------- */

/*
 * A record of initial pages is @len bytes long. What the unit was counted at
 * and did not need is known when the unit is done.
 */
static void precopy_save_initial_done(struct precopy_memory_save *ms, size_t len)
{
	u64 counted = min_t(u64, len, ms->unit_cost);

	ms->unit_cost -= counted;
	ms->initial_left -= counted;
	if (!bitmap_empty(ms->pages, PRECOPY_UNIT_PAGES))
		return;
	ms->initial_left -= ms->unit_cost;
	ms->unit_cost = 0;
}

static void precopy_save_memory_done(struct precopy_save_part *part, size_t len)
{
	struct precopy_memory_save *ms = to_memory_save(part);

	lockdep_assert_held(&precopy_save_pcd(ms)->state_lock);
	if (ms->stage == PRECOPY_STAGE_INITIAL)
		precopy_save_initial_done(ms, len);
	else
		ms->taken--;
	if (bitmap_empty(ms->pages, PRECOPY_UNIT_PAGES))
		ms->unit++;
}

static void precopy_save_memory_left(const struct precopy_save_part *part,
				     struct precopy_save_left *left)
{
	const struct precopy_memory_save *ms =
		container_of_const(part, struct precopy_memory_save, part);

	lockdep_assert_held(&precopy_save_pcd(ms)->state_lock);
	left->initial = ms->initial_left;
	if (!ms->restarting)
		left->dirty = (precopy_tracker_count(ms->tracker, PRECOPY_DIRTY) +
			       ms->taken) * PRECOPY_DIRTY_COST;
	left->tail = precopy_tracker_count(ms->tracker, PRECOPY_PINNED) *
		     PRECOPY_DIRTY_COST;
}

static int precopy_save_memory_in_use(struct precopy_save_part *part, u64 *bytes)
{
	struct precopy_memory_save *ms = to_memory_save(part);

	if (!precopy_save_current(ms))
		return -ENODEV;
	*bytes += precopy_memory_used(&precopy_save_pcd(ms)->memory);
	return 0;
}

/* As if no two pages were neighbours: too high rather than too low */
static u64 precopy_save_cost_in_use(u64 bytes)
{
	return bytes / PAGE_SIZE * PRECOPY_DIRTY_COST;
}

/* Bytes that the pages of a unit would need; @left: pages that may be looked at */
static u64 precopy_save_unit_cost(const struct precopy_memory *mem,
				  unsigned long unit,
				  const unsigned long *pages,
				  unsigned long *left)
{
	DECLARE_BITMAP(zero, PRECOPY_UNIT_PAGES) = {};
	DECLARE_BITMAP(data, PRECOPY_UNIT_PAGES);
	unsigned long i, end;
	u64 cost;

	for_each_set_bit(i, pages, PRECOPY_UNIT_PAGES) {
		if (!*left)
			break;
		--*left;
		if (precopy_memory_is_zero(mem, unit * PRECOPY_UNIT_PAGES + i))
			__set_bit(i, zero);
	}
	bitmap_andnot(data, pages, zero, PRECOPY_UNIT_PAGES);
	cost = precopy_save_initial_cost(data);
	for_each_set_bitrange(i, end, zero, PRECOPY_UNIT_PAGES)
		cost += PRECOPY_ZERO_LEN;
	return cost;
}

/*
 * Bytes that a stopped device would send of its memory. Pages are searched for
 * zero pages, so that a VMM that moves a paused VM is not told 2 MiB for every
 * page that was touched. Pages after the first PRECOPY_SCAN_PAGES count as data.
 */
static u64 precopy_save_cost_stopped(struct precopy_device *pcd)
{
	unsigned long unit, left = PRECOPY_SCAN_PAGES;
	struct precopy_memory *mem = &pcd->memory;
	DECLARE_BITMAP(pages, PRECOPY_UNIT_PAGES);
	u64 cost = 0, seen = 0, in_use;

	for (unit = 0; left; unit++) {
		cond_resched();
		guard(rwsem_read)(&mem->sem);
		unit = precopy_memory_next_used(mem, unit);
		if (unit == ULONG_MAX)
			return cost;
		seen += precopy_memory_used_pages(mem, unit, pages) * PAGE_SIZE;
		cost += precopy_save_unit_cost(mem, unit, pages, &left);
	}
	guard(rwsem_read)(&mem->sem);
	in_use = precopy_memory_used(mem);
	/* Less if there was a reset in between */
	return cost + precopy_save_cost_in_use(max(in_use, seen) - seen);
}

static u64 precopy_save_cost_running(struct precopy_device *pcd)
{
	guard(rwsem_read)(&pcd->memory.sem);
	return precopy_save_cost_in_use(precopy_memory_used(&pcd->memory));
}

static u64 precopy_save_memory_estimate(struct precopy_device *pcd, bool stopped)
{
	return stopped ? precopy_save_cost_stopped(pcd) :
			 precopy_save_cost_running(pcd);
}

/* --- Sessions --------------------------------------------------------- */

static struct precopy_save_part *
precopy_save_memory_alloc(struct precopy_session *session,
			  struct precopy_encoder *enc, bool stopped)
{
	struct precopy_memory_save *ms = kzalloc_obj(*ms, GFP_KERNEL_ACCOUNT);

	if (!ms)
		return NULL;
	ms->tracker = precopy_tracker_create(session->pcd->memory.size, !stopped,
					     &session->wait,
					     &session->pcd->state_lock);
	if (!ms->tracker) {
		kfree(ms);
		return NULL;
	}
	return &ms->part;
}

static void precopy_save_memory_free(struct precopy_save_part *part)
{
	struct precopy_memory_save *ms = to_memory_save(part);

	precopy_tracker_free(ms->tracker);
	kfree(ms);
}

static int precopy_save_memory_prepare(struct precopy_save_part *part)
{
	struct precopy_memory_save *ms = to_memory_save(part);

	return precopy_tracker_prepare(&precopy_save_pcd(ms)->memory, ms->tracker);
}

static bool precopy_save_memory_prepared(struct precopy_save_part *part)
{
	struct precopy_memory_save *ms = to_memory_save(part);

	return precopy_tracker_prepared(&precopy_save_pcd(ms)->memory, ms->tracker);
}

/* Bytes that the initial set needs; nobody else changes it yet */
static u64 precopy_save_count_initial(const struct precopy_tracker *tracker)
{
	u64 cost = precopy_tracker_whole(tracker, PRECOPY_INITIAL) *
		   precopy_save_run_cost(PRECOPY_UNIT_PAGES);
	unsigned long unit = 0;

	for (; (unit = precopy_tracker_next_partial(tracker, PRECOPY_INITIAL,
						    unit)) != ULONG_MAX;
	     unit++) {
		cost += precopy_save_initial_cost(precopy_tracker_pages(tracker,
									PRECOPY_INITIAL,
									unit));
		cond_resched();
	}
	return cost;
}

/* Forget dirty, pinned and taken pages: all pages become initial data again */
static void precopy_save_memory_clear(struct precopy_memory_save *ms)
{
	bitmap_zero(ms->pages, PRECOPY_UNIT_PAGES);
	ms->unit = 0;
	ms->unit_cost = 0;
	precopy_tracker_clear(&precopy_save_pcd(ms)->memory);
}

static void precopy_save_memory_begin(struct precopy_save_part *part,
				      struct precopy_save_preface *preface)
{
	struct precopy_memory_save *ms = to_memory_save(part);
	struct precopy_device *pcd = precopy_save_pcd(ms);
	ktime_t mark;
	u64 cost;

	lockdep_assert_held_write(&pcd->memory.sem);
	if (ms->restarting)
		precopy_save_memory_clear(ms);
	mark = ktime_get();
	precopy_tracker_arm(&pcd->memory, ms->tracker);
	/* A unit that has holes may cost the target more than it costs here */
	preface->bytes_in_use += precopy_memory_whole_units(&pcd->memory,
							    preface->units);
	cost = precopy_save_count_initial(ms->tracker);
	atomic64_inc(&pcd->stats.arms);
	atomic64_set(&pcd->stats.last_arm_ns, ktime_get() - mark);

	guard(spinlock)(&pcd->state_lock);
	ms->initial_left = cost;
	ms->restarting = false;
}

/*
 * Until begin has a new count, what was dirty is initial, and so is all else, as
 * if no two pages were neighbours. Too little would be taken for drained too soon.
 */
static void precopy_save_memory_restart(struct precopy_save_part *part)
{
	struct precopy_memory_save *ms = to_memory_save(part);
	struct precopy_device *pcd = precopy_save_pcd(ms);

	lockdep_assert_held_write(&pcd->memory.sem);
	lockdep_assert_held(&pcd->state_lock);
	ms->initial_left =
		precopy_save_cost_in_use(precopy_memory_used(&pcd->memory));
	ms->taken = 0;
	ms->restarting = true;
}

static void precopy_save_memory_end(struct precopy_save_part *part)
{
	precopy_tracker_disarm(&part->session->pcd->memory);
}

const struct precopy_save_ops precopy_memory_save_ops = {
	.alloc		= precopy_save_memory_alloc,
	.free		= precopy_save_memory_free,
	.prepare	= precopy_save_memory_prepare,
	.prepared	= precopy_save_memory_prepared,
	.begin		= precopy_save_memory_begin,
	.restart	= precopy_save_memory_restart,
	.end		= precopy_save_memory_end,
	.left		= precopy_save_memory_left,
	.save		= precopy_save_memory,
	.saved		= precopy_save_memory_done,
	.in_use		= precopy_save_memory_in_use,
	.estimate	= precopy_save_memory_estimate,
};
