// SPDX-License-Identifier: GPL-2.0-only
/* Statistics and test knobs in debugfs, in a directory of the VFIO core. */

#include <linux/debugfs.h>
#include <linux/seq_file.h>

#include "mem/memory.h"
#include "mig/save.h"
#include "precopy.h"

static void precopy_stat(struct seq_file *seq, const char *name, u64 value)
{
	seq_printf(seq, "%-24s %llu\n", name, value);
}

static void precopy_stat64(struct seq_file *seq, const char *name,
			   const atomic64_t *value)
{
	precopy_stat(seq, name, atomic64_read(value));
}

static void precopy_stats_faults(struct seq_file *seq,
				 const struct precopy_memory_stats *stats)
{
	precopy_stat64(seq, "read_faults", &stats->read_faults);
	precopy_stat64(seq, "write_faults", &stats->write_faults);
	precopy_stat64(seq, "mkwrite_faults", &stats->mkwrite_faults);
	precopy_stat64(seq, "huge_faults", &stats->huge_faults);
	precopy_stat64(seq, "around_pages", &stats->around_pages);
	precopy_stat64(seq, "waited_faults", &stats->waited_faults);
}

static void precopy_stats_tracking(struct seq_file *seq,
				   const struct precopy_stats *stats,
				   const struct precopy_memory_stats *memory)
{
	precopy_stat64(seq, "arms", &stats->arms);
	precopy_stat64(seq, "last_arm_ns", &stats->last_arm_ns);
	precopy_stat64(seq, "last_disarm_ns", &memory->last_disarm_ns);
	precopy_stat64(seq, "collected_pages", &stats->collected_pages);
	precopy_stat64(seq, "set_aside_pages", &memory->set_aside_pages);
	precopy_stat64(seq, "rechecked_units", &memory->rechecked_units);
	precopy_stat64(seq, "left_pinned_pages", &memory->left_pinned_pages);
	precopy_stat64(seq, "splits", &memory->splits);
	precopy_stat64(seq, "failed_splits", &memory->failed_splits);
	precopy_stat64(seq, "collapses", &memory->collapses);
	precopy_stat64(seq, "save_protect_ns", &stats->save_protect_ns);
}

static void precopy_stats_streams(struct seq_file *seq,
				  const struct precopy_stats *stats)
{
	precopy_stat64(seq, "resets", &stats->resets);
	precopy_stat64(seq, "saved_bytes", &stats->saved_bytes);
	precopy_stat64(seq, "save_copy_ns", &stats->save_copy_ns);
	precopy_stat64(seq, "save_checksum_ns", &stats->save_checksum_ns);
	precopy_stat64(seq, "save_user_ns", &stats->save_user_ns);
	precopy_stat64(seq, "loaded_bytes", &stats->loaded_bytes);
	precopy_stat64(seq, "load_user_ns", &stats->load_user_ns);
	precopy_stat64(seq, "load_checksum_ns", &stats->load_checksum_ns);
	precopy_stat64(seq, "load_store_ns", &stats->load_store_ns);
	precopy_stat64(seq, "refused_streams", &stats->refused_streams);
	precopy_stat64(seq, "startups", &stats->startups);
	precopy_stat64(seq, "last_startup_ns", &stats->last_startup_ns);
}

static void precopy_stats_engine(struct seq_file *seq,
				 const struct precopy_stats *stats)
{
	precopy_stat64(seq, "dma_steps", &stats->dma_steps);
	precopy_stat64(seq, "dma_bytes", &stats->dma_bytes);
	precopy_stat64(seq, "dma_errors", &stats->dma_errors);
	precopy_stat64(seq, "dma_unlogged_pages", &stats->dma_unlogged_pages);
	precopy_stat64(seq, "dma_unread_pages", &stats->dma_unread_pages);
	precopy_stat64(seq, "late_steps", &stats->late_steps);
	precopy_stat64(seq, "p2p_refused", &stats->p2p_refused);
	precopy_stat64(seq, "p2p_order", &stats->p2p_order);
	precopy_stat64(seq, "irqs_raised", &stats->irqs_raised);
	precopy_stat64(seq, "irqs_kept", &stats->irqs_kept);
	precopy_stat64(seq, "irqs_dropped", &stats->irqs_dropped);
}

static int precopy_stats_show(struct seq_file *seq, void *unused)
{
	struct precopy_device *pcd = seq->private;
	struct precopy_memory *mem = &pcd->memory;
	u64 initial, dirty, in_use;

	scoped_guard(rwsem_read, &mem->sem)
		in_use = precopy_memory_used(mem);
	precopy_save_counters(pcd, &initial, &dirty);
	precopy_stat(seq, "bytes_in_use", in_use);
	precopy_stat(seq, "initial_bytes", initial);
	precopy_stat(seq, "dirty_bytes", dirty);
	precopy_stat(seq, "stop_copy_bytes", precopy_save_estimate(pcd));
	precopy_stats_faults(seq, mem->stats);
	precopy_stats_tracking(seq, &pcd->stats, mem->stats);
	precopy_stats_streams(seq, &pcd->stats);
	precopy_stats_engine(seq, &pcd->stats);
	return 0;
}
DEFINE_SHOW_ATTRIBUTE(precopy_stats);

static int precopy_reinit_set(void *data, u64 value)
{
	return precopy_save_reinit(data);
}
DEFINE_DEBUGFS_ATTRIBUTE(precopy_reinit_fops, NULL, precopy_reinit_set,
			 "%llu\n");

static int precopy_hold_get(void *data, u64 *value)
{
	struct precopy_device *pcd = data;

	*value = precopy_knob(pcd, hold);
	return 0;
}

static int precopy_hold_set(void *data, u64 value)
{
	struct precopy_device *pcd = data;

	WRITE_ONCE(pcd->knobs.hold, value);
	wake_up_all(&pcd->wait);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(precopy_hold_fops, precopy_hold_get, precopy_hold_set,
			 "%llu\n");

static int precopy_hold_split_get(void *data, u64 *value)
{
	struct precopy_device *pcd = data;

	*value = READ_ONCE(pcd->memory.hold_split);
	return 0;
}

static int precopy_hold_split_set(void *data, u64 value)
{
	struct precopy_device *pcd = data;

	WRITE_ONCE(pcd->memory.hold_split,
		   value ? PRECOPY_SPLIT_HOLD : PRECOPY_SPLIT_GO);
	wake_up_all(&pcd->memory.wait);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(precopy_hold_split_fops, precopy_hold_split_get,
			 precopy_hold_split_set, "%llu\n");

static int precopy_hold_step_get(void *data, u64 *value)
{
	struct precopy_device *pcd = data;

	*value = precopy_knob(pcd, hold_step);
	return 0;
}

static int precopy_hold_step_set(void *data, u64 value)
{
	struct precopy_device *pcd = data;

	WRITE_ONCE(pcd->knobs.hold_step, value);
	wake_up_all(&pcd->wait);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(precopy_hold_step_fops, precopy_hold_step_get,
			 precopy_hold_step_set, "%llu\n");

static int precopy_hold_startup_at_get(void *data, u64 *value)
{
	struct precopy_device *pcd = data;

	*value = precopy_knob(pcd, hold_startup_at);
	return 0;
}

static int precopy_hold_startup_at_set(void *data, u64 value)
{
	struct precopy_device *pcd = data;

	WRITE_ONCE(pcd->knobs.hold_startup_at, value);
	wake_up_all(&pcd->wait);
	return 0;
}
DEFINE_DEBUGFS_ATTRIBUTE(precopy_hold_startup_at_fops,
			 precopy_hold_startup_at_get,
			 precopy_hold_startup_at_set, "%llu\n");

static void precopy_debugfs_engine_knobs(struct precopy_device *pcd,
					 struct dentry *dir)
{
	debugfs_create_u32("hot_pages", 0600, dir, &pcd->knobs.hot_pages);
	debugfs_create_u32("step_delay_ms", 0600, dir,
			   &pcd->knobs.step_delay_ms);
	debugfs_create_file("hold_step", 0600, dir, pcd,
			    &precopy_hold_step_fops);
	debugfs_create_u64("fail_job_at", 0600, dir, &pcd->knobs.fail_job_at);
	debugfs_create_u32("fail_job_errno", 0600, dir,
			   &pcd->knobs.fail_job_errno);
}

static void precopy_debugfs_knobs(struct precopy_device *pcd,
				  struct dentry *dir)
{
	if (!IS_ENABLED(CONFIG_PRECOPY_VFIO_PCI_TEST))
		return;
	debugfs_create_u32("startup_delay_ms", 0600, dir,
			   &pcd->knobs.startup_delay_ms);
	debugfs_create_u32("startup_fail", 0600, dir, &pcd->knobs.startup_fail);
	debugfs_create_u32("slow_stop_ms", 0600, dir, &pcd->knobs.slow_stop_ms);
	debugfs_create_u64("fail_save_at", 0600, dir, &pcd->knobs.fail_save_at);
	debugfs_create_u64("fail_load_at", 0600, dir, &pcd->knobs.fail_load_at);
	debugfs_create_u64("load_rate", 0600, dir, &pcd->knobs.load_rate);
	debugfs_create_u64("data_size", 0600, dir, &pcd->knobs.data_size);
	debugfs_create_bool("no_precopy", 0600, dir, &pcd->knobs.no_precopy);
	debugfs_create_file("hold", 0600, dir, pcd, &precopy_hold_fops);
	debugfs_create_file("hold_startup_at", 0600, dir, pcd,
			    &precopy_hold_startup_at_fops);
	debugfs_create_file("hold_split", 0600, dir, pcd,
			    &precopy_hold_split_fops);
	debugfs_create_file("reinit", 0200, dir, pcd, &precopy_reinit_fops);
	precopy_debugfs_engine_knobs(pcd, dir);
}

/**
 * precopy_debugfs_init - create the driver's files in debugfs
 * @pcd: the device, registered with the VFIO core. The core removes its directory
 *	 and the files in it when the device is unregistered.
 */
void precopy_debugfs_init(struct precopy_device *pcd)
{
	struct dentry *dir;

	/* The core has no directory without CONFIG_VFIO_DEBUGFS */
	if (!pcd->core->vdev.debug_root)
		return;
	dir = debugfs_create_dir("precopy", pcd->core->vdev.debug_root);
	debugfs_create_file("stats", 0400, dir, pcd, &precopy_stats_fops);
	precopy_debugfs_knobs(pcd, dir);
}
