/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A device that loads. Its write() may block for as long as it takes to start,
 * so a thread does whatever may: whoever feeds it stays able to talk, to give up
 * and to be interrupted.
 */
#ifndef VFIO_MIGRATE_TARGET_H
#define VFIO_MIGRATE_TARGET_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "device.h"
#include "frame.h"

/* How much may wait to be written: these, a frame each, and nothing else */
#define TARGET_SLOTS	4

enum target_step {
	TARGET_LOAD,	/* take data */
	TARGET_COMMIT,	/* that was all: RESUMING to STOP */
	TARGET_RUN,	/* STOP to RUNNING */
};

/**
 * struct target - a device that loads
 * @dev: the device
 * @data_fd: its resuming data fd
 * @event_fd: readable when something has changed
 * @thread: does what may block
 * @lock: protects what follows
 * @wake: there is something to do
 * @slot: buffers of FRAME_MAX_DATA bytes, a ring
 * @len: how much is in each
 * @pushed: slots filled so far
 * @done: slots written so far
 * @asked: how far it shall go
 * @reached: how far it is
 * @written: bytes that write() has returned for
 * @busy_since: when the call began that has not returned; 0 if there is none
 * @error: errno, once something has failed; nothing is done from then on
 */
struct target {
	const struct device	*dev;
	int			data_fd;
	int			event_fd;
	pthread_t		thread;
	pthread_mutex_t		lock;
	pthread_cond_t		wake;
	uint8_t			*slot[TARGET_SLOTS];
	uint32_t		len[TARGET_SLOTS];
	unsigned int		pushed;
	unsigned int		done;
	enum target_step	asked;
	enum target_step	reached;
	uint64_t		written;
	uint64_t		busy_since;
	int			error;
};

/* A consistent look at the thread's progress. */
struct target_view {
	enum target_step	reached;
	uint64_t		written;
	bool			blocked;
	bool			idle;	/* all that was pushed is written */
};

/* These say why they fail, and return a status. */
int target_begin(struct target *target, const struct device *dev);
int target_look(struct target *target, struct target_view *view);

/* A buffer of FRAME_MAX_DATA bytes, or NULL while all are full. */
void *target_room(struct target *target);
/* The buffer that target_room() gave has @len bytes. */
void target_push(struct target *target, uint32_t len);
void target_ask(struct target *target, enum target_step step);

/* What a FRAME_STATUS says. */
void target_status(struct target *target, const struct target_view *view,
		   struct frame_status *status);

/* Wait until something changes, @fd is readable (if not -1), or @deadline. */
void target_wait(struct target *target, int fd, uint64_t deadline);

/* After success. */
void target_end(struct target *target);
/*
 * After a failure: the device gets reset, so that nothing half loaded is left.
 * The thread may be caught in the device, and ends with the process.
 */
void target_abandon(struct target *target);

#endif /* VFIO_MIGRATE_TARGET_H */
