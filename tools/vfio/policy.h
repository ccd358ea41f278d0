/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The decision when to stop the source. These are pure functions of measured values,
 * so that they can be tested without a device.
 */
#ifndef VFIO_MIGRATE_POLICY_H
#define VFIO_MIGRATE_POLICY_H

#include <stdbool.h>
#include <stdint.h>

enum goal {
	GOAL_DOWNTIME,		/* wait for the acknowledgment, then converge */
	GOAL_TOTAL_TIME,	/* stop when waiting would prolong the migration */
};

struct policy {
	enum goal	goal;
	uint64_t	max_downtime_ns;
	bool		bound;	/* give up instead of exceeding max_downtime_ns */
};

#define DEFAULT_DOWNTIME_MS	300

/* A rate that is measured repeatedly: value in bytes per second, 0 before the first */
struct rate {
	double		value;
	uint64_t	bytes;	/* since the last measurement */
	uint64_t	ns;
};

/* Add a measurement: @bytes took @ns. */
void rate_add(struct rate *rate, uint64_t bytes, uint64_t ns);

/* Time in ns that @bytes take at @rate; NEVER if the rate is not measured yet. */
uint64_t rate_time(double rate, uint64_t bytes);

/**
 * struct limit - bandwidth that must not be exceeded
 * @rate: limit in bytes per second, 0 for no limit
 * @free_at: time in ns at which all sent data fits @rate
 */
struct limit {
	uint64_t	rate;
	uint64_t	free_at;
};

/* Number of bytes to send at once: what takes 100 ms at the limit, at most @most. */
uint64_t limit_piece(const struct limit *limit, uint64_t most);

/*
 * Record that @bytes were sent at @now, and return the time at which to send more. Unused
 * bandwidth does not accumulate.
 */
uint64_t limit_sent(struct limit *limit, uint64_t bytes, uint64_t now);

/**
 * struct outlook - state of a migration at one moment of pre-copy
 * @initial: number of initial bytes that have not been sent
 * @acked: true if the target has written all initial bytes, so it has started
 * @answered: true if the target has reported its progress since all initial
 *	bytes were sent
 * @startup_known: true if @startup_ns is valid
 * @startup_ns: estimated time in ns until the target has started
 * @pending: number of bytes that remain in the source
 * @in_flight: number of bytes that were sent and not yet written by the target
 * @data_size: estimated size in bytes of a complete stream, 0 if unknown
 * @bandwidth: measured bandwidth in bytes per second
 * @round_trip_ns: round-trip time in ns; stopping takes two of them
 * @dirty_rate: rate in bytes per second at which data becomes dirty
 * @stalled: true if @pending does not decrease any more
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
	VERDICT_GIVE_UP,	/* the maximum downtime cannot be met */
};

/* Expected downtime in ns if the source were stopped now. */
uint64_t policy_downtime(const struct outlook *look);

enum verdict policy_decide(const struct policy *policy, const struct outlook *look);

/*
 * Return true if a stopped device has produced so much more than the @announced bytes
 * that its data must still be changing. The announcement is an estimate; 0 is none.
 */
bool policy_endless(uint64_t announced, uint64_t sent);

/* State for detecting that pre-copy makes no progress */
struct progress_watch {
	uint64_t	best;		/* smallest number of pending bytes so far */
	uint64_t	best_at;	/* time of that */
	uint64_t	sent_at;	/* bytes sent before that */
};

bool watch_stalled(struct progress_watch *watch, uint64_t pending, uint64_t sent,
		   uint64_t now);

#endif /* VFIO_MIGRATE_POLICY_H */
