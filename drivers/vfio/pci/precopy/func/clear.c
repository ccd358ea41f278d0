// SPDX-License-Identifier: GPL-2.0-only
/*
 * Clearing the device's memory. All data that a saving session has sent is stale
 * then, so the session restarts, and its user is told by VFIO_PRECOPY_INFO_REINIT.
 */

#include <linux/errno.h>
#include <linux/spinlock.h>

#include "clear.h"
#include "mem/memory.h"
#include "mig/save.h"
#include "precopy.h"

static u64 precopy_clear_generation(struct precopy_device *pcd)
{
	guard(spinlock)(&pcd->state_lock);
	return pcd->generation;
}

/**
 * precopy_clear - set all memory of the device to zero
 * @pcd: the device
 *
 * Each page that is in use becomes dirty, so a target gets the zeroes in any case. The
 * initial data restarts if it can: in a pre-copy state, when the previous initial data is
 * complete, and for a user who has opted in.
 *
 * Context: may sleep, for a time in proportion to the memory in use, and for a read() of
 * the stream that is in progress; no lock held.
 * Return: 0, also after a reset, which clears the memory itself; -EIO at a page with a
 * memory error; -EINTR after a fatal signal; -ERESTARTNOINTR if a signal ended the wait,
 * to clear once more.
 */
int precopy_clear(struct precopy_device *pcd)
{
	int ret = precopy_memory_zero_in(&pcd->memory,
					 precopy_clear_generation(pcd), 0,
					 pcd->memory.size);

	if (ret)
		return ret == -ECANCELED ? 0 : ret;
	ret = precopy_save_reinit(pcd);
	return ret == -EINTR || ret == -ERESTARTNOINTR ? ret : 0;
}
