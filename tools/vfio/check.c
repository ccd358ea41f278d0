// SPDX-License-Identifier: GPL-2.0-only
/*
 * The command "check": whether one device can be moved to another, as far as this can be
 * checked without a move. Both devices are opened as for a move, which resets them.
 */
#include <inttypes.h>
#include <string.h>

#include "frame.h"
#include "json.h"
#include "migration.h"
#include "options.h"
#include "send.h"
#include "util.h"

#define MAX_REASONS	12
#define NR_BARS		6

/**
 * struct findings - result of a check
 * @reason: reasons why the device cannot be moved
 * @nr: number of texts in @reason
 * @note: additional information for the user, "" for none
 */
struct findings {
	char	reason[MAX_REASONS][300];
	int	nr;
	char	note[200];
};

static void add_reason(struct findings *found, const char *why)
{
	if (found->nr < MAX_REASONS)
		snprintf(found->reason[found->nr++], sizeof(found->reason[0]), "%.290s", why);
}

static bool can_migrate(struct findings *found, const struct device *dev, uint64_t *flags)
{
	char why[200], text[320];

	if (!mig_obstacle(dev, flags, why, sizeof(why)))
		return true;
	snprintf(text, sizeof(text), "%.80s cannot migrate: %s", dev->name, why);
	add_reason(found, text);
	return false;
}

/* Any region may be part of the migrated state */
static void compare_regions(struct findings *found, const struct device *from,
			    const struct device *to)
{
	uint64_t a, b;
	char text[200];
	unsigned int i;

	for (i = 0; i < NR_BARS; i++) {
		a = device_region_size(from, i);
		b = device_region_size(to, i);
		if (a == b)
			continue;
		snprintf(text, sizeof(text), "region %u has %" PRIu64 " bytes in %.40s, %" PRIu64
			 " bytes in %.40s", i, a, from->name, b, to->name);
		add_reason(found, text);
	}
}

static void check_source(struct findings *found, const struct device *dev)
{
	char text[290];
	uint32_t state;

	if (mig_get_state(dev, &state) || state == VFIO_DEVICE_STATE_RUNNING ||
	    mig_is_precopy(state))
		return;
	snprintf(text, sizeof(text), "%.80s is in %s: only a running device can be moved",
		 dev->name, mig_state_name(state));
	add_reason(found, text);
}

static void compare(struct findings *found, const struct device *from, const struct device *to)
{
	bool both = true;
	struct frame_hello a, b;
	uint64_t flags;

	both &= can_migrate(found, to, &flags);
	both &= can_migrate(found, from, &flags);
	if (!both)
		return;
	check_source(found, from);
	describe_device(from, 0, &a);
	describe_device(to, 0, &b);
	silent = true;
	if (check_devices(&a, &b))
		add_reason(found, last_failure());
	else
		compare_regions(found, from, to);
	silent = false;
	if (!(flags & VFIO_MIGRATION_PRE_COPY))
		snprintf(found->note, sizeof(found->note),
			 "%.40s has no pre-copy: it is stopped during the whole move",
			 from->name);
}

static void print_text(const struct findings *found, const struct device *from,
		       const struct device *to)
{
	int i;

	printf("%s can%s be moved to %s\n", from->name, found->nr ? "not" : "", to->name);
	for (i = 0; i < found->nr; i++)
		printf("  %s\n", found->reason[i]);
	if (found->note[0])
		printf("  %s\n", found->note);
}

static void print_json(const struct findings *found, const struct device *from,
		       const struct device *to)
{
	struct json json;
	int i;

	json_begin(&json, stdout);
	json_string(&json, "source", from->name);
	json_string(&json, "target", to->name);
	json_bool(&json, "can_move", !found->nr);
	json_open_array(&json, "reasons");
	for (i = 0; i < found->nr; i++)
		json_string(&json, NULL, found->reason[i]);
	json_close_array(&json);
	json_string(&json, "note", found->note);
	json_end(&json);
}

int cmd_check(const struct options *opt)
{
	struct findings found = { };
	struct device from, to;
	int ret;

	ret = device_find(&from, opt->device) ?: device_find(&to, opt->target) ?:
	      device_open(&from, opt->iommu, NULL);
	if (ret)
		return ret;
	ret = device_open(&to, opt->iommu, &from);
	if (ret)
		return ret;
	compare(&found, &from, &to);
	if (opt->json)
		print_json(&found, &from, &to);
	else
		print_text(&found, &from, &to);
	device_close(&to);
	device_close(&from);
	if (fflush(stdout) || ferror(stdout))
		return fail_errno(ST_FILE, "standard output");
	return found.nr ? ST_DEVICE : ST_OK;
}
