/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The wire format of precopy-vfio-pci, version 1.0, written a second time from
 * its specification: a builder of streams, good and bad, and a walker over the
 * records of a stream. It shares nothing with the driver, so that a mistake
 * there is not a mistake here as well.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_STREAM_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_STREAM_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/types.h>

#include <libvfio/vfio_pci_migration.h>

#define WIRE_MAGIC		"VFIOPREC"
#define WIRE_MAJOR		1
#define WIRE_MINOR		0
/* Of a device with an engine, which has one more type of record */
#define WIRE_MINOR_ENGINE	1
#define WIRE_BACKEND_RAM	1
#define WIRE_UNIT		(2UL << 20)
#define WIRE_MAX_DATA		65536U
#define WIRE_MAX_OPTIONAL	(16U << 20)
#define WIRE_MAX_HEADER		4096U

enum wire_type {
	WIRE_PREFACE = 1,
	WIRE_DATA = 2,
	WIRE_ZERO = 3,
	WIRE_INITIAL_END = 4,
	WIRE_STATE = 5,
	WIRE_END = 6,
	WIRE_ENGINE = 7,
	WIRE_WINDOW = 8,
	WIRE_UNKNOWN = 0x7001,
};

#define WIRE_MANDATORY		1
#define WIRE_OPTIONAL		2

/* Little-endian fields without padding; the tests run on such machines only. */
struct wire_header {
	u8 magic[8];
	u16 major;
	u16 minor;
	u32 header_len;
	u32 features_required;
	u32 features_optional;
	u16 vendor;
	u16 device;
	u32 backend;
	u32 page_size;
	u32 unit_size;
	u64 memory_size;
	u8 reserved[12];
	u32 crc;
} __attribute__((packed));

struct wire_record {
	u16 type;
	u16 flags;
	u32 length;
	u64 offset;
	u32 payload_crc;
	u32 header_crc;
} __attribute__((packed));

struct wire_preface {
	u64 bytes_in_use;
	u64 startup_ns;
	u32 nr_units;
	u32 reserved;
	u64 bitmap[];
} __attribute__((packed));

struct wire_end {
	u64 nr_records;
	u32 crc;
	u32 reserved;
} __attribute__((packed));

_Static_assert(sizeof(struct wire_header) == 64, "file header");
_Static_assert(sizeof(struct wire_record) == 24, "record header");
_Static_assert(sizeof(struct wire_end) == 16, "end record");

u32 wire_crc32c(const void *data, size_t len);

/* A builder: fields that a test wants to be wrong are changed on the way. */
struct wire {
	struct mig_stream stream;
	struct wire_header header;
	u64 nr_records;
	u32 end_crc;		/* state of the checksum that END carries */
};

/* Header fields for the device; nothing is in the stream yet. */
void wire_init(struct wire *w, const char *bdf, u64 memory_size);
void wire_free(struct wire *w);

/* Appends w->header with its checksum, and header_len - 64 extension bytes. */
void wire_put_header(struct wire *w);
void wire_put_record(struct wire *w, u16 type, u16 flags, u64 offset,
		     const void *payload, u32 length);
void wire_put_preface(struct wire *w);
void wire_put_data(struct wire *w, u64 offset, const void *data, u32 length);
void wire_put_zero(struct wire *w, u64 offset, u64 length);
void wire_put_initial_end(struct wire *w);
void wire_put_state(struct wire *w);
void wire_put_end(struct wire *w);

/*
 * Walks the records of a stream and checks all of its framing. Returns the
 * number of records, or -EBADMSG after saying on stderr what is wrong. @each,
 * if not NULL, is called with the position of every record header.
 */
typedef void (*wire_each_fn)(const struct wire_record *record, size_t pos,
			     void *arg);
long wire_walk(const struct mig_stream *stream, wire_each_fn each, void *arg);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_STREAM_H */
