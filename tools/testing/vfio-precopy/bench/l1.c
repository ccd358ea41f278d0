// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "l1.h"

void bench_options(struct bench_options *opt, int argc, char **argv,
		   int need_bdfs)
{
	static const struct option options[] = {
		{ "size", required_argument, NULL, 's' },
		{ "reps", required_argument, NULL, 'r' },
		{ "quick", no_argument, NULL, 'q' },
		{ "in-use", required_argument, NULL, 'u' },
		{ "threads", required_argument, NULL, 't' },
		{ }
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's')
			opt->size = parse_size(optarg);
		else if (c == 'r')
			opt->reps = atoi(optarg);
		else if (c == 'q')
			opt->quick = true;
		else if (c == 'u')
			opt->in_use = optarg;
		else if (c == 't')
			opt->threads = atoi(optarg);
		else
			exit(2);
	}
	opt->bdfs = argv + optind;
	opt->nr_bdfs = argc - optind;
	if (opt->nr_bdfs < need_bdfs || opt->reps < 1)
		fatal("usage: %s [OPTION]... BDF...", argv[0]);
	precopy_require(opt->bdfs, opt->nr_bdfs);
}

int bench_set_state(struct precopy_dev *pd, u32 state)
{
	int data_fd = -1, ret;

	ret = mig_set_state(pd->dev, state, &data_fd);
	if (ret)
		fatal("%s does not go to %s: %s", pd->bdf,
		      mig_state_name(state), strerror(-ret));
	return data_fd;
}

void bench_sample_step(struct precopy_dev *pd, double x, const char *key,
		       uint64_t ns, const char *stat)
{
	int64_t inner = precopy_stat(pd->bdf, stat);

	sample(x, ns, "%s", key);
	if (inner >= 0)
		sample(x, inner, "%s.inner", key);
}

char *bench_map_bar(struct precopy_dev *pd, char *at, size_t size, size_t shift)
{
	char *p = at;

	if (!p) {
		p = memory_reserve(size + shift);
		if (shift)
			munmap(p, shift);
		p += shift;
	}
	p = mmap(p, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
		 pd->fd, pd->bar_offset);
	if (p == MAP_FAILED)
		fatal("the BAR cannot be mapped");
	madvise(p, size, MADV_HUGEPAGE);
	return p;
}

uint64_t bench_drain(int data_fd, void *buf, size_t buf_size, uint64_t *bytes)
{
	uint64_t total = 0, t0 = now_ns(), ns;
	ssize_t n;

	while ((n = read(data_fd, buf, buf_size)) > 0)
		total += n;
	ns = now_ns() - t0;
	if (n < 0 && errno != ENOMSG)
		fatal("reading the stream fails");
	if (bytes)
		*bytes = total;
	return ns;
}

double touch_ns(void *at, uint64_t nr, uint64_t value)
{
	uint64_t t0 = now_ns();

	touch_pages(at, nr, value);
	return (double)(now_ns() - t0) / nr;
}
