/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef BUS1_SAMPLE_H
#define BUS1_SAMPLE_H

/*
 * One function per bus1 command that the samples need. Each one fills in the
 * argument, calls ioctl() and ends the program if that fails, so that the
 * samples can show the idea alone. Real programs handle errors: bus1(7) lists
 * them.
 */

#include <err.h>
#include <fcntl.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/bus1.h>

/* How much of the pool is mapped. RECV is told, and delivers nothing beyond. */
#define PEER_POOL_SIZE	(1UL << 20)

/* An open file of /dev/bus1, and the memory that its messages arrive in. */
struct peer {
	int fd;
	const char *pool;
};

static inline void peer_open(struct peer *p)
{
	p->fd = open("/dev/bus1", O_RDWR | O_CLOEXEC);
	if (p->fd < 0)
		err(EXIT_FAILURE, "cannot open /dev/bus1 (modprobe bus1?)");

	p->pool = mmap(NULL, PEER_POOL_SIZE, PROT_READ, MAP_SHARED, p->fd, 0);
	if (p->pool == MAP_FAILED)
		err(EXIT_FAILURE, "cannot map the pool");
}

static inline void peer_close(struct peer *p)
{
	munmap((void *)p->pool, PEER_POOL_SIZE);
	close(p->fd);
}

/*
 * Give the handle @id of @from to the peer @to, and return its ID there. If
 * @id is not in use yet, this creates the node.
 */
static inline uint64_t peer_transfer(struct peer *from, uint64_t id,
				     struct peer *to)
{
	struct bus1_cmd_handle_transfer cmd = {
		.src_handle = id,
		.dst_fd = to->fd,
		.dst_handle = BUS1_HANDLE_INVALID,
	};

	if (ioctl(from->fd, BUS1_CMD_HANDLE_TRANSFER, &cmd) < 0)
		err(EXIT_FAILURE, "HANDLE_TRANSFER");
	return cmd.dst_handle;
}

/* Send @n_bytes and @n_handles to @n_to destinations, as one transaction. */
static inline void peer_send(struct peer *p, const uint64_t *to, size_t n_to,
			     const void *data, size_t n_bytes,
			     const uint64_t *handles, size_t n_handles)
{
	struct iovec vec = { (void *)data, n_bytes };
	struct bus1_cmd_send cmd = {
		.ptr_destinations = (uintptr_t)to,
		.n_destinations = n_to,
		.ptr_vecs = (uintptr_t)&vec,
		.n_vecs = 1,
		.ptr_handles = (uintptr_t)handles,
		.n_handles = n_handles,
	};

	if (ioctl(p->fd, BUS1_CMD_SEND, &cmd) < 0)
		err(EXIT_FAILURE, "SEND");
}

/* Wait for the next message, and return what the kernel tells about it. */
static inline struct bus1_cmd_recv peer_recv(struct peer *p)
{
	struct bus1_cmd_recv cmd = { .max_offset = PEER_POOL_SIZE };

	if (ioctl(p->fd, BUS1_CMD_RECV, &cmd) < 0)
		err(EXIT_FAILURE, "RECV");
	return cmd;
}

/*
 * Send @n_bytes and @n_handles to one destination, and wait for the next message, as
 * peer_send() and peer_recv() do, in one system call.
 */
static inline struct bus1_cmd_recv peer_call(struct peer *p, uint64_t to,
					     const void *data, size_t n_bytes,
					     const uint64_t *handles,
					     size_t n_handles)
{
	struct iovec vec = { (void *)data, n_bytes };
	struct bus1_cmd_recv answer = { 0 };
	struct bus1_msg msg;
	struct bus1_cmd_send_recv cmd = {
		.flags = BUS1_SEND_RECV_FLAG_SEND,
		.ptr_messages = (uintptr_t)&msg,
		.n_messages = 1,
		.max_offset = PEER_POOL_SIZE,
		.timeout = (uint64_t)-1,
		.send = {
			.ptr_destinations = (uintptr_t)&to,
			.n_destinations = 1,
			.ptr_vecs = (uintptr_t)&vec,
			.n_vecs = 1,
			.ptr_handles = (uintptr_t)handles,
			.n_handles = n_handles,
		},
	};

	if (ioctl(p->fd, BUS1_CMD_SEND_RECV, &cmd) < 0)
		err(EXIT_FAILURE, "SEND_RECV");
	memcpy(&answer.msg, &msg, sizeof(msg));
	return answer;
}

/* The payload of a received message, in the pool. */
static inline const char *peer_data(struct peer *p,
				    const struct bus1_cmd_recv *cmd)
{
	return p->pool + cmd->msg.offset;
}

/* The handle IDs of a received message: behind the payload, 8-byte aligned. */
static inline const uint64_t *peer_handles(struct peer *p,
					   const struct bus1_cmd_recv *cmd)
{
	return (const void *)(p->pool + cmd->msg.offset +
			      ((cmd->msg.n_bytes + 7) & ~7ULL));
}

/* Give the slice of a received message back to the pool. */
static inline void peer_slice_release(struct peer *p, uint64_t offset)
{
	if (ioctl(p->fd, BUS1_CMD_SLICE_RELEASE, &offset) < 0)
		err(EXIT_FAILURE, "SLICE_RELEASE");
}

/* Drop one reference to a handle. */
static inline void peer_handle_release(struct peer *p, uint64_t id)
{
	if (ioctl(p->fd, BUS1_CMD_HANDLE_RELEASE, &id) < 0)
		err(EXIT_FAILURE, "HANDLE_RELEASE");
}

/* Destroy a node of the peer, and drop the peer's own reference with it. */
static inline void peer_node_destroy(struct peer *p, uint64_t id)
{
	struct bus1_cmd_nodes_destroy cmd = {
		.flags = BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES,
		.ptr_nodes = (uintptr_t)&id,
		.n_nodes = 1,
	};

	if (ioctl(p->fd, BUS1_CMD_NODES_DESTROY, &cmd) < 0)
		err(EXIT_FAILURE, "NODES_DESTROY");
}

/* Start or end an emphasis on the screen, if there is a person to see it. */
static inline const char *style(const char *code)
{
	const char *term = getenv("TERM");

	if (!isatty(STDOUT_FILENO) || getenv("NO_COLOR") || !term || !*term)
		return "";
	return code;
}

#define BOLD	style("\033[1m")
#define PLAIN	style("\033[0m")

#endif /* BUS1_SAMPLE_H */
