// SPDX-License-Identifier: GPL-2.0-only
/*
 * Mutations that know the format: an input is taken apart into its file header
 * and records, these are bent, dropped, doubled, swapped, made up or taken from
 * another stream, and lengths and checksums are made right again, most of the
 * time. Without that nearly all mutations would end at the first checksum.
 */
#include "fuzz.h"
#include "kshim.h"
#include "trailer.h"

#define MAX_RECORDS	256
#define MAX_STREAM	0x100000U

/* A piece of @bytes: the file header with its extension, or a record */
struct span {
	u32 at, len;
};

struct stream {
	struct span header;
	struct span records[MAX_RECORDS];
	u32 nr;
	u32 len;
	bool trailer;
	u64 split;
	u8 bytes[2 * MAX_STREAM];
};

static u64 random_state;
/* Nothing is left as it should not be. */
static bool sound;

static u32 roll(u32 n)
{
	return (fuzz_random(&random_state) >> 16) % n;
}

/* One in @n is left wrong. */
static bool right(u32 n)
{
	return sound || roll(n);
}

/* A record that begins with @h is the engine's */
static bool is_engine(const u8 *h, u32 len)
{
	return h[0] == 7 && !h[1] && len == REC_HDR_LEN + ENGINE_LEN;
}

static void put(u8 *p, int bytes, u64 v)
{
	for (; bytes--; v >>= 8)
		*p++ = v;
}

static u64 get(const u8 *p, int bytes)
{
	u64 v = 0;

	while (bytes--)
		v = v << 8 | p[bytes];
	return v;
}

/* --- Taking apart, putting together ------------------------------------------ */

static struct span append(struct stream *s, const void *data, u32 len)
{
	struct span span = { s->len, len };

	if (len > sizeof(s->bytes) - s->len)
		span.len = sizeof(s->bytes) - s->len;
	if (span.len)
		memcpy(s->bytes + s->len, data, span.len);
	s->len += span.len;
	return span;
}

static void parse_records(struct stream *s, const u8 *data, size_t len)
{
	u32 n;

	while (len && s->nr < MAX_RECORDS) {
		n = len;
		if (len >= REC_HDR_LEN && get(data + 4, 4) <= len - REC_HDR_LEN)
			n = REC_HDR_LEN + get(data + 4, 4);
		s->records[s->nr++] = append(s, data, n);
		data += n;
		len -= n;
	}
}

static void parse(struct stream *s, const u8 *data, size_t len)
{
	size_t whole = len, n;

	s->nr = 0;
	s->len = 0;
	s->split = trailer_cut(data, &len);
	s->trailer = len != whole;
	n = min_t(size_t, len, FILE_HDR_LEN);
	if (len > FILE_HDR_LEN && get(data + 12, 4) <= FUZZ_PAGE &&
	    get(data + 12, 4) > FILE_HDR_LEN)
		n = min(len, (size_t)get(data + 12, 4));
	s->header = append(s, data, n);
	parse_records(s, data + n, len - n);
}

static size_t emit(u8 *out, size_t pos, size_t max, const void *p, size_t len)
{
	len = min(len, max - pos);
	if (len)
		memcpy(out + pos, p, len);
	return pos + len;
}

static size_t put_together(const struct stream *s, u8 *out, size_t max)
{
	size_t pos = emit(out, 0, max, s->bytes + s->header.at, s->header.len);
	u32 i;

	for (i = 0; i < s->nr; i++)
		pos = emit(out, pos, max, s->bytes + s->records[i].at,
			   s->records[i].len);
	if (s->trailer && max - pos >= TRAILER_LEN) {
		memcpy(out + pos, TRAILER_MAGIC, 8);
		memcpy(out + pos + 8, &s->split, 8);
		pos += TRAILER_LEN;
	}
	return pos;
}

/* --- Making it right again ---------------------------------------------------- */

static void seal(u8 *p, u32 len)
{
	put(p + len - 4, 4, 0);
	put(p + len - 4, 4, fuzz_crc(p, len));
}

static void fix_header(struct stream *s)
{
	u8 *h = s->bytes + s->header.at;
	u32 len = s->header.len;

	if (len < FILE_HDR_LEN)
		return;
	if (len >= FILE_HDR_LEN + 4)
		put(h + len - 4, 4, fuzz_crc(h + 64, len - 68));
	seal(h, FILE_HDR_LEN);
}

static void fix_record(struct stream *s, const struct span *r)
{
	u8 *h = s->bytes + r->at;

	if (r->len < REC_HDR_LEN)
		return;
	/* The length may be meant to be wrong */
	if (right(32))
		put(h + 4, 4, r->len - REC_HDR_LEN);
	if (right(64))
		put(h + 16, 4, fuzz_crc(h + REC_HDR_LEN, r->len - REC_HDR_LEN));
	seal(h, REC_HDR_LEN);
}

/* What END says of the records before it */
static void fix_end(struct stream *s)
{
	u32 i, crc = ~0U;
	struct span *r;

	if (s->header.len < FILE_HDR_LEN)
		return;
	crc = crc32_iscsi(s->bytes + s->header.at + 60, 4, crc);
	for (i = 0; i < s->nr; i++) {
		r = &s->records[i];
		if (r->len < REC_HDR_LEN)
			return;
		if (get(s->bytes + r->at, 2) == 6 && r->len == REC_HDR_LEN + 16) {
			put(s->bytes + r->at + 24, 8, i);
			put(s->bytes + r->at + 32, 4, ~crc);
			fix_record(s, r);
		}
		crc = crc32_iscsi(s->bytes + r->at + 20, 4, crc);
	}
}

static void fix(struct stream *s)
{
	u32 i;

	if (!right(16))
		return;
	if (right(32))
		fix_header(s);
	for (i = 0; i < s->nr; i++)
		if (right(64))
			fix_record(s, &s->records[i]);
	if (right(8))
		fix_end(s);
}

/* --- Bending --------------------------------------------------------------------- */

static bool has_engine(const struct stream *s)
{
	return s->header.len >= 20 && s->bytes[s->header.at + 16] & FEATURE_ENGINE;
}

static u64 memory_size(const struct stream *s)
{
	return s->header.len >= 48 ? get(s->bytes + s->header.at + 40, 8) : 0;
}

/* Offsets and lengths at and beside the limits */
static u64 odd_offset(const struct stream *s)
{
	static const u64 odd[] = {
		0, 1, 512, 4095, 4096, 65536, 1 << 20, 2 << 20, 16 << 20,
		(16 << 20) + 1, ~0U, 1ULL << 32, 1ULL << 63, ~0ULL, ~4095ULL,
	};
	u64 size = memory_size(s);

	switch (roll(6)) {
	case 0:  return odd[roll(ARRAY_SIZE(odd))];
	case 1:  return size - FUZZ_PAGE * roll(18);
	case 2:  return size + FUZZ_PAGE * roll(3);
	case 3:  return size / 2 + roll(3) - 1;
	case 4:  return -FUZZ_PAGE * roll(18);
	default: return size ? fuzz_random(&random_state) % size & ~4095ULL : 0;
	}
}

static void bend_file_header(struct stream *s)
{
	static const u8 fields[][2] = {
		{ 0, 8 }, { 8, 2 }, { 10, 2 }, { 12, 4 }, { 16, 4 }, { 20, 4 },
		{ 24, 2 }, { 26, 2 }, { 28, 4 }, { 32, 4 }, { 36, 4 },
		{ 40, 8 }, { 48, 8 }, { 56, 4 }, { 60, 4 },
	};
	static const u64 sizes[] = { 1 << 20, 8 << 20, 256 << 20, 64ULL << 30 };
	u8 *h = s->bytes + s->header.at;
	const u8 *f = fields[roll(ARRAY_SIZE(fields))];

	if (s->header.len < FILE_HDR_LEN)
		return;
	if (!roll(4))
		put(h + (roll(4) ? 16 : 20), 4, roll(8) ? roll(2) : OTHER_MODEL);
	else if (roll(2))
		put(h + 40, 8, sizes[roll(ARRAY_SIZE(sizes))]);
	else if (roll(2))
		put(h + f[0], f[1], 1ULL << roll(8 * f[1]));
	else
		put(h + f[0], f[1], roll(2) ? roll(4) : odd_offset(s));
}

/* A header of a later minor version, with something behind it */
static void extend_file_header(struct stream *s)
{
	u8 h[FUZZ_PAGE + 8] = {};
	u32 len = FILE_HDR_LEN + (roll(4) ? 4 + roll(40) : roll(FUZZ_PAGE - 56));

	if (s->header.len < FILE_HDR_LEN)
		return;
	memcpy(h, s->bytes + s->header.at, FILE_HDR_LEN);
	if (roll(8))
		put(h + 10, 2, 1 + roll(0xffff));
	put(h + 12, 4, roll(16) ? len : len + 4 - roll(8));
	memset(h + FILE_HDR_LEN, roll(256), len - FILE_HDR_LEN);
	s->header = append(s, h, len);
}

static struct span *some_record(struct stream *s)
{
	return s->nr ? &s->records[roll(s->nr)] : NULL;
}

static void bend_record_header(struct stream *s)
{
	struct span *r = some_record(s);
	u8 *h;

	if (!r || r->len < REC_HDR_LEN)
		return;
	h = s->bytes + r->at;
	switch (roll(6)) {
	case 0:
		put(h, 2, roll(4) ? roll(9) : roll(0x10000));
		break;
	case 1:
		put(h + 2, 2, roll(4) ? roll(4) : 1U << roll(16));
		break;
	case 2:
		put(h + 4, 4, odd_offset(s));
		break;
	default:
		put(h + 8, 8, odd_offset(s));
		break;
	}
}

/* The numbers in payloads */
static void bend_payload_field(struct stream *s)
{
	struct span *r = some_record(s);
	u32 at;

	if (!r || r->len < REC_HDR_LEN + 8)
		return;
	at = r->at + REC_HDR_LEN + 8 * roll(min((r->len - REC_HDR_LEN) / 8, 5U));
	if (roll(2))
		put(s->bytes + at, 8, odd_offset(s));
	else
		s->bytes[at + roll(8)] ^= 1 << roll(8);
}

/* A register or a part of a job, at and beside its limits */
static void bend_engine(struct stream *s)
{
	static const u64 odd[] = {
		0, 1, 2, 3, 7, 8, 9, 15, 16, 17, 0xff, 0x100, 0xfff, 0x1000, 0x10000,
		0x10001, 0x20000, 1ULL << 32, (1ULL << 32) + 4096, ~0U, ~0ULL, -64, -128,
	};
	u32 at = 4 * roll(ENGINE_LEN / 4), n = roll(MAX_RECORDS), i;
	u64 value = roll(4) ? odd[roll(ARRAY_SIZE(odd))] : odd_offset(s);
	struct span *r;

	for (i = 0; i < s->nr; i++) {
		r = &s->records[(n + i) % s->nr];
		if (!is_engine(s->bytes + r->at, r->len))
			continue;
		put(s->bytes + r->at + REC_HDR_LEN + at,
		    at % 8 || roll(2) ? 4 : 8, value);
		return;
	}
}

static void mutate_payload(struct stream *s)
{
	struct span *r = some_record(s), new;
	u32 room;

	if (!r || r->len < REC_HDR_LEN)
		return;
	room = r->len + 64;
	if (sizeof(s->bytes) - s->len < room)
		return;
	new = append(s, s->bytes + r->at, r->len);
	new.len = REC_HDR_LEN +
		LLVMFuzzerMutate(s->bytes + new.at + REC_HDR_LEN,
				 r->len - REC_HDR_LEN, room - REC_HDR_LEN);
	s->len = new.at + new.len;
	*r = new;
}

static void insert(struct stream *s, u32 at, struct span span)
{
	if (s->nr == MAX_RECORDS)
		return;
	memmove(s->records + at + 1, s->records + at,
		(s->nr++ - at) * sizeof(span));
	s->records[at] = span;
}

static void drop(struct stream *s, u32 at)
{
	memmove(s->records + at, s->records + at + 1,
		(--s->nr - at) * sizeof(*s->records));
}

/* Payloads that are good in the right place: their length */
static u32 put_preface(const struct stream *s, u8 *p)
{
	u32 nr_units = (memory_size(s) + (2 << 20) - 1) >> 21;
	u32 len = 24 + (min(nr_units, 1U << 15) + 63) / 64 * 8, i, used = 0;

	for (i = 0; i < nr_units && i < 8 * (len - 24); i++)
		if (!roll(1 + i / 8)) {
			p[24 + i / 8] |= 1 << i % 8;
			used++;
		}
	put(p, 8, (u64)roll(used + 1) << 21);
	put(p + 8, 8, fuzz_random(&random_state));
	put(p + 16, 4, nr_units);
	return len;
}

/* No two pages are alike, unless they are zero. */
static u32 put_data(u8 *p, u64 most)
{
	u32 len = FUZZ_PAGE * min(roll(8) ? 1ULL : 1 + roll(16), most), at;

	memset(p, roll(3), len);
	for (at = 0; at < len && p[0]; at += FUZZ_PAGE)
		put(p + at + 8 * roll(FUZZ_PAGE / 8), 8, fuzz_random(&random_state));
	return len;
}

/* What a record of type DATA or ZERO is about, in pages; none at all otherwise */
static u64 pages_of(const struct stream *s, const struct span *r, u64 *first)
{
	const u8 *h = s->bytes + r->at;
	u64 bytes = 0;

	if (r->len < REC_HDR_LEN + 8)
		return 0;
	if (get(h, 2) == 2)
		bytes = r->len - REC_HDR_LEN;
	else if (get(h, 2) == 3)
		bytes = get(h + REC_HDR_LEN, 8);
	*first = get(h + 8, 8) / FUZZ_PAGE;
	return bytes / FUZZ_PAGE;
}

/*
 * Pages for a record of type DATA or ZERO: anywhere, or those of another record,
 * one more or less at each end. What came last must win, to the last page.
 */
static u64 some_pages(const struct stream *s, u64 *first)
{
	u64 size = memory_size(s) / FUZZ_PAGE ?: 1, end, nr = 0;

	if (s->nr && roll(4))
		nr = pages_of(s, &s->records[roll(s->nr)], first);
	if (!nr || nr > size || *first > size - nr) {
		*first = fuzz_random(&random_state) % size;
		return 1 + fuzz_random(&random_state) % (size - *first + !sound);
	}
	end = min(*first + nr + roll(3) - 1, size);
	*first += min((u64)roll(3), size - *first);
	*first -= !!*first;
	return end > *first ? end - *first : 1;
}

/* A job that can be, on the way to its end */
static void put_job(const struct stream *s, u8 *p)
{
	static const u32 units[] = { 1, 8, 4096 };
	u32 op = 1 + roll(5), len = roll(16), pos = 0, unit = op <= 3 ? units[op - 1] : 8;
	u64 size = memory_size(s);

	if (op > 3)
		len = 0;
	else if (!len)
		len = 1;
	if (len)
		pos = roll(len) * unit;
	put(p, 4, op);
	put(p + 4, 4, roll(8));
	put(p + 8, 8, op == 5 ? roll(8) : roll(2) ? roll(1 << 19) : 0);
	/* At the end of the BAR, or at its beginning */
	put(p + 16, 8, roll(2) ? size - len * unit - (len ? 0 : 8) : 0);
	put(p + 24, 8, len * unit);
	put(p + 32, 8, fuzz_random(&random_state));
	put(p + 40, 8, pos);
}

/* The block of pci-epf-test: idle, at the start of a command, or in its middle */
static void put_epf(u8 *p)
{
	u32 command = roll(2) ? 1U << roll(10) : 0, size = roll(3) * 5000, pos = 0;
	u32 sum = fuzz_random(&random_state);

	if (command >= 8 && command <= 32 && size)
		pos = roll(size);
	if (!pos || command == 32)
		sum = ~0U;
	put(p, 4, fuzz_random(&random_state));
	put(p + 4, 4, command);
	put(p + 8, 4, roll(1 << 18));
	put(p + 12, 4, size);
	put(p + 16, 8, fuzz_random(&random_state));
	put(p + 24, 8, fuzz_random(&random_state));
	put(p + 32, 4, fuzz_random(&random_state));
	put(p + 36, 4, command ? roll(3) : roll(5));
	put(p + 40, 4, roll(10));
	put(p + 44, 4, roll(2));
	put(p + 48, 4, pos);
	put(p + 52, 4, command ? sum : 0);
}

/* An engine that can be: idle, or with a job in some of its queues */
static u32 put_engine(const struct stream *s, u8 *p)
{
	u32 size = 2U << roll(16);

	memset(p, 0, ENGINE_LEN);
	put(p, 4, roll(2));
	put(p + 4, 4, roll(256));
	put(p + 8, 4, roll(1000));
	put(p + 16, 8, fuzz_random(&random_state));
	put(p + 24, 8, roll(2) ? roll(1000) * 64 : -(u64)(1 + size) * 64);
	put(p + 32, 4, size);
	put(p + 36, 4, roll(size));
	put(p + 40, 4, roll(size));
	put(p + 44, 4, roll(9));
	put(p + 48, 4, roll(4096));
	put(p + 52, 4, roll(3));
	put(p + 56, 4, roll(4096));
	put_job(s, p + 64);
	put_job(s, p + 112);
	put(p + 160, 8, roll(2) ? 10 : 0);
	put(p + 168, 8, roll(10));
	put(p + 176, 4, roll(9));
	put(p + 180, 4, roll(4096));
	put(p + 184, 4, roll(2));
	put_epf(p + 192);
	return ENGINE_LEN;
}

/* @pages at @first are what it is about. */
static u32 put_payload(const struct stream *s, u8 *p, u16 type, u64 first, u64 pages)
{
	u64 size = memory_size(s) ?: 1;

	if (type == 7 && has_engine(s))
		return put_engine(s, p);
	if (type == 8) {
		put(p, 8, size * roll(1000));
		return 8;
	}
	switch (type) {
	case 1:
		return put_preface(s, p);
	case 2:
		return put_data(p, sound ? size / FUZZ_PAGE - first : 16);
	case 3:
		put(p, 8, FUZZ_PAGE * pages);
		return 8;
	case 4:
		return 0;
	case 5:
		put(p, 8, fuzz_random(&random_state) % size);
		return 8;
	case 6:
		return 16;
	default:
		return roll(4) ? roll(30) : roll(65536);
	}
}

static struct span make_record(struct stream *s, u16 type)
{
	static u8 record[REC_HDR_LEN + 65536];
	u64 first = 0, pages = 0;
	u32 len;

	memset(record, 0, REC_HDR_LEN + 8192);
	if (type == 2 || type == 3)
		pages = some_pages(s, &first);
	len = put_payload(s, record + REC_HDR_LEN, type, first, pages);
	put(record, 2, type);
	put(record + 2, 2, type >= 1 && type <= 6 + has_engine(s) ? 1 : 2);
	put(record + 8, 8, first * FUZZ_PAGE);
	return append(s, record, REC_HDR_LEN + len);
}

static void insert_record(struct stream *s)
{
	u16 type = roll(4) ? 1 + roll(8) : 7 + roll(0xfff9);

	insert(s, roll(s->nr + 1), make_record(s, type));
}

/* Contents, of which each piece may undo an earlier one */
static void make_contents(struct stream *s)
{
	u32 k;

	for (k = roll(4); k; k--)
		insert(s, s->nr, make_record(s, 2 + roll(2)));
}

/* A stream in order from the beginning to the end */
static void make_stream(struct stream *s)
{
	u32 n;

	s->nr = 0;
	for (n = 1 + roll(3); n; n--) {
		insert(s, s->nr, make_record(s, 1));
		make_contents(s);
		insert(s, s->nr, make_record(s, 4));
		make_contents(s);
		if (has_engine(s) && roll(4))
			insert(s, s->nr, make_record(s, 7));
		if (!roll(3))
			insert(s, s->nr, make_record(s, 8));
	}
	insert(s, s->nr, make_record(s, 5));
	insert(s, s->nr, make_record(s, 6));
}

static void sometimes_make_stream(struct stream *s)
{
	if (!roll(4))
		make_stream(s);
}

static void reorder(struct stream *s)
{
	struct span span;
	u32 a, b;

	if (!s->nr)
		return;
	a = roll(s->nr);
	b = roll(s->nr);
	span = s->records[a];
	switch (roll(3)) {
	case 0:
		s->records[a] = s->records[b];
		s->records[b] = span;
		break;
	case 1:
		insert(s, b, span);
		break;
	default:
		drop(s, a);
	}
}

static void cut_short(struct stream *s)
{
	struct span *r;

	if (!s->nr || roll(4))
		return;
	s->nr = roll(s->nr) + 1;
	r = &s->records[s->nr - 1];
	r->len = roll(r->len + 1);
}

static void cut_otherwise(struct stream *s)
{
	s->trailer = roll(4);
	s->split = fuzz_random(&random_state);
}

/* Some more often than others */
static void (* const bends[])(struct stream *s) = {
	bend_file_header, extend_file_header,
	bend_record_header, bend_record_header, bend_record_header,
	bend_payload_field, bend_payload_field,
	bend_engine, bend_engine,
	mutate_payload, mutate_payload,
	insert_record, insert_record,
	reorder, reorder,
	sometimes_make_stream, cut_short, cut_otherwise,
};

size_t mutator_fresh(const u8 *data, size_t size, u8 *out, size_t max, unsigned int seed)
{
	static struct stream s;

	random_state = seed;
	parse(&s, data, size);
	sound = true;
	make_stream(&s);
	fix(&s);
	sound = false;
	return put_together(&s, out, max);
}

size_t LLVMFuzzerCustomMutator(u8 *data, size_t size, size_t max_size,
			       unsigned int seed)
{
	static struct stream s;
	u32 n;

	random_state = seed;
	if (size > MAX_STREAM || !roll(32))
		return LLVMFuzzerMutate(data, size, max_size);
	parse(&s, data, size);
	for (n = 1 + (roll(2) ? 0 : roll(4)); n; n--)
		bends[roll(ARRAY_SIZE(bends))](&s);
	fix(&s);
	return put_together(&s, data, max_size);
}

size_t LLVMFuzzerCustomCrossOver(const u8 *data1, size_t size1,
				 const u8 *data2, size_t size2, u8 *out,
				 size_t max_out, unsigned int seed)
{
	static struct stream a, b;
	struct span *r;
	u32 n, at;

	random_state = seed;
	if (size1 > MAX_STREAM || size2 > MAX_STREAM)
		return 0;
	parse(&a, data1, size1);
	parse(&b, data2, size2);
	for (n = 1 + roll(4); n && b.nr; n--) {
		r = some_record(&b);
		at = roll(a.nr + 1);
		insert(&a, at, append(&a, b.bytes + r->at, r->len));
	}
	fix(&a);
	return put_together(&a, out, max_out);
}
