/* SPDX-License-Identifier: GPL-2.0-only */
/* What to do with a device before it has something to save, and after it loaded. */
#ifndef VFIO_MIGRATE_KEEP_H
#define VFIO_MIGRATE_KEEP_H

#include "options.h"

int fill_regions(const struct device *dev, const struct options *opt);
int dump_regions(const struct device *dev, const struct options *opt);

/* The user's --dump-region, --hold and COMMAND, whose exit status this returns. */
int keep_device(const struct device *dev, const struct options *opt);

#endif /* VFIO_MIGRATE_KEEP_H */
