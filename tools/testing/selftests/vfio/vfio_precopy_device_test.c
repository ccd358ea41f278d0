// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a user may rely on beyond what every device owes: regions, interrupts,
 * config space, memory and its size, and where this driver promises more than
 * the rules of the migration interface. A test of a rule has its number; the
 * rules themselves are tested by programs that know no driver.
 */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/limits.h>
#include <linux/pci_regs.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/mig_device.h>
#include <libvfio/precopy_device.h>

#include <libvfio/mig_harness.h>

#define MEMORY_SIZE	SZ_1M

static const char *device_bdf;

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

TEST_F_TIMEOUT(device, get_info, MIG_TIMEOUT)
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

TEST_F_TIMEOUT(device, region_info, MIG_TIMEOUT)
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

/* Interrupts that the device has none of */
static const u32 no_irqs[] = {
	VFIO_PCI_INTX_IRQ_INDEX,
	VFIO_PCI_MSI_IRQ_INDEX,
	VFIO_PCI_MSIX_IRQ_INDEX,
};

TEST_F_TIMEOUT(device, irq_info, MIG_TIMEOUT)
{
	struct vfio_irq_info info = { .argsz = sizeof(info) };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(no_irqs); i++) {
		info.index = no_irqs[i];
		ASSERT_EQ(0, ioctl(self->fd, VFIO_DEVICE_GET_IRQ_INFO, &info));
		EXPECT_EQ(0, info.count) TH_LOG("irq index %u", no_irqs[i]);
	}

	info.index = VFIO_PCI_REQ_IRQ_INDEX;
	ASSERT_EQ(0, ioctl(self->fd, VFIO_DEVICE_GET_IRQ_INFO, &info));
	EXPECT_EQ(1, info.count);

	info.index = VFIO_PCI_NUM_IRQS;
	EXPECT_EQ(-1, ioctl(self->fd, VFIO_DEVICE_GET_IRQ_INFO, &info));
	EXPECT_EQ(EINVAL, errno);
}

/* Disabling them is fine, as VMMs do to clean up; nothing else is. */
TEST_F_TIMEOUT(device, irqs_disabled_only, MIG_TIMEOUT)
{
	static const u32 nothing = VFIO_IRQ_SET_DATA_NONE |
				   VFIO_IRQ_SET_ACTION_TRIGGER;
	struct vfio_irq_set good = {
		.argsz = sizeof(good), .flags = nothing,
	}, bad[4];
	unsigned int i, j;

	for (i = 0; i < ARRAY_SIZE(no_irqs); i++) {
		good.index = no_irqs[i];
		EXPECT_EQ(0, ioctl(self->fd, VFIO_DEVICE_SET_IRQS, &good));
		for (j = 0; j < ARRAY_SIZE(bad); j++)
			bad[j] = good;
		bad[0].argsz--;
		bad[1].flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_MASK;
		bad[2].start = 1;
		bad[3].count = 1;
		for (j = 0; j < ARRAY_SIZE(bad); j++) {
			EXPECT_EQ(-1, ioctl(self->fd, VFIO_DEVICE_SET_IRQS,
					    &bad[j]))
				TH_LOG("irq index %u, %u", no_irqs[i], j);
			EXPECT_EQ(EINVAL, errno);
		}
	}
}

TEST_F_TIMEOUT(device, config_identity, MIG_TIMEOUT)
{
	struct vfio_pci_device *dev = self->dev;

	EXPECT_EQ(precopy_pci_id(device_bdf, "vendor"), vfio_pci_config_readw(dev, PCI_VENDOR_ID));
	EXPECT_EQ(precopy_pci_id(device_bdf, "device"), vfio_pci_config_readw(dev, PCI_DEVICE_ID));
	EXPECT_EQ(precopy_pci_id(device_bdf, "subsystem_vendor"),
		  vfio_pci_config_readw(dev, PCI_SUBSYSTEM_VENDOR_ID));
	EXPECT_EQ(precopy_pci_id(device_bdf, "subsystem_device"),
		  vfio_pci_config_readw(dev, PCI_SUBSYSTEM_ID));
	EXPECT_EQ(precopy_pci_id(device_bdf, "class"),
		  vfio_pci_config_readl(dev, PCI_CLASS_REVISION) >> 8);
	EXPECT_EQ(precopy_pci_id(device_bdf, "revision"),
		  vfio_pci_config_readb(dev, PCI_REVISION_ID));

	EXPECT_EQ(PCI_HEADER_TYPE_NORMAL,
		  vfio_pci_config_readb(dev, PCI_HEADER_TYPE));
	EXPECT_EQ(0, vfio_pci_config_readw(dev, PCI_STATUS) & PCI_STATUS_CAP_LIST);
	EXPECT_EQ(0, vfio_pci_config_readb(dev, PCI_CAPABILITY_LIST));
	EXPECT_EQ(0, vfio_pci_config_readb(dev, PCI_INTERRUPT_PIN));
}

TEST_F_TIMEOUT(device, config_read_only, MIG_TIMEOUT)
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

/* What firmware and operating systems write for themselves to read. */
TEST_F_TIMEOUT(device, config_scratch, MIG_TIMEOUT)
{
	static const u8 regs[] = {
		PCI_CACHE_LINE_SIZE, PCI_LATENCY_TIMER, PCI_INTERRUPT_LINE,
	};
	struct vfio_pci_device *dev = self->dev;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(regs); i++) {
		vfio_pci_config_writeb(dev, regs[i], 0xa0 + i);
		EXPECT_EQ(0xa0 + i, vfio_pci_config_readb(dev, regs[i]));
	}
}

/* The way an operating system sizes a BAR. */
TEST_F_TIMEOUT(device, config_bar_sizing, MIG_TIMEOUT)
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
TEST_F_TIMEOUT(device, never_bus_master, MIG_TIMEOUT) /* R24, R25 */
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

TEST_F_TIMEOUT(device, config_bounds, MIG_TIMEOUT)
{
	u64 offset = self->dev->config_space.offset;
	u8 buf[512];

	EXPECT_EQ(256, pread(self->fd, buf, 256, offset));
	EXPECT_EQ(self->dev->config_space.size, 256);
	EXPECT_GE(0, pread(self->fd, buf, 4, offset + 256));
	EXPECT_GE(4, pread(self->fd, buf, 8, offset + 252));
	EXPECT_EQ(-1, pwrite(self->fd, buf, 4, offset + 256));
	EXPECT_EQ(EINVAL, errno);
}

/* A closed and opened device starts with memory decode on, and zeroes. */
TEST_F_TIMEOUT(device, open_is_fresh, MIG_TIMEOUT)
{
	precopy_fill(&self->pd, 0, 4, 1, BY_MMAP);
	vfio_pci_config_writew(self->dev, PCI_COMMAND, PCI_COMMAND_MASTER);
	vfio_pci_device_cleanup(self->dev);
	self->dev = vfio_pci_device_init(device_bdf, self->pd.iommu);
	self->pd.dev = self->dev;
	self->pd.fd = self->dev->fd;
	self->fd = self->dev->fd;
	self->pd.bar = self->dev->bars[PRECOPY_BAR].vaddr;
	memset(self->pd.shadow, 0, self->pd.size);

	EXPECT_EQ(PCI_COMMAND_MEMORY,
		  vfio_pci_config_readw(self->dev, PCI_COMMAND));
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

/*
 * A program may map the BAR of a device that it has just opened, and use it, as
 * with vfio-pci: opening enables the function. The fixture has opened and
 * mapped it, and has written nothing to config space.
 */
TEST_F_TIMEOUT(device, open_map_and_read_at_once, MIG_TIMEOUT)
{
	u64 word = 1;

	EXPECT_FALSE(faults(self->pd.bar, false));
	EXPECT_FALSE(faults(self->pd.bar + PRECOPY_PAGE, true));
	EXPECT_EQ(8, pread(self->fd, &word, 8, self->pd.bar_offset));
	EXPECT_EQ(0, word);
	EXPECT_EQ(PCI_COMMAND_MEMORY,
		  vfio_pci_config_readw(self->dev, PCI_COMMAND));

	/* As vfio-pci's, a reset leaves the register as it is. */
	vfio_pci_device_reset(self->dev);
	EXPECT_FALSE(faults(self->pd.bar, false));
	EXPECT_EQ(PCI_COMMAND_MEMORY,
		  vfio_pci_config_readw(self->dev, PCI_COMMAND));
}

TEST_F_TIMEOUT(device, memory_decode, MIG_TIMEOUT)
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

TEST_F_TIMEOUT(device, bar_access, MIG_TIMEOUT)
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

	EXPECT_EQ(-1, pread(self->fd, mig_bad_address, 64, self->pd.bar_offset));
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

TEST_F_TIMEOUT(device, bar_mmap, MIG_TIMEOUT)
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

TEST_F_TIMEOUT(device, bad_memory_size, MIG_TIMEOUT)
{
	static const char * const bad[] = {
		"0", "1", "4096", "524288", "1048577", "3145728", "-1", "abc",
		"", "137438953472", "18446744073709551616", "9223372036854775808",
		"16X", "16MB", "16 M", "16M 1", "M", "1.5M", "3M", "512K", "128G",
		"16T", "2097152x", "0x", "16MM", "0000000000000000000000000016M",
	};
	static const struct {
		const char *word;
		u64 size;
	} good[] = {
		{ "16M", SZ_16M }, { "16m\n", SZ_16M }, { "2048K", SZ_2M },
		{ "64G", 64ULL << 30 }, { "1g", SZ_1G }, { "0x10M", SZ_16M },
		{ "4194304\n", SZ_4M },
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
	EXPECT_EQ(-ERANGE, precopy_sysfs_write(device_bdf, "memory_size",
					       "17179869185G"));
	EXPECT_EQ(MEMORY_SIZE, precopy_sysfs_u64(device_bdf, "memory_size"));

	for (i = 0; i < ARRAY_SIZE(good); i++) {
		EXPECT_EQ(0, precopy_sysfs_write(device_bdf, "memory_size",
						 good[i].word))
			TH_LOG("refused \"%s\"", good[i].word);
		EXPECT_EQ(good[i].size,
			  precopy_sysfs_u64(device_bdf, "memory_size"));
	}

	precopy_open(&self->pd, device_bdf, variant->mode, SZ_8M);
	self->dev = self->pd.dev;
}

/* Features of vfio-pci that memory under tracking cannot offer. */
TEST_F_TIMEOUT(device, refused_features, MIG_TIMEOUT)
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
/* Migration                                                                */

static const u8 states[] = { RUN, RP, STOP, SC, RES, PC, PCP };

/* What an fd of a session in this state is for. */
static ssize_t transfer(u8 state, int fd)
{
	char byte = 0;

	return state == RES ? write(fd, &byte, 1) : read(fd, &byte, 1);
}

TEST_F_TIMEOUT(device, all_migration_flags, MIG_TIMEOUT) /* R8 */
{
	u64 flags = 0;

	ASSERT_EQ(0, mig_flags(self->dev, &flags));
	EXPECT_EQ(VFIO_MIGRATION_STOP_COPY | VFIO_MIGRATION_P2P |
		  VFIO_MIGRATION_PRE_COPY, flags);
}

/* GET and sysfs say the same. */
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

TEST_F_TIMEOUT(device, state_in_sysfs, MIG_TIMEOUT) /* R9 */
{
	unsigned int i;
	int fd;

	for (i = 0; i < ARRAY_SIZE(states); i++) {
		precopy_reset(&self->pd);
		EXPECT_TRUE(same_state(self->dev, RUN));
		ASSERT_EQ(0, mig_set_state(self->dev, states[i], &fd));
		EXPECT_TRUE(same_state(self->dev, states[i]));
		mig_close_fd(fd);
	}
}

/* A device without PRE_COPY, which the test knob makes of this one. */
TEST_F_TIMEOUT(device, device_without_precopy, MIG_TIMEOUT) /* R13, R51 */
{
	static const u8 optional[] = { PC, PCP };
	u64 flags = 0;
	unsigned int i;
	int fd, no_v2;

	if (precopy_knob(device_bdf, "no_precopy", 1))
		SKIP(return, "no test knob no_precopy in debugfs");
	no_v2 = mig_kernel_has_info_v2(self->dev) ? -EINVAL : -ENOTTY;
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
	EXPECT_EQ(no_v2, mig_precopy_v2_enable(self->dev));
	EXPECT_EQ(no_v2, vfio_feature_probe(self->pd.fd,
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

/*
 * Memory goes, the configuration stays. Returns the number of states in which it
 * was not so.
 */
static int wrong_resets(struct precopy_dev *pd, const char *sysfs)
{
	unsigned int i;
	int fd, wrong = 0;
	u16 command;
	bool right;

	for (i = 0; i < ARRAY_SIZE(states); i++) {
		precopy_fill(pd, i, 3, i + 1, i & 1 ? BY_MMAP : BY_PWRITE);
		command = vfio_pci_config_readw(pd->dev, PCI_COMMAND);
		right = !mig_set_state(pd->dev, states[i], &fd);
		right = !(sysfs ? precopy_file_write(sysfs, "1") :
				  __vfio_pci_device_reset(pd->dev)) && right;
		memset(pd->shadow, 0, pd->size);
		right = same_state(pd->dev, RUN) && right;
		right = !precopy_differ(pd, pd->shadow) && right;
		right = command == vfio_pci_config_readw(pd->dev, PCI_COMMAND) &&
			right;
		if (fd >= 0)
			right = transfer(states[i], fd) < 0 && errno == ENODEV &&
				right;
		mig_close_fd(fd);
		if (!right)
			fprintf(stderr, "# reset in %s\n", mig_state_name(states[i]));
		wrong += !right;
	}

	return wrong;
}

TEST_F_TIMEOUT(device, reset_zeroes_memory, MIG_TIMEOUT) /* R53 */
{
	EXPECT_EQ(0, wrong_resets(&self->pd, NULL));
}

TEST_F_TIMEOUT(device, sysfs_reset_zeroes_memory, MIG_TIMEOUT) /* R53 */
{
	char path[PATH_MAX];

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/reset",
			device_bdf);
	if (access(path, W_OK))
		SKIP(return, "the carrier has no reset of its own");
	EXPECT_EQ(0, wrong_resets(&self->pd, path));
}

/* It does not depend on the carrier, so nothing can be in its way. */
TEST_F_TIMEOUT(device, reset_always_succeeds, MIG_TIMEOUT) /* R54 */
{
	int i;

	for (i = 0; i < 100; i++)
		EXPECT_EQ(0, __vfio_pci_device_reset(self->dev));
}

/* Where the rules leave the errno open. */
TEST_F_TIMEOUT(device, dead_data_fd_is_enodev, MIG_TIMEOUT) /* R30, R33 */
{
	struct vfio_precopy_info info = {};
	unsigned int i;
	int fd, new;

	for (i = 0; i < ARRAY_SIZE(states); i++) {
		precopy_reset(&self->pd);
		ASSERT_EQ(0, mig_set_state(self->dev, states[i], &fd));
		if (fd < 0)
			continue;
		precopy_reset(&self->pd);
		EXPECT_EQ(-1, transfer(states[i], fd));
		EXPECT_EQ(ENODEV, errno);
		ASSERT_EQ(0, mig_set_state(self->dev, states[i], &new));
		EXPECT_EQ(-1, transfer(states[i], fd));
		EXPECT_EQ(ENODEV, errno);
		if (states[i] == PC || states[i] == PCP)
			EXPECT_EQ(-ENODEV, mig_precopy_info(fd, &info));
		close(fd);
		close(new);
	}
}

TEST_F_TIMEOUT(device, failed_load_is_einval, MIG_TIMEOUT) /* R15 */
{
	u8 junk[64] = { 1 };
	int fd;

	ASSERT_EQ(0, mig_set_state(self->dev, RES, &fd));
	EXPECT_EQ(-1, write(fd, junk, sizeof(junk)));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-EINVAL, mig_set_state(self->dev, STOP, NULL));
	EXPECT_TRUE(same_state(self->dev, RES));
	close(fd);
}

/* Enough for all that there is, and the same in sysfs. */
TEST_F_TIMEOUT(device, counters_match_the_stream, MIG_TIMEOUT) /* R40, R41, R48 */
{
	struct vfio_precopy_info info = {};
	u64 initial;
	int fd;

	precopy_fill(&self->pd, 3, 5, 1, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->dev, PC, &fd));
	ASSERT_EQ(0, mig_precopy_info(fd, &info));
	initial = info.initial_bytes;
	EXPECT_LT(5 * PRECOPY_PAGE, initial);
	EXPECT_EQ(initial, precopy_sysfs_u64(device_bdf, "initial_bytes"));
	EXPECT_EQ(0, precopy_sysfs_u64(device_bdf, "dirty_bytes"));

	EXPECT_EQ(-ENOMSG, mig_stream_drain(&self->stream, fd, 10000));
	EXPECT_GE(initial, self->stream.len);
	EXPECT_EQ(0, precopy_sysfs_u64(device_bdf, "initial_bytes"));
	close(fd);
}

/* VMMs size their read buffer by it, once, while the device runs. */
TEST_F_TIMEOUT(device, data_size_while_running, MIG_TIMEOUT) /* R50 */
{
	u64 size = 0;

	EXPECT_EQ(0, mig_data_size(self->dev, &size));
	EXPECT_LE(SZ_1M, size);
	EXPECT_EQ(0, mig_set_state(self->dev, RP, NULL));
	EXPECT_EQ(0, mig_data_size(self->dev, &size));
	EXPECT_LE(SZ_1M, size);
}

/* ------------------------------------------------------------------------ */
/* DMA logging                                                              */

static int log_start(struct vfio_pci_device *dev, u64 iova, u64 length)
{
	struct vfio_device_feature_dma_logging_range range = { iova, length };
	u64 page_size = SZ_4K;

	return dma_log_start(dev, &page_size, &range, 1);
}

/*
 * Other tests skip, or copy all memory, where the driver offers no DMA log. So they would not
 * notice a driver that does not offer one any more. VFIO can report a log only if the kernel has
 * iova_bitmap, which IOMMUFD_DRIVER selects: the driver must offer a log on these kernels.
 */
TEST_F_TIMEOUT(device, dma_log_is_offered_if_it_can_be_read, MIG_TIMEOUT)
{
	EXPECT_EQ(precopy_kernel_has("iova_bitmap_set"), dma_log_offered(self->fd));
}

TEST_F_TIMEOUT(device, dma_logging_errnos, MIG_TIMEOUT) /* R59, R60, R61 */
{
	u64 bitmap = 0;

	if (!dma_log_offered(self->fd))
		SKIP(return, "no DMA logging");
	EXPECT_EQ(0, dma_log_stop(self->dev));
	EXPECT_EQ(-EINVAL, dma_log_report(self->dev, 0, SZ_64K, SZ_4K, &bitmap));
	ASSERT_EQ(0, log_start(self->dev, 0, SZ_1M));
	EXPECT_EQ(-EINVAL, log_start(self->dev, SZ_2M, SZ_1M));
	EXPECT_EQ(0, dma_log_stop(self->dev));
	EXPECT_EQ(0, dma_log_stop(self->dev));
}

/* The device writes no guest memory, so no bit changes, set or clear. */
TEST_F_TIMEOUT(device, dma_log_is_empty, MIG_TIMEOUT) /* R61 */
{
	static const u8 before[] = { 0, 0xff, 0xa5 };
	u64 bitmap[64], want[64];
	unsigned int i;

	if (!dma_log_offered(self->fd))
		SKIP(return, "no DMA logging");
	ASSERT_EQ(0, log_start(self->dev, 0, SZ_16M));
	precopy_fill(&self->pd, 0, 16, 5, BY_MMAP);
	for (i = 0; i < ARRAY_SIZE(before); i++) {
		memset(bitmap, before[i], sizeof(bitmap));
		memcpy(want, bitmap, sizeof(want));
		EXPECT_EQ(0, dma_log_report(self->dev, 0, SZ_16M, SZ_4K, bitmap));
		EXPECT_EQ(0, dma_log_report(self->dev, 0, SZ_16M, SZ_2M, bitmap));
		EXPECT_EQ(0, memcmp(want, bitmap, sizeof(want)));
	}
	EXPECT_EQ(0, dma_log_stop(self->dev));
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
