// SPDX-License-Identifier: GPL-2.0-only
/*
 * The simulated IOMMU as VFIO and iommufd use it: translation, permissions, dirty
 * tracking, and what holds when unmapping has returned. The module iommu-sim-test
 * does the DMA; the function needs a driver of VFIO, of any kind.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <linux/iommufd.h>
#include <linux/limits.h>
#include <linux/sizes.h>
#include <linux/vfio.h>

#include <libvfio.h>

#include <libvfio/mig_harness.h>

#define TEST_DIR	"/sys/kernel/debug/iommu-sim-test/"
#define IOVA		0x7fff00000000UL
#define PAGES		1024UL
#define SIZE		(PAGES * SZ_4K)
/* Long, as compared with what the kernel does from an unmapping to its return */
#define DELAY_US	"3000"
#define ROUNDS		50

/* Mappings that need a table each, and how many bytes of tables may be charged */
#define TABLES		4096UL
#define SPARSE		0x100000000000UL
#define LIMIT		(SZ_4M)
/* Charges are made in advance by each processor */
#define SLACK		(SZ_1M)
#define SETTLE_US	(10 * 1000 * 1000)
#define CGROUP_ROOT	"/sys/fs/cgroup"

static const char *bdf;

/* 0, or a negative error */
static int dma(char op, u64 iova, u64 len, int byte)
{
	char cmd[96];
	int fd, n, ret;

	fd = open(TEST_DIR "dma", O_WRONLY);
	VFIO_ASSERT_LE(0, fd);
	n = snprintf(cmd, sizeof(cmd), "%s %c %lx %lx %x", bdf, op, iova, len, byte);
	ret = write(fd, cmd, n) == n ? 0 : -errno;
	close(fd);
	return ret;
}

static void set_delay(const char *us)
{
	int fd = open(TEST_DIR "delay_us", O_WRONLY);

	VFIO_ASSERT_LE(0, fd);
	VFIO_ASSERT_EQ(write(fd, us, strlen(us)), (ssize_t)strlen(us));
	close(fd);
}

/* ---- a device, and memory ------------------------------------------------------ */

struct sim {
	struct iommu *iommu;
	struct vfio_pci_device *dev;	/* NULL if opened with a HWPT */
	int fd;
	u32 hwpt;
	struct dma_region region;
	unsigned char *mem;
};

static int open_cdev(void)
{
	char path[PATH_MAX];
	struct dirent *e;
	int fd = -1;
	DIR *dir;

	snprintf(path, sizeof(path), "/sys/bus/pci/devices/%s/vfio-dev", bdf);
	dir = opendir(path);
	VFIO_ASSERT_NOT_NULL(dir, "%s has no driver of VFIO", bdf);
	while (fd < 0 && (e = readdir(dir))) {
		if (strncmp(e->d_name, "vfio", 4))
			continue;
		snprintf(path, sizeof(path), "/dev/vfio/devices/%s", e->d_name);
		fd = open(path, O_RDWR);
	}
	closedir(dir);
	VFIO_ASSERT_LE(0, fd);
	return fd;
}

/* As QEMU does it, with a hardware page table of its own that tracks dirty pages */
static void open_hwpt(struct sim *s)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };
	struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof(attach) };
	struct iommu_hwpt_alloc alloc = { .size = sizeof(alloc) };

	s->iommu = iommu_init(MODE_IOMMUFD);
	s->fd = open_cdev();
	bind.iommufd = s->iommu->iommufd;
	VFIO_ASSERT_EQ(ioctl(s->fd, VFIO_DEVICE_BIND_IOMMUFD, &bind), 0);
	alloc.dev_id = bind.out_devid;
	alloc.pt_id = s->iommu->ioas_id;
	alloc.flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
	VFIO_ASSERT_EQ(ioctl(s->iommu->iommufd, IOMMU_HWPT_ALLOC, &alloc), 0);
	s->hwpt = alloc.out_hwpt_id;
	attach.pt_id = s->hwpt;
	VFIO_ASSERT_EQ(ioctl(s->fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach), 0);
}

static void sim_open(struct sim *s, const char *mode)
{
	memset(s, 0, sizeof(*s));
	if (strcmp(mode, "hwpt")) {
		s->iommu = iommu_init(mode);
		s->dev = vfio_pci_device_init(bdf, s->iommu);
	} else {
		open_hwpt(s);
	}
	s->mem = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	VFIO_ASSERT_NE(s->mem, MAP_FAILED);
	s->region = (struct dma_region) { .vaddr = s->mem, .iova = IOVA, .size = SIZE };
	iommu_map(s->iommu, &s->region);
}

static void sim_close_device(struct sim *s)
{
	if (s->dev)
		vfio_pci_device_cleanup(s->dev);
	else if (s->fd)
		close(s->fd);
	s->dev = NULL;
	s->fd = 0;
}

static void sim_close(struct sim *s)
{
	set_delay("0");
	sim_close_device(s);
	if (s->iommu)
		iommu_cleanup(s->iommu);
	munmap(s->mem, SIZE);
}

static int map_read_only(struct sim *s, u64 iova, void *vaddr)
{
	struct iommu_ioas_map map = {
		.size = sizeof(map),
		.flags = IOMMU_IOAS_MAP_FIXED_IOVA | IOMMU_IOAS_MAP_READABLE,
		.ioas_id = s->iommu->ioas_id,
		.user_va = (u64)vaddr,
		.length = SZ_4K,
		.iova = iova,
	};
	struct vfio_iommu_type1_dma_map type1 = {
		.argsz = sizeof(type1),
		.flags = VFIO_DMA_MAP_FLAG_READ,
		.vaddr = (u64)vaddr,
		.iova = iova,
		.size = SZ_4K,
	};

	if (s->iommu->iommufd > 0 && s->iommu->ioas_id)
		return ioctl(s->iommu->iommufd, IOMMU_IOAS_MAP, &map);
	return ioctl(s->iommu->container_fd, VFIO_IOMMU_MAP_DMA, &type1);
}

static u64 count(const unsigned char *mem, u64 from, u64 to, int byte)
{
	u64 n = 0;

	for (; from < to; from++)
		n += mem[from] == byte;
	return n;
}

/* ---- DMA ------------------------------------------------------------------------- */

FIXTURE(sim) {
	struct sim s;
};

FIXTURE_VARIANT(sim) {
	const char *mode;
};

FIXTURE_VARIANT_ADD(sim, type1) { .mode = MODE_VFIO_TYPE1V2_IOMMU };
FIXTURE_VARIANT_ADD(sim, ioas) { .mode = MODE_IOMMUFD };
FIXTURE_VARIANT_ADD(sim, hwpt) { .mode = "hwpt" };

FIXTURE_SETUP(sim)
{
	if (strcmp(variant->mode, MODE_VFIO_TYPE1V2_IOMMU) && access("/dev/iommu", R_OK | W_OK))
		SKIP(return, "no /dev/iommu");
	sim_open(&self->s, variant->mode);
}

FIXTURE_TEARDOWN(sim)
{
	sim_close(&self->s);
}

TEST_F_TIMEOUT(sim, dma_moves_exactly_these_bytes, MIG_TIMEOUT)
{
	struct sim *s = &self->s;
	u64 from = 3 * SZ_4K - 100, to = 6 * SZ_4K + 77;

	memset(s->mem, 0x11, SIZE);
	ASSERT_EQ(0, dma('w', IOVA + from, to - from, 0xab));
	EXPECT_EQ(to - from, count(s->mem, from, to, 0xab));
	EXPECT_EQ(SIZE - (to - from), count(s->mem, 0, SIZE, 0x11));
	EXPECT_EQ(0, dma('r', IOVA + from, to - from, 0xab));
	EXPECT_EQ(0, dma('r', IOVA + from - 50, 50, 0x11));
	EXPECT_EQ(-EILSEQ, dma('r', IOVA + from - 1, 2, 0xab));
}

TEST_F_TIMEOUT(sim, what_is_not_mapped_faults, MIG_TIMEOUT)
{
	struct sim *s = &self->s;

	EXPECT_EQ(-EFAULT, dma('w', IOVA - 1, 1, 1));
	EXPECT_EQ(-EFAULT, dma('r', IOVA + SIZE, 1, 0));
	EXPECT_EQ(-EFAULT, dma('w', -1UL, 1, 1));
	EXPECT_EQ(-EFAULT, dma('w', 1UL << 48, 1, 1));
	/* Up to the fault it is done */
	EXPECT_EQ(-EFAULT, dma('w', IOVA + SIZE - 8, 16, 0x5a));
	EXPECT_EQ(8, count(s->mem, SIZE - 8, SIZE, 0x5a));
	iommu_unmap(s->iommu, &s->region);
	EXPECT_EQ(-EFAULT, dma('w', IOVA, 1, 1));
	iommu_map(s->iommu, &s->region);
	EXPECT_EQ(0, dma('w', IOVA, 1, 1));
	sim_close_device(s);
	EXPECT_EQ(-EFAULT, dma('w', IOVA, 1, 1));
}

TEST_F_TIMEOUT(sim, read_only_mapping_refuses_writes, MIG_TIMEOUT)
{
	struct sim *s = &self->s;
	unsigned char *mem = mmap(NULL, 2 * SZ_4K, PROT_READ | PROT_WRITE,
				  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	u64 iova = IOVA + 2 * SIZE;

	ASSERT_NE(MAP_FAILED, mem);
	memset(mem, 0x22, SZ_4K);
	ASSERT_EQ(0, map_read_only(s, iova, mem));
	EXPECT_EQ(0, dma('r', iova, SZ_4K, 0x22));
	EXPECT_EQ(-EFAULT, dma('w', iova, 1, 1));
	EXPECT_EQ(SZ_4K, count(mem, 0, SZ_4K, 0x22));
	/* Memory that was never touched is the kernel's page of zeroes */
	ASSERT_EQ(0, map_read_only(s, iova + SZ_4K, mem + SZ_4K));
	EXPECT_EQ(0, dma('r', iova + SZ_4K, SZ_4K, 0));
	EXPECT_EQ(-EFAULT, dma('w', iova + SZ_4K, 1, 1));
}

/* ---- against unmapping --------------------------------------------------------------- */

static atomic_bool storm_ends;
static atomic_ulong storm_stores;

static void *storm(void *arg)
{
	int ret;

	(void)arg;
	while (!storm_ends) {
		ret = dma('w', IOVA, SZ_4K, 0x5a);
		VFIO_ASSERT_TRUE(!ret || ret == -EFAULT);
		if (!ret)
			storm_stores++;
	}
	return NULL;
}

/* DMA waits between translation and access, so that unmapping comes in between */
TEST_F_TIMEOUT(sim, no_store_after_unmap_returns, MIG_TIMEOUT)
{
	struct sim *s = &self->s;
	unsigned long seen, stray = 0;
	pthread_t thread;

	storm_ends = false;
	storm_stores = 0;
	set_delay(DELAY_US);
	ASSERT_EQ(0, pthread_create(&thread, NULL, storm, NULL));
	for (int i = 0; i < ROUNDS; i++) {
		seen = storm_stores;
		while (storm_stores == seen)
			usleep(100);
		iommu_unmap(s->iommu, &s->region);
		memset(s->mem, 0, SZ_4K);
		/* As long as two accesses */
		usleep(2 * atoi(DELAY_US));
		stray += SZ_4K - count(s->mem, 0, SZ_4K, 0);
		iommu_map(s->iommu, &s->region);
	}
	storm_ends = true;
	pthread_join(thread, NULL);
	EXPECT_EQ(0, stray);
}

/* ---- memory of the page tables ----------------------------------------------------- */

static int cg_write(const char *dir, const char *file, const char *value)
{
	char path[PATH_MAX];
	int fd, ret;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return -errno;
	ret = write(fd, value, strlen(value)) < 0 ? -errno : 0;
	close(fd);
	return ret;
}

static u64 cg_number(const char *dir, const char *file, const char *name)
{
	char path[PATH_MAX], word[64];
	u64 number, found = 0;
	FILE *f;

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	f = fopen(path, "r");
	VFIO_ASSERT_NOT_NULL(f);
	while (fscanf(f, "%63s %lu", word, &number) == 2)
		if (!strcmp(word, name))
			found = number;
	fclose(f);
	return found;
}

/* In the cgroup: one page after the other, each of which needs a table of its own */
static void map_until_refused(struct sim *s, const char *cgroup, u64 *done)
{
	char limit[32];

	snprintf(limit, sizeof(limit), "%u", LIMIT + SLACK);
	if (cg_write(cgroup, "cgroup.procs", "0") || cg_write(cgroup, "memory.max", limit))
		_exit(1);
	while (*done < TABLES && !map_read_only(s, SPARSE + *done * SZ_2M, s->mem))
		++*done;
	_exit(0);
}

/*
 * The tables are charged to who maps, up to the limit of its memory cgroup, and
 * are given back with the domain. The kernel may kill the process at the limit.
 */
TEST_F_TIMEOUT(sim, tables_are_charged_to_who_maps, MIG_TIMEOUT)
{
	char cgroup[] = CGROUP_ROOT "/iommu-sim-test";
	unsigned int waited = 0;
	int status;
	u64 *done;
	pid_t pid;

	if (cg_write(CGROUP_ROOT, "cgroup.subtree_control", "+memory"))
		SKIP(return, "no memory cgroups");
	done = mmap(NULL, SZ_4K, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, done);
	ASSERT_EQ(0, mkdir(cgroup, 0755));
	pid = fork();
	if (!pid)
		map_until_refused(&self->s, cgroup, done);
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_TRUE(WIFSIGNALED(status) || !WEXITSTATUS(status));
	TH_LOG("%lu of %lu pages were mapped", *done, TABLES);
	EXPECT_LT(SLACK / SZ_4K, *done);
	EXPECT_GE((LIMIT + SLACK) / SZ_4K, *done);
	EXPECT_LT(0, cg_number(cgroup, "memory.events", "max"));
	EXPECT_LE(*done * SZ_4K, cg_number(cgroup, "memory.stat", "kernel") + SLACK);
	/* What others have mapped is not concerned */
	EXPECT_EQ(0, dma('w', IOVA, SZ_4K, 0x11));

	sim_close_device(&self->s);
	iommu_cleanup(self->s.iommu);
	self->s.iommu = NULL;
	while (cg_number(cgroup, "memory.stat", "kernel") > SLACK && waited < SETTLE_US)
		waited += usleep(1000) ?: 1000;
	EXPECT_GE(SLACK, cg_number(cgroup, "memory.stat", "kernel"));
	EXPECT_EQ(0, rmdir(cgroup));
}

/* ---- dirty tracking ----------------------------------------------------------------------- */

FIXTURE(dirty) {
	struct sim s;
	u64 bits[PAGES / 64];
};

FIXTURE_SETUP(dirty)
{
	if (access("/dev/iommu", R_OK | W_OK))
		SKIP(return, "no /dev/iommu");
	sim_open(&self->s, "hwpt");
}

FIXTURE_TEARDOWN(dirty)
{
	sim_close(&self->s);
}

static int set_tracking(struct sim *s, bool on)
{
	struct iommu_hwpt_set_dirty_tracking set = {
		.size = sizeof(set),
		.flags = on ? IOMMU_HWPT_DIRTY_TRACKING_ENABLE : 0,
		.hwpt_id = s->hwpt,
	};

	return ioctl(s->iommu->iommufd, IOMMU_HWPT_SET_DIRTY_TRACKING, &set);
}

/* The number of dirty pages, or a negative number */
static int get_dirty(struct sim *s, u64 *bits, u32 flags)
{
	struct iommu_hwpt_get_dirty_bitmap get = {
		.size = sizeof(get),
		.hwpt_id = s->hwpt,
		.flags = flags,
		.iova = IOVA,
		.length = SIZE,
		.page_size = SZ_4K,
		.data = (u64)bits,
	};
	int n = 0;

	memset(bits, 0, PAGES / 8);
	if (ioctl(s->iommu->iommufd, IOMMU_HWPT_GET_DIRTY_BITMAP, &get))
		return -1;
	for (u64 i = 0; i < PAGES / 64; i++)
		n += __builtin_popcountl(bits[i]);
	return n;
}

TEST_F_TIMEOUT(dirty, report_is_exact, MIG_TIMEOUT)
{
	u64 want[PAGES / 64] = {}, off, len;
	struct sim *s = &self->s;
	int n = 0;

	ASSERT_EQ(0, dma('w', IOVA + 5 * SZ_4K, 1, 1));
	ASSERT_EQ(0, set_tracking(s, true));
	EXPECT_EQ(0, get_dirty(s, self->bits, 0));
	srandom(1);
	for (int i = 0; i < 100; i++) {
		off = random() % (SIZE - 6000);
		len = 1 + random() % 6000;
		ASSERT_EQ(0, dma('w', IOVA + off, len, 1 + i));
		for (u64 p = off / SZ_4K; p <= (off + len - 1) / SZ_4K; p++) {
			n += !(want[p / 64] >> p % 64 & 1);
			want[p / 64] |= 1UL << p % 64;
		}
	}
	EXPECT_EQ(-EILSEQ, dma('r', IOVA, SIZE / 4, 0xee));
	EXPECT_EQ(n, get_dirty(s, self->bits, IOMMU_HWPT_GET_DIRTY_BITMAP_NO_CLEAR));
	EXPECT_EQ(0, memcmp(want, self->bits, sizeof(want)));
	EXPECT_EQ(n, get_dirty(s, self->bits, 0));
	EXPECT_EQ(0, memcmp(want, self->bits, sizeof(want)));
	EXPECT_EQ(0, get_dirty(s, self->bits, 0));
}

TEST_F_TIMEOUT(dirty, is_only_read_while_tracking, MIG_TIMEOUT)
{
	struct sim *s = &self->s;

	ASSERT_EQ(0, dma('w', IOVA, 1, 1));
	EXPECT_GE(0, get_dirty(s, self->bits, 0));
	ASSERT_EQ(0, set_tracking(s, true));
	ASSERT_EQ(0, dma('w', IOVA + SZ_4K, 1, 1));
	EXPECT_EQ(1, get_dirty(s, self->bits, 0));
	EXPECT_EQ(2, self->bits[0]);
	EXPECT_EQ(0, set_tracking(s, false));
}

static void *one_store(void *arg)
{
	VFIO_ASSERT_EQ(dma('w', IOVA, SZ_4K, *(int *)arg), 0);
	return NULL;
}

/* The store that made the page dirty has landed when the report returns */
TEST_F_TIMEOUT(dirty, reported_store_has_landed, MIG_TIMEOUT)
{
	volatile unsigned char *mem = self->s.mem;
	struct sim *s = &self->s;
	pthread_t thread;
	int late = 0;

	ASSERT_EQ(0, set_tracking(s, true));
	set_delay(DELAY_US);
	for (int i = 1; i <= ROUNDS; i++) {
		ASSERT_EQ(0, pthread_create(&thread, NULL, one_store, &i));
		while (!get_dirty(s, self->bits, 0))
			;
		late += mem[SZ_4K - 1] != i;
		pthread_join(thread, NULL);
	}
	EXPECT_EQ(0, late);
}

int main(int argc, char *argv[])
{
	if (access(TEST_DIR "dma", W_OK)) {
		ksft_print_header();
		ksft_exit_skip("no simulated IOMMU: the module iommu-sim-test is not loaded\n");
	}
	bdf = vfio_selftests_get_bdf(&argc, argv);
	return test_harness_run(argc, argv);
}
