// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/kvm.h>
#include <linux/types.h>

#include <libvfio.h>
#include <libvfio/kvm_guest.h>

#define LOW_CODE	0x1000UL
#define LOW_PML4	0x2000UL
#define LOW_PDPT	0x3000UL
#define LOW_PD		0x4000UL
/* From here on each vCPU has its part. */
#define LOW_VCPUS	0x10000UL
#define VCPU_BEGUN	0x4000UL
#define VCPU_DONE	0x8000UL
#define VCPU_SIZE	0x10000UL

#define SLOT_LOW	0
#define SLOT_BAR	1

#define PTE_TABLE	0x03	/* present, writable */
#define PTE_LARGE	0x83	/* the same, and 2 MiB */
#define LARGE_SIZE	(2UL << 20)

#define CR0_BITS	0x80000033UL	/* PG, NE, ET, MP, PE */
#define CR4_BITS	0x00000620UL	/* OSXMMEXCPT, OSFXSR, PAE */
#define CR4_OSXSAVE	0x00040000UL
#define EFER_LONG	0x500		/* LMA, LME */
#define XCR0_AVX	7		/* AVX, SSE, x87 */

#define CPUID_XSAVE_AVX	0x14000000U	/* bits 26 and 28 */

_Static_assert(VCPU_DONE - VCPU_BEGUN >= KVM_GUEST_MAX_PAGES * sizeof(u64),
	       "room for the counts");

/*
 * The guest's code: an entry for each enum kvm_guest_op. It is copied to
 * LOW_CODE, so it refers to nothing but its registers: %rdi is the struct
 * kvm_guest_cmd, %rbx the address to access.
 *
 * The stores that the tests are about are plain moves also in the loop, so
 * that KVM can emulate them if a test takes their memory away.
 */
asm("	.pushsection .rodata\n"
"	.set	cmd_result, 0x08\n"
"	.set	cmd_data, 0x20\n"
"	.set	walk_base, 0x40\n"
"	.set	walk_begun, 0x48\n"
"	.set	walk_done, 0x50\n"
"	.set	walk_first, 0x58\n"
"	.set	walk_x, 0x60\n"
"	.set	walk_mul, 0x68\n"
"	.set	walk_add, 0x70\n"
"	.set	walk_shift, 0x78\n"
"	.set	walk_mask, 0x80\n"
"	.set	walk_read_mask, 0x88\n"
"	.set	walk_tag, 0x90\n"
"	.set	walk_left, 0x98\n"
"	.set	walk_stop, 0xa0\n"
"	.set	walk_sum, 0xa8\n"
"kvm_guest_code:\n"
"kvm_guest_code_read:\n"
"	movq	(%rbx), %rax\n"
"	movq	%rax, cmd_result(%rdi)\n"
"	hlt\n"
"kvm_guest_code_mov:\n"
"	movq	cmd_data(%rdi), %rax\n"
"	movq	%rax, (%rbx)\n"
"	hlt\n"
"kvm_guest_code_lock:\n"
"	movq	cmd_data(%rdi), %rax\n"
"	lock addq %rax, (%rbx)\n"
"	hlt\n"
"kvm_guest_code_sse:\n"
"	movaps	cmd_data(%rdi), %xmm0\n"
"	movaps	%xmm0, (%rbx)\n"
"	hlt\n"
"kvm_guest_code_avx:\n"
"	vmovups	cmd_data(%rdi), %ymm0\n"
"	vmovups	%ymm0, (%rbx)\n"
"	hlt\n"
"kvm_guest_code_walk:\n"
"	cmpq	$0, walk_stop(%rdi)\n"
"	jne	9f\n"
"	subq	$1, walk_left(%rdi)\n"
"	jc	9f\n"
"	movq	walk_x(%rdi), %rax\n"
"	imulq	walk_mul(%rdi), %rax\n"
"	addq	walk_add(%rdi), %rax\n"
"	movq	%rax, walk_x(%rdi)\n"
"	movq	walk_shift(%rdi), %rcx\n"
"	movq	%rax, %rdx\n"
"	shrq	%cl, %rdx\n"
"	andq	walk_mask(%rdi), %rdx\n"
"	addq	walk_first(%rdi), %rdx\n"	/* %rdx: the page */
"	movq	%rdx, %rbx\n"
"	shlq	$12, %rbx\n"
"	addq	walk_base(%rdi), %rbx\n"
"	shrq	$20, %rax\n"
"	testq	walk_read_mask(%rdi), %rax\n"
"	jnz	2f\n"
"	movq	walk_begun(%rdi), %r8\n"
"	movq	(%r8, %rdx, 8), %rcx\n"
"	incq	%rcx\n"			/* %rcx: its count */
"	movq	%rcx, (%r8, %rdx, 8)\n"
"	movq	%rcx, %rax\n"
"	shlq	$32, %rax\n"
"	movq	%rdx, %r9\n"
"	shlq	$8, %r9\n"
"	orq	%r9, %rax\n"
"	orq	walk_tag(%rdi), %rax\n"
"	movq	%rax, (%rbx)\n"
"	movq	walk_done(%rdi), %r8\n"
"	movq	%rcx, (%r8, %rdx, 8)\n"
"	jmp	kvm_guest_code_walk\n"
"2:	movq	(%rbx), %rax\n"
"	addq	%rax, walk_sum(%rdi)\n"
"	jmp	kvm_guest_code_walk\n"
"9:	movq	$0, walk_left(%rdi)\n"
"	hlt\n"
"kvm_guest_code_end:\n"
"	.popsection\n"
);

#define SAME_OFFSET(member, offset)					\
	_Static_assert(offsetof(struct kvm_guest_cmd, member) == (offset), #member)

SAME_OFFSET(result, 0x08);
SAME_OFFSET(data, 0x20);
SAME_OFFSET(walk.base, 0x40);
SAME_OFFSET(walk.begun, 0x48);
SAME_OFFSET(walk.done, 0x50);
SAME_OFFSET(walk.first, 0x58);
SAME_OFFSET(walk.x, 0x60);
SAME_OFFSET(walk.mul, 0x68);
SAME_OFFSET(walk.add, 0x70);
SAME_OFFSET(walk.shift, 0x78);
SAME_OFFSET(walk.mask, 0x80);
SAME_OFFSET(walk.read_mask, 0x88);
SAME_OFFSET(walk.tag, 0x90);
SAME_OFFSET(walk.left, 0x98);
SAME_OFFSET(walk.stop, 0xa0);
SAME_OFFSET(walk.sum, 0xa8);

void kvm_guest_walk_here(struct kvm_guest_walk *walk)
{
	volatile u64 *begun = (u64 *)walk->begun, *done = (u64 *)walk->done;
	volatile u64 *stop = &walk->stop, *word;
	u64 page, count;

	for (; walk->left && !*stop; walk->left--) {
		walk->x = walk->x * walk->mul + walk->add;
		page = walk->first + ((walk->x >> walk->shift) & walk->mask);
		word = (u64 *)(walk->base + (page << 12));
		if ((walk->x >> 20) & walk->read_mask) {
			walk->sum += *word;
			continue;
		}
		/* Volatile, and x86 keeps the order of stores. */
		count = begun[page] + 1;
		begun[page] = count;
		*word = kvm_guest_stamp(count, page, walk->tag);
		done[page] = count;
	}
	walk->left = 0;
}

/* ------------------------------------------------------------------------ */

const char *kvm_guest_missing(void)
{
	const char *why = NULL;
	int kvm, vm;

	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		return "no /dev/kvm";
	vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (vm < 0)
		why = "KVM makes no virtual machine";
	else if (ioctl(vm, KVM_CHECK_EXTENSION, KVM_CAP_BINARY_STATS_FD) <= 0)
		why = "KVM has no binary statistics";
	if (vm >= 0)
		close(vm);
	close(kvm);

	return why;
}

static int set_slot(struct kvm_guest *guest, u32 slot, u64 gpa, void *hva,
		    size_t size)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = gpa,
		.memory_size = hva ? size : 0,
		.userspace_addr = (uintptr_t)hva,
	};

	return ioctl(guest->vm, KVM_SET_USER_MEMORY_REGION, &region) ? -errno : 0;
}

int kvm_guest_set_bar(struct kvm_guest *guest, void *hva, size_t size)
{
	return set_slot(guest, SLOT_BAR, KVM_GUEST_BAR_GPA, hva, size);
}

/* 1 GiB mapped one to one. */
static void init_low(struct kvm_guest *guest)
{
	u64 *pml4, *pdpt, *pd;
	size_t i;

	guest->low_size = LOW_VCPUS + guest->nr_vcpus * VCPU_SIZE;
	guest->low = mmap(NULL, guest->low_size, PROT_READ | PROT_WRITE,
			  MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	VFIO_ASSERT_NE(guest->low, MAP_FAILED);

	memcpy(guest->low + LOW_CODE, kvm_guest_code,
	       kvm_guest_code_end - kvm_guest_code);
	pml4 = guest->low + LOW_PML4;
	pdpt = guest->low + LOW_PDPT;
	pd = guest->low + LOW_PD;
	pml4[0] = LOW_PDPT | PTE_TABLE;
	pdpt[0] = LOW_PD | PTE_TABLE;
	for (i = 0; i < 512; i++)
		pd[i] = (i * LARGE_SIZE) | PTE_LARGE;
	VFIO_ASSERT_EQ(set_slot(guest, SLOT_LOW, 0, guest->low, guest->low_size),
		       0);
}

/* What the host has, the guest has: AVX among it. */
static struct kvm_cpuid2 *supported_cpuid(struct kvm_guest *guest)
{
	struct kvm_cpuid2 *cpuid;
	u32 i, nr = 256;

	cpuid = calloc_assert(1, sizeof(*cpuid) + nr * sizeof(cpuid->entries[0]));
	cpuid->nent = nr;
	VFIO_ASSERT_EQ(ioctl(guest->kvm, KVM_GET_SUPPORTED_CPUID, cpuid), 0);
	for (i = 0; i < cpuid->nent; i++)
		if (cpuid->entries[i].function == 1)
			guest->avx = (cpuid->entries[i].ecx & CPUID_XSAVE_AVX) ==
				     CPUID_XSAVE_AVX;

	return cpuid;
}

static void init_mode(struct kvm_guest *guest, struct kvm_guest_vcpu *vcpu)
{
	struct kvm_segment code = {
		.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1,
		.s = 1, .l = 1, .g = 1,
	};
	struct kvm_segment data = {
		.limit = 0xffffffff, .selector = 16, .type = 3, .present = 1,
		.s = 1, .db = 1, .g = 1,
	};
	struct kvm_xcrs xcrs = { .nr_xcrs = 1, .xcrs[0].value = XCR0_AVX };
	struct kvm_sregs sregs;

	VFIO_ASSERT_EQ(ioctl(vcpu->fd, KVM_GET_SREGS, &sregs), 0);
	sregs.cs = code;
	sregs.ds = data;
	sregs.es = data;
	sregs.fs = data;
	sregs.gs = data;
	sregs.ss = data;
	sregs.cr0 = CR0_BITS;
	sregs.cr3 = LOW_PML4;
	sregs.cr4 = CR4_BITS | (guest->avx ? CR4_OSXSAVE : 0);
	sregs.efer = EFER_LONG;
	VFIO_ASSERT_EQ(ioctl(vcpu->fd, KVM_SET_SREGS, &sregs), 0);
	if (guest->avx)
		VFIO_ASSERT_EQ(ioctl(vcpu->fd, KVM_SET_XCRS, &xcrs), 0);
}

static void init_vcpu(struct kvm_guest *guest, int nr, struct kvm_cpuid2 *cpuid)
{
	struct kvm_guest_vcpu *vcpu = &guest->vcpus[nr];

	vcpu->fd = ioctl(guest->vm, KVM_CREATE_VCPU, nr);
	VFIO_ASSERT_GE(vcpu->fd, 0);
	vcpu->run = mmap(NULL, guest->run_size, PROT_READ | PROT_WRITE,
			 MAP_SHARED, vcpu->fd, 0);
	VFIO_ASSERT_NE((void *)vcpu->run, MAP_FAILED);
	VFIO_ASSERT_EQ(ioctl(vcpu->fd, KVM_SET_CPUID2, cpuid), 0);
	init_mode(guest, vcpu);

	vcpu->cmd_gpa = LOW_VCPUS + nr * VCPU_SIZE;
	vcpu->begun_gpa = vcpu->cmd_gpa + VCPU_BEGUN;
	vcpu->done_gpa = vcpu->cmd_gpa + VCPU_DONE;
	vcpu->cmd = guest->low + vcpu->cmd_gpa;
	vcpu->begun = guest->low + vcpu->begun_gpa;
	vcpu->done = guest->low + vcpu->done_gpa;
}

void kvm_guest_init(struct kvm_guest *guest, int nr_vcpus)
{
	struct kvm_cpuid2 *cpuid;
	int i;

	VFIO_ASSERT_LE(nr_vcpus, KVM_GUEST_MAX_VCPUS);
	memset(guest, 0, sizeof(*guest));
	guest->nr_vcpus = nr_vcpus;
	guest->kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	VFIO_ASSERT_GE(guest->kvm, 0);
	guest->vm = ioctl(guest->kvm, KVM_CREATE_VM, 0);
	VFIO_ASSERT_GE(guest->vm, 0);
	guest->run_size = ioctl(guest->kvm, KVM_GET_VCPU_MMAP_SIZE, 0);
	init_low(guest);

	cpuid = supported_cpuid(guest);
	for (i = 0; i < nr_vcpus; i++)
		init_vcpu(guest, i, cpuid);
	free(cpuid);
}

void kvm_guest_cleanup(struct kvm_guest *guest)
{
	int i;

	if (!guest->low)
		return;
	for (i = 0; i < guest->nr_vcpus; i++) {
		munmap(guest->vcpus[i].run, guest->run_size);
		close(guest->vcpus[i].fd);
	}
	close(guest->vm);
	close(guest->kvm);
	munmap(guest->low, guest->low_size);
	memset(guest, 0, sizeof(*guest));
}

/* ------------------------------------------------------------------------ */

void kvm_guest_start(struct kvm_guest_vcpu *vcpu, enum kvm_guest_op op)
{
	static const u8 * const entries[] = {
		[KVM_GUEST_READ] = kvm_guest_code_read,
		[KVM_GUEST_MOV] = kvm_guest_code_mov,
		[KVM_GUEST_LOCK] = kvm_guest_code_lock,
		[KVM_GUEST_SSE] = kvm_guest_code_sse,
		[KVM_GUEST_AVX] = kvm_guest_code_avx,
		[KVM_GUEST_WALK] = kvm_guest_code_walk,
	};
	struct kvm_regs regs = {
		.rip = LOW_CODE + (entries[op] - kvm_guest_code),
		.rdi = vcpu->cmd_gpa,
		.rbx = vcpu->cmd->addr,
		.rflags = 2,
	};

	VFIO_ASSERT_EQ(ioctl(vcpu->fd, KVM_SET_REGS, &regs), 0);
}

int kvm_guest_run(struct kvm_guest_vcpu *vcpu)
{
	int ret;

	do {
		ret = ioctl(vcpu->fd, KVM_RUN, 0) ? -errno : 0;
	} while (ret == -EINTR || ret == -EAGAIN);

	return ret ?: (int)vcpu->run->exit_reason;
}

int kvm_guest_access(struct kvm_guest_vcpu *vcpu, enum kvm_guest_op op,
		     u64 offset, u64 value)
{
	int i;

	vcpu->cmd->addr = KVM_GUEST_BAR_GPA + offset;
	for (i = 0; i < 4; i++)
		vcpu->cmd->data[i] = value;
	kvm_guest_start(vcpu, op);

	return kvm_guest_run(vcpu);
}

/* ------------------------------------------------------------------------ */

static void stats_read(int fd, void *buf, size_t len, u64 at)
{
	VFIO_ASSERT_EQ(pread(fd, buf, len, at), (ssize_t)len);
}

static u64 stats_find(int fd, const char *name)
{
	struct kvm_stats_header header;
	struct kvm_stats_desc *desc;
	u64 at, value = 0;
	size_t len;
	u32 i;

	stats_read(fd, &header, sizeof(header), 0);
	len = sizeof(*desc) + header.name_size;
	desc = calloc_assert(1, len);
	for (i = 0; i < header.num_desc; i++) {
		stats_read(fd, desc, len, header.desc_offset + i * len);
		if (!strcmp(desc->name, name))
			break;
	}
	VFIO_ASSERT_LT(i, header.num_desc, "KVM has no statistic %s\n", name);
	at = header.data_offset + desc->offset;
	stats_read(fd, &value, sizeof(value), at);
	free(desc);

	return value;
}

u64 kvm_guest_stat(int vm_or_vcpu_fd, const char *name)
{
	int fd = ioctl(vm_or_vcpu_fd, KVM_GET_STATS_FD, NULL);
	u64 value;

	VFIO_ASSERT_GE(fd, 0);
	value = stats_find(fd, name);
	close(fd);

	return value;
}
