/* SPDX-License-Identifier: GPL-2.0-only */
/* When a unit is one folio, and when it is single pages. */
#ifndef PRECOPY_LAYOUT_H
#define PRECOPY_LAYOUT_H

struct folio;
struct precopy_memory;

void precopy_layout_split(struct precopy_memory *mem, unsigned long unit,
			  const struct folio *held);
void precopy_layout_collapse(struct precopy_memory *mem, unsigned long unit);
void precopy_layout_wait(struct precopy_memory *mem, unsigned long unit);

#endif /* PRECOPY_LAYOUT_H */
