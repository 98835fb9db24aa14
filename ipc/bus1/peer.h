/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_PEER_H
#define __BUS1_PEER_H

/**
 * DOC: Peers
 *
 * A peer is what is behind one open file of /dev/bus1: a set of nodes and
 * handles, a queue of incoming messages, and the pool that they arrive in.
 *
 * It lives in memory as long as anything refers to it, but is in service only
 * until it disconnects: by command, or when its file is closed. Commands on the
 * peer hold an active reference. Once it is deactivated, there are no new ones, and
 * with the last one the disconnect takes place, as one transaction; nobody is told
 * of it before that. What others do to the peer (queue a message, stage a
 * notification) needs no active reference: it finds the queue closed.
 */

#include <linux/kref.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/types.h>
#include <linux/wait.h>
#include "handle.h"
#include "quota.h"
#include "util/active.h"
#include "util/queue.h"

struct bus1_cargo;
struct bus1_message;
struct bus1_pool;
struct file;
struct seq_file;

/**
 * enum bus1_entry_type - what is in the queue of a peer
 * @BUS1_ENTRY_MESSAGE: &struct bus1_message.entry
 * @BUS1_ENTRY_DESTROY: &struct bus1_handle.notify
 * @BUS1_ENTRY_RELEASE: &struct bus1_node.release
 */
enum bus1_entry_type {
	BUS1_ENTRY_MESSAGE,
	BUS1_ENTRY_DESTROY,
	BUS1_ENTRY_RELEASE,
};

/*
 * Locks
 * =====
 *
 * A lock may be taken while holding those above it, and no others.
 *
 *  destroy_mutex   of a peer: one destruction of its nodes at a time.
 *  recv_mutex      of a peer: one claimed entry at a time, and the seed. May be
 *                  held over a fault in memory of the receiving process. Only
 *                  commands of the same peer wait for it, and they do so
 *                  killably; RECV interruptibly. One that waits for messages
 *                  without a limit of time only does so if the queue is not
 *                  empty.
 *  birth_sem       of a peer: taken to read by commands that let nodes exist,
 *                  to write by a flush until it is sealed: it destroys every
 *                  node that was there before. Never held over anything that
 *                  user space could delay.
 *  node->lock      who holds handles to the node, and whether they were told of
 *                  its destruction.
 *  handles.lock    of a peer: which handles there are, and their counts.
 *  queue.lock      of a peer: the queue, its entries, and whether a node has
 *                  references.
 *
 * The latter three are spinlocks, held for a bounded time. The locks of budgets
 * (quota.c) and of pools (util/pool.c) are taken with no spinlock held. No
 * lock is taken in interrupt context or in RCU callbacks, and nothing is
 * allocated, freed with a chance to sleep, or copied from or to user space with
 * a spinlock held.
 */

/**
 * struct bus1_peer - a peer
 * @ref: reference count
 * @id: ID for humans, unique on this machine (const)
 * @active: active references, held by commands
 * @user: user that opened it; holds a reference (const)
 * @quota: what the peer may hold, and holds
 * @pool: memory that messages arrive in; holds a reference (const)
 * @waitq: who waits for messages
 * @handles: handles of the peer
 * @queue: incoming messages and notifications
 * @destroy_mutex: see above
 * @birth_sem: see above
 * @recv_mutex: see above
 * @seed: the message that the peer pinned for itself, or NULL (recv_mutex)
 * @spare: a message that is not used, kept for the next one, and maybe its slice
 *	(atomic)
 * @spare_cargo: cargo that is not used, kept for the next one; goes with the peer (atomic)
 * @is_torn_down: it is disconnected (recv_mutex to set it; read without)
 */
struct bus1_peer {
	struct kref ref;
	u64 id;
	struct bus1_active active;
	struct bus1_user *user;
	struct bus1_quota quota;
	struct bus1_pool *pool;
	wait_queue_head_t waitq;
	struct bus1_handle_table handles;
	struct bus1_queue queue;
	struct mutex destroy_mutex; /* see above */
	struct rw_semaphore birth_sem; /* see above */
	struct mutex recv_mutex; /* see above */
	struct bus1_message *seed;
	struct bus1_message *spare;
	struct bus1_cargo *spare_cargo;
	bool is_torn_down;
};

extern const struct bus1_queue_ops bus1_peer_queue_ops;

struct bus1_peer *bus1_peer_new(kuid_t uid);
struct bus1_peer *bus1_peer_ref(struct bus1_peer *peer);
void bus1_peer_unref(struct bus1_peer *peer);
void bus1_peer_wake(struct bus1_peer *peer);
bool bus1_peer_is_ready(struct bus1_peer *peer);
void bus1_peer_free_drops(struct list_head *drops);
bool bus1_peer_acquire(struct bus1_peer *peer);
void bus1_peer_release(struct bus1_peer *peer);
int bus1_peer_await_disconnect(struct bus1_peer *peer);
int bus1_peer_disconnect(struct bus1_peer *peer);
void bus1_peer_teardown(struct bus1_peer *peer);
int bus1_peer_reset(struct bus1_peer *peer, const struct bus1_cost *limits,
		    bool flush, bool flush_seed);
int bus1_peer_transfer(struct bus1_peer *src, u64 id, struct bus1_peer *dst,
		       struct bus1_handle **srcp, struct bus1_handle **dstp);
void bus1_peer_transfer_done(struct bus1_handle *src, struct bus1_handle *dst,
			     bool commit);
void bus1_peer_show(struct bus1_peer *peer, struct seq_file *m);

/**
 * bus1_peer_is_disconnected() - ask whether a peer is disconnected
 * @peer: peer to ask
 *
 * Context: Any.
 * Return: True if it is; its nodes are destroyed then.
 */
static inline bool bus1_peer_is_disconnected(const struct bus1_peer *peer)
{
	/* [torn:B] pairs with [torn:A] in bus1_peer_teardown() */
	return smp_load_acquire(&peer->is_torn_down);
}

#endif /* __BUS1_PEER_H */
