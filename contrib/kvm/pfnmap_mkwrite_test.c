// SPDX-License-Identifier: GPL-2.0-only
/*
 * A KVM guest writes to memory of a device that wants to be asked before the first
 * write to each page: pfnmap_mkwrite.c, which must be loaded. How often is it asked,
 * and is its answer heeded?
 */
#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/kvm.h>
#include <linux/sizes.h>

#include <libvfio.h>
#include <libvfio/kvm_guest.h>

#include <kselftest_harness.h>

enum { ALLOW, REFUSE, LEAVE };

#define SIZE	(4 * SZ_4K)

static void parameter_set(const char *name, unsigned int value)
{
	char path[64];
	FILE *f;

	snprintf_assert(path, sizeof(path), "/sys/module/pfnmap_mkwrite/parameters/%s", name);
	f = fopen(path, "w");
	VFIO_ASSERT_TRUE(f && fprintf(f, "%u", value) > 0 && !fclose(f));
}

static unsigned int asked(void)
{
	unsigned int value = 0;
	FILE *f;

	f = fopen("/sys/module/pfnmap_mkwrite/parameters/first_writes", "r");
	VFIO_ASSERT_TRUE(f && fscanf(f, "%u", &value) == 1 && !fclose(f));

	return value;
}

FIXTURE(pfnmap_mkwrite) {
	struct kvm_guest guest;
	struct kvm_guest_vcpu *vcpu;
	u64 *mem;
	u64 emulated;	/* so far; of that for each HLT, if the processor wants help */
	u64 hlt;
};

static u64 emulated(struct kvm_guest_vcpu *vcpu)
{
	return kvm_guest_stat(vcpu->fd, "insn_emulation");
}

FIXTURE_SETUP(pfnmap_mkwrite)
{
	const char *missing = kvm_guest_missing();
	int fd;

	if (missing)
		SKIP(return, "%s", missing);
	fd = open("/dev/pfnmap_mkwrite", O_RDWR);
	ASSERT_LE(0, fd);
	self->mem = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->mem);
	close(fd);
	kvm_guest_init(&self->guest, 1);
	self->vcpu = &self->guest.vcpus[0];
	ASSERT_EQ(0, kvm_guest_set_bar(&self->guest, self->mem, SIZE));
	parameter_set("answer", ALLOW);
	parameter_set("first_writes", 0);
	/* What a read maps is read-only, and reads are nobody's business */
	ASSERT_EQ(KVM_EXIT_HLT, kvm_guest_access(self->vcpu, KVM_GUEST_READ, 0, 0));
	self->hlt = emulated(self->vcpu);
	ASSERT_EQ(KVM_EXIT_HLT, kvm_guest_access(self->vcpu, KVM_GUEST_READ, 0, 0));
	self->emulated = emulated(self->vcpu);
	self->hlt = self->emulated - self->hlt;
	ASSERT_EQ(0, asked());
}

FIXTURE_TEARDOWN(pfnmap_mkwrite)
{
	kvm_guest_cleanup(&self->guest);
	munmap(self->mem, SIZE);
}

/* It is asked for the first write of a page, and for no other. */
TEST_F(pfnmap_mkwrite, asked_once)
{
	u64 i;

	for (i = 0; i < 3; i++) {
		EXPECT_EQ(KVM_EXIT_HLT, kvm_guest_access(self->vcpu, KVM_GUEST_MOV, 8 * i, i + 1));
		EXPECT_EQ(1, asked());
	}
	EXPECT_EQ(KVM_EXIT_HLT, kvm_guest_access(self->vcpu, KVM_GUEST_READ, SZ_4K, 0));
	EXPECT_EQ(1, asked());
	EXPECT_EQ(KVM_EXIT_HLT, kvm_guest_access(self->vcpu, KVM_GUEST_MOV, SZ_4K, 4));
	EXPECT_EQ(2, asked());
	/* Of a page that nobody has read, too, whose first entry is read-only */
	EXPECT_EQ(KVM_EXIT_HLT, kvm_guest_access(self->vcpu, KVM_GUEST_MOV, 2 * SZ_4K, 5));
	EXPECT_EQ(3, asked());
	EXPECT_EQ(self->emulated + 6 * self->hlt, emulated(self->vcpu));
	for (i = 0; i < 3; i++)
		EXPECT_EQ(i + 1, self->mem[i]);
	EXPECT_EQ(4, self->mem[SZ_4K / sizeof(u64)]);
	EXPECT_EQ(5, self->mem[2 * SZ_4K / sizeof(u64)]);
}

/* As without an entry, an error of the fault handler is one of KVM_RUN. */
TEST_F(pfnmap_mkwrite, refused)
{
	parameter_set("answer", REFUSE);
	EXPECT_EQ(-EFAULT, kvm_guest_access(self->vcpu, KVM_GUEST_MOV, 0, 1));
	EXPECT_EQ(1, asked());

	/* The guest can go on once it may. */
	parameter_set("answer", ALLOW);
	EXPECT_EQ(KVM_EXIT_HLT, kvm_guest_run(self->vcpu));
	EXPECT_EQ(2, asked());
	EXPECT_EQ(1, self->mem[0]);
}

/*
 * Nobody asks in circles: KVM asks once, and then emulates the store. What user space
 * may write the emulator may, and that asks again.
 */
TEST_F(pfnmap_mkwrite, left_read_only)
{
	parameter_set("answer", LEAVE);
	EXPECT_EQ(KVM_EXIT_HLT, kvm_guest_access(self->vcpu, KVM_GUEST_MOV, 0, 1));
	EXPECT_EQ(2, asked());
	EXPECT_EQ(self->emulated + self->hlt + 1, emulated(self->vcpu));
	EXPECT_EQ(1, self->mem[0]);
}

TEST_HARNESS_MAIN
