// SPDX-License-Identifier: GPL-2.0-only
/*
 * At the limits: a BAR that is much larger than the machine, no memory that may
 * be locked, and as many devices as there are, all of them in use at once. What
 * a memory cgroup limits is in vfio_precopy_memory_test.
 *
 * With more than two devices as arguments all_at_once uses them all.
 * PRECOPY_TORTURE_MS (1000 unless set) is how long it does.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <linux/capability.h>
#include <linux/pci_regs.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_migrate.h>
#include <libvfio/precopy_stream.h>
#include <libvfio/storm.h>

#include <libvfio/mig_harness.h>

#define LARGE		(64UL * SZ_1G)
#define CHUNK		SZ_64K

static char **bdfs;
static int nr_bdfs;

FIXTURE(limits) {
	int unused;
};

FIXTURE_SETUP(limits)
{
	ASSERT_LE(2, nr_bdfs);
}

FIXTURE_TEARDOWN(limits)
{
}

/* ------------------------------------------------------------------------ */
/* A large BAR                                                              */

/* Without a shadow, for which there is no room. */
struct large {
	struct iommu *iommu;
	struct vfio_pci_device *dev;
	u8 *bar;
	u64 bar_offset;
};

static void large_open(struct large *l, const char *bdf)
{
	char size[32];

	snprintf_assert(size, sizeof(size), "%lu", LARGE);
	VFIO_ASSERT_EQ(precopy_sysfs_write(bdf, "memory_size", size), 0);
	l->iommu = iommu_init(precopy_mode(NULL));
	l->dev = vfio_pci_device_init(bdf, l->iommu);
	VFIO_ASSERT_EQ(l->dev->bars[PRECOPY_BAR].info.size, LARGE);
	l->bar = l->dev->bars[PRECOPY_BAR].vaddr;
	l->bar_offset = l->dev->bars[PRECOPY_BAR].info.offset;
}

static void large_close(struct large *l, const char *bdf)
{
	vfio_pci_device_cleanup(l->dev);
	iommu_cleanup(l->iommu);
	VFIO_ASSERT_EQ(precopy_sysfs_write(bdf, "memory_size", "4194304"), 0);
}

/* Pages at both ends, around the middle, and around 4 GiB. */
static const u64 offsets[] = {
	0, SZ_2M - PRECOPY_PAGE, SZ_2M, 4UL * SZ_1G - PRECOPY_PAGE,
	4UL * SZ_1G, LARGE / 2 - PRECOPY_PAGE, LARGE / 2 + 5 * PRECOPY_PAGE,
	LARGE - SZ_2M, LARGE - PRECOPY_PAGE,
};

static void large_fill(struct __test_metadata *_metadata, struct large *l,
		       u64 seed)
{
	u64 buf[PRECOPY_PAGE / sizeof(u64)];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		precopy_pattern(buf, i, seed);
		if (i % 2)
			memcpy(l->bar + offsets[i], buf, sizeof(buf));
		else
			ASSERT_EQ((ssize_t)sizeof(buf),
				  pwrite(l->dev->fd, buf, sizeof(buf),
					 l->bar_offset + offsets[i]));
	}
}

static void large_check(struct __test_metadata *_metadata, struct large *l,
			u64 seed)
{
	u64 want[PRECOPY_PAGE / sizeof(u64)], got[PRECOPY_PAGE / sizeof(u64)];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		precopy_pattern(want, i, seed);
		EXPECT_EQ(0, memcmp(want, l->bar + offsets[i], sizeof(want)))
			TH_LOG("at %#lx", (unsigned long)offsets[i]);
		/* Holes, by a call that makes no page of them. */
		ASSERT_EQ((ssize_t)sizeof(got),
			  pread(l->dev->fd, got, sizeof(got), l->bar_offset +
				((offsets[i] + 8 * SZ_2M) & (LARGE - 1))));
		EXPECT_TRUE(!got[0] && !memcmp(got, got + 1, sizeof(got) - 8));
	}
}

static u64 units_in_use(void)
{
	u64 units = 0, unit, last = ~0ULL;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		unit = offsets[i] / SZ_2M;
		units += unit != last;
		last = unit;
	}
	return units;
}

/* Opened, used here and there, and migrated; memory is needed for no more. */
TEST_F_TIMEOUT(limits, large_bar_is_sparse, 300)
{
	struct mig_stream stream = {};
	struct large a, b;
	int fd;

	large_open(&a, bdfs[0]);
	large_open(&b, bdfs[1]);
	large_fill(_metadata, &a, 1);
	ASSERT_EQ(0, mig_set_state(a.dev, VFIO_DEVICE_STATE_PRE_COPY, &fd));
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&stream, fd, CHUNK));
	large_fill(_metadata, &a, 2);
	ASSERT_EQ(0, mig_set_state(a.dev, VFIO_DEVICE_STATE_STOP_COPY, NULL));
	ASSERT_EQ(0, mig_stream_drain(&stream, fd, CHUNK));
	close(fd);
	EXPECT_GT(units_in_use() * SZ_2M, stream.len);
	ASSERT_EQ(0, mig_load(b.dev, &stream, CHUNK));
	ASSERT_EQ(0, mig_set_state(b.dev, VFIO_DEVICE_STATE_RUNNING, NULL));
	large_check(_metadata, &b, 2);
	if (precopy_stat(bdfs[1], "bytes_in_use") != ~0ULL)
		EXPECT_EQ(units_in_use() * SZ_2M,
			  precopy_stat(bdfs[1], "bytes_in_use"));
	mig_stream_free(&stream);
	large_close(&a, bdfs[0]);
	large_close(&b, bdfs[1]);
}

/*
 * What comes into use while it is tracked: all over the BAR, by each kind of
 * first access, and the same pages once more after a collect.
 */
static void large_first_use(struct __test_metadata *_metadata, struct large *l)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(offsets); i += 3)
		ASSERT_EQ(0, storm_load(l->bar + offsets[i]));
	large_fill(_metadata, l, 1);
}

TEST_F_TIMEOUT(limits, large_bar_fills_while_tracked, 300)
{
	struct mig_stream stream = {};
	struct large a, b;
	u64 seed;
	int fd;

	large_open(&a, bdfs[0]);
	large_open(&b, bdfs[1]);
	ASSERT_EQ(0, mig_set_state(a.dev, VFIO_DEVICE_STATE_PRE_COPY, &fd));
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&stream, fd, CHUNK));
	large_first_use(_metadata, &a);
	for (seed = 2; seed < 5; seed++) {
		ASSERT_EQ(-ENOMSG, mig_stream_drain(&stream, fd, CHUNK));
		large_fill(_metadata, &a, seed);
	}
	ASSERT_EQ(0, mig_set_state(a.dev, VFIO_DEVICE_STATE_STOP_COPY, NULL));
	ASSERT_EQ(0, mig_stream_drain(&stream, fd, CHUNK));
	close(fd);
	ASSERT_EQ(0, mig_load(b.dev, &stream, CHUNK));
	ASSERT_EQ(0, mig_set_state(b.dev, VFIO_DEVICE_STATE_RUNNING, NULL));
	large_check(_metadata, &b, seed - 1);
	mig_stream_free(&stream);
	large_close(&a, bdfs[0]);
	large_close(&b, bdfs[1]);
}

/*
 * Somebody uses one place after the other for the first time, far enough apart for
 * the tracker to need memory for each, while tracking begins and ends again and
 * again. What is stored before, while and after it begins the last time arrives.
 */
#define PLACES		64
#define APART		SZ_128M

struct first_user {
	u8 *bar;
	unsigned int done;
};

static void *first_user_thread(void *arg)
{
	struct first_user *user = arg;
	unsigned int i;

	for (i = 0; i < PLACES; i++) {
		*(u64 *)(user->bar + (u64)i * APART) = i + 1;
		__atomic_store_n(&user->done, i + 1, __ATOMIC_RELAXED);
	}
	return NULL;
}

TEST_F_TIMEOUT(limits, large_bar_used_while_tracking_begins, 300)
{
	struct first_user user = {};
	struct mig_stream stream = {};
	struct large a, b;
	pthread_t thread;
	unsigned int i;
	int fd = -1;

	large_open(&a, bdfs[0]);
	large_open(&b, bdfs[1]);
	user.bar = a.bar;
	ASSERT_EQ(0, pthread_create(&thread, NULL, first_user_thread, &user));
	do {
		if (fd >= 0)
			close(fd);
		ASSERT_EQ(0, mig_set_state(a.dev, VFIO_DEVICE_STATE_RUNNING,
					   NULL));
		ASSERT_EQ(0, mig_set_state(a.dev, VFIO_DEVICE_STATE_PRE_COPY,
					   &fd));
	} while (__atomic_load_n(&user.done, __ATOMIC_RELAXED) < PLACES / 2);
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&stream, fd, CHUNK));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(0, mig_set_state(a.dev, VFIO_DEVICE_STATE_STOP_COPY, NULL));
	ASSERT_EQ(0, mig_stream_drain(&stream, fd, CHUNK));
	close(fd);
	ASSERT_EQ(0, mig_load(b.dev, &stream, CHUNK));
	ASSERT_EQ(0, mig_set_state(b.dev, VFIO_DEVICE_STATE_RUNNING, NULL));
	for (i = 0; i < PLACES; i++)
		EXPECT_EQ(i + 1, *(u64 *)(b.bar + (u64)i * APART));
	mig_stream_free(&stream);
	large_close(&a, bdfs[0]);
	large_close(&b, bdfs[1]);
}

/* Nanoseconds that it takes to load a stream, the fastest of a few times. */
static u64 load_ns(struct large *l, const struct mig_stream *stream)
{
	struct timespec from, to;
	u64 ns, least = ~0ULL;
	int i;

	for (i = 0; i < 3; i++) {
		clock_gettime(CLOCK_MONOTONIC, &from);
		VFIO_ASSERT_EQ(mig_load(l->dev, stream, CHUNK), 0);
		clock_gettime(CLOCK_MONOTONIC, &to);
		ns = (to.tv_sec - from.tv_sec) * 1000000000ULL + to.tv_nsec -
		     from.tv_nsec;
		if (ns < least)
			least = ns;
	}
	return least;
}

/* A ZERO record for each of @nr ranges of @len bytes, with a page in use at 0. */
static void put_zeroes(struct wire *w, const char *bdf, u64 nr, u64 len)
{
	u64 page[PRECOPY_PAGE / sizeof(u64)], i;

	wire_init(w, bdf, LARGE);
	wire_put_header(w);
	wire_put_preface(w);
	precopy_pattern(page, 0, 1);
	wire_put_data(w, 0, page, sizeof(page));
	for (i = 0; i < nr; i++)
		wire_put_zero(w, i * len, len);
	wire_put_initial_end(w);
	wire_put_state(w);
	wire_put_end(w);
}

/*
 * 32 bytes of the stream that cover 64 GiB of holes take no more time than 32768
 * that cover a page each, of which there are 512 times as many.
 */
TEST_F_TIMEOUT(limits, zero_of_holes_takes_no_time, 300)
{
	u64 many = 32768, ns_many, ns_one, word = ~0ULL;
	struct wire w;
	struct large a;

	large_open(&a, bdfs[0]);
	put_zeroes(&w, bdfs[0], many, PRECOPY_PAGE);
	ns_many = load_ns(&a, &w.stream);
	wire_free(&w);
	put_zeroes(&w, bdfs[0], 1, LARGE);
	ns_one = load_ns(&a, &w.stream);
	wire_free(&w);
	TH_LOG("%lu us, and %lu us for %lu pages", (unsigned long)(ns_one / 1000),
	       (unsigned long)(ns_many / 1000), (unsigned long)many);
	EXPECT_LT(ns_one, ns_many);
	/* And what was in use is zero. */
	EXPECT_EQ(sizeof(word), (size_t)pread(a.dev->fd, &word, sizeof(word),
					      a.bar_offset));
	EXPECT_EQ(0, word);
	large_close(&a, bdfs[0]);
}

/* ------------------------------------------------------------------------ */
/* Locked memory                                                            */

static int drop_capability(unsigned int cap)
{
	struct __user_cap_header_struct hdr = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[2];

	if (syscall(SYS_capget, &hdr, data))
		return -errno;
	data[cap / 32].effective &= ~(1U << cap % 32);
	data[cap / 32].permitted &= ~(1U << cap % 32);
	data[cap / 32].inheritable &= ~(1U << cap % 32);
	return syscall(SYS_capset, &hdr, data) ? -errno : 0;
}

/* The device's memory is not locked memory of whoever uses it. */
TEST_F_TIMEOUT(limits, nothing_may_be_locked, MIG_TIMEOUT)
{
	static const char * const modes[] = { "vfio_type1v2_iommu", "iommufd" };
	struct rlimit none = { 0, 0 };
	struct precopy_dev a, b;
	unsigned int i;
	void *map;

	ASSERT_EQ(0, drop_capability(CAP_IPC_LOCK));
	ASSERT_EQ(0, setrlimit(RLIMIT_MEMLOCK, &none));
	/* That it is so */
	map = mmap(NULL, PRECOPY_PAGE, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, map);
	ASSERT_EQ(-1, mlock(map, PRECOPY_PAGE));
	for (i = 0; i < ARRAY_SIZE(modes); i++) {
		if (!precopy_has_mode(modes[i]))
			continue;
		precopy_open(&a, bdfs[0], modes[i], SZ_4M);
		precopy_open(&b, bdfs[1], modes[i], SZ_4M);
		EXPECT_EQ(0, precopy_migrate(&a, &b, i));
		precopy_close(&a);
		precopy_close(&b);
	}
}

/* ------------------------------------------------------------------------ */
/* Many devices                                                             */

/* Back and forth between two devices, in a process of its own. */
static int use_pair(char **pair, u64 end, u64 seed)
{
	struct precopy_dev a, b;
	int ret;

	precopy_open(&a, pair[0], NULL, SZ_1M);
	precopy_open(&b, pair[1], NULL, SZ_1M);
	do {
		ret = precopy_migrate(&a, &b, seed) ?:
		      precopy_migrate(&b, &a, seed + 1);
		seed += 2;
	} while (!ret && precopy_now_ms() < end);
	precopy_close(&a);
	precopy_close(&b);
	return ret;
}

TEST_F_TIMEOUT(limits, all_at_once, 7200)
{
	u64 end = precopy_now_ms() + storm_ms(1000);
	pid_t pids[64];
	int i, status;

	/* Those that make no pair are left out. */
	ASSERT_GE(ARRAY_SIZE(pids), (size_t)nr_bdfs / 2);
	for (i = 0; i < nr_bdfs / 2; i++) {
		pids[i] = fork();
		ASSERT_LE(0, pids[i]);
		if (!pids[i]) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			_exit(use_pair(bdfs + 2 * i, end, 1000 * i) ? 1 : 0);
		}
	}
	for (i = 0; i < nr_bdfs / 2; i++) {
		ASSERT_EQ(pids[i], waitpid(pids[i], &status, 0));
		EXPECT_EQ(0, status)
			TH_LOG("%s and %s", bdfs[2 * i], bdfs[2 * i + 1]);
	}
	TH_LOG("%d devices", nr_bdfs & ~1);
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
