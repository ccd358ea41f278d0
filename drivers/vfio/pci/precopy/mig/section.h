/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Sections of the stream: what a device migrates, one section for each kind of
 * contents. The state machine and the data fds know sections and not what is in
 * them; a section knows neither files nor states. struct precopy_model lists the
 * sections of a device.
 *
 * The data fds make the file header, PREFACE, INITIAL_END, STATE and END. All
 * other records are made and loaded by a section.
 */
#ifndef PRECOPY_SECTION_H
#define PRECOPY_SECTION_H

#include <linux/types.h>

#include "stream.h"

struct precopy_device;
struct precopy_save_part;
struct precopy_session;
struct precopy_startup;
struct precopy_startup_part;

/* Sections that a model may have */
#define PRECOPY_MAX_SECTIONS	4

/* Room that every record of a section may rely on, bytes; initial data has more */
#define PRECOPY_SECTION_ROOM	(PRECOPY_REC_HDR_LEN + PRECOPY_STREAM_PAGE_SIZE)
/* Room for a record of initial data, bytes */
#define PRECOPY_INITIAL_ROOM	(PRECOPY_REC_HDR_LEN + PRECOPY_MAX_DATA)

/**
 * enum precopy_save_stage - part of the stream that a record is made for
 * @PRECOPY_STAGE_INITIAL: from PREFACE to INITIAL_END
 * @PRECOPY_STAGE_DIRTY: after INITIAL_END, whether or not the device has stopped
 * @PRECOPY_STAGE_TAIL: after the last dirty data of a device that has stopped
 */
enum precopy_save_stage {
	PRECOPY_STAGE_INITIAL,
	PRECOPY_STAGE_DIRTY,
	PRECOPY_STAGE_TAIL,
};

/**
 * struct precopy_save_request - request for one record
 * @stage: part of the stream that the record is for
 * @stopped: true if the device had stopped before the request
 * @buf: place of the record
 * @room: bytes of room at @buf, at least PRECOPY_SECTION_ROOM; for initial data
 *	  PRECOPY_INITIAL_ROOM
 */
struct precopy_save_request {
	enum precopy_save_stage	stage;
	bool			stopped;
	void			*buf;
	size_t			room;
};

/**
 * struct precopy_save_left - bytes of the stream that were not made yet
 * @initial: bytes of initial data, with record headers; never too low
 * @dirty: bytes of data that can be sent while the device runs
 * @tail: bytes that only a device that has stopped sends
 */
struct precopy_save_left {
	u64	initial;
	u64	dirty;
	u64	tail;
};

/**
 * struct precopy_save_preface - contents of PREFACE, summed over the sections
 * @bytes_in_use: memory that the target has to prepare, bytes
 * @units: bitmap of the units that it consists of
 * @nr_units: bits in @units
 */
struct precopy_save_preface {
	u64		bytes_in_use;
	unsigned long	*units;
	u32		nr_units;
};

/**
 * struct precopy_save_ops - the saving side of a section
 * @alloc: allocate the section's part of a session. @enc is the encoder that
 *	   @save uses; @stopped is true if the device does not run during the
 *	   session. Returns NULL if there is no memory.
 * @free: free a part. Nothing uses it any more. The session may have ended by
 *	  @end, by a reset, or without @begin.
 * @prepare: allocate what @begin needs. No lock held; returns 0 or an error.
 * @prepared: true if @begin has all that it needs; if not, @prepare is called
 *	      again. memory.sem held for write.
 * @begin: fix the initial data, begin to track changes, add to @preface. Called
 *	   once, and after each @restart. memory.sem held for write.
 * @restart: all contents become initial data again. @left must not be too low
 *	     from now on; @begin follows in the same section of memory.sem, which
 *	     is held for write. state_lock held.
 * @end: stop tracking changes. Not called after a reset, which is to do the same.
 *	 memory.sem held for write.
 * @left: fill in @left, which is zeroed. state_lock held.
 * @save: make one record. Returns its length, 0 if the part has none for this
 *	  stage, or an error. The session is busy with the caller, no lock held.
 * @saved: a record of @save becomes part of the stream: count its @len bytes no
 *	   more. state_lock held.
 * @in_use: add to @bytes the memory in use at the end, for STATE; returns 0, or
 *	    -ENODEV if the session is over. memory.sem held.
 * @estimate: bytes that the section would send if a session began now. No lock
 *	      held.
 *
 * @prepare, @prepared, @restart, @end and @in_use may be NULL, which means that
 * there is nothing to do.
 */
struct precopy_save_ops {
	struct precopy_save_part *(*alloc)(struct precopy_session *session,
					   struct precopy_encoder *enc,
					   bool stopped);
	void	(*free)(struct precopy_save_part *part);
	int	(*prepare)(struct precopy_save_part *part);
	bool	(*prepared)(struct precopy_save_part *part);
	void	(*begin)(struct precopy_save_part *part,
			 struct precopy_save_preface *preface);
	void	(*restart)(struct precopy_save_part *part);
	void	(*end)(struct precopy_save_part *part);
	void	(*left)(const struct precopy_save_part *part,
			struct precopy_save_left *left);
	ssize_t	(*save)(struct precopy_save_part *part,
			const struct precopy_save_request *request);
	void	(*saved)(struct precopy_save_part *part, size_t len);
	int	(*in_use)(struct precopy_save_part *part, u64 *bytes);
	u64	(*estimate)(struct precopy_device *pcd, bool stopped);
};

/**
 * struct precopy_save_part - a section in one saving session
 * @ops: the section's operations
 * @session: the session; valid as long as the part
 * @enc: the encoder; used only while the session is busy with the caller
 *
 * The section's own data is around it.
 */
struct precopy_save_part {
	const struct precopy_save_ops	*ops;
	struct precopy_session		*session;
	struct precopy_encoder		*enc;
};

/**
 * struct precopy_startup_ops - what a section prepares in the startup of a target
 * @alloc: allocate the section's part of a startup. Returns NULL if there is no
 *	   memory.
 * @free: free a part. The startup is not running.
 * @begin: PREFACE has arrived: note what it names, add to @bytes what is to be
 *	   prepared. Returns 0, or an error, which fails the load. The startup is
 *	   not running, the session is busy with the caller, no lock held.
 * @wait: accesses to the contents wait from now on. memory.sem held for write.
 * @prepare: prepare one piece that nobody prepares yet. Returns its bytes, 0 if
 *	     there is none, or an error, which fails the startup. Several workers
 *	     call it at a time, no lock held.
 * @stop: find no more pieces, since the startup has failed. No lock held.
 * @ready: the startup is complete: let accesses go. memory.sem held for write.
 * @fail: the startup has failed: give up the contents, and fail accesses.
 *	  memory.sem held for write.
 *
 * @begin and @prepare are to compare the session's generation in the section of a
 * lock in which they change the device. For the others it was compared in the same
 * section of memory.sem.
 */
struct precopy_startup_ops {
	struct precopy_startup_part *(*alloc)(struct precopy_startup *startup);
	void	(*free)(struct precopy_startup_part *part);
	int	(*begin)(struct precopy_startup_part *part,
			 const struct precopy_decoder *dec, u64 *bytes);
	void	(*wait)(struct precopy_startup_part *part);
	int	(*prepare)(struct precopy_startup_part *part);
	void	(*stop)(struct precopy_startup_part *part);
	void	(*ready)(struct precopy_startup_part *part);
	void	(*fail)(struct precopy_startup_part *part);
};

/**
 * struct precopy_startup_part - a section in one startup
 * @ops: the section's operations
 * @startup: the startup; valid as long as the part
 *
 * The section's own data is around it.
 */
struct precopy_startup_part {
	const struct precopy_startup_ops	*ops;
	struct precopy_startup			*startup;
};

/**
 * struct precopy_load_ops - the loading side of a section
 * @begin: drop the present contents, even if no byte is ever loaded. memory.sem
 *	   held for write.
 * @load: a record of the section has arrived: DATA or ZERO for the section with
 *	  no @records, else one of these. @part is the section's part of the
 *	  startup, or NULL. Returns 0 or an error.
 * @fail: the load has failed. The contents must not be used before the next
 *	  reset. memory.sem held for write.
 * @commit: the load is complete. memory.sem held for write, and state_lock.
 *
 * @load is called with the session busy and no lock held. It is to compare the
 * session's generation in the section of a lock in which it changes the device.
 * All but @load may be NULL.
 */
struct precopy_load_ops {
	void	(*begin)(struct precopy_session *session);
	int	(*load)(struct precopy_session *session,
			struct precopy_startup_part *part,
			enum precopy_stream_event event,
			const struct precopy_decoder *dec);
	void	(*fail)(struct precopy_session *session);
	void	(*commit)(struct precopy_session *session);
};

/**
 * struct precopy_section - a section of the stream
 * @name: name, for messages and tests
 * @save: operations of the source
 * @load: operations of the target
 * @startup: operations of the target's startup, or NULL if the section has nothing
 *	     to prepare
 * @record: the type of record that is the section's own, or NULL for the section
 *	    that DATA and ZERO belong to
 */
struct precopy_section {
	const char				*name;
	const struct precopy_save_ops		*save;
	const struct precopy_load_ops		*load;
	const struct precopy_startup_ops	*startup;
	const struct precopy_section_record	*record;
};

/* mig/memory_save.c, mig/memory_load.c, mig/memory_startup.c */
extern const struct precopy_save_ops precopy_memory_save_ops;
extern const struct precopy_load_ops precopy_memory_load_ops;
extern const struct precopy_startup_ops precopy_memory_startup_ops;

#endif /* PRECOPY_SECTION_H */
