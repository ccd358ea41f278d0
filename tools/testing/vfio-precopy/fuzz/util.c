// SPDX-License-Identifier: GPL-2.0-only
/* What the fuzzer stands on: failing, checksums, memory, lists. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "fuzz.h"

#define CRC32C_POLY	0x82f63b78U

void fuzz_fail(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	fputs("fuzz: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
	va_end(args);
	abort();
}

/* splitmix64 */
u64 fuzz_random(u64 *seed)
{
	u64 x = *seed += 0x9e3779b97f4a7c15ULL;

	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

/* --- Checksums ------------------------------------------------------------ */

static u32 crc_table[8][256];

__attribute__((constructor)) static void crc_init(void)
{
	u32 i, k, c;

	for (i = 0; i < 256; i++) {
		for (c = i, k = 0; k < 8; k++)
			c = (c >> 1) ^ (c & 1 ? CRC32C_POLY : 0);
		crc_table[0][i] = c;
	}
	for (k = 1; k < 8; k++)
		for (i = 0; i < 256; i++)
			crc_table[k][i] = (crc_table[k - 1][i] >> 8) ^
				crc_table[0][crc_table[k - 1][i] & 0xff];
}

/*
 * Under the name that the shim's crc32c() calls. Eight bytes at a time, in C,
 * so that the sanitizers see each byte that is read.
 */
unsigned int crc32_iscsi(unsigned char *p, int len, unsigned int crc)
{
	u64 w;
	int k;

	for (; len >= 8; len -= 8, p += 8) {
		memcpy(&w, p, 8);
		w ^= crc;
		for (crc = 0, k = 0; k < 8; k++)
			crc ^= crc_table[7 - k][w >> (8 * k) & 0xff];
	}
	for (; len > 0; len--)
		crc = crc_table[0][(crc ^ *p++) & 0xff] ^ (crc >> 8);
	return crc;
}

u32 fuzz_crc(const void *p, size_t len)
{
	return ~crc32_iscsi((unsigned char *)p, len, ~0U);
}

/* --- Memory --------------------------------------------------------------- */

/* Where page @number is, or would be */
static size_t pages_find(const struct pages *pages, u64 number)
{
	size_t low = 0, high = pages->nr, mid;

	while (low < high) {
		mid = (low + high) / 2;
		if (pages->entries[mid]->number < number)
			low = mid + 1;
		else
			high = mid;
	}
	return low;
}

static void pages_remove(struct pages *pages, size_t from, size_t to)
{
	size_t i;

	for (i = from; i < to; i++)
		free(pages->entries[i]);
	if (to > from)
		memmove(pages->entries + from, pages->entries + to,
			(pages->nr - to) * sizeof(*pages->entries));
	pages->nr -= to - from;
}

void pages_free(struct pages *pages)
{
	pages_remove(pages, 0, pages->nr);
	free(pages->entries);
	memset(pages, 0, sizeof(*pages));
}

static void pages_insert(struct pages *pages, size_t at, u64 number)
{
	if (pages->nr == pages->room) {
		pages->room = 2 * pages->room + 16;
		pages->entries = realloc(pages->entries,
					 pages->room * sizeof(*pages->entries));
	}
	memmove(pages->entries + at + 1, pages->entries + at,
		(pages->nr++ - at) * sizeof(*pages->entries));
	pages->entries[at] = malloc(sizeof(**pages->entries));
	pages->entries[at]->number = number;
}

void pages_zero(struct pages *pages, u64 offset, u64 len)
{
	u64 first = offset / FUZZ_PAGE;

	pages_remove(pages, pages_find(pages, first),
		     pages_find(pages, first + len / FUZZ_PAGE));
}

void pages_store(struct pages *pages, u64 offset, const u8 *data, u64 len)
{
	static const u8 zero[FUZZ_PAGE];
	u64 number = offset / FUZZ_PAGE;
	size_t at;

	for (; len; len -= FUZZ_PAGE, data += FUZZ_PAGE, number++) {
		at = pages_find(pages, number);
		if (!memcmp(data, zero, FUZZ_PAGE)) {
			pages_zero(pages, number * FUZZ_PAGE, FUZZ_PAGE);
			continue;
		}
		if (at == pages->nr || pages->entries[at]->number != number)
			pages_insert(pages, at, number);
		memcpy(pages->entries[at]->data, data, FUZZ_PAGE);
	}
}

bool pages_equal(const struct pages *a, const struct pages *b)
{
	size_t i;

	if (a->nr != b->nr)
		return false;
	for (i = 0; i < a->nr; i++)
		if (a->entries[i]->number != b->entries[i]->number ||
		    memcmp(a->entries[i]->data, b->entries[i]->data, FUZZ_PAGE))
			return false;
	return true;
}

/* --- Outcomes --------------------------------------------------------------- */

void outcome_add(struct outcome *out, const struct event *event)
{
	if (out->nr_events == out->room) {
		out->room = 2 * out->room + 16;
		out->events = realloc(out->events,
				      out->room * sizeof(*out->events));
	}
	out->events[out->nr_events++] = *event;
}

void outcome_free(struct outcome *out)
{
	pages_free(&out->memory);
	free(out->events);
	memset(out, 0, sizeof(*out));
}
