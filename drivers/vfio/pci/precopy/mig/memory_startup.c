// SPDX-License-Identifier: GPL-2.0-only
/*
 * The memory's part of the startup of a target: allocate and zero the units that
 * the source has all pages of. Until the startup is complete the user's accesses
 * to the memory wait.
 *
 * Other memory that the source uses is allocated page by page when its data
 * arrives: the target must not need more memory than the source.
 */

#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/wait.h>

#include "mem/memory.h"
#include "memory_startup.h"
#include "precopy.h"
#include "section.h"
#include "session.h"
#include "startup.h"

/**
 * struct precopy_memory_startup - the memory in one startup
 * @part: what the startup knows
 * @locks: held while a unit is prepared, by its number modulo
 *	   PRECOPY_STARTUP_WORKERS: a worker and the load must not allocate one
 *	   unit twice, where there is memory for one
 * @units: units to be prepared; written before the workers are queued
 * @nr_units: number of units in the BAR
 * @last: unit that the load made ready last, plus 1; owned by who has the session
 *	  busy
 * @next: unit that is to be claimed next
 */
struct precopy_memory_startup {
	struct precopy_startup_part	part;
	struct mutex			locks[PRECOPY_STARTUP_WORKERS]; /* see above */
	unsigned long			*units;
	u32				nr_units;
	unsigned long			last;
	atomic_long_t			next;
};

static struct precopy_memory_startup *
to_memory_startup(struct precopy_startup_part *part)
{
	return container_of(part, struct precopy_memory_startup, part);
}

static struct precopy_session *
precopy_memory_startup_session(struct precopy_memory_startup *ms)
{
	return ms->part.startup->session;
}

static struct precopy_memory *
precopy_memory_startup_memory(struct precopy_memory_startup *ms)
{
	return &precopy_memory_startup_session(ms)->pcd->memory;
}

/* Bytes of a unit: a BAR may be smaller than PRECOPY_UNIT_SIZE */
static u64 precopy_memory_startup_unit_bytes(struct precopy_memory_startup *ms)
{
	return min_t(u64, PRECOPY_UNIT_SIZE,
		     precopy_memory_startup_memory(ms)->size);
}

/* --- One unit --------------------------------------------------------- */

/* The next unit that nobody prepares yet; nr_units if there is none */
static unsigned long precopy_memory_startup_claim(struct precopy_memory_startup *ms)
{
	unsigned long unit;
	long from = atomic_long_read(&ms->next);

	do {
		unit = find_next_bit(ms->units, ms->nr_units, from);
	} while (unit < ms->nr_units &&
		 !atomic_long_try_cmpxchg(&ms->next, &from, unit + 1));
	return unit;
}

/* Allocate what is missing of a unit, or wait until another task has done it */
static int precopy_memory_startup_populate(struct precopy_memory_startup *ms,
					   unsigned long unit)
{
	struct precopy_session *session = precopy_memory_startup_session(ms);
	int bytes;

	guard(mutex)(&ms->locks[unit % PRECOPY_STARTUP_WORKERS]);
	bytes = precopy_memory_populate_unit(&session->pcd->memory,
					     session->generation, unit);
	if (bytes < 0)
		return bytes;
	atomic64_add(bytes, &ms->part.startup->allocated);
	return 0;
}

/* True while the test knob keeps workers from preparing this unit */
static bool precopy_memory_startup_halted(struct precopy_memory_startup *ms,
					  unsigned long unit)
{
	struct precopy_session *session = precopy_memory_startup_session(ms);
	u64 at = precopy_knob(session->pcd, hold_startup_at);

	return at && (u64)unit * PRECOPY_UNIT_SIZE >= at &&
	       !precopy_session_dead(session);
}

static int precopy_memory_startup_prepare(struct precopy_startup_part *part)
{
	struct precopy_memory_startup *ms = to_memory_startup(part);
	struct precopy_session *session = part->startup->session;
	unsigned long unit = precopy_memory_startup_claim(ms);
	int ret;

	if (unit >= ms->nr_units)
		return 0;
	if (precopy_memory_startup_halted(ms, unit))
		wait_event_idle(session->pcd->wait,
				!precopy_memory_startup_halted(ms, unit));
	if (precopy_session_dead(session))
		return -ECANCELED;
	ret = precopy_memory_startup_populate(ms, unit);
	return ret ?: precopy_memory_startup_unit_bytes(ms);
}

static void precopy_memory_startup_stop(struct precopy_startup_part *part)
{
	struct precopy_memory_startup *ms = to_memory_startup(part);

	atomic_long_set(&ms->next, ms->nr_units);
}

/**
 * precopy_memory_startup_unit - make a unit ready for data that arrives early
 * @part: the memory's part of the startup
 * @offset: where the data goes to, bytes in the BAR
 *
 * A unit that a worker is going to prepare is allocated whole now: a single page
 * would keep it from becoming one folio.
 *
 * Context: the session busy with the caller; may sleep, no lock of this driver
 * held.
 * Return: 0, -ENOMEM, or -ECANCELED after a reset.
 */
int precopy_memory_startup_unit(struct precopy_startup_part *part, u64 offset)
{
	struct precopy_memory_startup *ms = to_memory_startup(part);
	unsigned long unit = offset / PRECOPY_UNIT_SIZE;
	int ret;

	if (ms->last == unit + 1 || !test_bit(unit, ms->units) ||
	    precopy_startup_result(part->startup) != -EINPROGRESS)
		return 0;
	ret = precopy_memory_startup_populate(ms, unit);
	if (!ret)
		ms->last = unit + 1;
	return ret;
}

/* --- Beginning and end ------------------------------------------------ */

static void precopy_memory_startup_free(struct precopy_startup_part *part)
{
	struct precopy_memory_startup *ms = to_memory_startup(part);
	unsigned int i;

	for (i = 0; i < PRECOPY_STARTUP_WORKERS; i++)
		mutex_destroy(&ms->locks[i]);
	bitmap_free(ms->units);
	kfree(ms);
}

static struct precopy_startup_part *
precopy_memory_startup_alloc(struct precopy_startup *startup)
{
	struct precopy_memory_startup *ms =
		kzalloc_obj(*ms, GFP_KERNEL_ACCOUNT);
	unsigned int i;

	if (!ms)
		return NULL;
	ms->nr_units = precopy_stream_units(startup->session->pcd->memory.size);
	for (i = 0; i < PRECOPY_STARTUP_WORKERS; i++)
		mutex_init(&ms->locks[i]);
	ms->units = bitmap_zalloc(ms->nr_units, GFP_KERNEL_ACCOUNT);
	if (ms->units)
		return &ms->part;
	precopy_memory_startup_free(&ms->part);
	return NULL;
}

/*
 * Leave out the units that are beyond @limit bytes, and return the bytes of the
 * others.
 */
static u64 precopy_memory_startup_limit(struct precopy_memory_startup *ms,
					u64 limit)
{
	u64 unit_bytes = precopy_memory_startup_unit_bytes(ms), bytes = 0;
	unsigned long unit;

	for_each_set_bit(unit, ms->units, ms->nr_units) {
		if (bytes + unit_bytes > limit)
			__clear_bit(unit, ms->units);
		else
			bytes += unit_bytes;
	}
	return bytes;
}

/* Entries made while the memory was still empty are removed: accesses will wait */
static int precopy_memory_startup_begin(struct precopy_startup_part *part,
					const struct precopy_decoder *dec,
					u64 *bytes)
{
	struct precopy_memory_startup *ms = to_memory_startup(part);
	u32 unit;

	for (unit = 0; unit < dec->nr_units; unit++)
		__assign_bit(unit, ms->units,
			     precopy_decoder_unit_in_use(dec, unit));
	*bytes += precopy_memory_startup_limit(ms, dec->bytes_in_use);
	ms->last = 0;
	atomic_long_set(&ms->next, 0);
	return precopy_memory_load_begin(precopy_memory_startup_memory(ms),
					 part->startup->session->generation);
}

static void precopy_memory_startup_wait(struct precopy_startup_part *part)
{
	precopy_memory_set_gate(&part->startup->session->pcd->memory,
				PRECOPY_GATE_WAIT);
}

static void precopy_memory_startup_ready(struct precopy_startup_part *part)
{
	struct precopy_memory *mem = &part->startup->session->pcd->memory;

	/* A load that failed has shut it for good */
	if (precopy_memory_waits(mem))
		precopy_memory_set_gate(mem, PRECOPY_GATE_OPEN);
}

/* At once, since the memory may be all that there is */
static void precopy_memory_startup_fail(struct precopy_startup_part *part)
{
	struct precopy_memory *mem = &part->startup->session->pcd->memory;

	precopy_memory_discard(mem);
	precopy_memory_set_gate(mem, PRECOPY_GATE_FAILED);
}

const struct precopy_startup_ops precopy_memory_startup_ops = {
	.alloc		= precopy_memory_startup_alloc,
	.free		= precopy_memory_startup_free,
	.begin		= precopy_memory_startup_begin,
	.wait		= precopy_memory_startup_wait,
	.prepare	= precopy_memory_startup_prepare,
	.stop		= precopy_memory_startup_stop,
	.ready		= precopy_memory_startup_ready,
	.fail		= precopy_memory_startup_fail,
};
