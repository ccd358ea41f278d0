/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * domain_alloc_paging_flags of struct iommu_ops, for kernels such as 6.12, which ask a
 * driver for a domain without flags by domain_alloc_paging. Those ask for flags as well, for
 * iommufd, by domain_alloc_user, which is not provided.
 */
#ifndef _PRECOPY_COMPAT_DOMAIN_ALLOC_PAGING_FLAGS_H
#define _PRECOPY_COMPAT_DOMAIN_ALLOC_PAGING_FLAGS_H

#include <linux/iommu.h>

struct precopy_compat_iommu_ops {
	struct iommu_ops;
	struct iommu_domain *(*domain_alloc_paging_flags)
		(struct device *dev, u32 flags,
		 const struct iommu_user_data *user_data);
};

static inline struct iommu_domain *
precopy_compat_domain_alloc_paging(struct device *dev)
{
	const struct precopy_compat_iommu_ops *ops =
		(const void *)dev->iommu->iommu_dev->ops;

	return ops->domain_alloc_paging_flags(dev, 0, NULL);
}

/* A module has one set of operations */
static inline int
precopy_compat_iommu_register(struct iommu_device *iommu,
			      const struct precopy_compat_iommu_ops *ops,
			      struct device *hwdev)
{
	static struct precopy_compat_iommu_ops known;

	known = *ops;
	known.domain_alloc_paging = precopy_compat_domain_alloc_paging;
	return iommu_device_register(iommu, (const void *)&known, hwdev);
}

#define iommu_ops precopy_compat_iommu_ops
#define iommu_device_register precopy_compat_iommu_register

#endif /* _PRECOPY_COMPAT_DOMAIN_ALLOC_PAGING_FLAGS_H */
