/* SPDX-License-Identifier: GPL-2.0-only */
/* Frames over a socket, with an end to every wait. */
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
 * @timeout_ns: how long a peer may be silent, or not take what is sent
 * @patience_ns: how long one that is heard may take nothing
 * @heard: when something last came
 * @spoke: when something was last sent
 * @sent: sequence number of the next frame to send
 * @received: of the next to come
 * @only: type of the one frame that may come now, beside ERROR; 0 for any
 * @frame: the one that is coming in, or has come
 * @header: its header
 * @have: bytes of header and payload that have come
 * @payload: where its payload goes; NULL while there is no place
 * @small: payload of any frame but DATA
 * @place: gives room for the payload of a DATA frame, or NULL if there is none
 *	   now; without it DATA is not expected
 * @busy: called while a send has to wait for the peer; 0 or a status to end with
 * @context: for these two
 * @peer_failed: it has sent FRAME_ERROR: there is no use in telling it anything
 * @lock: protects @sent, @spoke, and the order of what is sent
 * @pulse: thread that sends signs of life, if @pulse_ns is not 0
 * @pulse_ns: longest silence of this side in nanoseconds
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

/* How many frames to take in before looking at anything else: peers may flood */
#define CHANNEL_BATCH	64

void channel_init(struct channel *ch, int fd, uint64_t timeout_ns);

/* All of these say why they fail, and return a status. */

int channel_send(struct channel *ch, enum frame_type type, const void *payload, uint32_t len);

/*
 * Would a small frame go out without waiting? What may be left out is sent only then,
 * so that there is always room for a frame that must go out.
 */
bool channel_writable(const struct channel *ch);

/*
 * Send a KEEPALIVE whenever this side has sent nothing for a fifth of what the peer
 * bears, @bears_ns, also while the main thread is in a system call of the device. To
 * be ended before the socket is closed.
 */
int channel_pulse_begin(struct channel *ch, uint64_t bears_ns);
void channel_pulse_end(struct channel *ch);

/*
 * Take in what has come, without waiting. @complete: a whole frame is there, in
 * @frame and @payload; the next call begins a new one. A FRAME_ERROR of the peer
 * is a failure.
 */
int channel_receive(struct channel *ch, bool *complete);

/* Room for payload is needed before more can be taken in. */
bool channel_is_full(struct channel *ch);

/* Has the peer been silent for too long? */
int channel_check(struct channel *ch);

/* Wait for a frame of one type, until @deadline; others are an error. */
int channel_expect(struct channel *ch, enum frame_type type, uint64_t deadline);

/* Tell the peer why this side gives up, if it still listens. */
void channel_send_failure(struct channel *ch, const char *why);
/* Before closing after that: it must not be lost with what the peer still sends. */
void channel_linger(struct channel *ch);

#endif /* VFIO_MIGRATE_CHANNEL_H */
