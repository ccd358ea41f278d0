// SPDX-License-Identifier: GPL-2.0-only
/* The models of this driver: kinds of device, and what each migrates. */

#include <linux/stddef.h>

#include "mig/model.h"
#include "mig/section.h"
#include "model.h"

static const struct precopy_section precopy_memory_section = {
	.name		= "memory",
	.save		= &precopy_memory_save_ops,
	.load		= &precopy_memory_load_ops,
	.startup	= &precopy_memory_startup_ops,
};

/*
 * A device that is nothing but memory does nothing by itself: it starts no DMA,
 * raises no interrupt and changes no memory. So there is nothing to quiesce, and
 * no peer to wait for.
 */
const struct precopy_model precopy_memory_model = {
	.name		= "memory",
	.sections	= { &precopy_memory_section },
};
