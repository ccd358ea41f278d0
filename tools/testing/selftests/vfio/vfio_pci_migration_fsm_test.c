// SPDX-License-Identifier: GPL-2.0-only
/* Conformance, rules R11 to R26: the state machine. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <linux/pci_regs.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/mig_fixture.h>

#define POISON		0x5a5a5a5a
#define SETTLE_LOOKS	20
#define SETTLE_US	2000
#define NOT_A_FD	(-2)

static const u8 states[] = { RUN, RP, PC, PCP, STOP, SC, RES, ERR };

/*
 * What becomes of a request, written out by hand, in the order of the states
 * above: '.' it is granted, 'f' with a data fd, 'x' it is refused. It does not
 * depend on which of the optional states a device has; those that it lacks
 * are refused, and no longer on the way.
 */
static const char * const requests[] = {
	/*	       to  RUN RP PC PCP STOP SC RES ERR */
	/* from RUN  */	"..ff.ffx",
	/* RP */	"..ff.ffx",
	/* PC */	"......fx",
	/* PCP */	"......fx",
	/* STOP */	"..ff.ffx",
	/* SC */	"..xx..fx",
	/* RES */	"..ff.f.x",
	/* ERR */	"xxxxxxxx",
};

/* False, and a line on stderr, if it is not what the table says. */
static bool try_request(struct mig_dev *m, u8 from, u8 to, char want)
{
	int fd = NOT_A_FD, ret = mig_set_state(m->dev, to, &fd);
	bool right = true;

	if (want == 'x') {
		right = ret < 0 && fd == -1;
		if (from != ERR)
			right = right && ret == -EINVAL;
		right = mig_state_is(m, from) && right;
	} else {
		right = !ret && (want == 'f' ? fd >= 0 : fd == -1);
		right = mig_state_is(m, to) && right;
	}
	if (!right)
		fprintf(stderr, "# %s -> %s: returned %d, fd %d\n",
			mig_state_name(from), mig_state_name(to), ret, fd);
	mig_close_fd(fd);

	return right;
}

TEST_F_TIMEOUT(mig, all_pairs_of_states, 300) /* R17, R18, R19, R21 */
{
	struct mig_dev *m = &self->m;
	unsigned int i, k;
	char want;
	int fd;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	mig_fill(m, 1);
	ASSERT_EQ(0, mig_save(m->dev, &self->stream));

	for (i = 0; i < ARRAY_SIZE(states); i++) {
		if (!mig_has_state(m, states[i]))
			continue;
		for (k = 0; k < ARRAY_SIZE(states); k++) {
			want = mig_has_state(m, states[k]) ? requests[i][k] : 'x';
			mig_fresh(m);
			ASSERT_TRUE(mig_state_is(m, RUN));
			/* Not every device can be brought to ERROR. */
			if (mig_go_to(m, states[i], &self->stream, &fd))
				EXPECT_TRUE(try_request(m, states[i], states[k],
							want));
			mig_close_fd(fd);
		}
	}
}

/* Asking for the state that is there changes nothing, and ends no session. */
TEST_F_TIMEOUT(mig, same_state_changes_nothing, MIG_TIMEOUT) /* R11 */
{
	struct mig_dev *m = &self->m;
	unsigned int i;
	int fd, other;
	ssize_t ret;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	for (i = 0; i < ARRAY_SIZE(states); i++) {
		if (states[i] == ERR || !mig_has_state(m, states[i]))
			continue;
		mig_fresh(m);
		ASSERT_EQ(0, mig_set_state(m->dev, states[i], &fd));
		EXPECT_EQ(0, mig_set_state(m->dev, states[i], &other));
		EXPECT_EQ(-1, other);
		EXPECT_TRUE(mig_state_is(m, states[i]));
		if (states[i] == SC) {
			ret = mig_stream_drain(&self->stream, fd, 4096);
			EXPECT_EQ(0, ret);
			EXPECT_LT(0, self->stream.len);
		} else if (states[i] == PC || states[i] == PCP) {
			EXPECT_LT(0, mig_stream_read(&self->stream, fd, 10));
		} else if (states[i] == RES) {
			EXPECT_EQ(0, write(fd, "", 0));
		}
		mig_close_fd(fd);
	}
}

TEST_F_TIMEOUT(mig, unknown_state_is_einval, MIG_TIMEOUT) /* R12 */
{
	static const u32 bad[] = { ERR, 8, 9, 0x80000000, ~0U };
	struct mig_dev *m = &self->m;
	unsigned int i, k;
	int fd, other;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	for (i = 0; i < ARRAY_SIZE(states); i++) {
		if (states[i] == ERR || !mig_has_state(m, states[i]))
			continue;
		mig_fresh(m);
		ASSERT_EQ(0, mig_set_state(m->dev, states[i], &fd));
		for (k = 0; k < ARRAY_SIZE(bad); k++) {
			EXPECT_EQ(-EINVAL, mig_set_state(m->dev, bad[k], &other));
			EXPECT_EQ(-1, other);
			EXPECT_TRUE(mig_state_is(m, states[i]));
		}
		mig_close_fd(fd);
	}
}

TEST_F_TIMEOUT(mig, state_not_offered_is_einval, MIG_TIMEOUT) /* R13 */
{
	static const u8 from[] = { RUN, STOP, SC, RES };
	static const u8 optional[] = { RP, PC, PCP };
	struct mig_dev *m = &self->m;
	unsigned int i, k;
	int fd, other;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	if (mig_has(m, HAS_ALL))
		SKIP(return, "%s offers all states", m->bdf);
	for (i = 0; i < ARRAY_SIZE(from); i++) {
		mig_fresh(m);
		ASSERT_EQ(0, mig_set_state(m->dev, from[i], &fd));
		for (k = 0; k < ARRAY_SIZE(optional); k++) {
			if (mig_has_state(m, optional[k]))
				continue;
			EXPECT_EQ(-EINVAL,
				  mig_set_state(m->dev, optional[k], &other));
			EXPECT_EQ(-1, other);
			EXPECT_TRUE(mig_state_is(m, from[i]));
		}
		mig_close_fd(fd);
	}
}

TEST_F_TIMEOUT(mig, stop_copy_to_precopy_is_einval, MIG_TIMEOUT) /* R14 */
{
	struct mig_dev *m = &self->m;
	int fd, other;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	mig_fill(m, 2);
	ASSERT_EQ(0, mig_set_state(m->dev, SC, &fd));
	ASSERT_LT(0, mig_stream_read(&self->stream, fd, 10));

	EXPECT_EQ(-EINVAL, mig_set_state(m->dev, PC, &other));
	EXPECT_EQ(-1, other);
	EXPECT_EQ(-EINVAL, mig_set_state(m->dev, PCP, &other));
	EXPECT_EQ(-1, other);
	EXPECT_TRUE(mig_state_is(m, SC));

	/* The session is as it was: the rest makes a stream that loads. */
	EXPECT_EQ(0, mig_stream_drain(&self->stream, fd, 1000));
	close(fd);
	mig_fresh(m);
	EXPECT_EQ(0, mig_load(m->dev, &self->stream, 4096));
	EXPECT_TRUE(mig_contents(m, 2));
}

/* In ERROR, or in RESUMING with a load that has failed. */
TEST_F_TIMEOUT(mig, only_reset_leaves_error, MIG_TIMEOUT) /* R15 */
{
	static const u8 to[] = { RUN, RP, STOP, SC, PC, PCP };
	struct mig_dev *m = &self->m;
	unsigned int i;
	bool error;
	int fd;

	if (!mig_has(m, HAS_MIGRATION) || !mig_has_reset(m))
		SKIP(return, "%s", m->lacks);
	error = mig_go_to(m, ERR, NULL, &fd);
	if (!error)
		TH_LOG("a failed load leaves it in RESUMING, not in ERROR");
	for (i = 0; i < ARRAY_SIZE(to); i++) {
		EXPECT_NE(0, mig_set_state(m->dev, to[i], NULL))
			TH_LOG("%s", mig_state_name(to[i]));
		EXPECT_TRUE(mig_state_is(m, error ? ERR : RES));
	}
	if (error)
		EXPECT_NE(0, mig_set_state(m->dev, RES, NULL));
	close(fd);
	mig_fresh(m);
	EXPECT_TRUE(mig_state_is(m, RUN));
	EXPECT_EQ(0, mig_save(m->dev, &self->stream));
}

/* What a request has reached on return, it stays in. */
TEST_F_TIMEOUT(mig, state_change_is_complete_on_return, MIG_TIMEOUT) /* R16 */
{
	struct mig_dev *m = &self->m;
	unsigned int i, k;
	int fd;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	for (i = 0; i < ARRAY_SIZE(states); i++) {
		if (states[i] == ERR || !mig_has_state(m, states[i]))
			continue;
		mig_fresh(m);
		ASSERT_EQ(0, mig_set_state(m->dev, states[i], &fd));
		for (k = 0; k < SETTLE_LOOKS; k++) {
			ASSERT_TRUE(mig_state_is(m, states[i]));
			usleep(SETTLE_US);
		}
		mig_close_fd(fd);
	}
}

/* The commit of a load belongs to the step from RESUMING to STOP. */
TEST_F_TIMEOUT(mig, failed_commit_does_not_reach_the_target_state, MIG_TIMEOUT) /* R17, R23 */
{
	static const u8 to[] = { STOP, RUN, RP, SC, PC, PCP };
	struct mig_dev *m = &self->m;
	unsigned int i;
	int fd, other, state;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	for (i = 0; i < ARRAY_SIZE(to); i++) {
		if (!mig_has_state(m, to[i]))
			continue;
		mig_fresh(m);
		ASSERT_EQ(0, mig_set_state(m->dev, RES, &fd));
		EXPECT_GT(0, mig_set_state(m->dev, to[i], &other))
			TH_LOG("nothing was loaded, but %s",
			       mig_state_name(to[i]));
		EXPECT_EQ(-1, other);
		state = mig_get_state(m->dev);
		EXPECT_TRUE(state == RES || state == ERR)
			TH_LOG("ended in %s", mig_state_name(state));
		close(fd);
	}
}

TEST_F_TIMEOUT(mig, data_fd_is_closed_on_exec, MIG_TIMEOUT) /* R18 */
{
	static const u8 first[] = { PC, PCP, SC, RES };
	struct mig_dev *m = &self->m;
	unsigned int i;
	int fd;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	for (i = 0; i < ARRAY_SIZE(first); i++) {
		if (!mig_has_state(m, first[i]))
			continue;
		mig_fresh(m);
		ASSERT_EQ(0, mig_set_state(m->dev, first[i], &fd));
		EXPECT_EQ(FD_CLOEXEC, fcntl(fd, F_GETFD) & FD_CLOEXEC);
		close(fd);
	}
}

TEST_F_TIMEOUT(mig, one_data_fd_from_precopy_to_the_end, MIG_TIMEOUT) /* R18 */
{
	struct vfio_precopy_info info = {};
	struct mig_dev *m = &self->m;
	int fd, other;

	if (!mig_has(m, HAS_PRE_COPY))
		SKIP(return, "%s", m->lacks);
	mig_fill(m, 3);
	ASSERT_EQ(0, mig_set_state(m->dev, PC, &fd));
	if (mig_has(m, HAS_P2P)) {
		EXPECT_EQ(0, mig_set_state(m->dev, PCP, &other));
		EXPECT_EQ(-1, other);
		EXPECT_EQ(0, mig_precopy_info(fd, &info));
		EXPECT_EQ(0, mig_set_state(m->dev, PC, &other));
		EXPECT_EQ(-1, other);
	}
	EXPECT_EQ(0, mig_precopy_info(fd, &info));
	EXPECT_EQ(0, mig_set_state(m->dev, SC, &other));
	EXPECT_EQ(-1, other);
	EXPECT_EQ(0, mig_stream_drain(&self->stream, fd, SZ_64K));
	close(fd);
	mig_fresh(m);
	EXPECT_EQ(0, mig_load(m->dev, &self->stream, SZ_64K));
	EXPECT_TRUE(mig_contents(m, 3));
}

/* All fields poisoned; the core writes the answer also when it refuses. */
TEST_F_TIMEOUT(mig, refused_request_returns_no_fd, MIG_TIMEOUT) /* R19 */
{
	struct vfio_device_feature_mig_state mig;
	static const u32 bad[] = { ERR, 8, ~0U };
	struct mig_dev *m = &self->m;
	unsigned int i;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		mig.device_state = bad[i];
		mig.data_fd = POISON;
		EXPECT_EQ(-EINVAL,
			  vfio_feature_set(m->fd,
					   VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
					   &mig, sizeof(mig)));
		EXPECT_EQ(-1, mig.data_fd);
	}
	mig.device_state = POISON;
	mig.data_fd = POISON;
	EXPECT_EQ(0, vfio_feature_get(m->fd, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
				      &mig, sizeof(mig)));
	EXPECT_EQ(RUN, mig.device_state);
	EXPECT_EQ(-1, mig.data_fd);
}

/* The requests that end with a new fd, over one step or several. */
static const struct {
	u8 from;
	u8 to;
} with_fd[] = {
	{ RUN, PC }, { RP, PCP }, { RUN, PCP }, { RP, PC }, { STOP, PC },
	{ STOP, SC }, { RUN, SC }, { STOP, RES }, { RUN, RES }, { PC, RES },
	{ SC, RES },
};

static int set_without_fds(struct mig_dev *m, u32 to)
{
	struct rlimit old, none = {};
	int fd, ret;

	VFIO_ASSERT_EQ(getrlimit(RLIMIT_NOFILE, &old), 0);
	none.rlim_max = old.rlim_max;
	VFIO_ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &none), 0);
	ret = mig_set_state(m->dev, to, &fd);
	VFIO_ASSERT_EQ(setrlimit(RLIMIT_NOFILE, &old), 0);
	if (!ret)
		mig_close_fd(fd);

	return ret;
}

/* The answer cannot be written, since its page is read-only. */
static int set_without_answer(struct mig_dev *m, u32 to)
{
	struct vfio_device_feature_mig_state *mig;
	struct vfio_device_feature *feature;
	int ret;

	feature = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	VFIO_ASSERT_NE((void *)feature, MAP_FAILED);
	feature->argsz = sizeof(*feature) + sizeof(*mig);
	feature->flags = VFIO_DEVICE_FEATURE_SET |
			 VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE;
	mig = (void *)feature->data;
	mig->device_state = to;
	VFIO_ASSERT_EQ(mprotect(feature, 4096, PROT_READ), 0);
	ret = ioctl(m->fd, VFIO_DEVICE_FEATURE, feature) ? -errno : 0;
	munmap(feature, 4096);

	return ret;
}

static bool pair_offered(struct mig_dev *m, unsigned int i)
{
	return mig_has_state(m, with_fd[i].from) && mig_has_state(m, with_fd[i].to);
}

typedef FIXTURE_DATA(mig) mig_t;

/* The state has changed although the fd could not be given out. */
static void each_without_fd(struct __test_metadata *_metadata, mig_t *self,
			    int (*set_state)(struct mig_dev *m, u32 to), int error)
{
	struct mig_dev *m = &self->m;
	long refs = mig_module_refs(m);
	unsigned int i;
	int fd;

	for (i = 0; i < ARRAY_SIZE(with_fd); i++) {
		if (!pair_offered(m, i))
			continue;
		mig_fresh(m);
		ASSERT_EQ(0, mig_set_state(m->dev, with_fd[i].from, &fd));
		EXPECT_EQ(error, set_state(m, with_fd[i].to));
		EXPECT_TRUE(mig_state_is(m, with_fd[i].to));
		mig_close_fd(fd);
		/* The session has an owner still, and can be ended. */
		if (with_fd[i].to != RES)
			EXPECT_EQ(0, mig_set_state(m->dev, RUN, NULL));
		mig_fresh(m);
		EXPECT_TRUE(mig_state_is(m, RUN));
		EXPECT_EQ(refs, mig_module_refs(m))
			TH_LOG("a file has leaked");
	}
	EXPECT_EQ(0, mig_save(m->dev, &self->stream));
}

TEST_F_TIMEOUT(mig, full_fd_table_is_emfile, MIG_TIMEOUT) /* R20 */
{
	if (!mig_has(&self->m, HAS_MIGRATION))
		SKIP(return, "%s", self->m.lacks);
	each_without_fd(_metadata, self, set_without_fds, -EMFILE);
}

TEST_F_TIMEOUT(mig, unwritable_answer_is_efault, MIG_TIMEOUT) /* R20 */
{
	if (!mig_has(&self->m, HAS_MIGRATION))
		SKIP(return, "%s", self->m.lacks);
	each_without_fd(_metadata, self, set_without_answer, -EFAULT);
}

/* On the way to STOP it passes RUNNING: what was not read is lost. */
TEST_F_TIMEOUT(mig, precopy_to_stop_ends_the_session, MIG_TIMEOUT) /* R22 */
{
	static const u8 from[] = { PC, PCP };
	struct vfio_precopy_info info = {};
	struct mig_dev *m = &self->m;
	unsigned int i;
	char byte;
	int fd;

	if (!mig_has(m, HAS_PRE_COPY))
		SKIP(return, "%s", m->lacks);
	for (i = 0; i < ARRAY_SIZE(from); i++) {
		if (!mig_has_state(m, from[i]))
			continue;
		mig_fresh(m);
		mig_fill(m, 4 + i);
		ASSERT_EQ(0, mig_set_state(m->dev, from[i], &fd));
		ASSERT_EQ(0, mig_set_state(m->dev, STOP, NULL));
		EXPECT_GE(0, read(fd, &byte, 1));
		EXPECT_GT(0, mig_precopy_info(fd, &info));
		close(fd);
		/* Nothing is lost for the next one. */
		self->stream.len = 0;
		EXPECT_EQ(0, mig_save(m->dev, &self->stream));
		mig_fresh(m);
		EXPECT_EQ(0, mig_load(m->dev, &self->stream, SZ_64K));
		EXPECT_TRUE(mig_contents(m, 4 + i));
	}
}

static void touch_bars(struct mig_dev *m)
{
	struct vfio_region_info *info;
	u32 word;
	int i;

	for (i = 0; i < PCI_STD_NUM_BARS; i++) {
		info = &m->dev->bars[i].info;
		if (info->size && info->flags & VFIO_REGION_INFO_FLAG_READ)
			(void)!pread(m->fd, &word, sizeof(word), info->offset);
	}
}

/* Stopped or not, config space answers; a touch of the BARs hurts nobody. */
TEST_F_TIMEOUT(mig, stopped_device_answers, MIG_TIMEOUT) /* R24 */
{
	static const u8 stopped[] = { STOP, SC, RES };
	struct mig_dev *m = &self->m;
	unsigned int i;
	u16 command;
	u32 id;
	int fd;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	vfio_pci_cmd_set(m->dev, PCI_COMMAND_MEMORY);
	command = vfio_pci_config_readw(m->dev, PCI_COMMAND);
	id = vfio_pci_config_readl(m->dev, PCI_VENDOR_ID);
	for (i = 0; i < ARRAY_SIZE(stopped); i++) {
		mig_fresh(m);
		ASSERT_EQ(0, mig_set_state(m->dev, stopped[i], &fd));
		EXPECT_EQ(id, vfio_pci_config_readl(m->dev, PCI_VENDOR_ID));
		vfio_pci_cmd_set(m->dev, PCI_COMMAND_MEMORY);
		EXPECT_EQ(command, vfio_pci_config_readw(m->dev, PCI_COMMAND));
		touch_bars(m);
		EXPECT_TRUE(mig_state_is(m, stopped[i]));
		mig_close_fd(fd);
	}
}

/* A device that has stopped does not change: it saves the same once more. */
TEST_F_TIMEOUT(mig, stopped_device_does_not_change, MIG_TIMEOUT) /* R24 */
{
	struct mig_dev *m = &self->m;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	mig_fill(m, 6);
	if (!mig_saves_alike(m, &self->stream))
		SKIP(return, "%s, which is no proof", m->lacks);
	EXPECT_TRUE(mig_state_is(m, STOP));
}

int main(int argc, char *argv[])
{
	return mig_test_main(argc, argv);
}
