// SPDX-License-Identifier: GPL-2.0-only
/*
 * A device that acts migrates to another and back, again and again, with all that may
 * go wrong on the way. Its engine stamps pages of the VMM's memory all the time. After
 * each migration both memories are equal, and in the end nothing may have been lost
 * (libvfio/leak_watch.h).
 *
 * PRECOPY_SOAK_CYCLES (30 unless set) and PRECOPY_SOAK_SEED (1).
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/leak_watch.h>
#include <libvfio/mig_device.h>
#include <libvfio/precopy_engine.h>

#include <libvfio/mig_harness.h>

#define MODULE		"precopy_vfio_pci"
#define CYCLES		30
/* Cycles between two openings of both devices, each time in the other mode if there is one */
#define EPOCH		5
/* Until whatever is allocated once is there */
#define WARM_UP		(2 * EPOCH)
#define SAMPLES		21
#define MEMORY		SZ_2M
#define RAM		SZ_1M
#define CHUNK		SZ_64K
#define HOURS		3600

static char **bdfs;
static int nr_bdfs;

FIXTURE(engine_soak) {
	struct engine devs[2];
	struct engine *from;	/* the one whose engine works */
	struct engine *to;
	struct leak_watch *watch;
	u64 cycle;
	unsigned int rnd;
	int save, load;		/* data fds, or -1 */
	bool open;
};

typedef FIXTURE_DATA(engine_soak) soak_t;

FIXTURE_SETUP(engine_soak)
{
	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	self->watch = calloc_assert(1, sizeof(*self->watch));
	leak_watch_init(self->watch, MODULE, 1);
	self->rnd = precopy_setting("PRECOPY_SOAK_SEED", 1);
	self->save = -1;
	self->load = -1;
}

static void close_fds(soak_t *self)
{
	mig_close_fd(self->save);
	mig_close_fd(self->load);
	self->save = -1;
	self->load = -1;
}

static void close_both(soak_t *self)
{
	if (!self->open)
		return;
	close_fds(self);
	engine_close(&self->devs[0]);
	engine_close(&self->devs[1]);
	self->open = false;
}

FIXTURE_TEARDOWN(engine_soak)
{
	close_both(self);
	free(self->watch);
}

static unsigned int pick(soak_t *self, unsigned int n)
{
	return rand_r(&self->rnd) % n;
}

static void open_both(soak_t *self)
{
	static const char * const modes[] = { "vfio_type1v2_iommu", "iommufd" };
	const char *mode = modes[self->cycle / EPOCH % ARRAY_SIZE(modes)];
	int i;

	for (i = 0; i < 2; i++) {
		engine_open(&self->devs[i], bdfs[i],
			    precopy_has_mode(mode) ? mode : NULL, MEMORY, RAM);
		engine_irqs_enable(&self->devs[i]);
	}
	self->from = &self->devs[0];
	self->to = &self->devs[1];
	self->open = true;
}

/* As a VMM does it with a device that is to be used anew */
static void reset(struct engine *e)
{
	precopy_reset(&e->pd);
	engine_set_master(e, true);
}

/* ------------------------------------------------------------------------ */
/* The VMM                                                                  */

/* All that the device has to say now, of which the last @cut bytes are lost */
static int send_device(soak_t *self, size_t cut)
{
	struct mig_stream stream = {};
	int ret = mig_stream_drain(&stream, self->save, CHUNK);

	if (!ret || ret == -ENOMSG)
		ret = mig_write_all(self->load, stream.data,
				    stream.len > cut ? stream.len - cut : 0,
				    CHUNK, NULL) ?: ret;
	mig_stream_free(&stream);
	return ret;
}

static void begin(struct __test_metadata *_metadata, soak_t *self)
{
	ASSERT_EQ(0, engine_dirty_start(self->from));
	ASSERT_EQ(0, mig_set_state(self->from->pd.dev, PC, &self->save));
	ASSERT_EQ(0, mig_set_state(self->to->pd.dev, RES, &self->load));
	memcpy(self->to->ram, self->from->ram, RAM);
	ASSERT_EQ(-ENOMSG, send_device(self, 0));
	ASSERT_LE(0, engine_dirty_send(self->from, self->to));
}

static void finish(struct __test_metadata *_metadata, soak_t *self)
{
	ASSERT_EQ(0, mig_set_state(self->from->pd.dev, PCP, NULL));
	ASSERT_LE(0, engine_dirty_send(self->from, self->to));
	ASSERT_EQ(0, mig_set_state(self->from->pd.dev, SC, NULL));
	ASSERT_EQ(0, send_device(self, 0));
	ASSERT_EQ(0, mig_set_state(self->to->pd.dev, STOP, NULL));
	ASSERT_EQ(0, engine_dirty_stop(self->from));
	engine_set_master(self->to, true);
	close_fds(self);
}

/* ------------------------------------------------------------------------ */
/* The guest                                                                */

/* Let the engine stamp the VMM's memory for ever, and store to a page of the device's. */
static void start(struct __test_metadata *_metadata, soak_t *self)
{
	struct engine_command stamping = {
		.op = PRECOPY_ENGINE_OP_STAMP, .dst = ENGINE_IOVA, .len = RAM,
		.seq = 1 + pick(self, 1000),
	};

	engine_start(self->from, &stamping);
	ASSERT_TRUE(engine_wait_for(self->from, PRECOPY_ENGINE_CMD_DONE, 1));
	precopy_fill(&self->from->pd, pick(self, MEMORY / PRECOPY_PAGE), 1,
		     self->cycle + 1, BY_MMAP);
}

/* ------------------------------------------------------------------------ */
/* A migration that does not get to its end, before the one that does       */

/* The migration is cancelled, and the engine goes on where it is. */
static void disturb_cancel(struct __test_metadata *_metadata, soak_t *self)
{
	u64 done;

	begin(_metadata, self);
	ASSERT_EQ(0, mig_set_state(self->from->pd.dev,
				   pick(self, 2) ? PCP : SC, NULL));
	ASSERT_EQ(0, mig_set_state(self->from->pd.dev, RUN, NULL));
	ASSERT_EQ(0, engine_dirty_stop(self->from));
	done = engine_read64(self->from, PRECOPY_ENGINE_CMD_DONE);
	EXPECT_TRUE(engine_wait_for(self->from, PRECOPY_ENGINE_CMD_DONE,
				    done + 1));
	close_fds(self);
	reset(self->to);
}

/* The source is reset while its engine works and its log is on. */
static void disturb_reset(struct __test_metadata *_metadata, soak_t *self)
{
	begin(_metadata, self);
	reset(self->from);
	reset(self->to);
	close_fds(self);
	start(_metadata, self);
}

/* The target does not get the end of it. */
static void disturb_target(struct __test_metadata *_metadata, soak_t *self)
{
	begin(_metadata, self);
	ASSERT_EQ(0, mig_set_state(self->from->pd.dev, SC, NULL));
	ASSERT_EQ(0, send_device(self, 1 + pick(self, 100)));
	EXPECT_GT(0, mig_set_state(self->to->pd.dev, STOP, NULL));
	ASSERT_EQ(0, mig_set_state(self->from->pd.dev, RUN, NULL));
	ASSERT_EQ(0, engine_dirty_stop(self->from));
	close_fds(self);
	reset(self->to);
}

/* Both are closed amid a migration, with DMA under way. */
static void disturb_close(struct __test_metadata *_metadata, soak_t *self)
{
	begin(_metadata, self);
	close_both(self);
	open_both(self);
	start(_metadata, self);
}

typedef void (*disturb_fn)(struct __test_metadata *_metadata, soak_t *self);

static const disturb_fn disturbances[] = {
	disturb_cancel, disturb_reset, disturb_target, disturb_close,
};

/* ------------------------------------------------------------------------ */

static void one_cycle(struct __test_metadata *_metadata, soak_t *self)
{
	unsigned int what = pick(self, 2 * ARRAY_SIZE(disturbances));
	struct engine *to;
	u64 done;

	if (self->cycle % EPOCH == 0)
		close_both(self);
	if (!self->open)
		open_both(self);
	start(_metadata, self);
	if (what < ARRAY_SIZE(disturbances))
		disturbances[what](_metadata, self);
	begin(_metadata, self);
	finish(_metadata, self);
	ASSERT_EQ(0, memcmp(self->from->ram, self->to->ram, RAM))
		TH_LOG("after cycle %lu", self->cycle);
	to = self->to;
	ASSERT_EQ(0, precopy_differ(&to->pd, self->from->pd.shadow));
	done = engine_read64(to, PRECOPY_ENGINE_CMD_DONE);
	ASSERT_EQ(done, engine_read64(self->from, PRECOPY_ENGINE_CMD_DONE));
	ASSERT_EQ(0, mig_set_state(to->pd.dev, RUN, NULL));
	ASSERT_TRUE(engine_wait_for(to, PRECOPY_ENGINE_CMD_DONE, done + 1));
	reset(self->from);
	reset(to);
	self->to = self->from;
	self->from = to;
	self->cycle++;
}

/* With both devices closed: how they were open last must not matter. */
static void sample(soak_t *self, u64 began)
{
	close_both(self);
	leak_watch_sample(self->watch, self->cycle);
	printf("# %lu cycles in %lu s, all memory right\n", self->cycle,
	       (precopy_now_ms() - began) / 1000);
	fflush(stdout);
}

TEST_F_TIMEOUT(engine_soak, cycles, 100 * HOURS)
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
