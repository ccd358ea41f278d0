// SPDX-License-Identifier: GPL-2.0-only
/*
 * DMA through the simulated IOMMU. This is the only code that uses what a page
 * table translates to.
 */
#include <linux/cleanup.h>
#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/iommu.h>
#include <linux/iommu-sim.h>
#include <linux/memremap.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/spinlock.h>

#include "sim.h"
#include "test.h"

/*
 * Memory that the kernel has mapped: not the registers or memory of a real
 * device, which VFIO maps as well for peer-to-peer DMA.
 */
static struct page *iommu_sim_memory(phys_addr_t phys)
{
	struct page *page;

	if (!pfn_valid(PHYS_PFN(phys)))
		return NULL;
	page = pfn_to_page(PHYS_PFN(phys));
	if (is_zero_page(page))
		return page;
	if (PageReserved(page) || PageHWPoison(page) || is_pci_p2pdma_page(page))
		return NULL;
	return page;
}

#ifdef IOMMU_SIM_TEST
/* Time between translation and access, in us, which iommu-sim-test can set */
u32 iommu_sim_delay_us;
EXPORT_SYMBOL_GPL(iommu_sim_delay_us);

static void iommu_sim_delay(void)
{
	udelay(min(READ_ONCE(iommu_sim_delay_us), IOMMU_SIM_MAX_DELAY_US));
}
#else
static void iommu_sim_delay(void) {}
#endif

/*
 * The dirty bit is set before the store, and iommu_sim_sync() waits for both.
 *
 * Return: as iommu_sim_dma_rw().
 */
static int iommu_sim_dma_page(struct iommu_sim_domain *domain, dma_addr_t iova,
			      void *buf, size_t len, bool write)
{
	struct page *page;
	phys_addr_t phys;
	int ret;

	guard(read_lock)(&domain->lock);
	ret = iommu_sim_pt_access(&domain->pt, iova, write, &phys);
	if (ret)
		return ret;
	page = iommu_sim_memory(phys);
	if (!page)
		return -EFAULT;
	iommu_sim_delay();
	if (write)
		memcpy_to_page(page, offset_in_page(phys), buf, len);
	else
		memcpy_from_page(buf, page, offset_in_page(phys), len);
	return write && READ_ONCE(domain->tracking);
}

/**
 * iommu_sim_dma_rw() - DMA of a function that is modelled in software
 * @dev: the function, to whose driver the caller belongs
 * @iova: I/O virtual address
 * @buf: data to write, or buffer for data that is read
 * @len: number of bytes
 * @write: true to write memory, false to read it
 *
 * Translates addresses with the domain that the function is attached to, checks
 * permissions, and sets dirty bits, as hardware would. Pages are accessed one by
 * one in ascending order, so a range that is only partly mapped is accessed up to
 * its first fault. A page is not accessed after its unmapping has returned.
 *
 * Context: process context; may sleep.
 * Return: 0, or 1 for a write whose last page has a dirty bit, because dirty tracking
 * is enabled; -EFAULT if something in the range is not mapped, not memory, or does
 * not permit the access; -ENODEV if @dev is not behind the simulated IOMMU.
 */
int iommu_sim_dma_rw(struct device *dev, dma_addr_t iova, void *buf,
		     size_t len, bool write)
{
	struct iommu_sim_device *sdev;
	int ret = 0;
	size_t n;

	might_sleep();
	if (!dev->iommu || dev->iommu->iommu_dev != &iommu_sim)
		return -ENODEV;
	sdev = dev_iommu_priv_get(dev);
	for (; len && ret >= 0; len -= n, buf += n, iova += n) {
		n = min(len, PAGE_SIZE - offset_in_page(iova));
		scoped_guard(read_lock, &sdev->lock)
			ret = sdev->domain ? iommu_sim_dma_page(sdev->domain, iova, buf,
								n, write) : -EFAULT;
		cond_resched();
	}
	return ret;
}
EXPORT_SYMBOL_GPL(iommu_sim_dma_rw);
