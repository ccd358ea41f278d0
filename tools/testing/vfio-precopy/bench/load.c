// SPDX-License-Identifier: GPL-2.0-only
#include <fcntl.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "load.h"

#define BURST		16
#define PAUSE_NS	4000000
#define CALIBRATE_NS	20000000
/* Above this the time is divided, which costs two system calls */
#define LONG_NS		50000
/* Each thread has a word of its own in each page, 64 bytes from the others */
#define WORD_BYTES	64UL
/* Changes of the phase in one run */
#define MAX_STEPS	64

/* Times of a thread that the kernel counts: on a processor, and waiting for one; ns */
struct counters {
	uint64_t ran;
	uint64_t queued;
};

struct load_thread {
	struct load *load;
	pthread_t thread;
	enum load_kind kind;
	int nr;
	int schedstat;
	uint64_t random;
	struct counters last;
	struct hist (*times)[LOAD_TIMES];	/* of each phase */
};

struct load {
	pthread_rwlock_t paused;	/* held for write while paused */
	volatile bool stop;
	char *at;
	uint64_t nr_pages;
	double tick_ns;
	/* The phases of this run in turn; @step is the current one */
	struct {
		int phase;
		int busy;
	} steps[MAX_STEPS];
	unsigned int step;
	int nr_threads;
	struct load_thread threads[];
};

/* --- Clocks ------------------------------------------------------------------ */

/* The processor's counter, read neither before nor after its place in the program */
static uint64_t ticks(void)
{
#ifdef __x86_64__
	uint64_t value;

	__builtin_ia32_lfence();
	value = __builtin_ia32_rdtsc();
	__builtin_ia32_lfence();
	return value;
#else
	return now_ns();
#endif
}

static double calibrate(void)
{
	uint64_t ns = now_ns(), begin = ticks(), end;

	while (now_ns() - ns < CALIBRATE_NS)
		;
	end = ticks();
	return (double)(now_ns() - ns) / (end - begin);
}

static void read_counters(const struct load_thread *t, struct counters *counters)
{
	unsigned long long ran, queued;
	char text[80];
	ssize_t n;

	n = pread(t->schedstat, text, sizeof(text) - 1, 0);
	text[n > 0 ? n : 0] = 0;
	if (sscanf(text, "%llu %llu", &ran, &queued) != 2)
		fatal("schedstat of a thread cannot be read");
	/* The first number of schedstat is as old as the last tick */
	counters->ran = ran_ns();
	counters->queued = queued;
}

/* --- A thread ---------------------------------------------------------------- */

static uint64_t less(uint64_t ns, uint64_t by)
{
	return ns > by ? ns - by : 0;
}

static void note(struct load_thread *t, int phase, uint64_t ns)
{
	struct hist *times = t->times[phase];
	struct counters now;
	uint64_t driver;

	hist_add(&times[LOAD_WALL], ns);
	if (ns < LONG_NS) {
		hist_add(&times[LOAD_DRIVER], ns);
		return;
	}
	read_counters(t, &now);
	driver = less(ns, now.queued - t->last.queued);
	hist_add(&times[LOAD_DRIVER], driver);
	hist_add(&times[LOAD_ASLEEP], less(driver, now.ran - t->last.ran));
	t->last = now;
}

static unsigned int current_step(const struct load *load)
{
	return __atomic_load_n(&load->step, __ATOMIC_ACQUIRE);
}

static int phase_of(const struct load *load, unsigned int began)
{
	if (current_step(load) != began && !load->steps[began].busy)
		began++;
	return load->steps[began].phase;
}

static void access_once(struct load_thread *t)
{
	struct load *load = t->load;
	unsigned int began = current_step(load);
	volatile uint64_t *word;
	uint64_t page, t0, ns;

	t->random ^= t->random << 13;
	t->random ^= t->random >> 7;
	t->random ^= t->random << 17;
	page = t->random % load->nr_pages;
	word = (void *)(load->at + page * PAGE + t->nr * WORD_BYTES);
	t0 = ticks();
	/* Zero as before, so that the stream has no checksums, which TCG emulates slowly */
	if (t->kind == LOAD_WRITE)
		*word = 0;
	else
		(void)*word;
	ns = (ticks() - t0) * load->tick_ns;
	note(t, phase_of(load, began), ns);
}

static void *run_thread(void *arg)
{
	static const struct timespec pause = { .tv_nsec = PAUSE_NS };
	struct load_thread *t = arg;
	int i;

	t->schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	while (!t->load->stop) {
		pthread_rwlock_rdlock(&t->load->paused);
		if (!t->load->stop) {
			read_counters(t, &t->last);
			for (i = 0; i < BURST; i++)
				access_once(t);
		}
		pthread_rwlock_unlock(&t->load->paused);
		nanosleep(&pause, NULL);
	}
	close(t->schedstat);
	return NULL;
}

/* --- All threads ------------------------------------------------------------- */

static void init_lock(struct load *load)
{
	pthread_rwlockattr_t attr;

	/* Threads hold it most of the time between them */
	pthread_rwlockattr_init(&attr);
	pthread_rwlockattr_setkind_np(&attr,
				      PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&load->paused, &attr);
	pthread_rwlockattr_destroy(&attr);
}

static void start_thread(struct load *load, int nr)
{
	struct load_thread *t = &load->threads[nr];

	t->load = load;
	t->nr = nr;
	t->kind = nr % LOAD_KINDS;
	t->random = now_ns() * LOAD_KINDS * load->nr_threads + nr + 1;
	t->times = calloc(LOAD_PHASES, sizeof(*t->times));
	if (!t->times || pthread_create(&t->thread, NULL, run_thread, t))
		fatal("no thread");
}

struct load *load_start(int nr)
{
	int i, nr_threads = nr * LOAD_KINDS;
	struct load *load;

	if (nr < 1 || nr_threads * WORD_BYTES > PAGE)
		fatal("threads of each kind: 1 to %lu",
		      PAGE / WORD_BYTES / LOAD_KINDS);
	load = calloc(1, sizeof(*load) + nr_threads * sizeof(*load->threads));
	if (!load)
		fatal("no memory");
	init_lock(load);
	load_pause(load);
	load->tick_ns = calibrate();
	load->nr_threads = nr_threads;
	for (i = 0; i < nr_threads; i++)
		start_thread(load, i);
	return load;
}

void load_stop(struct load *load)
{
	int i;

	load->stop = true;
	pthread_rwlock_unlock(&load->paused);
	for (i = 0; i < load->nr_threads; i++) {
		pthread_join(load->threads[i].thread, NULL);
		free(load->threads[i].times);
	}
	pthread_rwlock_destroy(&load->paused);
	free(load);
}

void load_resume(struct load *load, char *at, uint64_t nr_pages)
{
	int i;

	for (i = 0; i < load->nr_threads; i++)
		memset(load->threads[i].times, 0,
		       LOAD_PHASES * sizeof(*load->threads[i].times));
	load->at = at;
	load->nr_pages = nr_pages;
	load->step = 0;
	pthread_rwlock_unlock(&load->paused);
}

void load_pause(struct load *load)
{
	pthread_rwlock_wrlock(&load->paused);
}

void load_phase(struct load *load, int phase, int busy)
{
	unsigned int step = load->step + 1;

	if (step == MAX_STEPS || phase >= LOAD_PHASES)
		fatal("too many phases");
	load->steps[step].phase = phase;
	load->steps[step].busy = busy;
	__atomic_store_n(&load->step, step, __ATOMIC_RELEASE);
}

void load_times(const struct load *load, int phase, enum load_kind kind,
		enum load_time time, struct hist *hist)
{
	const struct load_thread *t = load->threads;
	int i;

	for (i = 0; i < load->nr_threads; i++)
		if (t[i].kind == kind)
			hist_merge(hist, &t[i].times[phase][time]);
}
