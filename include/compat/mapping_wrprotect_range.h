/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * mapping_wrprotect_range() for kernels such as 6.12: the entries are removed instead of
 * write-protected.
 *
 * That is exact: a store needs an entry, and so a page fault, which marks the page. Loads
 * fault again as well, which is what it costs. wp_shared_mapping_range() and
 * clean_record_shared_mapping_range() cannot do it, although such kernels have them: between
 * the two an entry is read-only but dirty, and the mm may make such an entry writable
 * without a fault. Before the removal they would be a waste.
 */
#ifndef _PRECOPY_COMPAT_MAPPING_WRPROTECT_RANGE_H
#define _PRECOPY_COMPAT_MAPPING_WRPROTECT_RANGE_H

#include <linux/mm.h>
#include <linux/rmap.h>

#include "mapping_dirty_helpers.h"

/* Returns 0: the driver does not use the number of entries. All TLBs are flushed. */
static inline int
precopy_compat_wrprotect_range(struct address_space *mapping, pgoff_t pgoff,
			       unsigned long pfn, unsigned long nr_pages)
{
	unmap_mapping_range(mapping, (loff_t)pgoff << PAGE_SHIFT,
			    (loff_t)nr_pages << PAGE_SHIFT, true);
	return 0;
}

#define mapping_wrprotect_range precopy_compat_wrprotect_range

#endif /* _PRECOPY_COMPAT_MAPPING_WRPROTECT_RANGE_H */
