// SPDX-License-Identifier: GPL-2.0-only
#include <linux/atomic.h>
#include <linux/err.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/minmax.h>
#include <linux/rbtree.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <uapi/linux/bus1.h>
#include "handle.h"
#include "node.h"
#include "peer.h"
#include "quota.h"
#include "trace.h"
#include "util/queue.h"

/* How many handles may be looked at before the lock is released once. */
#define BUS1_HANDLE_BATCH	64

static struct kmem_cache *bus1_handle_cache;

/**
 * bus1_handle_module_init() - set up what all peers share
 *
 * Context: Module initialization.
 * Return: 0, or -ENOMEM.
 */
int bus1_handle_module_init(void)
{
	bus1_handle_cache = KMEM_CACHE(bus1_handle, SLAB_ACCOUNT);
	return bus1_handle_cache ? 0 : -ENOMEM;
}

/**
 * bus1_handle_module_exit() - undo bus1_handle_module_init()
 *
 * Context: Module exit; no peer is left.
 */
void bus1_handle_module_exit(void)
{
	kmem_cache_destroy(bus1_handle_cache);
}

/**
 * bus1_handle_table_init() - make an empty table
 * @table: table to initialize
 *
 * Context: Any.
 */
void bus1_handle_table_init(struct bus1_handle_table *table)
{
	spin_lock_init(&table->lock);
	table->by_id = RB_ROOT;
	table->by_node = RB_ROOT;
	table->last_id = 0;
}

/**
 * bus1_handle_table_deinit() - check that a table is empty
 * @table: table that nobody uses any more
 *
 * Context: Any.
 */
void bus1_handle_table_deinit(struct bus1_handle_table *table)
{
	WARN_ON_ONCE(!RB_EMPTY_ROOT(&table->by_id));
	WARN_ON_ONCE(!RB_EMPTY_ROOT(&table->by_node));
}

/**
 * bus1_handle_is_own() - ask whether a handle is the owner's
 * @handle: handle to ask
 *
 * Context: Any.
 * Return: True if it belongs to the owner of the node.
 */
bool bus1_handle_is_own(const struct bus1_handle *handle)
{
	return handle->node->owner == handle->holder;
}

/**
 * bus1_handle_is_stale() - ask whether a NODE_DESTROY is void
 * @handle: handle that it is about
 *
 * Context: Any.
 * Return: True if user space has no reference, nor is about to get one.
 */
bool bus1_handle_is_stale(const struct bus1_handle *handle)
{
	/* [live:B] pairs with [live:A] in bus1_handle_try_join() */
	return !READ_ONCE(handle->live);
}

static struct bus1_handle *bus1_handle_new(struct bus1_peer *holder,
					   struct bus1_node *node)
{
	struct bus1_handle *handle;

	handle = kmem_cache_alloc(bus1_handle_cache, GFP_KERNEL);
	if (!handle)
		return NULL;

	kref_init(&handle->ref);
	handle->holder = bus1_peer_ref(holder);
	handle->node = bus1_node_ref(node);
	handle->id = BUS1_HANDLE_INVALID;
	RB_CLEAR_NODE(&handle->rb_id);
	RB_CLEAR_NODE(&handle->rb_node);
	handle->user_refs = 0;
	handle->imports = 0;
	handle->joined = 0;
	handle->live = false;
	handle->pins = 0;
	handle->born = true;
	handle->in_table = false;
	handle->is_expired = false;
	handle->charged = false;
	handle->share = NULL;
	INIT_LIST_HEAD(&handle->link);
	handle->is_notified = false;
	bus1_queue_entry_init(&handle->notify, BUS1_ENTRY_DESTROY);
	return handle;
}

static noinline void bus1_handle_free(struct kref *ref)
{
	struct bus1_handle *handle = container_of(ref, struct bus1_handle, ref);

	WARN_ON_ONCE(!list_empty(&handle->link));
	WARN_ON_ONCE(handle->notify.state != BUS1_ENTRY_IDLE);

	bus1_node_unref(handle->node);
	bus1_peer_unref(handle->holder);
	kmem_cache_free(bus1_handle_cache, handle);
}

/**
 * bus1_handle_unref() - drop a reference
 * @handle: handle, or NULL
 *
 * Context: Process context, without spinlocks.
 */
void bus1_handle_unref(struct bus1_handle *handle)
{
	if (handle)
		kref_put(&handle->ref, bus1_handle_free);
}

/* The first handle whose ID is @id or higher. */
static struct bus1_handle *
bus1_handle_lower_bound_locked(struct bus1_handle_table *table, u64 id)
{
	struct rb_node *rb = table->by_id.rb_node;
	struct bus1_handle *handle, *best = NULL;

	lockdep_assert_held(&table->lock);

	while (rb) {
		handle = rb_entry(rb, struct bus1_handle, rb_id);
		if (handle->id >= id) {
			best = handle;
			rb = rb->rb_left;
		} else {
			rb = rb->rb_right;
		}
	}
	return best;
}

static struct bus1_handle *
bus1_handle_find_locked(struct bus1_handle_table *table, u64 id)
{
	struct rb_node *rb = table->by_id.rb_node;
	struct bus1_handle *handle;

	lockdep_assert_held(&table->lock);

	while (rb) {
		handle = rb_entry(rb, struct bus1_handle, rb_id);
		if (id == handle->id)
			return handle;
		rb = id < handle->id ? rb->rb_left : rb->rb_right;
	}
	return NULL;
}

static struct bus1_handle *
bus1_handle_find_node_locked(struct bus1_handle_table *table,
			     const struct bus1_node *node)
{
	struct rb_node *rb = table->by_node.rb_node;
	struct bus1_handle *handle;

	lockdep_assert_held(&table->lock);

	while (rb) {
		handle = rb_entry(rb, struct bus1_handle, rb_node);
		if (node == handle->node)
			return handle;
		rb = node < handle->node ? rb->rb_left : rb->rb_right;
	}
	return NULL;
}

/* Add a handle, with its ID, that is not there yet. Takes over the reference. */
static noinline void bus1_handle_insert_locked(struct bus1_handle_table *table,
					       struct bus1_handle *handle)
{
	struct rb_node **link, *parent;
	struct bus1_handle *at;

	lockdep_assert_held(&table->lock);

	handle->in_table = true;
	parent = NULL;
	link = &table->by_id.rb_node;
	while (*link) {
		parent = *link;
		at = rb_entry(parent, struct bus1_handle, rb_id);
		link = handle->id < at->id ? &parent->rb_left :
					     &parent->rb_right;
	}
	rb_link_node(&handle->rb_id, parent, link);
	rb_insert_color(&handle->rb_id, &table->by_id);

	parent = NULL;
	link = &table->by_node.rb_node;
	while (*link) {
		parent = *link;
		at = rb_entry(parent, struct bus1_handle, rb_node);
		link = handle->node < at->node ? &parent->rb_left :
						 &parent->rb_right;
	}
	rb_link_node(&handle->rb_node, parent, link);
	rb_insert_color(&handle->rb_node, &table->by_node);
}

/* To be called when user_refs and joined were changed, in one go. */
static void bus1_handle_update_locked(struct bus1_handle *handle)
{
	struct bus1_node *node = handle->node;
	bool live = handle->user_refs || handle->joined;

	WRITE_ONCE(handle->live, live);
	/* What is queued for the node is for this ID, not for one that came later */
	if (bus1_handle_is_own(handle) && handle->id == node->id)
		WRITE_ONCE(node->owner_gone, !live);
}

/* Whether the owner has no ID any more: nobody can receive what is queued. */
static bool bus1_handle_is_gone_locked(const struct bus1_handle *handle)
{
	return bus1_handle_is_own(handle) && !handle->live;
}

static void bus1_handle_erase_locked(struct bus1_handle *handle)
{
	struct bus1_handle_table *table = &handle->holder->handles;

	handle->in_table = false;
	rb_erase(&handle->rb_id, &table->by_id);
	rb_erase(&handle->rb_node, &table->by_node);
}

/*
 * Take a handle off the table if it is none to user space any more. Return
 * whether that happened: the caller retires it, after unlocking.
 */
static bool bus1_handle_expire_locked(struct bus1_handle *handle)
{
	lockdep_assert_held(&handle->holder->handles.lock);

	if (!handle->in_table || handle->user_refs || handle->imports ||
	    (!handle->born && handle->pins))
		return false;
	bus1_handle_erase_locked(handle);
	return true;
}

/**
 * bus1_handle_retire() - undo all that a handle was part of
 * @handle: handle that has been taken off the table; drops the table's reference
 *
 * Context: Process context, without spinlocks.
 */
noinline void bus1_handle_retire(struct bus1_handle *handle)
{
	struct bus1_peer *holder = handle->holder;
	struct bus1_node *node = handle->node;
	struct bus1_cost cost = { .n[BUS1_RESOURCE_HANDLES] = 1 };
	bool removed;

	spin_lock(&node->lock);
	list_del_init(&handle->link);
	spin_lock(&holder->queue.lock);
	removed = bus1_queue_remove_locked(&holder->queue, &handle->notify);
	spin_unlock(&holder->queue.lock);
	spin_unlock(&node->lock);

	if (handle->charged && handle->share)
		bus1_quota_uncharge(&holder->quota, handle->share, &cost);
	else if (handle->charged)
		bus1_quota_uncharge_own(&holder->quota, BUS1_RESOURCE_HANDLES,
					1);
	if (removed)
		bus1_handle_unref(handle);
	bus1_handle_unref(handle);
}

/*
 * Drop @n user references. Return whether that ends a reference of the node
 * that is counted: the caller puts it, after unlocking.
 */
static bool bus1_handle_drop_locked(struct bus1_handle *handle, u64 n)
{
	u64 refs = handle->user_refs - n;
	bool put;

	lockdep_assert_held(&handle->holder->handles.lock);

	if (bus1_handle_is_own(handle))
		put = handle->user_refs > 1 && refs <= 1;
	else
		put = handle->user_refs && !refs;
	handle->user_refs = refs;
	bus1_handle_update_locked(handle);
	trace_bus1_handle_release(handle);
	return put;
}

/**
 * bus1_handle_drop() - drop a user reference, if there is one
 * @handle: pinned handle
 *
 * Unlike bus1_handle_release() this does not ask whether it is the pinned one, and
 * leaves it to the caller when to retire the handle.
 *
 * Context: Process context, without spinlocks.
 * Return: True if that was the last one: the caller calls bus1_handle_retire().
 */
bool bus1_handle_drop(struct bus1_handle *handle)
{
	struct bus1_handle_table *table = &handle->holder->handles;
	bool put, expired;

	spin_lock(&table->lock);
	put = handle->user_refs && bus1_handle_drop_locked(handle, 1);
	expired = bus1_handle_expire_locked(handle);
	spin_unlock(&table->lock);

	if (put)
		bus1_node_put(handle->node);
	return expired;
}

/* Add a user reference. The caller updates. */
static void bus1_handle_add_locked(struct bus1_handle *handle)
{
	u64 refs = handle->user_refs + 1;

	lockdep_assert_held(&handle->holder->handles.lock);

	if (refs == (bus1_handle_is_own(handle) ? 2 : 1))
		bus1_node_get(handle->node);
	handle->user_refs = refs;
	trace_bus1_handle_acquire(handle);
}

/*
 * Make the handle of a node that does not exist yet, for bus1_handle_pin(). What it
 * costs is charged before anything is allocated.
 */
static noinline struct bus1_handle *bus1_handle_new_own(struct bus1_peer *peer, u64 id)
{
	struct bus1_handle *handle = NULL;
	struct bus1_node *node;
	int r;

	r = bus1_quota_charge_own(&peer->quota, BUS1_RESOURCE_HANDLES, 1);
	if (r < 0)
		return ERR_PTR(r);

	node = bus1_node_new(peer, id);
	if (node)
		handle = bus1_handle_new(peer, node);
	bus1_node_unref(node);
	if (!handle) {
		bus1_quota_uncharge_own(&peer->quota, BUS1_RESOURCE_HANDLES, 1);
		return ERR_PTR(-ENOMEM);
	}

	handle->id = id;
	handle->born = false;
	handle->charged = true;
	list_add_tail(&handle->link, &node->holders);
	return handle;
}

/* What a RECV is about to show is known from when it has done so. */
static bool bus1_handle_is_known_locked(const struct bus1_handle *handle)
{
	return handle->user_refs || bus1_handle_is_own(handle);
}

/**
 * bus1_handle_pin() - find a handle that a command names
 * @peer: peer that issues the command
 * @id: ID of the handle
 * @flags: &enum bus1_pin_flags
 * @handlep: where to store the handle
 *
 * An ID that user space may choose, and that is not in use, names a node that
 * does not exist yet. It is prepared here, and exists from
 * bus1_handle_commit_new() on.
 *
 * Context: Process context, may sleep.
 * Return: 0, -ENXIO if the ID is unknown, -EDQUOT if it names a node that does not
 *	exist yet and that the peer cannot have, or that was not to be created, or
 *	-ENOMEM.
 */
int bus1_handle_pin(struct bus1_peer *peer, u64 id, unsigned int flags,
		    struct bus1_handle **handlep)
{
	struct bus1_handle_table *table = &peer->handles;
	struct bus1_handle *handle, *new = NULL;
	bool known;
	int r = 0;

	for (;;) {
		spin_lock(&table->lock);
		handle = bus1_handle_find_locked(table, id);
		if (!handle && new) {
			bus1_handle_insert_locked(table, new);
			handle = new;
			new = NULL;
		}
		known = handle && bus1_handle_is_known_locked(handle);
		if (known) {
			if (!handle->born)
				++handle->pins;
			kref_get(&handle->ref);
			if (flags & BUS1_PIN_CARRY &&
			    !bus1_handle_is_own(handle))
				atomic_long_inc(&handle->node->refs);
		}
		spin_unlock(&table->lock);

		if (handle)
			break;
		if (id & (BUS1_HANDLE_FLAG_MANAGED | BUS1_HANDLE_FLAG_REMOTE))
			return -ENXIO;
		if (!(flags & BUS1_PIN_CREATE))
			return -EDQUOT;
		/* Another command may have made it, with what this one needed */
		if (r < 0)
			return r;
		new = bus1_handle_new_own(peer, id);
		if (IS_ERR(new)) {
			r = PTR_ERR(new);
			new = NULL;
		}
	}

	/* Another command was faster */
	if (new)
		bus1_handle_retire(new);

	*handlep = handle;
	return known ? 0 : -ENXIO;
}

/* The node may not exist yet, and then never does, unless others have pinned it. */
static noinline void bus1_handle_unpin_new(struct bus1_handle *handle)
{
	struct bus1_handle_table *table = &handle->holder->handles;
	bool expired;

	spin_lock(&table->lock);
	--handle->pins;
	expired = bus1_handle_expire_locked(handle);
	spin_unlock(&table->lock);
	if (expired)
		bus1_handle_retire(handle);
}

/**
 * bus1_handle_unpin() - undo bus1_handle_pin()
 * @handle: pinned handle, or NULL
 *
 * Context: Process context, without spinlocks.
 */
void bus1_handle_unpin(struct bus1_handle *handle)
{
	if (!handle)
		return;

	/* Who misses that it was born finds nothing to do under the lock */
	if (unlikely(!bus1_handle_is_born(handle)))
		bus1_handle_unpin_new(handle);
	bus1_handle_unref(handle);
}

/**
 * bus1_handle_charge() - charge what a handle costs to the peer itself
 * @handle: imported handle
 *
 * Does nothing if it was charged before.
 *
 * Context: Process context, without spinlocks.
 * Return: 0, or -EDQUOT.
 */
int bus1_handle_charge(struct bus1_handle *handle)
{
	struct bus1_peer *holder = handle->holder;
	bool surplus;
	int r;

	/* Once set it stays. Who misses that gives the surplus back below. */
	if (READ_ONCE(handle->charged))
		return 0;

	r = bus1_quota_charge_own(&holder->quota, BUS1_RESOURCE_HANDLES, 1);
	if (r < 0)
		return r;

	spin_lock(&holder->handles.lock);
	surplus = handle->charged;
	WRITE_ONCE(handle->charged, true);
	spin_unlock(&holder->handles.lock);

	if (surplus)
		bus1_quota_uncharge_own(&holder->quota, BUS1_RESOURCE_HANDLES,
					1);
	return 0;
}

/* bus1_handle_commit_new(), of a node that may not exist yet. */
noinline void bus1_handle_bear(struct bus1_handle *handle)
{
	struct bus1_peer *peer = handle->holder;

	down_read(&peer->birth_sem);
	spin_lock(&peer->handles.lock);
	if (!handle->born) {
		WRITE_ONCE(handle->born, true);
		handle->user_refs = 1;
		bus1_handle_update_locked(handle);
		trace_bus1_node_create(handle->node);
		trace_bus1_handle_acquire(handle);
	}
	spin_unlock(&peer->handles.lock);
	up_read(&peer->birth_sem);
}

/**
 * bus1_handle_release() - drop a user reference
 * @peer: peer that holds the handle
 * @id: ID of the handle
 *
 * Context: Process context, without spinlocks.
 * Return: 0, -ENXIO if the ID is unknown, or -EBUSY if that is the reference
 *	that is pinned while the node lives.
 */
int bus1_handle_release(struct bus1_peer *peer, u64 id)
{
	struct bus1_handle_table *table = &peer->handles;
	struct bus1_handle *handle;
	struct bus1_stamp stamp = {};
	struct bus1_node *node;
	bool put, gone, expired;

	spin_lock(&table->lock);
	handle = bus1_handle_find_locked(table, id);
	if (!handle || !handle->user_refs) {
		spin_unlock(&table->lock);
		return id & (BUS1_HANDLE_FLAG_MANAGED | BUS1_HANDLE_FLAG_REMOTE) ?
			-ENXIO : -EBUSY;
	}
	if (handle->user_refs == 1 && bus1_handle_is_own(handle) &&
	    !bus1_node_is_sealed(handle->node, &stamp)) {
		spin_unlock(&table->lock);
		return -EBUSY;
	}
	node = bus1_node_ref(handle->node);
	put = bus1_handle_drop_locked(handle, 1);
	gone = bus1_handle_is_gone_locked(handle);
	expired = bus1_handle_expire_locked(handle);
	spin_unlock(&table->lock);

	/* That it could be released tells of the destruction */
	if (stamp.ts)
		bus1_clock_pass(stamp.ts);
	if (put)
		bus1_node_put(node);
	if (expired)
		bus1_handle_retire(handle);
	if (gone)
		bus1_node_purge(node);
	bus1_node_unref(node);
	return 0;
}

/* Imports: handles that a command is about to show */

/* Find or make the handle of @peer for @node, and keep it in the table. */
static struct bus1_handle *bus1_handle_import_find(struct bus1_peer *peer,
						   struct bus1_node *node)
{
	struct bus1_handle_table *table = &peer->handles;
	struct bus1_handle *handle, *new = NULL;

	for (;;) {
		spin_lock(&table->lock);
		handle = bus1_handle_find_node_locked(table, node);
		if (!handle && new) {
			handle = new;
			new = NULL;
			handle->id = (++table->last_id << 3) |
				     BUS1_HANDLE_FLAG_MANAGED;
			if (!bus1_handle_is_own(handle))
				handle->id |= BUS1_HANDLE_FLAG_REMOTE;
			bus1_handle_insert_locked(table, handle);
		}
		if (handle)
			++handle->imports;
		spin_unlock(&table->lock);

		if (handle) {
			bus1_handle_unref(new);
			return handle;
		}
		new = bus1_handle_new(peer, node);
		if (!new)
			return NULL;
	}
}

/* Stage the notification of a handle. Return whether @death was sealed already. */
static bool bus1_handle_stage_locked(struct bus1_handle *handle,
				     struct bus1_death *death,
				     struct bus1_stamp *stamp)
{
	bool sealed;

	lockdep_assert_held(&handle->node->lock);

	sealed = bus1_queue_stage_locked(&handle->holder->queue,
					 &bus1_peer_queue_ops, &handle->notify,
					 &death->tx, stamp);
	/* Who is not alive yet is told when it joins */
	if (handle->notify.state != BUS1_ENTRY_IDLE) {
		handle->is_notified = true;
		kref_get(&handle->ref);
		if (trace_bus1_notify_enabled())
			trace_bus1_notify(handle->holder, handle->id,
					  handle->node, BUS1_MSG_NODE_DESTROY,
					  stamp->id, sealed ? stamp->ts : 0);
	}
	return sealed;
}

/**
 * bus1_handle_notify_locked() - stage the notification of a handle
 * @handle: handle to notify
 * @death: transaction that destroys the node, not sealed yet
 *
 * Does nothing if it was staged before.
 *
 * Context: Any, with the lock of the node held.
 */
void bus1_handle_notify_locked(struct bus1_handle *handle,
			       struct bus1_death *death)
{
	struct bus1_queue *queue = &handle->holder->queue;
	struct bus1_stamp stamp;

	lockdep_assert_held(&handle->node->lock);

	spin_lock(&queue->lock);
	if (!handle->is_notified)
		bus1_handle_stage_locked(handle, death, &stamp);
	spin_unlock(&queue->lock);
}

/**
 * bus1_handle_import_prepare() - get the handle for a node that is to be imported
 * @peer: peer that gets it
 * @node: node that it is for
 * @handlep: where to store the handle
 *
 * To be followed by bus1_handle_import_join() or bus1_handle_import_cancel(). A new
 * handle is not told of a destruction before it joins.
 *
 * Context: Process context, may sleep.
 * Return: 0, or -ENOMEM.
 */
int bus1_handle_import_prepare(struct bus1_peer *peer, struct bus1_node *node,
			       struct bus1_handle **handlep)
{
	*handlep = bus1_handle_import_find(peer, node);
	return *handlep ? 0 : -ENOMEM;
}

/* What comes of a handle that is to join the holders of its node. */
enum bus1_join {
	BUS1_JOIN_DONE,		/* it is one of them */
	BUS1_JOIN_DEAD,		/* the node is destroyed */
	BUS1_JOIN_AGAIN,	/* the handle cannot be notified: a new one is needed */
};

/* Unless it is done, the import is undone. */
static enum bus1_join bus1_handle_try_join(struct bus1_handle *handle,
					   const struct bus1_stamp *stamp)
{
	struct bus1_peer *peer = handle->holder;
	struct bus1_queue *queue = &peer->queue;
	struct bus1_node *node = handle->node;
	enum bus1_join join = BUS1_JOIN_DONE;
	struct bus1_death *death;
	struct bus1_stamp at;
	bool sealed = false;

	spin_lock(&node->lock);
	spin_lock(&peer->handles.lock);
	spin_lock(&queue->lock);
	death = node->death;
	if (death) {
		sealed = bus1_tx_push(&death->tx, stamp ? stamp->ts : queue->floor,
				      &at);
		/* Without a message to be ordered against, it is too late */
		if (sealed && (!stamp || bus1_stamp_cmp(&at, stamp) < 0))
			join = BUS1_JOIN_DEAD;
		/*
		 * All references were dropped while this one was on its way, and
		 * the notification as void, maybe just now: it cannot be staged
		 * a second time. The ID was given back.
		 */
		else if (handle->is_notified && !handle->live &&
			 handle->notify.state == BUS1_ENTRY_IDLE)
			join = BUS1_JOIN_AGAIN;
	}
	if (join == BUS1_JOIN_DONE) {
		/*
		 * [live:A] pairs with [live:B] in bus1_handle_is_stale(): it is
		 * alive before it joins the holders of the node, and can be
		 * notified, and not before it is sure not to come too late:
		 * what is staged from an earlier life is void until then.
		 * node->lock and the lock of the queue order it.
		 */
		++handle->joined;
		bus1_handle_update_locked(handle);
		if (death && !handle->is_notified)
			sealed = bus1_handle_stage_locked(handle, death, &at);
	} else if (join == BUS1_JOIN_AGAIN && handle->in_table) {
		bus1_handle_erase_locked(handle);
	}
	spin_unlock(&queue->lock);
	spin_unlock(&peer->handles.lock);
	if (join == BUS1_JOIN_DONE && list_empty(&handle->link))
		list_add_tail(&handle->link,
			      death ? &node->notified : &node->holders);
	spin_unlock(&node->lock);

	/* Either becomes known here: that it is dead, or will be */
	if (sealed)
		bus1_clock_pass(at.ts);
	if (join != BUS1_JOIN_DONE)
		bus1_handle_import_cancel(handle);
	else if (sealed)
		bus1_peer_wake(peer);
	return join;
}

/**
 * bus1_handle_import_join() - make a handle one of the holders of its node
 * @handle: handle that was prepared, for no message
 *
 * If this succeeds, bus1_handle_import_commit() or bus1_handle_import_abort() has to
 * follow; or else that is done. A destruction that is under way is pushed behind
 * all that the peer has received, and will be notified of: nothing may fail from
 * here on, for somebody else may receive that notification at once.
 *
 * Context: Process context, may sleep.
 * Return: False if the node is destroyed.
 */
bool bus1_handle_import_join(struct bus1_handle *handle)
{
	return bus1_handle_try_join(handle, NULL) == BUS1_JOIN_DONE;
}

/**
 * bus1_handle_import() - prepare to give a peer a user reference to a node
 * @peer: peer that gets it, with recv_mutex held: nobody receives meanwhile
 * @node: node that it is for
 * @stamp: position of the message that carries it, or NULL if there is none
 * @handlep: where to store the handle; NULL if the node is destroyed, before
 *	@stamp if there is one
 *
 * To be followed by bus1_handle_import_commit() or bus1_handle_import_abort(). A
 * destruction that is under way is pushed behind @stamp, or else behind all that
 * the peer has received.
 *
 * Context: Process context, may sleep.
 * Return: 0, or -ENOMEM.
 */
int bus1_handle_import(struct bus1_peer *peer, struct bus1_node *node,
		       const struct bus1_stamp *stamp,
		       struct bus1_handle **handlep)
{
	enum bus1_join join;
	int r;

	lockdep_assert_held(&peer->recv_mutex);

	do {
		r = bus1_handle_import_prepare(peer, node, handlep);
		if (r < 0)
			return r;
		join = bus1_handle_try_join(*handlep, stamp);
	} while (join == BUS1_JOIN_AGAIN);
	if (join == BUS1_JOIN_DEAD)
		*handlep = NULL;
	return 0;
}

static void bus1_handle_import_undo(struct bus1_handle *handle, bool joined)
{
	struct bus1_handle_table *table = &handle->holder->handles;
	struct bus1_node *node = bus1_node_ref(handle->node);
	bool gone, expired;

	spin_lock(&table->lock);
	--handle->imports;
	if (joined) {
		--handle->joined;
		bus1_handle_update_locked(handle);
	}
	gone = bus1_handle_is_gone_locked(handle);
	/* One that cannot be found any more goes with its last import */
	expired = handle->in_table ? bus1_handle_expire_locked(handle) :
				     !handle->imports;
	spin_unlock(&table->lock);

	if (expired)
		bus1_handle_retire(handle);
	if (gone)
		bus1_node_purge(node);
	bus1_node_unref(node);
}

/**
 * bus1_handle_import_cancel() - undo bus1_handle_import_prepare()
 * @handle: prepared handle that did not join, or NULL
 *
 * Context: Process context, without spinlocks.
 */
void bus1_handle_import_cancel(struct bus1_handle *handle)
{
	if (handle)
		bus1_handle_import_undo(handle, false);
}

/**
 * bus1_handle_import_abort() - undo bus1_handle_import()
 * @handle: imported handle, or NULL
 *
 * Context: Process context, without spinlocks.
 */
void bus1_handle_import_abort(struct bus1_handle *handle)
{
	if (handle)
		bus1_handle_import_undo(handle, true);
}

/**
 * bus1_handle_import_commit() - give the user reference
 * @handle: imported handle
 * @share: who has been charged the cost of a handle, if @handle is new
 *
 * Context: Process context, without spinlocks.
 * Return: True if the handle takes over what @share was charged, false if it
 *	had been charged before.
 */
bool bus1_handle_import_commit(struct bus1_handle *handle,
			       struct bus1_share *share)
{
	struct bus1_handle_table *table = &handle->holder->handles;
	bool taken;

	spin_lock(&table->lock);
	--handle->imports;
	--handle->joined;
	bus1_handle_add_locked(handle);
	bus1_handle_update_locked(handle);
	taken = !handle->charged;
	if (taken) {
		handle->share = share;
		WRITE_ONCE(handle->charged, true);
	}
	spin_unlock(&table->lock);
	return taken;
}

/* All handles of a peer */

/**
 * bus1_handles_collect() - list the nodes of a peer
 * @peer: peer that owns them, with destroy_mutex held
 * @nodes: list that gets the nodes, by their destroy_link, with a reference each
 *
 * Those that are destroyed, or have destroy_mark set, are left out.
 *
 * Context: Process context, without spinlocks.
 */
void bus1_handles_collect(struct bus1_peer *peer, struct list_head *nodes)
{
	struct bus1_handle_table *table = &peer->handles;
	struct bus1_handle *handle;
	struct bus1_node *node;
	unsigned int n = 0;
	u64 id = 0;

	lockdep_assert_held(&peer->destroy_mutex);

	spin_lock(&table->lock);
	while ((handle = bus1_handle_lower_bound_locked(table, id))) {
		node = handle->node;
		if (bus1_handle_is_own(handle) && handle->born &&
		    !node->death && !node->destroy_mark) {
			bus1_node_ref(node);
			list_add_tail(&node->destroy_link, nodes);
		}
		if (handle->id == U64_MAX)
			break;
		id = handle->id + 1;
		/* Whoever waits for the lock need not be on this CPU */
		if (++n % BUS1_HANDLE_BATCH == 0) {
			spin_unlock(&table->lock);
			cond_resched();
			spin_lock(&table->lock);
		}
	}
	spin_unlock(&table->lock);
}

/**
 * bus1_handles_drop() - drop every user reference
 * @peer: peer that holds them, with destroy_mutex held
 * @own: those to nodes of the peer itself, or those to nodes of others
 *
 * The pinned references of nodes that are alive stay.
 *
 * Context: Process context, without spinlocks.
 */
void bus1_handles_drop(struct bus1_peer *peer, bool own)
{
	struct bus1_handle_table *table = &peer->handles;
	struct bus1_handle *handle;
	struct bus1_node *node;
	bool put, expired;
	u64 id = 0, keep;

	for (;;) {
		spin_lock(&table->lock);
		handle = bus1_handle_lower_bound_locked(table, id);
		if (!handle) {
			spin_unlock(&table->lock);
			break;
		}
		id = handle->id;
		node = bus1_node_ref(handle->node);
		/* Of others, node->death may change under our feet */
		keep = own && bus1_handle_is_own(handle) && !node->death;
		put = own == bus1_handle_is_own(handle) &&
		      handle->user_refs > keep &&
		      bus1_handle_drop_locked(handle, handle->user_refs - keep);
		expired = bus1_handle_expire_locked(handle);
		spin_unlock(&table->lock);

		if (put)
			bus1_node_put(node);
		if (expired)
			bus1_handle_retire(handle);
		bus1_node_unref(node);
		cond_resched();
		if (id++ == U64_MAX)
			break;
	}
}

/**
 * bus1_handles_count_nodes() - count the nodes of a peer
 * @peer: peer that owns them
 *
 * Those that are destroyed do not count; one whose destruction has begun may be missing
 * already.
 *
 * Context: Process context, without spinlocks.
 * Return: Number of nodes.
 */
u64 bus1_handles_count_nodes(struct bus1_peer *peer)
{
	struct bus1_handle_table *table = &peer->handles;
	struct bus1_handle *handle;
	struct bus1_stamp stamp;
	u64 id = 0, n = 0, ts = 0;
	unsigned int i = 0;

	spin_lock(&table->lock);
	while ((handle = bus1_handle_lower_bound_locked(table, id))) {
		if (bus1_handle_is_own(handle) && handle->born) {
			if (bus1_node_is_sealed(handle->node, &stamp))
				ts = max(ts, stamp.ts);
			else
				++n;
		}
		if (handle->id == U64_MAX)
			break;
		id = handle->id + 1;
		/* Whoever waits for the lock need not be on this CPU */
		if (++i % BUS1_HANDLE_BATCH == 0) {
			spin_unlock(&table->lock);
			cond_resched();
			spin_lock(&table->lock);
		}
	}
	spin_unlock(&table->lock);

	/* What is in the table, and does not count, tells of the destruction */
	bus1_clock_pass(ts);
	return n;
}
