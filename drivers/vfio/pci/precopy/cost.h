/* SPDX-License-Identifier: GPL-2.0-only */
/* How long startups take on this host: a line through what was measured. */
#ifndef PRECOPY_COST_H
#define PRECOPY_COST_H

#include <linux/spinlock.h>
#include <linux/types.h>

#define PRECOPY_COST_SAMPLES	8

/**
 * struct precopy_cost - what startups of one kind of backend took
 * @lock: everything below
 * @nr: startups measured; the last PRECOPY_COST_SAMPLES of them are kept
 * @mib: what they prepared, MiB
 * @us: how long they took, us
 */
struct precopy_cost {
	spinlock_t	lock;	/* see above */
	unsigned int	nr;
	u32		mib[PRECOPY_COST_SAMPLES];
	u32		us[PRECOPY_COST_SAMPLES];
};

#define PRECOPY_COST_INIT(name) { .lock = __SPIN_LOCK_UNLOCKED((name).lock) }

void precopy_cost_add(struct precopy_cost *cost, u64 bytes, u64 ns);
u64 precopy_cost_estimate(struct precopy_cost *cost, u64 bytes,
			  bool *measured);

#endif /* PRECOPY_COST_H */
