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
 * no other means to access memory: no DMA, no BAR, no interrupt.
 * iommu_sim_add_bridge() and iommu_sim_may_claim() check it.
 *
 * The IOMMU core keeps the module of an IOMMU driver loaded while the IOMMU has
 * devices. The functions are therefore created by a separate module, which could
 * not be unloaded otherwise.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cleanup.h>
#include <linux/iommu.h>
#include <linux/iommu-sim.h>
#include <linux/lockdep.h>
#include <linux/module.h>
#include <linux/pci.h>
#include <linux/property.h>
#include <linux/slab.h>

#include "sim.h"

/**
 * struct iommu_sim_bridge - a host bridge whose functions are claimed
 * @node: in iommu_sim_bridges
 * @bridge: the host bridge
 */
struct iommu_sim_bridge {
	struct list_head node;
	struct pci_host_bridge *bridge;
};

/* The simulated IOMMU, one for all bridges */
struct iommu_device iommu_sim;
static LIST_HEAD(iommu_sim_bridges);
/* Protects iommu_sim_bridges */
static DEFINE_MUTEX(iommu_sim_lock);

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

/* A bridge of real hardware was scanned before, has a parent, or has windows */
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
 * iommu_sim_add_bridge() - announce a host bridge of simulated functions
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
MODULE_VERSION("0.2.0");
MODULE_IMPORT_NS("IOMMUFD");
