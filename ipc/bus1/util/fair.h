/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_UTIL_FAIR_H
#define __BUS1_UTIL_FAIR_H

/**
 * DOC: Fair shares of a budget
 *
 * A fair divides a budget B among any number of members that come and go, and
 * can't be taken anything away from. Constrained members follow two rules:
 *
 * - a member may hold at most half of what the others have left;
 * - a member can always hold B/(n+1)^2, where n members hold something or ask.
 *   This one wins over the other.
 *
 * The first rule alone breaks the second: k greedy members would leave B/2^k.
 * A test that looks only at the present n breaks it as well, as members leave.
 * So every charge also keeps an invariant: let c_1 >= c_2 >= ... be numbers
 * with c_k >= B/(k+1)^2 and a sum of at most B, and A_s = B - sum(c_k, k > s).
 * Then *the s largest members hold at most A_s together*, for every s.
 *
 * Proof: a member that leaves, or gives back, only lowers those sums. One of n
 * members that raises itself to v <= B/(n+1)^2 <= c_n is among the s largest
 * only beside s-1 others that hold at most A_(s-1), and A_(s-1) + c_n <= A_s
 * for s <= n. So the raise keeps the invariant, and A_s <= B, so there is room.
 * Nothing much weaker will do: if s members hold more than A_s and all others
 * leave, newcomers can't have all that they are owed.
 *
 * The sums of the largest are not kept. In the conjugate form the invariant
 * says, for every t: what members hold above t is at most max(A_s - s * t)
 * over s. Both sides are convex in t, and the right one is straight between
 * the values of c, so testing it at those is enough. With c a staircase of
 * %BUS1_FAIR_LEVELS levels, all it takes is what is held between neighbouring
 * levels: a charge touches the levels that the member climbs through, and
 * tests are needed only once more than a quarter of the budget is held.
 *
 * Unconstrained members are bound by the budget only. What they hold is not
 * left for others, and they count as members; nothing can be promised to
 * others about what an unconstrained member takes. What is taken of the budget
 * by other means is kept out of the rules, but in the invariant each A_s is
 * lower by it, so that it does not eat up what newcomers are owed.
 *
 * Nothing here takes locks: the caller serializes all calls on one fair.
 */

#include <linux/bug.h>
#include <linux/list.h>
#include <linux/types.h>

/* The number of steps in the staircase of thresholds. */
#define BUS1_FAIR_LEVELS	21

/**
 * struct bus1_fair - a budget, and who holds how much of it
 * @budget: what all members together may hold, at most INT_MAX (caller)
 * @total: what all members hold, in the unit of the budget (caller)
 * @constrained: what constrained members hold (caller)
 * @outside: what is taken of the budget by other means; set by the caller, who
 *	also sees to it that all together is not more than the budget (caller)
 * @n_members: number of members that hold something (caller)
 * @bottom: the first level with a threshold of 0; no later one is used (caller)
 * @bands: what constrained members hold above the threshold of each level, up
 *	to that of the level before (caller)
 * @members: the constrained members that hold something (caller)
 *
 * "(caller)" means: protected by the lock of the caller.
 */
struct bus1_fair {
	u32 budget;
	u32 total;
	u32 constrained;
	u32 outside;
	u32 n_members;
	unsigned int bottom;
	u32 bands[BUS1_FAIR_LEVELS];
	struct list_head members;
};

/**
 * struct bus1_fair_member - what one member holds
 * @used: what it holds, in the unit of the budget (caller)
 * @level: the level with the highest threshold below @used, undefined while
 *	that is 0 (caller)
 * @unconstrained: only the budget binds it (const)
 * @link: in fair->members while it holds something (caller)
 */
struct bus1_fair_member {
	u32 used;
	u8 level;
	bool unconstrained;
	struct list_head link;
};

void bus1_fair_init(struct bus1_fair *fair);
void bus1_fair_deinit(struct bus1_fair *fair);
void bus1_fair_member_init(struct bus1_fair_member *member,
			   bool unconstrained);
void bus1_fair_set_budget(struct bus1_fair *fair, u32 budget);
bool bus1_fair_may_charge(const struct bus1_fair *fair,
			  const struct bus1_fair_member *member, u32 n);
void bus1_fair_charge_constrained(struct bus1_fair *fair,
				  struct bus1_fair_member *member, u32 n);
bool bus1_fair_try_charge(struct bus1_fair *fair,
			  struct bus1_fair_member *member, u32 n);
void bus1_fair_uncharge_constrained(struct bus1_fair *fair,
				    struct bus1_fair_member *member, u32 n);

/**
 * bus1_fair_charge() - let a member take more
 * @fair: the fair
 * @member: the member
 * @n: how much more, as bus1_fair_may_charge() has allowed
 *
 * Context: any; the lock of the caller must be held.
 */
static inline void bus1_fair_charge(struct bus1_fair *fair,
				    struct bus1_fair_member *member, u32 n)
{
	if (!n)
		return;
	if (!member->used)
		++fair->n_members;
	fair->total += n;
	if (member->unconstrained)
		member->used += n;
	else
		bus1_fair_charge_constrained(fair, member, n);
}

/**
 * bus1_fair_uncharge() - take back what a member has been charged
 * @fair: the fair
 * @member: the member
 * @n: how much, at most what it holds
 *
 * Context: any; the lock of the caller must be held.
 */
static inline void bus1_fair_uncharge(struct bus1_fair *fair,
				      struct bus1_fair_member *member, u32 n)
{
	if (!n)
		return;
	if (WARN_ON_ONCE(n > member->used))
		n = member->used;
	fair->total -= n;
	if (member->unconstrained)
		member->used -= n;
	else
		bus1_fair_uncharge_constrained(fair, member, n);
	if (!member->used)
		--fair->n_members;
}

#endif /* __BUS1_UTIL_FAIR_H */
