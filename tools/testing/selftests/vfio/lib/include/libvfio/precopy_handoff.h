/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What a source and a target can be asked about the target's startup, and what
 * else the tests of that have in common.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_HANDOFF_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_HANDOFF_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/types.h>
#include <linux/vfio_precopy.h>

#include <libvfio/precopy_device.h>
#include <libvfio/precopy_stream.h>

/* How long something may take that needs no time; much less than LONG. */
#define HANDOFF_PATIENCE_MS	60000
#define HANDOFF_LONG_MS		600000

/*
 * PRECOPY_GET_STARTUP with poison in all fields but argsz. 0 after
 * checking what must be true of any answer, or a negative errno after checking
 * that nothing was written.
 */
int handoff_get(int data_fd, struct vfio_precopy_startup *info);

/* The phase alone, or a negative errno. */
int handoff_phase(int data_fd);

/* Asks until it is in @phase; false if it never was. */
bool handoff_wait(int data_fd, u32 phase);

/* What poll() says now, of all that can be said; or after at most @ms. */
int handoff_poll(int data_fd, int events, int ms);

/* A PREFACE of the first @units units, all of each of them in use. */
void handoff_put_preface(struct wire *w, u64 units);

/* The same, of which only so many bytes are in use. */
void handoff_put_preface_of(struct wire *w, u64 units, u64 bytes_in_use);

/* Puts a whole stream into @w that brings nothing: @units are to be prepared. */
void handoff_put_all(struct wire *w, u64 units);

/* What records of a stream stand where. */
struct handoff_marks {
	unsigned int prefaces;
	unsigned int initial_ends;
	size_t preface_end;	/* of the last PREFACE: where it ends */
	u64 startup_ns;		/* and what it says */
	u64 bytes_in_use;
	size_t barrier;		/* where the last INITIAL_END begins */
};

/* Of a stream that need not have ended; what is cut off is not looked at. */
void handoff_marks(const struct mig_stream *stream, struct handoff_marks *marks);

/* A line of debugfs' statistics. */
u64 handoff_stat(const char *bdf, const char *name);

/* A file below /sys/bus/pci: 0 or a negative errno. */
int handoff_pci_write(const char *file, const char *value);

/*
 * Device @pd, in RUNNING, is a target that has @units to prepare and @delay_ms
 * to wait, @times times. The device remembers that until it is closed. Ends in
 * RUNNING, reset.
 */
void handoff_teach(struct precopy_dev *pd, u64 units, unsigned int delay_ms,
		   int times);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_PRECOPY_HANDOFF_H */
