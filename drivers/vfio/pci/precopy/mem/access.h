/* SPDX-License-Identifier: GPL-2.0-only */
/* Tests and helpers for accesses to the memory; for the files of mem/ only. */
#ifndef PRECOPY_ACCESS_H
#define PRECOPY_ACCESS_H

#include <linux/types.h>

struct page;
struct precopy_memory;

int precopy_memory_populate(struct precopy_memory *mem, u64 generation,
			    unsigned long index, gfp_t gfp);
int precopy_memory_access(const struct precopy_memory *mem);
struct page *precopy_memory_page(const struct precopy_memory *mem,
				 unsigned long index);

#endif /* PRECOPY_ACCESS_H */
