// SPDX-License-Identifier: GPL-2.0-only
/*
 * vCPUs and threads write to the device's memory without a pause while it is
 * tracked, collected, no longer tracked, and while all that can happen to it
 * happens: reset, memory decode off and on, low power, mappings and memory slots
 * that go and come. After each storm a migration must find exactly what was
 * written.
 *
 * A store that meets a disturbance is not given up but tried again, as a
 * VMM's would be, so what the memory must hold is known all the time, except
 * that a reset clears it.
 *
 * PRECOPY_STORM_MS bounds each storm.
 */
#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <sys/mman.h>

#include <linux/pci_regs.h>
#include <linux/sizes.h>
#include <linux/types.h>
#include <linux/vfio.h>

#include <libvfio.h>
#include <libvfio/kvm_guest.h>
#include <libvfio/precopy_device.h>
#include <libvfio/precopy_replica.h>
#include <libvfio/precopy_states.h>
#include <libvfio/stamp_writer.h>

#include <libvfio/mig_harness.h>

#define SIZE		SZ_4M
#define NR_PAGES	(SIZE / PRECOPY_PAGE)
/* What is written to: pages of two units */
#define FIRST		480
#define NR_USED		64
#define NR_VCPUS	2
#define NR_WRITERS	4
#define MAX_READS	60
#define BURST		16
#define MAX_WAIT_MS	30000

static char **bdfs;
static int nr_bdfs;
static volatile u64 bus_errors;

FIXTURE(race) {
	struct precopy_dev a;
	struct precopy_dev b;
	struct kvm_guest guest;
	u8 *guest_map;		/* what the vCPUs write to */
	struct stamp_writer writers[NR_WRITERS];
	struct precopy_replica replica;
	u64 done[NR_WRITERS][NR_PAGES];
	volatile bool stop;
	/* what the storm is made of */
	bool resets;
	bool decodes;
	u32 may;
	/* what happened */
	u64 arms, collects, acts;
	u64 lost, wrong;	/* pages, words */
	int bad;		/* first result that is not allowed */
	const char *bad_in;
};

typedef FIXTURE_DATA(race) race_t;

FIXTURE_SETUP(race)
{
	const char *missing = kvm_guest_missing();
	bool kvm;
	int i;

	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	if (missing)
		SKIP(return, "%s", missing);
	precopy_open(&self->a, bdfs[0], NULL, SIZE);
	precopy_open(&self->b, bdfs[1], NULL, SIZE);
	self->guest_map = mmap(mmap_reserve(SIZE, SZ_2M, 0), SIZE,
			       PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED,
			       self->a.fd, self->a.bar_offset);
	ASSERT_NE(MAP_FAILED, self->guest_map);
	kvm_guest_init(&self->guest, NR_VCPUS);
	ASSERT_EQ(0, kvm_guest_set_bar(&self->guest, self->guest_map, SIZE));
	for (i = 0; i < NR_WRITERS; i++) {
		kvm = i < NR_VCPUS;
		stamp_writer_init(&self->writers[i], &self->a,
				  kvm ? &self->guest.vcpus[i] : NULL,
				  kvm ? NULL : self->a.bar, i,
				  &stamp_random_64);
	}
}

FIXTURE_TEARDOWN(race)
{
	int i;

	for (i = 0; i < NR_WRITERS; i++)
		stamp_writer_cleanup(&self->writers[i]);
	kvm_guest_cleanup(&self->guest);
	munmap(self->guest_map, SIZE);
	precopy_replica_free(&self->replica);
	precopy_close(&self->a);
	precopy_close(&self->b);
}

/* ------------------------------------------------------------------------ */
/* Actors: each does its thing again and again until told to stop           */

static void judge(race_t *self, const char *what, int ret, const int *allowed)
{
	int i;

	for (i = 0; ret < 0 && allowed[i]; i++)
		if (ret == -allowed[i])
			return;
	if (ret >= 0 || self->bad)
		return;
	self->bad_in = what;
	self->bad = ret;
}

static const int no_errors[] = { 0 };

static void pause_us(unsigned int *rnd, unsigned int max)
{
	usleep(rand_r(rnd) % max);
}

static void note_done(race_t *self)
{
	u64 page;
	int i;

	for (i = 0; i < NR_WRITERS; i++)
		for (page = 0; page < NR_PAGES; page++)
			self->done[i][page] = self->writers[i].done[page];
}

/* Is the word older than what was done, or none that was written? */
static bool is_old(race_t *self, struct stamp_writer *w, u64 page)
{
	u64 word = *(u64 *)(self->replica.image + page * PRECOPY_PAGE + w->nr * 8);
	u64 count = word >> 32;

	if (count > w->begun[page] ||
	    (count && word != kvm_guest_stamp(count, page, w->nr + 1)))
		self->wrong++;

	return count < self->done[w->nr][page];
}

/*
 * Pages of the replica that are too old, unless the device knows that they
 * are still to be sent: set aside, since they were in the middle of a fault.
 */
static u64 count_lost(race_t *self)
{
	u64 page, left, old = 0;
	bool is;
	int i;

	for (page = 0; page < NR_PAGES; page++) {
		is = false;
		for (i = 0; i < NR_WRITERS; i++)
			is |= is_old(self, &self->writers[i], page);
		old += is;
	}
	if (mig_data_size(self->a.dev, &left))
		left = 0;

	return old * PRECOPY_PAGE > left ? old : 0;
}

/* Up to so many reads of the stream. Returns as precopy_replica_drain(). */
static int read_some(race_t *self, int fd, int reads)
{
	struct mig_stream *piece = &self->replica.piece;
	ssize_t ret = 1;

	while (ret > 0 && reads--) {
		piece->len = 0;
		ret = mig_stream_read(piece, fd, SZ_64K);
		if (ret > 0 && precopy_replica_feed(&self->replica, piece->data,
						    piece->len))
			return -EBADMSG;
	}

	return ret;
}

/* Arm, collect some, disarm. Whatever is wholly collected must be right. */
static void act_track(race_t *self, unsigned int *rnd)
{
	/* A reset in between ends the session, or the arc on its way. */
	static const int reset_errors[] = { ECANCELED, ENODEV, ENOMSG, 0 };
	static const int errors[] = { ENOMSG, 0 };
	const int *allowed = self->resets ? reset_errors : errors;
	int passes, ret, fd = -1;

	ret = mig_set_state(self->a.dev, PRE_COPY, &fd);
	judge(self, "PRE_COPY", ret, self->resets ? reset_errors : no_errors);
	if (ret)
		return;
	self->arms++;
	precopy_replica_free(&self->replica);
	precopy_replica_init(&self->replica, SIZE);
	for (passes = rand_r(rnd) % 3; passes >= 0; passes--) {
		note_done(self);
		ret = read_some(self, fd, 1 + rand_r(rnd) % MAX_READS);
		judge(self, "read", ret, allowed);
		if (ret != -ENOMSG)
			break;
		self->collects++;
		if (!self->resets)
			self->lost += count_lost(self);
	}
	ret = mig_set_state(self->a.dev, RUNNING, NULL);
	judge(self, "RUNNING", ret, self->resets ? reset_errors : no_errors);
	close(fd);
}

static void act_reset(race_t *self, unsigned int *rnd)
{
	vfio_pci_device_reset(self->a.dev);
	self->acts++;
	pause_us(rnd, 20000);
}

static void act_decode(race_t *self, unsigned int *rnd)
{
	vfio_pci_cmd_clear(self->a.dev, PCI_COMMAND_MEMORY);
	pause_us(rnd, 3000);
	vfio_pci_cmd_set(self->a.dev, PCI_COMMAND_MEMORY);
	self->acts++;
	pause_us(rnd, 20000);
}

/*
 * The feature, not D3hot by the guest's hand: the device's config space has no
 * capabilities, so there is no power management register to write to.
 */
static void act_power(race_t *self, unsigned int *rnd)
{
	judge(self, "LOW_POWER_ENTRY",
	      vfio_feature_set(self->a.fd, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
			       NULL, 0), no_errors);
	pause_us(rnd, 3000);
	judge(self, "LOW_POWER_EXIT",
	      vfio_feature_set(self->a.fd, VFIO_DEVICE_FEATURE_LOW_POWER_EXIT,
			       NULL, 0), no_errors);
	self->acts++;
	pause_us(rnd, 10000);
}

static void map_at(u8 *at, int prot, int flags, int fd, u64 offset)
{
	VFIO_ASSERT_EQ((void *)at, mmap(at, SIZE, prot, flags | MAP_FIXED, fd,
					offset));
}

/*
 * The threads' mapping is replaced in one step, the vCPUs' is away for a
 * while; its place is kept, or somebody else could get it.
 */
static void act_remap(race_t *self, unsigned int *rnd)
{
	map_at(self->a.bar, PROT_READ | PROT_WRITE, MAP_SHARED, self->a.fd,
	       self->a.bar_offset);
	pause_us(rnd, 3000);
	map_at(self->guest_map, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	pause_us(rnd, 2000);
	map_at(self->guest_map, PROT_READ | PROT_WRITE, MAP_SHARED, self->a.fd,
	       self->a.bar_offset);
	self->acts++;
	pause_us(rnd, 10000);
}

static void act_slot(race_t *self, unsigned int *rnd)
{
	judge(self, "slot away", kvm_guest_set_bar(&self->guest, NULL, 0),
	      no_errors);
	pause_us(rnd, 2000);
	judge(self, "slot back",
	      kvm_guest_set_bar(&self->guest, self->guest_map, SIZE), no_errors);
	self->acts++;
	pause_us(rnd, 10000);
}

static void act_dontneed(race_t *self, unsigned int *rnd)
{
	/* Of what is PROT_NONE at the moment it forgets nothing. */
	madvise(self->guest_map, SIZE, MADV_DONTNEED);
	pause_us(rnd, 2000);
	madvise(self->a.bar, SIZE, MADV_DONTNEED);
	self->acts++;
	pause_us(rnd, 5000);
}

typedef void (*act_fn)(race_t *self, unsigned int *rnd);

struct actor {
	race_t *self;
	act_fn act;
	pthread_t thread;
};

static void *actor_thread(void *arg)
{
	struct actor *actor = arg;
	unsigned int rnd = 1;

	while (!actor->self->stop)
		actor->act(actor->self, &rnd);

	return NULL;
}

/* ------------------------------------------------------------------------ */

/* The store is tried again, until the memory answers. */
static void on_sigbus(int sig)
{
	struct timespec ts = { .tv_nsec = 200000 };

	(void)sig;
	bus_errors++;
	nanosleep(&ts, NULL);
}

static void writers_go(race_t *self, const struct stamp_pattern *pattern,
		       u64 steps)
{
	int i;

	for (i = 0; i < NR_WRITERS; i++) {
		stamp_writer_pattern(&self->writers[i], pattern, FIRST);
		stamp_writer_go(&self->writers[i], steps);
	}
}

static void writers_wait(struct __test_metadata *_metadata, race_t *self)
{
	int i;

	for (i = 0; i < NR_WRITERS; i++) {
		stamp_writer_wait(&self->writers[i]);
		ASSERT_EQ(0, self->writers[i].failed) TH_LOG("writer %d", i);
	}
}

/* A migration, with writers running at first, finds everything. */
static void check_migrates(struct __test_metadata *_metadata, race_t *self)
{
	int data_fd, load_fd;

	/* A reset may have taken some of the stamps: now all are there. */
	writers_go(self, &stamp_sequential_64, NR_USED);
	writers_wait(_metadata, self);
	precopy_replica_free(&self->replica);
	precopy_replica_init(&self->replica, SIZE);

	ASSERT_EQ(0, mig_set_state(self->b.dev, RESUMING, &load_fd));
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &data_fd));
	writers_go(self, &stamp_random_64, NR_USED);
	ASSERT_EQ(-ENOMSG,
		  precopy_replica_drain(&self->replica, data_fd, load_fd));
	writers_wait(_metadata, self);
	ASSERT_EQ(-ENOMSG,
		  precopy_replica_drain(&self->replica, data_fd, load_fd));
	stamp_image(self->a.shadow, NR_PAGES, self->writers, NR_WRITERS);
	EXPECT_EQ(0, memcmp(self->replica.image, self->a.shadow, SIZE));

	writers_go(self, &stamp_random_64, NR_USED);
	writers_wait(_metadata, self);
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
	ASSERT_EQ(0, precopy_replica_drain(&self->replica, data_fd, load_fd));
	EXPECT_TRUE(self->replica.ended);
	ASSERT_EQ(0, mig_set_state(self->b.dev, STOP, NULL));
	stamp_image(self->a.shadow, NR_PAGES, self->writers, NR_WRITERS);
	EXPECT_EQ(0, memcmp(self->replica.image, self->a.shadow, SIZE));
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	EXPECT_EQ(0, precopy_differ(&self->b, self->a.shadow));
	close(data_fd);
	close(load_fd);
}

static unsigned int storm_ms(void)
{
	const char *ms = getenv("PRECOPY_STORM_MS");

	return ms ? strtoul(ms, NULL, 0) : 1500;
}

static u64 nr_faults(race_t *self)
{
	return self->writers[0].faults + self->writers[1].faults;
}

static u64 nr_mmios(race_t *self)
{
	return self->writers[0].mmios + self->writers[1].mmios;
}

/* A storm in which things do not meet proves nothing; a slow machine needs longer. */
static bool has_met(race_t *self)
{
	return self->arms && (!self->decodes || bus_errors) &&
	       (!(self->may & STAMP_MAY_FAULT) || nr_faults(self)) &&
	       (!(self->may & STAMP_MAY_MMIO) || nr_mmios(self));
}

/*
 * It is waited for a collect that came to its end, as only that can be judged
 * at once. But where faults are slow the writers may always be ahead.
 */
static bool has_collected(race_t *self)
{
	return self->resets || self->collects;
}

static void log_storm(race_t *self)
{
	u64 stores[NR_WRITERS] = {}, page;
	int i;

	for (i = 0; i < NR_WRITERS; i++)
		for (page = 0; page < NR_PAGES; page++)
			stores[i] += self->writers[i].done[page];
	printf("# stores %lu, %lu by vCPUs, %lu, %lu by threads;", stores[0],
	       stores[1], stores[2], stores[3]);
	printf(" tracked %lu times, %lu whole collects; disturbed %lu times:",
	       self->arms, self->collects, self->acts);
	printf(" %lu faults and %lu MMIO exits of vCPUs, %lu SIGBUS\n",
	       nr_faults(self), nr_mmios(self), bus_errors);
}

static void storm(struct __test_metadata *_metadata, race_t *self,
		  const act_fn *acts, int nr)
{
	struct sigaction act = { .sa_handler = on_sigbus };
	struct actor actors[8] = {};
	u64 end;
	int i;

	if (self->decodes)
		ASSERT_EQ(0, sigaction(SIGBUS, &act, NULL));
	for (i = 0; i < NR_WRITERS; i++) {
		self->writers[i].may = self->may;
		stamp_writer_pattern(&self->writers[i], &stamp_random_64, FIRST);
		stamp_writer_bursts(&self->writers[i], BURST);
	}
	for (i = 0; i < nr; i++) {
		actors[i].self = self;
		actors[i].act = acts[i];
		ASSERT_EQ(0, pthread_create(&actors[i].thread, NULL,
					    actor_thread, &actors[i]));
	}
	end = precopy_now_ms() + storm_ms();
	while (precopy_now_ms() < end ||
	       (!has_met(self) && precopy_now_ms() < end + MAX_WAIT_MS) ||
	       (!has_collected(self) && precopy_now_ms() < end + storm_ms()))
		usleep(10 * 1000);
	self->stop = true;
	for (i = 0; i < nr; i++)
		ASSERT_EQ(0, pthread_join(actors[i].thread, NULL));
	for (i = 0; i < NR_WRITERS; i++)
		stamp_writer_stop(&self->writers[i]);
	writers_wait(_metadata, self);
	log_storm(self);

	EXPECT_EQ(0, self->bad) TH_LOG("%s: errno %d", self->bad_in, -self->bad);
	EXPECT_EQ(0, self->lost);
	EXPECT_EQ(0, self->wrong);
	EXPECT_TRUE(has_met(self));
	EXPECT_EQ(nr > 1, self->acts > 0);
	for (i = 0; i < NR_WRITERS; i++)
		self->writers[i].may = 0;
	signal(SIGBUS, SIG_DFL);
	check_migrates(_metadata, self);
}

TEST_F_TIMEOUT(race, tracking, MIG_TIMEOUT)
{
	static const act_fn acts[] = { act_track };

	storm(_metadata, self, acts, ARRAY_SIZE(acts));
}

TEST_F_TIMEOUT(race, reset, MIG_TIMEOUT)
{
	static const act_fn acts[] = { act_track, act_reset };

	self->resets = true;
	storm(_metadata, self, acts, ARRAY_SIZE(acts));
}

TEST_F_TIMEOUT(race, decode, MIG_TIMEOUT)
{
	static const act_fn acts[] = { act_track, act_decode };

	self->decodes = true;
	self->may = STAMP_MAY_FAULT;
	storm(_metadata, self, acts, ARRAY_SIZE(acts));
}

TEST_F_TIMEOUT(race, low_power, MIG_TIMEOUT)
{
	static const act_fn acts[] = { act_track, act_power };

	if (vfio_feature_probe(self->a.fd, VFIO_DEVICE_FEATURE_LOW_POWER_ENTRY,
			       VFIO_DEVICE_FEATURE_SET))
		SKIP(return, "the device has no low power state");
	storm(_metadata, self, acts, ARRAY_SIZE(acts));
}

TEST_F_TIMEOUT(race, mappings, MIG_TIMEOUT)
{
	static const act_fn acts[] = {
		act_track, act_remap, act_slot, act_dontneed
	};

	self->may = STAMP_MAY_FAULT | STAMP_MAY_MMIO;
	storm(_metadata, self, acts, ARRAY_SIZE(acts));
}

/* Page tables go with what they map: no store and no vCPU may notice. */
TEST_F_TIMEOUT(race, dontneed, MIG_TIMEOUT)
{
	static const act_fn acts[] = { act_track, act_dontneed };

	storm(_metadata, self, acts, ARRAY_SIZE(acts));
}

TEST_F_TIMEOUT(race, everything, MIG_TIMEOUT)
{
	static const act_fn acts[] = {
		act_track, act_reset, act_decode, act_power, act_remap, act_slot,
		act_dontneed
	};

	self->resets = true;
	self->decodes = true;
	self->may = STAMP_MAY_FAULT | STAMP_MAY_MMIO;
	storm(_metadata, self, acts, ARRAY_SIZE(acts));
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
