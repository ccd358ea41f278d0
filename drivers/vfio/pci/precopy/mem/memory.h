/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The memory behind the BAR, as the rest of the driver sees it: page numbers,
 * unit numbers, offsets and buffers. How pages are allocated, mapped and tracked
 * stays inside mem/.
 */
#ifndef PRECOPY_MEMORY_H
#define PRECOPY_MEMORY_H

#include <linux/atomic.h>
#include <linux/errno.h>
#include <linux/kref.h>
#include <linux/math.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/sched/signal.h>
#include <linux/types.h>
#include <linux/wait.h>

#include "units.h"

struct address_space;
struct device;
struct mem_cgroup;
struct precopy_ram;
struct precopy_tracker;
struct vm_area_struct;
struct workqueue_struct;

/**
 * enum precopy_gate - may the user touch the memory?
 * @PRECOPY_GATE_OPEN: yes
 * @PRECOPY_GATE_WAIT: not until the startup completes; accesses wait
 * @PRECOPY_GATE_FAILED: no, the load failed; EIO and SIGBUS until reset
 */
enum precopy_gate {
	PRECOPY_GATE_OPEN,
	PRECOPY_GATE_WAIT,
	PRECOPY_GATE_FAILED,
};

/**
 * enum precopy_set - the sets of pages that are still to be sent
 * @PRECOPY_INITIAL: pages in use when the session began and not sent yet
 * @PRECOPY_DIRTY: pages written after they were sent, or first used since the
 *		   session began
 * @PRECOPY_PINNED: pages set aside, because of references through which they can
 *		    be written unseen, or because their unit could not be split.
 *		    They are sent when released, at the latest when the device
 *		    has stopped.
 * @PRECOPY_SETS: number of sets
 */
enum precopy_set {
	PRECOPY_INITIAL,
	PRECOPY_DIRTY,
	PRECOPY_PINNED,
	PRECOPY_SETS,
};

/**
 * struct precopy_memory_stats - counters of a memory shown in debugfs, never reset
 * @kref: references of the memory, and of each of its lives, which may be freed
 *	  after it
 * @read_faults: page faults for loads
 * @write_faults: page faults for stores
 * @mkwrite_faults: page faults for stores to pages mapped read-only
 * @huge_faults: 2 MiB entries made, or made writable
 * @around_pages: pages mapped, or made writable, besides the one that a fault was for
 * @waited_faults: page faults that waited for the gate
 * @last_disarm_ns: time for which the last disarm delayed page faults and accesses by
 *		    read() and write(), ns
 * @set_aside_pages: number of pages that were set aside because of a pin or another
 *		     extra reference
 * @rechecked_units: number of checks whether pages of a unit that were set aside
 *		     have been released
 * @left_pinned_pages: number of pages in folios that were still pinned when the
 *		       memory that they belonged to was freed
 * @splits: number of units that were divided into single pages, because they were
 *	    written while tracked and not loose
 * @failed_splits: number of units that stayed one folio because the split failed
 * @collapses: number of units of single pages that became one folio again
 */
struct precopy_memory_stats {
	struct kref	kref;
	atomic64_t	read_faults;
	atomic64_t	write_faults;
	atomic64_t	mkwrite_faults;
	atomic64_t	huge_faults;
	atomic64_t	around_pages;
	atomic64_t	waited_faults;
	atomic64_t	last_disarm_ns;
	atomic64_t	set_aside_pages;
	atomic64_t	rechecked_units;
	atomic64_t	left_pinned_pages;
	atomic64_t	splits;
	atomic64_t	failed_splits;
	atomic64_t	collapses;
};

/* Splits and collapses that may be under way at a time: of units with different remainders */
#define PRECOPY_MOVES	8

/* Locks for the page table entries of units; those with the same remainder share one */
#define PRECOPY_ENTRY_SEMS	32

/**
 * struct precopy_move - a unit whose contents are copied to other pages (mem/move.h)
 * @lock: serialises splits and collapses of the units that share this object, so that
 *	  a second thread which faults on a unit finds it done. Taken inside mmap_lock, or
 *	  the lock of a VMA, and outside memory.split_sem.
 * @unit: unit number, or ULONG_MAX if there is none. Written with memory.sem held for
 *	  write.
 * @closed: true if the unit gets no page table entry until the move ends: of a
 *	    collapse, whose entries would be writable. Written as @unit is.
 * @stored: bitmap of pages that were stored to since the copy began. Bits are set with
 *	    memory.sem held for read.
 */
struct precopy_move {
	struct mutex	lock;	/* see above */
	unsigned long	unit;
	bool		closed;
	DECLARE_BITMAP(stored, PRECOPY_UNIT_PAGES);
};

/**
 * enum precopy_hold_split - values of the test knob hold_split
 * @PRECOPY_SPLIT_GO: splits do not wait
 * @PRECOPY_SPLIT_HOLD: the next split or collapse waits between its copy and its end
 * @PRECOPY_SPLIT_HELD: one waits there, until the value is changed
 */
enum precopy_hold_split {
	PRECOPY_SPLIT_GO,
	PRECOPY_SPLIT_HOLD,
	PRECOPY_SPLIT_HELD,
};

/**
 * struct precopy_memory - the memory behind the BAR
 * @sem: protects everything from @size to @moves. Whoever inserts a page table
 *	 entry or stores to the memory holds it for read, from looking at @ram,
 *	 @gate, @decode and @tracker to the end of the store; whoever changes one
 *	 of them holds it for write. So does whoever makes a 2 MiB entry: that
 *	 must not meet a page table. Taken inside mmap_lock or the lock of a VMA
 *	 (faults) and memory_lock (reset); never held across a user copy, a wait or an
 *	 allocation of the memory itself (of page tables and of the tracker's
 *	 bits it is).
 * @size: size of the memory, bytes; fixed while the device is open
 * @generation: generation of the device, as precopy_memory_reset() was told.
 *		What a caller does for an earlier one gives -ECANCELED.
 * @ram: the contents; NULL while nothing was touched
 * @memcg: memory cgroup of the opener, charged for all of the memory
 * @gate: whether the user may touch the memory
 * @decode: the memory bit of COMMAND
 * @accepting: true if other devices may access the memory; not while the device has
 *	       stopped
 * @tracker: tracker that is told of every page written; NULL while not tracking
 * @revoked: bitmap of units whose page table entries have to be removed before one is
 *	     made (precopy_entries_revoke()); NULL while the device is closed
 * @entry_sem: of a unit, by its number: held for write while a 2 MiB entry is made, for
 *	       read while small ones are, so that no page table comes where a 2 MiB entry
 *	       is about to be. Taken inside @sem.
 * @moves: units that are split or collapsed at present; one belongs to all units with
 *	   the same remainder
 * @hold_split: test knob: whether splits wait, see enum precopy_hold_split. Needs no
 *		lock; a split that waits is woken through @wait.
 * @split_sem: held for read by each split, from the allocation of its spare unit until
 *	       the old pages are given back; for write by one that found no memory, so
 *	       that the pages of one spare unit suffice. Taken inside the lock of a move
 *	       and outside @sem.
 * @wait: accesses that wait for the gate
 * @dev: device that messages and events name
 * @mapping: address space that maps the BAR
 * @pgoff: first page of the BAR in @mapping
 * @wq: workqueue on which contents are freed
 * @stats: counters for debugfs
 *
 * From @wait on nothing changes while the object lives.
 */
struct precopy_memory {
	struct rw_semaphore		sem;
	u64				size;
	u64				generation;
	struct precopy_ram		*ram;
	struct mem_cgroup		*memcg;
	enum precopy_gate		gate;
	bool				decode;
	bool				accepting;
	struct precopy_tracker		*tracker;
	unsigned long			*revoked;
	struct rw_semaphore		entry_sem[PRECOPY_ENTRY_SEMS];
	struct precopy_move		moves[PRECOPY_MOVES];
	u32				hold_split;
	struct rw_semaphore		split_sem;
	wait_queue_head_t		wait;
	struct device			*dev;
	struct address_space		*mapping;
	pgoff_t				pgoff;
	struct workqueue_struct		*wq;
	struct precopy_memory_stats	*stats;
};

static inline unsigned long
precopy_memory_nr_units(const struct precopy_memory *mem)
{
	return DIV_ROUND_UP(mem->size, PRECOPY_UNIT_SIZE);
}

/* --- Life ------------------------------------------------------------- */

int precopy_memory_init(struct precopy_memory *mem, struct device *dev,
			struct address_space *mapping, pgoff_t pgoff,
			struct workqueue_struct *wq);
void precopy_memory_destroy(struct precopy_memory *mem);
int precopy_memory_open(struct precopy_memory *mem, u64 size);
void precopy_memory_close(struct precopy_memory *mem);
void precopy_memory_discard(struct precopy_memory *mem);
void precopy_memory_reset(struct precopy_memory *mem, u64 generation);
void precopy_memory_give_way(struct precopy_memory *mem);
void precopy_memory_settle(struct precopy_memory *mem);

/* --- The user's accesses ---------------------------------------------- */

int precopy_memory_mmap(struct precopy_memory *mem,
			struct vm_area_struct *vma);
ssize_t precopy_memory_read(struct precopy_memory *mem, char __user *buf,
			    size_t count, u64 offset);
ssize_t precopy_memory_write(struct precopy_memory *mem,
			     const char __user *buf, size_t count, u64 offset);
void precopy_memory_set_decode(struct precopy_memory *mem, bool decode);
void precopy_memory_set_gate(struct precopy_memory *mem,
			     enum precopy_gate gate);

/* --- Accesses of other devices ---------------------------------------- */

void precopy_memory_set_accepting(struct precopy_memory *mem, bool accepting);
int precopy_memory_peer_rw(struct precopy_memory *mem, u64 offset, void *buf,
			   size_t len, bool write);

/* --- Waiting for the gate --------------------------------------------- */

/* Must accesses wait for the startup? Without the lock only a hint to wait on. */
static inline bool precopy_memory_waits(const struct precopy_memory *mem)
{
	return READ_ONCE(mem->gate) == PRECOPY_GATE_WAIT;
}

/*
 * Error for a wait that a signal has ended before the system call did anything. If
 * the signal is not fatal, the call is restarted after the signal was handled, which
 * the user does not notice. Signal handlers can thus run, and the task can be frozen.
 */
static inline int precopy_interrupted(void)
{
	return fatal_signal_pending(current) ? -EINTR : -ERESTARTNOINTR;
}

/* --- The contents ----------------------------------------------------- */

int precopy_memory_load_begin(struct precopy_memory *mem, u64 generation);
void precopy_memory_load_end(struct precopy_memory *mem);
int precopy_memory_populate_unit(struct precopy_memory *mem, u64 generation,
				 unsigned long unit);
int precopy_memory_copy_in(struct precopy_memory *mem, u64 generation,
			   u64 offset, const void *data, size_t len);
int precopy_memory_zero_in(struct precopy_memory *mem, u64 generation,
			   u64 offset, u64 len);

int precopy_memory_copy_part(struct precopy_memory *mem, u64 generation,
			     u64 offset, void *to, size_t len);
int precopy_memory_copy_out(const struct precopy_memory *mem,
			    unsigned long index, void *to);
bool precopy_memory_is_zero(const struct precopy_memory *mem,
			    unsigned long index);

u64 precopy_memory_used(const struct precopy_memory *mem);
unsigned long precopy_memory_next_used(const struct precopy_memory *mem,
				       unsigned long from);
unsigned long precopy_memory_used_pages(const struct precopy_memory *mem,
					unsigned long unit,
					unsigned long *pages);
u64 precopy_memory_whole_units(const struct precopy_memory *mem,
			       unsigned long *units);

/* --- What is still to be sent ----------------------------------------- */

struct precopy_tracker *
precopy_tracker_create(u64 size, bool expect_stores,
		       wait_queue_head_t *wait, spinlock_t *lock);
void precopy_tracker_free(struct precopy_tracker *tracker);

int precopy_tracker_prepare(struct precopy_memory *mem,
			    struct precopy_tracker *tracker);
bool precopy_tracker_prepared(const struct precopy_memory *mem,
			      struct precopy_tracker *tracker);
void precopy_tracker_arm(struct precopy_memory *mem,
			 struct precopy_tracker *tracker);
void precopy_tracker_clear(struct precopy_memory *mem);
void precopy_tracker_disarm(struct precopy_memory *mem);
bool precopy_tracker_armed(const struct precopy_memory *mem,
			   const struct precopy_tracker *tracker);

unsigned long precopy_tracker_count(const struct precopy_tracker *tracker,
				    enum precopy_set set);
unsigned long precopy_tracker_next(const struct precopy_tracker *tracker,
				   enum precopy_set set, unsigned long from);
unsigned long precopy_tracker_whole(const struct precopy_tracker *tracker,
				    enum precopy_set set);
unsigned long precopy_tracker_next_partial(const struct precopy_tracker *tracker,
					   enum precopy_set set,
					   unsigned long from);
const unsigned long *
precopy_tracker_pages(const struct precopy_tracker *tracker,
		      enum precopy_set set, unsigned long unit);

unsigned long precopy_tracker_begin_take(struct precopy_memory *mem,
					 enum precopy_set set,
					 unsigned long from);
unsigned long precopy_tracker_take(struct precopy_memory *mem,
				   enum precopy_set set, unsigned long unit,
				   unsigned long *pages);
void precopy_tracker_protect(struct precopy_memory *mem, unsigned long unit,
			     const unsigned long *pages);
unsigned long precopy_tracker_set_aside(struct precopy_memory *mem,
					unsigned long unit,
					unsigned long *pages);
void precopy_tracker_recheck(struct precopy_memory *mem,
			     struct precopy_tracker *tracker, bool all);

#endif /* PRECOPY_MEMORY_H */
