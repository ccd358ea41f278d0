// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "endpoint.h"
#include "util.h"

/**
 * struct endpoint - a place to connect to or to listen at
 * @text: as the user wrote it
 * @unix_path: of a unix socket, else NULL
 * @addr: its address
 * @len: length of that
 */
struct endpoint {
	const char		*text;
	const char		*unix_path;
	struct sockaddr_storage	addr;
	socklen_t		len;
};

static int parse_unix(struct endpoint *ep, const char *path)
{
	struct sockaddr_un *un = (struct sockaddr_un *)&ep->addr;

	if (!*path || strlen(path) >= sizeof(un->sun_path))
		return fail(ST_USAGE, "'%s': a socket's path has 1 to %zu characters", ep->text,
			    sizeof(un->sun_path) - 1);
	un->sun_family = AF_UNIX;
	memcpy(un->sun_path, path, strlen(path) + 1);
	ep->unix_path = un->sun_path;
	ep->len = sizeof(*un);
	return ST_OK;
}

/* The last colon is before the port; brackets go */
static bool split_host(const char *text, char *host, size_t size, const char **port)
{
	const char *colon = strrchr(text, ':');
	size_t len;

	if (!colon || !colon[1])
		return false;
	len = colon - text;
	if (len >= 2 && text[0] == '[' && text[len - 1] == ']') {
		text++;
		len -= 2;
	}
	if (!len || len >= size)
		return false;
	memcpy(host, text, len);
	host[len] = '\0';
	*port = colon + 1;
	return true;
}

static int parse_tcp(struct endpoint *ep, const char *text)
{
	struct addrinfo hints = { .ai_socktype = SOCK_STREAM }, *info;
	const char *port;
	char host[256];
	int ret;

	if (!split_host(text, host, sizeof(host), &port))
		return fail(ST_USAGE, "'%s' is neither HOST:PORT nor unix:PATH", ep->text);
	ret = getaddrinfo(host, port, &hints, &info);
	if (ret)
		return fail(ST_USAGE, "'%s': %s", ep->text, gai_strerror(ret));
	memcpy(&ep->addr, info->ai_addr, info->ai_addrlen);
	ep->len = info->ai_addrlen;
	freeaddrinfo(info);
	return ST_OK;
}

static int parse(struct endpoint *ep, const char *text)
{
	*ep = (struct endpoint){ .text = text };
	if (!strncmp(text, "unix:", 5))
		return parse_unix(ep, text + 5);
	return parse_tcp(ep, strncmp(text, "tcp:", 4) ? text : text + 4);
}

static int new_socket(const struct endpoint *ep)
{
	int one = 1;
	int fd = socket(ep->addr.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

	/* Small frames are questions and answers, and do not wait for company */
	if (fd >= 0 && !ep->unix_path)
		setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return fd;
}

/* --- Connecting --------------------------------------------------------------------- */

/* Returns an errno, negative, as all here that do not say why they fail */
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

/* Whoever listens may be about to */
static bool worth_retrying(int error)
{
	return error == -ECONNREFUSED || error == -ENOENT || error == -EAGAIN;
}

static int connect_once(const struct endpoint *ep, uint64_t deadline, int *fd)
{
	int error = 0;

	*fd = new_socket(ep);
	if (*fd < 0)
		return -errno;
	if (connect(*fd, (const struct sockaddr *)&ep->addr, ep->len))
		error = errno == EINPROGRESS ? connected(*fd, deadline) : -errno;
	if (error)
		close(*fd);
	return error;
}

int endpoint_connect(const char *address, uint64_t deadline, int *fd)
{
	struct endpoint ep;
	int error, ret = parse(&ep, address);

	if (ret)
		return ret;
	for (;;) {
		error = connect_once(&ep, deadline, fd);
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

/* A socket that nobody listens at was left by somebody who was killed */
static bool remove_stale(const struct endpoint *ep)
{
	struct stat st;
	int fd, error;

	if (!ep->unix_path || stat(ep->unix_path, &st) || !S_ISSOCK(st.st_mode))
		return false;
	error = connect_once(ep, now_ns(), &fd);
	if (!error)
		close(fd);
	return error == -ECONNREFUSED && !unlink(ep->unix_path);
}

static int bind_to(const struct endpoint *ep, int fd)
{
	/* Whoever can connect can put a state into the device */
	mode_t mask = umask(0177);
	int ret = bind(fd, (const struct sockaddr *)&ep->addr, ep->len);

	if (ret && errno == EADDRINUSE && remove_stale(ep))
		ret = bind(fd, (const struct sockaddr *)&ep->addr, ep->len);
	umask(mask);
	return ret;
}

static int start_listening(const struct endpoint *ep, int *fd)
{
	int one = 1;

	*fd = new_socket(ep);
	if (*fd < 0)
		return fail_errno(ST_PEER, "cannot listen at %s", ep->text);
	setsockopt(*fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (!bind_to(ep, *fd) && !listen(*fd, 1))
		return ST_OK;
	close(*fd);
	return fail_errno(ST_PEER, "cannot listen at %s", ep->text);
}

static void say_where(const struct endpoint *ep, int fd)
{
	struct sockaddr_storage addr;
	socklen_t len = sizeof(addr);
	char host[64], port[16];

	if (ep->unix_path || getsockname(fd, (struct sockaddr *)&addr, &len) ||
	    getnameinfo((struct sockaddr *)&addr, len, host, sizeof(host), port, sizeof(port),
			NI_NUMERICHOST | NI_NUMERICSERV))
		say("listening at %s", ep->text);
	else
		say("listening at %s port %s", host, port);
}

static int accept_one(int listener, uint64_t deadline, int *fd)
{
	struct pollfd pfd = { .fd = listener, .events = POLLIN };
	int ret;

	for (;;) {
		*fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);
		if (*fd >= 0)
			return ST_OK;
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			return fail_errno(ST_PEER, "no connection");
		ret = interrupted();
		if (ret)
			return ret;
		if (now_ns() >= deadline)
			return fail(ST_PEER, "nobody has connected in time");
		wait_fds(&pfd, 1, deadline);
	}
}

int endpoint_accept(const char *address, uint64_t deadline, int *fd)
{
	struct endpoint ep;
	int one = 1, listener, ret;

	ret = parse(&ep, address) ?: start_listening(&ep, &listener);
	if (ret)
		return ret;
	say_where(&ep, listener);
	ret = accept_one(listener, deadline, fd);
	close(listener);
	if (ep.unix_path)
		unlink(ep.unix_path);
	else if (!ret)
		setsockopt(*fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	return ret;
}
