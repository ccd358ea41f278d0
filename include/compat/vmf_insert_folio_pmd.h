/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * vmf_insert_folio_pmd() for kernels such as 6.12: there are no 2 MiB entries. The BAR is
 * mapped with VM_NOHUGEPAGE, so that the mm does not even ask for them.
 */
#ifndef _PRECOPY_COMPAT_VMF_INSERT_FOLIO_PMD_H
#define _PRECOPY_COMPAT_VMF_INSERT_FOLIO_PMD_H

#include <linux/huge_mm.h>
#include <linux/mm.h>

static inline vm_fault_t
precopy_compat_insert_folio_pmd(struct vm_fault *vmf, struct folio *folio,
				bool write)
{
	return VM_FAULT_FALLBACK;
}

#define vmf_insert_folio_pmd precopy_compat_insert_folio_pmd

#undef VM_HUGEPAGE
#define VM_HUGEPAGE VM_NOHUGEPAGE

#endif /* _PRECOPY_COMPAT_VMF_INSERT_FOLIO_PMD_H */
