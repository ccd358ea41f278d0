/* SPDX-License-Identifier: GPL-2.0-only */
/* VFIO's migration interface, version 2, and what our own driver adds to it. */
#ifndef VFIO_MIGRATE_MIGRATION_H
#define VFIO_MIGRATE_MIGRATION_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/vfio.h>
#include <linux/vfio_precopy.h>

#include "device.h"

/* All return 0 or -errno, and say nothing but details. */

int mig_features(const struct device *dev, uint64_t *flags);
int mig_get_state(const struct device *dev, uint32_t *state);
/* @data_fd, or NULL: the new data fd, -1 if the change made none. */
int mig_set_state(const struct device *dev, uint32_t state, int *data_fd);
int mig_data_size(const struct device *dev, uint64_t *bytes);
/* May PRECOPY_INFO have flags from now on (REINIT)? */
int mig_want_info_v2(const struct device *dev);
int mig_has_dma_logging(const struct device *dev);

int mig_precopy_info(int data_fd, struct vfio_precopy_info *info);
/* -ENOTTY: not our driver, which is nothing bad. */
int mig_startup(int data_fd, struct vfio_precopy_startup *startup);

const char *mig_state_name(uint32_t state);
const char *mig_phase_name(uint32_t phase);
static inline bool mig_is_precopy(uint32_t state)
{
	return state == VFIO_DEVICE_STATE_PRE_COPY ||
	       state == VFIO_DEVICE_STATE_PRE_COPY_P2P;
}

/*
 * Why a device that is open cannot migrate, in words for somebody who wants to
 * know what to do; NULL if it can. @flags: its migration features.
 */
const char *mig_obstacle(const struct device *dev, uint64_t *flags, char *buf,
			 size_t size);

#endif /* VFIO_MIGRATE_MIGRATION_H */
