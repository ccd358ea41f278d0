/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a migration stream makes of a memory: the stream is applied piece by
 * piece as it comes, and how often each page was in it is counted. An oracle of
 * what was reported; it takes no part in checking the stream's form beyond what
 * it needs (see wire_walk() for that).
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_REPLICA_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_REPLICA_H

#include <stddef.h>

#include <linux/types.h>

#include <libvfio/precopy_stream.h>
#include <libvfio/vfio_pci_migration.h>

struct precopy_replica {
	u8 *image;		/* the memory as far as it is known */
	u32 *reports;		/* for each page, how often it came */
	u64 nr_pages;
	u64 nr_reports;		/* all of them together */
	u64 nr_news;		/* those that changed the image */
	size_t header;		/* bytes of the file header seen */
	bool ended;		/* END was seen */
	struct mig_stream rest;	/* a record of which more must come */
	struct mig_stream piece;
};

void precopy_replica_init(struct precopy_replica *replica, size_t memory_size);
void precopy_replica_free(struct precopy_replica *replica);

/* The next bytes of the stream: 0, or -EBADMSG after saying why on stderr. */
int precopy_replica_feed(struct precopy_replica *replica, const void *data,
			 size_t len);

/* Forget what was reported until now; the image stays. */
void precopy_replica_clear_reports(struct precopy_replica *replica);

/*
 * Reads @data_fd to its end or temporary end, into the replica and, unless
 * @to_fd is -1, on to a device that resumes. Returns 0 or -ENOMSG as
 * mig_stream_drain(), or another negative errno.
 */
int precopy_replica_drain(struct precopy_replica *replica, int data_fd,
			  int to_fd);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_REPLICA_H */
