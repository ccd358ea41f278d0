// SPDX-License-Identifier: GPL-2.0-only
/*
 * Unplugging and plugging of functions, by two files of each host bridge.
 */
#include <linux/cleanup.h>
#include <linux/iopoll.h>
#include <linux/sysfs.h>

#include "pci-host-sim.h"

/*
 * Remove a function without notice: from now on all of its registers read as ones,
 * and so do those of its VFs.
 */
static int pci_sim_unplug(struct pci_sim_host *host, unsigned int devfn)
{
	struct pci_sim_function *fn = host->functions[devfn];

	guard(raw_spinlock_irqsave)(&host->lock);
	if (!fn || fn->kind == PCI_SIM_VF || !fn->present)
		return -ENODEV;
	fn->present = false;
	if (fn->kind == PCI_SIM_PF)
		pci_sim_update_vfs(host, devfn);
	return 0;
}

/* Insert a function again, in its state after power-on */
static int pci_sim_plug(struct pci_sim_host *host, unsigned int devfn)
{
	struct pci_sim_function *fn = host->functions[devfn];

	guard(raw_spinlock_irqsave)(&host->lock);
	if (!fn || fn->kind == PCI_SIM_VF)
		return -ENODEV;
	if (fn->present)
		return -EEXIST;
	pci_sim_config_init(host, devfn);
	fn->present = true;
	return 0;
}

static bool pci_sim_is_gone(struct pci_sim_host *host, struct pci_dev *pdev)
{
	guard(raw_spinlock_irqsave)(&host->lock);
	return !host->functions[pdev->devfn]->present;
}

/**
 * pci_sim_remove_gone() - remove the devices of functions that were unplugged
 * @work: work item of the host bridge
 *
 * This is what a hotplug controller does after a surprise removal. The VFs of a PF are
 * removed with it.
 */
void pci_sim_remove_gone(struct work_struct *work)
{
	struct pci_sim_host *host = container_of(work, struct pci_sim_host, removal);
	struct pci_dev *pdev;

	pci_lock_rescan_remove();
	for (unsigned int devfn = 0; devfn < PCI_SIM_FUNCTIONS; devfn++) {
		pdev = pci_get_slot(host->bridge->bus, devfn);
		if (!pdev)
			continue;
		if (!pdev->is_virtfn && pci_sim_is_gone(host, pdev))
			pci_stop_and_remove_bus_device(pdev);
		pci_dev_put(pdev);
	}
	pci_unlock_rescan_remove();
}

/* Mark the device as failed, so that no task waits for an answer of the function */
static int pci_sim_mark_gone(struct pci_dev *pdev, void *unused)
{
	struct pci_sim_function *fn = pci_sim_function(pdev);

	if (!READ_ONCE(fn->present))
		WRITE_ONCE(pdev->error_state, pci_channel_io_perm_failure);
	return 0;
}

static int pci_sim_parse(const char *buf, unsigned int *devfn)
{
	unsigned int device, function;
	char rest;

	if (sscanf(buf, "%x.%x %c", &device, &function, &rest) != 2)
		return -EINVAL;
	if (device >= PCI_SIM_SLOTS || function > 7)
		return -EINVAL;
	*devfn = PCI_DEVFN(device, function);
	return 0;
}

static struct pci_sim_host *dev_to_sim_host(struct device *dev)
{
	return pci_host_bridge_priv(to_pci_host_bridge(dev));
}

static ssize_t unplug_store(struct device *dev, struct device_attribute *attr,
			    const char *buf, size_t count)
{
	struct pci_sim_host *host = dev_to_sim_host(dev);
	unsigned int devfn;
	int ret;

	ret = pci_sim_parse(buf, &devfn) ?: pci_sim_unplug(host, devfn);
	if (ret)
		return ret;
	pci_walk_bus(host->bridge->bus, pci_sim_mark_gone, NULL);
	/* The removal waits until the device is closed; the writer must not */
	queue_work(system_long_wq, &host->removal);
	return count;
}
static DEVICE_ATTR_WO(unplug);

/* May a device be added: 0, -EEXIST, or -EBUSY while another is in the slot */
static int pci_sim_slot_free(struct pci_sim_host *host, unsigned int devfn,
			     bool *leaving)
{
	struct pci_dev *pdev = pci_get_slot(host->bridge->bus, devfn);
	int ret;

	*leaving = false;
	if (!pdev)
		return 0;
	ret = pci_sim_is_gone(host, pdev) ? -EBUSY : -EEXIST;
	*leaving = ret == -EBUSY && !READ_ONCE(pdev->dev.driver);
	pci_dev_put(pdev);
	return ret;
}

/*
 * The device leaves sysfs before it leaves the bus. Who saw it go there may plug at
 * once, so wait for what the removal still has to do. Not while a driver is bound: it
 * may wait for its user; nor long, as the work may wait for a user of another device.
 */
static int pci_sim_wait_for_slot(struct pci_sim_host *host, unsigned int devfn)
{
	bool leaving;
	int ret;

	read_poll_timeout(pci_sim_slot_free, ret, !leaving, USEC_PER_MSEC,
			  USEC_PER_SEC, false, host, devfn, &leaving);
	return ret;
}

static ssize_t plug_store(struct device *dev, struct device_attribute *attr,
			  const char *buf, size_t count)
{
	struct pci_sim_host *host = dev_to_sim_host(dev);
	unsigned int devfn;
	int ret;

	ret = pci_sim_parse(buf, &devfn) ?: pci_sim_wait_for_slot(host, devfn) ?:
	      pci_sim_plug(host, devfn);
	if (ret)
		return ret;
	pci_lock_rescan_remove();
	pci_rescan_bus(host->bridge->bus);
	pci_unlock_rescan_remove();
	return count;
}
static DEVICE_ATTR_WO(plug);

static struct attribute *pci_sim_plug_attrs[] = {
	&dev_attr_unplug.attr,
	&dev_attr_plug.attr,
	NULL
};

const struct attribute_group pci_sim_plug_group = {
	.attrs = pci_sim_plug_attrs,
};
