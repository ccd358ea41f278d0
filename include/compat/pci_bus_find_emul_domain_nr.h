/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * pci_bus_find_emul_domain_nr(), for kernels such as 6.12, where nobody allocates numbers of
 * PCI domains on x86: a number is taken while the domain has a bus. Two calls get the same
 * number if no bus is added in between.
 */
#ifndef _PRECOPY_COMPAT_PCI_BUS_FIND_EMUL_DOMAIN_NR_H
#define _PRECOPY_COMPAT_PCI_BUS_FIND_EMUL_DOMAIN_NR_H

#include <linux/errno.h>
#include <linux/pci.h>

static inline bool precopy_compat_domain_has_bus(u32 nr)
{
	struct pci_bus *bus = NULL;

	while ((bus = pci_find_next_bus(bus)))
		if (pci_domain_nr(bus) == nr)
			return true;
	return false;
}

static inline int pci_bus_find_emul_domain_nr(u32 hint, u32 min, u32 max)
{
	for (u32 nr = max(hint, min); nr <= max; nr++)
		if (!precopy_compat_domain_has_bus(nr))
			return nr;
	return -ENOSPC;
}

#endif /* _PRECOPY_COMPAT_PCI_BUS_FIND_EMUL_DOMAIN_NR_H */
