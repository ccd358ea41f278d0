// SPDX-License-Identifier: GPL-2.0-only
/*
 * Conformance, rules R1 to R10 and R50 to R52: the envelope of
 * VFIO_DEVICE_FEATURE, and what the migration features answer, whatever is the
 * state. Any vfio-pci device will do; where one has no migration, that is
 * what the tests look at.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>

#include <linux/limits.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/mig_fixture.h>

#define MIG_GET	(VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION)
#define ALL_FLAGS (VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P | \
		   VFIO_MIGRATION_PRE_COPY)

static int raw_feature(int fd, u32 argsz, u32 flags)
{
	u8 buf[64] = {};
	struct vfio_device_feature *feature = (void *)buf;

	feature->argsz = argsz;
	feature->flags = flags;

	return ioctl(fd, VFIO_DEVICE_FEATURE, feature) ? -errno : 0;
}

TEST_F_TIMEOUT(mig, short_or_unreadable_struct_is_refused, MIG_TIMEOUT) /* R1 */
{
	EXPECT_EQ(-EINVAL, raw_feature(self->m.fd, 7, MIG_GET));
	EXPECT_EQ(-EINVAL, raw_feature(self->m.fd, 0, MIG_GET));
	EXPECT_EQ(-1, ioctl(self->m.fd, VFIO_DEVICE_FEATURE, mig_bad_address));
	EXPECT_EQ(EFAULT, errno);
}

TEST_F_TIMEOUT(mig, unknown_flags_are_einval, MIG_TIMEOUT) /* R2 */
{
	u32 bit;

	for (bit = 19; bit < 32; bit++) {
		EXPECT_EQ(-EINVAL, raw_feature(self->m.fd, 16, MIG_GET | 1U << bit))
			TH_LOG("bit %u", bit);
	}
}

TEST_F_TIMEOUT(mig, get_with_set_is_einval, MIG_TIMEOUT) /* R3 */
{
	u16 feature;

	for (feature = 0; feature < 16; feature++) {
		EXPECT_EQ(-EINVAL, raw_feature(self->m.fd, 64, feature |
					       VFIO_DEVICE_FEATURE_GET |
					       VFIO_DEVICE_FEATURE_SET))
			TH_LOG("feature %u", feature);
	}
}

/* The features of migration, and what may be done with each. */
static const struct feature {
	u16 index;
	bool get;
	bool set;
	u8 size;
} features[] = {
	{ VFIO_DEVICE_FEATURE_MIGRATION, true, false,
	  sizeof(struct vfio_device_feature_migration) },
	{ VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, true, true,
	  sizeof(struct vfio_device_feature_mig_state) },
	{ VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, true, false,
	  sizeof(struct vfio_device_feature_mig_data_size) },
	{ VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2, false, true, 0 },
	{ VFIO_DEVICE_FEATURE_DMA_LOGGING_START, false, true,
	  sizeof(struct vfio_device_feature_dma_logging_control) },
	{ VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, false, true, 0 },
	{ VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, true, false,
	  sizeof(struct vfio_device_feature_dma_logging_report) },
};

static bool offers(struct mig_dev *m, u16 index)
{
	if (index == VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2)
		return mig_has_info_v2(m);
	if (index >= VFIO_DEVICE_FEATURE_DMA_LOGGING_START &&
	    index <= VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT)
		return mig_has_dma_log(m);

	return true;
}

TEST_F_TIMEOUT(mig, no_operation_is_einval, MIG_TIMEOUT) /* R4 */
{
	unsigned int i;

	if (!mig_has(&self->m, HAS_MIGRATION))
		SKIP(return, "%s", self->m.lacks);
	for (i = 0; i < ARRAY_SIZE(features); i++) {
		if (!offers(&self->m, features[i].index))
			continue;
		EXPECT_EQ(-EINVAL, raw_feature(self->m.fd, 64, features[i].index))
			TH_LOG("feature %u", features[i].index);
	}
	EXPECT_TRUE(mig_state_is(&self->m, RUN));
}

TEST_F_TIMEOUT(mig, probe_needs_no_payload, MIG_TIMEOUT) /* R5 */
{
	const struct feature *f;
	int fd = self->m.fd;

	if (!mig_has(&self->m, HAS_MIGRATION))
		SKIP(return, "%s", self->m.lacks);
	for (f = features; f < features + ARRAY_SIZE(features); f++) {
		if (!offers(&self->m, f->index))
			continue;
		EXPECT_EQ(0, vfio_feature_probe(fd, f->index, 0))
			TH_LOG("feature %u", f->index);
		EXPECT_EQ(f->get ? 0 : -EINVAL,
			  vfio_feature_probe(fd, f->index,
					     VFIO_DEVICE_FEATURE_GET))
			TH_LOG("feature %u", f->index);
		EXPECT_EQ(f->set ? 0 : -EINVAL,
			  vfio_feature_probe(fd, f->index,
					     VFIO_DEVICE_FEATURE_SET))
			TH_LOG("feature %u", f->index);
		EXPECT_EQ(f->get && f->set ? 0 : -EINVAL,
			  vfio_feature_probe(fd, f->index,
					     VFIO_DEVICE_FEATURE_GET |
					     VFIO_DEVICE_FEATURE_SET))
			TH_LOG("feature %u", f->index);
	}
}

static u32 method(const struct feature *f)
{
	return f->index | (f->set ? VFIO_DEVICE_FEATURE_SET :
				    VFIO_DEVICE_FEATURE_GET);
}

TEST_F_TIMEOUT(mig, short_payload_is_einval, MIG_TIMEOUT) /* R6 */
{
	const struct feature *f;

	if (!mig_has(&self->m, HAS_MIGRATION))
		SKIP(return, "%s", self->m.lacks);
	for (f = features; f < features + ARRAY_SIZE(features); f++) {
		if (!offers(&self->m, f->index) || !f->size)
			continue;
		EXPECT_EQ(-EINVAL, raw_feature(self->m.fd, 8, method(f)))
			TH_LOG("feature %u", f->index);
		EXPECT_EQ(-EINVAL, raw_feature(self->m.fd, 8 + f->size - 1,
					       method(f)))
			TH_LOG("feature %u", f->index);
	}
	EXPECT_EQ(0, raw_feature(self->m.fd, 16, MIG_GET));
	EXPECT_EQ(0, raw_feature(self->m.fd, 64, MIG_GET));
}

/* The header can be read, the payload is not there. */
TEST_F_TIMEOUT(mig, unreadable_payload_is_efault, MIG_TIMEOUT) /* R6 */
{
	struct vfio_device_feature *feature;
	const struct feature *f;

	if (!mig_has(&self->m, HAS_MIGRATION))
		SKIP(return, "%s", self->m.lacks);
	feature = mig_end_of_page(sizeof(*feature));
	for (f = features; f < features + ARRAY_SIZE(features); f++) {
		if (!offers(&self->m, f->index) || !f->size)
			continue;
		feature->argsz = sizeof(*feature) + 64;
		feature->flags = method(f);
		EXPECT_EQ(-1, ioctl(self->m.fd, VFIO_DEVICE_FEATURE, feature));
		EXPECT_EQ(EFAULT, errno) TH_LOG("feature %u", f->index);
	}
	EXPECT_TRUE(mig_state_is(&self->m, RUN));
}

TEST_F_TIMEOUT(mig, unknown_feature_is_enotty, MIG_TIMEOUT) /* R7 */
{
	static const u16 unknown[] = { 0x7f00, 0xffff };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(unknown); i++) {
		EXPECT_EQ(-ENOTTY, raw_feature(self->m.fd, 64, unknown[i] |
					       VFIO_DEVICE_FEATURE_GET));
		EXPECT_EQ(-ENOTTY, raw_feature(self->m.fd, 64, unknown[i] |
					       VFIO_DEVICE_FEATURE_SET));
		EXPECT_EQ(-ENOTTY, raw_feature(self->m.fd, 64, unknown[i] |
					       VFIO_DEVICE_FEATURE_PROBE));
	}
}

TEST_F_TIMEOUT(mig, migration_flags_are_constant, MIG_TIMEOUT) /* R8 */
{
	struct vfio_device_feature_migration poisoned = { .flags = ~0ULL };
	static const u8 states[] = { RUN, RP, PC, PCP, STOP, SC, RES };
	unsigned int i;
	u64 flags = 0;
	int fd;

	if (!mig_has(&self->m, HAS_MIGRATION))
		SKIP(return, "%s", self->m.lacks);
	EXPECT_EQ(0, self->m.flags & ~(u64)ALL_FLAGS);
	EXPECT_EQ(0, vfio_feature_get(self->m.fd, VFIO_DEVICE_FEATURE_MIGRATION,
				      &poisoned, sizeof(poisoned)));
	EXPECT_EQ(self->m.flags, poisoned.flags);
	EXPECT_EQ(-EINVAL, vfio_feature_set(self->m.fd,
					    VFIO_DEVICE_FEATURE_MIGRATION,
					    &poisoned, sizeof(poisoned)));

	/* They are properties of the device, not of its state. */
	for (i = 0; i < ARRAY_SIZE(states); i++) {
		if (!mig_has_state(&self->m, states[i]))
			continue;
		mig_fresh(&self->m);
		ASSERT_EQ(0, mig_set_state(self->m.dev, states[i], &fd));
		EXPECT_EQ(0, mig_flags(self->m.dev, &flags));
		EXPECT_EQ(self->m.flags, flags);
		mig_close_fd(fd);
	}
	mig_reopen(&self->m);
	EXPECT_EQ(flags, self->m.flags);
}

TEST_F_TIMEOUT(mig, no_migration_is_enotty, MIG_TIMEOUT) /* R8, R50 */
{
	u8 buf[64] = {};
	int fd;

	if (self->m.flags)
		SKIP(return, "%s does migrate", mig_bdf);
	EXPECT_EQ(-ENOTTY, raw_feature(self->m.fd, 64, MIG_GET));
	EXPECT_EQ(-ENOTTY, vfio_feature_probe(self->m.fd,
					      VFIO_DEVICE_FEATURE_MIGRATION, 0));
	EXPECT_EQ(-ENOTTY, mig_set_state(self->m.dev, STOP, &fd));
	EXPECT_EQ(-ENOTTY, vfio_feature_get(self->m.fd,
					    VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
					    buf, sizeof(buf)));
	EXPECT_EQ(-ENOTTY, vfio_feature_get(self->m.fd,
					    VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
					    buf, sizeof(buf)));
}

TEST_F_TIMEOUT(mig, get_state_returns_no_fd, MIG_TIMEOUT) /* R9 */
{
	static const u8 states[] = { RP, PC, PCP, STOP, SC, RES };
	unsigned int i;
	int fd;

	if (!mig_has(&self->m, HAS_MIGRATION))
		SKIP(return, "%s", self->m.lacks);
	EXPECT_TRUE(mig_state_is(&self->m, RUN));
	for (i = 0; i < ARRAY_SIZE(states); i++) {
		if (!mig_has_state(&self->m, states[i]))
			continue;
		mig_fresh(&self->m);
		ASSERT_EQ(0, mig_set_state(self->m.dev, states[i], &fd));
		/* It also looks whether the data fd is -1. */
		EXPECT_TRUE(mig_state_is(&self->m, states[i]));
		mig_close_fd(fd);
	}
}

/* What the core tells of the device in debugfs; false if it does not. */
static bool debugfs_state(char *word)
{
	char path[PATH_MAX];
	bool there;
	FILE *f;

	snprintf_assert(path, sizeof(path),
			"/sys/kernel/debug/vfio/%s/migration/state", mig_bdf);
	f = fopen(path, "r");
	if (!f)
		return false;
	there = fscanf(f, "%31s", word) == 1;
	fclose(f);

	return there;
}

/* Nothing of one user's migration is left for the next. */
TEST_F_TIMEOUT(mig, opened_device_is_running, MIG_TIMEOUT) /* R10, R55 */
{
	static const u8 states[] = { PC, STOP, SC, RES };
	unsigned int i;
	char word[32];
	int fd;

	if (!mig_has(&self->m, HAS_MIGRATION))
		SKIP(return, "%s", self->m.lacks);
	for (i = 0; i < ARRAY_SIZE(states); i++) {
		if (!mig_has_state(&self->m, states[i]))
			continue;
		ASSERT_EQ(0, mig_set_state(self->m.dev, states[i], &fd));
		mig_reopen(&self->m);
		mig_close_fd(fd);
		EXPECT_TRUE(mig_state_is(&self->m, RUN));
		EXPECT_EQ(0, mig_save(self->m.dev, &self->stream));
		self->stream.len = 0;
		EXPECT_EQ(0, mig_set_state(self->m.dev, RUN, NULL));
	}

	/* The core may ask a device for its state that nobody has opened. */
	mig_close(&self->m);
	if (debugfs_state(word))
		EXPECT_STREQ("RUNNING", word);
	mig_open(&self->m, mig_bdf, variant->mode);
	if (debugfs_state(word))
		EXPECT_STREQ("RUNNING", word);
}

TEST_F_TIMEOUT(mig, data_size_in_every_state, MIG_TIMEOUT) /* R50 */
{
	static const u8 states[] = { RUN, RP, STOP, SC, RES, PC, PCP, ERR };
	unsigned int i;
	u64 size = 0;
	int fd;

	if (!mig_has(&self->m, HAS_MIGRATION))
		SKIP(return, "%s", self->m.lacks);
	ASSERT_EQ(0, mig_save(self->m.dev, &self->stream));
	EXPECT_EQ(-EINVAL, vfio_feature_set(self->m.fd,
					    VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
					    &size, sizeof(size)));
	for (i = 0; i < ARRAY_SIZE(states); i++) {
		if (!mig_has_state(&self->m, states[i]))
			continue;
		mig_fresh(&self->m);
		mig_go_to(&self->m, states[i], &self->stream, &fd);
		EXPECT_EQ(0, mig_data_size(self->m.dev, &size))
			TH_LOG("%s", mig_state_name(states[i]));
		/* The helper asks with all bits set. */
		EXPECT_NE(~0ULL, size);
		mig_close_fd(fd);
	}
}

TEST_F_TIMEOUT(mig, precopy_info_v2_can_be_set, MIG_TIMEOUT) /* R51 */
{
	int fd = self->m.fd;
	u8 byte = 0;

	if (!mig_has_info_v2(&self->m))
		SKIP(return, "%s", self->m.lacks);
	EXPECT_EQ(0, vfio_feature_probe(fd, VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
					VFIO_DEVICE_FEATURE_SET));
	EXPECT_EQ(-EINVAL, vfio_feature_get(fd,
					    VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
					    &byte, 1));
	/* There is no payload: argsz is 8. */
	EXPECT_EQ(0, mig_precopy_v2_enable(self->m.dev));
	EXPECT_EQ(0, mig_precopy_v2_enable(self->m.dev));
}

TEST_F_TIMEOUT(mig, precopy_info_v2_without_precopy_is_einval, MIG_TIMEOUT) /* R51 */
{
	if (mig_has(&self->m, HAS_PRE_COPY))
		SKIP(return, "%s has PRE_COPY", mig_bdf);
	if (!mig_kernel_has_info_v2(self->m.dev))
		SKIP(return, "the kernel has no MIG_PRECOPY_INFOv2");
	EXPECT_EQ(-EINVAL, mig_precopy_v2_enable(self->m.dev));
	EXPECT_EQ(-EINVAL, vfio_feature_probe(self->m.fd,
					      VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
					      0));
}

/* It outlasts a reset; PRECOPY_INFO's flags are an output from then on. */
TEST_F_TIMEOUT(mig, precopy_info_v2_outlasts_reset, MIG_TIMEOUT) /* R52 */
{
	struct vfio_precopy_info info = { .flags = ~0U };
	int fd;

	if (!mig_has_info_v2(&self->m) || !mig_has_reset(&self->m))
		SKIP(return, "%s", self->m.lacks);
	ASSERT_EQ(0, mig_precopy_v2_enable(self->m.dev));
	mig_fresh(&self->m);
	ASSERT_EQ(0, mig_set_state(self->m.dev, PC, &fd));
	ASSERT_EQ(0, mig_precopy_info(fd, &info));
	EXPECT_EQ(0, info.flags & ~VFIO_PRECOPY_INFO_REINIT);
	close(fd);
}

int main(int argc, char *argv[])
{
	return mig_test_main(argc, argv);
}
