/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * Interface of the driver precopy-vfio-pci in addition to <linux/vfio.h>: an ioctl
 * on migration data fds that reports the progress of a target's startup and an
 * estimate of the remaining time.
 *
 * A startup is the work that a target does before it can run, such as allocating
 * memory. It begins when the target receives the preface, the first record of the
 * migration stream, which lists the memory that the source uses.
 */
#ifndef _UAPI_LINUX_VFIO_PRECOPY_H
#define _UAPI_LINUX_VFIO_PRECOPY_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define VFIO_PRECOPY_TYPE	0xBC

/**
 * enum vfio_precopy_phase - phases of the startup of a target
 * @VFIO_PRECOPY_PHASE_NONE: no startup. Never reported at present: after the end
 *	of the session, also after a successful load, the ioctl returns ENODEV
 * @VFIO_PRECOPY_PHASE_WAITING: the preface has not arrived at the target; on the
 *	saving fd: the preface has not been read completely
 * @VFIO_PRECOPY_PHASE_STARTING: the target prepares the memory listed in the
 *	preface; on the saving fd: the preface has been read, and the estimated
 *	duration of the startup has not passed since
 * @VFIO_PRECOPY_PHASE_READY: the target has completed its startup; on the saving
 *	fd: the estimated duration has passed, which does not prove that the
 *	target is ready
 * @VFIO_PRECOPY_PHASE_FAILED: the startup or the load has failed; never reported
 *	on the saving fd
 */
enum vfio_precopy_phase {
	VFIO_PRECOPY_PHASE_NONE = 0,
	VFIO_PRECOPY_PHASE_WAITING = 1,
	VFIO_PRECOPY_PHASE_STARTING = 2,
	VFIO_PRECOPY_PHASE_READY = 3,
	VFIO_PRECOPY_PHASE_FAILED = 4,
};

/**
 * VFIO_PRECOPY_STARTUP_TARGET - flag: the fd is the resuming fd of a target
 *
 * Phase and progress are those of this device. Without the flag the fd is a saving
 * fd, and they are estimates.
 */
#define VFIO_PRECOPY_STARTUP_TARGET	(1 << 0)

/**
 * VFIO_PRECOPY_STARTUP_MEASURED - flag: @remaining_ns is based on measurements
 *
 * The value is computed from the progress of this startup, or from earlier startups
 * of the same device since it was opened. Without the flag it is based on an
 * assumed speed.
 */
#define VFIO_PRECOPY_STARTUP_MEASURED	(1 << 1)

/**
 * VFIO_PRECOPY_REMAINING_UNKNOWN - value of @remaining_ns if no time is known
 *
 * A target cannot estimate its startup before the preface has arrived, and a failed
 * startup will never be complete.
 */
#define VFIO_PRECOPY_REMAINING_UNKNOWN	(~0ULL)

/**
 * struct vfio_precopy_startup - progress of the startup of a target
 * @argsz: size of this structure in bytes; set by the caller, not changed by the
 *	kernel. The kernel writes no bytes beyond the fields that it knows. A field
 *	that is added later will have a flag that says that it was filled in.
 * @flags: output only: VFIO_PRECOPY_STARTUP_TARGET and
 *	VFIO_PRECOPY_STARTUP_MEASURED, which describe the origin of the other fields
 * @phase: output: a value of enum vfio_precopy_phase
 * @error: output: errno (positive) of the failure with
 *	VFIO_PRECOPY_PHASE_FAILED, otherwise 0
 * @bytes_in_use: output: size in bytes of the memory that the startup has to
 *	prepare; 0 on the resuming fd until the preface has arrived. It includes
 *	only units of 2 MiB of which all pages are in use at the source. Memory of
 *	other units is allocated when its data arrives
 * @bytes_prepared: output: size in bytes of the memory that is prepared; on the
 *	saving fd an estimate from the elapsed time. A target prepares whole units,
 *	so the final value may be less than @bytes_in_use
 * @remaining_ns: output: estimated time in nanoseconds until the startup is
 *	complete, which is advice only; VFIO_PRECOPY_REMAINING_UNKNOWN on the
 *	resuming fd until the preface has arrived, and with
 *	VFIO_PRECOPY_PHASE_FAILED
 * @elapsed_ns: output: time in nanoseconds since the preface arrived (resuming fd)
 *	or was read (saving fd); 0 before; after the startup is complete, its total
 *	duration
 */
struct vfio_precopy_startup {
	__u32 argsz;
	__u32 flags;
	__u32 phase;
	__u32 error;
	__aligned_u64 bytes_in_use;
	__aligned_u64 bytes_prepared;
	__aligned_u64 remaining_ns;
	__aligned_u64 elapsed_ns;
};

/**
 * PRECOPY_GET_STARTUP - _IO(VFIO_PRECOPY_TYPE, 0)
 *
 * Fills in struct vfio_precopy_startup. The ioctl works on the saving and on the
 * resuming migration data fd. It changes no state and never waits. @argsz is the
 * only input, so the same structure can be passed again.
 *
 * In addition, poll() on the resuming fd reports EPOLLPRI when the startup is
 * complete or has failed.
 *
 * Return: 0, or -1 and errno: EINVAL if @argsz is too small, EFAULT if the structure
 * cannot be read or written, ENODEV after the session has ended.
 */
#define PRECOPY_GET_STARTUP	_IO(VFIO_PRECOPY_TYPE, 0)

#endif /* _UAPI_LINUX_VFIO_PRECOPY_H */
