// SPDX-License-Identifier: GPL-2.0-only
/*
 * A section and a model that only exist here, moved from one device to another by
 * the driver's state machine and data fds. The section has 16 registers; the
 * model notes what it is told to do.
 */

#include <kunit/test.h>
#include <linux/bitmap.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/mman.h>
#include <linux/module.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uaccess.h>

#include "../mig/fsm.h"
#include "../mig/model.h"
#include "../mig/section.h"
#include "../mig/session.h"
#include "../precopy.h"

#define NR_REGS		16
#define REGS_LEN	(NR_REGS * sizeof(__le32))
#define RECORD_LEN	(PRECOPY_REC_HDR_LEN + REGS_LEN)
#define MAX_STREAM	SZ_4K
#define MAX_CALLS	8

/* Offsets of the section's records: what they hold */
#define REGS		0
#define LAST		1

#define RUNNING		VFIO_DEVICE_STATE_RUNNING
#define RUNNING_P2P	VFIO_DEVICE_STATE_RUNNING_P2P
#define PRE_COPY	VFIO_DEVICE_STATE_PRE_COPY
#define PRE_COPY_P2P	VFIO_DEVICE_STATE_PRE_COPY_P2P
#define STOP		VFIO_DEVICE_STATE_STOP
#define STOP_COPY	VFIO_DEVICE_STATE_STOP_COPY
#define RESUMING	VFIO_DEVICE_STATE_RESUMING

/**
 * struct section_device - a device that has registers and no memory
 * @function: the VFIO core's side, of which the state machine uses little
 * @pcd: our side
 * @pdev: the carrier, which only has a name
 * @regs: registers
 * @dirty: true if they were written after they were sent
 * @calls: operations of the model that were called
 * @refuse: error that the next operation or record of a load is refused with
 * @failed: true if a load has failed
 */
struct section_device {
	struct precopy_function	function;
	struct precopy_device	pcd;
	struct pci_dev		pdev;
	__le32			regs[NR_REGS];
	bool			dirty;
	char			calls[MAX_CALLS + 1];
	int			refuse;
	bool			failed;
};

struct section_save {
	struct precopy_save_part	part;
	bool				initial;
	bool				last;
	enum precopy_save_stage		stage;
};

struct section_test {
	struct section_device	*source;
	struct section_device	*target;
	void __user		*user;
	u8			*stream;
	size_t			len;
};

static struct section_device *section_device_of(struct precopy_device *pcd)
{
	return container_of(pcd, struct section_device, pcd);
}

/* --- The section ------------------------------------------------------ */

static struct precopy_save_part *section_alloc(struct precopy_session *session,
					       struct precopy_encoder *enc,
					       bool stopped)
{
	struct section_save *s = kzalloc_obj(*s, GFP_KERNEL);

	return s ? &s->part : NULL;
}

static void section_free(struct precopy_save_part *part)
{
	kfree(container_of(part, struct section_save, part));
}

static void section_begin(struct precopy_save_part *part,
			  struct precopy_save_preface *preface)
{
	struct section_save *s = container_of(part, struct section_save, part);

	s->initial = true;
	s->last = true;
}

static void section_left(const struct precopy_save_part *part,
			 struct precopy_save_left *left)
{
	const struct section_save *s =
		container_of_const(part, struct section_save, part);

	left->initial = s->initial * RECORD_LEN;
	left->dirty = section_device_of(part->session->pcd)->dirty * RECORD_LEN;
	left->tail = s->last * RECORD_LEN;
}

static bool *section_pending(struct section_save *s)
{
	switch (s->stage) {
	case PRECOPY_STAGE_INITIAL:
		return &s->initial;
	case PRECOPY_STAGE_DIRTY:
		return &section_device_of(s->part.session->pcd)->dirty;
	default:
		return &s->last;
	}
}

static ssize_t section_save(struct precopy_save_part *part,
			    const struct precopy_save_request *request)
{
	struct section_save *s = container_of(part, struct section_save, part);

	s->stage = request->stage;
	if (!*section_pending(s))
		return 0;
	memcpy(request->buf + PRECOPY_REC_HDR_LEN,
	       section_device_of(part->session->pcd)->regs, REGS_LEN);
	return precopy_encode_record(part->enc, request->buf, 0x7e57,
				     s->stage == PRECOPY_STAGE_TAIL ? LAST : REGS,
				     REGS_LEN);
}

static void section_saved(struct precopy_save_part *part, size_t len)
{
	*section_pending(container_of(part, struct section_save, part)) = false;
}

static u64 section_estimate(struct precopy_device *pcd, bool stopped)
{
	return 2 * RECORD_LEN;
}

static int section_load(struct precopy_session *session,
			struct precopy_startup_part *part,
			enum precopy_stream_event event,
			const struct precopy_decoder *dec)
{
	struct section_device *d = section_device_of(session->pcd);

	if (event != PRECOPY_EV_SECTION || dec->nr_bytes != REGS_LEN)
		return -EINVAL;
	memcpy(d->regs, dec->payload, REGS_LEN);
	return d->refuse;
}

static void section_fail(struct precopy_session *session)
{
	section_device_of(session->pcd)->failed = true;
}

static const struct precopy_section_record section_record = {
	.type		= 0x7e57,
	.max_len	= REGS_LEN,
	.initial	= true,
};

static const struct precopy_save_ops section_save_ops = {
	.alloc		= section_alloc,
	.free		= section_free,
	.begin		= section_begin,
	.left		= section_left,
	.save		= section_save,
	.saved		= section_saved,
	.estimate	= section_estimate,
};

static const struct precopy_load_ops section_load_ops = {
	.load	= section_load,
	.fail	= section_fail,
};

static const struct precopy_section registers = {
	.name	= "registers",
	.save	= &section_save_ops,
	.load	= &section_load_ops,
	.record	= &section_record,
};

/* --- The model -------------------------------------------------------- */

/* As every operation must: publish only if there was no reset */
static int section_note(struct precopy_device *pcd, u64 generation, char call)
{
	struct section_device *d = section_device_of(pcd);
	size_t len = strlen(d->calls);

	guard(spinlock)(&pcd->state_lock);
	if (pcd->generation != generation)
		return -ECANCELED;
	if (!d->refuse && len < MAX_CALLS)
		d->calls[len] = call;
	return d->refuse;
}

static int section_quiesce(struct precopy_device *pcd, u64 generation)
{
	return section_note(pcd, generation, 'q');
}

static int section_stop(struct precopy_device *pcd, u64 generation)
{
	return section_note(pcd, generation, 's');
}

static int section_start(struct precopy_device *pcd, u64 generation)
{
	return section_note(pcd, generation, 't');
}

static int section_resume(struct precopy_device *pcd, u64 generation)
{
	return section_note(pcd, generation, 'r');
}

static const struct precopy_model section_model = {
	.name		= "registers",
	.sections	= { &registers },
	.quiesce	= section_quiesce,
	.stop		= section_stop,
	.start		= section_start,
	.resume		= section_resume,
};

static const struct precopy_model empty_model = {
	.name		= "empty",
};

/* --- Devices and streams ---------------------------------------------- */

static void section_device_release(struct kref *kref)
{
	WARN(true, "the test's own reference is gone");
}

static struct section_device *section_device(struct kunit *test)
{
	struct section_device *d = kunit_kzalloc(test, sizeof(*d), GFP_KERNEL);
	struct precopy_device *pcd = &d->pcd;

	KUNIT_ASSERT_NOT_NULL(test, d);
	kref_init(&pcd->kref);
	mutex_init(&pcd->arc_mutex);
	spin_lock_init(&pcd->state_lock);
	init_waitqueue_head(&pcd->wait);
	init_rwsem(&pcd->memory.sem);
	init_waitqueue_head(&pcd->memory.wait);
	precopy_cost_init(&pcd->startup_cost);
	d->pdev.dev.init_name = "kunit";
	pcd->pdev = &d->pdev;
	pcd->release = section_device_release;
	pcd->model = &section_model;
	pcd->memory.size = SZ_1M;
	pcd->generation = 1;
	pcd->mig_state = RUNNING;
	pcd->core = &d->function.core;
	d->function.pcd = pcd;
	d->function.core.vdev.migration_flags = PRECOPY_MIG_FLAGS;
	return d;
}

static struct file *section_set_state(struct section_device *d,
				      enum vfio_device_mig_state state)
{
	return precopy_migration_ops.migration_set_state(&d->function.core.vdev,
							 state);
}

static void section_enter(struct kunit *test, struct section_device *d,
			  enum vfio_device_mig_state state)
{
	KUNIT_ASSERT_EQ(test, PTR_ERR_OR_ZERO(section_set_state(d, state)), 0);
	KUNIT_ASSERT_EQ(test, (int)d->pcd.mig_state, (int)state);
}

static struct file *section_open(struct kunit *test, struct section_device *d,
				 enum vfio_device_mig_state state)
{
	struct file *filp = section_set_state(d, state);

	KUNIT_ASSERT_FALSE(test, IS_ERR_OR_NULL(filp));
	return filp;
}

/* Bytes that a data fd would give now, as MIG_DATA_SIZE says */
static size_t section_size(struct section_device *d)
{
	unsigned long size;

	precopy_migration_ops.migration_get_data_size(&d->function.core.vdev,
						      &size);
	return size;
}

/* Read until there is nothing, or an error, which is returned */
static ssize_t section_read(struct kunit *test, struct file *filp)
{
	struct section_test *t = test->priv;
	loff_t pos = 0;
	ssize_t ret;

	for (;;) {
		ret = filp->f_op->read(filp, t->user, MAX_STREAM - t->len, &pos);
		if (ret <= 0)
			return ret;
		KUNIT_ASSERT_EQ(test, 0, copy_from_user(t->stream + t->len,
							t->user, ret));
		t->len += ret;
	}
}

static ssize_t section_write(struct kunit *test, struct file *filp)
{
	struct section_test *t = test->priv;
	loff_t pos = 0;

	KUNIT_ASSERT_EQ(test, 0, copy_to_user(t->user, t->stream, t->len));
	return filp->f_op->write(filp, t->user, t->len, &pos);
}

/* A stream of registers that count from 1, saved without pre-copy */
static void section_save_stopped(struct kunit *test)
{
	struct section_test *t = test->priv;
	struct file *filp;
	int i;

	for (i = 0; i < NR_REGS; i++)
		t->source->regs[i] = cpu_to_le32(i + 1);
	filp = section_open(test, t->source, STOP_COPY);
	KUNIT_EXPECT_EQ(test, section_read(test, filp), 0);
	__fput_sync(filp);
	section_enter(test, t->source, STOP);
}

/* --- Tests ------------------------------------------------------------ */

static void section_moves_to_another_device(struct kunit *test)
{
	struct section_test *t = test->priv;
	struct file *filp;

	section_save_stopped(test);
	filp = section_open(test, t->target, RESUMING);
	KUNIT_EXPECT_EQ(test, section_write(test, filp), t->len);
	section_enter(test, t->target, STOP);
	__fput_sync(filp);
	KUNIT_EXPECT_MEMEQ(test, t->source->regs, t->target->regs, REGS_LEN);
	KUNIT_EXPECT_FALSE(test, t->target->failed);
}

static void section_is_sent_again_when_dirty(struct kunit *test)
{
	struct section_test *t = test->priv;
	struct file *filp = section_open(test, t->source, PRE_COPY);
	size_t len;

	KUNIT_EXPECT_EQ(test, section_read(test, filp), -ENOMSG);
	len = t->len;
	t->source->regs[3] = cpu_to_le32(33);
	t->source->dirty = true;
	KUNIT_EXPECT_EQ(test, section_read(test, filp), -ENOMSG);
	KUNIT_EXPECT_EQ(test, t->len - len, RECORD_LEN);
	section_enter(test, t->source, STOP_COPY);
	KUNIT_EXPECT_EQ(test, section_read(test, filp), 0);
	section_enter(test, t->source, STOP);
	__fput_sync(filp);

	filp = section_open(test, t->target, RESUMING);
	KUNIT_EXPECT_EQ(test, section_write(test, filp), t->len);
	section_enter(test, t->target, STOP);
	__fput_sync(filp);
	KUNIT_EXPECT_EQ(test, le32_to_cpu(t->target->regs[3]), 33);
}

/* All counts come from the section and the buffer: they add up to the stream */
static void section_counts_are_exact(struct kunit *test)
{
	struct section_test *t = test->priv;
	struct file *filp = section_open(test, t->source, STOP_COPY);
	size_t size = section_size(t->source);

	KUNIT_EXPECT_GT(test, size, 2 * RECORD_LEN);
	KUNIT_EXPECT_EQ(test, section_read(test, filp), 0);
	KUNIT_EXPECT_EQ(test, t->len, size);
	KUNIT_EXPECT_EQ(test, section_size(t->source), 0);
	section_enter(test, t->source, STOP);
	__fput_sync(filp);
}

static void section_may_refuse_a_record(struct kunit *test)
{
	struct section_test *t = test->priv;
	struct file *filp;

	section_save_stopped(test);
	filp = section_open(test, t->target, RESUMING);
	t->target->refuse = -EBADMSG;
	/* The bytes before the record are accepted */
	KUNIT_EXPECT_GT(test, section_write(test, filp), 0);
	KUNIT_EXPECT_EQ(test, section_write(test, filp), -EBADMSG);
	KUNIT_EXPECT_TRUE(test, t->target->failed);
	KUNIT_EXPECT_EQ(test, PTR_ERR(section_set_state(t->target, STOP)),
			-EBADMSG);
	__fput_sync(filp);
}

/* A stream of one model is refused by a device of another */
static void section_is_refused_by_another_model(struct kunit *test)
{
	struct section_test *t = test->priv;
	struct file *filp;

	section_save_stopped(test);
	t->target->pcd.model = &empty_model;
	filp = section_open(test, t->target, RESUMING);
	KUNIT_EXPECT_GT(test, section_write(test, filp), 0);
	KUNIT_EXPECT_EQ(test, section_write(test, filp), -EOPNOTSUPP);
	__fput_sync(filp);
}

/**
 * struct section_path - a request, and what the model is told on the way
 * @from: state, entered from RUNNING
 * @to: state asked for
 * @calls: operations: quiesce, stop, start, resume
 */
struct section_path {
	u8		from;
	u8		to;
	const char	*calls;
};

static const struct section_path section_paths[] = {
	{ RUNNING, RUNNING_P2P, "q" },
	{ RUNNING, STOP, "qs" },
	{ RUNNING, PRE_COPY, "" },
	{ RUNNING, PRE_COPY_P2P, "q" },
	{ RUNNING, STOP_COPY, "qs" },
	{ RUNNING_P2P, RUNNING, "r" },
	{ RUNNING_P2P, STOP, "s" },
	{ PRE_COPY, RUNNING, "" },
	{ PRE_COPY, PRE_COPY_P2P, "q" },
	{ PRE_COPY, STOP_COPY, "qs" },
	{ PRE_COPY_P2P, PRE_COPY, "r" },
	{ PRE_COPY_P2P, RUNNING, "r" },
	{ PRE_COPY_P2P, STOP_COPY, "s" },
	{ STOP, RUNNING_P2P, "t" },
	{ STOP, RUNNING, "tr" },
	{ STOP, RESUMING, "" },
	{ STOP_COPY, RUNNING, "tr" },
};

static void section_path_desc(const struct section_path *path, char *desc)
{
	snprintf(desc, KUNIT_PARAM_DESC_SIZE, "%s to %s",
		 precopy_state_name(path->from), precopy_state_name(path->to));
}

KUNIT_ARRAY_PARAM(section_path, section_paths, section_path_desc);

/* Enter a state, and close the data fd if there is one */
static void section_go(struct kunit *test, struct section_device *d,
		       enum vfio_device_mig_state state)
{
	struct file *filp = section_set_state(d, state);

	KUNIT_ASSERT_FALSE(test, IS_ERR(filp));
	KUNIT_EXPECT_EQ(test, (int)d->pcd.mig_state, (int)state);
	if (filp)
		__fput_sync(filp);
}

/* End a session, which has a reference on the device */
static void section_end(struct section_device *d)
{
	struct precopy_session *session;

	scoped_guard(spinlock, &d->pcd.state_lock)
		session = precopy_session_detach(&d->pcd);
	if (session)
		precopy_session_put(session);
}

static void model_is_told_of_arcs(struct kunit *test)
{
	const struct section_path *path = test->param_value;
	struct section_test *t = test->priv;
	struct section_device *d = t->source;

	section_go(test, d, path->from);
	memset(d->calls, 0, sizeof(d->calls));
	section_go(test, d, path->to);
	KUNIT_EXPECT_STREQ(test, d->calls, path->calls);
}

/* An arc that the model refuses is not taken */
static void model_may_refuse(struct kunit *test)
{
	struct section_test *t = test->priv;
	struct section_device *d = t->source;

	d->refuse = -EIO;
	KUNIT_EXPECT_EQ(test, PTR_ERR(section_set_state(d, RUNNING_P2P)), -EIO);
	KUNIT_EXPECT_EQ(test, (int)d->pcd.mig_state, (int)RUNNING);
	d->refuse = 0;
	section_go(test, d, STOP);
	d->refuse = -EIO;
	KUNIT_EXPECT_EQ(test, PTR_ERR(section_set_state(d, RUNNING)), -EIO);
	KUNIT_EXPECT_EQ(test, (int)d->pcd.mig_state, (int)STOP);
}

static int section_test_init(struct kunit *test)
{
	struct section_test *t = kunit_kzalloc(test, sizeof(*t), GFP_KERNEL);
	unsigned long user;

	KUNIT_ASSERT_NOT_NULL(test, t);
	t->stream = kunit_kzalloc(test, MAX_STREAM, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, t->stream);
	user = kunit_vm_mmap(test, NULL, 0, MAX_STREAM, PROT_READ | PROT_WRITE,
			     MAP_ANONYMOUS | MAP_PRIVATE, 0);
	KUNIT_ASSERT_NE(test, user, 0);
	KUNIT_ASSERT_LT(test, user, TASK_SIZE);
	t->user = (void __user *)user;
	t->source = section_device(test);
	t->target = section_device(test);
	test->priv = t;
	return 0;
}

static void section_device_exit(struct kunit *test, struct section_device *d)
{
	section_end(d);
	KUNIT_EXPECT_EQ(test, kref_read(&d->pcd.kref), 1);
}

static void section_test_exit(struct kunit *test)
{
	struct section_test *t = test->priv;

	section_device_exit(test, t->source);
	section_device_exit(test, t->target);
}

static struct kunit_case section_cases[] = {
	KUNIT_CASE(section_moves_to_another_device),
	KUNIT_CASE(section_is_sent_again_when_dirty),
	KUNIT_CASE(section_counts_are_exact),
	KUNIT_CASE(section_may_refuse_a_record),
	KUNIT_CASE(section_is_refused_by_another_model),
	KUNIT_CASE_PARAM(model_is_told_of_arcs, section_path_gen_params),
	KUNIT_CASE(model_may_refuse),
	{}
};

static struct kunit_suite section_suite = {
	.name = "precopy_section",
	.init = section_test_init,
	.exit = section_test_exit,
	.test_cases = section_cases,
};

kunit_test_suite(section_suite);
