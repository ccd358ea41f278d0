// SPDX-License-Identifier: GPL-2.0-only
/*
 * Conformance, rules R53 to R58: each way to reset a device, from each state; and
 * what RESUMING must refuse and must take.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/wait.h>

#include <linux/limits.h>
#include <linux/pci_regs.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/mig_fixture.h>

#define MAX_AFFECTED	32
#define MAX_CAPS	48
#define TRIES		50
#define RESET_TRIES	100

static const u8 states[] = { RUN, RP, STOP, SC, RES, PC, PCP, ERR };

/* ------------------------------------------------------------------------ */
/* Ways to reset. Each returns 0, or -EAGAIN to be called again.             */

static int by_ioctl(struct mig_dev *m)
{
	return __vfio_pci_device_reset(m->dev);
}

static int by_sysfs(struct mig_dev *m)
{
	char path[PATH_MAX];
	int fd, ret;

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/reset", m->bdf);
	fd = open(path, O_WRONLY);
	if (fd < 0)
		return -errno;
	ret = write(fd, "1", 1) == 1 ? 0 : -errno;
	close(fd);

	return ret;
}

/* Where the capability is, or 0. */
static u8 find_cap(struct mig_dev *m, u8 id)
{
	u8 pos, loops = MAX_CAPS;

	if (!(vfio_pci_config_readw(m->dev, PCI_STATUS) & PCI_STATUS_CAP_LIST))
		return 0;
	pos = vfio_pci_config_readb(m->dev, PCI_CAPABILITY_LIST);
	for (; pos && loops; loops--) {
		if (vfio_pci_config_readb(m->dev, pos + PCI_CAP_LIST_ID) == id)
			return pos;
		pos = vfio_pci_config_readb(m->dev, pos + PCI_CAP_LIST_NEXT);
	}

	return 0;
}

static bool has_flr(struct mig_dev *m)
{
	u8 pos = find_cap(m, PCI_CAP_ID_EXP);

	return pos && vfio_pci_config_readl(m->dev, pos + PCI_EXP_DEVCAP) &
		      PCI_EXP_DEVCAP_FLR;
}

/* Whether it was done cannot be told from the write: the state does. */
static int by_flr(struct mig_dev *m)
{
	u8 pos = find_cap(m, PCI_CAP_ID_EXP);
	u16 control = vfio_pci_config_readw(m->dev, pos + PCI_EXP_DEVCTL);

	vfio_pci_config_writew(m->dev, pos + PCI_EXP_DEVCTL,
			       control | PCI_EXP_DEVCTL_BCR_FLR);

	return mig_get_state(m->dev) == RUN ? 0 : -EAGAIN;
}

static bool has_af_flr(struct mig_dev *m)
{
	u8 pos = find_cap(m, PCI_CAP_ID_AF);

	return pos && vfio_pci_config_readb(m->dev, pos + PCI_AF_CAP) &
		      PCI_AF_CAP_FLR;
}

static int by_af_flr(struct mig_dev *m)
{
	u8 pos = find_cap(m, PCI_CAP_ID_AF);

	vfio_pci_config_writeb(m->dev, pos + PCI_AF_CTRL, PCI_AF_CTRL_FLR);

	return mig_get_state(m->dev) == RUN ? 0 : -EAGAIN;
}

/* How many devices a hot reset affects, or a negative errno. */
static int hot_reset_affects(struct mig_dev *m)
{
	u8 buf[sizeof(struct vfio_pci_hot_reset_info) +
	       MAX_AFFECTED * sizeof(struct vfio_pci_dependent_device)] = {};
	struct vfio_pci_hot_reset_info *info = (void *)buf;

	info->argsz = sizeof(buf);
	if (ioctl(m->fd, VFIO_DEVICE_GET_PCI_HOT_RESET_INFO, info))
		return -errno;

	return info->count;
}

static int by_hot_reset(struct mig_dev *m)
{
	u8 buf[sizeof(struct vfio_pci_hot_reset) + sizeof(s32)] = {};
	struct vfio_pci_hot_reset *reset = (void *)buf;
	int ret;

	reset->argsz = sizeof(buf);
	/* Who came by a group proves with it what is theirs; the cdev does so. */
	reset->count = m->dev->group_fd > 0;
	if (reset->count)
		reset->group_fds[0] = m->dev->group_fd;
	ret = ioctl(m->fd, VFIO_DEVICE_PCI_HOT_RESET, reset) ? -errno : 0;
	/* Reset it has been, but the link does not say that it is up again. */
	if (ret == -ENOTTY && mig_get_state(m->dev) == RUN)
		ret = 0;

	return ret == -EBUSY ? -EAGAIN : ret;
}

static int reset_by(struct mig_dev *m, int (*how)(struct mig_dev *m))
{
	int i, ret = -EAGAIN;

	for (i = 0; i < RESET_TRIES && ret == -EAGAIN; i++) {
		ret = how(m);
		if (ret == -EAGAIN)
			usleep(10 * 1000);
	}

	return ret;
}

/*
 * From each state: RUNNING afterwards, the session is dead, and the device can
 * be saved. Returns the number of states in which it was not so.
 */
static int wrong_states(struct mig_dev *m, struct mig_stream *stream,
			int (*how)(struct mig_dev *m))
{
	char byte = 0;
	unsigned int i;
	int fd, err, ret, wrong = 0;
	bool right;

	for (i = 0; i < ARRAY_SIZE(states); i++) {
		if (!mig_has_state(m, states[i]))
			continue;
		mig_go_to(m, states[i], stream, &fd);
		err = reset_by(m, how);
		right = mig_state_is(m, RUN) && !err;
		if (fd >= 0) {
			ret = states[i] == RES || states[i] == ERR ?
			      write(fd, &byte, 1) : read(fd, &byte, 1);
			right = ret <= 0 && mig_poll(fd) && right;
			close(fd);
		}
		stream->len = 0;
		right = !mig_save(m->dev, stream) && right;
		right = !mig_set_state(m->dev, RUN, NULL) && right;
		if (!right)
			fprintf(stderr, "# reset in %s: %d\n",
				mig_state_name(states[i]), err);
		wrong += !right;
	}

	return wrong;
}

TEST_F_TIMEOUT(mig, device_reset_ends_the_migration, MIG_TIMEOUT) /* R53 */
{
	struct mig_dev *m = &self->m;

	if (!mig_has(m, HAS_MIGRATION) || !mig_has_reset(m))
		SKIP(return, "%s", m->lacks);
	ASSERT_EQ(0, mig_save_stopped(m, &self->stream));
	ASSERT_EQ(0, mig_set_state(m->dev, RUN, NULL));
	EXPECT_EQ(0, wrong_states(m, &self->stream, by_ioctl));
}

TEST_F_TIMEOUT(mig, sysfs_reset_ends_the_migration, MIG_TIMEOUT) /* R53 */
{
	struct mig_dev *m = &self->m;
	char path[PATH_MAX];

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/reset", m->bdf);
	if (access(path, W_OK))
		SKIP(return, "%s has no reset in sysfs", m->bdf);
	ASSERT_EQ(0, mig_save_stopped(m, &self->stream));
	ASSERT_EQ(0, mig_set_state(m->dev, RUN, NULL));
	EXPECT_EQ(0, wrong_states(m, &self->stream, by_sysfs));
}

TEST_F_TIMEOUT(mig, flr_ends_the_migration, MIG_TIMEOUT) /* R53 */
{
	struct mig_dev *m = &self->m;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	if (!has_flr(m))
		SKIP(return, "the user sees no FLR in config space");
	ASSERT_EQ(0, mig_save_stopped(m, &self->stream));
	ASSERT_EQ(0, mig_set_state(m->dev, RUN, NULL));
	EXPECT_EQ(0, wrong_states(m, &self->stream, by_flr));
}

TEST_F_TIMEOUT(mig, af_flr_ends_the_migration, MIG_TIMEOUT) /* R53 */
{
	struct mig_dev *m = &self->m;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	if (!has_af_flr(m))
		SKIP(return, "the user sees no AF FLR in config space");
	ASSERT_EQ(0, mig_save_stopped(m, &self->stream));
	ASSERT_EQ(0, mig_set_state(m->dev, RUN, NULL));
	EXPECT_EQ(0, wrong_states(m, &self->stream, by_af_flr));
}

TEST_F_TIMEOUT(mig, hot_reset_ends_the_migration, MIG_TIMEOUT) /* R53 */
{
	struct mig_dev *m = &self->m;
	int affected;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	affected = hot_reset_affects(m);
	if (affected < 0)
		SKIP(return, "no hot reset here: %s", strerror(-affected));
	if (affected != 1)
		SKIP(return, "a hot reset would affect %d functions", affected);
	ASSERT_EQ(0, mig_save_stopped(m, &self->stream));
	ASSERT_EQ(0, mig_set_state(m->dev, RUN, NULL));
	EXPECT_EQ(0, wrong_states(m, &self->stream, by_hot_reset));
}

/*
 * Takes the lock of the PCI device again and again, and does nothing with it:
 * it asks for a driver that the device has already.
 */
static void contend(const char *bdf)
{
	char path[PATH_MAX];
	int fd;

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/devices/%s/driver/bind",
			bdf);
	fd = open(path, O_WRONLY);
	while (fd >= 0)
		(void)!write(fd, bdf, strlen(bdf));
	_exit(1);
}

/* A reset that the lock prevented has not half happened. */
TEST_F_TIMEOUT(mig, contended_reset_is_eagain, MIG_TIMEOUT) /* R54 */
{
	int i, ret, contended = 0;
	struct mig_dev *m = &self->m;
	pid_t child;

	if (!mig_has(m, HAS_MIGRATION) || !mig_has_reset(m))
		SKIP(return, "%s", m->lacks);
	child = fork();
	ASSERT_LE(0, child);
	if (!child)
		contend(m->bdf);
	for (i = 0; i < TRIES && contended < 3; i++) {
		EXPECT_EQ(0, mig_set_state(m->dev, STOP, NULL));
		ret = __vfio_pci_device_reset(m->dev);
		EXPECT_TRUE(!ret || ret == -EAGAIN) TH_LOG("%d", ret);
		EXPECT_TRUE(mig_state_is(m, ret ? STOP : RUN));
		contended += ret == -EAGAIN;
	}
	kill(child, SIGKILL);
	waitpid(child, NULL, 0);
	if (!contended)
		TH_LOG("no reset found the device locked");
	mig_fresh(m);
	EXPECT_TRUE(mig_state_is(m, RUN));
}

/* ------------------------------------------------------------------------ */
/* RESUMING                                                                 */

/*
 * Does the device refuse these bytes, by write() or at the commit, without
 * coming to any state that it may not come to?
 */
static bool refused(struct mig_dev *m, const void *data, size_t len)
{
	int fd, ret, state;

	mig_fresh(m);
	VFIO_ASSERT_EQ(mig_set_state(m->dev, RES, &fd), 0);
	ret = mig_write_all(fd, data, len, SZ_64K, NULL);
	/* An error of write() alone ends nothing: the commit must fail too. */
	ret = mig_set_state(m->dev, STOP, NULL);
	close(fd);
	state = mig_get_state(m->dev);
	if (ret < 0 && (state == RES || state == ERR))
		return true;
	fprintf(stderr, "# %zu bytes: SET(STOP) returned %d, state %s\n", len, ret,
		mig_state_name(state));

	return false;
}

static bool loads(struct mig_dev *m, const struct mig_stream *stream)
{
	mig_fresh(m);

	return !mig_load(m->dev, stream, SZ_64K) &&
	       !mig_set_state(m->dev, RUN, NULL) && mig_state_is(m, RUN);
}

TEST_F_TIMEOUT(mig, incomplete_stream_is_refused, MIG_TIMEOUT) /* R56 */
{
	struct mig_dev *m = &self->m;
	size_t len;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	mig_fill(m, 1);
	ASSERT_EQ(0, mig_save(m->dev, &self->stream));
	len = self->stream.len;
	EXPECT_TRUE(refused(m, self->stream.data, 0));
	EXPECT_TRUE(refused(m, self->stream.data, 1));
	EXPECT_TRUE(refused(m, self->stream.data, len / 2));
	EXPECT_TRUE(refused(m, self->stream.data, len - 1));
	EXPECT_TRUE(loads(m, &self->stream));
	EXPECT_TRUE(mig_contents(m, 1));
}

TEST_F_TIMEOUT(mig, garbage_is_refused, MIG_TIMEOUT) /* R57 */
{
	static const u8 bytes[] = { 0x00, 0xff, 0xa5, 0x7f, 0x01 };
	struct mig_dev *m = &self->m;
	u8 junk[4096];
	unsigned int i;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	ASSERT_EQ(0, mig_save(m->dev, &self->stream));
	for (i = 0; i < ARRAY_SIZE(bytes); i++) {
		memset(junk, bytes[i], sizeof(junk));
		EXPECT_TRUE(refused(m, junk, 8));
		EXPECT_TRUE(refused(m, junk, sizeof(junk)))
			TH_LOG("bytes of %#x", bytes[i]);
	}
	srand(1);
	for (i = 0; i < sizeof(junk); i++)
		junk[i] = rand();
	EXPECT_TRUE(refused(m, junk, sizeof(junk)));
	EXPECT_TRUE(loads(m, &self->stream));
}

/* The first bytes, where lengths and versions are in every format. */
TEST_F_TIMEOUT(mig, damaged_header_is_refused, MIG_TIMEOUT) /* R57 */
{
	struct mig_dev *m = &self->m;
	struct mig_stream bad = {};
	size_t nr;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	ASSERT_EQ(0, mig_save(m->dev, &self->stream));
	nr = self->stream.len < 16 ? self->stream.len : 16;
	mig_stream_copy(&bad, &self->stream);
	memset(bad.data, 0xff, nr);
	EXPECT_TRUE(refused(m, bad.data, bad.len));
	memset(bad.data, 0, nr);
	EXPECT_TRUE(refused(m, bad.data, bad.len));
	EXPECT_TRUE(loads(m, &self->stream));
	mig_stream_free(&bad);
}

TEST_F_TIMEOUT(mig, trailing_bytes_are_refused, MIG_TIMEOUT) /* R57 */
{
	struct mig_dev *m = &self->m;
	struct mig_stream bad = {};
	u8 junk[100];

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	ASSERT_EQ(0, mig_save(m->dev, &self->stream));
	memset(junk, 0xee, sizeof(junk));
	mig_stream_copy(&bad, &self->stream);
	mig_stream_append(&bad, junk, sizeof(junk));
	EXPECT_TRUE(refused(m, bad.data, bad.len));
	EXPECT_TRUE(loads(m, &self->stream));
	mig_stream_free(&bad);
}

/* There and, if two devices were named, over to the other one. */
TEST_F_TIMEOUT(mig, copy_has_the_same_contents, MIG_TIMEOUT) /* R58 */
{
	bool two = mig_peer != mig_bdf, alike;
	struct mig_dev *m = &self->m, *to = m, peer;
	struct mig_stream again = {};

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	mig_fill(m, 7);
	alike = mig_saves_alike(m, &self->stream);
	if (two) {
		mig_open(&peer, mig_peer, variant->mode);
		to = &peer;
	}
	mig_fresh(to);
	ASSERT_EQ(0, mig_load(to->dev, &self->stream, SZ_64K));
	EXPECT_TRUE(mig_state_is(to, STOP));
	EXPECT_EQ(0, mig_save_stopped(to, &again));
	/* A stream may say where it comes from, but there is as much of it. */
	if (alike)
		EXPECT_EQ(self->stream.len, again.len);
	EXPECT_EQ(0, mig_set_state(to->dev, RUN, NULL));
	EXPECT_TRUE(mig_contents(to, 7));
	/* What has been loaded can be handed on. */
	EXPECT_TRUE(loads(to, &again));
	EXPECT_TRUE(mig_contents(to, 7));
	if (two)
		mig_close(&peer);
	mig_stream_free(&again);
}

int main(int argc, char *argv[])
{
	return mig_test_main(argc, argv);
}
