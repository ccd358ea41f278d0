/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * precopy_info_v2 of struct vfio_device, for kernels before 7.1, where a user cannot opt in
 * to be told of new initial data: then it has never done so. The member that takes the
 * place is NULL, because VFIO does not give its devices any platform data.
 */
#ifndef _PRECOPY_COMPAT_PRECOPY_INFO_V2_H
#define _PRECOPY_COMPAT_PRECOPY_INFO_V2_H

#include <linux/bits.h>
#include <linux/vfio.h>

#define precopy_info_v2 device.platform_data

#ifndef VFIO_PRECOPY_INFO_REINIT
#define VFIO_PRECOPY_INFO_REINIT BIT(0)
#endif

#endif /* _PRECOPY_COMPAT_PRECOPY_INFO_V2_H */
