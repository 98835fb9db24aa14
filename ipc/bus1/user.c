// SPDX-License-Identifier: GPL-2.0-only

#include <linux/bug.h>
#include <linux/err.h>
#include <linux/hashtable.h>
#include <linux/kstrtox.h>
#include <linux/limits.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/refcount.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uidgid.h>
#include "user.h"
#include "util/fair.h"

static DEFINE_HASHTABLE(bus1_users, 8);
static DEFINE_SPINLOCK(bus1_users_lock);
static struct kmem_cache *bus1_user_cache;

unsigned int bus1_user_limits[BUS1_RESOURCE_N] = {
	[BUS1_RESOURCE_SLICES]	= 16384,
	[BUS1_RESOURCE_HANDLES]	= 65536,
	[BUS1_RESOURCE_BYTES]	= 16 * 1024 * 1024,
	[BUS1_RESOURCE_FDS]	= 4096,
};

static int bus1_user_limit_set(const char *val, const struct kernel_param *kp)
{
	unsigned int limit;
	int r;

	r = kstrtouint(val, 0, &limit);
	if (r)
		return r;
	if (limit > INT_MAX)
		return -EINVAL;
	WRITE_ONCE(*(unsigned int *)kp->arg, limit);
	return 0;
}

static const struct kernel_param_ops bus1_user_limit_ops = {
	.set = bus1_user_limit_set,
	.get = param_get_uint,
};

module_param_cb(user_slices_max, &bus1_user_limit_ops,
		&bus1_user_limits[BUS1_RESOURCE_SLICES], 0644);
__MODULE_PARM_TYPE(user_slices_max, "uint");
MODULE_PARM_DESC(user_slices_max,
		 "Most slices that the peers of one user hold");

module_param_cb(user_handles_max, &bus1_user_limit_ops,
		&bus1_user_limits[BUS1_RESOURCE_HANDLES], 0644);
__MODULE_PARM_TYPE(user_handles_max, "uint");
MODULE_PARM_DESC(user_handles_max,
		 "Most handles that the peers of one user hold");

module_param_cb(user_inflight_bytes_max, &bus1_user_limit_ops,
		&bus1_user_limits[BUS1_RESOURCE_BYTES], 0644);
__MODULE_PARM_TYPE(user_inflight_bytes_max, "uint");
MODULE_PARM_DESC(user_inflight_bytes_max,
		 "Most bytes in slices of the peers of one user");

module_param_cb(user_inflight_fds_max, &bus1_user_limit_ops,
		&bus1_user_limits[BUS1_RESOURCE_FDS], 0644);
__MODULE_PARM_TYPE(user_inflight_fds_max, "uint");
MODULE_PARM_DESC(user_inflight_fds_max,
		 "Most files in messages queued to the peers of one user");

/**
 * bus1_user_module_init() - set up what users need
 *
 * Context: process context, may sleep.
 * Return: 0, or -ENOMEM.
 */
int bus1_user_module_init(void)
{
	bus1_user_cache = KMEM_CACHE(bus1_user, SLAB_ACCOUNT);
	return bus1_user_cache ? 0 : -ENOMEM;
}

/**
 * bus1_user_module_exit() - undo bus1_user_module_init()
 *
 * No users may be left.
 *
 * Context: process context, may sleep.
 */
void bus1_user_module_exit(void)
{
	WARN_ON_ONCE(!hash_empty(bus1_users));
	kmem_cache_destroy(bus1_user_cache);
}

static struct bus1_user *bus1_user_new(kuid_t uid)
{
	struct bus1_user *user;
	unsigned int i;

	user = kmem_cache_zalloc(bus1_user_cache, GFP_KERNEL);
	if (!user)
		return NULL;
	user->uid = uid;
	spin_lock_init(&user->lock);
	for (i = 0; i < BUS1_RESOURCE_N; ++i)
		bus1_fair_init(&user->reserved[i]);
	INIT_LIST_HEAD(&user->creditors);
	user->n_creditors = 0;
	refcount_set(&user->refs, 1);
	return user;
}

static void bus1_user_free(struct bus1_user *user)
{
	unsigned int i;

	if (!user)
		return;
	for (i = 0; i < BUS1_RESOURCE_N; ++i) {
		bus1_fair_deinit(&user->reserved[i]);
		WARN_ON_ONCE(user->own[i]);
	}
	WARN_ON_ONCE(!list_empty(&user->creditors));
	kmem_cache_free(bus1_user_cache, user);
}

/* Users in the table always have a reference: the last one goes under lock. */
static struct bus1_user *bus1_user_find_locked(kuid_t uid)
{
	struct bus1_user *user;

	lockdep_assert_held(&bus1_users_lock);
	hash_for_each_possible(bus1_users, user, node, __kuid_val(uid)) {
		if (uid_eq(user->uid, uid))
			return bus1_user_ref(user);
	}
	return NULL;
}

/**
 * bus1_user_ref_by_uid() - get the user with a uid
 * @uid: the uid
 *
 * The user is created if there is none. Takes a global lock: to be called when
 * a peer is opened, never for a message.
 *
 * Context: process context, may sleep.
 * Return: the user with a reference for the caller, or ERR_PTR(-ENOMEM).
 */
struct bus1_user *bus1_user_ref_by_uid(kuid_t uid)
{
	struct bus1_user *user, *spare;

	spin_lock(&bus1_users_lock);
	user = bus1_user_find_locked(uid);
	spin_unlock(&bus1_users_lock);
	if (user)
		return user;

	spare = bus1_user_new(uid);
	if (!spare)
		return ERR_PTR(-ENOMEM);

	spin_lock(&bus1_users_lock);
	user = bus1_user_find_locked(uid);
	if (!user) {
		user = spare;
		spare = NULL;
		hash_add(bus1_users, &user->node, __kuid_val(uid));
	}
	spin_unlock(&bus1_users_lock);
	bus1_user_free(spare);
	return user;
}

/**
 * bus1_user_ref() - take a reference on a user
 * @user: a user that the caller has a reference on, or NULL
 *
 * Context: any.
 * Return: @user.
 */
struct bus1_user *bus1_user_ref(struct bus1_user *user)
{
	if (user)
		refcount_inc(&user->refs);
	return user;
}

/**
 * bus1_user_unref() - drop a reference on a user
 * @user: the user, or NULL
 *
 * Context: process context; takes a global lock only for the last reference.
 * Return: NULL.
 */
struct bus1_user *bus1_user_unref(struct bus1_user *user)
{
	bool last;

	if (!user || refcount_dec_not_one(&user->refs))
		return NULL;

	spin_lock(&bus1_users_lock);
	last = refcount_dec_and_test(&user->refs);
	if (last)
		hash_del(&user->node);
	spin_unlock(&bus1_users_lock);
	if (last)
		bus1_user_free(user);
	return NULL;
}
