/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A precopy-vfio-pci device under test: opened with a chosen amount of memory,
 * with its BAR mapped and its sysfs and debugfs files at hand, and with a
 * shadow of what its memory must hold. The shadow is the oracle of every
 * comparison; it never looks at the device to find out.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_DEVICE_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_DEVICE_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include <libvfio.h>
#include <libvfio/vfio_pci_migration.h>

#define PRECOPY_DRIVER		"precopy-vfio-pci"
#define PRECOPY_BAR		2
#define PRECOPY_PAGE		4096UL

struct precopy_dev {
	const char *bdf;
	struct iommu *iommu;
	struct vfio_pci_device *dev;
	int fd;			/* dev->fd */
	u8 *bar;		/* the mapped BAR */
	u64 bar_offset;		/* of the BAR in the device fd */
	size_t size;		/* of the BAR */
	u8 *shadow;		/* what the BAR must hold */
};

/*
 * Called once by main(). Ends the program with KSFT_SKIP, saying why, unless
 * each device is bound to the driver under test. Restores memory sizes and models
 * at exit.
 */
void precopy_require(char **bdfs, int nr_bdfs);

/* Kernels may lack iommufd: then modes that use it cannot be tried. */
bool precopy_has_mode(const char *mode);
/* @mode, or if it is NULL one that there is, iommufd if possible. */
const char *precopy_mode(const char *mode);

/*
 * memory_size and model ("memory" unless named) are set first; the shadow is all
 * zero, as the memory is. @mode is as for precopy_mode().
 */
void precopy_open(struct precopy_dev *pd, const char *bdf, const char *mode,
		  size_t memory_size);
void precopy_open_model(struct precopy_dev *pd, const char *bdf,
			const char *mode, size_t memory_size, const char *model);
/* Only what comes before the open: memory_size and model are set, knobs cleared. */
void precopy_prepare(const char *bdf, size_t memory_size, const char *model);
void precopy_close(struct precopy_dev *pd);
void precopy_reset(struct precopy_dev *pd);

/* Any file there is, emptied first as by a shell's >: 0 or a negative errno. */
int precopy_file_write(const char *path, const char *value);

/* A hexadecimal number in the PCI device's folder, such as vendor. */
u32 precopy_pci_id(const char *bdf, const char *file);

/* Files below the PCI device's precopy/ folder: 0 or a negative errno. */
int precopy_sysfs_write(const char *bdf, const char *file, const char *value);
int precopy_sysfs_read(const char *bdf, const char *file, char *buf, size_t len);
u64 precopy_sysfs_u64(const char *bdf, const char *file);

/* Whether the kernel has this function; true as well if kallsyms cannot be read. */
bool precopy_kernel_has(const char *function);

/* Test knobs below the vfio device's debugfs folder. */
bool precopy_has_knob(const char *bdf, const char *knob);
int precopy_knob(const char *bdf, const char *knob, u64 value);
/* Waits until the driver has changed the value of a knob to @value. */
void precopy_knob_wait(const char *bdf, const char *knob, u64 value);

/*
 * A store, by a thread, that waits in the middle of the split of its unit: the contents
 * are copied, and the copy is not used yet. The shadow has the store from the beginning.
 */
struct precopy_held_split {
	struct precopy_dev *pd;
	u64 offset;
	pthread_t thread;
};

void precopy_hold_split(struct precopy_held_split *held, struct precopy_dev *pd,
			u64 offset);
/* Returns when the store is done. */
void precopy_release_split(struct precopy_held_split *held);

/* A line of the driver's statistics there, or ~0 if there is no such. */
u64 precopy_stat(const char *bdf, const char *name);

/*
 * Contents. A page's pattern depends on its number and a seed, and no page of
 * a pattern is all zero nor equal to another.
 */
enum precopy_how {
	BY_MMAP,
	BY_PWRITE,
};

void precopy_pattern(void *buf, u64 page, u64 seed);
void precopy_fill(struct precopy_dev *pd, u64 first, u64 nr, u64 seed,
		  enum precopy_how how);
/* @len bytes at @offset become what @data holds. */
void precopy_store(struct precopy_dev *pd, u64 offset, const void *data,
		   size_t len, enum precopy_how how);
void precopy_load(struct precopy_dev *pd, u64 offset, void *data, size_t len,
		  enum precopy_how how);

/*
 * Number of pages that differ from @shadow; the first few are named on stderr.
 * Reads by read() and through the mapping, and the two must agree.
 */
u64 precopy_differ(struct precopy_dev *pd, const u8 *shadow);

static inline u64 precopy_nr_pages(const struct precopy_dev *pd)
{
	return pd->size / PRECOPY_PAGE;
}

/* A number in the environment, or @otherwise if there is none. */
u64 precopy_setting(const char *name, u64 otherwise);

/*
 * How often a test repeats itself: @nr times, or where the kernel is slow as many
 * times less often as PRECOPY_SHORTER in the environment says, but at least once.
 */
u64 precopy_rounds(u64 nr);

/* Milliseconds of CLOCK_MONOTONIC. */
u64 precopy_now_ms(void);

/*
 * Waits until thread @tid, of this process or of a child, is blocked in system call
 * @nr. False if @ended became true before. *@tid is 0 until the thread is there.
 */
bool precopy_wait_blocked(const volatile pid_t *tid, long nr,
			  const volatile bool *ended);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_DEVICE_H */
