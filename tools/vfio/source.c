// SPDX-License-Identifier: GPL-2.0-only
/* A device that saves: see source.h. */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "frame.h"
#include "migration.h"
#include "progress.h"
#include "source.h"
#include "util.h"

/* Time to wait if there is no data */
#define IDLE_NS		(5 * NS_PER_MS)

/* --- Before ------------------------------------------------------------------- */

/* End a migration that a killed process has left on a device that other processes have open */
static int source_home(struct source *src)
{
	uint32_t state;
	int ret = mig_get_state(src->dev, &state);

	if (!ret && mig_is_precopy(state)) {
		warn("%s is in %s, from a migration that did not end; returning it to RUNNING",
		     src->dev->name, mig_state_name(state));
		state = VFIO_DEVICE_STATE_RUNNING;
		ret = mig_set_state(src->dev, state, NULL);
	}
	if (ret)
		return fail(ST_DEVICE, "%s: its migration state is unknown: %s", src->dev->name,
			    strerror(-ret));
	if (state != VFIO_DEVICE_STATE_RUNNING && state != VFIO_DEVICE_STATE_STOP)
		return fail(ST_DEVICE,
			    "%s is in %s: it can be saved only from RUNNING or STOP (see 'vfio-migrate run')",
			    src->dev->name, mig_state_name(state));
	src->home = state;
	return ST_OK;
}

int source_init(struct source *src, const struct device *dev)
{
	char why[256];

	*src = (struct source){ .dev = dev, .data_fd = -1, .precopy = true };
	src->t.startup_ns = NEVER;
	src->t.promised_ns = NEVER;
	if (mig_obstacle(dev, &src->flags, why, sizeof(why)))
		return fail(ST_DEVICE, "%s cannot migrate: %s", dev->name, why);
	if (mig_data_size(dev, &src->data_size))
		src->data_size = 0;
	src->buf = malloc(FRAME_MAX_DATA);
	if (!src->buf)
		return fail(ST_FAILED, "no memory");
	return source_home(src);
}

static int change_state(struct source *src, uint32_t state, int *data_fd)
{
	int ret = mig_set_state(src->dev, state, data_fd);

	if (ret)
		return fail(ST_FAILED, "%s cannot change to %s: %s", src->dev->name,
			    mig_state_name(state), strerror(-ret));
	if (data_fd && *data_fd < 0)
		return fail(ST_FAILED, "%s: the driver has returned no data fd in %s",
			    src->dev->name, mig_state_name(state));
	return ST_OK;
}

/* --- Looking -------------------------------------------------------------------- */

static double bandwidth(const struct source *src)
{
	if (src->bandwidth.value)
		return src->bandwidth.value;
	return src->active_ns ? src->t.total * 1e9 / src->active_ns : 0;
}

static void measure_dirty(struct source *src, uint64_t dirty_bytes)
{
	uint64_t now = now_ns(), before = src->dirty_last - min_u64(src->dirty_sent,
								     src->dirty_last);

	if (src->looked)
		rate_add(&src->dirty, dirty_bytes > before ? dirty_bytes - before : 0,
			 now - src->looked);
	src->looked = now;
	src->dirty_last = dirty_bytes;
	src->dirty_sent = 0;
}

/* The source may have an estimate before the target reports one */
static void look_at_startup(struct source *src, struct outlook *look)
{
	struct vfio_precopy_startup startup;

	if (look->startup_known || look->acked || mig_startup(src->data_fd, &startup))
		return;
	if (startup.phase != VFIO_PRECOPY_PHASE_STARTING)
		return;
	look->startup_known = true;
	look->startup_ns = startup.remaining_ns;
}

static enum phase precopy_phase(const struct outlook *look)
{
	if (look->initial)
		return PHASE_INITIAL;
	return look->acked ? PHASE_DIRTY : PHASE_WAIT;
}

static void note(struct source *src, const struct outlook *look)
{
	struct transfer *t = &src->t;

	t->phase = precopy_phase(look);
	t->pending = look->pending;
	t->in_flight = look->in_flight;
	t->bandwidth = look->bandwidth;
	t->dirty_rate = look->dirty_rate;
	t->startup_ns = look->startup_known ? look->startup_ns : NEVER;
	if (look->acked && !t->acked) {
		t->acked = true;
		t->wait_ns = now_ns() - t->marked;
	}
	/* After REINIT, wait for a new acknowledgment */
	if (!look->acked)
		t->acked = false;
	t->acked_running = t->acked;
	progress_show(t);
}

static int refresh(struct source *src, struct outlook *look)
{
	struct vfio_precopy_info info;
	int ret = mig_precopy_info(src->data_fd, &info);

	if (ret)
		return fail(ST_FAILED, "%s: its pre-copy state is unknown: %s", src->dev->name,
			    strerror(-ret));
	measure_dirty(src, info.dirty_bytes);
	*look = (struct outlook){
		.initial = info.initial_bytes,
		.pending = info.initial_bytes + info.dirty_bytes,
		.data_size = src->data_size,
		.bandwidth = bandwidth(src),
		.dirty_rate = src->dirty.value,
	};
	src->sink->look(src->sink, look);
	/* Restarted initial data (REINIT) needs its own mark */
	if (look->initial) {
		src->marked = false;
		look->acked = false;
	}
	look_at_startup(src, look);
	look->stalled = look->acked && watch_stalled(&src->watch, look->pending, src->t.total,
						     now_ns());
	note(src, look);
	return ST_OK;
}

/* --- Moving bytes ------------------------------------------------------------------ */

/* Wait until more data may be sent; the sink does its other work in the meantime */
static int keep_to_limit(struct source *src, uint64_t bytes)
{
	uint64_t until = limit_sent(&src->limit, bytes, now_ns()), now;
	int ret = ST_OK;

	while (!ret && (now = now_ns()) < until) {
		progress_show(&src->t);
		ret = interrupted() ?:
		      src->sink->idle(src->sink, min_u64(until - now, 100 * NS_PER_MS));
	}
	return ret;
}

/* Returns a status. @moved: 0 if there is no data at present, or in STOP_COPY no more data */
static int move_some(struct source *src, uint64_t most, enum phase phase, ssize_t *moved)
{
	uint64_t t0 = now_ns();
	ssize_t n = read(src->data_fd, src->buf,
			 limit_piece(&src->limit, min_u64(most, FRAME_MAX_DATA)));
	int ret;

	*moved = 0;
	if (n < 0 && (errno == ENOMSG || errno == EINTR || errno == EAGAIN))
		return ST_OK;
	if (n < 0)
		return fail_errno(ST_FAILED, "%s: its data cannot be read", src->dev->name);
	if (!n)
		return ST_OK;
	ret = src->sink->push(src->sink, src->buf, n);
	if (ret)
		return ret;
	src->t.bytes[phase] += n;
	src->t.total += n;
	if (phase == PHASE_DIRTY)
		src->dirty_sent += n;
	ret = keep_to_limit(src, n);
	if (ret)
		return ret;
	t0 = now_ns() - t0;
	src->active_ns += t0;
	rate_add(&src->bandwidth, n, t0);
	*moved = n;
	return ST_OK;
}

/* All initial bytes are sent; from now on wait for the target's answer */
static int mark(struct source *src)
{
	if (!src->t.marked)
		src->t.marked = now_ns();
	src->marked = true;
	return src->sink->mark(src->sink);
}

/* One step of pre-copy */
static int precopy_step(struct source *src, const struct outlook *look)
{
	ssize_t moved;
	int ret;

	if (look->initial)
		return move_some(src, look->initial, PHASE_INITIAL, &moved) ?:
		       (moved ? ST_OK : src->sink->idle(src->sink, IDLE_NS));
	if (!src->marked)
		return mark(src);
	/* Do not send: the data would wait behind the barrier, and may be written again */
	if (!look->acked || !look->pending)
		return src->sink->idle(src->sink, IDLE_NS);
	ret = move_some(src, FRAME_MAX_DATA, PHASE_DIRTY, &moved);
	if (ret || moved)
		return ret;
	return src->sink->idle(src->sink, IDLE_NS);
}

static int give_up(const struct source *src, const struct outlook *look)
{
	char downtime[32], rate[32], dirty[32];

	return fail(ST_DOWNTIME,
		    "the downtime would be %s, more than the %llu ms allowed: %s/s are transferred, %s/s are written anew",
		    text_ns(downtime, sizeof(downtime), policy_downtime(look)),
		    (unsigned long long)(src->policy->max_downtime_ns / NS_PER_MS),
		    text_bytes(rate, sizeof(rate), look->bandwidth),
		    text_bytes(dirty, sizeof(dirty), look->dirty_rate));
}

static int precopy(struct source *src)
{
	enum verdict verdict;
	struct outlook look;
	int ret;

	ret = change_state(src, VFIO_DEVICE_STATE_PRE_COPY, &src->data_fd);
	for (; !ret; ret = precopy_step(src, &look)) {
		ret = interrupted() ?: refresh(src, &look);
		if (ret)
			break;
		verdict = policy_decide(src->policy, &look);
		if (verdict == VERDICT_GIVE_UP)
			return give_up(src, &look);
		/* Send the mark, whether or not its answer is waited for */
		if (verdict == VERDICT_STOP && src->marked) {
			src->t.promised_ns = policy_downtime(&look);
			break;
		}
	}
	if (!ret && !src->t.acked)
		src->t.wait_ns = now_ns() - src->t.marked;
	return ret;
}

/* Stores to a stopped device may make its driver produce data without end */
static int must_end(const struct source *src, uint64_t announced)
{
	uint64_t sent = src->t.bytes[PHASE_STOPPED];
	char a[32], b[32];

	if (!policy_endless(announced, sent))
		return ST_OK;
	return fail(ST_FAILED,
		    "%s has produced %s since it was stopped, but announced %s: does a program still store to it?",
		    src->dev->name, text_bytes(a, sizeof(a), sent),
		    text_bytes(b, sizeof(b), announced));
}

/*
 * Data in transfer counts as remaining until it has arrived, so that the value only
 * decreases
 */
static void note_stopped(struct source *src, size_t moved)
{
	struct outlook look = { };

	src->sink->look(src->sink, &look);
	src->t.in_flight = look.in_flight;
	src->t.pending -= min_u64(src->t.pending, moved);
	src->t.bandwidth = bandwidth(src);
	progress_show(&src->t);
}

/* The downtime begins here */
static int stop_and_copy(struct source *src)
{
	uint64_t announced;
	ssize_t moved;
	int ret;

	src->t.phase = PHASE_STOPPED;
	src->t.stopped = now_ns();
	ret = change_state(src, VFIO_DEVICE_STATE_STOP_COPY,
			   src->data_fd < 0 ? &src->data_fd : NULL);
	if (mig_data_size(src->dev, &announced))
		announced = 0;
	announced = max_u64(announced, src->data_size);
	while (!ret) {
		ret = interrupted() ?: must_end(src, announced) ?:
		      move_some(src, FRAME_MAX_DATA, PHASE_STOPPED, &moved);
		if (ret || !moved)
			break;
		note_stopped(src, moved);
	}
	return ret;
}

static bool has_precopy(const struct source *src)
{
	return src->precopy && src->flags & VFIO_MIGRATION_PRE_COPY &&
	       src->home == VFIO_DEVICE_STATE_RUNNING;
}

/* Without pre-copy the device must be stopped, and the downtime is unknown */
static int cannot_promise(const struct source *src)
{
	if (!src->policy->bound || src->home != VFIO_DEVICE_STATE_RUNNING)
		return ST_OK;
	return fail(ST_DOWNTIME,
		    "%s has no pre-copy, so nothing can be measured before it is stopped: no downtime can be promised",
		    src->dev->name);
}

int source_run(struct source *src)
{
	int ret;

	src->t.began = now_ns();
	src->t.pending = src->data_size;
	if (has_precopy(src)) {
		/* Ignore a failure: without version 2 there is no REINIT */
		mig_want_info_v2(src->dev);
		ret = precopy(src);
	} else {
		ret = cannot_promise(src);
	}
	return ret ?: stop_and_copy(src);
}

/* --- After ------------------------------------------------------------------------- */

static void close_data(struct source *src)
{
	if (src->data_fd >= 0)
		close(src->data_fd);
	src->data_fd = -1;
}

int source_restore(struct source *src)
{
	uint32_t state;
	int ret;

	ret = mig_get_state(src->dev, &state);
	if (!ret && state != src->home)
		ret = mig_set_state(src->dev, src->home, NULL);
	close_data(src);
	if (!ret)
		return ST_OK;
	if (mig_get_state(src->dev, &state))
		state = VFIO_DEVICE_STATE_ERROR;
	return fail(ST_STUCK, "%s does not go back to %s, it is in %s: %s", src->dev->name,
		    mig_state_name(src->home), mig_state_name(state), strerror(-ret));
}

void source_retire(struct source *src)
{
	int ret = mig_set_state(src->dev, VFIO_DEVICE_STATE_STOP, NULL);

	if (ret)
		warn("%s cannot change to STOP: %s", src->dev->name, strerror(-ret));
	close_data(src);
}
