// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <linux/kvm.h>
#include <linux/types.h>

#include <libvfio.h>
#include <libvfio/kvm_guest.h>
#include <libvfio/precopy_device.h>
#include <libvfio/stamp_writer.h>

#define LCG_MUL		6364136223846793005UL
#define LCG_ADD		1442695040888963407UL
#define PAGES_MASK	1023
#define RETRY_US	200
#define PAUSE_US	4000
#define PAUSE_RATIO	6
#define MAX_PAUSE_US	50000

const struct stamp_pattern stamp_random = {
	"random", LCG_MUL, LCG_ADD, 33, PAGES_MASK, 0
};

const struct stamp_pattern stamp_random_64 = {
	"random", LCG_MUL, LCG_ADD, 33, 63, 0
};

const struct stamp_pattern stamp_sequential = {
	"sequential", 1, 1, 0, PAGES_MASK, 0
};

const struct stamp_pattern stamp_sequential_64 = {
	"sequential", 1, 1, 0, 63, 0
};

const struct stamp_pattern stamp_one_page = {
	"one hot page", LCG_MUL, LCG_ADD, 33, 0, 0
};

const struct stamp_pattern stamp_read_mostly = {
	"read-mostly", LCG_MUL, LCG_ADD, 33, PAGES_MASK, 15
};

/* What a VMM does with an access that KVM could not do. */
static void do_mmio(struct stamp_writer *w)
{
	struct kvm_run *run = w->vcpu->run;
	u64 offset = run->mmio.phys_addr - KVM_GUEST_BAR_GPA;
	u64 at = w->dev->bar_offset + offset;
	ssize_t ret;

	VFIO_ASSERT_LE(offset + run->mmio.len, w->dev->size);
	for (;;) {
		if (run->mmio.is_write)
			ret = pwrite(w->dev->fd, run->mmio.data, run->mmio.len, at);
		else
			ret = pread(w->dev->fd, run->mmio.data, run->mmio.len, at);
		if (ret == (ssize_t)run->mmio.len)
			return;
		/* Memory decode may be off, for a while. */
		VFIO_ASSERT_EQ(ret, -1);
		VFIO_ASSERT_EQ(errno, EIO);
		usleep(RETRY_US);
	}
}

static int run_vcpu(struct stamp_writer *w)
{
	int exit;

	kvm_guest_start(w->vcpu, KVM_GUEST_WALK);
	while ((exit = kvm_guest_run(w->vcpu)) != KVM_EXIT_HLT) {
		if (exit == -EFAULT && w->may & STAMP_MAY_FAULT) {
			/* The instruction was not done, and is tried again. */
			w->faults++;
			usleep(RETRY_US);
		} else if (exit == KVM_EXIT_MMIO && w->may & STAMP_MAY_MMIO) {
			w->mmios++;
			do_mmio(w);
		} else {
			return exit;
		}
	}

	return 0;
}

static void burst(struct stamp_writer *w)
{
	w->walk->left = w->steps;
	if (w->endless)
		w->walk->left = rand_r(&w->rnd) % w->steps;
	if (!w->vcpu)
		kvm_guest_walk_here(w->walk);
	else if (!w->failed)
		w->failed = run_vcpu(w);
}

static u64 now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000ULL + now.tv_nsec / 1000;
}

/* With pauses in proportion: how fast the machine is must not matter. */
static void bursts(struct stamp_writer *w)
{
	u64 began, most;

	while (!*(volatile u64 *)&w->walk->stop && !w->failed) {
		began = now_us();
		burst(w);
		most = PAUSE_US + PAUSE_RATIO * (now_us() - began);
		if (most > MAX_PAUSE_US)
			most = MAX_PAUSE_US;
		usleep(rand_r(&w->rnd) % most);
	}
}

static void *writer_thread(void *arg)
{
	struct stamp_writer *w = arg;

	for (;;) {
		while (sem_wait(&w->go))
			;
		if (w->quit)
			return NULL;
		if (w->endless)
			bursts(w);
		else
			burst(w);
		w->running = false;
		sem_post(&w->idle);
	}
}

static void init_here(struct stamp_writer *w, void *map)
{
	w->walk = calloc_assert(1, sizeof(*w->walk));
	w->begun = calloc_assert(KVM_GUEST_MAX_PAGES, sizeof(u64));
	w->done = calloc_assert(KVM_GUEST_MAX_PAGES, sizeof(u64));
	w->walk->base = (uintptr_t)map;
	w->walk->begun = (uintptr_t)w->begun;
	w->walk->done = (uintptr_t)w->done;
}

static void init_guest(struct stamp_writer *w, struct kvm_guest_vcpu *vcpu)
{
	w->vcpu = vcpu;
	w->walk = &vcpu->cmd->walk;
	w->begun = vcpu->begun;
	w->done = vcpu->done;
	w->walk->base = KVM_GUEST_BAR_GPA;
	w->walk->begun = vcpu->begun_gpa;
	w->walk->done = vcpu->done_gpa;
}

void stamp_writer_pattern(struct stamp_writer *w,
			  const struct stamp_pattern *pattern, u64 first)
{
	VFIO_ASSERT_LT(first + pattern->mask, precopy_nr_pages(w->dev));

	w->walk->first = first;
	w->walk->mul = pattern->mul;
	w->walk->add = pattern->add;
	w->walk->shift = pattern->shift;
	w->walk->mask = pattern->mask;
	w->walk->read_mask = pattern->read_mask;
}

void stamp_writer_init(struct stamp_writer *w, struct precopy_dev *dev,
		       struct kvm_guest_vcpu *vcpu, void *map, u64 nr,
		       const struct stamp_pattern *pattern)
{
	VFIO_ASSERT_LE(precopy_nr_pages(dev), KVM_GUEST_MAX_PAGES);
	memset(w, 0, sizeof(*w));
	w->dev = dev;
	w->nr = nr;
	w->rnd = nr + 1;
	if (vcpu)
		init_guest(w, vcpu);
	else
		init_here(w, map);
	w->walk->base += nr * sizeof(u64);
	w->walk->tag = nr + 1;
	w->walk->x = 77 * (nr + 1);
	stamp_writer_pattern(w, pattern, 0);

	VFIO_ASSERT_EQ(sem_init(&w->go, 0, 0), 0);
	VFIO_ASSERT_EQ(sem_init(&w->idle, 0, 0), 0);
	VFIO_ASSERT_EQ(pthread_create(&w->thread, NULL, writer_thread, w), 0);
}

void stamp_writer_cleanup(struct stamp_writer *w)
{
	if (!w->walk)
		return;
	w->quit = true;
	sem_post(&w->go);
	pthread_join(w->thread, NULL);
	if (!w->vcpu) {
		free(w->walk);
		free((void *)w->begun);
		free((void *)w->done);
	}
	memset(w, 0, sizeof(*w));
}

static void writer_go(struct stamp_writer *w, u64 steps, bool endless)
{
	w->steps = steps;
	w->endless = endless;
	w->running = true;
	w->walk->stop = 0;
	sem_post(&w->go);
}

void stamp_writer_go(struct stamp_writer *w, u64 steps)
{
	writer_go(w, steps, false);
}

void stamp_writer_bursts(struct stamp_writer *w, u64 steps)
{
	writer_go(w, steps, true);
}

void stamp_writer_stop(struct stamp_writer *w)
{
	*(volatile u64 *)&w->walk->stop = 1;
}

void stamp_writer_wait(struct stamp_writer *w)
{
	while (sem_wait(&w->idle))
		;
}

void stamp_image(u8 *image, u64 nr_pages, struct stamp_writer *writers, int nr)
{
	struct stamp_writer *w;
	u64 page, count;
	u64 *words;

	for (w = writers; w < writers + nr; w++) {
		for (page = 0; page < nr_pages; page++) {
			words = (u64 *)(image + page * PRECOPY_PAGE);
			count = w->done[page];
			if (count)
				words[w->nr] = kvm_guest_stamp(count, page,
							       w->walk->tag);
		}
	}
}
