// SPDX-License-Identifier: GPL-2.0-only
/*
 * pci-host-sim: PCI host bridges with functions that exist in software only.
 *
 * A function is a configuration space and nothing else: it has no BAR, no
 * interrupt and no DMA of its own. What a driver such as precopy-vfio-pci makes
 * of it is up to that driver. The functions are behind the simulated IOMMU, see
 * drivers/iommu/sim.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/pci.h>

#include "pci-host-sim.h"

/* Far more than PCI domains that anybody wants, and less than there are */
#define MAX_BRIDGES	256

static unsigned int bridges = 1;
module_param(bridges, uint, 0444);
MODULE_PARM_DESC(bridges, "Number of host bridges, each a PCI domain of its own (default 1)");

static unsigned int functions = 2;
module_param(functions, uint, 0444);
MODULE_PARM_DESC(functions, "Number of functions behind each bridge (default 2, at most 256)");

static unsigned int total_vfs;
module_param(total_vfs, uint, 0444);
MODULE_PARM_DESC(total_vfs, "If not 0, one more function behind each bridge, with that many virtual functions (default 0)");

static unsigned int domain = 0x5100;
module_param(domain, uint, 0444);
MODULE_PARM_DESC(domain, "First number to try for a PCI domain (default 0x5100)");

static ushort ids[4] = { PCI_VENDOR_ID_REDHAT, 0x0005, PCI_VENDOR_ID_REDHAT_QUMRANET, 0x1100 };
module_param_array(ids, ushort, NULL, 0444);
MODULE_PARM_DESC(ids, "Vendor, device, subsystem vendor and subsystem device ID (default those of QEMU's pci-testdev)");

static bool flr = true;
module_param(flr, bool, 0444);
MODULE_PARM_DESC(flr, "Whether functions have a function level reset, which takes 100 ms (default yes)");

static char *driver;
module_param(driver, charp, 0444);
MODULE_PARM_DESC(driver, "Driver to bind functions and virtual functions to, by driver_override (default none)");

static struct pci_sim_options pci_sim_options;
static LIST_HEAD(pci_sim_hosts);

/* ---- driver of PFs -------------------------------------------------------------- */

static int pci_sim_pf_probe(struct pci_dev *pdev, const struct pci_device_id *id)
{
	return pci_sim_is_ours(pdev) ? 0 : -ENODEV;
}

static void pci_sim_pf_remove(struct pci_dev *pdev)
{
	pci_disable_sriov(pdev);
}

static const struct pci_device_id pci_sim_pf_ids[] = {
	{ PCI_DEVICE(PCI_SIM_PF_VENDOR, PCI_SIM_PF_DEVICE) },
	{}
};

static struct pci_driver pci_sim_pf_driver = {
	.name = "pci-host-sim-pf",
	.id_table = pci_sim_pf_ids,
	.probe = pci_sim_pf_probe,
	.remove = pci_sim_pf_remove,
	.sriov_configure = pci_sriov_configure_simple,
};

/* ---- what happens to functions ---------------------------------------------------- */

static void pci_sim_added(struct pci_dev *pdev)
{
	int ret;

	if (!driver || pci_sim_function(pdev)->kind == PCI_SIM_PF)
		return;
	ret = device_set_driver_override(&pdev->dev, driver);
	if (ret)
		pci_warn(pdev, "driver_override cannot be set: error %d\n", ret);
}

/*
 * A function that has a driver keeps the module loaded. Unloading would unbind
 * it, and VFIO then waits until the last user has closed the device.
 */
static void pci_sim_bound(struct pci_dev *pdev)
{
	if (pdev->dev.driver != &pci_sim_pf_driver.driver)
		pci_sim_function(pdev)->pinned = try_module_get(THIS_MODULE);
}

/* The device does not know any more which driver that was */
static void pci_sim_unbound(struct pci_dev *pdev)
{
	struct pci_sim_function *fn = pci_sim_function(pdev);

	if (!fn->pinned)
		return;
	fn->pinned = false;
	module_put(THIS_MODULE);
}

static int pci_sim_notify(struct notifier_block *nb, unsigned long action, void *data)
{
	struct pci_dev *pdev = to_pci_dev(data);

	if (!pci_sim_is_ours(pdev))
		return NOTIFY_DONE;
	switch (action) {
	case BUS_NOTIFY_ADD_DEVICE:
		pci_sim_added(pdev);
		break;
	case BUS_NOTIFY_BOUND_DRIVER:
		pci_sim_bound(pdev);
		break;
	case BUS_NOTIFY_UNBOUND_DRIVER:
		pci_sim_unbound(pdev);
		break;
	}
	return NOTIFY_OK;
}

static struct notifier_block pci_sim_notifier = {
	.notifier_call = pci_sim_notify,
};

/* ---- module ----------------------------------------------------------------------- */

static int pci_sim_parameters(void)
{
	pci_sim_options = (struct pci_sim_options) {
		.ids = {
			.vendor = ids[0],
			.device = ids[1],
			.subvendor = ids[2],
			.subdevice = ids[3],
		},
		.functions = functions,
		.total_vfs = total_vfs,
		.flr = flr,
	};
	if (!bridges || bridges > MAX_BRIDGES || domain > U16_MAX) {
		pr_err("bridges must be 1 to %d, domain at most 0xffff\n", MAX_BRIDGES);
		return -EINVAL;
	}
	if (!pci_sim_fits(&pci_sim_options)) {
		pr_err("%u functions and %u VFs do not fit into a bus\n", functions, total_vfs);
		return -EINVAL;
	}
	return 0;
}

static void pci_sim_destroy_hosts(void)
{
	struct pci_sim_host *host, *next;

	list_for_each_entry_safe_reverse(host, next, &pci_sim_hosts, node) {
		list_del(&host->node);
		pci_sim_host_destroy(host);
	}
}

static int pci_sim_create_hosts(void)
{
	struct pci_sim_host *host;

	for (unsigned int i = 0; i < bridges; i++) {
		host = pci_sim_host_create(&pci_sim_options, domain + i);
		if (IS_ERR(host)) {
			pr_err("no host bridge in PCI domain %#x: error %ld\n",
			       domain + i, PTR_ERR(host));
			pci_sim_destroy_hosts();
			return PTR_ERR(host);
		}
		list_add_tail(&host->node, &pci_sim_hosts);
	}
	return 0;
}

static int __init pci_sim_init(void)
{
	int ret;

	ret = pci_sim_parameters();
	if (ret)
		return ret;
	ret = bus_register_notifier(&pci_bus_type, &pci_sim_notifier);
	if (ret)
		return ret;
	ret = pci_register_driver(&pci_sim_pf_driver);
	if (ret)
		goto unregister_notifier;
	ret = pci_sim_create_hosts();
	if (ret)
		goto unregister_driver;
	return 0;

unregister_driver:
	pci_unregister_driver(&pci_sim_pf_driver);
unregister_notifier:
	bus_unregister_notifier(&pci_bus_type, &pci_sim_notifier);
	return ret;
}
module_init(pci_sim_init);

static void __exit pci_sim_exit(void)
{
	pci_sim_destroy_hosts();
	pci_unregister_driver(&pci_sim_pf_driver);
	bus_unregister_notifier(&pci_bus_type, &pci_sim_notifier);
}
module_exit(pci_sim_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("PCI host bridges with simulated functions");
MODULE_VERSION("0.1.0");
