// SPDX-License-Identifier: GPL-2.0-only
/*
 * A function of pci-host-sim is unplugged by surprise while it saves or loads: the
 * session goes on, since the device's memory is the driver's; the removal waits
 * until the device is closed; then the data fd is dead, and the function that is
 * plugged in again is like any other.
 */
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/limits.h>
#include <linux/sizes.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_migrate.h>

#include <libvfio/mig_harness.h>

#define SIZE		SZ_4M
#define SLOT		strlen("5100:00:")
/* For a machine that hangs: the removal takes milliseconds */
#define PATIENCE_MS	60000

static char **bdfs;
static int nr_bdfs;

FIXTURE(unplug) {
	struct precopy_dev a;
	struct precopy_dev b;
	struct mig_stream stream;
	int fd;
};

FIXTURE_VARIANT(unplug) {
	const char *mode;
};

FIXTURE_VARIANT_ADD(unplug, vfio_type1v2_iommu) { .mode = MODE_VFIO_TYPE1V2_IOMMU };
FIXTURE_VARIANT_ADD(unplug, iommufd) { .mode = MODE_IOMMUFD };

typedef FIXTURE_DATA(unplug) unplug_t;

FIXTURE_SETUP(unplug)
{
	ASSERT_LE(2, nr_bdfs);
	self->fd = -1;
	precopy_open(&self->a, bdfs[0], variant->mode, SIZE);
	precopy_open(&self->b, bdfs[1], variant->mode, SIZE);
	precopy_fill(&self->a, 0, 600, 1, BY_MMAP);
}

FIXTURE_TEARDOWN(unplug)
{
	if (self->fd >= 0)
		close(self->fd);
	mig_stream_free(&self->stream);
	precopy_close(&self->a);
	precopy_close(&self->b);
}

/* The file "unplug" or "plug" of the bridge, for the first device */
static int bridge_write(const char *file)
{
	char path[PATH_MAX];

	snprintf_assert(path, sizeof(path), "/sys/devices/pci%.7s/%s", bdfs[0], file);
	return precopy_file_write(path, bdfs[0] + SLOT);
}

static bool is_there(const char *file)
{
	char path[PATH_MAX];

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s%s", bdfs[0], file);
	return !access(path, F_OK);
}

static bool wait_until_gone(void)
{
	u64 end = precopy_now_ms() + PATIENCE_MS;

	while (is_there("") && precopy_now_ms() < end)
		usleep(1000);
	return !is_there("");
}

static void unplug(struct __test_metadata *_metadata)
{
	ASSERT_EQ(0, bridge_write("unplug"));
	EXPECT_TRUE(is_there(""));
	EXPECT_EQ(-EBUSY, bridge_write("plug"));
}

static void check_dead(struct __test_metadata *_metadata, int fd, bool reads)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN | POLLOUT };
	char byte = 0;

	EXPECT_EQ(-1, reads ? read(fd, &byte, 1) : write(fd, &byte, 1));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_EQ(1, poll(&pfd, 1, PATIENCE_MS));
	EXPECT_TRUE(pfd.revents & POLLERR);
}

/* The user gives the device back; it vanishes, returns and migrates */
static void replug(struct __test_metadata *_metadata, unplug_t *self,
		   const char *mode, bool reads)
{
	precopy_close(&self->a);
	ASSERT_TRUE(wait_until_gone());
	check_dead(_metadata, self->fd, reads);
	ASSERT_EQ(0, bridge_write("plug"));
	ASSERT_TRUE(is_there("/driver/unbind"));
	precopy_open(&self->a, bdfs[0], mode, SIZE);
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	EXPECT_EQ(0, precopy_migrate(&self->a, &self->b, 7));
	check_dead(_metadata, self->fd, reads);
}

/* What has not been read yet is read to the end, and the target takes it */
TEST_F_TIMEOUT(unplug, while_saving, MIG_TIMEOUT)
{
	struct mig_stream *s = &self->stream;

	ASSERT_EQ(0, mig_set_state(self->a.dev, VFIO_DEVICE_STATE_PRE_COPY,
				   &self->fd));
	ASSERT_LT(0, mig_stream_read(s, self->fd, 100));
	unplug(_metadata);
	precopy_fill(&self->a, 300, 600, 2, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->a.dev, VFIO_DEVICE_STATE_STOP_COPY, NULL));
	ASSERT_EQ(0, mig_stream_drain(s, self->fd, SZ_64K));
	ASSERT_EQ(0, mig_load(self->b.dev, s, SZ_64K));
	EXPECT_EQ(0, precopy_differ(&self->b, self->a.shadow));
	precopy_reset(&self->b);
	replug(_metadata, self, variant->mode, true);
}

/* A stream that is half loaded is loaded to the end, and the device runs */
TEST_F_TIMEOUT(unplug, while_loading, MIG_TIMEOUT)
{
	struct mig_stream *s = &self->stream;
	size_t half;

	ASSERT_EQ(0, mig_save(self->a.dev, s));
	half = s->len / 2;
	precopy_reset(&self->a);
	ASSERT_EQ(0, mig_set_state(self->a.dev, VFIO_DEVICE_STATE_RESUMING, &self->fd));
	ASSERT_EQ(0, mig_write_all(self->fd, s->data, half, SZ_4K, NULL));
	unplug(_metadata);
	ASSERT_EQ(0, mig_write_all(self->fd, s->data + half, s->len - half, SZ_4K, NULL));
	EXPECT_EQ(0, mig_set_state(self->a.dev, VFIO_DEVICE_STATE_RUNNING, NULL));
	precopy_fill(&self->a, 0, 600, 1, BY_PWRITE);
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	replug(_metadata, self, variant->mode, false);
}

/* The user gives up in the middle of it */
TEST_F_TIMEOUT(unplug, session_is_left, MIG_TIMEOUT)
{
	ASSERT_EQ(0, mig_set_state(self->a.dev, VFIO_DEVICE_STATE_RESUMING, &self->fd));
	unplug(_metadata);
	replug(_metadata, self, variant->mode, false);
	close(self->fd);
	ASSERT_EQ(0, mig_set_state(self->a.dev, VFIO_DEVICE_STATE_PRE_COPY, &self->fd));
	unplug(_metadata);
	replug(_metadata, self, variant->mode, true);
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);
	if (access("/sys/module/pci_host_sim", F_OK))
		ksft_exit_skip("only functions of pci-host-sim can be unplugged\n");

	return test_harness_run(argc, argv);
}
