/* SPDX-License-Identifier: GPL-2.0-only */
/* Memory that splits of units will take. */
#ifndef PRECOPY_RESERVE_H
#define PRECOPY_RESERVE_H

#include <linux/xarray.h>

struct page;
struct precopy_ram;

int precopy_reserve_unit(struct xarray *reserve, unsigned long unit);
struct page **precopy_reserve_use(struct xarray *reserve, unsigned long unit);
void precopy_reserve_free_all(struct xarray *reserve);
int precopy_reserve_try_spare(struct precopy_ram *ram);

#endif /* PRECOPY_RESERVE_H */
