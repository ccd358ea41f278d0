// SPDX-License-Identifier: GPL-2.0-only
/*
 * Simulated host bridges: a PCI domain each, with one bus. No bridge has windows
 * for memory or I/O ports, so nothing behind it can have a BAR.
 */
#include <linux/cleanup.h>
#include <linux/iommu-sim.h>
#include <linux/irqdomain.h>
#include <linux/slab.h>
#include <linux/sysfs.h>

#include "pci-host-sim.h"

/* Address of a function: function 0 of all devices first, then function 1 and so on */
unsigned int pci_sim_devfn(unsigned int index)
{
	return PCI_DEVFN(index % PCI_SIM_SLOTS, index / PCI_SIM_SLOTS);
}

/**
 * pci_sim_fits() - check that all functions fit into one bus
 * @options: numbers of functions
 *
 * A PF is in the device after those of the plain functions, and its VFs begin in
 * the device after the PF.
 *
 * Return: true if they fit.
 */
bool pci_sim_fits(const struct pci_sim_options *options)
{
	unsigned int first;

	if (!options->total_vfs)
		return options->functions <= PCI_SIM_FUNCTIONS;
	if (options->functions >= PCI_SIM_SLOTS)
		return false;
	first = pci_sim_devfn(options->functions) + PCI_SIM_VF_OFFSET;
	return first < PCI_SIM_FUNCTIONS &&
	       options->total_vfs <= PCI_SIM_FUNCTIONS - first;
}

/* ---- creating a host ------------------------------------------------------------ */

static int pci_sim_add_function(struct pci_sim_host *host, unsigned int devfn,
				enum pci_sim_kind kind)
{
	struct pci_sim_function *fn = kzalloc_obj(*fn);

	if (!fn)
		return -ENOMEM;
	fn->kind = kind;
	fn->present = kind != PCI_SIM_VF;
	host->functions[devfn] = fn;
	pci_sim_config_init(host, devfn);
	return 0;
}

static int pci_sim_add_functions(struct pci_sim_host *host)
{
	const struct pci_sim_options *options = host->options;
	unsigned int i, pf = pci_sim_devfn(options->functions);
	int ret = 0;

	for (i = 0; i < options->functions && !ret; i++)
		ret = pci_sim_add_function(host, pci_sim_devfn(i), PCI_SIM_PLAIN);
	if (options->total_vfs && !ret)
		ret = pci_sim_add_function(host, pf, PCI_SIM_PF);
	for (i = 0; i < options->total_vfs && !ret; i++)
		ret = pci_sim_add_function(host, pf + PCI_SIM_VF_OFFSET + i, PCI_SIM_VF);
	return ret;
}

/*
 * No function can raise an interrupt, or write to an address that raises one.
 * Interrupts are therefore isolated, which the interrupt domain has to report to
 * VFIO and iommufd.
 */
static const struct irq_domain_ops pci_sim_msi_ops = {};

static int pci_sim_init_msi(struct pci_sim_host *host, int nr)
{
	host->msi_fwnode = irq_domain_alloc_named_id_fwnode("pci-host-sim", nr);
	if (!host->msi_fwnode)
		return -ENOMEM;
	host->msi = irq_domain_create_linear(host->msi_fwnode, 1, &pci_sim_msi_ops, host);
	if (!host->msi)
		return -ENOMEM;
	host->msi->flags |= IRQ_DOMAIN_FLAG_ISOLATED_MSI;
	dev_set_msi_domain(&host->bridge->dev, host->msi);
	return 0;
}

/* Called with the last reference to the bridge, before its domain number is freed */
static void pci_sim_release(struct pci_host_bridge *bridge)
{
	struct pci_sim_host *host = pci_host_bridge_priv(bridge);

	if (host->msi)
		irq_domain_remove(host->msi);
	if (host->msi_fwnode)
		irq_domain_free_fwnode(host->msi_fwnode);
	for (unsigned int i = 0; i < PCI_SIM_FUNCTIONS; i++)
		kfree(host->functions[i]);
}

/* The allocator does not know the numbers of the firmware's PCI domains */
static int pci_sim_init_domain(struct pci_sim_host *host, unsigned int first)
{
	int nr = pci_bus_find_emul_domain_nr(first, 1, U16_MAX);

	if (nr < 0)
		return nr;
	host->bridge->domain_nr = nr;
	host->sysdata.domain = nr;
	return pci_find_bus(nr, 0) ? -EEXIST : 0;
}

static int pci_sim_init_bridge(struct pci_sim_host *host, unsigned int domain)
{
	struct pci_host_bridge *bridge = host->bridge;
	int ret;

	ret = pci_sim_init_domain(host, domain);
	if (ret)
		return ret;
	ret = pci_sim_init_msi(host, bridge->domain_nr);
	if (ret)
		return ret;
	host->sysdata.node = NUMA_NO_NODE;
	bridge->sysdata = &host->sysdata;
	bridge->ops = &pci_sim_ops;
	host->busn = DEFINE_RES_NAMED(0, 1, "pci-host-sim", IORESOURCE_BUS);
	pci_add_resource(&bridge->windows, &host->busn);
	return pci_sim_add_functions(host);
}

static void pci_sim_remove_bus(struct pci_sim_host *host)
{
	pci_lock_rescan_remove();
	pci_stop_root_bus(host->bridge->bus);
	pci_remove_root_bus(host->bridge->bus);
	pci_unlock_rescan_remove();
	iommu_sim_remove_bridge(host->bridge);
}

static int pci_sim_add_bus(struct pci_sim_host *host)
{
	int ret;

	ret = iommu_sim_add_bridge(host->bridge);
	if (ret)
		return ret;
	ret = pci_host_probe(host->bridge);
	if (ret) {
		iommu_sim_remove_bridge(host->bridge);
		return ret;
	}
	ret = sysfs_create_group(&host->bridge->dev.kobj, &pci_sim_plug_group);
	if (ret)
		pci_sim_remove_bus(host);
	return ret;
}

/**
 * pci_sim_host_create() - create a host bridge with functions, and add it
 * @options: numbers and properties of its functions; must live as long as the host
 * @domain: first number to try for its PCI domain
 *
 * Return: the host, or an ERR_PTR().
 */
struct pci_sim_host *pci_sim_host_create(const struct pci_sim_options *options,
					 unsigned int domain)
{
	struct pci_host_bridge *bridge = pci_alloc_host_bridge(sizeof(struct pci_sim_host));
	struct pci_sim_host *host;
	int ret;

	if (!bridge)
		return ERR_PTR(-ENOMEM);
	host = pci_host_bridge_priv(bridge);
	host->bridge = bridge;
	host->options = options;
	raw_spin_lock_init(&host->lock);
	INIT_WORK(&host->removal, pci_sim_remove_gone);
	pci_set_host_bridge_release(bridge, pci_sim_release, NULL);
	ret = pci_sim_init_bridge(host, domain) ?: pci_sim_add_bus(host);
	if (ret) {
		pci_free_host_bridge(bridge);
		return ERR_PTR(ret);
	}
	return host;
}

/**
 * pci_sim_host_destroy() - remove a host bridge and its functions
 * @host: host; no function except a PF may have a driver
 */
void pci_sim_host_destroy(struct pci_sim_host *host)
{
	/* The files and the work take the lock that the removal of the bus holds */
	sysfs_remove_group(&host->bridge->dev.kobj, &pci_sim_plug_group);
	cancel_work_sync(&host->removal);
	pci_sim_remove_bus(host);
	pci_free_host_bridge(host->bridge);
}
