// SPDX-License-Identifier: GPL-2.0-only
/* Frames over a socket: see channel.h. */
#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "channel.h"
#include "util.h"

/* How long to wait for a peer to notice that this side has given up */
#define LINGER_NS	(300 * NS_PER_MS)

void channel_init(struct channel *ch, int fd, uint64_t timeout_ns)
{
	*ch = (struct channel){
		.fd = fd,
		.timeout_ns = timeout_ns,
		.patience_ns = timeout_ns,
	};
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

/* The peer does not take any more: wait, and listen to it meanwhile */
static int wait_to_send(struct channel *ch, uint64_t deadline)
{
	struct pollfd pfd = { .fd = ch->fd, .events = POLLOUT };
	uint64_t now = now_ns();
	int ret;

	if (now >= deadline)
		return fail(ST_PEER, "the other side takes nothing");
	if (ch->busy)
		pfd.events |= POLLIN;
	wait_fds(&pfd, 1, min_u64(deadline, now + 100 * NS_PER_MS));
	ret = interrupted();
	if (!ret && ch->busy)
		ret = ch->busy(ch->context);
	return ret;
}

/* Before it closed the connection the peer may have said why */
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

int channel_send(struct channel *ch, enum frame_type type, const void *payload, uint32_t len)
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
		/* A peer that is heard is busy, not dead: up to a point */
		ret = wait_to_send(ch, min_u64(max_u64(moved, ch->heard) + ch->timeout_ns,
					       moved + ch->patience_ns));
		if (ret)
			return ret;
	}
	ch->spoke = now_ns();
	return ST_OK;
}

/* In the middle of a frame this is noise, which the peer refuses as well */
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

/* --- Receiving -------------------------------------------------------------------- */

static int bad(const char *why)
{
	return fail(ST_PEER, "what the other side sends cannot be used: %s", why);
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

	if (!why && ch->frame.type == FRAME_DATA && !ch->place)
		why = "it sends data to the source";
	if (why)
		return bad(why);
	ch->received++;
	return ST_OK;
}

/* One recv(): returns bytes, 0 if there is nothing now, -1 with errno */
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
	if (ch->frame.type != type)
		return fail(ST_PEER, "the other side has sent %s instead of %s",
			    frame_name(ch->frame.type), frame_name(type));
	return ST_OK;
}
