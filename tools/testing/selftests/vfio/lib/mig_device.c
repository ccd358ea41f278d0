// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>

#include <linux/limits.h>
#include <linux/pci_regs.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/mig_device.h>

#define FILL_PAGES	8
#define PAGE		4096UL
#define RETRIES		100

/* Volatile, or the compiler sees what is going to happen and objects. */
void *volatile mig_bad_address = (void *)8;

static bool has_extension(const char *container, const char *mode)
{
	/* Of a container, "type1" and "type1v2" are all there is. */
	int type = strstr(mode, "type1v2") ? VFIO_TYPE1v2_IOMMU : VFIO_TYPE1_IOMMU;
	int fd, ret;

	fd = open(container, O_RDWR);
	if (fd < 0)
		return false;
	ret = ioctl(fd, VFIO_CHECK_EXTENSION, type);
	close(fd);

	return ret > 0;
}

/* A path from the PCI devices in sysfs to a device that is none. */
static bool is_mdev(const char *bdf)
{
	return strchr(bdf, '/');
}

const char *mig_mode_missing(const char *bdf, const char *mode)
{
	const char *container = "/dev/vfio/vfio";
	static char why[PATH_MAX];
	char path[PATH_MAX];

	if (!strcmp(mode, MODE_IOMMUFD)) {
		snprintf_assert(path, sizeof(path),
				"/sys/bus/pci/devices/%s/vfio-dev", bdf);
		if (access("/dev/iommu", R_OK | W_OK))
			return "no /dev/iommu";
		return access(path, R_OK) ? "the device has no cdev" : NULL;
	}

	if (is_mdev(bdf))
		return "by a group, libvfio opens PCI functions only";
	if (strstr(mode, "compat"))
		container = "/dev/iommu";
	if (!has_extension(container, mode)) {
		snprintf_assert(why, sizeof(why), "%s cannot be a container of %s",
				container, mode);
		return why;
	}
	snprintf_assert(path, sizeof(path), "/dev/vfio/%d",
			sysfs_iommu_group_get(bdf));
	if (!access(path, R_OK | W_OK))
		return NULL;
	snprintf_assert(why, sizeof(why), "cannot open %s", path);

	return why;
}

static int fill_bar_declared(void)
{
	const char *bar = getenv("VFIO_SELFTESTS_FILL_BAR");

	return bar && *bar ? atoi(bar) : -1;
}

static void get_region(struct vfio_pci_device *dev, int index,
		       struct vfio_region_info *info)
{
	*info = (struct vfio_region_info) { .argsz = sizeof(*info), .index = index };
	ioctl_assert(dev->fd, VFIO_DEVICE_GET_REGION_INFO, info);
}

/*
 * libvfio asks for all that a PCI function has, such as MSI-X. A mediated device
 * need not know what that is, so of this only what the tests use is done.
 */
static struct vfio_pci_device *open_mdev(const char *path, struct iommu *iommu)
{
	struct vfio_device_attach_iommufd_pt attach = {
		.argsz = sizeof(attach),
		.pt_id = iommu->ioas_id,
	};
	struct vfio_pci_device *dev;
	size_t i;

	dev = vfio_pci_device_alloc(path, iommu);
	vfio_pci_cdev_open(dev, path);
	VFIO_ASSERT_EQ(__vfio_device_bind_iommufd(dev->fd, iommu->iommufd, NULL), 0);
	ioctl_assert(dev->fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach);
	dev->info.argsz = sizeof(dev->info);
	ioctl_assert(dev->fd, VFIO_DEVICE_GET_INFO, &dev->info);
	get_region(dev, VFIO_PCI_CONFIG_REGION_INDEX, &dev->config_space);
	for (i = 0; i < PCI_STD_NUM_BARS; i++)
		get_region(dev, i, &dev->bars[i].info);
	for (i = 0; i < ARRAY_SIZE(dev->msi_eventfds); i++)
		dev->msi_eventfds[i] = -1;

	return dev;
}

void mig_open(struct mig_dev *m, const char *bdf, const char *mode)
{
	memset(m, 0, sizeof(*m));
	m->bdf = bdf;
	m->mode = mode;
	m->iommu = iommu_init(mode);
	m->dev = is_mdev(bdf) ? open_mdev(bdf, m->iommu) :
				vfio_pci_device_init(bdf, m->iommu);
	m->fd = m->dev->fd;
	m->fill_bar = fill_bar_declared();
	if (mig_flags(m->dev, &m->flags))
		m->flags = 0;
}

void mig_close(struct mig_dev *m)
{
	vfio_pci_device_cleanup(m->dev);
	iommu_cleanup(m->iommu);
}

void mig_reopen(struct mig_dev *m)
{
	const char *bdf = m->bdf, *mode = m->mode;

	mig_close(m);
	mig_open(m, bdf, mode);
}

/* libvfio's gives up sooner than a machine that is busy needs. */
static int reset(struct mig_dev *m)
{
	int i, ret = -EAGAIN;

	for (i = 0; i < RETRIES && ret == -EAGAIN; i++) {
		ret = __vfio_pci_device_reset(m->dev);
		if (ret == -EAGAIN)
			usleep(10 * 1000);
	}

	return ret;
}

void mig_fresh(struct mig_dev *m)
{
	if (m->dev->info.flags & VFIO_DEVICE_FLAGS_RESET)
		VFIO_ASSERT_EQ(reset(m), 0, "VFIO_DEVICE_RESET of %s\n", m->bdf);
	else
		mig_reopen(m);
}

static bool lacks(struct mig_dev *m, const char *what)
{
	char *driver = sysfs_driver_get(m->bdf);

	snprintf_assert(m->lacks, sizeof(m->lacks), "%s, bound to %s, %s", m->bdf,
			driver ?: "no driver", what);
	free(driver);

	return false;
}

bool mig_has(struct mig_dev *m, u64 flags)
{
	if ((m->flags & flags) == flags)
		return true;
	if (!m->flags)
		return lacks(m, "has no migration");
	if (flags & ~m->flags & VFIO_MIGRATION_PRE_COPY)
		return lacks(m, "has no PRE_COPY");

	return lacks(m, "has no P2P states");
}

bool mig_has_reset(struct mig_dev *m)
{
	if (m->dev->info.flags & VFIO_DEVICE_FLAGS_RESET)
		return true;

	return lacks(m, "has no VFIO_DEVICE_RESET");
}

bool mig_has_dma_log(struct mig_dev *m)
{
	if (dma_log_offered(m->fd))
		return true;

	return lacks(m, "has no DMA logging");
}

/*
 * VFIO answers in place of the driver if the device has PRE_COPY, so that ENOTTY is the
 * word of a kernel that does not know the feature.
 */
bool mig_has_info_v2(struct mig_dev *m)
{
	if (!mig_has(m, HAS_PRE_COPY))
		return false;
	if (mig_kernel_has_info_v2(m->dev))
		return true;
	return lacks(m, "has no MIG_PRECOPY_INFOv2, which is new in Linux 7.1");
}

bool mig_has_state(struct mig_dev *m, u32 state)
{
	switch (state) {
	case RP:
		return mig_has(m, HAS_P2P);
	case PC:
		return mig_has(m, HAS_PRE_COPY);
	case PCP:
		return mig_has(m, HAS_ALL);
	default:
		return mig_has(m, HAS_MIGRATION);
	}
}

bool mig_state_is(struct mig_dev *m, u32 state)
{
	int got = mig_get_state(m->dev);

	if (got == (int)state)
		return true;
	fprintf(stderr, "# expected %s, GET says %s (%d)\n",
		mig_state_name(state), mig_state_name(got), got);

	return false;
}

bool mig_go_to(struct mig_dev *m, u32 state, const struct mig_stream *stream,
	       int *data_fd)
{
	u32 via = state == ERR ? RES : state;
	u8 junk[64];

	VFIO_ASSERT_EQ(mig_set_state(m->dev, via, data_fd), 0, "to %s\n",
		       mig_state_name(via));
	if (state == RES)
		VFIO_ASSERT_EQ(mig_write_all(*data_fd, stream->data, stream->len,
					     stream->len, NULL), 0);
	if (state != ERR)
		return true;

	memset(junk, 0xff, sizeof(junk));
	(void)!write(*data_fd, junk, sizeof(junk));
	VFIO_ASSERT_NE(mig_set_state(m->dev, STOP, NULL), 0,
		       "junk was taken for a stream\n");

	return mig_get_state(m->dev) == ERR;
}

int mig_save_stopped(struct mig_dev *m, struct mig_stream *stream)
{
	int ret;

	stream->len = 0;
	ret = mig_save(m->dev, stream);

	return ret ?: mig_set_state(m->dev, STOP, NULL);
}

bool mig_saves_alike(struct mig_dev *m, struct mig_stream *stream)
{
	struct mig_stream other = {};
	bool alike;

	alike = !mig_save_stopped(m, stream) && !mig_save_stopped(m, &other) &&
		stream->len == other.len &&
		!memcmp(stream->data, other.data, other.len);
	mig_stream_free(&other);

	return alike || lacks(m, "saves other bytes each time");
}

static void fill_page(u64 *page, u64 nr, u64 seed)
{
	size_t i;

	for (i = 0; i < PAGE / sizeof(*page); i++)
		page[i] = (seed << 48 | nr << 32 | i) * 0x9e3779b97f4a7c15ULL;
}

void mig_fill(struct mig_dev *m, u64 seed)
{
	u64 page[PAGE / sizeof(u64)], nr;

	if (m->fill_bar < 0)
		return;
	vfio_pci_cmd_set(m->dev, PCI_COMMAND_MEMORY);
	for (nr = 0; nr < FILL_PAGES; nr++) {
		fill_page(page, nr, seed);
		VFIO_ASSERT_EQ(pwrite(m->fd, page, PAGE, nr * PAGE +
				      m->dev->bars[m->fill_bar].info.offset),
			       (ssize_t)PAGE, "BAR %d of %s\n", m->fill_bar, m->bdf);
	}
}

bool mig_contents(struct mig_dev *m, u64 seed)
{
	u64 want[PAGE / sizeof(u64)], got[PAGE / sizeof(u64)], nr;

	if (m->fill_bar < 0)
		return true;
	vfio_pci_cmd_set(m->dev, PCI_COMMAND_MEMORY);
	for (nr = 0; nr < FILL_PAGES; nr++) {
		fill_page(want, nr, seed);
		if (pread(m->fd, got, PAGE, nr * PAGE +
			  m->dev->bars[m->fill_bar].info.offset) == (ssize_t)PAGE &&
		    !memcmp(want, got, PAGE))
			continue;
		fprintf(stderr, "# page %lu of BAR %d is not what was saved\n", nr,
			m->fill_bar);
		return false;
	}

	return true;
}

long mig_module_refs(struct mig_dev *m)
{
	char path[PATH_MAX];
	long refs = -1;
	FILE *f;

	snprintf_assert(path, sizeof(path),
			"/sys/bus/pci/devices/%s/driver/module/refcnt", m->bdf);
	f = fopen(path, "r");
	if (!f)
		return -1;
	if (fscanf(f, "%ld", &refs) != 1)
		refs = -1;
	fclose(f);

	return refs;
}

short mig_poll(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN | POLLOUT };

	return poll(&pfd, 1, 0) > 0 ? pfd.revents : 0;
}

void *mig_end_of_page(size_t len)
{
	u8 *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	VFIO_ASSERT_NE((void *)p, MAP_FAILED);
	VFIO_ASSERT_EQ(munmap(p + PAGE, PAGE), 0);

	return p + PAGE - len;
}
