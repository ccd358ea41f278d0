// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "endpoint.h"
#include "util.h"

/**
 * struct place - one address of a name
 * @addr: the address
 * @len: length of @addr
 */
struct place {
	struct sockaddr_storage	addr;
	socklen_t		len;
};

/**
 * struct endpoint - an address to connect to or to listen on
 * @text: address on the command line
 * @host: name or number of a host; "" for a unix socket
 * @port: number or service name
 * @at: addresses of the name
 * @nr: number of addresses in @at
 */
struct endpoint {
	const char	*text;
	char		host[256];
	char		port[32];
	struct place	at[ENDPOINT_PLACES];
	int		nr;
};

static int parse_unix(struct endpoint *ep, const char *path)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&ep->at[0].addr;

	if (!*path || strlen(path) >= sizeof(un->sun_path))
		return fail(ST_USAGE, "'%s': a socket's path has 1 to %zu characters", ep->text,
			    sizeof(un->sun_path) - 1);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, strlen(path) + 1);
	ep->at[0].len = sizeof(*un);
	ep->nr = 1;
	return ST_OK;
}

static const char *unix_path(const struct endpoint *ep)
{
	return ep->host[0] ? NULL : ((const struct sockaddr_un *)&ep->at[0].addr)->sun_path;
}

/* The port follows the last colon; brackets are removed */
static bool split_host(struct endpoint *ep, const char *text)
{
	const char *colon = strrchr(text, ':');
	size_t len;

	if (!colon || !colon[1] || strlen(colon + 1) >= sizeof(ep->port))
		return false;
	len = colon - text;
	snprintf(ep->port, sizeof(ep->port), "%s", colon + 1);
	if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
	}
	if (!len || len >= sizeof(ep->host))
		return false;
	memcpy(ep->host, text, len);
	ep->host[len] = '\0';
	return true;
}

/* The C library accepts any number and uses its low 16 bits, so check the range */
static bool port_valid(const char *port)
{
	/* Otherwise the port is the name of a service */
	if (!strchr("0123456789+- ", port[0]))
		return true;
	return strspn(port, "0123456789") == strlen(port) && strlen(port) <= 5 &&
	       atoi(port) <= 65535;
}

static int parse_tcp(struct endpoint *ep, const char *text)
{
	if (!split_host(ep, text))
		return fail(ST_USAGE, "'%s' is neither HOST:PORT nor unix:PATH", ep->text);
	if (!port_valid(ep->port))
		return fail(ST_USAGE, "'%s': a port is a number from 0 to 65535, not '%s'",
			    ep->text, ep->port);
	return ST_OK;
}

static int parse(struct endpoint *ep, const char *text)
{
	*ep = (struct endpoint){ .text = text };
	if (!strncmp(text, "unix:", 5))
		return parse_unix(ep, text + 5);
	return parse_tcp(ep, strncmp(text, "tcp:", 4) ? text : text + 4);
}

int endpoint_check(const char *option, const char *address, bool listening)
{
	bool was_silent = silent;
	struct endpoint ep;
	char why[256];
	int ret;

	silent = true;
	ret = parse(&ep, address);
	if (!ret && !listening && ep.host[0] && strspn(ep.port, "0") == strlen(ep.port))
		ret = fail(ST_USAGE, "'%s': port 0 is for listening only", address);
	silent = was_silent;
	if (!ret)
		return ST_OK;
	snprintf(why, sizeof(why), "%s", last_failure());
	return fail(ret, "%s: %s", option, why);
}

/* --- Looking names up ------------------------------------------------------------------- */

/**
 * struct lookup - the lookup of a name by a thread
 * @host: name or number of the host
 * @port: number or service name
 * @done: eventfd that is written when the thread is done
 * @ret: result of getaddrinfo()
 * @info: addresses found by getaddrinfo()
 *
 * After a timeout the thread still uses the structure, until the process ends.
 */
struct lookup {
	char		host[256];
	char		port[32];
	int		done;
	int		ret;
	struct addrinfo	*info;
};

static void *look_up(void *arg)
{
	const struct addrinfo hints = { .ai_socktype = SOCK_STREAM };
	struct lookup *lookup = arg;

	lookup->ret = getaddrinfo(lookup->host, lookup->port, &hints, &lookup->info);
	eventfd_write(lookup->done, 1);
	return NULL;
}

static struct lookup *start_lookup(const struct endpoint *ep)
{
	struct lookup *lookup = calloc(1, sizeof(*lookup));
	pthread_t thread;

	if (!lookup)
		return NULL;
	memcpy(lookup->host, ep->host, sizeof(lookup->host));
	memcpy(lookup->port, ep->port, sizeof(lookup->port));
	lookup->done = eventfd(0, EFD_CLOEXEC);
	if (lookup->done >= 0 && !pthread_create(&thread, NULL, look_up, lookup)) {
		pthread_detach(thread);
		return lookup;
	}
	if (lookup->done >= 0)
		close(lookup->done);
	free(lookup);
	return NULL;
}

static void take_places(struct endpoint *ep, const struct addrinfo *info)
{
	for (ep->nr = 0; info && ep->nr < ENDPOINT_PLACES; info = info->ai_next) {
		memcpy(&ep->at[ep->nr].addr, info->ai_addr, info->ai_addrlen);
		ep->at[ep->nr].len = info->ai_addrlen;
		ep->nr++;
	}
}

static int end_lookup(struct endpoint *ep, struct lookup *lookup)
{
	int ret = lookup->ret;

	if (!ret) {
		take_places(ep, lookup->info);
		freeaddrinfo(lookup->info);
	}
	close(lookup->done);
	free(lookup);
	if (!ret)
		return ST_OK;
	return fail(ret == EAI_NONAME || ret == EAI_SERVICE ? ST_USAGE : ST_PEER, "'%s': %s",
		    ep->text, gai_strerror(ret));
}

/* getaddrinfo() cannot be interrupted by a signal, so a thread calls it */
static int resolve(struct endpoint *ep, uint64_t deadline)
{
	struct pollfd pfd = { .events = POLLIN };
	struct lookup *lookup;
	int ret;

	if (!ep->host[0])
		return ST_OK;
	lookup = start_lookup(ep);
	if (!lookup)
		return fail(ST_FAILED, "'%s': the thread that looks up the name cannot be started",
			    ep->text);
	pfd.fd = lookup->done;
	while (wait_fds(&pfd, 1, deadline) <= 0) {
		ret = interrupted();
		if (ret)
			return ret;
		if (now_ns() >= deadline)
			return fail(ST_PEER, "'%s': the name server does not answer", ep->text);
	}
	return end_lookup(ep, lookup);
}

static void name_place(const struct place *at, char *buf, size_t size)
{
	char host[64], port[16];

	if (getnameinfo((const struct sockaddr *)&at->addr, at->len, host, sizeof(host), port,
			sizeof(port), NI_NUMERICHOST | NI_NUMERICSERV))
		snprintf(buf, size, "somebody");
	else
		snprintf(buf, size, "%s port %s", host, port);
}

static void set_nodelay(int fd)
{
	int one = 1;

	/* Send small frames at once, because they are queries and answers */
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
}

static int new_socket(const struct place *at)
{
	int fd = socket(at->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	if (fd >= 0 && at->addr.ss_family != AF_UNIX)
		set_nodelay(fd);
	return fd;
}

/* --- Connecting --------------------------------------------------------------------- */

/* Returns a negative errno, like all functions here that print no message */
static int connected(int fd, uint64_t deadline)
{
	struct pollfd pfd = { .fd = fd, .events = POLLOUT };
	socklen_t len = sizeof(int);
	int error = 0;

	while (!wait_fds(&pfd, 1, deadline)) {
		if (interrupted())
			return -EINTR;
		if (now_ns() >= deadline)
			return -ETIMEDOUT;
	}
	getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &len);
	return -error;
}

/* A listener may begin to listen shortly */
static bool worth_retrying(int error)
{
	return error == -ECONNREFUSED || error == -ENOENT || error == -EAGAIN ||
	       error == -ETIMEDOUT;
}

static int connect_once(const struct place *at, uint64_t deadline, int *fd)
{
	int error = 0;

	*fd = new_socket(at);
	if (*fd < 0)
		return -errno;
	if (connect(*fd, (const struct sockaddr *)&at->addr, at->len))
		error = errno == EINPROGRESS ? connected(*fd, deadline) : -errno;
	if (error)
		close(*fd);
	return error;
}

/* Limit the time of an address that does not answer, to try those after it */
static uint64_t share_of(uint64_t deadline, int nr)
{
	uint64_t now = now_ns();

	return deadline > now ? now + (deadline - now) / nr : now;
}

/* Try each address once. Returns an error that is worth a retry, if there is one. */
static int connect_round(const struct endpoint *ep, uint64_t deadline, int *fd)
{
	int i, error, worst = -EADDRNOTAVAIL;
	char where[96];

	for (i = 0; i < ep->nr; i++) {
		error = connect_once(&ep->at[i], share_of(deadline, ep->nr - i), fd);
		if (!error || error == -EINTR)
			return error;
		name_place(&ep->at[i], where, sizeof(where));
		if (ep->host[0])
			detail("%s: %s", where, strerror(-error));
		if (!worth_retrying(worst))
			worst = error;
	}
	return worst;
}

int endpoint_connect(const char *address, uint64_t deadline, int *fd)
{
	struct endpoint ep;
	int error, ret = parse(&ep, address) ?: resolve(&ep, deadline);

	if (ret)
		return ret;
	for (;;) {
		error = connect_round(&ep, deadline, fd);
		if (!error)
			return ST_OK;
		ret = interrupted();
		if (ret)
			return ret;
		if (!worth_retrying(error) || now_ns() >= deadline)
			break;
		wait_fds(NULL, 0, now_ns() + 100 * NS_PER_MS);
	}
	return fail(ST_PEER, "no connection to %s: %s", address, strerror(-error));
}

/* --- Listening ------------------------------------------------------------------------ */

/* A socket without a listener was left behind by a process that was killed */
static bool remove_stale(const struct place *at)
{
	const char *path = ((const struct sockaddr_un *)&at->addr)->sun_path;
	struct stat st;
	int fd, error;

	if (at->addr.ss_family != AF_UNIX || stat(path, &st) || !S_ISSOCK(st.st_mode))
		return false;
	error = connect_once(at, now_ns(), &fd);
	if (!error)
		close(fd);
	return error == -ECONNREFUSED && !unlink(path);
}

static int bind_to(const struct place *at, int fd)
{
	/* A process that can connect can load a state into the device */
	mode_t mask = umask(0177);
	int ret = bind(fd, (const struct sockaddr *)&at->addr, at->len);

	if (ret && errno == EADDRINUSE && remove_stale(at))
		ret = bind(fd, (const struct sockaddr *)&at->addr, at->len);
	umask(mask);
	return ret;
}

/* Returns the socket, or a negative errno */
static int listen_once(const struct place *at)
{
	int one = 1, error, fd = new_socket(at);

	if (fd < 0)
		return -errno;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (!bind_to(at, fd) && !listen(fd, 16))
		return fd;
	error = -errno;
	close(fd);
	return error;
}

static void say_where(const struct endpoint *ep, int fd)
{
	struct place at = { .len = sizeof(at.addr) };
	char where[96];

	if (!ep->host[0] || getsockname(fd, (struct sockaddr *)&at.addr, &at.len)) {
		say("listening at %s", ep->text);
		return;
	}
	name_place(&at, where, sizeof(where));
	say("listening at %s", where);
}

/* Listening on those addresses that this host has is enough */
static int listen_at_all(const struct endpoint *ep, struct listener *listener)
{
	bool any_port = ep->host[0] && atoi(ep->port) == 0 && ep->port[0] == '0';
	int i, fd, error = -EADDRNOTAVAIL;

	for (i = 0; i < ep->nr; i++) {
		fd = listen_once(&ep->at[i]);
		if (fd < 0) {
			error = fd;
			continue;
		}
		listener->fd[listener->nr++] = fd;
		say_where(ep, fd);
		/* With port 0 the kernel would select another port for each address */
		if (any_port)
			break;
	}
	if (listener->nr)
		return ST_OK;
	return fail(ST_PEER, "cannot listen at %s: %s", ep->text, strerror(-error));
}

int endpoint_listen(const char *address, uint64_t deadline, struct listener *listener)
{
	struct endpoint ep;
	int ret = parse(&ep, address) ?: resolve(&ep, deadline);

	*listener = (struct listener){ };
	if (ret)
		return ret;
	ret = listen_at_all(&ep, listener);
	if (!ret && unix_path(&ep))
		snprintf(listener->unix_path, sizeof(listener->unix_path), "%s", unix_path(&ep));
	return ret;
}

static void name_peer(int fd, const struct place *at, char *buf, size_t size)
{
	struct ucred cred;
	socklen_t len = sizeof(cred);

	if (at->addr.ss_family != AF_UNIX)
		name_place(at, buf, size);
	else if (!getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len))
		snprintf(buf, size, "process %d", cred.pid);
	else
		snprintf(buf, size, "somebody");
}

bool endpoint_accept(const struct listener *listener, int i, int *fd, char *who, size_t size)
{
	struct place at = { .len = sizeof(at.addr) };

	*fd = accept4(listener->fd[i], (struct sockaddr *)&at.addr, &at.len,
		      SOCK_CLOEXEC | SOCK_NONBLOCK);
	if (*fd < 0)
		return false;
	if (at.addr.ss_family != AF_UNIX)
		set_nodelay(*fd);
	name_peer(*fd, &at, who, size);
	return true;
}

void endpoint_close(struct listener *listener)
{
	while (listener->nr)
		close(listener->fd[--listener->nr]);
	if (listener->unix_path[0])
		unlink(listener->unix_path);
	listener->unix_path[0] = '\0';
}
