/* SPDX-License-Identifier: GPL-2.0-only */
/* Saving sessions: PRE_COPY, PRE_COPY_P2P and STOP_COPY. */
#ifndef PRECOPY_SAVE_H
#define PRECOPY_SAVE_H

#include <linux/types.h>

struct file;
struct precopy_device;

struct file *precopy_save_start(struct precopy_device *pcd, u64 generation,
				bool stopped);
int precopy_save_reinit(struct precopy_device *pcd);
int precopy_save_finish(struct precopy_device *pcd, u64 generation);
int precopy_save_stop(struct precopy_device *pcd, u64 generation);

u64 precopy_save_estimate(struct precopy_device *pcd);
void precopy_save_counters(struct precopy_device *pcd, u64 *initial_bytes,
			   u64 *dirty_bytes);

#endif /* PRECOPY_SAVE_H */
