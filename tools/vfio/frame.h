/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What goes over a connection, and what a snapshot file holds: frames. Pure
 * functions between structures and bytes, so that they can be tested alone.
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
 * Nothing in a header is believed before its CRC is right, and the length of
 * each type is bounded. CRCs are against accidents; they prove nothing about who
 * is at the other end.
 */
#ifndef VFIO_MIGRATE_FRAME_H
#define VFIO_MIGRATE_FRAME_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define FRAME_VERSION		1
#define FRAME_HEADER_LEN	24
#define FRAME_MAX_DATA		(1U << 20)
/* Of all types but FRAME_DATA */
#define FRAME_MAX_SMALL		256

enum frame_type {
	FRAME_HELLO = 1,	/* both ways, first: struct frame_hello */
	FRAME_DATA,		/* to the target: the device's stream */
	FRAME_MARK,		/* to the target: here the initial bytes end */
	FRAME_ACK,		/* back: all up to the mark was written */
	FRAME_STATUS,		/* back, again and again: struct frame_status */
	FRAME_KEEPALIVE,	/* both ways: nothing to send just now, but this side lives */
	FRAME_END,		/* to the target: that was the stream */
	FRAME_READY,		/* back: the device has taken it and is stopped */
	FRAME_GO,		/* to the target: run; the source never will again */
	FRAME_RUNNING,		/* back: it runs */
	FRAME_ERROR,		/* both ways, last: why, as text */
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
 * struct frame_hello - who is there
 * @mig_flags: VFIO_MIGRATION_* of the device
 * @data_size: VFIO_DEVICE_FEATURE_MIG_DATA_SIZE, 0 if unknown
 * @vendor: PCI vendor id, 0 if unknown
 * @device: PCI device id, 0 if unknown
 * @timeout_ms: how long this side bears silence
 * @driver: name of its driver, "" if unknown
 * @memory_size: size of its largest BAR in bytes, 0 if unknown
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

/* FRAME_MARK, FRAME_ACK, FRAME_END and FRAME_READY: how far the stream is */
#define FRAME_POSITION_LEN	16

struct frame_position {
	uint64_t	bytes;
	uint32_t	id;		/* of a mark; 0 otherwise */
};

#define FRAME_STATUS_LEN	40

/* A write() to the device has not returned for a while */
#define FRAME_STATUS_BLOCKED	(1 << 0)
/* The driver tells how far the startup is: the other fields are valid */
#define FRAME_STATUS_STARTUP	(1 << 1)
/* @remaining_ns comes from startups that the target's host has measured */
#define FRAME_STATUS_MEASURED	(1 << 2)

/**
 * struct frame_status - how far the target is
 * @written: bytes of the stream that write() has returned for
 * @flags: FRAME_STATUS_*
 * @phase: enum vfio_precopy_phase
 * @remaining_ns: until the startup is complete, estimated
 * @prepared: bytes that the startup has prepared
 * @in_use: bytes that it has to prepare
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

/* Makes the header of @len bytes of payload. */
void frame_encode(uint8_t header[FRAME_HEADER_LEN], enum frame_type type,
		  const void *payload, uint32_t len, uint32_t sequence);

/*
 * Takes a header apart. Returns NULL, or what is wrong with it; then nothing in
 * @frame means anything.
 */
const char *frame_decode(const uint8_t header[FRAME_HEADER_LEN], uint32_t sequence,
			 struct frame_header *frame);

/* Is this the payload that the header announced? NULL, or what is wrong. */
const char *frame_check(const struct frame_header *frame, const void *payload);

void frame_put_hello(uint8_t *payload, const struct frame_hello *hello);
void frame_get_hello(const uint8_t *payload, struct frame_hello *hello);
void frame_put_position(uint8_t *payload, const struct frame_position *pos);
void frame_get_position(const uint8_t *payload, struct frame_position *pos);
void frame_put_status(uint8_t *payload, const struct frame_status *status);
void frame_get_status(const uint8_t *payload, struct frame_status *status);

/* Text of a peer: at most @len bytes of UTF-8, and nothing that a terminal acts upon. */
void frame_get_text(const uint8_t *payload, uint32_t len, char *text, size_t size);

#endif /* VFIO_MIGRATE_FRAME_H */
