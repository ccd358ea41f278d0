// SPDX-License-Identifier: GPL-2.0-only
/*
 * The saving data fd. read() makes the stream, a buffer at a time, in the
 * order of enum precopy_save_phase; nothing else produces data. Everything
 * that PRECOPY_INFO and MIG_DATA_SIZE report comes from counters that are kept
 * on the way.
 */

#include <linux/file.h>
#include <linux/fs.h>
#include <linux/highmem.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/string.h>

#include "backend.h"
#include "load.h"
#include "precopy.h"
#include "save.h"
#include "session.h"
#include "stream.h"
#include "trace.h"
#include "track.h"

#define PRECOPY_MAX_RUN		(PRECOPY_MAX_DATA / PAGE_SIZE)
#define PRECOPY_SAVE_BUF	(PRECOPY_REC_HDR_LEN + PRECOPY_MAX_DATA)
/* A dirty page has a record of its own: what is left is known without a scan */
#define PRECOPY_DIRTY_COST	(PRECOPY_REC_HDR_LEN + PAGE_SIZE)
/* Records that only STOP_COPY sends */
#define PRECOPY_TAIL_COST	(PRECOPY_STATE_LEN + PRECOPY_END_LEN)
/* A VMM sizes its read buffer by what RUNNING reports, and must get some */
#define PRECOPY_MIN_ESTIMATE	SZ_1M

/**
 * enum precopy_save_phase - what read() produces next
 * @PRECOPY_SAVE_HEADER: the file header
 * @PRECOPY_SAVE_PREFACE: PREFACE
 * @PRECOPY_SAVE_INITIAL: pages of the initial set, then INITIAL_END
 * @PRECOPY_SAVE_LIVE: dirty pages; when stopped and there are none, STATE
 * @PRECOPY_SAVE_END: END
 * @PRECOPY_SAVE_DONE: nothing any more
 */
enum precopy_save_phase {
	PRECOPY_SAVE_HEADER,
	PRECOPY_SAVE_PREFACE,
	PRECOPY_SAVE_INITIAL,
	PRECOPY_SAVE_LIVE,
	PRECOPY_SAVE_END,
	PRECOPY_SAVE_DONE,
};

/**
 * struct precopy_saving - a saving session
 * @session: what all sessions have
 * @wait: pollers; woken by the first dirty page, by STOP_COPY and by the end
 * @tracker: the pages still to be sent and not taken yet
 * @enc: the encoder. From here to @nr_units owned by who has the session busy.
 * @buf: the stream's next bytes, PRECOPY_SAVE_BUF bytes of room
 * @unit: that @pages are of, and where to look for more
 * @pages: pages taken and not sent yet
 * @unit_cost: bytes by which @initial_left still speaks for @pages and what
 *	       was sent of @unit
 * @in_use: units in use when the session began
 * @bytes_in_use: bytes in use when the session began
 * @nr_units: units in the BAR
 * @phase: what comes next. From here on protected by state_lock.
 * @pos: bytes of @buf read already
 * @len: bytes in @buf
 * @initial_left: bytes up to and with INITIAL_END that are not read yet;
 *		  never too low
 * @taken: dirty pages in @pages
 * @tail_left: bytes that only STOP_COPY sends and that are not in @buf yet
 * @stopped: the device is in STOP_COPY
 */
struct precopy_saving {
	struct precopy_session	session;
	wait_queue_head_t	wait;
	struct precopy_tracker	tracker;

	struct precopy_encoder	enc;
	void			*buf;
	unsigned long		unit;
	DECLARE_BITMAP(pages, PRECOPY_UNIT_PAGES);
	u64			unit_cost;
	unsigned long		*in_use;
	u64			bytes_in_use;
	u32			nr_units;

	enum precopy_save_phase	phase;
	size_t			pos;
	size_t			len;
	u64			initial_left;
	u64			taken;
	u64			tail_left;
	bool			stopped;
};

static const struct file_operations precopy_save_fops;

/* --- Accounting ---------------------------------------------------------- */

/* Bytes that the set of pages of one unit costs in the initial part */
static u64 precopy_initial_cost(const unsigned long *pages)
{
	unsigned long start, end;
	u64 cost = 0;

	for_each_set_bitrange(start, end, pages, PRECOPY_UNIT_PAGES)
		cost += (u64)DIV_ROUND_UP(end - start, PRECOPY_MAX_RUN) *
			PRECOPY_REC_HDR_LEN + (end - start) * PAGE_SIZE;
	return cost;
}

static u64 precopy_save_unread(const struct precopy_saving *saving)
{
	return saving->len - saving->pos;
}

static u64 precopy_save_initial(const struct precopy_saving *saving)
{
	lockdep_assert_held(&saving->session.pcd->state_lock);
	return saving->initial_left;
}

/* What was written after it was sent, and can be sent while running */
static u64 precopy_save_dirty(const struct precopy_saving *saving)
{
	u64 unread = saving->phase >= PRECOPY_SAVE_LIVE && !saving->initial_left ?
		     precopy_save_unread(saving) : 0;

	lockdep_assert_held(&saving->session.pcd->state_lock);
	return (precopy_dirty_count(&saving->tracker.dirty) + saving->taken) *
	       PRECOPY_DIRTY_COST + unread;
}

static u64 precopy_save_left(const struct precopy_saving *saving)
{
	return precopy_save_initial(saving) + precopy_save_dirty(saving) +
	       precopy_dirty_count(&saving->tracker.pinned) *
	       PRECOPY_DIRTY_COST + saving->tail_left;
}

/**
 * precopy_save_estimate - bytes that STOP_COPY would send from now on
 * @pcd: the device
 *
 * Exact while a session is on, but for pages that turn out to be zero.
 * Otherwise from what is in use, and never below PRECOPY_MIN_ESTIMATE.
 *
 * Context: any that may sleep for memory.sem; never waits for a session.
 * Return: bytes.
 */
u64 precopy_save_estimate(struct precopy_device *pcd)
{
	u64 bytes;

	scoped_guard(spinlock, &pcd->state_lock)
		if (pcd->saving)
			return precopy_save_left(pcd->saving);

	guard(rwsem_read)(&pcd->memory.sem);
	bytes = precopy_ram_bytes(pcd->memory.ram);
	/* As if no two pages were neighbours: too high rather than too low */
	bytes += bytes / PAGE_SIZE * PRECOPY_REC_HDR_LEN;
	bytes += PRECOPY_FILE_HDR_LEN + 2 * PRECOPY_REC_HDR_LEN +
		 precopy_preface_len(precopy_stream_units(pcd->memory.size)) +
		 PRECOPY_TAIL_COST;
	return max_t(u64, bytes, PRECOPY_MIN_ESTIMATE);
}

/**
 * precopy_save_counters - what PRECOPY_INFO would say
 * @pcd: the device
 * @initial_bytes: result, 0 without a session
 * @dirty_bytes: result, 0 without a session
 */
void precopy_save_counters(struct precopy_device *pcd, u64 *initial_bytes,
			   u64 *dirty_bytes)
{
	guard(spinlock)(&pcd->state_lock);
	*initial_bytes = pcd->saving ? precopy_save_initial(pcd->saving) : 0;
	*dirty_bytes = pcd->saving ? precopy_save_dirty(pcd->saving) : 0;
}

/* --- Making the stream --------------------------------------------------- */

/* @len new bytes are in the buffer, and the stream goes on with @phase */
static void precopy_save_produced(struct precopy_saving *saving, size_t len,
				  enum precopy_save_phase phase)
{
	guard(spinlock)(&saving->session.pcd->state_lock);
	saving->pos = 0;
	saving->len = len;
	saving->phase = phase;
}

static void precopy_save_consumed(struct precopy_saving *saving, size_t n)
{
	struct precopy_device *pcd = saving->session.pcd;

	guard(spinlock)(&pcd->state_lock);
	saving->pos += n;
	/* Anything produced before the live phase is initial data */
	saving->initial_left -= min_t(u64, n, saving->initial_left);
	atomic64_add(n, &pcd->stats.saved_bytes);
}

/*
 * Does the memory still report to this session? No more after a reset, nor
 * after an arc has ended the session; both hold memory.sem for write.
 */
static bool precopy_save_current(const struct precopy_saving *saving)
{
	lockdep_assert_held(&saving->session.pcd->memory.sem);
	return saving->session.pcd->memory.tracker == &saving->tracker;
}

/* A page taken, to look at: one that is a hole reads as zeroes */
static const void *precopy_save_map(struct precopy_saving *saving,
				    unsigned long i)
{
	struct precopy_memory *mem = &saving->session.pcd->memory;
	struct page *page;

	page = precopy_memory_page(mem, saving->unit * PRECOPY_UNIT_PAGES + i);
	return kmap_local_page(page ?: ZERO_PAGE(0));
}

/*
 * How far do zero pages go, from @start? They may be written meanwhile, but
 * then they count as dirty again.
 */
static unsigned int precopy_save_zero_run(struct precopy_saving *saving,
					  unsigned long start, unsigned int max)
{
	unsigned long end = find_next_zero_bit(saving->pages,
					       PRECOPY_UNIT_PAGES, start);
	const void *from;
	unsigned int n;
	bool zero;

	max = min(max, end - start);
	for (n = 0; n < max; n++) {
		from = precopy_save_map(saving, start + n);
		zero = !memchr_inv(from, 0, PAGE_SIZE);
		kunmap_local(from);
		if (!zero)
			break;
	}
	return n;
}

/* Copy pages as they are now, from @start to the first that is zero */
static unsigned int precopy_save_data_run(struct precopy_saving *saving,
					  void *to, unsigned long start,
					  unsigned int max)
{
	unsigned int n = 0;
	const void *from;

	do {
		from = precopy_save_map(saving, start + n);
		memcpy(to, from, PAGE_SIZE);
		kunmap_local(from);
		to += PAGE_SIZE;
		n++;
	} while (n < max && start + n < PRECOPY_UNIT_PAGES &&
		 test_bit(start + n, saving->pages) &&
		 !precopy_save_zero_run(saving, start + n, 1));
	return n;
}

/*
 * Copy the next run of pages that are alike: all zero, which takes no copy, or
 * none.
 *
 * Return: pages in the run, or -ENODEV if the session is over.
 */
static int precopy_save_copy_run(struct precopy_saving *saving, void *to,
				 unsigned long start, unsigned int max,
				 bool *zero)
{
	unsigned int n;

	guard(rwsem_read)(&saving->session.pcd->memory.sem);
	if (!precopy_save_current(saving))
		return -ENODEV;
	/* A dirty page has a record of its own, others are not limited */
	n = precopy_save_zero_run(saving, start,
				  max > 1 ? PRECOPY_UNIT_PAGES : 1);
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
 * Return: its length, or -ENODEV if the session is over.
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

/* Protect the pages just taken, and set aside those that may be pinned */
static int precopy_save_protect(struct precopy_saving *saving)
{
	struct precopy_device *pcd = saving->session.pcd;
	unsigned long nr;

	scoped_guard(rwsem_read, &pcd->memory.sem) {
		if (!precopy_save_current(saving))
			return -ENODEV;
		precopy_tracker_protect(pcd, saving->unit, saving->pages);
	}
	guard(rwsem_write)(&pcd->memory.sem);
	if (!precopy_save_current(saving))
		return -ENODEV;
	/* Nobody writes to a stopped device; what is left must go now */
	if (READ_ONCE(saving->stopped))
		return 0;
	nr = precopy_tracker_set_aside(pcd, &saving->tracker, saving->unit,
				       saving->pages);
	if (nr && saving->phase == PRECOPY_SAVE_LIVE) {
		guard(spinlock)(&pcd->state_lock);
		saving->taken -= nr;
	}
	return 0;
}

/*
 * Take the next unit's pages out of the initial or the dirty set, going round
 * after the last unit.
 *
 * Return: the number taken, 0 if there are none, -ENODEV if the session is over.
 */
static long precopy_save_take(struct precopy_saving *saving)
{
	struct precopy_device *pcd = saving->session.pcd;
	bool live = saving->phase == PRECOPY_SAVE_LIVE;
	struct precopy_dirty *set = live ? &saving->tracker.dirty :
					   &saving->tracker.initial;
	long nr;

	guard(rwsem_write)(&pcd->memory.sem);
	if (!precopy_save_current(saving))
		return -ENODEV;
	saving->unit = precopy_dirty_next_unit(set, saving->unit);
	if (saving->unit == set->nr_units) {
		precopy_tracker_recheck(pcd, &saving->tracker,
					saving->stopped);
		saving->unit = precopy_dirty_next_unit(set, 0);
	}
	if (saving->unit == set->nr_units)
		return 0;
	precopy_tracker_tighten(pcd, &saving->tracker, saving->unit);
	guard(spinlock)(&pcd->state_lock);
	nr = precopy_dirty_take(set, saving->unit, saving->pages);
	if (live)
		saving->taken = nr;
	return nr;
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
		saving->unit_cost = precopy_initial_cost(saving->pages);
		mark = ktime_get();
		ret = precopy_save_protect(saving);
		precopy_stat_lap(&stats->save_protect_ns, &mark);
		if (ret)
			return ret;
		if (!bitmap_empty(saving->pages, PRECOPY_UNIT_PAGES))
			break;
		/* All of them set aside */
		saving->unit++;
		if (saving->phase == PRECOPY_SAVE_INITIAL) {
			guard(spinlock)(&saving->session.pcd->state_lock);
			saving->initial_left -= saving->unit_cost;
		}
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
						   precopy_ram_bytes(pcd->memory.ram));
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
				     saving->bytes_in_use,
				     precopy_startup_estimate(saving->bytes_in_use),
				     saving->in_use, saving->nr_units);
	trace_precopy_save_record(precopy_dev(saving->session.pcd),
				  PRECOPY_REC_PREFACE, 0, len);
	precopy_save_produced(saving, len, PRECOPY_SAVE_INITIAL);
	return 1;
}

/*
 * Fill the empty buffer with what comes next in the stream.
 *
 * Return: 1 if there is something in it, 0 at the end of the stream, -ENOMSG
 * at its temporary end (rule R44), -ENODEV if the session is over.
 */
static int precopy_save_fill(struct precopy_saving *saving)
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

/* --- The file ------------------------------------------------------------- */

/* Copy out of the buffer, filling it first if it is empty */
static ssize_t precopy_save_read_some(struct precopy_saving *saving,
				      char __user *buf, size_t count)
{
	size_t n, left;
	ktime_t mark;
	int ret;

	if (precopy_session_dead(&saving->session))
		return -ENODEV;
	if (saving->pos == saving->len) {
		ret = precopy_save_fill(saving);
		if (ret <= 0)
			return ret;
	}
	n = min(count, saving->len - saving->pos);
	mark = ktime_get();
	left = copy_to_user(buf, saving->buf + saving->pos, n);
	precopy_stat_lap(&saving->session.pcd->stats.save_user_ns, &mark);
	precopy_save_consumed(saving, n - left);
	return n - left ?: -EFAULT;
}

static ssize_t precopy_save_read(struct file *filp, char __user *buf,
				 size_t count, loff_t *pos)
{
	struct precopy_saving *saving = filp->private_data;
	ssize_t done = 0, ret;

	if (!count)
		return 0;
	ret = precopy_session_begin(&saving->session,
				    filp->f_flags & O_NONBLOCK);
	if (ret)
		return ret;
	while (count) {
		ret = precopy_save_read_some(saving, buf + done, count);
		if (ret <= 0)
			break;
		done += ret;
		count -= ret;
		if (fatal_signal_pending(current))
			break;
		cond_resched();
	}
	precopy_session_end(&saving->session);
	/* What was read is delivered before the error (rule R35) */
	return done ?: ret;
}

/*
 * Pages that were set aside do not make the fd readable when their references
 * go: nothing tells. The next read() finds them, at the latest in STOP_COPY.
 */
static __poll_t precopy_save_poll(struct file *filp,
				  struct poll_table_struct *table)
{
	struct precopy_saving *saving = filp->private_data;

	poll_wait(filp, &saving->wait, table);
	guard(spinlock)(&saving->session.pcd->state_lock);
	if (saving->session.dead)
		return EPOLLIN | EPOLLRDNORM | EPOLLRDHUP | EPOLLERR;
	if (saving->stopped || precopy_save_initial(saving) ||
	    precopy_save_dirty(saving))
		return EPOLLIN | EPOLLRDNORM;
	return 0;
}

/* VFIO_MIG_GET_PRECOPY_INFO: a question, never an action (rules R38-R43) */
static long precopy_save_info(struct precopy_saving *saving, unsigned long arg)
{
	unsigned long minsz = offsetofend(struct vfio_precopy_info, dirty_bytes);
	struct precopy_device *pcd = saving->session.pcd;
	struct vfio_precopy_info info;
	int ret;

	ret = vfio_check_precopy_ioctl(&pcd->core.vdev,
				       VFIO_MIG_GET_PRECOPY_INFO, arg, &info);
	if (ret)
		return ret;
	info.flags = 0;
	scoped_guard(spinlock, &pcd->state_lock) {
		if (pcd->mig_state != VFIO_DEVICE_STATE_PRE_COPY &&
		    pcd->mig_state != VFIO_DEVICE_STATE_PRE_COPY_P2P)
			return -EINVAL;
		if (saving->session.dead)
			return -ENODEV;
		info.initial_bytes = precopy_save_initial(saving);
		info.dirty_bytes = precopy_save_dirty(saving);
	}
	return copy_to_user((void __user *)arg, &info, minsz) ? -EFAULT : 0;
}

static long precopy_save_ioctl(struct file *filp, unsigned int cmd,
			       unsigned long arg)
{
	if (cmd == VFIO_MIG_GET_PRECOPY_INFO)
		return precopy_save_info(filp->private_data, arg);
	return -ENOTTY;
}

static int precopy_save_file_release(struct inode *inode, struct file *filp)
{
	struct precopy_saving *saving = filp->private_data;

	precopy_session_put(&saving->session);
	return 0;
}

static const struct file_operations precopy_save_fops = {
	.owner		= THIS_MODULE,
	.read		= precopy_save_read,
	.poll		= precopy_save_poll,
	.unlocked_ioctl	= precopy_save_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.release	= precopy_save_file_release,
};

/* --- Arcs ------------------------------------------------------------------ */

static void precopy_save_free(struct precopy_session *session)
{
	struct precopy_saving *saving =
		container_of(session, struct precopy_saving, session);

	precopy_tracker_destroy(&saving->tracker);
	bitmap_free(saving->in_use);
	kvfree(saving->buf);
	kfree(saving);
}

static struct precopy_saving *precopy_save_alloc(struct precopy_device *pcd,
						 u64 generation)
{
	struct precopy_saving *saving = kzalloc_obj(*saving, GFP_KERNEL_ACCOUNT);
	struct precopy_stream_params params;

	if (!saving)
		return ERR_PTR(-ENOMEM);
	precopy_session_init(&saving->session, pcd, generation,
			     precopy_save_free);
	init_waitqueue_head(&saving->wait);
	precopy_stream_params(pcd, &params);
	precopy_encoder_init(&saving->enc, &params);
	saving->nr_units = precopy_stream_units(params.memory_size);
	saving->in_use = bitmap_zalloc(saving->nr_units, GFP_KERNEL_ACCOUNT);
	saving->buf = kvmalloc(PRECOPY_SAVE_BUF, GFP_KERNEL_ACCOUNT);
	if (!saving->in_use || !saving->buf ||
	    precopy_tracker_init(&saving->tracker, params.memory_size,
				 &saving->wait)) {
		precopy_session_put(&saving->session);
		return ERR_PTR(-ENOMEM);
	}
	return saving;
}

/* Fix the initial set and what it costs. memory.sem is held for write. */
static void precopy_save_snapshot(struct precopy_device *pcd,
				  struct precopy_saving *saving)
{
	struct precopy_dirty *initial = &saving->tracker.initial;
	ktime_t mark = ktime_get();
	unsigned long unit, *words;
	u64 in_use;

	in_use = precopy_ram_bytes(pcd->memory.ram);
	precopy_tracker_arm(pcd, &saving->tracker);
	precopy_ram_units(pcd->memory.ram, saving->in_use);
	/* Memory allocated at this moment may be seen before its unit is */
	saving->bytes_in_use = min_t(u64, in_use,
				     (u64)bitmap_weight(saving->in_use,
							saving->nr_units) *
				     PRECOPY_UNIT_SIZE);

	saving->initial_left = PRECOPY_FILE_HDR_LEN + 2 * PRECOPY_REC_HDR_LEN +
			       precopy_preface_len(saving->nr_units);
	saving->tail_left = PRECOPY_TAIL_COST;
	for (unit = precopy_dirty_next_unit(initial, 0);
	     unit < initial->nr_units;
	     unit = precopy_dirty_next_unit(initial, unit + 1)) {
		words = initial->map + BIT_WORD(unit * PRECOPY_UNIT_PAGES);
		saving->initial_left += precopy_initial_cost(words);
		cond_resched();
	}
	atomic64_inc(&pcd->stats.arms);
	atomic64_set(&pcd->stats.last_arm_ns, ktime_get() - mark);
}

/* Begin the session in one step, unless there was a reset */
static int precopy_save_publish(struct precopy_device *pcd,
				struct precopy_saving *saving)
{
	guard(rwsem_write)(&pcd->memory.sem);
	if (pcd->generation != saving->session.generation)
		return -ECANCELED;
	precopy_save_snapshot(pcd, saving);
	precopy_session_get(&saving->session);
	guard(spinlock)(&pcd->state_lock);
	pcd->saving = saving;
	return 0;
}

/**
 * precopy_save_start - begin a saving session
 * @pcd: the device
 * @generation: at the start of the state change
 * @stopped: straight to STOP_COPY, without PRE_COPY
 *
 * Context: an arc, arc_mutex held.
 * Return: the data fd's file, ERR_PTR(-ENOMEM), ERR_PTR(-ECANCELED) after a
 * reset.
 */
struct file *precopy_save_start(struct precopy_device *pcd, u64 generation,
				bool stopped)
{
	struct precopy_saving *saving = precopy_save_alloc(pcd, generation);
	struct file *filp;
	int ret;

	if (IS_ERR(saving))
		return ERR_CAST(saving);
	saving->stopped = stopped;
	filp = precopy_session_file(&saving->session, &precopy_save_fops,
				    O_RDONLY);
	if (!IS_ERR(filp)) {
		ret = precopy_save_publish(pcd, saving);
		if (ret) {
			fput(filp);
			filp = ERR_PTR(ret);
		}
	}
	precopy_session_put(&saving->session);
	return filp;
}

/**
 * precopy_save_finish - PRE_COPY_P2P to STOP_COPY: let the stream end
 * @pcd: the device
 * @generation: at the start of the state change
 *
 * Context: an arc, arc_mutex held.
 * Return: 0, or -ECANCELED after a reset.
 */
int precopy_save_finish(struct precopy_device *pcd, u64 generation)
{
	guard(spinlock)(&pcd->state_lock);
	if (pcd->generation != generation)
		return -ECANCELED;
	WRITE_ONCE(pcd->saving->stopped, true);
	wake_up_poll(&pcd->saving->wait, EPOLLIN | EPOLLRDNORM);
	return 0;
}

/**
 * precopy_save_stop - end the saving session
 * @pcd: the device
 * @generation: at the start of the state change
 *
 * Context: an arc, arc_mutex held.
 * Return: 0, or -ECANCELED after a reset.
 */
int precopy_save_stop(struct precopy_device *pcd, u64 generation)
{
	struct precopy_saving *saving;

	scoped_guard(rwsem_write, &pcd->memory.sem) {
		if (pcd->generation != generation)
			return -ECANCELED;
		scoped_guard(spinlock, &pcd->state_lock) {
			saving = pcd->saving;
			pcd->saving = NULL;
			precopy_save_kill(saving);
		}
		precopy_tracker_disarm(pcd);
	}
	precopy_save_release(saving);
	return 0;
}

/**
 * precopy_save_kill - the session is over; its fd gives ENODEV from now on
 * @saving: the session
 *
 * Context: state_lock held. precopy_save_release() must follow, without it.
 */
void precopy_save_kill(struct precopy_saving *saving)
{
	lockdep_assert_held(&saving->session.pcd->state_lock);
	saving->session.dead = true;
	wake_up_all(&saving->wait);
	/* Readers that wait for another reader */
	wake_up_all(&saving->session.pcd->wait);
}

/**
 * precopy_save_release - drop the device's reference on a killed session
 * @saving: the session
 *
 * Context: may sleep; no lock of this driver held but arc_mutex; nothing tracks
 * into it.
 */
void precopy_save_release(struct precopy_saving *saving)
{
	precopy_session_put(&saving->session);
}
