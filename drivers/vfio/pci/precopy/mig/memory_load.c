// SPDX-License-Identifier: GPL-2.0-only
/*
 * The memory's section of the stream, at the target. Data is stored as it comes;
 * mig/memory_startup.c allocates memory for it in the background.
 */

#include "mem/memory.h"
#include "memory_startup.h"
#include "precopy.h"
#include "section.h"
#include "session.h"

static void precopy_load_memory_begin(struct precopy_session *session)
{
	precopy_memory_discard(&session->pcd->memory);
}

static int precopy_load_memory_data(struct precopy_session *session,
				    struct precopy_startup_part *part,
				    const struct precopy_decoder *dec)
{
	int ret = precopy_memory_startup_unit(part, dec->offset);

	return ret ?: precopy_memory_copy_in(&session->pcd->memory,
					     session->generation, dec->offset,
					     dec->payload, dec->nr_bytes);
}

static int precopy_load_memory(struct precopy_session *session,
			       struct precopy_startup_part *part,
			       enum precopy_stream_event event,
			       const struct precopy_decoder *dec)
{
	if (event == PRECOPY_EV_DATA)
		return precopy_load_memory_data(session, part, dec);
	return precopy_memory_zero_in(&session->pcd->memory,
				      session->generation, dec->offset,
				      dec->nr_bytes);
}

static void precopy_load_memory_fail(struct precopy_session *session)
{
	precopy_memory_set_gate(&session->pcd->memory, PRECOPY_GATE_FAILED);
}

/* PREFACE has made the contents; from now on they are as any device's memory */
static void precopy_load_memory_commit(struct precopy_session *session)
{
	precopy_memory_load_end(&session->pcd->memory);
}

const struct precopy_load_ops precopy_memory_load_ops = {
	.begin		= precopy_load_memory_begin,
	.load		= precopy_load_memory,
	.fail		= precopy_load_memory_fail,
	.commit		= precopy_load_memory_commit,
};
