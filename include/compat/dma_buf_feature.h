/* SPDX-License-Identifier: GPL-2.0-only */
/* The number of a VFIO feature that the driver refuses, for kernels such as 6.18 */
#ifndef _PRECOPY_COMPAT_DMA_BUF_FEATURE_H
#define _PRECOPY_COMPAT_DMA_BUF_FEATURE_H

#include <linux/vfio.h>

#define VFIO_DEVICE_FEATURE_DMA_BUF 11

#endif /* _PRECOPY_COMPAT_DMA_BUF_FEATURE_H */
