// SPDX-License-Identifier: GPL-2.0-only
/*
 * Wire format: golden streams, every split, every truncation, every bit flip,
 * every order of records, and every bound.
 */
#include <linux/bitmap.h>
#include <linux/crc32.h>
#include <linux/errno.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/unaligned.h>
#include <kunit/test.h>

#include "../func/engine.h"
#include "../mig/stream.h"
#include "stream_golden.h"

#define MAX_EVENTS	16
#define BUILD_SIZE	SZ_1M
#define DATA_SIZE	4096

/* The device that the golden streams come from. */
static const struct precopy_stream_params golden_params = {
	.vendor = 0x1b36,
	.device = 0x0005,
	.backend = PRECOPY_BACKEND_RAM,
	.memory_size = SZ_8M,
};

/* The same with the model "engine" */
static const struct precopy_stream_params golden_engine_params = {
	.vendor = 0x1b36,
	.device = 0x0005,
	.backend = PRECOPY_BACKEND_RAM,
	.features = PRECOPY_FEATURE_ENGINE,
	.memory_size = SZ_8M,
};

static const struct precopy_section_record golden_engine_record = {
	.type = PRECOPY_REC_ENGINE, .max_len = GOLDEN_ENGINE_LEN,
};

static const struct precopy_section_record * const golden_engine_records[] = {
	&golden_engine_record, NULL,
};

/* An event and what the decoder said with it; @end: bytes consumed by then. */
struct stream_ev {
	u32 event;
	u32 end;
	u64 offset;
	u64 nr_bytes;
	u64 in_use;
	u64 startup_ns;
	u32 units;
	u32 payload_crc;
};

static const struct stream_ev golden_v1_0_events[] = {
	{ PRECOPY_EV_HEADER, 64 },
	{ PRECOPY_EV_PREFACE, 120, .in_use = 0x201000, .startup_ns = 1234567890, .units = 0x5 },
	{ PRECOPY_EV_DATA, 4240, .offset = 0x1000, .nr_bytes = 4096, .payload_crc = 0x8e059cd8 },
	{ PRECOPY_EV_ZERO, 4272, .offset = 0x400000, .nr_bytes = 0x200000 },
	{ PRECOPY_EV_INITIAL_END, 4296 },
	{ PRECOPY_EV_ZERO, 4328, .offset = 0x7ff000, .nr_bytes = 0x1000 },
	{ PRECOPY_EV_STATE, 4360, .in_use = 0x202000 },
	{ PRECOPY_EV_END, 4400 },
};

static const struct stream_ev golden_v1_1_events[] = {
	{ PRECOPY_EV_HEADER, 64 },
	{ PRECOPY_EV_PREFACE, 120, .in_use = 0x200000, .startup_ns = 1000000, .units = 0x2 },
	{ PRECOPY_EV_INITIAL_END, 144 },
	{ PRECOPY_EV_ZERO, 176, .offset = 0x200000, .nr_bytes = 0x200000 },
	{ PRECOPY_EV_SECTION, 448, .nr_bytes = 248, .payload_crc = 0xcb5cca09 },
	{ PRECOPY_EV_STATE, 480, .in_use = 0x200000 },
	{ PRECOPY_EV_END, 520 },
};

static const struct stream_ev golden_v1_7_events[] = {
	{ PRECOPY_EV_HEADER, 76 },
	{ PRECOPY_EV_SKIPPED, 105 },
	{ PRECOPY_EV_PREFACE, 161 },
	{ PRECOPY_EV_INITIAL_END, 185 },
	{ PRECOPY_EV_PREFACE, 241, .in_use = 0x800000, .startup_ns = U64_MAX, .units = 0xf },
	{ PRECOPY_EV_SKIPPED, 265 },
	{ PRECOPY_EV_ZERO, 297, .offset = 0, .nr_bytes = 0x800000 },
	{ PRECOPY_EV_INITIAL_END, 321 },
	{ PRECOPY_EV_STATE, 353, .in_use = 0x800000 },
	{ PRECOPY_EV_SKIPPED, 378 },
	{ PRECOPY_EV_END, 418 },
};

struct golden {
	const char *desc;
	const u8 *bytes;
	u32 len;
	const struct stream_ev *events;
	u32 nr_events;
	const struct precopy_stream_params *params;
};

/* One decoding: what went in and what came out. */
struct run {
	struct precopy_decoder dec;
	void *buf;
	u32 fed;
	int ret;
	u32 nr_ev;
	struct stream_ev ev[MAX_EVENTS];
};

/* A stream under construction; may be as wrong as a test likes. */
struct build {
	u8 *buf;
	u32 len;
	u64 nr_records;
	u32 chain;
};

struct stream_test {
	struct run run;
	struct build build;
	struct golden golden[3];
	u8 *payload;
};

static u32 test_crc(const void *p, size_t len)
{
	return ~crc32c(~0U, p, len);
}

static u32 test_random(u32 *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

/* Decoding */

static void run_start(struct run *run, const struct precopy_stream_params *params)
{
	precopy_decoder_init(&run->dec, params, run->buf);
	run->fed = 0;
	run->ret = 0;
	run->nr_ev = 0;
	memset(run->ev, 0, sizeof(run->ev));
}

/* For a stream of this device: each model knows the records of its own sections */
static void run_start_golden(struct run *run, const struct golden *g)
{
	run_start(run, g->params);
	if (g->params->features)
		precopy_decoder_accept(&run->dec, golden_engine_records);
}

static void run_record(struct run *run, u32 event)
{
	struct stream_ev *ev = &run->ev[min(run->nr_ev++, MAX_EVENTS - 1)];
	struct precopy_decoder *dec = &run->dec;
	u32 i;

	*ev = (struct stream_ev) { .event = event, .end = run->fed };
	switch (event) {
	case PRECOPY_EV_PREFACE:
		ev->startup_ns = dec->startup_ns;
		for (i = 0; i < min(dec->nr_units, 32); i++)
			ev->units |= precopy_decoder_unit_in_use(dec, i) << i;
		fallthrough;
	case PRECOPY_EV_STATE:
		ev->in_use = dec->bytes_in_use;
		break;
	case PRECOPY_EV_DATA:
	case PRECOPY_EV_SECTION:
		ev->payload_crc = test_crc(dec->payload, dec->nr_bytes);
		fallthrough;
	case PRECOPY_EV_ZERO:
		ev->offset = dec->offset;
		ev->nr_bytes = dec->nr_bytes;
		break;
	}
}

/* Takes one step; returns how many of the @len bytes it used. */
static u32 run_step(struct run *run, const u8 *bytes, u32 len)
{
	void *dst;
	u32 n = min(precopy_decoder_want(&run->dec, &dst), len);
	int ret;

	if (n)
		memcpy(dst, bytes, n);
	/* Nothing is wanted, yet there is more: let the decoder object. */
	ret = precopy_decoder_advance(&run->dec, n ?: 1);
	run->fed += n;
	if (ret > 0)
		run_record(run, ret);
	else
		run->ret = ret;
	return n;
}

static void run_feed(struct run *run, const u8 *bytes, u32 len)
{
	u32 n;

	for (; len && !run->ret; bytes += n, len -= n)
		n = run_step(run, bytes, len);
}

static bool run_complete(const struct run *run)
{
	return !run->ret && precopy_decoder_complete(&run->dec);
}

static bool run_matches(const struct run *run, const struct golden *g)
{
	return run_complete(run) && run->nr_ev == g->nr_events &&
	       !memcmp(run->ev, g->events, g->nr_events * sizeof(*g->events));
}

/* After a failure nothing may bring the decoder back. */
static void expect_stuck(struct kunit *test, struct run *run, int err)
{
	void *dst = run;

	KUNIT_EXPECT_EQ(test, run->ret, err);
	KUNIT_EXPECT_EQ(test, precopy_decoder_want(&run->dec, &dst), 0);
	KUNIT_EXPECT_NULL(test, dst);
	KUNIT_EXPECT_EQ(test, precopy_decoder_advance(&run->dec, 0), err);
	KUNIT_EXPECT_EQ(test, precopy_decoder_advance(&run->dec, 1), err);
	KUNIT_EXPECT_NOT_NULL(test, run->dec.error);
	KUNIT_EXPECT_FALSE(test, precopy_decoder_complete(&run->dec));
}

/* Building */

/* Puts the CRC of a header into its last four bytes. */
static void seal(void *hdr, u32 len)
{
	put_unaligned_le32(0, hdr + len - 4);
	put_unaligned_le32(test_crc(hdr, len), hdr + len - 4);
}

static void build_chain(struct build *b, const void *hdr, u32 len)
{
	b->chain = crc32c(b->chain, hdr + len - 4, 4);
}

static void build_file(struct build *b, const void *hdr)
{
	memcpy(b->buf, hdr, PRECOPY_FILE_HDR_LEN);
	seal(b->buf, PRECOPY_FILE_HDR_LEN);
	b->len = PRECOPY_FILE_HDR_LEN;
	b->nr_records = 0;
	b->chain = ~0U;
	build_chain(b, b->buf, PRECOPY_FILE_HDR_LEN);
}

static void build_rec_hdr(struct build *b, u16 type, u16 flags, u64 offset,
			  u32 len, u32 payload_crc)
{
	u8 *hdr = b->buf + b->len;

	put_unaligned_le16(type, hdr);
	put_unaligned_le16(flags, hdr + 2);
	put_unaligned_le32(len, hdr + 4);
	put_unaligned_le64(offset, hdr + 8);
	put_unaligned_le32(payload_crc, hdr + 16);
	seal(hdr, PRECOPY_REC_HDR_LEN);
	b->len += PRECOPY_REC_HDR_LEN;
	b->nr_records++;
	build_chain(b, hdr, PRECOPY_REC_HDR_LEN);
}

static void build_rec(struct build *b, u16 type, u16 flags, u64 offset,
		      const void *payload, u32 len)
{
	build_rec_hdr(b, type, flags, offset, len, test_crc(payload, len));
	memcpy(b->buf + b->len, payload, len);
	b->len += len;
}

static void build_words(struct build *b, u16 type, u64 offset, u32 len,
			u64 w0, u64 w1, u64 w2, u64 w3)
{
	u8 payload[4 * sizeof(u64)];

	put_unaligned_le64(w0, payload);
	put_unaligned_le64(w1, payload + 8);
	put_unaligned_le64(w2, payload + 16);
	put_unaligned_le64(w3, payload + 24);
	build_rec(b, type, PRECOPY_REC_MANDATORY, offset, payload, len);
}

/* A good record of a known type, of a device like the golden one. */
static void build_good(struct stream_test *st, u16 type)
{
	struct build *b = &st->build;

	switch (type) {
	case PRECOPY_REC_PREFACE:
		build_words(b, type, 0, 32, SZ_2M, 5, 4, 0x8);
		break;
	case PRECOPY_REC_DATA:
		build_rec(b, type, PRECOPY_REC_MANDATORY, 0, st->payload, DATA_SIZE);
		break;
	case PRECOPY_REC_ZERO:
		build_words(b, type, SZ_4K, 8, SZ_8M - SZ_4K, 0, 0, 0);
		break;
	case PRECOPY_REC_STATE:
		build_words(b, type, 0, 8, SZ_8M, 0, 0, 0);
		break;
	case PRECOPY_REC_END:
		build_words(b, type, 0, 16, b->nr_records, (u32)~b->chain, 0, 0);
		break;
	default:
		build_words(b, type, 0, 0, 0, 0, 0, 0);
	}
}

enum place { AT_OPEN, AT_INITIAL, AT_DELTA, AT_STATE };

/* Everything that comes before a place in the order of records. */
static void build_prefix(struct stream_test *st, enum place place)
{
	build_file(&st->build, golden_v1_0_head);
	if (place >= AT_INITIAL)
		build_good(st, PRECOPY_REC_PREFACE);
	if (place >= AT_DELTA)
		build_good(st, PRECOPY_REC_INITIAL_END);
	if (place >= AT_STATE)
		build_good(st, PRECOPY_REC_STATE);
}

static void build_rest(struct stream_test *st, enum place place)
{
	if (place <= AT_OPEN)
		build_good(st, PRECOPY_REC_PREFACE);
	if (place <= AT_INITIAL)
		build_good(st, PRECOPY_REC_INITIAL_END);
	if (place <= AT_DELTA)
		build_good(st, PRECOPY_REC_STATE);
	build_good(st, PRECOPY_REC_END);
}

static void run_build(struct stream_test *st)
{
	run_start(&st->run, &golden_params);
	run_feed(&st->run, st->build.buf, st->build.len);
}

/* Golden streams */

static const u32 golden_param[] = { 0, 1, 2 };

KUNIT_ARRAY_PARAM(golden, golden_param, NULL);

static const struct golden *param_golden(struct kunit *test)
{
	struct stream_test *st = test->priv;

	return &st->golden[*(const u32 *)test->param_value];
}

static void stream_golden_decode(struct kunit *test)
{
	const struct golden *g = param_golden(test);
	struct stream_test *st = test->priv;
	u32 i;

	run_start_golden(&st->run, g);
	run_feed(&st->run, g->bytes, g->len);
	KUNIT_EXPECT_EQ(test, st->run.ret, 0);
	KUNIT_EXPECT_NULL(test, st->run.dec.error);
	KUNIT_EXPECT_EQ(test, st->run.fed, g->len);
	KUNIT_ASSERT_EQ(test, st->run.nr_ev, g->nr_events);
	for (i = 0; i < g->nr_events; i++)
		KUNIT_EXPECT_MEMEQ(test, &st->run.ev[i], &g->events[i],
				   sizeof(g->events[i]));
	KUNIT_EXPECT_TRUE(test, precopy_decoder_complete(&st->run.dec));
}

static void stream_golden_version(struct kunit *test)
{
	struct stream_test *st = test->priv;

	run_start(&st->run, &golden_params);
	run_feed(&st->run, golden_v1_7, sizeof(golden_v1_7));
	KUNIT_EXPECT_EQ(test, st->run.dec.major, 1);
	KUNIT_EXPECT_EQ(test, st->run.dec.minor, 7);

	run_start(&st->run, &golden_engine_params);
	run_feed(&st->run, golden_v1_1, PRECOPY_FILE_HDR_LEN);
	KUNIT_EXPECT_EQ(test, st->run.dec.major, 1);
	KUNIT_EXPECT_EQ(test, st->run.dec.minor, 1);
}

static void stream_golden_encode(struct kunit *test)
{
	struct stream_test *st = test->priv;
	unsigned long bitmap[] = { ~0xfUL | 0x5 };
	struct golden *g = &st->golden[0];
	struct precopy_encoder enc;
	u8 *p = st->build.buf;

	precopy_encoder_init(&enc, &golden_params);
	p += precopy_encode_header(&enc, p);
	p += precopy_encode_preface(&enc, p, 0x201000, 1234567890, bitmap, 4);
	memcpy(p + PRECOPY_REC_HDR_LEN, g->bytes + sizeof(golden_v1_0_head), DATA_SIZE);
	p += precopy_encode_record(&enc, p, PRECOPY_REC_DATA, 0x1000, DATA_SIZE);
	p += precopy_encode_zero(&enc, p, 0x400000, 0x200000);
	p += precopy_encode_record(&enc, p, PRECOPY_REC_INITIAL_END, 0, 0);
	p += precopy_encode_zero(&enc, p, 0x7ff000, 0x1000);
	p += precopy_encode_state(&enc, p, 0x202000);
	KUNIT_EXPECT_EQ(test, enc.nr_records, 6);
	p += precopy_encode_end(&enc, p);

	KUNIT_ASSERT_EQ(test, p - st->build.buf, g->len);
	KUNIT_EXPECT_MEMEQ(test, st->build.buf, g->bytes, g->len);
}

/* Only a stream with a feature is of minor version 1 */
static void stream_golden_encode_engine(struct kunit *test)
{
	struct stream_test *st = test->priv;
	unsigned long bitmap[] = { 0x2 };
	struct precopy_encoder enc;
	u8 *p = st->build.buf;

	precopy_encoder_init(&enc, &golden_engine_params);
	p += precopy_encode_header(&enc, p);
	p += precopy_encode_preface(&enc, p, 0x200000, 1000000, bitmap, 4);
	p += precopy_encode_record(&enc, p, PRECOPY_REC_INITIAL_END, 0, 0);
	p += precopy_encode_zero(&enc, p, 0x200000, 0x200000);
	memcpy(p + PRECOPY_REC_HDR_LEN, golden_v1_1 + GOLDEN_V1_1_ENGINE,
	       GOLDEN_ENGINE_LEN);
	p += precopy_encode_record(&enc, p, PRECOPY_REC_ENGINE, 0, GOLDEN_ENGINE_LEN);
	p += precopy_encode_state(&enc, p, 0x200000);
	p += precopy_encode_end(&enc, p);

	KUNIT_ASSERT_EQ(test, p - st->build.buf, sizeof(golden_v1_1));
	KUNIT_EXPECT_MEMEQ(test, st->build.buf, golden_v1_1, sizeof(golden_v1_1));
}

/* The released stream of an engine is decoded, and encoded to the same bytes */
static void stream_golden_engine(struct kunit *test)
{
	struct precopy_engine_state state;
	u8 rec[GOLDEN_ENGINE_LEN];

	KUNIT_ASSERT_EQ(test, 0, precopy_engine_parse((void *)(golden_v1_1 + GOLDEN_V1_1_ENGINE),
						      golden_engine_params.memory_size,
						      &state));
	KUNIT_EXPECT_EQ(test, state.ring.job.pos, 0x1000);
	KUNIT_EXPECT_EQ(test, state.command.done, 42);
	KUNIT_EXPECT_EQ(test, state.epf.pos, 0x2ff0);
	precopy_engine_encode(&state, (void *)rec);
	KUNIT_EXPECT_MEMEQ(test, rec, golden_v1_1 + GOLDEN_V1_1_ENGINE, sizeof(rec));
}

/* Each model refuses the streams of the other, and says that it is that */
static void stream_another_model(struct kunit *test)
{
	struct stream_test *st = test->priv;
	const struct golden *g;

	for (g = st->golden; g < st->golden + ARRAY_SIZE(st->golden); g++) {
		run_start(&st->run, g->params->features ? &golden_params :
							  &golden_engine_params);
		run_feed(&st->run, g->bytes, g->len);
		expect_stuck(test, &st->run, -EINVAL);
		KUNIT_EXPECT_EQ(test, st->run.fed, PRECOPY_FILE_HDR_LEN);
		KUNIT_EXPECT_STREQ(test, st->run.dec.error, "another model of device");
	}
}

/* A device that does not know the record, as one of version 1.0, cannot load it */
static void stream_engine_unknown(struct kunit *test)
{
	struct stream_test *st = test->priv;

	run_start(&st->run, &golden_engine_params);
	run_feed(&st->run, golden_v1_1, sizeof(golden_v1_1));
	expect_stuck(test, &st->run, -EOPNOTSUPP);
	KUNIT_EXPECT_EQ(test, st->run.fed, GOLDEN_V1_1_ENGINE);
}

/* A caller may hand over any number of bytes at a time. */
static void stream_split_bytes(struct kunit *test)
{
	const struct golden *g = param_golden(test);
	struct stream_test *st = test->priv;
	u32 i;

	run_start_golden(&st->run, g);
	for (i = 0; i < g->len; i++) {
		KUNIT_ASSERT_FALSE(test, precopy_decoder_complete(&st->run.dec));
		run_feed(&st->run, g->bytes + i, 1);
	}
	KUNIT_EXPECT_TRUE(test, run_matches(&st->run, g));
}

static void stream_split_two(struct kunit *test)
{
	const struct golden *g = param_golden(test);
	struct stream_test *st = test->priv;
	u32 i;

	for (i = 0; i <= g->len; i++) {
		run_start_golden(&st->run, g);
		run_feed(&st->run, g->bytes, i);
		KUNIT_ASSERT_EQ(test, run_complete(&st->run), i == g->len);
		run_feed(&st->run, g->bytes + i, g->len - i);
		KUNIT_ASSERT_TRUE_MSG(test, run_matches(&st->run, g), "split at %u", i);
		cond_resched();
	}
}

static void stream_split_random(struct kunit *test)
{
	const struct golden *g = param_golden(test);
	struct stream_test *st = test->priv;
	u32 i, n, pos, seed = 1;

	for (i = 0; i < 500; i++) {
		run_start_golden(&st->run, g);
		for (pos = 0; pos < g->len; pos += n) {
			n = min(test_random(&seed) % 97, g->len - pos);
			run_feed(&st->run, g->bytes + pos, n);
		}
		KUNIT_ASSERT_TRUE_MSG(test, run_matches(&st->run, g), "round %u", i);
	}
}

/* A cut stream raises no error yet, but it is never complete. */
static void stream_truncated(struct kunit *test)
{
	const struct golden *g = param_golden(test);
	struct stream_test *st = test->priv;
	u32 len;

	for (len = 0; len < g->len; len++) {
		run_start_golden(&st->run, g);
		run_feed(&st->run, g->bytes, len);
		KUNIT_ASSERT_EQ(test, st->run.ret, 0);
		KUNIT_ASSERT_FALSE_MSG(test, run_complete(&st->run), "cut at %u", len);
		KUNIT_ASSERT_LT(test, st->run.nr_ev, g->nr_events);
		cond_resched();
	}
}

static void stream_bit_flips(struct kunit *test)
{
	const struct golden *g = param_golden(test);
	struct stream_test *st = test->priv;
	u8 *copy = st->build.buf;
	u32 bit;

	memcpy(copy, g->bytes, g->len);
	for (bit = 0; bit < g->len * 8; bit++) {
		copy[bit / 8] ^= BIT(bit % 8);
		run_start_golden(&st->run, g);
		run_feed(&st->run, copy, g->len);
		copy[bit / 8] ^= BIT(bit % 8);
		KUNIT_ASSERT_LT_MSG(test, st->run.ret, 0, "bit %u of byte %u is not checked",
				    bit % 8, bit / 8);
		KUNIT_ASSERT_FALSE(test, precopy_decoder_complete(&st->run.dec));
		cond_resched();
	}
}

static void stream_trailing(struct kunit *test)
{
	const struct golden *g = param_golden(test);
	struct stream_test *st = test->priv;
	u8 junk = 0;
	void *dst;

	run_start_golden(&st->run, g);
	run_feed(&st->run, g->bytes, g->len);
	KUNIT_EXPECT_EQ(test, precopy_decoder_want(&st->run.dec, &dst), 0);
	KUNIT_EXPECT_NULL(test, dst);
	KUNIT_EXPECT_EQ(test, precopy_decoder_advance(&st->run.dec, 0), 0);
	KUNIT_EXPECT_TRUE(test, precopy_decoder_complete(&st->run.dec));
	run_feed(&st->run, &junk, 1);
	expect_stuck(test, &st->run, -EINVAL);
}

/* A caller that stores more than was wanted does not get away with it. */
static void stream_overrun(struct kunit *test)
{
	struct stream_test *st = test->priv;
	struct precopy_decoder *dec = &st->run.dec;
	void *dst;

	run_start(&st->run, &golden_params);
	KUNIT_ASSERT_EQ(test, precopy_decoder_want(dec, &dst), PRECOPY_FILE_HDR_LEN);
	memcpy(dst, golden_v1_0_head, PRECOPY_FILE_HDR_LEN);
	st->run.ret = precopy_decoder_advance(dec, PRECOPY_FILE_HDR_LEN + 1);
	expect_stuck(test, &st->run, -EINVAL);
}

/* File header */

struct hdr_case {
	const char *desc;
	u32 at;
	u32 width;
	u64 value;
	int err;
	const char *why;
};

static const struct hdr_case hdr_cases[] = {
	{ "nothing changed", 0, 1, 'V', 0 },
	{ "magic", 7, 1, 'c', -EINVAL },
	{ "major 0", 8, 2, 0, -EOPNOTSUPP },
	{ "major 2", 8, 2, 2, -EOPNOTSUPP },
	{ "major 0x101", 8, 2, 0x101, -EOPNOTSUPP },
	{ "minor 1", 10, 2, 1, 0 },
	{ "minor 0xffff", 10, 2, 0xffff, 0 },
	{ "header length 0", 12, 4, 0, -EINVAL },
	{ "header length 63", 12, 4, 63, -EINVAL },
	{ "header length 68 in 1.0", 12, 4, 68, -EINVAL },
	{ "header length 2^32-1", 12, 4, U32_MAX, -EINVAL },
	{ "required feature 0", 16, 4, BIT(0), -EINVAL, "another model of device" },
	{ "required feature 1", 16, 4, BIT(1), -EOPNOTSUPP, "unknown required feature" },
	{ "required feature 31", 16, 4, BIT(31), -EOPNOTSUPP, "unknown required feature" },
	{ "required features 0 and 1", 16, 4, BIT(0) | BIT(1), -EOPNOTSUPP,
	  "unknown required feature" },
	{ "optional features", 20, 4, U32_MAX, 0 },
	{ "vendor", 24, 2, 0x8086, -EINVAL },
	{ "device", 26, 2, 0x0006, -EINVAL },
	{ "backend 0", 28, 4, 0, -EINVAL },
	{ "backend 2", 28, 4, 2, -EINVAL },
	{ "page size", 32, 4, SZ_16K, -EINVAL },
	{ "unit size", 36, 4, SZ_1M, -EINVAL },
	{ "memory size half", 40, 8, SZ_4M, -EINVAL },
	{ "memory size double", 40, 8, SZ_16M, -EINVAL },
	{ "memory size + 4 GiB", 40, 8, SZ_4G + SZ_8M, -EINVAL },
	{ "first reserved byte", 48, 1, 1, -EINVAL },
	{ "last reserved byte", 59, 1, 0x80, -EINVAL },
};

KUNIT_ARRAY_PARAM_DESC(hdr, hdr_cases, desc);

static void stream_file_hdr(struct kunit *test)
{
	const struct hdr_case *c = test->param_value;
	struct stream_test *st = test->priv;
	u8 hdr[PRECOPY_FILE_HDR_LEN];
	u32 i;

	memcpy(hdr, golden_v1_0_head, sizeof(hdr));
	for (i = 0; i < c->width; i++)
		hdr[c->at + i] = c->value >> (8 * i);
	build_file(&st->build, hdr);
	build_rest(st, AT_OPEN);
	run_build(st);
	if (c->err)
		expect_stuck(test, &st->run, c->err);
	else
		KUNIT_EXPECT_TRUE(test, run_complete(&st->run));
	if (c->why)
		KUNIT_EXPECT_STREQ(test, st->run.dec.error, c->why);
}

/* The CRC comes first: a length that fails it is not a length. */
static void stream_file_hdr_crc(struct kunit *test)
{
	struct stream_test *st = test->priv;

	build_prefix(st, AT_OPEN);
	st->build.buf[60] ^= 1;
	build_rest(st, AT_OPEN);
	run_build(st);
	expect_stuck(test, &st->run, -EINVAL);
	KUNIT_EXPECT_EQ(test, st->run.fed, PRECOPY_FILE_HDR_LEN);
}

static const struct ext_case {
	const char *desc;
	u16 minor;
	u32 len;
	bool good;
} ext_cases[] = {
	{ "1 byte more", 2, 65, false },
	{ "no room for a CRC", 2, 67, false },
	{ "just a CRC", 2, 68, true },
	{ "odd length", 2, 69, true },
	{ "largest", U16_MAX, 4096, true },
	{ "too large", U16_MAX, 4097, false },
	{ "too early", 0, 68, false },
	{ "of our own minor version", 1, 68, false },
};

KUNIT_ARRAY_PARAM_DESC(ext, ext_cases, desc);

static void build_ext(struct stream_test *st, u16 minor, u32 len)
{
	u8 hdr[PRECOPY_FILE_HDR_LEN], *ext;
	u32 body = max(len, 68) - 68;

	memcpy(hdr, golden_v1_0_head, sizeof(hdr));
	put_unaligned_le16(minor, hdr + 10);
	put_unaligned_le32(len, hdr + 12);
	build_file(&st->build, hdr);

	ext = st->build.buf + st->build.len;
	memset(ext, 0x5a, body);
	put_unaligned_le32(test_crc(ext, body), ext + body);
	st->build.len = max(len, 68);
}

static void stream_longer_hdr(struct kunit *test)
{
	const struct ext_case *c = test->param_value;
	struct stream_test *st = test->priv;

	build_ext(st, c->minor, c->len);
	build_rest(st, AT_OPEN);
	run_build(st);
	if (!c->good) {
		expect_stuck(test, &st->run, -EINVAL);
		return;
	}
	KUNIT_EXPECT_TRUE(test, run_complete(&st->run));
	KUNIT_EXPECT_EQ(test, st->run.ev[0].event, PRECOPY_EV_HEADER);
	KUNIT_EXPECT_EQ(test, st->run.ev[0].end, c->len);

	st->build.buf[c->len - 1] ^= 1;
	run_build(st);
	expect_stuck(test, &st->run, -EINVAL);
}

static void stream_impossible_device(struct kunit *test)
{
	static const u64 sizes[] = {
		0, SZ_4K - 1, SZ_1M + 1, PRECOPY_MAX_MEMORY + SZ_4K,
		PRECOPY_MAX_MEMORY * 2, U64_MAX, U64_MAX - SZ_4K + 1,
	};
	struct precopy_stream_params params = golden_params;
	struct stream_test *st = test->priv;
	struct precopy_encoder enc;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		params.memory_size = sizes[i];
		precopy_encoder_init(&enc, &params);
		st->build.len = precopy_encode_header(&enc, st->build.buf);
		run_start(&st->run, &params);
		run_feed(&st->run, st->build.buf, st->build.len);
		KUNIT_EXPECT_EQ_MSG(test, st->run.ret, -EINVAL, "size %llx", sizes[i]);
	}
}

/* Records */

#define P	PRECOPY_REC_PREFACE
#define D	PRECOPY_REC_DATA
#define Z	PRECOPY_REC_ZERO
#define I	PRECOPY_REC_INITIAL_END
#define S	PRECOPY_REC_STATE
#define E	PRECOPY_REC_END
#define M	PRECOPY_REC_MANDATORY
#define O	PRECOPY_REC_OPTIONAL
#define BAD	(-EINVAL)
#define LAST	(SZ_8M - SZ_4K)
#define TOP	(U64_MAX - SZ_4K + 1)

/* A record in a place; @word: what its payload begins with, the rest is 0. */
struct rec_case {
	const char *desc;
	int err;
	enum place place;
	u16 type;
	u16 flags;
	u64 offset;
	u32 len;
	u64 word[4];
};

static const struct rec_case rec_cases[] = {
	{ "preface: nothing in use", 0, AT_OPEN, P, M, 0, 32, { 0, 0, 4, 0 } },
	{ "preface: all in use", 0, AT_OPEN, P, M, 0, 32, { SZ_8M, 0, 4, 0xf } },
	{ "preface: units full", 0, AT_OPEN, P, M, 0, 32, { SZ_4M, 0, 4, 0x9 } },
	{ "preface: again", 0, AT_DELTA, P, M, 0, 32, { SZ_4M, 0, 4, 0x9 } },
	{ "preface: longest startup", 0, AT_OPEN, P, M, 0, 32, { 0, U64_MAX, 4, 0 } },
	{ "preface: units overfull", BAD, AT_OPEN, P, M, 0, 32, { SZ_4M + 1, 0, 4, 0x9 } },
	{ "preface: in use, no unit", BAD, AT_OPEN, P, M, 0, 32, { 1, 0, 4, 0 } },
	{ "preface: in use > size", BAD, AT_OPEN, P, M, 0, 32, { SZ_8M + 1, 0, 4, 0xf } },
	{ "preface: in use 2^64-1", BAD, AT_OPEN, P, M, 0, 32, { U64_MAX, 0, 4, 0xf } },
	{ "preface: stray bit 4", BAD, AT_OPEN, P, M, 0, 32, { 0, 0, 4, BIT(4) } },
	{ "preface: stray bit 63", BAD, AT_OPEN, P, M, 0, 32, { 0, 0, 4, BIT_ULL(63) } },
	{ "preface: 3 units", BAD, AT_OPEN, P, M, 0, 32, { 0, 0, 3, 0 } },
	{ "preface: 5 units", BAD, AT_OPEN, P, M, 0, 32, { 0, 0, 5, 0 } },
	{ "preface: 0 units", BAD, AT_OPEN, P, M, 0, 32, { 0, 0, 0, 0 } },
	{ "preface: 2^32-1 units", BAD, AT_OPEN, P, M, 0, 32, { 0, 0, U32_MAX, 0 } },
	{ "preface: reserved", BAD, AT_OPEN, P, M, 0, 32, { 0, 0, 4 | BIT_ULL(32), 0 } },
	{ "preface: no bitmap", BAD, AT_OPEN, P, M, 0, 24, { 0, 0, 4 } },
	{ "preface: 1 byte short", BAD, AT_OPEN, P, M, 0, 31, { 0, 0, 4, 0 } },
	{ "preface: 1 word more", BAD, AT_OPEN, P, M, 0, 40, { 0, 0, 4, 0 } },
	{ "preface: empty", BAD, AT_OPEN, P, M, 0, 0 },
	{ "preface: offset", BAD, AT_OPEN, P, M, SZ_4K, 32, { 0, 0, 4, 0 } },
	{ "preface: optional", BAD, AT_OPEN, P, O, 0, 32, { 0, 0, 4, 0 } },

	{ "data: first page", 0, AT_INITIAL, D, M, 0, SZ_4K },
	{ "data: last page", 0, AT_DELTA, D, M, LAST, SZ_4K },
	{ "data: most, at the end", 0, AT_DELTA, D, M, SZ_8M - SZ_64K, SZ_64K },
	{ "data: odd number of pages", 0, AT_DELTA, D, M, SZ_4K, 3 * SZ_4K },
	{ "data: one page too far", BAD, AT_DELTA, D, M, SZ_8M, SZ_4K },
	{ "data: crosses the end", BAD, AT_DELTA, D, M, LAST, SZ_8K },
	{ "data: wraps around", BAD, AT_DELTA, D, M, TOP, SZ_4K },
	{ "data: wraps around further", BAD, AT_DELTA, D, M, TOP, SZ_8K },
	{ "data: offset not aligned", BAD, AT_INITIAL, D, M, 1, SZ_4K },
	{ "data: offset half a page", BAD, AT_INITIAL, D, M, SZ_2K, SZ_4K },
	{ "data: empty", BAD, AT_INITIAL, D, M, 0, 0 },
	{ "data: 1 byte", BAD, AT_INITIAL, D, M, 0, 1 },
	{ "data: 1 byte more", BAD, AT_INITIAL, D, M, 0, SZ_4K + 1 },
	{ "data: 17 pages", BAD, AT_INITIAL, D, M, 0, SZ_64K + SZ_4K },
	{ "data: optional", BAD, AT_INITIAL, D, O, 0, SZ_4K },

	{ "zero: a page", 0, AT_INITIAL, Z, M, 0, 8, { SZ_4K } },
	{ "zero: everything", 0, AT_DELTA, Z, M, 0, 8, { SZ_8M } },
	{ "zero: last page", 0, AT_DELTA, Z, M, LAST, 8, { SZ_4K } },
	{ "zero: nothing", BAD, AT_INITIAL, Z, M, 0, 8, { 0 } },
	{ "zero: not a page", BAD, AT_INITIAL, Z, M, 0, 8, { SZ_4K - 1 } },
	{ "zero: too much", BAD, AT_INITIAL, Z, M, 0, 8, { SZ_8M + SZ_4K } },
	{ "zero: crosses the end", BAD, AT_INITIAL, Z, M, SZ_4K, 8, { SZ_8M } },
	{ "zero: one page too far", BAD, AT_INITIAL, Z, M, SZ_8M, 8, { SZ_4K } },
	{ "zero: wraps to 0", BAD, AT_INITIAL, Z, M, SZ_4K, 8, { TOP } },
	{ "zero: wraps past 0", BAD, AT_INITIAL, Z, M, SZ_8K, 8, { TOP } },
	{ "zero: offset wraps", BAD, AT_INITIAL, Z, M, TOP, 8, { SZ_8K } },
	{ "zero: offset not aligned", BAD, AT_INITIAL, Z, M, 8, 8, { SZ_4K } },
	{ "zero: empty", BAD, AT_INITIAL, Z, M, 0, 0 },
	{ "zero: 4 bytes", BAD, AT_INITIAL, Z, M, 0, 4, { SZ_4K } },
	{ "zero: 16 bytes", BAD, AT_INITIAL, Z, M, 0, 16, { SZ_4K } },
	{ "zero: optional", BAD, AT_INITIAL, Z, O, 0, 8, { SZ_4K } },

	{ "initial end: payload", BAD, AT_INITIAL, I, M, 0, 8 },
	{ "initial end: offset", BAD, AT_INITIAL, I, M, SZ_4K, 0 },
	{ "initial end: optional", BAD, AT_INITIAL, I, O, 0, 0 },

	{ "state: nothing in use", 0, AT_DELTA, S, M, 0, 8, { 0 } },
	{ "state: all in use", 0, AT_DELTA, S, M, 0, 8, { SZ_8M } },
	{ "state: too much in use", BAD, AT_DELTA, S, M, 0, 8, { SZ_8M + 1 } },
	{ "state: empty", BAD, AT_DELTA, S, M, 0, 0 },
	{ "state: 16 bytes", BAD, AT_DELTA, S, M, 0, 16, { 0 } },
	{ "state: offset", BAD, AT_DELTA, S, M, SZ_4K, 8, { 0 } },
	{ "state: optional", BAD, AT_DELTA, S, O, 0, 8, { 0 } },

	{ "end: empty", BAD, AT_STATE, E, M, 0, 0 },
	{ "end: 24 bytes", BAD, AT_STATE, E, M, 0, 24 },

	{ "unknown: optional, first", 0, AT_OPEN, 7, O, 5, 77, { 1 } },
	{ "unknown: optional, initial", 0, AT_INITIAL, 7, O, TOP, SZ_64K, { 1 } },
	{ "unknown: optional, delta", 0, AT_DELTA, 0xffff, O, 0, 0 },
	{ "unknown: optional, state", 0, AT_STATE, 0x8000, O, 0, 1, { 1 } },
	{ "unknown: larger than buffer", 0, AT_INITIAL, 9, O, 0, 3 * SZ_64K + 5, { 1 } },
	{ "unknown: mandatory", -EOPNOTSUPP, AT_DELTA, 7, M, 0, 8 },
	{ "unknown: mandatory, empty", -EOPNOTSUPP, AT_OPEN, 0xffff, M, 0, 0 },
	{ "type 0, mandatory", BAD, AT_INITIAL, 0, M, 0, 0 },
	{ "type 0, optional", BAD, AT_INITIAL, 0, O, 0, 8 },
	{ "no flags", BAD, AT_INITIAL, 7, 0, 0, 8 },
	{ "both flags", BAD, AT_INITIAL, 7, M | O, 0, 8 },
	{ "another flag", BAD, AT_INITIAL, 7, BIT(2), 0, 8 },
	{ "flag and another", BAD, AT_INITIAL, 7, O | BIT(15), 0, 8 },
	{ "known, no flags", BAD, AT_INITIAL, D, 0, 0, SZ_4K },
	{ "known, both flags", BAD, AT_INITIAL, D, M | O, 0, SZ_4K },
	{ "known, another flag", BAD, AT_INITIAL, D, M | BIT(2), 0, SZ_4K },
};

KUNIT_ARRAY_PARAM_DESC(rec, rec_cases, desc);

static void stream_record(struct kunit *test)
{
	const struct rec_case *c = test->param_value;
	enum place next = c->place;
	struct stream_test *st = test->priv;
	u32 i;

	memset(st->payload, 0, c->len);
	for (i = 0; i < 4; i++)
		put_unaligned_le64(c->word[i], st->payload + 8 * i);
	build_prefix(st, c->place);
	build_rec(&st->build, c->type, c->flags, c->offset, st->payload, c->len);
	if (c->type == P)
		next = AT_INITIAL;
	if (c->type == S)
		next = AT_STATE;
	build_rest(st, next);
	run_build(st);
	if (c->err)
		expect_stuck(test, &st->run, c->err);
	else
		KUNIT_EXPECT_TRUE_MSG(test, run_complete(&st->run), "%s",
				      st->run.dec.error);
}

/* Of a device smaller than a unit not even the one unit can be all in use. */
static void stream_small_device(struct kunit *test)
{
	struct precopy_stream_params params = golden_params;
	struct stream_test *st = test->priv;
	unsigned long bitmap[] = { 1 };
	struct precopy_encoder enc;
	u32 len, more;

	params.memory_size = SZ_1M;
	for (more = 0; more <= 1; more++) {
		precopy_encoder_init(&enc, &params);
		len = precopy_encode_header(&enc, st->build.buf);
		len += precopy_encode_preface(&enc, st->build.buf + len, SZ_1M + more, 0,
					      bitmap, 1);
		run_start(&st->run, &params);
		run_feed(&st->run, st->build.buf, len);
		KUNIT_EXPECT_EQ(test, st->run.ret, more ? -EINVAL : 0);
	}
}

/* A bad header is refused before a byte of its payload is asked for. */
static void stream_refused_early(struct kunit *test)
{
	struct stream_test *st = test->priv;
	u32 len;

	build_prefix(st, AT_INITIAL);
	len = st->build.len;
	build_rec_hdr(&st->build, D, M, 0, U32_MAX - SZ_4K + 1, 0);
	run_build(st);
	expect_stuck(test, &st->run, -EINVAL);
	KUNIT_EXPECT_EQ(test, st->run.fed, len + PRECOPY_REC_HDR_LEN);

	build_prefix(st, AT_INITIAL);
	build_rec_hdr(&st->build, 7, O, 0, PRECOPY_MAX_SKIP + 1, 0);
	run_build(st);
	expect_stuck(test, &st->run, -EINVAL);
}

static void stream_payload_crc(struct kunit *test)
{
	struct stream_test *st = test->priv;
	u32 i, types[] = { D, 7 };

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		build_prefix(st, AT_INITIAL);
		build_rec(&st->build, types[i], types[i] == D ? M : O, 0,
			  st->payload, DATA_SIZE);
		st->build.buf[st->build.len - 1] ^= 1;
		build_rest(st, AT_INITIAL);
		run_build(st);
		expect_stuck(test, &st->run, -EINVAL);
	}
	/* The CRC of nothing is 0 and nothing else. */
	build_prefix(st, AT_INITIAL);
	build_rec_hdr(&st->build, I, M, 0, 0, 1);
	run_build(st);
	expect_stuck(test, &st->run, -EINVAL);
}

/* Skipping takes no memory: 16 MiB go through a buffer of 64 KiB. */
static void stream_skip_most(struct kunit *test)
{
	struct stream_test *st = test->priv;
	u32 i, crc = ~0U, rest;

	for (i = 0; i < PRECOPY_MAX_SKIP / SZ_64K; i++)
		crc = crc32c(crc, st->payload, SZ_64K);
	build_prefix(st, AT_DELTA);
	build_rec_hdr(&st->build, 7, O, 0, PRECOPY_MAX_SKIP, ~crc);
	rest = st->build.len;
	build_rest(st, AT_DELTA);

	run_start(&st->run, &golden_params);
	run_feed(&st->run, st->build.buf, rest);
	for (i = 0; i < PRECOPY_MAX_SKIP / SZ_64K; i++) {
		KUNIT_ASSERT_EQ(test, st->run.nr_ev, 3);
		run_feed(&st->run, st->payload, SZ_64K);
	}
	KUNIT_EXPECT_EQ(test, st->run.ev[3].event, PRECOPY_EV_SKIPPED);
	run_feed(&st->run, st->build.buf + rest, st->build.len - rest);
	KUNIT_EXPECT_TRUE(test, run_complete(&st->run));
}

/* Records that are not the format's own: one may be initial data, one may not */
static const struct precopy_section_record section_records[] = {
	{ .type = 7, .max_len = SZ_4K, .initial = true },
	{ .type = 0x7e57, .max_len = PRECOPY_MAX_DATA },
};

static const struct precopy_section_record * const section_list[] = {
	&section_records[0], &section_records[1], NULL,
};

/* A record of a section somewhere in a stream, and what becomes of it */
static const struct section_case {
	const char *desc;
	int error;
	enum place place;
	u16 type;
	u16 flags;
	u32 len;
} section_cases[] = {
	{ "initial", 0, AT_INITIAL, 7, M, 8 },
	{ "initial, largest", 0, AT_INITIAL, 7, M, SZ_4K },
	{ "delta", 0, AT_DELTA, 7, M, 8 },
	{ "delta, empty", 0, AT_DELTA, 7, M, 0 },
	{ "delta, largest", 0, AT_DELTA, 0x7e57, M, SZ_64K },
	{ "too long", -EINVAL, AT_INITIAL, 7, M, SZ_4K + 1 },
	{ "longer than the buffer", -EINVAL, AT_DELTA, 0x7e57, M, SZ_64K + 1 },
	{ "before PREFACE", -EINVAL, AT_OPEN, 7, M, 8 },
	{ "not initial data", -EINVAL, AT_INITIAL, 0x7e57, M, 8 },
	{ "after STATE", -EINVAL, AT_STATE, 7, M, 8 },
	{ "optional", -EINVAL, AT_DELTA, 7, O, 8 },
	{ "of nobody", -EOPNOTSUPP, AT_DELTA, 8, M, 8 },
};

static void section_desc(const struct section_case *c, char *desc)
{
	strscpy(desc, c->desc, KUNIT_PARAM_DESC_SIZE);
}

KUNIT_ARRAY_PARAM(section, section_cases, section_desc);

static void run_sections(struct stream_test *st)
{
	run_start(&st->run, &golden_params);
	precopy_decoder_accept(&st->run.dec, section_list);
	run_feed(&st->run, st->build.buf, st->build.len);
}

static void stream_section(struct kunit *test)
{
	const struct section_case *c = test->param_value;
	struct stream_test *st = test->priv;

	build_prefix(st, c->place);
	build_rec(&st->build, c->type, c->flags, U64_MAX, st->payload, c->len);
	build_rest(st, c->place);
	run_sections(st);
	if (c->error)
		expect_stuck(test, &st->run, c->error);
	else
		KUNIT_EXPECT_TRUE(test, run_complete(&st->run));
}

static void stream_section_payload(struct kunit *test)
{
	struct stream_test *st = test->priv;
	const struct stream_ev *ev = &st->run.ev[3];

	memset(st->payload, 0x5a, SZ_4K);
	build_prefix(st, AT_DELTA);
	build_rec(&st->build, 0x7e57, M, 42, st->payload, 100);
	build_good(st, PRECOPY_REC_DATA);
	build_rest(st, AT_DELTA);
	run_sections(st);
	KUNIT_EXPECT_TRUE(test, run_complete(&st->run));
	KUNIT_EXPECT_EQ(test, ev->event, PRECOPY_EV_SECTION);
	KUNIT_EXPECT_EQ(test, ev->offset, 42);
	KUNIT_EXPECT_EQ(test, ev->nr_bytes, 100);
	KUNIT_EXPECT_EQ(test, ev->payload_crc, test_crc(st->payload, 100));
	/* The next record is again one of the format's own */
	KUNIT_EXPECT_EQ(test, st->run.ev[4].event, PRECOPY_EV_DATA);
	KUNIT_EXPECT_NULL(test, st->run.dec.section);
}

/* END knows every record before it. */

static const struct end_case {
	const char *desc;
	s64 nr_records;		/* added to what is right */
	u32 crc;		/* mixed into what is right */
	u32 reserved;
	u64 offset;
	int err;
} end_cases[] = {
	{ "right", 0, 0, 0, 0, 0 },
	{ "one record less", -1, 0, 0, 0, BAD },
	{ "one record more", 1, 0, 0, 0, BAD },
	{ "2^32 records more", BIT_ULL(32), 0, 0, 0, BAD },
	{ "crc", 0, BIT(31), 0, 0, BAD },
	{ "crc not inverted", 0, U32_MAX, 0, 0, BAD },
	{ "reserved", 0, 0, 1, 0, BAD },
	{ "offset", 0, 0, 0, SZ_4K, BAD },
};

KUNIT_ARRAY_PARAM_DESC(end, end_cases, desc);

static void stream_end(struct kunit *test)
{
	const struct end_case *c = test->param_value;
	struct stream_test *st = test->priv;
	struct build *b = &st->build;

	build_prefix(st, AT_STATE);
	build_words(b, E, c->offset, 16, b->nr_records + c->nr_records,
		    (~b->chain ^ c->crc) | (u64)c->reserved << 32, 0, 0);
	run_build(st);
	if (c->err)
		expect_stuck(test, &st->run, c->err);
	else
		KUNIT_EXPECT_TRUE(test, run_complete(&st->run));
}

/*
 * Records that are good one by one but were left out, sent twice or swapped
 * (those before the END have their own CRCs, so only the chain can tell).
 */
static void stream_chain(struct kunit *test)
{
	static const u8 variants[][4] = {
		{ 1, 2, 3 }, { 1, 3, 2 }, { 1, 3 }, { 1, 2, 2, 3 }, { 2, 1, 3 }, { 1, 2, 4 },
	};
	struct stream_test *st = test->priv;
	struct build *b = &st->build;
	u64 nr_records = 0;
	u32 i, j, chain = 0;

	for (i = 0; i < ARRAY_SIZE(variants); i++) {
		build_prefix(st, AT_DELTA);
		for (j = 0; j < 4 && variants[i][j]; j++)
			build_words(b, Z, 0, 8, variants[i][j] * SZ_4K, 0, 0, 0);
		build_good(st, S);
		if (!i) {
			nr_records = b->nr_records;
			chain = b->chain;
		}
		build_words(b, E, 0, 16, nr_records, (u32)~chain, 0, 0);
		run_build(st);
		KUNIT_EXPECT_EQ_MSG(test, run_complete(&st->run), !i, "variant %u", i);
		KUNIT_EXPECT_EQ_MSG(test, st->run.ret, i ? -EINVAL : 0, "variant %u", i);
	}
}

/* Order */

#define NR_TYPES	6
#define SEQ_LEN		6
#define DONE		4

/* For each place (and after END) where a type leads; 0: it is refused. */
static const u8 order[DONE + 1][NR_TYPES] = {
	/*              P           D           Z           I         S         E   */
	[AT_OPEN] =    { AT_INITIAL, 0,          0,          0,        0,        0 },
	[AT_INITIAL] = { 0,          AT_INITIAL, AT_INITIAL, AT_DELTA, 0,        0 },
	[AT_DELTA] =   { AT_INITIAL, AT_DELTA,   AT_DELTA,   0,        AT_STATE, 0 },
	[AT_STATE] =   { 0,          0,          0,          0,        0,        DONE },
	[DONE] =       { 0,          0,          0,          0,        0,        0 },
};

/* Returns the number of records that were accepted, negative if in error. */
static int try_sequence(struct stream_test *st, const u8 *types)
{
	u8 place = AT_OPEN, next;
	u32 i, start;
	bool done;

	build_prefix(st, AT_OPEN);
	run_build(st);
	for (i = 0; i < SEQ_LEN; i++, place = next) {
		start = st->build.len;
		build_good(st, types[i] + 1);
		run_feed(&st->run, st->build.buf + start, st->build.len - start);
		next = order[place][types[i]];
		done = next == DONE;
		if (st->run.ret != (next ? 0 : -EINVAL) ||
		    precopy_decoder_complete(&st->run.dec) != done)
			return -1;
		if (!next)
			break;
	}
	return i;
}

/* All sequences of six known records, less those with a refused beginning. */
static void stream_order(struct kunit *test)
{
	struct stream_test *st = test->priv;
	u8 types[SEQ_LEN] = {};
	u32 nr_done = 0;
	int i;

	do {
		i = try_sequence(st, types);
		KUNIT_ASSERT_GE_MSG(test, i, 0, "sequence %*ph", SEQ_LEN, types);
		nr_done += i == SEQ_LEN && precopy_decoder_complete(&st->run.dec);
		/* Count up from the place where the sequence broke off. */
		i = min(i, SEQ_LEN - 1);
		memset(types + i + 1, 0, SEQ_LEN - i - 1);
		while (i >= 0 && ++types[i] == NR_TYPES)
			types[i--] = 0;
		cond_resched();
	} while (i >= 0);

	/* P, I, S, E and two out of D, Z, or P with I: 4 * 3 + 1 ways. */
	KUNIT_EXPECT_EQ(test, nr_done, 13);
}

/* Round trips */

static const u64 sizes[] = {
	SZ_1M, SZ_2M, SZ_4M, 3 * SZ_2M, SZ_16M, SZ_64M, SZ_128M, SZ_256M, SZ_1G, 64ULL * SZ_1G,
};

static void size_desc(const u64 *size, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%llu MiB", *size / SZ_1M);
}

KUNIT_ARRAY_PARAM(size, sizes, size_desc);

static void stream_preface(struct kunit *test)
{
	struct precopy_stream_params params = golden_params;
	struct stream_test *st = test->priv;
	struct run *run = &st->run;
	struct precopy_encoder enc;
	unsigned long *bitmap;
	u32 nr_units, len, i, seed = 7;
	u64 in_use;

	params.memory_size = *(const u64 *)test->param_value;
	nr_units = precopy_stream_units(params.memory_size);
	KUNIT_EXPECT_EQ(test, nr_units, max(params.memory_size / SZ_2M, 1));

	/* Whatever lies behind the last unit does not get into the stream. */
	bitmap = kunit_kzalloc(test, BITS_TO_LONGS(nr_units) * sizeof(long), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, bitmap);
	for (i = 0; i < BITS_TO_LONGS(nr_units) * BITS_PER_LONG; i++)
		__assign_bit(i, bitmap, test_random(&seed) & 1 || !i || i >= nr_units);
	in_use = min(bitmap_weight(bitmap, nr_units) * (u64)SZ_2M, params.memory_size);

	precopy_encoder_init(&enc, &params);
	len = precopy_encode_header(&enc, st->build.buf);
	len += precopy_encode_preface(&enc, st->build.buf + len, in_use, 99, bitmap, nr_units);
	KUNIT_EXPECT_EQ(test, len, PRECOPY_FILE_HDR_LEN + PRECOPY_REC_HDR_LEN +
				   precopy_preface_len(nr_units));
	run_start(run, &params);
	run_feed(run, st->build.buf, len);
	KUNIT_ASSERT_EQ(test, run->nr_ev, 2);
	KUNIT_ASSERT_EQ(test, run->ev[1].event, PRECOPY_EV_PREFACE);
	KUNIT_EXPECT_EQ(test, run->dec.nr_units, nr_units);
	KUNIT_EXPECT_EQ(test, run->dec.bytes_in_use, in_use);
	for (i = 0; i < nr_units; i++)
		KUNIT_ASSERT_EQ(test, precopy_decoder_unit_in_use(&run->dec, i),
				test_bit(i, bitmap));
	KUNIT_EXPECT_FALSE(test, precopy_decoder_unit_in_use(&run->dec, nr_units));
	KUNIT_EXPECT_FALSE(test, precopy_decoder_unit_in_use(&run->dec, U32_MAX));
}

/* Changes a piece of @image and writes the record that says so to @buf. */
static u32 encode_random(struct precopy_encoder *enc, u8 *image, u32 size,
			 u8 *buf, u32 *seed)
{
	u32 first = test_random(seed) % (size / SZ_4K);
	u32 nr = test_random(seed) % min(16, size / SZ_4K - first) + 1;
	u8 *range = image + first * SZ_4K;
	u32 i, len = nr * SZ_4K;

	if (test_random(seed) % 4 == 0) {
		memset(range, 0, len);
		return precopy_encode_zero(enc, buf, first * SZ_4K, len);
	}
	for (i = 0; i < len; i++)
		range[i] = test_random(seed);
	memcpy(buf + PRECOPY_REC_HDR_LEN, range, len);
	return precopy_encode_record(enc, buf, PRECOPY_REC_DATA, first * SZ_4K, len);
}

static u32 encode_device(u8 *image, const struct precopy_stream_params *params,
			 u8 *buf, u32 *seed)
{
	unsigned long bitmap[] = { 1 };
	struct precopy_encoder enc;
	u32 i, len;

	precopy_encoder_init(&enc, params);
	len = precopy_encode_header(&enc, buf);
	len += precopy_encode_preface(&enc, buf + len, params->memory_size, 0, bitmap, 1);
	for (i = 0; len < BUILD_SIZE - SZ_128K; i++) {
		if (i == 7)
			len += precopy_encode_record(&enc, buf + len, I, 0, 0);
		len += encode_random(&enc, image, params->memory_size, buf + len, seed);
	}
	len += precopy_encode_state(&enc, buf + len, params->memory_size);
	return len + precopy_encode_end(&enc, buf + len);
}

static void apply_event(u8 *image, const struct precopy_decoder *dec, int event)
{
	if (event == PRECOPY_EV_DATA)
		memcpy(image + dec->offset, dec->payload, dec->nr_bytes);
	else if (event == PRECOPY_EV_ZERO)
		memset(image + dec->offset, 0, dec->nr_bytes);
}

/* A stream is decoded to the data that was encoded, in steps of any size. */
static void stream_round_trip(struct kunit *test)
{
	struct precopy_stream_params params = golden_params;
	struct stream_test *st = test->priv;
	u32 n, pos, len, seed = 42;
	struct run *run = &st->run;
	u8 *from, *to;

	params.memory_size = SZ_256K;
	from = kunit_kzalloc(test, params.memory_size, GFP_KERNEL);
	to = kunit_kzalloc(test, params.memory_size, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, from);
	KUNIT_ASSERT_NOT_NULL(test, to);

	len = encode_device(from, &params, st->build.buf, &seed);
	run_start(run, &params);
	for (pos = 0; pos < len && !run->ret; pos += n) {
		u32 before = run->nr_ev;

		n = run_step(run, st->build.buf + pos,
			     min(test_random(&seed) % SZ_16K + 1, len - pos));
		if (run->nr_ev != before)
			apply_event(to, &run->dec,
				    run->ev[min(before, MAX_EVENTS - 1)].event);
	}
	KUNIT_EXPECT_TRUE(test, run_complete(run));
	KUNIT_EXPECT_MEMEQ(test, to, from, params.memory_size);
}

static int golden_init(struct kunit *test, struct stream_test *st)
{
	u32 i, at = sizeof(golden_v1_0_head);
	u32 len = at + DATA_SIZE + sizeof(golden_v1_0_tail);
	u8 *bytes = kunit_kmalloc(test, len, GFP_KERNEL);

	if (!bytes)
		return -ENOMEM;
	memcpy(bytes, golden_v1_0_head, at);
	for (i = 0; i < DATA_SIZE; i++)
		bytes[at + i] = i * 7 + i / 256 * 13;
	memcpy(bytes + at + DATA_SIZE, golden_v1_0_tail, sizeof(golden_v1_0_tail));

	st->golden[0] = (struct golden) {
		"1.0", bytes, len, golden_v1_0_events, ARRAY_SIZE(golden_v1_0_events),
		&golden_params,
	};
	st->golden[1] = (struct golden) {
		"1.7", golden_v1_7, sizeof(golden_v1_7),
		golden_v1_7_events, ARRAY_SIZE(golden_v1_7_events), &golden_params,
	};
	st->golden[2] = (struct golden) {
		"1.1", golden_v1_1, sizeof(golden_v1_1),
		golden_v1_1_events, ARRAY_SIZE(golden_v1_1_events), &golden_engine_params,
	};
	return 0;
}

static int stream_init(struct kunit *test)
{
	struct stream_test *st = kunit_kzalloc(test, sizeof(*st), GFP_KERNEL);

	if (!st)
		return -ENOMEM;
	st->run.buf = kunit_kzalloc(test, PRECOPY_DECODE_BUF, GFP_KERNEL);
	st->build.buf = kunit_kzalloc(test, BUILD_SIZE, GFP_KERNEL);
	st->payload = kunit_kzalloc(test, SZ_256K, GFP_KERNEL);
	if (!st->run.buf || !st->build.buf || !st->payload)
		return -ENOMEM;
	test->priv = st;
	return golden_init(test, st);
}

static struct kunit_case stream_cases[] = {
	KUNIT_CASE_PARAM(stream_golden_decode, golden_gen_params),
	KUNIT_CASE(stream_golden_version),
	KUNIT_CASE(stream_golden_encode),
	KUNIT_CASE(stream_golden_encode_engine),
	KUNIT_CASE(stream_golden_engine),
	KUNIT_CASE(stream_another_model),
	KUNIT_CASE(stream_engine_unknown),
	KUNIT_CASE_PARAM(stream_split_bytes, golden_gen_params),
	KUNIT_CASE_PARAM(stream_split_two, golden_gen_params),
	KUNIT_CASE_PARAM(stream_split_random, golden_gen_params),
	KUNIT_CASE_PARAM(stream_truncated, golden_gen_params),
	KUNIT_CASE_PARAM_ATTR(stream_bit_flips, golden_gen_params, { .speed = KUNIT_SPEED_SLOW }),
	KUNIT_CASE_PARAM(stream_trailing, golden_gen_params),
	KUNIT_CASE(stream_overrun),
	KUNIT_CASE_PARAM(stream_file_hdr, hdr_gen_params),
	KUNIT_CASE(stream_file_hdr_crc),
	KUNIT_CASE_PARAM(stream_longer_hdr, ext_gen_params),
	KUNIT_CASE(stream_impossible_device),
	KUNIT_CASE_PARAM(stream_record, rec_gen_params),
	KUNIT_CASE(stream_small_device),
	KUNIT_CASE(stream_refused_early),
	KUNIT_CASE(stream_payload_crc),
	KUNIT_CASE(stream_skip_most),
	KUNIT_CASE_PARAM(stream_section, section_gen_params),
	KUNIT_CASE(stream_section_payload),
	KUNIT_CASE_PARAM(stream_end, end_gen_params),
	KUNIT_CASE(stream_chain),
	KUNIT_CASE(stream_order),
	KUNIT_CASE_PARAM(stream_preface, size_gen_params),
	KUNIT_CASE(stream_round_trip),
	{}
};

static struct kunit_suite stream_suite = {
	.name = "precopy_stream",
	.init = stream_init,
	.test_cases = stream_cases,
};

kunit_test_suite(stream_suite);

MODULE_IMPORT_NS("EXPORTED_FOR_KUNIT_TESTING");
MODULE_DESCRIPTION("KUnit tests for the pre-copy VFIO PCI driver");
MODULE_LICENSE("GPL");
