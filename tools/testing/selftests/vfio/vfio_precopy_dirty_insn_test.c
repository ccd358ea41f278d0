// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page faults of single instructions while the device is tracked. An instruction
 * that reads a page before it writes to it faults twice, on the entry that is
 * missing and on the one that is read-only. It is begun anew after each fault, so
 * a handler that takes the entry away again would keep it from ever ending. The
 * faults are counted by the driver; no time is measured.
 *
 * Each instruction is executed by a child, which can be killed if it does not get
 * on, in a mapping of its own: aligned, so that there are entries of 2 MiB, or
 * not, or one that may not have them.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include <linux/sizes.h>
#include <linux/types.h>

#include <libvfio.h>
#include <libvfio/precopy_tracking.h>

#include <libvfio/mig_harness.h>

#define SIZE		SZ_4M
/* A page that tracking_begin() fills, in a unit that is one folio */
#define PAGE_NR		5
/* One fault to read and one to write */
#define FAULTS_A_PAGE	2
/* An instruction that has needed so many does not end */
#define FOR_EVER	2000
#define THREADS		8

static char **bdfs;
static int nr_bdfs;

/* ---- Instructions: each changes the page at @p, and only that or the next -- */

static void plain_store(u8 *p)
{
	*(volatile u64 *)(p + 8) = 0x1122334455667788;
}

static void atomic_add(u8 *p)
{
	__atomic_fetch_add((u64 *)(p + 16), 3, __ATOMIC_SEQ_CST);
}

struct unaligned {
	u64 value;
} __packed;

/* From the end of the page to the beginning of the next one */
static void store_across_pages(u8 *p)
{
	struct unaligned *word = (void *)(p + PRECOPY_PAGE - 3);

	WRITE_ONCE(word->value, 0x99aabbccddeeff01);
}

#ifdef __x86_64__
static void rep_movsb(u8 *p)
{
	u8 *from = p, *to = p + 2048;
	size_t n = 100;

	asm volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(n) : : "memory");
}

static void movsq(u8 *p)
{
	u8 *from = p, *to = p + 1024;

	asm volatile("movsq" : "+S"(from), "+D"(to) : : "memory");
}

static void xor_byte(u8 *p)
{
	asm volatile("xorb $0x5a, (%0)" : : "r"(p + 77) : "memory", "cc");
}

static void rep_stosb(u8 *p)
{
	u8 *to = p + 512;
	size_t n = 99;

	asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(0x77) : "memory");
}

/* The stack is in the page for a moment; the value pushed is read from there */
static void push_memory(u8 *p)
{
	asm volatile("movq %%rsp, %%rbx\n\t"
		     "movq %0, %%rsp\n\t"
		     "pushq 64(%%rsp)\n\t"
		     "movq %%rbx, %%rsp"
		     : : "r"(p + 3072) : "rbx", "memory");
}

/* From memory to memory through a register, unaligned */
static void sse_copy(u8 *p)
{
	asm volatile("movdqu (%0), %%xmm0\n\t"
		     "movdqu %%xmm0, (%1)"
		     : : "r"(p + 33), "r"(p + 1501) : "xmm0", "memory");
}
#endif

/* ---- How the child maps the BAR --------------------------------------------- */

static u8 *map_at_offset(struct precopy_tracking *t, size_t offset)
{
	u8 *room, *at, *map;

	room = mmap(NULL, SIZE + 2 * SZ_2M, PROT_NONE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	if (room == MAP_FAILED)
		_exit(10);
	at = (u8 *)(((unsigned long)room + SZ_2M - 1) & -(unsigned long)SZ_2M);
	map = mmap(at + offset, SIZE, PROT_READ | PROT_WRITE,
		   MAP_SHARED | MAP_FIXED, t->a.fd, t->a.bar_offset);
	if (map == MAP_FAILED)
		_exit(11);
	return map;
}

static u8 *map_aligned(struct precopy_tracking *t)
{
	return map_at_offset(t, 0);
}

static u8 *map_unaligned(struct precopy_tracking *t)
{
	return map_at_offset(t, 7 * PRECOPY_PAGE);
}

static u8 *map_nohuge(struct precopy_tracking *t)
{
	u8 *map = map_at_offset(t, 0);

	if (madvise(map, SIZE, MADV_NOHUGEPAGE))
		_exit(12);
	return map;
}

/* What "never" in transparent_hugepage/enabled means for everybody */
static u8 *map_thp_never(struct precopy_tracking *t)
{
	if (prctl(PR_SET_THP_DISABLE, 1, 0, 0, 0))
		_exit(13);
	return map_at_offset(t, 0);
}

FIXTURE(insn) {
	struct precopy_tracking t;
	u8 *(*map)(struct precopy_tracking *t);
	u64 faults;		/* before the instruction */
};

typedef FIXTURE_DATA(insn) insn_t;

FIXTURE_VARIANT(insn) {
	u8 *(*map)(struct precopy_tracking *t);
};

FIXTURE_VARIANT_ADD(insn, unaligned) { .map = map_unaligned };
FIXTURE_VARIANT_ADD(insn, aligned) { .map = map_aligned };
FIXTURE_VARIANT_ADD(insn, nohugepage) { .map = map_nohuge };
FIXTURE_VARIANT_ADD(insn, thp_never) { .map = map_thp_never };

FIXTURE_SETUP(insn)
{
	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	if (precopy_stat(bdfs[0], "mkwrite_faults") == ~0ULL)
		SKIP(return, "no statistics in debugfs");
	self->map = variant->map;
	tracking_open(&self->t, bdfs, SIZE);
}

FIXTURE_TEARDOWN(insn)
{
	tracking_close(&self->t);
}

static u64 faults(void)
{
	return precopy_stat(bdfs[0], "read_faults") +
	       precopy_stat(bdfs[0], "write_faults") +
	       precopy_stat(bdfs[0], "mkwrite_faults") +
	       precopy_stat(bdfs[0], "huge_faults");
}

/* Until the child has ended by itself, or has faulted for too often. */
static bool ends(insn_t *self, pid_t pid, int *status)
{
	pid_t ret;

	while (!(ret = waitpid(pid, status, WNOHANG))) {
		if (faults() - self->faults > FOR_EVER) {
			kill(pid, SIGKILL);
			waitpid(pid, status, 0);
			return false;
		}
		usleep(1000);
	}
	return ret == pid;
}

typedef void (*insn_fn)(u8 *page);

static void execute(struct __test_metadata *_metadata, insn_t *self,
		    insn_fn insn, u64 most)
{
	int status = 0;
	pid_t pid;
	u8 *bar;

	self->faults = faults();
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		bar = self->map(&self->t);
		insn(bar + PAGE_NR * PRECOPY_PAGE);
		_exit(0);
	}
	ASSERT_TRUE(ends(self, pid, &status))
		TH_LOG("no end after %lu faults", faults() - self->faults);
	ASSERT_TRUE(WIFEXITED(status));
	ASSERT_EQ(0, WEXITSTATUS(status));
	EXPECT_LE(faults() - self->faults, most);
	insn(self->t.a.shadow + PAGE_NR * PRECOPY_PAGE);
	tracking_touched(&self->t, PAGE_NR);
}

/*
 * The first time the unit is one folio, the second time it is single pages that
 * were protected by a collect.
 */
static void instruction(struct __test_metadata *_metadata, insn_t *self,
			insn_fn insn)
{
	u64 splits = precopy_stat(bdfs[0], "splits");
	int pass;

	tracking_begin(&self->t);
	for (pass = 0; pass < 2; pass++) {
		execute(_metadata, self, insn, FAULTS_A_PAGE);
		EXPECT_EQ(0, tracking_carry(&self->t));
	}
	EXPECT_EQ(splits + 1, precopy_stat(bdfs[0], "splits"));
	EXPECT_EQ(0, tracking_finish(&self->t));
}

TEST_F_TIMEOUT(insn, plain_store, MIG_TIMEOUT)
{
	instruction(_metadata, self, plain_store);
}

TEST_F_TIMEOUT(insn, atomic_add, MIG_TIMEOUT)
{
	instruction(_metadata, self, atomic_add);
}

/* Two pages of one unit: the split for the first may cost the second its entry */
TEST_F_TIMEOUT(insn, store_across_pages, MIG_TIMEOUT)
{
	tracking_begin(&self->t);
	execute(_metadata, self, store_across_pages, 3 * FAULTS_A_PAGE);
	tracking_touched(&self->t, PAGE_NR + 1);
	EXPECT_EQ(0, tracking_carry(&self->t));
	EXPECT_EQ(0, tracking_finish(&self->t));
}

#ifdef __x86_64__
TEST_F_TIMEOUT(insn, rep_movsb, MIG_TIMEOUT)
{
	instruction(_metadata, self, rep_movsb);
}

TEST_F_TIMEOUT(insn, movsq, MIG_TIMEOUT)
{
	instruction(_metadata, self, movsq);
}

TEST_F_TIMEOUT(insn, xor_byte, MIG_TIMEOUT)
{
	instruction(_metadata, self, xor_byte);
}

TEST_F_TIMEOUT(insn, rep_stosb, MIG_TIMEOUT)
{
	instruction(_metadata, self, rep_stosb);
}

TEST_F_TIMEOUT(insn, push_memory, MIG_TIMEOUT)
{
	instruction(_metadata, self, push_memory);
}

TEST_F_TIMEOUT(insn, sse_copy, MIG_TIMEOUT)
{
	instruction(_metadata, self, sse_copy);
}

/* ---- Several at once, all in one unit ---------------------------------------- */

struct crowd {
	u8 *bar;
	pthread_barrier_t all_have_read;
	int nr;
};

static u64 crowd_page(int i)
{
	return PAGE_NR + 3 * i;
}

/* With a read-only entry each, so that all of them come as write-notify faults */
static void *crowd_thread(void *arg)
{
	struct crowd *crowd = arg;
	int i = __atomic_fetch_add(&crowd->nr, 1, __ATOMIC_SEQ_CST);
	u8 *page = crowd->bar + crowd_page(i) * PRECOPY_PAGE;

	(void)*(volatile u8 *)page;
	pthread_barrier_wait(&crowd->all_have_read);
	rep_movsb(page);
	return NULL;
}

static void crowd_in_child(u8 *bar)
{
	struct crowd crowd = { .bar = bar };
	pthread_t threads[THREADS];
	int i;

	if (pthread_barrier_init(&crowd.all_have_read, NULL, THREADS))
		_exit(20);
	for (i = 0; i < THREADS; i++)
		if (pthread_create(&threads[i], NULL, crowd_thread, &crowd))
			_exit(21);
	for (i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	_exit(0);
}

/*
 * The split for one of them takes away the entries of all others, once. A split
 * that meets a reference which is held for longer than it waits makes the unit
 * loose, so that all of its pages may be sent: nothing is lost, which is what
 * counts here.
 */
TEST_F_TIMEOUT(insn, crowd_in_one_unit, MIG_TIMEOUT)
{
	int status = 0, i;
	pid_t pid;

	tracking_begin(&self->t);
	self->faults = faults();
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		crowd_in_child(self->map(&self->t));
	ASSERT_TRUE(ends(self, pid, &status))
		TH_LOG("no end after %lu faults", faults() - self->faults);
	ASSERT_TRUE(WIFEXITED(status));
	ASSERT_EQ(0, WEXITSTATUS(status));
	EXPECT_LE(faults() - self->faults, THREADS * 2 * FAULTS_A_PAGE);
	for (i = 0; i < THREADS; i++) {
		rep_movsb(self->t.a.shadow + crowd_page(i) * PRECOPY_PAGE);
		tracking_touched(&self->t, crowd_page(i));
	}
	tracking_collect(&self->t);
	EXPECT_EQ(0, tracking_lost(&self->t));
	EXPECT_EQ(0, tracking_finish(&self->t));
}
#endif

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
