// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <sys/ioctl.h>

#include <linux/limits.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_handoff.h>

#define POISON		0xa5a5a5a5a5a5a5a5ULL
#define STEP_US		(5 * 1000)

static void check_poison(const struct vfio_precopy_startup *info)
{
	VFIO_ASSERT_EQ(info->flags, (u32)POISON);
	VFIO_ASSERT_EQ(info->phase, (u32)POISON);
	VFIO_ASSERT_EQ(info->error, (u32)POISON);
	VFIO_ASSERT_EQ(info->bytes_in_use, POISON);
	VFIO_ASSERT_EQ(info->bytes_prepared, POISON);
	VFIO_ASSERT_EQ(info->remaining_ns, POISON);
	VFIO_ASSERT_EQ(info->elapsed_ns, POISON);
}

/* What is true in every phase, and in this one. */
static void check_answer(const struct vfio_precopy_startup *info)
{
	VFIO_ASSERT_EQ(info->argsz, sizeof(*info));
	VFIO_ASSERT_EQ(info->flags & ~(VFIO_PRECOPY_STARTUP_TARGET |
				       VFIO_PRECOPY_STARTUP_MEASURED), 0);
	VFIO_ASSERT_LE(info->phase, (u32)VFIO_PRECOPY_PHASE_FAILED);
	VFIO_ASSERT_LE(info->bytes_prepared, info->bytes_in_use);
	/* Poison would be far more than a day, and than all memory there is. */
	if (info->remaining_ns != VFIO_PRECOPY_REMAINING_UNKNOWN)
		VFIO_ASSERT_LT(info->remaining_ns, 86400ULL * 1000000000);
	VFIO_ASSERT_LT(info->elapsed_ns, 86400ULL * 1000000000);
	VFIO_ASSERT_LE(info->bytes_in_use, 64ULL * SZ_1G);

	VFIO_ASSERT_EQ(!!info->error,
		       info->phase == VFIO_PRECOPY_PHASE_FAILED);
	VFIO_ASSERT_LT(info->error, 4096U);
	/* Nothing but a startup that is over has no time left. */
	if (info->phase == VFIO_PRECOPY_PHASE_READY)
		VFIO_ASSERT_EQ(info->remaining_ns, 0);
	if (info->phase == VFIO_PRECOPY_PHASE_FAILED)
		VFIO_ASSERT_EQ(info->remaining_ns,
			       VFIO_PRECOPY_REMAINING_UNKNOWN);
	if (info->phase == VFIO_PRECOPY_PHASE_STARTING)
		VFIO_ASSERT_NE(info->remaining_ns,
			       VFIO_PRECOPY_REMAINING_UNKNOWN);
	if (info->phase == VFIO_PRECOPY_PHASE_WAITING) {
		VFIO_ASSERT_EQ(info->bytes_prepared, 0);
		VFIO_ASSERT_EQ(info->elapsed_ns, 0);
		if (info->flags & VFIO_PRECOPY_STARTUP_TARGET)
			VFIO_ASSERT_EQ(info->remaining_ns,
				       VFIO_PRECOPY_REMAINING_UNKNOWN);
	}
}

int handoff_get(int data_fd, struct vfio_precopy_startup *info)
{
	memset(info, (u8)POISON, sizeof(*info));
	info->argsz = sizeof(*info);
	if (ioctl(data_fd, PRECOPY_GET_STARTUP, info)) {
		VFIO_ASSERT_EQ(info->argsz, sizeof(*info));
		check_poison(info);
		return -errno;
	}
	check_answer(info);
	return 0;
}

int handoff_phase(int data_fd)
{
	struct vfio_precopy_startup info;
	int ret = handoff_get(data_fd, &info);

	return ret ?: (int)info.phase;
}

bool handoff_wait(int data_fd, u32 phase)
{
	u64 end = precopy_now_ms() + HANDOFF_PATIENCE_MS;

	while (handoff_phase(data_fd) != (int)phase) {
		if (precopy_now_ms() > end)
			return false;
		usleep(STEP_US);
	}
	return true;
}

int handoff_poll(int data_fd, int events, int ms)
{
	struct pollfd pfd = { .fd = data_fd, .events = events };
	int ret = poll(&pfd, 1, ms);

	VFIO_ASSERT_LE(0, ret);
	return ret ? pfd.revents : 0;
}

void handoff_put_preface(struct wire *w, u64 units)
{
	u64 bytes = units * WIRE_UNIT;

	if (bytes > w->header.memory_size)
		bytes = w->header.memory_size;
	handoff_put_preface_of(w, units, bytes);
}

void handoff_put_preface_of(struct wire *w, u64 units, u64 bytes_in_use)
{
	u64 unit, nr_units = (w->header.memory_size + WIRE_UNIT - 1) / WIRE_UNIT;
	size_t len = sizeof(struct wire_preface) + (nr_units + 63) / 64 * 8;
	struct wire_preface *preface = calloc_assert(1, len);

	VFIO_ASSERT_LE(units, nr_units);
	preface->nr_units = nr_units;
	preface->bytes_in_use = bytes_in_use;
	for (unit = 0; unit < units; unit++)
		preface->bitmap[unit / 64] |= 1ULL << (unit % 64);
	wire_put_record(w, WIRE_PREFACE, WIRE_MANDATORY, 0, preface, len);
	free(preface);
}

void handoff_put_all(struct wire *w, u64 units)
{
	wire_put_header(w);
	handoff_put_preface(w, units);
	wire_put_initial_end(w);
	wire_put_state(w);
	wire_put_end(w);
}

static void mark_preface(struct handoff_marks *marks, const u8 *payload,
			 size_t end)
{
	struct wire_preface preface;

	memcpy(&preface, payload, sizeof(preface));
	marks->prefaces++;
	marks->preface_end = end;
	marks->startup_ns = preface.startup_ns;
	marks->bytes_in_use = preface.bytes_in_use;
}

void handoff_marks(const struct mig_stream *stream, struct handoff_marks *marks)
{
	size_t pos = sizeof(struct wire_header), end;
	struct wire_record record;

	memset(marks, 0, sizeof(*marks));
	for (; pos + sizeof(record) <= stream->len; pos = end) {
		memcpy(&record, stream->data + pos, sizeof(record));
		end = pos + sizeof(record) + record.length;
		if (end > stream->len)
			break;
		if (record.type == WIRE_PREFACE)
			mark_preface(marks, stream->data + pos + sizeof(record),
				     end);
		if (record.type == WIRE_INITIAL_END) {
			marks->initial_ends++;
			marks->barrier = pos;
		}
	}
}

u64 handoff_stat(const char *bdf, const char *name)
{
	u64 value = precopy_stat(bdf, name);

	VFIO_ASSERT_NE(value, ~0ULL, "no %s in the statistics\n", name);
	return value;
}

int handoff_pci_write(const char *file, const char *value)
{
	char path[PATH_MAX];

	snprintf_assert(path, sizeof(path), "/sys/bus/pci/%s", file);

	return precopy_file_write(path, value);
}

void handoff_teach(struct precopy_dev *pd, u64 units, unsigned int delay_ms,
		   int times)
{
	struct wire w;

	VFIO_ASSERT_EQ(precopy_knob(pd->bdf, "startup_delay_ms", delay_ms), 0);
	wire_init(&w, pd->bdf, pd->size);
	handoff_put_all(&w, units);
	while (times--) {
		VFIO_ASSERT_EQ(mig_load(pd->dev, &w.stream, SZ_64K), 0);
		precopy_reset(pd);
	}
	wire_free(&w);
	VFIO_ASSERT_EQ(precopy_knob(pd->bdf, "startup_delay_ms", 0), 0);
}
