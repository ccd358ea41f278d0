/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Any vfio-pci device under the conformance tests: what it offers, how to bring
 * it into a migration state, and why a test has to be skipped on it. Nothing
 * here knows a driver.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_MIG_DEVICE_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_MIG_DEVICE_H

#include <stdbool.h>
#include <stddef.h>

#include <libvfio.h>
#include <libvfio/vfio_pci_migration.h>

enum {
	ERR = VFIO_DEVICE_STATE_ERROR,
	STOP = VFIO_DEVICE_STATE_STOP,
	RUN = VFIO_DEVICE_STATE_RUNNING,
	SC = VFIO_DEVICE_STATE_STOP_COPY,
	RES = VFIO_DEVICE_STATE_RESUMING,
	RP = VFIO_DEVICE_STATE_RUNNING_P2P,
	PC = VFIO_DEVICE_STATE_PRE_COPY,
	PCP = VFIO_DEVICE_STATE_PRE_COPY_P2P,
};

/* What a test may ask of a device. */
#define HAS_MIGRATION	VFIO_MIGRATION_STOP_COPY
#define HAS_P2P		(HAS_MIGRATION | VFIO_MIGRATION_P2P)
#define HAS_PRE_COPY	(HAS_MIGRATION | VFIO_MIGRATION_PRE_COPY)
#define HAS_ALL		(HAS_P2P | HAS_PRE_COPY)

struct mig_dev {
	const char *bdf;
	const char *mode;
	struct iommu *iommu;
	struct vfio_pci_device *dev;
	int fd;			/* dev->fd */
	u64 flags;		/* VFIO_MIGRATION_*, 0 if it does not migrate */
	int fill_bar;		/* a BAR that is memory and migrates, or -1 */
	char lacks[160];	/* the answer when mig_has() is false */
};

/* Why a device cannot be opened in this way here, or NULL. */
const char *mig_mode_missing(const char *bdf, const char *mode);

void mig_open(struct mig_dev *m, const char *bdf, const char *mode);
void mig_close(struct mig_dev *m);
void mig_reopen(struct mig_dev *m);

/* RUNNING without a session, by a reset, or by a new open if it has none. */
void mig_fresh(struct mig_dev *m);

/* All of @flags. If not, m->lacks says so in words. */
bool mig_has(struct mig_dev *m, u64 flags);
bool mig_has_reset(struct mig_dev *m);
bool mig_has_dma_log(struct mig_dev *m);
bool mig_has_info_v2(struct mig_dev *m);
bool mig_has_state(struct mig_dev *m, u32 state);

/* What GET says; complains on stderr if it is another state. */
bool mig_state_is(struct mig_dev *m, u32 state);

/*
 * From RUNNING to @state. @data_fd gets the session's fd, or -1. RESUMING is
 * entered with @stream already written, so that every way out is open. False
 * for ERROR if a failed load does not lead there.
 */
bool mig_go_to(struct mig_dev *m, u32 state, const struct mig_stream *stream,
	       int *data_fd);

/* STOP, and a whole stream of it. */
int mig_save_stopped(struct mig_dev *m, struct mig_stream *stream);

/* Are two streams of the same stopped state the same bytes? m->lacks if not. */
bool mig_saves_alike(struct mig_dev *m, struct mig_stream *stream);

/*
 * With VFIO_SELFTESTS_FILL_BAR, which names a BAR that is memory and part of the
 * device's state, its first pages get contents, and keep them through a
 * migration. Otherwise both do nothing, and mig_contents() is true.
 */
void mig_fill(struct mig_dev *m, u64 seed);
bool mig_contents(struct mig_dev *m, u64 seed);

/* References to the module of the device's driver, or -1 if it is built in. */
long mig_module_refs(struct mig_dev *m);

/* What poll() says of @fd at once. */
short mig_poll(int fd);

/* The last @len bytes of a page, with nothing mapped behind it. */
void *mig_end_of_page(size_t len);

/* An address where nothing is. */
extern void *volatile mig_bad_address;

static inline void mig_close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_MIG_DEVICE_H */
