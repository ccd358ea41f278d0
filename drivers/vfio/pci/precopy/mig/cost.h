/* SPDX-License-Identifier: GPL-2.0-only */
/* How long startups of a device take: a line through what was measured. */
#ifndef PRECOPY_COST_H
#define PRECOPY_COST_H

#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/types.h>

#define PRECOPY_COST_SAMPLES	8
/* The smallest memory that is a sample, bytes: the smallest BAR */
#define PRECOPY_COST_MIN_BYTES	SZ_1M

/**
 * struct precopy_cost - startups of one device, measured
 * @lock: protects everything below
 * @nr: number of samples taken; the last PRECOPY_COST_SAMPLES of them are kept
 * @mib: memory that each startup allocated, MiB
 * @us: time that each startup took, us
 */
struct precopy_cost {
	spinlock_t	lock;	/* see above */
	unsigned int	nr;
	u32		mib[PRECOPY_COST_SAMPLES];
	u32		us[PRECOPY_COST_SAMPLES];
};

void precopy_cost_init(struct precopy_cost *cost);
void precopy_cost_forget(struct precopy_cost *cost);
void precopy_cost_add(struct precopy_cost *cost, u64 bytes, u64 ns);
u64 precopy_cost_estimate(struct precopy_cost *cost, u64 bytes,
			  bool *measured);

#endif /* PRECOPY_COST_H */
