/* SPDX-License-Identifier: GPL-2.0-only */
/* Functions that guest.c and guest_engine.c call of each other */
#ifndef GUEST_H
#define GUEST_H

#include <linux/types.h>

/* guest.c */
__u64 now_ns(void);

/* guest_engine.c */

struct engine_counts {
	__u64 pages;	/* that engines have written by DMA */
	__u64 bad;	/* of these, with other contents than they must have */
	__u64 rounds;	/* number of times that they were written, since the start */
	__u64 orders;	/* descriptors of the rings that were done right */
};

/* A device that was found: has it an engine? Its bus master bit is set then. */
void engine_find(const char *dev);
/* Has one of them an engine? */
int engine_found(void);
/* Let all engines write memory, each of it once in so many us. */
void engine_start(__u64 every_us);
/* Stop them, compare what they wrote and copied, and let them go on. */
void engine_check(struct engine_counts *counts);
/* Times that all of the memory was written until now */
__u64 engine_rounds(void);

#endif /* GUEST_H */
