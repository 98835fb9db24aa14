/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_USER_H
#define __BUS1_USER_H

/**
 * DOC: Users
 *
 * A user is everybody with one real uid; it exists while a peer of it does, or
 * something that it sent. Its budget is what all of its peers may hold together.
 * What each of them holds of it is up to quota.h.
 */

#include <linux/list.h>
#include <linux/refcount.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include <linux/uidgid.h>
#include "util/fair.h"

/**
 * enum bus1_resource - what budgets count
 * @BUS1_RESOURCE_SLICES: slices, unit 1
 * @BUS1_RESOURCE_HANDLES: handles, unit 1
 * @BUS1_RESOURCE_BYTES: bytes in slices
 * @BUS1_RESOURCE_FDS: files in queued messages, unit 1
 * @BUS1_RESOURCE_N: number of resources
 */
enum bus1_resource {
	BUS1_RESOURCE_SLICES,
	BUS1_RESOURCE_HANDLES,
	BUS1_RESOURCE_BYTES,
	BUS1_RESOURCE_FDS,
	BUS1_RESOURCE_N,
};

/**
 * struct bus1_cost - an amount of each resource
 * @n: the amounts, by &enum bus1_resource
 */
struct bus1_cost {
	u32 n[BUS1_RESOURCE_N];
};

/*
 * So many quotas of a user may have credit: all of them are visited under the user's
 * lock when credit is taken back, or looked at. One more takes the place of the one that
 * has been there for longest.
 */
#define BUS1_CREDITORS_MAX	1024

/**
 * struct bus1_user - a user
 * @uid: the real uid of its peers (const)
 * @tight: no credit may be kept of a resource (changes under user->lock, read
 *	without as well)
 * @lock: protects what says so
 * @reserved: what its quotas have reserved for what they receive (user->lock)
 * @own: what its quotas have reserved for own commands (user->lock)
 * @creditors: quotas that have credit, or had until lately (user->lock)
 * @n_creditors: how many there are, at most %BUS1_CREDITORS_MAX (user->lock)
 * @refs: reference count (atomic)
 * @node: in bus1_users (bus1_users_lock)
 *
 * While a resource is not tight, @reserved and @own together are at most a
 * quarter of the budget. @tight is read for each message, hence it is kept
 * apart from what others write.
 */
struct bus1_user {
	kuid_t uid;
	bool tight[BUS1_RESOURCE_N];

	spinlock_t lock ____cacheline_aligned_in_smp;
	struct bus1_fair reserved[BUS1_RESOURCE_N];
	u32 own[BUS1_RESOURCE_N];
	struct list_head creditors;
	unsigned int n_creditors;

	refcount_t refs ____cacheline_aligned_in_smp;
	struct hlist_node node;
};

/* The limits that all users have: module parameters. */
extern unsigned int bus1_user_limits[BUS1_RESOURCE_N];

int bus1_user_module_init(void);
void bus1_user_module_exit(void);

struct bus1_user *bus1_user_ref_by_uid(kuid_t uid);
struct bus1_user *bus1_user_ref(struct bus1_user *user);
struct bus1_user *bus1_user_unref(struct bus1_user *user);

/**
 * bus1_user_limit() - the limit that all users have
 * @res: the resource
 *
 * Context: any.
 * Return: the limit, at most INT_MAX. It can change at any time.
 */
static inline u32 bus1_user_limit(enum bus1_resource res)
{
	return READ_ONCE(bus1_user_limits[res]);
}

#endif /* __BUS1_USER_H */
