// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/pci_regs.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_engine.h>

/* How long nothing may happen. A kernel that checks all it does is slow. */
#define PATIENCE_MS	60000

void engine_set_master(struct engine *e, bool master)
{
	if (master)
		vfio_pci_cmd_set(e->pd.dev, PCI_COMMAND_MASTER);
	else
		vfio_pci_cmd_clear(e->pd.dev, PCI_COMMAND_MASTER);
}

static void *get_memory(size_t size)
{
	void *ram = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	VFIO_ASSERT_NE(ram, MAP_FAILED);
	return ram;
}

/* Map memory for DMA and enable it, as a driver does. The device may be detached. */
static void set_up(struct engine *e, void *ram, size_t ram_size)
{
	int i;

	e->registers = e->pd.dev->bars[0].info.offset;
	VFIO_ASSERT_EQ(e->pd.dev->bars[0].info.size,
		       (u64)PRECOPY_ENGINE_BAR_SIZE);
	e->ram_size = ram_size;
	e->ram = ram;
	e->region = (struct dma_region) {
		.vaddr = e->ram, .iova = ENGINE_IOVA, .size = ram_size,
	};
	iommu_map(e->pd.iommu, &e->region);
	for (i = 0; i < PRECOPY_ENGINE_VECTORS; i++)
		e->irq[i] = -1;
	engine_set_master(e, true);
}

void engine_open_ram(struct engine *e, const char *bdf, const char *mode,
		     size_t memory_size, void *ram, size_t ram_size)
{
	memset(e, 0, sizeof(*e));
	precopy_open_model(&e->pd, bdf, mode, memory_size, "engine");
	set_up(e, ram, ram_size);
}

void engine_open(struct engine *e, const char *bdf, const char *mode,
		 size_t memory_size, size_t ram_size)
{
	engine_open_ram(e, bdf, mode, memory_size, get_memory(ram_size), ram_size);
}

static void get_region(struct vfio_pci_device *dev, u32 index,
		       struct vfio_region_info *info)
{
	*info = (struct vfio_region_info) {
		.argsz = sizeof(*info), .index = index,
	};
	ioctl_assert(dev->fd, VFIO_DEVICE_GET_REGION_INFO, info);
}

/* libvfio's own way to open a device attaches it, and keeps its id to itself. */
u32 engine_open_bound(struct engine *e, const char *bdf, size_t memory_size,
		      size_t ram_size)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };
	struct vfio_pci_device *dev;
	size_t i;

	memset(e, 0, sizeof(*e));
	precopy_prepare(bdf, memory_size, "engine");
	e->pd.bdf = bdf;
	e->pd.iommu = iommu_init(MODE_IOMMUFD);
	dev = vfio_pci_device_alloc(bdf, e->pd.iommu);
	vfio_pci_cdev_open(dev, bdf);
	bind.iommufd = e->pd.iommu->iommufd;
	ioctl_assert(dev->fd, VFIO_DEVICE_BIND_IOMMUFD, &bind);
	get_region(dev, VFIO_PCI_CONFIG_REGION_INDEX, &dev->config_space);
	get_region(dev, VFIO_PCI_BAR0_REGION_INDEX, &dev->bars[0].info);
	for (i = 0; i < ARRAY_SIZE(dev->msi_eventfds); i++)
		dev->msi_eventfds[i] = -1;
	e->pd.dev = dev;
	e->pd.fd = dev->fd;
	set_up(e, get_memory(ram_size), ram_size);
	return bind.out_devid;
}

void engine_close(struct engine *e)
{
	int i;

	precopy_close(&e->pd);
	munmap(e->ram, e->ram_size);
	for (i = 0; i < PRECOPY_ENGINE_VECTORS; i++)
		if (e->irq[i] >= 0)
			close(e->irq[i]);
}

/* --- Registers ------------------------------------------------------------ */

static void access_register(struct engine *e, u64 reg, void *value, size_t len,
			    bool write)
{
	u64 at = e->registers + reg;
	ssize_t ret = write ? pwrite(e->pd.fd, value, len, at) :
			      pread(e->pd.fd, value, len, at);

	VFIO_ASSERT_EQ(ret, (ssize_t)len, "register %#lx: %s\n", reg,
		       strerror(errno));
}

u32 engine_read32(struct engine *e, u64 reg)
{
	u32 value;

	access_register(e, reg, &value, sizeof(value), false);
	return value;
}

u64 engine_read64(struct engine *e, u64 reg)
{
	u64 value;

	access_register(e, reg, &value, sizeof(value), false);
	return value;
}

void engine_write32(struct engine *e, u64 reg, u32 value)
{
	access_register(e, reg, &value, sizeof(value), true);
}

void engine_write64(struct engine *e, u64 reg, u64 value)
{
	access_register(e, reg, &value, sizeof(value), true);
}

/* Waiting for the engine, as long as it stores something now and then */
struct patience {
	u64 bytes;
	u64 deadline;
};

static bool patient(struct engine *e, struct patience *p)
{
	u64 bytes = engine_read64(e, PRECOPY_ENGINE_BYTES);

	if (!p->deadline || bytes != p->bytes)
		p->deadline = precopy_now_ms() + PATIENCE_MS;
	p->bytes = bytes;
	usleep(100);
	return precopy_now_ms() < p->deadline;
}

bool engine_wait_for(struct engine *e, u64 reg, u64 value)
{
	struct patience p = {};

	while (engine_read64(e, reg) < value)
		if (!patient(e, &p))
			return false;
	return true;
}

/* --- DMA log --------------------------------------------------------------- */

int engine_log_start(struct engine *e, u64 iova, u64 length)
{
	struct vfio_device_feature_dma_logging_range range = { iova, length };
	u64 page_size = PRECOPY_PAGE;

	return dma_log_start(e->pd.dev, &page_size, &range, 1);
}

int engine_dirty_start(struct engine *e)
{
	return dma_log_offered(e->pd.fd) ?
	       engine_log_start(e, ENGINE_IOVA, e->ram_size) : 0;
}

int engine_dirty_stop(struct engine *e)
{
	return dma_log_offered(e->pd.fd) ? dma_log_stop(e->pd.dev) : 0;
}

static long log_send(struct engine *e, struct engine *to)
{
	u64 page, pages = e->ram_size / PRECOPY_PAGE;
	u64 *bitmap = calloc_assert((pages + 63) / 64, sizeof(*bitmap));
	long nr = dma_log_report(e->pd.dev, ENGINE_IOVA, e->ram_size,
				 PRECOPY_PAGE, bitmap);

	for (page = 0; nr >= 0 && page < pages; page++) {
		if (!(bitmap[page / 64] >> page % 64 & 1))
			continue;
		memcpy(to->ram + page * PRECOPY_PAGE,
		       e->ram + page * PRECOPY_PAGE, PRECOPY_PAGE);
		nr++;
	}
	free(bitmap);
	return nr;
}

long engine_dirty_send(struct engine *e, struct engine *to)
{
	if (dma_log_offered(e->pd.fd))
		return log_send(e, to);
	memcpy(to->ram, e->ram, e->ram_size);
	return e->ram_size / PRECOPY_PAGE;
}

/* --- Interrupts ----------------------------------------------------------- */

void engine_irqs_enable(struct engine *e)
{
	char buf[sizeof(struct vfio_irq_set) + sizeof(e->irq)];
	struct vfio_irq_set *set = (void *)buf;
	int i;

	for (i = 0; i < PRECOPY_ENGINE_VECTORS; i++)
		if (e->irq[i] < 0)
			e->irq[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	*set = (struct vfio_irq_set) {
		.argsz = sizeof(buf),
		.flags = VFIO_IRQ_SET_DATA_EVENTFD |
			 VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = VFIO_PCI_MSIX_IRQ_INDEX,
		.count = PRECOPY_ENGINE_VECTORS,
	};
	memcpy(set->data, e->irq, sizeof(e->irq));
	VFIO_ASSERT_EQ(ioctl(e->pd.fd, VFIO_DEVICE_SET_IRQS, set), 0);
}

u64 engine_irqs(struct engine *e, u32 vector)
{
	u64 nr = 0;

	return read(e->irq[vector], &nr, sizeof(nr)) == sizeof(nr) ? nr : 0;
}

u64 engine_irqs_wait(struct engine *e, u32 vector)
{
	struct pollfd pfd = { .fd = e->irq[vector], .events = POLLIN };

	poll(&pfd, 1, PATIENCE_MS);
	return engine_irqs(e, vector);
}

/* --- Commands ------------------------------------------------------------- */

void engine_start(struct engine *e, const struct engine_command *command)
{
	engine_write32(e, PRECOPY_ENGINE_CMD_OP, command->op);
	engine_write32(e, PRECOPY_ENGINE_CMD_FLAGS, command->flags);
	engine_write64(e, PRECOPY_ENGINE_CMD_SRC, command->src);
	engine_write64(e, PRECOPY_ENGINE_CMD_DST, command->dst);
	engine_write64(e, PRECOPY_ENGINE_CMD_LEN, command->len);
	engine_write64(e, PRECOPY_ENGINE_CMD_SEQ, command->seq);
	engine_write64(e, PRECOPY_ENGINE_CMD_COUNT, command->count);
	engine_write32(e, PRECOPY_ENGINE_CMD_VECTOR,
		       command->vector ?: PRECOPY_ENGINE_NO_VECTOR);
	engine_write32(e, PRECOPY_ENGINE_CMD_START, 1);
}

int engine_wait(struct engine *e)
{
	struct patience p = {};

	while (engine_read32(e, PRECOPY_ENGINE_CMD_START))
		VFIO_ASSERT_TRUE(patient(e, &p), "the command does not end\n");
	return -engine_read32(e, PRECOPY_ENGINE_CMD_ERROR);
}

int engine_run(struct engine *e, const struct engine_command *command)
{
	struct engine_command once = *command;

	if (!once.count)
		once.count = 1;
	engine_start(e, &once);
	return engine_wait(e);
}

int engine_copy(struct engine *e, u64 src, u64 dst, u64 len)
{
	return engine_run(e, &(struct engine_command) {
		.op = PRECOPY_ENGINE_OP_COPY,
		.src = src, .dst = dst, .len = len,
	});
}

struct precopy_engine_desc *engine_ring(struct engine *e, u64 offset, u32 size)
{
	engine_write32(e, PRECOPY_ENGINE_CTRL, 0);
	memset(e->ram + offset, 0, size * sizeof(struct precopy_engine_desc));
	engine_write64(e, PRECOPY_ENGINE_RING_BASE, ENGINE_IOVA + offset);
	engine_write32(e, PRECOPY_ENGINE_RING_SIZE, size);
	engine_write32(e, PRECOPY_ENGINE_CTRL, PRECOPY_ENGINE_CTRL_RING);
	return (struct precopy_engine_desc *)(e->ram + offset);
}

bool engine_wait_head(struct engine *e, u32 head)
{
	struct patience p = {};

	while (engine_read32(e, PRECOPY_ENGINE_RING_HEAD) != head)
		if (!(engine_read32(e, PRECOPY_ENGINE_CTRL) &
		      PRECOPY_ENGINE_CTRL_RING) || !patient(e, &p))
			return false;
	return true;
}

/* --- Commands of pci-epf-test --------------------------------------------- */

void engine_epf_start(struct engine *e, const struct engine_epf *epf)
{
	engine_write64(e, PRECOPY_EPF_SRC, epf->src);
	engine_write64(e, PRECOPY_EPF_DST, epf->dst);
	engine_write32(e, PRECOPY_EPF_SIZE, epf->size);
	engine_write32(e, PRECOPY_EPF_CHECKSUM, epf->checksum);
	engine_write32(e, PRECOPY_EPF_IRQ_TYPE, epf->irq_type);
	engine_write32(e, PRECOPY_EPF_IRQ_NUMBER, epf->irq_number);
	engine_write32(e, PRECOPY_EPF_FLAGS, epf->flags);
	engine_write32(e, PRECOPY_EPF_COMMAND, epf->command);
}

u32 engine_epf_wait(struct engine *e)
{
	struct patience p = {};

	while (engine_read32(e, PRECOPY_EPF_COMMAND))
		VFIO_ASSERT_TRUE(patient(e, &p),
				 "the endpoint's command does not end\n");
	return engine_read32(e, PRECOPY_EPF_STATUS);
}

u32 engine_epf_run(struct engine *e, const struct engine_epf *epf)
{
	engine_epf_start(e, epf);
	return engine_epf_wait(e);
}

u32 engine_crc32(const void *data, size_t len)
{
	const u8 *p = data;
	u32 crc = ~0U;
	int bit;

	for (; len; len--) {
		crc ^= *p++;
		for (bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0xedb88320 : 0);
	}
	return crc;
}

bool engine_stamped(const void *page, u64 seq, u64 nr)
{
	const u64 *pair = page;
	size_t i;

	for (i = 0; i < PRECOPY_PAGE / sizeof(*pair); i += 2)
		if (pair[i] != seq || pair[i + 1] != nr)
			return false;
	return true;
}
