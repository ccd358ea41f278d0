/* SPDX-License-Identifier: GPL-2.0-only */
/* Finding, opening and touching a VFIO device: type1 or iommufd, or given. */
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
 * @name: as the user calls it
 * @sysfs: its directory in sysfs, "" if only a file descriptor is known
 * @driver: what it is bound to, "" if nothing or unknown
 * @group: number of its IOMMU group, -1 if there is none or it is unknown
 * @cdev: "/dev/vfio/devices/vfioN", "" if there is none
 * @vfio: its driver is one of VFIO's
 * @noiommu: there is no IOMMU: the kernel lets only trusted programs use it
 * @vendor: PCI vendor id, 0 if not a PCI device
 * @device: PCI device id
 * @how: what it was opened by
 * @given: the file descriptor was inherited; others may have the device open
 * @fd: the device, -1 while closed
 * @group_fd: type1; -1 otherwise
 * @container_fd: type1; -1 otherwise
 * @iommufd: iommufd; -1 otherwise
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
 * Find @name, "[DDDD:]BB:DD.F", a directory in sysfs, or "fd:N". Says why and
 * returns a status if there is no such device.
 */
int device_find(struct device *dev, const char *name);

/*
 * The VF token for devices that may have one: a virtual function whose physical function
 * has a VFIO driver, and that one. False if @uuid is none.
 */
bool device_use_token(const char *uuid);

/* What keeps it from being opened, in words; NULL if nothing is known to. */
const char *device_obstacle(const struct device *dev, char *buf, size_t size);

/*
 * Open it, which resets it. @peer, or NULL, is a device that is open already and
 * may be in the same IOMMU group.
 */
int device_open(struct device *dev, enum iommu how, const struct device *peer);
void device_close(struct device *dev);

const char *iommu_name(enum iommu how);

/* Size of region @index, 0 if it has none or cannot be read and written. */
uint64_t device_region_size(const struct device *dev, unsigned int index);

/* Size of the largest of these among a PCI device's BARs, 0 if there is none. */
uint64_t device_memory_size(const struct device *dev);

/* Refuses a region that the device does not have, or that cannot be copied. */
int device_check_region(const struct device *dev, unsigned int index);

struct atomic_file;
/* Copy a region from or to a file, with the device's memory decode on. */
int device_fill_region(const struct device *dev, unsigned int index, const char *path);
int device_dump_region(const struct device *dev, unsigned int index, struct atomic_file *file);

#endif /* VFIO_MIGRATE_DEVICE_H */
