// SPDX-License-Identifier: GPL-2.0-only
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/magic.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/net.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include <linux/uio.h>
#include <net/sock.h>
#include <uapi/linux/bus1.h>
#include "handle.h"
#include "main.h"
#include "message.h"
#include "node.h"
#include "peer.h"
#include "send.h"
#include "trace.h"
#include "util/array.h"
#include "util/pool.h"
#include "util/queue.h"

/* How many destinations or handles are dealt with before the CPU may go to others. */
#define BUS1_SEND_BATCH	16

/* There is nothing in a binder file that is exported but where it comes from. */
static bool bus1_send_is_binder(struct file *file)
{
	struct module *owner = file->f_op->owner;

	if (!S_ISCHR(file_inode(file)->i_mode))
		return false;
	return file_inode(file)->i_sb->s_magic == BINDERFS_SUPER_MAGIC ||
	       (owner && !strcmp(module_name(owner), "binder_linux"));
}

/*
 * Files that can hold messages, and so other files: passing them on could make
 * references that go in a circle. There is no exported way to recognize io_uring
 * but its name in the kernel's own file system, where user space names nothing. A
 * file that is only a path has nothing behind it, whatever the path says.
 */
static bool bus1_send_is_refused(struct file *file)
{
	struct dentry *dentry = file->f_path.dentry;
	struct socket *sock;

	if (file->f_mode & FMODE_PATH)
		return false;
	if (bus1_is_peer_file(file) || bus1_send_is_binder(file))
		return true;
	/* A family may change, but neither to nor from this one */
	sock = sock_from_file(file);
	if (sock && sock->sk && READ_ONCE(sock->sk->sk_family) == AF_UNIX)
		return true;
	return dentry->d_sb->s_magic == ANON_INODE_FS_MAGIC &&
	       !strcmp(dentry->d_name.name, "[io_uring]");
}

/* Give the CPU to others once in a while, in a loop over destinations or handles. */
static inline void bus1_send_resched(size_t i)
{
	if (i % BUS1_SEND_BATCH == BUS1_SEND_BATCH - 1)
		cond_resched();
}

/*
 * Pin what an ID names. A node that the sender cannot have leaves NULL, which is
 * complained about once all that comes first has been checked; from then on none is
 * created.
 */
static int bus1_send_pin(struct bus1_send *send, u64 id, unsigned int flags,
			 struct bus1_handle **handlep)
{
	int r;

	*handlep = NULL;
	if (!send->quota_error)
		flags |= BUS1_PIN_CREATE;
	r = bus1_handle_pin(send->peer, id, flags, handlep);
	if (!r)
		send->any_new |= !bus1_handle_is_born(*handlep);
	if (r != -EDQUOT)
		return r;
	send->quota_error = r;
	return 0;
}

static int bus1_send_pin_dests(struct bus1_send *send, const u64 *ids, size_t n)
{
	struct bus1_send_dest *dest;
	int r;

	if (n > BUS1_SEND_INLINE) {
		dest = bus1_array_new(n, sizeof(*dest));
		if (!dest)
			return -ENOMEM;
		send->dests = dest;
	}
	while (send->n_dests < n) {
		dest = &send->dests[send->n_dests];
		dest->message = NULL;
		dest->error = 0;
		r = bus1_send_pin(send, ids[send->n_dests], 0, &dest->handle);
		if (r < 0)
			return r;
		bus1_send_resched(send->n_dests++);
	}
	return bus1_array_check_unique(ids, n);
}

static int bus1_send_pin_handles(struct bus1_send *send, const u64 *ids,
				 size_t n)
{
	struct bus1_handle **handles;
	int r;

	if (n > BUS1_SEND_INLINE) {
		handles = bus1_array_new(n, sizeof(*handles));
		if (!handles)
			return -ENOMEM;
		send->handles = handles;
	}
	while (send->n_handles < n) {
		handles = &send->handles[send->n_handles];
		r = bus1_send_pin(send, ids[send->n_handles], BUS1_PIN_CARRY,
				  handles);
		if (r < 0)
			return r;
		/* Those of others are counted now, one's own at commit */
		if (*handles && !bus1_handle_is_own(*handles))
			send->cargo->nodes[send->n_handles] =
				bus1_node_ref((*handles)->node);
		bus1_send_resched(send->n_handles++);
	}
	return 0;
}

static int bus1_send_get_files(struct bus1_send *send, const int *fds, size_t n)
{
	struct file *file;
	size_t i;

	for (i = 0; i < n; ++i) {
		file = fget_raw(fds[i]);
		if (!file)
			return -EBADF;
		send->cargo->files[i] = file;
		if (bus1_send_is_refused(file))
			return -EOPNOTSUPP;
	}
	return 0;
}

/* Mostly the first one that receives it is the only one. */
static int bus1_send_make_cargo(struct bus1_send *send,
				const struct bus1_send_params *params)
{
	struct bus1_peer *peer = send->peer;

	if (!params->n_handles && !params->n_fds)
		return 0;
	if (send->n_dests && send->dests->handle)
		peer = send->dests->handle->node->owner;
	send->cargo = bus1_cargo_new(peer, params->n_handles, params->n_fds);
	return send->cargo ? 0 : -ENOMEM;
}

/* Note which destinations are destroyed. Return whether there are any. */
static bool bus1_send_check_dests(struct bus1_send *send)
{
	struct bus1_send_dest *dest;
	bool unreachable = false;
	size_t i;

	for (i = 0; i < send->n_dests; ++i) {
		dest = &send->dests[i];
		if (dest->handle && bus1_node_destroyed(dest->handle->node)) {
			dest->error = -EHOSTUNREACH;
			unreachable = true;
		}
		bus1_send_resched(i);
	}
	return unreachable;
}

/*
 * Make a message for each destination, and note what is wrong with those that
 * cannot have one.
 */
static int bus1_send_make_messages(struct bus1_send *send)
{
	struct bus1_message *message;
	struct bus1_send_dest *dest;
	struct bus1_node *node;
	size_t i;

	for (i = 0; i < send->n_dests; ++i) {
		dest = &send->dests[i];
		if (dest->error)
			continue;
		node = dest->handle->node;
		message = bus1_message_new(node->owner, send->peer->user,
					   &send->layout, send->cargo);
		if (!IS_ERR(message)) {
			message->node = bus1_node_ref(node);
			message->entry.siblings = &node->queued;
			dest->message = message;
			++send->n_messages;
		} else {
			dest->error = PTR_ERR(message);
			send->any_error = true;
			if (dest->error != -EDQUOT && dest->error != -EXFULL)
				return dest->error;
		}
		bus1_send_resched(i);
	}
	return 0;
}

static int bus1_send_make_seed(struct bus1_send *send)
{
	struct bus1_message *message;

	message = bus1_message_new(send->peer, send->peer->user, &send->layout,
				   send->cargo);
	if (IS_ERR(message))
		return PTR_ERR(message);
	send->seed = message;
	return 0;
}

/**
 * bus1_send_prepare() - find and check everything that a send needs
 * @send: object to initialize; to be deinitialized even if this fails
 * @peer: sender
 * @params: what to send where
 *
 * Context: Process context, may sleep.
 * Return: 0 if every destination was evaluated, see bus1_send_verdict().
 *	-EMSGSIZE if no pool could hold the message; -ENXIO for an unknown ID;
 *	-ENOTUNIQ for a destination that is listed twice; -EBADF and -EOPNOTSUPP
 *	for files; -EHOSTUNREACH for a destroyed destination, if another error
 *	keeps it from being just noted; -EDQUOT if the sender cannot have another
 *	node; -EDQUOT and -EXFULL for a seed; -ENOMEM.
 */
int bus1_send_prepare(struct bus1_send *send, struct bus1_peer *peer,
		      const struct bus1_send_params *params)
{
	bool unreachable;
	int r;

	send->peer = peer;
	send->do_continue = params->do_continue;
	send->is_seed = params->is_seed;
	send->n_dests = 0;
	send->n_handles = 0;
	send->n_messages = 0;
	send->any_error = false;
	send->any_new = false;
	send->quota_error = 0;
	send->dests = send->inline_dests;
	send->handles = send->inline_handles;
	send->cargo = NULL;
	send->seed = NULL;

	r = bus1_layout_init(&send->layout, params->n_bytes, params->n_handles,
			     params->n_fds);
	if (r < 0)
		return r;

	/* IDs and files */
	r = bus1_send_pin_dests(send, params->dests, params->n_dests);
	if (r >= 0)
		r = bus1_send_make_cargo(send, params);
	if (r >= 0)
		r = bus1_send_pin_handles(send, params->handles,
					  params->n_handles);
	if (r >= 0)
		r = bus1_send_get_files(send, params->fds, params->n_fds);
	if (r < 0)
		return r;

	/* The state of destinations */
	unreachable = bus1_send_check_dests(send);
	send->any_error = unreachable;

	/* Budgets and memory */
	r = send->quota_error;
	if (r >= 0)
		r = send->is_seed ? bus1_send_make_seed(send) :
				    bus1_send_make_messages(send);

	/* What comes first is told, if it fails the call by itself */
	return r < 0 && unreachable && !send->do_continue ? -EHOSTUNREACH : r;
}

/**
 * bus1_send_verdict() - ask whether a send may go on
 * @send: prepared send
 *
 * Context: Any.
 * Return: 0, or the error of a destination that makes the send fail:
 *	-EHOSTUNREACH if a node is destroyed; else what comes first of -EDQUOT
 *	if a receiver is out of budget, and -EXFULL if its pool is full.
 */
int bus1_send_verdict(const struct bus1_send *send)
{
	int r = 0;
	size_t i;

	if (send->do_continue || !send->any_error)
		return 0;
	for (i = 0; i < send->n_dests; ++i) {
		if (send->dests[i].error == -EHOSTUNREACH)
			return -EHOSTUNREACH;
		if (!r)
			r = send->dests[i].error;
	}
	return r;
}

/* Copies, and so uses up, all of @iter. */
static int bus1_send_copy_one(struct bus1_message *message,
			      struct iov_iter *iter)
{
	const struct bus1_layout *layout = &message->layout;
	struct bus1_pool *pool = message->peer->pool;
	u64 used;
	int r;

	/*
	 * [payload:A] pairs with [payload:B] in bus1_queue_claim(): all of it is
	 * there before an entry is.
	 */
	if (layout->n_bytes) {
		r = bus1_pool_write_iter(pool, &message->slice, 0, iter);
		if (r < 0)
			return r;
	}
	/* No byte of an older message shows through */
	used = bus1_message_used(message);
	if (layout->n_bytes < used)
		bus1_pool_zero(pool, &message->slice, layout->n_bytes,
			       used - layout->n_bytes);
	return 0;
}

/**
 * bus1_send_copy() - copy the payload to all receivers
 * @send: prepared send
 * @iter: the payload
 *
 * Context: Process context, may sleep, and wait for user space.
 * Return: 0, -EFAULT if the payload cannot be read, or -EINTR.
 */
int bus1_send_copy(struct bus1_send *send, const struct iov_iter *iter)
{
	struct iov_iter it = *iter;
	bool copied = false;
	size_t i;
	int r;

	if (send->seed)
		return bus1_send_copy_one(send->seed, &it);

	for (i = 0; i < send->n_dests; ++i) {
		if (!send->dests[i].message)
			continue;
		it = *iter;
		r = bus1_send_copy_one(send->dests[i].message, &it);
		if (r < 0)
			return r;
		copied = true;
	}

	/* Nobody gets it, but it is checked like the rest */
	if (!copied && send->layout.n_bytes &&
	    fault_in_iov_iter_readable(iter, send->layout.n_bytes))
		return -EFAULT;
	return 0;
}

/* The pinned handle keeps the receiver in memory. */
static void bus1_send_unicast(struct bus1_peer *sender,
			      struct bus1_message *message)
{
	struct bus1_peer *peer = message->peer;
	bool added;
	u64 ts;

	/* If added, the message belongs to the receiver from here on */
	spin_lock(&peer->queue.lock);
	added = bus1_queue_commit_locked(&peer->queue, &bus1_peer_queue_ops,
					 &message->entry, &ts);
	if (added)
		trace_bus1_commit(sender, message->node, &message->layout,
				  &message->entry.stamp);
	spin_unlock(&peer->queue.lock);

	if (added) {
		bus1_clock_pass(ts);
		bus1_peer_wake(peer);
	} else {
		/* The destruction of the node came first */
		bus1_message_free(message);
	}
}

static void bus1_send_stage(struct bus1_send_dest *dest, struct bus1_tx *tx)
{
	struct bus1_message *message = dest->message;
	struct bus1_queue *queue = &message->peer->queue;
	struct bus1_stamp stamp;
	bool added;

	spin_lock(&queue->lock);
	bus1_queue_stage_locked(queue, &bus1_peer_queue_ops, &message->entry, tx,
				&stamp);
	added = message->entry.state != BUS1_ENTRY_IDLE;
	if (added)
		trace_bus1_stage(dest->handle->holder, message->node, tx);
	spin_unlock(&queue->lock);

	/* Freed later: nothing that takes time until the seal */
	if (added)
		dest->message = NULL;
	else
		bus1_cargo_leave(&message->cargo);
}

static void bus1_send_trace_commit(const struct bus1_send *send,
				   const struct bus1_send_dest *dest,
				   const struct bus1_tx *tx)
{
	struct bus1_stamp stamp;

	/* One that was not added is still there */
	if (!dest->message && bus1_tx_sealed(tx, &stamp))
		trace_bus1_commit(send->peer, dest->handle->node, &send->layout,
				  &stamp);
}

static noinline void bus1_send_multicast(struct bus1_send *send)
{
	struct bus1_send_dest *dest;
	struct bus1_peer *peer;
	struct bus1_tx tx;
	size_t i;

	bus1_tx_init(&tx);
	for (i = 0; i < send->n_dests; ++i) {
		if (send->dests[i].message)
			bus1_send_stage(&send->dests[i], &tx);
		bus1_send_resched(i);
	}
	bus1_clock_pass(bus1_tx_seal(&tx));

	/* The handle keeps the node, and that the peer, in memory */
	for (i = 0; i < send->n_dests; ++i) {
		dest = &send->dests[i];
		if (dest->error)
			continue;
		if (trace_bus1_commit_enabled())
			bus1_send_trace_commit(send, dest, &tx);
		peer = dest->handle->node->owner;
		bus1_queue_settle(&peer->queue, &tx);
		bus1_peer_wake(peer);
		bus1_send_resched(i);
	}
}

/*
 * Everything is checked: let new nodes exist, and if there are @messages that
 * carry them, count that.
 */
static void bus1_send_commit_handles(struct bus1_send *send, bool messages)
{
	struct bus1_handle *handle;
	size_t i;

	for (i = 0; send->any_new && i < send->n_dests; ++i) {
		bus1_handle_commit_new(send->dests[i].handle);
		bus1_send_resched(i);
	}
	for (i = 0; i < send->n_handles; ++i) {
		bus1_send_resched(i);
		handle = send->handles[i];
		if (!bus1_handle_is_own(handle))
			continue;
		bus1_handle_commit_new(handle);
		if (!messages)
			continue;
		bus1_node_get(handle->node);
		send->cargo->nodes[i] = bus1_node_ref(handle->node);
	}
	/*
	 * Only messages hold it from here on: when receivers have let go of it, and
	 * that may be before the caller gets to do anything more, nobody has it.
	 */
	bus1_cargo_leave(&send->cargo);
}

/* A message for the node of @handle with all of @iter. */
static struct bus1_message *bus1_send_make_one(struct bus1_peer *peer,
					       struct bus1_handle *handle,
					       const struct bus1_layout *layout,
					       struct iov_iter *iter)
{
	struct bus1_node *node = handle->node;
	struct bus1_message *message;
	int r;

	if (bus1_node_destroyed(node))
		return ERR_PTR(-EHOSTUNREACH);

	message = bus1_message_new(node->owner, peer->user, layout, NULL);
	if (IS_ERR(message))
		return message;
	message->node = bus1_node_ref(node);
	message->entry.siblings = &node->queued;

	r = bus1_send_copy_one(message, iter);
	if (r < 0) {
		bus1_message_free(message);
		return ERR_PTR(r);
	}
	return message;
}

/**
 * bus1_send_bytes_prepare() - make a message of nothing but bytes to one node
 * @bytes: object to initialize; nothing is to be done with it if this fails
 * @peer: sender
 * @dest: ID of the destination
 * @iter: the payload; is used up
 *
 * All that most sends are: the same as preparing a &struct bus1_send, and copying,
 * without having one. To be followed by bus1_send_bytes_commit() or
 * bus1_send_bytes_abort().
 *
 * Context: Process context, may sleep, and wait for user space.
 * Return: 0; -EMSGSIZE, -ENXIO, -EHOSTUNREACH, -EDQUOT, -EXFULL, -ENOMEM, -EFAULT
 *	or -EINTR, as the functions above.
 */
int bus1_send_bytes_prepare(struct bus1_send_bytes *bytes,
			    struct bus1_peer *peer, u64 dest,
			    struct iov_iter *iter)
{
	struct bus1_layout layout;
	int r;

	r = bus1_layout_init(&layout, iov_iter_count(iter), 0, 0);
	if (r < 0)
		return r;
	r = bus1_handle_pin(peer, dest, BUS1_PIN_CREATE, &bytes->handle);
	if (r < 0)
		return r;

	bytes->message = bus1_send_make_one(peer, bytes->handle, &layout, iter);
	if (!IS_ERR(bytes->message))
		return 0;
	bus1_handle_unpin(bytes->handle);
	return PTR_ERR(bytes->message);
}

/**
 * bus1_send_bytes_commit() - let it happen
 * @bytes: prepared send
 *
 * Context: Process context, may sleep.
 */
void bus1_send_bytes_commit(struct bus1_send_bytes *bytes)
{
	struct bus1_peer *sender = bytes->handle->holder;

	bus1_handle_commit_new(bytes->handle);
	trace_bus1_send(sender, &bytes->message->layout, 1, 0, 0);
	bus1_send_unicast(sender, bytes->message);
	bus1_handle_unpin(bytes->handle);
}

/**
 * bus1_send_bytes_abort() - undo bus1_send_bytes_prepare()
 * @bytes: prepared send
 *
 * Context: Process context, without spinlocks.
 */
void bus1_send_bytes_abort(struct bus1_send_bytes *bytes)
{
	bus1_message_free(bytes->message);
	bus1_handle_unpin(bytes->handle);
}

/* As many as @n of its destinations get it. */
static void bus1_send_trace(const struct bus1_send *send, size_t n)
{
	u32 flags = 0;

	if (send->do_continue)
		flags |= BUS1_SEND_FLAG_CONTINUE;
	if (send->is_seed)
		flags |= BUS1_SEND_FLAG_SEED;
	trace_bus1_send(send->peer, &send->layout, send->n_dests,
			send->n_dests - n, flags);
}

/**
 * bus1_send_commit() - let it happen
 * @send: prepared send whose payload was copied
 *
 * Context: Process context, may sleep.
 * Return: 0, or -EINTR for a seed, if a fatal signal came before it could take
 *	its place.
 */
int bus1_send_commit(struct bus1_send *send)
{
	size_t i;
	int r;

	if (send->seed) {
		r = mutex_lock_killable(&send->peer->recv_mutex);
		if (r < 0)
			return r;
		bus1_send_commit_handles(send, true);
		if (trace_bus1_send_enabled())
			bus1_send_trace(send, 0);
		swap(send->peer->seed, send->seed);
		mutex_unlock(&send->peer->recv_mutex);
		return 0;
	}

	bus1_send_commit_handles(send, send->n_messages);
	if (trace_bus1_send_enabled())
		bus1_send_trace(send, send->n_messages);
	if (send->n_messages > 1) {
		bus1_send_multicast(send);
	} else if (send->n_messages) {
		for (i = 0; !send->dests[i].message; ++i)
			bus1_send_resched(i);
		bus1_send_unicast(send->peer, send->dests[i].message);
		send->dests[i].message = NULL;
	}
	return 0;
}

/**
 * bus1_send_deinit() - finish a send, committed or not
 * @send: send
 *
 * Context: Process context, without spinlocks.
 */
void bus1_send_deinit(struct bus1_send *send)
{
	size_t i;

	/* A seed that was replaced, or could not be committed */
	bus1_message_free(send->seed);

	for (i = 0; i < send->n_dests; ++i) {
		if (send->dests[i].message)
			bus1_message_free(send->dests[i].message);
		bus1_handle_unpin(send->dests[i].handle);
		bus1_send_resched(i);
	}
	for (i = 0; i < send->n_handles; ++i) {
		bus1_handle_unpin(send->handles[i]);
		bus1_send_resched(i);
	}
	bus1_cargo_unref(send->cargo, send->peer);

	if (send->dests != send->inline_dests)
		kvfree(send->dests);
	if (send->handles != send->inline_handles)
		kvfree(send->handles);
}
