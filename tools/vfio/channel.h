/* SPDX-License-Identifier: GPL-2.0-only */
/* Frames over a socket. Every wait has a timeout. */
#ifndef VFIO_MIGRATE_CHANNEL_H
#define VFIO_MIGRATE_CHANNEL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "frame.h"

/**
 * struct channel - one end of a connection
 * @fd: the socket
 * @timeout_ns: time in ns for which the peer may send nothing, or accept no data
 * @patience_ns: time in ns for which a peer that sends frames may accept no data
 * @heard: time of the last reception
 * @spoke: time of the last transmission
 * @sent: sequence number of the next frame to send
 * @received: sequence number of the next frame to receive
 * @only: the only type of frame that is accepted now, apart from ERROR; 0 for
 *	any
 * @frame: decoded header of the frame that is being received, or was received
 *	last
 * @header: encoded header of that frame
 * @have: number of bytes of its header and payload received so far
 * @payload: buffer for its payload; NULL while there is no buffer
 * @small: payload of a frame other than DATA
 * @place: function that returns a buffer for the payload of a DATA frame, or
 *	NULL if there is none at present; if not set, DATA is an error
 * @busy: function that is called while a send waits for the peer; returns 0, or
 *	a status that ends the wait
 * @context: argument of @place and @busy
 * @peer_failed: true after the peer has sent FRAME_ERROR, so that nothing needs
 *	to be sent to it
 * @lock: protects @sent, @spoke, and the order of sent frames
 * @pulse: thread that sends KEEPALIVE frames, if @pulse_ns is not 0
 * @pulse_ns: longest time in ns for which this side sends nothing
 * @pulse_end: eventfd that ends the thread
 */
struct channel {
	int			fd;
	uint64_t		timeout_ns;
	uint64_t		patience_ns;
	uint64_t		heard;
	uint64_t		spoke;
	uint32_t		sent;
	uint32_t		received;
	enum frame_type		only;
	struct frame_header	frame;
	uint8_t			header[FRAME_HEADER_LEN];
	size_t			have;
	uint8_t			*payload;
	uint8_t			small[FRAME_MAX_SMALL];
	void			*(*place)(void *context);
	int			(*busy)(void *context);
	void			*context;
	bool			peer_failed;
	pthread_mutex_t		lock;
	pthread_t		pulse;
	uint64_t		pulse_ns;
	int			pulse_end;
};

/* Number of frames to receive before other work is done, because a peer may flood */
#define CHANNEL_BATCH	64

void channel_init(struct channel *ch, int fd, uint64_t timeout_ns);

/* All of these print the reason of a failure, and return a status. */

int channel_send(struct channel *ch, enum frame_type type, const void *payload, uint32_t len);

/*
 * Return true if a small frame can be sent without waiting. Optional frames are sent only
 * then, so that there is always space for a required frame.
 */
bool channel_writable(const struct channel *ch);

/*
 * Send a KEEPALIVE whenever this side has sent nothing for a fifth of the peer's timeout
 * @bears_ns, also while the main thread is in a system call of the device. Must be ended
 * before the socket is closed.
 */
int channel_pulse_begin(struct channel *ch, uint64_t bears_ns);
void channel_pulse_end(struct channel *ch);

/*
 * Receive available data without waiting. Sets @complete if a whole frame is in @frame and
 * @payload; the next call begins a new frame. A FRAME_ERROR of the peer is a failure.
 */
int channel_receive(struct channel *ch, bool *complete);

/* Return true if a buffer for payload is needed before more can be received. */
bool channel_is_full(struct channel *ch);

/* Fail if the peer has sent nothing for longer than its timeout. */
int channel_check(struct channel *ch);

/* Wait until @deadline for a frame of one type; any other frame is an error. */
int channel_expect(struct channel *ch, enum frame_type type, uint64_t deadline);

/* Send the reason of a failure to the peer, if it can still receive. */
void channel_send_failure(struct channel *ch, const char *why);
/* Call before closing, so that unread data of the peer does not discard the reason. */
void channel_linger(struct channel *ch);

#endif /* VFIO_MIGRATE_CHANNEL_H */
