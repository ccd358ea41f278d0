// SPDX-License-Identifier: GPL-2.0-only
/*
 * The memory's section of the stream, at the target. PREFACE starts the startup,
 * which allocates memory in the background; data is stored as it comes.
 */

#include <linux/bitmap.h>

#include "mem/memory.h"
#include "precopy.h"
#include "section.h"
#include "session.h"
#include "startup.h"

static void precopy_load_memory_begin(struct precopy_session *session)
{
	precopy_memory_discard(&session->pcd->memory);
}

static int precopy_load_memory_preface(struct precopy_session *session,
				       struct precopy_startup *startup,
				       const struct precopy_decoder *dec)
{
	u32 unit;

	for (unit = 0; unit < dec->nr_units; unit++)
		__assign_bit(unit, startup->units,
			     precopy_decoder_unit_in_use(dec, unit));
	return precopy_startup_begin(startup, dec->bytes_in_use);
}

static int precopy_load_memory_data(struct precopy_session *session,
				    struct precopy_startup *startup,
				    const struct precopy_decoder *dec)
{
	int ret = precopy_startup_ready_unit(startup, dec->offset);

	return ret ?: precopy_memory_copy_in(&session->pcd->memory,
					     session->generation, dec->offset,
					     dec->payload, dec->nr_bytes);
}

static int precopy_load_memory(struct precopy_session *session,
			       struct precopy_startup *startup,
			       enum precopy_stream_event event,
			       const struct precopy_decoder *dec)
{
	if (event == PRECOPY_EV_DATA)
		return precopy_load_memory_data(session, startup, dec);
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
	.preface	= precopy_load_memory_preface,
	.load		= precopy_load_memory,
	.fail		= precopy_load_memory_fail,
	.commit		= precopy_load_memory_commit,
};
