// SPDX-License-Identifier: GPL-2.0-only
/*
 * The memory behind the BAR: its life, read and write of the region, and the
 * stores of a load. A store, on whichever way it comes, is one read section of
 * memory.sem that checks that it may happen, tells the tracker, and does it.
 * That is what makes collecting, arming and reset exact: they hold the lock
 * for write. Stores through a mapping are in mem/fault.c.
 */

#include <linux/highmem.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/page-flags.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uaccess.h>

#include "precopy.h"
#include "ram.h"
#include "track.h"

/**
 * precopy_memory_init - set up what lives as long as the device object
 * @mem: the memory, zeroed
 */
void precopy_memory_init(struct precopy_memory *mem)
{
	init_rwsem(&mem->sem);
	mutex_init(&mem->split_mutex);
}

/**
 * precopy_memory_destroy - undo precopy_memory_init()
 * @mem: the memory, closed
 */
void precopy_memory_destroy(struct precopy_memory *mem)
{
	mutex_destroy(&mem->split_mutex);
}

/**
 * precopy_memory_open - ready the memory for a new user
 * @pcd: the device, not reachable by a user yet
 * @size: of the BAR, bytes
 *
 * Context: in the opener's context; its memory cgroup will be charged.
 */
void precopy_memory_open(struct precopy_device *pcd, u64 size)
{
	struct precopy_memory *mem = &pcd->memory;

	guard(rwsem_write)(&mem->sem);
	mem->size = size;
	WRITE_ONCE(mem->gate, PRECOPY_GATE_OPEN);
	mem->memcg = get_mem_cgroup_from_mm(current->mm);
}

/**
 * precopy_memory_close - forget the user
 * @pcd: the device, after its last reset, with no user left
 */
void precopy_memory_close(struct precopy_device *pcd)
{
	guard(rwsem_write)(&pcd->memory.sem);
	mem_cgroup_put(pcd->memory.memcg);
	pcd->memory.memcg = NULL;
}

/**
 * precopy_memory_memcg - the memory cgroup to charge
 * @mem: the memory
 *
 * The device may be closed while the caller allocates.
 *
 * Context: may sleep; memory.sem not held.
 * Return: the opener's memory cgroup, with a reference, or NULL.
 */
struct mem_cgroup *precopy_memory_memcg(struct precopy_memory *mem)
{
	guard(rwsem_read)(&mem->sem);
	return mem_cgroup_tryget(mem->memcg) ? mem->memcg : NULL;
}

/**
 * precopy_memory_zap - remove all page table entries of the BAR
 * @pcd: the device
 *
 * Context: may sleep; memory.sem may be held, and so may mmap_lock.
 */
void precopy_memory_zap(struct precopy_device *pcd)
{
	unmap_mapping_range(pcd->core->vdev.inode->i_mapping,
			    VFIO_PCI_INDEX_TO_OFFSET(PRECOPY_BAR),
			    pcd->memory.size, true);
}

/**
 * precopy_memory_zap_unit - remove all page table entries of a unit
 * @pcd: the device
 * @unit: unit number
 *
 * Context: may sleep; memory.sem held, so that nobody makes new ones if it is
 * held for write.
 */
void precopy_memory_zap_unit(struct precopy_device *pcd, unsigned long unit)
{
	unmap_mapping_range(pcd->core->vdev.inode->i_mapping,
			    VFIO_PCI_INDEX_TO_OFFSET(PRECOPY_BAR) +
			    unit * PRECOPY_UNIT_SIZE, PRECOPY_UNIT_SIZE, true);
}

/**
 * precopy_memory_detach - empty the memory
 * @pcd: the device
 *
 * Stops tracking, opens the gate and takes away the contents. The entries
 * must be gone before the lock is: a fault that found one of the old
 * contents' pages mapped could not insert a new page.
 *
 * Context: memory.sem held for write.
 * Return: the old contents, for the caller to put; may be NULL.
 */
struct precopy_ram *precopy_memory_detach(struct precopy_device *pcd)
{
	struct precopy_memory *mem = &pcd->memory;
	struct precopy_ram *ram = mem->ram;

	lockdep_assert_held_write(&mem->sem);
	mem->ram = NULL;
	WRITE_ONCE(mem->tracker, NULL);
	WRITE_ONCE(mem->gate, PRECOPY_GATE_OPEN);
	if (mem->size)
		precopy_memory_zap(pcd);
	return ram;
}

/**
 * precopy_memory_set_gate - let accesses pass, wait, or fail from now on
 * @pcd: the device
 * @gate: which
 *
 * Context: memory.sem held for write; the caller wakes pcd->wait after.
 */
void precopy_memory_set_gate(struct precopy_device *pcd,
			     enum precopy_gate gate)
{
	lockdep_assert_held_write(&pcd->memory.sem);
	WRITE_ONCE(pcd->memory.gate, gate);
	/* Who comes must come by a fault, to see the gate */
	if (gate != PRECOPY_GATE_OPEN)
		precopy_memory_zap(pcd);
}

static struct precopy_ram *precopy_memory_install(struct precopy_device *pcd,
						  u64 generation,
						  struct precopy_ram *new)
{
	struct precopy_memory *mem = &pcd->memory;

	guard(rwsem_write)(&mem->sem);
	if (pcd->generation != generation) {
		precopy_ram_put(new);
		return ERR_PTR(-ECANCELED);
	}
	if (mem->ram)
		precopy_ram_put(new);
	else
		mem->ram = new;
	return precopy_ram_get(mem->ram);
}

/**
 * precopy_memory_ram - get hold of the contents, an empty one if need be
 * @pcd: the device
 * @generation: of the caller's view of the device
 *
 * Context: may sleep; memory.sem not held.
 * Return: the contents with a reference, ERR_PTR(-ENOMEM), or
 * ERR_PTR(-ECANCELED) after a reset.
 */
struct precopy_ram *precopy_memory_ram(struct precopy_device *pcd,
				       u64 generation)
{
	struct precopy_memory *mem = &pcd->memory;
	struct mem_cgroup *old, *memcg;
	struct precopy_ram *new;

	scoped_guard(rwsem_read, &mem->sem) {
		if (pcd->generation != generation)
			return ERR_PTR(-ECANCELED);
		if (mem->ram)
			return precopy_ram_get(mem->ram);
	}
	memcg = precopy_memory_memcg(mem);
	old = set_active_memcg(memcg);
	new = precopy_ram_create(pcd, mem->size, memcg);
	set_active_memcg(old);
	mem_cgroup_put(memcg);
	if (IS_ERR(new))
		return new;
	return precopy_memory_install(pcd, generation, new);
}

/* Room in the tracker, so that the page can be marked */
static int precopy_memory_reserve(struct precopy_device *pcd,
				  unsigned long index, gfp_t gfp)
{
	struct precopy_memory *mem = &pcd->memory;
	struct mem_cgroup *old;
	int ret;

	guard(rwsem_read)(&mem->sem);
	if (!mem->tracker)
		return 0;
	old = set_active_memcg(mem->memcg);
	ret = precopy_tracker_reserve(mem->tracker, index / PRECOPY_UNIT_PAGES,
				      gfp);
	set_active_memcg(old);
	return ret;
}

/**
 * precopy_memory_populate - make sure that a page is there, and can be tracked
 * @pcd: the device
 * @generation: of the caller's view of the device
 * @index: page number in the BAR
 * @gfp: as for precopy_ram_populate()
 *
 * Context: may sleep; memory.sem not held.
 * Return: 0, -ENOMEM, or -ECANCELED after a reset.
 */
int precopy_memory_populate(struct precopy_device *pcd, u64 generation,
			    unsigned long index, gfp_t gfp)
{
	struct precopy_ram *ram = precopy_memory_ram(pcd, generation);
	int ret;

	if (IS_ERR(ram))
		return PTR_ERR(ram);
	/* What is tracked is about to be written: it would be split at once */
	ret = precopy_ram_populate(ram, index, !READ_ONCE(pcd->memory.tracker),
				   gfp);
	precopy_ram_put(ram);
	return ret ?: precopy_memory_reserve(pcd, index, gfp);
}

/**
 * precopy_memory_access - may the user touch the memory?
 * @mem: the memory
 *
 * Context: memory.sem held.
 * Return: 0, -EAGAIN if not before the startup completes, -EIO if not at all.
 */
int precopy_memory_access(const struct precopy_memory *mem)
{
	if (!mem->decode || mem->gate == PRECOPY_GATE_FAILED)
		return -EIO;
	return mem->gate == PRECOPY_GATE_WAIT ? -EAGAIN : 0;
}

/**
 * precopy_memory_page - look up a page
 * @mem: the memory
 * @index: page number in the BAR
 *
 * Context: memory.sem held, for as long as the page is used.
 * Return: the page, or NULL for a hole.
 */
struct page *precopy_memory_page(const struct precopy_memory *mem,
				 unsigned long index)
{
	return mem->ram ? precopy_ram_page(mem->ram, index) : NULL;
}

/**
 * precopy_memory_copy_out - copy from a page that may have a memory error
 * @to: where to
 * @page: of the memory
 * @offset: in the page, bytes
 * @len: bytes, within the page
 *
 * The processor reports an error to whoever reads the memory. In an ordinary copy
 * of the kernel's that ends the system.
 *
 * Context: memory.sem held.
 * Return: 0, or -EIO; then the page is known to be bad.
 */
int precopy_memory_copy_out(void *to, struct page *page, size_t offset,
			    size_t len)
{
	unsigned long left;
	const void *from;

	if (PageHWPoison(page))
		return -EIO;
	from = kmap_local_page(page);
	left = copy_mc_to_kernel(to, from + offset, len);
	kunmap_local(from);
	if (!left)
		return 0;
	memory_failure_queue(page_to_pfn(page), 0);
	return -EIO;
}

/* --- read() and write() of the region --------------------------------- */

/* Copy out of one page; a hole reads as zeroes and stays one */
static int precopy_memory_peek(struct precopy_device *pcd, u64 offset,
			       void *to, size_t len)
{
	struct precopy_memory *mem = &pcd->memory;
	struct page *page;
	int ret;

	guard(rwsem_read)(&mem->sem);
	ret = precopy_memory_access(mem);
	if (ret)
		return ret;
	page = precopy_memory_page(mem, offset >> PAGE_SHIFT);
	if (page)
		return precopy_memory_copy_out(to, page, offset_in_page(offset),
					       len);
	memset(to, 0, len);
	return 0;
}

/*
 * Store to one page. -ENOENT: it, or room to mark it, must be allocated first.
 * The gate counts for the stores of the user.
 */
static int precopy_memory_poke(struct precopy_device *pcd, u64 generation,
			       u64 offset, const void *from, size_t len,
			       bool user)
{
	unsigned long index = offset >> PAGE_SHIFT;
	struct precopy_memory *mem = &pcd->memory;
	struct page *page;
	int ret;

	guard(rwsem_read)(&mem->sem);
	if (pcd->generation != generation)
		return -ECANCELED;
	ret = user ? precopy_memory_access(mem) : 0;
	if (ret)
		return ret;
	page = precopy_memory_page(mem, index);
	if (!page)
		return -ENOENT;
	if (PageHWPoison(page))
		return -EIO;
	if (mem->tracker) {
		if (!precopy_tracker_reserved(mem->tracker,
					      index / PRECOPY_UNIT_PAGES))
			return -ENOENT;
		precopy_tracker_mark(mem->tracker, index);
	}
	memcpy_to_page(page, offset_in_page(offset), from, len);
	return 0;
}

static int precopy_memory_store(struct precopy_device *pcd, u64 generation,
				u64 offset, const void *from, size_t len,
				bool user)
{
	int ret;

	for (;;) {
		ret = precopy_memory_poke(pcd, generation, offset, from, len,
					  user);
		if (ret != -ENOENT)
			return ret;
		ret = precopy_memory_populate(pcd, generation,
					      offset >> PAGE_SHIFT,
					      PRECOPY_GFP);
		if (ret)
			return ret;
	}
}

/*
 * Wait for the startup. Once part of the access is @done, only a fatal signal
 * ends the wait: few users expect a short count.
 */
static int precopy_memory_wait(struct precopy_device *pcd, bool done)
{
	struct precopy_memory *mem = &pcd->memory;

	if (done)
		return wait_event_killable(pcd->wait,
					   !precopy_memory_waits(mem)) ?
		       -EINTR : 0;
	return wait_event_interruptible(pcd->wait,
					!precopy_memory_waits(mem)) ?
	       precopy_interrupted() : 0;
}

/* One page's worth of a region access, waiting for the startup if need be */
static int precopy_memory_user_page(struct precopy_device *pcd, u64 offset,
				    void *bounce, size_t len, bool write,
				    bool done)
{
	int ret;

	if (fatal_signal_pending(current))
		return -EINTR;

	for (;;) {
		if (write)
			ret = precopy_memory_store(pcd,
						   READ_ONCE(pcd->generation),
						   offset, bounce, len, true);
		else
			ret = precopy_memory_peek(pcd, offset, bounce, len);
		if (ret == -ECANCELED)
			continue;
		if (ret != -EAGAIN)
			return ret;
		ret = precopy_memory_wait(pcd, done);
		if (ret)
			return ret;
	}
}

static size_t precopy_memory_chunk(struct precopy_device *pcd, size_t count,
				   u64 offset)
{
	if (offset >= pcd->memory.size)
		return 0;
	return min3((u64)count, pcd->memory.size - offset,
		    (u64)PAGE_SIZE - offset_in_page(offset));
}

/**
 * precopy_memory_read - read() of the region
 * @pcd: the device
 * @buf: to copy to
 * @count: bytes wanted
 * @offset: in the BAR, bytes
 *
 * Goes through a bounce page: no lock is held across the user copy, whose
 * page may be one of ours.
 *
 * Context: process context; waits while the device starts up. A fatal signal
 * ends it after any page.
 * Return: bytes read, possibly fewer than wanted; -EINVAL past the end, -EIO
 * with memory decode off, after a failed load, or at a page with a memory error,
 * -EFAULT, -ENOMEM, or precopy_interrupted().
 */
ssize_t precopy_memory_read(struct precopy_device *pcd, char __user *buf,
			    size_t count, u64 offset)
{
	void *bounce __free(kfree) = kmalloc(PAGE_SIZE, GFP_KERNEL);
	ssize_t done = 0;
	size_t len;
	int ret = -EINVAL;

	if (!bounce)
		return -ENOMEM;
	while (count && (len = precopy_memory_chunk(pcd, count, offset))) {
		ret = precopy_memory_user_page(pcd, offset, bounce, len, false,
					       done);
		if (!ret && copy_to_user(buf + done, bounce, len))
			ret = -EFAULT;
		if (ret)
			break;
		done += len;
		offset += len;
		count -= len;
		cond_resched();
	}
	return done ?: ret;
}

/**
 * precopy_memory_write - write() of the region
 * @pcd: the device
 * @buf: to copy from
 * @count: bytes
 * @offset: in the BAR, bytes
 *
 * Context: process context; waits while the device starts up. A fatal signal
 * ends it after any page.
 * Return: bytes written, possibly fewer than asked for; errors as for
 * precopy_memory_read().
 */
ssize_t precopy_memory_write(struct precopy_device *pcd,
			     const char __user *buf, size_t count, u64 offset)
{
	void *bounce __free(kfree) = kmalloc(PAGE_SIZE, GFP_KERNEL);
	ssize_t done = 0;
	size_t len;
	int ret = -EINVAL;

	if (!bounce)
		return -ENOMEM;
	while (count && (len = precopy_memory_chunk(pcd, count, offset))) {
		ret = -EFAULT;
		if (!copy_from_user(bounce, buf + done, len))
			ret = precopy_memory_user_page(pcd, offset, bounce,
						       len, true, done);
		if (ret)
			break;
		done += len;
		offset += len;
		count -= len;
		cond_resched();
	}
	return done ?: ret;
}

/* --- Stores by a load ------------------------------------------------- */

/**
 * precopy_memory_load - store data of a migration stream
 * @pcd: the device
 * @generation: that the load belongs to
 * @offset: in the BAR, bytes, within its size
 * @data: to store
 * @len: bytes, within the BAR
 *
 * Does not wait for the gate: the load is what opens it.
 *
 * Return: 0, -ENOMEM, -ECANCELED after a reset, or -EIO at a page with a memory
 * error.
 */
int precopy_memory_load(struct precopy_device *pcd, u64 generation,
			u64 offset, const void *data, size_t len)
{
	size_t n;
	int ret;

	for (; len; len -= n, offset += n, data += n) {
		n = min_t(size_t, len, PAGE_SIZE - offset_in_page(offset));
		ret = precopy_memory_store(pcd, generation, offset, data, n,
					   false);
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * How many of @len bytes from @offset on are in units that have no memory. Looking
 * at each page of 64 GiB of holes would take seconds.
 */
static u64 precopy_memory_hole(struct precopy_device *pcd, u64 generation,
			       u64 offset, u64 len)
{
	struct precopy_memory *mem = &pcd->memory;
	unsigned long unit = offset / PRECOPY_UNIT_SIZE, next = ULONG_MAX;

	guard(rwsem_read)(&mem->sem);
	/* The caller's next store tells of the reset */
	if (pcd->generation != generation)
		return 0;
	if (mem->ram)
		next = precopy_ram_next_unit(mem->ram, unit);
	if (next == unit)
		return 0;
	if (next > (offset + len - 1) / PRECOPY_UNIT_SIZE)
		return len;
	return next * PRECOPY_UNIT_SIZE - offset;
}

/* Pages that are not there are zero already */
static int precopy_memory_zero_pages(struct precopy_device *pcd, u64 generation,
				     u64 offset, u64 len)
{
	const void *zeroes = page_address(ZERO_PAGE(0));
	int ret;

	for (; len; len -= PAGE_SIZE, offset += PAGE_SIZE) {
		if (fatal_signal_pending(current))
			return -EINTR;
		ret = precopy_memory_poke(pcd, generation, offset, zeroes,
					  PAGE_SIZE, false);
		if (ret && ret != -ENOENT)
			return ret;
		cond_resched();
	}
	return 0;
}

/**
 * precopy_memory_load_zero - zero what a migration stream says is zero
 * @pcd: the device
 * @generation: that the load belongs to
 * @offset: in the BAR, bytes, page aligned, within its size
 * @len: bytes, page aligned, within the BAR
 *
 * A hole is zero already and stays a hole. The time that this takes is in
 * proportion to the memory that the range has, not to its length.
 *
 * Return: 0, -ECANCELED after a reset, -EINTR after a fatal signal, -EIO at a page
 * with a memory error.
 */
int precopy_memory_load_zero(struct precopy_device *pcd, u64 generation,
			     u64 offset, u64 len)
{
	u64 n;
	int ret;

	for (; len; len -= n, offset += n) {
		n = precopy_memory_hole(pcd, generation, offset, len);
		if (n)
			continue;
		n = min(len, PRECOPY_UNIT_SIZE - offset % PRECOPY_UNIT_SIZE);
		ret = precopy_memory_zero_pages(pcd, generation, offset, n);
		if (ret)
			return ret;
	}
	return 0;
}
