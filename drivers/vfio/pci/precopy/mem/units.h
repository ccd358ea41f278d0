/* SPDX-License-Identifier: GPL-2.0-only */
/* Sizes of the parts of the memory: pages and units. Also builds in user space. */
#ifndef PRECOPY_UNITS_H
#define PRECOPY_UNITS_H

#include <linux/sizes.h>

/* Bytes in a page, in the stream and in the memory, whatever the page size of the host */
#define PRECOPY_STREAM_PAGE_SIZE	4096
/* Bytes and pages in a unit */
#define PRECOPY_UNIT_SIZE		SZ_2M
#define PRECOPY_UNIT_PAGES		(PRECOPY_UNIT_SIZE / PRECOPY_STREAM_PAGE_SIZE)

/* Largest memory of a device */
#define PRECOPY_MAX_MEMORY		(64ULL * SZ_1G)
#define PRECOPY_MAX_UNITS		(PRECOPY_MAX_MEMORY / PRECOPY_UNIT_SIZE)

#endif /* PRECOPY_UNITS_H */
