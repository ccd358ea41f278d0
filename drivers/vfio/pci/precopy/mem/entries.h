/* SPDX-License-Identifier: GPL-2.0-only */
/* The page table entries that map the BAR: removing and write-protecting them. */
#ifndef PRECOPY_ENTRIES_H
#define PRECOPY_ENTRIES_H

#include <linux/types.h>

struct precopy_memory;
struct rw_semaphore;

void precopy_entries_init(struct precopy_memory *mem);
struct rw_semaphore *precopy_entries_sem(struct precopy_memory *mem,
					 unsigned long unit);
void precopy_entries_remove(struct precopy_memory *mem);
void precopy_entries_revoke(struct precopy_memory *mem);
bool precopy_entries_revoked(const struct precopy_memory *mem,
			     unsigned long unit);
void precopy_entries_settle(struct precopy_memory *mem, unsigned long unit);
void precopy_entries_remove_unit(struct precopy_memory *mem,
				 unsigned long unit);
void precopy_entries_protect(struct precopy_memory *mem, unsigned long unit,
			     const unsigned long *pages);

#endif /* PRECOPY_ENTRIES_H */
