// SPDX-License-Identifier: GPL-2.0-only
/*
 * The command "receive". The device runs only after the source has promised not to resume.
 * After any earlier failure the device is reset.
 */
#include <string.h>
#include <unistd.h>

#include "channel.h"
#include "endpoint.h"
#include "greet.h"
#include "keep.h"
#include "migration.h"
#include "progress.h"
#include "send.h"
#include "target.h"
#include "transfer.h"
#include "util.h"

/* Interval of the progress reports to the source, in time and in bytes */
#define STATUS_NS	(100 * NS_PER_MS)
#define STATUS_BYTES	MIB
/* Number of timeouts for which a source may send only KEEPALIVE */
#define USELESS_TIMES	30

/**
 * struct receiver - the receiving side
 * @ch: the connection
 * @target: the device
 * @received: number of bytes of the stream received
 * @mark: the mark that is to be acknowledged; id 0 if there is none
 * @last_mark: id of the last mark received
 * @told: number of written bytes in the last progress report
 * @told_at: time of the last progress report
 * @useful: time at which the source last sent anything but KEEPALIVE, or the
 *	target was last busy
 * @arrival: display of progress
 * @ended: true after FRAME_END was received
 * @ready: true after FRAME_READY was sent
 * @going: true after FRAME_GO was received
 */
struct receiver {
	struct channel		ch;
	struct target		target;
	uint64_t		received;
	struct frame_position	mark;
	uint32_t		last_mark;
	uint64_t		told;
	uint64_t		told_at;
	uint64_t		useful;
	struct arrival		arrival;
	bool			ended;
	bool			ready;
	bool			going;
};

static int unexpected(const struct receiver *rcv, const char *why)
{
	return fail(ST_PEER, "the other side sends %s: %s", frame_name(rcv->ch.frame.type), why);
}

/* --- What comes ----------------------------------------------------------------------- */

static int take_mark(struct receiver *rcv)
{
	struct frame_position pos;

	frame_get_position(rcv->ch.payload, &pos);
	if (rcv->ended || pos.bytes != rcv->received || pos.id <= rcv->last_mark)
		return unexpected(rcv, "not expected at this point");
	rcv->mark = pos;
	rcv->last_mark = pos.id;
	return ST_OK;
}

static int take_end(struct receiver *rcv)
{
	struct frame_position pos;

	frame_get_position(rcv->ch.payload, &pos);
	if (rcv->ended || pos.bytes != rcv->received)
		return unexpected(rcv, "something is missing");
	rcv->ended = true;
	target_ask(&rcv->target, TARGET_COMMIT);
	return ST_OK;
}

static int take_frame(struct receiver *rcv)
{
	if (rcv->ch.frame.type != FRAME_KEEPALIVE)
		rcv->useful = now_ns();
	switch (rcv->ch.frame.type) {
	case FRAME_DATA:
		if (rcv->ended)
			return unexpected(rcv, "the stream has ended");
		rcv->received += rcv->ch.frame.length;
		target_push(&rcv->target, rcv->ch.frame.length);
		return ST_OK;
	case FRAME_MARK:
		return take_mark(rcv);
	case FRAME_KEEPALIVE:
		return ST_OK;
	case FRAME_END:
		return take_end(rcv);
	case FRAME_GO:
		if (!rcv->ready || rcv->going)
			return unexpected(rcv, "the device is not ready");
		rcv->going = true;
		target_ask(&rcv->target, TARGET_RUN);
		return ST_OK;
	default:
		return unexpected(rcv, "a target does not expect it");
	}
}

static int take_frames(struct receiver *rcv)
{
	int ret, nr = 0;
	bool complete;

	do {
		ret = channel_receive(&rcv->ch, &complete);
		if (!ret && complete)
			ret = take_frame(rcv);
	} while (!ret && complete && !rcv->going && ++nr < CHANNEL_BATCH);
	/* The timeout does not apply while this side does not receive */
	if (channel_is_full(&rcv->ch))
		rcv->ch.heard = now_ns();
	return ret ?: channel_check(&rcv->ch);
}

static void *room(void *context)
{
	struct receiver *rcv = context;

	return target_room(&rcv->target);
}

/* --- What goes back ---------------------------------------------------------------------- */

static int send_position(struct receiver *rcv, enum frame_type type, uint64_t bytes, uint32_t id)
{
	struct frame_position pos = { .bytes = bytes, .id = id };
	uint8_t payload[FRAME_POSITION_LEN];

	frame_put_position(payload, &pos);
	return channel_send(&rcv->ch, type, payload, sizeof(payload));
}

static int tell_status(struct receiver *rcv, const struct target_view *view)
{
	uint8_t payload[FRAME_STATUS_LEN];
	struct frame_status status;
	uint64_t now = now_ns();

	if (now - rcv->told_at < STATUS_NS && view->written - rcv->told < STATUS_BYTES)
		return ST_OK;
	/* A source that is blocked in its driver does not receive; do not wait for it */
	if (!channel_writable(&rcv->ch))
		return ST_OK;
	rcv->told = view->written;
	rcv->told_at = now;
	target_status(&rcv->target, view, &status);
	progress_arrival(&rcv->arrival, view->written, status.remaining_ns);
	frame_put_status(payload, &status);
	return channel_send(&rcv->ch, FRAME_STATUS, payload, sizeof(payload));
}

static int tell(struct receiver *rcv, const struct target_view *view)
{
	int ret = tell_status(rcv, view);

	if (!ret && rcv->mark.id && view->written >= rcv->mark.bytes) {
		ret = send_position(rcv, FRAME_ACK, view->written, rcv->mark.id);
		rcv->mark.id = 0;
	}
	if (!ret && !rcv->ready && view->reached >= TARGET_COMMIT) {
		ret = send_position(rcv, FRAME_READY, view->written, 0);
		rcv->ready = true;
	}
	return ret;
}

/* --- All of it ------------------------------------------------------------------------------ */

/* The source will not resume, so its failures have no effect any more */
static int run(struct receiver *rcv)
{
	struct target_view view = { };
	int ret;

	for (;;) {
		ret = target_look(&rcv->target, &view);
		if (ret || view.reached == TARGET_RUN)
			break;
		target_wait(&rcv->target, -1, now_ns() + NS_PER_S);
	}
	if (ret)
		return ret;
	if (channel_send(&rcv->ch, FRAME_RUNNING, NULL, 0))
		warn("%s runs, but the source could not be told", rcv->target.dev->name);
	return ST_OK;
}

/* While the target waits for data, the source must send more than KEEPALIVE */
static int check_useful(struct receiver *rcv, const struct target_view *view)
{
	uint64_t limit = USELESS_TIMES * rcv->ch.timeout_ns;

	if (!view->idle || rcv->mark.id || (rcv->ended && !rcv->ready))
		rcv->useful = now_ns();
	if (now_ns() - rcv->useful < limit)
		return ST_OK;
	return fail(ST_PEER, "for %.1f s the other side has sent nothing but signs of life",
		    limit / 1e9);
}

static int serve(struct receiver *rcv)
{
	struct target_view view = { };
	int ret = ST_OK;

	rcv->useful = now_ns();
	while (!ret && !rcv->going) {
		ret = interrupted() ?: target_look(&rcv->target, &view) ?:
		      tell(rcv, &view) ?: check_useful(rcv, &view) ?: take_frames(rcv);
		if (!ret && !rcv->going)
			target_wait(&rcv->target, channel_is_full(&rcv->ch) ? -1 : rcv->ch.fd,
				    now_ns() + STATUS_NS);
	}
	progress_clear();
	return ret ?: run(rcv);
}

static int expect_hello(struct receiver *rcv, uint64_t timeout_ns, struct frame_hello *peer)
{
	int ret = channel_expect(&rcv->ch, FRAME_HELLO, now_ns() + timeout_ns);

	if (!ret)
		frame_get_hello(rcv->ch.payload, peer);
	return ret;
}

static int answer(struct receiver *rcv, const struct device *dev, const struct frame_hello *peer,
		  const struct options *opt)
{
	uint8_t payload[FRAME_HELLO_LEN];
	struct frame_hello self;

	describe_device(dev, opt->timeout_ns, &self);
	frame_put_hello(payload, &self);
	return channel_send(&rcv->ch, FRAME_HELLO, payload, sizeof(payload)) ?:
	       check_devices(peer, &self) ?:
	       channel_pulse_begin(&rcv->ch, peer->timeout_ms * NS_PER_MS);
}

static int check_target(const struct device *dev)
{
	char why[256];
	uint64_t flags;

	if (!mig_obstacle(dev, &flags, why, sizeof(why)))
		return ST_OK;
	return fail(ST_DEVICE, "%s cannot migrate: %s", dev->name, why);
}

/* In a move, the process of the source prints all messages */
static int arrived(const struct receiver *rcv, uint64_t began, const struct options *opt)
{
	if (strcmp(opt->command, "receive"))
		return ST_OK;
	return arrival_summary(opt->command, rcv->target.dev->name, rcv->received,
			       now_ns() - began, opt->json);
}

/* @hello: the first frame of the source if it was already received, or NULL */
static int receive_from(const struct device *dev, int fd, const struct frame_hello *hello,
			const struct options *opt)
{
	struct frame_hello peer;
	struct receiver rcv = { };
	uint64_t began = now_ns();
	char why[256];
	int ret;

	channel_init(&rcv.ch, fd, opt->timeout_ns);
	rcv.ch.place = room;
	rcv.ch.context = &rcv;
	rcv.ch.received = hello ? 1 : 0;
	ret = check_target(dev);
	if (!ret && !hello)
		ret = expect_hello(&rcv, opt->timeout_ns, &peer);
	if (!ret)
		ret = answer(&rcv, dev, hello ?: &peer, opt);
	if (!ret) {
		ret = target_begin(&rcv.target, dev) ?: serve(&rcv);
		if (ret)
			target_abandon(&rcv.target);
		else
			target_end(&rcv.target);
	}
	channel_pulse_end(&rcv.ch);
	if (!ret)
		return arrived(&rcv, began, opt);
	snprintf(why, sizeof(why), "%s", ret > ST_SIGNAL ? "interrupted" : last_failure());
	channel_send_failure(&rcv.ch, why);
	channel_linger(&rcv.ch);
	return ret;
}

int receive_device(const struct device *dev, int fd, const struct options *opt)
{
	return receive_from(dev, fd, NULL, opt);
}

/* Close the listener when the source has connected, because there is only one device */
static int await_source(const struct options *opt, int *fd, struct frame_hello *hello)
{
	uint64_t deadline = now_ns() + opt->accept_timeout_ns;
	struct listener listener;
	int ret = endpoint_listen(opt->address, deadline, &listener);

	if (!ret)
		ret = greet_source(&listener, deadline, opt->timeout_ns, fd, hello);
	endpoint_close(&listener);
	return ret;
}

int cmd_receive(const struct options *opt)
{
	struct frame_hello hello;
	struct device dev;
	struct keep keep;
	int fd, ret;

	ret = device_find(&dev, opt->device) ?: device_open(&dev, opt->iommu, NULL) ?:
	      check_target(&dev) ?: keep_begin(&keep, &dev, opt);
	if (ret)
		return ret;
	ret = await_source(opt, &fd, &hello);
	if (!ret) {
		ret = receive_from(&dev, fd, &hello, opt);
		close(fd);
	}
	ret = keep_target(&keep, &dev, ret);
	device_close(&dev);
	return ret;
}
