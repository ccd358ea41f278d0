// SPDX-License-Identifier: GPL-2.0-only
/*
 * Unit tests of what needs no device: frames, the connection, the policy, and
 * the small things. Prints TAP. Built with ASan and UBSan.
 */
#include <arpa/inet.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netdb.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include "atomic_file.h"
#include "channel.h"
#include "endpoint.h"
#include "frame.h"
#include "greet.h"
#include "json.h"
#include "options.h"
#include "policy.h"
#include "progress.h"
#include "utf8.h"
#include "util.h"

static int failures;

#define CHECK(what) do {						\
	if (!(what)) {							\
		printf("# %s:%d: %s\n", __FILE__, __LINE__, #what);	\
		failures++;						\
	}								\
} while (0)

/* --- Frames -------------------------------------------------------------------- */

static const enum frame_type small_types[] = {
	FRAME_HELLO, FRAME_MARK, FRAME_ACK, FRAME_STATUS, FRAME_KEEPALIVE, FRAME_END,
	FRAME_READY, FRAME_GO, FRAME_RUNNING, FRAME_ERROR,
};

static uint32_t length_of(enum frame_type type)
{
	switch (type) {
	case FRAME_HELLO:
		return FRAME_HELLO_LEN;
	case FRAME_STATUS:
		return FRAME_STATUS_LEN;
	case FRAME_KEEPALIVE:
	case FRAME_GO:
	case FRAME_RUNNING:
		return 0;
	case FRAME_ERROR:
		return 7;
	case FRAME_DATA:
		return 1000;
	default:
		return FRAME_POSITION_LEN;
	}
}

/* As frame_encode(), but with a header that says whatever is wanted */
static void forge(uint8_t *header, unsigned int version, unsigned int type, uint32_t len)
{
	uint32_t crc;

	frame_encode(header, FRAME_GO, NULL, 0, 0);
	header[4] = version;
	header[5] = version >> 8;
	header[6] = type;
	header[7] = type >> 8;
	memcpy(header + 8, &len, 4);
	crc = crc32c(header, 20);
	memcpy(header + 20, &crc, 4);
}

static void test_crc(void)
{
	uint8_t zeros[32] = { };

	/* Known answers: the check value, and RFC 3720 B.4 */
	CHECK(crc32c("123456789", 9) == 0xe3069283);
	CHECK(crc32c(zeros, 32) == 0x8a9136aa);
	CHECK(crc32c("", 0) == 0);
}

static void test_golden_header(void)
{
	static const uint8_t golden[20] = {
		'V', 'F', 'M', 'G', 1, 0, 2, 0, 9, 0, 0, 0, 0x83, 0x92, 0x06, 0xe3,
		0x04, 0x03, 0x02, 0x01,
	};
	uint8_t header[FRAME_HEADER_LEN];

	frame_encode(header, FRAME_DATA, "123456789", 9, 0x01020304);
	CHECK(!memcmp(header, golden, sizeof(golden)));
}

static void test_every_type(void)
{
	uint8_t header[FRAME_HEADER_LEN], payload[1000];
	struct frame_header frame;
	uint32_t type, len;

	memset(payload, 0x5a, sizeof(payload));
	for (type = FRAME_HELLO; type < FRAME_NR_TYPES; type++) {
		len = length_of(type);
		frame_encode(header, type, payload, len, type);
		CHECK(!frame_decode(header, type, &frame));
		CHECK(frame.type == type && frame.length == len && frame.sequence == type);
		CHECK(!frame_check(&frame, payload));
		CHECK(frame_decode(header, type + 1, &frame));
		CHECK(strcmp(frame_name(type), "unknown"));
	}
}

static void test_every_bit(void)
{
	uint8_t header[FRAME_HEADER_LEN], payload[FRAME_STATUS_LEN];
	struct frame_header frame;
	unsigned int bit;

	memset(payload, 0xa5, sizeof(payload));
	frame_encode(header, FRAME_STATUS, payload, sizeof(payload), 7);
	for (bit = 0; bit < 8 * sizeof(header); bit++) {
		header[bit / 8] ^= 1 << bit % 8;
		CHECK(frame_decode(header, 7, &frame));
		header[bit / 8] ^= 1 << bit % 8;
	}
	CHECK(!frame_decode(header, 7, &frame));
	for (bit = 0; bit < 8 * sizeof(payload); bit++) {
		payload[bit / 8] ^= 1 << bit % 8;
		CHECK(frame_check(&frame, payload));
		payload[bit / 8] ^= 1 << bit % 8;
	}
	CHECK(!frame_check(&frame, payload));
}

static void test_hostile_lengths(void)
{
	static const uint32_t hostile[] = {
		FRAME_MAX_DATA + 1, 0x7fffffff, 0x80000000, 0xffffffe8, 0xffffffff,
	};
	uint8_t header[FRAME_HEADER_LEN];
	struct frame_header frame;
	uint32_t type, len;
	size_t i;

	for (type = FRAME_HELLO; type < FRAME_NR_TYPES; type++)
		for (i = 0; i < ARRAY_LEN(hostile); i++) {
			forge(header, FRAME_VERSION, type, hostile[i]);
			CHECK(frame_decode(header, 0, &frame));
		}
	/* No small type takes more than the buffer for it */
	for (i = 0; i < ARRAY_LEN(small_types); i++)
		for (len = FRAME_MAX_SMALL + 1; len < FRAME_MAX_SMALL + 300; len++) {
			forge(header, FRAME_VERSION, small_types[i], len);
			CHECK(frame_decode(header, 0, &frame));
		}
	forge(header, FRAME_VERSION, FRAME_DATA, 0);
	CHECK(frame_decode(header, 0, &frame));
	forge(header, FRAME_VERSION, FRAME_DATA, FRAME_MAX_DATA);
	CHECK(!frame_decode(header, 0, &frame));
	forge(header, FRAME_VERSION, FRAME_HELLO, FRAME_HELLO_LEN - 1);
	CHECK(frame_decode(header, 0, &frame));
}

static void test_versions_and_types(void)
{
	uint8_t header[FRAME_HEADER_LEN];
	struct frame_header frame;
	unsigned int n;

	for (n = 0; n < 0x10000; n++) {
		forge(header, n, FRAME_GO, 0);
		CHECK(!frame_decode(header, 0, &frame) == (n == FRAME_VERSION));
		if (n < FRAME_NR_TYPES)
			continue;
		forge(header, FRAME_VERSION, n, 0);
		CHECK(frame_decode(header, 0, &frame));
	}
	forge(header, FRAME_VERSION, 0, 0);
	CHECK(frame_decode(header, 0, &frame));
}

static void test_payloads(void)
{
	struct frame_hello hello = { 7, 1ULL << 40, 0x1b36, 5, 10000, "some-driver", 1ULL << 35 };
	struct frame_hello hello2;
	struct frame_status status = { 1, 2, 3, 4, 5, UINT64_MAX }, status2;
	struct frame_position pos = { .bytes = 1ULL << 63, .id = 9 }, pos2;
	uint8_t payload[FRAME_MAX_SMALL];

	frame_put_hello(payload, &hello);
	frame_get_hello(payload, &hello2);
	CHECK(!memcmp(&hello, &hello2, offsetof(struct frame_hello, driver)));
	CHECK(!strcmp(hello.driver, hello2.driver) && hello.memory_size == hello2.memory_size);
	frame_put_status(payload, &status);
	frame_get_status(payload, &status2);
	CHECK(!memcmp(&status, &status2, sizeof(status)));
	frame_put_position(payload, &pos);
	frame_get_position(payload, &pos2);
	CHECK(pos.bytes == pos2.bytes && pos.id == pos2.id);
}

static void test_hostile_text(void)
{
	uint8_t payload[FRAME_MAX_SMALL];
	struct frame_hello hello;
	char text[FRAME_MAX_SMALL + 1];

	/* Not terminated, and full of what a terminal acts upon */
	memset(payload, 0x1b, sizeof(payload));
	frame_get_text(payload, sizeof(payload), text, sizeof(text));
	CHECK(strlen(text) == FRAME_MAX_SMALL);
	CHECK(strspn(text, "?") == FRAME_MAX_SMALL);
	frame_get_text(payload, sizeof(payload), text, 8);
	CHECK(strlen(text) == 7);
	frame_get_text(payload, 0, text, sizeof(text));
	CHECK(!*text);
	frame_get_hello(payload, &hello);
	CHECK(strlen(hello.driver) == FRAME_DRIVER_LEN - 1);
}

/* --- The connection --------------------------------------------------------------- */

static uint8_t data_buf[FRAME_MAX_DATA];
static bool data_room = true;

static void *place(void *context)
{
	(void)context;
	return data_room ? data_buf : NULL;
}

/* A channel whose other end is @peer. */
static void open_pair(struct channel *ch, int *peer)
{
	int fds[2];

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, fds))
		abort();
	channel_init(ch, fds[0], 50 * NS_PER_MS);
	ch->place = place;
	*peer = fds[1];
}

static size_t make_frame(uint8_t *buf, enum frame_type type, uint32_t sequence)
{
	uint32_t len = length_of(type);

	memset(buf + FRAME_HEADER_LEN, 'x', len);
	frame_encode(buf, type, buf + FRAME_HEADER_LEN, len, sequence);
	return FRAME_HEADER_LEN + len;
}

static void test_cut_everywhere(void)
{
	static const enum frame_type types[] = { FRAME_HELLO, FRAME_DATA, FRAME_GO };
	uint8_t buf[FRAME_HEADER_LEN + 1000];
	struct channel ch;
	size_t i, len, cut;
	bool complete;
	int peer;

	for (i = 0; i < ARRAY_LEN(types); i++) {
		len = make_frame(buf, types[i], 0);
		for (cut = 0; cut <= len; cut++) {
			open_pair(&ch, &peer);
			CHECK(write_all(peer, buf, cut));
			CHECK(channel_receive(&ch, &complete) == ST_OK);
			CHECK(complete == (cut == len));
			close(peer);
			CHECK(channel_receive(&ch, &complete) == ST_PEER);
			CHECK(!complete);
			close(ch.fd);
		}
	}
}

static void test_byte_by_byte(void)
{
	uint8_t buf[FRAME_HEADER_LEN + 1000];
	size_t len, at, seen = 0;
	struct channel ch;
	bool complete;
	uint32_t type;
	int peer;

	open_pair(&ch, &peer);
	for (type = FRAME_HELLO; type < FRAME_ERROR; type++) {
		len = make_frame(buf, type, type - FRAME_HELLO);
		for (at = 0; at < len; at++) {
			CHECK(write_all(peer, buf + at, 1));
			CHECK(channel_receive(&ch, &complete) == ST_OK);
			CHECK(complete == (at == len - 1));
			seen += complete;
		}
	}
	CHECK(seen == FRAME_ERROR - FRAME_HELLO);
	close(peer);
	close(ch.fd);
}

static void test_no_room(void)
{
	uint8_t buf[FRAME_HEADER_LEN + 1000];
	size_t len = make_frame(buf, FRAME_DATA, 0);
	struct channel ch;
	bool complete;
	int peer;

	open_pair(&ch, &peer);
	data_room = false;
	CHECK(write_all(peer, buf, len));
	CHECK(channel_receive(&ch, &complete) == ST_OK && !complete);
	CHECK(channel_is_full(&ch));
	/* Nothing but the header was taken in */
	CHECK(recv(ch.fd, buf, sizeof(buf), MSG_PEEK | MSG_DONTWAIT) == (ssize_t)len -
	      FRAME_HEADER_LEN);
	data_room = true;
	CHECK(!channel_is_full(&ch));
	CHECK(channel_receive(&ch, &complete) == ST_OK && complete);
	close(peer);
	close(ch.fd);
}

static void test_data_to_the_source(void)
{
	uint8_t buf[FRAME_HEADER_LEN + 1000];
	struct channel ch;
	bool complete;
	int peer;

	open_pair(&ch, &peer);
	ch.place = NULL;
	CHECK(write_all(peer, buf, make_frame(buf, FRAME_DATA, 0)));
	CHECK(channel_receive(&ch, &complete) == ST_PEER);
	close(peer);
	close(ch.fd);
}

static void test_noise(void)
{
	uint8_t noise[4096];
	struct channel ch;
	bool complete;
	int peer, i;
	size_t k;

	srandom(1);
	for (i = 0; i < 2000; i++) {
		for (k = 0; k < sizeof(noise); k++)
			noise[k] = random() >> 8;
		/* Half of it begins well */
		if (i & 1)
			make_frame(noise, FRAME_NR_TYPES - 1 - i / 2 % 4, 0);
		open_pair(&ch, &peer);
		CHECK(write_all(peer, noise, sizeof(noise)));
		while (channel_receive(&ch, &complete) == ST_OK && complete)
			;
		CHECK(ch.received <= 2);
		close(peer);
		close(ch.fd);
	}
}

static void test_silence(void)
{
	uint64_t t0 = now_ns();
	struct channel ch;
	int peer;

	open_pair(&ch, &peer);
	CHECK(channel_check(&ch) == ST_OK);
	CHECK(channel_expect(&ch, FRAME_HELLO, now_ns() + 100 * NS_PER_MS) == ST_PEER);
	CHECK(channel_check(&ch) == ST_PEER);
	CHECK(now_ns() - t0 < 5 * NS_PER_S);
	close(peer);
	close(ch.fd);
}

/* Who does not read is not waited for, whatever there is to send */
static void test_deaf_peer(void)
{
	uint64_t t0 = now_ns();
	struct channel ch;
	int peer, i, ret = ST_OK;

	open_pair(&ch, &peer);
	for (i = 0; i < 100 && !ret; i++)
		ret = channel_send(&ch, FRAME_DATA, data_buf, sizeof(data_buf));
	CHECK(ret == ST_PEER);
	CHECK(i < 10);
	CHECK(now_ns() - t0 < 5 * NS_PER_S);
	channel_send_failure(&ch, "it is over");
	close(peer);
	CHECK(channel_send(&ch, FRAME_GO, NULL, 0) == ST_PEER);
	close(ch.fd);
}

static int hear(void *context)
{
	struct channel *ch = context;

	ch->heard = now_ns();
	return ST_OK;
}

/* One that talks, but takes nothing, is waited for longer, and not for ever */
static void test_talkative_peer(void)
{
	uint64_t t0 = now_ns();
	struct channel ch;
	int peer, i, ret = ST_OK;

	open_pair(&ch, &peer);
	ch.patience_ns = 300 * NS_PER_MS;
	ch.busy = hear;
	ch.context = &ch;
	for (i = 0; i < 100 && !ret; i++)
		ret = channel_send(&ch, FRAME_DATA, data_buf, sizeof(data_buf));
	CHECK(ret == ST_PEER);
	CHECK(now_ns() - t0 >= ch.patience_ns);
	CHECK(now_ns() - t0 < 5 * NS_PER_S);
	close(peer);
	close(ch.fd);
}

static void *block(void *context)
{
	struct channel *ch = context;
	struct pollfd pfd = { .fd = ch->fd, .events = POLLIN };
	bool complete;
	int nr = 0;

	while (nr < 3 && poll(&pfd, 1, 60000) == 1) {
		if (channel_receive(ch, &complete))
			break;
		nr += complete && ch->frame.type == FRAME_KEEPALIVE;
	}
	return (void *)(long)nr;
}

/* One whose main thread is in a system call of the device says that it lives */
static void test_blocked_peer(void)
{
	struct channel ch, other;
	pthread_t thread;
	bool complete;
	void *nr;
	int peer;

	open_pair(&ch, &peer);
	channel_init(&other, peer, 50 * NS_PER_MS);
	CHECK(channel_pulse_begin(&other, 50 * NS_PER_MS) == ST_OK);
	CHECK(!pthread_create(&thread, NULL, block, &ch));
	/* This is the system call */
	pthread_join(thread, &nr);
	CHECK((long)nr == 3);
	/* Sequence numbers go on */
	CHECK(channel_send(&other, FRAME_GO, NULL, 0) == ST_OK);
	channel_pulse_end(&other);
	do {
		CHECK(channel_receive(&ch, &complete) == ST_OK && complete);
	} while (complete && ch.frame.type == FRAME_KEEPALIVE);
	CHECK(ch.frame.type == FRAME_GO);
	/* One that does not read is not written to without end, and does not block us */
	CHECK(channel_pulse_begin(&other, 50 * NS_PER_MS) == ST_OK);
	while (channel_writable(&other))
		if (send(peer, data_buf, 100, MSG_DONTWAIT) < 0)
			break;
	channel_pulse_end(&other);
	CHECK(!channel_writable(&other));
	close(peer);
	close(ch.fd);
}

/* Nobody reads it, nobody makes room for it, and nobody looks at it again and again */
static void test_data_before_hello(void)
{
	uint8_t buf[FRAME_HEADER_LEN + 1000];
	struct channel ch;
	int peer;

	open_pair(&ch, &peer);
	data_room = false;
	CHECK(write_all(peer, buf, make_frame(buf, FRAME_DATA, 0)));
	CHECK(channel_expect(&ch, FRAME_HELLO, now_ns() + 600 * NS_PER_S) == ST_PEER);
	CHECK(strstr(last_failure(), "DATA instead of HELLO"));
	data_room = true;
	close(peer);
	close(ch.fd);
}

static void test_error_of_peer(void)
{
	struct channel ch, other;
	bool complete;
	int peer;

	open_pair(&ch, &peer);
	channel_init(&other, peer, NS_PER_S);
	channel_send_failure(&other, "the dog ate it\033[2J");
	CHECK(channel_receive(&ch, &complete) == ST_PEER);
	CHECK(strstr(last_failure(), "the dog ate it?[2J"));
	CHECK(ch.peer_failed);
	close(peer);
	close(ch.fd);
}

/* --- The policy ---------------------------------------------------------------------- */

static struct outlook look_idle(void)
{
	return (struct outlook){ .acked = true, .answered = true, .bandwidth = 1e9,
				 .data_size = 1 << 30 };
}

static void test_downtime(void)
{
	struct outlook look = look_idle();
	uint64_t idle = policy_downtime(&look);

	CHECK(idle < 10 * NS_PER_MS);
	look.pending = 500 * 1000 * 1000;
	CHECK(policy_downtime(&look) == idle + NS_PER_S / 2);
	look.in_flight = 250 * 1000 * 1000;
	CHECK(policy_downtime(&look) == idle + NS_PER_S * 3 / 4);
	/* The target starts while it takes in what is on the way */
	look.acked = false;
	look.startup_known = true;
	look.startup_ns = 2 * NS_PER_S;
	CHECK(policy_downtime(&look) == idle + NS_PER_S * 5 / 2);
	look.startup_known = false;
	CHECK(policy_downtime(&look) == NEVER);
	look = look_idle();
	look.round_trip_ns = 100 * NS_PER_MS;
	CHECK(policy_downtime(&look) == idle + 200 * NS_PER_MS);
	look.bandwidth = 0;
	CHECK(policy_downtime(&look) != NEVER);
	look.pending = 1;
	CHECK(policy_downtime(&look) == NEVER);
}

static void test_goal_downtime(void)
{
	struct policy policy = { GOAL_DOWNTIME, 300 * NS_PER_MS, false };
	struct outlook look = look_idle();

	CHECK(policy_decide(&policy, &look) == VERDICT_STOP);
	look.initial = 1;
	CHECK(policy_decide(&policy, &look) == VERDICT_GO_ON);
	look.initial = 0;
	/* Not without the acknowledgment, however good the estimate looks */
	look.acked = false;
	look.startup_known = true;
	CHECK(policy_decide(&policy, &look) == VERDICT_GO_ON);
	look.acked = true;
	look.pending = 400 * 1000 * 1000;
	CHECK(policy_decide(&policy, &look) == VERDICT_GO_ON);
	look.stalled = true;
	CHECK(policy_decide(&policy, &look) == VERDICT_STOP);
	policy.bound = true;
	CHECK(policy_decide(&policy, &look) == VERDICT_GIVE_UP);
	look.pending = 200 * 1000 * 1000;
	CHECK(policy_decide(&policy, &look) == VERDICT_STOP);
}

static void test_goal_total_time(void)
{
	struct policy policy = { GOAL_TOTAL_TIME, 300 * NS_PER_MS, false };
	struct outlook look = look_idle();

	look.acked = false;
	look.initial = 1;
	CHECK(policy_decide(&policy, &look) == VERDICT_GO_ON);
	look.initial = 0;
	/* The target has not said anything yet, whatever its source believes */
	look.answered = false;
	CHECK(policy_decide(&policy, &look) == VERDICT_GO_ON);
	look.startup_known = true;
	CHECK(policy_decide(&policy, &look) == VERDICT_GO_ON);
	look.startup_known = false;
	look.answered = true;
	/* Nobody knows how long: nothing to wait for */
	CHECK(policy_decide(&policy, &look) == VERDICT_STOP);
	look.startup_known = true;
	look.startup_ns = 3 * NS_PER_S;
	/* The device does not write: waiting costs nothing */
	CHECK(policy_decide(&policy, &look) == VERDICT_GO_ON);
	look.startup_ns = 50 * NS_PER_MS;
	CHECK(policy_decide(&policy, &look) == VERDICT_STOP);
	/* It writes: there would be 300 MB more to send */
	look.startup_ns = 3 * NS_PER_S;
	look.dirty_rate = 1e8;
	CHECK(policy_decide(&policy, &look) == VERDICT_STOP);
	/* But it must not stand still for 3 s */
	policy.bound = true;
	CHECK(policy_decide(&policy, &look) == VERDICT_GO_ON);
	look.startup_ns = 200 * NS_PER_MS;
	CHECK(policy_decide(&policy, &look) == VERDICT_STOP);
	look.acked = true;
	look.pending = 400 * 1000 * 1000;
	CHECK(policy_decide(&policy, &look) == VERDICT_GO_ON);
	look.stalled = true;
	CHECK(policy_decide(&policy, &look) == VERDICT_GIVE_UP);
}

static void test_rates(void)
{
	struct rate rate = { };
	int i;

	rate_add(&rate, 1000, NS_PER_MS);
	CHECK(rate.value == 0);
	for (i = 0; i < 100; i++)
		rate_add(&rate, 1000 * 1000, 10 * NS_PER_MS);
	CHECK(rate.value > 0.99e8 && rate.value < 1.01e8);
	for (i = 0; i < 1000; i++)
		rate_add(&rate, 0, 10 * NS_PER_MS);
	CHECK(rate.value < 1);
	CHECK(rate_time(1e6, 1000 * 1000) == NS_PER_S);
	CHECK(rate_time(0, 0) == 0);
	CHECK(rate_time(0.001, UINT64_MAX) == NEVER);
}

/* Whatever the pieces and pauses: never more than the limit and one piece */
static void test_limit(void)
{
	struct limit limit = { .rate = 1000 * 1000 }, none = { };
	uint64_t now = NS_PER_S, sent = 0, piece;
	int i;

	CHECK(limit_piece(&none, MIB) == MIB && limit_sent(&none, MIB, now) == now);
	CHECK(limit_piece(&limit, MIB) == 100 * 1000 && limit_piece(&limit, 10) == 10);
	srandom(1);
	for (i = 0; i < 1000; i++) {
		piece = limit_piece(&limit, 1 + random() % MIB);
		sent += piece;
		now = limit_sent(&limit, piece, now);
		CHECK(sent <= (now - NS_PER_S) / 1000 + 1000);
	}
	CHECK(sent + 1000 * 100 > (now - NS_PER_S) / 1000);
	/* A pause saves nothing up */
	now += 10 * NS_PER_S;
	CHECK(limit_sent(&limit, 1000 * 1000, now) == now + NS_PER_S);
}

static void test_stall(void)
{
	struct progress_watch watch = { };
	uint64_t now = NS_PER_S;

	CHECK(!watch_stalled(&watch, 1000, 0, now));
	/* Long, but nothing was sent meanwhile */
	CHECK(!watch_stalled(&watch, 1000, 0, now + 10 * NS_PER_S));
	/* A lot, but soon */
	CHECK(!watch_stalled(&watch, 1000, 10000, now + NS_PER_S / 2));
	CHECK(watch_stalled(&watch, 1000, 10000, now + 10 * NS_PER_S));
	CHECK(!watch_stalled(&watch, 800, 10000, now + 11 * NS_PER_S));
	CHECK(!watch_stalled(&watch, 800, 20000, now + 11 * NS_PER_S));
}

static void test_endless(void)
{
	CHECK(!policy_endless(0, UINT64_MAX));
	CHECK(!policy_endless(1, 0));
	/* Estimates of little may be far off */
	CHECK(!policy_endless(1, 32 * MIB));
	CHECK(policy_endless(1, 33 * MIB));
	CHECK(!policy_endless(1000 * MIB, 4000 * MIB));
	CHECK(policy_endless(1000 * MIB, 4100 * MIB));
	CHECK(!policy_endless(UINT64_MAX, UINT64_MAX));
}

/* --- The rest ---------------------------------------------------------------------------- */

static int parse_line(struct options *opt, const char *line)
{
	static char copy[300], *argv[32];
	int argc = 0;
	char *word;

	snprintf(copy, sizeof(copy), "%s", line);
	for (word = strtok(copy, " "); word; word = strtok(NULL, " "))
		argv[argc++] = word;
	argv[argc] = NULL;
	optind = 0;
	return options_parse(opt, argc, argv);
}

static void test_rates_as_text(void)
{
	static const struct {
		const char	*text;
		uint64_t	rate;
	} right[] = {
		{ "1024", KIB }, { "1K", KIB }, { "1.5M", 3 * MIB / 2 }, { "100MiB/s", 100 * MIB },
		{ "2GB", 2048 * MIB }, { "4096B/s", 4096 }, { "1T", MIB * MIB },
	};
	static const char * const wrong[] = {
		"0", "1023", "x", "M", "1X", "1Mb", "-1M", "nan", "1e300", "10M/m", "1Ki/s/s",
	};
	struct options opt;
	char line[100];
	size_t i;

	for (i = 0; i < ARRAY_LEN(right); i++) {
		snprintf(line, sizeof(line), "vm save a --bandwidth %s", right[i].text);
		CHECK(parse_line(&opt, line) == ST_OK && opt.bandwidth == right[i].rate);
	}
	for (i = 0; i < ARRAY_LEN(wrong); i++) {
		snprintf(line, sizeof(line), "vm save a --bandwidth %s", wrong[i]);
		CHECK(parse_line(&opt, line) == ST_USAGE);
		CHECK(strstr(last_failure(), "--bandwidth"));
	}
}

#define FILL " --fill-region 1=a"

static void test_options(void)
{
	static const char * const wrong[] = {
		"vm", "vm fly 0:0.0", "vm info", "vm info a b", "vm save a --to x:1",
		"vm load a", "vm send a", "vm receive a --listen x:1", "vm move a --verify",
		"vm move a b", "vm load a --verify --hold", "vm load a --hold -- sh",
		"vm save a --max-downtime x", "vm save a --max-downtime 0",
		"vm save a --optimize speed", "vm save a --stop-copy --max-downtime 5",
		"vm save a --fill-region 2", "vm save a --fill-region =x",
		"vm save a --fill-region 999=x", "vm send a --to x:1 -- sh",
		"vm list a", "vm check a", "vm check a b c", "vm info a -i f",
		"vm list --iommu type1",
		"vm load a --verify --bandwidth 1M", "vm save a --vf-token x",
		"vm save a --vf-token 11111111-2222-3333-4444-55555555555",
		"vm save a --vf-token 11111111-2222-3333-4444-5555555555555",
		"vm save a --vf-token 1111111122-222-3333-4444-555555555555",
		"vm info a --iommu x", "vm info a --timeout 3", "vm --json",
		"vm save a" FILL FILL FILL FILL FILL, "vm run", "vm run a b", "vm info a --reset",
		"vm run a --hold",
	};
	struct options opt;
	size_t i;

	for (i = 0; i < ARRAY_LEN(wrong); i++) {
		CHECK(parse_line(&opt, wrong[i]) == ST_USAGE);
		if (failures)
			printf("# %s\n", wrong[i]);
	}
	CHECK(parse_line(&opt, "vm move a --optimize total-time b --max-downtime 20.5 -- sh x") ==
	      ST_OK);
	CHECK(!strcmp(opt.device, "a") && !strcmp(opt.target, "b"));
	CHECK(opt.policy.bound && opt.policy.max_downtime_ns == 20500000);
	CHECK(opt.policy.goal == GOAL_TOTAL_TIME);
	CHECK(opt.run && !strcmp(opt.run[0], "sh") && !strcmp(opt.run[1], "x"));
	CHECK(parse_line(&opt, "vm load a -i f --dump-region 2=out") == ST_OK);
	CHECK(opt.nr_dump == 1 && opt.dump[0].index == 2 && !strcmp(opt.dump[0].path, "out"));
}

static void test_json(void)
{
	static const char expected[] =
		"{\n  \"a\": \"x\\\"\\\\\\u000a\\ufffd\",\n  \"b\": [],\n"
		"  \"c\": {\n    \"d\": 18446744073709551615,\n    \"e\": null\n  },\n"
		"  \"f\": true\n}\n";
	char buf[300];
	FILE *file = fmemopen(buf, sizeof(buf), "w");
	struct json json;

	json_begin(&json, file);
	json_string(&json, "a", "x\"\\\n\x80");
	json_open_array(&json, "b");
	json_close_array(&json);
	json_open(&json, "c");
	json_number(&json, "d", UINT64_MAX);
	json_null(&json, "e");
	json_close(&json);
	json_bool(&json, "f", true);
	json_end(&json);
	fclose(file);
	CHECK(!strcmp(buf, expected));
}

static const char *quoted_by_json(const char *text)
{
	static char buf[200];
	FILE *file = fmemopen(buf, sizeof(buf), "w");
	struct json json;

	json_begin(&json, file);
	json_string(&json, NULL, text);
	fclose(file);
	return buf + strlen("{\n  ");
}

static void test_utf8(void)
{
	static const char * const invalid[] = {
		/* Alone, cut, too long, surrogate, beyond Unicode, controls */
		"\x80", "\xff", "\xc3", "\xe2\x82", "\xf0\x9f\x98", "\xc0\xaf", "\xe0\x80\xaf",
		"\xf0\x80\x80\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xf8\x88\x80\x80\x80",
		"\x1b", "\x7f", "\xc2\x9b",
	};
	static const char valid[] =
		"\xc3\xa4 \xe2\x82\xac \xf0\x9f\x98\x80 \xed\x9f\xbf\xee\x80\x80";
	char text[100], payload[100];
	size_t i, len;

	for (i = 0; i < ARRAY_LEN(invalid); i++) {
		len = strlen(invalid[i]);
		CHECK(!utf8_length((const uint8_t *)invalid[i], len));
		snprintf(payload, sizeof(payload), "a%sb", invalid[i]);
		frame_get_text((const uint8_t *)payload, len + 2, text, sizeof(text));
		CHECK(text[0] == 'a' && strspn(text + 1, "?") == len && text[len + 1] == 'b');
	}
	snprintf(payload, sizeof(payload), "\"%s\"", valid);
	CHECK(!strcmp(quoted_by_json(valid), payload));
	CHECK(!strcmp(quoted_by_json("\xe2\x82"), "\"\\ufffd\\ufffd\""));
	CHECK(!strcmp(quoted_by_json("a\xffz\x7f"), "\"a\\ufffdz\\u007f\""));
	frame_get_text((const uint8_t *)valid, sizeof(valid) - 1, text, sizeof(text));
	CHECK(!strcmp(text, valid));
	/* Cut where there is no more room, and not within a character */
	frame_get_text((const uint8_t *)valid, sizeof(valid) - 1, text, 6);
	CHECK(!strcmp(text, "\xc3\xa4 "));
}

static bool file_says(const char *path, const char *text)
{
	char buf[100] = "";

	return read_line(path, buf, sizeof(buf)) && !strcmp(buf, text);
}

/* The exit status of @run in a process of its own */
static int in_child(void (*run)(int), int arg)
{
	pid_t child = fork();
	int status = 0;

	if (!child) {
		run(arg);
		_exit(100);
	}
	if (child > 0 && waitpid(child, &status, 0) == child && WIFEXITED(status))
		return WEXITSTATUS(status);
	printf("# process %d: %s, wait status %x\n", child, strerror(errno), status);
	return -1;
}

/* A directory of its own, for one test at a time */
static char work[40];

static const char *in_work(const char *name)
{
	static char paths[4][PATH_MAX];
	static int next;
	char *path = paths[next++ % 4];

	snprintf(path, PATH_MAX, "%s/%s", work, name);
	return path;
}

static void work_begin(void)
{
	snprintf(work, sizeof(work), "/tmp/vfio-migrate-unit.XXXXXX");
	CHECK(mkdtemp(work));
}

/* Whatever a test has not taken away itself is too much */
static void work_end(void)
{
	CHECK(!rmdir(work));
}

/* Writes @text to @path, and gives up at the end if @status says so */
static int write_file(const char *path, const char *text, int status)
{
	struct atomic_file file;
	int ret = atomic_file_open(&file, path);

	if (ret)
		return ret;
	ret = atomic_file_write(&file, text, strlen(text));
	return atomic_file_close(&file, ret ?: status);
}

static mode_t mode_of(const char *path)
{
	struct stat st;

	return lstat(path, &st) ? 0 : st.st_mode & (S_IFMT | 0777);
}

static void test_atomic_file(void)
{
	struct atomic_file file;

	work_begin();
	CHECK(atomic_file_open(&file, in_work("file")) == ST_OK);
	CHECK(atomic_file_write(&file, "one", 3) == ST_OK);
	CHECK(access(in_work("file"), F_OK));
	CHECK(atomic_file_close(&file, ST_OK) == ST_OK);
	CHECK(file_says(in_work("file"), "one"));
	/* A failure leaves what was there before, and nothing else */
	CHECK(write_file(in_work("file"), "two", ST_FAILED) == ST_FAILED);
	CHECK(file_says(in_work("file"), "one"));
	CHECK(write_file(in_work("file/x"), "", ST_OK) == ST_FILE);
	CHECK(write_file(in_work("file/"), "", ST_OK) == ST_FILE);
	CHECK(write_file(in_work(""), "", ST_OK) == ST_FILE);
	CHECK(write_file(in_work("."), "", ST_OK) == ST_FILE);
	CHECK(write_file(in_work("none/file"), "", ST_OK) == ST_FILE);
	CHECK(write_file("", "", ST_OK) == ST_FILE);
	CHECK(!unlink(in_work("file")));
	work_end();
	CHECK(atomic_file_open(&file, in_work("file")) == ST_FILE);
}

static void test_file_modes(void)
{
	mode_t mask = umask(0);

	work_begin();
	CHECK(write_file(in_work("file"), "one", ST_OK) == ST_OK);
	CHECK(mode_of(in_work("file")) == (S_IFREG | 0600));
	umask(0377);
	CHECK(!chmod(in_work("file"), 0640));
	CHECK(write_file(in_work("file"), "two", ST_OK) == ST_OK);
	CHECK(mode_of(in_work("file")) == (S_IFREG | 0640));
	CHECK(file_says(in_work("file"), "two"));
	umask(mask);
	CHECK(!unlink(in_work("file")));
	work_end();
}

static void test_file_owner(void)
{
	struct stat st;

	work_begin();
	CHECK(write_file(in_work("file"), "one", ST_OK) == ST_OK);
	/* Only root can give files away, and only where there is somebody else */
	if (!chown(in_work("file"), 1, 2)) {
		CHECK(write_file(in_work("file"), "two", ST_OK) == ST_OK);
		CHECK(!stat(in_work("file"), &st) && st.st_uid == 1 && st.st_gid == 2);
	}
	CHECK(!unlink(in_work("file")));
	work_end();
}

static void test_links(void)
{
	work_begin();
	CHECK(!mkdir(in_work("dir"), 0700));
	CHECK(!symlink("dir/file", in_work("relative")));
	CHECK(!symlink(in_work("relative"), in_work("absolute")));
	CHECK(!symlink("loop", in_work("loop")));
	/* It leads to nothing at first, and to a file later on */
	CHECK(write_file(in_work("absolute"), "one", ST_OK) == ST_OK);
	CHECK(file_says(in_work("dir/file"), "one"));
	CHECK(write_file(in_work("relative"), "two", ST_OK) == ST_OK);
	CHECK(file_says(in_work("dir/file"), "two"));
	CHECK((mode_of(in_work("relative")) & S_IFMT) == S_IFLNK);
	CHECK((mode_of(in_work("absolute")) & S_IFMT) == S_IFLNK);
	CHECK(write_file(in_work("loop"), "", ST_OK) == ST_FILE);
	CHECK(!unlink(in_work("dir/file")) && !rmdir(in_work("dir")));
	CHECK(!unlink(in_work("relative")) && !unlink(in_work("absolute")));
	CHECK(!unlink(in_work("loop")));
	work_end();
}

static void test_long_names(void)
{
	char longest[NAME_MAX + 1], path[PATH_MAX + 10];

	work_begin();
	memset(longest, 'x', NAME_MAX);
	longest[NAME_MAX] = '\0';
	CHECK(write_file(in_work(longest), "one", ST_OK) == ST_OK);
	CHECK(file_says(in_work(longest), "one"));
	CHECK(!unlink(in_work(longest)));
	/* As long as a path can be: that of a temporary file would be longer */
	snprintf(path, sizeof(path), "%s", work);
	while (strlen(path) < PATH_MAX - 4)
		strcat(path, "/.");
	strcat(path, "/f");
	CHECK(strlen(path) >= PATH_MAX - 3);
	CHECK(write_file(path, "two", ST_OK) == ST_OK);
	CHECK(file_says(path, "two") && !unlink(path));
	strcat(path, "ooo");
	CHECK(write_file(path, "", ST_OK) == ST_FILE);
	work_end();
}

/* What is no regular file, or is open already, is written to, and never replaced */
static void test_special_files(void)
{
	char buf[10] = "", path[32];
	int fds[2];

	work_begin();
	CHECK(!mkfifo(in_work("fifo"), 0644));
	fds[0] = open(in_work("fifo"), O_RDONLY | O_NONBLOCK);
	CHECK(!symlink("fifo", in_work("link")));
	CHECK(write_file(in_work("link"), "one", ST_OK) == ST_OK);
	CHECK(read(fds[0], buf, sizeof(buf)) == 3 && !memcmp(buf, "one", 3));
	CHECK(mode_of(in_work("fifo")) == (S_IFIFO | 0644));
	close(fds[0]);
	CHECK(!unlink(in_work("link")) && !unlink(in_work("fifo")));

	CHECK(!pipe(fds));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[1]);
	CHECK(!symlink(path, in_work("link")));
	CHECK(write_file(path, "two", ST_OK) == ST_OK);
	CHECK(write_file(in_work("link"), "3", ST_OK) == ST_OK);
	CHECK(read(fds[0], buf, sizeof(buf)) == 4 && !memcmp(buf, "two3", 4));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fds[0]);
	CHECK(write_file(path, "", ST_OK) == ST_FILE);
	close(fds[0]);
	close(fds[1]);
	CHECK(!unlink(in_work("link")));
	CHECK(write_file("/proc/self/fd/77", "", ST_OK) == ST_FILE);
	CHECK(write_file("/dev/null", "", ST_OK) == ST_OK);
	CHECK((mode_of("/dev/null") & S_IFMT) == S_IFCHR);
	work_end();
}

/* As "(echo before; save -o /dev/fd/N; echo after) > file" */
static void test_open_files(void)
{
	char path[32];
	struct stat before, after;
	int fd;

	work_begin();
	fd = open(in_work("file"), O_WRONLY | O_CREAT, 0644);
	CHECK(write(fd, "before ", 7) == 7 && !fstat(fd, &before));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	CHECK(write_file(path, "data", ST_OK) == ST_OK);
	CHECK(write(fd, " after", 6) == 6);
	CHECK(!stat(in_work("file"), &after) && after.st_ino == before.st_ino);
	CHECK(file_says(in_work("file"), "before data after"));
	/* One that has lost its name is still there to be written to */
	CHECK(!unlink(in_work("file")));
	CHECK(write_file(path, "data", ST_OK) == ST_OK);
	CHECK(!fstat(fd, &after) && after.st_size == 21);
	close(fd);
	work_end();
}

static void stdout_takes_data(int unused)
{
	struct atomic_file file;
	int fds[2];

	(void)unused;
	if (pipe(fds) || dup2(fds[1], STDOUT_FILENO) < 0 || report_file() != stdout)
		_exit(1);
	if (atomic_file_open(&file, "/proc/self/fd/1") || report_file() != stderr)
		_exit(2);
	if (atomic_file_open(&file, "-") != ST_USAGE)
		_exit(3);
	/* Nobody minds two there */
	if (dup2(open("/dev/null", O_WRONLY), STDOUT_FILENO) < 0)
		_exit(4);
	data_on_stdout = false;
	if (atomic_file_open(&file, "-") || atomic_file_open(&file, "/dev/null") || data_on_stdout)
		_exit(5);
	close(STDOUT_FILENO);
	standard_files_init();
	_exit(atomic_file_open(&file, "-") == ST_FILE ? 0 : 6);
}

static void test_data_on_stdout(void)
{
	CHECK(in_child(stdout_takes_data, 0) == 0);
}

/* Several of these programs may run at a time */
static char socket_path[64];
static char unix_address[80];

static void name_socket(void)
{
	snprintf(socket_path, sizeof(socket_path), "/tmp/vfio-migrate-unit.%d", getpid());
	snprintf(unix_address, sizeof(unix_address), "unix:%s", socket_path);
}

static void test_addresses(void)
{
	struct listener listener, other;
	struct frame_hello hello;
	char path[200];
	int fd;

	CHECK(endpoint_connect("nonsense", now_ns(), &fd) == ST_USAGE);
	CHECK(endpoint_connect("127.0.0.1:", now_ns(), &fd) == ST_USAGE);
	CHECK(endpoint_connect(":22", now_ns(), &fd) == ST_USAGE);
	CHECK(endpoint_connect("unix:", now_ns(), &fd) == ST_USAGE);
	memset(path, 'x', sizeof(path));
	memcpy(path, "unix:", 5);
	path[sizeof(path) - 1] = '\0';
	CHECK(endpoint_connect(path, now_ns(), &fd) == ST_USAGE);
	CHECK(endpoint_connect("unix:/nonexistent/socket", now_ns(), &fd) == ST_PEER);
	CHECK(endpoint_listen(unix_address, now_ns(), &listener) == ST_OK);
	CHECK(!access(socket_path, F_OK));
	/* It is in use, and stays so */
	CHECK(endpoint_listen(unix_address, now_ns(), &other) == ST_PEER);
	CHECK(greet_source(&listener, now_ns(), NS_PER_S, &fd, &hello) == ST_PEER);
	endpoint_close(&listener);
	CHECK(access(socket_path, F_OK));
}

static void test_ports(void)
{
	static const char * const wrong[] = {
		"localhost:65536", "localhost:70000", "127.0.0.1:4294967297", "[::1]:99999",
		"localhost:-1", "localhost:+1", "localhost: 1", "localhost:1x",
		"localhost:18446744073709551617",
	};
	struct listener listener;
	size_t i;
	int fd;

	for (i = 0; i < ARRAY_LEN(wrong); i++) {
		CHECK(endpoint_check("--to", wrong[i], false) == ST_USAGE);
		CHECK(strstr(last_failure(), "--to: "));
		CHECK(endpoint_connect(wrong[i], now_ns(), &fd) == ST_USAGE);
		CHECK(endpoint_listen(wrong[i], now_ns() + NS_PER_S, &listener) == ST_USAGE);
	}
	CHECK(endpoint_check("--to", "localhost:65535", false) == ST_OK);
	CHECK(endpoint_check("--to", "localhost:http", false) == ST_OK);
	CHECK(endpoint_check("--to", "localhost:0", false) == ST_USAGE);
	CHECK(endpoint_check("--listen", "localhost:0", true) == ST_OK);
}

/* --- Names, as a name server of ours has them --------------------------------------------- */

static int next_port;

/* Two addresses, of which only the second is listened at */
static int two_addresses(struct addrinfo **info)
{
	static struct sockaddr_in addr[2];
	struct addrinfo *list = calloc(2, sizeof(*list));
	int i;

	for (i = 0; i < 2; i++) {
		addr[i].sin_family = AF_INET;
		addr[i].sin_port = htons(next_port);
		addr[i].sin_addr.s_addr = htonl(INADDR_LOOPBACK + 1 - i);
		list[i].ai_addr = (struct sockaddr *)&addr[i];
		list[i].ai_addrlen = sizeof(addr[i]);
		list[i].ai_family = AF_INET;
		list[i].ai_next = i ? NULL : list + 1;
	}
	*info = list;
	return 0;
}

int getaddrinfo(const char *node, const char *service, const struct addrinfo *hints,
		struct addrinfo **info)
{
	static int (*real)(const char *, const char *, const struct addrinfo *,
			   struct addrinfo **);

	if (!strcmp(node, "two.test"))
		return two_addresses(info);
	while (!strcmp(node, "silent.test"))
		usleep(10000);
	if (!real)
		*(void **)&real = dlsym(RTLD_NEXT, "getaddrinfo");
	return real(node, service, hints, info);
}

void freeaddrinfo(struct addrinfo *info)
{
	static void (*real)(struct addrinfo *);

	if (info->ai_canonname || !info->ai_next || info->ai_next != info + 1) {
		if (!real)
			*(void **)&real = dlsym(RTLD_NEXT, "freeaddrinfo");
		real(info);
		return;
	}
	free(info);
}

static int port_of(int fd)
{
	struct sockaddr_in addr;
	socklen_t len = sizeof(addr);

	return getsockname(fd, (struct sockaddr *)&addr, &len) ? 0 : ntohs(addr.sin_port);
}

static void test_every_address_of_a_name(void)
{
	struct listener listener, both;
	int fd;

	CHECK(endpoint_listen("127.0.0.1:0", now_ns() + NS_PER_S, &listener) == ST_OK);
	next_port = port_of(listener.fd[0]);
	CHECK(endpoint_connect("two.test:1", now_ns() + 20 * NS_PER_S, &fd) == ST_OK);
	close(fd);
	/* One of them is in use: the other is enough */
	CHECK(endpoint_listen("two.test:1", now_ns() + NS_PER_S, &both) == ST_OK);
	CHECK(both.nr == 1);
	endpoint_close(&both);
	endpoint_close(&listener);
	CHECK(endpoint_listen("two.test:1", now_ns() + NS_PER_S, &both) == ST_OK);
	CHECK(both.nr == 2);
	endpoint_close(&both);
}

/* The status of @run in a process of its own, which gets signal @nr, if any, every 50 ms */
static int status_of(int (*run)(void), int nr)
{
	pid_t child = fork();
	int status;

	if (!child)
		_exit(run());
	while (!waitpid(child, &status, WNOHANG)) {
		usleep(50000);
		if (nr)
			kill(child, nr);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

static int look_up_in_vain(void)
{
	int fd;

	alarm(60);
	return endpoint_connect("silent.test:1", NEVER, &fd);
}

static void test_signal_during_look_up(void)
{
	int fd;

	CHECK(status_of(look_up_in_vain, SIGINT) == ST_SIGNAL + SIGINT);
	CHECK(endpoint_connect("silent.test:1", now_ns() + 50 * NS_PER_MS, &fd) == ST_PEER);
}

/* --- Whatever connects before the source ------------------------------------------------------ */

static int connect_to(const char *path)
{
	struct sockaddr_un un = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_STREAM, 0);

	snprintf(un.sun_path, sizeof(un.sun_path), "%s", path);
	if (connect(fd, (struct sockaddr *)&un, sizeof(un)))
		CHECK(!"connect");
	return fd;
}

static size_t make_hello(uint8_t *buf, const char *driver)
{
	struct frame_hello hello = { .timeout_ms = 1000 };

	snprintf(hello.driver, sizeof(hello.driver), "%s", driver);
	frame_put_hello(buf + FRAME_HEADER_LEN, &hello);
	frame_encode(buf, FRAME_HELLO, buf + FRAME_HEADER_LEN, FRAME_HELLO_LEN, 0);
	return FRAME_HEADER_LEN + FRAME_HELLO_LEN;
}

static void test_strays(void)
{
	uint8_t buf[FRAME_HEADER_LEN + 1000], noise[200] = "GET / HTTP/1.1\r\n\r\n";
	int stray[5], source, fd = -1, i;
	struct listener listener, second;
	struct frame_hello hello = { };
	size_t len;

	CHECK(endpoint_listen(unix_address, now_ns(), &listener) == ST_OK);
	/* A second receiver sees whether the socket is in use */
	CHECK(endpoint_listen(unix_address, now_ns(), &second) == ST_PEER);
	for (i = 0; i < 5; i++)
		stray[i] = connect_to(socket_path);
	CHECK(write_all(stray[1], noise, sizeof(noise)));
	CHECK(write_all(stray[2], buf, make_frame(buf, FRAME_DATA, 0)));
	len = make_hello(buf, "half");
	CHECK(write_all(stray[3], buf, len - 1));
	close(stray[4]);
	source = connect_to(socket_path);
	CHECK(write_all(source, buf, make_hello(buf, "the one")));
	CHECK(write_all(source, buf, make_frame(buf, FRAME_GO, 1)));
	CHECK(greet_source(&listener, now_ns() + 60 * NS_PER_S, 60 * NS_PER_S, &fd, &hello) ==
	      ST_OK);
	CHECK(!strcmp(hello.driver, "the one"));
	/* What follows is still there */
	CHECK(recv(fd, buf, sizeof(buf), MSG_DONTWAIT) == FRAME_HEADER_LEN);
	endpoint_close(&listener);
	for (i = 0; i < 4; i++)
		close(stray[i]);
	close(source);
	close(fd);
}

/* As many as you like, and silent: the source gets through, and at last it is enough */
static void test_many_strays(void)
{
	uint8_t buf[FRAME_HEADER_LEN + FRAME_HELLO_LEN];
	int source, fd = -1, i, many[12];
	struct listener listener;
	struct frame_hello hello;
	pid_t child;

	CHECK(endpoint_listen(unix_address, now_ns(), &listener) == ST_OK);
	for (i = 0; i < 12; i++)
		many[i] = connect_to(socket_path);
	/* Their time is over at once */
	CHECK(greet_source(&listener, now_ns() + 50 * NS_PER_MS, 0, &fd, &hello) == ST_PEER);
	CHECK(strstr(last_failure(), "12 others"));
	source = connect_to(socket_path);
	CHECK(write_all(source, buf, make_hello(buf, "late")));
	CHECK(greet_source(&listener, NEVER, NS_PER_S, &fd, &hello) == ST_OK);
	close(fd);
	close(source);
	for (i = 0; i < 12; i++)
		close(many[i]);
	child = fork();
	if (!child) {
		for (i = 0; i < GREET_STRAYS + 10; i++)
			close(connect_to(socket_path));
		_exit(0);
	}
	CHECK(greet_source(&listener, NEVER, NS_PER_S, &fd, &hello) == ST_PEER);
	CHECK(strstr(last_failure(), "none was from a source"));
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	endpoint_close(&listener);
}

/* What the bar says on a terminal of any width; the longest numbers that there may be */
static void test_progress_keeps_the_time_left(void)
{
	struct transfer t = {
		.phase = PHASE_WAIT, .total = 1 << 30, .pending = 1023 * MIB, .marked = 1,
		.bandwidth = 1023.9 * MIB, .dirty_rate = 1023.9 * MIB,
		.startup_ns = 123456 * NS_PER_MS, .began = 0,
	};
	uint64_t now = 59 * NS_PER_S + 59 * 60 * NS_PER_S;
	char buf[300];
	int columns;

	for (columns = 40; columns < 200; columns++) {
		progress_line(&t, now, columns, buf, sizeof(buf));
		CHECK((int)strlen(buf) <= columns);
		CHECK(strstr(buf, "59:59 waiting, target ready in 123.5 s"));
	}
	/* Nothing goes through while the target starts, whatever did before */
	CHECK(!strstr(buf, "MiB/s,") && strstr(buf, "1023.9 MiB/s dirty") && buf[0] == '[');
	t.phase = PHASE_INITIAL;
	t.startup_ns = NEVER;
	for (columns = 40; columns < 200; columns++) {
		progress_line(&t, now, columns, buf, sizeof(buf));
		CHECK((int)strlen(buf) <= columns);
		CHECK(strstr(buf, "59:59 initial, 1.0 s left"));
	}
	CHECK(strstr(buf, "1023.9 MiB/s dirty, 1023.9 MiB/s"));
	progress_line(&t, now, 79, buf, sizeof(buf));
	CHECK(strstr(buf, "dirty") && !strstr(buf, "dirty, ") && buf[0] == '[');
	progress_line(&t, now, 0, buf, sizeof(buf));
	CHECK(strstr(buf, "59:59 initial, 1.0 s left, 1023.0 MiB to go, 1023.9 MiB/s dirty,"));
	/* It stands still: nothing is dirtied, and the time is what the target needs */
	t.phase = PHASE_FINISH;
	t.pending = 0;
	t.startup_ns = 2 * NS_PER_S;
	progress_line(&t, now, 0, buf, sizeof(buf));
	CHECK(!strcmp(buf, "59:59 finishing, target ready in 2.0 s, 0 B to go"));
}

static void test_texts(void)
{
	char buf[32];

	CHECK(!strcmp(text_bytes(buf, sizeof(buf), 1023), "1023 B"));
	CHECK(!strcmp(text_bytes(buf, sizeof(buf), 1536), "1.5 KiB"));
	CHECK(!strcmp(text_bytes(buf, sizeof(buf), UINT64_MAX), "16777216.0 TiB"));
	CHECK(!strcmp(text_ns(buf, sizeof(buf), NEVER), "unknown"));
	CHECK(!strcmp(text_ns(buf, sizeof(buf), 1500000), "1.5 ms"));
}

/* All three are missing: whatever is opened next must not take their place */
static void without_standard_files(int unused)
{
	int fd;

	(void)unused;
	for (fd = 0; fd < 3; fd++)
		close(fd);
	standard_files_init();
	for (fd = 0; fd < 3; fd++)
		if (!standard_file_missing(fd) || fcntl(fd, F_GETFD) < 0)
			_exit(1);
	_exit(open("/dev/zero", O_RDONLY) > 2 ? 0 : 2);
}

static void test_standard_files(void)
{
	CHECK(in_child(without_standard_files, 0) == 0);
	CHECK(!standard_file_missing(STDIN_FILENO));
}

/* Blocked but for the waits: none is lost, none comes in between */
static void interrupt_by(int nr)
{
	struct pollfd pfd = { .fd = -1 };

	if (interrupted())
		_exit(101);
	raise(nr);
	if (wait_fds(&pfd, 1, now_ns() + 10 * NS_PER_S))
		_exit(102);
	_exit(interrupted() == ST_SIGNAL + nr ? 0 : 103);
}

static void test_signals(void)
{
	static const int nrs[] = {
		SIGHUP, SIGINT, SIGQUIT, SIGABRT, SIGUSR1, SIGUSR2, SIGALRM, SIGTERM, SIGXCPU,
		SIGVTALRM, SIGPROF, SIGIO, SIGPWR, SIGSTKFLT,
	};
	int status;
	size_t i;

	for (i = 0; i < ARRAY_LEN(nrs); i++) {
		status = in_child(interrupt_by, nrs[i]);
		CHECK(status == 0);
		if (status)
			printf("# signal %d: %d\n", nrs[i], status);
	}
	CHECK(in_child(interrupt_by, SIGRTMIN) == 0);
	CHECK(in_child(interrupt_by, SIGRTMAX) == 0);
}

static bool is_ignored(int nr)
{
	struct sigaction sa;

	return !sigaction(nr, NULL, &sa) && sa.sa_handler == SIG_IGN;
}

/* What nohup and the like have us ignore; but children must be waited for */
static void ignore_and_init(int unused)
{
	(void)unused;
	signal(SIGHUP, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGCHLD, SIG_IGN);
	signals_init();
	if (!is_ignored(SIGHUP) || is_ignored(SIGTERM) || is_ignored(SIGCHLD))
		_exit(1);
	if (!is_ignored(SIGPIPE) || !is_ignored(SIGXFSZ))
		_exit(2);
	if (in_child(_exit, 5) != 5)
		_exit(3);
	signals_default();
	_exit(is_ignored(SIGHUP) && is_ignored(SIGTERM) && is_ignored(SIGCHLD) ? 0 : 4);
}

static void test_ignored_signals(void)
{
	CHECK(in_child(ignore_and_init, 0) == 0);
}

static const struct {
	const char	*name;
	void		(*run)(void);
} tests[] = {
	{ "CRC-32C, known answers", test_crc },
	{ "a header, byte by byte", test_golden_header },
	{ "frames of every type", test_every_type },
	{ "every bit of a frame counts", test_every_bit },
	{ "hostile lengths", test_hostile_lengths },
	{ "unknown versions and types", test_versions_and_types },
	{ "payloads", test_payloads },
	{ "hostile text", test_hostile_text },
	{ "a connection cut at every byte", test_cut_everywhere },
	{ "frames that come byte by byte", test_byte_by_byte },
	{ "no room for data", test_no_room },
	{ "data to the source", test_data_to_the_source },
	{ "noise", test_noise },
	{ "silence", test_silence },
	{ "a peer that does not read", test_deaf_peer },
	{ "a peer that talks, but does not read", test_talkative_peer },
	{ "an error of the peer", test_error_of_peer },
	{ "a peer that is in a system call for long", test_blocked_peer },
	{ "DATA before HELLO", test_data_before_hello },
	{ "policy: expected downtime", test_downtime },
	{ "policy: downtime", test_goal_downtime },
	{ "policy: total time", test_goal_total_time },
	{ "policy: rates", test_rates },
	{ "policy: a limit of the bandwidth", test_limit },
	{ "policy: pre-copy that stalls", test_stall },
	{ "policy: a device that does not end", test_endless },
	{ "command lines", test_options },
	{ "rates on the command line", test_rates_as_text },
	{ "JSON", test_json },
	{ "UTF-8", test_utf8 },
	{ "files that are complete or not there", test_atomic_file },
	{ "files: only the owner of a new one can read it", test_file_modes },
	{ "files: one that is replaced keeps its owner", test_file_owner },
	{ "files: symbolic links are followed", test_links },
	{ "files: the longest names", test_long_names },
	{ "files: pipes and devices are written to", test_special_files },
	{ "files: what is open keeps its place", test_open_files },
	{ "files: no summary where data goes", test_data_on_stdout },
	{ "addresses", test_addresses },
	{ "ports that are none", test_ports },
	{ "every address of a name is tried", test_every_address_of_a_name },
	{ "a signal while a name is looked up", test_signal_during_look_up },
	{ "strays before the source", test_strays },
	{ "many strays", test_many_strays },
	{ "progress keeps the time left", test_progress_keeps_the_time_left },
	{ "numbers as text", test_texts },
	{ "standard files that are closed", test_standard_files },
	{ "every signal that ends a program", test_signals },
	{ "signals that the caller ignores", test_ignored_signals },
};

int main(void)
{
	int failed = 0;
	size_t i;

	signals_init();
	silent = true;
	quiet = true;
	name_socket();
	printf("TAP version 13\n1..%zu\n", ARRAY_LEN(tests));
	for (i = 0; i < ARRAY_LEN(tests); i++) {
		failures = 0;
		tests[i].run();
		printf("%sok %zu - unit: %s\n", failures ? "not " : "", i + 1, tests[i].name);
		failed += !!failures;
	}
	return failed ? EXIT_FAILURE : EXIT_SUCCESS;
}
