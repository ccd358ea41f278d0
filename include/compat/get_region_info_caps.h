/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * get_region_info_caps of struct vfio_device_ops, for kernels such as 6.18, where a driver
 * answers VFIO_DEVICE_GET_REGION_INFO itself: done where the driver passes an ioctl on to
 * vfio_pci_core_ioctl().
 */
#ifndef _PRECOPY_COMPAT_GET_REGION_INFO_CAPS_H
#define _PRECOPY_COMPAT_GET_REGION_INFO_CAPS_H

#include <linux/bug.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "vfio_device_ops.h"

struct precopy_compat_ops_region {
	struct vfio_device_ops;
	int (*get_region_info_caps)(struct vfio_device *vdev,
				    struct vfio_region_info *info,
				    struct vfio_info_cap *caps);
};

#undef vfio_device_ops
#define vfio_device_ops precopy_compat_ops_region

/* The driver's regions have no capabilities */
static inline long precopy_compat_region_info(struct vfio_device *vdev,
					      void __user *arg)
{
	const struct precopy_compat_ops_region *ops = (const void *)vdev->ops;
	unsigned long minsz = offsetofend(struct vfio_region_info, offset);
	struct vfio_region_info info = {};
	struct vfio_info_cap caps = {};
	int ret;

	if (copy_from_user(&info, arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;
	ret = ops->get_region_info_caps(vdev, &info, &caps);
	if (ret)
		return ret;
	if (WARN_ON(caps.size)) {
		kfree(caps.buf);
		return -EINVAL;
	}
	return copy_to_user(arg, &info, minsz) ? -EFAULT : 0;
}

static inline long precopy_compat_core_ioctl(struct vfio_device *vdev,
					     unsigned int cmd,
					     unsigned long arg)
{
	if (cmd == VFIO_DEVICE_GET_REGION_INFO)
		return precopy_compat_region_info(vdev, (void __user *)arg);
	return vfio_pci_core_ioctl(vdev, cmd, arg);
}

#define vfio_pci_core_ioctl precopy_compat_core_ioctl

#endif /* _PRECOPY_COMPAT_GET_REGION_INFO_CAPS_H */
