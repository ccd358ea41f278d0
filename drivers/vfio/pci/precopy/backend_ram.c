// SPDX-License-Identifier: GPL-2.0-only
/* The RAM backend: the BAR's contents in ordinary, accounted pages. */

#include <linux/bitmap.h>
#include <linux/kref.h>
#include <linux/memcontrol.h>
#include <linux/mm.h>
#include <linux/sched/mm.h>
#include <linux/slab.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "backend.h"
#include "precopy.h"
#include "stream.h"

#define PRECOPY_UNIT_ORDER	(ilog2(PRECOPY_UNIT_SIZE) - PAGE_SHIFT)

/*
 * A unit is either one run of contiguous pages or, where none could be had, a
 * table of single pages that fills as they are touched. The run is split into
 * single pages, so that a pin on one of them does not look like a pin on all.
 */
struct precopy_ram_unit {
	struct page	*run;
	struct page	*pages[];
};

/**
 * struct precopy_ram - one life of the device's memory
 * @kref: the memory object itself, and whoever looks at pages without its
 *	  lock
 * @units: unit number to struct precopy_ram_unit. Entries are only added,
 *	   by cmpxchg, so that readers need no lock but RCU's in the xarray.
 * @memcg: the opener's memory cgroup, charged for everything here
 * @nr_units: units in the BAR, at least 1
 * @order: order of a run: that of a unit, or less in a small BAR
 * @bytes: memory allocated to pages
 * @work: frees the pages, since the last put may come with locks held that
 *	  should not wait for that
 */
struct precopy_ram {
	struct kref		kref;
	struct xarray		units;
	struct mem_cgroup	*memcg;
	unsigned long		nr_units;
	unsigned int		order;
	atomic64_t		bytes;
	struct work_struct	work;
};

static struct page *precopy_ram_unit_page(const struct precopy_ram_unit *u,
					  unsigned long i)
{
	if (u->run)
		return u->run + i;
	/* Pairs with the cmpxchg in precopy_ram_populate_single() */
	return smp_load_acquire(&u->pages[i]);
}

static void precopy_ram_unit_free(struct precopy_ram *ram,
				  struct precopy_ram_unit *u)
{
	unsigned long i;

	for (i = 0; i < (1UL << ram->order); i++)
		if (precopy_ram_unit_page(u, i))
			put_page(precopy_ram_unit_page(u, i));
	kfree(u);
}

static void precopy_ram_free(struct work_struct *work)
{
	struct precopy_ram *ram = container_of(work, struct precopy_ram, work);
	struct precopy_ram_unit *u;
	unsigned long unit;

	xa_for_each(&ram->units, unit, u) {
		precopy_ram_unit_free(ram, u);
		cond_resched();
	}
	xa_destroy(&ram->units);
	mem_cgroup_put(ram->memcg);
	kfree(ram);
}

static void precopy_ram_release(struct kref *kref)
{
	struct precopy_ram *ram = container_of(kref, struct precopy_ram, kref);

	queue_work(precopy_wq, &ram->work);
}

/**
 * precopy_ram_create - a new, empty memory
 * @size: of the BAR, bytes, a power of two
 * @memcg: to be charged; may be NULL
 *
 * Context: process context, may sleep.
 * Return: the memory with one reference, or ERR_PTR(-ENOMEM).
 */
struct precopy_ram *precopy_ram_create(u64 size, struct mem_cgroup *memcg)
{
	struct precopy_ram *ram = kzalloc_obj(*ram, GFP_KERNEL_ACCOUNT);

	if (!ram)
		return ERR_PTR(-ENOMEM);
	kref_init(&ram->kref);
	xa_init_flags(&ram->units, XA_FLAGS_ACCOUNT);
	INIT_WORK(&ram->work, precopy_ram_free);
	ram->nr_units = DIV_ROUND_UP(size, PRECOPY_UNIT_SIZE);
	ram->order = min(PRECOPY_UNIT_ORDER, ilog2(size) - PAGE_SHIFT);
	/* Cannot fail: the caller has a reference */
	if (mem_cgroup_tryget(memcg))
		ram->memcg = memcg;
	return ram;
}

/**
 * precopy_ram_get - take a reference
 * @ram: the memory
 *
 * Return: @ram.
 */
struct precopy_ram *precopy_ram_get(struct precopy_ram *ram)
{
	kref_get(&ram->kref);
	return ram;
}

/**
 * precopy_ram_put - drop a reference
 * @ram: the memory, or NULL
 *
 * Context: any context that may wake a worker; the pages are freed by it.
 */
void precopy_ram_put(struct precopy_ram *ram)
{
	if (ram)
		kref_put(&ram->kref, precopy_ram_release);
}

/**
 * precopy_ram_page - look up a page
 * @ram: the memory
 * @index: page number in the BAR
 *
 * The page stays as long as the caller's reference on @ram, or the lock that
 * stands for it.
 *
 * Return: the page, or NULL for a hole.
 */
struct page *precopy_ram_page(struct precopy_ram *ram, unsigned long index)
{
	struct precopy_ram_unit *u;

	u = xa_load(&ram->units, index / PRECOPY_UNIT_PAGES);
	return u ? precopy_ram_unit_page(u, index % PRECOPY_UNIT_PAGES) : NULL;
}

static struct precopy_ram_unit *precopy_ram_unit_alloc(struct precopy_ram *ram,
						       gfp_t gfp)
{
	struct precopy_ram_unit *u;
	struct page *page;

	/* A run is a bonus: never try hard, never warn, for it */
	page = alloc_pages((gfp & ~__GFP_RETRY_MAYFAIL) | __GFP_ZERO |
			   __GFP_NORETRY | __GFP_NOWARN, ram->order);
	u = kzalloc_flex(*u, pages, page ? 0 : 1UL << ram->order, gfp);
	if (!u) {
		if (page)
			__free_pages(page, ram->order);
		return NULL;
	}
	if (page)
		split_page(page, ram->order);
	u->run = page;
	return u;
}

static struct precopy_ram_unit *precopy_ram_unit_get(struct precopy_ram *ram,
						     unsigned long unit,
						     gfp_t gfp)
{
	struct precopy_ram_unit *u, *old;

	u = xa_load(&ram->units, unit);
	if (u)
		return u;
	u = precopy_ram_unit_alloc(ram, gfp);
	if (!u)
		return ERR_PTR(-ENOMEM);
	old = xa_cmpxchg(&ram->units, unit, NULL, u, gfp);
	if (old) {
		precopy_ram_unit_free(ram, u);
		return xa_is_err(old) ? ERR_PTR(xa_err(old)) : old;
	}
	if (u->run)
		atomic64_add(PAGE_SIZE << ram->order, &ram->bytes);
	return u;
}

static int precopy_ram_populate_single(struct precopy_ram *ram,
				       struct precopy_ram_unit *u,
				       unsigned long i, gfp_t gfp)
{
	struct page *page;

	if (precopy_ram_unit_page(u, i))
		return 0;
	page = alloc_page(gfp | __GFP_ZERO);
	if (!page)
		return -ENOMEM;
	if (cmpxchg(&u->pages[i], NULL, page))
		put_page(page);
	else
		atomic64_add(PAGE_SIZE, &ram->bytes);
	return 0;
}

/**
 * precopy_ram_populate - make sure that a page is there
 * @ram: the memory
 * @index: page number in the BAR
 * @gfp: how hard to try. Page faults pass GFP_KERNEL_ACCOUNT, so that running
 *	 out acts on them like on any memory; all others add
 *	 __GFP_RETRY_MAYFAIL and report the failure.
 *
 * Context: process context, may sleep; no lock of this driver held.
 * Return: 0 or -ENOMEM.
 */
int precopy_ram_populate(struct precopy_ram *ram, unsigned long index,
			 gfp_t gfp)
{
	struct mem_cgroup *old = set_active_memcg(ram->memcg);
	struct precopy_ram_unit *u;
	int ret;

	u = precopy_ram_unit_get(ram, index / PRECOPY_UNIT_PAGES, gfp);
	if (IS_ERR(u))
		ret = PTR_ERR(u);
	else
		ret = precopy_ram_populate_single(ram, u,
						  index % PRECOPY_UNIT_PAGES,
						  gfp);
	set_active_memcg(old);
	return ret;
}

/**
 * precopy_ram_populate_unit - make sure that all pages of a unit are there
 * @ram: the memory
 * @unit: unit number
 *
 * Context: process context, may sleep; no lock of this driver held.
 * Return: 0 or -ENOMEM; what could be had stays.
 */
int precopy_ram_populate_unit(struct precopy_ram *ram, unsigned long unit)
{
	unsigned long i;
	int ret = 0;

	for (i = 0; !ret && i < (1UL << ram->order); i++)
		ret = precopy_ram_populate(ram, unit * PRECOPY_UNIT_PAGES + i,
					   GFP_KERNEL_ACCOUNT |
					   __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
	return ret;
}

/**
 * precopy_ram_page_busy - may somebody write a page without a page table?
 * @ram: the memory
 * @index: page number in the BAR
 *
 * A short-term pin (O_DIRECT, process_vm_writev) or a plain reference (ptrace,
 * vmsplice) taken while the page was writable may store to it after it was
 * write-protected, and no fault would tell. References that come and go with a
 * fault look the same for a moment; they only cost a second look later.
 *
 * Context: after the page was protected and the TLBs were flushed; the
 * flush orders this check after the last page table walk that could pin.
 * memory.sem is held for write: a mapping that was added between the two reads
 * below would hide a reference.
 * Return: true if the page has references that page tables do not explain.
 */
bool precopy_ram_page_busy(struct precopy_ram *ram, unsigned long index)
{
	struct page *page = precopy_ram_page(ram, index);
	struct folio *folio;
	int refs;

	if (!page)
		return false;
	folio = page_folio(page);
	if (folio_maybe_dma_pinned(folio))
		return true;
	refs = folio_ref_count(folio);
	/* A mapping that goes away meanwhile only makes the page look busy */
	smp_rmb();
	/* One reference is ours, and one for each time it is mapped */
	return refs > folio_mapcount(folio) + 1;
}

/**
 * precopy_ram_unit_pages - which pages of a unit are there
 * @ram: the memory
 * @unit: unit number
 * @pages: bitmap of PRECOPY_UNIT_PAGES bits, overwritten
 *
 * Return: their number.
 */
unsigned long precopy_ram_unit_pages(struct precopy_ram *ram,
				     unsigned long unit, unsigned long *pages)
{
	struct precopy_ram_unit *u = xa_load(&ram->units, unit);
	unsigned long i;

	bitmap_zero(pages, PRECOPY_UNIT_PAGES);
	for (i = 0; u && i < (1UL << ram->order); i++)
		if (precopy_ram_unit_page(u, i))
			__set_bit(i, pages);
	return bitmap_weight(pages, PRECOPY_UNIT_PAGES);
}

/**
 * precopy_ram_units - which units are in use
 * @ram: the memory, or NULL for none
 * @units: bitmap of one bit a unit, zeroed by the caller
 */
void precopy_ram_units(struct precopy_ram *ram, unsigned long *units)
{
	struct precopy_ram_unit *u;
	unsigned long unit;

	if (!ram)
		return;
	xa_for_each(&ram->units, unit, u)
		__set_bit(unit, units);
}

/**
 * precopy_ram_bytes - memory in use
 * @ram: the memory, or NULL
 *
 * Return: bytes of pages allocated.
 */
u64 precopy_ram_bytes(struct precopy_ram *ram)
{
	return ram ? atomic64_read(&ram->bytes) : 0;
}
