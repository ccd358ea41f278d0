// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every allocation and every copy from or to the user that a migration makes is
 * made to fail, one at a time: the first in one round, the second in the next,
 * until a round comes to its end without a failure (fault-injection.rst:
 * fail-nth). After each failure the error must be one that says what happened,
 * the state one on the way (R17), nothing may be lost or leaked, the kernel must
 * not have complained, and the device must work. What can be repeated is, and
 * then the rest of the migration must be right as well.
 *
 * Needs failslab, fail_page_alloc and fail_usercopy in debugfs.
 *
 * PRECOPY_FAIL_STRIDE (1 unless set): only every so manieth failure, beginning
 * at one that depends on PRECOPY_SEED.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/limits.h>
#include <linux/pci_regs.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_engine.h>
#include <libvfio/precopy_handoff.h>
#include <libvfio/precopy_migrate.h>
#include <libvfio/precopy_replica.h>
#include <libvfio/precopy_states.h>
#include <libvfio/storm.h>

#include <libvfio/mig_harness.h>

#define SIZE		SZ_4M
#define UNIT_PAGES	512
#define DEBUGFS		"/sys/kernel/debug/"
#define MANY		5000

#define S(state)	(1U << (state))

static char **bdfs;
static int nr_bdfs;

FIXTURE(fail_nth) {
	struct precopy_dev a;
	struct precopy_dev b;
	struct mig_stream stream;	/* that makes a memory like @want */
	u8 *want;
	u8 *ram;			/* that the engine writes */
	u64 bitmap[4];			/* what its log has told */
	int nth_fd;
	int kmsg;
	unsigned int stride;
	unsigned int first;
};

typedef FIXTURE_DATA(fail_nth) fail_nth_t;

/* ------------------------------------------------------------------------ */
/* Injection                                                                */

/* All kinds of allocations, and quietly: the log is looked through. */
static const char *injection_missing(void)
{
	static const struct {
		const char *file, *text;
	} settings[] = {
		{ "failslab/ignore-gfp-wait", "N" },
		{ "failslab/verbose", "0" },
		{ "fail_page_alloc/ignore-gfp-wait", "N" },
		{ "fail_page_alloc/ignore-gfp-highmem", "N" },
		{ "fail_page_alloc/min-order", "0" },
		{ "fail_page_alloc/verbose", "0" },
		{ "fail_usercopy/verbose", "0" },
	};
	char path[PATH_MAX];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(settings); i++) {
		snprintf_assert(path, sizeof(path), DEBUGFS "%s",
				settings[i].file);
		if (precopy_file_write(path, settings[i].text))
			return settings[i].file;
	}
	return NULL;
}

static void fail_at(fail_nth_t *self, unsigned int nth)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", nth);

	VFIO_ASSERT_EQ(pwrite(self->nth_fd, text, len, 0), len);
}

/*
 * No failure from here on. True if there was one since fail_at(): asking and
 * ending copy from and to the user too, and may meet it instead.
 */
static bool fail_no_more(fail_nth_t *self)
{
	char text[16] = "";
	bool before;

	before = pread(self->nth_fd, text, sizeof(text) - 1, 0) > 0 &&
		 !strcmp(text, "0\n");
	while (pwrite(self->nth_fd, "0", 1, 0) != 1)
		VFIO_ASSERT_EQ(errno, EFAULT);
	return before;
}

/* ------------------------------------------------------------------------ */
/* What is looked at after each round                                       */

static void kmsg_skip(int kmsg)
{
	VFIO_ASSERT_NE(lseek(kmsg, 0, SEEK_END), -1);
}

/* Has the kernel complained? */
static bool kmsg_bad(int kmsg)
{
	static const char * const bad[] = {
		"WARNING: ", "BUG: ", "KASAN: ", "UBSAN: ", "Call Trace",
		"cut here", "possible recursive", "possible circular",
		"refcount_t: ", "ODEBUG: ", "Bad page",
		"page allocation failure", "suspicious RCU",
	};
	char text[8192];
	bool found = false;
	unsigned int i;
	ssize_t len;

	for (;;) {
		len = read(kmsg, text, sizeof(text) - 1);
		if (len < 0 && errno == EPIPE)
			continue;
		if (len <= 0)
			return found;
		text[len] = 0;
		for (i = 0; i < ARRAY_SIZE(bad); i++) {
			if (!strstr(text, bad[i]))
				continue;
			fprintf(stderr, "# kernel: %s", text);
			found = true;
		}
	}
}

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int nr = 0;

	VFIO_ASSERT_NOT_NULL(dir);
	while (readdir(dir))
		nr++;
	closedir(dir);
	return nr;
}

/* ------------------------------------------------------------------------ */
/* A round                                                                  */

struct round {
	struct __test_metadata *_metadata;
	fail_nth_t *self;
	unsigned int nth;
	/* What failed, and how; the last of it */
	const char *call;
	int error;
	bool over;		/* it cannot be repeated */
	int data_fd;
	u32 may_be;		/* states that the device may be in now */
	struct mig_stream got;
	size_t put;
};

/* ENOMEM from an allocation, EFAULT from a copy, or a SIGBUS that says so. */
static void note(struct round *r, const char *call, int error)
{
	struct __test_metadata *_metadata = r->_metadata;

	EXPECT_TRUE(error == -ENOMEM || error == -EFAULT)
		TH_LOG("%s, failure %u: error %d", call, r->nth, -error);
	/* There is only one injected failure in a round. */
	EXPECT_EQ(NULL, r->call)
		TH_LOG("%s, failure %u: error %d after that of %s", call,
		       r->nth, -error, r->call);
	r->call = call;
	r->error = error;
}

/* Nothing was wrong yet. What fails twice is, so that no retry is for ever. */
static bool good(struct round *r)
{
	return r->_metadata->exit_code != KSFT_FAIL;
}

/* @_expr is >= 0 or a negative errno, and succeeds when it is done again. */
#define AGAIN(_r, _call, _expr)						\
do {									\
	struct round *__r = (_r);					\
	long __ret;							\
									\
	while (!__r->over && good(__r)) {				\
		__ret = (_expr);					\
		if (__ret >= 0)						\
			break;						\
		note(__r, _call, __ret);				\
	}								\
} while (0)

static long sys(long ret)
{
	return ret < 0 ? -errno : ret;
}

/*
 * SET that must not be repeated: where it failed it may have lost the fd, or
 * stopped on the way (R17, R20).
 */
static void set_state(struct round *r, const char *call, u32 state, u32 path)
{
	int fd, ret;

	if (r->over)
		return;
	ret = mig_set_state(r->self->a.dev, state, &fd);
	r->may_be = S(state);
	if (ret) {
		note(r, call, ret);
		r->may_be |= path;
		r->over = true;
		return;
	}
	if (fd < 0)
		return;
	if (r->data_fd >= 0)
		close(r->data_fd);
	r->data_fd = fd;
}

static void store_page(struct round *r, u64 page, u64 seed)
{
	struct precopy_dev *a = &r->self->a;
	u8 *to = a->bar + page * PRECOPY_PAGE;
	u64 buf[PRECOPY_PAGE / sizeof(u64)];

	precopy_pattern(buf, page, seed);
	/* The first store may fail; then the page is there, and stays. */
	AGAIN(r, "store", storm_store(to, *(u8 *)buf));
	if (r->over)
		return;
	memcpy(to, buf, sizeof(buf));
	memcpy(a->shadow + page * PRECOPY_PAGE, buf, sizeof(buf));
}

static void pwrite_page(struct round *r, u64 page, u64 seed)
{
	struct precopy_dev *a = &r->self->a;
	u64 buf[PRECOPY_PAGE / sizeof(u64)];

	precopy_pattern(buf, page, seed);
	AGAIN(r, "pwrite", sys(pwrite(a->fd, buf, sizeof(buf),
				      a->bar_offset + page * PRECOPY_PAGE)));
	memcpy(a->shadow + page * PRECOPY_PAGE, buf, sizeof(buf));
}

/* To @end: the return value of the read after the last one. */
static void read_all(struct round *r, int end)
{
	struct __test_metadata *_metadata = r->_metadata;
	int ret;

	if (r->over)
		return;
	do {
		ret = mig_stream_drain(&r->got, r->data_fd, SZ_64K);
		if (ret == end)
			return;
		note(r, "read", ret);
	} while (good(r));
	EXPECT_EQ(end, ret);
}

/*
 * A copy that failed is repeated. Other failures are those of the load: it stays
 * failed, and so does the attempt to commit it (R23).
 */
static void write_all(struct round *r, const struct mig_stream *stream)
{
	struct __test_metadata *_metadata = r->_metadata;
	size_t done;
	int ret;

	while (!r->over && r->put < stream->len) {
		ret = mig_write_all(r->data_fd, stream->data + r->put,
				    stream->len - r->put, SZ_16K, &done);
		r->put += done;
		if (!ret)
			break;
		note(r, "write", ret);
		if (ret == -EFAULT && good(r))
			continue;
		r->over = true;
		EXPECT_EQ(ret, sys(write(r->data_fd, stream->data, 1)));
		EXPECT_EQ(ret, mig_set_state(r->self->a.dev, STOP, NULL));
		r->may_be = S(RESUMING);
	}
}

/* ------------------------------------------------------------------------ */
/* The sweep                                                                */

struct sweep {
	const char *name;
	void (*prepare)(struct round *r);
	void (*body)(struct round *r);
	/* If nothing was left out: is everything as it must be? */
	void (*verify)(struct round *r);
};

static void round_begin(struct round *r, const struct sweep *sweep)
{
	precopy_reset(&r->self->a);
	r->data_fd = -1;
	r->may_be = S(RUNNING);
	kmsg_skip(r->self->kmsg);
	if (sweep->prepare)
		sweep->prepare(r);
}

/*
 * Whatever state it stopped in, there is a way back (R20), except from a load
 * that failed or is not complete.
 */
static void go_back(struct round *r, int state)
{
	struct __test_metadata *_metadata = r->_metadata;
	int ret = mig_set_state(r->self->a.dev, RUNNING, NULL);
	bool whole = r->put == r->self->stream.len;

	if (state == RESUMING && ret == r->error)
		return;
	EXPECT_EQ(state == RESUMING && !whole ? -EINVAL : 0, ret);
}

static void round_end(struct round *r, const struct sweep *sweep, int fds)
{
	struct __test_metadata *_metadata = r->_metadata;
	fail_nth_t *self = r->self;
	int state;

	state = mig_get_state(self->a.dev);
	EXPECT_TRUE(state >= 0 && (S(state) & r->may_be))
		TH_LOG("%s, failure %u in %s (%d): state %d", sweep->name,
		       r->nth, r->call ?: "none", -r->error, state);
	if (r->over)
		go_back(r, state);
	else if (sweep->verify)
		sweep->verify(r);
	if (r->data_fd >= 0)
		close(r->data_fd);
	mig_stream_free(&r->got);
	precopy_reset(&self->a);
	EXPECT_EQ((int)RUNNING, mig_get_state(self->a.dev));
	EXPECT_EQ(fds, count_fds());
	EXPECT_FALSE(kmsg_bad(self->kmsg));
	if (_metadata->exit_code == KSFT_FAIL)
		TH_LOG("%s: failure %u was in %s (%d)", sweep->name, r->nth,
		       r->call ?: "nothing", -r->error);
}

static void run_sweep(struct __test_metadata *_metadata, fail_nth_t *self,
		      const struct sweep *sweep)
{
	unsigned int nth, refused = 0, absorbed = 0;
	bool fired;

	for (nth = self->first; ; nth += self->stride) {
		struct round r = { ._metadata = _metadata, .self = self,
				   .nth = nth };
		int fds;

		ASSERT_GT(MANY, nth);
		fds = count_fds();
		round_begin(&r, sweep);
		fail_at(self, nth);
		sweep->body(&r);
		fired = fail_no_more(self);
		round_end(&r, sweep, fds);
		if (_metadata->exit_code == KSFT_FAIL)
			return;
		if (r.call)
			refused++;
		else if (fired)
			absorbed++;
		if (!fired)
			break;
	}
	/* A sweep that met nothing has tested nothing. */
	EXPECT_LT(0, refused + absorbed);
	TH_LOG("%s: %u failures told, %u coped with, of %u", sweep->name,
	       refused, absorbed, nth - 1);
	EXPECT_EQ(0, precopy_migrate(&self->a, &self->b, nth));
}

FIXTURE_SETUP(fail_nth)
{
	const char *missing = injection_missing(), *stride;
	char path[64];

	if (missing)
		SKIP(return, "no %s%s: the kernel cannot inject failures",
		     DEBUGFS, missing);
	snprintf_assert(path, sizeof(path), "/proc/self/task/%d/fail-nth",
			gettid());
	self->nth_fd = open(path, O_RDWR | O_CLOEXEC);
	if (self->nth_fd < 0)
		SKIP(return, "no %s", path);
	self->kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ASSERT_LE(0, self->kmsg);
	ASSERT_LE(2, nr_bdfs);
	stride = getenv("PRECOPY_FAIL_STRIDE");
	self->stride = stride ? strtoul(stride, NULL, 0) : 1;
	ASSERT_LT(0, (int)self->stride);
	self->first = 1 + (self->stride > 1 ? storm_seed() % self->stride : 0);
	if (self->stride > 1)
		TH_LOG("every %uth failure from %u", self->stride, self->first);
	storm_catch_sigbus();

	precopy_open(&self->a, bdfs[0], NULL, SIZE);
	precopy_open(&self->b, bdfs[1], NULL, SIZE);
	precopy_fill(&self->a, 0, 5, 1, BY_MMAP);
	precopy_fill(&self->a, UNIT_PAGES + 3, 1, 2, BY_PWRITE);
	self->want = malloc_assert(SIZE);
	memcpy(self->want, self->a.shadow, SIZE);
	ASSERT_EQ(0, mig_save(self->a.dev, &self->stream));
}

FIXTURE_TEARDOWN(fail_nth)
{
	if (!self->want)
		return;
	mig_stream_free(&self->stream);
	free(self->want);
	precopy_close(&self->a);
	precopy_close(&self->b);
	close(self->nth_fd);
	close(self->kmsg);
}

/* ------------------------------------------------------------------------ */
/* Saving                                                                   */

/* What was read makes a memory like the one that was saved. */
static void verify_saved(struct round *r)
{
	struct __test_metadata *_metadata = r->_metadata;
	struct precopy_replica replica;

	precopy_replica_init(&replica, SIZE);
	EXPECT_EQ(0, precopy_replica_feed(&replica, r->got.data, r->got.len));
	EXPECT_TRUE(replica.ended);
	EXPECT_EQ(0, memcmp(replica.image, r->self->a.shadow, SIZE));
	EXPECT_LT(0, wire_walk(&r->got, NULL, NULL));
	precopy_replica_free(&replica);
}

static void ask(struct round *r)
{
	struct vfio_precopy_startup startup;
	struct vfio_precopy_info info;
	u64 size;

	AGAIN(r, "PRECOPY_INFO", mig_precopy_info(r->data_fd, &info));
	AGAIN(r, "GET_STARTUP", handoff_get(r->data_fd, &startup));
	AGAIN(r, "DATA_SIZE", mig_data_size(r->self->a.dev, &size));
}

static void body_save(struct round *r)
{
	store_page(r, 1, 1);
	pwrite_page(r, UNIT_PAGES + 9, 2);
	set_state(r, "RUNNING to PRE_COPY", PRE_COPY, S(RUNNING));
	if (r->over)
		return;
	ask(r);
	read_all(r, -ENOMSG);
	store_page(r, 2, 3);
	store_page(r, UNIT_PAGES + 9, 4);
	pwrite_page(r, 1, 5);
	read_all(r, -ENOMSG);
	set_state(r, "PRE_COPY to STOP_COPY", STOP_COPY,
		  S(PRE_COPY) | S(PRE_COPY_P2P));
	read_all(r, 0);
	set_state(r, "STOP_COPY to RUNNING", RUNNING,
		  S(STOP_COPY) | S(STOP) | S(RUNNING_P2P));
}

TEST_F_TIMEOUT(fail_nth, save, 3600)
{
	static const struct sweep sweep = {
		.name = "save", .body = body_save, .verify = verify_saved,
	};

	run_sweep(_metadata, self, &sweep);
}

/* The initial data begins anew: not when that was refused. */
static void body_reinit(struct round *r)
{
	AGAIN(r, "INFOv2", mig_precopy_v2_enable(r->self->a.dev));
	store_page(r, 1, 1);
	set_state(r, "RUNNING to PRE_COPY", PRE_COPY, S(RUNNING));
	if (r->over)
		return;
	read_all(r, -ENOMSG);
	AGAIN(r, "reinit", precopy_knob(bdfs[0], "reinit", 1));
	ask(r);
	store_page(r, 1, 2);
	read_all(r, -ENOMSG);
	set_state(r, "PRE_COPY to STOP_COPY", STOP_COPY,
		  S(PRE_COPY) | S(PRE_COPY_P2P));
	read_all(r, 0);
}

TEST_F_TIMEOUT(fail_nth, reinit, 3600)
{
	static const struct sweep sweep = {
		.name = "reinit", .body = body_reinit, .verify = verify_saved,
	};

	if (!precopy_has_knob(bdfs[0], "reinit"))
		SKIP(return, "no test knob reinit in debugfs");
	run_sweep(_metadata, self, &sweep);
}

/* ------------------------------------------------------------------------ */
/* Loading                                                                  */

static void verify_loaded(struct round *r)
{
	struct __test_metadata *_metadata = r->_metadata;
	struct precopy_dev *a = &r->self->a;

	EXPECT_EQ(0, memcmp(a->bar, r->self->want, SIZE));
}

static void body_load(struct round *r)
{
	struct vfio_precopy_startup startup;

	set_state(r, "RUNNING to RESUMING", RESUMING,
		  S(RUNNING) | S(RUNNING_P2P) | S(STOP));
	if (r->over)
		return;
	write_all(r, &r->self->stream);
	AGAIN(r, "GET_STARTUP", handoff_get(r->data_fd, &startup));
	set_state(r, "RESUMING to STOP", STOP, S(RESUMING));
	set_state(r, "STOP to RUNNING", RUNNING, S(STOP) | S(RUNNING_P2P));
}

TEST_F_TIMEOUT(fail_nth, load, 3600)
{
	static const struct sweep sweep = {
		.name = "load", .body = body_load, .verify = verify_loaded,
	};

	run_sweep(_metadata, self, &sweep);
}

/* ------------------------------------------------------------------------ */
/* Page faults                                                              */

/* Nobody tracks: whole units, as one page or as many, by load and by store. */
static void body_fault(struct round *r)
{
	struct precopy_dev *a = &r->self->a;
	u8 *map;

	AGAIN(r, "load", storm_load(a->bar));
	store_page(r, 3, 1);
	store_page(r, UNIT_PAGES + 1, 2);
	/* Not aligned: no 2 MiB entry fits. */
	map = mmap(NULL, 3 * PRECOPY_PAGE, PROT_READ | PROT_WRITE, MAP_SHARED,
		   a->fd, a->bar_offset + 5 * PRECOPY_PAGE);
	if (map == MAP_FAILED) {
		note(r, "mmap", -errno);
		return;
	}
	AGAIN(r, "load from a second mapping", storm_load(map));
	AGAIN(r, "store to a second mapping",
	      storm_store(map + PRECOPY_PAGE, 7));
	a->shadow[6 * PRECOPY_PAGE] = r->over ? 0 : 7;
	munmap(map, 3 * PRECOPY_PAGE);
}

static void verify_memory(struct round *r)
{
	struct __test_metadata *_metadata = r->_metadata;
	struct precopy_dev *a = &r->self->a;

	if (r->call && !strcmp(r->call, "mmap"))
		return;
	EXPECT_EQ(0, memcmp(a->bar, a->shadow, SIZE));
}

TEST_F_TIMEOUT(fail_nth, fault, 3600)
{
	static const struct sweep sweep = {
		.name = "fault", .body = body_fault, .verify = verify_memory,
	};

	run_sweep(_metadata, self, &sweep);
}

/* Tracked, and all pages there but mapped read-only, or not at all. */
static void prepare_tracked(struct round *r)
{
	struct __test_metadata *_metadata = r->_metadata;
	fail_nth_t *self = r->self;

	precopy_fill(&self->a, 0, 4, 1, BY_MMAP);
	precopy_fill(&self->a, UNIT_PAGES + 2, 2, 2, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &r->data_fd));
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&r->got, r->data_fd, SZ_64K));
	r->may_be = S(PRE_COPY);
}

/* By a load and then a store, by a store alone, and where nothing was. */
static void body_tracked_fault(struct round *r)
{
	AGAIN(r, "load", storm_load(r->self->a.bar));
	store_page(r, 0, 3);
	store_page(r, UNIT_PAGES + 3, 4);
	store_page(r, UNIT_PAGES + 200, 5);
}

/* A store that was seen is in the stream; one that was refused is not there. */
static void verify_tracked(struct round *r)
{
	struct __test_metadata *_metadata = r->_metadata;

	verify_memory(r);
	ASSERT_EQ(0, mig_set_state(r->self->a.dev, STOP_COPY, NULL));
	ASSERT_EQ(0, mig_stream_drain(&r->got, r->data_fd, SZ_64K));
	verify_saved(r);
}

TEST_F_TIMEOUT(fail_nth, tracked_fault, 3600)
{
	static const struct sweep sweep = {
		.name = "tracked_fault", .prepare = prepare_tracked,
		.body = body_tracked_fault, .verify = verify_tracked,
	};

	run_sweep(_metadata, self, &sweep);
}

/* ------------------------------------------------------------------------ */
/* The rest of the device                                                   */

static void body_regions(struct round *r)
{
	struct vfio_region_info region = { .argsz = sizeof(region),
					   .index = PRECOPY_BAR };
	struct vfio_device_info info = { .argsz = sizeof(info) };
	struct vfio_irq_info irq = { .argsz = sizeof(irq) };
	struct precopy_dev *a = &r->self->a;
	u8 buf[3 * PRECOPY_PAGE], config[64];
	u16 command = PCI_COMMAND_MEMORY;
	u64 at = a->dev->config_space.offset;

	AGAIN(r, "GET_INFO", sys(ioctl(a->fd, VFIO_DEVICE_GET_INFO, &info)));
	AGAIN(r, "GET_REGION_INFO",
	      sys(ioctl(a->fd, VFIO_DEVICE_GET_REGION_INFO, &region)));
	AGAIN(r, "GET_IRQ_INFO",
	      sys(ioctl(a->fd, VFIO_DEVICE_GET_IRQ_INFO, &irq)));
	AGAIN(r, "config read", sys(pread(a->fd, config, sizeof(config), at)));
	AGAIN(r, "config write", sys(pwrite(a->fd, &command, sizeof(command),
					    at + PCI_COMMAND)));
	AGAIN(r, "BAR read", sys(pread(a->fd, buf, sizeof(buf),
				       a->bar_offset + 100)));
	pwrite_page(r, 9, 1);
	AGAIN(r, "BAR read", sys(pread(a->fd, buf, PRECOPY_PAGE, a->bar_offset +
				       9 * PRECOPY_PAGE)));
	AGAIN(r, "RESET", __vfio_pci_device_reset(a->dev));
	memset(a->shadow, 0, SIZE);
	pwrite_page(r, 10, 2);
}

TEST_F_TIMEOUT(fail_nth, regions, 3600)
{
	static const struct sweep sweep = {
		.name = "regions", .body = body_regions,
		.verify = verify_memory,
	};

	run_sweep(_metadata, self, &sweep);
}

static void body_log(struct round *r)
{
	struct vfio_device_feature_dma_logging_range range = { 0, SZ_1M };
	struct vfio_pci_device *dev = r->self->a.dev;
	u64 page_size = SZ_4K, bitmap[4];
	bool on = false;

	/* What the core reads after the driver has begun undoes it. */
	AGAIN(r, "LOG_START", dma_log_start(dev, &page_size, &range, 1));
	on = !r->over;
	if (on)
		AGAIN(r, "LOG_REPORT",
		      dma_log_report(dev, 0, SZ_1M, SZ_4K, bitmap));
	AGAIN(r, "LOG_STOP", dma_log_stop(dev));
}

TEST_F_TIMEOUT(fail_nth, dma_log, 3600)
{
	static const struct sweep sweep = {
		.name = "dma_log", .body = body_log,
	};

	run_sweep(_metadata, self, &sweep);
}

/* ------------------------------------------------------------------------ */
/* The engine                                                               */

#define RAM		SZ_1M
#define STORED		SZ_64K
#define VALUE		0x1122334455667788UL

static int irqs[PRECOPY_ENGINE_VECTORS];

static void put_register(struct round *r, u64 reg, u64 value, size_t len)
{
	struct precopy_dev *a = &r->self->a;

	AGAIN(r, "register write",
	      sys(pwrite(a->fd, &value, len, a->dev->bars[0].info.offset + reg)));
}

static u32 get_register(struct round *r, u64 reg)
{
	struct precopy_dev *a = &r->self->a;
	u32 value = 0;

	AGAIN(r, "register read", sys(pread(a->fd, &value, sizeof(value),
					    a->dev->bars[0].info.offset + reg)));
	return value;
}

static long set_irqs(int fd)
{
	char buf[sizeof(struct vfio_irq_set) + sizeof(irqs)];
	struct vfio_irq_set *set = (void *)buf;

	*set = (struct vfio_irq_set) {
		.argsz = sizeof(buf), .count = PRECOPY_ENGINE_VECTORS,
		.flags = VFIO_IRQ_SET_DATA_EVENTFD |
			 VFIO_IRQ_SET_ACTION_TRIGGER,
		.index = VFIO_PCI_MSIX_IRQ_INDEX,
	};
	memcpy(set->data, irqs, sizeof(irqs));
	return sys(ioctl(fd, VFIO_DEVICE_SET_IRQS, set));
}

/* Of the worker, in which nothing is made to fail */
static void fill_by_dma(struct round *r)
{
	put_register(r, PRECOPY_ENGINE_CMD_OP, PRECOPY_ENGINE_OP_FILL, 4);
	put_register(r, PRECOPY_ENGINE_CMD_SRC, VALUE, 8);
	put_register(r, PRECOPY_ENGINE_CMD_DST, ENGINE_IOVA, 8);
	put_register(r, PRECOPY_ENGINE_CMD_LEN, STORED, 8);
	put_register(r, PRECOPY_ENGINE_CMD_COUNT, 1, 8);
	put_register(r, PRECOPY_ENGINE_CMD_VECTOR, 3, 4);
	put_register(r, PRECOPY_ENGINE_CMD_START, 1, 4);
	while (good(r) && get_register(r, PRECOPY_ENGINE_CMD_START))
		usleep(100);
}

static void prepare_engine(struct round *r)
{
	u64 nr;

	vfio_pci_cmd_set(r->self->a.dev, PCI_COMMAND_MASTER);
	memset(r->self->ram, 0, RAM);
	if (read(irqs[3], &nr, sizeof(nr)) < 0)
		VFIO_ASSERT_EQ(errno, EAGAIN);
}

static void body_engine(struct round *r)
{
	struct vfio_device_feature_dma_logging_range range = { ENGINE_IOVA, RAM };
	struct vfio_pci_device *dev = r->self->a.dev;
	u64 page_size = SZ_4K;

	AGAIN(r, "SET_IRQS", set_irqs(r->self->a.fd));
	AGAIN(r, "LOG_START", dma_log_start(dev, &page_size, &range, 1));
	set_state(r, "RUNNING to PRE_COPY", PRE_COPY, S(RUNNING));
	if (r->over)
		return;
	fill_by_dma(r);
	memset(r->self->bitmap, 0, sizeof(r->self->bitmap));
	AGAIN(r, "LOG_REPORT", dma_log_report(dev, ENGINE_IOVA, RAM, SZ_4K,
					      r->self->bitmap));
	set_state(r, "PRE_COPY to STOP_COPY", STOP_COPY,
		  S(PRE_COPY) | S(PRE_COPY_P2P));
	read_all(r, 0);
}

static void note_engine(const struct wire_record *record, size_t pos, void *arg)
{
	(void)pos;
	*(int *)arg += record->type == WIRE_ENGINE;
}

/*
 * A report whose copy to the user has failed may have lost what it had: then it is
 * the user who knows that.
 */
static void verify_engine(struct round *r)
{
	struct __test_metadata *_metadata = r->_metadata;
	u64 *ram = (u64 *)r->self->ram, nr = 0;
	int engines = 0;
	u64 i;

	for (i = 0; i < STORED / sizeof(*ram); i++)
		nr += ram[i] == VALUE;
	EXPECT_EQ(STORED / sizeof(*ram), nr);
	EXPECT_EQ(0, ram[i]);
	if (!r->call || strcmp(r->call, "LOG_REPORT"))
		EXPECT_EQ((1UL << STORED / SZ_4K) - 1, r->self->bitmap[0]);
	EXPECT_EQ((ssize_t)sizeof(nr), read(irqs[3], &nr, sizeof(nr)));
	EXPECT_EQ(1, nr);
	EXPECT_LT(0, wire_walk(&r->got, note_engine, &engines));
	EXPECT_EQ(1, engines);
}

TEST_F_TIMEOUT(fail_nth, engine, 3600)
{
	static const struct sweep sweep = {
		.name = "engine", .prepare = prepare_engine,
		.body = body_engine, .verify = verify_engine,
	};
	struct dma_region region = { .iova = ENGINE_IOVA, .size = RAM };
	int i;

	precopy_close(&self->a);
	precopy_close(&self->b);
	precopy_open_model(&self->a, bdfs[0], NULL, SIZE, "engine");
	precopy_open_model(&self->b, bdfs[1], NULL, SIZE, "engine");
	self->ram = mmap(NULL, RAM, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->ram);
	region.vaddr = self->ram;
	iommu_map(self->a.iommu, &region);
	for (i = 0; i < PRECOPY_ENGINE_VECTORS; i++)
		irqs[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	run_sweep(_metadata, self, &sweep);
	for (i = 0; i < PRECOPY_ENGINE_VECTORS; i++)
		close(irqs[i]);
}

/* ------------------------------------------------------------------------ */
/* Opening                                                                  */

/* The other device is open all the time; this one is opened by hand. */
static int open_once(struct round *r, const char *cdev, int iommufd)
{
	struct vfio_region_info region = { .argsz = sizeof(region),
					   .index = PRECOPY_BAR };
	u8 *map;
	int fd;

	fd = open(cdev, O_RDWR | O_CLOEXEC);
	if (fd < 0) {
		note(r, "open", -errno);
		return -1;
	}
	AGAIN(r, "BIND_IOMMUFD", __vfio_device_bind_iommufd(fd, iommufd, NULL));
	AGAIN(r, "GET_REGION_INFO",
	      sys(ioctl(fd, VFIO_DEVICE_GET_REGION_INFO, &region)));
	map = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd,
		   region.offset);
	if (map == MAP_FAILED)
		note(r, "mmap", -errno);
	else
		munmap(map, SIZE);
	return fd;
}

TEST_F_TIMEOUT(fail_nth, open, 3600)
{
	unsigned int nth, injected = 0, refused = 0;
	const char *cdev;
	bool fired;
	int iommufd;

	/* With an engine there is more to allocate */
	precopy_close(&self->a);
	ASSERT_EQ(0, precopy_sysfs_write(bdfs[0], "model", "engine"));
	cdev = vfio_pci_get_cdev_path(bdfs[0]);
	iommufd = open("/dev/iommu", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, iommufd);
	for (nth = self->first; ; nth += self->stride) {
		struct round r = { ._metadata = _metadata, .self = self,
				   .nth = nth };
		int fds, fd;

		ASSERT_GT(MANY, nth);
		fds = count_fds();
		kmsg_skip(self->kmsg);
		fail_at(self, nth);
		fd = open_once(&r, cdev, iommufd);
		fired = fail_no_more(self);
		if (fd >= 0)
			close(fd);
		EXPECT_EQ(fds, count_fds());
		EXPECT_FALSE(kmsg_bad(self->kmsg));
		injected += fired;
		refused += !!r.call;
		if (!fired || _metadata->exit_code == KSFT_FAIL)
			break;
	}
	close(iommufd);
	free((void *)cdev);
	TH_LOG("open: %u failures told, of %u", refused, nth - 1);
	/* Of a few failures, none may be one that is told */
	EXPECT_LT(0, self->stride > 1 ? injected : refused);
	precopy_open(&self->a, bdfs[0], NULL, SIZE);
	EXPECT_EQ(0, precopy_migrate(&self->a, &self->b, nth));
}

/* ------------------------------------------------------------------------ */
/* The driver's own                                                         */

/* Knobs that fail at a byte of the stream: all of them, or some. */
static size_t next_byte(fail_nth_t *self, size_t at)
{
	return at + (self->stride > 1 ? self->stream.len / 64 : 97);
}

static void fail_save_at(struct __test_metadata *_metadata, fail_nth_t *self,
			 size_t at)
{
	struct mig_stream got = {};
	int fd;

	precopy_reset(&self->a);
	precopy_fill(&self->a, 0, 5, 1, BY_MMAP);
	precopy_fill(&self->a, UNIT_PAGES + 3, 1, 2, BY_PWRITE);
	ASSERT_EQ(0, precopy_knob(bdfs[0], "fail_save_at", at));
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, &fd));
	EXPECT_EQ(-EIO, mig_stream_drain(&got, fd, SZ_64K));
	EXPECT_EQ(at, got.len);
	EXPECT_EQ((int)STOP_COPY, mig_get_state(self->a.dev));
	/* It is only that the fd does not give any more. */
	ASSERT_EQ(0, precopy_knob(bdfs[0], "fail_save_at", 0));
	EXPECT_EQ(0, mig_stream_drain(&got, fd, SZ_64K));
	EXPECT_LT(0, wire_walk(&got, NULL, NULL));
	close(fd);
	mig_stream_free(&got);
}

static void fail_load_at(struct __test_metadata *_metadata, fail_nth_t *self,
			 size_t at)
{
	size_t done;
	int fd;

	precopy_reset(&self->a);
	ASSERT_EQ(0, precopy_knob(bdfs[0], "fail_load_at", at));
	ASSERT_EQ(0, mig_set_state(self->a.dev, RESUMING, &fd));
	EXPECT_EQ(-EIO, mig_write_all(fd, self->stream.data, self->stream.len,
				      SZ_64K, &done));
	EXPECT_EQ(at, done);
	EXPECT_EQ(-EIO, mig_set_state(self->a.dev, STOP, NULL));
	EXPECT_EQ((int)RESUMING, mig_get_state(self->a.dev));
	EXPECT_EQ(-EFAULT, storm_load(self->a.bar));
	ASSERT_EQ(0, precopy_knob(bdfs[0], "fail_load_at", 0));
	EXPECT_EQ(-EIO, sys(write(fd, self->stream.data, 1)));
	close(fd);
}

TEST_F_TIMEOUT(fail_nth, knobs, 3600)
{
	unsigned int rounds = 0;
	size_t at;

	if (!precopy_has_knob(bdfs[0], "fail_save_at"))
		SKIP(return, "no test knob fail_save_at in debugfs");
	for (at = 1; at < self->stream.len; at = next_byte(self, at)) {
		fail_save_at(_metadata, self, at);
		fail_load_at(_metadata, self, at);
		rounds++;
		if (_metadata->exit_code == KSFT_FAIL)
			break;
	}
	TH_LOG("knobs: %u bytes of %zu", rounds, self->stream.len);
	EXPECT_EQ(0, precopy_migrate(&self->a, &self->b, 1));
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
