// SPDX-License-Identifier: GPL-2.0-only
/* PRECOPY_GET_STARTUP: what a saving and a resuming data fd have in common. */

#include <linux/uaccess.h>
#include <linux/vfio_precopy.h>

#include "precopy.h"
#include "session.h"
#include "startup_info.h"

/**
 * precopy_startup_info_get - PRECOPY_GET_STARTUP
 * @session: session of the fd
 * @arg: address of a struct vfio_precopy_startup
 * @tell: callback that fills in a zeroed @info, with state_lock held
 *
 * As with VFIO's own ioctls, @argsz is the only input and stays as it is, and
 * nothing beyond the fields that the kernel knows is written. So the same
 * structure can be passed again and again.
 *
 * Context: may sleep for the user copies; no lock of this driver held.
 * Return: 0, -EFAULT, -EINVAL for an argsz that is too small, -ENODEV if the
 * session is dead.
 */
long precopy_startup_info_get(struct precopy_session *session,
			      unsigned long arg,
			      void (*tell)(struct precopy_session *session,
					   struct vfio_precopy_startup *info))
{
	unsigned long minsz = offsetofend(struct vfio_precopy_startup,
					  elapsed_ns);
	struct vfio_precopy_startup info = {};
	void __user *user = (void __user *)arg;

	if (copy_from_user(&info.argsz, user, sizeof(info.argsz)))
		return -EFAULT;
	if (info.argsz < minsz)
		return -EINVAL;
	scoped_guard(spinlock, &session->pcd->state_lock) {
		if (session->dead)
			return -ENODEV;
		tell(session, &info);
	}
	return copy_to_user(user, &info, minsz) ? -EFAULT : 0;
}
