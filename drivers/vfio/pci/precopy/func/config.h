/* SPDX-License-Identifier: GPL-2.0-only */
/* The synthetic config space. */
#ifndef PRECOPY_CONFIG_H
#define PRECOPY_CONFIG_H

#include <linux/types.h>

struct precopy_device;

void precopy_config_init(struct precopy_device *pcd);
u64 precopy_config_bar(const struct precopy_device *pcd);
void precopy_config_commit_bar(struct precopy_device *pcd);
u32 precopy_config_size(const struct precopy_device *pcd);
ssize_t precopy_config_read(struct precopy_device *pcd, char __user *buf,
			    size_t count, u64 offset);
ssize_t precopy_config_write(struct precopy_device *pcd,
			     const char __user *buf, size_t count, u64 offset,
			     bool *flr);

#endif /* PRECOPY_CONFIG_H */
