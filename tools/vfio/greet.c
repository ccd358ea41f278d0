// SPDX-License-Identifier: GPL-2.0-only
/*
 * Connections that are not from a source, such as port scans and health checks, must not
 * end the wait for the source. A silent connection must not delay the source, so several
 * connections may be open at a time.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "channel.h"
#include "greet.h"
#include "util.h"

/* Number of connections that are reported individually */
#define TOLD_STRAYS	10
/* Number of connections to accept before the open ones are checked */
#define ACCEPT_BATCH	16

/**
 * struct guest - a connection that has not sent HELLO yet
 * @ch: the connection
 * @who: name of the peer, for messages
 * @since: time of the connection
 */
struct guest {
	struct channel	ch;
	char		who[96];
	uint64_t	since;
};

/**
 * struct lobby - all connections that have not sent HELLO yet
 * @listener: sockets on which they arrive
 * @timeout_ns: time in ns in which a connection must send HELLO
 * @guest: connections, the oldest first; allocated one by one, because @ch must
 *	not move
 * @nr: number of connections in @guest
 * @strays: number of connections that were not from a source
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
			/*
			 * The connection stays in the queue, for example without free file
			 * descriptors
			 */
			if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
				wait_fds(NULL, 0, now_ns() + 100 * NS_PER_MS);
			return;
		}
		if (!add_guest(lobby, fd, who))
			close(fd);
	}
}

/* A connection that sends nothing only checks for a listener, and is not reported */
static bool was_a_probe(const struct guest *guest)
{
	return !guest->ch.have && !guest->ch.received;
}

/* Handle data of a connection. Returns true if it is the source. */
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

/* Wait for data, or until the timeout of the oldest connection */
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

/* Returns the index of the source, -1 if there is none yet */
static int look_round(struct lobby *lobby)
{
	int i;

	for (i = 0; i < lobby->listener->nr; i++)
		let_in(lobby, i);
	/* Iterate backwards, because a closed connection is removed from the array */
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
