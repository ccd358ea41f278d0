/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The directory of a device in debugfs, vfio/BDF, for kernels without CONFIG_VFIO_DEBUGFS,
 * such as Debian's, so that there are statistics. VFIO itself has a pointer to it, which is
 * NULL there.
 *
 * Only one file of the driver registers devices, so that the lock is one. The last device
 * removes the directory above as well.
 */
#ifndef _PRECOPY_COMPAT_VFIO_DEBUGFS_H
#define _PRECOPY_COMPAT_VFIO_DEBUGFS_H

#include <linux/cleanup.h>
#include <linux/debugfs.h>
#include <linux/fs.h>
#include <linux/mutex.h>
#include <linux/vfio_pci_core.h>

static __maybe_unused DEFINE_MUTEX(precopy_compat_debugfs_lock);

static inline struct dentry *precopy_compat_debugfs_top(void)
{
	struct dentry *top = debugfs_lookup("vfio", NULL);

	/* The files below it keep it, as long as the lock is held */
	if (top)
		dput(top);
	else
		top = debugfs_create_dir("vfio", NULL);
	return top;
}

static inline int
precopy_compat_register_device(struct vfio_pci_core_device *core)
{
	int ret = vfio_pci_core_register_device(core);

	if (ret)
		return ret;
	guard(mutex)(&precopy_compat_debugfs_lock);
	core->vdev.debug_root = debugfs_create_dir(dev_name(&core->pdev->dev),
						   precopy_compat_debugfs_top());
	return 0;
}

static inline void
precopy_compat_unregister_device(struct vfio_pci_core_device *core)
{
	struct dentry *top;

	vfio_pci_core_unregister_device(core);
	guard(mutex)(&precopy_compat_debugfs_lock);
	debugfs_remove(core->vdev.debug_root);
	core->vdev.debug_root = NULL;
	top = debugfs_lookup("vfio", NULL);
	if (!top)
		return;
	if (simple_empty(top))
		debugfs_remove(top);
	dput(top);
}

#define vfio_pci_core_register_device	precopy_compat_register_device
#define vfio_pci_core_unregister_device precopy_compat_unregister_device

#endif /* _PRECOPY_COMPAT_VFIO_DEBUGFS_H */
