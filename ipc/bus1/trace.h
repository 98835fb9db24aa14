/* SPDX-License-Identifier: GPL-2.0-only */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM bus1

#if !defined(__BUS1_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define __BUS1_TRACE_H

/**
 * DOC: Tracepoints
 *
 * What is traced, and how it fits together, is in Documentation/bus1/tracing.rst:
 * names and fields are stable, fields may be added at the end. One that is off
 * costs an instruction: arguments are what the caller has at hand, all else is
 * read by the event itself.
 */

#include <linux/atomic.h>
#include <linux/tracepoint.h>
#include <linux/types.h>
#include <linux/uidgid.h>
#include <linux/user_namespace.h>
#include <uapi/linux/bus1.h>
#include "handle.h"
#include "message.h"
#include "node.h"
#include "peer.h"
#include "recv.h"
#include "send.h"
#include "user.h"
#include "util/queue.h"

/*
 * Lets the symbolic values be resolved by whoever reads the format files of the
 * events.
 */
TRACE_DEFINE_ENUM(BUS1_MSG_DATA);
TRACE_DEFINE_ENUM(BUS1_MSG_NODE_DESTROY);
TRACE_DEFINE_ENUM(BUS1_MSG_NODE_RELEASE);
TRACE_DEFINE_ENUM(BUS1_LAYER_PEER_LIMIT);
TRACE_DEFINE_ENUM(BUS1_LAYER_SENDER_SHARE);
TRACE_DEFINE_ENUM(BUS1_LAYER_USER_LIMIT);
TRACE_DEFINE_ENUM(BUS1_LAYER_SIBLING_SHARE);
TRACE_DEFINE_ENUM(BUS1_RESOURCE_SLICES);
TRACE_DEFINE_ENUM(BUS1_RESOURCE_HANDLES);
TRACE_DEFINE_ENUM(BUS1_RESOURCE_BYTES);
TRACE_DEFINE_ENUM(BUS1_RESOURCE_FDS);

#define bus1_trace_layer(_layer)					\
	__print_symbolic(_layer,					\
			 { BUS1_LAYER_PEER_LIMIT, "peer limit" },	\
			 { BUS1_LAYER_SENDER_SHARE, "sender share" },	\
			 { BUS1_LAYER_USER_LIMIT, "user limit" },	\
			 { BUS1_LAYER_SIBLING_SHARE, "sibling share" })

#define bus1_trace_resource(_resource)					\
	__print_symbolic(_resource,					\
			 { BUS1_RESOURCE_SLICES, "slices" },		\
			 { BUS1_RESOURCE_HANDLES, "handles" },		\
			 { BUS1_RESOURCE_BYTES, "bytes" },		\
			 { BUS1_RESOURCE_FDS, "fds" })

/*
 * bus1_quota_refused: a charge was refused, somebody gets EDQUOT
 * @peer: id of the peer that would have been charged
 * @layer: which budget or share was exhausted, see enum bus1_layer
 * @resource: what of, see enum bus1_resource
 * @uid: the user that asked
 * @asked: how much more was asked for
 * @held: how much was held already, by the one that the layer looks at
 * @limit: the budget that the layer divides
 */
TRACE_EVENT(bus1_quota_refused,
	TP_PROTO(u64 peer, enum bus1_layer layer, enum bus1_resource resource,
		 kuid_t uid, u32 asked, u64 held, u32 limit),

	TP_ARGS(peer, layer, resource, uid, asked, held, limit),

	TP_STRUCT__entry(
		__field(u64, peer)
		__field(u64, held)
		__field(unsigned int, layer)
		__field(unsigned int, resource)
		__field(u32, uid)
		__field(u32, asked)
		__field(u32, limit)
	),

	TP_fast_assign(
		__entry->peer = peer;
		__entry->held = held;
		__entry->layer = layer;
		__entry->resource = resource;
		__entry->uid = from_kuid(&init_user_ns, uid);
		__entry->asked = asked;
		__entry->limit = limit;
	),

	TP_printk("peer=%llu layer='%s' resource=%s uid=%u asked=%u held=%llu limit=%u",
		  __entry->peer, bus1_trace_layer(__entry->layer),
		  bus1_trace_resource(__entry->resource), __entry->uid,
		  __entry->asked, __entry->held, __entry->limit)
);

#define bus1_trace_type(_type)						\
	__print_symbolic(_type,						\
			 { BUS1_MSG_DATA, "data" },			\
			 { BUS1_MSG_NODE_DESTROY, "node_destroy" },	\
			 { BUS1_MSG_NODE_RELEASE, "node_release" })

/* The real uid of whoever opened a peer. */
#define bus1_trace_uid(_peer)						\
	from_kuid(&init_user_ns, (_peer)->user->uid)

/* The timestamp of a transaction that is sealed. */
#define bus1_trace_ts(_tx)						\
	((u64)atomic64_read(&(_tx)->word) >> 1)

/*
 * bus1_peer_open: a peer was opened
 * @peer: its id
 * @uid: the user that it belongs to
 */
TRACE_EVENT(bus1_peer_open,
	TP_PROTO(const struct bus1_peer *peer),

	TP_ARGS(peer),

	TP_STRUCT__entry(
		__field(u64, peer)
		__field(u32, uid)
	),

	TP_fast_assign(
		__entry->peer = peer->id;
		__entry->uid = bus1_trace_uid(peer);
	),

	TP_printk("peer=%llu uid=%u", __entry->peer, __entry->uid)
);

/*
 * bus1_peer_close: a peer was disconnected, by command or close()
 * @peer: its id
 * @tx: id of the transaction that did it
 * @ts: its timestamp
 */
TRACE_EVENT(bus1_peer_close,
	TP_PROTO(const struct bus1_peer *peer, const struct bus1_death *death),

	TP_ARGS(peer, death),

	TP_STRUCT__entry(
		__field(u64, peer)
		__field(u64, tx)
		__field(u64, ts)
	),

	TP_fast_assign(
		__entry->peer = peer->id;
		__entry->tx = death->tx.id;
		__entry->ts = bus1_trace_ts(&death->tx);
	),

	TP_printk("peer=%llu tx=%llu ts=%llu",
		  __entry->peer, __entry->tx, __entry->ts)
);

/*
 * bus1_node_create: a node came to be
 * @peer: id of the peer that owns it
 * @node: its ID there
 */
TRACE_EVENT(bus1_node_create,
	TP_PROTO(const struct bus1_node *node),

	TP_ARGS(node),

	TP_STRUCT__entry(
		__field(u64, peer)
		__field(u64, node)
	),

	TP_fast_assign(
		__entry->peer = node->owner->id;
		__entry->node = node->id;
	),

	TP_printk("peer=%llu node=%#llx", __entry->peer, __entry->node)
);

/*
 * bus1_node_destroy: a node was destroyed
 * @peer: id of the peer that owns it
 * @node: its ID there
 * @tx: id of the transaction that did it
 * @ts: its timestamp
 */
TRACE_EVENT(bus1_node_destroy,
	TP_PROTO(const struct bus1_node *node, const struct bus1_death *death),

	TP_ARGS(node, death),

	TP_STRUCT__entry(
		__field(u64, peer)
		__field(u64, node)
		__field(u64, tx)
		__field(u64, ts)
	),

	TP_fast_assign(
		__entry->peer = node->owner->id;
		__entry->node = node->id;
		__entry->tx = death->tx.id;
		__entry->ts = bus1_trace_ts(&death->tx);
	),

	TP_printk("peer=%llu node=%#llx tx=%llu ts=%llu",
		  __entry->peer, __entry->node, __entry->tx, __entry->ts)
);

DECLARE_EVENT_CLASS(bus1_handle_refs,
	TP_PROTO(const struct bus1_handle *handle),

	TP_ARGS(handle),

	TP_STRUCT__entry(
		__field(u64, peer)
		__field(u64, handle)
		__field(u64, owner)
		__field(u64, node)
		__field(u64, refs)
	),

	TP_fast_assign(
		__entry->peer = handle->holder->id;
		__entry->handle = handle->id;
		__entry->owner = handle->node->owner->id;
		__entry->node = handle->node->id;
		__entry->refs = handle->user_refs;
	),

	TP_printk("peer=%llu handle=%#llx owner=%llu node=%#llx refs=%llu",
		  __entry->peer, __entry->handle, __entry->owner,
		  __entry->node, __entry->refs)
);

/*
 * bus1_handle_acquire: a peer got a user reference
 * @peer: id of the peer that has the handle
 * @handle: ID of the handle there
 * @owner: id of the peer that owns the node
 * @node: ID of the node there
 * @refs: how many references it is now
 */
DEFINE_EVENT(bus1_handle_refs, bus1_handle_acquire,
	TP_PROTO(const struct bus1_handle *handle),

	TP_ARGS(handle)
);

/*
 * bus1_handle_release: user references were dropped, one or more
 * @peer, @handle, @owner, @node: as above
 * @refs: how many references are left
 */
DEFINE_EVENT(bus1_handle_refs, bus1_handle_release,
	TP_PROTO(const struct bus1_handle *handle),

	TP_ARGS(handle)
);

/*
 * bus1_send: a message is sent: all is checked, and nobody has it yet
 * @peer: id of the sender
 * @n_bytes: bytes of payload
 * @n_handles: number of handles
 * @n_fds: number of files
 * @uid: the user of the sender
 * @n_destinations: number of destinations
 * @n_skipped: how many of these do not get it, with BUS1_SEND_FLAG_CONTINUE
 * @flags: enum bus1_send_flags
 */
TRACE_EVENT(bus1_send,
	TP_PROTO(const struct bus1_peer *peer, const struct bus1_layout *layout,
		 u32 n, u32 n_skipped, u32 flags),

	TP_ARGS(peer, layout, n, n_skipped, flags),

	TP_STRUCT__entry(
		__field(u64, peer)
		__field(u64, n_bytes)
		__field(u64, n_handles)
		__field(u64, n_fds)
		__field(u32, uid)
		__field(u32, n_destinations)
		__field(u32, n_skipped)
		__field(u32, flags)
	),

	TP_fast_assign(
		__entry->peer = peer->id;
		__entry->n_bytes = layout->n_bytes;
		__entry->n_handles = layout->n_handles;
		__entry->n_fds = layout->n_files;
		__entry->uid = bus1_trace_uid(peer);
		__entry->n_destinations = n;
		__entry->n_skipped = n_skipped;
		__entry->flags = flags;
	),

	TP_printk("peer=%llu n_bytes=%llu n_handles=%llu n_fds=%llu uid=%u n_destinations=%u n_skipped=%u flags=%#x",
		  __entry->peer, __entry->n_bytes, __entry->n_handles,
		  __entry->n_fds, __entry->uid, __entry->n_destinations,
		  __entry->n_skipped, __entry->flags)
);

/*
 * bus1_stage: a message to several was put into the queue of one of them, where
 * it waits for all to have it
 * @sender: id of the sender
 * @peer: id of the receiver
 * @node: ID of the destination there
 * @tx: id of the transaction
 */
TRACE_EVENT(bus1_stage,
	TP_PROTO(const struct bus1_peer *sender, const struct bus1_node *node,
		 const struct bus1_tx *tx),

	TP_ARGS(sender, node, tx),

	TP_STRUCT__entry(
		__field(u64, sender)
		__field(u64, peer)
		__field(u64, node)
		__field(u64, tx)
	),

	TP_fast_assign(
		__entry->sender = sender->id;
		__entry->peer = node->owner->id;
		__entry->node = node->id;
		__entry->tx = tx->id;
	),

	TP_printk("sender=%llu peer=%llu node=%#llx tx=%llu",
		  __entry->sender, __entry->peer, __entry->node, __entry->tx)
);

/*
 * bus1_commit: a message has its place in the order, at one of its receivers
 * @sender: id of the sender
 * @peer: id of the receiver
 * @node: ID of the destination there
 * @tx: id of the transaction
 * @ts: its timestamp
 * @n_bytes: bytes of payload
 * @n_handles: number of handles
 * @n_fds: number of files
 */
TRACE_EVENT(bus1_commit,
	TP_PROTO(const struct bus1_peer *sender, const struct bus1_node *node,
		 const struct bus1_layout *layout,
		 const struct bus1_stamp *stamp),

	TP_ARGS(sender, node, layout, stamp),

	TP_STRUCT__entry(
		__field(u64, sender)
		__field(u64, peer)
		__field(u64, node)
		__field(u64, tx)
		__field(u64, ts)
		__field(u64, n_bytes)
		__field(u64, n_handles)
		__field(u64, n_fds)
	),

	TP_fast_assign(
		__entry->sender = sender->id;
		__entry->peer = node->owner->id;
		__entry->node = node->id;
		__entry->tx = stamp->id;
		__entry->ts = stamp->ts;
		__entry->n_bytes = layout->n_bytes;
		__entry->n_handles = layout->n_handles;
		__entry->n_fds = layout->n_files;
	),

	TP_printk("sender=%llu peer=%llu node=%#llx tx=%llu ts=%llu n_bytes=%llu n_handles=%llu n_fds=%llu",
		  __entry->sender, __entry->peer, __entry->node, __entry->tx,
		  __entry->ts, __entry->n_bytes, __entry->n_handles,
		  __entry->n_fds)
);

/*
 * bus1_recv: a message or a notification was received
 * @peer: id of the receiver
 * @type: enum bus1_msg_type
 * @destination: as in struct bus1_msg: the ID of the node or handle
 * @tx: id of the transaction, 0 for the seed
 * @ts: its timestamp, 0 for the seed
 * @age: nanoseconds since then, 0 for the seed
 * @n_bytes: bytes of payload
 * @n_handles: number of handles
 * @n_fds: number of descriptors that were installed
 * @flags: enum bus1_msg_flags
 */
TRACE_EVENT(bus1_recv,
	TP_PROTO(const struct bus1_recv *recv),

	TP_ARGS(recv),

	TP_STRUCT__entry(
		__field(u64, peer)
		__field(u64, destination)
		__field(u64, tx)
		__field(u64, ts)
		__field(u64, age)
		__field(u64, n_bytes)
		__field(u64, n_handles)
		__field(u64, n_fds)
		__field(u32, type)
		__field(u32, flags)
	),

	TP_fast_assign(
		struct bus1_msg msg;

		bus1_recv_describe(recv, &msg);
		__entry->peer = recv->peer->id;
		__entry->destination = msg.destination;
		__entry->tx = recv->entry ? recv->entry->stamp.id : 0;
		__entry->ts = recv->entry ? recv->entry->stamp.ts : 0;
		__entry->age = recv->entry ? bus1_clock_now() - __entry->ts : 0;
		__entry->n_bytes = msg.n_bytes;
		__entry->n_handles = msg.n_handles;
		__entry->n_fds = msg.n_fds;
		__entry->type = msg.type;
		__entry->flags = msg.flags;
	),

	TP_printk("peer=%llu type=%s destination=%#llx tx=%llu ts=%llu age=%llu n_bytes=%llu n_handles=%llu n_fds=%llu flags=%#x",
		  __entry->peer, bus1_trace_type(__entry->type),
		  __entry->destination, __entry->tx, __entry->ts, __entry->age,
		  __entry->n_bytes, __entry->n_handles, __entry->n_fds,
		  __entry->flags)
);

/*
 * bus1_notify: a notification was put into a queue
 * @peer: id of the peer that is told
 * @type: enum bus1_msg_type
 * @handle: the ID of its handle
 * @owner: id of the peer that owns the node
 * @node: ID of the node there
 * @tx: id of the transaction
 * @ts: its timestamp; 0 if it has none yet: the bus1_node_destroy with this tx has
 */
TRACE_EVENT(bus1_notify,
	TP_PROTO(const struct bus1_peer *peer, u64 handle,
		 const struct bus1_node *node, u32 type, u64 tx, u64 ts),

	TP_ARGS(peer, handle, node, type, tx, ts),

	TP_STRUCT__entry(
		__field(u64, peer)
		__field(u64, handle)
		__field(u64, owner)
		__field(u64, node)
		__field(u64, tx)
		__field(u64, ts)
		__field(u32, type)
	),

	TP_fast_assign(
		__entry->peer = peer->id;
		__entry->handle = handle;
		__entry->owner = node->owner->id;
		__entry->node = node->id;
		__entry->tx = tx;
		__entry->ts = ts;
		__entry->type = type;
	),

	TP_printk("peer=%llu type=%s handle=%#llx owner=%llu node=%#llx tx=%llu ts=%llu",
		  __entry->peer, bus1_trace_type(__entry->type),
		  __entry->handle, __entry->owner, __entry->node, __entry->tx,
		  __entry->ts)
);

/*
 * bus1_command_failed: a command returns an error
 * @peer: id of the peer that it was issued on
 * @uid: the user of that peer
 * @command: number of the command, as _IOC_NR() of it
 * @error: the errno, negative
 */
TRACE_EVENT(bus1_command_failed,
	TP_PROTO(const struct bus1_peer *peer, unsigned int command, int error),

	TP_ARGS(peer, command, error),

	TP_STRUCT__entry(
		__field(u64, peer)
		__field(u32, uid)
		__field(u32, command)
		__field(s32, error)
	),

	TP_fast_assign(
		__entry->peer = peer->id;
		__entry->uid = bus1_trace_uid(peer);
		__entry->command = command;
		__entry->error = error;
	),

	TP_printk("peer=%llu uid=%u command=%#x error=%d",
		  __entry->peer, __entry->uid, __entry->command, __entry->error)
);

#endif /* __BUS1_TRACE_H */

/* Found through -I$(src), so that it works inside and outside of a tree. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
