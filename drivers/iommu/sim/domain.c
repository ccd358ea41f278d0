// SPDX-License-Identifier: GPL-2.0-only
/*
 * Domains of the simulated IOMMU: paging domains, each with a page table of its
 * own, and the domain that blocks everything.
 */
#include <linux/cleanup.h>
#include <linux/iommu.h>
#include <linux/module.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <uapi/linux/iommufd.h>

#include "sim.h"

static struct iommu_sim_domain *to_sim_domain(struct iommu_domain *domain)
{
	return container_of(domain, struct iommu_sim_domain, domain);
}

static int iommu_sim_map_pages(struct iommu_domain *domain, unsigned long iova,
			       phys_addr_t paddr, size_t pgsize, size_t pgcount,
			       int prot, gfp_t gfp, size_t *mapped)
{
	unsigned long perm = 0;

	/* Only memory can be accessed, see iommu_sim_dma_page() */
	if (prot & IOMMU_READ && !(prot & IOMMU_MMIO))
		perm |= IOMMU_SIM_READ;
	if (prot & IOMMU_WRITE && !(prot & IOMMU_MMIO))
		perm |= IOMMU_SIM_WRITE;
	return iommu_sim_pt_map(&to_sim_domain(domain)->pt, iova, paddr, pgsize,
				pgcount, perm, gfp, mapped);
}

static size_t iommu_sim_unmap_pages(struct iommu_domain *domain,
				    unsigned long iova, size_t pgsize,
				    size_t pgcount,
				    struct iommu_iotlb_gather *gather)
{
	return iommu_sim_pt_unmap(&to_sim_domain(domain)->pt, iova,
				  pgsize * pgcount);
}

/*
 * Wait for the end of all DMA that may still use a removed translation, or whose
 * store belongs to a dirty bit that was just cleared. VFIO and iommufd unpin
 * pages, and report dirty pages, only after this.
 */
static void iommu_sim_sync(struct iommu_sim_domain *domain)
{
	LIST_HEAD(retired);

	iommu_sim_pt_take_retired(&domain->pt, &retired);
	write_lock(&domain->lock);
	write_unlock(&domain->lock);
	iommu_sim_pt_free_retired(&retired);
}

static void iommu_sim_iotlb_sync(struct iommu_domain *domain,
				 struct iommu_iotlb_gather *gather)
{
	iommu_sim_sync(to_sim_domain(domain));
}

static void iommu_sim_flush_iotlb_all(struct iommu_domain *domain)
{
	iommu_sim_sync(to_sim_domain(domain));
}

static phys_addr_t iommu_sim_iova_to_phys(struct iommu_domain *domain,
					  dma_addr_t iova)
{
	return iommu_sim_pt_lookup(&to_sim_domain(domain)->pt, iova);
}

/* CPUs perform all DMA, so it is always cache coherent */
static bool iommu_sim_enforce_cache_coherency(struct iommu_domain *domain)
{
	return true;
}

static int iommu_sim_set_dirty_tracking(struct iommu_domain *domain,
					bool enabled)
{
	WRITE_ONCE(to_sim_domain(domain)->tracking, enabled);
	return 0;
}

static int iommu_sim_read_and_clear_dirty(struct iommu_domain *domain,
					  unsigned long iova, size_t size,
					  unsigned long flags,
					  struct iommu_dirty_bitmap *dirty)
{
	struct iommu_sim_domain *sim = to_sim_domain(domain);
	bool clear = !(flags & IOMMU_DIRTY_NO_CLEAR);
	u64 next = iova, last = iova + size - 1;
	size_t n;

	/* Without a bitmap, stale bits are cleared before tracking begins */
	if (!sim->tracking && dirty->bitmap)
		return -EINVAL;
	while ((n = iommu_sim_pt_next_dirty(&sim->pt, &next, last, clear))) {
		iommu_dirty_bitmap_record(dirty, next, n);
		next += n;
	}
	return 0;
}

static const struct iommu_dirty_ops iommu_sim_dirty_ops = {
	.set_dirty_tracking = iommu_sim_set_dirty_tracking,
	.read_and_clear_dirty = iommu_sim_read_and_clear_dirty,
};

static void iommu_sim_domain_free(struct iommu_domain *domain)
{
	struct iommu_sim_domain *sim = to_sim_domain(domain);

	iommu_sim_pt_destroy(&sim->pt);
	kfree(sim);
	module_put(THIS_MODULE);
}

static int iommu_sim_attach(struct iommu_domain *domain, struct device *dev,
			    struct iommu_domain *old)
{
	struct iommu_sim_device *sdev = dev_iommu_priv_get(dev);
	bool paging = domain->type & __IOMMU_DOMAIN_PAGING;

	guard(write_lock)(&sdev->lock);
	sdev->domain = paging ? to_sim_domain(domain) : NULL;
	return 0;
}

static const struct iommu_domain_ops iommu_sim_domain_ops = {
	.attach_dev = iommu_sim_attach,
	.map_pages = iommu_sim_map_pages,
	.unmap_pages = iommu_sim_unmap_pages,
	.iotlb_sync = iommu_sim_iotlb_sync,
	.flush_iotlb_all = iommu_sim_flush_iotlb_all,
	.iova_to_phys = iommu_sim_iova_to_phys,
	.enforce_cache_coherency = iommu_sim_enforce_cache_coherency,
	.free = iommu_sim_domain_free,
};

static void iommu_sim_domain_init(struct iommu_sim_domain *sim, bool dirty)
{
	rwlock_init(&sim->lock);
	sim->domain.type = IOMMU_DOMAIN_UNMANAGED;
	sim->domain.ops = &iommu_sim_domain_ops;
	sim->domain.pgsize_bitmap = SZ_4K | SZ_2M | SZ_1G;
	sim->domain.geometry.aperture_end = BIT_ULL(IOMMU_SIM_IOVA_BITS) - 1;
	sim->domain.geometry.force_aperture = true;
	if (dirty) {
		/* One bit for each 4 KiB, so that reports are exact */
		sim->domain.pgsize_bitmap = SZ_4K;
		sim->domain.dirty_ops = &iommu_sim_dirty_ops;
	}
}

/**
 * iommu_sim_domain_alloc() - allocate a paging domain
 * @dev: function that the domain is for; any other can be attached as well
 * @flags: IOMMU_HWPT_ALLOC_DIRTY_TRACKING, or 0
 * @user_data: NULL, since there are no nested domains
 *
 * Return: the domain, or an ERR_PTR().
 */
struct iommu_domain *
iommu_sim_domain_alloc(struct device *dev, u32 flags,
		       const struct iommu_user_data *user_data)
{
	struct iommu_sim_domain *sim;
	int ret;

	if (flags & ~IOMMU_HWPT_ALLOC_DIRTY_TRACKING || user_data)
		return ERR_PTR(-EOPNOTSUPP);
	sim = kzalloc_obj(*sim, GFP_KERNEL_ACCOUNT);
	if (!sim)
		return ERR_PTR(-ENOMEM);
	ret = iommu_sim_pt_init(&sim->pt);
	if (ret) {
		kfree(sim);
		return ERR_PTR(ret);
	}
	iommu_sim_domain_init(sim, flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING);
	/* A domain may outlive its devices, whose references are then dropped */
	__module_get(THIS_MODULE);
	return &sim->domain;
}

static const struct iommu_domain_ops iommu_sim_blocked_ops = {
	.attach_dev = iommu_sim_attach,
};

/* A function that is attached to this can access nothing */
struct iommu_domain iommu_sim_blocked = {
	.type = IOMMU_DOMAIN_BLOCKED,
	.ops = &iommu_sim_blocked_ops,
};
