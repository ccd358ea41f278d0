/* SPDX-License-Identifier: GPL-2.0-only */
/* BAR0 of the model "engine". */
#ifndef PRECOPY_REGISTERS_H
#define PRECOPY_REGISTERS_H

#include <linux/types.h>

struct precopy_engine;

ssize_t precopy_registers_read(struct precopy_engine *engine, char __user *buf,
			       size_t count, u64 offset);
ssize_t precopy_registers_write(struct precopy_engine *engine,
				const char __user *buf, size_t count,
				u64 offset);

#endif /* PRECOPY_REGISTERS_H */
