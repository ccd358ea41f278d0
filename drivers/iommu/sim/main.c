// SPDX-License-Identifier: GPL-2.0-only
/*
 * iommu-sim: an IOMMU without hardware, for PCI functions without hardware.
 *
 * A module that creates such functions announces their host bridge with
 * iommu_sim_add_bridge(). A driver that models a device behind one of them does
 * DMA with iommu_sim_dma_rw(), the only reader of the page tables.
 *
 * Invariant: no function with hardware behind it is ever claimed. Nothing
 * enforces these translations on hardware, so a claimed function must have
 * nothing that reaches memory by another way: no DMA, no BAR, no interrupt.
 * iommu_sim_add_bridge() and iommu_sim_may_claim() check it.
 *
 * An IOMMU driver keeps the module that registered it loaded while it has
 * devices. So this is a module apart from the one that creates the functions,
 * which could not be unloaded otherwise.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/iommu.h>
#include <linux/iommu-sim.h>
#include <linux/lockdep.h>
#include <linux/memremap.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/property.h>
#include <linux/slab.h>
#include <uapi/linux/iommufd.h>

#include "pgtable.h"
#include "test.h"

/**
 * struct iommu_sim_domain - a paging domain
 * @domain: what the IOMMU core knows
 * @pt: page table
 * @lock: held for reading while DMA uses a translation, for writing to wait
 *	until all such uses are over
 * @tracking: whether dirty bits may be read, set by iommufd
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

/**
 * struct iommu_sim_bridge - a host bridge whose functions are claimed
 * @node: in iommu_sim_bridges
 * @bridge: the host bridge
 */
struct iommu_sim_bridge {
	struct list_head node;
	struct pci_host_bridge *bridge;
};

static struct iommu_device iommu_sim;
static LIST_HEAD(iommu_sim_bridges);
/* Protects iommu_sim_bridges */
static DEFINE_MUTEX(iommu_sim_lock);

static struct iommu_sim_domain *to_sim_domain(struct iommu_domain *domain)
{
	return container_of(domain, struct iommu_sim_domain, domain);
}

/* ---- paging domains -------------------------------------------------------- */

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
 * Wait until DMA has ended that may use a translation which is gone now, or
 * whose store belongs to a dirty bit that is cleared now. VFIO and iommufd unpin
 * pages, and report dirty ones, only after this.
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

/* All DMA is done by CPUs, which snoop */
static bool iommu_sim_enforce_cache_coherency(struct iommu_domain *domain)
{
	return true;
}

static int iommu_sim_set_dirty_tracking(struct iommu_domain *domain,
					bool enabled)
{
	to_sim_domain(domain)->tracking = enabled;
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

static struct iommu_domain *
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
	/* A domain may outlive its devices, which hold references as well */
	__module_get(THIS_MODULE);
	return &sim->domain;
}

static const struct iommu_domain_ops iommu_sim_blocked_ops = {
	.attach_dev = iommu_sim_attach,
};

static struct iommu_domain iommu_sim_blocked = {
	.type = IOMMU_DOMAIN_BLOCKED,
	.ops = &iommu_sim_blocked_ops,
};

/* ---- host bridges and functions --------------------------------------------- */

static bool iommu_sim_has_bridge(struct pci_host_bridge *bridge)
{
	struct iommu_sim_bridge *b;

	lockdep_assert_held(&iommu_sim_lock);
	list_for_each_entry(b, &iommu_sim_bridges, node)
		if (b->bridge == bridge)
			return true;
	return false;
}

/* A bridge that hardware is behind has been scanned, has a parent, or windows */
static bool iommu_sim_bridge_is_bare(struct pci_host_bridge *bridge)
{
	struct resource_entry *window;

	if (bridge->bus || bridge->dev.parent)
		return false;
	resource_list_for_each_entry(window, &bridge->windows)
		if (resource_type(window->res) != IORESOURCE_BUS)
			return false;
	return true;
}

/**
 * iommu_sim_add_bridge() - announce a host bridge whose functions are software
 * @bridge: host bridge that is not scanned yet, without a parent device and
 *	without windows for memory or I/O ports
 *
 * From now on, functions of its root bus are claimed when they are added, if
 * they have no BAR and no interrupt.
 *
 * Return: 0, -EINVAL if hardware could be behind @bridge, or -ENOMEM.
 */
int iommu_sim_add_bridge(struct pci_host_bridge *bridge)
{
	struct iommu_sim_bridge *b;

	if (!iommu_sim_bridge_is_bare(bridge))
		return -EINVAL;
	b = kzalloc_obj(*b);
	if (!b)
		return -ENOMEM;
	b->bridge = bridge;
	guard(mutex)(&iommu_sim_lock);
	list_add(&b->node, &iommu_sim_bridges);
	return 0;
}
EXPORT_SYMBOL_GPL(iommu_sim_add_bridge);

/**
 * iommu_sim_remove_bridge() - forget a host bridge
 * @bridge: host bridge whose functions are removed; one that was not added is
 *	ignored
 */
void iommu_sim_remove_bridge(struct pci_host_bridge *bridge)
{
	struct iommu_sim_bridge *b, *next;

	guard(mutex)(&iommu_sim_lock);
	list_for_each_entry_safe(b, next, &iommu_sim_bridges, node) {
		if (b->bridge != bridge)
			continue;
		list_del(&b->node);
		kfree(b);
	}
}
EXPORT_SYMBOL_GPL(iommu_sim_remove_bridge);

static bool iommu_sim_is_bare(struct pci_dev *pdev)
{
	if (pdev->hdr_type != PCI_HEADER_TYPE_NORMAL)
		return false;
	if (pdev->pin || pdev->msi_cap || pdev->msix_cap)
		return false;
	for (int i = 0; i < PCI_NUM_RESOURCES; i++)
		if (pci_resource_flags(pdev, i))
			return false;
	return true;
}

static bool iommu_sim_may_claim(struct pci_dev *pdev)
{
	if (!pci_is_root_bus(pdev->bus))
		return false;
	scoped_guard(mutex, &iommu_sim_lock)
		if (!iommu_sim_has_bridge(pci_find_host_bridge(pdev->bus)))
			return false;
	if (iommu_sim_is_bare(pdev))
		return true;
	pci_warn(pdev, "not claimed: it has a BAR, an interrupt or a bus behind it\n");
	return false;
}

static int iommu_sim_claim(struct device *dev)
{
	int ret;

	/*
	 * The core asserts that iommu_probe_device_lock is held, which no module
	 * can take. Nobody else initializes the IOMMU data of this device now: it
	 * is being added, and IOMMU drivers that probe all devices when they
	 * register are built in and did so at boot.
	 */
	lockdep_off();
	ret = iommu_fwspec_init(dev, iommu_sim.fwnode);
	lockdep_on();
	return ret;
}

/* Runs before the notifier of the IOMMU core, which then finds the fwspec */
static int iommu_sim_notify(struct notifier_block *nb, unsigned long action,
			    void *data)
{
	struct device *dev = data;
	int ret;

	if (action != BUS_NOTIFY_ADD_DEVICE || !iommu_sim_may_claim(to_pci_dev(dev)))
		return NOTIFY_DONE;
	ret = iommu_sim_claim(dev);
	if (ret)
		dev_warn(dev, "not claimed: error %d\n", ret);
	return NOTIFY_OK;
}

static struct notifier_block iommu_sim_notifier = {
	.notifier_call = iommu_sim_notify,
	/* The core's is 0 */
	.priority = 1,
};

static bool iommu_sim_capable(struct device *dev, enum iommu_cap cap)
{
	switch (cap) {
	case IOMMU_CAP_CACHE_COHERENCY:
	case IOMMU_CAP_ENFORCE_CACHE_COHERENCY:
	case IOMMU_CAP_DIRTY_TRACKING:
		return true;
	default:
		return false;
	}
}

static struct iommu_device *iommu_sim_probe_device(struct device *dev)
{
	struct iommu_sim_device *sdev;

	if (!dev_is_pci(dev) || !iommu_sim_may_claim(to_pci_dev(dev)))
		return ERR_PTR(-ENODEV);
	sdev = kzalloc_obj(*sdev);
	if (!sdev)
		return ERR_PTR(-ENOMEM);
	rwlock_init(&sdev->lock);
	dev_iommu_priv_set(dev, sdev);
	return &iommu_sim;
}

static void iommu_sim_release_device(struct device *dev)
{
	kfree(dev_iommu_priv_get(dev));
}

static const struct iommu_ops iommu_sim_ops = {
	.owner = THIS_MODULE,
	.capable = iommu_sim_capable,
	.probe_device = iommu_sim_probe_device,
	.release_device = iommu_sim_release_device,
	.device_group = generic_device_group,
	.domain_alloc_paging_flags = iommu_sim_domain_alloc,
	.default_domain = &iommu_sim_blocked,
	.blocked_domain = &iommu_sim_blocked,
	.release_domain = &iommu_sim_blocked,
};

/* ---- DMA ---------------------------------------------------------------------- */

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

/* The dirty bit is set before the store, and iommu_sim_sync() waits for both */
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
	return 0;
}

/**
 * iommu_sim_dma_rw() - DMA of a function that is modelled in software
 * @dev: the function, to whose driver the caller belongs
 * @iova: I/O virtual address
 * @buf: data to write, or room for data that is read
 * @len: number of bytes
 * @write: whether to write memory, as opposed to reading it
 *
 * Does what hardware behind an IOMMU would do: translates by the domain that the
 * function is attached to, checks permissions, and sets dirty bits. Pages are
 * accessed one by one in ascending order, so a range that is only partly mapped
 * is accessed up to its first fault. When a page has been unmapped, and the
 * unmapping has returned, it is not accessed any more.
 *
 * Context: process context; may sleep.
 * Return: 0; -EFAULT if something in the range is not mapped, not memory, or does
 * not allow the access; -ENODEV if @dev is not behind the simulated IOMMU.
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
	for (; len && !ret; len -= n, buf += n, iova += n) {
		n = min(len, PAGE_SIZE - offset_in_page(iova));
		scoped_guard(read_lock, &sdev->lock)
			ret = sdev->domain ? iommu_sim_dma_page(sdev->domain, iova, buf,
								n, write) : -EFAULT;
		cond_resched();
	}
	return ret;
}
EXPORT_SYMBOL_GPL(iommu_sim_dma_rw);

/* ---- module ------------------------------------------------------------------- */

/*
 * Devices without a fwspec get the platform's IOMMU, which has no fwnode. This
 * one has its own, so that it gets those only that iommu_sim_claim() marked.
 */
static int iommu_sim_register(struct fwnode_handle *fwnode)
{
	int ret;

	ret = iommu_device_sysfs_add(&iommu_sim, NULL, NULL, "iommu-sim");
	if (ret)
		return ret;
	iommu_sim.fwnode = fwnode;
	ret = iommu_device_register(&iommu_sim, &iommu_sim_ops, NULL);
	if (ret)
		iommu_device_sysfs_remove(&iommu_sim);
	return ret;
}

static void iommu_sim_unregister(void)
{
	iommu_device_unregister(&iommu_sim);
	iommu_device_sysfs_remove(&iommu_sim);
}

static int __init iommu_sim_init(void)
{
	struct fwnode_handle *fwnode = fwnode_create_software_node(NULL, NULL);
	int ret;

	if (IS_ERR(fwnode))
		return PTR_ERR(fwnode);
	ret = iommu_sim_register(fwnode);
	if (ret)
		goto remove_node;
	ret = bus_register_notifier(&pci_bus_type, &iommu_sim_notifier);
	if (ret)
		goto unregister;
	return 0;

unregister:
	iommu_sim_unregister();
remove_node:
	fwnode_remove_software_node(fwnode);
	return ret;
}
module_init(iommu_sim_init);

/* No device and no domain is left: each holds a reference to this module */
static void __exit iommu_sim_exit(void)
{
	bus_unregister_notifier(&pci_bus_type, &iommu_sim_notifier);
	iommu_sim_unregister();
	fwnode_remove_software_node(iommu_sim.fwnode);
}
module_exit(iommu_sim_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("Simulated IOMMU for simulated PCI functions");
MODULE_VERSION("0.1.0");
MODULE_IMPORT_NS("IOMMUFD");
