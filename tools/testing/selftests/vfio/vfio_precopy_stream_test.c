// SPDX-License-Identifier: GPL-2.0-only
/*
 * What goes through the data fds: copies of a device compared byte by byte,
 * what the counters promise about a stream, streams cut, bent and forged, and
 * the barrier at which the target's startup is waited for.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <unistd.h>

#include <sys/wait.h>

#include <linux/pci_regs.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_states.h>
#include <libvfio/precopy_stream.h>

#include <libvfio/mig_harness.h>

#define RECORD_MAX_SHARE	(PRECOPY_PAGE + sizeof(struct wire_record))
#define DELAY_MS	300
/* Two readings of a clock in whole milliseconds may differ by one less */
#define AT_LEAST_MS	(DELAY_MS - 1)
/* How long a killed process may take to end; far less than LONG_MS. */
#define PATIENCE_MS	60000
#define LONG_MS		600000

static char **bdfs;
static int nr_bdfs;

FIXTURE(stream) {
	struct precopy_dev a;
	struct precopy_dev b;
	struct mig_stream stream;
	bool two;
};

FIXTURE_VARIANT(stream) {
	const char *mode;
};

#define FIXTURE_VARIANT_ADD_IOMMU_MODE(_mode)	\
FIXTURE_VARIANT_ADD(stream, _mode) {		\
	.mode = #_mode,				\
}

/* The two ways in to a device that differ in code. */
FIXTURE_VARIANT_ADD_IOMMU_MODE(vfio_type1v2_iommu);
FIXTURE_VARIANT_ADD_IOMMU_MODE(iommufd);

#undef FIXTURE_VARIANT_ADD_IOMMU_MODE

FIXTURE_SETUP(stream)
{
	precopy_open(&self->a, bdfs[0], variant->mode, SZ_1M);
	self->two = nr_bdfs > 1;
	if (self->two)
		precopy_open(&self->b, bdfs[1], variant->mode, SZ_1M);
}

FIXTURE_TEARDOWN(stream)
{
	mig_stream_free(&self->stream);
	precopy_close(&self->a);
	if (self->two)
		precopy_close(&self->b);
}

#define NEED_TWO()						\
do {								\
	if (!self->two)						\
		SKIP(return, "needs two devices");		\
} while (0)

typedef FIXTURE_DATA(stream) stream_t;

/* Both devices anew, with another size of memory. */
static void reopen(stream_t *self, const char *mode, size_t size)
{
	precopy_close(&self->a);
	precopy_open(&self->a, bdfs[0], mode, size);
	if (!self->two)
		return;
	precopy_close(&self->b);
	precopy_open(&self->b, bdfs[1], mode, size);
}

/* Pages here and there, whole and in part, by both ways of writing. */
static void fill_some(struct precopy_dev *pd, u64 seed)
{
	u64 last = precopy_nr_pages(pd) - 1;
	u8 bytes[100];

	precopy_fill(pd, 0, 3, seed, BY_MMAP);
	precopy_fill(pd, 17, 1, seed, BY_PWRITE);
	precopy_fill(pd, 40, 20, seed, BY_MMAP);
	precopy_fill(pd, last, 1, seed, BY_PWRITE);

	memset(bytes, (int)(0x30 + seed), sizeof(bytes));
	precopy_store(pd, 100 * PRECOPY_PAGE + 13, bytes, 100, BY_MMAP);
	precopy_store(pd, 120 * PRECOPY_PAGE - 50, bytes, 100, BY_PWRITE);
}

/* Into @to, whatever was there, and then @to holds what @from's shadow says. */
static void check_load(struct __test_metadata *_metadata,
		       struct precopy_dev *to, const struct mig_stream *stream,
		       size_t chunk, const u8 *want)
{
	ASSERT_EQ(0, mig_load(to->dev, stream, chunk))
		TH_LOG("chunks of %zu bytes", chunk);
	EXPECT_EQ(0, precopy_differ(to, want))
		TH_LOG("chunks of %zu bytes", chunk);
	ASSERT_EQ(0, mig_set_state(to->dev, RUNNING, NULL));
	EXPECT_EQ(0, precopy_differ(to, want));
}

static void check_save(struct __test_metadata *_metadata,
		       struct precopy_dev *from, struct mig_stream *stream)
{
	ASSERT_EQ(0, mig_save(from->dev, stream));
	EXPECT_LT(0, wire_walk(stream, NULL, NULL));
	/* The device that was saved is as it was. */
	EXPECT_EQ(0, precopy_differ(from, from->shadow));
}

/* ------------------------------------------------------------------------ */
/* Copies                                                                   */

TEST_F_TIMEOUT(stream, copy_to_self, MIG_TIMEOUT)
{
	u8 *want = malloc_assert(self->a.size);

	fill_some(&self->a, 1);
	memcpy(want, self->a.shadow, self->a.size);
	check_save(_metadata, &self->a, &self->stream);

	precopy_reset(&self->a);
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	fill_some(&self->a, 2);
	precopy_fill(&self->a, 200, 8, 3, BY_MMAP);
	check_load(_metadata, &self->a, &self->stream, SZ_64K, want);
	free(want);
}

TEST_F_TIMEOUT(stream, copy_to_other, MIG_TIMEOUT)
{
	NEED_TWO();
	fill_some(&self->a, 1);
	check_save(_metadata, &self->a, &self->stream);
	fill_some(&self->b, 2);
	precopy_fill(&self->b, 200, 8, 3, BY_MMAP);
	check_load(_metadata, &self->b, &self->stream, SZ_64K, self->a.shadow);

	/* What was loaded is ordinary memory: it can be changed and saved. */
	memcpy(self->b.shadow, self->a.shadow, self->a.size);
	precopy_fill(&self->b, 1, 50, 4, BY_MMAP);
	precopy_fill(&self->b, 150, 5, 4, BY_PWRITE);
	self->stream.len = 0;
	check_save(_metadata, &self->b, &self->stream);
	precopy_reset(&self->a);
	check_load(_metadata, &self->a, &self->stream, SZ_1M, self->b.shadow);
}

TEST_F_TIMEOUT(stream, copy_of_nothing, MIG_TIMEOUT)
{
	check_save(_metadata, &self->a, &self->stream);
	EXPECT_GT(PRECOPY_PAGE, self->stream.len);
	fill_some(&self->a, 1);
	precopy_reset(&self->a);
	check_load(_metadata, &self->a, &self->stream, 100, self->a.shadow);
}

TEST_F_TIMEOUT(stream, copy_full, MIG_TIMEOUT)
{
	reopen(self, variant->mode, SZ_8M);
	precopy_fill(&self->a, 0, precopy_nr_pages(&self->a), 1, BY_MMAP);
	check_save(_metadata, &self->a, &self->stream);
	EXPECT_LT(SZ_8M, self->stream.len);
	if (self->two)
		check_load(_metadata, &self->b, &self->stream, SZ_1M,
			   self->a.shadow);
}

/* Pages that held something and are zero again must be zero at the target. */
TEST_F_TIMEOUT(stream, copy_of_zeroed_pages, MIG_TIMEOUT)
{
	u8 zero[PRECOPY_PAGE] = {};
	int fd, i;

	NEED_TWO();
	precopy_fill(&self->a, 0, 64, 1, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &fd));
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&self->stream, fd, SZ_64K));
	/* Sent as data, and now there is nothing: the target must learn. */
	for (i = 0; i < 64; i += 3)
		precopy_store(&self->a, i * PRECOPY_PAGE, zero, PRECOPY_PAGE,
			      i & 1 ? BY_MMAP : BY_PWRITE);
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
	ASSERT_EQ(0, mig_stream_drain(&self->stream, fd, SZ_64K));
	close(fd);

	EXPECT_LT(0, wire_walk(&self->stream, NULL, NULL));
	check_load(_metadata, &self->b, &self->stream, SZ_64K, self->a.shadow);
}

/* The device runs and changes while it is read, in every phase. */
TEST_F_TIMEOUT(stream, copy_while_written, MIG_TIMEOUT)
{
	u64 seed = 100, i;
	ssize_t ret;
	int fd;

	NEED_TWO();
	reopen(self, variant->mode, SZ_4M);
	precopy_fill(&self->a, 0, 300, 1, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &fd));

	for (i = 0; i < 60; i++) {
		ret = mig_stream_read(&self->stream, fd, 30011);
		ASSERT_TRUE(ret > 0 || ret == -ENOMSG);
		precopy_fill(&self->a, (i * 37) % 1000, 3, seed++,
			     i & 1 ? BY_MMAP : BY_PWRITE);
		if (i == 20)
			ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY_P2P, NULL));
		if (i == 25)
			ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, NULL));
	}
	/* Quiet for a moment, and then the last changes before the stop. */
	EXPECT_EQ(-ENOMSG, mig_stream_drain(&self->stream, fd, SZ_64K));
	precopy_fill(&self->a, 5, 40, seed++, BY_MMAP);
	precopy_fill(&self->a, 900, 40, seed++, BY_PWRITE);
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
	EXPECT_EQ(0, mig_stream_drain(&self->stream, fd, SZ_64K));
	close(fd);

	EXPECT_LT(0, wire_walk(&self->stream, NULL, NULL));
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	check_load(_metadata, &self->b, &self->stream, 10007, self->a.shadow);
}

/* R47: stopping before the first byte was read loses nothing. */
TEST_F_TIMEOUT(stream, copy_stopped_at_once, MIG_TIMEOUT)
{
	int fd;

	NEED_TWO();
	fill_some(&self->a, 1);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &fd));
	ASSERT_LT(0, mig_stream_read(&self->stream, fd, 70));
	precopy_fill(&self->a, 44, 30, 2, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
	ASSERT_EQ(0, mig_stream_drain(&self->stream, fd, 8000));
	close(fd);
	EXPECT_LT(0, wire_walk(&self->stream, NULL, NULL));
	check_load(_metadata, &self->b, &self->stream, 5000, self->a.shadow);
}

/* A migration given up leaves a device that still migrates: R22. */
TEST_F_TIMEOUT(stream, copy_after_cancel, MIG_TIMEOUT)
{
	int fd, i;

	NEED_TWO();
	fill_some(&self->a, 1);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &fd));
		ASSERT_LT(0, mig_stream_read(&self->stream, fd, 30000 * (i + 1)));
		precopy_fill(&self->a, 10 + i, 3, 7 + i, BY_MMAP);
		ASSERT_EQ(0, mig_set_state(self->a.dev, RUNNING, NULL));
		close(fd);
		precopy_fill(&self->a, 30 + i, 3, 9 + i, BY_MMAP);
	}
	self->stream.len = 0;
	check_save(_metadata, &self->a, &self->stream);
	check_load(_metadata, &self->b, &self->stream, SZ_64K, self->a.shadow);
}

/* R34 */
TEST_F_TIMEOUT(stream, chunks_of_one_byte, MIG_TIMEOUT)
{
	struct mig_stream slow = {};
	int fd;

	NEED_TWO();
	precopy_fill(&self->a, 7, 2, 1, BY_PWRITE);
	check_save(_metadata, &self->a, &self->stream);
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP, NULL));

	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, &fd));
	ASSERT_EQ(0, mig_stream_drain(&slow, fd, 1));
	close(fd);
	ASSERT_EQ(self->stream.len, slow.len);
	EXPECT_EQ(0, memcmp(self->stream.data, slow.data, slow.len));

	check_load(_metadata, &self->b, &slow, 1, self->a.shadow);
	mig_stream_free(&slow);
}

TEST_F_TIMEOUT(stream, chunks_of_odd_sizes, MIG_TIMEOUT)
{
	static const size_t sizes[] = {
		3, 23, 25, 63, 65, 4095, 4097, 65535, 65537, SZ_8M
	};
	struct mig_stream again = {};
	unsigned int i;
	int fd;

	fill_some(&self->a, 1);
	check_save(_metadata, &self->a, &self->stream);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		ASSERT_EQ(0, mig_set_state(self->a.dev, STOP, NULL));
		ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, &fd));
		again.len = 0;
		ASSERT_EQ(0, mig_stream_drain(&again, fd, sizes[i]));
		close(fd);
		ASSERT_EQ(self->stream.len, again.len);
		EXPECT_EQ(0, memcmp(self->stream.data, again.data, again.len));
	}
	for (i = 0; i < ARRAY_SIZE(sizes) && self->two; i++)
		check_load(_metadata, &self->b, &self->stream, sizes[i],
			   self->a.shadow);
	mig_stream_free(&again);
}

/* The records of a stream, without what may differ from host to host. */
struct digest {
	u32 nr;
	u32 crc;
};

static void digest_record(const struct wire_record *record, size_t pos,
			  void *arg)
{
	struct digest *digest = arg;
	struct {
		u32 before;
		u32 type;
		u64 offset;
		u32 payload_crc;
	} __attribute__((packed)) in = {
		digest->crc, record->type, record->offset, record->payload_crc
	};

	(void)pos;
	/* The time estimate is in PREFACE, and END sums up all of it. */
	if (record->type == WIRE_PREFACE || record->type == WIRE_END)
		in.payload_crc = 0;
	digest->crc = wire_crc32c(&in, sizeof(in));
	digest->nr++;
}

/* R58 */
TEST_F_TIMEOUT(stream, second_save_is_identical, MIG_TIMEOUT)
{
	struct digest first = {}, other = {};
	struct mig_stream again = {};

	fill_some(&self->a, 1);
	check_save(_metadata, &self->a, &self->stream);
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP, NULL));
	check_save(_metadata, &self->a, &again);
	ASSERT_EQ(self->stream.len, again.len);
	EXPECT_EQ(0, memcmp(self->stream.data, again.data, again.len));

	if (self->two) {
		ASSERT_EQ(0, mig_load(self->b.dev, &self->stream, SZ_64K));
		again.len = 0;
		ASSERT_EQ(0, mig_save(self->b.dev, &again));
		EXPECT_LT(0, wire_walk(&self->stream, digest_record, &first));
		EXPECT_LT(0, wire_walk(&again, digest_record, &other));
		EXPECT_EQ(first.nr, other.nr);
		EXPECT_EQ(first.crc, other.crc);
	}
	mig_stream_free(&again);
}

/* Nothing of the target's past survives, and it does not wait to say so. */
TEST_F_TIMEOUT(stream, resuming_reads_zero, MIG_TIMEOUT)
{
	u8 *zero = calloc_assert(1, self->a.size);
	u16 command;
	int fd;

	fill_some(&self->a, 1);
	ASSERT_EQ(0, mig_save(self->a.dev, &self->stream));
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP, NULL));
	ASSERT_EQ(0, mig_set_state(self->a.dev, RESUMING, &fd));
	EXPECT_EQ(0, precopy_differ(&self->a, zero));

	/* Config space is the VMM's to restore, before the commit, in here. */
	vfio_pci_cmd_set(self->a.dev, PCI_COMMAND_MASTER);
	command = vfio_pci_config_readw(self->a.dev, PCI_COMMAND);
	EXPECT_EQ(PCI_COMMAND_MASTER, command & PCI_COMMAND_MASTER);
	ASSERT_EQ(0, mig_write_all(fd, self->stream.data, self->stream.len,
				   SZ_64K, NULL));
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP, NULL));
	EXPECT_EQ(command, vfio_pci_config_readw(self->a.dev, PCI_COMMAND));
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	close(fd);
	free(zero);
}

/* ------------------------------------------------------------------------ */
/* Counters: no page is all zero, so nothing is elided and all is exact     */

TEST_F_TIMEOUT(stream, initial_bytes_exact, MIG_TIMEOUT)
{
	struct vfio_precopy_info info = {};
	u64 initial, size, total = 0;
	ssize_t ret;
	int fd;

	precopy_fill(&self->a, 0, precopy_nr_pages(&self->a), 1, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &fd));
	ASSERT_EQ(0, mig_precopy_info(fd, &info));
	ASSERT_EQ(0, mig_data_size(self->a.dev, &size));
	initial = info.initial_bytes;
	EXPECT_LT(initial, size);

	do {
		EXPECT_EQ(initial - self->stream.len, info.initial_bytes);
		EXPECT_EQ(0, info.dirty_bytes);
		ret = mig_stream_read(&self->stream, fd, 33333);
		ASSERT_EQ(0, mig_precopy_info(fd, &info));
	} while (ret > 0);
	EXPECT_EQ(-ENOMSG, ret);
	EXPECT_EQ(initial, self->stream.len);
	EXPECT_EQ(0, info.initial_bytes);

	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
	ASSERT_EQ(0, mig_stream_drain(&self->stream, fd, SZ_64K));
	total = self->stream.len;
	EXPECT_EQ(size, total);
	close(fd);
}

struct find {
	u16 type;
	size_t end;
};

static void find_last(const struct wire_record *record, size_t pos, void *arg)
{
	struct find *find = arg;

	if (record->type == find->type)
		find->end = pos + sizeof(*record) + record->length;
}

/* initial_bytes, each time that it was asked for */
struct counts {
	unsigned int nr;
	size_t at[2000];	/* bytes read by then */
	u64 left[2000];
};

static u64 count_initial(struct counts *counts, const stream_t *self, int fd)
{
	struct vfio_precopy_info info = {};

	VFIO_ASSERT_EQ(mig_precopy_info(fd, &info), 0);
	VFIO_ASSERT_LT(counts->nr, ARRAY_SIZE(counts->at));
	counts->at[counts->nr] = self->stream.len;
	counts->left[counts->nr++] = info.initial_bytes;
	return info.initial_bytes;
}

static void never_low(struct __test_metadata *_metadata,
		      const struct counts *counts, size_t end)
{
	unsigned int i;

	for (i = 0; i < counts->nr; i++) {
		if (counts->at[i] >= end) {
			EXPECT_EQ(0, counts->left[i]);
			continue;
		}
		ASSERT_LE(end - counts->at[i], counts->left[i])
			TH_LOG("after %zu bytes", counts->at[i]);
		if (i)
			EXPECT_GE(counts->left[i - 1], counts->left[i]);
	}
}

/*
 * With pages to elide the count may be too high, never too low, and it is zero
 * only when the last byte of INITIAL_END is out.
 */
TEST_F_TIMEOUT(stream, initial_bytes_never_low, MIG_TIMEOUT)
{
	struct counts *counts = calloc_assert(1, sizeof(*counts));
	struct find initial_end = { .type = WIRE_INITIAL_END };
	int fd;

	fill_some(&self->a, 1);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &fd));
	do
		count_initial(counts, self, fd);
	while (mig_stream_read(&self->stream, fd, 997) > 0);
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
	ASSERT_EQ(0, mig_stream_drain(&self->stream, fd, SZ_64K));
	close(fd);

	ASSERT_LT(0, wire_walk(&self->stream, find_last, &initial_end));
	never_low(_metadata, counts, initial_end.end);
	free(counts);
}

/*
 * A page that was zero when the record before it was made gets contents before
 * its own is. All other pages have some, so that one header too many would
 * make the count too low: at the latest until the unit's last record is made.
 */
TEST_F_TIMEOUT(stream, initial_bytes_after_store_to_zero_page, MIG_TIMEOUT)
{
	struct counts *counts = calloc_assert(1, sizeof(*counts));
	struct find initial_end = { .type = WIRE_INITIAL_END };
	size_t first = sizeof(struct wire_header) + RECORD_MAX_SHARE +
		       sizeof(struct wire_record) + sizeof(struct wire_preface);
	u8 zero[PRECOPY_PAGE] = {};
	size_t end;
	u64 left;
	int fd;

	reopen(self, variant->mode, SZ_8M);
	precopy_fill(&self->a, 0, precopy_nr_pages(&self->a), 1, BY_MMAP);
	precopy_store(&self->a, PRECOPY_PAGE, zero, PRECOPY_PAGE, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &fd));
	/* PREFACE has one word of bitmap */
	ASSERT_EQ(first + 8, mig_stream_read(&self->stream, fd, first + 8));
	precopy_fill(&self->a, 1, 1, 2, BY_MMAP);
	while ((left = count_initial(counts, self, fd)))
		/* In small steps towards the end */
		ASSERT_LT(0, mig_stream_read(&self->stream, fd,
					     left > SZ_16K ? SZ_8K : 24));
	end = self->stream.len;
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
	ASSERT_EQ(0, mig_stream_drain(&self->stream, fd, SZ_64K));
	close(fd);
	ASSERT_LT(0, wire_walk(&self->stream, find_last, &initial_end));
	never_low(_metadata, counts, initial_end.end);
	/* The page that was stored to comes next, and read() goes on with it. */
	EXPECT_LE(initial_end.end, end);
	EXPECT_GT(initial_end.end + 24, end);
	if (self->two)
		check_load(_metadata, &self->b, &self->stream, SZ_64K,
			   self->a.shadow);
	free(counts);
}

/*
 * Random stores between reads of random lengths. The counts are compared with
 * where INITIAL_END turns out to be in the stream.
 */
#define TRIALS		6
#define TRIAL_SIZE	SZ_4M
#define TRIAL_STEPS	10000
#define TRIAL_HOT	3
#define TRIAL_PARTS	8

struct sample {
	size_t at;		/* bytes read */
	u64 left;		/* initial_bytes then */
	u32 flags;
	unsigned int part;	/* the initial part that was under way, or over */
};

struct trial {
	unsigned int rnd;
	u64 hot[TRIAL_HOT];	/* pages that are zero in the beginning */
	bool reinit;		/* can there be another initial part? */
	unsigned int parts;	/* begun so far */
	unsigned int nr;
	struct sample samples[TRIAL_STEPS];
	size_t ends[TRIAL_PARTS + 1];	/* of INITIAL_END */
	unsigned int nr_ends;
};

static unsigned int dice(struct trial *t, unsigned int sides)
{
	return rand_r(&t->rnd) % sides;
}

static void trial_store(stream_t *self, struct trial *t)
{
	u8 zero[PRECOPY_PAGE] = {};
	enum precopy_how how = dice(t, 2) ? BY_MMAP : BY_PWRITE;
	u64 page = t->hot[dice(t, TRIAL_HOT)];

	/* Each page that stays zero leaves room for mistakes in the count. */
	if (!dice(t, 8))
		precopy_store(&self->a, page * PRECOPY_PAGE, zero, PRECOPY_PAGE,
			      how);
	else if (dice(t, 4))
		precopy_fill(&self->a, page, 1, 2 + dice(t, 100), how);
	else
		precopy_fill(&self->a, dice(t, TRIAL_SIZE / PRECOPY_PAGE), 1,
			     2 + dice(t, 100), how);
}

static int trial_begin(stream_t *self, struct trial *t)
{
	u8 zero[PRECOPY_PAGE] = {};
	int i, fd;

	precopy_fill(&self->a, 0, precopy_nr_pages(&self->a), 1, BY_MMAP);
	for (i = 0; i < TRIAL_HOT; i++) {
		t->hot[i] = dice(t, precopy_nr_pages(&self->a));
		precopy_store(&self->a, t->hot[i] * PRECOPY_PAGE, zero,
			      PRECOPY_PAGE, BY_MMAP);
	}
	t->parts = 1;
	t->reinit = precopy_has_knob(bdfs[0], "reinit") &&
		    !mig_precopy_v2_enable(self->a.dev);
	VFIO_ASSERT_EQ(mig_set_state(self->a.dev, PRE_COPY, &fd), 0);
	return fd;
}

/* False at the temporary end of the stream. */
static bool trial_step(stream_t *self, struct trial *t, int fd)
{
	struct vfio_precopy_info info = {};
	ssize_t ret;

	if (dice(t, 2))
		trial_store(self, t);
	if (t->reinit && t->parts < TRIAL_PARTS && !dice(t, 200) &&
	    !precopy_knob(bdfs[0], "reinit", 1))
		t->parts++;
	VFIO_ASSERT_EQ(mig_precopy_info(fd, &info), 0);
	t->samples[t->nr++] = (struct sample) {
		.at = self->stream.len,
		.left = info.initial_bytes,
		.flags = info.flags,
		.part = t->parts,
	};
	ret = mig_stream_read(&self->stream, fd, 1 + dice(t, 16U << dice(t, 13)));
	VFIO_ASSERT_TRUE(ret > 0 || ret == -ENOMSG);
	return ret > 0;
}

static void find_ends(const struct wire_record *record, size_t pos, void *arg)
{
	struct trial *t = arg;

	if (record->type != WIRE_INITIAL_END)
		return;
	VFIO_ASSERT_LT(t->nr_ends, ARRAY_SIZE(t->ends));
	t->ends[t->nr_ends++] = pos + sizeof(*record);
}

static void trial_judge(struct __test_metadata *_metadata,
			const struct trial *t)
{
	const struct sample *sample;
	size_t end;

	ASSERT_EQ(t->parts, t->nr_ends);
	for (sample = t->samples; sample < t->samples + t->nr; sample++) {
		end = t->ends[sample->part - 1];
		if (sample->at >= end) {
			EXPECT_EQ(0, sample->left);
			EXPECT_EQ(0, sample->flags);
			continue;
		}
		ASSERT_LE(end - sample->at, sample->left)
			TH_LOG("after %zu bytes, initial part %u", sample->at,
			       sample->part);
		EXPECT_EQ(sample->part > 1 ? VFIO_PRECOPY_INFO_REINIT : 0,
			  sample->flags);
	}
}

/* Ended by a stop, at a moment as random as all else. */
static void trial_run(struct __test_metadata *_metadata, stream_t *self,
		      struct trial *t)
{
	unsigned int steps = 1 + dice(t, 2000);
	int fd = trial_begin(self, t);
	size_t stopped;
	u64 size;

	while (t->nr < steps)
		if (!trial_step(self, t, fd))
			steps -= steps / 100;
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
	ASSERT_EQ(0, mig_data_size(self->a.dev, &size));
	stopped = self->stream.len;
	ASSERT_EQ(0, mig_stream_drain(&self->stream, fd, SZ_64K));
	close(fd);
	EXPECT_LE(self->stream.len - stopped, size);
	ASSERT_LT(0, wire_walk(&self->stream, find_ends, t));
	trial_judge(_metadata, t);
}

TEST_F_TIMEOUT(stream, initial_bytes_under_random_stores, MIG_TIMEOUT)
{
	struct trial *t = malloc_assert(sizeof(*t));
	unsigned int i;

	reopen(self, variant->mode, TRIAL_SIZE);
	for (i = 0; i < precopy_rounds(TRIALS); i++) {
		memset(t, 0, sizeof(*t));
		t->rnd = i;
		self->stream.len = 0;
		trial_run(_metadata, self, t);
		if (self->two)
			check_load(_metadata, &self->b, &self->stream, SZ_64K,
				   self->a.shadow);
		TH_LOG("%u steps, %u initial parts", t->nr, t->parts);
		ASSERT_EQ(0, mig_set_state(self->a.dev, RUNNING, NULL));
	}
	free(t);
}

/* R42, with both ways of writing. */
TEST_F_TIMEOUT(stream, dirty_bytes_count, MIG_TIMEOUT)
{
	struct vfio_precopy_info info = {};
	enum precopy_how how;
	u64 n, want;
	int fd;

	precopy_fill(&self->a, 0, 200, 1, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &fd));
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&self->stream, fd, SZ_64K));

	for (how = BY_MMAP; how <= BY_PWRITE; how++) {
		for (want = 0, n = 1; n <= 32; n *= 2) {
			/* Every second page, so that none is neighbour. */
			while (want < n)
				precopy_fill(&self->a, 2 * want++, 1, 2, how);
			ASSERT_EQ(0, mig_precopy_info(fd, &info));
			EXPECT_LE(n * PRECOPY_PAGE, info.dirty_bytes);
			EXPECT_GE(n * RECORD_MAX_SHARE, info.dirty_bytes);
			EXPECT_EQ(0, info.initial_bytes);
		}
		/* Written twice, sent once. */
		precopy_fill(&self->a, 0, 1, 3, how);
		ASSERT_EQ(0, mig_precopy_info(fd, &info));
		EXPECT_GE(32 * RECORD_MAX_SHARE, info.dirty_bytes);

		self->stream.len = 0;
		ASSERT_EQ(-ENOMSG, mig_stream_drain(&self->stream, fd, SZ_64K));
		EXPECT_LE(32 * PRECOPY_PAGE, self->stream.len);
		EXPECT_GE(info.dirty_bytes, self->stream.len);
		ASSERT_EQ(0, mig_precopy_info(fd, &info));
		EXPECT_EQ(0, info.dirty_bytes);
	}
	/* Reading the memory changes nothing. */
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	ASSERT_EQ(0, mig_precopy_info(fd, &info));
	EXPECT_EQ(0, info.dirty_bytes);
	close(fd);
}

/* R45: something to read is announced to who waits for it. */
TEST_F_TIMEOUT(stream, poll_wakes_on_dirty, MIG_TIMEOUT)
{
	struct pollfd pfd = { .events = POLLIN };
	enum precopy_how how;
	int fd;

	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &fd));
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&self->stream, fd, SZ_64K));
	pfd.fd = fd;
	for (how = BY_MMAP; how <= BY_PWRITE; how++) {
		EXPECT_EQ(0, poll(&pfd, 1, 0));
		precopy_fill(&self->a, 8, 1, how + 1, how);
		EXPECT_EQ(1, poll(&pfd, 1, 0));
		EXPECT_EQ(POLLIN, pfd.revents & POLLIN);
		EXPECT_EQ(-ENOMSG, mig_stream_drain(&self->stream, fd, SZ_64K));
	}
	close(fd);
}

/* Exact in STOP_COPY, and going down as it is read. */
TEST_F_TIMEOUT(stream, data_size_in_stop_copy, MIG_TIMEOUT)
{
	u64 size, first;
	int fd;

	precopy_fill(&self->a, 0, precopy_nr_pages(&self->a), 1, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, &fd));
	ASSERT_EQ(0, mig_data_size(self->a.dev, &first));
	while (mig_stream_read(&self->stream, fd, 100003) > 0) {
		ASSERT_EQ(0, mig_data_size(self->a.dev, &size));
		EXPECT_EQ(first - self->stream.len, size);
	}
	EXPECT_EQ(first, self->stream.len);
	close(fd);
}

/* With pages to elide it may be too high, never too low. */
TEST_F_TIMEOUT(stream, data_size_never_low, MIG_TIMEOUT)
{
	u64 size;
	int fd;

	fill_some(&self->a, 1);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &fd));
	ASSERT_EQ(-ENOMSG, mig_stream_drain(&self->stream, fd, SZ_64K));
	precopy_fill(&self->a, 30, 20, 2, BY_MMAP);
	ASSERT_EQ(0, mig_data_size(self->a.dev, &size));
	self->stream.len = 0;
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
	ASSERT_EQ(0, mig_stream_drain(&self->stream, fd, SZ_64K));
	EXPECT_LE(20 * PRECOPY_PAGE, self->stream.len);
	EXPECT_EQ(size, self->stream.len);
	close(fd);

	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP, NULL));
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, &fd));
	ASSERT_EQ(0, mig_data_size(self->a.dev, &size));
	self->stream.len = 0;
	ASSERT_EQ(0, mig_stream_drain(&self->stream, fd, SZ_64K));
	EXPECT_LE(self->stream.len, size);
	close(fd);
}

/* What a device that was stopped without a session reports, and then sends. */
static void check_size_in_stop(struct __test_metadata *_metadata,
			       stream_t *self, bool exact)
{
	u64 size;
	int fd;

	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP, NULL));
	ASSERT_EQ(0, mig_data_size(self->a.dev, &size));
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, &fd));
	self->stream.len = 0;
	ASSERT_EQ(0, mig_stream_drain(&self->stream, fd, SZ_64K));
	close(fd);
	EXPECT_LE(self->stream.len, size);
	if (exact)
		EXPECT_EQ(self->stream.len, size);
}

/*
 * A VMM that moves a paused VM waits until this is little enough: it is no more
 * than what will be sent, whatever was touched, and however little that is.
 */
TEST_F_TIMEOUT(stream, data_size_in_stop, MIG_TIMEOUT)
{
	unsigned int i;

	check_size_in_stop(_metadata, self, true);
	EXPECT_GT(1000, self->stream.len);
	fill_some(&self->a, 1);
	check_size_in_stop(_metadata, self, true);

	/* One page in each 2 MiB, of which all may be in use */
	reopen(self, variant->mode, SZ_16M);
	for (i = 0; i < SZ_16M / WIRE_UNIT; i++)
		precopy_fill(&self->a, i * (WIRE_UNIT / PRECOPY_PAGE) + 3 * i,
			     1, 1, BY_MMAP);
	check_size_in_stop(_metadata, self, true);
	EXPECT_GT(SZ_64K, self->stream.len);
	precopy_fill(&self->a, 0, precopy_nr_pages(&self->a), 1, BY_MMAP);
	check_size_in_stop(_metadata, self, true);
	EXPECT_LT(SZ_16M, self->stream.len);

	/* It does not take long either: what is beyond 32 MiB is not looked at. */
	reopen(self, variant->mode, SZ_64M);
	for (i = 0; i < SZ_64M / WIRE_UNIT; i++)
		precopy_fill(&self->a, i * (WIRE_UNIT / PRECOPY_PAGE), 1, 1,
			     BY_MMAP);
	check_size_in_stop(_metadata, self, false);
	self->stream.len = 0;
}

/* ------------------------------------------------------------------------ */
/* Streams that must be refused: R56, R57                                   */

static bool in_failed_load(struct precopy_dev *pd)
{
	int state = mig_get_state(pd->dev);

	return state == RESUMING || state == VFIO_DEVICE_STATE_ERROR;
}

/*
 * @len bytes at @data do not make a device; after a reset it works again.
 * Returns what write() said to them, which is 0 if only SET refused.
 */
static int check_refused(struct __test_metadata *_metadata,
			 struct precopy_dev *pd, const void *data, size_t len)
{
	int fd, ret;
	char byte = 0;

	ASSERT_EQ(0, mig_set_state(pd->dev, RESUMING, &fd));
	ret = mig_write_all(fd, data, len, SZ_64K, NULL);
	if (ret) {
		/* Not for this driver, or for a newer one. */
		EXPECT_TRUE(ret == -EINVAL || ret == -EOPNOTSUPP);
		/* Sticky: what follows an error is never looked at. */
		EXPECT_EQ(-1, write(fd, &byte, 1));
		EXPECT_EQ(ret, -errno);
	}
	EXPECT_NE(0, mig_set_state(pd->dev, STOP, NULL));
	EXPECT_TRUE(in_failed_load(pd));
	EXPECT_NE(0, mig_set_state(pd->dev, RUNNING, NULL));
	EXPECT_TRUE(in_failed_load(pd));
	close(fd);

	precopy_reset(pd);
	ASSERT_EQ(RUNNING, mig_get_state(pd->dev));

	return ret;
}

/* Where interesting places are: before, in and after every record header. */
struct places {
	size_t pos[512];
	unsigned int nr;
};

static void add_place(struct places *places, size_t pos)
{
	if (places->nr < ARRAY_SIZE(places->pos))
		places->pos[places->nr++] = pos;
}

static void collect_cuts(const struct wire_record *record, size_t pos, void *arg)
{
	add_place(arg, pos);
	add_place(arg, pos + 1);
	add_place(arg, pos + sizeof(*record) - 1);
	if (!record->length)
		return;
	add_place(arg, pos + sizeof(*record));
	add_place(arg, pos + sizeof(*record) + record->length / 2);
	add_place(arg, pos + sizeof(*record) + record->length - 1);
}

TEST_F_TIMEOUT(stream, truncated, MIG_TIMEOUT)
{
	struct places cuts = {};
	unsigned int i;
	u8 *want;

	fill_some(&self->a, 1);
	check_save(_metadata, &self->a, &self->stream);
	want = malloc_assert(self->a.size);
	memcpy(want, self->a.shadow, self->a.size);
	ASSERT_EQ(0, mig_set_state(self->a.dev, RUNNING, NULL));

	add_place(&cuts, 0);
	add_place(&cuts, 1);
	add_place(&cuts, sizeof(struct wire_header) - 1);
	add_place(&cuts, self->stream.len - 1);
	ASSERT_LT(0, wire_walk(&self->stream, collect_cuts, &cuts));
	for (i = 0; i < cuts.nr; i++) {
		check_refused(_metadata, &self->a, self->stream.data,
			      cuts.pos[i]);
		if (!__test_passed(_metadata))
			TH_LOG("cut to %zu of %zu bytes", cuts.pos[i],
			       self->stream.len);
	}

	check_load(_metadata, &self->a, &self->stream, SZ_64K, want);
	free(want);
}

/* All bits of the file header, of the first record of each type, and some. */
struct flips {
	struct places bytes;	/* every bit of these */
	struct places samples;	/* one bit of these */
	u32 seen;
};

static void collect_flips(const struct wire_record *record, size_t pos, void *arg)
{
	struct flips *flips = arg;
	size_t i, step = record->length / 5 + 1;

	for (i = 0; i < sizeof(*record) && !(flips->seen & 1U << record->type); i++)
		add_place(&flips->bytes, pos + i);
	flips->seen |= 1U << record->type;
	for (i = 0; i < record->length; i += step)
		add_place(&flips->samples, pos + sizeof(*record) + i);
}

TEST_F_TIMEOUT(stream, single_bit_flips, 300)
{
	struct mig_stream *s = &self->stream;
	struct flips flips = {};
	unsigned int i, bit, step;
	u8 *want;

	/*
	 * The stream does not know how the device was opened: once is enough. A step
	 * of 13 comes to each bit of a byte in turn.
	 */
	step = strcmp(variant->mode, "iommufd") || precopy_rounds(13) < 13 ? 13 : 1;

	precopy_fill(&self->a, 7, 2, 1, BY_PWRITE);
	check_save(_metadata, &self->a, s);
	want = malloc_assert(self->a.size);
	memcpy(want, self->a.shadow, self->a.size);
	ASSERT_EQ(0, mig_set_state(self->a.dev, RUNNING, NULL));

	for (i = 0; i < sizeof(struct wire_header); i++)
		add_place(&flips.bytes, i);
	ASSERT_LT(0, wire_walk(s, collect_flips, &flips));
	/* All of them, or the arrays are too short for this stream. */
	ASSERT_GT(ARRAY_SIZE(flips.bytes.pos), flips.bytes.nr);

	for (i = 0; i < flips.bytes.nr * 8 + flips.samples.nr; i += step) {
		size_t pos = i < flips.bytes.nr * 8 ? flips.bytes.pos[i / 8] :
			     flips.samples.pos[i - flips.bytes.nr * 8];

		bit = 1U << (i & 7);
		s->data[pos] ^= bit;
		check_refused(_metadata, &self->a, s->data, s->len);
		s->data[pos] ^= bit;
		ASSERT_TRUE(__test_passed(_metadata))
			TH_LOG("byte %zu, bit %#x", pos, bit);
	}

	check_load(_metadata, &self->a, s, SZ_64K, want);
	free(want);
}

TEST_F_TIMEOUT(stream, trailing_junk, MIG_TIMEOUT)
{
	static const u8 junk[70000];
	static const size_t sizes[] = { 1, 24, sizeof(junk) };
	size_t len;
	unsigned int i;

	fill_some(&self->a, 1);
	check_save(_metadata, &self->a, &self->stream);
	precopy_reset(&self->a);
	len = self->stream.len;
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		self->stream.len = len;
		mig_stream_append(&self->stream, junk, sizes[i]);
		check_refused(_metadata, &self->a, self->stream.data,
			      self->stream.len);
	}
	/* A second stream after the first is junk as well. */
	self->stream.len = len;
	mig_stream_append(&self->stream, self->stream.data, len);
	check_refused(_metadata, &self->a, self->stream.data, 2 * len);
}

TEST_F_TIMEOUT(stream, nothing_written, MIG_TIMEOUT)
{
	check_refused(_metadata, &self->a, NULL, 0);
}

TEST_F_TIMEOUT(stream, other_memory_size, MIG_TIMEOUT)
{
	int fd;

	fill_some(&self->a, 1);
	check_save(_metadata, &self->a, &self->stream);
	reopen(self, variant->mode, SZ_2M);
	ASSERT_EQ(0, mig_set_state(self->a.dev, RESUMING, &fd));
	EXPECT_EQ(-EINVAL, mig_write_all(fd, self->stream.data, self->stream.len,
					 SZ_64K, NULL));
	close(fd);
	precopy_reset(&self->a);
	check_refused(_metadata, &self->a, self->stream.data, self->stream.len);
}

/* ------------------------------------------------------------------------ */
/* Streams made by hand, every checksum right, and one thing wrong          */

#define CRAFT_PAGE	5
#define CRAFT_OFFSET	(CRAFT_PAGE * PRECOPY_PAGE)

static void put_page(struct wire *w)
{
	u64 buf[PRECOPY_PAGE / 8];

	precopy_pattern(buf, CRAFT_PAGE, 77);
	wire_put_data(w, CRAFT_OFFSET, buf, sizeof(buf));
}

static void put_start(struct wire *w)
{
	wire_put_header(w);
	wire_put_preface(w);
	put_page(w);
}

static void put_tail(struct wire *w)
{
	wire_put_initial_end(w);
	wire_put_state(w);
	wire_put_end(w);
}

static void put_all(struct wire *w)
{
	put_start(w);
	put_tail(w);
}

static void craft_good(struct wire *w)
{
	put_all(w);
}

static void craft_minor(struct wire *w)
{
	w->header.minor = 9;
	w->header.header_len = 64 + 40;
	put_all(w);
}

static void craft_longest_header(struct wire *w)
{
	w->header.minor = 2;
	w->header.header_len = WIRE_MAX_HEADER;
	put_all(w);
}

static void craft_optional_feature(struct wire *w)
{
	w->header.features_optional = 0x80000000;
	put_all(w);
}

static void craft_optional_record(struct wire *w)
{
	static u8 big[SZ_1M];

	put_start(w);
	wire_put_record(w, WIRE_UNKNOWN, WIRE_OPTIONAL, 3, "abc", 3);
	wire_put_record(w, WIRE_UNKNOWN + 1, WIRE_OPTIONAL, 0, NULL, 0);
	wire_put_record(w, WIRE_UNKNOWN, WIRE_OPTIONAL, ~0ULL, big, sizeof(big));
	put_tail(w);
}

static void craft_no_data(struct wire *w)
{
	put_start(w);
	/* Zeroed again: the device ends up with nothing. */
	wire_put_zero(w, 0, w->header.memory_size);
	put_page(w);
	put_tail(w);
}

/* The first and the last page of a ZERO record are zeroed as well. */
static void craft_zero_over_data(struct wire *w)
{
	u64 buf[3 * PRECOPY_PAGE / 8];

	memset(buf, 0x5a, sizeof(buf));
	put_start(w);
	wire_put_data(w, CRAFT_OFFSET + PRECOPY_PAGE, buf, sizeof(buf));
	wire_put_zero(w, CRAFT_OFFSET + PRECOPY_PAGE, sizeof(buf));
	put_tail(w);
}

static void craft_restart(struct wire *w)
{
	put_start(w);
	wire_put_initial_end(w);
	put_page(w);
	wire_put_preface(w);
	put_page(w);
	put_tail(w);
}

static void craft_late_data(struct wire *w)
{
	wire_put_header(w);
	wire_put_preface(w);
	wire_put_initial_end(w);
	put_page(w);
	wire_put_state(w);
	wire_put_end(w);
}

static void craft_magic(struct wire *w)
{
	w->header.magic[7] = 'X';
	put_all(w);
}

static void craft_major(struct wire *w)
{
	w->header.major = 2;
	put_all(w);
}

static void craft_major_zero(struct wire *w)
{
	w->header.major = 0;
	put_all(w);
}

static void craft_required_feature(struct wire *w)
{
	w->header.features_required = 2;
	put_all(w);
}

static void craft_other_model(struct wire *w)
{
	w->header.features_required = 1;
	put_all(w);
}

/* Only a version that is not known yet may have one */
static void craft_longer_header_of_ours(struct wire *w)
{
	w->header.minor = 1;
	w->header.header_len = 64 + 40;
	put_all(w);
}

static void craft_vendor(struct wire *w)
{
	w->header.vendor ^= 1;
	put_all(w);
}

static void craft_device(struct wire *w)
{
	w->header.device ^= 1;
	put_all(w);
}

static void craft_backend(struct wire *w)
{
	w->header.backend = 2;
	put_all(w);
}

static void craft_page_size(struct wire *w)
{
	w->header.page_size = 8192;
	put_all(w);
}

static void craft_memory_size(struct wire *w)
{
	w->header.memory_size *= 2;
	put_all(w);
}

static void craft_long_header(struct wire *w)
{
	w->header.header_len = WIRE_MAX_HEADER + 4;
	put_all(w);
}

static void craft_short_header(struct wire *w)
{
	w->header.header_len = 60;
	put_all(w);
}

static void craft_mandatory_record(struct wire *w)
{
	put_start(w);
	wire_put_record(w, WIRE_UNKNOWN, WIRE_MANDATORY, 0, "abc", 3);
	put_tail(w);
}

static void craft_type_zero(struct wire *w)
{
	put_start(w);
	wire_put_record(w, 0, WIRE_MANDATORY, 0, NULL, 0);
	put_tail(w);
}

static void craft_both_flags(struct wire *w)
{
	put_start(w);
	wire_put_record(w, WIRE_UNKNOWN, WIRE_MANDATORY | WIRE_OPTIONAL, 0, NULL, 0);
	put_tail(w);
}

static void craft_no_flag(struct wire *w)
{
	put_start(w);
	wire_put_record(w, WIRE_UNKNOWN, 0, 0, NULL, 0);
	put_tail(w);
}

static void craft_other_flag(struct wire *w)
{
	put_start(w);
	wire_put_record(w, WIRE_UNKNOWN, WIRE_OPTIONAL | 4, 0, NULL, 0);
	put_tail(w);
}

static void craft_known_as_optional(struct wire *w)
{
	u8 page[PRECOPY_PAGE] = { 1 };

	put_start(w);
	wire_put_record(w, WIRE_DATA, WIRE_OPTIONAL, 0, page, sizeof(page));
	put_tail(w);
}

/* Its length alone is enough: nothing that long may be waited for. */
static void craft_huge_optional(struct wire *w)
{
	struct wire_record record = {
		.type = WIRE_UNKNOWN,
		.flags = WIRE_OPTIONAL,
		.length = WIRE_MAX_OPTIONAL + 1,
	};

	put_start(w);
	record.header_crc = wire_crc32c(&record, sizeof(record));
	mig_stream_append(&w->stream, &record, sizeof(record));
}

static void craft_data_empty(struct wire *w)
{
	put_start(w);
	wire_put_data(w, 0, NULL, 0);
	put_tail(w);
}

static void craft_data_long(struct wire *w)
{
	static u8 data[WIRE_MAX_DATA + PRECOPY_PAGE];

	put_start(w);
	wire_put_data(w, 0, data, sizeof(data));
	put_tail(w);
}

static void craft_data_part(struct wire *w)
{
	u8 page[PRECOPY_PAGE] = { 1 };

	put_start(w);
	wire_put_data(w, 0, page, 100);
	put_tail(w);
}

static void craft_data_unaligned(struct wire *w)
{
	u8 page[PRECOPY_PAGE] = { 1 };

	put_start(w);
	wire_put_data(w, 512, page, sizeof(page));
	put_tail(w);
}

static void craft_data_beyond(struct wire *w)
{
	u8 page[PRECOPY_PAGE] = { 1 };

	put_start(w);
	wire_put_data(w, w->header.memory_size, page, sizeof(page));
	put_tail(w);
}

static void craft_data_across_end(struct wire *w)
{
	static u8 data[2 * PRECOPY_PAGE];

	put_start(w);
	wire_put_data(w, w->header.memory_size - PRECOPY_PAGE, data, sizeof(data));
	put_tail(w);
}

static void craft_data_wraps(struct wire *w)
{
	static u8 data[2 * PRECOPY_PAGE];

	put_start(w);
	wire_put_data(w, ~0ULL << 12, data, sizeof(data));
	put_tail(w);
}

static void craft_zero_part(struct wire *w)
{
	put_start(w);
	wire_put_zero(w, 0, 100);
	put_tail(w);
}

static void craft_zero_beyond(struct wire *w)
{
	put_start(w);
	wire_put_zero(w, PRECOPY_PAGE, w->header.memory_size);
	put_tail(w);
}

static void craft_zero_wraps(struct wire *w)
{
	put_start(w);
	wire_put_zero(w, SZ_64K, (~0ULL << 12) - SZ_32K);
	put_tail(w);
}

static void craft_no_preface(struct wire *w)
{
	wire_put_header(w);
	put_page(w);
	put_tail(w);
}

static void craft_preface_of_other_size(struct wire *w)
{
	u64 payload[4] = { 0, 0, 2, 0 };

	wire_put_header(w);
	wire_put_record(w, WIRE_PREFACE, WIRE_MANDATORY, 0, payload,
			sizeof(payload));
	put_page(w);
	put_tail(w);
}

static void craft_preface_short(struct wire *w)
{
	u64 payload[3] = { 0, 0, 1 };

	wire_put_header(w);
	wire_put_record(w, WIRE_PREFACE, WIRE_MANDATORY, 0, payload,
			sizeof(payload));
	put_page(w);
	put_tail(w);
}

static void craft_no_initial_end(struct wire *w)
{
	put_start(w);
	wire_put_state(w);
	wire_put_end(w);
}

static void craft_initial_end_twice(struct wire *w)
{
	put_start(w);
	wire_put_initial_end(w);
	put_tail(w);
}

static void craft_no_state(struct wire *w)
{
	put_start(w);
	wire_put_initial_end(w);
	wire_put_end(w);
}

static void craft_data_after_state(struct wire *w)
{
	put_start(w);
	wire_put_initial_end(w);
	wire_put_state(w);
	put_page(w);
	wire_put_end(w);
}

static void craft_end_count(struct wire *w)
{
	put_start(w);
	wire_put_initial_end(w);
	wire_put_state(w);
	w->nr_records++;
	wire_put_end(w);
}

static void craft_end_crc(struct wire *w)
{
	put_start(w);
	wire_put_initial_end(w);
	wire_put_state(w);
	w->end_crc ^= 1;
	wire_put_end(w);
}

/* A whole record gone, with all that is left in order. */
static void craft_record_lost(struct wire *w)
{
	size_t begin;

	wire_put_header(w);
	wire_put_preface(w);
	begin = w->stream.len;
	put_page(w);
	w->stream.len = begin;
	put_tail(w);
}

#define CRAFT_OK(_name)		{ #_name, craft_##_name, true }
/* What write() says; 0 is for a stream that is good as far as it goes. */
#define CRAFT_BAD(_name)	{ #_name, craft_##_name, false, -EINVAL }
#define CRAFT_NEW(_name)	{ #_name, craft_##_name, false, -EOPNOTSUPP }

static const struct craft {
	const char *name;
	void (*build)(struct wire *w);
	bool good;
	int error;
} crafts[] = {
	CRAFT_OK(good),
	CRAFT_OK(minor),
	CRAFT_OK(longest_header),
	CRAFT_OK(optional_feature),
	CRAFT_OK(optional_record),
	CRAFT_OK(no_data),
	CRAFT_OK(zero_over_data),
	CRAFT_OK(restart),
	CRAFT_OK(late_data),
	CRAFT_BAD(magic),
	CRAFT_NEW(major),
	CRAFT_NEW(major_zero),
	CRAFT_NEW(required_feature),
	CRAFT_BAD(vendor),
	CRAFT_BAD(device),
	CRAFT_BAD(other_model),
	CRAFT_BAD(backend),
	CRAFT_BAD(page_size),
	CRAFT_BAD(memory_size),
	CRAFT_BAD(long_header),
	CRAFT_BAD(short_header),
	CRAFT_BAD(longer_header_of_ours),
	CRAFT_NEW(mandatory_record),
	CRAFT_BAD(type_zero),
	CRAFT_BAD(both_flags),
	CRAFT_BAD(no_flag),
	CRAFT_BAD(other_flag),
	CRAFT_BAD(known_as_optional),
	CRAFT_BAD(huge_optional),
	CRAFT_BAD(data_empty),
	CRAFT_BAD(data_long),
	CRAFT_BAD(data_part),
	CRAFT_BAD(data_unaligned),
	CRAFT_BAD(data_beyond),
	CRAFT_BAD(data_across_end),
	CRAFT_BAD(data_wraps),
	CRAFT_BAD(zero_part),
	CRAFT_BAD(zero_beyond),
	CRAFT_BAD(zero_wraps),
	CRAFT_BAD(no_preface),
	CRAFT_BAD(preface_of_other_size),
	CRAFT_BAD(preface_short),
	CRAFT_BAD(no_initial_end),
	CRAFT_BAD(initial_end_twice),
	CRAFT_BAD(no_state),
	CRAFT_BAD(data_after_state),
	CRAFT_BAD(end_count),
	CRAFT_BAD(end_crc),
	CRAFT_BAD(record_lost),
};

TEST_F_TIMEOUT(stream, made_by_hand, MIG_TIMEOUT)
{
	const struct craft *craft;
	struct wire w;
	u8 *want;

	want = calloc_assert(1, self->a.size);
	precopy_pattern(want + CRAFT_OFFSET, CRAFT_PAGE, 77);
	for (craft = crafts; craft < crafts + ARRAY_SIZE(crafts); craft++) {
		wire_init(&w, bdfs[0], self->a.size);
		craft->build(&w);
		if (craft->good) {
			EXPECT_EQ(0, mig_load(self->a.dev, &w.stream, 4000))
				TH_LOG("%s", craft->name);
			EXPECT_EQ(0, precopy_differ(&self->a, want))
				TH_LOG("%s", craft->name);
			precopy_reset(&self->a);
		} else {
			EXPECT_EQ(craft->error,
				  check_refused(_metadata, &self->a,
						w.stream.data, w.stream.len))
				TH_LOG("%s", craft->name);
		}
		wire_free(&w);
	}
	free(want);
}

/* ------------------------------------------------------------------------ */
/* The barrier                                                              */

#define NEED_DELAY(_ms)							\
do {									\
	if (precopy_knob(bdfs[0], "startup_delay_ms", _ms))		\
		SKIP(return, "no test knob startup_delay_ms in debugfs"); \
} while (0)

static void startup_word(const char *bdf, char *word, size_t len)
{
	VFIO_ASSERT_EQ(precopy_sysfs_read(bdf, "startup", word, len), 0);
}

/*
 * Saves @pd, puts it into RESUMING and sets @barrier to where INITIAL_END
 * stands in the stream.
 */
static int go_resuming(struct precopy_dev *pd, struct mig_stream *stream,
		       size_t *barrier)
{
	struct find initial_end = { .type = WIRE_INITIAL_END };
	int fd;

	VFIO_ASSERT_EQ(mig_save(pd->dev, stream), 0);
	VFIO_ASSERT_GT(wire_walk(stream, find_last, &initial_end), 0);
	*barrier = initial_end.end - sizeof(struct wire_record);
	VFIO_ASSERT_EQ(mig_set_state(pd->dev, STOP, NULL), 0);
	VFIO_ASSERT_EQ(mig_set_state(pd->dev, RESUMING, &fd), 0);

	return fd;
}

TEST_F_TIMEOUT(stream, barrier_nonblocking, MIG_TIMEOUT)
{
	struct pollfd pfd = { .events = POLLOUT };
	size_t barrier, done = 0, more = 0;
	char word[32];
	int fd;

	NEED_DELAY(0);
	fill_some(&self->a, 1);
	fd = go_resuming(&self->a, &self->stream, &barrier);
	startup_word(bdfs[0], word, sizeof(word));
	EXPECT_STREQ("waiting", word);
	fcntl_set_nonblock(fd);
	/* However long it takes to look, it does not end before that. */
	ASSERT_EQ(0, precopy_knob(bdfs[0], "hold", 1));

	EXPECT_EQ(-EAGAIN, mig_write_all(fd, self->stream.data, self->stream.len,
					 5000, &done));
	/* Up to the barrier everything is taken, and no byte after it. */
	EXPECT_LE(barrier, done);
	EXPECT_GT(barrier + sizeof(struct wire_record), done);
	startup_word(bdfs[0], word, sizeof(word));
	EXPECT_STREQ("starting", word);

	pfd.fd = fd;
	EXPECT_EQ(0, poll(&pfd, 1, 0));
	ASSERT_EQ(0, precopy_knob(bdfs[0], "hold", 0));
	EXPECT_EQ(1, poll(&pfd, 1, PATIENCE_MS));
	EXPECT_EQ(POLLOUT, pfd.revents & POLLOUT);
	startup_word(bdfs[0], word, sizeof(word));
	EXPECT_STREQ("ready", word);

	EXPECT_EQ(0, mig_write_all(fd, self->stream.data + done,
				   self->stream.len - done, 5000, &more));
	EXPECT_EQ(self->stream.len, done + more);
	EXPECT_EQ(0, mig_set_state(self->a.dev, STOP, NULL));
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	close(fd);
}

TEST_F_TIMEOUT(stream, barrier_blocking, MIG_TIMEOUT)
{
	size_t barrier;
	u64 began;
	int fd;

	NEED_DELAY(DELAY_MS);
	fill_some(&self->a, 1);
	fd = go_resuming(&self->a, &self->stream, &barrier);
	began = precopy_now_ms();
	EXPECT_EQ(0, mig_write_all(fd, self->stream.data, self->stream.len,
				   SZ_64K, NULL));
	EXPECT_LE(AT_LEAST_MS, precopy_now_ms() - began);
	EXPECT_EQ(0, mig_set_state(self->a.dev, STOP, NULL));
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	close(fd);
	precopy_knob(bdfs[0], "startup_delay_ms", 0);
}

/* What a load that was refused leaves behind cannot be taken for memory. */
TEST_F_TIMEOUT(stream, failed_load_shuts_memory, MIG_TIMEOUT)
{
	char word[32];
	u8 byte = 0;
	int fd;

	startup_word(bdfs[0], word, sizeof(word));
	EXPECT_STREQ("none", word);
	fill_some(&self->a, 1);
	check_save(_metadata, &self->a, &self->stream);
	self->stream.data[self->stream.len - 1] ^= 1;
	ASSERT_EQ(0, mig_set_state(self->a.dev, RESUMING, &fd));
	EXPECT_EQ(-EINVAL, mig_write_all(fd, self->stream.data, self->stream.len,
					 SZ_64K, NULL));
	startup_word(bdfs[0], word, sizeof(word));
	EXPECT_STREQ("failed", word);
	EXPECT_EQ(-1, pread(self->a.fd, &byte, 1, self->a.bar_offset));
	EXPECT_EQ(EIO, errno);
	EXPECT_EQ(-1, pwrite(self->a.fd, &byte, 1, self->a.bar_offset));
	EXPECT_EQ(EIO, errno);
	/* The kernel's access to the mapping: EFAULT where a program dies. */
	EXPECT_EQ(-1, write(fd, self->a.bar, 1));
	close(fd);

	precopy_reset(&self->a);
	startup_word(bdfs[0], word, sizeof(word));
	EXPECT_STREQ("none", word);
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
}

/* The saving side never blocks: it has data, or it says that it has none. */
TEST_F_TIMEOUT(stream, saving_nonblocking, MIG_TIMEOUT)
{
	char byte;
	int fd;

	fill_some(&self->a, 1);
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &fd));
	fcntl_set_nonblock(fd);
	EXPECT_EQ(-ENOMSG, mig_stream_drain(&self->stream, fd, 3000));
	EXPECT_EQ(-1, read(fd, &byte, 1));
	EXPECT_EQ(ENOMSG, errno);
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
	EXPECT_EQ(0, mig_stream_drain(&self->stream, fd, 3000));
	EXPECT_LT(0, wire_walk(&self->stream, NULL, NULL));
	close(fd);
}

struct access {
	struct precopy_dev *pd;
	enum precopy_how how;
	u64 ended;
	u8 page[PRECOPY_PAGE];
};

static void *access_thread(void *arg)
{
	struct access *access = arg;

	precopy_load(access->pd, 0, access->page, PRECOPY_PAGE, access->how);
	access->ended = precopy_now_ms();

	return NULL;
}

/* A CPU that looks at the memory waits for the startup, not for the commit. */
TEST_F_TIMEOUT(stream, access_waits_for_startup, MIG_TIMEOUT)
{
	struct access access[2] = {};
	pthread_t threads[2];
	size_t barrier;
	u64 began;
	int fd, i;

	NEED_DELAY(DELAY_MS);
	fill_some(&self->a, 1);
	fd = go_resuming(&self->a, &self->stream, &barrier);
	began = precopy_now_ms();
	ASSERT_EQ(0, mig_write_all(fd, self->stream.data, barrier, SZ_64K, NULL));
	for (i = 0; i < 2; i++) {
		access[i].pd = &self->a;
		access[i].how = i ? BY_PWRITE : BY_MMAP;
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, access_thread,
					    &access[i]));
	}
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, pthread_join(threads[i], NULL));
		EXPECT_LE(AT_LEAST_MS, access[i].ended - began);
		/* The bytes that had come by then. */
		EXPECT_EQ(0, memcmp(access[i].page, self->a.shadow, PRECOPY_PAGE));
	}
	ASSERT_EQ(0, mig_write_all(fd, self->stream.data + barrier,
				   self->stream.len - barrier, SZ_64K, NULL));
	EXPECT_EQ(0, mig_set_state(self->a.dev, STOP, NULL));
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	close(fd);
	precopy_knob(bdfs[0], "startup_delay_ms", 0);
}

/* R37: the process ends, although the startup takes ten minutes. */
static bool ends_when_killed(pid_t child)
{
	u64 deadline;

	usleep(300 * 1000);
	kill(child, SIGKILL);
	deadline = precopy_now_ms() + PATIENCE_MS;
	while (precopy_now_ms() < deadline) {
		if (waitpid(child, NULL, WNOHANG) == child)
			return true;
		usleep(10 * 1000);
	}
	return false;
}

enum blocked_in { IN_WRITE, IN_PREAD, IN_MMAP, NR_BLOCKED };

static void block_in(enum blocked_in where, int fd, struct precopy_dev *pd,
		     const struct mig_stream *stream, size_t barrier)
{
	u8 page[PRECOPY_PAGE];

	switch (where) {
	case IN_WRITE:
		mig_write_all(fd, stream->data + barrier, stream->len - barrier,
			      SZ_64K, NULL);
		break;
	case IN_PREAD:
		precopy_load(pd, 0, page, PRECOPY_PAGE, BY_PWRITE);
		break;
	default:
		precopy_load(pd, 0, page, PRECOPY_PAGE, BY_MMAP);
		break;
	}
	_exit(0);
}

TEST_F_TIMEOUT(stream, barrier_killed, MIG_TIMEOUT)
{
	enum blocked_in where;
	size_t barrier;
	pid_t child;
	u64 began;
	int fd;

	NEED_DELAY(LONG_MS);
	for (where = IN_WRITE; where < NR_BLOCKED; where++) {
		fill_some(&self->a, 1);
		self->stream.len = 0;
		fd = go_resuming(&self->a, &self->stream, &barrier);
		ASSERT_EQ(0, mig_write_all(fd, self->stream.data, barrier,
					   SZ_64K, NULL));
		child = fork();
		ASSERT_LE(0, child);
		if (!child)
			block_in(where, fd, &self->a, &self->stream, barrier);
		EXPECT_TRUE(ends_when_killed(child)) TH_LOG("case %d", where);

		/* And nobody who gives up waits for the startup to end. */
		began = precopy_now_ms();
		precopy_reset(&self->a);
		EXPECT_GT(PATIENCE_MS, precopy_now_ms() - began);
		ASSERT_EQ(RUNNING, mig_get_state(self->a.dev));
		close(fd);
	}
	precopy_knob(bdfs[0], "startup_delay_ms", 0);
	self->stream.len = 0;
	fill_some(&self->a, 2);
	check_save(_metadata, &self->a, &self->stream);
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
