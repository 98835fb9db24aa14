/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * One function per command, 0 or -errno. No assertions, so they are fine in
 * threads and in helper processes. Outputs are filled with a sentinel before.
 */
#ifndef __BUS1_CMD_H
#define __BUS1_CMD_H

#include <errno.h>
#include <fcntl.h>
#include <linux/bus1.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include "bus1_abi.h"

#define BUS1_PATH	"/dev/bus1"
#define SENTINEL	0xa5a5a5a5a5a5a5a5ULL
#define SENTINEL32	((__s32)0xa5a5a5a5)

static inline __u64 ptr(const void *p)
{
	return (__u64)(uintptr_t)p;
}

static inline int bus1_ioctl(int fd, unsigned long cmd, void *arg)
{
	return ioctl(fd, cmd, arg) < 0 ? -errno : 0;
}

static inline int bus1_open(int flags)
{
	int fd = open(BUS1_PATH, O_RDWR | O_CLOEXEC | flags);

	return fd < 0 ? -errno : fd;
}

/* The system calls, as the C library's apply to all threads; 32-bit uids. */
#ifdef SYS_setresuid32
#define BUS1_SETRESUID	SYS_setresuid32
#define BUS1_SETRESGID	SYS_setresgid32
#define BUS1_SETGROUPS	SYS_setgroups32
#else
#define BUS1_SETRESUID	SYS_setresuid
#define BUS1_SETRESGID	SYS_setresgid
#define BUS1_SETGROUPS	SYS_setgroups
#endif

/* A peer that belongs to the user @uid: what counts is the real uid at open. */
static inline int bus1_open_as(uid_t uid, int flags)
{
	int fd, r;

	if (syscall(BUS1_SETRESUID, uid, -1, -1))
		return -errno;
	fd = bus1_open(flags);
	r = syscall(BUS1_SETRESUID, 0, -1, -1) ? -errno : 0;
	if (r && fd >= 0)
		close(fd);
	return r ?: fd;
}

static inline int bus1_disconnect(int fd)
{
	return bus1_ioctl(fd, BUS1_CMD_PEER_DISCONNECT, NULL);
}

static inline int bus1_query(int fd, struct bus1_cmd_peer_reset *query)
{
	memset(query, 0xa5, sizeof(*query));
	query->flags = 0;
	return bus1_ioctl(fd, BUS1_CMD_PEER_QUERY, query);
}

/* A RESET that changes nothing, to be filled in. */
#define RESET_KEEP(...)							\
	((struct bus1_cmd_peer_reset){					\
		.flags = 0, .peer_flags = -1,				\
		.max_slices = -1, .max_handles = -1,			\
		.max_inflight_bytes = -1, .max_inflight_fds = -1,	\
		##__VA_ARGS__ })

static inline int bus1_reset(int fd, struct bus1_cmd_peer_reset reset)
{
	return bus1_ioctl(fd, BUS1_CMD_PEER_RESET, &reset);
}

static inline int bus1_flush(int fd, __u64 flags)
{
	struct bus1_cmd_peer_reset reset = RESET_KEEP();

	reset.flags = flags;
	return bus1_reset(fd, reset);
}

static inline int bus1_handle_release(int fd, __u64 id)
{
	return bus1_ioctl(fd, BUS1_CMD_HANDLE_RELEASE, &id);
}

/* @dst is INVALID after every failure, as it was before. */
static inline int bus1_handle_transfer(int fd, __u64 src, __u64 dst_fd,
				       __u64 *dst)
{
	struct bus1_cmd_handle_transfer cmd = {
		.src_handle = src,
		.dst_fd = dst_fd,
		.dst_handle = BUS1_HANDLE_INVALID,
	};
	int r;

	r = bus1_ioctl(fd, BUS1_CMD_HANDLE_TRANSFER, &cmd);
	if (cmd.flags || cmd.src_handle != src || cmd.dst_fd != dst_fd)
		r = -EPROTO;
	*dst = cmd.dst_handle;
	return r;
}

static inline int bus1_nodes_destroy(int fd, __u64 flags, const __u64 *ids,
				     size_t n)
{
	struct bus1_cmd_nodes_destroy cmd = {
		.flags = flags,
		.ptr_nodes = ptr(ids),
		.n_nodes = n,
	};

	return bus1_ioctl(fd, BUS1_CMD_NODES_DESTROY, &cmd);
}

static inline int bus1_node_destroy(int fd, __u64 id)
{
	return bus1_nodes_destroy(fd, 0, &id, 1);
}

static inline int bus1_slice_release(int fd, __u64 offset)
{
	return bus1_ioctl(fd, BUS1_CMD_SLICE_RELEASE, &offset);
}

static inline int bus1_send(int fd, const struct bus1_cmd_send *send)
{
	struct bus1_cmd_send copy = *send;
	int r;

	r = bus1_ioctl(fd, BUS1_CMD_SEND, &copy);
	return memcmp(&copy, send, sizeof(copy)) ? -EPROTO : r;
}

static inline int bus1_send_to(int fd, const __u64 *dests, size_t n_dests,
			       const void *data, size_t n_bytes,
			       const __u64 *handles, size_t n_handles)
{
	struct iovec vec = { (void *)data, n_bytes };
	struct bus1_cmd_send send = {
		.ptr_destinations = ptr(dests),
		.n_destinations = n_dests,
		.ptr_vecs = ptr(&vec),
		.n_vecs = n_bytes ? 1 : 0,
		.ptr_handles = ptr(handles),
		.n_handles = n_handles,
	};

	return bus1_send(fd, &send);
}

static inline int bus1_send_data(int fd, __u64 dest, const void *data,
				 size_t n_bytes)
{
	return bus1_send_to(fd, &dest, 1, data, n_bytes, NULL, 0);
}

static inline int bus1_send_handles(int fd, __u64 dest, const __u64 *handles,
				    size_t n_handles)
{
	return bus1_send_to(fd, &dest, 1, NULL, 0, handles, n_handles);
}

/* Makes nodes of IDs not in use, and nothing else. */
static inline int bus1_nodes_create(int fd, const __u64 *ids, size_t n)
{
	return bus1_send_to(fd, NULL, 0, NULL, 0, ids, n);
}

static inline void bus1_recv_init(struct bus1_cmd_recv *recv, __u64 flags)
{
	memset(recv, 0xa5, sizeof(*recv));
	recv->flags = flags;
	recv->max_offset = BUS1_OFFSET_INVALID;
}

/* Was @recv left alone since bus1_recv_init()? */
static inline bool bus1_recv_untouched(const struct bus1_cmd_recv *recv)
{
	return recv->msg.type == SENTINEL && recv->msg.flags == SENTINEL &&
	       recv->msg.destination == SENTINEL &&
	       recv->msg.offset == SENTINEL && recv->msg.n_bytes == SENTINEL &&
	       recv->msg.n_handles == SENTINEL && recv->msg.n_fds == SENTINEL;
}

static inline int bus1_recv(int fd, __u64 flags, struct bus1_cmd_recv *recv)
{
	int r;

	bus1_recv_init(recv, flags);
	r = bus1_ioctl(fd, BUS1_CMD_RECV, recv);
	return r && !bus1_recv_untouched(recv) ? -EPROTO : r;
}

/* A SEND_RECV that does nothing, to be filled in. */
#define SEND_RECV(...)							\
	((struct bus1_cmd_send_recv){					\
		.n_received = SENTINEL, .timeout = -1,			\
		.max_offset = BUS1_OFFSET_INVALID, ##__VA_ARGS__ })

/* The only fields that the kernel writes are those that tell of progress. */
static inline int bus1_send_recv(int fd, struct bus1_cmd_send_recv *cmd)
{
	struct bus1_cmd_send_recv before = *cmd;
	int r;

	r = bus1_ioctl(fd, BUS1_CMD_SEND_RECV, cmd);
	before.flags &= ~BUS1_SEND_RECV_FLAG_SEND;
	before.flags |= cmd->flags & BUS1_SEND_RECV_FLAG_SEND;
	before.n_slices = cmd->n_slices;
	before.n_received = cmd->n_received;
	return memcmp(&before, cmd, sizeof(before)) ? -EPROTO : r;
}

/* As RECV tells the same. */
static inline struct bus1_cmd_recv msg_as_recv(const struct bus1_msg *msg)
{
	struct bus1_cmd_recv recv = {};

	memcpy(&recv.msg, msg, sizeof(*msg));
	return recv;
}

#endif /* __BUS1_CMD_H */
