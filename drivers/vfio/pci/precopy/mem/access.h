/* SPDX-License-Identifier: GPL-2.0-only */
/* Tests and helpers for accesses to the memory; for the files of mem/ only. */
#ifndef PRECOPY_ACCESS_H
#define PRECOPY_ACCESS_H

#include <linux/errno.h>
#include <linux/lockdep.h>
#include <linux/types.h>

#include "memory.h"
#include "ram.h"

int precopy_memory_populate(struct precopy_memory *mem, u64 generation,
			    unsigned long index, gfp_t gfp);

/**
 * precopy_memory_access - check whether the user may touch the memory
 * @mem: the memory
 *
 * Context: memory.sem held.
 * Return: 0, -EAGAIN if not before the startup completes, -EIO if not at all.
 */
static inline int precopy_memory_access(const struct precopy_memory *mem)
{
	lockdep_assert_held(&mem->sem);
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
static inline struct page *
precopy_memory_page(const struct precopy_memory *mem, unsigned long index)
{
	lockdep_assert_held(&mem->sem);
	return mem->ram ? precopy_ram_page(mem->ram, index) : NULL;
}

#endif /* PRECOPY_ACCESS_H */
