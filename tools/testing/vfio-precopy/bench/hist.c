// SPDX-License-Identifier: GPL-2.0-only
#include "hist.h"

/* Times below HIST_PARTS have a bucket each */
static unsigned int hist_bucket(uint64_t ns)
{
	unsigned int octave, bucket;

	if (ns < HIST_PARTS)
		return ns;
	octave = 63 - __builtin_clzll(ns) - HIST_PART_BITS;
	bucket = ((octave + 1) << HIST_PART_BITS) + (ns >> octave) - HIST_PARTS;
	return bucket < HIST_BUCKETS ? bucket : HIST_BUCKETS - 1;
}

void hist_add(struct hist *hist, uint64_t ns)
{
	unsigned int bucket = hist_bucket(ns);

	hist->nr[bucket]++;
	hist->sum[bucket] += ns;
	if (ns > hist->longest)
		hist->longest = ns;
}

void hist_merge(struct hist *hist, const struct hist *from)
{
	unsigned int i;

	for (i = 0; i < HIST_BUCKETS; i++) {
		hist->nr[i] += from->nr[i];
		hist->sum[i] += from->sum[i];
	}
	if (from->longest > hist->longest)
		hist->longest = from->longest;
}

uint64_t hist_count(const struct hist *hist)
{
	uint64_t nr = 0;
	unsigned int i;

	for (i = 0; i < HIST_BUCKETS; i++)
		nr += hist->nr[i];
	return nr;
}

uint64_t hist_quantile(const struct hist *hist, double share)
{
	/* How many times may be longer */
	uint64_t beyond = hist_count(hist) * (1 - share), nr = 0;
	unsigned int i;

	if (!beyond)
		return hist->longest;
	for (i = HIST_BUCKETS - 1; i > 0; i--) {
		nr += hist->nr[i];
		if (nr > beyond)
			return hist->sum[i] / hist->nr[i];
	}
	return 0;
}

uint64_t hist_excess(const struct hist *hist, uint64_t ns)
{
	uint64_t excess = 0;
	unsigned int i;

	for (i = hist_bucket(ns) + 1; i < HIST_BUCKETS; i++)
		excess += hist->sum[i] - hist->nr[i] * ns;
	return excess;
}
