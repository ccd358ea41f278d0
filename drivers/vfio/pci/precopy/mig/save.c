// SPDX-License-Identifier: GPL-2.0-only
/*
 * The saving data fd, and the arcs that begin and end its session. read() makes
 * the stream (mig/save_stream.c); nothing else produces data. Everything that
 * PRECOPY_INFO and MIG_DATA_SIZE report comes from counters that are kept on
 * the way.
 */

#include <linux/file.h>
#include <linux/fs.h>
#include <linux/math64.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vfio_precopy.h>

#include "mem/memory.h"
#include "precopy.h"
#include "save.h"
#include "saving.h"
#include "startup.h"
#include "startup_info.h"

/* Records that only STOP_COPY sends */
#define PRECOPY_TAIL_COST	(PRECOPY_STATE_LEN + PRECOPY_END_LEN)
/*
 * A VMM sizes its read buffer by what a device reports before its session, and
 * the stream of one that is running may grow. STOP reports what there is.
 */
#define PRECOPY_MIN_ESTIMATE	SZ_1M
/* Of 4 KiB, that one estimate may look at: 32 MiB, a few ms */
#define PRECOPY_SCAN_PAGES	SZ_8K

static struct precopy_saving *to_saving(struct precopy_session *session)
{
	return container_of(session, struct precopy_saving, session);
}

/* --- Accounting ------------------------------------------------------- */

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
	if (saving->restarting)
		return 0;
	return (precopy_tracker_count(saving->tracker, PRECOPY_DIRTY) +
		saving->taken) * PRECOPY_DIRTY_COST + unread;
}

static u64 precopy_save_left(const struct precopy_saving *saving)
{
	return precopy_save_initial(saving) + precopy_save_dirty(saving) +
	       precopy_tracker_count(saving->tracker, PRECOPY_PINNED) *
	       PRECOPY_DIRTY_COST + saving->tail_left;
}

/* As if no two pages were neighbours: too high rather than too low */
static u64 precopy_save_cost_in_use(u64 bytes)
{
	return bytes / PAGE_SIZE * PRECOPY_DIRTY_COST;
}

/* What the pages of a unit would cost; @left counts those that may be looked at */
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
 * What a device that is stopped would send of its memory. Which pages are zero
 * is looked at, so that a VMM that moves a paused VM is not told of 2 MiB for
 * every page that was touched. What is beyond PRECOPY_SCAN_PAGES counts as data.
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

/**
 * precopy_save_estimate - bytes that STOP_COPY would send from now on
 * @pcd: the device
 *
 * Exact while a session is on, but for pages that turn out to be zero. Without
 * one, in STOP, exact for the first 32 MiB in use, and else from what is in use.
 * In other states from what is in use, and never below PRECOPY_MIN_ESTIMATE. A
 * test knob may have it say anything.
 *
 * Context: any that may sleep for memory.sem; never waits for a session.
 * Return: bytes.
 */
u64 precopy_save_estimate(struct precopy_device *pcd)
{
	u64 bytes = precopy_knob(pcd, data_size);
	bool stopped;

	if (bytes)
		return bytes;
	scoped_guard(spinlock, &pcd->state_lock) {
		if (pcd->saving)
			return precopy_save_left(pcd->saving);
		stopped = pcd->mig_state == VFIO_DEVICE_STATE_STOP;
	}
	bytes = PRECOPY_FILE_HDR_LEN + 2 * PRECOPY_REC_HDR_LEN +
		precopy_preface_len(precopy_stream_units(pcd->memory.size)) +
		PRECOPY_TAIL_COST;
	if (stopped)
		return bytes + precopy_save_cost_stopped(pcd);
	bytes += precopy_save_cost_running(pcd);
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

/* --- The file --------------------------------------------------------- */

static void precopy_save_consumed(struct precopy_saving *saving, size_t n)
{
	struct precopy_device *pcd = saving->session.pcd;

	atomic64_add(n, &pcd->stats.saved_bytes);
	guard(spinlock)(&pcd->state_lock);
	saving->pos += n;
	saving->nr_read += n;
	/* Anything produced before the live phase is initial data */
	saving->initial_left -= min_t(u64, n, saving->initial_left);
	if (!saving->initial_left)
		saving->reinit = false;
	if (!saving->preface_left)
		return;
	saving->preface_left -= min_t(u64, n, saving->preface_left);
	if (!saving->preface_left)
		saving->preface_read = ktime_get();
}

/* The test knob: so many bytes of the stream, then errors */
static int precopy_save_test_error(struct precopy_saving *saving, size_t *n)
{
	u64 limit = precopy_knob(saving->session.pcd, fail_save_at);

	if (!limit)
		return 0;
	if (saving->nr_read >= limit)
		return -EIO;
	*n = min_t(u64, *n, limit - saving->nr_read);
	return 0;
}

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
	ret = precopy_save_test_error(saving, &n);
	if (ret)
		return ret;
	mark = ktime_get();
	left = copy_to_user(buf, saving->buf + saving->pos, n);
	precopy_stat_lap(&saving->session.pcd->stats.save_user_ns, &mark);
	precopy_save_consumed(saving, n - left);
	return n - left ?: -EFAULT;
}

static ssize_t precopy_save_read(struct file *filp, char __user *buf,
				 size_t count, loff_t *pos)
{
	struct precopy_saving *saving = to_saving(filp->private_data);
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
	struct precopy_saving *saving = to_saving(filp->private_data);

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

	/*
	 * Not vfio_check_precopy_ioctl(): it looks at the core's device, which
	 * need not be there any more, nor stay.
	 */
	if (copy_from_user(&info, (void __user *)arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;
	info.flags = 0;
	scoped_guard(spinlock, &pcd->state_lock) {
		if (pcd->mig_state != VFIO_DEVICE_STATE_PRE_COPY &&
		    pcd->mig_state != VFIO_DEVICE_STATE_PRE_COPY_P2P)
			return -EINVAL;
		if (saving->session.dead)
			return -ENODEV;
		/* Only who has opted in is told (rule R43) */
		if (saving->reinit && pcd->core->vdev.precopy_info_v2)
			info.flags |= VFIO_PRECOPY_INFO_REINIT;
		info.initial_bytes = precopy_save_initial(saving);
		info.dirty_bytes = precopy_save_dirty(saving);
	}
	return copy_to_user((void __user *)arg, &info, minsz) ? -EFAULT : 0;
}

/*
 * What the source can know of a startup elsewhere: what it asked for, and when;
 * how long that takes here; and so, how far it may be.
 */
static void precopy_save_tell(struct precopy_session *session,
			      struct vfio_precopy_startup *info)
{
	struct precopy_saving *saving = to_saving(session);

	if (saving->measured)
		info->flags |= VFIO_PRECOPY_STARTUP_MEASURED;
	info->bytes_in_use = saving->bytes_in_use;
	info->remaining_ns = saving->startup_ns;
	info->phase = VFIO_PRECOPY_PHASE_WAITING;
	if (saving->preface_left)
		return;
	info->elapsed_ns = ktime_get() - saving->preface_read;
	if (info->elapsed_ns >= saving->startup_ns) {
		info->phase = VFIO_PRECOPY_PHASE_READY;
		info->bytes_prepared = info->bytes_in_use;
		info->elapsed_ns = saving->startup_ns;
		info->remaining_ns = 0;
		return;
	}
	info->phase = VFIO_PRECOPY_PHASE_STARTING;
	info->bytes_prepared = mul_u64_u64_div_u64(info->bytes_in_use,
						   info->elapsed_ns,
						   saving->startup_ns);
	info->remaining_ns -= info->elapsed_ns;
}

static long precopy_save_ioctl(struct file *filp, unsigned int cmd,
			       unsigned long arg)
{
	struct precopy_saving *saving = to_saving(filp->private_data);

	switch (cmd) {
	case VFIO_MIG_GET_PRECOPY_INFO:
		return precopy_save_info(saving, arg);
	case PRECOPY_GET_STARTUP:
		return precopy_handoff_get(&saving->session, arg,
					   precopy_save_tell);
	default:
		return -ENOTTY;
	}
}

static const struct file_operations precopy_save_fops = {
	.owner		= THIS_MODULE,
	.read		= precopy_save_read,
	.poll		= precopy_save_poll,
	.unlocked_ioctl	= precopy_save_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.release	= precopy_session_file_release,
};

/* --- Arcs ------------------------------------------------------------- */

static void precopy_save_free(struct precopy_session *session)
{
	struct precopy_saving *saving = to_saving(session);

	precopy_tracker_free(saving->tracker);
	bitmap_free(saving->in_use);
	kvfree(saving->buf);
	kfree(saving);
}

static struct precopy_saving *precopy_save_alloc(struct precopy_device *pcd,
						 u64 generation, bool stopped)
{
	struct precopy_saving *saving = kzalloc_obj(*saving, GFP_KERNEL_ACCOUNT);
	struct precopy_stream_params params;

	if (!saving)
		return ERR_PTR(-ENOMEM);
	precopy_session_init(&saving->session, pcd, generation,
			     precopy_save_free);
	init_waitqueue_head(&saving->wait);
	precopy_device_params(pcd, &params);
	precopy_encoder_init(&saving->enc, &params);
	saving->nr_units = precopy_stream_units(params.memory_size);
	saving->in_use = bitmap_zalloc(saving->nr_units, GFP_KERNEL_ACCOUNT);
	saving->buf = kvmalloc(PRECOPY_SAVE_BUF, GFP_KERNEL_ACCOUNT);
	saving->stopped = stopped;
	saving->tracker = precopy_tracker_create(params.memory_size, !stopped,
						 &saving->wait,
						 &pcd->state_lock);
	if (!saving->in_use || !saving->buf || !saving->tracker) {
		precopy_session_put(&saving->session);
		return ERR_PTR(-ENOMEM);
	}
	return saving;
}

/* What the initial set costs; nobody else changes it yet */
static u64 precopy_save_count_initial(const struct precopy_tracker *tracker)
{
	unsigned long unit;
	u64 cost = 0;

	for (unit = precopy_tracker_next(tracker, PRECOPY_INITIAL, 0);
	     unit != ULONG_MAX;
	     unit = precopy_tracker_next(tracker, PRECOPY_INITIAL, unit + 1)) {
		cost += precopy_save_initial_cost(precopy_tracker_pages(tracker,
									PRECOPY_INITIAL,
									unit));
		cond_resched();
	}
	return cost;
}

/*
 * Fix the initial set and what it costs, after @before bytes that are in the
 * stream before its PREFACE. memory.sem is held for write.
 */
static void precopy_save_snapshot(struct precopy_device *pcd,
				  struct precopy_saving *saving, u64 before)
{
	ktime_t mark = ktime_get();
	u64 in_use, cost;

	precopy_tracker_arm(&pcd->memory, saving->tracker);
	bitmap_zero(saving->in_use, saving->nr_units);
	/* A unit that has holes may cost the target more than it costs here */
	in_use = precopy_memory_whole_units(&pcd->memory, saving->in_use);
	cost = precopy_save_count_initial(saving->tracker);
	atomic64_inc(&pcd->stats.arms);
	atomic64_set(&pcd->stats.last_arm_ns, ktime_get() - mark);

	guard(spinlock)(&pcd->state_lock);
	saving->bytes_in_use = in_use;
	saving->startup_ns = precopy_startup_estimate(pcd, in_use,
						      &saving->measured);
	saving->preface_left = before + PRECOPY_REC_HDR_LEN +
			       precopy_preface_len(saving->nr_units);
	saving->initial_left = saving->preface_left + PRECOPY_REC_HDR_LEN +
			       cost;
	saving->tail_left = PRECOPY_TAIL_COST;
	saving->restarting = false;
}

/*
 * Begin the session in one step, unless there was a reset. -EAGAIN: the tracker
 * must be prepared once more.
 */
static int precopy_save_publish(struct precopy_device *pcd,
				struct precopy_saving *saving)
{
	guard(rwsem_write)(&pcd->memory.sem);
	if (pcd->generation != saving->session.generation)
		return -ECANCELED;
	if (!precopy_tracker_prepared(&pcd->memory, saving->tracker))
		return -EAGAIN;
	precopy_save_snapshot(pcd, saving, PRECOPY_FILE_HDR_LEN);
	precopy_session_get(&saving->session);
	guard(spinlock)(&pcd->state_lock);
	pcd->saving = saving;
	return 0;
}

static int precopy_save_begin(struct precopy_device *pcd,
			      struct precopy_saving *saving)
{
	int ret;

	do {
		ret = precopy_tracker_prepare(&pcd->memory, saving->tracker) ?:
		      precopy_save_publish(pcd, saving);
	} while (ret == -EAGAIN);
	return ret;
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
	struct precopy_saving *saving = precopy_save_alloc(pcd, generation,
							   stopped);
	struct file *filp;
	int ret;

	if (IS_ERR(saving))
		return ERR_CAST(saving);
	filp = precopy_session_file(&saving->session, &precopy_save_fops,
				    O_RDONLY);
	if (!IS_ERR(filp)) {
		ret = precopy_save_begin(pcd, saving);
		if (ret) {
			fput(filp);
			filp = ERR_PTR(ret);
		}
	}
	precopy_session_put(&saving->session);
	return filp;
}

/*
 * With the session busy and memory.sem held for write. -EBUSY: the tracker must
 * be prepared once more.
 */
static int precopy_save_start_over(struct precopy_device *pcd,
				   struct precopy_saving *saving)
{
	u64 before;

	if (!precopy_tracker_prepared(&pcd->memory, saving->tracker))
		return -EBUSY;
	scoped_guard(spinlock, &pcd->state_lock) {
		if (saving->session.dead)
			return -ENODEV;
		/* Not within an initial part, and not once it is to end */
		if (saving->stopped || saving->phase != PRECOPY_SAVE_LIVE)
			return -EAGAIN;
		before = precopy_save_unread(saving);
		/*
		 * Whoever asks before there is a new count: what was dirty is
		 * initial, and so is all else, as if no two pages were
		 * neighbours. Too little would be taken for drained too soon.
		 */
		saving->initial_left = before + 2 * PRECOPY_REC_HDR_LEN +
			precopy_preface_len(saving->nr_units) +
			precopy_memory_used(&pcd->memory) / PAGE_SIZE *
			PRECOPY_DIRTY_COST;
		saving->taken = 0;
		saving->phase = PRECOPY_SAVE_PREFACE;
		saving->reinit = true;
		saving->restarting = true;
	}
	bitmap_zero(saving->pages, PRECOPY_UNIT_PAGES);
	saving->unit = 0;
	saving->unit_cost = 0;
	precopy_tracker_clear(&pcd->memory);
	precopy_save_snapshot(pcd, saving, before);
	wake_up_poll(&saving->wait, EPOLLIN | EPOLLRDNORM);
	return 0;
}

static int precopy_save_begin_again(struct precopy_device *pcd,
				    struct precopy_saving *saving)
{
	int ret;

	do {
		ret = precopy_tracker_prepare(&pcd->memory, saving->tracker);
		if (ret)
			return ret;
		guard(rwsem_write)(&pcd->memory.sem);
		ret = precopy_save_start_over(pcd, saving);
	} while (ret == -EBUSY);
	return ret;
}

/**
 * precopy_save_reinit - the device was changed in a way that initial data tells
 * @pcd: the device
 *
 * All that is in use becomes initial data again, after another PREFACE in the
 * same stream, and the target starts once more (VFIO_PRECOPY_INFO_REINIT).
 *
 * Context: may sleep; waits (killable) for a read in progress; no lock held.
 * Return: 0, -EINVAL if the device is not in a pre-copy state or its user has
 * not opted in, -EAGAIN while initial data is still to be made or when the
 * device is being stopped, -ENODEV after a reset, -ENOMEM, -EINTR.
 */
int precopy_save_reinit(struct precopy_device *pcd)
{
	struct precopy_saving *saving;
	int ret;

	scoped_guard(spinlock, &pcd->state_lock) {
		saving = pcd->saving;
		if (!saving || saving->stopped ||
		    !pcd->core->vdev.precopy_info_v2)
			return -EINVAL;
		precopy_session_get(&saving->session);
	}
	ret = precopy_session_begin(&saving->session, false);
	if (!ret) {
		ret = precopy_save_begin_again(pcd, saving);
		precopy_session_end(&saving->session);
	}
	precopy_session_put(&saving->session);
	return ret;
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
		precopy_tracker_disarm(&pcd->memory);
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
