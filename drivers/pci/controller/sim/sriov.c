// SPDX-License-Identifier: GPL-2.0-only
/*
 * Physical functions (PFs): their SR-IOV capability, and their driver, which can
 * only enable virtual functions (VFs).
 */
#include <linux/lockdep.h>
#include <linux/unaligned.h>

#include "pci-host-sim.h"

#define SRIOV	PCI_CFG_SPACE_SIZE

static u16 get16(struct pci_sim_function *fn, int where)
{
	return get_unaligned_le16(fn->config + where);
}

/**
 * pci_sim_init_sriov() - set the SR-IOV capability of a PF to its initial values
 * @fn: PF
 * @devfn: its device and function number
 * @options: numbers and properties of the host's functions
 */
void pci_sim_init_sriov(struct pci_sim_function *fn, unsigned int devfn,
			const struct pci_sim_options *options)
{
	pci_sim_set32(fn, SRIOV, PCI_EXT_CAP_ID_SRIOV | 1 << 16, 0);
	pci_sim_set16(fn, SRIOV + PCI_SRIOV_CTRL, 0, PCI_SRIOV_CTRL_VFE | PCI_SRIOV_CTRL_MSE);
	pci_sim_set16(fn, SRIOV + PCI_SRIOV_INITIAL_VF, options->total_vfs, 0);
	pci_sim_set16(fn, SRIOV + PCI_SRIOV_TOTAL_VF, options->total_vfs, 0);
	pci_sim_set16(fn, SRIOV + PCI_SRIOV_NUM_VF, 0, 0xffff);
	pci_sim_set8(fn, SRIOV + PCI_SRIOV_FUNC_LINK, PCI_FUNC(devfn), 0);
	pci_sim_set16(fn, SRIOV + PCI_SRIOV_VF_OFFSET, PCI_SIM_VF_OFFSET, 0);
	pci_sim_set16(fn, SRIOV + PCI_SRIOV_VF_STRIDE, 1, 0);
	pci_sim_set16(fn, SRIOV + PCI_SRIOV_VF_DID, options->ids.device, 0);
	/* 4 KiB, 8 KiB, 64 KiB, 256 KiB, 1 MiB and 4 MiB must be supported */
	pci_sim_set32(fn, SRIOV + PCI_SRIOV_SUP_PGSIZE, 0x553, 0);
	pci_sim_set32(fn, SRIOV + PCI_SRIOV_SYS_PGSIZE, 1, ~0);
}

/**
 * pci_sim_reset_sriov() - reset the SR-IOV capability of a PF, which disables VFs
 * @fn: PF
 */
void pci_sim_reset_sriov(struct pci_sim_function *fn)
{
	put_unaligned_le16(0, fn->config + SRIOV + PCI_SRIOV_CTRL);
	put_unaligned_le16(0, fn->config + SRIOV + PCI_SRIOV_NUM_VF);
}

/**
 * pci_sim_update_vfs() - add and remove VFs as the PF's registers require
 * @host: host bridge, whose lock is held
 * @devfn: device and function number of the PF
 *
 * A VF is present if its PF is present, has VFs enabled, and NUM_VFS includes it.
 */
void pci_sim_update_vfs(struct pci_sim_host *host, unsigned int devfn)
{
	struct pci_sim_function *pf = host->functions[devfn];
	unsigned int n = 0;

	lockdep_assert_held(&host->lock);
	if (pf->present && get16(pf, SRIOV + PCI_SRIOV_CTRL) & PCI_SRIOV_CTRL_VFE)
		n = get16(pf, SRIOV + PCI_SRIOV_NUM_VF);
	for (unsigned int i = 0; i < host->options->total_vfs; i++)
		host->functions[devfn + PCI_SIM_VF_OFFSET + i]->present = i < n;
}

/* ---- driver ---------------------------------------------------------------------- */

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

struct pci_driver pci_sim_pf_driver = {
	.name = "pci-host-sim-pf",
	.id_table = pci_sim_pf_ids,
	.probe = pci_sim_pf_probe,
	.remove = pci_sim_pf_remove,
	.sriov_configure = pci_sriov_configure_simple,
};
