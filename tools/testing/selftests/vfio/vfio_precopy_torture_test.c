// SPDX-License-Identifier: GPL-2.0-only
/*
 * All that a user can do to the driver, by many threads at once and at random:
 * on the device's fd, on data fds of past and present sessions, on the BAR, in
 * sysfs and debugfs, and while the driver is unbound and bound. It is the kernel
 * that must survive, which lockdep, KASAN and KCSAN see; here it is checked that
 * errors are of the kinds that are documented, and that after each storm a
 * migration is right to the last byte.
 *
 * PRECOPY_TORTURE_MS (2000 unless set) is how long each storm lasts, PRECOPY_SEED
 * repeats one. The seed is printed.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/limits.h>
#include <linux/pci_regs.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_engine.h>
#include <libvfio/precopy_handoff.h>
#include <libvfio/precopy_migrate.h>
#include <libvfio/storm.h>

#include <libvfio/mig_harness.h>

/* Two units, so that 2 MiB pages come and go. */
#define SIZE		SZ_4M
#define KEPT		8
/* Where in the BAR buffers are */
#define BUFFERS		SZ_1M
#define UNBIND		"drivers/" PRECOPY_DRIVER "/unbind"

static char **bdfs;
static int nr_bdfs;

FIXTURE(torture) {
	struct precopy_dev a;
	struct precopy_dev b;
	struct mig_stream stream;
	unsigned int seed;
	/*
	 * The newest data fd, and some older ones, under fds_lock; who takes one
	 * out closes it.
	 */
	pthread_mutex_t fds_lock;
	int fds[KEPT];
	/* Where reads and writes have their buffers; NULL: in a buffer of their own */
	u8 *read_to[2];
	const u8 *write_from[2];
	/* Memory that the engine reaches by DMA, and some that comes and goes */
	struct dma_region ram;
	struct dma_region dimm;
	u64 stray_stores;		/* to what was unmapped */
};

FIXTURE_VARIANT(torture) {
	const char *mode;
};

#define FIXTURE_VARIANT_ADD_IOMMU_MODE(_mode)	\
FIXTURE_VARIANT_ADD(torture, _mode) {		\
	.mode = #_mode,				\
}

/* The two ways in to a device that differ in code. */
FIXTURE_VARIANT_ADD_IOMMU_MODE(vfio_type1v2_iommu);
FIXTURE_VARIANT_ADD_IOMMU_MODE(iommufd);

#undef FIXTURE_VARIANT_ADD_IOMMU_MODE

typedef FIXTURE_DATA(torture) torture_t;

FIXTURE_SETUP(torture)
{
	int i;

	ASSERT_LE(2, nr_bdfs);
	self->seed = storm_seed();
	TH_LOG("PRECOPY_SEED=%u", self->seed);
	pthread_mutex_init(&self->fds_lock, NULL);
	for (i = 0; i < KEPT; i++)
		self->fds[i] = -1;
	storm_catch_sigbus();
	precopy_open(&self->a, bdfs[0], variant->mode, SIZE);
	precopy_open(&self->b, bdfs[1], variant->mode, SIZE);
	precopy_fill(&self->a, 0, 12, self->seed, BY_MMAP);
	precopy_fill(&self->a, 700, 5, self->seed, BY_PWRITE);
	ASSERT_EQ(0, mig_save(self->a.dev, &self->stream));
	ASSERT_GT(SIZE / 2, self->stream.len);
	precopy_reset(&self->a);
}

FIXTURE_TEARDOWN(torture)
{
	mig_stream_free(&self->stream);
	precopy_close(&self->a);
	precopy_close(&self->b);
}

/* ------------------------------------------------------------------------ */
/* What may go wrong                                                        */

/*
 * EBADF: the fd goes the other way. EFAULT: the buffer is in a BAR that cannot be
 * accessed. EIO and ENOSPC: test knobs. EOPNOTSUPP: two writers made up something
 * that looks like a newer stream.
 */
static const int read_errors[] = { ENOMSG, ENODEV, EBADF, EFAULT, EIO, 0 };
static const int write_errors[] = {
	EINVAL, EOPNOTSUPP, ENODEV, EBADF, EFAULT, EIO, ENOSPC, 0
};

static const int info_errors[] = { EINVAL, ENODEV, ENOTTY, 0 };
static const int startup_errors[] = { ENODEV, 0 };
static const int set_errors[] = {
	EINVAL, EOPNOTSUPP, EIO, ENOSPC, ECANCELED, 0
};

/* EIO: memory decode is off, or a load has failed. */
static const int bar_errors[] = { EIO, 0 };
/* The same, as SIGBUS. */
static const int store_errors[] = { EFAULT, 0 };
static const int map_errors[] = { 0 };
static const int reset_errors[] = { EAGAIN, 0 };
/* Of files that an unbind takes away. */
static const int sysfs_errors[] = { ENOENT, ENODEV, 0 };
static const int size_errors[] = { EBUSY, ENOENT, ENODEV, 0 };
static const int log_errors[] = { EINVAL, 0 };
static const int no_errors[] = { 0 };
static const int unknown_feature[] = { ENOTTY, 0 };

static torture_t *victim(struct storm_actor *actor)
{
	return actor->storm->arg;
}

static long result(long ret)
{
	return ret < 0 ? -errno : ret;
}

/* ------------------------------------------------------------------------ */
/* States and data fds                                                      */

static void put_fd(torture_t *self, int slot, int fd)
{
	int old;

	pthread_mutex_lock(&self->fds_lock);
	old = self->fds[slot];
	self->fds[slot] = fd;
	pthread_mutex_unlock(&self->fds_lock);
	if (old >= 0)
		close(old);
}

/*
 * A copy of an fd of its own, so that no close makes it somebody else's. Under the
 * lock, as between a look at the number and the copy it may become another file's.
 */
static int take_fd(struct storm_actor *actor)
{
	torture_t *self = victim(actor);
	int slot = storm_pick(actor, 2) ? 0 : storm_pick(actor, KEPT);
	int fd;

	pthread_mutex_lock(&self->fds_lock);
	fd = self->fds[slot];
	if (fd >= 0)
		fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
	pthread_mutex_unlock(&self->fds_lock);

	return fd;
}

static const u8 states[] = {
	VFIO_DEVICE_STATE_PRE_COPY, VFIO_DEVICE_STATE_PRE_COPY_P2P,
	VFIO_DEVICE_STATE_STOP_COPY, VFIO_DEVICE_STATE_STOP,
	VFIO_DEVICE_STATE_RUNNING, VFIO_DEVICE_STATE_RUNNING_P2P,
	VFIO_DEVICE_STATE_RESUMING, VFIO_DEVICE_STATE_ERROR,
};

static void set_one_of(struct storm_actor *actor, unsigned int nr)
{
	torture_t *self = victim(actor);
	int fd, ret;

	ret = mig_set_state(self->a.dev, states[storm_pick(actor, nr)], &fd);
	storm_judge(actor, "SET", ret, set_errors);
	if (!ret && fd >= 0)
		put_fd(self, storm_pick(actor, 4) ? 0 :
		       storm_pick(actor, KEPT), fd);
	if (!storm_pick(actor, 16))
		storm_judge(actor, "INFOv2", mig_precopy_v2_enable(self->a.dev),
			    mig_kernel_has_info_v2(self->a.dev) ?
			    no_errors : unknown_feature);
}

static void act_set(struct storm_actor *actor)
{
	set_one_of(actor, ARRAY_SIZE(states));
}

/* All but RESUMING, out of which only a whole stream leads. */
static void act_set_saving(struct storm_actor *actor)
{
	set_one_of(actor, 6);
}

/* A whole load, if nobody interferes. */
static void act_load(struct storm_actor *actor)
{
	torture_t *self = victim(actor);
	int fd, ret;

	ret = mig_set_state(self->a.dev, VFIO_DEVICE_STATE_RESUMING, &fd);
	storm_judge(actor, "RESUMING", ret, set_errors);
	if (ret || fd < 0)
		return;
	ret = mig_write_all(fd, self->stream.data, self->stream.len,
			    1 + storm_pick(actor, SZ_64K), NULL);
	storm_judge(actor, "whole write", ret, write_errors);
	if (!ret)
		storm_judge(actor, "STOP",
			    mig_set_state(self->a.dev, VFIO_DEVICE_STATE_STOP,
					  NULL), set_errors);
	put_fd(self, 0, fd);
}

static void act_close(struct storm_actor *actor)
{
	usleep(storm_pick(actor, 3000));
	put_fd(victim(actor), storm_pick(actor, 2) ? 0 :
	       storm_pick(actor, KEPT), -1);
}

/* A buffer of its own, or one that is given. */
static void *buffer(struct storm_actor *actor, const u8 *const given[2])
{
	const u8 *choice = given[storm_pick(actor, 2)];

	if (choice)
		return (void *)choice;
	if (!actor->own)
		actor->own = malloc_assert(SZ_128K);
	return actor->own;
}

static void act_read(struct storm_actor *actor)
{
	torture_t *self = victim(actor);
	int fd = take_fd(actor);

	if (fd < 0)
		return;
	storm_judge(actor, "read",
		    result(read(fd, buffer(actor, (const u8 **)self->read_to),
				1 + storm_pick(actor, SZ_128K))), read_errors);
	close(fd);
}

static void act_write(struct storm_actor *actor)
{
	torture_t *self = victim(actor);
	const u8 *from = self->write_from[storm_pick(actor, 2)];
	int fd = take_fd(actor);

	if (fd < 0)
		return;
	if (!from)
		from = self->stream.data;
	/* Mostly a good beginning, now and then something else. */
	from += storm_pick(actor, 8) ? 0 : 7;
	storm_judge(actor, "write",
		    result(write(fd, from, 1 + storm_pick(actor,
							  self->stream.len - 8))),
		    write_errors);
	close(fd);
}

static void act_poll(struct storm_actor *actor)
{
	struct pollfd pfd = { .events = POLLIN | POLLOUT | POLLPRI };

	pfd.fd = take_fd(actor);
	if (pfd.fd < 0)
		return;
	storm_judge(actor, "poll",
		    result(poll(&pfd, 1, storm_pick(actor, 5))), no_errors);
	close(pfd.fd);
}

static void act_info(struct storm_actor *actor)
{
	struct vfio_precopy_startup startup;
	struct vfio_precopy_info info = {};
	int fd = take_fd(actor);

	if (fd < 0)
		return;
	storm_judge(actor, "PRECOPY_INFO", mig_precopy_info(fd, &info),
		    info_errors);
	storm_judge(actor, "GET_STARTUP", handoff_get(fd, &startup),
		    startup_errors);
	close(fd);
}

/* ------------------------------------------------------------------------ */
/* The device                                                               */

static void act_ask(struct storm_actor *actor)
{
	torture_t *self = victim(actor);
	u64 size;

	storm_judge(actor, "GET", mig_get_state(self->a.dev), no_errors);
	storm_judge(actor, "DATA_SIZE", mig_data_size(self->a.dev, &size),
		    no_errors);
}

static void act_reset(struct storm_actor *actor)
{
	usleep(storm_pick(actor, 10000));
	storm_judge(actor, "RESET",
		    __vfio_pci_device_reset(victim(actor)->a.dev), reset_errors);
}

static void write_command(struct storm_actor *actor, u16 command)
{
	struct vfio_pci_device *dev = victim(actor)->a.dev;

	storm_judge(actor, "COMMAND",
		    result(pwrite(dev->fd, &command, sizeof(command),
				  dev->config_space.offset + PCI_COMMAND)),
		    no_errors);
}

static void act_decode(struct storm_actor *actor)
{
	usleep(storm_pick(actor, 5000));
	write_command(actor, 0);
	usleep(storm_pick(actor, 500));
	write_command(actor, PCI_COMMAND_MEMORY);
}

static void act_store(struct storm_actor *actor)
{
	struct precopy_dev *a = &victim(actor)->a;
	u64 offset = storm_pick(actor, a->size / 8) * 8UL;
	u64 word = offset;

	storm_judge(actor, "store", storm_store(a->bar + offset, offset),
		    store_errors);
	storm_judge(actor, "pwrite",
		    result(pwrite(a->fd, &word, 8, a->bar_offset + offset)),
		    bar_errors);
	storm_judge(actor, "pread",
		    result(pread(a->fd, &word, 8, a->bar_offset + offset)),
		    bar_errors);
}

/* A mapping of any pages at any address comes, changes, and goes. */
static void act_map(struct storm_actor *actor)
{
	struct precopy_dev *a = &victim(actor)->a;
	u64 nr = precopy_nr_pages(a), first = storm_pick(actor, nr);
	size_t len = (1 + storm_pick(actor, nr - first)) * PRECOPY_PAGE;
	u8 *map;

	map = mmap(NULL, len, PROT_READ | PROT_WRITE, MAP_SHARED, a->fd,
		   a->bar_offset + first * PRECOPY_PAGE);
	storm_judge(actor, "mmap", map == MAP_FAILED ? -errno : 0, map_errors);
	if (map == MAP_FAILED)
		return;
	storm_judge(actor, "store to a new mapping",
		    storm_store(map + storm_pick(actor, len), 1), store_errors);
	if (storm_pick(actor, 2))
		madvise(map, len, MADV_DONTNEED);
	mprotect(map, PRECOPY_PAGE, PROT_READ);
	storm_judge(actor, "load from a new mapping",
		    storm_load(map + storm_pick(actor, len)), store_errors);
	munmap(map, len);
}

/* The mapping that buffers are in is taken away, and comes back. */
static void act_remap(struct storm_actor *actor)
{
	static const int prots[] = {
		PROT_NONE, PROT_READ, PROT_READ | PROT_WRITE,
	};
	struct precopy_dev *a = &victim(actor)->a;
	unsigned int i;
	void *map;

	for (i = 0; i < ARRAY_SIZE(prots); i++) {
		map = mmap(a->bar + BUFFERS, SZ_128K, prots[i],
			   MAP_SHARED | MAP_FIXED, a->fd,
			   a->bar_offset + BUFFERS);
		storm_judge(actor, "mmap", map == MAP_FAILED ? -errno : 0,
			    map_errors);
		usleep(storm_pick(actor, 1000));
	}
}

/* Where the kernel cannot report a log, the device knows none of its features. */
static bool judge_no_log(struct storm_actor *actor, struct vfio_pci_device *dev)
{
	if (vfio_feature_probe(dev->fd, VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
			       VFIO_DEVICE_FEATURE_SET) != -ENOTTY)
		return false;
	storm_judge(actor, "LOG_STOP", dma_log_stop(dev), unknown_feature);
	return true;
}

static void act_log(struct storm_actor *actor)
{
	struct vfio_device_feature_dma_logging_range range = { 0, SZ_1M };
	struct vfio_pci_device *dev = victim(actor)->a.dev;
	u64 page_size = SZ_4K, bitmap[4];

	if (judge_no_log(actor, dev))
		return;
	storm_judge(actor, "LOG_START",
		    dma_log_start(dev, &page_size, &range, 1), log_errors);
	storm_judge(actor, "LOG_REPORT",
		    dma_log_report(dev, 0, SZ_1M, SZ_4K, bitmap), log_errors);
	storm_judge(actor, "LOG_STOP", dma_log_stop(dev), no_errors);
}

/* ------------------------------------------------------------------------ */
/* Files                                                                    */

static void act_sysfs(struct storm_actor *actor)
{
	static const char * const files[] = {
		"memory_size", "backend", "migration_state", "initial_bytes",
		"dirty_bytes", "startup",
	};
	char word[64];

	storm_judge(actor, "sysfs read",
		    precopy_sysfs_read(bdfs[0], files[storm_pick(actor, 6)],
				       word, sizeof(word)), sysfs_errors);
	storm_judge(actor, "memory_size",
		    precopy_sysfs_write(bdfs[0], "memory_size", "1048576"),
		    size_errors);
	/* Whatever the carrier can do, or not. */
	snprintf(word, sizeof(word), "devices/%s/reset", bdfs[0]);
	storm_judge(actor, "carrier's reset", handoff_pci_write(word, "1"),
		    NULL);
	usleep(storm_pick(actor, 2000));
}

static void act_debugfs(struct storm_actor *actor)
{
	char path[PATH_MAX], text[4096];
	int fd;

	snprintf(path, sizeof(path), "/sys/kernel/debug/vfio/%s/precopy/stats",
		 bdfs[0]);
	fd = open(path, O_RDONLY);
	if (fd < 0)
		return;
	/* ENODEV, EIO: the file went away since. */
	storm_judge(actor, "stats", read(fd, text, sizeof(text)), NULL);
	close(fd);
}

static const struct {
	const char *knob;
	unsigned int values;
	bool sure;		/* not 0 most of the time */
} knobs[] = {
	{ "startup_delay_ms", 20, true },
	{ "slow_stop_ms", 5, true },
	{ "startup_fail", 1, false },
	{ "fail_save_at", 100000, false },
	{ "fail_load_at", 100000, false },
	{ "data_size", 100000, false },
	{ "reinit", 1, true },
};

static void act_knobs(struct storm_actor *actor)
{
	unsigned int i = storm_pick(actor, ARRAY_SIZE(knobs));
	u64 value = 0;

	if (knobs[i].sure || !storm_pick(actor, 4))
		value = storm_pick(actor, knobs[i].values + 1);
	if (value && !strcmp(knobs[i].knob, "startup_fail"))
		value = ENOSPC;
	precopy_knob(bdfs[0], knobs[i].knob, value);
	usleep(storm_pick(actor, 1000));
}

static void clear_knobs(void)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(knobs); i++)
		if (strcmp(knobs[i].knob, "reinit"))
			precopy_knob(bdfs[0], knobs[i].knob, 0);
}

/* ------------------------------------------------------------------------ */
/* The storms                                                               */

static void close_fds(torture_t *self)
{
	int i;

	for (i = 0; i < KEPT; i++)
		put_fd(self, i, -1);
}

static void check_calm(struct __test_metadata *_metadata, torture_t *self,
		       struct storm *storm)
{
	EXPECT_EQ(0, storm->bad)
		TH_LOG("%s: errno %d", storm->bad_in, -storm->bad);
	EXPECT_LT(20, storm->done);
	TH_LOG("%lu calls, seed %u", storm->done, self->seed);
}

static void check_works(struct __test_metadata *_metadata, torture_t *self)
{
	clear_knobs();
	vfio_pci_cmd_set(self->a.dev, PCI_COMMAND_MEMORY);
	EXPECT_EQ(0, precopy_migrate(&self->a, &self->b, self->seed));
	EXPECT_EQ(0, precopy_migrate(&self->b, &self->a, self->seed + 1));
}

static void run_storm(struct __test_metadata *_metadata, torture_t *self,
		      const storm_act_fn *acts, int nr)
{
	struct storm storm;

	storm_begin(&storm, self, acts, nr, self->seed);
	usleep(storm_ms(2000) * 1000);
	storm_end(&storm);
	check_calm(_metadata, self, &storm);
	close_fds(self);
	check_works(_metadata, self);
}

TEST_F_TIMEOUT(torture, everything, 7200)
{
	static const storm_act_fn acts[] = {
		act_set, act_set, act_load, act_close, act_read, act_read,
		act_read, act_write, act_write, act_poll, act_info, act_ask,
		act_reset, act_decode, act_store, act_store, act_map, act_map,
		act_log, act_sysfs, act_debugfs, act_knobs,
	};

	run_storm(_metadata, self, acts, ARRAY_SIZE(acts));
}

/* Without resets more of the state machine is seen. */
TEST_F_TIMEOUT(torture, without_reset, 7200)
{
	static const storm_act_fn acts[] = {
		act_set_saving, act_set_saving, act_read, act_read, act_poll,
		act_info, act_ask, act_store, act_map, act_close,
	};

	run_storm(_metadata, self, acts, ARRAY_SIZE(acts));
}

/*
 * The copy to or from the user faults into the driver while it is in the middle
 * of a read or a write, while the device is reset, decode goes off, or the
 * mapping is taken away. The other device's BAR has a good stream.
 */
TEST_F_TIMEOUT(torture, buffers_in_bars, 7200)
{
	static const storm_act_fn acts[] = {
		act_set, act_set, act_read, act_read, act_write, act_write,
		act_info, act_reset, act_decode, act_map, act_remap, act_knobs,
	};

	memcpy(self->b.bar, self->stream.data, self->stream.len);
	self->read_to[0] = self->a.bar + BUFFERS;
	self->read_to[1] = self->b.bar + SIZE / 2;
	self->write_from[0] = self->b.bar;
	self->write_from[1] = self->a.bar + BUFFERS;
	run_storm(_metadata, self, acts, ARRAY_SIZE(acts));
}

/* ------------------------------------------------------------------------ */
/* The engine                                                               */

#define RAM		SZ_1M
#define DIMM		SZ_64K
#define DIMM_IOVA	(ENGINE_IOVA + 2 * RAM)
#define GONE		0xa5

/* EIO: stopped to migrate, or memory decode is off */
static const int register_errors[] = { EIO, 0 };
static const int irq_errors[] = { EINVAL, 0 };

static void put_register(struct storm_actor *actor, u64 reg, u64 value, size_t len)
{
	struct vfio_pci_device *dev = victim(actor)->a.dev;

	storm_judge(actor, "register write",
		    result(pwrite(dev->fd, &value, len,
				  dev->bars[0].info.offset + reg)),
		    register_errors);
}

/* Mapped, partly mapped, now and then mapped, not mapped, no address at all */
static u64 pick_address(struct storm_actor *actor)
{
	static const u64 places[] = {
		ENGINE_IOVA, ENGINE_IOVA + RAM - 100, DIMM_IOVA,
		ENGINE_NOWHERE, ~0UL - 5, 0,
	};

	return places[storm_pick(actor, ARRAY_SIZE(places))] +
	       8 * storm_pick(actor, 512);
}

static void act_command(struct storm_actor *actor)
{
	put_register(actor, PRECOPY_ENGINE_CMD_START, 0, 4);
	put_register(actor, PRECOPY_ENGINE_CMD_OP, storm_pick(actor, 7), 4);
	put_register(actor, PRECOPY_ENGINE_CMD_FLAGS, storm_pick(actor, 8), 4);
	put_register(actor, PRECOPY_ENGINE_CMD_SRC, pick_address(actor), 8);
	put_register(actor, PRECOPY_ENGINE_CMD_DST, pick_address(actor), 8);
	put_register(actor, PRECOPY_ENGINE_CMD_LEN,
		     8 * storm_pick(actor, SZ_16K), 8);
	put_register(actor, PRECOPY_ENGINE_CMD_COUNT, storm_pick(actor, 3), 8);
	put_register(actor, PRECOPY_ENGINE_CMD_VECTOR, storm_pick(actor, 10), 4);
	put_register(actor, PRECOPY_ENGINE_CMD_START, 1, 4);
	usleep(storm_pick(actor, 2000));
}

/* The ring is in memory that the engine itself overwrites now and then */
static void act_ring(struct storm_actor *actor)
{
	torture_t *self = victim(actor);
	struct precopy_engine_desc *ring = self->ram.vaddr;
	unsigned int i;

	for (i = 0; i < 8; i++)
		ring[i] = (struct precopy_engine_desc) {
			.op = storm_pick(actor, 7), .flags = storm_pick(actor, 8),
			.src = pick_address(actor), .dst = pick_address(actor),
			.len = 8 * storm_pick(actor, SZ_1K),
		};
	put_register(actor, PRECOPY_ENGINE_RING_BASE, storm_pick(actor, 4) ?
		     ENGINE_IOVA : pick_address(actor), 8);
	put_register(actor, PRECOPY_ENGINE_RING_SIZE, 8, 4);
	put_register(actor, PRECOPY_ENGINE_CTRL, storm_pick(actor, 8) ? 1 : 0, 4);
	put_register(actor, PRECOPY_ENGINE_RING_TAIL, storm_pick(actor, 9), 4);
	usleep(storm_pick(actor, 2000));
}

static void act_registers(struct storm_actor *actor)
{
	struct vfio_pci_device *dev = victim(actor)->a.dev;
	u64 reg = PRECOPY_ENGINE_ID + 4 * storm_pick(actor, 64);
	u8 buf[512];

	put_register(actor, reg, storm_pick(actor, 16), 4);
	storm_judge(actor, "register read",
		    result(pread(dev->fd, buf, sizeof(buf),
				 dev->bars[0].info.offset + reg)),
		    register_errors);
	put_register(actor, PRECOPY_ENGINE_IRQ_RAISE, storm_pick(actor, 9), 4);
}

/* Nothing may be stored to memory whose unmapping has returned */
static void act_unmap(struct storm_actor *actor)
{
	torture_t *self = victim(actor);
	u8 *memory = self->dimm.vaddr;
	size_t i;

	iommu_unmap(self->a.iommu, &self->dimm);
	memset(memory, GONE, DIMM);
	usleep(storm_pick(actor, 3000));
	for (i = 0; i < DIMM; i++)
		self->stray_stores += memory[i] != GONE;
	iommu_map(self->a.iommu, &self->dimm);
	usleep(storm_pick(actor, 3000));
}

static void act_irqs(struct storm_actor *actor)
{
	s32 fds[PRECOPY_ENGINE_VECTORS];
	char buf[sizeof(struct vfio_irq_set) + sizeof(fds)];
	struct vfio_irq_set *set = (void *)buf;
	u32 start = storm_pick(actor, 10), count = storm_pick(actor, 9), i;

	for (i = 0; i < PRECOPY_ENGINE_VECTORS; i++)
		fds[i] = storm_pick(actor, 3) ? eventfd(0, EFD_CLOEXEC) : -1;
	*set = (struct vfio_irq_set) {
		.argsz = sizeof(buf), .index = VFIO_PCI_MSIX_IRQ_INDEX,
		.flags = (count ? VFIO_IRQ_SET_DATA_EVENTFD :
				  VFIO_IRQ_SET_DATA_NONE) |
			 VFIO_IRQ_SET_ACTION_TRIGGER,
		.start = count ? start : 0, .count = count,
	};
	memcpy(set->data, fds, sizeof(fds));
	storm_judge(actor, "SET_IRQS",
		    result(ioctl(victim(actor)->a.fd, VFIO_DEVICE_SET_IRQS, set)),
		    irq_errors);
	for (i = 0; i < PRECOPY_ENGINE_VECTORS; i++)
		if (fds[i] >= 0)
			close(fds[i]);
}

/* What a guest does: bus master and power off and on, and a function level reset */
static void act_config(struct storm_actor *actor)
{
	static const u16 flr = PCI_EXP_DEVCTL_BCR_FLR;
	struct vfio_pci_device *dev = victim(actor)->a.dev;
	u16 d3 = storm_pick(actor, 2) ? 3 : 0;

	write_command(actor, PCI_COMMAND_MEMORY |
		      (storm_pick(actor, 4) ? PCI_COMMAND_MASTER : 0));
	storm_judge(actor, "PMCSR",
		    result(pwrite(dev->fd, &d3, 2, dev->config_space.offset +
				  ENGINE_CAP_PM + PCI_PM_CTRL)), no_errors);
	if (!storm_pick(actor, 8))
		storm_judge(actor, "FLR",
			    result(pwrite(dev->fd, &flr, 2,
					  dev->config_space.offset +
					  ENGINE_CAP_EXP + PCI_EXP_DEVCTL)),
			    no_errors);
	d3 = 0;
	storm_judge(actor, "PMCSR",
		    result(pwrite(dev->fd, &d3, 2, dev->config_space.offset +
				  ENGINE_CAP_PM + PCI_PM_CTRL)), no_errors);
	write_command(actor, PCI_COMMAND_MEMORY | PCI_COMMAND_MASTER);
	usleep(storm_pick(actor, 2000));
}

static void act_engine_log(struct storm_actor *actor)
{
	struct vfio_device_feature_dma_logging_range range = {
		ENGINE_IOVA, 3 * RAM,
	};
	struct vfio_pci_device *dev = victim(actor)->a.dev;
	u64 bitmap[3 * RAM / SZ_4K / 64], page_size = SZ_4K;

	if (judge_no_log(actor, dev))
		return;
	storm_judge(actor, "LOG_START",
		    dma_log_start(dev, &page_size, &range, 1), log_errors);
	usleep(storm_pick(actor, 1000));
	storm_judge(actor, "LOG_REPORT",
		    dma_log_report(dev, ENGINE_IOVA, 3 * RAM, SZ_4K, bitmap),
		    log_errors);
	storm_judge(actor, "LOG_STOP", dma_log_stop(dev), no_errors);
}

static void *map_memory(struct iommu *iommu, struct dma_region *region, u64 iova,
			size_t size)
{
	*region = (struct dma_region) {
		.iova = iova, .size = size,
		.vaddr = mmap(NULL, size, PROT_READ | PROT_WRITE,
			      MAP_SHARED | MAP_ANONYMOUS, -1, 0),
	};
	if (region->vaddr != MAP_FAILED)
		iommu_map(iommu, region);
	return region->vaddr;
}

/* A device that acts, while all that it acts on is taken away and comes back */
TEST_F_TIMEOUT(torture, engine, 7200)
{
	static const storm_act_fn acts[] = {
		act_command, act_ring, act_registers, act_unmap, act_irqs,
		act_config, act_engine_log, act_set, act_set, act_load, act_close,
		act_read, act_read, act_write, act_reset, act_store, act_map,
		act_knobs,
	};

	precopy_close(&self->a);
	precopy_close(&self->b);
	mig_stream_free(&self->stream);
	precopy_open_model(&self->a, bdfs[0], variant->mode, SIZE, "engine");
	precopy_open_model(&self->b, bdfs[1], variant->mode, SIZE, "engine");
	precopy_fill(&self->a, 0, 12, self->seed, BY_MMAP);
	ASSERT_EQ(0, mig_save(self->a.dev, &self->stream));
	precopy_reset(&self->a);
	ASSERT_NE(MAP_FAILED, map_memory(self->a.iommu, &self->ram, ENGINE_IOVA,
					 RAM));
	ASSERT_NE(MAP_FAILED, map_memory(self->a.iommu, &self->dimm, DIMM_IOVA,
					 DIMM));
	run_storm(_metadata, self, acts, ARRAY_SIZE(acts));
	EXPECT_EQ(0, self->stray_stores);
}

/* ------------------------------------------------------------------------ */
/* Unbind and bind                                                          */

static void *unbind_thread(void *arg)
{
	int *ret = arg;

	*ret = handoff_pci_write(UNBIND, bdfs[0]);

	return NULL;
}

/* An fd of a session whose device is gone, or has come back as another. */
static void check_dead(struct __test_metadata *_metadata, int fd)
{
	struct vfio_precopy_startup startup;
	u8 byte = 0;
	int in, out;

	in = read(fd, &byte, 1) < 0 ? errno : 0;
	out = write(fd, &byte, 1) < 0 ? errno : 0;
	EXPECT_EQ(EBADF + ENODEV, in + out)
		TH_LOG("read: %d, write: %d", in, out);
	EXPECT_EQ(-ENODEV, handoff_get(fd, &startup));
	EXPECT_EQ(POLLERR, POLLERR & handoff_poll(fd, POLLIN | POLLOUT, 1000));
}

/*
 * An unbind begins while the device is in use and must wait; it goes on when the
 * device is closed, while fds of sessions are still used, and these outlive a
 * bind and an open.
 */
static void unbind_round(struct __test_metadata *_metadata, torture_t *self,
			 const char *mode, unsigned int ms)
{
	static const storm_act_fn before[] = {
		act_set, act_load, act_read, act_write, act_info, act_ask,
		act_reset, act_store, act_map, act_sysfs, act_debugfs,
		act_knobs,
	};
	static const storm_act_fn after[] = {
		act_read, act_read, act_write, act_poll, act_info, act_debugfs,
	};
	struct storm storm;
	pthread_t thread;
	int i, unbound;

	storm_begin(&storm, self, before, ARRAY_SIZE(before), self->seed);
	usleep(ms * 500);
	ASSERT_EQ(0, pthread_create(&thread, NULL, unbind_thread, &unbound));
	usleep(ms * 500);
	storm_end(&storm);
	check_calm(_metadata, self, &storm);
	clear_knobs();

	storm_begin(&storm, self, after, ARRAY_SIZE(after), self->seed + 50);
	precopy_close(&self->a);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(0, unbound);
	usleep(ms * 250);
	ASSERT_EQ(0, handoff_pci_write("drivers_probe", bdfs[0]));
	precopy_open(&self->a, bdfs[0], mode, SIZE);
	usleep(ms * 250);
	storm_end(&storm);
	check_calm(_metadata, self, &storm);

	for (i = 0; i < KEPT; i++)
		if (self->fds[i] >= 0)
			check_dead(_metadata, self->fds[i]);
	check_works(_metadata, self);
	if (storm_pick(&storm.actors[0], 2))
		close_fds(self);
}

TEST_F_TIMEOUT(torture, unbind_in_use, 7200)
{
	u64 end = precopy_now_ms() + storm_ms(2000);

	do {
		unbind_round(_metadata, self, variant->mode, 400);
		self->seed += 1000;
	} while (precopy_now_ms() < end);
	close_fds(self);
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
