/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Wire format of a migrating device: encoder and resumable decoder.
 *
 * This code does not sleep, allocate, lock or print, so that it also builds in
 * user space. Its whole state is in the two structs that the caller owns. The
 * caller serialises the calls on each struct.
 */
#ifndef PRECOPY_STREAM_H
#define PRECOPY_STREAM_H

#include <linux/bits.h>
#include <linux/build_bug.h>
#include <linux/sizes.h>
#include <linux/types.h>

#include "mem/units.h"

#define PRECOPY_STREAM_MAJOR		1
#define PRECOPY_STREAM_MINOR		1

/* Largest payload of a DATA record. */
#define PRECOPY_MAX_DATA		SZ_64K
/* Largest payload of a record that is skipped because its type is unknown. */
#define PRECOPY_MAX_SKIP		SZ_16M

#define PRECOPY_FILE_HDR_LEN		64
#define PRECOPY_MAX_FILE_HDR_LEN	SZ_4K
#define PRECOPY_REC_HDR_LEN		24

/* Size of the decoder's buffer: the largest payload that is verified as a whole. */
#define PRECOPY_DECODE_BUF		PRECOPY_MAX_DATA

/* Kinds of backend; starts at 1 to catch uninitialised values. */
#define PRECOPY_BACKEND_RAM		1

/*
 * features_required bits. A stream that has one is of minor version 1, all others are
 * of minor version 0, as they were before there were any.
 */
#define PRECOPY_FEATURE_ENGINE		BIT(0)	/* The device's model is "engine" */
#define PRECOPY_FEATURES_KNOWN		PRECOPY_FEATURE_ENGINE

/* Starts at 1 to catch uninitialised values. */
enum precopy_record_type {
	PRECOPY_REC_PREFACE = 1,
	PRECOPY_REC_DATA,
	PRECOPY_REC_ZERO,
	PRECOPY_REC_INITIAL_END,
	PRECOPY_REC_STATE,
	PRECOPY_REC_END,
};

/* Types of the records of sections; see struct precopy_section_record */
#define PRECOPY_REC_ENGINE		(PRECOPY_REC_END + 1)
#define PRECOPY_REC_WINDOW		(PRECOPY_REC_END + 2)

/* Exactly one is set. A reader skips an unknown type only if it is OPTIONAL. */
#define PRECOPY_REC_MANDATORY		BIT(0)
#define PRECOPY_REC_OPTIONAL		BIT(1)

struct precopy_file_hdr {
	u8 magic[8];
	__le16 major;
	__le16 minor;
	__le32 header_len;
	__le32 features_required;
	__le32 features_optional;
	__le16 vendor;
	__le16 device;
	__le32 backend;
	__le32 page_size;
	__le32 unit_size;
	__le64 memory_size;
	u8 reserved[12];
	__le32 crc;
} __packed;
static_assert(sizeof(struct precopy_file_hdr) == PRECOPY_FILE_HDR_LEN);

struct precopy_rec_hdr {
	__le16 type;
	__le16 flags;
	__le32 length;
	__le64 offset;
	__le32 payload_crc;
	__le32 header_crc;
} __packed;
static_assert(sizeof(struct precopy_rec_hdr) == PRECOPY_REC_HDR_LEN);

/* The bitmap consists of le64 words, so byte i has the bits of units 8i to 8i + 7. */
struct precopy_rec_preface {
	__le64 bytes_in_use;
	__le64 startup_ns;
	__le32 nr_units;
	__le32 reserved;
	u8 bitmap[];
} __packed;
static_assert(sizeof(struct precopy_rec_preface) == 24);
static_assert(sizeof(struct precopy_rec_preface) + PRECOPY_MAX_UNITS / 8 <=
	      PRECOPY_DECODE_BUF);

struct precopy_rec_zero {
	__le64 nr_bytes;
} __packed;

struct precopy_rec_state {
	__le64 bytes_in_use;
} __packed;

struct precopy_rec_end {
	__le64 nr_records;
	__le32 crc;
	__le32 reserved;
} __packed;
static_assert(sizeof(struct precopy_rec_end) == 16);

/* Bytes to reserve for the records that have a payload of fixed size. */
#define PRECOPY_ZERO_LEN	(PRECOPY_REC_HDR_LEN + sizeof(struct precopy_rec_zero))
#define PRECOPY_STATE_LEN	(PRECOPY_REC_HDR_LEN + sizeof(struct precopy_rec_state))
#define PRECOPY_END_LEN		(PRECOPY_REC_HDR_LEN + sizeof(struct precopy_rec_end))

/**
 * struct precopy_section_record - a record that is not the format's own
 * @type: type of the record, above PRECOPY_REC_END; never used for anything else
 * @max_len: largest payload, bytes, at most PRECOPY_MAX_DATA
 * @initial: true if the record may be part of the initial data. After it every
 *	     such record may come, until STATE.
 * @optional: true if a reader that does not know the record is to skip it
 *
 * The decoder verifies position, length and checksums, whoever uses the record
 * its offset and its contents.
 */
struct precopy_section_record {
	u16	type;
	u32	max_len;
	bool	initial;
	bool	optional;
};

/**
 * struct precopy_stream_params - properties that source and target must share
 * @vendor: PCI vendor id of the carrier
 * @device: PCI device id of the carrier
 * @backend: kind of backend, PRECOPY_BACKEND_*
 * @features: required features, PRECOPY_FEATURE_*; they tell the model of the device
 * @memory_size: bytes of device memory, a multiple of the stream's page size
 */
struct precopy_stream_params {
	u16 vendor;
	u16 device;
	u32 backend;
	u32 features;
	u64 memory_size;
};

/**
 * struct precopy_encoder - state of a stream being written
 * @params: properties to write into the file header
 * @nr_records: number of records encoded so far, for END
 * @crc: running CRC-32C over the header CRCs so far (not inverted), for END
 */
struct precopy_encoder {
	struct precopy_stream_params params;
	u64 nr_records;
	u32 crc;
};

/**
 * enum precopy_stream_event - results of precopy_decoder_advance()
 * @PRECOPY_EV_MORE: no header or payload is complete; more bytes are needed
 * @PRECOPY_EV_HEADER: the file header is complete and valid
 * @PRECOPY_EV_PREFACE: PREFACE is complete; bytes_in_use, startup_ns, nr_units
 *	and the bitmap of units in use are valid. A second one restarts the
 *	initial data.
 * @PRECOPY_EV_DATA: nr_bytes bytes at payload have to be stored at offset
 * @PRECOPY_EV_ZERO: nr_bytes bytes from offset on are zero
 * @PRECOPY_EV_INITIAL_END: the initial data is complete (the barrier)
 * @PRECOPY_EV_STATE: bytes_in_use is valid; only END may follow
 * @PRECOPY_EV_END: the stream is complete and verified
 * @PRECOPY_EV_SKIPPED: a record of an unknown, optional type was skipped
 * @PRECOPY_EV_SECTION: a record of precopy_decoder_accept() is complete, with
 *	nr_bytes bytes at payload
 */
enum precopy_stream_event {
	PRECOPY_EV_MORE = 0,
	PRECOPY_EV_HEADER,
	PRECOPY_EV_PREFACE,
	PRECOPY_EV_DATA,
	PRECOPY_EV_ZERO,
	PRECOPY_EV_INITIAL_END,
	PRECOPY_EV_STATE,
	PRECOPY_EV_END,
	PRECOPY_EV_SKIPPED,
	PRECOPY_EV_SECTION,
};

/**
 * struct precopy_decoder - state of a stream being read
 * @section: description of the record; set by SECTION, and NULL after any other
 *	event
 * @offset: offset in device memory, bytes; set by DATA and ZERO. Of SECTION, the
 *	offset in the record's header.
 * @nr_bytes: length of the range, bytes; set by DATA and ZERO. Of SECTION, the
 *	length of the payload.
 * @payload: contents of the range, in the caller's buffer; set by DATA and
 *	SECTION
 * @bytes_in_use: device memory in use, bytes; set by PREFACE and STATE
 * @startup_ns: the source's estimate of the target's startup, ns; set by PREFACE
 * @nr_units: number of units in the bitmap; set by PREFACE
 * @major: major version of the stream; set by the file header
 * @minor: minor version of the stream; set by the file header
 * @error: reason of the failure, a static string; NULL while there is none
 *
 * A member is valid from the event that sets it until the next call of
 * precopy_decoder_advance(). @error and the versions stay valid.
 */
struct precopy_decoder {
	const struct precopy_section_record *section;
	u64 offset;
	u64 nr_bytes;
	const void *payload;
	u64 bytes_in_use;
	u64 startup_ns;
	u32 nr_units;
	u16 major;
	u16 minor;
	const char *error;
	/* private: */
	struct precopy_stream_params expect;
	const struct precopy_section_record * const *records;
	u8 *buf;
	union {
		u8 bytes[PRECOPY_FILE_HDR_LEN];
		struct precopy_file_hdr file;
		struct precopy_rec_hdr rec;
	} head;
	int err;
	u8 piece;
	u8 phase;
	u16 type;
	u32 need;
	u32 have;
	u32 skip_crc;
	u32 crc;
	u64 nr_records;
};

u32 precopy_stream_units(u64 memory_size);
size_t precopy_preface_len(u32 nr_units);

void precopy_encoder_init(struct precopy_encoder *enc,
			  const struct precopy_stream_params *params);
size_t precopy_encode_header(struct precopy_encoder *enc, void *buf);
size_t precopy_encode_record(struct precopy_encoder *enc, void *buf, u16 type,
			     u64 offset, u32 len);
size_t precopy_encode_optional(struct precopy_encoder *enc, void *buf, u16 type,
			       u64 offset, u32 len);
size_t precopy_encode_preface(struct precopy_encoder *enc, void *buf,
			      u64 bytes_in_use, u64 startup_ns,
			      const unsigned long *bitmap, u32 nr_units);
size_t precopy_encode_zero(struct precopy_encoder *enc, void *buf, u64 offset,
			   u64 nr_bytes);
size_t precopy_encode_state(struct precopy_encoder *enc, void *buf,
			    u64 bytes_in_use);
size_t precopy_encode_end(struct precopy_encoder *enc, void *buf);

void precopy_decoder_init(struct precopy_decoder *dec,
			  const struct precopy_stream_params *expect, void *buf);
void precopy_decoder_accept(struct precopy_decoder *dec,
			    const struct precopy_section_record * const *records);
size_t precopy_decoder_want(struct precopy_decoder *dec, void **dst);
int precopy_decoder_advance(struct precopy_decoder *dec, size_t n);
bool precopy_decoder_unit_in_use(const struct precopy_decoder *dec, u32 unit);
bool precopy_decoder_complete(const struct precopy_decoder *dec);
bool precopy_decoder_at_barrier(const struct precopy_decoder *dec, size_t n);

#endif /* PRECOPY_STREAM_H */
