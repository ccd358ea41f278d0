// SPDX-License-Identifier: GPL-2.0-only
/*
 * seeds DIR: writes the streams that fuzzing begins with. The golden ones, which
 * KUnit and the selftests load as well, and some made by the driver's encoder.
 */
#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"
#include "kshim.h"
#include "golden.h"
#include "mig/stream.h"

static const char *dir;

static void write_seed(const char *name, const void *data, size_t len)
{
	char path[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, name);
	f = fopen(path, "w");
	if (!f || fwrite(data, 1, len, f) != len || fclose(f)) {
		perror(path);
		exit(1);
	}
}

/* How the reader of a version gets on with a stream: 0, or how it refuses it */
static u32 reads(bool v1_0, u32 features, const void *data, size_t len)
{
	struct fuzz_device dev = {
		.vendor = GOLDEN_VENDOR, .device = GOLDEN_DEVICE, .backend = 1,
		.features = features, .memory_size = GOLDEN_MEMORY_SIZE, .v1_0 = v1_0,
	};
	struct outcome out = {};
	u32 refused;

	reference_decode(&dev, data, len, &out);
	FUZZ_CHECK(out.complete == !out.refused, "neither complete nor refused");
	FUZZ_CHECK(out.complete || out.used == FILE_HDR_LEN, "refused at %lu", out.used);
	refused = out.refused;
	outcome_free(&out);
	return refused;
}

/* A device without features has to get on with @features == 0, whatever its version */
static void write_golden_one(const char *name, u32 features, const void *data, size_t len)
{
	write_seed(name, data, len);
	FUZZ_CHECK(!reads(false, features, data, len), "%s", name);
	FUZZ_CHECK(reads(true, 0, data, len) == (features ? REFUSED_NOTSUPP : 0), "%s", name);
	FUZZ_CHECK(reads(false, features ^ FEATURE_ENGINE, data, len) == REFUSED_INVAL,
		   "%s and another model", name);
}

static void write_golden(void)
{
	static u8 stream[GOLDEN_V1_0_LEN];

	golden_v1_0(stream);
	write_golden_one("golden-1.0", 0, stream, sizeof(stream));
	write_golden_one("golden-1.1", FEATURE_ENGINE, golden_v1_1, sizeof(golden_v1_1));
	write_golden_one("golden-1.7", 0, golden_v1_7, sizeof(golden_v1_7));
}

struct writer {
	struct precopy_encoder enc;
	u8 buf[1 << 20];
	size_t len;
};

static void put_preface(struct writer *w, u32 nr_used)
{
	u64 bitmap[PRECOPY_MAX_UNITS / 64] = {};
	u32 i, nr = precopy_stream_units(w->enc.params.memory_size);

	nr_used = min(nr_used, nr);
	for (i = 0; i < nr_used; i++)
		bitmap[i / 64] |= 1ULL << i % 64;
	w->len += precopy_encode_preface(&w->enc, w->buf + w->len,
					 min(nr_used * (u64)PRECOPY_UNIT_SIZE,
					     w->enc.params.memory_size), 1000000,
					 (unsigned long *)bitmap, nr);
}

static void put_data(struct writer *w, u64 offset, u32 nr_pages)
{
	u8 *p = w->buf + w->len;

	memset(p + REC_HDR_LEN, 0x11 * nr_pages, nr_pages * FUZZ_PAGE);
	w->len += precopy_encode_record(&w->enc, p, PRECOPY_REC_DATA, offset,
					nr_pages * FUZZ_PAGE);
}

static void put_zero(struct writer *w, u64 offset, u64 len)
{
	w->len += precopy_encode_zero(&w->enc, w->buf + w->len, offset, len);
}

static void put_initial_end(struct writer *w)
{
	w->len += precopy_encode_record(&w->enc, w->buf + w->len,
					PRECOPY_REC_INITIAL_END, 0, 0);
}

static void put_tail(struct writer *w)
{
	w->len += precopy_encode_state(&w->enc, w->buf + w->len,
				       w->enc.params.memory_size / 2);
	w->len += precopy_encode_end(&w->enc, w->buf + w->len);
}

/* The engine's, as it is after a reset, or with a command that is half done */
static void put_engine(struct writer *w, bool busy)
{
	u8 *p = w->buf + w->len + REC_HDR_LEN;

	memcpy(p, golden_v1_1 + GOLDEN_V1_1_ENGINE, ENGINE_LEN);
	if (!busy) {
		memset(p, 0, ENGINE_LEN);
		memset(p + 44, 0xff, 4);
		memset(p + 176, 0xff, 4);
	}
	w->len += precopy_encode_record(&w->enc, w->buf + w->len, PRECOPY_REC_ENGINE,
					0, ENGINE_LEN);
}

static void begin(struct writer *w, u64 memory_size, u32 features)
{
	struct precopy_stream_params params = {
		.vendor = 0x1b36, .device = 5, .backend = PRECOPY_BACKEND_RAM,
		.features = features, .memory_size = memory_size,
	};

	precopy_encoder_init(&w->enc, &params);
	w->len = precopy_encode_header(&w->enc, w->buf);
}

/* As the driver writes them, and with initial data that begins anew */
static void write_encoded(struct writer *w, u64 memory_size, const char *name)
{
	char again[64], none[64];

	snprintf(none, sizeof(none), "%s-empty", name);
	begin(w, memory_size, 0);
	put_preface(w, 0);
	put_initial_end(w);
	put_tail(w);
	write_seed(none, w->buf, w->len);

	begin(w, memory_size, 0);
	put_preface(w, 3);
	put_data(w, 0, 1);
	put_zero(w, FUZZ_PAGE, 16 * FUZZ_PAGE);
	put_initial_end(w);
	put_zero(w, 0, memory_size);
	put_data(w, memory_size - 2 * FUZZ_PAGE, 2);
	put_tail(w);
	write_seed(name, w->buf, w->len);

	snprintf(again, sizeof(again), "%s-again", name);
	begin(w, memory_size, 0);
	put_preface(w, 1);
	put_initial_end(w);
	put_data(w, 0, 1);
	put_preface(w, ~0U);
	put_zero(w, 0, FUZZ_PAGE);
	put_initial_end(w);
	put_tail(w);
	write_seed(again, w->buf, w->len);
}

/* Of an engine: once, and once more after the initial data begins anew */
static void write_engine(struct writer *w, const char *name)
{
	begin(w, 8ULL << 20, FEATURE_ENGINE);
	put_preface(w, 1);
	put_initial_end(w);
	put_engine(w, false);
	put_preface(w, 1);
	put_data(w, 0, 1);
	put_initial_end(w);
	put_engine(w, true);
	put_tail(w);
	write_seed(name, w->buf, w->len);
}

/* A field of the golden engine at a limit or beyond it, in a stream that is good */
static const struct limit {
	u8 at, width;
	u64 value;
} limits[] = {
	{ 0, 4, 2 }, { 4, 4, 0xff }, { 4, 4, 0x100 }, { 12, 4, 1 }, { 24, 8, 32 },
	{ 24, 8, -64 * 17 }, { 24, 8, -64 * 16 }, { 32, 4, 1 }, { 32, 4, 17 },
	{ 32, 4, 65536 }, { 32, 4, 131072 }, { 36, 4, 15 }, { 36, 4, 16 }, { 40, 4, 3 },
	{ 40, 4, 16 }, { 48, 4, 4095 }, { 48, 4, 4096 }, { 52, 4, 2 }, { 52, 4, 3 },
	{ 56, 4, 4095 }, { 56, 4, 4096 }, { 60, 4, 1 }, { 64, 4, 0 }, { 64, 4, 6 },
	{ 68, 4, 7 }, { 68, 4, 8 }, { 72, 8, -0x3000 }, { 72, 8, -0x2fff },
	{ 80, 8, 0x7fd000 }, { 80, 8, 0x7fd001 }, { 88, 8, 0 }, { 88, 8, 0x10000 },
	{ 88, 8, 0x10001 }, { 104, 8, 0x2fff }, { 104, 8, 0x3000 }, { 112, 4, 2 },
	{ 112, 4, 4 }, { 112, 4, 5 }, { 128, 8, 0x800 }, { 136, 8, 1ULL << 32 },
	{ 136, 8, (1ULL << 32) + 4096 }, { 152, 8, 0x3000 }, { 152, 8, 0x4000 },
	{ 160, 8, 0 }, { 160, 8, 42 }, { 160, 8, 43 }, { 168, 8, 99 }, { 168, 8, 100 },
	{ 180, 4, 4095 }, { 180, 4, 4096 }, { 184, 4, 0 }, { 184, 4, 2 }, { 188, 4, 1 },
	{ 196, 4, 0 }, { 196, 4, 4 }, { 196, 4, 16 }, { 196, 4, 32 }, { 196, 4, 512 },
	{ 196, 4, 1024 }, { 196, 4, 24 }, { 204, 4, 0 }, { 204, 4, 0x2ff1 },
	{ 204, 4, 0x2ff0 }, { 228, 4, 0 }, { 228, 4, 3 }, { 232, 4, 0 }, { 232, 4, ~0U },
	{ 240, 4, 0 }, { 240, 4, 0x5000 }, { 240, 4, 0x5001 }, { 244, 4, ~0U },
	{ 244, 4, 0 },
};

static void write_limit(struct writer *w, const struct limit *limit)
{
	char name[64];
	u8 *record;

	begin(w, 8ULL << 20, FEATURE_ENGINE);
	put_preface(w, 0);
	put_initial_end(w);
	record = w->buf + w->len;
	memcpy(record + REC_HDR_LEN, golden_v1_1 + GOLDEN_V1_1_ENGINE, ENGINE_LEN);
	memcpy(record + REC_HDR_LEN + limit->at, &limit->value, limit->width);
	w->len += precopy_encode_record(&w->enc, record, PRECOPY_REC_ENGINE, 0, ENGINE_LEN);
	put_tail(w);
	snprintf(name, sizeof(name), "engine-%u-%lx", limit->at, limit->value);
	write_seed(name, w->buf, w->len);
}

/* An engine that is good, and something after it that is not */
static void write_engine_then_refused(struct writer *w, const char *name)
{
	begin(w, 8ULL << 20, FEATURE_ENGINE);
	put_preface(w, 0);
	put_initial_end(w);
	put_engine(w, true);
	w->len += precopy_encode_state(&w->enc, w->buf + w->len, (8ULL << 20) + 1);
	write_seed(name, w->buf, w->len);
}

/* The address of BAR2, good or in one of the ways in which it is not */
static void write_window(struct writer *w, const char *name, bool optional, u64 address,
			 u32 len, u32 in_use)
{
	u8 *record;

	begin(w, 8ULL << 20, 0);
	put_preface(w, 0);
	put_initial_end(w);
	record = w->buf + w->len;
	memcpy(record + REC_HDR_LEN, &address, sizeof(address));
	if (optional)
		w->len += precopy_encode_optional(&w->enc, record, PRECOPY_REC_WINDOW, 0, len);
	else
		w->len += precopy_encode_record(&w->enc, record, PRECOPY_REC_WINDOW, 0, len);
	w->len += precopy_encode_state(&w->enc, w->buf + w->len, in_use);
	w->len += precopy_encode_end(&w->enc, w->buf + w->len);
	write_seed(name, w->buf, w->len);
}

static void write_windows(struct writer *w)
{
	write_window(w, "window", true, 0xfe00000000, WINDOW_LEN, 0);
	write_window(w, "window-none", true, 0, WINDOW_LEN, 0);
	write_window(w, "window-mandatory", false, 0xfe00000000, WINDOW_LEN, 0);
	write_window(w, "window-between", true, 0xfe00400000, WINDOW_LEN, 0);
	write_window(w, "window-short", true, 0, WINDOW_LEN - 1, 0);
	write_window(w, "window-long", true, 0, WINDOW_LEN + 1, 0);
	write_window(w, "window-then-refused", true, 0xfe00000000, WINDOW_LEN,
		     (8U << 20) + 1);
}

/* A header that a device of the other model refuses; see device_for() */
static void write_other_model(struct writer *w, u32 features, const char *name)
{
	u32 crc, optional = OTHER_MODEL;

	begin(w, 8ULL << 20, features);
	memcpy(w->buf + 20, &optional, 4);
	memset(w->buf + 60, 0, 4);
	crc = fuzz_crc(w->buf, FILE_HDR_LEN);
	memcpy(w->buf + 60, &crc, 4);
	write_seed(name, w->buf, w->len);
}

int main(int argc, char **argv)
{
	struct writer *w = calloc(1, sizeof(*w));
	size_t i;

	if (argc != 2 || argv[1][0] == '-') {
		fprintf(stderr, "usage: seeds DIR\n");
		return 2;
	}
	dir = argv[1];
	write_golden();
	write_encoded(w, 1ULL << 20, "encoded-1M");
	write_encoded(w, 8ULL << 20, "encoded-8M");
	write_encoded(w, 64ULL << 30, "encoded-64G");
	write_engine(w, "encoded-engine");
	for (i = 0; i < ARRAY_SIZE(limits); i++)
		write_limit(w, &limits[i]);
	write_engine_then_refused(w, "engine-then-refused");
	write_windows(w);
	write_other_model(w, 0, "other-model-memory");
	write_other_model(w, FEATURE_ENGINE, "other-model-engine");
	free(w);
	return 0;
}
