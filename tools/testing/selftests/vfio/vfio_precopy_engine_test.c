// SPDX-License-Identifier: GPL-2.0-only
/*
 * The model "engine": its registers, commands, ring, DMA log and interrupts, in each
 * way in which a device reaches memory. What the engine has to do to memory is
 * computed here, and every byte around it must be as it was.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>

#include <linux/pci_regs.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/userfaultfd.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/mig_device.h>
#include <libvfio/precopy_engine.h>

#include <libvfio/mig_harness.h>

#define MEMORY		SZ_4M
#define RAM		SZ_4M
/* Source and destination in the memory */
#define FROM		0UL
#define TO		SZ_2M
#define PAGES		(RAM / PRECOPY_PAGE)

static char **bdfs;
static int nr_bdfs;

FIXTURE(engine) {
	struct engine e;
	u8 *want;	/* what the memory must hold */
};

FIXTURE_VARIANT(engine) {
	const char *mode;
};

FIXTURE_VARIANT_ADD(engine, vfio_type1_iommu) { .mode = MODE_VFIO_TYPE1_IOMMU };
FIXTURE_VARIANT_ADD(engine, vfio_type1v2_iommu) { .mode = MODE_VFIO_TYPE1V2_IOMMU };
FIXTURE_VARIANT_ADD(engine, iommufd) { .mode = MODE_IOMMUFD };

FIXTURE_SETUP(engine)
{
	const char *missing = mig_mode_missing(bdfs[0], variant->mode);
	u64 page;

	if (missing)
		SKIP(return, "%s", missing);
	engine_open(&self->e, bdfs[0], variant->mode, MEMORY, RAM);
	self->want = malloc_assert(RAM);
	for (page = 0; page < PAGES; page++)
		precopy_pattern(self->want + page * PRECOPY_PAGE, page, 1);
	memcpy(self->e.ram, self->want, RAM);
}

FIXTURE_TEARDOWN(engine)
{
	if (!self->want)
		return;
	EXPECT_EQ(0, memcmp(self->want, self->e.ram, RAM));
	engine_close(&self->e);
	free(self->want);
}

/* ------------------------------------------------------------------------ */
/* Registers                                                                */

TEST_F_TIMEOUT(engine, registers, MIG_TIMEOUT)
{
	struct engine *e = &self->e;
	u64 at = e->registers, value;

	EXPECT_EQ(PRECOPY_ENGINE_MAGIC, engine_read32(e, PRECOPY_ENGINE_ID));
	EXPECT_EQ(1, engine_read32(e, PRECOPY_ENGINE_VERSION));
	engine_write32(e, PRECOPY_ENGINE_ID, 0);
	EXPECT_EQ(PRECOPY_ENGINE_MAGIC, engine_read32(e, PRECOPY_ENGINE_ID));
	/* A register of 8 bytes by halves */
	engine_write64(e, PRECOPY_ENGINE_CMD_SRC, 0x1122334455667788);
	EXPECT_EQ(0x55667788, engine_read32(e, PRECOPY_ENGINE_CMD_SRC));
	EXPECT_EQ(0x11223344, engine_read32(e, PRECOPY_ENGINE_CMD_SRC + 4));
	engine_write32(e, PRECOPY_ENGINE_CMD_SRC + 4, 0x99aabbcc);
	EXPECT_EQ(0x99aabbcc55667788, engine_read64(e, PRECOPY_ENGINE_CMD_SRC));
	engine_write32(e, PRECOPY_ENGINE_CMD_SRC, 0xddeeff00);
	EXPECT_EQ(0x99aabbccddeeff00, engine_read64(e, PRECOPY_ENGINE_CMD_SRC));
	/* What is no register, and what is the VMM's */
	engine_write32(e, 0x2000, 1);
	EXPECT_EQ(0, engine_read32(e, 0x2000));
	engine_write32(e, PRECOPY_ENGINE_MSIX_TABLE, 1);
	EXPECT_EQ(~0U, engine_read32(e, PRECOPY_ENGINE_MSIX_TABLE));
	EXPECT_EQ(0, engine_read32(e, PRECOPY_ENGINE_MSIX_PBA));
	/* No access to registers */
	EXPECT_EQ(-1, pread(e->pd.fd, &value, 2, at));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-1, pread(e->pd.fd, &value, 4, at + 2));
	EXPECT_EQ(-1, pwrite(e->pd.fd, &value, 1, at));
	EXPECT_EQ(-1, pread(e->pd.fd, &value, 4, at + PRECOPY_ENGINE_BAR_SIZE));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(4, pread(e->pd.fd, &value, 8, at + PRECOPY_ENGINE_BAR_SIZE - 4));
	EXPECT_EQ(MAP_FAILED, mmap(NULL, PRECOPY_PAGE, PROT_READ, MAP_SHARED,
				   e->pd.fd, at));
}

TEST_F_TIMEOUT(engine, config_space, MIG_TIMEOUT)
{
	struct vfio_pci_device *dev = self->e.pd.dev;

	EXPECT_EQ(PCI_CFG_SPACE_EXP_SIZE, dev->config_space.size);
	EXPECT_EQ(PCI_STATUS_CAP_LIST, vfio_pci_config_readw(dev, PCI_STATUS));
	EXPECT_EQ(ENGINE_CAP_PM, vfio_pci_config_readb(dev, PCI_CAPABILITY_LIST));
	EXPECT_EQ(PCI_CAP_ID_PM, vfio_pci_config_readb(dev, ENGINE_CAP_PM));
	EXPECT_EQ(PCI_CAP_ID_EXP, vfio_pci_config_readb(dev, ENGINE_CAP_EXP));
	EXPECT_EQ(PCI_CAP_ID_MSIX, vfio_pci_config_readb(dev, ENGINE_CAP_MSIX));
	EXPECT_EQ(PRECOPY_ENGINE_VECTORS - 1,
		  vfio_pci_config_readw(dev, ENGINE_CAP_MSIX + PCI_MSIX_FLAGS));
	EXPECT_EQ(0, vfio_pci_config_readl(dev, 0x100));
	/* The size of BAR0 */
	vfio_pci_config_writel(dev, PCI_BASE_ADDRESS_0, ~0U);
	EXPECT_EQ(~(u32)(PRECOPY_ENGINE_BAR_SIZE - 1),
		  vfio_pci_config_readl(dev, PCI_BASE_ADDRESS_0));
	EXPECT_EQ(0, vfio_pci_config_readl(dev, PCI_BASE_ADDRESS_1));
}

/* What is read does not depend on how many bytes are read at a time. */
TEST_F_TIMEOUT(engine, config_is_read_by_any_width, MIG_TIMEOUT)
{
	struct vfio_pci_device *dev = self->e.pd.dev;
	u8 whole[PCI_CFG_SPACE_EXP_SIZE];
	u32 i, word;
	u16 half;

	ASSERT_EQ((ssize_t)sizeof(whole),
		  pread(self->e.pd.fd, whole, sizeof(whole),
			dev->config_space.offset));
	for (i = 0; i < sizeof(whole); i++) {
		ASSERT_EQ(whole[i], vfio_pci_config_readb(dev, i))
			TH_LOG("offset %#x", i);
	}
	for (i = 0; i < sizeof(whole); i += sizeof(half)) {
		half = vfio_pci_config_readw(dev, i);
		ASSERT_EQ(0, memcmp(&half, whole + i, sizeof(half)))
			TH_LOG("offset %#x", i);
	}
	for (i = 0; i < sizeof(whole); i += sizeof(word)) {
		word = vfio_pci_config_readl(dev, i);
		ASSERT_EQ(0, memcmp(&word, whole + i, sizeof(word)))
			TH_LOG("offset %#x", i);
	}
	/* Nor on where a register begins, nor on the end of config space */
	ASSERT_EQ(7, pread(self->e.pd.fd, &whole[8], 7,
			   dev->config_space.offset + 1));
	EXPECT_EQ(0, memcmp(whole + 1, whole + 8, 7));
	EXPECT_EQ(2, pread(self->e.pd.fd, whole, 8, dev->config_space.offset +
						    sizeof(whole) - 2));
	EXPECT_GE(0, pread(self->e.pd.fd, whole, 4, dev->config_space.offset +
						    sizeof(whole)));
}

static void write_config(struct vfio_pci_device *dev, u32 at, u32 value, int width)
{
	int i;

	for (i = 0; i < 4; i += width, value = width < 4 ? value >> 8 * width : 0)
		vfio_pci_config_access(dev, true, at + i, width, &value);
}

/* Nor does what is written, wherever it has an effect. */
TEST_F_TIMEOUT(engine, config_is_written_by_any_width, MIG_TIMEOUT)
{
	/* Without the bit that begins a function level reset */
	static const u32 values[] = { 0x5a5a5a5a, 0x25a525a5, 0 };
	static const int widths[] = { 1, 2, 4 };
	struct vfio_pci_device *dev = self->e.pd.dev;
	u32 at, i, j, got[ARRAY_SIZE(widths)], first = 0, writable = 0;

	for (at = 0; at < PCI_CFG_SPACE_EXP_SIZE; at += at < 256 ? 4 : 64) {
		for (i = 0; i < ARRAY_SIZE(values); i++) {
			for (j = 0; j < ARRAY_SIZE(widths); j++) {
				write_config(dev, at, ~values[i] & ~0x80008000, 4);
				write_config(dev, at, values[i], widths[j]);
				got[j] = vfio_pci_config_readl(dev, at);
			}
			EXPECT_EQ(got[2], got[0]) TH_LOG("bytes at %#x", at);
			EXPECT_EQ(got[2], got[1]) TH_LOG("words at %#x", at);
			if (!i)
				first = got[2];
			writable += got[2] != first;
		}
	}
	EXPECT_NE(0, writable);
	engine_set_master(&self->e, true);
}

/* The chain of capabilities, as one finds it who knows nothing about the device */
TEST_F_TIMEOUT(engine, capabilities, MIG_TIMEOUT)
{
	static const u8 sizes[] = {
		[PCI_CAP_ID_PM] = PCI_PM_SIZEOF,
		[PCI_CAP_ID_EXP] = PCI_CAP_EXP_ENDPOINT_SIZEOF_V2,
		[PCI_CAP_ID_MSIX] = PCI_CAP_MSIX_SIZEOF,
	};
	struct vfio_pci_device *dev = self->e.pd.dev;
	u8 used[PCI_CFG_SPACE_SIZE] = {}, seen[256] = {};
	u32 at, i, nr = 0;

	at = vfio_pci_config_readb(dev, PCI_CAPABILITY_LIST);
	for (; at; at = vfio_pci_config_readb(dev, at + PCI_CAP_LIST_NEXT)) {
		u8 id = vfio_pci_config_readb(dev, at);

		ASSERT_LT(nr++, 3);
		ASSERT_EQ(0, at % 4);
		ASSERT_LE(PCI_STD_HEADER_SIZEOF, at);
		ASSERT_LT(id, ARRAY_SIZE(sizes)) TH_LOG("capability %#x", id);
		ASSERT_NE(0, sizes[id]) TH_LOG("capability %#x", id);
		ASSERT_EQ(0, seen[id]++);
		ASSERT_LE(at + sizes[id], sizeof(used));
		for (i = 0; i < sizes[id]; i++) {
			ASSERT_EQ(0, used[at + i]++)
				TH_LOG("capability %#x", id);
		}
	}
	EXPECT_EQ(3, nr);
	/* Nothing is outside of them, and there are no extended ones. */
	for (at = PCI_STD_HEADER_SIZEOF; at < PCI_CFG_SPACE_EXP_SIZE; at++) {
		if (at < sizeof(used) && used[at])
			continue;
		ASSERT_EQ(0, vfio_pci_config_readb(dev, at)) TH_LOG("at %#x", at);
		vfio_pci_config_writeb(dev, at, 0xff);
		ASSERT_EQ(0, vfio_pci_config_readb(dev, at)) TH_LOG("at %#x", at);
	}
}

/*
 * Whoever announces a reset has one: by the ioctl, and as often as one likes by the
 * capability. COMMAND stays, and no error bit is set.
 */
TEST_F_TIMEOUT(engine, resets_are_as_announced, MIG_TIMEOUT)
{
	struct vfio_pci_device *dev = self->e.pd.dev;
	u16 devctl, command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER;
	int i;

	ASSERT_TRUE(dev->info.flags & VFIO_DEVICE_FLAGS_RESET);
	ASSERT_TRUE(vfio_pci_config_readl(dev, ENGINE_CAP_EXP + PCI_EXP_DEVCAP) &
		    PCI_EXP_DEVCAP_FLR);
	for (i = 0; i < 10; i++) {
		vfio_pci_config_writew(dev, PCI_COMMAND, command);
		engine_write32(&self->e, PRECOPY_ENGINE_RING_SIZE, 16);
		devctl = vfio_pci_config_readw(dev, ENGINE_CAP_EXP + PCI_EXP_DEVCTL);
		if (i % 2)
			precopy_reset(&self->e.pd);
		else
			vfio_pci_config_writew(dev, ENGINE_CAP_EXP + PCI_EXP_DEVCTL,
					       devctl | PCI_EXP_DEVCTL_BCR_FLR);
		EXPECT_EQ(0, engine_read32(&self->e, PRECOPY_ENGINE_RING_SIZE));
		EXPECT_EQ(command, vfio_pci_config_readw(dev, PCI_COMMAND));
		EXPECT_EQ(PCI_STATUS_CAP_LIST, vfio_pci_config_readw(dev, PCI_STATUS));
		EXPECT_EQ(devctl, vfio_pci_config_readw(dev, ENGINE_CAP_EXP +
							     PCI_EXP_DEVCTL));
	}
}

/* In D3hot, and without memory decode, nothing answers but config space. */
TEST_F_TIMEOUT(engine, power_and_decode, MIG_TIMEOUT)
{
	struct engine *e = &self->e;
	struct vfio_pci_device *dev = e->pd.dev;
	u32 value;

	engine_write32(e, PRECOPY_ENGINE_RING_SIZE, 16);
	vfio_pci_config_writew(dev, ENGINE_CAP_PM + PCI_PM_CTRL, 3);
	EXPECT_EQ(-1, pread(e->pd.fd, &value, 4, e->registers));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(-1, pread(e->pd.fd, &value, 4, e->pd.bar_offset));
	vfio_pci_config_writew(dev, ENGINE_CAP_PM + PCI_PM_CTRL, 0);
	EXPECT_EQ(16, engine_read32(e, PRECOPY_ENGINE_RING_SIZE));
	vfio_pci_cmd_clear(dev, PCI_COMMAND_MEMORY);
	EXPECT_EQ(-1, pread(e->pd.fd, &value, 4, e->registers));
	vfio_pci_cmd_set(dev, PCI_COMMAND_MEMORY);
	EXPECT_EQ(16, engine_read32(e, PRECOPY_ENGINE_RING_SIZE));
}

/* ------------------------------------------------------------------------ */
/* Commands                                                                 */

TEST_F_TIMEOUT(engine, copies_are_exact, MIG_TIMEOUT)
{
	static const struct { u64 from, to, len; } copies[] = {
		{ 0, 0, 1 }, { 0, 0, 4096 }, { 0x123, 0x77, 5001 },
		{ 4095, 4095, 2 }, { 1, 4000, 8192 }, { 0, 64, 100000 },
		{ 0, 0, SZ_1M },
	};
	struct engine *e = &self->e;
	unsigned int i;
	u64 bytes = 0;

	for (i = 0; i < ARRAY_SIZE(copies); i++) {
		memcpy(self->want + TO + copies[i].to, self->want + copies[i].from,
		       copies[i].len);
		EXPECT_EQ(0, engine_copy(e, ENGINE_IOVA + copies[i].from,
					 ENGINE_IOVA + TO + copies[i].to,
					 copies[i].len));
		EXPECT_EQ(0, memcmp(self->want, e->ram, RAM))
			TH_LOG("copy %u", i);
		bytes += copies[i].len;
	}
	EXPECT_EQ(bytes, engine_read64(e, PRECOPY_ENGINE_BYTES));
}

TEST_F_TIMEOUT(engine, fill_stamp_fence, MIG_TIMEOUT)
{
	struct engine_command command = {
		.op = PRECOPY_ENGINE_OP_FILL, .src = 0x0102030405060708,
		.dst = ENGINE_IOVA + 8, .len = 8192,
	};
	struct engine *e = &self->e;
	u64 i, *word = (u64 *)self->want;

	for (i = 0; i < 1024; i++)
		word[1 + i] = command.src;
	EXPECT_EQ(0, engine_run(e, &command));
	EXPECT_EQ(0, memcmp(self->want, e->ram, RAM));

	command = (struct engine_command) {
		.op = PRECOPY_ENGINE_OP_STAMP, .dst = ENGINE_IOVA + TO,
		.len = 3 * PRECOPY_PAGE, .seq = 77, .count = 2,
	};
	EXPECT_EQ(0, engine_run(e, &command));
	/* The second time with the next number */
	for (i = 0; i < 3; i++)
		EXPECT_TRUE(engine_stamped(e->ram + TO + i * PRECOPY_PAGE, 78, i));
	EXPECT_EQ(79, engine_read64(e, PRECOPY_ENGINE_CMD_SEQ));
	EXPECT_EQ(2, engine_read64(e, PRECOPY_ENGINE_CMD_DONE));
	memcpy(self->want + TO, e->ram + TO, 3 * PRECOPY_PAGE);

	command = (struct engine_command) {
		.op = PRECOPY_ENGINE_OP_FENCE, .dst = ENGINE_IOVA + 4088,
		.seq = 0xabcdef,
	};
	EXPECT_EQ(0, engine_run(e, &command));
	word[511] = 0xabcdef;
}

/* Into the device's memory and out of it; what is in it was stored by nobody else. */
TEST_F_TIMEOUT(engine, device_memory, MIG_TIMEOUT)
{
	struct engine_command command = {
		.op = PRECOPY_ENGINE_OP_COPY, .src = ENGINE_IOVA + 100,
		.dst = SZ_2M - 4096 + 10, .len = 3 * PRECOPY_PAGE,
		.flags = PRECOPY_ENGINE_FLAG_DST_BAR,
	};
	struct engine *e = &self->e;

	EXPECT_EQ(0, engine_run(e, &command));
	memcpy(e->pd.shadow + command.dst, self->want + 100, command.len);
	EXPECT_EQ(0, precopy_differ(&e->pd, e->pd.shadow));

	command.src = command.dst;
	command.dst = ENGINE_IOVA + TO;
	command.flags = PRECOPY_ENGINE_FLAG_SRC_BAR;
	EXPECT_EQ(0, engine_run(e, &command));
	memcpy(self->want + TO, self->want + 100, command.len);

	/* What was never stored to reads as zeroes. */
	command.src = 0;
	command.len = PRECOPY_PAGE;
	EXPECT_EQ(0, engine_run(e, &command));
	memset(self->want + TO, 0, PRECOPY_PAGE);
}

TEST_F_TIMEOUT(engine, impossible_commands_are_refused, MIG_TIMEOUT)
{
	const u64 end = ENGINE_IOVA + RAM;
	const struct { struct engine_command command; int error; } bad[] = {
		{ { .op = 0, .dst = ENGINE_IOVA, .len = 8 }, EOPNOTSUPP },
		{ { .op = 99, .dst = ENGINE_IOVA, .len = 8 }, EOPNOTSUPP },
		{ { .op = PRECOPY_ENGINE_OP_COPY, .flags = 1U << 31, .len = 1 }, EINVAL },
		{ { .op = PRECOPY_ENGINE_OP_COPY }, EINVAL },
		{ { .op = PRECOPY_ENGINE_OP_COPY, .len = ~0ULL }, EINVAL },
		{ { .op = PRECOPY_ENGINE_OP_COPY, .src = ~0ULL, .len = 2 }, EINVAL },
		{ { .op = PRECOPY_ENGINE_OP_COPY, .dst = ~0ULL, .len = 2 }, EINVAL },
		{ { .op = PRECOPY_ENGINE_OP_COPY, .src = MEMORY - 1, .len = 2,
		    .flags = PRECOPY_ENGINE_FLAG_SRC_BAR, .dst = ENGINE_IOVA }, EINVAL },
		{ { .op = PRECOPY_ENGINE_OP_COPY, .dst = MEMORY - 1, .len = 2,
		    .flags = PRECOPY_ENGINE_FLAG_DST_BAR, .src = ENGINE_IOVA }, EINVAL },
		{ { .op = PRECOPY_ENGINE_OP_FILL, .dst = ENGINE_IOVA + 4, .len = 8 }, EINVAL },
		{ { .op = PRECOPY_ENGINE_OP_FILL, .dst = ENGINE_IOVA, .len = 9 }, EINVAL },
		{ { .op = PRECOPY_ENGINE_OP_STAMP, .dst = ENGINE_IOVA + 8,
		    .len = PRECOPY_PAGE }, EINVAL },
		{ { .op = PRECOPY_ENGINE_OP_FENCE, .dst = ENGINE_IOVA, .len = 8 }, EINVAL },
		{ { .op = PRECOPY_ENGINE_OP_FENCE, .dst = ENGINE_IOVA + 1 }, EINVAL },
		{ { .op = PRECOPY_ENGINE_OP_IRQ, .src = PRECOPY_ENGINE_VECTORS }, EINVAL },
		/* Possible, but nothing is there: the error is the memory's */
		{ { .op = PRECOPY_ENGINE_OP_COPY, .src = ENGINE_NOWHERE,
		    .dst = ENGINE_IOVA, .len = 8 }, 0 },
		{ { .op = PRECOPY_ENGINE_OP_FILL, .dst = ENGINE_NOWHERE, .len = 8 }, 0 },
		{ { .op = PRECOPY_ENGINE_OP_COPY, .src = end, .dst = ENGINE_IOVA,
		    .len = 8 }, 0 },
	};
	struct engine *e = &self->e;
	unsigned int i;
	int ret;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		ret = engine_run(e, &bad[i].command);
		EXPECT_GT(0, ret) TH_LOG("command %u", i);
		if (bad[i].error)
			EXPECT_EQ(-bad[i].error, ret);
	}
	EXPECT_EQ(0, engine_copy(e, ENGINE_IOVA, ENGINE_IOVA + TO, 4096));
	memcpy(self->want + TO, self->want, 4096);
}

/* A page that the user maps for reading only is a source, and no destination. */
TEST_F_TIMEOUT(engine, read_only_memory_is_not_written, MIG_TIMEOUT)
{
	struct engine *e = &self->e;
	struct vfio_iommu_type1_dma_map map = {
		.argsz = sizeof(map), .flags = VFIO_DMA_MAP_FLAG_READ,
		.iova = ENGINE_NOWHERE, .size = PRECOPY_PAGE,
	};
	u8 *page = mmap(NULL, PRECOPY_PAGE, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS | MAP_POPULATE, -1, 0);

	ASSERT_NE(MAP_FAILED, page);
	if (e->pd.iommu->iommufd)
		SKIP(return, "libvfio maps for reading and writing");
	memset(page, 0x5a, PRECOPY_PAGE);
	map.vaddr = (uintptr_t)page;
	ASSERT_EQ(0, ioctl(e->pd.iommu->container_fd, VFIO_IOMMU_MAP_DMA, &map));
	EXPECT_EQ(0, engine_copy(e, ENGINE_NOWHERE, ENGINE_IOVA, PRECOPY_PAGE));
	memset(self->want, 0x5a, PRECOPY_PAGE);
	EXPECT_GT(0, engine_copy(e, ENGINE_IOVA + TO, ENGINE_NOWHERE, PRECOPY_PAGE));
	EXPECT_EQ(0x5a, page[0]);
	EXPECT_EQ(0x5a, page[PRECOPY_PAGE - 1]);
}

TEST_F_TIMEOUT(engine, command_is_stopped, MIG_TIMEOUT)
{
	struct engine_command command = {
		.op = PRECOPY_ENGINE_OP_STAMP, .dst = ENGINE_IOVA + TO,
		.len = PRECOPY_PAGE,
	};
	struct engine *e = &self->e;

	engine_start(e, &command);
	EXPECT_TRUE(engine_wait_for(e, PRECOPY_ENGINE_CMD_DONE, 3));
	/* Locked while it runs */
	engine_write64(e, PRECOPY_ENGINE_CMD_DST, ENGINE_NOWHERE);
	EXPECT_EQ(command.dst, engine_read64(e, PRECOPY_ENGINE_CMD_DST));
	engine_write32(e, PRECOPY_ENGINE_CMD_START, 0);
	EXPECT_EQ(-ECANCELED, engine_wait(e));
	EXPECT_EQ(0, engine_copy(e, ENGINE_IOVA, ENGINE_IOVA + TO, 4096));
	memcpy(self->want + TO, self->want, 4096);
}

/* Without bus master nothing happens, and nothing is forgotten. */
TEST_F_TIMEOUT(engine, bus_master, MIG_TIMEOUT)
{
	struct engine_command command = {
		.op = PRECOPY_ENGINE_OP_COPY, .src = ENGINE_IOVA,
		.dst = ENGINE_IOVA + TO, .len = PRECOPY_PAGE, .count = 1,
	};
	struct engine *e = &self->e;

	engine_set_master(e, false);
	engine_start(e, &command);
	usleep(50 * 1000);
	EXPECT_EQ(1, engine_read32(e, PRECOPY_ENGINE_CMD_START));
	EXPECT_EQ(0, memcmp(self->want, e->ram, RAM));
	engine_set_master(e, true);
	EXPECT_EQ(0, engine_wait(e));
	memcpy(self->want + TO, self->want, PRECOPY_PAGE);
}

/* INTERVAL_US is a lower bound of the time from one start to the next. */
TEST_F_TIMEOUT(engine, interval, MIG_TIMEOUT)
{
	struct engine_command command = {
		.op = PRECOPY_ENGINE_OP_FENCE, .dst = ENGINE_IOVA, .count = 11,
	};
	struct engine *e = &self->e;
	u64 start = precopy_now_ms();

	engine_write32(e, PRECOPY_ENGINE_INTERVAL_US, 20000);
	EXPECT_EQ(0, engine_run(e, &command));
	EXPECT_LE(200 - 1, precopy_now_ms() - start);
	*(u64 *)self->want = 10;
}

/* ------------------------------------------------------------------------ */
/* The ring                                                                 */

#define RING		8
#define RING_AT		(RAM - PRECOPY_PAGE)
#define STATUS(error)	(PRECOPY_ENGINE_DONE | (error))

TEST_F_TIMEOUT(engine, ring_wraps_around, MIG_TIMEOUT)
{
	struct engine *e = &self->e;
	struct precopy_engine_desc *ring = engine_ring(e, RING_AT, RING);
	unsigned int i, n;

	engine_irqs_enable(e);
	engine_write32(e, PRECOPY_ENGINE_RING_VECTOR, 3);
	/* Three times round */
	for (n = 0; n < 3 * RING; n++) {
		i = n % RING;
		ring[i] = (struct precopy_engine_desc) {
			.op = PRECOPY_ENGINE_OP_COPY,
			.src = ENGINE_IOVA + n * 1000,
			.dst = ENGINE_IOVA + TO + n * 3000, .len = 2999,
			.flags = n == 5 ? PRECOPY_ENGINE_FLAG_IRQ : 0,
		};
		memcpy(self->want + TO + n * 3000, self->want + n * 1000, 2999);
		engine_write32(e, PRECOPY_ENGINE_RING_TAIL, (i + 1) % RING);
		if (n % 3 == 2)
			ASSERT_TRUE(engine_wait_head(e, (i + 1) % RING));
	}
	ASSERT_TRUE(engine_wait_head(e, 0));
	for (i = 0; i < RING; i++)
		EXPECT_EQ(STATUS(0), ring[i].status);
	EXPECT_EQ(1, engine_irqs_wait(e, 3));
	memcpy(self->want + RING_AT, ring, RING * sizeof(*ring));
}

/* A bad descriptor has its error in its status, and the next ones are executed. */
TEST_F_TIMEOUT(engine, ring_errors, MIG_TIMEOUT)
{
	struct engine *e = &self->e;
	struct precopy_engine_desc *ring = engine_ring(e, RING_AT, RING);

	ring[0].op = 77;
	ring[1] = (struct precopy_engine_desc) {
		.op = PRECOPY_ENGINE_OP_FILL, .dst = ENGINE_NOWHERE, .len = 8,
	};
	ring[2] = (struct precopy_engine_desc) {
		.op = PRECOPY_ENGINE_OP_FENCE, .dst = ENGINE_IOVA, .seq = 5,
	};
	engine_write32(e, PRECOPY_ENGINE_RING_TAIL, 3);
	ASSERT_TRUE(engine_wait_head(e, 3));
	EXPECT_EQ(STATUS(EOPNOTSUPP), ring[0].status);
	EXPECT_NE(0, ring[1].status & 0xffff);
	EXPECT_EQ(STATUS(0), ring[2].status);
	*(u64 *)self->want = 5;
	/* A doorbell past the end disables the ring. */
	engine_write32(e, PRECOPY_ENGINE_RING_TAIL, RING);
	EXPECT_EQ(0, engine_read32(e, PRECOPY_ENGINE_CTRL));
	EXPECT_EQ(EINVAL, engine_read32(e, PRECOPY_ENGINE_RING_ERROR));
	/* So does a ring that is not there. */
	engine_write64(e, PRECOPY_ENGINE_RING_BASE, ENGINE_NOWHERE);
	engine_write32(e, PRECOPY_ENGINE_CTRL, PRECOPY_ENGINE_CTRL_RING);
	EXPECT_EQ(0, engine_read32(e, PRECOPY_ENGINE_RING_ERROR));
	engine_write32(e, PRECOPY_ENGINE_RING_TAIL, 1);
	EXPECT_FALSE(engine_wait_head(e, 1));
	EXPECT_NE(0, engine_read32(e, PRECOPY_ENGINE_RING_ERROR));
	/* And an impossible one is never enabled. */
	engine_write64(e, PRECOPY_ENGINE_RING_BASE, ENGINE_IOVA + 8);
	engine_write32(e, PRECOPY_ENGINE_CTRL, PRECOPY_ENGINE_CTRL_RING);
	EXPECT_EQ(0, engine_read32(e, PRECOPY_ENGINE_CTRL));
	EXPECT_EQ(EINVAL, engine_read32(e, PRECOPY_ENGINE_RING_ERROR));
	memcpy(self->want + RING_AT, ring, RING * sizeof(*ring));
}

/* ------------------------------------------------------------------------ */
/* Interrupts                                                               */

static int set_irqs(struct engine *e, u32 flags, u32 start, u32 count)
{
	struct vfio_irq_set set = {
		.argsz = sizeof(set), .flags = flags,
		.index = VFIO_PCI_MSIX_IRQ_INDEX,
		.start = start, .count = count,
	};

	return ioctl(e->pd.fd, VFIO_DEVICE_SET_IRQS, &set) ? -errno : 0;
}

#define TRIGGER	(VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER)

TEST_F_TIMEOUT(engine, interrupts, MIG_TIMEOUT)
{
	struct vfio_irq_info info = {
		.argsz = sizeof(info), .index = VFIO_PCI_MSIX_IRQ_INDEX,
	};
	struct engine *e = &self->e;
	u64 dropped = precopy_stat(bdfs[0], "irqs_dropped");
	u32 i;

	ASSERT_EQ(0, ioctl(e->pd.fd, VFIO_DEVICE_GET_IRQ_INFO, &info));
	EXPECT_EQ(PRECOPY_ENGINE_VECTORS, info.count);
	EXPECT_EQ(VFIO_IRQ_INFO_EVENTFD, info.flags);
	/* MSI-X is off. */
	EXPECT_EQ(-EINVAL, set_irqs(e, TRIGGER, 0, 1));
	engine_write32(e, PRECOPY_ENGINE_IRQ_RAISE, 2);
	EXPECT_EQ(dropped + 1, precopy_stat(bdfs[0], "irqs_dropped"));

	engine_irqs_enable(e);
	for (i = 0; i < PRECOPY_ENGINE_VECTORS; i++) {
		engine_write32(e, PRECOPY_ENGINE_IRQ_RAISE, i);
		EXPECT_EQ(1, engine_irqs(e, i));
	}
	EXPECT_EQ(0, set_irqs(e, TRIGGER, 1, 2));
	EXPECT_EQ(0, engine_irqs(e, 0));
	EXPECT_EQ(1, engine_irqs(e, 1));
	EXPECT_EQ(1, engine_irqs(e, 2));
	EXPECT_EQ(-ENOTTY, set_irqs(e, VFIO_IRQ_SET_DATA_NONE |
				    VFIO_IRQ_SET_ACTION_MASK, 0, 1));
	EXPECT_EQ(-EINVAL, set_irqs(e, TRIGGER, 0, PRECOPY_ENGINE_VECTORS + 1));
	EXPECT_EQ(-EINVAL, set_irqs(e, TRIGGER, PRECOPY_ENGINE_VECTORS, 1));
	/* No vector, no interrupt */
	engine_write32(e, PRECOPY_ENGINE_IRQ_RAISE, PRECOPY_ENGINE_VECTORS);
	engine_write32(e, PRECOPY_ENGINE_IRQ_RAISE, ~0U);

	/* A reset keeps the eventfds. */
	precopy_reset(&e->pd);
	engine_write32(e, PRECOPY_ENGINE_IRQ_RAISE, 4);
	EXPECT_EQ(1, engine_irqs(e, 4));
	EXPECT_EQ(0, set_irqs(e, TRIGGER, 0, 0));
	engine_write32(e, PRECOPY_ENGINE_IRQ_RAISE, 4);
	EXPECT_EQ(0, engine_irqs(e, 4));
	EXPECT_EQ(dropped + 2, precopy_stat(bdfs[0], "irqs_dropped"));
}

TEST_F_TIMEOUT(engine, interrupt_of_a_command, MIG_TIMEOUT)
{
	struct engine_command command = {
		.op = PRECOPY_ENGINE_OP_COPY, .src = ENGINE_IOVA,
		.dst = ENGINE_IOVA + TO, .len = SZ_64K, .count = 3, .vector = 5,
	};
	struct engine *e = &self->e;

	engine_irqs_enable(e);
	engine_start(e, &command);
	/* The data is there when the interrupt is. */
	EXPECT_EQ(1, engine_irqs_wait(e, 5));
	memcpy(self->want + TO, self->want, SZ_64K);
	EXPECT_EQ(0, memcmp(self->want, e->ram, RAM));
	EXPECT_EQ(0, engine_wait(e));
	command.dst = ENGINE_NOWHERE;
	engine_start(e, &command);
	EXPECT_EQ(1, engine_irqs_wait(e, 5));
	EXPECT_GT(0, engine_wait(e));
	command = (struct engine_command) { .op = PRECOPY_ENGINE_OP_IRQ, .src = 6 };
	EXPECT_EQ(0, engine_run(e, &command));
	EXPECT_EQ(1, engine_irqs(e, 6));
}

/* An eventfd that is none leaves MSI-X as it was. */
TEST_F_TIMEOUT(engine, bad_eventfds, MIG_TIMEOUT)
{
	char buf[sizeof(struct vfio_irq_set) + 2 * sizeof(s32)] = {};
	struct vfio_irq_set *set = (void *)buf;
	struct engine *e = &self->e;
	s32 fds[2] = { eventfd(0, EFD_CLOEXEC), 1 };

	*set = (struct vfio_irq_set) {
		.argsz = sizeof(buf),
		.flags = VFIO_IRQ_SET_DATA_EVENTFD |
			 VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = VFIO_PCI_MSIX_IRQ_INDEX, .count = 2,
	};
	memcpy(set->data, fds, sizeof(fds));
	EXPECT_EQ(-1, ioctl(e->pd.fd, VFIO_DEVICE_SET_IRQS, set));
	EXPECT_EQ(EINVAL, errno);
	EXPECT_EQ(-EINVAL, set_irqs(e, TRIGGER, 0, 1));
	set->argsz = sizeof(*set) + 4;
	EXPECT_EQ(-1, ioctl(e->pd.fd, VFIO_DEVICE_SET_IRQS, set));
	EXPECT_EQ(EINVAL, errno);
	close(fds[0]);
}

/* ------------------------------------------------------------------------ */
/* Resets                                                                   */

TEST_F_TIMEOUT(engine, reset_ends_everything, MIG_TIMEOUT)
{
	struct engine_command command = {
		.op = PRECOPY_ENGINE_OP_STAMP, .dst = ENGINE_IOVA + TO,
		.len = SZ_1M,
	};
	struct engine *e = &self->e;
	int flr;

	for (flr = 0; flr < 2; flr++) {
		engine_start(e, &command);
		ASSERT_TRUE(engine_wait_for(e, PRECOPY_ENGINE_CMD_DONE, 1));
		if (flr)
			vfio_pci_config_writew(e->pd.dev, ENGINE_CAP_EXP +
					       PCI_EXP_DEVCTL,
					       PCI_EXP_DEVCTL_BCR_FLR);
		else
			precopy_reset(&e->pd);
		/* No store after the reset has returned */
		memcpy(e->ram, self->want, RAM);
		/* A command that goes on would never end. */
		ASSERT_EQ(0, engine_read32(e, PRECOPY_ENGINE_STATUS));
		EXPECT_EQ(0, engine_read64(e, PRECOPY_ENGINE_CMD_DST));
		usleep(20 * 1000);
		EXPECT_EQ(0, memcmp(self->want, e->ram, RAM));
		EXPECT_EQ(0, vfio_pci_config_readw(e->pd.dev, ENGINE_CAP_EXP +
						   PCI_EXP_DEVCTL) &
			     PCI_EXP_DEVCTL_BCR_FLR);
		/* COMMAND is as before, so the engine can be used at once. */
		EXPECT_EQ(0, engine_copy(e, ENGINE_IOVA, ENGINE_IOVA + TO, 4096));
		memcpy(self->want + TO, self->want, 4096);
	}
}

/* Memory whose faults wait for the owner of the returned userfaultfd, or -1 */
static int hold_faults(u8 *memory, size_t size)
{
	struct uffdio_register reg = {
		.range = { (u64)memory, size },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	struct uffdio_api api = { .api = UFFD_API };
	int fd = syscall(__NR_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	if (fd < 0)
		return fd;
	VFIO_ASSERT_EQ(mmap(memory, size, PROT_READ | PROT_WRITE, MAP_FIXED |
			    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0), (void *)memory);
	ioctl_assert(fd, UFFDIO_API, &api);
	ioctl_assert(fd, UFFDIO_REGISTER, &reg);
	return fd;
}

static void end_faults(int fd, u8 *memory, size_t size)
{
	struct uffdio_zeropage zero = { .range = { (u64)memory, size } };

	ioctl_assert(fd, UFFDIO_ZEROPAGE, &zero);
	close(fd);
}

/*
 * In a container of version 1 a step faults on memory of the user, and the user may
 * let it wait for ever. A reset, which holds the core's memory_lock, must not.
 */
TEST_F_TIMEOUT(engine, reset_during_a_user_fault, MIG_TIMEOUT)
{
	const struct engine_command fill = {
		.op = PRECOPY_ENGINE_OP_FILL, .dst = ENGINE_IOVA + TO,
		.src = 0x5a5a, .len = PRECOPY_PAGE, .count = 1,
	};
	struct engine *e = &self->e;
	struct pollfd pfd = { .events = POLLIN };
	u64 late;

	if (strcmp(variant->mode, MODE_VFIO_TYPE1_IOMMU))
		SKIP(return, "memory is pinned: there are no faults");
	pfd.fd = hold_faults(e->ram + TO, PRECOPY_PAGE);
	if (pfd.fd < 0)
		SKIP(return, "userfaultfd: %s", strerror(errno));
	engine_start(e, &fill);
	/* Behind the simulated IOMMU the step takes the page that was mapped */
	while (!poll(&pfd, 1, 10))
		if (!engine_read32(e, PRECOPY_ENGINE_CMD_START))
			break;
	if (pfd.revents) {
		late = precopy_stat(bdfs[0], "late_steps");
		precopy_reset(&e->pd);
		EXPECT_EQ(late + 1, precopy_stat(bdfs[0], "late_steps"));
		vfio_pci_config_writew(e->pd.dev, ENGINE_CAP_EXP +
				       PCI_EXP_DEVCTL, PCI_EXP_DEVCTL_BCR_FLR);
		EXPECT_EQ(late + 2, precopy_stat(bdfs[0], "late_steps"));
		EXPECT_EQ(0, engine_read32(e, PRECOPY_ENGINE_STATUS));
		/* What comes next waits for the step of before the resets */
		engine_start(e, &fill);
		usleep(20 * 1000);
		EXPECT_EQ(0, engine_read64(e, PRECOPY_ENGINE_CMD_DONE));
		EXPECT_EQ(1, engine_read32(e, PRECOPY_ENGINE_CMD_START));
	}
	end_faults(pfd.fd, e->ram + TO, PRECOPY_PAGE);
	EXPECT_EQ(0, engine_wait(e));
	if (pfd.revents)
		EXPECT_EQ(0x5a5a, *(u64 *)(e->ram + TO));
	memcpy(e->ram + TO, self->want + TO, PRECOPY_PAGE);
}

/* Closing the device while the engine is at work: nothing is stored afterwards. */
TEST_F_TIMEOUT(engine, close_ends_everything, MIG_TIMEOUT)
{
	struct engine_command command = {
		.op = PRECOPY_ENGINE_OP_STAMP, .dst = ENGINE_IOVA + TO,
		.len = SZ_1M,
	};
	u8 *ram = mremap(self->e.ram, 0, RAM, MREMAP_MAYMOVE);
	int i;

	ASSERT_NE(MAP_FAILED, ram);
	for (i = 0; i < 5; i++) {
		engine_start(&self->e, &command);
		ASSERT_TRUE(engine_wait_for(&self->e, PRECOPY_ENGINE_CMD_DONE, 1));
		engine_close(&self->e);
		memcpy(ram, self->want, RAM);
		usleep(10 * 1000);
		EXPECT_EQ(0, memcmp(self->want, ram, RAM));
		munmap(ram, RAM);
		engine_open(&self->e, bdfs[0], variant->mode, MEMORY, RAM);
		memcpy(self->e.ram, self->want, RAM);
		ram = mremap(self->e.ram, 0, RAM, MREMAP_MAYMOVE);
		ASSERT_NE(MAP_FAILED, ram);
	}
}

static bool nothing_but(const u8 *bytes, u8 value, size_t len)
{
	return bytes[0] == value && !memcmp(bytes, bytes + 1, len - 1);
}

/*
 * Memory that is unmapped while the engine writes it is not written any more when
 * the unmapping has returned.
 */
TEST_F_TIMEOUT(engine, unmap_under_dma, MIG_TIMEOUT)
{
	struct engine_command command = {
		.op = PRECOPY_ENGINE_OP_STAMP, .dst = ENGINE_IOVA, .len = RAM,
	};
	u64 i, nr = precopy_rounds(50);
	struct engine *e = &self->e;

	for (i = 0; i < nr; i++) {
		engine_start(e, &command);
		usleep(i % 7 * 300);
		iommu_unmap(e->pd.iommu, &e->region);
		memset(e->ram, 0x11, RAM);
		usleep(500);
		ASSERT_TRUE(nothing_but(e->ram, 0x11, RAM)) TH_LOG("round %lu", i);
		iommu_map(e->pd.iommu, &e->region);
		engine_write32(e, PRECOPY_ENGINE_CMD_START, 0);
		engine_wait(e);
	}
	memset(self->want, 0x11, RAM);
	memset(e->ram, 0x11, RAM);
}

/* ------------------------------------------------------------------------ */
/* DMA log                                                                  */

/* Pages that the log has, of the memory: a bit each */
static int log_report(struct engine *e, u64 *bitmap)
{
	memset(bitmap, 0, PAGES / 8);
	return dma_log_report(e->pd.dev, ENGINE_IOVA, RAM, PRECOPY_PAGE, bitmap);
}

static u64 count_bits(const u64 *bitmap)
{
	u64 i, n = 0;

	for (i = 0; i < PAGES / 64; i++)
		n += __builtin_popcountll(bitmap[i]);
	return n;
}

static bool has_bit(const u64 *bitmap, u64 page)
{
	return bitmap[page / 64] >> page % 64 & 1;
}

TEST_F_TIMEOUT(engine, log_is_exact, MIG_TIMEOUT) /* R61 */
{
	u64 bitmap[PAGES / 64];
	struct engine *e = &self->e;

	if (!dma_log_offered(e->pd.fd))
		SKIP(return, "no DMA logging");
	ASSERT_EQ(0, engine_log_start(e, ENGINE_IOVA, RAM));
	ASSERT_EQ(0, log_report(e, bitmap));
	EXPECT_EQ(0, count_bits(bitmap));
	/* Two pages, of which 100 bytes, and one */
	ASSERT_EQ(0, engine_copy(e, ENGINE_IOVA,
				 ENGINE_IOVA + TO + 6 * PRECOPY_PAGE - 50, 100));
	memcpy(self->want + TO + 6 * PRECOPY_PAGE - 50, self->want, 100);
	ASSERT_EQ(0, engine_copy(e, ENGINE_IOVA,
				 ENGINE_IOVA + RAM - 1, 1));
	self->want[RAM - 1] = self->want[0];
	ASSERT_EQ(0, log_report(e, bitmap));
	EXPECT_EQ(3, count_bits(bitmap));
	EXPECT_TRUE(has_bit(bitmap, TO / PRECOPY_PAGE + 5));
	EXPECT_TRUE(has_bit(bitmap, TO / PRECOPY_PAGE + 6));
	EXPECT_TRUE(has_bit(bitmap, PAGES - 1));
	ASSERT_EQ(0, log_report(e, bitmap));
	EXPECT_EQ(0, count_bits(bitmap));
	/* The status of a descriptor is a store, too; its fetch is none. */
	engine_ring(e, RING_AT, RING)[0].op = PRECOPY_ENGINE_OP_IRQ;
	engine_write32(e, PRECOPY_ENGINE_RING_TAIL, 1);
	ASSERT_TRUE(engine_wait_head(e, 1));
	ASSERT_EQ(0, log_report(e, bitmap));
	EXPECT_EQ(1, count_bits(bitmap));
	EXPECT_TRUE(has_bit(bitmap, PAGES - 1));
	memcpy(self->want + RING_AT, e->ram + RING_AT, PRECOPY_PAGE);
	ASSERT_EQ(0, dma_log_stop(e->pd.dev));
	EXPECT_EQ(-EINVAL, log_report(e, bitmap));
}

/* The same, of the commands of pci-epf-test */
TEST_F_TIMEOUT(engine, log_of_the_endpoint, MIG_TIMEOUT)
{
	struct engine_epf epf = {
		.command = PRECOPY_EPF_COMMAND_READ, .src = ENGINE_IOVA + TO,
		.dst = ENGINE_IOVA + 6 * PRECOPY_PAGE - 50, .size = 100,
	};
	u64 bitmap[PAGES / 64];
	struct engine *e = &self->e;

	if (!dma_log_offered(e->pd.fd))
		SKIP(return, "no DMA logging");
	ASSERT_EQ(0, engine_log_start(e, ENGINE_IOVA, RAM));
	engine_epf_run(e, &epf);
	ASSERT_EQ(0, log_report(e, bitmap));
	EXPECT_EQ(0, count_bits(bitmap));
	for (epf.command <<= 1; epf.command <= PRECOPY_EPF_COMMAND_COPY; epf.command <<= 1) {
		engine_epf_run(e, &epf);
		ASSERT_EQ(0, log_report(e, bitmap));
		EXPECT_EQ(2, count_bits(bitmap));
		EXPECT_EQ(3 << 5, bitmap[0]);
	}
	memcpy(self->want + 6 * PRECOPY_PAGE - 50, self->want + TO, 100);
}

/* Outside of the ranges nothing is logged. In PRE_COPY it is counted. */
TEST_F_TIMEOUT(engine, log_has_ranges, MIG_TIMEOUT) /* R61 */
{
	u64 unlogged = precopy_stat(bdfs[0], "dma_unlogged_pages");
	u64 bitmap[PAGES / 64];
	struct engine *e = &self->e;
	int fd;

	if (!dma_log_offered(e->pd.fd))
		SKIP(return, "no DMA logging");
	ASSERT_EQ(0, engine_log_start(e, ENGINE_IOVA, RAM / 2));
	ASSERT_EQ(0, engine_copy(e, ENGINE_IOVA, ENGINE_IOVA + RAM / 2, 8192));
	EXPECT_EQ(unlogged, precopy_stat(bdfs[0], "dma_unlogged_pages"));
	ASSERT_EQ(0, mig_set_state(e->pd.dev, PC, &fd));
	ASSERT_EQ(0, engine_copy(e, ENGINE_IOVA, ENGINE_IOVA + RAM / 2, 8192));
	EXPECT_EQ(unlogged + 2, precopy_stat(bdfs[0], "dma_unlogged_pages"));
	ASSERT_EQ(0, engine_copy(e, ENGINE_IOVA + 8192, ENGINE_IOVA, 4096));
	EXPECT_EQ(unlogged + 2, precopy_stat(bdfs[0], "dma_unlogged_pages"));
	ASSERT_EQ(0, log_report(e, bitmap));
	EXPECT_EQ(1, count_bits(bitmap));
	EXPECT_TRUE(has_bit(bitmap, 0));
	memcpy(self->want + RAM / 2, self->want, 8192);
	memcpy(self->want, self->want + 8192, 4096);
	close(fd);
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
