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
#include <linux/slab.h>
#include <linux/string.h>
#include <kunit/visibility.h>

#include "dirty.h"

#define UNIT_LONGS	BITS_TO_LONGS(PRECOPY_UNIT_PAGES)

/* No word of the map is shared by two units. */
static_assert(PRECOPY_UNIT_PAGES % BITS_PER_LONG == 0);

static unsigned long precopy_dirty_nr_chunks(const struct precopy_dirty *d)
{
	return DIV_ROUND_UP(d->nr_units, PRECOPY_DIRTY_CHUNK);
}

/**
 * precopy_dirty_init - make a clean bitmap
 * @d: bitmap to set up; its former contents are ignored
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
	d->summary = kcalloc(BITS_TO_LONGS(d->nr_units), sizeof(long),
			     GFP_KERNEL_ACCOUNT);
	if (!d->chunks || !d->summary) {
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
 * Leaves @d zeroed: a second call does nothing. The caller has made sure that
 * nobody uses the bitmap any more.
 *
 * Context: may sleep.
 */
void precopy_dirty_destroy(struct precopy_dirty *d)
{
	unsigned long i;

	for (i = 0; d->chunks && i < precopy_dirty_nr_chunks(d); i++)
		kfree(d->chunks[i]);
	kfree(d->summary);
	kfree(d->chunks);
	memset(d, 0, sizeof(*d));
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_destroy);

/* The bits of a unit, or NULL if there is no room for them yet */
static unsigned long *precopy_dirty_words(const struct precopy_dirty *d,
					  unsigned long unit)
{
	unsigned long *chunk;

	/* Pairs with the cmpxchg() of precopy_dirty_reserve() */
	chunk = READ_ONCE(d->chunks[unit / PRECOPY_DIRTY_CHUNK]);
	if (!chunk)
		return NULL;
	return chunk + unit % PRECOPY_DIRTY_CHUNK * UNIT_LONGS;
}

/**
 * precopy_dirty_reserve - make room for marks in a unit
 * @d: bitmap
 * @unit: unit number, below nr_units
 * @gfp: how hard to try
 *
 * Once there is room it stays, so that marks cannot fail. The memory is charged
 * to the current (or active) memory cgroup.
 *
 * Context: may sleep if @gfp does; any number of callers at once.
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
	chunk = kcalloc(nr * UNIT_LONGS, sizeof(long), gfp);
	if (!chunk)
		return -ENOMEM;
	if (cmpxchg(&d->chunks[unit / PRECOPY_DIRTY_CHUNK], NULL, chunk))
		kfree(chunk);
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_reserve);

/**
 * precopy_dirty_reserved - is there room for marks in a unit?
 * @d: bitmap
 * @unit: unit number, below nr_units
 *
 * Context: any.
 * Return: true if so; it will not change back.
 */
bool precopy_dirty_reserved(const struct precopy_dirty *d, unsigned long unit)
{
	return precopy_dirty_words(d, unit);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_reserved);

/**
 * precopy_dirty_mark - note that a page changes
 * @d: bitmap
 * @page: page number, below nr_pages, of a unit that has room
 *
 * Marks may run in parallel with each other. Callers hold the set's rwsem
 * for read, from before the mark until the page can be written.
 *
 * The page's bit comes before the summary's, and precopy_dirty_take() clears
 * them in the opposite order: so even a reader that is not excluded finds, at
 * worst, a unit without pages, never a page without its unit.
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
	if (test_and_set_bit(page % PRECOPY_UNIT_PAGES, words))
		return false;

	set_bit(unit, d->summary);
	atomic_long_inc(&d->count);
	return true;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_mark);

/**
 * precopy_dirty_fill - mark pages of a unit that has no dirty page
 * @d: bitmap that nobody else uses yet
 * @unit: unit number, below nr_units, that has room
 * @pages: bitmap of PRECOPY_UNIT_PAGES bits: the pages to mark; none past the
 *	end of a partial last unit
 *
 * Context: any; no mark or take at the same time.
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
 * precopy_dirty_unit - the dirty pages of a unit
 * @d: bitmap
 * @unit: unit number, below nr_units
 *
 * Context: any; a snapshot unless the caller excludes marks and takes.
 * Return: bitmap of PRECOPY_UNIT_PAGES bits, or NULL if there never was one.
 */
const unsigned long *precopy_dirty_unit(const struct precopy_dirty *d,
					unsigned long unit)
{
	return precopy_dirty_words(d, unit);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_unit);

/**
 * precopy_dirty_test - is this page dirty?
 * @d: bitmap
 * @page: page number
 *
 * Context: any; a snapshot unless the caller excludes marks and takes.
 * Return: true if @page is marked; false too if there is no such page.
 */
bool precopy_dirty_test(const struct precopy_dirty *d, unsigned long page)
{
	const unsigned long *words;

	if (page >= d->nr_pages)
		return false;
	words = precopy_dirty_words(d, page / PRECOPY_UNIT_PAGES);
	return words && test_bit(page % PRECOPY_UNIT_PAGES, words);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_test);

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
 * precopy_dirty_take - move the dirty pages of a unit out of the bitmap
 * @d: bitmap
 * @unit: unit number, below nr_units
 * @out: bitmap of PRECOPY_UNIT_PAGES bits that receives them; every bit of it
 *	is written, also past the end of a partial last unit
 *
 * The caller holds the set's rwsem for write, and protects the pages before
 * it looks at their contents.
 *
 * Context: any.
 * Return: the number of pages taken.
 */
unsigned long precopy_dirty_take(struct precopy_dirty *d, unsigned long unit,
				 unsigned long *out)
{
	unsigned long *words = NULL, taken = 0;
	unsigned int i;

	if (!WARN_ON_ONCE(unit >= d->nr_units))
		words = precopy_dirty_words(d, unit);
	if (!words) {
		bitmap_zero(out, PRECOPY_UNIT_PAGES);
		return 0;
	}

	clear_bit(unit, d->summary);
	/* Pairs with the fully ordered test_and_set_bit() of a mark. */
	smp_mb__after_atomic();
	for (i = 0; i < UNIT_LONGS; i++) {
		out[i] = xchg(&words[i], 0);
		taken += hweight_long(out[i]);
	}
	atomic_long_sub(taken, &d->count);
	return taken;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_take);

/**
 * precopy_dirty_count - how many pages are dirty?
 * @d: bitmap
 *
 * Context: any, lock free; exact while the caller excludes marks and takes.
 * Return: number of pages.
 */
unsigned long precopy_dirty_count(const struct precopy_dirty *d)
{
	/* A mark raises the count last, so a racing take can get ahead of it. */
	return max(atomic_long_read(&d->count), 0L);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_dirty_count);
