// SPDX-License-Identifier: GPL-2.0-only
/* The estimate of a startup's time from those that were measured. */
#include <linux/limits.h>
#include <linux/sizes.h>
#include <linux/time64.h>
#include <kunit/test.h>

#include "../mig/cost.h"

/* Time that a MiB is assumed to take while nothing was measured */
#define ASSUMED_NS	(100 * NSEC_PER_USEC)

/* Time for the largest memory at the steepest slope */
#define LARGEST_NS	BIT_ULL(58)

static struct precopy_cost *new_cost(struct kunit *test)
{
	struct precopy_cost *cost = kunit_kzalloc(test, sizeof(*cost), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, cost);
	precopy_cost_init(cost);
	return cost;
}

static void add_mib(struct precopy_cost *cost, u64 mib, u64 us)
{
	precopy_cost_add(cost, mib * SZ_1M, us * NSEC_PER_USEC);
}

static u64 estimate_us(struct kunit *test, struct precopy_cost *cost, u64 mib)
{
	bool measured = false;
	u64 ns = precopy_cost_estimate(cost, mib * SZ_1M, &measured);

	KUNIT_EXPECT_TRUE(test, measured);
	return ns / NSEC_PER_USEC;
}

/* Rounding is to whole us, and to whole ns a MiB */
static void expect_near(struct kunit *test, u64 us, u64 want)
{
	KUNIT_EXPECT_GE(test, us + 2 + want / 1000, want);
	KUNIT_EXPECT_LE(test, us, want + 2 + want / 1000);
}

static void cost_assumed(struct kunit *test)
{
	static const u64 sizes[] = { 1, 64, 1000, SZ_64K };
	struct precopy_cost *cost = new_cost(test);
	bool measured = true;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		KUNIT_EXPECT_EQ(test, sizes[i] * ASSUMED_NS,
				precopy_cost_estimate(cost, sizes[i] * SZ_1M,
						      &measured));
		KUNIT_EXPECT_FALSE(test, measured);
	}
	KUNIT_EXPECT_EQ(test, 0, precopy_cost_estimate(cost, 0, &measured));
	KUNIT_EXPECT_FALSE(test, measured);
}

/* A fixed part of 3 ms, and 250 us for each MiB */
static u64 line_us(u64 mib)
{
	return 3000 + 250 * mib;
}

static void cost_line(struct kunit *test)
{
	static const u64 sizes[] = { 1, 2, 5, 10, 20, 50, 64, 100 };
	static const u64 asked[] = { 0, 7, 64, 1000, SZ_32K };
	struct precopy_cost *cost = new_cost(test);
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		add_mib(cost, sizes[i], line_us(sizes[i]));
	for (i = 0; i < ARRAY_SIZE(asked); i++)
		expect_near(test, estimate_us(test, cost, asked[i]),
			    line_us(asked[i]));
}

/* Two are enough, whichever came first, and noise around the line is not in it */
static void cost_line_of_few(struct kunit *test)
{
	struct precopy_cost *cost = new_cost(test);

	add_mib(cost, 500, line_us(500));
	add_mib(cost, 4, line_us(4));
	expect_near(test, estimate_us(test, cost, 0), line_us(0));
	expect_near(test, estimate_us(test, cost, 252), line_us(252));

	add_mib(cost, 4, line_us(4) + 900);
	add_mib(cost, 4, line_us(4) - 900);
	add_mib(cost, 500, line_us(500) + 900);
	add_mib(cost, 500, line_us(500) - 900);
	expect_near(test, estimate_us(test, cost, 0), line_us(0));
	expect_near(test, estimate_us(test, cost, 252), line_us(252));
}

/* Of one size no slope can be seen: as assumed, but it explains all at most */
static void cost_one_size(struct kunit *test)
{
	static const u32 counts[] = { 1, 3, PRECOPY_COST_SAMPLES };
	struct precopy_cost *slow, *fast;
	unsigned int i, k;

	for (k = 0; k < ARRAY_SIZE(counts); k++) {
		slow = new_cost(test);
		fast = new_cost(test);
		for (i = 0; i < counts[k]; i++) {
			add_mib(slow, 64, 10000);
			add_mib(fast, 64, 640);
		}
		expect_near(test, estimate_us(test, slow, 64), 10000);
		expect_near(test, estimate_us(test, slow, 0), 3600);
		expect_near(test, estimate_us(test, slow, 128), 16400);
		expect_near(test, estimate_us(test, fast, 64), 640);
		expect_near(test, estimate_us(test, fast, 0), 0);
		expect_near(test, estimate_us(test, fast, 640), 6400);
	}
}

static void cost_one_size_mean(struct kunit *test)
{
	struct precopy_cost *cost = new_cost(test);

	add_mib(cost, 8, 1000);
	add_mib(cost, 8, 2000);
	add_mib(cost, 8, 6000);
	expect_near(test, estimate_us(test, cost, 8), 3000);
}

/* Startups that allocate next to nothing are no samples, and replace none */
static void cost_of_nothing(struct kunit *test)
{
	struct precopy_cost *cost = new_cost(test);
	bool measured = true;
	unsigned int i;

	for (i = 0; i < 2 * PRECOPY_COST_SAMPLES; i++) {
		precopy_cost_add(cost, 0, 1);
		precopy_cost_add(cost, PRECOPY_COST_MIN_BYTES - 1, S64_MAX);
	}
	KUNIT_EXPECT_EQ(test, 10 * ASSUMED_NS,
			precopy_cost_estimate(cost, 10 * SZ_1M, &measured));
	KUNIT_EXPECT_FALSE(test, measured);

	precopy_cost_add(cost, PRECOPY_COST_MIN_BYTES, NSEC_PER_SEC);
	for (i = 0; i < 2 * PRECOPY_COST_SAMPLES; i++)
		precopy_cost_add(cost, PRECOPY_COST_MIN_BYTES - 1, 1);
	expect_near(test, estimate_us(test, cost, 1), USEC_PER_SEC);
}

/* Nothing of an earlier user's is left, however many samples there were */
static void cost_forgotten(struct kunit *test)
{
	struct precopy_cost *cost = new_cost(test);
	bool measured = true;
	unsigned int i;

	for (i = 0; i < PRECOPY_COST_SAMPLES + 3; i++)
		add_mib(cost, 5 + i, 1000000);
	precopy_cost_forget(cost);
	KUNIT_EXPECT_EQ(test, 5 * ASSUMED_NS,
			precopy_cost_estimate(cost, 5 * SZ_1M, &measured));
	KUNIT_EXPECT_FALSE(test, measured);
	add_mib(cost, 4, line_us(4));
	add_mib(cost, 500, line_us(500));
	expect_near(test, estimate_us(test, cost, 0), line_us(0));
	expect_near(test, estimate_us(test, cost, 252), line_us(252));
}

/* The samples of one device do not change the estimate of another */
static void cost_of_each_device(struct kunit *test)
{
	struct precopy_cost *slow = new_cost(test), *fast = new_cost(test);
	struct precopy_cost *none = new_cost(test);
	bool measured = true;
	unsigned int i;

	add_mib(fast, 64, 640);
	for (i = 0; i < PRECOPY_COST_SAMPLES; i++)
		add_mib(slow, 64, 6400000);
	expect_near(test, estimate_us(test, fast, 64), 640);
	KUNIT_EXPECT_EQ(test, 64 * ASSUMED_NS,
			precopy_cost_estimate(none, 64 * SZ_1M, &measured));
	KUNIT_EXPECT_FALSE(test, measured);
}

/* More memory does not take less time */
static void cost_negative_slope(struct kunit *test)
{
	struct precopy_cost *cost = new_cost(test);

	add_mib(cost, 1, 1000000);
	add_mib(cost, 100, 1000);
	expect_near(test, estimate_us(test, cost, 0), 500500);
	expect_near(test, estimate_us(test, cost, 100), 500500);
	expect_near(test, estimate_us(test, cost, SZ_64K), 500500);
}

/* A fitted line that is negative at 0 gives an estimate of 0 */
static void cost_negative_fixed_part(struct kunit *test)
{
	struct precopy_cost *cost = new_cost(test);

	add_mib(cost, 10, 1000);
	add_mib(cost, 20, 1000000);
	KUNIT_EXPECT_EQ(test, 0, estimate_us(test, cost, 0));
	KUNIT_EXPECT_EQ(test, 0, estimate_us(test, cost, 9));
	expect_near(test, estimate_us(test, cost, 15), 500500);
	expect_near(test, estimate_us(test, cost, 20), 1000000);
}

/* Every measurement counts as long as seven have not followed it */
static void cost_ring(struct kunit *test)
{
	struct precopy_cost *cost = new_cost(test);
	unsigned int i;

	for (i = 0; i < 5; i++)
		add_mib(cost, 16, 1000);
	add_mib(cost, 16, 801000);
	expect_near(test, estimate_us(test, cost, 16), 1000 + 800000 / 6);
	for (i = 0; i < 7; i++) {
		add_mib(cost, 16, 1000);
		expect_near(test, estimate_us(test, cost, 16),
			    1000 + 800000 / min(7 + i, PRECOPY_COST_SAMPLES));
	}
	add_mib(cost, 16, 1000);
	expect_near(test, estimate_us(test, cost, 16), 1000);
}

static void cost_ring_of_lines(struct kunit *test)
{
	struct precopy_cost *cost = new_cost(test);
	u64 mib;

	for (mib = 1; mib <= 3 * PRECOPY_COST_SAMPLES; mib++)
		add_mib(cost, mib, 70000 - 10 * mib);
	for (mib = 1; mib <= PRECOPY_COST_SAMPLES; mib++)
		add_mib(cost, mib, line_us(mib));
	expect_near(test, estimate_us(test, cost, 0), line_us(0));
	expect_near(test, estimate_us(test, cost, 30), line_us(30));
}

static const u64 extremes[] = {
	0, 1, SZ_1M - 1, SZ_1M, 64ULL * SZ_1G, S64_MAX, U64_MAX,
};

static void fill_extreme(struct precopy_cost *cost, unsigned int pick)
{
	unsigned int i, n = ARRAY_SIZE(extremes);

	/* Two kinds of samples, in any proportion that may matter */
	for (i = 0; i < PRECOPY_COST_SAMPLES; i++) {
		if (i % 4 == 0)
			precopy_cost_add(cost, extremes[pick % n],
					 extremes[pick / n % n]);
		else
			precopy_cost_add(cost, extremes[pick / n / n % n],
					 extremes[pick / n / n / n % n]);
	}
}

/* Whatever was measured: no overflow, and never less for more memory */
static void cost_extremes(struct kunit *test)
{
	unsigned int i, pick, n = ARRAY_SIZE(extremes);
	struct precopy_cost *cost = new_cost(test);
	u64 ns, last;
	bool measured;

	for (pick = 0; pick < n * n * n * n; pick++) {
		fill_extreme(cost, pick);
		for (last = 0, i = 0; i < n; i++) {
			ns = precopy_cost_estimate(cost, extremes[i], &measured);
			KUNIT_ASSERT_LE(test, ns, LARGEST_NS);
			KUNIT_ASSERT_GE(test, ns, last);
			last = ns;
		}
	}
}

/* A quarter of an hour and 64 GiB are still told apart from more and less */
static void cost_large(struct kunit *test)
{
	struct precopy_cost *cost = new_cost(test);

	add_mib(cost, SZ_64K, 900 * USEC_PER_SEC);
	add_mib(cost, SZ_32K, 450 * USEC_PER_SEC);
	expect_near(test, estimate_us(test, cost, SZ_64K), 900 * USEC_PER_SEC);
	expect_near(test, estimate_us(test, cost, SZ_16K), 225 * USEC_PER_SEC);
}

static struct kunit_case cost_cases[] = {
	KUNIT_CASE(cost_assumed),
	KUNIT_CASE(cost_line),
	KUNIT_CASE(cost_line_of_few),
	KUNIT_CASE(cost_one_size),
	KUNIT_CASE(cost_one_size_mean),
	KUNIT_CASE(cost_of_nothing),
	KUNIT_CASE(cost_forgotten),
	KUNIT_CASE(cost_of_each_device),
	KUNIT_CASE(cost_negative_slope),
	KUNIT_CASE(cost_negative_fixed_part),
	KUNIT_CASE(cost_ring),
	KUNIT_CASE(cost_ring_of_lines),
	KUNIT_CASE(cost_extremes),
	KUNIT_CASE(cost_large),
	{}
};

static struct kunit_suite cost_suite = {
	.name = "precopy_cost",
	.test_cases = cost_cases,
};

kunit_test_suite(cost_suite);
