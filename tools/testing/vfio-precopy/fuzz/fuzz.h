/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Fuzzing of the stream: what the parts of the fuzzer have in common. What was
 * made of a stream is told the same way by the driver's decoder and by the
 * reference, so that the two can be compared. The selftest that fuzzes a device
 * uses the reference and the mutator too.
 */
#ifndef VFIO_PRECOPY_FUZZ_H
#define VFIO_PRECOPY_FUZZ_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;

#define FUZZ_PAGE		4096UL
#define FILE_HDR_LEN		64
#define REC_HDR_LEN		24
#define ENGINE_LEN		248
#define WINDOW_LEN		8

/* In features_required: the device's model is "engine" */
#define FEATURE_ENGINE		1
/* In features_optional, which no reader knows: the device is of another model */
#define OTHER_MODEL		0x40000000

#ifndef ARRAY_SIZE
#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#endif

/* Stops here, with a stack trace, and keeps the input */
__attribute__((noreturn, format(printf, 1, 2)))
void fuzz_fail(const char *format, ...);

#define FUZZ_CHECK(cond, format, ...)					\
	((cond) ? (void)0 : fuzz_fail("%s: " format, #cond, ##__VA_ARGS__))

/* CRC-32C as the stream has it: inverted before and after; the other is not */
unsigned int crc32_iscsi(unsigned char *p, int len, unsigned int crc);
u32 fuzz_crc(const void *p, size_t len);

/* --- Memory of which only pages that are not zero are kept ------------------- */

struct page_entry {
	u64 number;
	u8 data[FUZZ_PAGE];
};

struct pages {
	struct page_entry **entries;
	size_t nr, room;
};

void pages_free(struct pages *pages);
void pages_store(struct pages *pages, u64 offset, const u8 *data, u64 len);
void pages_zero(struct pages *pages, u64 offset, u64 len);
bool pages_equal(const struct pages *a, const struct pages *b);

/* --- What was made of a stream ------------------------------------------------ */

enum event_kind {
	EV_HEADER = 1, EV_PREFACE, EV_DATA, EV_ZERO, EV_INITIAL_END, EV_STATE,
	EV_END, EV_SKIPPED, EV_SECTION,
};

/* All that the specification lets a reader know of a record */
struct event {
	u32 kind;
	u32 crc;		/* of the bitmap or of the data */
	u64 end;		/* bytes of the stream up to and with it */
	u64 offset;
	u64 nr_bytes;
	u64 in_use;
	u64 startup_ns;
};

/* Which of the two errors a stream may be refused with */
#define REFUSED_INVAL	1
#define REFUSED_NOTSUPP	2

struct outcome {
	struct event *events;
	size_t nr_events, room;
	struct pages memory;
	u8 engine[ENGINE_LEN];	/* the last record of it, */
	bool has_engine;	/* if there was any */
	u64 window;		/* address of BAR2 in the last record of it, or 0 */
	bool saw_window;	/* such a record began, right or not */
	u64 used;		/* bytes taken, with those that were refused */
	u32 refused;
	bool complete;
};

void outcome_add(struct outcome *out, const struct event *event);
void outcome_free(struct outcome *out);

/* The device that the stream is for */
struct fuzz_device {
	u16 vendor, device;
	u32 backend;
	u32 features;
	u64 memory_size;
	bool v1_0;		/* with a driver of before there were features */
};

/* One of a few devices, that which the stream is for if it is among them */
void device_for(struct fuzz_device *dev, const u8 *data, size_t len);

/* reference.c */
void reference_decode(const struct fuzz_device *dev, const u8 *data, size_t len,
		      struct outcome *out);

/* driver.c: by stream.c; chunks of one byte if @seed is 1, of any size if 0 */
void driver_decode(const struct fuzz_device *dev, const u8 *data, size_t len,
		   u64 seed, struct outcome *out);
void driver_encode(const struct fuzz_device *dev, const struct outcome *decoded,
		   const u8 *data, size_t len);

/*
 * target.c: by the driver's target on a model of the kernel, in which things go
 * wrong if @troubled
 */
void target_load(const struct fuzz_device *dev, const u8 *data, size_t len,
		 u64 seed, bool troubled, const struct outcome *must);

/* Is there an engine with such a record, in the eyes of the driver? */
bool target_engine_good(const struct fuzz_device *dev, const u8 *payload);

/* The next of a sequence that @seed begins */
u64 fuzz_random(u64 *seed);

/* What libFuzzer calls: fuzz_stream.c, mutator.c. The second is its own. */
int LLVMFuzzerTestOneInput(const u8 *data, size_t size);
size_t LLVMFuzzerMutate(u8 *data, size_t size, size_t max_size);
size_t LLVMFuzzerCustomMutator(u8 *data, size_t size, size_t max_size,
			       unsigned int seed);
size_t LLVMFuzzerCustomCrossOver(const u8 *data1, size_t size1,
				 const u8 *data2, size_t size2, u8 *out,
				 size_t max_out, unsigned int seed);

/*
 * mutator.c: a new stream for the device that the header in @data is of, all of
 * it as it must be. Its length, or @max if that is not enough.
 */
size_t mutator_fresh(const u8 *data, size_t size, u8 *out, size_t max,
		     unsigned int seed);

#endif /* VFIO_PRECOPY_FUZZ_H */
