/* SPDX-License-Identifier: GPL-2.0-only */
/* What may follow the stream in an input: how it is to be cut. */
#ifndef VFIO_PRECOPY_FUZZ_TRAILER_H
#define VFIO_PRECOPY_FUZZ_TRAILER_H

#include "fuzz.h"

#define TRAILER_MAGIC	"@split\0"	/* and a zero */
#define TRAILER_LEN	16

/* Takes the trailer off, if there is one. Returns the seed in it, or one. */
static inline u64 trailer_cut(const u8 *data, size_t *len)
{
	u64 seed;

	if (*len < TRAILER_LEN ||
	    memcmp(data + *len - TRAILER_LEN, TRAILER_MAGIC, 8))
		return fuzz_crc(data, *len);
	*len -= TRAILER_LEN;
	memcpy(&seed, data + *len + 8, 8);
	return seed;
}

#endif /* VFIO_PRECOPY_FUZZ_TRAILER_H */
