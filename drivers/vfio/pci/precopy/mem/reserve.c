// SPDX-License-Identifier: GPL-2.0-only
/* Memory that splits of units will take. */

#include <linux/bitmap.h>
#include <linux/build_bug.h>
#include <linux/cleanup.h>
#include <linux/gfp.h>
#include <linux/log2.h>
#include <linux/math.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/mmdebug.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <kunit/visibility.h>

#include "ram.h"
#include "reserve.h"
#include "units.h"

/*
 * For each unit: its table of single pages, and two pages that are freed for a page table
 * of the VMM's and one of KVM's. The mm and KVM allocate those by themselves when the unit
 * is mapped by small entries, with the OOM killer if need be.
 */
#define PRECOPY_RESERVE_PAGES	3

/* No word of the bitmap is shared by two batches. */
static_assert(PRECOPY_BATCH_UNITS % BITS_PER_LONG == 0);

/* Largest block. One allocation of 2 MiB takes less time than 512 of single pages. */
#define PRECOPY_RESERVE_ORDER	9U

static void precopy_reserve_free_block(struct precopy_reserve_block *block)
{
	while (block->nr)
		__free_page(block->pages + --block->nr);
	kfree(block);
}

static void precopy_reserve_free_blocks(struct list_head *blocks)
{
	struct precopy_reserve_block *block, *next;

	list_for_each_entry_safe(block, next, blocks, list) {
		precopy_reserve_free_block(block);
		cond_resched();
	}
}

/* Return: 0, -EAGAIN if smaller blocks may be had, or -ENOMEM */
static int precopy_reserve_add_block(struct list_head *blocks,
				     unsigned int order)
{
	struct precopy_reserve_block *block = kzalloc_obj(*block, PRECOPY_GFP);

	if (!block)
		return -ENOMEM;
	block->pages = alloc_pages(order ? PRECOPY_GFP_EASY : PRECOPY_GFP,
				   order);
	if (!block->pages) {
		kfree(block);
		return order ? -EAGAIN : -ENOMEM;
	}
	split_page(block->pages, order);
	block->nr = 1U << order;
	list_add(&block->list, blocks);
	return 0;
}

/*
 * As large blocks as there are.
 *
 * Return: 0, or -ENOMEM or -EINTR, and @blocks has what was found until then.
 */
static int precopy_reserve_add_blocks(struct list_head *blocks,
				      unsigned long nr)
{
	unsigned int order, limit = PRECOPY_RESERVE_ORDER;
	int ret;

	while (nr) {
		cond_resched();
		if (fatal_signal_pending(current))
			return -EINTR;
		order = min_t(unsigned int, limit, ilog2(nr));
		ret = precopy_reserve_add_block(blocks, order);
		if (ret == -EAGAIN) {
			limit = order - 1;
			continue;
		}
		if (ret)
			return ret;
		nr -= 1UL << order;
	}
	return 0;
}

/**
 * precopy_reserve_init - initialise a reserve that has nothing
 * @reserve: the reserve; its former contents are ignored
 * @nr_units: number of units of the memory
 *
 * Context: may sleep.
 * Return: 0 or -ENOMEM. After an error @reserve may be passed to
 * precopy_reserve_destroy().
 */
int precopy_reserve_init(struct precopy_reserve *reserve,
			 unsigned long nr_units)
{
	spin_lock_init(&reserve->lock);
	INIT_LIST_HEAD(&reserve->blocks);
	reserve->units = bitmap_zalloc(round_up(nr_units, PRECOPY_BATCH_UNITS),
				       GFP_KERNEL_ACCOUNT);
	return reserve->units ? 0 : -ENOMEM;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_reserve_init);

/**
 * precopy_reserve_destroy - free what was reserved and is not used
 * @reserve: the reserve, after precopy_reserve_init()
 *
 * Context: may sleep; nobody uses it any more. To be called once.
 */
void precopy_reserve_destroy(struct precopy_reserve *reserve)
{
	precopy_reserve_free_blocks(&reserve->blocks);
	bitmap_free(reserve->units);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_reserve_destroy);

/**
 * precopy_reserve_units - reserve the memory that splitting some units will take
 * @reserve: the reserve
 * @first: unit number, a multiple of PRECOPY_BATCH_UNITS
 * @units: bitmap of PRECOPY_BATCH_UNITS bits, the units from @first on
 *
 * Costs nothing for units that have it. The spare unit's pages are not part of it: a
 * split gives as many back.
 *
 * Context: may sleep; no lock of this driver held but arc_mutex.
 * Return: 0; or -ENOMEM, or -EINTR after a fatal signal, with nothing reserved that was
 * not before.
 */
int precopy_reserve_units(struct precopy_reserve *reserve, unsigned long first,
			  const unsigned long *units)
{
	unsigned long *reserved = reserve->units + BIT_WORD(first);
	DECLARE_BITMAP(missing, PRECOPY_BATCH_UNITS);
	LIST_HEAD(blocks);
	unsigned long i;
	int ret;

	bitmap_zero(missing, PRECOPY_BATCH_UNITS);
	/* Splits may use what is reserved meanwhile, if tracking is begun anew */
	for_each_set_bit(i, units, PRECOPY_BATCH_UNITS)
		if (!test_bit(i, reserved))
			__set_bit(i, missing);
	ret = precopy_reserve_add_blocks(&blocks, PRECOPY_RESERVE_PAGES *
			bitmap_weight(missing, PRECOPY_BATCH_UNITS));
	if (ret) {
		precopy_reserve_free_blocks(&blocks);
		return ret;
	}
	scoped_guard(spinlock, &reserve->lock)
		list_splice(&blocks, &reserve->blocks);
	for_each_set_bit(i, missing, PRECOPY_BATCH_UNITS)
		set_bit(i, reserved);
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_reserve_units);

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

static struct page *precopy_reserve_take_page(struct precopy_reserve *reserve)
{
	struct precopy_reserve_block *block;
	struct page *page;

	guard(spinlock)(&reserve->lock);
	VM_WARN_ON_ONCE(list_empty(&reserve->blocks));
	block = list_first_entry(&reserve->blocks, typeof(*block), list);
	page = block->pages + --block->nr;
	if (!block->nr) {
		list_del(&block->list);
		kfree(block);
	}
	return page;
}

/**
 * precopy_reserve_use - use what is reserved for a unit
 * @reserve: the reserve
 * @unit: unit number
 *
 * The mm and KVM may allocate page tables for the unit from now on.
 *
 * Context: process context; memory.sem may be held.
 * Return: a zeroed page, as table for the single pages, for the caller to free; NULL if
 * nothing is reserved.
 */
struct page **precopy_reserve_use(struct precopy_reserve *reserve,
				  unsigned long unit)
{
	struct page *page;
	unsigned int i;

	if (!test_and_clear_bit(unit, reserve->units))
		return NULL;
	for (i = 1; i < PRECOPY_RESERVE_PAGES; i++)
		__free_page(precopy_reserve_take_page(reserve));
	page = precopy_reserve_take_page(reserve);
	clear_page(page_address(page));
	return page_address(page);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_reserve_use);
