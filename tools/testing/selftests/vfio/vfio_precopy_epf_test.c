// SPDX-License-Identifier: GPL-2.0-only
/*
 * The registers of pci-epf-test in the model "engine": each command, what it answers
 * and does to memory, and what it does beside the other queues. Registers are at the
 * places that Linux's driver pci_endpoint_test has for them.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/sizes.h>
#include <linux/types.h>

#include <libvfio.h>
#include <libvfio/mig_device.h>
#include <libvfio/precopy_engine.h>

#include <libvfio/mig_harness.h>

#define MEMORY		SZ_4M
#define RAM		SZ_4M
/* Source and destination in the memory, and its end */
#define FROM		0UL
#define TO		SZ_2M
#define END		(ENGINE_IOVA + RAM)
#define RAISED		PRECOPY_EPF_STATUS_IRQ_RAISED

/* Sizes that the kernel's selftest of pci_endpoint_test tries */
static const u32 sizes[] = { 1, 1024, 1025, 1024000, 1024001 };

static char **bdfs;
static int nr_bdfs;

FIXTURE(epf) {
	struct engine e;
	u8 *want;	/* what the memory must hold */
};

FIXTURE_VARIANT(epf) {
	const char *mode;
};

FIXTURE_VARIANT_ADD(epf, vfio_type1_iommu) { .mode = MODE_VFIO_TYPE1_IOMMU };
FIXTURE_VARIANT_ADD(epf, vfio_type1v2_iommu) { .mode = MODE_VFIO_TYPE1V2_IOMMU };
FIXTURE_VARIANT_ADD(epf, iommufd) { .mode = MODE_IOMMUFD };

FIXTURE_SETUP(epf)
{
	const char *missing = mig_mode_missing(bdfs[0], variant->mode);
	u64 page;

	if (missing)
		SKIP(return, "%s", missing);
	engine_open(&self->e, bdfs[0], variant->mode, MEMORY, RAM);
	self->want = malloc_assert(RAM);
	for (page = 0; page < RAM / PRECOPY_PAGE; page++)
		precopy_pattern(self->want + page * PRECOPY_PAGE, page, 1);
	memcpy(self->e.ram, self->want, RAM);
}

FIXTURE_TEARDOWN(epf)
{
	if (!self->want)
		return;
	EXPECT_EQ(0, memcmp(self->want, self->e.ram, RAM));
	engine_close(&self->e);
	free(self->want);
}

/* Pages that a range touches, which is how often the engine has to reach for it */
static u64 pages_of(u64 at, u64 len)
{
	return (at + len - 1) / PRECOPY_PAGE - at / PRECOPY_PAGE + 1;
}

/* ------------------------------------------------------------------------ */
/* Registers                                                                */

TEST_F_TIMEOUT(epf, registers, MIG_TIMEOUT)
{
	struct engine *e = &self->e;
	unsigned int at;

	/* All 0 at first, but for what is offered: any alignment, and MSI-X */
	for (at = 0; at < 0x100; at += 4)
		EXPECT_EQ(at == 0x30 ? 5 : 0, engine_read32(e, at));
	engine_write32(e, 0x30, ~0U);
	EXPECT_EQ(5, engine_read32(e, 0x30));
	/* The driver's test of a BAR */
	engine_write32(e, 0x00, 0xa0a0a0a0);
	EXPECT_EQ(0xa0a0a0a0, engine_read32(e, 0x00));
	/* Addresses are not where a register of 8 bytes usually is */
	engine_write32(e, 0x0c, 0x11223344);
	engine_write32(e, 0x10, 0x55667788);
	engine_write32(e, 0x14, 0x99aabbcc);
	EXPECT_EQ(0x1122334400000000, engine_read64(e, 0x08));
	EXPECT_EQ(0x99aabbcc55667788, engine_read64(e, 0x10));
	EXPECT_EQ(0x5566778811223344, engine_read64(e, PRECOPY_EPF_SRC));
}

/* ------------------------------------------------------------------------ */
/* Commands                                                                 */

TEST_F_TIMEOUT(epf, read, MIG_TIMEOUT)
{
	struct engine *e = &self->e;
	struct engine_epf epf = { .command = PRECOPY_EPF_COMMAND_READ };
	u64 steps;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		epf.src = ENGINE_IOVA + 77 * i;
		epf.size = sizes[i];
		epf.checksum = engine_crc32(self->want + 77 * i, sizes[i]);
		steps = precopy_stat(bdfs[0], "dma_steps");
		EXPECT_EQ(PRECOPY_EPF_STATUS_READ_SUCCESS, engine_epf_run(e, &epf));
		EXPECT_EQ(pages_of(epf.src, epf.size),
			  precopy_stat(bdfs[0], "dma_steps") - steps);
		epf.checksum ^= 1U << i;
		EXPECT_EQ(PRECOPY_EPF_STATUS_READ_FAIL, engine_epf_run(e, &epf));
		/* The driver's, not the device's */
		EXPECT_EQ(epf.checksum, engine_read32(e, PRECOPY_EPF_CHECKSUM));
	}
	EXPECT_EQ(0, engine_read64(e, PRECOPY_ENGINE_BYTES));
}

TEST_F_TIMEOUT(epf, write, MIG_TIMEOUT)
{
	struct engine_epf epf = { .command = PRECOPY_EPF_COMMAND_WRITE };
	struct engine *e = &self->e;
	u64 bytes = 0, at = TO;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		at += 4091;
		epf.dst = ENGINE_IOVA + at;
		epf.size = sizes[i];
		EXPECT_EQ(PRECOPY_EPF_STATUS_WRITE_SUCCESS, engine_epf_run(e, &epf));
		EXPECT_EQ(engine_crc32(e->ram + at, epf.size),
			  engine_read32(e, PRECOPY_EPF_CHECKSUM));
		if (sizes[i] > 64)
			EXPECT_NE(0, memcmp(self->want + at, e->ram + at, sizes[i]));
		/* Nothing else was written */
		memcpy(self->want + at, e->ram + at, sizes[i]);
		EXPECT_EQ(0, memcmp(self->want, e->ram, RAM));
		bytes += sizes[i];
	}
	EXPECT_EQ(bytes, engine_read64(e, PRECOPY_ENGINE_BYTES));
}

TEST_F_TIMEOUT(epf, copy, MIG_TIMEOUT)
{
	struct engine_epf epf = { .command = PRECOPY_EPF_COMMAND_COPY };
	struct engine *e = &self->e;
	u64 steps;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		epf.src = ENGINE_IOVA + FROM + 1000 * i;
		epf.dst = ENGINE_IOVA + TO + 33 * i;
		epf.size = sizes[i];
		memcpy(self->want + TO + 33 * i, self->want + 1000 * i, sizes[i]);
		steps = precopy_stat(bdfs[0], "dma_steps");
		EXPECT_EQ(PRECOPY_EPF_STATUS_COPY_SUCCESS, engine_epf_run(e, &epf));
		EXPECT_EQ(0, memcmp(self->want, e->ram, RAM)) TH_LOG("copy %u", i);
		EXPECT_LE(pages_of(epf.src, epf.size),
			  precopy_stat(bdfs[0], "dma_steps") - steps);
	}
	/* The sum is that of READ and WRITE */
	EXPECT_EQ(0, engine_read32(e, PRECOPY_EPF_CHECKSUM));
}

TEST_F_TIMEOUT(epf, nothing_to_move, MIG_TIMEOUT)
{
	struct engine_epf epf = { .command = PRECOPY_EPF_COMMAND_READ, .checksum = ~0U };
	struct engine *e = &self->e;

	EXPECT_EQ(PRECOPY_EPF_STATUS_READ_SUCCESS, engine_epf_run(e, &epf));
	epf.checksum = 0;
	EXPECT_EQ(PRECOPY_EPF_STATUS_READ_FAIL, engine_epf_run(e, &epf));
	epf.command = PRECOPY_EPF_COMMAND_WRITE;
	EXPECT_EQ(PRECOPY_EPF_STATUS_WRITE_SUCCESS, engine_epf_run(e, &epf));
	EXPECT_EQ(~0U, engine_read32(e, PRECOPY_EPF_CHECKSUM));
	epf.command = PRECOPY_EPF_COMMAND_COPY;
	EXPECT_EQ(PRECOPY_EPF_STATUS_COPY_SUCCESS, engine_epf_run(e, &epf));
}

/* ------------------------------------------------------------------------ */
/* Errors                                                                   */

TEST_F_TIMEOUT(epf, addresses_that_are_none, MIG_TIMEOUT)
{
	const struct { struct engine_epf epf; u32 status; } bad[] = {
		{ { PRECOPY_EPF_COMMAND_READ, ENGINE_NOWHERE, 0, 10 },
		  PRECOPY_EPF_STATUS_READ_FAIL | PRECOPY_EPF_STATUS_SRC_INVALID },
		{ { PRECOPY_EPF_COMMAND_READ, END - 8192, 0, 8193 },
		  PRECOPY_EPF_STATUS_READ_FAIL | PRECOPY_EPF_STATUS_SRC_INVALID },
		{ { PRECOPY_EPF_COMMAND_READ, ~0ULL, 0, 2 },
		  PRECOPY_EPF_STATUS_READ_FAIL | PRECOPY_EPF_STATUS_SRC_INVALID },
		{ { PRECOPY_EPF_COMMAND_WRITE, 0, ENGINE_NOWHERE, 10 },
		  PRECOPY_EPF_STATUS_WRITE_FAIL | PRECOPY_EPF_STATUS_DST_INVALID },
		{ { PRECOPY_EPF_COMMAND_WRITE, 0, ~0ULL - 100, 102 },
		  PRECOPY_EPF_STATUS_WRITE_FAIL | PRECOPY_EPF_STATUS_DST_INVALID },
		{ { PRECOPY_EPF_COMMAND_COPY, ENGINE_NOWHERE, ENGINE_IOVA, 10 },
		  PRECOPY_EPF_STATUS_COPY_FAIL | PRECOPY_EPF_STATUS_SRC_INVALID },
		{ { PRECOPY_EPF_COMMAND_COPY, ENGINE_IOVA, ENGINE_NOWHERE, 10 },
		  PRECOPY_EPF_STATUS_COPY_FAIL | PRECOPY_EPF_STATUS_DST_INVALID },
		{ { PRECOPY_EPF_COMMAND_COPY, ENGINE_IOVA, END - 5000, 5001 },
		  PRECOPY_EPF_STATUS_COPY_FAIL | PRECOPY_EPF_STATUS_DST_INVALID },
	};
	u64 errors = precopy_stat(bdfs[0], "dma_errors");
	struct engine *e = &self->e;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(bad[i].status, engine_epf_run(e, &bad[i].epf))
			TH_LOG("command %u", i);
	}
	EXPECT_EQ(errors + ARRAY_SIZE(bad), precopy_stat(bdfs[0], "dma_errors"));
	/* What is there was copied */
	memcpy(self->want + RAM - 5000, self->want, 5000);
}

/* What is no command, and what is not offered, as CAPS says */
TEST_F_TIMEOUT(epf, commands_that_are_none, MIG_TIMEOUT)
{
	struct engine_epf epf = {
		.src = ENGINE_IOVA, .dst = ENGINE_IOVA, .size = 4096,
		.irq_type = PRECOPY_EPF_IRQ_MSIX, .irq_number = 3,
	};
	struct engine *e = &self->e;
	unsigned int bit;

	engine_irqs_enable(e);
	for (bit = 6; bit < 10; bit++) {
		epf.command = 1U << bit;
		EXPECT_EQ(RAISED | 2U << bit * 2 >> 2, engine_epf_run(e, &epf));
		EXPECT_EQ(1, engine_irqs(e, 2));
	}
	for (; bit < 32; bit++) {
		epf.command = 1U << bit;
		engine_write32(e, PRECOPY_EPF_STATUS, ~0U);
		EXPECT_EQ(0, engine_epf_run(e, &epf));
	}
	epf.command = PRECOPY_EPF_COMMAND_WRITE | PRECOPY_EPF_COMMAND_COPY;
	EXPECT_EQ(0, engine_epf_run(e, &epf));
	epf.command = PRECOPY_EPF_COMMAND_WRITE;
	epf.irq_type = 3;
	EXPECT_EQ(0, engine_epf_run(e, &epf));
	EXPECT_EQ(0, engine_irqs(e, 2));
}

/* ------------------------------------------------------------------------ */
/* Interrupts                                                               */

TEST_F_TIMEOUT(epf, interrupts, MIG_TIMEOUT)
{
	struct engine_epf epf = { .irq_type = PRECOPY_EPF_IRQ_MSIX };
	struct engine *e = &self->e;
	u64 dropped = precopy_stat(bdfs[0], "irqs_dropped");
	unsigned int i;
	u32 n;

	engine_irqs_enable(e);
	for (i = 0; i < 3; i++) {
		epf.command = 1U << i;
		for (n = 1; n <= PRECOPY_ENGINE_VECTORS; n++) {
			epf.irq_number = n;
			EXPECT_EQ(RAISED, engine_epf_run(e, &epf));
			EXPECT_EQ(1, engine_irqs(e, n - 1));
		}
	}
	/* Vectors that are none, and kinds of interrupts that the device has not */
	for (n = 0; n <= PRECOPY_ENGINE_VECTORS + 1; n += PRECOPY_ENGINE_VECTORS + 1) {
		epf.irq_number = n;
		EXPECT_EQ(0, engine_epf_run(e, &epf));
	}
	epf.irq_number = 1;
	for (i = 0; i < 3; i++) {
		epf.command = 1U << i;
		epf.irq_type = i % 2;
		EXPECT_EQ(0, engine_epf_run(e, &epf));
	}
	for (i = 0; i < PRECOPY_ENGINE_VECTORS; i++)
		EXPECT_EQ(0, engine_irqs(e, i));
	EXPECT_EQ(dropped, precopy_stat(bdfs[0], "irqs_dropped"));
}

/* Whoever gets the interrupt finds data and status there, good or bad. */
TEST_F_TIMEOUT(epf, interrupt_at_the_end, MIG_TIMEOUT)
{
	struct engine_epf epf = {
		.command = PRECOPY_EPF_COMMAND_COPY, .src = ENGINE_IOVA,
		.dst = ENGINE_IOVA + TO, .size = SZ_1M,
		.irq_type = PRECOPY_EPF_IRQ_MSIX, .irq_number = 8,
	};
	struct engine *e = &self->e;

	engine_irqs_enable(e);
	engine_epf_start(e, &epf);
	EXPECT_EQ(1, engine_irqs_wait(e, 7));
	EXPECT_EQ(RAISED | PRECOPY_EPF_STATUS_COPY_SUCCESS,
		  engine_read32(e, PRECOPY_EPF_STATUS));
	EXPECT_EQ(0, engine_read32(e, PRECOPY_EPF_COMMAND));
	memcpy(self->want + TO, self->want, SZ_1M);
	EXPECT_EQ(0, memcmp(self->want, e->ram, RAM));
	epf.dst = ENGINE_NOWHERE;
	engine_epf_start(e, &epf);
	EXPECT_EQ(1, engine_irqs_wait(e, 7));
	EXPECT_EQ(RAISED | PRECOPY_EPF_STATUS_COPY_FAIL | PRECOPY_EPF_STATUS_DST_INVALID,
		  engine_read32(e, PRECOPY_EPF_STATUS));
}

/* ------------------------------------------------------------------------ */
/* Beside the rest of the engine                                            */

/* Nothing happens without bus master, and nothing is forgotten. */
TEST_F_TIMEOUT(epf, bus_master, MIG_TIMEOUT)
{
	struct engine_epf epf = {
		.command = PRECOPY_EPF_COMMAND_COPY, .src = ENGINE_IOVA,
		.dst = ENGINE_IOVA + TO, .size = PRECOPY_PAGE,
	};
	struct engine *e = &self->e;

	engine_set_master(e, false);
	engine_epf_start(e, &epf);
	usleep(50 * 1000);
	EXPECT_EQ(PRECOPY_EPF_COMMAND_COPY, engine_read32(e, PRECOPY_EPF_COMMAND));
	EXPECT_EQ(0, memcmp(self->want, e->ram, RAM));
	/* Locked */
	engine_write32(e, PRECOPY_EPF_SIZE, 1);
	engine_write64(e, PRECOPY_EPF_DST, ENGINE_IOVA);
	engine_write32(e, PRECOPY_EPF_COMMAND, PRECOPY_EPF_COMMAND_WRITE);
	engine_set_master(e, true);
	EXPECT_EQ(PRECOPY_EPF_STATUS_COPY_SUCCESS, engine_epf_wait(e));
	memcpy(self->want + TO, self->want, PRECOPY_PAGE);
}

/*
 * The queues take turns: neither a command without end nor an interval of an hour
 * keeps the endpoint's command waiting, and it does not stop them.
 */
TEST_F_TIMEOUT(epf, turns, MIG_TIMEOUT)
{
	const u64 at = RAM - PRECOPY_PAGE;
	struct engine_command command = {
		.op = PRECOPY_ENGINE_OP_STAMP, .dst = ENGINE_IOVA + at - PRECOPY_PAGE,
		.len = PRECOPY_PAGE,
	};
	struct engine_epf epf = {
		.command = PRECOPY_EPF_COMMAND_COPY, .src = ENGINE_IOVA,
		.dst = ENGINE_IOVA + TO, .size = SZ_1M,
	};
	struct engine *e = &self->e;
	struct precopy_engine_desc *ring = engine_ring(e, at, 8);
	u64 done;

	engine_start(e, &command);
	done = engine_read64(e, PRECOPY_ENGINE_CMD_DONE);
	EXPECT_EQ(PRECOPY_EPF_STATUS_COPY_SUCCESS, engine_epf_run(e, &epf));
	/* 256 pages, and as many steps of the command but for the first and the last */
	EXPECT_LE(done + 254, engine_read64(e, PRECOPY_ENGINE_CMD_DONE));
	ring[0].op = PRECOPY_ENGINE_OP_FENCE;
	ring[0].dst = ENGINE_IOVA + RAM - 64;
	ring[0].seq = 99;
	engine_epf_start(e, &epf);
	engine_write32(e, PRECOPY_ENGINE_RING_TAIL, 1);
	EXPECT_TRUE(engine_wait_head(e, 1));
	EXPECT_EQ(PRECOPY_EPF_STATUS_COPY_SUCCESS, engine_epf_wait(e));

	engine_write32(e, PRECOPY_ENGINE_INTERVAL_US, ~0U);
	EXPECT_EQ(PRECOPY_EPF_STATUS_COPY_SUCCESS, engine_epf_run(e, &epf));
	engine_write32(e, PRECOPY_ENGINE_CMD_START, 0);
	EXPECT_EQ(-ECANCELED, engine_wait(e));
	EXPECT_EQ(99, *(u64 *)(e->ram + RAM - 64));
	memcpy(self->want + TO, self->want, SZ_1M);
	memcpy(self->want + at - PRECOPY_PAGE, e->ram + at - PRECOPY_PAGE,
	       2 * PRECOPY_PAGE);
}

/* A reset ends a command: nothing is stored any more, and nothing is raised. */
TEST_F_TIMEOUT(epf, reset, MIG_TIMEOUT)
{
	struct engine_epf epf = {
		.command = PRECOPY_EPF_COMMAND_WRITE, .dst = ENGINE_IOVA, .size = RAM,
		.irq_type = PRECOPY_EPF_IRQ_MSIX, .irq_number = 1, .checksum = 5,
	};
	struct engine *e = &self->e;
	u8 *after = malloc_assert(RAM);
	unsigned int at;

	engine_irqs_enable(e);
	engine_write32(e, PRECOPY_EPF_MAGIC, 7);
	engine_epf_start(e, &epf);
	precopy_reset(&e->pd);
	memcpy(after, e->ram, RAM);
	for (at = 0; at < PRECOPY_EPF_CAPS; at += 4)
		EXPECT_EQ(0, engine_read32(e, at));
	engine_set_master(e, true);
	usleep(20 * 1000);
	EXPECT_EQ(0, memcmp(after, e->ram, RAM));
	EXPECT_GE(1, engine_irqs(e, 0));
	/* It works as before */
	epf.size = PRECOPY_PAGE;
	EXPECT_EQ(RAISED | PRECOPY_EPF_STATUS_WRITE_SUCCESS, engine_epf_run(e, &epf));
	EXPECT_EQ(engine_crc32(e->ram, PRECOPY_PAGE),
		  engine_read32(e, PRECOPY_EPF_CHECKSUM));
	memcpy(self->want, e->ram, RAM);
	free(after);
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
