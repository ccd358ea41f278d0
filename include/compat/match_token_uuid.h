/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * match_token_uuid of struct vfio_device_ops, for kernels such as 6.12: nobody calls it,
 * since VFIO_DEVICE_BIND_IOMMUFD takes no token there.
 */
#ifndef _PRECOPY_COMPAT_MATCH_TOKEN_UUID_H
#define _PRECOPY_COMPAT_MATCH_TOKEN_UUID_H

#include <linux/uuid.h>

#include "vfio_device_ops.h"

struct precopy_compat_ops_token {
	struct vfio_device_ops;
	int (*match_token_uuid)(struct vfio_device *vdev, const uuid_t *uuid);
};

#undef vfio_device_ops
#define vfio_device_ops precopy_compat_ops_token

#define vfio_pci_core_match_token_uuid NULL

#endif /* _PRECOPY_COMPAT_MATCH_TOKEN_UUID_H */
