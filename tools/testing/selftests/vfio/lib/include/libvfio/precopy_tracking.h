/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A migration between two devices of which each collect is judged by itself.
 * What the stream has brought is replayed into an image in the memory of the
 * test, so that it is known right after a collect, and long before the target
 * loads, which stores it has carried and which pages it need not have sent.
 * What there was to carry is known from the shadow and from the notes of the
 * test. No counter of the driver has a part in it.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_TRACKING_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_TRACKING_H

#include <libvfio/precopy_device.h>
#include <libvfio/precopy_replica.h>
#include <libvfio/precopy_stream.h>

/* What dirty_bytes counts a page at. */
#define TRACKING_PAGE_COST	(PRECOPY_PAGE + sizeof(struct wire_record))

struct precopy_tracking {
	struct precopy_dev a;		/* the source */
	struct precopy_dev b;		/* the target */
	struct mig_stream stream;
	int data_fd;			/* of the source, -1 before */
	struct precopy_replica replica;	/* what a target would hold by now */
	size_t replayed;		/* bytes of the stream that @replica has */
	u8 *image;			/* the memory of @replica */
	u32 *sent;			/* by page: how often in this collect */
	bool *stored;			/* by page: since it was sent last */
	bool *due;			/* the same, before this collect */
	u64 seed;			/* of the last pattern stored */
};

void tracking_open(struct precopy_tracking *t, char **bdfs, size_t size);
void tracking_close(struct precopy_tracking *t);

/* Some contents, then into pre-copy and past the initial data. */
void tracking_begin(struct precopy_tracking *t);

/* Back to RUNNING, for another tracking_begin(). */
void tracking_end(struct precopy_tracking *t);

/* The shadow gets the pattern that the caller stores, or has stored. */
void tracking_stored(struct precopy_tracking *t, u64 page, u64 seed);

/* The same for a store of something else, of which the shadow knows already. */
static inline void tracking_touched(struct precopy_tracking *t, u64 page)
{
	t->stored[page] = true;
}

/* Reads the stream up to its temporary end. */
void tracking_collect(struct precopy_tracking *t);

/* After a collect: pages that the image should have other contents of... */
u64 tracking_lost(struct precopy_tracking *t);
/* ...and pages that were sent without need: not stored to, or twice. */
u64 tracking_surplus(struct precopy_tracking *t);

/* A collect that carries everything, and nothing twice: all of these together. */
u64 tracking_carry(struct precopy_tracking *t);

u64 tracking_dirty_bytes(struct precopy_tracking *t);
/* What that must be, by the notes of the test. */
u64 tracking_want(struct precopy_tracking *t);

/*
 * Stops the source, takes the rest, and lets the target load it all. Returns
 * the number of pages that are wrong anywhere.
 */
u64 tracking_finish(struct precopy_tracking *t);

/* The same without the target, which may be in use for something else. */
u64 tracking_stop(struct precopy_tracking *t);

/*
 * One way to store something that depends on @seed to @page of the source, and to
 * note it down with tracking_stored() or tracking_touched().
 */
typedef void (*tracking_way_fn)(void *arg, u64 page, u64 seed);

/* The simplest one: a store to the mapping. @arg is the struct. */
void tracking_by_store(void *arg, u64 page, u64 seed);

/* Stores to a few pages, the same in every pass, and to one of its own. */
#define TRACKING_PER_PASS	6
void tracking_store_pages(struct precopy_tracking *t, tracking_way_fn way,
			  void *arg, int pass);

/*
 * A whole migration, of which all passes but the first store after a collect,
 * through what was there before it. Returns the number of pages that a collect
 * or the target got wrong.
 */
#define TRACKING_PASSES		4
u64 tracking_passes(struct precopy_tracking *t, tracking_way_fn way, void *arg);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_TRACKING_H */
