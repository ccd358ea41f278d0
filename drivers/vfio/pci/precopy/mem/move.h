/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copying the contents of a unit to other pages while memory.sem is free. Stores of the
 * device and of write() may come meanwhile, and are noted, so that their pages are
 * copied once more with memory.sem held for write. Stores through page table entries and
 * through references cannot be noted: who begins a move ensures that there are no
 * writable entries and no references, and who makes writable ones possible ends it.
 */
#ifndef PRECOPY_MOVE_H
#define PRECOPY_MOVE_H

#include <linux/bitmap.h>

#include "memory.h"

/**
 * precopy_move_begin - begin to note stores to a unit
 * @mem: the memory
 * @unit: unit number, of a unit that has no writable entry
 *
 * Context: split_mutex held, and memory.sem for write.
 */
static inline void precopy_move_begin(struct precopy_memory *mem,
				      unsigned long unit)
{
	lockdep_assert_held_write(&mem->sem);
	bitmap_zero(mem->move.stored, PRECOPY_UNIT_PAGES);
	mem->move.unit = unit;
}

/**
 * precopy_move_store - note a store, if its unit is copied at present
 * @mem: the memory
 * @page: page number in the BAR
 *
 * Context: read section of memory.sem that also contains the store.
 */
static inline void precopy_move_store(struct precopy_memory *mem,
				      unsigned long page)
{
	lockdep_assert_held(&mem->sem);
	if (mem->move.unit == page / PRECOPY_UNIT_PAGES)
		set_bit(page % PRECOPY_UNIT_PAGES, mem->move.stored);
}

/**
 * precopy_move_cancel - let the present move, if any, copy all once more
 * @mem: the memory, of which entries may become writable from now on
 *
 * Context: memory.sem held for write.
 */
static inline void precopy_move_cancel(struct precopy_memory *mem)
{
	lockdep_assert_held_write(&mem->sem);
	mem->move.unit = ULONG_MAX;
}

/**
 * precopy_move_end - end a move
 * @mem: the memory
 * @unit: unit number
 *
 * Context: split_mutex held, and memory.sem for write until the pages of the result
 * are copied.
 * Return: bitmap of the pages that are not, or not any more, as they were copied: all
 * of them if the move was cancelled, or never begun.
 */
static inline const unsigned long *
precopy_move_end(struct precopy_memory *mem, unsigned long unit)
{
	lockdep_assert_held_write(&mem->sem);
	if (mem->move.unit != unit)
		bitmap_fill(mem->move.stored, PRECOPY_UNIT_PAGES);
	mem->move.unit = ULONG_MAX;
	return mem->move.stored;
}

#endif /* PRECOPY_MOVE_H */
