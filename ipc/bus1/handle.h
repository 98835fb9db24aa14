/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_HANDLE_H
#define __BUS1_HANDLE_H

/**
 * DOC: Handles
 *
 * A handle is the right of one peer to reach one node. The owner has a handle
 * like everybody else, created together with the node. A handle holds a reference
 * to its node and to the peer it belongs to; these cycles end when that peer
 * disconnects, which takes away all of its handles.
 *
 * handle->user_refs is what user space sees. Without any, a handle is no handle to
 * user space. handle->imports counts the commands that are about to add one. It
 * leaves the table of its peer once both are 0; the commands that work with it,
 * which handle->pins counts, keep it in memory. One that is not born yet, since the
 * command that creates its node has not succeeded, leaves it with the last of these.
 */

#include <linux/kref.h>
#include <linux/list.h>
#include <linux/rbtree.h>
#include <linux/spinlock.h>
#include <linux/types.h>
#include "util/queue.h"

struct bus1_death;
struct bus1_node;
struct bus1_peer;
struct bus1_share;

/**
 * struct bus1_handle - a handle
 * @ref: reference count; the table holds one, each pin, and @notify while it is
 *	queued
 * @holder: peer it belongs to; holds a reference (const)
 * @node: node it is a right to; holds a reference (const)
 * @id: ID (const)
 * @rb_id: in holder->handles.by_id (holder->handles.lock)
 * @rb_node: in holder->handles.by_node (holder->handles.lock)
 * @user_refs: references of user space (holder->handles.lock)
 * @imports: commands that are about to add user references
 *	(holder->handles.lock)
 * @joined: those of @imports that made it a holder of the node, which a
 *	destruction is told to (holder->handles.lock)
 * @live: whether there is any of @user_refs and @joined, for those who look at
 *	it without the lock: it stays true when one becomes the other
 *	(holder->handles.lock to write)
 * @pins: commands that use it as a source; without a meaning once it is born
 *	(holder->handles.lock)
 * @born: it was shown to user space; always true for remote ones
 *	(holder->handles.lock to write; set once, read without as well)
 * @in_table: it is in the table. One that is born is there exactly as long as
 *	there are @user_refs or @imports, unless it cannot be notified any more
 *	(holder->handles.lock)
 * @is_expired: NODES_DESTROY has to retire it (holder->destroy_mutex)
 * @charged: its cost is accounted for (holder->handles.lock to write; set once,
 *	read without as well)
 * @share: who its cost is charged to, NULL for the peer itself
 *	(holder->handles.lock)
 * @link: in node->holders or node->notified (node->lock)
 * @is_notified: @notify has been used (node->lock)
 * @notify: NODE_DESTROY notification (holder->queue.lock)
 */
struct bus1_handle {
	struct kref ref;
	struct bus1_peer *holder;
	struct bus1_node *node;
	u64 id;

	struct rb_node rb_id;
	struct rb_node rb_node;
	u64 user_refs;
	u64 imports;
	u64 joined;
	u64 pins;
	bool live;
	bool born;
	bool in_table;
	bool is_expired;
	bool charged;
	struct bus1_share *share;

	struct list_head link;
	bool is_notified;
	struct bus1_queue_entry notify;
};

/**
 * struct bus1_handle_table - the handles of a peer
 * @lock: protects the table, and the counts of the handles in it
 * @by_id: all handles, by ID (lock)
 * @by_node: all handles, by address of their node (lock)
 * @last_id: number of IDs chosen by the kernel so far (lock)
 */
struct bus1_handle_table {
	spinlock_t lock; /* see above */
	struct rb_root by_id;
	struct rb_root by_node;
	u64 last_id;
};

int bus1_handle_module_init(void);
void bus1_handle_module_exit(void);

void bus1_handle_table_init(struct bus1_handle_table *table);
void bus1_handle_table_deinit(struct bus1_handle_table *table);

bool bus1_handle_is_own(const struct bus1_handle *handle);
bool bus1_handle_is_stale(const struct bus1_handle *handle);
void bus1_handle_unref(struct bus1_handle *handle);
int bus1_handle_release(struct bus1_peer *peer, u64 id);

/**
 * enum bus1_pin_flags - what bus1_handle_pin() does
 * @BUS1_PIN_CARRY: count a reference to the node for a message. Only done for
 *	nodes of others; one's own are counted when the message is committed
 * @BUS1_PIN_CREATE: prepare a node if the ID names one that does not exist yet
 */
enum bus1_pin_flags {
	BUS1_PIN_CARRY	= 1 << 0,
	BUS1_PIN_CREATE	= 1 << 1,
};

/* Handles as the source of a command */
int bus1_handle_pin(struct bus1_peer *peer, u64 id, unsigned int flags,
		    struct bus1_handle **handlep);
void bus1_handle_unpin(struct bus1_handle *handle);
int bus1_handle_charge(struct bus1_handle *handle);
void bus1_handle_bear(struct bus1_handle *handle);
bool bus1_handle_drop(struct bus1_handle *handle);
void bus1_handle_retire(struct bus1_handle *handle);

/* Handles as the result of a command */
int bus1_handle_import_prepare(struct bus1_peer *peer, struct bus1_node *node,
			       struct bus1_handle **handlep);
bool bus1_handle_import_join(struct bus1_handle *handle);
int bus1_handle_import(struct bus1_peer *peer, struct bus1_node *node,
		       const struct bus1_stamp *stamp,
		       struct bus1_handle **handlep);
void bus1_handle_import_cancel(struct bus1_handle *handle);
void bus1_handle_import_abort(struct bus1_handle *handle);
bool bus1_handle_import_commit(struct bus1_handle *handle,
			       struct bus1_share *share);

/* Destruction */
void bus1_handle_notify_locked(struct bus1_handle *handle,
			       struct bus1_death *death);
void bus1_handles_collect(struct bus1_peer *peer, struct list_head *nodes);
void bus1_handles_drop(struct bus1_peer *peer, bool own);

/* For people */
u64 bus1_handles_count_nodes(struct bus1_peer *peer);

/**
 * bus1_handle_is_born() - ask whether the node of a handle exists, or has done so
 * @handle: handle
 *
 * Context: Any.
 * Return: True once it does; who misses that finds out under the locks.
 */
static inline bool bus1_handle_is_born(const struct bus1_handle *handle)
{
	return READ_ONCE(handle->born);
}

/**
 * bus1_handle_commit_new() - let a node exist
 * @handle: pinned handle
 *
 * Does nothing if it exists already. Waits for a flush that goes on, so that
 * the node is destroyed by it, or nothing that happens to it comes before.
 *
 * Context: Process context, may sleep, but not wait for user space.
 */
static inline void bus1_handle_commit_new(struct bus1_handle *handle)
{
	if (!bus1_handle_is_born(handle))
		bus1_handle_bear(handle);
}

#endif /* __BUS1_HANDLE_H */
