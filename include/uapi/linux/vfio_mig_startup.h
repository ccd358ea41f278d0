/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * VFIO_MIG_GET_STARTUP_INFO, an ioctl that is proposed for <linux/vfio.h>. This header
 * defines it until that one does, and defines nothing after that.
 */
#ifndef _UAPI_LINUX_VFIO_MIG_STARTUP_H
#define _UAPI_LINUX_VFIO_MIG_STARTUP_H

#include <linux/vfio.h>

#ifndef VFIO_MIG_GET_STARTUP_INFO

/**
 * enum vfio_mig_startup_phase - phases of the startup of a migration target
 * @VFIO_MIG_STARTUP_NONE: the device has nothing to start before STOP_COPY data
 *	arrives
 * @VFIO_MIG_STARTUP_WAITING: the startup has not begun: the target has not received
 *	the data that begins it; on the saving fd: this data has not been read
 * @VFIO_MIG_STARTUP_STARTING: the startup has begun and is not complete
 * @VFIO_MIG_STARTUP_READY: the startup is complete; on the saving fd: the estimated
 *	time has passed, which does not prove that the target is ready
 * @VFIO_MIG_STARTUP_FAILED: the startup or the load has failed; never reported on
 *	the saving fd
 */
enum vfio_mig_startup_phase {
	VFIO_MIG_STARTUP_NONE = 0,
	VFIO_MIG_STARTUP_WAITING = 1,
	VFIO_MIG_STARTUP_STARTING = 2,
	VFIO_MIG_STARTUP_READY = 3,
	VFIO_MIG_STARTUP_FAILED = 4,
};

/* Flag: the fd is a resuming fd, and the values are those of this device */
#define VFIO_MIG_STARTUP_TARGET		(1 << 0)
/* Flag: @initial_bytes is valid */
#define VFIO_MIG_STARTUP_INITIAL_BYTES	(1 << 1)
/* Flag: @remaining_ns is valid */
#define VFIO_MIG_STARTUP_TIME		(1 << 2)
/* Flag: @remaining_ns is based on measurements, not on an assumed speed */
#define VFIO_MIG_STARTUP_MEASURED	(1 << 3)

/**
 * struct vfio_mig_startup_info - progress of the startup of a migration target
 * @argsz: size of this structure in bytes; set by the caller, not changed by the
 *	kernel
 * @flags: output: VFIO_MIG_STARTUP_TARGET, _INITIAL_BYTES, _TIME, _MEASURED
 * @phase: output: a value of enum vfio_mig_startup_phase
 * @error: output: errno (positive) of the failure with VFIO_MIG_STARTUP_FAILED,
 *	otherwise 0
 * @initial_bytes: output: with VFIO_MIG_STARTUP_INITIAL_BYTES the number of bytes of
 *	initial data that are still to be transferred, otherwise 0
 * @remaining_ns: output: with VFIO_MIG_STARTUP_TIME the estimated time in nanoseconds
 *	until the startup is complete, counted from now, or from its beginning while it
 *	waits; otherwise 0
 */
struct vfio_mig_startup_info {
	__u32 argsz;
	__u32 flags;
	__u32 phase;
	__u32 error;
	__aligned_u64 initial_bytes;
	__aligned_u64 remaining_ns;
};

/**
 * VFIO_MIG_GET_STARTUP_INFO - _IO(VFIO_TYPE, VFIO_BASE + 22)
 *
 * Fills in struct vfio_mig_startup_info. The ioctl works on the saving and on the
 * resuming migration data fd. It changes no state and never waits. @argsz is the only
 * input, so the same structure can be passed again.
 *
 * Return: 0, or -1 and errno: ENOTTY if the driver has no such ioctl, EINVAL if @argsz
 * is too small, EFAULT if the structure cannot be read or written, ENODEV after the
 * session has ended.
 */
#define VFIO_MIG_GET_STARTUP_INFO	_IO(VFIO_TYPE, VFIO_BASE + 22)

#endif /* VFIO_MIG_GET_STARTUP_INFO */

#endif /* _UAPI_LINUX_VFIO_MIG_STARTUP_H */
