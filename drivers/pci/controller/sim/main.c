// SPDX-License-Identifier: GPL-2.0-only
/*
 * pci-host-sim: PCI host bridges with functions that exist in software only.
 *
 * A function has only a configuration space: no BAR, no interrupt and no DMA of
 * its own. A driver such as precopy-vfio-pci implements a device on top of it. The
 * functions are behind the simulated IOMMU, see drivers/iommu/sim.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/module.h>
#include <linux/pci.h>

#include "pci-host-sim.h"

/* More PCI domains than a test needs, and fewer than there are numbers */
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

static struct pci_sim_options pci_sim_options;
static LIST_HEAD(pci_sim_hosts);

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

	ret = pci_sim_parameters() ?: pci_sim_register();
	if (ret)
		return ret;
	ret = pci_sim_create_hosts();
	if (ret)
		pci_sim_unregister();
	return ret;
}
module_init(pci_sim_init);

static void __exit pci_sim_exit(void)
{
	pci_sim_destroy_hosts();
	pci_sim_unregister();
}
module_exit(pci_sim_exit);

MODULE_LICENSE("GPL");
MODULE_DESCRIPTION("PCI host bridges with simulated functions");
MODULE_VERSION("0.2.0");
