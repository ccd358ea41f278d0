/* SPDX-License-Identifier: GPL-2.0-only */
/* PRECOPY_GET_STARTUP, on either data fd. */
#ifndef PRECOPY_STARTUP_INFO_H
#define PRECOPY_STARTUP_INFO_H

struct precopy_session;
struct vfio_precopy_startup;

long precopy_startup_info_get(struct precopy_session *session,
			      unsigned long arg,
			      void (*tell)(struct precopy_session *session,
					   struct vfio_precopy_startup *info));

#endif /* PRECOPY_STARTUP_INFO_H */
