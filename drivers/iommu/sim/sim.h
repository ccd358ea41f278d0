/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _IOMMU_SIM_SIM_H
#define _IOMMU_SIM_SIM_H

#include <linux/iommu.h>
#include <linux/spinlock_types.h>
#include <linux/types.h>

#include "pgtable.h"

/**
 * struct iommu_sim_domain - a paging domain
 * @domain: domain of the IOMMU core
 * @pt: page table
 * @lock: held for read while DMA uses a translation; taken for write to wait
 *	until all such uses have ended
 * @tracking: true if iommufd has enabled dirty tracking, so that dirty bits may
 *	be read
 */
struct iommu_sim_domain {
	struct iommu_domain domain;
	struct iommu_sim_pt pt;
	rwlock_t lock;
	bool tracking;
};

/**
 * struct iommu_sim_device - a claimed function
 * @lock: protects @domain; held for reading during DMA, taken before the lock
 *	of the domain
 * @domain: paging domain that the function is attached to, NULL if blocked
 */
struct iommu_sim_device {
	rwlock_t lock;
	struct iommu_sim_domain *domain;
};

extern struct iommu_device iommu_sim;
extern struct iommu_domain iommu_sim_blocked;

struct iommu_domain *
iommu_sim_domain_alloc(struct device *dev, u32 flags,
		       const struct iommu_user_data *user_data);

#endif /* _IOMMU_SIM_SIM_H */
