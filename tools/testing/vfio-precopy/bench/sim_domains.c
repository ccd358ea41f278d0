// SPDX-License-Identifier: GPL-2.0-only
/*
 * Domains of the simulated IOMMU against those of iommufd's self-test (the
 * kernel's own IOMMU without hardware), both through the same iommufd:
 *
 *   map, unmap	pages of user space are pinned and mapped; unmapped and unpinned
 *   fill, empty	pages that another domain holds are mapped into a new domain;
 *		unmapped from it without unpinning, and its tables freed
 *   slice	the most that one call of the IOMMU driver unmaps
 *   wait	the longest DMA of a simulated function during an unmap
 *
 *   sim_domains [--reps N] [--quick] SIMULATED
 *
 * The function needs a driver of VFIO, and the module iommu-sim-test; the kernel
 * needs CONFIG_IOMMUFD_TEST. Ranges larger than 1 GiB map the same 1 GiB of
 * memory again and again, at consecutive IOVAs.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/iommufd.h>
#include <linux/sizes.h>
#include <linux/vfio.h>

/* Of the kernel's source: the ioctl is for tests, and no uAPI */
#include <iommufd_test.h>

#include "l1.h"

#define BASE		0x100000000UL
/* A page below the ranges that are measured, for DMA */
#define DMA_IOVA	0x10000000UL
#define BLOCK		GIB
#define UNIT		(2 * MIB)
#define UNIT_PAGES	(UNIT / PAGE)
#define COMMAND		"/sys/kernel/debug/iommu-sim-test/dma"
#define TRACING		"/sys/kernel/tracing/"

struct side {
	const char *name;
	bool selftest;
	uint32_t dev_id;
	uint32_t ioas_id;
};

/* Memory that ranges are mapped to */
struct block {
	const char *pages;
	void *memory;
};

static int iommufd;
static const char *sim_bdf;

static void ask(unsigned long request, void *cmd, const char *what)
{
	if (ioctl(iommufd, request, cmd))
		fatal("%s fails", what);
}

/* ---- objects of iommufd ------------------------------------------------------- */

static uint32_t ioas_alloc(void)
{
	struct iommu_ioas_alloc cmd = { .size = sizeof(cmd) };

	ask(IOMMU_IOAS_ALLOC, &cmd, "IOMMU_IOAS_ALLOC");
	return cmd.out_ioas_id;
}

static void destroy(uint32_t id)
{
	struct iommu_destroy cmd = { .size = sizeof(cmd), .id = id };

	ask(IOMMU_DESTROY, &cmd, "IOMMU_DESTROY");
}

/*
 * A domain for an IOAS, filled with what is mapped there. The self-test's default
 * domain ends at 2 GiB; its other kind has no such end, and leaves of 4 KiB and
 * 1 MiB.
 */
static uint32_t hwpt_alloc(const struct side *side, uint32_t ioas_id)
{
	struct iommu_hwpt_selftest huge = { .pagetable_type = MOCK_IOMMUPT_HUGE };
	struct iommu_hwpt_alloc cmd = {
		.size = sizeof(cmd), .dev_id = side->dev_id, .pt_id = ioas_id,
	};

	if (side->selftest) {
		cmd.data_type = IOMMU_HWPT_DATA_SELFTEST;
		cmd.data_len = sizeof(huge);
		cmd.data_uptr = (uintptr_t)&huge;
	}
	ask(IOMMU_HWPT_ALLOC, &cmd, "IOMMU_HWPT_ALLOC");
	return cmd.out_hwpt_id;
}

static void map(uint32_t ioas_id, void *memory, uint64_t iova, size_t size)
{
	struct iommu_ioas_map cmd = {
		.size = sizeof(cmd), .ioas_id = ioas_id,
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE |
			 IOMMU_IOAS_MAP_WRITEABLE,
		.user_va = (uintptr_t)memory, .length = size, .iova = iova,
	};

	ask(IOMMU_IOAS_MAP, &cmd, "IOMMU_IOAS_MAP");
}

static void map_range(uint32_t ioas_id, const struct block *block, size_t size)
{
	size_t at, n;

	for (at = 0; at < size; at += n) {
		n = size - at < BLOCK ? size - at : BLOCK;
		map(ioas_id, block->memory, BASE + at, n);
	}
}

static void unmap_range(uint32_t ioas_id, size_t size)
{
	struct iommu_ioas_unmap cmd = {
		.size = sizeof(cmd), .ioas_id = ioas_id, .iova = BASE,
		.length = size,
	};

	ask(IOMMU_IOAS_UNMAP, &cmd, "IOMMU_IOAS_UNMAP");
	if (cmd.length != size)
		fatal("%llu bytes were unmapped, not %zu", cmd.length, size);
}

/* ---- the two sides ------------------------------------------------------------- */

/* The function stays attached to the domain that is measured. */
static void open_sim(struct side *side)
{
	const char *path = vfio_pci_get_cdev_path(sim_bdf);
	struct vfio_device_bind_iommufd bind = {
		.argsz = sizeof(bind), .iommufd = iommufd,
	};
	struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof(attach) };
	int fd = open(path, O_RDWR | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, VFIO_DEVICE_BIND_IOMMUFD, &bind))
		fatal("%s cannot be opened", path);
	free((void *)path);
	side->dev_id = bind.out_devid;
	side->ioas_id = ioas_alloc();
	attach.pt_id = hwpt_alloc(side, side->ioas_id);
	if (ioctl(fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach))
		fatal("%s cannot be attached", sim_bdf);
}

/* A device of the self-test comes attached to an IOAS, which is not used further. */
static void open_selftest(struct side *side)
{
	struct iommu_test_cmd cmd = {
		.size = sizeof(cmd), .op = IOMMU_TEST_OP_MOCK_DOMAIN,
		.id = ioas_alloc(),
	};

	ask(IOMMU_TEST_CMD, &cmd, "IOMMU_TEST_CMD (is CONFIG_IOMMUFD_TEST set?)");
	side->dev_id = cmd.mock_domain.out_idev_id;
	side->ioas_id = ioas_alloc();
	hwpt_alloc(side, side->ioas_id);
}

/* ---- memory of known physical pages ---------------------------------------------- */

/* How many units of 2 MiB are physically one, and could be one entry */
static size_t whole_units(const void *memory)
{
	uint64_t pfn[UNIT_PAGES], mask = (1ULL << 55) - 1;
	int fd = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	size_t at, i, nr = 0;

	for (at = 0; at < BLOCK; at += UNIT) {
		if (pread(fd, pfn, sizeof(pfn), ((uintptr_t)memory + at) / PAGE * 8) !=
		    sizeof(pfn))
			fatal("no /proc/self/pagemap");
		for (i = 1; i < UNIT_PAGES; i++)
			if ((pfn[i] & mask) != (pfn[0] & mask) + i)
				break;
		nr += i == UNIT_PAGES && !(pfn[0] & (UNIT_PAGES - 1));
	}
	close(fd);
	return nr;
}

/* Every other page of twice the memory, so that each of them is an entry */
static void *memory_alloc_scattered(void)
{
	char *p = mmap(NULL, 2 * BLOCK, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	size_t at;

	if (p == MAP_FAILED)
		fatal("no memory");
	madvise(p, 2 * BLOCK, MADV_NOHUGEPAGE);
	for (at = 0; at < BLOCK; at += PAGE) {
		p[at] = 1;
		p[BLOCK + at] = 1;
	}
	munmap(p + BLOCK, BLOCK);
	return p;
}

static void block_init(struct block *block, const char *pages)
{
	bool huge = !strcmp(pages, "2m");
	size_t whole;

	block->pages = pages;
	block->memory = huge ? memory_alloc(BLOCK, true) : memory_alloc_scattered();
	whole = whole_units(block->memory);
	if (whole != (huge ? BLOCK / UNIT : 0))
		fatal("%zu units of 2 MiB are whole, pages of %s were wanted",
		      whole, pages);
}

/* ---- measurements ------------------------------------------------------------------ */

static void map_once(const struct side *side, const struct block *block, size_t size)
{
	uint64_t t0 = now_ns(), t1;

	map_range(side->ioas_id, block, size);
	t1 = now_ns();
	sample(size, t1 - t0, "sim.pinned.map.%s.%s", block->pages, side->name);
	unmap_range(side->ioas_id, size);
	sample(size, now_ns() - t1, "sim.pinned.unmap.%s.%s", block->pages, side->name);
}

static void fill_once(const struct side *side, const struct block *block, size_t size,
		      uint32_t ioas_id)
{
	uint64_t t0 = now_ns(), t1;
	uint32_t hwpt_id;

	hwpt_id = hwpt_alloc(side, ioas_id);
	t1 = now_ns();
	sample(size, t1 - t0, "sim.domain.fill.%s.%s", block->pages, side->name);
	destroy(hwpt_id);
	sample(size, now_ns() - t1, "sim.domain.empty.%s.%s", block->pages, side->name);
}

/* A self-test domain holds the pages while domains of both kinds come and go. */
static void measure_size(const struct side *sides, const struct block *block,
			 size_t size, int reps)
{
	uint32_t holder, holder_hwpt;
	int rep, i;

	for (rep = 0; rep < reps; rep++) {
		progress("mappings of %zu MiB, %s: %d of %d", size / MIB, block->pages,
			 rep + 1, reps);
		for (i = 0; i < 2; i++)
			map_once(&sides[(rep + i) % 2], block, size);
	}
	holder = ioas_alloc();
	holder_hwpt = hwpt_alloc(&sides[1], holder);
	map_range(holder, block, size);
	for (rep = 0; rep < reps; rep++) {
		progress("domains of %zu MiB, %s: %d of %d", size / MIB, block->pages,
			 rep + 1, reps);
		for (i = 0; i < 2; i++)
			fill_once(&sides[(rep + i) % 2], block, size, holder);
	}
	unmap_range(holder, size);
	destroy(holder_hwpt);
	destroy(holder);
}

/* ---- slices: the tracepoint at the end of each call of the driver -------------------- */

static void tracing(const char *file, const char *text)
{
	char path[96];
	int fd;

	snprintf(path, sizeof(path), TRACING "%s", file);
	fd = open(path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		fatal("%s", path);
	close(fd);
}

/* The time of a line of the trace, in seconds: "TASK [CPU] FLAGS TIME: ..." */
static double trace_time(const char *line)
{
	const char *at = strchr(line, ']');
	double time;

	if (!at || sscanf(at, "] %*s %lf", &time) != 1)
		fatal("the trace cannot be read: %s", line);
	return time;
}

static void read_slices(const struct side *side, const struct block *block)
{
	double last = 0, now, longest = 0;
	size_t most = 0, size;
	FILE *f = fopen(TRACING "trace", "r");
	char line[512], *at;

	while (f && fgets(line, sizeof(line), f)) {
		at = strstr(line, "unmapped_size=");
		if (!at && !strstr(line, "begin of the unmap"))
			continue;
		now = trace_time(line);
		if (last && now - last > longest)
			longest = now - last;
		last = now;
		size = at ? strtoull(strchr(at, '=') + 1, NULL, 10) : 0;
		most = size > most ? size : most;
	}
	if (f)
		fclose(f);
	if (!most)
		fatal("no unmap in the trace");
	sample(0, most, "sim.slice.bytes.%s.%s", block->pages, side->name);
	sample(0, longest * 1e9, "sim.slice.ns.%s.%s", block->pages, side->name);
}

static void measure_slices(const struct side *side, const struct block *block, size_t size)
{
	map_range(side->ioas_id, block, size);
	tracing("trace", "");
	tracing("events/iommu/unmap/enable", "1");
	tracing("trace_marker", "begin of the unmap\n");
	unmap_range(side->ioas_id, size);
	tracing("events/iommu/unmap/enable", "0");
	read_slices(side, block);
}

/* ---- DMA while memory is unmapped --------------------------------------------------- */

static bool dma_ends;

/* DMA of one page again and again. Returns the longest, in ns. */
static void *dma_thread(void *longest)
{
	uint64_t t0, ns, *most = longest;
	char cmd[96];
	int fd, n;

	n = snprintf(cmd, sizeof(cmd), "%s w %lx %lx 1", sim_bdf, DMA_IOVA, PAGE);
	fd = open(COMMAND, O_WRONLY | O_CLOEXEC);
	while (!__atomic_load_n(&dma_ends, __ATOMIC_RELAXED)) {
		t0 = now_ns();
		if (write(fd, cmd, n) != n)
			fatal("DMA fails");
		ns = now_ns() - t0;
		*most = ns > *most ? ns : *most;
	}
	close(fd);
	return NULL;
}

static void wait_once(const struct side *side, const struct block *block, size_t size)
{
	uint64_t longest = 0;
	pthread_t thread;

	map_range(side->ioas_id, block, size);
	dma_ends = false;
	if (pthread_create(&thread, NULL, dma_thread, &longest))
		fatal("no thread");
	unmap_range(side->ioas_id, size);
	__atomic_store_n(&dma_ends, true, __ATOMIC_RELAXED);
	pthread_join(thread, NULL);
	sample(size, longest, "sim.wait.%s.%s", block->pages, side->name);
}

static void measure_waits(const struct side *sides, const struct block *block,
			  size_t size, int reps)
{
	int rep, i;

	for (rep = 0; rep < reps; rep++) {
		progress("DMA while %zu MiB are unmapped, %s: %d of %d", size / MIB,
			 block->pages, rep + 1, reps);
		for (i = 0; i < 2; i++)
			wait_once(&sides[(rep + i) % 2], block, size);
	}
}

/* 64 GiB are 16 million pages of 4 KiB: three times are enough, and slices are small */
static void measure_block(const struct side *sides, const struct block *block,
			  const struct bench_options *opt)
{
	static const size_t sizes[] = { 256 * MIB, GIB, 4 * GIB, 64 * GIB };
	size_t nr = opt->quick ? 2 : ARRAY_LEN(sizes), i;
	bool small = !strcmp(block->pages, "4k");
	size_t last = sizes[small && !opt->quick ? nr - 2 : nr - 1];
	int reps;

	for (i = 0; i < nr; i++) {
		reps = small && sizes[i] > 4 * GIB && opt->reps > 3 ? 3 : opt->reps;
		measure_size(sides, block, sizes[i], reps);
	}
	for (i = 0; i < 2; i++)
		measure_slices(&sides[i], block, last);
	measure_waits(sides, block, last, opt->reps);
}

int main(int argc, char **argv)
{
	struct bench_options opt = { .reps = 5 };
	struct side sides[] = {
		{ .name = "sim" }, { .name = "selftest", .selftest = true },
	};
	struct block blocks[2];
	size_t i;

	bench_options(&opt, argc, argv, 1);
	sim_bdf = opt.bdfs[0];
	iommufd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	if (iommufd < 0)
		fatal("no /dev/iommu");
	open_sim(&sides[0]);
	open_selftest(&sides[1]);
	block_init(&blocks[0], "2m");
	block_init(&blocks[1], "4k");
	map(sides[0].ioas_id, memory_alloc(PAGE, false), DMA_IOVA, PAGE);
	for (i = 0; i < ARRAY_LEN(blocks); i++)
		measure_block(sides, &blocks[i], &opt);
	return 0;
}
