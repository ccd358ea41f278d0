// SPDX-License-Identifier: GPL-2.0-only
/*
 * The startup of a target, begun by PREFACE and run in the background: the
 * sections prepare what PREFACE names. Until it is complete the user's accesses to
 * the contents wait, and so does the end of the initial data.
 */

#include <linux/cpumask.h>
#include <linux/ktime.h>
#include <linux/math64.h>
#include <linux/topology.h>
#include <linux/vfio_precopy.h>
#include <linux/wait.h>

#include "cost.h"
#include "model.h"
#include "precopy.h"
#include "session.h"
#include "startup.h"
#include "trace.h"

/**
 * precopy_startup_estimate - estimate how long a target takes to start
 * @pcd: the device
 * @bytes: memory to prepare
 * @measured: result: whether it comes from startups of this device
 *
 * The estimate is for a target like this device. Advice only.
 *
 * Return: nanoseconds.
 */
u64 precopy_startup_estimate(struct precopy_device *pcd, u64 bytes,
			     bool *measured)
{
	return precopy_cost_estimate(&pcd->startup_cost, bytes, measured);
}

/* --- The work --------------------------------------------------------- */

static int precopy_startup_prepare(struct precopy_startup *startup,
				   struct precopy_startup_part *part)
{
	int bytes;

	while ((bytes = part->ops->prepare(part)) > 0) {
		atomic64_add(bytes, &startup->prepared);
		cond_resched();
	}
	return bytes;
}

/* The parts of all sections, as far as no other worker does them */
static int precopy_startup_prepare_all(struct precopy_startup *startup)
{
	struct precopy_startup_part **part;
	int ret = 0;

	for (part = startup->parts; *part && !ret; part++)
		ret = precopy_startup_prepare(startup, *part);
	return ret;
}

static bool precopy_startup_held(struct precopy_startup *startup)
{
	return precopy_knob(startup->session->pcd, hold) &&
	       !precopy_session_dead(startup->session);
}

/*
 * The test knobs, on top of the real work. No delay may end early, as one in
 * jiffies does if these are behind when it begins.
 */
static int precopy_startup_delay(struct precopy_startup *startup)
{
	struct precopy_device *pcd = startup->session->pcd;
	u32 error = precopy_knob(pcd, startup_fail);

	if (startup->delay_ms &&
	    !wait_event_hrtimeout(pcd->wait,
				  precopy_session_dead(startup->session),
				  ms_to_ktime(startup->delay_ms)))
		return -ECANCELED;
	if (precopy_startup_held(startup)) {
		wait_event_idle(pcd->wait, !precopy_startup_held(startup));
		if (precopy_session_dead(startup->session))
			return -ECANCELED;
	}
	return -(int)min_t(u32, error, MAX_ERRNO);
}

/*
 * A startup is not a sample if its memory was allocated before: it tells nothing
 * about the next one, and a user could begin it again to look fast. The test knob's
 * delay is counted.
 *
 * memory.sem is held for write, so that the user is still the same.
 */
static void precopy_startup_measure(struct precopy_startup *startup)
{
	struct precopy_device *pcd = startup->session->pcd;
	u64 ns = ktime_to_ns(ktime_sub(ktime_get(), startup->began));

	lockdep_assert_held_write(&pcd->memory.sem);
	startup->took_ns = ns;
	atomic64_set(&pcd->stats.last_startup_ns, ns);
	atomic64_inc(&pcd->stats.startups);
	precopy_cost_add(&pcd->startup_cost,
			 atomic64_read(&startup->allocated), ns);
}

static void precopy_startup_settle_parts(struct precopy_startup *startup,
					 bool ready)
{
	struct precopy_startup_part **part;

	for (part = startup->parts; *part; part++) {
		if (ready)
			(*part)->ops->ready(*part);
		else
			(*part)->ops->fail(*part);
	}
}

/* Let accesses and the barrier go, or fail, unless there was a reset */
static void precopy_startup_settle(struct precopy_startup *startup, int ret)
{
	struct precopy_session *session = startup->session;
	struct precopy_device *pcd = session->pcd;

	guard(rwsem_write)(&pcd->memory.sem);
	if (pcd->generation != session->generation)
		return;
	if (!ret)
		precopy_startup_measure(startup);
	scoped_guard(spinlock, &pcd->state_lock) {
		startup->error = ret;
		startup->phase = ret ? PRECOPY_STARTUP_FAILED :
				       PRECOPY_STARTUP_READY;
	}
	precopy_startup_settle_parts(startup, !ret);
	if (ret)
		dev_err_ratelimited(precopy_dev(pcd), "startup failed: %pe\n",
				    ERR_PTR(ret));
	trace_precopy_startup(precopy_dev(pcd), startup->phase);
}

static void precopy_startup_finish(struct precopy_startup *startup, int ret)
{
	precopy_startup_settle(startup, ret);
	wake_up_all(&startup->session->pcd->wait);
}

/* All of the workers have done what they could */
static void precopy_startup_end(struct precopy_startup *startup)
{
	int ret = atomic_read(&startup->failed) ?:
		  precopy_startup_delay(startup);

	precopy_startup_finish(startup, ret);
	precopy_session_put(startup->session);
}

/* The first failure counts; and the other workers need not go on */
static void precopy_startup_give_up(struct precopy_startup *startup, int error)
{
	struct precopy_startup_part **part;

	atomic_cmpxchg(&startup->failed, 0, error);
	for (part = startup->parts; *part; part++)
		(*part)->ops->stop(*part);
}

static void precopy_startup_work(struct work_struct *work)
{
	struct precopy_startup *startup =
		container_of(work, struct precopy_startup_worker, work)->startup;
	int ret = precopy_startup_prepare_all(startup);

	if (ret)
		precopy_startup_give_up(startup, ret);
	if (atomic_dec_and_test(&startup->running))
		precopy_startup_end(startup);
}

/* --- For the session -------------------------------------------------- */

/**
 * precopy_startup_init - ready a startup
 * @startup: zeroed
 * @session: that it is part of
 *
 * Return: 0 or -ENOMEM; either way precopy_startup_destroy() may be called.
 */
int precopy_startup_init(struct precopy_startup *startup,
			 struct precopy_session *session)
{
	const struct precopy_section * const *section;
	struct precopy_startup_part **part = startup->parts;
	unsigned int i;

	startup->session = session;
	for (i = 0; i < PRECOPY_STARTUP_WORKERS; i++) {
		startup->workers[i].startup = startup;
		INIT_WORK(&startup->workers[i].work, precopy_startup_work);
	}
	for (section = session->pcd->model->sections; *section; section++) {
		if (!(*section)->startup)
			continue;
		*part = (*section)->startup->alloc(startup);
		if (!*part)
			return -ENOMEM;
		(*part)->ops = (*section)->startup;
		(*part)->startup = startup;
		part++;
	}
	return 0;
}

/**
 * precopy_startup_destroy - free what precopy_startup_init() allocated
 * @startup: not running
 */
void precopy_startup_destroy(struct precopy_startup *startup)
{
	struct precopy_startup_part **part;

	for (part = startup->parts; *part; part++)
		(*part)->ops->free(*part);
}

/**
 * precopy_startup_part - get a section's part of a startup
 * @startup: the startup
 * @section: a section of the device's model
 *
 * Return: the part, or NULL if the section has nothing to prepare.
 */
struct precopy_startup_part *
precopy_startup_part(struct precopy_startup *startup,
		     const struct precopy_section *section)
{
	struct precopy_startup_part **part = startup->parts;

	while (*part && (*part)->ops != section->startup)
		part++;
	return *part;
}

/*
 * On as many processors as there are, within the limits that the administrator
 * has set for workqueues, and with memory of the node that the VMM runs on.
 */
static void precopy_startup_queue(struct precopy_startup *startup)
{
	struct workqueue_struct *wq = startup->session->pcd->memory.wq;
	unsigned int i, nr = min(num_online_cpus(), PRECOPY_STARTUP_WORKERS);

	atomic_set(&startup->failed, 0);
	atomic_set(&startup->running, nr);
	for (i = 0; i < nr; i++)
		queue_work_node(numa_node_id(), wq, &startup->workers[i].work);
}

/* Tell the sections what PREFACE names; @wanted is what they are to prepare */
static int precopy_startup_begin_parts(struct precopy_startup *startup,
				       const struct precopy_decoder *dec,
				       u64 *wanted)
{
	struct precopy_startup_part **part;
	int ret = 0;

	*wanted = 0;
	for (part = startup->parts; *part && !ret; part++)
		ret = (*part)->ops->begin(*part, dec, wanted);
	return ret;
}

static void precopy_startup_shut(struct precopy_startup *startup)
{
	struct precopy_startup_part **part;

	for (part = startup->parts; *part; part++)
		(*part)->ops->wait(*part);
}

/**
 * precopy_startup_begin - begin a startup when PREFACE has arrived
 * @startup: waiting or ready
 * @dec: the decoder, at PREFACE
 *
 * From now on accesses wait. A device without anything to prepare stays as it is.
 *
 * Context: the session busy with the caller; may sleep, no lock of this driver
 * held.
 * Return: 0, -ENOMEM, or -ECANCELED after a reset.
 */
int precopy_startup_begin(struct precopy_startup *startup,
			  const struct precopy_decoder *dec)
{
	struct precopy_session *session = startup->session;
	struct precopy_device *pcd = session->pcd;
	u64 wanted;
	int ret = precopy_startup_begin_parts(startup, dec, &wanted);

	if (ret || !startup->parts[0])
		return ret;
	scoped_guard(rwsem_write, &pcd->memory.sem) {
		if (pcd->generation != session->generation)
			return -ECANCELED;
		scoped_guard(spinlock, &pcd->state_lock) {
			startup->phase = PRECOPY_STARTUP_STARTING;
			startup->bytes_in_use = dec->bytes_in_use;
			startup->bytes_wanted = wanted;
			startup->began = ktime_get();
			startup->delay_ms = precopy_knob(pcd, startup_delay_ms);
			/* An earlier startup of the session may have counted */
			atomic64_set(&startup->prepared, 0);
			atomic64_set(&startup->allocated, 0);
		}
		precopy_startup_shut(startup);
		trace_precopy_startup(precopy_dev(pcd), startup->phase);
	}
	precopy_session_get(session);
	precopy_startup_queue(startup);
	return 0;
}

/**
 * precopy_startup_result - how did it go?
 * @startup: the startup
 *
 * Return: 0 if it is complete or was not begun, -EINPROGRESS, -ENODEV if the
 * session is dead, or the error it failed with.
 */
int precopy_startup_result(struct precopy_startup *startup)
{
	guard(spinlock)(&startup->session->pcd->state_lock);
	if (startup->session->dead)
		return -ENODEV;
	if (startup->phase == PRECOPY_STARTUP_STARTING)
		return -EINPROGRESS;
	return startup->error;
}

/* One look: a PREFACE that arrives later is not what the caller waits for */
static bool precopy_startup_settled(struct precopy_startup *startup, int *ret)
{
	*ret = precopy_startup_result(startup);
	return *ret != -EINPROGRESS;
}

/**
 * precopy_startup_wait - wait until it is no longer running
 * @startup: the startup
 *
 * Context: waits; no lock of this driver held but arc_mutex. A reset ends the
 * wait.
 * Return: 0, precopy_interrupted(), -ENODEV, or the error it failed with.
 */
int precopy_startup_wait(struct precopy_startup *startup)
{
	int ret;

	if (wait_event_interruptible(startup->session->pcd->wait,
				     precopy_startup_settled(startup, &ret)))
		return precopy_interrupted();
	return ret;
}

/**
 * precopy_startup_phase_name - for sysfs
 * @startup: the startup
 *
 * Context: state_lock held.
 * Return: waiting, starting, ready or failed.
 */
const char *precopy_startup_phase_name(const struct precopy_startup *startup)
{
	static const char * const names[] = {
		[PRECOPY_STARTUP_WAITING]	= "waiting",
		[PRECOPY_STARTUP_STARTING]	= "starting",
		[PRECOPY_STARTUP_READY]		= "ready",
		[PRECOPY_STARTUP_FAILED]	= "failed",
	};

	lockdep_assert_held(&startup->session->pcd->state_lock);
	return names[startup->phase];
}

/* Time until the real work is done, from how it went so far */
static u64 precopy_startup_work_left(const struct precopy_startup *startup,
				     u64 elapsed, bool *measured)
{
	u64 prepared = atomic64_read(&startup->prepared);
	u64 estimate;

	if (prepared) {
		*measured = true;
		return mul_u64_u64_div_u64(elapsed,
					   startup->bytes_wanted - prepared,
					   prepared);
	}
	estimate = precopy_startup_estimate(startup->session->pcd,
					    startup->bytes_wanted, measured);
	return estimate - min(estimate, elapsed);
}

static void precopy_startup_tell_running(const struct precopy_startup *startup,
					 struct vfio_precopy_startup *info)
{
	u64 delay = (u64)startup->delay_ms * NSEC_PER_MSEC;
	bool measured;

	info->elapsed_ns = ktime_get() - startup->began;
	info->bytes_prepared = atomic64_read(&startup->prepared);
	if (info->bytes_prepared == startup->bytes_wanted && delay) {
		/* Only the test knob is left, which is known */
		info->remaining_ns = delay - min(delay, info->elapsed_ns);
		measured = true;
	} else {
		info->remaining_ns = delay +
			precopy_startup_work_left(startup, info->elapsed_ns,
						  &measured);
	}
	if (measured)
		info->flags |= VFIO_PRECOPY_STARTUP_MEASURED;
}

/**
 * precopy_startup_tell - for PRECOPY_GET_STARTUP
 * @startup: the startup
 * @info: zeroed; to be filled in
 *
 * Context: state_lock held.
 */
void precopy_startup_tell(const struct precopy_startup *startup,
			  struct vfio_precopy_startup *info)
{
	static const u32 phases[] = {
		[PRECOPY_STARTUP_WAITING]  = VFIO_PRECOPY_PHASE_WAITING,
		[PRECOPY_STARTUP_STARTING] = VFIO_PRECOPY_PHASE_STARTING,
		[PRECOPY_STARTUP_READY]	   = VFIO_PRECOPY_PHASE_READY,
		[PRECOPY_STARTUP_FAILED]   = VFIO_PRECOPY_PHASE_FAILED,
	};

	lockdep_assert_held(&startup->session->pcd->state_lock);
	info->flags = VFIO_PRECOPY_STARTUP_TARGET;
	info->phase = phases[startup->phase];
	info->error = -startup->error;
	info->bytes_in_use = startup->bytes_in_use;
	info->remaining_ns = VFIO_PRECOPY_REMAINING_UNKNOWN;
	switch (startup->phase) {
	case PRECOPY_STARTUP_STARTING:
		precopy_startup_tell_running(startup, info);
		break;
	case PRECOPY_STARTUP_READY:
		info->flags |= VFIO_PRECOPY_STARTUP_MEASURED;
		info->bytes_prepared = atomic64_read(&startup->prepared);
		info->remaining_ns = 0;
		info->elapsed_ns = startup->took_ns;
		break;
	default:
		break;
	}
}
