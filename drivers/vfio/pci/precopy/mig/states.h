/* SPDX-License-Identifier: GPL-2.0-only */
/* The driver's only table of the names of states: messages, sysfs, tracepoints. */
#ifndef PRECOPY_STATES_H
#define PRECOPY_STATES_H

#include <linux/vfio.h>

#define PRECOPY_STATE_NAMES				\
	{ VFIO_DEVICE_STATE_ERROR, "ERROR" },		\
	{ VFIO_DEVICE_STATE_STOP, "STOP" },		\
	{ VFIO_DEVICE_STATE_RUNNING, "RUNNING" },	\
	{ VFIO_DEVICE_STATE_STOP_COPY, "STOP_COPY" },	\
	{ VFIO_DEVICE_STATE_RESUMING, "RESUMING" },	\
	{ VFIO_DEVICE_STATE_RUNNING_P2P, "RUNNING_P2P" }, \
	{ VFIO_DEVICE_STATE_PRE_COPY, "PRE_COPY" },	\
	{ VFIO_DEVICE_STATE_PRE_COPY_P2P, "PRE_COPY_P2P" }

#endif /* PRECOPY_STATES_H */
