/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A set of pages of device memory, such as those that changed since they were last sent.
 *
 * Two levels, so that a pass costs in proportion to what is dirty and not to
 * the size of the device: a bit per page, and above it a bit per unit of
 * PRECOPY_UNIT_PAGES pages that says where to look. A counter answers "how
 * much" without a scan. The bits of pages come in chunks, as they are needed, so
 * that memory too is in proportion to what is used.
 *
 * The bitmap is only half of dirty tracking. That no store is ever lost also
 * needs an order of things at the caller:
 *
 *  - a fault handler marks the page and makes it writable inside one read
 *    section of the rwsem that protects the set;
 *  - a pass takes the bits inside a write section, then protects and cleans
 *    the page table entries, and only then copies the pages. Two walks, one to
 *    protect and one to clean, are not enough: an mprotect() between the two
 *    leaves an entry writable and clean. Do both at once in each entry, at
 *    least to finish with, or repeat the walks until neither changes anything.
 *
 * tests/dirty_kunit.c enumerates what goes wrong in any other order.
 */
#ifndef PRECOPY_DIRTY_H
#define PRECOPY_DIRTY_H

#include <linux/atomic.h>
#include <linux/types.h>

#include "stream.h"

/* Bounds the bitmap to 2 MiB, if there is something in use everywhere. */
#define PRECOPY_DIRTY_MAX_PAGES	(PRECOPY_MAX_MEMORY / PRECOPY_STREAM_PAGE_SIZE)

/* Units in a chunk: 4 KiB of bits, for 128 MiB of device memory */
#define PRECOPY_DIRTY_CHUNK	64UL

/**
 * struct precopy_dirty - two-level bitmap of dirty pages
 * @nr_pages: pages of device memory
 * @nr_units: units of PRECOPY_UNIT_PAGES pages, the last one possibly partial
 * @chunks: a bit per page, in whole units, PRECOPY_DIRTY_CHUNK units each; NULL
 *	    where nobody has asked for room yet. Only added, by cmpxchg.
 * @summary: a bit per unit, set while the unit has a bit in @chunks
 * @count: number of bits set in @chunks
 */
struct precopy_dirty {
	unsigned long nr_pages;
	unsigned long nr_units;
	unsigned long **chunks;
	unsigned long *summary;
	atomic_long_t count;
};

int precopy_dirty_init(struct precopy_dirty *d, unsigned long nr_pages);
void precopy_dirty_destroy(struct precopy_dirty *d);
int precopy_dirty_reserve(struct precopy_dirty *d, unsigned long unit,
			  gfp_t gfp);
bool precopy_dirty_reserved(const struct precopy_dirty *d, unsigned long unit);
bool precopy_dirty_mark(struct precopy_dirty *d, unsigned long page);
void precopy_dirty_fill(struct precopy_dirty *d, unsigned long unit,
			const unsigned long *pages);
const unsigned long *precopy_dirty_unit(const struct precopy_dirty *d,
					unsigned long unit);
bool precopy_dirty_test(const struct precopy_dirty *d, unsigned long page);
unsigned long precopy_dirty_next_unit(const struct precopy_dirty *d,
				      unsigned long from);
unsigned long precopy_dirty_take(struct precopy_dirty *d, unsigned long unit,
				 unsigned long *out);
unsigned long precopy_dirty_count(const struct precopy_dirty *d);

#endif /* PRECOPY_DIRTY_H */
