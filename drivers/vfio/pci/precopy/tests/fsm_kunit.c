// SPDX-License-Identifier: GPL-2.0-only
/*
 * The table of arcs against the paths that the VFIO core computes: all 64 pairs
 * of states, against golden vectors written down from the specification.
 */

#include <kunit/test.h>
#include <linux/module.h>
#include <linux/vfio.h>

#include "../mig/fsm.h"

#define MAX_STEPS	4

#define RU	VFIO_DEVICE_STATE_RUNNING
#define RP	VFIO_DEVICE_STATE_RUNNING_P2P
#define PC	VFIO_DEVICE_STATE_PRE_COPY
#define PP	VFIO_DEVICE_STATE_PRE_COPY_P2P
#define ST	VFIO_DEVICE_STATE_STOP
#define SC	VFIO_DEVICE_STATE_STOP_COPY
#define RE	VFIO_DEVICE_STATE_RESUMING
#define ER	VFIO_DEVICE_STATE_ERROR

/**
 * struct fsm_path - what a request must do
 * @from: state
 * @to: state asked for
 * @steps: states entered on the way; all 0 (ERROR) if it must be refused, or if
 *	   there is nothing to do
 * @refused: the request is illegal
 * @fd: the last arc returns a data fd
 */
struct fsm_path {
	u8	from;
	u8	to;
	u8	steps[MAX_STEPS];
	bool	refused;
	bool	fd;
};

/* Rule R21, flags 7 */
static const struct fsm_path fsm_paths[] = {
	{ RU, RU }, { RP, RP }, { PC, PC }, { PP, PP },
	{ ST, ST }, { SC, SC }, { RE, RE },
	{ RU, RP, { RP } },
	{ RU, PC, { PC }, .fd = true },
	{ RU, PP, { RP, PP }, .fd = true },
	{ RU, ST, { RP, ST } },
	{ RU, SC, { RP, ST, SC }, .fd = true },
	{ RU, RE, { RP, ST, RE }, .fd = true },
	{ RP, RU, { RU } },
	{ RP, PC, { RU, PC }, .fd = true },
	{ RP, PP, { PP }, .fd = true },
	{ RP, ST, { ST } },
	{ RP, SC, { ST, SC }, .fd = true },
	{ RP, RE, { ST, RE }, .fd = true },
	{ PC, RU, { RU } },
	{ PC, RP, { RU, RP } },
	{ PC, PP, { PP } },
	{ PC, ST, { RU, RP, ST } },
	{ PC, SC, { PP, SC } },
	{ PC, RE, { RU, RP, ST, RE }, .fd = true },
	{ PP, RU, { RP, RU } },
	{ PP, RP, { RP } },
	{ PP, PC, { PC } },
	{ PP, ST, { RP, ST } },
	{ PP, SC, { SC } },
	{ PP, RE, { RP, ST, RE }, .fd = true },
	{ ST, RU, { RP, RU } },
	{ ST, RP, { RP } },
	{ ST, PC, { RP, RU, PC }, .fd = true },
	{ ST, PP, { RP, PP }, .fd = true },
	{ ST, SC, { SC }, .fd = true },
	{ ST, RE, { RE }, .fd = true },
	{ SC, RU, { ST, RP, RU } },
	{ SC, RP, { ST, RP } },
	{ SC, PC, .refused = true },
	{ SC, PP, .refused = true },
	{ SC, ST, { ST } },
	{ SC, RE, { ST, RE }, .fd = true },
	{ RE, RU, { ST, RP, RU } },
	{ RE, RP, { ST, RP } },
	{ RE, PC, { ST, RP, RU, PC }, .fd = true },
	{ RE, PP, { ST, RP, PP }, .fd = true },
	{ RE, ST, { ST } },
	{ RE, SC, { ST, SC }, .fd = true },
	{ RU, ER, .refused = true }, { RP, ER, .refused = true },
	{ PC, ER, .refused = true }, { PP, ER, .refused = true },
	{ ST, ER, .refused = true }, { SC, ER, .refused = true },
	{ RE, ER, .refused = true },
};

static void fsm_path_desc(const struct fsm_path *path, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%s to %s",
		 precopy_state_name(path->from), precopy_state_name(path->to));
}

KUNIT_ARRAY_PARAM(fsm_path, fsm_paths, fsm_path_desc);

static struct vfio_device *fsm_device(struct kunit *test, unsigned int flags)
{
	struct vfio_device *vdev = kunit_kzalloc(test, sizeof(*vdev),
						 GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, vdev);
	vdev->migration_flags = flags;
	return vdev;
}

/* Walk the core's path through our table, and compare with the golden one */
static void fsm_walks_golden_path(struct kunit *test)
{
	const struct fsm_path *path = test->param_value;
	struct vfio_device *vdev = fsm_device(test, PRECOPY_MIG_FLAGS);
	enum vfio_device_mig_state state = path->from, next;
	const struct precopy_arc *arc = NULL;
	int i, ret;

	for (i = 0; state != path->to; i++) {
		ret = vfio_mig_get_next_state(vdev, state, path->to, &next);
		KUNIT_ASSERT_EQ(test, !!ret, path->refused);
		if (ret)
			return;
		KUNIT_ASSERT_LT(test, i, MAX_STEPS);
		KUNIT_EXPECT_EQ(test, (int)next, path->steps[i]);
		arc = precopy_arc_find(state, next);
		KUNIT_ASSERT_NOT_NULL(test, arc);
		state = next;
		/* Only the last arc may return a file: the core takes but one */
		KUNIT_EXPECT_EQ(test, arc->returns_fd,
				path->fd && state == path->to);
	}
	KUNIT_EXPECT_FALSE(test, path->refused);
	KUNIT_EXPECT_TRUE(test, i == MAX_STEPS || !path->steps[i]);
}

/* All pairs are in the list, once; those from ERROR the driver refuses first */
static void fsm_list_is_complete(struct kunit *test)
{
	u8 seen[VFIO_DEVICE_STATE_NR][VFIO_DEVICE_STATE_NR] = {};
	int from, to;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fsm_paths); i++)
		seen[fsm_paths[i].from][fsm_paths[i].to]++;
	for (from = 0; from < VFIO_DEVICE_STATE_NR; from++)
		for (to = 0; to < VFIO_DEVICE_STATE_NR; to++)
			KUNIT_EXPECT_EQ(test, seen[from][to],
					from == VFIO_DEVICE_STATE_ERROR ? 0 : 1);
}

/* Nothing leads into or out of ERROR, nor from a state to itself */
static void fsm_has_no_stray_arc(struct kunit *test)
{
	int from, to, arcs = 0;

	for (from = 0; from < VFIO_DEVICE_STATE_NR; from++) {
		KUNIT_EXPECT_NULL(test, precopy_arc_find(from, from));
		KUNIT_EXPECT_NULL(test, precopy_arc_find(from, ER));
		KUNIT_EXPECT_NULL(test, precopy_arc_find(ER, from));
		for (to = 0; to < VFIO_DEVICE_STATE_NR; to++)
			arcs += !!precopy_arc_find(from, to);
	}
	/* The 15 arcs of the specification for these flags */
	KUNIT_EXPECT_EQ(test, arcs, 15);
	KUNIT_EXPECT_NULL(test, precopy_arc_find(VFIO_DEVICE_STATE_NR, RU));
	KUNIT_EXPECT_NULL(test, precopy_arc_find(RU, VFIO_DEVICE_STATE_NR));
}

/* With PRE_COPY masked the core must still find arcs that we have */
static void fsm_without_precopy(struct kunit *test)
{
	struct vfio_device *vdev =
		fsm_device(test, PRECOPY_MIG_FLAGS & ~VFIO_MIGRATION_PRE_COPY);
	static const u8 states[] = { RU, RP, ST, SC, RE };
	enum vfio_device_mig_state state, next;
	size_t i, j;
	int steps;

	for (i = 0; i < ARRAY_SIZE(states); i++) {
		KUNIT_EXPECT_NE(test, 0, vfio_mig_get_next_state(vdev, states[i],
								 PC, &next));
		for (j = 0; j < ARRAY_SIZE(states); j++) {
			state = states[i];
			for (steps = 0; state != states[j]; steps++) {
				KUNIT_ASSERT_LT(test, steps, MAX_STEPS);
				KUNIT_ASSERT_EQ(test, 0,
						vfio_mig_get_next_state(vdev,
									state,
									states[j],
									&next));
				KUNIT_ASSERT_NOT_NULL(test,
						      precopy_arc_find(state,
								       next));
				state = next;
			}
		}
	}
}

static struct kunit_case fsm_cases[] = {
	KUNIT_CASE_PARAM(fsm_walks_golden_path, fsm_path_gen_params),
	KUNIT_CASE(fsm_list_is_complete),
	KUNIT_CASE(fsm_has_no_stray_arc),
	KUNIT_CASE(fsm_without_precopy),
	{}
};

static struct kunit_suite fsm_suite = {
	.name = "precopy_fsm",
	.test_cases = fsm_cases,
};

kunit_test_suite(fsm_suite);
