/* SPDX-License-Identifier: GPL-2.0-only */
/* Addresses: HOST:PORT, [V6]:PORT and unix:PATH. */
#ifndef VFIO_MIGRATE_ENDPOINT_H
#define VFIO_MIGRATE_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Addresses of one name that are tried, or listened at */
#define ENDPOINT_PLACES	8

/**
 * struct listener - sockets that listen at all addresses of a name
 * @unix_path: name of a unix socket in the file system, "" for others
 * @fd: the sockets
 * @nr: their number
 */
struct listener {
	char	unix_path[108];
	int	fd[ENDPOINT_PLACES];
	int	nr;
};

/*
 * Is @address well-formed? Says why not, with the name of the @option. A port of 0 is
 * for listening only. No name is looked up.
 */
int endpoint_check(const char *option, const char *address, bool listening);

/*
 * A connected socket in @fd. As long as nobody listens, all addresses of the name are
 * tried again and again until @deadline.
 */
int endpoint_connect(const char *address, uint64_t deadline, int *fd);

/* Listen. Says where, which matters for port 0. */
int endpoint_listen(const char *address, uint64_t deadline, struct listener *listener);

/*
 * Take a connection to @listener->fd[i] if there is one now: returns true with it in
 * @fd and a name for the other side in @who.
 */
bool endpoint_accept(const struct listener *listener, int i, int *fd, char *who, size_t size);

/* Nothing of a unix socket is left in the file system. */
void endpoint_close(struct listener *listener);

#endif /* VFIO_MIGRATE_ENDPOINT_H */
