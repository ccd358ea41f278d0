// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a KVM guest that writes to the BAR loses by dirty tracking: passes of as
 * many stores as it does untracked in PASS_NS, to 1, 10 and 100 % of the pages.
 * And what it would lose if each of its stores went to user space, as with
 * x-no-mmap=on in QEMU: no memory slot, an exit, a pwrite().
 *
 *   guest_write [--size BYTES] [--reps N] BDF
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/kvm.h>

#include "l1.h"

#define LOW_SIZE	0x10000
#define CODE		0x1000
#define BAR_GPA		0x10000000UL
#define PASS_NS		100000000ULL
#define TRAPPED_STORES	20000ULL
#define PASSES		3
#define BUF		(1 * MIB)

/*
 * ecx stores, one to a page, from ebx to before esi and over again, then HLT.
 * The first is at edi.
 */
static const uint8_t code[] = {
	0x89, 0x0f,				/* mov %ecx,(%edi) */
	0x81, 0xc7, 0x00, 0x10, 0x00, 0x00,	/* add $0x1000,%edi */
	0x39, 0xf7,				/* cmp %esi,%edi */
	0x72, 0x02,				/* jb . + 4 */
	0x89, 0xdf,				/* mov %ebx,%edi */
	0x49,					/* dec %ecx */
	0x75, 0xef,				/* jnz to the first */
	0xf4,					/* hlt */
};

struct guest {
	int vm, vcpu;
	struct kvm_run *run;
	struct precopy_dev *pd;
	uint64_t exits;
};

static struct bench_options opt = { .size = 32 * MIB, .reps = 5 };
static char *buf;

static void set_slot(struct guest *g, int slot, uint64_t gpa, void *at,
		     size_t size)
{
	struct kvm_userspace_memory_region region = {
		.slot = slot,
		.guest_phys_addr = gpa,
		.memory_size = size,
		.userspace_addr = (uintptr_t)at,
	};

	if (ioctl(g->vm, KVM_SET_USER_MEMORY_REGION, &region))
		fatal("KVM refuses a memory slot");
}

/* Flat 32-bit protected mode without paging */
static void set_mode(struct guest *g)
{
	struct kvm_segment seg = {
		.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1,
		.db = 1, .s = 1, .g = 1,
	};
	struct kvm_sregs sregs;

	if (ioctl(g->vcpu, KVM_GET_SREGS, &sregs))
		fatal("KVM_GET_SREGS");
	sregs.cs = seg;
	seg.type = 3;
	seg.selector = 16;
	sregs.ds = seg;
	sregs.es = seg;
	sregs.ss = seg;
	sregs.cr0 |= 1;
	if (ioctl(g->vcpu, KVM_SET_SREGS, &sregs))
		fatal("KVM_SET_SREGS");
}

static bool guest_init(struct guest *g, struct precopy_dev *pd)
{
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	char *low = memory_alloc(LOW_SIZE, false);

	if (kvm < 0)
		return false;
	g->pd = pd;
	g->vm = ioctl(kvm, KVM_CREATE_VM, 0);
	if (g->vm < 0)
		return false;
	memcpy(low + CODE, code, sizeof(code));
	set_slot(g, 0, 0, low, LOW_SIZE);
	g->vcpu = ioctl(g->vm, KVM_CREATE_VCPU, 0);
	if (g->vcpu < 0)
		fatal("KVM has no vCPU");
	g->run = mmap(NULL, ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, 0),
		      PROT_READ | PROT_WRITE, MAP_SHARED, g->vcpu, 0);
	if (g->run == MAP_FAILED)
		fatal("the vCPU cannot be mapped");
	set_mode(g);
	return true;
}

/* What QEMU does with a store to a BAR that is not mapped */
static void emulate_store(struct guest *g)
{
	uint64_t offset = g->run->mmio.phys_addr - BAR_GPA;

	if (g->run->exit_reason != KVM_EXIT_MMIO || !g->run->mmio.is_write)
		fatal("the guest ends with exit %d", g->run->exit_reason);
	if (pwrite(g->pd->fd, g->run->mmio.data, g->run->mmio.len,
		   g->pd->bar_offset + offset) != g->run->mmio.len)
		fatal("a write of the BAR fails");
}

/* Returns nanoseconds for @stores stores to @pages pages */
static uint64_t guest_stores(struct guest *g, uint64_t stores, uint64_t pages)
{
	struct kvm_regs regs = {
		.rip = CODE, .rflags = 2, .rcx = stores, .rbx = BAR_GPA,
		.rdi = BAR_GPA, .rsi = BAR_GPA + pages * PAGE,
	};
	uint64_t t0 = now_ns();

	if (ioctl(g->vcpu, KVM_SET_REGS, &regs))
		fatal("KVM_SET_REGS");
	g->exits = 0;
	while (1) {
		if (ioctl(g->vcpu, KVM_RUN, 0))
			fatal("KVM_RUN");
		if (g->run->exit_reason == KVM_EXIT_HLT)
			return now_ns() - t0;
		emulate_store(g);
		g->exits++;
	}
}

static void map_slot(struct guest *g, bool mapped)
{
	set_slot(g, 1, BAR_GPA, g->pd->bar, mapped ? g->pd->size : 0);
}

/* Stores that take PASS_NS untracked; each page gets one at least */
static uint64_t calibrate(struct guest *g, uint64_t all_pages)
{
	uint64_t ns, stores = all_pages;

	guest_stores(g, stores, all_pages);
	do {
		stores *= 2;
		ns = guest_stores(g, stores, all_pages);
	} while (ns < PASS_NS / 4 && stores < 1UL << 30);
	stores = stores * PASS_NS / ns;
	return stores > all_pages ? stores : all_pages;
}

static void tracked_passes(struct guest *g, uint64_t stores, uint64_t pages,
			   double percent)
{
	int data_fd = bench_set_state(g->pd, VFIO_DEVICE_STATE_PRE_COPY);
	uint64_t ns = 0;
	int i;

	bench_drain(data_fd, buf, BUF, NULL);
	guest_stores(g, pages, pages);
	for (i = 0; i < PASSES; i++) {
		bench_drain(data_fd, buf, BUF, NULL);
		ns += guest_stores(g, stores, pages);
		if (g->exits)
			fatal("a store to the mapped BAR exits");
	}
	sample(percent, (double)ns / PASSES / stores, "guest.tracked");
	bench_set_state(g->pd, VFIO_DEVICE_STATE_RUNNING);
	close(data_fd);
}

/* For each store, the second time round: everything is mapped and warm */
static double store_ns(struct guest *g, uint64_t stores, uint64_t pages)
{
	guest_stores(g, stores, pages);
	return (double)guest_stores(g, stores, pages) / stores;
}

static void one_rep(struct guest *g, uint64_t stores, uint64_t all_pages)
{
	static const int percents[] = { 1, 10, 100 };
	uint64_t ns, pages;
	size_t i;

	for (i = 0; i < ARRAY_LEN(percents); i++) {
		pages = all_pages * percents[i] / 100;
		sample(percents[i], store_ns(g, stores, pages), "guest.none");
		tracked_passes(g, stores, pages, percents[i]);
		/* What is left of tracking when it has ended */
		sample(percents[i], store_ns(g, stores, pages), "guest.disarmed");
	}
	map_slot(g, false);
	ns = guest_stores(g, TRAPPED_STORES, all_pages);
	if (g->exits != TRAPPED_STORES)
		fatal("stores without a slot do not exit");
	sample(100, (double)ns / TRAPPED_STORES, "guest.trapped");
	map_slot(g, true);
}

int main(int argc, char **argv)
{
	uint64_t stores, all_pages;
	struct guest g = { };
	struct precopy_dev pd;
	int rep;

	bench_options(&opt, argc, argv, 1);
	precopy_open(&pd, opt.bdfs[0], "iommufd", opt.size);
	buf = memory_alloc(BUF, false);
	if (!guest_init(&g, &pd))
		fatal("there is no KVM here");
	all_pages = opt.size / PAGE;
	map_slot(&g, true);
	stores = calibrate(&g, all_pages);
	sample(0, stores, "config.guest.stores");
	sample(0, opt.size, "config.guest.size");
	for (rep = 0; rep < opt.reps; rep++) {
		progress("guest's stores: %d of %d", rep + 1, opt.reps);
		one_rep(&g, stores, all_pages);
	}
	return 0;
}
