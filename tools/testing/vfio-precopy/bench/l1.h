/* SPDX-License-Identifier: GPL-2.0-only */
/* What the programs share that measure the driver itself. */
#ifndef VFIO_PRECOPY_BENCH_L1_H
#define VFIO_PRECOPY_BENCH_L1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/vfio_pci_migration.h>

#include "bench.h"

/*
 * The command line: [--size BYTES] [--reps N] [--quick] [--in-use MIB,...]
 * [--threads N] BDF...
 */
struct bench_options {
	size_t size;
	int reps;
	bool quick;
	const char *in_use;
	int threads;
	char **bdfs;
	int nr_bdfs;
};

void bench_options(struct bench_options *opt, int argc, char **argv,
		   int need_bdfs);

/* State changes and reads that must not fail. */
int bench_set_state(struct precopy_dev *pd, u32 state);

/*
 * Samples @ns as @key, and as "@key.inner" what the driver itself says of the same
 * step, if anything.
 */
void bench_sample_step(struct precopy_dev *pd, double x, const char *key,
		       uint64_t ns, const char *stat);

/*
 * Maps @size bytes of the BAR, @shift bytes behind an address aligned to 2 MiB, or
 * at @at unless it is NULL.
 */
char *bench_map_bar(struct precopy_dev *pd, char *at, size_t size, size_t shift);

/*
 * Reads to the (temporary) end in pieces of @buf_size. Returns the nanoseconds
 * that it took; @bytes, if not NULL, is how much came.
 */
uint64_t bench_drain(int data_fd, void *buf, size_t buf_size, uint64_t *bytes);

/* One store to each of @nr pages. */
static inline void touch_pages(void *at, uint64_t nr, uint64_t value)
{
	volatile uint64_t *word = at;
	uint64_t i;

	for (i = 0; i < nr; i++)
		word[i * (PAGE / sizeof(*word))] = value;
}

/* The same, as nanoseconds a page. */
double touch_ns(void *at, uint64_t nr, uint64_t value);

#endif /* VFIO_PRECOPY_BENCH_L1_H */
