// SPDX-License-Identifier: GPL-2.0-only
/* The memory that splits of units take: as much as was reserved, for whom it was. */

#include <kunit/test.h>
#include <linux/bitmap.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/string.h>

#include "../mem/ram.h"
#include "../mem/reserve.h"

#define FIRST		PRECOPY_BATCH_UNITS

struct reserve_test {
	struct precopy_reserve reserve;
	DECLARE_BITMAP(units, PRECOPY_BATCH_UNITS);
};

static int reserve_test_init(struct kunit *test)
{
	struct reserve_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, t);
	test->priv = t;
	return precopy_reserve_init(&t->reserve, 2 * PRECOPY_BATCH_UNITS);
}

static void reserve_test_exit(struct kunit *test)
{
	struct reserve_test *t = test->priv;

	if (t)
		precopy_reserve_destroy(&t->reserve);
}

/* All pages, with something in them that a table must not have */
static void reserve_wanted(struct kunit *test)
{
	struct reserve_test *t = test->priv;
	struct precopy_reserve_block *block;

	KUNIT_ASSERT_EQ(test, 0, precopy_reserve_units(&t->reserve, FIRST, t->units));
	list_for_each_entry(block, &t->reserve.blocks, list)
		memset(page_address(block->pages), 0xff, block->nr * PAGE_SIZE);
}

static void reserve_some(struct kunit *test, unsigned int nr)
{
	struct reserve_test *t = test->priv;

	bitmap_zero(t->units, PRECOPY_BATCH_UNITS);
	bitmap_set(t->units, 0, nr);
	reserve_wanted(test);
}

/* A table is a zeroed page, and nobody else's */
static void use_one(struct kunit *test, unsigned long unit)
{
	struct reserve_test *t = test->priv;
	struct page **table = precopy_reserve_use(&t->reserve, unit);

	KUNIT_ASSERT_NOT_NULL(test, table);
	KUNIT_EXPECT_TRUE(test, PAGE_ALIGNED(table));
	KUNIT_EXPECT_NULL(test, memchr_inv(table, 0, PAGE_SIZE));
	KUNIT_EXPECT_EQ(test, 1, page_count(virt_to_page(table)));
	free_page((unsigned long)table);
}

static void reserve_is_used_once(struct kunit *test)
{
	struct reserve_test *t = test->priv;
	unsigned long unit, i;

	bitmap_zero(t->units, PRECOPY_BATCH_UNITS);
	for (i = 0; i < PRECOPY_BATCH_UNITS; i += 7)
		__set_bit(i, t->units);
	reserve_wanted(test);
	for (unit = 0; unit < 2 * PRECOPY_BATCH_UNITS; unit++) {
		if (unit >= FIRST && (unit - FIRST) % 7 == 0) {
			KUNIT_EXPECT_TRUE(test, precopy_reserve_has(&t->reserve, unit));
			use_one(test, unit);
		}
		KUNIT_EXPECT_FALSE(test, precopy_reserve_has(&t->reserve, unit));
		KUNIT_EXPECT_NULL(test, precopy_reserve_use(&t->reserve, unit));
	}
	KUNIT_EXPECT_TRUE(test, list_empty(&t->reserve.blocks));
}

/* Tables that are in use at the same time are different pages. */
static void reserve_shares_nothing(struct kunit *test)
{
	struct reserve_test *t = test->priv;
	struct page **tables[4];
	unsigned int i;

	reserve_some(test, ARRAY_SIZE(tables));
	for (i = 0; i < ARRAY_SIZE(tables); i++) {
		tables[i] = precopy_reserve_use(&t->reserve, FIRST + i);
		KUNIT_ASSERT_NOT_NULL(test, tables[i]);
		KUNIT_EXPECT_NULL(test, memchr_inv(tables[i], 0, PAGE_SIZE));
		memset(tables[i], i + 1, PAGE_SIZE);
	}
	for (i = 0; i < ARRAY_SIZE(tables); i++) {
		KUNIT_EXPECT_NULL(test, memchr_inv(tables[i], i + 1, PAGE_SIZE));
		free_page((unsigned long)tables[i]);
	}
}

/* Units that have their share get no second one; those that used it get another. */
static void reserve_again(struct kunit *test)
{
	struct reserve_test *t = test->priv;
	struct list_head *first;
	unsigned long i;

	reserve_some(test, 100);
	first = t->reserve.blocks.next;
	reserve_some(test, 100);
	KUNIT_EXPECT_PTR_EQ(test, first, t->reserve.blocks.next);
	use_one(test, FIRST + 50);
	KUNIT_EXPECT_FALSE(test, precopy_reserve_has(&t->reserve, FIRST + 50));
	reserve_some(test, 101);
	KUNIT_EXPECT_PTR_NE(test, first, t->reserve.blocks.next);
	for_each_set_bit(i, t->units, PRECOPY_BATCH_UNITS)
		use_one(test, FIRST + i);
	KUNIT_EXPECT_TRUE(test, list_empty(&t->reserve.blocks));
}

/*
 * The test takes a reference on each page. precopy_reserve_destroy() drops the other one
 * of every page that no unit has used.
 */
static void reserve_is_freed(struct kunit *test)
{
	struct reserve_test *t = test->priv;
	struct precopy_reserve_block *block;
	struct page *pages[30];
	unsigned int nr = 0;

	reserve_some(test, ARRAY_SIZE(pages) / 3);
	list_for_each_entry(block, &t->reserve.blocks, list) {
		unsigned int i;

		for (i = 0; i < block->nr && nr < ARRAY_SIZE(pages); i++)
			pages[nr++] = block->pages + i;
	}
	KUNIT_ASSERT_EQ(test, ARRAY_SIZE(pages), nr);
	for (nr = 0; nr < ARRAY_SIZE(pages); nr++)
		get_page(pages[nr]);
	precopy_reserve_destroy(&t->reserve);
	for (nr = 0; nr < ARRAY_SIZE(pages); nr++) {
		KUNIT_EXPECT_EQ(test, 1, page_count(pages[nr]));
		put_page(pages[nr]);
	}
	KUNIT_ASSERT_EQ(test, 0, precopy_reserve_init(&t->reserve, 1));
}

static struct kunit_case reserve_cases[] = {
	KUNIT_CASE(reserve_is_used_once),
	KUNIT_CASE(reserve_shares_nothing),
	KUNIT_CASE(reserve_again),
	KUNIT_CASE(reserve_is_freed),
	{}
};

static struct kunit_suite reserve_suite = {
	.name = "precopy_reserve",
	.init = reserve_test_init,
	.exit = reserve_test_exit,
	.test_cases = reserve_cases,
};

kunit_test_suite(reserve_suite);
