// SPDX-License-Identifier: GPL-2.0-only

/*
 * Locks, outermost first. All are taken in process context only.
 *
 * rank  lock              protects
 * 1     bus1_users_lock   the table of users; the last reference of a user
 * 1     user->lock        what a user has reserved, its list of creditors
 * 2     quota->lock       what a quota holds, its shares and its credit
 *
 * Locks of one rank do not nest, but for those of two quotas in
 * bus1_user_evict_locked(), which user->lock keeps apart. Memory is allocated and
 * freed, references are dropped and tracepoints are hit without any of them.
 */

#include <linux/build_bug.h>
#include <linux/err.h>
#include <linux/limits.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/math.h>
#include <linux/math64.h>
#include <linux/minmax.h>
#include <linux/rbtree.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/uidgid.h>
#include <linux/user_namespace.h>
#include "quota.h"
#include "trace.h"
#include "user.h"
#include "util/fair.h"

/* How many shares that hold nothing a quota keeps. */
#define BUS1_QUOTA_IDLE_MAX	8
/* How many shares are copied out at a time for bus1_quota_show(). */
#define BUS1_QUOTA_SHOW_BATCH	16

/**
 * struct bus1_refusal - why a charge was refused
 * @layer: which budget, or share of it
 * @resource: of which resource
 * @held: what was held already
 * @limit: the budget
 */
struct bus1_refusal {
	enum bus1_layer layer;
	enum bus1_resource resource;
	u64 held;
	u32 limit;
};

/**
 * struct bus1_charge - a charge under way
 * @cost: how much
 * @share: on whose behalf, NULL for own commands
 * @class: what for
 * @covered: whether there is credit for all of @cost
 * @max: the user's limits that it goes by, of the resources in @cost
 * @refusal: why it was refused
 */
struct bus1_charge {
	const struct bus1_cost *cost;
	struct bus1_share *share;
	enum bus1_class class;
	bool covered;
	u32 max[BUS1_RESOURCE_N];
	struct bus1_refusal refusal;
};

static struct kmem_cache *bus1_share_cache;

/* What is reserved at a time, if the limit is not small. */
static const u32 bus1_credit_batches[BUS1_RESOURCE_N] = {
	[BUS1_RESOURCE_SLICES]	= 16,
	[BUS1_RESOURCE_HANDLES]	= 16,
	[BUS1_RESOURCE_BYTES]	= 64 * 1024,
	[BUS1_RESOURCE_FDS]	= 4,
};

static const char * const bus1_resource_names[BUS1_RESOURCE_N] = {
	[BUS1_RESOURCE_SLICES]	= "slices",
	[BUS1_RESOURCE_HANDLES]	= "handles",
	[BUS1_RESOURCE_BYTES]	= "bytes",
	[BUS1_RESOURCE_FDS]	= "fds",
};

/**
 * bus1_quota_module_init() - set up what quotas need
 *
 * Context: process context, may sleep.
 * Return: 0, or -ENOMEM.
 */
int bus1_quota_module_init(void)
{
	bus1_share_cache = KMEM_CACHE(bus1_share, SLAB_ACCOUNT);
	return bus1_share_cache ? 0 : -ENOMEM;
}

/**
 * bus1_quota_module_exit() - undo bus1_quota_module_init()
 *
 * No shares may be left.
 *
 * Context: process context, may sleep.
 */
void bus1_quota_module_exit(void)
{
	kmem_cache_destroy(bus1_share_cache);
}

static struct bus1_share *bus1_share_new(struct bus1_user *user)
{
	struct bus1_share *share;
	unsigned int i;

	share = kmem_cache_zalloc(bus1_share_cache, GFP_KERNEL);
	if (!share)
		return NULL;
	share->user = bus1_user_ref(user);
	INIT_LIST_HEAD(&share->idle_link);
	for (i = 0; i < BUS1_RESOURCE_N; ++i)
		bus1_fair_member_init(&share->held[i], false);
	return share;
}

static void bus1_share_free(struct bus1_share *share)
{
	if (!share)
		return;
	bus1_user_unref(share->user);
	kmem_cache_free(bus1_share_cache, share);
}

static bool bus1_share_is_empty(const struct bus1_share *share)
{
	unsigned int i;

	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		if (share->held[i].used)
			return false;
	}
	return true;
}

/* The share of @user, or NULL. The own share is always there. */
static struct bus1_share *
bus1_quota_find_share_locked(struct bus1_quota *quota,
			     const struct bus1_user *user)
{
	struct rb_node *rb = quota->shares.rb_node;
	struct bus1_share *share;

	lockdep_assert_held(&quota->lock);

	if (user == quota->user)
		return &quota->own_share;
	while (rb) {
		share = rb_entry(rb, struct bus1_share, rb);
		if (user == share->user)
			return share;
		rb = user < share->user ? rb->rb_left : rb->rb_right;
	}
	return NULL;
}

static void bus1_quota_add_share_locked(struct bus1_quota *quota,
					struct bus1_share *share)
{
	struct rb_node **slot = &quota->shares.rb_node, *parent = NULL;
	struct bus1_share *at;

	lockdep_assert_held(&quota->lock);

	while (*slot) {
		parent = *slot;
		at = rb_entry(parent, struct bus1_share, rb);
		slot = share->user < at->user ? &parent->rb_left :
						&parent->rb_right;
	}
	rb_link_node(&share->rb, parent, slot);
	rb_insert_color(&share->rb, &quota->shares);
}

/* It is used, or about to be. */
static void bus1_quota_reuse_share_locked(struct bus1_quota *quota,
					  struct bus1_share *share)
{
	lockdep_assert_held(&quota->lock);

	if (!list_empty(&share->idle_link)) {
		list_del_init(&share->idle_link);
		--quota->n_idle;
	}
}

/* Pin the share of @user. If there is none, add @spare; NULL without @spare. */
static struct bus1_share *
bus1_quota_pin_share_locked(struct bus1_quota *quota, struct bus1_user *user,
			    struct bus1_share *spare)
{
	struct bus1_share *share;

	share = bus1_quota_find_share_locked(quota, user);
	if (!share) {
		if (!spare)
			return NULL;
		bus1_quota_add_share_locked(quota, spare);
		share = spare;
	}
	if (share != &quota->own_share) {
		bus1_quota_reuse_share_locked(quota, share);
		++share->pins;
	}
	return share;
}

/*
 * If @share is not needed any more, put it aside. Returns a share that has
 * been put aside for long, for the caller to free without the lock.
 */
static struct bus1_share *bus1_quota_idle_share_locked(struct bus1_quota *quota,
						       struct bus1_share *share)
{
	lockdep_assert_held(&quota->lock);

	if (share == &quota->own_share || share->pins ||
	    !bus1_share_is_empty(share))
		return NULL;

	list_add_tail(&share->idle_link, &quota->idle);
	if (++quota->n_idle <= BUS1_QUOTA_IDLE_MAX)
		return NULL;

	share = list_first_entry(&quota->idle, struct bus1_share, idle_link);
	list_del_init(&share->idle_link);
	--quota->n_idle;
	rb_erase(&share->rb, &quota->shares);
	return share;
}

static struct bus1_share *
bus1_quota_unpin_share_locked(struct bus1_quota *quota,
			      struct bus1_share *share)
{
	lockdep_assert_held(&quota->lock);

	if (share == &quota->own_share)
		return NULL;
	--share->pins;
	return bus1_quota_idle_share_locked(quota, share);
}

static bool bus1_cost_is_zero(const struct bus1_cost *cost)
{
	BUILD_BUG_ON(BUS1_RESOURCE_N != 4);
	return !(cost->n[0] | cost->n[1] | cost->n[2] | cost->n[3]);
}

/*
 * The other way round than bus1_quota_commit_locked(). Returns a share to be
 * freed, see bus1_quota_idle_share_locked().
 */
static struct bus1_share *
bus1_quota_release_locked(struct bus1_quota *quota, struct bus1_share *share,
			  const struct bus1_cost *cost)
{
	enum bus1_class class = share ? BUS1_CLASS_RECEIVED : BUS1_CLASS_OWN;
	unsigned int i;
	u32 n;

	lockdep_assert_held(&quota->lock);

#pragma GCC unroll 4 /* Most cost nothing of most */
	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		n = cost->n[i];
		if (!n)
			continue;
		if (share) {
			if (WARN_ON_ONCE(n > share->held[i].used))
				n = share->held[i].used;
			bus1_fair_uncharge(&quota->received[i],
					   &share->held[i], n);
		} else {
			if (WARN_ON_ONCE(n > quota->own[i]))
				n = quota->own[i];
			quota->own[i] -= n;
		}
		quota->credit[class][i] += n;
	}
	return share ? bus1_quota_idle_share_locked(quota, share) : NULL;
}

/*
 * A sender usually sends the next message once the last one was given back, so what
 * the own user gives back is kept aside as it is: still held, by @own_share and of
 * what is reserved. Whoever looks at a quota, or changes it, first makes of it what it
 * stands for, which is credit.
 */
static void bus1_quota_unpark_locked(struct bus1_quota *quota)
{
	lockdep_assert_held(&quota->lock);

	if (bus1_cost_is_zero(&quota->parked))
		return;
	bus1_quota_release_locked(quota, &quota->own_share, &quota->parked);
	quota->parked = (struct bus1_cost){};
}

/* One slice, and how long it is: all of most messages. */
static bool bus1_cost_is_plain(const struct bus1_cost *cost)
{
	return cost->n[BUS1_RESOURCE_SLICES] == 1 &&
	       !(cost->n[BUS1_RESOURCE_HANDLES] | cost->n[BUS1_RESOURCE_FDS]);
}

/* Take what is parked, if that is @cost, and the user's limits have not changed. */
static bool bus1_quota_take_parked_locked(struct bus1_quota *quota,
					  const struct bus1_cost *cost)
{
	unsigned int i;

	lockdep_assert_held(&quota->lock);

	if (memcmp(&quota->parked, cost, sizeof(*cost)))
		return false;
#pragma GCC unroll 4 /* Most cost nothing of most */
	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		if (cost->n[i] && quota->seen[i] != bus1_user_limit(i))
			return false;
	}
	quota->parked = (struct bus1_cost){};
	return true;
}

/* How much credit to reserve at a time, for a user's limit of @max. */
static u32 bus1_credit_batch(enum bus1_resource res, u32 max)
{
	return min(bus1_credit_batches[res], max / 256);
}

/* What the quotas of a user have reserved; at most U32_MAX. */
static u64 bus1_user_reserved_locked(struct bus1_user *user,
				     enum bus1_resource res)
{
	lockdep_assert_held(&user->lock);
	return (u64)user->reserved[res].total + user->own[res];
}

/* Give credit back to the user, and keep at most @keep. */
static void bus1_quota_return_locked(struct bus1_quota *quota,
				     enum bus1_class class,
				     enum bus1_resource res, u32 keep)
{
	struct bus1_user *user = quota->user;
	u32 n;

	lockdep_assert_held(&user->lock);
	lockdep_assert_held(&quota->lock);

	if (quota->credit[class][res] <= keep)
		return;
	n = quota->credit[class][res] - keep;
	quota->credit[class][res] = keep;
	if (class == BUS1_CLASS_RECEIVED)
		bus1_fair_uncharge(&user->reserved[res],
				   &quota->reserved[res], n);
	else
		user->own[res] -= n;
}

/*
 * Take all credit from the one that has been on the list for longest: the list is walked
 * with the lock of the user held, so it must not grow for ever, and whoever does nothing
 * must not keep others from it. The lock of one more quota is held.
 */
static void bus1_user_evict_locked(struct bus1_user *user)
{
	struct bus1_quota *quota = list_first_entry(&user->creditors,
						    struct bus1_quota,
						    creditor_link);
	unsigned int class, i;

	lockdep_assert_held(&user->lock);

	spin_lock_nested(&quota->lock, SINGLE_DEPTH_NESTING);
	bus1_quota_unpark_locked(quota);
	for (class = 0; class < BUS1_CLASS_N; ++class) {
		for (i = 0; i < BUS1_RESOURCE_N; ++i)
			bus1_quota_return_locked(quota, class, i, 0);
	}
	list_del_init(&quota->creditor_link);
	--user->n_creditors;
	spin_unlock(&quota->lock);
}

/*
 * Keep no more credit than is due, and be on the list if there is any. Only a
 * quota on the list may turn what it returns into credit on its own.
 */
static void bus1_quota_settle_locked(struct bus1_quota *quota)
{
	struct bus1_user *user = quota->user;
	bool any = false, listed;
	unsigned int class, i;
	u32 batch, keep;

	lockdep_assert_held(&user->lock);
	lockdep_assert_held(&quota->lock);

	bus1_quota_unpark_locked(quota);
	listed = !list_empty(&quota->creditor_link);
	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		batch = bus1_credit_batch(i, user->reserved[i].budget);
		for (class = 0; class < BUS1_CLASS_N; ++class) {
			keep = quota->credit[class][i];
			if (user->tight[i])
				keep = 0;
			else if (keep > 2 * batch)
				keep = batch;
			bus1_quota_return_locked(quota, class, i, keep);
			any = any || keep;
		}
	}

	if (any && !listed) {
		if (user->n_creditors == BUS1_CREDITORS_MAX)
			bus1_user_evict_locked(user);
		list_add_tail(&quota->creditor_link, &user->creditors);
		++user->n_creditors;
	} else if (!any && listed) {
		list_del_init(&quota->creditor_link);
		--user->n_creditors;
	}
}

/*
 * Make a resource tight, and take all credit back. From the moment that a
 * quota's lock was held here, it sees @tight and puts nothing aside.
 */
static void bus1_user_tighten_locked(struct bus1_user *user,
				     enum bus1_resource res, u32 max)
{
	struct bus1_quota *quota, *next;

	lockdep_assert_held(&user->lock);

	/*
	 * [tight:A] pairs with [tight:B] in bus1_quota_is_tight_locked(): set
	 * before the locks of the quotas are taken.
	 */
	WRITE_ONCE(user->tight[res], true);
	list_for_each_entry_safe(quota, next, &user->creditors, creditor_link) {
		spin_lock(&quota->lock);
		bus1_quota_settle_locked(quota);
		spin_unlock(&quota->lock);
	}
	if (user->reserved[res].budget != max)
		bus1_fair_set_budget(&user->reserved[res], max);
}

/* Allow credit again, where use has gone down well below where it stopped. */
static void bus1_user_relax_locked(struct bus1_user *user)
{
	unsigned int i;

	lockdep_assert_held(&user->lock);

	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		if (user->tight[i] && bus1_user_reserved_locked(user, i) <=
					user->reserved[i].budget / 8)
			WRITE_ONCE(user->tight[i], false);
	}
}

static int bus1_charge_refuse(struct bus1_charge *charge,
			      enum bus1_layer layer, enum bus1_resource res,
			      u64 held, u32 limit)
{
	charge->refusal = (struct bus1_refusal){
		.layer = layer,
		.resource = res,
		.held = held,
		.limit = limit,
	};
	return -EDQUOT;
}

/*
 * Is there room in the first layer? This changes nothing but budgets. Charges
 * of nothing succeed, even if more is held than is allowed. Notes whether there
 * is credit for everything, which spares the second layer.
 */
static int bus1_quota_check_locked(struct bus1_quota *quota,
				   struct bus1_charge *charge)
{
	struct bus1_fair *fair;
	u32 n, limit, budget;
	unsigned int i;
	u64 held;

	lockdep_assert_held(&quota->lock);

	charge->covered = true;
	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		n = charge->cost->n[i];
		if (!n)
			continue;
		charge->max[i] = bus1_user_limit(i);
		if (quota->credit[charge->class][i] < n ||
		    quota->seen[i] != charge->max[i])
			charge->covered = false;
		limit = quota->limits[i];
		budget = min(limit, charge->max[i]);
		fair = &quota->received[i];
		held = (u64)fair->total + quota->own[i];
		if (held + n > limit)
			return bus1_charge_refuse(charge, BUS1_LAYER_PEER_LIMIT,
						  i, held, limit);
		if (held + n > budget)
			return bus1_charge_refuse(charge, BUS1_LAYER_USER_LIMIT,
						  i, held, budget);
		/* own commands, and the own user, are bound by limits only */
		if (!charge->share || charge->share == &quota->own_share)
			continue;
		/*
		 * No peer may hold more than half of what its user may, see
		 * bus1_quota_reserve_locked(): what it can't have it can't share.
		 */
		budget = min(budget, DIV_ROUND_UP(charge->max[i], 2));
		if (fair->budget != budget)
			bus1_fair_set_budget(fair, budget);
		if (!bus1_fair_may_charge(fair, &charge->share->held[i], n))
			return bus1_charge_refuse(charge,
						  BUS1_LAYER_SENDER_SHARE, i,
						  charge->share->held[i].used,
						  budget);
	}
	return 0;
}

/*
 * When much of the user's budget is held by siblings, a peer can get less than its
 * senders share in the first layer, and the first of them could take it all. So of
 * what the peer could get at this moment, a sender leaves to those to come what the
 * next one is owed, and a fraction of 1/(n+1) of what all hold, n being the senders;
 * or it holds no more than its share of that. @sum is what the user has reserved.
 */
static bool bus1_quota_leaves_share_locked(struct bus1_quota *quota,
					   const struct bus1_charge *charge,
					   enum bus1_resource res, u64 sum,
					   u32 need)
{
	const struct bus1_fair_member *peer = &quota->reserved[res], *sender;
	const struct bus1_fair *fair = &quota->user->reserved[res];
	u64 used, held, n, rest;

	lockdep_assert_held(&quota->user->lock);
	lockdep_assert_held(&quota->lock);

	if (!charge->share || charge->share == &quota->own_share)
		return true;

	sender = &charge->share->held[res];
	used = (u64)sender->used + charge->cost->n[res];
	held = (u64)peer->used + need;
	n = (u64)quota->received[res].n_members + !sender->used;

	rest = n >= U16_MAX ? 0 : div64_u64(quota->received[res].budget,
					    (n + 2) * (n + 2));
	rest = max(min(rest, used), div64_u64(held + n, n + 1));
	if (sum + need + rest <= fair->budget &&
	    bus1_fair_may_charge(fair, peer, need + rest))
		return true;

	/* What the peer would hold if everybody had a share like this one */
	n = (n + 1) * (n + 1);
	if (used == 1)
		return true;
	if (n > fair->budget || used * n > fair->budget)
		return false;
	n = used * n;
	return n <= held ||
	       (sum + n - peer->used <= fair->budget &&
		bus1_fair_may_charge(fair, peer, n - peer->used));
}

/*
 * Reserve from the user what credit does not cover. Returns 0, -EDQUOT, or
 * -EAGAIN if all credit of this resource has to be taken back first.
 */
static int bus1_quota_reserve_locked(struct bus1_quota *quota,
				     struct bus1_charge *charge,
				     enum bus1_resource res)
{
	u32 max = charge->max[res], need = charge->cost->n[res], batch;
	u32 *credit = &quota->credit[charge->class][res];
	struct bus1_fair_member *member = &quota->reserved[res];
	struct bus1_user *user = quota->user;
	struct bus1_fair *fair = &user->reserved[res];
	u64 sum = bus1_user_reserved_locked(user, res);

	lockdep_assert_held(&quota->lock);

	if (fair->budget != max) {
		if (sum)
			return -EAGAIN;
		bus1_fair_set_budget(fair, max);
	}
	quota->seen[res] = max;
	if (*credit >= need)
		return 0;
	need -= *credit;

	if (!user->tight[res]) {
		batch = bus1_credit_batch(res, max);
		if (sum + need + batch <= max / 4)
			need += batch;
		else if (sum + need > max / 4)
			return -EAGAIN;
	}
	if (sum + need > max)
		return bus1_charge_refuse(charge, BUS1_LAYER_USER_LIMIT, res,
					  sum, max);
	fair->outside = user->own[res];
	if (charge->class == BUS1_CLASS_OWN) {
		user->own[res] += need;
	} else if (user->tight[res] &&
		   !bus1_quota_leaves_share_locked(quota, charge, res, sum,
						   need)) {
		return bus1_charge_refuse(charge, BUS1_LAYER_SENDER_SHARE, res,
					  charge->share->held[res].used,
					  quota->received[res].budget);
	} else if (!bus1_fair_try_charge(fair, member, need)) {
		return bus1_charge_refuse(charge, BUS1_LAYER_SIBLING_SHARE, res,
					  member->used, max);
	}
	*credit += need;
	return 0;
}

/* Take what has been checked and reserved; of own commands if @share is NULL. */
static void bus1_quota_commit_locked(struct bus1_quota *quota,
				     struct bus1_share *share,
				     const struct bus1_cost *cost)
{
	enum bus1_class class = share ? BUS1_CLASS_RECEIVED : BUS1_CLASS_OWN;
	unsigned int i;
	u32 n;

	lockdep_assert_held(&quota->lock);

#pragma GCC unroll 4 /* Most cost nothing of most */
	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		n = cost->n[i];
		if (!n)
			continue;
		quota->credit[class][i] -= n;
		if (share)
			bus1_fair_charge(&quota->received[i], &share->held[i],
					 n);
		else
			quota->own[i] += n;
	}
}

/*
 * What nearly all charges come to: there is credit for all of it, and room. If so,
 * charge it and return true; else nothing has changed, and the rest of this file
 * finds out why. This asks what bus1_quota_check_locked() asks.
 */
static bool bus1_quota_try_charge_locked(struct bus1_quota *quota,
					 struct bus1_share *share,
					 const struct bus1_cost *cost)
{
	enum bus1_class class = share ? BUS1_CLASS_RECEIVED : BUS1_CLASS_OWN;
	struct bus1_fair *fair;
	unsigned int i;
	u32 n, max;

	lockdep_assert_held(&quota->lock);

#pragma GCC unroll 4 /* Most cost nothing of most */
	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		n = cost->n[i];
		if (!n)
			continue;
		fair = &quota->received[i];
		max = bus1_user_limit(i);
		if (quota->credit[class][i] < n || quota->seen[i] != max ||
		    (u64)fair->total + quota->own[i] + n >
		    min(max, quota->limits[i]))
			return false;
		if (!share || share == &quota->own_share)
			continue;
		if (fair->budget != min(quota->limits[i],
					DIV_ROUND_UP(max, 2)) ||
		    !bus1_fair_may_charge(fair, &share->held[i], n))
			return false;
	}
	bus1_quota_commit_locked(quota, share, cost);
	return true;
}

/* Charge without the user: 0, -EDQUOT, or -EAGAIN if the user is needed. */
static int bus1_quota_charge_fast_locked(struct bus1_quota *quota,
					 struct bus1_charge *charge)
{
	int r;

	lockdep_assert_held(&quota->lock);

	bus1_quota_unpark_locked(quota);
	r = bus1_quota_check_locked(quota, charge);
	if (r)
		return r;
	if (!charge->covered)
		return -EAGAIN;
	bus1_quota_commit_locked(quota, charge->share, charge->cost);
	return 0;
}

/* One attempt with the user: -EAGAIN if @res has to be made tight first. */
static int bus1_quota_charge_slow_locked(struct bus1_quota *quota,
					 struct bus1_charge *charge,
					 enum bus1_resource *res)
{
	unsigned int i;
	int r;

	lockdep_assert_held(&quota->user->lock);
	lockdep_assert_held(&quota->lock);

	bus1_quota_unpark_locked(quota);
	r = bus1_quota_check_locked(quota, charge);
	for (i = 0; !r && i < BUS1_RESOURCE_N; ++i) {
		if (!charge->cost->n[i])
			continue;
		*res = i;
		r = bus1_quota_reserve_locked(quota, charge, i);
	}
	if (!r)
		bus1_quota_commit_locked(quota, charge->share, charge->cost);
	bus1_quota_settle_locked(quota);
	return r;
}

/*
 * Charge what credit does not cover. A resource is made tight at most once for
 * each value of its limit, so this comes to an end.
 */
static int bus1_quota_charge_slow(struct bus1_quota *quota,
				  struct bus1_charge *charge)
{
	struct bus1_user *user = quota->user;
	enum bus1_resource res;
	int r;

	spin_lock(&user->lock);
	for (;;) {
		spin_lock(&quota->lock);
		r = bus1_quota_charge_slow_locked(quota, charge, &res);
		spin_unlock(&quota->lock);
		if (r != -EAGAIN)
			break;
		bus1_user_tighten_locked(user, res, charge->max[res]);
	}
	spin_unlock(&user->lock);
	return r;
}

static void bus1_charge_trace(const struct bus1_quota *quota,
			      const struct bus1_charge *charge, kuid_t uid)
{
	const struct bus1_refusal *refusal = &charge->refusal;

	trace_bus1_quota_refused(quota->id, refusal->layer, refusal->resource,
				 uid, charge->cost->n[refusal->resource],
				 refusal->held, refusal->limit);
}

/* bus1_quota_charge(), where it takes more than the quota as it is. */
static noinline int bus1_quota_charge_sender(struct bus1_quota *quota,
					     struct bus1_user *sender,
					     const struct bus1_cost *cost,
					     struct bus1_share **sharep)
{
	struct bus1_share *spare = NULL, *idle;
	struct bus1_charge charge;
	int r;

	charge.cost = cost;
	charge.class = BUS1_CLASS_RECEIVED;
	spin_lock(&quota->lock);
	charge.share = bus1_quota_pin_share_locked(quota, sender, NULL);
	if (!charge.share) {
		spin_unlock(&quota->lock);
		spare = bus1_share_new(sender);
		if (!spare)
			return -ENOMEM;
		spin_lock(&quota->lock);
		charge.share = bus1_quota_pin_share_locked(quota, sender,
							   spare);
	}
	r = bus1_quota_charge_fast_locked(quota, &charge);
	if (r == -EAGAIN) {
		spin_unlock(&quota->lock);
		r = bus1_quota_charge_slow(quota, &charge);
		spin_lock(&quota->lock);
	}
	idle = bus1_quota_unpin_share_locked(quota, charge.share);
	spin_unlock(&quota->lock);

	bus1_share_free(idle);
	if (spare && spare != charge.share)
		bus1_share_free(spare);
	if (r)
		bus1_charge_trace(quota, &charge, sender->uid);
	else
		*sharep = charge.share;
	return r;
}

/* The same, where it takes no more, but nothing is parked that would do. */
static noinline bool bus1_quota_charge_share_locked(struct bus1_quota *quota,
						    struct bus1_user *sender,
						    const struct bus1_cost *cost,
						    struct bus1_share **sharep)
{
	struct bus1_share *share;

	lockdep_assert_held(&quota->lock);

	bus1_quota_unpark_locked(quota);
	share = bus1_quota_find_share_locked(quota, sender);
	if (!share || !bus1_quota_try_charge_locked(quota, share, cost))
		return false;
	bus1_quota_reuse_share_locked(quota, share);
	*sharep = share;
	return true;
}

/**
 * bus1_quota_charge() - charge a peer for what is sent to it
 * @quota: the quota of the receiving peer
 * @sender: the user that sends
 * @cost: how much of each resource
 * @sharep: where to return the share that it is charged on
 *
 * All of @cost is charged, or nothing is. The share stays valid while anything
 * is charged on it, and must not be used after that.
 *
 * Context: process context, may sleep.
 * Return: 0, -EDQUOT if a limit or a share does not allow it, -ENOMEM.
 */
int bus1_quota_charge(struct bus1_quota *quota, struct bus1_user *sender,
		      const struct bus1_cost *cost, struct bus1_share **sharep)
{
	bool charged;

	*sharep = &quota->own_share;
	if (bus1_cost_is_zero(cost))
		return 0;

	spin_lock(&quota->lock);
	charged = (sender == quota->user &&
		   bus1_quota_take_parked_locked(quota, cost)) ||
		  bus1_quota_charge_share_locked(quota, sender, cost, sharep);
	spin_unlock(&quota->lock);
	return likely(charged) ? 0 :
		bus1_quota_charge_sender(quota, sender, cost, sharep);
}

/**
 * bus1_quota_charge_own() - charge a peer for what it takes by a command
 * @quota: the quota of the peer
 * @res: the resource
 * @n: how much, in the unit of the resource
 *
 * Context: process context.
 * Return: 0, or -EDQUOT if a limit does not allow it.
 */
int bus1_quota_charge_own(struct bus1_quota *quota, enum bus1_resource res,
			  u32 n)
{
	struct bus1_cost cost = {};
	struct bus1_charge charge;
	int r;

	if (!n)
		return 0;
	cost.n[res] = n;
	charge.cost = &cost;
	charge.share = NULL;
	charge.class = BUS1_CLASS_OWN;

	spin_lock(&quota->lock);
	r = bus1_quota_charge_fast_locked(quota, &charge);
	spin_unlock(&quota->lock);
	if (r == -EAGAIN)
		r = bus1_quota_charge_slow(quota, &charge);
	if (r)
		bus1_charge_trace(quota, &charge, quota->user->uid);
	return r;
}

static bool bus1_quota_is_tight_locked(const struct bus1_quota *quota,
				       enum bus1_resource res)
{
	lockdep_assert_held(&quota->lock);
	/*
	 * [tight:B] pairs with [tight:A] in bus1_user_tighten_locked(): looked at
	 * under quota->lock. What is put aside by one who came too early for the
	 * flag is there to be taken back.
	 */
	return READ_ONCE(quota->user->tight[res]);
}

/* May @cost become credit, without the user's knowing? */
static bool bus1_quota_may_keep_locked(struct bus1_quota *quota,
				       const struct bus1_share *share,
				       const struct bus1_cost *cost)
{
	enum bus1_class class = share ? BUS1_CLASS_RECEIVED : BUS1_CLASS_OWN;
	unsigned int i;
	u64 credit;

	lockdep_assert_held(&quota->lock);

	/*
	 * Whether it is empty changes under this lock, too. Neighbours that come
	 * and go change where it points, under user->lock, which does not matter.
	 */
	if (list_empty(&quota->creditor_link))
		return false;
#pragma GCC unroll 4 /* Most cost nothing of most */
	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		if (!cost->n[i])
			continue;
		credit = (u64)quota->credit[class][i] + cost->n[i];
		if (bus1_quota_is_tight_locked(quota, i) ||
		    credit > 2 * bus1_credit_batch(i, quota->seen[i]))
			return false;
	}
	return true;
}

/* Is no more held of a resource than what it is held under allows? */
static bool bus1_quota_is_within_locked(const struct bus1_quota *quota,
					enum bus1_resource res)
{
	lockdep_assert_held(&quota->lock);
	return (u64)quota->received[res].total + quota->own[res] <=
	       quota->limits[res];
}

/*
 * May @cost of the own user, which is plain, be parked? It may if it could become credit,
 * how much that is already does not matter as it is one message at a time; and if it could
 * be charged again.
 */
static bool bus1_quota_may_park_locked(struct bus1_quota *quota,
				       const struct bus1_cost *cost)
{
	lockdep_assert_held(&quota->lock);

	return !(quota->parked.n[BUS1_RESOURCE_SLICES] |
		 quota->parked.n[BUS1_RESOURCE_BYTES]) &&
	       cost->n[BUS1_RESOURCE_BYTES] <=
	       bus1_credit_batch(BUS1_RESOURCE_BYTES,
				 quota->seen[BUS1_RESOURCE_BYTES]) &&
	       !list_empty(&quota->creditor_link) &&
	       !bus1_quota_is_tight_locked(quota, BUS1_RESOURCE_SLICES) &&
	       !bus1_quota_is_tight_locked(quota, BUS1_RESOURCE_BYTES) &&
	       bus1_quota_is_within_locked(quota, BUS1_RESOURCE_SLICES) &&
	       bus1_quota_is_within_locked(quota, BUS1_RESOURCE_BYTES);
}

/*
 * The same for what is no slice: what a message carried, given back when it is received,
 * before its slice is.
 */
static noinline bool bus1_quota_may_park_rest_locked(struct bus1_quota *quota,
						     const struct bus1_cost *cost)
{
	unsigned int i;

	lockdep_assert_held(&quota->lock);

	if (cost->n[BUS1_RESOURCE_SLICES] | cost->n[BUS1_RESOURCE_BYTES])
		return false;
	if (!bus1_cost_is_zero(&quota->parked) ||
	    list_empty(&quota->creditor_link))
		return false;
	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		if (cost->n[i] &&
		    (cost->n[i] > bus1_credit_batch(i, quota->seen[i]) ||
		     bus1_quota_is_tight_locked(quota, i) ||
		     !bus1_quota_is_within_locked(quota, i)))
			return false;
	}
	return true;
}

/*
 * Return @cost of @share, or of own commands if that is NULL. If it can't stay
 * with the quota as credit, then it must never look like credit to others, so
 * the user is locked before anything changes.
 */
static noinline void bus1_quota_release(struct bus1_quota *quota,
					struct bus1_share *share,
					const struct bus1_cost *cost)
{
	struct bus1_user *user = quota->user;
	struct bus1_share *idle = NULL;
	bool keep;

	spin_lock(&quota->lock);
	keep = bus1_quota_may_keep_locked(quota, share, cost);
	if (keep)
		idle = bus1_quota_release_locked(quota, share, cost);
	spin_unlock(&quota->lock);

	if (!keep) {
		spin_lock(&user->lock);
		spin_lock(&quota->lock);
		idle = bus1_quota_release_locked(quota, share, cost);
		bus1_quota_settle_locked(quota);
		spin_unlock(&quota->lock);
		bus1_user_relax_locked(user);
		spin_unlock(&user->lock);
	}
	bus1_share_free(idle);
}

/**
 * bus1_quota_uncharge() - return what was charged for something sent
 * @quota: the quota of the receiving peer
 * @share: the share that it was charged on
 * @cost: how much of each resource, at most what was charged
 *
 * Parts may be returned at different times. This cannot fail.
 *
 * Context: process context; spinlocks may be held, but no lock of this file.
 */
void bus1_quota_uncharge(struct bus1_quota *quota, struct bus1_share *share,
			 const struct bus1_cost *cost)
{
	bool parked;

	/* without a charge, the share can be gone */
	if (bus1_cost_is_zero(cost))
		return;
	if (share != &quota->own_share) {
		bus1_quota_release(quota, share, cost);
		return;
	}
	spin_lock(&quota->lock);
	if (bus1_cost_is_plain(cost)) {
		parked = bus1_quota_may_park_locked(quota, cost);
		if (parked) {
			quota->parked.n[BUS1_RESOURCE_SLICES] = 1;
			quota->parked.n[BUS1_RESOURCE_BYTES] =
				cost->n[BUS1_RESOURCE_BYTES];
		}
	} else {
		parked = bus1_quota_may_park_rest_locked(quota, cost);
		if (parked)
			quota->parked = *cost;
	}
	spin_unlock(&quota->lock);
	if (!parked)
		bus1_quota_release(quota, share, cost);
}

/**
 * bus1_quota_uncharge_own() - return what was charged for a command
 * @quota: the quota of the peer
 * @res: the resource
 * @n: how much, at most what was charged
 *
 * Context: process context; spinlocks may be held, but no lock of this file.
 */
void bus1_quota_uncharge_own(struct bus1_quota *quota, enum bus1_resource res,
			     u32 n)
{
	struct bus1_cost cost = {};

	if (!n)
		return;
	cost.n[res] = n;
	bus1_quota_release(quota, NULL, &cost);
}

/**
 * bus1_quota_init() - initialize the quota of a peer
 * @quota: the quota
 * @user: the user of the peer; the quota takes a reference
 * @id: id of the peer, for people
 *
 * The limits of the peer are those of the user at this time.
 *
 * Context: any.
 */
void bus1_quota_init(struct bus1_quota *quota, struct bus1_user *user, u64 id)
{
	unsigned int i;

	*quota = (struct bus1_quota){
		.user = bus1_user_ref(user),
		.id = id,
		.shares = RB_ROOT,
		.own_share.user = user,
	};
	spin_lock_init(&quota->lock);
	INIT_LIST_HEAD(&quota->idle);
	INIT_LIST_HEAD(&quota->own_share.idle_link);
	INIT_LIST_HEAD(&quota->creditor_link);
	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		quota->limits[i] = bus1_user_limit(i);
		bus1_fair_init(&quota->received[i]);
		bus1_fair_member_init(&quota->own_share.held[i], true);
		bus1_fair_member_init(&quota->reserved[i], false);
	}
}

/**
 * bus1_quota_deinit() - tear down the quota of a peer
 * @quota: the quota
 *
 * Everything that was charged must have been returned.
 *
 * Context: process context; nobody else may use the quota any more.
 */
void bus1_quota_deinit(struct bus1_quota *quota)
{
	struct bus1_share *share, *next;
	unsigned int class, i;

	spin_lock(&quota->user->lock);
	spin_lock(&quota->lock);
	bus1_quota_unpark_locked(quota);
	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		for (class = 0; class < BUS1_CLASS_N; ++class)
			bus1_quota_return_locked(quota, class, i, 0);
		bus1_fair_deinit(&quota->received[i]);
		WARN_ON_ONCE(quota->own[i] || quota->reserved[i].used);
	}
	bus1_quota_settle_locked(quota);
	spin_unlock(&quota->lock);
	spin_unlock(&quota->user->lock);

	list_for_each_entry_safe(share, next, &quota->idle, idle_link) {
		rb_erase(&share->rb, &quota->shares);
		bus1_share_free(share);
	}
	WARN_ON_ONCE(!RB_EMPTY_ROOT(&quota->shares));
	quota->user = bus1_user_unref(quota->user);
}

/**
 * bus1_quota_get_limits() - read the limits of a peer
 * @quota: the quota
 * @limits: where to return them
 *
 * Context: process context.
 */
void bus1_quota_get_limits(struct bus1_quota *quota, struct bus1_cost *limits)
{
	unsigned int i;

	spin_lock(&quota->lock);
	for (i = 0; i < BUS1_RESOURCE_N; ++i)
		limits->n[i] = quota->limits[i];
	spin_unlock(&quota->lock);
}

/**
 * bus1_quota_set_limits() - change limits of a peer
 * @quota: the quota
 * @limits: the new limits, each at most INT_MAX, or U32_MAX to leave it
 *
 * Limits can be below what is held: nothing is taken away, but charges fail
 * until it is returned.
 *
 * Context: process context.
 */
void bus1_quota_set_limits(struct bus1_quota *quota,
			   const struct bus1_cost *limits)
{
	unsigned int i;

	spin_lock(&quota->lock);
	bus1_quota_unpark_locked(quota);
	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		if (limits->n[i] != U32_MAX)
			quota->limits[i] = limits->n[i];
	}
	spin_unlock(&quota->lock);
}

/* What a user really holds: all that is reserved, without the credit. */
static void bus1_user_get_used(struct bus1_user *user,
			       u64 used[static BUS1_RESOURCE_N])
{
	struct bus1_quota *quota;
	unsigned int class, i;

	spin_lock(&user->lock);
	for (i = 0; i < BUS1_RESOURCE_N; ++i)
		used[i] = bus1_user_reserved_locked(user, i);
	list_for_each_entry(quota, &user->creditors, creditor_link) {
		spin_lock(&quota->lock);
		bus1_quota_unpark_locked(quota);
		for (class = 0; class < BUS1_CLASS_N; ++class) {
			for (i = 0; i < BUS1_RESOURCE_N; ++i)
				used[i] -= quota->credit[class][i];
		}
		spin_unlock(&quota->lock);
	}
	spin_unlock(&user->lock);
}

/* What bus1_quota_show() prints of a share. */
struct bus1_share_info {
	kuid_t uid;
	struct bus1_cost held;
};

static void bus1_share_get_info(const struct bus1_share *share,
				struct bus1_share_info *info)
{
	unsigned int i;

	info->uid = share->user->uid;
	for (i = 0; i < BUS1_RESOURCE_N; ++i)
		info->held.n[i] = share->held[i].used;
}

/*
 * Copy out up to @max shares that hold something, with users at addresses above
 * *@posp, which is only compared. Returns how many it were.
 */
static unsigned int bus1_quota_get_shares(struct bus1_quota *quota,
					  struct bus1_share_info *infos,
					  unsigned int max, uintptr_t *posp)
{
	struct rb_node *node, *first = NULL;
	struct bus1_share *share;
	unsigned int n = 0;

	spin_lock(&quota->lock);
	bus1_quota_unpark_locked(quota);
	if (!*posp && !bus1_share_is_empty(&quota->own_share))
		bus1_share_get_info(&quota->own_share, &infos[n++]);
	node = quota->shares.rb_node;
	while (node) {
		share = rb_entry(node, struct bus1_share, rb);
		if ((uintptr_t)share->user > *posp) {
			first = node;
			node = node->rb_left;
		} else {
			node = node->rb_right;
		}
	}
	for (node = first; node && n < max; node = rb_next(node)) {
		share = rb_entry(node, struct bus1_share, rb);
		*posp = (uintptr_t)share->user;
		if (!bus1_share_is_empty(share))
			bus1_share_get_info(share, &infos[n++]);
	}
	spin_unlock(&quota->lock);
	return n;
}

static void bus1_quota_show_shares(struct bus1_quota *quota, struct seq_file *m)
{
	struct bus1_share_info infos[BUS1_QUOTA_SHOW_BATCH];
	struct user_namespace *ns = seq_user_ns(m);
	unsigned int i, n;
	uintptr_t pos = 0;

	do {
		n = bus1_quota_get_shares(quota, infos, ARRAY_SIZE(infos),
					  &pos);
		for (i = 0; i < n; ++i)
			seq_printf(m, "bus1-sender:\t%u %u %u %u %u\n",
				   from_kuid_munged(ns, infos[i].uid),
				   infos[i].held.n[BUS1_RESOURCE_SLICES],
				   infos[i].held.n[BUS1_RESOURCE_HANDLES],
				   infos[i].held.n[BUS1_RESOURCE_BYTES],
				   infos[i].held.n[BUS1_RESOURCE_FDS]);
	} while (n == ARRAY_SIZE(infos));
}

/**
 * bus1_quota_show() - print a quota, for /proc/PID/fdinfo/FD
 * @quota: the quota
 * @m: where to print to
 *
 * One line each, a key, a colon, a tab, a value: per resource the limit of the
 * peer, what it holds, and how much of that it took by own commands; the uid of
 * its user, per resource the user's limit, and what all peers of the user hold;
 * and, for each sending user that holds something, its uid and its slices,
 * handles, bytes and files.
 *
 * Context: process context.
 */
void bus1_quota_show(struct bus1_quota *quota, struct seq_file *m)
{
	u32 limits[BUS1_RESOURCE_N], own[BUS1_RESOURCE_N];
	u64 used[BUS1_RESOURCE_N];
	unsigned int i;

	spin_lock(&quota->lock);
	bus1_quota_unpark_locked(quota);
	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		limits[i] = quota->limits[i];
		own[i] = quota->own[i];
		used[i] = (u64)quota->received[i].total + own[i];
	}
	spin_unlock(&quota->lock);

	for (i = 0; i < BUS1_RESOURCE_N; ++i)
		seq_printf(m, "bus1-%s:\t%llu\nbus1-%s-max:\t%u\nbus1-%s-own:\t%u\n",
			   bus1_resource_names[i], used[i],
			   bus1_resource_names[i], limits[i],
			   bus1_resource_names[i], own[i]);

	bus1_user_get_used(quota->user, used);
	seq_printf(m, "bus1-user:\t%u\n",
		   from_kuid_munged(seq_user_ns(m), quota->user->uid));
	for (i = 0; i < BUS1_RESOURCE_N; ++i)
		seq_printf(m, "bus1-user-%s:\t%llu\nbus1-user-%s-max:\t%u\n",
			   bus1_resource_names[i], used[i],
			   bus1_resource_names[i], bus1_user_limit(i));

	bus1_quota_show_shares(quota, m);
}
