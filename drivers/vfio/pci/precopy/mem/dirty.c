// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two-level bitmap: a set of pages of device memory
 */

#include <linux/bitmap.h>
#include <linux/bitops.h>
#include <linux/bug.h>
#include <linux/errno.h>
#include <linux/math.h>
#include <linux/minmax.h>
#include <linux/mmdebug.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <kunit/visibility.h>

#include "dirty.h"

/* No word of the map is shared by two units. */
static_assert(PRECOPY_UNIT_PAGES % BITS_PER_LONG == 0);

static unsigned long precopy_dirty_nr_chunks(const struct precopy_dirty *d)
{
	return DIV_ROUND_UP(d->nr_units, PRECOPY_DIRTY_CHUNK);
}

/**
 * precopy_dirty_init - initialise an empty bitmap
 * @d: bitmap; its former contents are ignored
 * @nr_pages: pages to track, 1 to PRECOPY_DIRTY_MAX_PAGES
 *
 * The memory is charged to the current (or active) memory cgroup.
 *
 * Context: may sleep.
 * Return: 0, -EINVAL if @nr_pages is out of range, or -ENOMEM. After an error
 * @d may be passed to precopy_dirty_destroy().
 */
int precopy_dirty_init(struct precopy_dirty *d, unsigned long nr_pages)
{
	memset(d, 0, sizeof(*d));
	if (!nr_pages || nr_pages > PRECOPY_DIRTY_MAX_PAGES)
		return -EINVAL;

	d->nr_units = DIV_ROUND_UP(nr_pages, PRECOPY_UNIT_PAGES);
	d->chunks = kcalloc(precopy_dirty_nr_chunks(d), sizeof(*d->chunks),
			    GFP_KERNEL_ACCOUNT);
	d->whole = bitmap_zalloc(d->nr_units, GFP_KERNEL_ACCOUNT);
	d->summary = bitmap_zalloc(d->nr_units, GFP_KERNEL_ACCOUNT);
	if (!d->chunks || !d->whole || !d->summary) {
		precopy_dirty_destroy(d);
		return -ENOMEM;
	}
	d->nr_pages = nr_pages;
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_init);

/**
 * precopy_dirty_destroy - free a bitmap
 * @d: bitmap, or a zeroed struct
 *
 * @d is zeroed, so that a second call does nothing. The caller ensures that the
 * bitmap is not in use.
 *
 * Context: may sleep.
 */
void precopy_dirty_destroy(struct precopy_dirty *d)
{
	unsigned long i;

	for (i = 0; d->chunks && i < precopy_dirty_nr_chunks(d); i++)
		kfree(d->chunks[i]);
	bitmap_free(d->summary);
	bitmap_free(d->whole);
	kfree(d->chunks);
	memset(d, 0, sizeof(*d));
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_destroy);

/**
 * precopy_dirty_reserve - allocate the bits of a unit
 * @d: bitmap
 * @unit: unit number, below nr_units
 * @gfp: allocation flags
 *
 * The bits stay allocated, so that marks cannot fail. The memory is charged to
 * the current (or active) memory cgroup.
 *
 * Context: may sleep if @gfp does; calls may run in parallel.
 * Return: 0 or -ENOMEM.
 */
int precopy_dirty_reserve(struct precopy_dirty *d, unsigned long unit,
			  gfp_t gfp)
{
	unsigned long first = round_down(unit, PRECOPY_DIRTY_CHUNK);
	unsigned long nr = min(d->nr_units - first, PRECOPY_DIRTY_CHUNK);
	unsigned long *chunk;

	if (precopy_dirty_words(d, unit))
		return 0;
	chunk = kcalloc(nr * PRECOPY_UNIT_LONGS, sizeof(long), gfp);
	if (!chunk)
		return -ENOMEM;
	if (cmpxchg(&d->chunks[unit / PRECOPY_DIRTY_CHUNK], NULL, chunk))
		kfree(chunk);
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_reserve);

/**
 * precopy_dirty_mark - add a page to the set
 * @d: bitmap
 * @page: page number, below nr_pages, of a reserved unit that is not in the set as
 *	  a whole
 *
 * Calls may run in parallel. The caller holds the set's rwsem for read, from
 * before the mark until the page is writable.
 *
 * The bit of the page is set before that of the unit, and precopy_dirty_take()
 * clears them in the opposite order. A reader that holds no lock may therefore
 * find a unit without pages, but never a page without its unit.
 *
 * Context: any.
 * Return: true if the page was clean before.
 */
bool precopy_dirty_mark(struct precopy_dirty *d, unsigned long page)
{
	unsigned long unit = page / PRECOPY_UNIT_PAGES;
	unsigned long *words;

	if (WARN_ON_ONCE(page >= d->nr_pages))
		return false;
	words = precopy_dirty_words(d, unit);
	if (WARN_ON_ONCE(!words))
		return false;
	VM_WARN_ON_ONCE(test_bit(unit, d->whole));
	if (test_and_set_bit(page % PRECOPY_UNIT_PAGES, words))
		return false;

	/* Most marks are not the first one of their unit */
	if (!test_bit(unit, d->summary))
		set_bit(unit, d->summary);
	atomic_long_inc(&d->count);
	return true;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_mark);

/**
 * precopy_dirty_fill - add several pages of an empty unit to the set
 * @d: bitmap that is not published yet
 * @unit: number of a reserved unit, below nr_units
 * @pages: bitmap of PRECOPY_UNIT_PAGES bits, the pages to add; no bit past the
 *	end of a partial last unit
 *
 * Context: any; the caller excludes marks and takes.
 */
void precopy_dirty_fill(struct precopy_dirty *d, unsigned long unit,
			const unsigned long *pages)
{
	unsigned long nr = bitmap_weight(pages, PRECOPY_UNIT_PAGES);
	unsigned long *words;

	if (WARN_ON_ONCE(unit >= d->nr_units) || !nr)
		return;
	words = precopy_dirty_words(d, unit);
	if (WARN_ON_ONCE(!words))
		return;
	bitmap_copy(words, pages, PRECOPY_UNIT_PAGES);
	__set_bit(unit, d->summary);
	atomic_long_add(nr, &d->count);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_fill);

/**
 * precopy_dirty_fill_whole - add all pages of an empty unit to the set
 * @d: bitmap that is not published yet
 * @unit: number of a reserved unit, which is not a partial last one
 *
 * Costs the same for 512 pages as for one.
 *
 * Context: any; the caller excludes marks and takes.
 */
void precopy_dirty_fill_whole(struct precopy_dirty *d, unsigned long unit)
{
	if (WARN_ON_ONCE(unit >= d->nr_pages / PRECOPY_UNIT_PAGES) ||
	    WARN_ON_ONCE(!precopy_dirty_words(d, unit)))
		return;
	__set_bit(unit, d->whole);
	__set_bit(unit, d->summary);
	atomic_long_add(PRECOPY_UNIT_PAGES, &d->count);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_fill_whole);

static const unsigned long precopy_dirty_all[PRECOPY_UNIT_LONGS] = {
	[0 ... PRECOPY_UNIT_LONGS - 1] = ~0UL,
};

/**
 * precopy_dirty_unit - get the dirty pages of a unit
 * @d: bitmap
 * @unit: unit number, below nr_units
 *
 * Context: any; a snapshot unless the caller excludes marks and takes.
 * Return: bitmap of PRECOPY_UNIT_PAGES bits, or NULL if the unit is not reserved.
 */
const unsigned long *precopy_dirty_unit(const struct precopy_dirty *d,
					unsigned long unit)
{
	return test_bit(unit, d->whole) ? precopy_dirty_all :
					  precopy_dirty_words(d, unit);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_unit);

/**
 * precopy_dirty_next_unit - find a unit with dirty pages
 * @d: bitmap
 * @from: unit to start from
 *
 * Context: any; a snapshot unless the caller excludes marks and takes.
 * Return: the first such unit at or after @from, nr_units if there is none.
 */
unsigned long precopy_dirty_next_unit(const struct precopy_dirty *d,
				      unsigned long from)
{
	return find_next_bit(d->summary, d->nr_units, from);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_next_unit);

/**
 * precopy_dirty_nr_whole - count the units that were filled as a whole
 * @d: bitmap
 *
 * Context: any; a snapshot unless the caller excludes takes.
 * Return: number of units that precopy_dirty_fill_whole() added and that are still in
 * the set.
 */
unsigned long precopy_dirty_nr_whole(const struct precopy_dirty *d)
{
	return bitmap_weight(d->whole, d->nr_units);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_nr_whole);

/**
 * precopy_dirty_next_partial - find a unit that was not filled as a whole
 * @d: bitmap
 * @from: unit to start from
 *
 * Context: any; a snapshot unless the caller excludes marks and takes.
 * Return: the first unit with dirty pages, at or after @from, that
 * precopy_dirty_nr_whole() does not count; nr_units if there is none.
 */
unsigned long precopy_dirty_next_partial(const struct precopy_dirty *d,
					 unsigned long from)
{
	return find_next_andnot_bit(d->summary, d->whole, d->nr_units, from);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_next_partial);

/* Move the bits of a unit to @out, and return their number */
static unsigned long precopy_dirty_take_words(unsigned long *words,
					      unsigned long *out)
{
	unsigned long taken = 0;
	unsigned int i;

	for (i = 0; i < PRECOPY_UNIT_LONGS; i++) {
		out[i] = xchg(&words[i], 0);
		taken += hweight_long(out[i]);
	}
	return taken;
}

/**
 * precopy_dirty_take - move the dirty pages of a unit out of the bitmap
 * @d: bitmap
 * @unit: unit number, below nr_units
 * @out: bitmap of PRECOPY_UNIT_PAGES bits that receives the pages; all bits are
 *	written, including those past the end of a partial last unit
 *
 * The caller holds the set's rwsem for write, and write-protects the pages before
 * it reads their contents.
 *
 * Context: any.
 * Return: the number of pages taken.
 */
unsigned long precopy_dirty_take(struct precopy_dirty *d, unsigned long unit,
				 unsigned long *out)
{
	unsigned long *words = NULL, taken;

	if (!WARN_ON_ONCE(unit >= d->nr_units))
		words = precopy_dirty_words(d, unit);
	if (!words) {
		bitmap_zero(out, PRECOPY_UNIT_PAGES);
		return 0;
	}

	clear_bit(unit, d->summary);
	/* Pairs with the fully ordered test_and_set_bit() of a mark. */
	smp_mb__after_atomic();
	if (test_and_clear_bit(unit, d->whole)) {
		bitmap_fill(out, PRECOPY_UNIT_PAGES);
		taken = PRECOPY_UNIT_PAGES;
	} else {
		taken = precopy_dirty_take_words(words, out);
	}
	atomic_long_sub(taken, &d->count);
	return taken;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_take);

/**
 * precopy_dirty_count - count the dirty pages
 * @d: bitmap
 *
 * Context: any, without a lock; exact while the caller excludes marks and takes.
 * Return: number of pages.
 */
unsigned long precopy_dirty_count(const struct precopy_dirty *d)
{
	/* A mark raises the count last, so a take may lower it first. */
	return max(atomic_long_read(&d->count), 0L);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_count);
