/* SPDX-License-Identifier: GPL-2.0-only */
/* The models of this driver. */
#ifndef PRECOPY_FUNC_MODEL_H
#define PRECOPY_FUNC_MODEL_H

struct precopy_model;
struct precopy_section;

extern const struct precopy_model precopy_memory_model;
extern const struct precopy_model precopy_engine_model;

/* func/window_section.c */
extern const struct precopy_section precopy_window_section;

const struct precopy_model *precopy_model_find(const char *name);

#endif /* PRECOPY_FUNC_MODEL_H */
