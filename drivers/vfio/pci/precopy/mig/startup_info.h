/* SPDX-License-Identifier: GPL-2.0-only */
/* PRECOPY_GET_STARTUP and VFIO_MIG_GET_STARTUP_INFO, on either data fd. */
#ifndef PRECOPY_STARTUP_INFO_H
#define PRECOPY_STARTUP_INFO_H

#include <linux/types.h>
#include <linux/vfio_precopy.h>

struct precopy_session;

/**
 * struct precopy_startup_report - what a data fd knows of a startup
 * @own: the answer to PRECOPY_GET_STARTUP, but for argsz
 * @initial_bytes: on the saving fd the number of bytes of initial data that have not
 *		   been read; a target does not know how many are to come
 */
struct precopy_startup_report {
	struct vfio_precopy_startup	own;
	u64				initial_bytes;
};

long precopy_startup_ioctl(struct precopy_session *session, unsigned int cmd,
			   unsigned long arg,
			   void (*tell)(struct precopy_session *session,
					struct precopy_startup_report *report));

#endif /* PRECOPY_STARTUP_INFO_H */
