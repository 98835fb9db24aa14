// SPDX-License-Identifier: GPL-2.0-only
#include <linux/err.h>
#include <linux/fcntl.h>
#include <linux/file.h>
#include <linux/fdtable.h>
#include <linux/list.h>
#include <linux/minmax.h>
#include <linux/mutex.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/uaccess.h>
#include <uapi/linux/bus1.h>
#include "compat.h"
#include "handle.h"
#include "message.h"
#include "node.h"
#include "peer.h"
#include "recv.h"
#include "trace.h"
#include "util/array.h"
#include "util/pool.h"
#include "util/queue.h"

/* So many descriptors need no allocation. */
#define BUS1_RECV_INLINE	4

static struct bus1_message *bus1_recv_message(struct bus1_queue_entry *entry)
{
	return container_of(entry, struct bus1_message, entry);
}

static struct bus1_handle *bus1_recv_handle(struct bus1_queue_entry *entry)
{
	return container_of(entry, struct bus1_handle, notify);
}

static struct bus1_node *bus1_recv_node(struct bus1_queue_entry *entry)
{
	return container_of(entry, struct bus1_node, release);
}

static void bus1_recv_abort_handles(struct bus1_recv *recv, size_t n)
{
	while (n > 0) {
		bus1_handle_import_abort(recv->handles[--n]);
		cond_resched();
	}
	kvfree(recv->handles);
	recv->handles = NULL;
}

/* Make handles of the nodes, and write their IDs into the slice. */
static noinline int bus1_recv_import(struct bus1_recv *recv)
{
	struct bus1_message *message = recv->message;
	const struct bus1_stamp *stamp = NULL;
	u64 ids[32];
	size_t i, n = message->layout.n_handles;
	int r;

	recv->handles = bus1_array_new(n, sizeof(*recv->handles));
	if (!recv->handles)
		return -ENOMEM;
	if (recv->entry)
		stamp = &recv->entry->stamp;

	for (i = 0; i < n; ++i) {
		r = bus1_handle_import(recv->peer, message->cargo->nodes[i],
				       stamp, &recv->handles[i]);
		if (r < 0) {
			bus1_recv_abort_handles(recv, i);
			return r;
		}
		ids[i % ARRAY_SIZE(ids)] = recv->handles[i] ?
			recv->handles[i]->id : BUS1_HANDLE_INVALID;
		if (i + 1 == n || (i + 1) % ARRAY_SIZE(ids) == 0)
			bus1_pool_write(recv->peer->pool, &message->slice,
					message->layout.off_handles +
					round_down(i, ARRAY_SIZE(ids)) *
					sizeof(*ids), ids,
					(i % ARRAY_SIZE(ids) + 1) *
					sizeof(*ids));
		cond_resched();
	}
	return 0;
}

static size_t bus1_recv_count_fds(const struct bus1_recv *recv)
{
	return recv->install_fds ? recv->message->layout.n_files : 0;
}

/*
 * See that there is room for all descriptors, here and in the table, before anything is
 * told.
 */
static noinline int bus1_recv_check_fds(struct bus1_recv *recv, size_t n)
{
	int r = 0, few[BUS1_RECV_INLINE], *fds = few;
	size_t i;

	if (n > BUS1_RECV_INLINE) {
		fds = bus1_array_new(n, sizeof(*fds));
		if (!fds)
			return -ENOMEM;
		recv->fds = fds;
	}
	for (i = 0; i < n; ++i) {
		r = get_unused_fd_flags(O_CLOEXEC);
		if (r < 0)
			break;
		fds[i] = r;
	}
	while (i > 0)
		put_unused_fd(fds[--i]);
	return min(r, 0);
}

/*
 * Install all files, or none, and write the descriptors into the slice. Only
 * receive_fd() asks security modules whether the caller may have a file, so there
 * is no way to reserve descriptors that are sure to succeed: if one fails, those
 * before it are closed again.
 */
static int bus1_recv_install_fds(struct bus1_recv *recv)
{
	struct bus1_message *message = recv->message;
	size_t i, n = bus1_recv_count_fds(recv);
	int r, few[BUS1_RECV_INLINE], *fds = recv->fds ?: few;

	for (i = 0; i < n; ++i) {
		r = receive_fd(message->cargo->files[i], NULL, O_CLOEXEC);
		if (r < 0)
			goto error;
		fds[i] = r;
	}
	bus1_pool_write(recv->peer->pool, &message->slice,
			message->layout.off_files, fds,
			n * sizeof(*fds));
	return 0;

error:
	while (i > 0)
		close_fd(fds[--i]);
	return r;
}

static int bus1_recv_prepare_message(struct bus1_recv *recv, u64 max_offset)
{
	struct bus1_message *message = recv->message;
	size_t n_fds;
	int r;

	if (bus1_message_end(message) > max_offset)
		return -ERANGE;

	n_fds = bus1_recv_count_fds(recv);
	/* A single one fails at once, with nothing installed that had to be closed again */
	r = n_fds > 1 ? bus1_recv_check_fds(recv, n_fds) : 0;
	if (r >= 0 && message->layout.n_handles)
		r = bus1_recv_import(recv);
	return r;
}

/* A copy of the seed, in a slice of its own. */
static int bus1_recv_copy_seed(struct bus1_recv *recv)
{
	struct bus1_message *seed = recv->peer->seed, *message;

	if (!seed)
		return -EAGAIN;

	message = bus1_message_new(recv->peer, recv->peer->user, &seed->layout,
				   seed->cargo);
	if (IS_ERR(message))
		return PTR_ERR(message);
	bus1_pool_copy(recv->peer->pool, &message->slice, &seed->slice,
		       bus1_message_used(seed));
	recv->message = message;
	return 0;
}

static noinline void bus1_recv_put_back(struct bus1_recv *recv)
{
	struct bus1_queue *queue = &recv->peer->queue;

	kvfree(recv->fds);
	recv->fds = NULL;
	if (!recv->entry) {
		bus1_message_free(recv->message);
	} else if (recv->entry->type == BUS1_ENTRY_RELEASE) {
		bus1_node_release_done(bus1_recv_node(recv->entry), false);
	} else {
		spin_lock(&queue->lock);
		bus1_queue_unclaim_locked(queue, recv->entry);
		spin_unlock(&queue->lock);
	}
	mutex_unlock(&recv->peer->recv_mutex);

	/* Others may wait for what this one did not take */
	bus1_peer_wake(recv->peer);
}

static noinline int bus1_recv_prepare_seed(struct bus1_recv *recv, u64 max_offset)
{
	int r;

	r = bus1_recv_copy_seed(recv);
	if (r < 0) {
		mutex_unlock(&recv->peer->recv_mutex);
		return r;
	}
	r = bus1_recv_prepare_message(recv, max_offset);
	if (r < 0)
		bus1_recv_put_back(recv);
	return r;
}

/**
 * bus1_recv_is_idle() - ask whether there seems to be nothing to receive
 * @peer: receiver
 *
 * What another receive has claimed, and may put back, does not count: this is for those who
 * then wait, and will be woken up for it, and not for those who tell of it.
 *
 * Context: Any.
 * Return: True if so.
 */
bool bus1_recv_is_idle(struct bus1_peer *peer)
{
	return bus1_queue_is_empty(&peer->queue);
}

/**
 * bus1_recv_prepare() - claim the next message, or a copy of the seed
 * @recv: object whose peer and install_fds are set, and that is zero otherwise
 * @max_offset: where the slice must end, or below
 * @seed: fetch the seed
 * @try: do not wait for another receive on the same peer, but say -EAGAIN
 *
 * Context: Process context, may sleep.
 * Return: 0, to be followed by bus1_recv_commit() or bus1_recv_abort(). -EAGAIN
 *	if nothing is ready, or there is no seed; -ERANGE if the slice ends
 *	above @max_offset; -EMFILE for several files; -EDQUOT or -EXFULL if the seed finds no
 *	room; -ENOMEM; -ERESTARTSYS.
 */
int bus1_recv_prepare(struct bus1_recv *recv, u64 max_offset, bool seed,
		      bool try)
{
	struct bus1_peer *peer = recv->peer;
	LIST_HEAD(drops);
	int r;

	if (try && !mutex_trylock(&peer->recv_mutex))
		return -EAGAIN;
	r = try ? 0 : mutex_lock_interruptible(&peer->recv_mutex);
	if (r < 0) {
		/* Another one may have been left asleep in favour of this */
		bus1_peer_wake(peer);
		return -ERESTARTSYS;
	}

	if (seed)
		return bus1_recv_prepare_seed(recv, max_offset);

	recv->entry = bus1_queue_claim(&peer->queue, &bus1_peer_queue_ops,
				       &drops, &recv->more);
	if (!list_empty(&drops))
		bus1_peer_free_drops(&drops);
	if (!recv->entry) {
		mutex_unlock(&peer->recv_mutex);
		return -EAGAIN;
	}

	if (recv->entry->type == BUS1_ENTRY_MESSAGE) {
		recv->message = bus1_recv_message(recv->entry);
		r = bus1_recv_prepare_message(recv, max_offset);
	}
	if (r < 0)
		bus1_recv_put_back(recv);
	return r;
}

static __always_inline void bus1_recv_fill(const struct bus1_recv *recv,
					   struct bus1_msg *msg)
{
	struct bus1_message *message = recv->message;

	*msg = (struct bus1_msg) {
		.flags = recv->more ? BUS1_MSG_FLAG_CONTINUE : 0,
		.destination = BUS1_HANDLE_INVALID,
		.offset = BUS1_OFFSET_INVALID,
	};
	if (message) {
		msg->type = BUS1_MSG_DATA;
		if (message->node)
			msg->destination = message->node->id;
		msg->offset = message->slice.offset;
		msg->n_bytes = message->layout.n_bytes;
		msg->n_handles = message->layout.n_handles;
		msg->n_fds = bus1_recv_count_fds(recv);
	} else if (recv->entry->type == BUS1_ENTRY_DESTROY) {
		msg->type = BUS1_MSG_NODE_DESTROY;
		msg->destination = bus1_recv_handle(recv->entry)->id;
	} else {
		msg->type = BUS1_MSG_NODE_RELEASE;
		msg->destination = bus1_recv_node(recv->entry)->id;
	}
}

/**
 * bus1_recv_describe() - say what is received
 * @recv: prepared receive
 * @msg: object to initialize
 *
 * Context: Any.
 */
void bus1_recv_describe(const struct bus1_recv *recv, struct bus1_msg *msg)
{
	bus1_recv_fill(recv, msg);
}

/**
 * bus1_recv_tell() - write to user space what is received
 * @recv: prepared receive; aborted if this fails
 * @umsg: where to
 *
 * Context: Process context, may sleep.
 * Return: 0 or -EFAULT.
 */
int bus1_recv_tell(struct bus1_recv *recv, struct bus1_msg __user *umsg)
{
	struct bus1_msg msg;

	bus1_recv_fill(recv, &msg);
	if (!user_write_access_begin(umsg, sizeof(*umsg)))
		goto error;
	unsafe_put_user(msg.type, &umsg->type, error_end);
	unsafe_put_user(msg.flags, &umsg->flags, error_end);
	unsafe_put_user(msg.destination, &umsg->destination, error_end);
	unsafe_put_user(msg.offset, &umsg->offset, error_end);
	unsafe_put_user(msg.n_bytes, &umsg->n_bytes, error_end);
	unsafe_put_user(msg.n_handles, &umsg->n_handles, error_end);
	unsafe_put_user(msg.n_fds, &umsg->n_fds, error_end);
	user_write_access_end();
	return 0;

error_end:
	user_write_access_end();
error:
	bus1_recv_abort(recv);
	return -EFAULT;
}

/* Handles and files belong to the peer now. */
static noinline void bus1_recv_commit_cargo(struct bus1_recv *recv)
{
	struct bus1_message *message = recv->message;
	struct bus1_cost cost = {};
	size_t i;

	/* What handles take over is uncharged when they are released */
	cost.n[BUS1_RESOURCE_HANDLES] = message->cost.n[BUS1_RESOURCE_HANDLES];
	cost.n[BUS1_RESOURCE_FDS] = message->cost.n[BUS1_RESOURCE_FDS];
	for (i = 0; i < message->layout.n_handles; ++i) {
		if (recv->handles[i] &&
		    bus1_handle_import_commit(recv->handles[i], message->share))
			--cost.n[BUS1_RESOURCE_HANDLES];
		cond_resched();
	}
	kvfree(recv->handles);
	bus1_quota_uncharge(&recv->peer->quota, message->share, &cost);

	message->cost.n[BUS1_RESOURCE_HANDLES] = 0;
	message->cost.n[BUS1_RESOURCE_FDS] = 0;
	message->cargo = NULL;
}

/* The message is received: what it carries belongs to the peer now. */
static void bus1_recv_commit_message(struct bus1_recv *recv)
{
	struct bus1_message *message = recv->message;
	struct bus1_cargo *cargo = message->cargo;
	struct bus1_node *node = message->node;

	if (cargo)
		bus1_recv_commit_cargo(recv);
	message->node = NULL;
	/* Nobody else knows of the entry, since it was claimed */
	if (recv->entry)
		bus1_queue_done(recv->entry);
	/* It can be released, and so freed, from here on */
	bus1_pool_publish(&message->slice);

	bus1_cargo_unref(cargo, recv->peer);
	bus1_node_unref(node);
}

static noinline void bus1_recv_commit_notification(struct bus1_recv *recv)
{
	struct bus1_queue *queue = &recv->peer->queue;
	struct bus1_handle *handle;

	if (recv->entry->type == BUS1_ENTRY_RELEASE) {
		bus1_node_release_done(bus1_recv_node(recv->entry), true);
		return;
	}
	handle = bus1_recv_handle(recv->entry);
	spin_lock(&queue->lock);
	bus1_queue_done(recv->entry);
	spin_unlock(&queue->lock);
	bus1_handle_unref(handle);
}

/* Descriptors are what can fail even now. */
static noinline int bus1_recv_commit_fds(struct bus1_recv *recv)
{
	int r;

	r = bus1_recv_install_fds(recv);
	if (r < 0) {
		bus1_recv_abort(recv);
		return r;
	}
	kvfree(recv->fds);
	recv->fds = NULL;
	return 0;
}

/**
 * bus1_recv_commit() - finish a receive
 * @recv: prepared receive whose result was told
 *
 * Context: Process context, may sleep.
 * Return: 0, or what receive_fd() says of a file that the caller cannot have, or of a single
 *	one that it has no room for: then the receive was aborted.
 */
int bus1_recv_commit(struct bus1_recv *recv)
{
	int r;

	if (recv->message && bus1_recv_count_fds(recv)) {
		r = bus1_recv_commit_fds(recv);
		if (r < 0)
			return r;
	}

	trace_bus1_recv(recv);
	if (recv->message)
		bus1_recv_commit_message(recv);
	else
		bus1_recv_commit_notification(recv);
	mutex_unlock(&recv->peer->recv_mutex);
	return 0;
}

/**
 * bus1_recv_abort() - undo bus1_recv_prepare()
 * @recv: prepared receive
 *
 * Context: Process context, without spinlocks.
 */
noinline void bus1_recv_abort(struct bus1_recv *recv)
{
	if (recv->handles)
		bus1_recv_abort_handles(recv,
					recv->message->layout.n_handles);
	bus1_recv_put_back(recv);
}
