/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Device structures and declarations that all parts of the driver share.
 *
 * The terms of this driver:
 *
 * page, unit: 4096 bytes and 2 MiB (512 pages) of the BAR. A BAR smaller than that
 *	is one partial unit.
 * carrier: the PCI function that the driver is bound to. The virtual device takes
 *	its ids from the carrier, and nothing else.
 * model: the kind of device that it is (struct precopy_model).
 * section: one kind of contents that migrates (struct precopy_section). The memory
 *	is a section.
 * source, target: the device that is saved, and the device that is loaded.
 * life: the contents of the memory from one reset to the next (struct
 *	precopy_ram). A reset drops a life as a whole; a new life has no page.
 * generation: the number of resets. Work that began without a lock compares it
 *	afterwards, and has no effect if there was a reset.
 * gate: whether accesses to the BAR pass, wait, or fail (enum precopy_gate). It is
 *	closed while a target starts, and after a load has failed.
 * session: the time from the state change that returns a data fd to the state
 *	change or the reset that ends it. The fd may outlive the session.
 * initial set: the pages in use when a saving session began.
 * dirty: written, or possibly written, since the page was sent.
 * set aside, pinned: kept back by a saving session, because somebody has a
 *	reference through which the page can be written without a page fault.
 * loose: a unit that may be written unnoticed while it is tracked, and is still one
 *	folio: because none of it was sent yet, or because it could not be split.
 *	All of its pages are still to be sent, and its entries are removed before.
 * startup: the work that a target has to do before it can run, such as allocating
 *	memory. It does not depend on the bandwidth of the migration.
 * barrier: the last byte of the initial data in the stream. A target accepts it
 *	only when its startup is complete.
 */
#ifndef PRECOPY_H
#define PRECOPY_H

#include <linux/atomic.h>
#include <linux/kref.h>
#include <linux/ktime.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/vfio_pci_core.h>
#include <linux/wait.h>

#include "func/dma.h"
#include "func/peers.h"
#include "mem/memory.h"
#include "mig/cost.h"
#include "mig/stream.h"

struct precopy_engine;
struct precopy_loading;
struct precopy_model;
struct precopy_saving;
struct precopy_session;

#define PRECOPY_BAR		VFIO_PCI_BAR2_REGION_INDEX
/* First page of the BAR in the address space of the vfio device's inode */
#define PRECOPY_BAR_PGOFF \
	(VFIO_PCI_INDEX_TO_OFFSET(PRECOPY_BAR) >> PAGE_SHIFT)
/* Bytes of config space that may be other than zero */
#define PRECOPY_CONFIG_SIZE	PCI_CFG_SPACE_SIZE
#define PRECOPY_MIN_MEMORY	SZ_1M

/**
 * struct precopy_config - the synthetic config space; protected by memory.sem,
 *			   because COMMAND's memory bit decides whether the BAR
 *			   decodes
 * @bytes: contents of all registers except the BARs
 * @bar0: last value written to BAR0
 * @bar: last value written to BAR2 and BAR3, as one 64-bit register
 * @loaded_bar: address of BAR2 in the stream that is loaded, or 0
 */
struct precopy_config {
	u8	bytes[PRECOPY_CONFIG_SIZE];
	u64	bar0;
	u64	bar;
	u64	loaded_bar;
};

/**
 * struct precopy_stats - counters shown in debugfs, never reset; times in ns
 * @resets: number of resets of the virtual device, including open and close
 * @saved_bytes: number of bytes read from saving data fds
 * @loaded_bytes: number of bytes written to resuming data fds
 * @startups: number of startups completed on this device as a target
 * @last_startup_ns: duration of the last completed startup
 * @refused_streams: number of loads that failed because of the stream's contents
 * @arms: number of times that tracking began
 * @last_arm_ns: time for which the last arm delayed page faults and accesses by
 *		 read() and write(), ns
 * @collected_pages: number of pages taken from the initial or the dirty set
 * @save_protect_ns: time spent on write-protecting pages before they are copied
 * @save_copy_ns: time spent on copying pages, and on finding pages that are zero
 * @save_checksum_ns: time spent on creating records, including their checksums
 * @save_user_ns: time spent on copying the stream to user space
 * @load_user_ns: time spent on copying the stream from user space
 * @load_checksum_ns: time spent on verifying records, including their checksums
 * @load_store_ns: time spent on storing received data to the memory
 * @dma_steps: number of steps of the engine
 * @dma_bytes: number of bytes that the engine has stored
 * @dma_errors: number of commands, descriptors and rings that ended with an error
 * @dma_unlogged_pages: number of stores of the engine to a page, in PRE_COPY and
 *			PRE_COPY_P2P, that no DMA log could tell of
 * @dma_unread_pages: number of pages that were in a DMA log at its end, so that
 *		      nobody has read of them
 * @late_steps: number of resets during a step that outlasted them
 * @p2p_refused: number of accesses of a peer to this device, and of this device to a
 *		 peer, that failed because the accessed device had stopped
 * @p2p_order: number of stops of this device while a peer could still begin accesses
 * @irqs_raised: number of interrupts delivered to an eventfd
 * @irqs_kept: number of interrupts raised while the device was quiesced
 * @irqs_dropped: number of interrupts lost, because their vector had no eventfd or
 *		  the device was not bus master
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
	atomic64_t	collected_pages;
	atomic64_t	save_protect_ns;
	atomic64_t	save_copy_ns;
	atomic64_t	save_checksum_ns;
	atomic64_t	save_user_ns;
	atomic64_t	load_user_ns;
	atomic64_t	load_checksum_ns;
	atomic64_t	load_store_ns;
	atomic64_t	dma_steps;
	atomic64_t	dma_bytes;
	atomic64_t	dma_errors;
	atomic64_t	dma_unlogged_pages;
	atomic64_t	dma_unread_pages;
	atomic64_t	late_steps;
	atomic64_t	p2p_refused;
	atomic64_t	p2p_order;
	atomic64_t	irqs_raised;
	atomic64_t	irqs_kept;
	atomic64_t	irqs_dropped;
};

/**
 * struct precopy_knobs - test knobs; set through debugfs, read by precopy_knob()
 * @startup_delay_ms: delay added to every startup of this device as a target, ms
 * @startup_fail: errno with which every startup of this device fails, or 0
 * @slow_stop_ms: delay added to every stop of this device, ms
 * @no_precopy: true if the device offers only STOP_COPY and P2P, from the next
 *		open on
 * @hold: true if startups and stops of this device do not complete
 * @hold_startup_at: offset in the BAR from which on startups of this device
 *		     prepare no memory, bytes, or 0
 * @fail_save_at: number of bytes of a stream after which saving fails, or 0
 * @fail_load_at: number of bytes of a stream after which loading fails, or 0
 * @load_rate: number of bytes of a stream that are accepted in a second, or 0
 * @hot_pages: number of pages at the beginning of the range of a command without end
 *	       that seven of eight rounds are restricted to, or 0
 * @step_delay_ms: delay added to every step of the engine, ms
 * @hold_step: true if steps of the engine do not end
 * @fail_job_at: number of the job of the engine, since its reset, that fails, or 0
 * @fail_job_errno: errno that this job fails with; 0 means EIO
 * @data_size: value that MIG_DATA_SIZE reports instead of the true one, or 0
 */
struct precopy_knobs {
	u32	startup_delay_ms;
	u32	startup_fail;
	u32	slow_stop_ms;
	bool	no_precopy;
	bool	hold;
	u64	hold_startup_at;
	u64	fail_save_at;
	u64	fail_load_at;
	u64	load_rate;
	u32	hot_pages;
	u32	step_delay_ms;
	bool	hold_step;
	u64	fail_job_at;
	u32	fail_job_errno;
	u64	data_size;
};

/* Current value of a test knob; 0 without CONFIG_PRECOPY_VFIO_PCI_TEST */
#define precopy_knob(pcd, name)					\
	(IS_ENABLED(CONFIG_PRECOPY_VFIO_PCI_TEST) ?		\
	 READ_ONCE((pcd)->knobs.name) : 0)

/**
 * struct precopy_device - one bound PCI function
 * @kref: references, held by struct precopy_function and by each session, whose
 *	  data fd may outlive the binding. The last put may sleep.
 * @release: callback that frees the device after the last put; constant
 * @model: kind of device; constant while the device is open
 * @core: the VFIO core's object, valid while the driver is bound. A session may
 *	  use it only after it has checked, under a lock that excludes a reset, that
 *	  the session is not dead: the device is open then.
 * @pdev: the carrier, with a reference, because messages and events print its
 *	  name
 * @arc_mutex: serialises SET_STATE. It may be held while an arc waits, so neither
 *	       reset nor GET_STATE takes it.
 * @state_lock: protects @mig_state, @generation, @session, @saving, @loading,
 *		@engine, @opened, @next_size, @next_model, and the fields of
 *		sessions, of the engine and of @dma whose description says so.
 *		Innermost, except for wait queue locks and the lock of struct
 *		precopy_cost; taken inside memory.sem, and inside the lock of the
 *		list of peers, where both are needed.
 * @mig_state: migration state that GET_STATE reports
 * @generation: number of resets; compared after a wait to detect a reset. Written
 *		with memory.sem (write) and @state_lock held, so either of them is
 *		enough to read it.
 * @session: the current session, which a reset ends, or NULL
 * @saving: the saving session, NULL outside PRE_COPY* and STOP_COPY
 * @loading: the resuming session, NULL outside RESUMING
 * @engine: the engine of an open device of that model, or NULL
 * @opened: true while a user has the device open
 * @no_msi: original value of the carrier's no_msi, restored at unbind
 * @next_size: size of the memory from the next open on, in bytes
 * @next_model: kind of device from the next open on
 * @wait: wait queue for resets, startups, steps of the engine, accesses of peers,
 *	  and sessions that become idle
 * @config: the synthetic config space
 * @memory: the memory behind the BAR
 * @dma: how the engine reaches the memory of the user
 * @peer: how other devices of the same user reach this one
 * @startup_cost: measured startups of the present user's loads
 * @stats: counters for debugfs
 * @knobs: test knobs
 */
struct precopy_device {
	struct kref			kref;
	void				(*release)(struct kref *kref);
	const struct precopy_model	*model;
	struct vfio_pci_core_device	*core;
	struct pci_dev			*pdev;
	struct mutex			arc_mutex;	/* serialises SET_STATE */
	spinlock_t			state_lock;	/* see above */
	enum vfio_device_mig_state	mig_state;
	u64				generation;
	struct precopy_session		*session;
	struct precopy_saving		*saving;
	struct precopy_loading		*loading;
	struct precopy_engine		*engine;
	bool				opened;
	bool				no_msi;
	u64				next_size;
	const struct precopy_model	*next_model;
	wait_queue_head_t		wait;
	struct precopy_config		config;
	struct precopy_memory		memory;
	struct precopy_dma		dma;
	struct precopy_peer		peer;
	struct precopy_cost		startup_cost;
	struct precopy_stats		stats;
	struct precopy_knobs		knobs;
};

/* The stream format has pages of 4 KiB, and the driver relies on the same size */
static_assert(PAGE_SIZE == PRECOPY_STREAM_PAGE_SIZE);

/**
 * struct precopy_function - the VFIO core's object of a bound PCI function
 * @core: the vfio-pci device; must be the first member
 * @pcd: the driver's own object. It is separate because a reference on @core keeps
 *	 the function in the core's reset set, even after unbind.
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

/* Valid while the driver is bound to @dev */
static inline struct precopy_device *precopy_from_dev(struct device *dev)
{
	struct vfio_pci_core_device *core = dev_get_drvdata(dev);

	return to_precopy(&core->vdev);
}

static inline struct device *precopy_dev(struct precopy_device *pcd)
{
	return &pcd->pdev->dev;
}

static inline struct precopy_device *
precopy_device_get(struct precopy_device *pcd)
{
	kref_get(&pcd->kref);
	return pcd;
}

/* May sleep. What frees the device is a callback: sessions do not call up. */
static inline void precopy_device_put(struct precopy_device *pcd)
{
	kref_put(&pcd->kref, pcd->release);
}

/* Add the time since @mark to @sum, and set @mark to the present time */
static inline void precopy_stat_lap(atomic64_t *sum, ktime_t *mark)
{
	ktime_t now = ktime_get();

	atomic64_add(ktime_to_ns(ktime_sub(now, *mark)), sum);
	*mark = now;
}

/* device.c */
/* The workqueue that frees memory and runs startups; main.c allocates it */
extern struct workqueue_struct *precopy_wq;
extern const struct vfio_device_ops precopy_device_ops;
void precopy_device_reset(struct precopy_device *pcd);

/* debugfs.c */
void precopy_debugfs_init(struct precopy_device *pcd);

/* sysfs.c */
extern const struct attribute_group *precopy_sysfs_groups[];
bool precopy_memory_size_valid(u64 size);
int precopy_memory_size_parse(const char *text, u64 *size);

#endif /* PRECOPY_H */
