// SPDX-License-Identifier: GPL-2.0-only
/*
 * The command "info". A device must be opened to query it, which resets it. A device that
 * another process has open is not opened.
 */
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "migration.h"
#include "options.h"
#include "util.h"

/**
 * struct info - properties of a device
 * @can_migrate: true if the device can migrate; otherwise @why is set
 * @opened: true if the device could be opened
 * @flags: migration features
 * @state: migration state, "" if unknown
 * @memory_size: size in bytes of the largest BAR, 0 if unknown
 * @data_size: estimated size in bytes of a complete stream
 * @has_size: true if @data_size is valid
 * @dma_logging: true if the device supports DMA logging
 * @has_precopy: true if @precopy is valid
 * @precopy: pre-copy information at the beginning of pre-copy
 * @has_startup: true if @startup is valid, which requires precopy-vfio-pci
 * @startup: the source's estimate of its target's startup
 */
struct info {
	bool				can_migrate;
	char				why[256];
	bool				opened;
	uint64_t			flags;
	char				state[32];
	uint64_t			memory_size;
	uint64_t			data_size;
	bool				has_size;
	bool				dma_logging;
	bool				has_precopy;
	struct vfio_precopy_info	precopy;
	bool				has_startup;
	struct vfio_precopy_startup	startup;
};

/* --- Asking ---------------------------------------------------------------------------- */

/* Entering and leaving pre-copy has no effect on the device */
static void ask_precopy(const struct device *dev, struct info *info)
{
	int fd;

	if (mig_set_state(dev, VFIO_DEVICE_STATE_PRE_COPY, &fd) || fd < 0)
		return;
	info->has_precopy = !mig_precopy_info(fd, &info->precopy);
	info->has_startup = !mig_startup(fd, &info->startup);
	mig_set_state(dev, VFIO_DEVICE_STATE_RUNNING, NULL);
	close(fd);
}

/* Only an inherited device can be in such a state, because opening a device resets it */
static bool state_hinders(uint32_t state, char *why, size_t size)
{
	if (state == VFIO_DEVICE_STATE_RUNNING || state == VFIO_DEVICE_STATE_STOP ||
	    mig_is_precopy(state))
		return false;
	if (state == VFIO_DEVICE_STATE_ERROR)
		snprintf(why, size, "it has failed and is in ERROR: a reset is needed");
	else
		snprintf(why, size, "it is in %s: another program is already migrating it",
			 mig_state_name(state));
	return true;
}

static void ask(const struct device *dev, struct info *info)
{
	uint32_t state;

	info->can_migrate = !mig_obstacle(dev, &info->flags, info->why, sizeof(info->why));
	if (mig_get_state(dev, &state))
		return;
	snprintf(info->state, sizeof(info->state), "%s", mig_state_name(state));
	if (info->can_migrate && state_hinders(state, info->why, sizeof(info->why)))
		info->can_migrate = false;
	info->memory_size = device_memory_size(dev);
	info->has_size = !mig_data_size(dev, &info->data_size);
	info->dma_logging = !mig_has_dma_logging(dev);
	if (info->flags & VFIO_MIGRATION_PRE_COPY && state == VFIO_DEVICE_STATE_RUNNING)
		ask_precopy(dev, info);
}

/* debugfs of the VFIO core describes a device that another process has open */
static void ask_debugfs(const struct device *dev, struct info *info)
{
	char path[300];

	snprintf(path, sizeof(path), "/sys/kernel/debug/vfio/%s/migration/state",
		 strrchr(dev->sysfs, '/') + 1);
	read_line(path, info->state, sizeof(info->state));
}

/* --- Telling ------------------------------------------------------------------------------ */

static const struct {
	uint64_t	flag;
	const char	*name;
} features[] = {
	{ VFIO_MIGRATION_STOP_COPY, "STOP_COPY" },
	{ VFIO_MIGRATION_P2P, "P2P" },
	{ VFIO_MIGRATION_PRE_COPY, "PRE_COPY" },
};

static void text_features(const struct info *info)
{
	size_t i;

	printf("features     ");
	for (i = 0; i < ARRAY_LEN(features); i++)
		if (info->flags & features[i].flag)
			printf("%s ", features[i].name);
	printf("(0x%llx)\n", (unsigned long long)info->flags);
}

static void text_startup(const struct vfio_precopy_startup *startup)
{
	char bytes[32], time[32];

	printf("startup      of a target: %s in use, estimated %s (%s)\n",
	       text_bytes(bytes, sizeof(bytes), startup->bytes_in_use),
	       text_ns(time, sizeof(time), startup->remaining_ns),
	       startup->flags & VFIO_PRECOPY_STARTUP_MEASURED ? "measured here" : "assumed");
}

static void text_migration(const struct info *info)
{
	char a[32], b[32];

	text_features(info);
	if (info->memory_size)
		printf("memory       %s\n", text_bytes(a, sizeof(a), info->memory_size));
	if (info->has_size)
		printf("data size    %s\n", text_bytes(a, sizeof(a), info->data_size));
	if (info->has_precopy)
		printf("pre-copy     %s initial, %s dirty\n",
		       text_bytes(a, sizeof(a), info->precopy.initial_bytes),
		       text_bytes(b, sizeof(b), info->precopy.dirty_bytes));
	if (info->has_startup)
		text_startup(&info->startup);
	printf("DMA logging  %s\n", info->dma_logging ? "yes" : "no");
}

static void text_info(const struct device *dev, const struct info *info)
{
	printf("device       %s", dev->name);
	if (dev->vendor)
		printf(" (%04x:%04x)", dev->vendor, dev->device);
	printf("\n");
	if (!dev->given)
		printf("driver       %s\n", dev->driver[0] ? dev->driver : "none");
	if (dev->group >= 0)
		printf("IOMMU group  %d\n", dev->group);
	if (dev->cdev[0])
		printf("cdev         %s\n", dev->cdev);
	if (info->opened && !dev->given)
		printf("opened by    %s\n", iommu_name(dev->how));
	printf("can migrate  %s%s\n", info->can_migrate ? "yes" : "no: ",
	       info->can_migrate ? "" : info->why);
	if (info->state[0])
		printf("state        %s\n", info->state);
	if (info->can_migrate)
		text_migration(info);
}

static void json_features(struct json *json, const struct info *info)
{
	size_t i;

	json_open_array(json, "features");
	for (i = 0; i < ARRAY_LEN(features); i++)
		if (info->flags & features[i].flag)
			json_string(json, NULL, features[i].name);
	json_close_array(json);
	json_number(json, "flags", info->flags);
}

static void json_startup(struct json *json, const struct info *info)
{
	const struct vfio_precopy_startup *startup = &info->startup;

	if (!info->has_startup) {
		json_null(json, "startup");
		return;
	}
	json_open(json, "startup");
	json_string(json, "phase", mig_phase_name(startup->phase));
	json_number(json, "bytes_in_use", startup->bytes_in_use);
	json_number(json, "remaining_ns", startup->remaining_ns);
	json_bool(json, "measured", startup->flags & VFIO_PRECOPY_STARTUP_MEASURED);
	json_close(json);
}

static void json_migration(struct json *json, const struct info *info)
{
	json_features(json, info);
	json_number(json, "memory_size", info->memory_size);
	if (info->has_size)
		json_number(json, "data_size", info->data_size);
	else
		json_null(json, "data_size");
	if (info->has_precopy) {
		json_open(json, "precopy");
		json_number(json, "initial_bytes", info->precopy.initial_bytes);
		json_number(json, "dirty_bytes", info->precopy.dirty_bytes);
		json_close(json);
	} else {
		json_null(json, "precopy");
	}
	json_startup(json, info);
	json_bool(json, "dma_logging", info->dma_logging);
}

static void json_info(const struct device *dev, const struct info *info)
{
	struct json json;

	json_begin(&json, stdout);
	json_string(&json, "device", dev->name);
	json_string(&json, "driver", dev->driver);
	json_number(&json, "vendor", dev->vendor);
	json_number(&json, "device_id", dev->device);
	if (dev->group >= 0)
		json_number(&json, "iommu_group", dev->group);
	else
		json_null(&json, "iommu_group");
	json_string(&json, "cdev", dev->cdev);
	json_string(&json, "opened_by", !info->opened ? "" : dev->given ? "fd" :
		    iommu_name(dev->how));
	json_bool(&json, "can_migrate", info->can_migrate);
	json_string(&json, "reason", info->can_migrate ? "" : info->why);
	json_string(&json, "state", info->state);
	if (info->can_migrate)
		json_migration(&json, info);
	json_end(&json);
}

int cmd_info(const struct options *opt)
{
	struct info info = { };
	struct device dev;
	int ret;

	if (opt->has_input)
		return info_snapshot(opt);
	ret = device_find(&dev, opt->device);
	if (ret)
		return ret;
	silent = true;
	if (device_open(&dev, opt->iommu, NULL)) {
		snprintf(info.why, sizeof(info.why), "%s", last_failure());
		ask_debugfs(&dev, &info);
	} else {
		info.opened = true;
		ask(&dev, &info);
	}
	silent = false;
	device_close(&dev);
	if (opt->json)
		json_info(&dev, &info);
	else
		text_info(&dev, &info);
	if (fflush(stdout) || ferror(stdout))
		return fail_errno(ST_FILE, "standard output");
	return info.can_migrate ? ST_OK : ST_DEVICE;
}
