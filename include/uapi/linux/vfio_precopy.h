/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * What precopy-vfio-pci offers beyond <linux/vfio.h>: how far a target's startup
 * is, and how long it will take, asked at the source or at the target.
 */
#ifndef _UAPI_LINUX_VFIO_PRECOPY_H
#define _UAPI_LINUX_VFIO_PRECOPY_H

#include <linux/ioctl.h>
#include <linux/types.h>

#define VFIO_PRECOPY_TYPE	0xBC

/**
 * enum vfio_precopy_phase - how far the startup of a target is
 * @VFIO_PRECOPY_PHASE_NONE: there is nothing to start. Not reported so far: an fd
 *	whose session has ended, after the load too, gives ENODEV
 * @VFIO_PRECOPY_PHASE_WAITING: the target waits for the preface; on the saving
 *	fd, the preface was not read yet
 * @VFIO_PRECOPY_PHASE_STARTING: the target prepares what the preface asks for; on
 *	the saving fd, the preface was read, and the time that a startup is
 *	expected to take has not passed
 * @VFIO_PRECOPY_PHASE_READY: the target has started; on the saving fd, the
 *	time has passed, which is no proof
 * @VFIO_PRECOPY_PHASE_FAILED: the target has given up; never on the saving fd
 */
enum vfio_precopy_phase {
	VFIO_PRECOPY_PHASE_NONE = 0,
	VFIO_PRECOPY_PHASE_WAITING = 1,
	VFIO_PRECOPY_PHASE_STARTING = 2,
	VFIO_PRECOPY_PHASE_READY = 3,
	VFIO_PRECOPY_PHASE_FAILED = 4,
};

/**
 * VFIO_PRECOPY_STARTUP_TARGET - flag: the fd is the target's
 *
 * Phase and progress are those of this device, not estimates of another's.
 */
#define VFIO_PRECOPY_STARTUP_TARGET	(1 << 0)

/**
 * VFIO_PRECOPY_STARTUP_MEASURED - flag: the time left was not assumed
 *
 * It follows from the progress of this startup, or from earlier startups of the
 * same device since it was opened.
 */
#define VFIO_PRECOPY_STARTUP_MEASURED	(1 << 1)

/**
 * VFIO_PRECOPY_REMAINING_UNKNOWN - value of remaining_ns that is no time
 *
 * The target knows nothing of its startup before the preface, and a startup that
 * has failed will not be complete.
 */
#define VFIO_PRECOPY_REMAINING_UNKNOWN	(~0ULL)

/**
 * struct vfio_precopy_startup - the startup of a target
 * @argsz: size of this structure, bytes; set by the caller and not changed. Bytes
 *	beyond the fields that the kernel knows are not written: a field that is
 *	added later has a flag that says it is filled in.
 * @flags: output only: VFIO_PRECOPY_STARTUP_TARGET and
 *	VFIO_PRECOPY_STARTUP_MEASURED say what the other fields are worth
 * @phase: enum vfio_precopy_phase
 * @error: with VFIO_PRECOPY_PHASE_FAILED, why: an errno, positive; else 0
 * @bytes_in_use: memory that the startup has to prepare, bytes; on the resuming
 *	fd 0 until the preface has arrived. Memory of units that the source has
 *	only some pages of is not in it: that is allocated when its data arrives
 * @bytes_prepared: how much of it is prepared, bytes; on the saving fd estimated
 *	from the time. A target prepares whole units, so that it may be ready with
 *	less than @bytes_in_use
 * @remaining_ns: time until the startup is complete, ns; an estimate, and
 *	advice only; VFIO_PRECOPY_REMAINING_UNKNOWN on the resuming fd until the
 *	preface has arrived, and with VFIO_PRECOPY_PHASE_FAILED
 * @elapsed_ns: time since the preface arrived or was read, ns; 0 before, and
 *	the time that the startup took once it is complete
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
 * On either migration data fd: fills in struct vfio_precopy_startup. Changes
 * nothing, and never waits. @argsz is the only input: the same structure can be
 * passed again.
 *
 * poll() of the resuming fd also gives EPOLLPRI when the startup is complete or
 * has failed.
 *
 * Return: 0, or -1 and errno: EINVAL for an @argsz that is too small, EFAULT,
 * ENODEV after the session has ended.
 */
#define PRECOPY_GET_STARTUP	_IO(VFIO_PRECOPY_TYPE, 0)

#endif /* _UAPI_LINUX_VFIO_PRECOPY_H */
