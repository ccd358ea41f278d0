// SPDX-License-Identifier: GPL-2.0-only
/*
 * The synthetic config space: the carrier's identity, COMMAND, BAR2/3, and
 * nothing else. No write reaches the hardware. In particular the carrier never
 * becomes bus master, which is why the DMA log may say that it wrote nothing.
 */

#include <linux/minmax.h>
#include <linux/pci.h>
#include <linux/uaccess.h>
#include <linux/unaligned.h>

#include "precopy.h"

#define PRECOPY_BAR_FLAGS	(PCI_BASE_ADDRESS_SPACE_MEMORY | \
				 PCI_BASE_ADDRESS_MEM_TYPE_64 | \
				 PCI_BASE_ADDRESS_MEM_PREFETCH)
#define PRECOPY_BAR_END		(PCI_BASE_ADDRESS_2 + sizeof(u64))

/* Bits that a write changes; all other bytes are read-only */
static u8 precopy_config_mask(u64 offset)
{
	static const u16 command = PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
				   PCI_COMMAND_PARITY | PCI_COMMAND_SERR |
				   PCI_COMMAND_INTX_DISABLE;

	switch (offset) {
	case PCI_COMMAND:
		return command & 0xff;
	case PCI_COMMAND + 1:
		return command >> 8;
	case PCI_CACHE_LINE_SIZE:
	case PCI_LATENCY_TIMER:
	case PCI_INTERRUPT_LINE:
		return 0xff;
	default:
		return 0;
	}
}

/* What the BAR register reads as: sizing falls out of the mask */
static u64 precopy_config_bar(const struct precopy_device *pcd)
{
	return (pcd->config.bar & ~(pcd->memory.size - 1)) | PRECOPY_BAR_FLAGS;
}

static bool precopy_config_is_bar(u64 offset)
{
	return offset >= PCI_BASE_ADDRESS_2 && offset < PRECOPY_BAR_END;
}

static u8 precopy_config_get(const struct precopy_device *pcd, u64 offset)
{
	if (precopy_config_is_bar(offset))
		return precopy_config_bar(pcd) >>
		       8 * (offset - PCI_BASE_ADDRESS_2);
	return pcd->config.bytes[offset];
}

static void precopy_config_set(struct precopy_device *pcd, u64 offset, u8 val)
{
	unsigned int shift = 8 * (offset - PCI_BASE_ADDRESS_2);
	u8 mask = precopy_config_mask(offset);
	u8 *byte = &pcd->config.bytes[offset];

	if (precopy_config_is_bar(offset)) {
		pcd->config.bar &= ~(0xffULL << shift);
		pcd->config.bar |= (u64)val << shift;
	} else {
		*byte = (*byte & ~mask) | (val & mask);
	}
}

/* Without memory decode accesses fail; those by mmap must fault to find out */
static void precopy_config_decode(struct precopy_device *pcd)
{
	struct precopy_memory *mem = &pcd->memory;
	bool decode = pcd->config.bytes[PCI_COMMAND] & PCI_COMMAND_MEMORY;

	if (mem->decode && !decode)
		precopy_memory_zap(pcd);
	mem->decode = decode;
}

/**
 * precopy_config_init - set the config space to what a new user finds
 * @pcd: the device; ids, class and revision are those of its carrier
 *
 * The memory bit of COMMAND is set, as vfio-pci shows it: opening has enabled
 * the function. So a program may map the BAR and use it at once.
 */
void precopy_config_init(struct precopy_device *pcd)
{
	struct pci_dev *pdev = pcd->pdev;
	u8 *bytes = pcd->config.bytes;

	guard(rwsem_write)(&pcd->memory.sem);
	memset(&pcd->config, 0, sizeof(pcd->config));
	put_unaligned_le16(pdev->vendor, bytes + PCI_VENDOR_ID);
	put_unaligned_le16(pdev->device, bytes + PCI_DEVICE_ID);
	put_unaligned_le16(PCI_COMMAND_MEMORY, bytes + PCI_COMMAND);
	put_unaligned_le32(pdev->class << 8 | pdev->revision,
			   bytes + PCI_CLASS_REVISION);
	put_unaligned_le16(pdev->subsystem_vendor,
			   bytes + PCI_SUBSYSTEM_VENDOR_ID);
	put_unaligned_le16(pdev->subsystem_device, bytes + PCI_SUBSYSTEM_ID);
	bytes[PCI_HEADER_TYPE] = PCI_HEADER_TYPE_NORMAL;
	precopy_config_decode(pcd);
}

static size_t precopy_config_len(size_t count, u64 offset)
{
	return offset < PRECOPY_CONFIG_SIZE ?
	       min_t(u64, count, PRECOPY_CONFIG_SIZE - offset) : 0;
}

/**
 * precopy_config_read - read() of the config region
 * @pcd: the device
 * @buf: to copy to
 * @count: bytes wanted
 * @offset: register
 *
 * Return: bytes read; -EINVAL past the end, -EFAULT.
 */
ssize_t precopy_config_read(struct precopy_device *pcd, char __user *buf,
			    size_t count, u64 offset)
{
	size_t i, len = precopy_config_len(count, offset);
	u8 bytes[PRECOPY_CONFIG_SIZE];

	if (!len)
		return -EINVAL;
	scoped_guard(rwsem_read, &pcd->memory.sem)
		for (i = 0; i < len; i++)
			bytes[i] = precopy_config_get(pcd, offset + i);
	return copy_to_user(buf, bytes, len) ? -EFAULT : len;
}

/**
 * precopy_config_write - write() of the config region
 * @pcd: the device
 * @buf: to copy from
 * @count: bytes
 * @offset: register
 *
 * Writes to read-only registers are accepted and have no effect, as on the
 * bus. Works in every migration state: VMMs restore config space in RESUMING.
 *
 * Return: bytes written; -EINVAL past the end, -EFAULT.
 */
ssize_t precopy_config_write(struct precopy_device *pcd,
			     const char __user *buf, size_t count, u64 offset)
{
	size_t i, len = precopy_config_len(count, offset);
	u8 bytes[PRECOPY_CONFIG_SIZE];

	if (!len)
		return -EINVAL;
	if (copy_from_user(bytes, buf, len))
		return -EFAULT;
	scoped_guard(rwsem_write, &pcd->memory.sem) {
		for (i = 0; i < len; i++)
			precopy_config_set(pcd, offset + i, bytes[i]);
		precopy_config_decode(pcd);
	}
	return len;
}
