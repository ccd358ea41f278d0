// SPDX-License-Identifier: GPL-2.0-only
/*
 * Making the stream of a saving session, a buffer at a time, in the order of
 * enum precopy_save_phase. The file header, PREFACE, INITIAL_END, STATE and END
 * are made here, all other records by the sections.
 */

#include "precopy.h"
#include "saving.h"
#include "trace.h"

/* @len new bytes are in the buffer, and the stream goes on with @phase */
static void precopy_save_produced(struct precopy_saving *saving, size_t len,
				  enum precopy_save_phase phase)
{
	guard(spinlock)(&saving->session.pcd->state_lock);
	saving->pos = 0;
	saving->len = len;
	saving->phase = phase;
	saving->buf_initial = phase <= PRECOPY_SAVE_LIVE;
}

static void precopy_save_trace(struct precopy_saving *saving, u16 type,
			       size_t len)
{
	trace_precopy_save_record(precopy_dev(saving->session.pcd), type, 0,
				  len);
}

static ssize_t precopy_save_ask(struct precopy_saving *saving,
				const struct precopy_save_request *request,
				struct precopy_save_part **from)
{
	struct precopy_save_part * const *part;
	ssize_t len;

	for (part = saving->parts; *part; part++) {
		*from = *part;
		len = (*part)->ops->save(*part, request);
		if (len)
			return len;
	}
	return 0;
}

/*
 * Have a section make a record behind the first @fill bytes of the buffer. Its
 * bytes move from the section's count to the buffer's in one section of
 * state_lock, so that no count misses them.
 *
 * Return: length of the record, 0 if no section has one for @stage, or an error.
 */
static ssize_t precopy_save_record(struct precopy_saving *saving,
				   enum precopy_save_stage stage, bool stopped,
				   size_t fill)
{
	struct precopy_save_request request = {
		.stage = stage,
		.stopped = stopped,
		.buf = saving->buf + fill,
		.room = PRECOPY_SAVE_BUF - fill,
	};
	struct precopy_save_part *part = NULL;
	ssize_t len = precopy_save_ask(saving, &request, &part);

	if (len <= 0)
		return len;
	guard(spinlock)(&saving->session.pcd->state_lock);
	part->ops->saved(part, len);
	saving->pos = 0;
	saving->len = fill + len;
	saving->buf_initial = stage == PRECOPY_STAGE_INITIAL;
	return len;
}

static int precopy_save_fill_preface(struct precopy_saving *saving)
{
	const struct precopy_save_preface *preface = &saving->preface;
	size_t len;

	len = precopy_encode_preface(&saving->enc, saving->buf,
				     preface->bytes_in_use, saving->startup_ns,
				     preface->units, preface->nr_units);
	precopy_save_trace(saving, PRECOPY_REC_PREFACE, len);
	precopy_save_produced(saving, len, PRECOPY_SAVE_INITIAL);
	return 1;
}

static int precopy_save_fill_initial(struct precopy_saving *saving)
{
	ssize_t len = precopy_save_record(saving, PRECOPY_STAGE_INITIAL,
					  READ_ONCE(saving->stopped), 0);

	if (len)
		return len < 0 ? len : 1;
	len = precopy_encode_record(&saving->enc, saving->buf,
				    PRECOPY_REC_INITIAL_END, 0, 0);
	precopy_save_trace(saving, PRECOPY_REC_INITIAL_END, 0);
	precopy_save_produced(saving, len, PRECOPY_SAVE_LIVE);
	return 1;
}

static int precopy_save_fill_dirty(struct precopy_saving *saving, bool stopped)
{
	size_t fill = 0;
	ssize_t ret;

	while (fill + PRECOPY_SECTION_ROOM <= PRECOPY_SAVE_BUF) {
		ret = precopy_save_record(saving, PRECOPY_STAGE_DIRTY, stopped,
					  fill);
		if (ret < 0)
			return ret;
		if (!ret)
			break;
		fill += ret;
	}
	return fill ? 1 : 0;
}

static int precopy_save_in_use(struct precopy_saving *saving, u64 *bytes)
{
	struct precopy_save_part * const *part;
	int ret = 0;

	guard(rwsem_read)(&saving->session.pcd->memory.sem);
	for (part = saving->parts; *part; part++) {
		if ((*part)->ops->in_use)
			ret = (*part)->ops->in_use(*part, bytes);
		if (ret)
			break;
	}
	return ret;
}

static int precopy_save_fill_state(struct precopy_saving *saving)
{
	u64 bytes = 0;
	size_t len;
	int ret;

	ret = precopy_save_in_use(saving, &bytes);
	if (ret)
		return ret;
	len = precopy_encode_state(&saving->enc, saving->buf, bytes);
	precopy_save_trace(saving, PRECOPY_REC_STATE, len);
	precopy_save_produced(saving, len, PRECOPY_SAVE_END);
	return 1;
}

static int precopy_save_fill_live(struct precopy_saving *saving)
{
	bool stopped;
	int ret;

	/* If the device was stopped meanwhile, ENOMSG would be wrong (R46) */
	do {
		stopped = READ_ONCE(saving->stopped);
		ret = precopy_save_fill_dirty(saving, stopped);
		if (ret)
			return ret;
	} while (stopped != READ_ONCE(saving->stopped));
	if (!stopped)
		return -ENOMSG;
	ret = precopy_save_record(saving, PRECOPY_STAGE_TAIL, stopped, 0);
	if (ret)
		return ret < 0 ? ret : 1;
	return precopy_save_fill_state(saving);
}

static int precopy_save_fill_end(struct precopy_saving *saving)
{
	size_t len = precopy_encode_end(&saving->enc, saving->buf);

	precopy_save_trace(saving, PRECOPY_REC_END, len);
	precopy_save_produced(saving, len, PRECOPY_SAVE_DONE);
	return 1;
}

/**
 * precopy_save_fill - fill the empty buffer with what comes next in the stream
 * @saving: the session, busy with the caller
 *
 * Context: may sleep; no lock of this driver held.
 * Return: 1 if there is something in it, 0 at the end of the stream, -ENOMSG
 * at its temporary end (rule R44), -ENODEV if the session is over, -EINTR
 * after a fatal signal.
 */
int precopy_save_fill(struct precopy_saving *saving)
{
	size_t len;

	switch (saving->phase) {
	case PRECOPY_SAVE_HEADER:
		len = precopy_encode_header(&saving->enc, saving->buf);
		precopy_save_produced(saving, len, PRECOPY_SAVE_PREFACE);
		return 1;
	case PRECOPY_SAVE_PREFACE:
		return precopy_save_fill_preface(saving);
	case PRECOPY_SAVE_INITIAL:
		return precopy_save_fill_initial(saving);
	case PRECOPY_SAVE_LIVE:
		return precopy_save_fill_live(saving);
	case PRECOPY_SAVE_END:
		return precopy_save_fill_end(saving);
	case PRECOPY_SAVE_DONE:
		break;
	}
	return 0;
}
