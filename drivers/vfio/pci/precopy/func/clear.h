/* SPDX-License-Identifier: GPL-2.0-only */
/* Clearing the device's memory, which a guest can have done by a register. */
#ifndef PRECOPY_CLEAR_H
#define PRECOPY_CLEAR_H

struct precopy_device;

int precopy_clear(struct precopy_device *pcd);

#endif /* PRECOPY_CLEAR_H */
