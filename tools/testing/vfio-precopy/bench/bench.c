// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "bench.h"

#define HUGE	(2 * MIB)

void sample(double x, double value, const char *key, ...)
{
	va_list args;

	va_start(args, key);
	vprintf(key, args);
	va_end(args);
	printf("\t%.15g\t%.15g\n", x, value);
	fflush(stdout);
}

void progress(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	fputs("      ", stderr);
	vfprintf(stderr, fmt, args);
	fputc('\n', stderr);
	va_end(args);
}

void fatal(const char *fmt, ...)
{
	int err = errno;
	va_list args;

	va_start(args, fmt);
	fputs("error: ", stderr);
	vfprintf(stderr, fmt, args);
	fprintf(stderr, " (last error: %s)\n", strerror(err));
	va_end(args);
	exit(1);
}

/* The surplus at both ends is only address space: nothing touches it. */
void *memory_reserve(size_t size)
{
	char *p = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	char *start = (char *)(((uintptr_t)p + HUGE - 1) & ~(HUGE - 1));

	if (p == MAP_FAILED)
		fatal("no %zu bytes of memory", size);
	if (start != p)
		munmap(p, start - p);
	munmap(start + size, p + HUGE - start);
	return start;
}

void *memory_alloc(size_t size, bool huge)
{
	void *start = memory_reserve(size);

	madvise(start, size, huge ? MADV_HUGEPAGE : MADV_NOHUGEPAGE);
	memset(start, 0, size);
	return start;
}

void memory_free(void *p, size_t size)
{
	munmap(p, size);
}

/* xorshift64*: quick, and nothing that anybody could compress or elide */
void memory_random(void *p, size_t size, uint64_t seed)
{
	uint64_t x = seed * 2 + 1, *word = p;
	size_t i;

	for (i = 0; i < size / sizeof(*word); i++) {
		x ^= x >> 12;
		x ^= x << 25;
		x ^= x >> 27;
		word[i] = x * 0x2545f4914f6cdd1dULL | 1;
	}
}

int memfd_filled(const void *data, size_t size)
{
	int fd = memfd_create("bench", MFD_CLOEXEC);
	size_t done;
	ssize_t n;

	if (fd < 0)
		fatal("no memfd");
	for (done = 0; done < size; done += n) {
		n = write(fd, (const char *)data + done, size - done);
		if (n <= 0)
			fatal("cannot fill a memfd");
	}
	return fd;
}

size_t parse_size(const char *text)
{
	static const char units[] = "KMG";
	const char *unit;
	size_t size;
	char *end;

	size = strtoull(text, &end, 0);
	unit = *end ? strchr(units, *end) : NULL;
	if (unit) {
		size <<= 10 * (unit - units + 1);
		end++;
	}
	if (!size || *end)
		fatal("'%s' is no size", text);
	return size;
}
