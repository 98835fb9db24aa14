// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Messages that were received
 */
#include <unistd.h>

#include "internal.h"

#define ALIGN8(n) (((n) + 7) & ~(size_t)7)

/* An object for a message that is about to be received, so that none is lost. */
struct bus1_message *bus1__message_new(struct bus1_peer *peer)
{
	struct bus1_message *message;

	pthread_mutex_lock(&peer->lock);
	message = peer->spare;
	if (message) {
		peer->spare = message->next;
		peer->n_spare--;
	}
	pthread_mutex_unlock(&peer->lock);
	return message ? message : malloc(sizeof(*message));
}

void bus1__message_recycle(struct bus1_peer *peer, struct bus1_message *message)
{
	if (!bus1__forked(peer)) {
		pthread_mutex_lock(&peer->lock);
		if (peer->n_spare < SPARE_MAX) {
			message->next = peer->spare;
			peer->spare = message;
			peer->n_spare++;
			message = NULL;
		}
		pthread_mutex_unlock(&peer->lock);
	}
	free(message);
}

/*
 * What the kernel has told of a message; cannot fail. @clock is the peer's, of before it was
 * received.
 */
void bus1__message_fill_locked(struct bus1_peer *peer, struct bus1_message *message,
			       const struct bus1_msg *msg, uint64_t clock)
{
	size_t size;
	void *meta;

	memset(message, 0, sizeof(*message));
	atomic_init(&message->refs, 1);
	message->epoch = peer->epoch;
	message->clock = clock;
	message->msg = *msg;
	message->data = (const uint8_t *)message->small;
	if (msg->type != BUS1_MSG_DATA)
		return;

	message->map = peer->map;
	atomic_fetch_add(&message->map->refs, 1);
	message->data = message->map->address + msg->offset;
	/*
	 * IDs and descriptors are needed to drop them, when there may be no pool any
	 * more. Without memory for a copy they have to do where they are, as long as
	 * they are there: see meta_lost().
	 */
	size = msg->n_handles * sizeof(uint64_t) + msg->n_fds * sizeof(int);
	message->meta = message->data + ALIGN8(msg->n_bytes);
	if (size) {
		meta = size <= sizeof(message->small) ? message->small : malloc(size);
		if (meta)
			message->meta = memcpy(meta, message->meta, size);
	}
}

/* Are its IDs and descriptors in the slice? */
static bool meta_in_slice(const struct bus1_message *message)
{
	return message->map && message->meta == message->data + ALIGN8(message->msg.n_bytes);
}

/*
 * Were they there only, and is the slice gone? Then nobody can tell what they were. That
 * descriptors stay open is better than to close those of somebody else.
 */
static bool meta_lost(const struct bus1_peer *peer, const struct bus1_message *message)
{
	return meta_in_slice(message) &&
	       (message->epoch != peer->epoch || peer->disconnected);
}

static uint64_t get_id(const struct bus1_message *message, size_t i)
{
	uint64_t id;

	memcpy(&id, message->meta + i * sizeof(id), sizeof(id));
	return id;
}

static int get_fd(const struct bus1_message *message, size_t i)
{
	int fd;

	memcpy(&fd, message->meta + message->msg.n_handles * sizeof(uint64_t) +
	       i * sizeof(fd), sizeof(fd));
	return fd;
}

/* Drops what came with a message, and the object. */
void bus1__message_drop(struct bus1_peer *peer, struct bus1_message *message)
{
	bool tell = bus1__tell(peer, message->epoch), lost = meta_lost(peer, message);
	size_t i;

	/* Since it was handed out */
	if (message->peer && message->msg.n_handles && !bus1__forked(peer)) {
		pthread_mutex_lock(&peer->lock);
		*message->pprev = message->next;
		if (message->next)
			message->next->pprev = message->pprev;
		pthread_mutex_unlock(&peer->lock);
	}
	for (i = 0; !lost && i < message->msg.n_fds; i++)
		if (!(message->taken[i / 32] & (UINT32_C(1) << i % 32)))
			close(get_fd(message, i));
	for (i = 0; i < message->msg.n_handles; i++) {
		if (message->handles && message->handles[i])
			bus1_handle_unref(message->handles[i]);
		else if (tell && get_id(message, i) != BUS1_HANDLE_INVALID)
			bus1__handle_release(peer, get_id(message, i));
	}
	if (tell && message->map)
		bus1__slice_release(peer, &message->msg);

	if (message->map && message->meta != (const uint8_t *)message->small &&
	    !meta_in_slice(message))
		free((void *)message->meta);
	free(message->handles);
	bus1__map_unref(message->map);
	bus1_node_unref(message->node);
	bus1_handle_unref(message->handle);
	bus1__message_recycle(peer, message);
}

/*
 * A node is destroyed, and nobody has an object of its handle. Messages that were handed out
 * may have it, and be asked for it later: now they get one, that knows. Without memory for
 * that it is noticed when the handle is used. Counts references of the kernel that are to be
 * dropped.
 */
static struct bus1_handle *find_unasked_locked(struct bus1_peer *peer, uint64_t id,
					       size_t *n_surplus)
{
	struct bus1_handle *handle = NULL;
	struct bus1_message *m;
	size_t i;

	for (m = peer->out; m; m = m->next) {
		if (m->epoch != peer->epoch || meta_lost(peer, m))
			continue;
		for (i = 0; i < m->msg.n_handles; i++) {
			if (get_id(m, i) != id)
				continue;
			if (!m->handles)
				m->handles = calloc(m->msg.n_handles, sizeof(handle));
			if (!m->handles)
				break;
			if (handle)
				bus1_handle_ref(handle);
			else
				handle = bus1__handle_new_locked(peer, id);
			if (!handle)
				return NULL;
			m->handles[i] = handle;
			*n_surplus += bus1__handle_adopt_locked(handle);
		}
	}
	return handle;
}

/*
 * Finds the objects that a message is about, as it is handed out: in the same section as it
 * leaves the queue, so that a destruction finds those that have the handle in the queue, or
 * handed out. bus1__message_delivered() follows.
 */
void bus1__message_deliver_locked(struct bus1_peer *peer, struct bus1_message *message,
				  struct delivery *delivery)
{
	struct bus1_handle *handle;

	*delivery = (struct delivery){ .handle = NULL };
	handle = bus1__handle_find_locked(peer, message->msg.destination);
	if (!handle && message->msg.type == BUS1_MSG_NODE_DESTROY)
		handle = find_unasked_locked(peer, message->msg.destination,
					     &delivery->n_surplus);
	if (handle && handle->node)
		message->node = bus1_node_ref(handle->node);
	if (message->node && message->msg.type == BUS1_MSG_NODE_RELEASE) {
		/* To ask again gives it to nobody else */
		delivery->stale = handle->busy > handle->rearming ||
				  handle->shared > message->clock;
		handle->rearm = delivery->stale;
		if (bus1__handle_rearm_locked(handle))
			delivery->handle = handle;
	}
	if (handle && message->msg.type == BUS1_MSG_NODE_DESTROY) {
		handle->destroyed = true;
		message->handle = bus1_handle_ref(handle);
		if (handle->node) {
			/* The pinned reference can be dropped, and is to be. */
			handle->node->gone = true;
			handle->node = NULL;
			handle->referenced = true;
		}
	}
	if (message->msg.n_handles > 0) {
		message->next = peer->out;
		message->pprev = &peer->out;
		if (message->next)
			message->next->pprev = &message->next;
		peer->out = message;
	}
}

/*
 * Returns false if it is not to be handed out, and gone: it says that nobody has a node, and
 * that may not be true any more.
 */
bool bus1__message_delivered(struct bus1_peer *peer, struct bus1_message *message,
			     struct delivery *delivery)
{
	while (delivery->n_surplus-- > 0)
		bus1__handle_release(peer, message->msg.destination);
	if (delivery->handle)
		bus1__handle_rearm(delivery->handle);
	if (delivery->stale) {
		bus1__message_drop(peer, message);
		return false;
	}
	message->peer = bus1_peer_ref(peer);
	return true;
}

/* Both, of one that is in no queue, and is no notification. */
void bus1__message_deliver(struct bus1_peer *peer, struct bus1_message *message)
{
	struct delivery delivery;

	pthread_mutex_lock(&peer->lock);
	bus1__message_deliver_locked(peer, message, &delivery);
	pthread_mutex_unlock(&peer->lock);
	bus1__message_delivered(peer, message, &delivery);
}

EXPORT struct bus1_message *bus1_message_ref(struct bus1_message *message)
{
	if (message)
		atomic_fetch_add(&message->refs, 1);
	return message;
}

EXPORT struct bus1_message *bus1_message_unref(struct bus1_message *message)
{
	struct bus1_peer *peer;

	if (!message || atomic_fetch_sub(&message->refs, 1) != 1)
		return NULL;
	peer = message->peer;
	bus1__message_drop(peer, message);
	bus1_peer_unref(peer);
	return NULL;
}

EXPORT int bus1_message_dispatch(struct bus1_message *message)
{
	struct bus1_peer *peer = message->peer;
	bus1_handler_t handler = NULL;
	void *userdata = NULL;
	bool silent = false;

	if (bus1__forked(peer))
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ECHILD);
	pthread_mutex_lock(&peer->lock);
	if (message->node) {
		silent = message->node->silent;
		handler = message->node->handler;
		userdata = message->node->userdata;
	} else if (message->handle) {
		handler = message->handle->handler;
		userdata = message->handle->userdata;
	}
	pthread_mutex_unlock(&peer->lock);
	if (silent)
		return 0;
	if (!handler) {
		handler = peer->handler;
		userdata = peer->userdata;
	}
	return handler ? handler(message, userdata) : 0;
}

EXPORT enum bus1_type bus1_message_get_type(struct bus1_message *message)
{
	return message->msg.type;
}

EXPORT bool bus1_message_is_continued(struct bus1_message *message)
{
	return message->msg.flags & BUS1_MSG_FLAG_CONTINUE;
}

EXPORT struct bus1_peer *bus1_message_get_peer(struct bus1_message *message)
{
	return message->peer;
}

EXPORT struct bus1_node *bus1_message_get_node(struct bus1_message *message)
{
	return message->node;
}

EXPORT uint64_t bus1_message_get_destination(struct bus1_message *message)
{
	return message->msg.destination;
}

EXPORT const void *bus1_message_get_data(struct bus1_message *message, size_t *size)
{
	if (size)
		*size = message->msg.n_bytes;
	return message->data;
}

EXPORT const void *bus1_message_read(struct bus1_message *message, size_t size)
{
	const void *data;

	if (size > message->msg.n_bytes - message->cursor)
		return NULL;
	data = message->data + message->cursor;
	message->cursor += size;
	return data;
}

EXPORT void bus1_message_rewind(struct bus1_message *message)
{
	message->cursor = 0;
}

EXPORT size_t bus1_message_get_n_handles(struct bus1_message *message)
{
	return message->msg.n_handles;
}

EXPORT int bus1_message_get_handle(struct bus1_message *message, size_t index,
				   struct bus1_handle **result)
{
	struct bus1_peer *peer = message->peer;
	struct bus1_handle *handle;
	bool surplus = false;
	uint64_t id;
	int r;

	if (index >= message->msg.n_handles)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ERANGE);
	r = bus1__check(peer);
	if (r < 0)
		return r;
	if (message->epoch != peer->epoch)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ESTALE);
	if (peer->disconnected)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ESHUTDOWN);
	id = get_id(message, index);
	if (id == BUS1_HANDLE_INVALID)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -EHOSTUNREACH);

	r = bus1__handle_get(peer, id, false, &handle);
	if (r < 0)
		return bus1__fail(BUS1_COMMAND_LIBRARY, r);
	/* The kernel's reference is that of the message until somebody asks for it. */
	pthread_mutex_lock(&peer->lock);
	if (!message->handles)
		message->handles = calloc(message->msg.n_handles, sizeof(handle));
	if (!message->handles) {
		r = -ENOMEM;
	} else if (!message->handles[index]) {
		message->handles[index] = bus1_handle_ref(handle);
		surplus = bus1__handle_adopt_locked(handle);
	}
	pthread_mutex_unlock(&peer->lock);
	if (surplus)
		bus1__handle_release(peer, id);
	if (r < 0) {
		bus1_handle_unref(handle);
		return bus1__fail(BUS1_COMMAND_LIBRARY, r);
	}
	*result = handle;
	return 0;
}

EXPORT int bus1_message_get_reply_handle(struct bus1_message *message,
					 struct bus1_handle **handle)
{
	/* Without any that is (size_t)-1, which is too much, too. */
	return bus1_message_get_handle(message, (size_t)message->msg.n_handles - 1, handle);
}

EXPORT size_t bus1_message_get_n_fds(struct bus1_message *message)
{
	return message->msg.n_fds;
}

static int lend_fd(struct bus1_message *message, size_t index, bool take)
{
	struct bus1_peer *peer = message->peer;
	uint32_t bit = UINT32_C(1) << index % 32;
	int fd;

	if (index >= message->msg.n_fds)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ERANGE);
	if (bus1__forked(peer))
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ECHILD);
	if (meta_lost(peer, message))
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ESTALE);
	pthread_mutex_lock(&peer->lock);
	fd = message->taken[index / 32] & bit ? -EBADF : get_fd(message, index);
	if (take)
		message->taken[index / 32] |= bit;
	pthread_mutex_unlock(&peer->lock);
	return fd < 0 ? bus1__fail(BUS1_COMMAND_LIBRARY, fd) : fd;
}

EXPORT int bus1_message_get_fd(struct bus1_message *message, size_t index)
{
	return lend_fd(message, index, false);
}

EXPORT int bus1_message_take_fd(struct bus1_message *message, size_t index)
{
	return lend_fd(message, index, true);
}
