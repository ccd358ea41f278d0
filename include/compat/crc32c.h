/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * crc32c() of <linux/crc32.h>, for kernels such as 6.12: that of the module libcrc32c, which
 * uses the processor's instructions, or the generic one, several times as slow. The driver
 * never asks for 4 GiB at once.
 */
#ifndef _PRECOPY_COMPAT_CRC32C_H
#define _PRECOPY_COMPAT_CRC32C_H

#include <linux/crc32.h>

#if IS_ENABLED(CONFIG_LIBCRC32C)
#include <linux/crc32c.h>
#else
#define crc32c(crc, p, len) __crc32c_le(crc, p, len)
#endif

#endif /* _PRECOPY_COMPAT_CRC32C_H */
