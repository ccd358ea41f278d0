/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Histograms of times. The buckets of an octave divide it evenly, so that a time
 * is known to 1/HIST_PARTS of itself, and each bucket keeps the sum of its times.
 */
#ifndef VFIO_PRECOPY_BENCH_HIST_H
#define VFIO_PRECOPY_BENCH_HIST_H

#include <stdint.h>

#define HIST_PART_BITS	4
#define HIST_PARTS	16
/* Up to an hour, in ns */
#define HIST_BUCKETS	(40 * HIST_PARTS)

struct hist {
	uint64_t nr[HIST_BUCKETS];
	uint64_t sum[HIST_BUCKETS];
	uint64_t longest;
};

void hist_add(struct hist *hist, uint64_t ns);
/* Add all that @from has. */
void hist_merge(struct hist *hist, const struct hist *from);

uint64_t hist_count(const struct hist *hist);

/*
 * The smallest time that a @share of all times does not exceed, as the mean of its
 * bucket; the longest one if there are too few to tell.
 */
uint64_t hist_quantile(const struct hist *hist, double share);

/* By how much times exceed @ns, in all; times in the bucket of @ns do not count. */
uint64_t hist_excess(const struct hist *hist, uint64_t ns);

#endif /* VFIO_PRECOPY_BENCH_HIST_H */
