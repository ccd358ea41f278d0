// SPDX-License-Identifier: GPL-2.0-only
/*
 * How fast the driver's stream is read and written, against a memfd that holds
 * the same: one after the other, in buffers of the same size, again and again.
 *
 *   save_load [--size BYTES] [--reps N] BDF-A BDF-B
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "l1.h"

#define MAX_BUF		(8 * MIB)

static const size_t buf_sizes[] = { 4 * KIB, 64 * KIB, 1 * MIB, MAX_BUF };

/* What the driver says of its time, as far as it says anything. */
static const char * const save_parts[] = { "copy", "checksum", "protect", "user" };
static const char * const load_parts[] = { "user", "checksum", "store" };

#define MAX_PARTS	4

struct split {
	const char *bdf;
	const char *way;		/* save or load */
	const char * const *parts;
	size_t nr_parts;
	int64_t before[MAX_PARTS];
};

struct bench {
	struct bench_options opt;
	struct precopy_dev a, b;
	const char *data;		/* random or zero */
	char *contents;
	char *buf;
	struct mig_stream stream;
};

static int64_t part_ns(const struct split *split, size_t i)
{
	char name[64];

	snprintf(name, sizeof(name), "%s_%s_ns", split->way, split->parts[i]);
	return precopy_stat(split->bdf, name);
}

static void split_begin(struct split *split)
{
	size_t i;

	for (i = 0; i < split->nr_parts; i++)
		split->before[i] = part_ns(split, i);
}

/* Picoseconds for a byte of memory */
static void split_end(struct split *split, const struct bench *bench,
		      size_t buf_size)
{
	size_t i;

	for (i = 0; i < split->nr_parts; i++)
		if (split->before[i] >= 0)
			sample(buf_size, (part_ns(split, i) - split->before[i]) *
			       1e3 / bench->opt.size, "split.%s.%s.%s",
			       split->way, bench->data, split->parts[i]);
}

static void sample_rate(const struct bench *bench, size_t buf_size, uint64_t ns,
			const char *way, const char *who)
{
	sample(buf_size, bench->opt.size * 1e9 / ns, "%s.%s.%s", way,
	       bench->data, who);
	sample(buf_size, ns * 1e3 / bench->opt.size, "ps.%s.%s.%s", way,
	       bench->data, who);
}

/* The initial data of a pre-copy: everything in use, once */
static void save_precopy(struct bench *bench, size_t buf_size)
{
	struct split split = {
		.bdf = bench->a.bdf, .way = "save",
		.parts = save_parts, .nr_parts = ARRAY_LEN(save_parts),
	};
	int data_fd = bench_set_state(&bench->a, VFIO_DEVICE_STATE_PRE_COPY);
	uint64_t ns;

	split_begin(&split);
	ns = bench_drain(data_fd, bench->buf, buf_size, NULL);
	split_end(&split, bench, buf_size);
	bench_set_state(&bench->a, VFIO_DEVICE_STATE_RUNNING);
	close(data_fd);
	sample_rate(bench, buf_size, ns, "save", "driver");
}

static void save_stopped(struct bench *bench, size_t buf_size)
{
	int data_fd = bench_set_state(&bench->a, VFIO_DEVICE_STATE_STOP_COPY);
	uint64_t ns;

	ns = bench_drain(data_fd, bench->buf, buf_size, NULL);
	bench_set_state(&bench->a, VFIO_DEVICE_STATE_RUNNING);
	close(data_fd);
	sample_rate(bench, buf_size, ns, "save", "stopped");
}

static void save_memfd(struct bench *bench, int memfd, size_t buf_size)
{
	uint64_t ns;

	lseek(memfd, 0, SEEK_SET);
	ns = bench_drain(memfd, bench->buf, buf_size, NULL);
	sample_rate(bench, buf_size, ns, "save", "memfd");
}

/*
 * What is written comes out of the one buffer, as in a VMM that receives it;
 * the copies into it are not counted.
 */
static uint64_t write_all(struct bench *bench, int fd, const void *data,
			  size_t len, size_t buf_size)
{
	uint64_t t0, ns = 0;
	size_t done, n;
	int ret;

	for (done = 0; done < len; done += n) {
		n = len - done < buf_size ? len - done : buf_size;
		memcpy(bench->buf, data + done, n);
		t0 = now_ns();
		ret = mig_write_all(fd, bench->buf, n, n, NULL);
		ns += now_ns() - t0;
		if (ret)
			fatal("a write fails: %s", strerror(-ret));
	}
	return ns;
}

static void load_driver(struct bench *bench, size_t buf_size)
{
	struct split split = {
		.bdf = bench->b.bdf, .way = "load",
		.parts = load_parts, .nr_parts = ARRAY_LEN(load_parts),
	};
	int data_fd = bench_set_state(&bench->b, VFIO_DEVICE_STATE_RESUMING);
	uint64_t ns;

	split_begin(&split);
	ns = write_all(bench, data_fd, bench->stream.data, bench->stream.len,
		       buf_size);
	split_end(&split, bench, buf_size);
	bench_set_state(&bench->b, VFIO_DEVICE_STATE_RUNNING);
	close(data_fd);
	sample_rate(bench, buf_size, ns, "load", "driver");
}

/* A new one each time: the driver has to allocate as well */
static void load_memfd(struct bench *bench, size_t buf_size)
{
	int memfd = memfd_create("bench", MFD_CLOEXEC);
	uint64_t ns;

	if (memfd < 0)
		fatal("no memfd");
	ns = write_all(bench, memfd, bench->contents, bench->opt.size, buf_size);
	close(memfd);
	sample_rate(bench, buf_size, ns, "load", "memfd");
}

static void one_rep(struct bench *bench, int memfd)
{
	size_t i;

	for (i = 0; i < ARRAY_LEN(buf_sizes); i++) {
		save_memfd(bench, memfd, buf_sizes[i]);
		save_precopy(bench, buf_sizes[i]);
		save_stopped(bench, buf_sizes[i]);
		load_memfd(bench, buf_sizes[i]);
		load_driver(bench, buf_sizes[i]);
	}
}

/* Pages that are in use, whatever they hold */
static void fill_device(struct bench *bench, bool random)
{
	precopy_reset(&bench->a);
	touch_pages(bench->a.bar, bench->opt.size / PAGE, 0);
	if (random)
		memory_random(bench->contents, bench->opt.size, 1);
	else
		memset(bench->contents, 0, bench->opt.size);
	if (random)
		memcpy(bench->a.bar, bench->contents, bench->opt.size);
}

static void check_loaded(struct bench *bench)
{
	if (memcmp(bench->b.bar, bench->contents, bench->opt.size))
		fatal("what was loaded is not what was saved");
}

static void run(struct bench *bench, bool random)
{
	int memfd, rep, ret;

	bench->data = random ? "random" : "zero";
	fill_device(bench, random);
	memfd = memfd_filled(bench->contents, bench->opt.size);
	bench->stream.len = 0;
	ret = mig_save(bench->a.dev, &bench->stream);
	if (ret)
		fatal("the device is not saved: %s", strerror(-ret));
	bench_set_state(&bench->a, VFIO_DEVICE_STATE_RUNNING);
	for (rep = 0; rep < bench->opt.reps; rep++) {
		progress("save and load, %s data: %d of %d", bench->data,
			 rep + 1, bench->opt.reps);
		one_rep(bench, memfd);
	}
	check_loaded(bench);
	close(memfd);
}

int main(int argc, char **argv)
{
	struct bench bench = { .opt = { .size = 32 * MIB, .reps = 5 } };

	bench_options(&bench.opt, argc, argv, 2);
	precopy_open(&bench.a, bench.opt.bdfs[0], "iommufd", bench.opt.size);
	precopy_open(&bench.b, bench.opt.bdfs[1], "iommufd", bench.opt.size);
	bench.contents = memory_alloc(bench.opt.size, true);
	bench.buf = memory_alloc(MAX_BUF, false);
	sample(0, bench.opt.size, "config.save.size");
	run(&bench, true);
	run(&bench, false);
	mig_stream_free(&bench.stream);
	precopy_close(&bench.b);
	precopy_close(&bench.a);
	return 0;
}
