// SPDX-License-Identifier: GPL-2.0-only
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <sys/mman.h>
#include <sys/ptrace.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include <linux/futex.h>
#include <linux/kvm.h>
#include <linux/types.h>

#include <libvfio.h>
#include <libvfio/dirty_writer.h>

/* Rows that take long for each byte are asked for so many */
#define FEW	64

struct order {
	u64 offset;
	u32 len;
	u8 data[PRECOPY_PAGE];
};

/* ---- Mappings ----------------------------------------------------------------- */

static u8 *map_bar(struct dirty_writer_run *w, u64 offset, size_t size)
{
	struct precopy_dev *a = &w->t->a;

	return mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED, a->fd,
		    a->bar_offset + offset);
}

static void open_second(struct dirty_writer_run *w)
{
	w->second = map_bar(w, 0, w->t->a.size);
	VFIO_ASSERT_NE((void *)w->second, MAP_FAILED);
}

static void by_store(struct dirty_writer_run *w, u64 offset, const void *data,
		     size_t len)
{
	memcpy(w->bar + offset, data, len);
}

static void by_second(struct dirty_writer_run *w, u64 offset, const void *data,
		      size_t len)
{
	memcpy(w->second + offset, data, len);
}

/* Half of it by each, so that both mappings are writable at a collect. */
static void by_both(struct dirty_writer_run *w, u64 offset, const void *data,
		    size_t len)
{
	size_t half = len / 2;

	by_store(w, offset, data, half);
	by_second(w, offset + half, data + half, len - half);
}

/* A mapping that comes, is written through, and goes. */
static void by_short(struct dirty_writer_run *w, u64 offset, const void *data,
		     size_t len)
{
	u64 in_page = offset % PRECOPY_PAGE;
	u8 *map = map_bar(w, offset - in_page, PRECOPY_PAGE);

	VFIO_ASSERT_NE((void *)map, MAP_FAILED);
	memcpy(map + in_page, data, len);
	VFIO_ASSERT_EQ(munmap(map, PRECOPY_PAGE), 0);
}

/* ---- Another process ------------------------------------------------------------ */

static void serve(struct dirty_writer_run *w, u8 *map)
{
	struct order order;

	while (read(w->to_child[0], &order, sizeof(order)) == sizeof(order)) {
		memcpy(map + order.offset, order.data, order.len);
		if (write(w->from_child[1], &order, 1) != 1)
			break;
	}
	_exit(0);
}

/* The child writes to the mapping it inherited, or to one of its own. */
static void start_child(struct dirty_writer_run *w, bool own_mapping)
{
	u8 *map = w->bar;

	VFIO_ASSERT_EQ(pipe(w->to_child), 0);
	VFIO_ASSERT_EQ(pipe(w->from_child), 0);
	w->child = fork();
	VFIO_ASSERT_GE(w->child, 0);
	if (w->child)
		return;
	/* It ends with the process that gives the orders. */
	close(w->to_child[1]);
	if (own_mapping)
		map = map_bar(w, 0, w->t->a.size);
	if (map != MAP_FAILED)
		serve(w, map);
	_exit(1);
}

static void by_child(struct dirty_writer_run *w, u64 offset, const void *data,
		     size_t len)
{
	struct order order = { .offset = offset, .len = len };
	char done;

	memcpy(order.data, data, len);
	VFIO_ASSERT_EQ(write(w->to_child[1], &order, sizeof(order)),
		       (ssize_t)sizeof(order));
	VFIO_ASSERT_EQ(read(w->from_child[0], &done, 1), 1);
}

/* Its page is writable from before, whoever does the stores to come. */
static void open_child(struct dirty_writer_run *w)
{
	start_child(w, false);
}

static void open_child_with_own_mapping(struct dirty_writer_run *w)
{
	start_child(w, true);
}

/* ---- The kernel as writer ------------------------------------------------------- */

static void by_pwrite(struct dirty_writer_run *w, u64 offset, const void *data,
		      size_t len)
{
	struct precopy_dev *a = &w->t->a;

	VFIO_ASSERT_EQ(pwrite(a->fd, data, len, a->bar_offset + offset),
		       (ssize_t)len);
}

static void open_pipe(struct dirty_writer_run *w)
{
	VFIO_ASSERT_EQ(pipe(w->pipe), 0);
}

/* The copy of a system call that returns data */
static void by_read(struct dirty_writer_run *w, u64 offset, const void *data,
		    size_t len)
{
	VFIO_ASSERT_EQ(write(w->pipe[1], data, len), (ssize_t)len);
	VFIO_ASSERT_EQ(read(w->pipe[0], w->bar + offset, len), (ssize_t)len);
}

static const char *missing_slow_file(struct dirty_writer_run *w)
{
	if (!slow_file_open(&w->slow))
		return NULL;
	slow_file_close(&w->slow);
	return "no 9p mount of our own";
}

/* The page is pinned, and stored to through the pin. */
static void by_direct_read(struct dirty_writer_run *w, u64 offset,
			   const void *data, size_t len)
{
	VFIO_ASSERT_EQ(len, (size_t)SLOW_FILE_LEN);
	slow_file_ask(&w->slow, w->bar + offset);
	slow_file_answer(&w->slow, data);
}

/*
 * By way of the kernel, into a process that need not know: the pages are
 * pinned for the moment of the copy, no page table is involved.
 */
static void process_vm(struct dirty_writer_run *w, pid_t pid, u64 offset,
		       const void *data, size_t len)
{
	struct iovec local = { (void *)data, len };
	struct iovec remote = { w->bar + offset, len };

	VFIO_ASSERT_EQ(process_vm_writev(pid, &local, 1, &remote, 1, 0),
		       (ssize_t)len);
}

static void by_process_vm_writev(struct dirty_writer_run *w, u64 offset,
				 const void *data, size_t len)
{
	process_vm(w, getpid(), offset, data, len);
}

static void by_process_vm_writev_to_child(struct dirty_writer_run *w, u64 offset,
					  const void *data, size_t len)
{
	process_vm(w, w->child, offset, data, len);
}

static void proc_mem(struct dirty_writer_run *w, pid_t pid, u64 offset,
		     const void *data, size_t len)
{
	char path[64];
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/mem", pid);
	fd = open(path, O_RDWR);
	VFIO_ASSERT_GE(fd, 0);
	VFIO_ASSERT_EQ(pwrite(fd, data, len, (uintptr_t)w->bar + offset),
		       (ssize_t)len);
	close(fd);
}

static void by_proc_mem(struct dirty_writer_run *w, u64 offset, const void *data,
			size_t len)
{
	proc_mem(w, getpid(), offset, data, len);
}

static void by_proc_mem_of_child(struct dirty_writer_run *w, u64 offset,
				 const void *data, size_t len)
{
	proc_mem(w, w->child, offset, data, len);
}

static void by_ptrace(struct dirty_writer_run *w, u64 offset, const void *data,
		      size_t len)
{
	const u64 *words = data;
	u64 *to = (u64 *)(w->bar + offset);
	size_t i;

	VFIO_ASSERT_EQ(ptrace(PTRACE_ATTACH, w->child, NULL, NULL), 0);
	VFIO_ASSERT_EQ(waitpid(w->child, NULL, 0), w->child);
	for (i = 0; i < len / sizeof(*words); i++)
		VFIO_ASSERT_EQ(ptrace(PTRACE_POKEDATA, w->child, to + i,
				      words[i]), 0);
	VFIO_ASSERT_EQ(ptrace(PTRACE_DETACH, w->child, NULL, NULL), 0);
}

/*
 * The kernel's own atomic operation on a word of the user. Its operand has one
 * bit, so that a word takes one operation for each bit that is to change.
 */
static void by_futex(struct dirty_writer_run *w, u64 offset, const void *data,
		     size_t len)
{
	const int flip = FUTEX_OP_XOR | FUTEX_OP_OPARG_SHIFT;
	u32 *word = (u32 *)(w->bar + offset), nobody = 0, change;
	const u32 *to = data;
	int bit, op;

	for (; len; len -= sizeof(*to), word++, to++) {
		change = *to ^ *(u32 *)(w->t->a.shadow + ((u8 *)word - w->bar));
		for (bit = 0; bit < 32; bit++) {
			if (!(change >> bit & 1))
				continue;
			op = FUTEX_OP(flip, bit, FUTEX_OP_CMP_EQ, 0);
			VFIO_ASSERT_EQ(syscall(__NR_futex, &nobody,
					       FUTEX_WAKE_OP | FUTEX_PRIVATE_FLAG,
					       0, 0, word, op), 0);
		}
	}
}

/* ---- A guest -------------------------------------------------------------------- */

static const char *missing_kvm(struct dirty_writer_run *w)
{
	const char *missing = kvm_guest_missing();
	bool avx;

	if (missing || w->row->op != KVM_GUEST_AVX)
		return missing;
	kvm_guest_init(&w->guest, 1);
	avx = w->guest.avx;
	kvm_guest_cleanup(&w->guest);
	return avx ? NULL : "the processor has no AVX";
}

static void open_kvm(struct dirty_writer_run *w)
{
	kvm_guest_init(&w->guest, 1);
	VFIO_ASSERT_EQ(kvm_guest_set_bar(&w->guest, w->bar, w->t->a.size), 0);
}

static void by_kvm(struct dirty_writer_run *w, u64 offset, const void *data,
		   size_t len)
{
	struct kvm_guest_vcpu *vcpu = &w->guest.vcpus[0];
	size_t op_len = w->row->op_len;
	u64 old;

	for (; len; len -= op_len, offset += op_len, data += op_len) {
		vcpu->cmd->addr = KVM_GUEST_BAR_GPA + offset;
		memcpy(vcpu->cmd->data, data, op_len);
		if (w->row->op == KVM_GUEST_LOCK) {
			memcpy(&old, w->t->a.shadow + offset, sizeof(old));
			vcpu->cmd->data[0] -= old;
		}
		kvm_guest_start(vcpu, w->row->op);
		VFIO_ASSERT_EQ(kvm_guest_run(vcpu), KVM_EXIT_HLT);
	}
}

/* ---- One instruction, which changes the page at @p, and only that or the next ---- */

static void insn_store(u8 *p, u64 seed)
{
	*(volatile u64 *)(p + 8) = 0x1122334455667788 ^ seed;
}

static void insn_atomic_add(u8 *p, u64 seed)
{
	__atomic_fetch_add((u64 *)(p + 16), seed | 1, __ATOMIC_SEQ_CST);
}

struct unaligned {
	u64 value;
} __packed;

/* From the end of the page to the beginning of the next one */
static void insn_store_across_pages(u8 *p, u64 seed)
{
	struct unaligned *word = (void *)(p + PRECOPY_PAGE - 3);

	WRITE_ONCE(word->value, 0x99aabbccddeeff01 ^ seed << 8 ^ seed << 32);
}

#ifdef __x86_64__
/*
 * Those that copy do it within the page: they read it before they write to it. What
 * they copy depends on the seed.
 */
static u8 *source(u8 *p, u64 seed)
{
	return p + 24 + seed % 32 * 24;
}

static void insn_rep_movsb(u8 *p, u64 seed)
{
	u8 *from = source(p, seed), *to = p + 2048;
	size_t n = 100;

	asm volatile("rep movsb" : "+S"(from), "+D"(to), "+c"(n) : : "memory");
}

static void insn_movsq(u8 *p, u64 seed)
{
	u8 *from = source(p, seed), *to = p + 1024;

	asm volatile("movsq" : "+S"(from), "+D"(to) : : "memory");
}

static void insn_xor_byte(u8 *p, u64 seed)
{
	u8 mask = seed | 1;

	asm volatile("xorb %1, (%0)" : : "r"(p + 77), "q"(mask) : "memory", "cc");
}

static void insn_rep_stosb(u8 *p, u64 seed)
{
	u8 *to = p + 512;
	size_t n = 99;

	asm volatile("rep stosb" : "+D"(to), "+c"(n) : "a"(seed) : "memory");
}

/* The stack is in the page for a moment; the value pushed is read from there */
static void insn_push_memory(u8 *p, u64 seed)
{
	asm volatile("movq %%rsp, %%rbx\n\t"
		     "movq %0, %%rsp\n\t"
		     "pushq (%1)\n\t"
		     "movq %%rbx, %%rsp"
		     : : "r"(p + 3072), "r"(source(p, seed)) : "rbx", "memory");
}

/* From memory to memory through a register, unaligned */
static void insn_sse_copy(u8 *p, u64 seed)
{
	asm volatile("movdqu (%0), %%xmm0\n\t"
		     "movdqu %%xmm0, (%1)"
		     : : "r"(source(p, seed) + 9), "r"(p + 1501)
		     : "xmm0", "memory");
}
#endif

/* ---- The table ------------------------------------------------------------------ */

const struct dirty_writer dirty_writers[] = {
	{
		.name = "store",
		.store = by_store,
	},
	{
		.name = "second_mapping",
		.open = open_second,
		.store = by_second,
	},
	{
		.name = "both_mappings",
		.open = open_second,
		.store = by_both,
		.mappings = 2,
	},
	{
		.name = "short_mapping",
		.store = by_short,
	},
	{
		.name = "child",
		.open = open_child,
		.store = by_child,
	},
	{
		.name = "child_with_own_mapping",
		.open = open_child_with_own_mapping,
		.store = by_child,
	},
	{
		.name = "pwrite",
		.store = by_pwrite,
		.no_entry = true,
	},
	{
		.name = "read_into",
		.open = open_pipe,
		.store = by_read,
	},
	{
		.name = "direct_read",
		.missing = missing_slow_file,
		.store = by_direct_read,
	},
	{
		.name = "process_vm_writev",
		.store = by_process_vm_writev,
	},
	{
		.name = "process_vm_writev_to_child",
		.open = open_child,
		.store = by_process_vm_writev_to_child,
	},
	{
		.name = "proc_mem",
		.store = by_proc_mem,
	},
	{
		.name = "proc_mem_of_child",
		.open = open_child,
		.store = by_proc_mem_of_child,
	},
	{
		.name = "ptrace_poke",
		.open = open_child,
		.store = by_ptrace,
	},
	{
		.name = "futex_op",
		.store = by_futex,
		.most = FEW,
	},
	{
		.name = "kvm_mov",
		.missing = missing_kvm,
		.open = open_kvm,
		.store = by_kvm,
		.most = FEW,
		.op = KVM_GUEST_MOV,
		.op_len = 8,
	},
	{
		.name = "kvm_lock",
		.missing = missing_kvm,
		.open = open_kvm,
		.store = by_kvm,
		.most = FEW,
		.op = KVM_GUEST_LOCK,
		.op_len = 8,
	},
	{
		.name = "kvm_sse",
		.missing = missing_kvm,
		.open = open_kvm,
		.store = by_kvm,
		.most = FEW,
		.op = KVM_GUEST_SSE,
		.op_len = 16,
	},
	{
		.name = "kvm_avx",
		.missing = missing_kvm,
		.open = open_kvm,
		.store = by_kvm,
		.most = FEW,
		.op = KVM_GUEST_AVX,
		.op_len = 32,
	},
	{
		.name = "plain_store",
		.insn = insn_store,
	},
	{
		.name = "atomic_add",
		.insn = insn_atomic_add,
	},
	{
		.name = "store_across_pages",
		.insn = insn_store_across_pages,
		.pages = 2,
	},
#ifdef __x86_64__
	{
		.name = "movsq",
		.insn = insn_movsq,
	},
	{
		.name = "xor_byte",
		.insn = insn_xor_byte,
	},
	{
		.name = "rep_movsb",
		.insn = insn_rep_movsb,
	},
	{
		.name = "rep_stosb",
		.insn = insn_rep_stosb,
	},
	{
		.name = "push_memory",
		.insn = insn_push_memory,
	},
	{
		.name = "sse_copy",
		.insn = insn_sse_copy,
	},
#endif
};

/* ---- Using a row ---------------------------------------------------------------- */

static const struct dirty_writer *find(const char *name)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(dirty_writers); i++)
		if (!strcmp(dirty_writers[i].name, name))
			return &dirty_writers[i];

	return NULL;
}

/* A row that is not in the list would never be tried. */
static void check_list(void)
{
	size_t nr = 0;

#define FIXTURE_VARIANT_ADD_WRITER(name_)	(nr += !!find(#name_))
#include <libvfio/dirty_writer_list.h>
	VFIO_ASSERT_EQ(nr, ARRAY_SIZE(dirty_writers));
}

const struct dirty_writer *dirty_writer_find(const char *name)
{
	const struct dirty_writer *row = find(name);

	check_list();
	VFIO_ASSERT_NOT_NULL(row, "no row %s\n", name);

	return row;
}

const char *dirty_writer_init(struct dirty_writer_run *w, const char *name)
{
	memset(w, 0, sizeof(*w));
	w->row = dirty_writer_find(name);

	return w->row->missing ? w->row->missing(w) : NULL;
}

void dirty_writer_open(struct dirty_writer_run *w, struct precopy_tracking *t,
		       u8 *bar)
{
	w->t = t;
	w->bar = bar;
	if (w->row->open)
		w->row->open(w);
}

static void end_child(struct dirty_writer_run *w)
{
	kill(w->child, SIGKILL);
	waitpid(w->child, NULL, 0);
	close(w->to_child[0]);
	close(w->to_child[1]);
	close(w->from_child[0]);
	close(w->from_child[1]);
}

void dirty_writer_close(struct dirty_writer_run *w)
{
	if (w->child > 0)
		end_child(w);
	kvm_guest_cleanup(&w->guest);
	if (w->second)
		munmap(w->second, w->t->a.size);
	if (w->pipe[1]) {
		close(w->pipe[0]);
		close(w->pipe[1]);
	}
}

void dirty_writer_exit(struct dirty_writer_run *w)
{
	if (w->row->missing == missing_slow_file)
		slow_file_close(&w->slow);
}

/* Where in the page a row with @most stores: not always at the same place. */
static size_t bytes_of(const struct dirty_writer *row, u64 seed, size_t *at)
{
	size_t len = row->most ?: PRECOPY_PAGE;

	*at = seed % (PRECOPY_PAGE / len) * len;
	return len;
}

void dirty_writer_store(struct dirty_writer_run *w, u64 page, u64 seed)
{
	u8 buf[PRECOPY_PAGE] __attribute__((aligned(8)));
	size_t at, len = bytes_of(w->row, seed, &at);

	if (w->row->insn) {
		w->row->insn(w->bar + page * PRECOPY_PAGE, seed);
		return;
	}
	precopy_pattern(buf, page, seed);
	w->row->store(w, page * PRECOPY_PAGE + at, buf + at, len);
}

void dirty_writer_apply(const struct dirty_writer *row, u8 *image, u64 page,
			u64 seed)
{
	u8 buf[PRECOPY_PAGE] __attribute__((aligned(8)));
	size_t at, len = bytes_of(row, seed, &at);

	image += page * PRECOPY_PAGE;
	if (row->insn) {
		row->insn(image, seed);
		return;
	}
	precopy_pattern(buf, page, seed);
	memcpy(image + at, buf + at, len);
}

void dirty_writer_stored(const struct dirty_writer *row,
			 struct precopy_tracking *t, u64 page, u64 seed)
{
	int i;

	dirty_writer_apply(row, t->a.shadow, page, seed);
	for (i = 0; i < (row->pages ?: 1); i++)
		tracking_touched(t, page + i);
}

void dirty_writer_track(void *arg, u64 page, u64 seed)
{
	struct dirty_writer_run *w = arg;

	dirty_writer_store(w, page, seed);
	dirty_writer_stored(w->row, w->t, page, seed);
}
