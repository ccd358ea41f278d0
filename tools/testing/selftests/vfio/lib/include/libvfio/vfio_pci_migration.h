/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Helpers for the VFIO migration interface (VFIO_DEVICE_FEATURE_MIG_*, the
 * data file descriptors and DMA logging). They belong to no particular driver.
 *
 * Everything here returns 0 or a negative errno instead of asserting, because
 * most tests want to see a failure, not to die of it.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_VFIO_PCI_MIGRATION_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_VFIO_PCI_MIGRATION_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

#include <linux/types.h>
#include <linux/vfio.h>

struct vfio_pci_device;

/* VFIO_DEVICE_FEATURE with @size bytes at @data going in and coming out. */
int vfio_feature(int fd, u32 flags, void *data, size_t size);

static inline int vfio_feature_get(int fd, u16 feature, void *data, size_t size)
{
	return vfio_feature(fd, VFIO_DEVICE_FEATURE_GET | feature, data, size);
}

static inline int vfio_feature_set(int fd, u16 feature, void *data, size_t size)
{
	return vfio_feature(fd, VFIO_DEVICE_FEATURE_SET | feature, data, size);
}

/* @ops: VFIO_DEVICE_FEATURE_GET and/or _SET, or 0 to ask for existence only */
static inline int vfio_feature_probe(int fd, u16 feature, u32 ops)
{
	return vfio_feature(fd, VFIO_DEVICE_FEATURE_PROBE | ops | feature,
			    NULL, 0);
}

int mig_flags(struct vfio_pci_device *device, u64 *flags);

/* Returns the state (never negative) or a negative errno. */
int mig_get_state(struct vfio_pci_device *device);

/*
 * @data_fd, which may be NULL, gets what the kernel wrote there, which is -1
 * unless a data transfer session has begun. When it is NULL an fd that comes
 * back all the same is closed.
 */
int mig_set_state(struct vfio_pci_device *device, u32 state, int *data_fd);

const char *mig_state_name(u32 state);

int mig_precopy_info(int data_fd, struct vfio_precopy_info *info);
int mig_precopy_v2_enable(struct vfio_pci_device *device);
bool mig_kernel_has_info_v2(struct vfio_pci_device *device);
int mig_data_size(struct vfio_pci_device *device, u64 *size);

/* A migration stream in memory, growing as it is read. */
struct mig_stream {
	u8 *data;
	size_t len;
	size_t cap;
};

void mig_stream_free(struct mig_stream *stream);
void mig_stream_append(struct mig_stream *stream, const void *data, size_t len);
void mig_stream_copy(struct mig_stream *to, const struct mig_stream *from);

/* One read() of at most @max bytes. Returns its result or a negative errno. */
ssize_t mig_stream_read(struct mig_stream *stream, int data_fd, size_t max);

/*
 * Reads in pieces of @chunk bytes until the stream pauses or ends. Returns 0
 * at the end of the stream, -ENOMSG at the temporary end of a pre-copy phase,
 * or another negative errno.
 */
int mig_stream_drain(struct mig_stream *stream, int data_fd, size_t chunk);

/*
 * Writes in pieces of @chunk bytes. Returns 0, or the negative errno of the
 * write that failed; @done, if not NULL, says how many bytes were accepted.
 */
int mig_write_all(int data_fd, const void *data, size_t len, size_t chunk,
		  size_t *done);

/* RUNNING to STOP_COPY, reading everything into @stream, which must be empty. */
int mig_save(struct vfio_pci_device *device, struct mig_stream *stream);

/* To RESUMING, the whole stream, to STOP. */
int mig_load(struct vfio_pci_device *device, const struct mig_stream *stream,
	     size_t chunk);

/* False where the driver has no DMA log, or the kernel could not report one */
bool dma_log_offered(int fd);
int dma_log_start(struct vfio_pci_device *device, u64 *page_size,
		  const struct vfio_device_feature_dma_logging_range *ranges,
		  u32 nr_ranges);
int dma_log_stop(struct vfio_pci_device *device);
int dma_log_report(struct vfio_pci_device *device, u64 iova, u64 length,
		   u64 page_size, void *bitmap);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_VFIO_PCI_MIGRATION_H */
