// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_stream.h>
#include <libvfio/precopy_tracking.h>

#define REPORT_PAGES	4
#define CHUNK		SZ_64K

static void replica_begin(struct precopy_tracking *t)
{
	precopy_replica_init(&t->replica, t->a.size);
	t->image = t->replica.image;
	t->sent = t->replica.reports;
}

void tracking_open(struct precopy_tracking *t, char **bdfs, size_t size)
{
	memset(t, 0, sizeof(*t));
	t->data_fd = -1;
	t->seed = 1000;
	precopy_open(&t->a, bdfs[0], NULL, size);
	precopy_open(&t->b, bdfs[1], NULL, size);
	replica_begin(t);
	t->stored = calloc_assert(precopy_nr_pages(&t->a), sizeof(*t->stored));
	t->due = calloc_assert(precopy_nr_pages(&t->a), sizeof(*t->due));
}

void tracking_close(struct precopy_tracking *t)
{
	if (t->data_fd >= 0)
		close(t->data_fd);
	mig_stream_free(&t->stream);
	precopy_replica_free(&t->replica);
	precopy_close(&t->a);
	precopy_close(&t->b);
	free(t->stored);
	free(t->due);
}

/* Applies what the stream has beyond the bytes applied so far. */
static void replay(struct precopy_tracking *t)
{
	size_t len = t->stream.len - t->replayed;

	VFIO_ASSERT_EQ(precopy_replica_feed(&t->replica,
					    t->stream.data + t->replayed, len),
		       0);
	/* It never pauses within a record. */
	VFIO_ASSERT_EQ(t->replica.rest.len, 0);
	t->replayed = t->stream.len;
}

static void collect(struct precopy_tracking *t, int end)
{
	u64 page, nr = precopy_nr_pages(&t->a);

	memcpy(t->due, t->stored, nr * sizeof(*t->due));
	precopy_replica_clear_reports(&t->replica);
	VFIO_ASSERT_EQ(mig_stream_drain(&t->stream, t->data_fd, CHUNK), end);
	replay(t);
	for (page = 0; page < nr; page++)
		t->stored[page] &= !t->sent[page];
}

void tracking_collect(struct precopy_tracking *t)
{
	collect(t, -ENOMSG);
}

void tracking_begin(struct precopy_tracking *t)
{
	precopy_fill(&t->a, 0, 64, 1, BY_MMAP);
	precopy_fill(&t->a, 600, 8, 1, BY_PWRITE);
	VFIO_ASSERT_EQ(mig_set_state(t->a.dev, VFIO_DEVICE_STATE_PRE_COPY,
				     &t->data_fd), 0);
	tracking_collect(t);
}

void tracking_end(struct precopy_tracking *t)
{
	VFIO_ASSERT_EQ(mig_set_state(t->a.dev, VFIO_DEVICE_STATE_RUNNING, NULL),
		       0);
	close(t->data_fd);
	t->data_fd = -1;
	t->stream.len = 0;
	t->replayed = 0;
	precopy_replica_free(&t->replica);
	replica_begin(t);
}

void tracking_stored(struct precopy_tracking *t, u64 page, u64 seed)
{
	precopy_pattern(t->a.shadow + page * PRECOPY_PAGE, page, seed);
	t->stored[page] = true;
}

u64 tracking_lost(struct precopy_tracking *t)
{
	u64 page, at, lost = 0;

	for (page = 0; page < precopy_nr_pages(&t->a); page++) {
		at = page * PRECOPY_PAGE;
		if (!memcmp(t->image + at, t->a.shadow + at, PRECOPY_PAGE))
			continue;
		if (lost++ < REPORT_PAGES)
			fprintf(stderr, "# page %lu lacks the last store (sent %u times)\n",
				page, t->sent[page]);
	}

	return lost;
}

u64 tracking_surplus(struct precopy_tracking *t)
{
	u64 page, surplus = 0;

	for (page = 0; page < precopy_nr_pages(&t->a); page++) {
		if (t->sent[page] <= t->due[page])
			continue;
		if (surplus++ < REPORT_PAGES)
			fprintf(stderr, "# page %lu was sent %u times, and %sstored to\n",
				page, t->sent[page],
				t->due[page] ? "" : "not ");
	}

	return surplus;
}

u64 tracking_carry(struct precopy_tracking *t)
{
	tracking_collect(t);
	return tracking_lost(t) + tracking_surplus(t);
}

u64 tracking_dirty_bytes(struct precopy_tracking *t)
{
	struct vfio_precopy_info info = {};

	VFIO_ASSERT_EQ(mig_precopy_info(t->data_fd, &info), 0);
	return info.dirty_bytes;
}

u64 tracking_want(struct precopy_tracking *t)
{
	u64 page, nr = 0;

	for (page = 0; page < precopy_nr_pages(&t->a); page++)
		nr += t->stored[page];

	return nr * TRACKING_PAGE_COST;
}

u64 tracking_stop(struct precopy_tracking *t)
{
	VFIO_ASSERT_EQ(mig_set_state(t->a.dev, VFIO_DEVICE_STATE_STOP_COPY,
				     NULL), 0);
	collect(t, 0);
	VFIO_ASSERT_LT(0, wire_walk(&t->stream, NULL, NULL));
	return tracking_lost(t) + precopy_differ(&t->a, t->a.shadow);
}

u64 tracking_finish(struct precopy_tracking *t)
{
	u64 wrong = tracking_stop(t);

	VFIO_ASSERT_EQ(mig_load(t->b.dev, &t->stream, CHUNK), 0);
	wrong += precopy_differ(&t->b, t->a.shadow);

	return wrong;
}

void tracking_by_store(void *arg, u64 page, u64 seed)
{
	struct precopy_tracking *t = arg;

	precopy_pattern(t->a.bar + page * PRECOPY_PAGE, page, seed);
	tracking_stored(t, page, seed);
}

void tracking_store_pages(struct precopy_tracking *t, tracking_way_fn way,
			  void *arg, int pass)
{
	static const u64 pages[TRACKING_PER_PASS - 1] = { 0, 7, 8, 63, 601 };
	u64 page;
	int i;

	for (i = 0; i < TRACKING_PER_PASS; i++) {
		/* The last one may not be in use yet. */
		page = i < TRACKING_PER_PASS - 1 ? pages[i] : 300 + pass * 5U;
		way(arg, page, ++t->seed);
	}
}

u64 tracking_passes(struct precopy_tracking *t, tracking_way_fn way, void *arg)
{
	u64 want, wrong;
	int pass;

	tracking_begin(t);
	wrong = tracking_lost(t);
	for (pass = 0; pass < TRACKING_PASSES; pass++) {
		tracking_store_pages(t, way, arg, pass);
		want = tracking_want(t);
		if (tracking_dirty_bytes(t) != want) {
			fprintf(stderr, "# pass %d: dirty_bytes is %lu, not %lu\n",
				pass, tracking_dirty_bytes(t), want);
			wrong++;
		}
		if (pass < TRACKING_PASSES - 1)
			wrong += tracking_carry(t);
	}

	return wrong + tracking_finish(t);
}
