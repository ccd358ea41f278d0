// SPDX-License-Identifier: GPL-2.0-only
/*
 * The simulated IOMMU against what it stands for: DMA of a simulated function
 * against a copy of the same bytes, mapping and unmapping memory against another
 * IOMMU of this machine, and opening a function, which may have a reset to do.
 *
 *   sim_iommu [--reps N] [--quick] SIMULATED OTHER
 *
 * Both functions need a driver of VFIO, and the module iommu-sim-test.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/sizes.h>

#include "l1.h"

#define IOVA		0x100000000UL
#define DMA_SIZE	SZ_1M
#define DMA_TIMES	256
#define COMMAND		"/sys/kernel/debug/iommu-sim-test/dma"

struct side {
	const char *name;
	const char *bdf;
	struct iommu *iommu;
	struct vfio_pci_device *dev;
};

/* One system call for all of the repetitions, so that it does not count */
static uint64_t dma_ns(const char *bdf, unsigned char byte)
{
	char cmd[96];
	uint64_t t0;
	int fd, n;

	fd = open(COMMAND, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		fatal("%s: %s", COMMAND, strerror(errno));
	n = snprintf(cmd, sizeof(cmd), "%s w %lx %x %x %u", bdf, IOVA, DMA_SIZE,
		     byte, DMA_TIMES);
	t0 = now_ns();
	if (write(fd, cmd, n) != n)
		fatal("DMA fails: %s", strerror(errno));
	t0 = now_ns() - t0;
	close(fd);
	return t0;
}

static uint64_t memcpy_ns(void *to, const void *from)
{
	uint64_t t0 = now_ns();
	int i;

	for (i = 0; i < DMA_TIMES; i++) {
		memcpy(to, from, DMA_SIZE);
		/* Each of the copies is to be made */
		__asm__ volatile("" ::: "memory");
	}
	return now_ns() - t0;
}

/* Bytes a second */
static void sample_dma(const char *who, uint64_t ns)
{
	sample(DMA_SIZE, (double)DMA_SIZE * DMA_TIMES * 1e9 / ns, "sim.dma.%s", who);
}

static void measure_dma(struct side *sim, int reps)
{
	struct dma_region region = { .iova = IOVA, .size = DMA_SIZE };
	char *from = memory_alloc(DMA_SIZE, true);
	unsigned char *to = memory_alloc(DMA_SIZE, true);
	unsigned char byte;
	int rep;

	region.vaddr = to;
	memset(from, 1, DMA_SIZE);
	iommu_map(sim->iommu, &region);
	for (rep = 0; rep < reps; rep++) {
		progress("DMA and copies: %d of %d", rep + 1, reps);
		/* Another byte than the copies have left there */
		byte = 2 + rep % 200;
		sample_dma("memcpy", memcpy_ns(to, from));
		sample_dma("write", dma_ns(sim->bdf, byte));
		if (to[DMA_SIZE - 1] != byte)
			fatal("the DMA did not reach the memory");
	}
	iommu_unmap(sim->iommu, &region);
	memory_free(to, DMA_SIZE);
	memory_free(from, DMA_SIZE);
}

static void map_once(struct side *side, void *memory, size_t size)
{
	struct dma_region region = {
		.iova = IOVA, .size = size, .vaddr = memory,
	};
	uint64_t t0 = now_ns(), t1;

	iommu_map(side->iommu, &region);
	t1 = now_ns();
	sample(size, t1 - t0, "sim.map.%s", side->name);
	iommu_unmap(side->iommu, &region);
	sample(size, now_ns() - t1, "sim.unmap.%s", side->name);
}

static void measure_map(struct side *sides, size_t size, int reps)
{
	void *memory = memory_alloc(size, true);
	int rep;

	for (rep = 0; rep < reps; rep++) {
		progress("mappings of %zu MiB: %d of %d", size / MIB, rep + 1,
			 reps);
		map_once(&sides[0], memory, size);
		map_once(&sides[1], memory, size);
	}
	memory_free(memory, size);
}

static void side_open(struct side *side)
{
	side->iommu = iommu_init(MODE_IOMMUFD);
	side->dev = vfio_pci_device_init(side->bdf, side->iommu);
}

static void side_close(struct side *side)
{
	vfio_pci_device_cleanup(side->dev);
	iommu_cleanup(side->iommu);
}

static void measure_open(struct side *side, int reps)
{
	uint64_t t0;
	int rep;

	for (rep = 0; rep < reps; rep++) {
		t0 = now_ns();
		side_open(side);
		sample(0, now_ns() - t0, "sim.open.%s", side->name);
		side_close(side);
	}
}

int main(int argc, char **argv)
{
	struct bench_options opt = { .reps = 5 };
	struct side sides[] = { { .name = "sim" }, { .name = "other" } };
	size_t size, most;

	bench_options(&opt, argc, argv, 2);
	sides[0].bdf = opt.bdfs[0];
	sides[1].bdf = opt.bdfs[1];
	measure_open(&sides[0], opt.reps);
	measure_open(&sides[1], opt.reps);
	side_open(&sides[0]);
	side_open(&sides[1]);
	measure_dma(&sides[0], opt.reps);
	most = opt.quick ? 64 * MIB : GIB;
	for (size = 16 * MIB; size <= most; size *= 4)
		measure_map(sides, size, opt.reps);
	side_close(&sides[1]);
	side_close(&sides[0]);
	return 0;
}
