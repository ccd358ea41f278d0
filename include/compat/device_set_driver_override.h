/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * device_set_driver_override() for PCI functions, on kernels where struct pci_dev has a
 * driver_override of its own. Some of those have the function all the same, for other buses.
 */
#ifndef _PRECOPY_COMPAT_DEVICE_SET_DRIVER_OVERRIDE_H
#define _PRECOPY_COMPAT_DEVICE_SET_DRIVER_OVERRIDE_H

#include <linux/device.h>
#include <linux/errno.h>
#include <linux/pci.h>
#include <linux/slab.h>
#include <linux/string.h>

/* Only for a function that is being added: nobody else sets it, or reads it, meanwhile */
static inline int precopy_compat_set_driver_override(struct device *dev,
						     const char *name)
{
	struct pci_dev *pdev = to_pci_dev(dev);

	pdev->driver_override = kstrdup(name, GFP_KERNEL);
	return pdev->driver_override ? 0 : -ENOMEM;
}

#define device_set_driver_override precopy_compat_set_driver_override

#endif /* _PRECOPY_COMPAT_DEVICE_SET_DRIVER_OVERRIDE_H */
