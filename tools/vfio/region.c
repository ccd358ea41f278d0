// SPDX-License-Identifier: GPL-2.0-only
/* Reading and writing regions of a device without a VMM, for tests and experiments. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <linux/pci_regs.h>
#include <linux/vfio.h>

#include "atomic_file.h"
#include "device.h"
#include "util.h"

#define CHUNK	MIB

static bool region_info(const struct device *dev, unsigned int index,
			struct vfio_region_info *info)
{
	*info = (struct vfio_region_info){ .argsz = sizeof(*info), .index = index };
	return !ioctl(dev->fd, VFIO_DEVICE_GET_REGION_INFO, info) && info->size;
}

uint64_t device_region_size(const struct device *dev, unsigned int index)
{
	const uint32_t both = VFIO_REGION_INFO_FLAG_READ | VFIO_REGION_INFO_FLAG_WRITE;
	struct vfio_region_info info;

	if (!region_info(dev, index, &info) || (info.flags & both) != both)
		return 0;
	return info.size;
}

static bool is_pci(const struct device *dev)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };

	return !ioctl(dev->fd, VFIO_DEVICE_GET_INFO, &info) &&
	       info.flags & VFIO_DEVICE_FLAGS_PCI;
}

uint64_t device_memory_size(const struct device *dev)
{
	uint64_t largest = 0;
	unsigned int bar;

	if (!is_pci(dev))
		return 0;
	for (bar = VFIO_PCI_BAR0_REGION_INDEX; bar <= VFIO_PCI_BAR5_REGION_INDEX; bar++)
		largest = max_u64(largest, device_region_size(dev, bar));
	return largest;
}

/*
 * Turn on memory decode, which accesses to BARs of a PCI device require. It is on after
 * open, but another process that shares the device may have turned it off. Returns the
 * value of COMMAND to restore, or -1 if it was not changed.
 */
static int decode_on(const struct device *dev)
{
	struct vfio_region_info config;
	uint16_t command, on;

	if (!is_pci(dev) || !region_info(dev, VFIO_PCI_CONFIG_REGION_INDEX, &config))
		return -1;
	if (pread(dev->fd, &command, 2, config.offset + PCI_COMMAND) != 2 ||
	    command & PCI_COMMAND_MEMORY)
		return -1;
	on = command | PCI_COMMAND_MEMORY;
	if (pwrite(dev->fd, &on, 2, config.offset + PCI_COMMAND) != 2)
		return -1;
	return command;
}

static void decode_back(const struct device *dev, int before)
{
	struct vfio_region_info config;
	uint16_t command = before;

	if (before < 0 || !region_info(dev, VFIO_PCI_CONFIG_REGION_INDEX, &config))
		return;
	if (pwrite(dev->fd, &command, 2, config.offset + PCI_COMMAND) != 2)
		warn("%s: memory decode stays on", dev->name);
}

static int region_find(const struct device *dev, unsigned int index,
		       struct vfio_region_info *info)
{
	if (!device_region_size(dev, index) || !region_info(dev, index, info))
		return fail(ST_USAGE, "%s has no region %u that can be read and written",
			    dev->name, index);
	return ST_OK;
}

int device_check_region(const struct device *dev, unsigned int index)
{
	struct vfio_region_info info;

	return region_find(dev, index, &info);
}

static int too_large(const struct device *dev, const struct vfio_region_info *info,
		     const char *path)
{
	return fail(ST_FILE, "--fill-region %s is larger than region %u of %s", path,
		    info->index, dev->name);
}

static int fill_from(const struct device *dev, const struct vfio_region_info *info, int file,
		     const char *path, char *buf)
{
	struct pollfd pfd = { .fd = file, .events = POLLIN };
	uint64_t at = 0;
	ssize_t n, done;

	for (;;) {
		/*
		 * Signals must interrupt this, because a pipe may block and a region may be
		 * large
		 */
		wait_fds(&pfd, 1, NEVER);
		if (interrupted())
			return interrupted();
		n = read(file, buf, CHUNK);
		if (n < 0 && (errno == EAGAIN || errno == EINTR))
			continue;
		if (n < 0)
			return fail_errno(ST_FILE, "--fill-region %s", path);
		if (!n)
			return ST_OK;
		if ((uint64_t)n > info->size - at)
			return too_large(dev, info, path);
		for (done = 0; done < n;) {
			ssize_t m = pwrite(dev->fd, buf + done, n - done, info->offset + at);

			if (m <= 0)
				return fail_errno(ST_FAILED, "%s: writing region %u", dev->name,
						  info->index);
			done += m;
			at += m;
		}
	}
}

int device_fill_region(const struct device *dev, unsigned int index, const char *path)
{
	struct vfio_region_info info;
	int file, before, ret;
	struct stat st;
	char *buf;

	ret = region_find(dev, index, &info);
	if (ret)
		return ret;
	file = open_slow(path, O_RDONLY);
	if (file < 0)
		return interrupted() ?: fail_errno(ST_FILE, "--fill-region %s", path);
	if (!fstat(file, &st) && S_ISREG(st.st_mode) && (uint64_t)st.st_size > info.size) {
		close(file);
		return too_large(dev, &info, path);
	}
	buf = malloc(CHUNK);
	before = decode_on(dev);
	ret = buf ? fill_from(dev, &info, file, path, buf) : fail(ST_FAILED, "no memory");
	decode_back(dev, before);
	free(buf);
	close(file);
	return ret;
}

static int dump(const struct device *dev, const struct vfio_region_info *info,
		struct atomic_file *file, char *buf)
{
	uint64_t at = 0;
	ssize_t n;
	int ret;

	while (at < info->size) {
		n = pread(dev->fd, buf, min_u64(CHUNK, info->size - at), info->offset + at);
		if (!n)
			errno = EIO;
		if (n <= 0)
			return fail_errno(ST_FAILED, "%s: reading region %u", dev->name,
					  info->index);
		ret = atomic_file_write(file, buf, n);
		if (ret)
			return ret;
		at += n;
	}
	return ST_OK;
}

int device_dump_region(const struct device *dev, unsigned int index, struct atomic_file *file)
{
	struct vfio_region_info info;
	int before, ret;
	char *buf;

	ret = region_find(dev, index, &info);
	if (ret)
		return ret;
	buf = malloc(CHUNK);
	before = decode_on(dev);
	ret = buf ? dump(dev, &info, file, buf) : fail(ST_FAILED, "no memory");
	decode_back(dev, before);
	free(buf);
	return ret;
}
