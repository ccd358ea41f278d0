// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/precopy_migrate.h>
#include <libvfio/vfio_pci_migration.h>

#define CHUNK	SZ_64K

static int failed(const char *what, int ret)
{
	fprintf(stderr, "# migration: %s: %s\n", what,
		ret < 0 ? strerror(-ret) : "no error");
	return -1;
}

/* Some pages here and there, and some neighbours. */
static void scatter(struct precopy_dev *a, u64 seed)
{
	u64 nr = precopy_nr_pages(a), i, page = seed;

	for (i = 0; i < 16; i++) {
		page = (page * 0x9e3779b1 + 7 * i + 1) % (nr - 3);
		precopy_fill(a, page, 1 + i % 3, seed + i,
			     i % 2 ? BY_MMAP : BY_PWRITE);
	}
}

static int save(struct precopy_dev *a, struct mig_stream *stream, u64 seed)
{
	int fd, ret, i;

	scatter(a, seed);
	ret = mig_set_state(a->dev, VFIO_DEVICE_STATE_PRE_COPY, &fd);
	if (ret)
		return failed("to PRE_COPY", ret);
	for (i = 1; i <= 2; i++) {
		ret = mig_stream_drain(stream, fd, CHUNK);
		if (ret != -ENOMSG)
			return failed("reading in PRE_COPY", ret);
		scatter(a, seed + 100 * i);
	}
	ret = mig_set_state(a->dev, VFIO_DEVICE_STATE_STOP_COPY, NULL);
	if (ret)
		return failed("to STOP_COPY", ret);
	ret = mig_stream_drain(stream, fd, CHUNK);
	if (ret)
		return failed("reading in STOP_COPY", ret);
	close(fd);

	return 0;
}

int precopy_migrate(struct precopy_dev *a, struct precopy_dev *b, u64 seed)
{
	struct mig_stream stream = {};
	int ret;

	precopy_reset(a);
	precopy_reset(b);
	if (mig_get_state(a->dev) != VFIO_DEVICE_STATE_RUNNING)
		return failed("not RUNNING after a reset", mig_get_state(a->dev));
	if (precopy_differ(a, a->shadow))
		return failed("memory not zero after a reset", 0);
	ret = save(a, &stream, seed);
	if (ret)
		return ret;
	ret = mig_load(b->dev, &stream, CHUNK);
	mig_stream_free(&stream);
	if (ret)
		return failed("loading", ret);
	ret = mig_set_state(b->dev, VFIO_DEVICE_STATE_RUNNING, NULL);
	if (ret)
		return failed("to RUNNING", ret);
	if (precopy_differ(b, a->shadow))
		return failed("the target's memory is not the source's", 0);
	precopy_reset(a);
	precopy_reset(b);

	return 0;
}
