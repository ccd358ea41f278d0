// SPDX-License-Identifier: GPL-2.0-only
/* The models of this driver: kinds of device, and what each migrates. */

#include <linux/array_size.h>
#include <linux/stddef.h>
#include <linux/string.h>

#include "engine.h"
#include "mig/model.h"
#include "mig/section.h"
#include "model.h"
#include "peers.h"

static const struct precopy_section precopy_memory_section = {
	.name		= "memory",
	.save		= &precopy_memory_save_ops,
	.load		= &precopy_memory_load_ops,
	.startup	= &precopy_memory_startup_ops,
};

/*
 * A device that is nothing but memory does nothing by itself: it starts no DMA,
 * raises no interrupt and changes no memory. So there is nothing to quiesce. Peers may
 * store to it.
 */
const struct precopy_model precopy_memory_model = {
	.name		= "memory",
	.sections	= { &precopy_memory_section, &precopy_window_section },
	.stop		= precopy_peers_stop,
	.start		= precopy_peers_start,
};

/* Memory, and an engine that copies between it and the memory of the guest */
const struct precopy_model precopy_engine_model = {
	.name		= "engine",
	.sections	= {
		&precopy_memory_section, &precopy_engine_section,
		&precopy_window_section,
	},
	.features	= PRECOPY_FEATURE_ENGINE,
	.quiesce	= precopy_engine_quiesce,
	.stop		= precopy_peers_stop,
	.start		= precopy_peers_start,
	.resume		= precopy_engine_resume,
};

/**
 * precopy_model_find - find a model
 * @name: name of the model, optionally followed by a line feed
 *
 * Return: the model, or NULL if there is none of that name.
 */
const struct precopy_model *precopy_model_find(const char *name)
{
	static const struct precopy_model * const models[] = {
		&precopy_memory_model, &precopy_engine_model,
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(models); i++)
		if (sysfs_streq(name, models[i]->name))
			return models[i];
	return NULL;
}
