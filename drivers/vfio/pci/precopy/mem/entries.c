// SPDX-License-Identifier: GPL-2.0-only
/*
 * The page table entries that map the BAR: removing and write-protecting them.
 * They are made in mem/fault.c.
 */

#include <linux/bitmap.h>
#include <linux/mm.h>
#include <linux/rmap.h>

#include <kunit/visibility.h>

#include "entries.h"
#include "memory.h"
#include "ram.h"

/**
 * precopy_entries_init - initialise the locks of units
 * @mem: the memory
 */
void precopy_entries_init(struct precopy_memory *mem)
{
	int i;

	for (i = 0; i < PRECOPY_ENTRY_SEMS; i++)
		init_rwsem(&mem->entry_sem[i]);
}

/**
 * precopy_entries_remove - remove all page table entries of the BAR
 * @mem: the memory
 *
 * Context: may sleep; memory.sem held for write, so that nobody makes new ones;
 * mmap_lock may be held.
 */
void precopy_entries_remove(struct precopy_memory *mem)
{
	lockdep_assert_held_write(&mem->sem);
	unmap_mapping_range(mem->mapping, (loff_t)mem->pgoff << PAGE_SHIFT,
			    mem->size, true);
	if (mem->revoked)
		bitmap_zero(mem->revoked, precopy_memory_nr_units(mem));
}

/**
 * precopy_entries_remove_unit - remove all page table entries of a unit
 * @mem: the memory
 * @unit: unit number
 *
 * Context: as for precopy_entries_remove().
 */
void precopy_entries_remove_unit(struct precopy_memory *mem,
				 unsigned long unit)
{
	lockdep_assert_held(&mem->sem);
	unmap_mapping_range(mem->mapping,
			    ((loff_t)mem->pgoff << PAGE_SHIFT) +
			    unit * PRECOPY_UNIT_SIZE, PRECOPY_UNIT_SIZE, true);
}

/**
 * precopy_entries_revoke - let page table entries be removed before they are used again
 * @mem: the memory
 *
 * Removing the entries of a large memory takes long. They are removed by unit, by
 * precopy_memory_settle(), while others can use the lock. Until then loads and stores
 * through them go on; whoever finds that the unit has to have a new entry removes
 * the others of the unit first.
 *
 * Context: memory.sem held for write, by a caller who calls precopy_memory_settle()
 * after it.
 */
void precopy_entries_revoke(struct precopy_memory *mem)
{
	unsigned long unit = 0;

	lockdep_assert_held_write(&mem->sem);
	if (!mem->ram)
		return;
	for (; (unit = precopy_ram_next_unit(mem->ram, unit)) != ULONG_MAX; unit++)
		__set_bit(unit, mem->revoked);
}

/**
 * precopy_entries_settle - remove the entries of a unit that are revoked
 * @mem: the memory. A reset of the carrier may call this while the device is closed.
 * @unit: unit number
 *
 * Context: may sleep; memory.sem not held; mmap_lock may be held.
 */
void precopy_entries_settle(struct precopy_memory *mem, unsigned long unit)
{
	/* Page faults call this, and seldom find any: they need not exclude each other */
	scoped_guard(rwsem_read, &mem->sem)
		if (!precopy_entries_revoked(mem, unit))
			return;
	guard(rwsem_write)(&mem->sem);
	if (!precopy_entries_revoked(mem, unit))
		return;
	__clear_bit(unit, mem->revoked);
	precopy_entries_remove_unit(mem, unit);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_entries_settle);

/*
 * So few pages need no walks before the seal: its flushes are no more than those of the
 * walks, and it spares the entries in between, which guests may be using.
 */
#define PRECOPY_FEW_PAGES	4

/* Write-protect and clean: a walk with one flush for each */
static void precopy_entries_clean(struct precopy_memory *mem,
				  unsigned long unit,
				  const unsigned long *pages)
{
	unsigned long first = find_first_bit(pages, PRECOPY_UNIT_PAGES);
	unsigned long last = find_last_bit(pages, PRECOPY_UNIT_PAGES);
	pgoff_t start = mem->pgoff + unit * PRECOPY_UNIT_PAGES + first;
	DECLARE_BITMAP(cleaned, PRECOPY_UNIT_PAGES) = {};
	pgoff_t cleaned_start = 0, cleaned_end = 0;
	unsigned long nr = last - first + 1;

	wp_shared_mapping_range(mem->mapping, start, nr);
	clean_record_shared_mapping_range(mem->mapping, start, nr, start,
					  cleaned, &cleaned_start,
					  &cleaned_end);
}

/* Seal the pages from @i on that follow each other in memory, and return their number */
static unsigned long precopy_entries_seal_run(struct precopy_memory *mem,
					      unsigned long unit,
					      unsigned long i, unsigned long end)
{
	unsigned long page = unit * PRECOPY_UNIT_PAGES + i;
	unsigned long n = precopy_ram_run(mem->ram, page, end - i);

	mapping_wrprotect_range(mem->mapping, mem->pgoff + page,
				page_to_pfn(precopy_ram_page(mem->ram, page)), n);
	return n;
}

/*
 * An entry that is read-only but dirty can become writable again without a
 * fault: the mm (mprotect, NUMA hinting) takes it for one whose store was
 * notified. Between the two walks of precopy_entries_clean() entries are like
 * that, and neither order of the walks closes the gap (the model in
 * tests/dirty_kunit.c shows it). So a last walk makes every entry read-only
 * and clean in one step under its page table lock. It flushes entry by entry,
 * but after the other two hardly ever finds one to change.
 *
 * It calls the MMU notifiers once for each run of pages. With @all, a run may
 * include pages in between that are not to be protected. The walks have
 * done the same to those: it costs their next store a fault, and nothing if they
 * are read-only, as all pages are that are in no set.
 */
static void precopy_entries_seal(struct precopy_memory *mem, unsigned long unit,
				 const unsigned long *pages, bool all)
{
	unsigned long i, end = find_last_bit(pages, PRECOPY_UNIT_PAGES) + 1;

	for (i = find_first_bit(pages, end); i < end;
	     i = find_next_bit(pages, end, i))
		i += precopy_entries_seal_run(mem, unit, i,
					      all ? end :
					      find_next_zero_bit(pages, end, i));
}

/**
 * precopy_entries_protect - let the next store to each of some pages fault
 * @mem: the memory
 * @unit: unit that the pages are in; not one folio
 * @pages: bitmap of PRECOPY_UNIT_PAGES bits, not empty; the pages are there
 *
 * If there are not just a few, the pages between them are protected, too, so that the
 * number of calls does not depend on how they are scattered.
 *
 * Context: may sleep; memory.sem held. All TLBs are flushed on return.
 */
void precopy_entries_protect(struct precopy_memory *mem, unsigned long unit,
			     const unsigned long *pages)
{
	bool few = bitmap_weight(pages, PRECOPY_UNIT_PAGES) <= PRECOPY_FEW_PAGES;

	lockdep_assert_held(&mem->sem);
	if (!few)
		precopy_entries_clean(mem, unit, pages);
	precopy_entries_seal(mem, unit, pages, !few);
}
