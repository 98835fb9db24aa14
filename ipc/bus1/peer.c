// SPDX-License-Identifier: GPL-2.0-only
#include <linux/atomic.h>
#include <linux/err.h>
#include <linux/kref.h>
#include <linux/kstrtox.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/sched.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/wait.h>
#include "destroy.h"
#include "handle.h"
#include "message.h"
#include "node.h"
#include "peer.h"
#include "quota.h"
#include "trace.h"
#include "user.h"
#include "util/active.h"
#include "util/pool.h"
#include "util/queue.h"

static unsigned long long bus1_pool_size_max = BUS1_POOL_SIZE_MAX;

/* Peers are opened meanwhile: what they read is one value or the other. */
static int bus1_pool_size_max_set(const char *val, const struct kernel_param *kp)
{
	unsigned long long size;
	int r;

	r = kstrtoull(val, 0, &size);
	if (r < 0)
		return r;
	WRITE_ONCE(*(unsigned long long *)kp->arg, size);
	return 0;
}

static const struct kernel_param_ops bus1_pool_size_max_ops = {
	.set = bus1_pool_size_max_set,
	.get = param_get_ullong,
};

module_param_cb(pool_size_max, &bus1_pool_size_max_ops, &bus1_pool_size_max, 0644);
__MODULE_PARM_TYPE(pool_size_max, "ullong");
MODULE_PARM_DESC(pool_size_max,
		 "Address space of a pool, in bytes, of peers opened from then on");

/* Peers opened so far, for their IDs. */
static atomic64_t bus1_peer_ids = ATOMIC64_INIT(0);

static bool bus1_peer_entry_is_stale(struct bus1_queue_entry *entry,
				     const struct bus1_stamp *stamp)
{
	switch (entry->type) {
	case BUS1_ENTRY_MESSAGE:
		return bus1_node_is_stale(container_of(entry,
						       struct bus1_message,
						       entry)->node, stamp);
	case BUS1_ENTRY_DESTROY:
		return bus1_handle_is_stale(container_of(entry,
							 struct bus1_handle,
							 notify));
	default:
		return bus1_node_release_is_stale(container_of(entry,
							       struct bus1_node,
							       release),
						  stamp);
	}
}

/* What a peer is told of a handle that it is about to get outlives a flush. */
static bool bus1_peer_entry_is_kept(const struct bus1_queue_entry *entry)
{
	return entry->type == BUS1_ENTRY_DESTROY;
}

/* What the queues of all peers ask. */
const struct bus1_queue_ops bus1_peer_queue_ops = {
	.stale	= bus1_peer_entry_is_stale,
	.keep	= bus1_peer_entry_is_kept,
};

/**
 * bus1_peer_new() - open a peer
 * @uid: real uid of whoever opens it
 *
 * Context: Process context, may sleep.
 * Return: The peer, or -ENOMEM.
 */
struct bus1_peer *bus1_peer_new(kuid_t uid)
{
	struct bus1_peer *peer;
	int r;

	peer = kzalloc(sizeof(*peer), GFP_KERNEL_ACCOUNT);
	if (!peer)
		return ERR_PTR(-ENOMEM);

	peer->user = bus1_user_ref_by_uid(uid);
	if (IS_ERR(peer->user)) {
		r = PTR_ERR(peer->user);
		goto error;
	}
	peer->pool = bus1_pool_new(READ_ONCE(bus1_pool_size_max));
	if (IS_ERR(peer->pool)) {
		r = PTR_ERR(peer->pool);
		goto error_user;
	}

	kref_init(&peer->ref);
	peer->id = atomic64_inc_return(&bus1_peer_ids);
	bus1_active_init(&peer->active);
	bus1_quota_init(&peer->quota, peer->user, peer->id);
	init_waitqueue_head(&peer->waitq);
	bus1_handle_table_init(&peer->handles);
	bus1_queue_init(&peer->queue);
	mutex_init(&peer->destroy_mutex);
	init_rwsem(&peer->birth_sem);
	mutex_init(&peer->recv_mutex);
	return peer;

error_user:
	bus1_user_unref(peer->user);
error:
	kfree(peer);
	return ERR_PTR(r);
}

static noinline void bus1_peer_free(struct kref *ref)
{
	struct bus1_peer *peer = container_of(ref, struct bus1_peer, ref);

	WARN_ON_ONCE(peer->seed);
	bus1_message_free_spare(peer);
	kvfree(peer->spare_cargo);
	bus1_queue_deinit(&peer->queue);
	bus1_handle_table_deinit(&peer->handles);
	bus1_quota_deinit(&peer->quota);
	bus1_pool_unref(peer->pool);
	bus1_user_unref(peer->user);
	kfree(peer);
}

/**
 * bus1_peer_ref() - keep a peer in memory
 * @peer: peer
 *
 * Context: Any.
 * Return: @peer.
 */
struct bus1_peer *bus1_peer_ref(struct bus1_peer *peer)
{
	kref_get(&peer->ref);
	return peer;
}

/**
 * bus1_peer_unref() - undo bus1_peer_ref()
 * @peer: peer
 *
 * Context: Process context, without spinlocks.
 */
void bus1_peer_unref(struct bus1_peer *peer)
{
	kref_put(&peer->ref, bus1_peer_free);
}

/**
 * bus1_peer_wake() - wake up who waits for messages
 * @peer: peer whose queue has a new entry, with a timestamp in the past
 *
 * Context: Any, without spinlocks.
 */
void bus1_peer_wake(struct bus1_peer *peer)
{
	/*
	 * [wake:A] pairs with [wake:B] in bus1_fop_poll() and
	 * bus1_ioctl_recv_wait(): the barrier in here comes between the entry,
	 * which the clock has passed, and the look at the wait queue.
	 *
	 * [known:A] pairs with [known:B] in bus1_queue_is_empty(): nor does the
	 * sender let anybody know before the queue has stopped being empty.
	 */
	if (wq_has_sleeper(&peer->waitq))
		wake_up_interruptible_poll(&peer->waitq,
					   EPOLLIN | EPOLLRDNORM);
}

/**
 * bus1_peer_free_drops() - free entries that a queue has dropped
 * @drops: list of entries, by their link
 *
 * Context: Process context, without spinlocks.
 */
noinline void bus1_peer_free_drops(struct list_head *drops)
{
	struct bus1_queue_entry *entry, *t;

	list_for_each_entry_safe(entry, t, drops, link) {
		switch (entry->type) {
		case BUS1_ENTRY_MESSAGE:
			bus1_message_free(container_of(entry,
						       struct bus1_message,
						       entry));
			break;
		case BUS1_ENTRY_DESTROY:
			bus1_handle_unref(container_of(entry,
						       struct bus1_handle,
						       notify));
			break;
		case BUS1_ENTRY_RELEASE:
			bus1_node_unref(container_of(entry, struct bus1_node,
						     release));
			break;
		}
		cond_resched();
	}
	INIT_LIST_HEAD(drops);
}

/**
 * bus1_peer_is_ready() - ask whether there is something to receive
 * @peer: peer to ask
 *
 * Context: Process context, may sleep.
 * Return: True if there is.
 */
bool bus1_peer_is_ready(struct bus1_peer *peer)
{
	LIST_HEAD(drops);
	bool ready;

	if (bus1_queue_is_empty(&peer->queue))
		return false;
	ready = bus1_queue_peek(&peer->queue, &bus1_peer_queue_ops, &drops);
	if (!list_empty(&drops))
		bus1_peer_free_drops(&drops);
	return ready;
}

/* Keep the nodes that the seed carries, or stop doing so. */
static void bus1_peer_mark_seed(struct bus1_peer *peer, bool mark)
{
	struct bus1_cargo *cargo = peer->seed ? peer->seed->cargo : NULL;
	size_t i;

	lockdep_assert_held(&peer->destroy_mutex);
	lockdep_assert_held(&peer->recv_mutex);

	for (i = 0; cargo && i < cargo->n_nodes; ++i) {
		if (cargo->nodes[i]->owner == peer)
			cargo->nodes[i]->destroy_mark = mark;
		cond_resched();
	}
}

/*
 * Everything that a peer has comes to an end, in one transaction. The order is:
 * first the nodes, so that nothing new can be sent; then what was sent before;
 * last what was received.
 */
static void bus1_peer_flush(struct bus1_peer *peer, struct bus1_death *death)
{
	struct bus1_stamp stamp;
	LIST_HEAD(drops);

	bus1_peer_mark_seed(peer, true);
	bus1_destroy_all(peer, death);
	bus1_peer_mark_seed(peer, false);

	bus1_tx_sealed(&death->tx, &stamp);
	bus1_queue_flush(&peer->queue, &bus1_peer_queue_ops, &stamp, &drops);
	bus1_peer_free_drops(&drops);
	/* Whoever was woken up for an entry that was kept may have missed it */
	wake_up_all(&peer->waitq);

	bus1_message_release_all(peer);
}

static void bus1_peer_drop_seed(struct bus1_peer *peer)
{
	struct bus1_message *seed = peer->seed;

	lockdep_assert_held(&peer->recv_mutex);

	peer->seed = NULL;
	bus1_message_free(seed);
}

/**
 * bus1_peer_teardown() - complete a disconnect
 * @peer: peer that is deactivated, and that no command runs on
 *
 * Does nothing if it was done before.
 *
 * Context: Process context, may sleep.
 */
noinline void bus1_peer_teardown(struct bus1_peer *peer)
{
	struct bus1_death *death;
	LIST_HEAD(drops);
	bool again;

	mutex_lock(&peer->destroy_mutex);
	mutex_lock(&peer->recv_mutex);
	if (peer->is_torn_down)
		goto exit;

	/* This must not fail, and there is nobody who could be told */
	death = bus1_death_new(GFP_KERNEL | __GFP_NOFAIL);
	bus1_peer_drop_seed(peer);
	bus1_peer_flush(peer, death);
	trace_bus1_peer_close(peer, death);
	bus1_death_unref(death);

	/* All nodes are destroyed: what still comes was sent meanwhile */
	do {
		again = bus1_queue_close(&peer->queue, &drops);
		bus1_peer_free_drops(&drops);
	} while (again);

	/* It has happened: now everybody may know */
	/* [torn:A] pairs with [torn:B] in bus1_peer_is_disconnected() */
	smp_store_release(&peer->is_torn_down, true);
	/* [kept:B] pairs with [kept:A] in bus1_message_put() */
	bus1_message_free_spare(peer);
	bus1_pool_trim(peer->pool);
	wake_up_all(&peer->active.waitq);
	wake_up_all(&peer->waitq);
exit:
	mutex_unlock(&peer->recv_mutex);
	mutex_unlock(&peer->destroy_mutex);
}

/**
 * bus1_peer_acquire() - begin a command
 * @peer: peer that the command is about
 *
 * Context: Any.
 * Return: True, to be followed by bus1_peer_release(); false if the peer disconnects
 *	or has done so, see bus1_peer_await_disconnect().
 */
bool bus1_peer_acquire(struct bus1_peer *peer)
{
	return bus1_active_acquire(&peer->active);
}

/**
 * bus1_peer_release() - end a command
 * @peer: peer that the command was about
 *
 * Disconnects the peer if that was only waiting for this command.
 *
 * Context: Process context, may sleep. The caller holds a reference.
 */
void bus1_peer_release(struct bus1_peer *peer)
{
	if (bus1_active_release(&peer->active))
		bus1_peer_teardown(peer);
}

/**
 * bus1_peer_await_disconnect() - wait for a disconnect that is under way
 * @peer: peer that could not be acquired
 *
 * Context: Process context, sleeps until all commands on the peer have ended. The
 *	caller holds no active reference of any peer.
 * Return: -ESHUTDOWN, or -ERESTARTSYS if a signal came first.
 */
noinline int bus1_peer_await_disconnect(struct bus1_peer *peer)
{
	int r;

	r = wait_event_interruptible(peer->active.waitq,
				     bus1_peer_is_disconnected(peer));
	return r < 0 ? r : -ESHUTDOWN;
}

/**
 * bus1_peer_disconnect() - leave the bus for good
 * @peer: peer to disconnect; the caller holds no active reference
 *
 * Context: Process context, may sleep.
 * Return: 0, -ESHUTDOWN if the peer was disconnected before, or -ERESTARTSYS if
 *	a signal came while commands were still running; the last of these then
 *	completes it.
 */
noinline int bus1_peer_disconnect(struct bus1_peer *peer)
{
	int r;

	if (!bus1_active_deactivate(&peer->active))
		return bus1_peer_await_disconnect(peer);

	/* Every one that waits for a message */
	wake_up_all(&peer->waitq);

	r = bus1_active_drain(&peer->active);
	if (r < 0)
		return r;
	bus1_peer_teardown(peer);
	return 0;
}

/**
 * bus1_peer_reset() - set limits, and flush
 * @peer: peer to reset
 * @limits: limits to set; U32_MAX leaves one as it is
 * @flush: destroy the nodes, and drop whatever the peer has
 * @flush_seed: drop the seed
 *
 * Context: Process context, may sleep.
 * Return: 0, -ENOMEM, or -EINTR.
 */
int bus1_peer_reset(struct bus1_peer *peer, const struct bus1_cost *limits,
		    bool flush, bool flush_seed)
{
	struct bus1_death *death = NULL;
	int r;

	if (!flush && !flush_seed) {
		bus1_quota_set_limits(&peer->quota, limits);
		return 0;
	}

	if (flush) {
		death = bus1_death_new(GFP_KERNEL_ACCOUNT);
		if (!death)
			return -ENOMEM;
	}
	r = mutex_lock_killable(&peer->destroy_mutex);
	if (r < 0)
		goto exit;
	r = mutex_lock_killable(&peer->recv_mutex);
	if (r < 0)
		goto exit_destroy;

	bus1_quota_set_limits(&peer->quota, limits);
	if (flush_seed)
		bus1_peer_drop_seed(peer);
	if (flush)
		bus1_peer_flush(peer, death);

	mutex_unlock(&peer->recv_mutex);
exit_destroy:
	mutex_unlock(&peer->destroy_mutex);
exit:
	bus1_death_unref(death);
	return r;
}

/**
 * bus1_peer_transfer() - prepare to give a handle to a peer
 * @src: peer that has it
 * @id: its ID there
 * @dst: peer that gets it
 * @srcp: where to store the pinned handle of @src; it carries a reference to
 *	the node that is counted, unless it is the owner's
 * @dstp: where to store the prepared handle of @dst, NULL if the node is
 *	destroyed
 *
 * To be followed by bus1_handle_import_join() for the latter, when the result was
 * told, and by bus1_peer_transfer_done().
 *
 * Context: Process context, may sleep.
 * Return: 0, -ENXIO if the ID is unknown, -EDQUOT if a peer cannot have another
 *	handle, or -ENOMEM.
 */
int bus1_peer_transfer(struct bus1_peer *src, u64 id, struct bus1_peer *dst,
		       struct bus1_handle **srcp, struct bus1_handle **dstp)
{
	int r;

	*dstp = NULL;
	r = bus1_handle_pin(src, id, BUS1_PIN_CARRY | BUS1_PIN_CREATE, srcp);
	if (r < 0)
		return r;

	if (bus1_node_destroyed((*srcp)->node))
		return 0;
	r = bus1_handle_import_prepare(dst, (*srcp)->node, dstp);
	if (r < 0)
		goto error;
	r = bus1_handle_charge(*dstp);
	if (r < 0)
		goto error;
	return 0;

error:
	bus1_peer_transfer_done(*srcp, *dstp, false);
	return r;
}

/**
 * bus1_peer_transfer_done() - finish a transfer
 * @src: pinned handle
 * @dst: imported handle, or NULL if there is none
 * @commit: whether the result was told, or nothing is to have happened
 *
 * Context: Process context, without spinlocks.
 */
void bus1_peer_transfer_done(struct bus1_handle *src, struct bus1_handle *dst,
			     bool commit)
{
	bool counted = !bus1_handle_is_own(src);

	if (commit) {
		bus1_handle_commit_new(src);
		if (dst)
			bus1_handle_import_commit(dst, NULL);
	} else {
		bus1_handle_import_cancel(dst);
	}
	if (counted)
		bus1_node_put(src->node);
	bus1_handle_unpin(src);
}

/**
 * bus1_peer_show() - print what a peer is and has
 * @peer: peer to show
 * @m: file to print to
 *
 * Context: Process context, may sleep.
 */
void bus1_peer_show(struct bus1_peer *peer, struct seq_file *m)
{
	seq_printf(m, "bus1-peer:\t%llu\n", peer->id);
	seq_printf(m, "bus1-connected:\t%d\n",
		   !bus1_peer_is_disconnected(peer));
	seq_printf(m, "bus1-nodes:\t%llu\n", bus1_handles_count_nodes(peer));
	seq_printf(m, "bus1-queue:\t%llu\n", bus1_queue_length(&peer->queue));
	bus1_quota_show(&peer->quota, m);
}
