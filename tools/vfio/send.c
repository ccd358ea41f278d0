// SPDX-License-Identifier: GPL-2.0-only
/*
 * The command "send". The source stays in pre-copy until the policy decides to stop it. It
 * can return to its former state until the target is told to run.
 */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "channel.h"
#include "endpoint.h"
#include "keep.h"
#include "migration.h"
#include "progress.h"
#include "send.h"
#include "source.h"
#include "util.h"

/**
 * struct sender - the sending side
 * @sink: must be the first member
 * @ch: the connection
 * @src: the device
 * @opt: options of the user
 * @round_trip_ns: measured round-trip time in ns
 * @pushed: number of bytes of the stream sent
 * @mark: id and position of the last mark; id 0 before the first
 * @acked: id of the last acknowledged mark
 * @status: last progress report of the target
 * @status_at: time of the last progress report
 * @answered: true if a progress report has arrived since the last mark was sent
 * @ready: true after FRAME_READY was received
 * @running: true after FRAME_RUNNING was received
 * @ended: true after FRAME_END was sent
 * @going: true after FRAME_GO was sent; the source must not resume any more
 */
struct sender {
	struct sink		sink;
	struct channel		ch;
	struct source		src;
	const struct options	*opt;
	uint64_t		round_trip_ns;
	uint64_t		pushed;
	struct frame_position	mark;
	uint32_t		acked;
	struct frame_status	status;
	uint64_t		status_at;
	bool			answered;
	bool			ready;
	bool			running;
	bool			ended;
	bool			going;
};

/* --- Listening --------------------------------------------------------------------- */

static int unexpected(const struct sender *snd, const char *why)
{
	return fail(ST_PEER, "the other side sends %s: %s", frame_name(snd->ch.frame.type), why);
}

static int take_status(struct sender *snd)
{
	struct frame_status status;

	frame_get_status(snd->ch.payload, &status);
	if (status.written > snd->pushed)
		return unexpected(snd, "it has written more than was sent");
	snd->status = status;
	snd->status_at = now_ns();
	snd->answered = snd->mark.id;
	return ST_OK;
}

static int take_ack(struct sender *snd)
{
	struct frame_position pos;

	frame_get_position(snd->ch.payload, &pos);
	/* Ignore the acknowledgment of a mark that was followed by another one */
	if (!pos.id || pos.id > snd->mark.id || pos.id < snd->acked)
		return unexpected(snd, "nothing to acknowledge");
	if (pos.id == snd->mark.id && pos.bytes < snd->mark.bytes)
		return unexpected(snd, "less than the mark has been written");
	if (pos.bytes > snd->pushed)
		return unexpected(snd, "it has written more than was sent");
	snd->acked = pos.id;
	snd->status.written = max_u64(snd->status.written, pos.bytes);
	return ST_OK;
}

static int take_ready(struct sender *snd)
{
	struct frame_position pos;

	frame_get_position(snd->ch.payload, &pos);
	if (!snd->ended || snd->ready)
		return unexpected(snd, "the stream has not ended");
	if (pos.bytes != snd->pushed)
		return unexpected(snd, "not all was written");
	snd->ready = true;
	return ST_OK;
}

static int take_frame(struct sender *snd)
{
	switch (snd->ch.frame.type) {
	case FRAME_KEEPALIVE:
		return ST_OK;
	case FRAME_STATUS:
		return take_status(snd);
	case FRAME_ACK:
		return take_ack(snd);
	case FRAME_READY:
		return take_ready(snd);
	case FRAME_RUNNING:
		if (!snd->going)
			return unexpected(snd, "it was not told to run");
		snd->running = true;
		return ST_OK;
	default:
		return unexpected(snd, "a source does not expect it");
	}
}

static int listen_to_peer(void *context)
{
	struct sender *snd = context;
	int ret, nr = 0;
	bool complete;

	do {
		ret = channel_receive(&snd->ch, &complete);
		if (!ret && complete)
			ret = take_frame(snd);
	} while (!ret && complete && !snd->running && ++nr < CHANNEL_BATCH);
	return ret ?: channel_check(&snd->ch);
}

/* --- As a sink ----------------------------------------------------------------------- */

static struct sender *to_sender(struct sink *sink)
{
	return (struct sender *)sink;
}

static int sender_push(struct sink *sink, const void *data, uint32_t len)
{
	struct sender *snd = to_sender(sink);
	int ret = channel_send(&snd->ch, FRAME_DATA, data, len);

	snd->pushed += len;
	return ret ?: listen_to_peer(snd);
}

static int send_position(struct sender *snd, enum frame_type type, uint32_t id)
{
	struct frame_position pos = { .bytes = snd->pushed, .id = id };
	uint8_t payload[FRAME_POSITION_LEN];

	frame_put_position(payload, &pos);
	return channel_send(&snd->ch, type, payload, sizeof(payload));
}

static int sender_mark(struct sink *sink)
{
	struct sender *snd = to_sender(sink);

	snd->mark.id++;
	snd->mark.bytes = snd->pushed;
	snd->answered = false;
	return send_position(snd, FRAME_MARK, snd->mark.id);
}

static int sender_idle(struct sink *sink, uint64_t ns)
{
	struct sender *snd = to_sender(sink);
	struct pollfd pfd = { .fd = snd->ch.fd, .events = POLLIN };
	uint64_t now = now_ns();

	if (snd->src.t.marked && snd->acked != snd->mark.id &&
	    now - snd->src.t.marked > snd->opt->ack_timeout_ns)
		return fail(ST_PEER, "the target has not started within %.0f s",
			    snd->opt->ack_timeout_ns / 1e9);
	wait_fds(&pfd, 1, now + ns);
	return listen_to_peer(snd);
}

/* The driver supports startups, but has not received the preface yet */
static bool has_to_hear(const struct frame_status *status)
{
	return status->flags & FRAME_STATUS_STARTUP &&
	       (status->phase == VFIO_PRECOPY_PHASE_NONE ||
		status->phase == VFIO_PRECOPY_PHASE_WAITING);
}

static void sender_look(struct sink *sink, struct outlook *look)
{
	struct sender *snd = to_sender(sink);
	const struct frame_status *status = &snd->status;

	look->acked = snd->mark.id && snd->acked == snd->mark.id;
	look->in_flight = snd->pushed - status->written;
	look->round_trip_ns = snd->round_trip_ns;
	look->answered = snd->answered && !has_to_hear(status);
	if (!(status->flags & FRAME_STATUS_STARTUP))
		return;
	look->startup_known = status->phase == VFIO_PRECOPY_PHASE_STARTING ||
			      status->phase == VFIO_PRECOPY_PHASE_READY;
	if (status->phase == VFIO_PRECOPY_PHASE_STARTING && status->remaining_ns != NEVER)
		look->startup_ns = status->remaining_ns -
				   min_u64(status->remaining_ns, now_ns() - snd->status_at);
	else
		look->startup_ns = status->phase == VFIO_PRECOPY_PHASE_STARTING ? NEVER : 0;
}

/* --- The end of it -------------------------------------------------------------------- */

/* All data is sent, so the remaining time is that of the target */
static void show_finish(struct sender *snd)
{
	struct transfer *t = &snd->src.t;
	struct outlook look = { };

	sender_look(&snd->sink, &look);
	t->in_flight = look.in_flight;
	t->startup_ns = look.startup_known && look.startup_ns && !snd->going ?
			look.startup_ns : NEVER;
	progress_show(t);
}

static int wait_until(struct sender *snd, const bool *flag, uint64_t deadline)
{
	int ret = ST_OK;

	while (!ret && !*flag) {
		/* After the target was told to run, signals must not interrupt this */
		if (!snd->going)
			ret = interrupted();
		show_finish(snd);
		if (!ret && now_ns() >= deadline)
			ret = fail(ST_PEER, "the other side takes too long");
		if (!ret)
			ret = sender_idle(&snd->sink, 20 * NS_PER_MS);
	}
	return ret;
}

/* The target has all data. After GO the target may run, and the source must not. */
static int hand_over(struct sender *snd)
{
	int ret;

	snd->src.t.phase = PHASE_FINISH;
	snd->src.t.pending = 0;
	ret = send_position(snd, FRAME_END, 0);
	snd->ended = true;
	if (!ret)
		ret = wait_until(snd, &snd->ready, now_ns() + snd->opt->ack_timeout_ns);
	/* After GO the target does not receive. Unread data could discard its answer. */
	channel_pulse_end(&snd->ch);
	if (!ret)
		ret = channel_send(&snd->ch, FRAME_GO, NULL, 0);
	if (ret)
		return ret;
	snd->going = true;
	/* The device may take long to run; the channel checks that the target is alive */
	ret = wait_until(snd, &snd->running, now_ns() + snd->opt->ack_timeout_ns);
	snd->src.t.ended = now_ns();
	if (!ret)
		return ST_OK;
	return fail(ST_UNKNOWN,
		    "%s stays stopped: the target was told to run, but does not answer",
		    snd->src.dev->name);
}

static int greet(struct sender *snd)
{
	struct frame_hello self, peer;
	uint8_t payload[FRAME_HELLO_LEN];
	uint64_t t0 = now_ns();
	int ret;

	describe_device(snd->src.dev, snd->opt->timeout_ns, &self);
	frame_put_hello(payload, &self);
	ret = channel_send(&snd->ch, FRAME_HELLO, payload, sizeof(payload)) ?:
	      channel_expect(&snd->ch, FRAME_HELLO, now_ns() + snd->opt->timeout_ns);
	if (ret)
		return ret;
	snd->round_trip_ns = now_ns() - t0;
	frame_get_hello(snd->ch.payload, &peer);
	snd->ch.busy = listen_to_peer;
	return check_devices(&self, &peer) ?:
	       channel_pulse_begin(&snd->ch, peer.timeout_ms * NS_PER_MS);
}

static int undo(struct sender *snd, int status)
{
	const struct source *src = &snd->src;
	char why[256];
	int ret;

	snprintf(why, sizeof(why), "%s", status > ST_SIGNAL ? "interrupted" : last_failure());
	channel_pulse_end(&snd->ch);
	channel_send_failure(&snd->ch, why);
	ret = source_restore(&snd->src);
	if (!ret)
		say("%s is %s, nothing of it is lost", src->dev->name,
		    mig_state_name(src->home));
	channel_linger(&snd->ch);
	return ret ?: status;
}

static int prepare(struct sender *snd, const struct device *dev, const struct options *opt)
{
	int ret;

	*snd = (struct sender){
		.sink = { sender_push, sender_mark, sender_idle, sender_look },
		.opt = opt,
	};
	ret = source_init(&snd->src, dev);
	if (!ret && snd->src.home != VFIO_DEVICE_STATE_RUNNING)
		ret = fail(ST_DEVICE,
			   "%s is stopped: has it been moved already? If not, 'vfio-migrate run' runs it",
			   dev->name);
	snd->src.sink = &snd->sink;
	snd->src.policy = &opt->policy;
	snd->src.precopy = !opt->stop_copy;
	snd->src.limit.rate = opt->bandwidth;
	return ret;
}

static int send_through(struct sender *snd, int fd)
{
	const struct options *opt = snd->opt;
	int ret;

	channel_init(&snd->ch, fd, opt->timeout_ns);
	snd->ch.context = snd;
	snd->ch.patience_ns = max_u64(opt->ack_timeout_ns, opt->timeout_ns);
	ret = greet(snd) ?: source_run(&snd->src) ?: hand_over(snd);
	progress_clear();
	if (ret && ret != ST_UNKNOWN)
		return undo(snd, ret);
	channel_pulse_end(&snd->ch);
	source_retire(&snd->src);
	return ret ?: transfer_summary(&snd->src.t, opt->command, opt->json);
}

int send_device(const struct device *dev, int fd, const struct options *opt)
{
	struct sender snd;
	int ret = prepare(&snd, dev, opt) ?: send_through(&snd, fd);

	free(snd.src.buf);
	return ret;
}

int cmd_send(const struct options *opt)
{
	struct sender snd;
	struct device dev;
	struct keep keep;
	int fd, ret;

	ret = device_find(&dev, opt->device) ?: device_open(&dev, opt->iommu, NULL) ?:
	      keep_begin(&keep, &dev, opt);
	if (ret)
		return ret;
	/* Detect errors before connecting */
	ret = fill_regions(&dev, opt) ?: prepare(&snd, &dev, opt) ?:
	      endpoint_connect(opt->address, now_ns() + opt->timeout_ns, &fd);
	if (!ret) {
		ret = send_through(&snd, fd);
		close(fd);
	}
	ret = keep_source(&keep, &dev, ret);
	device_close(&dev);
	return ret;
}
