// SPDX-License-Identifier: GPL-2.0-only
/*
 * Memory that splits of units will take, allocated when pre-copy begins: so that
 * lack of memory is known then, and not when a processor of the guest stores to
 * a unit.
 */

#include <linux/cleanup.h>
#include <linux/sched.h>
#include <linux/slab.h>

#include "ram.h"
#include "reserve.h"
#include "units.h"

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
 * precopy_reserve_unit - reserve the memory that splitting a unit will take
 * @reserve: unit number to struct precopy_reserve
 * @unit: unit number
 *
 * The spare unit's pages are not part of it: a split gives as many back.
 *
 * Context: may sleep; no lock of this driver held but arc_mutex.
 * Return: 0 or -ENOMEM.
 */
int precopy_reserve_unit(struct xarray *reserve, unsigned long unit)
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
 * precopy_reserve_free_all - free what was reserved and is not used
 * @reserve: unit number to struct precopy_reserve
 */
void precopy_reserve_free_all(struct xarray *reserve)
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
 * precopy_reserve_try_spare - check whether a unit could be split now
 * @ram: the contents
 *
 * Context: may sleep; no lock of this driver held but arc_mutex.
 * Return: 0 or -ENOMEM.
 */
int precopy_reserve_try_spare(struct precopy_ram *ram)
{
	struct precopy_ram_unit *spare;

	spare = precopy_ram_spare(ram, false, NULL, PRECOPY_GFP);
	precopy_ram_unit_free(ram, spare);
	return spare ? 0 : -ENOMEM;
}

/**
 * precopy_reserve_use - use what is reserved for a unit
 * @reserve: unit number to struct precopy_reserve
 * @unit: unit number
 *
 * The mm and KVM may allocate page tables for the unit from now on.
 *
 * Return: a zeroed table for the single pages, for the caller to free; NULL if
 * nothing is reserved.
 */
struct page **precopy_reserve_use(struct xarray *reserve, unsigned long unit)
{
	struct precopy_reserve *r = xa_erase(reserve, unit);
	struct page **pages;

	if (!r)
		return NULL;
	pages = no_free_ptr(r->pages);
	precopy_reserve_free(r);
	return pages;
}
