// SPDX-License-Identifier: GPL-2.0-only
/*
 * The engine as far as it needs no step: what a job and a ring may be, the record of
 * the stream with every field out of its range, and the registers.
 */

#include <kunit/test.h>
#include <linux/errno.h>
#include <linux/limits.h>
#include <linux/mman.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/stddef.h>
#include <linux/string.h>
#include <linux/uaccess.h>
#include <linux/unaligned.h>

#include "../func/engine.h"
#include "../func/epf.h"
#include "../func/registers.h"
#include "../func/step.h"
#include "../precopy.h"

#define MEMORY_SIZE	SZ_8M
#define RECORD_LEN	248
#define ACCESS_LEN	SZ_4K
/* Of one access of registers, bytes */
#define MAX_ACCESS	256

#define COPY		PRECOPY_ENGINE_OP_COPY
#define FILL		PRECOPY_ENGINE_OP_FILL
#define STAMP		PRECOPY_ENGINE_OP_STAMP
#define FENCE		PRECOPY_ENGINE_OP_FENCE
#define IRQ		PRECOPY_ENGINE_OP_IRQ
#define SRC_BAR		PRECOPY_ENGINE_FLAG_SRC_BAR
#define DST_BAR		PRECOPY_ENGINE_FLAG_DST_BAR
#define BAD		(-EINVAL)

/* --- Jobs and rings ----------------------------------------------------- */

struct job_case {
	const char *desc;
	int err;
	struct precopy_job job;
};

/* @pos is the last one */
#define JOB(_op, _flags, _src, _dst, _len, _pos) \
	{ .op = _op, .flags = _flags, .src = _src, .dst = _dst, .len = _len, .pos = _pos }

static const struct job_case job_cases[] = {
	{ "copy: a byte", 0, JOB(COPY, 0, 1, 3, 1, 0) },
	{ "copy: longest", 0, JOB(COPY, 0, 0, 0, SZ_4G, 0) },
	{ "copy: too long", BAD, JOB(COPY, 0, 0, 0, SZ_4G + 1, 0) },
	{ "copy: nothing", BAD, JOB(COPY, 0, 0, 0, 0, 0) },
	{ "copy: all flags", 0, JOB(COPY, 7, 0, 0, 8, 0) },
	{ "copy: next flag", BAD, JOB(COPY, BIT(3), 0, 0, 8, 0) },
	{ "copy: last flag", BAD, JOB(COPY, BIT(31), 0, 0, 8, 0) },
	{ "copy: last byte left", 0, JOB(COPY, 0, 0, 0, 8, 7) },
	{ "copy: nothing left", BAD, JOB(COPY, 0, 0, 0, 8, 8) },
	{ "copy: far past the end", BAD, JOB(COPY, 0, 0, 0, 8, U64_MAX) },
	{ "copy: to last address", 0, JOB(COPY, 0, 0, U64_MAX - 15, 16, 0) },
	{ "copy: past last address", BAD, JOB(COPY, 0, 0, U64_MAX - 15, 17, 0) },
	{ "copy: from last address", 0, JOB(COPY, 0, U64_MAX - 15, 0, 16, 0) },
	{ "copy: from past it", BAD, JOB(COPY, 0, U64_MAX - 15, 0, 17, 0) },
	{ "copy: end of BAR", 0, JOB(COPY, DST_BAR, 0, SZ_8M - 16, 16, 0) },
	{ "copy: past end of BAR", BAD, JOB(COPY, DST_BAR, 0, SZ_8M - 16, 17, 0) },
	{ "copy: behind BAR", BAD, JOB(COPY, DST_BAR, 0, SZ_8M, 1, 0) },
	{ "copy: wraps into BAR", BAD, JOB(COPY, DST_BAR, 0, U64_MAX, 2, 0) },
	{ "copy: from end of BAR", 0, JOB(COPY, SRC_BAR, SZ_8M - 16, 0, 16, 0) },
	{ "copy: from past BAR", BAD, JOB(COPY, SRC_BAR, SZ_8M - 16, 0, 17, 0) },
	{ "copy: wraps from BAR", BAD, JOB(COPY, SRC_BAR, U64_MAX, 0, 2, 0) },
	{ "copy: only src is in BAR", 0, JOB(COPY, SRC_BAR, 0, SZ_8M, 1, 0) },
	{ "copy: only dst is in BAR", 0, JOB(COPY, DST_BAR, SZ_8M, 0, 1, 0) },

	{ "fill: a word", 0, JOB(FILL, 0, U64_MAX, 8, 8, 0) },
	{ "fill: src is no place", 0, JOB(FILL, SRC_BAR, SZ_8M, 8, 8, 0) },
	{ "fill: nothing", BAD, JOB(FILL, 0, 0, 0, 0, 0) },
	{ "fill: half a word", BAD, JOB(FILL, 0, 0, 0, 4, 0) },
	{ "fill: dst not aligned", BAD, JOB(FILL, 0, 0, 4, 8, 0) },
	{ "fill: second word", 0, JOB(FILL, 0, 0, 0, 16, 8) },
	{ "fill: pos not aligned", BAD, JOB(FILL, 0, 0, 0, 16, 4) },
	{ "fill: end of BAR", 0, JOB(FILL, DST_BAR, 0, SZ_8M - 8, 8, 0) },
	{ "fill: past end of BAR", BAD, JOB(FILL, DST_BAR, 0, SZ_8M - 8, 16, 0) },

	{ "stamp: a page", 0, JOB(STAMP, 0, 0, SZ_4K, SZ_4K, 0) },
	{ "stamp: half a page", BAD, JOB(STAMP, 0, 0, 0, SZ_2K, 0) },
	{ "stamp: dst not aligned", BAD, JOB(STAMP, 0, 0, SZ_2K, SZ_4K, 0) },
	{ "stamp: second page", 0, JOB(STAMP, 0, 0, 0, SZ_8K, SZ_4K) },
	{ "stamp: pos not aligned", BAD, JOB(STAMP, 0, 0, 0, SZ_8K, 8) },
	{ "stamp: all of BAR", 0, JOB(STAMP, DST_BAR, 0, 0, SZ_8M, 0) },
	{ "stamp: more than BAR", BAD, JOB(STAMP, DST_BAR, 0, 0, SZ_8M + SZ_4K, 0) },

	{ "fence", 0, JOB(FENCE, 0, U64_MAX, 8, 0, 0) },
	{ "fence: length", BAD, JOB(FENCE, 0, 0, 8, 8, 0) },
	{ "fence: pos", BAD, JOB(FENCE, 0, 0, 8, 0, 8) },
	{ "fence: dst not aligned", BAD, JOB(FENCE, 0, 0, 4, 0, 0) },
	{ "fence: last address", 0, JOB(FENCE, 0, 0, U64_MAX - 7, 0, 0) },
	{ "fence: end of BAR", 0, JOB(FENCE, DST_BAR, 0, SZ_8M - 8, 0, 0) },
	{ "fence: behind BAR", BAD, JOB(FENCE, DST_BAR, 0, SZ_8M, 0, 0) },

	{ "irq: last vector", 0, JOB(IRQ, 0, 7, U64_MAX, 0, 0) },
	{ "irq: no such vector", BAD, JOB(IRQ, 0, 8, 0, 0, 0) },
	{ "irq: 2^32", BAD, JOB(IRQ, 0, BIT_ULL(32), 0, 0, 0) },
	{ "irq: length", BAD, JOB(IRQ, 0, 0, 0, 1, 0) },
	{ "irq: pos", BAD, JOB(IRQ, 0, 0, 0, 0, 1) },

	{ "operation 0", -EOPNOTSUPP, JOB(0, 0, 0, 0, 0, 0) },
	{ "operation 6", -EOPNOTSUPP, JOB(6, 0, 0, 0, 8, 0) },
	{ "operation 2^32-1", -EOPNOTSUPP, JOB(U32_MAX, 0, 0, 0, 0, 0) },
};

KUNIT_ARRAY_PARAM_DESC(job, job_cases, desc);

static void engine_job(struct kunit *test)
{
	const struct job_case *c = test->param_value;

	KUNIT_EXPECT_EQ(test, precopy_job_check(&c->job, MEMORY_SIZE), c->err);
}

struct ring_case {
	const char *desc;
	bool valid;
	u64 base;
	u32 size;
};

static const struct ring_case ring_cases[] = {
	{ "smallest", true, 0, 2 },
	{ "largest", true, 64, 65536 },
	{ "of nothing", false, 0, 0 },
	{ "of one", false, 0, 1 },
	{ "no power of two", false, 0, 3 },
	{ "too large", false, 0, 131072 },
	{ "largest number", false, 0, U32_MAX },
	{ "last power of two", false, 0, BIT(31) },
	{ "not aligned", false, 32, 2 },
	{ "at the end", true, -3 * 64, 2 },
	{ "past the end", false, -64, 2 },
	{ "largest, at the end", true, -65537 * 64, 65536 },
	{ "largest, past the end", false, -65535 * 64, 65536 },
};

KUNIT_ARRAY_PARAM_DESC(ring, ring_cases, desc);

static void engine_ring(struct kunit *test)
{
	const struct ring_case *c = test->param_value;
	struct precopy_ring ring = { .base = c->base, .size = c->size };

	KUNIT_EXPECT_EQ(test, precopy_ring_valid(&ring), c->valid);
}

/* --- The record --------------------------------------------------------- */

/* A field, where it is in the record and in the state */
struct record_field {
	const char *desc;
	u32 at;
	u32 size;	/* in the state; a bool has 4 bytes in the record */
	size_t member;
};

#define FIELD(_at, _member) \
	{ #_member, _at, sizeof_field(struct precopy_engine_state, _member), \
	  offsetof(struct precopy_engine_state, _member) }
#define JOB_FIELDS(_at, _job) \
	FIELD(_at, _job.op), FIELD((_at) + 4, _job.flags), \
	FIELD((_at) + 8, _job.src), FIELD((_at) + 16, _job.dst), \
	FIELD((_at) + 24, _job.len), FIELD((_at) + 32, _job.seq), \
	FIELD((_at) + 40, _job.pos)

static const struct record_field record_fields[] = {
	FIELD(0, ctrl), FIELD(4, pending), FIELD(8, interval_us), FIELD(16, bytes),
	FIELD(24, ring.base), FIELD(32, ring.size), FIELD(36, ring.head),
	FIELD(40, ring.tail), FIELD(44, ring.vector), FIELD(48, ring.error),
	FIELD(52, ring.phase), FIELD(56, ring.status), JOB_FIELDS(64, ring.job),
	JOB_FIELDS(112, command.job), FIELD(160, command.count),
	FIELD(168, command.done), FIELD(176, command.vector),
	FIELD(180, command.error), FIELD(184, command.active),
	FIELD(192, epf.magic), FIELD(196, epf.command), FIELD(200, epf.status),
	FIELD(204, epf.size), FIELD(208, epf.src), FIELD(216, epf.dst),
	FIELD(224, epf.checksum), FIELD(228, epf.irq_type),
	FIELD(232, epf.irq_number), FIELD(236, epf.flags), FIELD(240, epf.pos),
	FIELD(244, epf.sum),
};

KUNIT_ARRAY_PARAM_DESC(field, record_fields, desc);

static u64 field_value(const struct precopy_engine_state *state,
		       const struct record_field *f)
{
	u64 value = 0;

	memcpy(&value, (void *)state + f->member, f->size);
	return value;
}

/* Each field is at its place, and nowhere else */
static void engine_record_layout(struct kunit *test)
{
	const struct record_field *f = test->param_value;
	u64 value = f->size == sizeof(bool) ? 1 :
		    f->size == sizeof(u32) ? 0x89abcdef : 0x0123456789abcdef;
	struct precopy_engine_state state = {};
	u8 rec[RECORD_LEN], want[RECORD_LEN] = {};

	memcpy((void *)&state + f->member, &value, f->size);
	memset(rec, 0xff, sizeof(rec));
	precopy_engine_encode(&state, (void *)rec);
	if (f->size == sizeof(u64))
		put_unaligned_le64(value, want + f->at);
	else
		put_unaligned_le32(value, want + f->at);
	KUNIT_EXPECT_MEMEQ(test, rec, want, sizeof(rec));
}

/* An engine in the middle of a descriptor and of both kinds of commands */
static const struct precopy_engine_state busy_state = {
	.ctrl = 1,
	.pending = 0xa5,
	.interval_us = 250000,
	.bytes = 0x123456789a,
	.ring = {
		.base = 0x100000040, .size = 16, .head = 3, .tail = 9, .vector = 2,
		.error = 5, .phase = PRECOPY_RING_EXECUTE, .status = 6,
		.job = JOB(COPY, DST_BAR, 0x200000123, 0x7f0000, 0x3000, 0x1000),
	},
	.command = {
		.job = {
			.op = STAMP, .src = 0x8877665544332211, .dst = 0x300000000,
			.len = 0x4000, .seq = 77, .pos = 0x2000,
		},
		.count = 100, .done = 42, .vector = 7, .error = 110, .active = true,
	},
	.epf = {
		.magic = 0xa0a0a0a0, .command = PRECOPY_EPF_COMMAND_WRITE,
		.status = 0x12345678, .size = 0x5000, .src = 0xfedcba9876543210,
		.dst = 0x0123456789abcdef, .checksum = 0xcafef00d,
		.irq_type = PRECOPY_EPF_IRQ_MSIX, .irq_number = 8, .flags = 1,
		.pos = 0x4fff, .sum = 0x13579bdf,
	},
};

static void engine_record_round_trip(struct kunit *test)
{
	static const struct precopy_engine_state initial =
		PRECOPY_ENGINE_STATE_INITIAL;
	static const struct precopy_engine_state * const states[] = {
		&busy_state, &initial,
	};
	const struct record_field *f;
	u8 rec[RECORD_LEN];
	u32 i;

	for (i = 0; i < ARRAY_SIZE(states); i++) {
		struct precopy_engine_state state;

		memset(&state, 0xff, sizeof(state));
		precopy_engine_encode(states[i], (void *)rec);
		KUNIT_ASSERT_EQ(test, 0, precopy_engine_parse((void *)rec,
							      MEMORY_SIZE, &state));
		for (f = record_fields; f < record_fields + ARRAY_SIZE(record_fields); f++)
			KUNIT_EXPECT_EQ_MSG(test, field_value(&state, f),
					    field_value(states[i], f), "%s", f->desc);
	}
}

/* A field of the busy engine with another value; is it an engine still? */
struct range_case {
	const char *desc;
	u32 at;
	u32 width;
	u64 value;
	bool busy;	/* is it, with ring and command in use? */
	bool idle;	/* and with none of them? */
};

static const struct range_case range_cases[] = {
	{ "ctrl: next bit", 0, 4, 3, false, false },
	{ "ctrl: last bit", 0, 4, BIT(31), false, false },
	{ "pending: all", 4, 4, 0xff, true, true },
	{ "pending: vector 8", 4, 4, 0x100, false, false },
	{ "pending: vector 31", 4, 4, BIT(31), false, false },
	{ "interval: longest", 8, 4, U32_MAX, true, true },
	{ "reserved", 12, 4, 1, false, false },
	{ "bytes: most", 16, 8, U64_MAX, true, true },

	{ "ring.base: not aligned", 24, 8, 32, false, true },
	{ "ring.base: past the end", 24, 8, -64, false, true },
	{ "ring.size: 0", 32, 4, 0, false, true },
	{ "ring.size: 17", 32, 4, 17, false, true },
	{ "ring.size: largest", 32, 4, 65536, true, true },
	{ "ring.size: too large", 32, 4, 131072, false, true },
	{ "ring.head: last", 36, 4, 15, true, true },
	{ "ring.head: size", 36, 4, 16, false, true },
	{ "ring.tail: 0", 40, 4, 0, true, true },
	{ "ring.tail: head", 40, 4, 3, true, true },
	{ "ring.tail: size", 40, 4, 16, false, true },
	{ "ring.vector: none", 44, 4, U32_MAX, true, true },
	{ "ring.error: largest", 48, 4, 4095, true, true },
	{ "ring.error: too large", 48, 4, 4096, false, false },
	{ "ring.phase: fetch", 52, 4, 0, true, true },
	{ "ring.phase: complete", 52, 4, 2, true, true },
	{ "ring.phase: 3", 52, 4, 3, false, false },
	{ "ring.phase: 2^32-1", 52, 4, U32_MAX, false, false },
	{ "ring.status: largest", 56, 4, 4095, true, true },
	{ "ring.status: too large", 56, 4, 4096, false, false },
	{ "ring.reserved", 60, 4, BIT(31), false, false },
	{ "ring.job.op", 64, 4, 0, false, true },
	{ "ring.job.flags", 68, 4, BIT(3), false, true },
	{ "ring.job.src: wraps", 72, 8, U64_MAX - 1, false, true },
	{ "ring.job.dst: not in BAR", 80, 8, SZ_8M, false, true },
	{ "ring.job.len: 0", 88, 8, 0, false, true },
	{ "ring.job.len: past BAR", 88, 8, 0x10001, false, true },
	{ "ring.job.seq", 96, 8, U64_MAX, true, true },
	{ "ring.job.pos: last", 104, 8, 0x2fff, true, true },
	{ "ring.job.pos: len", 104, 8, 0x3000, false, true },

	{ "command.job.op", 112, 4, 6, false, true },
	{ "command.job.flags", 116, 4, BIT(31), false, true },
	{ "command.job.src", 120, 8, U64_MAX, true, true },
	{ "command.job.dst: no page", 128, 8, 8, false, true },
	{ "command.job.len: no page", 136, 8, 0x4001, false, true },
	{ "command.job.len: too long", 136, 8, SZ_4G + SZ_4K, false, true },
	{ "command.job.seq", 144, 8, U64_MAX, true, true },
	{ "command.job.pos: no page", 152, 8, 8, false, true },
	{ "command.job.pos: len", 152, 8, 0x4000, false, true },
	{ "command.count: for ever", 160, 8, 0, true, true },
	{ "command.count: done", 160, 8, 42, false, true },
	{ "command.count: one more", 160, 8, 43, true, true },
	{ "command.done: last but one", 168, 8, 99, true, true },
	{ "command.done: count", 168, 8, 100, false, true },
	{ "command.vector: none", 176, 4, U32_MAX, true, true },
	{ "command.error: largest", 180, 4, 4095, true, true },
	{ "command.error: too large", 180, 4, 4096, false, false },
	{ "command.active: 2", 184, 4, 2, false, false },
	{ "command.active: 256", 184, 4, 256, false, false },
	{ "command.reserved", 188, 4, 1, false, false },

	{ "epf.magic", 192, 4, U32_MAX, true, true },
	{ "epf.command: read", 196, 4, BIT(3), true, false },
	{ "epf.command: copy, a sum", 196, 4, BIT(5), false, false },
	{ "epf.command: raise, a pos", 196, 4, BIT(2), false, false },
	{ "epf.command: two", 196, 4, BIT(3) | BIT(4), false, false },
	{ "epf.command: next", 196, 4, BIT(10), false, false },
	{ "epf.command: last bit", 196, 4, BIT(31), false, false },
	{ "epf.command: none, a pos", 196, 4, 0, false, true },
	{ "epf.status", 200, 4, U32_MAX, true, true },
	{ "epf.size: pos", 204, 4, 0x4fff, false, true },
	{ "epf.size: most", 204, 4, U32_MAX, true, true },
	{ "epf.src", 208, 8, U64_MAX, true, true },
	{ "epf.dst: wraps", 216, 8, U64_MAX, true, true },
	{ "epf.checksum", 224, 4, U32_MAX, true, true },
	{ "epf.irq_type: INTx", 228, 4, 0, true, true },
	{ "epf.irq_type: 3", 228, 4, 3, false, true },
	{ "epf.irq_number", 232, 4, U32_MAX, true, true },
	{ "epf.flags", 236, 4, U32_MAX, true, true },
	{ "epf.pos: 0, a sum", 240, 4, 0, false, true },
	{ "epf.pos: size", 240, 4, 0x5000, false, false },
	{ "epf.pos: most", 240, 4, U32_MAX, false, false },
	{ "epf.sum", 244, 4, U32_MAX, true, false },
};

KUNIT_ARRAY_PARAM_DESC(range, range_cases, desc);

static bool record_good(struct precopy_engine_state state,
			const struct range_case *c)
{
	struct precopy_engine_state parsed;
	u8 rec[RECORD_LEN];

	precopy_engine_encode(&state, (void *)rec);
	if (c->width == sizeof(u64))
		put_unaligned_le64(c->value, rec + c->at);
	else
		put_unaligned_le32(c->value, rec + c->at);
	return !precopy_engine_parse((void *)rec, MEMORY_SIZE, &parsed);
}

static void engine_record_range(struct kunit *test)
{
	const struct range_case *c = test->param_value;
	struct precopy_engine_state state = busy_state;

	KUNIT_EXPECT_EQ(test, record_good(state, c), c->busy);
	state.ctrl = 0;
	state.command.active = false;
	state.epf.command = 0;
	state.epf.pos = 0;
	state.epf.sum = 0;
	KUNIT_EXPECT_EQ(test, record_good(state, c), c->idle);
}

/* A command that has not begun has the sum of no byte, whatever it is */
static void engine_record_epf_fresh(struct kunit *test)
{
	static const struct range_case sums[] = {
		{ .at = 244, .width = 4, .value = 0 },
		{ .at = 244, .width = 4, .value = 1 },
	};
	static const struct range_case same = { .at = 240, .width = 4, .value = 0 };
	static const struct range_case last = { .at = 240, .width = 4, .value = 1 };
	struct precopy_engine_state state = busy_state;
	u32 i;

	for (i = 0; i < 10; i++) {
		state.epf.command = BIT(i);
		state.epf.pos = 0;
		state.epf.size = 0;
		state.epf.sum = U32_MAX;
		KUNIT_EXPECT_TRUE(test, record_good(state, &same));
		KUNIT_EXPECT_FALSE(test, record_good(state, &sums[0]));
		KUNIT_EXPECT_FALSE(test, record_good(state, &sums[1]));
	}
	state.epf.command = PRECOPY_EPF_COMMAND_COPY;
	state.epf.size = 2;
	state.epf.pos = 1;
	KUNIT_EXPECT_TRUE(test, record_good(state, &last));
}

/* Only a job that is to be executed has to be one */
static void engine_record_unused_job(struct kunit *test)
{
	static const struct range_case bad_op = { .at = 64, .width = 4, .value = 99 };
	struct precopy_engine_state state = busy_state;

	KUNIT_EXPECT_FALSE(test, record_good(state, &bad_op));
	state.ring.phase = PRECOPY_RING_FETCH;
	KUNIT_EXPECT_TRUE(test, record_good(state, &bad_op));
	state.ring.phase = PRECOPY_RING_COMPLETE;
	KUNIT_EXPECT_TRUE(test, record_good(state, &bad_op));
}

/* --- Registers ---------------------------------------------------------- */

/**
 * struct engine_test - an engine that executes nothing
 * @pcd: its device
 * @pdev: the carrier, which only has a name
 * @engine: the engine
 * @user: buffer in user space
 * @is: contents of BAR0
 * @want: what they are to be
 */
struct engine_test {
	struct precopy_device	pcd;
	struct pci_dev		pdev;
	struct precopy_engine	engine;
	void __user		*user;
	u8			is[PRECOPY_ENGINE_BAR_SIZE];
	u8			want[PRECOPY_ENGINE_BAR_SIZE];
};

static ssize_t register_access(struct kunit *test, u64 at, const void *bytes,
			       size_t len)
{
	struct engine_test *t = test->priv;

	KUNIT_ASSERT_EQ(test, 0, copy_to_user(t->user, bytes, len));
	return precopy_registers_write(&t->engine, t->user, len, at);
}

static u64 register_get(struct kunit *test, u32 at, u32 size)
{
	struct engine_test *t = test->priv;
	u64 value = 0;

	KUNIT_ASSERT_EQ(test, precopy_registers_read(&t->engine, t->user, size, at),
			(ssize_t)size);
	KUNIT_ASSERT_EQ(test, 0, copy_from_user(&value, t->user, size));
	return le64_to_cpu((__force __le64)value);
}

static void register_set(struct kunit *test, u32 at, u32 size, u64 value)
{
	u8 bytes[sizeof(value)];

	put_unaligned_le64(value, bytes);
	KUNIT_ASSERT_EQ(test, register_access(test, at, bytes, size), (ssize_t)size);
}

/* All of BAR0 */
static void registers_get(struct kunit *test, u8 *bytes)
{
	struct engine_test *t = test->priv;
	u32 at;

	for (at = 0; at < PRECOPY_ENGINE_BAR_SIZE; at += MAX_ACCESS) {
		KUNIT_ASSERT_EQ(test, precopy_registers_read(&t->engine, t->user,
							     MAX_ACCESS, at),
				(ssize_t)MAX_ACCESS);
		KUNIT_ASSERT_EQ(test, 0, copy_from_user(bytes + at, t->user, MAX_ACCESS));
	}
}

static void registers_expect(struct kunit *test)
{
	struct engine_test *t = test->priv;

	registers_get(test, t->is);
	KUNIT_EXPECT_MEMEQ(test, t->is, t->want, sizeof(t->is));
}

enum register_kind {
	READ_ONLY, STORED, LOCKED_BY_RING, LOCKED_BY_COMMAND, LOCKED_BY_EPF, ACTS,
};

struct register_case {
	const char *desc;
	u32 at;
	u32 size;
	enum register_kind kind;
	int value;	/* what it reads as, or MEMBER */
	size_t member;
};

#define MEMBER	(-1)
#define REG(_name, _size, _kind, _value) \
	{ #_name, PRECOPY_ENGINE_##_name, _size, _kind, _value, 0 }
#define REG_AT(_name, _at, _kind, _member) \
	{ #_name, _at, sizeof_field(struct precopy_engine_state, _member), _kind, \
	  MEMBER, offsetof(struct precopy_engine_state, _member) }
#define REG_OF(_name, _kind, _member) \
	REG_AT(_name, PRECOPY_ENGINE_##_name, _kind, _member)

/* In the order of their place */
static const struct register_case register_cases[] = {
	/* Of pci-epf-test: their places are not ours to choose */
	REG_AT(EPF_MAGIC, 0x00, STORED, epf.magic),
	REG_AT(EPF_COMMAND, 0x04, ACTS, epf.command),
	REG_AT(EPF_STATUS, 0x08, LOCKED_BY_EPF, epf.status),
	REG_AT(EPF_SRC, 0x0c, LOCKED_BY_EPF, epf.src),
	REG_AT(EPF_DST, 0x14, LOCKED_BY_EPF, epf.dst),
	REG_AT(EPF_SIZE, 0x1c, LOCKED_BY_EPF, epf.size),
	REG_AT(EPF_CHECKSUM, 0x20, LOCKED_BY_EPF, epf.checksum),
	REG_AT(EPF_IRQ_TYPE, 0x24, LOCKED_BY_EPF, epf.irq_type),
	REG_AT(EPF_IRQ_NUMBER, 0x28, LOCKED_BY_EPF, epf.irq_number),
	REG_AT(EPF_FLAGS, 0x2c, LOCKED_BY_EPF, epf.flags),
	{ "EPF_CAPS", 0x30, 4, READ_ONLY, 5, 0 },
	REG(ID, 4, READ_ONLY, PRECOPY_ENGINE_MAGIC),
	REG(VERSION, 4, READ_ONLY, 1),
	REG(CAPS, 4, READ_ONLY, 0x3e),
	REG_OF(CTRL, ACTS, ctrl),
	REG(STATUS, 4, READ_ONLY, 3),
	REG(IRQ_RAISE, 4, ACTS, 0),
	REG_OF(RING_BASE, LOCKED_BY_RING, ring.base),
	REG_OF(RING_SIZE, LOCKED_BY_RING, ring.size),
	REG_OF(RING_HEAD, READ_ONLY, ring.head),
	REG_OF(RING_TAIL, ACTS, ring.tail),
	REG_OF(RING_VECTOR, STORED, ring.vector),
	REG_OF(INTERVAL_US, STORED, interval_us),
	REG_OF(RING_ERROR, READ_ONLY, ring.error),
	REG_OF(CMD_SRC, LOCKED_BY_COMMAND, command.job.src),
	REG_OF(CMD_DST, LOCKED_BY_COMMAND, command.job.dst),
	REG_OF(CMD_LEN, LOCKED_BY_COMMAND, command.job.len),
	REG_OF(CMD_COUNT, LOCKED_BY_COMMAND, command.count),
	REG_OF(CMD_SEQ, LOCKED_BY_COMMAND, command.job.seq),
	REG_OF(CMD_OP, LOCKED_BY_COMMAND, command.job.op),
	REG_OF(CMD_FLAGS, LOCKED_BY_COMMAND, command.job.flags),
	REG_OF(CMD_VECTOR, LOCKED_BY_COMMAND, command.vector),
	REG(CMD_START, 4, ACTS, 1),
	REG_OF(CMD_ERROR, READ_ONLY, command.error),
	REG_OF(CMD_DONE, READ_ONLY, command.done),
	REG_OF(BYTES, READ_ONLY, bytes),
	REG_OF(MSIX_PBA, READ_ONLY, pending),
};

KUNIT_ARRAY_PARAM_DESC(register, register_cases, desc);

/* BAR0 of the busy engine: all registers, and the table of MSI-X; the rest is 0 */
static void registers_busy(struct kunit *test, u8 *bytes)
{
	const struct register_case *c;
	u64 value;

	memset(bytes, 0, PRECOPY_ENGINE_BAR_SIZE);
	memset(bytes + PRECOPY_ENGINE_MSIX_TABLE, 0xff, 16 * PRECOPY_ENGINE_VECTORS);
	for (c = register_cases; c < register_cases + ARRAY_SIZE(register_cases); c++) {
		value = c->value;
		if (c->value == MEMBER) {
			value = 0;
			memcpy(&value, (void *)&busy_state + c->member, c->size);
		}
		if (c->size == sizeof(u64))
			put_unaligned_le64(value, bytes + c->at);
		else
			put_unaligned_le32(value, bytes + c->at);
	}
}

static void engine_registers_do_not_overlap(struct kunit *test)
{
	u32 i;

	for (i = 0; i + 1 < ARRAY_SIZE(register_cases); i++)
		KUNIT_EXPECT_LE_MSG(test, register_cases[i].at + register_cases[i].size,
				    register_cases[i + 1].at, "%s",
				    register_cases[i].desc);
}

static void engine_registers_read(struct kunit *test)
{
	struct engine_test *t = test->priv;

	t->engine.state = busy_state;
	registers_busy(test, t->want);
	registers_expect(test);
}

/* A write changes one register, unless this is read-only or locked */
static void register_write(struct kunit *test, bool ring, bool command, bool epf)
{
	const struct register_case *c = test->param_value;
	struct engine_test *t = test->priv;
	u8 bytes[sizeof(u64)];

	t->engine.state = busy_state;
	t->engine.state.ctrl = ring;
	t->engine.state.command.active = command;
	t->engine.state.epf.command = epf ? PRECOPY_EPF_COMMAND_COPY : 0;
	registers_get(test, t->want);
	memset(bytes, 0x5a, sizeof(bytes));
	KUNIT_EXPECT_EQ(test, register_access(test, c->at, bytes, c->size),
			(ssize_t)c->size);
	if (c->kind == STORED || (c->kind == LOCKED_BY_RING && !ring) ||
	    (c->kind == LOCKED_BY_COMMAND && !command) ||
	    (c->kind == LOCKED_BY_EPF && !epf))
		memcpy(t->want + c->at, bytes, c->size);
	registers_expect(test);
}

static void engine_registers_write(struct kunit *test)
{
	const struct register_case *c = test->param_value;

	/* Each of those has a test of its own */
	if (c->kind == ACTS)
		return;
	register_write(test, false, false, false);
	register_write(test, true, false, false);
	register_write(test, false, true, false);
	register_write(test, false, false, true);
	register_write(test, true, true, true);
}

/* Registers of 8 bytes are two halves, or one */
static void engine_registers_halves(struct kunit *test)
{
	register_set(test, PRECOPY_ENGINE_CMD_SRC, 8, 0x1122334455667788);
	KUNIT_EXPECT_EQ(test, register_get(test, PRECOPY_ENGINE_CMD_SRC, 4), 0x55667788);
	KUNIT_EXPECT_EQ(test, register_get(test, PRECOPY_ENGINE_CMD_SRC + 4, 4),
			0x11223344);
	register_set(test, PRECOPY_ENGINE_CMD_SRC + 4, 4, 0x99aabbcc);
	KUNIT_EXPECT_EQ(test, register_get(test, PRECOPY_ENGINE_CMD_SRC, 8),
			0x99aabbcc55667788);
	register_set(test, PRECOPY_ENGINE_CMD_SRC, 4, 0xddeeff00);
	KUNIT_EXPECT_EQ(test, register_get(test, PRECOPY_ENGINE_CMD_SRC, 8),
			0x99aabbccddeeff00);
}

/* Nothing that is not a register can be written */
static void engine_registers_reserved(struct kunit *test)
{
	static const u8 ones[MAX_ACCESS] = { [0 ... MAX_ACCESS - 1] = 0xff };
	struct engine_test *t = test->priv;
	u32 at;

	t->engine.state = busy_state;
	registers_busy(test, t->want);
	for (at = 0; at < PRECOPY_ENGINE_BAR_SIZE; at += MAX_ACCESS)
		if (at && at != PRECOPY_ENGINE_ID)
			KUNIT_EXPECT_EQ(test, register_access(test, at, ones, MAX_ACCESS),
					(ssize_t)MAX_ACCESS);
	/* Between the registers, and behind them */
	register_set(test, PRECOPY_EPF_CAPS + 4, 8, U64_MAX);
	register_set(test, PRECOPY_EPF_CAPS + 12, 4, U32_MAX);
	register_set(test, PRECOPY_ENGINE_IRQ_RAISE + 4, 8, U64_MAX);
	register_set(test, PRECOPY_ENGINE_RING_BASE - 8, 8, U64_MAX);
	register_set(test, PRECOPY_ENGINE_CMD_SRC - 8, 8, U64_MAX);
	register_set(test, PRECOPY_ENGINE_CMD_DONE - 4, 4, U32_MAX);
	register_set(test, PRECOPY_ENGINE_BYTES + 8, 8, U64_MAX);
	registers_expect(test);
}

struct access_case {
	const char *desc;
	u64 at;
	size_t len;
	ssize_t result;
};

static const struct access_case access_cases[] = {
	{ "dword", 0x1000, 4, 4 },
	{ "two registers", 0x1008, 8, 8 },
	{ "most", 0, 256, 256 },
	{ "more than most", 0, 4096, 256 },
	{ "last dword", 0xfffc, 4, 4 },
	{ "across the end", 0xfffc, 8, 4 },
	{ "nothing", 0x1000, 0, -EINVAL },
	{ "byte", 0x1000, 1, -EINVAL },
	{ "word", 0x1000, 2, -EINVAL },
	{ "6 bytes", 0x1000, 6, -EINVAL },
	{ "not aligned", 0x1002, 4, -EINVAL },
	{ "behind the end", 0x10000, 4, -EINVAL },
	{ "far behind the end", U64_MAX - 3, 4, -EINVAL },
};

KUNIT_ARRAY_PARAM_DESC(access, access_cases, desc);

static void engine_registers_access(struct kunit *test)
{
	const struct access_case *c = test->param_value;
	struct engine_test *t = test->priv;

	KUNIT_EXPECT_EQ(test, precopy_registers_read(&t->engine, t->user, c->len, c->at),
			c->result);
	KUNIT_ASSERT_EQ(test, 0, clear_user(t->user, ACCESS_LEN));
	KUNIT_EXPECT_EQ(test, precopy_registers_write(&t->engine, t->user, c->len, c->at),
			c->result);
}

/* While the registers are in a stream, or replaced by one, they can be read only */
static void engine_registers_frozen(struct kunit *test)
{
	static const u8 frozen[] = {
		VFIO_DEVICE_STATE_STOP_COPY, VFIO_DEVICE_STATE_RESUMING,
	};
	static const u8 not_frozen[] = {
		VFIO_DEVICE_STATE_RUNNING, VFIO_DEVICE_STATE_RUNNING_P2P,
		VFIO_DEVICE_STATE_PRE_COPY, VFIO_DEVICE_STATE_PRE_COPY_P2P,
		VFIO_DEVICE_STATE_STOP,
	};
	struct engine_test *t = test->priv;
	const u8 bytes[4] = { 1, 2, 3, 4 };
	u32 i;

	for (i = 0; i < ARRAY_SIZE(frozen); i++) {
		t->pcd.mig_state = frozen[i];
		KUNIT_EXPECT_EQ(test, register_access(test, PRECOPY_ENGINE_INTERVAL_US,
						      bytes, 4), -EIO);
		KUNIT_EXPECT_EQ(test, register_get(test, PRECOPY_ENGINE_INTERVAL_US, 4), 0);
	}
	for (i = 0; i < ARRAY_SIZE(not_frozen); i++) {
		t->pcd.mig_state = not_frozen[i];
		t->engine.state.interval_us = 0;
		KUNIT_EXPECT_EQ(test, register_access(test, PRECOPY_ENGINE_INTERVAL_US,
						      bytes, 4), 4);
		KUNIT_EXPECT_EQ(test, t->engine.state.interval_us, 0x04030201);
	}
}

/* --- Registers that act -------------------------------------------------- */

static void engine_enable_ring(struct kunit *test, u64 base, u32 size)
{
	register_set(test, PRECOPY_ENGINE_RING_BASE, 8, base);
	register_set(test, PRECOPY_ENGINE_RING_SIZE, 4, size);
	register_set(test, PRECOPY_ENGINE_CTRL, 4, U32_MAX);
}

static void engine_ctrl(struct kunit *test)
{
	struct engine_test *t = test->priv;
	struct precopy_ring *ring = &t->engine.state.ring;

	engine_enable_ring(test, 64, 3);
	KUNIT_EXPECT_EQ(test, t->engine.state.ctrl, 0);
	KUNIT_EXPECT_EQ(test, ring->error, EINVAL);

	ring->head = 7;
	ring->tail = 5;
	ring->phase = PRECOPY_RING_COMPLETE;
	engine_enable_ring(test, 64, 4);
	KUNIT_EXPECT_EQ(test, t->engine.state.ctrl, PRECOPY_ENGINE_CTRL_RING);
	KUNIT_EXPECT_EQ(test, ring->error, 0);
	KUNIT_EXPECT_EQ(test, ring->head, 0);
	KUNIT_EXPECT_EQ(test, ring->tail, 0);
	KUNIT_EXPECT_EQ(test, (int)ring->phase, (int)PRECOPY_RING_FETCH);

	/* Enabling it twice does not begin it anew */
	ring->head = 2;
	register_set(test, PRECOPY_ENGINE_CTRL, 4, PRECOPY_ENGINE_CTRL_RING);
	KUNIT_EXPECT_EQ(test, ring->head, 2);
	register_set(test, PRECOPY_ENGINE_CTRL, 4, 0);
	KUNIT_EXPECT_EQ(test, t->engine.state.ctrl, 0);
}

/* A ring stays enabled until its step has ended */
static void engine_ctrl_while_running(struct kunit *test)
{
	struct engine_test *t = test->priv;

	engine_enable_ring(test, 64, 4);
	t->engine.running = PRECOPY_QUEUE_RING;
	register_set(test, PRECOPY_ENGINE_CTRL, 4, 0);
	KUNIT_EXPECT_EQ(test, t->engine.state.ctrl, PRECOPY_ENGINE_CTRL_RING);
	KUNIT_EXPECT_TRUE(test, t->engine.stop_ring);
}

static void engine_tail(struct kunit *test)
{
	struct engine_test *t = test->priv;
	struct precopy_ring *ring = &t->engine.state.ring;

	register_set(test, PRECOPY_ENGINE_RING_TAIL, 4, 1);
	KUNIT_EXPECT_EQ(test, ring->tail, 0);
	engine_enable_ring(test, 64, 4);
	register_set(test, PRECOPY_ENGINE_RING_TAIL, 4, 3);
	KUNIT_EXPECT_EQ(test, ring->tail, 3);
	KUNIT_EXPECT_EQ(test, register_get(test, PRECOPY_ENGINE_STATUS, 4),
			PRECOPY_ENGINE_STATUS_RING);
	register_set(test, PRECOPY_ENGINE_RING_TAIL, 4, 4);
	KUNIT_EXPECT_EQ(test, ring->tail, 3);
	KUNIT_EXPECT_EQ(test, ring->error, EINVAL);
	KUNIT_EXPECT_EQ(test, t->engine.state.ctrl, 0);
}

/* A driver that takes its doorbell back leaves an engine that can migrate */
static void engine_tail_taken_back(struct kunit *test)
{
	struct engine_test *t = test->priv;
	struct precopy_engine_state *state = &t->engine.state, parsed;
	u8 rec[RECORD_LEN];
	u32 phase;

	*state = busy_state;
	for (phase = PRECOPY_RING_FETCH; phase <= PRECOPY_RING_COMPLETE; phase++) {
		state->ring.phase = phase;
		register_set(test, PRECOPY_ENGINE_RING_TAIL, 4, state->ring.head);
		KUNIT_EXPECT_EQ(test, state->ring.tail, state->ring.head);
		precopy_engine_encode(state, (void *)rec);
		KUNIT_EXPECT_EQ(test, 0, precopy_engine_parse((void *)rec, MEMORY_SIZE,
							      &parsed));
	}
}

static void engine_start(struct kunit *test)
{
	struct engine_test *t = test->priv;
	struct precopy_command *command = &t->engine.state.command;

	register_set(test, PRECOPY_ENGINE_CMD_START, 4, 1);
	KUNIT_EXPECT_FALSE(test, command->active);
	KUNIT_EXPECT_EQ(test, command->error, EOPNOTSUPP);

	register_set(test, PRECOPY_ENGINE_CMD_OP, 4, FILL);
	register_set(test, PRECOPY_ENGINE_CMD_LEN, 8, 4);
	register_set(test, PRECOPY_ENGINE_CMD_START, 4, 1);
	KUNIT_EXPECT_FALSE(test, command->active);
	KUNIT_EXPECT_EQ(test, command->error, EINVAL);

	command->done = 5;
	command->job.pos = 8;
	register_set(test, PRECOPY_ENGINE_CMD_LEN, 8, 8);
	register_set(test, PRECOPY_ENGINE_CMD_START, 4, 2);
	KUNIT_EXPECT_TRUE(test, command->active);
	KUNIT_EXPECT_EQ(test, command->error, 0);
	KUNIT_EXPECT_EQ(test, command->done, 0);
	KUNIT_EXPECT_EQ(test, command->job.pos, 0);
	KUNIT_EXPECT_EQ(test, register_get(test, PRECOPY_ENGINE_CMD_START, 4), 1);
	KUNIT_EXPECT_EQ(test, register_get(test, PRECOPY_ENGINE_STATUS, 4),
			PRECOPY_ENGINE_STATUS_COMMAND);

	register_set(test, PRECOPY_ENGINE_CMD_START, 4, 0);
	KUNIT_EXPECT_FALSE(test, command->active);
	KUNIT_EXPECT_EQ(test, command->error, ECANCELED);
}

static void engine_start_while_running(struct kunit *test)
{
	struct engine_test *t = test->priv;

	t->engine.state = busy_state;
	t->engine.running = PRECOPY_QUEUE_COMMAND;
	register_set(test, PRECOPY_ENGINE_CMD_START, 4, 0);
	KUNIT_EXPECT_TRUE(test, t->engine.state.command.active);
	KUNIT_EXPECT_TRUE(test, t->engine.stop_command);
}

/* --- The registers of pci-epf-test ---------------------------------------- */

/* A command that is one, at once or never */
static void engine_epf_start(struct kunit *test)
{
	struct engine_test *t = test->priv;
	struct precopy_epf *epf = &t->engine.state.epf;
	u32 i;

	for (i = 0; i < 32; i++) {
		*epf = (struct precopy_epf) { .status = U32_MAX, .irq_type = i % 3 };
		register_set(test, 0x04, 4, BIT(i));
		KUNIT_EXPECT_EQ(test, epf->command, i < 10 ? BIT(i) : 0);
		KUNIT_EXPECT_EQ(test, epf->sum, i < 10 ? U32_MAX : 0);
		KUNIT_EXPECT_EQ(test, epf->status, 0);
		/* Another has to wait, and is not taken note of */
		register_set(test, 0x04, 4, PRECOPY_EPF_COMMAND_READ);
		KUNIT_EXPECT_EQ(test, epf->command,
				i < 10 ? BIT(i) : PRECOPY_EPF_COMMAND_READ);
	}
	*epf = (struct precopy_epf) { .status = 7 };
	register_set(test, 0x04, 4, 0);
	KUNIT_EXPECT_EQ(test, epf->status, 7);
	register_set(test, 0x04, 4, 0x18);
	KUNIT_EXPECT_EQ(test, epf->command, 0);
	KUNIT_EXPECT_EQ(test, epf->status, 0);
	epf->irq_type = 3;
	register_set(test, 0x04, 4, PRECOPY_EPF_COMMAND_READ);
	KUNIT_EXPECT_EQ(test, epf->command, 0);
}

struct epf_case {
	const char *desc;
	int ret;
	u32 command;
	u32 invalid;
	u32 sum;	/* of the last step */
	u32 status;	/* but for the interrupt */
	u32 checksum;
};

#define CHECKSUM	0x11111111

static const struct epf_case epf_cases[] = {
	{ "INTx", 0, BIT(0), 0, U32_MAX, 0, CHECKSUM },
	{ "MSI", 0, BIT(1), 0, U32_MAX, 0, CHECKSUM },
	{ "MSI-X", 0, BIT(2), 0, U32_MAX, 0, CHECKSUM },
	{ "read", 0, BIT(3), 0, CHECKSUM, BIT(0), CHECKSUM },
	{ "read: another sum", 0, BIT(3), 0, CHECKSUM + 1, BIT(1), CHECKSUM },
	{ "read: no memory", -EFAULT, BIT(3), BIT(7), CHECKSUM, BIT(7) | BIT(1), CHECKSUM },
	{ "write", 0, BIT(4), 0, 5, BIT(2), 5 },
	{ "write: no memory", -ENXIO, BIT(4), BIT(8), 5, BIT(8) | BIT(3), CHECKSUM },
	{ "copy", 0, BIT(5), 0, U32_MAX, BIT(4), CHECKSUM },
	{ "copy: no source", -EFAULT, BIT(5), BIT(7), U32_MAX, BIT(7) | BIT(5), CHECKSUM },
	{ "copy: no destination", -ENOMEM, BIT(5), BIT(8), U32_MAX, BIT(8) | BIT(5), CHECKSUM },
	{ "doorbell on", 0, BIT(6), 0, U32_MAX, BIT(11), CHECKSUM },
	{ "doorbell off", 0, BIT(7), 0, U32_MAX, BIT(13), CHECKSUM },
	{ "subrange setup", 0, BIT(8), 0, U32_MAX, BIT(15), CHECKSUM },
	{ "subrange clear", 0, BIT(9), 0, U32_MAX, BIT(17), CHECKSUM },
};

KUNIT_ARRAY_PARAM_DESC(epf, epf_cases, desc);

/* A step ends the command; what is answered with which interrupt, and none */
static void epf_end(struct kunit *test, u32 type, u32 number, u32 vector)
{
	const struct epf_case *c = test->param_value;
	struct engine_test *t = test->priv;
	struct precopy_epf *epf = &t->engine.state.epf;
	struct precopy_step step = {};
	bool raises = vector < PRECOPY_ENGINE_VECTORS;

	*epf = (struct precopy_epf) {
		.size = 0x5000, .checksum = CHECKSUM, .irq_type = type,
		.irq_number = number,
	};
	t->engine.quiesced = true;
	t->engine.state.pending = 0;
	register_set(test, 0x04, 4, c->command);
	scoped_guard(spinlock, &t->pcd.state_lock) {
		precopy_epf_plan(&t->engine, &step);
		step.sum = c->sum;
		step.invalid = c->invalid;
		step.len = 0x5000;
		precopy_epf_done(&t->engine, &step, c->ret);
	}
	KUNIT_EXPECT_EQ(test, epf->command, 0);
	KUNIT_EXPECT_EQ(test, epf->pos, 0);
	KUNIT_EXPECT_EQ(test, epf->sum, 0);
	KUNIT_EXPECT_EQ(test, epf->status, c->status | (raises ? BIT(6) : 0));
	KUNIT_EXPECT_EQ(test, epf->checksum, c->checksum);
	KUNIT_EXPECT_EQ(test, t->engine.state.pending, raises ? BIT(vector) : 0);
}

static void engine_epf_end(struct kunit *test)
{
	epf_end(test, 2, 1, 0);
	epf_end(test, 2, 8, 7);
	epf_end(test, 2, 9, U32_MAX);
	epf_end(test, 2, 0, U32_MAX);
	epf_end(test, 1, 1, U32_MAX);
	epf_end(test, 0, 1, U32_MAX);
}

/* It goes on where it was until all bytes are done */
static void engine_epf_steps(struct kunit *test)
{
	struct engine_test *t = test->priv;
	struct precopy_epf *epf = &t->engine.state.epf;
	struct precopy_step step = {};

	*epf = (struct precopy_epf) { .src = 3, .dst = 5, .size = 100 };
	register_set(test, 0x04, 4, PRECOPY_EPF_COMMAND_WRITE);
	guard(spinlock)(&t->pcd.state_lock);
	precopy_epf_plan(&t->engine, &step);
	KUNIT_EXPECT_EQ(test, (int)step.kind, (int)PRECOPY_STEP_EPF);
	KUNIT_EXPECT_EQ(test, step.job.src, 3);
	KUNIT_EXPECT_EQ(test, step.job.dst, 5);
	KUNIT_EXPECT_EQ(test, step.job.len, 100);
	KUNIT_EXPECT_EQ(test, step.sum, U32_MAX);
	step.len = 99;
	step.sum = 42;
	precopy_epf_done(&t->engine, &step, 0);
	KUNIT_EXPECT_EQ(test, epf->command, PRECOPY_EPF_COMMAND_WRITE);
	KUNIT_EXPECT_EQ(test, epf->status, 0);
	precopy_epf_plan(&t->engine, &step);
	KUNIT_EXPECT_EQ(test, step.job.pos, 99);
	KUNIT_EXPECT_EQ(test, step.sum, 42);
	step.len = 1;
	precopy_epf_done(&t->engine, &step, 0);
	KUNIT_EXPECT_EQ(test, epf->command, 0);
	KUNIT_EXPECT_EQ(test, epf->status, PRECOPY_EPF_STATUS_WRITE_SUCCESS);
}

/* A vector that does not exist has no effect; others are kept while quiesced */
static void engine_irq_raise(struct kunit *test)
{
	struct engine_test *t = test->priv;

	register_set(test, PRECOPY_ENGINE_IRQ_RAISE, 4, 3);
	KUNIT_EXPECT_EQ(test, atomic64_read(&t->pcd.stats.irqs_dropped), 1);
	KUNIT_EXPECT_EQ(test, t->engine.state.pending, 0);

	t->engine.quiesced = true;
	register_set(test, PRECOPY_ENGINE_IRQ_RAISE, 4, 3);
	register_set(test, PRECOPY_ENGINE_IRQ_RAISE, 4, 7);
	register_set(test, PRECOPY_ENGINE_IRQ_RAISE, 4, 8);
	register_set(test, PRECOPY_ENGINE_IRQ_RAISE, 4, PRECOPY_ENGINE_NO_VECTOR);
	KUNIT_EXPECT_EQ(test, t->engine.state.pending, BIT(3) | BIT(7));
	KUNIT_EXPECT_EQ(test, register_get(test, PRECOPY_ENGINE_MSIX_PBA, 4),
			BIT(3) | BIT(7));
	KUNIT_EXPECT_EQ(test, atomic64_read(&t->pcd.stats.irqs_dropped), 1);
	KUNIT_EXPECT_EQ(test, atomic64_read(&t->pcd.stats.irqs_kept), 2);
}

static int engine_test_init(struct kunit *test)
{
	struct engine_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	unsigned long user;

	KUNIT_ASSERT_NOT_NULL(test, t);
	KUNIT_ASSERT_EQ(test, 0, precopy_memory_init(&t->pcd.memory, &t->pdev.dev,
						     NULL, 0, NULL));
	test->priv = t;
	user = kunit_vm_mmap(test, NULL, 0, ACCESS_LEN, PROT_READ | PROT_WRITE,
			     MAP_ANONYMOUS | MAP_PRIVATE, 0);
	KUNIT_ASSERT_NE(test, user, 0);
	KUNIT_ASSERT_LT(test, user, TASK_SIZE);
	t->user = (void __user *)user;
	t->pdev.dev.init_name = "kunit";
	t->pcd.pdev = &t->pdev;
	t->pcd.memory.size = MEMORY_SIZE;
	t->pcd.mig_state = VFIO_DEVICE_STATE_RUNNING;
	spin_lock_init(&t->pcd.state_lock);
	t->engine.pcd = &t->pcd;
	t->engine.state = (struct precopy_engine_state)PRECOPY_ENGINE_STATE_INITIAL;
	return 0;
}

static void engine_test_exit(struct kunit *test)
{
	struct engine_test *t = test->priv;

	if (t)
		precopy_memory_destroy(&t->pcd.memory);
}

static struct kunit_case engine_cases[] = {
	KUNIT_CASE_PARAM(engine_job, job_gen_params),
	KUNIT_CASE_PARAM(engine_ring, ring_gen_params),
	KUNIT_CASE_PARAM(engine_record_layout, field_gen_params),
	KUNIT_CASE(engine_record_round_trip),
	KUNIT_CASE_PARAM(engine_record_range, range_gen_params),
	KUNIT_CASE(engine_record_epf_fresh),
	KUNIT_CASE(engine_record_unused_job),
	KUNIT_CASE(engine_registers_do_not_overlap),
	KUNIT_CASE(engine_registers_read),
	KUNIT_CASE_PARAM(engine_registers_write, register_gen_params),
	KUNIT_CASE(engine_registers_halves),
	KUNIT_CASE(engine_registers_reserved),
	KUNIT_CASE_PARAM(engine_registers_access, access_gen_params),
	KUNIT_CASE(engine_registers_frozen),
	KUNIT_CASE(engine_ctrl),
	KUNIT_CASE(engine_ctrl_while_running),
	KUNIT_CASE(engine_tail),
	KUNIT_CASE(engine_tail_taken_back),
	KUNIT_CASE(engine_start),
	KUNIT_CASE(engine_start_while_running),
	KUNIT_CASE(engine_irq_raise),
	KUNIT_CASE(engine_epf_start),
	KUNIT_CASE_PARAM(engine_epf_end, epf_gen_params),
	KUNIT_CASE(engine_epf_steps),
	{}
};

static struct kunit_suite engine_suite = {
	.name = "precopy_engine",
	.init = engine_test_init,
	.exit = engine_test_exit,
	.test_cases = engine_cases,
};

kunit_test_suite(engine_suite);
