// SPDX-License-Identifier: GPL-2.0-only
/*
 * The section of the stream that has the address of BAR2: where peers reach the device.
 * Config space is the VMM's to restore, but not all VMMs write BARs at the target, and
 * then the engines of other devices would not find this one. The record is optional: a
 * reader that does not know it skips it, and the target has no window until its user
 * writes BAR2.
 */

#include <linux/slab.h>

#include "config.h"
#include "mig/section.h"
#include "mig/session.h"
#include "mig/trace.h"
#include "model.h"
#include "precopy.h"

struct precopy_rec_window {
	__le64 address;
} __packed;

#define PRECOPY_WINDOW_LEN	(PRECOPY_REC_HDR_LEN + sizeof(struct precopy_rec_window))

/**
 * struct precopy_window_save - the address of BAR2 in a saving session
 * @part: common part of all sections
 * @left: number of bytes of the record that are still to be sent; protected by
 *	  state_lock
 */
struct precopy_window_save {
	struct precopy_save_part	part;
	size_t				left;
};

static struct precopy_window_save *to_window_save(struct precopy_save_part *part)
{
	return container_of(part, struct precopy_window_save, part);
}

/* --- The saving side --------------------------------------------------- */

static struct precopy_save_part *
precopy_window_save_alloc(struct precopy_session *session,
			  struct precopy_encoder *enc, bool stopped)
{
	struct precopy_window_save *ws = kzalloc_obj(*ws, GFP_KERNEL_ACCOUNT);

	return ws ? &ws->part : NULL;
}

static void precopy_window_save_free(struct precopy_save_part *part)
{
	kfree(to_window_save(part));
}

static void precopy_window_save_begin(struct precopy_save_part *part,
				      struct precopy_save_preface *preface)
{
	struct precopy_device *pcd = part->session->pcd;
	bool any = precopy_config_bar(pcd);

	guard(spinlock)(&pcd->state_lock);
	to_window_save(part)->left = any ? PRECOPY_WINDOW_LEN : 0;
}

static void precopy_window_save_left(const struct precopy_save_part *part,
				     struct precopy_save_left *left)
{
	left->tail = container_of_const(part, struct precopy_window_save,
					part)->left;
}

/* The guest may have moved the BAR since the session began; to nowhere, too */
static ssize_t precopy_window_save(struct precopy_save_part *part,
				   const struct precopy_save_request *request)
{
	struct precopy_rec_window *rec = request->buf + PRECOPY_REC_HDR_LEN;
	struct precopy_device *pcd = part->session->pcd;

	if (request->stage != PRECOPY_STAGE_TAIL || !to_window_save(part)->left)
		return 0;
	scoped_guard(rwsem_read, &pcd->memory.sem)
		rec->address = cpu_to_le64(precopy_config_bar(pcd));
	trace_precopy_save_record(precopy_dev(pcd), PRECOPY_REC_WINDOW, 0,
				  sizeof(*rec));
	return precopy_encode_optional(part->enc, request->buf,
				       PRECOPY_REC_WINDOW, 0, sizeof(*rec));
}

static void precopy_window_saved(struct precopy_save_part *part, size_t len)
{
	to_window_save(part)->left = 0;
}

static u64 precopy_window_estimate(struct precopy_device *pcd, bool stopped)
{
	guard(rwsem_read)(&pcd->memory.sem);
	return precopy_config_bar(pcd) ? PRECOPY_WINDOW_LEN : 0;
}

static const struct precopy_save_ops precopy_window_save_ops = {
	.alloc		= precopy_window_save_alloc,
	.free		= precopy_window_save_free,
	.begin		= precopy_window_save_begin,
	.left		= precopy_window_save_left,
	.save		= precopy_window_save,
	.saved		= precopy_window_saved,
	.estimate	= precopy_window_estimate,
};

/* --- The loading side -------------------------------------------------- */

static void precopy_window_load_begin(struct precopy_session *session)
{
	session->pcd->config.loaded_bar = 0;
}

/* Return: 0, -EINVAL, or -ENODEV if the session is over */
static int precopy_window_load(struct precopy_session *session,
			       struct precopy_startup_part *part,
			       enum precopy_stream_event event,
			       const struct precopy_decoder *dec)
{
	const struct precopy_rec_window *rec = dec->payload;
	struct precopy_device *pcd = session->pcd;
	u64 address;

	address = dec->nr_bytes == sizeof(*rec) ? le64_to_cpu(rec->address) : 1;
	if (dec->offset || address & (pcd->memory.size - 1)) {
		dev_err_ratelimited(precopy_dev(pcd),
				    "impossible address of BAR2 in the stream\n");
		return -EINVAL;
	}
	guard(rwsem_write)(&pcd->memory.sem);
	if (pcd->generation != session->generation)
		return -ENODEV;
	pcd->config.loaded_bar = address;
	return 0;
}

static void precopy_window_load_commit(struct precopy_session *session)
{
	precopy_config_commit_bar(session->pcd);
}

static const struct precopy_load_ops precopy_window_load_ops = {
	.begin	= precopy_window_load_begin,
	.load	= precopy_window_load,
	.commit	= precopy_window_load_commit,
};

static const struct precopy_section_record precopy_window_record = {
	.type		= PRECOPY_REC_WINDOW,
	.max_len	= sizeof(struct precopy_rec_window),
	.optional	= true,
};

const struct precopy_section precopy_window_section = {
	.name	= "window",
	.save	= &precopy_window_save_ops,
	.load	= &precopy_window_load_ops,
	.record	= &precopy_window_record,
};
