// SPDX-License-Identifier: GPL-2.0-only
/*
 * Access to an I/O address space of iommufd. The device is bound and attached as a
 * physical one is, because that is what its carrier is; beside that it has an access,
 * by which a driver reaches the memory from software.
 */

#include <linux/iommu.h>
#include <linux/iommufd.h>
#include <linux/module.h>
#include <linux/vfio.h>

#include "dma.h"
#include "model.h"
#include "precopy.h"

/* Ids among which an I/O address space is looked for, see precopy_access_search() */
#define PRECOPY_MAX_IOAS_ID	4096

MODULE_IMPORT_NS("IOMMUFD");

static void precopy_access_unmap(void *data, unsigned long iova,
				 unsigned long length)
{
	precopy_dma_unmap(data, iova, length);
}

static const struct iommufd_access_ops precopy_access_ops = {
	.needs_pin_pages	= 1,
	.unmap			= precopy_access_unmap,
};

static int precopy_access_create(struct vfio_device *vdev,
				 struct iommufd_ctx *ictx)
{
	struct iommufd_access *access;
	u32 id;

	access = iommufd_access_create(ictx, &precopy_access_ops, vdev, &id);
	if (IS_ERR(access))
		return PTR_ERR(access);
	to_precopy(vdev)->dma.access = access;
	return 0;
}

/**
 * precopy_dma_bind - VFIO_DEVICE_BIND_IOMMUFD
 * @vdev: the device
 * @ictx: the user's iommufd
 * @id: result: id of the device in it
 *
 * Return: 0 or an error of iommufd.
 */
int precopy_dma_bind(struct vfio_device *vdev, struct iommufd_ctx *ictx,
		     u32 *id)
{
	struct precopy_device *pcd = to_precopy(vdev);
	int ret = vfio_iommufd_physical_bind(vdev, ictx, id);

	if (ret || READ_ONCE(pcd->next_model) != &precopy_engine_model)
		return ret;
	precopy_dma_open(pcd);
	if (pcd->dma.sim)
		return 0;
	ret = precopy_access_create(vdev, ictx);
	if (ret)
		vfio_iommufd_physical_unbind(vdev);
	return ret;
}

/* A step that begins from now on finds no access, and the present one ends first */
static void precopy_access_detach(struct precopy_device *pcd)
{
	bool attached;

	scoped_guard(spinlock, &pcd->state_lock) {
		attached = pcd->dma.attached;
		WRITE_ONCE(pcd->dma.attached, false);
	}
	if (!attached)
		return;
	precopy_dma_drain(pcd);
	iommufd_access_detach(pcd->dma.access);
}

/**
 * precopy_dma_unbind - undo precopy_dma_bind()
 * @vdev: the device, closed
 */
void precopy_dma_unbind(struct vfio_device *vdev)
{
	struct precopy_device *pcd = to_precopy(vdev);

	if (pcd->dma.access) {
		precopy_access_detach(pcd);
		iommufd_access_destroy(pcd->dma.access);
		pcd->dma.access = NULL;
	}
	precopy_dma_close(pcd);
	vfio_iommufd_physical_unbind(vdev);
}

/*
 * A VMM may attach a page table instead of an I/O address space, and an access can
 * only be attached to the latter. Which one the page table belongs to is not told:
 * if there is exactly one in the user's iommufd, it is that.
 *
 * Return: 0 with the access attached, or a negative error.
 */
static int precopy_access_search(struct iommufd_access *access)
{
	u32 id, found = 0;
	int ret;

	for (id = 1; id <= PRECOPY_MAX_IOAS_ID; id++) {
		ret = iommufd_access_attach(access, id);
		if (ret == -ENOENT)
			continue;
		/* It is there, so another one is not the only one */
		if (ret)
			return ret;
		iommufd_access_detach(access);
		if (found)
			return -ENXIO;
		found = id;
	}
	return found ? iommufd_access_attach(access, found) : -ENXIO;
}

/* Is the device attached to a page table of the guest? */
static bool precopy_dma_nested(struct precopy_device *pcd)
{
	struct iommu_domain *domain = iommu_get_domain_for_dev(precopy_dev(pcd));

	return domain && domain->type == IOMMU_DOMAIN_NESTED;
}

static void precopy_access_attach(struct precopy_device *pcd, u32 pt_id)
{
	struct iommufd_access *access = pcd->dma.access;
	int ret = -ENXIO;

	/* The addresses of a nested one are translated by tables of the guest */
	if (!precopy_dma_nested(pcd))
		ret = iommufd_access_attach(access, pt_id);
	if (ret == -ENOENT)
		ret = precopy_access_search(access);
	if (ret) {
		dev_warn_ratelimited(precopy_dev(pcd),
				     "no DMA: not attached to the only I/O address space of this iommufd\n");
		return;
	}
	guard(spinlock)(&pcd->state_lock);
	WRITE_ONCE(pcd->dma.attached, true);
}

static void precopy_access_set_switching(struct precopy_device *pcd,
					 bool switching)
{
	guard(spinlock)(&pcd->state_lock);
	pcd->dma.switching = switching;
}

/*
 * The engine may be at work. It waits, instead of finding nothing in between: the step
 * that has begun is complete before the access is taken away, and no other begins.
 */
static void precopy_access_switch(struct precopy_device *pcd, u32 pt_id)
{
	precopy_access_set_switching(pcd, true);
	precopy_dma_drain(pcd);
	precopy_access_detach(pcd);
	precopy_access_attach(pcd, pt_id);
	precopy_access_set_switching(pcd, false);
}

/**
 * precopy_dma_attach - VFIO_DEVICE_ATTACH_IOMMUFD_PT
 * @vdev: the device
 * @pt_id: id of an I/O address space or of a page table; result as iommufd has it
 *
 * The attachment succeeds if the carrier can be attached. If the access cannot be,
 * all DMA fails with -ENXIO.
 *
 * Return: 0 or an error of iommufd.
 */
int precopy_dma_attach(struct vfio_device *vdev, u32 *pt_id)
{
	struct precopy_device *pcd = to_precopy(vdev);
	u32 id = *pt_id;
	int ret = vfio_iommufd_physical_attach_ioas(vdev, pt_id);

	if (ret || !pcd->dma.access)
		return ret;
	precopy_access_switch(pcd, id);
	return 0;
}

/**
 * precopy_dma_detach - VFIO_DEVICE_DETACH_IOMMUFD_PT
 * @vdev: the device
 */
void precopy_dma_detach(struct vfio_device *vdev)
{
	struct precopy_device *pcd = to_precopy(vdev);

	if (pcd->dma.access)
		precopy_access_detach(pcd);
	vfio_iommufd_physical_detach_ioas(vdev);
}
