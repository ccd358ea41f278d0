// SPDX-License-Identifier: GPL-2.0-only
/* The driver's own stream.c: what it makes of a stream, and what it would write. */
#include <errno.h>
#include <stdlib.h>

#include "fuzz.h"
#include "kshim.h"
#include "mig/stream.h"

#define MAX_BITMAP	(PRECOPY_MAX_UNITS / 8)

static const struct precopy_section_record engine_record = {
	.type = PRECOPY_REC_ENGINE, .max_len = ENGINE_LEN,
};

static const struct precopy_section_record window_record = {
	.type = PRECOPY_REC_WINDOW, .max_len = WINDOW_LEN, .optional = true,
};

/* Those of a device whose model is "engine"; of "memory" without the first */
static const struct precopy_section_record * const records[] = {
	&engine_record, &window_record, NULL,
};

struct reader {
	struct precopy_decoder dec;
	const struct fuzz_device *dev;
	struct outcome *out;
	const u8 *data;
	size_t len;
	u64 seed;
	bool barrier;		/* the next event must be INITIAL_END, or none */
};

static void params_of(struct precopy_stream_params *params,
		      const struct fuzz_device *dev)
{
	*params = (struct precopy_stream_params) {
		.vendor = dev->vendor,
		.device = dev->device,
		.backend = dev->backend,
		.features = dev->features,
		.memory_size = dev->memory_size,
	};
}

/* How many bytes the next piece has, of @max */
static size_t next_chunk(struct reader *r, size_t max)
{
	u64 n;

	if (r->seed <= 1)
		return r->seed ? 1 : max;
	n = fuzz_random(&r->seed);
	/* Short ones, up to a record, and anything */
	n = n >> 8 & (n & 3 ? n & 1 ? 31 : 4095 : 0xfffff);
	return min(n + 1, max);
}

/* The bitmap as it stands in the stream, asked for bit by bit */
static u32 bitmap_crc(const struct precopy_decoder *dec)
{
	u8 bytes[MAX_BITMAP] = {};
	u32 i;

	for (i = 0; i < dec->nr_units; i++)
		if (precopy_decoder_unit_in_use(dec, i))
			bytes[i / 8] |= 1 << i % 8;
	FUZZ_CHECK(!precopy_decoder_unit_in_use(dec, i), "a unit past the last");
	return fuzz_crc(bytes, (dec->nr_units + 63) / 64 * 8);
}

static void take_event(struct reader *r, u32 kind)
{
	struct precopy_decoder *dec = &r->dec;
	struct event ev = { .kind = kind, .end = r->out->used };

	FUZZ_CHECK(r->barrier == (kind == EV_INITIAL_END), "event %u", kind);
	switch (kind) {
	case EV_PREFACE:
		ev.startup_ns = dec->startup_ns;
		ev.crc = bitmap_crc(dec);
		ev.in_use = dec->bytes_in_use;
		break;
	case EV_STATE:
		ev.in_use = dec->bytes_in_use;
		break;
	case EV_DATA:
		pages_store(&r->out->memory, dec->offset, dec->payload,
			    dec->nr_bytes);
		ev.crc = fuzz_crc(dec->payload, dec->nr_bytes);
		ev.offset = dec->offset;
		ev.nr_bytes = dec->nr_bytes;
		break;
	case EV_ZERO:
		pages_zero(&r->out->memory, dec->offset, dec->nr_bytes);
		ev.offset = dec->offset;
		ev.nr_bytes = dec->nr_bytes;
		break;
	case EV_SECTION:
		FUZZ_CHECK(dec->section == &engine_record || dec->section == &window_record,
			   "another section");
		ev.crc = fuzz_crc(dec->payload, dec->nr_bytes);
		ev.offset = dec->offset;
		ev.nr_bytes = dec->nr_bytes;
		break;
	}
	outcome_add(r->out, &ev);
}

/* A failure is for ever, and has a cause */
static void check_stuck(struct precopy_decoder *dec, int err)
{
	void *dst = dec;

	FUZZ_CHECK(err == -EINVAL || err == -EOPNOTSUPP, "error %d", err);
	FUZZ_CHECK(!precopy_decoder_want(dec, &dst) && !dst, "after an error");
	FUZZ_CHECK(precopy_decoder_advance(dec, 0) == err, "after an error");
	FUZZ_CHECK(precopy_decoder_advance(dec, 1) == err, "after an error");
	FUZZ_CHECK(!precopy_decoder_complete(dec), "after an error");
	FUZZ_CHECK(!precopy_decoder_at_barrier(dec, 1), "after an error");
	FUZZ_CHECK(dec->error && *dec->error, "after an error");
}

/* Only the two places that are meant for it are ever to be written to */
static void check_room(struct precopy_decoder *dec, const u8 *dst, size_t want)
{
	const u8 *head = dec->head.bytes, *buf = dec->buf;

	FUZZ_CHECK((dst >= head && dst + want <= head + sizeof(dec->head)) ||
		   (dst >= buf && dst + want <= buf + PRECOPY_DECODE_BUF),
		   "%zu bytes wanted where there is no room", want);
}

/* INITIAL_END is announced when its header is there and not told of yet */
static void check_barrier(struct reader *r, size_t n)
{
	u64 end = r->out->used + n;
	bool barrier = precopy_decoder_at_barrier(&r->dec, n);

	if (barrier)
		FUZZ_CHECK(end >= REC_HDR_LEN && r->data[end - 24] == 4 &&
			   !r->data[end - 23], "a barrier that is none");
	r->barrier = barrier;
}

/* One step. Returns an event, 0, or an error. */
static int step(struct reader *r, size_t max)
{
	u64 pos = r->out->used;
	size_t n, want;
	void *dst;

	want = precopy_decoder_want(&r->dec, &dst);
	if (!want) {
		FUZZ_CHECK(precopy_decoder_complete(&r->dec), "nothing wanted");
		r->out->complete = false;
		return precopy_decoder_advance(&r->dec, 1);
	}
	check_room(&r->dec, dst, want);
	n = min(want, max);
	memcpy(dst, r->data + pos, n);
	check_barrier(r, n);
	r->out->used += n;
	return precopy_decoder_advance(&r->dec, n);
}

/* The decoder does not know the contents of a section; who does may refuse them */
static bool section_good(const struct reader *r)
{
	u64 address;

	if (r->dec.offset || r->dec.nr_bytes != r->dec.section->max_len)
		return false;
	if (r->dec.section == &engine_record)
		return target_engine_good(r->dev, r->dec.payload);
	memcpy(&address, r->dec.payload, sizeof(address));
	return !(address & (r->dev->memory_size - 1));
}

static void read_all(struct reader *r)
{
	struct outcome *out = r->out;
	size_t chunk = 0;
	u64 before;
	int ret = 0;

	while (ret >= 0 && out->used < r->len) {
		if (!chunk)
			chunk = next_chunk(r, r->len - out->used);
		before = out->used;
		ret = step(r, chunk);
		chunk -= out->used - before;
		if (ret == EV_SECTION && !section_good(r)) {
			out->refused = REFUSED_INVAL;
			return;
		}
		if (ret > 0)
			take_event(r, ret);
		if (ret >= 0)
			out->complete = precopy_decoder_complete(&r->dec);
	}
	if (ret < 0) {
		check_stuck(&r->dec, ret);
		out->refused = ret == -EINVAL ? REFUSED_INVAL : REFUSED_NOTSUPP;
	}
}

void driver_decode(const struct fuzz_device *dev, const u8 *data, size_t len,
		   u64 seed, struct outcome *out)
{
	struct precopy_stream_params params;
	struct reader *r = calloc(1, sizeof(*r));
	static u8 *buf;

	/* At an odd address, and nothing behind it */
	if (!buf)
		buf = malloc(PRECOPY_DECODE_BUF + 1);
	memset(buf, 0xa5, 64);
	params_of(&params, dev);
	*r = (struct reader) {
		.dev = dev, .out = out, .data = data, .len = len, .seed = seed,
	};
	precopy_decoder_init(&r->dec, &params, buf + 1);
	precopy_decoder_accept(&r->dec, records + !(dev->features & FEATURE_ENGINE));
	read_all(r);
	free(r);
}

/* --- Encoding --------------------------------------------------------------- */

static size_t encode_preface(struct precopy_encoder *enc, u8 *buf,
			     const struct event *ev, const u8 *record)
{
	u32 nr_units = precopy_stream_units(enc->params.memory_size);
	unsigned long bitmap[PRECOPY_MAX_UNITS / BITS_PER_LONG];

	/* What is behind the last unit must not matter */
	memset(bitmap, 0xff, sizeof(bitmap));
	memcpy(bitmap, record + REC_HDR_LEN + 24, (nr_units + 7) / 8);
	if (nr_units % 8)
		((u8 *)bitmap)[nr_units / 8] |= 0xff << nr_units % 8;
	return precopy_encode_preface(enc, buf, ev->in_use, ev->startup_ns,
				      bitmap, nr_units);
}

static size_t encode(struct precopy_encoder *enc, u8 *buf,
		     const struct event *ev, const u8 *record)
{
	switch (ev->kind) {
	case EV_HEADER:
		return precopy_encode_header(enc, buf);
	case EV_PREFACE:
		return encode_preface(enc, buf, ev, record);
	case EV_DATA:
		memcpy(buf + REC_HDR_LEN, record + REC_HDR_LEN, ev->nr_bytes);
		return precopy_encode_record(enc, buf, PRECOPY_REC_DATA,
					     ev->offset, ev->nr_bytes);
	case EV_ZERO:
		return precopy_encode_zero(enc, buf, ev->offset, ev->nr_bytes);
	case EV_INITIAL_END:
		return precopy_encode_record(enc, buf, PRECOPY_REC_INITIAL_END,
					     0, 0);
	case EV_STATE:
		return precopy_encode_state(enc, buf, ev->in_use);
	case EV_SECTION:
		memcpy(buf + REC_HDR_LEN, record + REC_HDR_LEN, ev->nr_bytes);
		if (ev->nr_bytes == WINDOW_LEN)
			return precopy_encode_optional(enc, buf, PRECOPY_REC_WINDOW,
						       0, ev->nr_bytes);
		return precopy_encode_record(enc, buf, PRECOPY_REC_ENGINE, 0,
					     ev->nr_bytes);
	default:
		return precopy_encode_end(enc, buf);
	}
}

/*
 * There is one way only to write a stream: what was read, once written, is
 * the same bytes. Up to the first thing that the encoder does not know.
 */
void driver_encode(const struct fuzz_device *dev, const struct outcome *decoded,
		   const u8 *data, size_t len)
{
	struct precopy_stream_params params;
	struct precopy_encoder enc;
	const struct event *ev;
	static u8 *buf;
	u64 pos = 0;
	size_t i, n;

	if (!buf)
		buf = malloc(REC_HDR_LEN + PRECOPY_MAX_DATA);
	params_of(&params, dev);
	precopy_encoder_init(&enc, &params);
	for (i = 0; i < decoded->nr_events; i++, pos = ev->end) {
		ev = &decoded->events[i];
		if (ev->kind == EV_SKIPPED)
			break;
		n = encode(&enc, buf, ev, data + pos);
		/* Another minor version, or optional features */
		if (ev->kind == EV_HEADER && memcmp(buf, data, FILE_HDR_LEN))
			break;
		FUZZ_CHECK(n == ev->end - pos && ev->end <= len &&
			   !memcmp(buf, data + pos, n),
			   "record %zu is not as the encoder writes it", i);
	}
}
