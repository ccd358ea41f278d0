/* SPDX-License-Identifier: GPL-2.0-only */
/* Resuming sessions. */
#ifndef PRECOPY_LOAD_H
#define PRECOPY_LOAD_H

#include <linux/types.h>

struct file;
struct precopy_device;

struct file *precopy_load_start(struct precopy_device *pcd, u64 generation);
int precopy_load_commit(struct precopy_device *pcd, u64 generation);

const char *precopy_load_phase_name(struct precopy_device *pcd);

#endif /* PRECOPY_LOAD_H */
