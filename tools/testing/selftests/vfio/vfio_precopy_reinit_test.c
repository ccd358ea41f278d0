// SPDX-License-Identifier: GPL-2.0-only
/*
 * VFIO_PRECOPY_INFO_REINIT: initial data comes once more in the same stream. Who
 * is told and who is not, what the counters say, that no store is lost by it
 * wherever in the stream it happens, and that the target starts again.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>
#include <linux/vfio_precopy.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_handoff.h>
#include <libvfio/precopy_replica.h>
#include <libvfio/precopy_states.h>
#include <libvfio/precopy_stream.h>
#include <libvfio/slow_file.h>
#include <libvfio/stamp_writer.h>

#include <libvfio/mig_harness.h>

#define REINIT		VFIO_PRECOPY_INFO_REINIT

#define SIZE		SZ_4M
#define NR_PAGES	(SIZE / PRECOPY_PAGE)
#define CHUNK		SZ_64K
#define DELAY_MS	300
#define LONG_MS		HANDOFF_LONG_MS
#define RECORD		sizeof(struct wire_record)

static char **bdfs;
static int nr_bdfs;

FIXTURE(reinit) {
	struct precopy_dev a;
	struct precopy_dev b;
	struct mig_stream stream;
	int fd;				/* of a */
	int to_fd;			/* of b */
};

typedef FIXTURE_DATA(reinit) reinit_t;

FIXTURE_SETUP(reinit)
{
	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	if (!precopy_has_knob(bdfs[0], "reinit"))
		SKIP(return, "no test knob reinit in debugfs");
	self->fd = -1;
	self->to_fd = -1;
	precopy_open(&self->a, bdfs[0], NULL, SIZE);
	precopy_open(&self->b, bdfs[1], NULL, SIZE);
	if (!mig_kernel_has_info_v2(self->a.dev))
		SKIP(return, "the kernel has no MIG_PRECOPY_INFOv2");
}

FIXTURE_TEARDOWN(reinit)
{
	if (self->fd >= 0)
		close(self->fd);
	if (self->to_fd >= 0)
		close(self->to_fd);
	mig_stream_free(&self->stream);
	precopy_close(&self->a);
	precopy_close(&self->b);
}

static int reinit_now(void)
{
	return precopy_knob(bdfs[0], "reinit", 1);
}

static struct vfio_precopy_info info_of(int fd)
{
	struct vfio_precopy_info info = {
		.flags = ~0U, .initial_bytes = ~0ULL, .dirty_bytes = ~0ULL,
	};

	VFIO_ASSERT_EQ(mig_precopy_info(fd, &info), 0);
	return info;
}

/* Some contents, in pre-copy, by a user who has opted in; nothing is read. */
static void begin(reinit_t *self)
{
	precopy_fill(&self->a, 0, 100, 1, BY_MMAP);
	precopy_fill(&self->a, 600, 20, 1, BY_PWRITE);
	VFIO_ASSERT_EQ(mig_precopy_v2_enable(self->a.dev), 0);
	VFIO_ASSERT_EQ(mig_set_state(self->a.dev, PRE_COPY, &self->fd), 0);
}

static void drain(reinit_t *self)
{
	VFIO_ASSERT_EQ(mig_stream_drain(&self->stream, self->fd, CHUNK),
		       -ENOMSG);
}

/* The end of the stream, and what it makes of the other device. */
static void finish(struct __test_metadata *_metadata, reinit_t *self,
		   unsigned int times)
{
	u64 startups = handoff_stat(bdfs[1], "startups");
	struct handoff_marks marks;

	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
	ASSERT_EQ(0, mig_stream_drain(&self->stream, self->fd, CHUNK));
	ASSERT_LT(0, wire_walk(&self->stream, NULL, NULL));
	handoff_marks(&self->stream, &marks);
	EXPECT_EQ(1 + times, marks.prefaces);
	EXPECT_EQ(1 + times, marks.initial_ends);
	ASSERT_EQ(0, mig_load(self->b.dev, &self->stream, CHUNK));
	EXPECT_EQ(0, precopy_differ(&self->b, self->a.shadow));
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	EXPECT_EQ(startups + 1 + times, handoff_stat(bdfs[1], "startups"));
}

/* ------------------------------------------------------------------------ */
/* To whom and when                                                         */

/* Who has not opted in would not understand, and is spared. */
TEST_F_TIMEOUT(reinit, needs_opt_in, MIG_TIMEOUT)
{
	precopy_fill(&self->a, 0, 10, 1, BY_MMAP);
	EXPECT_EQ(-EINVAL, reinit_now());
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &self->fd));
	EXPECT_EQ(-EINVAL, reinit_now());
	drain(self);
	EXPECT_EQ(-EINVAL, reinit_now());
	EXPECT_EQ(0, info_of(self->fd).flags);
	EXPECT_EQ(0, info_of(self->fd).initial_bytes);
	drain(self);

	/* From the moment on at which they do. */
	ASSERT_EQ(0, mig_precopy_v2_enable(self->a.dev));
	EXPECT_EQ(0, info_of(self->fd).flags);
	EXPECT_EQ(0, reinit_now());
	EXPECT_EQ(REINIT, info_of(self->fd).flags);
	drain(self);
	finish(_metadata, self, 1);
}

/* A reset does not take the opting in back, but a close does. */
TEST_F_TIMEOUT(reinit, opt_in_lasts, MIG_TIMEOUT)
{
	begin(self);
	precopy_reset(&self->a);
	close(self->fd);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &self->fd));
	drain(self);
	EXPECT_EQ(0, reinit_now());

	precopy_close(&self->a);
	EXPECT_EQ(-EINVAL, reinit_now());
	precopy_open(&self->a, bdfs[0], NULL, SIZE);
	close(self->fd);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &self->fd));
	drain(self);
	EXPECT_EQ(-EINVAL, reinit_now());
}

/* In pre-copy states only. */
TEST_F_TIMEOUT(reinit, needs_precopy, MIG_TIMEOUT)
{
	static const u8 states[] = { RUNNING, VFIO_DEVICE_STATE_RUNNING_P2P,
				     STOP, STOP_COPY, RESUMING };
	unsigned int i;

	ASSERT_EQ(0, mig_precopy_v2_enable(self->a.dev));
	precopy_fill(&self->a, 0, 10, 1, BY_MMAP);
	for (i = 0; i < ARRAY_SIZE(states); i++) {
		ASSERT_EQ(0, mig_set_state(self->a.dev, states[i], NULL));
		EXPECT_EQ(-EINVAL, reinit_now()) TH_LOG("state %u", states[i]);
	}
}

/* Not before the first initial data is made, wherever in it the reader is. */
TEST_F_TIMEOUT(reinit, too_early, MIG_TIMEOUT)
{
	struct handoff_marks marks;

	begin(self);
	EXPECT_EQ(-EAGAIN, reinit_now());
	/* Header, PREFACE, and data but for the last of begin()'s 120 pages. */
	while (self->stream.len < 117 * PRECOPY_PAGE) {
		EXPECT_EQ(-EAGAIN, reinit_now());
		EXPECT_EQ(0, info_of(self->fd).flags);
		ASSERT_LT(0, mig_stream_read(&self->stream, self->fd,
					     self->stream.len < 300 ? 60 : 9000));
	}
	/* And in between: what is left is still the first. */
	while (reinit_now() == -EAGAIN) {
		EXPECT_EQ(0, info_of(self->fd).flags);
		/* Less than a record header */
		ASSERT_LT(0, mig_stream_read(&self->stream, self->fd, 16));
	}
	/* INITIAL_END is made; part of it is still to be read. */
	handoff_marks(&self->stream, &marks);
	EXPECT_EQ(0, marks.initial_ends);
	EXPECT_EQ(REINIT, info_of(self->fd).flags);
	drain(self);
	finish(_metadata, self, 1);
}

/* And the second time the same. */
TEST_F_TIMEOUT(reinit, too_early_again, MIG_TIMEOUT)
{
	begin(self);
	drain(self);
	ASSERT_EQ(0, reinit_now());
	EXPECT_EQ(-EAGAIN, reinit_now());
	ASSERT_LT(0, mig_stream_read(&self->stream, self->fd, 9000));
	EXPECT_EQ(-EAGAIN, reinit_now());
	EXPECT_EQ(REINIT, info_of(self->fd).flags);
	drain(self);
	EXPECT_EQ(0, reinit_now());
	drain(self);
	finish(_metadata, self, 2);
}

/* ------------------------------------------------------------------------ */
/* What the counters say                                                    */

/* No page is all zero, so all of it is exact. */
TEST_F_TIMEOUT(reinit, counters, MIG_TIMEOUT)
{
	struct vfio_precopy_info info;
	u64 initial, size;
	size_t from;

	begin(self);
	drain(self);
	precopy_fill(&self->a, 5, 30, 2, BY_MMAP);
	precopy_fill(&self->a, 300, 5, 2, BY_PWRITE);
	info = info_of(self->fd);
	EXPECT_EQ(0, info.flags);
	EXPECT_LE(35 * PRECOPY_PAGE, info.dirty_bytes);
	EXPECT_EQ(0, info.initial_bytes);

	ASSERT_EQ(0, reinit_now());
	from = self->stream.len;
	info = info_of(self->fd);
	initial = info.initial_bytes;
	/* All that is in use, and not only what was dirty. */
	EXPECT_LE(125 * PRECOPY_PAGE, initial);
	ASSERT_EQ(0, mig_data_size(self->a.dev, &size));
	EXPECT_LT(initial, size);
	EXPECT_EQ(initial, precopy_sysfs_u64(bdfs[0], "initial_bytes"));
	EXPECT_EQ(POLLIN, handoff_poll(self->fd, POLLIN, 0));
	for (;;) {
		info = info_of(self->fd);
		EXPECT_EQ(0, info.dirty_bytes);
		if (!(info.flags & REINIT))
			break;
		/* Never too low; zero only when the flag goes. */
		EXPECT_LT(0, info.initial_bytes);
		EXPECT_GE(initial - (self->stream.len - from),
			  info.initial_bytes);
		ASSERT_LT(0, mig_stream_read(&self->stream, self->fd, 4567));
	}
	EXPECT_EQ(0, info.initial_bytes);
	/* Not a byte before the end of the new initial data, nor after it. */
	EXPECT_EQ(-ENOMSG, mig_stream_read(&self->stream, self->fd, 1));
	EXPECT_EQ(0, handoff_poll(self->fd, POLLIN, 0));
	finish(_metadata, self, 1);
}

/* With all of the memory used and none of it zero, to the byte. */
TEST_F_TIMEOUT(reinit, counters_exact, MIG_TIMEOUT)
{
	u64 initial, size;
	size_t from;

	precopy_fill(&self->a, 0, NR_PAGES, 1, BY_MMAP);
	begin(self);
	drain(self);
	ASSERT_EQ(0, reinit_now());
	from = self->stream.len;
	initial = info_of(self->fd).initial_bytes;
	ASSERT_EQ(0, mig_data_size(self->a.dev, &size));
	while (info_of(self->fd).flags & REINIT) {
		EXPECT_EQ(initial - (self->stream.len - from),
			  info_of(self->fd).initial_bytes);
		ASSERT_LT(0, mig_stream_read(&self->stream, self->fd, 98765));
	}
	drain(self);
	EXPECT_EQ(initial, self->stream.len - from);
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
	ASSERT_EQ(0, mig_stream_drain(&self->stream, self->fd, CHUNK));
	EXPECT_EQ(size, self->stream.len - from);
}

/* The source tells anew what the target will have to do. */
TEST_F_TIMEOUT(reinit, source_asked, MIG_TIMEOUT)
{
	struct vfio_precopy_startup before, info;
	struct handoff_marks marks;
	size_t from;

	handoff_teach(&self->a, 2, DELAY_MS / 8, 8);
	begin(self);
	drain(self);
	EXPECT_NE((int)VFIO_PRECOPY_PHASE_WAITING, handoff_phase(self->fd));
	precopy_fill(&self->a, 0, NR_PAGES, 2, BY_MMAP);
	ASSERT_EQ(0, reinit_now());
	from = self->stream.len;
	ASSERT_EQ(0, handoff_get(self->fd, &before));
	EXPECT_EQ(SIZE, before.bytes_in_use);
	do {
		ASSERT_EQ(0, handoff_get(self->fd, &info));
		EXPECT_EQ(0, memcmp(&before, &info, sizeof(info)));
		ASSERT_EQ(VFIO_PRECOPY_PHASE_WAITING, info.phase);
		ASSERT_EQ(1, mig_stream_read(&self->stream, self->fd, 1));
		handoff_marks(&self->stream, &marks);
	} while (marks.prefaces < 2);
	EXPECT_EQ(marks.preface_end, self->stream.len);
	EXPECT_LT(from, marks.preface_end);
	EXPECT_EQ(before.remaining_ns, marks.startup_ns);
	EXPECT_EQ(before.bytes_in_use, marks.bytes_in_use);
	EXPECT_NE((int)VFIO_PRECOPY_PHASE_WAITING, handoff_phase(self->fd));
	drain(self);
	finish(_metadata, self, 1);
}

/* ------------------------------------------------------------------------ */
/* Nothing is lost                                                          */

/* Stores before, during and after; what was sent, what was not, what is new. */
TEST_F_TIMEOUT(reinit, stores_between, MIG_TIMEOUT)
{
	begin(self);
	drain(self);
	precopy_fill(&self->a, 10, 20, 2, BY_MMAP);
	precopy_fill(&self->a, 200, 20, 2, BY_PWRITE);
	ASSERT_EQ(0, reinit_now());
	precopy_fill(&self->a, 15, 20, 3, BY_MMAP);
	precopy_fill(&self->a, 400, 4, 3, BY_PWRITE);
	ASSERT_LT(0, mig_stream_read(&self->stream, self->fd, 50 * 4096));
	/* Of these some are out for the second time, others are not. */
	precopy_fill(&self->a, 0, 100, 4, BY_MMAP);
	precopy_fill(&self->a, 198, 8, 4, BY_PWRITE);
	ASSERT_LT(0, mig_stream_read(&self->stream, self->fd, 9999));
	precopy_fill(&self->a, 30, 10, 5, BY_MMAP);
	drain(self);
	precopy_fill(&self->a, 3, 1, 6, BY_MMAP);
	precopy_fill(&self->a, 900, 2, 6, BY_MMAP);
	finish(_metadata, self, 1);
}

/* What was sent as data is zero by then: it must not stay at the target. */
TEST_F_TIMEOUT(reinit, zeroed_between, MIG_TIMEOUT)
{
	u8 zero[PRECOPY_PAGE] = {};
	int i;

	begin(self);
	drain(self);
	for (i = 0; i < 100; i += 3)
		precopy_store(&self->a, i * PRECOPY_PAGE, zero, PRECOPY_PAGE,
			      i & 1 ? BY_MMAP : BY_PWRITE);
	ASSERT_EQ(0, reinit_now());
	finish(_metadata, self, 1);
}

/* The buffer holds what was made before, and was not read. */
TEST_F_TIMEOUT(reinit, unread_bytes, MIG_TIMEOUT)
{
	struct vfio_precopy_info info;
	u64 dirty, initial;
	size_t from;

	begin(self);
	drain(self);
	precopy_fill(&self->a, 0, 60, 2, BY_MMAP);
	ASSERT_EQ(100, mig_stream_read(&self->stream, self->fd, 100));
	dirty = info_of(self->fd).dirty_bytes;
	EXPECT_EQ(60 * (PRECOPY_PAGE + RECORD) - 100, dirty);
	/* Stale in the buffer, from now on. */
	precopy_fill(&self->a, 0, 60, 3, BY_MMAP);
	ASSERT_EQ(0, reinit_now());
	from = self->stream.len;
	info = info_of(self->fd);
	EXPECT_EQ(REINIT, info.flags);
	EXPECT_EQ(0, info.dirty_bytes);
	initial = info.initial_bytes;
	while (info_of(self->fd).flags & REINIT) {
		EXPECT_EQ(0, info_of(self->fd).dirty_bytes);
		EXPECT_LT(0, info_of(self->fd).initial_bytes);
		ASSERT_LT(0, mig_stream_read(&self->stream, self->fd, 777));
	}
	EXPECT_GE(initial, self->stream.len - from);
	drain(self);
	finish(_metadata, self, 1);
}

TEST_F_TIMEOUT(reinit, again_and_again, MIG_TIMEOUT)
{
	unsigned int times = 0, rnd = 1, nr = precopy_rounds(60), i;

	begin(self);
	for (i = 0; i < nr; i++) {
		precopy_fill(&self->a, rand_r(&rnd) % (NR_PAGES - 8),
			     rand_r(&rnd) % 8, 10 + i, i & 1 ? BY_MMAP : BY_PWRITE);
		if (rand_r(&rnd) % 2)
			drain(self);
		else
			mig_stream_read(&self->stream, self->fd,
					1 + rand_r(&rnd) % SZ_256K);
		precopy_fill(&self->a, rand_r(&rnd) % (NR_PAGES - 8),
			     rand_r(&rnd) % 8, 100 + i, BY_MMAP);
		if (!reinit_now())
			times++;
	}
	EXPECT_LT(nr / 6, times);
	finish(_metadata, self, times);
}

TEST_F_TIMEOUT(reinit, in_p2p, MIG_TIMEOUT)
{
	begin(self);
	drain(self);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY_P2P, NULL));
	precopy_fill(&self->a, 20, 20, 2, BY_MMAP);
	ASSERT_EQ(0, reinit_now());
	EXPECT_EQ(REINIT, info_of(self->fd).flags);
	ASSERT_LT(0, mig_stream_read(&self->stream, self->fd, 50000));
	precopy_fill(&self->a, 0, 30, 3, BY_MMAP);
	/* It belongs to the session, not to the state. */
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, NULL));
	EXPECT_EQ(REINIT, info_of(self->fd).flags);
	drain(self);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY_P2P, NULL));
	ASSERT_EQ(0, reinit_now());
	/* Stopped with all of it still to be read. */
	finish(_metadata, self, 2);
}

TEST_F_TIMEOUT(reinit, stopped_at_once, MIG_TIMEOUT)
{
	struct vfio_precopy_info info = {};

	begin(self);
	drain(self);
	precopy_fill(&self->a, 50, 20, 2, BY_MMAP);
	ASSERT_EQ(0, reinit_now());
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
	EXPECT_EQ(-EINVAL, mig_precopy_info(self->fd, &info));
	EXPECT_EQ(-EINVAL, reinit_now());
	finish(_metadata, self, 1);
}

/* Nothing of it outlives its session. */
TEST_F_TIMEOUT(reinit, given_up, MIG_TIMEOUT)
{
	begin(self);
	drain(self);
	ASSERT_EQ(0, reinit_now());
	ASSERT_EQ(0, mig_set_state(self->a.dev, RUNNING, NULL));
	close(self->fd);
	self->stream.len = 0;
	precopy_fill(&self->a, 7, 9, 2, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &self->fd));
	EXPECT_EQ(0, info_of(self->fd).flags);
	EXPECT_EQ(-EAGAIN, reinit_now());
	drain(self);
	EXPECT_EQ(0, info_of(self->fd).flags);
	finish(_metadata, self, 0);
}

/* The memory is counted anew while a unit is divided, and written until it is sent. */
TEST_F_TIMEOUT(reinit, during_a_split, MIG_TIMEOUT)
{
	struct precopy_held_split held;
	u64 splits;

	if (!precopy_has_knob(bdfs[0], "hold_split"))
		SKIP(return, "no test knob hold_split in debugfs");
	begin(self);
	drain(self);
	splits = precopy_stat(bdfs[0], "splits");
	precopy_hold_split(&held, &self->a, 300 * PRECOPY_PAGE);
	ASSERT_EQ(0, reinit_now());
	/* Less than the PREFACE, which is made now */
	ASSERT_EQ(16, mig_stream_read(&self->stream, self->fd, 16));
	precopy_fill(&self->a, 3, 100, 2, BY_MMAP);
	drain(self);
	precopy_release_split(&held);
	EXPECT_EQ(splits + 1, precopy_stat(bdfs[0], "splits"));
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	finish(_metadata, self, 1);
}

/* A page that the kernel stores to meanwhile, unseen, waits for it to end. */
TEST_F_TIMEOUT(reinit, pinned, MIG_TIMEOUT)
{
	u64 words[SLOW_FILE_LEN / 8], late[SLOW_FILE_LEN / 8];
	struct slow_file file;
	int missing;

	/* Who serves the file must not have the devices open. */
	precopy_close(&self->a);
	precopy_close(&self->b);
	missing = slow_file_open(&file);
	precopy_open(&self->a, bdfs[0], NULL, SIZE);
	precopy_open(&self->b, bdfs[1], NULL, SIZE);
	if (missing)
		SKIP(return, "no 9p file to read from");
	begin(self);
	drain(self);
	slow_file_ask(&file, self->a.bar + 30 * PRECOPY_PAGE);
	ASSERT_EQ(0, reinit_now());
	drain(self);
	precopy_pattern(words, 30, 77);
	slow_file_answer(&file, words);
	memcpy(self->a.shadow + 30 * PRECOPY_PAGE, words, PRECOPY_PAGE);
	/* And one that waited already when it happened. */
	slow_file_ask(&file, self->a.bar + 31 * PRECOPY_PAGE);
	precopy_fill(&self->a, 31, 1, 5, BY_MMAP);
	drain(self);
	ASSERT_EQ(0, reinit_now());
	drain(self);
	precopy_pattern(late, 31, 78);
	slow_file_answer(&file, late);
	memcpy(self->a.shadow + 31 * PRECOPY_PAGE, late, PRECOPY_PAGE);
	drain(self);
	finish(_metadata, self, 2);
	slow_file_close(&file);
}

/* ------------------------------------------------------------------------ */
/* The target                                                               */

/* What was read since @from, to the target. */
static int pass_on(reinit_t *self, size_t *from)
{
	int ret = mig_write_all(self->to_fd, self->stream.data + *from,
				self->stream.len - *from, CHUNK, NULL);

	*from = self->stream.len;
	return ret;
}

/* A first round, that the target has behind it; then @delay_ms for the next. */
static size_t first_round(reinit_t *self, unsigned int delay_ms)
{
	size_t from = 0;

	begin(self);
	drain(self);
	VFIO_ASSERT_EQ(mig_set_state(self->b.dev, RESUMING, &self->to_fd), 0);
	VFIO_ASSERT_EQ(pass_on(self, &from), 0);
	VFIO_ASSERT_EQ(handoff_phase(self->to_fd),
		       (int)VFIO_PRECOPY_PHASE_READY);
	VFIO_ASSERT_EQ(precopy_knob(bdfs[1], "startup_delay_ms", delay_ms), 0);
	precopy_fill(&self->a, 0, NR_PAGES, 2, BY_MMAP);
	VFIO_ASSERT_EQ(reinit_now(), 0);
	drain(self);
	return from;
}

TEST_F_TIMEOUT(reinit, target_starts_again, MIG_TIMEOUT)
{
	struct vfio_precopy_startup first, second;
	struct handoff_marks marks;
	size_t from, done = 0;

	from = first_round(self, DELAY_MS);
	ASSERT_EQ(0, handoff_get(self->to_fd, &first));
	EXPECT_EQ(POLLPRI, handoff_poll(self->to_fd, POLLPRI, 0));
	fcntl_set_nonblock(self->to_fd);
	ASSERT_EQ(0, precopy_knob(bdfs[1], "hold", 1));
	EXPECT_EQ(-EAGAIN, mig_write_all(self->to_fd, self->stream.data + from,
					 self->stream.len - from, CHUNK, &done));
	handoff_marks(&self->stream, &marks);
	EXPECT_EQ(marks.barrier + RECORD - 1, from + done);
	ASSERT_EQ(0, handoff_get(self->to_fd, &second));
	EXPECT_EQ(VFIO_PRECOPY_PHASE_STARTING, second.phase);
	EXPECT_EQ(SIZE, second.bytes_in_use);
	EXPECT_EQ(0, handoff_poll(self->to_fd, POLLPRI | POLLOUT, 0));
	ASSERT_EQ(0, precopy_knob(bdfs[1], "hold", 0));
	EXPECT_EQ(POLLPRI | POLLOUT,
		  handoff_poll(self->to_fd, POLLPRI | POLLOUT,
			       HANDOFF_PATIENCE_MS));
	ASSERT_EQ(0, handoff_get(self->to_fd, &second));
	EXPECT_EQ(VFIO_PRECOPY_PHASE_READY, second.phase);
	EXPECT_LE(DELAY_MS * 1000000ULL, second.elapsed_ns);
	EXPECT_EQ(SIZE, second.bytes_prepared);

	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
	ASSERT_EQ(0, mig_stream_drain(&self->stream, self->fd, CHUNK));
	from += done;
	ASSERT_EQ(0, pass_on(self, &from));
	ASSERT_EQ(0, mig_set_state(self->b.dev, STOP, NULL));
	EXPECT_EQ(0, precopy_differ(&self->b, self->a.shadow));
}

/* How long a startup of all of @pd takes, as it was measured on it. */
static u64 estimate(struct precopy_dev *pd)
{
	struct vfio_precopy_startup info;
	int fd;

	precopy_reset(pd);
	precopy_fill(pd, 0, NR_PAGES, 1, BY_MMAP);
	VFIO_ASSERT_EQ(mig_set_state(pd->dev, PRE_COPY, &fd), 0);
	VFIO_ASSERT_EQ(handoff_get(fd, &info), 0);
	VFIO_ASSERT_EQ(info.flags, VFIO_PRECOPY_STARTUP_MEASURED);
	close(fd);
	precopy_reset(pd);
	return info.remaining_ns;
}

/*
 * The target has its memory when it starts again, which is no measurement of a
 * target that has to get it: of the last eight at most one is fast.
 */
TEST_F_TIMEOUT(reinit, is_no_sample, MIG_TIMEOUT)
{
	unsigned int nr = 8 + precopy_rounds(8), i;
	u64 before, after;

	handoff_teach(&self->b, 2, DELAY_MS, 8);
	before = estimate(&self->b);
	begin(self);
	drain(self);
	for (i = 0; i < nr; i++) {
		ASSERT_EQ(0, reinit_now());
		drain(self);
	}
	finish(_metadata, self, nr);
	after = estimate(&self->b);
	EXPECT_LE(DELAY_MS / 2 * 1000000ULL, after);
	TH_LOG("%lu us before, %lu us after", (unsigned long)(before / 1000),
	       (unsigned long)(after / 1000));
}

/* That it has started once is no help when it cannot the second time. */
TEST_F_TIMEOUT(reinit, target_fails_again, MIG_TIMEOUT)
{
	struct vfio_precopy_startup info;
	size_t from = first_round(self, 0);

	ASSERT_EQ(0, precopy_knob(bdfs[1], "startup_fail", ENOMEM));
	EXPECT_EQ(-ENOMEM, pass_on(self, &from));
	ASSERT_EQ(0, handoff_get(self->to_fd, &info));
	EXPECT_EQ(VFIO_PRECOPY_PHASE_FAILED, info.phase);
	EXPECT_EQ(ENOMEM, (int)info.error);
	EXPECT_EQ(-ENOMEM, mig_set_state(self->b.dev, STOP, NULL));
	/* The source is as it was. */
	ASSERT_EQ(0, precopy_knob(bdfs[1], "startup_fail", 0));
	precopy_reset(&self->b);
	finish(_metadata, self, 1);
}

TEST_F_TIMEOUT(reinit, target_reset_while_starting_again, MIG_TIMEOUT)
{
	struct handoff_marks marks;
	size_t from = first_round(self, LONG_MS);
	u64 began = precopy_now_ms();

	handoff_marks(&self->stream, &marks);
	ASSERT_EQ(0, mig_write_all(self->to_fd, self->stream.data + from,
				   marks.barrier - from, CHUNK, NULL));
	EXPECT_EQ((int)VFIO_PRECOPY_PHASE_STARTING, handoff_phase(self->to_fd));
	precopy_reset(&self->b);
	EXPECT_EQ(-ENODEV, handoff_phase(self->to_fd));
	EXPECT_GT(HANDOFF_PATIENCE_MS, precopy_now_ms() - began);
	ASSERT_EQ(0, precopy_knob(bdfs[1], "startup_delay_ms", 0));
	finish(_metadata, self, 1);
}

/* ------------------------------------------------------------------------ */
/* Everything at once                                                       */

struct watcher {
	int fd;
	volatile bool stop;
	u64 asked;
	volatile u64 flagged;
	u64 wrong;
	pthread_t thread;
};

/* As long as nobody stores, no answer with the flag may count a dirty byte. */
static void *watcher_thread(void *arg)
{
	struct watcher *w = arg;
	struct vfio_precopy_info info;

	while (!w->stop) {
		info = info_of(w->fd);
		w->asked++;
		if (!(info.flags & REINIT))
			continue;
		w->flagged++;
		if (info.dirty_bytes || !info.initial_bytes)
			w->wrong++;
	}
	return NULL;
}

TEST_F_TIMEOUT(reinit, watched, MIG_TIMEOUT)
{
	struct watcher w = {};
	u64 flagged;
	int i;

	begin(self);
	drain(self);
	w.fd = self->fd;
	ASSERT_EQ(0, pthread_create(&w.thread, NULL, watcher_thread, &w));
	for (i = 0; i < (int)precopy_rounds(50); i++) {
		precopy_fill(&self->a, 0, 20, i, BY_MMAP);
		flagged = w.flagged;
		ASSERT_EQ(0, reinit_now());
		while (w.flagged == flagged)
			usleep(100);
		self->stream.len = 0;
		drain(self);
	}
	w.stop = true;
	ASSERT_EQ(0, pthread_join(w.thread, NULL));
	TH_LOG("%lu answers, %lu with the flag", w.asked, w.flagged);
	EXPECT_EQ(0, w.wrong);
}

#define WRITERS		2
#define ROUNDS		precopy_rounds(30)

struct storm {
	struct stamp_writer writers[WRITERS];
	struct precopy_replica replica;
	unsigned int times;
};

/* Some of the stream, to the replica and to the target. */
static int pump(reinit_t *self, struct storm *storm, size_t max)
{
	ssize_t ret;

	self->stream.len = 0;
	ret = mig_stream_read(&self->stream, self->fd, max);
	if (ret <= 0)
		return ret;
	VFIO_ASSERT_EQ(precopy_replica_feed(&storm->replica,
					    self->stream.data, ret), 0);
	VFIO_ASSERT_EQ(mig_write_all(self->to_fd, self->stream.data, ret,
				     CHUNK, NULL), 0);
	return ret;
}

static void *reinit_thread(void *arg)
{
	struct storm *storm = arg;
	unsigned int rnd = 7;

	while (__atomic_load_n(&storm->times, __ATOMIC_RELAXED) < ROUNDS) {
		if (!reinit_now())
			__atomic_fetch_add(&storm->times, 1, __ATOMIC_RELAXED);
		usleep(rand_r(&rnd) % 5000);
	}
	return NULL;
}

/* Two that store, one that reads, one that begins anew, all the time. */
TEST_F_TIMEOUT(reinit, storm, 300)
{
	struct storm *storm = calloc_assert(1, sizeof(*storm));
	u8 *image = calloc_assert(1, SIZE);
	unsigned int rnd = 3;
	pthread_t thread;
	int i, ret;

	precopy_replica_init(&storm->replica, SIZE);
	ASSERT_EQ(0, mig_precopy_v2_enable(self->a.dev));
	for (i = 0; i < WRITERS; i++) {
		stamp_writer_init(&storm->writers[i], &self->a, NULL,
				  self->a.bar, i, &stamp_random);
		stamp_writer_bursts(&storm->writers[i], 64);
	}
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &self->fd));
	ASSERT_EQ(0, mig_set_state(self->b.dev, RESUMING, &self->to_fd));
	ASSERT_EQ(0, pthread_create(&thread, NULL, reinit_thread, storm));
	while (__atomic_load_n(&storm->times, __ATOMIC_RELAXED) < ROUNDS) {
		ret = pump(self, storm, 1 + rand_r(&rnd) % SZ_512K);
		ASSERT_TRUE(ret > 0 || ret == -ENOMSG);
	}
	ASSERT_EQ(0, pthread_join(thread, NULL));
	for (i = 0; i < WRITERS; i++)
		stamp_writer_stop(&storm->writers[i]);
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
	do {
		ret = pump(self, storm, SZ_1M);
	} while (ret > 0);
	ASSERT_EQ(0, ret);
	ASSERT_EQ(0, mig_set_state(self->b.dev, STOP, NULL));

	stamp_image(image, NR_PAGES, storm->writers, WRITERS);
	EXPECT_EQ(0, precopy_differ(&self->a, image));
	EXPECT_EQ(0, precopy_differ(&self->b, image));
	EXPECT_EQ(0, memcmp(image, storm->replica.image, SIZE));
	for (i = 0; i < WRITERS; i++)
		stamp_writer_cleanup(&storm->writers[i]);
	precopy_replica_free(&storm->replica);
	free(storm);
	free(image);
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
