// SPDX-License-Identifier: GPL-2.0-only
/*
 * What dirty tracking costs user space: the first write to a page, arming,
 * collecting and disarming, and how mappings become large again.
 *
 *   tracking [--size BYTES] [--reps N] BDF
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/fs.h>
#include <linux/userfaultfd.h>

#include "l1.h"

#define BUF		(1 * MIB)
#define UNIT		(2 * MIB)
#define BIG_IN_USE	(16 * MIB)
#define FEW_PAGES	512
#define CALLS		1000
#define CGROUP		"/sys/fs/cgroup/precopy-bench"

static struct bench_options opt = { .size = 64 * MIB, .reps = 5 };
static char *buf;

static uint64_t set_state_ns(struct precopy_dev *pd, u32 state, int *data_fd)
{
	uint64_t t0 = now_ns();
	int fd = bench_set_state(pd, state);

	if (data_fd)
		*data_fd = fd;
	return now_ns() - t0;
}

/* --- The first write to a page ------------------------------------------- */

struct uffd {
	int fd;
	int pagemap;
	char *at;
	size_t size;
};

static int uffd_open(void)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_WP_ASYNC |
			    UFFD_FEATURE_WP_HUGETLBFS_SHMEM,
	};
	int fd = syscall(SYS_userfaultfd, O_CLOEXEC | UFFD_USER_MODE_ONLY);

	if (fd >= 0 && ioctl(fd, UFFDIO_API, &api)) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int uffd_register(int fd, void *at, size_t size)
{
	struct uffdio_register reg = {
		.range = { .start = (uintptr_t)at, .len = size },
		.mode = UFFDIO_REGISTER_MODE_WP,
	};

	return ioctl(fd, UFFDIO_REGISTER, &reg) ? -errno : 0;
}

static uint64_t uffd_protect(struct uffd *u)
{
	struct uffdio_writeprotect wp = {
		.range = { .start = (uintptr_t)u->at, .len = u->size },
		.mode = UFFDIO_WRITEPROTECT_MODE_WP,
	};
	uint64_t t0 = now_ns();

	if (ioctl(u->fd, UFFDIO_WRITEPROTECT, &wp))
		fatal("userfaultfd does not protect");
	return now_ns() - t0;
}

/* Takes the written pages and protects them again, in one go */
static uint64_t uffd_scan(struct uffd *u, uint64_t *pages)
{
	static struct page_region regions[4096];
	struct pm_scan_arg arg = {
		.size = sizeof(arg),
		.flags = PM_SCAN_WP_MATCHING | PM_SCAN_CHECK_WPASYNC,
		.start = (uintptr_t)u->at,
		.end = (uintptr_t)u->at + u->size,
		.vec = (uintptr_t)regions,
		.vec_len = ARRAY_LEN(regions),
		.category_mask = PAGE_IS_WRITTEN,
		.return_mask = PAGE_IS_WRITTEN,
	};
	uint64_t t0 = now_ns(), ns;
	int i, n;

	n = ioctl(u->pagemap, PAGEMAP_SCAN, &arg);
	ns = now_ns() - t0;
	if (n < 0)
		fatal("PAGEMAP_SCAN fails");
	for (*pages = 0, i = 0; i < n; i++)
		*pages += (regions[i].end - regions[i].start) / PAGE;
	return ns;
}

static bool uffd_setup(struct uffd *u, size_t size)
{
	int memfd = memfd_create("bench", MFD_CLOEXEC);

	u->fd = uffd_open();
	u->size = size;
	u->pagemap = open("/proc/self/pagemap", O_RDONLY | O_CLOEXEC);
	if (u->fd < 0 || u->pagemap < 0 || memfd < 0 || ftruncate(memfd, size))
		return false;
	u->at = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, memfd, 0);
	close(memfd);
	if (u->at == MAP_FAILED)
		return false;
	touch_pages(u->at, size / PAGE, 1);
	return !uffd_register(u->fd, u->at, size);
}

/* Can the device's own mapping be tracked that way? It should not matter. */
static void uffd_on_bar(struct precopy_dev *pd)
{
	int fd = uffd_open(), ret;

	if (fd < 0)
		return;
	ret = uffd_register(fd, pd->bar, pd->size);
	sample(0, -ret, "track.write.bar-uffd-errno");
	close(fd);
}

static void write_uffd(struct uffd *u, uint64_t nr)
{
	uint64_t ns, pages;

	sample(nr, touch_ns(u->at, nr, 2), "track.write.memfd");
	ns = uffd_protect(u);
	sample(nr, (double)ns / nr, "track.write.uffd-arm");
	sample(nr, touch_ns(u->at, nr, 3), "track.write.uffd-armed");
	ns = uffd_scan(u, &pages);
	if (pages != nr)
		fatal("userfaultfd saw %lu of %lu pages", pages, nr);
	sample(nr, (double)ns / nr, "track.write.uffd-scan");
	sample(nr, touch_ns(u->at, nr, 4), "track.write.uffd");
	/* Leave nothing protected behind, for the plain touch of the next */
	uffd_scan(u, &pages);
	touch_pages(u->at, nr, 5);
}

static void write_driver(struct precopy_dev *pd, uint64_t nr)
{
	int64_t protect;
	int data_fd;

	sample(nr, touch_ns(pd->bar, nr, 2), "track.write.none");
	data_fd = bench_set_state(pd, VFIO_DEVICE_STATE_PRE_COPY);
	sample(nr, touch_ns(pd->bar, nr, 3), "track.write.armed");
	bench_drain(data_fd, buf, BUF, NULL);
	sample(nr, touch_ns(pd->bar, nr, 4), "track.write.driver");
	sample(nr, touch_ns(pd->bar, nr, 5), "track.write.again");
	protect = precopy_stat(pd->bdf, "save_protect_ns");
	bench_drain(data_fd, buf, BUF, NULL);
	if (protect >= 0)
		sample(nr, (double)(precopy_stat(pd->bdf, "save_protect_ns") -
				    protect) / nr, "track.write.protect");
	sample(nr, touch_ns(pd->bar, nr, 6), "track.write.driver");
	bench_set_state(pd, VFIO_DEVICE_STATE_RUNNING);
	close(data_fd);
	/* The first after tracking is not the untracked one that is meant */
	touch_pages(pd->bar, nr, 7);
}

static void bench_writes(struct precopy_dev *pd)
{
	uint64_t nr = opt.size / 2 / PAGE;
	struct uffd u = { };
	bool with_uffd = uffd_setup(&u, nr * PAGE);
	int rep;

	touch_pages(pd->bar, nr, 1);
	uffd_on_bar(pd);
	for (rep = 0; rep < opt.reps; rep++) {
		progress("first writes: %d of %d", rep + 1, opt.reps);
		if (with_uffd)
			write_uffd(&u, nr);
		write_driver(pd, nr);
	}
	if (!with_uffd)
		progress("userfaultfd cannot track a memfd here");
}

/* --- In proportion to what? ---------------------------------------------- */

/* A thread that stores to pages in turn, and its longest pause, ns */
struct storer {
	pthread_t thread;
	volatile uint64_t *at;
	size_t size;
	volatile bool stop;
	volatile uint64_t stores;
	volatile uint64_t longest;
};

static void *storer_fn(void *arg)
{
	struct storer *s = arg;
	uint64_t last = now_ns(), now;
	size_t i;

	for (i = 0; !s->stop; i = (i + PAGE) % s->size, last = now) {
		s->at[i / sizeof(*s->at)] = i;
		s->stores++;
		now = now_ns();
		if (now - last > s->longest)
			s->longest = now - last;
	}
	return NULL;
}

static void storer_start(struct storer *s, void *at, size_t size)
{
	*s = (struct storer) { .at = at, .size = size };
	if (pthread_create(&s->thread, NULL, storer_fn, s))
		fatal("no thread");
	while (s->stores < size / PAGE)
		usleep(1000);
}

static void storer_stop(struct storer *s)
{
	s->stop = true;
	pthread_join(s->thread, NULL);
}

/*
 * Arm once more, after a migration that was cancelled: what was written is single
 * pages, mapped by entries of 4 KiB. Meanwhile somebody stores to all of them.
 */
static void arm_again(struct precopy_dev *pd, size_t size)
{
	struct storer s;
	uint64_t ns;
	int data_fd;

	touch_pages(pd->bar, size / PAGE, 4);
	storer_start(&s, pd->bar, size);
	s.longest = 0;
	ns = set_state_ns(pd, VFIO_DEVICE_STATE_PRE_COPY, &data_fd);
	storer_stop(&s);
	bench_sample_step(pd, size, "track.arm-again", ns, "last_arm_ns");
	sample(size, s.longest, "track.arm-again.pause");
	bench_set_state(pd, VFIO_DEVICE_STATE_RUNNING);
	close(data_fd);
}

/* Arm, collect a few pages and disarm with @size bytes in use */
static void in_use_step(struct precopy_dev *pd, size_t size)
{
	uint64_t ns;
	int data_fd;

	touch_pages(pd->bar, size / PAGE, 1);
	ns = set_state_ns(pd, VFIO_DEVICE_STATE_PRE_COPY, &data_fd);
	bench_sample_step(pd, size, "track.arm", ns, "last_arm_ns");
	bench_drain(data_fd, buf, BUF, NULL);
	touch_pages(pd->bar, FEW_PAGES, 2);
	ns = bench_drain(data_fd, buf, BUF, NULL);
	sample(size, ns, "track.collect-few");
	touch_pages(pd->bar, size / PAGE, 3);
	ns = set_state_ns(pd, VFIO_DEVICE_STATE_RUNNING, NULL);
	bench_sample_step(pd, size, "track.disarm", ns, "last_disarm_ns");
	close(data_fd);
	arm_again(pd, size);
}

static void bench_in_use(struct precopy_dev *pd)
{
	size_t size;
	int rep;

	for (rep = 0; rep < opt.reps; rep++) {
		progress("arm and disarm against memory in use: %d of %d",
			 rep + 1, opt.reps);
		precopy_reset(pd);
		for (size = pd->size / 16; size <= pd->size; size *= 2) {
			in_use_step(pd, size);
			if (size * 2 <= pd->size)
				in_use_step(pd, size / 2 * 3);
		}
	}
}

/* @nr pages, @stride pages from each other */
static void dirty_step(struct precopy_dev *pd, int data_fd, uint64_t nr,
		       uint64_t stride, const char *how)
{
	int64_t protect = precopy_stat(pd->bdf, "save_protect_ns");
	volatile uint64_t *word = (void *)pd->bar;
	uint64_t i, ns;

	for (i = 0; i < nr; i++)
		word[i * stride * (PAGE / sizeof(*word))] = i + 1;
	ns = bench_drain(data_fd, buf, BUF, NULL);
	sample(nr, ns, "track.collect.%s", how);
	if (protect >= 0)
		sample(nr, precopy_stat(pd->bdf, "save_protect_ns") - protect,
		       "track.protect.%s", how);
}

static void bench_dirty(struct precopy_dev *pd)
{
	uint64_t pages = pd->size / PAGE, nr;
	int rep, data_fd;

	touch_pages(pd->bar, pages, 1);
	data_fd = bench_set_state(pd, VFIO_DEVICE_STATE_PRE_COPY);
	bench_drain(data_fd, buf, BUF, NULL);
	for (rep = 0; rep < opt.reps; rep++) {
		progress("collect against dirty pages: %d of %d", rep + 1,
			 opt.reps);
		dirty_step(pd, data_fd, 0, 0, "dense");
		dirty_step(pd, data_fd, 0, 0, "spread");
		for (nr = pages / 64; nr <= pages / 2; nr *= 2) {
			dirty_step(pd, data_fd, nr, 1, "dense");
			dirty_step(pd, data_fd, nr, pages / nr, "spread");
		}
	}
	bench_set_state(pd, VFIO_DEVICE_STATE_RUNNING);
	close(data_fd);
}

/* --- A large BAR with little in it ----------------------------------------- */

static int64_t cgroup_bytes(void)
{
	long long bytes = -1;
	FILE *file = fopen(CGROUP "/memory.current", "r");

	if (file && fscanf(file, "%lld", &bytes) != 1)
		bytes = -1;
	if (file)
		fclose(file);
	return bytes;
}

/*
 * What the group is charged, once that has come to rest: what is closed is
 * freed by a worker, and not at once.
 */
static int64_t cgroup_settled(void)
{
	int64_t last, bytes = cgroup_bytes();
	int i = 0;

	do {
		last = bytes;
		usleep(50 * 1000);
		bytes = cgroup_bytes();
	} while (bytes != last && ++i < 40);
	return bytes;
}

static double data_size_ns(struct precopy_dev *pd)
{
	uint64_t t0 = now_ns(), size;
	int i;

	for (i = 0; i < CALLS; i++)
		if (mig_data_size(pd->dev, &size))
			fatal("MIG_DATA_SIZE fails");
	return (double)(now_ns() - t0) / CALLS;
}

static double precopy_info_ns(int data_fd)
{
	struct vfio_precopy_info info = { };
	uint64_t t0 = now_ns();
	int i;

	for (i = 0; i < CALLS; i++)
		if (mig_precopy_info(data_fd, &info))
			fatal("PRECOPY_INFO fails");
	return (double)(now_ns() - t0) / CALLS;
}

static void big_tracked(struct precopy_dev *pd, double x, int64_t before)
{
	uint64_t ns;
	int data_fd;

	ns = set_state_ns(pd, VFIO_DEVICE_STATE_PRE_COPY, &data_fd);
	bench_sample_step(pd, x, "big.arm", ns, "last_arm_ns");
	ns = bench_drain(data_fd, buf, BUF, NULL);
	sample(x, ns, "big.first-pass");
	touch_pages(pd->bar, FEW_PAGES, 2);
	sample(x, data_size_ns(pd), "big.data-size");
	sample(x, precopy_info_ns(data_fd), "big.precopy-info");
	ns = bench_drain(data_fd, buf, BUF, NULL);
	sample(x, ns, "big.collect");
	if (before >= 0)
		sample(x, cgroup_settled() - before, "big.memory");
	ns = set_state_ns(pd, VFIO_DEVICE_STATE_RUNNING, NULL);
	bench_sample_step(pd, x, "big.disarm", ns, "last_disarm_ns");
	close(data_fd);
}

static void big_step(size_t size)
{
	int64_t before = cgroup_settled();
	struct precopy_dev pd;

	precopy_open(&pd, opt.bdfs[0], "iommufd", size);
	touch_pages(pd.bar, BIG_IN_USE / PAGE, 1);
	sample(size, data_size_ns(&pd), "big.data-size-running");
	big_tracked(&pd, size, before);
	precopy_close(&pd);
}

static void bench_big(void)
{
	int rep;

	for (rep = 0; rep < opt.reps; rep++) {
		progress("a large BAR with little in use: %d of %d", rep + 1,
			 opt.reps);
		big_step(64 * MIB);
		big_step(64 * GIB);
	}
}

/* --- How large mappings come back -------------------------------------------- */

static int64_t count_faults(struct precopy_dev *pd)
{
	static const char * const names[] = {
		"read_faults", "write_faults", "mkwrite_faults", "huge_faults",
	};
	int64_t n, sum = 0;
	size_t i;

	for (i = 0; i < ARRAY_LEN(names); i++) {
		n = precopy_stat(pd->bdf, names[i]);
		sum += n > 0 ? n : 0;
	}
	return sum;
}

/* As the mm counts them, whoever handles them */
static long minor_faults(void)
{
	struct rusage usage;

	getrusage(RUSAGE_SELF, &usage);
	return usage.ru_minflt;
}

/* Touch all of it: how long, how many faults; and again, now that it is mapped */
static void huge_touch(struct precopy_dev *pd, char *at, const char *when)
{
	int64_t pmds = precopy_stat(pd->bdf, "huge_faults");
	int64_t faults = count_faults(pd);
	long minor = minor_faults();
	double ns = touch_ns(at, pd->size / PAGE, 1);

	minor = minor_faults() - minor;
	faults = count_faults(pd) - faults;
	sample(pd->size, ns, "huge.first.%s", when);
	sample(pd->size, faults, "huge.faults.%s", when);
	sample(pd->size, minor, "huge.minor.%s", when);
	if (pmds >= 0)
		sample(pd->size, precopy_stat(pd->bdf, "huge_faults") - pmds,
		       "huge.pmds.%s", when);
	sample(pd->size, touch_ns(at, pd->size / PAGE, 2), "huge.again.%s", when);
}

/* A whole life of tracking, with a store to each page in the middle */
static void huge_track(struct precopy_dev *pd, char *at, const char *when)
{
	int data_fd = bench_set_state(pd, VFIO_DEVICE_STATE_PRE_COPY);

	bench_drain(data_fd, buf, BUF, NULL);
	if (when)
		huge_touch(pd, at, when);
	else
		touch_pages(at, pd->size / PAGE, 3);
	bench_drain(data_fd, buf, BUF, NULL);
	bench_set_state(pd, VFIO_DEVICE_STATE_RUNNING);
	close(data_fd);
}

static void huge_remap(struct precopy_dev *pd, char *at)
{
	munmap(at, pd->size);
	bench_map_bar(pd, at, pd->size, 0);
}

/* Both ways to get rid of page tables, each the first after tracking */
static void huge_rep(struct precopy_dev *pd, char *at)
{
	huge_remap(pd, at);
	huge_touch(pd, at, "mapped");
	huge_track(pd, at, "tracked");
	huge_touch(pd, at, "disarmed");
	madvise(at, pd->size, MADV_DONTNEED);
	huge_touch(pd, at, "dontneed");
	madvise(at, pd->size, MADV_DONTNEED);
	huge_touch(pd, at, "dontneed-again");
	huge_track(pd, at, NULL);
	huge_remap(pd, at);
	huge_touch(pd, at, "remapped");
	huge_remap(pd, at);
	huge_touch(pd, at, "remapped-again");
}

static void bench_huge(struct precopy_dev *pd)
{
	char *at;
	int rep;

	precopy_reset(pd);
	at = bench_map_bar(pd, NULL, pd->size, 0);
	touch_pages(at, pd->size / PAGE, 1);
	for (rep = 0; rep < opt.reps; rep++) {
		progress("large mappings: %d of %d", rep + 1, opt.reps);
		huge_rep(pd, at);
	}
	munmap(at, pd->size);
}

int main(int argc, char **argv)
{
	struct precopy_dev pd;

	bench_options(&opt, argc, argv, 1);
	buf = memory_alloc(BUF, false);
	sample(0, opt.size, "config.track.size");
	precopy_open(&pd, opt.bdfs[0], "iommufd", opt.size);
	bench_writes(&pd);
	bench_in_use(&pd);
	bench_dirty(&pd);
	bench_huge(&pd);
	precopy_close(&pd);
	if (!opt.quick)
		bench_big();
	return 0;
}
