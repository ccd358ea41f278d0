// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device for testing KVM: its memory is mapped as VM_PFNMAP, and its owner wants
 * to be asked before the first write to a page, as a driver does that tracks what
 * was written by ->pfn_mkwrite(). The test bed loads it; it is of no other use.
 */
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>

#define MKWRITE_ORDER	2

enum {
	MKWRITE_ALLOW,
	MKWRITE_REFUSE,
	MKWRITE_LEAVE,	/* says that all is well, and leaves the page read-only; once */
};

static unsigned int answer;
module_param(answer, uint, 0600);
MODULE_PARM_DESC(answer, "to a first write: 0 allow, 1 refuse, 2 leave the page read-only, and then allow");

static unsigned int first_writes;
module_param(first_writes, uint, 0600);
MODULE_PARM_DESC(first_writes, "how many there were");

static struct page *mkwrite_pages;

static vm_fault_t mkwrite_fault(struct vm_fault *vmf)
{
	if (vmf->pgoff >= 1 << MKWRITE_ORDER)
		return VM_FAULT_SIGBUS;

	return vmf_insert_pfn(vmf->vma, vmf->address, page_to_pfn(mkwrite_pages) + vmf->pgoff);
}

static vm_fault_t mkwrite_pfn_mkwrite(struct vm_fault *vmf)
{
	first_writes++;
	switch (answer) {
	case MKWRITE_REFUSE:
		return VM_FAULT_SIGBUS;
	case MKWRITE_LEAVE:
		answer = MKWRITE_ALLOW;
		return VM_FAULT_NOPAGE;
	default:
		return 0;
	}
}

static const struct vm_operations_struct mkwrite_vm_ops = {
	.fault = mkwrite_fault,
	.pfn_mkwrite = mkwrite_pfn_mkwrite,
};

static int mkwrite_mmap(struct file *file, struct vm_area_struct *vma)
{
	if (vma_is_cow_mapping(vma))
		return -EINVAL;
	vm_flags_set(vma, VM_PFNMAP | VM_DONTEXPAND | VM_DONTDUMP);
	vma->vm_ops = &mkwrite_vm_ops;

	return 0;
}

static const struct file_operations mkwrite_fops = {
	.owner = THIS_MODULE,
	.mmap = mkwrite_mmap,
};

static struct miscdevice mkwrite_device = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "pfnmap_mkwrite",
	.fops = &mkwrite_fops,
};

static int __init mkwrite_init(void)
{
	int ret;

	mkwrite_pages = alloc_pages(GFP_KERNEL | __GFP_ZERO | __GFP_COMP, MKWRITE_ORDER);
	if (!mkwrite_pages)
		return -ENOMEM;
	ret = misc_register(&mkwrite_device);
	if (ret)
		__free_pages(mkwrite_pages, MKWRITE_ORDER);

	return ret;
}
module_init(mkwrite_init);

static void __exit mkwrite_exit(void)
{
	misc_deregister(&mkwrite_device);
	__free_pages(mkwrite_pages, MKWRITE_ORDER);
}
module_exit(mkwrite_exit);

MODULE_DESCRIPTION("A device whose pages are mapped read-only until they are written");
MODULE_LICENSE("GPL");
