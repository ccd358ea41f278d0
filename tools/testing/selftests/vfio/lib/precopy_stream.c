// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <linux/types.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_stream.h>

#define CRC32C_POLY	0x82f63b78	/* Castagnoli, bits reversed */

static u32 crc32c_step(u32 crc, const void *data, size_t len)
{
	static u32 table[256];
	const u8 *p = data;
	u32 c;
	int i, k;

	/* Filled from the top: table[1] is written last and says "complete". */
	for (i = 255; !table[1] && i > 0; i--) {
		for (c = i, k = 0; k < 8; k++)
			c = (c >> 1) ^ (c & 1 ? CRC32C_POLY : 0);
		table[i] = c;
	}

	while (len--)
		crc = table[(crc ^ *p++) & 0xff] ^ (crc >> 8);

	return crc;
}

u32 wire_crc32c(const void *data, size_t len)
{
	return ~crc32c_step(~0U, data, len);
}

void wire_init(struct wire *w, const char *bdf, u64 memory_size)
{
	memset(w, 0, sizeof(*w));
	w->header = (struct wire_header) {
		.major = WIRE_MAJOR,
		.minor = WIRE_MINOR,
		.header_len = sizeof(w->header),
		.vendor = precopy_pci_id(bdf, "vendor"),
		.device = precopy_pci_id(bdf, "device"),
		.backend = WIRE_BACKEND_RAM,
		.page_size = 4096,
		.unit_size = WIRE_UNIT,
		.memory_size = memory_size,
	};
	memcpy(w->header.magic, WIRE_MAGIC, sizeof(w->header.magic));
}

void wire_free(struct wire *w)
{
	mig_stream_free(&w->stream);
}

void wire_put_header(struct wire *w)
{
	u32 extra = w->header.header_len - sizeof(w->header);
	u8 *extension;
	u32 crc;

	w->header.crc = 0;
	w->header.crc = wire_crc32c(&w->header, sizeof(w->header));
	mig_stream_append(&w->stream, &w->header, sizeof(w->header));
	w->end_crc = crc32c_step(~0U, &w->header.crc, sizeof(w->header.crc));

	if (w->header.header_len <= sizeof(w->header))
		return;

	VFIO_ASSERT_GE(extra, sizeof(crc));
	extension = calloc_assert(1, extra);
	memset(extension, 0xe5, extra - sizeof(crc));
	crc = wire_crc32c(extension, extra - sizeof(crc));
	memcpy(extension + extra - sizeof(crc), &crc, sizeof(crc));
	mig_stream_append(&w->stream, extension, extra);
	free(extension);
}

void wire_put_record(struct wire *w, u16 type, u16 flags, u64 offset,
		     const void *payload, u32 length)
{
	struct wire_record record = {
		.type = type,
		.flags = flags,
		.length = length,
		.offset = offset,
		.payload_crc = length ? wire_crc32c(payload, length) : 0,
	};

	record.header_crc = wire_crc32c(&record, sizeof(record));
	mig_stream_append(&w->stream, &record, sizeof(record));
	if (length)
		mig_stream_append(&w->stream, payload, length);

	w->end_crc = crc32c_step(w->end_crc, &record.header_crc,
				 sizeof(record.header_crc));
	w->nr_records++;
}

void wire_put_preface(struct wire *w)
{
	u32 nr_units = (w->header.memory_size + WIRE_UNIT - 1) / WIRE_UNIT;
	size_t words = (nr_units + 63) / 64;
	size_t len = sizeof(struct wire_preface) + words * sizeof(u64);
	struct wire_preface *preface = calloc_assert(1, len);

	preface->nr_units = nr_units;
	wire_put_record(w, WIRE_PREFACE, WIRE_MANDATORY, 0, preface, len);
	free(preface);
}

void wire_put_data(struct wire *w, u64 offset, const void *data, u32 length)
{
	wire_put_record(w, WIRE_DATA, WIRE_MANDATORY, offset, data, length);
}

void wire_put_zero(struct wire *w, u64 offset, u64 length)
{
	wire_put_record(w, WIRE_ZERO, WIRE_MANDATORY, offset, &length,
			sizeof(length));
}

void wire_put_initial_end(struct wire *w)
{
	wire_put_record(w, WIRE_INITIAL_END, WIRE_MANDATORY, 0, NULL, 0);
}

void wire_put_state(struct wire *w)
{
	u64 bytes_in_use = 0;

	wire_put_record(w, WIRE_STATE, WIRE_MANDATORY, 0, &bytes_in_use,
			sizeof(bytes_in_use));
}

void wire_put_end(struct wire *w)
{
	struct wire_end end = {
		.nr_records = w->nr_records,
		.crc = ~w->end_crc,
	};

	wire_put_record(w, WIRE_END, WIRE_MANDATORY, 0, &end, sizeof(end));
}

struct walk {
	const struct mig_stream *stream;
	size_t pos;
	u64 nr;
	u32 end_crc;
	bool initial_end;
	bool state;
	bool end;
};

static int walk_bad(const struct walk *walk, const char *what)
{
	fprintf(stderr, "# stream, record %lu at byte %zu: %s\n", walk->nr,
		walk->pos, what);
	return -EBADMSG;
}

static int walk_header(struct walk *walk)
{
	struct wire_header header;
	u32 crc;

	if (walk->stream->len < sizeof(header))
		return walk_bad(walk, "shorter than the file header");

	memcpy(&header, walk->stream->data, sizeof(header));
	crc = header.crc;
	header.crc = 0;
	if (memcmp(header.magic, WIRE_MAGIC, sizeof(header.magic)))
		return walk_bad(walk, "bad magic");
	if (header.major != WIRE_MAJOR || header.minor > WIRE_MINOR_ENGINE)
		return walk_bad(walk, "not version 1.0 or 1.1");
	if (header.header_len != sizeof(header))
		return walk_bad(walk, "bad header length");
	if (wire_crc32c(&header, sizeof(header)) != crc)
		return walk_bad(walk, "bad header checksum");

	walk->end_crc = crc32c_step(~0U, &crc, sizeof(crc));
	walk->pos = sizeof(header);

	return 0;
}

/* The order: PREFACE first, STATE after INITIAL_END, END last. */
static int walk_order(struct walk *walk, const struct wire_record *record)
{
	if (walk->end)
		return walk_bad(walk, "a record after END");
	if (!walk->nr && record->type != WIRE_PREFACE)
		return walk_bad(walk, "the first record is no PREFACE");
	if (record->type == WIRE_STATE && !walk->initial_end)
		return walk_bad(walk, "STATE before INITIAL_END");
	if (walk->state && record->type != WIRE_END)
		return walk_bad(walk, "a record between STATE and END");
	if (record->type == WIRE_END && !walk->state)
		return walk_bad(walk, "END without STATE");

	walk->initial_end |= record->type == WIRE_INITIAL_END;
	walk->state |= record->type == WIRE_STATE;
	walk->end |= record->type == WIRE_END;

	return 0;
}

static int walk_payload(struct walk *walk, const struct wire_record *record)
{
	const u8 *payload = walk->stream->data + walk->pos + sizeof(*record);
	struct wire_end end;

	if (walk->stream->len - walk->pos - sizeof(*record) < record->length)
		return walk_bad(walk, "payload cut short");
	if (record->payload_crc !=
	    (record->length ? wire_crc32c(payload, record->length) : 0))
		return walk_bad(walk, "bad payload checksum");
	if (record->type == WIRE_DATA &&
	    (!record->length || record->length > WIRE_MAX_DATA ||
	     record->length % 4096 || record->offset % 4096))
		return walk_bad(walk, "bad extent of DATA");
	if (record->type != WIRE_END)
		return 0;

	if (record->length != sizeof(end))
		return walk_bad(walk, "bad length of END");
	memcpy(&end, payload, sizeof(end));
	if (end.nr_records != walk->nr)
		return walk_bad(walk, "END counts other records");
	if (end.crc != (u32)~walk->end_crc)
		return walk_bad(walk, "END has another checksum");

	return 0;
}

static int walk_record(struct walk *walk, struct wire_record *record)
{
	struct wire_record copy;
	int ret;

	if (walk->stream->len - walk->pos < sizeof(*record))
		return walk_bad(walk, "record header cut short");

	memcpy(record, walk->stream->data + walk->pos, sizeof(*record));
	copy = *record;
	copy.header_crc = 0;
	if (wire_crc32c(&copy, sizeof(copy)) != record->header_crc)
		return walk_bad(walk, "bad record checksum");
	if (record->flags != (record->type == WIRE_WINDOW ? WIRE_OPTIONAL : WIRE_MANDATORY))
		return walk_bad(walk, "a record with wrong flags");

	ret = walk_order(walk, record);
	if (ret)
		return ret;

	return walk_payload(walk, record);
}

long wire_walk(const struct mig_stream *stream, wire_each_fn each, void *arg)
{
	struct walk walk = { .stream = stream };
	struct wire_record record;
	int ret;

	ret = walk_header(&walk);
	while (!ret && walk.pos < stream->len) {
		ret = walk_record(&walk, &record);
		if (ret)
			break;
		if (each)
			each(&record, walk.pos, arg);
		walk.end_crc = crc32c_step(walk.end_crc, &record.header_crc,
					   sizeof(record.header_crc));
		walk.pos += sizeof(record) + record.length;
		walk.nr++;
	}
	if (!ret && !walk.end)
		ret = walk_bad(&walk, "no END");

	return ret ?: (long)walk.nr;
}
