// SPDX-License-Identifier: GPL-2.0-only
/*
 * A second reader of the stream, from its specification, for a stream that is
 * there as a whole. It shares nothing with stream.c: not its structures, nor its
 * order of checks. Where a stream is wrong in several ways at the same place, any
 * of the errors will do.
 */
#include "fuzz.h"

#define MAX_MEMORY	(64ULL << 30)
#define UNIT		(2ULL << 20)

enum { PREFACE = 1, DATA, ZERO, INITIAL_END, STATE, END, ENGINE, WINDOW };

struct reference {
	const struct fuzz_device *dev;
	const u8 *data;
	u64 len;
	u64 pos;
	u64 nr_records;
	u32 chain;		/* as fuzz_crc() would have it so far */
	u32 prefaces, initial_ends, states;
	struct outcome *out;
};

struct record {
	u16 type, flags;
	u32 length;
	u64 offset;
	u32 payload_crc, header_crc;
	const u8 *payload;
};

static u64 le(const u8 *p, int bytes)
{
	u64 v = 0;

	while (bytes--)
		v = v << 8 | p[bytes];
	return v;
}

/* Of @len bytes with the checksum itself, the last four, as zeroes */
static bool header_sound(const u8 *p, size_t len)
{
	u8 copy[FILE_HDR_LEN];

	memcpy(copy, p, len);
	memset(copy + len - 4, 0, 4);
	return fuzz_crc(copy, len) == le(p + len - 4, 4);
}

static void chain_add(struct reference *ref, const u8 *crc)
{
	ref->chain = ~crc32_iscsi((unsigned char *)crc, 4, ~ref->chain);
}

/* @used: with the piece that is to blame */
static bool refuse(struct reference *ref, u64 used, u32 how)
{
	ref->out->used = used;
	ref->out->refused = how;
	return false;
}

/* All that is there was taken, and nothing follows from the last piece yet */
static bool starve(struct reference *ref)
{
	ref->out->used = ref->len;
	return false;
}

static bool tell(struct reference *ref, struct event event, u32 kind)
{
	event.kind = kind;
	event.end = ref->pos;
	outcome_add(ref->out, &event);
	return true;
}

/* --- The file header -------------------------------------------------------- */

static u32 header_faults(const struct reference *ref, const u8 *h)
{
	static const u8 zero[12];
	const struct fuzz_device *dev = ref->dev;
	u64 size = le(h + 40, 8), length = le(h + 12, 4);
	u32 minor = dev->v1_0 ? 0 : 1, faults = 0;

	if (le(h + 16, 4) & ~(dev->v1_0 ? 0ULL : FEATURE_ENGINE))
		faults |= REFUSED_NOTSUPP;
	else if (le(h + 16, 4) != dev->features)
		faults |= REFUSED_INVAL;
	if (memcmp(h + 48, zero, 12))
		faults |= REFUSED_INVAL;
	if (length != 64 && (le(h + 10, 2) <= minor || length < 68 || length > 4096))
		faults |= REFUSED_INVAL;
	if (le(h + 24, 2) != dev->vendor || le(h + 26, 2) != dev->device ||
	    le(h + 28, 4) != dev->backend || le(h + 32, 4) != 4096 ||
	    le(h + 36, 4) != UNIT || size != dev->memory_size)
		faults |= REFUSED_INVAL;
	if (!size || size > MAX_MEMORY || size % 4096)
		faults |= REFUSED_INVAL;
	return faults;
}

static bool read_header(struct reference *ref)
{
	const u8 *h = ref->data;
	u64 length;
	u32 faults;

	if (ref->len < FILE_HDR_LEN)
		return starve(ref);
	if (memcmp(h, "VFIOPREC", 8))
		return refuse(ref, FILE_HDR_LEN, REFUSED_INVAL);
	if (le(h + 8, 2) != 1)
		return refuse(ref, FILE_HDR_LEN, REFUSED_NOTSUPP);
	if (!header_sound(h, FILE_HDR_LEN))
		return refuse(ref, FILE_HDR_LEN, REFUSED_INVAL);
	faults = header_faults(ref, h);
	if (faults)
		return refuse(ref, FILE_HDR_LEN, faults);
	length = le(h + 12, 4);
	if (ref->len < length)
		return starve(ref);
	if (length > 64 && fuzz_crc(h + 64, length - 68) != le(h + length - 4, 4))
		return refuse(ref, length, REFUSED_INVAL);
	chain_add(ref, h + 60);
	ref->pos = length;
	return tell(ref, (struct event){}, EV_HEADER);
}

/* --- Records ---------------------------------------------------------------- */

static u64 nr_units(const struct reference *ref)
{
	return (ref->dev->memory_size + UNIT - 1) / UNIT;
}

static bool within(const struct reference *ref, u64 offset, u64 len)
{
	return len && offset % 4096 == 0 && len % 4096 == 0 &&
	       offset <= ref->dev->memory_size &&
	       len <= ref->dev->memory_size - offset;
}

static u64 length_of(const struct reference *ref, u16 type)
{
	static const u8 lengths[] = { [ZERO] = 8, [STATE] = 8, [END] = 16 };

	if (type == PREFACE)
		return 24 + (nr_units(ref) + 63) / 64 * 8;
	return type == INITIAL_END ? 0 : lengths[type];
}

/* From the counts of what came before */
static bool in_order(const struct reference *ref, u16 type)
{
	bool initial = ref->prefaces > ref->initial_ends;
	bool between = ref->prefaces == ref->initial_ends && !ref->states;

	switch (type) {
	case PREFACE:
		return between;
	case DATA:
	case ZERO:
		return initial || (between && ref->prefaces);
	case INITIAL_END:
		return initial;
	case STATE:
	case ENGINE:
	case WINDOW:
		return between && ref->prefaces;
	default:
		return ref->states;
	}
}

static bool known(const struct reference *ref, u16 type)
{
	return (type >= PREFACE && type <= END) ||
	       (type == ENGINE && ref->dev->features & FEATURE_ENGINE) ||
	       (type == WINDOW && !ref->dev->v1_0);
}

static u32 known_faults(const struct reference *ref, const struct record *r)
{
	bool good = r->flags == (r->type == WINDOW ? 2 : 1) && in_order(ref, r->type);

	/* All else of ENGINE and WINDOW is contents */
	if (r->type == ENGINE)
		return good && r->length <= ENGINE_LEN ? 0 : REFUSED_INVAL;
	if (r->type == WINDOW)
		return good && r->length <= WINDOW_LEN ? 0 : REFUSED_INVAL;
	if (r->type == DATA)
		good &= r->length <= 65536 && within(ref, r->offset, r->length);
	else
		good &= r->length == length_of(ref, r->type);
	if (r->type == ZERO)
		good &= within(ref, r->offset, 4096);
	else if (r->type != DATA)
		good &= !r->offset;
	return good ? 0 : REFUSED_INVAL;
}

static u32 unknown_faults(const struct record *r)
{
	u32 faults = 0;

	if (!r->type || (r->flags != 1 && r->flags != 2))
		faults |= REFUSED_INVAL;
	if (r->type && r->flags == 1)
		faults |= REFUSED_NOTSUPP;
	if (r->length > 16 << 20)
		faults |= REFUSED_INVAL;
	return faults;
}

static bool preface_good(const struct reference *ref, const struct record *r)
{
	u64 in_use = le(r->payload, 8), set = 0, i;

	for (i = 0; i < (r->length - 24) * 8; i++) {
		if (!(r->payload[24 + i / 8] >> (i % 8) & 1))
			continue;
		if (i >= nr_units(ref))
			return false;
		set++;
	}
	return le(r->payload + 16, 4) == nr_units(ref) &&
	       !le(r->payload + 20, 4) && in_use <= ref->dev->memory_size &&
	       in_use <= set * UNIT;
}

/* --- ENGINE ------------------------------------------------------------------- */

/* @len bytes, not 0, are in the BAR, or anywhere in the memory of the guest */
static bool reachable(const struct reference *ref, bool bar, u64 start, u64 len)
{
	u64 last = bar ? ref->dev->memory_size - 1 : ~0ULL;

	return start <= last && len - 1 <= last - start;
}

static bool job_good(const struct reference *ref, const u8 *p)
{
	u64 op = le(p, 4), flags = le(p + 4, 4), src = le(p + 8, 8),
	    dst = le(p + 16, 8), len = le(p + 24, 8), pos = le(p + 40, 8);
	static const u64 units[] = { 0, 1, 8, 4096 };

	if (flags > 7)
		return false;
	switch (op) {
	case 1:
	case 2:
	case 3:
		return len && len <= 1ULL << 32 && pos < len &&
		       !(dst % units[op] || len % units[op] || pos % units[op]) &&
		       reachable(ref, flags & 2, dst, len) &&
		       (op != 1 || reachable(ref, flags & 1, src, len));
	case 4:
		return !len && !pos && dst % 8 == 0 && reachable(ref, flags & 2, dst, 8);
	case 5:
		return !len && !pos && src < 8;
	default:
		return false;
	}
}

static bool ring_good(const struct reference *ref, const u8 *p)
{
	u64 base = le(p + 24, 8), size = le(p + 32, 4);

	return size >= 2 && size <= 65536 && !(size & (size - 1)) &&
	       base % 64 == 0 && base <= ~0ULL - 64 * size &&
	       le(p + 36, 4) < size && le(p + 40, 4) < size &&
	       (le(p + 52, 4) != 1 || job_good(ref, p + 64));
}

/* The block of pci-epf-test: nothing, or one command on its way */
static bool epf_good(const u8 *p)
{
	u64 command = le(p + 4, 4), size = le(p + 12, 4), type = le(p + 36, 4),
	    pos = le(p + 48, 4), sum = le(p + 52, 4);
	bool data = command == 8 || command == 16 || command == 32;

	if (!command)
		return !pos && !sum;
	if (command > 512 || command & (command - 1) || type > 2)
		return false;
	if (pos && (!data || pos >= size))
		return false;
	return sum == ~0U || (pos && command != 32);
}

static bool engine_good(const struct reference *ref, const struct record *r)
{
	const u8 *p = r->payload;

	if (r->length != ENGINE_LEN || r->offset)
		return false;
	if (le(p, 4) > 1 || le(p + 4, 4) > 0xff || le(p + 48, 4) > 4095 ||
	    le(p + 52, 4) > 2 || le(p + 56, 4) > 4095 || le(p + 180, 4) > 4095 ||
	    le(p + 184, 4) > 1 || le(p + 12, 4) || le(p + 60, 4) || le(p + 188, 4))
		return false;
	/* Executed so often already as it is to be */
	if (le(p + 184, 4) && le(p + 160, 8) && le(p + 168, 8) >= le(p + 160, 8))
		return false;
	return (!le(p + 184, 4) || job_good(ref, p + 112)) &&
	       (!le(p, 4) || ring_good(ref, p)) && epf_good(p + 192);
}

static bool payload_good(const struct reference *ref, const struct record *r)
{
	const u8 *p = r->payload;

	switch (r->type) {
	case PREFACE:
		return preface_good(ref, r);
	case ZERO:
		return within(ref, r->offset, le(p, 8));
	case STATE:
		return le(p, 8) <= ref->dev->memory_size;
	case END:
		return le(p, 8) == ref->nr_records &&
		       le(p + 8, 4) == ref->chain && !le(p + 12, 4);
	case ENGINE:
		return engine_good(ref, r);
	case WINDOW:
		return r->length == WINDOW_LEN && !r->offset &&
		       !(le(p, 8) & (ref->dev->memory_size - 1));
	default:
		return true;
	}
}

static u32 kind_of(const struct reference *ref, u16 type)
{
	if (!known(ref, type))
		return EV_SKIPPED;
	return type >= ENGINE ? EV_SECTION : type - PREFACE + EV_PREFACE;
}

static void take_in(struct reference *ref, const struct record *r)
{
	struct event ev = {};

	switch (known(ref, r->type) ? r->type : 0) {
	case PREFACE:
		ref->prefaces++;
		ev.in_use = le(r->payload, 8);
		ev.startup_ns = le(r->payload + 8, 8);
		ev.crc = fuzz_crc(r->payload + 24, r->length - 24);
		break;
	case DATA:
		ev.offset = r->offset;
		ev.nr_bytes = r->length;
		ev.crc = fuzz_crc(r->payload, r->length);
		pages_store(&ref->out->memory, ev.offset, r->payload, r->length);
		break;
	case ZERO:
		ev.offset = r->offset;
		ev.nr_bytes = le(r->payload, 8);
		pages_zero(&ref->out->memory, ev.offset, ev.nr_bytes);
		break;
	case INITIAL_END:
		ref->initial_ends++;
		break;
	case STATE:
		ref->states++;
		ev.in_use = le(r->payload, 8);
		break;
	case END:
		ref->out->complete = true;
		break;
	case ENGINE:
		ev.nr_bytes = r->length;
		ev.crc = fuzz_crc(r->payload, r->length);
		memcpy(ref->out->engine, r->payload, r->length);
		ref->out->has_engine = true;
		break;
	case WINDOW:
		ev.nr_bytes = r->length;
		ev.crc = fuzz_crc(r->payload, r->length);
		ref->out->window = le(r->payload, 8);
		break;
	}
	tell(ref, ev, kind_of(ref, r->type));
}

static bool read_record(struct reference *ref)
{
	const u8 *h = ref->data + ref->pos;
	u64 left = ref->len - ref->pos;
	struct record r;
	u32 faults;

	if (left < REC_HDR_LEN)
		return starve(ref);
	if (!header_sound(h, REC_HDR_LEN))
		return refuse(ref, ref->pos + REC_HDR_LEN, REFUSED_INVAL);
	r = (struct record){
		.type = le(h, 2), .flags = le(h + 2, 2), .length = le(h + 4, 4),
		.offset = le(h + 8, 8), .payload_crc = le(h + 16, 4),
		.payload = h + REC_HDR_LEN,
	};
	ref->out->saw_window |= r.type == WINDOW;
	faults = known(ref, r.type) ? known_faults(ref, &r) : unknown_faults(&r);
	if (faults)
		return refuse(ref, ref->pos + REC_HDR_LEN, faults);
	if (left - REC_HDR_LEN < r.length)
		return starve(ref);
	ref->pos += REC_HDR_LEN + r.length;
	if (fuzz_crc(r.payload, r.length) != r.payload_crc ||
	    (known(ref, r.type) && !payload_good(ref, &r)))
		return refuse(ref, ref->pos, REFUSED_INVAL);
	take_in(ref, &r);
	chain_add(ref, h + 20);
	ref->nr_records++;
	return true;
}

void reference_decode(const struct fuzz_device *dev, const u8 *data, size_t len,
		      struct outcome *out)
{
	struct reference ref = {
		.dev = dev, .data = data, .len = len, .out = out,
	};
	bool more = read_header(&ref);

	while (more && ref.pos < len && !out->complete)
		more = read_record(&ref);
	if (!more)
		return;
	out->used = ref.pos;
	/* What comes after the end is refused before it is taken */
	if (ref.pos < len) {
		out->refused = REFUSED_INVAL;
		out->complete = false;
	}
}
