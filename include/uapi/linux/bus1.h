/* SPDX-License-Identifier: GPL-2.0-only WITH Linux-syscall-note */
/*
 * bus1: a capability-based message bus
 *
 * This header is the whole binary interface of /dev/bus1. It can be used from
 * user space alone. bus1(7) explains every command, and lists every error.
 *
 * All structures are 8-byte aligned and have the same layout for 32-bit and
 * 64-bit programs. Pointers travel in __u64, see the ptr_* fields.
 */
#ifndef _UAPI_LINUX_BUS1_H
#define _UAPI_LINUX_BUS1_H

#include <linux/ioctl.h>
#include <linux/types.h>

/* The most files that one message can carry. */
#define BUS1_FD_MAX		256

/* The ioctl magic of every command. */
#define BUS1_IOCTL_MAGIC	0x96

/* No handle: what a handle to a destroyed node arrives as. */
#define BUS1_HANDLE_INVALID	((__u64)-1)
/* No offset: the message has no slice, or there is no limit. */
#define BUS1_OFFSET_INVALID	((__u64)-1)

/**
 * enum bus1_handle_flags - bits of a handle ID
 * @BUS1_HANDLE_FLAG_MANAGED: the kernel chose the ID. User space chooses IDs
 *	with this bit and %BUS1_HANDLE_FLAG_REMOTE clear.
 * @BUS1_HANDLE_FLAG_REMOTE: the ID names a node of somebody else.
 *
 * In IDs chosen by the kernel bit 2 is reserved, and 0.
 */
enum bus1_handle_flags {
	BUS1_HANDLE_FLAG_MANAGED	= 1ULL << 0,
	BUS1_HANDLE_FLAG_REMOTE		= 1ULL << 1,
};

/**
 * enum bus1_peer_reset_flags - flags of BUS1_CMD_PEER_RESET
 * @BUS1_PEER_RESET_FLAG_FLUSH: in one transaction, destroy every node that the
 *	seed does not carry, drop every user reference, empty the queue and
 *	release every slice.
 * @BUS1_PEER_RESET_FLAG_FLUSH_SEED: drop the seed.
 */
enum bus1_peer_reset_flags {
	BUS1_PEER_RESET_FLAG_FLUSH	= 1ULL << 0,
	BUS1_PEER_RESET_FLAG_FLUSH_SEED	= 1ULL << 1,
};

/**
 * struct bus1_cmd_peer_reset - BUS1_CMD_PEER_QUERY and BUS1_CMD_PEER_RESET
 * @flags: QUERY: 0. RESET: &enum bus1_peer_reset_flags
 * @peer_flags: QUERY: set to 0. RESET: must be (__u64)-1
 * @max_slices: the most slices the peer may hold
 * @max_handles: the most handles the peer may hold
 * @max_inflight_bytes: the most bytes in slices of the peer
 * @max_inflight_fds: the most files in messages queued to the peer
 *
 * QUERY returns the peer's own limits. RESET sets them; (__u32)-1 leaves one
 * as it is, a limit above INT_MAX is refused.
 */
struct bus1_cmd_peer_reset {
	__u64 flags;
	__u64 peer_flags;
	__u32 max_slices;
	__u32 max_handles;
	__u32 max_inflight_bytes;
	__u32 max_inflight_fds;
} __attribute__((__aligned__(8)));

/**
 * struct bus1_cmd_handle_transfer - BUS1_CMD_HANDLE_TRANSFER
 * @flags: 0
 * @src_handle: ID of a handle of the calling peer
 * @dst_fd: file descriptor of the peer that gets the handle, (__u64)-1 for the
 *	calling peer itself
 * @dst_handle: must be %BUS1_HANDLE_INVALID on entry; the ID in the other peer
 *	on return, %BUS1_HANDLE_INVALID if the node is destroyed
 */
struct bus1_cmd_handle_transfer {
	__u64 flags;
	__u64 src_handle;
	__u64 dst_fd;
	__u64 dst_handle;
} __attribute__((__aligned__(8)));

/**
 * enum bus1_nodes_destroy_flags - flags of BUS1_CMD_NODES_DESTROY
 * @BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES: also drop one user reference of
 *	the caller per node
 */
enum bus1_nodes_destroy_flags {
	BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES	= 1ULL << 0,
};

/**
 * struct bus1_cmd_nodes_destroy - BUS1_CMD_NODES_DESTROY
 * @flags: &enum bus1_nodes_destroy_flags
 * @ptr_nodes: address of an array of __u64, the IDs of the nodes
 * @n_nodes: number of IDs
 */
struct bus1_cmd_nodes_destroy {
	__u64 flags;
	__u64 ptr_nodes;
	__u64 n_nodes;
} __attribute__((__aligned__(8)));

/**
 * enum bus1_send_flags - flags of BUS1_CMD_SEND
 * @BUS1_SEND_FLAG_CONTINUE: skip destinations that fail with EHOSTUNREACH,
 *	EDQUOT or EXFULL, rather than fail the call
 * @BUS1_SEND_FLAG_SEED: the message becomes the seed of the calling peer
 */
enum bus1_send_flags {
	BUS1_SEND_FLAG_CONTINUE	= 1ULL << 0,
	BUS1_SEND_FLAG_SEED	= 1ULL << 1,
};

/**
 * struct bus1_cmd_send - BUS1_CMD_SEND
 * @flags: &enum bus1_send_flags
 * @ptr_destinations: address of an array of __u64, the IDs to send to
 * @ptr_errors: 0, or address of an array of __s32 with one entry per
 *	destination, that receives 0 or the destination's negative errno
 * @n_destinations: number of destinations
 * @ptr_vecs: address of an array of struct iovec, the payload
 * @n_vecs: number of vectors
 * @ptr_handles: address of an array of __u64, the IDs of handles to pass on
 * @n_handles: number of handles
 * @ptr_fds: address of an array of int, the files to pass on
 * @n_fds: number of files
 */
struct bus1_cmd_send {
	__u64 flags;
	__u64 ptr_destinations;
	__u64 ptr_errors;
	__u64 n_destinations;
	__u64 ptr_vecs;
	__u64 n_vecs;
	__u64 ptr_handles;
	__u64 n_handles;
	__u64 ptr_fds;
	__u64 n_fds;
} __attribute__((__aligned__(8)));

/**
 * enum bus1_recv_flags - flags of BUS1_CMD_RECV
 * @BUS1_RECV_FLAG_SEED: fetch the seed rather than the next message
 * @BUS1_RECV_FLAG_INSTALL_FDS: install the files of the message as descriptors
 *	of the calling process, close-on-exec
 * @BUS1_RECV_FLAG_RELEASE: first give the slice at msg.offset back
 */
enum bus1_recv_flags {
	BUS1_RECV_FLAG_SEED		= 1ULL << 0,
	BUS1_RECV_FLAG_INSTALL_FDS	= 1ULL << 1,
	BUS1_RECV_FLAG_RELEASE		= 1ULL << 2,
};

/**
 * enum bus1_msg_type - what a received message is
 * @BUS1_MSG_NONE: nothing
 * @BUS1_MSG_DATA: a message somebody sent
 * @BUS1_MSG_NODE_DESTROY: the node behind a handle was destroyed
 * @BUS1_MSG_NODE_RELEASE: nobody else holds a reference to the node any more
 */
enum bus1_msg_type {
	BUS1_MSG_NONE		= 0,
	BUS1_MSG_DATA		= 1,
	BUS1_MSG_NODE_DESTROY	= 2,
	BUS1_MSG_NODE_RELEASE	= 3,
};

/**
 * enum bus1_msg_flags - flags of a received message
 * @BUS1_MSG_FLAG_CONTINUE: the next message in this queue belongs to the same
 *	transaction
 */
enum bus1_msg_flags {
	BUS1_MSG_FLAG_CONTINUE	= 1ULL << 0,
};

/**
 * struct bus1_cmd_recv - BUS1_CMD_RECV
 * @flags: &enum bus1_recv_flags
 * @max_offset: the slice must end at or below this offset
 * @msg: the message, filled in on return
 *
 * The slice starts at offset @msg.offset of the pool. It holds n_bytes of
 * payload, at the next multiple of 8 the n_handles IDs (__u64), and at the next
 * multiple of 8 the n_fds descriptors (int).
 */
struct bus1_cmd_recv {
	__u64 flags;
	__u64 max_offset;
	/**
	 * @msg: the message
	 * @msg.type: &enum bus1_msg_type
	 * @msg.flags: &enum bus1_msg_flags
	 * @msg.destination: the receiver's own ID of the node it was sent to
	 * @msg.offset: offset of the slice, a multiple of 8. On entry, with
	 *	%BUS1_RECV_FLAG_RELEASE, offset of the slice to give back, or
	 *	%BUS1_OFFSET_INVALID; set to the latter when that is done
	 * @msg.n_bytes: bytes of payload
	 * @msg.n_handles: number of handles
	 * @msg.n_fds: number of descriptors
	 */
	struct {
		__u64 type;
		__u64 flags;
		__u64 destination;
		__u64 offset;
		__u64 n_bytes;
		__u64 n_handles;
		__u64 n_fds;
	} __attribute__((__aligned__(8))) msg;
} __attribute__((__aligned__(8)));

/**
 * struct bus1_msg - a message received with BUS1_CMD_SEND_RECV
 * @type: &enum bus1_msg_type
 * @flags: &enum bus1_msg_flags
 * @destination: the receiver's own ID of the node it was sent to
 * @offset: offset of the slice, a multiple of 8
 * @n_bytes: bytes of payload
 * @n_handles: number of handles
 * @n_fds: number of descriptors
 *
 * The same as msg of &struct bus1_cmd_recv.
 */
struct bus1_msg {
	__u64 type;
	__u64 flags;
	__u64 destination;
	__u64 offset;
	__u64 n_bytes;
	__u64 n_handles;
	__u64 n_fds;
} __attribute__((__aligned__(8)));

/**
 * enum bus1_send_recv_flags - flags of BUS1_CMD_SEND_RECV
 * @BUS1_SEND_RECV_FLAG_SEND: send a message; cleared when that is done
 * @BUS1_SEND_RECV_FLAG_INSTALL_FDS: as %BUS1_RECV_FLAG_INSTALL_FDS
 */
enum bus1_send_recv_flags {
	BUS1_SEND_RECV_FLAG_SEND	= 1ULL << 0,
	BUS1_SEND_RECV_FLAG_INSTALL_FDS	= 1ULL << 1,
};

/**
 * struct bus1_cmd_send_recv - BUS1_CMD_SEND_RECV
 * @flags: &enum bus1_send_recv_flags; on return, without what is done
 * @ptr_slices: address of an array of __u64, the offsets of slices to give back
 * @n_slices: number of slices; on return, of those that are left
 * @ptr_messages: address of an array of &struct bus1_msg, filled in on return
 * @n_messages: the most messages to receive; 0 receives none, and does not wait
 * @n_received: number of messages that were received, filled in on return
 * @max_offset: slices of messages must end at or below this offset
 * @timeout: when to stop waiting for the first message, in nanoseconds of
 *	CLOCK_MONOTONIC; 0 does not wait, (__u64)-1 waits without a limit
 * @send: what to send, with %BUS1_SEND_RECV_FLAG_SEND; ignored without
 *
 * After an error, the structure says what is left to do: the same call can be made
 * again with it.
 */
struct bus1_cmd_send_recv {
	__u64 flags;
	__u64 ptr_slices;
	__u64 n_slices;
	__u64 ptr_messages;
	__u64 n_messages;
	__u64 n_received;
	__u64 max_offset;
	__u64 timeout;
	struct bus1_cmd_send send;
} __attribute__((__aligned__(8)));

/* Leave the bus for good. The argument is 0, by value. */
#define BUS1_CMD_PEER_DISCONNECT	_IOWR(BUS1_IOCTL_MAGIC, 0x00,	\
						__u64)
/* Read the limits of the peer. */
#define BUS1_CMD_PEER_QUERY		_IOWR(BUS1_IOCTL_MAGIC, 0x01,	\
						struct bus1_cmd_peer_reset)
/* Set the limits of the peer, or flush it. */
#define BUS1_CMD_PEER_RESET		_IOWR(BUS1_IOCTL_MAGIC, 0x02,	\
						struct bus1_cmd_peer_reset)
/* Drop one user reference of a handle. */
#define BUS1_CMD_HANDLE_RELEASE		_IOWR(BUS1_IOCTL_MAGIC, 0x10,	\
						__u64)
/* Give a handle to a peer whose file descriptor one holds. */
#define BUS1_CMD_HANDLE_TRANSFER	_IOWR(BUS1_IOCTL_MAGIC, 0x11,	\
						struct bus1_cmd_handle_transfer)
/* Destroy nodes of the calling peer, as one transaction. */
#define BUS1_CMD_NODES_DESTROY		_IOWR(BUS1_IOCTL_MAGIC, 0x20,	\
						struct bus1_cmd_nodes_destroy)
/* Give a slice back to the pool. */
#define BUS1_CMD_SLICE_RELEASE		_IOWR(BUS1_IOCTL_MAGIC, 0x30,	\
						__u64)
/* Send one message to any number of destinations, as one transaction. */
#define BUS1_CMD_SEND			_IOWR(BUS1_IOCTL_MAGIC, 0x40,	\
						struct bus1_cmd_send)
/* Receive the next message. */
#define BUS1_CMD_RECV			_IOWR(BUS1_IOCTL_MAGIC, 0x50,	\
						struct bus1_cmd_recv)
/* Send a message, give slices back, and receive messages, in one call. */
#define BUS1_CMD_SEND_RECV		_IOWR(BUS1_IOCTL_MAGIC, 0x51,	\
						struct bus1_cmd_send_recv)

#endif /* _UAPI_LINUX_BUS1_H */
