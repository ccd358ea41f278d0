/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A storm: threads that each do one thing over and over, at random, for a while,
 * and note which errors they see. What they do they find out by a seed, so that
 * a run can be repeated as far as the scheduler allows.
 */
#ifndef SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_STORM_H
#define SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_STORM_H

#include <pthread.h>
#include <stdbool.h>

#include <linux/types.h>

#define STORM_MAX_ACTORS	24

struct storm_actor;

typedef void (*storm_act_fn)(struct storm_actor *actor);

struct storm_actor {
	struct storm *storm;
	storm_act_fn act;
	pthread_t thread;
	unsigned int rnd;
	int nr;			/* which of the actors */
	void *own;		/* freed at the end, for the act to use */
};

struct storm {
	void *arg;		/* whatever the acts work on */
	volatile bool stop;
	/* Errors that nobody should see, of which the last is kept. */
	int bad;
	const char *bad_in;
	u64 done;

	int nr_actors;
	struct storm_actor actors[STORM_MAX_ACTORS];
};

/* PRECOPY_SEED of the environment, or a new one without. */
unsigned int storm_seed(void);

/* PRECOPY_TORTURE_MS, or @ms without. */
unsigned int storm_ms(unsigned int ms);

/* Starts one thread for each of @acts. */
void storm_begin(struct storm *storm, void *arg, const storm_act_fn *acts,
		 int nr, unsigned int seed);
/* Tells the threads to end; storm_end() waits for them as well. */
void storm_stop(struct storm *storm);
void storm_end(struct storm *storm);

/* 0 to @n - 1 */
unsigned int storm_pick(struct storm_actor *actor, unsigned int n);

/*
 * @ret is a result or a negative errno, which must be among @allowed: positive
 * errnos, the last one 0. NULL allows all.
 */
void storm_judge(struct storm_actor *actor, const char *what, long ret,
		 const int *allowed);

/*
 * One load or store through a mapping that may answer with SIGBUS: 0 or
 * -EFAULT. storm_catch_sigbus() must have been called.
 */
void storm_catch_sigbus(void);
int storm_store(volatile u8 *to, u8 value);
int storm_load(const volatile u8 *from);

#endif /* SELFTESTS_VFIO_LIB_INCLUDE_LIBVFIO_STORM_H */
