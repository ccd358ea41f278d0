// SPDX-License-Identifier: GPL-2.0-only
/* Conformance, rules R38 to R49: PRE_COPY and VFIO_MIG_GET_PRECOPY_INFO. */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/mig_fixture.h>

#define POISON		0xa5a5a5a5a5a5a5a5ULL
#define MANY		1000000

static const u8 precopy[] = { PC, PCP };

static bool readable(int fd)
{
	return mig_poll(fd) & POLLIN;
}

TEST_F_TIMEOUT(mig, precopy_info_in_precopy_only, MIG_TIMEOUT) /* R38 */
{
	struct vfio_precopy_info info = {};
	struct mig_dev *m = &self->m;
	unsigned int i;
	int fd;

	if (!mig_has(m, HAS_PRE_COPY))
		SKIP(return, "%s", m->lacks);
	for (i = 0; i < ARRAY_SIZE(precopy); i++) {
		if (!mig_has_state(m, precopy[i]))
			continue;
		mig_fresh(m);
		ASSERT_EQ(0, mig_set_state(m->dev, precopy[i], &fd));
		EXPECT_EQ(0, mig_precopy_info(fd, &info));
		ASSERT_EQ(0, mig_set_state(m->dev, SC, NULL));
		EXPECT_EQ(-EINVAL, mig_precopy_info(fd, &info));
		ASSERT_EQ(0, mig_set_state(m->dev, STOP, NULL));
		EXPECT_GT(0, mig_precopy_info(fd, &info));
		close(fd);

		mig_fresh(m);
		ASSERT_EQ(0, mig_set_state(m->dev, precopy[i], &fd));
		ASSERT_EQ(0, mig_set_state(m->dev, RUN, NULL));
		EXPECT_GT(0, mig_precopy_info(fd, &info));
		close(fd);
	}
	mig_fresh(m);
	ASSERT_EQ(0, mig_set_state(m->dev, SC, &fd));
	EXPECT_EQ(-EINVAL, mig_precopy_info(fd, &info));
	close(fd);
}

TEST_F_TIMEOUT(mig, precopy_info_checks_argsz, MIG_TIMEOUT) /* R39 */
{
	struct {
		struct vfio_precopy_info info;
		u64 more;
	} big = { .more = POISON };
	struct vfio_precopy_info *partial, *sealed;
	struct mig_dev *m = &self->m;
	u32 argsz;
	int fd;

	if (!mig_has(m, HAS_PRE_COPY))
		SKIP(return, "%s", m->lacks);
	ASSERT_EQ(0, mig_set_state(m->dev, PC, &fd));
	for (argsz = 0; argsz < sizeof(big.info); argsz++) {
		big.info.argsz = argsz;
		EXPECT_EQ(-1, ioctl(fd, VFIO_MIG_GET_PRECOPY_INFO, &big));
		EXPECT_EQ(EINVAL, errno) TH_LOG("argsz %u", argsz);
	}

	/* It cannot be read, it can be read in part, it cannot be written. */
	EXPECT_EQ(-1, ioctl(fd, VFIO_MIG_GET_PRECOPY_INFO, mig_bad_address));
	EXPECT_EQ(EFAULT, errno);
	partial = mig_end_of_page(8);
	partial->argsz = sizeof(*partial);
	EXPECT_EQ(-1, ioctl(fd, VFIO_MIG_GET_PRECOPY_INFO, partial));
	EXPECT_EQ(EFAULT, errno);
	sealed = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, sealed);
	sealed->argsz = sizeof(*sealed);
	ASSERT_EQ(0, mprotect(sealed, 4096, PROT_READ));
	EXPECT_EQ(-1, ioctl(fd, VFIO_MIG_GET_PRECOPY_INFO, sealed));
	EXPECT_EQ(EFAULT, errno);
	munmap(sealed, 4096);

	big.info.argsz = sizeof(big);
	EXPECT_EQ(0, ioctl(fd, VFIO_MIG_GET_PRECOPY_INFO, &big));
	EXPECT_EQ(POISON, big.more);
	close(fd);
}

/* What the user left in the fields must not come back. */
TEST_F_TIMEOUT(mig, precopy_info_ignores_its_input, MIG_TIMEOUT) /* R40 */
{
	struct vfio_precopy_info clean = {}, dirty = {
		.flags = ~0U,
		.initial_bytes = POISON,
		.dirty_bytes = POISON,
	};
	struct mig_dev *m = &self->m;
	int fd;

	if (!mig_has(m, HAS_PRE_COPY))
		SKIP(return, "%s", m->lacks);
	mig_fill(m, 1);
	ASSERT_EQ(0, mig_set_state(m->dev, PC, &fd));
	ASSERT_EQ(0, mig_precopy_info(fd, &clean));
	ASSERT_EQ(0, mig_precopy_info(fd, &dirty));
	EXPECT_NE(POISON, dirty.initial_bytes);
	EXPECT_NE(POISON, dirty.dirty_bytes);
	EXPECT_EQ(clean.initial_bytes, dirty.initial_bytes);
	EXPECT_EQ(clean.dirty_bytes, dirty.dirty_bytes);
	close(fd);
}

TEST_F_TIMEOUT(mig, initial_bytes_fall_to_zero, MIG_TIMEOUT) /* R41 */
{
	struct vfio_precopy_info info = {};
	struct mig_dev *m = &self->m;
	u64 before;
	int fd, i;

	if (!mig_has(m, HAS_PRE_COPY))
		SKIP(return, "%s", m->lacks);
	mig_fill(m, 1);
	ASSERT_EQ(0, mig_set_state(m->dev, PC, &fd));
	ASSERT_EQ(0, mig_precopy_info(fd, &info));
	EXPECT_LT(0, info.initial_bytes);

	/* Nothing but reads makes it less, and reads never make it more. */
	before = info.initial_bytes;
	ASSERT_EQ(0, mig_precopy_info(fd, &info));
	EXPECT_EQ(before, info.initial_bytes);
	for (i = 0; i < MANY; i++) {
		ssize_t ret = mig_stream_read(&self->stream, fd, 1 + i * 7);

		if (ret <= 0)
			break;
		ASSERT_EQ(0, mig_precopy_info(fd, &info));
		ASSERT_GE(before, info.initial_bytes);
		before = info.initial_bytes;
	}
	EXPECT_EQ(0, info.initial_bytes);
	close(fd);
}

TEST_F_TIMEOUT(mig, dirty_bytes_follow_the_stores, MIG_TIMEOUT) /* R42 */
{
	struct vfio_precopy_info info = { .dirty_bytes = POISON };
	struct mig_dev *m = &self->m;
	int fd;

	if (!mig_has(m, HAS_PRE_COPY))
		SKIP(return, "%s", m->lacks);
	mig_fill(m, 1);
	ASSERT_EQ(0, mig_set_state(m->dev, PC, &fd));
	ASSERT_EQ(0, mig_precopy_info(fd, &info));
	EXPECT_EQ(0, info.dirty_bytes);
	EXPECT_EQ(-ENOMSG, mig_stream_drain(&self->stream, fd, SZ_64K));
	ASSERT_EQ(0, mig_precopy_info(fd, &info));
	EXPECT_EQ(0, info.dirty_bytes);
	if (m->fill_bar >= 0) {
		/* Up with stores, down with reads. */
		mig_fill(m, 2);
		ASSERT_EQ(0, mig_precopy_info(fd, &info));
		EXPECT_LT(0, info.dirty_bytes);
		EXPECT_EQ(-ENOMSG, mig_stream_drain(&self->stream, fd, SZ_64K));
		ASSERT_EQ(0, mig_precopy_info(fd, &info));
		EXPECT_EQ(0, info.dirty_bytes);
	}
	close(fd);
}

/* Opted in, flags is an output, and what it says agrees with the counters. */
TEST_F_TIMEOUT(mig, info_flags_need_opt_in, MIG_TIMEOUT) /* R43 */
{
	struct vfio_precopy_info info;
	struct mig_dev *m = &self->m;
	int fd, i;

	if (!mig_has_info_v2(m))
		SKIP(return, "%s", m->lacks);
	ASSERT_EQ(0, mig_precopy_v2_enable(m->dev));
	ASSERT_EQ(0, mig_set_state(m->dev, PC, &fd));
	for (i = 0; i < MANY; i++) {
		memset(&info, 0xa5, sizeof(info));
		ASSERT_EQ(0, mig_precopy_info(fd, &info));
		ASSERT_EQ(0, info.flags & ~VFIO_PRECOPY_INFO_REINIT);
		if (info.flags & VFIO_PRECOPY_INFO_REINIT) {
			EXPECT_EQ(0, info.dirty_bytes);
			EXPECT_LT(0, info.initial_bytes);
		}
		if (mig_stream_read(&self->stream, fd, 4096 + i) <= 0)
			break;
	}
	close(fd);
}

/* An idle device has no more to tell, for now: never 0, never a wait. */
TEST_F_TIMEOUT(mig, temporary_end_is_enomsg, MIG_TIMEOUT) /* R44, R45, R48 */
{
	struct vfio_precopy_info info = {};
	struct mig_dev *m = &self->m;
	char byte;
	int fd, i;

	if (!mig_has(m, HAS_PRE_COPY))
		SKIP(return, "%s", m->lacks);
	mig_fill(m, 1);
	ASSERT_EQ(0, mig_set_state(m->dev, PC, &fd));
	EXPECT_TRUE(readable(fd));
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&self->stream, fd, 10000));
	ASSERT_EQ(0, mig_precopy_info(fd, &info));
	EXPECT_EQ(0, info.initial_bytes);
	EXPECT_EQ(0, info.dirty_bytes);
	EXPECT_FALSE(readable(fd));

	for (i = 0; i < 2; i++) {
		EXPECT_EQ(-1, read(fd, &byte, 1));
		EXPECT_EQ(ENOMSG, errno);
	}
	if (mig_has(m, HAS_P2P)) {
		ASSERT_EQ(0, mig_set_state(m->dev, PCP, NULL));
		EXPECT_EQ(-1, read(fd, &byte, 1));
		EXPECT_EQ(ENOMSG, errno);
		EXPECT_FALSE(readable(fd));
	}

	ASSERT_EQ(0, mig_set_state(m->dev, SC, NULL));
	EXPECT_TRUE(readable(fd));
	close(fd);
}

/* And when there is more, whoever waits is told. */
TEST_F_TIMEOUT(mig, poll_reports_new_data, MIG_TIMEOUT) /* R45 */
{
	struct mig_dev *m = &self->m;
	int fd;

	if (!mig_has(m, HAS_PRE_COPY))
		SKIP(return, "%s", m->lacks);
	if (m->fill_bar < 0)
		SKIP(return, "no VFIO_SELFTESTS_FILL_BAR to make data with");
	ASSERT_EQ(0, mig_set_state(m->dev, PC, &fd));
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&self->stream, fd, 10000));
	EXPECT_FALSE(readable(fd));
	mig_fill(m, 1);
	EXPECT_TRUE(readable(fd));
	EXPECT_LT(0, mig_stream_read(&self->stream, fd, 10000));
	close(fd);
}

TEST_F_TIMEOUT(mig, end_of_stream_is_zero, MIG_TIMEOUT) /* R46 */
{
	struct mig_dev *m = &self->m;
	char byte;
	int fd, i;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	if (mig_has(m, HAS_PRE_COPY)) {
		ASSERT_EQ(0, mig_set_state(m->dev, PC, &fd));
		ASSERT_EQ(0, mig_set_state(m->dev, SC, NULL));
	} else {
		ASSERT_EQ(0, mig_set_state(m->dev, SC, &fd));
	}
	EXPECT_TRUE(readable(fd));
	EXPECT_EQ(0, mig_stream_drain(&self->stream, fd, 10000));
	EXPECT_LT(0, self->stream.len);
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(0, read(fd, &byte, 1));
		EXPECT_TRUE(readable(fd));
	}
	close(fd);
}

/* However much was read before the device stopped, the stream is whole. */
TEST_F_TIMEOUT(mig, unread_precopy_data_is_kept, MIG_TIMEOUT) /* R47 */
{
	static const size_t first[] = { 0, 1, 100, 5000 };
	struct mig_dev *m = &self->m;
	unsigned int i;
	int fd;

	if (!mig_has(m, HAS_PRE_COPY))
		SKIP(return, "%s", m->lacks);
	for (i = 0; i < ARRAY_SIZE(first); i++) {
		mig_fresh(m);
		mig_fill(m, i);
		self->stream.len = 0;
		ASSERT_EQ(0, mig_set_state(m->dev, PC, &fd));
		if (first[i])
			ASSERT_LT(0, mig_stream_read(&self->stream, fd, first[i]));
		ASSERT_EQ(0, mig_set_state(m->dev, SC, NULL));
		EXPECT_EQ(0, mig_stream_drain(&self->stream, fd, 10000));
		close(fd);
		mig_fresh(m);
		EXPECT_EQ(0, mig_load(m->dev, &self->stream, SZ_64K))
			TH_LOG("stopped after %zu bytes", first[i]);
		EXPECT_TRUE(mig_contents(m, i));
	}
}

/* Back and forth between the two states: it is one session all along. */
TEST_F_TIMEOUT(mig, tracking_survives_p2p_and_back, MIG_TIMEOUT) /* R49 */
{
	struct vfio_precopy_info info = {};
	struct mig_dev *m = &self->m;
	int fd, i;

	if (!mig_has(m, HAS_ALL))
		SKIP(return, "%s", m->lacks);
	mig_fill(m, 1);
	ASSERT_EQ(0, mig_set_state(m->dev, PC, &fd));
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, mig_set_state(m->dev, i & 1 ? PC : PCP, NULL));
		EXPECT_EQ(0, mig_precopy_info(fd, &info));
		EXPECT_EQ(-ENOMSG, mig_stream_drain(&self->stream, fd, 10000));
		/* What is stored now is seen, in whichever of the two. */
		mig_fill(m, 2 + i);
		ASSERT_EQ(0, mig_precopy_info(fd, &info));
		if (m->fill_bar >= 0)
			EXPECT_LT(0, info.dirty_bytes);
	}
	ASSERT_EQ(0, mig_set_state(m->dev, SC, NULL));
	EXPECT_EQ(0, mig_stream_drain(&self->stream, fd, 10000));
	close(fd);
	mig_fresh(m);
	EXPECT_EQ(0, mig_load(m->dev, &self->stream, SZ_64K));
	EXPECT_TRUE(mig_contents(m, 5));
}

int main(int argc, char *argv[])
{
	return mig_test_main(argc, argv);
}
