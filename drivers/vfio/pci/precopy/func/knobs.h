/* SPDX-License-Identifier: GPL-2.0-only */
/* Test knobs of the engine. */
#ifndef PRECOPY_KNOBS_H
#define PRECOPY_KNOBS_H

#include <linux/types.h>

struct precopy_engine;
struct precopy_step;

u32 precopy_knobs_error(struct precopy_engine *engine,
			const struct precopy_step *step);
u64 precopy_knobs_command_end(const struct precopy_engine *engine);
void precopy_knobs_linger(struct precopy_engine *engine,
			  const struct precopy_step *step);

#endif /* PRECOPY_KNOBS_H */
