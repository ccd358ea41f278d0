/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * attach_dev of struct iommu_domain_ops, for kernels such as 6.18, where it has no third
 * parameter, the domain that the device was attached to. iommu-sim does not use it.
 */
#ifndef _PRECOPY_COMPAT_ATTACH_DEV_H
#define _PRECOPY_COMPAT_ATTACH_DEV_H

#define iommu_sim_attach(domain, dev, ...) iommu_sim_attach(domain, dev)

#endif /* _PRECOPY_COMPAT_ATTACH_DEV_H */
