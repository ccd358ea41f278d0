// SPDX-License-Identifier: GPL-2.0-only
/*
 * What Cloud Hypervisor does to a device that it migrates, ioctl by ioctl, as of
 * August 2026. It knows no PRE_COPY: it logs DMA while the VM runs, stops the
 * device, and takes all of its state at once, in STOP_COPY; the target writes the
 * whole of it in one go, and sets the COMMAND register in RESUMING.
 *
 * Threads stamp the memory all the while, as vCPUs would.
 */
#include <errno.h>
#include <unistd.h>

#include <sys/ioctl.h>

#include <linux/pci_regs.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_states.h>
#include <libvfio/stamp_writer.h>
#include <libvfio/vfio_pci_migration.h>

#include <libvfio/mig_harness.h>

#define SIZE		SZ_4M
#define NR_PAGES	(SIZE / PRECOPY_PAGE)
#define NR_VCPUS	2
#define BURST		64
#define NR_STAMPS	200
#define PATIENCE_MS	60000
/* The VM's RAM: below and above the hole */
#define LOW_RAM		SZ_128M
#define HIGH_RAM_AT	SZ_4G
#define HIGH_RAM	SZ_64M
#define ROUNDS		3
/* How a growing buffer is read into */
#define FIRST_READ	32

static char **bdfs;
static int nr_bdfs;

FIXTURE(hypervisor) {
	struct precopy_dev a;
	struct precopy_dev b;
	struct stamp_writer vcpus[NR_VCPUS];
	struct mig_stream blob;
	u64 log_page_size;
};

FIXTURE_VARIANT(hypervisor) {
	const char *mode;
};

#define FIXTURE_VARIANT_ADD_IOMMU_MODE(_mode)	\
FIXTURE_VARIANT_ADD(hypervisor, _mode) {	\
	.mode = #_mode,				\
}

/* The two ways in to a device that differ in code. */
FIXTURE_VARIANT_ADD_IOMMU_MODE(vfio_type1v2_iommu);
FIXTURE_VARIANT_ADD_IOMMU_MODE(iommufd);

#undef FIXTURE_VARIANT_ADD_IOMMU_MODE

typedef FIXTURE_DATA(hypervisor) vmm_t;

static const struct vfio_device_feature_dma_logging_range ram[] = {
	{ .iova = 0, .length = LOW_RAM },
	{ .iova = HIGH_RAM_AT, .length = HIGH_RAM },
};

/* A device is reset when it is made part of a VM, and asked whether it migrates. */
static int vmm_add_device(struct precopy_dev *pd)
{
	u64 flags = 0;
	int ret;

	precopy_reset(pd);
	ret = mig_flags(pd->dev, &flags);
	if (ret)
		return ret;

	return flags & VFIO_MIGRATION_STOP_COPY ? 0 : -EOPNOTSUPP;
}

static void vmm_set_command(struct precopy_dev *pd, u16 command)
{
	vfio_pci_config_writew(pd->dev, PCI_COMMAND, command);
}

FIXTURE_SETUP(hypervisor)
{
	int i;

	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	precopy_open(&self->a, bdfs[0], variant->mode, SIZE);
	precopy_open(&self->b, bdfs[1], variant->mode, SIZE);
	if (!dma_log_offered(self->a.fd))
		SKIP(return, "no DMA logging, without which it refuses to migrate");
	ASSERT_EQ(0, vmm_add_device(&self->a));
	ASSERT_EQ(0, vmm_add_device(&self->b));
	/* The guest of the source turns memory on, that of the target has not run. */
	vmm_set_command(&self->a, PCI_COMMAND_MEMORY);
	vmm_set_command(&self->b, 0);
	for (i = 0; i < NR_VCPUS; i++)
		stamp_writer_init(&self->vcpus[i], &self->a, NULL, self->a.bar,
				  i, &stamp_random);
}

FIXTURE_TEARDOWN(hypervisor)
{
	int i;

	for (i = 0; i < NR_VCPUS; i++)
		stamp_writer_cleanup(&self->vcpus[i]);
	mig_stream_free(&self->blob);
	precopy_close(&self->a);
	precopy_close(&self->b);
}

/* ------------------------------------------------------------------------ */
/* Its methods, by their names there                                        */

static int start_dirty_log(vmm_t *self)
{
	self->log_page_size = getpagesize();

	return dma_log_start(self->a.dev, &self->log_page_size, ram,
			     ARRAY_SIZE(ram));
}

/* By the granularity that the driver told, and must be empty: it does no DMA. */
static int dirty_log(vmm_t *self)
{
	u64 nr, words, i, *bitmap;
	size_t range;
	int ret = 0;

	for (range = 0; range < ARRAY_SIZE(ram) && !ret; range++) {
		nr = ram[range].length / self->log_page_size;
		words = (nr + 63) / 64;
		bitmap = calloc(words, sizeof(*bitmap));
		VFIO_ASSERT_NOT_NULL(bitmap);
		ret = dma_log_report(self->a.dev, ram[range].iova, ram[range].length,
				     self->log_page_size, bitmap);
		for (i = 0; i < words && !ret; i++)
			if (bitmap[i])
				ret = -EUCLEAN;
		free(bitmap);
	}

	return ret;
}

static u64 stamps(vmm_t *self)
{
	u64 sum = 0;
	size_t page;
	int i;

	for (i = 0; i < NR_VCPUS; i++)
		for (page = 0; page < NR_PAGES; page++)
			sum += self->vcpus[i].done[page];

	return sum;
}

/* At least so many stamps are seen to be made. */
static void guest_runs(vmm_t *self)
{
	u64 enough = stamps(self) + NR_STAMPS, end = precopy_now_ms() + PATIENCE_MS;
	int i;

	for (i = 0; i < NR_VCPUS; i++)
		stamp_writer_bursts(&self->vcpus[i], BURST);
	while (stamps(self) < enough) {
		VFIO_ASSERT_LT(precopy_now_ms(), end, "no stamps are made\n");
		usleep(1000);
	}
}

static void guest_stops(vmm_t *self)
{
	int i;

	for (i = 0; i < NR_VCPUS; i++)
		stamp_writer_stop(&self->vcpus[i]);
	for (i = 0; i < NR_VCPUS; i++)
		stamp_writer_wait(&self->vcpus[i]);
	stamp_image(self->a.shadow, NR_PAGES, self->vcpus, NR_VCPUS);
}

/* vCPUs first, then devices. */
static int pause_vm(vmm_t *self)
{
	guest_stops(self);

	return mig_set_state(self->a.dev, STOP, NULL);
}

/* Into a vector that is doubled whenever it is full. */
static int read_migration_data(struct mig_stream *blob, int data_fd)
{
	size_t room = FIRST_READ;
	ssize_t n;

	for (;;) {
		n = mig_stream_read(blob, data_fd, room);
		if (n <= 0)
			return n;
		room -= n;
		if (!room)
			room = blob->len;
	}
}

static int snapshot(struct precopy_dev *pd, struct mig_stream *blob)
{
	int data_fd, ret, stop;

	ret = mig_set_state(pd->dev, STOP_COPY, &data_fd);
	if (ret)
		return ret;
	ret = read_migration_data(blob, data_fd);
	stop = mig_set_state(pd->dev, STOP, NULL);
	close(data_fd);

	return ret ?: stop;
}

/* A failed write is answered with a reset, and an armed device. */
static int restore(struct precopy_dev *pd, const struct mig_stream *blob)
{
	int data_fd, ret;

	ret = mig_set_state(pd->dev, RESUMING, &data_fd);
	if (ret)
		return ret;
	ret = mig_write_all(data_fd, blob->data, blob->len, blob->len, NULL);
	if (ret)
		precopy_reset(pd);
	vmm_set_command(pd, PCI_COMMAND_MEMORY);
	close(data_fd);

	return ret;
}

static int send(vmm_t *self)
{
	int i, ret;

	ret = start_dirty_log(self);
	for (i = 0; i < ROUNDS && !ret; i++) {
		guest_runs(self);
		ret = dirty_log(self);
		guest_stops(self);
	}
	guest_runs(self);
	ret = ret ?: pause_vm(self);
	ret = ret ?: dirty_log(self);
	ret = ret ?: snapshot(&self->a, &self->blob);

	/* What the snapshot itself has made dirty */
	return ret ?: dirty_log(self);
}

/* ------------------------------------------------------------------------ */

TEST_F_TIMEOUT(hypervisor, migrates, MIG_TIMEOUT)
{
	ASSERT_EQ(0, send(self));
	ASSERT_EQ(0, restore(&self->b, &self->blob));
	EXPECT_EQ(RESUMING, mig_get_state(self->b.dev));
	ASSERT_EQ(0, mig_set_state(self->b.dev, RUNNING, NULL));
	EXPECT_EQ(0, dma_log_stop(self->a.dev));

	EXPECT_EQ(0, precopy_differ(&self->b, self->a.shadow));
	EXPECT_EQ(STOP, mig_get_state(self->a.dev));
}

/* The target cannot be reached: the source goes on, and moves later. */
TEST_F_TIMEOUT(hypervisor, fails_and_goes_on, MIG_TIMEOUT)
{
	ASSERT_EQ(0, send(self));
	EXPECT_EQ(0, dma_log_stop(self->a.dev));
	ASSERT_EQ(0, mig_set_state(self->a.dev, RUNNING, NULL));
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));

	mig_stream_free(&self->blob);
	ASSERT_EQ(0, send(self));
	ASSERT_EQ(0, restore(&self->b, &self->blob));
	ASSERT_EQ(0, mig_set_state(self->b.dev, RUNNING, NULL));
	EXPECT_EQ(0, precopy_differ(&self->b, self->a.shadow));
	EXPECT_EQ(0, dma_log_stop(self->a.dev));
}

/* Snapshots of a VM that is paused all the while. */
TEST_F_TIMEOUT(hypervisor, snapshots_are_alike, MIG_TIMEOUT)
{
	struct mig_stream again = {};

	guest_runs(self);
	ASSERT_EQ(0, pause_vm(self));
	ASSERT_EQ(0, snapshot(&self->a, &self->blob));
	ASSERT_EQ(0, snapshot(&self->a, &again));
	EXPECT_EQ(self->blob.len, again.len);
	EXPECT_EQ(0, memcmp(self->blob.data, again.data, again.len));
	mig_stream_free(&again);

	ASSERT_EQ(0, mig_set_state(self->a.dev, RUNNING, NULL));
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
}

/* A damaged blob leaves a device that is as good as new, and takes a right one. */
TEST_F_TIMEOUT(hypervisor, damaged_blob, MIG_TIMEOUT)
{
	ASSERT_EQ(0, send(self));
	self->blob.data[self->blob.len / 2] ^= 1;
	EXPECT_GT(0, restore(&self->b, &self->blob));
	EXPECT_EQ(RUNNING, mig_get_state(self->b.dev));
	EXPECT_EQ(0, precopy_differ(&self->b, self->b.shadow));

	self->blob.data[self->blob.len / 2] ^= 1;
	ASSERT_EQ(0, restore(&self->b, &self->blob));
	ASSERT_EQ(0, mig_set_state(self->b.dev, RUNNING, NULL));
	EXPECT_EQ(0, precopy_differ(&self->b, self->a.shadow));
	EXPECT_EQ(0, dma_log_stop(self->a.dev));
}

/* A blob that ends too early is noticed at the latest when the VM is to run. */
TEST_F_TIMEOUT(hypervisor, short_blob, MIG_TIMEOUT)
{
	ASSERT_EQ(0, send(self));
	self->blob.len -= 1;
	ASSERT_EQ(0, restore(&self->b, &self->blob));
	EXPECT_GT(0, mig_set_state(self->b.dev, RUNNING, NULL));
	precopy_reset(&self->b);
	EXPECT_EQ(RUNNING, mig_get_state(self->b.dev));
	EXPECT_EQ(0, dma_log_stop(self->a.dev));
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
