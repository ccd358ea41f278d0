/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Replacements for kernels built without CONFIG_MAPPING_DIRTY_HELPERS, an option that
 * a user cannot enable alone. scripts/kdir-build includes this file first.
 *
 * precopy_entries_clean() is an optimisation. precopy_entries_seal(), which runs after
 * it, makes every entry read-only and clean by itself, but flushes the TLB for each
 * entry that it changes. The functions replaced here let precopy_entries_clean() change
 * most entries before, with one flush for many of them.
 */
#ifndef _PRECOPY_COMPAT_MAPPING_DIRTY_HELPERS_H
#define _PRECOPY_COMPAT_MAPPING_DIRTY_HELPERS_H

#include <linux/types.h>

struct address_space;

#ifndef CONFIG_MAPPING_DIRTY_HELPERS
static inline unsigned long
wp_shared_mapping_range(struct address_space *mapping, pgoff_t first_index,
			pgoff_t nr)
{
	return 0;
}

static inline unsigned long
clean_record_shared_mapping_range(struct address_space *mapping,
				  pgoff_t first_index, pgoff_t nr,
				  pgoff_t bitmap_pgoff, unsigned long *bitmap,
				  pgoff_t *start, pgoff_t *end)
{
	return 0;
}
#endif

#endif /* _PRECOPY_COMPAT_MAPPING_DIRTY_HELPERS_H */
