/* SPDX-License-Identifier: GPL-2.0-only */
/* The memory in the startup of a target, as its load sees it. */
#ifndef PRECOPY_MEMORY_STARTUP_H
#define PRECOPY_MEMORY_STARTUP_H

#include <linux/types.h>

struct precopy_startup_part;

int precopy_memory_startup_unit(struct precopy_startup_part *part, u64 offset);

#endif /* PRECOPY_MEMORY_STARTUP_H */
