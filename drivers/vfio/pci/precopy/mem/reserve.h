/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Memory that splits of units will take: allocated when pre-copy begins, so that
 * lack of memory is known then, and not when a processor of the guest stores to
 * a unit.
 */
#ifndef PRECOPY_RESERVE_H
#define PRECOPY_RESERVE_H

#include <linux/bitops.h>
#include <linux/list.h>
#include <linux/spinlock_types.h>
#include <linux/types.h>

struct page;
struct precopy_ram;

/**
 * struct precopy_reserve_block - pages that follow each other
 * @list: link in struct precopy_reserve
 * @pages: the first of them
 * @nr: number of pages that are left, at least 1. They are single pages, no folio.
 */
struct precopy_reserve_block {
	struct list_head	list;
	struct page		*pages;
	unsigned int		nr;
};

/**
 * struct precopy_reserve - pages for the splits of some units
 * @units: bitmap of the units that were not split yet and have their pages in @blocks;
 *	   as long as a multiple of PRECOPY_BATCH_UNITS
 * @lock: protects @blocks
 * @blocks: list of struct precopy_reserve_block
 *
 * A bit is set after its pages were added, and cleared before they are taken, so
 * @blocks never has too few.
 */
struct precopy_reserve {
	unsigned long		*units;
	spinlock_t		lock;	/* see above */
	struct list_head	blocks;
};

int precopy_reserve_init(struct precopy_reserve *reserve,
			 unsigned long nr_units);
void precopy_reserve_destroy(struct precopy_reserve *reserve);
int precopy_reserve_units(struct precopy_reserve *reserve, unsigned long first,
			  const unsigned long *units);
struct page **precopy_reserve_use(struct precopy_reserve *reserve,
				  unsigned long unit);
int precopy_reserve_try_spare(struct precopy_ram *ram);

/**
 * precopy_reserve_has - check whether memory is reserved for a unit
 * @reserve: the reserve
 * @unit: unit number
 *
 * Return: true from precopy_reserve_units() until precopy_reserve_use().
 */
static inline bool precopy_reserve_has(const struct precopy_reserve *reserve,
				       unsigned long unit)
{
	return test_bit(unit, reserve->units);
}

#endif /* PRECOPY_RESERVE_H */
