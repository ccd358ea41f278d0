/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The golden streams as a whole. Their bytes are beside the KUnit tests of the
 * driver; the payload of the one DATA record is a rule there, and here.
 */
#ifndef VFIO_PRECOPY_GOLDEN_H
#define VFIO_PRECOPY_GOLDEN_H

#include <string.h>

#include "stream_golden.h"

#define GOLDEN_MEMORY_SIZE	(8UL << 20)
#define GOLDEN_VENDOR		0x1b36
#define GOLDEN_DEVICE		0x0005
#define GOLDEN_PAGE		4096
#define GOLDEN_V1_0_LEN \
	(sizeof(golden_v1_0_head) + GOLDEN_PAGE + sizeof(golden_v1_0_tail))

/* What is in memory at 0x1000 when it has been loaded; all else is zero */
static inline void golden_v1_0_page(unsigned char *page)
{
	int i;

	for (i = 0; i < GOLDEN_PAGE; i++)
		page[i] = i * 7 + i / 256 * 13;
}

static inline void golden_v1_0(unsigned char *stream)
{
	memcpy(stream, golden_v1_0_head, sizeof(golden_v1_0_head));
	stream += sizeof(golden_v1_0_head);
	golden_v1_0_page(stream);
	stream += GOLDEN_PAGE;
	memcpy(stream, golden_v1_0_tail, sizeof(golden_v1_0_tail));
}

#endif /* VFIO_PRECOPY_GOLDEN_H */
