// SPDX-License-Identifier: GPL-2.0-only
/*
 * Waits that somebody else ends: a write, a state change, a page fault or a poll
 * waits for the device, and a reset, a close or a state change must wake it up,
 * with an error that says so.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_states.h>
#include <libvfio/precopy_stream.h>

#include <libvfio/mig_harness.h>

#define LONG_MS		600000
#define SETTLE_US	(200 * 1000)

static char **bdfs;
static int nr_bdfs;

FIXTURE(race) {
	struct precopy_dev a;
	struct mig_stream stream;
	size_t barrier;		/* where INITIAL_END begins in it */
	u8 *want;		/* what it holds */
	bool open;
};

FIXTURE_VARIANT(race) {
	const char *mode;
};

#define FIXTURE_VARIANT_ADD_IOMMU_MODE(_mode)	\
FIXTURE_VARIANT_ADD(race, _mode) {		\
	.mode = #_mode,				\
}

/* The two ways in to a device that differ in code. */
FIXTURE_VARIANT_ADD_IOMMU_MODE(vfio_type1v2_iommu);
FIXTURE_VARIANT_ADD_IOMMU_MODE(iommufd);

#undef FIXTURE_VARIANT_ADD_IOMMU_MODE

struct find {
	size_t pos;
};

static void find_barrier(const struct wire_record *record, size_t pos, void *arg)
{
	if (record->type == WIRE_INITIAL_END)
		((struct find *)arg)->pos = pos;
}

/* A device that has been saved once, and is empty again. */
FIXTURE_SETUP(race)
{
	struct find find = {};

	precopy_open(&self->a, bdfs[0], variant->mode, SZ_1M);
	self->open = true;
	precopy_fill(&self->a, 0, 20, 1, BY_MMAP);
	self->want = malloc_assert(self->a.size);
	memcpy(self->want, self->a.shadow, self->a.size);
	ASSERT_EQ(0, mig_save(self->a.dev, &self->stream));
	ASSERT_LT(0, wire_walk(&self->stream, find_barrier, &find));
	self->barrier = find.pos;
	precopy_reset(&self->a);
}

FIXTURE_TEARDOWN(race)
{
	mig_stream_free(&self->stream);
	free(self->want);
	if (self->open)
		precopy_close(&self->a);
}

typedef FIXTURE_DATA(race) race_t;

/* Whatever happened before, now it saves and loads. */
static void check_works(struct __test_metadata *_metadata, race_t *self)
{
	struct mig_stream stream = {};

	precopy_reset(&self->a);
	ASSERT_EQ(RUNNING, mig_get_state(self->a.dev));
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	ASSERT_EQ(0, mig_load(self->a.dev, &self->stream, SZ_64K));
	EXPECT_EQ(0, precopy_differ(&self->a, self->want));
	ASSERT_EQ(0, mig_save(self->a.dev, &stream));
	EXPECT_LT(0, wire_walk(&stream, NULL, NULL));
	mig_stream_free(&stream);
	precopy_reset(&self->a);
}

#define NEED_DELAY(_ms)							\
do {									\
	if (precopy_knob(bdfs[0], "startup_delay_ms", _ms))		\
		SKIP(return, "no test knob startup_delay_ms in debugfs"); \
} while (0)

struct wait {
	race_t *self;
	pthread_t thread;
	volatile pid_t tid;
	int fd;
	volatile bool ended;
	long ret;
};

/* The rest of the stream, which waits at the barrier. */
static void *wait_in_write(void *arg)
{
	struct wait *wait = arg;
	race_t *self = wait->self;

	wait->ret = mig_write_all(wait->fd, self->stream.data + self->barrier,
				  self->stream.len - self->barrier, SZ_64K, NULL);
	wait->ended = true;

	return NULL;
}

static void *wait_in_set(void *arg)
{
	struct wait *wait = arg;

	wait->tid = gettid();
	wait->ret = mig_set_state(wait->self->a.dev, STOP, NULL);
	wait->ended = true;

	return NULL;
}

static void *wait_in_fault(void *arg)
{
	struct wait *wait = arg;

	wait->ret = *(volatile u8 *)wait->self->a.bar;
	wait->ended = true;

	return NULL;
}

static void *wait_in_poll(void *arg)
{
	struct wait *wait = arg;
	struct pollfd pfd = { .fd = wait->fd, .events = POLLOUT };

	wait->ret = poll(&pfd, 1, 2 * LONG_MS);
	wait->ended = true;

	return NULL;
}

/* Loads up to the barrier, whose startup takes longer than any test. */
static int go_to_barrier(struct __test_metadata *_metadata, race_t *self)
{
	int fd;

	ASSERT_EQ(0, mig_set_state(self->a.dev, RESUMING, &fd));
	ASSERT_EQ(0, mig_write_all(fd, self->stream.data, self->barrier, SZ_64K,
				   NULL));
	return fd;
}

static void start_wait(struct __test_metadata *_metadata, struct wait *wait,
		       race_t *self, int fd, void *(*fn)(void *))
{
	wait->self = self;
	wait->fd = fd;
	ASSERT_EQ(0, pthread_create(&wait->thread, NULL, fn, wait));
}

TEST_F_TIMEOUT(race, reset_ends_write, MIG_TIMEOUT)
{
	struct wait wait = {};
	int fd;

	NEED_DELAY(LONG_MS);
	fd = go_to_barrier(_metadata, self);
	start_wait(_metadata, &wait, self, fd, wait_in_write);
	usleep(SETTLE_US);
	EXPECT_FALSE(wait.ended);
	precopy_reset(&self->a);
	ASSERT_EQ(0, pthread_join(wait.thread, NULL));
	EXPECT_EQ(-ENODEV, wait.ret);
	close(fd);
	precopy_knob(bdfs[0], "startup_delay_ms", 0);
	check_works(_metadata, self);
}

/* A SET that has nothing to wait for may say at once that data is missing. */
TEST_F_TIMEOUT(race, reset_ends_set, MIG_TIMEOUT)
{
	struct wait wait = {};
	bool waited;
	int fd;

	NEED_DELAY(LONG_MS);
	fd = go_to_barrier(_metadata, self);
	start_wait(_metadata, &wait, self, fd, wait_in_set);
	waited = precopy_wait_blocked(&wait.tid, __NR_ioctl, &wait.ended);
	/* Whoever waits in SET keeps nobody from asking. */
	EXPECT_LE(0, mig_get_state(self->a.dev));
	precopy_reset(&self->a);
	EXPECT_EQ(RUNNING, mig_get_state(self->a.dev));
	ASSERT_EQ(0, pthread_join(wait.thread, NULL));
	EXPECT_EQ(waited ? -ECANCELED : -EINVAL, wait.ret);
	EXPECT_EQ(RUNNING, mig_get_state(self->a.dev));
	close(fd);
	precopy_knob(bdfs[0], "startup_delay_ms", 0);
	check_works(_metadata, self);
}

/* The thread that waits for its memory holds up no other use of its mm. */
TEST_F_TIMEOUT(race, reset_ends_fault, MIG_TIMEOUT)
{
	struct wait wait = {};
	void *map;
	int fd, i;

	NEED_DELAY(LONG_MS);
	fd = go_to_barrier(_metadata, self);
	start_wait(_metadata, &wait, self, fd, wait_in_fault);
	usleep(SETTLE_US);
	EXPECT_FALSE(wait.ended);
	for (i = 0; i < 10; i++) {
		map = mmap(NULL, SZ_64K, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);
		ASSERT_NE(MAP_FAILED, map);
		ASSERT_EQ(0, munmap(map, SZ_64K));
	}
	precopy_reset(&self->a);
	ASSERT_EQ(0, pthread_join(wait.thread, NULL));
	EXPECT_EQ(0, wait.ret);
	close(fd);
	precopy_knob(bdfs[0], "startup_delay_ms", 0);
	check_works(_metadata, self);
}

TEST_F_TIMEOUT(race, reset_ends_poll, MIG_TIMEOUT)
{
	struct wait wait = {};
	int fd;

	NEED_DELAY(LONG_MS);
	fd = go_to_barrier(_metadata, self);
	fcntl_set_nonblock(fd);
	EXPECT_EQ(-EAGAIN, mig_write_all(fd, self->stream.data + self->barrier,
					 self->stream.len - self->barrier,
					 SZ_64K, NULL));
	start_wait(_metadata, &wait, self, fd, wait_in_poll);
	usleep(SETTLE_US);
	EXPECT_FALSE(wait.ended);
	precopy_reset(&self->a);
	ASSERT_EQ(0, pthread_join(wait.thread, NULL));
	EXPECT_EQ(1, wait.ret);
	close(fd);
	precopy_knob(bdfs[0], "startup_delay_ms", 0);
	check_works(_metadata, self);
}

TEST_F_TIMEOUT(race, close_ends_write, MIG_TIMEOUT)
{
	struct wait wait = {};
	int fd;

	NEED_DELAY(LONG_MS);
	fd = go_to_barrier(_metadata, self);
	start_wait(_metadata, &wait, self, fd, wait_in_write);
	usleep(SETTLE_US);
	EXPECT_FALSE(wait.ended);
	precopy_close(&self->a);
	self->open = false;
	ASSERT_EQ(0, pthread_join(wait.thread, NULL));
	EXPECT_EQ(-ENODEV, wait.ret);
	close(fd);
	precopy_knob(bdfs[0], "startup_delay_ms", 0);
	precopy_open(&self->a, bdfs[0], variant->mode, SZ_1M);
	self->open = true;
	check_works(_metadata, self);
}

/* R45: a reader that sleeps in poll learns of the stop, and of the end. */
static void *wait_for_data(void *arg)
{
	struct wait *wait = arg;
	struct pollfd pfd = { .fd = wait->fd, .events = POLLIN };

	wait->ret = poll(&pfd, 1, 2 * LONG_MS);
	wait->ended = true;

	return NULL;
}

TEST_F_TIMEOUT(race, state_ends_poll, MIG_TIMEOUT)
{
	static const u8 next[] = { STOP_COPY, RUNNING };
	struct mig_stream stream = {};
	unsigned int i;
	int fd;

	for (i = 0; i < ARRAY_SIZE(next); i++) {
		struct wait wait = {};

		precopy_reset(&self->a);
		ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &fd));
		ASSERT_EQ(-ENOMSG, mig_stream_drain(&stream, fd, SZ_64K));
		start_wait(_metadata, &wait, self, fd, wait_for_data);
		usleep(SETTLE_US);
		EXPECT_FALSE(wait.ended);
		ASSERT_EQ(0, mig_set_state(self->a.dev, next[i], NULL));
		ASSERT_EQ(0, pthread_join(wait.thread, NULL));
		EXPECT_EQ(1, wait.ret);
		close(fd);
	}
	/* And of a store through a mapping, in which no system call is made. */
	precopy_reset(&self->a);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &fd));
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&stream, fd, SZ_64K));
	for (i = 0; i < 2; i++) {
		struct wait wait = {};

		start_wait(_metadata, &wait, self, fd, wait_for_data);
		usleep(SETTLE_US);
		EXPECT_FALSE(wait.ended);
		precopy_fill(&self->a, 3, 1, i, i ? BY_PWRITE : BY_MMAP);
		ASSERT_EQ(0, pthread_join(wait.thread, NULL));
		EXPECT_EQ(1, wait.ret);
		ASSERT_EQ(-ENOMSG, mig_stream_drain(&stream, fd, SZ_64K));
	}
	close(fd);
	mig_stream_free(&stream);
	check_works(_metadata, self);
}

/* ------------------------------------------------------------------------ */
/* Loads and stores during a reset                                          */

#define BUSY_SIZE	SZ_16M
#define BUSY_THREADS	4
#define BUSY_ACCESSES	5000

FIXTURE(busy) {
	struct precopy_dev a;
	pthread_t threads[BUSY_THREADS];
	bool begun;		/* the reset */
	bool over;		/* it has returned */
	bool stop;
	u64 accesses;
	u64 survived;		/* loads of what was stored before the reset */
	u64 failed;		/* write() */
};

FIXTURE_VARIANT(busy) {
	bool collected;
};

FIXTURE_VARIANT_ADD(busy, not_tracked) {};

/* Most entries are read-only. */
FIXTURE_VARIANT_ADD(busy, collected) {
	.collected = true,
};

FIXTURE_SETUP(busy)
{
	precopy_open(&self->a, bdfs[0], NULL, BUSY_SIZE);
}

FIXTURE_TEARDOWN(busy)
{
	precopy_close(&self->a);
}

typedef FIXTURE_DATA(busy) busy_t;

/*
 * Loads what was there before the reset, and stores beside it. The store is the first
 * to the page since the memory was collected, if the reset has begun.
 */
static void *use_memory(void *arg)
{
	unsigned int rnd = gettid();
	busy_t *self = arg;
	volatile u64 *page;
	bool over;

	while (!__atomic_load_n(&self->stop, __ATOMIC_RELAXED)) {
		page = (u64 *)(self->a.bar + PRECOPY_PAGE *
			       (rand_r(&rnd) % precopy_nr_pages(&self->a)));
		over = __atomic_load_n(&self->over, __ATOMIC_ACQUIRE);
		if (page[0] && over)
			__atomic_fetch_add(&self->survived, 1, __ATOMIC_RELAXED);
		if (__atomic_load_n(&self->begun, __ATOMIC_RELAXED))
			page[1] = 1;
		__atomic_fetch_add(&self->accesses, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

/*
 * write() allocates memory without a page fault, so that the next fault finds it there,
 * and entries of what was there before beside it.
 */
static void *write_memory(void *arg)
{
	unsigned int rnd = gettid();
	busy_t *self = arg;
	u64 one = 1, page;

	while (!__atomic_load_n(&self->stop, __ATOMIC_RELAXED)) {
		page = rand_r(&rnd) % precopy_nr_pages(&self->a);
		if (__atomic_load_n(&self->begun, __ATOMIC_RELAXED) &&
		    pwrite(self->a.fd, &one, sizeof(one), self->a.bar_offset +
			   page * PRECOPY_PAGE + sizeof(one)) != sizeof(one))
			__atomic_fetch_add(&self->failed, 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

static void wait_for_accesses(busy_t *self, u64 nr)
{
	nr += __atomic_load_n(&self->accesses, __ATOMIC_RELAXED);
	while (__atomic_load_n(&self->accesses, __ATOMIC_RELAXED) < nr)
		usleep(1000);
}

static void reset_busy_device(struct __test_metadata *_metadata, busy_t *self)
{
	int i;

	__atomic_store_n(&self->begun, false, __ATOMIC_RELAXED);
	__atomic_store_n(&self->over, false, __ATOMIC_RELAXED);
	__atomic_store_n(&self->stop, false, __ATOMIC_RELAXED);
	for (i = 0; i < BUSY_THREADS; i++)
		ASSERT_EQ(0, pthread_create(&self->threads[i], NULL,
					    i ? use_memory : write_memory, self));
	wait_for_accesses(self, BUSY_ACCESSES);
	__atomic_store_n(&self->begun, true, __ATOMIC_RELAXED);
	precopy_reset(&self->a);
	__atomic_store_n(&self->over, true, __ATOMIC_RELEASE);
	wait_for_accesses(self, BUSY_ACCESSES);
	__atomic_store_n(&self->stop, true, __ATOMIC_RELAXED);
	for (i = 0; i < BUSY_THREADS; i++)
		ASSERT_EQ(0, pthread_join(self->threads[i], NULL));
}

/* By a store to each, so that all other entries are of a page, and read-only. */
static void split_units(struct precopy_dev *pd)
{
	u64 offset;

	for (offset = 0; offset < pd->size; offset += SZ_2M)
		*(volatile u64 *)(pd->bar + offset) = ~0ULL;
}

/*
 * Entries are removed while others use the memory. When the reset has returned, none
 * is left; and no store fails meanwhile.
 */
TEST_F_TIMEOUT(busy, nothing_survives_a_reset, MIG_TIMEOUT)
{
	struct mig_stream stream = {};
	u64 i, page;
	int fd = -1;

	for (i = 0; i < precopy_rounds(8); i++) {
		for (page = 0; page < precopy_nr_pages(&self->a); page++)
			*(volatile u64 *)(self->a.bar + page * PRECOPY_PAGE) = ~0ULL;
		if (variant->collected) {
			ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &fd));
			ASSERT_EQ(-ENOMSG, mig_stream_drain(&stream, fd, SZ_64K));
			split_units(&self->a);
			ASSERT_EQ(-ENOMSG, mig_stream_drain(&stream, fd, SZ_64K));
			mig_stream_free(&stream);
			ASSERT_EQ(0, close(fd));
		}
		reset_busy_device(_metadata, self);
		ASSERT_EQ(0, self->survived);
		ASSERT_EQ(0, self->failed);
	}
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
