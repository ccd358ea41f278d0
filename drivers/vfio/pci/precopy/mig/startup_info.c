// SPDX-License-Identifier: GPL-2.0-only
/*
 * PRECOPY_GET_STARTUP, and VFIO_MIG_GET_STARTUP_INFO, which has a part of the same
 * numbers: what a saving and a resuming data fd have in common.
 */

#include <linux/build_bug.h>
#include <linux/uaccess.h>
#include <linux/vfio_mig_startup.h>
#include <linux/vfio_precopy.h>

#include "precopy.h"
#include "session.h"
#include "startup_info.h"

static_assert((int)VFIO_PRECOPY_PHASE_WAITING == VFIO_MIG_STARTUP_WAITING);
static_assert((int)VFIO_PRECOPY_PHASE_STARTING == VFIO_MIG_STARTUP_STARTING);
static_assert((int)VFIO_PRECOPY_PHASE_READY == VFIO_MIG_STARTUP_READY);
static_assert((int)VFIO_PRECOPY_PHASE_FAILED == VFIO_MIG_STARTUP_FAILED);

/*
 * The answer to either ioctl. The first member is the largest: not all compilers set more
 * of a union to zero. @argsz is the first member of both structures.
 */
union precopy_startup_answer {
	struct vfio_precopy_startup	own;
	struct vfio_mig_startup_info	generic;
	u32				argsz;
};

static_assert(sizeof(union precopy_startup_answer) ==
	      sizeof(struct vfio_precopy_startup));

/* VFIO says by flags what this driver says by special values */
static void precopy_startup_generic(const struct precopy_startup_report *report,
				    struct vfio_mig_startup_info *info)
{
	const struct vfio_precopy_startup *own = &report->own;

	info->phase = own->phase;
	info->error = own->error;
	if (own->flags & VFIO_PRECOPY_STARTUP_TARGET) {
		info->flags |= VFIO_MIG_STARTUP_TARGET;
	} else {
		info->flags |= VFIO_MIG_STARTUP_INITIAL_BYTES;
		info->initial_bytes = report->initial_bytes;
	}
	if (own->remaining_ns == VFIO_PRECOPY_REMAINING_UNKNOWN)
		return;
	info->flags |= VFIO_MIG_STARTUP_TIME;
	info->remaining_ns = own->remaining_ns;
	if (own->flags & VFIO_PRECOPY_STARTUP_MEASURED)
		info->flags |= VFIO_MIG_STARTUP_MEASURED;
}

static unsigned long precopy_startup_answer_size(unsigned int cmd)
{
	switch (cmd) {
	case PRECOPY_GET_STARTUP:
		return offsetofend(struct vfio_precopy_startup, elapsed_ns);
	case VFIO_MIG_GET_STARTUP_INFO:
		return offsetofend(struct vfio_mig_startup_info, remaining_ns);
	default:
		return 0;
	}
}

/**
 * precopy_startup_ioctl - PRECOPY_GET_STARTUP and VFIO_MIG_GET_STARTUP_INFO
 * @session: session of the fd
 * @cmd: the ioctl
 * @arg: address of the ioctl's structure
 * @tell: callback that fills in the zeroed @report, with state_lock held
 *
 * As with VFIO's own ioctls, @argsz is the only input and stays as it is, and
 * nothing beyond the fields that the kernel knows is written. So the same
 * structure can be passed again and again.
 *
 * Context: may sleep for the user copies; no lock of this driver held.
 * Return: 0, -ENOTTY for another ioctl, -EFAULT, -EINVAL for an argsz that is too
 * small, -ENODEV if the session is dead.
 */
long precopy_startup_ioctl(struct precopy_session *session, unsigned int cmd,
			   unsigned long arg,
			   void (*tell)(struct precopy_session *session,
					struct precopy_startup_report *report))
{
	unsigned long minsz = precopy_startup_answer_size(cmd);
	struct precopy_startup_report report = {};
	void __user *user = (void __user *)arg;
	union precopy_startup_answer answer = {};

	if (!minsz)
		return -ENOTTY;
	if (copy_from_user(&answer.argsz, user, sizeof(answer.argsz)))
		return -EFAULT;
	if (answer.argsz < minsz)
		return -EINVAL;
	scoped_guard(spinlock, &session->pcd->state_lock) {
		if (session->dead)
			return -ENODEV;
		tell(session, &report);
	}
	if (cmd == VFIO_MIG_GET_STARTUP_INFO) {
		precopy_startup_generic(&report, &answer.generic);
	} else {
		report.own.argsz = answer.argsz;
		answer.own = report.own;
	}
	return copy_to_user(user, &answer, minsz) ? -EFAULT : 0;
}
