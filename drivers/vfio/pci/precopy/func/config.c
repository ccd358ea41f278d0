// SPDX-License-Identifier: GPL-2.0-only
/*
 * The synthetic config space. It has the ids of the carrier, COMMAND, and BAR2/3 as
 * one 64-bit BAR. No write reaches the hardware. In particular the carrier never
 * becomes bus master, which is why an empty DMA log is correct.
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

/* Writable bits of the byte at @offset; BAR2/3 are handled by the callers */
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

/* Value of BAR2/3. Masking the low bits by the size makes sizing work. */
static u64 precopy_config_bar(const struct precopy_device *pcd)
{
	lockdep_assert_held(&pcd->memory.sem);
	return (pcd->config.bar & ~(pcd->memory.size - 1)) | PRECOPY_BAR_FLAGS;
}

static bool precopy_config_is_bar(u64 offset)
{
	return offset >= PCI_BASE_ADDRESS_2 && offset < PRECOPY_BAR_END;
}

static u8 precopy_config_get(const struct precopy_device *pcd, u64 offset)
{
	lockdep_assert_held(&pcd->memory.sem);
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

	lockdep_assert_held_write(&pcd->memory.sem);
	if (precopy_config_is_bar(offset)) {
		pcd->config.bar &= ~(0xffULL << shift);
		pcd->config.bar |= (u64)val << shift;
	} else {
		*byte = (*byte & ~mask) | (val & mask);
	}
}

/* Apply COMMAND's memory bit */
static void precopy_config_decode(struct precopy_device *pcd)
{
	lockdep_assert_held_write(&pcd->memory.sem);
	precopy_memory_set_decode(&pcd->memory, pcd->config.bytes[PCI_COMMAND] &
						PCI_COMMAND_MEMORY);
}

/**
 * precopy_config_init - initialise the config space at open
 * @pcd: the device. Ids, class and revision are copied from its carrier.
 *
 * The memory bit of COMMAND is set, as on vfio-pci, where opening the device enables
 * the function. A program can therefore map the BAR and use it at once.
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
 * @buf: user buffer to copy to
 * @count: number of bytes to read
 * @offset: offset of the first byte in config space
 *
 * Return: number of bytes read, -EINVAL if @offset is past the end, or -EFAULT.
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
 * @buf: user buffer to copy from
 * @count: number of bytes to write
 * @offset: offset of the first byte in config space
 *
 * Writes to read-only registers succeed and have no effect, as on a PCI bus. The
 * function works in every migration state, because VMMs restore config space in
 * RESUMING.
 *
 * Return: number of bytes written, -EINVAL if @offset is past the end, or -EFAULT.
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
