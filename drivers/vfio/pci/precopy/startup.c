// SPDX-License-Identifier: GPL-2.0-only
/*
 * The startup of a target, begun by PREFACE and run in the background: get and
 * zero all the memory that the source uses. Until it is complete the user's
 * accesses to the memory wait, and so does the end of the initial data.
 */

#include <linux/bitmap.h>
#include <linux/jiffies.h>
#include <linux/math64.h>
#include <linux/wait.h>

#include "backend.h"
#include "load.h"
#include "precopy.h"
#include "session.h"
#include "startup.h"
#include "trace.h"

/* What startups on this host cost, ns per MiB; 0 while there was none */
static u32 precopy_startup_cost;

/**
 * precopy_startup_estimate - how long a target may take to start
 * @bytes: memory in use
 *
 * From what startups on this host took last: the best guess there is for a
 * target like it. Advice only.
 *
 * Return: nanoseconds, 0 if unknown.
 */
u64 precopy_startup_estimate(u64 bytes)
{
	return mul_u64_u32_div(bytes, READ_ONCE(precopy_startup_cost), SZ_1M);
}

/* --- The work ----------------------------------------------------------------- */

static int precopy_startup_populate(struct precopy_startup *startup)
{
	struct precopy_session *session = startup->session;
	struct precopy_ram *ram;
	unsigned long unit;
	int ret = 0;

	ram = precopy_memory_ram(session->pcd, session->generation);
	if (IS_ERR(ram))
		return PTR_ERR(ram);
	for_each_set_bit(unit, startup->units, startup->nr_units) {
		if (precopy_session_dead(session))
			ret = -ECANCELED;
		else
			ret = precopy_ram_populate_unit(ram, unit);
		if (ret)
			break;
		cond_resched();
	}
	precopy_ram_put(ram);
	return ret;
}

/* The test knob, on top of the real work */
static int precopy_startup_delay(struct precopy_startup *startup)
{
	struct precopy_device *pcd = startup->session->pcd;
	u32 ms = READ_ONCE(pcd->knobs.startup_delay_ms);

	if (ms && wait_event_timeout(pcd->wait,
				     precopy_session_dead(startup->session),
				     msecs_to_jiffies(ms)))
		return -ECANCELED;
	return 0;
}

static void precopy_startup_measure(struct precopy_startup *startup)
{
	struct precopy_device *pcd = startup->session->pcd;
	u64 ns = ktime_to_ns(ktime_sub(ktime_get(), startup->began));
	u64 mib = (u64)bitmap_weight(startup->units, startup->nr_units) *
		  PRECOPY_UNIT_SIZE / SZ_1M;

	atomic64_set(&pcd->stats.last_startup_ns, ns);
	atomic64_inc(&pcd->stats.startups);
	if (mib)
		WRITE_ONCE(precopy_startup_cost,
			   min_t(u64, div64_u64(ns, mib), U32_MAX));
}

/*
 * Let accesses and the barrier go, or fail, unless there was a reset. A load
 * that fails gives back the memory at once: it may be all that there is.
 */
static void precopy_startup_finish(struct precopy_startup *startup, int ret)
{
	struct precopy_session *session = startup->session;
	struct precopy_device *pcd = session->pcd;
	struct precopy_ram *ram = NULL;

	scoped_guard(rwsem_write, &pcd->memory.sem) {
		if (pcd->generation != session->generation)
			break;
		scoped_guard(spinlock, &pcd->state_lock) {
			startup->error = ret;
			startup->phase = ret ? PRECOPY_STARTUP_FAILED :
					       PRECOPY_STARTUP_READY;
		}
		if (ret) {
			ram = precopy_memory_detach(pcd);
			precopy_memory_set_gate(pcd, PRECOPY_GATE_FAILED);
			dev_err_ratelimited(precopy_dev(pcd),
					    "startup failed: %pe\n",
					    ERR_PTR(ret));
		} else if (pcd->memory.gate == PRECOPY_GATE_WAIT) {
			/* A load that failed has shut it for good */
			precopy_memory_set_gate(pcd, PRECOPY_GATE_OPEN);
		}
		trace_precopy_startup(precopy_dev(pcd), startup->phase);
	}
	wake_up_all(&pcd->wait);
	precopy_ram_put(ram);
}

static void precopy_startup_work(struct work_struct *work)
{
	struct precopy_startup *startup =
		container_of(work, struct precopy_startup, work);
	int ret;

	ret = precopy_startup_populate(startup) ?:
	      precopy_startup_delay(startup);
	if (!ret)
		precopy_startup_measure(startup);
	precopy_startup_finish(startup, ret);
	precopy_session_put(startup->session);
}

/* --- For the session ------------------------------------------------------------ */

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
	startup->session = session;
	startup->nr_units = precopy_stream_units(session->pcd->memory.size);
	INIT_WORK(&startup->work, precopy_startup_work);
	startup->units = bitmap_zalloc(startup->nr_units, GFP_KERNEL_ACCOUNT);
	return startup->units ? 0 : -ENOMEM;
}

/**
 * precopy_startup_destroy - free what precopy_startup_init() allocated
 * @startup: not running
 */
void precopy_startup_destroy(struct precopy_startup *startup)
{
	bitmap_free(startup->units);
}

/**
 * precopy_startup_begin - PREFACE has arrived
 * @startup: waiting or ready, @units filled in
 *
 * From now on accesses wait. Entries made while the memory was still empty
 * are removed for that.
 *
 * Context: may sleep; no lock of this driver held.
 * Return: 0, or -ECANCELED after a reset.
 */
int precopy_startup_begin(struct precopy_startup *startup)
{
	struct precopy_session *session = startup->session;
	struct precopy_device *pcd = session->pcd;

	scoped_guard(rwsem_write, &pcd->memory.sem) {
		if (pcd->generation != session->generation)
			return -ECANCELED;
		scoped_guard(spinlock, &pcd->state_lock)
			startup->phase = PRECOPY_STARTUP_STARTING;
		precopy_memory_set_gate(pcd, PRECOPY_GATE_WAIT);
		trace_precopy_startup(precopy_dev(pcd), startup->phase);
	}
	startup->began = ktime_get();
	precopy_session_get(session);
	queue_work(precopy_wq, &startup->work);
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
 * Context: waits (killable); no lock of this driver held but arc_mutex. A
 * reset ends the wait.
 * Return: 0, -EINTR, -ENODEV, or the error it failed with.
 */
int precopy_startup_wait(struct precopy_startup *startup)
{
	int ret;

	if (wait_event_killable(startup->session->pcd->wait,
				precopy_startup_settled(startup, &ret)))
		return -EINTR;
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

	return names[startup->phase];
}
