// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a user may rely on when it talks to the device through vfio: the device
 * itself (regions, interrupts, config space, reset) and the rules of the
 * migration interface, R1 to R62, by number where a test covers one.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <linux/limits.h>
#include <linux/pci_regs.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>

#include <kselftest_harness.h>

#define MEMORY_SIZE	SZ_1M
#define POISON		0xa5a5a5a5a5a5a5a5ULL
#define UNKNOWN_IOCTL	_IO(VFIO_TYPE, VFIO_BASE + 99)

static const char *device_bdf;

/* Volatile, or the compiler sees what is going to happen and objects. */
static void *volatile bad_address = (void *)8;

FIXTURE(device) {
	struct precopy_dev pd;
	struct vfio_pci_device *dev;
	struct mig_stream stream;
	int fd;
};

FIXTURE_VARIANT(device) {
	const char *mode;
};

#define FIXTURE_VARIANT_ADD_IOMMU_MODE(_mode)	\
FIXTURE_VARIANT_ADD(device, _mode) {		\
	.mode = #_mode,				\
}

/* The two ways in to a device that differ in code. */
FIXTURE_VARIANT_ADD_IOMMU_MODE(vfio_type1v2_iommu);
FIXTURE_VARIANT_ADD_IOMMU_MODE(iommufd);

#undef FIXTURE_VARIANT_ADD_IOMMU_MODE

FIXTURE_SETUP(device)
{
	/* A test that failed may have left it set. */
	precopy_knob(device_bdf, "no_precopy", 0);
	precopy_open(&self->pd, device_bdf, variant->mode, MEMORY_SIZE);
	self->dev = self->pd.dev;
	self->fd = self->pd.fd;
}

FIXTURE_TEARDOWN(device)
{
	mig_stream_free(&self->stream);
	precopy_close(&self->pd);
}

/* ------------------------------------------------------------------------ */
/* The device                                                               */

static long sysfs_id(const char *file)
{
	char path[PATH_MAX];
	unsigned int id = 0;
	FILE *f;

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/%s",
			device_bdf, file);
	f = fopen(path, "r");
	VFIO_ASSERT_NOT_NULL(f, "%s\n", path);
	VFIO_ASSERT_EQ(fscanf(f, "%x", &id), 1);
	fclose(f);

	return id;
}

TEST_F(device, get_info)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };

	ASSERT_EQ(0, ioctl(self->fd, VFIO_DEVICE_GET_INFO, &info));
	EXPECT_EQ(VFIO_DEVICE_FLAGS_PCI | VFIO_DEVICE_FLAGS_RESET, info.flags);
	EXPECT_EQ(VFIO_PCI_NUM_REGIONS, info.num_regions);
	EXPECT_EQ(VFIO_PCI_NUM_IRQS, info.num_irqs);

	info.argsz = 4;
	EXPECT_EQ(-1, ioctl(self->fd, VFIO_DEVICE_GET_INFO, &info));
	EXPECT_EQ(EINVAL, errno);
}

static int region_info(int fd, u32 index, struct vfio_region_info *info)
{
	memset(info, 0, sizeof(*info));
	info->argsz = sizeof(*info);
	info->index = index;

	return ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, info) ? -errno : 0;
}

TEST_F(device, region_info)
{
	struct vfio_region_info info;
	u32 i;

	for (i = VFIO_PCI_BAR0_REGION_INDEX; i <= VFIO_PCI_ROM_REGION_INDEX; i++) {
		ASSERT_EQ(0, region_info(self->fd, i, &info));
		if (i == PRECOPY_BAR)
			continue;
		EXPECT_EQ(0, info.size) TH_LOG("region %u", i);
		EXPECT_EQ(0, info.flags) TH_LOG("region %u", i);
	}

	ASSERT_EQ(0, region_info(self->fd, PRECOPY_BAR, &info));
	EXPECT_EQ(MEMORY_SIZE, info.size);
	EXPECT_EQ(VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE |
		  VFIO_REGION_INFO_FLAG_MMAP, info.flags);

	ASSERT_EQ(0, region_info(self->fd, VFIO_PCI_CONFIG_REGION_INDEX, &info));
	EXPECT_EQ(256, info.size);
	EXPECT_EQ(VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE,
		  info.flags);

	EXPECT_EQ(-EINVAL, region_info(self->fd, VFIO_PCI_NUM_REGIONS, &info));
	EXPECT_EQ(-EINVAL, region_info(self->fd, ~0U, &info));
}

TEST_F(device, irq_info)
{
	static const u32 none[] = {
		VFIO_PCI_INTX_IRQ_INDEX,
		VFIO_PCI_MSI_IRQ_INDEX,
		VFIO_PCI_MSIX_IRQ_INDEX,
	};
	struct vfio_irq_info info = { .argsz = sizeof(info) };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(none); i++) {
		info.index = none[i];
		ASSERT_EQ(0, ioctl(self->fd, VFIO_DEVICE_GET_IRQ_INFO, &info));
		EXPECT_EQ(0, info.count) TH_LOG("irq index %u", none[i]);
	}

	info.index = VFIO_PCI_REQ_IRQ_INDEX;
	ASSERT_EQ(0, ioctl(self->fd, VFIO_DEVICE_GET_IRQ_INFO, &info));
	EXPECT_EQ(1, info.count);

	info.index = VFIO_PCI_NUM_IRQS;
	EXPECT_EQ(-1, ioctl(self->fd, VFIO_DEVICE_GET_IRQ_INFO, &info));
	EXPECT_EQ(EINVAL, errno);
}

TEST_F(device, config_identity)
{
	struct vfio_pci_device *dev = self->dev;

	EXPECT_EQ(sysfs_id("vendor"), vfio_pci_config_readw(dev, PCI_VENDOR_ID));
	EXPECT_EQ(sysfs_id("device"), vfio_pci_config_readw(dev, PCI_DEVICE_ID));
	EXPECT_EQ(sysfs_id("subsystem_vendor"),
		  vfio_pci_config_readw(dev, PCI_SUBSYSTEM_VENDOR_ID));
	EXPECT_EQ(sysfs_id("subsystem_device"),
		  vfio_pci_config_readw(dev, PCI_SUBSYSTEM_ID));
	EXPECT_EQ(sysfs_id("class"),
		  vfio_pci_config_readl(dev, PCI_CLASS_REVISION) >> 8);
	EXPECT_EQ(sysfs_id("revision"),
		  vfio_pci_config_readb(dev, PCI_REVISION_ID));

	EXPECT_EQ(PCI_HEADER_TYPE_NORMAL,
		  vfio_pci_config_readb(dev, PCI_HEADER_TYPE));
	EXPECT_EQ(0, vfio_pci_config_readw(dev, PCI_STATUS) & PCI_STATUS_CAP_LIST);
	EXPECT_EQ(0, vfio_pci_config_readb(dev, PCI_CAPABILITY_LIST));
	EXPECT_EQ(0, vfio_pci_config_readb(dev, PCI_INTERRUPT_PIN));
}

TEST_F(device, config_read_only)
{
	struct vfio_pci_device *dev = self->dev;
	u32 id = vfio_pci_config_readl(dev, PCI_VENDOR_ID);
	u32 class = vfio_pci_config_readl(dev, PCI_CLASS_REVISION);
	u32 subsystem = vfio_pci_config_readl(dev, PCI_SUBSYSTEM_VENDOR_ID);

	vfio_pci_config_writel(dev, PCI_VENDOR_ID, ~id);
	vfio_pci_config_writel(dev, PCI_CLASS_REVISION, ~class);
	vfio_pci_config_writel(dev, PCI_SUBSYSTEM_VENDOR_ID, ~subsystem);
	vfio_pci_config_writeb(dev, PCI_CAPABILITY_LIST, 0x40);

	EXPECT_EQ(id, vfio_pci_config_readl(dev, PCI_VENDOR_ID));
	EXPECT_EQ(class, vfio_pci_config_readl(dev, PCI_CLASS_REVISION));
	EXPECT_EQ(subsystem, vfio_pci_config_readl(dev, PCI_SUBSYSTEM_VENDOR_ID));
	EXPECT_EQ(0, vfio_pci_config_readb(dev, PCI_CAPABILITY_LIST));
}

/* The way an operating system sizes a BAR. */
TEST_F(device, config_bar_sizing)
{
	struct vfio_pci_device *dev = self->dev;
	u32 reg, low;
	int i;

	for (i = 0; i < PCI_STD_NUM_BARS; i++) {
		reg = PCI_BASE_ADDRESS_0 + 4 * i;
		vfio_pci_config_writel(dev, reg, ~0U);
		if (i == 2 || i == 3)
			continue;
		EXPECT_EQ(0, vfio_pci_config_readl(dev, reg)) TH_LOG("BAR %d", i);
	}
	vfio_pci_config_writel(dev, PCI_ROM_ADDRESS, ~0U);
	EXPECT_EQ(0, vfio_pci_config_readl(dev, PCI_ROM_ADDRESS));

	low = vfio_pci_config_readl(dev, PCI_BASE_ADDRESS_2);
	EXPECT_EQ(PCI_BASE_ADDRESS_MEM_TYPE_64 | PCI_BASE_ADDRESS_MEM_PREFETCH,
		  low & ~PCI_BASE_ADDRESS_MEM_MASK);
	EXPECT_EQ((u32)~(MEMORY_SIZE - 1), low & PCI_BASE_ADDRESS_MEM_MASK);
	EXPECT_EQ(~0U, vfio_pci_config_readl(dev, PCI_BASE_ADDRESS_3));

	vfio_pci_config_writel(dev, PCI_BASE_ADDRESS_2, 0xfe300000);
	vfio_pci_config_writel(dev, PCI_BASE_ADDRESS_3, 0x12);
	EXPECT_EQ(0xfe30000cU, vfio_pci_config_readl(dev, PCI_BASE_ADDRESS_2));
	EXPECT_EQ(0x12U, vfio_pci_config_readl(dev, PCI_BASE_ADDRESS_3));
}

/* The guest sees the bus master bit that it wrote, the hardware never does. */
TEST_F(device, config_command)
{
	struct vfio_pci_device *dev = self->dev;
	char path[PATH_MAX];
	u16 hardware;
	int fd;

	vfio_pci_config_writew(dev, PCI_COMMAND,
			       PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	EXPECT_EQ(PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER,
		  vfio_pci_config_readw(dev, PCI_COMMAND));

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/config",
			device_bdf);
	fd = open(path, O_RDONLY);
	ASSERT_LE(0, fd);
	ASSERT_EQ(2, pread(fd, &hardware, 2, PCI_COMMAND));
	close(fd);
	EXPECT_EQ(0, hardware & PCI_COMMAND_MASTER);
}

TEST_F(device, config_bounds)
{
	u64 offset = self->dev->config_space.offset;
	u8 buf[512];

	EXPECT_EQ(256, pread(self->fd, buf, 256, offset));
	EXPECT_EQ(self->dev->config_space.size, 256);
	EXPECT_GE(0, pread(self->fd, buf, 4, offset + 256));
	EXPECT_GE(4, pread(self->fd, buf, 8, offset + 252));
}

/* A closed and opened device starts with COMMAND 0 and memory of zeroes. */
TEST_F(device, open_is_fresh)
{
	u64 word;

	precopy_fill(&self->pd, 0, 4, 1, BY_MMAP);
	vfio_pci_device_cleanup(self->dev);
	self->dev = vfio_pci_device_init(device_bdf, self->pd.iommu);
	self->pd.dev = self->dev;
	self->pd.fd = self->dev->fd;
	self->fd = self->dev->fd;
	self->pd.bar = self->dev->bars[PRECOPY_BAR].vaddr;
	memset(self->pd.shadow, 0, self->pd.size);

	EXPECT_EQ(0, vfio_pci_config_readw(self->dev, PCI_COMMAND));
	EXPECT_EQ(-1, pread(self->fd, &word, 8, self->pd.bar_offset));
	EXPECT_EQ(EIO, errno);
	vfio_pci_cmd_set(self->dev, PCI_COMMAND_MEMORY);
	EXPECT_EQ(0, precopy_differ(&self->pd, self->pd.shadow));
	EXPECT_EQ(VFIO_DEVICE_STATE_RUNNING, mig_get_state(self->dev));
}

static sigjmp_buf bus_error;

static void on_sigbus(int sig)
{
	siglongjmp(bus_error, sig);
}

/* Whether a load from, or a store to, @p dies of SIGBUS. */
static bool faults(volatile u8 *p, bool store)
{
	struct sigaction old, new = { .sa_handler = on_sigbus };
	volatile bool bus = false;

	sigaction(SIGBUS, &new, &old);
	if (sigsetjmp(bus_error, 1))
		bus = true;
	else if (store)
		*p = 1;
	else
		(void)*p;
	sigaction(SIGBUS, &old, NULL);

	return bus;
}

TEST_F(device, memory_decode)
{
	u64 word = 0x1122334455667788ULL, got = 0;

	precopy_store(&self->pd, 0, &word, 8, BY_MMAP);
	ASSERT_FALSE(faults(self->pd.bar, false));

	/* A mapping that is already there must go as well. */
	vfio_pci_cmd_clear(self->dev, PCI_COMMAND_MEMORY);
	EXPECT_TRUE(faults(self->pd.bar, false));
	EXPECT_TRUE(faults(self->pd.bar + PRECOPY_PAGE, true));
	EXPECT_EQ(-1, pread(self->fd, &got, 8, self->pd.bar_offset));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(-1, pwrite(self->fd, &got, 8, self->pd.bar_offset));
	EXPECT_EQ(EIO, errno);

	vfio_pci_cmd_set(self->dev, PCI_COMMAND_MEMORY);
	EXPECT_EQ(0, precopy_differ(&self->pd, self->pd.shadow));
}

TEST_F(device, bar_access)
{
	u8 buf[3 * PRECOPY_PAGE], byte = 0x5a;
	u64 end = self->pd.bar_offset + MEMORY_SIZE;

	/* Unaligned and across pages, both ways. */
	memset(buf, 0x77, sizeof(buf));
	precopy_store(&self->pd, 4093, buf, 4103, BY_PWRITE);
	precopy_store(&self->pd, 20479, &byte, 1, BY_PWRITE);
	precopy_store(&self->pd, 40959, buf, 2, BY_MMAP);
	precopy_store(&self->pd, MEMORY_SIZE - 1, &byte, 1, BY_PWRITE);
	EXPECT_EQ(0, precopy_differ(&self->pd, self->pd.shadow));

	/* Nothing beyond the end, and no more than there is up to it. */
	EXPECT_GE(0, pread(self->fd, buf, 1, end));
	EXPECT_GE(0, pwrite(self->fd, buf, 1, end));
	EXPECT_GE(1, pread(self->fd, buf, 16, end - 1));
	EXPECT_EQ(0, pread(self->fd, buf, 0, self->pd.bar_offset));

	EXPECT_EQ(-1, pread(self->fd, bad_address, 64, self->pd.bar_offset));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(0, precopy_differ(&self->pd, self->pd.shadow));
}

static int try_mmap(int fd, size_t len, int prot, int flags, u64 offset)
{
	void *p = mmap(NULL, len, prot, flags, fd, offset);

	if (p == MAP_FAILED)
		return -errno;
	munmap(p, len);

	return 0;
}

TEST_F(device, bar_mmap)
{
	const int rw = PROT_READ | PROT_WRITE;
	u64 bar = self->pd.bar_offset;
	int fd = self->fd;

	EXPECT_EQ(0, try_mmap(fd, MEMORY_SIZE, rw, MAP_SHARED, bar));
	EXPECT_EQ(0, try_mmap(fd, 4096, PROT_READ, MAP_SHARED, bar + 8192));
	EXPECT_EQ(-EINVAL, try_mmap(fd, 4096, rw, MAP_PRIVATE, bar));
	EXPECT_EQ(-EINVAL, try_mmap(fd, 2 * MEMORY_SIZE, rw, MAP_SHARED, bar));
	EXPECT_EQ(-EINVAL, try_mmap(fd, 4096, rw, MAP_SHARED, bar + MEMORY_SIZE));
	EXPECT_NE(0, try_mmap(fd, 4096, rw, MAP_SHARED, 0));
	EXPECT_NE(0, try_mmap(fd, 4096, PROT_READ, MAP_SHARED,
			      self->dev->config_space.offset));
}

TEST_F(device, bad_memory_size)
{
	static const char * const bad[] = {
		"0", "1", "4096", "524288", "1048577", "3145728", "-1", "abc",
		"", "137438953472", "18446744073709551616", "9223372036854775808",
	};
	unsigned int i;

	/* While it is open even a good one is refused. */
	EXPECT_EQ(-EBUSY, precopy_sysfs_write(device_bdf, "memory_size",
					      "2097152"));
	EXPECT_EQ(MEMORY_SIZE, precopy_sysfs_u64(device_bdf, "memory_size"));

	precopy_close(&self->pd);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		/* A write of no bytes never reaches the driver. */
		if (!bad[i][0])
			continue;
		EXPECT_GT(0, precopy_sysfs_write(device_bdf, "memory_size",
						 bad[i]))
			TH_LOG("accepted \"%s\"", bad[i]);
	}
	EXPECT_EQ(-EINVAL, precopy_sysfs_write(device_bdf, "memory_size", "0"));
	EXPECT_EQ(-EINVAL, precopy_sysfs_write(device_bdf, "memory_size",
					       "3145728"));
	EXPECT_EQ(-EINVAL, precopy_sysfs_write(device_bdf, "memory_size",
					       "137438953472"));
	EXPECT_EQ(MEMORY_SIZE, precopy_sysfs_u64(device_bdf, "memory_size"));

	precopy_open(&self->pd, device_bdf, variant->mode, SZ_8M);
	self->dev = self->pd.dev;
}

/* Features of vfio-pci that memory under tracking cannot offer. */
TEST_F(device, refused_features)
{
	struct vfio_device_ioeventfd ioevent = {
		.argsz = sizeof(ioevent),
		.flags = VFIO_DEVICE_IOEVENTFD_32,
		.offset = self->pd.bar_offset,
		.data = 1,
		.fd = -1,
	};

	EXPECT_EQ(-1, ioctl(self->fd, VFIO_DEVICE_IOEVENTFD, &ioevent));
	EXPECT_EQ(ENOTTY, errno);
	EXPECT_GT(0, vfio_feature_probe(self->fd, VFIO_DEVICE_FEATURE_DMA_BUF,
					VFIO_DEVICE_FEATURE_GET));
}

/* ------------------------------------------------------------------------ */
/* R1 to R8: the envelope                                                   */

#define MIG_GET	(VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION)

static int raw_feature(int fd, u32 argsz, u32 flags)
{
	u8 buf[64] = {};
	struct vfio_device_feature *feature = (void *)buf;

	feature->argsz = argsz;
	feature->flags = flags;

	return ioctl(fd, VFIO_DEVICE_FEATURE, feature) ? -errno : 0;
}

TEST_F(device, feature_envelope)
{
	EXPECT_EQ(-EINVAL, raw_feature(self->fd, 7, MIG_GET));
	EXPECT_EQ(-EINVAL, raw_feature(self->fd, 0, MIG_GET));
	EXPECT_EQ(-1, ioctl(self->fd, VFIO_DEVICE_FEATURE, bad_address));
	EXPECT_EQ(EFAULT, errno);

	EXPECT_EQ(-EINVAL, raw_feature(self->fd, 16, MIG_GET | 1 << 19));
	EXPECT_EQ(-EINVAL, raw_feature(self->fd, 16, MIG_GET | 1U << 31));
	EXPECT_EQ(-EINVAL, raw_feature(self->fd, 16,
				       MIG_GET | VFIO_DEVICE_FEATURE_SET));
	EXPECT_EQ(-EINVAL, raw_feature(self->fd, 16,
				       VFIO_DEVICE_FEATURE_MIGRATION));

	/* Shorter than the payload, then as long, then longer. */
	EXPECT_EQ(-EINVAL, raw_feature(self->fd, 8, MIG_GET));
	EXPECT_EQ(-EINVAL, raw_feature(self->fd, 15, MIG_GET));
	EXPECT_EQ(0, raw_feature(self->fd, 16, MIG_GET));
	EXPECT_EQ(0, raw_feature(self->fd, 64, MIG_GET));

	EXPECT_EQ(-ENOTTY, raw_feature(self->fd, 64, MIG_GET | 0x7f00));
}

/* The last @len bytes of a page, with nothing mapped behind it. */
static void *end_of_page(size_t len)
{
	u8 *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	VFIO_ASSERT_NE((void *)p, MAP_FAILED);
	VFIO_ASSERT_EQ(munmap(p + 4096, 4096), 0);

	return p + 4096 - len;
}

/* R6: the header can be read, the payload is not there. */
TEST_F(device, feature_payload_fault)
{
	static const u32 calls[] = {
		MIG_GET,
		VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
		VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
		VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
		VFIO_DEVICE_FEATURE_SET | VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
		VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
	};
	struct vfio_device_feature *feature;
	unsigned int i;

	feature = end_of_page(sizeof(*feature));
	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		feature->argsz = sizeof(*feature) + 64;
		feature->flags = calls[i];
		EXPECT_EQ(-1, ioctl(self->fd, VFIO_DEVICE_FEATURE, feature));
		EXPECT_EQ(EFAULT, errno) TH_LOG("flags %#x", calls[i]);
	}
	EXPECT_EQ(VFIO_DEVICE_STATE_RUNNING, mig_get_state(self->dev));
}

static const struct {
	u16 feature;
	bool get;
	bool set;
} probes[] = {
	{ VFIO_DEVICE_FEATURE_MIGRATION, true, false },
	{ VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, true, true },
	{ VFIO_DEVICE_FEATURE_DMA_LOGGING_START, false, true },
	{ VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP, false, true },
	{ VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT, true, false },
	{ VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, true, false },
	{ VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2, false, true },
};

TEST_F(device, feature_probe)
{
	unsigned int i;
	u16 feature;

	for (i = 0; i < ARRAY_SIZE(probes); i++) {
		feature = probes[i].feature;
		EXPECT_EQ(0, vfio_feature_probe(self->fd, feature, 0))
			TH_LOG("feature %u", feature);
		EXPECT_EQ(probes[i].get ? 0 : -EINVAL,
			  vfio_feature_probe(self->fd, feature,
					     VFIO_DEVICE_FEATURE_GET))
			TH_LOG("feature %u", feature);
		EXPECT_EQ(probes[i].set ? 0 : -EINVAL,
			  vfio_feature_probe(self->fd, feature,
					     VFIO_DEVICE_FEATURE_SET))
			TH_LOG("feature %u", feature);
	}
}

TEST_F(device, migration_flags)
{
	u64 flags = 0;

	ASSERT_EQ(0, mig_flags(self->dev, &flags));
	EXPECT_EQ(VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P |
		  VFIO_MIGRATION_PRE_COPY, flags);
	EXPECT_EQ(-EINVAL, vfio_feature_set(self->fd,
					    VFIO_DEVICE_FEATURE_MIGRATION,
					    &flags, sizeof(flags)));
}

/* ------------------------------------------------------------------------ */
/* R9 to R26: the state machine                                             */

enum {
	ERR = VFIO_DEVICE_STATE_ERROR,
	STOP = VFIO_DEVICE_STATE_STOP,
	RUN = VFIO_DEVICE_STATE_RUNNING,
	SC = VFIO_DEVICE_STATE_STOP_COPY,
	RES = VFIO_DEVICE_STATE_RESUMING,
	RP = VFIO_DEVICE_STATE_RUNNING_P2P,
	PC = VFIO_DEVICE_STATE_PRE_COPY,
	PCP = VFIO_DEVICE_STATE_PRE_COPY_P2P,
};

#define MAX_PATH	5

/*
 * Every pair of states: the steps that the device takes, an empty path for a
 * request that is refused, and whether the last step begins a session. Rule
 * R21, written out by hand so that nothing here is computed as the kernel
 * computes it. Leaving ERROR and asking for ERROR always fails.
 */
static const struct arc {
	u8 from;
	u8 to;
	u8 path[MAX_PATH];
	bool fd;
} arcs[] = {
	{ RUN, RUN, { RUN } },
	{ RUN, RP, { RP } },
	{ RUN, PC, { PC }, true },
	{ RUN, PCP, { RP, PCP }, true },
	{ RUN, STOP, { RP, STOP } },
	{ RUN, SC, { RP, STOP, SC }, true },
	{ RUN, RES, { RP, STOP, RES }, true },
	{ RUN, ERR, {} },

	{ RP, RUN, { RUN } },
	{ RP, RP, { RP } },
	{ RP, PC, { RUN, PC }, true },
	{ RP, PCP, { PCP }, true },
	{ RP, STOP, { STOP } },
	{ RP, SC, { STOP, SC }, true },
	{ RP, RES, { STOP, RES }, true },
	{ RP, ERR, {} },

	{ PC, RUN, { RUN } },
	{ PC, RP, { RUN, RP } },
	{ PC, PC, { PC } },
	{ PC, PCP, { PCP } },
	{ PC, STOP, { RUN, RP, STOP } },
	{ PC, SC, { PCP, SC } },
	{ PC, RES, { RUN, RP, STOP, RES }, true },
	{ PC, ERR, {} },

	{ PCP, RUN, { RP, RUN } },
	{ PCP, RP, { RP } },
	{ PCP, PC, { PC } },
	{ PCP, PCP, { PCP } },
	{ PCP, STOP, { RP, STOP } },
	{ PCP, SC, { SC } },
	{ PCP, RES, { RP, STOP, RES }, true },
	{ PCP, ERR, {} },

	{ STOP, RUN, { RP, RUN } },
	{ STOP, RP, { RP } },
	{ STOP, PC, { RP, RUN, PC }, true },
	{ STOP, PCP, { RP, PCP }, true },
	{ STOP, STOP, { STOP } },
	{ STOP, SC, { SC }, true },
	{ STOP, RES, { RES }, true },
	{ STOP, ERR, {} },

	{ SC, RUN, { STOP, RP, RUN } },
	{ SC, RP, { STOP, RP } },
	{ SC, PC, {} },
	{ SC, PCP, {} },
	{ SC, STOP, { STOP } },
	{ SC, SC, { SC } },
	{ SC, RES, { STOP, RES }, true },
	{ SC, ERR, {} },

	{ RES, RUN, { STOP, RP, RUN } },
	{ RES, RP, { STOP, RP } },
	{ RES, PC, { STOP, RP, RUN, PC }, true },
	{ RES, PCP, { STOP, RP, PCP }, true },
	{ RES, STOP, { STOP } },
	{ RES, SC, { STOP, SC }, true },
	{ RES, RES, { RES } },
	{ RES, ERR, {} },

	{ ERR, RUN, {} },
	{ ERR, RP, {} },
	{ ERR, PC, {} },
	{ ERR, PCP, {} },
	{ ERR, STOP, {} },
	{ ERR, SC, {} },
	{ ERR, RES, {} },
	{ ERR, ERR, {} },
};

_Static_assert(ARRAY_SIZE(arcs) == 64, "all pairs of states");

static u8 arc_end(const struct arc *arc)
{
	u8 end = arc->from;
	int i;

	for (i = 0; i < MAX_PATH && arc->path[i]; i++)
		end = arc->path[i];

	return end;
}

static bool same_state(struct vfio_pci_device *dev, u32 state)
{
	char word[32] = "";
	int got = mig_get_state(dev);

	precopy_sysfs_read(device_bdf, "migration_state", word, sizeof(word));
	if (got == (int)state && !strcmp(word, mig_state_name(state)))
		return true;

	fprintf(stderr, "# expected %s, GET says %s, sysfs says %s\n",
		mig_state_name(state), mig_state_name(got), word);
	return false;
}

/*
 * From RUNNING to @from, with a session's fd in @data_fd (or -1). RESUMING is
 * entered with @stream already written, so that every way out is open. Returns
 * false for ERROR if this device cannot be brought there.
 */
static bool go_to(struct vfio_pci_device *dev, u32 from,
		  const struct mig_stream *stream, int *data_fd)
{
	u32 via = from == ERR ? RES : from;
	u8 junk[64] = { 1 };

	VFIO_ASSERT_EQ(mig_set_state(dev, via, data_fd), 0, "to %s\n",
		       mig_state_name(via));
	if (from == RES)
		VFIO_ASSERT_EQ(mig_write_all(*data_fd, stream->data, stream->len,
					     stream->len, NULL), 0);
	if (from != ERR)
		return true;

	(void)!write(*data_fd, junk, sizeof(junk));
	VFIO_ASSERT_NE(mig_set_state(dev, STOP, NULL), 0);

	return mig_get_state(dev) == ERR;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

TEST_F_TIMEOUT(device, fsm_all_pairs, 120)
{
	const struct arc *arc;
	int old_fd, new_fd, ret;
	bool refused;

	precopy_fill(&self->pd, 0, 2, 7, BY_PWRITE);
	ASSERT_EQ(0, mig_save(self->dev, &self->stream));

	for (arc = arcs; arc < arcs + ARRAY_SIZE(arcs); arc++) {
		precopy_reset(&self->pd);
		ASSERT_TRUE(same_state(self->dev, RUN));
		refused = !arc->path[0] && arc->from != arc->to;
		if (arc->from == ERR && arc->to == ERR)
			refused = true;

		if (!go_to(self->dev, arc->from, &self->stream, &old_fd)) {
			/* Here a failed commit stays in RESUMING, as it may. */
			EXPECT_TRUE(same_state(self->dev, RES));
			close_fd(old_fd);
			continue;
		}

		ret = mig_set_state(self->dev, arc->to, &new_fd);
		EXPECT_EQ(refused, ret != 0);
		EXPECT_EQ(arc->fd, new_fd >= 0);
		EXPECT_TRUE(new_fd >= 0 || new_fd == -1);
		EXPECT_TRUE(same_state(self->dev, arc_end(arc)));
		if (arc->from != ERR && ret)
			EXPECT_EQ(-EINVAL, ret);
		if (__test_passed(_metadata) == 0)
			TH_LOG("on the way %s -> %s", mig_state_name(arc->from),
			       mig_state_name(arc->to));
		close_fd(old_fd);
		close_fd(new_fd);
	}
}

/* The steps in between, as the tracepoint tells them. */
#define TRACING	"/sys/kernel/tracing/"

static int write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_TRUNC), ret = 0;

	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		ret = -errno;
	close(fd);

	return ret;
}

static unsigned int count_arcs(void)
{
	unsigned int nr = 0;
	char line[512];
	FILE *f;

	f = fopen(TRACING "trace", "r");
	VFIO_ASSERT_NOT_NULL(f);
	while (fgets(line, sizeof(line), f))
		nr += strstr(line, "precopy_arc:") && strstr(line, device_bdf);
	fclose(f);

	return nr;
}

TEST_F_TIMEOUT(device, fsm_steps_traced, 120)
{
	const struct arc *arc;
	unsigned int steps;
	int fd, i;

	if (write_file(TRACING "events/precopy/precopy_arc/enable", "1"))
		SKIP(return, "no tracepoint precopy_arc in tracefs");
	ASSERT_EQ(0, mig_save(self->dev, &self->stream));

	for (arc = arcs; arc < arcs + ARRAY_SIZE(arcs); arc++) {
		if (arc->from == ERR || arc->from == arc->to || !arc->path[0])
			continue;
		precopy_reset(&self->pd);
		go_to(self->dev, arc->from, &self->stream, &fd);
		ASSERT_EQ(0, write_file(TRACING "trace", "\n"));
		ASSERT_EQ(0, mig_set_state(self->dev, arc->to, NULL));
		for (steps = i = 0; i < MAX_PATH; i++)
			steps += arc->path[i] != 0;
		EXPECT_EQ(steps, count_arcs())
			TH_LOG("%s -> %s", mig_state_name(arc->from),
			       mig_state_name(arc->to));
		close_fd(fd);
	}
	write_file(TRACING "events/precopy/precopy_arc/enable", "0");
}

/* R10: nothing of one user's migration is left for the next. */
TEST_F(device, state_after_close)
{
	char path[PATH_MAX], word[32] = "";
	FILE *f;
	int fd;

	ASSERT_EQ(0, mig_set_state(self->dev, PC, &fd));
	precopy_close(&self->pd);
	close(fd);
	/* The core asks for the state of a closed device as well. */
	snprintf_assert(path, sizeof(path),
			"/sys/kernel/debug/vfio/%s/migration/state", device_bdf);
	f = fopen(path, "r");
	if (f) {
		EXPECT_EQ(1, fscanf(f, "%31s", word));
		EXPECT_STREQ("RUNNING", word);
		fclose(f);
	}
	precopy_open(&self->pd, device_bdf, variant->mode, MEMORY_SIZE);
	self->dev = self->pd.dev;
	EXPECT_TRUE(same_state(self->dev, RUN));
}

/* R13, R51: a device without PRE_COPY, which the test knob makes of this one. */
TEST_F(device, without_precopy)
{
	static const u8 optional[] = { PC, PCP };
	u64 flags = 0;
	unsigned int i;
	int fd;

	if (precopy_knob(device_bdf, "no_precopy", 1))
		SKIP(return, "no test knob no_precopy in debugfs");
	precopy_close(&self->pd);
	precopy_open(&self->pd, device_bdf, variant->mode, MEMORY_SIZE);
	self->dev = self->pd.dev;

	EXPECT_EQ(0, mig_flags(self->dev, &flags));
	EXPECT_EQ(VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P, flags);
	for (i = 0; i < ARRAY_SIZE(optional); i++) {
		EXPECT_EQ(-EINVAL, mig_set_state(self->dev, optional[i], &fd));
		EXPECT_EQ(-1, fd);
		EXPECT_TRUE(same_state(self->dev, RUN));
	}
	EXPECT_EQ(-EINVAL, mig_precopy_v2_enable(self->dev));
	EXPECT_EQ(-EINVAL, vfio_feature_probe(self->pd.fd,
					      VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
					      0));
	precopy_fill(&self->pd, 0, 20, 5, BY_MMAP);
	EXPECT_EQ(0, mig_save(self->dev, &self->stream));
	EXPECT_EQ(0, mig_set_state(self->dev, STOP, NULL));
	EXPECT_EQ(0, mig_load(self->dev, &self->stream, SZ_64K));
	EXPECT_EQ(0, precopy_differ(&self->pd, self->pd.shadow));

	/* It lasts until the next open. */
	ASSERT_EQ(0, precopy_knob(device_bdf, "no_precopy", 0));
	precopy_close(&self->pd);
	precopy_open(&self->pd, device_bdf, variant->mode, MEMORY_SIZE);
	self->dev = self->pd.dev;
	EXPECT_EQ(0, mig_flags(self->dev, &flags));
	EXPECT_EQ(VFIO_MIGRATION_PRE_COPY, flags & VFIO_MIGRATION_PRE_COPY);
}

/* R12, R13: no such state. */
TEST_F(device, fsm_bad_states)
{
	static const u32 bad[] = { ERR, 8, 9, 0x80000000, ~0U };
	static const u8 from[] = { RUN, RP, STOP, SC, RES, PC, PCP };
	unsigned int i, k;
	int fd, other;

	for (i = 0; i < ARRAY_SIZE(from); i++) {
		precopy_reset(&self->pd);
		ASSERT_EQ(0, mig_set_state(self->dev, from[i], &fd));
		for (k = 0; k < ARRAY_SIZE(bad); k++) {
			EXPECT_EQ(-EINVAL, mig_set_state(self->dev, bad[k], &other));
			EXPECT_EQ(-1, other);
			EXPECT_TRUE(same_state(self->dev, from[i]));
		}
		close_fd(fd);
	}
}

/* R11, R14, R19: a refused or an idle request leaves the session alone. */
TEST_F(device, fsm_session_untouched)
{
	int fd, other;
	ssize_t ret;

	precopy_fill(&self->pd, 0, 8, 3, BY_PWRITE);
	ASSERT_EQ(0, mig_set_state(self->dev, SC, &fd));
	ASSERT_LT(0, mig_stream_read(&self->stream, fd, 100));

	EXPECT_EQ(-EINVAL, mig_set_state(self->dev, PC, &other));
	EXPECT_EQ(-1, other);
	EXPECT_EQ(-EINVAL, mig_set_state(self->dev, PCP, &other));
	EXPECT_EQ(0, mig_set_state(self->dev, SC, &other));
	EXPECT_EQ(-1, other);
	EXPECT_TRUE(same_state(self->dev, SC));

	ret = mig_stream_drain(&self->stream, fd, 1000);
	EXPECT_EQ(0, ret);
	close(fd);
	EXPECT_EQ(0, mig_set_state(self->dev, STOP, NULL));
	EXPECT_EQ(0, mig_load(self->dev, &self->stream, 4096));
	EXPECT_EQ(0, precopy_differ(&self->pd, self->pd.shadow));
}

/* R15: nothing but a reset leads out of a failed load. */
TEST_F(device, fsm_failed_load)
{
	static const u8 all[] = { RUN, RP, STOP, SC, PC, PCP };
	u8 junk[64] = { 1 };
	unsigned int i;
	int fd, state;

	ASSERT_EQ(0, mig_set_state(self->dev, RES, &fd));
	ASSERT_EQ(-1, write(fd, junk, sizeof(junk)));
	EXPECT_EQ(EINVAL, errno);
	for (i = 0; i < ARRAY_SIZE(all); i++) {
		EXPECT_NE(0, mig_set_state(self->dev, all[i], NULL));
		state = mig_get_state(self->dev);
		EXPECT_TRUE(state == RES || state == ERR);
	}
	close(fd);
	precopy_reset(&self->pd);
	EXPECT_TRUE(same_state(self->dev, RUN));
	EXPECT_EQ(0, mig_save(self->dev, &self->stream));
}

/* R18: the session's fd is the same all along, and closed on exec. */
TEST_F(device, fsm_one_fd)
{
	struct vfio_precopy_info info = {};
	int fd, other;

	ASSERT_EQ(0, mig_set_state(self->dev, PC, &fd));
	EXPECT_EQ(FD_CLOEXEC, fcntl(fd, F_GETFD) & FD_CLOEXEC);
	EXPECT_EQ(0, mig_set_state(self->dev, PCP, &other));
	EXPECT_EQ(-1, other);
	EXPECT_EQ(0, mig_precopy_info(fd, &info));
	EXPECT_EQ(0, mig_set_state(self->dev, PC, &other));
	EXPECT_EQ(-1, other);
	EXPECT_EQ(0, mig_precopy_info(fd, &info));
	EXPECT_EQ(0, mig_set_state(self->dev, SC, &other));
	EXPECT_EQ(-1, other);
	EXPECT_EQ(0, mig_stream_drain(&self->stream, fd, SZ_64K));
	close(fd);

	precopy_reset(&self->pd);
	ASSERT_EQ(0, mig_set_state(self->dev, RES, &fd));
	EXPECT_EQ(FD_CLOEXEC, fcntl(fd, F_GETFD) & FD_CLOEXEC);
	close(fd);
}

/* R20: the state has changed although the fd could not be given out. */
TEST_F(device, fsm_fd_table_full)
{
	struct rlimit old, none = {};
	int fd;

	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &old));
	none.rlim_max = old.rlim_max;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
	EXPECT_EQ(-EMFILE, mig_set_state(self->dev, PC, &fd));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));

	EXPECT_TRUE(same_state(self->dev, PC));
	EXPECT_EQ(0, mig_set_state(self->dev, RUN, NULL));
	EXPECT_TRUE(same_state(self->dev, RUN));
	EXPECT_EQ(0, mig_save(self->dev, &self->stream));
	precopy_reset(&self->pd);

	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
	EXPECT_EQ(-EMFILE, mig_set_state(self->dev, RES, &fd));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &old));
	EXPECT_TRUE(same_state(self->dev, RES));
	precopy_reset(&self->pd);
	EXPECT_EQ(0, mig_load(self->dev, &self->stream, SZ_64K));
}

/* R20: the same with a result that cannot be written. */
TEST_F(device, fsm_fault)
{
	struct vfio_device_feature_mig_state *mig;
	struct vfio_device_feature *feature;

	feature = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, feature);
	feature->argsz = sizeof(*feature) + sizeof(*mig);
	feature->flags = VFIO_DEVICE_FEATURE_SET |
			 VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
	mig = (void *)feature->data;
	mig->device_state = PC;
	ASSERT_EQ(0, mprotect(feature, 4096, PROT_READ));

	EXPECT_EQ(-1, ioctl(self->fd, VFIO_DEVICE_FEATURE, feature));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_TRUE(same_state(self->dev, PC));
	EXPECT_EQ(0, mig_set_state(self->dev, RUN, NULL));
	EXPECT_EQ(0, mig_save(self->dev, &self->stream));
	munmap(feature, 4096);
}

/* R53: from every state, with every kind of session. */
TEST_F(device, reset_in_every_state)
{
	static const u8 from[] = { RUN, RP, STOP, SC, RES, PC, PCP, ERR };
	struct vfio_precopy_info info = {};
	unsigned int i;
	char byte = 0;
	u16 command;
	int fd;

	ASSERT_EQ(0, mig_save(self->dev, &self->stream));
	for (i = 0; i < ARRAY_SIZE(from); i++) {
		precopy_reset(&self->pd);
		precopy_fill(&self->pd, i, 3, i + 1, i & 1 ? BY_MMAP : BY_PWRITE);
		go_to(self->dev, from[i], &self->stream, &fd);
		command = vfio_pci_config_readw(self->dev, PCI_COMMAND);

		precopy_reset(&self->pd);
		EXPECT_TRUE(same_state(self->dev, RUN));
		EXPECT_EQ(0, precopy_differ(&self->pd, self->pd.shadow));
		/* Memory goes, the configuration stays. */
		EXPECT_EQ(command, vfio_pci_config_readw(self->dev, PCI_COMMAND));
		if (fd < 0)
			continue;
		if (from[i] == RES || from[i] == ERR) {
			EXPECT_EQ(-1, write(fd, &byte, 1));
		} else {
			/* R38: there is no PRE_COPY to ask about. */
			EXPECT_EQ(-EINVAL, mig_precopy_info(fd, &info));
			EXPECT_EQ(-1, read(fd, &byte, 1));
		}
		EXPECT_EQ(ENODEV, errno);
		close(fd);
	}
}

/* R53: a reset that comes from somebody else, where the carrier can do one. */
TEST_F(device, reset_through_sysfs)
{
	static const u8 from[] = { RUN, STOP, SC, RES, PC, PCP };
	char path[PATH_MAX], byte = 0;
	unsigned int i;
	int fd;

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/reset",
			device_bdf);
	if (access(path, W_OK))
		SKIP(return, "the carrier has no reset of its own");
	ASSERT_EQ(0, mig_save(self->dev, &self->stream));
	for (i = 0; i < ARRAY_SIZE(from); i++) {
		precopy_reset(&self->pd);
		precopy_fill(&self->pd, 0, 3, 4, BY_MMAP);
		go_to(self->dev, from[i], &self->stream, &fd);
		ASSERT_EQ(0, write_file(path, "1"));
		memset(self->pd.shadow, 0, MEMORY_SIZE);
		EXPECT_TRUE(same_state(self->dev, RUN));
		EXPECT_EQ(0, precopy_differ(&self->pd, self->pd.shadow));
		if (fd < 0)
			continue;
		EXPECT_EQ(-1, from[i] == RES ? write(fd, &byte, 1) :
					       read(fd, &byte, 1));
		EXPECT_EQ(ENODEV, errno);
		close(fd);
	}
}

/* ------------------------------------------------------------------------ */
/* R27 to R37: data fds                                                     */

static short poll_now(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLIN | POLLOUT };

	return poll(&pfd, 1, 0) > 0 ? pfd.revents : 0;
}

TEST_F(device, fd_not_seekable)
{
	static const u8 states[] = { PC, SC, RES };
	char byte = 0;
	unsigned int i;
	int fd;

	for (i = 0; i < ARRAY_SIZE(states); i++) {
		precopy_reset(&self->pd);
		ASSERT_EQ(0, mig_set_state(self->dev, states[i], &fd));
		EXPECT_EQ(-1, lseek(fd, 0, SEEK_SET));
		EXPECT_EQ(ESPIPE, errno);
		EXPECT_EQ(-1, pread(fd, &byte, 1, 0));
		EXPECT_EQ(ESPIPE, errno) TH_LOG("%s", mig_state_name(states[i]));
		EXPECT_EQ(-1, pwrite(fd, &byte, 1, 0));
		EXPECT_EQ(ESPIPE, errno) TH_LOG("%s", mig_state_name(states[i]));
		close(fd);
	}
}

TEST_F(device, fd_one_way)
{
	struct vfio_precopy_info info = { .argsz = sizeof(info) };
	char byte = 0;
	int fd;

	ASSERT_EQ(0, mig_set_state(self->dev, PC, &fd));
	EXPECT_EQ(-1, write(fd, &byte, 1));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(-1, ioctl(fd, UNKNOWN_IOCTL, &info));
	EXPECT_EQ(ENOTTY, errno);
	EXPECT_EQ(0, read(fd, &byte, 0));
	close(fd);

	precopy_reset(&self->pd);
	ASSERT_EQ(0, mig_set_state(self->dev, RES, &fd));
	EXPECT_EQ(-1, read(fd, &byte, 1));
	EXPECT_EQ(EBADF, errno);
	EXPECT_EQ(-1, ioctl(fd, VFIO_MIG_GET_PRECOPY_INFO, &info));
	EXPECT_EQ(ENOTTY, errno);
	EXPECT_EQ(-1, ioctl(fd, UNKNOWN_IOCTL, &info));
	EXPECT_EQ(ENOTTY, errno);
	EXPECT_EQ(0, write(fd, &byte, 0));
	close(fd);
}

/* R30, R31: each way a session ends. */
static const struct {
	u8 state;
	u8 next;
} endings[] = {
	{ PC, RUN }, { PCP, RP }, { PC, STOP }, { SC, STOP }, { SC, RUN },
	{ RES, STOP },
};

TEST_F(device, fd_dead_after_session)
{
	struct vfio_precopy_info info = {};
	unsigned int i;
	char byte = 0;
	int fd;

	ASSERT_EQ(0, mig_save(self->dev, &self->stream));
	for (i = 0; i < ARRAY_SIZE(endings); i++) {
		precopy_reset(&self->pd);
		go_to(self->dev, endings[i].state, &self->stream, &fd);
		ASSERT_EQ(0, mig_set_state(self->dev, endings[i].next, NULL));

		EXPECT_EQ(-1, endings[i].state == RES ? write(fd, &byte, 1) :
						       read(fd, &byte, 1));
		EXPECT_EQ(ENODEV, errno) TH_LOG("ending %u", i);
		EXPECT_NE(0, poll_now(fd)) TH_LOG("ending %u", i);
		if (endings[i].state != RES)
			EXPECT_GT(0, mig_precopy_info(fd, &info));
		close(fd);
	}
}

TEST_F(device, fd_dead_after_close)
{
	static const u8 states[] = { PC, SC, RES };
	struct vfio_precopy_info info = {};
	unsigned int i;
	char byte = 0;
	int fd;

	for (i = 0; i < ARRAY_SIZE(states); i++) {
		ASSERT_EQ(0, mig_set_state(self->dev, states[i], &fd));
		precopy_close(&self->pd);
		EXPECT_EQ(-1, states[i] == RES ? write(fd, &byte, 1) :
						 read(fd, &byte, 1));
		EXPECT_EQ(ENODEV, errno);
		EXPECT_NE(0, poll_now(fd));
		EXPECT_GT(0, mig_precopy_info(fd, &info));
		close(fd);
		precopy_open(&self->pd, device_bdf, variant->mode, MEMORY_SIZE);
		self->dev = self->pd.dev;
	}
}

/* R32: whoever closes the fd early loses the data and nothing else. */
TEST_F(device, fd_closed_early)
{
	int fd;

	ASSERT_EQ(0, mig_set_state(self->dev, PC, &fd));
	close(fd);
	EXPECT_EQ(0, mig_set_state(self->dev, PCP, NULL));
	EXPECT_EQ(0, mig_set_state(self->dev, SC, NULL));
	EXPECT_EQ(0, mig_set_state(self->dev, STOP, NULL));
	ASSERT_EQ(0, mig_set_state(self->dev, SC, &fd));
	close(fd);
	EXPECT_EQ(0, mig_set_state(self->dev, RUN, NULL));

	EXPECT_EQ(0, mig_save(self->dev, &self->stream));
	precopy_reset(&self->pd);
	ASSERT_EQ(0, mig_set_state(self->dev, RES, &fd));
	ASSERT_EQ(0, mig_write_all(fd, self->stream.data, self->stream.len,
				   SZ_64K, NULL));
	close(fd);
	EXPECT_EQ(0, mig_set_state(self->dev, STOP, NULL));
}

/* R33: an old fd never sees the data of a newer session. */
TEST_F(device, fd_of_old_session)
{
	struct vfio_precopy_info info = {};
	int old, new;
	char byte;

	precopy_fill(&self->pd, 0, 4, 1, BY_PWRITE);
	ASSERT_EQ(0, mig_set_state(self->dev, PC, &old));
	ASSERT_EQ(0, mig_set_state(self->dev, RUN, NULL));
	ASSERT_EQ(0, mig_set_state(self->dev, PC, &new));

	EXPECT_EQ(-1, read(old, &byte, 1));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_EQ(-ENODEV, mig_precopy_info(old, &info));
	EXPECT_EQ(0, mig_precopy_info(new, &info));
	close(old);
	EXPECT_EQ(-ENOMSG, mig_stream_drain(&self->stream, new, SZ_64K));
	close(new);
}

/* A fault in the user's buffer loses no byte of the stream: R35. */
TEST_F(device, fd_fault_keeps_stream)
{
	struct mig_stream whole = {};
	u8 *buf;
	int fd;

	precopy_fill(&self->pd, 0, 32, 9, BY_PWRITE);
	ASSERT_EQ(0, mig_save(self->dev, &whole));
	ASSERT_EQ(0, mig_set_state(self->dev, STOP, NULL));

	/* What is behind the first 1000 bytes of the buffer is not there. */
	buf = end_of_page(1000);
	ASSERT_EQ(0, mig_set_state(self->dev, SC, &fd));
	while (self->stream.len < whole.len) {
		ssize_t ret = read(fd, buf, 3000);

		ASSERT_LT(0, ret) TH_LOG("at byte %zu", self->stream.len);
		ASSERT_GE(1000, ret);
		mig_stream_append(&self->stream, buf, ret);
		if (self->stream.len == whole.len)
			break;
		ASSERT_EQ(-1, read(fd, buf + 1000, 10));
		ASSERT_EQ(EFAULT, errno);
	}
	EXPECT_EQ(0, mig_stream_drain(&self->stream, fd, 100));
	EXPECT_EQ(whole.len, self->stream.len);
	EXPECT_EQ(0, memcmp(whole.data, self->stream.data, whole.len));
	close(fd);
	mig_stream_free(&whole);
}

/* The same for what is written: nothing is lost, nothing comes twice. */
TEST_F(device, fd_fault_keeps_load)
{
	size_t len, more, done = 0;
	ssize_t ret;
	u8 *buf;
	int fd;

	precopy_fill(&self->pd, 0, 32, 9, BY_PWRITE);
	ASSERT_EQ(0, mig_save(self->dev, &self->stream));
	ASSERT_EQ(0, mig_set_state(self->dev, STOP, NULL));

	buf = end_of_page(1000);
	ASSERT_EQ(0, mig_set_state(self->dev, RES, &fd));
	while (done < self->stream.len) {
		len = self->stream.len - done;
		more = len > 1000 ? 2000 : 0;
		len = len > 1000 ? 1000 : len;
		memcpy(buf + 1000 - len, self->stream.data + done, len);
		ret = write(fd, buf + 1000 - len, len + more);
		ASSERT_EQ(len, ret) TH_LOG("at byte %zu", done);
		done += ret;
		if (done == self->stream.len)
			break;
		ASSERT_EQ(-1, write(fd, buf + 1000, 10));
		ASSERT_EQ(EFAULT, errno);
	}
	EXPECT_EQ(0, mig_set_state(self->dev, STOP, NULL));
	EXPECT_EQ(0, precopy_differ(&self->pd, self->pd.shadow));
	close(fd);
}

/* ------------------------------------------------------------------------ */
/* R38 to R52: PRECOPY_INFO and MIG_DATA_SIZE                               */

TEST_F(device, precopy_info_states)
{
	struct vfio_precopy_info info = {};
	int fd;

	ASSERT_EQ(0, mig_set_state(self->dev, PC, &fd));
	EXPECT_EQ(0, mig_precopy_info(fd, &info));
	ASSERT_EQ(0, mig_set_state(self->dev, PCP, NULL));
	EXPECT_EQ(0, mig_precopy_info(fd, &info));
	ASSERT_EQ(0, mig_set_state(self->dev, SC, NULL));
	EXPECT_EQ(-EINVAL, mig_precopy_info(fd, &info));
	ASSERT_EQ(0, mig_set_state(self->dev, STOP, NULL));
	EXPECT_GT(0, mig_precopy_info(fd, &info));
	close(fd);

	ASSERT_EQ(0, mig_set_state(self->dev, SC, &fd));
	EXPECT_EQ(-EINVAL, mig_precopy_info(fd, &info));
	close(fd);
}

TEST_F(device, precopy_info_argsz)
{
	struct {
		struct vfio_precopy_info info;
		u64 more;
	} big = { .more = POISON };
	int fd;

	ASSERT_EQ(0, mig_set_state(self->dev, PC, &fd));
	big.info.argsz = 23;
	EXPECT_EQ(-1, ioctl(fd, VFIO_MIG_GET_PRECOPY_INFO, &big));
	EXPECT_EQ(EINVAL, errno);
	big.info.argsz = 0;
	EXPECT_EQ(-1, ioctl(fd, VFIO_MIG_GET_PRECOPY_INFO, &big));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, ioctl(fd, VFIO_MIG_GET_PRECOPY_INFO, bad_address));
	EXPECT_EQ(EFAULT, errno);

	big.info.argsz = sizeof(big);
	EXPECT_EQ(0, ioctl(fd, VFIO_MIG_GET_PRECOPY_INFO, &big));
	EXPECT_EQ(POISON, big.more);
	EXPECT_NE(0, big.info.initial_bytes);
	close(fd);
}

/* R40: what the user left in the fields must not come back. */
TEST_F(device, precopy_info_is_output)
{
	struct vfio_precopy_info clean = {}, dirty = {
		.flags = ~0U,
		.initial_bytes = POISON,
		.dirty_bytes = POISON,
	};
	int fd;

	precopy_fill(&self->pd, 0, 4, 1, BY_PWRITE);
	ASSERT_EQ(0, mig_set_state(self->dev, PC, &fd));
	ASSERT_EQ(0, mig_precopy_info(fd, &clean));
	ASSERT_EQ(0, mig_precopy_info(fd, &dirty));
	EXPECT_EQ(clean.initial_bytes, dirty.initial_bytes);
	EXPECT_EQ(clean.dirty_bytes, dirty.dirty_bytes);
	EXPECT_EQ(0, dirty.dirty_bytes);
	EXPECT_EQ(clean.initial_bytes,
		  precopy_sysfs_u64(device_bdf, "initial_bytes"));
	EXPECT_EQ(0, precopy_sysfs_u64(device_bdf, "dirty_bytes"));

	/* Opted in, flags is an output as well, and nothing is reinitialised. */
	ASSERT_EQ(0, mig_precopy_v2_enable(self->dev));
	dirty.flags = ~0U;
	dirty.initial_bytes = POISON;
	dirty.dirty_bytes = POISON;
	ASSERT_EQ(0, mig_precopy_info(fd, &dirty));
	EXPECT_EQ(0, dirty.flags);
	EXPECT_EQ(clean.initial_bytes, dirty.initial_bytes);
	EXPECT_EQ(0, dirty.dirty_bytes);
	close(fd);
}

/* R51, R52 */
TEST_F(device, precopy_v2)
{
	struct vfio_precopy_info info = { .flags = ~0U };
	u8 byte = 0;
	int fd;

	EXPECT_EQ(0, mig_precopy_v2_enable(self->dev));
	EXPECT_EQ(0, mig_precopy_v2_enable(self->dev));
	EXPECT_EQ(-EINVAL, vfio_feature_get(self->fd,
					    VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
					    &byte, 1));
	/* A reset does not take it back. */
	precopy_reset(&self->pd);
	ASSERT_EQ(0, mig_set_state(self->dev, PC, &fd));
	ASSERT_EQ(0, mig_precopy_info(fd, &info));
	EXPECT_EQ(0, info.flags);
	close(fd);
}

/* R41, R44 to R46, R48 on a device that nobody touches. */
TEST_F(device, precopy_temporary_end)
{
	struct vfio_precopy_info info = {};
	u64 initial;
	char byte;
	int fd;

	precopy_fill(&self->pd, 3, 5, 1, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->dev, PC, &fd));
	ASSERT_EQ(0, mig_precopy_info(fd, &info));
	initial = info.initial_bytes;
	EXPECT_LT(5 * PRECOPY_PAGE, initial);
	EXPECT_EQ(POLLIN, poll_now(fd) & POLLIN);

	EXPECT_EQ(-ENOMSG, mig_stream_drain(&self->stream, fd, 10000));
	EXPECT_GE(initial, self->stream.len);
	ASSERT_EQ(0, mig_precopy_info(fd, &info));
	EXPECT_EQ(0, info.initial_bytes);
	EXPECT_EQ(0, info.dirty_bytes);
	EXPECT_EQ(0, poll_now(fd) & POLLIN);

	ASSERT_EQ(0, mig_set_state(self->dev, PCP, NULL));
	EXPECT_EQ(-1, read(fd, &byte, 1));
	EXPECT_EQ(ENOMSG, errno);
	EXPECT_EQ(0, poll_now(fd) & POLLIN);

	ASSERT_EQ(0, mig_set_state(self->dev, SC, NULL));
	EXPECT_EQ(POLLIN, poll_now(fd) & POLLIN);
	EXPECT_EQ(0, mig_stream_drain(&self->stream, fd, 10000));
	EXPECT_EQ(0, read(fd, &byte, 1));
	EXPECT_EQ(0, read(fd, &byte, 1));
	EXPECT_EQ(POLLIN, poll_now(fd) & POLLIN);
	close(fd);
}

/* R50 */
TEST_F(device, data_size_in_every_state)
{
	static const u8 states[] = { RUN, RP, STOP, SC, RES, PC, PCP, ERR };
	unsigned int i;
	u64 size = 0;
	int fd;

	ASSERT_EQ(0, mig_save(self->dev, &self->stream));
	EXPECT_EQ(-EINVAL, vfio_feature_set(self->fd,
					    VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
					    &size, sizeof(size)));
	for (i = 0; i < ARRAY_SIZE(states); i++) {
		precopy_reset(&self->pd);
		go_to(self->dev, states[i], &self->stream, &fd);
		EXPECT_EQ(0, mig_data_size(self->dev, &size))
			TH_LOG("%s", mig_state_name(states[i]));
		/* VMMs size their read buffer by it, once, while it runs. */
		if (states[i] == RUN || states[i] == RP)
			EXPECT_LE(SZ_1M, size);
		close_fd(fd);
	}
}

/* ------------------------------------------------------------------------ */
/* R59 to R62: DMA logging                                                  */

typedef struct vfio_device_feature_dma_logging_range log_range;

static int log_start(struct vfio_pci_device *dev, u64 page_size, u64 iova,
		     u64 length)
{
	log_range range = { .iova = iova, .length = length };

	return dma_log_start(dev, &page_size, &range, 1);
}

/* Refused, and still stopped. */
static bool log_refuses(struct vfio_pci_device *dev, u64 page_size, u64 iova,
			u64 length)
{
	int ret = log_start(dev, page_size, iova, length);
	u64 bitmap = 0;

	if (ret == -EINVAL &&
	    dma_log_report(dev, 0, SZ_64K, SZ_4K, &bitmap) == -EINVAL)
		return true;

	fprintf(stderr, "# page size %#lx, range %#lx + %#lx: %d\n", page_size,
		iova, length, ret);
	dma_log_stop(dev);
	return false;
}

TEST_F(device, dma_log_bad_start)
{
	EXPECT_TRUE(log_refuses(self->dev, 0, 0, 0));
	EXPECT_TRUE(log_refuses(self->dev, 0, 0, SZ_1M));
	EXPECT_TRUE(log_refuses(self->dev, SZ_4K, 0, 0));
	EXPECT_TRUE(log_refuses(self->dev, SZ_4K, SZ_1M, 0));
	/* No power of two, with a range that passes for aligned. */
	EXPECT_TRUE(log_refuses(self->dev, 0x3000, 0, SZ_64K));
	EXPECT_TRUE(log_refuses(self->dev, 3, 0, SZ_64K));
	EXPECT_TRUE(log_refuses(self->dev, ~0ULL, 0, 0));
	/* Not aligned. */
	EXPECT_TRUE(log_refuses(self->dev, SZ_4K, 0x800, SZ_1M));
	EXPECT_TRUE(log_refuses(self->dev, SZ_4K, 0, 0x1800));
	EXPECT_TRUE(log_refuses(self->dev, SZ_2M, SZ_4K, SZ_2M));

	EXPECT_EQ(-EOVERFLOW, log_start(self->dev, SZ_4K, ~0ULL << 12, SZ_8K));
	EXPECT_EQ(0, log_start(self->dev, SZ_4K, 0, SZ_1M));
	EXPECT_EQ(0, dma_log_stop(self->dev));
}

TEST_F(device, dma_log_ranges)
{
	static log_range ranges[257];
	u64 page_size = SZ_4K;
	int i;

	for (i = 0; i < 257; i++)
		ranges[i] = (log_range) { i * SZ_1M, SZ_64K };

	EXPECT_EQ(-EINVAL, dma_log_start(self->dev, &page_size, ranges, 0));
	EXPECT_EQ(-E2BIG, dma_log_start(self->dev, &page_size, ranges, 257));
	EXPECT_EQ(-E2BIG, dma_log_start(self->dev, &page_size, ranges, ~0U));
	EXPECT_EQ(-EFAULT, dma_log_start(self->dev, &page_size, bad_address, 1));
	EXPECT_EQ(0, dma_log_start(self->dev, &page_size, ranges, 256));
	EXPECT_LE(SZ_4K, page_size);
	EXPECT_EQ(0, page_size & (page_size - 1));
	EXPECT_EQ(0, dma_log_stop(self->dev));

	page_size = SZ_4K;
	ranges[1] = (log_range) { SZ_32K, SZ_64K };
	EXPECT_EQ(-EINVAL, dma_log_start(self->dev, &page_size, ranges, 2));
	ranges[1] = ranges[0];
	EXPECT_EQ(-EINVAL, dma_log_start(self->dev, &page_size, ranges, 2));
}

TEST_F(device, dma_log_start_stop)
{
	u64 bitmap = 0;

	EXPECT_EQ(0, dma_log_stop(self->dev));
	EXPECT_EQ(-EINVAL, dma_log_report(self->dev, 0, SZ_64K, SZ_4K, &bitmap));

	ASSERT_EQ(0, log_start(self->dev, SZ_4K, 0, SZ_1M));
	EXPECT_EQ(-EINVAL, log_start(self->dev, SZ_4K, SZ_2M, SZ_1M));
	/* The refused one has not ended the first. */
	EXPECT_EQ(0, dma_log_report(self->dev, 0, SZ_64K, SZ_4K, &bitmap));
	EXPECT_EQ(0, dma_log_stop(self->dev));
	EXPECT_EQ(0, dma_log_stop(self->dev));
	EXPECT_EQ(-EINVAL, dma_log_report(self->dev, 0, SZ_64K, SZ_4K, &bitmap));

	/* Any granularity that the user hints at. */
	ASSERT_EQ(0, log_start(self->dev, SZ_2M, 0, SZ_1G));
	EXPECT_EQ(0, dma_log_stop(self->dev));
}

/* A result that cannot be written ends the log again: R60. */
TEST_F(device, dma_log_start_fault)
{
	struct vfio_device_feature_dma_logging_control *control;
	struct vfio_device_feature *feature;
	log_range range = { 0, SZ_1M };
	u64 bitmap = 0;

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

	EXPECT_EQ(-1, ioctl(self->fd, VFIO_DEVICE_FEATURE, feature));
	EXPECT_EQ(EFAULT, errno);
	EXPECT_EQ(-EINVAL, dma_log_report(self->dev, 0, SZ_64K, SZ_4K, &bitmap));
	EXPECT_EQ(0, log_start(self->dev, SZ_4K, 0, SZ_1M));
	munmap(feature, 4096);
}

/* The device writes no guest memory, so no bit changes, set or clear. */
TEST_F(device, dma_log_report_is_true)
{
	static const struct {
		u64 iova;
		u64 length;
		u64 page_size;
	} sub[] = {
		{ 0, SZ_16M, SZ_4K }, { SZ_1M, SZ_64K, SZ_4K },
		{ SZ_8M, SZ_8M, SZ_64K }, { SZ_4K, SZ_4K, SZ_4K },
		{ 0, SZ_16M, SZ_2M },
	};
	u64 bitmap[64], want[64];
	unsigned int i, fill;

	ASSERT_EQ(0, log_start(self->dev, SZ_4K, 0, SZ_16M));
	precopy_fill(&self->pd, 0, 16, 5, BY_MMAP);
	for (i = 0; i < ARRAY_SIZE(sub); i++) {
		for (fill = 0; fill < 3; fill++) {
			memset(bitmap, fill == 0 ? 0 : fill == 1 ? 0xff : 0xa5,
			       sizeof(bitmap));
			memcpy(want, bitmap, sizeof(want));
			EXPECT_EQ(0, dma_log_report(self->dev, sub[i].iova,
						    sub[i].length,
						    sub[i].page_size, bitmap));
			EXPECT_EQ(0, memcmp(want, bitmap, sizeof(want)))
				TH_LOG("sub-range %u", i);
		}
	}
	EXPECT_EQ(0, dma_log_stop(self->dev));
}

TEST_F(device, dma_log_bad_report)
{
	u64 bitmap = 0;

	ASSERT_EQ(0, log_start(self->dev, SZ_4K, 0, SZ_16M));
	EXPECT_EQ(-EINVAL, dma_log_report(self->dev, 0, SZ_64K, 0, &bitmap));
	EXPECT_EQ(-EINVAL, dma_log_report(self->dev, 0, SZ_64K, 2048, &bitmap));
	EXPECT_EQ(-EINVAL, dma_log_report(self->dev, 0, SZ_64K, 0x3000, &bitmap));
	EXPECT_EQ(-EOVERFLOW, dma_log_report(self->dev, ~0ULL << 12, SZ_8K, SZ_4K,
					     &bitmap));
	EXPECT_EQ(0, bitmap);
}

/* R62: independent of the state machine, ended by reset and close. */
TEST_F(device, dma_log_lifetime)
{
	u64 bitmap = 0;
	int fd;

	ASSERT_EQ(0, log_start(self->dev, SZ_4K, 0, SZ_1M));
	ASSERT_EQ(0, mig_set_state(self->dev, PC, &fd));
	EXPECT_EQ(0, dma_log_report(self->dev, 0, SZ_64K, SZ_4K, &bitmap));
	ASSERT_EQ(0, mig_set_state(self->dev, STOP, NULL));
	close(fd);
	EXPECT_EQ(0, dma_log_report(self->dev, 0, SZ_64K, SZ_4K, &bitmap));
	EXPECT_EQ(0, dma_log_stop(self->dev));
	EXPECT_EQ(0, log_start(self->dev, SZ_4K, 0, SZ_1M));

	precopy_reset(&self->pd);
	EXPECT_EQ(-EINVAL, dma_log_report(self->dev, 0, SZ_64K, SZ_4K, &bitmap));
	EXPECT_EQ(0, log_start(self->dev, SZ_4K, 0, SZ_1M));

	precopy_close(&self->pd);
	precopy_open(&self->pd, device_bdf, variant->mode, MEMORY_SIZE);
	self->dev = self->pd.dev;
	EXPECT_EQ(-EINVAL, dma_log_report(self->dev, 0, SZ_64K, SZ_4K, &bitmap));
}

int main(int argc, char *argv[])
{
	char **bdfs;
	int nr;

	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr);
	precopy_require(bdfs, nr);
	device_bdf = bdfs[0];

	return test_harness_run(argc, argv);
}
