// SPDX-License-Identifier: GPL-2.0-only
/*
 * Test knobs of the engine and of loads: that each does what its description says, and
 * that a device that is slow or hangs can still be reset, closed, unmapped and killed.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/mig_device.h>
#include <libvfio/precopy_engine.h>

#include <libvfio/mig_harness.h>

#define MEMORY		SZ_4M
#define RAM		SZ_1M
#define CHUNK		SZ_64K
/* Longer than any test: a wait that nothing else ends */
#define FOREVER_MS	600000U
/* A process that was killed is gone long before, however busy the machine is. */
#define KILLED_MS	30000

static char **bdfs;
static int nr_bdfs;

FIXTURE(knob) {
	struct engine e;
	bool opened;
};

FIXTURE_SETUP(knob)
{
	if (!precopy_has_knob(bdfs[0], "hold_step"))
		SKIP(return, "no test knob hold_step in debugfs");
	engine_open(&self->e, bdfs[0], NULL, MEMORY, RAM);
	self->opened = true;
}

FIXTURE_TEARDOWN(knob)
{
	if (self->opened)
		engine_close(&self->e);
}

static const struct engine_command stamping = {
	.op = PRECOPY_ENGINE_OP_STAMP, .dst = ENGINE_IOVA, .len = RAM, .seq = 1,
};

static int set(const char *knob, u64 value)
{
	return precopy_knob(bdfs[0], knob, value);
}

/* ------------------------------------------------------------------------ */
/* The working set                                                          */

/* Pages outside of it have only numbers that are multiples of 8. */
TEST_F_TIMEOUT(knob, hot_pages, MIG_TIMEOUT)
{
	struct engine *e = &self->e;
	u64 page, seq, *pair;

	ASSERT_EQ(0, set("hot_pages", 3));
	engine_start(e, &stamping);
	ASSERT_TRUE(engine_wait_for(e, PRECOPY_ENGINE_CMD_DONE, 30));
	engine_write32(e, PRECOPY_ENGINE_CMD_START, 0);
	EXPECT_EQ(-ECANCELED, engine_wait(e));
	seq = engine_read64(e, PRECOPY_ENGINE_CMD_SEQ);
	EXPECT_EQ(seq - 1, engine_read64(e, PRECOPY_ENGINE_CMD_DONE));
	for (page = 0; page < RAM / PRECOPY_PAGE; page++) {
		pair = (u64 *)(e->ram + page * PRECOPY_PAGE);
		EXPECT_TRUE(engine_stamped(pair, pair[0], page));
		EXPECT_LE(24, pair[0]);
		EXPECT_TRUE(page < 3 ? pair[0] + 1 >= seq : !(pair[0] % 8))
			TH_LOG("page %lu has number %lu", page, pair[0]);
	}
	/* A command that has an end is executed as it is written. */
	ASSERT_EQ(0, engine_run(e, &stamping));
	EXPECT_TRUE(engine_stamped(e->ram + RAM - PRECOPY_PAGE, 1,
				   RAM / PRECOPY_PAGE - 1));
}

/* ------------------------------------------------------------------------ */
/* A job that fails                                                         */

TEST_F_TIMEOUT(knob, fail_job_of_the_command, MIG_TIMEOUT)
{
	struct engine_command command = {
		.op = PRECOPY_ENGINE_OP_FENCE, .dst = ENGINE_IOVA, .seq = 10,
		.count = 9,
	};
	struct engine *e = &self->e;

	ASSERT_EQ(0, set("fail_job_at", 4));
	ASSERT_EQ(0, set("fail_job_errno", ENOSPC));
	EXPECT_EQ(-ENOSPC, engine_run(e, &command));
	EXPECT_EQ(3, engine_read64(e, PRECOPY_ENGINE_CMD_DONE));
	EXPECT_EQ(12, *(u64 *)e->ram);
	/* Once only, and again after a reset, with the errno of a device's own */
	EXPECT_EQ(0, engine_run(e, &command));
	ASSERT_EQ(0, set("fail_job_errno", 0));
	precopy_reset(&e->pd);
	EXPECT_EQ(-EIO, engine_run(e, &command));
	EXPECT_EQ(3, engine_read64(e, PRECOPY_ENGINE_CMD_DONE));
}

TEST_F_TIMEOUT(knob, fail_job_of_the_ring, MIG_TIMEOUT)
{
	struct engine *e = &self->e;
	struct precopy_engine_desc *ring = engine_ring(e, RAM / 2, 8);
	int i;

	for (i = 0; i < 5; i++)
		ring[i] = (struct precopy_engine_desc) {
			.op = PRECOPY_ENGINE_OP_FILL, .src = i + 1, .len = 8192,
			.dst = ENGINE_IOVA + i * 8192,
		};
	ASSERT_EQ(0, set("fail_job_at", 3));
	engine_write32(e, PRECOPY_ENGINE_RING_TAIL, 5);
	ASSERT_TRUE(engine_wait_head(e, 5));
	for (i = 0; i < 5; i++) {
		EXPECT_EQ(PRECOPY_ENGINE_DONE | (i == 2 ? EIO : 0), ring[i].status);
		EXPECT_EQ(i == 2 ? 0 : i + 1, ((u64 *)e->ram)[i * 1024 + 1023]);
	}
}

/* ------------------------------------------------------------------------ */
/* Steps that take long                                                     */

TEST_F_TIMEOUT(knob, step_delay, MIG_TIMEOUT)
{
	struct engine_command command = {
		.op = PRECOPY_ENGINE_OP_FENCE, .dst = ENGINE_IOVA, .count = 10,
	};
	u64 start = precopy_now_ms();

	ASSERT_EQ(0, set("step_delay_ms", 100));
	EXPECT_EQ(0, engine_run(&self->e, &command));
	EXPECT_LE(1000 - 10, precopy_now_ms() - start);
}

/* Starts the command, and returns when its first step has stored its page. */
static void begin_step(struct engine *e)
{
	volatile u64 *last = (u64 *)(e->ram + PRECOPY_PAGE) - 2;

	*last = 0;
	engine_start(e, &stamping);
	while (!*last)
		usleep(100);
	/* The next page is of the next step. */
	*(volatile u64 *)(e->ram + PRECOPY_PAGE) = 0;
}

/* A reset does not wait for it, a close ends it. */
TEST_F_TIMEOUT(knob, delayed_step_outlasts_a_reset, MIG_TIMEOUT)
{
	u64 late = precopy_stat(bdfs[0], "late_steps"), start;
	struct engine *e = &self->e;

	ASSERT_EQ(0, set("step_delay_ms", FOREVER_MS));
	begin_step(e);
	start = precopy_now_ms();
	precopy_reset(&e->pd);
	EXPECT_LE(100 - 10, precopy_now_ms() - start);
	EXPECT_EQ(late + 1, precopy_stat(bdfs[0], "late_steps"));
	engine_close(e);
	engine_open(e, bdfs[0], NULL, MEMORY, RAM);
	EXPECT_EQ(0, engine_copy(e, ENGINE_IOVA, ENGINE_IOVA + SZ_64K, 8192));
}

struct quiescing {
	struct engine *e;
	volatile pid_t tid;
	volatile bool ended;
	int ret;
	pthread_t thread;
};

static void *quiesce(void *arg)
{
	struct quiescing *q = arg;

	q->tid = syscall(SYS_gettid);
	q->ret = mig_set_state(q->e->pd.dev, RP, NULL);
	q->ended = true;
	return NULL;
}

/* A step that is held, and a state change that waits for it */
static void hold(struct __test_metadata *_metadata, struct quiescing *q)
{
	ASSERT_EQ(0, set("hold_step", 1));
	begin_step(q->e);
	ASSERT_EQ(0, pthread_create(&q->thread, NULL, quiesce, q));
	EXPECT_TRUE(precopy_wait_blocked(&q->tid, SYS_ioctl, &q->ended));
	EXPECT_EQ(0, *(u64 *)(q->e->ram + PRECOPY_PAGE));
	EXPECT_EQ(RUN, mig_get_state(q->e->pd.dev));
}

TEST_F_TIMEOUT(knob, held_step_is_released, MIG_TIMEOUT)
{
	struct quiescing q = { .e = &self->e };

	hold(_metadata, &q);
	ASSERT_EQ(0, set("hold_step", 0));
	ASSERT_EQ(0, pthread_join(q.thread, NULL));
	EXPECT_EQ(0, q.ret);
	EXPECT_EQ(0, *(u64 *)(self->e.ram + PRECOPY_PAGE));
	/* Once per page: it goes on behind the step that was held. */
	ASSERT_EQ(0, mig_set_state(self->e.pd.dev, RUN, NULL));
	EXPECT_TRUE(engine_wait_for(&self->e, PRECOPY_ENGINE_CMD_DONE, 1));
}

TEST_F_TIMEOUT(knob, held_step_ends_with_a_reset, MIG_TIMEOUT)
{
	u64 late = precopy_stat(bdfs[0], "late_steps");
	struct quiescing q = { .e = &self->e };

	hold(_metadata, &q);
	precopy_reset(&self->e.pd);
	ASSERT_EQ(0, pthread_join(q.thread, NULL));
	EXPECT_EQ(-ECANCELED, q.ret);
	EXPECT_EQ(RUN, mig_get_state(self->e.pd.dev));
	/* On a machine so slow that 100 ms are not enough it is late. */
	EXPECT_GE(late + 1, precopy_stat(bdfs[0], "late_steps"));
	ASSERT_EQ(0, set("hold_step", 0));
	EXPECT_EQ(0, engine_copy(&self->e, ENGINE_IOVA, ENGINE_IOVA + SZ_64K, 8192));
}

/* A state change that waits for a step does not keep the machine from a suspend. */
TEST_F_TIMEOUT(knob, held_step_lets_the_machine_suspend, MIG_TIMEOUT)
{
	struct quiescing q = { .e = &self->e };

	if (precopy_file_write("/sys/power/pm_test", "freezer"))
		SKIP(return, "the kernel cannot test a suspend");
	hold(_metadata, &q);
	EXPECT_EQ(0, precopy_file_write("/sys/power/state", "freeze"));
	precopy_file_write("/sys/power/pm_test", "none");
	EXPECT_FALSE(q.ended);
	ASSERT_EQ(0, set("hold_step", 0));
	ASSERT_EQ(0, pthread_join(q.thread, NULL));
	EXPECT_EQ(0, q.ret);
	EXPECT_EQ(0, *(u64 *)(self->e.ram + PRECOPY_PAGE));
}

/* An unmapping cannot be killed, so it does not wait for as long as a step is held. */
TEST_F_TIMEOUT(knob, held_step_does_not_keep_an_unmapping, MIG_TIMEOUT)
{
	static const char * const modes[] = {
		MODE_VFIO_TYPE1V2_IOMMU, MODE_IOMMUFD,
	};
	struct engine *e = &self->e;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		struct quiescing q = { .e = e };

		if (mig_mode_missing(bdfs[0], modes[i]))
			continue;
		engine_close(e);
		engine_open(e, bdfs[0], modes[i], MEMORY, RAM);
		hold(_metadata, &q);
		iommu_unmap(e->pd.iommu, &e->region);
		ASSERT_EQ(0, set("hold_step", 0));
		ASSERT_EQ(0, pthread_join(q.thread, NULL));
		EXPECT_EQ(0, q.ret);
	}
}

/*
 * Has the process ended of the signal? If not, @knob is what it waits for: it is set to
 * 0, so that a driver that cannot be killed fails this test and does not keep the machine.
 */
static bool ends_of_kill(pid_t pid, const char *knob)
{
	u64 deadline = precopy_now_ms() + KILLED_MS;
	int status;
	pid_t ret;

	VFIO_ASSERT_EQ(kill(pid, SIGKILL), 0);
	while (!(ret = waitpid(pid, &status, WNOHANG))) {
		if (precopy_now_ms() > deadline) {
			set(knob, 0);
			waitpid(pid, &status, 0);
			return false;
		}
		usleep(1000);
	}
	return ret == pid && WIFSIGNALED(status);
}

/* The process that waits for the step is killed, and with it its device closed. */
TEST_F_TIMEOUT(knob, held_step_ends_with_a_kill, MIG_TIMEOUT)
{
	volatile pid_t *tid = mmap(NULL, PRECOPY_PAGE, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	struct engine *e = &self->e;
	bool ended = false;
	pid_t pid;

	ASSERT_NE(MAP_FAILED, (void *)tid);
	engine_close(e);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		engine_open(e, bdfs[0], NULL, MEMORY, RAM);
		set("hold_step", 1);
		begin_step(e);
		*tid = getpid();
		mig_set_state(e->pd.dev, RP, NULL);
		_exit(1);
	}
	EXPECT_TRUE(precopy_wait_blocked(tid, SYS_ioctl, &ended));
	EXPECT_TRUE(ends_of_kill(pid, "hold_step"));
	munmap((void *)tid, PRECOPY_PAGE);
	engine_open(e, bdfs[0], NULL, MEMORY, RAM);
	EXPECT_EQ(0, engine_copy(e, ENGINE_IOVA, ENGINE_IOVA + SZ_64K, 8192));
}

/* ------------------------------------------------------------------------ */
/* A target that receives slowly                                            */

/* A stream of the device, which is then a target with an open data fd */
static int receive(struct __test_metadata *_metadata, struct engine *e,
		   struct mig_stream *stream)
{
	int fd;

	precopy_fill(&e->pd, 0, 50, 1, BY_MMAP);
	ASSERT_EQ(0, mig_save(e->pd.dev, stream));
	ASSERT_EQ(0, mig_set_state(e->pd.dev, RES, &fd));
	return fd;
}

TEST_F_TIMEOUT(knob, load_rate, MIG_TIMEOUT)
{
	struct mig_stream stream = {};
	int fd = receive(_metadata, &self->e, &stream);
	u64 start = precopy_now_ms(), rate = 100000, ms;

	ASSERT_EQ(0, set("load_rate", rate));
	ASSERT_EQ(0, mig_write_all(fd, stream.data, stream.len, CHUNK, NULL));
	ms = precopy_now_ms() - start;
	/* All but the last tenth of a second has been waited for. */
	EXPECT_LE(stream.len * 1000 / rate - 110, ms);
	ASSERT_EQ(0, mig_set_state(self->e.pd.dev, STOP, NULL));
	EXPECT_EQ(0, precopy_differ(&self->e.pd, self->e.pd.shadow));
	mig_stream_free(&stream);
	close(fd);
}

struct writing {
	int fd;
	struct mig_stream stream;
	volatile pid_t tid;
	volatile bool ended;
	ssize_t ret;
};

static void *write_thread(void *arg)
{
	struct writing *w = arg;

	w->tid = syscall(SYS_gettid);
	w->ret = mig_write_all(w->fd, w->stream.data, w->stream.len, CHUNK, NULL);
	w->ended = true;
	return NULL;
}

TEST_F_TIMEOUT(knob, load_rate_ends_with_a_reset, MIG_TIMEOUT)
{
	struct writing w = {};
	pthread_t thread;

	w.fd = receive(_metadata, &self->e, &w.stream);
	ASSERT_EQ(0, set("load_rate", 1));
	ASSERT_EQ(0, pthread_create(&thread, NULL, write_thread, &w));
	EXPECT_TRUE(precopy_wait_blocked(&w.tid, SYS_write, &w.ended));
	precopy_reset(&self->e.pd);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(-ENODEV, w.ret);
	mig_stream_free(&w.stream);
	close(w.fd);
}

TEST_F_TIMEOUT(knob, load_rate_is_killable, MIG_TIMEOUT)
{
	struct mig_stream stream = {};
	int fd = receive(_metadata, &self->e, &stream);
	volatile pid_t tid;
	bool ended = false;
	ssize_t ret;

	ASSERT_EQ(0, set("load_rate", 1));
	tid = fork();
	ASSERT_LE(0, tid);
	if (!tid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		mig_write_all(fd, stream.data, stream.len, CHUNK, NULL);
		_exit(1);
	}
	EXPECT_TRUE(precopy_wait_blocked(&tid, SYS_write, &ended));
	EXPECT_TRUE(ends_of_kill(tid, "load_rate"));
	/* Nobody has to wait who does not want to. */
	ASSERT_EQ(0, fcntl(fd, F_SETFL, O_NONBLOCK));
	do
		ret = write(fd, stream.data, 1);
	while (ret == 1);
	EXPECT_EQ(-1, ret);
	EXPECT_EQ(EAGAIN, errno);
	mig_stream_free(&stream);
	close(fd);
}

/* poll() promises no byte that the knob does not accept, and wakes when it does. */
TEST_F_TIMEOUT(knob, load_rate_wakes_pollers, MIG_TIMEOUT)
{
	struct mig_stream stream = {};
	struct pollfd pfd = { .events = POLLOUT };
	int i;

	pfd.fd = receive(_metadata, &self->e, &stream);
	ASSERT_EQ(0, set("load_rate", 2));
	ASSERT_EQ(0, fcntl(pfd.fd, F_SETFL, O_NONBLOCK));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(1, poll(&pfd, 1, 30000));
		ASSERT_EQ(POLLOUT, pfd.revents);
		ASSERT_EQ(1, write(pfd.fd, stream.data + i, 1))
			TH_LOG("byte %d: %s", i, strerror(errno));
	}
	mig_stream_free(&stream);
	close(pfd.fd);
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
