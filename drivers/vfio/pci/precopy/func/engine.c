// SPDX-License-Identifier: GPL-2.0-only
/*
 * The engine's worker: which step comes next, and what comes of it. The arcs and a
 * reset stop it here.
 */

#include <linux/hrtimer.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "dma.h"
#include "engine.h"
#include "epf.h"
#include "irq.h"
#include "knobs.h"
#include "mig/fsm.h"
#include "precopy.h"
#include "step.h"
#include "trace.h"

/* A reset waits no longer for the step that is executed, ms */
#define PRECOPY_RESET_WAIT_MS	100

/* --- Ends of jobs ----------------------------------------------------- */

/**
 * precopy_engine_end_command - end the command
 * @engine: the engine, whose command is active and has no step that is executed
 * @error: errno, or 0
 *
 * Context: state_lock held.
 */
void precopy_engine_end_command(struct precopy_engine *engine, u32 error)
{
	struct precopy_command *command = &engine->state.command;

	lockdep_assert_held(&engine->pcd->state_lock);
	engine->stop_command = false;
	command->active = false;
	command->error = error;
	command->job.pos = 0;
	if (error)
		atomic64_inc(&engine->pcd->stats.dma_errors);
	precopy_irq_raise(engine, command->vector);
}

/**
 * precopy_engine_stop_command - end the command, at once or with its present step
 * @engine: the engine, whose command is active
 *
 * The command is active until nothing is stored for it any more.
 *
 * Context: state_lock held.
 */
void precopy_engine_stop_command(struct precopy_engine *engine)
{
	lockdep_assert_held(&engine->pcd->state_lock);
	if (engine->running == PRECOPY_QUEUE_COMMAND)
		engine->stop_command = true;
	else
		precopy_engine_end_command(engine, ECANCELED);
}

static void precopy_engine_disable_ring(struct precopy_engine *engine)
{
	engine->stop_ring = false;
	engine->state.ctrl &= ~PRECOPY_ENGINE_CTRL_RING;
	if (engine->state.ring.error)
		atomic64_inc(&engine->pcd->stats.dma_errors);
}

/**
 * precopy_engine_stop_ring - disable the ring, at once or with its present step
 * @engine: the engine
 * @error: errno of what disables it, or 0
 *
 * The ring is enabled until nothing is stored for it any more.
 *
 * Context: state_lock held.
 */
void precopy_engine_stop_ring(struct precopy_engine *engine, u32 error)
{
	lockdep_assert_held(&engine->pcd->state_lock);
	engine->state.ring.error = error;
	if (engine->running == PRECOPY_QUEUE_RING)
		engine->stop_ring = true;
	else
		precopy_engine_disable_ring(engine);
}

/* --- The next step ---------------------------------------------------- */

static bool precopy_ring_ready(const struct precopy_engine_state *state)
{
	return state->ctrl & PRECOPY_ENGINE_CTRL_RING &&
	       state->ring.head != state->ring.tail;
}

static bool precopy_engine_ready(const struct precopy_engine *engine)
{
	return engine->open && engine->master && !engine->quiesced &&
	       (engine->state.command.active ||
		precopy_ring_ready(&engine->state) ||
		precopy_epf_active(engine));
}

/*
 * Has the queue a step that may begin now? A new job waits for the interval; the
 * commands of pci-epf-test, which have none, do not.
 */
static bool precopy_engine_may_run(const struct precopy_engine *engine,
				   enum precopy_queue queue, ktime_t now)
{
	const struct precopy_engine_state *state = &engine->state;
	bool fresh;

	if (queue == PRECOPY_QUEUE_EPF)
		return precopy_epf_active(engine);
	if (queue == PRECOPY_QUEUE_RING) {
		if (!precopy_ring_ready(state))
			return false;
		fresh = state->ring.phase == PRECOPY_RING_FETCH;
	} else {
		if (!state->command.active)
			return false;
		fresh = !state->command.job.pos;
	}
	return !fresh || !ktime_before(now, engine->next_start);
}

/* The queue whose turn it is; the last one's comes when no other has a step */
static enum precopy_queue
precopy_engine_choose(const struct precopy_engine *engine, ktime_t now)
{
	enum precopy_queue queue = engine->last;

	do {
		queue = queue < PRECOPY_QUEUE_EPF ? queue + 1 :
						    PRECOPY_QUEUE_COMMAND;
		if (precopy_engine_may_run(engine, queue, now))
			return queue;
	} while (queue != (engine->last ?: PRECOPY_QUEUE_EPF));
	return PRECOPY_QUEUE_NONE;
}

static void precopy_engine_plan_ring(struct precopy_engine *engine,
				     struct precopy_step *step)
{
	const struct precopy_ring *ring = &engine->state.ring;

	step->addr = ring->base +
		     ring->head * sizeof(struct precopy_engine_desc);
	step->status = ring->status;
	step->job = ring->job;
	if (ring->phase == PRECOPY_RING_FETCH)
		step->kind = PRECOPY_STEP_FETCH;
	else if (ring->phase == PRECOPY_RING_EXECUTE)
		step->kind = PRECOPY_STEP_JOB;
	else
		step->kind = PRECOPY_STEP_STATUS;
}

static void precopy_engine_plan_command(struct precopy_engine *engine,
					struct precopy_step *step)
{
	step->kind = PRECOPY_STEP_JOB;
	step->job = engine->state.command.job;
}

/* A job begins with this step: the next one not before the interval is over */
static void precopy_engine_start_interval(struct precopy_engine *engine,
					  const struct precopy_step *step,
					  ktime_t now)
{
	if (step->kind == PRECOPY_STEP_FETCH ||
	    (step->queue == PRECOPY_QUEUE_COMMAND && !step->job.pos))
		engine->next_start = ktime_add_us(now, engine->state.interval_us);
}

static void precopy_engine_sleep(struct precopy_engine *engine, ktime_t until)
{
	hrtimer_start(&engine->timer, until, HRTIMER_MODE_ABS);
}

/*
 * Choose a step and begin it.
 *
 * Return: false if there is none; something will then queue the worker again.
 */
static bool precopy_engine_plan(struct precopy_engine *engine,
				struct precopy_step *step)
{
	struct precopy_device *pcd = engine->pcd;
	ktime_t now = ktime_get();

	guard(spinlock)(&pcd->state_lock);
	if (!precopy_engine_ready(engine))
		return false;
	*step = (struct precopy_step) { .generation = pcd->generation };
	step->queue = precopy_engine_choose(engine, now);
	if (step->queue == PRECOPY_QUEUE_NONE) {
		precopy_engine_sleep(engine, engine->next_start);
		return false;
	}
	if (!precopy_dma_begin(pcd)) {
		precopy_engine_sleep(engine, pcd->dma.resume_at);
		return false;
	}
	engine->last = step->queue;
	engine->running = step->queue;
	if (step->queue == PRECOPY_QUEUE_RING)
		precopy_engine_plan_ring(engine, step);
	else if (step->queue == PRECOPY_QUEUE_EPF)
		precopy_epf_plan(engine, step);
	else
		precopy_engine_plan_command(engine, step);
	step->error = precopy_knobs_error(engine, step);
	precopy_engine_start_interval(engine, step, now);
	return true;
}

/* --- What came of it -------------------------------------------------- */

/* Return: true if the job is complete, which ends after @end bytes */
static bool precopy_job_advance(struct precopy_job *job, size_t len, u64 end)
{
	job->pos += len;
	return job->pos >= end;
}

static void precopy_engine_command_done(struct precopy_engine *engine,
					const struct precopy_step *step, int ret)
{
	struct precopy_command *command = &engine->state.command;

	if (ret) {
		precopy_engine_end_command(engine, -ret);
		return;
	}
	if (!precopy_job_advance(&command->job, step->len,
				 precopy_knobs_command_end(engine)))
		return;
	command->job.pos = 0;
	command->job.seq++;
	command->done++;
	if (command->count && command->done >= command->count)
		precopy_engine_end_command(engine, 0);
}

static void precopy_ring_fetched(struct precopy_engine *engine,
				 const struct precopy_step *step)
{
	struct precopy_ring *ring = &engine->state.ring;

	ring->job = step->job;
	ring->status = -precopy_job_check(&step->job,
					  engine->pcd->memory.size);
	ring->phase = ring->status ? PRECOPY_RING_COMPLETE :
				     PRECOPY_RING_EXECUTE;
}

static void precopy_ring_executed(struct precopy_engine *engine,
				  const struct precopy_step *step, int ret)
{
	struct precopy_ring *ring = &engine->state.ring;

	ring->status = -ret;
	if (ret)
		atomic64_inc(&engine->pcd->stats.dma_errors);
	if (ret || precopy_job_advance(&ring->job, step->len, ring->job.len))
		ring->phase = PRECOPY_RING_COMPLETE;
}

static void precopy_ring_completed(struct precopy_engine *engine)
{
	struct precopy_ring *ring = &engine->state.ring;

	ring->phase = PRECOPY_RING_FETCH;
	ring->head = (ring->head + 1) & (ring->size - 1);
	if (ring->job.flags & PRECOPY_ENGINE_FLAG_IRQ)
		precopy_irq_raise(engine, ring->vector);
}

static void precopy_engine_ring_done(struct precopy_engine *engine,
				     const struct precopy_step *step, int ret)
{
	if (step->kind == PRECOPY_STEP_JOB)
		precopy_ring_executed(engine, step, ret);
	else if (ret)
		precopy_engine_stop_ring(engine, -ret);
	else if (step->kind == PRECOPY_STEP_FETCH)
		precopy_ring_fetched(engine, step);
	else
		precopy_ring_completed(engine);
}

/* Does the step store data, which is counted? */
static bool precopy_engine_stores(const struct precopy_step *step)
{
	return step->kind == PRECOPY_STEP_JOB ||
	       (step->kind == PRECOPY_STEP_EPF &&
		step->job.op != PRECOPY_EPF_COMMAND_READ);
}

static void precopy_engine_account(struct precopy_engine *engine,
				   const struct precopy_step *step, int ret)
{
	struct precopy_stats *stats = &engine->pcd->stats;

	atomic64_inc(&stats->dma_steps);
	if (ret || !precopy_engine_stores(step))
		return;
	atomic64_add(step->len, &stats->dma_bytes);
	engine->state.bytes += step->len;
}

static void precopy_engine_done(struct precopy_engine *engine,
				const struct precopy_step *step, int ret)
{
	if (!ret && step->kind == PRECOPY_STEP_JOB &&
	    step->job.op == PRECOPY_ENGINE_OP_IRQ)
		precopy_irq_raise(engine, step->job.src);
	if (step->queue == PRECOPY_QUEUE_RING)
		precopy_engine_ring_done(engine, step, ret);
	else if (step->queue == PRECOPY_QUEUE_EPF)
		precopy_epf_done(engine, step, ret);
	else
		precopy_engine_command_done(engine, step, ret);
}

/* The step that a stop had to wait for has ended */
static void precopy_engine_finish_stops(struct precopy_engine *engine)
{
	engine->running = PRECOPY_QUEUE_NONE;
	if (engine->stop_command)
		precopy_engine_end_command(engine, ECANCELED);
	if (engine->stop_ring)
		precopy_engine_disable_ring(engine);
}

/* End a step. If there was a reset meanwhile, it is void. */
static void precopy_engine_publish(struct precopy_engine *engine,
				   const struct precopy_step *step, int ret)
{
	struct precopy_device *pcd = engine->pcd;

	scoped_guard(spinlock, &pcd->state_lock) {
		precopy_dma_end(pcd);
		if (pcd->generation == step->generation) {
			precopy_engine_account(engine, step, ret);
			precopy_engine_done(engine, step, ret);
		}
		precopy_engine_finish_stops(engine);
	}
	if (wq_has_sleeper(&pcd->wait))
		wake_up_all(&pcd->wait);
}

static void precopy_engine_work(struct work_struct *work)
{
	struct precopy_engine *engine =
		container_of(work, struct precopy_engine, work);
	struct precopy_step step;
	int ret;

	while (precopy_engine_plan(engine, &step)) {
		ret = step.error ? -(int)step.error :
		      precopy_step_run(engine->pcd, &step, engine->buf);
		precopy_knobs_linger(engine, &step);
		precopy_engine_publish(engine, &step, ret);
		cond_resched();
	}
}

static enum hrtimer_restart precopy_engine_timer(struct hrtimer *timer)
{
	struct precopy_engine *engine =
		container_of(timer, struct precopy_engine, timer);

	queue_work(engine->wq, &engine->work);
	return HRTIMER_NORESTART;
}

/**
 * precopy_engine_kick - queue the worker if there is something to do
 * @engine: the engine
 *
 * Context: state_lock held.
 */
void precopy_engine_kick(struct precopy_engine *engine)
{
	lockdep_assert_held(&engine->pcd->state_lock);
	if (precopy_engine_ready(engine))
		queue_work(engine->wq, &engine->work);
}

/* --- Life ------------------------------------------------------------- */

/**
 * precopy_engine_clear - set all registers to their values after a reset
 * @engine: the engine
 *
 * Eventfds stay, as do those of a physical device: they are the user's.
 *
 * Context: state_lock held.
 */
void precopy_engine_clear(struct precopy_engine *engine)
{
	lockdep_assert_held(&engine->pcd->state_lock);
	engine->state = (struct precopy_engine_state)
			PRECOPY_ENGINE_STATE_INITIAL;
	engine->stop_command = false;
	engine->stop_ring = false;
	engine->next_start = 0;
	engine->nr_jobs = 0;
}

/**
 * precopy_engine_reset - reset the engine: the device is RUNNING again
 * @engine: the engine
 *
 * Context: state_lock held; the device's generation is a new one already.
 */
void precopy_engine_reset(struct precopy_engine *engine)
{
	precopy_engine_clear(engine);
	engine->quiesced = false;
}

/**
 * precopy_engine_reset_wait - wait until no step of before a reset is executed
 * @pcd: the device
 *
 * Waits for a limited time, as PCIe does for the completions of a function that is
 * reset: the caller may hold a lock of the core for which the step has to wait.
 *
 * Context: may sleep.
 */
void precopy_engine_reset_wait(struct precopy_device *pcd)
{
	if (wait_event_timeout(pcd->wait, precopy_dma_idle(pcd),
			       msecs_to_jiffies(PRECOPY_RESET_WAIT_MS)))
		return;
	atomic64_inc(&pcd->stats.late_steps);
	dev_warn_ratelimited(precopy_dev(pcd),
			     "reset while a DMA step takes longer than %u ms\n",
			     PRECOPY_RESET_WAIT_MS);
}

/**
 * precopy_engine_set_master - the function may, or may not, be bus master
 * @engine: the engine
 * @master: COMMAND's bus master bit is 1 and the function is in D0
 *
 * Without it no step begins and interrupts are lost. What is to be done stays.
 *
 * Context: any.
 */
void precopy_engine_set_master(struct precopy_engine *engine, bool master)
{
	guard(spinlock)(&engine->pcd->state_lock);
	engine->master = master;
	precopy_engine_kick(engine);
}

/**
 * precopy_engine_create - allocate the engine of a device that is opened
 * @pcd: the device
 * @wq: workqueue for the worker
 *
 * Return: 0 or -ENOMEM.
 */
int precopy_engine_create(struct precopy_device *pcd,
			  struct workqueue_struct *wq)
{
	struct precopy_engine *engine = kzalloc_obj(*engine, GFP_KERNEL_ACCOUNT);

	if (!engine)
		return -ENOMEM;
	engine->buf = (void *)__get_free_page(GFP_KERNEL_ACCOUNT);
	if (!engine->buf) {
		kfree(engine);
		return -ENOMEM;
	}
	engine->pcd = pcd;
	engine->wq = wq;
	engine->open = true;
	INIT_WORK(&engine->work, precopy_engine_work);
	hrtimer_setup(&engine->timer, precopy_engine_timer, CLOCK_MONOTONIC,
		      HRTIMER_MODE_ABS);
	guard(spinlock)(&pcd->state_lock);
	precopy_engine_clear(engine);
	pcd->engine = engine;
	return 0;
}

/**
 * precopy_engine_stop - execute nothing any more: the device is closed
 * @engine: the engine
 *
 * Context: may sleep.
 */
void precopy_engine_stop(struct precopy_engine *engine)
{
	scoped_guard(spinlock, &engine->pcd->state_lock)
		engine->open = false;
	wake_up_all(&engine->pcd->wait);
	hrtimer_cancel(&engine->timer);
	cancel_work_sync(&engine->work);
	precopy_irq_disable(engine);
}

/**
 * precopy_engine_destroy - free the engine of a device that is closed
 * @pcd: the device, whose engine was stopped and which has no session any more
 */
void precopy_engine_destroy(struct precopy_device *pcd)
{
	struct precopy_engine *engine;

	scoped_guard(spinlock, &pcd->state_lock) {
		engine = pcd->engine;
		pcd->engine = NULL;
	}
	free_page((unsigned long)engine->buf);
	kfree(engine);
}

/* --- Arcs ------------------------------------------------------------- */

static u32 precopy_engine_vectors(const struct precopy_engine *engine)
{
	u32 vector, vectors = 0;

	for (vector = 0; vector < PRECOPY_ENGINE_VECTORS; vector++)
		if (engine->trigger[vector])
			vectors |= BIT(vector);
	return vectors;
}

static int precopy_engine_set_quiesced(struct precopy_device *pcd,
				       u64 generation, bool quiesced)
{
	struct precopy_engine *engine = pcd->engine;

	guard(spinlock)(&pcd->state_lock);
	if (pcd->generation != generation)
		return -ECANCELED;
	engine->quiesced = quiesced;
	if (quiesced) {
		trace_precopy_quiesce(precopy_dev(pcd), engine->master,
				      precopy_engine_vectors(engine),
				      engine->state.pending);
	} else {
		trace_precopy_resume(precopy_dev(pcd), engine->master,
				     precopy_engine_vectors(engine),
				     engine->state.pending);
		precopy_irq_deliver(engine);
		precopy_engine_kick(engine);
	}
	return 0;
}

/**
 * precopy_engine_resume - operation of the model: act again
 * @pcd: the device
 * @generation: at the start of the state change
 *
 * Interrupts that were kept are delivered before anything else happens.
 *
 * Context: an arc, arc_mutex held.
 * Return: 0, or -ECANCELED after a reset.
 */
int precopy_engine_resume(struct precopy_device *pcd, u64 generation)
{
	return precopy_engine_set_quiesced(pcd, generation, false);
}

/**
 * precopy_engine_quiesce - operation of the model: begin nothing any more
 * @pcd: the device
 * @generation: at the start of the state change
 *
 * Doorbells are kept from now on, and so are interrupts. The caller can be frozen while
 * it waits: the step may need a page of the user that a task provides which is frozen
 * already (userfaultfd, FUSE), and then does not end before the thaw. Whoever waits
 * for arc_mutex meanwhile can be frozen, too.
 *
 * Context: an arc, arc_mutex held; waits (killable) for the step that is executed.
 * Return: 0, -EINTR, or -ECANCELED after a reset.
 */
int precopy_engine_quiesce(struct precopy_device *pcd, u64 generation)
{
	int ret = precopy_engine_set_quiesced(pcd, generation, true);

	if (ret)
		return ret;
	if (wait_event_state(pcd->wait, precopy_dma_idle(pcd) ||
			     precopy_arc_outdated(pcd, generation),
			     (TASK_KILLABLE | TASK_FREEZABLE_UNSAFE))) {
		precopy_engine_resume(pcd, generation);
		return -EINTR;
	}
	return precopy_arc_outdated(pcd, generation) ? -ECANCELED : 0;
}
