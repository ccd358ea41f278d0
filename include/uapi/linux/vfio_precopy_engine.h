/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * Registers in BAR0 of a precopy-vfio-pci device whose model is "engine": a DMA
 * engine with MSI-X, for the device's driver in a guest.
 *
 * Registers have 4 or 8 bytes and are little endian. They are accessed 4 or 8 bytes
 * at a time, aligned; a register of 8 bytes may be accessed as two halves. Reserved
 * bytes read as 0. A write to a read-only register, to a reserved byte, or to a
 * register that is locked has no effect.
 *
 * The engine executes three queues, one step of at most a page at a time and in turns:
 * a single command in registers, a ring of descriptors in memory, and the commands of
 * pci-epf-test. It starts no step while COMMAND's bus master bit is 0 or the function is not in D0.
 */
#ifndef _UAPI_LINUX_VFIO_PRECOPY_ENGINE_H
#define _UAPI_LINUX_VFIO_PRECOPY_ENGINE_H

#include <linux/types.h>

/* Size of BAR0, and where the MSI-X table and its pending bits are, bytes */
#define PRECOPY_ENGINE_BAR_SIZE		0x10000
#define PRECOPY_ENGINE_MSIX_TABLE	0x8000
#define PRECOPY_ENGINE_MSIX_PBA		0xc000
#define PRECOPY_ENGINE_VECTORS		8

/* Value of a vector register or field that raises no interrupt */
#define PRECOPY_ENGINE_NO_VECTOR	0xffffffff

/*
 * --- The registers of pci-epf-test -------------------------------------
 *
 * They have the layout and the meaning of those of Linux's endpoint function
 * pci-epf-test, so that Linux's driver for it, pci_endpoint_test, can drive this
 * device. All are locked while a command is executed, but for MAGIC; all are 0 after
 * a reset, but for CAPS.
 */

/* Any number; has no meaning; 4 bytes */
#define PRECOPY_EPF_MAGIC		0x0000

/*
 * Doorbell: starts the command, one bit of these, and sets STATUS to 0; reads as the
 * command until it has ended, then as 0; 4 bytes. Another number, or an IRQ_TYPE that
 * is none, starts nothing.
 */
#define PRECOPY_EPF_COMMAND		0x0004
/* Raises an interrupt, of the type in IRQ_TYPE whichever of the three it is */
#define PRECOPY_EPF_COMMAND_RAISE_INTX	(1 << 0)
#define PRECOPY_EPF_COMMAND_RAISE_MSI	(1 << 1)
#define PRECOPY_EPF_COMMAND_RAISE_MSIX	(1 << 2)
/* Reads SIZE bytes at SRC; fails if their CRC-32 is not CHECKSUM */
#define PRECOPY_EPF_COMMAND_READ	(1 << 3)
/* Writes SIZE random bytes to DST, and then sets CHECKSUM to their CRC-32 */
#define PRECOPY_EPF_COMMAND_WRITE	(1 << 4)
/* Copies SIZE bytes from SRC to DST */
#define PRECOPY_EPF_COMMAND_COPY	(1 << 5)
/* These four always fail: CAPS does not offer them */
#define PRECOPY_EPF_COMMAND_DOORBELL_ON		(1 << 6)
#define PRECOPY_EPF_COMMAND_DOORBELL_OFF	(1 << 7)
#define PRECOPY_EPF_COMMAND_SUBRANGE_SETUP	(1 << 8)
#define PRECOPY_EPF_COMMAND_SUBRANGE_CLEAR	(1 << 9)

/* Result of the last command, bits of PRECOPY_EPF_STATUS_*; 4 bytes */
#define PRECOPY_EPF_STATUS		0x0008
#define PRECOPY_EPF_STATUS_READ_SUCCESS		(1 << 0)
#define PRECOPY_EPF_STATUS_READ_FAIL		(1 << 1)
#define PRECOPY_EPF_STATUS_WRITE_SUCCESS	(1 << 2)
#define PRECOPY_EPF_STATUS_WRITE_FAIL		(1 << 3)
#define PRECOPY_EPF_STATUS_COPY_SUCCESS		(1 << 4)
#define PRECOPY_EPF_STATUS_COPY_FAIL		(1 << 5)
/* An interrupt was raised. Not set if IRQ_TYPE and IRQ_NUMBER name none. */
#define PRECOPY_EPF_STATUS_IRQ_RAISED		(1 << 6)
/* With a FAIL: SRC, or DST, cannot be accessed */
#define PRECOPY_EPF_STATUS_SRC_INVALID		(1 << 7)
#define PRECOPY_EPF_STATUS_DST_INVALID		(1 << 8)
#define PRECOPY_EPF_STATUS_DOORBELL_ON_FAIL	(1 << 11)
#define PRECOPY_EPF_STATUS_DOORBELL_OFF_FAIL	(1 << 13)
#define PRECOPY_EPF_STATUS_SUBRANGE_SETUP_FAIL	(1 << 15)
#define PRECOPY_EPF_STATUS_SUBRANGE_CLEAR_FAIL	(1 << 17)

/* Addresses in memory; 8 bytes each, at a multiple of 4 */
#define PRECOPY_EPF_SRC			0x000c
#define PRECOPY_EPF_DST			0x0014

/* Number of bytes; 4 bytes */
#define PRECOPY_EPF_SIZE		0x001c

/*
 * CRC-32 of the data: polynomial 0xedb88320, least significant bit first, of initial
 * value ~0 and without inversion at the end; 4 bytes
 */
#define PRECOPY_EPF_CHECKSUM		0x0020

/*
 * The interrupt at the end of a command; 4 bytes each. There is one only for MSIX, with
 * a number from 1 to PRECOPY_ENGINE_VECTORS, which raises the vector before it.
 */
#define PRECOPY_EPF_IRQ_TYPE		0x0024
#define PRECOPY_EPF_IRQ_INTX		0
#define PRECOPY_EPF_IRQ_MSI		1
#define PRECOPY_EPF_IRQ_MSIX		2
#define PRECOPY_EPF_IRQ_NUMBER		0x0028

/* Bit 0 asks for DMA, which is used anyway; has no effect; 4 bytes */
#define PRECOPY_EPF_FLAGS		0x002c

/* Capabilities: addresses of any alignment, and MSI-X; read-only; 4 bytes */
#define PRECOPY_EPF_CAPS		0x0030
#define PRECOPY_EPF_CAPS_UNALIGNED	(1 << 0)
#define PRECOPY_EPF_CAPS_MSIX		(1 << 2)

/* --- Control; 4 bytes each -------------------------------------------- */

/* Always PRECOPY_ENGINE_MAGIC; read-only */
#define PRECOPY_ENGINE_ID		0x1000
#define PRECOPY_ENGINE_MAGIC		0x45504350

/* Version of this interface, 1; read-only */
#define PRECOPY_ENGINE_VERSION		0x1004

/* Operations that the engine knows, a bit each: 1 << PRECOPY_ENGINE_OP_*; read-only */
#define PRECOPY_ENGINE_CAPS		0x1008

/* Control bits */
#define PRECOPY_ENGINE_CTRL		0x100c
#define PRECOPY_ENGINE_CTRL_RING	(1 << 0)	/* The ring is enabled, see below */
/*
 * Writing 1 sets all of BAR2 to zero, before the write is complete; reads as 0. What the
 * queues are executing is not stopped, and may store before or after.
 */
#define PRECOPY_ENGINE_CTRL_CLEAR	(1 << 1)

/* Queues that have work left; read-only */
#define PRECOPY_ENGINE_STATUS		0x1010
#define PRECOPY_ENGINE_STATUS_COMMAND	(1 << 0)	/* The command has not ended */
#define PRECOPY_ENGINE_STATUS_RING	(1 << 1)	/* HEAD is not TAIL */

/* Writing a number raises this vector; reads as 0 */
#define PRECOPY_ENGINE_IRQ_RAISE	0x1014

/*
 * --- The ring; BASE and SIZE are locked while it is enabled ------------
 *
 * When it is disabled, it stays enabled until its present step has ended, and
 * nothing is stored for it any more.
 */

/* Address of the first descriptor, a multiple of the size of one; 8 bytes */
#define PRECOPY_ENGINE_RING_BASE	0x1040

/* Number of descriptors, a power of two up to PRECOPY_ENGINE_MAX_RING; 4 bytes */
#define PRECOPY_ENGINE_RING_SIZE	0x1048
#define PRECOPY_ENGINE_MAX_RING		65536

/* Number of the descriptor to be executed next; read-only; 0 when enabled; 4 bytes */
#define PRECOPY_ENGINE_RING_HEAD	0x104c

/* Doorbell: number of the first descriptor not to be executed yet; 4 bytes */
#define PRECOPY_ENGINE_RING_TAIL	0x1050

/* Vector that PRECOPY_ENGINE_FLAG_IRQ raises; 4 bytes */
#define PRECOPY_ENGINE_RING_VECTOR	0x1054

/* Least time from the start of one command or descriptor to the next, us; 4 bytes */
#define PRECOPY_ENGINE_INTERVAL_US	0x1058

/*
 * errno of what disabled the ring, or 0; read-only; 4 bytes. EINVAL: BASE, SIZE or
 * TAIL was impossible. Others: a descriptor could not be read, or its status not be
 * written.
 */
#define PRECOPY_ENGINE_RING_ERROR	0x105c

/* --- The command; locked while it is executed, but for START ----------- */

/* As in a descriptor; 8 bytes each */
#define PRECOPY_ENGINE_CMD_SRC		0x1080
#define PRECOPY_ENGINE_CMD_DST		0x1088
#define PRECOPY_ENGINE_CMD_LEN		0x1090

/* Number of times to execute the command; 0: until it is stopped; 8 bytes */
#define PRECOPY_ENGINE_CMD_COUNT	0x1098

/* As in a descriptor. Grows by 1 each time the command was executed; 8 bytes */
#define PRECOPY_ENGINE_CMD_SEQ		0x10a0

/* As in a descriptor; 4 bytes each */
#define PRECOPY_ENGINE_CMD_OP		0x10a8
#define PRECOPY_ENGINE_CMD_FLAGS	0x10ac

/* Vector to raise when the command has ended, whatever its flags; 4 bytes */
#define PRECOPY_ENGINE_CMD_VECTOR	0x10b0

/*
 * Doorbell: 1 starts the command, 0 ends it after its present step; 4 bytes. Reads as
 * 1 until the command has ended, and nothing is stored for it any more.
 */
#define PRECOPY_ENGINE_CMD_START	0x10b4

/* errno of the last command, ECANCELED if it was stopped, or 0; read-only; 4 bytes */
#define PRECOPY_ENGINE_CMD_ERROR	0x10b8

/* Number of times that the command was executed; read-only; 8 bytes */
#define PRECOPY_ENGINE_CMD_DONE		0x10c0

/*
 * Bytes stored by COPY, FILL and STAMP, and by WRITE and COPY of pci-epf-test, since the
 * last reset; read-only; 8 bytes
 */
#define PRECOPY_ENGINE_BYTES		0x10c8

/* --- Descriptors ------------------------------------------------------ */

/* Copies len bytes from src to dst */
#define PRECOPY_ENGINE_OP_COPY		1
/* Fills len bytes at dst with the 8 bytes of src; dst and len are multiples of 8 */
#define PRECOPY_ENGINE_OP_FILL		2
/*
 * Fills len bytes at dst, whole pages of 4 KiB, with pairs of 8 bytes: seq, and the
 * number of the page, counted from dst
 */
#define PRECOPY_ENGINE_OP_STAMP		3
/*
 * Stores the 8 bytes of seq at dst, a multiple of 8. All earlier descriptors of the
 * ring have been executed, and their stores are visible.
 */
#define PRECOPY_ENGINE_OP_FENCE		4
/* Raises the vector whose number is src */
#define PRECOPY_ENGINE_OP_IRQ		5

/* src, or dst, is an offset in BAR2 instead of an address in memory */
#define PRECOPY_ENGINE_FLAG_SRC_BAR	(1 << 0)
#define PRECOPY_ENGINE_FLAG_DST_BAR	(1 << 1)
/* Raise the ring's vector when this descriptor has been executed */
#define PRECOPY_ENGINE_FLAG_IRQ		(1 << 2)

/* Largest len, bytes */
#define PRECOPY_ENGINE_MAX_LEN		(1ULL << 32)

/**
 * struct precopy_engine_desc - descriptor of the ring
 * @op: PRECOPY_ENGINE_OP_*
 * @flags: PRECOPY_ENGINE_FLAG_*
 * @src: source; depends on @op
 * @dst: destination; depends on @op
 * @len: number of bytes; 0 for operations that have none
 * @seq: a number of the driver's choice; depends on @op
 * @reserved: 0
 * @status: written by the engine: PRECOPY_ENGINE_DONE, and the errno in the low bits
 */
struct precopy_engine_desc {
	__le32	op;
	__le32	flags;
	__le64	src;
	__le64	dst;
	__le64	len;
	__le64	seq;
	__le32	reserved[5];
	__le32	status;
};

#define PRECOPY_ENGINE_DONE		(1U << 31)

#endif /* _UAPI_LINUX_VFIO_PRECOPY_ENGINE_H */
