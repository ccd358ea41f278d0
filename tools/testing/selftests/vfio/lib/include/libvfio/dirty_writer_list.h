/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The names of the rows of dirty_writers[]. The includer defines
 * FIXTURE_VARIANT_ADD_WRITER(name), which makes a variant of one of its fixtures,
 * as those of the kernel's libvfio for the modes of the IOMMU. So this may be
 * included more than once.
 */
FIXTURE_VARIANT_ADD_WRITER(store);
FIXTURE_VARIANT_ADD_WRITER(second_mapping);
FIXTURE_VARIANT_ADD_WRITER(both_mappings);
FIXTURE_VARIANT_ADD_WRITER(short_mapping);
FIXTURE_VARIANT_ADD_WRITER(child);
FIXTURE_VARIANT_ADD_WRITER(child_with_own_mapping);
FIXTURE_VARIANT_ADD_WRITER(pwrite);
FIXTURE_VARIANT_ADD_WRITER(read_into);
FIXTURE_VARIANT_ADD_WRITER(direct_read);
FIXTURE_VARIANT_ADD_WRITER(process_vm_writev);
FIXTURE_VARIANT_ADD_WRITER(process_vm_writev_to_child);
FIXTURE_VARIANT_ADD_WRITER(proc_mem);
FIXTURE_VARIANT_ADD_WRITER(proc_mem_of_child);
FIXTURE_VARIANT_ADD_WRITER(ptrace_poke);
FIXTURE_VARIANT_ADD_WRITER(futex_op);
FIXTURE_VARIANT_ADD_WRITER(kvm_mov);
FIXTURE_VARIANT_ADD_WRITER(kvm_lock);
FIXTURE_VARIANT_ADD_WRITER(kvm_sse);
FIXTURE_VARIANT_ADD_WRITER(kvm_avx);
FIXTURE_VARIANT_ADD_WRITER(plain_store);
FIXTURE_VARIANT_ADD_WRITER(atomic_add);
FIXTURE_VARIANT_ADD_WRITER(store_across_pages);
#ifdef __x86_64__
FIXTURE_VARIANT_ADD_WRITER(movsq);
FIXTURE_VARIANT_ADD_WRITER(xor_byte);
FIXTURE_VARIANT_ADD_WRITER(rep_movsb);
FIXTURE_VARIANT_ADD_WRITER(rep_stosb);
FIXTURE_VARIANT_ADD_WRITER(push_memory);
FIXTURE_VARIANT_ADD_WRITER(sse_copy);
#endif

#undef FIXTURE_VARIANT_ADD_WRITER
