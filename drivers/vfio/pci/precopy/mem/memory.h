/* SPDX-License-Identifier: GPL-2.0-only */
/* The memory behind the BAR: who may touch it, and how. */
#ifndef PRECOPY_MEMORY_H
#define PRECOPY_MEMORY_H

#include <linux/mm_types.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/types.h>

struct mem_cgroup;
struct precopy_device;
struct precopy_ram;
struct precopy_tracker;

/**
 * enum precopy_gate - may the user touch the memory?
 * @PRECOPY_GATE_OPEN: yes
 * @PRECOPY_GATE_WAIT: not until the startup completes; accesses wait
 * @PRECOPY_GATE_FAILED: no, the load failed; EIO and SIGBUS until reset
 */
enum precopy_gate {
	PRECOPY_GATE_OPEN,
	PRECOPY_GATE_WAIT,
	PRECOPY_GATE_FAILED,
};

/**
 * struct precopy_memory - the memory behind the BAR
 * @sem: everything below. Whoever inserts a page table entry or stores to the
 *	 memory holds it for read, from looking at @ram, @gate, @decode and
 *	 @tracker to the end of the store; whoever changes one of them holds
 *	 it for write. So does whoever makes a 2 MiB entry: that must not
 *	 meet a page table. Taken inside mmap_lock (faults) and memory_lock (reset);
 *	 never held across a user copy, a wait or an allocation of the
 *	 memory itself (of page tables and of the tracker's bits it is).
 * @size: bytes, fixed while the device is open
 * @ram: where the contents are; NULL while nothing was touched
 * @memcg: the opener's, charged for all of it
 * @gate: may the user touch the memory?
 * @decode: the memory bit of COMMAND
 * @tracker: told of every page written; NULL while not tracking
 * @split_mutex: serialises splits, so that threads which fault on one unit at
 *		 the same time need one spare unit. Taken inside mmap_lock and
 *		 outside @sem.
 * @faults: page faults served, by kind, and pages mapped besides the one
 *	    that was asked for (@around), for debugfs
 */
struct precopy_memory {
	struct rw_semaphore	sem;
	u64			size;
	struct precopy_ram	*ram;
	struct mem_cgroup	*memcg;
	enum precopy_gate	gate;
	bool			decode;
	struct precopy_tracker	*tracker;
	struct mutex		split_mutex;	/* see above */
	struct {
		atomic64_t	read;
		atomic64_t	write;
		atomic64_t	mkwrite;
		atomic64_t	huge;
		atomic64_t	around;
		atomic64_t	waited;
	} faults;
};

void precopy_memory_init(struct precopy_memory *mem);
void precopy_memory_destroy(struct precopy_memory *mem);
void precopy_memory_open(struct precopy_device *pcd, u64 size);
void precopy_memory_close(struct precopy_device *pcd);

struct mem_cgroup *precopy_memory_memcg(struct precopy_memory *mem);
struct precopy_ram *precopy_memory_detach(struct precopy_device *pcd);
void precopy_memory_zap(struct precopy_device *pcd);
void precopy_memory_zap_unit(struct precopy_device *pcd, unsigned long unit);
void precopy_memory_set_gate(struct precopy_device *pcd,
			     enum precopy_gate gate);
struct precopy_ram *precopy_memory_ram(struct precopy_device *pcd,
				       u64 generation);

int precopy_memory_populate(struct precopy_device *pcd, u64 generation,
			    unsigned long index, gfp_t gfp);
int precopy_memory_access(const struct precopy_memory *mem);
struct page *precopy_memory_page(const struct precopy_memory *mem,
				 unsigned long index);
int precopy_memory_copy_out(void *to, struct page *page, size_t offset,
			    size_t len);

ssize_t precopy_memory_read(struct precopy_device *pcd, char __user *buf,
			    size_t count, u64 offset);
ssize_t precopy_memory_write(struct precopy_device *pcd,
			     const char __user *buf, size_t count, u64 offset);

int precopy_memory_load(struct precopy_device *pcd, u64 generation,
			u64 offset, const void *data, size_t len);
int precopy_memory_load_zero(struct precopy_device *pcd, u64 generation,
			     u64 offset, u64 len);

/* mem/fault.c */
int precopy_memory_mmap(struct precopy_device *pcd,
			struct vm_area_struct *vma);

/* Must accesses wait for the startup? A look without the lock, to wait on. */
static inline bool precopy_memory_waits(const struct precopy_memory *mem)
{
	return READ_ONCE(mem->gate) == PRECOPY_GATE_WAIT;
}

/* For all but page faults: fail rather than have somebody killed */
#define PRECOPY_GFP	(GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

/* Opportunistic: no retry, no warning, and nobody killed */
#define PRECOPY_GFP_EASY (GFP_KERNEL_ACCOUNT | __GFP_NORETRY | __GFP_NOWARN)

/* First page of the BAR in the address space of the vfio device's inode */
#define PRECOPY_BAR_PGOFF \
	(VFIO_PCI_INDEX_TO_OFFSET(PRECOPY_BAR) >> PAGE_SHIFT)

#endif /* PRECOPY_MEMORY_H */
