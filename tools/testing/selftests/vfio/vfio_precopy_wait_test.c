// SPDX-License-Identifier: GPL-2.0-only
/*
 * Waits and long calls that something else must be able to end: a fatal signal
 * ends a large read or write of the region after any page, tasks that wait for a
 * startup can be frozen meanwhile, by a cgroup or by a suspend, and go on waiting
 * afterwards, and a signal does not make a fault of the kernel's own spin. Nothing
 * is measured: a startup is delayed for so long that it is never the end of a wait.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_handoff.h>
#include <libvfio/precopy_states.h>
#include <libvfio/precopy_stream.h>

#include <libvfio/mig_harness.h>

#define CGROUP_ROOT	"/sys/fs/cgroup"
#define STARTING	((int)VFIO_PRECOPY_PHASE_STARTING)
#define SIZE		SZ_4M
#define BIG		SZ_128M
/* Of waits that a signal may begin anew; a spinning one has thousands */
#define FEW_FAULTS	8U

static char **bdfs;
static int nr_bdfs;

static int file_write(const char *dir, const char *file, const char *value)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	return precopy_file_write(path, value);
}

/* A letter as in ps: S and D are asleep; Z has ended */
static char state_of(pid_t pid)
{
	char path[64], line[512] = "", *end;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	f = fopen(path, "r");
	if (!f)
		return 'Z';
	if (!fgets(line, sizeof(line), f))
		line[0] = '\0';
	fclose(f);
	end = strrchr(line, ')');
	return end ? end[2] : 'Z';
}

/* ---- Large accesses ----------------------------------------------------------- */

FIXTURE(large) {
	struct precopy_dev a;
	volatile u64 *buf;	/* shared with a child */
};

typedef FIXTURE_DATA(large) large_t;

FIXTURE_SETUP(large)
{
	self->buf = mmap(NULL, BIG, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)self->buf);
	precopy_open(&self->a, bdfs[0], NULL, BIG);
}

FIXTURE_TEARDOWN(large)
{
	precopy_close(&self->a);
	munmap((void *)self->buf, BIG);
}

#define LAST	(BIG / sizeof(u64) - 1)

static pid_t start_access(large_t *self, bool write)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	if (write)
		pwrite(self->a.fd, (void *)self->buf, BIG, self->a.bar_offset);
	else
		pread(self->a.fd, (void *)self->buf, BIG, self->a.bar_offset);
	_exit(0);
}

/* Once it has begun, and if it has not ended yet: true if it was caught */
static bool kill_access(pid_t pid, const volatile u64 *begun)
{
	int status;

	while (!*begun && !waitpid(pid, &status, WNOHANG))
		;
	kill(pid, SIGKILL);
	return waitpid(pid, &status, 0) == pid && WIFSIGNALED(status);
}

/*
 * If the child was killed and had transferred everything nevertheless, it may have
 * been at its end: try again. A call that does not end early never does.
 */
#define TRIES	5

TEST_F_TIMEOUT(large, kill_ends_pread, MIG_TIMEOUT)
{
	const u64 one = 1;
	bool early = false;
	int try;

	ASSERT_EQ((ssize_t)sizeof(one), pwrite(self->a.fd, &one, sizeof(one),
					       self->a.bar_offset));
	ASSERT_EQ((ssize_t)sizeof(one), pwrite(self->a.fd, &one, sizeof(one),
					       self->a.bar_offset + BIG - 8));
	for (try = 0; try < TRIES && !early; try++) {
		self->buf[0] = 0;
		self->buf[LAST] = 0;
		early = kill_access(start_access(self, false), &self->buf[0]) &&
			!self->buf[LAST];
	}
	EXPECT_TRUE(early);
}

TEST_F_TIMEOUT(large, kill_ends_pwrite, MIG_TIMEOUT)
{
	const volatile u64 *bar = (u64 *)self->a.bar;
	bool early = false;
	u64 last;
	int try;

	self->buf[0] = 1;
	self->buf[LAST] = 1;
	for (try = 0; try < TRIES && !early; try++) {
		ASSERT_EQ(0, ioctl(self->a.fd, VFIO_DEVICE_RESET));
		early = kill_access(start_access(self, true), &bar[0]);
		ASSERT_EQ((ssize_t)sizeof(last),
			  pread(self->a.fd, &last, sizeof(last),
				self->a.bar_offset + BIG - 8));
		early &= !last;
	}
	EXPECT_TRUE(early);
}

/* ---- Waits for a startup ------------------------------------------------------ */

FIXTURE(wait) {
	struct precopy_dev a;
	struct wire wire;
	int fd;			/* the data fd of a, which is starting */
	int pipe[2];
	int ready[2];		/* told before a child begins to wait */
	char cgroup[128];
	pid_t pid[2];
};

typedef FIXTURE_DATA(wait) wait_t;

static void begin_startup(wait_t *self)
{
	VFIO_ASSERT_EQ(precopy_knob(bdfs[0], "startup_delay_ms",
				    HANDOFF_LONG_MS), 0);
	VFIO_ASSERT_EQ(mig_set_state(self->a.dev, RESUMING, &self->fd), 0);
	wire_init(&self->wire, bdfs[0], SIZE);
	wire_put_header(&self->wire);
	handoff_put_preface(&self->wire, 1);
	VFIO_ASSERT_EQ(mig_write_all(self->fd, self->wire.stream.data,
				     self->wire.stream.len, SZ_64K, NULL), 0);
	VFIO_ASSERT_EQ(precopy_knob(bdfs[0], "startup_delay_ms", 0), 0);
	VFIO_ASSERT_EQ(handoff_phase(self->fd), STARTING);
}

FIXTURE_SETUP(wait)
{
	if (!precopy_has_knob(bdfs[0], "startup_delay_ms"))
		SKIP(return, "no test knobs in debugfs");
	snprintf(self->cgroup, sizeof(self->cgroup),
		 CGROUP_ROOT "/precopy-wait-%d", getpid());
	if (mkdir(self->cgroup, 0755))
		SKIP(return, "no cgroups in " CGROUP_ROOT);
	ASSERT_EQ(0, pipe(self->pipe));
	ASSERT_EQ(0, pipe(self->ready));
	precopy_open(&self->a, bdfs[0], NULL, SIZE);
	begin_startup(self);
}

FIXTURE_TEARDOWN(wait)
{
	int i;

	file_write(self->cgroup, "cgroup.freeze", "0");
	for (i = 0; i < 2; i++) {
		if (self->pid[i] <= 0)
			continue;
		kill(self->pid[i], SIGKILL);
		waitpid(self->pid[i], NULL, 0);
	}
	close(self->fd);
	close(self->pipe[0]);
	close(self->pipe[1]);
	close(self->ready[0]);
	close(self->ready[1]);
	wire_free(&self->wire);
	precopy_close(&self->a);
	EXPECT_EQ(0, rmdir(self->cgroup));
}

/* What waits; returns a negative errno, or anything else */
typedef int (*wait_fn)(wait_t *self);

static void on_signal(int nr)
{
	(void)nr;
}

static void wait_in_child(wait_t *self, wait_fn fn)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGUSR1, &action, NULL);
	/* This sleeps, too, so the parent must not look before it is done */
	if (file_write(self->cgroup, "cgroup.procs", "0") ||
	    write(self->ready[1], "", 1) != 1)
		_exit(2);
	/* The user never sees that a wait was interrupted */
	_exit(fn(self) == -EINTR ? 3 : 0);
}

static pid_t start_wait(wait_t *self, wait_fn fn)
{
	pid_t pid = fork();
	char byte;

	VFIO_ASSERT_GE(pid, 0);
	if (!pid)
		wait_in_child(self, fn);
	VFIO_ASSERT_EQ(read(self->ready[0], &byte, 1), 1);
	while (!strchr("SDZ", state_of(pid)))
		usleep(1000);
	return pid;
}

static bool is_frozen(const char *cgroup)
{
	char path[256], line[64];
	bool found = false;
	FILE *f;

	snprintf(path, sizeof(path), "%s/cgroup.events", cgroup);
	f = fopen(path, "r");
	if (!f)
		return false;
	while (fgets(line, sizeof(line), f))
		found |= !strcmp(line, "frozen 1\n");
	fclose(f);
	return found;
}

/* Only the end of the startup ends the patience */
static void freeze_and_thaw(struct __test_metadata *_metadata, wait_t *self)
{
	ASSERT_EQ(0, file_write(self->cgroup, "cgroup.freeze", "1"));
	while (!is_frozen(self->cgroup) && handoff_phase(self->fd) == STARTING)
		usleep(10000);
	EXPECT_TRUE(is_frozen(self->cgroup));
	ASSERT_EQ(STARTING, handoff_phase(self->fd));
	ASSERT_EQ(0, file_write(self->cgroup, "cgroup.freeze", "0"));
}

static void goes_on_waiting(struct __test_metadata *_metadata, pid_t pid)
{
	while (!strchr("SDZ", state_of(pid)))
		usleep(1000);
	EXPECT_EQ(0, waitpid(pid, NULL, WNOHANG));
}

static void ends_by_reset(struct __test_metadata *_metadata, wait_t *self)
{
	int status, i;

	ASSERT_EQ(0, ioctl(self->a.fd, VFIO_DEVICE_RESET));
	for (i = 0; i < 2; i++) {
		if (self->pid[i] <= 0)
			continue;
		ASSERT_EQ(self->pid[i], waitpid(self->pid[i], &status, 0));
		self->pid[i] = 0;
		ASSERT_TRUE(WIFEXITED(status));
		EXPECT_EQ(0, WEXITSTATUS(status));
	}
}

static void can_be_frozen(struct __test_metadata *_metadata, wait_t *self,
			  wait_fn fn)
{
	self->pid[0] = start_wait(self, fn);
	freeze_and_thaw(_metadata, self);
	goes_on_waiting(_metadata, self->pid[0]);
	/* Nor does a signal with a handler end it */
	kill(self->pid[0], SIGUSR1);
	goes_on_waiting(_metadata, self->pid[0]);
	ends_by_reset(_metadata, self);
}

static int by_pread(wait_t *self)
{
	u64 word;

	return pread(self->a.fd, &word, sizeof(word), self->a.bar_offset) < 0 ?
	       -errno : 0;
}

TEST_F_TIMEOUT(wait, freeze_pread, MIG_TIMEOUT)
{
	can_be_frozen(_metadata, self, by_pread);
}

static int by_pwrite(wait_t *self)
{
	u64 word = 1;

	return pwrite(self->a.fd, &word, sizeof(word), self->a.bar_offset) < 0 ?
	       -errno : 0;
}

TEST_F_TIMEOUT(wait, freeze_pwrite, MIG_TIMEOUT)
{
	can_be_frozen(_metadata, self, by_pwrite);
}

static int by_load(wait_t *self)
{
	return *(volatile u8 *)self->a.bar & 0;
}

TEST_F_TIMEOUT(wait, freeze_load, MIG_TIMEOUT)
{
	can_be_frozen(_metadata, self, by_load);
}

/* The barrier: INITIAL_END, of which all but the last byte is accepted at once */
static int by_barrier(wait_t *self)
{
	struct wire w = {};
	ssize_t ret, done = 0;

	wire_init(&w, bdfs[0], SIZE);
	wire_put_record(&w, WIRE_INITIAL_END, WIRE_MANDATORY, 0, NULL, 0);
	do {
		ret = write(self->fd, w.stream.data + done, w.stream.len - done);
		if (ret > 0)
			done += ret;
	} while (ret > 0 && done < (ssize_t)w.stream.len);
	return ret < 0 ? -errno : 0;
}

TEST_F_TIMEOUT(wait, freeze_barrier, MIG_TIMEOUT)
{
	can_be_frozen(_metadata, self, by_barrier);
}

static int by_commit(wait_t *self)
{
	return mig_set_state(self->a.dev, STOP, NULL);
}

TEST_F_TIMEOUT(wait, freeze_commit, MIG_TIMEOUT)
{
	can_be_frozen(_metadata, self, by_commit);
}

/* One waits for the startup, another one for the first. */
static void second_one(struct __test_metadata *_metadata, wait_t *self,
		       wait_fn first, wait_fn second)
{
	self->pid[1] = start_wait(self, first);
	can_be_frozen(_metadata, self, second);
}

TEST_F_TIMEOUT(wait, freeze_second_writer, MIG_TIMEOUT)
{
	second_one(_metadata, self, by_barrier, by_barrier);
}

TEST_F_TIMEOUT(wait, freeze_second_commit, MIG_TIMEOUT)
{
	second_one(_metadata, self, by_commit, by_commit);
}

/* The kernel copies from the BAR, and cannot return before it has. */
static int by_kernel(wait_t *self)
{
	return write(self->pipe[1], self->a.bar, 8) < 0 ? -errno : 0;
}

TEST_F_TIMEOUT(wait, signal_in_kernel_fault, MIG_TIMEOUT)
{
	u64 before, more = 0;

	self->pid[0] = start_wait(self, by_kernel);
	before = precopy_stat(bdfs[0], "waited_faults");
	kill(self->pid[0], SIGUSR1);
	while (state_of(self->pid[0]) != 'D' && more <= 1000)
		more = precopy_stat(bdfs[0], "waited_faults") - before;
	EXPECT_LE(precopy_stat(bdfs[0], "waited_faults") - before, FEW_FAULTS);
	EXPECT_EQ(0, waitpid(self->pid[0], NULL, WNOHANG));
	ends_by_reset(_metadata, self);
}

/* All of the machine is frozen for a moment, and nothing else happens. */
TEST_F_TIMEOUT(wait, suspend_in_kernel_fault, MIG_TIMEOUT)
{
	if (precopy_file_write("/sys/power/pm_test", "freezer"))
		SKIP(return, "the kernel cannot test a suspend");
	self->pid[0] = start_wait(self, by_kernel);
	EXPECT_EQ(0, precopy_file_write("/sys/power/state", "freeze"));
	precopy_file_write("/sys/power/pm_test", "none");
	goes_on_waiting(_metadata, self->pid[0]);
	ends_by_reset(_metadata, self);
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
