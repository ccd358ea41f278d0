// SPDX-License-Identifier: GPL-2.0-only
/*
 * The synthetic config space. It has the ids of the carrier, COMMAND, and BAR2/3 as
 * one 64-bit BAR; of a device with an engine also BAR0, and the capabilities PM, PCI
 * Express and MSI-X. No write reaches the hardware. In particular the carrier never
 * becomes bus master: all DMA is the engine's.
 */

#include <linux/array_size.h>
#include <linux/minmax.h>
#include <linux/pci.h>
#include <linux/uaccess.h>
#include <linux/unaligned.h>

#include "config.h"
#include "engine.h"
#include "peers.h"
#include "precopy.h"

#define PRECOPY_BAR_FLAGS	(PCI_BASE_ADDRESS_SPACE_MEMORY | \
				 PCI_BASE_ADDRESS_MEM_TYPE_64 | \
				 PCI_BASE_ADDRESS_MEM_PREFETCH)
#define PRECOPY_BAR_END		(PCI_BASE_ADDRESS_2 + sizeof(u64))

/* Where the capabilities of a device with an engine are */
#define PRECOPY_CAP_PM		0x40
#define PRECOPY_CAP_EXP		0x50
#define PRECOPY_CAP_MSIX	0x90
/* Bytes of config space read or written at a time */
#define PRECOPY_CONFIG_CHUNK	64

/**
 * struct precopy_config_field - register that can be written
 * @offset: offset in config space
 * @mask: bits that can be written, of the 16 at @offset
 */
struct precopy_config_field {
	u16	offset;
	u16	mask;
};

static const struct precopy_config_field precopy_config_fields[] = {
	{ PCI_COMMAND, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER |
		       PCI_COMMAND_PARITY | PCI_COMMAND_SERR |
		       PCI_COMMAND_INTX_DISABLE },
	{ PCI_CACHE_LINE_SIZE, 0xffff },	/* and PCI_LATENCY_TIMER */
	{ PCI_INTERRUPT_LINE, 0xff },
};

static const struct precopy_config_field precopy_engine_fields[] = {
	{ PRECOPY_CAP_PM + PCI_PM_CTRL, PCI_PM_CTRL_STATE_MASK },
	{ PRECOPY_CAP_EXP + PCI_EXP_DEVCTL,
	  PCI_EXP_DEVCTL_CERE | PCI_EXP_DEVCTL_NFERE | PCI_EXP_DEVCTL_FERE |
	  PCI_EXP_DEVCTL_URRE | PCI_EXP_DEVCTL_RELAX_EN |
	  PCI_EXP_DEVCTL_PAYLOAD | PCI_EXP_DEVCTL_NOSNOOP_EN |
	  PCI_EXP_DEVCTL_READRQ },
	{ PRECOPY_CAP_MSIX + PCI_MSIX_FLAGS,
	  PCI_MSIX_FLAGS_ENABLE | PCI_MSIX_FLAGS_MASKALL },
};

static u8 precopy_config_field_mask(const struct precopy_config_field *fields,
				    size_t nr, u64 offset)
{
	size_t i;

	for (i = 0; i < nr; i++)
		if (offset / 2 == fields[i].offset / 2)
			return fields[i].mask >> 8 * (offset % 2);
	return 0;
}

/* Writable bits of the byte at @offset; BARs are handled by the callers */
static u8 precopy_config_mask(const struct precopy_device *pcd, u64 offset)
{
	u8 mask = precopy_config_field_mask(precopy_config_fields,
					    ARRAY_SIZE(precopy_config_fields),
					    offset);

	if (!mask && pcd->engine)
		mask = precopy_config_field_mask(precopy_engine_fields,
						 ARRAY_SIZE(precopy_engine_fields),
						 offset);
	return mask;
}

/**
 * precopy_config_bar - get the address of BAR2
 * @pcd: the device
 *
 * The low bits read as 0, so that a guest can find out the size.
 *
 * Context: memory.sem held.
 * Return: address that was written last, whether or not the BAR decodes; 0 if none was.
 */
u64 precopy_config_bar(const struct precopy_device *pcd)
{
	lockdep_assert_held(&pcd->memory.sem);
	return pcd->config.bar & ~(pcd->memory.size - 1);
}

static bool precopy_config_is_bar(u64 offset)
{
	return offset >= PCI_BASE_ADDRESS_2 && offset < PRECOPY_BAR_END;
}

/* BAR0 has 32 bits, and is there if the device has an engine */
static bool precopy_config_is_bar0(const struct precopy_device *pcd, u64 offset)
{
	return pcd->engine && offset >= PCI_BASE_ADDRESS_0 &&
	       offset < PCI_BASE_ADDRESS_1;
}

static u8 precopy_config_get(const struct precopy_device *pcd, u64 offset)
{
	lockdep_assert_held(&pcd->memory.sem);
	if (precopy_config_is_bar(offset))
		return (precopy_config_bar(pcd) | PRECOPY_BAR_FLAGS) >>
		       8 * (offset - PCI_BASE_ADDRESS_2);
	if (precopy_config_is_bar0(pcd, offset))
		return (pcd->config.bar0 & ~(PRECOPY_ENGINE_BAR_SIZE - 1)) >>
		       8 * (offset - PCI_BASE_ADDRESS_0);
	return offset < PRECOPY_CONFIG_SIZE ? pcd->config.bytes[offset] : 0;
}

static void precopy_config_set_bar(u64 *bar, unsigned int byte, u8 val)
{
	*bar &= ~(0xffULL << 8 * byte);
	*bar |= (u64)val << 8 * byte;
}

static void precopy_config_set(struct precopy_device *pcd, u64 offset, u8 val)
{
	u8 mask, *byte;

	lockdep_assert_held_write(&pcd->memory.sem);
	if (offset >= PRECOPY_CONFIG_SIZE)
		return;
	mask = precopy_config_mask(pcd, offset);
	byte = &pcd->config.bytes[offset];
	if (precopy_config_is_bar(offset))
		precopy_config_set_bar(&pcd->config.bar,
				       offset - PCI_BASE_ADDRESS_2, val);
	else if (precopy_config_is_bar0(pcd, offset))
		precopy_config_set_bar(&pcd->config.bar0,
				       offset - PCI_BASE_ADDRESS_0, val);
	else
		*byte = (*byte & ~mask) | (val & mask);
}

static u16 precopy_config_word(const struct precopy_device *pcd, u64 offset)
{
	return get_unaligned_le16(pcd->config.bytes + offset);
}

/* A device without an engine has no power management, and zeroes here */
static bool precopy_config_in_d0(const struct precopy_device *pcd)
{
	return !(precopy_config_word(pcd, PRECOPY_CAP_PM + PCI_PM_CTRL) &
		 PCI_PM_CTRL_STATE_MASK);
}

static void precopy_config_apply_bar(struct precopy_device *pcd)
{
	precopy_peers_set_window(pcd, pcd->memory.decode ?
				 precopy_config_bar(pcd) : 0);
}

/* Apply COMMAND's memory and bus master bits, BAR2, and the power state */
static void precopy_config_apply(struct precopy_device *pcd)
{
	u16 command = precopy_config_word(pcd, PCI_COMMAND);
	bool d0 = precopy_config_in_d0(pcd);

	lockdep_assert_held_write(&pcd->memory.sem);
	precopy_memory_set_decode(&pcd->memory,
				  d0 && command & PCI_COMMAND_MEMORY);
	precopy_config_apply_bar(pcd);
	if (pcd->engine)
		precopy_engine_set_master(pcd->engine,
					  d0 && command & PCI_COMMAND_MASTER);
}

/* --- Contents at open ------------------------------------------------- */

static void precopy_config_init_exp(u8 *cap)
{
	put_unaligned_le16(2 | PCI_EXP_TYPE_ENDPOINT << 4, cap + PCI_EXP_FLAGS);
	put_unaligned_le32(PCI_EXP_DEVCAP_RBER | PCI_EXP_DEVCAP_FLR,
			   cap + PCI_EXP_DEVCAP);
	put_unaligned_le16(PCI_EXP_DEVCTL_RELAX_EN | PCI_EXP_DEVCTL_NOSNOOP_EN |
			   PCI_EXP_DEVCTL_READRQ_512B, cap + PCI_EXP_DEVCTL);
	put_unaligned_le32(PCI_EXP_LNKCAP_SLS_2_5GB | PCI_EXP_LNKSTA_NLW_X1,
			   cap + PCI_EXP_LNKCAP);
	put_unaligned_le16(PCI_EXP_LNKSTA_CLS_2_5GB | PCI_EXP_LNKSTA_NLW_X1,
			   cap + PCI_EXP_LNKSTA);
	put_unaligned_le32(PCI_EXP_LNKCAP2_SLS_2_5GB, cap + PCI_EXP_LNKCAP2);
}

static void precopy_config_init_msix(u8 *cap)
{
	put_unaligned_le16(PRECOPY_ENGINE_VECTORS - 1, cap + PCI_MSIX_FLAGS);
	/* Both in BAR0, whose number is in the low bits */
	put_unaligned_le32(PRECOPY_ENGINE_MSIX_TABLE, cap + PCI_MSIX_TABLE);
	put_unaligned_le32(PRECOPY_ENGINE_MSIX_PBA, cap + PCI_MSIX_PBA);
}

static void precopy_config_init_cap(u8 *bytes, u8 cap, u8 id, u8 next)
{
	bytes[cap] = id;
	bytes[cap + PCI_CAP_LIST_NEXT] = next;
}

static void precopy_config_init_caps(u8 *bytes)
{
	put_unaligned_le16(PCI_STATUS_CAP_LIST, bytes + PCI_STATUS);
	bytes[PCI_CAPABILITY_LIST] = PRECOPY_CAP_PM;
	precopy_config_init_cap(bytes, PRECOPY_CAP_PM, PCI_CAP_ID_PM,
				PRECOPY_CAP_EXP);
	precopy_config_init_cap(bytes, PRECOPY_CAP_EXP, PCI_CAP_ID_EXP,
				PRECOPY_CAP_MSIX);
	precopy_config_init_cap(bytes, PRECOPY_CAP_MSIX, PCI_CAP_ID_MSIX, 0);
	/* Version 3 of power management. D3hot and back keeps everything. */
	put_unaligned_le16(3, bytes + PRECOPY_CAP_PM + PCI_PM_PMC);
	put_unaligned_le16(PCI_PM_CTRL_NO_SOFT_RESET,
			   bytes + PRECOPY_CAP_PM + PCI_PM_CTRL);
	precopy_config_init_exp(bytes + PRECOPY_CAP_EXP);
	precopy_config_init_msix(bytes + PRECOPY_CAP_MSIX);
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
	if (pcd->engine)
		precopy_config_init_caps(bytes);
	precopy_config_apply(pcd);
}

/**
 * precopy_config_commit_bar - let BAR2 have the address of the stream that was loaded
 * @pcd: the device
 *
 * An address that the user has written to this device stays.
 *
 * Context: memory.sem held for write.
 */
void precopy_config_commit_bar(struct precopy_device *pcd)
{
	lockdep_assert_held_write(&pcd->memory.sem);
	if (!precopy_config_bar(pcd))
		pcd->config.bar = pcd->config.loaded_bar;
	precopy_config_apply_bar(pcd);
}

/* --- Accesses --------------------------------------------------------- */

/**
 * precopy_config_size - size of the config space
 * @pcd: the device
 *
 * Return: bytes. A PCI Express function has 4 KiB, the second part of which says here
 * that there are no extended capabilities.
 */
u32 precopy_config_size(const struct precopy_device *pcd)
{
	return pcd->engine ? PCI_CFG_SPACE_EXP_SIZE : PCI_CFG_SPACE_SIZE;
}

static size_t precopy_config_len(struct precopy_device *pcd, size_t count,
				 u64 offset)
{
	u32 size = precopy_config_size(pcd);

	if (offset >= size)
		return 0;
	return min3((u64)count, size - offset, (u64)PRECOPY_CONFIG_CHUNK);
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
	u8 bytes[PRECOPY_CONFIG_CHUNK];
	size_t i, len, done = 0;

	for (; (len = precopy_config_len(pcd, count - done, offset)); offset += len) {
		scoped_guard(rwsem_read, &pcd->memory.sem)
			for (i = 0; i < len; i++)
				bytes[i] = precopy_config_get(pcd, offset + i);
		if (copy_to_user(buf + done, bytes, len))
			return -EFAULT;
		done += len;
	}
	return done ?: -EINVAL;
}

/* Does the write begin a function level reset? The bit reads as 0. */
static bool precopy_config_is_flr(const struct precopy_device *pcd,
				  const u8 *bytes, size_t len, u64 offset)
{
	u64 at = PRECOPY_CAP_EXP + PCI_EXP_DEVCTL + 1;

	return pcd->engine && at >= offset && at < offset + len &&
	       bytes[at - offset] & (PCI_EXP_DEVCTL_BCR_FLR >> 8);
}

static void precopy_config_store(struct precopy_device *pcd, const u8 *bytes,
				 size_t len, u64 offset)
{
	size_t i;

	scoped_guard(rwsem_write, &pcd->memory.sem) {
		for (i = 0; i < len; i++)
			precopy_config_set(pcd, offset + i, bytes[i]);
		precopy_config_apply(pcd);
	}
	precopy_memory_settle(&pcd->memory);
}

/**
 * precopy_config_write - write() of the config region
 * @pcd: the device
 * @buf: user buffer to copy from
 * @count: number of bytes to write
 * @offset: offset of the first byte in config space
 * @flr: result: true if the user has begun a function level reset, which is left to
 *	 the caller
 *
 * Writes to read-only registers succeed and have no effect, as on a PCI bus. The
 * function works in every migration state, because VMMs restore config space in
 * RESUMING.
 *
 * Return: number of bytes written, -EINVAL if @offset is past the end, or -EFAULT.
 */
ssize_t precopy_config_write(struct precopy_device *pcd,
			     const char __user *buf, size_t count, u64 offset,
			     bool *flr)
{
	u8 bytes[PRECOPY_CONFIG_CHUNK];
	size_t len, done = 0;

	for (; (len = precopy_config_len(pcd, count - done, offset)); offset += len) {
		if (copy_from_user(bytes, buf + done, len))
			return -EFAULT;
		precopy_config_store(pcd, bytes, len, offset);
		*flr |= precopy_config_is_flr(pcd, bytes, len, offset);
		done += len;
	}
	return done ?: -EINVAL;
}
