// SPDX-License-Identifier: GPL-2.0-only
/*
 * The steps between two states, as the driver's tracepoint tells them: each pair
 * of states is asked for, and what the device did is compared with the path that
 * it has to take.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/mig_device.h>
#include <libvfio/precopy_device.h>

#include <libvfio/mig_harness.h>

#define MEMORY_SIZE	SZ_1M
#define TRACING		"/sys/kernel/tracing/"
#define ARC_ENABLE	TRACING "events/precopy/precopy_arc/enable"
#define MAX_LINE	512

static const char *device_bdf;

FIXTURE(fsm) {
	struct precopy_dev pd;
	struct mig_stream stream;
	bool traced;
};

FIXTURE_VARIANT(fsm) {
	const char *mode;
};

#define FIXTURE_VARIANT_ADD_IOMMU_MODE(_mode)	\
FIXTURE_VARIANT_ADD(fsm, _mode) {		\
	.mode = #_mode,				\
}

/* The two ways in to a device that differ in code. */
FIXTURE_VARIANT_ADD_IOMMU_MODE(vfio_type1v2_iommu);
FIXTURE_VARIANT_ADD_IOMMU_MODE(iommufd);

#undef FIXTURE_VARIANT_ADD_IOMMU_MODE

FIXTURE_SETUP(fsm)
{
	precopy_knob(device_bdf, "no_precopy", 0);
	self->traced = !precopy_file_write(ARC_ENABLE, "1");
	precopy_open(&self->pd, device_bdf, variant->mode, MEMORY_SIZE);
}

FIXTURE_TEARDOWN(fsm)
{
	precopy_file_write(ARC_ENABLE, "0");
	mig_stream_free(&self->stream);
	precopy_close(&self->pd);
}

#define MAX_PATH	5

/*
 * Every pair of states: the steps that the device takes, an empty path for a
 * request that is refused, and whether the last step begins a session. Rule
 * R21, written out by hand so that nothing here is computed as the kernel
 * computes it. This device never comes to ERROR.
 */
static const struct arc {
	u8 from;
	u8 to;
	u8 path[MAX_PATH];
	bool fd;
} arcs[] = {
	{ RUN, RUN, { RUN } },
	{ RUN, RP, { RP } },
	{ RUN, PC, { PC }, true },
	{ RUN, PCP, { RP, PCP }, true },
	{ RUN, STOP, { RP, STOP } },
	{ RUN, SC, { RP, STOP, SC }, true },
	{ RUN, RES, { RP, STOP, RES }, true },
	{ RUN, ERR, {} },

	{ RP, RUN, { RUN } },
	{ RP, RP, { RP } },
	{ RP, PC, { RUN, PC }, true },
	{ RP, PCP, { PCP }, true },
	{ RP, STOP, { STOP } },
	{ RP, SC, { STOP, SC }, true },
	{ RP, RES, { STOP, RES }, true },
	{ RP, ERR, {} },

	{ PC, RUN, { RUN } },
	{ PC, RP, { RUN, RP } },
	{ PC, PC, { PC } },
	{ PC, PCP, { PCP } },
	{ PC, STOP, { RUN, RP, STOP } },
	{ PC, SC, { PCP, SC } },
	{ PC, RES, { RUN, RP, STOP, RES }, true },
	{ PC, ERR, {} },

	{ PCP, RUN, { RP, RUN } },
	{ PCP, RP, { RP } },
	{ PCP, PC, { PC } },
	{ PCP, PCP, { PCP } },
	{ PCP, STOP, { RP, STOP } },
	{ PCP, SC, { SC } },
	{ PCP, RES, { RP, STOP, RES }, true },
	{ PCP, ERR, {} },

	{ STOP, RUN, { RP, RUN } },
	{ STOP, RP, { RP } },
	{ STOP, PC, { RP, RUN, PC }, true },
	{ STOP, PCP, { RP, PCP }, true },
	{ STOP, STOP, { STOP } },
	{ STOP, SC, { SC }, true },
	{ STOP, RES, { RES }, true },
	{ STOP, ERR, {} },

	{ SC, RUN, { STOP, RP, RUN } },
	{ SC, RP, { STOP, RP } },
	{ SC, PC, {} },
	{ SC, PCP, {} },
	{ SC, STOP, { STOP } },
	{ SC, SC, { SC } },
	{ SC, RES, { STOP, RES }, true },
	{ SC, ERR, {} },

	{ RES, RUN, { STOP, RP, RUN } },
	{ RES, RP, { STOP, RP } },
	{ RES, PC, { STOP, RP, RUN, PC }, true },
	{ RES, PCP, { STOP, RP, PCP }, true },
	{ RES, STOP, { STOP } },
	{ RES, SC, { STOP, SC }, true },
	{ RES, RES, { RES } },
	{ RES, ERR, {} },
};

_Static_assert(ARRAY_SIZE(arcs) == 56, "all pairs, but none from ERROR");

/* What follows @key in @line, up to a blank. */
static void trace_word(const char *line, const char *key, char *word, size_t len)
{
	const char *at = strstr(line, key);

	word[0] = 0;
	if (at)
		snprintf(word, len, "%.*s", (int)strcspn(at + strlen(key), "\n "),
			 at + strlen(key));
}

/* Is this line of the trace the step from @from to @to, and did it succeed? */
static bool is_step(const char *line, u8 from, u8 to)
{
	char word[32];

	trace_word(line, "from=", word, sizeof(word));
	if (strcmp(word, mig_state_name(from)))
		return false;
	trace_word(line, "to=", word, sizeof(word));
	if (strcmp(word, mig_state_name(to)))
		return false;
	trace_word(line, "ret=", word, sizeof(word));

	return !strcmp(word, "0");
}

/* Exactly the steps of @arc, in their order, are in the trace. */
static bool steps_right(const struct arc *arc)
{
	u8 from = arc->from;
	bool right = true;
	char line[MAX_LINE];
	int nr = 0, i;
	FILE *f;

	f = fopen(TRACING "trace", "r");
	VFIO_ASSERT_NOT_NULL(f);
	while (fgets(line, sizeof(line), f)) {
		if (!strstr(line, "precopy_arc:") || !strstr(line, device_bdf))
			continue;
		if (nr == MAX_PATH || !arc->path[nr] ||
		    !is_step(line, from, arc->path[nr])) {
			fprintf(stderr, "# step %d: %s", nr, line);
			right = false;
			break;
		}
		from = arc->path[nr++];
	}
	fclose(f);
	for (i = nr; i < MAX_PATH; i++)
		right = right && !arc->path[i];
	if (!right)
		fprintf(stderr, "# %s -> %s: %d steps as expected\n",
			mig_state_name(arc->from), mig_state_name(arc->to), nr);

	return right;
}

/* RESUMING is entered with a stream, so that there is a way out. */
static int begin_at(struct vfio_pci_device *dev, u8 state,
		    const struct mig_stream *stream)
{
	int fd;

	VFIO_ASSERT_EQ(mig_set_state(dev, state, &fd), 0);
	if (state == RES)
		VFIO_ASSERT_EQ(mig_write_all(fd, stream->data, stream->len,
					     stream->len, NULL), 0);

	return fd;
}

/* To the state that is there already leads no step. */
static struct arc without_idle_step(const struct arc *arc)
{
	struct arc copy = *arc;

	if (copy.path[0] == copy.from)
		copy.path[0] = 0;

	return copy;
}

TEST_F_TIMEOUT(fsm, steps_are_traced, MIG_TIMEOUT) /* R21 */
{
	const struct arc *arc;
	struct arc want;
	int fd, new, ret;

	if (!self->traced)
		SKIP(return, "no tracepoint precopy_arc in tracefs");
	ASSERT_EQ(0, mig_save(self->pd.dev, &self->stream));

	for (arc = arcs; arc < arcs + ARRAY_SIZE(arcs); arc++) {
		precopy_reset(&self->pd);
		fd = begin_at(self->pd.dev, arc->from, &self->stream);
		ASSERT_EQ(0, precopy_file_write(TRACING "trace", "\n"));
		ret = mig_set_state(self->pd.dev, arc->to, &new);
		EXPECT_EQ(!arc->path[0], ret == -EINVAL);
		EXPECT_EQ(arc->fd, new >= 0);
		want = without_idle_step(arc);
		EXPECT_TRUE(steps_right(&want));
		mig_close_fd(fd);
		mig_close_fd(new);
	}
}

/* A step that fails is the last one, and is told with its error. */
TEST_F_TIMEOUT(fsm, failed_step_is_traced, MIG_TIMEOUT) /* R17, R23 */
{
	char line[MAX_LINE], word[32] = "", from[32] = "", to[32] = "";
	int fd, nr = 0;
	FILE *f;

	if (!self->traced)
		SKIP(return, "no tracepoint precopy_arc in tracefs");
	ASSERT_EQ(0, mig_set_state(self->pd.dev, RES, &fd));
	ASSERT_EQ(0, precopy_file_write(TRACING "trace", "\n"));
	EXPECT_EQ(-EINVAL, mig_set_state(self->pd.dev, RUN, NULL));
	f = fopen(TRACING "trace", "r");
	ASSERT_NE(NULL, f);
	while (fgets(line, sizeof(line), f)) {
		if (!strstr(line, "precopy_arc:") || !strstr(line, device_bdf))
			continue;
		trace_word(line, "from=", from, sizeof(from));
		trace_word(line, "to=", to, sizeof(to));
		trace_word(line, "ret=", word, sizeof(word));
		nr++;
	}
	fclose(f);
	EXPECT_EQ(1, nr);
	EXPECT_STREQ("RESUMING", from);
	EXPECT_STREQ("STOP", to);
	EXPECT_EQ(-EINVAL, atoi(word));
	close(fd);
}

int main(int argc, char *argv[])
{
	char **bdfs;
	int nr;

	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr);
	precopy_require(bdfs, nr);
	device_bdf = bdfs[0];

	return test_harness_run(argc, argv);
}
