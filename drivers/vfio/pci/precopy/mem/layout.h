/* SPDX-License-Identifier: GPL-2.0-only */
/* When a unit is one folio, and when it is single pages. */
#ifndef PRECOPY_LAYOUT_H
#define PRECOPY_LAYOUT_H

#include <linux/xarray.h>

struct folio;
struct precopy_device;
struct precopy_ram;

int precopy_layout_reserve(struct xarray *reserve, unsigned long unit);
void precopy_layout_unreserve(struct xarray *reserve);
int precopy_layout_try_spare(struct precopy_ram *ram);

void precopy_layout_split(struct precopy_device *pcd, unsigned long unit,
			  const struct folio *held);
void precopy_layout_collapse(struct precopy_device *pcd, unsigned long unit);

#endif /* PRECOPY_LAYOUT_H */
