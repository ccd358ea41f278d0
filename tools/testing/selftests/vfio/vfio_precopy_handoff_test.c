// SPDX-License-Identifier: GPL-2.0-only
/*
 * The handoff: what either end says of the target's startup in each of its
 * phases, who is told when it is over, who waits for it and who must not, what
 * ends it early, and the test knobs that make it all happen. Of times only the
 * order is judged, and bounds that only something broken would not keep.
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
#include <sys/uio.h>
#include <sys/wait.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>
#include <linux/vfio_mig_startup.h>
#include <linux/vfio_precopy.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_handoff.h>
#include <libvfio/precopy_states.h>
#include <libvfio/precopy_stream.h>

#include <libvfio/mig_harness.h>

#define WAITING		((int)VFIO_PRECOPY_PHASE_WAITING)
#define STARTING	((int)VFIO_PRECOPY_PHASE_STARTING)
#define READY		((int)VFIO_PRECOPY_PHASE_READY)
#define FAILED		((int)VFIO_PRECOPY_PHASE_FAILED)

#define TARGET		VFIO_PRECOPY_STARTUP_TARGET
#define MEASURED	VFIO_PRECOPY_STARTUP_MEASURED

#define SIZE		SZ_4M
#define BIG		SZ_256M
#define BIG_UNITS	(BIG / WIRE_UNIT)

#define MS		1000000ULL	/* ns */
#define DELAY_MS	300
/* Two readings of a clock in whole milliseconds may differ by one less */
#define AT_LEAST_MS	(DELAY_MS - 1)
#define SETTLE_US	(100 * 1000)
#define PATIENCE_MS	HANDOFF_PATIENCE_MS
#define LONG_MS		HANDOFF_LONG_MS

static char **bdfs;
static int nr_bdfs;

FIXTURE(handoff) {
	struct precopy_dev a;
	struct precopy_dev b;
	bool a_open;
	bool two;
	struct mig_stream stream;	/* of @a, if saved */
	struct handoff_marks marks;	/* of it */
	struct wire wire;		/* one made by hand */
	int fd;				/* a data fd of @a */
};

typedef FIXTURE_DATA(handoff) handoff_t;

FIXTURE_SETUP(handoff)
{
	if (!precopy_has_knob(bdfs[0], "startup_delay_ms"))
		SKIP(return, "no test knobs in debugfs");
	self->fd = -1;
	self->two = nr_bdfs > 1;
	precopy_open(&self->a, bdfs[0], NULL, SIZE);
	self->a_open = true;
	if (self->two)
		precopy_open(&self->b, bdfs[1], NULL, SIZE);
	wire_init(&self->wire, bdfs[0], SIZE);
}

FIXTURE_TEARDOWN(handoff)
{
	if (self->fd >= 0)
		close(self->fd);
	mig_stream_free(&self->stream);
	wire_free(&self->wire);
	if (self->a_open)
		precopy_close(&self->a);
	if (self->two)
		precopy_close(&self->b);
}

static void close_a(handoff_t *self)
{
	precopy_close(&self->a);
	self->a_open = false;
}

static void open_a(handoff_t *self, size_t size)
{
	precopy_open(&self->a, bdfs[0], NULL, size);
	self->a_open = true;
}

/* Device a as a target from now on; what there was is lost. */
static void go_resuming(handoff_t *self)
{
	if (self->fd >= 0)
		close(self->fd);
	precopy_reset(&self->a);
	VFIO_ASSERT_EQ(mig_set_state(self->a.dev, RESUMING, &self->fd), 0);
}

/* A stream of a few pages of a, in self->stream. a is empty afterwards. */
static void save_some(handoff_t *self)
{
	precopy_fill(&self->a, 0, 40, 1, BY_MMAP);
	precopy_fill(&self->a, 700, 3, 1, BY_PWRITE);
	VFIO_ASSERT_EQ(mig_save(self->a.dev, &self->stream), 0);
	VFIO_ASSERT_GT(wire_walk(&self->stream, NULL, NULL), 0);
	handoff_marks(&self->stream, &self->marks);
}

/* The next bytes of the stream. Returns what mig_write_all() does. */
static int feed(handoff_t *self, size_t from, size_t to, size_t *done)
{
	return mig_write_all(self->fd, self->stream.data + from, to - from,
			     SZ_64K, done);
}

static bool same_as_saved(handoff_t *self)
{
	u8 *want = calloc_assert(1, self->a.size);
	u64 buf[PRECOPY_PAGE / 8], page;
	bool same;

	for (page = 0; page < precopy_nr_pages(&self->a); page++) {
		if (page >= 40 && (page < 700 || page >= 703))
			continue;
		precopy_pattern(buf, page, 1);
		memcpy(want + page * PRECOPY_PAGE, buf, PRECOPY_PAGE);
	}
	same = !precopy_differ(&self->a, want);
	free(want);
	return same;
}

/* The rest of the load, from a byte on, and all of it is right. */
static void finish_load(struct __test_metadata *_metadata, handoff_t *self,
			size_t from)
{
	EXPECT_EQ(0, feed(self, from, self->stream.len, NULL));
	EXPECT_EQ(0, mig_set_state(self->a.dev, STOP, NULL));
	EXPECT_TRUE(same_as_saved(self));
	EXPECT_EQ(0, mig_set_state(self->a.dev, RUNNING, NULL));
}

/* Whatever happened before, a reset makes a device that loads. */
static void works_after_reset(struct __test_metadata *_metadata,
			      handoff_t *self)
{
	if (!self->stream.len) {
		precopy_reset(&self->a);
		save_some(self);
	}
	go_resuming(self);
	finish_load(_metadata, self, 0);
}

/* ------------------------------------------------------------------------ */
/* The question                                                             */

/* On a data fd of either kind. */
static void check_arguments(struct __test_metadata *_metadata, int fd)
{
	static const u32 sizes[] = { 0, 4, 8, 40, 47 };
	struct {
		struct vfio_precopy_startup info;
		u8 beyond[32];
	} arg, before;
	unsigned int i;

	memset(&before, 0x5a, sizeof(before));
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		before.info.argsz = sizes[i];
		arg = before;
		EXPECT_EQ(-1, ioctl(fd, PRECOPY_GET_STARTUP, &arg));
		EXPECT_EQ(EINVAL, errno);
		EXPECT_EQ(0, memcmp(&arg, &before, sizeof(arg)));
	}
	/* A program of a later time has more fields. They are not filled in. */
	before.info.argsz = sizeof(arg);
	arg = before;
	EXPECT_EQ(0, ioctl(fd, PRECOPY_GET_STARTUP, &arg));
	EXPECT_EQ(0, memcmp(arg.beyond, before.beyond, sizeof(arg.beyond)));
	EXPECT_EQ(WAITING, (int)arg.info.phase);
}

/* What an answer leaves in the structure is no obstacle to the next question. */
static void check_asked_again(struct __test_metadata *_metadata, int fd)
{
	static const u32 sizes[] = {
		sizeof(struct vfio_precopy_startup),
		sizeof(struct vfio_precopy_startup) + 32,
	};
	struct {
		struct vfio_precopy_startup info;
		u8 beyond[32];
	} arg, first;
	unsigned int i, k;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		memset(&arg, 0xff, sizeof(arg));
		arg.info.argsz = sizes[i];
		for (k = 0; k < 3; k++) {
			ASSERT_EQ(0, ioctl(fd, PRECOPY_GET_STARTUP, &arg));
			EXPECT_EQ(sizes[i], arg.info.argsz);
			if (!k)
				first = arg;
			EXPECT_EQ(0, memcmp(&arg, &first, sizeof(arg)));
		}
	}
}

static void check_faults(struct __test_metadata *_metadata, int fd)
{
	size_t page = PRECOPY_PAGE;
	struct vfio_precopy_startup *info;
	u8 *map;

	EXPECT_EQ(-1, ioctl(fd, PRECOPY_GET_STARTUP, NULL));
	EXPECT_EQ(EFAULT, errno);
	map = mmap(NULL, 2 * page, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)map);
	ASSERT_EQ(0, munmap(map + page, page));
	/* What goes in can be read, what comes out has no room. */
	info = (void *)(map + page - 16);
	info->argsz = sizeof(*info);
	EXPECT_EQ(-1, ioctl(fd, PRECOPY_GET_STARTUP, info));
	EXPECT_EQ(EFAULT, errno);
	/* Not even that. */
	info = (void *)(map + page - 2);
	EXPECT_EQ(-1, ioctl(fd, PRECOPY_GET_STARTUP, info));
	EXPECT_EQ(EFAULT, errno);
	info = (void *)map;
	info->argsz = sizeof(*info);
	ASSERT_EQ(0, mprotect(map, page, PROT_READ));
	EXPECT_EQ(-1, ioctl(fd, PRECOPY_GET_STARTUP, info));
	EXPECT_EQ(EFAULT, errno);
	ASSERT_EQ(0, munmap(map, page));
}

static void check_other_ioctls(struct __test_metadata *_metadata, int fd)
{
	static const unsigned int cmds[] = {
		_IO(VFIO_PRECOPY_TYPE, 1),
		_IO(VFIO_PRECOPY_TYPE, 255),
		_IO(VFIO_TYPE, 0),
		_IOR(VFIO_PRECOPY_TYPE, 0, struct vfio_precopy_startup),
		_IOWR(VFIO_PRECOPY_TYPE, 0, struct vfio_precopy_startup),
		VFIO_DEVICE_FEATURE,
		VFIO_DEVICE_RESET,
	};
	u8 arg[256] = { sizeof(arg) - 1 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cmds); i++) {
		EXPECT_EQ(-1, ioctl(fd, cmds[i], arg));
		EXPECT_EQ(ENOTTY, errno) TH_LOG("ioctl %#x", cmds[i]);
	}
}

TEST_F_TIMEOUT(handoff, question_on_resuming, MIG_TIMEOUT)
{
	struct vfio_precopy_info info = { .argsz = sizeof(info) };

	go_resuming(self);
	check_arguments(_metadata, self->fd);
	check_asked_again(_metadata, self->fd);
	check_faults(_metadata, self->fd);
	check_other_ioctls(_metadata, self->fd);
	EXPECT_EQ(-1, ioctl(self->fd, VFIO_MIG_GET_PRECOPY_INFO, &info));
	EXPECT_EQ(ENOTTY, errno);
	EXPECT_EQ(WAITING, handoff_phase(self->fd));
}

TEST_F_TIMEOUT(handoff, question_on_saving, MIG_TIMEOUT)
{
	struct vfio_precopy_startup info = { .argsz = sizeof(info) };

	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &self->fd));
	check_arguments(_metadata, self->fd);
	check_asked_again(_metadata, self->fd);
	check_faults(_metadata, self->fd);
	check_other_ioctls(_metadata, self->fd);
	EXPECT_EQ(WAITING, handoff_phase(self->fd));
	/* It is the data fd that is asked, not the device. */
	EXPECT_EQ(-1, ioctl(self->a.fd, PRECOPY_GET_STARTUP, &info));
	EXPECT_EQ(ENOTTY, errno);
}

/* ------------------------------------------------------------------------ */
/* The target's answers                                                     */

/*
 * While it is held, a startup or a stop does not end: what is looked at in
 * between does not depend on how fast the machine is. The way to RESUMING has a
 * stop in it, so a startup is held after that.
 */
static int hold(bool on)
{
	return precopy_knob(bdfs[0], "hold", on);
}

/* Wait until so much of the real work is done that is held there. */
static bool wait_prepared(handoff_t *self, struct vfio_precopy_startup *info,
			  u64 bytes)
{
	u64 end = precopy_now_ms() + PATIENCE_MS;

	do {
		VFIO_ASSERT_EQ(handoff_get(self->fd, info), 0);
		if (info->bytes_prepared == bytes)
			return true;
		usleep(1000);
	} while (precopy_now_ms() < end);
	return false;
}

/*
 * VFIO_MIG_GET_STARTUP_INFO has the numbers of PRECOPY_GET_STARTUP, which is asked
 * before and after it, in the same phase.
 */
static void check_generic(struct __test_metadata *_metadata, int fd, int phase)
{
	struct vfio_mig_startup_info info = { .argsz = sizeof(info) };
	struct vfio_precopy_startup before, after;
	bool known;

	ASSERT_EQ(0, handoff_get(fd, &before));
	ASSERT_EQ(0, ioctl(fd, VFIO_MIG_GET_STARTUP_INFO, &info));
	ASSERT_EQ(0, handoff_get(fd, &after));
	EXPECT_EQ(phase, (int)before.phase);
	EXPECT_EQ(phase, (int)info.phase);
	EXPECT_EQ(phase, (int)after.phase);
	EXPECT_EQ(before.error, info.error);
	EXPECT_EQ(before.flags & TARGET, info.flags & VFIO_MIG_STARTUP_TARGET);
	EXPECT_EQ(!(before.flags & TARGET),
		  !!(info.flags & VFIO_MIG_STARTUP_INITIAL_BYTES));
	known = before.remaining_ns != VFIO_PRECOPY_REMAINING_UNKNOWN;
	EXPECT_EQ(known, !!(info.flags & VFIO_MIG_STARTUP_TIME));
	EXPECT_EQ(known && before.flags & MEASURED,
		  !!(info.flags & VFIO_MIG_STARTUP_MEASURED));
	if (known) {
		/* Time passes between the questions */
		EXPECT_GE(before.remaining_ns, info.remaining_ns);
		EXPECT_LE(after.remaining_ns, info.remaining_ns);
	}
}

TEST_F_TIMEOUT(handoff, generic_question_at_source, MIG_TIMEOUT)
{
	handoff_teach(&self->a, 1, 2 * DELAY_MS, 1);
	precopy_fill(&self->a, 0, 40, 1, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &self->fd));
	check_generic(_metadata, self->fd, WAITING);
	EXPECT_EQ(-ENOMSG, mig_stream_drain(&self->stream, self->fd, SZ_64K));
	EXPECT_TRUE(handoff_wait(self->fd, VFIO_PRECOPY_PHASE_READY));
	check_generic(_metadata, self->fd, READY);
}

TEST_F_TIMEOUT(handoff, generic_question_at_target, MIG_TIMEOUT)
{
	struct vfio_precopy_startup info;

	save_some(self);
	go_resuming(self);
	check_generic(_metadata, self->fd, WAITING);
	/* When the work is done only the delay is left, and the estimate is steady */
	ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_delay_ms", LONG_MS));
	ASSERT_EQ(0, feed(self, 0, self->marks.barrier, NULL));
	ASSERT_TRUE(wait_prepared(self, &info, self->marks.bytes_in_use));
	check_generic(_metadata, self->fd, STARTING);

	ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_delay_ms", 0));
	go_resuming(self);
	ASSERT_EQ(0, feed(self, 0, self->stream.len, NULL));
	check_generic(_metadata, self->fd, READY);

	/* One that failed has no time, but an error. */
	ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_fail", ENOSPC));
	go_resuming(self);
	EXPECT_GT(0, feed(self, 0, self->stream.len, NULL));
	check_generic(_metadata, self->fd, FAILED);
	ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_fail", 0));
	works_after_reset(_metadata, self);
}

/* What is left of the delay, which is all that is left, and may have passed. */
static u64 delay_left(const struct vfio_precopy_startup *info)
{
	return info->elapsed_ns < DELAY_MS * MS ?
	       DELAY_MS * MS - info->elapsed_ns : 0;
}

TEST_F_TIMEOUT(handoff, target_phases, MIG_TIMEOUT)
{
	struct vfio_precopy_startup info, next;

	save_some(self);
	go_resuming(self);
	ASSERT_EQ(0, handoff_get(self->fd, &info));
	EXPECT_EQ(WAITING, (int)info.phase);
	EXPECT_EQ(TARGET, info.flags);
	EXPECT_EQ(0, info.bytes_in_use);
	/* Not 0, which would read as ready. */
	EXPECT_EQ(VFIO_PRECOPY_REMAINING_UNKNOWN, info.remaining_ns);

	/* All but the last byte of PREFACE. */
	ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_delay_ms", DELAY_MS));
	ASSERT_EQ(0, hold(true));
	ASSERT_EQ(0, feed(self, 0, self->marks.preface_end - 1, NULL));
	EXPECT_EQ(WAITING, handoff_phase(self->fd));
	ASSERT_EQ(0, feed(self, self->marks.preface_end - 1,
			  self->marks.preface_end, NULL));
	ASSERT_EQ(0, handoff_get(self->fd, &info));
	EXPECT_EQ(STARTING, (int)info.phase);
	EXPECT_EQ(TARGET, info.flags & TARGET);
	EXPECT_EQ(self->marks.bytes_in_use, info.bytes_in_use);
	EXPECT_LE(delay_left(&info), info.remaining_ns);
	ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_delay_ms", 0));

	/* Data goes on, and so does time. */
	ASSERT_EQ(0, feed(self, self->marks.preface_end, self->marks.barrier,
			  NULL));
	ASSERT_TRUE(wait_prepared(self, &next, info.bytes_in_use));
	EXPECT_EQ(STARTING, (int)next.phase);
	EXPECT_LT(info.elapsed_ns, next.elapsed_ns);
	EXPECT_EQ(TARGET | MEASURED, next.flags);
	EXPECT_EQ(delay_left(&next), next.remaining_ns);
	ASSERT_EQ(0, hold(false));

	ASSERT_EQ(0, feed(self, self->marks.barrier, self->stream.len, NULL));
	ASSERT_EQ(0, handoff_get(self->fd, &info));
	EXPECT_EQ(READY, (int)info.phase);
	EXPECT_EQ(TARGET | MEASURED, info.flags);
	EXPECT_EQ(self->marks.bytes_in_use, info.bytes_in_use);
	EXPECT_LE(DELAY_MS * MS, info.elapsed_ns);
	EXPECT_LE(next.elapsed_ns, info.elapsed_ns);
	/* It does not go on to count. */
	usleep(SETTLE_US);
	ASSERT_EQ(0, handoff_get(self->fd, &next));
	EXPECT_EQ(info.elapsed_ns, next.elapsed_ns);
	EXPECT_EQ(handoff_stat(bdfs[0], "last_startup_ns"), info.elapsed_ns);

	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP, NULL));
	EXPECT_EQ(-ENODEV, handoff_phase(self->fd));
	EXPECT_TRUE(same_as_saved(self));
}

/* Nothing in use: nothing to prepare, and still a startup. */
TEST_F_TIMEOUT(handoff, target_of_nothing, MIG_TIMEOUT)
{
	struct vfio_precopy_startup info;

	wire_put_header(&self->wire);
	handoff_put_preface(&self->wire, 0);
	go_resuming(self);
	ASSERT_EQ(0, hold(true));
	ASSERT_EQ(0, mig_write_all(self->fd, self->wire.stream.data,
				   self->wire.stream.len, SZ_64K, NULL));
	ASSERT_EQ(0, handoff_get(self->fd, &info));
	EXPECT_EQ(STARTING, (int)info.phase);
	EXPECT_EQ(0, info.bytes_in_use);
	ASSERT_EQ(0, hold(false));
	EXPECT_TRUE(handoff_wait(self->fd, VFIO_PRECOPY_PHASE_READY));
}

/*
 * Of the real work, held at each of these: what is left will take as long as
 * what is done has taken, in proportion.
 */
TEST_F_TIMEOUT(handoff, target_progress, MIG_TIMEOUT)
{
	static const u64 steps[] = {
		WIRE_UNIT, BIG / 8, BIG / 4, BIG / 2, BIG - WIRE_UNIT,
	};
	struct vfio_precopy_startup info, last = {};
	unsigned int i;

	close_a(self);
	open_a(self, BIG);
	wire_free(&self->wire);
	wire_init(&self->wire, bdfs[0], BIG);
	wire_put_header(&self->wire);
	handoff_put_preface(&self->wire, BIG_UNITS);
	go_resuming(self);
	ASSERT_EQ(0, precopy_knob(bdfs[0], "hold_startup_at", steps[0]));
	ASSERT_EQ(0, mig_write_all(self->fd, self->wire.stream.data,
				   self->wire.stream.len, SZ_64K, NULL));
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		ASSERT_EQ(0, precopy_knob(bdfs[0], "hold_startup_at", steps[i]));
		ASSERT_TRUE(wait_prepared(self, &info, steps[i]));
		EXPECT_EQ(STARTING, (int)info.phase);
		EXPECT_EQ(BIG, info.bytes_in_use);
		EXPECT_EQ(MEASURED, info.flags & MEASURED);
		EXPECT_EQ(steps[i], handoff_stat(bdfs[0], "bytes_in_use"));
		EXPECT_LT(last.elapsed_ns, info.elapsed_ns);
		EXPECT_EQ(info.elapsed_ns * ((BIG - steps[i]) / WIRE_UNIT) /
			  (steps[i] / WIRE_UNIT), info.remaining_ns);
		last = info;
	}
	ASSERT_EQ(0, precopy_knob(bdfs[0], "hold_startup_at", 0));
	EXPECT_TRUE(handoff_wait(self->fd, VFIO_PRECOPY_PHASE_READY));
	ASSERT_EQ(0, handoff_get(self->fd, &info));
	EXPECT_EQ(BIG, info.bytes_prepared);
	EXPECT_EQ(BIG, handoff_stat(bdfs[0], "bytes_in_use"));
	EXPECT_LT(last.elapsed_ns, info.elapsed_ns);
}

/* What the startup fails with, the fd, the write and the commit say. */
TEST_F_TIMEOUT(handoff, target_fails, MIG_TIMEOUT)
{
	static const int errors[] = { EIO, ENOMEM, ETIMEDOUT };
	struct vfio_precopy_startup info;
	unsigned int i;

	save_some(self);
	for (i = 0; i < ARRAY_SIZE(errors); i++) {
		go_resuming(self);
		ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_fail", errors[i]));
		ASSERT_EQ(0, feed(self, 0, self->marks.preface_end, NULL));
		EXPECT_TRUE(handoff_wait(self->fd, VFIO_PRECOPY_PHASE_FAILED));
		ASSERT_EQ(0, handoff_get(self->fd, &info));
		EXPECT_EQ((u32)errors[i], info.error);
		EXPECT_EQ(TARGET, info.flags & TARGET);
		EXPECT_EQ(VFIO_PRECOPY_REMAINING_UNKNOWN, info.remaining_ns);
		EXPECT_EQ(self->marks.bytes_in_use, info.bytes_in_use);
		EXPECT_EQ(-errors[i], feed(self, self->marks.preface_end,
					   self->stream.len, NULL));
		/* Sticky, whatever the knob says later. */
		ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_fail", 0));
		EXPECT_EQ(-errors[i], mig_set_state(self->a.dev, STOP, NULL));
		EXPECT_EQ(RESUMING, mig_get_state(self->a.dev));
		EXPECT_EQ(FAILED, handoff_phase(self->fd));
		precopy_reset(&self->a);
		EXPECT_EQ(-ENODEV, handoff_phase(self->fd));
	}
	works_after_reset(_metadata, self);
}

/* And it does so at the end of its time, to who waits at the barrier. */
TEST_F_TIMEOUT(handoff, target_fails_late, MIG_TIMEOUT)
{
	struct vfio_precopy_startup info;
	u64 began;

	save_some(self);
	go_resuming(self);
	ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_fail", ENOSPC));
	ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_delay_ms", DELAY_MS));
	began = precopy_now_ms();
	EXPECT_EQ(-ENOSPC, feed(self, 0, self->stream.len, NULL));
	EXPECT_LE(AT_LEAST_MS, precopy_now_ms() - began);
	ASSERT_EQ(0, handoff_get(self->fd, &info));
	EXPECT_EQ(FAILED, (int)info.phase);
	EXPECT_EQ(ENOSPC, (int)info.error);
	ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_delay_ms", 0));
	ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_fail", 0));
	works_after_reset(_metadata, self);
}

/* A stream that is refused is a target that will not start. */
TEST_F_TIMEOUT(handoff, target_refuses, MIG_TIMEOUT)
{
	struct vfio_precopy_startup info;
	size_t at[3];
	unsigned int i;

	save_some(self);
	at[0] = 5;
	at[1] = self->marks.preface_end + 3;
	at[2] = self->stream.len - 1;
	for (i = 0; i < ARRAY_SIZE(at); i++) {
		go_resuming(self);
		self->stream.data[at[i]] ^= 1;
		EXPECT_EQ(-EINVAL, feed(self, 0, self->stream.len, NULL));
		self->stream.data[at[i]] ^= 1;
		ASSERT_EQ(0, handoff_get(self->fd, &info));
		EXPECT_EQ(FAILED, (int)info.phase);
		EXPECT_EQ(EINVAL, (int)info.error);
		EXPECT_EQ(POLLERR | POLLPRI | POLLOUT,
			  handoff_poll(self->fd, POLLPRI | POLLOUT, 0));
	}
	works_after_reset(_metadata, self);
}

/* ------------------------------------------------------------------------ */
/* The source's answers                                                     */

/* How long it would take here, until PREFACE is out; then that less and less. */
static void check_source(struct __test_metadata *_metadata, handoff_t *self,
			 u32 state)
{
	struct vfio_precopy_startup before, info, last;
	struct handoff_marks marks = {};
	u64 began;

	self->stream.len = 0;
	ASSERT_EQ(0, mig_set_state(self->a.dev, state, &self->fd));
	ASSERT_EQ(0, handoff_get(self->fd, &before));
	EXPECT_EQ(MEASURED, before.flags);
	/* Less if memory is fragmented: units that have holes are not told */
	EXPECT_GE(handoff_stat(bdfs[0], "bytes_in_use"), before.bytes_in_use);

	/* Byte by byte, until what was read has a whole PREFACE. */
	do {
		ASSERT_EQ(0, handoff_get(self->fd, &info));
		EXPECT_EQ(0, memcmp(&before, &info, sizeof(info)));
		began = precopy_now_ms();
		ASSERT_EQ(1, mig_stream_read(&self->stream, self->fd, 1));
		handoff_marks(&self->stream, &marks);
	} while (!marks.prefaces);
	EXPECT_EQ(marks.startup_ns, before.remaining_ns);
	EXPECT_EQ(marks.bytes_in_use, before.bytes_in_use);

	ASSERT_EQ(0, handoff_get(self->fd, &last));
	EXPECT_EQ(last.elapsed_ns < before.remaining_ns ? STARTING : READY,
		  (int)last.phase);
	/* What is read further, and what state it is in, does not matter. */
	EXPECT_EQ(state == STOP_COPY ? 0 : -ENOMSG,
		  mig_stream_drain(&self->stream, self->fd, SZ_64K));
	do {
		usleep(10 * 1000);
		ASSERT_EQ(0, handoff_get(self->fd, &info));
		EXPECT_EQ(MEASURED, info.flags);
		EXPECT_EQ(before.bytes_in_use, info.bytes_in_use);
		EXPECT_LE(last.elapsed_ns, info.elapsed_ns);
		EXPECT_LE(last.bytes_prepared, info.bytes_prepared);
		EXPECT_EQ(before.remaining_ns,
			  info.remaining_ns + info.elapsed_ns);
		last = info;
	} while (info.phase == VFIO_PRECOPY_PHASE_STARTING &&
		 __test_passed(_metadata));
	EXPECT_EQ(READY, (int)info.phase);
	EXPECT_LE(before.remaining_ns / MS, precopy_now_ms() - began + 1);
	EXPECT_EQ(before.remaining_ns, info.elapsed_ns);
	ASSERT_EQ(0, mig_set_state(self->a.dev, RUNNING, NULL));
	EXPECT_EQ(-ENODEV, handoff_phase(self->fd));
	close(self->fd);
	self->fd = -1;
}

/* The last eight startups of the device are what it goes by. */
#define REMEMBERED	8

static u64 estimate(handoff_t *self)
{
	struct vfio_precopy_startup info;
	int fd;

	VFIO_ASSERT_EQ(mig_set_state(self->a.dev, PRE_COPY, &fd), 0);
	VFIO_ASSERT_EQ(handoff_get(fd, &info), 0);
	VFIO_ASSERT_EQ(mig_set_state(self->a.dev, RUNNING, NULL), 0);
	close(fd);
	return info.remaining_ns;
}

/* What the source guesses is of the kind of what the target then takes. */
static void check_target_agrees(struct __test_metadata *_metadata,
				handoff_t *self, u64 source_ns)
{
	struct vfio_precopy_startup info;
	u64 fastest = ~0ULL;
	int i;

	ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_delay_ms", DELAY_MS));
	wire_put_header(&self->wire);
	handoff_put_preface(&self->wire, 2);
	/* Within a factor of ten; a busy machine may need several attempts. */
	for (i = 0; i < 20 && fastest / 10 > source_ns; i++) {
		go_resuming(self);
		ASSERT_EQ(0, mig_write_all(self->fd, self->wire.stream.data,
					   self->wire.stream.len, SZ_64K,
					   NULL));
		EXPECT_TRUE(handoff_wait(self->fd, VFIO_PRECOPY_PHASE_READY));
		ASSERT_EQ(0, handoff_get(self->fd, &info));
		if (info.elapsed_ns < fastest)
			fastest = info.elapsed_ns;
	}
	EXPECT_LE(fastest / 10, source_ns);
	EXPECT_LE(DELAY_MS * MS, fastest);
	ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_delay_ms", 0));
}

TEST_F_TIMEOUT(handoff, source_phases, MIG_TIMEOUT)
{
	u64 fast = ~0ULL, slow;
	int i;

	/* A busy machine may need several attempts to be fast. */
	for (i = 0; i < 20 && fast >= DELAY_MS / 2 * MS; i++) {
		handoff_teach(&self->a, 2, 0, REMEMBERED);
		precopy_fill(&self->a, 0, 1000, 1, BY_MMAP);
		fast = estimate(self);
		precopy_reset(&self->a);
	}
	handoff_teach(&self->a, 2, DELAY_MS, REMEMBERED);
	precopy_fill(&self->a, 0, 1000, 1, BY_MMAP);
	slow = estimate(self);
	TH_LOG("%lu us and %lu us", (unsigned long)(fast / 1000),
	       (unsigned long)(slow / 1000));
	EXPECT_LT(fast, slow);
	EXPECT_LE(DELAY_MS / 2 * MS, slow);
	EXPECT_GE(PATIENCE_MS * MS, slow);

	check_source(_metadata, self, PRE_COPY);
	check_source(_metadata, self, STOP_COPY);
	check_target_agrees(_metadata, self, slow);
}

/* ------------------------------------------------------------------------ */
/* What is a sample of how long a startup takes                             */

/* Many a PREFACE in one stream: all but the first find their memory there. */
static void put_prefaces(struct wire *w, unsigned int times)
{
	wire_put_header(w);
	while (times--) {
		handoff_put_preface(w, 2);
		wire_put_initial_end(w);
	}
	wire_put_state(w);
	wire_put_end(w);
}

static u64 estimate_of_used(handoff_t *self)
{
	u64 ns;

	precopy_fill(&self->a, 0, precopy_nr_pages(&self->a), 1, BY_MMAP);
	ns = estimate(self);
	precopy_reset(&self->a);
	return ns;
}

/*
 * At most one of the last eight startups is fast, and the others took their
 * delay at least. If all were samples there would be nothing but fast ones.
 */
TEST_F_TIMEOUT(handoff, repeated_preface_is_no_sample, MIG_TIMEOUT)
{
	u64 before, after;

	handoff_teach(&self->a, 2, DELAY_MS, REMEMBERED);
	before = estimate_of_used(self);
	EXPECT_LE(DELAY_MS / 2 * MS, before);
	put_prefaces(&self->wire, REMEMBERED + precopy_rounds(16));
	EXPECT_EQ(0, mig_load(self->a.dev, &self->wire.stream, SZ_64K));
	precopy_reset(&self->a);
	after = estimate_of_used(self);
	EXPECT_LE(DELAY_MS / 2 * MS, after);
	TH_LOG("%lu us before, %lu us after", (unsigned long)(before / 1000),
	       (unsigned long)(after / 1000));
}

/* A startup that has next to nothing to do tells nothing of others. */
TEST_F_TIMEOUT(handoff, small_startup_is_no_sample, MIG_TIMEOUT)
{
	u64 before, after;

	handoff_teach(&self->a, 2, DELAY_MS, REMEMBERED);
	before = estimate_of_used(self);
	handoff_teach(&self->a, 0, 0, REMEMBERED + precopy_rounds(16));
	after = estimate_of_used(self);
	EXPECT_EQ(before, after);
}

static u32 flags_of(struct precopy_dev *pd)
{
	struct vfio_precopy_startup info;
	int fd;

	VFIO_ASSERT_EQ(mig_set_state(pd->dev, PRE_COPY, &fd), 0);
	VFIO_ASSERT_EQ(handoff_get(fd, &info), 0);
	VFIO_ASSERT_EQ(mig_set_state(pd->dev, RUNNING, NULL), 0);
	close(fd);
	return info.flags;
}

/* What one user's streams teach is told to no other user. */
TEST_F_TIMEOUT(handoff, samples_are_of_one_user, MIG_TIMEOUT)
{
	if (self->two)
		EXPECT_EQ(0, flags_of(&self->b));
	EXPECT_EQ(0, flags_of(&self->a));
	handoff_teach(&self->a, 2, 0, 1);
	EXPECT_EQ(MEASURED, flags_of(&self->a));
	if (self->two)
		EXPECT_EQ(0, flags_of(&self->b));
	/* The next one to open it is another. */
	close_a(self);
	open_a(self, SIZE);
	EXPECT_EQ(0, flags_of(&self->a));
}

/* ------------------------------------------------------------------------ */
/* What the administrator can limit                                         */

#define WORKQUEUE	"/sys/devices/virtual/workqueue/" PRECOPY_DRIVER "/"

/* One processor is enough for a startup. */
TEST_F_TIMEOUT(handoff, workers_can_be_limited, MIG_TIMEOUT)
{
	char all[256] = "";
	FILE *f;

	f = fopen(WORKQUEUE "cpumask", "r");
	ASSERT_NE(NULL, f);
	EXPECT_NE(NULL, fgets(all, sizeof(all), f));
	fclose(f);
	ASSERT_EQ(0, precopy_file_write(WORKQUEUE "cpumask", "1"));
	handoff_teach(&self->a, 2, 0, 1);
	EXPECT_EQ(0, precopy_file_write(WORKQUEUE "cpumask", all));
}

/* ------------------------------------------------------------------------ */
/* Who is told                                                              */

static void check_priority(struct __test_metadata *_metadata, handoff_t *self,
			   int error)
{
	u64 began;

	go_resuming(self);
	EXPECT_EQ(0, handoff_poll(self->fd, POLLPRI, 0));
	EXPECT_EQ(POLLOUT, handoff_poll(self->fd, POLLPRI | POLLOUT, 0));
	ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_fail", error));
	ASSERT_EQ(0, hold(true));
	began = precopy_now_ms();
	ASSERT_EQ(0, feed(self, 0, self->marks.barrier, NULL));
	EXPECT_EQ(0, handoff_poll(self->fd, POLLPRI, 0));
	EXPECT_EQ(STARTING, handoff_phase(self->fd));
	ASSERT_EQ(0, hold(false));
	EXPECT_EQ(POLLPRI | (error ? POLLERR : 0),
		  handoff_poll(self->fd, POLLPRI, PATIENCE_MS));
	/* When it was, and not when time was up. */
	EXPECT_LE(AT_LEAST_MS, precopy_now_ms() - began);
	EXPECT_GT(PATIENCE_MS, precopy_now_ms() - began);
	EXPECT_EQ(error ? FAILED : READY, handoff_phase(self->fd));
	/* As long as it is true. */
	EXPECT_EQ(POLLPRI | (error ? POLLERR : 0),
		  handoff_poll(self->fd, POLLPRI, 0));
	EXPECT_EQ(POLLPRI | POLLOUT | (error ? POLLERR : 0),
		  handoff_poll(self->fd, POLLPRI | POLLOUT, 0));
	ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_fail", 0));
}

TEST_F_TIMEOUT(handoff, poll_ready, MIG_TIMEOUT)
{
	save_some(self);
	ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_delay_ms", DELAY_MS));
	check_priority(_metadata, self, 0);
	finish_load(_metadata, self, self->marks.barrier);
	EXPECT_EQ(POLLPRI | POLLERR, handoff_poll(self->fd, POLLPRI, 0));
}

TEST_F_TIMEOUT(handoff, poll_failed, MIG_TIMEOUT)
{
	save_some(self);
	ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_delay_ms", DELAY_MS));
	check_priority(_metadata, self, ENOMEM);
	precopy_knob(bdfs[0], "startup_delay_ms", 0);
	works_after_reset(_metadata, self);
}

/* ------------------------------------------------------------------------ */
/* The barrier                                                              */

/* Everything in one write(), the data behind the barrier too. */
TEST_F_TIMEOUT(handoff, barrier_blocking, MIG_TIMEOUT)
{
	u64 began;

	save_some(self);
	ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_delay_ms", DELAY_MS));
	go_resuming(self);
	began = precopy_now_ms();
	EXPECT_EQ((ssize_t)self->stream.len,
		  write(self->fd, self->stream.data, self->stream.len));
	EXPECT_LE(AT_LEAST_MS, precopy_now_ms() - began);
	EXPECT_EQ(READY, handoff_phase(self->fd));
	finish_load(_metadata, self, self->stream.len);
}

TEST_F_TIMEOUT(handoff, barrier_nonblocking, MIG_TIMEOUT)
{
	size_t last = sizeof(struct wire_record) - 1, done;
	u64 began;

	save_some(self);
	go_resuming(self);
	ASSERT_EQ(0, hold(true));
	fcntl_set_nonblock(self->fd);
	done = self->marks.barrier + last;
	EXPECT_EQ((ssize_t)done,
		  write(self->fd, self->stream.data, self->stream.len));
	EXPECT_EQ(STARTING, handoff_phase(self->fd));
	EXPECT_EQ(-1, write(self->fd, self->stream.data + done, 1));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(-1, write(self->fd, self->stream.data + done,
			    self->stream.len - done));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(0, handoff_poll(self->fd, POLLPRI | POLLOUT, 0));
	ASSERT_EQ(0, hold(false));
	began = precopy_now_ms();
	EXPECT_EQ(POLLPRI | POLLOUT,
		  handoff_poll(self->fd, POLLPRI | POLLOUT, PATIENCE_MS));
	EXPECT_GT(PATIENCE_MS, precopy_now_ms() - began);
	EXPECT_EQ(READY, handoff_phase(self->fd));
	EXPECT_EQ((ssize_t)(self->stream.len - done),
		  write(self->fd, self->stream.data + done,
			self->stream.len - done));
	finish_load(_metadata, self, self->stream.len);
}

struct writer {
	handoff_t *self;
	size_t from;
	pthread_t thread;
	volatile bool ended;
	size_t done;
	int ret;
};

static void *writer_thread(void *arg)
{
	struct writer *w = arg;

	w->ret = feed(w->self, w->from, w->self->stream.len, &w->done);
	w->ended = true;
	return NULL;
}

/* Somebody's write() is where it has to wait for the startup. */
static bool wait_at_barrier(handoff_t *self)
{
	u64 end = precopy_now_ms() + PATIENCE_MS;

	while (handoff_poll(self->fd, POLLOUT, 0)) {
		if (precopy_now_ms() > end)
			return false;
		usleep(1000);
	}
	return true;
}

/* A blocked writer holds up no question, and no second writer gets ahead. */
TEST_F_TIMEOUT(handoff, barrier_two_writers, MIG_TIMEOUT)
{
	struct writer w = { .self = self };

	save_some(self);
	go_resuming(self);
	ASSERT_EQ(0, hold(true));
	ASSERT_EQ(0, pthread_create(&w.thread, NULL, writer_thread, &w));
	ASSERT_TRUE(wait_at_barrier(self));
	EXPECT_EQ(STARTING, handoff_phase(self->fd));
	EXPECT_FALSE(w.ended);
	fcntl_set_nonblock(self->fd);
	EXPECT_EQ(-1, write(self->fd, self->stream.data, 1));
	EXPECT_EQ(EAGAIN, errno);
	ASSERT_EQ(0, hold(false));
	ASSERT_EQ(0, pthread_join(w.thread, NULL));
	EXPECT_EQ(0, w.ret);
	finish_load(_metadata, self, self->stream.len);
}

/* Whoever waits in the kernel can be killed there. */
static void kill_waiting(struct __test_metadata *_metadata, pid_t child)
{
	u64 began;
	int status;

	usleep(SETTLE_US);
	ASSERT_EQ(0, kill(child, SIGKILL));
	began = precopy_now_ms();
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status));
	EXPECT_GT(PATIENCE_MS, precopy_now_ms() - began);
}

/*
 * A writer that dies at the barrier takes nothing with it: what it wrote
 * counts, and whoever has the fd as well goes on from there.
 */
TEST_F_TIMEOUT(handoff, writer_killed_at_barrier, MIG_TIMEOUT)
{
	u64 before, done;
	pid_t child;

	save_some(self);
	go_resuming(self);
	ASSERT_EQ(0, hold(true));
	before = handoff_stat(bdfs[0], "loaded_bytes");
	ASSERT_EQ(0, feed(self, 0, self->marks.barrier, NULL));
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		feed(self, self->marks.barrier, self->stream.len, NULL);
		_exit(0);
	}
	ASSERT_TRUE(wait_at_barrier(self));
	kill_waiting(_metadata, child);
	EXPECT_EQ(STARTING, handoff_phase(self->fd));
	done = handoff_stat(bdfs[0], "loaded_bytes") - before;
	EXPECT_EQ(self->marks.barrier + sizeof(struct wire_record) - 1, done);
	ASSERT_EQ(0, hold(false));
	EXPECT_TRUE(handoff_wait(self->fd, VFIO_PRECOPY_PHASE_READY));
	finish_load(_metadata, self, done);
}

/* ------------------------------------------------------------------------ */
/* What ends a startup early                                                */

/* Target with real work under way, and a delay that no test can wait for. */
static void go_starting(handoff_t *self)
{
	VFIO_ASSERT_EQ(precopy_knob(bdfs[0], "startup_delay_ms", LONG_MS), 0);
	wire_free(&self->wire);
	wire_init(&self->wire, bdfs[0], self->a.size);
	wire_put_header(&self->wire);
	handoff_put_preface(&self->wire,
			    (self->a.size + WIRE_UNIT - 1) / WIRE_UNIT);
	go_resuming(self);
	VFIO_ASSERT_EQ(mig_write_all(self->fd, self->wire.stream.data,
				     self->wire.stream.len, SZ_64K, NULL), 0);
	VFIO_ASSERT_EQ(handoff_phase(self->fd), STARTING);
}

static void check_fd_dead(struct __test_metadata *_metadata, int fd)
{
	EXPECT_EQ(-ENODEV, handoff_phase(fd));
	EXPECT_EQ(POLLPRI | POLLERR, handoff_poll(fd, POLLPRI, 0));
	EXPECT_EQ(-1, write(fd, "", 1));
	EXPECT_EQ(ENODEV, errno);
}

/* Its memory goes, soon, and none comes after. */
static void check_memory_gone(struct __test_metadata *_metadata)
{
	u64 end = precopy_now_ms() + PATIENCE_MS;

	while (handoff_stat(bdfs[0], "bytes_in_use") && precopy_now_ms() < end)
		usleep(1000);
	usleep(SETTLE_US);
	EXPECT_EQ(0, handoff_stat(bdfs[0], "bytes_in_use"));
}

static void *poll_thread(void *arg)
{
	struct writer *w = arg;

	w->ret = handoff_poll(w->self->fd, POLLPRI, LONG_MS);
	w->ended = true;
	return NULL;
}

TEST_F_TIMEOUT(handoff, reset_while_starting, MIG_TIMEOUT)
{
	struct writer w = { .self = self };
	u64 began, startups;
	int i;

	close_a(self);
	open_a(self, BIG);
	startups = handoff_stat(bdfs[0], "startups");
	for (i = 0; i < 3; i++) {
		/* In the middle of the work, at its end, during the delay. */
		go_starting(self);
		usleep(i * SETTLE_US / 2);
		w.ended = false;
		ASSERT_EQ(0, pthread_create(&w.thread, NULL, poll_thread, &w));
		usleep(i * SETTLE_US / 2);
		EXPECT_FALSE(w.ended);
		began = precopy_now_ms();
		precopy_reset(&self->a);
		ASSERT_EQ(0, pthread_join(w.thread, NULL));
		EXPECT_EQ(POLLPRI | POLLERR, w.ret);
		EXPECT_GT(PATIENCE_MS, precopy_now_ms() - began);
		EXPECT_EQ(RUNNING, mig_get_state(self->a.dev));
		check_fd_dead(_metadata, self->fd);
		check_memory_gone(_metadata);
	}
	EXPECT_EQ(startups, handoff_stat(bdfs[0], "startups"));
	close_a(self);
	open_a(self, SIZE);
	works_after_reset(_metadata, self);
}

/* Reads the other's BAR, and says so with 0, unless it is killed. */
static pid_t reader_of(pid_t pid, void *from)
{
	struct iovec local, remote = { from, sizeof(u64) };
	u64 word = ~0ULL;
	pid_t child;

	child = fork();
	if (child)
		return child;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	local.iov_base = &word;
	local.iov_len = sizeof(word);
	_exit(process_vm_readv(pid, &local, 1, &remote, 1, 0) !=
	      sizeof(word) || word);
}

/* The kernel reads for another process: it waits too, and can be killed. */
TEST_F_TIMEOUT(handoff, others_wait_for_the_startup, MIG_TIMEOUT)
{
	int status, i;
	pid_t child;

	for (i = 0; i < 2; i++) {
		u64 waited = handoff_stat(bdfs[0], "waited_faults");
		u64 end = precopy_now_ms() + PATIENCE_MS;

		go_starting(self);
		child = reader_of(getpid(), self->a.bar);
		ASSERT_LT(0, child);
		while (handoff_stat(bdfs[0], "waited_faults") == waited &&
		       precopy_now_ms() < end)
			usleep(1000);
		EXPECT_EQ(waited + 1, handoff_stat(bdfs[0], "waited_faults"));
		EXPECT_EQ(0, waitpid(child, &status, WNOHANG));
		if (!i)
			kill(child, SIGKILL);
		else
			precopy_reset(&self->a);
		ASSERT_EQ(child, waitpid(child, &status, 0));
		EXPECT_EQ(i ? 0 : SIGKILL, status);
		EXPECT_GT(LONG_MS, precopy_now_ms() + PATIENCE_MS - end);
		precopy_reset(&self->a);
	}
	ASSERT_EQ(0, precopy_knob(bdfs[0], "startup_delay_ms", 0));
	works_after_reset(_metadata, self);
}

TEST_F_TIMEOUT(handoff, close_while_starting, MIG_TIMEOUT)
{
	u64 began, startups = handoff_stat(bdfs[0], "startups");

	close_a(self);
	open_a(self, BIG);
	go_starting(self);
	began = precopy_now_ms();
	close_a(self);
	EXPECT_GT(PATIENCE_MS, precopy_now_ms() - began);
	check_fd_dead(_metadata, self->fd);
	check_memory_gone(_metadata);
	EXPECT_EQ(startups, handoff_stat(bdfs[0], "startups"));
	open_a(self, SIZE);
	/* The fd has nothing to do with what is open now. */
	check_fd_dead(_metadata, self->fd);
	works_after_reset(_metadata, self);
}

#define UNBIND	"drivers/" PRECOPY_DRIVER "/unbind"

TEST_F_TIMEOUT(handoff, unbind_while_starting, MIG_TIMEOUT)
{
	u64 began;

	go_starting(self);
	began = precopy_now_ms();
	close_a(self);
	ASSERT_EQ(0, handoff_pci_write(UNBIND, bdfs[0]));
	EXPECT_GT(PATIENCE_MS, precopy_now_ms() - began);
	check_fd_dead(_metadata, self->fd);
	ASSERT_EQ(0, handoff_pci_write("drivers_probe", bdfs[0]));
	open_a(self, SIZE);
	check_fd_dead(_metadata, self->fd);
	works_after_reset(_metadata, self);
}

/* The same with the fd of a source. */
TEST_F_TIMEOUT(handoff, source_ends, MIG_TIMEOUT)
{
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &self->fd));
	EXPECT_EQ(WAITING, handoff_phase(self->fd));
	precopy_reset(&self->a);
	EXPECT_EQ(-ENODEV, handoff_phase(self->fd));
	close(self->fd);

	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, &self->fd));
	EXPECT_EQ(WAITING, handoff_phase(self->fd));
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP, NULL));
	EXPECT_EQ(-ENODEV, handoff_phase(self->fd));
	close(self->fd);

	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, &self->fd));
	close_a(self);
	EXPECT_EQ(-ENODEV, handoff_phase(self->fd));
	ASSERT_EQ(0, handoff_pci_write(UNBIND, bdfs[0]));
	EXPECT_EQ(-ENODEV, handoff_phase(self->fd));
	ASSERT_EQ(0, handoff_pci_write("drivers_probe", bdfs[0]));
	open_a(self, SIZE);
	EXPECT_EQ(-ENODEV, handoff_phase(self->fd));
}

/* ------------------------------------------------------------------------ */
/* Whom a startup does not delay                                            */

static void check_other_device(struct __test_metadata *_metadata,
			       handoff_t *self)
{
	struct mig_stream stream = {};
	u64 startups = handoff_stat(bdfs[1], "startups");

	precopy_fill(&self->b, 0, 100, 7, BY_MMAP);
	ASSERT_EQ(0, mig_save(self->b.dev, &stream));
	ASSERT_EQ(0, mig_set_state(self->b.dev, STOP, NULL));
	ASSERT_EQ(0, mig_load(self->b.dev, &stream, SZ_64K));
	EXPECT_EQ(0, precopy_differ(&self->b, self->b.shadow));
	EXPECT_EQ(startups + 1, handoff_stat(bdfs[1], "startups"));
	mig_stream_free(&stream);
}

TEST_F_TIMEOUT(handoff, startup_delays_nobody, MIG_TIMEOUT)
{
	char word[32];
	u64 size, began;
	int i;

	close_a(self);
	open_a(self, BIG);
	for (i = 0; i < 2; i++) {
		/* Once while it works, and once while it only waits. */
		go_starting(self);
		if (i)
			usleep(5 * SETTLE_US);
		began = precopy_now_ms();
		EXPECT_EQ(RESUMING, mig_get_state(self->a.dev));
		EXPECT_EQ(0, mig_data_size(self->a.dev, &size));
		EXPECT_EQ(0, precopy_sysfs_read(bdfs[0], "startup", word, 32));
		EXPECT_STREQ("starting", word);
		handoff_stat(bdfs[0], "bytes_in_use");
		if (self->two)
			check_other_device(_metadata, self);
		EXPECT_EQ(STARTING, handoff_phase(self->fd));
		precopy_reset(&self->a);
		EXPECT_EQ(RUNNING, mig_get_state(self->a.dev));
		/* A quarter of what the startup would have taken. */
		EXPECT_GT(PATIENCE_MS, precopy_now_ms() - began);
	}
}

/* ------------------------------------------------------------------------ */
/* The other knobs                                                          */

static int timed_set(handoff_t *self, u32 state, u64 *ms)
{
	u64 began = precopy_now_ms();
	int fd, ret;

	ret = mig_set_state(self->a.dev, state, &fd);
	*ms = precopy_now_ms() - began;
	if (!ret && fd >= 0) {
		if (self->fd >= 0)
			close(self->fd);
		self->fd = fd;
	}
	return ret;
}

/* Each stop, and nothing but a stop. */
TEST_F_TIMEOUT(handoff, slow_stop, MIG_TIMEOUT)
{
	static const struct {
		u32 to;
		bool stops;
	} steps[] = {
		{ RUNNING_P2P, false }, { STOP, true }, { RUNNING, false },
		{ STOP, true }, { RUNNING_P2P, false }, { PRE_COPY, false },
		{ PRE_COPY_P2P, false }, { STOP_COPY, true }, { STOP, false },
		{ RUNNING, false }, { PRE_COPY, false }, { STOP_COPY, true },
		{ STOP, false },
	};
	unsigned int i;
	u64 ms;

	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		ASSERT_EQ(0, precopy_knob(bdfs[0], "slow_stop_ms",
					  steps[i].stops ? DELAY_MS : LONG_MS));
		ASSERT_EQ(0, timed_set(self, steps[i].to, &ms));
		EXPECT_GT(PATIENCE_MS, ms) TH_LOG("step %u", i);
		if (steps[i].stops)
			EXPECT_LE(AT_LEAST_MS, ms) TH_LOG("step %u", i);
		EXPECT_EQ((int)steps[i].to, mig_get_state(self->a.dev));
	}
	precopy_knob(bdfs[0], "slow_stop_ms", 0);
	works_after_reset(_metadata, self);
}

struct setter {
	handoff_t *self;
	u32 to;
	pthread_t thread;
	volatile pid_t tid;
	volatile bool ended;
	int ret;
};

static void *setter_thread(void *arg)
{
	struct setter *s = arg;

	s->tid = gettid();
	s->ret = mig_set_state(s->self->a.dev, s->to, NULL);
	s->ended = true;
	return NULL;
}

/* Data may be read meanwhile, and what is written meanwhile is not lost. */
TEST_F_TIMEOUT(handoff, slow_stop_of_a_source, MIG_TIMEOUT)
{
	struct setter s = { .self = self, .to = STOP_COPY };

	precopy_fill(&self->a, 0, 20, 1, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY_P2P, &self->fd));
	ASSERT_EQ(0, hold(true));
	ASSERT_EQ(0, pthread_create(&s.thread, NULL, setter_thread, &s));
	ASSERT_TRUE(precopy_wait_blocked(&s.tid, __NR_ioctl, &s.ended));
	EXPECT_EQ(PRE_COPY_P2P, mig_get_state(self->a.dev));
	EXPECT_EQ(-ENOMSG, mig_stream_drain(&self->stream, self->fd, SZ_64K));
	precopy_fill(&self->a, 10, 20, 2, BY_MMAP);
	precopy_fill(&self->a, 600, 3, 2, BY_PWRITE);
	EXPECT_FALSE(s.ended);
	ASSERT_EQ(0, hold(false));
	ASSERT_EQ(0, pthread_join(s.thread, NULL));
	EXPECT_EQ(0, s.ret);
	ASSERT_EQ(0, mig_stream_drain(&self->stream, self->fd, SZ_64K));
	ASSERT_LT(0, wire_walk(&self->stream, NULL, NULL));
	if (!self->two)
		return;
	ASSERT_EQ(0, mig_load(self->b.dev, &self->stream, SZ_64K));
	EXPECT_EQ(0, precopy_differ(&self->b, self->a.shadow));
}

TEST_F_TIMEOUT(handoff, slow_stop_reset, MIG_TIMEOUT)
{
	static const u32 from[] = { RUNNING_P2P, PRE_COPY_P2P };
	unsigned int i;
	u64 began;

	ASSERT_EQ(0, precopy_knob(bdfs[0], "slow_stop_ms", LONG_MS));
	for (i = 0; i < ARRAY_SIZE(from); i++) {
		struct setter s = { .self = self, .to = STOP_COPY };

		ASSERT_EQ(0, mig_set_state(self->a.dev, from[i], NULL));
		ASSERT_EQ(0, pthread_create(&s.thread, NULL, setter_thread,
					    &s));
		ASSERT_TRUE(precopy_wait_blocked(&s.tid, __NR_ioctl, &s.ended));
		/* Nobody who only asks waits for who stops. */
		EXPECT_EQ((int)from[i], mig_get_state(self->a.dev));
		began = precopy_now_ms();
		precopy_reset(&self->a);
		ASSERT_EQ(0, pthread_join(s.thread, NULL));
		EXPECT_EQ(-ECANCELED, s.ret);
		EXPECT_GT(PATIENCE_MS, precopy_now_ms() - began);
		EXPECT_EQ(RUNNING, mig_get_state(self->a.dev));
	}
	precopy_knob(bdfs[0], "slow_stop_ms", 0);
	works_after_reset(_metadata, self);
}

/* Who is killed has not stopped it; the next one does. */
TEST_F_TIMEOUT(handoff, slow_stop_killed, MIG_TIMEOUT)
{
	static const u32 from[] = { RUNNING_P2P, PRE_COPY_P2P };
	unsigned int i;
	pid_t child;
	int fd;

	for (i = 0; i < ARRAY_SIZE(from); i++) {
		precopy_reset(&self->a);
		ASSERT_EQ(0, mig_set_state(self->a.dev, from[i], &fd));
		ASSERT_EQ(0, precopy_knob(bdfs[0], "slow_stop_ms", LONG_MS));
		child = fork();
		ASSERT_LE(0, child);
		if (!child) {
			mig_set_state(self->a.dev, STOP_COPY, NULL);
			_exit(0);
		}
		kill_waiting(_metadata, child);
		EXPECT_EQ((int)from[i], mig_get_state(self->a.dev));
		precopy_knob(bdfs[0], "slow_stop_ms", 0);
		EXPECT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
		if (fd >= 0)
			close(fd);
	}
	works_after_reset(_metadata, self);
}

/* So many bytes of the stream, then errors, and without the knob the rest. */
TEST_F_TIMEOUT(handoff, fail_save_at, MIG_TIMEOUT)
{
	struct mig_stream part = {};
	size_t at[5], i;
	int fd;

	save_some(self);
	at[0] = 1;
	at[1] = self->marks.preface_end;
	at[2] = self->marks.barrier - 5000;
	at[3] = self->marks.barrier + 1;
	at[4] = self->stream.len - 1;
	for (i = 0; i < ARRAY_SIZE(at); i++) {
		ASSERT_EQ(0, mig_set_state(self->a.dev, STOP, NULL));
		ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, &fd));
		ASSERT_EQ(0, precopy_knob(bdfs[0], "fail_save_at", at[i]));
		part.len = 0;
		EXPECT_EQ(-EIO, mig_stream_drain(&part, fd, SZ_64K));
		EXPECT_EQ(at[i], part.len);
		EXPECT_EQ(-EIO, mig_stream_drain(&part, fd, 1));
		EXPECT_EQ(STOP_COPY, mig_get_state(self->a.dev));
		ASSERT_EQ(0, precopy_knob(bdfs[0], "fail_save_at", 0));
		EXPECT_EQ(0, mig_stream_drain(&part, fd, SZ_64K));
		EXPECT_EQ(self->stream.len, part.len);
		EXPECT_LT(0, wire_walk(&part, NULL, NULL));
		close(fd);
	}
	/* A source that failed goes on, and is none the worse for it. */
	ASSERT_EQ(0, precopy_knob(bdfs[0], "fail_save_at", 100));
	ASSERT_EQ(0, mig_set_state(self->a.dev, RUNNING, NULL));
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &fd));
	part.len = 0;
	EXPECT_EQ(-EIO, mig_stream_drain(&part, fd, SZ_64K));
	ASSERT_EQ(0, mig_set_state(self->a.dev, RUNNING, NULL));
	close(fd);
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	precopy_knob(bdfs[0], "fail_save_at", 0);
	mig_stream_free(&part);
	works_after_reset(_metadata, self);
}

TEST_F_TIMEOUT(handoff, fail_load_at, MIG_TIMEOUT)
{
	struct vfio_precopy_startup info;
	size_t at[5], done, i;

	save_some(self);
	at[0] = 1;
	at[1] = self->marks.preface_end;
	at[2] = self->marks.barrier - 5000;
	at[3] = self->marks.barrier + sizeof(struct wire_record) - 1;
	at[4] = self->stream.len - 1;
	for (i = 0; i < ARRAY_SIZE(at); i++) {
		go_resuming(self);
		ASSERT_EQ(0, precopy_knob(bdfs[0], "fail_load_at", at[i]));
		EXPECT_EQ(-EIO, feed(self, 0, self->stream.len, &done));
		/* A short write() is not seen here, as bytes come by 64 KiB. */
		EXPECT_EQ(at[i], done);
		ASSERT_EQ(0, handoff_get(self->fd, &info));
		EXPECT_EQ(FAILED, (int)info.phase);
		EXPECT_EQ(EIO, (int)info.error);
		/* Sticky. */
		ASSERT_EQ(0, precopy_knob(bdfs[0], "fail_load_at", 0));
		EXPECT_EQ(-EIO, feed(self, done, self->stream.len, NULL));
		EXPECT_EQ(-EIO, mig_set_state(self->a.dev, STOP, NULL));
		EXPECT_EQ(RESUMING, mig_get_state(self->a.dev));
	}
	/* Beyond the end it has no effect. */
	ASSERT_EQ(0, precopy_knob(bdfs[0], "fail_load_at", self->stream.len));
	go_resuming(self);
	finish_load(_metadata, self, 0);
}

TEST_F_TIMEOUT(handoff, data_size, MIG_TIMEOUT)
{
	static const u64 sizes[] = { 1, SZ_1G, 1ULL << 40, ~0ULL };
	static const u32 states[] = { RUNNING, PRE_COPY, STOP_COPY };
	u64 truth, size;
	unsigned int i, k;

	precopy_fill(&self->a, 0, 40, 1, BY_MMAP);
	for (k = 0; k < ARRAY_SIZE(states); k++) {
		ASSERT_EQ(0, mig_set_state(self->a.dev, states[k], NULL));
		ASSERT_EQ(0, mig_data_size(self->a.dev, &truth));
		for (i = 0; i < ARRAY_SIZE(sizes); i++) {
			ASSERT_EQ(0, precopy_knob(bdfs[0], "data_size",
						  sizes[i]));
			ASSERT_EQ(0, mig_data_size(self->a.dev, &size));
			EXPECT_EQ(sizes[i], size);
			/* One device's lie is not the other's. */
			if (!self->two)
				continue;
			ASSERT_EQ(0, mig_data_size(self->b.dev, &size));
			EXPECT_EQ(SZ_1M, size);
		}
		ASSERT_EQ(0, precopy_knob(bdfs[0], "data_size", 0));
		ASSERT_EQ(0, mig_data_size(self->a.dev, &size));
		EXPECT_EQ(truth, size);
	}
	works_after_reset(_metadata, self);
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
