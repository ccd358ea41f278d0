// SPDX-License-Identifier: GPL-2.0-only
/* VFIO's migration ioctls. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "migration.h"
#include "util.h"

static int feature(const struct device *dev, uint32_t flags, void *data, size_t len)
{
	union {
		struct vfio_device_feature head;
		uint8_t bytes[sizeof(struct vfio_device_feature) + 32];
	} arg;

	memset(&arg, 0, sizeof(arg));
	arg.head.argsz = sizeof(arg.head) + len;
	arg.head.flags = flags;
	memcpy(arg.bytes + sizeof(arg.head), data, len);
	if (ioctl(dev->fd, VFIO_DEVICE_FEATURE, &arg) < 0)
		return -errno;
	memcpy(data, arg.bytes + sizeof(arg.head), len);
	return 0;
}

int mig_features(const struct device *dev, uint64_t *flags)
{
	struct vfio_device_feature_migration mig = { };
	int ret = feature(dev, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIGRATION,
			  &mig, sizeof(mig));

	*flags = mig.flags;
	return ret;
}

int mig_get_state(const struct device *dev, uint32_t *state)
{
	struct vfio_device_feature_mig_state mig = { };
	int ret = feature(dev, VFIO_DEVICE_FEATURE_GET |
			  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &mig, sizeof(mig));

	*state = mig.device_state;
	return ret;
}

int mig_set_state(const struct device *dev, uint32_t state, int *data_fd)
{
	struct vfio_device_feature_mig_state mig = { .device_state = state, .data_fd = -1 };
	uint64_t began = now_ns();
	int ret = feature(dev, VFIO_DEVICE_FEATURE_SET |
			  VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE, &mig, sizeof(mig));

	detail("%s to %s: %s, after %.1f ms", dev->name, mig_state_name(state),
	       ret ? strerror(-ret) : "done", (now_ns() - began) / 1e6);
	if (data_fd)
		*data_fd = ret ? -1 : mig.data_fd;
	return ret;
}

int mig_data_size(const struct device *dev, uint64_t *bytes)
{
	struct vfio_device_feature_mig_data_size size = { };
	int ret = feature(dev, VFIO_DEVICE_FEATURE_GET | VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
			  &size, sizeof(size));

	*bytes = size.stop_copy_length;
	return ret;
}

int mig_want_info_v2(const struct device *dev)
{
	return feature(dev, VFIO_DEVICE_FEATURE_SET |
		       VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2, NULL, 0);
}

int mig_has_dma_logging(const struct device *dev)
{
	return feature(dev, VFIO_DEVICE_FEATURE_PROBE | VFIO_DEVICE_FEATURE_SET |
		       VFIO_DEVICE_FEATURE_DMA_LOGGING_START, NULL, 0);
}

int mig_precopy_info(int data_fd, struct vfio_precopy_info *info)
{
	memset(info, 0, sizeof(*info));
	info->argsz = sizeof(*info);
	return ioctl(data_fd, VFIO_MIG_GET_PRECOPY_INFO, info) < 0 ? -errno : 0;
}

int mig_startup(int data_fd, struct vfio_precopy_startup *startup)
{
	memset(startup, 0, sizeof(*startup));
	startup->argsz = sizeof(*startup);
	if (ioctl(data_fd, PRECOPY_GET_STARTUP, startup) < 0)
		return -errno;
	/* The phase reports this as well */
	if (startup->remaining_ns == VFIO_PRECOPY_REMAINING_UNKNOWN)
		startup->remaining_ns = 0;
	return 0;
}

/* As the driver has them: a program of user space cannot include its table */
const char *mig_state_name(uint32_t state)
{
	static const char * const names[] = {
		[VFIO_DEVICE_STATE_ERROR]	 = "ERROR",
		[VFIO_DEVICE_STATE_STOP]	 = "STOP",
		[VFIO_DEVICE_STATE_RUNNING]	 = "RUNNING",
		[VFIO_DEVICE_STATE_STOP_COPY]	 = "STOP_COPY",
		[VFIO_DEVICE_STATE_RESUMING]	 = "RESUMING",
		[VFIO_DEVICE_STATE_RUNNING_P2P]	 = "RUNNING_P2P",
		[VFIO_DEVICE_STATE_PRE_COPY]	 = "PRE_COPY",
		[VFIO_DEVICE_STATE_PRE_COPY_P2P] = "PRE_COPY_P2P",
	};

	return state < ARRAY_LEN(names) ? names[state] : "unknown";
}

const char *mig_phase_name(uint32_t phase)
{
	static const char * const names[] = {
		[VFIO_PRECOPY_PHASE_NONE]     = "none",
		[VFIO_PRECOPY_PHASE_WAITING]  = "waiting",
		[VFIO_PRECOPY_PHASE_STARTING] = "starting",
		[VFIO_PRECOPY_PHASE_READY]    = "ready",
		[VFIO_PRECOPY_PHASE_FAILED]   = "failed",
	};

	return phase < ARRAY_LEN(names) ? names[phase] : "unknown";
}

const char *mig_obstacle(const struct device *dev, uint64_t *flags, char *buf, size_t size)
{
	const char *driver = dev->driver[0] ? dev->driver : "its driver";
	int ret = mig_features(dev, flags);

	if (!ret && *flags & VFIO_MIGRATION_STOP_COPY)
		return NULL;
	if (!ret)
		snprintf(buf, size, "%s offers migration features 0x%llx, without STOP_COPY",
			 driver, (unsigned long long)*flags);
	else if (ret == -ENOTTY && !strcmp(driver, "vfio-pci"))
		snprintf(buf, size,
			 "vfio-pci does not support migration; a variant driver for this hardware is needed");
	else if (ret == -ENOTTY)
		snprintf(buf, size, "%s does not offer VFIO migration version 2 for this device",
			 driver);
	else
		snprintf(buf, size, "%s does not report its migration features: %s", driver,
			 strerror(-ret));
	return buf;
}
