/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Does the kernel lose something each time? What it has in use is sampled while
 * the same is done again and again, and a line is put through the samples. All
 * memory counts that is neither a user's nor page cache, also what nobody
 * accounts for; and slab objects by cache, files, fds and references of a module.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_LEAK_WATCH_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_LEAK_WATCH_H

#include <linux/types.h>

#define LEAK_WATCH_SAMPLES	64
#define LEAK_WATCH_METRICS	1024
#define LEAK_WATCH_NAME		64

struct leak_metric {
	char name[LEAK_WATCH_NAME];
	double per_cycle;	/* that much is a leak, */
	double least;		/* if it was that much in all */
	double value[LEAK_WATCH_SAMPLES];
};

struct leak_watch {
	const char *module;
	double coarseness;
	double noise;
	unsigned int nr_samples;
	unsigned int nr_metrics;
	u64 cycle[LEAK_WATCH_SAMPLES];
	struct leak_metric metrics[LEAK_WATCH_METRICS];
};

/*
 * @watch is all zero. @module, whose references count, may be NULL. Half a page
 * in ten cycles is a leak, times @coarseness.
 */
void leak_watch_init(struct leak_watch *watch, const char *module,
		     double coarseness);

/*
 * After @cycle cycles, while what they used ought to have been given back. Takes
 * some tenths of a second, for what is freed a little later. More samples than
 * there is room for are ignored.
 */
void leak_watch_sample(struct leak_watch *watch, u64 cycle);

/*
 * Prints what grew and how the memory went, as lines that begin with "# ".
 * Returns the number of metrics that leak. Needs three samples.
 */
unsigned int leak_watch_judge(struct leak_watch *watch);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_LEAK_WATCH_H */
