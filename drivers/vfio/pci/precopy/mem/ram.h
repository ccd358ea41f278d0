/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The contents of the BAR, for the files of mem/ only.
 *
 * They are kept in ordinary pages, allocated when first touched, in units of
 * 2 MiB where such can be had. One struct precopy_ram is one life of the device:
 * reset drops it as a whole and the device goes on with a new one, so nothing of
 * the past survives, whoever still holds a page of it.
 */
#ifndef PRECOPY_RAM_H
#define PRECOPY_RAM_H

#include <linux/gfp.h>
#include <linux/types.h>

struct folio;
struct mem_cgroup;
struct page;
struct precopy_memory;
struct precopy_memory_stats;
struct precopy_ram;
struct precopy_ram_unit;

/* For all but page faults: fail rather than have somebody killed */
#define PRECOPY_GFP	(GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

/* Opportunistic: no retry, no warning, and nobody killed */
#define PRECOPY_GFP_EASY (GFP_KERNEL_ACCOUNT | __GFP_NORETRY | __GFP_NOWARN)

/* Units that precopy_ram_units() looks at: 1 GiB */
#define PRECOPY_BATCH_UNITS	512UL

struct precopy_memory_stats *precopy_stats_alloc(void);
void precopy_stats_put(struct precopy_memory_stats *stats);

struct precopy_ram *precopy_ram_create(struct precopy_memory *mem,
				       struct mem_cgroup *memcg);
struct precopy_ram *precopy_ram_get(struct precopy_ram *ram);
void precopy_ram_put(struct precopy_ram *ram);

struct page *precopy_ram_page(struct precopy_ram *ram, unsigned long index);
unsigned long precopy_ram_run(struct precopy_ram *ram, unsigned long index,
			      unsigned long max);
int precopy_ram_populate(struct precopy_ram *ram, unsigned long index,
			 bool huge, gfp_t gfp);
int precopy_ram_populate_unit(struct precopy_ram *ram, unsigned long unit);
void precopy_ram_set_exact(struct precopy_ram *ram, bool exact);
struct folio *precopy_ram_huge_folio(struct precopy_ram *ram,
				     unsigned long unit);
void precopy_ram_hold(struct precopy_ram *ram, unsigned long unit,
		      const struct folio *folio);
void precopy_ram_unhold(struct precopy_ram *ram, unsigned long unit,
			const struct folio *folio);
bool precopy_ram_busy(struct precopy_ram *ram, unsigned long unit,
		      const unsigned long *pages, unsigned long *busy);

struct precopy_ram_unit *precopy_ram_spare(struct precopy_ram *ram, bool huge,
					   struct page **pages, gfp_t gfp);
bool precopy_ram_idle(struct precopy_ram *ram, unsigned long unit);
bool precopy_ram_copy(struct precopy_ram *ram, unsigned long unit,
		      struct precopy_ram_unit *spare);
bool precopy_ram_swap(struct precopy_ram *ram, unsigned long unit,
		      struct precopy_ram_unit *spare, const unsigned long *pages);
void precopy_ram_unit_free(struct precopy_ram *ram,
			   struct precopy_ram_unit *u);
bool precopy_ram_unit_full(struct precopy_ram *ram, unsigned long unit);

/**
 * typedef precopy_ram_visit - function that precopy_ram_walk() calls for each unit
 * @unit: unit number
 * @pages: bitmap of PRECOPY_UNIT_PAGES bits, the allocated pages; NULL if all bits would
 *	   be set
 * @whole: true if all pages of the unit are allocated. In a BAR below PRECOPY_UNIT_SIZE
 *	   the unit has fewer than PRECOPY_UNIT_PAGES pages.
 * @huge: true if the unit is one folio
 * @arg: argument of precopy_ram_walk()
 */
typedef void (*precopy_ram_visit)(unsigned long unit, const unsigned long *pages,
				  bool whole, bool huge, void *arg);

void precopy_ram_walk(struct precopy_ram *ram, precopy_ram_visit visit,
		      void *arg);

unsigned long precopy_ram_unit_pages(struct precopy_ram *ram,
				     unsigned long unit, unsigned long *pages);
unsigned long precopy_ram_changes(const struct precopy_ram *ram);
unsigned long precopy_ram_next_unit(struct precopy_ram *ram,
				    unsigned long from);
unsigned long precopy_ram_units(struct precopy_ram *ram, unsigned long from,
				unsigned long *used, unsigned long *huge);
u64 precopy_ram_whole_units(struct precopy_ram *ram, unsigned long *units);
u64 precopy_ram_bytes(struct precopy_ram *ram);

#endif /* PRECOPY_RAM_H */
