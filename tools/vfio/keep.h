/* SPDX-License-Identifier: GPL-2.0-only */
/* Operations on a device before it is saved, and after it was loaded. */
#ifndef VFIO_MIGRATE_KEEP_H
#define VFIO_MIGRATE_KEEP_H

#include "atomic_file.h"
#include "options.h"

/**
 * struct keep - operations on a device after the migration
 * @opt: options of the user: --dump-region, --hold, COMMAND
 * @dump: open files to which regions are copied
 * @nr_dump: number of elements of @dump
 */
struct keep {
	const struct options	*opt;
	struct atomic_file	dump[MAX_REGIONS];
	int			nr_dump;
};

int fill_regions(const struct device *dev, const struct options *opt);

/*
 * Open all files and look up the COMMAND that keep_source() or keep_target() will need for
 * @dev, so that errors are found before a device is stopped.
 */
int keep_begin(struct keep *keep, const struct device *dev, const struct options *opt);

/*
 * Copy the regions of a source, even if @status is a failure. Returns @status, or ST_AFTER
 * if only the copy has failed.
 */
int keep_source(struct keep *keep, const struct device *dev, int status);

/*
 * Copy the regions of a target, and hold it or run the COMMAND. Does nothing if @status is
 * a failure to load the device. Returns the exit status of the COMMAND, or ST_AFTER if a
 * step fails or has failed before.
 */
int keep_target(struct keep *keep, const struct device *dev, int status);

/* Close the files without removing them, because another process completes them. */
void keep_leave(struct keep *keep);
/* Remove all files that were not completed. */
void keep_forget(struct keep *keep);

#endif /* VFIO_MIGRATE_KEEP_H */
