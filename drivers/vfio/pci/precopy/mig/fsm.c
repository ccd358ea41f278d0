// SPDX-License-Identifier: GPL-2.0-only
/*
 * The migration state machine: one table of arcs and one loop. The VFIO core
 * decides the path (vfio_mig_get_next_state()), the table says what each step
 * does, the loop takes the steps.
 */

#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/ktime.h>
#include <linux/mutex.h>
#include <linux/tracepoint-defs.h>
#include <linux/wait.h>
#include <kunit/visibility.h>

#include "fsm.h"
#include "load.h"
#include "model.h"
#include "precopy.h"
#include "save.h"
#include "states.h"
#include "trace.h"

static struct file *precopy_arc_save(struct precopy_device *pcd, u64 generation)
{
	return precopy_save_start(pcd, generation, false);
}

static struct file *precopy_arc_save_stopped(struct precopy_device *pcd,
					     u64 generation)
{
	return precopy_save_start(pcd, generation, true);
}

/**
 * precopy_arc_outdated - condition to wait for: there was a reset
 * @pcd: the device
 * @generation: at the start of the state change
 *
 * Return: true if so.
 */
bool precopy_arc_outdated(struct precopy_device *pcd, u64 generation)
{
	guard(spinlock)(&pcd->state_lock);
	return pcd->generation != generation;
}

/*
 * The test knobs make a stop take long, and never less than they say. Killable
 * only: a call that was restarted would stop for the whole time again.
 */
static int precopy_arc_delay(struct precopy_device *pcd, u64 generation)
{
	u32 ms = precopy_knob(pcd, slow_stop_ms);
	int ret = -ETIME;

	if (ms)
		ret = __wait_event_hrtimeout(pcd->wait,
					     precopy_arc_outdated(pcd, generation),
					     ms_to_ktime(ms), TASK_KILLABLE);
	if (ret == -ETIME)
		ret = wait_event_killable(pcd->wait, !precopy_knob(pcd, hold) ||
					  precopy_arc_outdated(pcd, generation));
	if (ret < 0)
		return -EINTR;
	return precopy_arc_outdated(pcd, generation) ? -ECANCELED : 0;
}

/* An operation of the model, which has none if it has nothing to do */
static int precopy_arc_model(int (*op)(struct precopy_device *pcd,
				       u64 generation),
			     struct precopy_device *pcd, u64 generation)
{
	return op ? op(pcd, generation) : 0;
}

static struct file *precopy_arc_quiesce(struct precopy_device *pcd,
					u64 generation)
{
	return ERR_PTR(precopy_arc_model(pcd->model->quiesce, pcd, generation));
}

static struct file *precopy_arc_resume(struct precopy_device *pcd,
				       u64 generation)
{
	return ERR_PTR(precopy_arc_model(pcd->model->resume, pcd, generation));
}

static struct file *precopy_arc_start(struct precopy_device *pcd,
				      u64 generation)
{
	return ERR_PTR(precopy_arc_model(pcd->model->start, pcd, generation));
}

static struct file *precopy_arc_stop(struct precopy_device *pcd, u64 generation)
{
	return ERR_PTR(precopy_arc_delay(pcd, generation) ?:
		       precopy_arc_model(pcd->model->stop, pcd, generation));
}

static struct file *precopy_arc_save_finish(struct precopy_device *pcd,
					    u64 generation)
{
	struct file *filp = precopy_arc_stop(pcd, generation);

	return filp ?: ERR_PTR(precopy_save_finish(pcd, generation));
}

static struct file *precopy_arc_save_stop(struct precopy_device *pcd,
					  u64 generation)
{
	return ERR_PTR(precopy_save_stop(pcd, generation));
}

static struct file *precopy_arc_load_commit(struct precopy_device *pcd,
					    u64 generation)
{
	return ERR_PTR(precopy_load_commit(pcd, generation));
}

#define RUN(fn)		{ .exists = true, .run = (fn) }
#define BEGIN(fn)	{ .exists = true, .returns_fd = true, .run = (fn) }
#define S(state)	VFIO_DEVICE_STATE_##state

/* Rows: from; entries: to. Every arc of flags 7, and of its subset 3. */
static const struct precopy_arc
precopy_arcs[VFIO_DEVICE_STATE_NR][VFIO_DEVICE_STATE_NR] = {
	[S(RUNNING)] = {
		[S(RUNNING_P2P)]  = RUN(precopy_arc_quiesce),
		[S(PRE_COPY)]	  = BEGIN(precopy_arc_save),
	},
	[S(RUNNING_P2P)] = {
		[S(RUNNING)]	  = RUN(precopy_arc_resume),
		[S(STOP)]	  = RUN(precopy_arc_stop),
		[S(PRE_COPY_P2P)] = BEGIN(precopy_arc_save),
	},
	[S(PRE_COPY)] = {
		[S(RUNNING)]	  = RUN(precopy_arc_save_stop),
		[S(PRE_COPY_P2P)] = RUN(precopy_arc_quiesce),
	},
	[S(PRE_COPY_P2P)] = {
		[S(RUNNING_P2P)]  = RUN(precopy_arc_save_stop),
		[S(PRE_COPY)]	  = RUN(precopy_arc_resume),
		[S(STOP_COPY)]	  = RUN(precopy_arc_save_finish),
	},
	[S(STOP)] = {
		[S(RUNNING_P2P)]  = RUN(precopy_arc_start),
		[S(STOP_COPY)]	  = BEGIN(precopy_arc_save_stopped),
		[S(RESUMING)]	  = BEGIN(precopy_load_start),
	},
	[S(STOP_COPY)] = {
		[S(STOP)]	  = RUN(precopy_arc_save_stop),
	},
	[S(RESUMING)] = {
		[S(STOP)]	  = RUN(precopy_arc_load_commit),
	},
};

/**
 * precopy_arc_find - look up an arc
 * @from: state
 * @to: state
 *
 * Return: the arc, or NULL if it is not one that the driver implements.
 */
const struct precopy_arc *precopy_arc_find(enum vfio_device_mig_state from,
					   enum vfio_device_mig_state to)
{
	const struct precopy_arc *arc;

	if (from >= VFIO_DEVICE_STATE_NR || to >= VFIO_DEVICE_STATE_NR)
		return NULL;
	arc = &precopy_arcs[from][to];
	return arc->exists ? arc : NULL;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_arc_find);

/**
 * precopy_state_name - name of a state, as the core's debugfs has it
 * @state: the state
 *
 * Return: the name.
 */
const char *precopy_state_name(enum vfio_device_mig_state state)
{
	static const struct trace_print_flags names[] = { PRECOPY_STATE_NAMES };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++)
		if (names[i].mask == state)
			return names[i].name;
	return "unknown";
}
EXPORT_SYMBOL_IF_KUNIT(precopy_state_name);

/* Enter @to, unless a reset has put the device elsewhere meanwhile */
static int precopy_arc_arrive(struct precopy_device *pcd, u64 generation,
			      enum vfio_device_mig_state to)
{
	guard(spinlock)(&pcd->state_lock);
	if (pcd->generation != generation)
		return -ECANCELED;
	pcd->mig_state = to;
	return 0;
}

static struct file *precopy_arc_take(struct precopy_device *pcd,
				     u64 generation,
				     enum vfio_device_mig_state from,
				     enum vfio_device_mig_state to)
{
	const struct precopy_arc *arc = precopy_arc_find(from, to);
	struct file *filp = NULL;
	int ret = 0;

	if (WARN_ON(!arc))
		return ERR_PTR(-EINVAL);
	filp = arc->run(pcd, generation);
	if (IS_ERR(filp)) {
		ret = PTR_ERR(filp);
	} else {
		ret = precopy_arc_arrive(pcd, generation, to);
		if (ret && filp)
			fput(filp);
	}
	trace_precopy_arc(precopy_dev(pcd), from, to, ret);
	dev_dbg(precopy_dev(pcd), "%s -> %s: %d\n", precopy_state_name(from),
		precopy_state_name(to), ret);
	return ret ? ERR_PTR(ret) : filp;
}

static enum vfio_device_mig_state precopy_current_state(struct precopy_device *pcd,
							u64 *generation)
{
	guard(spinlock)(&pcd->state_lock);
	*generation = pcd->generation;
	return pcd->mig_state;
}

static struct file *precopy_set_state(struct vfio_device *vdev,
				      enum vfio_device_mig_state new_state)
{
	struct precopy_device *pcd = to_precopy(vdev);
	enum vfio_device_mig_state state, next;
	struct file *filp = NULL;
	u64 generation, now;
	int ret;

	ACQUIRE(mutex_intr, lock)(&pcd->arc_mutex);
	if (ACQUIRE_ERR(mutex_intr, &lock))
		return ERR_PTR(precopy_interrupted());

	state = precopy_current_state(pcd, &generation);
	while (state != new_state) {
		/* A file of an arc that is not the last would have no user */
		if (WARN_ON(filp)) {
			fput(filp);
			return ERR_PTR(-EINVAL);
		}
		ret = vfio_mig_get_next_state(vdev, state, new_state, &next);
		if (ret)
			return ERR_PTR(ret);
		filp = precopy_arc_take(pcd, generation, state, next);
		if (IS_ERR(filp))
			return filp;
		state = precopy_current_state(pcd, &now);
		if (now != generation) {
			if (filp)
				fput(filp);
			return ERR_PTR(-ECANCELED);
		}
	}
	return filp;
}

static int precopy_get_state(struct vfio_device *vdev,
			     enum vfio_device_mig_state *state)
{
	u64 generation;

	*state = precopy_current_state(to_precopy(vdev), &generation);
	return 0;
}

static int precopy_get_data_size(struct vfio_device *vdev,
				 unsigned long *stop_copy_length)
{
	*stop_copy_length = precopy_save_estimate(to_precopy(vdev));
	return 0;
}

const struct vfio_migration_ops precopy_migration_ops = {
	.migration_set_state		= precopy_set_state,
	.migration_get_state		= precopy_get_state,
	.migration_get_data_size	= precopy_get_data_size,
};
EXPORT_SYMBOL_IF_KUNIT(precopy_migration_ops);
