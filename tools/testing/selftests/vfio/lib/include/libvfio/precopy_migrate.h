/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A whole migration of one device to another, judged by contents: what a test
 * that has mistreated a device does at its end.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_MIGRATE_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_MIGRATE_H

#include <libvfio/precopy_device.h>

/*
 * Resets both, fills @a by @seed, migrates it to @b with pre-copy and stores in
 * between, and compares every page of @b. Leaves both reset. Returns 0, or
 * -1 after saying on stderr what went wrong.
 */
int precopy_migrate(struct precopy_dev *a, struct precopy_dev *b, u64 seed);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_MIGRATE_H */
