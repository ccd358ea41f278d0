// SPDX-License-Identifier: GPL-2.0-only
/*
 * The command "run": runs a device that was left stopped by a migration that did not end,
 * or that has to be reverted. VFIO resets a device when it is opened, so only a device that
 * another program has open can be in such a state.
 */
#include <string.h>
#include <sys/ioctl.h>

#include "json.h"
#include "migration.h"
#include "options.h"
#include "util.h"

static bool needs_reset(uint32_t state)
{
	return state == VFIO_DEVICE_STATE_ERROR || state == VFIO_DEVICE_STATE_RESUMING;
}

static int reset_device(const struct device *dev, uint32_t state, bool allowed)
{
	if (!allowed)
		return fail(ST_DEVICE,
			    "%s is in %s: it can run only after a reset, which clears it; use --reset to do this",
			    dev->name, mig_state_name(state));
	if (ioctl(dev->fd, VFIO_DEVICE_RESET))
		return fail_errno(ST_FAILED, "%s cannot be reset", dev->name);
	return ST_OK;
}

static int run(const struct device *dev, uint32_t before, bool allowed)
{
	uint32_t state = before;
	int ret;

	if (needs_reset(state)) {
		ret = reset_device(dev, state, allowed);
		if (ret)
			return ret;
		mig_get_state(dev, &state);
	}
	ret = state == VFIO_DEVICE_STATE_RUNNING ? 0 :
	      mig_set_state(dev, VFIO_DEVICE_STATE_RUNNING, NULL);
	if (!ret)
		return ST_OK;
	return fail(ST_FAILED, "%s cannot change from %s to RUNNING: %s", dev->name,
		    mig_state_name(state), strerror(-ret));
}

static void report(const struct device *dev, uint32_t before, bool as_json)
{
	struct json json;

	say("%s was in %s, and runs", dev->name, mig_state_name(before));
	if (!as_json)
		return;
	json_begin(&json, report_file());
	json_string(&json, "command", "run");
	json_string(&json, "device", dev->name);
	json_string(&json, "state_before", mig_state_name(before));
	json_bool(&json, "reset", needs_reset(before));
	json_end(&json);
}

int cmd_run(const struct options *opt)
{
	uint64_t flags;
	struct device dev;
	uint32_t state;
	char why[256];
	int ret;

	ret = device_find(&dev, opt->device);
	if (ret)
		return ret;
	if (!dev.given)
		return fail(ST_USAGE,
			    "'run' is for fd:N, a device that somebody has open: %s would be reset when it is opened",
			    dev.name);
	if (mig_obstacle(&dev, &flags, why, sizeof(why)))
		return fail(ST_DEVICE, "%s cannot migrate: %s", dev.name, why);
	ret = mig_get_state(&dev, &state);
	if (ret)
		return fail(ST_DEVICE, "%s: its migration state is unknown: %s", dev.name,
			    strerror(-ret));
	ret = run(&dev, state, opt->reset);
	if (!ret)
		report(&dev, state, opt->json);
	return ret;
}
