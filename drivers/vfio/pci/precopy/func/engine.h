/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The engine: a device that copies memory by DMA and raises interrupts. Its
 * registers are those of <linux/vfio_precopy_engine.h>.
 *
 * A worker executes the queues, a step of at most one page at a time. It looks for
 * a step under state_lock, executes it without any lock, and publishes what came of
 * it under state_lock again, unless there was a reset meanwhile. So neither a reset
 * nor an arc ever waits for a lock that is held during DMA: they wait for the step to
 * end (precopy_dma_idle()).
 */
#ifndef PRECOPY_ENGINE_H
#define PRECOPY_ENGINE_H

#include <linux/hrtimer.h>
#include <linux/types.h>
#include <linux/vfio_precopy_engine.h>
#include <linux/workqueue.h>

struct eventfd_ctx;
struct precopy_device;
struct precopy_rec_engine;
struct precopy_section;

/**
 * struct precopy_job - a command or descriptor that is executed
 * @op: operation, PRECOPY_ENGINE_OP_*
 * @flags: flags, PRECOPY_ENGINE_FLAG_*
 * @src: source, as in a descriptor
 * @dst: destination, as in a descriptor
 * @len: number of bytes
 * @seq: number of the guest's choice
 * @pos: number of bytes that are done
 */
struct precopy_job {
	u32	op;
	u32	flags;
	u64	src;
	u64	dst;
	u64	len;
	u64	seq;
	u64	pos;
};

/**
 * enum precopy_queue - where a step comes from
 * @PRECOPY_QUEUE_NONE: no step is executed
 * @PRECOPY_QUEUE_COMMAND: the command
 * @PRECOPY_QUEUE_RING: the ring
 * @PRECOPY_QUEUE_EPF: the register block of pci-epf-test
 */
enum precopy_queue {
	PRECOPY_QUEUE_NONE,
	PRECOPY_QUEUE_COMMAND,
	PRECOPY_QUEUE_RING,
	PRECOPY_QUEUE_EPF,
};

/**
 * enum precopy_ring_phase - what comes next for the descriptor at the ring's head
 * @PRECOPY_RING_FETCH: it is to be read
 * @PRECOPY_RING_EXECUTE: it is in @ring.job and to be executed
 * @PRECOPY_RING_COMPLETE: its status is to be written
 */
enum precopy_ring_phase {
	PRECOPY_RING_FETCH,
	PRECOPY_RING_EXECUTE,
	PRECOPY_RING_COMPLETE,
};

/**
 * struct precopy_ring - the ring of descriptors
 * @base: address of the first descriptor
 * @size: number of descriptors
 * @head: number of the descriptor that is executed next
 * @tail: number of the first descriptor that is not to be executed yet
 * @vector: vector that a descriptor with PRECOPY_ENGINE_FLAG_IRQ raises
 * @error: errno of what disabled the ring, or 0
 * @phase: what comes next for the descriptor at @head
 * @status: errno of the descriptor at @head, while PRECOPY_RING_COMPLETE
 * @job: the descriptor at @head, from PRECOPY_RING_EXECUTE on
 */
struct precopy_ring {
	u64			base;
	u32			size;
	u32			head;
	u32			tail;
	u32			vector;
	u32			error;
	enum precopy_ring_phase	phase;
	u32			status;
	struct precopy_job	job;
};

/**
 * struct precopy_command - the command in registers
 * @job: the command
 * @count: number of times to execute it; 0: until it is stopped
 * @done: number of times that it was executed
 * @vector: vector to raise at the end, or PRECOPY_ENGINE_NO_VECTOR
 * @error: errno of the last command, or 0
 * @active: true from the start of the command to its end
 */
struct precopy_command {
	struct precopy_job	job;
	u64			count;
	u64			done;
	u32			vector;
	u32			error;
	bool			active;
};

/**
 * struct precopy_epf - the register block of pci-epf-test
 * @magic: a number that the guest can store
 * @command: command that is executed, PRECOPY_EPF_COMMAND_*, or 0
 * @status: result of the last command, PRECOPY_EPF_STATUS_*
 * @size: number of bytes of READ, WRITE and COPY
 * @src: source of READ and COPY, an address in memory
 * @dst: destination of WRITE and COPY, an address in memory
 * @checksum: CRC-32 that the guest expects of READ, and that WRITE has stored
 * @irq_type: kind of the interrupt at the end of a command, PRECOPY_EPF_IRQ_*
 * @irq_number: number of its vector, from 1 on
 * @flags: flags, which have no effect
 * @pos: number of bytes that are done
 * @sum: CRC-32 of these bytes; 0 if there is no command
 */
struct precopy_epf {
	u32	magic;
	u32	command;
	u32	status;
	u32	size;
	u64	src;
	u64	dst;
	u32	checksum;
	u32	irq_type;
	u32	irq_number;
	u32	flags;
	u32	pos;
	u32	sum;
};

/**
 * struct precopy_engine_state - what a guest can set or see, and what migrates
 * @ctrl: control bits
 * @pending: bitmap of the vectors that were raised while the device was quiesced
 * @interval_us: least time from the start of one job to the next, us
 * @bytes: bytes stored to memory since the reset
 * @ring: the ring
 * @command: the command
 * @epf: the register block of pci-epf-test
 */
struct precopy_engine_state {
	u32			ctrl;
	u32			pending;
	u32			interval_us;
	u64			bytes;
	struct precopy_ring	ring;
	struct precopy_command	command;
	struct precopy_epf	epf;
};

/* Values of all registers after a reset */
#define PRECOPY_ENGINE_STATE_INITIAL {				\
	.ring.vector = PRECOPY_ENGINE_NO_VECTOR,		\
	.command.vector = PRECOPY_ENGINE_NO_VECTOR,		\
}

/**
 * struct precopy_engine - the engine of an open device
 * @pcd: the device; constant
 * @wq: workqueue of @work; constant
 * @work: the worker
 * @timer: timer that queues @work when the interval is over
 * @buf: a page for data in flight; owned by @work
 *
 * @state: registers and jobs. From here on protected by state_lock.
 * @loaded: registers and jobs of a stream that is being loaded; they become @state
 *	    when the load is complete, and are of no use if it fails
 * @trigger: eventfds of the vectors, with references, or NULL
 * @nr_vectors: number of vectors that the user has enabled; 0 if MSI-X is off
 * @open: true until the device is closed
 * @master: COMMAND's bus master bit is 1 and the function is in D0
 * @quiesced: true if the device starts no step and delivers no interrupt, because
 *	      of its migration state
 * @running: queue whose step is executed
 * @stop_command: true if the command is to end with the step that is executed
 * @stop_ring: true if the ring is to be disabled with the step that is executed
 * @last: queue of the last step; those after it come first in the next one
 * @next_start: time before which no job is to start
 * @nr_jobs: number of jobs that have begun since the reset, for a test knob
 */
struct precopy_engine {
	struct precopy_device		*pcd;
	struct workqueue_struct		*wq;
	struct work_struct		work;
	struct hrtimer			timer;
	void				*buf;

	/* Protected by state_lock */
	struct precopy_engine_state	state;
	struct precopy_engine_state	loaded;
	struct eventfd_ctx		*trigger[PRECOPY_ENGINE_VECTORS];
	u32				nr_vectors;
	bool				open;
	bool				master;
	bool				quiesced;
	enum precopy_queue		running;
	bool				stop_command;
	bool				stop_ring;
	enum precopy_queue		last;
	ktime_t				next_start;
	u64				nr_jobs;
};

/* func/engine_section.c */
extern const struct precopy_section precopy_engine_section;
#if IS_ENABLED(CONFIG_KUNIT)
void precopy_engine_encode(const struct precopy_engine_state *state,
			   struct precopy_rec_engine *rec);
int precopy_engine_parse(const struct precopy_rec_engine *rec, u64 memory_size,
			 struct precopy_engine_state *state);
#endif

/* func/engine.c */
int precopy_engine_create(struct precopy_device *pcd,
			  struct workqueue_struct *wq);
void precopy_engine_stop(struct precopy_engine *engine);
void precopy_engine_destroy(struct precopy_device *pcd);
void precopy_engine_clear(struct precopy_engine *engine);
void precopy_engine_reset(struct precopy_engine *engine);
void precopy_engine_reset_wait(struct precopy_device *pcd);
void precopy_engine_set_master(struct precopy_engine *engine, bool master);
void precopy_engine_kick(struct precopy_engine *engine);
void precopy_engine_end_command(struct precopy_engine *engine, u32 error);
void precopy_engine_stop_command(struct precopy_engine *engine);
void precopy_engine_stop_ring(struct precopy_engine *engine, u32 error);
int precopy_engine_quiesce(struct precopy_device *pcd, u64 generation);
int precopy_engine_resume(struct precopy_device *pcd, u64 generation);

#endif /* PRECOPY_ENGINE_H */
