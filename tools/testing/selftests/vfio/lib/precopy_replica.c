// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/sizes.h>
#include <linux/types.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_replica.h>

void precopy_replica_init(struct precopy_replica *replica, size_t memory_size)
{
	memset(replica, 0, sizeof(*replica));
	replica->nr_pages = memory_size / PRECOPY_PAGE;
	replica->image = calloc_assert(1, memory_size);
	replica->reports = calloc_assert(replica->nr_pages, sizeof(u32));
}

void precopy_replica_free(struct precopy_replica *replica)
{
	mig_stream_free(&replica->rest);
	mig_stream_free(&replica->piece);
	free(replica->reports);
	free(replica->image);
	memset(replica, 0, sizeof(*replica));
}

void precopy_replica_clear_reports(struct precopy_replica *replica)
{
	memset(replica->reports, 0, replica->nr_pages * sizeof(u32));
	replica->nr_reports = 0;
	replica->nr_news = 0;
}

static int bad(const char *what)
{
	fprintf(stderr, "# stream: %s\n", what);
	return -EBADMSG;
}

/* Without @data the pages become zero. */
static int replica_pages(struct precopy_replica *replica, u64 offset,
			 const u8 *data, u64 length)
{
	static const u8 zero[PRECOPY_PAGE];
	u64 page = offset / PRECOPY_PAGE, nr = length / PRECOPY_PAGE;
	const u8 *from;
	u8 *to;

	if (offset % PRECOPY_PAGE || length % PRECOPY_PAGE ||
	    page > replica->nr_pages || nr > replica->nr_pages - page)
		return bad("pages that are not in the memory");
	for (; nr; nr--, page++) {
		from = data ?: zero;
		to = replica->image + page * PRECOPY_PAGE;
		replica->reports[page]++;
		replica->nr_reports++;
		if (memcmp(to, from, PRECOPY_PAGE))
			replica->nr_news++;
		memcpy(to, from, PRECOPY_PAGE);
		if (data)
			data += PRECOPY_PAGE;
	}

	return 0;
}

static int replica_record(struct precopy_replica *replica,
			  const struct wire_record *record, const u8 *payload)
{
	u64 length;

	if (replica->ended)
		return bad("a record after END");

	switch (record->type) {
	case WIRE_DATA:
		return replica_pages(replica, record->offset, payload,
				     record->length);
	case WIRE_ZERO:
		if (record->length != sizeof(length))
			return bad("bad length of ZERO");
		memcpy(&length, payload, sizeof(length));
		return replica_pages(replica, record->offset, NULL, length);
	case WIRE_END:
		replica->ended = true;
		return 0;
	case WIRE_PREFACE:
	case WIRE_INITIAL_END:
	case WIRE_STATE:
	case WIRE_ENGINE:
	case WIRE_WINDOW:
		return 0;
	default:
		return bad("a record of unknown type");
	}
}

int precopy_replica_feed(struct precopy_replica *replica, const void *data,
			 size_t len)
{
	struct mig_stream *rest = &replica->rest;
	struct wire_record record;
	size_t pos = 0, skip;
	int ret = 0;

	mig_stream_append(rest, data, len);
	if (replica->header < sizeof(struct wire_header)) {
		skip = sizeof(struct wire_header) - replica->header;
		pos = skip < rest->len ? skip : rest->len;
		replica->header += pos;
	}
	while (!ret && rest->len - pos >= sizeof(record)) {
		memcpy(&record, rest->data + pos, sizeof(record));
		if (rest->len - pos - sizeof(record) < record.length)
			break;
		pos += sizeof(record);
		ret = replica_record(replica, &record, rest->data + pos);
		pos += record.length;
	}
	rest->len -= pos;
	memmove(rest->data, rest->data + pos, rest->len);

	return ret;
}

int precopy_replica_drain(struct precopy_replica *replica, int data_fd,
			  int to_fd)
{
	struct mig_stream *piece = &replica->piece;
	ssize_t got;
	int ret;

	for (;;) {
		piece->len = 0;
		got = mig_stream_read(piece, data_fd, SZ_64K);
		if (got <= 0)
			return got;
		ret = precopy_replica_feed(replica, piece->data, piece->len);
		if (!ret && to_fd >= 0)
			ret = mig_write_all(to_fd, piece->data, piece->len,
					    SZ_64K, NULL);
		if (ret)
			return ret;
	}
}
