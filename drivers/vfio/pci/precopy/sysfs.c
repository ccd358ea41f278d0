// SPDX-License-Identifier: GPL-2.0-only
/* Attributes in the directory precopy/ of the PCI device in sysfs. */

#include <linux/ctype.h>
#include <linux/device.h>
#include <linux/kstrtox.h>
#include <linux/log2.h>
#include <linux/overflow.h>
#include <linux/string.h>
#include <linux/sysfs.h>

#include "func/model.h"
#include "mig/fsm.h"
#include "mig/load.h"
#include "mig/model.h"
#include "mig/save.h"
#include "precopy.h"

/**
 * precopy_memory_size_valid - check a size of the device's memory
 * @size: size in bytes
 *
 * Return: true if @size is a power of two from 1 MiB to 64 GiB.
 */
bool precopy_memory_size_valid(u64 size)
{
	return is_power_of_2(size) && size >= PRECOPY_MIN_MEMORY &&
	       size <= PRECOPY_MAX_MEMORY;
}

static unsigned int precopy_suffix_shift(char suffix)
{
	switch (tolower(suffix)) {
	case 'k':
		return 10;
	case 'm':
		return 20;
	default:
		return 30;
	}
}

/**
 * precopy_memory_size_parse - parse the text of a size
 * @text: a number in a format of kstrtou64(), optionally followed by K, M or G in
 *	  either case, optionally followed by a line feed
 * @size: result in bytes; not checked by precopy_memory_size_valid()
 *
 * memparse() is not used, because it accepts numbers that overflow, and leaves the
 * check of trailing characters to its callers.
 *
 * Return: 0, -ERANGE if the size does not fit into 64 bits, -EINVAL for other text.
 */
int precopy_memory_size_parse(const char *text, u64 *size)
{
	size_t len = strcspn(text, "kKmMgG\n");
	unsigned int shift = 0;
	char number[24];
	int ret;

	if (len >= sizeof(number))
		return -EINVAL;
	strscpy(number, text, len + 1);
	text += len;
	if (*text && *text != '\n')
		shift = precopy_suffix_shift(*text++);
	if (!sysfs_streq(text, ""))
		return -EINVAL;
	ret = kstrtou64(number, 0, size);
	if (ret)
		return ret;
	return check_shl_overflow(*size, shift, size) ? -ERANGE : 0;
}

static ssize_t memory_size_show(struct device *dev,
				struct device_attribute *attr, char *buf)
{
	struct precopy_device *pcd = precopy_from_dev(dev);

	guard(spinlock)(&pcd->state_lock);
	return sysfs_emit(buf, "%llu\n", pcd->next_size);
}

static ssize_t memory_size_store(struct device *dev,
				 struct device_attribute *attr,
				 const char *buf, size_t count)
{
	struct precopy_device *pcd = precopy_from_dev(dev);
	u64 size;
	int ret;

	ret = precopy_memory_size_parse(buf, &size);
	if (ret)
		return ret;
	if (!precopy_memory_size_valid(size))
		return -EINVAL;
	guard(spinlock)(&pcd->state_lock);
	if (pcd->opened)
		return -EBUSY;
	pcd->next_size = size;
	return count;
}
static DEVICE_ATTR_RW(memory_size);

static ssize_t model_show(struct device *dev, struct device_attribute *attr,
			  char *buf)
{
	struct precopy_device *pcd = precopy_from_dev(dev);

	guard(spinlock)(&pcd->state_lock);
	return sysfs_emit(buf, "%s\n", pcd->next_model->name);
}

static ssize_t model_store(struct device *dev, struct device_attribute *attr,
			   const char *buf, size_t count)
{
	struct precopy_device *pcd = precopy_from_dev(dev);
	const struct precopy_model *model = precopy_model_find(buf);

	if (!model)
		return -EINVAL;
	guard(spinlock)(&pcd->state_lock);
	if (pcd->opened)
		return -EBUSY;
	pcd->next_model = model;
	return count;
}
static DEVICE_ATTR_RW(model);

static ssize_t backend_show(struct device *dev, struct device_attribute *attr,
			    char *buf)
{
	return sysfs_emit(buf, "ram\n");
}
static DEVICE_ATTR_RO(backend);

static ssize_t migration_state_show(struct device *dev,
				    struct device_attribute *attr, char *buf)
{
	struct precopy_device *pcd = precopy_from_dev(dev);

	guard(spinlock)(&pcd->state_lock);
	return sysfs_emit(buf, "%s\n", precopy_state_name(pcd->mig_state));
}
static DEVICE_ATTR_RO(migration_state);

static ssize_t initial_bytes_show(struct device *dev,
				  struct device_attribute *attr, char *buf)
{
	u64 initial, dirty;

	precopy_save_counters(precopy_from_dev(dev), &initial, &dirty);
	return sysfs_emit(buf, "%llu\n", initial);
}
static DEVICE_ATTR_RO(initial_bytes);

static ssize_t dirty_bytes_show(struct device *dev,
				struct device_attribute *attr, char *buf)
{
	u64 initial, dirty;

	precopy_save_counters(precopy_from_dev(dev), &initial, &dirty);
	return sysfs_emit(buf, "%llu\n", dirty);
}
static DEVICE_ATTR_RO(dirty_bytes);

static ssize_t startup_show(struct device *dev, struct device_attribute *attr,
			    char *buf)
{
	return sysfs_emit(buf, "%s\n",
			  precopy_load_phase_name(precopy_from_dev(dev)));
}
static DEVICE_ATTR_RO(startup);

static struct attribute *precopy_attrs[] = {
	&dev_attr_memory_size.attr,
	&dev_attr_model.attr,
	&dev_attr_backend.attr,
	&dev_attr_migration_state.attr,
	&dev_attr_initial_bytes.attr,
	&dev_attr_dirty_bytes.attr,
	&dev_attr_startup.attr,
	NULL
};

static const struct attribute_group precopy_group = {
	.name	= "precopy",
	.attrs	= precopy_attrs,
};

const struct attribute_group *precopy_sysfs_groups[] = {
	&precopy_group,
	NULL
};
