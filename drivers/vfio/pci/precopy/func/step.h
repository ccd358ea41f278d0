/* SPDX-License-Identifier: GPL-2.0-only */
/* Steps of the engine: what is executed at a time, at most one page of data. */
#ifndef PRECOPY_STEP_H
#define PRECOPY_STEP_H

#include <linux/types.h>

#include "engine.h"

struct precopy_device;

/**
 * enum precopy_step_kind - what a step does
 * @PRECOPY_STEP_JOB: the next part of a job
 * @PRECOPY_STEP_FETCH: read a descriptor
 * @PRECOPY_STEP_STATUS: write the status of a descriptor
 * @PRECOPY_STEP_EPF: the next part of a command of pci-epf-test
 */
enum precopy_step_kind {
	PRECOPY_STEP_JOB,
	PRECOPY_STEP_FETCH,
	PRECOPY_STEP_STATUS,
	PRECOPY_STEP_EPF,
};

/**
 * struct precopy_step - a step
 * @kind: what it does
 * @queue: where it comes from
 * @generation: generation of the device when the step began
 * @addr: address of the descriptor, for FETCH and STATUS
 * @status: errno to write, for STATUS
 * @error: errno of a test knob that the step ends with, or 0
 * @job: the job; result of FETCH. For EPF, its op is PRECOPY_EPF_COMMAND_*
 * @sum: CRC-32 of the bytes before @job.pos, for EPF; result: with those of the step
 * @invalid: result of EPF: status bit that tells which address was invalid, or 0
 * @len: result: bytes of the job that were done
 */
struct precopy_step {
	enum precopy_step_kind	kind;
	enum precopy_queue	queue;
	u64			generation;
	u64			addr;
	u32			status;
	u32			error;
	struct precopy_job	job;
	u32			sum;
	u32			invalid;
	size_t			len;
};

bool precopy_ring_valid(const struct precopy_ring *ring);
int precopy_job_check(const struct precopy_job *job, u64 memory_size);
int precopy_step_run(struct precopy_device *pcd, struct precopy_step *step,
		     void *buf);

#endif /* PRECOPY_STEP_H */
