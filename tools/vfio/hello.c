// SPDX-License-Identifier: GPL-2.0-only
/* Description of a device for the other side. */
#include "frame.h"
#include "migration.h"
#include "send.h"
#include "util.h"

#include <string.h>

void describe_device(const struct device *dev, uint64_t timeout_ns, struct frame_hello *hello)
{
	*hello = (struct frame_hello){
		.vendor = dev->vendor,
		.device = dev->device,
		.timeout_ms = min_u64(timeout_ns / NS_PER_MS, UINT32_MAX),
		.memory_size = device_memory_size(dev),
	};
	mig_features(dev, &hello->mig_flags);
	mig_data_size(dev, &hello->data_size);
	snprintf(hello->driver, sizeof(hello->driver), "%.31s", dev->driver);
}

static int memory_differs(uint64_t from, uint64_t to)
{
	char a[32], b[32];

	return fail(ST_DEVICE,
		    "the memory differs: the source has %s (%llu bytes), the target %s (%llu bytes)",
		    text_bytes(a, sizeof(a), from), (unsigned long long)from,
		    text_bytes(b, sizeof(b), to), (unsigned long long)to);
}

/* Compare the values that both sides know; the drivers check the rest */
int check_devices(const struct frame_hello *from, const struct frame_hello *to)
{
	if (from->vendor && to->vendor &&
	    (from->vendor != to->vendor || from->device != to->device))
		return fail(ST_DEVICE,
			    "the device ids differ: the source has %04x:%04x, the target %04x:%04x",
			    from->vendor, from->device, to->vendor, to->device);
	if (from->driver[0] && to->driver[0] && strcmp(from->driver, to->driver))
		return fail(ST_DEVICE, "the drivers differ: the source has %s, the target %s",
			    from->driver, to->driver);
	if (from->memory_size && to->memory_size && from->memory_size != to->memory_size)
		return memory_differs(from->memory_size, to->memory_size);
	return ST_OK;
}
