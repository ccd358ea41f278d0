// SPDX-License-Identifier: GPL-2.0-only
/*
 * The memory behind the BAR: its life, read and write of the region, and what a
 * migration copies out and in. A store, on whichever way it comes, is one read section of
 * memory.sem that checks that it may happen, tells the tracker, and does it.
 * That is what makes collecting, arming and reset exact: they hold the lock
 * for write. Stores through a mapping are in mem/fault.c.
 */

#include <linux/bitmap.h>
#include <linux/delay.h>
#include <linux/highmem.h>
#include <linux/mm.h>
#include <linux/page-flags.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include <kunit/visibility.h>

#include "access.h"
#include "charge.h"
#include "entries.h"
#include "memory.h"
#include "move.h"
#include "ram.h"
#include "track.h"

/**
 * enum precopy_access - whose access it is, which decides what may keep it back
 * @PRECOPY_ACCESS_DEVICE: the device's own: nothing
 * @PRECOPY_ACCESS_USER: the user's: the gate, and memory decode
 * @PRECOPY_ACCESS_PEER: another device's: the same, and a stop of this device
 */
enum precopy_access {
	PRECOPY_ACCESS_DEVICE,
	PRECOPY_ACCESS_USER,
	PRECOPY_ACCESS_PEER,
};

/**
 * precopy_memory_init - initialise the memory of a device
 * @mem: the memory, zeroed
 * @dev: device that messages and events name
 * @mapping: address space that maps the BAR
 * @pgoff: first page of the BAR in @mapping
 * @wq: workqueue on which contents are freed
 *
 * The caller ensures that these live as long as @mem, and @wq longer: it is
 * flushed before it goes.
 *
 * Return: 0 or -ENOMEM.
 */
int precopy_memory_init(struct precopy_memory *mem, struct device *dev,
			struct address_space *mapping, pgoff_t pgoff,
			struct workqueue_struct *wq)
{
	mem->stats = precopy_stats_alloc();
	if (!mem->stats)
		return -ENOMEM;
	init_rwsem(&mem->sem);
	init_rwsem(&mem->split_sem);
	precopy_entries_init(mem);
	precopy_moves_init(mem);
	init_waitqueue_head(&mem->wait);
	mem->dev = dev;
	mem->mapping = mapping;
	mem->pgoff = pgoff;
	mem->wq = wq;
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_memory_init);

/**
 * precopy_memory_destroy - undo precopy_memory_init()
 * @mem: the memory, closed
 */
void precopy_memory_destroy(struct precopy_memory *mem)
{
	precopy_moves_destroy(mem);
	precopy_stats_put(mem->stats);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_memory_destroy);

/**
 * precopy_memory_open - prepare the memory for a new user
 * @mem: the memory, not reachable by a user yet
 * @size: size of the BAR, bytes
 *
 * Context: in the opener's context; its memory cgroup will be charged.
 * Return: 0 or -ENOMEM.
 */
int precopy_memory_open(struct precopy_memory *mem, u64 size)
{
	guard(rwsem_write)(&mem->sem);
	mem->size = size;
	mem->revoked = bitmap_zalloc(precopy_memory_nr_units(mem),
				     GFP_KERNEL_ACCOUNT);
	if (!mem->revoked)
		return -ENOMEM;
	WRITE_ONCE(mem->gate, PRECOPY_GATE_OPEN);
	mem->memcg = get_mem_cgroup_from_mm(current->mm);
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_memory_open);

/**
 * precopy_memory_close - stop charging the user
 * @mem: the memory, after its last reset, with no user left
 */
void precopy_memory_close(struct precopy_memory *mem)
{
	guard(rwsem_write)(&mem->sem);
	mem_cgroup_put(mem->memcg);
	mem->memcg = NULL;
	bitmap_free(mem->revoked);
	mem->revoked = NULL;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_memory_close);

/* Stop tracking, open the gate and take away the contents, which a worker frees */
static void precopy_memory_forget(struct precopy_memory *mem)
{
	struct precopy_ram *ram = mem->ram;

	lockdep_assert_held_write(&mem->sem);
	mem->ram = NULL;
	WRITE_ONCE(mem->tracker, NULL);
	WRITE_ONCE(mem->gate, PRECOPY_GATE_OPEN);
	precopy_ram_put(ram);
	wake_up_all(&mem->wait);
}

/**
 * precopy_memory_discard - empty the memory, with its page table entries
 * @mem: the memory, open
 *
 * The entries must be gone before the lock is, or be revoked: a fault that found one
 * of the old contents' pages mapped could not insert a new page.
 *
 * Context: memory.sem held for write.
 */
void precopy_memory_discard(struct precopy_memory *mem)
{
	precopy_memory_forget(mem);
	precopy_entries_remove(mem);
}

/**
 * precopy_memory_reset - empty the memory at a reset of the device
 * @mem: the memory
 * @generation: generation of the device from now on
 *
 * Context: memory.sem held for write, by a caller who calls precopy_memory_settle()
 * before the reset is over.
 */
void precopy_memory_reset(struct precopy_memory *mem, u64 generation)
{
	lockdep_assert_held_write(&mem->sem);
	WRITE_ONCE(mem->generation, generation);
	mem->accepting = true;
	precopy_entries_revoke(mem);
	precopy_memory_forget(mem);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_memory_reset);

static unsigned long precopy_memory_next_revoked(struct precopy_memory *mem,
						 unsigned long from)
{
	unsigned long nr_units, unit;

	/* So that whoever has found a unit before us has removed its entries */
	guard(rwsem_read)(&mem->sem);
	nr_units = mem->revoked ? precopy_memory_nr_units(mem) : 0;
	unit = find_next_bit(mem->revoked, nr_units, from);
	return unit < nr_units ? unit : ULONG_MAX;
}

/* Times to sleep for 20 to 50 us until the lock has been handed over */
#define PRECOPY_GIVE_WAY	10

/**
 * precopy_memory_give_way - let tasks that wait for memory.sem have it first
 * @mem: the memory
 *
 * A task that runs takes an rwsem before those that sleep for it, until one of them has
 * waited for RWSEM_WAIT_TIMEOUT, 4 ms. A pass takes memory.sem again and again, and
 * without this it would do so to accesses of the guest each time that they need the lock.
 *
 * Context: may sleep, for about 0.5 ms at most; memory.sem not held.
 */
void precopy_memory_give_way(struct precopy_memory *mem)
{
	int i;

	for (i = 0; i < PRECOPY_GIVE_WAY && rwsem_is_contended(&mem->sem); i++)
		usleep_range(20, 50);
}

/**
 * precopy_memory_settle - wait until page table entries that were revoked are removed
 * @mem: the memory
 *
 * Accesses wait for the unit that they are to, and not for the others.
 *
 * Context: may sleep, for a time in proportion to the memory that was in use;
 * memory.sem not held; memory_lock of the core may be held.
 */
void precopy_memory_settle(struct precopy_memory *mem)
{
	unsigned long unit = 0;

	for (; (unit = precopy_memory_next_revoked(mem, unit)) != ULONG_MAX; unit++) {
		precopy_entries_settle(mem, unit);
		cond_resched();
	}
}
EXPORT_SYMBOL_IF_KUNIT(precopy_memory_settle);

/**
 * precopy_memory_set_gate - let accesses to the BAR pass, wait, or fail
 * @mem: the memory
 * @gate: the new state of the gate
 *
 * Context: memory.sem held for write.
 */
void precopy_memory_set_gate(struct precopy_memory *mem,
			     enum precopy_gate gate)
{
	lockdep_assert_held_write(&mem->sem);
	WRITE_ONCE(mem->gate, gate);
	/* Force a fault, so that the access looks at the gate again */
	if (gate != PRECOPY_GATE_OPEN)
		precopy_entries_remove(mem);
	wake_up_all(&mem->wait);
}

/**
 * precopy_memory_set_decode - let the BAR decode accesses, or not
 * @mem: the memory
 * @decode: the memory bit of COMMAND
 *
 * Without memory decode accesses must fail. Removing the page table entries makes
 * accesses by mmap fault, and the fault checks the bit.
 *
 * Context: memory.sem held for write, by a caller who calls precopy_memory_settle()
 * before the write to COMMAND is over.
 */
void precopy_memory_set_decode(struct precopy_memory *mem, bool decode)
{
	lockdep_assert_held_write(&mem->sem);
	if (mem->decode && !decode)
		precopy_entries_revoke(mem);
	mem->decode = decode;
}

/**
 * precopy_memory_set_accepting - let accesses of other devices pass, or not
 * @mem: the memory
 * @accepting: whether they pass
 *
 * Context: memory.sem held for write, so that those which have begun are complete.
 */
void precopy_memory_set_accepting(struct precopy_memory *mem, bool accepting)
{
	lockdep_assert_held_write(&mem->sem);
	mem->accepting = accepting;
}

static struct precopy_ram *precopy_memory_install(struct precopy_memory *mem,
						  u64 generation,
						  struct precopy_ram *new)
{
	guard(rwsem_write)(&mem->sem);
	if (mem->generation != generation) {
		precopy_ram_put(new);
		return ERR_PTR(-ECANCELED);
	}
	if (mem->ram)
		precopy_ram_put(new);
	else
		mem->ram = new;
	return precopy_ram_get(mem->ram);
}

static struct precopy_ram *precopy_memory_create(struct precopy_memory *mem)
{
	struct mem_cgroup *memcg __free(precopy_memcg) = precopy_memcg_get(mem);

	CLASS(precopy_charge, old)(memcg);
	return precopy_ram_create(mem, memcg);
}

/*
 * Get hold of the contents, empty ones if need be. May sleep; memory.sem is not
 * held.
 *
 * Return: the contents with a reference, ERR_PTR(-ENOMEM), or
 * ERR_PTR(-ECANCELED) after a reset.
 */
static struct precopy_ram *precopy_memory_ram(struct precopy_memory *mem,
					      u64 generation)
{
	struct precopy_ram *new;

	scoped_guard(rwsem_read, &mem->sem) {
		if (mem->generation != generation)
			return ERR_PTR(-ECANCELED);
		if (mem->ram)
			return precopy_ram_get(mem->ram);
	}
	new = precopy_memory_create(mem);
	if (IS_ERR(new))
		return new;
	return precopy_memory_install(mem, generation, new);
}

/* Room in the tracker, so that the page can be marked */
static int precopy_memory_reserve(struct precopy_memory *mem,
				  unsigned long index, gfp_t gfp)
{
	guard(rwsem_read)(&mem->sem);
	if (!mem->tracker)
		return 0;
	CLASS(precopy_charge, old)(mem->memcg);
	return precopy_tracker_reserve(mem->tracker, index / PRECOPY_UNIT_PAGES,
				       gfp);
}

/**
 * precopy_memory_populate - allocate a page, and room for its mark, unless it is there
 * @mem: the memory
 * @generation: generation that the access belongs to
 * @index: page number in the BAR
 * @gfp: as for precopy_ram_populate()
 *
 * Context: may sleep; memory.sem not held.
 * Return: 0, -ENOMEM, or -ECANCELED after a reset.
 */
int precopy_memory_populate(struct precopy_memory *mem, u64 generation,
			    unsigned long index, gfp_t gfp)
{
	struct precopy_ram *ram = precopy_memory_ram(mem, generation);
	int ret;

	if (IS_ERR(ram))
		return PTR_ERR(ram);
	/* The next store to a tracked unit splits it, so no folio of 2 MiB then */
	ret = precopy_ram_populate(ram, index, !READ_ONCE(mem->tracker), gfp);
	precopy_ram_put(ram);
	return ret ?: precopy_memory_reserve(mem, index, gfp);
}

/*
 * Copy from a page that may have a memory error. The processor reports it to
 * whoever reads the memory, which in an ordinary copy of the kernel's ends the
 * system. -EIO: the page is known to be bad.
 */
static int precopy_memory_copy_page(void *to, struct page *page, size_t offset,
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

/**
 * precopy_memory_copy_out - copy a page
 * @mem: the memory
 * @index: page number in the BAR, of a page that is there
 * @to: buffer of PAGE_SIZE bytes
 *
 * Context: memory.sem held. Stores may go on.
 * Return: 0, or -EIO at a page with a memory error.
 */
int precopy_memory_copy_out(const struct precopy_memory *mem,
			    unsigned long index, void *to)
{
	return precopy_memory_copy_page(to, precopy_memory_page(mem, index), 0,
					PAGE_SIZE);
}

/**
 * precopy_memory_is_zero - check whether a page has nothing but zeroes
 * @mem: the memory
 * @index: page number in the BAR, of a page that is there
 *
 * Context: memory.sem held. Stores may go on.
 * Return: true if so; false for a page with a memory error.
 */
bool precopy_memory_is_zero(const struct precopy_memory *mem,
			    unsigned long index)
{
	struct page *page = precopy_memory_page(mem, index);
	const void *from;
	bool zero;

	/* Reported when it is to be copied */
	if (PageHWPoison(page))
		return false;
	from = kmap_local_page(page);
	zero = !memchr_inv(from, 0, PAGE_SIZE);
	kunmap_local(from);
	return zero;
}

/* --- Memory in use ---------------------------------------------------- */

/**
 * precopy_memory_used - get the size of the memory in use
 * @mem: the memory
 *
 * Context: memory.sem held.
 * Return: bytes of pages allocated.
 */
u64 precopy_memory_used(const struct precopy_memory *mem)
{
	lockdep_assert_held(&mem->sem);
	return precopy_ram_bytes(mem->ram);
}

/**
 * precopy_memory_next_used - find a unit in use
 * @mem: the memory
 * @from: unit to start from
 *
 * Context: memory.sem held.
 * Return: the first one at or after @from, ULONG_MAX if there is none.
 */
unsigned long precopy_memory_next_used(const struct precopy_memory *mem,
				       unsigned long from)
{
	lockdep_assert_held(&mem->sem);
	return mem->ram ? precopy_ram_next_unit(mem->ram, from) : ULONG_MAX;
}

/**
 * precopy_memory_used_pages - get the pages of a unit that are there
 * @mem: the memory
 * @unit: unit number, of a unit in use
 * @pages: result: bitmap of PRECOPY_UNIT_PAGES bits
 *
 * Context: memory.sem held.
 * Return: number of pages.
 */
unsigned long precopy_memory_used_pages(const struct precopy_memory *mem,
					unsigned long unit,
					unsigned long *pages)
{
	lockdep_assert_held(&mem->sem);
	return precopy_ram_unit_pages(mem->ram, unit, pages);
}

/**
 * precopy_memory_whole_units - find the units that have all of their pages
 * @mem: the memory
 * @units: result: bitmap of one bit a unit, zeroed by the caller
 *
 * Context: memory.sem held.
 * Return: bytes of pages in these units.
 */
u64 precopy_memory_whole_units(const struct precopy_memory *mem,
			       unsigned long *units)
{
	lockdep_assert_held(&mem->sem);
	return precopy_ram_whole_units(mem->ram, units);
}

/* --- read() and write() of the region --------------------------------- */

/* A page that is not allocated reads as zeroes, and stays so */
static int precopy_memory_copy_bytes(const struct precopy_memory *mem,
				     u64 offset, void *to, size_t len)
{
	struct page *page = precopy_memory_page(mem, offset >> PAGE_SHIFT);

	if (page)
		return precopy_memory_copy_page(to, page,
						offset_in_page(offset), len);
	memset(to, 0, len);
	return 0;
}

static int precopy_memory_may(const struct precopy_memory *mem,
			      enum precopy_access access)
{
	if (access == PRECOPY_ACCESS_DEVICE)
		return 0;
	if (access == PRECOPY_ACCESS_PEER && !mem->accepting)
		return -ESHUTDOWN;
	return precopy_memory_access(mem);
}

/* Copy from one page, for the user or for another device */
static int precopy_memory_peek(struct precopy_memory *mem, u64 offset,
			       void *to, size_t len, enum precopy_access access)
{
	int ret;

	guard(rwsem_read)(&mem->sem);
	ret = precopy_memory_may(mem, access);
	if (ret)
		return ret;
	return precopy_memory_copy_bytes(mem, offset, to, len);
}

/**
 * precopy_memory_copy_part - copy from a page, for the device itself
 * @mem: the memory
 * @generation: generation that the caller is of
 * @offset: offset in the BAR, bytes
 * @to: buffer
 * @len: number of bytes, all in one page
 *
 * Neither the gate nor memory decode matters: the device reaches its own memory.
 *
 * Context: may sleep, no lock held.
 * Return: 0, -ECANCELED after a reset, -EIO at a page with a memory error.
 */
int precopy_memory_copy_part(struct precopy_memory *mem, u64 generation,
			     u64 offset, void *to, size_t len)
{
	guard(rwsem_read)(&mem->sem);
	if (mem->generation != generation)
		return -ECANCELED;
	return precopy_memory_copy_bytes(mem, offset, to, len);
}

/* Store to one page. -ENOENT: it, or room to mark it, must be allocated first. */
static int precopy_memory_poke(struct precopy_memory *mem, u64 generation,
			       u64 offset, const void *from, size_t len,
			       enum precopy_access access)
{
	unsigned long index = offset >> PAGE_SHIFT;
	struct page *page;
	int ret;

	guard(rwsem_read)(&mem->sem);
	if (mem->generation != generation)
		return -ECANCELED;
	ret = precopy_memory_may(mem, access);
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
		precopy_tracker_mark(mem, index);
	}
	precopy_move_store(mem, index);
	memcpy_to_page(page, offset_in_page(offset), from, len);
	return 0;
}

static int precopy_memory_store(struct precopy_memory *mem, u64 generation,
				u64 offset, const void *from, size_t len,
				enum precopy_access access)
{
	int ret;

	for (;;) {
		ret = precopy_memory_poke(mem, generation, offset, from, len,
					  access);
		if (ret != -ENOENT)
			return ret;
		ret = precopy_memory_populate(mem, generation,
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
static int precopy_memory_wait(struct precopy_memory *mem, bool done)
{
	if (done)
		return wait_event_state(mem->wait, !precopy_memory_waits(mem),
					(TASK_KILLABLE | TASK_FREEZABLE)) ?
		       -EINTR : 0;
	return wait_event_interruptible(mem->wait, !precopy_memory_waits(mem)) ?
	       precopy_interrupted() : 0;
}

/* Do the part of a region access that is in one page; wait while a target starts */
static int precopy_memory_user_page(struct precopy_memory *mem, u64 offset,
				    void *bounce, size_t len, bool write,
				    bool done)
{
	int ret;

	if (fatal_signal_pending(current))
		return -EINTR;

	for (;;) {
		if (write)
			ret = precopy_memory_store(mem,
						   READ_ONCE(mem->generation),
						   offset, bounce, len,
						   PRECOPY_ACCESS_USER);
		else
			ret = precopy_memory_peek(mem, offset, bounce, len,
						  PRECOPY_ACCESS_USER);
		if (ret == -ECANCELED)
			continue;
		if (ret != -EAGAIN)
			return ret;
		ret = precopy_memory_wait(mem, done);
		if (ret)
			return ret;
	}
}

static size_t precopy_memory_chunk(struct precopy_memory *mem, size_t count,
				   u64 offset)
{
	if (offset >= mem->size)
		return 0;
	return min3((u64)count, mem->size - offset,
		    (u64)PAGE_SIZE - offset_in_page(offset));
}

/**
 * precopy_memory_read - read from the BAR
 * @mem: the memory
 * @buf: user buffer to copy to
 * @count: length, bytes
 * @offset: offset in the BAR, bytes
 *
 * The data goes through a bounce page, so that no lock is held across the user copy:
 * the user's buffer may be in the BAR itself.
 *
 * Context: process context; waits while the device starts up. A fatal signal
 * ends it after any page.
 * Return: bytes read, possibly fewer than wanted; -EINVAL past the end, -EIO
 * with memory decode off, after a failed load, or at a page with a memory error,
 * -EFAULT, -ENOMEM, or precopy_interrupted().
 */
ssize_t precopy_memory_read(struct precopy_memory *mem, char __user *buf,
			    size_t count, u64 offset)
{
	void *bounce __free(kfree) = kmalloc(PAGE_SIZE, GFP_KERNEL);
	ssize_t done = 0;
	size_t len;
	int ret = -EINVAL;

	if (!bounce)
		return -ENOMEM;
	while (count && (len = precopy_memory_chunk(mem, count, offset))) {
		ret = precopy_memory_user_page(mem, offset, bounce, len, false,
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
 * precopy_memory_write - write to the BAR
 * @mem: the memory
 * @buf: user buffer to copy from
 * @count: length, bytes
 * @offset: offset in the BAR, bytes
 *
 * Context: process context; waits while the device starts up. A fatal signal
 * ends it after any page.
 * Return: bytes written, possibly fewer than asked for; errors as for
 * precopy_memory_read().
 */
ssize_t precopy_memory_write(struct precopy_memory *mem,
			     const char __user *buf, size_t count, u64 offset)
{
	void *bounce __free(kfree) = kmalloc(PAGE_SIZE, GFP_KERNEL);
	ssize_t done = 0;
	size_t len;
	int ret = -EINVAL;

	if (!bounce)
		return -ENOMEM;
	while (count && (len = precopy_memory_chunk(mem, count, offset))) {
		ret = -EFAULT;
		if (!copy_from_user(bounce, buf + done, len))
			ret = precopy_memory_user_page(mem, offset, bounce,
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

/**
 * precopy_memory_peer_rw - access of another device
 * @mem: the memory, of a device that is open
 * @offset: offset in the BAR, bytes, within its size
 * @buf: the data, or a buffer for it
 * @len: number of bytes, all in one page
 * @write: true to store, false to load
 *
 * Passes the tracker as a store of the user does. A reset does not end it: it takes
 * place before or after.
 *
 * Context: may sleep; memory.sem not held.
 * Return: 0; -ESHUTDOWN if the device has stopped; -EIO without memory decode, after a
 * failed load, or at a page with a memory error; -EAGAIN before a startup is complete;
 * -ENOMEM.
 */
int precopy_memory_peer_rw(struct precopy_memory *mem, u64 offset, void *buf,
			   size_t len, bool write)
{
	int ret;

	do {
		if (write)
			ret = precopy_memory_store(mem,
						   READ_ONCE(mem->generation),
						   offset, buf, len,
						   PRECOPY_ACCESS_PEER);
		else
			ret = precopy_memory_peek(mem, offset, buf, len,
						  PRECOPY_ACCESS_PEER);
	} while (ret == -ECANCELED);
	return ret;
}

/* --- Loads ------------------------------------------------------------ */

/**
 * precopy_memory_load_begin - prepare for a load
 * @mem: the memory
 * @generation: generation that the load belongs to
 *
 * From now on memory is allocated page by page, except for the units that
 * precopy_memory_populate_unit() allocates: the target of a load must not need
 * more memory than its source.
 *
 * Context: may sleep; memory.sem not held.
 * Return: 0, -ENOMEM, or -ECANCELED after a reset.
 */
int precopy_memory_load_begin(struct precopy_memory *mem, u64 generation)
{
	struct precopy_ram *ram = precopy_memory_ram(mem, generation);

	if (IS_ERR(ram))
		return PTR_ERR(ram);
	precopy_ram_set_exact(ram, true);
	precopy_ram_put(ram);
	return 0;
}

/**
 * precopy_memory_load_end - allocate as for any memory again, after a load
 * @mem: the memory
 *
 * Context: memory.sem held.
 */
void precopy_memory_load_end(struct precopy_memory *mem)
{
	lockdep_assert_held(&mem->sem);
	precopy_ram_set_exact(mem->ram, false);
}

/**
 * precopy_memory_populate_unit - allocate the pages of a unit that are not there
 * @mem: the memory
 * @generation: generation that the load belongs to
 * @unit: unit number
 *
 * Context: may sleep; no lock of this driver held but that of a startup.
 * Return: the bytes that were not there before, -ENOMEM, or -ECANCELED after a
 * reset. What could be had stays.
 */
int precopy_memory_populate_unit(struct precopy_memory *mem, u64 generation,
				 unsigned long unit)
{
	struct precopy_ram *ram = precopy_memory_ram(mem, generation);
	int ret;

	if (IS_ERR(ram))
		return PTR_ERR(ram);
	ret = precopy_ram_populate_unit(ram, unit);
	precopy_ram_put(ram);
	return ret;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_memory_populate_unit);

/**
 * precopy_memory_copy_in - store data of a migration stream
 * @mem: the memory
 * @generation: generation that the load belongs to
 * @offset: offset in the BAR, bytes, within its size
 * @data: data to store
 * @len: length, bytes, within the BAR
 *
 * Does not wait for the gate: the load is what opens it.
 *
 * Context: may sleep; memory.sem not held.
 * Return: 0, -ENOMEM, -ECANCELED after a reset, or -EIO at a page with a memory
 * error.
 */
int precopy_memory_copy_in(struct precopy_memory *mem, u64 generation,
			   u64 offset, const void *data, size_t len)
{
	size_t n;
	int ret;

	for (; len; len -= n, offset += n, data += n) {
		n = min_t(size_t, len, PAGE_SIZE - offset_in_page(offset));
		ret = precopy_memory_store(mem, generation, offset, data, n,
					   PRECOPY_ACCESS_DEVICE);
		if (ret)
			return ret;
	}
	return 0;
}

/*
 * How many of @len bytes from @offset on are in units that have no memory. Looking
 * at each page of 64 GiB of holes would take seconds.
 */
static u64 precopy_memory_hole(struct precopy_memory *mem, u64 generation,
			       u64 offset, u64 len)
{
	unsigned long unit = offset / PRECOPY_UNIT_SIZE, next;

	guard(rwsem_read)(&mem->sem);
	/* The caller's next store tells of the reset */
	if (mem->generation != generation)
		return 0;
	next = precopy_memory_next_used(mem, unit);
	if (next == unit)
		return 0;
	if (next > (offset + len - 1) / PRECOPY_UNIT_SIZE)
		return len;
	return next * PRECOPY_UNIT_SIZE - offset;
}

/* Pages that are not there are zero already */
static int precopy_memory_zero_pages(struct precopy_memory *mem, u64 generation,
				     u64 offset, u64 len)
{
	const void *zeroes = page_address(ZERO_PAGE(0));
	int ret;

	for (; len; len -= PAGE_SIZE, offset += PAGE_SIZE) {
		if (fatal_signal_pending(current))
			return -EINTR;
		ret = precopy_memory_poke(mem, generation, offset, zeroes,
					  PAGE_SIZE, PRECOPY_ACCESS_DEVICE);
		if (ret && ret != -ENOENT)
			return ret;
		cond_resched();
	}
	return 0;
}

/**
 * precopy_memory_zero_in - zero the range of a ZERO record of a migration stream
 * @mem: the memory
 * @generation: generation that the load belongs to
 * @offset: offset in the BAR, bytes, page aligned, within its size
 * @len: length, bytes, page aligned, within the BAR
 *
 * A page that is not allocated is zero already, and stays so. The time that this
 * takes is proportional to the memory allocated in the range, not to its length.
 *
 * Return: 0, -ECANCELED after a reset, -EINTR after a fatal signal, -EIO at a page
 * with a memory error.
 */
int precopy_memory_zero_in(struct precopy_memory *mem, u64 generation,
			   u64 offset, u64 len)
{
	u64 n;
	int ret;

	for (; len; len -= n, offset += n) {
		n = precopy_memory_hole(mem, generation, offset, len);
		if (n)
			continue;
		n = min(len, PRECOPY_UNIT_SIZE - offset % PRECOPY_UNIT_SIZE);
		ret = precopy_memory_zero_pages(mem, generation, offset, n);
		if (ret)
			return ret;
	}
	return 0;
}
