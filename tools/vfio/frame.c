// SPDX-License-Identifier: GPL-2.0-only
/* Frames: see frame.h. */
#include <endian.h>
#include <string.h>

#include "frame.h"
#include "utf8.h"

#define ARRAY_LEN(a)	(sizeof(a) / sizeof((a)[0]))

static const uint8_t magic[4] = { 'V', 'F', 'M', 'G' };

/* Valid lengths of each type */
static const struct {
	const char *name;
	uint32_t min, max;
} types[FRAME_NR_TYPES] = {
	[FRAME_HELLO]	  = { "HELLO", FRAME_HELLO_LEN, FRAME_HELLO_LEN },
	[FRAME_DATA]	  = { "DATA", 1, FRAME_MAX_DATA },
	[FRAME_MARK]	  = { "MARK", FRAME_POSITION_LEN, FRAME_POSITION_LEN },
	[FRAME_ACK]	  = { "ACK", FRAME_POSITION_LEN, FRAME_POSITION_LEN },
	[FRAME_STATUS]	  = { "STATUS", FRAME_STATUS_LEN, FRAME_STATUS_LEN },
	[FRAME_KEEPALIVE] = { "KEEPALIVE", 0, 0 },
	[FRAME_END]	  = { "END", FRAME_POSITION_LEN, FRAME_POSITION_LEN },
	[FRAME_READY]	  = { "READY", FRAME_POSITION_LEN, FRAME_POSITION_LEN },
	[FRAME_GO]	  = { "GO", 0, 0 },
	[FRAME_RUNNING]	  = { "RUNNING", 0, 0 },
	[FRAME_ERROR]	  = { "ERROR", 0, FRAME_MAX_SMALL },
};

const char *frame_name(enum frame_type type)
{
	if ((unsigned int)type < ARRAY_LEN(types) && types[type].name)
		return types[type].name;
	return "unknown";
}

/* --- Integers -------------------------------------------------------------- */

static void put16(uint8_t *at, uint16_t value)
{
	value = htole16(value);
	memcpy(at, &value, sizeof(value));
}

static void put32(uint8_t *at, uint32_t value)
{
	value = htole32(value);
	memcpy(at, &value, sizeof(value));
}

static void put64(uint8_t *at, uint64_t value)
{
	value = htole64(value);
	memcpy(at, &value, sizeof(value));
}

static uint16_t get16(const uint8_t *at)
{
	uint16_t value;

	memcpy(&value, at, sizeof(value));
	return le16toh(value);
}

static uint32_t get32(const uint8_t *at)
{
	uint32_t value;

	memcpy(&value, at, sizeof(value));
	return le32toh(value);
}

static uint64_t get64(const uint8_t *at)
{
	uint64_t value;

	memcpy(&value, at, sizeof(value));
	return le64toh(value);
}

/* --- CRC-32C, eight bytes at a time ------------------------------------------ */

static uint32_t table[8][256];

static __attribute__((constructor)) void crc32c_init(void)
{
	uint32_t crc;
	int i, bit, k;

	for (i = 0; i < 256; i++) {
		crc = i;
		for (bit = 0; bit < 8; bit++)
			crc = crc >> 1 ^ (crc & 1 ? 0x82f63b78 : 0);
		table[0][i] = crc;
	}
	for (k = 1; k < 8; k++)
		for (i = 0; i < 256; i++)
			table[k][i] = table[k - 1][i] >> 8 ^ table[0][table[k - 1][i] & 0xff];
}

uint32_t crc32c(const void *data, size_t len)
{
	const uint8_t *p = data;
	uint32_t crc = ~0U;
	uint64_t word;
	int k;

	for (; len >= 8; len -= 8, p += 8) {
		word = get64(p) ^ crc;
		crc = 0;
		for (k = 0; k < 8; k++)
			crc ^= table[7 - k][word >> (8 * k) & 0xff];
	}
	while (len--)
		crc = crc >> 8 ^ table[0][(crc ^ *p++) & 0xff];
	return ~crc;
}

/* --- Headers -------------------------------------------------------------------- */

void frame_encode(uint8_t header[FRAME_HEADER_LEN], enum frame_type type,
		  const void *payload, uint32_t len, uint32_t sequence)
{
	memcpy(header, magic, sizeof(magic));
	put16(header + 4, FRAME_VERSION);
	put16(header + 6, type);
	put32(header + 8, len);
	put32(header + 12, len ? crc32c(payload, len) : 0);
	put32(header + 16, sequence);
	put32(header + 20, crc32c(header, 20));
}

const char *frame_decode(const uint8_t header[FRAME_HEADER_LEN], uint32_t sequence,
			 struct frame_header *frame)
{
	uint16_t type = get16(header + 6);

	if (memcmp(header, magic, sizeof(magic)))
		return "the data is not from vfio-migrate";
	if (get32(header + 20) != crc32c(header, 20))
		return "a frame's header is damaged";
	/* No other field is known in a frame of another version */
	if (get16(header + 4) != FRAME_VERSION)
		return "it is from another version of vfio-migrate";
	if (type >= ARRAY_LEN(types) || !types[type].name)
		return "a frame has an unknown type";
	frame->type = type;
	frame->length = get32(header + 8);
	frame->crc = get32(header + 12);
	frame->sequence = get32(header + 16);
	if (frame->length < types[type].min || frame->length > types[type].max)
		return "a frame has a length that it cannot have";
	if (frame->sequence != sequence)
		return "a frame is missing or was repeated";
	return NULL;
}

const char *frame_check(const struct frame_header *frame, const void *payload)
{
	uint32_t crc = frame->length ? crc32c(payload, frame->length) : 0;

	return crc == frame->crc ? NULL : "a frame is damaged";
}

/* --- Payloads ---------------------------------------------------------------------- */

void frame_put_hello(uint8_t *payload, const struct frame_hello *hello)
{
	memset(payload, 0, FRAME_HELLO_LEN);
	put64(payload, hello->mig_flags);
	put64(payload + 8, hello->data_size);
	put32(payload + 16, hello->vendor);
	put32(payload + 20, hello->device);
	put32(payload + 24, hello->timeout_ms);
	memcpy(payload + 32, hello->driver, FRAME_DRIVER_LEN);
	put64(payload + 64, hello->memory_size);
}

void frame_get_hello(const uint8_t *payload, struct frame_hello *hello)
{
	hello->mig_flags = get64(payload);
	hello->data_size = get64(payload + 8);
	hello->vendor = get32(payload + 16);
	hello->device = get32(payload + 20);
	hello->timeout_ms = get32(payload + 24);
	frame_get_text(payload + 32, FRAME_DRIVER_LEN, hello->driver, sizeof(hello->driver));
	hello->memory_size = get64(payload + 64);
}

void frame_put_position(uint8_t *payload, const struct frame_position *pos)
{
	memset(payload, 0, FRAME_POSITION_LEN);
	put64(payload, pos->bytes);
	put32(payload + 8, pos->id);
}

void frame_get_position(const uint8_t *payload, struct frame_position *pos)
{
	pos->bytes = get64(payload);
	pos->id = get32(payload + 8);
}

void frame_put_status(uint8_t *payload, const struct frame_status *status)
{
	put64(payload, status->written);
	put32(payload + 8, status->flags);
	put32(payload + 12, status->phase);
	put64(payload + 16, status->remaining_ns);
	put64(payload + 24, status->prepared);
	put64(payload + 32, status->in_use);
}

void frame_get_status(const uint8_t *payload, struct frame_status *status)
{
	status->written = get64(payload);
	status->flags = get32(payload + 8);
	status->phase = get32(payload + 12);
	status->remaining_ns = get64(payload + 16);
	status->prepared = get64(payload + 24);
	status->in_use = get64(payload + 32);
}

void frame_get_text(const uint8_t *payload, uint32_t len, char *text, size_t size)
{
	uint32_t end = strnlen((const char *)payload, len), at = 0;
	size_t i = 0, n;

	while (at < end && i < size - 1) {
		n = utf8_length(payload + at, end - at);
		if (n > size - 1 - i)
			break;
		if (n)
			memcpy(text + i, payload + at, n);
		else
			text[i] = '?';
		n = n ?: 1;
		i += n;
		at += n;
	}
	text[i] = '\0';
}
