// SPDX-License-Identifier: GPL-2.0-only
/*
 * Engines, from the view of a guest that has no driver for them: registers by sysfs,
 * and memory whose physical address is known, because it is one huge page.
 *
 * Each engine stamps a part of the memory without end, with the number of the round
 * and that of the page. So at any time the pages before some page have the present
 * number, and all others the one before: whatever is lost by a migration shows. A
 * check also lets the ring copy pages of the device's own memory, and compares them
 * with what the processor reads there.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/vfio_precopy_engine.h>

#include "guest.h"
#include "guest_line.h"

#define PAGE		4096UL
#define HUGE		(2UL << 20)
#define STAMPED		(HUGE / 2)
#define PAIRS		(PAGE / 16)
/* Behind what is stamped: the ring, where its copies go, and where its fences store */
#define RING_AT		STAMPED
#define COPIES_AT	(RING_AT + PAGE)
#define FENCE_AT	(COPIES_AT + COPIES * PAGE)
#define RING_SIZE	16
#define COPIES		4
#define MAX_ENGINES	4
#define WAIT_NS		60000000000ULL
#define COMMAND		4
#define COMMAND_MASTER	4

struct engine {
	volatile __u32 *registers;
	const __u8 *bar2;
	__u64 bar2_bytes;
	__u8 *memory;
	__u64 address;		/* physical */
	__u64 first;		/* number of the first round since the last check */
	__u64 rounds;		/* of before that */
	__u32 tail;
	__u64 fences;
};

static struct engine engines[MAX_ENGINES];
static __u32 nr_engines;

static __u32 get(const struct engine *e, __u32 reg)
{
	return e->registers[reg / 4];
}

static void set(struct engine *e, __u32 reg, __u32 value)
{
	e->registers[reg / 4] = value;
}

static __u64 get64(const struct engine *e, __u32 reg)
{
	return get(e, reg) | (__u64)get(e, reg + 4) << 32;
}

static void set64(struct engine *e, __u32 reg, __u64 value)
{
	set(e, reg, value);
	set(e, reg + 4, value >> 32);
}

/* --- Finding -------------------------------------------------------------- */

static int open_file(const char *dev, const char *name)
{
	char path[512];

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", dev, name);
	return open(path, O_RDWR);
}

static void *map_resource(const char *dev, const char *name, __u64 *bytes)
{
	int fd = open_file(dev, name);
	void *p = MAP_FAILED;
	struct stat st;

	if (fd >= 0 && !fstat(fd, &st) && st.st_size)
		p = mmap(NULL, st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (fd >= 0)
		close(fd);
	if (p == MAP_FAILED)
		return NULL;
	*bytes = st.st_size;
	return p;
}

static void set_master(const char *dev)
{
	int fd = open_file(dev, "config");
	__u16 command;

	if (fd < 0 || pread(fd, &command, 2, COMMAND) != 2)
		fail("no config space");
	command |= COMMAND_MASTER;
	if (pwrite(fd, &command, 2, COMMAND) != 2)
		fail("cannot set the bus master bit");
	close(fd);
}

void engine_find(const char *dev)
{
	struct engine *e = &engines[nr_engines];
	__u64 bytes = 0;

	if (nr_engines == MAX_ENGINES)
		return;
	e->registers = map_resource(dev, "resource0", &bytes);
	/* A device without an engine has no BAR 0 */
	if (!e->registers || bytes != PRECOPY_ENGINE_BAR_SIZE ||
	    get(e, PRECOPY_ENGINE_ID) != PRECOPY_ENGINE_MAGIC)
		return;
	e->bar2 = map_resource(dev, "resource2", &e->bar2_bytes);
	if (!e->bar2)
		fail("cannot map BAR 2");
	set_master(dev);
	nr_engines++;
}

/* --- Memory --------------------------------------------------------------- */

static __u64 address_of(const void *p)
{
	__u64 entry = 0;
	int fd = open("/proc/self/pagemap", O_RDONLY);

	if (fd < 0 || pread(fd, &entry, 8, (unsigned long)p / PAGE * 8) != 8)
		fail("no pagemap");
	close(fd);
	entry &= (1ULL << 55) - 1;
	if (!entry)
		fail("the physical address is not told");
	return entry * PAGE;
}

static void make_room(void)
{
	int fd;

	mkdir("/proc", 0755);
	mount("proc", "/proc", "proc", 0, NULL);
	fd = open("/proc/sys/vm/nr_hugepages", O_WRONLY);
	if (fd < 0 || dprintf(fd, "%u", nr_engines) < 1)
		fail("no huge pages");
	close(fd);
}

/* As if the round before had just been completed */
static void prepare(struct engine *e, __u64 round)
{
	__u64 *pair = (__u64 *)e->memory, page, i;

	for (page = 0; page < STAMPED / PAGE; page++) {
		for (i = 0; i < PAIRS; i++) {
			*pair++ = round - 1;
			*pair++ = page;
		}
	}
	e->first = round;
}

static void go(struct engine *e)
{
	set64(e, PRECOPY_ENGINE_CMD_SEQ, e->first);
	set(e, PRECOPY_ENGINE_CMD_START, 1);
}

static void set_up(struct engine *e, __u64 every_us)
{
	e->memory = mmap(NULL, HUGE, PROT_READ | PROT_WRITE,
			 MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB | MAP_POPULATE, -1, 0);
	if (e->memory == MAP_FAILED)
		fail("no huge page");
	memset(e->memory, 0, HUGE);
	e->address = address_of(e->memory);
	set(e, PRECOPY_ENGINE_INTERVAL_US, every_us);
	set64(e, PRECOPY_ENGINE_RING_BASE, e->address + RING_AT);
	set(e, PRECOPY_ENGINE_RING_SIZE, RING_SIZE);
	set(e, PRECOPY_ENGINE_CTRL, PRECOPY_ENGINE_CTRL_RING);
	set(e, PRECOPY_ENGINE_CMD_OP, PRECOPY_ENGINE_OP_STAMP);
	set64(e, PRECOPY_ENGINE_CMD_DST, e->address);
	set64(e, PRECOPY_ENGINE_CMD_LEN, STAMPED);
	prepare(e, 1);
	go(e);
}

int engine_found(void)
{
	return nr_engines > 0;
}

void engine_start(__u64 every_us)
{
	__u32 i;

	if (!nr_engines)
		return;
	make_room();
	for (i = 0; i < nr_engines; i++)
		set_up(&engines[i], every_us);
}

/* --- The check ------------------------------------------------------------ */

/*
 * For 1 ms, so that the engine is not asked all the time. Without a sleep: a timer of the
 * guest may be late by minutes under emulation.
 */
static void pass_time(void)
{
	__u64 end = now_ns() + 1000000;

	while (now_ns() < end)
		;
}

static void wait_stopped(struct engine *e)
{
	__u64 end = now_ns() + WAIT_NS;

	while (get(e, PRECOPY_ENGINE_CMD_START)) {
		if (now_ns() > end)
			fail("the engine does not stop");
		pass_time();
	}
	if (get(e, PRECOPY_ENGINE_CMD_ERROR) != ECANCELED) {
		errno = get(e, PRECOPY_ENGINE_CMD_ERROR);
		fail("the engine has ended by itself");
	}
}

static int stamped(const struct engine *e, __u64 page, __u64 round)
{
	const volatile __u64 *pair = (__u64 *)(e->memory + page * PAGE);
	__u64 i;

	for (i = 0; i < PAIRS; i++)
		if (pair[2 * i] != round || pair[2 * i + 1] != page)
			return 0;
	return 1;
}

static void check_stamps(struct engine *e, struct engine_counts *counts)
{
	__u64 round = get64(e, PRECOPY_ENGINE_CMD_SEQ), page = 0;

	while (page < STAMPED / PAGE && stamped(e, page, round))
		page++;
	for (; page < STAMPED / PAGE; page++)
		counts->bad += !stamped(e, page, round - 1);
	counts->pages += STAMPED / PAGE;
	e->rounds += round - e->first;
	counts->rounds += e->rounds;
	prepare(e, round + 1);
}

static struct precopy_engine_desc *next_descriptor(struct engine *e)
{
	struct precopy_engine_desc *ring = (void *)(e->memory + RING_AT);
	struct precopy_engine_desc *desc = &ring[e->tail];

	e->tail = (e->tail + 1) % RING_SIZE;
	memset(desc, 0, sizeof(*desc));
	return desc;
}

static __u64 copied_page(const struct engine *e, __u32 i)
{
	return i * (e->bar2_bytes / PAGE / COPIES);
}

static void order_copies(struct engine *e)
{
	struct precopy_engine_desc *desc;
	__u32 i;

	memset(e->memory + COPIES_AT, 0xee, COPIES * PAGE);
	for (i = 0; i < COPIES; i++) {
		desc = next_descriptor(e);
		desc->op = PRECOPY_ENGINE_OP_COPY;
		desc->flags = PRECOPY_ENGINE_FLAG_SRC_BAR;
		desc->src = copied_page(e, i) * PAGE;
		desc->dst = e->address + COPIES_AT + i * PAGE;
		desc->len = PAGE;
	}
	desc = next_descriptor(e);
	desc->op = PRECOPY_ENGINE_OP_FENCE;
	desc->dst = e->address + FENCE_AT;
	desc->seq = ++e->fences;
	__sync_synchronize();
	set(e, PRECOPY_ENGINE_RING_TAIL, e->tail);
}

static void wait_fence(struct engine *e)
{
	const volatile __u64 *fence = (__u64 *)(e->memory + FENCE_AT);
	__u64 end = now_ns() + WAIT_NS;

	while (*fence != e->fences) {
		if (now_ns() > end)
			fail("the ring does not get on");
		pass_time();
	}
	__sync_synchronize();
}

static int same_page(const void *copy, const void *bar)
{
	const volatile __u64 *a = copy, *b = bar;
	__u64 i;

	for (i = 0; i < PAGE / 8; i++)
		if (a[i] != b[i])
			return 0;
	return 1;
}

static void check_ring(struct engine *e, struct engine_counts *counts)
{
	__u32 i;
	int same;

	order_copies(e);
	wait_fence(e);
	for (i = 0; i < COPIES; i++) {
		same = same_page(e->memory + COPIES_AT + i * PAGE,
				 e->bar2 + copied_page(e, i) * PAGE);
		counts->orders += same;
		counts->bad += !same;
	}
}

void engine_check(struct engine_counts *counts)
{
	struct engine *e;

	for (e = engines; e < engines + nr_engines; e++) {
		set(e, PRECOPY_ENGINE_CMD_START, 0);
		wait_stopped(e);
		check_stamps(e, counts);
		check_ring(e, counts);
		go(e);
	}
}

__u64 engine_rounds(void)
{
	__u64 rounds = 0;
	__u32 i;

	for (i = 0; i < nr_engines; i++)
		rounds += engines[i].rounds +
			  get64(&engines[i], PRECOPY_ENGINE_CMD_SEQ) - engines[i].first;
	return rounds;
}
