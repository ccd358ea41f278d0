// SPDX-License-Identifier: GPL-2.0-only
/*
 * The page table of the simulated IOMMU: four levels of 512 entries. A leaf maps
 * 4 KiB at level 0, 2 MiB at level 1 and 1 GiB at level 2. Each leaf has a dirty
 * bit, which a write access sets.
 *
 * An entry is 0, the address of the table below, or a leaf: physical address
 * and bits. All changes of an entry are single stores or compare-and-exchange,
 * so that a walk needs no lock to read entries. It needs a lock to use the
 * address that it finds; see iommu_sim_sync() in domain.c.
 */
#include <kunit/static_stub.h>
#include <kunit/visibility.h>
#include <linux/align.h>
#include <linux/bits.h>
#include <linux/cleanup.h>
#include <linux/err.h>
#include <linux/gfp.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>

#include "pgtable.h"

#define TOP_LEVEL	3
#define MAX_LEAF_LEVEL	2
#define TABLE_BITS	9
#define ENTRIES		BIT(TABLE_BITS)
#define IOVA_SIZE	BIT_ULL(IOMMU_SIM_IOVA_BITS)

#define ENTRY_LEAF	BIT(2)
#define ENTRY_DIRTY_BIT	3
#define ENTRY_DIRTY	BIT(ENTRY_DIRTY_BIT)
#define ENTRY_ADDR	GENMASK(63, 12)

static unsigned int level_shift(unsigned int level)
{
	return PAGE_SHIFT + level * TABLE_BITS;
}

static u64 level_size(unsigned int level)
{
	return BIT_ULL(level_shift(level));
}

static unsigned int level_of(size_t pgsize)
{
	return (__ffs(pgsize) - PAGE_SHIFT) / TABLE_BITS;
}

static unsigned int pt_index(unsigned int level, u64 iova)
{
	return (iova >> level_shift(level)) & (ENTRIES - 1);
}

/* The table that an entry refers to, or NULL for a leaf or an empty entry */
static unsigned long *pt_child(unsigned long entry)
{
	return entry & ENTRY_LEAF ? NULL : (unsigned long *)entry;
}

unsigned long *iommu_sim_pt_alloc_table(gfp_t gfp)
{
	KUNIT_STATIC_STUB_REDIRECT(iommu_sim_pt_alloc_table, gfp);
	return (unsigned long *)get_zeroed_page(gfp);
}
EXPORT_SYMBOL_IF_KUNIT(iommu_sim_pt_alloc_table);

/**
 * iommu_sim_pt_init() - prepare an empty page table
 * @pt: page table
 *
 * Its memory is charged to the memory cgroup of the current task.
 *
 * Return: 0, or -ENOMEM.
 */
int iommu_sim_pt_init(struct iommu_sim_pt *pt)
{
	spin_lock_init(&pt->lock);
	INIT_LIST_HEAD(&pt->retired);
	pt->top = iommu_sim_pt_alloc_table(GFP_KERNEL_ACCOUNT);
	return pt->top ? 0 : -ENOMEM;
}
EXPORT_SYMBOL_IF_KUNIT(iommu_sim_pt_init);

static void pt_free_table(unsigned long *table, unsigned int level)
{
	unsigned long *child;

	for (unsigned int i = 0; level && i < ENTRIES; i++) {
		child = pt_child(table[i]);
		if (child)
			pt_free_table(child, level - 1);
	}
	free_page((unsigned long)table);
	/* A table of level 1 has up to 513 pages to free */
	if (level == 1)
		cond_resched();
}

/**
 * iommu_sim_pt_destroy() - free a page table with all of its tables
 * @pt: page table; no walk may be in progress
 */
void iommu_sim_pt_destroy(struct iommu_sim_pt *pt)
{
	iommu_sim_pt_free_retired(&pt->retired);
	pt_free_table(pt->top, TOP_LEVEL);
}
EXPORT_SYMBOL_IF_KUNIT(iommu_sim_pt_destroy);

/* Add a table, and those below it, to the tables to be freed after all walks */
static void pt_retire(struct iommu_sim_pt *pt, unsigned long *table,
		      unsigned int level)
{
	unsigned long *child;

	for (unsigned int i = 0; level && i < ENTRIES; i++) {
		child = pt_child(table[i]);
		if (child)
			pt_retire(pt, child, level - 1);
	}
	guard(spinlock)(&pt->lock);
	list_add(&virt_to_page(table)->lru, &pt->retired);
}

/**
 * iommu_sim_pt_take_retired() - move all retired tables to a list
 * @pt: page table
 * @list: empty list for iommu_sim_pt_free_retired()
 */
void iommu_sim_pt_take_retired(struct iommu_sim_pt *pt, struct list_head *list)
{
	guard(spinlock)(&pt->lock);
	list_splice_init(&pt->retired, list);
}
EXPORT_SYMBOL_IF_KUNIT(iommu_sim_pt_take_retired);

/**
 * iommu_sim_pt_free_retired() - free retired tables
 * @list: tables that no walk can be in
 */
void iommu_sim_pt_free_retired(struct list_head *list)
{
	struct page *page, *next;

	list_for_each_entry_safe(page, next, list, lru)
		__free_page(page);
	INIT_LIST_HEAD(list);
}
EXPORT_SYMBOL_IF_KUNIT(iommu_sim_pt_free_retired);

/* Return the table below an entry; allocate it if there is none */
static unsigned long *pt_descend(unsigned long *slot, gfp_t gfp)
{
	unsigned long entry = READ_ONCE(*slot), *table;

	if (!entry) {
		table = iommu_sim_pt_alloc_table(gfp);
		if (!table)
			return ERR_PTR(-ENOMEM);
		if (try_cmpxchg(slot, &entry, (unsigned long)table))
			return table;
		/* A concurrent mapping of another range has added a table */
		free_page((unsigned long)table);
	}
	return pt_child(entry) ?: ERR_PTR(-EADDRINUSE);
}

/* Return the table of @level for an IOVA; allocate it if there is none */
static unsigned long *pt_table(struct iommu_sim_pt *pt, u64 iova,
			       unsigned int level, gfp_t gfp)
{
	unsigned long *table = pt->top;

	for (unsigned int l = TOP_LEVEL; l > level && !IS_ERR(table); l--)
		table = pt_descend(&table[pt_index(l, iova)], gfp);
	return table;
}

static bool pt_empty(unsigned long *table, unsigned int level)
{
	unsigned long *child;

	for (unsigned int i = 0; i < ENTRIES; i++) {
		if (table[i] & ENTRY_LEAF)
			return false;
		child = pt_child(table[i]);
		if (child && !pt_empty(child, level - 1))
			return false;
	}
	return true;
}

/* Set a leaf. It may replace a table that has become empty by unmapping. */
static int pt_set_leaf(struct iommu_sim_pt *pt, unsigned long *slot,
		       unsigned int level, unsigned long leaf)
{
	unsigned long entry = READ_ONCE(*slot), *child = pt_child(entry);

	if (entry && (!child || !pt_empty(child, level - 1)))
		return -EADDRINUSE;
	WRITE_ONCE(*slot, leaf);
	if (child)
		pt_retire(pt, child, level - 1);
	return 0;
}

/**
 * iommu_sim_pt_map() - map a range
 * @pt: page table
 * @iova: first IOVA, aligned to @pgsize
 * @paddr: physical address, aligned to @pgsize
 * @pgsize: size of each leaf in bytes: 4 KiB, 2 MiB or 1 GiB
 * @pgcount: number of leaves
 * @perm: IOMMU_SIM_READ, IOMMU_SIM_WRITE
 * @gfp: allocation flags for tables, which also select the charged cgroup
 * @mapped: incremented by the number of bytes that were mapped, also on failure
 *
 * Return: 0; -ERANGE if the range is beyond 48 bits; -EADDRINUSE if something
 * is mapped there already; -ENOMEM.
 */
int iommu_sim_pt_map(struct iommu_sim_pt *pt, u64 iova, phys_addr_t paddr,
		     size_t pgsize, size_t pgcount, unsigned long perm,
		     gfp_t gfp, size_t *mapped)
{
	unsigned int level = level_of(pgsize), i;
	unsigned long *table;
	int ret;

	if (level > MAX_LEAF_LEVEL || iova >= IOVA_SIZE ||
	    pgcount > (IOVA_SIZE - iova) / pgsize)
		return -ERANGE;
	while (pgcount) {
		table = pt_table(pt, iova, level, gfp);
		if (IS_ERR(table))
			return PTR_ERR(table);
		for (i = pt_index(level, iova); i < ENTRIES && pgcount; i++, pgcount--) {
			ret = pt_set_leaf(pt, &table[i], level, paddr | perm | ENTRY_LEAF);
			if (ret)
				return ret;
			iova += pgsize;
			paddr += pgsize;
			*mapped += pgsize;
		}
	}
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(iommu_sim_pt_map);

/* Replace a leaf with 512 leaves of the level below, with the same dirty bit */
static bool pt_split(unsigned long *slot, unsigned int level)
{
	unsigned long *table, entry = READ_ONCE(*slot);

	/* The caller of an unmap may be in atomic context */
	table = iommu_sim_pt_alloc_table(GFP_NOWAIT | __GFP_ACCOUNT);
	if (!table)
		return false;
	do {
		for (unsigned int i = 0; i < ENTRIES; i++)
			table[i] = entry + i * level_size(level - 1);
	} while (!try_cmpxchg(slot, &entry, (unsigned long)table));
	return true;
}

static bool pt_unmap_table(struct iommu_sim_pt *pt, unsigned long *table,
			   unsigned int level, u64 *iova, u64 end);

/*
 * Unmap the part of one entry between *@iova and @end, and advance *@iova to its end.
 * Return false if nothing is mapped at *@iova.
 */
static bool pt_unmap_slot(struct iommu_sim_pt *pt, unsigned long *slot,
			  unsigned int level, u64 *iova, u64 end)
{
	u64 size = level_size(level), base = ALIGN_DOWN(*iova, size);
	bool whole = *iova == base && end - base >= size;
	unsigned long entry = READ_ONCE(*slot), *child;

	if (!entry)
		return false;
	/* Without memory for the split, more is unmapped than was requested */
	if (entry & ENTRY_LEAF && (whole || !pt_split(slot, level))) {
		WRITE_ONCE(*slot, 0);
		*iova = base + size;
		return true;
	}
	child = pt_child(READ_ONCE(*slot));
	if (!pt_unmap_table(pt, child, level - 1, iova, end))
		return false;
	/* The range covers the whole table, so no other caller uses it */
	if (whole) {
		WRITE_ONCE(*slot, 0);
		pt_retire(pt, child, level - 1);
	}
	return true;
}

static bool pt_unmap_table(struct iommu_sim_pt *pt, unsigned long *table,
			   unsigned int level, u64 *iova, u64 end)
{
	for (unsigned int i = pt_index(level, *iova); i < ENTRIES && *iova < end; i++)
		if (!pt_unmap_slot(pt, &table[i], level, iova, end))
			return false;
	return true;
}

/**
 * iommu_sim_pt_unmap() - unmap a range, up to the first hole in it
 * @pt: page table
 * @iova: first IOVA, aligned to 4 KiB
 * @size: number of bytes, a multiple of 4 KiB
 *
 * A leaf that is only partly in the range is split. If there is no memory for
 * that, all of it is unmapped, and the result may be larger than @size.
 *
 * A walk may still use an unmapped translation; see struct iommu_sim_pt.
 *
 * Return: number of bytes from @iova on that were unmapped.
 */
size_t iommu_sim_pt_unmap(struct iommu_sim_pt *pt, u64 iova, size_t size)
{
	u64 next = iova;

	if (!IS_ALIGNED(iova | size, PAGE_SIZE) || iova >= IOVA_SIZE ||
	    size > IOVA_SIZE - iova)
		return 0;
	pt_unmap_table(pt, pt->top, TOP_LEVEL, &next, iova + size);
	return next - iova;
}
EXPORT_SYMBOL_IF_KUNIT(iommu_sim_pt_unmap);

/* Return the entry that maps an IOVA: a leaf, or an empty entry */
static unsigned long *pt_find(struct iommu_sim_pt *pt, u64 iova,
			      unsigned int *level)
{
	unsigned long *table = pt->top, *slot;

	for (*level = TOP_LEVEL;; (*level)--) {
		slot = &table[pt_index(*level, iova)];
		table = pt_child(READ_ONCE(*slot));
		if (!table)
			return slot;
	}
}

static phys_addr_t pt_phys(unsigned long entry, unsigned int level, u64 iova)
{
	return (entry & ENTRY_ADDR) | (iova & (level_size(level) - 1));
}

/**
 * iommu_sim_pt_access() - translate an IOVA for an access by a device
 * @pt: page table
 * @iova: IOVA
 * @write: whether the access is a write, which sets the leaf's dirty bit
 * @phys: result: physical address
 *
 * Return: 0, or -EFAULT if nothing is mapped there or the access is not allowed.
 */
int iommu_sim_pt_access(struct iommu_sim_pt *pt, u64 iova, bool write,
			phys_addr_t *phys)
{
	unsigned long perm = write ? IOMMU_SIM_WRITE : IOMMU_SIM_READ;
	unsigned long *slot, entry;
	unsigned int level;

	if (iova >= IOVA_SIZE)
		return -EFAULT;
	slot = pt_find(pt, iova, &level);
	entry = READ_ONCE(*slot);
	do {
		if (!(entry & ENTRY_LEAF) || !(entry & perm))
			return -EFAULT;
	} while (write && !(entry & ENTRY_DIRTY) &&
		 !try_cmpxchg(slot, &entry, entry | ENTRY_DIRTY));
	*phys = pt_phys(entry, level, iova);
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(iommu_sim_pt_access);

/**
 * iommu_sim_pt_lookup() - translate an IOVA without an access
 * @pt: page table
 * @iova: IOVA
 *
 * Return: the physical address, or 0 if nothing is mapped there.
 */
phys_addr_t iommu_sim_pt_lookup(struct iommu_sim_pt *pt, u64 iova)
{
	unsigned long entry;
	unsigned int level;

	if (iova >= IOVA_SIZE)
		return 0;
	entry = READ_ONCE(*pt_find(pt, iova, &level));
	return entry & ENTRY_LEAF ? pt_phys(entry, level, iova) : 0;
}
EXPORT_SYMBOL_IF_KUNIT(iommu_sim_pt_lookup);

static bool pt_dirty(unsigned long entry)
{
	return entry & ENTRY_LEAF && entry & ENTRY_DIRTY;
}

/* Count the clean entries from @slot on, within its table and up to @last */
static unsigned int pt_clean(unsigned long *slot, unsigned int level, u64 iova,
			     u64 last)
{
	u64 left = ((last - iova) >> level_shift(level)) + 1;
	unsigned int n = min_t(u64, left, ENTRIES - pt_index(level, iova)), i;

	/* Above level 0, the next entry may be one that refers to a table */
	if (level)
		n = 1;
	for (i = 0; i < n && !pt_dirty(READ_ONCE(slot[i])); i++)
		;
	return i;
}

/**
 * iommu_sim_pt_next_dirty() - find the next dirty leaf
 * @pt: page table
 * @iova: first IOVA of the search; on return, the first IOVA of the dirty leaf,
 *	but not before that of the search
 * @last: last IOVA of the search
 * @clear: true to clear the dirty bit
 *
 * Return: number of bytes of the leaf from @iova on, or 0 if none is dirty.
 */
size_t iommu_sim_pt_next_dirty(struct iommu_sim_pt *pt, u64 *iova, u64 last,
			       bool clear)
{
	unsigned int level, clean;
	unsigned long *slot;
	u64 size;

	last = min(last, IOVA_SIZE - 1);
	while (*iova <= last) {
		slot = pt_find(pt, *iova, &level);
		size = level_size(level);
		clean = pt_clean(slot, level, *iova, last);
		if (!clean) {
			if (clear)
				clear_bit(ENTRY_DIRTY_BIT, slot);
			return ALIGN_DOWN(*iova, size) + size - *iova;
		}
		*iova = ALIGN_DOWN(*iova, size) + clean * size;
	}
	return 0;
}
EXPORT_SYMBOL_IF_KUNIT(iommu_sim_pt_next_dirty);
