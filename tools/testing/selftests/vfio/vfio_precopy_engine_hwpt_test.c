// SPDX-License-Identifier: GPL-2.0-only
/*
 * The model "engine" when the VMM attaches a page table (HWPT) of iommufd, as QEMU
 * does, instead of an I/O address space (IOAS): where its DMA goes, and where it does
 * not. And whoever else may know of pages that the engine has written: the dirty bits
 * of the page table, and type1. The test keeps a list of these pages itself, made from
 * the commands.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/iommufd.h>
#include <linux/limits.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/mig_device.h>
#include <libvfio/precopy_engine.h>

#include <libvfio/mig_harness.h>

#define MEMORY		SZ_4M
#define RAM		SZ_4M
/* Commands read the lower half and write the upper one. */
#define TO		((u64)SZ_2M)
#define PAGES		(RAM / PRECOPY_PAGE)
#define OTHER_BYTE	0x77
/* The kernel message for a page table whose address space is unknown */
#define NO_DMA	"no DMA: not attached to the only I/O address space of this iommufd"

static char **bdfs;
static int nr_bdfs;

/* Is the device behind the simulated IOMMU, through whose tables its DMA goes? */
static bool is_simulated(const char *bdf)
{
	char path[PATH_MAX], link[PATH_MAX];
	ssize_t len;

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/iommu", bdf);
	len = readlink(path, link, sizeof(link) - 1);
	if (len < 0)
		return false;
	link[len] = 0;
	return strstr(link, "iommu-sim");
}

/* ------------------------------------------------------------------------ */
/* iommufd                                                                  */

static int hwpt_alloc(int iommufd, u32 dev_id, u32 ioas_id, u32 flags, u32 *id)
{
	struct iommu_hwpt_alloc alloc = {
		.size = sizeof(alloc), .flags = flags,
		.dev_id = dev_id, .pt_id = ioas_id,
	};

	if (ioctl(iommufd, IOMMU_HWPT_ALLOC, &alloc))
		return -errno;
	*id = alloc.out_hwpt_id;
	return 0;
}

static u32 ioas_alloc(int iommufd)
{
	struct iommu_ioas_alloc alloc = { .size = sizeof(alloc) };

	ioctl_assert(iommufd, IOMMU_IOAS_ALLOC, &alloc);
	return alloc.out_ioas_id;
}

static int destroy(int iommufd, u32 id)
{
	struct iommu_destroy args = { .size = sizeof(args), .id = id };

	return ioctl(iommufd, IOMMU_DESTROY, &args) ? -errno : 0;
}

static int map(int iommufd, u32 ioas_id, u64 iova, void *vaddr, u64 len, u32 flags)
{
	struct iommu_ioas_map args = {
		.size = sizeof(args), .flags = flags | IOMMU_IOAS_MAP_FIXED_IOVA,
		.ioas_id = ioas_id, .user_va = (uintptr_t)vaddr,
		.length = len, .iova = iova,
	};

	return ioctl(iommufd, IOMMU_IOAS_MAP, &args) ? -errno : 0;
}

static int unmap(int iommufd, u32 ioas_id, u64 iova, u64 len)
{
	struct iommu_ioas_unmap args = {
		.size = sizeof(args), .ioas_id = ioas_id,
		.iova = iova, .length = len,
	};

	return ioctl(iommufd, IOMMU_IOAS_UNMAP, &args) ? -errno : 0;
}

static int attach(int fd, u32 pt_id)
{
	struct vfio_device_attach_iommufd_pt args = {
		.argsz = sizeof(args), .pt_id = pt_id,
	};

	return ioctl(fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &args) ? -errno : 0;
}

static int detach(int fd)
{
	struct vfio_device_detach_iommufd_pt args = { .argsz = sizeof(args) };

	return ioctl(fd, VFIO_DEVICE_DETACH_IOMMUFD_PT, &args) ? -errno : 0;
}

/* ------------------------------------------------------------------------ */
/* A device with a page table                                               */

FIXTURE(hwpt) {
	struct engine e;
	bool simulated;
	int fd;		/* of the iommufd */
	u32 dev_id;
	u32 ioas;	/* with the memory */
	u32 hwpt;	/* of that, attached */
	u8 *want;	/* what the memory must hold */
	u8 *other;	/* as much memory, mapped nowhere yet */
	u8 *others;	/* what that must hold */
	int kmsg;
};

FIXTURE_VARIANT(hwpt) {
	u32 flags;
};

FIXTURE_VARIANT_ADD(hwpt, plain) { .flags = 0 };
FIXTURE_VARIANT_ADD(hwpt, dirty) { .flags = IOMMU_HWPT_ALLOC_DIRTY_TRACKING };

FIXTURE_SETUP(hwpt)
{
	const char *missing = mig_mode_missing(bdfs[0], MODE_IOMMUFD);
	u64 page;
	int ret;

	if (missing)
		SKIP(return, "%s", missing);
	self->simulated = is_simulated(bdfs[0]);
	self->dev_id = engine_open_bound(&self->e, bdfs[0], MEMORY, RAM);
	self->fd = self->e.pd.iommu->iommufd;
	self->ioas = self->e.pd.iommu->ioas_id;
	ret = hwpt_alloc(self->fd, self->dev_id, self->ioas, variant->flags,
			 &self->hwpt);
	if (ret == -EOPNOTSUPP && variant->flags) {
		engine_close(&self->e);
		SKIP(return, "the IOMMU has no dirty tracking");
	}
	ASSERT_EQ(0, ret);
	ASSERT_EQ(0, attach(self->e.pd.fd, self->hwpt));

	self->want = malloc_assert(RAM);
	for (page = 0; page < PAGES; page++)
		precopy_pattern(self->want + page * PRECOPY_PAGE, page, 1);
	memcpy(self->e.ram, self->want, RAM);
	self->other = mmap(NULL, RAM, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, self->other);
	memset(self->other, OTHER_BYTE, RAM);
	self->others = malloc_assert(RAM);
	memset(self->others, OTHER_BYTE, RAM);
	self->kmsg = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);
	ASSERT_LE(0, self->kmsg);
	ASSERT_NE(-1, lseek(self->kmsg, 0, SEEK_END));
}

FIXTURE_TEARDOWN(hwpt)
{
	if (!self->want)
		return;
	EXPECT_EQ(0, memcmp(self->want, self->e.ram, RAM));
	EXPECT_EQ(0, memcmp(self->others, self->other, RAM));
	engine_close(&self->e);
	munmap(self->other, RAM);
	free(self->want);
	free(self->others);
	close(self->kmsg);
}

typedef FIXTURE_DATA(hwpt) hwpt_t;

/* Does a message of the kernel since the test began, or the last call, have both? */
static bool kernel_said(hwpt_t *self, const char *who, const char *what)
{
	bool found = false;
	char text[8192];
	ssize_t len;

	while ((len = read(self->kmsg, text, sizeof(text) - 1)) > 0 ||
	       (len < 0 && errno == EPIPE)) {
		if (len < 0)
			continue;
		text[len] = 0;
		found |= strstr(text, who) && strstr(text, what);
	}
	return found;
}

/* One page, from the start of the memory to page @nr of the upper half */
static int copy_page(hwpt_t *self, u64 nr)
{
	return engine_copy(&self->e, ENGINE_IOVA,
			   ENGINE_IOVA + TO + nr * PRECOPY_PAGE, PRECOPY_PAGE);
}

static void expect_page(hwpt_t *self, u64 nr)
{
	memcpy(self->want + TO + nr * PRECOPY_PAGE, self->want, PRECOPY_PAGE);
}

/* Until the engine is stopped, which a test does; nothing there is compared. */
static void stamp_for_ever(hwpt_t *self)
{
	engine_start(&self->e, &(struct engine_command) {
		.op = PRECOPY_ENGINE_OP_STAMP, .dst = ENGINE_IOVA + TO,
		.len = RAM - TO,
	});
}

/* The engine stores something, from now on; false if its command has ended */
static bool goes_on(struct engine *e)
{
	u64 done = engine_read64(e, PRECOPY_ENGINE_BYTES);

	while (engine_read64(e, PRECOPY_ENGINE_BYTES) == done) {
		if (!engine_read32(e, PRECOPY_ENGINE_CMD_START)) {
			fprintf(stderr, "# the command has ended with error %u\n",
				engine_read32(e, PRECOPY_ENGINE_CMD_ERROR));
			return false;
		}
		usleep(100);
	}
	return true;
}

/* A memory as it was before stamp_for_ever(), and nothing stores to them */
static void no_stamps(struct __test_metadata *_metadata, u8 *ram, const u8 *want)
{
	memcpy(ram + TO, want + TO, RAM - TO);
	usleep(20 * 1000);
	ASSERT_EQ(0, memcmp(want, ram, RAM));
}

TEST_F_TIMEOUT(hwpt, dma_respects_mappings, MIG_TIMEOUT)
{
	struct engine *e = &self->e;
	u64 page = PRECOPY_PAGE;

	ASSERT_EQ(0, copy_page(self, 0));
	expect_page(self, 0);
	EXPECT_EQ(0, memcmp(self->want, e->ram, RAM));

	/* Not mapped any more, in the middle of what was one mapping for the engine */
	ASSERT_EQ(0, map(self->fd, self->ioas, ENGINE_NOWHERE, self->other,
			 2 * page, IOMMU_IOAS_MAP_READABLE |
				   IOMMU_IOAS_MAP_WRITEABLE));
	ASSERT_EQ(0, engine_copy(e, ENGINE_IOVA, ENGINE_NOWHERE, 2 * page));
	memcpy(self->others, self->want, 2 * page);
	ASSERT_EQ(0, unmap(self->fd, self->ioas, ENGINE_NOWHERE, 2 * page));
	EXPECT_GT(0, engine_copy(e, ENGINE_IOVA + page, ENGINE_NOWHERE, page));
	EXPECT_GT(0, engine_copy(e, ENGINE_NOWHERE, ENGINE_IOVA, page));
	EXPECT_EQ(0, memcmp(self->others, self->other, RAM));

	/* For reading only */
	ASSERT_EQ(0, map(self->fd, self->ioas, ENGINE_NOWHERE,
			 self->other + 4 * page, page, IOMMU_IOAS_MAP_READABLE));
	ASSERT_EQ(0, engine_copy(e, ENGINE_NOWHERE, ENGINE_IOVA + TO, page));
	memset(self->want + TO, OTHER_BYTE, page);
	EXPECT_GT(0, engine_copy(e, ENGINE_IOVA, ENGINE_NOWHERE, page));
	EXPECT_FALSE(kernel_said(self, bdfs[0], NO_DMA));
}

/*
 * Of a page table the driver is not told whose it is. If there are two address spaces,
 * any choice could be wrong, so it makes none.
 */
TEST_F_TIMEOUT(hwpt, two_address_spaces, MIG_TIMEOUT)
{
	u32 second = ioas_alloc(self->fd);

	ASSERT_EQ(0, map(self->fd, second, ENGINE_IOVA, self->other, RAM,
			 IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE));
	/* It was known when it was attached, so DMA goes on. */
	ASSERT_EQ(0, copy_page(self, 0));
	expect_page(self, 0);

	/* Again: now it is not known. */
	ASSERT_EQ(0, attach(self->e.pd.fd, self->hwpt));
	if (self->simulated) {
		ASSERT_EQ(0, copy_page(self, 1));
		expect_page(self, 1);
		return;
	}
	EXPECT_EQ(-ENXIO, copy_page(self, 1));
	EXPECT_TRUE(kernel_said(self, bdfs[0], NO_DMA));

	/* An address space itself can be attached whatever else there is. */
	ASSERT_EQ(0, attach(self->e.pd.fd, self->ioas));
	ASSERT_EQ(0, copy_page(self, 2));
	expect_page(self, 2);
	ASSERT_EQ(0, attach(self->e.pd.fd, second));
	ASSERT_EQ(0, engine_run(&self->e, &(struct engine_command) {
		.op = PRECOPY_ENGINE_OP_FENCE, .dst = ENGINE_IOVA, .seq = 5,
	}));
	*(u64 *)self->others = 5;

	/* And the page table, as soon as there is one address space again. */
	ASSERT_EQ(0, detach(self->e.pd.fd));
	ASSERT_EQ(0, destroy(self->fd, second));
	ASSERT_EQ(0, attach(self->e.pd.fd, self->hwpt));
	ASSERT_EQ(0, copy_page(self, 3));
	expect_page(self, 3);
}

/* A second page table of the same address space, while the engine is at work */
TEST_F_TIMEOUT(hwpt, replaced_by_another_table, MIG_TIMEOUT)
{
	u64 i, nr = precopy_rounds(40);
	struct engine *e = &self->e;
	u32 second = 0;

	ASSERT_EQ(0, hwpt_alloc(self->fd, self->dev_id, self->ioas,
				variant->flags, &second));
	stamp_for_ever(self);
	for (i = 0; i < nr; i++) {
		ASSERT_EQ(0, attach(e->pd.fd, i % 2 ? self->hwpt : second));
		/* The table was never away. */
		ASSERT_TRUE(goes_on(e)) TH_LOG("round %lu", i);
	}
	/* The one that is not in use can go. */
	EXPECT_EQ(0, destroy(self->fd, i % 2 ? self->hwpt : second));
	EXPECT_EQ(-EBUSY, destroy(self->fd, i % 2 ? second : self->hwpt));
	engine_write32(e, PRECOPY_ENGINE_CMD_START, 0);
	EXPECT_EQ(-ECANCELED, engine_wait(e));
	no_stamps(_metadata, e->ram, self->want);
}

/* From one address space to another and back: the old one is not written any more. */
TEST_F_TIMEOUT(hwpt, replaced_by_another_address_space, MIG_TIMEOUT)
{
	u64 i, nr = precopy_rounds(20);
	struct engine *e = &self->e;
	u32 second = ioas_alloc(self->fd);

	ASSERT_EQ(0, map(self->fd, second, ENGINE_IOVA, self->other, RAM,
			 IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE));
	stamp_for_ever(self);
	for (i = 0; i < nr; i++) {
		ASSERT_EQ(0, attach(e->pd.fd, i % 2 ? self->ioas : second));
		if (i % 2)
			no_stamps(_metadata, self->other, self->others);
		else
			no_stamps(_metadata, e->ram, self->want);
		ASSERT_TRUE(goes_on(e)) TH_LOG("round %lu", i);
	}
	engine_write32(e, PRECOPY_ENGINE_CMD_START, 0);
	EXPECT_EQ(-ECANCELED, engine_wait(e));
	no_stamps(_metadata, e->ram, self->want);
	no_stamps(_metadata, self->other, self->others);
}

TEST_F_TIMEOUT(hwpt, detach_ends_dma, MIG_TIMEOUT)
{
	struct engine *e = &self->e;
	int i;

	for (i = 0; i < 5; i++) {
		stamp_for_ever(self);
		ASSERT_TRUE(goes_on(e));
		ASSERT_EQ(0, detach(e->pd.fd));
		no_stamps(_metadata, e->ram, self->want);
		/* The command has failed, and so does the next one. */
		EXPECT_GT(0, engine_wait(e));
		EXPECT_GT(0, copy_page(self, 0));
		ASSERT_EQ(0, attach(e->pd.fd, self->hwpt));
		ASSERT_EQ(0, copy_page(self, i));
		expect_page(self, i);
	}
}

/*
 * A page table and its address space cannot be destroyed while the device is attached to
 * them. After a detach they can: the driver keeps no reference.
 */
TEST_F_TIMEOUT(hwpt, destroyed_and_allocated_while_attached, MIG_TIMEOUT)
{
	struct engine *e = &self->e;
	u32 more[3];
	size_t i;

	EXPECT_EQ(-EBUSY, destroy(self->fd, self->hwpt));
	EXPECT_EQ(-EBUSY, destroy(self->fd, self->ioas));
	ASSERT_EQ(0, copy_page(self, 0));
	expect_page(self, 0);

	/* Others come and go, without an effect on what is attached. */
	for (i = 0; i < ARRAY_SIZE(more); i++) {
		more[i] = ioas_alloc(self->fd);
		ASSERT_EQ(0, copy_page(self, 1 + i));
		expect_page(self, 1 + i);
	}
	for (i = 0; i < ARRAY_SIZE(more); i++)
		EXPECT_EQ(0, destroy(self->fd, more[i]));
	ASSERT_EQ(0, attach(e->pd.fd, self->hwpt));
	ASSERT_EQ(0, copy_page(self, 5));
	expect_page(self, 5);
	EXPECT_FALSE(kernel_said(self, bdfs[0], NO_DMA));

	/* No reference is left behind by the search. */
	ASSERT_EQ(0, detach(e->pd.fd));
	EXPECT_EQ(0, destroy(self->fd, self->hwpt));
	EXPECT_EQ(0, destroy(self->fd, self->ioas));
	/* A new one is found as the first one was. */
	self->ioas = ioas_alloc(self->fd);
	ASSERT_EQ(0, hwpt_alloc(self->fd, self->dev_id, self->ioas,
				variant->flags, &self->hwpt));
	ASSERT_EQ(0, map(self->fd, self->ioas, ENGINE_IOVA, e->ram, RAM,
			 IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE));
	ASSERT_EQ(0, attach(e->pd.fd, self->hwpt));
	ASSERT_EQ(0, copy_page(self, 6));
	expect_page(self, 6);
}

/* ------------------------------------------------------------------------ */
/* Failures                                                                 */

#define FAILSLAB	"/sys/kernel/debug/failslab/"
/* An xarray tries again when an allocation has failed, so one failure is none. */
#define IN_A_ROW	"2"
/* Less than any allocation, and more than an attachment allocates; bytes */
#define SPACE		32
#define MAX_SPACE	SZ_64K

static bool set_failslab(const char *file, const char *value)
{
	char path[PATH_MAX];

	snprintf_assert(path, sizeof(path), FAILSLAB "%s", file);
	return !precopy_file_write(path, value);
}

/* Allocations of this thread fail, quietly, while it asks for that. */
static bool prepare_faults(void)
{
	return set_failslab("times", "0") && set_failslab("ignore-gfp-wait", "N") &&
	       set_failslab("verbose", "0") && set_failslab("task-filter", "Y") &&
	       set_failslab("interval", "1") && set_failslab("probability", "100");
}

static void end_faults(void)
{
	set_failslab("probability", "0");
	set_failslab("task-filter", "N");
	set_failslab("times", "1");
}

/* Has an allocation failed since "times" was IN_A_ROW? */
static bool has_failed(void)
{
	int fd = open(FAILSLAB "times", O_RDONLY);
	char text[16] = {};

	VFIO_ASSERT_LE(0, fd);
	VFIO_ASSERT_LT(0, read(fd, text, sizeof(text) - 1));
	close(fd);
	return strcmp(text, IN_A_ROW "\n");
}

/* After @space bytes of allocations some in a row fail. @failed: was there one? */
static int attach_and_fail(int fd, u32 pt_id, unsigned int space, bool *failed)
{
	int ctl = open("/proc/thread-self/make-it-fail", O_WRONLY), ret;
	char text[16];

	VFIO_ASSERT_LE(0, ctl);
	snprintf_assert(text, sizeof(text), "%u", space);
	VFIO_ASSERT_TRUE(set_failslab("space", text));
	VFIO_ASSERT_TRUE(set_failslab("times", IN_A_ROW));
	VFIO_ASSERT_EQ(pwrite(ctl, "1", 1, 0), 1);
	ret = attach(fd, pt_id);
	VFIO_ASSERT_EQ(pwrite(ctl, "0", 1, 0), 1);
	*failed = has_failed();
	close(ctl);
	return ret;
}

/*
 * Each allocation of an attachment fails. An address space that cannot be tried for
 * want of memory is there all the same, so that the other one is not the only one.
 */
TEST_F_TIMEOUT(hwpt, no_choice_for_want_of_memory, MIG_TIMEOUT)
{
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof(bind) };
	u32 second = ioas_alloc(self->fd);
	struct vfio_pci_device *user;
	unsigned int space, tried = 0;
	bool failed = true;
	int ret;

	if (self->simulated)
		SKIP(return, "there is no choice behind the simulated IOMMU");
	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	if (!prepare_faults())
		SKIP(return, "no failslab");
	ASSERT_EQ(0, map(self->fd, second, ENGINE_IOVA, self->other, RAM,
			 IOMMU_IOAS_MAP_READABLE | IOMMU_IOAS_MAP_WRITEABLE));
	/*
	 * Another user of the first one. It has to be the first user: beside it a second one
	 * takes memory.
	 */
	ASSERT_EQ(0, detach(self->e.pd.fd));
	precopy_prepare(bdfs[1], MEMORY, "engine");
	user = vfio_pci_device_alloc(bdfs[1], self->e.pd.iommu);
	vfio_pci_cdev_open(user, bdfs[1]);
	bind.iommufd = self->fd;
	ASSERT_EQ(0, ioctl(user->fd, VFIO_DEVICE_BIND_IOMMUFD, &bind));
	ASSERT_EQ(0, attach(user->fd, self->ioas));
	ASSERT_EQ(0, attach(self->e.pd.fd, self->hwpt));

	for (space = 0; failed && space < MAX_SPACE; space += SPACE) {
		ASSERT_EQ(0, detach(self->e.pd.fd));
		ret = attach_and_fail(self->e.pd.fd, self->hwpt, space, &failed);
		ASSERT_TRUE(!ret || failed);
		if (ret)
			continue;
		ASSERT_EQ(-ENXIO, copy_page(self, 0))
			TH_LOG("failure after %u bytes", space);
		tried += failed;
	}
	end_faults();
	EXPECT_LE(1, tried);
	EXPECT_FALSE(failed);
	TH_LOG("failures up to %u bytes, attached after %u of them", space, tried);
	close(user->fd);
	vfio_pci_device_free(user);
}

/* ------------------------------------------------------------------------ */
/* Who knows what was written                                               */

/* A page each: whether commands have written it, or read it */
struct touched {
	u8 written[PAGES];
	u8 read[PAGES];
};

static void touch(u8 *pages, u64 at, u64 len)
{
	u64 page;

	for (page = at / PRECOPY_PAGE; page <= (at + len - 1) / PRECOPY_PAGE; page++)
		pages[page] = 1;
}

static u64 next(u64 *seed)
{
	*seed ^= *seed << 13;
	*seed ^= *seed >> 7;
	*seed ^= *seed << 17;
	return *seed;
}

static void apply_stamp(u8 *to, u64 len, u64 seq)
{
	u64 *pair = (u64 *)to, i;

	for (i = 0; i < len / 16; i++) {
		pair[2 * i] = seq;
		pair[2 * i + 1] = i * 16 / PRECOPY_PAGE;
	}
}

static void apply_fill(u8 *to, u64 len, u64 word)
{
	for (; len; len -= sizeof(word), to += sizeof(word))
		memcpy(to, &word, sizeof(word));
}

/* Makes a command that fits, and does to @want and @touched what it has to do. */
static void choose(u64 *seed, struct engine_command *c, u8 *want,
		   struct touched *touched)
{
	u64 src = next(seed) % (TO - SZ_64K), dst, len;

	*c = (struct engine_command) { .op = 1 + next(seed) % 4 };
	dst = TO + next(seed) % (TO - SZ_64K);
	len = 1 + next(seed) % (next(seed) % 4 ? 200 : 20000);
	c->seq = next(seed);
	switch (c->op) {
	case PRECOPY_ENGINE_OP_COPY:
		memcpy(want + dst, want + src, len);
		touch(touched->read, src, len);
		c->src = ENGINE_IOVA + src;
		break;
	case PRECOPY_ENGINE_OP_FILL:
		dst &= ~7UL;
		len = (len + 7) & ~7UL;
		c->src = next(seed);
		apply_fill(want + dst, len, c->src);
		break;
	case PRECOPY_ENGINE_OP_STAMP:
		dst &= ~(PRECOPY_PAGE - 1);
		len = (1 + next(seed) % 4) * PRECOPY_PAGE;
		apply_stamp(want + dst, len, c->seq);
		break;
	case PRECOPY_ENGINE_OP_FENCE:
		dst &= ~7UL;
		memcpy(want + dst, &c->seq, sizeof(c->seq));
		len = 0;
		break;
	}
	touch(touched->written, dst, len ?: sizeof(c->seq));
	c->dst = ENGINE_IOVA + dst;
	c->len = len;
}

/* Some commands, one after the other; false if one fails */
static bool run_some(struct engine *e, u64 *seed, u8 *want, struct touched *touched)
{
	u64 i, nr = 1 + next(seed) % 20;
	struct engine_command command;

	for (i = 0; i < nr; i++) {
		choose(seed, &command, want, touched);
		if (engine_run(e, &command))
			return false;
	}
	return true;
}

static bool has_bit(const u64 *bitmap, u64 page)
{
	return bitmap[page / 64] >> page % 64 & 1;
}

/* Pages for which bitmap and list are not the same, and the first of them */
static u64 differ(const char *who, const u64 *bitmap, const u8 *pages)
{
	u64 page, nr = 0;

	for (page = 0; page < PAGES; page++) {
		if (has_bit(bitmap, page) == pages[page])
			continue;
		if (!nr++)
			fprintf(stderr, "# %s, page %lu: %d, not %d\n", who, page,
				has_bit(bitmap, page), pages[page]);
	}
	return nr;
}

static u64 log_differs(struct engine *e, const u8 *pages)
{
	u64 bitmap[PAGES / 64] = {};

	VFIO_ASSERT_EQ(dma_log_report(e->pd.dev, ENGINE_IOVA, RAM, PRECOPY_PAGE,
				      bitmap), 0);
	return differ("DMA log", bitmap, pages);
}

static int hwpt_track(hwpt_t *self, u32 flags)
{
	struct iommu_hwpt_set_dirty_tracking args = {
		.size = sizeof(args), .hwpt_id = self->hwpt, .flags = flags,
	};

	return ioctl(self->fd, IOMMU_HWPT_SET_DIRTY_TRACKING, &args) ? -errno : 0;
}

static u64 hwpt_differs(hwpt_t *self, const u8 *pages)
{
	u64 bitmap[PAGES / 64] = {};
	struct iommu_hwpt_get_dirty_bitmap args = {
		.size = sizeof(args), .hwpt_id = self->hwpt,
		.iova = ENGINE_IOVA, .length = RAM, .page_size = PRECOPY_PAGE,
		.data = (uintptr_t)bitmap,
	};

	ioctl_assert(self->fd, IOMMU_HWPT_GET_DIRTY_BITMAP, &args);
	return differ("page table", bitmap, pages);
}

/* The log is exact, and so is a page table that tracks: page by page they are equal. */
TEST_F_TIMEOUT(hwpt, log_and_table_agree, MIG_TIMEOUT) /* R61 */
{
	bool tracks = variant->flags & IOMMU_HWPT_ALLOC_DIRTY_TRACKING;
	struct touched touched, none = {};
	struct engine *e = &self->e;
	u64 i, seed = 0x5eed5eed;

	if (tracks && !self->simulated)
		SKIP(return, "an IOMMU does not see what a driver writes by a pin");
	ASSERT_EQ(0, engine_log_start(e, ENGINE_IOVA, RAM));
	if (tracks)
		ASSERT_EQ(0, hwpt_track(self, IOMMU_HWPT_DIRTY_TRACKING_ENABLE));
	for (i = 0; i < precopy_rounds(40); i++) {
		memset(&touched, 0, sizeof(touched));
		ASSERT_TRUE(run_some(e, &seed, self->want, &touched));
		ASSERT_EQ(0, log_differs(e, touched.written)) TH_LOG("round %lu", i);
		ASSERT_EQ(0, log_differs(e, none.written));
		if (!tracks)
			continue;
		ASSERT_EQ(0, hwpt_differs(self, touched.written)) TH_LOG("round %lu", i);
		ASSERT_EQ(0, hwpt_differs(self, none.written));
	}
	/* A store that is refused is in the log only: it could have been done in part. */
	ASSERT_EQ(0, unmap(self->fd, self->ioas, ENGINE_IOVA, RAM));
	EXPECT_GT(0, engine_run(e, &(struct engine_command) {
		.op = PRECOPY_ENGINE_OP_FENCE, .dst = ENGINE_IOVA,
	}));
	memset(&touched, 0, sizeof(touched));
	touch(touched.written, 0, 8);
	EXPECT_EQ(0, log_differs(e, touched.written));
	ASSERT_EQ(0, dma_log_stop(e->pd.dev));
}

/* A store that the table tells of is not one that nobody could know of. */
TEST_F_TIMEOUT(hwpt, tracked_stores_are_known, MIG_TIMEOUT)
{
	u64 unlogged = precopy_stat(bdfs[0], "dma_unlogged_pages");
	u64 told = self->simulated && variant->flags ? 0 : 1;
	int fd;

	ASSERT_EQ(0, mig_set_state(self->e.pd.dev, PC, &fd));
	ASSERT_EQ(0, copy_page(self, 0));
	expect_page(self, 0);
	EXPECT_EQ(unlogged + 1, precopy_stat(bdfs[0], "dma_unlogged_pages"));
	if (variant->flags)
		ASSERT_EQ(0, hwpt_track(self, IOMMU_HWPT_DIRTY_TRACKING_ENABLE));
	ASSERT_EQ(0, copy_page(self, 1));
	expect_page(self, 1);
	EXPECT_EQ(unlogged + 1 + told, precopy_stat(bdfs[0], "dma_unlogged_pages"));
	close(fd);
}

/* ------------------------------------------------------------------------ */
/* type1                                                                    */

FIXTURE(type1) {
	struct engine e;
	bool simulated;
	u8 *want;
};

FIXTURE_SETUP(type1)
{
	const char *missing = mig_mode_missing(bdfs[0], MODE_VFIO_TYPE1V2_IOMMU);
	u64 page;

	if (missing)
		SKIP(return, "%s", missing);
	self->simulated = is_simulated(bdfs[0]);
	engine_open(&self->e, bdfs[0], MODE_VFIO_TYPE1V2_IOMMU, MEMORY, RAM);
	self->want = malloc_assert(RAM);
	for (page = 0; page < PAGES; page++)
		precopy_pattern(self->want + page * PRECOPY_PAGE, page, 1);
	memcpy(self->e.ram, self->want, RAM);
}

FIXTURE_TEARDOWN(type1)
{
	if (!self->want)
		return;
	EXPECT_EQ(0, memcmp(self->want, self->e.ram, RAM));
	engine_close(&self->e);
	free(self->want);
}

typedef FIXTURE_DATA(type1) type1_t;

static int type1_track(type1_t *self, u32 flags)
{
	struct vfio_iommu_type1_dirty_bitmap args = {
		.argsz = sizeof(args), .flags = flags,
	};

	return ioctl(self->e.pd.iommu->container_fd, VFIO_IOMMU_DIRTY_PAGES,
		     &args) ? -errno : 0;
}

static u64 type1_differs(type1_t *self, const u8 *pages)
{
	u64 bitmap[PAGES / 64] = {};
	struct vfio_iommu_type1_dirty_bitmap_get *get;
	u64 buf[(sizeof(struct vfio_iommu_type1_dirty_bitmap) + sizeof(*get)) / 8];
	struct vfio_iommu_type1_dirty_bitmap *args = (void *)buf;

	*args = (struct vfio_iommu_type1_dirty_bitmap) {
		.argsz = sizeof(buf),
		.flags = VFIO_IOMMU_DIRTY_PAGES_FLAG_GET_BITMAP,
	};
	get = (void *)args->data;
	*get = (struct vfio_iommu_type1_dirty_bitmap_get) {
		.iova = ENGINE_IOVA, .size = RAM,
		.bitmap = {
			.pgsize = PRECOPY_PAGE, .size = sizeof(bitmap),
			.data = (void *)bitmap,
		},
	};
	ioctl_assert(self->e.pd.iommu->container_fd, VFIO_IOMMU_DIRTY_PAGES, args);
	return differ("type1", bitmap, pages);
}

/*
 * Until a driver has pinned a page type1 takes all memory for dirty. From then on it
 * reports the pages that were pinned since it was asked last: those which the engine
 * has written, and those which it has read. Behind the simulated IOMMU the engine pins
 * nothing, so that all memory remains dirty.
 */
TEST_F_TIMEOUT(type1, dirty_pages_of_the_container, MIG_TIMEOUT)
{
	struct touched touched, all, none = {};
	struct engine *e = &self->e;
	u64 i, page, seed = 0xd1ed1e;

	memset(&all, 1, sizeof(all));
	ASSERT_EQ(0, type1_track(self, VFIO_IOMMU_DIRTY_PAGES_FLAG_START));
	ASSERT_EQ(0, engine_log_start(e, ENGINE_IOVA, RAM));
	EXPECT_EQ(0, type1_differs(self, all.written));
	EXPECT_EQ(0, log_differs(e, none.written));
	for (i = 0; i < precopy_rounds(40); i++) {
		memset(&touched, 0, sizeof(touched));
		ASSERT_TRUE(run_some(e, &seed, self->want, &touched));
		/* The log is exact, whatever type1 says. */
		ASSERT_EQ(0, log_differs(e, touched.written)) TH_LOG("round %lu", i);
		for (page = 0; page < PAGES; page++)
			touched.read[page] |= touched.written[page] | self->simulated;
		ASSERT_EQ(0, type1_differs(self, touched.read)) TH_LOG("round %lu", i);
		ASSERT_EQ(0, type1_differs(self, self->simulated ? all.read : none.read));
	}
	ASSERT_EQ(0, type1_track(self, VFIO_IOMMU_DIRTY_PAGES_FLAG_STOP));
	ASSERT_EQ(0, dma_log_stop(e->pd.dev));
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
