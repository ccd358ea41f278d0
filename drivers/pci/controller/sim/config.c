// SPDX-License-Identifier: GPL-2.0-only
/*
 * Configuration space of simulated functions: power management, a PCI Express
 * capability of a root complex integrated endpoint. No BARs, no expansion ROM, no
 * interrupts. SR-IOV is in sriov.c.
 */
#include <linux/cleanup.h>
#include <linux/unaligned.h>

#include "pci-host-sim.h"

#define PM	0x40
#define EXP	0x48

/*
 * Give a register of one, two or four bytes its initial value, and the bits that
 * software can change.
 */
void pci_sim_set8(struct pci_sim_function *fn, int where, u8 value, u8 writable)
{
	fn->config[where] = value;
	fn->writable[where] = writable;
}

void pci_sim_set16(struct pci_sim_function *fn, int where, u16 value, u16 writable)
{
	put_unaligned_le16(value, fn->config + where);
	put_unaligned_le16(writable, fn->writable + where);
}

void pci_sim_set32(struct pci_sim_function *fn, int where, u32 value, u32 writable)
{
	put_unaligned_le32(value, fn->config + where);
	put_unaligned_le32(writable, fn->writable + where);
}

/* ---- registers after power-on ------------------------------------------------- */

static void init_ids(struct pci_sim_function *fn, const struct pci_sim_ids *ids)
{
	switch (fn->kind) {
	case PCI_SIM_PLAIN:
		pci_sim_set16(fn, PCI_VENDOR_ID, ids->vendor, 0);
		pci_sim_set16(fn, PCI_DEVICE_ID, ids->device, 0);
		break;
	case PCI_SIM_PF:
		pci_sim_set16(fn, PCI_VENDOR_ID, PCI_SIM_PF_VENDOR, 0);
		pci_sim_set16(fn, PCI_DEVICE_ID, PCI_SIM_PF_DEVICE, 0);
		break;
	case PCI_SIM_VF:
		/* The PF has them in its SR-IOV capability */
		pci_sim_set16(fn, PCI_VENDOR_ID, 0xffff, 0);
		pci_sim_set16(fn, PCI_DEVICE_ID, 0xffff, 0);
		break;
	}
	pci_sim_set16(fn, PCI_SUBSYSTEM_VENDOR_ID, ids->subvendor, 0);
	pci_sim_set16(fn, PCI_SUBSYSTEM_ID, ids->subdevice, 0);
}

static void init_header(struct pci_sim_function *fn, bool multifunction)
{
	pci_sim_set16(fn, PCI_COMMAND, 0, PCI_COMMAND_MASTER | PCI_COMMAND_MEMORY |
					  PCI_COMMAND_INTX_DISABLE);
	pci_sim_set16(fn, PCI_STATUS, PCI_STATUS_CAP_LIST, 0);
	pci_sim_set16(fn, PCI_CLASS_DEVICE, PCI_CLASS_NOT_DEFINED << 8 | 0xff, 0);
	pci_sim_set8(fn, PCI_CACHE_LINE_SIZE, 0, 0xff);
	pci_sim_set8(fn, PCI_HEADER_TYPE, multifunction ? PCI_HEADER_TYPE_MFD : 0, 0);
	pci_sim_set8(fn, PCI_INTERRUPT_LINE, 0, 0xff);
	pci_sim_set8(fn, PCI_CAPABILITY_LIST, PM, 0);
}

static void init_pm(struct pci_sim_function *fn)
{
	pci_sim_set8(fn, PM + PCI_CAP_LIST_ID, PCI_CAP_ID_PM, 0);
	pci_sim_set8(fn, PM + PCI_CAP_LIST_NEXT, EXP, 0);
	pci_sim_set16(fn, PM + PCI_PM_PMC, 3, 0);
	pci_sim_set16(fn, PM + PCI_PM_CTRL, PCI_PM_CTRL_NO_SOFT_RESET, PCI_PM_CTRL_STATE_MASK);
}

static void init_express(struct pci_sim_function *fn, bool flr)
{
	u16 type = PCI_EXP_TYPE_RC_END << 4;

	pci_sim_set8(fn, EXP + PCI_CAP_LIST_ID, PCI_CAP_ID_EXP, 0);
	pci_sim_set16(fn, EXP + PCI_EXP_FLAGS, type | 2, 0);
	pci_sim_set32(fn, EXP + PCI_EXP_DEVCAP,
		      PCI_EXP_DEVCAP_RBER | (flr ? PCI_EXP_DEVCAP_FLR : 0), 0);
	pci_sim_set16(fn, EXP + PCI_EXP_DEVCTL, 0, flr ? 0xffff : 0x7fff);
}

/**
 * pci_sim_config_init() - set all registers of a function to their initial values
 * @host: host bridge
 * @devfn: device and function number of an existing function
 */
void pci_sim_config_init(struct pci_sim_host *host, unsigned int devfn)
{
	struct pci_sim_function *fn = host->functions[devfn];
	const struct pci_sim_options *options = host->options;

	memset(fn->config, 0, sizeof(fn->config));
	init_ids(fn, &options->ids);
	/* With more than 32 functions, a device has more than one of them */
	init_header(fn, options->functions > PCI_SIM_SLOTS);
	init_pm(fn);
	init_express(fn, options->flr);
	if (fn->kind == PCI_SIM_PF)
		pci_sim_init_sriov(fn, devfn, options);
}

/* ---- accesses ------------------------------------------------------------------- */

static int pci_sim_read(struct pci_bus *bus, unsigned int devfn, int where,
			int size, u32 *value)
{
	struct pci_sim_host *host = pci_sim_host(bus);
	struct pci_sim_function *fn = host->functions[devfn];

	guard(raw_spinlock_irqsave)(&host->lock);
	if (!fn || !fn->present) {
		*value = ~0;
		return PCIBIOS_DEVICE_NOT_FOUND;
	}
	*value = 0;
	for (int i = size; i--; )
		if (where + i < PCI_SIM_CONFIG_SIZE)
			*value |= fn->config[where + i] << 8 * i;
	return PCIBIOS_SUCCESSFUL;
}

/*
 * Perform a function level reset if the register requests one. The VFs of a PF
 * disappear until the kernel has restored the registers of the PF.
 */
static void reset_if_asked(struct pci_sim_function *fn)
{
	u16 control = get_unaligned_le16(fn->config + EXP + PCI_EXP_DEVCTL);

	if (!(control & PCI_EXP_DEVCTL_BCR_FLR))
		return;
	put_unaligned_le16(0, fn->config + PCI_COMMAND);
	put_unaligned_le16(0, fn->config + EXP + PCI_EXP_DEVCTL);
	if (fn->kind == PCI_SIM_PF)
		pci_sim_reset_sriov(fn);
}

static int pci_sim_write(struct pci_bus *bus, unsigned int devfn, int where,
			 int size, u32 value)
{
	struct pci_sim_host *host = pci_sim_host(bus);
	struct pci_sim_function *fn = host->functions[devfn];

	guard(raw_spinlock_irqsave)(&host->lock);
	if (!fn || !fn->present)
		return PCIBIOS_DEVICE_NOT_FOUND;
	for (int i = where; i < where + size && i < PCI_SIM_CONFIG_SIZE; i++, value >>= 8)
		fn->config[i] = (fn->config[i] & ~fn->writable[i]) |
				(value & fn->writable[i]);
	reset_if_asked(fn);
	if (fn->kind == PCI_SIM_PF)
		pci_sim_update_vfs(host, devfn);
	return PCIBIOS_SUCCESSFUL;
}

struct pci_ops pci_sim_ops = {
	.read = pci_sim_read,
	.write = pci_sim_write,
};
