/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * As much of the kernel as drivers/vfio/pci/precopy/mig/stream.c needs to be built
 * in user space. kshim.mk makes each header that it includes lead here.
 *
 * crc32c() of the benchmark comes from ISA-L, which chooses the instructions as
 * the kernel does: carry-less multiplication of 512 bits where the CPU has it.
 * That of the fuzzer is plain C, under the same name.
 */
#ifndef VFIO_PRECOPY_KSHIM_H
#define VFIO_PRECOPY_KSHIM_H

#include <assert.h>
#include <endian.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int8_t s8;

/* From the C library's own headers, where they come first */
#include <linux/types.h>

#undef __packed
#define __packed		__attribute__((packed))

#define SZ_4K			0x1000
#define SZ_64K			0x10000
#define SZ_2M			0x200000
#define SZ_16M			0x1000000
#define SZ_1G			0x40000000

#define BITS_PER_LONG		64
#define BIT(n)			(1UL << (n))
#define IS_ALIGNED(x, a)	(!((x) & ((__typeof__(x))(a) - 1)))
#define DIV_ROUND_UP(n, d)	(((n) + (d) - 1) / (d))
#define DIV_ROUND_UP_ULL(n, d)	DIV_ROUND_UP((unsigned long long)(n), d)
#define hweight8(x)		((unsigned int)__builtin_popcount((u8)(x)))

#define min_t(type, a, b) ({			\
	type min_a = (a), min_b = (b);		\
	min_a < min_b ? min_a : min_b; })
#define max_t(type, a, b) ({			\
	type max_a = (a), max_b = (b);		\
	max_a > max_b ? max_a : max_b; })
#define min(a, b)		min_t(__typeof__((a) + (b)), a, b)
#define max(a, b)		max_t(__typeof__((a) + (b)), a, b)

#define cpu_to_le16(x)		htole16(x)
#define cpu_to_le32(x)		htole32(x)
#define cpu_to_le64(x)		htole64(x)
#define le16_to_cpu(x)		le16toh(x)
#define le32_to_cpu(x)		le32toh(x)
#define le64_to_cpu(x)		le64toh(x)

#define EXPORT_SYMBOL_IF_KUNIT(symbol)

unsigned int crc32_iscsi(unsigned char *data, int len, unsigned int crc);

/* Neither of the two inverts anything, before or after. */
static inline u32 crc32c(u32 crc, const void *p, size_t len)
{
	return crc32_iscsi((unsigned char *)p, len, crc);
}

#endif /* VFIO_PRECOPY_KSHIM_H */
