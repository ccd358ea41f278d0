// SPDX-License-Identifier: GPL-2.0-only
/* Frames over a socket: see channel.h. */
#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "channel.h"
#include "util.h"

/* Time to wait until the peer has noticed that this side has given up */
#define LINGER_NS	(300 * NS_PER_MS)

void channel_init(struct channel *ch, int fd, uint64_t timeout_ns)
{
	*ch = (struct channel){
		.fd = fd,
		.timeout_ns = timeout_ns,
		.patience_ns = timeout_ns,
		.pulse_end = -1,
	};
	pthread_mutex_init(&ch->lock, NULL);
	ch->heard = now_ns();
	ch->spoke = ch->heard;
}

static int connection_gone(void)
{
	if (errno == ECONNRESET || errno == EPIPE || !errno)
		return fail(ST_PEER, "the other side has closed the connection");
	return fail_errno(ST_PEER, "the connection is lost");
}

int channel_check(struct channel *ch)
{
	if (now_ns() - ch->heard < ch->timeout_ns)
		return ST_OK;
	return fail(ST_PEER, "nothing was heard from the other side for %.1f s",
		    ch->timeout_ns / 1e9);
}

/* --- Sending --------------------------------------------------------------------- */

/* The peer accepts no data: wait, and receive its frames in the meantime */
static int wait_to_send(struct channel *ch, uint64_t deadline)
{
	struct pollfd pfd = { .fd = ch->fd, .events = POLLOUT };
	uint64_t now = now_ns();
	int ret;

	if (now >= deadline)
		return fail(ST_PEER, "the other side accepts no data");
	/* Data without a buffer would end each wait at once, so do not wait for it */
	if (ch->busy && !channel_is_full(ch))
		pfd.events |= POLLIN;
	wait_fds(&pfd, 1, min_u64(deadline, now + 100 * NS_PER_MS));
	ret = interrupted();
	if (!ret && ch->busy)
		ret = ch->busy(ch->context);
	return ret;
}

/* The peer may have sent a reason before it closed the connection */
static int cannot_send(struct channel *ch)
{
	int error = errno, ret, nr = 0;
	bool complete;

	do {
		ret = channel_receive(ch, &complete);
	} while (!ret && complete && ++nr < 100 * CHANNEL_BATCH);
	errno = error;
	return ret ?: connection_gone();
}

static ssize_t send_some(struct channel *ch, const uint8_t *header, const void *payload,
			 uint32_t len, size_t done)
{
	struct iovec iov[2] = {
		{ (void *)header, FRAME_HEADER_LEN },
		{ (void *)payload, len },
	};
	struct msghdr msg = { .msg_iov = iov, .msg_iovlen = 2 };

	if (done >= FRAME_HEADER_LEN) {
		msg.msg_iov = iov + 1;
		msg.msg_iovlen = 1;
		done -= FRAME_HEADER_LEN;
	}
	msg.msg_iov[0].iov_base = (uint8_t *)msg.msg_iov[0].iov_base + done;
	msg.msg_iov[0].iov_len -= done;
	return sendmsg(ch->fd, &msg, MSG_DONTWAIT | MSG_NOSIGNAL);
}

static int send_frame(struct channel *ch, enum frame_type type, const void *payload,
		      uint32_t len)
{
	uint64_t moved = now_ns();
	uint8_t header[FRAME_HEADER_LEN];
	size_t done = 0;
	ssize_t n;
	int ret;

	frame_encode(header, type, payload, len, ch->sent++);
	while (done < FRAME_HEADER_LEN + len) {
		n = send_some(ch, header, payload, len, done);
		if (n > 0) {
			done += n;
			moved = now_ns();
			continue;
		}
		if (n < 0 && errno != EAGAIN && errno != EINTR)
			return cannot_send(ch);
		/*
		 * A peer that sends frames is busy and not dead, so wait longer, but with a
		 * limit
		 */
		ret = wait_to_send(ch, min_u64(max_u64(moved, ch->heard) + ch->timeout_ns,
					       moved + ch->patience_ns));
		if (ret)
			return ret;
	}
	ch->spoke = now_ns();
	return ST_OK;
}

int channel_send(struct channel *ch, enum frame_type type, const void *payload, uint32_t len)
{
	int ret;

	pthread_mutex_lock(&ch->lock);
	ret = send_frame(ch, type, payload, len);
	pthread_mutex_unlock(&ch->lock);
	return ret;
}

/* In the middle of a frame the peer takes this for invalid data, which it refuses as well */
void channel_send_failure(struct channel *ch, const char *why)
{
	uint32_t len = strnlen(why, FRAME_MAX_SMALL);
	uint8_t header[FRAME_HEADER_LEN];

	if (ch->peer_failed || ch->fd < 0)
		return;
	frame_encode(header, FRAME_ERROR, why, len, ch->sent++);
	send_some(ch, header, why, len, 0);
}

void channel_linger(struct channel *ch)
{
	struct pollfd pfd = { .fd = ch->fd, .events = POLLIN };
	uint64_t deadline = now_ns() + LINGER_NS;
	char sink[4096];

	if (ch->peer_failed || shutdown(ch->fd, SHUT_WR))
		return;
	while (now_ns() < deadline && wait_fds(&pfd, 1, deadline) >= 0)
		if (pfd.revents && recv(ch->fd, sink, sizeof(sink), MSG_DONTWAIT) <= 0)
			return;
}

/* --- Signs of life ------------------------------------------------------------------ */

/* POLLOUT means that a large part of the socket's buffer is free, not only one byte */
bool channel_writable(const struct channel *ch)
{
	struct pollfd pfd = { .fd = ch->fd, .events = POLLOUT };

	return poll(&pfd, 1, 0) == 1 && pfd.revents & POLLOUT;
}

/* Called with the lock held. The main thread will notice a failure. */
static void send_sign(struct channel *ch)
{
	uint8_t header[FRAME_HEADER_LEN];
	ssize_t n;

	frame_encode(header, FRAME_KEEPALIVE, NULL, 0, ch->sent);
	n = send_some(ch, header, NULL, 0, 0);
	if (n <= 0)
		return;
	ch->sent++;
	ch->spoke = now_ns();
	/* This was never observed, but the peer could not decode the following frames */
	if (n < FRAME_HEADER_LEN)
		shutdown(ch->fd, SHUT_RDWR);
}

/* Signals stay blocked in this thread, because the main thread handles them */
static void *pulse(void *arg)
{
	struct channel *ch = arg;
	struct pollfd pfd = { .fd = ch->pulse_end, .events = POLLIN };
	int ms = max_u64(ch->pulse_ns / NS_PER_MS / 2, 1);

	while (!poll(&pfd, 1, ms)) {
		/* If the lock is held, a frame is being sent, and no KEEPALIVE is needed */
		if (pthread_mutex_trylock(&ch->lock))
			continue;
		if (now_ns() - ch->spoke >= ch->pulse_ns && channel_writable(ch))
			send_sign(ch);
		pthread_mutex_unlock(&ch->lock);
	}
	return NULL;
}

int channel_pulse_begin(struct channel *ch, uint64_t bears_ns)
{
	ch->pulse_end = eventfd(0, EFD_CLOEXEC);
	if (ch->pulse_end < 0)
		return fail_errno(ST_FAILED, "an eventfd cannot be created");
	ch->pulse_ns = max_u64(min_u64(bears_ns, ch->timeout_ns) / 5, 10 * NS_PER_MS);
	if (!pthread_create(&ch->pulse, NULL, pulse, ch))
		return ST_OK;
	ch->pulse_ns = 0;
	close(ch->pulse_end);
	return fail(ST_FAILED, "a thread cannot be started");
}

void channel_pulse_end(struct channel *ch)
{
	if (!ch->pulse_ns)
		return;
	eventfd_write(ch->pulse_end, 1);
	pthread_join(ch->pulse, NULL);
	close(ch->pulse_end);
	ch->pulse_ns = 0;
}

/* --- Receiving -------------------------------------------------------------------- */

static int bad(const char *why)
{
	return fail(ST_PEER, "the other side sent invalid data: %s", why);
}

static int peer_error(struct channel *ch)
{
	char text[FRAME_MAX_SMALL + 1];

	ch->peer_failed = true;
	frame_get_text(ch->small, ch->frame.length, text, sizeof(text));
	return fail(ST_PEER, "the other side gave up: %s", text);
}

bool channel_is_full(struct channel *ch)
{
	if (ch->have < FRAME_HEADER_LEN || ch->payload || !ch->frame.length)
		return false;
	ch->payload = ch->frame.type == FRAME_DATA ? ch->place(ch->context) : ch->small;
	return !ch->payload;
}

static int header_complete(struct channel *ch)
{
	const char *why = frame_decode(ch->header, ch->received, &ch->frame);

	if (!why && ch->only && ch->frame.type != ch->only && ch->frame.type != FRAME_ERROR)
		return fail(ST_PEER, "the other side has sent %s instead of %s",
			    frame_name(ch->frame.type), frame_name(ch->only));
	if (!why && ch->frame.type == FRAME_DATA && !ch->place)
		why = "it sends data to the source";
	if (why)
		return bad(why);
	ch->received++;
	return ST_OK;
}

/* Call recv() once: returns the number of bytes, 0 if there is no data, -1 with errno */
static ssize_t take(struct channel *ch)
{
	size_t at = ch->have, want = FRAME_HEADER_LEN - at;
	uint8_t *to = ch->header + at;
	ssize_t n;

	if (ch->have >= FRAME_HEADER_LEN) {
		at -= FRAME_HEADER_LEN;
		to = ch->payload + at;
		want = ch->frame.length - at;
	}
	n = recv(ch->fd, to, want, MSG_DONTWAIT);
	if (n > 0)
		ch->have += n;
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return 0;
	if (!n)
		errno = 0;
	return n ?: -1;
}

static bool whole(const struct channel *ch)
{
	return ch->have >= FRAME_HEADER_LEN && ch->have == FRAME_HEADER_LEN + ch->frame.length;
}

static int frame_complete(struct channel *ch)
{
	const char *why = frame_check(&ch->frame, ch->payload);

	ch->have = 0;
	ch->heard = now_ns();
	if (why)
		return bad(why);
	return ch->frame.type == FRAME_ERROR ? peer_error(ch) : ST_OK;
}

int channel_receive(struct channel *ch, bool *complete)
{
	ssize_t n;
	int ret;

	*complete = false;
	if (!ch->have)
		ch->payload = NULL;
	while (!channel_is_full(ch)) {
		if (whole(ch)) {
			*complete = true;
			return frame_complete(ch);
		}
		n = take(ch);
		if (n < 0)
			return connection_gone();
		if (!n)
			return ST_OK;
		if (ch->have == FRAME_HEADER_LEN) {
			ret = header_complete(ch);
			if (ret)
				return ret;
		}
	}
	return ST_OK;
}

int channel_expect(struct channel *ch, enum frame_type type, uint64_t deadline)
{
	struct pollfd pfd = { .fd = ch->fd, .events = POLLIN };
	bool complete = false;
	int ret;

	ch->only = type;
	while (!complete) {
		ret = interrupted() ?: channel_receive(ch, &complete);
		if (ret)
			return ret;
		if (complete)
			break;
		if (now_ns() >= deadline)
			return fail(ST_PEER, "the other side has not sent %s in time",
				    frame_name(type));
		wait_fds(&pfd, 1, deadline);
	}
	ch->only = 0;
	return ST_OK;
}
