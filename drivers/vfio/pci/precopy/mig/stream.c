// SPDX-License-Identifier: GPL-2.0-only
/*
 * Wire format of a migrating device: encoder and resumable decoder.
 *
 * The stream is untrusted input. The decoder verifies the CRC of a header before
 * it uses a length of it, limits each length before it accepts a byte of the
 * payload, and verifies the CRC of a payload before it uses the contents. The
 * first error is final.
 */

#include <linux/align.h>
#include <linux/bitops.h>
#include <linux/crc32.h>
#include <linux/errno.h>
#include <linux/math.h>
#include <linux/minmax.h>
#include <linux/string.h>
#include <asm/byteorder.h>
#include <kunit/visibility.h>

#include "stream.h"

static const u8 stream_magic[8] = { 'V', 'F', 'I', 'O', 'P', 'R', 'E', 'C' };

/* The part of the stream that the next bytes belong to. */
enum stream_piece {
	PIECE_FILE_HDR,
	PIECE_FILE_EXT,		/* extension of a longer file header */
	PIECE_REC_HDR,
	PIECE_PAYLOAD,
	PIECE_SKIP,		/* payload of an unknown record, not stored */
	PIECE_NONE,		/* after END */
};

/* Position in the order of records. */
enum stream_phase {
	PHASE_OPEN,		/* no PREFACE yet */
	PHASE_INITIAL,		/* from PREFACE to INITIAL_END */
	PHASE_DELTA,		/* from INITIAL_END to STATE or another PREFACE */
	PHASE_STATE,		/* from STATE to END */
	PHASE_DONE,
};

/* Phases in which a known record may come, and the next phase (-1: the same). */
static const struct stream_rule {
	u8 phases;
	s8 next;
} stream_rules[] = {
	[PRECOPY_REC_PREFACE] = { BIT(PHASE_OPEN) | BIT(PHASE_DELTA), PHASE_INITIAL },
	[PRECOPY_REC_DATA] = { BIT(PHASE_INITIAL) | BIT(PHASE_DELTA), -1 },
	[PRECOPY_REC_ZERO] = { BIT(PHASE_INITIAL) | BIT(PHASE_DELTA), -1 },
	[PRECOPY_REC_INITIAL_END] = { BIT(PHASE_INITIAL), PHASE_DELTA },
	[PRECOPY_REC_STATE] = { BIT(PHASE_DELTA), PHASE_STATE },
	[PRECOPY_REC_END] = { BIT(PHASE_STATE), PHASE_DONE },
};

static u32 stream_crc(const void *p, size_t len)
{
	return ~crc32c(~0U, p, len);
}

/* CRC of a header, with its last four bytes, the CRC itself, taken as zero. */
static u32 header_crc(const void *hdr, size_t len)
{
	static const u8 zero[sizeof(__le32)];
	u32 crc = crc32c(~0U, hdr, len - sizeof(zero));

	return ~crc32c(crc, zero, sizeof(zero));
}

/* The chain covers every header, so END detects records lost, added or moved. */
static u32 chain_start(__le32 crc)
{
	return crc32c(~0U, &crc, sizeof(crc));
}

static u32 chain_add(u32 chain, __le32 crc)
{
	return crc32c(chain, &crc, sizeof(crc));
}

/**
 * precopy_stream_units - units that cover a device
 * @memory_size: bytes of device memory, at most PRECOPY_MAX_MEMORY
 *
 * Return: number of units of PRECOPY_UNIT_SIZE, at least 1.
 */
u32 precopy_stream_units(u64 memory_size)
{
	return max(DIV_ROUND_UP_ULL(memory_size, PRECOPY_UNIT_SIZE), 1ULL);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_stream_units);

/**
 * precopy_preface_len - size of PREFACE
 * @nr_units: units that its bitmap covers
 *
 * Return: bytes of payload; the record header comes on top.
 */
size_t precopy_preface_len(u32 nr_units)
{
	return sizeof(struct precopy_rec_preface) +
	       DIV_ROUND_UP_ULL(nr_units, 64) * sizeof(__le64);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_preface_len);

/**
 * precopy_encoder_init - initialise an encoder
 * @enc: encoder
 * @params: properties to write into the file header; copied
 */
void precopy_encoder_init(struct precopy_encoder *enc,
			  const struct precopy_stream_params *params)
{
	*enc = (struct precopy_encoder) { .params = *params };
}
EXPORT_SYMBOL_IF_KUNIT(precopy_encoder_init);

/**
 * precopy_encode_header - write the file header
 * @enc: encoder; its count of records and its chain are reset
 * @buf: receives PRECOPY_FILE_HDR_LEN bytes; need not be aligned
 *
 * Return: bytes written.
 */
size_t precopy_encode_header(struct precopy_encoder *enc, void *buf)
{
	struct precopy_file_hdr hdr = {
		.major = cpu_to_le16(PRECOPY_STREAM_MAJOR),
		.minor = cpu_to_le16(enc->params.features ? PRECOPY_STREAM_MINOR : 0),
		.header_len = cpu_to_le32(PRECOPY_FILE_HDR_LEN),
		.features_required = cpu_to_le32(enc->params.features),
		.vendor = cpu_to_le16(enc->params.vendor),
		.device = cpu_to_le16(enc->params.device),
		.backend = cpu_to_le32(enc->params.backend),
		.page_size = cpu_to_le32(PRECOPY_STREAM_PAGE_SIZE),
		.unit_size = cpu_to_le32(PRECOPY_UNIT_SIZE),
		.memory_size = cpu_to_le64(enc->params.memory_size),
	};

	memcpy(hdr.magic, stream_magic, sizeof(hdr.magic));
	hdr.crc = cpu_to_le32(header_crc(&hdr, sizeof(hdr)));
	memcpy(buf, &hdr, sizeof(hdr));

	enc->nr_records = 0;
	enc->crc = chain_start(hdr.crc);
	return sizeof(hdr);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_encode_header);

static size_t encode_flagged(struct precopy_encoder *enc, void *buf, u16 type,
			     u16 flags, u64 offset, u32 len)
{
	struct precopy_rec_hdr hdr = {
		.type = cpu_to_le16(type),
		.flags = cpu_to_le16(flags),
		.length = cpu_to_le32(len),
		.offset = cpu_to_le64(offset),
		.payload_crc = cpu_to_le32(stream_crc(buf + sizeof(hdr), len)),
	};

	hdr.header_crc = cpu_to_le32(header_crc(&hdr, sizeof(hdr)));
	memcpy(buf, &hdr, sizeof(hdr));

	enc->nr_records++;
	enc->crc = chain_add(enc->crc, hdr.header_crc);
	return sizeof(hdr) + len;
}

/**
 * precopy_encode_record - write the header before a payload
 * @enc: encoder
 * @buf: record; @len bytes of payload lie at @buf + PRECOPY_REC_HDR_LEN already
 * @type: one of enum precopy_record_type
 * @offset: byte offset in device memory for DATA and ZERO, otherwise 0
 * @len: bytes of payload
 *
 * The payload must not change afterwards, because the header has its CRC.
 *
 * Return: bytes of the whole record.
 */
size_t precopy_encode_record(struct precopy_encoder *enc, void *buf, u16 type,
			     u64 offset, u32 len)
{
	return encode_flagged(enc, buf, type, PRECOPY_REC_MANDATORY, offset, len);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_encode_record);

/**
 * precopy_encode_optional - write the header of a record that a reader may skip
 * @enc: encoder
 * @buf: record, as for precopy_encode_record()
 * @type: type of a record of a section that is optional
 * @offset: as the section defines it
 * @len: bytes of payload
 *
 * Return: bytes of the whole record.
 */
size_t precopy_encode_optional(struct precopy_encoder *enc, void *buf, u16 type,
			       u64 offset, u32 len)
{
	return encode_flagged(enc, buf, type, PRECOPY_REC_OPTIONAL, offset, len);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_encode_optional);

/* Bits 8 * @i to 8 * @i + 7 of @bitmap, those from @nr_bits on cleared. */
static u8 bitmap_byte(const unsigned long *bitmap, u32 i, u32 nr_bits)
{
	u32 bit = i * 8;
	u8 byte;

	if (bit >= nr_bits)
		return 0;
	byte = bitmap[bit / BITS_PER_LONG] >> (bit % BITS_PER_LONG);
	if (nr_bits - bit < 8)
		byte &= BIT(nr_bits - bit) - 1;
	return byte;
}

/**
 * precopy_encode_preface - write PREFACE
 * @enc: encoder
 * @buf: receives PRECOPY_REC_HDR_LEN + precopy_preface_len(@nr_units) bytes
 * @bytes_in_use: bytes of device memory in use
 * @startup_ns: estimate of the target's startup in nanoseconds, 0 if unknown
 * @bitmap: the units in use; bits from @nr_units on are ignored
 * @nr_units: precopy_stream_units() of the device
 *
 * Return: bytes written.
 */
size_t precopy_encode_preface(struct precopy_encoder *enc, void *buf,
			      u64 bytes_in_use, u64 startup_ns,
			      const unsigned long *bitmap, u32 nr_units)
{
	struct precopy_rec_preface *preface = buf + PRECOPY_REC_HDR_LEN;
	size_t len = precopy_preface_len(nr_units);
	u32 i;

	preface->bytes_in_use = cpu_to_le64(bytes_in_use);
	preface->startup_ns = cpu_to_le64(startup_ns);
	preface->nr_units = cpu_to_le32(nr_units);
	preface->reserved = 0;
	for (i = 0; i < len - sizeof(*preface); i++)
		preface->bitmap[i] = bitmap_byte(bitmap, i, nr_units);
	return precopy_encode_record(enc, buf, PRECOPY_REC_PREFACE, 0, len);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_encode_preface);

/**
 * precopy_encode_zero - write ZERO
 * @enc: encoder
 * @buf: receives PRECOPY_ZERO_LEN bytes
 * @offset: byte offset in device memory, page aligned
 * @nr_bytes: length in bytes, a multiple of the stream's page size, not 0
 *
 * Return: bytes written.
 */
size_t precopy_encode_zero(struct precopy_encoder *enc, void *buf, u64 offset,
			   u64 nr_bytes)
{
	struct precopy_rec_zero *zero = buf + PRECOPY_REC_HDR_LEN;

	zero->nr_bytes = cpu_to_le64(nr_bytes);
	return precopy_encode_record(enc, buf, PRECOPY_REC_ZERO, offset,
				     sizeof(*zero));
}
EXPORT_SYMBOL_IF_KUNIT(precopy_encode_zero);

/**
 * precopy_encode_state - write STATE
 * @enc: encoder
 * @buf: receives PRECOPY_STATE_LEN bytes
 * @bytes_in_use: bytes of device memory in use
 *
 * Return: bytes written.
 */
size_t precopy_encode_state(struct precopy_encoder *enc, void *buf,
			    u64 bytes_in_use)
{
	struct precopy_rec_state *state = buf + PRECOPY_REC_HDR_LEN;

	state->bytes_in_use = cpu_to_le64(bytes_in_use);
	return precopy_encode_record(enc, buf, PRECOPY_REC_STATE, 0,
				     sizeof(*state));
}
EXPORT_SYMBOL_IF_KUNIT(precopy_encode_state);

/**
 * precopy_encode_end - write END, the last record
 * @enc: encoder; must not be used afterwards
 * @buf: receives PRECOPY_END_LEN bytes
 *
 * Return: bytes written.
 */
size_t precopy_encode_end(struct precopy_encoder *enc, void *buf)
{
	struct precopy_rec_end *end = buf + PRECOPY_REC_HDR_LEN;

	end->nr_records = cpu_to_le64(enc->nr_records);
	end->crc = cpu_to_le32(~enc->crc);
	end->reserved = 0;
	return precopy_encode_record(enc, buf, PRECOPY_REC_END, 0, sizeof(*end));
}
EXPORT_SYMBOL_IF_KUNIT(precopy_encode_end);

static int stream_fail(struct precopy_decoder *dec, int err, const char *why)
{
	dec->err = err;
	dec->error = why;
	return err;
}

static int stream_malformed(struct precopy_decoder *dec, const char *why)
{
	return stream_fail(dec, -EINVAL, why);
}

static void next_piece(struct precopy_decoder *dec, enum stream_piece piece,
		       u32 need)
{
	dec->piece = piece;
	dec->need = need;
	dec->have = 0;
}

/**
 * precopy_decoder_init - initialise a decoder
 * @dec: decoder
 * @expect: properties that the file header must have; copied
 * @buf: PRECOPY_DECODE_BUF bytes that stay valid while @dec is used; need not
 *	be aligned
 */
void precopy_decoder_init(struct precopy_decoder *dec,
			  const struct precopy_stream_params *expect, void *buf)
{
	memset(dec, 0, sizeof(*dec));
	dec->expect = *expect;
	dec->buf = buf;
	dec->phase = PHASE_OPEN;
	next_piece(dec, PIECE_FILE_HDR, PRECOPY_FILE_HDR_LEN);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_decoder_init);

/**
 * precopy_decoder_accept - let records come that are not the format's own
 * @dec: decoder, just initialised
 * @records: the records, which stay valid while @dec is used; NULL after the last
 *
 * Without this call they are unknown.
 */
void precopy_decoder_accept(struct precopy_decoder *dec,
			    const struct precopy_section_record * const *records)
{
	dec->records = records;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_decoder_accept);

/**
 * precopy_decoder_want - get the place for the next bytes
 * @dec: decoder
 * @dst: receives the address to store them at, or NULL
 *
 * The result never exceeds the rest of the current header or payload, so that
 * the caller's position in the stream is always exact.
 *
 * Return: number of bytes that may be stored there, at least 1; 0 after END and
 * after an error.
 */
size_t precopy_decoder_want(struct precopy_decoder *dec, void **dst)
{
	u32 left = dec->need - dec->have;

	*dst = NULL;
	if (dec->err)
		return 0;

	switch (dec->piece) {
	case PIECE_FILE_HDR:
	case PIECE_REC_HDR:
		*dst = dec->head.bytes + dec->have;
		return left;
	case PIECE_FILE_EXT:
	case PIECE_PAYLOAD:
		*dst = dec->buf + dec->have;
		return left;
	case PIECE_SKIP:
		*dst = dec->buf;
		return min_t(u32, left, PRECOPY_DECODE_BUF);
	default:
		return 0;
	}
}
EXPORT_SYMBOL_IF_KUNIT(precopy_decoder_want);

/* Compare the properties of the source with those of this device. */
static int check_params(struct precopy_decoder *dec)
{
	const struct precopy_stream_params *expect = &dec->expect;
	const struct precopy_file_hdr *hdr = &dec->head.file;
	u64 memory_size = le64_to_cpu(hdr->memory_size);

	if (le16_to_cpu(hdr->vendor) != expect->vendor ||
	    le16_to_cpu(hdr->device) != expect->device)
		return stream_malformed(dec, "another vendor or device id");
	if (le32_to_cpu(hdr->features_required) != expect->features)
		return stream_malformed(dec, "another model of device");
	if (le32_to_cpu(hdr->backend) != expect->backend)
		return stream_malformed(dec, "another kind of backend");
	if (le32_to_cpu(hdr->page_size) != PRECOPY_STREAM_PAGE_SIZE ||
	    le32_to_cpu(hdr->unit_size) != PRECOPY_UNIT_SIZE)
		return stream_malformed(dec, "another page or unit size");
	if (memory_size != expect->memory_size)
		return stream_malformed(dec, "another memory size");
	if (!memory_size || memory_size > PRECOPY_MAX_MEMORY ||
	    !IS_ALIGNED(memory_size, PRECOPY_STREAM_PAGE_SIZE))
		return stream_malformed(dec, "impossible memory size");
	return 0;
}

static int check_header_len(struct precopy_decoder *dec, u32 len)
{
	if (len == PRECOPY_FILE_HDR_LEN)
		return 0;
	/* Only a later minor version may have a longer header, with a CRC at its end. */
	if (dec->minor <= PRECOPY_STREAM_MINOR ||
	    len < PRECOPY_FILE_HDR_LEN + sizeof(__le32) ||
	    len > PRECOPY_MAX_FILE_HDR_LEN)
		return stream_malformed(dec, "bad length of the file header");
	return 0;
}

static int finish_file_hdr(struct precopy_decoder *dec)
{
	static const u8 zero[sizeof(dec->head.file.reserved)];
	const struct precopy_file_hdr *hdr = &dec->head.file;
	u32 len;
	int ret;

	if (memcmp(hdr->magic, stream_magic, sizeof(stream_magic)))
		return stream_malformed(dec, "not a stream of this driver");
	/* Checked before the CRC, which another major version may have elsewhere. */
	dec->major = le16_to_cpu(hdr->major);
	dec->minor = le16_to_cpu(hdr->minor);
	if (dec->major != PRECOPY_STREAM_MAJOR)
		return stream_fail(dec, -EOPNOTSUPP, "unknown major version");
	if (le32_to_cpu(hdr->crc) != header_crc(hdr, sizeof(*hdr)))
		return stream_malformed(dec, "bad CRC of the file header");
	if (le32_to_cpu(hdr->features_required) & ~PRECOPY_FEATURES_KNOWN)
		return stream_fail(dec, -EOPNOTSUPP, "unknown required feature");
	if (memcmp(hdr->reserved, zero, sizeof(zero)))
		return stream_malformed(dec, "reserved bytes in the file header");

	len = le32_to_cpu(hdr->header_len);
	ret = check_header_len(dec, len);
	if (ret)
		return ret;
	ret = check_params(dec);
	if (ret)
		return ret;

	dec->crc = chain_start(hdr->crc);
	if (len > PRECOPY_FILE_HDR_LEN) {
		next_piece(dec, PIECE_FILE_EXT, len - PRECOPY_FILE_HDR_LEN);
		return PRECOPY_EV_MORE;
	}
	next_piece(dec, PIECE_REC_HDR, PRECOPY_REC_HDR_LEN);
	return PRECOPY_EV_HEADER;
}

static int finish_file_ext(struct precopy_decoder *dec)
{
	u32 len = dec->need - sizeof(__le32);
	__le32 crc;

	memcpy(&crc, dec->buf + len, sizeof(crc));
	if (le32_to_cpu(crc) != stream_crc(dec->buf, len))
		return stream_malformed(dec, "bad CRC of the file header's tail");
	next_piece(dec, PIECE_REC_HDR, PRECOPY_REC_HDR_LEN);
	return PRECOPY_EV_HEADER;
}

static bool type_known(u16 type)
{
	return type >= PRECOPY_REC_PREFACE && type <= PRECOPY_REC_END;
}

/* True if the range is page aligned, not empty, and inside the device memory. */
static bool range_valid(const struct precopy_decoder *dec, u64 offset, u64 len)
{
	u64 size = dec->expect.memory_size;

	return len && IS_ALIGNED(offset | len, PRECOPY_STREAM_PAGE_SIZE) &&
	       len <= size && offset <= size - len;
}

/* The description of a record that is not the format's own, or NULL */
static const struct precopy_section_record *
section_record(const struct precopy_decoder *dec)
{
	const struct precopy_section_record * const *record = dec->records;

	while (record && *record && (*record)->type != dec->type)
		record++;
	return record ? *record : NULL;
}

/* Phases in which the present record may come. */
static u8 valid_phases(const struct precopy_decoder *dec)
{
	if (!dec->section)
		return stream_rules[dec->type].phases;
	return BIT(PHASE_DELTA) | (dec->section->initial ? BIT(PHASE_INITIAL) : 0);
}

static bool length_valid(const struct precopy_decoder *dec, u32 len)
{
	u32 nr_units = precopy_stream_units(dec->expect.memory_size);

	if (dec->section)
		return len <= dec->section->max_len;
	switch (dec->type) {
	case PRECOPY_REC_PREFACE:
		return len == precopy_preface_len(nr_units);
	case PRECOPY_REC_DATA:
		return len && len <= PRECOPY_MAX_DATA;
	case PRECOPY_REC_ZERO:
		return len == sizeof(struct precopy_rec_zero);
	case PRECOPY_REC_STATE:
		return len == sizeof(struct precopy_rec_state);
	case PRECOPY_REC_END:
		return len == sizeof(struct precopy_rec_end);
	default:
		return !len;
	}
}

static bool offset_valid(const struct precopy_decoder *dec, u64 offset, u32 len)
{
	if (dec->section)
		return true;
	switch (dec->type) {
	case PRECOPY_REC_DATA:
		return range_valid(dec, offset, len);
	case PRECOPY_REC_ZERO:
		/* The length is in the payload, and is checked there. */
		return range_valid(dec, offset, PRECOPY_STREAM_PAGE_SIZE);
	default:
		return !offset;
	}
}

static int finish_unknown_hdr(struct precopy_decoder *dec, u16 flags, u32 len)
{
	if (!dec->type)
		return stream_malformed(dec, "record of type 0");
	if (flags & PRECOPY_REC_MANDATORY)
		return stream_fail(dec, -EOPNOTSUPP, "unknown mandatory record");
	if (len > PRECOPY_MAX_SKIP)
		return stream_malformed(dec, "unknown record is too long");
	next_piece(dec, PIECE_SKIP, len);
	dec->skip_crc = ~0U;
	return 0;
}

/* Those of the format itself are all mandatory */
static u16 known_flags(const struct precopy_decoder *dec)
{
	return dec->section && dec->section->optional ? PRECOPY_REC_OPTIONAL :
							PRECOPY_REC_MANDATORY;
}

static int finish_known_hdr(struct precopy_decoder *dec, u16 flags, u32 len)
{
	if (flags != known_flags(dec))
		return stream_malformed(dec, "known record with wrong flags");
	if (!(valid_phases(dec) & BIT(dec->phase)))
		return stream_malformed(dec, "record out of order");
	if (!length_valid(dec, len))
		return stream_malformed(dec, "bad length of a record");
	if (!offset_valid(dec, le64_to_cpu(dec->head.rec.offset), len))
		return stream_malformed(dec, "bad offset of a record");
	next_piece(dec, PIECE_PAYLOAD, len);
	return 0;
}

static u8 preface_byte(const struct precopy_decoder *dec, u32 i)
{
	const struct precopy_rec_preface *preface = (void *)dec->buf;

	return preface->bitmap[i];
}

static int finish_preface(struct precopy_decoder *dec)
{
	u32 nr_units = precopy_stream_units(dec->expect.memory_size);
	const struct precopy_rec_preface *preface = (void *)dec->buf;
	u32 i, nr_bytes = dec->need - sizeof(*preface);
	u64 in_use = le64_to_cpu(preface->bytes_in_use);
	u64 nr_set = 0;

	if (le32_to_cpu(preface->nr_units) != nr_units || preface->reserved)
		return stream_malformed(dec, "bad unit count in PREFACE");

	for (i = 0; i < nr_bytes; i++)
		nr_set += hweight8(preface_byte(dec, i));
	for (i = nr_units; i < nr_bytes * 8; i++)
		if (preface_byte(dec, i / 8) & BIT(i % 8))
			return stream_malformed(dec, "stray bits in PREFACE");
	if (in_use > dec->expect.memory_size || in_use > nr_set * PRECOPY_UNIT_SIZE)
		return stream_malformed(dec, "too many bytes in use in PREFACE");

	dec->bytes_in_use = in_use;
	dec->startup_ns = le64_to_cpu(preface->startup_ns);
	dec->nr_units = nr_units;
	return PRECOPY_EV_PREFACE;
}

static int finish_data(struct precopy_decoder *dec)
{
	dec->offset = le64_to_cpu(dec->head.rec.offset);
	dec->nr_bytes = dec->need;
	dec->payload = dec->buf;
	return dec->section ? PRECOPY_EV_SECTION : PRECOPY_EV_DATA;
}

static int finish_zero(struct precopy_decoder *dec)
{
	const struct precopy_rec_zero *zero = (void *)dec->buf;

	dec->offset = le64_to_cpu(dec->head.rec.offset);
	dec->nr_bytes = le64_to_cpu(zero->nr_bytes);
	if (!range_valid(dec, dec->offset, dec->nr_bytes))
		return stream_malformed(dec, "bad length in ZERO");
	return PRECOPY_EV_ZERO;
}

static int finish_state(struct precopy_decoder *dec)
{
	const struct precopy_rec_state *state = (void *)dec->buf;

	dec->bytes_in_use = le64_to_cpu(state->bytes_in_use);
	if (dec->bytes_in_use > dec->expect.memory_size)
		return stream_malformed(dec, "too many bytes in use in STATE");
	return PRECOPY_EV_STATE;
}

static int finish_end(struct precopy_decoder *dec)
{
	const struct precopy_rec_end *end = (void *)dec->buf;

	if (le64_to_cpu(end->nr_records) != dec->nr_records)
		return stream_malformed(dec, "wrong record count in END");
	if (le32_to_cpu(end->crc) != ~dec->crc || end->reserved)
		return stream_malformed(dec, "wrong CRC of the records in END");
	return PRECOPY_EV_END;
}

static int finish_known_payload(struct precopy_decoder *dec)
{
	if (dec->section)
		return finish_data(dec);
	switch (dec->type) {
	case PRECOPY_REC_PREFACE:
		return finish_preface(dec);
	case PRECOPY_REC_DATA:
		return finish_data(dec);
	case PRECOPY_REC_ZERO:
		return finish_zero(dec);
	case PRECOPY_REC_STATE:
		return finish_state(dec);
	case PRECOPY_REC_END:
		return finish_end(dec);
	default:
		return PRECOPY_EV_INITIAL_END;
	}
}

/* Verify the complete payload, if there is one, and expect the next record. */
static int finish_record(struct precopy_decoder *dec)
{
	bool skip = dec->piece == PIECE_SKIP;
	u32 crc = skip ? ~dec->skip_crc : stream_crc(dec->buf, dec->need);
	int ret = PRECOPY_EV_SKIPPED;

	if (le32_to_cpu(dec->head.rec.payload_crc) != crc)
		return stream_malformed(dec, "bad CRC of a payload");
	if (!skip) {
		ret = finish_known_payload(dec);
		if (ret < 0)
			return ret;
		if (!dec->section && stream_rules[dec->type].next >= 0)
			dec->phase = stream_rules[dec->type].next;
	}

	dec->nr_records++;
	dec->crc = chain_add(dec->crc, dec->head.rec.header_crc);
	if (dec->phase == PHASE_DONE)
		next_piece(dec, PIECE_NONE, 0);
	else
		next_piece(dec, PIECE_REC_HDR, PRECOPY_REC_HDR_LEN);
	return ret;
}

static int finish_rec_hdr(struct precopy_decoder *dec)
{
	const struct precopy_rec_hdr *hdr = &dec->head.rec;
	u16 flags;
	u32 len;
	int ret;

	if (le32_to_cpu(hdr->header_crc) != header_crc(hdr, sizeof(*hdr)))
		return stream_malformed(dec, "bad CRC of a record header");

	dec->type = le16_to_cpu(hdr->type);
	flags = le16_to_cpu(hdr->flags);
	len = le32_to_cpu(hdr->length);
	if (flags != PRECOPY_REC_MANDATORY && flags != PRECOPY_REC_OPTIONAL)
		return stream_malformed(dec, "bad flags of a record");

	dec->section = section_record(dec);
	ret = type_known(dec->type) || dec->section ?
	      finish_known_hdr(dec, flags, len) :
	      finish_unknown_hdr(dec, flags, len);
	if (ret)
		return ret;
	return len ? PRECOPY_EV_MORE : finish_record(dec);
}

/**
 * precopy_decoder_advance - decode bytes that were stored
 * @dec: decoder
 * @n: number of bytes stored at the place that precopy_decoder_want() returned,
 *	at most the number that it returned
 *
 * A larger @n, and any byte after END, is an error.
 *
 * Return: an enum precopy_stream_event, PRECOPY_EV_MORE (0) if the bytes did not
 * complete a header or a payload; -EINVAL if the stream is malformed or does not
 * fit the device; -EOPNOTSUPP if it needs an unknown version, feature or record.
 * After the first error every call returns the same error.
 */
int precopy_decoder_advance(struct precopy_decoder *dec, size_t n)
{
	void *dst;

	if (dec->err)
		return dec->err;
	if (n > precopy_decoder_want(dec, &dst))
		return stream_malformed(dec, "bytes after the end of the stream");
	if (!n)
		return PRECOPY_EV_MORE;

	if (dec->piece == PIECE_SKIP)
		dec->skip_crc = crc32c(dec->skip_crc, dst, n);
	dec->have += n;
	if (dec->have < dec->need)
		return PRECOPY_EV_MORE;

	switch (dec->piece) {
	case PIECE_FILE_HDR:
		return finish_file_hdr(dec);
	case PIECE_FILE_EXT:
		return finish_file_ext(dec);
	case PIECE_REC_HDR:
		return finish_rec_hdr(dec);
	default:
		return finish_record(dec);
	}
}
EXPORT_SYMBOL_IF_KUNIT(precopy_decoder_advance);

/**
 * precopy_decoder_unit_in_use - look up a unit in the bitmap of PREFACE
 * @dec: decoder, after PRECOPY_EV_PREFACE and before more bytes are stored,
 *	because the bitmap is in its buffer
 * @unit: unit number
 *
 * Return: true if the source uses the unit; false if not, or if there is no such
 * unit.
 */
bool precopy_decoder_unit_in_use(const struct precopy_decoder *dec, u32 unit)
{
	return unit < dec->nr_units && preface_byte(dec, unit / 8) & BIT(unit % 8);
}
EXPORT_SYMBOL_IF_KUNIT(precopy_decoder_unit_in_use);

/**
 * precopy_decoder_complete - check whether the stream is complete
 * @dec: decoder
 *
 * Return: true if END was decoded and verified, and no byte came after it.
 */
bool precopy_decoder_complete(const struct precopy_decoder *dec)
{
	return !dec->err && dec->phase == PHASE_DONE;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_decoder_complete);

/**
 * precopy_decoder_at_barrier - check for the end of the initial data
 * @dec: decoder
 * @n: number of bytes stored at the place that precopy_decoder_want() returned,
 *	before the call of precopy_decoder_advance()
 *
 * A reader uses this to hold back the last byte of INITIAL_END until its startup
 * is complete. The header is not verified yet.
 *
 * Return: true if the bytes complete the header of an INITIAL_END record.
 */
bool precopy_decoder_at_barrier(const struct precopy_decoder *dec, size_t n)
{
	return !dec->err && dec->piece == PIECE_REC_HDR &&
	       dec->have + n == dec->need &&
	       le16_to_cpu(dec->head.rec.type) == PRECOPY_REC_INITIAL_END;
}
EXPORT_SYMBOL_IF_KUNIT(precopy_decoder_at_barrier);
