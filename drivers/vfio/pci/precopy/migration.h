/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The migration state machine. The rules by number, here and elsewhere in the
 * driver: Documentation/driver-api/vfio-pci-precopy/conformance.rst.
 */
#ifndef PRECOPY_MIGRATION_H
#define PRECOPY_MIGRATION_H

#include <linux/types.h>
#include <linux/vfio.h>

struct file;
struct precopy_device;

/* What a full driver offers (rule R8) */
#define PRECOPY_MIG_FLAGS	(VFIO_MIGRATION_STOP_COPY | \
				 VFIO_MIGRATION_P2P | VFIO_MIGRATION_PRE_COPY)

/**
 * struct precopy_arc - one arc of the state machine
 * @exists: the driver implements it
 * @returns_fd: entering it begins a session and yields a data fd
 * @run: what there is to do, NULL for nothing. Called with arc_mutex held and
 *	 the generation at the start of the request; returns a file, NULL, or
 *	 an ERR_PTR() after having changed nothing.
 */
struct precopy_arc {
	bool		exists;
	bool		returns_fd;
	struct file	*(*run)(struct precopy_device *pcd, u64 generation);
};

extern const struct vfio_migration_ops precopy_migration_ops;

const struct precopy_arc *precopy_arc_find(enum vfio_device_mig_state from,
					   enum vfio_device_mig_state to);
const char *precopy_state_name(enum vfio_device_mig_state state);

#endif /* PRECOPY_MIGRATION_H */
