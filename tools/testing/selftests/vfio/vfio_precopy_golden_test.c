// SPDX-License-Identifier: GPL-2.0-only
/*
 * Golden streams: what has been released once loads for ever, through a device.
 * And what is refused says why: one row for each reason, with its errno and its
 * line in the kernel's log.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_engine.h>
#include <libvfio/precopy_states.h>
#include <libvfio/precopy_stream.h>

#include <libvfio/mig_harness.h>

#include "golden.h"

/* How long the kernel may go on to suppress lines of the same kind. */
#define PATIENCE_MS	60000
#define REST_US		(500 * 1000)

static char **bdfs;
static int nr_bdfs;

static bool is_golden_carrier(const char *bdf)
{
	struct wire w;

	wire_init(&w, bdf, GOLDEN_MEMORY_SIZE);
	return w.header.vendor == GOLDEN_VENDOR &&
	       w.header.device == GOLDEN_DEVICE;
}

/* Something of it in every unit, that a load must not leave there. */
static void open_used(struct precopy_dev *pd, size_t size)
{
	u64 page;

	precopy_open(pd, bdfs[0], NULL, size);
	for (page = 0; page < precopy_nr_pages(pd); page += 131)
		precopy_fill(pd, page, 2, 1, page & 1 ? BY_MMAP : BY_PWRITE);
}

static void get_v1_0(struct mig_stream *stream)
{
	u8 bytes[GOLDEN_V1_0_LEN];

	golden_v1_0(bytes);
	stream->len = 0;
	mig_stream_append(stream, bytes, sizeof(bytes));
}

/* ------------------------------------------------------------------------ */

FIXTURE(golden) {
	struct precopy_dev pd;
	struct mig_stream stream;
	u8 *want;
};

FIXTURE_SETUP(golden)
{
	if (!is_golden_carrier(bdfs[0]))
		SKIP(return, "the golden streams are for another carrier");
	open_used(&self->pd, GOLDEN_MEMORY_SIZE);
	self->want = calloc_assert(1, GOLDEN_MEMORY_SIZE);
}

FIXTURE_TEARDOWN(golden)
{
	mig_stream_free(&self->stream);
	if (self->pd.dev)
		precopy_close(&self->pd);
	free(self->want);
}

typedef FIXTURE_DATA(golden) golden_t;

static void check_loads(struct __test_metadata *_metadata, golden_t *self)
{
	static const size_t chunks[] = { SZ_64K, 1, 4099 };
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(chunks); i++) {
		ASSERT_EQ(0, mig_load(self->pd.dev, &self->stream, chunks[i]))
			TH_LOG("chunks of %zu bytes", chunks[i]);
		EXPECT_EQ(0, precopy_differ(&self->pd, self->want));
		ASSERT_EQ(0, mig_set_state(self->pd.dev, RUNNING, NULL));
		EXPECT_EQ(0, precopy_differ(&self->pd, self->want));
		precopy_reset(&self->pd);
		precopy_fill(&self->pd, 0, 600, i, BY_MMAP);
	}
}

TEST_F_TIMEOUT(golden, v1_0_loads, MIG_TIMEOUT)
{
	get_v1_0(&self->stream);
	golden_v1_0_page(self->want + 0x1000);
	check_loads(_metadata, self);
}

/* Of a minor version to come, with things in it that nobody knows yet. */
TEST_F_TIMEOUT(golden, v1_7_loads, MIG_TIMEOUT)
{
	mig_stream_append(&self->stream, golden_v1_7, sizeof(golden_v1_7));
	check_loads(_metadata, self);
}

/* What is written today begins like what was released. */
TEST_F_TIMEOUT(golden, v1_0_is_written, MIG_TIMEOUT)
{
	ASSERT_EQ(0, mig_save(self->pd.dev, &self->stream));
	ASSERT_LT(sizeof(struct wire_header), self->stream.len);
	EXPECT_EQ(0, memcmp(self->stream.data, golden_v1_0_head,
			    sizeof(struct wire_header)));
}

/* ------------------------------------------------------------------------ */
/* A device whose model is "engine"                                         */

/* What registers hold after golden_v1_1 */
static const struct {
	u32 at;
	u64 value;
} v1_1_registers[] = {
	{ PRECOPY_EPF_MAGIC, 0xa0a1a2a3 },
	{ PRECOPY_EPF_COMMAND, PRECOPY_EPF_COMMAND_READ },
	{ PRECOPY_EPF_STATUS, 0 },
	{ PRECOPY_EPF_SRC, 0x45566778 },
	{ PRECOPY_EPF_SRC + 4, 0x01122334 },
	{ PRECOPY_EPF_DST, 0x87654321 },
	{ PRECOPY_EPF_DST + 4, 0x0fedcba9 },
	{ PRECOPY_EPF_SIZE, 0x5001 },
	{ PRECOPY_EPF_CHECKSUM, 0xcafebabe },
	{ PRECOPY_EPF_IRQ_TYPE, PRECOPY_EPF_IRQ_MSIX },
	{ PRECOPY_EPF_IRQ_NUMBER, 5 },
	{ PRECOPY_EPF_FLAGS, 1 },
	{ PRECOPY_ENGINE_CTRL, PRECOPY_ENGINE_CTRL_RING },
	{ PRECOPY_ENGINE_STATUS, 3 },
	{ PRECOPY_ENGINE_RING_BASE, 0x00000040 },
	{ PRECOPY_ENGINE_RING_BASE + 4, 0x1 },
	{ PRECOPY_ENGINE_RING_SIZE, 16 },
	{ PRECOPY_ENGINE_RING_HEAD, 3 },
	{ PRECOPY_ENGINE_RING_TAIL, 9 },
	{ PRECOPY_ENGINE_RING_VECTOR, 2 },
	{ PRECOPY_ENGINE_INTERVAL_US, 250000 },
	{ PRECOPY_ENGINE_RING_ERROR, 5 },
	{ PRECOPY_ENGINE_CMD_SRC, 0x44332211 },
	{ PRECOPY_ENGINE_CMD_SRC + 4, 0x88776655 },
	{ PRECOPY_ENGINE_CMD_DST + 4, 0x3 },
	{ PRECOPY_ENGINE_CMD_LEN, 0x4000 },
	{ PRECOPY_ENGINE_CMD_COUNT, 100 },
	{ PRECOPY_ENGINE_CMD_SEQ, 77 },
	{ PRECOPY_ENGINE_CMD_OP, PRECOPY_ENGINE_OP_STAMP },
	{ PRECOPY_ENGINE_CMD_FLAGS, 0 },
	{ PRECOPY_ENGINE_CMD_VECTOR, 7 },
	{ PRECOPY_ENGINE_CMD_START, 1 },
	{ PRECOPY_ENGINE_CMD_ERROR, 110 },
	{ PRECOPY_ENGINE_CMD_DONE, 42 },
	{ PRECOPY_ENGINE_BYTES, 0x3456789a },
	{ PRECOPY_ENGINE_BYTES + 4, 0x12 },
	{ PRECOPY_ENGINE_MSIX_PBA, 0xa5 },
};

/* Bytes of the records after ENGINE: STATE and END */
#define AFTER_ENGINE	(sizeof(golden_v1_1) - GOLDEN_V1_1_ENGINE - GOLDEN_ENGINE_LEN)

FIXTURE(golden_engine) {
	struct engine e;
	struct mig_stream stream;
	u8 *want;
};

FIXTURE_SETUP(golden_engine)
{
	if (!is_golden_carrier(bdfs[0]))
		SKIP(return, "the golden streams are for another carrier");
	engine_open(&self->e, bdfs[0], NULL, GOLDEN_MEMORY_SIZE, SZ_1M);
	/* What is loaded would begin to act */
	engine_set_master(&self->e, false);
	self->want = calloc_assert(1, GOLDEN_MEMORY_SIZE);
}

FIXTURE_TEARDOWN(golden_engine)
{
	mig_stream_free(&self->stream);
	if (self->want)
		engine_close(&self->e);
	free(self->want);
}

TEST_F_TIMEOUT(golden_engine, v1_1_loads, MIG_TIMEOUT)
{
	static const size_t chunks[] = { SZ_64K, 1, 4099 };
	struct precopy_dev *pd = &self->e.pd;
	unsigned int i, k;

	mig_stream_append(&self->stream, golden_v1_1, sizeof(golden_v1_1));
	for (i = 0; i < ARRAY_SIZE(chunks); i++) {
		precopy_fill(pd, 0, 600, i, BY_MMAP);
		engine_write32(&self->e, PRECOPY_ENGINE_CMD_SEQ, 1);
		ASSERT_EQ(0, mig_load(pd->dev, &self->stream, chunks[i]));
		for (k = 0; k < ARRAY_SIZE(v1_1_registers); k++) {
			EXPECT_EQ(v1_1_registers[k].value,
				  engine_read32(&self->e, v1_1_registers[k].at))
				TH_LOG("register %x", v1_1_registers[k].at);
		}
		EXPECT_EQ(0, precopy_differ(pd, self->want));
		ASSERT_EQ(0, mig_set_state(pd->dev, RUNNING, NULL));
		precopy_reset(pd);
	}
}

/* What was released is loaded, and written again, without a byte that differs. */
TEST_F_TIMEOUT(golden_engine, v1_1_is_written, MIG_TIMEOUT)
{
	struct precopy_dev *pd = &self->e.pd;
	struct mig_stream saved = {};
	int fd;

	mig_stream_append(&self->stream, golden_v1_1, sizeof(golden_v1_1));
	ASSERT_EQ(0, mig_load(pd->dev, &self->stream, SZ_64K));
	ASSERT_EQ(0, mig_set_state(pd->dev, STOP_COPY, &fd));
	EXPECT_EQ(0, mig_stream_drain(&saved, fd, SZ_64K));
	close(fd);
	ASSERT_LE(sizeof(struct wire_header) + GOLDEN_ENGINE_LEN + AFTER_ENGINE, saved.len);
	EXPECT_EQ(0, memcmp(saved.data, golden_v1_1, sizeof(struct wire_header)));
	EXPECT_EQ(0, memcmp(saved.data + saved.len - AFTER_ENGINE - GOLDEN_ENGINE_LEN,
			    golden_v1_1 + GOLDEN_V1_1_ENGINE, GOLDEN_ENGINE_LEN));
	mig_stream_free(&saved);
}

/* ------------------------------------------------------------------------ */
/* One thing wrong, or of another version                                   */

#define AT_MAGIC	0
#define AT_MAJOR	8
#define AT_MINOR	10
#define AT_HEADER_LEN	12
#define AT_REQUIRED	16
#define AT_OPTIONAL	20
#define AT_VENDOR	24
#define AT_DEVICE	26
#define AT_BACKEND	28
#define AT_PAGE_SIZE	32
#define AT_UNIT_SIZE	36
#define AT_RESERVED	48

FIXTURE(skew) {
	struct precopy_dev pd;
	struct mig_stream stream;
	u8 *want;
	int kmsg;
};

FIXTURE_VARIANT(skew) {
	size_t at;		/* in the file header */
	size_t width;
	u64 value;
	size_t memory_size;	/* of the device, if not that of the stream */
	u16 flags;		/* of an unknown record to insert */
	int error;		/* of write(), or 0 */
	const char *why;	/* in the kernel's log */
};

#define ROW(_name, ...)	FIXTURE_VARIANT_ADD(skew, _name) { __VA_ARGS__ }
#define HEADER(_at, _width, _value) .at = _at, .width = _width, .value = _value
#define REFUSED(_error, _why) .error = _error, .why = _why

/* What an older reader can do without */
ROW(newer_minor, HEADER(AT_MINOR, 2, 1));
ROW(newest_minor, HEADER(AT_MINOR, 2, 0xffff));
ROW(optional_feature, HEADER(AT_OPTIONAL, 4, 0x80000001));
ROW(optional_record, .flags = WIRE_OPTIONAL);

/* What it can not */
ROW(other_major, HEADER(AT_MAJOR, 2, 2), REFUSED(-EOPNOTSUPP, "unknown major version"));
ROW(major_zero, HEADER(AT_MAJOR, 2, 0), REFUSED(-EOPNOTSUPP, "unknown major version"));
ROW(required_feature, HEADER(AT_REQUIRED, 4, 2), REFUSED(-EOPNOTSUPP, "unknown required feature"));
ROW(mandatory_record, .flags = WIRE_MANDATORY, REFUSED(-EOPNOTSUPP, "unknown mandatory record"));
ROW(longer_header, HEADER(AT_HEADER_LEN, 4, 72), REFUSED(-EINVAL, "bad length of the file header"));
ROW(reserved, HEADER(AT_RESERVED, 4, 1), REFUSED(-EINVAL, "reserved bytes in the file header"));

/* What is for another device */
ROW(other_driver, HEADER(AT_MAGIC, 1, 'W'), REFUSED(-EINVAL, "not a stream of this driver"));
ROW(other_vendor, HEADER(AT_VENDOR, 2, 0x8086), REFUSED(-EINVAL, "another vendor or device id"));
ROW(other_device, HEADER(AT_DEVICE, 2, 6), REFUSED(-EINVAL, "another vendor or device id"));
ROW(other_model, HEADER(AT_REQUIRED, 4, 1), REFUSED(-EINVAL, "another model of device"));
ROW(other_backend, HEADER(AT_BACKEND, 4, 2), REFUSED(-EINVAL, "another kind of backend"));
ROW(other_page_size, HEADER(AT_PAGE_SIZE, 4, 65536), REFUSED(-EINVAL, "another page or unit size"));
ROW(other_unit, HEADER(AT_UNIT_SIZE, 4, 1 << 20), REFUSED(-EINVAL, "another page or unit size"));
ROW(smaller_memory, .memory_size = SZ_4M, REFUSED(-EINVAL, "another memory size"));
ROW(larger_memory, .memory_size = SZ_16M, REFUSED(-EINVAL, "another memory size"));

#undef HEADER

/* What END says of all before it, and every header's checksum, made right */
struct seal {
	u32 crcs[16];
	u32 nr;
};

static void seal(struct seal *seal, u8 *header, size_t len)
{
	u32 crc;

	memset(header + len - 4, 0, 4);
	crc = wire_crc32c(header, len);
	memcpy(header + len - 4, &crc, 4);
	VFIO_ASSERT_LT(seal->nr, ARRAY_SIZE(seal->crcs));
	seal->crcs[seal->nr++] = crc;
}

static void seal_stream(u8 *data, size_t len)
{
	struct wire_record *record;
	struct wire_end *end;
	struct seal s = {};
	size_t pos;

	seal(&s, data, sizeof(struct wire_header));
	for (pos = sizeof(struct wire_header); pos < len;
	     pos += sizeof(*record) + record->length) {
		record = (void *)(data + pos);
		end = (void *)(data + pos + sizeof(*record));
		if (record->type == WIRE_END) {
			end->nr_records = s.nr - 1;
			end->crc = wire_crc32c(s.crcs, s.nr * sizeof(u32));
			record->payload_crc = wire_crc32c(end, sizeof(*end));
		}
		seal(&s, data + pos, sizeof(*record));
	}
}

static void insert_unknown(struct mig_stream *stream, u16 flags)
{
	struct wire_record record = {
		.type = WIRE_UNKNOWN, .flags = flags, .length = 3,
		.payload_crc = wire_crc32c("new", 3),
	};
	size_t rest = stream->len - sizeof(golden_v1_0_head) - GOLDEN_PAGE;
	u8 tail[sizeof(golden_v1_0_tail)];

	VFIO_ASSERT_EQ(rest, sizeof(tail));
	memcpy(tail, stream->data + stream->len - rest, rest);
	stream->len -= rest;
	mig_stream_append(stream, &record, sizeof(record));
	mig_stream_append(stream, "new", 3);
	mig_stream_append(stream, tail, rest);
}

FIXTURE_SETUP(skew)
{
	if (!is_golden_carrier(bdfs[0]))
		SKIP(return, "the golden streams are for another carrier");
	open_used(&self->pd, variant->memory_size ?: GOLDEN_MEMORY_SIZE);
	self->want = calloc_assert(1, GOLDEN_MEMORY_SIZE);
	golden_v1_0_page(self->want + 0x1000);

	get_v1_0(&self->stream);
	memcpy(self->stream.data + variant->at, &variant->value,
	       variant->width);
	if (variant->flags)
		insert_unknown(&self->stream, variant->flags);
	seal_stream(self->stream.data, self->stream.len);

	self->kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	ASSERT_LE(0, self->kmsg);
}

FIXTURE_TEARDOWN(skew)
{
	mig_stream_free(&self->stream);
	if (self->pd.dev)
		precopy_close(&self->pd);
	if (self->kmsg > 0)
		close(self->kmsg);
	free(self->want);
}

/* Is there a line of this device since the last call, and does it say @why? */
static bool log_says(int kmsg, const char *bdf, const char *why, int error)
{
	char line[8192], want[256];
	bool found = false;
	ssize_t len;

	snprintf_assert(want, sizeof(want),
			"%s: migration stream refused: %s (%d)", bdf, why,
			error);
	for (;;) {
		len = read(kmsg, line, sizeof(line) - 1);
		if (len < 0 && errno == EPIPE)
			continue;
		if (len < 0)
			return found;
		line[len] = 0;
		found |= !!strstr(line, want);
	}
}

typedef FIXTURE_DATA(skew) skew_t;

static int refuse_once(struct __test_metadata *_metadata, skew_t *self)
{
	int fd, ret;

	ASSERT_EQ(0, mig_set_state(self->pd.dev, RESUMING, &fd));
	ret = mig_write_all(fd, self->stream.data, self->stream.len, SZ_64K,
			    NULL);
	EXPECT_EQ(ret, mig_set_state(self->pd.dev, STOP, NULL));
	EXPECT_EQ(RESUMING, mig_get_state(self->pd.dev));
	close(fd);
	precopy_reset(&self->pd);

	return ret;
}

/* Lines of one kind come ten in five seconds, then some are left out. */
static void check_refused(struct __test_metadata *_metadata, skew_t *self,
			  int error, const char *why)
{
	u64 deadline = precopy_now_ms() + PATIENCE_MS;
	bool said;

	do {
		lseek(self->kmsg, 0, SEEK_END);
		ASSERT_EQ(error, refuse_once(_metadata, self));
		said = log_says(self->kmsg, bdfs[0], why, error);
		if (!said)
			usleep(REST_US);
	} while (!said && precopy_now_ms() < deadline);
	EXPECT_TRUE(said) TH_LOG("the log does not say: %s (%d)", why, error);
}

TEST_F_TIMEOUT(skew, row, MIG_TIMEOUT)
{
	if (variant->error) {
		check_refused(_metadata, self, variant->error, variant->why);
		/* And nothing of that sticks. */
		if (!variant->memory_size) {
			get_v1_0(&self->stream);
			ASSERT_EQ(0, mig_load(self->pd.dev, &self->stream, 333));
		}
	} else {
		ASSERT_EQ(0, mig_load(self->pd.dev, &self->stream, 333));
	}
	if (!variant->memory_size)
		EXPECT_EQ(0, precopy_differ(&self->pd, self->want));
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
