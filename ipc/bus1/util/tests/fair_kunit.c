// SPDX-License-Identifier: GPL-2.0-only

#include <kunit/test.h>
#include <linux/limits.h>
#include <linux/list.h>
#include <linux/minmax.h>
#include <linux/string.h>
#include "../fair.h"
#include "kunit.h"

#define N_MEMBERS	32

static const u32 budgets[] = {
	0, 1, 2, 3, 4, 7, 8, 9, 63, 100, 1023, 4096, 16384, 65536, 1000003,
	16 * 1024 * 1024, INT_MAX - 1, INT_MAX,
};

/* What uapi promises to one of @n members that hold something or ask. */
static u32 promise(u32 budget, u64 n)
{
	return budget / ((n + 1) * (n + 1));
}

/* How much more a member may have: the answer is yes up to there, no above. */
static u32 room_of(const struct bus1_fair *fair,
		   const struct bus1_fair_member *member)
{
	u32 yes = 0, no = fair->budget + 1, middle;

	while (no - yes > 1) {
		middle = yes + (no - yes) / 2;
		if (bus1_fair_may_charge(fair, member, middle))
			yes = middle;
		else
			no = middle;
	}
	return yes;
}

/* What the sums must be, counted again from what each member holds. */
static void check_fair_sums(struct kunit *test, const struct bus1_fair *fair,
			    const struct bus1_fair_member *members, size_t n)
{
	u64 total = 0, constrained = 0, banded = 0;
	unsigned int n_members = 0, n_linked = 0;
	struct bus1_fair fresh;
	struct list_head *link;
	size_t i;

	bus1_fair_init(&fresh);
	bus1_fair_set_budget(&fresh, fair->budget);
	for (i = 0; i < n; ++i) {
		struct bus1_fair_member copy;

		total += members[i].used;
		n_members += members[i].used > 0;
		if (members[i].unconstrained)
			continue;
		constrained += members[i].used;
		n_linked += members[i].used > 0;
		bus1_fair_member_init(&copy, false);
		bus1_fair_charge(&fresh, &copy, members[i].used);
		if (copy.used)
			list_del(&copy.link);
	}
	list_for_each(link, &fair->members)
		--n_linked;
	for (i = 0; i < BUS1_FAIR_LEVELS; ++i)
		banded += fair->bands[i];

	KUNIT_EXPECT_EQ(test, fair->total, total);
	KUNIT_EXPECT_EQ(test, fair->constrained, constrained);
	KUNIT_EXPECT_EQ(test, banded, constrained);
	KUNIT_EXPECT_EQ(test, fair->n_members, n_members);
	KUNIT_EXPECT_EQ_MSG(test, n_linked, 0, "members in the list");
	KUNIT_EXPECT_EQ_MSG(test, memcmp(fresh.bands, fair->bands,
					 sizeof(fair->bands)), 0,
			    "bands are not what members climbed through");
}

static void check_fair_empty(struct kunit *test, const struct bus1_fair *fair)
{
	unsigned int i;

	KUNIT_EXPECT_EQ(test, fair->total, 0);
	KUNIT_EXPECT_EQ(test, fair->constrained, 0);
	KUNIT_EXPECT_EQ(test, fair->n_members, 0);
	KUNIT_EXPECT_TRUE(test, list_empty(&fair->members));
	for (i = 0; i < BUS1_FAIR_LEVELS; ++i)
		KUNIT_EXPECT_EQ(test, fair->bands[i], 0);
}

/*
 * The shares that uapi states, of a member that has taken all it can get: not
 * more than half of what the others left, or the promise; and the promise.
 */
static void check_fair_share(struct kunit *test, const struct bus1_fair *fair,
			     const struct bus1_fair_member *member)
{
	u32 owed = promise(fair->budget, fair->n_members + !member->used);
	u32 others = fair->total - member->used;
	u32 half = others < fair->budget ? (fair->budget - others) / 2 : 0;

	KUNIT_EXPECT_GE_MSG(test, member->used, owed,
			    "budget %u, %u members, others hold %u",
			    fair->budget, fair->n_members, others);
	KUNIT_EXPECT_LE_MSG(test, member->used, max(half, owed),
			    "budget %u, %u members, others hold %u",
			    fair->budget, fair->n_members, others);
}

/* One that is alone gets half of the budget, to the unit. */
static void bus1_fair_test_alone(struct kunit *test)
{
	struct bus1_fair_member member;
	struct bus1_fair fair;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(budgets); ++i) {
		bus1_fair_init(&fair);
		bus1_fair_member_init(&member, false);
		bus1_fair_set_budget(&fair, budgets[i]);
		KUNIT_EXPECT_EQ(test, room_of(&fair, &member), budgets[i] / 2);
		KUNIT_EXPECT_FALSE(test, bus1_fair_try_charge(&fair, &member,
							      budgets[i] / 2 + 1));
		check_fair_empty(test, &fair);
		KUNIT_EXPECT_TRUE(test, bus1_fair_try_charge(&fair, &member,
							     budgets[i] / 2));
		KUNIT_EXPECT_FALSE(test, bus1_fair_may_charge(&fair, &member,
							      1));
		KUNIT_EXPECT_TRUE(test, bus1_fair_may_charge(&fair, &member,
							     0));
		KUNIT_EXPECT_FALSE(test, bus1_fair_may_charge(&fair, &member,
							      U32_MAX));
		check_fair_sums(test, &fair, &member, 1);
		bus1_fair_uncharge(&fair, &member, member.used);
		check_fair_empty(test, &fair);
	}
}

/* The unconstrained one gets all of the budget, to the unit. */
static void bus1_fair_test_unconstrained(struct kunit *test)
{
	struct bus1_fair_member members[2];
	struct bus1_fair fair;
	unsigned int i;
	u32 taken;

	for (i = 0; i < ARRAY_SIZE(budgets); ++i) {
		bus1_fair_init(&fair);
		bus1_fair_member_init(&members[0], true);
		bus1_fair_member_init(&members[1], false);
		bus1_fair_set_budget(&fair, budgets[i]);
		KUNIT_EXPECT_EQ(test, room_of(&fair, &members[0]), budgets[i]);

		taken = room_of(&fair, &members[1]);
		bus1_fair_charge(&fair, &members[1], taken);
		KUNIT_EXPECT_EQ(test, room_of(&fair, &members[0]),
				budgets[i] - taken);
		bus1_fair_charge(&fair, &members[0], budgets[i] - taken);
		KUNIT_EXPECT_FALSE(test, bus1_fair_may_charge(&fair,
							      &members[0], 1));
		KUNIT_EXPECT_FALSE(test, bus1_fair_may_charge(&fair,
							      &members[1], 1));
		check_fair_sums(test, &fair, members, 2);

		bus1_fair_uncharge(&fair, &members[1], taken);
		bus1_fair_uncharge(&fair, &members[0], members[0].used);
		check_fair_empty(test, &fair);
	}
}

/*
 * N members come, one after the other, and each takes all that it can get: what
 * is left to the last one is what it was promised, and more.
 */
static void bus1_fair_test_greedy(struct kunit *test)
{
	struct bus1_fair_member members[N_MEMBERS];
	struct bus1_fair fair;
	unsigned int i, n;
	u32 room;

	for (i = 0; i < ARRAY_SIZE(budgets); ++i) {
		bus1_fair_init(&fair);
		bus1_fair_set_budget(&fair, budgets[i]);
		for (n = 0; n < N_MEMBERS; ++n) {
			bus1_fair_member_init(&members[n], false);
			room = room_of(&fair, &members[n]);
			KUNIT_EXPECT_TRUE(test,
					  bus1_fair_try_charge(&fair,
							       &members[n],
							       room));
			KUNIT_EXPECT_FALSE(test,
					   bus1_fair_try_charge(&fair,
								&members[n],
								1));
			KUNIT_EXPECT_GE(test, members[n].used,
					promise(budgets[i], n + 1));
			check_fair_share(test, &fair, &members[n]);
			KUNIT_EXPECT_LE(test, fair.total, fair.budget);
		}
		check_fair_sums(test, &fair, members, N_MEMBERS);
		/* In another order than they came */
		for (n = 0; n < N_MEMBERS; ++n) {
			room = members[n * 5 % N_MEMBERS].used;
			bus1_fair_uncharge(&fair, &members[n * 5 % N_MEMBERS],
					   room);
		}
		check_fair_empty(test, &fair);
	}
}

/*
 * N members are greedy together, then all but the last few leave. Newcomers get
 * what they are promised, though what is held by then was taken under other
 * conditions.
 */
static void bus1_fair_test_leave(struct kunit *test)
{
	struct bus1_fair_member members[N_MEMBERS];
	unsigned int n, left, i, round;
	struct bus1_fair fair;

	bus1_fair_init(&fair);
	bus1_fair_set_budget(&fair, 16384);
	for (n = 1; n <= N_MEMBERS; ++n) {
		left = n / 2;
		for (i = 0; i < N_MEMBERS; ++i)
			bus1_fair_member_init(&members[i], false);
		/* Little by little, so that each is as large as it can get */
		for (round = 0; round < 200; ++round) {
			for (i = 0; i < n; ++i)
				bus1_fair_try_charge(&fair, &members[i], 64);
		}
		for (i = left; i < n; ++i)
			bus1_fair_uncharge(&fair, &members[i],
					   members[i].used);
		for (i = left; i < N_MEMBERS; ++i) {
			bus1_fair_charge(&fair, &members[i],
					 room_of(&fair, &members[i]));
			check_fair_share(test, &fair, &members[i]);
		}
		check_fair_sums(test, &fair, members, N_MEMBERS);
		for (i = 0; i < N_MEMBERS; ++i)
			bus1_fair_uncharge(&fair, &members[i],
					   members[i].used);
		check_fair_empty(test, &fair);
	}
}

/*
 * What is taken by other means leaves less room, but as long as there is some,
 * everybody gets what was promised out of all of the budget.
 */
static void bus1_fair_test_outside(struct kunit *test)
{
	struct bus1_fair_member members[N_MEMBERS];
	u32 budget = 16384, outside, owed;
	struct bus1_fair fair;
	unsigned int n;

	for (outside = 0; outside <= budget; outside += budget / 16) {
		bus1_fair_init(&fair);
		bus1_fair_set_budget(&fair, budget);
		fair.outside = outside;
		for (n = 0; n < N_MEMBERS; ++n) {
			bus1_fair_member_init(&members[n], false);
			owed = min(promise(budget, n + 1),
				   budget - outside - fair.total);
			KUNIT_EXPECT_TRUE_MSG(test,
					      bus1_fair_try_charge(&fair,
								   &members[n],
								   owed),
					      "%u outside, %u members", outside,
					      n);
		}
		check_fair_sums(test, &fair, members, N_MEMBERS);
		for (n = 0; n < N_MEMBERS; ++n)
			bus1_fair_uncharge(&fair, &members[n],
					   members[n].used);
		check_fair_empty(test, &fair);
	}
}

/* One random step; whatever was done before, the promises hold. */
static void check_fair_step(struct kunit *test, struct rnd_state *rnd,
			    struct bus1_fair *fair,
			    struct bus1_fair_member *members, unsigned int n)
{
	struct bus1_fair_member *member = &members[bus1_rnd(rnd, n)];
	u32 used = member->used, total = fair->total, room, owed, half, take;

	if (used && bus1_rnd(rnd, 3) == 0) {
		take = bus1_rnd(rnd, 2) ? used : 1 + bus1_rnd(rnd, used);
		bus1_fair_uncharge(fair, member, take);
		KUNIT_EXPECT_EQ(test, member->used, used - take);
		return;
	}

	room = room_of(fair, member);
	owed = promise(fair->budget, fair->n_members + !used);
	half = (fair->budget - (total - used)) / 2;
	KUNIT_EXPECT_GE_MSG(test, used + room, owed,
			    "%u members, total %u", fair->n_members, total);
	if (room)
		KUNIT_EXPECT_LE(test, used + room, max(half, owed));
	KUNIT_EXPECT_FALSE(test, bus1_fair_try_charge(fair, member, room + 1));
	KUNIT_EXPECT_EQ(test, member->used, used);
	KUNIT_EXPECT_EQ(test, fair->total, total);

	take = bus1_rnd(rnd, 2) ? room : bus1_rnd(rnd, room + 1);
	KUNIT_EXPECT_TRUE(test, bus1_fair_try_charge(fair, member, take));
	KUNIT_EXPECT_EQ(test, member->used, used + take);
	KUNIT_EXPECT_LE(test, fair->total, fair->budget);
}

static void bus1_fair_test_random(struct kunit *test)
{
	struct bus1_fair_member members[N_MEMBERS];
	unsigned int seed, step, i, n;
	struct bus1_fair fair;
	struct rnd_state rnd;

	for (seed = 1; seed <= 64 && !bus1_kunit_failed(test); ++seed) {
		bus1_rnd_init(&rnd, seed);
		n = 1 + bus1_rnd(&rnd, N_MEMBERS);
		bus1_fair_init(&fair);
		bus1_fair_set_budget(&fair, budgets[4 + seed %
					     (ARRAY_SIZE(budgets) - 4)]);
		for (i = 0; i < n; ++i)
			bus1_fair_member_init(&members[i], false);
		for (step = 0; step < 200; ++step) {
			check_fair_step(test, &rnd, &fair, members, n);
			if (step % 20 == 0)
				check_fair_sums(test, &fair, members, n);
			if (bus1_kunit_failed(test))
				break;
		}
		if (bus1_kunit_failed(test))
			kunit_err(test, "seed %u, step %u, %u members, budget %u",
				  seed, step, n, fair.budget);
		for (i = 0; i < n; ++i)
			bus1_fair_uncharge(&fair, &members[i],
					   members[i].used);
		check_fair_empty(test, &fair);
	}
}

/* A lower budget takes nothing away, and lets nobody have more. */
static void bus1_fair_test_budget(struct kunit *test)
{
	struct bus1_fair_member members[4];
	struct bus1_fair fair;
	unsigned int i;
	u32 total;

	bus1_fair_init(&fair);
	bus1_fair_set_budget(&fair, 1000);
	for (i = 0; i < ARRAY_SIZE(members); ++i) {
		bus1_fair_member_init(&members[i], i == 3);
		KUNIT_EXPECT_TRUE(test, bus1_fair_try_charge(&fair, &members[i],
							     100));
	}
	total = fair.total;
	for (i = 0; i < ARRAY_SIZE(budgets); ++i) {
		bus1_fair_set_budget(&fair, budgets[i]);
		KUNIT_EXPECT_EQ(test, fair.total, total);
		check_fair_sums(test, &fair, members, ARRAY_SIZE(members));
		if (budgets[i] <= total) {
			KUNIT_EXPECT_FALSE(test,
					   bus1_fair_may_charge(&fair,
								&members[0],
								1));
			KUNIT_EXPECT_FALSE(test,
					   bus1_fair_may_charge(&fair,
								&members[3],
								1));
		} else {
			KUNIT_EXPECT_EQ(test, room_of(&fair, &members[3]),
					budgets[i] - total);
		}
	}

	/* What was charged under one budget is returned under another */
	for (i = 0; i < ARRAY_SIZE(members); ++i) {
		bus1_fair_uncharge(&fair, &members[i], 40);
		bus1_fair_set_budget(&fair, 50 * i);
		bus1_fair_uncharge(&fair, &members[i], 60);
	}
	check_fair_empty(test, &fair);
	bus1_fair_deinit(&fair);
}

static struct kunit_case bus1_fair_cases[] = {
	KUNIT_CASE(bus1_fair_test_alone),
	KUNIT_CASE(bus1_fair_test_unconstrained),
	KUNIT_CASE(bus1_fair_test_greedy),
	KUNIT_CASE(bus1_fair_test_leave),
	KUNIT_CASE(bus1_fair_test_outside),
	KUNIT_CASE(bus1_fair_test_random),
	KUNIT_CASE(bus1_fair_test_budget),
	{}
};

static struct kunit_suite bus1_fair_suite = {
	.name = "bus1_fair",
	.test_cases = bus1_fair_cases,
};

kunit_test_suite(bus1_fair_suite);
