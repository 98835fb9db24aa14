// SPDX-License-Identifier: GPL-2.0-only

#include <linux/bug.h>
#include <linux/kernel.h>
#include <linux/limits.h>
#include <linux/list.h>
#include <linux/minmax.h>
#include <linux/types.h>
#include "fair.h"

/**
 * struct bus1_fair_level - one step of the staircase
 * @rank: the first rank on this step: c_k is the same from here to the next
 * @fraction: 1/(rank+1)^2, as 0.32 fixed point, rounded up
 *
 * With these ranks the sum of all c_k is 0.718 of the budget. So A_1 is 0.532,
 * which never keeps a member that is alone from holding half of the budget;
 * and A_0 is 0.282, which is why nothing needs to be tested below a quarter.
 * The last threshold is 0, for every budget up to INT_MAX.
 */
struct bus1_fair_level {
	u32 rank;
	u32 fraction;
};

static const struct bus1_fair_level bus1_fair_levels[BUS1_FAIR_LEVELS] = {
	{ 1,	 0x40000000 }, { 2,	0x1c71c71d }, { 3,     0x10000000 },
	{ 4,	 0x0a3d70a4 }, { 6,	0x0539782a }, { 8,     0x03291620 },
	{ 12,	 0x0183c978 }, { 16,	0x00e2c4a7 }, { 24,    0x0068db8c },
	{ 32,	 0x003c2e14 }, { 64,	0x000f82f1 }, { 128,   0x0003f030 },
	{ 256,	 0x0000fe03 }, { 512,	0x00003fc1 }, { 1024,  0x00000ff9 },
	{ 2048,	 0x00000400 }, { 4096,	0x00000100 }, { 8192,  0x00000040 },
	{ 16384, 0x00000010 }, { 32768,	0x00000004 }, { 65536, 0x00000001 },
};

/* Decreases with @level. At least budget/(rank+1)^2, rounded down. */
static u32 bus1_fair_threshold(const struct bus1_fair *fair,
			       unsigned int level)
{
	return ((u64)fair->budget * bus1_fair_levels[level].fraction) >> 32;
}

/**
 * bus1_fair_init() - initialize a fair without members
 * @fair: the fair
 *
 * The budget is 0, until bus1_fair_set_budget().
 *
 * Context: any.
 */
void bus1_fair_init(struct bus1_fair *fair)
{
	*fair = (struct bus1_fair){};
	INIT_LIST_HEAD(&fair->members);
}

/**
 * bus1_fair_deinit() - check that nothing is held of a fair
 * @fair: the fair
 *
 * Context: any.
 */
void bus1_fair_deinit(struct bus1_fair *fair)
{
	WARN_ON_ONCE(fair->total || fair->n_members ||
		     !list_empty(&fair->members));
}

/**
 * bus1_fair_member_init() - initialize a member that holds nothing
 * @member: the member
 * @unconstrained: only the budget shall bind it
 *
 * A member needs no teardown once it holds nothing any more.
 *
 * Context: any.
 */
void bus1_fair_member_init(struct bus1_fair_member *member,
			   bool unconstrained)
{
	*member = (struct bus1_fair_member){
		.unconstrained = unconstrained,
	};
	INIT_LIST_HEAD(&member->link);
}

/* Raise a constrained member to @to, band by band. */
static void bus1_fair_climb(struct bus1_fair *fair,
			    struct bus1_fair_member *member, u32 to)
{
	u32 from = member->used, top;

	if (!from)
		member->level = fair->bottom;
	for (;;) {
		top = member->level ?
			bus1_fair_threshold(fair, member->level - 1) : U32_MAX;
		top = min(top, to);
		fair->bands[member->level] += top - from;
		from = top;
		if (from == to)
			break;
		member->level--;
	}
	member->used = to;
}

/* Lower a constrained member to @to, band by band. */
static void bus1_fair_descend(struct bus1_fair *fair,
			      struct bus1_fair_member *member, u32 to)
{
	u32 from = member->used, bottom, stop;

	for (;;) {
		bottom = bus1_fair_threshold(fair, member->level);
		stop = max(bottom, to);
		fair->bands[member->level] -= from - stop;
		from = stop;
		if (from > bottom || member->level == fair->bottom)
			break;
		member->level++;
	}
	member->used = to;
}

/**
 * bus1_fair_set_budget() - change the budget of a fair
 * @fair: the fair
 * @budget: the new budget, at most INT_MAX
 *
 * Takes time in proportion to the number of members. If more is held than the
 * new budget allows, nothing is taken away; charges fail until it is returned.
 *
 * Context: any; the lock of the caller must be held.
 */
void bus1_fair_set_budget(struct bus1_fair *fair, u32 budget)
{
	struct bus1_fair_member *member;
	unsigned int i;
	u32 used;

	for (i = 0; i < BUS1_FAIR_LEVELS; ++i)
		fair->bands[i] = 0;
	fair->budget = budget;
	for (i = 0; bus1_fair_threshold(fair, i); ++i)
		;
	fair->bottom = i;
	list_for_each_entry(member, &fair->members, link) {
		used = member->used;
		member->used = 0;
		bus1_fair_climb(fair, member, used);
	}
}

/* What a member can always hold, if it holds something or asks. */
static u32 bus1_fair_guarantee(const struct bus1_fair *fair,
			       const struct bus1_fair_member *member)
{
	u64 n = (u64)fair->n_members + !member->used;
	u64 divisor = (n + 1) * (n + 1);

	return divisor > fair->budget ? 0 : fair->budget / (u32)divisor;
}

/*
 * Does the invariant hold if @member is raised to @to? Only thresholds below
 * @to need a look: what is held above the others does not change.
 */
static bool bus1_fair_may_climb(const struct bus1_fair *fair,
				const struct bus1_fair_member *member, u32 to)
{
	u64 above = (u64)fair->constrained + fair->outside;
	u64 later = 0, threshold, ranks, raise;
	int level;

	/*
	 * @above: held above the threshold, or outside; @later: sum of c_k from
	 * here on
	 */
	for (level = fair->bottom; level >= 0; --level) {
		threshold = bus1_fair_threshold(fair, level);
		if (threshold >= to)
			break;
		if (threshold) {
			ranks = bus1_fair_levels[level + 1].rank -
				bus1_fair_levels[level].rank;
			later += ranks * threshold;
		}
		raise = to - max_t(u64, member->used, threshold);
		ranks = bus1_fair_levels[level].rank - 1;
		if (above + raise + later + ranks * threshold > fair->budget)
			return false;
		above -= fair->bands[level];
	}

	return true;
}

/**
 * bus1_fair_may_charge() - find out whether a member may take more
 * @fair: the fair
 * @member: the member
 * @n: how much more, in the unit of the budget
 *
 * Takes constant time.
 *
 * Context: any; the lock of the caller must be held.
 * Return: true if the budget and the rules allow it.
 */
bool bus1_fair_may_charge(const struct bus1_fair *fair,
			  const struct bus1_fair_member *member, u32 n)
{
	u64 used = (u64)member->used + n;
	u64 total = (u64)fair->total + n;

	if (!n)
		return true;
	if (total > fair->budget)
		return false;
	if (member->unconstrained)
		return true;

	/* A_0 is more than a quarter, nobody can be above any A_s */
	if (total + fair->outside <= fair->budget / 4)
		return true;
	/* used > (budget - others) / 2, without a division */
	if (used + total <= fair->budget &&
	    bus1_fair_may_climb(fair, member, used))
		return true;

	return used <= bus1_fair_guarantee(fair, member);
}

/**
 * bus1_fair_charge_constrained() - the part of bus1_fair_charge() for most members
 * @fair: the fair
 * @member: the member, constrained; counted if it held nothing
 * @n: how much more, counted as part of all
 *
 * Context: any; the lock of the caller must be held.
 */
void bus1_fair_charge_constrained(struct bus1_fair *fair,
				  struct bus1_fair_member *member, u32 n)
{
	if (!member->used)
		list_add_tail(&member->link, &fair->members);
	fair->constrained += n;
	bus1_fair_climb(fair, member, member->used + n);
}

/**
 * bus1_fair_try_charge() - let a member take more, if it may
 * @fair: the fair
 * @member: the member
 * @n: how much more, in the unit of the budget
 *
 * Context: any; the lock of the caller must be held.
 * Return: true if it has been charged, false if nothing has changed.
 */
bool bus1_fair_try_charge(struct bus1_fair *fair,
			  struct bus1_fair_member *member, u32 n)
{
	if (!bus1_fair_may_charge(fair, member, n))
		return false;
	bus1_fair_charge(fair, member, n);
	return true;
}

/**
 * bus1_fair_uncharge_constrained() - the part of bus1_fair_uncharge() for most members
 * @fair: the fair
 * @member: the member, constrained
 * @n: how much, taken out of all already
 *
 * Context: any; the lock of the caller must be held.
 */
void bus1_fair_uncharge_constrained(struct bus1_fair *fair,
				    struct bus1_fair_member *member, u32 n)
{
	fair->constrained -= n;
	bus1_fair_descend(fair, member, member->used - n);
	if (!member->used)
		list_del_init(&member->link);
}
