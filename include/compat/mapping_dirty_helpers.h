/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Replacements that do nothing, for kernels built without CONFIG_MAPPING_DIRTY_HELPERS,
 * an option that a user cannot enable alone, and for those where mapping_wrprotect_range.h
 * is in use.
 *
 * precopy_entries_clean() is an optimisation. precopy_entries_seal(), which runs after
 * it, makes every entry read-only and clean by itself, but flushes the TLB for each
 * entry that it changes. The functions replaced here let precopy_entries_clean() change
 * most entries before, with one flush for many of them.
 */
#ifndef _PRECOPY_COMPAT_MAPPING_DIRTY_HELPERS_H
#define _PRECOPY_COMPAT_MAPPING_DIRTY_HELPERS_H

#include <linux/mm.h>

static inline unsigned long
precopy_compat_wp_shared(struct address_space *mapping, pgoff_t first_index,
			 pgoff_t nr)
{
	return 0;
}

#define wp_shared_mapping_range precopy_compat_wp_shared

static inline unsigned long
precopy_compat_clean_shared(struct address_space *mapping, pgoff_t first_index,
			    pgoff_t nr, pgoff_t bitmap_pgoff,
			    unsigned long *bitmap, pgoff_t *start, pgoff_t *end)
{
	return 0;
}

#define clean_record_shared_mapping_range precopy_compat_clean_shared

#endif /* _PRECOPY_COMPAT_MAPPING_DIRTY_HELPERS_H */
