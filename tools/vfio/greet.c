// SPDX-License-Identifier: GPL-2.0-only
/*
 * Whatever connects before the source does must not end the wait for it: a port scan, a
 * health check, another program that sees whether somebody listens. And one that is
 * silent must not keep the source waiting: so several may be open at a time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "channel.h"
#include "greet.h"
#include "util.h"

/* Strays that are reported one by one */
#define TOLD_STRAYS	10
/* Connections taken before those that are open are looked at */
#define ACCEPT_BATCH	16

/**
 * struct guest - a connection that has not said what it is
 * @ch: the connection
 * @who: name of the other side, for messages
 * @since: when it came
 */
struct guest {
	struct channel	ch;
	char		who[96];
	uint64_t	since;
};

/**
 * struct lobby - all of these
 * @listener: where they come from
 * @timeout_ns: time that one has for its HELLO, in nanoseconds
 * @guest: the connections, the oldest first; they do not move, as @ch does not
 * @nr: number of connections in @guest
 * @strays: number of connections that came to nothing
 */
struct lobby {
	struct listener	*listener;
	uint64_t	timeout_ns;
	struct guest	*guest[GREET_WAITING];
	int		nr;
	unsigned int	strays;
};

static void forget(struct lobby *lobby, int i)
{
	free(lobby->guest[i]);
	lobby->nr--;
	memmove(&lobby->guest[i], &lobby->guest[i + 1],
		(lobby->nr - i) * sizeof(lobby->guest[0]));
}

static void turn_away(struct lobby *lobby, int i, const char *why)
{
	struct guest *guest = lobby->guest[i];

	lobby->strays++;
	if (lobby->strays <= TOLD_STRAYS)
		say("a connection from %s is not from a source: %s", guest->who, why);
	else
		detail("a connection from %s is not from a source: %s", guest->who, why);
	if (lobby->strays == TOLD_STRAYS)
		say("further such connections are not reported");
	channel_send_failure(&guest->ch, why);
	close(guest->ch.fd);
	forget(lobby, i);
}

static bool add_guest(struct lobby *lobby, int fd, const char *who)
{
	struct guest *guest = malloc(sizeof(*guest));

	if (!guest)
		return false;
	if (lobby->nr == GREET_WAITING)
		turn_away(lobby, 0, "too many other connections came before it sent HELLO");
	channel_init(&guest->ch, fd, lobby->timeout_ns);
	guest->ch.only = FRAME_HELLO;
	guest->since = now_ns();
	snprintf(guest->who, sizeof(guest->who), "%s", who);
	lobby->guest[lobby->nr++] = guest;
	detail("a connection from %s", who);
	return true;
}

static void let_in(struct lobby *lobby, int from)
{
	char who[96];
	int fd, nr;

	for (nr = 0; nr < ACCEPT_BATCH; nr++) {
		if (!endpoint_accept(lobby->listener, from, &fd, who, sizeof(who))) {
			/* Out of file descriptors, say: the connection stays there */
			if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
				wait_fds(NULL, 0, now_ns() + 100 * NS_PER_MS);
			return;
		}
		if (!add_guest(lobby, fd, who))
			close(fd);
	}
}

/* One that sends nothing looks whether somebody listens: that is not worth a word */
static bool was_a_probe(const struct guest *guest)
{
	return !guest->ch.have && !guest->ch.received;
}

/* Returns true if this is the source */
static bool hear(struct lobby *lobby, int i)
{
	struct guest *guest = lobby->guest[i];
	bool complete, was_silent = silent;
	char why[256];
	int ret;

	silent = true;
	ret = channel_receive(&guest->ch, &complete);
	silent = was_silent;
	if (!ret && complete)
		return true;
	if (!ret && now_ns() - guest->since < lobby->timeout_ns)
		return false;
	if (ret && was_a_probe(guest)) {
		detail("the connection from %s was closed again", guest->who);
		lobby->strays++;
		close(guest->ch.fd);
		forget(lobby, i);
		return false;
	}
	snprintf(why, sizeof(why), "%s", ret ? last_failure() : "it has not sent HELLO in time");
	turn_away(lobby, i, why);
	return false;
}

/* Until something comes, or the time of the oldest guest is over */
static void wait_for_guests(const struct lobby *lobby, uint64_t deadline)
{
	struct pollfd pfd[ENDPOINT_PLACES + GREET_WAITING];
	int i, nr = 0;

	for (i = 0; i < lobby->listener->nr; i++)
		pfd[nr++] = (struct pollfd){ .fd = lobby->listener->fd[i], .events = POLLIN };
	for (i = 0; i < lobby->nr; i++)
		pfd[nr++] = (struct pollfd){ .fd = lobby->guest[i]->ch.fd, .events = POLLIN };
	if (lobby->nr)
		deadline = min_u64(deadline, lobby->guest[0]->since + lobby->timeout_ns);
	wait_fds(pfd, nr, deadline);
}

/* Returns the index of the source, -1 if it has not come */
static int look_round(struct lobby *lobby)
{
	int i;

	for (i = 0; i < lobby->listener->nr; i++)
		let_in(lobby, i);
	/* Backwards: those that are turned away leave a gap */
	for (i = lobby->nr - 1; i >= 0; i--)
		if (hear(lobby, i))
			return i;
	return -1;
}

static int check_patience(const struct lobby *lobby, uint64_t deadline)
{
	if (lobby->strays >= GREET_STRAYS)
		return fail(ST_PEER, "%u connections have come, and none was from a source",
			    lobby->strays);
	if (now_ns() < deadline)
		return ST_OK;
	if (lobby->strays + lobby->nr)
		return fail(ST_PEER, "no source has connected in time, but %u others have",
			    lobby->strays + lobby->nr);
	return fail(ST_PEER, "nobody has connected in time");
}

int greet_source(struct listener *listener, uint64_t deadline, uint64_t timeout_ns, int *fd,
		 struct frame_hello *hello)
{
	struct lobby lobby = { .listener = listener, .timeout_ns = timeout_ns };
	int i, ret;

	for (;;) {
		i = look_round(&lobby);
		ret = i >= 0 ? ST_OK : interrupted() ?: check_patience(&lobby, deadline);
		if (i >= 0 || ret)
			break;
		wait_for_guests(&lobby, deadline);
	}
	if (i >= 0) {
		frame_get_hello(lobby.guest[i]->ch.payload, hello);
		*fd = lobby.guest[i]->ch.fd;
		detail("the source is %s", lobby.guest[i]->who);
		forget(&lobby, i);
	}
	while (lobby.nr) {
		close(lobby.guest[0]->ch.fd);
		forget(&lobby, 0);
	}
	return ret;
}
