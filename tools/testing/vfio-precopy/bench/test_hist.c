// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tests of the histograms, against a sorted list of the same times. A time is known
 * to 1/HIST_PARTS, and so are the results.
 */
#include <math.h>
#include <stdlib.h>

#include "bench.h"
#include "hist.h"

#define TIMES	100000

static const double shares[] = { 0.5, 0.9, 0.999, 0.9999, 0.99999, 1 };

static uint64_t times[TIMES];

static int compare(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

/* From nothing to an hour: every octave has some */
static void make_times(void)
{
	int i;

	srand(1);
	for (i = 0; i < TIMES; i++)
		times[i] = pow(3.6e12, (double)rand() / RAND_MAX) - 1;
}

static void check_near(const char *what, double got, double want)
{
	if (fabs(got - want) > want / HIST_PARTS)
		fatal("%s: %g, not %g", what, got, want);
}

/* The times that hist_excess() must count, and those that it may */
static void check_excess(const struct hist *hist, uint64_t ns)
{
	uint64_t least = 0, most = 0, got = hist_excess(hist, ns);
	int i;

	for (i = 0; i < TIMES; i++) {
		if (times[i] > ns)
			most += times[i] - ns;
		if (times[i] > ns + ns / HIST_PARTS)
			least += times[i] - ns;
	}
	if (got < least || got > most)
		fatal("excess above %lu: %lu, not %lu to %lu", ns, got, least, most);
}

int main(void)
{
	static struct hist hist, parts[2];
	size_t i, beyond;

	make_times();
	for (i = 0; i < TIMES; i++)
		hist_add(&parts[i % 2], times[i]);
	for (i = 0; i < ARRAY_LEN(parts); i++)
		hist_merge(&hist, &parts[i]);
	qsort(times, TIMES, sizeof(*times), compare);
	if (hist_count(&hist) != TIMES)
		fatal("%lu times, not %d", hist_count(&hist), TIMES);
	if (hist.longest != times[TIMES - 1])
		fatal("the longest is %lu", hist.longest);
	for (i = 0; i < ARRAY_LEN(shares); i++) {
		beyond = TIMES * (1 - shares[i]);
		check_near("quantile", hist_quantile(&hist, shares[i]),
			   times[TIMES - 1 - beyond]);
	}
	for (i = 0; i < TIMES; i += TIMES / 50)
		check_excess(&hist, times[i]);
	return 0;
}
