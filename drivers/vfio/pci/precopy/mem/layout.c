// SPDX-License-Identifier: GPL-2.0-only
/*
 * Large or small: when a unit is one folio, and when it is single pages.
 *
 * One folio lets a unit be mapped by one entry. But the mm knows whether a
 * folio was written, not which page of it: mprotect() and NUMA hinting change
 * the entries of a folio in batches and give all of them the dirty bit of any,
 * and an entry that is dirty may become writable without a fault. So what is
 * tracked by page has to be a folio by page: the first store to a unit while
 * it is tracked splits it. Until then it is mapped read-only. The contents move
 * to new pages, as there is no other way to divide a folio that is not in a
 * page cache.
 *
 * Both directions need memory.sem for write, nothing mapped, and no reference
 * but ours and those of page faults that wait for the split. A split that cannot
 * be done makes the unit loose (see mem/track.h).
 */

#include <linux/delay.h>
#include <linux/mm_types.h>
#include <linux/slab.h>
#include <linux/xarray.h>

#include "layout.h"
#include "precopy.h"
#include "ram.h"
#include "track.h"

/*
 * A fault holds a reference for a moment before and after precopy_ram_hold()
 * notes it: the split waits for those, and not for others.
 */
#define PRECOPY_SPLIT_TRIES	8

/* --- Memory for splits ------------------------------------------------ */

/* A page table of the VMM's, and one of KVM's */
#define PRECOPY_RESERVE_TABLES	2

/**
 * struct precopy_reserve - memory that is needed once a unit is split
 * @pages: zeroed table for the single pages
 * @tables: memory of the size of page tables. The mm and KVM allocate those by
 *	    themselves when the unit is mapped by small entries, with the OOM
 *	    killer if need be; freeing these lets them have the memory.
 */
struct precopy_reserve {
	struct page	**pages;
	void		*tables[PRECOPY_RESERVE_TABLES];
};

static void precopy_reserve_free_tables(struct precopy_reserve *r)
{
	unsigned int i;

	for (i = 0; i < PRECOPY_RESERVE_TABLES; i++) {
		kfree(r->tables[i]);
		r->tables[i] = NULL;
	}
}

static void precopy_reserve_free(struct precopy_reserve *r)
{
	precopy_reserve_free_tables(r);
	kfree(r->pages);
	kfree(r);
}

static struct precopy_reserve *precopy_reserve_alloc(void)
{
	struct precopy_reserve *r = kzalloc_obj(*r, PRECOPY_GFP);
	unsigned int i;
	bool good;

	if (!r)
		return NULL;
	r->pages = kcalloc(PRECOPY_UNIT_PAGES, sizeof(*r->pages), PRECOPY_GFP);
	good = r->pages;
	for (i = 0; good && i < PRECOPY_RESERVE_TABLES; i++) {
		r->tables[i] = kmalloc(PAGE_SIZE, PRECOPY_GFP);
		good = r->tables[i];
	}
	if (good)
		return r;
	precopy_reserve_free(r);
	return NULL;
}

/**
 * precopy_layout_reserve - have the memory that splitting a unit will take
 * @reserve: of the tracker
 * @unit: unit number
 *
 * So that lack of memory is known when pre-copy begins, and not when a
 * processor of the guest stores to the unit. The spare unit's pages are not
 * part of it: a split gives as many back.
 *
 * Context: may sleep; no lock of this driver held but arc_mutex.
 * Return: 0 or -ENOMEM.
 */
int precopy_layout_reserve(struct xarray *reserve, unsigned long unit)
{
	struct precopy_reserve *r, *old;

	if (xa_load(reserve, unit))
		return 0;
	r = precopy_reserve_alloc();
	if (!r)
		return -ENOMEM;
	old = xa_cmpxchg(reserve, unit, NULL, r, PRECOPY_GFP);
	if (!old)
		return 0;
	precopy_reserve_free(r);
	return xa_err(old);
}

/**
 * precopy_layout_unreserve - free what was reserved and is not used
 * @reserve: of the tracker
 */
void precopy_layout_unreserve(struct xarray *reserve)
{
	struct precopy_reserve *r;
	unsigned long unit;

	xa_for_each(reserve, unit, r) {
		precopy_reserve_free(r);
		cond_resched();
	}
	xa_destroy(reserve);
}

/**
 * precopy_layout_try_spare - could a unit be split now?
 * @ram: the memory
 *
 * Context: may sleep; no lock of this driver held but arc_mutex.
 * Return: 0 or -ENOMEM.
 */
int precopy_layout_try_spare(struct precopy_ram *ram)
{
	struct precopy_ram_unit *spare;

	spare = precopy_ram_spare(ram, false, NULL, PRECOPY_GFP);
	precopy_ram_unit_free(ram, spare);
	return spare ? 0 : -ENOMEM;
}

/* Page tables may be allocated from now on; the table of pages is the caller's */
static struct page **precopy_reserve_use(struct precopy_reserve *r)
{
	struct page **pages;

	if (!r)
		return NULL;
	pages = no_free_ptr(r->pages);
	precopy_reserve_free(r);
	return pages;
}

/* --- Splits and collapses --------------------------------------------- */

/* memory.sem is held */
static bool precopy_layout_splittable(const struct precopy_memory *mem,
				      unsigned long unit)
{
	return mem->tracker && !precopy_tracker_writable(mem, unit);
}

static bool precopy_layout_collapsible(const struct precopy_memory *mem,
				       unsigned long unit)
{
	return !mem->tracker && mem->ram &&
	       !precopy_ram_huge_folio(mem->ram, unit) &&
	       precopy_ram_unit_full(mem->ram, unit);
}

/* The contents, if the unit has to be split; notes the caller's reference then */
static struct precopy_ram *precopy_layout_hold(struct precopy_device *pcd,
					       unsigned long unit,
					       const struct folio *held)
{
	struct precopy_memory *mem = &pcd->memory;

	guard(rwsem_read)(&mem->sem);
	if (!precopy_layout_splittable(mem, unit))
		return NULL;
	precopy_ram_hold(mem->ram, unit, held);
	return precopy_ram_get(mem->ram);
}

static void precopy_layout_unhold(struct precopy_device *pcd,
				  struct precopy_ram *ram, unsigned long unit,
				  const struct folio *held)
{
	scoped_guard(rwsem_read, &pcd->memory.sem)
		precopy_ram_unhold(ram, unit, held);
	precopy_ram_put(ram);
}

/* Return: false to try again */
static bool precopy_layout_try_split(struct precopy_device *pcd,
				     struct precopy_ram *ram,
				     unsigned long unit,
				     struct precopy_ram_unit *spare, bool last)
{
	struct precopy_memory *mem = &pcd->memory;

	guard(rwsem_write)(&mem->sem);
	/* Somebody else did it, or there is no reason any more */
	if (mem->ram != ram || !precopy_layout_splittable(mem, unit))
		return true;
	precopy_memory_zap_unit(pcd, unit);
	if (spare && precopy_ram_swap(ram, unit, spare)) {
		atomic64_inc(&pcd->stats.splits);
		return true;
	}
	if (spare && !last)
		return false;
	precopy_tracker_loosen(mem->tracker, unit);
	atomic64_inc(&pcd->stats.failed_splits);
	return true;
}

/* The contents and the memory reserved, if the unit is still to be split */
static struct precopy_ram *
precopy_layout_begin_split(struct precopy_device *pcd, unsigned long unit,
			   struct precopy_reserve **reserve)
{
	struct precopy_memory *mem = &pcd->memory;

	guard(rwsem_read)(&mem->sem);
	if (!precopy_layout_splittable(mem, unit))
		return NULL;
	*reserve = xa_erase(&mem->tracker->reserve, unit);
	return precopy_ram_get(mem->ram);
}

/* One thread at a time: the second one finds it done, and allocates nothing */
static void precopy_layout_do_split(struct precopy_device *pcd,
				    unsigned long unit)
{
	struct precopy_reserve *reserve;
	struct precopy_ram_unit *spare;
	struct precopy_ram *ram;
	int try = 0;

	guard(mutex)(&pcd->memory.split_mutex);
	ram = precopy_layout_begin_split(pcd, unit, &reserve);
	if (!ram)
		return;
	spare = precopy_ram_spare(ram, false, precopy_reserve_use(reserve),
				  PRECOPY_GFP_EASY);
	while (!precopy_layout_try_split(pcd, ram, unit, spare,
					 ++try == PRECOPY_SPLIT_TRIES))
		usleep_range(20, 100);
	precopy_ram_unit_free(ram, spare);
	precopy_ram_put(ram);
}

/**
 * precopy_layout_split - make a unit fit to be written while it is tracked
 * @pcd: the device
 * @unit: unit number
 * @held: folio that the mm has a reference on for the caller, or NULL
 *
 * Does nothing if it is that already, or is not tracked.
 *
 * Context: a page fault; may sleep, no lock of this driver held.
 */
void precopy_layout_split(struct precopy_device *pcd, unsigned long unit,
			  const struct folio *held)
{
	struct precopy_ram *ram = precopy_layout_hold(pcd, unit, held);

	if (!ram)
		return;
	precopy_layout_do_split(pcd, unit);
	precopy_layout_unhold(pcd, ram, unit, held);
}

/* The contents, if there is reason to get memory for a folio */
static struct precopy_ram *
precopy_layout_begin_collapse(struct precopy_device *pcd, unsigned long unit)
{
	struct precopy_memory *mem = &pcd->memory;

	guard(rwsem_read)(&mem->sem);
	return precopy_layout_collapsible(mem, unit) ?
	       precopy_ram_get(mem->ram) : NULL;
}

/* The spare folio takes the place of the unit's pages, or the other way round */
static void precopy_layout_try_collapse(struct precopy_device *pcd,
					unsigned long unit,
					struct precopy_ram *ram,
					struct precopy_ram_unit *spare)
{
	struct precopy_memory *mem = &pcd->memory;

	guard(rwsem_write)(&mem->sem);
	if (mem->ram != ram || !precopy_layout_collapsible(mem, unit))
		return;
	precopy_memory_zap_unit(pcd, unit);
	if (precopy_ram_swap(ram, unit, spare))
		atomic64_inc(&pcd->stats.collapses);
}

/**
 * precopy_layout_collapse - make a unit one folio
 * @pcd: the device
 * @unit: unit number
 *
 * Does nothing if it is one, is tracked, or has holes; nor if there is no such
 * folio to be had, or somebody has a reference on a page.
 *
 * Context: a page fault; may sleep, no lock of this driver held.
 */
void precopy_layout_collapse(struct precopy_device *pcd, unsigned long unit)
{
	struct precopy_ram_unit *spare;
	struct precopy_ram *ram;

	ram = precopy_layout_begin_collapse(pcd, unit);
	if (!ram)
		return;
	spare = precopy_ram_spare(ram, true, NULL, PRECOPY_GFP_EASY);
	if (spare)
		precopy_layout_try_collapse(pcd, unit, ram, spare);
	precopy_ram_unit_free(ram, spare);
	precopy_ram_put(ram);
}
