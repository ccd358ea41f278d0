/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The ways in which a guest, a VMM or another process can store to the BAR of a
 * device: one table, which all tests of tracking share. A test runs once for each
 * row of it, as a variant of its fixture (libvfio/dirty_writer_list.h).
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_DIRTY_WRITER_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_DIRTY_WRITER_H

#include <stdbool.h>

#include <sys/types.h>

#include <linux/types.h>

#include <libvfio/kvm_guest.h>
#include <libvfio/precopy_tracking.h>
#include <libvfio/slow_file.h>

struct dirty_writer_run;

/*
 * A row. Those with @store make bytes of the BAR hold other bytes. Those with
 * @insn execute one instruction at a page of the mapping, which changes some bytes
 * of it; the same instruction at the shadow has the same effect.
 */
struct dirty_writer {
	const char *name;
	/* Why it is not to be had here, or NULL; also opens what @slow is for */
	const char *(*missing)(struct dirty_writer_run *w);
	void (*open)(struct dirty_writer_run *w);
	void (*store)(struct dirty_writer_run *w, u64 offset, const void *data,
		      size_t len);
	void (*insn)(u8 *page, u64 seed);
	size_t most;		/* bytes of a page that @store is asked for, 0: all */
	int pages;		/* that one store changes, 0: one */
	int mappings;		/* that one store goes through, 0: one */
	bool no_entry;		/* goes through none, and makes no page table entry */
	/* of those by a guest: the instruction, and its operand in bytes */
	enum kvm_guest_op op;
	size_t op_len;
};

extern const struct dirty_writer dirty_writers[];

/* The row of this name; there must be one. */
const struct dirty_writer *dirty_writer_find(const char *name);

/* A row in use */
struct dirty_writer_run {
	const struct dirty_writer *row;
	struct precopy_tracking *t;
	u8 *bar;		/* the mapping that it stores through */
	u8 *second;		/* another one, of its own */
	struct slow_file slow;
	struct kvm_guest guest;
	int pipe[2];
	pid_t child;		/* which stores on demand */
	int to_child[2];
	int from_child[2];
};

/*
 * Comes before a device is opened, as slow_file_open(). Returns why the row cannot
 * be used here, or NULL; then dirty_writer_exit() is due in the end.
 */
const char *dirty_writer_init(struct dirty_writer_run *w, const char *name);

/*
 * From now on it stores to the source of @t, through @bar. A child of the process
 * that called dirty_writer_init() may do this as well, for itself.
 */
void dirty_writer_open(struct dirty_writer_run *w, struct precopy_tracking *t,
		       u8 *bar);
void dirty_writer_close(struct dirty_writer_run *w);
void dirty_writer_exit(struct dirty_writer_run *w);

/* One store to @page, and nothing but that. What is stored depends on @seed. */
void dirty_writer_store(struct dirty_writer_run *w, u64 page, u64 seed);

/* Does to @image what the writer does to the contents of the device. */
void dirty_writer_apply(const struct dirty_writer *row, u8 *image, u64 page,
			u64 seed);

/* Tells the source's shadow and the notes of @t of one store. */
void dirty_writer_stored(const struct dirty_writer *row,
			 struct precopy_tracking *t, u64 page, u64 seed);

/* Both; a tracking_way_fn whose @arg is the struct dirty_writer_run. */
void dirty_writer_track(void *arg, u64 page, u64 seed);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_DIRTY_WRITER_H */
