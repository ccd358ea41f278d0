// SPDX-License-Identifier: GPL-2.0-only
/*
 * Many epochs of writing and collecting, in the manner of KVM's dirty_log_test.
 * Writers stamp pages with counts, so that for each page it is known, without
 * asking the driver, what it may hold and what it must hold. The stream goes to
 * a second device as it comes.
 *
 * PRECOPY_EPOCHS is the number of epochs, 32 unless set.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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
#define NR_WRITERS	2

static char **bdfs;
static int nr_bdfs;

struct tally {
	u64 written;
	u64 reported;
	u64 faults;			/* for stores; only while writers run */
};

FIXTURE(epoch) {
	struct precopy_dev a;
	struct precopy_dev b;
	struct kvm_guest guest;
	struct stamp_writer writers[NR_WRITERS];
	struct precopy_replica replica;
	u64 base[NR_WRITERS][NR_PAGES];	/* done when all was collected */
	struct tally quiet;
	struct tally running;
	u64 set_aside;
	int data_fd;
	int load_fd;
};

typedef FIXTURE_DATA(epoch) epoch_t;

FIXTURE_VARIANT(epoch) {
	const struct stamp_pattern *pattern;
	int vcpus;			/* the other writers are threads */
	u64 steps;			/* of each, in half an epoch */
};

FIXTURE_VARIANT_ADD(epoch, random_user) { &stamp_random, 0, 16 };
FIXTURE_VARIANT_ADD(epoch, random_kvm) { &stamp_random, 2, 16 };
FIXTURE_VARIANT_ADD(epoch, random_both) { &stamp_random, 1, 16 };
FIXTURE_VARIANT_ADD(epoch, sequential_user) { &stamp_sequential, 0, 16 };
FIXTURE_VARIANT_ADD(epoch, sequential_kvm) { &stamp_sequential, 2, 16 };
FIXTURE_VARIANT_ADD(epoch, one_page_user) { &stamp_one_page, 0, 20000 };
FIXTURE_VARIANT_ADD(epoch, one_page_kvm) { &stamp_one_page, 2, 20000 };
FIXTURE_VARIANT_ADD(epoch, read_mostly_user) { &stamp_read_mostly, 0, 64 };
FIXTURE_VARIANT_ADD(epoch, read_mostly_kvm) { &stamp_read_mostly, 2, 64 };

FIXTURE_SETUP(epoch)
{
	const char *missing = kvm_guest_missing();
	struct kvm_guest_vcpu *vcpu;
	int i;

	if (nr_bdfs < 2)
		SKIP(return, "needs two devices");
	if (variant->vcpus && missing)
		SKIP(return, "%s", missing);
	precopy_open(&self->a, bdfs[0], NULL, SIZE);
	precopy_open(&self->b, bdfs[1], NULL, SIZE);
	precopy_replica_init(&self->replica, SIZE);
	if (variant->vcpus) {
		kvm_guest_init(&self->guest, variant->vcpus);
		ASSERT_EQ(0, kvm_guest_set_bar(&self->guest, self->a.bar, SIZE));
	}
	for (i = 0; i < NR_WRITERS; i++) {
		vcpu = i < variant->vcpus ? &self->guest.vcpus[i] : NULL;
		stamp_writer_init(&self->writers[i], &self->a, vcpu,
				  self->a.bar, i, variant->pattern);
	}
	self->data_fd = -1;
	self->load_fd = -1;
}

FIXTURE_TEARDOWN(epoch)
{
	int i;

	for (i = 0; i < NR_WRITERS; i++)
		stamp_writer_cleanup(&self->writers[i]);
	kvm_guest_cleanup(&self->guest);
	precopy_replica_free(&self->replica);
	if (self->data_fd >= 0)
		close(self->data_fd);
	if (self->load_fd >= 0)
		close(self->load_fd);
	precopy_close(&self->a);
	precopy_close(&self->b);
}

/* ------------------------------------------------------------------------ */

static void writers_go(epoch_t *self, u64 steps)
{
	int i;

	for (i = 0; i < NR_WRITERS; i++)
		stamp_writer_go(&self->writers[i], steps);
}

static bool writers_run(epoch_t *self)
{
	int i;

	for (i = 0; i < NR_WRITERS; i++)
		if (self->writers[i].running)
			return true;

	return false;
}

static void writers_wait(struct __test_metadata *_metadata, epoch_t *self)
{
	int i;

	for (i = 0; i < NR_WRITERS; i++) {
		stamp_writer_wait(&self->writers[i]);
		ASSERT_EQ(0, self->writers[i].failed);
	}
}

static void note_done(epoch_t *self, u64 done[NR_WRITERS][NR_PAGES])
{
	u64 page;
	int i;

	for (i = 0; i < NR_WRITERS; i++)
		for (page = 0; page < NR_PAGES; page++)
			done[i][page] = self->writers[i].done[page];
}

static void drain(struct __test_metadata *_metadata, epoch_t *self)
{
	ASSERT_EQ(-ENOMSG, precopy_replica_drain(&self->replica, self->data_fd,
						 self->load_fd));
}

/* Is the word one that its writer stored, and at least so new? */
static bool check_word(struct __test_metadata *_metadata, epoch_t *self,
		       struct stamp_writer *w, u64 page, u64 lowest)
{
	u64 *words = (u64 *)(self->replica.image + page * PRECOPY_PAGE);
	u64 word = words[w->nr], count = word >> 32;

	EXPECT_GE(w->begun[page], count)
		TH_LOG("page %lu, writer %lu: not written yet", page, w->nr);
	EXPECT_EQ(count ? kvm_guest_stamp(count, page, w->nr + 1) : 0, word)
		TH_LOG("page %lu, writer %lu: never written", page, w->nr);

	return count >= lowest;
}

/* Pages of the target that are older than this. */
static u64 count_old(struct __test_metadata *_metadata, epoch_t *self,
		     u64 done[NR_WRITERS][NR_PAGES])
{
	u64 page, nr = 0;
	bool old;
	int i;

	for (page = 0; page < NR_PAGES; page++) {
		old = false;
		for (i = 0; i < NR_WRITERS; i++)
			old |= !check_word(_metadata, self, &self->writers[i],
					   page, done[i][page]);
		nr += old;
	}

	return nr;
}

/*
 * After a whole collect no page is older than when that began. Except that a
 * page is set aside whose store was in the middle of its fault, which takes
 * references like those of a pin; but then the device must know that it is
 * still to be sent.
 */
static void check_bounds(struct __test_metadata *_metadata, epoch_t *self,
			 u64 done[NR_WRITERS][NR_PAGES])
{
	u64 left, old = count_old(_metadata, self, done);

	ASSERT_EQ(0, mig_data_size(self->a.dev, &left));
	ASSERT_LE(old * PRECOPY_PAGE, left)
		TH_LOG("LOST: %lu pages are old, %lu bytes left", old, left);
	self->set_aside += old;
}

/* With the writers paused and all collected, the target has everything. */
static void check_equal(struct __test_metadata *_metadata, epoch_t *self)
{
	stamp_image(self->a.shadow, NR_PAGES, self->writers, NR_WRITERS);
	ASSERT_EQ(0, memcmp(self->replica.image, self->a.shadow, SIZE))
		TH_LOG("LOST: %lu pages are old",
		       count_old(_metadata, self, self->base));
}

static bool was_written(epoch_t *self, u64 page)
{
	int i;

	for (i = 0; i < NR_WRITERS; i++)
		if (self->writers[i].done[page] != self->base[i][page])
			return true;

	return false;
}

/* Writing first, then collecting: exactly what was written comes, once. */
static void quiet_epoch(struct __test_metadata *_metadata, epoch_t *self,
			u64 steps)
{
	u32 written;
	u64 page;

	writers_go(self, steps);
	writers_wait(_metadata, self);
	precopy_replica_clear_reports(&self->replica);
	drain(_metadata, self);
	for (page = 0; page < NR_PAGES; page++) {
		written = was_written(self, page);
		EXPECT_EQ(written, self->replica.reports[page])
			TH_LOG("page %lu", page);
		self->quiet.written += written;
	}
	self->quiet.reported += self->replica.nr_reports;
	note_done(self, self->base);
	check_equal(_metadata, self);
}

/* Each mark of a page comes from one of these. */
static u64 store_faults(void)
{
	return precopy_stat(bdfs[0], "write_faults") +
	       precopy_stat(bdfs[0], "mkwrite_faults");
}

/* Both at a time, and a last collect when the writers pause. */
static void running_epoch(struct __test_metadata *_metadata, epoch_t *self,
			  u64 steps)
{
	static u64 done[NR_WRITERS][NR_PAGES];

	precopy_replica_clear_reports(&self->replica);
	self->running.faults -= store_faults();
	writers_go(self, steps);
	do {
		note_done(self, done);
		drain(_metadata, self);
		check_bounds(_metadata, self, done);
	} while (writers_run(self));
	writers_wait(_metadata, self);
	note_done(self, self->base);
	drain(_metadata, self);
	check_equal(_metadata, self);
	self->running.faults += store_faults();
	self->running.written += self->replica.nr_news;
	self->running.reported += self->replica.nr_reports;
}

static void begin(struct __test_metadata *_metadata, epoch_t *self,
		  u64 steps)
{
	writers_go(self, steps);
	writers_wait(_metadata, self);
	ASSERT_EQ(0, mig_set_state(self->b.dev, STOP, NULL));
	ASSERT_EQ(0, mig_set_state(self->b.dev, RESUMING, &self->load_fd));
	ASSERT_EQ(0, mig_set_state(self->a.dev, PRE_COPY, &self->data_fd));
	note_done(self, self->base);
	drain(_metadata, self);
	check_equal(_metadata, self);
}

static void finish(struct __test_metadata *_metadata, epoch_t *self,
		   u64 steps)
{
	writers_go(self, steps);
	writers_wait(_metadata, self);
	ASSERT_EQ(0, mig_set_state(self->a.dev, STOP_COPY, NULL));
	ASSERT_EQ(0, precopy_replica_drain(&self->replica, self->data_fd,
					   self->load_fd));
	EXPECT_TRUE(self->replica.ended);
	ASSERT_EQ(0, mig_set_state(self->b.dev, STOP, NULL));
	note_done(self, self->base);
	check_equal(_metadata, self);
	EXPECT_EQ(0, precopy_differ(&self->a, self->a.shadow));
	EXPECT_EQ(0, precopy_differ(&self->b, self->a.shadow));
}

static u64 nr_epochs(void)
{
	const char *epochs = getenv("PRECOPY_EPOCHS");

	return epochs ? strtoull(epochs, NULL, 0) : 32;
}

static void print_ratio(const char *when, struct tally *tally)
{
	printf(" %s, reported/written %.2f (%lu/%lu)", when,
	       tally->written ? (double)tally->reported / tally->written : 1.0,
	       tally->reported, tally->written);
}

TEST_F_TIMEOUT(epoch, exact, 3600)
{
	u64 began = precopy_now_ms(), i, nr = nr_epochs();
	u64 loose = precopy_stat(bdfs[0], "failed_splits");

	begin(_metadata, self, variant->steps);
	for (i = 0; i < nr; i++) {
		quiet_epoch(_metadata, self, variant->steps);
		running_epoch(_metadata, self, variant->steps);
	}
	finish(_metadata, self, variant->steps);
	printf("# %s, %d of %d writers KVM vCPUs, %lu epochs, %lu ms:",
	       variant->pattern->name, variant->vcpus, NR_WRITERS, nr,
	       precopy_now_ms() - began);
	print_ratio("paused", &self->quiet);
	print_ratio("running", &self->running);
	printf(" %lu set aside\n", self->set_aside);
	EXPECT_LT(0, self->quiet.written);
	EXPECT_EQ(self->quiet.written, self->quiet.reported);
	/*
	 * While they run, a page can come without news: marked by a store that
	 * then was overtaken by the collect, and has to fault again. How often
	 * depends on the scheduler, but each time takes a fault. A page set
	 * aside may come once more than that. And on a busy machine a unit may
	 * not be split in time; then all of its pages are sent.
	 */
	if (loose == ~0ULL)
		return;	/* No statistics: nobody counts the faults */
	loose = precopy_stat(bdfs[0], "failed_splits") - loose;
	EXPECT_GE(self->running.faults + self->set_aside +
		  loose * SZ_2M / PRECOPY_PAGE, self->running.reported);
}

int main(int argc, char *argv[])
{
	bdfs = vfio_selftests_get_bdfs(&argc, argv, &nr_bdfs);
	precopy_require(bdfs, nr_bdfs);

	return test_harness_run(argc, argv);
}
