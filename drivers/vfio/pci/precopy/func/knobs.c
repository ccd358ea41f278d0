// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test knobs of the engine: a device that has a working set, fails, is slow or hangs.
 * Without CONFIG_PRECOPY_VFIO_PCI_TEST all of it does nothing.
 */

#include <linux/err.h>
#include <linux/jiffies.h>
#include <linux/minmax.h>
#include <linux/wait.h>

#include "engine.h"
#include "knobs.h"
#include "mig/fsm.h"
#include "precopy.h"
#include "step.h"

/* With a working set, one in so many rounds of a command is a whole one */
#define PRECOPY_HOT_ROUNDS	8

/**
 * precopy_knobs_error - count a job that begins, and find out whether it is to fail
 * @engine: the engine
 * @step: the step that is to be executed
 *
 * Context: state_lock held.
 * Return: errno that the step is to end with, without being executed, or 0.
 */
u32 precopy_knobs_error(struct precopy_engine *engine,
			const struct precopy_step *step)
{
	u64 at = precopy_knob(engine->pcd, fail_job_at);

	lockdep_assert_held(&engine->pcd->state_lock);
	if (step->kind != PRECOPY_STEP_JOB || step->job.pos)
		return 0;
	engine->nr_jobs++;
	if (engine->nr_jobs != at)
		return 0;
	return min_t(u32, precopy_knob(engine->pcd, fail_job_errno) ?: EIO,
		     MAX_ERRNO);
}

/**
 * precopy_knobs_command_end - where a round of the command ends
 * @engine: the engine
 *
 * A command without end that has a working set ends most of its rounds early. Its other
 * pages are thus written less often, by the rounds whose number is a multiple of 8.
 *
 * Context: state_lock held.
 * Return: number of bytes after which the round is complete.
 */
u64 precopy_knobs_command_end(const struct precopy_engine *engine)
{
	u64 hot = (u64)precopy_knob(engine->pcd, hot_pages) * PAGE_SIZE;
	const struct precopy_command *command = &engine->state.command;

	if (!hot || command->count ||
	    !(command->job.seq % PRECOPY_HOT_ROUNDS))
		return command->job.len;
	return min(hot, command->job.len);
}

/* Must the step end? A task that waits for it and cannot be killed is not kept. */
static bool precopy_knobs_must_end(struct precopy_engine *engine)
{
	guard(spinlock)(&engine->pcd->state_lock);
	return !engine->open || engine->pcd->dma.claims;
}

static bool precopy_knobs_may_end(struct precopy_engine *engine, u64 generation)
{
	return !precopy_knob(engine->pcd, hold_step) ||
	       precopy_arc_outdated(engine->pcd, generation) ||
	       precopy_knobs_must_end(engine);
}

/**
 * precopy_knobs_linger - make a step take long, or not end
 * @engine: the engine
 * @step: the step, which has done its work
 *
 * A delay lasts longer than a reset; a step that is held ends with it. Both end with a
 * close, and for a task that waits for the step and cannot be killed.
 *
 * Context: may sleep; no lock held.
 */
void precopy_knobs_linger(struct precopy_engine *engine,
			  const struct precopy_step *step)
{
	struct precopy_device *pcd = engine->pcd;
	u32 ms = precopy_knob(pcd, step_delay_ms);

	if (ms)
		wait_event_idle_timeout(pcd->wait, precopy_knobs_must_end(engine),
					msecs_to_jiffies(ms));
	if (precopy_knob(pcd, hold_step))
		wait_event_idle(pcd->wait,
				precopy_knobs_may_end(engine, step->generation));
}
