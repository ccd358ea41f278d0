/* SPDX-License-Identifier: GPL-2.0-only */
/* The inside of a saving session: for mig/save.c and mig/save_stream.c only. */
#ifndef PRECOPY_SAVING_H
#define PRECOPY_SAVING_H

#include <linux/ktime.h>
#include <linux/types.h>

#include "section.h"
#include "session.h"
#include "stream.h"

#define PRECOPY_SAVE_BUF	PRECOPY_INITIAL_ROOM

/**
 * enum precopy_save_phase - what read() produces next
 * @PRECOPY_SAVE_HEADER: the file header
 * @PRECOPY_SAVE_PREFACE: PREFACE
 * @PRECOPY_SAVE_INITIAL: initial data of the sections, then INITIAL_END
 * @PRECOPY_SAVE_LIVE: dirty data; when stopped and there is none, the sections'
 *		       tails, then STATE
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
 *
 * @session: common part of all sessions
 * @parts: the sections of the device, in the order of the stream, and NULL;
 *	   constant
 *
 * @enc: the encoder. From here on owned by whoever has the session busy.
 * @buf: next bytes of the stream, PRECOPY_SAVE_BUF bytes of room
 * @nr_read: bytes read so far
 *
 * @preface: contents of PREFACE. From here on written with memory.sem held for
 *	     write and state_lock held; either lock, or the busy session, is
 *	     enough to read them.
 * @startup_ns: startup time of the target that PREFACE states, ns
 * @measured: true if @startup_ns is based on startups measured on this device
 *
 * @phase: what read() produces next. From here on protected by state_lock.
 * @pos: bytes of @buf read already
 * @len: bytes in @buf
 * @buf_initial: true if the bytes in @buf count as initial data
 * @preface_left: bytes up to the end of PREFACE that are not read yet
 * @preface_read: time when the last of them was read
 * @reinit: true while the initial data is not the first of the session
 * @stopped: true if the device is in STOP_COPY
 */
struct precopy_saving {
	struct precopy_session		session;
	struct precopy_save_part	*parts[PRECOPY_MAX_SECTIONS + 1];

	/* Owned by whoever has the session busy */
	struct precopy_encoder		enc;
	void				*buf;
	u64				nr_read;

	/* Written with memory.sem (write) and state_lock held */
	struct precopy_save_preface	preface;
	u64				startup_ns;
	bool				measured;

	/* Protected by state_lock */
	enum precopy_save_phase		phase;
	size_t				pos;
	size_t				len;
	bool				buf_initial;
	u64				preface_left;
	ktime_t				preface_read;
	bool				reinit;
	bool				stopped;
};

int precopy_save_fill(struct precopy_saving *saving);

#endif /* PRECOPY_SAVING_H */
