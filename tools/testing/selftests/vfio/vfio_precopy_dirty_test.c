// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tracking of what is written to the device while it is migrated, in all the ways
 * there are (lib/dirty_writer.c). A way of writing is tried in several passes:
 * write, read the stream to its temporary end, write again to the same pages.
 * So the stores of all passes but the first come after a collect, through what
 * was there before it. Each collect must carry what was stored before it, and
 * nothing else; in the end the copy must hold everything, which a shadow knows
 * that no device has a part in.
 *
 * Pins and references are in vfio_precopy_dirty_pin_test.c, what else may happen to
 * a mapping in vfio_precopy_dirty_map_test.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/mman.h>
#include <sys/syscall.h>

#include <linux/sizes.h>
#include <linux/types.h>

#include <libvfio.h>
#include <libvfio/dirty_writer.h>
#include <libvfio/precopy_stream.h>
#include <libvfio/precopy_tracking.h>

#include <libvfio/mig_harness.h>

#define SIZE		SZ_4M
#define STORM_MS	1500

static char **bdfs;
static int nr_bdfs;

/* ------------------------------------------------------------------------ */
/* Every way of storing                                                     */

FIXTURE(dirty_writers) {
	struct precopy_tracking t;
	struct dirty_writer_run w;
};

FIXTURE_VARIANT(dirty_writers) {
	const char *writer;
};

#define FIXTURE_VARIANT_ADD_WRITER(name_)	\
FIXTURE_VARIANT_ADD(dirty_writers, name_) {	\
	.writer = #name_,			\
}

#include <libvfio/dirty_writer_list.h>

FIXTURE_SETUP(dirty_writers)
{
	const char *missing;

	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	missing = dirty_writer_init(&self->w, variant->writer);
	if (missing)
		SKIP(return, "%s", missing);
	tracking_open(&self->t, bdfs, SIZE);
	dirty_writer_open(&self->w, &self->t, self->t.a.bar);
}

FIXTURE_TEARDOWN(dirty_writers)
{
	dirty_writer_close(&self->w);
	tracking_close(&self->t);
	dirty_writer_exit(&self->w);
}

/* The page is writable before tracking starts, as a running guest's is. */
TEST_F_TIMEOUT(dirty_writers, passes, MIG_TIMEOUT)
{
	precopy_fill(&self->t.a, 0, 64, 1, BY_MMAP);
	dirty_writer_track(&self->w, 7, 2);
	EXPECT_EQ(0, tracking_passes(&self->t, dirty_writer_track, &self->w));
}

/* Several stores to one page are one dirty page, collected or not. */
TEST_F_TIMEOUT(dirty_writers, one_page, MIG_TIMEOUT)
{
	int pass;

	tracking_begin(&self->t);
	for (pass = 0; pass < 2 * TRACKING_PASSES; pass++) {
		dirty_writer_track(&self->w, 9, ++self->t.seed);
		EXPECT_EQ(tracking_want(&self->t),
			  tracking_dirty_bytes(&self->t))
			TH_LOG("pass %d", pass);
		if (pass % 4 != 3)
			EXPECT_EQ(0, tracking_carry(&self->t));
	}
	EXPECT_EQ(0, tracking_finish(&self->t));
}

/* ------------------------------------------------------------------------ */
/* What does not depend on the way of storing                               */

FIXTURE(dirty) {
	struct precopy_tracking t;
	u8 *second;		/* another mapping of the BAR of a */
	int pipe[2];
	volatile pid_t reader;	/* a thread, when it has begun */
};

FIXTURE_SETUP(dirty)
{
	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	tracking_open(&self->t, bdfs, SIZE);
	self->second = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			    self->t.a.fd, self->t.a.bar_offset);
	ASSERT_NE(MAP_FAILED, self->second);
	ASSERT_EQ(0, pipe(self->pipe));
}

FIXTURE_TEARDOWN(dirty)
{
	if (self->second)
		munmap(self->second, SIZE);
	tracking_close(&self->t);
}

typedef FIXTURE_DATA(dirty) dirty_t;

/*
 * Of two stores to a page the second may come when the first has its entry
 * already but has not returned from the fault. A collect right after it carries
 * it, or sets the page aside because the fault still has a reference to it. Then
 * the page is announced, and the next collect after the fault carries it. How
 * long the other thread takes decides which of the two is seen, not what is right.
 */
#define BESIDE_US	3000

/* The image has the store, or the device announces a page that is to come. */
static bool carried_or_announced(dirty_t *self, const u64 *in_image, u64 stored)
{
	u64 left;

	if (*in_image == stored)
		return true;
	return !mig_data_size(self->t.a.dev, &left) && left >= PRECOPY_PAGE;
}

static void *store_first_word(void *arg)
{
	volatile u64 *word = arg;

	word[0]++;
	return NULL;
}

TEST_F_TIMEOUT(dirty, store_beside_fault, MIG_TIMEOUT)
{
	u64 *word = (u64 *)(self->t.a.bar + 9 * PRECOPY_PAGE);
	u64 *shadow = (u64 *)(self->t.a.shadow + 9 * PRECOPY_PAGE);
	u64 *image = (u64 *)(self->t.image + 9 * PRECOPY_PAGE);
	int pass, carried = 0;
	pthread_t thread;

	tracking_begin(&self->t);
	for (pass = 0; pass < 8; pass++) {
		ASSERT_EQ(0, pthread_create(&thread, NULL, store_first_word,
					    word));
		usleep(BESIDE_US);
		*(volatile u64 *)(word + 100) += 5;
		tracking_collect(&self->t);
		shadow[0]++;
		shadow[100] += 5;
		EXPECT_TRUE(carried_or_announced(self, &image[100],
						 shadow[100]));
		carried += shadow[100] == image[100];
		ASSERT_EQ(0, pthread_join(thread, NULL));
		tracking_collect(&self->t);
		EXPECT_EQ(0, tracking_lost(&self->t));
	}
	TH_LOG("%d of %d carried at once", carried, pass);
	EXPECT_EQ(0, tracking_finish(&self->t));
}

/* A single byte is enough. */
TEST_F_TIMEOUT(dirty, one_byte, MIG_TIMEOUT)
{
	u64 offset;
	u8 byte;
	int i;

	tracking_begin(&self->t);
	for (i = 0; i < 16; i++) {
		offset = (u64)i * 4 * PRECOPY_PAGE + (i * 977) % PRECOPY_PAGE;
		byte = i + 1;
		precopy_store(&self->t.a, offset, &byte, 1,
			      i & 1 ? BY_MMAP : BY_PWRITE);
		tracking_touched(&self->t, offset / PRECOPY_PAGE);
		EXPECT_EQ(TRACKING_PAGE_COST, tracking_dirty_bytes(&self->t));
		EXPECT_EQ(0, tracking_carry(&self->t));
	}
	EXPECT_EQ(0, tracking_finish(&self->t));
}

/* What a debugger may do to a read-only private mapping is not for a BAR. */
TEST_F_TIMEOUT(dirty, proc_mem_does_not_force, MIG_TIMEOUT)
{
	u8 *page = self->t.a.bar + 7 * PRECOPY_PAGE;
	int fd = open("/proc/self/mem", O_RDWR);

	ASSERT_LE(0, fd);
	precopy_fill(&self->t.a, 0, 64, 1, BY_MMAP);
	ASSERT_EQ(0, mprotect(self->t.a.bar, SIZE, PROT_READ));
	EXPECT_EQ(-1, pwrite(fd, "x", 1, (uintptr_t)page));
	EXPECT_EQ(EIO, errno);
	close(fd);
	ASSERT_EQ(0, mprotect(self->t.a.bar, SIZE, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, tracking_passes(&self->t, tracking_by_store, &self->t));
}

/* A system call that is under way when the collect comes, and returns after. */
static void *reader(void *arg)
{
	dirty_t *self = arg;
	size_t done = 0;
	ssize_t ret;

	self->reader = gettid();
	while (done < PRECOPY_PAGE) {
		ret = read(self->pipe[0],
			   self->t.a.bar + 7 * PRECOPY_PAGE + done,
			   PRECOPY_PAGE - done);
		VFIO_ASSERT_GT(ret, 0);
		done += ret;
	}

	return NULL;
}

TEST_F_TIMEOUT(dirty, read_under_way, MIG_TIMEOUT)
{
	u8 buf[PRECOPY_PAGE] __attribute__((aligned(8)));
	const volatile bool never = false;
	pthread_t thread;
	int pass;

	tracking_begin(&self->t);
	for (pass = 0; pass < TRACKING_PASSES; pass++) {
		tracking_store_pages(&self->t, tracking_by_store, &self->t, pass);
		self->reader = 0;
		ASSERT_EQ(0, pthread_create(&thread, NULL, reader, self));
		ASSERT_TRUE(precopy_wait_blocked(&self->reader, __NR_read,
						 &never));
		EXPECT_EQ(0, tracking_carry(&self->t));
		precopy_pattern(buf, 7, ++self->t.seed);
		ASSERT_EQ((ssize_t)sizeof(buf),
			  write(self->pipe[1], buf, sizeof(buf)));
		ASSERT_EQ(0, pthread_join(thread, NULL));
		tracking_stored(&self->t, 7, self->t.seed);
		EXPECT_EQ(0, tracking_carry(&self->t));
	}
	EXPECT_EQ(0, tracking_finish(&self->t));
}

/* ------------------------------------------------------------------------ */

TEST_F_TIMEOUT(dirty, reads_never_dirty, MIG_TIMEOUT)
{
	struct pollfd pfd = { .events = POLLIN };
	volatile u8 sum = 0;
	size_t i;

	tracking_begin(&self->t);
	pfd.fd = self->t.data_fd;
	/* All of it: in use and not, by read() and through both mappings. */
	EXPECT_EQ(0, precopy_differ(&self->t.a, self->t.a.shadow));
	for (i = 0; i < SIZE; i += 512)
		sum += self->second[i];
	EXPECT_EQ(0, tracking_dirty_bytes(&self->t));
	EXPECT_EQ(0, poll(&pfd, 1, 0));

	/* And what was only read is found out when it is written. */
	precopy_fill(&self->t.a, 900, 1, 2, BY_MMAP);
	tracking_touched(&self->t, 900);
	EXPECT_EQ(TRACKING_PAGE_COST, tracking_dirty_bytes(&self->t));
	EXPECT_EQ(0, tracking_carry(&self->t));
	EXPECT_EQ(0, precopy_differ(&self->t.a, self->t.a.shadow));
	EXPECT_EQ(0, tracking_dirty_bytes(&self->t));
	EXPECT_EQ(0, tracking_finish(&self->t));
}

/* Between two migrations writes are not counted, and none is forgotten. */
TEST_F_TIMEOUT(dirty, second_migration, MIG_TIMEOUT)
{
	tracking_begin(&self->t);
	precopy_fill(&self->t.a, 0, 10, 2, BY_MMAP);
	tracking_end(&self->t);
	precopy_fill(&self->t.a, 5, 10, 3, BY_MMAP);
	precopy_fill(&self->t.a, 500, 10, 3, BY_MMAP);
	EXPECT_EQ(0, tracking_passes(&self->t, tracking_by_store, &self->t));
}

/* Page faults that the driver has counted. */
static u64 nr_faults(void)
{
	return precopy_stat(bdfs[0], "read_faults") +
	       precopy_stat(bdfs[0], "write_faults") +
	       precopy_stat(bdfs[0], "mkwrite_faults") +
	       precopy_stat(bdfs[0], "huge_faults");
}

static void fill_all(dirty_t *self)
{
	precopy_fill(&self->t.a, 0, SIZE / PRECOPY_PAGE, ++self->t.seed,
		     BY_MMAP);
}

/*
 * Tracking begins without removing page table entries: stores cause no fault until the
 * page is sent, and are sent with it. After that the first store to each page faults. In
 * the second pass the units consist of single pages, which have entries of 4 KiB.
 */
TEST_F_TIMEOUT(dirty, begin_keeps_entries, MIG_TIMEOUT)
{
	u64 before;
	int pass;

	if (precopy_stat(bdfs[0], "write_faults") == ~0ULL)
		SKIP(return, "no statistics in debugfs");
	for (pass = 0; pass < 3; pass++) {
		fill_all(self);
		ASSERT_EQ(0, mig_set_state(self->t.a.dev,
					   VFIO_DEVICE_STATE_PRE_COPY,
					   &self->t.data_fd));
		before = nr_faults();
		fill_all(self);
		EXPECT_EQ(before, nr_faults());
		EXPECT_EQ(0, tracking_dirty_bytes(&self->t));
		tracking_collect(&self->t);
		EXPECT_EQ(0, tracking_lost(&self->t));

		fill_all(self);
		EXPECT_EQ(SIZE / PRECOPY_PAGE * TRACKING_PAGE_COST,
			  tracking_dirty_bytes(&self->t));
		tracking_collect(&self->t);
		EXPECT_EQ(0, tracking_lost(&self->t));
		tracking_end(&self->t);
	}
}

static u8 load_all(dirty_t *self)
{
	u8 sum = 0;
	size_t i;

	for (i = 0; i < SIZE; i += PRECOPY_PAGE)
		sum += *(volatile u8 *)(self->t.a.bar + i);
	return sum;
}

/*
 * Tracking ends without removing page table entries. They are read-only then, and the
 * first store to a unit makes all of its entries writable. In the first pass the units
 * are folios, in the second they consist of single pages that were sent.
 */
TEST_F_TIMEOUT(dirty, end_keeps_entries, MIG_TIMEOUT)
{
	u64 before;
	int pass;

	if (precopy_stat(bdfs[0], "write_faults") == ~0ULL)
		SKIP(return, "no statistics in debugfs");
	fill_all(self);
	for (pass = 0; pass < 3; pass++) {
		ASSERT_EQ(0, mig_set_state(self->t.a.dev,
					   VFIO_DEVICE_STATE_PRE_COPY,
					   &self->t.data_fd));
		tracking_collect(&self->t);
		if (pass)
			fill_all(self);
		tracking_collect(&self->t);
		EXPECT_EQ(0, tracking_lost(&self->t));
		load_all(self);
		tracking_end(&self->t);

		before = nr_faults();
		load_all(self);
		EXPECT_EQ(before, nr_faults());
		fill_all(self);
		EXPECT_LE(nr_faults() - before, SIZE / SZ_2M);
		before = nr_faults();
		fill_all(self);
		EXPECT_EQ(before, nr_faults());
		EXPECT_EQ(0, precopy_differ(&self->t.a, self->t.a.shadow));
	}
}

/*
 * A split leaves a unit without entries but for the page that was stored to. The first
 * load maps all of its other pages, read-only, so a store to each is noticed, and does
 * not take the right to be stored to from the first.
 */
TEST_F_TIMEOUT(dirty, loads_after_a_split, MIG_TIMEOUT)
{
	u64 before, unit;

	if (precopy_stat(bdfs[0], "read_faults") == ~0ULL)
		SKIP(return, "no statistics in debugfs");
	fill_all(self);
	ASSERT_EQ(0, mig_set_state(self->t.a.dev, VFIO_DEVICE_STATE_PRE_COPY,
				   &self->t.data_fd));
	tracking_collect(&self->t);
	for (unit = 0; unit < SIZE / SZ_2M; unit++)
		tracking_by_store(&self->t, unit * 512 + 77, 2);
	before = precopy_stat(bdfs[0], "read_faults");
	load_all(self);
	EXPECT_EQ(before + unit, precopy_stat(bdfs[0], "read_faults"));
	EXPECT_EQ(unit * TRACKING_PAGE_COST, tracking_dirty_bytes(&self->t));

	before = nr_faults();
	load_all(self);
	for (unit = 0; unit < SIZE / SZ_2M; unit++)
		tracking_by_store(&self->t, unit * 512 + 77, 3);
	EXPECT_EQ(before, nr_faults());
	EXPECT_EQ(0, tracking_carry(&self->t));

	/* Where a collect removes entries, that of a page of each unit has to come back. */
	if (!precopy_kernel_has("mapping_wrprotect_range"))
		before += unit;
	load_all(self);
	EXPECT_EQ(before, nr_faults());
	fill_all(self);
	EXPECT_EQ(before + SIZE / PRECOPY_PAGE, nr_faults());
	EXPECT_EQ(SIZE / PRECOPY_PAGE * TRACKING_PAGE_COST,
		  tracking_dirty_bytes(&self->t));
	tracking_collect(&self->t);
	EXPECT_EQ(0, tracking_lost(&self->t));
	EXPECT_EQ(0, tracking_finish(&self->t));
}

#define SPARSE_FIRST	520
#define SPARSE_NR	8
#define SPARSE_HOLE	700	/* in the same unit */

/* Of a unit, a load allocates no pages but those that it brings. */
static void load_sparse_unit(dirty_t *self)
{
	struct precopy_dev *a = &self->t.a;
	struct wire w = {};
	u64 page;

	wire_init(&w, bdfs[0], SIZE);
	wire_put_header(&w);
	wire_put_preface(&w);
	for (page = SPARSE_FIRST; page < SPARSE_FIRST + SPARSE_NR; page++) {
		precopy_pattern(a->shadow + page * PRECOPY_PAGE, page, 1);
		wire_put_data(&w, page * PRECOPY_PAGE,
			      a->shadow + page * PRECOPY_PAGE, PRECOPY_PAGE);
	}
	wire_put_initial_end(&w);
	wire_put_state(&w);
	wire_put_end(&w);
	VFIO_ASSERT_EQ(mig_load(a->dev, &w.stream, SZ_64K), 0);
	VFIO_ASSERT_EQ(mig_set_state(a->dev, VFIO_DEVICE_STATE_RUNNING, NULL), 0);
	wire_free(&w);
}

/*
 * A page of the initial set, which is mapped and needs no mark until it is sent, and
 * a page of the same unit that comes into use only then, and does.
 */
TEST_F_TIMEOUT(dirty, sparse_unit, MIG_TIMEOUT)
{
	load_sparse_unit(self);
	precopy_fill(&self->t.a, SPARSE_FIRST, SPARSE_NR, 2, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->t.a.dev, VFIO_DEVICE_STATE_PRE_COPY,
				   &self->t.data_fd));
	tracking_by_store(&self->t, SPARSE_FIRST, 3);
	tracking_by_store(&self->t, SPARSE_HOLE, 3);
	EXPECT_EQ(TRACKING_PAGE_COST, tracking_dirty_bytes(&self->t));
	tracking_collect(&self->t);
	EXPECT_EQ(0, tracking_lost(&self->t));

	tracking_by_store(&self->t, SPARSE_FIRST, 4);
	tracking_by_store(&self->t, SPARSE_FIRST + 1, 4);
	tracking_by_store(&self->t, SPARSE_HOLE, 4);
	EXPECT_EQ(0, tracking_carry(&self->t));
	EXPECT_EQ(0, tracking_finish(&self->t));
}

struct writer {
	dirty_t *self;
	pthread_t thread;
	volatile bool stop;
	enum precopy_how how;
	u64 first;
	u64 nr;
	volatile u64 written;
};

/* Stamps pages of its own at random, and their shadow, until told to stop. */
static void *storm_thread(void *arg)
{
	struct writer *w = arg;
	u64 stamp[4], offset;
	unsigned int rnd = w->first + 1;

	while (!w->stop) {
		w->written++;
		offset = (w->first + rand_r(&rnd) % w->nr) * PRECOPY_PAGE;
		offset += rand_r(&rnd) % (PRECOPY_PAGE / 32) * 32;
		stamp[0] = w->written;
		stamp[1] = offset;
		stamp[2] = ~w->written;
		stamp[3] = rand_r(&rnd);
		precopy_store(&w->self->t.a, offset, stamp, sizeof(stamp), w->how);
		if (w->written % 64 == 0)
			sched_yield();
	}

	return NULL;
}

static bool all_wrote(const struct writer *writers, int nr)
{
	while (nr && writers[nr - 1].written)
		nr--;
	return !nr;
}

/* While others write, passes one after the other; then they stop. */
static void storm(struct __test_metadata *_metadata, dirty_t *self,
		  struct writer *writers, int nr, void *(*fn)(void *))
{
	u64 end = precopy_now_ms() + STORM_MS;
	int i, ret, nr_passes = 0;

	tracking_begin(&self->t);
	for (i = 0; i < nr; i++) {
		writers[i].self = self;
		ASSERT_EQ(0, pthread_create(&writers[i].thread, NULL, fn,
					    &writers[i]));
	}
	while (precopy_now_ms() < end || !all_wrote(writers, nr)) {
		ret = mig_stream_read(&self->t.stream, self->t.data_fd, SZ_256K);
		ASSERT_TRUE(ret > 0 || ret == -ENOMSG);
		nr_passes++;
	}
	for (i = 0; i < nr; i++) {
		writers[i].stop = true;
		ASSERT_EQ(0, pthread_join(writers[i].thread, NULL));
	}
	TH_LOG("%d reads of the stream, %zu bytes, first writer wrote %lu times",
	       nr_passes, self->t.stream.len, writers[0].written);
	EXPECT_EQ(0, tracking_finish(&self->t));
}

TEST_F_TIMEOUT(dirty, storm, MIG_TIMEOUT)
{
	struct writer writers[] = {
		{ .how = BY_MMAP, .first = 0, .nr = 16 },
		{ .how = BY_MMAP, .first = 16, .nr = 100 },
		{ .how = BY_PWRITE, .first = 200, .nr = 300 },
	};

	storm(_metadata, self, writers, ARRAY_SIZE(writers), storm_thread);
}

/* Stamps pages of the first unit by write(), and their shadow, until told to stop. */
static void *region_thread(void *arg)
{
	struct writer *w = arg;
	u64 offset, stamp;

	for (; !w->stop; w->written++) {
		offset = w->written * 7 % (SZ_2M / PRECOPY_PAGE - 1) * PRECOPY_PAGE;
		stamp = w->written;
		precopy_store(&w->self->t.a, offset, &stamp, sizeof(stamp), BY_PWRITE);
	}
	return NULL;
}

/* All pages are there, sent once, and tracked, and each unit is one folio. */
static void track_filled(struct __test_metadata *_metadata, dirty_t *self)
{
	fill_all(self);
	ASSERT_EQ(0, mig_set_state(self->t.a.dev, VFIO_DEVICE_STATE_PRE_COPY,
				   &self->t.data_fd));
	tracking_collect(&self->t);
}

/*
 * A unit is divided while its contents are stored to by write(), which needs no page
 * table entry and so goes on meanwhile.
 */
TEST_F_TIMEOUT(dirty, region_writes_during_a_split, MIG_TIMEOUT)
{
	u64 last = SZ_2M - PRECOPY_PAGE, splits, stamp, pass;
	struct writer w;

	for (pass = 0; pass < precopy_rounds(20); pass++) {
		precopy_reset(&self->t.a);
		memset(self->t.a.shadow, 0, SIZE);
		track_filled(_metadata, self);
		w = (struct writer){ .self = self };
		ASSERT_EQ(0, pthread_create(&w.thread, NULL, region_thread, &w));
		while (w.written < 10)
			sched_yield();
		splits = precopy_stat(bdfs[0], "splits");
		stamp = ~pass;
		precopy_store(&self->t.a, last, &stamp, sizeof(stamp), BY_MMAP);
		w.stop = true;
		ASSERT_EQ(0, pthread_join(w.thread, NULL));
		if (splits != ~0ULL)
			EXPECT_EQ(splits + 1, precopy_stat(bdfs[0], "splits"));
		ASSERT_EQ(0, precopy_differ(&self->t.a, self->t.a.shadow))
			TH_LOG("pass %lu, %lu stores by write()", pass, w.written);
		tracking_collect(&self->t);
		ASSERT_EQ(0, tracking_lost(&self->t));
		tracking_end(&self->t);
	}
}

/*
 * A test knob holds the split after the copy, and write() stores to pages of the unit,
 * also to the page whose fault divides it. The driver copies these pages once more.
 */
TEST_F_TIMEOUT(dirty, region_writes_during_a_held_split, MIG_TIMEOUT)
{
	u64 beside = 300 * PRECOPY_PAGE + 2048, stamp = 0xbe51deULL;
	struct precopy_held_split held;
	u64 splits;

	if (!precopy_has_knob(bdfs[0], "hold_split"))
		SKIP(return, "no test knob hold_split in debugfs");
	track_filled(_metadata, self);
	splits = precopy_stat(bdfs[0], "splits");
	precopy_hold_split(&held, &self->t.a, 300 * PRECOPY_PAGE);
	precopy_fill(&self->t.a, 3, 100, ++self->t.seed, BY_PWRITE);
	precopy_store(&self->t.a, beside, &stamp, sizeof(stamp), BY_PWRITE);
	precopy_release_split(&held);
	EXPECT_EQ(splits + 1, precopy_stat(bdfs[0], "splits"));
	EXPECT_EQ(0, precopy_differ(&self->t.a, self->t.a.shadow));
	EXPECT_EQ(0, tracking_finish(&self->t));
}

/*
 * Tracking ends and begins again while a unit is divided: what is stored meanwhile,
 * through entries that are writable as nobody tracks, is in the result.
 */
TEST_F_TIMEOUT(dirty, tracking_begins_anew_during_a_split, MIG_TIMEOUT)
{
	struct precopy_held_split held;
	u64 splits;

	if (!precopy_has_knob(bdfs[0], "hold_split"))
		SKIP(return, "no test knob hold_split in debugfs");
	track_filled(_metadata, self);
	precopy_hold_split(&held, &self->t.a, 300 * PRECOPY_PAGE);
	splits = precopy_stat(bdfs[0], "splits");
	tracking_end(&self->t);
	precopy_fill(&self->t.a, 3, 100, ++self->t.seed, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->t.a.dev, VFIO_DEVICE_STATE_PRE_COPY,
				   &self->t.data_fd));
	tracking_collect(&self->t);
	precopy_release_split(&held);
	EXPECT_EQ(splits + 1, precopy_stat(bdfs[0], "splits"));
	EXPECT_EQ(0, precopy_differ(&self->t.a, self->t.a.shadow));
	EXPECT_EQ(0, tracking_finish(&self->t));
}

/* Long enough for a thread to get its turn, however busy the machine is */
#define BESIDE_MS	20000

static void *store_and_say(void *arg)
{
	struct writer *w = arg;

	*(volatile u64 *)(w->self->t.a.bar + w->first * PRECOPY_PAGE) = 1;
	w->written = 1;
	return NULL;
}

/* While a unit is divided, a store to another does not wait for the end of that. */
TEST_F_TIMEOUT(dirty, two_splits_at_a_time, MIG_TIMEOUT)
{
	struct writer w = { .self = self, .first = 600 };
	u64 splits, end = precopy_now_ms() + BESIDE_MS;
	struct precopy_held_split held;

	if (!precopy_has_knob(bdfs[0], "hold_split"))
		SKIP(return, "no test knob hold_split in debugfs");
	track_filled(_metadata, self);
	precopy_hold_split(&held, &self->t.a, 300 * PRECOPY_PAGE);
	splits = precopy_stat(bdfs[0], "splits");
	*(u64 *)(self->t.a.shadow + w.first * PRECOPY_PAGE) = 1;
	ASSERT_EQ(0, pthread_create(&w.thread, NULL, store_and_say, &w));
	while (!w.written && precopy_now_ms() < end)
		usleep(1000);
	EXPECT_EQ(1, w.written);
	EXPECT_EQ(splits + 1, precopy_stat(bdfs[0], "splits"));
	precopy_release_split(&held);
	ASSERT_EQ(0, pthread_join(w.thread, NULL));
	EXPECT_EQ(splits + 2, precopy_stat(bdfs[0], "splits"));
	EXPECT_EQ(0, precopy_differ(&self->t.a, self->t.a.shadow));
	EXPECT_EQ(0, tracking_finish(&self->t));
}

/*
 * The same with a mapping that is read-only most of the time, so that entries
 * go back and forth between all the states that they can be in while they are
 * collected.
 */
static void *mprotect_thread(void *arg)
{
	struct writer *w = arg;
	u64 stamp[2], offset;
	unsigned int rnd = 7;
	int i;

	while (!w->stop) {
		VFIO_ASSERT_EQ(mprotect(w->self->second, SIZE,
					PROT_READ | PROT_WRITE), 0);
		for (i = rand_r(&rnd) % 4; i >= 0; i--) {
			w->written++;
			offset = (w->first + rand_r(&rnd) % w->nr) * PRECOPY_PAGE;
			offset += rand_r(&rnd) % 8 * 16;
			stamp[0] = w->written;
			stamp[1] = offset;
			memcpy(w->self->second + offset, stamp, sizeof(stamp));
			memcpy(w->self->t.a.shadow + offset, stamp, sizeof(stamp));
		}
		VFIO_ASSERT_EQ(mprotect(w->self->second, SIZE, PROT_READ), 0);
	}

	return NULL;
}

TEST_F_TIMEOUT(dirty, mprotect_storm, MIG_TIMEOUT)
{
	struct writer w = { .first = 0, .nr = 4 };

	storm(_metadata, self, &w, 1, mprotect_thread);
}

/* Mappings that come, are written through, and go. */
static void *remap_thread(void *arg)
{
	struct writer *w = arg;
	u64 page, offset;
	unsigned int rnd = 9;
	u8 *map;

	while (!w->stop) {
		w->written++;
		page = w->first + rand_r(&rnd) % w->nr;
		offset = page * PRECOPY_PAGE;
		map = mmap(NULL, PRECOPY_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			   w->self->t.a.fd, w->self->t.a.bar_offset + offset);
		VFIO_ASSERT_NE(map, MAP_FAILED);
		*(volatile u64 *)map = w->written;
		*(u64 *)(w->self->t.a.shadow + offset) = w->written;
		VFIO_ASSERT_EQ(munmap(map, PRECOPY_PAGE), 0);
	}

	return NULL;
}

TEST_F_TIMEOUT(dirty, remap_storm, MIG_TIMEOUT)
{
	struct writer w = { .first = 70, .nr = 8 };

	storm(_metadata, self, &w, 1, remap_thread);
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
