// SPDX-License-Identifier: GPL-2.0-only
#include <linux/align.h>
#include <linux/atomic.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/refcount.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <uapi/linux/bus1.h>
#include "handle.h"
#include "message.h"
#include "node.h"
#include "peer.h"
#include "quota.h"
#include "util/pool.h"
#include "util/queue.h"

static struct kmem_cache *bus1_message_cache;

/**
 * bus1_message_module_init() - set up what all peers share
 *
 * Context: Module initialization.
 * Return: 0, or -ENOMEM.
 */
int bus1_message_module_init(void)
{
	bus1_message_cache = KMEM_CACHE(bus1_message, SLAB_ACCOUNT);
	return bus1_message_cache ? 0 : -ENOMEM;
}

/**
 * bus1_message_module_exit() - undo bus1_message_module_init()
 *
 * Context: Module exit; no peer is left.
 */
void bus1_message_module_exit(void)
{
	kmem_cache_destroy(bus1_message_cache);
}

/**
 * bus1_layout_init() - lay a slice out
 * @layout: layout to initialize
 * @n_bytes: bytes of payload
 * @n_handles: number of handles
 * @n_files: number of files, at most %BUS1_FD_MAX
 *
 * Context: Any.
 * Return: 0, or -EMSGSIZE if no pool could ever hold it.
 */
int bus1_layout_init(struct bus1_layout *layout, u64 n_bytes, u64 n_handles,
		     u64 n_files)
{
	if (n_bytes > BUS1_POOL_SIZE_MAX ||
	    n_handles > BUS1_POOL_SIZE_MAX / sizeof(u64))
		return -EMSGSIZE;

	layout->n_bytes = n_bytes;
	layout->n_handles = n_handles;
	layout->n_files = n_files;
	layout->off_handles = ALIGN(n_bytes, 8);
	layout->off_files = layout->off_handles + n_handles * sizeof(u64);
	if (n_files)
		layout->size = layout->off_files + n_files * sizeof(int);
	else if (n_handles)
		layout->size = layout->off_files;
	else
		layout->size = n_bytes;

	/* What is charged is counted in 31 bits */
	return layout->size > INT_MAX ? -EMSGSIZE : 0;
}

/* KASAN and KMSAN shall see each message end, unless a build says otherwise. */
#ifndef BUS1_MESSAGE_KEEP
#define BUS1_MESSAGE_KEEP	(!IS_ENABLED(CONFIG_KASAN) && \
				 !IS_ENABLED(CONFIG_KMSAN))
#endif

static noinline struct bus1_cargo *bus1_cargo_alloc(size_t n)
{
	struct bus1_cargo *cargo;

	return kvzalloc(struct_size(cargo, slots, max(n, BUS1_CARGO_FEW)),
			GFP_KERNEL_ACCOUNT | __GFP_NOWARN);
}

/**
 * bus1_cargo_new() - make room for nodes and files
 * @peer: a peer that may have kept some; mostly that is who receives it
 * @n_nodes: number of nodes
 * @n_files: number of files
 *
 * Context: Process context, may sleep.
 * Return: Cargo that is all NULL, or NULL if there is no memory.
 */
struct bus1_cargo *bus1_cargo_new(struct bus1_peer *peer, size_t n_nodes,
				  size_t n_files)
{
	struct bus1_cargo *cargo = NULL;
	size_t i, n = n_nodes + n_files;

	if (BUS1_MESSAGE_KEEP && n <= BUS1_CARGO_FEW)
		cargo = xchg(&peer->spare_cargo, NULL);
	for (i = 0; cargo && i < n; ++i)
		cargo->slots[i] = NULL;
	if (!cargo)
		cargo = bus1_cargo_alloc(n);
	if (!cargo)
		return NULL;

	refcount_set(&cargo->ref, 1);
	cargo->n_nodes = n_nodes;
	cargo->n_files = n_files;
	cargo->nodes = (struct bus1_node **)cargo->slots;
	cargo->files = (struct file **)cargo->slots + n_nodes;
	return cargo;
}

/**
 * bus1_cargo_ref() - add a reference
 * @cargo: cargo, or NULL
 *
 * Context: Any.
 * Return: @cargo.
 */
struct bus1_cargo *bus1_cargo_ref(struct bus1_cargo *cargo)
{
	if (cargo)
		refcount_inc(&cargo->ref);
	return cargo;
}

static noinline void bus1_cargo_free(struct bus1_cargo *cargo,
				     struct bus1_peer *peer)
{
	bool few = cargo->n_nodes + cargo->n_files <= BUS1_CARGO_FEW;
	size_t i;

	for (i = 0; i < cargo->n_nodes; ++i) {
		if (cargo->nodes[i]) {
			bus1_node_put(cargo->nodes[i]);
			bus1_node_unref(cargo->nodes[i]);
		}
		cond_resched();
	}
	for (i = 0; i < cargo->n_files; ++i) {
		if (cargo->files[i])
			fput(cargo->files[i]);
	}
	if (!BUS1_MESSAGE_KEEP || !few || cmpxchg(&peer->spare_cargo, NULL, cargo))
		kvfree(cargo);
}

/**
 * bus1_cargo_unref() - drop a reference
 * @cargo: cargo, or NULL
 * @peer: a peer that may keep the memory for the next one
 *
 * Context: Process context, without spinlocks.
 */
void bus1_cargo_unref(struct bus1_cargo *cargo, struct bus1_peer *peer)
{
	if (cargo && refcount_dec_and_test(&cargo->ref))
		bus1_cargo_free(cargo, peer);
}

/**
 * bus1_cargo_leave() - drop a reference, if others have some
 * @cargo: pointer to cargo, or to NULL; NULL afterwards if it was dropped
 *
 * If it is the last one it stays: nothing takes time here.
 *
 * Context: Any.
 */
void bus1_cargo_leave(struct bus1_cargo **cargo)
{
	if (*cargo && refcount_dec_not_one(&(*cargo)->ref))
		*cargo = NULL;
}

static noinline struct bus1_message *bus1_message_alloc(struct bus1_peer *peer)
{
	struct bus1_message *message;

	message = kmem_cache_alloc(bus1_message_cache, GFP_KERNEL);
	if (!message)
		return NULL;
	bus1_queue_entry_init(&message->entry, BUS1_ENTRY_MESSAGE);
	message->peer = peer;
	message->slice.offset = 0;
	message->slice.size = 0;
	message->slice.parked = false;
	return message;
}

/*
 * A peer keeps a message that it was done with for the next one, and its slice, too. That
 * simply stays allocated if it is where the pool keeps its memory anyway, and if that is
 * little of the pool: what is wasted there, be it by a message that is smaller than the one
 * before, is no more. Elsewhere it is parked, which costs a lock, and gives way to others.
 * It is taken by whoever exchanges it first. A spare slice is no reason for EXFULL: it is
 * taken first of all, and given up if it does not fit. As with a message that is being
 * sent, another one may find no room while it is held, and be it by one that is refused.
 */
static struct bus1_message *bus1_message_get(struct bus1_peer *peer)
{
	struct bus1_message *message = NULL;

	if (BUS1_MESSAGE_KEEP)
		message = xchg(&peer->spare, NULL);
	return message ?: bus1_message_alloc(peer);
}

static void bus1_message_drop_slice(struct bus1_message *message)
{
	if (message->slice.size)
		bus1_pool_free(message->peer->pool, &message->slice);
	message->slice.size = 0;
}

static noinline void bus1_message_destroy(struct bus1_message *message)
{
	bus1_message_drop_slice(message);
	kmem_cache_free(bus1_message_cache, message);
}

/* Be done with a slice for now that does not simply stay. */
static noinline void bus1_message_rest_slice(struct bus1_message *message)
{
	struct bus1_peer *peer = message->peer;

	/* Not if another message is kept, and this one is about to be freed */
	if (!BUS1_MESSAGE_KEEP || READ_ONCE(peer->spare) || !message->slice.size ||
	    !bus1_pool_park(peer->pool, &message->slice))
		bus1_message_drop_slice(message);
}

static void bus1_message_put(struct bus1_message *message)
{
	struct bus1_peer *peer = message->peer;

	if (!BUS1_MESSAGE_KEEP || !bus1_pool_keeps(peer->pool, &message->slice))
		bus1_message_rest_slice(message);
	if (!BUS1_MESSAGE_KEEP || cmpxchg(&peer->spare, NULL, message))
		bus1_message_destroy(message);

	/*
	 * [kept:A] pairs with [kept:B] in bus1_peer_teardown(): the one sees that
	 * it is torn down, or the other one what is kept. Both exchange pointers,
	 * which orders what comes before and after. Memory of the pool is given
	 * back later: no sender waits for that.
	 */
	if (unlikely(bus1_peer_is_disconnected(peer)))
		bus1_message_free_spare(peer);
}

/**
 * bus1_message_free_spare() - free the message that a peer has kept
 * @peer: peer
 *
 * Context: Process context, without spinlocks.
 */
noinline void bus1_message_free_spare(struct bus1_peer *peer)
{
	struct bus1_message *message = xchg(&peer->spare, NULL);

	if (message)
		bus1_message_destroy(message);
}

/* What of a slice is used; not 0, and whole units of what slices are aligned to. */
static u64 bus1_layout_used(const struct bus1_layout *layout)
{
	return ALIGN(max_t(u64, layout->size, 1), BUS1_POOL_SLICE_ALIGN);
}

/*
 * A slice that is there is good enough if there is no room directly below it by now: in a
 * pool that is empty otherwise, it is the first one. Else offsets would stay high for as
 * long as it is used again. At most half of it may be wasted. Of one that was parked, and
 * can be large, nothing may, and it must be where a new one would be.
 */
static bool bus1_message_reuse_slice(struct bus1_message *message, u64 used)
{
	/* Wraps around to more than that if there is too little, or nothing */
	u64 wasted = message->slice.size - used;

	if (wasted > used)
		return false;
	if (likely(!message->slice.parked))
		return !bus1_pool_is_above_gap(&message->slice);
	if (wasted)
		return false;
	if (bus1_pool_unpark(message->peer->pool, &message->slice))
		return true;
	message->slice.size = 0;
	return false;
}

static noinline int bus1_message_alloc_slice(struct bus1_message *message, u64 used)
{
	struct bus1_peer *peer = message->peer;
	int r;

	bus1_message_drop_slice(message);
	r = bus1_pool_alloc(peer->pool, &message->slice, used);
	if (unlikely(r == -EXFULL)) {
		/* One that was given back since is in the way */
		bus1_message_free_spare(peer);
		r = bus1_pool_alloc(peer->pool, &message->slice, used);
	}
	if (r < 0)
		message->slice.size = 0;
	return r;
}

/**
 * bus1_message_new() - charge and allocate a message
 * @peer: receiver
 * @sender: user that sends it
 * @layout: layout of the slice
 * @cargo: what it carries, or NULL
 *
 * The content of the slice is whatever was there before.
 *
 * Context: Process context, may sleep.
 * Return: The message, -EDQUOT if the receiver or the sender's share of it is
 *	out of budget, -EXFULL if its pool has no room, or -ENOMEM.
 */
struct bus1_message *bus1_message_new(struct bus1_peer *peer,
				      struct bus1_user *sender,
				      const struct bus1_layout *layout,
				      struct bus1_cargo *cargo)
{
	struct bus1_message *message;
	u64 used;
	int r;

	message = bus1_message_get(peer);
	if (!message)
		return ERR_PTR(-ENOMEM);

	message->node = NULL;
	message->layout = *layout;
	message->cost.n[BUS1_RESOURCE_SLICES] = 1;
	message->cost.n[BUS1_RESOURCE_HANDLES] = layout->n_handles;
	message->cost.n[BUS1_RESOURCE_BYTES] = layout->size;
	message->cost.n[BUS1_RESOURCE_FDS] = layout->n_files;

	r = bus1_quota_charge(&peer->quota, sender, &message->cost,
			      &message->share);
	if (r < 0)
		goto error;

	used = bus1_layout_used(layout);
	r = bus1_message_reuse_slice(message, used) ? 0 :
		bus1_message_alloc_slice(message, used);
	if (r < 0)
		goto error_uncharge;

	message->cargo = bus1_cargo_ref(cargo);
	return message;

error_uncharge:
	bus1_quota_uncharge(&peer->quota, message->share, &message->cost);
error:
	bus1_message_put(message);
	return ERR_PTR(r);
}

/* Free a message with all that it holds. */
static void bus1_message_finish(struct bus1_message *message)
{
	struct bus1_peer *peer = message->peer;
	struct bus1_node *node = message->node;

	WARN_ON_ONCE(message->entry.state != BUS1_ENTRY_IDLE);

	bus1_quota_uncharge(&peer->quota, message->share, &message->cost);
	bus1_cargo_unref(message->cargo, peer);
	bus1_message_put(message);
	/* Last: the node may be all that keeps the receiver in memory */
	bus1_node_unref(node);
}

/**
 * bus1_message_free() - free a message that nobody has received
 * @message: message that is on no queue, or NULL
 *
 * Context: Process context, without spinlocks.
 */
noinline void bus1_message_free(struct bus1_message *message)
{
	if (!message)
		return;
	/* Nobody sees what is in the slice */
	bus1_pool_zero(message->peer->pool, &message->slice, 0,
		       bus1_message_used(message));
	bus1_message_finish(message);
}

static struct bus1_message *bus1_message_of(struct bus1_pool_slice *slice)
{
	return container_of(slice, struct bus1_message, slice);
}

/**
 * bus1_message_release() - give a slice back
 * @peer: peer that has received it
 * @offset: where it starts in the pool, in bytes
 *
 * Context: Process context, without spinlocks.
 * Return: 0, or -ENXIO if no received slice starts there.
 */
int bus1_message_release(struct bus1_peer *peer, u64 offset)
{
	struct bus1_pool_slice *slice;

	slice = bus1_pool_unpublish(peer->pool, offset);
	if (!slice)
		return -ENXIO;
	bus1_message_finish(bus1_message_of(slice));
	return 0;
}

/**
 * bus1_message_release_all() - give all received slices back
 * @peer: peer that has received them
 *
 * Context: Process context, without spinlocks.
 */
void bus1_message_release_all(struct bus1_peer *peer)
{
	struct bus1_pool_slice *slice;
	u64 pos = 0;

	while ((slice = bus1_pool_unpublish_next(peer->pool, &pos))) {
		bus1_message_finish(bus1_message_of(slice));
		cond_resched();
	}
}

/**
 * bus1_message_used() - how much of its slice a message is in
 * @message: message
 *
 * Context: Any.
 * Return: Bytes, a multiple of %BUS1_POOL_SLICE_ALIGN, never 0.
 */
u64 bus1_message_used(const struct bus1_message *message)
{
	return bus1_layout_used(&message->layout);
}

/**
 * bus1_message_end() - where a message ends in the pool
 * @message: message
 *
 * Context: Any.
 * Return: Offset in the pool, in bytes.
 */
u64 bus1_message_end(const struct bus1_message *message)
{
	return message->slice.offset + message->layout.size;
}
