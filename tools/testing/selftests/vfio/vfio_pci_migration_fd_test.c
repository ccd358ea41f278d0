// SPDX-License-Identifier: GPL-2.0-only
/* Conformance, rules R27 to R37: the data fds. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>
#include <sys/wait.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/mig_fixture.h>

#define UNKNOWN_IOCTL	_IO(VFIO_TYPE, VFIO_BASE + 99)
#define SMALL_CHUNKS	2048
#define KILLS		8
#define DYING_MS	60000

/* The states in which sessions begin. */
static const u8 begins[] = { PC, PCP, SC, RES };

TEST_F_TIMEOUT(mig, data_fd_is_not_seekable, MIG_TIMEOUT) /* R27 */
{
	struct mig_dev *m = &self->m;
	unsigned int i;
	char byte = 0;
	int fd;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	for (i = 0; i < ARRAY_SIZE(begins); i++) {
		if (!mig_has_state(m, begins[i]))
			continue;
		mig_fresh(m);
		ASSERT_EQ(0, mig_set_state(m->dev, begins[i], &fd));
		EXPECT_EQ(-1, lseek(fd, 0, SEEK_SET));
		EXPECT_EQ(ESPIPE, errno);
		EXPECT_EQ(-1, pread(fd, &byte, 1, 0));
		EXPECT_EQ(ESPIPE, errno) TH_LOG("%s", mig_state_name(begins[i]));
		EXPECT_EQ(-1, pwrite(fd, &byte, 1, 0));
		EXPECT_EQ(ESPIPE, errno) TH_LOG("%s", mig_state_name(begins[i]));
		close(fd);
	}
}

TEST_F_TIMEOUT(mig, data_fd_is_one_way, MIG_TIMEOUT) /* R28 */
{
	struct mig_dev *m = &self->m;
	unsigned int i;
	char byte = 0;
	int fd;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	for (i = 0; i < ARRAY_SIZE(begins); i++) {
		if (!mig_has_state(m, begins[i]))
			continue;
		mig_fresh(m);
		ASSERT_EQ(0, mig_set_state(m->dev, begins[i], &fd));
		EXPECT_EQ(-1, begins[i] == RES ? read(fd, &byte, 1) :
						 write(fd, &byte, 1));
		EXPECT_EQ(EBADF, errno) TH_LOG("%s", mig_state_name(begins[i]));
		close(fd);
	}
}

TEST_F_TIMEOUT(mig, unknown_ioctl_is_enotty, MIG_TIMEOUT) /* R29 */
{
	struct vfio_precopy_info info = { .argsz = sizeof(info) };
	struct mig_dev *m = &self->m;
	unsigned int i;
	int fd;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	for (i = 0; i < ARRAY_SIZE(begins); i++) {
		if (!mig_has_state(m, begins[i]))
			continue;
		mig_fresh(m);
		ASSERT_EQ(0, mig_set_state(m->dev, begins[i], &fd));
		EXPECT_EQ(-1, ioctl(fd, UNKNOWN_IOCTL, &info));
		EXPECT_EQ(ENOTTY, errno) TH_LOG("%s", mig_state_name(begins[i]));
		if (begins[i] == RES) {
			EXPECT_EQ(-1, ioctl(fd, VFIO_MIG_GET_PRECOPY_INFO, &info));
			EXPECT_EQ(ENOTTY, errno);
		}
		close(fd);
	}
}

/* No byte goes through an fd whose session is over, and nobody waits for one. */
static bool is_dead(u8 state, int fd)
{
	struct vfio_precopy_info info = {};
	char byte = 0;
	bool dead;

	dead = (state == RES ? write(fd, &byte, 1) : read(fd, &byte, 1)) <= 0;
	/* Rule R31 */
	dead = mig_poll(fd) && dead;
	if (state != RES)
		dead = mig_precopy_info(fd, &info) < 0 && dead;

	return dead;
}

TEST_F_TIMEOUT(mig, data_fd_is_dead_after_its_session, MIG_TIMEOUT) /* R30, R31 */
{
	static const struct {
		u8 state;
		u8 next;
	} endings[] = {
		{ PC, RUN }, { PCP, RP }, { PC, STOP }, { PC, RES },
		{ SC, STOP }, { SC, RUN }, { SC, RES },
		{ RES, STOP }, { RES, RUN }, { RES, SC },
	};
	struct mig_dev *m = &self->m;
	unsigned int i;
	int fd;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	ASSERT_EQ(0, mig_save(m->dev, &self->stream));
	for (i = 0; i < ARRAY_SIZE(endings); i++) {
		if (!mig_has_state(m, endings[i].state) ||
		    !mig_has_state(m, endings[i].next))
			continue;
		mig_fresh(m);
		mig_go_to(m, endings[i].state, &self->stream, &fd);
		ASSERT_EQ(0, mig_set_state(m->dev, endings[i].next, NULL));
		EXPECT_TRUE(is_dead(endings[i].state, fd))
			TH_LOG("%s -> %s", mig_state_name(endings[i].state),
			       mig_state_name(endings[i].next));
		close(fd);
	}
}

TEST_F_TIMEOUT(mig, data_fd_is_dead_after_reset, MIG_TIMEOUT) /* R30, R31 */
{
	struct mig_dev *m = &self->m;
	unsigned int i;
	int fd;

	if (!mig_has(m, HAS_MIGRATION) || !mig_has_reset(m))
		SKIP(return, "%s", m->lacks);
	for (i = 0; i < ARRAY_SIZE(begins); i++) {
		if (!mig_has_state(m, begins[i]))
			continue;
		ASSERT_EQ(0, mig_set_state(m->dev, begins[i], &fd));
		mig_fresh(m);
		EXPECT_TRUE(is_dead(begins[i], fd))
			TH_LOG("%s", mig_state_name(begins[i]));
		close(fd);
	}
}

TEST_F_TIMEOUT(mig, data_fd_is_dead_after_close, MIG_TIMEOUT) /* R30, R31 */
{
	struct mig_dev *m = &self->m;
	unsigned int i;
	int fd;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	for (i = 0; i < ARRAY_SIZE(begins); i++) {
		if (!mig_has_state(m, begins[i]))
			continue;
		ASSERT_EQ(0, mig_set_state(m->dev, begins[i], &fd));
		mig_close(m);
		EXPECT_TRUE(is_dead(begins[i], fd))
			TH_LOG("%s", mig_state_name(begins[i]));
		mig_open(m, mig_bdf, variant->mode);
		/* Nor does it come alive again. */
		EXPECT_TRUE(is_dead(begins[i], fd))
			TH_LOG("%s", mig_state_name(begins[i]));
		close(fd);
	}
}

/* Whoever closes the fd early loses the data and nothing else. */
TEST_F_TIMEOUT(mig, data_fd_may_be_closed_early, MIG_TIMEOUT) /* R32 */
{
	struct mig_dev *m = &self->m;
	int fd;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	if (mig_has(m, HAS_PRE_COPY)) {
		ASSERT_EQ(0, mig_set_state(m->dev, PC, &fd));
		close(fd);
		EXPECT_EQ(0, mig_set_state(m->dev, SC, NULL));
		EXPECT_EQ(0, mig_set_state(m->dev, STOP, NULL));
	}
	ASSERT_EQ(0, mig_set_state(m->dev, SC, &fd));
	close(fd);
	EXPECT_EQ(0, mig_set_state(m->dev, RUN, NULL));
	EXPECT_EQ(0, mig_save(m->dev, &self->stream));

	mig_fresh(m);
	ASSERT_EQ(0, mig_set_state(m->dev, RES, &fd));
	ASSERT_EQ(0, mig_write_all(fd, self->stream.data, self->stream.len,
				   SZ_64K, NULL));
	close(fd);
	EXPECT_EQ(0, mig_set_state(m->dev, STOP, NULL));
}

/* An old fd never sees the data of a newer session. */
TEST_F_TIMEOUT(mig, old_data_fd_reads_nothing_of_a_new_session, MIG_TIMEOUT) /* R33 */
{
	struct mig_dev *m = &self->m;
	unsigned int i;
	int old, new;
	bool live;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	for (i = 0; i < ARRAY_SIZE(begins); i++) {
		if (!mig_has_state(m, begins[i]))
			continue;
		mig_fresh(m);
		ASSERT_EQ(0, mig_save(m->dev, &self->stream));
		ASSERT_EQ(0, mig_set_state(m->dev, RUN, NULL));
		mig_go_to(m, begins[i], &self->stream, &old);
		ASSERT_EQ(0, mig_set_state(m->dev, RUN, NULL));
		mig_go_to(m, begins[i], &self->stream, &new);

		EXPECT_TRUE(is_dead(begins[i], old))
			TH_LOG("%s", mig_state_name(begins[i]));
		close(old);
		self->stream.len = 0;
		/* The new one lives. */
		live = begins[i] == RES ? !mig_set_state(m->dev, STOP, NULL) :
		       mig_stream_read(&self->stream, new, SZ_64K) > 0;
		EXPECT_TRUE(live) TH_LOG("%s", mig_state_name(begins[i]));
		close(new);
		self->stream.len = 0;
	}
}

static int load_in_chunks(struct mig_dev *m, const struct mig_stream *stream,
			  const size_t *chunks, size_t nr)
{
	size_t pos = 0, len, i;
	int fd, ret;

	ret = mig_set_state(m->dev, RES, &fd);
	for (i = 0; !ret && pos < stream->len; i++) {
		len = chunks[i % nr] < stream->len - pos ? chunks[i % nr] :
							  stream->len - pos;
		ret = mig_write_all(fd, stream->data + pos, len, len, NULL);
		pos += len;
	}
	ret = ret ?: mig_set_state(m->dev, STOP, NULL);
	close(fd);

	return ret;
}

/* The order of the bytes counts, and not how they are cut. */
TEST_F_TIMEOUT(mig, any_chunking_loads, 300) /* R34 */
{
	static const size_t small[] = { 1 }, odd[] = { 1, 3, 4095, 17, 70001 };
	static const size_t whole[] = { ~0UL };
	struct mig_dev *m = &self->m;
	struct mig_stream rest;
	size_t pos;
	int fd;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	mig_fill(m, 1);
	ASSERT_EQ(0, mig_save(m->dev, &self->stream));

	mig_fresh(m);
	EXPECT_EQ(0, load_in_chunks(m, &self->stream, odd, ARRAY_SIZE(odd)));
	EXPECT_TRUE(mig_contents(m, 1));
	mig_fresh(m);
	EXPECT_EQ(0, load_in_chunks(m, &self->stream, whole, 1));
	EXPECT_TRUE(mig_contents(m, 1));

	/* Byte by byte, as far as that is done in a moment. */
	mig_fresh(m);
	if (self->stream.len <= 32 * SMALL_CHUNKS) {
		EXPECT_EQ(0, load_in_chunks(m, &self->stream, small, 1));
		EXPECT_TRUE(mig_contents(m, 1));
		return;
	}
	ASSERT_EQ(0, mig_set_state(m->dev, RES, &fd));
	rest = self->stream;
	for (pos = 0; pos < rest.len; pos += SMALL_CHUNKS)
		ASSERT_EQ(0, mig_write_all(fd, rest.data + pos,
					   rest.len - pos < SMALL_CHUNKS ?
					   rest.len - pos : SMALL_CHUNKS,
					   pos ? SMALL_CHUNKS : 1, NULL));
	EXPECT_EQ(0, mig_set_state(m->dev, STOP, NULL));
	close(fd);
}

/* A fault in the reader's buffer makes no hole in the stream. */
TEST_F_TIMEOUT(mig, read_that_faults_loses_nothing, MIG_TIMEOUT) /* R35 */
{
	struct mig_dev *m = &self->m;
	struct mig_stream whole = {};
	u8 *buf;
	int fd;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	mig_fill(m, 1);
	if (!mig_saves_alike(m, &whole))
		SKIP(return, "%s", m->lacks);

	/* What is behind the first 1000 bytes of the buffer is not there. */
	buf = mig_end_of_page(1000);
	ASSERT_EQ(0, mig_set_state(m->dev, SC, &fd));
	while (self->stream.len < whole.len) {
		ssize_t ret = read(fd, buf, 3000);

		/* Nothing transferred, nothing lost: it may say so. */
		if (ret < 0 && errno == EFAULT)
			ret = read(fd, buf, 1000);
		ASSERT_LT(0, ret) TH_LOG("at byte %zu", self->stream.len);
		ASSERT_GE(1000, ret);
		mig_stream_append(&self->stream, buf, ret);
		if (self->stream.len == whole.len)
			break;
		ASSERT_EQ(-1, read(fd, buf + 1000, 10));
		ASSERT_EQ(EFAULT, errno);
	}
	EXPECT_EQ(0, mig_stream_drain(&self->stream, fd, 100));
	EXPECT_EQ(whole.len, self->stream.len);
	EXPECT_EQ(0, memcmp(whole.data, self->stream.data, whole.len));
	close(fd);
	mig_stream_free(&whole);
}

/* The same for what is written: nothing is lost, nothing comes twice. */
TEST_F_TIMEOUT(mig, write_that_faults_loses_nothing, MIG_TIMEOUT) /* R35 */
{
	struct mig_dev *m = &self->m;
	size_t len, more, done = 0;
	ssize_t ret;
	u8 *buf;
	int fd;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	mig_fill(m, 2);
	ASSERT_EQ(0, mig_save(m->dev, &self->stream));
	mig_fresh(m);

	buf = mig_end_of_page(1000);
	ASSERT_EQ(0, mig_set_state(m->dev, RES, &fd));
	while (done < self->stream.len) {
		len = self->stream.len - done;
		more = len > 1000 ? 2000 : 0;
		len = len > 1000 ? 1000 : len;
		memcpy(buf + 1000 - len, self->stream.data + done, len);
		ret = write(fd, buf + 1000 - len, len + more);
		if (ret < 0 && errno == EFAULT)
			ret = write(fd, buf + 1000 - len, len);
		ASSERT_LT(0, ret) TH_LOG("at byte %zu", done);
		ASSERT_GE(len, ret);
		done += ret;
		if (done == self->stream.len)
			break;
		ASSERT_EQ(-1, write(fd, buf + 1000, 10));
		ASSERT_EQ(EFAULT, errno);
	}
	EXPECT_EQ(0, mig_set_state(m->dev, STOP, NULL));
	EXPECT_TRUE(mig_contents(m, 2));
	close(fd);
}

TEST_F_TIMEOUT(mig, transfer_of_no_bytes_returns_zero, MIG_TIMEOUT) /* R36 */
{
	struct mig_dev *m = &self->m;
	unsigned int i;
	char byte;
	int fd;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	for (i = 0; i < ARRAY_SIZE(begins); i++) {
		if (!mig_has_state(m, begins[i]))
			continue;
		mig_fresh(m);
		ASSERT_EQ(0, mig_set_state(m->dev, begins[i], &fd));
		EXPECT_EQ(0, begins[i] == RES ? write(fd, &byte, 0) :
						read(fd, &byte, 0))
			TH_LOG("%s", mig_state_name(begins[i]));
		close(fd);
	}
}

/* Migrates for ever. */
static void migrate(struct mig_dev *m, const struct mig_stream *loaded)
{
	bool precopy = mig_has(m, HAS_PRE_COPY);
	struct mig_stream stream = {};
	int fd;

	for (;;) {
		if (precopy && !mig_set_state(m->dev, PC, &fd)) {
			mig_stream_drain(&stream, fd, SZ_64K);
			mig_set_state(m->dev, SC, NULL);
			mig_stream_drain(&stream, fd, SZ_64K);
			close(fd);
		} else {
			mig_save(m->dev, &stream);
		}
		stream.len = 0;
		mig_load(m->dev, loaded, 4096);
		mig_set_state(m->dev, RUN, NULL);
	}
}

static bool dies(pid_t child)
{
	int ms;

	kill(child, SIGKILL);
	for (ms = 0; ms < DYING_MS; ms++) {
		if (waitpid(child, NULL, WNOHANG) == child)
			return true;
		usleep(1000);
	}

	return false;
}

/* Wherever a process is in all this, it can be killed. */
TEST_F_TIMEOUT(mig, sigkill_ends_any_wait, 600) /* R37 */
{
	struct mig_dev *m = &self->m;
	pid_t child;
	int i;

	if (!mig_has(m, HAS_MIGRATION))
		SKIP(return, "%s", m->lacks);
	mig_fill(m, 3);
	ASSERT_EQ(0, mig_save(m->dev, &self->stream));
	for (i = 0; i < KILLS; i++) {
		mig_fresh(m);
		child = fork();
		ASSERT_LE(0, child);
		if (!child)
			migrate(m, &self->stream);
		usleep((i + 1) * 3571);
		ASSERT_TRUE(dies(child));
	}
	mig_fresh(m);
	EXPECT_TRUE(mig_state_is(m, RUN));
	EXPECT_EQ(0, mig_load(m->dev, &self->stream, SZ_64K));
	EXPECT_TRUE(mig_contents(m, 3));
}

int main(int argc, char *argv[])
{
	return mig_test_main(argc, argv);
}
