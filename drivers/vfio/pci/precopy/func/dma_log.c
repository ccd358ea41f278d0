// SPDX-License-Identifier: GPL-2.0-only
/*
 * VFIO DMA logging. The carrier is never bus master, so the device writes no
 * memory of the guest. Every valid request succeeds, and the report is empty.
 */

#include <linux/interval_tree.h>
#include <linux/log2.h>
#include <linux/sizes.h>

#include "precopy.h"

/*
 * The core accepts a range of length 0. It computes the last byte as one before
 * the first, or as ULONG_MAX if the range begins at 0.
 */
static bool precopy_log_ranges_valid(struct rb_root_cached *ranges)
{
	struct interval_tree_node *node;
	struct rb_node *rb;

	for (rb = rb_first_cached(ranges); rb; rb = rb_next(rb)) {
		node = rb_entry(rb, struct interval_tree_node, rb);
		if (node->last < node->start ||
		    (!node->start && node->last == ULONG_MAX))
			return false;
	}
	return true;
}

static int precopy_log_start(struct vfio_device *vdev,
			     struct rb_root_cached *ranges, u32 nnodes,
			     u64 *page_size)
{
	struct precopy_device *pcd = to_precopy(vdev);

	if (!is_power_of_2(*page_size) || !precopy_log_ranges_valid(ranges))
		return -EINVAL;
	guard(spinlock)(&pcd->state_lock);
	if (pcd->logging)
		return -EINVAL;
	pcd->logging = true;
	/* The granularity of reports is 4 KiB or more */
	*page_size = max_t(u64, *page_size, SZ_4K);
	return 0;
}

/* A stop without a start is not an error (rule R60) */
static int precopy_log_stop(struct vfio_device *vdev)
{
	struct precopy_device *pcd = to_precopy(vdev);

	guard(spinlock)(&pcd->state_lock);
	pcd->logging = false;
	return 0;
}

static int precopy_log_read_and_clear(struct vfio_device *vdev,
				      unsigned long iova, unsigned long length,
				      struct iova_bitmap *dirty)
{
	struct precopy_device *pcd = to_precopy(vdev);

	guard(spinlock)(&pcd->state_lock);
	return pcd->logging && length ? 0 : -EINVAL;
}

const struct vfio_log_ops precopy_log_ops = {
	.log_start		= precopy_log_start,
	.log_stop		= precopy_log_stop,
	.log_read_and_clear	= precopy_log_read_and_clear,
};
