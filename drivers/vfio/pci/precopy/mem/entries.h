/* SPDX-License-Identifier: GPL-2.0-only */
/* The page table entries that map the BAR: removing and write-protecting them. */
#ifndef PRECOPY_ENTRIES_H
#define PRECOPY_ENTRIES_H

#include <linux/bitops.h>
#include <linux/lockdep.h>
#include <linux/types.h>

#include "memory.h"

void precopy_entries_init(struct precopy_memory *mem);
void precopy_entries_remove(struct precopy_memory *mem);
void precopy_entries_revoke(struct precopy_memory *mem);
void precopy_entries_settle(struct precopy_memory *mem, unsigned long unit);
void precopy_entries_remove_unit(struct precopy_memory *mem,
				 unsigned long unit);
void precopy_entries_protect(struct precopy_memory *mem, unsigned long unit,
			     const unsigned long *pages);

/**
 * precopy_entries_sem - lock that orders the making of a unit's entries
 * @mem: the memory
 * @unit: unit number
 *
 * Return: the unit's entry_sem, see struct precopy_memory.
 */
static inline struct rw_semaphore *
precopy_entries_sem(struct precopy_memory *mem, unsigned long unit)
{
	return &mem->entry_sem[unit % PRECOPY_ENTRY_SEMS];
}

/**
 * precopy_entries_revoked - check whether entries of a unit may map what is gone
 * @mem: the memory
 * @unit: unit number
 *
 * Context: memory.sem held until an entry of the unit is made.
 * Return: true if precopy_entries_settle() has to come first; false if the device is
 * closed, or was opened again with less memory.
 */
static inline bool
precopy_entries_revoked(const struct precopy_memory *mem, unsigned long unit)
{
	lockdep_assert_held(&mem->sem);
	return mem->revoked && unit < precopy_memory_nr_units(mem) &&
	       test_bit(unit, mem->revoked);
}

#endif /* PRECOPY_ENTRIES_H */
