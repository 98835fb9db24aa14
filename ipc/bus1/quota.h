/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_QUOTA_H
#define __BUS1_QUOTA_H

/**
 * DOC: Quotas
 *
 * Each peer has a quota: what it holds, of each resource, and on whose behalf.
 * What a message costs is charged to the quota of its receiver, on behalf of the
 * user that sent it.
 *
 * There are two layers of fair shares: those of the sending users in the budget
 * of a peer, and those of the peers in the budget of their user. The second one
 * is not asked for each message: quotas hold credit.
 */

#include <linux/list.h>
#include <linux/rbtree.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include "user.h"
#include "util/fair.h"

struct seq_file;

/**
 * enum bus1_layer - what can refuse a charge
 * @BUS1_LAYER_PEER_LIMIT: the limit of the peer, see PEER_RESET
 * @BUS1_LAYER_SENDER_SHARE: the share of the sending user in the budget of the
 *	peer
 * @BUS1_LAYER_USER_LIMIT: the limit of the user of the peer
 * @BUS1_LAYER_SIBLING_SHARE: the share of the peer in the budget of its user
 */
enum bus1_layer {
	BUS1_LAYER_PEER_LIMIT,
	BUS1_LAYER_SENDER_SHARE,
	BUS1_LAYER_USER_LIMIT,
	BUS1_LAYER_SIBLING_SHARE,
};

/**
 * enum bus1_class - what a charge is for
 * @BUS1_CLASS_RECEIVED: something that was sent to the peer
 * @BUS1_CLASS_OWN: something that the peer took by a command of its own
 * @BUS1_CLASS_N: number of classes
 */
enum bus1_class {
	BUS1_CLASS_RECEIVED,
	BUS1_CLASS_OWN,
	BUS1_CLASS_N,
};

/**
 * struct bus1_share - what a quota holds on behalf of one sending user
 * @rb: in quota->shares, by address of the user (quota->lock)
 * @idle_link: in quota->idle, if it holds nothing (quota->lock)
 * @user: the sending user; holds a reference, but for quota->own_share (const)
 * @pins: number of charges under way that use it (quota->lock)
 * @held: what it holds of each resource (quota->lock)
 *
 * A share that holds nothing stays for a while: a sender that comes back shall
 * not have to touch the reference count of its user for each message.
 */
struct bus1_share {
	struct rb_node rb;
	struct list_head idle_link;
	struct bus1_user *user;
	unsigned int pins;
	struct bus1_fair_member held[BUS1_RESOURCE_N];
};

/**
 * struct bus1_quota - what a peer may hold, and does
 * @user: the user of the peer, with a reference (const)
 * @id: id of the peer, for people (const)
 * @lock: protects what says so; nests inside of user->lock
 * @limits: the limits of the peer (quota->lock)
 * @received: what was received, by sending users; the budget is the lower of
 *	the limits of peer and user (quota->lock)
 * @own: what own commands took (quota->lock)
 * @credit: reserved from the user, but not in use (quota->lock)
 * @seen: the user's limit that @credit was reserved under (quota->lock)
 * @own_share: the share of @user itself, which is unconstrained (quota->lock)
 * @parked: what @own_share was given back last, but still holds, see
 *	bus1_quota_unpark_locked(); of one message at most (quota->lock)
 * @shares: all other shares (quota->lock)
 * @idle: shares that hold nothing, the most recent last (quota->lock)
 * @n_idle: number of shares in @idle (quota->lock)
 * @reserved: what is in use or credit, of what was received (user->lock)
 * @creditor_link: in user->creditors, at least while there is any credit
 *	(changes under both user->lock and quota->lock)
 *
 * Units are those of &enum bus1_resource. Lives inside of a peer; what is
 * charged on it must be gone before it is.
 */
struct bus1_quota {
	struct bus1_user *user;
	u64 id;

	spinlock_t lock; /* see above */
	u32 limits[BUS1_RESOURCE_N];
	struct bus1_fair received[BUS1_RESOURCE_N];
	u32 own[BUS1_RESOURCE_N];
	u32 credit[BUS1_CLASS_N][BUS1_RESOURCE_N];
	u32 seen[BUS1_RESOURCE_N];
	struct bus1_share own_share;
	struct bus1_cost parked;
	struct rb_root shares;
	struct list_head idle;
	unsigned int n_idle;

	struct bus1_fair_member reserved[BUS1_RESOURCE_N];
	struct list_head creditor_link;
};

int bus1_quota_module_init(void);
void bus1_quota_module_exit(void);

void bus1_quota_init(struct bus1_quota *quota, struct bus1_user *user, u64 id);
void bus1_quota_deinit(struct bus1_quota *quota);
void bus1_quota_get_limits(struct bus1_quota *quota, struct bus1_cost *limits);
void bus1_quota_set_limits(struct bus1_quota *quota,
			   const struct bus1_cost *limits);

int bus1_quota_charge(struct bus1_quota *quota, struct bus1_user *sender,
		      const struct bus1_cost *cost, struct bus1_share **sharep);
void bus1_quota_uncharge(struct bus1_quota *quota, struct bus1_share *share,
			 const struct bus1_cost *cost);
int bus1_quota_charge_own(struct bus1_quota *quota, enum bus1_resource res,
			  u32 n);
void bus1_quota_uncharge_own(struct bus1_quota *quota, enum bus1_resource res,
			     u32 n);
void bus1_quota_show(struct bus1_quota *quota, struct seq_file *m);

#endif /* __BUS1_QUOTA_H */
