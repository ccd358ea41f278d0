// SPDX-License-Identifier: GPL-2.0-only
/*
 * Everything at once, and everything in the wrong order: users that read, poll,
 * ask, change the state, reset and close at the same time, waits that somebody
 * else ends, and fds that outlive what they belong to. Mostly it is the kernel
 * that must survive, which lockdep and KASAN see better than any assertion; here
 * it is checked that only errors come that have a meaning, that no wait is left
 * behind, and that the device works afterwards.
 *
 * PRECOPY_RACE_MS (3000 unless set) is how long each storm lasts.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <linux/limits.h>
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
#define RESUMING	VFIO_DEVICE_STATE_RESUMING
#define PRE_COPY	VFIO_DEVICE_STATE_PRE_COPY

#define MODULE		"precopy_vfio_pci"
#define LONG_MS		60000
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

/* ------------------------------------------------------------------------ */
/* Storms                                                                   */

struct storm {
	race_t *self;
	volatile bool stop;
	/* The newest data fd; whoever takes it out closes it. */
	int fd;
	/* Errors that nobody should see, of which the last is kept. */
	int bad;
	const char *bad_in;
	u64 done;
};

struct actor {
	struct storm *storm;
	void (*act)(struct actor *actor);
	pthread_t thread;
	unsigned int rnd;
	u8 *buf;
};

static unsigned int pick(struct actor *actor, unsigned int n)
{
	return rand_r(&actor->rnd) % n;
}

/* @ret is a result or a negative errno, which must be among @allowed. */
static void judge(struct storm *storm, const char *what, long ret,
		  const int *allowed)
{
	__atomic_fetch_add(&storm->done, 1, __ATOMIC_RELAXED);
	if (ret >= 0)
		return;
	for (; *allowed; allowed++)
		if (ret == -*allowed)
			return;
	storm->bad = ret;
	storm->bad_in = what;
}

/*
 * EBADF: the fd goes the other way. EFAULT: the buffer is in the BAR, and the
 * BAR is of a device whose load has failed. EIO: the same for read and write.
 * EOPNOTSUPP: two writers made up something that looks like a newer stream.
 */
static const int read_errors[] = { ENOMSG, ENODEV, EBADF, EFAULT, 0 };
static const int write_errors[] = { EINVAL, EOPNOTSUPP, ENODEV, EBADF, 0 };
static const int info_errors[] = { EINVAL, ENODEV, ENOTTY, 0 };
static const int set_errors[] = { EINVAL, EOPNOTSUPP, EIO, ECANCELED, 0 };
static const int bar_errors[] = { EIO, 0 };
static const int reset_errors[] = { EAGAIN, 0 };
static const int no_errors[] = { 0 };

static void set_one_of(struct actor *actor, const u8 *states, unsigned int nr)
{
	struct storm *storm = actor->storm;
	int fd, ret;

	ret = mig_set_state(storm->self->a.dev, states[pick(actor, nr)], &fd);
	judge(storm, "SET", ret, set_errors);
	if (ret || fd < 0)
		return;
	fd = __atomic_exchange_n(&storm->fd, fd, __ATOMIC_SEQ_CST);
	if (fd >= 0)
		close(fd);
}

static const u8 all_states[] = {
	VFIO_DEVICE_STATE_PRE_COPY, VFIO_DEVICE_STATE_PRE_COPY_P2P,
	VFIO_DEVICE_STATE_STOP_COPY, VFIO_DEVICE_STATE_STOP,
	VFIO_DEVICE_STATE_RUNNING, VFIO_DEVICE_STATE_RUNNING_P2P,
	VFIO_DEVICE_STATE_RESUMING,
};

static void act_set(struct actor *actor)
{
	set_one_of(actor, all_states, ARRAY_SIZE(all_states));
}

/* All but RESUMING, out of which only a whole stream leads. */
static void act_set_saving(struct actor *actor)
{
	set_one_of(actor, all_states, ARRAY_SIZE(all_states) - 1);
}

static void act_close(struct actor *actor)
{
	int fd;

	usleep(pick(actor, 3000));
	fd = __atomic_exchange_n(&actor->storm->fd, -1, __ATOMIC_SEQ_CST);
	if (fd >= 0)
		close(fd);
}

/* A copy of the fd of its own, so that no close makes it somebody else's. */
static int take_fd(struct storm *storm)
{
	return fcntl(storm->fd, F_DUPFD_CLOEXEC, 0);
}

static void act_read(struct actor *actor)
{
	struct storm *storm = actor->storm;
	int fd = take_fd(storm);
	ssize_t ret;

	if (fd < 0)
		return;
	ret = read(fd, actor->buf, 1 + pick(actor, SZ_128K));
	judge(storm, "read", ret < 0 ? -errno : ret, read_errors);
	close(fd);
}

static void act_write(struct actor *actor)
{
	struct storm *storm = actor->storm;
	struct mig_stream *stream = &storm->self->stream;
	int fd = take_fd(storm);
	ssize_t ret;

	if (fd < 0)
		return;
	/* Mostly a good beginning, now and then something else. */
	ret = write(fd, stream->data + (pick(actor, 8) ? 0 : 7),
		    1 + pick(actor, stream->len - 8));
	judge(storm, "write", ret < 0 ? -errno : ret, write_errors);
	close(fd);
}

static void act_poll(struct actor *actor)
{
	struct pollfd pfd = { .events = POLLIN | POLLOUT };
	struct storm *storm = actor->storm;
	int ret;

	pfd.fd = take_fd(storm);
	if (pfd.fd < 0)
		return;
	ret = poll(&pfd, 1, pick(actor, 5));
	judge(storm, "poll", ret < 0 ? -errno : ret, no_errors);
	close(pfd.fd);
}

static void act_ask(struct actor *actor)
{
	struct storm *storm = actor->storm;
	struct vfio_precopy_info info = {};
	int fd = take_fd(storm);
	char word[64];
	u64 size;

	judge(storm, "GET", mig_get_state(storm->self->a.dev), no_errors);
	judge(storm, "DATA_SIZE", mig_data_size(storm->self->a.dev, &size),
	      no_errors);
	judge(storm, "sysfs", precopy_sysfs_read(bdfs[0], "startup", word,
						 sizeof(word)), no_errors);
	judge(storm, "sysfs", precopy_sysfs_read(bdfs[0], "dirty_bytes", word,
						 sizeof(word)), no_errors);
	if (fd < 0)
		return;
	judge(storm, "PRECOPY_INFO", mig_precopy_info(fd, &info), info_errors);
	close(fd);
}

static void act_reset(struct actor *actor)
{
	struct storm *storm = actor->storm;

	usleep(pick(actor, 10000));
	judge(storm, "RESET", __vfio_pci_device_reset(storm->self->a.dev),
	      reset_errors);
}

static __thread sigjmp_buf bus_error;

static void on_sigbus(int sig)
{
	siglongjmp(bus_error, sig);
}

/* A device whose load has failed answers with SIGBUS and EIO. */
static void act_store(struct actor *actor)
{
	struct precopy_dev *a = &actor->storm->self->a;
	u64 offset = pick(actor, a->size / 8) * 8UL;
	u64 word = offset;

	if (!sigsetjmp(bus_error, 1))
		*(volatile u64 *)(a->bar + offset) = word;
	judge(actor->storm, "pwrite",
	      pwrite(a->fd, &word, 8, a->bar_offset + offset) < 0 ? -errno : 0,
	      bar_errors);
}

static void act_log(struct actor *actor)
{
	static const int errors[] = { EINVAL, 0 };
	struct vfio_device_feature_dma_logging_range range = { 0, SZ_1M };
	struct vfio_pci_device *dev = actor->storm->self->a.dev;
	u64 page_size = SZ_4K, bitmap[4];

	switch (pick(actor, 3)) {
	case 0:
		judge(actor->storm, "LOG_START",
		      dma_log_start(dev, &page_size, &range, 1), errors);
		break;
	case 1:
		judge(actor->storm, "LOG_STOP", dma_log_stop(dev), no_errors);
		break;
	default:
		judge(actor->storm, "LOG_REPORT",
		      dma_log_report(dev, 0, SZ_1M, SZ_4K, bitmap), errors);
		break;
	}
}

static void *actor_thread(void *arg)
{
	struct actor *actor = arg;

	while (!actor->storm->stop)
		actor->act(actor);

	return NULL;
}

static unsigned int storm_ms(void)
{
	const char *ms = getenv("PRECOPY_RACE_MS");

	return ms ? strtoul(ms, NULL, 0) : 3000;
}

/* @bar_buf: the buffers of reads and writes are in the BAR itself. */
static void run_storm(struct __test_metadata *_metadata, race_t *self,
		      void (*const *acts)(struct actor *), int nr, bool bar_buf)
{
	struct storm storm = { .self = self, .fd = -1 };
	struct actor actors[16] = {};
	struct sigaction act = { .sa_handler = on_sigbus };
	u8 *own = malloc_assert(SZ_128K);
	int i;

	ASSERT_EQ(0, sigaction(SIGBUS, &act, NULL));
	VFIO_ASSERT_LE((size_t)nr, ARRAY_SIZE(actors));
	for (i = 0; i < nr; i++) {
		actors[i].storm = &storm;
		actors[i].act = acts[i];
		actors[i].rnd = i + 1;
		actors[i].buf = bar_buf ? self->a.bar + SZ_256K : own;
		ASSERT_EQ(0, pthread_create(&actors[i].thread, NULL,
					    actor_thread, &actors[i]));
	}
	usleep(storm_ms() * 1000);
	storm.stop = true;
	/* A reader of the BAR may wait for a startup that only this ends. */
	for (i = 0; i < 3; i++) {
		vfio_pci_device_reset(self->a.dev);
		usleep(10 * 1000);
	}
	for (i = 0; i < nr; i++)
		ASSERT_EQ(0, pthread_join(actors[i].thread, NULL));

	EXPECT_EQ(0, storm.bad) TH_LOG("%s: errno %d", storm.bad_in, -storm.bad);
	EXPECT_LT(100, storm.done);
	TH_LOG("%lu calls", storm.done);
	if (storm.fd >= 0)
		close(storm.fd);
	free(own);
	check_works(_metadata, self);
}

TEST_F_TIMEOUT(race, everything, 300)
{
	static void (*const acts[])(struct actor *) = {
		act_set, act_set, act_read, act_read, act_write, act_poll,
		act_ask, act_reset, act_store, act_close, act_log,
	};

	run_storm(_metadata, self, acts, ARRAY_SIZE(acts), false);
}

/* Without resets more of the state machine is seen. */
TEST_F_TIMEOUT(race, without_reset, 300)
{
	static void (*const acts[])(struct actor *) = {
		act_set_saving, act_set_saving, act_read, act_read, act_poll,
		act_ask, act_store, act_close,
	};

	run_storm(_metadata, self, acts, ARRAY_SIZE(acts), false);
}

/*
 * The buffer is the BAR: the copy to or from it faults into the driver while
 * the driver is in the middle of a read or a write, and of a reset.
 */
TEST_F_TIMEOUT(race, buffer_in_bar, 300)
{
	static void (*const acts[])(struct actor *) = {
		act_set, act_read, act_read, act_reset, act_store,
	};

	run_storm(_metadata, self, acts, ARRAY_SIZE(acts), true);
}

/* ------------------------------------------------------------------------ */
/* Waits that somebody else ends                                            */

#define NEED_DELAY(_ms)							\
do {									\
	if (precopy_knob(bdfs[0], "startup_delay_ms", _ms))		\
		SKIP(return, "no test knob startup_delay_ms in debugfs"); \
} while (0)

struct wait {
	race_t *self;
	pthread_t thread;
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

TEST_F(race, reset_ends_write)
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
TEST_F(race, reset_ends_set)
{
	struct wait wait = {};
	bool waited;
	int fd;

	NEED_DELAY(LONG_MS);
	fd = go_to_barrier(_metadata, self);
	start_wait(_metadata, &wait, self, fd, wait_in_set);
	usleep(SETTLE_US);
	waited = !wait.ended;
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
TEST_F(race, reset_ends_fault)
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

TEST_F(race, reset_ends_poll)
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

TEST_F(race, close_ends_write)
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

TEST_F(race, state_ends_poll)
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
/* What outlives what                                                       */

static int driver_write(const char *file, const char *bdf)
{
	char path[PATH_MAX];
	int fd, ret = 0;

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/%s", file);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return -errno;
	if (write(fd, bdf, strlen(bdf)) < 0)
		ret = -errno;
	close(fd);

	return ret;
}

#define UNBIND	"drivers/" PRECOPY_DRIVER "/unbind"

/* The fd of a session of every kind, kept after its device is gone: R30. */
TEST_F(race, fd_outlives_driver)
{
	static const u8 states[] = { PRE_COPY, STOP_COPY, RESUMING };
	struct vfio_precopy_info info = {};
	unsigned int i;
	char byte = 0;
	int fd;

	for (i = 0; i < ARRAY_SIZE(states); i++) {
		ASSERT_EQ(0, mig_set_state(self->a.dev, states[i], &fd));
		precopy_close(&self->a);
		self->open = false;
		ASSERT_EQ(0, driver_write(UNBIND, bdfs[0]));

		EXPECT_EQ(-1, states[i] == RESUMING ? write(fd, &byte, 1) :
						      read(fd, &byte, 1));
		EXPECT_EQ(ENODEV, errno);
		EXPECT_GT(0, mig_precopy_info(fd, &info));
		ASSERT_EQ(0, driver_write("drivers_probe", bdfs[0]));
		precopy_open(&self->a, bdfs[0], variant->mode, SZ_1M);
		self->open = true;

		/* The device that came back has nothing to do with it. */
		EXPECT_EQ(-1, states[i] == RESUMING ? write(fd, &byte, 1) :
						      read(fd, &byte, 1));
		EXPECT_EQ(ENODEV, errno);
		close(fd);
	}
	check_works(_metadata, self);
}

/* The code that the fd would run must not go away. */
TEST_F(race, fd_pins_module)
{
	int fd, ret, i;

	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &fd));
	precopy_close(&self->a);
	self->open = false;
	for (i = 0; i < nr_bdfs; i++)
		ASSERT_EQ(0, driver_write(UNBIND, bdfs[i]));
	ret = syscall(__NR_delete_module, MODULE, O_NONBLOCK) ? -errno : 0;
	for (i = 0; i < nr_bdfs; i++)
		EXPECT_EQ(0, driver_write("drivers_probe", bdfs[i]));
	close(fd);

	if (ret != -ENOENT)
		EXPECT_TRUE(ret == -EWOULDBLOCK || ret == -EBUSY)
			TH_LOG("delete_module: %d", ret);
	precopy_open(&self->a, bdfs[0], variant->mode, SZ_1M);
	self->open = true;
	check_works(_metadata, self);
	if (ret == -ENOENT)
		SKIP(return, "the driver is not a module");
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
