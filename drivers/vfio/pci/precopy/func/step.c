// SPDX-License-Identifier: GPL-2.0-only
/*
 * Executing one step of the engine. What comes of it goes through a buffer of one
 * page, and no register is touched here.
 */

#include <linux/align.h>
#include <linux/errno.h>
#include <linux/log2.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/string.h>
#include <kunit/visibility.h>

#include "dma.h"
#include "epf.h"
#include "mem/memory.h"
#include "precopy.h"
#include "step.h"

#define PRECOPY_JOB_FLAGS	(PRECOPY_ENGINE_FLAG_SRC_BAR | \
				 PRECOPY_ENGINE_FLAG_DST_BAR | \
				 PRECOPY_ENGINE_FLAG_IRQ)

/* --- Checks ----------------------------------------------------------- */

/**
 * precopy_ring_valid - check whether a ring can be enabled
 * @ring: the ring
 *
 * Return: true if its place and size are possible.
 */
bool precopy_ring_valid(const struct precopy_ring *ring)
{
	u64 len = ring->size * sizeof(struct precopy_engine_desc), end;

	return is_power_of_2(ring->size) && ring->size >= 2 &&
	       ring->size <= PRECOPY_ENGINE_MAX_RING &&
	       IS_ALIGNED(ring->base, sizeof(struct precopy_engine_desc)) &&
	       !check_add_overflow(ring->base, len, &end);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_ring_valid);

static int precopy_job_check_range(u64 start, u64 len, bool bar,
				   u64 memory_size)
{
	u64 last;

	if (check_add_overflow(start, len - 1, &last))
		return -EINVAL;
	return bar && last >= memory_size ? -EINVAL : 0;
}

static int precopy_job_check_data(const struct precopy_job *job,
				  u64 memory_size, u64 alignment)
{
	if (!job->len || job->len > PRECOPY_ENGINE_MAX_LEN ||
	    job->pos >= job->len || !IS_ALIGNED(job->len, alignment) ||
	    !IS_ALIGNED(job->dst, alignment) ||
	    !IS_ALIGNED(job->pos, alignment))
		return -EINVAL;
	return precopy_job_check_range(job->dst, job->len,
				       job->flags & PRECOPY_ENGINE_FLAG_DST_BAR,
				       memory_size);
}

/**
 * precopy_job_check - check a job that a guest or a stream has made
 * @job: the job
 * @memory_size: size of the device's memory, bytes
 *
 * Return: 0, -EOPNOTSUPP for an unknown operation, or -EINVAL.
 */
int precopy_job_check(const struct precopy_job *job, u64 memory_size)
{
	bool dst_bar = job->flags & PRECOPY_ENGINE_FLAG_DST_BAR;

	if (job->flags & ~PRECOPY_JOB_FLAGS)
		return -EINVAL;
	switch (job->op) {
	case PRECOPY_ENGINE_OP_COPY:
		return precopy_job_check_data(job, memory_size, 1) ?:
		       precopy_job_check_range(job->src, job->len,
					       job->flags & PRECOPY_ENGINE_FLAG_SRC_BAR,
					       memory_size);
	case PRECOPY_ENGINE_OP_FILL:
		return precopy_job_check_data(job, memory_size, sizeof(u64));
	case PRECOPY_ENGINE_OP_STAMP:
		return precopy_job_check_data(job, memory_size, PAGE_SIZE);
	case PRECOPY_ENGINE_OP_FENCE:
		if (job->len || job->pos || !IS_ALIGNED(job->dst, sizeof(u64)))
			return -EINVAL;
		return precopy_job_check_range(job->dst, sizeof(u64), dst_bar,
					       memory_size);
	case PRECOPY_ENGINE_OP_IRQ:
		return job->len || job->pos ||
		       job->src >= PRECOPY_ENGINE_VECTORS ? -EINVAL : 0;
	default:
		return -EOPNOTSUPP;
	}
}
EXPORT_SYMBOL_IF_KUNIT(precopy_job_check);

/* --- Source and destination -------------------------------------------- */

static int precopy_step_get(struct precopy_device *pcd,
			    const struct precopy_step *step, void *buf,
			    size_t len)
{
	u64 src = step->job.src + step->job.pos;

	if (step->job.flags & PRECOPY_ENGINE_FLAG_SRC_BAR)
		return precopy_memory_copy_part(&pcd->memory, step->generation,
						src, buf, len);
	return precopy_dma_read(pcd, src, buf, len);
}

static int precopy_step_put(struct precopy_device *pcd,
			    const struct precopy_step *step, const void *buf,
			    size_t len)
{
	u64 dst = step->job.dst + step->job.pos;

	if (step->job.flags & PRECOPY_ENGINE_FLAG_DST_BAR)
		return precopy_memory_copy_in(&pcd->memory, step->generation,
					      dst, buf, len);
	return precopy_dma_write(pcd, dst, buf, len);
}

/* Bytes of a job that can be done at once: neither side crosses a page */
static size_t precopy_step_len(const struct precopy_job *job)
{
	u64 len = min_t(u64, job->len - job->pos, PAGE_SIZE);

	len = min_t(u64, len, PAGE_SIZE - offset_in_page(job->dst + job->pos));
	if (job->op == PRECOPY_ENGINE_OP_COPY)
		len = min_t(u64, len,
			    PAGE_SIZE - offset_in_page(job->src + job->pos));
	return len;
}

/* --- Operations ------------------------------------------------------- */

static void precopy_step_stamp(const struct precopy_job *job, __le64 *pair)
{
	size_t i;

	for (i = 0; i < PAGE_SIZE / sizeof(*pair); i += 2) {
		pair[i] = cpu_to_le64(job->seq);
		pair[i + 1] = cpu_to_le64(job->pos / PAGE_SIZE);
	}
}

static int precopy_step_job(struct precopy_device *pcd,
			    struct precopy_step *step, void *buf)
{
	const struct precopy_job *job = &step->job;
	int ret = 0;

	step->len = precopy_step_len(job);
	switch (job->op) {
	case PRECOPY_ENGINE_OP_COPY:
		ret = precopy_step_get(pcd, step, buf, step->len);
		break;
	case PRECOPY_ENGINE_OP_FILL:
		memset64(buf, (__force u64)cpu_to_le64(job->src),
			 step->len / sizeof(u64));
		break;
	case PRECOPY_ENGINE_OP_STAMP:
		precopy_step_stamp(job, buf);
		break;
	case PRECOPY_ENGINE_OP_FENCE:
		*(__le64 *)buf = cpu_to_le64(job->seq);
		return precopy_step_put(pcd, step, buf, sizeof(__le64));
	default:	/* IRQ: raised when the step is published */
		return 0;
	}
	return ret ?: precopy_step_put(pcd, step, buf, step->len);
}

static int precopy_step_fetch(struct precopy_device *pcd,
			      struct precopy_step *step, void *buf)
{
	const struct precopy_engine_desc *desc = buf;
	int ret = precopy_dma_read(pcd, step->addr, buf, sizeof(*desc));

	if (ret)
		return ret;
	step->job = (struct precopy_job) {
		.op = le32_to_cpu(desc->op),
		.flags = le32_to_cpu(desc->flags),
		.src = le64_to_cpu(desc->src),
		.dst = le64_to_cpu(desc->dst),
		.len = le64_to_cpu(desc->len),
		.seq = le64_to_cpu(desc->seq),
	};
	return 0;
}

static int precopy_step_status(struct precopy_device *pcd,
			       const struct precopy_step *step)
{
	__le32 status = cpu_to_le32(PRECOPY_ENGINE_DONE | step->status);

	return precopy_dma_write(pcd, step->addr +
				 offsetof(struct precopy_engine_desc, status),
				 &status, sizeof(status));
}

/**
 * precopy_step_run - execute a step
 * @pcd: the device
 * @step: the step; in a job that precopy_job_check() has found valid
 * @buf: buffer of PAGE_SIZE bytes
 *
 * Context: between precopy_dma_begin() and precopy_dma_end(), no lock held; may sleep.
 * Return: 0, -ECANCELED after a reset, or an error of the memory or of the DMA.
 */
int precopy_step_run(struct precopy_device *pcd, struct precopy_step *step,
		     void *buf)
{
	switch (step->kind) {
	case PRECOPY_STEP_FETCH:
		return precopy_step_fetch(pcd, step, buf);
	case PRECOPY_STEP_STATUS:
		return precopy_step_status(pcd, step);
	case PRECOPY_STEP_EPF:
		return precopy_epf_run(pcd, step, buf);
	default:
		return precopy_step_job(pcd, step, buf);
	}
}
