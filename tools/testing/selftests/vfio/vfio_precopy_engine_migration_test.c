// SPDX-License-Identifier: GPL-2.0-only
/*
 * Migration of a device that acts: a small VMM moves memory and device while the
 * engine writes to both. The oracle is the memory itself. The engine stamps pages
 * with numbers in order, so each page that was lost or written twice is found.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/pci_regs.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/mig_device.h>
#include <libvfio/precopy_engine.h>

#include <libvfio/mig_harness.h>

#define MEMORY		SZ_4M
#define RAM		SZ_4M
#define PAGES		(RAM / PRECOPY_PAGE)
#define CHUNK		SZ_64K
#define ROUNDS		3

static char **bdfs;
static int nr_bdfs;

FIXTURE(engine_migration) {
	struct engine a, b;
	int save, load;		/* data fds, or -1 */
	bool opened;
};

FIXTURE_VARIANT(engine_migration) {
	const char *mode;
};

FIXTURE_VARIANT_ADD(engine_migration, vfio_type1v2_iommu) { .mode = MODE_VFIO_TYPE1V2_IOMMU };
FIXTURE_VARIANT_ADD(engine_migration, iommufd) { .mode = MODE_IOMMUFD };

FIXTURE_SETUP(engine_migration)
{
	const char *missing = mig_mode_missing(bdfs[0], variant->mode);
	u64 page;

	if (missing)
		SKIP(return, "%s", missing);
	ASSERT_LE(2, nr_bdfs);
	self->save = -1;
	self->load = -1;
	engine_open(&self->a, bdfs[0], variant->mode, MEMORY, RAM);
	engine_open(&self->b, bdfs[1], variant->mode, MEMORY, RAM);
	self->opened = true;
	for (page = 0; page < PAGES; page++)
		precopy_pattern(self->a.ram + page * PRECOPY_PAGE, page, 1);
	memset(self->b.ram, 0xee, RAM);
	engine_irqs_enable(&self->a);
	engine_irqs_enable(&self->b);
}

FIXTURE_TEARDOWN(engine_migration)
{
	if (!self->opened)
		return;
	mig_close_fd(self->save);
	mig_close_fd(self->load);
	engine_close(&self->a);
	engine_close(&self->b);
}

typedef FIXTURE_DATA(engine_migration) pair_t;

/* ------------------------------------------------------------------------ */
/* The VMM                                                                  */

/* Everything that the device has to say now */
static int send_device(pair_t *p)
{
	struct mig_stream stream = {};
	int ret = mig_stream_drain(&stream, p->save, CHUNK);

	if (!ret || ret == -ENOMSG)
		ret = mig_write_all(p->load, stream.data, stream.len, CHUNK,
				    NULL) ?: ret;
	mig_stream_free(&stream);
	return ret;
}

/* Pre-copy: all memory, then some rounds of what was written meanwhile */
static void vmm_precopy(struct __test_metadata *_metadata, pair_t *p)
{
	int i;

	ASSERT_EQ(0, engine_dirty_start(&p->a));
	ASSERT_EQ(0, mig_set_state(p->a.pd.dev, PC, &p->save));
	ASSERT_EQ(0, mig_set_state(p->b.pd.dev, RES, &p->load));
	memcpy(p->b.ram, p->a.ram, RAM);
	for (i = 0; i < ROUNDS; i++) {
		ASSERT_EQ(-ENOMSG, send_device(p));
		ASSERT_LE(0, engine_dirty_send(&p->a, &p->b));
	}
}

/* From PRE_COPY_P2P on */
static void vmm_finish(struct __test_metadata *_metadata, pair_t *p)
{
	ASSERT_EQ(0, mig_set_state(p->a.pd.dev, SC, NULL));
	ASSERT_EQ(0, send_device(p));
	ASSERT_EQ(0, mig_set_state(p->b.pd.dev, STOP, NULL));
	engine_set_master(&p->b, true);
}

static void vmm_migrate(struct __test_metadata *_metadata, pair_t *p)
{
	vmm_precopy(_metadata, p);
	ASSERT_EQ(0, mig_set_state(p->a.pd.dev, PCP, NULL));
	ASSERT_LE(0, engine_dirty_send(&p->a, &p->b));
	vmm_finish(_metadata, p);
}

static u64 pages_differ(pair_t *p)
{
	u64 page, nr = 0;

	for (page = 0; page < PAGES; page++)
		nr += !!memcmp(p->a.ram + page * PRECOPY_PAGE,
			       p->b.ram + page * PRECOPY_PAGE, PRECOPY_PAGE);
	return nr;
}

/* ------------------------------------------------------------------------ */
/* The guest                                                                */

#define STAMPED		SZ_1M
#define STAMPED_PAGES	(STAMPED / PRECOPY_PAGE)

static const struct engine_command stamping = {
	.op = PRECOPY_ENGINE_OP_STAMP, .dst = ENGINE_IOVA, .len = STAMPED,
	.seq = 1000,
};

/*
 * The command is at some page: those before it have the present number, the others
 * the one before. Nothing else can come of an engine that does each step once.
 */
static void expect_stamps(struct __test_metadata *_metadata, struct engine *e)
{
	u64 seq, page;

	engine_write32(e, PRECOPY_ENGINE_CMD_START, 0);
	EXPECT_EQ(-ECANCELED, engine_wait(e));
	seq = engine_read64(e, PRECOPY_ENGINE_CMD_SEQ);
	EXPECT_EQ(seq - 1000, engine_read64(e, PRECOPY_ENGINE_CMD_DONE));
	for (page = 0; page < STAMPED_PAGES; page++)
		if (!engine_stamped(e->ram + page * PRECOPY_PAGE, seq, page))
			break;
	for (; page < STAMPED_PAGES; page++) {
		ASSERT_TRUE(engine_stamped(e->ram + page * PRECOPY_PAGE, seq - 1,
					   page)) {
			TH_LOG("page %lu of number %lu", page, seq);
		}
	}
}

TEST_F_TIMEOUT(engine_migration, dma_goes_on, MIG_TIMEOUT)
{
	u64 unlogged = precopy_stat(bdfs[0], "dma_unlogged_pages"), done;
	struct engine *a = &self->a, *b = &self->b;

	engine_start(a, &stamping);
	ASSERT_TRUE(engine_wait_for(a, PRECOPY_ENGINE_CMD_DONE, 2));
	vmm_migrate(_metadata, self);
	EXPECT_EQ(0, pages_differ(self));
	if (dma_log_offered(a->pd.fd))
		EXPECT_EQ(unlogged, precopy_stat(bdfs[0], "dma_unlogged_pages"));

	done = engine_read64(a, PRECOPY_ENGINE_CMD_DONE);
	EXPECT_EQ(done, engine_read64(b, PRECOPY_ENGINE_CMD_DONE));
	EXPECT_EQ(engine_read64(a, PRECOPY_ENGINE_BYTES),
		  engine_read64(b, PRECOPY_ENGINE_BYTES));
	ASSERT_EQ(0, mig_set_state(b->pd.dev, RUN, NULL));
	ASSERT_TRUE(engine_wait_for(b, PRECOPY_ENGINE_CMD_DONE, done + 2));
	expect_stamps(_metadata, b);
	/* The source has stood still all the time. */
	EXPECT_EQ(done, engine_read64(a, PRECOPY_ENGINE_CMD_DONE));
}

/* The control: without the log's last report, pages are wrong at the target. */
TEST_F_TIMEOUT(engine_migration, log_not_read_after_the_stop_is_seen, MIG_TIMEOUT)
{
	struct engine *a = &self->a;
	u64 done;

	if (!dma_log_offered(a->pd.fd))
		SKIP(return, "no DMA logging");
	engine_start(a, &stamping);
	vmm_precopy(_metadata, self);
	done = engine_read64(a, PRECOPY_ENGINE_CMD_DONE);
	ASSERT_TRUE(engine_wait_for(a, PRECOPY_ENGINE_CMD_DONE, done + 2));
	ASSERT_EQ(0, mig_set_state(a->pd.dev, PCP, NULL));
	vmm_finish(_metadata, self);
	EXPECT_LE(STAMPED_PAGES, pages_differ(self));
}

/* The control: a VMM that never starts the log is told by the driver. */
TEST_F_TIMEOUT(engine_migration, log_never_started_is_counted, MIG_TIMEOUT)
{
	u64 unlogged = precopy_stat(bdfs[0], "dma_unlogged_pages");
	struct engine *a = &self->a;
	u64 done;

	engine_start(a, &stamping);
	ASSERT_EQ(0, mig_set_state(a->pd.dev, PC, &self->save));
	done = engine_read64(a, PRECOPY_ENGINE_CMD_DONE);
	ASSERT_TRUE(engine_wait_for(a, PRECOPY_ENGINE_CMD_DONE, done + 2));
	EXPECT_LE(unlogged + STAMPED_PAGES,
		  precopy_stat(bdfs[0], "dma_unlogged_pages"));
}

/* In RUNNING_P2P and PRE_COPY_P2P memory stands still, and doorbells are kept. */
TEST_F_TIMEOUT(engine_migration, p2p_is_quiet, MIG_TIMEOUT) /* R24, R25 */
{
	static const struct { u32 from, to; } states[] = { { RUN, RP }, { PC, PCP } };
	struct engine *a = &self->a;
	u8 *before = malloc_assert(RAM);
	unsigned int i;
	u64 done;

	for (i = 0; i < ARRAY_SIZE(states); i++) {
		ASSERT_EQ(0, mig_set_state(a->pd.dev, states[i].from, &self->save));
		engine_start(a, &stamping);
		ASSERT_TRUE(engine_wait_for(a, PRECOPY_ENGINE_CMD_DONE, 1));
		ASSERT_EQ(0, mig_set_state(a->pd.dev, states[i].to, NULL));
		done = engine_read64(a, PRECOPY_ENGINE_CMD_DONE);
		memcpy(before, a->ram, RAM);
		usleep(50 * 1000);
		EXPECT_EQ(0, memcmp(before, a->ram, RAM));
		EXPECT_EQ(done, engine_read64(a, PRECOPY_ENGINE_CMD_DONE));
		/* Goes on where it was */
		ASSERT_EQ(0, mig_set_state(a->pd.dev, states[i].from, NULL));
		ASSERT_TRUE(engine_wait_for(a, PRECOPY_ENGINE_CMD_DONE, done + 2));
		expect_stamps(_metadata, a);

		/* A doorbell while quiesced */
		ASSERT_EQ(0, mig_set_state(a->pd.dev, states[i].to, NULL));
		memset(a->ram, 0, PRECOPY_PAGE);
		engine_start(a, &stamping);
		usleep(20 * 1000);
		EXPECT_EQ(0, a->ram[0]);
		EXPECT_EQ(1, engine_read32(a, PRECOPY_ENGINE_CMD_START));
		ASSERT_EQ(0, mig_set_state(a->pd.dev, states[i].from, NULL));
		ASSERT_TRUE(engine_wait_for(a, PRECOPY_ENGINE_CMD_DONE, 2));
		expect_stamps(_metadata, a);
		ASSERT_EQ(0, mig_set_state(a->pd.dev, RUN, NULL));
		mig_close_fd(self->save);
		self->save = -1;
	}
	free(before);
}

/* A copy is cut anywhere, and complete on the target. */
TEST_F_TIMEOUT(engine_migration, half_a_copy, MIG_TIMEOUT)
{
	struct engine_command command = {
		.op = PRECOPY_ENGINE_OP_COPY, .src = ENGINE_IOVA + 11,
		.dst = ENGINE_IOVA + RAM / 2 + 7, .len = RAM / 2 - 100,
		.count = precopy_rounds(4), .vector = 3,
	};
	struct engine *a = &self->a, *b = &self->b;

	/* It must not end before it is cut: it begins late, and is repeated. */
	vmm_precopy(_metadata, self);
	ASSERT_EQ(0, mig_set_state(a->pd.dev, PCP, NULL));
	engine_start(a, &command);
	ASSERT_EQ(0, mig_set_state(a->pd.dev, PC, NULL));
	ASSERT_TRUE(engine_wait_for(a, PRECOPY_ENGINE_BYTES, SZ_64K));
	ASSERT_EQ(0, mig_set_state(a->pd.dev, PCP, NULL));
	ASSERT_LE(0, engine_dirty_send(&self->a, &self->b));
	vmm_finish(_metadata, self);
	ASSERT_EQ(0, mig_set_state(b->pd.dev, RUN, NULL));
	EXPECT_EQ(0, engine_wait(b));
	EXPECT_EQ(0, memcmp(b->ram + 11, b->ram + RAM / 2 + 7, command.len));
	EXPECT_EQ(command.count * command.len,
		  engine_read64(b, PRECOPY_ENGINE_BYTES));
	/* Once, wherever it ended */
	EXPECT_EQ(1, engine_irqs(a, 3) + engine_irqs(b, 3));
}

/*
 * Start the command in PRE_COPY_P2P, let the device run, and stop it again when it has
 * executed a step. If it was faster and has ended the command, this is started anew.
 * Returns the number of steps that it has executed.
 */
static u64 cut_in_the_middle(struct __test_metadata *_metadata, pair_t *p,
			     const struct engine_epf *epf)
{
	struct engine *a = &p->a;
	u64 before = 0, steps;

	ASSERT_EQ(0, mig_set_state(a->pd.dev, PCP, NULL));
	do {
		if (!engine_read32(a, PRECOPY_EPF_COMMAND)) {
			/* Interrupts of those that had ended are not those of the last */
			engine_irqs(a, 3);
			engine_epf_start(a, epf);
			before = precopy_stat(bdfs[0], "dma_steps");
		}
		ASSERT_EQ(0, mig_set_state(a->pd.dev, PC, NULL));
		while (precopy_stat(bdfs[0], "dma_steps") == before)
			usleep(50);
		ASSERT_EQ(0, mig_set_state(a->pd.dev, PCP, NULL));
		steps = precopy_stat(bdfs[0], "dma_steps") - before;
	} while (!engine_read32(a, PRECOPY_EPF_COMMAND));
	EXPECT_EQ(0, engine_irqs(a, 3));
	return steps;
}

/* Pages that a range touches */
static u64 pages_of(u64 at, u64 len)
{
	return (at + len - 1) / PRECOPY_PAGE - at / PRECOPY_PAGE + 1;
}

/* A step ends where a page does; no page of @src and @dst ends at the same time. */
static u64 steps_of(const struct engine_epf *epf)
{
	u64 from = pages_of(epf->src, epf->size), to = pages_of(epf->dst, epf->size);

	if (epf->command == PRECOPY_EPF_COMMAND_READ)
		return from;
	return epf->command == PRECOPY_EPF_COMMAND_WRITE ? to : from + to - 1;
}

/* A command of pci-epf-test is cut, and goes on where it was, at the target. */
TEST_F_TIMEOUT(engine_migration, half_of_an_endpoint_command, MIG_TIMEOUT)
{
	static const u32 commands[] = {
		PRECOPY_EPF_COMMAND_READ, PRECOPY_EPF_COMMAND_WRITE,
		PRECOPY_EPF_COMMAND_COPY,
	};
	struct engine *a = &self->a, *b = &self->b;
	struct engine_epf epf = {
		.src = ENGINE_IOVA + 11, .dst = ENGINE_IOVA + RAM / 2 + 7,
		.size = RAM / 2 - 100, .irq_type = PRECOPY_EPF_IRQ_MSIX,
		.irq_number = 4,
	};
	u64 steps, i;

	epf.checksum = engine_crc32(a->ram + 11, epf.size);
	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		epf.command = commands[i];
		vmm_precopy(_metadata, self);
		steps = cut_in_the_middle(_metadata, self, &epf);
		ASSERT_LE(0, engine_dirty_send(&self->a, &self->b));
		vmm_finish(_metadata, self);
		EXPECT_EQ(0, pages_differ(self));
		EXPECT_EQ(epf.command, engine_read32(b, PRECOPY_EPF_COMMAND));
		EXPECT_EQ(epf.dst, engine_read64(b, PRECOPY_EPF_DST));
		steps -= precopy_stat(bdfs[1], "dma_steps");
		ASSERT_EQ(0, mig_set_state(b->pd.dev, RUN, NULL));
		/* The bit of success, two for each command */
		EXPECT_EQ(PRECOPY_EPF_STATUS_IRQ_RAISED | 1U << 2 * i,
			  engine_epf_wait(b));
		EXPECT_EQ(1, engine_irqs(b, 3));
		/* Each step was executed once, here or there */
		steps += precopy_stat(bdfs[1], "dma_steps");
		EXPECT_EQ(steps_of(&epf), steps);
		if (epf.command == PRECOPY_EPF_COMMAND_WRITE)
			EXPECT_EQ(engine_crc32(b->ram + RAM / 2 + 7, epf.size),
				  engine_read32(b, PRECOPY_EPF_CHECKSUM));
		if (epf.command == PRECOPY_EPF_COMMAND_COPY)
			EXPECT_EQ(0, memcmp(b->ram + 11, b->ram + RAM / 2 + 7,
					    epf.size));
		ASSERT_EQ(0, mig_set_state(a->pd.dev, STOP, NULL));
		precopy_reset(&a->pd);
		precopy_reset(&b->pd);
		engine_set_master(a, true);
		mig_close_fd(self->save);
		mig_close_fd(self->load);
	}
	self->save = -1;
	self->load = -1;
}

/* Descriptors that the source has not reached are executed on the target. */
TEST_F_TIMEOUT(engine_migration, ring_goes_on, MIG_TIMEOUT)
{
	struct engine *a = &self->a, *b = &self->b;
	const u64 at = RAM - PRECOPY_PAGE;
	struct precopy_engine_desc *ring = engine_ring(a, at, 16), *moved;
	int i;

	engine_write32(a, PRECOPY_ENGINE_RING_VECTOR, 2);
	for (i = 0; i < 10; i++)
		ring[i] = (struct precopy_engine_desc) {
			.op = PRECOPY_ENGINE_OP_FENCE, .dst = ENGINE_IOVA + 8 * i,
			.seq = 100 + i, .flags = PRECOPY_ENGINE_FLAG_IRQ,
		};
	engine_write32(a, PRECOPY_ENGINE_RING_TAIL, 4);
	ASSERT_TRUE(engine_wait_head(a, 4));
	EXPECT_EQ(4, engine_irqs(a, 2));
	vmm_precopy(_metadata, self);
	ASSERT_EQ(0, mig_set_state(a->pd.dev, PCP, NULL));
	engine_write32(a, PRECOPY_ENGINE_RING_TAIL, 10);
	ASSERT_LE(0, engine_dirty_send(&self->a, &self->b));
	vmm_finish(_metadata, self);
	moved = (struct precopy_engine_desc *)(b->ram + at);
	EXPECT_EQ(0, ring[4].status);
	EXPECT_EQ(0, moved[4].status);
	ASSERT_EQ(0, mig_set_state(b->pd.dev, RUN, NULL));
	ASSERT_TRUE(engine_wait_head(b, 10));
	for (i = 0; i < 10; i++) {
		EXPECT_EQ(100 + i, ((u64 *)b->ram)[i]);
		EXPECT_EQ(PRECOPY_ENGINE_DONE, moved[i].status);
	}
	EXPECT_EQ(6, engine_irqs_wait(b, 2));
	EXPECT_EQ(0, engine_irqs(a, 2));
	EXPECT_EQ(0, ring[4].status);
}

/* Raised while quiesced: once, and where the device runs next. */
TEST_F_TIMEOUT(engine_migration, interrupts_are_kept, MIG_TIMEOUT) /* R24 */
{
	struct engine *a = &self->a, *b = &self->b;

	ASSERT_EQ(0, mig_set_state(a->pd.dev, RP, NULL));
	engine_write32(a, PRECOPY_ENGINE_IRQ_RAISE, 1);
	engine_write32(a, PRECOPY_ENGINE_IRQ_RAISE, 1);
	EXPECT_EQ(0, engine_irqs(a, 1));
	EXPECT_EQ(2, engine_read32(a, PRECOPY_ENGINE_MSIX_PBA));
	ASSERT_EQ(0, mig_set_state(a->pd.dev, RUN, NULL));
	EXPECT_EQ(1, engine_irqs(a, 1));
	EXPECT_EQ(0, engine_read32(a, PRECOPY_ENGINE_MSIX_PBA));

	vmm_precopy(_metadata, self);
	ASSERT_EQ(0, mig_set_state(a->pd.dev, PCP, NULL));
	engine_write32(a, PRECOPY_ENGINE_IRQ_RAISE, 7);
	vmm_finish(_metadata, self);
	EXPECT_EQ(0, engine_irqs(b, 7));
	ASSERT_EQ(0, mig_set_state(b->pd.dev, RP, NULL));
	EXPECT_EQ(0, engine_irqs(b, 7));
	ASSERT_EQ(0, mig_set_state(b->pd.dev, RUN, NULL));
	EXPECT_EQ(1, engine_irqs(b, 7));
	EXPECT_EQ(0, engine_irqs(a, 7));
}

/* The device's own memory is written by the engine, and tracked, as by a guest. */
TEST_F_TIMEOUT(engine_migration, device_memory_is_tracked, MIG_TIMEOUT)
{
	struct engine_command command = {
		.op = PRECOPY_ENGINE_OP_COPY, .src = ENGINE_IOVA + 5,
		.dst = SZ_1M + 9, .len = SZ_1M,
		.flags = PRECOPY_ENGINE_FLAG_DST_BAR,
	};
	struct engine *a = &self->a, *b = &self->b;

	precopy_fill(&a->pd, 0, MEMORY / PRECOPY_PAGE / 2, 3, BY_MMAP);
	vmm_precopy(_metadata, self);
	ASSERT_EQ(0, engine_run(a, &command));
	memcpy(a->pd.shadow + command.dst, a->ram + 5, command.len);
	ASSERT_EQ(0, mig_set_state(a->pd.dev, PCP, NULL));
	vmm_finish(_metadata, self);
	EXPECT_EQ(0, precopy_differ(&b->pd, a->pd.shadow));
}

/* Registers that migrate are not written: the write would be lost. */
TEST_F_TIMEOUT(engine_migration, registers_in_a_stream_are_not_written, MIG_TIMEOUT)
{
	u32 value = 1;

	ASSERT_EQ(0, mig_set_state(self->a.pd.dev, SC, &self->save));
	ASSERT_EQ(0, mig_set_state(self->b.pd.dev, RES, &self->load));
	EXPECT_EQ(-1, pwrite(self->a.pd.fd, &value, 4, self->a.registers +
			     PRECOPY_ENGINE_INTERVAL_US));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(-1, pwrite(self->b.pd.fd, &value, 4, self->b.registers +
			     PRECOPY_ENGINE_INTERVAL_US));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(0, engine_read32(&self->a, PRECOPY_ENGINE_INTERVAL_US));
}

/* ------------------------------------------------------------------------ */
/* Initial data once more                                                   */

static struct vfio_precopy_info info_of(pair_t *p)
{
	struct vfio_precopy_info info = { .flags = ~0U };

	VFIO_ASSERT_EQ(mig_precopy_info(p->save, &info), 0);
	return info;
}

/* As a guest's driver does it when it has to begin anew */
static void clear(struct __test_metadata *_metadata, struct engine *a)
{
	engine_write32(a, PRECOPY_ENGINE_CTRL, PRECOPY_ENGINE_CTRL_CLEAR);
	memset(a->pd.shadow, 0, MEMORY);
	EXPECT_EQ(0, engine_read32(a, PRECOPY_ENGINE_CTRL));
}

static void finish_cleared(struct __test_metadata *_metadata, pair_t *p)
{
	ASSERT_EQ(0, mig_set_state(p->a.pd.dev, PCP, NULL));
	vmm_finish(_metadata, p);
	EXPECT_EQ(0, precopy_differ(&p->a.pd, p->a.pd.shadow));
	EXPECT_EQ(0, precopy_differ(&p->b.pd, p->a.pd.shadow));
}

/* A kernel without MIG_PRECOPY_INFOv2 reports no restart, which these tests are not about. */
static void opt_in(struct __test_metadata *_metadata, struct engine *e)
{
	if (mig_kernel_has_info_v2(e->pd.dev))
		ASSERT_EQ(0, mig_precopy_v2_enable(e->pd.dev));
}

TEST_F_TIMEOUT(engine_migration, clearing_restarts_initial_data, MIG_TIMEOUT)
{
	u64 startups = precopy_stat(bdfs[1], "startups");
	struct engine *a = &self->a;

	if (!mig_kernel_has_info_v2(a->pd.dev))
		SKIP(return, "the kernel has no MIG_PRECOPY_INFOv2");
	ASSERT_EQ(0, mig_precopy_v2_enable(a->pd.dev));
	precopy_fill(&a->pd, 0, 500, 3, BY_MMAP);
	vmm_precopy(_metadata, self);
	EXPECT_EQ(0, info_of(self).flags);
	EXPECT_EQ(0, info_of(self).initial_bytes);
	clear(_metadata, a);
	EXPECT_EQ(VFIO_PRECOPY_INFO_REINIT, info_of(self).flags);
	EXPECT_LT(0, info_of(self).initial_bytes);
	EXPECT_EQ(0, info_of(self).dirty_bytes);
	precopy_fill(&a->pd, 10, 5, 4, BY_MMAP);
	ASSERT_EQ(-ENOMSG, send_device(self));
	EXPECT_EQ(0, info_of(self).flags);
	/* And once more */
	clear(_metadata, a);
	EXPECT_EQ(VFIO_PRECOPY_INFO_REINIT, info_of(self).flags);
	precopy_fill(&a->pd, 20, 5, 5, BY_MMAP);
	ASSERT_EQ(-ENOMSG, send_device(self));
	finish_cleared(_metadata, self);
	EXPECT_EQ(startups + 3, precopy_stat(bdfs[1], "startups"));
}

/* Without the opting in, and before all initial data is read, it is dirty data. */
TEST_F_TIMEOUT(engine_migration, clearing_without_restart, MIG_TIMEOUT)
{
	struct mig_stream stream = {};
	struct engine *a = &self->a;
	ssize_t ret;

	precopy_fill(&a->pd, 0, 500, 3, BY_MMAP);
	vmm_precopy(_metadata, self);
	clear(_metadata, a);
	EXPECT_EQ(0, info_of(self).flags);
	EXPECT_EQ(0, info_of(self).initial_bytes);
	EXPECT_LT(0, info_of(self).dirty_bytes);
	finish_cleared(_metadata, self);

	/* The other way, with the first half of the initial data read */
	mig_close_fd(self->save);
	mig_close_fd(self->load);
	precopy_reset(&a->pd);
	precopy_reset(&self->b.pd);
	opt_in(_metadata, a);
	precopy_fill(&a->pd, 0, 500, 3, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(a->pd.dev, PC, &self->save));
	ASSERT_EQ(0, mig_set_state(self->b.pd.dev, RES, &self->load));
	do {
		ret = mig_stream_read(&stream, self->save, CHUNK);
		ASSERT_LT(0, ret);
	} while (stream.len < 250 * PRECOPY_PAGE);
	clear(_metadata, a);
	EXPECT_EQ(0, info_of(self).flags);
	precopy_fill(&a->pd, 480, 3, 4, BY_MMAP);
	ASSERT_EQ(0, mig_write_all(self->load, stream.data, stream.len, CHUNK, NULL));
	mig_stream_free(&stream);
	finish_cleared(_metadata, self);
}

/* Outside of a migration, and where a write of a register is refused */
TEST_F_TIMEOUT(engine_migration, clearing, MIG_TIMEOUT)
{
	struct engine *a = &self->a;
	u32 bit = PRECOPY_ENGINE_CTRL_CLEAR;

	precopy_fill(&a->pd, 1, 100, 3, BY_MMAP);
	precopy_fill(&a->pd, 1000, 24, 3, BY_PWRITE);
	clear(_metadata, a);
	EXPECT_EQ(0, precopy_differ(&a->pd, a->pd.shadow));
	precopy_fill(&a->pd, 50, 1, 3, BY_MMAP);
	/* The ring is another bit, and stays as it was written with this one. */
	engine_ring(a, RAM - PRECOPY_PAGE, 16);
	engine_write32(a, PRECOPY_ENGINE_CTRL, bit | PRECOPY_ENGINE_CTRL_RING);
	memset(a->pd.shadow, 0, MEMORY);
	EXPECT_EQ(PRECOPY_ENGINE_CTRL_RING, engine_read32(a, PRECOPY_ENGINE_CTRL));
	EXPECT_EQ(0, precopy_differ(&a->pd, a->pd.shadow));
	precopy_fill(&a->pd, 50, 1, 4, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(a->pd.dev, SC, &self->save));
	EXPECT_EQ(-1, pwrite(a->pd.fd, &bit, 4, a->registers + PRECOPY_ENGINE_CTRL));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(0, precopy_differ(&a->pd, a->pd.shadow));
}

/* A function level reset ends the migration: there is no REINIT of it. */
TEST_F_TIMEOUT(engine_migration, flr_ends_a_migration, MIG_TIMEOUT)
{
	struct engine *a = &self->a;
	char byte;

	opt_in(_metadata, a);
	precopy_fill(&a->pd, 0, 500, 3, BY_MMAP);
	vmm_precopy(_metadata, self);
	vfio_pci_config_writew(a->pd.dev, ENGINE_CAP_EXP + PCI_EXP_DEVCTL,
			       PCI_EXP_DEVCTL_BCR_FLR);
	memset(a->pd.shadow, 0, MEMORY);
	EXPECT_EQ(RUN, mig_get_state(a->pd.dev));
	EXPECT_EQ(-1, read(self->save, &byte, 1));
	EXPECT_EQ(ENODEV, errno);
	EXPECT_EQ(0, precopy_differ(&a->pd, a->pd.shadow));
}

/* ------------------------------------------------------------------------ */
/* Models                                                                   */

/* A device of one model refuses the stream of the other; it works after a reset. */
TEST(models_do_not_mix)
{
	static const char * const models[] = { "memory", "engine" };
	struct mig_stream stream = {};
	struct precopy_dev a, b;
	int i, fd;

	ASSERT_LE(2, nr_bdfs);
	for (i = 0; i < 2; i++) {
		precopy_open_model(&a, bdfs[0], NULL, MEMORY, models[i]);
		precopy_open_model(&b, bdfs[1], NULL, MEMORY, models[!i]);
		precopy_fill(&a, 3, 1, 1, BY_MMAP);
		ASSERT_EQ(0, mig_save(a.dev, &stream));
		ASSERT_EQ(0, mig_set_state(b.dev, RES, &fd));
		EXPECT_EQ(-EINVAL, mig_write_all(fd, stream.data, stream.len,
						 CHUNK, NULL));
		close(fd);
		mig_stream_free(&stream);
		precopy_reset(&b);
		precopy_fill(&b, 1, 1, 1, BY_MMAP);
		EXPECT_EQ(0, precopy_differ(&b, b.shadow));
		precopy_close(&a);
		precopy_close(&b);
	}
}

/* The model is settled while the device is open. */
TEST(model_is_chosen_while_closed)
{
	struct precopy_dev a;
	char model[32];

	EXPECT_EQ(-EINVAL, precopy_sysfs_write(bdfs[0], "model", "motor"));
	precopy_open_model(&a, bdfs[0], NULL, MEMORY, "engine");
	EXPECT_EQ(-EBUSY, precopy_sysfs_write(bdfs[0], "model", "memory"));
	precopy_close(&a);
	EXPECT_EQ(0, precopy_sysfs_write(bdfs[0], "model", "memory"));
	ASSERT_EQ(0, precopy_sysfs_read(bdfs[0], "model", model, sizeof(model)));
	EXPECT_STREQ("memory", model);
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
