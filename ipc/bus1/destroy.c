// SPDX-License-Identifier: GPL-2.0-only
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/rwsem.h>
#include <linux/sched.h>
#include <linux/spinlock.h>
#include "destroy.h"
#include "handle.h"
#include "node.h"
#include "peer.h"
#include "trace.h"
#include "util/array.h"
#include "util/queue.h"

/* How many holders may be notified before the lock is released once. */
#define BUS1_DESTROY_BATCH	64

/*
 * Make a node part of the transaction, and stage the notifications of all its
 * holders. The owner always gets one: if it is to hear nothing, that is dropped once
 * the transaction is sealed.
 */
static void bus1_destroy_stage(struct bus1_node *node, struct bus1_death *death)
{
	struct bus1_handle *handle;
	unsigned int n = 0;

	lockdep_assert_held(&node->owner->destroy_mutex);

	kref_get(&death->ref);
	spin_lock(&node->lock);
	/*
	 * [death:A] pairs with [death:B] in bus1_node_is_sealed() and
	 * bus1_node_is_stale(): who finds it, without the lock, finds it
	 * initialized.
	 */
	smp_store_release(&node->death, death);
	while (!list_empty(&node->holders)) {
		handle = list_first_entry(&node->holders, struct bus1_handle,
					  link);
		/* Whoever joins from now on goes to this list at once */
		list_move_tail(&handle->link, &node->notified);
		bus1_handle_notify_locked(handle, death);
		/* Whoever waits for the lock need not be on this CPU */
		if (++n % BUS1_DESTROY_BATCH == 0) {
			spin_unlock(&node->lock);
			cond_resched();
			spin_lock(&node->lock);
		}
	}
	spin_unlock(&node->lock);
}

/* Let go of the sealed transaction on all queues, and wake up their readers. */
static void bus1_destroy_settle(struct bus1_node *node,
				struct bus1_death *death)
{
	struct bus1_handle *handle;

	trace_bus1_node_destroy(node, death);
	spin_lock(&node->lock);
	while (!list_empty(&node->notified)) {
		handle = list_first_entry(&node->notified, struct bus1_handle,
					  link);
		/* Nothing looks at this list any more */
		list_move_tail(&handle->link, &node->holders);
		kref_get(&handle->ref);
		spin_unlock(&node->lock);

		bus1_queue_settle(&handle->holder->queue, &death->tx);
		bus1_peer_wake(handle->holder);
		bus1_handle_unref(handle);
		cond_resched();

		spin_lock(&node->lock);
	}
	spin_unlock(&node->lock);

	bus1_node_purge(node);
}

static void bus1_destroy_seal(struct bus1_death *death)
{
	/*
	 * [gone:B] pairs with [gone:A] in bus1_queue_get_stamp_locked(), and
	 * [staged:A] pairs with [staged:B] in bus1_queue_claim(): all has been
	 * staged, under the locks of the queues, when the clock is read and the
	 * transaction sealed.
	 */
	bus1_clock_pass(bus1_tx_seal(&death->tx));
}

/*
 * Find the handles of NODES_DESTROY, and check them. One that the peer cannot have
 * stays NULL, and is complained about if there is nothing else.
 */
static int bus1_nodes_destroy_prepare(struct bus1_peer *peer, const u64 *ids,
				      struct bus1_handle **handles, size_t n,
				      size_t *n_pinned)
{
	unsigned int flags = BUS1_PIN_CREATE;
	int r, quota = 0;
	size_t i;

	for (i = 0; i < n; ++i) {
		handles[i] = NULL;
		r = bus1_handle_pin(peer, ids[i], flags, &handles[i]);
		if (r == -EDQUOT) {
			quota = r;
			flags = 0;
		} else if (r < 0) {
			return r;
		}
		++*n_pinned;
		if (handles[i] && !bus1_handle_is_own(handles[i]))
			return -EREMOTE;
		cond_resched();
	}
	r = bus1_array_check_unique(ids, n);
	if (r < 0)
		return r;
	for (i = 0; i < n; ++i) {
		if (handles[i] && bus1_node_destroyed(handles[i]->node))
			return -ESTALE;
		cond_resched();
	}
	return quota;
}

static void bus1_nodes_destroy_commit(struct bus1_handle **handles, size_t n,
				      struct bus1_death *death, bool release)
{
	size_t i;

	for (i = 0; i < n; ++i) {
		bus1_handle_commit_new(handles[i]);
		bus1_destroy_stage(handles[i]->node, death);
		cond_resched();
	}

	/*
	 * Before the seal, so that an owner who drops its last reference is
	 * never told. What is staged for it stays until after the seal, so that
	 * all that it receives meanwhile comes before the destruction.
	 */
	for (i = 0; release && i < n; ++i) {
		handles[i]->is_expired = bus1_handle_drop(handles[i]);
		cond_resched();
	}

	bus1_destroy_seal(death);
	for (i = 0; i < n; ++i) {
		bus1_destroy_settle(handles[i]->node, death);
		if (handles[i]->is_expired)
			bus1_handle_retire(handles[i]);
		cond_resched();
	}
}

/**
 * bus1_nodes_destroy() - destroy nodes, as one transaction
 * @peer: peer that owns them
 * @ids: their IDs
 * @n: number of IDs
 * @release: whether to drop a user reference of each as well
 *
 * Context: Process context, may sleep.
 * Return: 0, -ENXIO if an ID is unknown, -EREMOTE if it is a node of somebody
 *	else, -ENOTUNIQ if it is listed twice, -ESTALE if it is destroyed
 *	already, -EDQUOT if the peer cannot have another handle, -ENOMEM, or
 *	-EINTR.
 */
int bus1_nodes_destroy(struct bus1_peer *peer, const u64 *ids, size_t n,
		       bool release)
{
	size_t n_pinned = 0;
	struct bus1_handle **handles;
	struct bus1_death *death;
	int r = -ENOMEM;

	handles = bus1_array_new(n, sizeof(*handles));
	death = bus1_death_new(GFP_KERNEL_ACCOUNT);
	if (!handles || !death)
		goto exit;

	r = mutex_lock_killable(&peer->destroy_mutex);
	if (r < 0)
		goto exit;

	r = bus1_nodes_destroy_prepare(peer, ids, handles, n, &n_pinned);
	if (r >= 0)
		bus1_nodes_destroy_commit(handles, n, death, release);
	mutex_unlock(&peer->destroy_mutex);

exit:
	while (n_pinned > 0) {
		bus1_handle_unpin(handles[--n_pinned]);
		cond_resched();
	}
	bus1_death_unref(death);
	kvfree(handles);
	return r;
}

/**
 * bus1_destroy_all() - destroy all nodes, and drop all user references
 * @peer: peer to flush, with destroy_mutex and recv_mutex held
 * @death: transaction to do it in, sealed afterwards
 *
 * Nodes with destroy_mark set are kept, with the owner's pinned reference.
 *
 * Context: Process context, may sleep.
 */
void bus1_destroy_all(struct bus1_peer *peer, struct bus1_death *death)
{
	struct bus1_node *node, *t;
	LIST_HEAD(nodes);

	lockdep_assert_held(&peer->destroy_mutex);
	lockdep_assert_held(&peer->recv_mutex);

	/* Every node that is born before the seal is among them */
	down_write(&peer->birth_sem);
	bus1_handles_collect(peer, &nodes);
	list_for_each_entry(node, &nodes, destroy_link) {
		bus1_destroy_stage(node, death);
		cond_resched();
	}
	/* Before the seal, so that the peer is never told of what it did */
	bus1_handles_drop(peer, true);
	bus1_destroy_seal(death);
	up_write(&peer->birth_sem);

	list_for_each_entry_safe(node, t, &nodes, destroy_link) {
		list_del_init(&node->destroy_link);
		bus1_destroy_settle(node, death);
		bus1_node_unref(node);
		cond_resched();
	}

	/* What others are told of this comes after what they are told above */
	bus1_handles_drop(peer, false);
}
