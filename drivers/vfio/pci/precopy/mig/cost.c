// SPDX-License-Identifier: GPL-2.0-only
/*
 * How long a startup takes: a fixed part and a part in proportion to the
 * memory, fitted to the last startups of the device under its present user. No
 * user's startups are part of another user's estimate.
 */

#include <linux/bug.h>
#include <linux/cleanup.h>
#include <linux/export.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/sizes.h>
#include <linux/time64.h>
#include <kunit/visibility.h>

#include "cost.h"

/* Time to allocate and zero a MiB if nothing was measured: some 10 GB/s */
#define PRECOPY_COST_ASSUMED_NS	(100 * NSEC_PER_USEC)
/* Longest time that a measurement counts: some 18 minutes */
#define PRECOPY_COST_MAX_US	BIT(30)

/* Steepest slope of a fitted line, so that products do not overflow */
#define PRECOPY_COST_MAX_SLOPE	BIT_ULL(40)

/* Sums over the samples; small enough for products of two in 64 bits */
struct precopy_cost_sums {
	s64 n, x, y, xx, xy;
};

/**
 * precopy_cost_init - set up the samples of a device
 * @cost: the samples, zeroed
 */
void precopy_cost_init(struct precopy_cost *cost)
{
	spin_lock_init(&cost->lock);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_cost_init);

/**
 * precopy_cost_forget - drop all samples
 * @cost: the samples
 *
 * Context: any but interrupts.
 */
void precopy_cost_forget(struct precopy_cost *cost)
{
	guard(spinlock)(&cost->lock);
	cost->nr = 0;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_cost_forget);

/**
 * precopy_cost_add - add the sample of a startup
 * @cost: the samples
 * @bytes: memory that the startup allocated. Less than PRECOPY_COST_MIN_BYTES is
 *	   no sample: a startup that found its memory there says nothing of one
 *	   that has to get it.
 * @ns: time that it took
 *
 * Context: any but interrupts.
 */
void precopy_cost_add(struct precopy_cost *cost, u64 bytes, u64 ns)
{
	unsigned int i;

	if (bytes < PRECOPY_COST_MIN_BYTES)
		return;
	guard(spinlock)(&cost->lock);
	i = cost->nr++ % PRECOPY_COST_SAMPLES;
	cost->mib[i] = min_t(u64, bytes / SZ_1M, U16_MAX + 1);
	cost->us[i] = min_t(u64, div_u64(ns, NSEC_PER_USEC),
			    PRECOPY_COST_MAX_US);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_cost_add);

static struct precopy_cost_sums precopy_cost_sum(const struct precopy_cost *cost)
{
	struct precopy_cost_sums s = {
		.n = min(cost->nr, PRECOPY_COST_SAMPLES),
	};
	unsigned int i;

	for (i = 0; i < s.n; i++) {
		s.x += cost->mib[i];
		s.y += cost->us[i];
		s.xx += (u64)cost->mib[i] * cost->mib[i];
		s.xy += (u64)cost->mib[i] * cost->us[i];
	}
	return s;
}

/* ns for each MiB: least squares, or as assumed if all samples are of a size */
static s64 precopy_cost_slope(const struct precopy_cost_sums *s)
{
	s64 spread = s->n * s->xx - s->x * s->x;

	if (spread)
		return clamp_t(s64,
			       div64_s64((s->n * s->xy - s->x * s->y) *
					 NSEC_PER_USEC, spread),
			       0, PRECOPY_COST_MAX_SLOPE);
	/* But the fixed part is not negative */
	return min_t(s64, PRECOPY_COST_ASSUMED_NS,
		     s->x ? div64_s64(s->y * NSEC_PER_USEC, s->x) : S64_MAX);
}

/**
 * precopy_cost_estimate - estimate how long a startup will take
 * @cost: the samples
 * @bytes: memory that it will have to allocate
 * @measured: result: whether the estimate comes from samples
 *
 * Context: any but interrupts.
 * Return: ns.
 */
u64 precopy_cost_estimate(struct precopy_cost *cost, u64 bytes, bool *measured)
{
	s64 mib = min_t(u64, bytes / SZ_1M, U16_MAX + 1);
	struct precopy_cost_sums s;

	scoped_guard(spinlock, &cost->lock)
		s = precopy_cost_sum(cost);
	*measured = s.n;
	if (!s.n)
		return mib * PRECOPY_COST_ASSUMED_NS;
	/* The line goes through the middle of the samples */
	return max_t(s64, 0,
		     div64_s64(s.y * NSEC_PER_USEC + (mib * s.n - s.x) *
			       precopy_cost_slope(&s), s.n));
}
EXPORT_SYMBOL_IF_KUNIT(precopy_cost_estimate);
