/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_NODE_H
#define __BUS1_NODE_H

/**
 * DOC: Nodes
 *
 * A node is an object that somebody can send messages to; they go to the peer
 * that owns it. It holds a reference to that peer, and is held in memory by
 * handles, and by messages that are for it or carry it.
 *
 * node->refs is no lifetime, but what NODE_RELEASE is about: the handles that
 * have user references, other than the owner's pinned one, and the messages that
 * carry the node.
 *
 * Destruction is a transaction: node->death says which, and once that is sealed,
 * everything that comes after it sees the node destroyed. See destroy.h.
 */

#include <linux/atomic.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include "util/queue.h"

struct bus1_peer;

/**
 * struct bus1_death - a transaction that destroys nodes
 * @ref: reference count
 * @tx: the transaction
 */
struct bus1_death {
	struct kref ref;
	struct bus1_tx tx;
};

/**
 * struct bus1_node - a node
 * @ref: reference count
 * @owner: peer that owns it; holds a reference (const)
 * @id: ID that the owner gave it (const)
 * @refs: references other than the pinned one (atomic; goes from and to 0 only
 *	under owner->queue.lock)
 * @lock: protects what is tagged with it
 * @death: the transaction that destroys it, or NULL; holds a reference (set
 *	once, under lock and owner->destroy_mutex; read with acquire, or under
 *	one of these)
 * @holders: handles, by link, that no notification is staged for yet (lock)
 * @notified: handles, by link, that have one (lock)
 * @destroy_link: in the list of nodes to destroy (owner->destroy_mutex)
 * @destroy_mark: the seed carries it: the flush that runs must keep it
 *	(owner->destroy_mutex)
 * @owner_gone: the owner has given @id back: nobody has an ID for what is queued
 *	(owner->handles.lock to write)
 * @queued: messages queued to the node (owner->queue.lock)
 * @release: NODE_RELEASE notification (owner->queue.lock)
 * @release_again: another one is due since the claimed @release was claimed
 *	(owner->queue.lock)
 * @release_stamp: the position of that one (owner->queue.lock)
 */
struct bus1_node {
	struct kref ref;
	struct bus1_peer *owner;
	u64 id;
	atomic_long_t refs;

	spinlock_t lock; /* see above */
	struct bus1_death *death;
	struct list_head holders;
	struct list_head notified;

	struct list_head destroy_link;
	bool destroy_mark;

	bool owner_gone;
	struct hlist_head queued;
	struct bus1_queue_entry release;
	bool release_again;
	struct bus1_stamp release_stamp;
};

int bus1_node_module_init(void);
void bus1_node_module_exit(void);

struct bus1_death *bus1_death_new(gfp_t gfp);
void bus1_death_unref(struct bus1_death *death);

struct bus1_node *bus1_node_new(struct bus1_peer *owner, u64 id);
void bus1_node_unref(struct bus1_node *node);
void bus1_node_get(struct bus1_node *node);
void bus1_node_put(struct bus1_node *node);
bool bus1_node_is_sealed(struct bus1_node *node, struct bus1_stamp *stamp);
bool bus1_node_is_dead(struct bus1_node *node);
bool bus1_node_is_stale(struct bus1_node *node, const struct bus1_stamp *stamp);
bool bus1_node_release_is_stale(struct bus1_node *node,
				const struct bus1_stamp *stamp);
void bus1_node_release_done(struct bus1_node *node, bool received);
void bus1_node_purge(struct bus1_node *node);

/**
 * bus1_node_ref() - keep a node in memory
 * @node: node, or NULL
 *
 * Context: Any.
 * Return: @node.
 */
static inline struct bus1_node *bus1_node_ref(struct bus1_node *node)
{
	if (node)
		kref_get(&node->ref);
	return node;
}

/**
 * bus1_node_destroyed() - ask whether a node is destroyed
 * @node: node to ask
 *
 * A destruction that goes on at this moment does not count. One that does is in
 * the past when this returns, so that the caller may tell of it.
 *
 * Context: Any.
 * Return: True if it is.
 */
static inline bool bus1_node_destroyed(struct bus1_node *node)
{
	/* Who misses that one has just begun comes before it */
	return READ_ONCE(node->death) && bus1_node_is_dead(node);
}

#endif /* __BUS1_NODE_H */
