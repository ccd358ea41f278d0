// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mappings of the BAR and their page faults. Every page table entry is made
 * here, inside a section of memory.sem that checks that the access may happen
 * and tells the tracker of it.
 *
 * While stores to a unit need not be noticed, because nobody tracks or the unit is
 * loose, entries are as large as can be and always writable, so that the mapping
 * costs nothing once it is there: 2 MiB where the unit is one folio and the mapping
 * is aligned, else all pages of the unit at once. Otherwise an entry is made
 * writable only once its page is marked, and then maps one page that is a folio of
 * its own (see mem/layout.c).
 */

#include <linux/file.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/page-flags.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/wait.h>

#include "access.h"
#include "entries.h"
#include "layout.h"
#include "memory.h"
#include "move.h"
#include "ram.h"
#include "track.h"

/* See precopy_fault_enter(): more than it ever takes, if memory is not short */
#define PRECOPY_INSERT_TRIES	16

static struct precopy_memory *precopy_fault_memory(const struct vm_fault *vmf)
{
	return vmf->vma->vm_private_data;
}

static unsigned long precopy_fault_index(const struct vm_fault *vmf)
{
	return vmf->pgoff - precopy_fault_memory(vmf)->pgoff;
}

static unsigned long precopy_fault_unit(const struct vm_fault *vmf)
{
	return precopy_fault_index(vmf) / PRECOPY_UNIT_PAGES;
}

/*
 * May a signal end the wait? User space handles it and then faults again, and
 * get_user_pages() returns if it asked for this. But the kernel's own accesses to
 * user memory have the flag, too, and cannot return: they fault again at once,
 * with FAULT_FLAG_TRIED, and would do so for as long as the startup takes.
 */
static bool precopy_fault_interruptible(unsigned int flags)
{
	if (!(flags & FAULT_FLAG_INTERRUPTIBLE))
		return false;
	return (flags & FAULT_FLAG_USER) || !(flags & FAULT_FLAG_TRIED);
}

/*
 * A task that cannot return to user space is frozen where it waits. It may hold
 * locks of a system call; others that wait for those keep a freezer from
 * succeeding, as they do if this task is not frozen.
 */
static void precopy_fault_sleep(struct precopy_memory *mem, unsigned int flags)
{
	if (precopy_fault_interruptible(flags))
		wait_event_interruptible(mem->wait, !precopy_memory_waits(mem));
	else
		wait_event_state(mem->wait, !precopy_memory_waits(mem),
				 (TASK_KILLABLE | TASK_FREEZABLE_UNSAFE));
}

/*
 * Wait for the startup with the mm's locks dropped, as fault handlers may
 * when they then ask for a retry. The file keeps the device open meanwhile:
 * the VMA may be gone by the time we wake.
 */
static vm_fault_t precopy_fault_wait(struct precopy_memory *mem,
				     struct vm_fault *vmf)
{
	unsigned int flags = vmf->flags;
	struct file *file;

	if (!(flags & FAULT_FLAG_ALLOW_RETRY))
		return VM_FAULT_SIGBUS;
	if (flags & FAULT_FLAG_RETRY_NOWAIT)
		return VM_FAULT_RETRY;

	atomic64_inc(&mem->stats->waited_faults);
	file = get_file(vmf->vma->vm_file);
	release_fault_lock(vmf);
	precopy_fault_sleep(mem, flags);
	fput(file);
	return VM_FAULT_RETRY;
}

/* May the access be done? If not, the section that makes the entry reports it. */
static bool precopy_fault_allowed(struct precopy_memory *mem)
{
	guard(rwsem_read)(&mem->sem);
	return !precopy_memory_access(mem);
}

/* Must there be no entry yet, because precopy_fault_prepare() has to come first? */
static bool precopy_fault_early(struct precopy_memory *mem, unsigned long unit)
{
	return precopy_entries_revoked(mem, unit) ||
	       precopy_move_closed(mem, unit);
}

/*
 * Make the unit and its page ready for the access, before the section that makes
 * the entry: have the page allocated, and for a store that is tracked room for its
 * mark and the unit split. A unit that is to be written is split even if a 2 MiB
 * entry was made meanwhile: otherwise readers of other pages could hold up the
 * store for ever. @held is the folio that the mm has a reference on, if the entry
 * exists and is read-only.
 *
 * Return: 0 or VM_FAULT_OOM.
 */
static vm_fault_t precopy_fault_prepare(const struct vm_fault *vmf, bool write,
					const struct folio *held)
{
	struct precopy_memory *mem = precopy_fault_memory(vmf);
	int ret;

	if (!precopy_fault_allowed(mem))
		return 0;
	precopy_entries_settle(mem, precopy_fault_unit(vmf));
	precopy_layout_wait(mem, precopy_fault_unit(vmf));
	/* -ECANCELED, a reset in between, is no reason to give up */
	ret = precopy_memory_populate(mem, READ_ONCE(mem->generation),
				      precopy_fault_index(vmf),
				      GFP_KERNEL_ACCOUNT);
	if (ret == -ENOMEM)
		return VM_FAULT_OOM;
	if (write)
		precopy_layout_split(mem, precopy_fault_unit(vmf), held);
	return 0;
}

/* --- 2 MiB entries ---------------------------------------------------- */

/* Does the mapping have all of the unit, where one entry can map it? */
static bool precopy_fault_fits_huge(const struct vm_fault *vmf)
{
	unsigned long start = vmf->address & PMD_MASK;
	unsigned long first = precopy_fault_index(vmf) -
			      ((vmf->address - start) >> PAGE_SHIFT);

	return start >= vmf->vma->vm_start &&
	       start + PMD_SIZE <= vmf->vma->vm_end &&
	       IS_ALIGNED(first, PRECOPY_UNIT_PAGES);
}

/*
 * Can there be a 2 MiB entry now, or is there a page table? Without the lock only
 * a hint: a yes is rechecked under the lock, and after a no the small fault does
 * the same.
 */
static bool precopy_huge_possible(const struct vm_fault *vmf)
{
	pmd_t pmd = pmdp_get_lockless(vmf->pmd);

	return pmd_none(pmd) || pmd_trans_huge(pmd);
}

/* Is it a store that has to be noticed? Marking is for the small fault. */
static bool precopy_huge_marks(const struct precopy_memory *mem,
			       const struct vm_fault *vmf)
{
	return (vmf->flags & FAULT_FLAG_WRITE) &&
	       precopy_tracker_notices(mem, precopy_fault_unit(vmf));
}

/* The same, as a hint: it is rechecked under the lock */
static bool precopy_huge_may_mark(struct precopy_memory *mem,
				  const struct vm_fault *vmf)
{
	guard(rwsem_read)(&mem->sem);
	return precopy_huge_marks(mem, vmf);
}

/* Is there a memory error in any page? The mm marks the page, not the folio */
static bool precopy_fault_poisoned(struct folio *folio)
{
	unsigned long i;

	if (!IS_ENABLED(CONFIG_MEMORY_FAILURE))
		return false;
	for (i = 0; i < folio_nr_pages(folio); i++)
		if (PageHWPoison(folio_page(folio, i)))
			return true;
	return false;
}

/*
 * The section of a 2 MiB fault. Inserting over a page table is a bug. Nobody but this
 * file makes page tables here, and only with the unit's entry_sem held, so that none can
 * appear between looking and inserting. Waiting, failing and marking is for the small
 * fault.
 *
 * Return: what the mm gets, or 0 if the unit is not one folio and may become one.
 */
static vm_fault_t precopy_huge_insert(struct precopy_memory *mem,
				      struct vm_fault *vmf)
{
	unsigned long unit = precopy_fault_unit(vmf);
	struct folio *folio;

	guard(rwsem_read)(&mem->sem);
	guard(rwsem_write)(precopy_entries_sem(mem, unit));
	if (precopy_memory_access(mem) || !precopy_huge_possible(vmf) ||
	    precopy_huge_marks(mem, vmf))
		return VM_FAULT_FALLBACK;
	if (precopy_fault_early(mem, unit))
		return 0;
	folio = precopy_ram_huge_folio(mem->ram, unit);
	if (!folio)
		return mem->tracker ? VM_FAULT_FALLBACK : 0;
	/* The small fault reports it; other pages of the unit can be used */
	if (precopy_fault_poisoned(folio))
		return VM_FAULT_FALLBACK;
	atomic64_inc(&mem->stats->huge_faults);
	return vmf_insert_folio_pmd(vmf, folio,
				    !precopy_tracker_notices(mem, unit));
}

static vm_fault_t precopy_huge_fault(struct vm_fault *vmf, unsigned int order)
{
	struct precopy_memory *mem = precopy_fault_memory(vmf);
	bool write = vmf->flags & FAULT_FLAG_WRITE;
	vm_fault_t fault;

	if (!IS_ENABLED(CONFIG_TRANSPARENT_HUGEPAGE) || order != PMD_ORDER ||
	    PAGE_SIZE << order != PRECOPY_UNIT_SIZE ||
	    !precopy_fault_fits_huge(vmf))
		return VM_FAULT_FALLBACK;
	/*
	 * The mm allocates a page table before it calls precopy_fault(). A split
	 * frees the memory that is reserved for it.
	 */
	if (precopy_huge_may_mark(mem, vmf))
		return precopy_fault_prepare(vmf, true, NULL) ?:
		       VM_FAULT_FALLBACK;
	fault = precopy_huge_insert(mem, vmf);
	if (fault)
		return fault;
	fault = precopy_fault_prepare(vmf, write, NULL);
	if (fault)
		return fault;
	precopy_layout_collapse(mem, precopy_fault_unit(vmf));
	return precopy_huge_insert(mem, vmf) ?: VM_FAULT_FALLBACK;
}

/* --- Small entries ---------------------------------------------------- */

/*
 * Somebody has made a 2 MiB entry since the mm found room for small ones: the
 * access has to be tried again. None can come while the unit's entry_sem is held.
 */
static bool precopy_fault_overtaken(const struct vm_fault *vmf)
{
	return pmd_trans_huge(pmdp_get_lockless(vmf->pmd));
}

/*
 * MADV_DONTNEED may free the page table between the moment it is allocated and
 * the moment it is used. The mm calls that running out of memory, which would
 * end a vCPU's run; tried again it finds out whether that is so.
 */
static vm_fault_t precopy_fault_enter(struct vm_fault *vmf, struct page *page,
				      bool write)
{
	int tries = PRECOPY_INSERT_TRIES;
	vm_fault_t fault;

	do {
		fault = vmf_insert_page_mkwrite(vmf, page, write);
	} while (fault == VM_FAULT_OOM && --tries);
	return fault;
}

/*
 * Fault-around: map the rest of the unit as well. A unit may have no 2 MiB entry
 * because it is not one folio, because the mapping is not aligned, or because page
 * tables are left of a time when it was tracked. Then it costs one fault instead of
 * 512.
 *
 * While stores to the unit need not be noticed, entries are @writable, and those that
 * are there and read-only, as tracking leaves them, become so. Otherwise new ones are
 * read-only and clean, which needs no marks, and others stay as they are.
 */
static void precopy_fault_around(struct precopy_memory *mem,
				 struct vm_fault *vmf, bool writable)
{
	struct vm_area_struct *vma = vmf->vma;
	unsigned long index = precopy_fault_index(vmf);
	unsigned long in_unit = index % PRECOPY_UNIT_PAGES;
	unsigned long i, before, after, nr = 0;

	before = min(in_unit, (vmf->address - vma->vm_start) >> PAGE_SHIFT);
	after = min(PRECOPY_UNIT_PAGES - in_unit,
		    (vma->vm_end - vmf->address) >> PAGE_SHIFT);
	for (i = index - before; i < index + after; i++) {
		struct page *page = precopy_memory_page(mem, i);
		struct vm_fault next = {
			.vma = vma,
			.address = vmf->address + (i - index) * PAGE_SIZE,
		};

		if (!page || i == index || PageHWPoison(page))
			continue;
		if (vmf_insert_page_mkwrite(&next, page, writable) !=
		    VM_FAULT_NOPAGE)
			break;
		nr++;
	}
	atomic64_add(nr, &mem->stats->around_pages);
}

/* Is there all that it takes to notice a store to this page of a unit that is not loose? */
static bool precopy_fault_markable(const struct precopy_memory *mem,
				   unsigned long unit, struct page *page)
{
	return precopy_tracker_reserved(mem->tracker, unit) &&
	       !folio_test_large(page_folio(page));
}

/*
 * The one section of a fault: check, mark, insert. While stores need not be noticed,
 * a read fault inserts a writable entry too, so that the store that may follow
 * costs nothing.
 *
 * Return: what the mm gets, or 0 if precopy_fault_prepare() has to come first, or
 * VM_FAULT_RETRY if the caller must wait for the startup.
 */
static vm_fault_t precopy_fault_insert(struct precopy_memory *mem,
				       struct vm_fault *vmf, bool write)
{
	unsigned long index = precopy_fault_index(vmf);
	unsigned long unit = precopy_fault_unit(vmf);
	bool notice, mark;
	struct page *page;
	vm_fault_t fault;
	int ret;

	guard(rwsem_read)(&mem->sem);
	guard(rwsem_read)(precopy_entries_sem(mem, unit));
	ret = precopy_memory_access(mem);
	if (ret)
		return ret == -EAGAIN ? VM_FAULT_RETRY : VM_FAULT_SIGBUS;
	page = precopy_memory_page(mem, index);
	if (!page || precopy_fault_early(mem, unit))
		return 0;
	if (PageHWPoison(page))
		return VM_FAULT_HWPOISON;
	notice = precopy_tracker_notices(mem, unit);
	mark = notice && write;
	if (mark && !precopy_fault_markable(mem, unit, page))
		return 0;
	if (precopy_fault_overtaken(vmf))
		return VM_FAULT_NOPAGE;
	if (mark)
		precopy_tracker_mark(mem, index);
	fault = precopy_fault_enter(vmf, page, write || !notice);
	if (!mark && fault == VM_FAULT_NOPAGE)
		precopy_fault_around(mem, vmf, !notice);
	return fault;
}

/* Make the entry, with all that it needs; @held as for precopy_fault_prepare() */
static vm_fault_t precopy_fault_serve(struct vm_fault *vmf, bool write,
				      const struct folio *held)
{
	struct precopy_memory *mem = precopy_fault_memory(vmf);
	vm_fault_t fault;

	while (!(fault = precopy_fault_insert(mem, vmf, write))) {
		fault = precopy_fault_prepare(vmf, write, held);
		if (fault)
			return fault;
	}
	return fault;
}

static vm_fault_t precopy_fault(struct vm_fault *vmf)
{
	struct precopy_memory *mem = precopy_fault_memory(vmf);
	bool write = vmf->flags & FAULT_FLAG_WRITE;
	vm_fault_t fault;

	atomic64_inc(write ? &mem->stats->write_faults :
			     &mem->stats->read_faults);
	fault = precopy_fault_serve(vmf, write, NULL);
	if (fault == VM_FAULT_RETRY)
		return precopy_fault_wait(mem, vmf);
	return fault;
}

/*
 * A store to a page mapped read-only. The entry is made here, like any other.
 * Returning the page locked and letting the mm make the entry writable would
 * leave a window in which collecting loses the store. Removing the entry for
 * the store to fault again would not do either: an instruction that reads the
 * page before it writes there would get a read-only entry once more, for ever.
 *
 * The page need not be ours any more, if the unit was split meanwhile: then its
 * entry is gone too, and the new page gets one. If accesses must wait, all
 * entries are gone, and the access that is tried again waits in the fault.
 */
static vm_fault_t precopy_page_mkwrite(struct vm_fault *vmf)
{
	struct precopy_memory *mem = precopy_fault_memory(vmf);
	vm_fault_t fault;

	atomic64_inc(&mem->stats->mkwrite_faults);
	fault = precopy_fault_serve(vmf, true, page_folio(vmf->page));
	return fault == VM_FAULT_RETRY ? VM_FAULT_NOPAGE : fault;
}

/*
 * Maps nothing: memory.sem cannot be taken here, under RCU, and precopy_fault() maps
 * the rest of the unit itself. But the mm handles a fault of user space with no lock
 * except that of the VMA only if there is this callback. Otherwise each fault is begun,
 * given up, and done once more with mmap_lock held, for which other threads wait. The
 * handlers here only need the VMA to stay as it is.
 */
static vm_fault_t precopy_map_pages(struct vm_fault *vmf, pgoff_t start,
				    pgoff_t end)
{
	return 0;
}

static const struct vm_operations_struct precopy_vm_ops = {
	.fault		= precopy_fault,
	.map_pages	= precopy_map_pages,
	.huge_fault	= precopy_huge_fault,
	.page_mkwrite	= precopy_page_mkwrite,
};

/**
 * precopy_memory_mmap - map part of the BAR
 * @mem: the memory
 * @vma: mapping to set up
 *
 * Ordinary pages, not VM_PFNMAP: with a page behind a read-only entry KVM
 * makes it writable by a fault; without one it would emulate the store, or
 * fail it. Having page_mkwrite makes long-term pins for writing fail, which is
 * wanted: they could store without being seen.
 *
 * Return: 0 or -EINVAL.
 */
int precopy_memory_mmap(struct precopy_memory *mem, struct vm_area_struct *vma)
{
	u64 start = (u64)vma->vm_pgoff - mem->pgoff;
	u64 end;

	if (!(vma->vm_flags & VM_SHARED))
		return -EINVAL;
	if (check_add_overflow(start, (u64)vma_pages(vma), &end) ||
	    end > mem->size >> PAGE_SHIFT)
		return -EINVAL;

	/* As if by MADV_HUGEPAGE: the system's policy may ask for that */
	vm_flags_set(vma, VM_DONTEXPAND | VM_DONTDUMP | VM_HUGEPAGE);
	vma->vm_private_data = mem;
	vma->vm_ops = &precopy_vm_ops;
	return 0;
}
