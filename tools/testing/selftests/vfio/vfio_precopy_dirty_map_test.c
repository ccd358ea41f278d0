// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tracking of stores while things happen to the mapping: before the collect
 * between two stores, after it, or both. An entry that comes back writable
 * without a fault would lose the second of them. Who may not have the memory at
 * all is refused.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/userfaultfd.h>

#include <libvfio.h>
#include <libvfio/dirty_writer.h>
#include <libvfio/precopy_tracking.h>

#include <libvfio/mig_harness.h>

#define SIZE		SZ_4M

static char **bdfs;
static int nr_bdfs;

/* What the events below happen to */
struct mapping {
	struct precopy_tracking t;
	u8 *bar;		/* of the source */
	u8 *second;		/* another mapping of it, in some tests */
};

FIXTURE(dirty_map) {
	struct mapping m;
};

typedef struct mapping map_t;

static void mapping_open(map_t *self)
{
	self->second = NULL;
	tracking_open(&self->t, bdfs, SIZE);
	self->bar = self->t.a.bar;
}

static void mapping_close(map_t *self)
{
	if (self->second)
		munmap(self->second, SIZE);
	tracking_close(&self->t);
}

FIXTURE_SETUP(dirty_map)
{
	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	mapping_open(&self->m);
}

FIXTURE_TEARDOWN(dirty_map)
{
	mapping_close(&self->m);
}

/* Something that happens to the mapping and stores nothing. */
typedef void (*event_fn)(map_t *self);

/*
 * Read-only when the collect comes, writable again after it. An entry that was
 * left dirty would come back writable without a fault, and the store be lost.
 */
static void by_mprotect(void *arg, u64 page, u64 seed)
{
	map_t *self = arg;

	VFIO_ASSERT_EQ(mprotect(self->bar, SIZE, PROT_READ | PROT_WRITE), 0);
	tracking_by_store(&self->t, page, seed);
	VFIO_ASSERT_EQ(mprotect(self->bar, SIZE, PROT_READ), 0);
}

TEST_F_TIMEOUT(dirty_map, mprotect, MIG_TIMEOUT)
{
	EXPECT_EQ(0, tracking_passes(&self->m.t, by_mprotect, &self->m));
}

/*
 * What may happen to a mapping between two stores: before the collect between
 * them, after it, and both.
 */
static void around(struct __test_metadata *_metadata, map_t *self,
		   event_fn event)
{
	int pass;

	tracking_begin(&self->t);
	for (pass = 0; pass < 6; pass++) {
		tracking_store_pages(&self->t, tracking_by_store, &self->t, pass);
		if (pass % 2 || pass >= 4)
			event(self);
		EXPECT_EQ(0, tracking_carry(&self->t));
		if (pass % 2 == 0 || pass >= 4)
			event(self);
	}
	tracking_store_pages(&self->t, tracking_by_store, &self->t, pass);
	event(self);
	EXPECT_EQ(0, tracking_finish(&self->t));
}

static void protect(map_t *self, int prot)
{
	VFIO_ASSERT_EQ(mprotect(self->bar, SIZE, prot), 0);
	VFIO_ASSERT_EQ(mprotect(self->bar, SIZE, PROT_READ | PROT_WRITE), 0);
}

static void read_only_for_a_moment(map_t *self)
{
	protect(self, PROT_READ);
}

TEST_F_TIMEOUT(dirty_map, mprotect_around_collect, MIG_TIMEOUT)
{
	around(_metadata, &self->m, read_only_for_a_moment);
}

static void no_access_for_a_moment(map_t *self)
{
	protect(self, PROT_NONE);
}

TEST_F_TIMEOUT(dirty_map, mprotect_none_around_collect, MIG_TIMEOUT)
{
	around(_metadata, &self->m, no_access_for_a_moment);
}

/* Away, and back at the same place. */
static void unmapped(map_t *self)
{
	void *map;

	VFIO_ASSERT_EQ(munmap(self->bar, SIZE), 0);
	map = mmap(self->bar, SIZE, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_FIXED, self->t.a.fd, self->t.a.bar_offset);
	VFIO_ASSERT_EQ(map, (void *)self->bar);
}

TEST_F_TIMEOUT(dirty_map, unmapped_around_collect, MIG_TIMEOUT)
{
	around(_metadata, &self->m, unmapped);
}

/* To elsewhere and back, with all entries. */
static void moved(map_t *self)
{
	void *to = mmap_reserve(SIZE, PRECOPY_PAGE, 0);
	int flags = MREMAP_MAYMOVE | MREMAP_FIXED;

	VFIO_ASSERT_EQ(mremap(self->bar, SIZE, SIZE, flags, to), to);
	VFIO_ASSERT_EQ(mremap(to, SIZE, SIZE, flags, self->bar),
		       (void *)self->bar);
}

TEST_F_TIMEOUT(dirty_map, moved_around_collect, MIG_TIMEOUT)
{
	around(_metadata, &self->m, moved);
}

static void store_second(map_t *self, u64 page, u64 seed)
{
	precopy_pattern(self->second + page * PRECOPY_PAGE, page, seed);
}

/* Moved for good, and stored to at both places. */
static void by_moved(void *arg, u64 page, u64 seed)
{
	map_t *self = arg;
	void *to = mmap_reserve(SIZE, PRECOPY_PAGE, 0);

	store_second(self, page, seed ^ 1);
	to = mremap(self->second, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	VFIO_ASSERT_NE(to, MAP_FAILED);
	self->second = to;
	store_second(self, page, seed);
	tracking_stored(&self->t, page, seed);
}

TEST_F_TIMEOUT(dirty_map, moved_mapping, MIG_TIMEOUT)
{
	self->m.second = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			      self->m.t.a.fd, self->m.t.a.bar_offset);
	ASSERT_NE(MAP_FAILED, self->m.second);
	EXPECT_EQ(0, tracking_passes(&self->m.t, by_moved, &self->m));
}

/* Long enough for a thread to get its turn, however busy the machine is */
#define MMAP_MS		20000

/* A thread that maps and unmaps memory when it is told to */
struct mapper {
	pthread_t thread;
	volatile bool go;
	volatile bool done;
};

static void *map_memory(void *arg)
{
	struct mapper *m = arg;
	void *map;

	while (!m->go)
		usleep(1000);
	map = mmap(NULL, PRECOPY_PAGE, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS,
		   -1, 0);
	VFIO_ASSERT_NE(map, MAP_FAILED);
	VFIO_ASSERT_EQ(munmap(map, PRECOPY_PAGE), 0);
	m->done = true;
	return NULL;
}

/* Where no entry can be larger than 4 KiB, so that the mm asks for one page */
static u8 *map_unaligned(map_t *self)
{
	u8 *at = mmap_reserve(SIZE + SZ_2M, SZ_2M, PRECOPY_PAGE);

	VFIO_ASSERT_EQ(mmap(at, SIZE, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_FIXED, self->t.a.fd,
			    self->t.a.bar_offset), (void *)at);
	return at;
}

/* A store takes long, because its unit is divided. Other threads can map memory. */
TEST_F_TIMEOUT(dirty_map, memory_mapped_during_a_split, MIG_TIMEOUT)
{
	u64 end = precopy_now_ms() + MMAP_MS;
	struct precopy_held_split held;
	struct mapper mapper = {};
	map_t *m = &self->m;
	struct precopy_dev other;

	if (!precopy_has_knob(bdfs[0], "hold_split"))
		SKIP(return, "no test knob hold_split in debugfs");
	ASSERT_EQ(0, pthread_create(&mapper.thread, NULL, map_memory, &mapper));
	m->second = map_unaligned(m);
	other = m->t.a;
	other.bar = m->second;
	tracking_begin(&m->t);
	precopy_hold_split(&held, &other, 30 * PRECOPY_PAGE);
	mapper.go = true;
	while (!mapper.done && precopy_now_ms() < end)
		usleep(1000);
	EXPECT_TRUE(mapper.done);
	precopy_release_split(&held);
	ASSERT_EQ(0, pthread_join(mapper.thread, NULL));
	tracking_collect(&m->t);
	EXPECT_EQ(0, tracking_finish(&m->t));
}

/* --- A unit of single pages becomes one folio ---------------------------- */

/* A page of the first unit of 2 MiB, or of the second */
#define FIRST(page)	((u64)(page))
#define SECOND(page)	(SZ_2M / PRECOPY_PAGE + (page))

/* The first store to each unit, while it is tracked, makes it single pages. */
static void divide_units(struct __test_metadata *_metadata, map_t *self)
{
	precopy_fill(&self->t.a, 0, precopy_nr_pages(&self->t.a), 5, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->t.a.dev, VFIO_DEVICE_STATE_PRE_COPY,
				   &self->t.data_fd));
	tracking_collect(&self->t);
	precopy_fill(&self->t.a, FIRST(0), 1, 6, BY_MMAP);
	precopy_fill(&self->t.a, SECOND(0), 1, 6, BY_MMAP);
	tracking_end(&self->t);
}

/* A mapping that has no page table yet, so that a 2 MiB entry fits */
static u8 *map_aligned(map_t *self)
{
	u8 *at = mmap_reserve(SIZE, SZ_2M, 0);

	VFIO_ASSERT_EQ(mmap(at, SIZE, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_FIXED, self->t.a.fd,
			    self->t.a.bar_offset), (void *)at);
	return at;
}

/* A thread stores by another mapping, and waits while the first unit is one folio soon. */
struct collapse {
	struct precopy_held_split held;
	struct precopy_dev other;	/* the device by that mapping */
	u64 collapses;			/* so many before */
};

/* Why none can be held, or NULL */
static const char *no_collapse(void)
{
	if (!precopy_has_knob(bdfs[0], "hold_split"))
		return "no test knob hold_split in debugfs";
	if (!precopy_kernel_has("vmf_insert_folio_pmd"))
		return "without page table entries of 2 MiB nothing collapses";
	return NULL;
}

static void hold_collapse(struct __test_metadata *_metadata, map_t *self,
			  struct collapse *c)
{
	divide_units(_metadata, self);
	c->collapses = precopy_stat(bdfs[0], "collapses");
	self->second = map_aligned(self);
	c->other = self->t.a;
	c->other.bar = self->second;
	precopy_hold_split(&c->held, &c->other, FIRST(30) * PRECOPY_PAGE);
}

/* Whether it has become one folio */
static u64 release_collapse(struct collapse *c)
{
	precopy_release_split(&c->held);
	return precopy_stat(bdfs[0], "collapses") - c->collapses;
}

struct storer {
	struct precopy_dev *pd;
	pthread_t thread;
	volatile bool done;
};

static void *store_to_first(void *arg)
{
	struct storer *s = arg;

	precopy_fill(s->pd, FIRST(50), 1, 7, BY_MMAP);
	s->done = true;
	return NULL;
}

/*
 * While the driver copies a unit, write() may store to it: the driver copies such pages once
 * more. A store through a mapping of the unit waits until the copy is used. A store to
 * another unit does not wait.
 */
TEST_F_TIMEOUT(dirty_map, stores_during_a_collapse, MIG_TIMEOUT)
{
	struct storer s = { .pd = &self->m.t.a };
	struct collapse c;

	if (no_collapse())
		SKIP(return, "%s", no_collapse());
	hold_collapse(_metadata, &self->m, &c);
	precopy_fill(&self->m.t.a, FIRST(40), 1, 7, BY_PWRITE);
	precopy_fill(&self->m.t.a, SECOND(3), 20, 7, BY_MMAP);
	ASSERT_EQ(0, pthread_create(&s.thread, NULL, store_to_first, &s));
	usleep(100 * 1000);
	EXPECT_FALSE(s.done);
	EXPECT_EQ(1, release_collapse(&c));
	ASSERT_EQ(0, pthread_join(s.thread, NULL));
	EXPECT_EQ(0, precopy_differ(&self->m.t.a, self->m.t.a.shadow));
	EXPECT_EQ(0, precopy_differ(&c.other, self->m.t.a.shadow));
}

static void track_in_collapse(struct __test_metadata *_metadata, map_t *self,
			      struct collapse *c)
{
	hold_collapse(_metadata, self, c);
	ASSERT_EQ(0, mig_set_state(self->t.a.dev, VFIO_DEVICE_STATE_PRE_COPY,
				   &self->t.data_fd));
}

/*
 * Tracking needs single pages, so its begin cancels the collapse, and accesses to the unit
 * go on at once.
 */
TEST_F_TIMEOUT(dirty_map, tracking_begins_during_a_collapse, MIG_TIMEOUT)
{
	struct collapse c;
	map_t *m = &self->m;

	if (no_collapse())
		SKIP(return, "%s", no_collapse());
	track_in_collapse(_metadata, m, &c);
	tracking_collect(&m->t);
	precopy_fill(&m->t.a, FIRST(60), 10, 8, BY_MMAP);
	EXPECT_EQ(0, release_collapse(&c));
	EXPECT_EQ(0, precopy_differ(&m->t.a, m->t.a.shadow));
	EXPECT_EQ(0, tracking_finish(&m->t));
}

/*
 * The driver does not use the copy either if tracking has ended again: entries were made
 * meanwhile.
 */
TEST_F_TIMEOUT(dirty_map, tracking_comes_and_goes_during_a_collapse, MIG_TIMEOUT)
{
	struct collapse c;
	map_t *m = &self->m;

	if (no_collapse())
		SKIP(return, "%s", no_collapse());
	track_in_collapse(_metadata, m, &c);
	tracking_end(&m->t);
	precopy_fill(&m->t.a, FIRST(60), 10, 8, BY_MMAP);
	EXPECT_EQ(0, release_collapse(&c));
	precopy_fill(&m->t.a, FIRST(60), 5, 9, BY_MMAP);
	EXPECT_EQ(0, precopy_differ(&m->t.a, m->t.a.shadow));
	EXPECT_EQ(0, precopy_differ(&c.other, m->t.a.shadow));
}

/* The memory that was copied is gone, and the store finds that of after the reset. */
TEST_F_TIMEOUT(dirty_map, reset_during_a_collapse, MIG_TIMEOUT)
{
	struct precopy_dev *pd = &self->m.t.a;
	struct collapse c;
	u64 stored;

	if (no_collapse())
		SKIP(return, "%s", no_collapse());
	hold_collapse(_metadata, &self->m, &c);
	memcpy(&stored, pd->shadow + c.held.offset, sizeof(stored));
	ASSERT_EQ(0, ioctl(pd->fd, VFIO_DEVICE_RESET));
	memset(pd->shadow, 0, SIZE);
	EXPECT_EQ(0, release_collapse(&c));
	memcpy(pd->shadow + c.held.offset, &stored, sizeof(stored));
	precopy_fill(pd, FIRST(60), 10, 8, BY_MMAP);
	EXPECT_EQ(0, precopy_differ(pd, pd->shadow));
}

/* A second user of the mapping comes, looks, and goes. */
static void forked(map_t *self)
{
	pid_t child = fork();
	int status;

	VFIO_ASSERT_GE(child, 0);
	if (!child)
		_exit(*(volatile u8 *)(self->bar + PRECOPY_PAGE) !=
		      self->t.a.shadow[PRECOPY_PAGE]);
	VFIO_ASSERT_EQ(waitpid(child, &status, 0), child);
	VFIO_ASSERT_EQ(status, 0);
}

TEST_F_TIMEOUT(dirty_map, fork_around_collect, MIG_TIMEOUT)
{
	around(_metadata, &self->m, forked);
}

static void advise(map_t *self, int advice)
{
	VFIO_ASSERT_EQ(madvise(self->bar, SIZE, advice), 0);
}

static void dontneed(map_t *self)
{
	advise(self, MADV_DONTNEED);
}

TEST_F_TIMEOUT(dirty_map, dontneed_around_collect, MIG_TIMEOUT)
{
	around(_metadata, &self->m, dontneed);
}

static void cold(map_t *self)
{
	advise(self, MADV_COLD);
}

TEST_F_TIMEOUT(dirty_map, cold_around_collect, MIG_TIMEOUT)
{
	around(_metadata, &self->m, cold);
}

static void pageout(map_t *self)
{
	advise(self, MADV_PAGEOUT);
}

TEST_F_TIMEOUT(dirty_map, pageout_around_collect, MIG_TIMEOUT)
{
	around(_metadata, &self->m, pageout);
}

/* Present for reading, as a VMM's prefault leaves it. */
static void populated(map_t *self)
{
	advise(self, MADV_POPULATE_READ);
}

TEST_F_TIMEOUT(dirty_map, populate_read_around_collect, MIG_TIMEOUT)
{
	around(_metadata, &self->m, populated);
}

/* ------------------------------------------------------------------------ */
/* The same, whatever way the stores come                                   */

FIXTURE(dirty_map_writers) {
	struct mapping m;
	struct dirty_writer_run w;
};

FIXTURE_VARIANT(dirty_map_writers) {
	const char *writer;
};

#define FIXTURE_VARIANT_ADD_WRITER(name_)	\
FIXTURE_VARIANT_ADD(dirty_map_writers, name_) {	\
	.writer = #name_,			\
}

#include <libvfio/dirty_writer_list.h>

FIXTURE_SETUP(dirty_map_writers)
{
	const char *missing;

	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	missing = dirty_writer_init(&self->w, variant->writer);
	if (missing)
		SKIP(return, "%s", missing);
	mapping_open(&self->m);
	dirty_writer_open(&self->w, &self->m.t, self->m.bar);
}

FIXTURE_TEARDOWN(dirty_map_writers)
{
	dirty_writer_close(&self->w);
	mapping_close(&self->m);
	dirty_writer_exit(&self->w);
}

/* Each of the events, before the collect between two stores, and after it. */
TEST_F_TIMEOUT(dirty_map_writers, events_around_collect, MIG_TIMEOUT)
{
	static const event_fn events[] = {
		read_only_for_a_moment, no_access_for_a_moment, unmapped, moved,
		forked, dontneed, cold, pageout, populated,
	};
	int i;

	tracking_begin(&self->m.t);
	for (i = 0; i < (int)ARRAY_SIZE(events); i++) {
		tracking_store_pages(&self->m.t, dirty_writer_track, &self->w, i);
		events[i](&self->m);
		EXPECT_EQ(0, tracking_carry(&self->m.t)) TH_LOG("event %d", i);
		tracking_store_pages(&self->m.t, dirty_writer_track, &self->w, i);
		EXPECT_EQ(0, tracking_carry(&self->m.t)) TH_LOG("event %d", i);
		events[i](&self->m);
	}
	tracking_store_pages(&self->m.t, dirty_writer_track, &self->w, i);
	EXPECT_EQ(0, tracking_finish(&self->m.t));
}

/* ------------------------------------------------------------------------ */

/*
 * The kernel makes entries inaccessible to learn who uses the page, and
 * repairs them at the next access, writable if it thinks they were. It does so
 * while the process runs, every now and then, and leaves out pages that were
 * unmapped dirty, as the first collect leaves those of a unit that it finds mapped.
 * So this is about pages of a unit that is mapped only after that.
 */
#define NUMA_MS		30000
#define NUMA_FIRST	640
#define NUMA_NR		4
#define NUMA_DEBUG	"/sys/kernel/debug/sched/numa_balancing/"

static long minor_faults(void)
{
	struct rusage usage;

	VFIO_ASSERT_EQ(getrusage(RUSAGE_THREAD, &usage), 0);
	return usage.ru_minflt;
}

/* A page that is mapped and that nobody stores to; reading it faults. */
static bool access_faults(map_t *self)
{
	long before = minor_faults();

	*(volatile u8 *)(self->bar + (NUMA_FIRST - 1) * PRECOPY_PAGE);
	return minor_faults() > before;
}

/* All entries of the mapping are made inaccessible in one go. */
static bool hinted(map_t *self)
{
	u64 end = precopy_now_ms() + NUMA_MS;

	access_faults(self);
	while (!access_faults(self))
		if (precopy_now_ms() > end)
			return false;
	return true;
}

static void store_numa_pages(map_t *self)
{
	u64 page;

	for (page = NUMA_FIRST; page < NUMA_FIRST + NUMA_NR; page++) {
		tracking_by_store(&self->t, page, ++self->t.seed);
		tracking_stored(&self->t, page, self->t.seed);
	}
}

static void numa_hints(struct __test_metadata *_metadata, map_t *self)
{
	int pass;

	tracking_begin(&self->t);
	for (pass = 0; pass < 3; pass++) {
		store_numa_pages(self);
		if (pass != 1)
			ASSERT_TRUE(hinted(self));
		EXPECT_EQ(0, tracking_carry(&self->t));
		if (pass != 0)
			ASSERT_TRUE(hinted(self));
	}
	store_numa_pages(self);
	EXPECT_EQ(0, tracking_finish(&self->t));
}

TEST_F_TIMEOUT(dirty_map, numa_hint_around_collect, 180)
{
	if (precopy_file_write("/proc/sys/kernel/numa_balancing", "1"))
		SKIP(return, "no NUMA balancing: %s", strerror(errno));
	precopy_file_write(NUMA_DEBUG "scan_delay_ms", "10");
	precopy_file_write(NUMA_DEBUG "scan_period_min_ms", "10");
	precopy_file_write(NUMA_DEBUG "scan_period_max_ms", "20");
	numa_hints(_metadata, &self->m);
	precopy_file_write("/proc/sys/kernel/numa_balancing", "0");
}

/* Who may touch the memory through a fault handler in user space: nobody. */
static int register_uffd(map_t *self, u64 features, u64 mode)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };
	struct uffdio_register reg = {
		.range = { (uintptr_t)self->bar, SIZE },
		.mode = mode,
	};
	int ret, fd = syscall(__NR_userfaultfd, O_CLOEXEC);

	if (fd < 0)
		return -errno;
	if (ioctl(fd, UFFDIO_API, &api))
		ret = -EOPNOTSUPP;
	else
		ret = ioctl(fd, UFFDIO_REGISTER, &reg) ? -errno : 0;
	close(fd);
	return ret;
}

static void refuse_uffd(struct __test_metadata *_metadata, map_t *self)
{
	static const struct {
		u64 features;
		u64 mode;
	} ways[] = {
		{ 0, UFFDIO_REGISTER_MODE_MISSING },
		{ 0, UFFDIO_REGISTER_MODE_WP },
		{ 0, UFFDIO_REGISTER_MODE_MINOR },
		{ UFFD_FEATURE_WP_ASYNC, UFFDIO_REGISTER_MODE_WP },
		{ UFFD_FEATURE_RWP, UFFDIO_REGISTER_MODE_RWP },
		{ UFFD_FEATURE_RWP | UFFD_FEATURE_RWP_ASYNC,
		  UFFDIO_REGISTER_MODE_RWP },
	};
	size_t i;
	int ret;

	for (i = 0; i < ARRAY_SIZE(ways); i++) {
		ret = register_uffd(self, ways[i].features, ways[i].mode);
		/* Not every kernel has each of the modes */
		if (ret != -EOPNOTSUPP)
			EXPECT_EQ(-EINVAL, ret) TH_LOG("way %zu", i);
	}
}

TEST_F_TIMEOUT(dirty_map, userfaultfd_refused, MIG_TIMEOUT)
{
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC);

	if (fd < 0)
		SKIP(return, "userfaultfd: %s", strerror(errno));
	close(fd);
	precopy_fill(&self->m.t.a, 0, 64, 1, BY_MMAP);
	refuse_uffd(_metadata, &self->m);
	tracking_begin(&self->m.t);
	refuse_uffd(_metadata, &self->m);
	tracking_end(&self->m.t);
	EXPECT_EQ(0, tracking_passes(&self->m.t, tracking_by_store, &self->m.t));
}

/* A second range with the same pages, of which no fault would tell. */
TEST_F_TIMEOUT(dirty_map, mremap_leaves_nothing, MIG_TIMEOUT)
{
	precopy_fill(&self->m.t.a, 0, 64, 1, BY_MMAP);
	EXPECT_EQ(MAP_FAILED, mremap(self->m.bar, SIZE, SIZE,
				     MREMAP_MAYMOVE | MREMAP_DONTUNMAP, NULL));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(0, tracking_passes(&self->m.t, tracking_by_store, &self->m.t));
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
