/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _IOMMU_SIM_TEST_H
#define _IOMMU_SIM_TEST_H

#include <linux/types.h>

#define IOMMU_SIM_MAX_DELAY_US	10000u

extern u32 iommu_sim_delay_us;

#endif /* _IOMMU_SIM_TEST_H */
