// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tracking of what is written to the device while it is migrated, by user
 * space in all the ways it has. A way of writing is tried in several passes:
 * write, read the stream to its temporary end, write again to the same pages.
 * In the end the copy must hold everything, which a shadow knows that no
 * device has a part in.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <linux/stddef.h>
#include <linux/io_uring.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_stream.h>

#include <kselftest_harness.h>

#define STOP		VFIO_DEVICE_STATE_STOP
#define RUNNING		VFIO_DEVICE_STATE_RUNNING
#define STOP_COPY	VFIO_DEVICE_STATE_STOP_COPY
#define PRE_COPY	VFIO_DEVICE_STATE_PRE_COPY

#define SIZE		SZ_4M
#define PASSES		4
#define PER_PASS	6
#define STORM_MS	1500

static char **bdfs;
static int nr_bdfs;

struct order {
	u64 page;
	u64 seed;
};

FIXTURE(dirty) {
	struct precopy_dev a;
	struct precopy_dev b;
	struct mig_stream stream;
	int data_fd;
	u8 *second;		/* another mapping of the BAR of a */
	/* a child that writes on demand */
	pid_t child;
	int to_child[2];
	int from_child[2];
	int pipe[2];
	u64 seed;
};

FIXTURE_SETUP(dirty)
{
	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	precopy_open(&self->a, bdfs[0], "iommufd", SIZE);
	precopy_open(&self->b, bdfs[1], "iommufd", SIZE);
	self->second = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			    self->a.fd, self->a.bar_offset);
	ASSERT_NE(MAP_FAILED, self->second);
	ASSERT_EQ(0, pipe(self->pipe));
	self->data_fd = -1;
	self->seed = 1000;
}

FIXTURE_TEARDOWN(dirty)
{
	if (self->child > 0) {
		kill(self->child, SIGKILL);
		waitpid(self->child, NULL, 0);
	}
	if (self->data_fd >= 0)
		close(self->data_fd);
	if (self->second)
		munmap(self->second, SIZE);
	mig_stream_free(&self->stream);
	precopy_close(&self->a);
	precopy_close(&self->b);
}

typedef FIXTURE_DATA(dirty) dirty_t;

/* One way to make @page hold the pattern of @seed. */
typedef void (*way_fn)(dirty_t *self, u64 page, u64 seed);

static void shadow_page(dirty_t *self, u64 page, u64 seed)
{
	precopy_pattern(self->a.shadow + page * PRECOPY_PAGE, page, seed);
}

/* Into pre-copy and past the initial data. */
static void begin(struct __test_metadata *_metadata, dirty_t *self)
{
	precopy_fill(&self->a, 0, 64, 1, BY_MMAP);
	precopy_fill(&self->a, 600, 8, 1, BY_PWRITE);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &self->data_fd));
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&self->stream, self->data_fd, SZ_64K));
}

static void collect(struct __test_metadata *_metadata, dirty_t *self)
{
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&self->stream, self->data_fd, SZ_64K));
}

static u64 dirty_bytes(dirty_t *self)
{
	struct vfio_precopy_info info = {};

	VFIO_ASSERT_EQ(mig_precopy_info(self->data_fd, &info), 0);
	return info.dirty_bytes;
}

/* Stop, take the rest, and see what the target makes of it. */
static void finish(struct __test_metadata *_metadata, dirty_t *self)
{
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
	ASSERT_EQ(0, mig_stream_drain(&self->stream, self->data_fd, SZ_64K));
	EXPECT_LT(0, wire_walk(&self->stream, NULL, NULL));
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	ASSERT_EQ(0, mig_load(self->b.dev, &self->stream, SZ_64K));
	EXPECT_EQ(0, precopy_differ(&self->b, self->a.shadow));
}

/*
 * The same few pages in every pass, so that a mapping that a collect left
 * writable is found out, and one new page each time, in use or not.
 */
static void passes(struct __test_metadata *_metadata, dirty_t *self, way_fn way)
{
	static const u64 pages[PER_PASS - 1] = { 0, 7, 8, 63, 601 };
	u64 page;
	int pass, i;

	begin(_metadata, self);
	for (pass = 0; pass < PASSES; pass++) {
		for (i = 0; i < PER_PASS; i++) {
			page = i < PER_PASS - 1 ? pages[i] : 300 + pass * 5U;
			way(self, page, ++self->seed);
			shadow_page(self, page, self->seed);
		}
		EXPECT_LE(PER_PASS * PRECOPY_PAGE, dirty_bytes(self))
			TH_LOG("pass %d", pass);
		if (pass < PASSES - 1)
			collect(_metadata, self);
	}
	finish(_metadata, self);
}

/* ------------------------------------------------------------------------ */

static void by_store(dirty_t *self, u64 page, u64 seed)
{
	precopy_pattern(self->a.bar + page * PRECOPY_PAGE, page, seed);
}

TEST_F(dirty, store)
{
	passes(_metadata, self, by_store);
}

static void by_pwrite(dirty_t *self, u64 page, u64 seed)
{
	precopy_fill(&self->a, page, 1, seed, BY_PWRITE);
}

TEST_F(dirty, pwrite)
{
	passes(_metadata, self, by_pwrite);
}

static void by_second(dirty_t *self, u64 page, u64 seed)
{
	precopy_pattern(self->second + page * PRECOPY_PAGE, page, seed);
}

TEST_F(dirty, second_mapping)
{
	passes(_metadata, self, by_second);
}

/* Half the page by each, so that both mappings are writable at a collect. */
static void by_both(dirty_t *self, u64 page, u64 seed)
{
	u8 buf[PRECOPY_PAGE] __attribute__((aligned(8)));
	size_t half = PRECOPY_PAGE / 2;

	precopy_pattern(buf, page, seed);
	memcpy(self->a.bar + page * PRECOPY_PAGE, buf, half);
	memcpy(self->second + page * PRECOPY_PAGE + half, buf + half, half);
}

TEST_F(dirty, both_mappings)
{
	passes(_metadata, self, by_both);
}

/* One locked instruction on the page: a load and a store in one. */
TEST_F(dirty, atomic)
{
	u64 *word = (u64 *)(self->a.bar + 9 * PRECOPY_PAGE);
	u64 *shadow = (u64 *)(self->a.shadow + 9 * PRECOPY_PAGE);
	int pass;

	begin(_metadata, self);
	for (pass = 0; pass < 2 * PASSES; pass++) {
		__atomic_fetch_add(word, 3, __ATOMIC_SEQ_CST);
		*shadow += 3;
		EXPECT_LE(PRECOPY_PAGE, dirty_bytes(self)) TH_LOG("pass %d", pass);
		if (pass % 4 != 3)
			collect(_metadata, self);
	}
	finish(_metadata, self);
}

/* A single byte is enough. */
TEST_F(dirty, one_byte)
{
	u64 offset;
	u8 byte;
	int i;

	begin(_metadata, self);
	for (i = 0; i < 16; i++) {
		offset = (u64)i * 4 * PRECOPY_PAGE + (i * 977) % PRECOPY_PAGE;
		byte = i + 1;
		precopy_store(&self->a, offset, &byte, 1, i & 1 ? BY_MMAP : BY_PWRITE);
		EXPECT_LE(PRECOPY_PAGE, dirty_bytes(self));
		collect(_metadata, self);
	}
	finish(_metadata, self);
}

static void serve(dirty_t *self, u8 *map)
{
	struct order order;

	/* Writable before tracking starts, as a running guest's is. */
	while (read(self->to_child[0], &order, sizeof(order)) == sizeof(order)) {
		precopy_pattern(map + order.page * PRECOPY_PAGE, order.page,
				order.seed);
		if (write(self->from_child[1], &order, 1) != 1)
			break;
	}
	_exit(0);
}

/* The child writes to the mapping it inherited, or to one of its own. */
static void start_child(dirty_t *self, bool own_mapping)
{
	u8 *map = self->a.bar;

	VFIO_ASSERT_EQ(pipe(self->to_child), 0);
	VFIO_ASSERT_EQ(pipe(self->from_child), 0);
	self->child = fork();
	VFIO_ASSERT_GE(self->child, 0);
	if (self->child)
		return;
	if (own_mapping)
		map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			   self->a.fd, self->a.bar_offset);
	if (map != MAP_FAILED)
		serve(self, map);
	_exit(1);
}

static void by_child(dirty_t *self, u64 page, u64 seed)
{
	struct order order = { page, seed };
	char done;

	VFIO_ASSERT_EQ(write(self->to_child[1], &order, sizeof(order)),
		       (ssize_t)sizeof(order));
	VFIO_ASSERT_EQ(read(self->from_child[0], &done, 1), 1);
}

TEST_F(dirty, child)
{
	precopy_fill(&self->a, 0, 64, 1, BY_MMAP);
	start_child(self, false);
	by_child(self, 7, 2);
	passes(_metadata, self, by_child);
}

TEST_F(dirty, child_with_own_mapping)
{
	start_child(self, true);
	by_child(self, 7, 2);
	passes(_metadata, self, by_child);
}

/*
 * Read-only when the collect comes, writable again after it. An entry that was
 * left dirty would come back writable without a fault, and the store be lost.
 */
static void by_mprotect(dirty_t *self, u64 page, u64 seed)
{
	VFIO_ASSERT_EQ(mprotect(self->a.bar, SIZE, PROT_READ | PROT_WRITE), 0);
	by_store(self, page, seed);
	VFIO_ASSERT_EQ(mprotect(self->a.bar, SIZE, PROT_READ), 0);
}

TEST_F(dirty, mprotect)
{
	passes(_metadata, self, by_mprotect);
}

/* A mapping that goes away takes no write with it. */
static void by_remap(dirty_t *self, u64 page, u64 seed)
{
	void *map;

	by_store(self, page, seed);
	map = mmap(self->a.bar, SIZE, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_FIXED, self->a.fd, self->a.bar_offset);
	VFIO_ASSERT_EQ(map, (void *)self->a.bar);
}

TEST_F(dirty, unmapped_before_collect)
{
	passes(_metadata, self, by_remap);
}

static void by_moved(dirty_t *self, u64 page, u64 seed)
{
	void *to = mmap_reserve(SIZE, PRECOPY_PAGE, 0);

	by_second(self, page, seed ^ 1);
	to = mremap(self->second, SIZE, SIZE, MREMAP_MAYMOVE | MREMAP_FIXED, to);
	VFIO_ASSERT_NE(to, MAP_FAILED);
	self->second = to;
	by_second(self, page, seed);
}

TEST_F(dirty, moved_mapping)
{
	passes(_metadata, self, by_moved);
}

static void by_dontneed(dirty_t *self, u64 page, u64 seed)
{
	by_store(self, page, seed);
	madvise(self->a.bar, SIZE, MADV_DONTNEED);
}

TEST_F(dirty, dontneed)
{
	passes(_metadata, self, by_dontneed);
}

/* The kernel as writer: the copy of a system call that returns data. */
static void by_read(dirty_t *self, u64 page, u64 seed)
{
	u8 buf[PRECOPY_PAGE] __attribute__((aligned(8)));

	precopy_pattern(buf, page, seed);
	VFIO_ASSERT_EQ(write(self->pipe[1], buf, sizeof(buf)),
		       (ssize_t)sizeof(buf));
	VFIO_ASSERT_EQ(read(self->pipe[0], self->a.bar + page * PRECOPY_PAGE,
			    sizeof(buf)), (ssize_t)sizeof(buf));
}

TEST_F(dirty, read_into)
{
	passes(_metadata, self, by_read);
}

/* The page is pinned for the moment of the copy, no page table is involved. */
static void by_process_vm_writev(dirty_t *self, u64 page, u64 seed)
{
	u8 buf[PRECOPY_PAGE] __attribute__((aligned(8)));
	struct iovec local = { buf, sizeof(buf) };
	struct iovec remote = {
		self->a.bar + page * PRECOPY_PAGE, sizeof(buf)
	};
	ssize_t ret;

	precopy_pattern(buf, page, seed);
	ret = process_vm_writev(getpid(), &local, 1, &remote, 1, 0);
	VFIO_ASSERT_EQ(ret, (ssize_t)sizeof(buf));
}

TEST_F(dirty, process_vm_writev)
{
	passes(_metadata, self, by_process_vm_writev);
}

static void by_proc_mem(dirty_t *self, u64 page, u64 seed)
{
	u8 buf[PRECOPY_PAGE] __attribute__((aligned(8)));
	int fd = open("/proc/self/mem", O_RDWR);
	ssize_t ret;

	VFIO_ASSERT_GE(fd, 0);
	precopy_pattern(buf, page, seed);
	ret = pwrite(fd, buf, sizeof(buf),
		     (uintptr_t)self->a.bar + page * PRECOPY_PAGE);
	VFIO_ASSERT_EQ(ret, (ssize_t)sizeof(buf));
	close(fd);
}

TEST_F(dirty, proc_mem)
{
	passes(_metadata, self, by_proc_mem);
}

/* ------------------------------------------------------------------------ */

TEST_F(dirty, reads_never_dirty)
{
	struct pollfd pfd = { .events = POLLIN };
	volatile u8 sum = 0;
	size_t i;

	begin(_metadata, self);
	pfd.fd = self->data_fd;
	/* All of it: in use and not, by read() and through both mappings. */
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	for (i = 0; i < SIZE; i += 512)
		sum += self->second[i];
	EXPECT_EQ(0, dirty_bytes(self));
	EXPECT_EQ(0, poll(&pfd, 1, 0));

	/* And what was only read is found out when it is written. */
	precopy_fill(&self->a, 900, 1, 2, BY_MMAP);
	EXPECT_LE(PRECOPY_PAGE, dirty_bytes(self));
	collect(_metadata, self);
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	EXPECT_EQ(0, dirty_bytes(self));
	finish(_metadata, self);
}

/* Between two migrations writes are not counted, and none is forgotten. */
TEST_F(dirty, second_migration)
{
	begin(_metadata, self);
	precopy_fill(&self->a, 0, 10, 2, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->a.dev, RUNNING, NULL));
	close(self->data_fd);
	self->data_fd = -1;
	self->stream.len = 0;
	precopy_fill(&self->a, 5, 10, 3, BY_MMAP);
	precopy_fill(&self->a, 500, 10, 3, BY_MMAP);
	passes(_metadata, self, by_store);
}

struct writer {
	dirty_t *self;
	pthread_t thread;
	volatile bool stop;
	enum precopy_how how;
	u64 first;
	u64 nr;
	u64 written;
	int direct_fd;
	int plain_fd;
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
		precopy_store(&w->self->a, offset, stamp, sizeof(stamp), w->how);
		if (w->written % 64 == 0)
			sched_yield();
	}

	return NULL;
}

/* While others write, passes one after the other; then they stop. */
static void storm(struct __test_metadata *_metadata, dirty_t *self,
		  struct writer *writers, int nr, void *(*fn)(void *))
{
	u64 end = precopy_now_ms() + STORM_MS;
	int i, ret, nr_passes = 0;

	begin(_metadata, self);
	for (i = 0; i < nr; i++) {
		writers[i].self = self;
		ASSERT_EQ(0, pthread_create(&writers[i].thread, NULL, fn,
					    &writers[i]));
	}
	while (precopy_now_ms() < end) {
		ret = mig_stream_read(&self->stream, self->data_fd, SZ_256K);
		ASSERT_TRUE(ret > 0 || ret == -ENOMSG);
		nr_passes++;
	}
	for (i = 0; i < nr; i++) {
		writers[i].stop = true;
		ASSERT_EQ(0, pthread_join(writers[i].thread, NULL));
		EXPECT_LT(0, writers[i].written);
	}
	TH_LOG("%d reads of the stream, %zu bytes, first writer wrote %lu times",
	       nr_passes, self->stream.len, writers[0].written);
	finish(_metadata, self);
}

TEST_F_TIMEOUT(dirty, storm, 120)
{
	struct writer writers[] = {
		{ .how = BY_MMAP, .first = 0, .nr = 16 },
		{ .how = BY_MMAP, .first = 16, .nr = 100 },
		{ .how = BY_PWRITE, .first = 200, .nr = 300 },
	};

	storm(_metadata, self, writers, ARRAY_SIZE(writers), storm_thread);
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
			memcpy(w->self->a.shadow + offset, stamp, sizeof(stamp));
		}
		VFIO_ASSERT_EQ(mprotect(w->self->second, SIZE, PROT_READ), 0);
	}

	return NULL;
}

TEST_F_TIMEOUT(dirty, mprotect_storm, 120)
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
			   w->self->a.fd, w->self->a.bar_offset + offset);
		VFIO_ASSERT_NE(map, MAP_FAILED);
		*(volatile u64 *)map = w->written;
		*(u64 *)(w->self->a.shadow + offset) = w->written;
		VFIO_ASSERT_EQ(munmap(map, PRECOPY_PAGE), 0);
	}

	return NULL;
}

TEST_F_TIMEOUT(dirty, remap_storm, 120)
{
	struct writer w = { .first = 70, .nr = 8 };

	storm(_metadata, self, &w, 1, remap_thread);
}

/* O_DIRECT: the pages are pinned, and stored to, across any collect. */
static void *direct_thread(void *arg)
{
	struct writer *w = arg;
	u64 at, page;
	ssize_t ret;
	unsigned int rnd = 1;

	while (!w->stop) {
		at = rand_r(&rnd) % 8 * PRECOPY_PAGE;
		page = w->first + rand_r(&rnd) % w->nr;
		ret = pread(w->direct_fd, w->self->a.bar + page * PRECOPY_PAGE,
			    PRECOPY_PAGE, at);
		VFIO_ASSERT_EQ(ret, (ssize_t)PRECOPY_PAGE, "O_DIRECT read\n");
		ret = pread(w->plain_fd,
			    w->self->a.shadow + page * PRECOPY_PAGE,
			    PRECOPY_PAGE, at);
		VFIO_ASSERT_EQ(ret, (ssize_t)PRECOPY_PAGE);
		w->written++;
	}

	return NULL;
}

TEST_F_TIMEOUT(dirty, direct_io, 120)
{
	struct writer w = { .first = 32, .nr = 16 };
	void *page;

	/* Any file will do that is long enough and does not change. */
	w.plain_fd = open("/proc/self/exe", O_RDONLY);
	w.direct_fd = open("/proc/self/exe", O_RDONLY | O_DIRECT);
	page = mmap(NULL, PRECOPY_PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (w.direct_fd < 0 || pread(w.direct_fd, page, PRECOPY_PAGE, 0) < 0)
		SKIP(return, "the file system of the tests has no O_DIRECT: %s",
		     strerror(errno));

	storm(_metadata, self, &w, 1, direct_thread);
}

/*
 * A reference that no page table explains: whoever has it might store without
 * a fault. As long as it is held, the page is not done, but neither may the
 * stream go round and round for its sake.
 */
TEST_F(dirty, held_reference)
{
	/* The third in another unit: a reference may concern all of its unit */
	u64 pages[] = { 3, 4, 601 }, size;
	struct iovec iov = { .iov_len = PRECOPY_PAGE };
	u8 page[PRECOPY_PAGE];
	size_t len;
	int i;

	precopy_fill(&self->a, 0, 64, 1, BY_MMAP);
	precopy_fill(&self->a, 600, 8, 1, BY_MMAP);
	for (i = 0; i < 3; i++) {
		iov.iov_base = self->a.bar + pages[i] * PRECOPY_PAGE;
		if (vmsplice(self->pipe[1], &iov, 1, 0) != (ssize_t)PRECOPY_PAGE)
			SKIP(return, "vmsplice: %s", strerror(errno));
	}
	begin(_metadata, self);
	for (i = 0; i < 3; i++)
		precopy_fill(&self->a, pages[i], 1, 50 + i, BY_MMAP);
	collect(_metadata, self);
	collect(_metadata, self);
	/* What STOP_COPY would have to send includes them. */
	ASSERT_EQ(0, mig_data_size(self->a.dev, &size));
	EXPECT_LE(3 * PRECOPY_PAGE, size);

	/* The first two are let go, and are sent; the third is not. */
	for (i = 0; i < 2; i++)
		ASSERT_EQ((ssize_t)PRECOPY_PAGE,
			  read(self->pipe[0], page, sizeof(page)));
	len = self->stream.len;
	collect(_metadata, self);
	EXPECT_LE(len + 2 * PRECOPY_PAGE, self->stream.len);
	finish(_metadata, self);
}

/* ------------------------------------------------------------------------ */
/* Pins for good would write without a trace, and are refused               */

static bool maps_for_dma(const char *mode, u8 *vaddr, size_t size)
{
	struct dma_region region = { .vaddr = vaddr, .size = size };
	struct iova_allocator *allocator;
	struct vfio_pci_device *dev;
	struct iommu *iommu;
	int ret;

	/* Through another device, as one that would do peer-to-peer DMA. */
	iommu = iommu_init(mode);
	dev = vfio_pci_device_init(bdfs[1], iommu);
	allocator = iova_allocator_init(iommu);
	region.iova = iova_allocator_alloc(allocator, size);
	ret = __iommu_map(iommu, &region);
	if (!ret)
		__iommu_unmap(iommu, &region, NULL);
	iova_allocator_cleanup(allocator);
	vfio_pci_device_cleanup(dev);
	iommu_cleanup(iommu);

	return !ret;
}

TEST_F(dirty, no_dma_mapping)
{
	precopy_fill(&self->a, 0, 8, 1, BY_MMAP);
	precopy_close(&self->b);
	EXPECT_FALSE(maps_for_dma("vfio_type1_iommu", self->a.bar, SIZE));
	EXPECT_FALSE(maps_for_dma("vfio_type1v2_iommu", self->a.bar, PRECOPY_PAGE));
	EXPECT_FALSE(maps_for_dma("iommufd", self->a.bar, SIZE));
	EXPECT_FALSE(maps_for_dma("iommufd", self->a.bar, PRECOPY_PAGE));
	precopy_open(&self->b, bdfs[1], "iommufd", SIZE);
	passes(_metadata, self, by_store);
}

TEST_F(dirty, no_registered_buffers)
{
	struct io_uring_params params = {};
	struct iovec iov = { self->a.bar, PRECOPY_PAGE };
	int ring;

	precopy_fill(&self->a, 0, 8, 1, BY_MMAP);
	ring = syscall(__NR_io_uring_setup, 4, &params);
	if (ring < 0)
		SKIP(return, "io_uring_setup: %s", strerror(errno));
	EXPECT_EQ(-1, syscall(__NR_io_uring_register, ring,
			      IORING_REGISTER_BUFFERS, &iov, 1));
	close(ring);
	passes(_metadata, self, by_store);
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
