/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Some kernels lack members of struct vfio_device_ops. One header for each such member
 * includes this one. It defines a structure that begins with the kernel's structure and
 * adds the member, and gives it the kernel's name. This needs -fms-extensions.
 */
#ifndef _PRECOPY_COMPAT_VFIO_DEVICE_OPS_H
#define _PRECOPY_COMPAT_VFIO_DEVICE_OPS_H

#include <linux/vfio.h>
#include <linux/vfio_pci_core.h>

/* The kernel knows the beginning only */
#define _vfio_alloc_device(size, dev, ops) \
	_vfio_alloc_device(size, dev, (const void *)(ops))

#endif /* _PRECOPY_COMPAT_VFIO_DEVICE_OPS_H */
