// SPDX-License-Identifier: GPL-2.0-only
/*
 * A page of the device's memory that has a hardware memory error, as far as
 * software can pretend that: whoever needs what was in it gets EIO, or SIGBUS where
 * it is mapped, all other pages can be used, and a reset gives a good page.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_states.h>
#include <libvfio/precopy_stream.h>

#include <libvfio/mig_harness.h>

/* So small that the unit is single pages: no more than one is lost to the host */
#define SIZE		SZ_1M
#define BAD		3
#define PAGES		8

static char **bdfs;
static int nr_bdfs;

FIXTURE(poison) {
	struct precopy_dev a;
	struct mig_stream stream;
};

typedef FIXTURE_DATA(poison) poison_t;

FIXTURE_SETUP(poison)
{
	precopy_open(&self->a, bdfs[0], NULL, SIZE);
	precopy_fill(&self->a, 0, PAGES, 1, BY_MMAP);
}

FIXTURE_TEARDOWN(poison)
{
	mig_stream_free(&self->stream);
	precopy_close(&self->a);
}

/*
 * The kernel marks the page, then finds that it is not one that it could replace,
 * and says so by an error. EINVAL: it knows nothing of memory errors.
 */
static bool poison(poison_t *self)
{
	int ret = madvise(self->a.bar + BAD * PRECOPY_PAGE, PRECOPY_PAGE,
			  MADV_HWPOISON);

	return !ret || errno != EINVAL;
}

static int read_page(poison_t *self, u64 page)
{
	u64 word;

	return pread(self->a.fd, &word, sizeof(word), self->a.bar_offset +
		     page * PRECOPY_PAGE) < 0 ? -errno : 0;
}

static int write_page(poison_t *self, u64 page)
{
	u64 word = 1;

	return pwrite(self->a.fd, &word, sizeof(word), self->a.bar_offset +
		      page * PRECOPY_PAGE) < 0 ? -errno : 0;
}

/* The signal that a load by a new page fault ends with, or 0 */
static int load_page(poison_t *self, u64 page)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		(void)*(volatile u8 *)(self->a.bar + page * PRECOPY_PAGE);
		_exit(0);
	}
	VFIO_ASSERT_EQ(waitpid(pid, &status, 0), pid);
	return WIFSIGNALED(status) ? WTERMSIG(status) : 0;
}

TEST_F_TIMEOUT(poison, accesses, MIG_TIMEOUT)
{
	if (!poison(self))
		SKIP(return, "the kernel cannot pretend memory errors");
	EXPECT_EQ(-EIO, read_page(self, BAD));
	EXPECT_EQ(-EIO, write_page(self, BAD));
	EXPECT_EQ(SIGBUS, load_page(self, BAD));
	EXPECT_EQ(0, read_page(self, BAD + 1));
	EXPECT_EQ(0, write_page(self, BAD - 1));
	EXPECT_EQ(0, load_page(self, BAD + 1));
	precopy_reset(&self->a);
	EXPECT_EQ(0, read_page(self, BAD));
	EXPECT_EQ(0, write_page(self, BAD));
	EXPECT_EQ(0, load_page(self, BAD));
}

TEST_F_TIMEOUT(poison, saving, MIG_TIMEOUT)
{
	int fd, ret;

	if (!poison(self))
		SKIP(return, "the kernel cannot pretend memory errors");
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &fd));
	ret = mig_stream_drain(&self->stream, fd, SZ_64K);
	/* An older kernel keeps a reference on the page, which has to wait then. */
	if (ret == -ENOMSG) {
		ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
		ret = mig_stream_drain(&self->stream, fd, SZ_64K);
	}
	EXPECT_EQ(-EIO, ret);
	/* It is not left out by trying again */
	EXPECT_EQ(-EIO, mig_stream_drain(&self->stream, fd, SZ_64K));
	close(fd);
	precopy_reset(&self->a);
	precopy_fill(&self->a, 0, PAGES, 2, BY_PWRITE);
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
