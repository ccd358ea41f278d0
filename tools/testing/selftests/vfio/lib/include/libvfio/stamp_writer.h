/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Writers that stamp the pages of a device, each in a word of its own of every
 * page, as threads of user space or as vCPUs of a KVM guest. What they have
 * begun and done to store can be seen at any time, and what the memory must
 * hold follows from it: that is the oracle of the tests that use them.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_STAMP_WRITER_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_STAMP_WRITER_H

#include <pthread.h>
#include <semaphore.h>
#include <stdbool.h>

#include <libvfio/kvm_guest.h>
#include <libvfio/precopy_device.h>

/* Exits of a vCPU that are no failure, and after which it goes on. */
#define STAMP_MAY_FAULT		1	/* KVM_RUN fails with EFAULT */
#define STAMP_MAY_MMIO		2	/* done by read() and write(), as a VMM does */

struct stamp_pattern {
	const char *name;
	u64 mul, add, shift, mask, read_mask;
};

/* Over 1024 pages, or 64, or one. */
extern const struct stamp_pattern stamp_random;
extern const struct stamp_pattern stamp_random_64;
extern const struct stamp_pattern stamp_sequential;
extern const struct stamp_pattern stamp_sequential_64;
extern const struct stamp_pattern stamp_one_page;
extern const struct stamp_pattern stamp_read_mostly;

struct stamp_writer {
	struct precopy_dev *dev;
	struct kvm_guest_vcpu *vcpu;	/* NULL: a thread of user space */
	struct kvm_guest_walk *walk;
	u64 nr;				/* which word of the page */
	/* Counts for each page, as the host sees them */
	volatile u64 *begun;
	volatile u64 *done;
	u32 may;
	u64 faults;			/* that happened */
	u64 mmios;
	int failed;			/* 0, or the exit that was not expected */

	u64 steps;			/* of the run to come */
	bool endless;
	unsigned int rnd;
	sem_t go;
	sem_t idle;
	volatile bool running;
	volatile bool quit;
	pthread_t thread;
};

/* Without a @vcpu in user space, through @map. */
void stamp_writer_init(struct stamp_writer *writer, struct precopy_dev *dev,
		       struct kvm_guest_vcpu *vcpu, void *map, u64 nr,
		       const struct stamp_pattern *pattern);
void stamp_writer_cleanup(struct stamp_writer *writer);

/* While it pauses: from now on this, at the pages from @first on. */
void stamp_writer_pattern(struct stamp_writer *writer,
			  const struct stamp_pattern *pattern, u64 first);

/* Do @steps loads and stores, then pause. */
void stamp_writer_go(struct stamp_writer *writer, u64 steps);
/*
 * The same again and again, with less than @steps each time and a breath in
 * between, lest collecting never catch up. To be stopped.
 */
void stamp_writer_bursts(struct stamp_writer *writer, u64 steps);
void stamp_writer_stop(struct stamp_writer *writer);
/* Wait until it pauses; then nothing is in flight. */
void stamp_writer_wait(struct stamp_writer *writer);

/*
 * Makes @image what the memory holds while all of the writers pause. It must be
 * all zero at first, and be left alone between the calls.
 */
void stamp_image(u8 *image, u64 nr_pages, struct stamp_writer *writers, int nr);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_STAMP_WRITER_H */
