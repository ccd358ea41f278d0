// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tracking of stores that no page fault announces: the kernel keeps a page of
 * the BAR for a while, and stores to it without a page table. The order is
 * always the same: pin, collect, store through the pin, release, collect.
 * Until it is released such a page is set aside: it is not sent, the others
 * are, and the stream pauses all the same. After it the page is sent once.
 * Pins that could last for ever are refused if they could write.
 *
 * A page that is set aside may keep others of its unit waiting. One that was
 * pinned before the first store of the session may even make all of its unit
 * be sent, once, because 2 MiB that are one folio cannot be divided then. So
 * what must not wait is in another unit here.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include <linux/stddef.h>
#include <linux/io_uring.h>
#include <linux/iommufd.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/userfaultfd.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/dirty_writer.h>
#include <libvfio/precopy_tracking.h>
#include <libvfio/slow_file.h>

#include <libvfio/mig_harness.h>

#define SIZE		SZ_8M
#define UNIT_PAGES	(WIRE_UNIT / PRECOPY_PAGE)
#define FREE_PAGE	(3 * UNIT_PAGES + 5)	/* nobody ever pins it */
#define ROUNDS		3
#define RELEASE_MS	60000
#define STORM_MS	1500

static char **bdfs;
static int nr_bdfs;

/* A migration, and what can hold pages of its source */
typedef struct {
	struct precopy_tracking t;
	struct slow_file file;
	int no_file;		/* why there is none, or 0 */
	int pipe[2];
} pin_t;

FIXTURE(dirty_pin) {
	pin_t p;
};

FIXTURE_SETUP(dirty_pin)
{
	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	self->p.no_file = slow_file_open(&self->p.file);
	tracking_open(&self->p.t, bdfs, SIZE);
	ASSERT_EQ(0, pipe(self->p.pipe));
}

FIXTURE_TEARDOWN(dirty_pin)
{
	tracking_close(&self->p.t);
	slow_file_close(&self->p.file);
}

static u8 *at(pin_t *self, u64 page)
{
	return self->t.a.bar + page * PRECOPY_PAGE;
}

static void store(pin_t *self, u64 page)
{
	tracking_by_store(&self->t, page, ++self->t.seed);
}

static bool carried(pin_t *self, u64 page)
{
	return !memcmp(self->t.image + page * PRECOPY_PAGE,
		       self->t.a.shadow + page * PRECOPY_PAGE, PRECOPY_PAGE);
}

/*
 * Some pages that were stored to are held. The first collect sends all that is not, the next
 * ones nothing, and none of them goes on for ever.
 */
static void collect_held(struct __test_metadata *_metadata, pin_t *self,
			 u64 nr_held)
{
	int i;

	for (i = 0; i < 3; i++) {
		if (i < 2)
			store(self, FREE_PAGE);
		tracking_collect(&self->t);
		EXPECT_EQ(nr_held, tracking_lost(&self->t));
		EXPECT_EQ(0, tracking_surplus(&self->t));
		EXPECT_EQ(i < 2, self->t.sent[FREE_PAGE]);
	}
}

/* Pinned before it was stored to: the unit may come as a whole, but once. */
static void expect_unit(pin_t *self, u64 page)
{
	u64 first = page / UNIT_PAGES * UNIT_PAGES;

	for (page = first; page < first + UNIT_PAGES; page++)
		tracking_touched(&self->t, page);
}

static void expect_no_more(pin_t *self, u64 page)
{
	memset(self->t.stored + page / UNIT_PAGES * UNIT_PAGES, 0,
	       UNIT_PAGES * sizeof(*self->t.stored));
}

/*
 * A page that was released is sent soon, and once: the release may happen in
 * the background. A test that has failed before does not wait for it, since the
 * page may have been lost.
 */
static void collect_released(struct __test_metadata *_metadata, pin_t *self,
			     u64 page)
{
	u64 end = precopy_now_ms() + RELEASE_MS;
	u32 sent = 0;

	while (!sent && precopy_now_ms() < end && __test_passed(_metadata)) {
		tracking_collect(&self->t);
		EXPECT_EQ(0, tracking_surplus(&self->t));
		sent = self->t.sent[page];
	}
	ASSERT_EQ(1, sent) TH_LOG("page %lu", page);
	EXPECT_TRUE(carried(self, page));
	expect_no_more(self, page);
	tracking_collect(&self->t);
	EXPECT_EQ(0, tracking_surplus(&self->t));
	EXPECT_EQ(0, self->t.sent[page]);
}

/* ------------------------------------------------------------------------ */

/* Into a page that was written before, only read, or never touched. */
static void direct_read(struct __test_metadata *_metadata, pin_t *self,
			u64 page, bool written)
{
	u8 data[PRECOPY_PAGE] __attribute__((aligned(8)));
	int i;

	for (i = 0; i < (int)precopy_rounds(ROUNDS); i++) {
		if (written || i)
			store(self, page);
		slow_file_ask(&self->file, at(self, page));
		collect_held(_metadata, self, written || i);
		precopy_pattern(data, page, ++self->t.seed);
		slow_file_answer(&self->file, data);
		tracking_stored(&self->t, page, self->t.seed);
		collect_released(_metadata, self, page);
		EXPECT_EQ(0, tracking_lost(&self->t));
	}
	/* Nothing of it remains. */
	store(self, page);
	tracking_collect(&self->t);
	EXPECT_EQ(0, tracking_lost(&self->t));
	EXPECT_EQ(0, tracking_surplus(&self->t));
}

TEST_F_TIMEOUT(dirty_pin, direct_read_under_way, MIG_TIMEOUT)
{
	if (self->p.no_file)
		SKIP(return, "no 9p mount of our own: %s",
		     strerror(-self->p.no_file));
	tracking_begin(&self->p.t);
	direct_read(_metadata, &self->p, 7, true);
	direct_read(_metadata, &self->p, 2 * UNIT_PAGES + 9, false);
	*(volatile u8 *)at(&self->p, UNIT_PAGES + 90);
	direct_read(_metadata, &self->p, UNIT_PAGES + 90, false);
	EXPECT_EQ(0, tracking_finish(&self->p.t));
}

/* Begun before there was a session, so that initial pages are concerned. */
TEST_F_TIMEOUT(dirty_pin, direct_read_before_begin, MIG_TIMEOUT)
{
	u8 data[PRECOPY_PAGE] __attribute__((aligned(8)));

	if (self->p.no_file)
		SKIP(return, "no 9p mount of our own: %s",
		     strerror(-self->p.no_file));
	precopy_fill(&self->p.t.a, 0, 64, 5, BY_MMAP);
	slow_file_ask(&self->p.file, at(&self->p, 7));
	/* It must not be written to for the same reason that it is held. */
	precopy_fill(&self->p.t.a, 2 * UNIT_PAGES, 64, 5, BY_MMAP);
	tracking_begin(&self->p.t);
	EXPECT_EQ(0, self->p.t.sent[7]);
	EXPECT_EQ(1, self->p.t.sent[2 * UNIT_PAGES + 7]);
	precopy_pattern(data, 7, ++self->p.t.seed);
	slow_file_answer(&self->p.file, data);
	tracking_stored(&self->p.t, 7, self->p.t.seed);
	expect_unit(&self->p, 7);
	collect_released(_metadata, &self->p, 7);
	EXPECT_EQ(0, tracking_lost(&self->p.t));
	EXPECT_EQ(0, tracking_finish(&self->p.t));
}

/* ------------------------------------------------------------------------ */

/*
 * process_vm_writev() pins the pages of the remote side, then copies. If what
 * it copies from has to be fetched by a handler in user space, it can be held
 * up in between.
 */
struct slow_source {
	int uffd;
	u8 *page;
	u8 *to;
	pthread_t thread;
};

static int slow_source_open(struct slow_source *s)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	s->page = mmap(NULL, PRECOPY_PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	VFIO_ASSERT_NE(s->page, MAP_FAILED);
	s->uffd = syscall(__NR_userfaultfd, O_CLOEXEC);
	if (s->uffd < 0)
		return -errno;
	reg.range.start = (uintptr_t)s->page;
	reg.range.len = PRECOPY_PAGE;
	ioctl_assert(s->uffd, UFFDIO_API, &api);
	ioctl_assert(s->uffd, UFFDIO_REGISTER, &reg);
	return 0;
}

static void *slow_write(void *arg)
{
	struct slow_source *s = arg;
	struct iovec local = { s->page, PRECOPY_PAGE };
	struct iovec remote = { s->to, PRECOPY_PAGE };

	VFIO_ASSERT_EQ(process_vm_writev(getpid(), &local, 1, &remote, 1, 0),
		       (ssize_t)PRECOPY_PAGE);
	return NULL;
}

/* Returns when the destination is pinned and the source awaited. */
static void slow_source_ask(struct slow_source *s, u8 *to)
{
	struct uffd_msg msg;

	s->to = to;
	VFIO_ASSERT_EQ(pthread_create(&s->thread, NULL, slow_write, s), 0);
	VFIO_ASSERT_EQ(read(s->uffd, &msg, sizeof(msg)), (ssize_t)sizeof(msg));
	VFIO_ASSERT_EQ(msg.event, UFFD_EVENT_PAGEFAULT);
}

static void slow_source_answer(struct slow_source *s, u8 *data)
{
	struct uffdio_copy copy = {
		.dst = (uintptr_t)s->page,
		.src = (uintptr_t)data,
		.len = PRECOPY_PAGE,
	};

	ioctl_assert(s->uffd, UFFDIO_COPY, &copy);
	VFIO_ASSERT_EQ(pthread_join(s->thread, NULL), 0);
	VFIO_ASSERT_EQ(madvise(s->page, PRECOPY_PAGE, MADV_DONTNEED), 0);
}

TEST_F_TIMEOUT(dirty_pin, process_vm_writev_under_way, MIG_TIMEOUT)
{
	u8 data[PRECOPY_PAGE] __attribute__((aligned(8)));
	struct slow_source source;
	int i, ret = slow_source_open(&source);

	if (ret)
		SKIP(return, "userfaultfd: %s", strerror(-ret));
	tracking_begin(&self->p.t);
	for (i = 0; i < (int)precopy_rounds(ROUNDS); i++) {
		store(&self->p, 7);
		slow_source_ask(&source, at(&self->p, 7));
		collect_held(_metadata, &self->p, 1);
		precopy_pattern(data, 7, ++self->p.t.seed);
		slow_source_answer(&source, data);
		tracking_stored(&self->p.t, 7, self->p.t.seed);
		collect_released(_metadata, &self->p, 7);
		EXPECT_EQ(0, tracking_lost(&self->p.t));
	}
	EXPECT_EQ(0, tracking_finish(&self->p.t));
	close(source.uffd);
}

/* ------------------------------------------------------------------------ */

/*
 * A plain reference. Whoever has it might store without a fault, for all that
 * the driver can know.
 */
static int hold(pin_t *self, u64 page)
{
	struct iovec iov = { at(self, page), PRECOPY_PAGE };

	if (vmsplice(self->pipe[1], &iov, 1, 0) != (ssize_t)PRECOPY_PAGE)
		return -errno;
	return 0;
}

/* Lets go of the page that was held first. */
static void release(pin_t *self)
{
	u8 page[PRECOPY_PAGE];

	VFIO_ASSERT_EQ(read(self->pipe[0], page, sizeof(page)),
		       (ssize_t)sizeof(page));
}

/*
 * Each in a unit of its own, released one after the other. The last is still
 * held when the device stops: then nobody stores any more, and it is sent.
 */
static void held_references(struct __test_metadata *_metadata, pin_t *self,
			    bool stored_before, tracking_way_fn way, void *arg)
{
	static const u64 pages[] = { 3, UNIT_PAGES + 4, 2 * UNIT_PAGES + 40 };
	u64 size;
	int i;

	precopy_fill(&self->t.a, 0, 64, 1, BY_MMAP);
	tracking_begin(&self->t);
	for (i = 0; i < 3; i++) {
		if (stored_before)
			store(self, pages[i]);
		if (hold(self, pages[i]))
			SKIP(return, "vmsplice: %s", strerror(errno));
		way(arg, pages[i], ++self->t.seed);
	}
	collect_held(_metadata, self, 3);
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, mig_data_size(self->t.a.dev, &size));
		EXPECT_LE((3 - i) * PRECOPY_PAGE, size);
		release(self);
		if (!stored_before)
			expect_unit(self, pages[i]);
		collect_released(_metadata, self, pages[i]);
		EXPECT_EQ(2 - i, tracking_lost(&self->t));
	}
	collect_held(_metadata, self, 1);
	EXPECT_EQ(0, tracking_finish(&self->t));
}

TEST_F_TIMEOUT(dirty_pin, held_reference, MIG_TIMEOUT)
{
	held_references(_metadata, &self->p, true, tracking_by_store,
			&self->p.t);
}

TEST_F_TIMEOUT(dirty_pin, held_reference_before_store, MIG_TIMEOUT)
{
	held_references(_metadata, &self->p, false, tracking_by_store,
			&self->p.t);
}

TEST_F_TIMEOUT(dirty_pin, held_reference_before_begin, MIG_TIMEOUT)
{
	static const u64 pages[] = { 3, UNIT_PAGES + 4, 2 * UNIT_PAGES + 40 };
	int i, j;

	precopy_fill(&self->p.t.a, 0, 64, 1, BY_MMAP);
	for (i = 0; i < 3; i++)
		if (hold(&self->p, pages[i]))
			SKIP(return, "vmsplice: %s", strerror(errno));
	tracking_begin(&self->p.t);
	EXPECT_EQ(0, self->p.t.sent[pages[0]]);
	for (i = 0; i < 3; i++)
		store(&self->p, pages[i]);
	tracking_collect(&self->p.t);
	for (i = 0; i < 3; i++)
		EXPECT_EQ(0, self->p.t.sent[pages[i]]);
	for (i = 0; i < 3; i++) {
		for (j = i; j < 3; j++)
			EXPECT_FALSE(carried(&self->p, pages[j]));
		release(&self->p);
		expect_unit(&self->p, pages[i]);
		collect_released(_metadata, &self->p, pages[i]);
	}
	EXPECT_EQ(0, tracking_lost(&self->p.t));
	EXPECT_EQ(0, tracking_finish(&self->p.t));
}

/* Whatever way the store comes, while somebody has a reference */

FIXTURE(dirty_pin_writers) {
	pin_t p;
	struct dirty_writer_run w;
};

FIXTURE_VARIANT(dirty_pin_writers) {
	const char *writer;
};

#define FIXTURE_VARIANT_ADD_WRITER(name_)	\
FIXTURE_VARIANT_ADD(dirty_pin_writers, name_) {	\
	.writer = #name_,			\
}

#include <libvfio/dirty_writer_list.h>

FIXTURE_SETUP(dirty_pin_writers)
{
	const char *missing;

	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	missing = dirty_writer_init(&self->w, variant->writer);
	if (missing)
		SKIP(return, "%s", missing);
	tracking_open(&self->p.t, bdfs, SIZE);
	ASSERT_EQ(0, pipe(self->p.pipe));
	dirty_writer_open(&self->w, &self->p.t, self->p.t.a.bar);
}

FIXTURE_TEARDOWN(dirty_pin_writers)
{
	dirty_writer_close(&self->w);
	tracking_close(&self->p.t);
	dirty_writer_exit(&self->w);
}

TEST_F_TIMEOUT(dirty_pin_writers, store_to_held_page, MIG_TIMEOUT)
{
	held_references(_metadata, &self->p, true, dirty_writer_track, &self->w);
}

struct reader {
	u8 *from;
	volatile bool stop;
};

static void *load_thread(void *arg)
{
	struct reader *r = arg;
	volatile u8 sum = 0;
	size_t i;

	for (i = 0; !r->stop; i = (i + PRECOPY_PAGE + 8) % WIRE_UNIT)
		sum += r->from[i];

	return NULL;
}

/* The kernel stores, which is told if its fault cannot be resolved. */
static void store_by_read(pin_t *self, int fds[2], u64 page)
{
	u8 buf[PRECOPY_PAGE] __attribute__((aligned(8)));

	precopy_pattern(buf, page, ++self->t.seed);
	tracking_stored(&self->t, page, self->t.seed);
	VFIO_ASSERT_EQ(write(fds[1], buf, sizeof(buf)), (ssize_t)sizeof(buf));
	VFIO_ASSERT_EQ(read(fds[0], at(self, page), sizeof(buf)),
		       (ssize_t)sizeof(buf));
}

/*
 * A unit that cannot be divided, because a page is held, is stored to while
 * another thread loads from it: a load maps 2 MiB where it can, and must not
 * get in the way of the store.
 */
TEST_F_TIMEOUT(dirty_pin, loads_beside_stores_to_a_held_unit, MIG_TIMEOUT)
{
	struct reader reader = { .from = self->p.t.a.bar };
	u64 end = precopy_now_ms() + STORM_MS, round = 0;
	pthread_t thread;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	precopy_fill(&self->p.t.a, 0, 64, 1, BY_MMAP);
	if (hold(&self->p, 3))
		SKIP(return, "vmsplice: %s", strerror(errno));
	ASSERT_EQ(0, pthread_create(&thread, NULL, load_thread, &reader));
	while (precopy_now_ms() < end) {
		tracking_begin(&self->p.t);
		store_by_read(&self->p, fds, round++ % 64);
		store(&self->p, round % 64);
		tracking_end(&self->p.t);
	}
	reader.stop = true;
	ASSERT_EQ(0, pthread_join(thread, NULL));
	TH_LOG("%lu times", round);
	tracking_begin(&self->p.t);
	release(&self->p);
	EXPECT_EQ(0, tracking_finish(&self->p.t));
}

/* ------------------------------------------------------------------------ */

struct writer {
	struct precopy_dev *a;
	volatile bool stop;
	u64 first;
	u64 nr;
	volatile u64 written;
	int direct_fd;
	int plain_fd;
};

/* O_DIRECT from a real file: pinned, and stored to, across any collect. */
static void *direct_thread(void *arg)
{
	struct writer *w = arg;
	u64 from, to;
	ssize_t ret;
	unsigned int rnd = 1;

	while (!w->stop) {
		from = rand_r(&rnd) % 8 * PRECOPY_PAGE;
		to = (w->first + rand_r(&rnd) % w->nr) * PRECOPY_PAGE;
		ret = pread(w->direct_fd, w->a->bar + to, PRECOPY_PAGE, from);
		VFIO_ASSERT_EQ(ret, (ssize_t)PRECOPY_PAGE, "O_DIRECT read\n");
		ret = pread(w->plain_fd, w->a->shadow + to, PRECOPY_PAGE, from);
		VFIO_ASSERT_EQ(ret, (ssize_t)PRECOPY_PAGE);
		w->written++;
	}

	return NULL;
}

TEST_F_TIMEOUT(dirty_pin, direct_read_storm, MIG_TIMEOUT)
{
	struct writer w = { .a = &self->p.t.a, .first = 32, .nr = 16 };
	u64 end = precopy_now_ms() + STORM_MS;
	pthread_t thread;
	void *page;
	int ret;

	/* Any file will do that is long enough and does not change. */
	w.plain_fd = open("/proc/self/exe", O_RDONLY);
	w.direct_fd = open("/proc/self/exe", O_RDONLY | O_DIRECT);
	page = mmap(NULL, PRECOPY_PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (w.direct_fd < 0 || pread(w.direct_fd, page, PRECOPY_PAGE, 0) < 0)
		SKIP(return, "the file system of the tests has no O_DIRECT: %s",
		     strerror(errno));

	tracking_begin(&self->p.t);
	ASSERT_EQ(0, pthread_create(&thread, NULL, direct_thread, &w));
	while (precopy_now_ms() < end || !w.written) {
		ret = mig_stream_read(&self->p.t.stream, self->p.t.data_fd, SZ_256K);
		ASSERT_TRUE(ret > 0 || ret == -ENOMSG);
	}
	w.stop = true;
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, tracking_finish(&self->p.t));
}

/* ------------------------------------------------------------------------ */
/* Pins for good would write without a trace, and are refused               */

static bool maps_for_dma(struct iommu *iommu, struct iova_allocator *allocator,
			 u8 *vaddr, size_t size)
{
	struct dma_region region = { .vaddr = vaddr, .size = size };
	int ret;

	region.iova = iova_allocator_alloc(allocator, size);
	ret = __iommu_map(iommu, &region);
	if (!ret)
		__iommu_unmap(iommu, &region, NULL);

	return !ret;
}

/* Through another device, as one that would do peer-to-peer DMA. */
static void refuse_dma_in(struct __test_metadata *_metadata, pin_t *self,
			  const char *mode)
{
	struct iommu *iommu = iommu_init(mode);
	struct vfio_pci_device *dev = vfio_pci_device_init(bdfs[1], iommu);
	struct iova_allocator *allocator = iova_allocator_init(iommu);

	EXPECT_FALSE(maps_for_dma(iommu, allocator, self->t.a.bar, SIZE))
		TH_LOG("%s", mode);
	EXPECT_FALSE(maps_for_dma(iommu, allocator, at(self, 7), PRECOPY_PAGE))
		TH_LOG("%s", mode);
	/* Writable entries, 2 MiB of them where there are such. */
	EXPECT_FALSE(maps_for_dma(iommu, allocator, at(self, UNIT_PAGES),
				  WIRE_UNIT)) TH_LOG("%s", mode);
	iova_allocator_cleanup(allocator);
	vfio_pci_device_cleanup(dev);
	iommu_cleanup(iommu);
}

static void refuse_dma(struct __test_metadata *_metadata, pin_t *self)
{
	static const char * const modes[] = {
		"vfio_type1_iommu", "vfio_type1v2_iommu", "iommufd",
	};
	size_t i;

	precopy_close(&self->t.b);
	for (i = 0; i < ARRAY_SIZE(modes); i++)
		if (precopy_has_mode(modes[i]))
			refuse_dma_in(_metadata, self, modes[i]);
	precopy_open(&self->t.b, bdfs[1], NULL, SIZE);
}

static void refuse_io_uring(struct __test_metadata *_metadata, pin_t *self)
{
	struct iovec iov = { at(self, UNIT_PAGES), PRECOPY_PAGE };
	struct io_uring_params params = {};
	int ring = syscall(__NR_io_uring_setup, 4, &params);

	ASSERT_LE(0, ring);
	EXPECT_EQ(-1, syscall(__NR_io_uring_register, ring,
			      IORING_REGISTER_BUFFERS, &iov, 1));
	EXPECT_EQ(EFAULT, errno);
	iov.iov_len = WIRE_UNIT;
	EXPECT_EQ(-1, syscall(__NR_io_uring_register, ring,
			      IORING_REGISTER_BUFFERS, &iov, 1));
	EXPECT_EQ(EFAULT, errno);
	close(ring);

	/* Nor may the rings themselves be there. */
	memset(&params, 0, sizeof(params));
	params.flags = IORING_SETUP_NO_MMAP;
	params.sq_off.user_addr = (uintptr_t)at(self, UNIT_PAGES);
	params.cq_off.user_addr = (uintptr_t)at(self, UNIT_PAGES + 1);
	EXPECT_EQ(-1, syscall(__NR_io_uring_setup, 4, &params));
	EXPECT_EQ(EFAULT, errno);
}

/* Untracked, tracked, and after that; nothing is lost by the attempts. */
static void refused(struct __test_metadata *_metadata, pin_t *self,
		    void (*refuse)(struct __test_metadata *_metadata,
				   pin_t *self))
{
	u64 page;

	precopy_fill(&self->t.a, 0, 2 * UNIT_PAGES, 1, BY_MMAP);
	refuse(_metadata, self);
	tracking_begin(&self->t);
	EXPECT_EQ(0, tracking_lost(&self->t));
	for (page = 0; page < 2 * UNIT_PAGES; page += 100)
		store(self, page);
	refuse(_metadata, self);
	tracking_collect(&self->t);
	EXPECT_EQ(0, tracking_lost(&self->t));
	refuse(_metadata, self);
	for (page = 0; page < 2 * UNIT_PAGES; page += 100)
		store(self, page);
	tracking_end(&self->t);
	refuse(_metadata, self);
	tracking_begin(&self->t);
	store(self, 100);
	EXPECT_EQ(0, tracking_finish(&self->t));
}

TEST_F_TIMEOUT(dirty_pin, dma_mapping_refused, MIG_TIMEOUT)
{
	refused(_metadata, &self->p, refuse_dma);
}

TEST_F_TIMEOUT(dirty_pin, io_uring_memory_refused, MIG_TIMEOUT)
{
	struct io_uring_params params = {};
	int ring = syscall(__NR_io_uring_setup, 4, &params);

	if (ring < 0)
		SKIP(return, "io_uring_setup: %s", strerror(errno));
	close(ring);
	refused(_metadata, &self->p, refuse_io_uring);
}

/* ------------------------------------------------------------------------ */
/*
 * Pins for good that only read. The kernel has no means by which a driver could
 * refuse them, nor tell them from pins that write. So they are handled like
 * those: nothing is lost, and what they hold waits for their release, or for
 * the device to be stopped.
 */

static const char * const read_modes[] = { "vfio_type1v2_iommu", "iommufd" };

/* A DMA map of part of the BAR, for reading, in the IOMMU of the other device. */
struct read_map {
	struct iommu *iommu;
	struct vfio_pci_device *dev;
	struct iova_allocator *allocator;
};

static int read_map_add(struct read_map *map, u8 *vaddr, size_t size, u64 *iova)
{
	struct vfio_iommu_type1_dma_map type1 = {
		.argsz = sizeof(type1),
		.flags = VFIO_DMA_MAP_FLAG_READ,
		.vaddr = (uintptr_t)vaddr,
		.size = size,
	};
	struct iommu_ioas_map ioas = {
		.size = sizeof(ioas),
		.flags = IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_FIXED_IOVA,
		.ioas_id = map->iommu->ioas_id,
		.user_va = (uintptr_t)vaddr,
		.length = size,
	};
	int ret;

	*iova = iova_allocator_alloc(map->allocator, size);
	type1.iova = *iova;
	ioas.iova = *iova;
	if (map->iommu->iommufd)
		ret = ioctl(map->iommu->iommufd, IOMMU_IOAS_MAP, &ioas);
	else
		ret = ioctl(map->iommu->container_fd, VFIO_IOMMU_MAP_DMA, &type1);
	return ret ? -errno : 0;
}

static void read_map_remove(struct read_map *map, u64 iova, size_t size)
{
	struct dma_region region = { .iova = iova, .size = size };

	INIT_LIST_HEAD(&region.link);
	VFIO_ASSERT_EQ(__iommu_unmap(map->iommu, &region, NULL), 0);
}

static void read_map_open(struct read_map *map, pin_t *self, const char *mode)
{
	precopy_close(&self->t.b);
	map->iommu = iommu_init(mode);
	map->dev = vfio_pci_device_init(bdfs[1], map->iommu);
	map->allocator = iova_allocator_init(map->iommu);
}

static void read_map_close(struct read_map *map, pin_t *self)
{
	iova_allocator_cleanup(map->allocator);
	vfio_pci_device_cleanup(map->dev);
	iommu_cleanup(map->iommu);
	precopy_open(&self->t.b, bdfs[1], NULL, self->t.a.size);
}

/* The rest of a migration whose source was stopped by tracking_stop(). */
static u64 load_stopped(pin_t *self)
{
	VFIO_ASSERT_EQ(mig_load(self->t.b.dev, &self->t.stream, SZ_64K), 0);
	return precopy_differ(&self->t.b, self->t.a.shadow);
}

static void read_only_dma_mapping(struct __test_metadata *_metadata,
				  pin_t *self, const char *mode)
{
	u64 page, iova, size, sent = 0;
	struct read_map map;

	precopy_fill(&self->t.a, 0, 2 * UNIT_PAGES, 1, BY_MMAP);
	read_map_open(&map, self, mode);
	ASSERT_EQ(0, read_map_add(&map, self->t.a.bar, SIZE, &iova));
	tracking_begin(&self->t);
	for (page = 0; page < SIZE / PRECOPY_PAGE; page++)
		sent += self->t.sent[page];
	EXPECT_EQ(0, sent);
	EXPECT_EQ(0, tracking_dirty_bytes(&self->t));
	ASSERT_EQ(0, mig_data_size(self->t.a.dev, &size));
	EXPECT_LE(SIZE, size);
	for (page = 0; page < 2 * UNIT_PAGES; page += 100)
		store(self, page);
	tracking_collect(&self->t);
	EXPECT_EQ(0, self->t.sent[100]);
	EXPECT_EQ(0, tracking_stop(&self->t));
	EXPECT_GE(size, self->t.stream.len);
	read_map_remove(&map, iova, SIZE);
	read_map_close(&map, self);
	EXPECT_EQ(0, load_stopped(self));
	tracking_end(&self->t);
}

TEST_F_TIMEOUT(dirty_pin, read_only_dma_mapping_is_set_aside, MIG_TIMEOUT)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(read_modes); i++) {
		if (!precopy_has_mode(read_modes[i]))
			continue;
		TH_LOG("%s", read_modes[i]);
		read_only_dma_mapping(_metadata, &self->p, read_modes[i]);
	}
}

/*
 * A reset cannot take the pages of the past from an IOMMU; it says that they are
 * there. Those of the new life are others, which nobody has pinned.
 */
static void read_only_dma_mapping_over_reset(struct __test_metadata *_metadata,
					     pin_t *self, const char *mode)
{
	u64 before = precopy_stat(bdfs[0], "left_pinned_pages"), left, iova;
	u64 end = precopy_now_ms() + 6 * RELEASE_MS;
	struct read_map map;

	if (before == ~0ULL)
		SKIP(return, "no statistics in debugfs");
	precopy_fill(&self->t.a, 0, 64, 1, BY_MMAP);
	read_map_open(&map, self, mode);
	ASSERT_EQ(0, read_map_add(&map, self->t.a.bar, SIZE, &iova));
	precopy_reset(&self->t.a);
	do {
		usleep(1000);
		left = precopy_stat(bdfs[0], "left_pinned_pages") - before;
	} while (left < SIZE / PRECOPY_PAGE && precopy_now_ms() < end);
	EXPECT_EQ(SIZE / PRECOPY_PAGE, left);
	EXPECT_EQ(0, precopy_differ(&self->t.a, self->t.a.shadow));

	tracking_begin(&self->t);
	EXPECT_EQ(1, self->t.sent[63]);
	store(self, 7);
	EXPECT_EQ(0, tracking_carry(&self->t));
	EXPECT_EQ(0, tracking_stop(&self->t));
	read_map_remove(&map, iova, SIZE);
	read_map_close(&map, self);
	EXPECT_EQ(0, load_stopped(self));
	tracking_end(&self->t);
}

TEST_F_TIMEOUT(dirty_pin, read_only_dma_mapping_over_reset, MIG_TIMEOUT)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(read_modes); i++) {
		if (!precopy_has_mode(read_modes[i]))
			continue;
		TH_LOG("%s", read_modes[i]);
		read_only_dma_mapping_over_reset(_metadata, &self->p, read_modes[i]);
	}
}

/*
 * However much is set aside, a read() that finds nothing to send looks at a few
 * units only; and all of them get their turn.
 */
#define RECHECK_UNITS	16

static u64 empty_reads(struct __test_metadata *_metadata, pin_t *self, u64 nr)
{
	u64 before = precopy_stat(bdfs[0], "rechecked_units");

	while (nr--)
		EXPECT_EQ(-ENOMSG, mig_stream_read(&self->t.stream,
						   self->t.data_fd, SZ_64K));
	return precopy_stat(bdfs[0], "rechecked_units") - before;
}

TEST_F_TIMEOUT(dirty_pin, empty_read_looks_at_few_pages, MIG_TIMEOUT)
{
	u64 held = SZ_64M, units = held / WIRE_UNIT + 1, iova, last, n;
	struct read_map map;
	ssize_t ret;

	if (precopy_stat(bdfs[0], "rechecked_units") == ~0ULL)
		SKIP(return, "no statistics in debugfs");
	tracking_close(&self->p.t);
	tracking_open(&self->p.t, bdfs, SZ_128M);
	read_map_open(&map, &self->p, precopy_mode(NULL));
	ASSERT_EQ(0, read_map_add(&map, self->p.t.a.bar, held, &iova));
	ASSERT_EQ(0, read_map_add(&map, self->p.t.a.bar + SZ_128M - WIRE_UNIT,
				  WIRE_UNIT, &last));
	tracking_begin(&self->p.t);
	EXPECT_EQ(0, self->p.t.sent[63]);

	n = empty_reads(_metadata, &self->p, 6);
	EXPECT_LT(0, n);
	EXPECT_GE(6 * RECHECK_UNITS, n);

	/* The last unit is released: its turn comes when all others had theirs. */
	read_map_remove(&map, last, WIRE_UNIT);
	for (n = 0; n <= units / RECHECK_UNITS; n++) {
		ret = mig_stream_read(&self->p.t.stream, self->p.t.data_fd, SZ_64K);
		if (ret > 0)
			break;
		EXPECT_EQ(-ENOMSG, ret);
	}
	EXPECT_LT(0, ret);
	read_map_remove(&map, iova, held);
	EXPECT_EQ(0, tracking_stop(&self->p.t));
	read_map_close(&map, &self->p);
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
