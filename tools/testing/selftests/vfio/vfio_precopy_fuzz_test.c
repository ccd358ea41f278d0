// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fuzzing of a device: streams made up or bent by the fuzzer's mutator go in
 * through write(), cut anywhere, and the fuzzer's reference says what must become
 * of each: which error, or which memory. After each a reset, and a good stream.
 *
 * In the environment:
 *   PRECOPY_FUZZ_SECONDS  how long (5)
 *   PRECOPY_FUZZ_SEED     what to begin with (by the clock); it is printed
 *   PRECOPY_FUZZ_STUCK_S  a stream that takes longer is caught in the kernel (180)
 *   PRECOPY_OUT           where a stream that fails is kept (/tmp)
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <linux/limits.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_handoff.h>
#include <libvfio/precopy_states.h>
#include <libvfio/precopy_stream.h>

#include <kselftest.h>

#include "fuzz.h"

#define MORE_SECONDS	60

#define SIZE		SZ_4M
#define MAX_LEN		SZ_128K
#define POOL		24
/* One stream in so many is cut short, and one goes on after its end. */
#define CUT_SHORT	16
#define TOO_LONG	16
/* All of the memory is compared so often; a few pages each time */
#define THOROUGH	32

static struct fuzz {
	struct precopy_dev pd;
	struct fuzz_device dev;
	struct mig_stream good;	/* what @want comes from */
	u8 *want;
	struct mig_stream pool[POOL];
	struct mig_stream now;	/* the one that is tried */
	u64 random;
	u64 nr, accepted, refused, unfinished, resets;
	const char *wrong;
	int is, should;
} f;

static u32 roll(u32 n)
{
	return (fuzz_random(&f.random) >> 20) % n;
}

/* What libFuzzer does for its own mutators, in small */
size_t LLVMFuzzerMutate(u8 *data, size_t size, size_t max_size)
{
	u32 n;

	switch (roll(4)) {
	case 0:
		if (size < max_size)
			data[size++] = roll(256);
		return size;
	case 1:
		return size - roll(size < 9 ? size + 1 : 9);
	default:
		for (n = 1 + roll(4); n && size; n--)
			data[roll(size)] ^= 1 << roll(8);
		return size;
	}
}

/* Only the first thing that is wrong counts. */
static bool wrong(const char *what, int is, int should)
{
	if (!f.wrong) {
		f.wrong = what;
		f.is = is;
		f.should = should;
	}
	return false;
}

/* ------------------------------------------------------------------------ */

static size_t next_chunk(size_t left)
{
	static const u32 largest[] = { 30, 5000, MAX_LEN, MAX_LEN };
	size_t n = 1 + roll(largest[roll(ARRAY_SIZE(largest))]);

	return n < left ? n : left;
}

/* The startup ends by itself; then there is room again. */
static bool wait_for_room(int fd)
{
	struct pollfd pfd = { .fd = fd, .events = POLLOUT };

	return poll(&pfd, 1, HANDOFF_PATIENCE_MS) == 1;
}

/* Looks that must not matter */
static void look_around(int fd)
{
	u8 bytes[64];
	ssize_t ret;

	if (!roll(4) && handoff_phase(fd) < 0)
		wrong("GET_STARTUP", handoff_phase(fd), 0);
	if (roll(8))
		return;
	/* It may wait for the startup, or have failed: EIO. */
	ret = pread(f.pd.fd, bytes, sizeof(bytes),
		    f.pd.bar_offset + roll(SIZE - sizeof(bytes)));
	if (ret != sizeof(bytes) && errno != EIO)
		wrong("read() of the region", -errno, 0);
}

/* 0, or the error that stopped it after @done bytes */
static int write_stream(int fd, size_t *done)
{
	size_t end = 0;
	ssize_t ret;

	*done = 0;
	while (*done < f.now.len) {
		if (end <= *done)
			end = *done + next_chunk(f.now.len - *done);
		ret = write(fd, f.now.data + *done, end - *done);
		if (!ret)
			return wrong("write() of 0 bytes", 0, 1);
		if (ret < 0 && errno != EAGAIN)
			return -errno;
		if (ret < 0 && !wait_for_room(fd))
			return wrong("no room for ever", -EAGAIN, 0);
		*done += ret > 0 ? ret : 0;
		look_around(fd);
	}
	return 0;
}

static bool error_right(int error, u32 refused)
{
	return (error == -EINVAL && refused & REFUSED_INVAL) ||
	       (error == -EOPNOTSUPP && refused & REFUSED_NOTSUPP);
}

static bool check_written(const struct outcome *must, int ret, size_t done)
{
	if (!must->refused) {
		if (ret || done != f.now.len)
			return wrong("write() of what is good", ret, 0);
		return true;
	}
	if (!error_right(ret, must->refused))
		return wrong("write() of what is not", ret,
			     -(int)must->refused);
	if (done > must->used)
		return wrong("taken too much", done, must->used);
	return true;
}

static bool check_memory(const struct outcome *must)
{
	u8 *image = calloc_assert(1, SIZE);
	bool same;
	size_t i;

	for (i = 0; i < must->memory.nr; i++)
		memcpy(image + must->memory.entries[i]->number * FUZZ_PAGE,
		       must->memory.entries[i]->data, FUZZ_PAGE);
	same = !precopy_differ(&f.pd, image);
	free(image);

	return same || wrong("memory after a load", 0, 0);
}

static bool check_ended(const struct outcome *must)
{
	int ret = mig_set_state(f.pd.dev, STOP, NULL);

	if (must->complete) {
		f.accepted++;
		return ret ? wrong("commit of what is complete", ret, 0) :
			     check_memory(must);
	}
	if (must->refused) {
		f.refused++;
		return error_right(ret, must->refused) ||
		       wrong("commit of what was refused", ret, -EINVAL);
	}
	f.unfinished++;
	return ret == -EINVAL || wrong("commit of a part", ret, -EINVAL);
}

/* A reset in the middle, or nothing more is written */
static bool give_up(int fd)
{
	f.now.len = roll(f.now.len + 1);
	mig_write_all(fd, f.now.data, f.now.len, SZ_64K, NULL);
	precopy_reset(&f.pd);
	f.resets++;
	if (write(fd, f.now.data, 1) != -1 || errno != ENODEV)
		return wrong("write() after a reset", -errno, -ENODEV);
	return true;
}

static bool try_stream(const struct outcome *must)
{
	size_t done;
	int fd, ret;
	bool right;

	ret = mig_set_state(f.pd.dev, RESUMING, &fd);
	if (ret)
		return wrong("to RESUMING", ret, 0);
	if (!roll(3))
		fcntl(fd, F_SETFL, O_NONBLOCK);
	if (!roll(20)) {
		right = give_up(fd);
	} else {
		ret = write_stream(fd, &done);
		right = check_written(must, ret, done) && check_ended(must);
	}
	close(fd);
	precopy_reset(&f.pd);
	ret = mig_get_state(f.pd.dev);

	return right && (ret == RUNNING || wrong("state after", ret, RUNNING));
}

/* Whatever was before: this works. */
static bool try_good(void)
{
	u8 page[PRECOPY_PAGE];
	u64 number = roll(64);
	int ret = mig_load(f.pd.dev, &f.good, SZ_64K);

	if (ret)
		return wrong("a good stream afterwards", ret, 0);
	precopy_load(&f.pd, number * PRECOPY_PAGE, page, sizeof(page),
		     number & 1 ? BY_MMAP : BY_PWRITE);
	if (memcmp(page, f.want + number * PRECOPY_PAGE, sizeof(page)) ||
	    (f.nr % THOROUGH == 0 && precopy_differ(&f.pd, f.want)))
		return wrong("memory of a good stream", 0, 0);
	precopy_reset(&f.pd);

	return true;
}

/* ------------------------------------------------------------------------ */

static void pool_add(u32 i, const struct mig_stream *stream)
{
	mig_stream_copy(&f.pool[i % POOL], stream);
}

/* With another beginning, of an optional kind, and an empty one */
static void make_pool(void)
{
	struct wire w;
	u32 i;

	for (i = 0; i < POOL; i++) {
		wire_init(&w, f.pd.bdf, SIZE);
		/* Minor version 1 is ours, and has no longer header */
		w.header.minor = i % 3 ? 1 + i % 3 : 0;
		if (i % 3)
			w.header.header_len += 4 * i;
		wire_put_header(&w);
		wire_put_preface(&w);
		if (i % 4 == 1)
			wire_put_record(&w, WIRE_UNKNOWN, WIRE_OPTIONAL, 9, "x", 1);
		if (i % 4 == 2)
			wire_put_zero(&w, 0, SIZE);
		wire_put_initial_end(&w);
		wire_put_state(&w);
		wire_put_end(&w);
		pool_add(i, i % 6 ? &w.stream : &f.good);
		wire_free(&w);
	}
}

static size_t bend(u8 *out)
{
	const struct mig_stream *from = &f.pool[roll(POOL)];
	const struct mig_stream *with = &f.pool[roll(POOL)];
	size_t len = from->len < MAX_LEN ? from->len : MAX_LEN;
	u32 n;

	memcpy(out, from->data, len);
	if (!roll(8))
		len = LLVMFuzzerCustomCrossOver(from->data, from->len,
						with->data, with->len, out,
						MAX_LEN, roll(~0U));
	for (n = 1 + roll(3); n; n--)
		len = LLVMFuzzerCustomMutator(out, len, MAX_LEN, roll(~0U));
	return len;
}

/* Most that is bent is refused, which tells little of the memory. */
static void make_stream(void)
{
	static u8 out[MAX_LEN];
	size_t len;

	f.now.len = 0;
	/* Few that are bent or made up are only cut short. */
	if (f.nr % CUT_SHORT == CUT_SHORT - 1) {
		mig_stream_append(&f.now, f.good.data, roll(f.good.len));
		return;
	}
	/* Fewer still are good up to their end, and have bytes after it. */
	if (f.nr % TOO_LONG == 0) {
		mig_stream_append(&f.now, f.good.data, f.good.len);
		mig_stream_append(&f.now, f.good.data, 1 + roll(f.good.len));
		return;
	}
	if (roll(3))
		len = bend(out);
	else
		len = mutator_fresh(f.good.data, f.good.len, out, MAX_LEN,
				    roll(~0U));
	mig_stream_append(&f.now, out, len);
}

static bool one(void)
{
	struct outcome must = {};
	bool right;

	make_stream();
	reference_decode(&f.dev, f.now.data, f.now.len, &must);
	right = try_stream(&must) && !f.wrong;
	/* Those that go far are worth going on from. */
	if (must.complete || (must.nr_events > 4 && !roll(4)))
		pool_add(roll(POOL), &f.now);
	outcome_free(&must);
	f.nr++;

	return right && try_good();
}

static void save_failing(void)
{
	char path[PATH_MAX];
	int fd;

	snprintf_assert(path, sizeof(path), "%s/fuzz-failing.bin",
			getenv("PRECOPY_OUT") ?: "/tmp");
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || write(fd, f.now.data, f.now.len) != (ssize_t)f.now.len)
		perror(path);
	close(fd);
	ksft_print_msg("stream %lu: %s: %d instead of %d; it is in %s\n",
		       f.nr, f.wrong, f.is, f.should, path);
}

/*
 * Only the end of the process gets a write() out of a loop in the kernel. Seconds
 * are counted in which this thread had its turn, so the other could have it too.
 */
static void *watch(void *arg)
{
	u64 limit = *(u64 *)arg, before = 0, now, idle = 0;

	while (idle < limit) {
		sleep(1);
		now = __atomic_load_n(&f.nr, __ATOMIC_RELAXED);
		idle = now == before ? idle + 1 : 0;
		before = now;
	}
	wrong("nothing happens any more", 0, 0);
	save_failing();
	ksft_test_result_fail("fuzz.device\n");
	_exit(KSFT_FAIL);
}

static void begin_watch(void)
{
	static u64 limit;
	pthread_t thread;

	limit = precopy_setting("PRECOPY_FUZZ_STUCK_S", 180);
	VFIO_ASSERT_EQ(pthread_create(&thread, NULL, watch, &limit), 0);
	pthread_detach(thread);
}

static void prepare(const char *bdf)
{
	struct wire w;

	precopy_open(&f.pd, bdf, NULL, SIZE);
	wire_init(&w, bdf, SIZE);
	f.dev = (struct fuzz_device) {
		.vendor = w.header.vendor, .device = w.header.device,
		.backend = WIRE_BACKEND_RAM, .memory_size = SIZE,
	};
	precopy_fill(&f.pd, 3, 2, 1, BY_MMAP);
	precopy_fill(&f.pd, 40, 3, 2, BY_PWRITE);
	precopy_fill(&f.pd, precopy_nr_pages(&f.pd) - 1, 1, 3, BY_MMAP);
	f.want = malloc_assert(SIZE);
	memcpy(f.want, f.pd.shadow, SIZE);
	VFIO_ASSERT_EQ(mig_save(f.pd.dev, &f.good), 0);
	precopy_reset(&f.pd);
	make_pool();
}

/* It is no test if everything ends at the first checksum. */
static bool seen_all(void)
{
	return f.accepted && f.refused && f.unfinished;
}

/* On a slow machine it may take longer until each kind of stream had its turn. */
static bool time_left(u64 began, u64 seconds)
{
	u64 passed = precopy_now_ms() - began;

	return passed < seconds * 1000 ||
	       (!seen_all() && passed < (seconds + MORE_SECONDS) * 1000);
}

int main(int argc, char *argv[])
{
	u64 seconds = precopy_setting("PRECOPY_FUZZ_SECONDS", 5), began, next;
	u64 seed = precopy_setting("PRECOPY_FUZZ_SEED", time(NULL));
	char **bdfs;
	int nr_bdfs;

	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);
	ksft_print_header();
	ksft_set_plan(1);
	ksft_print_msg("seed %lu, %lu s\n", seed, seconds);
	f.random = seed;
	prepare(bdfs[0]);
	begin_watch();

	began = precopy_now_ms();
	next = began + 60000;
	while (time_left(began, seconds) && one()) {
		if (precopy_now_ms() < next)
			continue;
		next += 60000;
		ksft_print_msg("%lu streams so far\n", f.nr);
	}
	if (f.wrong)
		save_failing();
	ksft_print_msg("%lu streams: %lu complete, %lu refused, %lu cut short, %lu resets\n",
		       f.nr, f.accepted, f.refused, f.unfinished, f.resets);
	ksft_test_result(!f.wrong && seen_all(), "fuzz.device\n");
	precopy_close(&f.pd);
	ksft_finished();
}
