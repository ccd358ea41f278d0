// SPDX-License-Identifier: GPL-2.0-only
/*
 * Making the stream of a saving session, a buffer at a time, in the order of
 * enum precopy_save_phase. Pages are taken out of a set of the tracker, a
 * unit at a time, protected, set aside if somebody may write them unseen, and
 * only then copied.
 */

#include <linux/sched/signal.h>
#include <linux/string.h>

#include "mem/memory.h"
#include "precopy.h"
#include "saving.h"
#include "trace.h"

/**
 * precopy_save_initial_cost - what pages cost in the initial part
 * @pages: bitmap of PRECOPY_UNIT_PAGES bits, pages of one unit
 *
 * The cost of DATA records that end only where they are full or the pages do.
 * A DATA record ends earlier before a zero page, and that page is in a ZERO
 * record then: 32 bytes, and the header of the next DATA record, in place of
 * the 4096 that are counted here.
 *
 * Return: bytes of the stream, never too few.
 */
u64 precopy_save_initial_cost(const unsigned long *pages)
{
	unsigned long start, end;
	u64 cost = 0;

	for_each_set_bitrange(start, end, pages, PRECOPY_UNIT_PAGES)
		cost += (u64)DIV_ROUND_UP(end - start, PRECOPY_MAX_RUN) *
			PRECOPY_REC_HDR_LEN + (end - start) * PAGE_SIZE;
	return cost;
}

/* @len new bytes are in the buffer, and the stream goes on with @phase */
static void precopy_save_produced(struct precopy_saving *saving, size_t len,
				  enum precopy_save_phase phase)
{
	guard(spinlock)(&saving->session.pcd->state_lock);
	saving->pos = 0;
	saving->len = len;
	saving->phase = phase;
}

/*
 * Does the memory still report to this session? No more after a reset, nor
 * after an arc has ended the session; both hold memory.sem for write.
 */
static bool precopy_save_current(const struct precopy_saving *saving)
{
	return precopy_tracker_armed(&saving->session.pcd->memory,
				     saving->tracker);
}

/*
 * How far do zero pages go, from @start? They may be written meanwhile, but
 * then they count as dirty again. The first @known of them were found to be
 * zero before.
 */
static unsigned int precopy_save_zero_run(struct precopy_saving *saving,
					  unsigned long start, unsigned int max,
					  unsigned int known)
{
	unsigned long end = find_next_zero_bit(saving->pages,
					       PRECOPY_UNIT_PAGES, start);
	unsigned int n;

	max = min(max, end - start);
	start += saving->unit * PRECOPY_UNIT_PAGES;
	for (n = known; n < max; n++)
		if (!precopy_memory_is_zero(&saving->session.pcd->memory,
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
static int precopy_save_data_run(struct precopy_saving *saving, void *to,
				 unsigned long start, unsigned int max)
{
	unsigned long first = saving->unit * PRECOPY_UNIT_PAGES + start;
	struct precopy_memory *mem = &saving->session.pcd->memory;
	int n = 0;

	do {
		if (precopy_memory_copy_out(mem, first + n, to))
			return n ?: -EIO;
		to += PAGE_SIZE;
		n++;
		if (n == (int)max || start + n == PRECOPY_UNIT_PAGES ||
		    !test_bit(start + n, saving->pages))
			return n;
		saving->zero_next = precopy_memory_is_zero(mem, first + n);
	} while (!saving->zero_next);
	return n;
}

/*
 * Copy the next run of pages that are alike: all zero, which takes no copy, or
 * none.
 *
 * Return: pages in the run, -ENODEV if the session is over, -EIO at a page with a
 * memory error.
 */
static int precopy_save_copy_run(struct precopy_saving *saving, void *to,
				 unsigned long start, unsigned int max,
				 bool *zero)
{
	int n;

	guard(rwsem_read)(&saving->session.pcd->memory.sem);
	if (!precopy_save_current(saving))
		return -ENODEV;
	/* A dirty page has a record of its own, others are not limited */
	n = precopy_save_zero_run(saving, start,
				  max > 1 ? PRECOPY_UNIT_PAGES : 1,
				  saving->zero_next);
	saving->zero_next = false;
	*zero = n;
	return n ?: precopy_save_data_run(saving, to, start, max);
}

static size_t precopy_save_encode(struct precopy_saving *saving, void *buf,
				  u64 offset, u64 nr_bytes, bool zero)
{
	trace_precopy_save_record(precopy_dev(saving->session.pcd),
				  zero ? PRECOPY_REC_ZERO : PRECOPY_REC_DATA,
				  offset, nr_bytes);
	if (zero)
		return precopy_encode_zero(&saving->enc, buf, offset, nr_bytes);
	return precopy_encode_record(&saving->enc, buf, PRECOPY_REC_DATA,
				     offset, nr_bytes);
}

/*
 * Encode one record of pages taken, of up to @max of them if it holds data.
 *
 * Return: its length, -ENODEV if the session is over, -EIO at a page with a memory
 * error.
 */
static ssize_t precopy_save_run(struct precopy_saving *saving, void *buf,
				unsigned int max)
{
	unsigned long start = find_first_bit(saving->pages, PRECOPY_UNIT_PAGES);
	u64 offset = (saving->unit * PRECOPY_UNIT_PAGES + start) * PAGE_SIZE;
	struct precopy_stats *stats = &saving->session.pcd->stats;
	ktime_t mark = ktime_get();
	ssize_t len;
	bool zero;
	int n;

	n = precopy_save_copy_run(saving, buf + PRECOPY_REC_HDR_LEN, start, max,
				  &zero);
	if (n < 0)
		return n;
	precopy_stat_lap(&stats->save_copy_ns, &mark);
	bitmap_clear(saving->pages, start, n);
	len = precopy_save_encode(saving, buf, offset, n * PAGE_SIZE, zero);
	precopy_stat_lap(&stats->save_checksum_ns, &mark);
	return len;
}

/* From one count to the other in one step; memory.sem is held for write */
static void precopy_save_set_aside(struct precopy_saving *saving)
{
	struct precopy_device *pcd = saving->session.pcd;
	unsigned long nr;
	u64 cost;

	guard(spinlock)(&pcd->state_lock);
	nr = precopy_tracker_set_aside(&pcd->memory, saving->unit,
				       saving->pages);
	if (saving->phase == PRECOPY_SAVE_LIVE) {
		saving->taken -= nr;
	} else if (nr) {
		cost = precopy_save_initial_cost(saving->pages);
		saving->initial_left -= saving->unit_cost - cost;
		saving->unit_cost = cost;
	}
}

/* Protect the pages just taken, and set aside those that may be pinned */
static int precopy_save_protect(struct precopy_saving *saving)
{
	struct precopy_device *pcd = saving->session.pcd;

	scoped_guard(rwsem_read, &pcd->memory.sem) {
		if (!precopy_save_current(saving))
			return -ENODEV;
		precopy_tracker_protect(&pcd->memory, saving->unit,
					saving->pages);
	}
	guard(rwsem_write)(&pcd->memory.sem);
	if (!precopy_save_current(saving))
		return -ENODEV;
	/* Nobody writes to a stopped device; what is left must go now */
	if (READ_ONCE(saving->stopped))
		return 0;
	precopy_save_set_aside(saving);
	return 0;
}

/*
 * Take the next unit's pages out of the initial or the dirty set.
 *
 * Return: the number taken, 0 if there are none from @unit on, -ENODEV if the
 * session is over.
 */
static long precopy_save_take_unit(struct precopy_saving *saving)
{
	struct precopy_device *pcd = saving->session.pcd;
	bool live = saving->phase == PRECOPY_SAVE_LIVE;
	enum precopy_set set = live ? PRECOPY_DIRTY : PRECOPY_INITIAL;
	struct precopy_memory *mem = &pcd->memory;
	long nr;

	guard(rwsem_write)(&mem->sem);
	if (!precopy_save_current(saving))
		return -ENODEV;
	saving->unit = precopy_tracker_begin_take(mem, set, saving->unit);
	if (saving->unit == ULONG_MAX)
		return 0;
	guard(spinlock)(&pcd->state_lock);
	nr = precopy_tracker_take(mem, set, saving->unit, saving->pages);
	if (live)
		saving->taken = nr;
	return nr;
}

/*
 * The same, going round after the last unit. Before that, pages that were set
 * aside become dirty again if they were released. In a stopped device at least
 * one page becomes dirty as long as any is set aside, so the stream does not
 * end without it.
 */
static long precopy_save_take(struct precopy_saving *saving)
{
	long nr = precopy_save_take_unit(saving);

	if (nr)
		return nr;
	precopy_tracker_recheck(&saving->session.pcd->memory, saving->tracker,
				READ_ONCE(saving->stopped));
	saving->unit = 0;
	return precopy_save_take_unit(saving);
}

/*
 * Have pages of one unit at hand. The unit they are of is done when none of
 * them are left.
 *
 * Return: 1, 0 if the set is empty, -ENODEV if the session is over, -EINTR
 * after a fatal signal.
 */
static int precopy_save_more_pages(struct precopy_saving *saving)
{
	struct precopy_stats *stats = &saving->session.pcd->stats;
	ktime_t mark;
	long ret;

	while (bitmap_empty(saving->pages, PRECOPY_UNIT_PAGES)) {
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
		ret = precopy_save_take(saving);
		if (ret <= 0)
			return ret;
		atomic64_add(ret, &stats->collected_pages);
		saving->unit_cost = precopy_save_initial_cost(saving->pages);
		mark = ktime_get();
		ret = precopy_save_protect(saving);
		precopy_stat_lap(&stats->save_protect_ns, &mark);
		if (ret)
			return ret;
		if (!bitmap_empty(saving->pages, PRECOPY_UNIT_PAGES))
			break;
		/* All of them set aside */
		saving->unit++;
	}
	return 1;
}

/*
 * A record of initial pages is @len bytes long. What the unit was counted at
 * and did not need is known when the unit is done.
 */
static void precopy_save_initial_done(struct precopy_saving *saving, size_t len)
{
	guard(spinlock)(&saving->session.pcd->state_lock);
	saving->unit_cost -= min_t(u64, len, saving->unit_cost);
	if (!bitmap_empty(saving->pages, PRECOPY_UNIT_PAGES))
		return;
	saving->initial_left -= saving->unit_cost;
	saving->unit_cost = 0;
	saving->unit++;
}

static int precopy_save_fill_initial(struct precopy_saving *saving)
{
	ssize_t len;
	int ret;

	ret = precopy_save_more_pages(saving);
	if (ret < 0)
		return ret;
	if (!ret) {
		len = precopy_encode_record(&saving->enc, saving->buf,
					    PRECOPY_REC_INITIAL_END, 0, 0);
		trace_precopy_save_record(precopy_dev(saving->session.pcd),
					  PRECOPY_REC_INITIAL_END, 0, 0);
		precopy_save_produced(saving, len, PRECOPY_SAVE_LIVE);
		return 1;
	}
	len = precopy_save_run(saving, saving->buf, PRECOPY_MAX_RUN);
	if (len < 0)
		return len;
	precopy_save_produced(saving, len, PRECOPY_SAVE_INITIAL);
	precopy_save_initial_done(saving, len);
	return 1;
}

/* One page's record; moves it from taken to unread in one step */
static ssize_t precopy_save_one_dirty(struct precopy_saving *saving,
				      size_t fill)
{
	struct precopy_device *pcd = saving->session.pcd;
	ssize_t len = precopy_save_run(saving, saving->buf + fill, 1);

	if (len < 0)
		return len;
	scoped_guard(spinlock, &pcd->state_lock) {
		saving->taken--;
		saving->pos = 0;
		saving->len = fill + len;
	}
	if (bitmap_empty(saving->pages, PRECOPY_UNIT_PAGES))
		saving->unit++;
	return len;
}

static int precopy_save_fill_dirty(struct precopy_saving *saving)
{
	size_t fill = 0;
	ssize_t ret;

	while (fill + PRECOPY_DIRTY_COST <= PRECOPY_SAVE_BUF) {
		ret = precopy_save_more_pages(saving);
		if (ret > 0)
			ret = precopy_save_one_dirty(saving, fill);
		if (ret < 0)
			return ret;
		if (!ret)
			break;
		fill += ret;
	}
	return fill ? 1 : 0;
}

/* A record that only STOP_COPY sends */
static int precopy_save_fill_tail(struct precopy_saving *saving, u16 type)
{
	struct precopy_device *pcd = saving->session.pcd;
	size_t len;

	if (type == PRECOPY_REC_STATE) {
		scoped_guard(rwsem_read, &pcd->memory.sem) {
			if (!precopy_save_current(saving))
				return -ENODEV;
			len = precopy_encode_state(&saving->enc, saving->buf,
						   precopy_memory_used(&pcd->memory));
		}
		precopy_save_produced(saving, len, PRECOPY_SAVE_END);
	} else {
		len = precopy_encode_end(&saving->enc, saving->buf);
		precopy_save_produced(saving, len, PRECOPY_SAVE_DONE);
	}
	trace_precopy_save_record(precopy_dev(pcd), type, 0, len);
	guard(spinlock)(&pcd->state_lock);
	saving->tail_left -= len;
	return 1;
}

static int precopy_save_fill_live(struct precopy_saving *saving)
{
	bool stopped;
	int ret;

	/* If the device was stopped meanwhile, ENOMSG would be wrong (R46) */
	do {
		stopped = READ_ONCE(saving->stopped);
		ret = precopy_save_fill_dirty(saving);
		if (ret)
			return ret;
	} while (stopped != READ_ONCE(saving->stopped));
	if (!stopped)
		return -ENOMSG;
	return precopy_save_fill_tail(saving, PRECOPY_REC_STATE);
}

static int precopy_save_fill_preface(struct precopy_saving *saving)
{
	size_t len;

	len = precopy_encode_preface(&saving->enc, saving->buf,
				     saving->bytes_in_use, saving->startup_ns,
				     saving->in_use, saving->nr_units);
	trace_precopy_save_record(precopy_dev(saving->session.pcd),
				  PRECOPY_REC_PREFACE, 0, len);
	precopy_save_produced(saving, len, PRECOPY_SAVE_INITIAL);
	return 1;
}

/**
 * precopy_save_fill - fill the empty buffer with what comes next in the stream
 * @saving: the session, busy with the caller
 *
 * Context: may sleep; no lock of this driver held.
 * Return: 1 if there is something in it, 0 at the end of the stream, -ENOMSG
 * at its temporary end (rule R44), -ENODEV if the session is over, -EINTR
 * after a fatal signal.
 */
int precopy_save_fill(struct precopy_saving *saving)
{
	size_t len;

	switch (saving->phase) {
	case PRECOPY_SAVE_HEADER:
		len = precopy_encode_header(&saving->enc, saving->buf);
		precopy_save_produced(saving, len, PRECOPY_SAVE_PREFACE);
		return 1;
	case PRECOPY_SAVE_PREFACE:
		return precopy_save_fill_preface(saving);
	case PRECOPY_SAVE_INITIAL:
		return precopy_save_fill_initial(saving);
	case PRECOPY_SAVE_LIVE:
		return precopy_save_fill_live(saving);
	case PRECOPY_SAVE_END:
		return precopy_save_fill_tail(saving, PRECOPY_REC_END);
	case PRECOPY_SAVE_DONE:
		break;
	}
	return 0;
}
