// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <linux/types.h>

#include <libvfio.h>
#include <libvfio/precopy_device.h>
#include <libvfio/storm.h>

static __thread sigjmp_buf bus_error;
static __thread volatile bool may_fault;

unsigned int storm_seed(void)
{
	struct timespec now;

	clock_gettime(CLOCK_REALTIME, &now);
	return precopy_setting("PRECOPY_SEED", now.tv_nsec ^ now.tv_sec);
}

unsigned int storm_ms(unsigned int ms)
{
	return precopy_setting("PRECOPY_TORTURE_MS", ms);
}

unsigned int storm_pick(struct storm_actor *actor, unsigned int n)
{
	return rand_r(&actor->rnd) % n;
}

void storm_judge(struct storm_actor *actor, const char *what, long ret,
		 const int *allowed)
{
	struct storm *storm = actor->storm;

	__atomic_fetch_add(&storm->done, 1, __ATOMIC_RELAXED);
	if (ret >= 0 || !allowed)
		return;
	for (; *allowed; allowed++)
		if (ret == -*allowed)
			return;
	storm->bad = ret;
	storm->bad_in = what;
}

static void *storm_thread(void *arg)
{
	struct storm_actor *actor = arg;

	while (!actor->storm->stop)
		actor->act(actor);

	return NULL;
}

void storm_begin(struct storm *storm, void *arg, const storm_act_fn *acts,
		 int nr, unsigned int seed)
{
	struct storm_actor *actor;
	int i;

	VFIO_ASSERT_LE(nr, STORM_MAX_ACTORS);
	memset(storm, 0, sizeof(*storm));
	storm->arg = arg;
	storm->nr_actors = nr;
	for (i = 0; i < nr; i++) {
		actor = &storm->actors[i];
		actor->storm = storm;
		actor->act = acts[i];
		actor->nr = i;
		actor->rnd = seed + i;
		VFIO_ASSERT_EQ(pthread_create(&actor->thread, NULL,
					      storm_thread, actor), 0);
	}
}

void storm_stop(struct storm *storm)
{
	storm->stop = true;
}

void storm_end(struct storm *storm)
{
	int i;

	storm->stop = true;
	for (i = 0; i < storm->nr_actors; i++) {
		VFIO_ASSERT_EQ(pthread_join(storm->actors[i].thread, NULL), 0);
		free(storm->actors[i].own);
	}
}

/* One that nobody waits for is a failure of the test, and ends it. */
static void on_sigbus(int sig)
{
	if (!may_fault)
		_exit(128 + sig);
	siglongjmp(bus_error, sig);
}

void storm_catch_sigbus(void)
{
	struct sigaction act = { .sa_handler = on_sigbus };

	VFIO_ASSERT_EQ(sigaction(SIGBUS, &act, NULL), 0);
}

int storm_store(volatile u8 *to, u8 value)
{
	int ret = -EFAULT;

	may_fault = true;
	if (!sigsetjmp(bus_error, 1)) {
		*to = value;
		ret = 0;
	}
	may_fault = false;

	return ret;
}

int storm_load(const volatile u8 *from)
{
	int ret = -EFAULT;

	may_fault = true;
	if (!sigsetjmp(bus_error, 1)) {
		(void)*from;
		ret = 0;
	}
	may_fault = false;

	return ret;
}
