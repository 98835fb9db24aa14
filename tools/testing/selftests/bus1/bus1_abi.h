/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The binary interface, asserted against literal numbers: a header that drifts
 * does not compile, neither in 64-bit nor in 32-bit programs.
 */
#ifndef __BUS1_ABI_H
#define __BUS1_ABI_H

#include <linux/bus1.h>
#include <stddef.h>

#define BUS1_ASSERT(_expr) _Static_assert(_expr, #_expr)
#define BUS1_ASSERT_FIELD(_type, _field, _offset, _size)		\
	BUS1_ASSERT(offsetof(_type, _field) == (_offset) &&		\
		    sizeof(((_type *)0)->_field) == (_size))

BUS1_ASSERT(BUS1_FD_MAX == 256);
BUS1_ASSERT(BUS1_IOCTL_MAGIC == 0x96);
BUS1_ASSERT(BUS1_HANDLE_INVALID == 0xffffffffffffffffULL);
BUS1_ASSERT(BUS1_OFFSET_INVALID == 0xffffffffffffffffULL);
BUS1_ASSERT(sizeof(BUS1_HANDLE_INVALID) == 8);
BUS1_ASSERT(sizeof(BUS1_OFFSET_INVALID) == 8);
BUS1_ASSERT(BUS1_HANDLE_FLAG_MANAGED == 1);
BUS1_ASSERT(BUS1_HANDLE_FLAG_REMOTE == 2);
BUS1_ASSERT(BUS1_PEER_RESET_FLAG_FLUSH == 1);
BUS1_ASSERT(BUS1_PEER_RESET_FLAG_FLUSH_SEED == 2);
BUS1_ASSERT(BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES == 1);
BUS1_ASSERT(BUS1_SEND_FLAG_CONTINUE == 1);
BUS1_ASSERT(BUS1_SEND_FLAG_SEED == 2);
BUS1_ASSERT(BUS1_RECV_FLAG_SEED == 1);
BUS1_ASSERT(BUS1_RECV_FLAG_INSTALL_FDS == 2);
BUS1_ASSERT(BUS1_RECV_FLAG_RELEASE == 4);
BUS1_ASSERT(BUS1_SEND_RECV_FLAG_SEND == 1);
BUS1_ASSERT(BUS1_SEND_RECV_FLAG_INSTALL_FDS == 2);
BUS1_ASSERT(BUS1_MSG_NONE == 0);
BUS1_ASSERT(BUS1_MSG_DATA == 1);
BUS1_ASSERT(BUS1_MSG_NODE_DESTROY == 2);
BUS1_ASSERT(BUS1_MSG_NODE_RELEASE == 3);
BUS1_ASSERT(BUS1_MSG_FLAG_CONTINUE == 1);

BUS1_ASSERT(sizeof(struct bus1_cmd_peer_reset) == 32);
BUS1_ASSERT(_Alignof(struct bus1_cmd_peer_reset) == 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_peer_reset, flags, 0, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_peer_reset, peer_flags, 8, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_peer_reset, max_slices, 16, 4);
BUS1_ASSERT_FIELD(struct bus1_cmd_peer_reset, max_handles, 20, 4);
BUS1_ASSERT_FIELD(struct bus1_cmd_peer_reset, max_inflight_bytes, 24, 4);
BUS1_ASSERT_FIELD(struct bus1_cmd_peer_reset, max_inflight_fds, 28, 4);

BUS1_ASSERT(sizeof(struct bus1_cmd_handle_transfer) == 32);
BUS1_ASSERT(_Alignof(struct bus1_cmd_handle_transfer) == 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_handle_transfer, flags, 0, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_handle_transfer, src_handle, 8, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_handle_transfer, dst_fd, 16, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_handle_transfer, dst_handle, 24, 8);

BUS1_ASSERT(sizeof(struct bus1_cmd_nodes_destroy) == 24);
BUS1_ASSERT(_Alignof(struct bus1_cmd_nodes_destroy) == 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_nodes_destroy, flags, 0, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_nodes_destroy, ptr_nodes, 8, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_nodes_destroy, n_nodes, 16, 8);

BUS1_ASSERT(sizeof(struct bus1_cmd_send) == 80);
BUS1_ASSERT(_Alignof(struct bus1_cmd_send) == 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send, flags, 0, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send, ptr_destinations, 8, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send, ptr_errors, 16, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send, n_destinations, 24, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send, ptr_vecs, 32, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send, n_vecs, 40, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send, ptr_handles, 48, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send, n_handles, 56, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send, ptr_fds, 64, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send, n_fds, 72, 8);

BUS1_ASSERT(sizeof(struct bus1_cmd_recv) == 72);
BUS1_ASSERT(_Alignof(struct bus1_cmd_recv) == 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_recv, flags, 0, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_recv, max_offset, 8, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_recv, msg, 16, 56);
BUS1_ASSERT(_Alignof(__typeof__(((struct bus1_cmd_recv *)0)->msg)) == 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_recv, msg.type, 16, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_recv, msg.flags, 24, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_recv, msg.destination, 32, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_recv, msg.offset, 40, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_recv, msg.n_bytes, 48, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_recv, msg.n_handles, 56, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_recv, msg.n_fds, 64, 8);

BUS1_ASSERT(sizeof(struct bus1_msg) == 56);
BUS1_ASSERT(_Alignof(struct bus1_msg) == 8);
BUS1_ASSERT_FIELD(struct bus1_msg, type, 0, 8);
BUS1_ASSERT_FIELD(struct bus1_msg, flags, 8, 8);
BUS1_ASSERT_FIELD(struct bus1_msg, destination, 16, 8);
BUS1_ASSERT_FIELD(struct bus1_msg, offset, 24, 8);
BUS1_ASSERT_FIELD(struct bus1_msg, n_bytes, 32, 8);
BUS1_ASSERT_FIELD(struct bus1_msg, n_handles, 40, 8);
BUS1_ASSERT_FIELD(struct bus1_msg, n_fds, 48, 8);

BUS1_ASSERT(sizeof(struct bus1_cmd_send_recv) == 144);
BUS1_ASSERT(_Alignof(struct bus1_cmd_send_recv) == 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send_recv, flags, 0, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send_recv, ptr_slices, 8, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send_recv, n_slices, 16, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send_recv, ptr_messages, 24, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send_recv, n_messages, 32, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send_recv, n_received, 40, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send_recv, max_offset, 48, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send_recv, timeout, 56, 8);
BUS1_ASSERT_FIELD(struct bus1_cmd_send_recv, send, 64, 80);

/* The encoding of _IOWR() on the architectures that use the generic one. */
#if defined(__x86_64__) || defined(__i386__) || defined(__aarch64__) ||	\
	defined(__arm__) || defined(__riscv) || defined(__s390__)
BUS1_ASSERT(BUS1_CMD_PEER_DISCONNECT == 0xc0089600);
BUS1_ASSERT(BUS1_CMD_PEER_QUERY == 0xc0209601);
BUS1_ASSERT(BUS1_CMD_PEER_RESET == 0xc0209602);
BUS1_ASSERT(BUS1_CMD_HANDLE_RELEASE == 0xc0089610);
BUS1_ASSERT(BUS1_CMD_HANDLE_TRANSFER == 0xc0209611);
BUS1_ASSERT(BUS1_CMD_NODES_DESTROY == 0xc0189620);
BUS1_ASSERT(BUS1_CMD_SLICE_RELEASE == 0xc0089630);
BUS1_ASSERT(BUS1_CMD_SEND == 0xc0509640);
BUS1_ASSERT(BUS1_CMD_RECV == 0xc0489650);
BUS1_ASSERT(BUS1_CMD_SEND_RECV == 0xc0909651);
#endif

#endif /* __BUS1_ABI_H */
