// SPDX-License-Identifier: GPL-2.0-only
/*
 * Reading and writing the user's memory, a page at a time. There are three ways:
 *
 * - behind the simulated IOMMU, through the domain that the function is attached to;
 * - in a type1 container, by pinning the page for the copy;
 * - in an I/O address space of iommufd, the same.
 *
 * A page is never pinned for longer than one copy, so an unmapping only has to wait
 * for the step that is executed.
 */

#include <linux/highmem.h>
#include <linux/iommu.h>
#include <linux/iommu-sim.h>
#include <linux/iommufd.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/vfio.h>

#include "dma.h"
#include "peers.h"
#include "precopy.h"

/* Time without a step after memory was unmapped, ms */
#define PRECOPY_UNMAP_MS	5

/* Time after which a step looks again whether the address space was changed, ms */
#define PRECOPY_SWITCH_MS	1

#if IS_ENABLED(CONFIG_IOMMUFD)
static int precopy_dma_pin_iommufd(struct precopy_dma *dma, u64 iova,
				   struct page **page, bool write)
{
	/* Becomes false in the middle of a step only if the device is detached */
	if (!READ_ONCE(dma->attached))
		return -ENXIO;
	return iommufd_access_pin_pages(dma->access, iova, PAGE_SIZE, page,
					write ? IOMMUFD_ACCESS_RW_WRITE : 0);
}

static void precopy_dma_unpin_iommufd(struct precopy_dma *dma, u64 iova)
{
	iommufd_access_unpin_pages(dma->access, iova, PAGE_SIZE);
}
#else
static int precopy_dma_pin_iommufd(struct precopy_dma *dma, u64 iova,
				   struct page **page, bool write)
{
	return -ENXIO;
}

static void precopy_dma_unpin_iommufd(struct precopy_dma *dma, u64 iova) {}
#endif

static int precopy_dma_pin(struct precopy_device *pcd, u64 iova,
			   struct page **page, bool write)
{
	int ret;

	if (pcd->dma.access)
		return precopy_dma_pin_iommufd(&pcd->dma, iova, page, write);
	ret = vfio_pin_pages(&pcd->core->vdev, iova, 1,
			     write ? IOMMU_WRITE : IOMMU_READ, page);
	return ret == 1 ? 0 : ret ?: -EFAULT;
}

static void precopy_dma_unpin(struct precopy_device *pcd, u64 iova)
{
	if (pcd->dma.access)
		precopy_dma_unpin_iommufd(&pcd->dma, iova);
	else
		vfio_unpin_pages(&pcd->core->vdev, iova, 1);
}

/* Return: 0, 1 if the IOMMU has a dirty bit for a store, or an error */
static int precopy_dma_rw(struct precopy_device *pcd, u64 iova, void *buf,
			  size_t len, bool write)
{
	size_t offset = offset_in_page(iova);
	struct page *page;
	int ret;

	if (pcd->dma.sim)
		return pcd->dma.sim(precopy_dev(pcd), iova, buf, len, write);
	ret = precopy_dma_pin(pcd, iova - offset, &page, write);
	/* Version 1 of type1 has no pins */
	if (ret == -EACCES)
		return vfio_dma_rw(&pcd->core->vdev, iova, buf, len, write);
	if (ret)
		return ret;
	if (write)
		memcpy_to_page(page, offset, buf, len);
	else
		memcpy_from_page(buf, page, offset, len);
	precopy_dma_unpin(pcd, iova - offset);
	return 0;
}

/*
 * Access memory of a peer, if that is what an address is at which there is no memory of
 * the guest. A device that is attached to nothing reaches no peer either: its addresses
 * may not be those of the guest.
 */
static bool precopy_dma_peer(struct precopy_device *pcd, u64 iova, void *buf,
			     size_t len, bool write, int *ret)
{
	return *ret < 0 && *ret != -ENXIO &&
	       precopy_peers_rw(pcd, iova, buf, len, write, ret);
}

/**
 * precopy_dma_read - read memory by DMA
 * @pcd: the device, in a step
 * @iova: I/O virtual address
 * @buf: buffer for the data
 * @len: number of bytes, all in one page
 *
 * Context: may sleep, no lock held.
 * Return: 0; -ENXIO if the device is attached to nothing that it can read; an error of
 * precopy_peers_rw() if the address is one of a peer; another error, which depends on
 * the way, if the address is not mapped.
 */
int precopy_dma_read(struct precopy_device *pcd, u64 iova, void *buf,
		     size_t len)
{
	int ret = precopy_dma_rw(pcd, iova, buf, len, false);

	precopy_dma_peer(pcd, iova, buf, len, false, &ret);
	return ret;
}

/**
 * precopy_dma_write - write memory by DMA, and log it
 * @pcd: the device, in a step
 * @iova: I/O virtual address
 * @buf: the data
 * @len: number of bytes, all in one page
 *
 * Room in the log is there before the store, and the page is marked after it: marked
 * before, it could be reported, and sent by the VMM, without the data. It is marked
 * even if there was an error, which may have come after a part of the store. Memory of
 * a peer is no memory that the VMM sends: the peer's own tracker is told.
 *
 * Context: may sleep, no lock held.
 * Return: as precopy_dma_read(), -ENOMEM if there is no room in the log.
 */
int precopy_dma_write(struct precopy_device *pcd, u64 iova, const void *buf,
		      size_t len)
{
	int ret = precopy_dma_log_reserve(pcd, iova);

	if (ret)
		return ret;
	ret = precopy_dma_rw(pcd, iova, (void *)buf, len, true);
	if (precopy_dma_peer(pcd, iova, (void *)buf, len, true, &ret))
		return ret;
	precopy_dma_log_mark(pcd, iova, ret > 0);
	return min(ret, 0);
}

/* --- Steps ------------------------------------------------------------ */

/**
 * precopy_dma_begin - begin a step
 * @pcd: the device
 *
 * Between begin and precopy_dma_end() the caller may read and write memory, without
 * a lock. Whoever has to be sure that there is no access waits for the end.
 *
 * Context: state_lock held.
 * Return: true, or false if no step may begin before @resume_at.
 */
bool precopy_dma_begin(struct precopy_device *pcd)
{
	ktime_t now = ktime_get();

	lockdep_assert_held(&pcd->state_lock);
	if (pcd->dma.switching) {
		pcd->dma.resume_at = ktime_add_ms(now, PRECOPY_SWITCH_MS);
		return false;
	}
	if (ktime_before(now, pcd->dma.resume_at))
		return false;
	pcd->dma.busy = true;
	return true;
}

/**
 * precopy_dma_end - end a step
 * @pcd: the device. The caller wakes pcd->wait when it has released the lock.
 *
 * Context: state_lock held.
 */
void precopy_dma_end(struct precopy_device *pcd)
{
	lockdep_assert_held(&pcd->state_lock);
	pcd->dma.busy = false;
}

/**
 * precopy_dma_idle - condition to wait for: no step is executed
 * @pcd: the device
 *
 * Return: true if so. A new step may begin at once.
 */
bool precopy_dma_idle(struct precopy_device *pcd)
{
	guard(spinlock)(&pcd->state_lock);
	return !pcd->dma.busy;
}

static void precopy_dma_claim(struct precopy_device *pcd, int n)
{
	guard(spinlock)(&pcd->state_lock);
	pcd->dma.claims += n;
}

/**
 * precopy_dma_drain - wait until no step is executed
 * @pcd: the device
 *
 * As for precopy_engine_quiesce(), the caller can be frozen.
 *
 * Context: may sleep, not killable; no lock that a step needs.
 */
void precopy_dma_drain(struct precopy_device *pcd)
{
	precopy_dma_claim(pcd, 1);
	wake_up_all(&pcd->wait);
	wait_event_state(pcd->wait, precopy_dma_idle(pcd),
			 (TASK_UNINTERRUPTIBLE | TASK_FREEZABLE_UNSAFE));
	precopy_dma_claim(pcd, -1);
}

/**
 * precopy_dma_unmap - the user unmaps memory: let go of it
 * @vdev: the device
 * @iova: I/O virtual address; unused, since a step is short
 * @length: number of bytes; unused
 *
 * No step begins for a moment afterwards. A type1 container looks for pins again when
 * this returns, and the kernel stops in BUG() if it finds some ten times.
 *
 * Context: may sleep; locks of the container or of iommufd held, none of which a
 * step needs.
 */
void precopy_dma_unmap(struct vfio_device *vdev, u64 iova, u64 length)
{
	struct precopy_device *pcd = to_precopy(vdev);

	scoped_guard(spinlock, &pcd->state_lock)
		pcd->dma.resume_at = ktime_add_ms(ktime_get(),
						  PRECOPY_UNMAP_MS);
	precopy_dma_drain(pcd);
}

/* --- Open and close --------------------------------------------------- */

static void precopy_dma_find_sim(struct precopy_device *pcd)
{
	typeof(iommu_sim_dma_rw) *rw = symbol_get(iommu_sim_dma_rw);

	if (!rw)
		return;
	if (rw(precopy_dev(pcd), 0, NULL, 0, false))
		symbol_put(iommu_sim_dma_rw);
	else
		pcd->dma.sim = rw;
}

/**
 * precopy_dma_open - find out how the device reaches memory
 * @pcd: the device. May have been called before, for the same user.
 */
void precopy_dma_open(struct precopy_device *pcd)
{
	if (!pcd->dma.sim)
		precopy_dma_find_sim(pcd);
}

/**
 * precopy_dma_close - drop what precopy_dma_open() got
 * @pcd: the device, whose engine is gone
 */
void precopy_dma_close(struct precopy_device *pcd)
{
	if (!pcd->dma.sim)
		return;
	pcd->dma.sim = NULL;
	symbol_put(iommu_sim_dma_rw);
}
