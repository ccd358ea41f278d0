// SPDX-License-Identifier: GPL-2.0-only
/*
 * Page faults of single stores while the device is tracked, by each of the ways in
 * lib/dirty_writer.c and in particular by single instructions. An instruction
 * that reads a page before it writes to it faults twice, on the entry that is
 * missing and on the one that is read-only. It is begun anew after each fault, so
 * a handler that takes the entry away again would keep it from ever ending. The
 * faults are counted by the driver; no time is measured.
 *
 * Each store is done by a child, which can be killed if it does not get
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
#include <libvfio/dirty_writer.h>
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

typedef u8 *(*map_fn)(struct precopy_tracking *t);

FIXTURE(insn) {
	struct precopy_tracking t;
	struct dirty_writer_run w;
	u64 faults;		/* before the store */
};

typedef FIXTURE_DATA(insn) insn_t;

FIXTURE_VARIANT(insn) {
	const char *writer;
};

#define FIXTURE_VARIANT_ADD_WRITER(name_)	\
FIXTURE_VARIANT_ADD(insn, name_) {	\
	.writer = #name_,			\
}

#include <libvfio/dirty_writer_list.h>

FIXTURE_SETUP(insn)
{
	const char *missing;

	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	if (precopy_stat(bdfs[0], "mkwrite_faults") == ~0ULL)
		SKIP(return, "no statistics in debugfs");
	missing = dirty_writer_init(&self->w, variant->writer);
	if (missing)
		SKIP(return, "%s", missing);
	tracking_open(&self->t, bdfs, SIZE);
}

FIXTURE_TEARDOWN(insn)
{
	tracking_close(&self->t);
	dirty_writer_exit(&self->w);
}

static u64 faults(void)
{
	return precopy_stat(bdfs[0], "read_faults") +
	       precopy_stat(bdfs[0], "write_faults") +
	       precopy_stat(bdfs[0], "mkwrite_faults") +
	       precopy_stat(bdfs[0], "huge_faults");
}

/* Until the child has ended by itself, or has faulted for too often. */
static bool ends(u64 before, pid_t pid, int *status)
{
	pid_t ret;

	while (!(ret = waitpid(pid, status, WNOHANG))) {
		if (faults() - before > FOR_EVER) {
			kill(pid, SIGKILL);
			waitpid(pid, status, 0);
			return false;
		}
		usleep(1000);
	}
	return ret == pid;
}

/*
 * A row that goes through several mappings has entries in each of them. With two
 * pages of one unit, the split for the first may cost the second its entry.
 */
static u64 most_faults(const struct dirty_writer *row)
{
	u64 most = FAULTS_A_PAGE * (row->mappings ?: 1);

	if (row->no_entry)
		return 0;
	return row->pages == 2 ? 3 * most : most;
}

static void execute(struct __test_metadata *_metadata, insn_t *self, map_fn map,
		    u64 seed)
{
	int status = 0;
	pid_t pid;

	self->faults = faults();
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		dirty_writer_open(&self->w, &self->t, map(&self->t));
		dirty_writer_store(&self->w, PAGE_NR, seed);
		dirty_writer_close(&self->w);
		_exit(0);
	}
	ASSERT_TRUE(ends(self->faults, pid, &status))
		TH_LOG("no end after %lu faults", faults() - self->faults);
	ASSERT_TRUE(WIFEXITED(status));
	ASSERT_EQ(0, WEXITSTATUS(status));
	EXPECT_LE(faults() - self->faults, most_faults(self->w.row));
	dirty_writer_stored(self->w.row, &self->t, PAGE_NR, seed);
}

/*
 * The first time the unit is one folio, the second time it is single pages that
 * were protected by a collect.
 */
static void few_faults(struct __test_metadata *_metadata, insn_t *self,
		       map_fn map)
{
	u64 splits = precopy_stat(bdfs[0], "splits");
	int pass;

	tracking_begin(&self->t);
	for (pass = 0; pass < 2; pass++) {
		execute(_metadata, self, map, ++self->t.seed);
		EXPECT_EQ(0, tracking_carry(&self->t));
	}
	/* Only an entry that is writable needs a split. */
	EXPECT_EQ(splits + !self->w.row->no_entry,
		  precopy_stat(bdfs[0], "splits"));
	EXPECT_EQ(0, tracking_finish(&self->t));
}

TEST_F_TIMEOUT(insn, unaligned, MIG_TIMEOUT)
{
	few_faults(_metadata, self, map_unaligned);
}

TEST_F_TIMEOUT(insn, aligned, MIG_TIMEOUT)
{
	few_faults(_metadata, self, map_aligned);
}

TEST_F_TIMEOUT(insn, nohugepage, MIG_TIMEOUT)
{
	few_faults(_metadata, self, map_nohuge);
}

TEST_F_TIMEOUT(insn, thp_never, MIG_TIMEOUT)
{
	few_faults(_metadata, self, map_thp_never);
}

#ifdef __x86_64__
/* ---- Several at once, all in one unit ---------------------------------------- */

FIXTURE(crowd) {
	struct precopy_tracking t;
};

FIXTURE_VARIANT(crowd) {
	map_fn map;
};

FIXTURE_VARIANT_ADD(crowd, unaligned) { .map = map_unaligned };
FIXTURE_VARIANT_ADD(crowd, aligned) { .map = map_aligned };
FIXTURE_VARIANT_ADD(crowd, nohugepage) { .map = map_nohuge };
FIXTURE_VARIANT_ADD(crowd, thp_never) { .map = map_thp_never };

FIXTURE_SETUP(crowd)
{
	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	if (precopy_stat(bdfs[0], "mkwrite_faults") == ~0ULL)
		SKIP(return, "no statistics in debugfs");
	tracking_open(&self->t, bdfs, SIZE);
}

FIXTURE_TEARDOWN(crowd)
{
	tracking_close(&self->t);
}

static void crowd_insn(u8 *page)
{
	dirty_writer_find("rep_movsb")->insn(page, 0);
}

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
	crowd_insn(page);
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
TEST_F_TIMEOUT(crowd, in_one_unit, MIG_TIMEOUT)
{
	int status = 0, i;
	u64 before;
	pid_t pid;

	tracking_begin(&self->t);
	before = faults();
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		crowd_in_child(variant->map(&self->t));
	ASSERT_TRUE(ends(before, pid, &status))
		TH_LOG("no end after %lu faults", faults() - before);
	ASSERT_TRUE(WIFEXITED(status));
	ASSERT_EQ(0, WEXITSTATUS(status));
	EXPECT_LE(faults() - before, THREADS * 2 * FAULTS_A_PAGE);
	for (i = 0; i < THREADS; i++) {
		crowd_insn(self->t.a.shadow + crowd_page(i) * PRECOPY_PAGE);
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
