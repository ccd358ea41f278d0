/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * For kernels built without CONFIG_MAPPING_DIRTY_HELPERS, which no user can turn
 * on by itself; scripts/kdir-build includes it before all else.
 *
 * precopy_tracker_clean() only goes ahead of precopy_tracker_seal(), which finds
 * every entry by itself and makes it read-only and clean. What it goes ahead for
 * is one flush of the TLB for many entries; without it there is one for each.
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
