/* SPDX-License-Identifier: GPL-2.0-only */
/* The device: what every part of the driver shares. */
#ifndef PRECOPY_H
#define PRECOPY_H

#include <linux/atomic.h>
#include <linux/errno.h>
#include <linux/kref.h>
#include <linux/ktime.h>
#include <linux/sched/signal.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/vfio_pci_core.h>
#include <linux/wait.h>

#include "mem/memory.h"
#include "mig/cost.h"
#include "mig/stream.h"

struct precopy_loading;
struct precopy_saving;

#define PRECOPY_BAR		VFIO_PCI_BAR2_REGION_INDEX
#define PRECOPY_CONFIG_SIZE	PCI_CFG_SPACE_SIZE
#define PRECOPY_MIN_MEMORY	SZ_1M

/**
 * struct precopy_config - the synthetic config space
 * @bytes: what a read returns, BAR2/3 excepted. Protected by memory.sem,
 *	   because COMMAND's memory bit decides whether the BAR decodes.
 * @bar: last value written to BAR2 and BAR3 as one 64-bit register
 */
struct precopy_config {
	u8	bytes[PRECOPY_CONFIG_SIZE];
	u64	bar;
};

/**
 * struct precopy_stats - counters shown in debugfs, never reset
 * @resets: resets of the virtual device, those at open and close included
 * @saved_bytes: bytes read from saving data fds
 * @loaded_bytes: bytes written to resuming data fds
 * @startups: startups completed on this device as a target
 * @last_startup_ns: how long the last of them took
 * @refused_streams: streams given up because of their contents
 * @arms: times that tracking began
 * @last_arm_ns: how long that held up every access, the last time
 * @last_disarm_ns: the same of the end of tracking
 * @collected_pages: pages that tracking found written, or in use at its start
 * @set_aside_pages: how many of them had to wait for a reference to go
 * @rechecked_units: looks at a unit with pages set aside, whether some were
 *		     released
 * @left_pinned_pages: pages that were in pinned folios when the memory that
 *		       they belonged to was freed
 * @splits: units that became single pages, because they were written while
 *	    tracked
 * @failed_splits: units that should have, and could not
 * @collapses: units that became one folio again
 * @save_protect_ns: time spent on protecting pages before they are copied
 * @save_copy_ns: on copying them, or finding them zero
 * @save_checksum_ns: on making records of them
 * @save_user_ns: on handing them to the user
 * @load_user_ns: on taking the stream from the user
 * @load_checksum_ns: on checking it
 * @load_store_ns: on storing what it holds
 */
struct precopy_stats {
	atomic64_t	resets;
	atomic64_t	saved_bytes;
	atomic64_t	loaded_bytes;
	atomic64_t	startups;
	atomic64_t	last_startup_ns;
	atomic64_t	refused_streams;
	atomic64_t	arms;
	atomic64_t	last_arm_ns;
	atomic64_t	last_disarm_ns;
	atomic64_t	collected_pages;
	atomic64_t	set_aside_pages;
	atomic64_t	rechecked_units;
	atomic64_t	left_pinned_pages;
	atomic64_t	splits;
	atomic64_t	failed_splits;
	atomic64_t	collapses;
	atomic64_t	save_protect_ns;
	atomic64_t	save_copy_ns;
	atomic64_t	save_checksum_ns;
	atomic64_t	save_user_ns;
	atomic64_t	load_user_ns;
	atomic64_t	load_checksum_ns;
	atomic64_t	load_store_ns;
};

/**
 * struct precopy_knobs - test knobs, set through debugfs
 * @startup_delay_ms: added to every startup of this device as a target
 * @startup_fail: errno that every startup of this device fails with, or 0
 * @slow_stop_ms: added to every stop of this device
 * @hold: while it is set, startups and stops of this device do not end
 * @no_precopy: offer STOP_COPY and P2P only, from the next open on
 * @fail_save_at: bytes of the stream after which saving fails, or 0
 * @fail_load_at: the same of loading
 * @data_size: what MIG_DATA_SIZE reports, or 0 for the truth
 */
struct precopy_knobs {
	u32	startup_delay_ms;
	u32	startup_fail;
	u32	slow_stop_ms;
	bool	no_precopy;
	bool	hold;
	u64	fail_save_at;
	u64	fail_load_at;
	u64	data_size;
};

/* A knob as it is now; none is there to turn in an ordinary kernel */
#define precopy_knob(pcd, name)					\
	(IS_ENABLED(CONFIG_PRECOPY_VFIO_PCI_TEST) ?		\
	 READ_ONCE((pcd)->knobs.name) : 0)

/**
 * struct precopy_device - one bound PCI function
 * @kref: held by the VFIO core's side of it, and by each session, whose data
 *	  fd may outlive that. The last put may sleep.
 * @core: the VFIO core's side, valid while the driver is bound. Sessions use it
 *	  only where a lock and the generation, or the tracker, tell them that
 *	  they are not dead: the device is open then.
 * @pdev: the carrier; a reference, since messages and events name it
 * @arc_mutex: serialises SET_STATE; may be held while an arc waits, so
 *	       neither reset nor GET_STATE takes it
 * @state_lock: protects @mig_state, @generation, @saving, @loading,
 *		@logging, @opened, @next_size and the fields of sessions that
 *		say so. Innermost but for wait queue locks and that of struct
 *		precopy_cost; taken inside memory.sem where both are needed.
 * @mig_state: the state that GET_STATE reports
 * @generation: counts resets; whoever waited compares it. Written with
 *		memory.sem (write) and @state_lock held, so either is enough
 *		to read it.
 * @saving: the saving session, NULL outside PRE_COPY* and STOP_COPY
 * @loading: the resuming session, NULL outside RESUMING
 * @logging: DMA logging was started
 * @opened: a user has the device open
 * @no_msi: the carrier's no_msi, to be restored
 * @next_size: size of the memory from the next open on, bytes
 * @wait: what waits for a reset, a startup, or a session to be idle
 * @config: the synthetic config space
 * @memory: the memory behind the BAR
 * @startup_cost: what the startups of the present user's loads took
 * @stats: counters for debugfs
 * @knobs: test knobs
 */
struct precopy_device {
	struct kref			kref;
	struct vfio_pci_core_device	*core;
	struct pci_dev			*pdev;
	struct mutex			arc_mutex;	/* serialises SET_STATE */
	spinlock_t			state_lock;	/* see above */
	enum vfio_device_mig_state	mig_state;
	u64				generation;
	struct precopy_saving		*saving;
	struct precopy_loading		*loading;
	bool				logging;
	bool				opened;
	bool				no_msi;
	u64				next_size;
	wait_queue_head_t		wait;
	struct precopy_config		config;
	struct precopy_memory		memory;
	struct precopy_cost		startup_cost;
	struct precopy_stats		stats;
	struct precopy_knobs		knobs;
};

/* The stream knows pages of 4 KiB, and so does all of this driver */
static_assert(PAGE_SIZE == PRECOPY_STREAM_PAGE_SIZE);

/**
 * struct precopy_function - the VFIO core's side of a bound PCI function
 * @core: the vfio-pci device; must stay first
 * @pcd: our side. It is apart because whoever holds on to @core keeps the
 *	 function in the set of devices that are reset together, even after
 *	 unbind.
 */
struct precopy_function {
	struct vfio_pci_core_device	core;
	struct precopy_device		*pcd;
};

static inline struct precopy_function *
to_precopy_function(struct vfio_device *vdev)
{
	return container_of(vdev, struct precopy_function, core.vdev);
}

static inline struct precopy_device *to_precopy(struct vfio_device *vdev)
{
	return to_precopy_function(vdev)->pcd;
}

/* While the driver is bound to @dev */
static inline struct precopy_device *precopy_from_dev(struct device *dev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(dev);

	return to_precopy(&core->vdev);
}

static inline struct device *precopy_dev(struct precopy_device *pcd)
{
	return &pcd->pdev->dev;
}

/* Add the time since @mark to @sum, and set the mark anew */
static inline void precopy_stat_lap(atomic64_t *sum, ktime_t *mark)
{
	ktime_t now = ktime_get();

	atomic64_add(ktime_to_ns(ktime_sub(now, *mark)), sum);
	*mark = now;
}

/*
 * A signal has ended a wait before the system call did anything. Unless it is
 * fatal, the call begins anew once the signal is handled, and the user does not
 * notice; so handlers run and freezers need not wait.
 */
static inline int precopy_interrupted(void)
{
	return fatal_signal_pending(current) ? -EINTR : -ERESTARTNOINTR;
}

/* main.c; frees memory and runs startups */
extern struct workqueue_struct *precopy_wq;

/* device.c */
extern const struct vfio_device_ops precopy_device_ops;
struct precopy_device *precopy_device_get(struct precopy_device *pcd);
void precopy_device_put(struct precopy_device *pcd);
void precopy_device_reset(struct precopy_device *pcd);

void precopy_device_params(struct precopy_device *pcd,
			   struct precopy_stream_params *params);

/* func/config.c */
void precopy_config_init(struct precopy_device *pcd);
ssize_t precopy_config_read(struct precopy_device *pcd, char __user *buf,
			    size_t count, u64 offset);
ssize_t precopy_config_write(struct precopy_device *pcd,
			     const char __user *buf, size_t count, u64 offset);

/* func/dma_log.c */
extern const struct vfio_log_ops precopy_log_ops;

/* debugfs.c */
void precopy_debugfs_init(struct precopy_device *pcd);

/* sysfs.c */
extern const struct attribute_group *precopy_sysfs_groups[];
bool precopy_memory_size_valid(u64 size);
int precopy_memory_size_parse(const char *text, u64 *size);

#endif /* PRECOPY_H */
