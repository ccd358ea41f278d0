/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What all programs of the benchmark share: a clock, memory, data that cannot
 * be guessed, and the lines that the report is made from.
 *
 * A result is a line "KEY <tab> X <tab> VALUE" on standard output. The same KEY
 * and X come once a repetition; what they mean, and in which unit, is known to
 * scripts/bench/report.py. Progress goes to standard error.
 */
#ifndef VFIO_PRECOPY_BENCH_H
#define VFIO_PRECOPY_BENCH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <time.h>

#define ARRAY_LEN(a)	(sizeof(a) / sizeof((a)[0]))
#define KIB		1024UL
#define MIB		(1024 * KIB)
#define GIB		(1024 * MIB)
#define PAGE		4096UL

static inline uint64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static inline uint64_t now_ns(void)
{
	return clock_ns(CLOCK_MONOTONIC);
}

/* The time for which this thread ran. */
static inline uint64_t ran_ns(void)
{
	return clock_ns(CLOCK_THREAD_CPUTIME_ID);
}

/* One sample. @key is a format. */
__attribute__((format(printf, 3, 4)))
void sample(double x, double value, const char *key, ...);

/* One line about what is going on. */
__attribute__((format(printf, 1, 2)))
void progress(const char *fmt, ...);

/* Ends the program, saying why. */
__attribute__((format(printf, 1, 2), noreturn))
void fatal(const char *fmt, ...);

/* Address space aligned to 2 MiB that nothing has touched. */
void *memory_reserve(size_t size);

/* Anonymous memory aligned to 2 MiB, touched; huge pages where they exist. */
void *memory_alloc(size_t size, bool huge);
void memory_free(void *p, size_t size);

/* Fills with pages none of which is zero or equal to another. */
void memory_random(void *p, size_t size, uint64_t seed);

/* A memfd of @size bytes that hold what @data does. */
int memfd_filled(const void *data, size_t size);

/* "64M" and the like; ends the program if it is not a size. */
size_t parse_size(const char *text);

#endif /* VFIO_PRECOPY_BENCH_H */
