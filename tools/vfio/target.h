/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A device that is loaded. Its write() may block until the device has started, so a
 * separate thread makes all blocking calls. The main thread can meanwhile communicate,
 * give up, and be interrupted.
 */
#ifndef VFIO_MIGRATE_TARGET_H
#define VFIO_MIGRATE_TARGET_H

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#include "device.h"
#include "frame.h"

/* Number of buffers for data to be written, each for one frame */
#define TARGET_SLOTS	4

enum target_step {
	TARGET_LOAD,	/* write data */
	TARGET_COMMIT,	/* the stream is complete: RESUMING to STOP */
	TARGET_RUN,	/* STOP to RUNNING */
};

/**
 * struct target - a device that is loaded
 * @dev: the device
 * @data_fd: resuming data fd
 * @event_fd: eventfd that is readable after a change
 * @thread: thread that makes blocking calls
 * @lock: protects all following members
 * @wake: signalled when the thread has work
 * @slot: ring of buffers of FRAME_MAX_DATA bytes
 * @len: number of bytes in each buffer
 * @pushed: number of buffers filled so far
 * @done: number of buffers written so far
 * @asked: step that the thread is to reach
 * @reached: step that the thread has reached
 * @written: number of bytes for which write() has returned
 * @busy_since: start time of the call in progress; 0 if there is none
 * @error: errno of the first failure; the thread does nothing after it
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

/* A consistent copy of the thread's progress */
struct target_view {
	enum target_step	reached;
	uint64_t		written;
	bool			blocked;
	bool			idle;	/* all pushed buffers are written */
};

/* These print the reason of a failure, and return a status. */
int target_begin(struct target *target, const struct device *dev);
int target_look(struct target *target, struct target_view *view);

/* Return a free buffer of FRAME_MAX_DATA bytes, or NULL if all are full. */
void *target_room(struct target *target);
/* Queue the buffer returned by target_room(), which contains @len bytes. */
void target_push(struct target *target, uint32_t len);
void target_ask(struct target *target, enum target_step step);

/* Fill in the payload of a FRAME_STATUS. */
void target_status(struct target *target, const struct target_view *view,
		   struct frame_status *status);

/* Wait until something changes, @fd is readable (if not -1), or @deadline. */
void target_wait(struct target *target, int fd, uint64_t deadline);

/* Release the target after success. */
void target_end(struct target *target);
/*
 * Reset the device after a failure, so that no partly loaded state is left. The thread may
 * be blocked in the driver, and ends with the process.
 */
void target_abandon(struct target *target);

#endif /* VFIO_MIGRATE_TARGET_H */
