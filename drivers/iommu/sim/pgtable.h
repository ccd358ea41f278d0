/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef _IOMMU_SIM_PGTABLE_H
#define _IOMMU_SIM_PGTABLE_H

#include <linux/list.h>
#include <linux/spinlock_types.h>
#include <linux/types.h>

/* Number of bits of an I/O virtual address (IOVA) */
#define IOMMU_SIM_IOVA_BITS	48

/* Permissions of a mapping */
#define IOMMU_SIM_READ		BIT(0)
#define IOMMU_SIM_WRITE		BIT(1)

/**
 * struct iommu_sim_pt - page table from IOVA to physical addresses
 * @top: table of the highest level, 512 entries
 * @lock: protects @retired
 * @retired: tables that no entry refers to any more; a walk that began before
 *	their removal may still use them
 *
 * Distinct ranges may be changed concurrently. The caller ensures that no two
 * tasks change or scan the same range at the same time. Walks by
 * iommu_sim_pt_access() may run concurrently with all of these, if the caller
 * ensures that all walks have ended before it frees retired tables.
 */
struct iommu_sim_pt {
	unsigned long *top;
	/* Protects retired */
	spinlock_t lock;
	struct list_head retired;
};

int iommu_sim_pt_init(struct iommu_sim_pt *pt);
void iommu_sim_pt_destroy(struct iommu_sim_pt *pt);
int iommu_sim_pt_map(struct iommu_sim_pt *pt, u64 iova, phys_addr_t paddr,
		     size_t pgsize, size_t pgcount, unsigned long perm,
		     gfp_t gfp, size_t *mapped);
size_t iommu_sim_pt_unmap(struct iommu_sim_pt *pt, u64 iova, size_t size);
int iommu_sim_pt_access(struct iommu_sim_pt *pt, u64 iova, bool write,
			phys_addr_t *phys);
phys_addr_t iommu_sim_pt_lookup(struct iommu_sim_pt *pt, u64 iova);
size_t iommu_sim_pt_next_dirty(struct iommu_sim_pt *pt, u64 *iova, u64 last,
			       bool clear);
void iommu_sim_pt_take_retired(struct iommu_sim_pt *pt, struct list_head *list);
void iommu_sim_pt_free_retired(struct list_head *list);

/* Exported for KUnit, which replaces it */
unsigned long *iommu_sim_pt_alloc_table(gfp_t gfp);

#endif /* _IOMMU_SIM_PGTABLE_H */
