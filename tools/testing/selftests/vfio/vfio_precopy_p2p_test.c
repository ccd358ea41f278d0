// SPDX-License-Identifier: GPL-2.0-only
/*
 * Peer to peer: two engines of one user store to each other's memory and load from it,
 * through the addresses that the guest has programmed into BAR2. What a memory must
 * hold is computed here, in the shadow of the device.
 */
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/mman.h>
#include <sys/wait.h>

#include <linux/pci_regs.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/mig_device.h>
#include <libvfio/precopy_engine.h>

#include <libvfio/mig_harness.h>

#define MEMORY		SZ_4M
#define RAM		SZ_1M
#define CHUNK		SZ_64K
/* What the guest programs into BAR2; the second above 4 GiB */
#define WINDOW_A	0x50000000UL
#define WINDOW_B	0x680000000UL

static char **bdfs;
static int nr_bdfs;

FIXTURE(p2p) {
	struct engine a, b;
	int save;		/* data fd, or -1 */
	bool opened;
};

FIXTURE_VARIANT(p2p) {
	const char *mode;
};

FIXTURE_VARIANT_ADD(p2p, vfio_type1_iommu) { .mode = MODE_VFIO_TYPE1_IOMMU };
FIXTURE_VARIANT_ADD(p2p, vfio_type1v2_iommu) { .mode = MODE_VFIO_TYPE1V2_IOMMU };
FIXTURE_VARIANT_ADD(p2p, iommufd) { .mode = MODE_IOMMUFD };

static void set_window(struct engine *e, u64 address)
{
	vfio_pci_config_writel(e->pd.dev, PCI_BASE_ADDRESS_2, address);
	vfio_pci_config_writel(e->pd.dev, PCI_BASE_ADDRESS_3, address >> 32);
}

FIXTURE_SETUP(p2p)
{
	const char *missing = mig_mode_missing(bdfs[0], variant->mode);
	u64 page;

	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_LE(2, nr_bdfs);
	self->save = -1;
	engine_open(&self->a, bdfs[0], variant->mode, MEMORY, RAM);
	engine_open(&self->b, bdfs[1], variant->mode, MEMORY, RAM);
	self->opened = true;
	for (page = 0; page < RAM / PRECOPY_PAGE; page++) {
		precopy_pattern(self->a.ram + page * PRECOPY_PAGE, page, 1);
		precopy_pattern(self->b.ram + page * PRECOPY_PAGE, page, 2);
	}
	set_window(&self->a, WINDOW_A);
	set_window(&self->b, WINDOW_B);
}

FIXTURE_TEARDOWN(p2p)
{
	if (!self->opened)
		return;
	mig_close_fd(self->save);
	engine_close(&self->a);
	engine_close(&self->b);
}

/* A store of @from to @to, which must succeed there */
static void store(struct __test_metadata *_metadata, struct engine *from,
		  struct engine *to, u64 window, u64 offset, u64 len)
{
	ASSERT_EQ(0, engine_copy(from, ENGINE_IOVA + 5, window + offset, len));
	memcpy(to->pd.shadow + offset, from->ram + 5, len);
}

/* ------------------------------------------------------------------------ */
/* Addresses                                                                */

TEST_F_TIMEOUT(p2p, store_and_load, MIG_TIMEOUT)
{
	struct engine_command command = {
		.op = PRECOPY_ENGINE_OP_STAMP, .dst = WINDOW_B + SZ_1M,
		.len = 3 * PRECOPY_PAGE, .seq = 7,
	};
	struct engine *a = &self->a, *b = &self->b;
	u64 refused = precopy_stat(bdfs[1], "p2p_refused");
	int i;

	store(_metadata, a, b, WINDOW_B, 0, 1);
	store(_metadata, a, b, WINDOW_B, SZ_2M - 4000, 10000);
	store(_metadata, a, b, WINDOW_B, MEMORY - 123, 123);
	store(_metadata, b, a, WINDOW_A, 77, SZ_64K);
	EXPECT_EQ(0, precopy_differ(&a->pd, a->pd.shadow));
	EXPECT_EQ(0, precopy_differ(&b->pd, b->pd.shadow));

	ASSERT_EQ(0, engine_run(a, &command));
	for (i = 0; i < 3; i++)
		EXPECT_TRUE(engine_stamped(b->pd.bar + SZ_1M + i * PRECOPY_PAGE, 7, i));
	memcpy(b->pd.shadow + SZ_1M, b->pd.bar + SZ_1M, command.len);
	/* From its own memory, and into it */
	command = (struct engine_command) {
		.op = PRECOPY_ENGINE_OP_COPY, .src = 77, .dst = WINDOW_B + 3,
		.len = 9999, .flags = PRECOPY_ENGINE_FLAG_SRC_BAR,
	};
	ASSERT_EQ(0, engine_run(a, &command));
	memcpy(b->pd.shadow + 3, a->pd.shadow + 77, command.len);
	EXPECT_EQ(0, precopy_differ(&b->pd, b->pd.shadow));

	/* Loads; what was never stored to reads as zeroes */
	ASSERT_EQ(0, engine_copy(a, WINDOW_B + SZ_2M - 4000, ENGINE_IOVA + 11, 10000));
	EXPECT_EQ(0, memcmp(a->ram + 11, b->pd.shadow + SZ_2M - 4000, 10000));
	ASSERT_EQ(0, engine_copy(a, WINDOW_B + SZ_2M + SZ_1M, ENGINE_IOVA, 4096));
	EXPECT_EQ(0, memcmp(a->ram, b->pd.shadow + SZ_2M + SZ_1M, 4096));
	EXPECT_EQ(0, precopy_differ(&a->pd, a->pd.shadow));
	EXPECT_EQ(0, precopy_differ(&b->pd, b->pd.shadow));
	EXPECT_EQ(refused, precopy_stat(bdfs[1], "p2p_refused"));
}

/* The ring itself may be in the memory of a peer. */
TEST_F_TIMEOUT(p2p, ring_in_a_peer, MIG_TIMEOUT)
{
	struct engine *a = &self->a, *b = &self->b;
	struct precopy_engine_desc desc = {
		.op = PRECOPY_ENGINE_OP_FENCE, .dst = WINDOW_B + 64, .seq = 0x1234,
	};
	u64 fence = desc.seq;

	precopy_store(&b->pd, PRECOPY_PAGE, &desc, sizeof(desc), BY_MMAP);
	engine_write64(a, PRECOPY_ENGINE_RING_BASE, WINDOW_B + PRECOPY_PAGE);
	engine_write32(a, PRECOPY_ENGINE_RING_SIZE, 2);
	engine_write32(a, PRECOPY_ENGINE_CTRL, PRECOPY_ENGINE_CTRL_RING);
	engine_write32(a, PRECOPY_ENGINE_RING_TAIL, 1);
	ASSERT_TRUE(engine_wait_head(a, 1));
	desc.status = PRECOPY_ENGINE_DONE;
	memcpy(b->pd.shadow + PRECOPY_PAGE, &desc, sizeof(desc));
	memcpy(b->pd.shadow + 64, &fence, sizeof(fence));
	EXPECT_EQ(0, precopy_differ(&b->pd, b->pd.shadow));
}

/* What is no window: no address, one that does not decode, and what is beside it. */
TEST_F_TIMEOUT(p2p, windows, MIG_TIMEOUT)
{
	struct engine *a = &self->a, *b = &self->b;

	EXPECT_GT(0, engine_copy(a, ENGINE_IOVA, WINDOW_B - 1, 1));
	EXPECT_GT(0, engine_copy(a, ENGINE_IOVA, WINDOW_B + MEMORY, 1));
	/* Its own */
	EXPECT_GT(0, engine_copy(a, ENGINE_IOVA, WINDOW_A, 1));
	vfio_pci_cmd_clear(b->pd.dev, PCI_COMMAND_MEMORY);
	EXPECT_GT(0, engine_copy(a, ENGINE_IOVA, WINDOW_B, 1));
	vfio_pci_cmd_set(b->pd.dev, PCI_COMMAND_MEMORY);
	store(_metadata, a, b, WINDOW_B, 9, 1);
	vfio_pci_config_writew(b->pd.dev, ENGINE_CAP_PM + PCI_PM_CTRL, 3);
	EXPECT_GT(0, engine_copy(a, ENGINE_IOVA, WINDOW_B, 1));
	vfio_pci_config_writew(b->pd.dev, ENGINE_CAP_PM + PCI_PM_CTRL, 0);
	store(_metadata, a, b, WINDOW_B, 10, 1);
	set_window(b, 0);
	EXPECT_GT(0, engine_copy(a, ENGINE_IOVA, WINDOW_B, 1));
	EXPECT_GT(0, engine_copy(a, ENGINE_IOVA, 0, 1));
	set_window(b, WINDOW_B + SZ_1G);
	EXPECT_GT(0, engine_copy(a, ENGINE_IOVA, WINDOW_B, 1));
	store(_metadata, a, b, WINDOW_B + SZ_1G, 11, 1);
	EXPECT_EQ(0, precopy_differ(&b->pd, b->pd.shadow));
	/* A reset leaves config space as it is. */
	precopy_reset(&b->pd);
	store(_metadata, a, b, WINDOW_B + SZ_1G, 12, 1);
	EXPECT_EQ(0, precopy_differ(&b->pd, b->pd.shadow));
	EXPECT_EQ(0, precopy_differ(&a->pd, a->pd.shadow));
}

/* An address with memory is memory, whatever is programmed into a BAR. */
TEST_F_TIMEOUT(p2p, memory_comes_first, MIG_TIMEOUT)
{
	struct engine *a = &self->a, *b = &self->b;

	set_window(b, ENGINE_IOVA);
	ASSERT_EQ(0, engine_copy(a, ENGINE_IOVA, ENGINE_IOVA + SZ_64K, 5000));
	EXPECT_EQ(0, memcmp(a->ram, a->ram + SZ_64K, 5000));
	EXPECT_EQ(0, precopy_differ(&b->pd, b->pd.shadow));
	/* Behind the memory, the rest of the window */
	store(_metadata, a, b, ENGINE_IOVA, RAM + 100, 5000);
	EXPECT_EQ(0, precopy_differ(&b->pd, b->pd.shadow));
}

/* The device of another user is no peer. */
TEST_F_TIMEOUT(p2p, other_users_are_no_peers, MIG_TIMEOUT)
{
	struct engine *a = &self->a, *b = &self->b;
	int ready[2], done[2], status;
	char byte = 0;
	pid_t child;

	ASSERT_EQ(0, pipe(ready));
	ASSERT_EQ(0, pipe(done));
	engine_close(b);
	child = fork();
	ASSERT_LE(0, child);
	if (!child) {
		engine_open(b, bdfs[1], variant->mode, MEMORY, RAM);
		set_window(b, WINDOW_B);
		if (write(ready[1], &byte, 1) != 1 || read(done[0], &byte, 1) != 1)
			_exit(2);
		_exit(precopy_differ(&b->pd, b->pd.shadow) ? 1 : 0);
	}
	ASSERT_EQ(1, read(ready[0], &byte, 1));
	EXPECT_GT(0, engine_copy(a, ENGINE_IOVA, WINDOW_B, 4096));
	EXPECT_GT(0, engine_copy(a, WINDOW_B, ENGINE_IOVA, 4096));
	ASSERT_EQ(1, write(done[1], &byte, 1));
	ASSERT_EQ(child, waitpid(child, &status, 0));
	EXPECT_EQ(0, status);
	engine_open(b, bdfs[1], variant->mode, MEMORY, RAM);
}

/* ------------------------------------------------------------------------ */
/* Migration                                                                */

/*
 * What a peer stores is tracked as what a guest stores, in RUNNING and P2P states, and
 * is no memory of the guest that the log of the storing device would have to have.
 */
TEST_F_TIMEOUT(p2p, stores_are_tracked, MIG_TIMEOUT)
{
	struct engine *a = &self->a, *b = &self->b;
	u64 unlogged = precopy_stat(bdfs[0], "dma_unlogged_pages");
	struct mig_stream stream = {};
	u8 *want = malloc_assert(MEMORY);
	int fd;

	precopy_fill(&b->pd, 0, 300, 3, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(b->pd.dev, PC, &self->save));
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&stream, self->save, CHUNK));
	ASSERT_EQ(0, mig_set_state(a->pd.dev, PC, &fd));
	store(_metadata, a, b, WINDOW_B, SZ_64K + 1, 50000);
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&stream, self->save, CHUNK));
	/* To a page that was sent, to one that was not there, and once more */
	store(_metadata, a, b, WINDOW_B, 8, 8);
	store(_metadata, a, b, WINDOW_B, SZ_2M + SZ_1M, SZ_64K);
	store(_metadata, a, b, WINDOW_B, SZ_64K + 3, 9);
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&stream, self->save, CHUNK));
	ASSERT_EQ(0, mig_set_state(b->pd.dev, PCP, NULL));
	store(_metadata, a, b, WINDOW_B, 16, 8);
	store(_metadata, a, b, WINDOW_B, MEMORY - 1, 1);
	EXPECT_EQ(unlogged, precopy_stat(bdfs[0], "dma_unlogged_pages"));
	ASSERT_EQ(0, mig_set_state(a->pd.dev, PCP, NULL));
	ASSERT_EQ(0, mig_set_state(b->pd.dev, SC, NULL));
	ASSERT_EQ(0, mig_stream_drain(&stream, self->save, CHUNK));

	memcpy(want, b->pd.shadow, MEMORY);
	EXPECT_EQ(0, precopy_differ(&b->pd, want));
	close(fd);
	precopy_reset(&a->pd);
	ASSERT_EQ(0, mig_load(a->pd.dev, &stream, CHUNK));
	EXPECT_EQ(0, precopy_differ(&a->pd, want));
	mig_stream_free(&stream);
	free(want);
}

/* What was begun is complete when the P2P state is entered, and nothing follows. */
TEST_F_TIMEOUT(p2p, nothing_begins_in_p2p, MIG_TIMEOUT) /* R25 */
{
	struct engine_command command = {
		.op = PRECOPY_ENGINE_OP_STAMP, .dst = WINDOW_B, .len = MEMORY,
	};
	struct engine *a = &self->a, *b = &self->b;
	u8 *before = malloc_assert(MEMORY);
	u64 done;
	int i;

	engine_start(a, &command);
	for (i = 0; i < 5; i++) {
		done = engine_read64(a, PRECOPY_ENGINE_CMD_DONE);
		ASSERT_TRUE(engine_wait_for(a, PRECOPY_ENGINE_CMD_DONE, done + 1));
		ASSERT_EQ(0, mig_set_state(a->pd.dev, RP, NULL));
		memcpy(before, b->pd.bar, MEMORY);
		usleep(20 * 1000);
		EXPECT_EQ(0, memcmp(before, b->pd.bar, MEMORY));
		ASSERT_EQ(0, mig_set_state(a->pd.dev, RUN, NULL));
	}
	free(before);
}

/* One that has stopped takes nothing and gives nothing; both devices count it. */
TEST_F_TIMEOUT(p2p, stopped_peers_refuse, MIG_TIMEOUT)
{
	static const struct { u32 state; bool refuses; } states[] = {
		{ RP, false }, { STOP, true }, { RP, false }, { STOP, true },
		{ SC, true }, { STOP, true }, { RES, true }, { RUN, false },
		{ PC, false }, { PCP, false }, { SC, true },
	};
	struct engine *a = &self->a, *b = &self->b;
	u64 at_a = precopy_stat(bdfs[0], "p2p_refused");
	u64 at_b = precopy_stat(bdfs[1], "p2p_refused");
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(states); i++) {
		mig_close_fd(self->save);
		self->save = -1;
		/* An incomplete load is left by a reset only. */
		if (i && states[i - 1].state == RES)
			precopy_reset(&b->pd);
		else
			ASSERT_EQ(0, mig_set_state(b->pd.dev, states[i].state,
						   &self->save));
		if (states[i].refuses) {
			EXPECT_EQ(-ESHUTDOWN, engine_copy(a, ENGINE_IOVA, WINDOW_B, 8192));
			EXPECT_EQ(-ESHUTDOWN, engine_copy(a, WINDOW_B, ENGINE_IOVA, 100));
			at_a += 2;
			at_b += 2;
		} else {
			store(_metadata, a, b, WINDOW_B, 100 * i, 90);
			EXPECT_EQ(0, engine_copy(a, WINDOW_B, ENGINE_IOVA, 100));
		}
		EXPECT_EQ(at_a, precopy_stat(bdfs[0], "p2p_refused"))
			TH_LOG("state %u", states[i].state);
		EXPECT_EQ(at_b, precopy_stat(bdfs[1], "p2p_refused"));
	}
	precopy_reset(&b->pd);
	store(_metadata, a, b, WINDOW_B, 0, 4096);
	EXPECT_EQ(0, precopy_differ(&b->pd, b->pd.shadow));
}

/* A VMM that stops one device while another may still act makes a mistake. */
TEST_F_TIMEOUT(p2p, order_of_stops, MIG_TIMEOUT)
{
	struct engine *a = &self->a, *b = &self->b;
	u64 at_a = precopy_stat(bdfs[0], "p2p_order");
	u64 at_b = precopy_stat(bdfs[1], "p2p_order");

	/* Right: both quiet before the first stops */
	ASSERT_EQ(0, mig_set_state(a->pd.dev, RP, NULL));
	ASSERT_EQ(0, mig_set_state(b->pd.dev, RP, NULL));
	ASSERT_EQ(0, mig_set_state(b->pd.dev, STOP, NULL));
	ASSERT_EQ(0, mig_set_state(a->pd.dev, STOP, NULL));
	EXPECT_EQ(at_b, precopy_stat(bdfs[1], "p2p_order"));
	ASSERT_EQ(0, mig_set_state(a->pd.dev, RP, NULL));
	ASSERT_EQ(0, mig_set_state(b->pd.dev, RUN, NULL));
	/* Wrong: the other runs, or is in PRE_COPY */
	ASSERT_EQ(0, mig_set_state(a->pd.dev, STOP, NULL));
	EXPECT_EQ(at_a + 1, precopy_stat(bdfs[0], "p2p_order"));
	ASSERT_EQ(0, mig_set_state(a->pd.dev, PC, &self->save));
	ASSERT_EQ(0, mig_set_state(b->pd.dev, STOP, NULL));
	EXPECT_EQ(at_b + 1, precopy_stat(bdfs[1], "p2p_order"));
	ASSERT_EQ(0, mig_set_state(b->pd.dev, RUN, NULL));
	ASSERT_EQ(0, mig_set_state(a->pd.dev, SC, NULL));
	EXPECT_EQ(at_a + 2, precopy_stat(bdfs[0], "p2p_order"));
	precopy_reset(&a->pd);
	/* As at a target: nobody is bus master yet */
	engine_set_master(a, false);
	ASSERT_EQ(0, mig_set_state(b->pd.dev, STOP, NULL));
	EXPECT_EQ(at_b + 1, precopy_stat(bdfs[1], "p2p_order"));
	EXPECT_EQ(at_a + 2, precopy_stat(bdfs[0], "p2p_order"));
}

/* ------------------------------------------------------------------------ */
/* Lifetimes                                                                */

static const struct engine_command to_b = {
	.op = PRECOPY_ENGINE_OP_STAMP, .dst = WINDOW_B, .len = MEMORY,
};

/* Zero, or stamped, each page as a whole: a store is before a reset or after it. */
static u64 strange_pages(struct engine *e)
{
	u64 page, nr = 0, *word;

	for (page = 0; page < MEMORY / PRECOPY_PAGE; page++) {
		word = (u64 *)(e->pd.bar + page * PRECOPY_PAGE);
		if (!engine_stamped(word, word[0], page) && (word[0] || word[1]))
			nr++;
	}
	return nr;
}

TEST_F_TIMEOUT(p2p, peer_is_reset, MIG_TIMEOUT)
{
	struct engine *a = &self->a, *b = &self->b;
	u64 i, nr = precopy_rounds(30), done = 0;

	engine_start(a, &to_b);
	for (i = 0; i < nr; i++) {
		ASSERT_TRUE(engine_wait_for(a, PRECOPY_ENGINE_CMD_DONE, done + 1));
		usleep(i % 7 * 300);
		precopy_reset(&b->pd);
		done = engine_read64(a, PRECOPY_ENGINE_CMD_DONE);
		ASSERT_EQ(1, engine_read32(a, PRECOPY_ENGINE_CMD_START));
	}
	/* The last reset has left nothing of before. */
	ASSERT_TRUE(engine_wait_for(a, PRECOPY_ENGINE_CMD_DONE, done + 1));
	ASSERT_EQ(0, mig_set_state(a->pd.dev, RP, NULL));
	EXPECT_EQ(0, strange_pages(b));
}

/* The window goes with the device, and comes back with it. */
TEST_F_TIMEOUT(p2p, peer_is_closed, MIG_TIMEOUT)
{
	struct engine *a = &self->a, *b = &self->b;
	u64 i, nr = precopy_rounds(8);
	int ret;

	for (i = 0; i < nr; i++) {
		engine_start(a, &to_b);
		ASSERT_TRUE(engine_wait_for(a, PRECOPY_ENGINE_BYTES, SZ_64K));
		usleep(i % 5 * 500);
		engine_close(b);
		ret = engine_wait(a);
		EXPECT_GT(0, ret);
		EXPECT_NE(-ESHUTDOWN, ret);
		engine_open(b, bdfs[1], variant->mode, MEMORY, RAM);
		EXPECT_EQ(0, precopy_differ(&b->pd, b->pd.shadow));
		set_window(b, WINDOW_B);
		precopy_reset(&a->pd);
	}
	store(_metadata, a, b, WINDOW_B, 1, 5000);
	EXPECT_EQ(0, precopy_differ(&b->pd, b->pd.shadow));
}

struct tormentor {
	struct engine *e;
	u64 window;		/* of the other one */
	u64 rounds;
	pthread_t thread;
	int bad;
};

/* One that always stores to the other, and is reset, stopped and saved meanwhile */
static void *torment(void *arg)
{
	struct engine_command command = {
		.op = PRECOPY_ENGINE_OP_STAMP, .len = MEMORY,
	};
	struct tormentor *t = arg;
	u64 i;
	int fd, ret;

	command.dst = t->window;
	for (i = 0; i < t->rounds; i++) {
		engine_start(t->e, &command);
		usleep(i % 11 * 200);
		if (i % 3 == 0) {
			vfio_pci_device_reset(t->e->pd.dev);
			continue;
		}
		/* By all P2P states to one that takes nothing */
		ret = mig_set_state(t->e->pd.dev, i % 3 == 1 ? SC : STOP, &fd);
		mig_close_fd(fd);
		if (!ret)
			ret = mig_set_state(t->e->pd.dev, RUN, NULL);
		if (ret)
			t->bad = ret;
		engine_write32(t->e, PRECOPY_ENGINE_CMD_START, 0);
		ret = engine_wait(t->e);
		if (ret != -ECANCELED && ret != -ESHUTDOWN)
			t->bad = ret;
	}
	return NULL;
}

TEST_F_TIMEOUT(p2p, both_ways_under_resets, MIG_TIMEOUT)
{
	struct tormentor both[2] = {
		{ .e = &self->a, .window = WINDOW_B, .rounds = precopy_rounds(150) },
		{ .e = &self->b, .window = WINDOW_A, .rounds = precopy_rounds(150) },
	};
	int i;

	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&both[i].thread, NULL, torment, &both[i]));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_join(both[i].thread, NULL));
	EXPECT_EQ(0, both[0].bad);
	EXPECT_EQ(0, both[1].bad);
	precopy_reset(&self->a.pd);
	precopy_reset(&self->b.pd);
	store(_metadata, &self->a, &self->b, WINDOW_B, 1, SZ_64K);
	store(_metadata, &self->b, &self->a, WINDOW_A, 1, SZ_64K);
	EXPECT_EQ(0, precopy_differ(&self->a.pd, self->a.pd.shadow));
	EXPECT_EQ(0, precopy_differ(&self->b.pd, self->b.pd.shadow));
}

static u64 get_window(struct engine *e)
{
	return (vfio_pci_config_readl(e->pd.dev, PCI_BASE_ADDRESS_2) & ~0xfULL) |
	       (u64)vfio_pci_config_readl(e->pd.dev, PCI_BASE_ADDRESS_3) << 32;
}

/*
 * Save device @e, close it and load it again after an open, in which its BAR2 is at
 * @window. 0 is what a VMM leaves there that does not write BARs.
 */
static void move(struct __test_metadata *_metadata, struct engine *e, const char *bdf,
		 const char *mode, u64 window)
{
	u8 *shadow = e->pd.shadow, *copy = malloc(MEMORY);
	struct mig_stream stream = {};

	ASSERT_NE(NULL, copy);
	memcpy(copy, shadow, MEMORY);
	ASSERT_EQ(0, mig_save(e->pd.dev, &stream));
	engine_close(e);
	engine_open(e, bdf, mode, MEMORY, RAM);
	EXPECT_EQ(0, get_window(e));
	set_window(e, window);
	ASSERT_EQ(0, mig_load(e->pd.dev, &stream, CHUNK));
	ASSERT_EQ(0, mig_set_state(e->pd.dev, RUN, NULL));
	memcpy(e->pd.shadow, copy, MEMORY);
	free(copy);
	mig_stream_free(&stream);
}

/* Peers find a device that has moved, although no VMM has written its BAR2. */
TEST_F_TIMEOUT(p2p, window_moves, MIG_TIMEOUT)
{
	struct engine *a = &self->a, *b = &self->b;

	store(_metadata, a, b, WINDOW_B, 1234, 10000);
	move(_metadata, b, bdfs[1], variant->mode, 0);
	EXPECT_EQ(WINDOW_B, get_window(b));
	store(_metadata, a, b, WINDOW_B, SZ_1M, 10000);
	EXPECT_EQ(0, precopy_differ(&b->pd, b->pd.shadow));
}

/* The VMM that has written BAR2 of the target, before or after, has the last word. */
TEST_F_TIMEOUT(p2p, window_of_the_target_stays, MIG_TIMEOUT)
{
	struct engine *a = &self->a, *b = &self->b;

	move(_metadata, b, bdfs[1], variant->mode, WINDOW_B + MEMORY);
	EXPECT_EQ(WINDOW_B + MEMORY, get_window(b));
	store(_metadata, a, b, WINDOW_B + MEMORY, 77, 10000);
	set_window(b, WINDOW_B);
	store(_metadata, a, b, WINDOW_B, SZ_1M, 10000);
	EXPECT_EQ(0, precopy_differ(&b->pd, b->pd.shadow));
}

/* A load that fails at its last record, after that of the window, changes no address. */
TEST_F_TIMEOUT(p2p, window_of_a_failed_load, MIG_TIMEOUT)
{
	struct mig_stream stream = {};
	struct engine *b = &self->b;
	int fd;

	ASSERT_EQ(0, mig_save(b->pd.dev, &stream));
	engine_close(b);
	engine_open(b, bdfs[1], variant->mode, MEMORY, RAM);
	ASSERT_EQ(0, mig_set_state(b->pd.dev, STOP, NULL));
	ASSERT_EQ(0, mig_set_state(b->pd.dev, RES, &fd));
	((u8 *)stream.data)[stream.len - 1] ^= 1;
	ASSERT_NE(0, mig_write_all(fd, stream.data, stream.len, CHUNK, NULL));
	close(fd);
	precopy_reset(&b->pd);
	EXPECT_EQ(0, get_window(b));
	mig_stream_free(&stream);
}

/* A device of the model "memory" is a peer that does nothing by itself. */
TEST_F_TIMEOUT(p2p, passive_peer, MIG_TIMEOUT)
{
	struct engine *a = &self->a, b = { .registers = 0 };
	u64 order = precopy_stat(bdfs[0], "p2p_order");

	engine_close(&self->b);
	precopy_open(&b.pd, bdfs[1], variant->mode, MEMORY);
	set_window(&b, WINDOW_B);
	store(_metadata, a, &b, WINDOW_B, 1234, 10000);
	EXPECT_EQ(0, precopy_differ(&b.pd, b.pd.shadow));
	ASSERT_EQ(0, mig_set_state(b.pd.dev, STOP, NULL));
	EXPECT_EQ(-ESHUTDOWN, engine_copy(a, ENGINE_IOVA, WINDOW_B, 8192));
	ASSERT_EQ(0, mig_set_state(b.pd.dev, RUN, NULL));
	ASSERT_EQ(0, mig_set_state(a->pd.dev, STOP, NULL));
	EXPECT_EQ(order, precopy_stat(bdfs[0], "p2p_order"));
	precopy_close(&b.pd);
	engine_open(&self->b, bdfs[1], variant->mode, MEMORY, RAM);
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
