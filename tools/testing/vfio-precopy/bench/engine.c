// SPDX-License-Identifier: GPL-2.0-only
/*
 * The engine of a device that acts: copies by DMA against copies by memcpy(), interrupts
 * against stores to an eventfd, and reading the DMA log, over the size of its range and
 * over the number of pages that were written.
 *
 *   engine [--reps N] [--quick] DEVICE [SIMULATED]
 *
 * DEVICE is behind an IOMMU and is measured with type1 and with iommufd, SIMULATED
 * behind the simulated IOMMU.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/eventfd.h>

#include <linux/sizes.h>

#include <libvfio/precopy_engine.h>

#include "l1.h"

#define MEMORY		SZ_4M
#define RAM		(64 * MIB)
#define COPY		SZ_1M
#define COPIES		16
#define INTERRUPTS	4096
#define VECTOR		1

struct way {
	const char *name;
	const char *mode;
	int bdf;		/* number of the device on the command line */
};

static const struct way ways[] = {
	{ "type1", MODE_VFIO_TYPE1V2_IOMMU, 0 },
	{ "iommufd", MODE_IOMMUFD, 0 },
	{ "sim", MODE_IOMMUFD, 1 },
};

/* A command as often as it says, in ns */
static uint64_t command_ns(struct engine *e, const struct engine_command *command)
{
	uint64_t t0 = now_ns();
	int ret;

	ret = engine_run(e, command);
	t0 = now_ns() - t0;
	if (ret)
		fatal("the engine fails: %s", strerror(-ret));
	return t0;
}

static uint64_t memcpy_ns(char *to, const char *from)
{
	uint64_t t0 = now_ns();
	size_t done;
	int i;

	for (i = 0; i < COPIES; i++)
		for (done = 0; done < COPY; done += PAGE) {
			memcpy(to + done, from + done, PAGE);
			/* Each of the copies is to be made */
			__asm__ volatile("" ::: "memory");
		}
	return now_ns() - t0;
}

/* Bytes a second, and time of a page */
static void sample_copy(const char *who, uint64_t ns)
{
	sample(COPY, (double)COPY * COPIES * 1e9 / ns, "engine.copy.%s", who);
	sample(COPY, (double)ns / (COPIES * (COPY / PAGE)), "engine.page.%s", who);
}

static void measure_copy(struct engine *e, const struct way *way)
{
	const struct engine_command copy = {
		.op = PRECOPY_ENGINE_OP_COPY, .src = ENGINE_IOVA,
		.dst = ENGINE_IOVA + COPY, .len = COPY, .count = COPIES,
	};

	memory_random(e->ram, COPY, now_ns());
	sample_copy(way->name, command_ns(e, &copy));
	if (memcmp(e->ram, e->ram + COPY, COPY))
		fatal("the copy differs");
}

static uint64_t eventfd_ns(void)
{
	int fd = eventfd(0, EFD_CLOEXEC), i;
	uint64_t one = 1, t0 = now_ns();

	for (i = 0; i < INTERRUPTS; i++)
		if (write(fd, &one, sizeof(one)) != sizeof(one))
			fatal("eventfd: %s", strerror(errno));
	t0 = now_ns() - t0;
	close(fd);
	return t0;
}

static void measure_interrupts(struct engine *e, const struct way *way)
{
	const struct engine_command raise = {
		.op = PRECOPY_ENGINE_OP_IRQ, .src = VECTOR, .count = INTERRUPTS,
	};

	sample(0, (double)command_ns(e, &raise) / INTERRUPTS, "engine.irq.%s",
	       way->name);
	if (engine_irqs(e, VECTOR) != INTERRUPTS)
		fatal("interrupts got lost");
}

/* --- The log ---------------------------------------------------------------- */

static void log_start(struct engine *e, uint64_t bytes)
{
	struct vfio_device_feature_dma_logging_range range = {
		ENGINE_IOVA, bytes,
	};
	u64 page_size = PAGE;

	if (dma_log_start(e->pd.dev, &page_size, &range, 1))
		fatal("the DMA log does not start");
}

static uint64_t report_ns(struct engine *e, uint64_t bytes, void *bitmap)
{
	uint64_t t0 = now_ns();

	if (dma_log_report(e->pd.dev, ENGINE_IOVA, bytes, PAGE, bitmap))
		fatal("the DMA log is not reported");
	return now_ns() - t0;
}

static void measure_log_range(struct engine *e, uint64_t bytes)
{
	void *bitmap = memory_alloc(bytes / PAGE / 8, false);

	log_start(e, bytes);
	sample(bytes, report_ns(e, bytes, bitmap), "engine.log.range");
	dma_log_stop(e->pd.dev);
	memory_free(bitmap, bytes / PAGE / 8);
}

static uint64_t bits(const uint64_t *bitmap, size_t words)
{
	uint64_t nr = 0;

	while (words--)
		nr += __builtin_popcountll(bitmap[words]);
	return nr;
}

static void measure_log_pages(struct engine *e, uint64_t pages)
{
	const struct engine_command stamp = {
		.op = PRECOPY_ENGINE_OP_STAMP, .dst = ENGINE_IOVA,
		.len = pages * PAGE, .count = 1,
	};
	static uint64_t bitmap[RAM / PAGE / 64];

	memset(bitmap, 0, sizeof(bitmap));
	log_start(e, RAM);
	command_ns(e, &stamp);
	sample(pages, report_ns(e, RAM, bitmap), "engine.log.pages");
	if (bits(bitmap, ARRAY_LEN(bitmap)) != pages)
		fatal("the DMA log is wrong");
	dma_log_stop(e->pd.dev);
}

static void measure_log(struct engine *e, bool quick)
{
	uint64_t bytes, pages;

	for (bytes = GIB; bytes <= (quick ? 4 : 64) * GIB; bytes *= 4)
		measure_log_range(e, bytes);
	for (pages = 256; pages <= (quick ? 4096 : RAM / PAGE); pages *= 4)
		measure_log_pages(e, pages);
}

/* ----------------------------------------------------------------------------- */

/* A device of each way can be open at a time, so they are opened in turn */
static void measure(const struct way *way, const char *bdf, bool quick)
{
	struct engine e;

	engine_open(&e, bdf, way->mode, MEMORY, RAM);
	engine_irqs_enable(&e);
	memset(e.ram, 1, 2 * COPY);
	measure_copy(&e, way);
	measure_interrupts(&e, way);
	if (!strcmp(way->name, "iommufd"))
		measure_log(&e, quick);
	engine_close(&e);
}

static void measure_others(void)
{
	char *memory = memory_alloc(2 * COPY, true);

	memory_random(memory, COPY, now_ns());
	sample_copy("memcpy", memcpy_ns(memory + COPY, memory));
	sample(0, (double)eventfd_ns() / INTERRUPTS, "engine.irq.eventfd");
	memory_free(memory, 2 * COPY);
}

int main(int argc, char **argv)
{
	struct bench_options opt = { .reps = 5 };
	size_t i;
	int rep;

	bench_options(&opt, argc, argv, 1);
	for (rep = 0; rep < opt.reps; rep++) {
		progress("the engine: %d of %d", rep + 1, opt.reps);
		measure_others();
		for (i = 0; i < ARRAY_LEN(ways); i++)
			if (ways[i].bdf < opt.nr_bdfs)
				measure(&ways[i], opt.bdfs[ways[i].bdf], opt.quick);
	}
	return 0;
}
