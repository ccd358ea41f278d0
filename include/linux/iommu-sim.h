/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _LINUX_IOMMU_SIM_H
#define _LINUX_IOMMU_SIM_H

#include <linux/types.h>

struct device;
struct pci_host_bridge;

int iommu_sim_add_bridge(struct pci_host_bridge *bridge);
void iommu_sim_remove_bridge(struct pci_host_bridge *bridge);

int iommu_sim_dma_rw(struct device *dev, dma_addr_t iova, void *buf,
		     size_t len, bool write);

#endif /* _LINUX_IOMMU_SIM_H */
