/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Frames, the format of connections and of snapshot files. These are pure functions
 * between structures and bytes, so that they can be tested without a connection.
 *
 * A frame is a header of 24 bytes and a payload. Integers are little endian:
 *
 *	0	magic "VFMG"
 *	4	version, 16 bits: 1
 *	6	type, 16 bits: enum frame_type
 *	8	length of the payload, 32 bits
 *	12	CRC-32C of the payload, 0 without one
 *	16	sequence number: frames that this side has sent before, 32 bits
 *	20	CRC-32C of the 20 bytes before
 *
 * A header is used only after its CRC was verified, and the length is limited for each
 * type. CRCs protect against accidents; they do not authenticate the peer.
 */
#ifndef VFIO_MIGRATE_FRAME_H
#define VFIO_MIGRATE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_VERSION		1
#define FRAME_HEADER_LEN	24
#define FRAME_MAX_DATA		(1U << 20)
/* Limit for all types except FRAME_DATA */
#define FRAME_MAX_SMALL		256

enum frame_type {
	FRAME_HELLO = 1,	/* both directions, first frame: struct frame_hello */
	FRAME_DATA,		/* to the target: the device's stream */
	FRAME_MARK,		/* to the target: end of the initial bytes */
	FRAME_ACK,		/* to the source: all data before the mark was written */
	FRAME_STATUS,		/* to the source, repeatedly: struct frame_status */
	FRAME_KEEPALIVE,	/* both directions: sent if there is nothing else to send */
	FRAME_END,		/* to the target: end of the stream */
	FRAME_READY,		/* to the source: the device has loaded the stream and is stopped */
	FRAME_GO,		/* to the target: run; the source will not resume any more */
	FRAME_RUNNING,		/* to the source: the device runs */
	FRAME_ERROR,		/* both directions, last frame: reason of a failure as text */
	FRAME_NR_TYPES
};

struct frame_header {
	enum frame_type	type;
	uint32_t	length;
	uint32_t	crc;
	uint32_t	sequence;
};

#define FRAME_HELLO_LEN		80
#define FRAME_DRIVER_LEN	32

/**
 * struct frame_hello - description of a device and its side
 * @mig_flags: VFIO_MIGRATION_* flags of the device
 * @data_size: value of VFIO_DEVICE_FEATURE_MIG_DATA_SIZE in bytes, 0 if unknown
 * @vendor: PCI vendor id, 0 if unknown
 * @device: PCI device id, 0 if unknown
 * @timeout_ms: timeout of this side in ms for receiving
 * @driver: name of the device's driver, "" if unknown
 * @memory_size: size in bytes of the largest BAR, 0 if unknown
 */
struct frame_hello {
	uint64_t	mig_flags;
	uint64_t	data_size;
	uint32_t	vendor;
	uint32_t	device;
	uint32_t	timeout_ms;
	char		driver[FRAME_DRIVER_LEN];
	uint64_t	memory_size;
};

/* Payload of FRAME_MARK, FRAME_ACK, FRAME_END and FRAME_READY: position in the stream */
#define FRAME_POSITION_LEN	16

struct frame_position {
	uint64_t	bytes;
	uint32_t	id;		/* number of the mark; 0 for END and READY */
};

#define FRAME_STATUS_LEN	40

/* A write() to the device is blocked */
#define FRAME_STATUS_BLOCKED	(1 << 0)
/* The driver reports the progress of the startup: the other fields are valid */
#define FRAME_STATUS_STARTUP	(1 << 1)
/* @remaining_ns is based on startups measured on the target's host */
#define FRAME_STATUS_MEASURED	(1 << 2)

/**
 * struct frame_status - progress of a target
 * @written: number of bytes of the stream for which write() has returned
 * @flags: FRAME_STATUS_* flags
 * @phase: value of enum vfio_precopy_phase
 * @remaining_ns: estimated time in ns until the startup is complete
 * @prepared: number of bytes that the startup has prepared
 * @in_use: number of bytes that the startup has to prepare
 */
struct frame_status {
	uint64_t	written;
	uint32_t	flags;
	uint32_t	phase;
	uint64_t	remaining_ns;
	uint64_t	prepared;
	uint64_t	in_use;
};

const char *frame_name(enum frame_type type);

uint32_t crc32c(const void *data, size_t len);

/* Encode the header of a frame with @len bytes of payload. */
void frame_encode(uint8_t header[FRAME_HEADER_LEN], enum frame_type type,
		  const void *payload, uint32_t len, uint32_t sequence);

/*
 * Decode a header. Returns NULL, or a description of the error; @frame is not valid in
 * this case.
 */
const char *frame_decode(const uint8_t header[FRAME_HEADER_LEN], uint32_t sequence,
			 struct frame_header *frame);

/* Verify a payload. Returns NULL, or a description of the error. */
const char *frame_check(const struct frame_header *frame, const void *payload);

void frame_put_hello(uint8_t *payload, const struct frame_hello *hello);
void frame_get_hello(const uint8_t *payload, struct frame_hello *hello);
void frame_put_position(uint8_t *payload, const struct frame_position *pos);
void frame_get_position(const uint8_t *payload, struct frame_position *pos);
void frame_put_status(uint8_t *payload, const struct frame_status *status);
void frame_get_status(const uint8_t *payload, struct frame_status *status);

/* Copy text of a peer: at most @len bytes of UTF-8, without control characters. */
void frame_get_text(const uint8_t *payload, uint32_t len, char *text, size_t size);

#endif /* VFIO_MIGRATE_FRAME_H */
