// SPDX-License-Identifier: GPL-2.0-only
/*
 * Driver of a precopy-vfio-pci device whose model is "engine". Its command does what a
 * test wants, so the ring is not used. The registers cannot be mapped: they are read
 * and written by way of the device's fd.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/pci_regs.h>
#include <linux/sizes.h>
#include <linux/vfio_precopy_engine.h>

#include <libvfio.h>

/*
 * The engine could do far more. It is software, and a test has 30 seconds to copy four
 * times the one, or the one as often as the other.
 */
#define MAX_MEMCPY_SIZE		SZ_256K
#define MAX_MEMCPY_COUNT	64
#define MSIX_VECTOR		0

static u64 precopy_register(struct vfio_pci_device *device, u32 reg)
{
	return device->bars[0].info.offset + reg;
}

static u32 precopy_read32(struct vfio_pci_device *device, u32 reg)
{
	u32 value;

	VFIO_ASSERT_EQ(pread(device->fd, &value, sizeof(value),
			     precopy_register(device, reg)),
		       (ssize_t)sizeof(value));
	return value;
}

static void precopy_write32(struct vfio_pci_device *device, u32 reg, u32 value)
{
	VFIO_ASSERT_EQ(pwrite(device->fd, &value, sizeof(value),
			      precopy_register(device, reg)),
		       (ssize_t)sizeof(value));
}

static void precopy_write64(struct vfio_pci_device *device, u32 reg, u64 value)
{
	VFIO_ASSERT_EQ(pwrite(device->fd, &value, sizeof(value),
			      precopy_register(device, reg)),
		       (ssize_t)sizeof(value));
}

/* Its ids are whatever its owner wants, so the kernel's driver has to be asked. */
static bool precopy_is_bound(struct vfio_pci_device *device)
{
	char *driver = sysfs_driver_get(device->bdf);
	bool bound = driver && !strcmp(driver, "precopy-vfio-pci");

	free(driver);
	return bound;
}

static int precopy_probe(struct vfio_pci_device *device)
{
	u32 id = 0;

	/* A device of the model "memory" has no BAR0. */
	if (device->bars[0].info.size != PRECOPY_ENGINE_BAR_SIZE ||
	    !precopy_is_bound(device))
		return -EINVAL;
	if (pread(device->fd, &id, sizeof(id),
		  precopy_register(device, PRECOPY_ENGINE_ID)) != sizeof(id))
		return -EIO;
	return id == PRECOPY_ENGINE_MAGIC ? 0 : -EINVAL;
}

static void precopy_init(struct vfio_pci_device *device)
{
	u16 command = vfio_pci_config_readw(device, PCI_COMMAND);

	vfio_pci_device_reset(device);
	vfio_pci_config_writew(device, PCI_COMMAND, command | PCI_COMMAND_MEMORY |
			       PCI_COMMAND_MASTER);
	vfio_pci_msix_enable(device, MSIX_VECTOR, 1);

	device->driver.max_memcpy_size = MAX_MEMCPY_SIZE;
	device->driver.max_memcpy_count = MAX_MEMCPY_COUNT;
	device->driver.msi = MSIX_VECTOR;
}

static void precopy_remove(struct vfio_pci_device *device)
{
	u16 command = vfio_pci_config_readw(device, PCI_COMMAND);

	vfio_pci_msix_disable(device);
	vfio_pci_config_writew(device, PCI_COMMAND, command & ~PCI_COMMAND_MASTER);
	vfio_pci_device_reset(device);
}

static void precopy_memcpy_start(struct vfio_pci_device *device, iova_t src,
				 iova_t dst, u64 size, u64 count)
{
	precopy_write32(device, PRECOPY_ENGINE_CMD_OP, PRECOPY_ENGINE_OP_COPY);
	precopy_write32(device, PRECOPY_ENGINE_CMD_FLAGS, 0);
	precopy_write64(device, PRECOPY_ENGINE_CMD_SRC, src);
	precopy_write64(device, PRECOPY_ENGINE_CMD_DST, dst);
	precopy_write64(device, PRECOPY_ENGINE_CMD_LEN, size);
	precopy_write64(device, PRECOPY_ENGINE_CMD_COUNT, count);
	precopy_write32(device, PRECOPY_ENGINE_CMD_VECTOR,
			PRECOPY_ENGINE_NO_VECTOR);
	precopy_write32(device, PRECOPY_ENGINE_CMD_START, 1);
}

static int precopy_memcpy_wait(struct vfio_pci_device *device)
{
	while (precopy_read32(device, PRECOPY_ENGINE_CMD_START))
		usleep(100);
	return -(int)precopy_read32(device, PRECOPY_ENGINE_CMD_ERROR);
}

static void precopy_send_msi(struct vfio_pci_device *device)
{
	precopy_write32(device, PRECOPY_ENGINE_IRQ_RAISE, device->driver.msi);
}

const struct vfio_pci_driver_ops precopy_ops = {
	.name = "precopy",
	.probe = precopy_probe,
	.init = precopy_init,
	.remove = precopy_remove,
	.memcpy_start = precopy_memcpy_start,
	.memcpy_wait = precopy_memcpy_wait,
	.send_msi = precopy_send_msi,
};
