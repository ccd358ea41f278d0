// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tracking of what a virtual machine writes to the device's memory. Each kind
 * of store is tried in each phase of a device's life, and KVM's own statistics
 * say whether it went to the memory as it should: without an exit to user space
 * and without the instruction emulator, which is slow and does not know all of
 * the instructions.
 */
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/mman.h>

#include <linux/kvm.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/dirty_writer.h>
#include <libvfio/kvm_guest.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_replica.h>
#include <libvfio/precopy_states.h>

#include <libvfio/mig_harness.h>

#define SIZE		SZ_4M
#define HUGE_SIZE	SZ_8M
/* Pages of a unit that nobody has touched, and of one that is in use. */
#define FRESH		512
#define USED		16
#define PAGES		3

static char **bdfs;
static int nr_bdfs;

struct counts {
	u64 runs, exits, emulations, failures, mmios, pf_fixed, pf_emulations;
};

FIXTURE(kvm) {
	struct precopy_dev a;
	struct precopy_dev b;
	struct kvm_guest guest;
	struct kvm_guest_vcpu *vcpu;
	struct precopy_replica replica;
	struct counts first;
	struct counts before;
	u64 emulations_per_run;	/* that touches low memory only */
	u64 runs;
	u64 value;
	u64 next;		/* page of the fresh unit */
	int data_fd;
	int load_fd;
};

FIXTURE_SETUP(kvm)
{
	const char *missing = kvm_guest_missing();

	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	if (missing)
		SKIP(return, "%s", missing);
	precopy_open(&self->a, bdfs[0], NULL, SIZE);
	precopy_open(&self->b, bdfs[1], NULL, SIZE);
	precopy_replica_init(&self->replica, SIZE);
	kvm_guest_init(&self->guest, 1);
	self->vcpu = &self->guest.vcpus[0];
	ASSERT_EQ(0, kvm_guest_set_bar(&self->guest, self->a.bar, SIZE));
	self->data_fd = -1;
	self->load_fd = -1;
	self->next = FRESH;
	self->value = 1000;
}

FIXTURE_TEARDOWN(kvm)
{
	kvm_guest_cleanup(&self->guest);
	precopy_replica_free(&self->replica);
	if (self->data_fd >= 0)
		close(self->data_fd);
	if (self->load_fd >= 0)
		close(self->load_fd);
	precopy_close(&self->a);
	precopy_close(&self->b);
}

typedef FIXTURE_DATA(kvm) kvm_t;

/* The kinds of store that a guest has. */
FIXTURE_VARIANT(kvm) {
	const char *writer;
};

FIXTURE_VARIANT_ADD(kvm, kvm_mov) { .writer = "kvm_mov" };
FIXTURE_VARIANT_ADD(kvm, kvm_lock) { .writer = "kvm_lock" };
FIXTURE_VARIANT_ADD(kvm, kvm_sse) { .writer = "kvm_sse" };
FIXTURE_VARIANT_ADD(kvm, kvm_avx) { .writer = "kvm_avx" };

/* ------------------------------------------------------------------------ */

static struct counts count(kvm_t *self)
{
	int fd = self->vcpu->fd;

	return (struct counts){
		.runs = self->runs,
		.exits = kvm_guest_stat(fd, "exits"),
		.emulations = kvm_guest_stat(fd, "insn_emulation"),
		.failures = kvm_guest_stat(fd, "insn_emulation_fail"),
		.mmios = kvm_guest_stat(fd, "mmio_exits"),
		.pf_fixed = kvm_guest_stat(fd, "pf_fixed"),
		.pf_emulations = kvm_guest_stat(fd, "pf_emulate"),
	};
}

/* What HLT alone takes: KVM steps over it with its emulator, or without. */
static void calibrate(struct __test_metadata *_metadata, kvm_t *self)
{
	u64 before = count(self).emulations;

	self->vcpu->cmd->addr = self->vcpu->cmd_gpa;
	kvm_guest_start(self->vcpu, KVM_GUEST_READ);
	ASSERT_EQ(KVM_EXIT_HLT, kvm_guest_run(self->vcpu));
	self->emulations_per_run = count(self).emulations - before;
	EXPECT_GE(1, self->emulations_per_run);
	self->first = count(self);
	self->before = self->first;
}

/* Since the last check every access went to the memory itself. */
static void check_native(struct __test_metadata *_metadata, kvm_t *self,
			 const char *phase)
{
	struct counts now = count(self), *before = &self->before;
	u64 runs = now.runs - before->runs;

	EXPECT_EQ(0, now.mmios - before->mmios) TH_LOG("%s", phase);
	EXPECT_EQ(0, now.failures - before->failures) TH_LOG("%s", phase);
	EXPECT_EQ(0, now.pf_emulations - before->pf_emulations) TH_LOG("%s", phase);
	EXPECT_EQ(runs * self->emulations_per_run,
		  now.emulations - before->emulations)
		TH_LOG("%s: %lu runs", phase, runs);
	/* Otherwise the counters are not what they are taken for. */
	EXPECT_LE(runs, now.exits - before->exits) TH_LOG("%s", phase);
	EXPECT_LT(0, now.pf_fixed - before->pf_fixed) TH_LOG("%s", phase);
	self->before = now;
}

static void log_counts(kvm_t *self)
{
	struct counts *first = &self->first, *now = &self->before;

	printf("# %lu runs: %lu exits, %lu page faults fixed, %lu emulated,",
	       now->runs - first->runs, now->exits - first->exits,
	       now->pf_fixed - first->pf_fixed,
	       now->pf_emulations - first->pf_emulations);
	printf(" %lu MMIO exits, %lu instructions emulated (%lu for each HLT)\n",
	       now->mmios - first->mmios, now->emulations - first->emulations,
	       self->emulations_per_run);
}

static void guest_do(struct __test_metadata *_metadata, kvm_t *self,
		     enum kvm_guest_op op, u64 offset, u64 value)
{
	self->runs++;
	ASSERT_EQ(KVM_EXIT_HLT, kvm_guest_access(self->vcpu, op, offset, value))
		TH_LOG("op %d at %#lx", op, offset);
}

static void guest_read(struct __test_metadata *_metadata, kvm_t *self, u64 page)
{
	u64 offset = page * PRECOPY_PAGE;

	guest_do(_metadata, self, KVM_GUEST_READ, offset, 0);
	EXPECT_EQ(*(u64 *)(self->a.shadow + offset), self->vcpu->cmd->result);
}

/* A store of this kind, and the same to the shadow. */
static void guest_store(struct __test_metadata *_metadata, kvm_t *self,
			enum kvm_guest_op op, size_t len, u64 page)
{
	u64 *shadow = (u64 *)(self->a.shadow + page * PRECOPY_PAGE + 64);
	u64 value = ++self->value;
	size_t i;

	guest_do(_metadata, self, op, page * PRECOPY_PAGE + 64, value);
	for (i = 0; i < len / sizeof(u64); i++) {
		if (op == KVM_GUEST_LOCK)
			shadow[i] += value;
		else
			shadow[i] = value;
	}
}

/* ------------------------------------------------------------------------ */

static void begin(struct __test_metadata *_metadata, kvm_t *self)
{
	ASSERT_EQ(0, mig_set_state(self->b.dev, STOP, NULL));
	ASSERT_EQ(0, mig_set_state(self->b.dev, RESUMING, &self->load_fd));
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &self->data_fd));
	ASSERT_EQ(-ENOMSG, precopy_replica_drain(&self->replica, self->data_fd,
						 self->load_fd));
	EXPECT_EQ(0, memcmp(self->replica.image, self->a.shadow, SIZE));
	precopy_replica_clear_reports(&self->replica);
}

/* The stream has each of these pages once, and no other. */
static void collect(struct __test_metadata *_metadata, kvm_t *self,
		    const u64 *pages, int nr)
{
	int i;

	ASSERT_EQ(-ENOMSG, precopy_replica_drain(&self->replica, self->data_fd,
						 self->load_fd));
	for (i = 0; i < nr; i++) {
		EXPECT_EQ(1, self->replica.reports[pages[i]])
			TH_LOG("page %lu", pages[i]);
	}
	EXPECT_EQ(nr, self->replica.nr_reports);
	EXPECT_EQ(0, memcmp(self->replica.image, self->a.shadow, SIZE));
	precopy_replica_clear_reports(&self->replica);
}

static void forget(struct __test_metadata *_metadata, kvm_t *self)
{
	ASSERT_EQ(0, mig_set_state(self->a.dev, RUNNING, NULL));
	close(self->data_fd);
	close(self->load_fd);
	self->data_fd = -1;
	self->load_fd = -1;
	precopy_reset(&self->b);
	precopy_replica_free(&self->replica);
	precopy_replica_init(&self->replica, SIZE);
}

/* Stop, take the rest, and see what the target makes of it. */
static void finish(struct __test_metadata *_metadata, kvm_t *self)
{
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
	ASSERT_EQ(0, precopy_replica_drain(&self->replica, self->data_fd,
					   self->load_fd));
	EXPECT_TRUE(self->replica.ended);
	ASSERT_EQ(0, mig_set_state(self->b.dev, STOP, NULL));
	EXPECT_EQ(0, memcmp(self->replica.image, self->a.shadow, SIZE));
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	EXPECT_EQ(0, precopy_differ(&self->b, self->a.shadow));
}

/* A page that nobody has touched, the memory of its unit in use or not. */
static u64 fresh(kvm_t *self)
{
	return self->next++;
}

static void untracked(struct __test_metadata *_metadata, kvm_t *self,
		      enum kvm_guest_op op, size_t len, const char *phase)
{
	u64 page = fresh(self);

	guest_store(_metadata, self, op, len, page);
	guest_store(_metadata, self, op, len, page);
	page = fresh(self);
	guest_read(_metadata, self, page);
	guest_store(_metadata, self, op, len, page);
	guest_store(_metadata, self, op, len, USED);
	guest_store(_metadata, self, op, len, USED + 1);
	check_native(_metadata, self, phase);
}

static void tracked(struct __test_metadata *_metadata, kvm_t *self,
		    enum kvm_guest_op op, size_t len, const char *phase)
{
	u64 pages[] = { USED, USED + 1, fresh(self), fresh(self) };
	int pass, i;

	for (pass = 0; pass < 3; pass++) {
		/* The first is stored to at once, the second read before. */
		guest_store(_metadata, self, op, len, pages[0]);
		for (i = 1; i < (int)ARRAY_SIZE(pages); i++) {
			guest_read(_metadata, self, pages[i]);
			guest_store(_metadata, self, op, len, pages[i]);
		}
		guest_store(_metadata, self, op, len, pages[3]);
		collect(_metadata, self, pages, ARRAY_SIZE(pages));

		/* Neither reading nor collecting makes a page dirty. */
		for (i = 0; i < (int)ARRAY_SIZE(pages); i++)
			guest_read(_metadata, self, pages[i]);
		guest_read(_metadata, self, USED + 8);
		guest_read(_metadata, self, FRESH + 100);
		collect(_metadata, self, NULL, 0);
		check_native(_metadata, self, phase);
	}
}

TEST_F_TIMEOUT(kvm, stores, MIG_TIMEOUT)
{
	const struct dirty_writer *row = dirty_writer_find(variant->writer);
	enum kvm_guest_op op = row->op;
	size_t len = row->op_len;

	if (op == KVM_GUEST_AVX && !self->guest.avx)
		SKIP(return, "the processor has no AVX");
	precopy_fill(&self->a, USED, 16, 1, BY_MMAP);
	calibrate(_metadata, self);

	untracked(_metadata, self, op, len, "never tracked");
	begin(_metadata, self);
	tracked(_metadata, self, op, len, "tracked");
	/* Not collected when tracking ends. */
	guest_store(_metadata, self, op, len, USED + 2);
	forget(_metadata, self);
	untracked(_metadata, self, op, len, "after tracking");
	begin(_metadata, self);
	tracked(_metadata, self, op, len, "tracked again");
	guest_store(_metadata, self, op, len, USED);
	guest_store(_metadata, self, op, len, fresh(self));
	finish(_metadata, self);
	check_native(_metadata, self, "in the end");
	log_counts(self);
}

/* ------------------------------------------------------------------------ */
/* A guest that has the page mapped, and all others that store to it        */

FIXTURE(beside) {
	struct precopy_tracking t;
	struct dirty_writer_run w;
	struct kvm_guest guest;
};

FIXTURE_VARIANT(beside) {
	const char *writer;
};

#define FIXTURE_VARIANT_ADD_WRITER(name_)	\
FIXTURE_VARIANT_ADD(beside, name_) {	\
	.writer = #name_,			\
}

#include <libvfio/dirty_writer_list.h>

FIXTURE_SETUP(beside)
{
	const char *missing = kvm_guest_missing();

	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	missing = missing ?: dirty_writer_init(&self->w, variant->writer);
	if (missing)
		SKIP(return, "%s", missing);
	tracking_open(&self->t, bdfs, SIZE);
	dirty_writer_open(&self->w, &self->t, self->t.a.bar);
	kvm_guest_init(&self->guest, 1);
	ASSERT_EQ(0, kvm_guest_set_bar(&self->guest, self->t.a.bar, SIZE));
}

FIXTURE_TEARDOWN(beside)
{
	kvm_guest_cleanup(&self->guest);
	dirty_writer_close(&self->w);
	tracking_close(&self->t);
	dirty_writer_exit(&self->w);
}

typedef FIXTURE_DATA(beside) beside_t;

/* Words of the page that the guest reads as the shadow has them */
static void guest_sees(struct __test_metadata *_metadata, beside_t *self,
		       u64 page)
{
	struct kvm_guest_vcpu *vcpu = &self->guest.vcpus[0];
	u64 at;

	for (at = 0; at < PRECOPY_PAGE; at += PRECOPY_PAGE / 8) {
		ASSERT_EQ(KVM_EXIT_HLT,
			  kvm_guest_access(vcpu, KVM_GUEST_READ,
					   page * PRECOPY_PAGE + at, 0));
		EXPECT_EQ(*(u64 *)(self->t.a.shadow + page * PRECOPY_PAGE + at),
			  vcpu->cmd->result) TH_LOG("page %lu", page);
	}
}

static void guest_stores(struct __test_metadata *_metadata, beside_t *self,
			 u64 page)
{
	u64 offset = page * PRECOPY_PAGE + 64, value = ++self->t.seed;

	ASSERT_EQ(KVM_EXIT_HLT, kvm_guest_access(&self->guest.vcpus[0],
						 KVM_GUEST_MOV, offset, value));
	*(u64 *)(self->t.a.shadow + offset) = value;
	tracking_touched(&self->t, page);
}

/*
 * The first page is the guest's before the other stores, writable or, in odd
 * passes, read-only; the second the other's before the guest stores.
 */
TEST_F_TIMEOUT(beside, stores, MIG_TIMEOUT)
{
	u64 mine = USED, other = USED + 8;
	int pass;

	tracking_begin(&self->t);
	for (pass = 0; pass < TRACKING_PASSES; pass++) {
		guest_sees(_metadata, self, mine);
		if (pass % 2 == 0)
			guest_stores(_metadata, self, mine);
		dirty_writer_track(&self->w, mine, ++self->t.seed);
		guest_sees(_metadata, self, mine);
		dirty_writer_track(&self->w, other, ++self->t.seed);
		guest_stores(_metadata, self, other);
		EXPECT_EQ(tracking_want(&self->t),
			  tracking_dirty_bytes(&self->t));
		EXPECT_EQ(0, tracking_carry(&self->t)) TH_LOG("pass %d", pass);
		EXPECT_EQ(0, tracking_dirty_bytes(&self->t));
	}
	guest_stores(_metadata, self, mine);
	dirty_writer_track(&self->w, other, ++self->t.seed);
	EXPECT_EQ(0, tracking_finish(&self->t));
}

/* ------------------------------------------------------------------------ */
/* Huge mappings                                                            */

FIXTURE(huge) {
	struct precopy_dev a;
	struct kvm_guest guest;
	struct kvm_guest_vcpu *vcpu;
	int data_fd;
	struct mig_stream stream;
};

FIXTURE_SETUP(huge)
{
	const char *missing = kvm_guest_missing();

	if (missing)
		SKIP(return, "%s", missing);
	precopy_open(&self->a, bdfs[0], NULL, HUGE_SIZE);
	kvm_guest_init(&self->guest, 1);
	self->vcpu = &self->guest.vcpus[0];
	self->data_fd = -1;
}

FIXTURE_TEARDOWN(huge)
{
	kvm_guest_cleanup(&self->guest);
	mig_stream_free(&self->stream);
	if (self->data_fd >= 0)
		close(self->data_fd);
	precopy_close(&self->a);
}

typedef FIXTURE_DATA(huge) huge_t;

struct faults {
	u64 huge, write, mkwrite, pages_2m, pages_4k;
};

/* The guest stores to every page; what that cost. */
static struct faults touch_all(struct __test_metadata *_metadata, huge_t *self)
{
	struct kvm_guest_walk *walk = &self->vcpu->cmd->walk;
	struct faults f = {
		.huge = precopy_stat(self->a.bdf, "huge_faults"),
		.write = precopy_stat(self->a.bdf, "write_faults"),
		.mkwrite = precopy_stat(self->a.bdf, "mkwrite_faults"),
	};

	*walk = (struct kvm_guest_walk){
		.base = KVM_GUEST_BAR_GPA,
		.begun = self->vcpu->begun_gpa,
		.done = self->vcpu->done_gpa,
		.x = ~0ULL,
		.mul = 1,
		.add = 1,
		.mask = HUGE_SIZE / PRECOPY_PAGE - 1,
		.tag = 1,
		.left = HUGE_SIZE / PRECOPY_PAGE,
	};
	kvm_guest_start(self->vcpu, KVM_GUEST_WALK);
	EXPECT_EQ(KVM_EXIT_HLT, kvm_guest_run(self->vcpu));

	f.huge = precopy_stat(self->a.bdf, "huge_faults") - f.huge;
	f.write = precopy_stat(self->a.bdf, "write_faults") - f.write;
	f.mkwrite = precopy_stat(self->a.bdf, "mkwrite_faults") - f.mkwrite;
	f.pages_2m = kvm_guest_stat(self->guest.vm, "pages_2m");
	f.pages_4k = kvm_guest_stat(self->guest.vm, "pages_4k");

	return f;
}

static void log_faults(const char *phase, struct faults f)
{
	printf("# %s: %lu huge, %lu write, %lu mkwrite faults;", phase, f.huge,
	       f.write, f.mkwrite);
	printf(" KVM maps %lu pages of 2 MiB, %lu of 4 KiB\n", f.pages_2m,
	       f.pages_4k);
}

TEST_F_TIMEOUT(huge, mappings, MIG_TIMEOUT)
{
	u64 nr_huge = HUGE_SIZE / SZ_2M, nr_pages = HUGE_SIZE / PRECOPY_PAGE;
	struct faults f;
	u8 *map;

	if (precopy_stat(self->a.bdf, "huge_faults") == ~0ULL)
		SKIP(return, "the driver does not count huge faults");
	if (!precopy_kernel_has("vmf_insert_folio_pmd"))
		SKIP(return, "the kernel has no vmf_insert_folio_pmd()");
	map = mmap(mmap_reserve(HUGE_SIZE, SZ_2M, 0), HUGE_SIZE,
		   PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, self->a.fd,
		   self->a.bar_offset);
	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(0, kvm_guest_set_bar(&self->guest, map, HUGE_SIZE));

	f = touch_all(_metadata, self);
	log_faults("never tracked", f);
	EXPECT_EQ(nr_huge, f.huge);
	EXPECT_EQ(0, f.mkwrite);
	EXPECT_EQ(nr_huge, f.pages_2m);

	/* Tracked by the page, and each of them faults once. */
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &self->data_fd));
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&self->stream, self->data_fd, SZ_1M));
	f = touch_all(_metadata, self);
	log_faults("tracked", f);
	EXPECT_EQ(0, f.huge);
	EXPECT_EQ(0, f.pages_2m);
	EXPECT_LE(nr_pages, f.pages_4k);
	EXPECT_EQ(nr_pages, f.write + f.mkwrite);
	/* Now read-only: each unit costs one fault after tracking. */
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&self->stream, self->data_fd, SZ_1M));

	ASSERT_EQ(0, mig_set_state(self->a.dev, RUNNING, NULL));
	f = touch_all(_metadata, self);
	log_faults("after tracking", f);
	EXPECT_GE(nr_huge, f.huge + f.write + f.mkwrite);

	/* Huge mappings are back when the page tables were gone. */
	ASSERT_EQ(0, kvm_guest_set_bar(&self->guest, NULL, 0));
	ASSERT_EQ(map, mmap(map, HUGE_SIZE, PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_FIXED, self->a.fd,
			    self->a.bar_offset));
	ASSERT_EQ(0, kvm_guest_set_bar(&self->guest, map, HUGE_SIZE));
	f = touch_all(_metadata, self);
	log_faults("mapped anew", f);
	EXPECT_EQ(nr_huge, f.huge);
	EXPECT_EQ(0, f.mkwrite);
	EXPECT_EQ(nr_huge, f.pages_2m);
	munmap(map, HUGE_SIZE);
}

/* ------------------------------------------------------------------------ */
/* How often KVM has to drop its own entries for a collect                  */

#define TRACE		"/sys/kernel/tracing/trace"
#define TRACE_UNMAP	"/sys/kernel/tracing/events/kvm/kvm_unmap_hva_range/enable"

#define UNITS		(SIZE / SZ_2M)
#define UNIT_PAGES	(SZ_2M / PRECOPY_PAGE)

FIXTURE(unmap) {
	struct precopy_dev a;
	struct kvm_guest guest;
	struct mig_stream stream;
	int data_fd;
};

FIXTURE_SETUP(unmap)
{
	const char *missing = kvm_guest_missing();

	if (missing)
		SKIP(return, "%s", missing);
	if (precopy_file_write(TRACE_UNMAP, "0"))
		SKIP(return, "KVM's calls cannot be traced");
	precopy_open(&self->a, bdfs[0], NULL, SIZE);
	kvm_guest_init(&self->guest, 1);
	ASSERT_EQ(0, kvm_guest_set_bar(&self->guest, self->a.bar, SIZE));
	self->data_fd = -1;
}

FIXTURE_TEARDOWN(unmap)
{
	precopy_file_write(TRACE_UNMAP, "0");
	kvm_guest_cleanup(&self->guest);
	mig_stream_free(&self->stream);
	if (self->data_fd >= 0)
		close(self->data_fd);
	precopy_close(&self->a);
}

typedef FIXTURE_DATA(unmap) unmap_t;

/* Calls of KVM's notifier for addresses in the BAR, as the trace has them */
static u64 calls_traced(unmap_t *self)
{
	u64 bar = (uintptr_t)self->a.bar, nr = 0;
	unsigned long start;
	char line[512], *at;
	FILE *f;

	f = fopen(TRACE, "r");
	VFIO_ASSERT_NOT_NULL(f);
	while (fgets(line, sizeof(line), f)) {
		at = strstr(line, "unmap range: ");
		if (at && sscanf(at, "unmap range: %lx", &start) == 1)
			nr += start >= bar && start < bar + SIZE;
	}
	fclose(f);
	return nr;
}

/* Store to @nr pages of each unit, @stride pages from each other, and collect them. */
static u64 calls_for(unmap_t *self, u64 nr, u64 stride, u64 value)
{
	u64 unit, i;

	for (unit = 0; unit < UNITS; unit++)
		for (i = 0; i < nr; i++)
			precopy_store(&self->a, (unit * UNIT_PAGES + i * stride) *
				      PRECOPY_PAGE, &value, sizeof(value), BY_MMAP);
	VFIO_ASSERT_EQ(precopy_file_write(TRACE, "\n"), 0);
	VFIO_ASSERT_EQ(precopy_file_write(TRACE_UNMAP, "1"), 0);
	VFIO_ASSERT_EQ(mig_stream_drain(&self->stream, self->data_fd, SZ_1M),
		       -ENOMSG);
	VFIO_ASSERT_EQ(precopy_file_write(TRACE_UNMAP, "0"), 0);
	return calls_traced(self);
}

/*
 * The kernel has no walk that write-protects and cleans: the driver was built to remove
 * entries instead, in one walk.
 */
static bool entries_are_removed(void)
{
	return !precopy_kernel_has("mapping_wrprotect_range");
}

/*
 * Three for a unit, however many pages were written and however they are scattered,
 * or one for each page if there are few. Where entries are removed there is one instead
 * of three.
 */
TEST_F_TIMEOUT(unmap, calls_for_a_collect, MIG_TIMEOUT)
{
	static const struct {
		u64 nr, stride, calls;
	} steps[] = {
		{ UNIT_PAGES, 1, 3 }, { UNIT_PAGES / 2, 2, 3 }, { 16, 32, 3 },
		{ 7, 73, 3 }, { 2, 511, 2 }, { 3, 1, 1 }, { 1, 1, 1 },
	};
	u64 walks = entries_are_removed() ? 1 : 3;
	size_t i;

	precopy_fill(&self->a, 0, SIZE / PRECOPY_PAGE, 1, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &self->data_fd));
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&self->stream, self->data_fd, SZ_1M));
	/* Units are single pages from now on. */
	calls_for(self, 1, 1, 1);
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		EXPECT_EQ(UNITS * (steps[i].calls == 3 ? walks : steps[i].calls),
			  calls_for(self, steps[i].nr, steps[i].stride, i + 2))
			TH_LOG("%lu pages of each unit", steps[i].nr);
	}
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
