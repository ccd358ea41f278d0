// SPDX-License-Identifier: GPL-2.0-only
/*
 * The engine's section of the stream: one record with all registers and jobs, when
 * the device has stopped. A device whose engine is as after a reset sends none.
 */

#include <linux/slab.h>
#include <linux/string.h>
#include <kunit/visibility.h>

#include "engine.h"
#include "epf.h"
#include "mig/section.h"
#include "mig/session.h"
#include "mig/trace.h"
#include "model.h"
#include "precopy.h"
#include "step.h"

struct precopy_rec_job {
	__le32 op;
	__le32 flags;
	__le64 src;
	__le64 dst;
	__le64 len;
	__le64 seq;
	__le64 pos;
} __packed;

struct precopy_rec_engine {
	__le32 ctrl;
	__le32 pending;
	__le32 interval_us;
	__le32 reserved;
	__le64 bytes;
	struct {
		__le64 base;
		__le32 size;
		__le32 head;
		__le32 tail;
		__le32 vector;
		__le32 error;
		__le32 phase;
		__le32 status;
		__le32 reserved;
		struct precopy_rec_job job;
	} __packed ring;
	struct {
		struct precopy_rec_job job;
		__le64 count;
		__le64 done;
		__le32 vector;
		__le32 error;
		__le32 active;
		__le32 reserved;
	} __packed command;
	struct {
		__le32 magic;
		__le32 command;
		__le32 status;
		__le32 size;
		__le64 src;
		__le64 dst;
		__le32 checksum;
		__le32 irq_type;
		__le32 irq_number;
		__le32 flags;
		__le32 pos;
		__le32 sum;
	} __packed epf;
} __packed;
static_assert(sizeof(struct precopy_rec_engine) == 248);
static_assert(sizeof(struct precopy_rec_engine) <= PRECOPY_STREAM_PAGE_SIZE);

#define PRECOPY_ENGINE_LEN	(PRECOPY_REC_HDR_LEN + sizeof(struct precopy_rec_engine))

/**
 * struct precopy_engine_save - the engine in a saving session
 * @part: common part of all sections
 * @sent: true if the record was made; protected by state_lock
 */
struct precopy_engine_save {
	struct precopy_save_part	part;
	bool				sent;
};

static struct precopy_engine_save *to_engine_save(struct precopy_save_part *part)
{
	return container_of(part, struct precopy_engine_save, part);
}

/*
 * The engine of a session, or NULL if the session is over. It may be used as long as
 * state_lock is held.
 */
static struct precopy_engine *precopy_session_engine(struct precopy_session *session)
{
	struct precopy_device *pcd = session->pcd;

	lockdep_assert_held(&pcd->state_lock);
	return pcd->generation == session->generation ? pcd->engine : NULL;
}

/* --- The record -------------------------------------------------------- */

static void precopy_job_encode(const struct precopy_job *job,
			       struct precopy_rec_job *rec)
{
	rec->op = cpu_to_le32(job->op);
	rec->flags = cpu_to_le32(job->flags);
	rec->src = cpu_to_le64(job->src);
	rec->dst = cpu_to_le64(job->dst);
	rec->len = cpu_to_le64(job->len);
	rec->seq = cpu_to_le64(job->seq);
	rec->pos = cpu_to_le64(job->pos);
}

static void precopy_job_decode(const struct precopy_rec_job *rec,
			       struct precopy_job *job)
{
	job->op = le32_to_cpu(rec->op);
	job->flags = le32_to_cpu(rec->flags);
	job->src = le64_to_cpu(rec->src);
	job->dst = le64_to_cpu(rec->dst);
	job->len = le64_to_cpu(rec->len);
	job->seq = le64_to_cpu(rec->seq);
	job->pos = le64_to_cpu(rec->pos);
}

static void precopy_epf_encode(const struct precopy_epf *epf,
			       struct precopy_rec_engine *rec)
{
	rec->epf.magic = cpu_to_le32(epf->magic);
	rec->epf.command = cpu_to_le32(epf->command);
	rec->epf.status = cpu_to_le32(epf->status);
	rec->epf.size = cpu_to_le32(epf->size);
	rec->epf.src = cpu_to_le64(epf->src);
	rec->epf.dst = cpu_to_le64(epf->dst);
	rec->epf.checksum = cpu_to_le32(epf->checksum);
	rec->epf.irq_type = cpu_to_le32(epf->irq_type);
	rec->epf.irq_number = cpu_to_le32(epf->irq_number);
	rec->epf.flags = cpu_to_le32(epf->flags);
	rec->epf.pos = cpu_to_le32(epf->pos);
	rec->epf.sum = cpu_to_le32(epf->sum);
}

static void precopy_epf_decode(const struct precopy_rec_engine *rec,
			       struct precopy_epf *epf)
{
	epf->magic = le32_to_cpu(rec->epf.magic);
	epf->command = le32_to_cpu(rec->epf.command);
	epf->status = le32_to_cpu(rec->epf.status);
	epf->size = le32_to_cpu(rec->epf.size);
	epf->src = le64_to_cpu(rec->epf.src);
	epf->dst = le64_to_cpu(rec->epf.dst);
	epf->checksum = le32_to_cpu(rec->epf.checksum);
	epf->irq_type = le32_to_cpu(rec->epf.irq_type);
	epf->irq_number = le32_to_cpu(rec->epf.irq_number);
	epf->flags = le32_to_cpu(rec->epf.flags);
	epf->pos = le32_to_cpu(rec->epf.pos);
	epf->sum = le32_to_cpu(rec->epf.sum);
}

VISIBLE_IF_KUNIT void precopy_engine_encode(const struct precopy_engine_state *state,
					    struct precopy_rec_engine *rec)
{
	const struct precopy_command *command = &state->command;
	const struct precopy_ring *ring = &state->ring;

	memset(rec, 0, sizeof(*rec));
	rec->ctrl = cpu_to_le32(state->ctrl);
	rec->pending = cpu_to_le32(state->pending);
	rec->interval_us = cpu_to_le32(state->interval_us);
	rec->bytes = cpu_to_le64(state->bytes);
	rec->ring.base = cpu_to_le64(ring->base);
	rec->ring.size = cpu_to_le32(ring->size);
	rec->ring.head = cpu_to_le32(ring->head);
	rec->ring.tail = cpu_to_le32(ring->tail);
	rec->ring.vector = cpu_to_le32(ring->vector);
	rec->ring.error = cpu_to_le32(ring->error);
	rec->ring.phase = cpu_to_le32(ring->phase);
	rec->ring.status = cpu_to_le32(ring->status);
	precopy_job_encode(&ring->job, &rec->ring.job);
	precopy_job_encode(&command->job, &rec->command.job);
	rec->command.count = cpu_to_le64(command->count);
	rec->command.done = cpu_to_le64(command->done);
	rec->command.vector = cpu_to_le32(command->vector);
	rec->command.error = cpu_to_le32(command->error);
	rec->command.active = cpu_to_le32(command->active);
	precopy_epf_encode(&state->epf, rec);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_engine_encode);

static void precopy_engine_decode(const struct precopy_rec_engine *rec,
				  struct precopy_engine_state *state)
{
	struct precopy_command *command = &state->command;
	struct precopy_ring *ring = &state->ring;

	state->ctrl = le32_to_cpu(rec->ctrl);
	state->pending = le32_to_cpu(rec->pending);
	state->interval_us = le32_to_cpu(rec->interval_us);
	state->bytes = le64_to_cpu(rec->bytes);
	ring->base = le64_to_cpu(rec->ring.base);
	ring->size = le32_to_cpu(rec->ring.size);
	ring->head = le32_to_cpu(rec->ring.head);
	ring->tail = le32_to_cpu(rec->ring.tail);
	ring->vector = le32_to_cpu(rec->ring.vector);
	ring->error = le32_to_cpu(rec->ring.error);
	ring->phase = le32_to_cpu(rec->ring.phase);
	ring->status = le32_to_cpu(rec->ring.status);
	precopy_job_decode(&rec->ring.job, &ring->job);
	precopy_job_decode(&rec->command.job, &command->job);
	command->count = le64_to_cpu(rec->command.count);
	command->done = le64_to_cpu(rec->command.done);
	command->vector = le32_to_cpu(rec->command.vector);
	command->error = le32_to_cpu(rec->command.error);
	command->active = le32_to_cpu(rec->command.active);
	precopy_epf_decode(rec, &state->epf);
}

/* --- Validation -------------------------------------------------------- */

/*
 * A guest can set the registers of a queue that is not in use to anything, and may
 * take back its doorbell: HEAD is TAIL then, in whatever phase.
 */
static bool precopy_engine_ring_possible(const struct precopy_ring *ring,
					 u64 memory_size)
{
	return precopy_ring_valid(ring) && ring->head < ring->size &&
	       ring->tail < ring->size &&
	       (ring->phase != PRECOPY_RING_EXECUTE ||
		!precopy_job_check(&ring->job, memory_size));
}

static bool precopy_engine_possible(const struct precopy_engine_state *state,
				    u64 memory_size)
{
	const struct precopy_command *command = &state->command;
	const struct precopy_ring *ring = &state->ring;

	if (state->ctrl & ~PRECOPY_ENGINE_CTRL_RING ||
	    state->pending >= BIT(PRECOPY_ENGINE_VECTORS) ||
	    ring->error > MAX_ERRNO || ring->status > MAX_ERRNO ||
	    command->error > MAX_ERRNO || ring->phase > PRECOPY_RING_COMPLETE)
		return false;
	if (command->active &&
	    (precopy_job_check(&command->job, memory_size) ||
	     (command->count && command->done >= command->count)))
		return false;
	if (!precopy_epf_possible(&state->epf))
		return false;
	return !(state->ctrl & PRECOPY_ENGINE_CTRL_RING) ||
	       precopy_engine_ring_possible(ring, memory_size);
}

static bool precopy_rec_clean(const struct precopy_rec_engine *rec)
{
	return !rec->reserved && !rec->ring.reserved && !rec->command.reserved &&
	       le32_to_cpu(rec->command.active) <= 1;
}

/* Return: 0 with all of @state set, or -EINVAL if no device can be in that state */
VISIBLE_IF_KUNIT int precopy_engine_parse(const struct precopy_rec_engine *rec,
					  u64 memory_size,
					  struct precopy_engine_state *state)
{
	if (!precopy_rec_clean(rec))
		return -EINVAL;
	precopy_engine_decode(rec, state);
	return precopy_engine_possible(state, memory_size) ? 0 : -EINVAL;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_engine_parse);

/* --- The saving side --------------------------------------------------- */

static struct precopy_save_part *
precopy_engine_save_alloc(struct precopy_session *session,
			  struct precopy_encoder *enc, bool stopped)
{
	struct precopy_engine_save *es = kzalloc_obj(*es, GFP_KERNEL_ACCOUNT);

	return es ? &es->part : NULL;
}

static void precopy_engine_save_free(struct precopy_save_part *part)
{
	kfree(to_engine_save(part));
}

static void precopy_engine_save_begin(struct precopy_save_part *part,
				      struct precopy_save_preface *preface)
{
	guard(spinlock)(&part->session->pcd->state_lock);
	to_engine_save(part)->sent = false;
}

static void precopy_engine_save_left(const struct precopy_save_part *part,
				     struct precopy_save_left *left)
{
	const struct precopy_engine_save *es =
		container_of_const(part, struct precopy_engine_save, part);

	if (!es->sent)
		left->tail = PRECOPY_ENGINE_LEN;
}

/*
 * Get the registers, if there is something to send.
 *
 * Return: 1, 0 if they are as after a reset, or -ENODEV if the session is over.
 */
static int precopy_engine_save_take(struct precopy_engine_save *es,
				    struct precopy_rec_engine *rec)
{
	static const struct precopy_engine_state initial =
		PRECOPY_ENGINE_STATE_INITIAL;
	struct precopy_rec_engine untouched;
	struct precopy_engine *engine;

	guard(spinlock)(&es->part.session->pcd->state_lock);
	engine = precopy_session_engine(es->part.session);
	if (!engine)
		return -ENODEV;
	precopy_engine_encode(&engine->state, rec);
	precopy_engine_encode(&initial, &untouched);
	if (memcmp(rec, &untouched, sizeof(untouched)))
		return 1;
	es->sent = true;
	return 0;
}

static ssize_t precopy_engine_save(struct precopy_save_part *part,
				   const struct precopy_save_request *request)
{
	struct precopy_engine_save *es = to_engine_save(part);
	int ret;

	if (request->stage != PRECOPY_STAGE_TAIL || es->sent)
		return 0;
	ret = precopy_engine_save_take(es, request->buf + PRECOPY_REC_HDR_LEN);
	if (ret <= 0)
		return ret;
	trace_precopy_save_record(precopy_dev(part->session->pcd),
				  PRECOPY_REC_ENGINE, 0,
				  sizeof(struct precopy_rec_engine));
	return precopy_encode_record(part->enc, request->buf, PRECOPY_REC_ENGINE,
				     0, sizeof(struct precopy_rec_engine));
}

static void precopy_engine_saved(struct precopy_save_part *part, size_t len)
{
	to_engine_save(part)->sent = true;
}

static u64 precopy_engine_estimate(struct precopy_device *pcd, bool stopped)
{
	return PRECOPY_ENGINE_LEN;
}

static const struct precopy_save_ops precopy_engine_save_ops = {
	.alloc		= precopy_engine_save_alloc,
	.free		= precopy_engine_save_free,
	.begin		= precopy_engine_save_begin,
	.left		= precopy_engine_save_left,
	.save		= precopy_engine_save,
	.saved		= precopy_engine_saved,
	.estimate	= precopy_engine_estimate,
};

/* --- The loading side -------------------------------------------------- */

/* The past of the target goes, and the stream of an untouched engine has no record */
static void precopy_engine_load_begin(struct precopy_session *session)
{
	struct precopy_engine *engine;

	guard(spinlock)(&session->pcd->state_lock);
	engine = precopy_session_engine(session);
	if (!engine)
		return;
	precopy_engine_clear(engine);
	engine->loaded = engine->state;
}

static int precopy_engine_load(struct precopy_session *session,
			       struct precopy_startup_part *part,
			       enum precopy_stream_event event,
			       const struct precopy_decoder *dec)
{
	struct precopy_engine_state state = {};
	struct precopy_engine *engine;

	if (event != PRECOPY_EV_SECTION || dec->offset ||
	    dec->nr_bytes != sizeof(struct precopy_rec_engine) ||
	    precopy_engine_parse(dec->payload, session->pcd->memory.size, &state)) {
		dev_err_ratelimited(precopy_dev(session->pcd),
				    "impossible registers of the engine in the stream\n");
		return -EINVAL;
	}
	guard(spinlock)(&session->pcd->state_lock);
	engine = precopy_session_engine(session);
	if (!engine)
		return -ENODEV;
	engine->loaded = state;
	return 0;
}

static void precopy_engine_load_commit(struct precopy_session *session)
{
	struct precopy_engine *engine = precopy_session_engine(session);

	engine->state = engine->loaded;
}

static const struct precopy_load_ops precopy_engine_load_ops = {
	.begin	= precopy_engine_load_begin,
	.load	= precopy_engine_load,
	.commit	= precopy_engine_load_commit,
};

static const struct precopy_section_record precopy_engine_record = {
	.type		= PRECOPY_REC_ENGINE,
	.max_len	= sizeof(struct precopy_rec_engine),
};

const struct precopy_section precopy_engine_section = {
	.name	= "engine",
	.save	= &precopy_engine_save_ops,
	.load	= &precopy_engine_load_ops,
	.record	= &precopy_engine_record,
};
