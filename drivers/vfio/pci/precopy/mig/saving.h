/* SPDX-License-Identifier: GPL-2.0-only */
/* What is inside a saving session: for mig/save.c and mig/save_stream.c only. */
#ifndef PRECOPY_SAVING_H
#define PRECOPY_SAVING_H

#include <linux/ktime.h>
#include <linux/types.h>
#include <linux/wait.h>

#include "mem/memory.h"
#include "session.h"
#include "stream.h"

#define PRECOPY_MAX_RUN		(PRECOPY_MAX_DATA / PAGE_SIZE)
#define PRECOPY_SAVE_BUF	(PRECOPY_REC_HDR_LEN + PRECOPY_MAX_DATA)
/* A dirty page has a record of its own: what is left is known without a scan */
#define PRECOPY_DIRTY_COST	(PRECOPY_REC_HDR_LEN + PAGE_SIZE)

/**
 * enum precopy_save_phase - what read() produces next
 * @PRECOPY_SAVE_HEADER: the file header
 * @PRECOPY_SAVE_PREFACE: PREFACE
 * @PRECOPY_SAVE_INITIAL: pages of the initial set, then INITIAL_END
 * @PRECOPY_SAVE_LIVE: dirty pages; when stopped and there are none, STATE
 * @PRECOPY_SAVE_END: END
 * @PRECOPY_SAVE_DONE: nothing any more
 */
enum precopy_save_phase {
	PRECOPY_SAVE_HEADER,
	PRECOPY_SAVE_PREFACE,
	PRECOPY_SAVE_INITIAL,
	PRECOPY_SAVE_LIVE,
	PRECOPY_SAVE_END,
	PRECOPY_SAVE_DONE,
};

/**
 * struct precopy_saving - a saving session
 * @session: what all sessions have
 * @wait: pollers; woken by the first dirty page, by STOP_COPY and by the end
 * @tracker: the pages still to be sent and not taken yet
 * @enc: the encoder. From here to @nr_units owned by who has the session busy.
 * @buf: the stream's next bytes, PRECOPY_SAVE_BUF bytes of room
 * @unit: that @pages are of, and where to look for more
 * @pages: pages taken and not sent yet
 * @zero_next: the last DATA record ended because the first of @pages was zero;
 *	       so it is sent as zero
 * @unit_cost: bytes by which @initial_left still speaks for @pages and what
 *	       was sent of @unit
 * @in_use: units in use when the session began
 * @bytes_in_use: bytes in use when the session, or its last initial part, began
 * @nr_units: units in the BAR
 * @nr_read: bytes read so far
 * @phase: what comes next. From here on protected by state_lock.
 * @pos: bytes of @buf read already
 * @len: bytes in @buf
 * @initial_left: bytes up to and with INITIAL_END that are not read yet;
 *		  never too low
 * @taken: dirty pages in @pages
 * @tail_left: bytes that only STOP_COPY sends and that are not in @buf yet
 * @preface_left: bytes up to the end of PREFACE that are not read yet
 * @preface_read: when the last of them was
 * @startup_ns: what PREFACE says of the target's startup
 * @measured: and that comes from startups that this host has seen
 * @reinit: the initial part that is under way is not the first
 * @restarting: and it is being counted, while there may be pages in the dirty
 *		set that are counted in it
 * @stopped: the device is in STOP_COPY
 */
struct precopy_saving {
	struct precopy_session	session;
	wait_queue_head_t	wait;
	struct precopy_tracker	*tracker;

	struct precopy_encoder	enc;
	void			*buf;
	unsigned long		unit;
	DECLARE_BITMAP(pages, PRECOPY_UNIT_PAGES);
	bool			zero_next;
	u64			unit_cost;
	unsigned long		*in_use;
	u64			bytes_in_use;
	u32			nr_units;
	u64			nr_read;

	enum precopy_save_phase	phase;
	size_t			pos;
	size_t			len;
	u64			initial_left;
	u64			taken;
	u64			tail_left;
	u64			preface_left;
	ktime_t			preface_read;
	u64			startup_ns;
	bool			measured;
	bool			reinit;
	bool			restarting;
	bool			stopped;
};

u64 precopy_save_initial_cost(const unsigned long *pages);
int precopy_save_fill(struct precopy_saving *saving);

#endif /* PRECOPY_SAVING_H */
