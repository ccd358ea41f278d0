// SPDX-License-Identifier: GPL-2.0-only
/*
 * The saving data fd, and the arcs that begin and end its session. read() makes
 * the stream (mig/save_stream.c); nothing else produces data. Everything that
 * PRECOPY_INFO and MIG_DATA_SIZE report during a session comes from counters: of
 * the sections for what was not made yet, and of the buffer.
 */

#include <linux/file.h>
#include <linux/fs.h>
#include <linux/math64.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vfio_precopy.h>

#include "model.h"
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

static struct precopy_saving *to_saving(struct precopy_session *session)
{
	return container_of(session, struct precopy_saving, session);
}

/* --- Accounting ------------------------------------------------------- */

static u64 precopy_save_unread(const struct precopy_saving *saving)
{
	return saving->len - saving->pos;
}

/* PREFACE and INITIAL_END, as far as they were not made yet */
static u64 precopy_save_frame(const struct precopy_saving *saving)
{
	u64 left = 0;

	if (saving->phase == PRECOPY_SAVE_HEADER)
		left += PRECOPY_FILE_HDR_LEN;
	if (saving->phase <= PRECOPY_SAVE_PREFACE)
		left += PRECOPY_REC_HDR_LEN +
			precopy_preface_len(saving->preface.nr_units);
	if (saving->phase <= PRECOPY_SAVE_INITIAL)
		left += PRECOPY_REC_HDR_LEN;
	return left;
}

/* STATE and END, as far as they were not made yet */
static u64 precopy_save_end(const struct precopy_saving *saving)
{
	if (saving->phase <= PRECOPY_SAVE_LIVE)
		return PRECOPY_TAIL_COST;
	return saving->phase == PRECOPY_SAVE_END ? PRECOPY_END_LEN : 0;
}

/*
 * All bytes up to the end of the stream. Initial data is not read yet; dirty is
 * what was written after it was sent, and can be sent while running.
 */
static void precopy_save_count(const struct precopy_saving *saving,
			       struct precopy_save_left *sum)
{
	u64 unread = precopy_save_unread(saving);
	struct precopy_save_part * const *part;

	lockdep_assert_held(&saving->session.pcd->state_lock);
	sum->initial = precopy_save_frame(saving);
	sum->dirty = 0;
	sum->tail = precopy_save_end(saving);
	if (saving->buf_initial)
		sum->initial += unread;
	else
		sum->dirty += unread;
	for (part = saving->parts; *part; part++) {
		struct precopy_save_left left = {};

		(*part)->ops->left(*part, &left);
		sum->initial += left.initial;
		sum->dirty += left.dirty;
		sum->tail += left.tail;
	}
}

static u64 precopy_save_initial(const struct precopy_saving *saving)
{
	struct precopy_save_left left;

	precopy_save_count(saving, &left);
	return left.initial;
}

static u64 precopy_save_left(const struct precopy_saving *saving)
{
	struct precopy_save_left left;

	precopy_save_count(saving, &left);
	return left.initial + left.dirty + left.tail;
}

/* Bytes that the sections would send, without the records of the data fd itself */
static u64 precopy_save_estimate_sections(struct precopy_device *pcd,
					  bool stopped)
{
	const struct precopy_section * const *section;
	u64 bytes = 0;

	for (section = READ_ONCE(pcd->model)->sections; *section; section++)
		bytes += (*section)->save->estimate(pcd, stopped);
	return bytes;
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
		PRECOPY_TAIL_COST + precopy_save_estimate_sections(pcd, stopped);
	return stopped ? bytes : max_t(u64, bytes, PRECOPY_MIN_ESTIMATE);
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
	struct precopy_save_left left = {};

	guard(spinlock)(&pcd->state_lock);
	if (pcd->saving)
		precopy_save_count(pcd->saving, &left);
	*initial_bytes = left.initial;
	*dirty_bytes = left.dirty;
}

/* --- The file --------------------------------------------------------- */

static void precopy_save_consumed(struct precopy_saving *saving, size_t n)
{
	struct precopy_device *pcd = saving->session.pcd;

	atomic64_add(n, &pcd->stats.saved_bytes);
	guard(spinlock)(&pcd->state_lock);
	saving->pos += n;
	saving->nr_read += n;
	if (saving->reinit && !precopy_save_initial(saving))
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
	/* Bytes that were read are delivered before the error (rule R35) */
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
	struct precopy_save_left left;

	poll_wait(filp, &saving->session.wait, table);
	guard(spinlock)(&saving->session.pcd->state_lock);
	if (saving->session.dead)
		return EPOLLIN | EPOLLRDNORM | EPOLLRDHUP | EPOLLERR;
	precopy_save_count(saving, &left);
	if (saving->stopped || left.initial || left.dirty)
		return EPOLLIN | EPOLLRDNORM;
	return 0;
}

/* VFIO_MIG_GET_PRECOPY_INFO: a question, never an action (rules R38-R43) */
static long precopy_save_info(struct precopy_saving *saving, unsigned long arg)
{
	unsigned long minsz = offsetofend(struct vfio_precopy_info, dirty_bytes);
	struct precopy_device *pcd = saving->session.pcd;
	struct precopy_save_left left;
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
		precopy_save_count(saving, &left);
		info.initial_bytes = left.initial;
		info.dirty_bytes = left.dirty;
	}
	return copy_to_user((void __user *)arg, &info, minsz) ? -EFAULT : 0;
}

/*
 * The source does not see the startup. It reports what PREFACE asked for, and the
 * time that is left by its own measurements and the time since PREFACE was read.
 */
static void precopy_save_tell(struct precopy_session *session,
			      struct precopy_startup_report *report)
{
	struct precopy_saving *saving = to_saving(session);
	struct vfio_precopy_startup *info = &report->own;

	lockdep_assert_held(&session->pcd->state_lock);
	report->initial_bytes = precopy_save_initial(saving);
	if (saving->measured)
		info->flags |= VFIO_PRECOPY_STARTUP_MEASURED;
	info->bytes_in_use = saving->preface.bytes_in_use;
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

	if (cmd == VFIO_MIG_GET_PRECOPY_INFO)
		return precopy_save_info(saving, arg);
	return precopy_startup_ioctl(&saving->session, cmd, arg,
				     precopy_save_tell);
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
	struct precopy_save_part * const *part;

	for (part = saving->parts; *part; part++)
		(*part)->ops->free(*part);
	bitmap_free(saving->preface.units);
	kvfree(saving->buf);
	kfree(saving);
}

static struct precopy_save_part *
precopy_save_part_alloc(struct precopy_saving *saving,
			const struct precopy_save_ops *ops)
{
	struct precopy_save_part *part = ops->alloc(&saving->session,
						    &saving->enc,
						    saving->stopped);

	if (!part)
		return NULL;
	part->ops = ops;
	part->session = &saving->session;
	part->enc = &saving->enc;
	return part;
}

static int precopy_save_init(struct precopy_saving *saving,
			     const struct precopy_model *model)
{
	u32 nr_units = precopy_stream_units(saving->enc.params.memory_size);
	unsigned int i;

	saving->preface.nr_units = nr_units;
	saving->preface.units = bitmap_zalloc(nr_units, GFP_KERNEL_ACCOUNT);
	saving->buf = kvmalloc(PRECOPY_SAVE_BUF, GFP_KERNEL_ACCOUNT);
	if (!saving->preface.units || !saving->buf)
		return -ENOMEM;
	for (i = 0; model->sections[i]; i++) {
		saving->parts[i] =
			precopy_save_part_alloc(saving,
						model->sections[i]->save);
		if (!saving->parts[i])
			return -ENOMEM;
	}
	return 0;
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
	precopy_session_params(pcd, &params);
	precopy_encoder_init(&saving->enc, &params);
	saving->stopped = stopped;
	if (precopy_save_init(saving, pcd->model)) {
		precopy_session_put(&saving->session);
		return ERR_PTR(-ENOMEM);
	}
	return saving;
}

/* Allocate what precopy_save_snapshot() needs */
static int precopy_save_prepare(struct precopy_saving *saving)
{
	struct precopy_save_part * const *part;
	int ret = 0;

	for (part = saving->parts; *part; part++) {
		if ((*part)->ops->prepare)
			ret = (*part)->ops->prepare(*part);
		if (ret)
			break;
	}
	return ret;
}

static bool precopy_save_prepared(struct precopy_saving *saving)
{
	struct precopy_save_part * const *part;

	for (part = saving->parts; *part; part++)
		if ((*part)->ops->prepared && !(*part)->ops->prepared(*part))
			return false;
	return true;
}

/* Fix the initial data, after @before bytes that come before its PREFACE */
static void precopy_save_snapshot(struct precopy_saving *saving, u64 before)
{
	struct precopy_save_preface preface = saving->preface;
	struct precopy_device *pcd = saving->session.pcd;
	struct precopy_save_part * const *part;

	lockdep_assert_held_write(&pcd->memory.sem);
	preface.bytes_in_use = 0;
	bitmap_zero(preface.units, preface.nr_units);
	for (part = saving->parts; *part; part++)
		(*part)->ops->begin(*part, &preface);

	guard(spinlock)(&pcd->state_lock);
	saving->preface = preface;
	saving->startup_ns = precopy_startup_estimate(pcd, preface.bytes_in_use,
						      &saving->measured);
	saving->preface_left = before + PRECOPY_REC_HDR_LEN +
			       precopy_preface_len(preface.nr_units);
}

/*
 * Begin the session in one step, unless there was a reset. -EAGAIN: the sections
 * must be prepared once more.
 */
static int precopy_save_publish(struct precopy_device *pcd,
				struct precopy_saving *saving)
{
	guard(rwsem_write)(&pcd->memory.sem);
	if (pcd->generation != saving->session.generation)
		return -ECANCELED;
	if (!precopy_save_prepared(saving))
		return -EAGAIN;
	precopy_save_snapshot(saving, PRECOPY_FILE_HDR_LEN);
	guard(spinlock)(&pcd->state_lock);
	precopy_session_attach(&saving->session);
	pcd->saving = saving;
	return 0;
}

static int precopy_save_begin(struct precopy_device *pcd,
			      struct precopy_saving *saving)
{
	int ret;

	do {
		ret = precopy_save_prepare(saving) ?:
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

	lockdep_assert_held(&pcd->arc_mutex);
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

/* All that was sent, and all that is left, becomes initial data again */
static void precopy_save_restart(struct precopy_saving *saving)
{
	struct precopy_save_part * const *part;

	lockdep_assert_held(&saving->session.pcd->state_lock);
	for (part = saving->parts; *part; part++)
		if ((*part)->ops->restart)
			(*part)->ops->restart(*part);
	/* The bytes in the buffer come before the new PREFACE */
	saving->buf_initial = true;
	saving->phase = PRECOPY_SAVE_PREFACE;
	saving->reinit = true;
}

/*
 * With the session busy and memory.sem held for write. -EBUSY: the sections must
 * be prepared once more.
 */
static int precopy_save_start_over(struct precopy_device *pcd,
				   struct precopy_saving *saving)
{
	u64 before;

	lockdep_assert_held_write(&pcd->memory.sem);
	if (!precopy_save_prepared(saving))
		return -EBUSY;
	scoped_guard(spinlock, &pcd->state_lock) {
		if (saving->session.dead)
			return -ENODEV;
		/* An initial part that has begun must end, and a stopped session must */
		if (saving->stopped || saving->phase != PRECOPY_SAVE_LIVE)
			return -EAGAIN;
		before = precopy_save_unread(saving);
		precopy_save_restart(saving);
	}
	precopy_save_snapshot(saving, before);
	wake_up_poll(&saving->session.wait, EPOLLIN | EPOLLRDNORM);
	return 0;
}

static int precopy_save_begin_again(struct precopy_device *pcd,
				    struct precopy_saving *saving)
{
	int ret;

	do {
		ret = precopy_save_prepare(saving);
		if (ret)
			return ret;
		guard(rwsem_write)(&pcd->memory.sem);
		ret = precopy_save_start_over(pcd, saving);
	} while (ret == -EBUSY);
	return ret;
}

/**
 * precopy_save_reinit - restart the initial data after a device change (REINIT)
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
	lockdep_assert_held(&pcd->arc_mutex);
	guard(spinlock)(&pcd->state_lock);
	if (pcd->generation != generation)
		return -ECANCELED;
	WRITE_ONCE(pcd->saving->stopped, true);
	wake_up_poll(&pcd->saving->session.wait, EPOLLIN | EPOLLRDNORM);
	return 0;
}

static void precopy_save_untrack(struct precopy_saving *saving)
{
	struct precopy_save_part * const *part;

	for (part = saving->parts; *part; part++)
		if ((*part)->ops->end)
			(*part)->ops->end(*part);
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

	lockdep_assert_held(&pcd->arc_mutex);
	scoped_guard(rwsem_write, &pcd->memory.sem) {
		if (pcd->generation != generation)
			return -ECANCELED;
		scoped_guard(spinlock, &pcd->state_lock) {
			saving = pcd->saving;
			precopy_session_detach(pcd);
		}
		precopy_save_untrack(saving);
	}
	precopy_session_put(&saving->session);
	return 0;
}
