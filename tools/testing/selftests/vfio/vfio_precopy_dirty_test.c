// SPDX-License-Identifier: GPL-2.0-only
/*
 * Tracking of what is written to the device while it is migrated, by user
 * space in all the ways it has. A way of writing is tried in several passes:
 * write, read the stream to its temporary end, write again to the same pages.
 * So the stores of all passes but the first come after a collect, through what
 * was there before it. Each collect must carry what was stored before it, and
 * nothing else; in the end the copy must hold everything, which a shadow knows
 * that no device has a part in.
 *
 * Pins and references are in vfio_precopy_dirty_pin_test.c, what else may happen to
 * a mapping in vfio_precopy_dirty_map_test.c.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <linux/stddef.h>
#include <linux/futex.h>
#include <linux/sizes.h>
#include <linux/types.h>

#include <libvfio.h>
#include <libvfio/precopy_stream.h>
#include <libvfio/precopy_tracking.h>

#include <libvfio/mig_harness.h>

#define SIZE		SZ_4M
#define STORM_MS	1500

static char **bdfs;
static int nr_bdfs;

struct order {
	u64 page;
	u64 seed;
};

FIXTURE(dirty) {
	struct precopy_tracking t;
	u8 *second;		/* another mapping of the BAR of a */
	/* a child that writes on demand */
	pid_t child;
	int to_child[2];
	int from_child[2];
	int pipe[2];
	volatile pid_t reader;	/* a thread, when it has begun */
};

FIXTURE_SETUP(dirty)
{
	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	tracking_open(&self->t, bdfs, SIZE);
	self->second = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			    self->t.a.fd, self->t.a.bar_offset);
	ASSERT_NE(MAP_FAILED, self->second);
	ASSERT_EQ(0, pipe(self->pipe));
}

FIXTURE_TEARDOWN(dirty)
{
	if (self->child > 0) {
		kill(self->child, SIGKILL);
		waitpid(self->child, NULL, 0);
	}
	if (self->second)
		munmap(self->second, SIZE);
	tracking_close(&self->t);
}

typedef FIXTURE_DATA(dirty) dirty_t;

/* ------------------------------------------------------------------------ */

static void by_store(void *arg, u64 page, u64 seed)
{
	dirty_t *self = arg;

	precopy_pattern(self->t.a.bar + page * PRECOPY_PAGE, page, seed);
}

TEST_F_TIMEOUT(dirty, store, MIG_TIMEOUT)
{
	EXPECT_EQ(0, tracking_passes(&self->t, by_store, self));
}

static void by_pwrite(void *arg, u64 page, u64 seed)
{
	dirty_t *self = arg;

	precopy_fill(&self->t.a, page, 1, seed, BY_PWRITE);
}

TEST_F_TIMEOUT(dirty, pwrite, MIG_TIMEOUT)
{
	EXPECT_EQ(0, tracking_passes(&self->t, by_pwrite, self));
}

static void by_second(void *arg, u64 page, u64 seed)
{
	dirty_t *self = arg;

	precopy_pattern(self->second + page * PRECOPY_PAGE, page, seed);
}

TEST_F_TIMEOUT(dirty, second_mapping, MIG_TIMEOUT)
{
	EXPECT_EQ(0, tracking_passes(&self->t, by_second, self));
}

/* Half the page by each, so that both mappings are writable at a collect. */
static void by_both(void *arg, u64 page, u64 seed)
{
	dirty_t *self = arg;
	u8 buf[PRECOPY_PAGE] __attribute__((aligned(8)));
	size_t half = PRECOPY_PAGE / 2;

	precopy_pattern(buf, page, seed);
	memcpy(self->t.a.bar + page * PRECOPY_PAGE, buf, half);
	memcpy(self->second + page * PRECOPY_PAGE + half, buf + half, half);
}

TEST_F_TIMEOUT(dirty, both_mappings, MIG_TIMEOUT)
{
	EXPECT_EQ(0, tracking_passes(&self->t, by_both, self));
}

/* One locked instruction on the page: a load and a store in one. */
TEST_F_TIMEOUT(dirty, atomic, MIG_TIMEOUT)
{
	u64 *word = (u64 *)(self->t.a.bar + 9 * PRECOPY_PAGE);
	u64 *shadow = (u64 *)(self->t.a.shadow + 9 * PRECOPY_PAGE);
	int pass;

	tracking_begin(&self->t);
	for (pass = 0; pass < 2 * TRACKING_PASSES; pass++) {
		__atomic_fetch_add(word, 3, __ATOMIC_SEQ_CST);
		*shadow += 3;
		tracking_touched(&self->t, 9);
		EXPECT_EQ(TRACKING_PAGE_COST, tracking_dirty_bytes(&self->t))
			TH_LOG("pass %d", pass);
		if (pass % 4 != 3)
			EXPECT_EQ(0, tracking_carry(&self->t));
	}
	EXPECT_EQ(0, tracking_finish(&self->t));
}

/*
 * Of two stores to a page the second may come when the first has its entry
 * already but has not returned from the fault. A collect right after it carries
 * it, or sets the page aside because the fault still has a reference to it. Then
 * the page is announced, and the next collect after the fault carries it. How
 * long the other thread takes decides which of the two is seen, not what is right.
 */
#define BESIDE_US	3000

/* The image has the store, or the device announces a page that is to come. */
static bool carried_or_announced(dirty_t *self, const u64 *in_image, u64 stored)
{
	u64 left;

	if (*in_image == stored)
		return true;
	return !mig_data_size(self->t.a.dev, &left) && left >= PRECOPY_PAGE;
}

static void *store_first_word(void *arg)
{
	volatile u64 *word = arg;

	word[0]++;
	return NULL;
}

TEST_F_TIMEOUT(dirty, store_beside_fault, MIG_TIMEOUT)
{
	u64 *word = (u64 *)(self->t.a.bar + 9 * PRECOPY_PAGE);
	u64 *shadow = (u64 *)(self->t.a.shadow + 9 * PRECOPY_PAGE);
	u64 *image = (u64 *)(self->t.image + 9 * PRECOPY_PAGE);
	int pass, carried = 0;
	pthread_t thread;

	tracking_begin(&self->t);
	for (pass = 0; pass < 8; pass++) {
		ASSERT_EQ(0, pthread_create(&thread, NULL, store_first_word,
					    word));
		usleep(BESIDE_US);
		*(volatile u64 *)(word + 100) += 5;
		tracking_collect(&self->t);
		shadow[0]++;
		shadow[100] += 5;
		EXPECT_TRUE(carried_or_announced(self, &image[100],
						 shadow[100]));
		carried += shadow[100] == image[100];
		ASSERT_EQ(0, pthread_join(thread, NULL));
		tracking_collect(&self->t);
		EXPECT_EQ(0, tracking_lost(&self->t));
	}
	TH_LOG("%d of %d carried at once", carried, pass);
	EXPECT_EQ(0, tracking_finish(&self->t));
}

/* A single byte is enough. */
TEST_F_TIMEOUT(dirty, one_byte, MIG_TIMEOUT)
{
	u64 offset;
	u8 byte;
	int i;

	tracking_begin(&self->t);
	for (i = 0; i < 16; i++) {
		offset = (u64)i * 4 * PRECOPY_PAGE + (i * 977) % PRECOPY_PAGE;
		byte = i + 1;
		precopy_store(&self->t.a, offset, &byte, 1,
			      i & 1 ? BY_MMAP : BY_PWRITE);
		tracking_touched(&self->t, offset / PRECOPY_PAGE);
		EXPECT_EQ(TRACKING_PAGE_COST, tracking_dirty_bytes(&self->t));
		EXPECT_EQ(0, tracking_carry(&self->t));
	}
	EXPECT_EQ(0, tracking_finish(&self->t));
}

static void serve(dirty_t *self, u8 *map)
{
	struct order order;

	/* Writable before tracking starts, as a running guest's is. */
	while (read(self->to_child[0], &order, sizeof(order)) == sizeof(order)) {
		precopy_pattern(map + order.page * PRECOPY_PAGE, order.page,
				order.seed);
		if (write(self->from_child[1], &order, 1) != 1)
			break;
	}
	_exit(0);
}

/* The child writes to the mapping it inherited, or to one of its own. */
static void start_child(dirty_t *self, bool own_mapping)
{
	u8 *map = self->t.a.bar;

	VFIO_ASSERT_EQ(pipe(self->to_child), 0);
	VFIO_ASSERT_EQ(pipe(self->from_child), 0);
	self->child = fork();
	VFIO_ASSERT_GE(self->child, 0);
	if (self->child)
		return;
	if (own_mapping)
		map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED,
			   self->t.a.fd, self->t.a.bar_offset);
	if (map != MAP_FAILED)
		serve(self, map);
	_exit(1);
}

static void by_child(void *arg, u64 page, u64 seed)
{
	dirty_t *self = arg;
	struct order order = { page, seed };
	char done;

	VFIO_ASSERT_EQ(write(self->to_child[1], &order, sizeof(order)),
		       (ssize_t)sizeof(order));
	VFIO_ASSERT_EQ(read(self->from_child[0], &done, 1), 1);
}

TEST_F_TIMEOUT(dirty, child, MIG_TIMEOUT)
{
	precopy_fill(&self->t.a, 0, 64, 1, BY_MMAP);
	start_child(self, false);
	by_child(self, 7, 2);
	EXPECT_EQ(0, tracking_passes(&self->t, by_child, self));
}

TEST_F_TIMEOUT(dirty, child_with_own_mapping, MIG_TIMEOUT)
{
	start_child(self, true);
	by_child(self, 7, 2);
	EXPECT_EQ(0, tracking_passes(&self->t, by_child, self));
}

/* The kernel as writer: the copy of a system call that returns data. */
static void by_read(void *arg, u64 page, u64 seed)
{
	dirty_t *self = arg;
	u8 buf[PRECOPY_PAGE] __attribute__((aligned(8)));

	precopy_pattern(buf, page, seed);
	VFIO_ASSERT_EQ(write(self->pipe[1], buf, sizeof(buf)),
		       (ssize_t)sizeof(buf));
	VFIO_ASSERT_EQ(read(self->pipe[0], self->t.a.bar + page * PRECOPY_PAGE,
			    sizeof(buf)), (ssize_t)sizeof(buf));
}

TEST_F_TIMEOUT(dirty, read_into, MIG_TIMEOUT)
{
	EXPECT_EQ(0, tracking_passes(&self->t, by_read, self));
}

/*
 * By way of the kernel, into a process that need not know: the pages are
 * pinned for the moment of the copy, no page table is involved.
 */
static void process_vm(dirty_t *self, pid_t pid, u64 page, u64 seed)
{
	u8 buf[PRECOPY_PAGE] __attribute__((aligned(8)));
	struct iovec local = { buf, sizeof(buf) };
	struct iovec remote = {
		self->t.a.bar + page * PRECOPY_PAGE, sizeof(buf)
	};
	ssize_t ret;

	precopy_pattern(buf, page, seed);
	ret = process_vm_writev(pid, &local, 1, &remote, 1, 0);
	VFIO_ASSERT_EQ(ret, (ssize_t)sizeof(buf));
}

static void by_process_vm_writev(void *arg, u64 page, u64 seed)
{
	dirty_t *self = arg;

	process_vm(self, getpid(), page, seed);
}

TEST_F_TIMEOUT(dirty, process_vm_writev, MIG_TIMEOUT)
{
	EXPECT_EQ(0, tracking_passes(&self->t, by_process_vm_writev, self));
}

static ssize_t proc_mem(dirty_t *self, pid_t pid, u64 page, u64 seed)
{
	u8 buf[PRECOPY_PAGE] __attribute__((aligned(8)));
	char path[64];
	ssize_t ret;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDWR);
	VFIO_ASSERT_GE(fd, 0);
	precopy_pattern(buf, page, seed);
	ret = pwrite(fd, buf, sizeof(buf),
		     (uintptr_t)self->t.a.bar + page * PRECOPY_PAGE);
	close(fd);
	return ret;
}

static void by_proc_mem(void *arg, u64 page, u64 seed)
{
	dirty_t *self = arg;

	VFIO_ASSERT_EQ(proc_mem(self, getpid(), page, seed),
		       (ssize_t)PRECOPY_PAGE);
}

TEST_F_TIMEOUT(dirty, proc_mem, MIG_TIMEOUT)
{
	EXPECT_EQ(0, tracking_passes(&self->t, by_proc_mem, self));
}

/* What a debugger may do to a read-only private mapping is not for a BAR. */
TEST_F_TIMEOUT(dirty, proc_mem_does_not_force, MIG_TIMEOUT)
{
	precopy_fill(&self->t.a, 0, 64, 1, BY_MMAP);
	ASSERT_EQ(0, mprotect(self->t.a.bar, SIZE, PROT_READ));
	EXPECT_EQ(-1, proc_mem(self, getpid(), 7, 2));
	EXPECT_EQ(EIO, errno);
	ASSERT_EQ(0, mprotect(self->t.a.bar, SIZE, PROT_READ | PROT_WRITE));
	EXPECT_EQ(0, tracking_passes(&self->t, by_store, self));
}

/* The child has the page writable from before; the parent does the store. */
static void by_process_vm_writev_to_child(void *arg, u64 page, u64 seed)
{
	dirty_t *self = arg;

	process_vm(self, self->child, page, seed);
}

TEST_F_TIMEOUT(dirty, process_vm_writev_to_child, MIG_TIMEOUT)
{
	start_child(self, false);
	by_child(self, 7, 2);
	EXPECT_EQ(0, tracking_passes(&self->t, by_process_vm_writev_to_child, self));
}

static void by_proc_mem_of_child(void *arg, u64 page, u64 seed)
{
	dirty_t *self = arg;

	VFIO_ASSERT_EQ(proc_mem(self, self->child, page, seed),
		       (ssize_t)PRECOPY_PAGE);
}

TEST_F_TIMEOUT(dirty, proc_mem_of_child, MIG_TIMEOUT)
{
	start_child(self, false);
	by_child(self, 7, 2);
	EXPECT_EQ(0, tracking_passes(&self->t, by_proc_mem_of_child, self));
}

static void by_ptrace(void *arg, u64 page, u64 seed)
{
	dirty_t *self = arg;
	u64 words[PRECOPY_PAGE / sizeof(u64)];
	u64 *to = (u64 *)(self->t.a.bar + page * PRECOPY_PAGE);
	size_t i;

	VFIO_ASSERT_EQ(ptrace(PTRACE_ATTACH, self->child, NULL, NULL), 0);
	VFIO_ASSERT_EQ(waitpid(self->child, NULL, 0), self->child);
	precopy_pattern(words, page, seed);
	for (i = 0; i < ARRAY_SIZE(words); i++)
		VFIO_ASSERT_EQ(ptrace(PTRACE_POKEDATA, self->child, to + i,
				      words[i]), 0);
	VFIO_ASSERT_EQ(ptrace(PTRACE_DETACH, self->child, NULL, NULL), 0);
}

TEST_F_TIMEOUT(dirty, ptrace_poke, MIG_TIMEOUT)
{
	start_child(self, false);
	by_child(self, 7, 2);
	EXPECT_EQ(0, tracking_passes(&self->t, by_ptrace, self));
}

/* The kernel's own atomic operation on a word of the user. */
TEST_F_TIMEOUT(dirty, futex_op, MIG_TIMEOUT)
{
	u32 *word = (u32 *)(self->t.a.bar + 9 * PRECOPY_PAGE);
	u32 *shadow = (u32 *)(self->t.a.shadow + 9 * PRECOPY_PAGE);
	int op = FUTEX_OP(FUTEX_OP_ADD, 3, FUTEX_OP_CMP_EQ, 0);
	u32 nobody = 0;
	int pass;

	tracking_begin(&self->t);
	for (pass = 0; pass < TRACKING_PASSES; pass++) {
		ASSERT_EQ(0, syscall(__NR_futex, &nobody,
				     FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG, 0, 0,
				     word, op));
		*shadow += 3;
		tracking_touched(&self->t, 9);
		EXPECT_EQ(0, tracking_carry(&self->t));
	}
	EXPECT_EQ(0, tracking_finish(&self->t));
}

/* A system call that is under way when the collect comes, and returns after. */
static void *reader(void *arg)
{
	dirty_t *self = arg;
	size_t done = 0;
	ssize_t ret;

	self->reader = gettid();
	while (done < PRECOPY_PAGE) {
		ret = read(self->pipe[0],
			   self->t.a.bar + 7 * PRECOPY_PAGE + done,
			   PRECOPY_PAGE - done);
		VFIO_ASSERT_GT(ret, 0);
		done += ret;
	}

	return NULL;
}

TEST_F_TIMEOUT(dirty, read_under_way, MIG_TIMEOUT)
{
	u8 buf[PRECOPY_PAGE] __attribute__((aligned(8)));
	const volatile bool never = false;
	pthread_t thread;
	int pass;

	tracking_begin(&self->t);
	for (pass = 0; pass < TRACKING_PASSES; pass++) {
		tracking_store_pages(&self->t, by_store, self, pass);
		self->reader = 0;
		ASSERT_EQ(0, pthread_create(&thread, NULL, reader, self));
		ASSERT_TRUE(precopy_wait_blocked(&self->reader, __NR_read,
						 &never));
		EXPECT_EQ(0, tracking_carry(&self->t));
		precopy_pattern(buf, 7, ++self->t.seed);
		ASSERT_EQ((ssize_t)sizeof(buf),
			  write(self->pipe[1], buf, sizeof(buf)));
		ASSERT_EQ(0, pthread_join(thread, NULL));
		tracking_stored(&self->t, 7, self->t.seed);
		EXPECT_EQ(0, tracking_carry(&self->t));
	}
	EXPECT_EQ(0, tracking_finish(&self->t));
}

/* ------------------------------------------------------------------------ */

TEST_F_TIMEOUT(dirty, reads_never_dirty, MIG_TIMEOUT)
{
	struct pollfd pfd = { .events = POLLIN };
	volatile u8 sum = 0;
	size_t i;

	tracking_begin(&self->t);
	pfd.fd = self->t.data_fd;
	/* All of it: in use and not, by read() and through both mappings. */
	EXPECT_EQ(0, precopy_differ(&self->t.a, self->t.a.shadow));
	for (i = 0; i < SIZE; i += 512)
		sum += self->second[i];
	EXPECT_EQ(0, tracking_dirty_bytes(&self->t));
	EXPECT_EQ(0, poll(&pfd, 1, 0));

	/* And what was only read is found out when it is written. */
	precopy_fill(&self->t.a, 900, 1, 2, BY_MMAP);
	tracking_touched(&self->t, 900);
	EXPECT_EQ(TRACKING_PAGE_COST, tracking_dirty_bytes(&self->t));
	EXPECT_EQ(0, tracking_carry(&self->t));
	EXPECT_EQ(0, precopy_differ(&self->t.a, self->t.a.shadow));
	EXPECT_EQ(0, tracking_dirty_bytes(&self->t));
	EXPECT_EQ(0, tracking_finish(&self->t));
}

/* Between two migrations writes are not counted, and none is forgotten. */
TEST_F_TIMEOUT(dirty, second_migration, MIG_TIMEOUT)
{
	tracking_begin(&self->t);
	precopy_fill(&self->t.a, 0, 10, 2, BY_MMAP);
	tracking_end(&self->t);
	precopy_fill(&self->t.a, 5, 10, 3, BY_MMAP);
	precopy_fill(&self->t.a, 500, 10, 3, BY_MMAP);
	EXPECT_EQ(0, tracking_passes(&self->t, by_store, self));
}

struct writer {
	dirty_t *self;
	pthread_t thread;
	volatile bool stop;
	enum precopy_how how;
	u64 first;
	u64 nr;
	volatile u64 written;
};

/* Stamps pages of its own at random, and their shadow, until told to stop. */
static void *storm_thread(void *arg)
{
	struct writer *w = arg;
	u64 stamp[4], offset;
	unsigned int rnd = w->first + 1;

	while (!w->stop) {
		w->written++;
		offset = (w->first + rand_r(&rnd) % w->nr) * PRECOPY_PAGE;
		offset += rand_r(&rnd) % (PRECOPY_PAGE / 32) * 32;
		stamp[0] = w->written;
		stamp[1] = offset;
		stamp[2] = ~w->written;
		stamp[3] = rand_r(&rnd);
		precopy_store(&w->self->t.a, offset, stamp, sizeof(stamp), w->how);
		if (w->written % 64 == 0)
			sched_yield();
	}

	return NULL;
}

static bool all_wrote(const struct writer *writers, int nr)
{
	while (nr && writers[nr - 1].written)
		nr--;
	return !nr;
}

/* While others write, passes one after the other; then they stop. */
static void storm(struct __test_metadata *_metadata, dirty_t *self,
		  struct writer *writers, int nr, void *(*fn)(void *))
{
	u64 end = precopy_now_ms() + STORM_MS;
	int i, ret, nr_passes = 0;

	tracking_begin(&self->t);
	for (i = 0; i < nr; i++) {
		writers[i].self = self;
		ASSERT_EQ(0, pthread_create(&writers[i].thread, NULL, fn,
					    &writers[i]));
	}
	while (precopy_now_ms() < end || !all_wrote(writers, nr)) {
		ret = mig_stream_read(&self->t.stream, self->t.data_fd, SZ_256K);
		ASSERT_TRUE(ret > 0 || ret == -ENOMSG);
		nr_passes++;
	}
	for (i = 0; i < nr; i++) {
		writers[i].stop = true;
		ASSERT_EQ(0, pthread_join(writers[i].thread, NULL));
	}
	TH_LOG("%d reads of the stream, %zu bytes, first writer wrote %lu times",
	       nr_passes, self->t.stream.len, writers[0].written);
	EXPECT_EQ(0, tracking_finish(&self->t));
}

TEST_F_TIMEOUT(dirty, storm, MIG_TIMEOUT)
{
	struct writer writers[] = {
		{ .how = BY_MMAP, .first = 0, .nr = 16 },
		{ .how = BY_MMAP, .first = 16, .nr = 100 },
		{ .how = BY_PWRITE, .first = 200, .nr = 300 },
	};

	storm(_metadata, self, writers, ARRAY_SIZE(writers), storm_thread);
}

/*
 * The same with a mapping that is read-only most of the time, so that entries
 * go back and forth between all the states that they can be in while they are
 * collected.
 */
static void *mprotect_thread(void *arg)
{
	struct writer *w = arg;
	u64 stamp[2], offset;
	unsigned int rnd = 7;
	int i;

	while (!w->stop) {
		VFIO_ASSERT_EQ(mprotect(w->self->second, SIZE,
					PROT_READ | PROT_WRITE), 0);
		for (i = rand_r(&rnd) % 4; i >= 0; i--) {
			w->written++;
			offset = (w->first + rand_r(&rnd) % w->nr) * PRECOPY_PAGE;
			offset += rand_r(&rnd) % 8 * 16;
			stamp[0] = w->written;
			stamp[1] = offset;
			memcpy(w->self->second + offset, stamp, sizeof(stamp));
			memcpy(w->self->t.a.shadow + offset, stamp, sizeof(stamp));
		}
		VFIO_ASSERT_EQ(mprotect(w->self->second, SIZE, PROT_READ), 0);
	}

	return NULL;
}

TEST_F_TIMEOUT(dirty, mprotect_storm, MIG_TIMEOUT)
{
	struct writer w = { .first = 0, .nr = 4 };

	storm(_metadata, self, &w, 1, mprotect_thread);
}

/* Mappings that come, are written through, and go. */
static void *remap_thread(void *arg)
{
	struct writer *w = arg;
	u64 page, offset;
	unsigned int rnd = 9;
	u8 *map;

	while (!w->stop) {
		w->written++;
		page = w->first + rand_r(&rnd) % w->nr;
		offset = page * PRECOPY_PAGE;
		map = mmap(NULL, PRECOPY_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
			   w->self->t.a.fd, w->self->t.a.bar_offset + offset);
		VFIO_ASSERT_NE(map, MAP_FAILED);
		*(volatile u64 *)map = w->written;
		*(u64 *)(w->self->t.a.shadow + offset) = w->written;
		VFIO_ASSERT_EQ(munmap(map, PRECOPY_PAGE), 0);
	}

	return NULL;
}

TEST_F_TIMEOUT(dirty, remap_storm, MIG_TIMEOUT)
{
	struct writer w = { .first = 70, .nr = 8 };

	storm(_metadata, self, &w, 1, remap_thread);
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
