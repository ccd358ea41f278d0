// SPDX-License-Identifier: GPL-2.0-only
/*
 * PCI Express errors of the bound function, injected by the kernel's aer_inject. An
 * uncorrectable error signals the eventfd of VFIO_PCI_ERR_IRQ_INDEX once, and that is
 * all: state, memory, config space and a migration that is under way stay as they are,
 * and the commands of an engine go on.
 * The kernel resets the bus after a fatal error. That is not a reset of the device,
 * which has nothing in the bound function.
 *
 * Wants two functions with the same ids. The first has an AER capability and is
 * directly below a root port whose errors the kernel handles; it receives the errors.
 *
 * Lockdep complains about aer_inject of Linux 7.3, which takes a spinlock inside of
 * pci_lock, a raw one ("Invalid wait context"). That is no fault of a driver.
 */
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/eventfd.h>
#include <sys/ioctl.h>

#include <linux/limits.h>
#include <linux/pci_regs.h>
#include <linux/sizes.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_engine.h>
#include <libvfio/precopy_migrate.h>

#include <libvfio/mig_harness.h>

#define SIZE		SZ_4M
#define PAGES		300
#define INJECTOR	"/dev/aer_inject"
/* The header's first registers, which the bound function and the guest's view have */
#define HEADER		64
#define BARS_SIZE	(4 * PCI_STD_NUM_BARS)
/* For a machine that hangs: a recovery with a reset of the bus took 0.12 s */
#define PATIENCE_MS	60000

static char **bdfs;
static int nr_bdfs;

FIXTURE(aer) {
	struct precopy_dev a;
	struct precopy_dev b;
	struct mig_stream stream;
	u8 header[HEADER];	/* as the user of the device sees it */
	u8 bars[BARS_SIZE];	/* of the bound function, before it is opened */
	u64 resets;
	int err;		/* eventfd */
	int fd;
};

/* Errors that devices classify so unless told otherwise, see the PCIe base spec */
struct severity {
	u32 error;
	const char *total;
};

static const struct severity nonfatal = { PCI_ERR_UNC_COMP_TIME, "nonfatal" };
static const struct severity fatal = { PCI_ERR_UNC_MALF_TLP, "fatal" };

FIXTURE_VARIANT(aer) {
	const struct severity *severity;
};

FIXTURE_VARIANT_ADD(aer, nonfatal) { .severity = &nonfatal };
FIXTURE_VARIANT_ADD(aer, fatal) { .severity = &fatal };

typedef FIXTURE_DATA(aer) aer_t;
typedef FIXTURE_VARIANT(aer) aer_variant_t;

/* The structure that aer_inject takes from write(); a writer may omit @domain if it is 0 */
struct injection {
	u8 bus;
	u8 device;
	u8 function;
	u8 unused;
	u32 uncorrectable;
	u32 correctable;
	u32 header_log[4];
	u32 domain;
};

/* ------------------------------------------------------------------------ */
/* The bound function                                                       */

static void device_file(char *path, const char *file)
{
	snprintf_assert(path, PATH_MAX, "/sys/bus/pci/devices/%s/%s", bdfs[0], file);
}

/* The errors of a severity that the kernel has counted: the last line has the sum */
static u64 counted(const char *severity)
{
	char path[PATH_MAX], file[32], name[64];
	unsigned long long nr = 0;
	FILE *f;

	snprintf_assert(file, sizeof(file), "aer_dev_%s", severity);
	device_file(path, file);
	f = fopen(path, "r");
	while (f && fscanf(f, "%63s %llu", name, &nr) == 2)
		;
	if (f)
		fclose(f);
	return nr;
}

static bool wait_counted(const char *severity, u64 nr)
{
	u64 end = precopy_now_ms() + PATIENCE_MS;

	while (counted(severity) != nr && precopy_now_ms() < end)
		usleep(1000);
	return counted(severity) == nr;
}

/* The registers themselves, not what the kernel remembers of them */
static void read_bars(u8 *bars)
{
	char path[PATH_MAX];
	int fd;

	device_file(path, "config");
	fd = open(path, O_RDONLY);
	VFIO_ASSERT_EQ(pread(fd, bars, BARS_SIZE, PCI_BASE_ADDRESS_0), BARS_SIZE);
	close(fd);
}

static int inject(u32 uncorrectable, u32 correctable)
{
	struct injection what = {
		.uncorrectable = uncorrectable,
		.correctable = correctable,
	};
	int fd, ret = 0;

	if (sscanf(bdfs[0], "%x:%hhx:%hhx.%hhx", &what.domain, &what.bus, &what.device,
		   &what.function) != 4)
		return -EINVAL;
	fd = open(INJECTOR, O_WRONLY);
	if (fd < 0 || write(fd, &what, sizeof(what)) < 0)
		ret = -errno;
	if (fd >= 0)
		close(fd);
	return ret;
}

/* Read the next record of the kernel's log: one read() returns one record. */
static bool next_record(int log, char *record, size_t size)
{
	struct pollfd pfd = { .fd = log, .events = POLLIN };
	ssize_t got;

	do {
		if (poll(&pfd, 1, PATIENCE_MS) != 1)
			return false;
		got = read(log, record, size - 1);
		/* EPIPE: records were lost to newer ones */
	} while (got < 0 && errno == EPIPE);
	record[got < 0 ? 0 : got] = 0;
	return got >= 0;
}

/* The kernel has no other sign that comes after all that it does about an error. */
static bool recovered(int log)
{
	u64 end = precopy_now_ms() + PATIENCE_MS;
	char record[8192];

	while (precopy_now_ms() < end && next_record(log, record, sizeof(record)))
		if (strstr(record, "AER: device recovery "))
			return strstr(record, "device recovery successful");
	return false;
}

/* ------------------------------------------------------------------------ */
/* Signals                                                                  */

/* Sets the eventfd; -1 takes it away. */
static int set_err_eventfd(int device, int fd)
{
	struct {
		struct vfio_irq_set set;
		s32 fd;
	} irq = {
		.set = {
			.argsz = sizeof(irq),
			.index = VFIO_PCI_ERR_IRQ_INDEX,
			.count = 1,
			.flags = VFIO_IRQ_SET_DATA_EVENTFD |
				 VFIO_IRQ_SET_ACTION_TRIGGER,
		},
		.fd = fd,
	};

	return ioctl(device, VFIO_DEVICE_SET_IRQS, &irq) ? -errno : 0;
}

/* How often it was signalled since the last call */
static u64 signals(int fd)
{
	u64 nr;

	return read(fd, &nr, sizeof(nr)) == sizeof(nr) ? nr : 0;
}

FIXTURE_SETUP(aer)
{
	self->fd = -1;
	read_bars(self->bars);
	precopy_open(&self->a, bdfs[0], NULL, SIZE);
	precopy_open(&self->b, bdfs[1], NULL, SIZE);
	self->err = eventfd(0, EFD_NONBLOCK);
	ASSERT_LE(0, self->err);
	ASSERT_EQ(0, set_err_eventfd(self->a.fd, self->err));
	precopy_fill(&self->a, 0, PAGES, 1, BY_MMAP);
	ASSERT_EQ(HEADER, pread(self->a.fd, self->header, HEADER,
				self->a.dev->config_space.offset));
	self->resets = precopy_stat(bdfs[0], "resets");
}

FIXTURE_TEARDOWN(aer)
{
	if (self->fd >= 0)
		close(self->fd);
	close(self->err);
	mig_stream_free(&self->stream);
	precopy_close(&self->a);
	precopy_close(&self->b);
}

/* ------------------------------------------------------------------------ */
/* An error, and what must be as before                                     */

/*
 * A correctable error and then one of @severity. The kernel handles the errors below a
 * port in this order, so once it has recovered from the second, it is done with both.
 * The injector refuses an error while the interrupt of the one before is pending.
 */
static void errors(struct __test_metadata *_metadata, const struct severity *severity)
{
	u64 correctable = counted("correctable"), nr = counted(severity->total);
	int log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK);

	ASSERT_LE(0, log);
	ASSERT_LE(0, lseek(log, 0, SEEK_END));
	ASSERT_EQ(0, inject(0, PCI_ERR_COR_REP_TIMER));
	ASSERT_TRUE(wait_counted("correctable", correctable + 1));
	ASSERT_EQ(0, inject(severity->error, 0));
	ASSERT_TRUE(recovered(log));
	close(log);
	ASSERT_EQ(nr + 1, counted(severity->total));
}

static void check_untouched(struct __test_metadata *_metadata, aer_t *self, int state)
{
	u8 header[HEADER];

	EXPECT_EQ(state, mig_get_state(self->a.dev));
	EXPECT_EQ(self->resets, precopy_stat(bdfs[0], "resets"));
	ASSERT_EQ(HEADER, pread(self->a.fd, header, HEADER,
				self->a.dev->config_space.offset));
	EXPECT_EQ(0, memcmp(self->header, header, HEADER));
}

/* Two errors, of which the user hears of one */
static void hit(struct __test_metadata *_metadata, aer_t *self,
		const aer_variant_t *variant, int state)
{
	self->resets = precopy_stat(bdfs[0], "resets");
	ASSERT_EQ(state, mig_get_state(self->a.dev));
	ASSERT_EQ(0, signals(self->err));
	errors(_metadata, variant->severity);
	EXPECT_EQ(1, signals(self->err));
	check_untouched(_metadata, self, state);
}

/* The rest of a stream goes to the other device, which must be like the first. */
static void finish(struct __test_metadata *_metadata, aer_t *self)
{
	struct mig_stream *s = &self->stream;

	ASSERT_EQ(0, mig_stream_drain(s, self->fd, SZ_64K));
	ASSERT_EQ(0, mig_load(self->b.dev, s, SZ_64K));
	ASSERT_EQ(0, mig_set_state(self->b.dev, VFIO_DEVICE_STATE_RUNNING, NULL));
	EXPECT_EQ(0, precopy_differ(&self->b, self->a.shadow));
}

TEST_F_TIMEOUT(aer, while_running, MIG_TIMEOUT)
{
	hit(_metadata, self, variant, VFIO_DEVICE_STATE_RUNNING);
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	precopy_fill(&self->a, PAGES / 2, PAGES, 2, BY_MMAP);
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	/* The next error is told as well */
	hit(_metadata, self, variant, VFIO_DEVICE_STATE_RUNNING);
	EXPECT_EQ(0, precopy_migrate(&self->a, &self->b, 7));
}

TEST_F_TIMEOUT(aer, while_in_pre_copy, MIG_TIMEOUT)
{
	ASSERT_EQ(0, mig_set_state(self->a.dev, VFIO_DEVICE_STATE_PRE_COPY, &self->fd));
	ASSERT_LT(0, mig_stream_read(&self->stream, self->fd, SZ_64K));
	hit(_metadata, self, variant, VFIO_DEVICE_STATE_PRE_COPY);
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	precopy_fill(&self->a, PAGES / 2, PAGES, 2, BY_MMAP);
	ASSERT_EQ(0, mig_set_state(self->a.dev, VFIO_DEVICE_STATE_STOP_COPY, NULL));
	finish(_metadata, self);
	EXPECT_EQ(0, precopy_migrate(&self->a, &self->b, 7));
}

TEST_F_TIMEOUT(aer, while_in_stop_copy, MIG_TIMEOUT)
{
	ASSERT_EQ(0, mig_set_state(self->a.dev, VFIO_DEVICE_STATE_STOP_COPY, &self->fd));
	ASSERT_LT(0, mig_stream_read(&self->stream, self->fd, SZ_64K));
	hit(_metadata, self, variant, VFIO_DEVICE_STATE_STOP_COPY);
	finish(_metadata, self);
	EXPECT_EQ(0, precopy_migrate(&self->a, &self->b, 7));
}

/* Half of the other device's contents have arrived. */
TEST_F_TIMEOUT(aer, while_resuming, MIG_TIMEOUT)
{
	struct mig_stream *s = &self->stream;
	size_t half;

	precopy_fill(&self->b, 10, PAGES, 3, BY_MMAP);
	ASSERT_EQ(0, mig_save(self->b.dev, s));
	half = s->len / 2;
	ASSERT_EQ(0, mig_set_state(self->a.dev, VFIO_DEVICE_STATE_RESUMING, &self->fd));
	ASSERT_EQ(0, mig_write_all(self->fd, s->data, half, SZ_64K, NULL));
	hit(_metadata, self, variant, VFIO_DEVICE_STATE_RESUMING);
	ASSERT_EQ(0, mig_write_all(self->fd, s->data + half, s->len - half, SZ_64K, NULL));
	ASSERT_EQ(0, mig_set_state(self->a.dev, VFIO_DEVICE_STATE_RUNNING, NULL));
	EXPECT_EQ(0, precopy_differ(&self->a, self->b.shadow));
	EXPECT_EQ(0, precopy_migrate(&self->a, &self->b, 7));
}

/* An error from the time when there was no eventfd is not told afterwards. */
TEST_F_TIMEOUT(aer, no_eventfd, MIG_TIMEOUT)
{
	ASSERT_EQ(0, set_err_eventfd(self->a.fd, -1));
	errors(_metadata, variant->severity);
	check_untouched(_metadata, self, VFIO_DEVICE_STATE_RUNNING);
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	ASSERT_EQ(0, set_err_eventfd(self->a.fd, self->err));
	EXPECT_EQ(0, signals(self->err));
	EXPECT_EQ(0, precopy_migrate(&self->a, &self->b, 7));
}

/*
 * The reset that follows a fatal error takes the bound function's addresses away. VFIO
 * puts them back when the device is closed.
 */
TEST_F_TIMEOUT(aer, close_restores_the_function, MIG_TIMEOUT)
{
	u8 bars[BARS_SIZE];

	hit(_metadata, self, variant, VFIO_DEVICE_STATE_RUNNING);
	read_bars(bars);
	EXPECT_EQ(variant->severity == &nonfatal, !memcmp(self->bars, bars, BARS_SIZE));
	precopy_close(&self->a);
	read_bars(bars);
	EXPECT_EQ(0, memcmp(self->bars, bars, BARS_SIZE));
	precopy_open(&self->a, bdfs[0], NULL, SIZE);
	EXPECT_EQ(0, precopy_migrate(&self->a, &self->b, 7));
}

/* ------------------------------------------------------------------------ */
/* A device that acts                                                       */

#define STAMPED		SZ_64K
#define VECTOR		1

FIXTURE(engine_aer) {
	struct engine e;
	pthread_t thread;
	bool stamping;		/* the thread is there */
	atomic_bool end;
	atomic_ulong done;	/* commands that were right in all */
	u64 wrong;
	int err;		/* eventfd */
};

FIXTURE_VARIANT(engine_aer) {
	const struct severity *severity;
};

FIXTURE_VARIANT_ADD(engine_aer, nonfatal) { .severity = &nonfatal };
FIXTURE_VARIANT_ADD(engine_aer, fatal) { .severity = &fatal };

typedef FIXTURE_DATA(engine_aer) engine_aer_t;

/* A command ends, has stored each page, and raises its interrupt once. */
static bool stamps(struct engine *e, u64 seq)
{
	struct engine_command command = {
		.op = PRECOPY_ENGINE_OP_STAMP, .dst = ENGINE_IOVA,
		.len = STAMPED, .seq = seq, .vector = VECTOR,
	};
	u64 page;

	if (engine_run(e, &command) || engine_irqs_wait(e, VECTOR) != 1)
		return false;
	for (page = 0; page < STAMPED / PRECOPY_PAGE; page++)
		if (!engine_stamped(e->ram + page * PRECOPY_PAGE, seq, page))
			return false;
	return true;
}

static void *stamp_on(void *arg)
{
	engine_aer_t *self = arg;
	u64 seq = 0;

	while (!self->end) {
		if (stamps(&self->e, ++seq))
			self->done++;
		else
			self->wrong++;
	}
	return NULL;
}

/* Also after a failure, before the device is closed that the thread uses */
static void stop_stamping(engine_aer_t *self)
{
	if (!self->stamping)
		return;
	self->end = true;
	pthread_join(self->thread, NULL);
	self->stamping = false;
}

FIXTURE_SETUP(engine_aer)
{
	engine_open(&self->e, bdfs[0], precopy_mode(NULL), SIZE, STAMPED);
	engine_irqs_enable(&self->e);
	self->err = eventfd(0, EFD_NONBLOCK);
	ASSERT_LE(0, self->err);
	ASSERT_EQ(0, set_err_eventfd(self->e.pd.fd, self->err));
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, stamp_on, self));
	self->stamping = true;
}

FIXTURE_TEARDOWN(engine_aer)
{
	stop_stamping(self);
	close(self->err);
	engine_close(&self->e);
}

static void wait_for_commands(struct __test_metadata *_metadata,
			      engine_aer_t *self, u64 nr)
{
	u64 end = precopy_now_ms() + PATIENCE_MS, before = self->done;

	while (self->done < before + nr && precopy_now_ms() < end)
		usleep(1000);
	EXPECT_LE(before + nr, self->done);
}

/* DMA and interrupts are not those of the bound function, whose bus may be reset. */
TEST_F_TIMEOUT(engine_aer, commands_go_on, MIG_TIMEOUT)
{
	wait_for_commands(_metadata, self, 3);
	errors(_metadata, variant->severity);
	EXPECT_EQ(1, signals(self->err));
	wait_for_commands(_metadata, self, 3);
	EXPECT_EQ(VFIO_DEVICE_STATE_RUNNING, mig_get_state(self->e.pd.dev));
	stop_stamping(self);
	EXPECT_EQ(0, self->wrong);
}

/* ------------------------------------------------------------------------ */
/* The interrupt, without an error                                          */

TEST(irq_info)
{
	struct vfio_irq_info info = {
		.argsz = sizeof(info),
		.index = VFIO_PCI_ERR_IRQ_INDEX,
	};
	struct precopy_dev pd;

	precopy_open(&pd, bdfs[0], NULL, SIZE);
	ASSERT_EQ(0, ioctl(pd.fd, VFIO_DEVICE_GET_IRQ_INFO, &info));
	EXPECT_EQ(1, info.count);
	EXPECT_TRUE(info.flags & VFIO_IRQ_INFO_EVENTFD);
	precopy_close(&pd);
}

/* A VMM can signal itself, to see that its handler works. */
TEST(loopback)
{
	struct vfio_irq_set set = {
		.argsz = sizeof(set),
		.index = VFIO_PCI_ERR_IRQ_INDEX,
		.count = 1,
		.flags = VFIO_IRQ_SET_DATA_NONE | VFIO_IRQ_SET_ACTION_TRIGGER,
	};
	int fd = eventfd(0, EFD_NONBLOCK);
	struct precopy_dev pd;

	precopy_open(&pd, bdfs[0], NULL, SIZE);
	ASSERT_EQ(0, set_err_eventfd(pd.fd, fd));
	EXPECT_EQ(0, signals(fd));
	EXPECT_EQ(0, ioctl(pd.fd, VFIO_DEVICE_SET_IRQS, &set));
	EXPECT_EQ(1, signals(fd));
	precopy_close(&pd);
	close(fd);
}

/* The port's service is there only if firmware has left the errors to the kernel. */
static bool port_handles_errors(void)
{
	char path[PATH_MAX];
	glob_t found;
	int ret;

	device_file(path, "../*:pcie002/driver");
	ret = glob(path, 0, NULL, &found);
	if (!ret)
		globfree(&found);
	return !ret;
}

static void require_aer(void)
{
	char path[PATH_MAX];

	if (nr_bdfs < 2)
		ksft_exit_skip("two devices are needed\n");
	if (access(INJECTOR, W_OK))
		ksft_exit_skip("no " INJECTOR ", which CONFIG_PCIEAER_INJECT makes\n");
	device_file(path, "aer_dev_fatal");
	if (access(path, R_OK))
		ksft_exit_skip("%s has no AER capability\n", bdfs[0]);
	if (!port_handles_errors())
		ksft_exit_skip("%s is below no port whose errors this kernel handles\n",
			       bdfs[0]);
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);
	require_aer();

	return test_harness_run(argc, argv);
}
