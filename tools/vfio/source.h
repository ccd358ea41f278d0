/* SPDX-License-Identifier: GPL-2.0-only */
/* A device that saves: pre-copy, the moment to stop, and the rest. */
#ifndef VFIO_MIGRATE_SOURCE_H
#define VFIO_MIGRATE_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "device.h"
#include "policy.h"
#include "transfer.h"

/**
 * struct sink - where the stream goes; all return a status, and say why
 * @push: @len bytes of the stream, FRAME_MAX_DATA at most
 * @mark: all initial bytes were pushed
 * @idle: there is nothing to push; return after a while
 * @look: fill in what the other side knows: acked, startup, in_flight
 */
struct sink {
	int (*push)(struct sink *sink, const void *data, uint32_t len);
	int (*mark)(struct sink *sink);
	int (*idle)(struct sink *sink, uint64_t ns);
	void (*look)(struct sink *sink, struct outlook *look);
};

/**
 * struct source - a device that saves
 * @dev: the device, open
 * @flags: its migration features
 * @home: the state that it is in, and goes back to: RUNNING or STOP
 * @policy: when to stop it
 * @sink: where to
 * @precopy: whether to use pre-copy, if it can
 * @limit: bandwidth that is not to be exceeded
 * @t: what is measured
 * @data_fd: the saving data fd, -1 if none
 * @buf: FRAME_MAX_DATA bytes
 * @marked: the sink was told that the initial bytes are over
 * @data_size: of the whole stream, estimated before it began
 * @active_ns: spent with reading and sending
 * @bandwidth: measured
 * @dirty: measured
 * @dirty_last: dirty_bytes at the last look
 * @dirty_sent: bytes sent since, that were counted in it
 * @looked: when that was
 * @watch: does pre-copy get anywhere?
 */
struct source {
	const struct device	*dev;
	uint64_t		flags;
	uint32_t		home;
	const struct policy	*policy;
	struct sink		*sink;
	bool			precopy;
	struct limit		limit;
	struct transfer		t;
	int			data_fd;
	uint8_t			*buf;
	bool			marked;
	uint64_t		data_size;
	uint64_t		active_ns;
	struct rate		bandwidth;
	struct rate		dirty;
	uint64_t		dirty_last;
	uint64_t		dirty_sent;
	uint64_t		looked;
	struct progress_watch	watch;
};

/* Look at the device, and refuse one that cannot save. */
int source_init(struct source *src, const struct device *dev);

/* The whole stream. Afterwards the device stands still in STOP_COPY. */
int source_run(struct source *src);

/* Back to where it was; ST_STUCK if it cannot. */
int source_restore(struct source *src);

/* It has moved: it is left in STOP. */
void source_retire(struct source *src);

#endif /* VFIO_MIGRATE_SOURCE_H */
