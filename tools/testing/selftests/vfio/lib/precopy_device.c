// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <linux/limits.h>
#include <linux/pci_regs.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <kselftest.h>
#include <libvfio.h>
#include <libvfio/precopy_device.h>

#define MAX_DEVICES	4
#define REPORT_PAGES	4
#define COMPARED	(256 * PRECOPY_PAGE)	/* by one read() */
#define CLOSING_MS	60000
#define BLOCKING_MS	60000

#define NUMA_BALANCING	"/proc/sys/kernel/numa_balancing"

int precopy_file_write(const char *path, const char *value)
{
	int fd, ret = 0;

	fd = open(path, O_WRONLY | O_TRUNC);
	if (fd < 0)
		return -errno;
	if (write(fd, value, strlen(value)) < 0)
		ret = -errno;
	close(fd);

	return ret;
}

static int file_read(const char *path, char *buf, size_t len)
{
	ssize_t got;
	int fd, ret = 0;

	fd = open(path, O_RDONLY);
	if (fd < 0)
		return -errno;
	got = read(fd, buf, len - 1);
	if (got < 0)
		ret = -errno;
	close(fd);
	buf[got > 0 ? got : 0] = 0;
	buf[strcspn(buf, "\n")] = 0;

	return ret;
}

static struct {
	pid_t pid;
	int nr;
	char **bdfs;
	char memory_size[MAX_DEVICES][32];
	char model[MAX_DEVICES][32];
	char numa_balancing[8];
} saved;

static void restore_attributes(void)
{
	int i;

	/* Children of the test harness inherit this handler. */
	if (getpid() != saved.pid)
		return;

	for (i = 0; i < saved.nr; i++) {
		precopy_sysfs_write(saved.bdfs[i], "memory_size",
				    saved.memory_size[i]);
		precopy_sysfs_write(saved.bdfs[i], "model", saved.model[i]);
	}
	if (*saved.numa_balancing)
		precopy_file_write(NUMA_BALANCING, saved.numa_balancing);
}

/*
 * Programs count faults and calls of MMU notifiers. NUMA balancing adds to both,
 * whenever it likes. Who is about NUMA hints turns them on.
 */
static void stop_numa_balancing(void)
{
	if (!file_read(NUMA_BALANCING, saved.numa_balancing,
		       sizeof(saved.numa_balancing)))
		precopy_file_write(NUMA_BALANCING, "0");
}

void precopy_require(char **bdfs, int nr_bdfs)
{
	char *driver;
	int i;

	saved.pid = getpid();
	saved.bdfs = bdfs;
	saved.nr = nr_bdfs < MAX_DEVICES ? nr_bdfs : MAX_DEVICES;

	for (i = 0; i < saved.nr; i++) {
		driver = sysfs_driver_get(bdfs[i]);
		if (!driver || strcmp(driver, PRECOPY_DRIVER))
			ksft_exit_skip("%s is bound to %s, not to %s\n",
				       bdfs[i], driver ?: "no driver",
				       PRECOPY_DRIVER);
		free(driver);
		VFIO_ASSERT_EQ(precopy_sysfs_read(bdfs[i], "memory_size",
						  saved.memory_size[i], 32), 0);
		VFIO_ASSERT_EQ(precopy_sysfs_read(bdfs[i], "model",
						  saved.model[i], 32), 0);
	}
	VFIO_ASSERT_EQ(atexit(restore_attributes), 0);
	stop_numa_balancing();
}

static void sysfs_path(char *path, const char *bdf, const char *file)
{
	snprintf_assert(path, PATH_MAX, "/sys/bus/pci/devices/%s/precopy/%s",
			bdf, file);
}

static void knob_path(char *path, const char *bdf, const char *knob)
{
	snprintf_assert(path, PATH_MAX, "/sys/kernel/debug/vfio/%s/precopy/%s",
			bdf, knob);
}

int precopy_sysfs_write(const char *bdf, const char *file, const char *value)
{
	char path[PATH_MAX];

	sysfs_path(path, bdf, file);
	return precopy_file_write(path, value);
}

int precopy_sysfs_read(const char *bdf, const char *file, char *buf, size_t len)
{
	char path[PATH_MAX];

	sysfs_path(path, bdf, file);
	return file_read(path, buf, len);
}

u32 precopy_pci_id(const char *bdf, const char *file)
{
	char path[PATH_MAX], buf[32];

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/%s", bdf,
			file);
	VFIO_ASSERT_EQ(file_read(path, buf, sizeof(buf)), 0, "no %s\n", path);

	return strtoul(buf, NULL, 16);
}

u64 precopy_sysfs_u64(const char *bdf, const char *file)
{
	char buf[64], *end;
	u64 value;

	VFIO_ASSERT_EQ(precopy_sysfs_read(bdf, file, buf, sizeof(buf)), 0,
		       "no precopy/%s\n", file);
	value = strtoull(buf, &end, 0);
	VFIO_ASSERT_TRUE(end != buf && !*end, "precopy/%s is \"%s\"\n", file, buf);

	return value;
}

bool precopy_has_knob(const char *bdf, const char *knob)
{
	char path[PATH_MAX];

	knob_path(path, bdf, knob);
	return !access(path, W_OK);
}

bool precopy_kernel_has(const char *function)
{
	FILE *f = fopen("/proc/kallsyms", "r");
	bool any = false, found = false;
	char name[512];

	while (f && !found && fscanf(f, "%*s %*s %511s%*[^\n]", name) == 1) {
		any = true;
		found = !strcmp(name, function);
	}
	if (f)
		fclose(f);
	return found || !any;
}

int precopy_knob(const char *bdf, const char *knob, u64 value)
{
	char path[PATH_MAX], buf[32];

	knob_path(path, bdf, knob);
	snprintf_assert(buf, sizeof(buf), "%llu", (unsigned long long)value);
	return precopy_file_write(path, buf);
}

void precopy_knob_wait(const char *bdf, const char *knob, u64 value)
{
	u64 deadline = precopy_now_ms() + BLOCKING_MS;
	char path[PATH_MAX], buf[32];

	knob_path(path, bdf, knob);
	for (;;) {
		VFIO_ASSERT_EQ(file_read(path, buf, sizeof(buf)), 0);
		if (strtoull(buf, NULL, 0) == value)
			return;
		VFIO_ASSERT_LT(precopy_now_ms(), deadline, "%s stays %s\n",
			       knob, buf);
		usleep(1000);
	}
}

/* Values of the knob hold_split, see the ABI's description */
#define SPLIT_HOLD	1
#define SPLIT_HELD	2

#define HELD_STAMP	0x5111d0f0aULL

static void *held_store(void *arg)
{
	struct precopy_held_split *held = arg;

	*(volatile u64 *)(held->pd->bar + held->offset) = HELD_STAMP;
	return NULL;
}

void precopy_hold_split(struct precopy_held_split *held, struct precopy_dev *pd,
			u64 offset)
{
	*held = (struct precopy_held_split){ .pd = pd, .offset = offset };
	*(u64 *)(pd->shadow + offset) = HELD_STAMP;
	VFIO_ASSERT_EQ(precopy_knob(pd->bdf, "hold_split", SPLIT_HOLD), 0);
	VFIO_ASSERT_EQ(pthread_create(&held->thread, NULL, held_store, held), 0);
	precopy_knob_wait(pd->bdf, "hold_split", SPLIT_HELD);
}

void precopy_release_split(struct precopy_held_split *held)
{
	VFIO_ASSERT_EQ(precopy_knob(held->pd->bdf, "hold_split", 0), 0);
	VFIO_ASSERT_EQ(pthread_join(held->thread, NULL), 0);
}

u64 precopy_stat(const char *bdf, const char *name)
{
	char path[PATH_MAX], word[64];
	unsigned long long value;
	u64 found = ~0ULL;
	FILE *f;

	snprintf_assert(path, sizeof(path),
			"/sys/kernel/debug/vfio/%s/precopy/stats", bdf);
	f = fopen(path, "r");
	while (f && fscanf(f, "%63s %llu", word, &value) == 2)
		if (!strcmp(word, name))
			found = value;
	if (f)
		fclose(f);

	return found;
}

static void set_memory_size(const char *bdf, size_t size)
{
	u64 deadline = precopy_now_ms() + CLOSING_MS;
	char buf[32];
	int ret;

	snprintf_assert(buf, sizeof(buf), "%zu", size);
	/* A test that was killed for its time may be closing the device still. */
	do {
		ret = precopy_sysfs_write(bdf, "memory_size", buf);
		if (ret == -EBUSY)
			usleep(20 * 1000);
	} while (ret == -EBUSY && precopy_now_ms() < deadline);
	VFIO_ASSERT_EQ(ret, 0, "cannot set the memory size of %s to %s\n", bdf,
		       buf);
}

/* A test that failed may have left them set. */
static void clear_knobs(const char *bdf)
{
	static const char * const knobs[] = {
		"startup_delay_ms", "startup_fail", "slow_stop_ms",
		"fail_save_at", "fail_load_at", "data_size", "hold",
		"hold_startup_at", "load_rate", "hot_pages", "step_delay_ms",
		"hold_step", "hold_split", "fail_job_at", "fail_job_errno",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(knobs); i++)
		precopy_knob(bdf, knobs[i], 0);
}

void precopy_prepare(const char *bdf, size_t memory_size, const char *model)
{
	set_memory_size(bdf, memory_size);
	VFIO_ASSERT_EQ(precopy_sysfs_write(bdf, "model", model), 0);
	clear_knobs(bdf);
}

bool precopy_has_mode(const char *mode)
{
	return !strstr(mode, "iommufd") || !access("/dev/iommu", R_OK | W_OK);
}

const char *precopy_mode(const char *mode)
{
	if (mode)
		return mode;
	return precopy_has_mode(MODE_IOMMUFD) ? MODE_IOMMUFD :
						MODE_VFIO_TYPE1V2_IOMMU;
}

void precopy_open_model(struct precopy_dev *pd, const char *bdf,
			const char *mode, size_t memory_size, const char *model)
{
	struct vfio_pci_bar *bar;

	precopy_prepare(bdf, memory_size, model);
	memset(pd, 0, sizeof(*pd));
	pd->bdf = bdf;
	pd->iommu = iommu_init(precopy_mode(mode));
	pd->dev = vfio_pci_device_init(bdf, pd->iommu);
	pd->fd = pd->dev->fd;

	bar = &pd->dev->bars[PRECOPY_BAR];
	VFIO_ASSERT_EQ(bar->info.size, memory_size);
	VFIO_ASSERT_NOT_NULL(bar->vaddr, "the BAR cannot be mapped\n");
	pd->bar = bar->vaddr;
	pd->bar_offset = bar->info.offset;
	pd->size = memory_size;
	pd->shadow = calloc_assert(1, memory_size);
}

void precopy_open(struct precopy_dev *pd, const char *bdf, const char *mode,
		  size_t memory_size)
{
	precopy_open_model(pd, bdf, mode, memory_size, "memory");
}

void precopy_close(struct precopy_dev *pd)
{
	vfio_pci_device_cleanup(pd->dev);
	iommu_cleanup(pd->iommu);
	clear_knobs(pd->bdf);
	free(pd->shadow);
	memset(pd, 0, sizeof(*pd));
}

void precopy_reset(struct precopy_dev *pd)
{
	vfio_pci_device_reset(pd->dev);
	memset(pd->shadow, 0, pd->size);
}

/* splitmix64: every input gives another output, so no two pages are equal. */
static u64 mix(u64 x)
{
	x += 0x9e3779b97f4a7c15ULL;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ULL;
	x = (x ^ (x >> 27)) * 0x94d049bb133111ebULL;
	return x ^ (x >> 31);
}

void precopy_pattern(void *buf, u64 page, u64 seed)
{
	u64 *word = buf;
	size_t i;

	word[0] = page;
	word[1] = seed;
	word[2] = ~page;
	for (i = 3; i < PRECOPY_PAGE / sizeof(*word); i++)
		word[i] = mix((seed << 40) ^ (page << 10) ^ i);
}

static void bar_pwrite(struct precopy_dev *pd, u64 offset, const void *data,
		       size_t len)
{
	ssize_t ret = pwrite(pd->fd, data, len, pd->bar_offset + offset);

	VFIO_ASSERT_EQ(ret, (ssize_t)len, "write of the BAR at %#lx\n", offset);
}

static void bar_pread(struct precopy_dev *pd, u64 offset, void *data, size_t len)
{
	ssize_t ret = pread(pd->fd, data, len, pd->bar_offset + offset);

	VFIO_ASSERT_EQ(ret, (ssize_t)len, "read of the BAR at %#lx\n", offset);
}

void precopy_store(struct precopy_dev *pd, u64 offset, const void *data,
		   size_t len, enum precopy_how how)
{
	VFIO_ASSERT_LE(offset + len, pd->size);

	if (how == BY_MMAP)
		memcpy(pd->bar + offset, data, len);
	else
		bar_pwrite(pd, offset, data, len);
	memcpy(pd->shadow + offset, data, len);
}

void precopy_load(struct precopy_dev *pd, u64 offset, void *data, size_t len,
		  enum precopy_how how)
{
	VFIO_ASSERT_LE(offset + len, pd->size);

	if (how == BY_MMAP)
		memcpy(data, pd->bar + offset, len);
	else
		bar_pread(pd, offset, data, len);
}

void precopy_fill(struct precopy_dev *pd, u64 first, u64 nr, u64 seed,
		  enum precopy_how how)
{
	u64 buf[PRECOPY_PAGE / sizeof(u64)];
	u64 page;

	for (page = first; page < first + nr; page++) {
		precopy_pattern(buf, page, seed);
		precopy_store(pd, page * PRECOPY_PAGE, buf, PRECOPY_PAGE, how);
	}
}

static void report_page(struct precopy_dev *pd, u64 page, const u8 *want,
			const u8 *by_read, const u8 *by_mmap)
{
	size_t i;

	for (i = 0; i < PRECOPY_PAGE - 1; i++)
		if (want[i] != by_read[i] || want[i] != by_mmap[i])
			break;
	fprintf(stderr,
		"# %s: page %lu byte %zu: want %02x, read() %02x, mapping %02x\n",
		pd->bdf, page, i, want[i], by_read[i], by_mmap[i]);
}

/* Compares @len bytes at @offset; returns how many pages differ. */
static u64 differ_at(struct precopy_dev *pd, const u8 *shadow, u64 offset,
		     size_t len, u64 reported)
{
	u8 *read = malloc_assert(2 * len), *mapped = read + len;
	u64 at, differ = 0;

	precopy_load(pd, offset, read, len, BY_PWRITE);
	precopy_load(pd, offset, mapped, len, BY_MMAP);
	for (at = 0; at < len; at += PRECOPY_PAGE) {
		if (!memcmp(shadow + offset + at, read + at, PRECOPY_PAGE) &&
		    !memcmp(shadow + offset + at, mapped + at, PRECOPY_PAGE))
			continue;
		if (reported + differ++ < REPORT_PAGES)
			report_page(pd, (offset + at) / PRECOPY_PAGE,
				    shadow + offset + at, read + at, mapped + at);
	}
	free(read);

	return differ;
}

u64 precopy_differ(struct precopy_dev *pd, const u8 *shadow)
{
	u64 offset, differ = 0;
	size_t len;

	for (offset = 0; offset < pd->size; offset += len) {
		len = pd->size - offset < COMPARED ? pd->size - offset : COMPARED;
		differ += differ_at(pd, shadow, offset, len, differ);
	}

	return differ;
}

/* The number of the system call, if the thread is blocked in one; else -1 */
static long blocked_in(pid_t tid)
{
	char path[64];
	long nr = -1;
	FILE *f;

	snprintf_assert(path, sizeof(path), "/proc/%d/syscall", tid);
	f = fopen(path, "r");
	/* "running", or the number and more; -1 in a page fault */
	if (f && fscanf(f, "%ld", &nr) != 1)
		nr = -1;
	if (f)
		fclose(f);
	return nr;
}

bool precopy_wait_blocked(const volatile pid_t *tid, long nr,
			  const volatile bool *ended)
{
	u64 deadline = precopy_now_ms() + BLOCKING_MS;

	while (!*ended) {
		if (*tid && blocked_in(*tid) == nr)
			return true;
		VFIO_ASSERT_LT(precopy_now_ms(), deadline,
			       "the thread does not get there\n");
		usleep(1000);
	}
	return false;
}

u64 precopy_setting(const char *name, u64 otherwise)
{
	const char *value = getenv(name);

	return value && *value ? strtoull(value, NULL, 0) : otherwise;
}

u64 precopy_rounds(u64 nr)
{
	u64 by = precopy_setting("PRECOPY_SHORTER", 1);

	return by > 1 ? (nr + by - 1) / by : nr;
}

u64 precopy_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000ULL + now.tv_nsec / 1000000;
}
