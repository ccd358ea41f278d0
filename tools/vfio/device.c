// SPDX-License-Identifier: GPL-2.0-only
/* Finding and opening a VFIO device. */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/vfio.h>

#include "device.h"
#include "util.h"

/* --- Finding ---------------------------------------------------------------- */

/* Without an IOMMU, the names begin with "noiommu-" */
static void find_cdev(struct device *dev)
{
	struct dirent *entry;
	char path[300];
	DIR *dir;

	snprintf(path, sizeof(path), "%s/vfio-dev", dev->sysfs);
	dir = opendir(path);
	if (!dir)
		return;
	dev->vfio = true;
	while ((entry = readdir(dir))) {
		if (!strncmp(entry->d_name, "noiommu-vfio", 12))
			dev->noiommu = true;
		else if (strncmp(entry->d_name, "vfio", 4))
			continue;
		if (strlen(entry->d_name) < 32)
			snprintf(dev->cdev, sizeof(dev->cdev), "/dev/vfio/devices/%.32s",
				 entry->d_name);
	}
	closedir(dir);
}

static uint16_t read_id(const struct device *dev, const char *file)
{
	char path[300], text[32];

	snprintf(path, sizeof(path), "%s/%s", dev->sysfs, file);
	return read_line(path, text, sizeof(text)) ? strtoul(text, NULL, 16) : 0;
}

static void find_in_sysfs(struct device *dev)
{
	char path[300], text[32];

	snprintf(path, sizeof(path), "%s/driver", dev->sysfs);
	read_link_name(path, dev->driver, sizeof(dev->driver));
	snprintf(path, sizeof(path), "%s/iommu_group", dev->sysfs);
	if (read_link_name(path, text, sizeof(text)))
		dev->group = atoi(text);
	snprintf(path, sizeof(path), "%s/iommu_group/name", dev->sysfs);
	dev->noiommu = read_line(path, text, sizeof(text)) && !strcmp(text, "vfio-noiommu");
	find_cdev(dev);
	dev->vendor = read_id(dev, "vendor");
	dev->device = read_id(dev, "device");
}

static int find_given(struct device *dev, const char *number)
{
	struct vfio_device_info info = { .argsz = sizeof(info) };
	char *end;
	long fd = strtol(number, &end, 10);

	if (!*number || *end || fd < 0 || fd > INT_MAX)
		return fail(ST_USAGE, "'%s' does not have the form fd:NUMBER", dev->name);
	dev->fd = fd;
	dev->given = true;
	if (ioctl(dev->fd, VFIO_DEVICE_GET_INFO, &info))
		return fail_errno(ST_DEVICE, "%s is not an open VFIO device", dev->name);
	fcntl(dev->fd, F_SETFD, FD_CLOEXEC);
	return ST_OK;
}

static bool is_bdf(const char *name, char *full, size_t size)
{
	unsigned int dom = 0, bus, slot, fn;
	char rest;

	if (sscanf(name, "%x:%x:%x.%x%c", &dom, &bus, &slot, &fn, &rest) != 4) {
		dom = 0;
		if (sscanf(name, "%x:%x.%x%c", &bus, &slot, &fn, &rest) != 3)
			return false;
	}
	if (bus > 0xff || slot > 0x1f || fn > 7)
		return false;
	snprintf(full, size, "%04x:%02x:%02x.%u", dom, bus, slot, fn);
	return true;
}

/* Find a device by a path of its directory in sysfs, which may have links or end in a slash */
static int find_path(struct device *dev, const char *name)
{
	char path[PATH_MAX], subsystem[PATH_MAX + 16];

	if (!realpath(name, path))
		return fail_errno(ST_DEVICE, "there is no device %s", name);
	snprintf(subsystem, sizeof(subsystem), "%s/subsystem", path);
	if (strncmp(path, "/sys/", 5) || access(subsystem, F_OK))
		return fail(ST_DEVICE, "%s is no device: it is not a device's directory in sysfs",
			    name);
	if (strlen(path) >= sizeof(dev->sysfs))
		return fail(ST_DEVICE, "%s: the name is too long", name);
	memcpy(dev->sysfs, path, strlen(path) + 1);
	return ST_OK;
}

int device_find(struct device *dev, const char *name)
{
	char bdf[32];
	int ret;

	*dev = (struct device){ .group = -1, .fd = -1, .group_fd = -1, .container_fd = -1,
				.iommufd = -1 };
	snprintf(dev->name, sizeof(dev->name), "%s", name);
	if (!strncmp(name, "fd:", 3))
		return find_given(dev, name + 3);
	if (is_bdf(name, bdf, sizeof(bdf))) {
		snprintf(dev->name, sizeof(dev->name), "%s", bdf);
		snprintf(dev->sysfs, sizeof(dev->sysfs), "/sys/bus/pci/devices/%s", bdf);
	} else if (name[0] == '/') {
		ret = find_path(dev, name);
		if (ret)
			return ret;
	} else {
		return fail(ST_USAGE,
			    "'%s' is no device: give a PCI address (0000:03:00.0), a path in sysfs, or fd:N",
			    name);
	}
	if (access(dev->sysfs, F_OK))
		return fail(ST_DEVICE, "there is no device %s (%s)", dev->name, dev->sysfs);
	find_in_sysfs(dev);
	return ST_OK;
}

const char *device_obstacle(const struct device *dev, char *buf, size_t size)
{
	if (dev->given)
		return NULL;
	if (!dev->driver[0])
		snprintf(buf, size, "it is bound to no driver; bind it to its VFIO driver first");
	else if (!dev->vfio)
		snprintf(buf, size,
			 "it is bound to '%s', which is not a VFIO driver; bind it to its vfio-pci variant driver first",
			 dev->driver);
	else if (dev->group < 0 && access(dev->cdev, F_OK))
		snprintf(buf, size, "it is in no IOMMU group: is the IOMMU on?");
	else
		return NULL;
	return buf;
}

const char *iommu_name(enum iommu how)
{
	static const char * const names[] = { "auto", "type1", "iommufd" };

	return names[how];
}

/* --- VF tokens ------------------------------------------------------------------ */

static char token[37];

static bool is_uuid(const char *text)
{
	size_t i;

	for (i = 0; i < 36; i++)
		if (i == 8 || i == 13 || i == 18 || i == 23 ? text[i] != '-' :
		    !isxdigit((unsigned char)text[i]))
			return false;
	return !text[36];
}

bool device_use_token(const char *uuid)
{
	if (!is_uuid(uuid))
		return false;
	memcpy(token, uuid, sizeof(token));
	return true;
}

static bool has_file(const struct device *dev, const char *name)
{
	char path[300];

	snprintf(path, sizeof(path), "%s/%s", dev->sysfs, name);
	return !access(path, F_OK);
}

/* The kernel refuses a token for a device that cannot need one */
static bool takes_token(const struct device *dev)
{
	return token[0] && (has_file(dev, "physfn/vfio-dev") || has_file(dev, "sriov_totalvfs"));
}

static uint8_t digit(char c)
{
	return c <= '9' ? c - '0' : (c | ' ') - 'a' + 10;
}

/* Bytes in the order of the UUID's digits, as in the kernel's uuid_t */
static void token_bytes(uint8_t bytes[16])
{
	const char *at = token;
	int i;

	for (i = 0; i < 16; i++, at += 2) {
		at += *at == '-';
		bytes[i] = digit(at[0]) << 4 | digit(at[1]);
	}
}

static int token_refused(const struct device *dev)
{
	if (!token[0])
		return fail(ST_DEVICE,
			    "%s is a virtual function whose physical function has a VFIO driver, or has virtual functions in use: give the VF token by --vf-token",
			    dev->name);
	return fail(ST_DEVICE, "%s: --vf-token is not the VF token of its physical function",
		    dev->name);
}

/* --- iommufd ------------------------------------------------------------------- */

static int refused(const struct device *dev, const char *what)
{
	if (errno == EBUSY)
		return fail(ST_DEVICE, "%s is in use: %s is open elsewhere (a VM?)", dev->name,
			    what);
	if (errno == EACCES || errno == EPERM)
		return fail_errno(ST_DEVICE, "%s: no permission to use %s (%s)", dev->name, what,
				  dev->noiommu ? "without an IOMMU it needs CAP_SYS_RAWIO" :
				  "are you root?");
	return fail_errno(ST_DEVICE, "%s: cannot open %s", dev->name, what);
}

/* The kernel's structure; older headers lack its last member */
struct bind {
	uint32_t	argsz;
	uint32_t	flags;
	int32_t		iommufd;
	uint32_t	out_devid;
	uint64_t	token_uuid_ptr;
};

static int bind_refused(const struct device *dev)
{
	if (errno == EACCES)
		return token_refused(dev);
	if (errno == EPERM)
		return fail(ST_DEVICE,
			    "%s: another device of its IOMMU group %d is open elsewhere: only one program, or one VM, can use them",
			    dev->name, dev->group);
	/* The kernel returns this if another process has bound the device */
	errno = errno == EINVAL ? EBUSY : errno;
	return refused(dev, dev->cdev);
}

static int bind_iommufd(struct device *dev)
{
	struct bind bind = { .argsz = sizeof(struct vfio_device_bind_iommufd) };
	uint8_t uuid[16];

	bind.iommufd = dev->iommufd;
	if (takes_token(dev)) {
		token_bytes(uuid);
		bind.argsz = sizeof(bind);
		bind.flags = VFIO_DEVICE_BIND_FLAG_TOKEN;
		bind.token_uuid_ptr = (uintptr_t)uuid;
	}
	/* No address space is attached, because this program maps no memory for DMA */
	return ioctl(dev->fd, VFIO_DEVICE_BIND_IOMMUFD, &bind) ? bind_refused(dev) : ST_OK;
}

/* All devices of a group must use the same iommufd, so two devices share it */
static int open_iommufd(const struct device *peer)
{
	if (peer && peer->iommufd >= 0)
		return fcntl(peer->iommufd, F_DUPFD_CLOEXEC, 0);
	return open("/dev/iommu", O_RDWR | O_CLOEXEC);
}

static int open_cdev(struct device *dev, const struct device *peer)
{
	dev->how = IOMMU_IOMMUFD;
	dev->iommufd = open_iommufd(peer);
	if (dev->iommufd < 0)
		return refused(dev, "/dev/iommu");
	dev->fd = open(dev->cdev, O_RDWR | O_CLOEXEC);
	if (dev->fd < 0)
		return refused(dev, dev->cdev);
	return bind_iommufd(dev);
}

/* --- type1 ----------------------------------------------------------------------- */

static int open_group(struct device *dev)
{
	struct vfio_group_status status = { .argsz = sizeof(status) };
	char path[32];

	snprintf(path, sizeof(path), "/dev/vfio/%s%d", dev->noiommu ? "noiommu-" : "", dev->group);
	dev->group_fd = open(path, O_RDWR | O_CLOEXEC);
	if (dev->group_fd < 0)
		return refused(dev, path);
	if (ioctl(dev->group_fd, VFIO_GROUP_GET_STATUS, &status))
		return refused(dev, path);
	if (!(status.flags & VFIO_GROUP_FLAGS_VIABLE))
		return fail(ST_DEVICE,
			    "%s: another device of IOMMU group %d has a driver that is not a VFIO driver",
			    dev->name, dev->group);
	dev->container_fd = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC);
	if (dev->container_fd < 0)
		return refused(dev, "/dev/vfio/vfio");
	if (ioctl(dev->group_fd, VFIO_GROUP_SET_CONTAINER, &dev->container_fd) ||
	    ioctl(dev->container_fd, VFIO_SET_IOMMU,
		  dev->noiommu ? VFIO_NOIOMMU_IOMMU : VFIO_TYPE1v2_IOMMU))
		return refused(dev, "a type1 container");
	return ST_OK;
}

/* A group can be opened only once, so two devices of a group share it */
static bool share_group(struct device *dev, const struct device *peer)
{
	if (!peer || peer->group_fd < 0 || peer->group != dev->group)
		return false;
	dev->group_fd = fcntl(peer->group_fd, F_DUPFD_CLOEXEC, 0);
	dev->container_fd = fcntl(peer->container_fd, F_DUPFD_CLOEXEC, 0);
	return dev->group_fd >= 0 && dev->container_fd >= 0;
}

static int open_type1(struct device *dev, const struct device *peer)
{
	char name[300];
	int ret;

	dev->how = IOMMU_TYPE1;
	if (dev->group < 0)
		return fail(ST_DEVICE, "%s is in no IOMMU group: is the IOMMU on?", dev->name);
	if (!share_group(dev, peer)) {
		ret = open_group(dev);
		if (ret)
			return ret;
	}
	snprintf(name, sizeof(name), "%s%s%s", strrchr(dev->sysfs, '/') + 1,
		 takes_token(dev) ? " vf_token=" : "", takes_token(dev) ? token : "");
	dev->fd = ioctl(dev->group_fd, VFIO_GROUP_GET_DEVICE_FD, name);
	if (dev->fd < 0)
		return errno == EACCES ? token_refused(dev) : refused(dev, "the device");
	fcntl(dev->fd, F_SETFD, FD_CLOEXEC);
	return ST_OK;
}

/* --- Either ------------------------------------------------------------------------ */

static bool cdev_usable(const struct device *dev, const struct device *peer)
{
	if (!dev->cdev[0] || access(dev->cdev, F_OK) || access("/dev/iommu", F_OK))
		return false;
	/* Within a group, access by group and by cdev cannot be combined */
	return !(peer && peer->group_fd >= 0 && peer->group == dev->group);
}

int device_open(struct device *dev, enum iommu how, const struct device *peer)
{
	char why[256];
	int ret;

	if (dev->given)
		return ST_OK;
	if (device_obstacle(dev, why, sizeof(why)))
		return fail(ST_DEVICE, "%s cannot be used: %s", dev->name, why);
	if (how == IOMMU_IOMMUFD && !dev->cdev[0])
		return fail(ST_DEVICE, "%s has no device node in /dev/vfio/devices", dev->name);
	if (how == IOMMU_AUTO)
		how = cdev_usable(dev, peer) ? IOMMU_IOMMUFD : IOMMU_TYPE1;
	ret = how == IOMMU_IOMMUFD ? open_cdev(dev, peer) : open_type1(dev, peer);
	if (ret)
		device_close(dev);
	return ret;
}

static void close_one(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

void device_close(struct device *dev)
{
	close_one(&dev->fd);
	close_one(&dev->group_fd);
	close_one(&dev->container_fd);
	close_one(&dev->iommufd);
}
