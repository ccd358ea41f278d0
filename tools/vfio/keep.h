/* SPDX-License-Identifier: GPL-2.0-only */
/* What to do with a device before it has something to save, and after it loaded. */
#ifndef VFIO_MIGRATE_KEEP_H
#define VFIO_MIGRATE_KEEP_H

#include "atomic_file.h"
#include "options.h"

/**
 * struct keep - what is to be done with a device at the end
 * @opt: what the user wants: --dump-region, --hold, COMMAND
 * @dump: the files to copy regions to, open
 * @nr_dump: how many are
 */
struct keep {
	const struct options	*opt;
	struct atomic_file	dump[MAX_REGIONS];
	int			nr_dump;
};

int fill_regions(const struct device *dev, const struct options *opt);

/*
 * Open and look up all that keep_end() needs of @dev, the one that will be kept:
 * what can be known to fail fails here, before anything is stopped.
 */
int keep_begin(struct keep *keep, const struct device *dev, const struct options *opt);

/*
 * A source: copy its regions, also if @status is a failure. Returns @status, or
 * ST_AFTER if only this has failed.
 */
int keep_source(struct keep *keep, const struct device *dev, int status);

/*
 * A target: copy its regions, hold it or run the COMMAND, whose exit status this
 * returns; ST_AFTER if something fails, or has before. Nothing of it if @status says
 * that the device has not been loaded.
 */
int keep_target(struct keep *keep, const struct device *dev, int status);

/* Another process does it: its files are closed, and not yet forgotten. */
void keep_leave(struct keep *keep);
/* Nothing shall be left of what was not completed. */
void keep_forget(struct keep *keep);

#endif /* VFIO_MIGRATE_KEEP_H */
