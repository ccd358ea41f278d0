// SPDX-License-Identifier: GPL-2.0-only
/*
 * Who pays for the device's memory: the memory cgroup of whoever opened it,
 * for what was touched and no more, until it is reset. And what happens when
 * that cgroup has no more: an error for the one who asked, nobody killed, and
 * a device that works again after a reset. Where there is no error to be given,
 * as for a store, it is as for any memory: who has used it up is killed, and
 * whoever opens the device next does not notice.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_handoff.h>
#include <libvfio/precopy_migrate.h>
#include <libvfio/precopy_stream.h>

#include <libvfio/mig_harness.h>

#define CGROUP_ROOT	"/sys/fs/cgroup"

#define SIZE		SZ_64M
#define UNIT_PAGES	(WIRE_UNIT / PRECOPY_PAGE)
#define UNITS		8
#define USED		(UNITS * WIRE_UNIT)
/* Charges are made in advance by each processor, and page tables cost, too */
#define SLACK		SZ_1M
#define SETTLE_MS	30000

static char **bdfs;
static int nr_bdfs;

static int cg_write(const char *dir, const char *file, const char *value)
{
	char path[256];
	int fd, ret;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return -errno;
	ret = write(fd, value, strlen(value)) < 0 ? -errno : 0;
	close(fd);
	return ret;
}

static u64 cg_number(const char *dir, const char *file, const char *name)
{
	char path[256], line[128], word[64];
	unsigned long long number;
	u64 found = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	f = fopen(path, "r");
	if (!f)
		return 0;
	while (fgets(line, sizeof(line), f))
		if (sscanf(line, "%63s %llu", word, &number) == 2 &&
		    !strcmp(word, name))
			found = number;
	fclose(f);
	return found;
}

/* Kernel memory, which is what the device's is */
static u64 cg_kernel_bytes(const char *dir)
{
	return cg_number(dir, "memory.stat", "kernel");
}

/* All that is charged, bytes; 0 if it cannot be found out */
static u64 cg_current(const char *dir)
{
	char path[256], text[32] = "";
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "%s/memory.current", dir);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return 0;
	len = read(fd, text, sizeof(text) - 1);
	close(fd);
	return len > 0 ? strtoull(text, NULL, 10) : 0;
}

static int cg_limit_at(const char *dir, u64 bytes)
{
	char text[32];

	snprintf(text, sizeof(text), "%llu", (unsigned long long)bytes);
	return cg_write(dir, "memory.max", text);
}

/* The limit is @more than there is now */
static int cg_limit(const char *dir, u64 more)
{
	return cg_limit_at(dir, cg_current(dir) + more);
}

FIXTURE(memory) {
	struct precopy_dev a;
	char cgroup[128];
};

typedef FIXTURE_DATA(memory) memory_t;

/*
 * The device is opened from inside the cgroup. After that this process leaves,
 * so that the device's memory is all there is in it, charged to who opened it
 * and not to who touches it, and running out has no process to kill.
 */
FIXTURE_SETUP(memory)
{
	if (cg_write(CGROUP_ROOT, "cgroup.subtree_control", "+memory"))
		SKIP(return, "no memory controller in " CGROUP_ROOT);
	snprintf(self->cgroup, sizeof(self->cgroup),
		 CGROUP_ROOT "/precopy-test-%d", getpid());
	ASSERT_EQ(0, mkdir(self->cgroup, 0755));
	ASSERT_EQ(0, cg_write(self->cgroup, "cgroup.procs", "0"));
	precopy_open(&self->a, bdfs[0], NULL, SIZE);
	ASSERT_EQ(0, cg_write(CGROUP_ROOT, "cgroup.procs", "0"));
}

FIXTURE_TEARDOWN(memory)
{
	precopy_close(&self->a);
	EXPECT_EQ(0, rmdir(self->cgroup));
}

/* One page in each of the units, so that whole units are allocated */
static void touch_units(struct precopy_dev *pd, enum precopy_how how)
{
	u64 unit;

	for (unit = 0; unit < UNITS; unit++)
		precopy_fill(pd, unit * UNIT_PAGES + 7, 1, unit + 1, how);
}

/* Memory is given back in the background: wait until at most @bytes are left */
static bool settles_at(const char *cgroup, u64 bytes)
{
	u64 end = precopy_now_ms() + SETTLE_MS;

	while (cg_kernel_bytes(cgroup) > bytes) {
		if (precopy_now_ms() > end)
			return false;
		usleep(20000);
	}
	return true;
}

static void charged_until_reset(struct __test_metadata *_metadata,
				memory_t *self, u64 before)
{
	u64 after = cg_kernel_bytes(self->cgroup);

	EXPECT_GE(after, before + USED - SLACK);
	EXPECT_LE(after, before + USED + SLACK);
	precopy_reset(&self->a);
	EXPECT_TRUE(settles_at(self->cgroup, before + SLACK));
}

TEST_F_TIMEOUT(memory, stores_are_charged, MIG_TIMEOUT)
{
	u64 before = cg_kernel_bytes(self->cgroup);

	touch_units(&self->a, BY_MMAP);
	charged_until_reset(_metadata, self, before);
}

TEST_F_TIMEOUT(memory, writes_are_charged, MIG_TIMEOUT)
{
	u64 before = cg_kernel_bytes(self->cgroup);

	touch_units(&self->a, BY_PWRITE);
	charged_until_reset(_metadata, self, before);
}

TEST_F_TIMEOUT(memory, holes_are_free, MIG_TIMEOUT)
{
	u64 before = cg_kernel_bytes(self->cgroup);
	u8 *buf = malloc_assert(SZ_1M);
	u64 offset;

	for (offset = 0; offset < SIZE; offset += SZ_1M) {
		memset(buf, 0x5a, SZ_1M);
		ASSERT_EQ(SZ_1M, pread(self->a.fd, buf, SZ_1M,
				       self->a.bar_offset + offset));
		ASSERT_EQ(0, buf[0]);
		ASSERT_EQ(0, memcmp(buf, buf + 1, SZ_1M - 1));
	}
	free(buf);
	EXPECT_LE(cg_kernel_bytes(self->cgroup), before + SLACK);
}

/* Repetitions: a leak of each of them adds up to more than SLACK */
#define OFTEN		24

/* The driver frees the memory that pre-copy reserved, although no unit was split. */
TEST_F_TIMEOUT(memory, precopy_leaves_nothing, MIG_TIMEOUT)
{
	u64 before, unit;
	int i, fd;

	for (unit = 0; unit < SIZE / WIRE_UNIT; unit++)
		precopy_fill(&self->a, unit * UNIT_PAGES + 7, 1, 1, BY_MMAP);
	before = cg_kernel_bytes(self->cgroup);
	for (i = 0; i < OFTEN; i++) {
		ASSERT_EQ(0, mig_set_state(self->a.dev,
					   VFIO_DEVICE_STATE_PRE_COPY, &fd));
		ASSERT_EQ(0, mig_set_state(self->a.dev,
					   VFIO_DEVICE_STATE_RUNNING, NULL));
		close(fd);
	}
	EXPECT_TRUE(settles_at(self->cgroup, before + SLACK));
}

static void limit_to(struct __test_metadata *_metadata,
		     memory_t *self, u64 more)
{
	ASSERT_EQ(0, cg_limit(self->cgroup, more));
}

/* A thread usually finds within this time that there is no memory */
#define TAKE_MS		300

static void *store_to_second_unit(void *arg)
{
	struct precopy_dev *pd = arg;

	*(volatile u64 *)(pd->bar + WIRE_UNIT) = 1;
	return NULL;
}

/*
 * Two units are divided, and there is memory to copy one: the second waits for what the
 * first one gives back.
 */
TEST_F_TIMEOUT(memory, splits_take_turns, MIG_TIMEOUT)
{
	u64 splits, failed = precopy_stat(bdfs[0], "failed_splits");
	struct precopy_held_split held;
	struct mig_stream stream = {};
	pthread_t thread;
	int fd;

	if (!precopy_has_knob(bdfs[0], "hold_split"))
		SKIP(return, "no test knob hold_split in debugfs");
	touch_units(&self->a, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->a.dev, VFIO_DEVICE_STATE_PRE_COPY, &fd));
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&stream, fd, SZ_64K));
	splits = precopy_stat(bdfs[0], "splits");
	precopy_hold_split(&held, &self->a, 0);
	limit_to(_metadata, self, SZ_1M);
	*(u64 *)(self->a.shadow + WIRE_UNIT) = 1;
	ASSERT_EQ(0, pthread_create(&thread, NULL, store_to_second_unit,
				    &self->a));
	usleep(TAKE_MS * 1000);
	EXPECT_EQ(splits, precopy_stat(bdfs[0], "splits"));
	precopy_release_split(&held);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(splits + 2, precopy_stat(bdfs[0], "splits"));
	EXPECT_EQ(failed, precopy_stat(bdfs[0], "failed_splits"));
	cg_write(self->cgroup, "memory.max", "max");
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	mig_stream_free(&stream);
	close(fd);
}

static void works_after_reset(struct __test_metadata *_metadata,
			      memory_t *self)
{
	ASSERT_EQ(0, ioctl(self->a.fd, VFIO_DEVICE_RESET));
	memset(self->a.shadow, 0, SIZE);
	EXPECT_EQ((int)VFIO_DEVICE_STATE_RUNNING, mig_get_state(self->a.dev));
	cg_write(self->cgroup, "memory.max", "max");
	precopy_fill(&self->a, 3, 2, 99, BY_PWRITE);
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
}

TEST_F_TIMEOUT(memory, write_beyond_the_limit, MIG_TIMEOUT)
{
	u64 page, byte = ~0ULL;
	ssize_t ret = 0;

	limit_to(_metadata, self, USED);
	/* Every page: what has no room as a whole unit goes on by single pages */
	for (page = 0; page < SIZE / PRECOPY_PAGE; page++) {
		ret = pwrite(self->a.fd, &byte, sizeof(byte),
			     self->a.bar_offset + page * PRECOPY_PAGE);
		if (ret < 0)
			break;
	}
	EXPECT_EQ(-1, ret);
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_GE(page, UNITS / 2 * UNIT_PAGES);
	/* Nothing that was stored before is lost by it */
	EXPECT_EQ(sizeof(byte), (size_t)pread(self->a.fd, &byte, sizeof(byte),
					      self->a.bar_offset));
	EXPECT_EQ(~0ULL, byte);
	works_after_reset(_metadata, self);
}

/* A stream that claims the whole BAR to be in use */
static void put_greedy_preface(struct wire *w)
{
	struct {
		struct wire_preface preface;
		u64 bitmap[1];
	} p = { .preface = { .bytes_in_use = SIZE,
			     .nr_units = SIZE / WIRE_UNIT } };

	p.bitmap[0] = (1ULL << (SIZE / WIRE_UNIT)) - 1;
	wire_put_record(w, WIRE_PREFACE, WIRE_MANDATORY, 0, &p, sizeof(p));
}

TEST_F_TIMEOUT(memory, startup_beyond_the_limit, MIG_TIMEOUT)
{
	struct vfio_precopy_startup info;
	struct wire w = {};
	char phase[32] = "";
	u64 before;
	int fd;

	before = cg_kernel_bytes(self->cgroup);
	limit_to(_metadata, self, USED);
	ASSERT_EQ(0, mig_set_state(self->a.dev, VFIO_DEVICE_STATE_RESUMING,
				   &fd));
	wire_init(&w, bdfs[0], SIZE);
	wire_put_header(&w);
	put_greedy_preface(&w);
	ASSERT_EQ(0, mig_write_all(fd, w.stream.data, w.stream.len,
				   w.stream.len, NULL));
	ASSERT_EQ(POLLPRI | POLLERR, handoff_poll(fd, POLLPRI, SETTLE_MS));
	ASSERT_EQ(0, precopy_sysfs_read(bdfs[0], "startup", phase,
					sizeof(phase)));
	ASSERT_STREQ("failed", phase);
	ASSERT_EQ(0, handoff_get(fd, &info));
	EXPECT_EQ(VFIO_PRECOPY_PHASE_FAILED, info.phase);
	EXPECT_EQ(ENOMEM, (int)info.error);
	/* What it had got is given back: the load is lost anyway */
	EXPECT_TRUE(settles_at(self->cgroup, before + SLACK));
	EXPECT_EQ(-1, write(fd, w.stream.data, 1));
	EXPECT_EQ(ENOMEM, errno);
	EXPECT_EQ(-ENOMEM, mig_set_state(self->a.dev, VFIO_DEVICE_STATE_STOP,
					 NULL));
	EXPECT_EQ((int)VFIO_DEVICE_STATE_RESUMING, mig_get_state(self->a.dev));
	wire_free(&w);
	works_after_reset(_metadata, self);
	EXPECT_EQ(-1, write(fd, "", 1));
	EXPECT_EQ(ENODEV, errno);
	close(fd);
}

/* ------------------------------------------------------------------------ */
/* A target needs no more than its source                                   */

/*
 * Beside the units that are whole, for single pages with their lists: less than
 * another whole unit, and enough where the kernel pads its objects
 */
#define SINGLES		SZ_1M
/* So much is left of the limit for the session of a load */
#define SESSION		SZ_512K

/*
 * The device is used within the limit, and then a stream of it is loaded within
 * the same limit.
 */
static void starts_where_it_ran(struct __test_metadata *_metadata,
				memory_t *self, u64 before, u64 limit)
{
	u64 used = handoff_stat(bdfs[0], "bytes_in_use");
	struct mig_stream stream = {};
	u8 *got = malloc_assert(SIZE);

	/* Whole units would not fit; if they do this tests nothing */
	EXPECT_LT(used, SIZE / 2);
	ASSERT_EQ(0, cg_write(self->cgroup, "memory.max", "max"));
	ASSERT_EQ(0, mig_save(self->a.dev, &stream));
	ASSERT_EQ(0, ioctl(self->a.fd, VFIO_DEVICE_RESET));
	EXPECT_TRUE(settles_at(self->cgroup, before + SESSION / 2));
	ASSERT_EQ(0, cg_limit_at(self->cgroup, limit + SESSION));
	EXPECT_EQ(0, mig_load(self->a.dev, &stream, SZ_64K));
	EXPECT_GE(used, handoff_stat(bdfs[0], "bytes_in_use"));
	mig_stream_free(&stream);
	cg_write(self->cgroup, "memory.max", "max");
	/* What comes later is allocated by whole units again */
	used = handoff_stat(bdfs[0], "bytes_in_use");
	EXPECT_EQ(0, mig_set_state(self->a.dev, VFIO_DEVICE_STATE_RUNNING,
				   NULL));
	precopy_fill(&self->a, SIZE / PRECOPY_PAGE - 1, 1, 5, BY_PWRITE);
	EXPECT_EQ(used + WIRE_UNIT, handoff_stat(bdfs[0], "bytes_in_use"));
	/* By read() only: the holes stay holes, and need no faults */
	precopy_load(&self->a, 0, got, SIZE, BY_PWRITE);
	EXPECT_EQ(0, memcmp(got, self->a.shadow, SIZE));
	free(got);
}

/* Within the limit the first units are whole, and the others are single pages. */
static void store_a_page_to_each(struct precopy_dev *pd, u64 nr_units)
{
	u64 unit;

	for (unit = 0; unit < nr_units; unit++)
		precopy_fill(pd, unit * UNIT_PAGES + 3, 1, 1, BY_PWRITE);
}

TEST_F_TIMEOUT(memory, target_starts_where_its_source_ran, MIG_TIMEOUT)
{
	u64 before = cg_kernel_bytes(self->cgroup);
	u64 limit = cg_current(self->cgroup) + USED + SINGLES;

	if (precopy_stat(bdfs[0], "bytes_in_use") == ~0ULL)
		SKIP(return, "no statistics in debugfs");
	ASSERT_EQ(0, cg_limit_at(self->cgroup, limit));
	store_a_page_to_each(&self->a, SIZE / WIRE_UNIT - 1);
	starts_where_it_ran(_metadata, self, before, limit);
}

/* Where a target has room for whole units, it takes single pages all the same. */
TEST_F_TIMEOUT(memory, target_allocates_what_its_source_had, MIG_TIMEOUT)
{
	struct mig_stream stream = {};
	u64 used;

	if (precopy_stat(bdfs[0], "bytes_in_use") == ~0ULL)
		SKIP(return, "no statistics in debugfs");
	limit_to(_metadata, self, USED + SINGLES);
	store_a_page_to_each(&self->a, SIZE / WIRE_UNIT - 1);
	used = handoff_stat(bdfs[0], "bytes_in_use");
	EXPECT_LT(used, SIZE / 2);
	ASSERT_EQ(0, cg_write(self->cgroup, "memory.max", "max"));
	ASSERT_EQ(0, mig_save(self->a.dev, &stream));
	precopy_reset(&self->a);
	EXPECT_EQ(0, mig_load(self->a.dev, &stream, SZ_64K));
	EXPECT_EQ(used, handoff_stat(bdfs[0], "bytes_in_use"));
	mig_stream_free(&stream);
}

/* Each unit of single pages has a table. A reset frees the tables with the units. */
TEST_F_TIMEOUT(memory, loads_leave_nothing, MIG_TIMEOUT)
{
	u64 before = cg_kernel_bytes(self->cgroup);
	struct mig_stream stream = {};
	int i;

	limit_to(_metadata, self, USED + SINGLES);
	store_a_page_to_each(&self->a, SIZE / WIRE_UNIT - 1);
	ASSERT_EQ(0, cg_write(self->cgroup, "memory.max", "max"));
	ASSERT_EQ(0, mig_save(self->a.dev, &stream));
	for (i = 0; i < OFTEN; i++) {
		ASSERT_EQ(0, ioctl(self->a.fd, VFIO_DEVICE_RESET));
		ASSERT_EQ(0, mig_load(self->a.dev, &stream, SZ_64K));
	}
	mig_stream_free(&stream);
	precopy_reset(&self->a);
	EXPECT_TRUE(settles_at(self->cgroup, before + SLACK));
}

/* The units that are whole, and full of data, are the last that come. */
TEST_F_TIMEOUT(memory, sparse_units_leave_memory_for_whole_ones, MIG_TIMEOUT)
{
	u64 before = cg_kernel_bytes(self->cgroup);
	u64 first = SIZE / WIRE_UNIT - UNITS, whole = UNITS - 1;
	u64 limit = cg_current(self->cgroup) + USED + SINGLES;

	if (precopy_stat(bdfs[0], "bytes_in_use") == ~0ULL)
		SKIP(return, "no statistics in debugfs");
	ASSERT_EQ(0, cg_limit_at(self->cgroup, limit));
	precopy_fill(&self->a, first * UNIT_PAGES, whole * UNIT_PAGES, 1,
		     BY_PWRITE);
	store_a_page_to_each(&self->a, first);
	starts_where_it_ran(_metadata, self, before, limit);
}

/* All units, and bytes for some of them; not for all of the last of these. */
TEST_F_TIMEOUT(memory, startup_prepares_no_more_than_is_in_use, MIG_TIMEOUT)
{
	static const u64 sizes[] = { USED, USED - PRECOPY_PAGE, PRECOPY_PAGE, 0 };
	struct vfio_precopy_startup info;
	struct wire w = {};
	unsigned int i;
	int fd;

	if (precopy_stat(bdfs[0], "bytes_in_use") == ~0ULL)
		SKIP(return, "no statistics in debugfs");
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		wire_init(&w, bdfs[0], SIZE);
		wire_put_header(&w);
		handoff_put_preface_of(&w, SIZE / WIRE_UNIT, sizes[i]);
		ASSERT_EQ(0, mig_set_state(self->a.dev,
					   VFIO_DEVICE_STATE_RESUMING, &fd));
		ASSERT_EQ(0, mig_write_all(fd, w.stream.data, w.stream.len,
					   w.stream.len, NULL));
		EXPECT_EQ(POLLPRI, handoff_poll(fd, POLLPRI, SETTLE_MS));
		ASSERT_EQ(0, handoff_get(fd, &info));
		EXPECT_EQ(VFIO_PRECOPY_PHASE_READY, info.phase);
		EXPECT_EQ(sizes[i], info.bytes_in_use);
		EXPECT_EQ(sizes[i] / WIRE_UNIT * WIRE_UNIT, info.bytes_prepared);
		EXPECT_EQ(info.bytes_prepared,
			  handoff_stat(bdfs[0], "bytes_in_use"));
		wire_free(&w);
		close(fd);
		precopy_reset(&self->a);
	}
}

/* ------------------------------------------------------------------------ */
/* A user whose own cgroup it is                                            */

FIXTURE(user) {
	char cgroup[128];
};

typedef FIXTURE_DATA(user) user_t;

FIXTURE_SETUP(user)
{
	if (cg_write(CGROUP_ROOT, "cgroup.subtree_control", "+memory"))
		SKIP(return, "no memory controller in " CGROUP_ROOT);
	snprintf(self->cgroup, sizeof(self->cgroup),
		 CGROUP_ROOT "/precopy-user-%d", getpid());
	ASSERT_EQ(0, mkdir(self->cgroup, 0755));
}

FIXTURE_TEARDOWN(user)
{
	rmdir(self->cgroup);
}

/* What the user does, until it is killed or gets an error, which it returns. */
typedef int (*use_fn)(struct precopy_dev *pd);

static int use_by_stores(struct precopy_dev *pd)
{
	touch_units(pd, BY_MMAP);
	for (u64 page = 0; page < precopy_nr_pages(pd); page++)
		pd->bar[page * PRECOPY_PAGE] = 1;
	return 0;
}

/* The fds of old sessions are kept, and each session has some memory. */
static int use_by_sessions(struct precopy_dev *pd, u32 state)
{
	int i, fd, ret = 0;

	for (i = 0; !ret && i < 500; i++) {
		ret = mig_set_state(pd->dev, state, &fd);
		/* precopy_reset() would clear the shadow, and that is much memory. */
		if (!ret && ioctl(pd->fd, VFIO_DEVICE_RESET))
			ret = -errno;
	}
	return ret;
}

static int use_by_saving(struct precopy_dev *pd)
{
	return use_by_sessions(pd, VFIO_DEVICE_STATE_PRE_COPY);
}

static int use_by_loading(struct precopy_dev *pd)
{
	return use_by_sessions(pd, VFIO_DEVICE_STATE_RESUMING);
}

static void use_in_child(const char *cgroup, use_fn use)
{
	struct precopy_dev pd;

	if (cg_write(cgroup, "cgroup.procs", "0"))
		_exit(1);
	precopy_open(&pd, bdfs[0], NULL, SIZE);
	if (cg_limit(cgroup, USED))
		_exit(2);
	_exit(use(&pd) == -ENOMEM ? 0 : 3);
}

/*
 * Killed, or told. The memory is given back in full, and the device is as new
 * for the next user.
 */
static void beyond_the_limit(struct __test_metadata *_metadata, user_t *self,
			     use_fn use)
{
	struct precopy_dev a, b;
	int status;
	pid_t pid;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		use_in_child(self->cgroup, use);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	if (WIFSIGNALED(status)) {
		EXPECT_EQ(SIGKILL, WTERMSIG(status));
		EXPECT_LT(0, cg_number(self->cgroup, "memory.events",
				       "oom_kill"));
	} else {
		EXPECT_EQ(0, WEXITSTATUS(status));
	}
	precopy_open(&a, bdfs[0], NULL, SZ_4M);
	precopy_open(&b, bdfs[1], NULL, SZ_4M);
	EXPECT_EQ(0, precopy_migrate(&a, &b, 1));
	precopy_close(&a);
	precopy_close(&b);
	EXPECT_TRUE(settles_at(self->cgroup, SLACK));
	EXPECT_EQ(0, rmdir(self->cgroup));
	TH_LOG("%s", WIFSIGNALED(status) ? "killed" : "told");
}

TEST_F_TIMEOUT(user, stores_beyond_the_limit, MIG_TIMEOUT)
{
	beyond_the_limit(_metadata, self, use_by_stores);
}

TEST_F_TIMEOUT(user, saving_beyond_the_limit, MIG_TIMEOUT)
{
	beyond_the_limit(_metadata, self, use_by_saving);
}

TEST_F_TIMEOUT(user, loading_beyond_the_limit, MIG_TIMEOUT)
{
	beyond_the_limit(_metadata, self, use_by_loading);
}

/*
 * While it is tracked, each unit that is written costs page tables and a table of
 * its pages. If there is no memory for that, pre-copy must not begin: the store that
 * needs it has no error to be given.
 */
#define MANY_UNITS	128U
#define MANY		(MANY_UNITS * WIRE_UNIT)

static void store_to_each_unit(struct precopy_dev *pd, u8 value)
{
	u64 unit;

	for (unit = 0; unit < MANY_UNITS; unit++)
		((volatile u8 *)pd->bar)[unit * WIRE_UNIT + 5 * PRECOPY_PAGE] = value;
}

static int precopy_with_headroom(struct precopy_dev *pd, const char *cgroup,
				 u64 more)
{
	int fd, ret;

	if (cg_limit(cgroup, more))
		_exit(10);
	ret = mig_set_state(pd->dev, VFIO_DEVICE_STATE_PRE_COPY, &fd);
	return ret ?: fd;
}

static void precopy_in_child(const char *cgroup)
{
	struct precopy_dev pd;
	int fd;

	if (cg_write(cgroup, "cgroup.procs", "0"))
		_exit(1);
	precopy_open(&pd, bdfs[0], NULL, MANY);
	store_to_each_unit(&pd, 1);
	if (precopy_with_headroom(&pd, cgroup, SZ_256K) != -ENOMEM)
		_exit(2);
	if (mig_get_state(pd.dev) != VFIO_DEVICE_STATE_RUNNING)
		_exit(3);
	/* 12 KiB for each of the units, and a unit to copy to */
	fd = precopy_with_headroom(&pd, cgroup, MANY_UNITS * SZ_16K + SZ_4M);
	if (fd < 0)
		_exit(4);
	/* What it needs it has: let nothing else be had */
	if (cg_limit(cgroup, SZ_64K))
		_exit(5);
	store_to_each_unit(&pd, 2);
	cg_write(cgroup, "memory.max", "max");
	if (mig_set_state(pd.dev, VFIO_DEVICE_STATE_RUNNING, NULL))
		_exit(6);
	_exit(0);
}

TEST_F_TIMEOUT(user, precopy_beyond_the_limit, MIG_TIMEOUT)
{
	int status;
	pid_t pid;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		precopy_in_child(self->cgroup);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_TRUE(WIFEXITED(status));
	EXPECT_EQ(0, WEXITSTATUS(status));
	EXPECT_EQ(0, cg_number(self->cgroup, "memory.events", "oom_kill"));
	EXPECT_TRUE(settles_at(self->cgroup, SLACK));
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
