// SPDX-License-Identifier: GPL-2.0-only
/*
 * Conformance, rules R63 to R70: VFIO_MIG_GET_STARTUP_INFO, which is proposed. A device
 * that does not have it skips them.
 */
#include <errno.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>
#include <linux/vfio_mig_startup.h>

#include <libvfio.h>
#include <libvfio/mig_fixture.h>

#define ALL_FLAGS	(VFIO_MIG_STARTUP_TARGET | VFIO_MIG_STARTUP_TIME | \
			 VFIO_MIG_STARTUP_INITIAL_BYTES | VFIO_MIG_STARTUP_MEASURED)
#define POISON		0xa5
#define MANY		1000000
#define NO_IOCTL	"the driver has no VFIO_MIG_GET_STARTUP_INFO"
#define SMALL		24

/*
 * Set @info to POISON, but for argsz, and ask. A call that fails must not change it, and one
 * that succeeds must write all fields.
 */
static int ask(int fd, struct vfio_mig_startup_info *info)
{
	memset(info, POISON, sizeof(*info));
	info->argsz = sizeof(*info);

	return ioctl(fd, VFIO_MIG_GET_STARTUP_INFO, info) ? -errno : 0;
}

/* Fields that are not valid are 0, so that nothing of the user's comes back. */
static void check_fields(struct __test_metadata *_metadata,
			 const struct vfio_mig_startup_info *info)
{
	bool failed = info->phase == VFIO_MIG_STARTUP_FAILED;

	EXPECT_EQ(sizeof(*info), info->argsz);
	EXPECT_EQ(0, info->flags & ~ALL_FLAGS);
	EXPECT_GE((u32)VFIO_MIG_STARTUP_FAILED, info->phase);
	EXPECT_EQ(failed, !!info->error);
	EXPECT_GT(4096, info->error);
	if (!(info->flags & VFIO_MIG_STARTUP_INITIAL_BYTES))
		EXPECT_EQ(0, info->initial_bytes);
	if (!(info->flags & VFIO_MIG_STARTUP_TIME)) {
		EXPECT_EQ(0, info->remaining_ns);
		EXPECT_EQ(0, info->flags & VFIO_MIG_STARTUP_MEASURED);
	}
}

/* R69: READY has a time, which is 0; FAILED has none, and only a target fails. */
static void check_time(struct __test_metadata *_metadata,
		       const struct vfio_mig_startup_info *info)
{
	switch (info->phase) {
	case VFIO_MIG_STARTUP_READY:
		EXPECT_NE(0, info->flags & VFIO_MIG_STARTUP_TIME);
		EXPECT_EQ(0, info->remaining_ns);
		break;
	case VFIO_MIG_STARTUP_FAILED:
		EXPECT_EQ(0, info->flags & VFIO_MIG_STARTUP_TIME);
		EXPECT_NE(0, info->flags & VFIO_MIG_STARTUP_TARGET);
		break;
	}
}

static void check_info(struct __test_metadata *_metadata, int fd,
		       struct vfio_mig_startup_info *info)
{
	ASSERT_EQ(0, ask(fd, info));
	check_fields(_metadata, info);
	check_time(_metadata, info);
}

/* The device is RUNNING before and after. */
static bool lacks_ioctl(struct mig_dev *m)
{
	struct vfio_mig_startup_info info;
	int fd, ret;

	VFIO_ASSERT_EQ(mig_set_state(m->dev, SC, &fd), 0);
	ret = ask(fd, &info);
	close(fd);
	mig_fresh(m);

	return ret == -ENOTTY;
}

/* The states in which there is a data fd; those of a saving one first. */
static const u8 states[] = { PC, PCP, SC, RES };

TEST_F_TIMEOUT(mig, startup_is_told_at_both_ends, MIG_TIMEOUT) /* R63, R66 */
{
	struct vfio_mig_startup_info info;
	struct mig_dev *m = &self->m;
	int fd, ret, first = 1;
	unsigned int i;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	for (i = 0; i < ARRAY_SIZE(states); i++) {
		if (!mig_has_state(m, states[i]))
			continue;
		mig_fresh(m);
		ASSERT_EQ(0, mig_set_state(m->dev, states[i], &fd));
		ret = ask(fd, &info);
		if (first > 0)
			first = ret;
		EXPECT_EQ(first, ret) TH_LOG("in %s", mig_state_name(states[i]));
		EXPECT_TRUE(ret == 0 || ret == -ENOTTY);
		if (!ret)
			EXPECT_EQ(states[i] == RES,
				  !!(info.flags & VFIO_MIG_STARTUP_TARGET));
		EXPECT_TRUE(mig_state_is(m, states[i]));
		close(fd);
	}
	if (first == -ENOTTY)
		SKIP(return, NO_IOCTL);
}

static void check_argsz(struct __test_metadata *_metadata, int fd)
{
	struct {
		struct vfio_mig_startup_info info;
		u8 more[32];
	} arg, before;
	u32 argsz;

	memset(&before, POISON, sizeof(before));
	for (argsz = 0; argsz < sizeof(arg.info); argsz++) {
		before.info.argsz = argsz;
		arg = before;
		EXPECT_EQ(-1, ioctl(fd, VFIO_MIG_GET_STARTUP_INFO, &arg));
		EXPECT_EQ(EINVAL, errno) TH_LOG("argsz %u", argsz);
		EXPECT_EQ(0, memcmp(&before, &arg, sizeof(arg)));
	}
	before.info.argsz = sizeof(arg);
	arg = before;
	EXPECT_EQ(0, ioctl(fd, VFIO_MIG_GET_STARTUP_INFO, &arg));
	EXPECT_EQ(sizeof(arg), arg.info.argsz);
	EXPECT_EQ(0, memcmp(before.more, arg.more, sizeof(arg.more)));
}

/* It cannot be read, it has no room for the answer, it cannot be written. */
static void check_addresses(struct __test_metadata *_metadata, int fd)
{
	struct vfio_mig_startup_info *info;

	EXPECT_EQ(-1, ioctl(fd, VFIO_MIG_GET_STARTUP_INFO, mig_bad_address));
	EXPECT_EQ(EFAULT, errno);
	info = mig_end_of_page(8);
	info->argsz = sizeof(*info);
	EXPECT_EQ(-1, ioctl(fd, VFIO_MIG_GET_STARTUP_INFO, info));
	EXPECT_EQ(EFAULT, errno);
	info = mmap(NULL, SZ_4K, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, info);
	info->argsz = sizeof(*info);
	ASSERT_EQ(0, mprotect(info, SZ_4K, PROT_READ));
	EXPECT_EQ(-1, ioctl(fd, VFIO_MIG_GET_STARTUP_INFO, info));
	EXPECT_EQ(EFAULT, errno);
	munmap(info, SZ_4K);
}

TEST_F_TIMEOUT(mig, startup_checks_argsz, MIG_TIMEOUT) /* R64 */
{
	static const u8 ends[] = { SC, RES };
	struct mig_dev *m = &self->m;
	unsigned int i;
	int fd;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	if (lacks_ioctl(m))
		SKIP(return, NO_IOCTL);
	for (i = 0; i < ARRAY_SIZE(ends); i++) {
		mig_fresh(m);
		ASSERT_EQ(0, mig_set_state(m->dev, ends[i], &fd));
		check_argsz(_metadata, fd);
		check_addresses(_metadata, fd);
		close(fd);
	}
}

/* The answer is the same for a structure of POISON and for one of zeroes. */
TEST_F_TIMEOUT(mig, startup_ignores_its_input, MIG_TIMEOUT) /* R65 */
{
	struct vfio_mig_startup_info info, zeroed;
	struct mig_dev *m = &self->m;
	unsigned int i;
	int fd;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	if (lacks_ioctl(m))
		SKIP(return, NO_IOCTL);
	for (i = 0; i < ARRAY_SIZE(states); i++) {
		if (!mig_has_state(m, states[i]))
			continue;
		mig_fresh(m);
		ASSERT_EQ(0, mig_set_state(m->dev, states[i], &fd));
		check_info(_metadata, fd, &info);
		memset(&zeroed, 0, sizeof(zeroed));
		zeroed.argsz = sizeof(zeroed);
		ASSERT_EQ(0, ioctl(fd, VFIO_MIG_GET_STARTUP_INFO, &zeroed));
		EXPECT_EQ(zeroed.flags, info.flags);
		EXPECT_EQ(zeroed.phase, info.phase);
		EXPECT_EQ(zeroed.error, info.error);
		EXPECT_EQ(zeroed.initial_bytes, info.initial_bytes);
		close(fd);
	}
}

TEST_F_TIMEOUT(mig, startup_counts_initial_bytes, MIG_TIMEOUT) /* R67 */
{
	struct vfio_precopy_info precopy = {};
	struct vfio_mig_startup_info info;
	struct mig_dev *m = &self->m;
	int fd, i;

	if (!mig_has(m, HAS_PRE_COPY))
		SKIP(return, "%s", m->lacks);
	if (lacks_ioctl(m))
		SKIP(return, NO_IOCTL);
	mig_fill(m, 1);
	ASSERT_EQ(0, mig_set_state(m->dev, PC, &fd));
	for (i = 0; i < MANY; i++) {
		check_info(_metadata, fd, &info);
		if (!(info.flags & VFIO_MIG_STARTUP_INITIAL_BYTES))
			SKIP(break, "the driver does not count initial bytes");
		ASSERT_EQ(0, mig_precopy_info(fd, &precopy));
		ASSERT_EQ(precopy.initial_bytes, info.initial_bytes);
		if (mig_stream_read(&self->stream, fd, 1 + i * 7) <= 0)
			break;
	}
	close(fd);
}

/* NONE stays NONE; the others come in their order. */
static void check_forward(struct __test_metadata *_metadata, u32 *phase,
			  const struct vfio_mig_startup_info *info)
{
	if (*phase == VFIO_MIG_STARTUP_NONE)
		EXPECT_EQ(*phase, info->phase);
	EXPECT_LE(*phase, info->phase);
	*phase = info->phase;
}

/* From the first byte to the last, with a question after each piece. */
static void save_and_ask(struct __test_metadata *_metadata, struct mig_dev *m,
			 struct mig_stream *stream)
{
	struct vfio_mig_startup_info info;
	ssize_t ret = 1;
	u32 phase;
	int fd;

	ASSERT_EQ(0, mig_set_state(m->dev, mig_has(m, HAS_PRE_COPY) ? PC : SC, &fd));
	check_info(_metadata, fd, &info);
	phase = info.phase;
	while (ret) {
		ret = mig_stream_read(stream, fd, SMALL + stream->len / 8);
		if (ret == -ENOMSG)
			ret = mig_set_state(m->dev, SC, NULL) ?: 1;
		ASSERT_LE(0, ret);
		check_info(_metadata, fd, &info);
		check_forward(_metadata, &phase, &info);
	}
	EXPECT_NE((u32)VFIO_MIG_STARTUP_FAILED, phase);
	close(fd);
}

static void load_and_ask(struct __test_metadata *_metadata, struct mig_dev *m,
			 const struct mig_stream *stream)
{
	struct vfio_mig_startup_info info;
	size_t pos = 0, len;
	u32 phase;
	int fd;

	ASSERT_EQ(0, mig_set_state(m->dev, RES, &fd));
	check_info(_metadata, fd, &info);
	phase = info.phase;
	for (; pos < stream->len; pos += len) {
		len = SMALL + pos / 8;
		if (len > stream->len - pos)
			len = stream->len - pos;
		ASSERT_EQ(0, mig_write_all(fd, stream->data + pos, len, len, NULL));
		check_info(_metadata, fd, &info);
		check_forward(_metadata, &phase, &info);
	}
	EXPECT_NE((u32)VFIO_MIG_STARTUP_FAILED, phase);
	ASSERT_EQ(0, mig_set_state(m->dev, STOP, NULL));
	close(fd);
}

/* Questions do not disturb: the copy is right. */
TEST_F_TIMEOUT(mig, startup_goes_forward, MIG_TIMEOUT) /* R66, R68, R69 */
{
	struct mig_dev *m = &self->m;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	if (lacks_ioctl(m))
		SKIP(return, NO_IOCTL);
	mig_fill(m, 3);
	save_and_ask(_metadata, m, &self->stream);
	mig_fresh(m);
	load_and_ask(_metadata, m, &self->stream);
	EXPECT_TRUE(mig_contents(m, 3));
}

TEST_F_TIMEOUT(mig, startup_that_failed_says_so, MIG_TIMEOUT) /* R69 */
{
	struct vfio_mig_startup_info info;
	struct mig_dev *m = &self->m;
	u8 junk[SZ_4K];
	int fd, ret;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	if (lacks_ioctl(m))
		SKIP(return, NO_IOCTL);
	memset(junk, 0xff, sizeof(junk));
	ASSERT_EQ(0, mig_set_state(m->dev, RES, &fd));
	ret = mig_write_all(fd, junk, sizeof(junk), sizeof(junk), NULL);
	check_info(_metadata, fd, &info);
	close(fd);
	if (!ret)
		SKIP(return, "the driver looks at the data only at the step to STOP");
	EXPECT_EQ((u32)VFIO_MIG_STARTUP_FAILED, info.phase);
	EXPECT_EQ(-ret, (int)info.error);
}

/* @fd of a session that has ended: nothing is told, and nothing written. */
static void check_dead(struct __test_metadata *_metadata, int fd)
{
	struct vfio_mig_startup_info info, poison;

	EXPECT_EQ(-ENODEV, ask(fd, &info));
	memset(&poison, POISON, sizeof(poison));
	poison.argsz = sizeof(poison);
	EXPECT_EQ(0, memcmp(&poison, &info, sizeof(info)));
}

TEST_F_TIMEOUT(mig, startup_ends_with_its_session, MIG_TIMEOUT) /* R70 */
{
	struct mig_dev *m = &self->m;
	int fd, later;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	if (lacks_ioctl(m))
		SKIP(return, NO_IOCTL);
	/* A later session does not bring it back. */
	ASSERT_EQ(0, mig_set_state(m->dev, SC, &fd));
	ASSERT_EQ(0, mig_set_state(m->dev, STOP, NULL));
	check_dead(_metadata, fd);
	ASSERT_EQ(0, mig_set_state(m->dev, SC, &later));
	check_dead(_metadata, fd);
	close(fd);
	close(later);

	mig_fresh(m);
	ASSERT_EQ(0, mig_save(m->dev, &self->stream));
	mig_fresh(m);
	ASSERT_TRUE(mig_go_to(m, RES, &self->stream, &fd));
	ASSERT_EQ(0, mig_set_state(m->dev, STOP, NULL));
	check_dead(_metadata, fd);
	close(fd);
}

int main(int argc, char *argv[])
{
	return mig_test_main(argc, argv);
}
