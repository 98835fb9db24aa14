// SPDX-License-Identifier: GPL-2.0-only

#include <kunit/test.h>
#include <linux/atomic.h>
#include <linux/err.h>
#include <linux/limits.h>
#include <linux/minmax.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uidgid.h>
#include "../quota.h"
#include "../user.h"
#include "../util/fair.h"
#include "../util/tests/kunit.h"

/* Users that nobody else is, some with a uid that is negative as an int. */
#define FIRST_UID	0xfffd0000U
#define N_SHARES	32

static struct bus1_user *user_get(struct kunit *test, unsigned int index)
{
	struct bus1_user *user;

	user = bus1_user_ref_by_uid(KUIDT_INIT(FIRST_UID + index));
	KUNIT_ASSERT_FALSE(test, IS_ERR(user));
	return user;
}

/* Nothing is reserved of a user's budget, when all of its quotas are gone. */
static void check_user_unused(struct kunit *test, struct bus1_user *user)
{
	unsigned int i;

	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		KUNIT_EXPECT_EQ(test, user->reserved[i].total, 0);
		KUNIT_EXPECT_EQ(test, user->reserved[i].n_members, 0);
		KUNIT_EXPECT_EQ(test, user->own[i], 0);
	}
	KUNIT_EXPECT_TRUE(test, list_empty(&user->creditors));
}

static void check_quota_unused(struct kunit *test, struct bus1_quota *quota)
{
	const struct bus1_cost same = { { U32_MAX, U32_MAX, U32_MAX, U32_MAX } };
	unsigned int i;

	/* Nothing stays parked when limits are set */
	bus1_quota_set_limits(quota, &same);
	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		KUNIT_EXPECT_EQ(test, quota->parked.n[i], 0);
		KUNIT_EXPECT_EQ(test, quota->received[i].total, 0);
		KUNIT_EXPECT_EQ(test, quota->received[i].n_members, 0);
		KUNIT_EXPECT_EQ(test, quota->own[i], 0);
	}
}

/* A quota is too large for the stack. */
static struct bus1_quota *quota_new(struct kunit *test, struct bus1_user *user,
				    u64 id)
{
	struct bus1_quota *quota;

	quota = kunit_kzalloc(test, sizeof(*quota), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, quota);
	bus1_quota_init(quota, user, id);
	return quota;
}

static u64 quota_held(const struct bus1_quota *quota, enum bus1_resource res)
{
	return (u64)quota->received[res].total + quota->own[res] -
	       quota->parked.n[res];
}

static struct bus1_cost cost_of(enum bus1_resource res, u32 n)
{
	struct bus1_cost cost = {};

	cost.n[res] = n;
	return cost;
}

static int charge(struct bus1_quota *quota, struct bus1_user *sender,
		  enum bus1_resource res, u32 n, struct bus1_share **sharep)
{
	struct bus1_cost cost = cost_of(res, n);

	return bus1_quota_charge(quota, sender, &cost, sharep);
}

static void uncharge(struct bus1_quota *quota, struct bus1_share *share,
		     enum bus1_resource res, u32 n)
{
	struct bus1_cost cost = cost_of(res, n);

	bus1_quota_uncharge(quota, share, &cost);
}

static void quota_limit(struct bus1_quota *quota, enum bus1_resource res, u32 n)
{
	struct bus1_cost limits;

	memset(&limits, 0xff, sizeof(limits));
	limits.n[res] = n;
	bus1_quota_set_limits(quota, &limits);
}

/*
 * A peer that its own user sends to can have all that its limit says, to the unit,
 * and what it takes by commands counts alike.
 */
static void check_peer_limit(struct kunit *test, enum bus1_resource res,
			     u32 limit)
{
	struct bus1_user *user = user_get(test, 0);
	struct bus1_share *share, *other;
	struct bus1_quota *quota;
	unsigned int round;

	quota = quota_new(test, user, 1);
	quota_limit(quota, res, limit);
	for (round = 0; round < 3; ++round) {
		KUNIT_EXPECT_EQ(test, charge(quota, user, res, limit + 1,
					     &share), -EDQUOT);
		KUNIT_EXPECT_EQ(test, charge(quota, user, res, U32_MAX,
					     &share), -EDQUOT);
		KUNIT_EXPECT_EQ(test, quota_held(quota, res), 0);
		KUNIT_EXPECT_EQ(test, charge(quota, user, res, limit - 1,
					     &share), 0);
		KUNIT_EXPECT_EQ(test, charge(quota, user, res, 2, &other),
				-EDQUOT);
		KUNIT_EXPECT_EQ(test, charge(quota, user, res, 1, &other), 0);
		KUNIT_EXPECT_PTR_EQ(test, share, other);
		KUNIT_EXPECT_EQ(test, quota_held(quota, res), limit);
		KUNIT_EXPECT_EQ(test, charge(quota, user, res, 1, &other),
				-EDQUOT);
		KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(quota, res, 1),
				-EDQUOT);
		KUNIT_EXPECT_EQ(test, charge(quota, user, res, 0, &other), 0);
		uncharge(quota, share, res, 1);
		KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(quota, res, 2),
				-EDQUOT);
		KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(quota, res, 1), 0);
		KUNIT_EXPECT_EQ(test, charge(quota, user, res, 1, &other),
				-EDQUOT);
		bus1_quota_uncharge_own(quota, res, 1);
		uncharge(quota, share, res, limit - 1);
		check_quota_unused(test, quota);
	}
	bus1_quota_deinit(quota);
	check_user_unused(test, user);
	bus1_user_unref(user);
}

static void bus1_quota_test_peer_limit(struct kunit *test)
{
	unsigned int i;

	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		check_peer_limit(test, i, 10);
		check_peer_limit(test, i, 1000);
		check_peer_limit(test, i, bus1_user_limit(i) / 2);
	}
}

/*
 * All of the user's budget can be had, to the unit, by any of its peers or by
 * several; but not by sending to one, that would leave nothing to its siblings.
 */
static void check_user_limit(struct kunit *test, enum bus1_resource res)
{
	const u32 limit = bus1_user_limit(res);
	struct bus1_user *user = user_get(test, 0);
	struct bus1_quota *a, *b;
	struct bus1_share *share;

	a = quota_new(test, user, 1);
	b = quota_new(test, user, 2);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(a, res, limit + 1),
			-EDQUOT);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(a, res, limit), 0);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(a, res, 1), -EDQUOT);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(b, res, 1), -EDQUOT);
	KUNIT_EXPECT_EQ(test, charge(b, user, res, 1, &share), -EDQUOT);
	bus1_quota_uncharge_own(a, res, 1);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(b, res, 2), -EDQUOT);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(b, res, 1), 0);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(a, res, 1), -EDQUOT);
	bus1_quota_uncharge_own(b, res, 1);
	bus1_quota_uncharge_own(a, res, limit - 1);

	KUNIT_EXPECT_EQ(test, charge(a, user, res, limit / 2 + 1, &share),
			-EDQUOT);
	KUNIT_EXPECT_EQ(test, charge(a, user, res, limit / 2, &share), 0);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(b, res, limit / 2 + 1),
			-EDQUOT);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(b, res, limit / 2), 0);
	bus1_quota_uncharge_own(b, res, limit / 2);
	uncharge(a, share, res, limit / 2);

	check_quota_unused(test, a);
	check_quota_unused(test, b);
	bus1_quota_deinit(a);
	bus1_quota_deinit(b);
	check_user_unused(test, user);
	bus1_user_unref(user);
}

static void bus1_quota_test_user_limit(struct kunit *test)
{
	unsigned int i;

	for (i = 0; i < BUS1_RESOURCE_N; ++i)
		check_user_limit(test, i);
}

/* All resources, or none: a charge that is refused has left nothing behind. */
static void bus1_quota_test_all_or_none(struct kunit *test)
{
	struct bus1_user *user = user_get(test, 0), *sender = user_get(test, 1);
	struct bus1_cost cost, one = { .n = { 1, 1, 1, 1 } };
	struct bus1_share *share, *none;
	struct bus1_quota *quota;
	unsigned int i, j;

	quota = quota_new(test, user, 1);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge(quota, sender, &one, &share),
			0);
	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		cost = one;
		cost.n[i] = bus1_user_limit(i);
		KUNIT_EXPECT_EQ(test, bus1_quota_charge(quota, sender, &cost,
							&none), -EDQUOT);
		KUNIT_EXPECT_EQ(test, bus1_quota_charge(quota, user, &cost,
							&none), -EDQUOT);
		for (j = 0; j < BUS1_RESOURCE_N; ++j) {
			KUNIT_EXPECT_EQ(test, quota_held(quota, j), 1);
			KUNIT_EXPECT_EQ(test, share->held[j].used, 1);
			KUNIT_EXPECT_EQ(test, quota->own_share.held[j].used, 0);
		}
	}
	bus1_quota_uncharge(quota, share, &one);
	check_quota_unused(test, quota);
	bus1_quota_deinit(quota);
	check_user_unused(test, user);
	bus1_user_unref(sender);
	bus1_user_unref(user);
}

/* All that one can get, by halves. */
static u32 charge_all(struct kunit *test, struct bus1_quota *quota,
		      struct bus1_user *sender, enum bus1_resource res,
		      struct bus1_share **sharep)
{
	struct bus1_share *share;
	u32 n, sum = 0;

	*sharep = NULL;
	for (n = roundup_pow_of_two(bus1_user_limit(res)); n; n /= 2) {
		while (!charge(quota, sender, res, n, &share)) {
			KUNIT_EXPECT_TRUE(test, !*sharep || *sharep == share);
			*sharep = share;
			sum += n;
		}
	}
	return sum;
}

/*
 * @used is what the last of @n has got, and @others what all others hold: at
 * most half of what they left, or else what it was promised; and that.
 */
static void check_share(struct kunit *test, u32 used, u32 others, u32 budget,
			u32 n)
{
	u32 owed = budget / ((n + 1) * (n + 1)), half = (budget - others) / 2;

	KUNIT_EXPECT_GE_MSG(test, used, owed, "%u of %u", n, budget);
	KUNIT_EXPECT_LE_MSG(test, used, max(half, owed), "%u of %u", n, budget);
}

/* Up to 32 users that send to one peer: each takes all that it can get. */
static void check_sender_shares(struct kunit *test, enum bus1_resource res,
				u32 limit)
{
	struct bus1_user *user = user_get(test, 0), *senders[N_SHARES];
	struct bus1_share *shares[N_SHARES], *own;
	u32 used[N_SHARES], others = 0, left;
	struct bus1_quota *quota;
	unsigned int i;

	quota = quota_new(test, user, 1);
	quota_limit(quota, res, limit);
	for (i = 0; i < N_SHARES; ++i) {
		senders[i] = user_get(test, 1 + i);
		used[i] = charge_all(test, quota, senders[i], res, &shares[i]);
		check_share(test, used[i], others, limit, i + 1);
		others += used[i];
		KUNIT_EXPECT_EQ(test, quota_held(quota, res), others);
		KUNIT_EXPECT_LE(test, others, limit);
	}
	/* The receiver's own user gets what is left, to the unit */
	left = charge_all(test, quota, user, res, &own);
	KUNIT_EXPECT_EQ(test, left, limit - others);
	uncharge(quota, own, res, left);
	for (i = 0; i < N_SHARES; ++i) {
		if (used[i])
			uncharge(quota, shares[i], res, used[i]);
		bus1_user_unref(senders[i]);
	}
	check_quota_unused(test, quota);
	bus1_quota_deinit(quota);
	check_user_unused(test, user);
	bus1_user_unref(user);
}

static void bus1_quota_test_sender_shares(struct kunit *test)
{
	/* Not so much that the shares of siblings would matter */
	check_sender_shares(test, BUS1_RESOURCE_FDS, 2048);
	check_sender_shares(test, BUS1_RESOURCE_FDS, 100);
	check_sender_shares(test, BUS1_RESOURCE_SLICES, 8192);
	check_sender_shares(test, BUS1_RESOURCE_HANDLES, 5000);
	check_sender_shares(test, BUS1_RESOURCE_BYTES, 8 * 1024 * 1024);
}

/* Up to 32 peers of one user: as much as it can get is sent to each. */
static void check_sibling_shares(struct kunit *test, enum bus1_resource res)
{
	struct bus1_user *user = user_get(test, 0);
	struct bus1_share *shares[N_SHARES];
	u32 used[N_SHARES], others = 0, limit = bus1_user_limit(res);
	struct bus1_quota *quotas;
	unsigned int i;

	quotas = kunit_kcalloc(test, N_SHARES, sizeof(*quotas), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, quotas);
	for (i = 0; i < N_SHARES; ++i) {
		bus1_quota_init(&quotas[i], user, i);
		/* The first layer does not bind the own user */
		used[i] = charge_all(test, &quotas[i], user, res, &shares[i]);
		check_share(test, used[i], others, limit, i + 1);
		others += used[i];
		KUNIT_EXPECT_LE(test, others, limit);
	}
	/* What they hold by own commands counts against the limit only */
	KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(&quotas[0], res,
						    limit - others + 1),
			-EDQUOT);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(&quotas[0], res,
						    limit - others), 0);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(&quotas[1], res, 1),
			-EDQUOT);
	bus1_quota_uncharge_own(&quotas[0], res, limit - others);
	for (i = 0; i < N_SHARES; ++i) {
		if (used[i])
			uncharge(&quotas[i], shares[i], res, used[i]);
		check_quota_unused(test, &quotas[i]);
		bus1_quota_deinit(&quotas[i]);
	}
	check_user_unused(test, user);
	bus1_user_unref(user);
}

static void bus1_quota_test_sibling_shares(struct kunit *test)
{
	unsigned int i;

	for (i = 0; i < BUS1_RESOURCE_N; ++i)
		check_sibling_shares(test, i);
}

/*
 * Credit stays with quotas, but nobody is refused for it: whatever is used up at
 * one peer, and given back, another one can have.
 */
static void bus1_quota_test_credit(struct kunit *test)
{
	const enum bus1_resource res = BUS1_RESOURCE_SLICES;
	const u32 limit = bus1_user_limit(res);
	struct bus1_user *user = user_get(test, 0);
	struct bus1_share *share;
	struct bus1_quota *quotas[3];
	unsigned int i, round;

	for (i = 0; i < 3; ++i)
		quotas[i] = quota_new(test, user, i);
	for (round = 0; round < 6; ++round) {
		/* A little at each, so that each keeps some credit */
		for (i = 0; i < 3; ++i) {
			KUNIT_EXPECT_EQ(test, charge(quotas[i], user, res, 3,
						     &share), 0);
			uncharge(quotas[i], share, res, 3);
		}
		i = round % 3;
		KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(quotas[i], res,
							    limit), 0);
		KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(quotas[(i + 1) % 3],
							    res, 1), -EDQUOT);
		bus1_quota_uncharge_own(quotas[i], res, limit);
	}
	for (i = 0; i < 3; ++i) {
		check_quota_unused(test, quotas[i]);
		bus1_quota_deinit(quotas[i]);
	}
	check_user_unused(test, user);
	bus1_user_unref(user);
}

/* So many keep credit, and no more: the list of them is walked with a lock held. */
static void bus1_quota_test_creditors(struct kunit *test)
{
	const enum bus1_resource res = BUS1_RESOURCE_BYTES;
	const unsigned int n = BUS1_CREDITORS_MAX + 50;
	struct bus1_user *user = user_get(test, 0);
	struct bus1_quota **quotas;
	struct bus1_share *share;
	unsigned int i, round;

	quotas = kunit_kcalloc(test, n, sizeof(*quotas), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, quotas);
	for (i = 0; i < n; ++i)
		quotas[i] = quota_new(test, user, i);
	for (round = 0; round < 2; ++round) {
		for (i = 0; i < n; ++i) {
			KUNIT_EXPECT_EQ(test, charge(quotas[i], user, res, 1,
						     &share), 0);
			uncharge(quotas[i], share, res, 1);
		}
		KUNIT_EXPECT_EQ(test, user->n_creditors, BUS1_CREDITORS_MAX);
		KUNIT_EXPECT_EQ(test, list_count_nodes(&user->creditors),
				user->n_creditors);
		/* Those that did something last, whoever came first */
		for (i = 0; i < n; ++i)
			KUNIT_EXPECT_EQ(test, list_empty(&quotas[i]->creditor_link),
					i < n - BUS1_CREDITORS_MAX);
	}
	/* Nobody is refused for it */
	KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(quotas[n - 1], res,
						    bus1_user_limit(res)), 0);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(quotas[0], res, 1),
			-EDQUOT);
	bus1_quota_uncharge_own(quotas[n - 1], res, bus1_user_limit(res));
	for (i = 0; i < n; ++i) {
		check_quota_unused(test, quotas[i]);
		bus1_quota_deinit(quotas[i]);
	}
	check_user_unused(test, user);
	KUNIT_EXPECT_EQ(test, user->n_creditors, 0);
	bus1_user_unref(user);
}

/* Charge and give back one slice, which is then parked. */
static void park(struct kunit *test, struct bus1_quota *quota,
		 struct bus1_user *user)
{
	struct bus1_share *share;

	KUNIT_EXPECT_EQ(test, charge(quota, user, BUS1_RESOURCE_SLICES, 1,
				     &share), 0);
	uncharge(quota, share, BUS1_RESOURCE_SLICES, 1);
	KUNIT_EXPECT_EQ(test, quota->parked.n[BUS1_RESOURCE_SLICES], 1);
}

/* Charge @cost to the own user, give it back, and see that it is parked, and then taken. */
static void check_is_parked(struct kunit *test, struct bus1_quota *quota,
			    struct bus1_user *user, const struct bus1_cost *cost)
{
	const struct bus1_cost none = {};
	struct bus1_cost plain = *cost, rest = *cost;
	struct bus1_share *share;
	unsigned int round;

	plain.n[BUS1_RESOURCE_HANDLES] = 0;
	plain.n[BUS1_RESOURCE_FDS] = 0;
	rest.n[BUS1_RESOURCE_SLICES] = 0;
	rest.n[BUS1_RESOURCE_BYTES] = 0;
	for (round = 0; round < 2; ++round) {
		KUNIT_EXPECT_EQ(test, bus1_quota_charge(quota, user, cost, &share), 0);
		KUNIT_EXPECT_EQ(test, memcmp(&quota->parked, &none, sizeof(none)), 0);
		bus1_quota_uncharge(quota, share, &rest);
		bus1_quota_uncharge(quota, share, &plain);
		KUNIT_EXPECT_EQ(test, memcmp(&quota->parked, cost, sizeof(*cost)), 0);
	}
}

static const struct bus1_cost parked_rest = { { 0, 1, 0, 2 } };
static const struct bus1_cost parked_plain = { { 1, 0, 72, 0 } };
static const struct bus1_cost parked_all = { { 1, 1, 72, 2 } };

/* What a message carried is parked with its slice, though it is given back earlier. */
static void bus1_quota_test_parked_rest(struct kunit *test)
{
	const struct bus1_cost rest = parked_rest, plain = parked_plain;
	const struct bus1_cost all = parked_all;
	struct bus1_user *user = user_get(test, 0);
	struct bus1_quota *quota = quota_new(test, user, 1);
	struct bus1_share *share, *second;
	unsigned int i, round;

	for (round = 0; round < 3; ++round) {
		KUNIT_EXPECT_EQ(test, bus1_quota_charge(quota, user, &all, &share), 0);
		for (i = 0; i < BUS1_RESOURCE_N; ++i) {
			KUNIT_EXPECT_EQ(test, quota->parked.n[i], 0);
			KUNIT_EXPECT_EQ(test, quota_held(quota, i), all.n[i]);
		}
		bus1_quota_uncharge(quota, share, &rest);
		KUNIT_EXPECT_EQ(test, quota->parked.n[BUS1_RESOURCE_FDS], 2);
		bus1_quota_uncharge(quota, share, &plain);
		KUNIT_EXPECT_EQ(test, memcmp(&quota->parked, &all, sizeof(all)), 0);
		for (i = 0; i < BUS1_RESOURCE_N; ++i)
			KUNIT_EXPECT_EQ(test, quota_held(quota, i), 0);
	}

	/* It is not that of a message without, which parks its own */
	KUNIT_EXPECT_EQ(test, bus1_quota_charge(quota, user, &plain, &share), 0);
	KUNIT_EXPECT_EQ(test, quota->received[BUS1_RESOURCE_FDS].total, 0);
	bus1_quota_uncharge(quota, share, &plain);
	KUNIT_EXPECT_EQ(test, memcmp(&quota->parked, &plain, sizeof(plain)), 0);

	/* Of several messages it is one */
	KUNIT_EXPECT_EQ(test, bus1_quota_charge(quota, user, &all, &share), 0);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge(quota, user, &all, &second), 0);
	bus1_quota_uncharge(quota, share, &rest);
	bus1_quota_uncharge(quota, second, &rest);
	bus1_quota_uncharge(quota, second, &plain);
	bus1_quota_uncharge(quota, share, &plain);
	KUNIT_EXPECT_EQ(test, memcmp(&quota->parked, &all, sizeof(all)), 0);
	for (i = 0; i < BUS1_RESOURCE_N; ++i)
		KUNIT_EXPECT_EQ(test, quota->received[i].total, all.n[i]);

	check_quota_unused(test, quota);
	bus1_quota_deinit(quota);
	check_user_unused(test, user);
	bus1_user_unref(user);
}

/* Whatever it is of is parked, but bytes without a slice; and in nobody's way. */
static void bus1_quota_test_parked_rest_limits(struct kunit *test)
{
	const u32 limit = bus1_user_limit(BUS1_RESOURCE_FDS);
	const struct bus1_cost rest = parked_rest, plain = parked_plain;
	const struct bus1_cost all = parked_all;
	struct bus1_user *user = user_get(test, 0);
	struct bus1_quota *quota = quota_new(test, user, 1);
	struct bus1_share *share, *second;

	/* What there was none of before has no limit that was seen */
	check_is_parked(test, quota, user, &(struct bus1_cost){ { 1, 0, 0, 0 } });
	check_is_parked(test, quota, user, &(struct bus1_cost){ { 1, 1, 8, 0 } });
	check_is_parked(test, quota, user, &(struct bus1_cost){ { 1, 0, 4, 1 } });
	KUNIT_EXPECT_EQ(test, bus1_quota_charge(quota, user, &plain, &share), 0);
	KUNIT_EXPECT_EQ(test, charge(quota, user, BUS1_RESOURCE_BYTES, 100, &second), 0);
	uncharge(quota, second, BUS1_RESOURCE_BYTES, 100);
	bus1_quota_uncharge(quota, share, &plain);
	KUNIT_EXPECT_EQ(test, memcmp(&quota->parked, &plain, sizeof(plain)), 0);

	/* Own commands, and limits */
	KUNIT_EXPECT_EQ(test, bus1_quota_charge(quota, user, &all, &share), 0);
	bus1_quota_uncharge(quota, share, &rest);
	bus1_quota_uncharge(quota, share, &plain);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(quota, BUS1_RESOURCE_FDS, limit),
			0);
	bus1_quota_uncharge_own(quota, BUS1_RESOURCE_FDS, limit);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge(quota, user, &all, &share), 0);
	bus1_quota_uncharge(quota, share, &rest);
	bus1_quota_uncharge(quota, share, &plain);
	quota_limit(quota, BUS1_RESOURCE_FDS, 1);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge(quota, user, &all, &share), -EDQUOT);
	quota_limit(quota, BUS1_RESOURCE_FDS, 2);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge(quota, user, &all, &share), 0);
	quota_limit(quota, BUS1_RESOURCE_FDS, 0);
	bus1_quota_uncharge(quota, share, &rest);
	KUNIT_EXPECT_EQ(test, quota->parked.n[BUS1_RESOURCE_FDS], 0);
	bus1_quota_uncharge(quota, share, &plain);

	check_quota_unused(test, quota);
	bus1_quota_deinit(quota);
	check_user_unused(test, user);
	bus1_user_unref(user);
}

/* What is parked is the next charge if that is the same, and else in nobody's way. */
static void bus1_quota_test_parked(struct kunit *test)
{
	const enum bus1_resource res = BUS1_RESOURCE_SLICES;
	const u32 limit = bus1_user_limit(res);
	struct bus1_user *user = user_get(test, 0), *other = user_get(test, 1);
	struct bus1_share *share, *second;
	struct bus1_quota *a = quota_new(test, user, 1);
	struct bus1_quota *b = quota_new(test, user, 2);
	struct bus1_cost more = { { 1, 0, 4, 0 } };
	struct bus1_cost limits;

	/* Taken as it is */
	park(test, a, user);
	KUNIT_EXPECT_EQ(test, charge(a, user, res, 1, &share), 0);
	KUNIT_EXPECT_EQ(test, a->parked.n[res], 0);
	KUNIT_EXPECT_EQ(test, a->received[res].total, 1);
	/* There is one at a time */
	KUNIT_EXPECT_EQ(test, charge(a, user, res, 1, &second), 0);
	uncharge(a, share, res, 1);
	uncharge(a, second, res, 1);
	KUNIT_EXPECT_EQ(test, a->received[res].total, 1);
	KUNIT_EXPECT_EQ(test, quota_held(a, res), 0);

	/* Not by another user, nor by a charge of something else */
	KUNIT_EXPECT_EQ(test, charge(a, other, res, 1, &share), 0);
	KUNIT_EXPECT_EQ(test, a->received[res].total, 1);
	uncharge(a, share, res, 1);
	park(test, a, user);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge(a, user, &more, &share), 0);
	KUNIT_EXPECT_EQ(test, a->received[res].total, 1);
	bus1_quota_uncharge(a, share, &more);

	/* Not in the way of own commands, of siblings, or of a limit */
	park(test, a, user);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(a, res, limit), 0);
	bus1_quota_uncharge_own(a, res, limit);
	park(test, a, user);
	park(test, b, user);
	KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(b, res, limit), 0);
	KUNIT_EXPECT_EQ(test, charge(a, user, res, 1, &share), -EDQUOT);
	bus1_quota_uncharge_own(b, res, limit);
	park(test, a, user);
	quota_limit(a, res, 0);
	KUNIT_EXPECT_EQ(test, charge(a, user, res, 1, &share), -EDQUOT);
	quota_limit(a, res, 2);
	KUNIT_EXPECT_EQ(test, charge(a, user, res, 2, &share), 0);
	quota_limit(a, res, 1);
	uncharge(a, share, res, 1);
	KUNIT_EXPECT_EQ(test, charge(a, user, res, 1, &second), -EDQUOT);
	uncharge(a, share, res, 1);

	/* Nor seen by those who ask for the limits and set them again */
	park(test, a, user);
	bus1_quota_get_limits(a, &limits);
	bus1_quota_set_limits(a, &limits);
	check_quota_unused(test, a);
	check_quota_unused(test, b);
	bus1_quota_deinit(a);
	bus1_quota_deinit(b);
	check_user_unused(test, user);
	bus1_user_unref(other);
	bus1_user_unref(user);
}

/*
 * Threads that charge and uncharge at random. Each thread counts for others what
 * it has, after it was charged and until before it is uncharged: so the sums are
 * never more than what was really charged, and never above a limit.
 */
#define N_USERS		2
#define N_QUOTAS	4
#define N_HELD		24
#define N_THREADS	4
#define N_ROUNDS	4000

struct purchase {
	unsigned int quota;
	struct bus1_share *share;
	struct bus1_cost cost;
	enum bus1_resource own;
	bool is_own;
	bool held;
};

struct market {
	struct bus1_user *users[N_USERS];
	struct bus1_quota quotas[N_QUOTAS];
	atomic64_t of_user[N_USERS][BUS1_RESOURCE_N];
	atomic64_t of_quota[N_QUOTAS][BUS1_RESOURCE_N];
	atomic_t n_refused;
	atomic_t n_charged;
	struct purchase held[N_THREADS][N_HELD];
};

static u64 market_limit(unsigned int quota, enum bus1_resource res)
{
	return quota % 2 ? bus1_user_limit(res) / 4 : bus1_user_limit(res);
}

static void market_count(struct bus1_crew *crew, struct market *market,
			 const struct purchase *p)
{
	u64 sum;
	unsigned int i;

	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		sum = atomic64_add_return(p->cost.n[i],
					  &market->of_quota[p->quota][i]);
		bus1_crew_expect(crew, sum <= market_limit(p->quota, i));
		sum = atomic64_add_return(p->cost.n[i],
					  &market->of_user[p->quota % N_USERS][i]);
		bus1_crew_expect(crew, sum <= bus1_user_limit(i));
	}
}

static void market_uncount(struct market *market, const struct purchase *p)
{
	unsigned int i;

	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		atomic64_sub(p->cost.n[i], &market->of_quota[p->quota][i]);
		atomic64_sub(p->cost.n[i],
			     &market->of_user[p->quota % N_USERS][i]);
	}
}

static void market_buy(struct bus1_crew *crew, struct market *market,
		       struct rnd_state *rnd, struct purchase *p)
{
	struct bus1_quota *quota;
	unsigned int i;
	int r;

	*p = (struct purchase){ .quota = bus1_rnd(rnd, N_QUOTAS) };
	quota = &market->quotas[p->quota];
	p->is_own = bus1_rnd(rnd, 4) == 0;
	p->own = bus1_rnd(rnd, BUS1_RESOURCE_N);
	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		/* Little, or so much that a few of them are too much */
		if (p->is_own ? i == p->own : bus1_rnd(rnd, 2))
			p->cost.n[i] = 1 + bus1_rnd(rnd, bus1_rnd(rnd, 2) ? 20 :
						    bus1_user_limit(i) / 8);
	}
	if (p->is_own)
		r = bus1_quota_charge_own(quota, p->own, p->cost.n[p->own]);
	else
		r = bus1_quota_charge(quota,
				      market->users[bus1_rnd(rnd, N_USERS)],
				      &p->cost, &p->share);
	bus1_crew_expect(crew, !r || r == -EDQUOT);
	p->held = !r;
	atomic_inc(r ? &market->n_refused : &market->n_charged);
	if (p->held)
		market_count(crew, market, p);
}

static void market_sell(struct market *market, struct purchase *p)
{
	struct bus1_quota *quota = &market->quotas[p->quota];

	market_uncount(market, p);
	p->held = false;
	if (p->is_own)
		bus1_quota_uncharge_own(quota, p->own, p->cost.n[p->own]);
	else
		bus1_quota_uncharge(quota, p->share, &p->cost);
}

static void market_work(struct bus1_crew *crew, unsigned int index)
{
	struct market *market = crew->context;
	struct purchase *held = market->held[index], *p;
	struct rnd_state rnd;
	unsigned int i;

	bus1_rnd_init(&rnd, index);
	for (i = 0; i < N_ROUNDS; ++i) {
		p = &held[bus1_rnd(&rnd, N_HELD)];
		if (p->held)
			market_sell(market, p);
		else
			market_buy(crew, market, &rnd, p);
		cond_resched();
	}
	for (i = 0; i < N_HELD; ++i) {
		if (held[i].held)
			market_sell(market, &held[i]);
	}
}

static void bus1_quota_test_threads(struct kunit *test)
{
	struct bus1_crew *crew;
	struct market *market;
	unsigned int i, j;

	crew = kunit_kzalloc(test, sizeof(*crew), GFP_KERNEL);
	market = kunit_kzalloc(test, sizeof(*market), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, crew);
	KUNIT_ASSERT_NOT_NULL(test, market);
	for (i = 0; i < N_USERS; ++i)
		market->users[i] = user_get(test, i);
	for (i = 0; i < N_QUOTAS; ++i) {
		bus1_quota_init(&market->quotas[i], market->users[i % N_USERS],
				i);
		for (j = 0; j < BUS1_RESOURCE_N; ++j)
			quota_limit(&market->quotas[i], j, market_limit(i, j));
	}

	bus1_crew_start(test, crew, N_THREADS, market_work, market);
	bus1_crew_finish(test, crew);

	kunit_info(test, "%d charged, %d refused",
		   atomic_read(&market->n_charged),
		   atomic_read(&market->n_refused));
	KUNIT_EXPECT_GT(test, atomic_read(&market->n_charged), 0);
	KUNIT_EXPECT_GT(test, atomic_read(&market->n_refused), 0);
	/* All that was lent is there again: everything can be had at once */
	for (i = 0; i < N_QUOTAS; ++i) {
		check_quota_unused(test, &market->quotas[i]);
		for (j = 0; j < BUS1_RESOURCE_N; ++j) {
			u32 limit = market_limit(i, j);

			KUNIT_EXPECT_EQ(test, bus1_quota_charge_own(&market->quotas[i],
								    j, limit), 0);
			bus1_quota_uncharge_own(&market->quotas[i], j, limit);
		}
	}
	for (i = 0; i < N_QUOTAS; ++i)
		bus1_quota_deinit(&market->quotas[i]);
	for (i = 0; i < N_USERS; ++i) {
		check_user_unused(test, market->users[i]);
		bus1_user_unref(market->users[i]);
	}
}

static struct kunit_case bus1_quota_cases[] = {
	KUNIT_CASE(bus1_quota_test_peer_limit),
	KUNIT_CASE(bus1_quota_test_user_limit),
	KUNIT_CASE(bus1_quota_test_all_or_none),
	KUNIT_CASE(bus1_quota_test_sender_shares),
	KUNIT_CASE(bus1_quota_test_sibling_shares),
	KUNIT_CASE(bus1_quota_test_credit),
	KUNIT_CASE(bus1_quota_test_creditors),
	KUNIT_CASE(bus1_quota_test_parked),
	KUNIT_CASE(bus1_quota_test_parked_rest),
	KUNIT_CASE(bus1_quota_test_parked_rest_limits),
	KUNIT_CASE_SLOW(bus1_quota_test_threads),
	{}
};

static struct kunit_suite bus1_quota_suite = {
	.name = "bus1_quota",
	.test_cases = bus1_quota_cases,
};

kunit_test_suite(bus1_quota_suite);
