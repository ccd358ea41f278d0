/* SPDX-License-Identifier: GPL-2.0-only */
/* The two ends of a connection. */
#ifndef VFIO_MIGRATE_SEND_H
#define VFIO_MIGRATE_SEND_H

#include "options.h"

/*
 * Move @dev through the connected socket @fd. Prints the summary. Unless it returns
 * ST_OK or ST_AFTER (it has moved), ST_UNKNOWN or ST_STUCK, the device is back where
 * it was.
 */
int send_device(const struct device *dev, int fd, const struct options *opt);

/* Take in what comes through @fd, until @dev runs. */
int receive_device(const struct device *dev, int fd, const struct options *opt);

struct frame_hello;
void describe_device(const struct device *dev, uint64_t timeout_ns, struct frame_hello *hello);
/* Can what @from has saved be loaded by @to at all? */
int check_devices(const struct frame_hello *from, const struct frame_hello *to);

#endif /* VFIO_MIGRATE_SEND_H */
