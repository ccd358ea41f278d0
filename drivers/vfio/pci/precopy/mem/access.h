/* SPDX-License-Identifier: GPL-2.0-only */
/* Tests and helpers for accesses to the memory; for the files of mem/ only. */
#ifndef PRECOPY_ACCESS_H
#define PRECOPY_ACCESS_H

#include <linux/errno.h>
#include <linux/lockdep.h>
#include <linux/types.h>

#include "memory.h"

struct page;

int precopy_memory_populate(struct precopy_memory *mem, u64 generation,
			    unsigned long index, gfp_t gfp);
struct page *precopy_memory_page(const struct precopy_memory *mem,
				 unsigned long index);

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

#endif /* PRECOPY_ACCESS_H */
