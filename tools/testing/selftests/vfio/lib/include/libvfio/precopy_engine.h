/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A precopy-vfio-pci device whose model is "engine", and memory of this process
 * that it reaches by DMA: what a guest's driver and a VMM do with it.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_ENGINE_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_ENGINE_H

#include <linux/vfio_precopy_engine.h>

#include <libvfio/precopy_device.h>

/* Where the memory is for the device, and where nothing is */
#define ENGINE_IOVA	0x10000000UL
#define ENGINE_NOWHERE	0x70000000UL
/* Where the capabilities are in config space */
#define ENGINE_CAP_PM	0x40
#define ENGINE_CAP_EXP	0x50
#define ENGINE_CAP_MSIX	0x90

struct engine {
	struct precopy_dev pd;
	u64 registers;		/* of BAR0 in the device fd */
	u8 *ram;		/* memory at ENGINE_IOVA */
	size_t ram_size;
	struct dma_region region;
	int irq[PRECOPY_ENGINE_VECTORS];	/* eventfds, or -1 */
};

/* Bus master, with @ram_size bytes of zeroes mapped; no eventfds. */
void engine_open(struct engine *e, const char *bdf, const char *mode,
		 size_t memory_size, size_t ram_size);
/* The same with memory of the caller, which engine_close() unmaps. */
void engine_open_ram(struct engine *e, const char *bdf, const char *mode,
		     size_t memory_size, void *ram, size_t ram_size);
/*
 * The same, but bound to an iommufd with one I/O address space, in which the memory is
 * mapped, and attached to nothing. The result is the device's id in it. BAR2 is not
 * mapped.
 */
u32 engine_open_bound(struct engine *e, const char *bdf, size_t memory_size,
		      size_t ram_size);
void engine_close(struct engine *e);

/* What a driver does when the device was reset: COMMAND is as it was. */
void engine_set_master(struct engine *e, bool master);

u32 engine_read32(struct engine *e, u64 reg);
u64 engine_read64(struct engine *e, u64 reg);
void engine_write32(struct engine *e, u64 reg, u32 value);
void engine_write64(struct engine *e, u64 reg, u64 value);

/* An eventfd for each vector. */
void engine_irqs_enable(struct engine *e);
/* Interrupts that have arrived since the last call. */
u64 engine_irqs(struct engine *e, u32 vector);
/* The same, but waits for the first one; 0 after a time. */
u64 engine_irqs_wait(struct engine *e, u32 vector);

/* DMA logging of @length bytes, by the page: 0 or a negative errno */
int engine_log_start(struct engine *e, u64 iova, u64 length);

/* Start and stop a log of all the memory; do nothing if the device offers none. */
int engine_dirty_start(struct engine *e);
int engine_dirty_stop(struct engine *e);
/*
 * Copy the pages that the log names to @to's memory. Without a log copy all pages, as a VMM
 * does whom type1 tells that all are dirty. The number of pages, or a negative errno.
 */
long engine_dirty_send(struct engine *e, struct engine *to);

struct engine_command {
	u32 op;
	u32 flags;
	u64 src;
	u64 dst;
	u64 len;
	u64 seq;
	u64 count;
	u32 vector;
};

/* The vector is PRECOPY_ENGINE_NO_VECTOR if @command has 0. */
void engine_start(struct engine *e, const struct engine_command *command);
/* Until the command has ended: 0 or a negative errno. */
int engine_wait(struct engine *e);
int engine_run(struct engine *e, const struct engine_command *command);
int engine_copy(struct engine *e, u64 src, u64 dst, u64 len);

/*
 * Until @reg, of 8 bytes, is at least @value; false if nothing was stored for a time.
 */
bool engine_wait_for(struct engine *e, u64 reg, u64 value);

/* The ring: @size descriptors at @offset of the memory, all zero, and enabled. */
struct precopy_engine_desc *engine_ring(struct engine *e, u64 offset, u32 size);
/* Until HEAD is @head; false after a time, or if the ring was disabled. */
bool engine_wait_head(struct engine *e, u32 head);

/* A command of pci-epf-test, and what it is given */
struct engine_epf {
	u32 command;
	u64 src;
	u64 dst;
	u32 size;
	u32 checksum;
	u32 irq_type;
	u32 irq_number;
	u32 flags;
};

void engine_epf_start(struct engine *e, const struct engine_epf *epf);
/* Until the command has ended: STATUS. */
u32 engine_epf_wait(struct engine *e);
u32 engine_epf_run(struct engine *e, const struct engine_epf *epf);
/* As CHECKSUM wants it. */
u32 engine_crc32(const void *data, size_t len);

/* Is the page at @page as STAMP of @seq makes it, as page @nr of its range? */
bool engine_stamped(const void *page, u64 seq, u64 nr);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_ENGINE_H */
