// SPDX-License-Identifier: GPL-2.0-only
/*
 * The paths of save.c and load.c in user space, where no emulation distorts
 * them: the driver's own stream.c, and around it the same copies in pieces of
 * the same size, against read() and write() of a memfd. What it leaves out are
 * locks, page table walks and the allocation of pages.
 *
 * Variants of the save path show what each of its parts costs.
 *
 *   stream_native [--size BYTES] [--reps N]
 */
#include <cpuid.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"
#include "kshim.h"
#include "mig/stream.h"

#define MAX_BOUNCE	(PRECOPY_REC_HDR_LEN + 1 * MIB)

static size_t opt_size = 64 * MIB;
static int opt_reps = 5;

/* --- Copies as the kernel makes them -------------------------------------- */

static bool cpu_has_fsrm(void)
{
	unsigned int a, b, c, d = 0;

	return __get_cpuid_count(7, 0, &a, &b, &c, &d) && d & BIT(4);
}

static bool use_movsb;

/* The kernel's memcpy() and user copies are this instruction if it is fast */
static void kcopy(void *to, const void *from, size_t len)
{
	if (use_movsb)
		asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(len) : :
			     "memory");
	else
		memcpy(to, from, len);
}

/* memchr_inv() of the kernel: a word at a time */
static bool page_is_zero(const void *page)
{
	const u64 *word = page;
	size_t i;

	for (i = 0; i < PAGE / sizeof(*word); i++)
		if (word[i])
			return false;
	return true;
}

/* The same a cache line at a time, so that the loads overlap */
static bool page_is_zero_by_line(const void *page)
{
	const u64 *w = page;
	size_t i;

	for (i = 0; i < PAGE / sizeof(*w); i += 8)
		if (w[i] | w[i + 1] | w[i + 2] | w[i + 3] |
		    w[i + 4] | w[i + 5] | w[i + 6] | w[i + 7])
			return false;
	return true;
}

/* Stands for the system call that a model does not make */
static void enter_kernel(void)
{
	syscall(SYS_getppid);
}

/* --- Saving ----------------------------------------------------------------- */

enum save_flags {
	SAVE_CRC	= 1 << 0,	/* checksum of the payload */
	SAVE_ZERO	= 1 << 1,	/* look for zero pages */
	SAVE_LATE	= 1 << 2,	/* in the copy, not in the page */
	SAVE_BY_LINE	= 1 << 3,	/* a cache line at a time */
	SAVE_DIRECT	= 1 << 4,	/* payload from the page to the user */
	SAVE_CHAIN	= 1 << 5,	/* checksum page by page, as copied */
	SAVE_STREAM	= 1 << 6,	/* by stream.c */
};

/* The first is what the driver does. */
static const struct save_model {
	const char *name;
	size_t record;
	int flags;
} save_models[] = {
	{ "driver", 64 * KIB, SAVE_STREAM | SAVE_CRC | SAVE_ZERO },
	{ "records-4K", 4 * KIB, SAVE_CRC | SAVE_ZERO },
	{ "records-8K", 8 * KIB, SAVE_CRC | SAVE_ZERO },
	{ "records-16K", 16 * KIB, SAVE_CRC | SAVE_ZERO },
	{ "records-32K", 32 * KIB, SAVE_CRC | SAVE_ZERO },
	{ "records-128K", 128 * KIB, SAVE_CRC | SAVE_ZERO },
	{ "zero-late", 64 * KIB, SAVE_CRC | SAVE_ZERO | SAVE_LATE },
	{ "zero-by-line", 64 * KIB, SAVE_CRC | SAVE_ZERO | SAVE_BY_LINE },
	{ "crc-by-page", 64 * KIB, SAVE_CRC | SAVE_ZERO | SAVE_CHAIN },
	{ "no-checksum", 64 * KIB, SAVE_ZERO },
	{ "direct-4K", 4 * KIB, SAVE_CRC | SAVE_ZERO | SAVE_DIRECT },
	{ "direct-64K", 64 * KIB, SAVE_CRC | SAVE_ZERO | SAVE_DIRECT },
	{ "direct-no-checksum", 64 * KIB, SAVE_DIRECT },
};

enum piece { COPY, CHECKSUM, USER, NR_PIECES };
static const char * const piece_names[] = { "copy", "checksum", "user" };

struct saver {
	const struct save_model *model;
	struct precopy_encoder enc;
	const char *memory;
	size_t offset;
	char *buf;
	size_t pos, len;	/* of what is in buf */
	const char *direct;	/* payload that is not in buf */
	size_t direct_len;
	bool timed;
	u64 ns[NR_PIECES];
};

static u64 piece_begin(const struct saver *s)
{
	return s->timed ? now_ns() : 0;
}

static void piece_end(struct saver *s, enum piece which, u64 t0)
{
	if (s->timed)
		s->ns[which] += now_ns() - t0;
}

static bool save_looks_zero(const struct saver *s, const void *page)
{
	return s->model->flags & SAVE_BY_LINE ? page_is_zero_by_line(page) :
						page_is_zero(page);
}

/* Copies a page, unless the model need not; is it zero? */
static bool save_copy_page(const struct saver *s, char *to, const char *page)
{
	int flags = s->model->flags;

	if (flags & SAVE_ZERO && !(flags & SAVE_LATE) &&
	    save_looks_zero(s, page))
		return true;
	if (!(flags & SAVE_DIRECT))
		kcopy(to, page, PAGE);
	return flags & SAVE_ZERO && flags & SAVE_LATE && save_looks_zero(s, to);
}

/* Copies the run of pages that are alike, at most a record of them */
static size_t save_copy_run(struct saver *s, char *to, bool *zero, u32 *crc)
{
	size_t n;
	bool same;

	*zero = false;
	for (n = 0; n < s->model->record && s->offset + n < opt_size; n += PAGE) {
		same = save_copy_page(s, to + n, s->memory + s->offset + n);
		if (!n)
			*zero = same;
		else if (same != *zero)
			break;
		if (s->model->flags & SAVE_CHAIN && !same)
			*crc = crc32c(*crc, to + n, PAGE);
	}
	return n;
}

/* What stream.c does, with the checksum where the model wants it */
static size_t save_encode(struct saver *s, size_t n, u32 crc)
{
	struct precopy_rec_hdr hdr = {
		.type = cpu_to_le16(PRECOPY_REC_DATA),
		.flags = cpu_to_le16(PRECOPY_REC_MANDATORY),
		.length = cpu_to_le32(n),
		.offset = cpu_to_le64(s->offset),
	};
	const char *payload = s->buf + sizeof(hdr);

	if (s->model->flags & SAVE_DIRECT)
		payload = s->memory + s->offset;
	if (s->model->flags & SAVE_CRC && !(s->model->flags & SAVE_CHAIN))
		crc = crc32c(crc, payload, n);
	hdr.payload_crc = cpu_to_le32(~crc);
	hdr.header_crc = cpu_to_le32(~crc32c(~0U, &hdr, sizeof(hdr)));
	memcpy(s->buf, &hdr, sizeof(hdr));
	if (!(s->model->flags & SAVE_DIRECT))
		return sizeof(hdr) + n;
	s->direct = payload;
	s->direct_len = n;
	return sizeof(hdr);
}

static void save_fill(struct saver *s)
{
	u32 crc = ~0U;
	bool zero;
	size_t n;
	u64 t0;

	t0 = piece_begin(s);
	n = save_copy_run(s, s->buf + PRECOPY_REC_HDR_LEN, &zero, &crc);
	piece_end(s, COPY, t0);
	t0 = piece_begin(s);
	if (zero)
		s->len = precopy_encode_zero(&s->enc, s->buf, s->offset, n);
	else if (s->model->flags & SAVE_STREAM)
		s->len = precopy_encode_record(&s->enc, s->buf,
					       PRECOPY_REC_DATA, s->offset, n);
	else
		s->len = save_encode(s, n, crc);
	piece_end(s, CHECKSUM, t0);
	s->pos = 0;
	s->offset += n;
}

static size_t save_some(struct saver *s, char *user, size_t count)
{
	size_t n;

	if (s->pos < s->len) {
		n = min(count, s->len - s->pos);
		kcopy(user, s->buf + s->pos, n);
		s->pos += n;
	} else {
		n = min(count, s->direct_len);
		kcopy(user, s->direct, n);
		s->direct += n;
		s->direct_len -= n;
	}
	return n;
}

static size_t save_read(struct saver *s, char *user, size_t count)
{
	size_t done = 0;
	u64 t0;

	enter_kernel();
	while (done < count) {
		if (s->pos == s->len && !s->direct_len) {
			if (s->offset == opt_size)
				break;
			save_fill(s);
		}
		t0 = piece_begin(s);
		done += save_some(s, user + done, count - done);
		piece_end(s, USER, t0);
	}
	return done;
}

/* All of the memory once, in pieces of @buf_size. Returns nanoseconds. */
static u64 save_pass(struct saver *s, char *user, size_t buf_size)
{
	u64 t0 = now_ns();

	s->offset = 0;
	s->pos = 0;
	s->len = 0;
	s->direct_len = 0;
	memset(s->ns, 0, sizeof(s->ns));
	while (save_read(s, user, buf_size))
		;
	return now_ns() - t0;
}

/* --- What the models are compared with ------------------------------------- */

static u64 memfd_pass(int fd, char *buf, size_t buf_size)
{
	u64 t0 = now_ns();
	size_t done;

	for (done = 0; done < opt_size; done += buf_size)
		if (pread(fd, buf, buf_size, done) != (ssize_t)buf_size)
			fatal("a memfd fails");
	return now_ns() - t0;
}

static u64 copy_pass(const char *memory, char *user, size_t buf_size, bool libc)
{
	u64 t0 = now_ns();
	size_t done;

	for (done = 0; done < opt_size; done += buf_size) {
		enter_kernel();
		if (libc)
			memcpy(user, memory + done, buf_size);
		else
			kcopy(user, memory + done, buf_size);
	}
	return now_ns() - t0;
}

static volatile u32 crc_sink;

static u64 crc_pass(const char *memory, size_t piece)
{
	u64 t0 = now_ns();
	size_t done;

	for (done = 0; done < opt_size; done += piece)
		crc_sink = crc32c(~0U, memory + done, piece);
	return now_ns() - t0;
}

/* --- Loading ---------------------------------------------------------------- */

struct loader {
	struct precopy_decoder dec;
	char *memory;
	char *buf;
	u64 ns[NR_PIECES];
	bool timed;
};

static void load_event(struct loader *l, int event)
{
	u64 i;

	if (event < 0)
		fatal("the decoder refuses the stream: %s", l->dec.error);
	for (i = 0; event == PRECOPY_EV_DATA && i < l->dec.nr_bytes; i += PAGE)
		kcopy(l->memory + l->dec.offset + i,
		      (const char *)l->dec.payload + i, PAGE);
	for (i = 0; event == PRECOPY_EV_ZERO && i < l->dec.nr_bytes; i += PAGE)
		memset(l->memory + l->dec.offset + i, 0, PAGE);
}

static size_t load_some(struct loader *l, const char *user, size_t count)
{
	u64 t0, t1, t2, t3;
	size_t n;
	void *dst;
	int event;

	t0 = l->timed ? now_ns() : 0;
	n = min(count, precopy_decoder_want(&l->dec, &dst));
	kcopy(dst, user, n);
	t1 = l->timed ? now_ns() : 0;
	event = precopy_decoder_advance(&l->dec, n);
	t2 = l->timed ? now_ns() : 0;
	load_event(l, event);
	t3 = l->timed ? now_ns() : 0;
	l->ns[USER] += t1 - t0;
	l->ns[CHECKSUM] += t2 - t1;
	l->ns[COPY] += t3 - t2;
	return n;
}

static void load_write(struct loader *l, const char *user, size_t count)
{
	size_t done;

	enter_kernel();
	for (done = 0; done < count;)
		done += load_some(l, user + done, count - done);
}

static const struct precopy_stream_params *params(void)
{
	static struct precopy_stream_params params = {
		.vendor = 0x1b36,
		.device = 5,
		.backend = PRECOPY_BACKEND_RAM,
	};

	params.memory_size = opt_size;
	return &params;
}

/*
 * The stream is written from a buffer of the size that the writer has, as
 * a VMM does that receives it: it is copied there outside of the time taken.
 */
static u64 load_pass(struct loader *l, const char *stream, size_t len,
		     char *user, size_t buf_size)
{
	size_t done, n;
	u64 t0, ns = 0;

	precopy_decoder_init(&l->dec, params(), l->buf);
	memset(l->ns, 0, sizeof(l->ns));
	for (done = 0; done < len; done += n) {
		n = min(buf_size, len - done);
		memcpy(user, stream + done, n);
		t0 = now_ns();
		load_write(l, user, n);
		ns += now_ns() - t0;
	}
	if (!precopy_decoder_complete(&l->dec))
		fatal("the stream is not complete");
	return ns;
}

/* write() of a memfd with the same outside copies, so that caches are alike */
static u64 memfd_store_pass(int fd, const char *memory, char *user,
			    size_t buf_size)
{
	u64 t0, ns = 0;
	size_t done;

	for (done = 0; done < opt_size; done += buf_size) {
		memcpy(user, memory + done, buf_size);
		t0 = now_ns();
		if (pwrite(fd, user, buf_size, done) != (ssize_t)buf_size)
			fatal("a memfd fails");
		ns += now_ns() - t0;
	}
	return ns;
}

static size_t make_stream(const char *memory, char *stream,
			  const struct save_model *model)
{
	u32 nr_units = precopy_stream_units(opt_size);
	unsigned long *in_use = calloc(nr_units / BITS_PER_LONG + 1, 8);
	struct saver s = {
		.model = model,
		.memory = memory,
		.buf = malloc(MAX_BOUNCE),
	};
	size_t len, n;

	if (!in_use || !s.buf)
		fatal("no memory");
	memset(in_use, 0xff, nr_units / BITS_PER_LONG * 8 + 8);
	precopy_encoder_init(&s.enc, params());
	len = precopy_encode_header(&s.enc, stream);
	len += precopy_encode_preface(&s.enc, stream + len, opt_size, 0,
				      in_use, nr_units);
	while ((n = save_read(&s, stream + len, 8 * MIB)))
		len += n;
	len += precopy_encode_record(&s.enc, stream + len,
				     PRECOPY_REC_INITIAL_END, 0, 0);
	len += precopy_encode_state(&s.enc, stream + len, opt_size);
	len += precopy_encode_end(&s.enc, stream + len);
	free(s.buf);
	free(in_use);
	return len;
}

/* --- The program ------------------------------------------------------------ */

static const size_t buf_sizes[] = { 4 * KIB, 64 * KIB, 1 * MIB, 8 * MIB };

static double rate(u64 ns)
{
	return opt_size * 1e9 / ns;
}

/* Picoseconds for a byte, by what they are spent on */
static void sample_pieces(const char *way, const char *data, const u64 *ns,
			  size_t buf_size)
{
	int i;

	for (i = 0; i < NR_PIECES; i++)
		sample(buf_size, ns[i] * 1e3 / opt_size, "native.split.%s.%s.%s",
		       way, data, piece_names[i]);
}

static void bench_save_models(struct saver *s, const char *data, char *user,
			      size_t buf_size)
{
	size_t i;

	for (i = 0; i < ARRAY_LEN(save_models); i++) {
		s->model = &save_models[i];
		sample(buf_size, rate(save_pass(s, user, buf_size)),
		       "native.save.%s.%s", data, s->model->name);
	}
	s->model = &save_models[0];
	s->timed = true;
	save_pass(s, user, buf_size);
	s->timed = false;
	sample_pieces("save", data, s->ns, buf_size);
}

static void bench_save(const char *memory, const char *data, char *user)
{
	struct saver s = { .memory = memory, .buf = malloc(MAX_BOUNCE) };
	int fd = memfd_filled(memory, opt_size);
	size_t b, n;

	precopy_encoder_init(&s.enc, params());
	for (b = 0; b < ARRAY_LEN(buf_sizes); b++) {
		n = buf_sizes[b];
		sample(n, rate(memfd_pass(fd, user, n)),
		       "native.save.%s.memfd", data);
		sample(n, rate(copy_pass(memory, user, n, false)),
		       "native.save.%s.one-copy", data);
		sample(n, rate(copy_pass(memory, user, n, true)),
		       "native.save.%s.one-copy-libc", data);
		bench_save_models(&s, data, user, n);
	}
	close(fd);
	free(s.buf);
}

/* The driver's decoder, with records as long as the model makes them */
static const struct save_model load_models[] = {
	{ "driver", 64 * KIB, SAVE_STREAM | SAVE_CRC | SAVE_ZERO },
	{ "records-16K", 16 * KIB, SAVE_STREAM | SAVE_CRC | SAVE_ZERO },
	{ "records-4K", 4 * KIB, SAVE_STREAM | SAVE_CRC | SAVE_ZERO },
};

struct load_set {
	struct loader loader;
	char *streams[ARRAY_LEN(load_models)];
	size_t lens[ARRAY_LEN(load_models)];
	size_t cap;
};

static void load_set_init(struct load_set *set, const char *memory)
{
	size_t i;

	set->cap = opt_size + opt_size / 64 + 1 * MIB;
	set->loader.buf = malloc(PRECOPY_DECODE_BUF);
	set->loader.memory = memory_alloc(opt_size, true);
	for (i = 0; i < ARRAY_LEN(load_models); i++) {
		set->streams[i] = memory_alloc(set->cap, true);
		set->lens[i] = make_stream(memory, set->streams[i],
					   &load_models[i]);
	}
}

static void load_set_free(struct load_set *set)
{
	size_t i;

	for (i = 0; i < ARRAY_LEN(load_models); i++)
		memory_free(set->streams[i], set->cap);
	memory_free(set->loader.memory, opt_size);
	free(set->loader.buf);
}

static void bench_load_models(struct load_set *set, const char *data,
			      char *user, size_t buf_size)
{
	struct loader *l = &set->loader;
	size_t i;

	for (i = 0; i < ARRAY_LEN(load_models); i++)
		sample(buf_size, rate(load_pass(l, set->streams[i], set->lens[i],
						user, buf_size)),
		       "native.load.%s.%s", data, load_models[i].name);
	l->timed = true;
	load_pass(l, set->streams[0], set->lens[0], user, buf_size);
	l->timed = false;
	sample_pieces("load", data, l->ns, buf_size);
}

static void bench_load(const char *memory, const char *data, char *user)
{
	int fd = memfd_filled(memory, opt_size);
	struct load_set set = { };
	size_t b;

	load_set_init(&set, memory);
	for (b = 0; b < ARRAY_LEN(buf_sizes); b++) {
		sample(buf_sizes[b], rate(memfd_store_pass(fd, memory, user, buf_sizes[b])),
		       "native.load.%s.memfd", data);
		bench_load_models(&set, data, user, buf_sizes[b]);
	}
	if (memcmp(memory, set.loader.memory, opt_size))
		fatal("what was loaded is not what was saved");
	load_set_free(&set);
	close(fd);
}

/* The library's checksum must be the kernel's, or the models mean nothing */
static void check_crc(void)
{
	if (~crc32c(~0U, "123456789", 9) != 0xe3069283)
		fatal("crc32_iscsi() is not CRC-32C as the kernel has it");
}

static void options(int argc, char **argv)
{
	static const struct option options[] = {
		{ "size", required_argument, NULL, 's' },
		{ "reps", required_argument, NULL, 'r' },
		{ }
	};
	int c;

	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's')
			opt_size = parse_size(optarg) & ~(8 * MIB - 1);
		else if (c == 'r')
			opt_reps = atoi(optarg);
		else
			exit(2);
	}
	if (opt_size < 8 * MIB)
		fatal("--size: at least 8M");
}

int main(int argc, char **argv)
{
	char *memory, *zero, *user;
	int rep;

	options(argc, argv);
	check_crc();
	use_movsb = cpu_has_fsrm();
	memory = memory_alloc(opt_size, true);
	zero = memory_alloc(opt_size, true);
	user = memory_alloc(8 * MIB, false);
	memory_random(memory, opt_size, 1);
	sample(0, use_movsb, "native.fsrm");
	for (rep = 0; rep < opt_reps; rep++) {
		progress("native stream code, %d of %d", rep + 1, opt_reps);
		bench_save(memory, "random", user);
		bench_save(zero, "zero", user);
		bench_load(memory, "random", user);
		bench_load(zero, "zero", user);
		sample(4 * KIB, rate(crc_pass(memory, 4 * KIB)), "native.crc");
		sample(64 * KIB, rate(crc_pass(memory, 64 * KIB)), "native.crc");
	}
	return 0;
}
