// SPDX-License-Identifier: GPL-2.0-only
/*
 * The fuzzer. An input is a stream as it is written to a resuming device,
 * followed or not by a trailer with a seed for how it is cut:
 *
 *   "@split" u16:0 u64:seed
 *
 * What the driver's decoder makes of it must not depend on how it is cut, and
 * must be what the reference makes of it: every event, every byte of memory, the
 * error and its place. What it accepts, the encoder writes the same way.
 */
#include <stdlib.h>

#include "fuzz.h"
#include "kshim.h"
#include "trailer.h"

/* Larger ones are cut at random only, for the sake of speed */
#define BYTE_BY_BYTE	(3 * FUZZ_PAGE)

/* A handful of sizes of memory; one that the stream asks for, if it is there */
void device_for(struct fuzz_device *dev, const u8 *data, size_t len)
{
	static const u64 sizes[] = {
		8ULL << 20, 1ULL << 20, 4ULL << 20, 256ULL << 20, 64ULL << 30,
	};
	u64 wanted = 0;
	u32 features[2] = {};
	size_t i;

	*dev = (struct fuzz_device) {
		.vendor = 0x1b36, .device = 5, .backend = 1,
		.memory_size = sizes[0],
	};
	if (len >= 48)
		memcpy(&wanted, data + 40, 8);
	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		if (sizes[i] == wanted)
			dev->memory_size = wanted;
	if (len >= 24)
		memcpy(features, data + 16, 8);
	dev->features = features[0] & FEATURE_ENGINE;
	if (features[1] & OTHER_MODEL)
		dev->features ^= FEATURE_ENGINE;
}

static void check_same(const struct outcome *is, const struct outcome *want,
		       u64 seed)
{
	size_t i;

	for (i = 0; i < min(is->nr_events, want->nr_events); i++)
		FUZZ_CHECK(!memcmp(&is->events[i], &want->events[i],
				   sizeof(*is->events)),
			   "event %zu is %u at %lu, not %u at %lu (seed %lu)", i,
			   is->events[i].kind, is->events[i].end,
			   want->events[i].kind, want->events[i].end, seed);
	FUZZ_CHECK(is->nr_events == want->nr_events,
		   "%zu events, not %zu (seed %lu)", is->nr_events,
		   want->nr_events, seed);
	FUZZ_CHECK(is->used == want->used, "%lu bytes used, not %lu (seed %lu)",
		   is->used, want->used, seed);
	FUZZ_CHECK(!is->refused == !want->refused &&
		   (is->refused & want->refused) == is->refused,
		   "refused %u, not %u (seed %lu)", is->refused, want->refused,
		   seed);
	FUZZ_CHECK(is->complete == want->complete, "seed %lu", seed);
	FUZZ_CHECK(pages_equal(&is->memory, &want->memory), "seed %lu", seed);
}

static void check_cut(const struct fuzz_device *dev, const u8 *data, size_t len,
		      u64 seed, const struct outcome *want)
{
	struct outcome is = {};

	driver_decode(dev, data, len, seed, &is);
	check_same(&is, want, seed);
	outcome_free(&is);
}

/* A driver of version 1.0, which cannot load what it does not know */
static void check_older(const struct fuzz_device *dev, const u8 *data, size_t len,
			const struct outcome *want)
{
	struct fuzz_device older = *dev;
	struct outcome is = {};
	u32 features = 0;
	u16 minor = 0;

	older.v1_0 = true;
	older.features = 0;
	reference_decode(&older, data, len, &is);
	if (len >= 20) {
		memcpy(&minor, data + 10, 2);
		memcpy(&features, data + 16, 4);
	}
	if (features)
		FUZZ_CHECK(!is.nr_events && !is.complete &&
			   (is.refused & REFUSED_NOTSUPP || want->refused || !want->nr_events),
			   "%zu events, refused %u", is.nr_events, is.refused);
	else if (!dev->features && minor != 1 && !want->saw_window)
		check_same(&is, want, 0);
	outcome_free(&is);
}

int LLVMFuzzerTestOneInput(const u8 *data, size_t size)
{
	struct outcome want = {};
	struct fuzz_device dev;
	size_t len = size;
	u64 seed;

	seed = trailer_cut(data, &len);
	device_for(&dev, data, len);
	reference_decode(&dev, data, len, &want);
	check_older(&dev, data, len, &want);
	check_cut(&dev, data, len, 0, &want);
	check_cut(&dev, data, len, seed | 2, &want);
	if (len <= BYTE_BY_BYTE)
		check_cut(&dev, data, len, 1, &want);
	target_load(&dev, data, len, seed, false, &want);
	target_load(&dev, data, len, seed, true, &want);
	driver_encode(&dev, &want, data, len);
	outcome_free(&want);
	return 0;
}
