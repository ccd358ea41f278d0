// SPDX-License-Identifier: GPL-2.0-only
/*
 * A whole target: the driver's own load.c, memory_load.c, memory_startup.c,
 * engine_section.c, window_section.c, epf.c, step.c, session.c, startup.c and
 * startup_info.c on a model of what is below them. A stream is written to it in pieces,
 * while user copies and allocations fail, signals come, startups are slow or fail, and
 * resets happen; what it says must follow from the reference's outcome and from what was
 * made to fail.
 */
#include <linux/vfio_mig_startup.h>
#include <linux/vfio_precopy.h>

#include "func/engine.h"

#include "func/dma.h"
#include "func/model.h"
#include "mig/cost.h"
#include "fuzz.h"
#include "mig/load.h"
#include "mem/memory.h"
#include "mig/model.h"
#include "mig/section.h"
#include "precopy.h"
#include "mig/session.h"
#include "mig/startup.h"

/* Nothing that a stream says makes a target allocate more than this */
#define MAX_ALLOCATED	(PRECOPY_DECODE_BUF + PRECOPY_MAX_UNITS / 8 + PAGE_SIZE)
#define MAX_WORKS	PRECOPY_STARTUP_WORKERS
#define MAX_STEPS	100000

struct load {
	const struct outcome *must;
	const u8 *data;
	size_t len;
	struct file *filp;
	u64 pos;		/* accepted */
	int error;		/* of the last write */
	bool reset;
};

static void reset(struct load *l);

static struct {
	struct precopy_device pcd;
	struct precopy_engine engine;
	struct pci_dev pdev;
	struct pages memory;
	struct fuzz_device dev;
	struct work_struct *works[MAX_WORKS];
	unsigned int nr_works;
	u64 seed;
	bool troubled;		/* things may fail */
	bool faulted;		/* the last user copy was cut short */
	bool signalled;		/* by a fatal signal */
	bool interrupted;	/* by any */
	bool broken;		/* storing or preparing has failed for good */
	bool exact;		/* a load has begun */
	size_t allocated;
	int nr_spin, nr_rwsem;	/* locks held */
	s64 now;
	u64 refusals;
	struct load *load;	/* what a reset ends */
	u8 units[PRECOPY_MAX_UNITS / 8];	/* prepared */
} m;

/* --- The model ----------------------------------------------------------------- */

bool model_chance(u32 one_in)
{
	return m.troubled && (fuzz_random(&m.seed) >> 20) % one_in == 0;
}

/* Where something sleeps, somebody else may reset the device */
static void may_sleep(void)
{
	FUZZ_CHECK(!m.nr_spin, "sleeps with a spinlock held");
	if (!m.nr_rwsem && m.load && !m.load->reset && model_chance(2000))
		reset(m.load);
}

void model_held(int change, bool spin)
{
	FUZZ_CHECK(spin || change < 0 || !m.nr_spin, "a semaphore in a spinlock");
	*(spin ? &m.nr_spin : &m.nr_rwsem) += change;
}

void *model_alloc(size_t size)
{
	size_t *p;

	may_sleep();
	if (model_chance(200))
		return NULL;
	p = calloc(1, sizeof(*p) + size);
	*p = size;
	m.allocated += size;
	FUZZ_CHECK(m.allocated <= MAX_ALLOCATED, "%zu bytes", m.allocated);
	return p + 1;
}

void model_free(void *p)
{
	may_sleep();
	if (!p)
		return;
	m.allocated -= ((size_t *)p)[-1];
	free((size_t *)p - 1);
}

/* Bytes that were not copied */
size_t model_user_copy(void *to, const void *from, size_t len)
{
	size_t left = 0;

	may_sleep();
	FUZZ_CHECK(!m.nr_rwsem, "a user copy with memory.sem held");
	if (len && model_chance(40)) {
		m.faulted = true;
		left = fuzz_random(&m.seed) % len + 1;
	}
	memcpy(to, from, len - left);
	return left;
}

bool model_fatal_signal(void)
{
	m.signalled |= model_chance(80);
	return m.signalled;
}

bool model_signal(void)
{
	m.interrupted |= model_chance(80);
	return model_fatal_signal() || m.interrupted;
}

s64 model_now(void)
{
	return m.now += 1000;
}

void model_refused(void)
{
	m.refusals++;
}

void model_queue(struct work_struct *work)
{
	FUZZ_CHECK(!work->queued && m.nr_works < MAX_WORKS, "queued twice");
	work->queued = true;
	m.works[m.nr_works++] = work;
}

/* One of the works runs to its end */
static bool run_work(void)
{
	struct work_struct *work;
	u32 i;

	if (!m.nr_works)
		return false;
	i = fuzz_random(&m.seed) % m.nr_works;
	work = m.works[i];
	m.works[i] = m.works[--m.nr_works];
	work->queued = false;
	work->run(work);
	return true;
}

void model_wait(void)
{
	may_sleep();
	FUZZ_CHECK(!m.nr_rwsem, "waits with memory.sem held");
	FUZZ_CHECK(run_work(), "waits for nothing");
}

struct file *model_file(const struct file_operations *ops, void *data, int flags)
{
	struct file *filp = model_alloc(sizeof(*filp));

	if (!filp)
		return ERR_PTR(-ENOMEM);
	*filp = (struct file) {
		.ops = ops, .private_data = data, .f_flags = flags,
	};
	return filp;
}

void model_fput(struct file *filp)
{
	filp->ops->release(NULL, filp);
	model_free(filp);
}

/* --- What the rest of the driver would do ------------------------------------------ */

static const struct precopy_section memory_section = {
	.load = &precopy_memory_load_ops,
	.startup = &precopy_memory_startup_ops,
};

static const struct precopy_model memory_model = {
	.sections = { &memory_section, &precopy_window_section },
};

static const struct precopy_model engine_model = {
	.sections = {
		&memory_section, &precopy_engine_section, &precopy_window_section,
	},
	.features = PRECOPY_FEATURE_ENGINE,
};

static const struct precopy_engine_state initial_state =
	PRECOPY_ENGINE_STATE_INITIAL;

void precopy_engine_clear(struct precopy_engine *engine)
{
	lockdep_assert_held(&engine->pcd->state_lock);
	engine->state = initial_state;
}

u64 precopy_config_bar(const struct precopy_device *pcd)
{
	return pcd->config.bar;
}

void precopy_config_commit_bar(struct precopy_device *pcd)
{
	pcd->config.bar = pcd->config.loaded_bar;
}

/* An engine that loads executes nothing */
int precopy_dma_read(struct precopy_device *pcd, u64 iova, void *buf, size_t len)
{
	fuzz_fail("DMA of %zu bytes at %lx", len, iova);
}

int precopy_dma_write(struct precopy_device *pcd, u64 iova, const void *buf,
		      size_t len)
{
	fuzz_fail("DMA of %zu bytes at %lx", len, iova);
}

void precopy_irq_raise(struct precopy_engine *engine, u32 vector)
{
	fuzz_fail("interrupt %u", vector);
}

int precopy_memory_copy_part(struct precopy_memory *mem, u64 generation,
			     u64 offset, void *to, size_t len)
{
	fuzz_fail("a read of %zu bytes at %lx", len, offset);
}

bool target_engine_good(const struct fuzz_device *dev, const u8 *payload)
{
	struct precopy_engine_state state;

	return !precopy_engine_parse((const void *)payload, dev->memory_size, &state);
}

static void release_device(struct kref *kref)
{
	FUZZ_CHECK(!kref, "put too often");
}

void precopy_memory_set_gate(struct precopy_memory *mem, enum precopy_gate gate)
{
	lockdep_assert_held(&mem->sem);
	mem->gate = gate;
}

void precopy_memory_discard(struct precopy_memory *mem)
{
	lockdep_assert_held(&mem->sem);
	pages_free(&m.memory);
	mem->gate = PRECOPY_GATE_OPEN;
}

static int break_down(int error)
{
	m.broken = true;
	return error;
}

int precopy_memory_load_begin(struct precopy_memory *mem, u64 generation)
{
	may_sleep();
	if (mem->generation != generation)
		return -ECANCELED;
	m.exact = true;
	return 0;
}

void precopy_memory_load_end(struct precopy_memory *mem)
{
	lockdep_assert_held(&mem->sem);
	m.exact = false;
}

int precopy_memory_populate_unit(struct precopy_memory *mem, u64 generation,
				 unsigned long unit)
{
	u64 bytes = min(m.dev.memory_size, PRECOPY_UNIT_SIZE);
	bool had = m.units[unit / 8] & 1 << unit % 8;

	may_sleep();
	if (mem->generation != generation)
		return -ECANCELED;
	FUZZ_CHECK(unit * PRECOPY_UNIT_SIZE < m.dev.memory_size, "unit %lu", unit);
	if (model_chance(2000))
		return break_down(-ENOMEM);
	m.units[unit / 8] |= 1 << unit % 8;
	return had ? 0 : bytes;
}

static int check_store(struct precopy_memory *mem, u64 generation, u64 offset,
		       u64 len)
{
	may_sleep();
	FUZZ_CHECK(len && !((offset | len) % PAGE_SIZE) &&
		   offset < m.dev.memory_size &&
		   len <= m.dev.memory_size - offset,
		   "a store of %lu bytes at %lx", len, offset);
	if (mem->generation != generation)
		return -ECANCELED;
	FUZZ_CHECK(m.exact, "a store may take more than it needs");
	return model_chance(200) ? break_down(-ENOMEM) : 0;
}

int precopy_memory_copy_in(struct precopy_memory *mem, u64 generation,
			   u64 offset, const void *data, size_t len)
{
	int ret = check_store(mem, generation, offset, len);

	if (!ret)
		pages_store(&m.memory, offset, data, len);
	return ret;
}

int precopy_memory_zero_in(struct precopy_memory *mem, u64 generation,
			   u64 offset, u64 len)
{
	int ret = check_store(mem, generation, offset, len);

	if (!ret)
		pages_zero(&m.memory, offset, len);
	return ret;
}

void precopy_cost_add(struct precopy_cost *cost, u64 bytes, u64 ns)
{
	(void)cost;
	FUZZ_CHECK(bytes % min(m.dev.memory_size, PRECOPY_UNIT_SIZE) == 0 && ns,
		   "%lu in %lu", bytes, ns);
}

u64 precopy_cost_estimate(struct precopy_cost *cost, u64 bytes, bool *measured)
{
	(void)cost;
	*measured = false;
	return bytes;
}

/* --- A user of it --------------------------------------------------------------------- */

static bool starting(void)
{
	return m.pcd.memory.gate == PRECOPY_GATE_WAIT;
}

/* As the driver's reset does it */
static void reset(struct load *l)
{
	struct precopy_session *session;

	scoped_guard(rwsem_write, &m.pcd.memory.sem) {
		scoped_guard(spinlock, &m.pcd.state_lock) {
			m.pcd.memory.generation = ++m.pcd.generation;
			precopy_engine_clear(&m.engine);
			session = precopy_session_detach(&m.pcd);
		}
		precopy_memory_discard(&m.pcd.memory);
	}
	if (session)
		precopy_session_put(session);
	l->reset = true;
}

/* Has all of an INITIAL_END been accepted although a startup runs? */
static void check_barrier(const struct load *l)
{
	size_t i, last = 0;

	for (i = 0; i < l->must->nr_events; i++)
		if (l->must->events[i].end <= l->pos)
			last = l->must->events[i].kind == EV_PREFACE ? 0 :
			       l->must->events[i].kind == EV_INITIAL_END ? 1 : last;
	FUZZ_CHECK(!last || !starting(), "INITIAL_END, and still starting");
}

static void check_poll(const struct load *l)
{
	__poll_t mask = l->filp->ops->poll(l->filp, NULL);
	bool over = l->reset || m.pcd.memory.gate == PRECOPY_GATE_FAILED;

	FUZZ_CHECK(!(mask & EPOLLERR) == !over, "poll says %x", mask);
	FUZZ_CHECK(mask & EPOLLOUT || starting(), "poll says %x", mask);
}

/* In sysfs */
static void check_name(void)
{
	const char *name = precopy_load_phase_name(&m.pcd);

	FUZZ_CHECK(!strcmp(name, "none") == !m.pcd.loading, "it says %s", name);
	FUZZ_CHECK(!strcmp(name, "starting") == starting(), "it says %s", name);
	FUZZ_CHECK(!strcmp(name, "failed") ==
		   (m.pcd.memory.gate == PRECOPY_GATE_FAILED), "it says %s", name);
}

/* The same in VFIO's form; asked when the other was answered, so it must be, too */
static void check_startup_generic(const struct load *l,
				  const struct vfio_precopy_startup *own)
{
	struct vfio_mig_startup_info info = {
		.argsz = sizeof(info), .flags = ~0U, .phase = ~0U,
		.initial_bytes = ~0ULL, .remaining_ns = ~0ULL,
	};
	bool known = own->remaining_ns != VFIO_PRECOPY_REMAINING_UNKNOWN;
	long ret = l->filp->ops->unlocked_ioctl(l->filp, VFIO_MIG_GET_STARTUP_INFO,
						(unsigned long)&info);

	if (m.faulted || l->reset)
		return;
	FUZZ_CHECK(ret == 0, "STARTUP_INFO: %ld", ret);
	FUZZ_CHECK(info.phase == own->phase && info.error == own->error,
		   "phase %u, error %u", info.phase, info.error);
	FUZZ_CHECK(!!(info.flags & VFIO_MIG_STARTUP_TIME) == known &&
		   (known || !info.remaining_ns), "a time that nobody knows");
	FUZZ_CHECK(info.flags & VFIO_MIG_STARTUP_TARGET && !info.initial_bytes,
		   "not a target's: flags %x", info.flags);
}

static void check_startup(const struct load *l)
{
	struct vfio_precopy_startup info = {
		.argsz = sizeof(info), .phase = ~0U, .error = ~0U,
	};
	bool before = l->reset;
	long ret = l->filp->ops->unlocked_ioctl(l->filp, PRECOPY_GET_STARTUP,
						(unsigned long)&info);

	FUZZ_CHECK(l->filp->ops->unlocked_ioctl(l->filp, 0, 0) == -ENOTTY,
		   "another ioctl");
	check_name();
	if (m.faulted || l->reset != before)
		return;
	FUZZ_CHECK(ret == (l->reset ? -ENODEV : 0), "GET_STARTUP: %ld", ret);
	if (ret)
		return;
	FUZZ_CHECK(info.bytes_in_use <= m.dev.memory_size &&
		   info.bytes_prepared <= info.bytes_in_use,
		   "%llu of %llu bytes prepared", info.bytes_prepared,
		   info.bytes_in_use);
	FUZZ_CHECK((info.phase == VFIO_PRECOPY_PHASE_STARTING) == starting(),
		   "phase %u", info.phase);
	FUZZ_CHECK((info.phase == VFIO_PRECOPY_PHASE_FAILED) ==
		   (m.pcd.memory.gate == PRECOPY_GATE_FAILED),
		   "phase %u", info.phase);
	check_startup_generic(l, &info);
}

/* The errors that are not the stream's, and for which there was a cause */
static bool excused(const struct load *l, int error)
{
	switch (error) {
	case -EAGAIN: return l->filp->f_flags & O_NONBLOCK && starting();
	case -EFAULT: return m.faulted;
	case -EINTR:  return m.signalled;
	case -ERESTARTNOINTR: return m.interrupted;
	case -ENODEV: return l->reset;
	case -ENOMEM: return m.broken;
	case -EIO:    return m.pcd.knobs.startup_fail ||
			     m.pcd.knobs.fail_load_at;
	default:      return false;
	}
}

static bool is_final(int error)
{
	return error && error != -EAGAIN && error != -EFAULT && error != -EINTR &&
	       error != -ERESTARTNOINTR;
}

static void check_error(const struct load *l, int error)
{
	u32 how = error == -EINVAL ? REFUSED_INVAL :
		  error == -EOPNOTSUPP ? REFUSED_NOTSUPP : 0;

	FUZZ_CHECK(excused(l, error) || (how & l->must->refused),
		   "error %d at %lu", error, l->pos);
}

static void write_some(struct load *l, u64 *seed)
{
	size_t n = fuzz_random(seed) >> 8;
	ssize_t ret;

	n &= (n >> 32) & 3 ? 0x1fff : 31;
	n = min(n + 1, l->len - l->pos);
	m.faulted = false;
	m.signalled = false;
	m.interrupted = false;
	ret = l->filp->ops->write(l->filp, (const char *)l->data + l->pos, n,
				  NULL);
	FUZZ_CHECK(ret && ret <= (ssize_t)n, "write of %zu: %zd", n, ret);
	FUZZ_CHECK(!m.nr_spin && !m.nr_rwsem, "locks held");
	l->error = ret < 0 ? ret : 0;
	if (ret < 0)
		check_error(l, ret);
	else
		l->pos += ret;
	FUZZ_CHECK(l->pos <= l->must->used, "too much was accepted");
}

static void write_all(struct load *l, u64 *seed)
{
	u32 steps = 0;

	while (l->pos < l->len && !is_final(l->error)) {
		FUZZ_CHECK(steps++ < MAX_STEPS, "it does not end");
		write_some(l, seed);
		check_barrier(l);
		if (!l->reset && model_chance(300))
			reset(l);
		if (fuzz_random(seed) % 4 == 0 || l->error == -EAGAIN)
			run_work();
		m.faulted = false;
		if (fuzz_random(seed) % 4 == 0)
			check_startup(l);
		if (!is_final(l->error))
			check_poll(l);
	}
}

static void check_sticky(struct load *l)
{
	ssize_t ret = l->filp->ops->write(l->filp, "x", 1, NULL);

	FUZZ_CHECK(ret == l->error || ret == -ENODEV,
		   "after %d: %zd", l->error, ret);
}

/* The registers are those of the stream's last record, or as after a reset */
static void check_engine(const u8 *record)
{
	u8 is[ENGINE_LEN], want[ENGINE_LEN];

	precopy_engine_encode(&m.engine.state, (void *)is);
	precopy_engine_encode(&initial_state, (void *)want);
	FUZZ_CHECK(!memcmp(is, record ?: want, sizeof(is)), "the engine differs");
}

static void check_memory(const struct load *l)
{
	u32 nr_bytes = (precopy_stream_units(m.dev.memory_size) + 63) / 64 * 8;
	const struct event *ev = l->must->events, *end = ev + l->must->nr_events;
	u64 unit_bytes = min(m.dev.memory_size, PRECOPY_UNIT_SIZE);
	u64 units = bitmap_weight((unsigned long *)m.units, nr_bytes * 8);
	u32 prefaces = 0, crc = 0;
	u64 in_use = 0;

	FUZZ_CHECK(pages_equal(&m.memory, &l->must->memory), "memory differs");
	for (; ev < end; ev++) {
		if (ev->kind != EV_PREFACE)
			continue;
		prefaces++;
		crc = ev->crc;
		in_use = ev->in_use;
	}
	/* More than one prepare what all of them say */
	if (prefaces != 1)
		return;
	FUZZ_CHECK(units * unit_bytes <= in_use, "%lu units prepared of %lu bytes",
		   units, in_use);
	/* All that PREFACE names, or as many as its bytes in use go */
	FUZZ_CHECK(units == in_use / unit_bytes ||
		   fuzz_crc(m.units, nr_bytes) == crc,
		   "other units were prepared");
}

/* RESUMING to STOP */
static void commit_load(struct load *l)
{
	bool before = l->reset;
	int ret;

	m.signalled = false;
	m.interrupted = false;
	ret = precopy_load_commit(&m.pcd, l->reset ? 0 : m.pcd.generation);
	FUZZ_CHECK(!m.nr_spin && !m.nr_rwsem, "locks held");
	if (l->reset) {
		/* It may have come when all was done already */
		FUZZ_CHECK(ret == -ECANCELED || excused(l, ret) ||
			   (!ret && !before), "after a reset: %d", ret);
	} else if (!ret) {
		FUZZ_CHECK(l->must->complete && l->pos == l->len,
			   "committed what is not complete");
		FUZZ_CHECK(!m.pcd.loading && !starting(), "not at rest");
		check_memory(l);
		check_engine(l->must->has_engine ? l->must->engine : NULL);
		FUZZ_CHECK(m.pcd.config.bar == l->must->window, "BAR2 is elsewhere");
	} else if (!is_final(l->error)) {
		FUZZ_CHECK((ret == -EINVAL && !l->must->complete) ||
			   excused(l, ret), "commit: %d", ret);
	} else {
		FUZZ_CHECK(ret == l->error || excused(l, ret),
			   "commit: %d, not %d", ret, l->error);
		check_engine(NULL);
		FUZZ_CHECK(!m.pcd.config.bar, "BAR2 of a load that has failed");
	}
}

static void begin(struct load *l, const struct fuzz_device *dev, u64 seed,
		  bool troubled)
{
	memset(&m, 0, sizeof(m));
	m.seed = seed;
	m.troubled = troubled;
	m.dev = *dev;
	kref_init(&m.pcd.kref);
	m.pcd.release = release_device;
	/* All that happens is part of one SET_STATE, or needs none */
	m.pcd.arc_mutex.held = true;
	m.pcd.model = dev->features ? &engine_model : &memory_model;
	m.engine.pcd = &m.pcd;
	/* Something that a load must not leave there */
	m.engine.state = initial_state;
	m.engine.state.bytes = dev->features;
	m.pcd.config.loaded_bar = dev->memory_size;
	m.pcd.engine = &m.engine;
	m.pdev.vendor = dev->vendor;
	m.pdev.device = dev->device;
	m.pcd.pdev = &m.pdev;
	m.pcd.memory.size = dev->memory_size;
	m.pcd.generation = 1;
	m.pcd.memory.generation = 1;
	m.load = l;
	if (model_chance(20))
		m.pcd.knobs.startup_fail = EIO;
	if (model_chance(20))
		m.pcd.knobs.fail_load_at = 1 + fuzz_random(&m.seed) % 5000;
	if (model_chance(20))
		m.pcd.knobs.startup_delay_ms = 1;
	l->filp = precopy_load_start(&m.pcd, m.pcd.generation);
}

void target_load(const struct fuzz_device *dev, const u8 *data, size_t len,
		 u64 seed, bool troubled, const struct outcome *must)
{
	struct load l = { .must = must, .data = data, .len = len };

	begin(&l, dev, seed, troubled);
	if (!IS_ERR(l.filp)) {
		if (fuzz_random(&seed) % 3 == 0)
			l.filp->f_flags |= O_NONBLOCK;
		write_all(&l, &seed);
		if (is_final(l.error) && l.error != -ENODEV)
			check_sticky(&l);
		else if (!troubled)
			FUZZ_CHECK(!must->refused && l.pos == len, "at %lu", l.pos);
		commit_load(&l);
		m.load = NULL;
		reset(&l);
		while (run_work())
			;
		model_fput(l.filp);
	} else {
		FUZZ_CHECK(troubled && (PTR_ERR(l.filp) == -ENOMEM || l.reset),
			   "no session");
	}
	m.load = NULL;
	while (run_work())
		;
	pages_free(&m.memory);
	FUZZ_CHECK(!m.allocated, "%zu bytes are lost", m.allocated);
	FUZZ_CHECK(m.pcd.kref.n == 1, "%d references are left", m.pcd.kref.n);
}
