// SPDX-License-Identifier: GPL-2.0-only
/*
 * The command "list": the devices that are bound to a VFIO driver, with all information
 * that is available without opening them. Opening a device would reset and occupy it.
 */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "json.h"
#include "options.h"
#include "util.h"

#define CLASS	"/sys/class/vfio-dev"

/**
 * struct found - a device in the list
 * @dev: the device, not opened
 * @migrates: "yes", "no", or "unknown" without debugfs
 * @features: the kernel's names of the migration features, separated by commas,
 *	"" if unknown
 * @state: migration state, "" if unknown
 */
struct found {
	struct device	dev;
	const char	*migrates;
	char		features[80];
	char		state[32];
};

static void read_features(struct found *found, const char *path)
{
	FILE *file = fopen(path, "re");
	char line[32];
	size_t len;

	while (file && fgets(line, sizeof(line), file)) {
		line[strcspn(line, "\n")] = '\0';
		len = strlen(found->features);
		snprintf(found->features + len, sizeof(found->features) - len, "%s%s",
			 len ? "," : "", line);
	}
	if (file)
		fclose(file);
}

static void ask_kernel(struct found *found)
{
	const char *name = strrchr(found->dev.sysfs, '/') + 1;
	char path[400];

	snprintf(path, sizeof(path), "/sys/kernel/debug/vfio/%s", name);
	if (!access(path, F_OK))
		found->migrates = "no";
	snprintf(path, sizeof(path), "/sys/kernel/debug/vfio/%s/migration/features", name);
	read_features(found, path);
	snprintf(path, sizeof(path), "/sys/kernel/debug/vfio/%s/migration/state", name);
	if (!read_line(path, found->state, sizeof(found->state))) {
		/* Without debugfs, use the sysfs files of precopy-vfio-pci */
		snprintf(path, sizeof(path), "%s/precopy/migration_state", found->dev.sysfs);
		read_line(path, found->state, sizeof(found->state));
	}
	if (found->state[0] || found->features[0])
		found->migrates = "yes";
	else if (!strcmp(found->dev.driver, "vfio-pci"))
		found->migrates = "no";
}

static bool look_at(struct found *found, const char *entry)
{
	char path[300], sysfs[PATH_MAX];
	const char *name;

	*found = (struct found){ .migrates = "unknown" };
	snprintf(path, sizeof(path), CLASS "/%.200s/device", entry);
	if (!realpath(path, sysfs))
		return false;
	name = strrchr(sysfs, '/') + 1;
	/* Only PCI devices have a short name */
	silent = true;
	if (device_find(&found->dev, name) && device_find(&found->dev, sysfs))
		name = NULL;
	silent = false;
	if (name)
		ask_kernel(found);
	return name;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(((const struct found *)a)->dev.name, ((const struct found *)b)->dev.name);
}

static int is_device(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

/* Returns the number of devices, or -1 if memory is short */
static int find_all(struct found **list)
{
	struct dirent **entries;
	int i, nr, found = 0;

	*list = NULL;
	nr = scandir(CLASS, &entries, is_device, alphasort);
	/* The directory does not exist if no VFIO driver is loaded */
	if (nr < 0)
		return errno == ENOENT ? 0 : -1;
	*list = calloc(nr + 1, sizeof(**list));
	for (i = 0; i < nr; i++) {
		if (*list && look_at(&(*list)[found], entries[i]->d_name))
			found++;
		free(entries[i]);
	}
	free(entries);
	if (*list)
		qsort(*list, found, sizeof(**list), by_name);
	return *list ? found : -1;
}

static void ids(const struct device *dev, char *buf, size_t size)
{
	if (dev->vendor)
		snprintf(buf, size, "%04x:%04x", dev->vendor, dev->device);
	else
		snprintf(buf, size, "-");
}

static void print_text(const struct found *list, int nr)
{
	const char *features;
	char id[16], group[16];
	int i;

	if (!nr) {
		say("no device is bound to a VFIO driver");
		return;
	}
	printf("%-14s %-9s  %-18s %5s  %-8s  %-9s %s\n", "DEVICE", "ID", "DRIVER", "GROUP",
	       "MIGRATES", "STATE", "FEATURES");
	for (i = 0; i < nr; i++) {
		ids(&list[i].dev, id, sizeof(id));
		snprintf(group, sizeof(group), list[i].dev.group < 0 ? "-" : "%d",
			 list[i].dev.group);
		features = list[i].features[0] ? list[i].features : "-";
		printf("%-14s %-9s  %-18s %5s  %-8s  %-9s %s\n", list[i].dev.name, id,
		       list[i].dev.driver, group, list[i].migrates,
		       list[i].state[0] ? list[i].state : "-", features);
	}
}

static void print_features(struct json *json, const char *features)
{
	char copy[80], *word, *rest;

	snprintf(copy, sizeof(copy), "%s", features);
	json_open_array(json, "features");
	for (word = strtok_r(copy, ",", &rest); word; word = strtok_r(NULL, ",", &rest))
		json_string(json, NULL, word);
	json_close_array(json);
}

static void print_one(struct json *json, const struct found *found)
{
	json_open(json, NULL);
	json_string(json, "device", found->dev.name);
	json_number(json, "vendor", found->dev.vendor);
	json_number(json, "device_id", found->dev.device);
	json_string(json, "driver", found->dev.driver);
	if (found->dev.group < 0)
		json_null(json, "iommu_group");
	else
		json_number(json, "iommu_group", found->dev.group);
	json_string(json, "cdev", found->dev.cdev);
	if (!strcmp(found->migrates, "unknown"))
		json_null(json, "can_migrate");
	else
		json_bool(json, "can_migrate", !strcmp(found->migrates, "yes"));
	print_features(json, found->features);
	json_string(json, "state", found->state);
	json_close(json);
}

static void print_json(const struct found *list, int nr)
{
	struct json json;
	int i;

	json_begin(&json, stdout);
	json_open_array(&json, "devices");
	for (i = 0; i < nr; i++)
		print_one(&json, &list[i]);
	json_close_array(&json);
	json_end(&json);
}

int cmd_list(const struct options *opt)
{
	struct found *list;
	int nr = find_all(&list);

	if (nr < 0)
		return fail_errno(ST_FAILED, CLASS);
	if (opt->json)
		print_json(list, nr);
	else
		print_text(list, nr);
	free(list);
	if (fflush(stdout) || ferror(stdout))
		return fail_errno(ST_FILE, "standard output");
	return ST_OK;
}
