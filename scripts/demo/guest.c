// SPDX-License-Identifier: GPL-2.0-only
/*
 * The guest of the demo: process 1 of a virtual machine that has the device
 * passed through.
 *
 * It maps the device's BAR, fills part of it with records and then rewrites
 * random records without pause, until it is told to stop and check.  What it
 * wrote last is kept in the guest's RAM, which migrates by another way than the
 * device does: so the two tell on each other when one of them lost something.
 *
 * If the device has an engine, that writes to the guest's RAM meanwhile.
 *
 * The second serial port is the line to the outside:
 *   to us:   "mark"   restart the statistics
 *            "check"  stop writing, compare every byte of the BAR, report, go on
 *            "leave"  stop using the device, wait until it is gone and another one
 *                     has come, fill that, go on
 *   from us: "READY ..." when a device is filled, "BEAT ..." many times a second,
 *            "BAD ..." for the first few differences, "RESULT ..." after a check,
 *            "LEFT", "GONE" and "CAME" after "leave", "FAIL why"
 */
#include <assert.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/types.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>
#include <x86intrin.h>

#include "guest.h"
#include "guest_line.h"

#define PAGE		4096UL
#define SLOT		512UL
#define SLOTS		(PAGE / SLOT)		/* records in a page */
#define SLOT_WORDS	(SLOT / 8)
#define MAGIC		0x9e50c0bde7a11edcULL
#define BEAT_NS		10000000ULL
#define CALIBRATE_NS	200000000ULL
#define LOOK_NS		50000000ULL
#define BAD_SHOWN	8
#define SAMPLES		12
#define ANYWHERE	128	/* one write in so many leaves the working set */
#define HOT_STEP	1024	/* writes until the working set moves by a page */
#define ROOM		(64UL << 30)	/* of addresses, for all devices */

/* A record fills its slot, so that a check can compare every byte. */
struct record {
	_Alignas(64) __u64 magic;
	__u32 page;
	__u32 slot;
	__u64 iteration;
	__u64 body[SLOT_WORDS - 4];
	__u64 sum;
};

static_assert(sizeof(struct record) == SLOT, "a record is one slot");

static __u64 *bar;
static __u64 bar_bytes;		/* of all devices, which are mapped one after the other */
static __u64 bar_address;		/* physical, of the first */
static __u32 vendor_id, device_id;	/* of the devices to use */
static __u32 devices;
static __u32 *stamp;			/* last iteration written to each slot */
static __u32 *unit;			/* the units that are in use */
static __u64 nr_pages;		/* pages in use */
static __u64 hot_pages = 1024;	/* size of the moving working set */
static __u64 in_use = 40UL << 20;
static __u64 unit_bytes = 2UL << 20;
static __u64 unit_pages;
static __u64 write_every_ns;		/* 0: as fast as it goes */
static __u64 touchers;			/* threads that touch pages without a pause */

static __u64 iteration;		/* page writes since the start */
static __u64 marked;			/* page writes before the last mark */
static __u64 live_bad;		/* stores that did not find the old value */
static __u64 longest_gap;
static __u64 last_write;
static __u64 tsc_khz;

/*
 * The processor's own counter, which goes on through a migration.  The kernel's
 * clock is an agreement with the hypervisor, which may move it meanwhile.
 */
__u64 now_ns(void)
{
	return (__uint128_t)__rdtsc() * 1000000 / tsc_khz;
}

static __u64 kernel_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static void calibrate(void)
{
	__u64 tsc = __rdtsc(), start = kernel_ns(), now;

	do
		now = kernel_ns();
	while (now - start < CALIBRATE_NS);
	tsc_khz = (__uint128_t)(__rdtsc() - tsc) * 1000000 / (now - start);
}

static __u64 mix(__u64 x)
{
	x ^= x >> 30;
	x *= 0xbf58476d1ce4e5b9ULL;
	x ^= x >> 27;
	x *= 0x94d049bb133111ebULL;
	return x ^ x >> 31;
}

static __u64 rnd(void)
{
	static __u64 state = 88172645463325252ULL;

	state ^= state << 13;
	state ^= state >> 7;
	state ^= state << 17;
	return state;
}

/* The device */

static __u64 read_number(const char *dev, const char *name)
{
	char path[512], text[64] = "";
	FILE *f;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", dev, name);
	f = fopen(path, "r");
	if (!f)
		return 0;
	if (!fgets(text, sizeof(text), f))
		text[0] = 0;
	fclose(f);
	return strtoull(text, NULL, 0);
}

static int is_ours(const char *dev)
{
	return dev[0] != '.' && read_number(dev, "vendor") == vendor_id &&
	       read_number(dev, "device") == device_id;
}

/* The third line of "resource" is BAR 2 and begins with where it is. */
static void find_address(const char *dev)
{
	char path[512], text[128] = "";
	int lines = 3;
	FILE *f;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource", dev);
	f = fopen(path, "r");
	while (f && lines-- && fgets(text, sizeof(text), f))
		;
	if (f)
		fclose(f);
	bar_address = strtoull(text, NULL, 0);
}

static void map_bar(const char *dev)
{
	char path[512];
	struct stat st;
	int fd;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/enable", dev);
	fd = open(path, O_WRONLY);
	if (fd < 0 || write(fd, "1", 1) != 1)
		fail("cannot enable the device");
	close(fd);

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource2", dev);
	fd = open(path, O_RDWR);
	if (fd < 0 || fstat(fd, &st) || !st.st_size)
		fail("the device has no BAR 2");
	if (mmap((char *)bar + bar_bytes, st.st_size, PROT_READ | PROT_WRITE,
		 MAP_SHARED | MAP_FIXED, fd, 0) == MAP_FAILED)
		fail("cannot map BAR 2");
	close(fd);
	if (!bar_bytes)
		find_address(dev);
	bar_bytes += st.st_size;
}

/* Addresses without a device, where there may have been one */
static void reserve_room(void)
{
	bar = mmap(bar, ROOM, PROT_NONE,
		   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE | (bar ? MAP_FIXED : 0), -1, 0);
	if (bar == MAP_FAILED)
		fail("no room for the devices");
	bar_bytes = 0;
	devices = 0;
}

static void walk_devices(void (*act)(const char *dev))
{
	DIR *dir = opendir("/sys/bus/pci/devices");
	struct dirent *d;

	while (dir && (d = readdir(dir)))
		if (is_ours(d->d_name))
			act(d->d_name);
	if (dir)
		closedir(dir);
}

static void take_device(const char *dev)
{
	map_bar(dev);
	engine_find(dev);
	devices++;
}

static void find_devices(void)
{
	reserve_room();
	walk_devices(take_device);
	if (!devices)
		fail("the device is not there");
}

/* Spread the pages in use over the BAR, with holes between them. */
static void choose_units(void)
{
	__u64 total = bar_bytes / unit_bytes, want = in_use / unit_bytes, n = 0, i;

	if (!want || want >= total)
		fail("in_use does not fit the BAR");
	unit = calloc(want, sizeof(*unit));
	stamp = calloc(want * unit_pages * SLOTS, sizeof(*stamp));
	if (!unit || !stamp)
		fail("no memory");
	for (i = 0; i < total; i++)
		if ((i + 1) * want / total != i * want / total)
			unit[n++] = i;
	nr_pages = n * unit_pages;
	if (hot_pages > nr_pages)
		hot_pages = nr_pages;
}

static __u64 bar_page(__u64 index)
{
	return unit[index / unit_pages] * unit_pages + index % unit_pages;
}

/* Records */

static void make_record(struct record *r, __u32 page, __u32 slot, __u64 iter)
{
	__u64 seed = mix((__u64)page << 35 ^ (__u64)slot << 32 ^ iter);
	__u64 sum = MAGIC ^ page ^ (__u64)slot << 32 ^ iter;
	size_t i;

	r->magic = MAGIC;
	r->page = page;
	r->slot = slot;
	r->iteration = iter;
	for (i = 0; i < SLOT_WORDS - 4; i++) {
		seed += 0x9e3779b97f4a7c15ULL;
		r->body[i] = seed ^ seed >> 29;
		sum = (sum << 1 | sum >> 63) ^ r->body[i];
	}
	r->sum = sum;
}

/* Each access to the device happens, and as one instruction. */
static void poke(__u64 *to, __u64 value)
{
	*(volatile __u64 *)to = value;
}

static __u64 peek(const __u64 *from)
{
	return *(const volatile __u64 *)from;
}

static void store_plain(__u64 *to, const __u64 *from)
{
	size_t i;

	for (i = 0; i < SLOT_WORDS; i++)
		poke(to + i, from[i]);
}

static void store_wide(__u64 *to, const __u64 *from)
{
	__m128i *dst = (__m128i *)to;
	size_t i;

	for (i = 0; i < SLOT_WORDS / 2; i++)
		_mm_store_si128(dst + i, _mm_load_si128((const __m128i *)from + i));
	__asm__ __volatile__("" : : : "memory");
}

/*
 * Locked exchanges hand back what was there, so this finds a lost store at once,
 * while everything runs.
 */
static void store_locked(__u64 *to, const __u64 *from, const __u64 *old)
{
	size_t i;

	for (i = 0; i < SLOT_WORDS; i++)
		if (__atomic_exchange_n(&to[i], from[i], __ATOMIC_SEQ_CST) != old[i])
			live_bad++;
}

static void write_slot(__u64 index, __u32 slot)
{
	__u64 page = bar_page(index);
	__u64 *to = bar + (page * PAGE + slot * SLOT) / 8;
	__u32 *last = &stamp[index * SLOTS + slot];
	static struct record r, old;

	make_record(&r, page, slot, iteration);
	if (iteration % 16 == 1 && *last) {
		make_record(&old, page, slot, *last);
		store_locked(to, (__u64 *)&r, (__u64 *)&old);
	} else if (iteration % 16 == 2) {
		store_wide(to, (__u64 *)&r);
	} else {
		store_plain(to, (__u64 *)&r);
	}
	*last = iteration;
}

static void write_page(__u64 index, __u32 first, __u32 count)
{
	__u64 now;

	iteration++;
	while (count--)
		write_slot(index, first++ % SLOTS);

	now = now_ns();
	if (last_write && now > last_write && now - last_write > longest_gap)
		longest_gap = now - last_write;
	last_write = now;
}

static void fill(void)
{
	__u64 i;

	for (i = 0; i < nr_pages; i++)
		write_page(i, 0, SLOTS);
}

/*
 * Programs do not write evenly: most writes go to a working set, which moves
 * slowly, and some go anywhere.  Half of them rewrite a page, half a part of it.
 */
static void write_random(void)
{
	__u64 r = rnd(), index;

	if (r % ANYWHERE)
		index = (iteration / HOT_STEP + (r >> 8) % hot_pages) % nr_pages;
	else
		index = (r >> 8) % nr_pages;
	if (r >> 60 & 1)
		write_page(index, 0, SLOTS);
	else
		write_page(index, r >> 40 & 7, 1 + (r >> 44 & 7));
}

/* The check */

struct counts {
	__u64 good, lost, corrupt, stray;
};

static void bad(struct counts *c, const char *what, __u64 page, __u32 slot,
		__u64 want, __u64 got)
{
	if (c->lost + c->corrupt + c->stray < BAD_SHOWN)
		say(1, "BAD %s page=%llu slot=%u wanted=%llu found=%llu\n", what,
		    page, slot, want,
		    got);
}

static void load_slot(struct record *r, __u64 page, __u32 slot)
{
	__u64 *from = bar + (page * PAGE + slot * SLOT) / 8;
	__u64 *to = (__u64 *)r;
	size_t i;

	for (i = 0; i < SLOT_WORDS; i++)
		to[i] = peek(from + i);
}

/* Is this a record that once was right, only older than it should be? */
static int is_older(const struct record *r, __u64 page, __u32 slot)
{
	struct record then;

	make_record(&then, page, slot, r->iteration);
	return !memcmp(&then, r, sizeof(then));
}

static int check_slot(struct counts *c, __u64 page, __u32 slot, __u64 iter)
{
	struct record want, found;

	make_record(&want, page, slot, iter);
	load_slot(&found, page, slot);
	if (!memcmp(&want, &found, sizeof(want)))
		return 1;
	if (is_older(&found, page, slot)) {
		bad(c, "lost", page, slot, iter, found.iteration);
		c->lost++;
	} else {
		bad(c, "corrupt", page, slot, iter, found.iteration);
		c->corrupt++;
	}
	return 0;
}

static void check_used(struct counts *c)
{
	__u64 i;
	__u32 s;

	for (i = 0; i < nr_pages; i++) {
		int good = 1;

		for (s = 0; s < SLOTS; s++)
			good &= check_slot(c, bar_page(i), s, stamp[i * SLOTS + s]);
		c->good += good;
	}
}

static int is_used(__u64 page)
{
	__u64 i;

	for (i = 0; i < nr_pages / unit_pages; i++)
		if (unit[i] == page / unit_pages)
			return 1;
	return 0;
}

/* What was never written must still read as zero. */
static void check_unused(struct counts *c)
{
	__u64 page, word;

	for (page = 0; page < bar_bytes / PAGE; page++) {
		__u64 *from = bar + page * PAGE / 8;
		__u64 any = 0;

		if (is_used(page))
			continue;
		for (word = 0; word < PAGE / 8; word++)
			any |= peek(from + word);
		if (any) {
			bad(c, "stray", page, 0, 0, any);
			c->stray++;
		} else {
			c->good++;
		}
	}
}

static void check(void)
{
	struct engine_counts dma = { 0 };
	struct counts c = { 0 };
	__u64 gap = longest_gap, start = now_ns();

	check_used(&c);
	check_unused(&c);
	engine_check(&dma);
	say(1, "RESULT pages=%llu good=%llu lost=%llu corrupt=%llu stray=%llu live_bad=%llu ",
	    bar_bytes / PAGE, c.good, c.lost, c.corrupt, c.stray, live_bad);
	say(1, "dma_pages=%llu dma_bad=%llu dma_rounds=%llu dma_orders=%llu ",
	    dma.pages, dma.bad, dma.rounds, dma.orders);
	say(1, "iterations=%llu since_mark=%llu longest_gap_us=%llu check_ms=%llu\n",
	    iteration, iteration - marked, gap / 1000, (now_ns() - start) / 1000000);
	last_write = 0;
}

/* The line to the outside */

static void mark(void)
{
	marked = iteration;
	longest_gap = 0;
	last_write = 0;
	say(1, "MARKED iterations=%llu dma_rounds=%llu\n", iteration, engine_rounds());
}

/*
 * Pages for somebody outside to change, to see that we notice: one of each unit,
 * so that the working set holds few of them, and one that is not used.
 */
static const char *sample(void)
{
	static char text[160];
	size_t len = 0;
	__u64 i;

	for (i = 0; i < nr_pages && i / unit_pages < SAMPLES; i += unit_pages)
		len += sprintf(text + len, "%llu,", bar_page(i));
	for (i = 0; is_used(i); i += unit_pages)
		;
	sprintf(text + len, "%llu", i);
	return text;
}

static void fill_and_say(void)
{
	__u64 start = now_ns();

	fill();
	say(1, "READY bar=%#llx bar_pages=%llu used_pages=%llu fill_ms=%llu devices=%u sample=%s\n",
	    bar_address, bar_bytes / PAGE, nr_pages, (now_ns() - start) / 1000000,
	    devices, sample());
}

/* The device goes, and another one comes */

static __u32 mappable;		/* devices that are there, with a BAR that can be mapped */

/* The file appears only when the BAR has an address. */
static void count_mappable(const char *dev)
{
	char path[512];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/resource2", dev);
	mappable += !access(path, F_OK);
}

/*
 * Without a sleep, whose timer may be late by minutes under emulation. The kernel frees
 * closed files late, so a loop without a pause would use up the guest's memory.
 */
static void wait_for_devices(__u32 count)
{
	for (;;) {
		__u64 end = now_ns() + LOOK_NS;

		mappable = 0;
		walk_devices(count_mappable);
		if (mappable == count)
			return;
		/* The kernel's own thread that takes the device away has one processor, too */
		while (now_ns() < end)
			sched_yield();
	}
}

/* Pages of a device that nobody has written, which are not zero */
static __u64 strays(void)
{
	struct counts c = { 0 };
	__u64 used = nr_pages;

	nr_pages = 0;
	check_unused(&c);
	nr_pages = used;
	return c.stray;
}

/* Without an engine, which would go on, and without threads that use the mapping. */
static void leave(void)
{
	__u64 bytes = bar_bytes;
	__u32 count = devices;

	if (touchers || engine_found())
		fail("others use the device");
	reserve_room();
	say(1, "LEFT devices=%u\n", count);
	wait_for_devices(0);
	say(1, "GONE devices=%u\n", count);
	wait_for_devices(count);
	find_devices();
	if (bar_bytes != bytes)
		fail("another device has come, of another size");
	say(1, "CAME stray=%llu\n", strays());
	memset(stamp, 0, nr_pages * SLOTS * sizeof(*stamp));
	fill_and_say();
	mark();
}

static void listen_line(void)
{
	static char text[64];
	static size_t len;
	char c;

	while (line_read(&c)) {
		if (c != '\n' && c != '\r') {
			if (len < sizeof(text) - 1)
				text[len++] = c;
			continue;
		}
		text[len] = 0;
		len = 0;
		if (!strcmp(text, "mark"))
			mark();
		else if (!strcmp(text, "check"))
			check();
		else if (!strcmp(text, "leave"))
			leave();
	}
}

static void beat(__u64 now)
{
	static __u64 last;

	/* A counter that was set back must not silence us. */
	if (now >= last && now - last < BEAT_NS)
		return;
	last = now;
	say(0, "BEAT %llu\n", iteration);
	listen_line();
}

static void pace(void)
{
	__u64 until = last_write + write_every_ns;

	if (!write_every_ns)
		return;
	while (now_ns() < until)
		beat(now_ns());
}

/*
 * Other processors make pages dirty and change nothing: a locked addition of zero is
 * atomic to every store of the first one.
 */
static void *touch(void *seed)
{
	__u64 at = (__u64)seed;

	for (;;) {
		at = mix(at + 1);
		__atomic_fetch_add(bar + bar_page(at % nr_pages) * PAGE / 8, 0, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

static void start_touching(void)
{
	__u64 count = touchers;
	pthread_t thread;

	while (count--)
		if (pthread_create(&thread, NULL, touch, (void *)(count + 1)))
			fail("no thread");
}

int main(int argc __attribute__((unused)), char **argv)
{
	mkdir("/dev", 0755);
	mkdir("/sys", 0755);
	mount("sys", "/sys", "sysfs", 0, NULL);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	line_open();
	calibrate();

	in_use = argument(argv, "in_use_mib", in_use >> 20) << 20;
	in_use = argument(argv, "in_use_kib", in_use >> 10) << 10;
	unit_bytes = argument(argv, "unit_kib", unit_bytes >> 10) << 10;
	unit_pages = unit_bytes / PAGE;
	hot_pages = argument(argv, "hot_pages", hot_pages);
	write_every_ns = argument(argv, "write_every_us", 0) * 1000;
	touchers = argument(argv, "touchers", 0);
	vendor_id = argument(argv, "vendor", 0x1b36);
	device_id = argument(argv, "device", 0x0005);
	find_devices();
	choose_units();
	fill_and_say();
	engine_start(argument(argv, "dma_every_us", 50000));
	mark();
	start_touching();

	for (;;) {
		write_random();
		beat(last_write);
		pace();
	}
}
