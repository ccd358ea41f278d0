/* SPDX-License-Identifier: GPL-2.0-only */
/* Version 2 of the VFIO migration interface, and the ioctl of precopy-vfio-pci. */
#ifndef VFIO_MIGRATE_MIGRATION_H
#define VFIO_MIGRATE_MIGRATION_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/vfio.h>
#include <linux/vfio_precopy.h>

#include "device.h"

/* All return 0 or -errno. They print nothing except details with --verbose. */

int mig_features(const struct device *dev, uint64_t *flags);
int mig_get_state(const struct device *dev, uint32_t *state);
/* @data_fd: NULL, or result: the new data fd, -1 if the change created none */
int mig_set_state(const struct device *dev, uint32_t state, int *data_fd);
int mig_data_size(const struct device *dev, uint64_t *bytes);
/* Opt in to flags in PRECOPY_INFO (REINIT) */
int mig_want_info_v2(const struct device *dev);
int mig_has_dma_logging(const struct device *dev);

int mig_precopy_info(int data_fd, struct vfio_precopy_info *info);
/* Returns -ENOTTY with other drivers, which is not an error. */
int mig_startup(int data_fd, struct vfio_precopy_startup *startup);

const char *mig_state_name(uint32_t state);
const char *mig_phase_name(uint32_t phase);
static inline bool mig_is_precopy(uint32_t state)
{
	return state == VFIO_DEVICE_STATE_PRE_COPY ||
	       state == VFIO_DEVICE_STATE_PRE_COPY_P2P;
}

/*
 * Return the reason why an open device cannot migrate, as text that helps the user; NULL
 * if it can. @flags: result: its migration features
 */
const char *mig_obstacle(const struct device *dev, uint64_t *flags, char *buf,
			 size_t size);

#endif /* VFIO_MIGRATE_MIGRATION_H */
