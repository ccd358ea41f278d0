/* SPDX-License-Identifier: GPL-2.0-only */
/* Kinds of device, as the state machine and the data fds see them. */
#ifndef PRECOPY_MODEL_H
#define PRECOPY_MODEL_H

#include <linux/types.h>

#include "section.h"

struct precopy_device;

/**
 * struct precopy_model - a kind of device
 * @name: name, for users
 * @sections: what the device migrates, in the order of the stream; NULL after
 *	      the last
 * @features: required features of its stream, PRECOPY_FEATURE_*, which no other model
 *	      has
 * @quiesce: stop what the device does by itself: start no DMA, raise no
 *	     interrupt, and wait for what is in flight. RUNNING to RUNNING_P2P,
 *	     PRE_COPY to PRE_COPY_P2P.
 * @stop: stop what others do to the device: accept nothing from peers.
 *	  RUNNING_P2P to STOP, PRE_COPY_P2P to STOP_COPY.
 * @start: accept from peers again. STOP to RUNNING_P2P.
 * @resume: act by itself again. RUNNING_P2P to RUNNING, PRE_COPY_P2P to PRE_COPY.
 *
 * The operations are called with arc_mutex held, one at a time. They may sleep,
 * in a killable wait. Each returns 0, or an error without having changed
 * anything. One that is NULL has nothing to do.
 *
 * A reset does not wait for them and does not call them: it makes the device
 * RUNNING. An operation must take effect only while the device's generation is
 * @generation, and return -ECANCELED otherwise.
 */
struct precopy_model {
	const char			*name;
	const struct precopy_section	*sections[PRECOPY_MAX_SECTIONS + 1];
	u32				features;

	int	(*quiesce)(struct precopy_device *pcd, u64 generation);
	int	(*stop)(struct precopy_device *pcd, u64 generation);
	int	(*start)(struct precopy_device *pcd, u64 generation);
	int	(*resume)(struct precopy_device *pcd, u64 generation);
};

#endif /* PRECOPY_MODEL_H */
