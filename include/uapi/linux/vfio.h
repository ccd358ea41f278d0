/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * User-space wrapper of the installed <linux/vfio.h>.
 *
 * Distributions ship headers that are years older than the kernel that a test or a
 * tool runs on. This file includes the installed header and defines the parts of
 * the migration interface that the header lacks. Each definition is skipped if the
 * installed header has it.
 *
 * The file is for user space only and must not be on the include path of kernel
 * objects.
 */
#ifndef _PRECOPY_SHIM_LINUX_VFIO_H
#define _PRECOPY_SHIM_LINUX_VFIO_H

#ifdef __KERNEL__
#error "this header is for user space"
#endif

#include_next <linux/vfio.h>

/* Linux 6.17: VF token in VFIO_DEVICE_BIND_IOMMUFD */
#ifndef VFIO_DEVICE_BIND_FLAG_TOKEN
#define VFIO_DEVICE_BIND_FLAG_TOKEN		(1 << 0)
#endif

#ifndef VFIO_MIGRATION_P2P
#define VFIO_MIGRATION_P2P			(1 << 1)
#endif

/* Linux 6.2: pre-copy states, and the amount of pre-copy data that is left */
#ifndef VFIO_MIGRATION_PRE_COPY
#define VFIO_MIGRATION_PRE_COPY			(1 << 2)
#endif

/*
 * The preprocessor cannot test for enumerators. The ioctl was added by the same
 * change as the two states, so its absence shows that they are missing. They are
 * macros here because enumerators cannot be added to the enum of the installed
 * header.
 */
#ifndef VFIO_MIG_GET_PRECOPY_INFO
#define VFIO_DEVICE_STATE_PRE_COPY		6
#define VFIO_DEVICE_STATE_PRE_COPY_P2P		7
#define VFIO_DEVICE_STATE_NR			8

struct vfio_precopy_info {
	__u32 argsz;
	__u32 flags;
	__aligned_u64 initial_bytes;
	__aligned_u64 dirty_bytes;
};

#define VFIO_MIG_GET_PRECOPY_INFO		_IO(VFIO_TYPE, VFIO_BASE + 21)
#endif

/* Output flag, valid once VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2 is set */
#ifndef VFIO_PRECOPY_INFO_REINIT
#define VFIO_PRECOPY_INFO_REINIT		(1 << 0)
#endif

/* Linux 6.6: opening a device through its own node and an iommufd */
#ifndef VFIO_DEVICE_BIND_IOMMUFD
struct vfio_device_bind_iommufd {
	__u32 argsz;
	__u32 flags;
	__s32 iommufd;
	__u32 out_devid;
};

#define VFIO_DEVICE_BIND_IOMMUFD		_IO(VFIO_TYPE, VFIO_BASE + 18)
#endif

/* Linux 6.1: log of the pages that a device has written by DMA */
#ifndef VFIO_DEVICE_FEATURE_DMA_LOGGING_START
struct vfio_device_feature_dma_logging_control {
	__aligned_u64 page_size;
	__u32 num_ranges;
	__u32 __reserved;
	__aligned_u64 ranges;
};

struct vfio_device_feature_dma_logging_range {
	__aligned_u64 iova;
	__aligned_u64 length;
};

#define VFIO_DEVICE_FEATURE_DMA_LOGGING_START	6
#endif

#ifndef VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP
#define VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP	7
#endif

#ifndef VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT
struct vfio_device_feature_dma_logging_report {
	__aligned_u64 iova;
	__aligned_u64 length;
	__aligned_u64 page_size;
	__aligned_u64 bitmap;
};

#define VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT	8
#endif

/* Linux 6.2: number of bytes that STOP_COPY would transfer */
#ifndef VFIO_DEVICE_FEATURE_MIG_DATA_SIZE
struct vfio_device_feature_mig_data_size {
	__aligned_u64 stop_copy_length;
};

#define VFIO_DEVICE_FEATURE_MIG_DATA_SIZE	9
#endif

#ifndef VFIO_DEVICE_FEATURE_DMA_BUF
#define VFIO_DEVICE_FEATURE_DMA_BUF		11
#endif

#ifndef VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2
#define VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2	12
#endif

#endif /* _PRECOPY_SHIM_LINUX_VFIO_H */
