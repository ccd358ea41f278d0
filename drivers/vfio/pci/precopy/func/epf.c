// SPDX-License-Identifier: GPL-2.0-only
/*
 * The registers of pci-epf-test at the start of BAR0. With them Linux's in-tree driver
 * pci_endpoint_test, and the kernel's kselftest for it, can be used in a guest.
 *
 * READ and WRITE move data between the guest's memory and a memory of the endpoint,
 * of which only the checksum is ever seen. So there is none: a step makes the checksum
 * of its page, and the data are gone with the step.
 */

#include <linux/array_size.h>
#include <linux/crc32.h>
#include <linux/errno.h>
#include <linux/limits.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/random.h>
#include <kunit/visibility.h>

#include "dma.h"
#include "engine.h"
#include "epf.h"
#include "irq.h"
#include "precopy.h"
#include "step.h"

/**
 * struct precopy_epf_answer - a command, and its status when it has ended
 * @command: PRECOPY_EPF_COMMAND_*
 * @done: bit of STATUS if there was no error, or 0
 * @failed: bit of STATUS if there was one, or 0
 */
struct precopy_epf_answer {
	u32	command;
	u32	done;
	u32	failed;
};

/* Commands that are not offered do nothing and have failed */
static const struct precopy_epf_answer precopy_epf_answers[] = {
	{ PRECOPY_EPF_COMMAND_RAISE_INTX, 0, 0 },
	{ PRECOPY_EPF_COMMAND_RAISE_MSI, 0, 0 },
	{ PRECOPY_EPF_COMMAND_RAISE_MSIX, 0, 0 },
	{ PRECOPY_EPF_COMMAND_READ, PRECOPY_EPF_STATUS_READ_SUCCESS,
	  PRECOPY_EPF_STATUS_READ_FAIL },
	{ PRECOPY_EPF_COMMAND_WRITE, PRECOPY_EPF_STATUS_WRITE_SUCCESS,
	  PRECOPY_EPF_STATUS_WRITE_FAIL },
	{ PRECOPY_EPF_COMMAND_COPY, PRECOPY_EPF_STATUS_COPY_SUCCESS,
	  PRECOPY_EPF_STATUS_COPY_FAIL },
	{ PRECOPY_EPF_COMMAND_DOORBELL_ON, PRECOPY_EPF_STATUS_DOORBELL_ON_FAIL, 0 },
	{ PRECOPY_EPF_COMMAND_DOORBELL_OFF, PRECOPY_EPF_STATUS_DOORBELL_OFF_FAIL, 0 },
	{ PRECOPY_EPF_COMMAND_SUBRANGE_SETUP,
	  PRECOPY_EPF_STATUS_SUBRANGE_SETUP_FAIL, 0 },
	{ PRECOPY_EPF_COMMAND_SUBRANGE_CLEAR,
	  PRECOPY_EPF_STATUS_SUBRANGE_CLEAR_FAIL, 0 },
};

static const struct precopy_epf_answer *precopy_epf_find(u32 command)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(precopy_epf_answers); i++)
		if (precopy_epf_answers[i].command == command)
			return &precopy_epf_answers[i];
	return NULL;
}

static bool precopy_epf_moves_data(u32 command)
{
	return command == PRECOPY_EPF_COMMAND_READ ||
	       command == PRECOPY_EPF_COMMAND_WRITE ||
	       command == PRECOPY_EPF_COMMAND_COPY;
}

/* --- Registers --------------------------------------------------------- */

/**
 * precopy_epf_caps - value of CAPS
 * @engine: the engine
 *
 * Return: what the device offers of pci-epf-test.
 */
u64 precopy_epf_caps(const struct precopy_engine *engine)
{
	return PRECOPY_EPF_CAPS_UNALIGNED | PRECOPY_EPF_CAPS_MSIX;
}

/**
 * precopy_epf_active - check whether a command is executed
 * @engine: the engine
 *
 * Context: state_lock held.
 * Return: true if so. The registers are locked then.
 */
bool precopy_epf_active(const struct precopy_engine *engine)
{
	return engine->state.epf.command;
}

/**
 * precopy_epf_start - write to COMMAND
 * @engine: the engine, which executes no command of pci-epf-test
 * @command: the value
 *
 * Context: state_lock held. The caller kicks the engine.
 */
void precopy_epf_start(struct precopy_engine *engine, u32 command)
{
	struct precopy_epf *epf = &engine->state.epf;

	if (!command)
		return;
	epf->status = 0;
	if (!precopy_epf_find(command) || epf->irq_type > PRECOPY_EPF_IRQ_MSIX)
		return;
	epf->command = command;
	epf->pos = 0;
	epf->sum = U32_MAX;
}

/**
 * precopy_epf_possible - check registers that a stream has
 * @epf: the registers
 *
 * A guest can set most of them to anything. What is checked is how far a command has
 * come.
 *
 * Return: true if a device can be in that state.
 */
bool precopy_epf_possible(const struct precopy_epf *epf)
{
	if (!epf->command)
		return !epf->pos && !epf->sum;
	if (!precopy_epf_find(epf->command) ||
	    epf->irq_type > PRECOPY_EPF_IRQ_MSIX)
		return false;
	if (epf->pos && (!precopy_epf_moves_data(epf->command) ||
			 epf->pos >= epf->size))
		return false;
	/* There is no sum yet, or never one */
	if (!epf->pos || epf->command == PRECOPY_EPF_COMMAND_COPY)
		return epf->sum == U32_MAX;
	return true;
}

/* --- Steps ------------------------------------------------------------- */

/**
 * precopy_epf_plan - fill in the next step of the command
 * @engine: the engine, which executes a command of pci-epf-test
 * @step: the step
 *
 * Context: state_lock held.
 */
void precopy_epf_plan(const struct precopy_engine *engine,
		      struct precopy_step *step)
{
	const struct precopy_epf *epf = &engine->state.epf;

	step->kind = PRECOPY_STEP_EPF;
	step->job = (struct precopy_job) {
		.op = epf->command,
		.src = epf->src,
		.dst = epf->dst,
		.len = epf->size,
		.pos = epf->pos,
	};
	step->sum = epf->sum;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_epf_plan);

/* Bytes that can be done at once: no address that is used crosses a page */
static size_t precopy_epf_len(const struct precopy_job *job)
{
	u64 len = min_t(u64, job->len - job->pos, PAGE_SIZE);

	if (job->op != PRECOPY_EPF_COMMAND_WRITE)
		len = min_t(u64, len,
			    PAGE_SIZE - offset_in_page(job->src + job->pos));
	if (job->op != PRECOPY_EPF_COMMAND_READ)
		len = min_t(u64, len,
			    PAGE_SIZE - offset_in_page(job->dst + job->pos));
	return len;
}

static bool precopy_epf_wraps(u64 start, u64 len)
{
	u64 last;

	return check_add_overflow(start, len - 1, &last);
}

static int precopy_epf_get(struct precopy_device *pcd,
			   struct precopy_step *step, void *buf)
{
	const struct precopy_job *job = &step->job;
	int ret = -EINVAL;

	if (!precopy_epf_wraps(job->src, job->len))
		ret = precopy_dma_read(pcd, job->src + job->pos, buf, step->len);
	if (ret)
		step->invalid = PRECOPY_EPF_STATUS_SRC_INVALID;
	return ret;
}

static int precopy_epf_put(struct precopy_device *pcd,
			   struct precopy_step *step, const void *buf)
{
	const struct precopy_job *job = &step->job;
	int ret = -EINVAL;

	if (!precopy_epf_wraps(job->dst, job->len))
		ret = precopy_dma_write(pcd, job->dst + job->pos, buf, step->len);
	if (ret)
		step->invalid = PRECOPY_EPF_STATUS_DST_INVALID;
	return ret;
}

/**
 * precopy_epf_run - execute a step of a command
 * @pcd: the device
 * @step: the step, of precopy_epf_plan()
 * @buf: buffer of PAGE_SIZE bytes
 *
 * A step that moves nothing is the last of its command.
 *
 * Context: between precopy_dma_begin() and precopy_dma_end(), no lock held; may sleep.
 * Return: 0, or an error of the DMA.
 */
int precopy_epf_run(struct precopy_device *pcd, struct precopy_step *step,
		    void *buf)
{
	const struct precopy_job *job = &step->job;
	int ret;

	if (!precopy_epf_moves_data(job->op) || !job->len)
		return 0;
	step->len = precopy_epf_len(job);
	if (job->op == PRECOPY_EPF_COMMAND_COPY)
		return precopy_epf_get(pcd, step, buf) ?:
		       precopy_epf_put(pcd, step, buf);
	if (job->op == PRECOPY_EPF_COMMAND_READ) {
		ret = precopy_epf_get(pcd, step, buf);
	} else {
		get_random_bytes(buf, step->len);
		ret = precopy_epf_put(pcd, step, buf);
	}
	if (!ret)
		step->sum = crc32_le(step->sum, buf, step->len);
	return ret;
}

/* A driver knows from STATUS in its handler that the interrupt is the device's */
static void precopy_epf_raise(struct precopy_engine *engine)
{
	struct precopy_epf *epf = &engine->state.epf;

	if (epf->irq_type != PRECOPY_EPF_IRQ_MSIX || !epf->irq_number ||
	    epf->irq_number > PRECOPY_ENGINE_VECTORS)
		return;
	epf->status |= PRECOPY_EPF_STATUS_IRQ_RAISED;
	precopy_irq_raise(engine, epf->irq_number - 1);
}

static void precopy_epf_end(struct precopy_engine *engine, bool failed)
{
	struct precopy_epf *epf = &engine->state.epf;
	const struct precopy_epf_answer *answer = precopy_epf_find(epf->command);

	if (epf->command == PRECOPY_EPF_COMMAND_READ)
		failed |= epf->sum != epf->checksum;
	if (epf->command == PRECOPY_EPF_COMMAND_WRITE && !failed)
		epf->checksum = epf->sum;
	epf->status |= failed ? answer->failed : answer->done;
	epf->command = 0;
	epf->pos = 0;
	epf->sum = 0;
	precopy_epf_raise(engine);
}

/**
 * precopy_epf_done - take note of what came of a step
 * @engine: the engine
 * @step: the step
 * @ret: result of precopy_epf_run()
 *
 * Context: state_lock held, and no reset since precopy_epf_plan().
 */
void precopy_epf_done(struct precopy_engine *engine,
		      const struct precopy_step *step, int ret)
{
	struct precopy_epf *epf = &engine->state.epf;

	lockdep_assert_held(&engine->pcd->state_lock);
	if (ret) {
		atomic64_inc(&engine->pcd->stats.dma_errors);
		epf->status = step->invalid;
		precopy_epf_end(engine, true);
		return;
	}
	epf->pos += step->len;
	epf->sum = step->sum;
	if (!step->len || epf->pos >= epf->size)
		precopy_epf_end(engine, false);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_epf_done);
