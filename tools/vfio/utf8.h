/* SPDX-License-Identifier: GPL-2.0-only */
/* Validation of UTF-8 text. */
#ifndef VFIO_MIGRATE_UTF8_H
#define VFIO_MIGRATE_UTF8_H

#include <stddef.h>
#include <stdint.h>

/*
 * Length of the first character of the @len bytes at @p, 1 to 4; 0 if they are not valid
 * UTF-8, or if it is a control character, which could affect a terminal.
 */
static inline size_t utf8_length(const uint8_t *p, size_t len)
{
	static const uint32_t least[] = { 0, ' ', 0xa0, 0x800, 0x10000 };
	size_t n, i;
	uint32_t c;

	if (!len)
		return 0;
	n = p[0] < 0x80 ? 1 : p[0] >> 5 == 0x6 ? 2 :
	    p[0] >> 4 == 0xe ? 3 : p[0] >> 3 == 0x1e ? 4 : 0;
	if (!n || n > len)
		return 0;
	c = n == 1 ? p[0] : p[0] & (0x7f >> n);
	for (i = 1; i < n; i++) {
		if (p[i] >> 6 != 0x2)
			return 0;
		c = c << 6 | (p[i] & 0x3f);
	}
	/* Overlong encodings, surrogates, and values beyond Unicode are invalid */
	if (c < least[n] || c == 0x7f || (c >= 0xd800 && c < 0xe000) || c > 0x10ffff)
		return 0;
	return n;
}

#endif /* VFIO_MIGRATE_UTF8_H */
