// SPDX-License-Identifier: GPL-2.0-only
/*
 * The resuming data fd. write() takes the stream apart and gives its records to
 * the sections as they come. PREFACE starts the startup in the background; the
 * last byte of INITIAL_END is accepted only when that has finished, so that "the
 * write returned" means "the target has started".
 */

#include <linux/file.h>
#include <linux/fs.h>
#include <linux/hrtimer.h>
#include <linux/math64.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vfio_precopy.h>

#include "load.h"
#include "model.h"
#include "precopy.h"
#include "session.h"
#include "startup.h"
#include "startup_info.h"
#include "stream.h"
#include "trace.h"

/**
 * struct precopy_loading - a resuming session
 * @session: common part of all sessions
 * @startup: the startup that PREFACE begins
 * @dec: the decoder; owned by whoever has the session busy
 * @buf: buffer of the decoder, PRECOPY_DECODE_BUF bytes
 * @records: records of the sections, for the decoder; NULL after the last
 * @pos: bytes of the stream accepted; owned by whoever has the session busy
 * @ready_at: time before which the test knob load_rate accepts no byte; written by
 *	      whoever has the session busy
 * @ready_timer: timer that wakes pollers at @ready_at
 * @error: error that the load failed with, or 0; sticky. From here on protected
 *	   by state_lock.
 * @at_barrier: true if a write stopped at the last byte of INITIAL_END
 */
struct precopy_loading {
	struct precopy_session	session;
	struct precopy_startup	startup;
	struct precopy_decoder	dec;
	void			*buf;
	const struct precopy_section_record *records[PRECOPY_MAX_SECTIONS + 1];
	u64			pos;
	ktime_t			ready_at;
	struct hrtimer		ready_timer;
	int			error;
	bool			at_barrier;
};

static struct precopy_loading *to_loading(struct precopy_session *session)
{
	return container_of(session, struct precopy_loading, session);
}

static int precopy_load_error(struct precopy_loading *loading)
{
	guard(spinlock)(&loading->session.pcd->state_lock);
	if (loading->session.dead)
		return -ENODEV;
	/* A failed startup fails the load, not only at the barrier */
	return loading->error ?: loading->startup.error;
}

/* Give up: every later write fails alike, accesses fail until the reset */
static int precopy_load_fail(struct precopy_loading *loading, int error,
			     const char *why)
{
	struct precopy_device *pcd = loading->session.pcd;
	const struct precopy_section * const *section;

	scoped_guard(rwsem_write, &pcd->memory.sem) {
		if (pcd->generation != loading->session.generation)
			return -ENODEV;
		scoped_guard(spinlock, &pcd->state_lock)
			loading->error = error;
		for (section = loading->session.model->sections; *section; section++)
			if ((*section)->load->fail)
				(*section)->load->fail(&loading->session);
	}
	wake_up_all(&pcd->wait);
	if (why) {
		dev_err_ratelimited(precopy_dev(pcd),
				    "migration stream refused: %s (%d)\n", why,
				    error);
		atomic64_inc(&pcd->stats.refused_streams);
	}
	return error;
}

/* --- Records ---------------------------------------------------------- */

/* A record of a section: find whose it is */
static int precopy_load_section(struct precopy_loading *loading,
				enum precopy_stream_event event)
{
	const struct precopy_model *model = loading->session.model;
	const struct precopy_section * const *section;
	struct precopy_startup_part *part;

	for (section = model->sections; *section; section++) {
		if ((*section)->record != loading->dec.section)
			continue;
		part = precopy_startup_part(&loading->startup, *section);
		return (*section)->load->load(&loading->session, part, event,
					      &loading->dec);
	}
	/* Of a device without memory */
	return -EINVAL;
}

static void precopy_load_trace(struct precopy_loading *loading, u16 type,
			       u64 offset, u64 length)
{
	trace_precopy_load_record(precopy_dev(loading->session.pcd), type,
				  offset, length);
}

static int precopy_load_event(struct precopy_loading *loading,
			      enum precopy_stream_event event)
{
	struct precopy_decoder *dec = &loading->dec;

	switch (event) {
	case PRECOPY_EV_PREFACE:
		precopy_load_trace(loading, PRECOPY_REC_PREFACE, 0,
				   PRECOPY_REC_HDR_LEN +
				   precopy_preface_len(dec->nr_units));
		return precopy_startup_begin(&loading->startup, dec);
	case PRECOPY_EV_DATA:
		precopy_load_trace(loading, PRECOPY_REC_DATA, dec->offset,
				   dec->nr_bytes);
		return precopy_load_section(loading, event);
	case PRECOPY_EV_ZERO:
		precopy_load_trace(loading, PRECOPY_REC_ZERO, dec->offset,
				   dec->nr_bytes);
		return precopy_load_section(loading, event);
	case PRECOPY_EV_SECTION:
		precopy_load_trace(loading, dec->section->type, dec->offset,
				   dec->nr_bytes);
		return precopy_load_section(loading, event);
	case PRECOPY_EV_INITIAL_END:
		precopy_load_trace(loading, PRECOPY_REC_INITIAL_END, 0, 0);
		return 0;
	case PRECOPY_EV_STATE:
		precopy_load_trace(loading, PRECOPY_REC_STATE, 0,
				   PRECOPY_STATE_LEN);
		return 0;
	case PRECOPY_EV_END:
		precopy_load_trace(loading, PRECOPY_REC_END, 0,
				   PRECOPY_END_LEN);
		return 0;
	default:
		return 0;
	}
}

/* Tell the decoder of @n bytes, and do what they ask for */
static int precopy_load_advance(struct precopy_loading *loading, size_t n)
{
	struct precopy_stats *stats = &loading->session.pcd->stats;
	ktime_t mark = ktime_get();
	int ret = precopy_decoder_advance(&loading->dec, n);

	precopy_stat_lap(&stats->load_checksum_ns, &mark);
	if (ret < 0)
		return precopy_load_fail(loading, ret, loading->dec.error);
	ret = precopy_load_event(loading, ret);
	precopy_stat_lap(&stats->load_store_ns, &mark);
	if (!ret)
		return 0;
	ret = precopy_load_fail(loading, ret, NULL);
	if (ret != -ENODEV)
		dev_err_ratelimited(precopy_dev(loading->session.pcd),
				    "load failed: %pe\n", ERR_PTR(ret));
	return ret;
}

/* --- write() ---------------------------------------------------------- */

static void precopy_load_set_barrier(struct precopy_loading *loading, bool at)
{
	guard(spinlock)(&loading->session.pcd->state_lock);
	loading->at_barrier = at;
}

/*
 * Wait for the startup, with the last byte of INITIAL_END not accepted yet.
 *
 * Return: 0, -EAGAIN, precopy_interrupted(), -ENODEV after a reset, or why the
 * startup failed.
 */
static int precopy_load_barrier(struct precopy_loading *loading, bool nonblock)
{
	int ret = precopy_startup_result(&loading->startup);

	if (ret == -EINPROGRESS) {
		precopy_load_set_barrier(loading, true);
		if (nonblock)
			return -EAGAIN;
		ret = precopy_startup_wait(&loading->startup);
	}
	if (ret == -EINTR || ret == -ERESTARTNOINTR)
		return ret;
	precopy_load_set_barrier(loading, false);
	if (ret)
		return precopy_load_fail(loading, ret, NULL);
	return 0;
}

/* The test knob: accept so many bytes of the stream, then fail */
static int precopy_load_test_error(struct precopy_loading *loading, size_t *n)
{
	u64 limit = precopy_knob(loading->session.pcd, fail_load_at);

	if (!limit)
		return 0;
	if (loading->pos >= limit)
		return precopy_load_fail(loading, -EIO, "test knob");
	*n = min_t(u64, *n, limit - loading->pos);
	return 0;
}

static enum hrtimer_restart precopy_load_ready(struct hrtimer *timer)
{
	struct precopy_loading *loading =
		container_of(timer, struct precopy_loading, ready_timer);

	wake_up_all(&loading->session.pcd->wait);
	return HRTIMER_NORESTART;
}

/* How long load_rate accepts no byte; not positive if it accepts one */
static ktime_t precopy_load_pause(const struct precopy_loading *loading)
{
	if (!precopy_knob(loading->session.pcd, load_rate))
		return 0;
	return ktime_sub(READ_ONCE(loading->ready_at), ktime_get());
}

/*
 * The test knob: accept no more than so many bytes in a second, a tenth of it at once.
 *
 * Return: 0, -EAGAIN, precopy_interrupted(), or -ENODEV after a reset.
 */
static int precopy_load_throttle(struct precopy_loading *loading, bool nonblock,
				 size_t *n)
{
	struct precopy_device *pcd = loading->session.pcd;
	ktime_t left = precopy_load_pause(loading);
	u64 rate = precopy_knob(pcd, load_rate);
	int ret = -ETIME;

	if (!rate)
		return 0;
	if (left > 0 && nonblock)
		return -EAGAIN;
	if (left > 0)
		ret = wait_event_interruptible_hrtimeout(pcd->wait,
							 precopy_session_dead(&loading->session),
							 left);
	if (ret != -ETIME)
		return ret ? precopy_interrupted() : -ENODEV;
	*n = clamp_t(u64, div_u64(rate, 10), 1, *n);
	WRITE_ONCE(loading->ready_at,
		   ktime_add_ns(ktime_get(),
				div64_u64(*n * NSEC_PER_SEC, rate)));
	hrtimer_start(&loading->ready_timer, loading->ready_at,
		      HRTIMER_MODE_ABS);
	return 0;
}

/*
 * Take in one piece of what was written.
 *
 * Return: bytes accepted, at least 1, or an error.
 */
static ssize_t precopy_load_write_some(struct precopy_loading *loading,
				       const char __user *buf, size_t count,
				       bool nonblock)
{
	size_t want, n;
	ktime_t mark;
	void *dst;
	int ret;

	ret = precopy_load_error(loading);
	if (ret)
		return ret;
	want = precopy_decoder_want(&loading->dec, &dst);
	if (!want)
		return precopy_load_fail(loading, -EINVAL,
					 "bytes after the end");
	n = min(count, want);
	ret = precopy_load_test_error(loading, &n) ?:
	      precopy_load_throttle(loading, nonblock, &n);
	if (ret)
		return ret;
	mark = ktime_get();
	n -= copy_from_user(dst, buf, n);
	precopy_stat_lap(&loading->session.pcd->stats.load_user_ns, &mark);
	if (!n)
		return -EFAULT;
	if (precopy_decoder_at_barrier(&loading->dec, n)) {
		if (n > 1) {
			n--;
		} else {
			ret = precopy_load_barrier(loading, nonblock);
			if (ret)
				return ret;
		}
	}
	ret = precopy_load_advance(loading, n);
	loading->pos += n;
	return ret ?: n;
}

static ssize_t precopy_load_write(struct file *filp, const char __user *buf,
				  size_t count, loff_t *pos)
{
	struct precopy_loading *loading = to_loading(filp->private_data);
	bool nonblock = filp->f_flags & O_NONBLOCK;
	ssize_t done = 0, ret;

	if (!count)
		return 0;
	ret = precopy_session_begin(&loading->session, nonblock);
	if (ret)
		return ret;
	while (count) {
		ret = precopy_load_write_some(loading, buf + done, count,
					      nonblock);
		if (ret < 0)
			break;
		done += ret;
		count -= ret;
		if (fatal_signal_pending(current))
			break;
		cond_resched();
	}
	precopy_session_end(&loading->session);
	atomic64_add(done, &loading->session.pcd->stats.loaded_bytes);
	return done ?: ret;
}

static __poll_t precopy_load_poll(struct file *filp,
				  struct poll_table_struct *table)
{
	struct precopy_loading *loading = to_loading(filp->private_data);
	struct precopy_device *pcd = loading->session.pcd;
	__poll_t mask = 0;

	poll_wait(filp, &pcd->wait, table);
	guard(spinlock)(&pcd->state_lock);
	if (loading->session.dead || loading->error || loading->startup.error)
		return EPOLLOUT | EPOLLWRNORM | EPOLLERR | EPOLLPRI;
	if (loading->startup.phase == PRECOPY_STARTUP_READY)
		mask = EPOLLPRI;
	if (loading->at_barrier &&
	    loading->startup.phase == PRECOPY_STARTUP_STARTING)
		return mask;
	if (precopy_load_pause(loading) > 0)
		return mask;
	return mask | EPOLLOUT | EPOLLWRNORM;
}

static void precopy_load_tell(struct precopy_session *session,
			      struct precopy_startup_report *report)
{
	struct precopy_loading *loading = to_loading(session);
	struct vfio_precopy_startup *info = &report->own;

	lockdep_assert_held(&session->pcd->state_lock);
	precopy_startup_tell(&loading->startup, info);
	if (!loading->error)
		return;
	/* A load that failed will not start, however far the startup is */
	info->phase = VFIO_PRECOPY_PHASE_FAILED;
	info->error = -loading->error;
	info->remaining_ns = VFIO_PRECOPY_REMAINING_UNKNOWN;
}

static long precopy_load_ioctl(struct file *filp, unsigned int cmd,
			       unsigned long arg)
{
	struct precopy_loading *loading = to_loading(filp->private_data);

	return precopy_startup_ioctl(&loading->session, cmd, arg,
				     precopy_load_tell);
}

static const struct file_operations precopy_load_fops = {
	.owner		= THIS_MODULE,
	.write		= precopy_load_write,
	.poll		= precopy_load_poll,
	.unlocked_ioctl	= precopy_load_ioctl,
	.compat_ioctl	= compat_ptr_ioctl,
	.release	= precopy_session_file_release,
};

/* --- Arcs ------------------------------------------------------------- */

static void precopy_load_free(struct precopy_session *session)
{
	struct precopy_loading *loading = to_loading(session);

	hrtimer_cancel(&loading->ready_timer);
	precopy_startup_destroy(&loading->startup);
	kvfree(loading->buf);
	kfree(loading);
}

/* Let the decoder know the records of the sections */
static void precopy_load_accept(struct precopy_loading *loading)
{
	const struct precopy_model *model = loading->session.model;
	const struct precopy_section * const *section;
	unsigned int nr = 0;

	for (section = model->sections; *section; section++)
		if ((*section)->record)
			loading->records[nr++] = (*section)->record;
	precopy_decoder_accept(&loading->dec, loading->records);
}

static struct precopy_loading *precopy_load_alloc(struct precopy_device *pcd,
						  u64 generation)
{
	struct precopy_loading *loading =
		kzalloc_obj(*loading, GFP_KERNEL_ACCOUNT);
	struct precopy_stream_params params;

	if (!loading)
		return ERR_PTR(-ENOMEM);
	precopy_session_init(&loading->session, pcd, generation,
			     precopy_load_free);
	hrtimer_setup(&loading->ready_timer, precopy_load_ready,
		      CLOCK_MONOTONIC, HRTIMER_MODE_ABS);
	precopy_session_params(pcd, &params);
	loading->buf = kvmalloc(PRECOPY_DECODE_BUF, GFP_KERNEL_ACCOUNT);
	if (precopy_startup_init(&loading->startup, &loading->session) ||
	    !loading->buf) {
		precopy_session_put(&loading->session);
		return ERR_PTR(-ENOMEM);
	}
	precopy_decoder_init(&loading->dec, &params, loading->buf);
	precopy_load_accept(loading);
	return loading;
}

/* Nothing of the target's past survives, even if no byte is ever loaded */
static int precopy_load_publish(struct precopy_device *pcd,
				struct precopy_loading *loading)
{
	const struct precopy_section * const *section;

	guard(rwsem_write)(&pcd->memory.sem);
	if (pcd->generation != loading->session.generation)
		return -ECANCELED;
	for (section = pcd->model->sections; *section; section++)
		if ((*section)->load->begin)
			(*section)->load->begin(&loading->session);
	guard(spinlock)(&pcd->state_lock);
	precopy_session_attach(&loading->session);
	pcd->loading = loading;
	return 0;
}

/**
 * precopy_load_start - STOP to RESUMING: begin a resuming session
 * @pcd: the device
 * @generation: at the start of the state change
 *
 * Context: an arc, arc_mutex held.
 * Return: the data fd's file, ERR_PTR(-ENOMEM), ERR_PTR(-ECANCELED) after a
 * reset.
 */
struct file *precopy_load_start(struct precopy_device *pcd, u64 generation)
{
	struct precopy_loading *loading = precopy_load_alloc(pcd, generation);
	struct file *filp;
	int ret;

	lockdep_assert_held(&pcd->arc_mutex);
	if (IS_ERR(loading))
		return ERR_CAST(loading);
	filp = precopy_session_file(&loading->session, &precopy_load_fops,
				    O_WRONLY);
	if (!IS_ERR(filp)) {
		ret = precopy_load_publish(pcd, loading);
		if (ret) {
			fput(filp);
			filp = ERR_PTR(ret);
		}
	}
	precopy_session_put(&loading->session);
	return filp;
}

/* Is everything there? With the session busy, so that nobody writes. */
static int precopy_load_verify(struct precopy_loading *loading)
{
	struct precopy_device *pcd = loading->session.pcd;
	int ret = precopy_load_error(loading);

	if (ret)
		return ret;
	if (precopy_decoder_complete(&loading->dec))
		return 0;
	dev_err_ratelimited(precopy_dev(pcd),
			    "migration stream ended early\n");
	atomic64_inc(&pcd->stats.refused_streams);
	return -EINVAL;
}

/* The load is complete and becomes the device's contents: no fd any more */
static int precopy_load_retire(struct precopy_device *pcd,
			       struct precopy_loading *loading)
{
	const struct precopy_section * const *section;

	guard(rwsem_write)(&pcd->memory.sem);
	guard(spinlock)(&pcd->state_lock);
	if (loading->session.dead)
		return -ENODEV;
	precopy_session_detach(pcd);
	for (section = pcd->model->sections; *section; section++)
		if ((*section)->load->commit)
			(*section)->load->commit(&loading->session);
	return 0;
}

/**
 * precopy_load_commit - RESUMING to STOP: wait for the startup, verify the end
 * @pcd: the device
 * @generation: at the start of the state change
 *
 * A failure leaves the session as it is, in RESUMING (rules R23 and R56).
 *
 * Context: an arc, arc_mutex held; waits (killable) for the startup and for
 * a write in progress. A reset ends both waits.
 * Return: 0, -EINVAL for an incomplete stream, the error that the load failed
 * with, -EINTR, -ECANCELED after a reset.
 */
int precopy_load_commit(struct precopy_device *pcd, u64 generation)
{
	struct precopy_loading *loading;
	int ret;

	lockdep_assert_held(&pcd->arc_mutex);
	scoped_guard(spinlock, &pcd->state_lock) {
		if (pcd->generation != generation)
			return -ECANCELED;
		loading = pcd->loading;
		precopy_session_get(&loading->session);
	}
	ret = precopy_startup_wait(&loading->startup);
	if (ret)
		goto out;
	ret = precopy_session_begin(&loading->session, false);
	if (ret)
		goto out;
	ret = precopy_load_verify(loading) ?:
	      precopy_load_retire(pcd, loading);
	precopy_session_end(&loading->session);
	if (!ret)
		precopy_session_put(&loading->session);
out:
	precopy_session_put(&loading->session);
	return ret == -ENODEV ? -ECANCELED : ret;
}

/**
 * precopy_load_phase_name - how far the device's startup as a target is
 * @pcd: the device
 *
 * Return: none, waiting, starting, ready or failed.
 */
const char *precopy_load_phase_name(struct precopy_device *pcd)
{
	guard(spinlock)(&pcd->state_lock);
	if (!pcd->loading)
		return "none";
	if (pcd->loading->error)
		return "failed";
	return precopy_startup_phase_name(&pcd->loading->startup);
}
