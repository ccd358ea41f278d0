/* SPDX-License-Identifier: GPL-2.0-only */
/* A device that is saved: pre-copy, the time of stopping, and the remaining data. */
#ifndef VFIO_MIGRATE_SOURCE_H
#define VFIO_MIGRATE_SOURCE_H

#include <stdbool.h>
#include <stdint.h>

#include "device.h"
#include "policy.h"
#include "transfer.h"

/**
 * struct sink - receiver of a stream; functions print the reason of a failure, and
 *		 return a status
 * @push: accept @len bytes of the stream, at most FRAME_MAX_DATA
 * @mark: record that all initial bytes were pushed
 * @idle: wait for at most @ns while there is nothing to push
 * @look: fill in the values that depend on the receiver: acked, startup, in_flight
 */
struct sink {
	int (*push)(struct sink *sink, const void *data, uint32_t len);
	int (*mark)(struct sink *sink);
	int (*idle)(struct sink *sink, uint64_t ns);
	void (*look)(struct sink *sink, struct outlook *look);
};

/**
 * struct source - a device that is saved
 * @dev: the device, open
 * @flags: migration features of the device
 * @home: state of the device before the migration, RUNNING or STOP, to which it
 *	returns
 * @policy: policy for the time of stopping
 * @sink: receiver of the stream
 * @precopy: true if pre-copy is to be used, if the device supports it
 * @limit: maximum bandwidth
 * @t: measurements of the transfer
 * @data_fd: saving data fd, -1 if none
 * @buf: buffer of FRAME_MAX_DATA bytes
 * @marked: true after the sink was told that all initial bytes were pushed
 * @data_size: size in bytes of the whole stream, estimated before its beginning
 * @active_ns: time in ns spent on reading and sending
 * @bandwidth: measured bandwidth
 * @dirty: measured rate of writes to the device
 * @dirty_last: value of dirty_bytes at the last query
 * @dirty_sent: number of bytes sent since the last query that it had counted as
 *	dirty
 * @looked: time of the last query
 * @watch: detection of pre-copy without progress
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

/* Query the device, and refuse one that cannot be saved. */
int source_init(struct source *src, const struct device *dev);

/* Transfer the whole stream. Afterwards the device is in STOP_COPY. */
int source_run(struct source *src);

/* Return the device to its former state; ST_STUCK if this fails. */
int source_restore(struct source *src);

/* Leave the device in STOP after it was moved. */
void source_retire(struct source *src);

#endif /* VFIO_MIGRATE_SOURCE_H */
