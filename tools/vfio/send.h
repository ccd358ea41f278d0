/* SPDX-License-Identifier: GPL-2.0-only */
/* The two ends of a connection. */
#ifndef VFIO_MIGRATE_SEND_H
#define VFIO_MIGRATE_SEND_H

#include "options.h"

/*
 * Move @dev through the connected socket @fd, and print the summary. With ST_OK and
 * ST_AFTER the device was moved. With other statuses except ST_UNKNOWN and ST_STUCK it is
 * in its former state.
 */
int send_device(const struct device *dev, int fd, const struct options *opt);

/* Load the stream from @fd into @dev, until @dev runs. */
int receive_device(const struct device *dev, int fd, const struct options *opt);

struct frame_hello;
void describe_device(const struct device *dev, uint64_t timeout_ns, struct frame_hello *hello);
/* Check whether state of @from can be loaded into @to. */
int check_devices(const struct frame_hello *from, const struct frame_hello *to);

#endif /* VFIO_MIGRATE_SEND_H */
