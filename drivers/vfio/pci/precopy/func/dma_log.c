// SPDX-License-Identifier: GPL-2.0-only
/*
 * VFIO DMA logging: which pages of the user's memory the engine has written. Nobody
 * else can know. The stores do not go through an IOMMU that sets dirty bits, nor
 * through page tables of the VMM, so neither KVM nor soft-dirty sees them.
 */

#include <linux/interval_tree.h>
#include <linux/iova_bitmap.h>
#include <linux/kref.h>
#include <linux/log2.h>
#include <linux/memcontrol.h>
#include <linux/sched.h>
#include <linux/sched/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/vfio.h>
#include <linux/xarray.h>

#include "dma.h"
#include "precopy.h"
#include "trace.h"

/* One map is a page of bits: 128 MiB of addresses */
#define PRECOPY_LOG_BITS	(PAGE_SIZE * BITS_PER_BYTE)
#define PRECOPY_LOG_SHIFT	(PAGE_SHIFT + ilog2(PRECOPY_LOG_BITS))
/* Maps of one log, 64 MiB in all. A guest may write a page in each of them. */
#define PRECOPY_LOG_MAX_MAPS	SZ_16K

/**
 * struct precopy_log_range - range of addresses that is logged
 * @first: first address
 * @last: last address
 */
struct precopy_log_range {
	u64	first;
	u64	last;
};

/**
 * struct precopy_dma_log - a log, from its start to its stop or a reset
 * @kref: references of the device, of a report, and of a step that makes room.
 * @memcg: memory cgroup of the user, charged for the log
 * @maps: bitmaps of the pages written since they were reported, by address. Bits
 *	  are set and cleared atomically; a map that is there stays.
 * @nr_maps: number of entries in @maps; written by the one step that is executed
 * @nr_ranges: number of entries in @ranges; constant
 * @ranges: what is logged; constant
 */
struct precopy_dma_log {
	struct kref			kref;
	struct mem_cgroup		*memcg;
	struct xarray			maps;
	unsigned int			nr_maps;
	unsigned int			nr_ranges;
	struct precopy_log_range	ranges[] __counted_by(nr_ranges);
};

/* --- Lifetime --------------------------------------------------------- */

static void precopy_dma_log_release(struct kref *kref)
{
	struct precopy_dma_log *log =
		container_of(kref, struct precopy_dma_log, kref);
	unsigned long index;
	void *map;

	xa_for_each(&log->maps, index, map)
		free_page((unsigned long)map);
	xa_destroy(&log->maps);
	mem_cgroup_put(log->memcg);
	kfree(log);
}

static void precopy_dma_log_put(struct precopy_dma_log *log)
{
	if (log)
		kref_put(&log->kref, precopy_dma_log_release);
}

DEFINE_FREE(precopy_dma_log, struct precopy_dma_log *, precopy_dma_log_put(_T))

/* The device's log with a reference, or NULL */
static struct precopy_dma_log *precopy_dma_log_get(struct precopy_device *pcd)
{
	guard(spinlock)(&pcd->state_lock);
	if (pcd->dma.log)
		kref_get(&pcd->dma.log->kref);
	return pcd->dma.log;
}

/**
 * precopy_dma_log_detach - end the device's log
 * @pcd: the device
 *
 * Context: state_lock held.
 * Return: the log, for precopy_dma_log_end() without the lock, or NULL.
 */
struct precopy_dma_log *precopy_dma_log_detach(struct precopy_device *pcd)
{
	struct precopy_dma_log *log = pcd->dma.log;

	lockdep_assert_held(&pcd->state_lock);
	pcd->dma.log = NULL;
	return log;
}

/* The pages that nobody has read, and the first address of them */
static u64 precopy_dma_log_unread(struct precopy_dma_log *log, u64 *first)
{
	unsigned long index, bit;
	u64 nr = 0;
	void *map;

	*first = 0;
	xa_for_each(&log->maps, index, map) {
		bit = find_first_bit(map, PRECOPY_LOG_BITS);
		if (bit < PRECOPY_LOG_BITS && !nr)
			*first = ((u64)index * PRECOPY_LOG_BITS + bit) << PAGE_SHIFT;
		nr += bitmap_weight(map, PRECOPY_LOG_BITS);
		cond_resched();
	}
	return nr;
}

/**
 * precopy_dma_log_end - take note of what was never read, and drop a log
 * @pcd: the device
 * @log: the log, detached, or NULL
 *
 * Context: may sleep, no lock held that a report or a step needs.
 */
void precopy_dma_log_end(struct precopy_device *pcd, struct precopy_dma_log *log)
{
	u64 unread, first;

	if (!log)
		return;
	unread = precopy_dma_log_unread(log, &first);
	atomic64_add(unread, &pcd->stats.dma_unread_pages);
	trace_precopy_dma_log_end(precopy_dev(pcd), unread, first);
	precopy_dma_log_put(log);
}

/* --- Marking ---------------------------------------------------------- */

static bool precopy_dma_log_covers(const struct precopy_dma_log *log, u64 iova)
{
	unsigned int i;

	for (i = 0; i < log->nr_ranges; i++)
		if (iova >= log->ranges[i].first && iova <= log->ranges[i].last)
			return true;
	return false;
}

static int precopy_dma_log_add_map(struct precopy_dma_log *log,
				   unsigned long index)
{
	struct mem_cgroup *old = set_active_memcg(log->memcg);
	void *map = (void *)get_zeroed_page(GFP_KERNEL_ACCOUNT);
	int ret = -ENOMEM;

	if (map)
		ret = xa_insert(&log->maps, index, map, GFP_KERNEL_ACCOUNT);
	set_active_memcg(old);
	if (ret)
		free_page((unsigned long)map);
	else
		log->nr_maps++;
	return ret;
}

/**
 * precopy_dma_log_reserve - have room for the mark of a page
 * @pcd: the device, in a step
 * @iova: an address in the page
 *
 * Context: may sleep, no lock held.
 * Return: 0, or -ENOMEM.
 */
int precopy_dma_log_reserve(struct precopy_device *pcd, u64 iova)
{
	struct precopy_dma_log *log __free(precopy_dma_log) =
		precopy_dma_log_get(pcd);
	unsigned long index = iova >> PRECOPY_LOG_SHIFT;

	if (!log || !precopy_dma_log_covers(log, iova) ||
	    xa_load(&log->maps, index))
		return 0;
	if (log->nr_maps >= PRECOPY_LOG_MAX_MAPS)
		return -ENOMEM;
	return precopy_dma_log_add_map(log, index);
}

static bool precopy_dma_log_wanted(const struct precopy_device *pcd)
{
	return pcd->mig_state == VFIO_DEVICE_STATE_PRE_COPY ||
	       pcd->mig_state == VFIO_DEVICE_STATE_PRE_COPY_P2P;
}

/**
 * precopy_dma_log_mark - log that a page was written
 * @pcd: the device, in the step that has made room for the mark
 * @iova: an address in the page
 * @recorded: true if the IOMMU has a dirty bit for the store
 *
 * A log that was started since the room was made needs no mark: its start waits for
 * the present step, and all of memory is sent after a start.
 *
 * Context: no lock held.
 */
void precopy_dma_log_mark(struct precopy_device *pcd, u64 iova, bool recorded)
{
	unsigned long bit = (iova >> PAGE_SHIFT) % PRECOPY_LOG_BITS;
	struct precopy_dma_log *log;
	unsigned long *map;

	guard(spinlock)(&pcd->state_lock);
	log = pcd->dma.log;
	if (log && precopy_dma_log_covers(log, iova)) {
		map = xa_load(&log->maps, iova >> PRECOPY_LOG_SHIFT);
		/* The store comes before the mark, for whoever finds it */
		smp_mb__before_atomic();
		if (map)
			set_bit(bit, map);
	} else if (!recorded && precopy_dma_log_wanted(pcd)) {
		atomic64_inc(&pcd->stats.dma_unlogged_pages);
	}
}

/* --- The core's operations -------------------------------------------- */

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

static struct precopy_dma_log *precopy_log_create(struct rb_root_cached *ranges,
						  u32 nnodes)
{
	struct precopy_dma_log *log = kzalloc_flex(*log, ranges, nnodes,
						   GFP_KERNEL_ACCOUNT);
	struct interval_tree_node *node;
	struct rb_node *rb;
	unsigned int i = 0;

	if (!log)
		return NULL;
	kref_init(&log->kref);
	xa_init_flags(&log->maps, XA_FLAGS_ACCOUNT);
	log->memcg = get_mem_cgroup_from_mm(current->mm);
	log->nr_ranges = nnodes;
	for (rb = rb_first_cached(ranges); rb && i < nnodes; rb = rb_next(rb)) {
		node = rb_entry(rb, struct interval_tree_node, rb);
		log->ranges[i].first = node->start;
		log->ranges[i++].last = node->last;
	}
	return log;
}

static int precopy_log_publish(struct precopy_device *pcd,
			       struct precopy_dma_log *log)
{
	guard(spinlock)(&pcd->state_lock);
	if (pcd->dma.log)
		return -EINVAL;
	kref_get(&log->kref);
	pcd->dma.log = log;
	return 0;
}

static int precopy_log_stop(struct vfio_device *vdev)
{
	struct precopy_device *pcd = to_precopy(vdev);
	struct precopy_dma_log *log;

	scoped_guard(spinlock, &pcd->state_lock)
		log = precopy_dma_log_detach(pcd);
	/* A stop without a start is not an error (rule R60) */
	precopy_dma_log_end(pcd, log);
	return 0;
}

/* As precopy_dma_idle(), which is above this file: dma.c marks pages here */
static bool precopy_log_settled(struct precopy_device *pcd)
{
	guard(spinlock)(&pcd->state_lock);
	return !pcd->dma.busy;
}

static int precopy_log_start(struct vfio_device *vdev,
			     struct rb_root_cached *ranges, u32 nnodes,
			     u64 *page_size)
{
	struct precopy_dma_log *log __free(precopy_dma_log) = NULL;
	struct precopy_device *pcd = to_precopy(vdev);
	int ret;

	if (!is_power_of_2(*page_size) || !precopy_log_ranges_valid(ranges))
		return -EINVAL;
	log = precopy_log_create(ranges, nnodes);
	if (!log)
		return -ENOMEM;
	ret = precopy_log_publish(pcd, log);
	if (ret)
		return ret;
	trace_precopy_dma_log_start(precopy_dev(pcd), nnodes);
	/* See precopy_dma_log_mark() */
	if (wait_event_state(pcd->wait, precopy_log_settled(pcd),
			     (TASK_KILLABLE | TASK_FREEZABLE))) {
		precopy_log_stop(vdev);
		return -EINTR;
	}
	/* The granularity of reports is 4 KiB or more */
	*page_size = max_t(u64, *page_size, SZ_4K);
	return 0;
}

/*
 * Report the pages of one map from @first to @last, and forget them.
 *
 * Return: number of pages.
 */
static u64 precopy_log_report_map(unsigned long *map, u64 base,
				  unsigned long first, unsigned long last,
				  struct iova_bitmap *dirty)
{
	unsigned long bit = first;
	u64 nr = 0;

	for_each_set_bit_from(bit, map, last + 1) {
		if (!test_and_clear_bit(bit, map))
			continue;
		iova_bitmap_set(dirty, (base + bit) << PAGE_SHIFT, PAGE_SIZE);
		nr++;
	}
	return nr;
}

static int precopy_log_read_and_clear(struct vfio_device *vdev,
				      unsigned long iova, unsigned long length,
				      struct iova_bitmap *dirty)
{
	struct precopy_device *pcd = to_precopy(vdev);
	struct precopy_dma_log *log __free(precopy_dma_log) =
		precopy_dma_log_get(pcd);
	u64 first = iova >> PAGE_SHIFT, last, base, nr = 0;
	unsigned long index;
	void *map;

	if (!log || !length)
		return -EINVAL;
	last = (iova + length - 1) >> PAGE_SHIFT;
	xa_for_each_range(&log->maps, index, map, first / PRECOPY_LOG_BITS,
			  last / PRECOPY_LOG_BITS) {
		base = (u64)index * PRECOPY_LOG_BITS;
		nr += precopy_log_report_map(map, base, max(first, base) - base,
					     min_t(u64, last - base,
						   PRECOPY_LOG_BITS - 1), dirty);
		cond_resched();
	}
	trace_precopy_dma_log_report(precopy_dev(pcd), iova, length, nr);
	return 0;
}

const struct vfio_log_ops precopy_log_ops = {
	.log_start		= precopy_log_start,
	.log_stop		= precopy_log_stop,
	.log_read_and_clear	= precopy_log_read_and_clear,
};
