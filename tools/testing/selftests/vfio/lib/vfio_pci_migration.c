// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>

#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/vfio_pci_migration.h>

#define STREAM_GROW	(256UL << 10)

int vfio_feature(int fd, u32 flags, void *data, size_t size)
{
	size_t argsz = sizeof(struct vfio_device_feature) + size;
	struct vfio_device_feature *feature;
	int ret;

	feature = calloc_assert(1, argsz);
	feature->argsz = argsz;
	feature->flags = flags;
	if (size)
		memcpy(feature->data, data, size);

	ret = ioctl(fd, VFIO_DEVICE_FEATURE, feature) ? -errno : 0;

	/* The kernel fills in results even when it reports an error. */
	if (size)
		memcpy(data, feature->data, size);
	free(feature);

	return ret;
}

int mig_flags(struct vfio_pci_device *device, u64 *flags)
{
	struct vfio_device_feature_migration mig = {};
	int ret;

	ret = vfio_feature_get(device->fd, VFIO_DEVICE_FEATURE_MIGRATION,
			       &mig, sizeof(mig));
	*flags = mig.flags;

	return ret;
}

int mig_get_state(struct vfio_pci_device *device)
{
	/* Poisoned, so that a kernel that writes nothing is found out. */
	struct vfio_device_feature_mig_state mig = {
		.device_state = 0x5a5a5a5a,
		.data_fd = 0x5a5a5a5a,
	};
	int ret;

	ret = vfio_feature_get(device->fd, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
			       &mig, sizeof(mig));
	if (ret)
		return ret;

	VFIO_ASSERT_EQ(mig.data_fd, -1, "GET must report no data fd\n");

	return mig.device_state;
}

int mig_set_state(struct vfio_pci_device *device, u32 state, int *data_fd)
{
	struct vfio_device_feature_mig_state mig = {
		.device_state = state,
		.data_fd = 0x5a5a5a5a,
	};
	int ret;

	ret = vfio_feature_set(device->fd, VFIO_DEVICE_FEATURE_MIG_DEVICE_STATE,
			       &mig, sizeof(mig));
	if (data_fd)
		*data_fd = mig.data_fd;
	else if (!ret && mig.data_fd >= 0)
		close(mig.data_fd);

	return ret;
}

/* For tests of any driver, so it is not the table of one of them */
const char *mig_state_name(u32 state)
{
	static const char * const names[] = {
		[VFIO_DEVICE_STATE_ERROR] = "ERROR",
		[VFIO_DEVICE_STATE_STOP] = "STOP",
		[VFIO_DEVICE_STATE_RUNNING] = "RUNNING",
		[VFIO_DEVICE_STATE_STOP_COPY] = "STOP_COPY",
		[VFIO_DEVICE_STATE_RESUMING] = "RESUMING",
		[VFIO_DEVICE_STATE_RUNNING_P2P] = "RUNNING_P2P",
		[VFIO_DEVICE_STATE_PRE_COPY] = "PRE_COPY",
		[VFIO_DEVICE_STATE_PRE_COPY_P2P] = "PRE_COPY_P2P",
	};

	return state < VFIO_DEVICE_STATE_NR ? names[state] : "invalid";
}

int mig_precopy_info(int data_fd, struct vfio_precopy_info *info)
{
	info->argsz = sizeof(*info);

	return ioctl(data_fd, VFIO_MIG_GET_PRECOPY_INFO, info) ? -errno : 0;
}

int mig_precopy_v2_enable(struct vfio_pci_device *device)
{
	return vfio_feature_set(device->fd,
				VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2, NULL, 0);
}

bool mig_kernel_has_info_v2(struct vfio_pci_device *device)
{
	return vfio_feature_probe(device->fd,
				  VFIO_DEVICE_FEATURE_MIG_PRECOPY_INFOv2,
				  0) != -ENOTTY;
}

int mig_data_size(struct vfio_pci_device *device, u64 *size)
{
	struct vfio_device_feature_mig_data_size data = {
		.stop_copy_length = ~0ULL,
	};
	int ret;

	ret = vfio_feature_get(device->fd, VFIO_DEVICE_FEATURE_MIG_DATA_SIZE,
			       &data, sizeof(data));
	*size = data.stop_copy_length;

	return ret;
}

static void mig_stream_reserve(struct mig_stream *stream, size_t room)
{
	size_t cap = stream->cap;

	while (cap - stream->len < room)
		cap += cap + STREAM_GROW;
	if (cap == stream->cap)
		return;

	stream->data = realloc(stream->data, cap);
	VFIO_ASSERT_NOT_NULL(stream->data);
	stream->cap = cap;
}

void mig_stream_free(struct mig_stream *stream)
{
	free(stream->data);
	memset(stream, 0, sizeof(*stream));
}

void mig_stream_append(struct mig_stream *stream, const void *data, size_t len)
{
	mig_stream_reserve(stream, len);
	memcpy(stream->data + stream->len, data, len);
	stream->len += len;
}

void mig_stream_copy(struct mig_stream *to, const struct mig_stream *from)
{
	to->len = 0;
	mig_stream_append(to, from->data, from->len);
}

ssize_t mig_stream_read(struct mig_stream *stream, int data_fd, size_t max)
{
	ssize_t ret;

	mig_stream_reserve(stream, max);
	ret = read(data_fd, stream->data + stream->len, max);
	if (ret < 0)
		return -errno;
	VFIO_ASSERT_LE((size_t)ret, max);
	stream->len += ret;

	return ret;
}

int mig_stream_drain(struct mig_stream *stream, int data_fd, size_t chunk)
{
	ssize_t ret;

	do {
		ret = mig_stream_read(stream, data_fd, chunk);
	} while (ret > 0);

	return ret;
}

int mig_write_all(int data_fd, const void *data, size_t len, size_t chunk,
		  size_t *done)
{
	size_t pos = 0;
	ssize_t ret = 0;

	while (pos < len) {
		ret = write(data_fd, (const u8 *)data + pos,
			    chunk < len - pos ? chunk : len - pos);
		if (ret < 0)
			break;
		/* A write of something that takes nothing would loop for ever. */
		VFIO_ASSERT_GT(ret, 0);
		pos += ret;
	}
	if (done)
		*done = pos;

	return ret < 0 ? -errno : 0;
}

int mig_save(struct vfio_pci_device *device, struct mig_stream *stream)
{
	int data_fd, ret;

	ret = mig_set_state(device, VFIO_DEVICE_STATE_STOP_COPY, &data_fd);
	if (ret)
		return ret;

	ret = mig_stream_drain(stream, data_fd, 1UL << 20);
	close(data_fd);

	return ret;
}

int mig_load(struct vfio_pci_device *device, const struct mig_stream *stream,
	     size_t chunk)
{
	int data_fd, ret;

	ret = mig_set_state(device, VFIO_DEVICE_STATE_RESUMING, &data_fd);
	if (ret)
		return ret;

	ret = mig_write_all(data_fd, stream->data, stream->len, chunk, NULL);
	if (!ret)
		ret = mig_set_state(device, VFIO_DEVICE_STATE_STOP, NULL);
	close(data_fd);

	return ret;
}

bool dma_log_offered(int fd)
{
	return !vfio_feature_probe(fd, VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
				   VFIO_DEVICE_FEATURE_SET);
}

int dma_log_start(struct vfio_pci_device *device, u64 *page_size,
		  const struct vfio_device_feature_dma_logging_range *ranges,
		  u32 nr_ranges)
{
	struct vfio_device_feature_dma_logging_control control = {
		.page_size = *page_size,
		.num_ranges = nr_ranges,
		.ranges = (uintptr_t)ranges,
	};
	int ret;

	ret = vfio_feature_set(device->fd, VFIO_DEVICE_FEATURE_DMA_LOGGING_START,
			       &control, sizeof(control));
	*page_size = control.page_size;

	return ret;
}

int dma_log_stop(struct vfio_pci_device *device)
{
	return vfio_feature_set(device->fd, VFIO_DEVICE_FEATURE_DMA_LOGGING_STOP,
				NULL, 0);
}

int dma_log_report(struct vfio_pci_device *device, u64 iova, u64 length,
		   u64 page_size, void *bitmap)
{
	struct vfio_device_feature_dma_logging_report report = {
		.iova = iova,
		.length = length,
		.page_size = page_size,
		.bitmap = (uintptr_t)bitmap,
	};

	return vfio_feature_get(device->fd,
				VFIO_DEVICE_FEATURE_DMA_LOGGING_REPORT,
				&report, sizeof(report));
}
