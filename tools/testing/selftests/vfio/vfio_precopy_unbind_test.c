// SPDX-License-Identifier: GPL-2.0-only
/*
 * What outlives the driver's binding: data fds. A process may keep one open for
 * as long as it likes, while the function is unbound and bound again, and then
 * opened, reset and migrated by somebody else, who must not notice.
 *
 * A hot reset (of the bus or slot, with all that is on it) is possible on a
 * carrier behind a port of its own; elsewhere that part is left out.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/syscall.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_handoff.h>
#include <libvfio/precopy_migrate.h>

#include <libvfio/mig_harness.h>

#define SIZE		SZ_4M
#define KEPT		12
#define UNBIND		"drivers/" PRECOPY_DRIVER "/unbind"
#define MODULE		"precopy_vfio_pci"

static char **bdfs;
static int nr_bdfs;

FIXTURE(unbind) {
	struct precopy_dev a;
	struct precopy_dev b;
	struct mig_stream stream;
	int fds[KEPT];
	int nr_fds;
};

FIXTURE_VARIANT(unbind) {
	const char *mode;
};

#define FIXTURE_VARIANT_ADD_IOMMU_MODE(_mode)	\
FIXTURE_VARIANT_ADD(unbind, _mode) {		\
	.mode = #_mode,				\
}

FIXTURE_VARIANT_ADD_IOMMU_MODE(vfio_type1v2_iommu);
FIXTURE_VARIANT_ADD_IOMMU_MODE(iommufd);

#undef FIXTURE_VARIANT_ADD_IOMMU_MODE

typedef FIXTURE_DATA(unbind) unbind_t;

FIXTURE_SETUP(unbind)
{
	ASSERT_LE(2, nr_bdfs);
	precopy_open(&self->a, bdfs[0], variant->mode, SIZE);
	precopy_open(&self->b, bdfs[1], variant->mode, SIZE);
	precopy_fill(&self->a, 0, 30, 1, BY_MMAP);
	ASSERT_EQ(0, mig_save(self->a.dev, &self->stream));
	precopy_reset(&self->a);
}

FIXTURE_TEARDOWN(unbind)
{
	int i;

	for (i = 0; i < self->nr_fds; i++)
		close(self->fds[i]);
	mig_stream_free(&self->stream);
	precopy_close(&self->a);
	precopy_close(&self->b);
}

/* ------------------------------------------------------------------------ */
/* Hot reset                                                                */

struct reset_info {
	struct vfio_pci_hot_reset_info info;
	struct vfio_pci_dependent_device devices[8];
};

/* Which devices a hot reset takes along: 0 or a negative errno. */
static int hot_reset_info(struct precopy_dev *pd, struct reset_info *all)
{
	memset(all, 0, sizeof(*all));
	all->info.argsz = sizeof(*all);
	return ioctl(pd->fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, all) ?
	       -errno : 0;
}

static int hot_reset(struct precopy_dev *pd)
{
	struct {
		struct vfio_pci_hot_reset reset;
		s32 group_fd;
	} all = { .reset.argsz = sizeof(all) };

	/* A device that was opened by its group proves it by the group. */
	if (pd->iommu->mode->container_path) {
		all.reset.count = 1;
		all.group_fd = pd->dev->group_fd;
	} else {
		all.reset.argsz = sizeof(all.reset);
	}
	return ioctl(pd->fd, VFIO_DEVICE_PCI_HOT_RESET, &all) ? -errno : 0;
}

/* The user of today owns all that there is, and may reset it. */
static void check_hot_reset(struct __test_metadata *_metadata,
			    struct precopy_dev *pd)
{
	struct reset_info all;
	int ret = hot_reset_info(pd, &all);

	if (ret == -ENODEV)
		return;
	ASSERT_EQ(0, ret);
	EXPECT_EQ(1, all.info.count);
	if (all.info.flags & VFIO_PCI_HOT_RESET_FLAG_DEV_ID) {
		EXPECT_TRUE(all.info.flags &
			    VFIO_PCI_HOT_RESET_FLAG_DEV_ID_OWNED);
		EXPECT_LT(0, (int)all.devices[0].devid);
	}
	precopy_fill(pd, 3, 2, 77, BY_MMAP);
	EXPECT_EQ(0, hot_reset(pd));
	memset(pd->shadow, 0, pd->size);
	EXPECT_EQ((int)VFIO_DEVICE_STATE_RUNNING, mig_get_state(pd->dev));
	EXPECT_EQ(0, precopy_differ(pd, pd->shadow));
}

/* ------------------------------------------------------------------------ */
/* Sessions and what becomes of them                                        */

enum kind {
	SAVING,			/* PRE_COPY, some of it read */
	SAVING_STOPPED,
	LOADING,		/* RESUMING, some of it written */
	LOADING_STARTED,	/* the startup complete */
};

static void begin_session(struct __test_metadata *_metadata, unbind_t *self,
			  enum kind kind)
{
	static const u32 states[] = {
		VFIO_DEVICE_STATE_PRE_COPY, VFIO_DEVICE_STATE_STOP_COPY,
		VFIO_DEVICE_STATE_RESUMING, VFIO_DEVICE_STATE_RESUMING,
	};
	size_t half = self->stream.len / 2;
	char byte[100];
	int fd;

	ASSERT_GT(KEPT, self->nr_fds);
	if (kind == SAVING || kind == SAVING_STOPPED)
		precopy_fill(&self->a, 0, 600, kind, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->a.dev, states[kind], &fd));
	self->fds[self->nr_fds++] = fd;
	switch (kind) {
	case SAVING:
	case SAVING_STOPPED:
		ASSERT_EQ(sizeof(byte), (size_t)read(fd, byte, sizeof(byte)));
		break;
	case LOADING:
		ASSERT_EQ(0, mig_write_all(fd, self->stream.data, 60, 60, NULL));
		break;
	case LOADING_STARTED:
		ASSERT_EQ(0, mig_write_all(fd, self->stream.data, half, SZ_4K,
					   NULL));
		EXPECT_TRUE(handoff_wait(fd, VFIO_PRECOPY_PHASE_READY));
		break;
	}
}

/* Every use of the fd says that its device is gone, and none waits for it. */
static void check_dead(struct __test_metadata *_metadata, int fd)
{
	struct vfio_precopy_startup startup;
	struct vfio_precopy_info info;
	bool reads = (fcntl(fd, F_GETFL) & O_ACCMODE) == O_RDONLY;
	char byte = 0;

	EXPECT_EQ(-1, read(fd, &byte, 1));
	EXPECT_EQ(reads ? ENODEV : EBADF, errno);
	EXPECT_EQ(-1, write(fd, &byte, 1));
	EXPECT_EQ(reads ? EBADF : ENODEV, errno);
	EXPECT_EQ(POLLERR, POLLERR & handoff_poll(fd, POLLIN | POLLOUT, 1000));
	EXPECT_EQ(-ENODEV, handoff_get(fd, &startup));
	EXPECT_GT(0, mig_precopy_info(fd, &info));
}

static void check_all_dead(struct __test_metadata *_metadata, unbind_t *self)
{
	int i;

	for (i = 0; i < self->nr_fds; i++)
		check_dead(_metadata, self->fds[i]);
}

static int module_users(void)
{
	FILE *f = fopen("/sys/module/" MODULE "/refcnt", "r");
	int users = -1;

	if (!f)
		return -1;
	if (fscanf(f, "%d", &users) != 1)
		users = -1;
	fclose(f);
	return users;
}

static void unbind_and_bind(struct __test_metadata *_metadata, unbind_t *self,
			    const char *mode)
{
	precopy_close(&self->a);
	check_all_dead(_metadata, self);
	ASSERT_EQ(0, handoff_pci_write(UNBIND, bdfs[0]));
	check_all_dead(_metadata, self);
	ASSERT_EQ(0, handoff_pci_write("drivers_probe", bdfs[0]));
	check_all_dead(_metadata, self);
	precopy_open(&self->a, bdfs[0], mode, SIZE);
}

/*
 * The function is what it was: it is opened, reset with its bus, and migrated,
 * with any number of old fds around.
 */
TEST_F_TIMEOUT(unbind, fd_is_kept, 300)
{
	static const enum kind kinds[] = {
		SAVING, SAVING_STOPPED, LOADING, LOADING_STARTED,
	};
	int users = module_users(), i, nr = 4 + precopy_rounds(4);
	struct reset_info all;

	check_hot_reset(_metadata, &self->a);
	for (i = 0; i < nr; i++) {
		begin_session(_metadata, self, kinds[i % ARRAY_SIZE(kinds)]);
		unbind_and_bind(_metadata, self, variant->mode);
		check_hot_reset(_metadata, &self->a);
		check_all_dead(_metadata, self);
		ASSERT_EQ(0, precopy_migrate(&self->a, &self->b, i));
		check_hot_reset(_metadata, &self->a);
	}
	if (users >= 0) {
		EXPECT_EQ(users + i, module_users());
		TH_LOG("%d fds keep the driver", module_users() - users);
	}
	/* Whichever goes first, nothing changes for who has the device now. */
	while (self->nr_fds) {
		close(self->fds[--self->nr_fds]);
		EXPECT_EQ((int)VFIO_DEVICE_STATE_RUNNING,
			  mig_get_state(self->a.dev));
	}
	EXPECT_EQ(users, module_users());
	check_hot_reset(_metadata, &self->a);
	EXPECT_EQ(0, precopy_migrate(&self->a, &self->b, 99));
	if (hot_reset_info(&self->a, &all) == -ENODEV)
		TH_LOG("no hot reset: the carrier is not behind a port of its own");
}

/* The fd is the last of all: it goes while nothing is bound. */
TEST_F_TIMEOUT(unbind, fd_is_last, MIG_TIMEOUT)
{
	int i;

	for (i = 0; i < 4; i++) {
		begin_session(_metadata, self, i);
		precopy_close(&self->a);
		ASSERT_EQ(0, handoff_pci_write(UNBIND, bdfs[0]));
		check_all_dead(_metadata, self);
		close(self->fds[--self->nr_fds]);
		ASSERT_EQ(0, handoff_pci_write("drivers_probe", bdfs[0]));
		precopy_open(&self->a, bdfs[0], variant->mode, SIZE);
		check_hot_reset(_metadata, &self->a);
		EXPECT_EQ(0, precopy_migrate(&self->a, &self->b, i));
	}
}

/* Another driver takes the function over, and gives it back. */
TEST_F_TIMEOUT(unbind, fd_is_kept_under_other_driver, MIG_TIMEOUT)
{
	char override[64];
	char *driver;

	snprintf_assert(override, sizeof(override), "devices/%s/driver_override",
			bdfs[0]);
	begin_session(_metadata, self, SAVING);
	precopy_close(&self->a);
	ASSERT_EQ(0, handoff_pci_write(UNBIND, bdfs[0]));
	ASSERT_EQ(0, handoff_pci_write(override, "vfio-pci"));
	handoff_pci_write("drivers_probe", bdfs[0]);
	driver = sysfs_driver_get(bdfs[0]);
	check_all_dead(_metadata, self);
	if (driver)
		EXPECT_EQ(0, handoff_pci_write("drivers/vfio-pci/unbind",
					       bdfs[0]));
	ASSERT_EQ(0, handoff_pci_write(override, PRECOPY_DRIVER));
	ASSERT_EQ(0, handoff_pci_write("drivers_probe", bdfs[0]));
	precopy_open(&self->a, bdfs[0], variant->mode, SIZE);
	check_hot_reset(_metadata, &self->a);
	EXPECT_EQ(0, precopy_migrate(&self->a, &self->b, 5));
	check_all_dead(_metadata, self);
	free(driver);
}

/* The code that the fd would run must not go away. */
TEST_F_TIMEOUT(unbind, fd_keeps_module, MIG_TIMEOUT)
{
	int ret, i;

	if (module_users() < 0)
		SKIP(return, "the driver is not a module");
	begin_session(_metadata, self, SAVING);
	precopy_close(&self->a);
	precopy_close(&self->b);
	for (i = 0; i < nr_bdfs; i++)
		ASSERT_EQ(0, handoff_pci_write(UNBIND, bdfs[i]));
	ret = syscall(__NR_delete_module, MODULE, O_NONBLOCK) ? -errno : 0;
	check_all_dead(_metadata, self);
	for (i = 0; i < nr_bdfs; i++)
		EXPECT_EQ(0, handoff_pci_write("drivers_probe", bdfs[i]));
	EXPECT_TRUE(ret == -EWOULDBLOCK || ret == -EBUSY)
		TH_LOG("delete_module: %d", ret);
	precopy_open(&self->a, bdfs[0], variant->mode, SIZE);
	precopy_open(&self->b, bdfs[1], variant->mode, SIZE);
	EXPECT_EQ(0, precopy_migrate(&self->a, &self->b, 6));
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
