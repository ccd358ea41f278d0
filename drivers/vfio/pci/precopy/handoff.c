// SPDX-License-Identifier: GPL-2.0-only
/* PRECOPY_GET_STARTUP: what a saving and a resuming data fd have in common. */

#include <linux/uaccess.h>
#include <linux/vfio_precopy.h>

#include "handoff.h"
#include "precopy.h"
#include "session.h"

/**
 * precopy_handoff_get - PRECOPY_GET_STARTUP
 * @session: of the fd
 * @arg: address of a struct vfio_precopy_startup
 * @tell: fills one in that is zeroed, with state_lock held
 *
 * Nothing that the user put into output fields comes back.
 *
 * Context: may sleep for the user copies; no lock of this driver held.
 * Return: 0, -EFAULT, -EINVAL for a size or flags that are not known, -ENODEV
 * if the session is dead.
 */
long precopy_handoff_get(struct precopy_session *session, unsigned long arg,
			 void (*tell)(struct precopy_session *session,
				      struct vfio_precopy_startup *info))
{
	unsigned long minsz = offsetofend(struct vfio_precopy_startup,
					  elapsed_ns);
	struct vfio_precopy_startup info;
	void __user *user = (void __user *)arg;

	if (copy_from_user(&info, user, offsetofend(typeof(info), flags)))
		return -EFAULT;
	if (info.argsz < minsz || info.flags)
		return -EINVAL;
	memset(&info, 0, sizeof(info));
	info.argsz = minsz;
	scoped_guard(spinlock, &session->pcd->state_lock) {
		if (session->dead)
			return -ENODEV;
		tell(session, &info);
	}
	return copy_to_user(user, &info, minsz) ? -EFAULT : 0;
}
