/* SPDX-License-Identifier: GPL-2.0-only */
/* Addresses: HOST:PORT, [V6]:PORT and unix:PATH. */
#ifndef VFIO_MIGRATE_ENDPOINT_H
#define VFIO_MIGRATE_ENDPOINT_H

#include <stdint.h>

/* A connected socket in @fd. */
int endpoint_connect(const char *address, uint64_t deadline, int *fd);

/*
 * Wait for one connection. Says where, which matters for port 0; nothing of a
 * unix socket is left in the file system.
 */
int endpoint_accept(const char *address, uint64_t deadline, int *fd);

#endif /* VFIO_MIGRATE_ENDPOINT_H */
