/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vmf_insert_page_mkwrite() for kernels such as 6.12: vm_insert_page(), and then the entry is
 * made writable if that was asked for.
 *
 * vm_insert_page() counts the page as the mm counts any mapped page: a reference and a
 * mapping for each entry, on which precopy_ram_busy() relies. vmf_insert_mixed() does not,
 * and neither does any other function that a module can call.
 *
 * vm_insert_page() insists on VM_MIXEDMAP, which only mmap() could set. Nothing needs the
 * flag where an entry itself says whether a page is behind it, but it would change what
 * the mm does with the mapping: fork() would copy entries, outside of memory.sem, and a
 * mapping that is added while precopy_folio_busy() compares its two counts hides a pin. So
 * only the copy of the VMA that is passed down here has it.
 *
 * The entry is read-only between the two steps. If it is removed there, the access
 * faults again. The driver has marked the page before, so that it does not matter if
 * the page is collected meanwhile.
 */
#ifndef _PRECOPY_COMPAT_VMF_INSERT_PAGE_MKWRITE_H
#define _PRECOPY_COMPAT_VMF_INSERT_PAGE_MKWRITE_H

#include <linux/mm.h>
#include <linux/pgtable.h>

#if !defined(CONFIG_X86_64) || !defined(CONFIG_ARCH_HAS_PTE_SPECIAL)
#error "this replacement is for x86-64"
#endif

static inline int
precopy_compat_insert_page(struct vm_area_struct *vma, unsigned long addr,
			   struct page *page)
{
	struct vm_area_struct copy = {
		.vm_start	= vma->vm_start,
		.vm_end		= vma->vm_end,
		.vm_mm		= vma->vm_mm,
		.vm_page_prot	= vma->vm_page_prot,
	};

	vm_flags_init(&copy, vma->vm_flags | VM_MIXEDMAP);
	return vm_insert_page(&copy, addr, page);
}

struct precopy_compat_entry {
	struct mm_struct *mm;
	struct page	 *page;
};

/*
 * With the lock of the page table held. An entry that is not writable is not changed by
 * the processor, but for the accessed bit, which is set here.
 */
static inline int precopy_compat_mkwrite_pte(pte_t *pte, unsigned long addr,
					     void *data)
{
	struct precopy_compat_entry *new = data;
	pte_t entry = ptep_get(pte);

	if (!pte_present(entry) || pte_write(entry) ||
	    pte_pfn(entry) != page_to_pfn(new->page))
		return 0;
	entry = pte_mkwrite_novma(pte_mkdirty(pte_mkyoung(entry)));
	set_pte_at(new->mm, addr, pte, pte_clear_saveddirty(entry));
	return 0;
}

static inline void
precopy_compat_mkwrite(struct vm_area_struct *vma, unsigned long addr,
		       struct page *page)
{
	struct precopy_compat_entry new = { .mm = vma->vm_mm, .page = page };

	if (vma->vm_flags & VM_WRITE)
		apply_to_existing_page_range(vma->vm_mm, addr, PAGE_SIZE,
					     precopy_compat_mkwrite_pte, &new);
}

static inline vm_fault_t
precopy_compat_vmf_insert_page(struct vm_fault *vmf, struct page *page,
			       bool write)
{
	int ret = precopy_compat_insert_page(vmf->vma, vmf->address, page);

	if (ret == -ENOMEM)
		return VM_FAULT_OOM;
	/* There is an entry already: for a load it will do */
	if (ret && ret != -EBUSY)
		return VM_FAULT_SIGBUS;
	if (write)
		precopy_compat_mkwrite(vmf->vma, vmf->address, page);
	return VM_FAULT_NOPAGE;
}

#define vmf_insert_page_mkwrite precopy_compat_vmf_insert_page

#endif /* _PRECOPY_COMPAT_VMF_INSERT_PAGE_MKWRITE_H */
