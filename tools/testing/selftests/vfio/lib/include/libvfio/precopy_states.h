/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The migration states without the prefix of their names. Not together with
 * mig_device.h, which has shorter names of its own for the tests of all devices.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_STATES_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_STATES_H

#include <linux/vfio.h>

#define STOP		VFIO_DEVICE_STATE_STOP
#define RUNNING		VFIO_DEVICE_STATE_RUNNING
#define STOP_COPY	VFIO_DEVICE_STATE_STOP_COPY
#define RESUMING	VFIO_DEVICE_STATE_RESUMING
#define RUNNING_P2P	VFIO_DEVICE_STATE_RUNNING_P2P
#define PRE_COPY	VFIO_DEVICE_STATE_PRE_COPY
#define PRE_COPY_P2P	VFIO_DEVICE_STATE_PRE_COPY_P2P

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_STATES_H */
