// SPDX-License-Identifier: GPL-2.0-only
/* When to stop the source: see policy.h. */
#include "policy.h"
#include "util.h"

/* Shortest time for which a rate is computed */
#define RATE_WINDOW_NS	(50 * NS_PER_MS)
/* Weight of the latest measurement */
#define RATE_WEIGHT	0.4
/* Time for state changes and queries, independent of the amount of data */
#define SWITCH_NS	NS_PER_MS
/*
 * With the goal total-time, do not stop the source earlier than this before the target is
 * ready
 */
#define LEAD_NS		(100 * NS_PER_MS)
#define LOSS_NS		(10 * NS_PER_MS)
/*
 * Pre-copy makes progress if the pending data decreases by a tenth in this time, or in this
 * number of passes
 */
#define STALL_NS	NS_PER_S
#define STALL_PASSES	3
/* Amount of data above four times the announced amount that is still plausible */
#define ENDLESS_SLACK	(32 * MIB)

void rate_add(struct rate *rate, uint64_t bytes, uint64_t ns)
{
	double now;

	rate->bytes += bytes;
	rate->ns += ns;
	if (rate->ns < RATE_WINDOW_NS)
		return;
	now = rate->bytes * 1e9 / rate->ns;
	rate->value = rate->value ? rate->value + (now - rate->value) * RATE_WEIGHT : now;
	rate->bytes = 0;
	rate->ns = 0;
}

uint64_t rate_time(double rate, uint64_t bytes)
{
	double ns;

	if (!bytes)
		return 0;
	if (rate <= 0)
		return NEVER;
	ns = bytes * 1e9 / rate;
	return ns < 1e18 ? ns : NEVER;
}

uint64_t limit_piece(const struct limit *limit, uint64_t most)
{
	return limit->rate ? min_u64(max_u64(limit->rate / 10, 1), most) : most;
}

uint64_t limit_sent(struct limit *limit, uint64_t bytes, uint64_t now)
{
	if (!limit->rate)
		return now;
	limit->free_at = max_u64(limit->free_at, now) + (uint64_t)(bytes * 1e9 / limit->rate);
	return limit->free_at;
}

static uint64_t add(uint64_t a, uint64_t b)
{
	return a == NEVER || b == NEVER ? NEVER : a + b;
}

uint64_t policy_downtime(const struct outlook *look)
{
	uint64_t before = rate_time(look->bandwidth, look->in_flight);

	/* Data in transfer is loaded while the target starts, or after it */
	if (!look->acked)
		before = max_u64(before, look->startup_known ? look->startup_ns : NEVER);
	before = add(before, rate_time(look->bandwidth, look->pending));
	return add(SWITCH_NS + 2 * look->round_trip_ns, before);
}

/*
 * While the target starts nothing is sent, so waiting itself does not prolong the
 * migration. But data that is written in the meantime has to be sent afterwards.
 */
static bool waiting_costs_time(const struct outlook *look)
{
	double grown = look->dirty_rate * (look->startup_ns / 1e9);

	if (look->data_size && grown > look->data_size)
		grown = look->data_size;
	return rate_time(look->bandwidth, grown) > LOSS_NS;
}

static enum verdict decide_total_time(const struct policy *policy,
				      const struct outlook *look)
{
	/* The target will report its progress soon; until then nothing is known */
	if (!look->acked && !look->answered)
		return VERDICT_GO_ON;
	if (policy->bound && policy_downtime(look) > policy->max_downtime_ns)
		return look->acked && look->stalled ? VERDICT_GIVE_UP : VERDICT_GO_ON;
	if (look->acked || !look->startup_known || look->startup_ns <= LEAD_NS)
		return VERDICT_STOP;
	return waiting_costs_time(look) ? VERDICT_STOP : VERDICT_GO_ON;
}

static enum verdict decide_downtime(const struct policy *policy,
				    const struct outlook *look)
{
	if (!look->acked)
		return VERDICT_GO_ON;
	if (policy_downtime(look) <= policy->max_downtime_ns)
		return VERDICT_STOP;
	if (!look->stalled)
		return VERDICT_GO_ON;
	return policy->bound ? VERDICT_GIVE_UP : VERDICT_STOP;
}

enum verdict policy_decide(const struct policy *policy, const struct outlook *look)
{
	if (look->initial)
		return VERDICT_GO_ON;
	if (policy->goal == GOAL_TOTAL_TIME)
		return decide_total_time(policy, look);
	return decide_downtime(policy, look);
}

bool policy_endless(uint64_t announced, uint64_t sent)
{
	return announced && sent > ENDLESS_SLACK && (sent - ENDLESS_SLACK) / 4 > announced;
}

bool watch_stalled(struct progress_watch *watch, uint64_t pending, uint64_t sent,
		   uint64_t now)
{
	if (!watch->best_at || pending < watch->best - watch->best / 10) {
		watch->best = pending;
		watch->best_at = now;
		watch->sent_at = sent;
		return false;
	}
	return now - watch->best_at >= STALL_NS &&
	       sent - watch->sent_at >= STALL_PASSES * pending;
}
