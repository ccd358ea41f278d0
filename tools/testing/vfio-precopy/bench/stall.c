// SPDX-License-Identifier: GPL-2.0-only
/*
 * How long accesses to the BAR are kept waiting while the driver works: threads that
 * load and store at random, and measure each access, while the device is not
 * tracked, while tracking begins, while the initial data is read, while a migration
 * is cancelled, the same once more, and during a reset.
 *
 *   stall [--reps N] [--in-use MIB,...] [--threads N] [--quick] BDF
 *
 * --threads is the number of those that load, and of those that store.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "hist.h"
#include "l1.h"
#include "load.h"

#define BAR		(64 * GIB)
#define UNIT		(2 * MIB)
/* By one read(): 256 MiB of zeroes, and not much beyond the initial data */
#define BUF		(4 * KIB)
#define MAX_SIZES	8
#define SHARE		0.9999
#define UNTRACKED_US	1000000
#define QUICK_US	300000
/* Time after which the initial data is not read any more: later reads cost the same */
#define PASS_NS		10000000000ULL
#define QUICK_PASS_NS	3000000000ULL
#define FREEING_MS	60000
/* Memory left for page tables, sets of pages and programs, bytes */
#define SPARE		(384 * MIB)

enum phase {
	OTHER,
	UNTRACKED,
	ARM,
	PASS,
	CANCEL,
	AFTER,
	ARM_AGAIN,
	PASS_AGAIN,
	CANCEL_AGAIN,
	AFTER_AGAIN,
	RESET,
	NR_PHASES,
};

static const char * const phase_names[NR_PHASES] = {
	[UNTRACKED] = "untracked",
	[ARM] = "arm",
	[PASS] = "pass",
	[CANCEL] = "cancel",
	[AFTER] = "after",
	[ARM_AGAIN] = "arm-2",
	[PASS_AGAIN] = "pass-2",
	[CANCEL_AGAIN] = "cancel-2",
	[AFTER_AGAIN] = "after-2",
	[RESET] = "reset",
};

/* Page table entries are large where the mapping is aligned as the device is */
static const struct entries {
	const char *name;
	size_t shift;
} entries[] = {
	{ "2m", 0 },
	{ "4k", PAGE },
};

/* One size and kind of entries */
struct run {
	struct precopy_dev *pd;
	struct load *load;
	const struct entries *entries;
	char *at;
	size_t size;			/* in use */
	/* Clocks at the beginning of the step */
	uint64_t began;
	uint64_t ran;
};

static struct bench_options opt = {
	.reps = 5, .in_use = "1024,4096,16384", .threads = 4,
};

static char *buf;

static void enter(struct run *run, enum phase phase)
{
	load_phase(run->load, phase, phase != OTHER && phase != UNTRACKED);
}

static void begin(struct run *run, enum phase phase)
{
	enter(run, phase);
	run->ran = ran_ns();
	run->began = now_ns();
}

/* @stat: what the driver says of the step, or "" */
static void end(struct run *run, enum phase phase, const char *stat)
{
	uint64_t took = now_ns() - run->began, ran = ran_ns() - run->ran;
	char key[64];

	enter(run, OTHER);
	snprintf(key, sizeof(key), "stall.%s.%s.took", run->entries->name,
		 phase_names[phase]);
	bench_sample_step(run->pd, run->size, key, took, stat);
	sample(run->size, ran, "stall.%s.%s.ran", run->entries->name,
	       phase_names[phase]);
}

/* --- The phases --------------------------------------------------------------- */

/* One load from each page, so that it is in use and has an entry */
static void load_pages(const char *at, size_t size)
{
	size_t offset;

	for (offset = 0; offset < size; offset += PAGE)
		(void)*(volatile const char *)(at + offset);
}

/* A tracked unit that is stored to is divided into pages: all of them, here */
static void store_units(char *at, size_t size)
{
	size_t offset;

	for (offset = 0; offset < size; offset += UNIT)
		*(volatile uint64_t *)(at + offset + UNIT - PAGE) = 0;
}

static void untracked(struct run *run)
{
	enter(run, UNTRACKED);
	usleep(opt.quick ? QUICK_US : UNTRACKED_US);
}

/* All of the initial data, unless that takes too long */
static void read_initial(int data_fd)
{
	uint64_t until = now_ns() + (opt.quick ? QUICK_PASS_NS : PASS_NS);
	struct vfio_precopy_info info = { };

	do {
		if (read(data_fd, buf, BUF) < 0)
			fatal("reading the stream fails");
		if (mig_precopy_info(data_fd, &info))
			fatal("PRECOPY_INFO fails");
	} while (info.initial_bytes && now_ns() < until);
}

/* A migration that is cancelled; @again: 0, or the distance to the second's phases */
static void migrate(struct run *run, int again)
{
	int data_fd;

	untracked(run);
	begin(run, ARM + again);
	data_fd = bench_set_state(run->pd, VFIO_DEVICE_STATE_PRE_COPY);
	end(run, ARM + again, "last_arm_ns");
	begin(run, PASS + again);
	read_initial(data_fd);
	end(run, PASS + again, "");
	store_units(run->at, run->size);
	begin(run, CANCEL + again);
	bench_set_state(run->pd, VFIO_DEVICE_STATE_RUNNING);
	end(run, CANCEL + again, "last_disarm_ns");
	begin(run, AFTER + again);
	load_pages(run->at, run->size);
	end(run, AFTER + again, "");
	close(data_fd);
}

static void reset(struct run *run)
{
	untracked(run);
	begin(run, RESET);
	vfio_pci_device_reset(run->pd->dev);
	end(run, RESET, "");
}

/* --- What the threads saw ------------------------------------------------------- */

static void all_times(struct run *run, enum phase phase, enum load_time time,
		      struct hist *hist)
{
	memset(hist, 0, sizeof(*hist));
	load_times(run->load, phase, LOAD_READ, time, hist);
	load_times(run->load, phase, LOAD_WRITE, time, hist);
}

static void sample_phase(struct run *run, enum phase phase, const char *what,
			 double value)
{
	sample(run->size, value, "stall.%s.%s.%s", run->entries->name,
	       phase_names[phase], what);
}

/* The longest of one kind of access, in the driver */
static void sample_kind(struct run *run, enum phase phase, enum load_kind kind,
			const char *name)
{
	static struct hist hist;

	memset(&hist, 0, sizeof(hist));
	load_times(run->load, phase, kind, LOAD_DRIVER, &hist);
	sample_phase(run, phase, name, hist.longest);
}

/* @usual: the time that is not called lost */
static void sample_seen(struct run *run, enum phase phase, uint64_t usual)
{
	static struct hist hist;

	all_times(run, phase, LOAD_WALL, &hist);
	sample_phase(run, phase, "count", hist_count(&hist));
	sample_phase(run, phase, "quantile", hist_quantile(&hist, SHARE));
	sample_phase(run, phase, "longest", hist.longest);
	sample_kind(run, phase, LOAD_READ, "read");
	sample_kind(run, phase, LOAD_WRITE, "write");
	all_times(run, phase, LOAD_DRIVER, &hist);
	sample_phase(run, phase, "lost", hist_excess(&hist, usual));
	all_times(run, phase, LOAD_ASLEEP, &hist);
	sample_phase(run, phase, "asleep", hist.longest);
	sample_phase(run, phase, "lost-asleep", hist_excess(&hist, 0));
}

static void sample_all_seen(struct run *run)
{
	static struct hist hist;
	enum phase phase;
	uint64_t usual;

	all_times(run, UNTRACKED, LOAD_DRIVER, &hist);
	usual = hist_quantile(&hist, SHARE);
	for (phase = UNTRACKED; phase < NR_PHASES; phase++)
		sample_seen(run, phase, usual);
}

/* --------------------------------------------------------------------------------- */

static size_t free_memory(void)
{
	return sysconf(_SC_AVPHYS_PAGES) * PAGE;
}

/* The driver frees its memory after the reset has returned */
static void wait_until_free(size_t bytes)
{
	uint64_t end = now_ns() + FREEING_MS * 1000000ULL;

	while (free_memory() < bytes && now_ns() < end)
		usleep(10000);
}

static void one_run(struct run *run)
{
	size_t before = free_memory();

	run->at = bench_map_bar(run->pd, NULL, run->size, run->entries->shift);
	load_pages(run->at, run->size);
	load_resume(run->load, run->at, run->size / PAGE);
	migrate(run, 0);
	migrate(run, ARM_AGAIN - ARM);
	reset(run);
	load_pause(run->load);
	sample_all_seen(run);
	/* Accesses after the reset have allocated memory again */
	vfio_pci_device_reset(run->pd->dev);
	munmap(run->at, run->size);
	wait_until_free(before - before / 16);
}

/* The sizes of --in-use that fit into the machine and the BAR; returns how many */
static int parse_sizes(size_t *sizes, size_t bar)
{
	const char *text = opt.in_use;
	char *end;
	int nr = 0;

	for (; *text && nr < MAX_SIZES; text = *end ? end + 1 : end) {
		sizes[nr] = strtoull(text, &end, 10) * MIB;
		if (end == text || (*end && *end != ',') || sizes[nr] % UNIT)
			fatal("'%s': sizes in use are MiB, even, and in a list", text);
		if (sizes[nr] < bar &&
		    sizes[nr] + sizes[nr] / 32 + SPARE < free_memory())
			nr++;
		else
			progress("%zu MiB do not fit into this machine",
				 sizes[nr] / MIB);
	}
	if (!nr)
		fatal("none of the sizes fits");
	return nr;
}

/* The largest BAR that there can be */
static size_t bar_size(void)
{
	char text[32];
	size_t size;

	for (size = BAR; size > UNIT; size /= 2) {
		snprintf(text, sizeof(text), "%zu", size);
		if (!precopy_sysfs_write(opt.bdfs[0], "memory_size", text))
			break;
	}
	return size;
}

int main(int argc, char **argv)
{
	size_t sizes[MAX_SIZES], bar, i;
	struct precopy_dev pd;
	struct run run = { .pd = &pd };
	int nr, n, rep;

	bench_options(&opt, argc, argv, 1);
	buf = memory_alloc(BUF, false);
	bar = bar_size();
	nr = parse_sizes(sizes, bar);
	precopy_open(&pd, opt.bdfs[0], "iommufd", bar);
	run.load = load_start(opt.threads);
	sample(0, pd.size, "config.stall.bar");
	sample(0, opt.threads, "config.stall.threads");
	for (rep = 0; rep < opt.reps; rep++) {
		for (n = 0; n < nr; n++) {
			progress("accesses that wait, %zu MiB in use: %d of %d",
				 sizes[n] / MIB, rep + 1, opt.reps);
			for (i = 0; i < ARRAY_LEN(entries); i++) {
				run.entries = &entries[i];
				run.size = sizes[n];
				one_run(&run);
			}
		}
	}
	load_stop(run.load);
	precopy_close(&pd);
	return 0;
}
