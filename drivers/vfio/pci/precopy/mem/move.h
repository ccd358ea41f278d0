/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Copying the contents of units to other pages while memory.sem is free. Stores of the
 * device and of write() may come meanwhile, and are noted, so that their pages are
 * copied once more with memory.sem held for write. Stores through page table entries and
 * through references cannot be noted: who begins a move ensures that there are no
 * writable entries and no references. While a unit is tracked, its entries stay
 * read-only, and who makes writable ones possible ends the move. Otherwise they would be
 * writable, so the move is closed: faults wait for its end.
 */
#ifndef PRECOPY_MOVE_H
#define PRECOPY_MOVE_H

#include <linux/bitmap.h>

#include "memory.h"

static inline struct precopy_move *precopy_move_of(struct precopy_memory *mem,
						   unsigned long unit)
{
	return &mem->moves[unit % PRECOPY_MOVES];
}

static inline void precopy_moves_init(struct precopy_memory *mem)
{
	int i;

	for (i = 0; i < PRECOPY_MOVES; i++) {
		mutex_init(&mem->moves[i].lock);
		mem->moves[i].unit = ULONG_MAX;
	}
}

static inline void precopy_moves_destroy(struct precopy_memory *mem)
{
	int i;

	for (i = 0; i < PRECOPY_MOVES; i++)
		mutex_destroy(&mem->moves[i].lock);
}

/**
 * precopy_move_begin - begin to note stores to a unit
 * @mem: the memory
 * @unit: unit number, of a unit that has no writable entry, or no entry if @closed
 * @closed: true if none can be made before the end
 *
 * Context: the unit's move locked, and memory.sem held for write.
 */
static inline void precopy_move_begin(struct precopy_memory *mem,
				      unsigned long unit, bool closed)
{
	struct precopy_move *move = precopy_move_of(mem, unit);

	lockdep_assert_held(&move->lock);
	lockdep_assert_held_write(&mem->sem);
	bitmap_zero(move->stored, PRECOPY_UNIT_PAGES);
	move->unit = unit;
	move->closed = closed;
}

/**
 * precopy_move_closed - check whether a unit must not get a page table entry
 * @mem: the memory
 * @unit: unit number
 *
 * Context: memory.sem held until an entry of the unit is made.
 * Return: true if precopy_layout_wait() has to come first.
 */
static inline bool precopy_move_closed(struct precopy_memory *mem,
				       unsigned long unit)
{
	const struct precopy_move *move = precopy_move_of(mem, unit);

	lockdep_assert_held(&mem->sem);
	return move->unit == unit && move->closed;
}

/**
 * precopy_move_begun - check that a move was not cancelled
 * @mem: the memory
 * @unit: unit number
 *
 * Context: the unit's move locked, and memory.sem held.
 * Return: true if it is under way.
 */
static inline bool precopy_move_begun(struct precopy_memory *mem,
				      unsigned long unit)
{
	const struct precopy_move *move = precopy_move_of(mem, unit);

	lockdep_assert_held(&move->lock);
	lockdep_assert_held(&mem->sem);
	return move->unit == unit;
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
	unsigned long unit = page / PRECOPY_UNIT_PAGES;
	struct precopy_move *move = precopy_move_of(mem, unit);

	lockdep_assert_held(&mem->sem);
	if (move->unit == unit)
		set_bit(page % PRECOPY_UNIT_PAGES, move->stored);
}

/**
 * precopy_move_cancel - let the copy of a unit be made once more
 * @mem: the memory
 * @unit: unit number
 *
 * Context: memory.sem held for write.
 */
static inline void precopy_move_cancel(struct precopy_memory *mem,
				       unsigned long unit)
{
	lockdep_assert_held_write(&mem->sem);
	precopy_move_of(mem, unit)->unit = ULONG_MAX;
}

/**
 * precopy_moves_cancel - let all copies that are under way be made once more
 * @mem: the memory, of which entries may become writable from now on
 *
 * Context: memory.sem held for write.
 */
static inline void precopy_moves_cancel(struct precopy_memory *mem)
{
	unsigned long unit;

	for (unit = 0; unit < PRECOPY_MOVES; unit++)
		precopy_move_cancel(mem, unit);
}

/**
 * precopy_move_end - end a move
 * @mem: the memory
 * @unit: unit number
 *
 * Context: the unit's move locked, and memory.sem held for write until the pages of the
 * result are copied.
 * Return: bitmap of the pages that are not, or not any more, as they were copied: all
 * of them if the move was cancelled, or never begun.
 */
static inline const unsigned long *
precopy_move_end(struct precopy_memory *mem, unsigned long unit)
{
	struct precopy_move *move = precopy_move_of(mem, unit);

	lockdep_assert_held(&move->lock);
	lockdep_assert_held_write(&mem->sem);
	if (move->unit != unit)
		bitmap_fill(move->stored, PRECOPY_UNIT_PAGES);
	move->unit = ULONG_MAX;
	return move->stored;
}

#endif /* PRECOPY_MOVE_H */
