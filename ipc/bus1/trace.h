/* SPDX-License-Identifier: GPL-2.0-only */
#undef TRACE_SYSTEM
#define TRACE_SYSTEM bus1

#if !defined(__BUS1_TRACE_H) || defined(TRACE_HEADER_MULTI_READ)
#define __BUS1_TRACE_H

#include <linux/tracepoint.h>
#include <linux/uidgid.h>
#include <linux/user_namespace.h>
#include "user.h"

/*
 * Lets the symbolic values be resolved by whoever reads the format files of the
 * events.
 */
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

#endif /* __BUS1_TRACE_H */

/* Found through -I$(src), so that it works inside and outside of a tree. */
#undef TRACE_INCLUDE_PATH
#define TRACE_INCLUDE_PATH .
#undef TRACE_INCLUDE_FILE
#define TRACE_INCLUDE_FILE trace
#include <trace/define_trace.h>
