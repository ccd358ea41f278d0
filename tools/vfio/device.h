/* SPDX-License-Identifier: GPL-2.0-only */
/* Finding, opening and accessing a VFIO device: by type1, iommufd, or inherited. */
#ifndef VFIO_MIGRATE_DEVICE_H
#define VFIO_MIGRATE_DEVICE_H

#include <limits.h>
#include <stdbool.h>
#include <stdint.h>

enum iommu {
	IOMMU_AUTO,
	IOMMU_TYPE1,
	IOMMU_IOMMUFD,
};

/**
 * struct device - a VFIO device
 * @name: name on the command line
 * @sysfs: path of its directory in sysfs, "" if only a file descriptor is known
 * @driver: name of its driver, "" if none or unknown
 * @group: number of its IOMMU group, -1 if none or unknown
 * @cdev: path "/dev/vfio/devices/vfioN" of its node, "" if none
 * @vfio: true if its driver is a VFIO driver
 * @noiommu: true if there is no IOMMU; only privileged programs may use the
 *	device then
 * @vendor: PCI vendor id, 0 if not a PCI device
 * @device: PCI device id
 * @how: interface through which it was opened
 * @given: true if its file descriptor was inherited; other processes may have it
 *	open
 * @fd: file descriptor of the device, -1 while closed
 * @group_fd: file descriptor of the group with type1, otherwise -1
 * @container_fd: file descriptor of the container with type1, otherwise -1
 * @iommufd: file descriptor of the iommufd with iommufd, otherwise -1
 */
struct device {
	char		name[128];
	char		sysfs[256];
	char		driver[64];
	int		group;
	char		cdev[64];
	bool		vfio;
	bool		noiommu;
	uint16_t	vendor;
	uint16_t	device;
	enum iommu	how;
	bool		given;
	int		fd;
	int		group_fd;
	int		container_fd;
	int		iommufd;
};

/*
 * Find the device @name: "[DDDD:]BB:DD.F", a directory in sysfs, or "fd:N". Prints the
 * reason and returns a status if there is no such device.
 */
int device_find(struct device *dev, const char *name);

/*
 * Set the VF token for devices that may need it: a virtual function whose physical function
 * has a VFIO driver, and that physical function. Returns false if @uuid is not a UUID.
 */
bool device_use_token(const char *uuid);

/* Return the reason why the device cannot be opened, as text; NULL if none is known. */
const char *device_obstacle(const struct device *dev, char *buf, size_t size);

/*
 * Open the device, which resets it. @peer is NULL, or a device that is already open and
 * may be in the same IOMMU group.
 */
int device_open(struct device *dev, enum iommu how, const struct device *peer);
void device_close(struct device *dev);

const char *iommu_name(enum iommu how);

/* Size of region @index in bytes, 0 if it does not exist or cannot be read and written. */
uint64_t device_region_size(const struct device *dev, unsigned int index);

/* Size in bytes of the largest such BAR of a PCI device, 0 if there is none. */
uint64_t device_memory_size(const struct device *dev);

/* Fail if region @index does not exist, or cannot be copied. */
int device_check_region(const struct device *dev, unsigned int index);

struct atomic_file;
/* Copy a region from or to a file. Memory decode is on during the copy. */
int device_fill_region(const struct device *dev, unsigned int index, const char *path);
int device_dump_region(const struct device *dev, unsigned int index, struct atomic_file *file);

#endif /* VFIO_MIGRATE_DEVICE_H */
