// SPDX-License-Identifier: GPL-2.0-only
/* VFIO device operations: open, close, reset, regions, ioctls. */

#include <linux/iommufd.h>
#include <linux/mutex.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "func/config.h"
#include "func/dma.h"
#include "func/engine.h"
#include "func/irq.h"
#include "func/model.h"
#include "func/peers.h"
#include "func/registers.h"
#include "mem/memory.h"
#include "mig/fsm.h"
#include "mig/session.h"
#include "precopy.h"

struct workqueue_struct *precopy_wq;

/*
 * Of the interrupts that the VFIO core knows the virtual device has ERR and REQ. The
 * engine's MSI-X is its own.
 */
static bool precopy_irq_hidden(u32 index)
{
	return index <= VFIO_PCI_MSIX_IRQ_INDEX;
}

/**
 * precopy_device_reset - reset the virtual device
 * @pcd: the device
 *
 * After the reset the state is RUNNING, the memory is zero, the engine has nothing to
 * do, and there is no session and no DMA log. Config space is not changed, as on a
 * physical device that Linux resets and then restores.
 *
 * Called for VFIO_DEVICE_RESET, at open and close, and after every requested reset
 * of the carrier; the core's memory_lock may be held. The function must therefore
 * not take a lock that is ever held during a user copy, a wait, or while taking
 * mmap_lock; memory.sem meets this condition. A worker frees the memory.
 *
 * Context: process context, may sleep.
 */
void precopy_device_reset(struct precopy_device *pcd)
{
	struct precopy_session *session;
	struct precopy_dma_log *log;

	scoped_guard(rwsem_write, &pcd->memory.sem) {
		scoped_guard(spinlock, &pcd->state_lock) {
			WRITE_ONCE(pcd->generation, pcd->generation + 1);
			pcd->mig_state = VFIO_DEVICE_STATE_RUNNING;
			session = precopy_session_detach(pcd);
			log = precopy_dma_log_detach(pcd);
			if (pcd->engine)
				precopy_engine_reset(pcd->engine);
		}
		precopy_memory_reset(&pcd->memory, pcd->generation);
	}
	precopy_memory_settle(&pcd->memory);
	wake_up_all(&pcd->wait);
	atomic64_inc(&pcd->stats.resets);
	if (session)
		precopy_session_put(session);
	precopy_dma_log_end(pcd, log);
	precopy_engine_reset_wait(pcd);
	dev_dbg(precopy_dev(pcd), "reset\n");
}

/* --- Open and close --------------------------------------------------- */

static void precopy_device_free(struct kref *kref)
{
	struct precopy_device *pcd =
		container_of(kref, struct precopy_device, kref);

	precopy_memory_destroy(&pcd->memory);
	mutex_destroy(&pcd->arc_mutex);
	pci_dev_put(pcd->pdev);
	kfree(pcd);
}

static struct precopy_device *precopy_device_alloc(struct precopy_function *function)
{
	struct precopy_device *pcd = kzalloc_obj(*pcd, GFP_KERNEL_ACCOUNT);

	if (!pcd)
		return NULL;
	kref_init(&pcd->kref);
	pcd->release = precopy_device_free;
	pcd->model = &precopy_memory_model;
	pcd->next_model = pcd->model;
	pcd->core = &function->core;
	pcd->pdev = pci_dev_get(to_pci_dev(function->core.vdev.dev));
	if (precopy_memory_init(&pcd->memory, precopy_dev(pcd),
				function->core.vdev.inode->i_mapping,
				PRECOPY_BAR_PGOFF, precopy_wq)) {
		pci_dev_put(pcd->pdev);
		kfree(pcd);
		return NULL;
	}
	mutex_init(&pcd->arc_mutex);
	spin_lock_init(&pcd->state_lock);
	init_waitqueue_head(&pcd->wait);
	pcd->mig_state = VFIO_DEVICE_STATE_RUNNING;
	precopy_cost_init(&pcd->startup_cost);
	return pcd;
}

static int precopy_init_device(struct vfio_device *vdev)
{
	struct precopy_function *function = to_precopy_function(vdev);
	int ret;

	function->pcd = precopy_device_alloc(function);
	if (!function->pcd)
		return -ENOMEM;
	vdev->migration_flags = PRECOPY_MIG_FLAGS;
	vdev->mig_ops = &precopy_migration_ops;
	/* Without IOMMUFD_DRIVER the core could start logging, but not report */
	if (IS_ENABLED(CONFIG_IOMMUFD_DRIVER))
		vdev->log_ops = &precopy_log_ops;
	ret = vfio_pci_core_init_dev(vdev);
	if (ret)
		precopy_device_put(function->pcd);
	return ret;
}

static void precopy_release_device(struct vfio_device *vdev)
{
	struct precopy_device *pcd = to_precopy(vdev);

	vfio_pci_core_release_dev(vdev);
	precopy_device_put(pcd);
}

/* Settle what this open has; until close, memory_size and model cannot be changed */
static u64 precopy_freeze(struct precopy_device *pcd)
{
	guard(spinlock)(&pcd->state_lock);
	pcd->opened = true;
	WRITE_ONCE(pcd->model, pcd->next_model);
	return pcd->next_size;
}

static void precopy_unfreeze(struct precopy_device *pcd)
{
	guard(spinlock)(&pcd->state_lock);
	pcd->opened = false;
}

static int precopy_open_engine(struct precopy_device *pcd)
{
	if (pcd->model != &precopy_engine_model)
		return 0;
	precopy_dma_open(pcd);
	return precopy_engine_create(pcd, precopy_wq);
}

static void precopy_close_engine(struct precopy_device *pcd)
{
	if (pcd->engine)
		precopy_engine_destroy(pcd);
	precopy_dma_close(pcd);
}

static int precopy_open_device(struct vfio_device *vdev)
{
	struct precopy_device *pcd = to_precopy(vdev);
	u64 size = precopy_freeze(pcd);
	int ret;

	ret = precopy_open_engine(pcd);
	if (ret)
		goto err_unfreeze;
	ret = precopy_memory_open(&pcd->memory, size);
	if (ret)
		goto err_engine;
	ret = vfio_pci_core_enable(pcd->core);
	if (ret)
		goto err_memory;
	pcd->core->vconfig[PCI_INTERRUPT_PIN] = 0;
	vdev->migration_flags = PRECOPY_MIG_FLAGS;
	if (precopy_knob(pcd, no_precopy))
		vdev->migration_flags &= ~VFIO_MIGRATION_PRE_COPY;
	precopy_config_init(pcd);
	precopy_device_reset(pcd);
	/* After the reset, startups of the previous user add no more samples */
	precopy_cost_forget(&pcd->startup_cost);
	precopy_peers_join(pcd);
	vfio_pci_core_finish_enable(pcd->core);
	return 0;

err_memory:
	precopy_memory_close(&pcd->memory);
err_engine:
	precopy_close_engine(pcd);
err_unfreeze:
	precopy_unfreeze(pcd);
	return ret;
}

static void precopy_close_device(struct vfio_device *vdev)
{
	struct precopy_device *pcd = to_precopy(vdev);

	if (pcd->engine)
		precopy_engine_stop(pcd->engine);
	precopy_peers_leave(pcd);
	precopy_device_reset(pcd);
	precopy_close_engine(pcd);
	precopy_memory_close(&pcd->memory);
	vfio_pci_core_close_device(vdev);
	precopy_unfreeze(pcd);
}

/* --- Regions ---------------------------------------------------------- */

static int precopy_region_info(struct vfio_device *vdev,
			       struct vfio_region_info *info,
			       struct vfio_info_cap *caps)
{
	struct precopy_device *pcd = to_precopy(vdev);

	if (info->index >= VFIO_PCI_NUM_REGIONS ||
	    info->index == VFIO_PCI_VGA_REGION_INDEX)
		return -EINVAL;
	info->offset = VFIO_PCI_INDEX_TO_OFFSET(info->index);
	info->flags = 0;
	info->size = 0;
	if (info->index == VFIO_PCI_CONFIG_REGION_INDEX) {
		info->size = precopy_config_size(pcd);
		info->flags = VFIO_REGION_INFO_FLAG_READ |
			      VFIO_REGION_INFO_FLAG_WRITE;
	} else if (info->index == VFIO_PCI_BAR0_REGION_INDEX && pcd->engine) {
		info->size = PRECOPY_ENGINE_BAR_SIZE;
		info->flags = VFIO_REGION_INFO_FLAG_READ |
			      VFIO_REGION_INFO_FLAG_WRITE;
	} else if (info->index == PRECOPY_BAR) {
		info->size = pcd->memory.size;
		info->flags = VFIO_REGION_INFO_FLAG_READ |
			      VFIO_REGION_INFO_FLAG_WRITE |
			      VFIO_REGION_INFO_FLAG_MMAP;
	}
	return 0;
}

/* BAR0 decodes as BAR2 does: with COMMAND's memory bit, in D0 */
static bool precopy_decodes(struct precopy_device *pcd)
{
	guard(rwsem_read)(&pcd->memory.sem);
	return pcd->memory.decode;
}

static ssize_t precopy_read_registers(struct precopy_device *pcd,
				      char __user *buf, size_t count, u64 offset)
{
	if (!pcd->engine)
		return -EINVAL;
	if (!precopy_decodes(pcd))
		return -EIO;
	return precopy_registers_read(pcd->engine, buf, count, offset);
}

static ssize_t precopy_write_registers(struct precopy_device *pcd,
				       const char __user *buf, size_t count,
				       u64 offset)
{
	if (!pcd->engine)
		return -EINVAL;
	if (!precopy_decodes(pcd))
		return -EIO;
	return precopy_registers_write(pcd->engine, buf, count, offset);
}

static ssize_t precopy_read(struct vfio_device *vdev, char __user *buf,
			    size_t count, loff_t *ppos)
{
	struct precopy_device *pcd = to_precopy(vdev);
	u64 offset = *ppos & VFIO_PCI_OFFSET_MASK;
	ssize_t ret;

	if (!count)
		return 0;
	switch (VFIO_PCI_OFFSET_TO_INDEX(*ppos)) {
	case VFIO_PCI_CONFIG_REGION_INDEX:
		ret = precopy_config_read(pcd, buf, count, offset);
		break;
	case VFIO_PCI_BAR0_REGION_INDEX:
		ret = precopy_read_registers(pcd, buf, count, offset);
		break;
	case PRECOPY_BAR:
		ret = precopy_memory_read(&pcd->memory, buf, count, offset);
		break;
	default:
		return -EINVAL;
	}
	if (ret > 0)
		*ppos += ret;
	return ret;
}

/* As vfio-pci does it, a function level reset is complete when the write returns */
static ssize_t precopy_write_config(struct precopy_device *pcd,
				    const char __user *buf, size_t count,
				    u64 offset)
{
	bool flr = false;
	ssize_t ret = precopy_config_write(pcd, buf, count, offset, &flr);

	if (flr)
		precopy_device_reset(pcd);
	return ret;
}

static ssize_t precopy_write(struct vfio_device *vdev, const char __user *buf,
			     size_t count, loff_t *ppos)
{
	struct precopy_device *pcd = to_precopy(vdev);
	u64 offset = *ppos & VFIO_PCI_OFFSET_MASK;
	ssize_t ret;

	if (!count)
		return 0;
	switch (VFIO_PCI_OFFSET_TO_INDEX(*ppos)) {
	case VFIO_PCI_CONFIG_REGION_INDEX:
		ret = precopy_write_config(pcd, buf, count, offset);
		break;
	case VFIO_PCI_BAR0_REGION_INDEX:
		ret = precopy_write_registers(pcd, buf, count, offset);
		break;
	case PRECOPY_BAR:
		ret = precopy_memory_write(&pcd->memory, buf, count, offset);
		break;
	default:
		return -EINVAL;
	}
	if (ret > 0)
		*ppos += ret;
	return ret;
}

static int precopy_mmap(struct vfio_device *vdev, struct vm_area_struct *vma)
{
	u64 offset = (u64)vma->vm_pgoff << PAGE_SHIFT;

	if (VFIO_PCI_OFFSET_TO_INDEX(offset) != PRECOPY_BAR)
		return -EINVAL;
	return precopy_memory_mmap(&to_precopy(vdev)->memory, vma);
}

/* --- ioctls ----------------------------------------------------------- */

static long precopy_get_info(unsigned long arg)
{
	unsigned long minsz = offsetofend(struct vfio_device_info, num_irqs);
	struct vfio_device_info info = {};
	unsigned long len;

	if (copy_from_user(&info, (void __user *)arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;
	len = min_t(unsigned long, info.argsz, sizeof(info));
	info.flags = VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET;
	info.num_regions = VFIO_PCI_NUM_REGIONS;
	info.num_irqs = VFIO_PCI_NUM_IRQS;
	return copy_to_user((void __user *)arg, &info, len) ? -EFAULT : 0;
}

/*
 * INTx and MSI have count 0, and MSI-X too if there is no engine; ERR and REQ have one
 * eventfd each.
 */
static long precopy_get_irq_info(struct precopy_device *pcd, unsigned long arg)
{
	unsigned long minsz = offsetofend(struct vfio_irq_info, count);
	struct vfio_irq_info info;

	if (copy_from_user(&info, (void __user *)arg, minsz))
		return -EFAULT;
	if (info.argsz < minsz || info.index >= VFIO_PCI_NUM_IRQS ||
	    (info.index == VFIO_PCI_ERR_IRQ_INDEX &&
	     !pci_is_pcie(pcd->pdev)))
		return -EINVAL;
	info.flags = 0;
	info.count = 0;
	if (info.index == VFIO_PCI_MSIX_IRQ_INDEX && pcd->engine) {
		info.flags = VFIO_IRQ_INFO_EVENTFD;
		info.count = PRECOPY_ENGINE_VECTORS;
	} else if (!precopy_irq_hidden(info.index)) {
		info.flags = VFIO_IRQ_INFO_EVENTFD | VFIO_IRQ_INFO_NORESIZE;
		info.count = 1;
	}
	return copy_to_user((void __user *)arg, &info, minsz) ? -EFAULT : 0;
}

/* VMMs disable interrupts during cleanup, so this succeeds although none exist */
static bool precopy_irqs_disable(const struct vfio_irq_set *hdr)
{
	return !hdr->start && !hdr->count &&
	       hdr->flags == (VFIO_IRQ_SET_DATA_NONE |
			      VFIO_IRQ_SET_ACTION_TRIGGER);
}

/*
 * The core reads the header again from user space, which may have changed the index
 * in between. The core must therefore find no interrupt of the carrier at any index:
 * probe sets no_msi, and open clears the interrupt pin.
 */
static long precopy_set_irqs(struct vfio_device *vdev, unsigned long arg)
{
	unsigned long minsz = offsetofend(struct vfio_irq_set, count);
	struct precopy_device *pcd = to_precopy(vdev);
	struct vfio_irq_set hdr;

	if (copy_from_user(&hdr, (void __user *)arg, minsz))
		return -EFAULT;
	if (hdr.index == VFIO_PCI_MSIX_IRQ_INDEX && pcd->engine)
		return precopy_irq_set(pcd->engine, &hdr,
				       (void __user *)(arg + minsz));
	if (!precopy_irq_hidden(hdr.index))
		return vfio_pci_core_ioctl(vdev, VFIO_DEVICE_SET_IRQS, arg);
	if (hdr.argsz < minsz || !precopy_irqs_disable(&hdr))
		return -EINVAL;
	return 0;
}

static long precopy_ioctl(struct vfio_device *vdev, unsigned int cmd,
			  unsigned long arg)
{
	switch (cmd) {
	case VFIO_DEVICE_GET_INFO:
		return precopy_get_info(arg);
	case VFIO_DEVICE_GET_IRQ_INFO:
		return precopy_get_irq_info(to_precopy(vdev), arg);
	case VFIO_DEVICE_SET_IRQS:
		return precopy_set_irqs(vdev, arg);
	case VFIO_DEVICE_RESET:
		precopy_device_reset(to_precopy(vdev));
		return 0;
	case VFIO_DEVICE_IOEVENTFD:
		/* The tracker would miss stores of an ioeventfd to the memory */
		return -ENOTTY;
	default:
		return vfio_pci_core_ioctl(vdev, cmd, arg);
	}
}

static int precopy_device_feature(struct vfio_device *vdev, u32 flags,
				  void __user *arg, size_t argsz)
{
	/* The tracker would miss stores of other devices to a dma-buf */
	if ((flags & VFIO_DEVICE_FEATURE_MASK) == VFIO_DEVICE_FEATURE_DMA_BUF)
		return -ENOTTY;
	return vfio_pci_core_ioctl_feature(vdev, flags, arg, argsz);
}

const struct vfio_device_ops precopy_device_ops = {
	.name			= "precopy-vfio-pci",
	.init			= precopy_init_device,
	.release		= precopy_release_device,
	.open_device		= precopy_open_device,
	.close_device		= precopy_close_device,
	.ioctl			= precopy_ioctl,
	.get_region_info_caps	= precopy_region_info,
	.device_feature		= precopy_device_feature,
	.read			= precopy_read,
	.write			= precopy_write,
	.mmap			= precopy_mmap,
	.request		= vfio_pci_core_request,
	.match			= vfio_pci_core_match,
	.match_token_uuid	= vfio_pci_core_match_token_uuid,
	.dma_unmap		= precopy_dma_unmap,
	.bind_iommufd		= precopy_dma_bind,
	.unbind_iommufd		= precopy_dma_unbind,
	.attach_ioas		= precopy_dma_attach,
	.detach_ioas		= precopy_dma_detach,
};
