// SPDX-License-Identifier: GPL-2.0-only
/* Conformance, rules R59 to R62: VFIO_DEVICE_FEATURE_DMA_LOGGING_*. */
#include <errno.h>
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

#define MAX_RANGES	4096
#define WORDS		64

typedef struct vfio_device_feature_dma_logging_range log_range;

static int log_start(struct mig_dev *m, u64 page_size, u64 iova, u64 length)
{
	log_range range = { .iova = iova, .length = length };

	return dma_log_start(m->dev, &page_size, &range, 1);
}

static int log_report(struct mig_dev *m)
{
	u64 bitmap = 0;

	return dma_log_report(m->dev, 0, SZ_64K, SZ_4K, &bitmap);
}

/* Refused, and still stopped. */
static bool log_refuses(struct mig_dev *m, u64 page_size, u64 iova, u64 length)
{
	int ret = log_start(m, page_size, iova, length);

	if (ret == -EINVAL && log_report(m) < 0)
		return true;

	fprintf(stderr, "# page size %#lx, range %#lx + %#lx: %d\n", page_size,
		iova, length, ret);
	dma_log_stop(m->dev);
	return false;
}

TEST_F_TIMEOUT(mig, logging_that_is_absent_is_enotty, MIG_TIMEOUT) /* R59, R60, R61 */
{
	struct mig_dev *m = &self->m;

	if (mig_has_dma_log(m))
		SKIP(return, "%s does log DMA", m->bdf);
	EXPECT_EQ(-ENOTTY, log_start(m, SZ_4K, 0, SZ_1M));
	EXPECT_EQ(-ENOTTY, dma_log_stop(m->dev));
	EXPECT_EQ(-ENOTTY, log_report(m));
}

TEST_F_TIMEOUT(mig, bad_range_is_refused, MIG_TIMEOUT) /* R59 */
{
	struct mig_dev *m = &self->m;

	if (!mig_has_dma_log(m))
		SKIP(return, "%s", m->lacks);
	/* Not aligned. */
	EXPECT_TRUE(log_refuses(m, SZ_4K, 0x800, SZ_1M));
	EXPECT_TRUE(log_refuses(m, SZ_4K, 0, 0x1800));
	EXPECT_TRUE(log_refuses(m, SZ_2M, SZ_4K, SZ_2M));
	EXPECT_EQ(-EOVERFLOW, log_start(m, SZ_4K, ~0ULL << 12, SZ_8K));
	EXPECT_EQ(0, log_start(m, SZ_4K, 0, SZ_1M));
	EXPECT_EQ(0, dma_log_stop(m->dev));
}

/* The core lets all of these pass: the driver has to look. */
TEST_F_TIMEOUT(mig, bad_page_size_and_length_are_refused, MIG_TIMEOUT) /* R59 */
{
	struct mig_dev *m = &self->m;

	if (!mig_has_dma_log(m))
		SKIP(return, "%s", m->lacks);
	EXPECT_TRUE(log_refuses(m, SZ_4K, 0, 0));
	EXPECT_TRUE(log_refuses(m, SZ_4K, SZ_1M, 0));
	/* No power of two, with a range that passes for aligned. */
	EXPECT_TRUE(log_refuses(m, 0x3000, 0, SZ_64K));
	EXPECT_TRUE(log_refuses(m, 3, 0, SZ_64K));
	EXPECT_TRUE(log_refuses(m, 0, 0, 0));
	EXPECT_TRUE(log_refuses(m, 0, 0, SZ_1M));
	EXPECT_TRUE(log_refuses(m, ~0ULL, 0, 0));
}

TEST_F_TIMEOUT(mig, number_of_ranges_is_bounded, MIG_TIMEOUT) /* R59 */
{
	static log_range ranges[MAX_RANGES + 1];
	struct mig_dev *m = &self->m;
	u64 page_size = SZ_4K;
	long max;
	int i;

	if (!mig_has_dma_log(m))
		SKIP(return, "%s", m->lacks);
	max = sysconf(_SC_PAGESIZE) / sizeof(log_range);
	ASSERT_GE(MAX_RANGES, max);
	for (i = 0; i <= max; i++)
		ranges[i] = (log_range) { i * SZ_1M, SZ_64K };

	EXPECT_EQ(-EINVAL, dma_log_start(m->dev, &page_size, ranges, 0));
	EXPECT_EQ(-E2BIG, dma_log_start(m->dev, &page_size, ranges, max + 1));
	EXPECT_EQ(-E2BIG, dma_log_start(m->dev, &page_size, ranges, ~0U));
	EXPECT_EQ(-EFAULT, dma_log_start(m->dev, &page_size, mig_bad_address, 1));
	EXPECT_EQ(0, dma_log_start(m->dev, &page_size, ranges, max));
	EXPECT_LE(SZ_4K, page_size);
	EXPECT_EQ(0, page_size & (page_size - 1));
	EXPECT_EQ(0, dma_log_stop(m->dev));
}

TEST_F_TIMEOUT(mig, overlapping_ranges_are_refused, MIG_TIMEOUT) /* R59 */
{
	log_range ranges[2] = { { 0, SZ_64K }, { SZ_32K, SZ_64K } };
	struct mig_dev *m = &self->m;
	u64 page_size = SZ_4K;

	if (!mig_has_dma_log(m))
		SKIP(return, "%s", m->lacks);
	EXPECT_EQ(-EINVAL, dma_log_start(m->dev, &page_size, ranges, 2));
	ranges[1] = ranges[0];
	EXPECT_EQ(-EINVAL, dma_log_start(m->dev, &page_size, ranges, 2));
	EXPECT_GT(0, log_report(m));
}

TEST_F_TIMEOUT(mig, second_start_is_refused, MIG_TIMEOUT) /* R59 */
{
	struct mig_dev *m = &self->m;

	if (!mig_has_dma_log(m))
		SKIP(return, "%s", m->lacks);
	ASSERT_EQ(0, log_start(m, SZ_4K, 0, SZ_1M));
	EXPECT_GT(0, log_start(m, SZ_4K, SZ_2M, SZ_1M));
	/* The refused one has not ended the first. */
	EXPECT_EQ(0, log_report(m));
	EXPECT_EQ(0, dma_log_stop(m->dev));
	EXPECT_GT(0, log_report(m));

	/* Any granularity that the user hints at. */
	ASSERT_EQ(0, log_start(m, SZ_2M, 0, SZ_1G));
	EXPECT_EQ(0, dma_log_stop(m->dev));
}

TEST_F_TIMEOUT(mig, stop_without_start_is_harmless, MIG_TIMEOUT) /* R60 */
{
	struct mig_dev *m = &self->m;

	if (!mig_has_dma_log(m))
		SKIP(return, "%s", m->lacks);
	/* An error or none, but the device is as good as before. */
	(void)dma_log_stop(m->dev);
	EXPECT_EQ(0, log_start(m, SZ_4K, 0, SZ_1M));
	EXPECT_EQ(0, dma_log_stop(m->dev));
	(void)dma_log_stop(m->dev);
	EXPECT_EQ(0, log_start(m, SZ_4K, 0, SZ_1M));
	EXPECT_EQ(0, log_report(m));
}

/* An answer that cannot be written ends the log again. */
TEST_F_TIMEOUT(mig, start_that_faults_leaves_no_logging, MIG_TIMEOUT) /* R60 */
{
	struct vfio_device_feature_dma_logging_control *control;
	struct vfio_device_feature *feature;
	log_range range = { 0, SZ_1M };
	struct mig_dev *m = &self->m;

	if (!mig_has_dma_log(m))
		SKIP(return, "%s", m->lacks);
	feature = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, feature);
	feature->argsz = sizeof(*feature) + sizeof(*control);
	feature->flags = VFIO_DEVICE_FEATURE_SET |
			 VFIO_DEVICE_FEATURE_DMA_LOGGING_START;
	control = (void *)feature->data;
	control->page_size = SZ_4K;
	control->num_ranges = 1;
	control->ranges = (uintptr_t)&range;
	ASSERT_EQ(0, mprotect(feature, 4096, PROT_READ));

	EXPECT_EQ(-1, ioctl(m->fd, VFIO_DEVICE_FEATURE, feature));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_GT(0, log_report(m));
	EXPECT_EQ(0, log_start(m, SZ_4K, 0, SZ_1M));
	munmap(feature, 4096);
}

TEST_F_TIMEOUT(mig, bad_report_is_refused, MIG_TIMEOUT) /* R61 */
{
	struct mig_dev *m = &self->m;
	u64 bitmap = 0;

	if (!mig_has_dma_log(m))
		SKIP(return, "%s", m->lacks);
	EXPECT_GT(0, log_report(m));
	ASSERT_EQ(0, log_start(m, SZ_4K, 0, SZ_16M));
	EXPECT_EQ(-EINVAL, dma_log_report(m->dev, 0, SZ_64K, 0, &bitmap));
	EXPECT_EQ(-EINVAL, dma_log_report(m->dev, 0, SZ_64K, 2048, &bitmap));
	EXPECT_EQ(-EINVAL, dma_log_report(m->dev, 0, SZ_64K, 0x3000, &bitmap));
	EXPECT_EQ(-EOVERFLOW, dma_log_report(m->dev, ~0ULL << 12, SZ_8K, SZ_4K,
					     &bitmap));
	EXPECT_EQ(0, bitmap);
	/* None of that has ended it. */
	EXPECT_EQ(0, log_report(m));
}

/* A report sets bits. It never clears one that the user has set. */
TEST_F_TIMEOUT(mig, report_only_sets_bits, MIG_TIMEOUT) /* R61 */
{
	static const struct {
		u64 iova;
		u64 length;
		u64 page_size;
	} sub[] = {
		{ 0, SZ_16M, SZ_4K }, { SZ_1M, SZ_64K, SZ_4K },
		{ SZ_8M, SZ_8M, SZ_64K }, { SZ_4K, SZ_4K, SZ_4K },
	};
	static const u8 before[] = { 0, 0xff, 0xa5 };
	struct mig_dev *m = &self->m;
	u64 bitmap[WORDS], want[WORDS];
	unsigned int i, k, word;

	if (!mig_has_dma_log(m))
		SKIP(return, "%s", m->lacks);
	ASSERT_EQ(0, log_start(m, SZ_4K, 0, SZ_16M));
	for (i = 0; i < ARRAY_SIZE(sub); i++) {
		for (k = 0; k < ARRAY_SIZE(before); k++) {
			memset(bitmap, before[k], sizeof(bitmap));
			memcpy(want, bitmap, sizeof(want));
			EXPECT_EQ(0, dma_log_report(m->dev, sub[i].iova,
						    sub[i].length,
						    sub[i].page_size, bitmap));
			for (word = 0; word < WORDS; word++) {
				EXPECT_EQ(want[word], bitmap[word] & want[word])
					TH_LOG("sub-range %u", i);
			}
		}
	}
	EXPECT_EQ(0, dma_log_stop(m->dev));
}

/* Independent of the state machine, ended by reset and by close. */
TEST_F_TIMEOUT(mig, logging_ends_with_reset_and_close, MIG_TIMEOUT) /* R62 */
{
	static const u8 states[] = { RP, PC, PCP, SC, STOP };
	struct mig_dev *m = &self->m;
	unsigned int i;
	int fd;

	if (!mig_has_dma_log(m) || !mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	for (i = 0; i < ARRAY_SIZE(states); i++) {
		if (!mig_has_state(m, states[i]))
			continue;
		mig_fresh(m);
		EXPECT_EQ(0, log_start(m, SZ_4K, 0, SZ_1M))
			TH_LOG("the reset has not ended the last one");
		ASSERT_EQ(0, mig_set_state(m->dev, states[i], &fd));
		EXPECT_EQ(0, log_report(m)) TH_LOG("%s", mig_state_name(states[i]));
		mig_close_fd(fd);
		EXPECT_EQ(0, mig_set_state(m->dev, RUN, NULL));
		EXPECT_EQ(0, log_report(m));
	}
	mig_fresh(m);
	EXPECT_GT(0, log_report(m));
	EXPECT_EQ(0, log_start(m, SZ_4K, 0, SZ_1M));
	mig_reopen(m);
	EXPECT_GT(0, log_report(m));
	EXPECT_EQ(0, log_start(m, SZ_4K, 0, SZ_1M));
}

int main(int argc, char *argv[])
{
	return mig_test_main(argc, argv);
}
