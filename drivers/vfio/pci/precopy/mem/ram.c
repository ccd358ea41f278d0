// SPDX-License-Identifier: GPL-2.0-only
/* The contents of the BAR, in ordinary pages that are charged to the opener. */

#include <linux/bitmap.h>
#include <linux/highmem.h>
#include <linux/kref.h>
#include <linux/log2.h>
#include <linux/mm.h>
#include <linux/page-flags.h>
#include <linux/rcupdate.h>
#include <linux/rcupdate_wait.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>

#include "charge.h"
#include "memory.h"
#include "ram.h"

#define PRECOPY_UNIT_ORDER	(ilog2(PRECOPY_UNIT_SIZE) - PAGE_SHIFT)

/* A table of single pages is a page. */
static_assert(PRECOPY_UNIT_PAGES * sizeof(struct page *) <= PAGE_SIZE);

/**
 * struct precopy_ram_unit - the pages of a unit
 * @folio: folio that is all of the unit, so that one page table entry can map
 *	   it; or NULL
 * @pages: table of single pages, a page itself, with NULL for a page that is not
 *	   allocated; NULL if the unit is one folio
 * @nr: number of pages in @pages. It is raised after the page was added, so that
 *	whoever finds all of them counted finds all of them.
 * @held: number of references on @folio that precopy_ram_hold() noted
 *
 * Whoever reads a unit holds memory.sem, or the lock of struct precopy_ram;
 * what changes it from one kind to the other holds the first for write and the
 * second too.
 */
struct precopy_ram_unit {
	struct folio	*folio;
	struct page	**pages;
	unsigned int	nr;
	unsigned int	held;
};

/**
 * struct precopy_ram - one life of the device's memory
 * @kref: references of the memory, and of whoever looks at pages without its
 *	  lock
 * @units: unit number to struct precopy_ram_unit. Entries are only added, by
 *	   cmpxchg, and stay, so that readers need no lock but RCU's in the
 *	   xarray.
 * @lock: protects the contents of the units, see struct precopy_ram_unit
 * @memcg: memory cgroup of the opener, charged for the pages and this object; a
 *	   reference
 * @sem: memory.sem, for assertions only, since the memory may be freed before its
 *	 last life
 * @wq: workqueue on which @work runs
 * @stats: counters of the memory; a reference
 * @order: log2 of the number of pages in a unit; less than PRECOPY_UNIT_ORDER in
 *	   a small BAR
 * @exact: whether only pages that are asked for are allocated, see
 *	   precopy_ram_set_exact()
 * @bytes: size of the pages allocated, bytes
 * @changes: number of times that a unit was added or became one folio
 * @work: work that frees the pages, since the last put may come with locks held that
 *	  should not wait for that
 */
struct precopy_ram {
	struct kref		kref;
	struct xarray		units;
	spinlock_t		lock;	/* see struct precopy_ram_unit */
	struct mem_cgroup	*memcg;
	const struct rw_semaphore *sem;
	struct workqueue_struct	*wq;
	struct precopy_memory_stats *stats;
	unsigned int		order;
	bool			exact;
	atomic64_t		bytes;
	atomic_long_t		changes;
	struct work_struct	work;
};

/**
 * enum precopy_ram_kind - what is allocated for a unit that is not there yet
 * @PRECOPY_RAM_EXACT: only the page that is asked for
 * @PRECOPY_RAM_PAGES: all of its single pages, if 2 MiB of contiguous memory is
 *		       available
 * @PRECOPY_RAM_FOLIO: one folio, if 2 MiB of contiguous memory is available
 */
enum precopy_ram_kind {
	PRECOPY_RAM_EXACT,
	PRECOPY_RAM_PAGES,
	PRECOPY_RAM_FOLIO,
};

static struct page *precopy_ram_unit_page(const struct precopy_ram_unit *u,
					  unsigned long i)
{
	if (u->folio)
		return folio_page(u->folio, i);
	/* Pairs with precopy_ram_unit_add() */
	return smp_load_acquire(&u->pages[i]);
}

static unsigned long precopy_ram_unit_nr(const struct precopy_ram *ram,
					 const struct precopy_ram_unit *u)
{
	/* The count pairs with precopy_ram_unit_add() */
	return u->folio ? 1UL << ram->order : smp_load_acquire(&u->nr);
}

static struct page **precopy_ram_alloc_table(gfp_t gfp)
{
	return (struct page **)get_zeroed_page(gfp);
}

static void precopy_ram_free_table(struct page **pages)
{
	free_page((unsigned long)pages);
}

/**
 * precopy_ram_unit_free - free a unit's pages
 * @ram: the contents
 * @u: unit that is not, or no longer, part of @ram; may be NULL
 */
void precopy_ram_unit_free(struct precopy_ram *ram, struct precopy_ram_unit *u)
{
	unsigned long i;

	if (!u)
		return;
	if (u->folio)
		folio_put(u->folio);
	for (i = 0; u->pages && i < (1UL << ram->order); i++)
		if (u->pages[i])
			put_page(u->pages[i]);
	precopy_ram_free_table(u->pages);
	kfree(u);
}

/*
 * How many pages of a unit are in folios that are pinned? Pins cannot be taken
 * away: a DMA map of the BAR, for reading, goes on to show what the memory held
 * before a reset.
 */
static unsigned long precopy_ram_unit_pinned(const struct precopy_ram *ram,
					     const struct precopy_ram_unit *u)
{
	unsigned long i, nr = 0;
	struct page *page;

	if (u->folio)
		return folio_maybe_dma_pinned(u->folio) ? 1UL << ram->order : 0;
	for (i = 0; i < (1UL << ram->order); i++) {
		page = precopy_ram_unit_page(u, i);
		nr += page && folio_maybe_dma_pinned(page_folio(page));
	}
	return nr;
}

static void precopy_ram_free(struct work_struct *work)
{
	struct precopy_ram *ram = container_of(work, struct precopy_ram, work);
	struct precopy_ram_unit *u;
	unsigned long unit, pinned = 0;

	xa_for_each(&ram->units, unit, u) {
		pinned += precopy_ram_unit_pinned(ram, u);
		precopy_ram_unit_free(ram, u);
		cond_resched();
	}
	atomic64_add(pinned, &ram->stats->left_pinned_pages);
	xa_destroy(&ram->units);
	mem_cgroup_put(ram->memcg);
	precopy_stats_put(ram->stats);
	kfree(ram);
}

static void precopy_ram_release(struct kref *kref)
{
	struct precopy_ram *ram = container_of(kref, struct precopy_ram, kref);

	queue_work(ram->wq, &ram->work);
}

/**
 * precopy_stats_alloc - allocate the counters of a memory
 *
 * Return: zeroed counters with one reference, or NULL.
 */
struct precopy_memory_stats *precopy_stats_alloc(void)
{
	struct precopy_memory_stats *stats =
		kzalloc_obj(*stats, GFP_KERNEL_ACCOUNT);

	if (stats)
		kref_init(&stats->kref);
	return stats;
}

static void precopy_stats_release(struct kref *kref)
{
	kfree(container_of(kref, struct precopy_memory_stats, kref));
}

/**
 * precopy_stats_put - drop a reference
 * @stats: the counters
 */
void precopy_stats_put(struct precopy_memory_stats *stats)
{
	kref_put(&stats->kref, precopy_stats_release);
}

/**
 * precopy_ram_create - create an empty life of a memory
 * @mem: the memory, whose size is a power of two
 * @memcg: memory cgroup to charge; may be NULL
 *
 * Context: process context, may sleep.
 * Return: the contents with one reference, or ERR_PTR(-ENOMEM).
 */
struct precopy_ram *precopy_ram_create(struct precopy_memory *mem,
				       struct mem_cgroup *memcg)
{
	struct precopy_ram *ram = kzalloc_obj(*ram, GFP_KERNEL_ACCOUNT);

	if (!ram)
		return ERR_PTR(-ENOMEM);
	kref_init(&ram->kref);
	xa_init_flags(&ram->units, XA_FLAGS_ACCOUNT);
	spin_lock_init(&ram->lock);
	INIT_WORK(&ram->work, precopy_ram_free);
	ram->order = min(PRECOPY_UNIT_ORDER, ilog2(mem->size) - PAGE_SHIFT);
	/* Cannot fail: the caller has a reference */
	if (mem_cgroup_tryget(memcg))
		ram->memcg = memcg;
	ram->sem = &mem->sem;
	ram->wq = mem->wq;
	ram->stats = mem->stats;
	kref_get(&ram->stats->kref);
	return ram;
}

/**
 * precopy_ram_get - take a reference
 * @ram: the contents
 *
 * Return: @ram.
 */
struct precopy_ram *precopy_ram_get(struct precopy_ram *ram)
{
	kref_get(&ram->kref);
	return ram;
}

/**
 * precopy_ram_put - drop a reference
 * @ram: the contents, or NULL
 *
 * Context: any context that may wake a worker; the pages are freed by it.
 */
void precopy_ram_put(struct precopy_ram *ram)
{
	if (ram)
		kref_put(&ram->kref, precopy_ram_release);
}

/**
 * precopy_ram_page - look up a page
 * @ram: the contents
 * @index: page number in the BAR
 *
 * Context: memory.sem held, for as long as the page is used.
 * Return: the page, or NULL for a hole.
 */
struct page *precopy_ram_page(struct precopy_ram *ram, unsigned long index)
{
	struct precopy_ram_unit *u;

	lockdep_assert_held(ram->sem);
	u = xa_load(&ram->units, index / PRECOPY_UNIT_PAGES);
	return u ? precopy_ram_unit_page(u, index % PRECOPY_UNIT_PAGES) : NULL;
}

/**
 * precopy_ram_run - count pages that follow each other in memory
 * @ram: the contents
 * @index: page number in the BAR, of a page that is there
 * @max: greatest number to return; not beyond the unit's end
 *
 * Context: memory.sem held.
 * Return: the number of pages from @index on, with consecutive page frames.
 */
unsigned long precopy_ram_run(struct precopy_ram *ram, unsigned long index,
			      unsigned long max)
{
	struct precopy_ram_unit *u = xa_load(&ram->units, index / PRECOPY_UNIT_PAGES);
	unsigned long first = index % PRECOPY_UNIT_PAGES, n = 1;
	unsigned long pfn = page_to_pfn(precopy_ram_unit_page(u, first));
	struct page *page;

	lockdep_assert_held(ram->sem);
	for (; n < max; n++) {
		page = precopy_ram_unit_page(u, first + n);
		if (!page || page_to_pfn(page) != pfn + n)
			break;
	}
	return n;
}

/**
 * precopy_ram_huge_folio - the folio that is all of a unit
 * @ram: the contents, or NULL
 * @unit: unit number
 *
 * Context: memory.sem held, for as long as the folio is used.
 * Return: a folio of PRECOPY_UNIT_SIZE, or NULL if the unit is not one.
 */
struct folio *precopy_ram_huge_folio(struct precopy_ram *ram,
				     unsigned long unit)
{
	struct precopy_ram_unit *u;

	if (!ram)
		return NULL;
	lockdep_assert_held(ram->sem);
	u = xa_load(&ram->units, unit);
	return u ? u->folio : NULL;
}

/* Opportunistic: no retry, no warning */
static gfp_t precopy_ram_gfp_easy(gfp_t gfp)
{
	return (gfp & ~__GFP_RETRY_MAYFAIL) | __GFP_NORETRY | __GFP_NOWARN;
}

static bool precopy_ram_may_be_huge(const struct precopy_ram *ram)
{
	return IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) &&
	       ram->order == PRECOPY_UNIT_ORDER;
}

/* Fill an empty unit with single pages that are contiguous in memory, or fail */
static bool precopy_ram_fill(struct precopy_ram *ram,
			     struct precopy_ram_unit *u, gfp_t gfp)
{
	struct page *run = alloc_pages(precopy_ram_gfp_easy(gfp), ram->order);
	unsigned long i;

	if (!run)
		return false;
	split_page(run, ram->order);
	for (i = 0; i < (1UL << ram->order); i++)
		u->pages[i] = run + i;
	u->nr = 1U << ram->order;
	return true;
}

/* @pages is a zeroed table to use, or NULL; it is not freed if this fails */
static struct precopy_ram_unit *precopy_ram_unit_alloc(struct precopy_ram *ram,
						       bool huge,
						       struct page **pages,
						       gfp_t gfp)
{
	struct precopy_ram_unit *u = kzalloc_obj(*u, gfp);

	if (!u)
		return NULL;
	if (huge)
		u->folio = folio_alloc(precopy_ram_gfp_easy(gfp), ram->order);
	if (!u->folio)
		u->pages = pages ?: precopy_ram_alloc_table(gfp);
	if (!u->folio && !u->pages) {
		kfree(u);
		return NULL;
	}
	return u;
}

/* Allocate a unit for @ram. Its single pages may be added later. */
static struct precopy_ram_unit *precopy_ram_unit_new(struct precopy_ram *ram,
						     enum precopy_ram_kind kind,
						     gfp_t gfp)
{
	bool huge = kind == PRECOPY_RAM_FOLIO && precopy_ram_may_be_huge(ram);
	struct precopy_ram_unit *u;

	u = precopy_ram_unit_alloc(ram, huge, NULL, gfp | __GFP_ZERO);
	if (u && !huge && kind != PRECOPY_RAM_EXACT)
		precopy_ram_fill(ram, u, gfp | __GFP_ZERO);
	return u;
}

static u64 precopy_ram_unit_bytes(const struct precopy_ram *ram,
				  const struct precopy_ram_unit *u)
{
	return (u64)precopy_ram_unit_nr(ram, u) * PAGE_SIZE;
}

static struct precopy_ram_unit *precopy_ram_unit_get(struct precopy_ram *ram,
						     unsigned long unit,
						     enum precopy_ram_kind kind,
						     gfp_t gfp)
{
	struct precopy_ram_unit *u, *old;
	u64 bytes;

	u = xa_load(&ram->units, unit);
	if (u)
		return u;
	u = precopy_ram_unit_new(ram, kind, gfp);
	if (!u)
		return ERR_PTR(-ENOMEM);
	bytes = precopy_ram_unit_bytes(ram, u);
	old = xa_cmpxchg(&ram->units, unit, NULL, u, gfp);
	if (old) {
		precopy_ram_unit_free(ram, u);
		return xa_is_err(old) ? ERR_PTR(xa_err(old)) : old;
	}
	atomic64_add(bytes, &ram->bytes);
	/* Pairs with precopy_ram_changes(): what is counted is found */
	atomic_long_inc_return(&ram->changes);
	return u;
}

static bool precopy_ram_unit_has(struct precopy_ram *ram,
				 struct precopy_ram_unit *u, unsigned long i)
{
	guard(spinlock)(&ram->lock);
	return precopy_ram_unit_page(u, i);
}

static bool precopy_ram_unit_add(struct precopy_ram *ram,
				 struct precopy_ram_unit *u, unsigned long i,
				 struct page *page)
{
	guard(spinlock)(&ram->lock);
	if (precopy_ram_unit_page(u, i))
		return false;
	/* Readers that hold memory.sem do not hold the lock */
	smp_store_release(&u->pages[i], page);
	/* Pairs with precopy_ram_unit_nr(): all counted, all there */
	smp_store_release(&u->nr, u->nr + 1);
	return true;
}

static int precopy_ram_populate_single(struct precopy_ram *ram,
				       struct precopy_ram_unit *u,
				       unsigned long i, gfp_t gfp)
{
	struct page *page;

	if (precopy_ram_unit_has(ram, u, i))
		return 0;
	page = alloc_page(gfp | __GFP_ZERO);
	if (!page)
		return -ENOMEM;
	if (precopy_ram_unit_add(ram, u, i, page))
		atomic64_add(PAGE_SIZE, &ram->bytes);
	else
		put_page(page);
	return 0;
}

static int precopy_ram_populate_page(struct precopy_ram *ram,
				     unsigned long index,
				     enum precopy_ram_kind kind, gfp_t gfp)
{
	struct precopy_ram_unit *u;

	CLASS(precopy_charge, old)(ram->memcg);
	u = precopy_ram_unit_get(ram, index / PRECOPY_UNIT_PAGES, kind, gfp);
	if (IS_ERR(u))
		return PTR_ERR(u);
	return precopy_ram_populate_single(ram, u, index % PRECOPY_UNIT_PAGES,
					   gfp);
}

/**
 * precopy_ram_populate - allocate a page unless it is there
 * @ram: the contents
 * @index: page number in the BAR
 * @huge: whether a unit that is not there yet should become one folio
 * @gfp: how hard to try. Page faults pass GFP_KERNEL_ACCOUNT, so that running
 *	 out acts on them like on any memory; all others add
 *	 __GFP_RETRY_MAYFAIL and report the failure.
 *
 * Context: process context, may sleep; no lock of this driver held.
 * Return: 0 or -ENOMEM.
 */
int precopy_ram_populate(struct precopy_ram *ram, unsigned long index,
			 bool huge, gfp_t gfp)
{
	enum precopy_ram_kind kind = huge ? PRECOPY_RAM_FOLIO :
					    PRECOPY_RAM_PAGES;

	if (READ_ONCE(ram->exact))
		kind = PRECOPY_RAM_EXACT;
	return precopy_ram_populate_page(ram, index, kind, gfp);
}

/**
 * precopy_ram_set_exact - set whether only single pages are allocated
 * @ram: the contents
 * @exact: true if precopy_ram_populate() must allocate single pages only
 *
 * A load sets it: its target must not need more memory than its source used. A
 * unit that is allocated whole for one page may take the memory that later pages
 * need. precopy_ram_populate_unit() is not affected.
 */
void precopy_ram_set_exact(struct precopy_ram *ram, bool exact)
{
	WRITE_ONCE(ram->exact, exact);
}

static bool precopy_ram_is_folio(struct precopy_ram *ram, unsigned long unit)
{
	struct precopy_ram_unit *u = xa_load(&ram->units, unit);

	guard(spinlock)(&ram->lock);
	return u && u->folio;
}

/* Bytes of pages that a unit has now */
static u64 precopy_ram_present(struct precopy_ram *ram, unsigned long unit)
{
	struct precopy_ram_unit *u = xa_load(&ram->units, unit);

	guard(spinlock)(&ram->lock);
	return u ? precopy_ram_unit_bytes(ram, u) : 0;
}

/**
 * precopy_ram_populate_unit - allocate the pages of a unit that are not there
 * @ram: the contents
 * @unit: unit number
 *
 * Context: process context, may sleep; no lock of this driver held but that of
 * a startup.
 * Return: the bytes that were not there before, or -ENOMEM; what could be had
 * stays.
 */
int precopy_ram_populate_unit(struct precopy_ram *ram, unsigned long unit)
{
	u64 full = PAGE_SIZE << ram->order, had = precopy_ram_present(ram, unit);
	unsigned long i;
	int ret;

	for (i = 0; had < full && i < (1UL << ram->order); i++) {
		ret = precopy_ram_populate_page(ram,
						unit * PRECOPY_UNIT_PAGES + i,
						PRECOPY_RAM_FOLIO, PRECOPY_GFP);
		if (ret)
			return ret;
		/* The first page may have brought all others */
		if (precopy_ram_is_folio(ram, unit))
			break;
	}
	return full - had;
}

/**
 * precopy_ram_hold - note that a page fault has a reference on a unit's folio
 * @ram: the contents
 * @unit: unit number
 * @folio: the folio that the mm has a reference on while page_mkwrite() runs
 *
 * The mm does not write through that reference, so it is no reason to take the
 * folio for busy. Nothing is noted if @folio is not the unit's folio any more.
 *
 * Context: memory.sem held. precopy_ram_unhold() must follow before the fault
 * handler returns.
 */
void precopy_ram_hold(struct precopy_ram *ram, unsigned long unit,
		      const struct folio *folio)
{
	struct precopy_ram_unit *u = xa_load(&ram->units, unit);

	lockdep_assert_held(ram->sem);
	guard(spinlock)(&ram->lock);
	if (u && folio && u->folio == folio)
		u->held++;
}

/**
 * precopy_ram_unhold - undo precopy_ram_hold()
 * @ram: the contents
 * @unit: unit number
 * @folio: as for precopy_ram_hold()
 *
 * If the unit was split meanwhile, the note has gone with the folio. The
 * reference keeps the folio from being used for the unit a second time.
 *
 * Context: memory.sem held.
 */
void precopy_ram_unhold(struct precopy_ram *ram, unsigned long unit,
			const struct folio *folio)
{
	struct precopy_ram_unit *u = xa_load(&ram->units, unit);

	lockdep_assert_held(ram->sem);
	guard(spinlock)(&ram->lock);
	if (u && folio && u->folio == folio)
		u->held--;
}

/* Has somebody a reference on a folio, besides @held that are known to be harmless? */
static bool precopy_folio_busy(struct folio *folio, unsigned int held)
{
	int refs;

	if (folio_maybe_dma_pinned(folio))
		return true;
	refs = folio_ref_count(folio);
	/* A mapping that goes away meanwhile only makes the folio look busy */
	smp_rmb();
	/* One reference is ours, and one for each time it is mapped */
	return refs > folio_mapcount(folio) + 1 + held;
}

/**
 * precopy_ram_busy - find pages that can be written without a page fault
 * @ram: the contents
 * @unit: unit number
 * @pages: bitmap of PRECOPY_UNIT_PAGES bits, the pages to check
 * @busy: result: bitmap of PRECOPY_UNIT_PAGES bits, those of @pages that can be
 *	  written
 *
 * A short-term pin (O_DIRECT, process_vm_writev) or a plain reference (ptrace,
 * vmsplice) taken while a page was writable may store to it after it was
 * write-protected, and no fault would tell. References that come and go with a
 * fault look the same for a moment; they only cost a second look later. A
 * reference on a large folio does not tell which page it is for: all are busy.
 *
 * Context: after the pages were protected and the TLBs were flushed; the
 * flush orders this check after the last page table walk that could pin.
 * memory.sem is held for write: a mapping that was added between reading the
 * two counts would hide a reference. Held for read, it gives only a hint.
 * Return: true if any page is busy.
 */
bool precopy_ram_busy(struct precopy_ram *ram, unsigned long unit,
		      const unsigned long *pages, unsigned long *busy)
{
	struct precopy_ram_unit *u = xa_load(&ram->units, unit);
	struct page *page;
	unsigned long i;

	lockdep_assert_held(ram->sem);
	bitmap_zero(busy, PRECOPY_UNIT_PAGES);
	if (!u)
		return false;
	if (u->folio) {
		if (precopy_folio_busy(u->folio, u->held))
			bitmap_copy(busy, pages, PRECOPY_UNIT_PAGES);
		return !bitmap_empty(busy, PRECOPY_UNIT_PAGES);
	}
	for_each_set_bit(i, pages, 1UL << ram->order) {
		page = precopy_ram_unit_page(u, i);
		if (page && precopy_folio_busy(page_folio(page), 0))
			__set_bit(i, busy);
	}
	return !bitmap_empty(busy, PRECOPY_UNIT_PAGES);
}

/* --- Changing the kind of a unit -------------------------------------- */

static bool precopy_ram_fill_singly(struct precopy_ram *ram,
				    struct precopy_ram_unit *u, gfp_t gfp)
{
	for (; u->nr < (1U << ram->order); u->nr++) {
		u->pages[u->nr] = alloc_page(gfp);
		if (!u->pages[u->nr])
			return false;
	}
	return true;
}

/**
 * precopy_ram_spare - allocate a unit for precopy_ram_swap()
 * @ram: the contents
 * @huge: true for one folio, false for single pages
 * @pages: zeroed page to use as table of single pages, or NULL; freed if this
 *	   fails
 * @gfp: how hard to try. Splits and collapses pass PRECOPY_GFP_EASY: nobody is
 *	 to be killed for a unit that could stay as it is.
 *
 * Context: process context, may sleep; no lock of this driver held but
 * those of a move and memory.split_sem.
 * Return: a unit with all of its pages, or NULL.
 */
struct precopy_ram_unit *precopy_ram_spare(struct precopy_ram *ram, bool huge,
					   struct page **pages, gfp_t gfp)
{
	struct precopy_ram_unit *u;
	bool good = false;

	CLASS(precopy_charge, old)(ram->memcg);
	u = precopy_ram_unit_alloc(ram, huge, pages, gfp);
	if (!u)
		precopy_ram_free_table(pages);
	if (u && huge)
		good = u->folio;
	else if (u)
		good = precopy_ram_fill(ram, u, gfp) ||
		       precopy_ram_fill_singly(ram, u, gfp);
	if (good)
		return u;
	precopy_ram_unit_free(ram, u);
	return NULL;
}

/* Is every page there and good, and nobody but us has a reference on any? */
static bool precopy_ram_unit_idle(struct precopy_ram *ram,
				  const struct precopy_ram_unit *u)
{
	struct page *page;
	unsigned long i;

	if (u->folio && precopy_folio_busy(u->folio, u->held))
		return false;
	for (i = 0; i < (1UL << ram->order); i++) {
		page = precopy_ram_unit_page(u, i);
		if (!page || PageHWPoison(page) ||
		    (!u->folio && precopy_folio_busy(page_folio(page), 0)))
			return false;
	}
	return true;
}

/**
 * precopy_ram_idle - check whether a unit can be moved to other pages
 * @ram: the contents
 * @unit: unit number, of a unit in use
 *
 * Context: memory.sem held for write.
 * Return: true if every page is there and has no memory error, and nobody has a
 * reference on any.
 */
bool precopy_ram_idle(struct precopy_ram *ram, unsigned long unit)
{
	lockdep_assert_held_write(ram->sem);
	return precopy_ram_unit_idle(ram, xa_load(&ram->units, unit));
}

/**
 * precopy_ram_copy - copy the contents of a unit, before precopy_ram_swap()
 * @ram: the contents, with a reference
 * @unit: unit number, of a unit that has all of its pages
 * @spare: unit to copy to
 *
 * Context: the unit's move locked, so that it keeps its pages; may sleep. memory.sem
 * need not be held: what is stored meanwhile is copied or not.
 * Return: true, or false at a page with a memory error.
 */
bool precopy_ram_copy(struct precopy_ram *ram, unsigned long unit,
		      struct precopy_ram_unit *spare)
{
	struct precopy_ram_unit *u = xa_load(&ram->units, unit);
	unsigned long i;

	for (i = 0; i < (1UL << ram->order); i++) {
		if (copy_mc_highpage(precopy_ram_unit_page(spare, i),
				     precopy_ram_unit_page(u, i)))
			return false;
		cond_resched();
	}
	return true;
}

/**
 * precopy_ram_swap - move the contents of a unit to other pages
 * @ram: the contents
 * @unit: unit number, of a unit in use
 * @spare: unit to move to; has the old pages afterwards, for the caller to free
 * @pages: bitmap of PRECOPY_UNIT_PAGES bits: the pages that are still to be copied
 *
 * Context: memory.sem held for write, nothing of the unit mapped.
 * Return: true, or false if a page is missing or has a memory error, or somebody
 * has a reference on one: a store through that would be lost. Then nothing is
 * changed.
 */
bool precopy_ram_swap(struct precopy_ram *ram, unsigned long unit,
		      struct precopy_ram_unit *spare, const unsigned long *pages)
{
	struct precopy_ram_unit *u = xa_load(&ram->units, unit);
	unsigned long i;

	lockdep_assert_held_write(ram->sem);
	if (!precopy_ram_unit_idle(ram, u))
		return false;
	for_each_set_bit(i, pages, 1UL << ram->order)
		if (copy_mc_highpage(precopy_ram_unit_page(spare, i),
				     precopy_ram_unit_page(u, i)))
			return false;
	guard(spinlock)(&ram->lock);
	swap(*u, *spare);
	if (u->folio)
		atomic_long_inc(&ram->changes);
	return true;
}

/**
 * precopy_ram_unit_full - check whether a unit has all of its pages
 * @ram: the contents
 * @unit: unit number
 *
 * Context: memory.sem held.
 * Return: true if so.
 */
bool precopy_ram_unit_full(struct precopy_ram *ram, unsigned long unit)
{
	struct precopy_ram_unit *u = xa_load(&ram->units, unit);

	lockdep_assert_held(ram->sem);
	return u && precopy_ram_unit_nr(ram, u) == 1UL << ram->order;
}

/* --- Memory in use ---------------------------------------------------- */

/* Looks at each page only if the unit has holes */
static void precopy_ram_pages_of(const struct precopy_ram *ram,
				 const struct precopy_ram_unit *u,
				 unsigned long *pages)
{
	unsigned long i;

	bitmap_zero(pages, PRECOPY_UNIT_PAGES);
	if (precopy_ram_unit_nr(ram, u) == 1UL << ram->order) {
		bitmap_set(pages, 0, 1UL << ram->order);
		return;
	}
	for (i = 0; i < (1UL << ram->order); i++)
		if (precopy_ram_unit_page(u, i))
			__set_bit(i, pages);
}

/**
 * precopy_ram_unit_pages - get the pages of a unit that are there
 * @ram: the contents
 * @unit: unit number
 * @pages: result: bitmap of PRECOPY_UNIT_PAGES bits
 *
 * Context: memory.sem held.
 * Return: number of pages.
 */
unsigned long precopy_ram_unit_pages(struct precopy_ram *ram,
				     unsigned long unit, unsigned long *pages)
{
	struct precopy_ram_unit *u = xa_load(&ram->units, unit);

	lockdep_assert_held(ram->sem);
	bitmap_zero(pages, PRECOPY_UNIT_PAGES);
	if (u)
		precopy_ram_pages_of(ram, u, pages);
	return bitmap_weight(pages, PRECOPY_UNIT_PAGES);
}

/**
 * precopy_ram_walk - visit all units in use
 * @ram: the contents
 * @visit: called under RCU for each unit, in the order of their numbers
 * @arg: passed to @visit
 *
 * For callers that hold memory.sem for write, for which others wait: it costs no
 * look-up for each unit, nor an operation for each page of a unit that is whole.
 *
 * Context: may sleep between two units; memory.sem held.
 */
void precopy_ram_walk(struct precopy_ram *ram, precopy_ram_visit visit,
		      void *arg)
{
	DECLARE_BITMAP(pages, PRECOPY_UNIT_PAGES);
	XA_STATE(xas, &ram->units, 0);
	struct precopy_ram_unit *u;
	unsigned long nr;

	lockdep_assert_held(ram->sem);
	guard(rcu)();
	xas_for_each(&xas, u, ULONG_MAX) {
		if (xas_retry(&xas, u))
			continue;
		nr = precopy_ram_unit_nr(ram, u);
		if (nr != PRECOPY_UNIT_PAGES)
			precopy_ram_pages_of(ram, u, pages);
		visit(xas.xa_index, nr == PRECOPY_UNIT_PAGES ? NULL : pages,
		      nr == 1UL << ram->order, u->folio, arg);
		if (need_resched()) {
			xas_pause(&xas);
			cond_resched_rcu();
		}
	}
}

/**
 * precopy_ram_changes - count the changes after which a unit may need more memory
 * @ram: the contents, or NULL
 *
 * A unit that is added is counted after it can be found.
 *
 * Context: memory.sem held.
 * Return: number of units that were added or became one folio, which does not change
 * back.
 */
unsigned long precopy_ram_changes(const struct precopy_ram *ram)
{
	return ram ? atomic_long_read_acquire(&ram->changes) : 0;
}

/**
 * precopy_ram_next_unit - find a unit in use
 * @ram: the contents
 * @from: unit to start from
 *
 * Context: memory.sem held.
 * Return: the first one at or after @from, ULONG_MAX if there is none.
 */
unsigned long precopy_ram_next_unit(struct precopy_ram *ram,
				    unsigned long from)
{
	unsigned long unit = from;

	lockdep_assert_held(ram->sem);
	return xa_find(&ram->units, &unit, ULONG_MAX - 1, XA_PRESENT) ?
	       unit : ULONG_MAX;
}

/**
 * precopy_ram_units - find the next units in use
 * @ram: the contents
 * @from: unit to start from, a multiple of PRECOPY_BATCH_UNITS
 * @used: result: bitmap of PRECOPY_BATCH_UNITS bits, the units in use from the one on
 *	  that is returned
 * @huge: result: the same for units that are one folio
 *
 * For callers that look at all units, and let others have memory.sem now and then.
 *
 * Context: memory.sem held.
 * Return: number of the first unit of the next batch that has a unit in use, at or
 * after @from; ULONG_MAX if there is none.
 */
unsigned long precopy_ram_units(struct precopy_ram *ram, unsigned long from,
				unsigned long *used, unsigned long *huge)
{
	unsigned long first = precopy_ram_next_unit(ram, from);
	struct precopy_ram_unit *u;
	XA_STATE(xas, &ram->units, 0);

	if (first == ULONG_MAX)
		return first;
	first = round_down(first, PRECOPY_BATCH_UNITS);
	bitmap_zero(used, PRECOPY_BATCH_UNITS);
	bitmap_zero(huge, PRECOPY_BATCH_UNITS);
	xas_set(&xas, first);
	guard(rcu)();
	xas_for_each(&xas, u, first + PRECOPY_BATCH_UNITS - 1) {
		if (xas_retry(&xas, u))
			continue;
		__set_bit(xas.xa_index - first, used);
		if (u->folio)
			__set_bit(xas.xa_index - first, huge);
	}
	return first;
}

struct precopy_ram_whole {
	unsigned long *units;
	u64 nr;
};

static void precopy_ram_note_whole(unsigned long unit,
				   const unsigned long *pages, bool whole,
				   bool huge, void *arg)
{
	struct precopy_ram_whole *found = arg;

	if (!whole)
		return;
	__set_bit(unit, found->units);
	found->nr++;
}

/**
 * precopy_ram_whole_units - find the units that have all of their pages
 * @ram: the contents, or NULL
 * @units: result: bitmap of one bit a unit, zeroed by the caller
 *
 * Context: memory.sem held.
 * Return: bytes of pages in these units.
 */
u64 precopy_ram_whole_units(struct precopy_ram *ram, unsigned long *units)
{
	struct precopy_ram_whole found = { .units = units };

	if (!ram)
		return 0;
	precopy_ram_walk(ram, precopy_ram_note_whole, &found);
	return found.nr * (PAGE_SIZE << ram->order);
}

/**
 * precopy_ram_bytes - get the size of the memory in use
 * @ram: the contents, or NULL
 *
 * Return: bytes of pages allocated.
 */
u64 precopy_ram_bytes(struct precopy_ram *ram)
{
	return ram ? atomic64_read(&ram->bytes) : 0;
}
