/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * As much of the kernel as load.c, memory_load.c, memory_startup.c, engine_section.c,
 * window_section.c, epf.c, step.c, session.c, startup.c and startup_info.c need in user
 * space, in one thread.
 * Locks only know whether they are held, and complain about what a kernel would
 * deadlock or sleep on. What may fail fails when the model says so (target.c). Read
 * before each of these files, by -include.
 */
#ifndef VFIO_PRECOPY_FUZZ_KDRIVER_H
#define VFIO_PRECOPY_FUZZ_KDRIVER_H

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/types.h>

#include "kshim.h"
#include <linux/vfio.h>

typedef int64_t s64;
typedef s64 ktime_t;
typedef u64 dma_addr_t;
typedef unsigned int gfp_t, __poll_t;
typedef unsigned long pgoff_t;

#define __user
#define __force
#define PAGE_SIZE		4096UL
#define GFP_KERNEL		0
#define GFP_KERNEL_ACCOUNT	0
#define THIS_MODULE		NULL
/* What it is built with: the knobs are the model's */
#define IS_ENABLED(CONFIG_option)	(CONFIG_option)
#define CONFIG_PRECOPY_VFIO_PCI_TEST	1
#define CONFIG_IOMMUFD			0
#define CONFIG_KUNIT			1
#define VISIBLE_IF_KUNIT
#define MAX_ERRNO		4095
#define U32_MAX			((u32)~0U)
#define ERESTARTSYS		512
#define ERESTARTNOINTR		513
#define NSEC_PER_MSEC		1000000L
#define PCI_CFG_SPACE_SIZE	256

#define READ_ONCE(x)		(x)
#define WRITE_ONCE(x, value)	((void)((x) = (value)))
#define container_of(p, type, member) \
	((type *)((char *)(p) - offsetof(type, member)))
#define container_of_const(p, type, member) \
	((const type *)((const char *)(p) - offsetof(type, member)))
#define offset_in_page(p)	((unsigned long)(p) % PAGE_SIZE)
#define is_power_of_2(n)	((n) && !((n) & ((n) - 1)))
#define check_add_overflow(a, b, sum)	__builtin_add_overflow(a, b, sum)
#define offsetofend(type, member) \
	(offsetof(type, member) + sizeof(((type *)0)->member))
#define ARRAY_SIZE(a)		(sizeof(a) / sizeof((a)[0]))
#define DECLARE_BITMAP(name, bits) \
	unsigned long name[DIV_ROUND_UP(bits, BITS_PER_LONG)]

/* --- What the model decides or counts ----------------------------------------- */

void *model_alloc(size_t size);
void model_free(void *p);
bool model_chance(u32 one_in);
size_t model_user_copy(void *to, const void *from, size_t len);
void model_refused(void);
bool model_fatal_signal(void);
bool model_signal(void);
void model_wait(void);
s64 model_now(void);
void model_held(int change, bool spin);

#define kvmalloc(size, gfp)	model_alloc(size)
#define kzalloc_obj(obj, gfp)	model_alloc(sizeof(obj))
#define kfree(p)		model_free(p)
#define kvfree(p)		model_free(p)
#define copy_from_user(to, from, len)	model_user_copy(to, from, len)
#define copy_to_user(to, from, len)	model_user_copy(to, from, len)
#define fatal_signal_pending(task)	model_fatal_signal()
#define cond_resched()		do { } while (0)
#define ktime_get()		model_now()
#define ktime_sub(a, b)		((a) - (b))
#define ktime_to_ns(t)		(t)
#define ktime_add_ns(t, ns)	((t) + (s64)(ns))
#define NSEC_PER_SEC		1000000000L
#define div64_u64(a, b)		((a) / (b))
#define div_u64(a, b)		((a) / (b))
#define clamp_t(type, v, lo, hi) \
	min((type)(hi), (type)(v) < (type)(lo) ? (type)(lo) : (type)(v))
#define dev_get_drvdata(dev)	((void *)(dev))
#define dev_err_ratelimited(dev, ...)	((void)(dev), model_refused())

/* --- Errors in pointers ---------------------------------------------------------- */

#define ERR_PTR(error)		((void *)(long)(error))
#define PTR_ERR(p)		((long)(p))
#define ERR_CAST(p)		((void *)(p))
#define IS_ERR(p)		((unsigned long)(p) >= (unsigned long)-MAX_ERRNO)
#define PTR_ERR_OR_ZERO(p)	(IS_ERR(p) ? (int)PTR_ERR(p) : 0)

/* --- Atomics, references, bitmaps -------------------------------------------------- */

typedef struct { s64 v; } atomic_t;
typedef atomic_t atomic_long_t, atomic64_t;

#define atomic_read(a)			((int)(a)->v)
#define atomic_set(a, n)		((void)((a)->v = (n)))
#define atomic_dec_and_test(a)		(!--(a)->v)
#define atomic_long_read(a)		((a)->v)
#define atomic_long_set(a, n)		((void)((a)->v = (n)))
#define atomic_long_inc(a)		((void)(a)->v++)
/* Of steps, of which a target executes none */
#define crc32_le(sum, p, len)		((void)(p), (void)(len), abort(), (sum))
#define get_random_bytes(p, len)	((void)(p), (void)(len), abort())

#define atomic64_inc(a)			((void)(a)->v++)
#define atomic64_add(n, a)		((void)((a)->v += (n)))
#define atomic64_set(a, n)		((void)((a)->v = (n)))
#define atomic64_read(a)		((a)->v)

static inline void atomic_cmpxchg(atomic_t *a, s64 old, s64 new)
{
	if (a->v == old)
		a->v = new;
}

static inline bool atomic_long_try_cmpxchg(atomic_long_t *a, long *old, long new)
{
	bool same = a->v == *old;

	*old = a->v;
	if (same)
		a->v = new;
	return same;
}

struct list_head {
	struct list_head *next, *prev;
};

struct kref {
	int n;
};

#define kref_init(k)		((void)((k)->n = 1))
#define kref_get(k)		((void)(k)->n++)
#define kref_put(k, release)	({ assert((k)->n > 0); if (!--(k)->n) release(k); })

#define bitmap_zalloc(bits, gfp) \
	((unsigned long *)model_alloc(DIV_ROUND_UP(bits, 64) * 8))
#define bitmap_free(p)		model_free(p)

static inline bool model_test_bit(const unsigned long *map, unsigned long i)
{
	return map[i / BITS_PER_LONG] >> i % BITS_PER_LONG & 1;
}

static inline void __assign_bit(unsigned long i, unsigned long *map, bool value)
{
	if (value)
		map[i / BITS_PER_LONG] |= BIT(i % BITS_PER_LONG);
	else
		map[i / BITS_PER_LONG] &= ~BIT(i % BITS_PER_LONG);
}

#define test_bit(i, map)	model_test_bit(map, i)
#define __clear_bit(i, map)	__assign_bit(i, map, false)
#define for_each_set_bit(i, map, nr) \
	for ((i) = find_next_bit(map, nr, 0); (i) < (nr); \
	     (i) = find_next_bit(map, nr, (i) + 1))

static inline unsigned long find_next_bit(const unsigned long *map,
					  unsigned long nr, unsigned long i)
{
	while (i < nr && !model_test_bit(map, i))
		i++;
	return min(i, nr);
}

static inline unsigned long bitmap_weight(const unsigned long *map,
					  unsigned long nr)
{
	unsigned long i, weight = 0;

	for (i = 0; i < nr; i++)
		weight += model_test_bit(map, i);
	return weight;
}

static inline void memset64(u64 *p, u64 value, size_t nr)
{
	while (nr--)
		*p++ = value;
}

static inline u64 mul_u64_u64_div_u64(u64 a, u64 b, u64 c)
{
	return (unsigned __int128)a * b / c;
}

/* --- Locks ------------------------------------------------------------------------- */

typedef struct { bool held; } spinlock_t;

struct rw_semaphore {
	bool held;
};

struct mutex {
	bool held;
};

#define mutex_init(lock)	((void)((lock)->held = false))
#define mutex_destroy(lock)	assert(!(lock)->held)

static inline spinlock_t *enter_spinlock(spinlock_t *lock)
{
	assert(!lock->held);
	lock->held = true;
	model_held(1, true);
	return lock;
}

static inline void exit_spinlock(spinlock_t **lock)
{
	if (!*lock)
		return;
	(*lock)->held = false;
	model_held(-1, true);
	*lock = NULL;
}

static inline struct rw_semaphore *enter_rwsem_write(struct rw_semaphore *sem)
{
	assert(!sem->held);
	sem->held = true;
	model_held(1, false);
	return sem;
}

static inline void exit_rwsem_write(struct rw_semaphore **sem)
{
	if (!*sem)
		return;
	(*sem)->held = false;
	model_held(-1, false);
	*sem = NULL;
}

static inline struct rw_semaphore *enter_rwsem_read(struct rw_semaphore *sem)
{
	return enter_rwsem_write(sem);
}

static inline void exit_rwsem_read(struct rw_semaphore **sem)
{
	exit_rwsem_write(sem);
}

static inline struct mutex *enter_mutex(struct mutex *lock)
{
	assert(!lock->held);
	lock->held = true;
	return lock;
}

static inline void exit_mutex(struct mutex **lock)
{
	(*lock)->held = false;
}

#define lockdep_assert_held(lock)	assert((lock)->held)
#define lockdep_assert_held_write(lock)	lockdep_assert_held(lock)
#define guard_name_(line)	guard_at_##line
#define guard_name(line)	guard_name_(line)
#define guard(kind)							\
	__attribute__((cleanup(exit_##kind), unused))			\
	__typeof__(enter_##kind(NULL)) guard_name(__LINE__) = enter_##kind
#define scoped_guard(kind, lock)					\
	for (__attribute__((cleanup(exit_##kind)))			\
	     __typeof__(enter_##kind(NULL)) scope = enter_##kind(lock);	\
	     scope; exit_##kind(&scope))

/* --- Waiting and working --------------------------------------------------------------- */

typedef struct { int unused; } wait_queue_head_t;
struct poll_table_struct;

#define init_waitqueue_head(wait)	((void)(wait))
#define wake_up_all(wait)		((void)(wait))
#define poll_wait(filp, wait, table)	((void)(wait), (void)(table))
#define ms_to_ktime(ms)			((ktime_t)(ms))
/* Nothing ever becomes true later here; it is known whether it will */
#define wait_event_hrtimeout(wait, cond, timeout) \
	((void)(wait), (void)(timeout), (cond) ? 0 : -ETIME)
/* For what the model never does: to wait for a test knob */
/* Only for the knob load_rate, which no load of the model has set */
#define wait_event_interruptible_hrtimeout(wait, cond, timeout) \
	((void)(timeout), (cond) ? 0 : -ETIME)
#define wait_event_idle(wait, cond)	((void)(cond))
#define wait_event_interruptible(wait, cond) ({				\
	int waited = 0;							\
	while (!(cond) && !waited) {					\
		model_wait();						\
		if (model_signal())					\
			waited = -ERESTARTSYS;				\
	}								\
	waited; })

struct work_struct {
	void (*run)(struct work_struct *work);
	bool queued;
};

struct workqueue_struct;

struct hrtimer {
	int unused;
};

enum hrtimer_restart { HRTIMER_NORESTART };

/* No load of the model has set the knob load_rate, which alone would start one */
#define hrtimer_setup(timer, fn, clock, mode)	((void)(timer), (void)(fn))
#define hrtimer_start(timer, time, mode)	((void)(timer), (void)(time))
#define hrtimer_cancel(timer)			((void)(timer))

void model_queue(struct work_struct *work);

#define INIT_WORK(work, fn)		((void)((work)->run = (fn)))
#define queue_work_node(node, wq, work)	((void)(wq), model_queue(work))
#define num_online_cpus()		3U
#define numa_node_id()			0

/* --- Files, devices, tracepoints --------------------------------------------------------- */

struct inode;
struct vm_area_struct;
struct file_operations;

struct file {
	const struct file_operations *ops;
	void *private_data;
	unsigned int f_flags;
	struct inode *f_inode;
};

struct file_operations {
	void *owner;
	ssize_t (*write)(struct file *filp, const char *buf, size_t count,
			 loff_t *pos);
	__poll_t (*poll)(struct file *filp, struct poll_table_struct *table);
	long (*unlocked_ioctl)(struct file *filp, unsigned int cmd,
			       unsigned long arg);
	void *compat_ioctl;
	int (*release)(struct inode *inode, struct file *filp);
};

struct file *model_file(const struct file_operations *ops, void *data, int flags);
void model_fput(struct file *filp);

#define compat_ptr_ioctl		NULL
#define anon_inode_getfile(name, ops, data, flags) model_file(ops, data, flags)
#define stream_open(inode, filp)	((void)(inode))
#define fput(filp)			model_fput(filp)

struct device {
	int unused;
};

struct pci_dev {
	struct device dev;
	u16 vendor;
	u16 device;
};

struct vfio_device {
	struct device device;
};

struct vfio_pci_core_device {
	struct vfio_device vdev;
	struct pci_dev *pdev;
};

#define VFIO_PCI_INDEX_TO_OFFSET(index)	((u64)(index) << 40)

#define PARAMS(...)		__VA_ARGS__
#define TP_PROTO(...)		__VA_ARGS__
#define TP_ARGS(...)
#define TRACE_EVENT(name, proto, ...)					\
	static inline __attribute__((unused)) void			\
	trace_##name(PARAMS(proto)) { }
#define TRACE_DEFINE_ENUM(name)	_Static_assert((name) >= 0, #name)
#define DECLARE_EVENT_CLASS(...)
#define DEFINE_EVENT(class, name, proto, ...)				\
	static inline __attribute__((unused)) void			\
	trace_##name(PARAMS(proto)) { }

#endif /* VFIO_PRECOPY_FUZZ_KDRIVER_H */
