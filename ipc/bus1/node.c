// SPDX-License-Identifier: GPL-2.0-only
#include <linux/atomic.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <uapi/linux/bus1.h>
#include "node.h"
#include "peer.h"
#include "trace.h"
#include "util/queue.h"

static struct kmem_cache *bus1_node_cache;

/**
 * bus1_node_module_init() - set up what all peers share
 *
 * Context: Module initialization.
 * Return: 0, or -ENOMEM.
 */
int bus1_node_module_init(void)
{
	bus1_node_cache = KMEM_CACHE(bus1_node, SLAB_ACCOUNT);
	return bus1_node_cache ? 0 : -ENOMEM;
}

/**
 * bus1_node_module_exit() - undo bus1_node_module_init()
 *
 * Context: Module exit; no peer is left.
 */
void bus1_node_module_exit(void)
{
	kmem_cache_destroy(bus1_node_cache);
}

/**
 * bus1_death_new() - start a transaction that destroys nodes
 * @gfp: allocation flags
 *
 * Context: As @gfp says.
 * Return: The transaction, or NULL.
 */
struct bus1_death *bus1_death_new(gfp_t gfp)
{
	struct bus1_death *death;

	death = kmalloc(sizeof(*death), gfp);
	if (!death)
		return NULL;
	kref_init(&death->ref);
	bus1_tx_init(&death->tx);
	return death;
}

static void bus1_death_free(struct kref *ref)
{
	kfree(container_of(ref, struct bus1_death, ref));
}

/**
 * bus1_death_unref() - drop a reference
 * @death: transaction, or NULL
 *
 * Context: Any.
 */
void bus1_death_unref(struct bus1_death *death)
{
	if (death)
		kref_put(&death->ref, bus1_death_free);
}

/**
 * bus1_node_new() - make a node
 * @owner: peer that owns it
 * @id: ID that the owner gives it
 *
 * Context: Process context, may sleep.
 * Return: The node, without handles, or NULL if there is no memory.
 */
struct bus1_node *bus1_node_new(struct bus1_peer *owner, u64 id)
{
	struct bus1_node *node;

	node = kmem_cache_alloc(bus1_node_cache, GFP_KERNEL);
	if (!node)
		return NULL;

	kref_init(&node->ref);
	node->owner = bus1_peer_ref(owner);
	node->id = id;
	atomic_long_set(&node->refs, 0);
	spin_lock_init(&node->lock);
	node->death = NULL;
	INIT_LIST_HEAD(&node->holders);
	INIT_LIST_HEAD(&node->notified);
	INIT_LIST_HEAD(&node->destroy_link);
	node->destroy_mark = false;
	node->owner_gone = false;
	INIT_HLIST_HEAD(&node->queued);
	bus1_queue_entry_init(&node->release, BUS1_ENTRY_RELEASE);
	node->release_again = false;
	node->release_stamp = (struct bus1_stamp){};
	return node;
}

static noinline void bus1_node_free(struct kref *ref)
{
	struct bus1_node *node = container_of(ref, struct bus1_node, ref);

	WARN_ON_ONCE(atomic_long_read(&node->refs));
	WARN_ON_ONCE(!list_empty(&node->holders));
	WARN_ON_ONCE(!list_empty(&node->notified));
	WARN_ON_ONCE(!hlist_empty(&node->queued));
	WARN_ON_ONCE(node->release.state != BUS1_ENTRY_IDLE);

	bus1_death_unref(node->death);
	bus1_peer_unref(node->owner);
	kmem_cache_free(bus1_node_cache, node);
}

/**
 * bus1_node_unref() - undo bus1_node_ref()
 * @node: node, or NULL
 *
 * Context: Process context, without spinlocks.
 */
void bus1_node_unref(struct bus1_node *node)
{
	if (node)
		kref_put(&node->ref, bus1_node_free);
}

/**
 * bus1_node_is_sealed() - ask whether the destruction of a node is sealed
 * @node: node to ask
 * @stamp: where to store its position if it is
 *
 * The position may not be in the past yet: pass it before anybody learns of it.
 *
 * Context: Any.
 * Return: True if it is sealed.
 */
bool bus1_node_is_sealed(struct bus1_node *node, struct bus1_stamp *stamp)
{
	/* [death:B] pairs with [death:A] in bus1_destroy_stage() */
	struct bus1_death *death = smp_load_acquire(&node->death);

	return death && bus1_tx_sealed(&death->tx, stamp);
}

/* bus1_node_destroyed(), where a destruction has begun at least. */
noinline bool bus1_node_is_dead(struct bus1_node *node)
{
	struct bus1_stamp stamp;

	if (!bus1_node_is_sealed(node, &stamp))
		return false;
	bus1_clock_pass(stamp.ts);
	return true;
}

/**
 * bus1_node_is_stale() - ask whether a message to a node is void
 * @node: node that the message is for
 * @stamp: position of the message
 *
 * Context: Any.
 * Return: True if the node was destroyed before, or nobody has an ID for it.
 */
bool bus1_node_is_stale(struct bus1_node *node, const struct bus1_stamp *stamp)
{
	/* [death:B] pairs with [death:A] in bus1_destroy_stage() */
	struct bus1_death *death = smp_load_acquire(&node->death);
	struct bus1_stamp at;

	if (!death)
		return false;
	if (READ_ONCE(node->owner_gone))
		return true;
	return bus1_tx_sealed(&death->tx, &at) && bus1_stamp_cmp(&at, stamp) < 0;
}

/**
 * bus1_node_release_is_stale() - ask whether a NODE_RELEASE is void
 * @node: node that it is about
 * @stamp: position of the notification
 *
 * A destruction that begins when the notification was just queued may get the same
 * timestamp from a clock that ticks slowly, and a lower ID.
 *
 * Context: Any.
 * Return: True if there are references again, the node was destroyed before, or
 *	nobody has an ID for it.
 */
bool bus1_node_release_is_stale(struct bus1_node *node,
				const struct bus1_stamp *stamp)
{
	return atomic_long_read(&node->refs) || READ_ONCE(node->owner_gone) ||
	       bus1_node_is_stale(node, stamp);
}

/* NODE_RELEASE was queued. */
static void bus1_node_trace_release_locked(struct bus1_node *node)
{
	const struct bus1_stamp *stamp = &node->release.stamp;

	if (trace_bus1_notify_enabled())
		trace_bus1_notify(node->owner, node->id, node,
				  BUS1_MSG_NODE_RELEASE, stamp->id, stamp->ts);
}

/*
 * Queue NODE_RELEASE. Return true if the owner must be woken up; @ts is set to what is
 * to be passed, also if it is queued later.
 */
static bool bus1_node_release_locked(struct bus1_node *node, u64 *ts)
{
	lockdep_assert_held(&node->owner->queue.lock);

	/*
	 * Set under another lock. If this comes too early, the destruction has
	 * yet to be staged in this queue, and comes after the release.
	 */
	if (READ_ONCE(node->death))
		return false;
	/* It comes before a destruction that begins now, though it has to wait */
	if (node->release.state == BUS1_ENTRY_CLAIMED) {
		bus1_queue_stamp_locked(&node->owner->queue,
					&node->release_stamp);
		*ts = node->release_stamp.ts;
		node->release_again = true;
		return false;
	}
	if (!bus1_queue_commit_locked(&node->owner->queue, &bus1_peer_queue_ops,
				      &node->release, ts))
		return false;
	bus1_node_trace_release_locked(node);
	kref_get(&node->ref);
	return true;
}

/**
 * bus1_node_get() - count a reference of a handle or message
 * @node: node that is referred to
 *
 * Takes a NODE_RELEASE notification back that was not received yet.
 *
 * Context: Any. The caller has a node reference, and the right to do so: it
 *	holds a reference of this kind, or is the owner.
 */
void bus1_node_get(struct bus1_node *node)
{
	struct bus1_queue *queue = &node->owner->queue;
	bool removed;

	if (atomic_long_inc_not_zero(&node->refs))
		return;

	/*
	 * [refs:B] pairs with [refs:A] in bus1_node_put(): from and to 0 goes
	 * under this lock, together with what is queued.
	 */
	spin_lock(&queue->lock);
	atomic_long_inc(&node->refs);
	node->release_again = false;
	removed = bus1_queue_remove_locked(queue, &node->release);
	spin_unlock(&queue->lock);

	/* Not the last one: the caller has another */
	if (removed)
		bus1_node_unref(node);
}

/**
 * bus1_node_put() - undo bus1_node_get()
 * @node: node that is not referred to any more
 *
 * Notifies the owner if this was the last reference but the pinned one.
 *
 * Context: Process context, without spinlocks.
 */
void bus1_node_put(struct bus1_node *node)
{
	struct bus1_queue *queue = &node->owner->queue;
	bool wake = false;
	u64 ts = 0;

	if (atomic_long_add_unless(&node->refs, -1, 1))
		return;

	/* [refs:A] pairs with [refs:B] in bus1_node_get() */
	spin_lock(&queue->lock);
	if (atomic_long_dec_and_test(&node->refs))
		wake = bus1_node_release_locked(node, &ts);
	spin_unlock(&queue->lock);

	/* What is entered after this returned comes after the release */
	bus1_clock_pass(ts);
	if (wake)
		bus1_peer_wake(node->owner);
}

/**
 * bus1_node_release_done() - finish with a claimed NODE_RELEASE
 * @node: node that it is about
 * @received: whether it was received, or is to be put back
 *
 * Context: Process context, without spinlocks.
 */
void bus1_node_release_done(struct bus1_node *node, bool received)
{
	struct bus1_queue *queue = &node->owner->queue;
	struct bus1_stamp stamp;
	bool again, requeued = false;

	spin_lock(&queue->lock);
	again = node->release_again;
	stamp = node->release_stamp;
	node->release_again = false;
	if (!received && !again && !atomic_long_read(&node->refs)) {
		bus1_queue_unclaim_locked(queue, &node->release);
		requeued = true;
	} else {
		bus1_queue_done(&node->release);
		again = again && bus1_queue_commit_at_locked(queue,
							     &bus1_peer_queue_ops,
							     &node->release,
							     &stamp);
		if (again) {
			bus1_node_trace_release_locked(node);
			kref_get(&node->ref);
		}
	}
	spin_unlock(&queue->lock);

	if (again) {
		bus1_clock_pass(stamp.ts);
		bus1_peer_wake(node->owner);
	}
	if (!requeued)
		bus1_node_unref(node);
}

/**
 * bus1_node_purge() - drop messages that nobody can receive any more
 * @node: node that is destroyed
 *
 * Context: Process context, without spinlocks.
 */
void bus1_node_purge(struct bus1_node *node)
{
	LIST_HEAD(drops);

	bus1_queue_purge(&node->owner->queue, &bus1_peer_queue_ops, &node->queued,
			 &drops);
	bus1_peer_free_drops(&drops);
}
