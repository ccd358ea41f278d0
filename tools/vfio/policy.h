/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * When to stop the source. Pure functions of what was measured, so that they can
 * be tested alone.
 */
#ifndef VFIO_MIGRATE_POLICY_H
#define VFIO_MIGRATE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

enum goal {
	GOAL_DOWNTIME,		/* wait for the acknowledgment, converge */
	GOAL_TOTAL_TIME,	/* do not wait for what waiting does not shorten */
};

struct policy {
	enum goal	goal;
	uint64_t	max_downtime_ns;
	bool		bound;	/* rather give up than exceed it */
};

#define DEFAULT_DOWNTIME_MS	300

/* A rate that is measured again and again: bytes a second, 0 if not yet */
struct rate {
	double		value;
	uint64_t	bytes;	/* since the last measurement */
	uint64_t	ns;
};

/* @bytes took @ns. */
void rate_add(struct rate *rate, uint64_t bytes, uint64_t ns);

/* How long @bytes take at @rate; NEVER if it was not measured. */
uint64_t rate_time(double rate, uint64_t bytes);

/**
 * struct limit - a bandwidth that is not to be exceeded
 * @rate: bytes a second, 0 for no limit
 * @free_at: time in nanoseconds at which all that was sent fits into @rate
 */
struct limit {
	uint64_t	rate;
	uint64_t	free_at;
};

/* How much to send at once, at most @most: what takes a tenth of a second. */
uint64_t limit_piece(const struct limit *limit, uint64_t most);

/* @bytes were sent at @now: returns when to send more. A pause saves nothing up. */
uint64_t limit_sent(struct limit *limit, uint64_t bytes, uint64_t now);

/**
 * struct outlook - what is known at one moment of pre-copy
 * @initial: initial bytes that have not been sent
 * @acked: the target has written them all, so it has started
 * @answered: the target has said what it knows since it has everything it needs to
 * @startup_known: @startup_ns means something
 * @startup_ns: until the target has started, estimated
 * @pending: bytes that are still in the source
 * @in_flight: bytes that the target has not written yet
 * @data_size: bytes that a whole stream would be long, 0 if unknown
 * @bandwidth: bytes a second
 * @round_trip_ns: there and back; stopping takes two
 * @dirty_rate: bytes a second that become pending anew
 * @stalled: @pending falls no more
 */
struct outlook {
	uint64_t	initial;
	bool		acked;
	bool		answered;
	bool		startup_known;
	uint64_t	startup_ns;
	uint64_t	pending;
	uint64_t	in_flight;
	uint64_t	data_size;
	uint64_t	round_trip_ns;
	double		bandwidth;
	double		dirty_rate;
	bool		stalled;
};

enum verdict {
	VERDICT_GO_ON,
	VERDICT_STOP,		/* stop the source and finish */
	VERDICT_GIVE_UP,	/* the bound will not be kept */
};

/* How long the device would stand still if the source were stopped now. */
uint64_t policy_downtime(const struct outlook *look);

enum verdict policy_decide(const struct policy *policy, const struct outlook *look);

/*
 * Did a device that stands still give so much more than the @announced bytes that
 * it cannot be still? Announcements are estimates, and 0 is none.
 */
bool policy_endless(uint64_t announced, uint64_t sent);

/* Notices that pre-copy does not get anywhere. */
struct progress_watch {
	uint64_t	best;		/* smallest pending so far */
	uint64_t	best_at;	/* when */
	uint64_t	sent_at;	/* bytes sent by then */
};

bool watch_stalled(struct progress_watch *watch, uint64_t pending, uint64_t sent,
		   uint64_t now);

#endif /* VFIO_MIGRATE_POLICY_H */
