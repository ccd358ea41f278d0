/* SPDX-License-Identifier: GPL-2.0-only */
/* What a waiting user sees: a bar on a terminal, lines elsewhere. */
#ifndef VFIO_MIGRATE_PROGRESS_H
#define VFIO_MIGRATE_PROGRESS_H

#include <stdbool.h>

#include "transfer.h"

/* Look at it as often as you like; it is shown now and then. */
void progress_show(const struct transfer *t);

/* Off the line, so that something else can be said. */
void progress_clear(void);

#endif /* VFIO_MIGRATE_PROGRESS_H */
