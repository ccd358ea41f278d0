/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The migration state machine. Comments of this driver cite the rules of the uAPI
 * by the numbers of Documentation/driver-api/vfio-pci-precopy/conformance.rst.
 */
#ifndef PRECOPY_FSM_H
#define PRECOPY_FSM_H

#include <linux/types.h>
#include <linux/vfio.h>

struct file;
struct precopy_device;

/* All optional features (rule R8) */
#define PRECOPY_MIG_FLAGS	(VFIO_MIGRATION_STOP_COPY | \
				 VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY)

/**
 * struct precopy_arc - one arc of the state machine
 * @exists: true if the driver implements the arc
 * @returns_fd: true if the arc begins a session and returns a data fd
 * @run: action of the arc. Called with arc_mutex held and with
 *	 the generation at the start of the request. Returns a file, NULL, or an
 *	 ERR_PTR() without having changed anything.
 */
struct precopy_arc {
	bool		exists;
	bool		returns_fd;
	struct file	*(*run)(struct precopy_device *pcd, u64 generation);
};

extern const struct vfio_migration_ops precopy_migration_ops;

bool precopy_arc_outdated(struct precopy_device *pcd, u64 generation);
const struct precopy_arc *precopy_arc_find(enum vfio_device_mig_state from,
					   enum vfio_device_mig_state to);
const char *precopy_state_name(enum vfio_device_mig_state state);

#endif /* PRECOPY_FSM_H */
