// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Handles and nodes
 */
#include "internal.h"

/* Drops a reference unless it is the last one; the last one is dropped under a lock. */
bool bus1__dec_unless_last(atomic_uint *refs)
{
	unsigned int n = atomic_load(refs);

	while (n > 1)
		if (atomic_compare_exchange_weak(refs, &n, n - 1))
			return true;
	return false;
}

/*
 * The table
 */

static struct bus1_handle **bucket(struct bus1_peer *peer, uint64_t id)
{
	/* The lowest bits are flags. */
	uint64_t hash = (id >> 2) * UINT64_C(0x9e3779b97f4a7c15);

	return &peer->buckets[(hash >> 32) & (peer->n_buckets - 1)];
}

struct bus1_handle *bus1__handle_find_locked(struct bus1_peer *peer, uint64_t id)
{
	struct bus1_handle *handle;

	for (handle = *bucket(peer, id); handle; handle = handle->next)
		if (handle->id == id)
			return handle;
	return NULL;
}

/* Twice as many buckets; without memory for them the lists get longer. */
static void grow_locked(struct bus1_peer *peer)
{
	struct bus1_handle **old = peer->buckets, **buckets, *handle, *next;
	size_t n = peer->n_buckets, i;

	buckets = calloc(n * 2, sizeof(*buckets));
	if (!buckets)
		return;
	peer->buckets = buckets;
	peer->n_buckets = n * 2;
	for (i = 0; i < n; i++) {
		for (handle = old[i]; handle; handle = next) {
			next = handle->next;
			handle->next = *bucket(peer, handle->id);
			*bucket(peer, handle->id) = handle;
		}
	}
	free(old);
}

static void insert_locked(struct bus1_peer *peer, struct bus1_handle *handle)
{
	if (peer->n_handles >= peer->n_buckets)
		grow_locked(peer);
	handle->next = *bucket(peer, handle->id);
	*bucket(peer, handle->id) = handle;
	handle->listed = true;
	peer->n_handles++;
}

static void remove_locked(struct bus1_peer *peer, struct bus1_handle *handle)
{
	struct bus1_handle **p;

	if (!handle->listed)
		return;
	for (p = bucket(peer, handle->id); *p != handle; p = &(*p)->next)
		;
	*p = handle->next;
	handle->listed = false;
	peer->n_handles--;
}

/* What there is now is not found any more. */
void bus1__handles_forget_locked(struct bus1_peer *peer)
{
	struct bus1_handle *handle;
	size_t i;

	for (i = 0; i < peer->n_buckets; i++) {
		while ((handle = peer->buckets[i])) {
			peer->buckets[i] = handle->next;
			handle->listed = false;
			handle->node = NULL;
		}
	}
	peer->n_handles = 0;
}

/*
 * Handles
 */

/* Drops one reference in the kernel. A peer that is disconnected has none. */
void bus1__handle_release(struct bus1_peer *peer, uint64_t id)
{
	while (bus1__ioctl(peer, BUS1_CMD_HANDLE_RELEASE, &id) == -EINTR)
		;
}

static struct bus1_handle *handle_alloc(struct bus1_peer *peer, uint64_t id)
{
	struct bus1_handle *handle;

	handle = calloc(1, sizeof(*handle));
	if (!handle)
		return NULL;
	atomic_init(&handle->refs, 1);
	atomic_init(&handle->destroyed, false);
	handle->epoch = peer->epoch;
	handle->id = id;
	handle->peer = bus1_peer_ref(peer);
	return handle;
}

static void handle_free(struct bus1_handle *handle)
{
	bus1_peer_unref(handle->peer);
	free(handle);
}

/* An object for an ID that has none, or NULL. */
struct bus1_handle *bus1__handle_new_locked(struct bus1_peer *peer, uint64_t id)
{
	struct bus1_handle *handle;

	handle = handle_alloc(peer, id);
	if (!handle)
		return NULL;
	handle->used = true;
	insert_locked(peer, handle);
	return handle;
}

/*
 * Gives one reference in the kernel to the object. Returns true if that has one already, or
 * stands for the pinned one: then it is to be dropped.
 */
bool bus1__handle_adopt_locked(struct bus1_handle *handle)
{
	if (handle->referenced || handle->node)
		return true;
	handle->referenced = true;
	return false;
}

/*
 * The object for an ID. If the caller has a reference of the kernel, @referenced, it goes to
 * the object, or is dropped if that has one; a failure leaves it to the caller.
 */
int bus1__handle_get(struct bus1_peer *peer, uint64_t id, bool referenced,
		     struct bus1_handle **result)
{
	struct bus1_handle *fresh, *handle;
	bool surplus = false;

	fresh = handle_alloc(peer, id);
	if (!fresh)
		return -ENOMEM;
	fresh->used = true;

	pthread_mutex_lock(&peer->lock);
	handle = bus1__handle_find_locked(peer, id);
	if (handle) {
		atomic_fetch_add(&handle->refs, 1);
		handle->used = true;
	} else {
		handle = fresh;
		fresh = NULL;
		insert_locked(peer, handle);
	}
	if (referenced)
		surplus = bus1__handle_adopt_locked(handle);
	pthread_mutex_unlock(&peer->lock);

	if (fresh)
		handle_free(fresh);
	if (surplus)
		bus1__handle_release(peer, id);
	*result = handle;
	return 0;
}

/* Can it be used? */
int bus1__handle_check(const struct bus1_handle *handle)
{
	int r;

	r = bus1__check(handle->peer);
	if (r < 0)
		return r;
	if (handle->epoch != handle->peer->epoch)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ESTALE);
	/* The ID is free again: to the kernel it would name a new node */
	if (!(handle->id & BUS1_HANDLE_FLAG_REMOTE) && handle->destroyed)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ESTALE);
	return 0;
}

static bool is_own(const struct bus1_handle *handle)
{
	return !(handle->id & BUS1_HANDLE_FLAG_REMOTE);
}

static int destroy_ids(struct bus1_peer *peer, const uint64_t *ids, size_t n)
{
	struct bus1_cmd_nodes_destroy cmd = {
		.flags = BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES,
		.ptr_nodes = (uintptr_t)ids,
		.n_nodes = n,
	};
	int r;

	do {
		r = bus1__ioctl(peer, BUS1_CMD_NODES_DESTROY, &cmd);
	} while (r == -EINTR);
	return r;
}

/* A command is about to name it; bus1__handles_used() follows. */
static int use(struct bus1_handle *handle)
{
	struct bus1_peer *peer = handle->peer;
	int r;

	r = bus1__handle_check(handle);
	if (r < 0 || !is_own(handle))
		return r;
	pthread_mutex_lock(&peer->lock);
	if (handle->destroyed || (handle->node && handle->node->gone)) {
		r = -ESTALE;
	} else {
		handle->used = true;
		handle->busy++;
	}
	pthread_mutex_unlock(&peer->lock);
	return bus1__fail(BUS1_COMMAND_LIBRARY, r);
}

/* Is bus1__handle_rearm() to be called, and can it be? Then it has to be. */
bool bus1__handle_rearm_locked(struct bus1_handle *handle)
{
	if (!handle->rearm || handle->busy || !handle->node || handle->node->gone)
		return false;
	handle->rearm = false;
	handle->busy++;
	handle->rearming++;
	bus1_handle_ref(handle);
	return true;
}

/*
 * Lets the kernel say anew that nobody else has the node, now or when that is so. It needs no
 * memory there: it fails when the peer is disconnected only, and then nothing is said any
 * more.
 */
static void ask_again(struct bus1_handle *handle)
{
	struct bus1_cmd_handle_transfer cmd = {
		.src_handle = handle->id,
		.dst_fd = -1,
		.dst_handle = BUS1_HANDLE_INVALID,
	};
	int r;

	do {
		r = bus1__ioctl(handle->peer, BUS1_CMD_HANDLE_TRANSFER, &cmd);
	} while (r == -EINTR);
	if (r == 0 && cmd.dst_handle != BUS1_HANDLE_INVALID)
		bus1__handle_release(handle->peer, cmd.dst_handle);
}

/*
 * The command has ended. If @shared it has given the handle to others; if @rearmed it was
 * ask_again(), and has a reference, which goes.
 */
static void used(struct bus1_handle *handle, bool shared, bool rearmed)
{
	struct bus1_peer *peer = handle->peer;
	bool destroy, rearm = true;

	for (; rearm && is_own(handle); shared = false, rearmed = true) {
		pthread_mutex_lock(&peer->lock);
		if (shared)
			handle->shared = ++peer->clock;
		handle->busy--;
		if (rearmed)
			handle->rearming--;
		destroy = !handle->busy && handle->again && !handle->destroying;
		if (destroy)
			handle->again = false;
		rearm = bus1__handle_rearm_locked(handle);
		pthread_mutex_unlock(&peer->lock);
		if (destroy && bus1__tell(peer, handle->epoch))
			destroy_ids(peer, &handle->id, 1);
		if (rearm)
			ask_again(handle);
		if (rearmed)
			bus1_handle_unref(handle);
	}
}

/* All of them can be used, and are in use, or none. */
int bus1__handles_use(struct bus1_handle *const *handles, size_t n)
{
	size_t i;
	int r;

	for (i = 0; i < n; i++) {
		r = use(handles[i]);
		if (r < 0) {
			bus1__handles_used(handles, i, false);
			return r;
		}
	}
	return 0;
}

void bus1__handles_used(struct bus1_handle *const *handles, size_t n, bool shared)
{
	size_t i;

	for (i = 0; i < n; i++)
		used(handles[i], shared, false);
}

/* To be called when bus1__handle_rearm_locked() said so. */
void bus1__handle_rearm(struct bus1_handle *handle)
{
	ask_again(handle);
	used(handle, false, true);
}

EXPORT int bus1_handle_new(struct bus1_peer *peer, uint64_t id, struct bus1_handle **handle)
{
	int r;

	r = bus1__check(peer);
	if (r < 0)
		return r;
	if (id == BUS1_HANDLE_INVALID)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -EINVAL);
	r = bus1__handle_get(peer, id, true, handle);
	return bus1__fail(BUS1_COMMAND_LIBRARY, r);
}

EXPORT struct bus1_handle *bus1_handle_ref(struct bus1_handle *handle)
{
	if (handle)
		atomic_fetch_add(&handle->refs, 1);
	return handle;
}

EXPORT struct bus1_handle *bus1_handle_unref(struct bus1_handle *handle)
{
	struct bus1_peer *peer;
	bool last;

	if (!handle || bus1__dec_unless_last(&handle->refs))
		return NULL;
	peer = handle->peer;
	if (bus1__forked(peer)) {
		/* Nobody looks into the table of this process. */
		if (atomic_fetch_sub(&handle->refs, 1) == 1)
			handle_free(handle);
		return NULL;
	}
	pthread_mutex_lock(&peer->lock);
	last = atomic_fetch_sub(&handle->refs, 1) == 1;
	if (last)
		remove_locked(peer, handle);
	pthread_mutex_unlock(&peer->lock);
	if (!last)
		return NULL;
	if (handle->referenced && bus1__tell(peer, handle->epoch))
		bus1__handle_release(peer, handle->id);
	handle_free(handle);
	return NULL;
}

static int transfer(struct bus1_handle *handle, int fd, uint64_t *id)
{
	struct bus1_cmd_handle_transfer cmd = {
		.src_handle = handle->id,
		.dst_fd = fd < 0 ? INT_MAX : fd,
		.dst_handle = BUS1_HANDLE_INVALID,
	};
	int r;

	r = use(handle);
	if (r < 0)
		return r;
	r = bus1__ioctl(handle->peer, BUS1_CMD_HANDLE_TRANSFER, &cmd);
	if (r == 0 && cmd.dst_handle == BUS1_HANDLE_INVALID)
		r = -EHOSTUNREACH;
	used(handle, r == 0, false);
	if (r < 0)
		return bus1__fail(BUS1_COMMAND_HANDLE_TRANSFER, r);
	*id = cmd.dst_handle;
	return 0;
}

EXPORT int bus1_handle_transfer_fd(struct bus1_handle *handle, int fd, uint64_t *id)
{
	return transfer(handle, fd, id);
}

EXPORT int bus1_handle_transfer(struct bus1_handle *handle, struct bus1_peer *to,
				struct bus1_handle **result)
{
	uint64_t id;
	int r;

	r = bus1__check(to);
	if (r < 0)
		return r;
	r = transfer(handle, to->fd, &id);
	if (r < 0)
		return r;
	r = bus1__handle_get(to, id, true, result);
	if (r < 0)
		bus1__handle_release(to, id);
	return bus1__fail(BUS1_COMMAND_LIBRARY, r);
}

EXPORT void bus1_handle_set_handler(struct bus1_handle *handle, bus1_handler_t handler,
				    void *userdata)
{
	if (bus1__forked(handle->peer))
		return;
	pthread_mutex_lock(&handle->peer->lock);
	/* What was received already does not call it: the caller asks for that, and may go */
	handle->handler = handle->destroyed ? NULL : handler;
	handle->userdata = userdata;
	pthread_mutex_unlock(&handle->peer->lock);
}

EXPORT bool bus1_handle_is_destroyed(struct bus1_handle *handle)
{
	return handle->destroyed;
}

EXPORT struct bus1_peer *bus1_handle_get_peer(struct bus1_handle *handle)
{
	return handle->peer;
}

EXPORT uint64_t bus1_handle_get_id(struct bus1_handle *handle)
{
	return handle->id;
}

/*
 * Nodes
 */

static bool is_doomed_locked(struct bus1_peer *peer, uint64_t id)
{
	struct bus1_node *node;

	for (node = peer->doomed; node; node = node->next)
		if (node->id == id)
			return true;
	return false;
}

static struct bus1_node **find_doomed_locked(struct bus1_peer *peer,
					     const struct bus1_node *node)
{
	struct bus1_node **p = &peer->doomed;

	while (*p && (node ? *p != node : (*p)->trying))
		p = &(*p)->next;
	return p;
}

/* There was no memory to destroy them when they were dropped: now. */
void bus1__destroy_doomed(struct bus1_peer *peer)
{
	struct bus1_node *node;
	int r = 0;

	pthread_mutex_lock(&peer->lock);
	while (r != -ENOMEM && (node = *find_doomed_locked(peer, NULL))) {
		/* It stays on the list: nobody makes another one of that ID meanwhile. */
		node->trying = true;
		pthread_mutex_unlock(&peer->lock);
		r = bus1__tell(peer, peer->epoch) ? destroy_ids(peer, &node->id, 1) : 0;
		pthread_mutex_lock(&peer->lock);
		node->trying = false;
		if (r != -ENOMEM) {
			*find_doomed_locked(peer, node) = node->next;
			free(node);
		}
	}
	pthread_mutex_unlock(&peer->lock);
}

/* All but those that another thread takes off. */
void bus1__forget_doomed_locked(struct bus1_peer *peer)
{
	struct bus1_node **p, *node;

	while ((node = *(p = find_doomed_locked(peer, NULL)))) {
		*p = node->next;
		free(node);
	}
}

EXPORT int bus1_node_new(struct bus1_peer *peer, uint64_t id, bus1_handler_t handler,
			 void *userdata, struct bus1_node **result)
{
	bool chosen = id != BUS1_ID_AUTO, release = false;
	struct bus1_handle *owner;
	struct bus1_node *node;
	int r;

	r = bus1__check(peer);
	if (r < 0)
		return r;
	if (id & (BUS1_HANDLE_FLAG_MANAGED | BUS1_HANDLE_FLAG_REMOTE))
		return bus1__fail(BUS1_COMMAND_LIBRARY, -EINVAL);
	node = calloc(1, sizeof(*node));
	if (!node)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ENOMEM);
	if (chosen) {
		bus1__destroy_doomed(peer);
	} else {
		pthread_mutex_lock(&peer->lock);
		do {
			peer->next_id += 8;
		} while (peer->next_id == BUS1_ID_AUTO ||
			 bus1__handle_find_locked(peer, peer->next_id));
		id = peer->next_id;
		pthread_mutex_unlock(&peer->lock);
	}
	r = bus1__handle_get(peer, id, false, &owner);
	if (r < 0) {
		free(node);
		return bus1__fail(BUS1_COMMAND_LIBRARY, r);
	}
	atomic_init(&node->refs, 1);
	node->handle = owner;
	node->handler = handler;
	node->userdata = userdata;

	pthread_mutex_lock(&peer->lock);
	if (owner->node || is_doomed_locked(peer, id)) {
		r = -EEXIST;
	} else if (owner->destroyed) {
		r = -ESTALE;
	} else {
		owner->node = node;
		owner->used = chosen;
		release = owner->referenced;
		owner->referenced = false;
	}
	pthread_mutex_unlock(&peer->lock);
	if (r < 0) {
		bus1_handle_unref(owner);
		free(node);
		return bus1__fail(BUS1_COMMAND_LIBRARY, r);
	}
	/* Besides the pinned one: that would keep the owner from being told of a release. */
	if (release)
		bus1__handle_release(peer, id);
	*result = node;
	return 0;
}

EXPORT struct bus1_node *bus1_node_ref(struct bus1_node *node)
{
	if (node)
		atomic_fetch_add(&node->refs, 1);
	return node;
}

/* Takes what is queued for a node out of the queue, to be dropped. */
static void purge_locked(struct bus1_peer *peer, uint64_t id, struct bus1_message **drop)
{
	struct bus1_message **p = &peer->first, *message;

	while ((message = *p)) {
		if (message->msg.destination != id) {
			p = &message->next;
			continue;
		}
		*p = message->next;
		message->next = *drop;
		*drop = message;
	}
	peer->last = p;
	bus1__update_event_locked(peer);
}

static void drop_messages(struct bus1_peer *peer, struct bus1_message *message)
{
	struct bus1_message *next;

	for (; message; message = next) {
		next = message->next;
		bus1__message_drop(peer, message);
	}
}

/* The kernel is about to be told. */
static void destroy_begin_locked(struct bus1_handle *owner)
{
	owner->destroying = true;
	owner->again = owner->busy > 0;
}

/*
 * It was. Returns true if that has to be repeated: commands that were under way have ended
 * since, and may have come after it.
 */
static bool destroy_end_locked(struct bus1_handle *owner)
{
	bool again = owner->again && owner->busy == 0;

	owner->destroying = false;
	if (again)
		owner->again = false;
	return again;
}

EXPORT struct bus1_node *bus1_node_unref(struct bus1_node *node)
{
	struct bus1_message *drop = NULL;
	bool again, destroy = false, last;
	struct bus1_handle *owner;
	struct bus1_peer *peer;
	int r = 0;

	if (!node || bus1__dec_unless_last(&node->refs))
		return NULL;
	owner = node->handle;
	peer = owner->peer;
	if (bus1__forked(peer)) {
		if (atomic_fetch_sub(&node->refs, 1) != 1)
			return NULL;
	} else {
		pthread_mutex_lock(&peer->lock);
		last = atomic_fetch_sub(&node->refs, 1) == 1;
		if (last && !node->gone) {
			/* Others may have its handle: they cannot use it any more. */
			owner->destroyed = true;
			if (owner->node == node)
				owner->node = NULL;
			destroy = owner->used && bus1__tell(peer, owner->epoch);
			if (destroy)
				destroy_begin_locked(owner);
		}
		pthread_mutex_unlock(&peer->lock);
		if (!last)
			return NULL;
	}
	if (destroy) {
		r = destroy_ids(peer, &owner->id, 1);
		pthread_mutex_lock(&peer->lock);
		again = destroy_end_locked(owner);
		if (r == -ENOMEM) {
			/* Nobody can be told: later. */
			node->id = owner->id;
			node->next = peer->doomed;
			peer->doomed = node;
		}
		purge_locked(peer, owner->id, &drop);
		pthread_mutex_unlock(&peer->lock);
		if (again)
			destroy_ids(peer, &owner->id, 1);
		drop_messages(peer, drop);
	}
	bus1_handle_unref(owner);
	if (r != -ENOMEM)
		free(node);
	return NULL;
}

/* Marks all of them as gone, which each of them is only once. */
static int mark_gone_locked(struct bus1_node *const *nodes, size_t n)
{
	size_t i, j;
	int r;

	for (i = 0; i < n && !nodes[i]->gone; i++)
		nodes[i]->gone = true;
	if (i == n)
		return 0;
	r = -ESTALE;
	for (j = 0; j < i; j++) {
		if (nodes[j] == nodes[i])
			r = -ENOTUNIQ;
		nodes[j]->gone = false;
	}
	return r;
}

EXPORT int bus1_nodes_destroy_all(struct bus1_node *const *nodes, size_t n_nodes)
{
	struct bus1_message *drop = NULL;
	struct bus1_handle *owner;
	struct bus1_peer *peer;
	uint64_t *ids, one;
	size_t i, n = 0, n_again = 0;
	bool again;
	int r;

	if (n_nodes == 0)
		return 0;
	peer = nodes[0]->handle->peer;
	for (i = 0; i < n_nodes; i++) {
		if (nodes[i]->handle->peer != peer)
			return bus1__fail(BUS1_COMMAND_LIBRARY, -EXDEV);
		r = bus1__handle_check(nodes[i]->handle);
		if (r < 0)
			return r;
	}
	ids = n_nodes == 1 ? &one : calloc(n_nodes, sizeof(*ids));
	if (!ids)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ENOMEM);

	pthread_mutex_lock(&peer->lock);
	r = mark_gone_locked(nodes, n_nodes);
	for (i = 0; r == 0 && i < n_nodes; i++) {
		/* The kernel has not heard of all of them, and will not hear of those. */
		owner = nodes[i]->handle;
		if (owner->used)
			ids[n++] = owner->id;
		destroy_begin_locked(owner);
	}
	pthread_mutex_unlock(&peer->lock);
	if (r < 0)
		goto out;

	if (n)
		r = destroy_ids(peer, ids, n);

	pthread_mutex_lock(&peer->lock);
	for (i = 0; i < n_nodes; i++) {
		owner = nodes[i]->handle;
		again = destroy_end_locked(owner);
		if (r < 0) {
			nodes[i]->gone = false;
			owner->again = false;
			continue;
		}
		nodes[i]->silent = true;
		owner->node = NULL;
		owner->destroyed = true;
		purge_locked(peer, owner->id, &drop);
		if (again)
			ids[n_again++] = owner->id;
	}
	pthread_mutex_unlock(&peer->lock);
	/* What was not told, as they were about to be gone, is told after all. */
	for (i = 0; r < 0 && i < n_nodes; i++) {
		owner = nodes[i]->handle;
		pthread_mutex_lock(&peer->lock);
		again = bus1__handle_rearm_locked(owner);
		pthread_mutex_unlock(&peer->lock);
		if (again)
			bus1__handle_rearm(owner);
	}
	/* One by one: what comes of one is nothing to the others. */
	for (i = 0; i < n_again; i++)
		destroy_ids(peer, &ids[i], 1);
	drop_messages(peer, drop);
out:
	if (ids != &one)
		free(ids);
	return bus1__fail(BUS1_COMMAND_NODES_DESTROY, r);
}

EXPORT int bus1_node_destroy(struct bus1_node *node)
{
	return bus1_nodes_destroy_all(&node, 1);
}

EXPORT struct bus1_handle *bus1_node_get_handle(struct bus1_node *node)
{
	return node->handle;
}

EXPORT struct bus1_peer *bus1_node_get_peer(struct bus1_node *node)
{
	return node->handle->peer;
}

EXPORT uint64_t bus1_node_get_id(struct bus1_node *node)
{
	return node->handle->id;
}

EXPORT void *bus1_node_get_userdata(struct bus1_node *node)
{
	return node->userdata;
}
