// SPDX-License-Identifier: GPL-2.0-only
/*
 * bus1: with one system call each to send, to receive and to release; and with as few as
 * there can be.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/bus1.h>

#include "bench.h"

#define POOL_SIZE	(64UL << 20)
#define NODE		0x100

int bus1_open(void)
{
	return must(sys3(SYS_open, (long)"/dev/bus1", O_RDWR | O_CLOEXEC | O_NONBLOCK, 0),
		    "open /dev/bus1");
}

/* Give handle @id of @from to @to, return its ID there. */
uint64_t bus1_give(int from, uint64_t id, int to)
{
	struct bus1_cmd_handle_transfer cmd = {
		.src_handle = id,
		.dst_fd = to,
		.dst_handle = BUS1_HANDLE_INVALID,
	};

	must(sys_ioctl(from, BUS1_CMD_HANDLE_TRANSFER, &cmd), "HANDLE_TRANSFER");
	return cmd.dst_handle;
}

void bus1_send(int fd, const uint64_t *to, size_t n_to, const void *data, size_t n,
	       const uint64_t *handle, const int *file)
{
	struct iovec vec = { (void *)data, n };
	struct bus1_cmd_send cmd = {
		.ptr_destinations = (uintptr_t)to,
		.n_destinations = n_to,
		.ptr_vecs = (uintptr_t)&vec,
		.n_vecs = 1,
		.ptr_handles = (uintptr_t)handle,
		.n_handles = !!handle,
		.ptr_fds = (uintptr_t)file,
		.n_fds = !!file,
	};

	must(sys_ioctl(fd, BUS1_CMD_SEND, &cmd), "SEND");
}

static void bus1_release(int fd, uint64_t offset)
{
	must(sys_ioctl(fd, BUS1_CMD_SLICE_RELEASE, &offset), "SLICE_RELEASE");
}

/* Take what is in the queue, and give it back. */
void bus1_drain(int fd)
{
	struct bus1_cmd_recv cmd = { .max_offset = BUS1_OFFSET_INVALID };
	int r;

	for (;;) {
		r = sys_ioctl(fd, BUS1_CMD_RECV, &cmd);
		if (r == -EAGAIN)
			return;
		must(r, "RECV");
		if (cmd.msg.offset != BUS1_OFFSET_INVALID)
			bus1_release(fd, cmd.msg.offset);
	}
}

void bus1_destroy(int fd, uint64_t id)
{
	struct bus1_cmd_nodes_destroy cmd = {
		.flags = BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES,
		.ptr_nodes = (uintptr_t)&id,
		.n_nodes = 1,
	};

	must(sys_ioctl(fd, BUS1_CMD_NODES_DESTROY, &cmd), "NODES_DESTROY");
}

/* Raise a limit of the module, never lower it. */
void bus1_raise(const char *parameter, unsigned long value)
{
	unsigned long old = 0;
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/module/bus1/parameters/%s", parameter);
	f = fopen(path, "r+");
	if (!f || fscanf(f, "%lu", &old) != 1)
		row_fail("cannot read %s", path);
	if (old < value) {
		rewind(f);
		fprintf(f, "%lu\n", value);
	}
	if (fclose(f))
		row_fail("cannot set %s", path);
}

const char *bus1_version(void)
{
	static char version[64];
	FILE *f;

	f = fopen("/sys/module/bus1/version", "r");
	if (!f || fscanf(f, "%63s", version) != 1)
		strcpy(version, "none");
	if (f)
		fclose(f);
	return version;
}

static void open_channel(struct channel *c, unsigned int depth)
{
	int end;

	if (depth > 4096)
		bus1_raise("user_slices_max", 8UL * depth);
	for (end = 0; end < 2; ++end) {
		c->fd[end][0] = bus1_open();
		must(fcntl(c->fd[end][0], F_SETFL, 0), "fcntl");
	}
	for (end = 0; end < 2; ++end)
		c->id[end] = bus1_give(c->fd[!end][0], NODE, c->fd[end][0]);
}

static void attach(struct channel *c, int end)
{
	c->map[end] = mmap(NULL, POOL_SIZE, PROT_READ, MAP_SHARED, c->fd[end][0], 0);
	if (c->map[end] == MAP_FAILED)
		row_fail("cannot map the pool");
}

static void close_channel(struct channel *c)
{
	int end;

	for (end = 0; end < 2; ++end) {
		if (c->map[end])
			munmap((void *)c->map[end], POOL_SIZE);
		close(c->fd[end][0]);
	}
}

static void send_one(struct channel *c, int end)
{
	bus1_send(c->fd[end][0], &c->id[end], 1, c->out[end], c->size, NULL, NULL);
}

static const void *recv_one(struct channel *c, int end)
{
	struct bus1_cmd_recv cmd = { .max_offset = POOL_SIZE };

	must(sys_ioctl(c->fd[end][0], BUS1_CMD_RECV, &cmd), "RECV");
	if (cmd.msg.type != BUS1_MSG_DATA || cmd.msg.n_bytes != c->size)
		row_fail("RECV: not what was sent");
	c->at[end] = cmd.msg.offset;
	return c->map[end] + cmd.msg.offset;
}

static void release_one(struct channel *c, int end)
{
	bus1_release(c->fd[end][0], c->at[end]);
}

/* Receive, and give back what was received before. */
static const void *recv_next(struct channel *c, int end)
{
	struct bus1_cmd_recv cmd = {
		.flags = BUS1_RECV_FLAG_RELEASE,
		.max_offset = POOL_SIZE,
		.msg.offset = c->at[end],
	};

	must(sys_ioctl(c->fd[end][0], BUS1_CMD_RECV, &cmd), "RECV");
	if (cmd.msg.type != BUS1_MSG_DATA || cmd.msg.n_bytes != c->size)
		row_fail("RECV: not what was sent");
	c->at[end] = cmd.msg.offset;
	return c->map[end] + cmd.msg.offset;
}

/* Send, give back what was received before, and receive. */
static void send_recv(struct channel *c, int end)
{
	struct iovec vec = { c->out[end], c->size };
	struct bus1_msg msg;
	struct bus1_cmd_send_recv cmd = {
		.flags = BUS1_SEND_RECV_FLAG_SEND,
		.ptr_slices = (uintptr_t)&c->at[end],
		.n_slices = c->at[end] != BUS1_OFFSET_INVALID,
		.ptr_messages = (uintptr_t)&msg,
		.n_messages = 1,
		.max_offset = POOL_SIZE,
		.timeout = UINT64_MAX,
		.send = {
			.ptr_destinations = (uintptr_t)&c->id[end],
			.n_destinations = 1,
			.ptr_vecs = (uintptr_t)&vec,
			.n_vecs = 1,
		},
	};

	must(sys_ioctl(c->fd[end][0], BUS1_CMD_SEND_RECV, &cmd), "SEND_RECV");
	if (msg.type != BUS1_MSG_DATA || msg.n_bytes != c->size)
		row_fail("SEND_RECV: not what was sent");
	c->at[end] = msg.offset;
}

static void open_fewer(struct channel *c, unsigned int depth)
{
	struct bus1_cmd_send_recv nothing = { .flags = 0 };

	open_channel(c, depth);
	if (sys_ioctl(c->fd[0][0], BUS1_CMD_SEND_RECV, &nothing) == -ENOTTY)
		row_none("the module has no SEND_RECV");
	c->at[SEND_END] = BUS1_OFFSET_INVALID;
	c->at[RECV_END] = BUS1_OFFSET_INVALID;
}

static void call_fewer(struct channel *c)
{
	send_recv(c, SEND_END);
}

/* The first request is waited for, each other one along with the answer before. */
static void serve_fewer(struct channel *c)
{
	if (c->at[RECV_END] == BUS1_OFFSET_INVALID)
		recv_next(c, RECV_END);
	else
		send_recv(c, RECV_END);
}

static void file(struct channel *c, int fd)
{
	struct bus1_cmd_recv cmd = {
		.flags = BUS1_RECV_FLAG_INSTALL_FDS,
		.max_offset = POOL_SIZE,
	};

	bus1_send(c->fd[0][0], &c->id[0], 1, c->out[0], c->size, NULL, &fd);
	must(sys_ioctl(c->fd[1][0], BUS1_CMD_RECV, &cmd), "RECV");
	if (cmd.msg.n_fds != 1)
		row_fail("RECV: no file");
	fd = *(const int *)(c->map[1] + cmd.msg.offset + ((cmd.msg.n_bytes + 7) & ~7UL));
	bus1_release(c->fd[1][0], cmd.msg.offset);
	must(sys3(SYS_close, fd, 0, 0), "close");
}

/* A third peer holds the node, too: its owner is not told each time. */
static void handle_init(struct channel *c)
{
	c->third = bus1_open();
	bus1_give(c->fd[0][0], NODE + 8, c->third);
}

static void handle(struct channel *c)
{
	struct bus1_cmd_recv cmd = { .max_offset = POOL_SIZE };
	uint64_t id = NODE + 8;

	bus1_send(c->fd[0][0], &c->id[0], 1, c->out[0], c->size, &id, NULL);
	must(sys_ioctl(c->fd[1][0], BUS1_CMD_RECV, &cmd), "RECV");
	if (cmd.msg.n_handles != 1)
		row_fail("RECV: no handle");
	id = *(const uint64_t *)(c->map[1] + cmd.msg.offset +
				 ((cmd.msg.n_bytes + 7) & ~7UL));
	bus1_release(c->fd[1][0], cmd.msg.offset);
	must(sys_ioctl(c->fd[1][0], BUS1_CMD_HANDLE_RELEASE, &id), "HANDLE_RELEASE");
}

static void open_close(void)
{
	must(sys3(SYS_close, bus1_open(), 0, 0), "close");
}

const struct transport bus1_transport = {
	.name = "bus1",
	.open = open_channel,
	.attach = attach,
	.close = close_channel,
	.send = send_one,
	.recv = recv_one,
	.release = release_one,
	.file = file,
	.handle_init = handle_init,
	.handle = handle,
	.open_close = open_close,
	.max = BUFFER_SIZE,
	.depth_max = 1 << 20,
};

const struct transport bus1_fewer_transport = {
	.name = "bus1",
	.open = open_fewer,
	.attach = attach,
	.close = close_channel,
	.send = send_one,
	.recv = recv_next,
	.call = call_fewer,
	.serve = serve_fewer,
	.max = BUFFER_SIZE,
	.depth_max = 1 << 20,
};
