// SPDX-License-Identifier: GPL-2.0-only
/*
 * Dirty bitmap: its own properties, and a model of how it is used that is
 * searched for lost stores; and what is noted while a unit is copied.
 */
#include <linux/bitmap.h>
#include <linux/completion.h>
#include <linux/device.h>
#include <linux/errno.h>
#include <linux/kthread.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/wait.h>
#include <linux/workqueue.h>
#include <kunit/test.h>

#include "../mem/dirty.h"
#include "../mem/entries.h"
#include "../mem/move.h"

#define UNIT	PRECOPY_UNIT_PAGES

/* Sizes in pages around the places where a word, a unit or the summary ends. */
static const unsigned long sizes[] = {
	1, 63, 64, 65, 256, UNIT - 1, UNIT, UNIT + 1, 2 * UNIT, 63 * UNIT + 1,
	64 * UNIT, 64 * UNIT + 1, 65 * UNIT, 32768, PRECOPY_DIRTY_MAX_PAGES,
};

static void size_desc(const unsigned long *size, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%lu pages", *size);
}

KUNIT_ARRAY_PARAM(size, sizes, size_desc);

static u32 test_random(u32 *seed)
{
	*seed = *seed * 1664525 + 1013904223;
	return *seed >> 8;
}

static void destroy_action(void *d)
{
	precopy_dirty_destroy(d);
}

static struct precopy_dirty *new_empty(struct kunit *test, unsigned long nr_pages)
{
	struct precopy_dirty *d = kunit_kzalloc(test, sizeof(*d), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, d);
	KUNIT_ASSERT_EQ(test, precopy_dirty_init(d, nr_pages), 0);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, destroy_action, d), 0);
	return d;
}

static void reserve(struct kunit *test, struct precopy_dirty *d, unsigned long unit)
{
	KUNIT_ASSERT_EQ(test, precopy_dirty_reserve(d, unit, GFP_KERNEL), 0);
}

/* One with room everywhere */
static struct precopy_dirty *new_dirty(struct kunit *test, unsigned long nr_pages)
{
	struct precopy_dirty *d = new_empty(test, nr_pages);
	unsigned long unit;

	for (unit = 0; unit < d->nr_units; unit++)
		reserve(test, d, unit);
	return d;
}

/* Compares everything there is to ask with a plain bitmap of the same size. */
static void expect_same(struct kunit *test, const struct precopy_dirty *d,
			const unsigned long *model, unsigned long nr_pages)
{
	unsigned long page, unit, next, first;

	KUNIT_EXPECT_EQ(test, precopy_dirty_count(d), bitmap_weight(model, nr_pages));
	for (page = 0; page < nr_pages; page++)
		KUNIT_ASSERT_EQ(test, precopy_dirty_test(d, page), test_bit(page, model));
	for (unit = 0; unit <= d->nr_units; unit++) {
		first = find_next_bit(model, nr_pages, unit * UNIT);
		next = first < nr_pages ? first / UNIT : d->nr_units;
		KUNIT_ASSERT_EQ(test, precopy_dirty_next_unit(d, unit), next);
	}
}

static void dirty_size(struct kunit *test)
{
	unsigned long nr_pages = *(const unsigned long *)test->param_value;
	struct precopy_dirty *d = new_dirty(test, nr_pages);
	unsigned long last = (nr_pages - 1) / UNIT;
	DECLARE_BITMAP(out, UNIT);

	KUNIT_EXPECT_EQ(test, d->nr_pages, nr_pages);
	KUNIT_EXPECT_EQ(test, d->nr_units, last + 1);
	KUNIT_EXPECT_EQ(test, precopy_dirty_next_unit(d, 0), last + 1);
	KUNIT_EXPECT_EQ(test, precopy_dirty_count(d), 0);

	KUNIT_EXPECT_TRUE(test, precopy_dirty_mark(d, nr_pages - 1));
	KUNIT_EXPECT_TRUE(test, precopy_dirty_test(d, nr_pages - 1));
	KUNIT_EXPECT_FALSE(test, precopy_dirty_test(d, nr_pages));
	KUNIT_EXPECT_FALSE(test, precopy_dirty_test(d, ULONG_MAX));
	KUNIT_EXPECT_EQ(test, precopy_dirty_next_unit(d, 0), last);
	KUNIT_EXPECT_EQ(test, precopy_dirty_next_unit(d, last), last);
	KUNIT_EXPECT_EQ(test, precopy_dirty_next_unit(d, last + 1), last + 1);

	bitmap_fill(out, UNIT);
	KUNIT_EXPECT_EQ(test, precopy_dirty_take(d, last, out), 1);
	KUNIT_EXPECT_EQ(test, find_first_bit(out, UNIT), (nr_pages - 1) % UNIT);
	KUNIT_EXPECT_EQ(test, bitmap_weight(out, UNIT), 1);
	KUNIT_EXPECT_EQ(test, precopy_dirty_count(d), 0);
	KUNIT_EXPECT_EQ(test, precopy_dirty_next_unit(d, 0), last + 1);
}

static void dirty_bad_size(struct kunit *test)
{
	static const unsigned long bad[] = { 0, PRECOPY_DIRTY_MAX_PAGES + 1, ULONG_MAX };
	struct precopy_dirty d;
	u32 i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		memset(&d, 0xa5, sizeof(d));
		KUNIT_EXPECT_EQ(test, precopy_dirty_init(&d, bad[i]), -EINVAL);
		precopy_dirty_destroy(&d);
	}
}

static void dirty_destroy(struct kunit *test)
{
	struct precopy_dirty d = {};

	precopy_dirty_destroy(&d);
	KUNIT_ASSERT_EQ(test, precopy_dirty_init(&d, 1000), 0);
	reserve(test, &d, 1);
	KUNIT_EXPECT_TRUE(test, precopy_dirty_mark(&d, 999));
	precopy_dirty_destroy(&d);
	precopy_dirty_destroy(&d);
	KUNIT_EXPECT_NULL(test, d.chunks);
	KUNIT_EXPECT_EQ(test, precopy_dirty_count(&d), 0);
	KUNIT_EXPECT_FALSE(test, precopy_dirty_test(&d, 0));
	KUNIT_EXPECT_EQ(test, precopy_dirty_next_unit(&d, 0), 0);
}

/* Where nobody asked for room there is nothing, and asking is all that costs. */
static void dirty_room(struct kunit *test)
{
	unsigned long nr = PRECOPY_DIRTY_MAX_PAGES, units = nr / UNIT, chunk = PRECOPY_DIRTY_CHUNK;
	struct precopy_dirty *d = new_empty(test, nr);
	unsigned long unit = 3 * chunk - 1;
	DECLARE_BITMAP(out, UNIT);
	unsigned long i, nr_chunks = 0;

	KUNIT_EXPECT_FALSE(test, precopy_dirty_test(d, unit * UNIT));
	KUNIT_EXPECT_NULL(test, precopy_dirty_unit(d, unit));
	bitmap_fill(out, UNIT);
	KUNIT_EXPECT_EQ(test, precopy_dirty_take(d, unit, out), 0);
	KUNIT_EXPECT_TRUE(test, bitmap_empty(out, UNIT));

	reserve(test, d, unit);
	reserve(test, d, unit);
	KUNIT_EXPECT_TRUE(test, precopy_dirty_reserved(d, unit));
	KUNIT_EXPECT_TRUE(test, precopy_dirty_reserved(d, 2 * chunk));
	KUNIT_EXPECT_FALSE(test, precopy_dirty_reserved(d, 2 * chunk - 1));
	KUNIT_EXPECT_FALSE(test, precopy_dirty_reserved(d, unit + 1));
	KUNIT_EXPECT_TRUE(test, precopy_dirty_mark(d, unit * UNIT + UNIT - 1));
	/* More room takes nothing away. */
	reserve(test, d, units - 1);
	reserve(test, d, unit);
	KUNIT_EXPECT_TRUE(test, precopy_dirty_mark(d, nr - 1));
	KUNIT_EXPECT_TRUE(test, precopy_dirty_test(d, unit * UNIT + UNIT - 1));
	KUNIT_EXPECT_FALSE(test, precopy_dirty_test(d, unit * UNIT + UNIT));
	KUNIT_EXPECT_EQ(test, precopy_dirty_next_unit(d, 0), unit);
	KUNIT_EXPECT_EQ(test, precopy_dirty_next_unit(d, unit + 1), units - 1);

	for (i = 0; i < units / chunk; i++)
		nr_chunks += precopy_dirty_reserved(d, i * chunk);
	KUNIT_EXPECT_EQ(test, nr_chunks, 2);
}

static void dirty_mark_twice(struct kunit *test)
{
	struct precopy_dirty *d = new_dirty(test, 3 * UNIT);
	DECLARE_BITMAP(out, UNIT);

	KUNIT_EXPECT_TRUE(test, precopy_dirty_mark(d, UNIT));
	KUNIT_EXPECT_FALSE(test, precopy_dirty_mark(d, UNIT));
	KUNIT_EXPECT_EQ(test, precopy_dirty_count(d), 1);
	KUNIT_EXPECT_EQ(test, precopy_dirty_take(d, 0, out), 0);
	KUNIT_EXPECT_TRUE(test, bitmap_empty(out, UNIT));
	KUNIT_EXPECT_EQ(test, precopy_dirty_take(d, 1, out), 1);
	KUNIT_EXPECT_EQ(test, precopy_dirty_take(d, 1, out), 0);
	KUNIT_EXPECT_TRUE(test, bitmap_empty(out, UNIT));
	KUNIT_EXPECT_TRUE(test, precopy_dirty_mark(d, UNIT));
}

/* A full unit, between two neighbours that must not notice. */
static void dirty_full_unit(struct kunit *test)
{
	struct precopy_dirty *d = new_dirty(test, 3 * UNIT);
	DECLARE_BITMAP(out, UNIT);
	unsigned long page;

	for (page = UNIT - 1; page <= 2 * UNIT; page++)
		KUNIT_EXPECT_TRUE(test, precopy_dirty_mark(d, page));
	KUNIT_EXPECT_EQ(test, precopy_dirty_count(d), UNIT + 2);
	KUNIT_EXPECT_EQ(test, precopy_dirty_take(d, 1, out), UNIT);
	KUNIT_EXPECT_TRUE(test, bitmap_full(out, UNIT));
	KUNIT_EXPECT_EQ(test, precopy_dirty_count(d), 2);
	KUNIT_EXPECT_TRUE(test, precopy_dirty_test(d, UNIT - 1));
	KUNIT_EXPECT_FALSE(test, precopy_dirty_test(d, UNIT));
	KUNIT_EXPECT_TRUE(test, precopy_dirty_test(d, 2 * UNIT));
	KUNIT_EXPECT_EQ(test, precopy_dirty_next_unit(d, 0), 0);
	KUNIT_EXPECT_EQ(test, precopy_dirty_next_unit(d, 1), 2);
}

/* A whole unit answers as if each of its pages had been marked, and is taken like that. */
static void dirty_fill_whole(struct kunit *test)
{
	struct precopy_dirty *d = new_dirty(test, 3 * UNIT);
	DECLARE_BITMAP(model, 3 * UNIT) = {};
	DECLARE_BITMAP(out, UNIT);

	precopy_dirty_fill_whole(d, 1);
	bitmap_set(model, UNIT, UNIT);
	expect_same(test, d, model, 3 * UNIT);
	KUNIT_EXPECT_EQ(test, precopy_dirty_nr_whole(d), 1);
	KUNIT_EXPECT_EQ(test, precopy_dirty_next_partial(d, 0), 3);
	KUNIT_EXPECT_TRUE(test, bitmap_full(precopy_dirty_unit(d, 1), UNIT));
	KUNIT_EXPECT_TRUE(test, bitmap_empty(precopy_dirty_unit(d, 0), UNIT));
	KUNIT_EXPECT_TRUE(test, precopy_dirty_mark(d, 2 * UNIT));
	__set_bit(2 * UNIT, model);
	expect_same(test, d, model, 3 * UNIT);

	KUNIT_EXPECT_EQ(test, precopy_dirty_take(d, 1, out), UNIT);
	KUNIT_EXPECT_TRUE(test, bitmap_full(out, UNIT));
	bitmap_clear(model, UNIT, UNIT);
	expect_same(test, d, model, 3 * UNIT);
	KUNIT_EXPECT_TRUE(test, bitmap_empty(precopy_dirty_unit(d, 1), UNIT));
	KUNIT_EXPECT_EQ(test, precopy_dirty_nr_whole(d), 0);
	KUNIT_EXPECT_EQ(test, precopy_dirty_next_partial(d, 0), 2);
	KUNIT_EXPECT_TRUE(test, precopy_dirty_mark(d, UNIT + 3));
	KUNIT_EXPECT_EQ(test, precopy_dirty_take(d, 1, out), 1);
	KUNIT_EXPECT_EQ(test, find_first_bit(out, UNIT), 3);
}

/* Filling is marking, all at once. */
static void dirty_fill(struct kunit *test)
{
	struct precopy_dirty *d = new_dirty(test, 2 * UNIT);
	DECLARE_BITMAP(pages, UNIT) = {};
	DECLARE_BITMAP(out, UNIT);

	precopy_dirty_fill(d, 0, pages);
	KUNIT_EXPECT_EQ(test, precopy_dirty_next_unit(d, 0), 2);
	__set_bit(0, pages);
	__set_bit(70, pages);
	__set_bit(UNIT - 1, pages);
	precopy_dirty_fill(d, 1, pages);
	KUNIT_EXPECT_EQ(test, precopy_dirty_count(d), 3);
	KUNIT_EXPECT_EQ(test, precopy_dirty_next_unit(d, 0), 1);
	KUNIT_EXPECT_FALSE(test, precopy_dirty_mark(d, UNIT + 70));
	KUNIT_EXPECT_TRUE(test, precopy_dirty_mark(d, UNIT + 71));
	__set_bit(71, pages);
	KUNIT_EXPECT_EQ(test, precopy_dirty_take(d, 1, out), 4);
	KUNIT_EXPECT_TRUE(test, bitmap_equal(out, pages, UNIT));
	KUNIT_EXPECT_EQ(test, precopy_dirty_count(d), 0);
}

#define RANDOM_PAGES	(5 * UNIT + 77)

struct random_test {
	struct precopy_dirty *d;
	u32 seed;
	DECLARE_BITMAP(model, RANDOM_PAGES);
	DECLARE_BITMAP(out, UNIT);
};

static void random_mark(struct kunit *test, struct random_test *r)
{
	unsigned long page = test_random(&r->seed) % RANDOM_PAGES;
	u32 nr = test_random(&r->seed) % 100;

	for (; nr && page < RANDOM_PAGES; page++, nr--)
		KUNIT_EXPECT_EQ(test, precopy_dirty_mark(r->d, page),
				!test_and_set_bit(page, r->model));
}

static void random_take(struct kunit *test, struct random_test *r)
{
	unsigned long unit = test_random(&r->seed) % r->d->nr_units;
	unsigned long i, nr, page, nr_taken = 0;

	nr = precopy_dirty_take(r->d, unit, r->out);
	for (i = 0; i < UNIT; i++) {
		page = unit * UNIT + i;
		KUNIT_ASSERT_EQ(test, test_bit(i, r->out),
				page < RANDOM_PAGES &&
				test_bit(page, r->model));
		if (test_bit(i, r->out)) {
			__clear_bit(page, r->model);
			nr_taken++;
		}
	}
	KUNIT_EXPECT_EQ(test, nr, nr_taken);
}

static void dirty_random(struct kunit *test)
{
	struct random_test *r = kunit_kzalloc(test, sizeof(*r), GFP_KERNEL);
	u32 i;

	KUNIT_ASSERT_NOT_NULL(test, r);
	r->d = new_dirty(test, RANDOM_PAGES);
	r->seed = 3;
	for (i = 0; i < 300; i++) {
		if (test_random(&r->seed) % 3)
			random_mark(test, r);
		else
			random_take(test, r);
		expect_same(test, r->d, r->model, RANDOM_PAGES);
	}
}

#define PARALLEL_UNITS	256
#define PARALLEL_PAGES	(PARALLEL_UNITS * UNIT)
#define NR_MARKERS	2

struct parallel_test {
	struct precopy_dirty *d;
	atomic_t nr_arrived;
	struct completion done;
	atomic_long_t nr_new;
};

/*
 * Marks every page once. Before each unit the markers wait for each other, so
 * that they get into each other's way all the time.
 */
static int marker_fn(void *arg)
{
	struct parallel_test *p = arg;
	unsigned long page, nr_new = 0;

	for (page = 0; page < PARALLEL_PAGES; page++) {
		if (page % UNIT == 0) {
			atomic_inc(&p->nr_arrived);
			while (atomic_read(&p->nr_arrived) < (page / UNIT + 1) * NR_MARKERS)
				cond_resched();
		}
		if (!precopy_dirty_reserve(p->d, page / UNIT, GFP_KERNEL))
			nr_new += precopy_dirty_mark(p->d, page);
	}
	atomic_long_add(nr_new, &p->nr_new);
	complete(&p->done);
	return 0;
}

static unsigned long weight(const struct precopy_dirty *d)
{
	unsigned long unit, nr = 0;

	for (unit = 0; unit < d->nr_units; unit++)
		nr += bitmap_weight(precopy_dirty_unit(d, unit), UNIT);
	return nr;
}

/* However they race, also for room, each page is new to exactly one of them. */
static void dirty_parallel_marks(struct kunit *test)
{
	struct parallel_test *p = kunit_kzalloc(test, sizeof(*p), GFP_KERNEL);
	struct task_struct *tasks[NR_MARKERS];
	u32 i;

	KUNIT_ASSERT_NOT_NULL(test, p);
	p->d = new_empty(test, PARALLEL_PAGES);
	init_completion(&p->done);
	for (i = 0; i < NR_MARKERS; i++)
		tasks[i] = kthread_create(marker_fn, p, "precopy-mark/%u", i);
	if (IS_ERR(tasks[0]) || IS_ERR(tasks[1])) {
		for (i = 0; i < NR_MARKERS; i++)
			if (!IS_ERR(tasks[i]))
				kthread_stop(tasks[i]);
		kunit_skip(test, "no threads");
	}
	for (i = 0; i < NR_MARKERS; i++)
		wake_up_process(tasks[i]);
	for (i = 0; i < NR_MARKERS; i++)
		wait_for_completion(&p->done);

	KUNIT_EXPECT_EQ(test, atomic_long_read(&p->nr_new), PARALLEL_PAGES);
	KUNIT_EXPECT_EQ(test, precopy_dirty_count(p->d), PARALLEL_PAGES);
	KUNIT_EXPECT_EQ(test, weight(p->d), PARALLEL_PAGES);
	KUNIT_EXPECT_EQ(test, bitmap_weight(p->d->summary, PARALLEL_UNITS), PARALLEL_UNITS);
}

/*
 * The model
 *
 * Two CPUs store to one page through one page table entry, while a collector
 * makes passes over it. A CPU that finds the entry write protected runs the
 * fault handler; then it tries again. mprotect() may take the right to write
 * away at any time and give it back: without a fault, if the entry is dirty.
 * Every step is atomic and a step of anyone may come next: the search visits
 * every state that can be reached that way.
 *
 * A store is lost if a pass finds the page clean although its last copy is out
 * of date: were it the last pass, the target would lack that store.
 *
 * When tracking begins the page may be in the initial set, and its entry writable:
 * then it needs no mark until a pass has taken it. Or its unit is one folio, whose
 * entries are not protected one by one: they are removed when the page is taken,
 * and the next fault splits the unit. The bitmap of the model is that of all sets.
 *
 * Protocols are little programs, so that wrong ones can be written down next to
 * the right ones. The search has to find the loss in each of the wrong ones;
 * that shows that it could find one in the right ones.
 */

enum op {
	OP_END,
	OP_READ_LOCK,
	OP_READ_UNLOCK,
	OP_MARK,
	OP_MAP,			/* make the entry writable and dirty */
	OP_WRITE_LOCK,
	OP_WRITE_UNLOCK,
	OP_TAKE,
	OP_LOOK,		/* like OP_TAKE, but leaves the bit alone */
	OP_CLEAR,		/* the other half of it */
	OP_PROTECT,
	OP_CLEAN,		/* clear the entry's own dirty flag */
	OP_REPEAT,		/* from OP_PROTECT, if either changed the entry */
	OP_PROTECT_CLEAN,	/* both at once */
	OP_COPY,
	/* Of a unit that may be one folio: */
	OP_SPLIT,		/* in a write section of its own; not if it is loose */
	OP_AGAIN,		/* end the section and split, if it has to be split now */
	OP_REMOVE_LOOSE,	/* the entry, if the unit is loose, which ends that */
	OP_PROTECT_SINGLE,	/* both at once, unless it is one folio */
};

/* State of the page, its entry and its unit when tracking begins */
enum start {
	START_SENT,		/* a page in no set, without an entry */
	START_INITIAL,		/* a page of the initial set, writable */
	START_LOOSE,		/* the same, of a loose unit */
	START_FOLIO,		/* the same, of a unit that is one folio and not loose */
	START_FORGOTTEN,	/* a writable page in no set */
};

#define SINGLE_PAGE	(BIT(START_SENT) | BIT(START_INITIAL))

#define NR_CPUS_MODEL	2
#define NR_STORES	2	/* by each of them */
#define MAX_OPS		7
#define MODEL_PAGES	(2 * UNIT)
#define MODEL_PAGE	(UNIT + 5)
#define MAX_STATES	BIT(18)

struct protocol {
	const char *desc;
	bool lossy;
	enum op fault[MAX_OPS];
	enum op collect[MAX_OPS];
	unsigned long starts;	/* bits of enum start; 0 means SINGLE_PAGE */
};

#define GOOD_FAULT	{ OP_READ_LOCK, OP_MARK, OP_MAP, OP_READ_UNLOCK }
#define GOOD_COLLECT	{ OP_WRITE_LOCK, OP_TAKE, OP_WRITE_UNLOCK, \
			  OP_PROTECT_CLEAN, OP_COPY }
#define FOLIO_FAULT	{ OP_SPLIT, OP_READ_LOCK, OP_AGAIN, OP_MARK, OP_MAP, \
			  OP_READ_UNLOCK }
#define FOLIO_COLLECT	{ OP_WRITE_LOCK, OP_REMOVE_LOOSE, OP_TAKE, \
			  OP_WRITE_UNLOCK, OP_PROTECT_SINGLE, OP_COPY }

static const struct protocol protocols[] = {
	{ "right", false, GOOD_FAULT, GOOD_COLLECT },
	{ "right, protect and clean until quiet", false, GOOD_FAULT,
	  { OP_WRITE_LOCK, OP_TAKE, OP_WRITE_UNLOCK, OP_PROTECT, OP_CLEAN, OP_REPEAT, OP_COPY } },
	{ "right, protect and clean, then both at once", false, GOOD_FAULT,
	  { OP_WRITE_LOCK, OP_TAKE, OP_WRITE_UNLOCK, OP_PROTECT, OP_CLEAN, OP_PROTECT_CLEAN,
	    OP_COPY } },
	{ "right, protect in the section", false, GOOD_FAULT,
	  { OP_WRITE_LOCK, OP_TAKE, OP_PROTECT_CLEAN, OP_WRITE_UNLOCK, OP_COPY } },
	{ "right, map before mark in one section", false,
	  { OP_READ_LOCK, OP_MAP, OP_MARK, OP_READ_UNLOCK }, GOOD_COLLECT },
	{ "right, a loose unit", false, FOLIO_FAULT, FOLIO_COLLECT, BIT(START_LOOSE) },

	{ "mark after the section that maps", true,
	  { OP_READ_LOCK, OP_MAP, OP_READ_UNLOCK, OP_MARK }, GOOD_COLLECT },
	{ "map after the section that marks", true,
	  { OP_READ_LOCK, OP_MARK, OP_READ_UNLOCK, OP_MAP }, GOOD_COLLECT },
	{ "fault without a section", true,
	  { OP_MARK, OP_MAP }, GOOD_COLLECT },
	{ "fault does not mark", true,
	  { OP_READ_LOCK, OP_MAP, OP_READ_UNLOCK }, GOOD_COLLECT },
	{ "collect without a section", true, GOOD_FAULT,
	  { OP_TAKE, OP_PROTECT_CLEAN, OP_COPY } },
	{ "copy before protect", true, GOOD_FAULT,
	  { OP_WRITE_LOCK, OP_TAKE, OP_COPY, OP_PROTECT_CLEAN, OP_WRITE_UNLOCK } },
	{ "clear after copy", true, GOOD_FAULT,
	  { OP_WRITE_LOCK, OP_LOOK, OP_PROTECT_CLEAN, OP_WRITE_UNLOCK, OP_COPY, OP_CLEAR } },
	{ "clear after protect", true, GOOD_FAULT,
	  { OP_WRITE_LOCK, OP_LOOK, OP_PROTECT_CLEAN, OP_WRITE_UNLOCK, OP_CLEAR, OP_COPY } },
	{ "no protect", true, GOOD_FAULT,
	  { OP_WRITE_LOCK, OP_TAKE, OP_CLEAN, OP_WRITE_UNLOCK, OP_COPY } },
	{ "no clean", true, GOOD_FAULT,
	  { OP_WRITE_LOCK, OP_TAKE, OP_PROTECT, OP_WRITE_UNLOCK, OP_COPY } },
	/* mprotect() in between leaves the entry clean but writable. */
	{ "protect, then clean", true, GOOD_FAULT,
	  { OP_WRITE_LOCK, OP_TAKE, OP_PROTECT, OP_CLEAN, OP_WRITE_UNLOCK, OP_COPY } },
	/* A store in between leaves the entry protected but dirty. */
	{ "clean, then protect", true, GOOD_FAULT,
	  { OP_WRITE_LOCK, OP_TAKE, OP_CLEAN, OP_PROTECT, OP_WRITE_UNLOCK, OP_COPY } },

	{ "a writable page is not in the initial set", true, GOOD_FAULT, GOOD_COLLECT,
	  BIT(START_FORGOTTEN) },
	{ "the initial set is not protected", true, GOOD_FAULT,
	  { OP_WRITE_LOCK, OP_TAKE, OP_WRITE_UNLOCK, OP_COPY }, BIT(START_INITIAL) },
	{ "a writable unit is not loose", true, FOLIO_FAULT, FOLIO_COLLECT,
	  BIT(START_FOLIO) },
	{ "a loose unit keeps its entries", true, FOLIO_FAULT,
	  { OP_WRITE_LOCK, OP_TAKE, OP_WRITE_UNLOCK, OP_PROTECT_SINGLE, OP_COPY },
	  BIT(START_LOOSE) },
	{ "a loose unit keeps its entries until the copy", true, FOLIO_FAULT,
	  { OP_WRITE_LOCK, OP_TAKE, OP_WRITE_UNLOCK, OP_PROTECT_SINGLE, OP_COPY,
	    OP_REMOVE_LOOSE }, BIT(START_LOOSE) },
	{ "a loose unit is not looked at again", true,
	  { OP_SPLIT, OP_READ_LOCK, OP_MARK, OP_MAP, OP_READ_UNLOCK }, FOLIO_COLLECT,
	  BIT(START_LOOSE) },
};

KUNIT_ARRAY_PARAM_DESC(protocol, protocols, desc);

/* Contents of the page are told apart by the number of stores so far. */
struct state {
	u8 pc[NR_CPUS_MODEL];	/* 0: about to store, n: at fault[n - 1] */
	u8 stores[NR_CPUS_MODEL];
	u8 collect_pc;
	u8 copy;
	bool writable;
	bool pte_dirty;
	bool dirty;		/* as in the bitmap */
	bool found;		/* the running pass found it dirty */
	u8 readers;
	bool writer;
	bool changed;		/* the running pass protected or cleaned it */
	bool folio;		/* the page's unit is one folio */
	bool loose;
};

#define STATE_BITS	26

static const struct state starts[] = {
	[START_SENT] = {},
	[START_INITIAL] = { .dirty = true, .writable = true, .pte_dirty = true },
	[START_LOOSE] = { .dirty = true, .writable = true, .pte_dirty = true,
			  .folio = true, .loose = true },
	[START_FOLIO] = { .dirty = true, .writable = true, .pte_dirty = true,
			  .folio = true },
	[START_FORGOTTEN] = { .writable = true, .pte_dirty = true },
};

static u32 state_pack(const struct state *s)
{
	return s->pc[0] | s->pc[1] << 3 | s->stores[0] << 6 | s->stores[1] << 8 |
	       s->collect_pc << 10 | s->copy << 13 | s->writable << 16 |
	       s->pte_dirty << 17 | s->dirty << 18 | s->found << 19 |
	       s->readers << 20 | s->writer << 22 | s->changed << 23 |
	       s->folio << 24 | s->loose << 25;
}

static struct state state_unpack(u32 bits)
{
	return (struct state) {
		.pc = { bits & 7, bits >> 3 & 7 },
		.stores = { bits >> 6 & 3, bits >> 8 & 3 },
		.collect_pc = bits >> 10 & 7,
		.copy = bits >> 13 & 7,
		.writable = bits >> 16 & 1,
		.pte_dirty = bits >> 17 & 1,
		.dirty = bits >> 18 & 1,
		.found = bits >> 19 & 1,
		.readers = bits >> 20 & 3,
		.writer = bits >> 22 & 1,
		.changed = bits >> 23 & 1,
		.folio = bits >> 24 & 1,
		.loose = bits >> 25 & 1,
	};
}

struct model {
	const struct protocol *protocol;
	struct precopy_dirty *d;
	unsigned long *seen;
	u32 *queue;
	u32 nr_queued;
	bool overflow;
	bool lost;
	bool finished;		/* both CPUs made all their stores somewhere */
};

static u32 state_stores(const struct state *s)
{
	return s->stores[0] + s->stores[1];
}

/* Makes the real bitmap say what the state says. */
static void model_load(struct model *m, const struct state *s)
{
	DECLARE_BITMAP(out, UNIT);

	if (s->dirty)
		precopy_dirty_mark(m->d, MODEL_PAGE);
	else
		precopy_dirty_take(m->d, MODEL_PAGE / UNIT, out);
}

static bool model_take(struct model *m)
{
	unsigned long unit = precopy_dirty_next_unit(m->d, 0);
	DECLARE_BITMAP(out, UNIT);

	return unit < m->d->nr_units && precopy_dirty_take(m->d, unit, out) &&
	       test_bit(MODEL_PAGE % UNIT, out);
}

/* A pass has looked for the page: it must not be clean yet out of date. */
static void model_looked(struct model *m, struct state *s, bool found)
{
	s->found = found;
	if (!found && s->copy != state_stores(s))
		m->lost = true;
}

static bool lock_op(struct state *s, enum op op)
{
	switch (op) {
	case OP_READ_LOCK:
		if (s->writer)
			return false;
		s->readers++;
		return true;
	case OP_READ_UNLOCK:
		s->readers--;
		return true;
	case OP_WRITE_LOCK:
		if (s->writer || s->readers)
			return false;
		s->writer = true;
		return true;
	default:
		s->writer = false;
		return true;
	}
}

/* Read-only and clean is as good as not there. */
static void entry_gone(struct state *s)
{
	s->writable = false;
	s->pte_dirty = false;
}

/* The steps of a pass for a page that it found dirty. */
static void page_op(struct state *s, enum op op)
{
	switch (op) {
	case OP_PROTECT:
		s->changed = s->writable;
		s->writable = false;
		break;
	case OP_CLEAN:
		s->changed |= s->pte_dirty;
		s->pte_dirty = false;
		break;
	case OP_PROTECT_CLEAN:
		entry_gone(s);
		break;
	case OP_PROTECT_SINGLE:
		if (!s->folio)
			entry_gone(s);
		break;
	case OP_COPY:
		s->copy = state_stores(s);
		break;
	default:
		break;
	}
}

static bool must_split(const struct state *s)
{
	return s->folio && !s->loose;
}

/* Returns false if the step has to wait. */
static bool split(struct state *s)
{
	if (s->writer || s->readers)
		return false;
	if (must_split(s)) {
		entry_gone(s);
		s->folio = false;
	}
	return true;
}

static void remove_loose(struct state *s)
{
	if (s->loose)
		entry_gone(s);
	s->loose = false;
}

/* Returns false if the step has to wait. */
static bool run_op(struct model *m, struct state *s, enum op op)
{
	switch (op) {
	case OP_READ_LOCK:
	case OP_READ_UNLOCK:
	case OP_WRITE_LOCK:
	case OP_WRITE_UNLOCK:
		return lock_op(s, op);
	case OP_SPLIT:
		return split(s);
	case OP_REMOVE_LOOSE:
		remove_loose(s);
		break;
	case OP_MARK:
		precopy_dirty_mark(m->d, MODEL_PAGE);
		break;
	case OP_MAP:
		s->writable = true;
		s->pte_dirty = true;
		break;
	case OP_TAKE:
		model_looked(m, s, model_take(m));
		break;
	case OP_LOOK:
		model_looked(m, s, precopy_dirty_test(m->d, MODEL_PAGE));
		break;
	case OP_CLEAR:
		if (s->found)
			model_take(m);
		break;
	default:
		if (s->found)
			page_op(s, op);
	}
	s->dirty = precopy_dirty_test(m->d, MODEL_PAGE);
	return true;
}

static u32 next_pc(const enum op *ops, u32 pc)
{
	return pc < MAX_OPS && ops[pc] != OP_END ? pc : 0;
}

/* Two steps back is where OP_PROTECT, OP_CLEAN, OP_REPEAT begins. */
static u32 collector_next(const enum op *ops, const struct state *s)
{
	if (ops[s->collect_pc] == OP_REPEAT && s->found && s->changed)
		return s->collect_pc - 2;
	return next_pc(ops, s->collect_pc + 1);
}

static bool step_collector(struct model *m, struct state *s)
{
	const enum op *ops = m->protocol->collect;

	if (!run_op(m, s, ops[s->collect_pc]))
		return false;
	s->collect_pc = collector_next(ops, s);
	return true;
}

static bool step_cpu(struct model *m, struct state *s, u32 cpu)
{
	const enum op *ops = m->protocol->fault;
	u8 *pc = &s->pc[cpu];

	if (*pc && ops[*pc - 1] == OP_AGAIN && must_split(s)) {
		s->readers--;
		*pc = 1;
	} else if (*pc) {
		if (!run_op(m, s, ops[*pc - 1]))
			return false;
		*pc = next_pc(ops, *pc) ? *pc + 1 : 0;
	} else if (s->stores[cpu] == NR_STORES) {
		return false;
	} else if (s->writable) {
		s->pte_dirty = true;
		s->stores[cpu]++;
	} else {
		*pc = 1;
	}
	return true;
}

/* mprotect(); NUMA hinting gives back the right to write in the same way. */
static bool step_mprotect(struct state *s)
{
	if (!s->writable && !s->pte_dirty)
		return false;
	s->writable = !s->writable;
	return true;
}

static void model_push(struct model *m, const struct state *s)
{
	u32 bits = state_pack(s);

	if (__test_and_set_bit(bits, m->seen))
		return;
	if (m->nr_queued == MAX_STATES)
		m->overflow = true;
	else
		m->queue[m->nr_queued++] = bits;
}

/* Runs one step of one of the actors from a state. */
static void model_try(struct model *m, u32 bits, u32 actor)
{
	struct state s = state_unpack(bits);
	bool moved;

	model_load(m, &s);
	if (actor < NR_CPUS_MODEL)
		moved = step_cpu(m, &s, actor);
	else if (actor == NR_CPUS_MODEL)
		moved = step_collector(m, &s);
	else
		moved = step_mprotect(&s);
	if (moved)
		model_push(m, &s);
	if (state_stores(&s) == NR_CPUS_MODEL * NR_STORES)
		m->finished = true;
}

static void model_search(struct model *m)
{
	unsigned long which = m->protocol->starts ?: SINGLE_PAGE;
	u32 i, actor;

	for_each_set_bit(i, &which, ARRAY_SIZE(starts))
		model_push(m, &starts[i]);
	for (i = 0; i < m->nr_queued; i++)
		for (actor = 0; actor < NR_CPUS_MODEL + 2; actor++)
			model_try(m, m->queue[i], actor);
}

static void kvfree_action(void *p)
{
	kvfree(p);
}

static void *model_alloc(struct kunit *test, size_t size)
{
	void *p = kvzalloc(size, GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, p);
	KUNIT_ASSERT_EQ(test, kunit_add_action_or_reset(test, kvfree_action, p), 0);
	return p;
}

static void dirty_protocol(struct kunit *test)
{
	struct model *m = model_alloc(test, sizeof(*m));

	m->protocol = test->param_value;
	m->d = new_dirty(test, MODEL_PAGES);
	m->seen = model_alloc(test, BIT(STATE_BITS) / 8);
	m->queue = model_alloc(test, MAX_STATES * sizeof(*m->queue));
	model_search(m);

	kunit_info(test, "%u states\n", m->nr_queued);
	KUNIT_EXPECT_FALSE(test, m->overflow);
	KUNIT_EXPECT_TRUE(test, m->finished);
	KUNIT_EXPECT_EQ(test, m->lost, m->protocol->lossy);
}

/* --- Copies that are made while stores are noted ---------------------- */

#define MOVE_UNIT	3UL
#define MOVE_NEXT	4UL
#define MOVE_SHARES	(MOVE_UNIT + PRECOPY_MOVES)	/* the same struct precopy_move */

static struct precopy_memory *new_moves(struct kunit *test)
{
	struct precopy_memory *mem = kunit_kzalloc(test, sizeof(*mem), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, mem);
	init_rwsem(&mem->sem);
	precopy_moves_init(mem);
	return mem;
}

static void move_begin(struct precopy_memory *mem, unsigned long unit)
{
	guard(mutex)(&precopy_move_of(mem, unit)->lock);
	guard(rwsem_write)(&mem->sem);
	precopy_move_begin(mem, unit, false);
}

static void move_store(struct precopy_memory *mem, unsigned long page)
{
	guard(rwsem_read)(&mem->sem);
	precopy_move_store(mem, page);
}

/* Ends a move, and returns how many pages are to be copied once more. */
static unsigned int move_end(struct precopy_memory *mem, unsigned long unit)
{
	guard(mutex)(&precopy_move_of(mem, unit)->lock);
	guard(rwsem_write)(&mem->sem);
	return bitmap_weight(precopy_move_end(mem, unit), UNIT);
}

static void dirty_move_notes_stores(struct kunit *test)
{
	struct precopy_memory *mem = new_moves(test);

	move_store(mem, MOVE_UNIT * UNIT);
	move_begin(mem, MOVE_UNIT);
	move_begin(mem, MOVE_NEXT);
	move_store(mem, MOVE_UNIT * UNIT + 7);
	move_store(mem, MOVE_UNIT * UNIT + 7);
	move_store(mem, MOVE_NEXT * UNIT);
	move_store(mem, MOVE_NEXT * UNIT + UNIT - 1);
	move_store(mem, MOVE_SHARES * UNIT + 9);
	KUNIT_EXPECT_EQ(test, move_end(mem, MOVE_UNIT), 1);
	KUNIT_EXPECT_TRUE(test, test_bit(7, precopy_move_of(mem, MOVE_UNIT)->stored));
	KUNIT_EXPECT_EQ(test, move_end(mem, MOVE_NEXT), 2);
	/* Nothing of it is left for the next one. */
	move_begin(mem, MOVE_SHARES);
	KUNIT_EXPECT_EQ(test, move_end(mem, MOVE_SHARES), 0);
}

static void dirty_move_cancelled(struct kunit *test)
{
	struct precopy_memory *mem = new_moves(test);

	KUNIT_EXPECT_EQ(test, move_end(mem, MOVE_UNIT), UNIT);
	move_begin(mem, MOVE_UNIT);
	move_begin(mem, MOVE_NEXT);
	move_store(mem, MOVE_UNIT * UNIT + 7);
	down_write(&mem->sem);
	precopy_moves_cancel(mem);
	up_write(&mem->sem);
	KUNIT_EXPECT_EQ(test, move_end(mem, MOVE_UNIT), UNIT);
	KUNIT_EXPECT_EQ(test, move_end(mem, MOVE_NEXT), UNIT);
	/* It ends once. */
	move_begin(mem, MOVE_UNIT);
	KUNIT_EXPECT_EQ(test, move_end(mem, MOVE_UNIT), 0);
	KUNIT_EXPECT_EQ(test, move_end(mem, MOVE_UNIT), UNIT);
}

static bool move_closed(struct precopy_memory *mem, unsigned long unit)
{
	guard(rwsem_read)(&mem->sem);
	return precopy_move_closed(mem, unit);
}

static void move_begin_closed(struct precopy_memory *mem, unsigned long unit)
{
	guard(mutex)(&precopy_move_of(mem, unit)->lock);
	guard(rwsem_write)(&mem->sem);
	precopy_move_begin(mem, unit, true);
}

/* No entries for its unit, and for no other; until it ends or is cancelled */
static void dirty_move_closed(struct kunit *test)
{
	struct precopy_memory *mem = new_moves(test);

	move_begin(mem, MOVE_UNIT);
	KUNIT_EXPECT_FALSE(test, move_closed(mem, MOVE_UNIT));
	move_end(mem, MOVE_UNIT);
	move_begin_closed(mem, MOVE_UNIT);
	KUNIT_EXPECT_TRUE(test, move_closed(mem, MOVE_UNIT));
	KUNIT_EXPECT_FALSE(test, move_closed(mem, MOVE_NEXT));
	KUNIT_EXPECT_FALSE(test, move_closed(mem, MOVE_SHARES));
	move_end(mem, MOVE_UNIT);
	KUNIT_EXPECT_FALSE(test, move_closed(mem, MOVE_UNIT));
	move_begin_closed(mem, MOVE_UNIT);
	down_write(&mem->sem);
	precopy_moves_cancel(mem);
	up_write(&mem->sem);
	KUNIT_EXPECT_FALSE(test, move_closed(mem, MOVE_UNIT));
}

/* --- Room for what is in use ------------------------------------------ */

#define ROOM_UNITS	4UL

struct room {
	struct device dev;
	struct precopy_memory mem;
	struct precopy_tracker *tracker;
	struct workqueue_struct *wq;
	wait_queue_head_t wait;
	spinlock_t lock;	/* that of the tracker's counts */
};

static void room_free(void *arg)
{
	struct room *r = arg;

	precopy_tracker_free(r->tracker);
	/* No entry maps this memory */
	down_write(&r->mem.sem);
	precopy_memory_reset(&r->mem, 1);
	up_write(&r->mem.sem);
	precopy_memory_close(&r->mem);
	destroy_workqueue(r->wq);
	precopy_memory_destroy(&r->mem);
}

static struct room *new_room(struct kunit *test)
{
	struct room *r = kunit_kzalloc(test, sizeof(*r), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, r);
	r->dev.init_name = "kunit";
	init_waitqueue_head(&r->wait);
	spin_lock_init(&r->lock);
	r->wq = alloc_workqueue("precopy-kunit", WQ_UNBOUND, 0);
	KUNIT_ASSERT_NOT_NULL(test, r->wq);
	KUNIT_ASSERT_EQ(test, 0, precopy_memory_init(&r->mem, &r->dev, NULL, 0, r->wq));
	KUNIT_ASSERT_EQ(test, 0, precopy_memory_open(&r->mem,
						     ROOM_UNITS * PRECOPY_UNIT_SIZE));
	r->tracker = precopy_tracker_create(r->mem.size, true, &r->wait, &r->lock);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, room_free, r));
	KUNIT_ASSERT_NOT_NULL(test, r->tracker);
	return r;
}

static bool room_suffices(struct room *r)
{
	guard(rwsem_write)(&r->mem.sem);
	return precopy_tracker_prepared(&r->mem, r->tracker);
}

/* The tracker notices units that come into use after it has made room for all others. */
static void dirty_room_for_use(struct kunit *test)
{
	struct room *r = new_room(test);
	unsigned long unit;

	KUNIT_EXPECT_EQ(test, 0, precopy_tracker_prepare(&r->mem, r->tracker));
	KUNIT_EXPECT_TRUE(test, room_suffices(r));
	for (unit = ROOM_UNITS; unit--;) {
		KUNIT_ASSERT_LT(test, 0, precopy_memory_populate_unit(&r->mem, 0, unit));
		KUNIT_EXPECT_FALSE(test, room_suffices(r));
		KUNIT_EXPECT_EQ(test, 0, precopy_tracker_prepare(&r->mem, r->tracker));
		KUNIT_EXPECT_TRUE(test, room_suffices(r));
		KUNIT_EXPECT_EQ(test, 0, precopy_memory_populate_unit(&r->mem, 0, unit));
		KUNIT_EXPECT_TRUE(test, room_suffices(r));
	}
}

/* A reset of the carrier may find a unit, and the device closed, or open and smaller. */
static void dirty_settle_after_close(struct kunit *test)
{
	struct room *r = new_room(test);

	precopy_memory_close(&r->mem);
	precopy_entries_settle(&r->mem, ROOM_UNITS - 1);
	KUNIT_ASSERT_EQ(test, 0, precopy_memory_open(&r->mem, PRECOPY_UNIT_SIZE));
	precopy_entries_settle(&r->mem, 1000 * BITS_PER_LONG);
	precopy_memory_settle(&r->mem);
}

static struct kunit_case dirty_cases[] = {
	KUNIT_CASE_PARAM(dirty_size, size_gen_params),
	KUNIT_CASE(dirty_bad_size),
	KUNIT_CASE(dirty_destroy),
	KUNIT_CASE(dirty_room),
	KUNIT_CASE(dirty_mark_twice),
	KUNIT_CASE(dirty_full_unit),
	KUNIT_CASE(dirty_fill),
	KUNIT_CASE(dirty_fill_whole),
	KUNIT_CASE(dirty_random),
	KUNIT_CASE(dirty_parallel_marks),
	KUNIT_CASE_PARAM(dirty_protocol, protocol_gen_params),
	KUNIT_CASE(dirty_move_notes_stores),
	KUNIT_CASE(dirty_move_cancelled),
	KUNIT_CASE(dirty_move_closed),
	KUNIT_CASE(dirty_room_for_use),
	KUNIT_CASE(dirty_settle_after_close),
	{}
};

static struct kunit_suite dirty_suite = {
	.name = "precopy_dirty",
	.test_cases = dirty_cases,
};

kunit_test_suite(dirty_suite);
