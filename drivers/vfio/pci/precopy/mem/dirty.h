/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A set of pages of device memory, such as those that changed since they were
 * last sent.
 *
 * The set is a bitmap of two levels, so that the cost of a pass is proportional
 * to the number of dirty pages and not to the size of the device: one bit a
 * page, and one bit a unit of PRECOPY_UNIT_PAGES pages, which is set while the
 * unit has a dirty page. A counter has the size of the set without a scan. The
 * bits of pages are allocated in chunks on demand, so that the memory of the
 * bitmap is proportional to the device memory in use.
 *
 * The bitmap alone does not make dirty tracking exact. Its users rely on this
 * order of operations:
 *
 *  - a fault handler marks the page and makes its entry writable inside one read
 *    section of the rwsem that protects the set;
 *  - a pass takes the bits inside a write section, then write-protects and cleans
 *    the page table entries, and only then copies the pages. One walk that
 *    protects and one that cleans do not suffice, because an mprotect() between
 *    the two leaves an entry writable and clean. At least the last walk has to
 *    change both bits of an entry at once.
 *
 * tests/dirty_kunit.c enumerates the stores that any other order loses.
 */
#ifndef PRECOPY_DIRTY_H
#define PRECOPY_DIRTY_H

#include <linux/atomic.h>
#include <linux/bitops.h>
#include <linux/compiler.h>
#include <linux/types.h>

#include "units.h"

/* Limits the bitmap to 2 MiB, if every unit of the largest device is in use. */
#define PRECOPY_DIRTY_MAX_PAGES	(PRECOPY_MAX_MEMORY / PRECOPY_STREAM_PAGE_SIZE)

/* Units in a chunk: 4 KiB of bits, for 128 MiB of device memory */
#define PRECOPY_DIRTY_CHUNK	64UL

/**
 * struct precopy_dirty - two-level bitmap of dirty pages
 * @nr_pages: pages of device memory
 * @nr_units: units of PRECOPY_UNIT_PAGES pages, the last one possibly partial
 * @chunks: bitmaps of pages, PRECOPY_DIRTY_CHUNK units each; NULL where
 *	    precopy_dirty_reserve() was not called. Entries are only added, by
 *	    cmpxchg().
 * @whole: bitmap of units of which all pages are in the set, although they have no bit in
 *	   @chunks. Bits are set before the bitmap is published, and cleared by
 *	   precopy_dirty_take().
 * @summary: bitmap of units, set while the unit has a bit in @chunks or @whole
 * @count: number of pages in the set
 */
struct precopy_dirty {
	unsigned long nr_pages;
	unsigned long nr_units;
	unsigned long **chunks;
	unsigned long *whole;
	unsigned long *summary;
	atomic_long_t count;
};

int precopy_dirty_init(struct precopy_dirty *d, unsigned long nr_pages);
void precopy_dirty_destroy(struct precopy_dirty *d);
int precopy_dirty_reserve(struct precopy_dirty *d, unsigned long unit,
			  gfp_t gfp);
bool precopy_dirty_mark(struct precopy_dirty *d, unsigned long page);
void precopy_dirty_fill(struct precopy_dirty *d, unsigned long unit,
			const unsigned long *pages);
void precopy_dirty_fill_whole(struct precopy_dirty *d, unsigned long unit);
const unsigned long *precopy_dirty_unit(const struct precopy_dirty *d,
					unsigned long unit);
unsigned long precopy_dirty_next_unit(const struct precopy_dirty *d,
				      unsigned long from);
unsigned long precopy_dirty_nr_whole(const struct precopy_dirty *d);
unsigned long precopy_dirty_next_partial(const struct precopy_dirty *d,
					 unsigned long from);
unsigned long precopy_dirty_take(struct precopy_dirty *d, unsigned long unit,
				 unsigned long *out);
unsigned long precopy_dirty_count(const struct precopy_dirty *d);

/* Words of the bits of a unit; no word is shared by two */
#define PRECOPY_UNIT_LONGS	BITS_TO_LONGS(PRECOPY_UNIT_PAGES)

/* The bits of a unit, or NULL if they are not allocated yet */
static inline unsigned long *
precopy_dirty_words(const struct precopy_dirty *d, unsigned long unit)
{
	unsigned long *chunk;

	/* Pairs with the cmpxchg() of precopy_dirty_reserve() */
	chunk = READ_ONCE(d->chunks[unit / PRECOPY_DIRTY_CHUNK]);
	if (!chunk)
		return NULL;
	return chunk + unit % PRECOPY_DIRTY_CHUNK * PRECOPY_UNIT_LONGS;
}

/**
 * precopy_dirty_reserved - check whether the bits of a unit are allocated
 * @d: bitmap
 * @unit: unit number, below nr_units
 *
 * Context: any.
 * Return: true if so. The result never changes back to false.
 */
static inline bool precopy_dirty_reserved(const struct precopy_dirty *d,
					  unsigned long unit)
{
	return precopy_dirty_words(d, unit);
}

/**
 * precopy_dirty_test - check whether a page is dirty
 * @d: bitmap
 * @page: page number
 *
 * Context: any; a snapshot unless the caller excludes marks and takes.
 * Return: true if @page is marked; false if not, or if there is no such page.
 */
static inline bool precopy_dirty_test(const struct precopy_dirty *d,
				      unsigned long page)
{
	unsigned long unit = page / PRECOPY_UNIT_PAGES;
	const unsigned long *words;

	if (page >= d->nr_pages || !test_bit(unit, d->summary))
		return false;
	if (test_bit(unit, d->whole))
		return true;
	/* NULL is possible only without the lock: nothing orders the two reads */
	words = precopy_dirty_words(d, unit);
	return words && test_bit(page % PRECOPY_UNIT_PAGES, words);
}

#endif /* PRECOPY_DIRTY_H */
