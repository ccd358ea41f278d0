/* SPDX-License-Identifier: GPL-2.0-only */
/* Addresses: HOST:PORT, [V6]:PORT and unix:PATH. */
#ifndef VFIO_MIGRATE_ENDPOINT_H
#define VFIO_MIGRATE_ENDPOINT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Maximum number of addresses of one name */
#define ENDPOINT_PLACES	8

/**
 * struct listener - sockets that listen on all addresses of a name
 * @unix_path: path of a unix socket in the file system, "" for others
 * @fd: file descriptors of the sockets
 * @nr: number of sockets
 */
struct listener {
	char	unix_path[108];
	int	fd[ENDPOINT_PLACES];
	int	nr;
};

/*
 * Check the syntax of @address, without looking up a name. Prints the error with the name
 * of the @option. Port 0 is valid only for listening.
 */
int endpoint_check(const char *option, const char *address, bool listening);

/*
 * Connect, and return the socket in @fd. All addresses of the name are tried repeatedly
 * until one accepts, or until @deadline.
 */
int endpoint_connect(const char *address, uint64_t deadline, int *fd);

/* Listen, and print the address, which the user needs to know with port 0. */
int endpoint_listen(const char *address, uint64_t deadline, struct listener *listener);

/*
 * Accept a connection to @listener->fd[i], if there is one. Returns true with the
 * connection in @fd and a name of the peer in @who.
 */
bool endpoint_accept(const struct listener *listener, int i, int *fd, char *who, size_t size);

/* Close the sockets, and remove a unix socket from the file system. */
void endpoint_close(struct listener *listener);

#endif /* VFIO_MIGRATE_ENDPOINT_H */
