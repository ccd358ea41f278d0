// SPDX-License-Identifier: GPL-2.0-only
/*
 * Two devices hand their contents to each other, again and again, by all ways
 * that there are and with all that may go wrong on the way. After each cycle
 * every byte is compared with what it must be, and in the end nothing may have
 * been lost: memory, slab objects, files, references (libvfio/leak_watch.h).
 *
 * PRECOPY_SOAK_CYCLES (60 unless set) and PRECOPY_SOAK_SEED (1).
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/leak_watch.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_states.h>

#include <libvfio/mig_harness.h>

#define MODULE		"precopy_vfio_pci"
#define CYCLES		60
/* Cycles between two openings of both devices, each time in another way. */
#define EPOCH		10
/* Until whatever is allocated once is there. */
#define WARM_UP		(2 * EPOCH)
#define SAMPLES		21
#define PAGES_A_CYCLE	12
#define CHUNK		20000
#define HOURS		3600

static char **bdfs;
static int nr_bdfs;

FIXTURE(soak) {
	struct precopy_dev devs[2];
	struct precopy_dev *from;	/* the one that has the contents */
	struct precopy_dev *to;
	struct mig_stream stream;
	struct leak_watch *watch;
	u64 cycle;
	unsigned int rnd;
	bool open;
};

typedef FIXTURE_DATA(soak) soak_t;

FIXTURE_SETUP(soak)
{
	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	self->watch = calloc_assert(1, sizeof(*self->watch));
	leak_watch_init(self->watch, MODULE, 1);
	self->rnd = precopy_setting("PRECOPY_SOAK_SEED", 1);
}

static void close_both(soak_t *self)
{
	if (!self->open)
		return;
	precopy_close(&self->devs[0]);
	precopy_close(&self->devs[1]);
	self->open = false;
}

FIXTURE_TEARDOWN(soak)
{
	close_both(self);
	mig_stream_free(&self->stream);
	free(self->watch);
}

static unsigned int pick(soak_t *self, unsigned int n)
{
	return rand_r(&self->rnd) % n;
}

/* Both empty, by another IOMMU and of another size than the last time. */
static void open_both(soak_t *self)
{
	static const char * const modes[] = { "vfio_type1v2_iommu", "iommufd" };
	static const size_t sizes[] = { SZ_1M, SZ_4M, SZ_2M };
	u64 epoch = self->cycle / EPOCH;
	const char *mode = modes[epoch % ARRAY_SIZE(modes)];
	int i;

	for (i = 0; i < 2; i++)
		precopy_open(&self->devs[i], bdfs[i],
			     precopy_has_mode(mode) ? mode : NULL,
			     sizes[epoch % ARRAY_SIZE(sizes)]);
	self->from = &self->devs[0];
	self->to = &self->devs[1];
	self->open = true;
}

static void write_some(soak_t *self, unsigned int pages)
{
	u64 nr = precopy_nr_pages(self->from);
	u64 stamp[4] = { self->cycle, pick(self, 1000), ~0ULL, 0x50a50a };

	while (pages--)
		precopy_fill(self->from, pick(self, nr), 1, self->cycle + 1,
			     pick(self, 4) ? BY_MMAP : BY_PWRITE);
	/* Across two pages. */
	precopy_store(self->from, (1 + pick(self, nr - 1)) * PRECOPY_PAGE - 16,
		      stamp, sizeof(stamp), BY_MMAP);
}

/* ------------------------------------------------------------------------ */
/* One whole way from one device to the other                               */

static void load_all(struct __test_metadata *_metadata, soak_t *self)
{
	ASSERT_EQ(0, mig_load(self->to->dev, &self->stream,
			      1 + pick(self, CHUNK)));
	ASSERT_EQ(0, mig_set_state(self->to->dev, RUNNING, NULL));
}

static void move_stopped(struct __test_metadata *_metadata, soak_t *self)
{
	self->stream.len = 0;
	ASSERT_EQ(0, mig_save(self->from->dev, &self->stream));
	load_all(_metadata, self);
}

/* Writes go on until the source stops; passes are drained in between. */
static void move_running(struct __test_metadata *_metadata, soak_t *self)
{
	unsigned int passes = 1 + pick(self, 3);
	int fd;

	self->stream.len = 0;
	ASSERT_EQ(0, mig_set_state(self->from->dev, PRE_COPY, &fd));
	while (passes--) {
		ASSERT_EQ(-ENOMSG, mig_stream_drain(&self->stream, fd, CHUNK));
		write_some(self, 1 + pick(self, 4));
	}
	ASSERT_EQ(0, mig_set_state(self->from->dev, STOP_COPY, NULL));
	ASSERT_EQ(0, mig_stream_drain(&self->stream, fd, CHUNK));
	close(fd);
	load_all(_metadata, self);
}

/* ------------------------------------------------------------------------ */
/* A migration that does not get to its end, before the one that does       */

/* Some of it is read, then the source goes on; its fd is closed before or after. */
static void disturb_cancel(struct __test_metadata *_metadata, soak_t *self)
{
	int fd, early = pick(self, 2);

	self->stream.len = 0;
	ASSERT_EQ(0, mig_set_state(self->from->dev, PRE_COPY, &fd));
	ASSERT_LT(0, mig_stream_read(&self->stream, fd, 1 + pick(self, SZ_64K)));
	write_some(self, 2);
	if (pick(self, 2))
		ASSERT_EQ(0, mig_set_state(self->from->dev, STOP_COPY, NULL));
	if (early)
		close(fd);
	ASSERT_EQ(0, mig_set_state(self->from->dev, RUNNING, NULL));
	if (!early)
		close(fd);
}

/* A target that got some of it, and then is reset or cannot go on. */
static void disturb_target(struct __test_metadata *_metadata, soak_t *self)
{
	size_t len;
	int fd;

	self->stream.len = 0;
	ASSERT_EQ(0, mig_save(self->from->dev, &self->stream));
	ASSERT_EQ(0, mig_set_state(self->from->dev, RUNNING, NULL));

	ASSERT_EQ(0, mig_set_state(self->to->dev, RESUMING, &fd));
	len = pick(self, self->stream.len);
	ASSERT_EQ(0, mig_write_all(fd, self->stream.data, len, CHUNK, NULL));
	if (pick(self, 2))
		EXPECT_GT(0, mig_set_state(self->to->dev, STOP, NULL));
	precopy_reset(self->to);
	close(fd);
}

/* A byte of the stream is not what it was: refused, at once or in the end. */
static void disturb_stream(struct __test_metadata *_metadata, soak_t *self)
{
	size_t where;

	self->stream.len = 0;
	ASSERT_EQ(0, mig_save(self->from->dev, &self->stream));
	ASSERT_EQ(0, mig_set_state(self->from->dev, RUNNING, NULL));
	where = pick(self, self->stream.len);
	self->stream.data[where] ^= 1 << pick(self, 8);
	EXPECT_GT(0, mig_load(self->to->dev, &self->stream, CHUNK))
		TH_LOG("byte %zu of %zu", where, self->stream.len);
	precopy_reset(self->to);
}

/* The source is reset amid pre-copy: all is zero, and its fd is dead. */
static void disturb_source(struct __test_metadata *_metadata, soak_t *self)
{
	int fd, early = pick(self, 2);

	self->stream.len = 0;
	ASSERT_EQ(0, mig_set_state(self->from->dev, PRE_COPY, &fd));
	ASSERT_LT(0, mig_stream_read(&self->stream, fd, 1 + pick(self, SZ_64K)));
	if (early)
		close(fd);
	precopy_reset(self->from);
	if (!early) {
		EXPECT_EQ(-ENODEV, mig_stream_read(&self->stream, fd, 1));
		close(fd);
	}
	write_some(self, PAGES_A_CYCLE);
}

/* The target is closed amid its load, with the fd open for longer. */
static void disturb_reopen(struct __test_metadata *_metadata, soak_t *self)
{
	const char *mode = self->to->iommu->mode->name;
	const char *bdf = self->to->bdf;
	size_t size = self->to->size;
	int fd;

	self->stream.len = 0;
	ASSERT_EQ(0, mig_save(self->from->dev, &self->stream));
	ASSERT_EQ(0, mig_set_state(self->from->dev, RUNNING, NULL));
	ASSERT_EQ(0, mig_set_state(self->to->dev, RESUMING, &fd));
	ASSERT_EQ(0, mig_write_all(fd, self->stream.data,
				   pick(self, self->stream.len), CHUNK, NULL));
	precopy_close(self->to);
	EXPECT_EQ(-1, write(fd, &size, 1));
	EXPECT_EQ(ENODEV, errno);
	close(fd);
	precopy_open(self->to, bdf, mode, size);
}

typedef void (*disturb_fn)(struct __test_metadata *_metadata, soak_t *self);

static const disturb_fn disturbances[] = {
	disturb_cancel, disturb_target, disturb_stream, disturb_source,
	disturb_reopen,
};

/* ------------------------------------------------------------------------ */

static void swap_roles(soak_t *self)
{
	struct precopy_dev *to = self->to;

	memcpy(to->shadow, self->from->shadow, to->size);
	precopy_reset(self->from);
	self->to = self->from;
	self->from = to;
}

static void one_cycle(struct __test_metadata *_metadata, soak_t *self)
{
	unsigned int what = pick(self, 2 * ARRAY_SIZE(disturbances));

	if (self->cycle % EPOCH == 0)
		close_both(self);
	if (!self->open)
		open_both(self);
	write_some(self, PAGES_A_CYCLE);
	if (what < ARRAY_SIZE(disturbances))
		disturbances[what](_metadata, self);
	if (pick(self, 3))
		move_running(_metadata, self);
	else
		move_stopped(_metadata, self);
	ASSERT_EQ(0, precopy_differ(self->to, self->from->shadow))
		TH_LOG("after cycle %llu", (unsigned long long)self->cycle);
	swap_roles(self);
	self->cycle++;
}

/* With both devices closed: how they were open last must not matter. */
static void sample(soak_t *self, u64 began)
{
	close_both(self);
	leak_watch_sample(self->watch, self->cycle);
	printf("# %llu cycles in %llu s, all bytes right\n",
	       (unsigned long long)self->cycle,
	       (unsigned long long)(precopy_now_ms() - began) / 1000);
	fflush(stdout);
}

TEST_F_TIMEOUT(soak, cycles, 100 * HOURS)
{
	u64 cycles = precopy_setting("PRECOPY_SOAK_CYCLES", CYCLES);
	u64 each = (cycles / SAMPLES + EPOCH) / EPOCH * EPOCH;
	u64 began = precopy_now_ms();

	while (self->cycle < WARM_UP + cycles) {
		one_cycle(_metadata, self);
		if (self->cycle >= WARM_UP && (self->cycle - WARM_UP) % each == 0)
			sample(self, began);
	}
	EXPECT_EQ(0, leak_watch_judge(self->watch));
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
