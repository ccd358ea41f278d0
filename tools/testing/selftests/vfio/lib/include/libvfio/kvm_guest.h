/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A KVM guest of a few hundred bytes, for tests of what a virtual machine's
 * stores do to the memory of a device. Its vCPUs are in 64-bit mode, flat, with
 * two memory slots: a low one with code, page tables and the structures below,
 * and the BAR. There is no interrupt controller: all that a vCPU does ends with
 * HLT, which is the only exit it needs.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_KVM_GUEST_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_KVM_GUEST_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/kvm.h>
#include <linux/types.h>

#define KVM_GUEST_MAX_VCPUS	4
/* Aligned to any size of a BAR that a test uses. */
#define KVM_GUEST_BAR_GPA	0x10000000UL
/* Pages that the arrays of a vCPU have room for. */
#define KVM_GUEST_MAX_PAGES	2048

enum kvm_guest_op {
	KVM_GUEST_READ,		/* one load of 8 bytes */
	KVM_GUEST_MOV,		/* one store of 8 bytes */
	KVM_GUEST_LOCK,		/* lock addq */
	KVM_GUEST_SSE,		/* movaps, 16 bytes */
	KVM_GUEST_AVX,		/* vmovups, 32 bytes */
	KVM_GUEST_WALK,		/* struct kvm_guest_walk */
};

/*
 * Loads and stores in a loop, at pages that a generator x = x * mul + add
 * picks: page = first + ((x >> shift) & mask). A page's stores are counted:
 * begun[page] before, done[page] after. What is stored is the count in the
 * upper half, then the page and the tag. All of it can be watched, and stop
 * set, while the loop is running.
 *
 * Whoever runs the loop has its own addresses: the guest its physical ones.
 */
struct kvm_guest_walk {
	u64 base;		/* address of the word of page 0 */
	u64 begun;		/* address of a u64 for each page */
	u64 done;		/* the same */
	u64 first;
	u64 x, mul, add, shift, mask;
	u64 read_mask;		/* load if (x >> 20) & read_mask */
	u64 tag;		/* below 256 */
	u64 left;		/* loads and stores to do */
	u64 stop;
	u64 sum;		/* of what was loaded */
};

static inline u64 kvm_guest_stamp(u64 count, u64 page, u64 tag)
{
	return count << 32 | page << 8 | tag;
}

/* The same loop for a thread of user space. */
void kvm_guest_walk_here(struct kvm_guest_walk *walk);

/* What a vCPU shares with the host; the first page of its part of low memory. */
struct kvm_guest_cmd {
	u64 addr;
	u64 result;
	u64 unused[2];
	u64 data[4];		/* aligned for movaps */
	struct kvm_guest_walk walk;
};

struct kvm_guest_vcpu {
	int fd;
	struct kvm_run *run;
	struct kvm_guest_cmd *cmd;
	u64 cmd_gpa;
	/* arrays of KVM_GUEST_MAX_PAGES counts for a walk */
	u64 *begun;
	u64 begun_gpa;
	u64 *done;
	u64 done_gpa;
};

struct kvm_guest {
	int kvm;
	int vm;
	bool avx;
	void *low;
	size_t low_size;
	size_t run_size;
	int nr_vcpus;
	struct kvm_guest_vcpu vcpus[KVM_GUEST_MAX_VCPUS];
};

/* NULL if there can be a guest, else the reason why not. */
const char *kvm_guest_missing(void);

void kvm_guest_init(struct kvm_guest *guest, int nr_vcpus);
void kvm_guest_cleanup(struct kvm_guest *guest);

/*
 * The BAR's slot at KVM_GUEST_BAR_GPA; without an @hva it is deleted. Returns 0
 * or a negative errno.
 */
int kvm_guest_set_bar(struct kvm_guest *guest, void *hva, size_t size);

/* Makes kvm_guest_run() begin with @op. */
void kvm_guest_start(struct kvm_guest_vcpu *vcpu, enum kvm_guest_op op);

/*
 * Runs until an exit that is not due to a signal. Returns its KVM_EXIT_ number,
 * KVM_EXIT_HLT when @op is done, or the negative errno of KVM_RUN.
 */
int kvm_guest_run(struct kvm_guest_vcpu *vcpu);

/*
 * One load or store at @offset of the BAR, of as many copies of @value as fit.
 * Returns what kvm_guest_run() does.
 */
int kvm_guest_access(struct kvm_guest_vcpu *vcpu, enum kvm_guest_op op,
		     u64 offset, u64 value);

/* KVM's own statistics, by name. */
u64 kvm_guest_stat(int vm_or_vcpu_fd, const char *name);

/* The guest's code, and where each operation begins; used by the library only. */
extern const u8 kvm_guest_code[], kvm_guest_code_end[];
extern const u8 kvm_guest_code_read[], kvm_guest_code_mov[];
extern const u8 kvm_guest_code_lock[], kvm_guest_code_sse[];
extern const u8 kvm_guest_code_avx[], kvm_guest_code_walk[];

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_KVM_GUEST_H */
