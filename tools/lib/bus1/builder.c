// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Messages to send
 */
#include <sys/uio.h>

#include "internal.h"

/* UIO_MAXIOV of the kernel. */
#define IOV_MOST	1024

/**
 * struct handles - handles, and their IDs as the kernel wants them
 * @handles: references
 * @ids: their IDs; there is room for one more
 * @n: their number
 * @size: room
 */
struct handles {
	struct bus1_handle **handles;
	uint64_t *ids;
	size_t n;
	size_t size;
};

struct bus1_builder {
	atomic_uint refs;
	struct bus1_peer *peer;
	struct iovec *iov;
	size_t n_iov;
	size_t iov_size;
	struct handles handles;
	int *fds;
	size_t n_fds;
	struct handles destinations;
	int32_t *errors;
	size_t n_errors;
};

EXPORT int bus1_builder_new(struct bus1_peer *peer, struct bus1_builder **result)
{
	struct bus1_builder *builder;

	if (bus1__forked(peer))
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ECHILD);
	builder = calloc(1, sizeof(*builder));
	if (!builder)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ENOMEM);
	atomic_init(&builder->refs, 1);
	builder->peer = bus1_peer_ref(peer);
	*result = builder;
	return 0;
}

EXPORT struct bus1_builder *bus1_builder_ref(struct bus1_builder *builder)
{
	if (builder)
		atomic_fetch_add(&builder->refs, 1);
	return builder;
}

static void handles_reset(struct handles *handles)
{
	while (handles->n)
		bus1_handle_unref(handles->handles[--handles->n]);
}

static void handles_free(struct handles *handles)
{
	handles_reset(handles);
	free(handles->handles);
	free(handles->ids);
}

EXPORT struct bus1_builder *bus1_builder_unref(struct bus1_builder *builder)
{
	if (!builder || atomic_fetch_sub(&builder->refs, 1) != 1)
		return NULL;
	handles_free(&builder->handles);
	handles_free(&builder->destinations);
	bus1_peer_unref(builder->peer);
	free(builder->iov);
	free(builder->fds);
	free(builder->errors);
	free(builder);
	return NULL;
}

EXPORT void bus1_builder_reset(struct bus1_builder *builder)
{
	builder->n_iov = 0;
	builder->n_fds = 0;
	handles_reset(&builder->handles);
	bus1_builder_clear_destinations(builder);
}

EXPORT void bus1_builder_clear_destinations(struct bus1_builder *builder)
{
	handles_reset(&builder->destinations);
	builder->n_errors = 0;
}

EXPORT int bus1_builder_add_iov(struct bus1_builder *builder, const struct iovec *iov,
				size_t n_iov)
{
	struct iovec *grown;
	size_t size;

	if (n_iov > IOV_MOST - builder->n_iov)
		return bus1__fail(BUS1_COMMAND_SEND, -EMSGSIZE);
	if (builder->n_iov + n_iov > builder->iov_size) {
		size = builder->n_iov + n_iov < 8 ? 8 : 2 * (builder->n_iov + n_iov);
		grown = reallocarray(builder->iov, size, sizeof(*grown));
		if (!grown)
			return bus1__fail(BUS1_COMMAND_LIBRARY, -ENOMEM);
		builder->iov = grown;
		builder->iov_size = size;
	}
	if (n_iov)
		memcpy(&builder->iov[builder->n_iov], iov, n_iov * sizeof(*iov));
	builder->n_iov += n_iov;
	return 0;
}

EXPORT int bus1_builder_add_data(struct bus1_builder *builder, const void *data, size_t size)
{
	struct iovec iov = { (void *)data, size };

	return bus1_builder_add_iov(builder, &iov, 1);
}

/* Room for one more handle, and the ID of another one behind it. */
static int handles_grow(struct handles *handles)
{
	struct bus1_handle **grown;
	uint64_t *ids;
	size_t size;

	if (handles->n + 2 <= handles->size)
		return 0;
	size = handles->size ? 2 * handles->size : 8;
	grown = reallocarray(handles->handles, size, sizeof(*grown));
	if (!grown)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ENOMEM);
	handles->handles = grown;
	ids = reallocarray(handles->ids, size, sizeof(*ids));
	if (!ids)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ENOMEM);
	handles->ids = ids;
	handles->size = size;
	return 0;
}

static int handles_add(struct bus1_builder *builder, struct handles *handles,
		       struct bus1_handle *handle)
{
	int r;

	if (handle->peer != builder->peer)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -EXDEV);
	r = handles_grow(handles);
	if (r < 0)
		return r;
	handles->ids[handles->n] = handle->id;
	handles->handles[handles->n++] = bus1_handle_ref(handle);
	return 0;
}

EXPORT int bus1_builder_add_handle(struct bus1_builder *builder, struct bus1_handle *handle)
{
	return handles_add(builder, &builder->handles, handle);
}

EXPORT int bus1_builder_add_destination(struct bus1_builder *builder,
					struct bus1_handle *handle)
{
	builder->n_errors = 0;
	return handles_add(builder, &builder->destinations, handle);
}

EXPORT int bus1_builder_add_fd(struct bus1_builder *builder, int fd)
{
	if (fd < 0)
		return bus1__fail(BUS1_COMMAND_SEND, -EBADF);
	if (builder->n_fds >= BUS1_FD_MAX)
		return bus1__fail(BUS1_COMMAND_SEND, -EMSGSIZE);
	if (!builder->fds) {
		builder->fds = calloc(BUS1_FD_MAX, sizeof(*builder->fds));
		if (!builder->fds)
			return bus1__fail(BUS1_COMMAND_LIBRARY, -ENOMEM);
	}
	builder->fds[builder->n_fds++] = fd;
	return 0;
}

EXPORT size_t bus1_builder_get_n_destinations(struct bus1_builder *builder)
{
	return builder->destinations.n;
}

EXPORT int bus1_builder_get_error(struct bus1_builder *builder, size_t index)
{
	if (index >= builder->destinations.n)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ERANGE);
	if (index >= builder->n_errors)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ENODATA);
	return builder->errors[index];
}

/* All that the kernel has to know, but for flags; finish() follows. */
static int prepare(struct bus1_builder *builder, struct bus1_cmd_send *send)
{
	size_t n = builder->destinations.n, i;
	int32_t *errors;
	int r;

	r = bus1__check(builder->peer);
	if (r < 0)
		return r;
	if (n) {
		errors = reallocarray(builder->errors, n, sizeof(*errors));
		if (!errors)
			return bus1__fail(BUS1_COMMAND_LIBRARY, -ENOMEM);
		builder->errors = errors;
		for (i = 0; i < n; i++)
			errors[i] = -ENODATA;
	}
	builder->n_errors = 0;
	r = bus1__handles_use(builder->handles.handles, builder->handles.n);
	if (r < 0)
		return r;
	r = bus1__handles_use(builder->destinations.handles, n);
	if (r < 0) {
		bus1__handles_used(builder->handles.handles, builder->handles.n, false);
		return r;
	}
	memset(send, 0, sizeof(*send));
	send->ptr_destinations = (uintptr_t)builder->destinations.ids;
	send->ptr_errors = n ? (uintptr_t)builder->errors : 0;
	send->n_destinations = n;
	send->ptr_vecs = (uintptr_t)builder->iov;
	send->n_vecs = builder->n_iov;
	send->ptr_handles = (uintptr_t)builder->handles.ids;
	send->n_handles = builder->handles.n;
	send->ptr_fds = (uintptr_t)builder->fds;
	send->n_fds = builder->n_fds;
	return 0;
}

/* The kernel fills in all errors, or none. */
static void take_errors(struct bus1_builder *builder)
{
	size_t n = builder->destinations.n;

	if (n && builder->errors[0] != -ENODATA)
		builder->n_errors = n;
}

/* Whether or not somebody has got it. */
static void finish(struct bus1_builder *builder, bool sent)
{
	take_errors(builder);
	bus1__handles_used(builder->handles.handles, builder->handles.n, sent);
	bus1__handles_used(builder->destinations.handles, builder->destinations.n, false);
}

static int send_it(struct bus1_builder *builder, uint64_t flags)
{
	struct bus1_cmd_send send;
	int n = 0, r;
	size_t i;

	r = prepare(builder, &send);
	if (r < 0)
		return r;
	send.flags = flags;
	r = bus1__ioctl(builder->peer, BUS1_CMD_SEND, &send);
	finish(builder, r == 0);
	if (r < 0)
		return bus1__fail(BUS1_COMMAND_SEND, r);
	for (i = 0; i < builder->n_errors; i++)
		n += builder->errors[i] == 0;
	return n;
}

EXPORT int bus1_builder_send(struct bus1_builder *builder, unsigned int flags)
{
	if (flags & ~(unsigned int)BUS1_SEND_SKIP)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -EINVAL);
	return send_it(builder, flags & BUS1_SEND_SKIP ? BUS1_SEND_FLAG_CONTINUE : 0);
}

EXPORT int bus1_builder_send_seed(struct bus1_builder *builder)
{
	return send_it(builder, BUS1_SEND_FLAG_SEED);
}

EXPORT int bus1_handle_send(struct bus1_handle *handle, const void *data, size_t size)
{
	struct iovec iov = { (void *)data, size };
	struct bus1_cmd_send send = {
		.ptr_destinations = (uintptr_t)&handle->id,
		.n_destinations = 1,
		.ptr_vecs = (uintptr_t)&iov,
		.n_vecs = 1,
	};
	int r;

	r = bus1__handles_use(&handle, 1);
	if (r < 0)
		return r;
	r = bus1__ioctl(handle->peer, BUS1_CMD_SEND, &send);
	bus1__handles_used(&handle, 1, false);
	return r < 0 ? bus1__fail(BUS1_COMMAND_SEND, r) : 1;
}

EXPORT int bus1_builder_reply(struct bus1_builder *builder, struct bus1_message *message)
{
	struct bus1_handle *handle;
	int r;

	r = bus1_message_get_reply_handle(message, &handle);
	if (r < 0)
		return r;
	bus1_builder_clear_destinations(builder);
	r = bus1_builder_add_destination(builder, handle);
	bus1_handle_unref(handle);
	return r < 0 ? r : bus1_builder_send(builder, 0);
}

static bool call_done(struct bus1_peer *peer, const struct call *call)
{
	bool done;

	pthread_mutex_lock(&peer->lock);
	done = call->reply || call->reset;
	pthread_mutex_unlock(&peer->lock);
	return done;
}

/* The request is sent, and the receiver may have dropped it already. */
static void call_sent(void *data)
{
	finish(data, true);
}

EXPORT int bus1_builder_call(struct bus1_builder *builder, int64_t timeout_ns,
			     struct bus1_message **reply)
{
	struct bus1_peer *peer = builder->peer;
	struct bus1_cmd_send_recv cmd = { 0 };
	struct call call = { 0 };
	struct bus1_node *node;
	int r;

	if (builder->destinations.n != 1)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -EINVAL);
	r = handles_grow(&builder->handles);
	/* It has no handler: what comes is taken out before there is a need for one. */
	if (r == 0)
		r = bus1_node_new(peer, BUS1_ID_AUTO, NULL, NULL, &node);
	if (r < 0)
		return r;
	r = prepare(builder, &cmd.send);
	if (r < 0) {
		bus1_node_unref(node);
		return r;
	}
	call.id = bus1_node_get_id(node);
	builder->handles.ids[builder->handles.n] = call.id;
	cmd.send.ptr_handles = (uintptr_t)builder->handles.ids;
	cmd.send.n_handles++;
	cmd.flags = BUS1_SEND_RECV_FLAG_SEND;
	cmd.timeout = bus1__deadline(timeout_ns);

	pthread_mutex_lock(&peer->lock);
	if (peer->call)
		r = -EBUSY;
	else
		peer->call = &call;
	pthread_mutex_unlock(&peer->lock);
	if (r < 0) {
		finish(builder, false);
		bus1_node_unref(node);
		return bus1__fail(BUS1_COMMAND_LIBRARY, r);
	}

	while (!call_done(peer, &call)) {
		r = bus1__receive(peer, &cmd, BATCH, call_sent, builder);
		if (cmd.flags & BUS1_SEND_RECV_FLAG_SEND) {
			finish(builder, false);
			break;
		}
		if (r < 0)
			break;
	}
	/* The kernel knows the node if it was sent. */
	if (!(cmd.flags & BUS1_SEND_RECV_FLAG_SEND)) {
		pthread_mutex_lock(&peer->lock);
		node->handle->used = true;
		pthread_mutex_unlock(&peer->lock);
	}

	pthread_mutex_lock(&peer->lock);
	peer->call = NULL;
	bus1__update_event_locked(peer);
	pthread_mutex_unlock(&peer->lock);
	bus1_node_unref(node);

	if (call.reply) {
		bus1__message_deliver(peer, call.reply);
		*reply = call.reply;
		return 0;
	}
	if (call.reset)
		r = -ECONNRESET;
	return bus1__fail(BUS1_COMMAND_CALL, r);
}
