// SPDX-License-Identifier: GPL-2.0-only
/*
 * Android's binder, by raw ioctls. One-way messages are one-way transactions; round
 * trips are transactions with a reply. What can wait for the next call is written
 * along with it, as programs that use binder do.
 */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <unistd.h>

#include <linux/android/binder.h>

#include "bench.h"

#define MAP_SIZE	(4UL << 20)	/* the most there is */
#define NODE		1
#define NODE_PASSED	2
enum { CODE_REGISTER = 1, CODE_LOOKUP, CODE_DATA };

/* What is to be written with the next call. */
struct pending {
	char data[1024];
	size_t n;
};

static struct pending pending[2];
static struct binder_transaction_data received[2];

static void put(struct pending *w, const void *data, size_t n)
{
	if (w->n + n > sizeof(w->data))
		row_fail("binder: too much to write");
	memcpy(w->data + w->n, data, n);
	w->n += n;
}

static void put_command(struct pending *w, uint32_t command, const void *data)
{
	put(w, &command, sizeof(command));
	put(w, data, _IOC_SIZE(command));
}

static void put_free(struct pending *w, struct binder_transaction_data *tr)
{
	if (tr->data.ptr.buffer)
		put_command(w, BC_FREE_BUFFER, &tr->data.ptr.buffer);
	tr->data.ptr.buffer = 0;
}

static void put_transaction(struct pending *w, uint32_t command, uint32_t handle,
			    uint32_t code, uint32_t flags, const void *data, size_t n,
			    const binder_size_t *objects, size_t n_objects)
{
	struct binder_transaction_data tr = {
		.target.handle = handle,
		.code = code,
		.flags = flags | TF_ACCEPT_FDS,
		.data_size = n,
		.offsets_size = n_objects * sizeof(*objects),
		.data.ptr.buffer = (uintptr_t)data,
		.data.ptr.offsets = (uintptr_t)objects,
	};

	put_command(w, command, &tr);
}

/*
 * Write what is pending, and read until there is a @wanted. What comes with a
 * transaction goes to @tr.
 */
static void talk(int fd, struct pending *w, uint32_t wanted,
		 struct binder_transaction_data *tr)
{
	struct binder_write_read call;
	bool found = false;
	char in[512], *p;
	uint32_t command;

	while (!found) {
		call = (struct binder_write_read){
			.write_size = w->n,
			.write_buffer = (uintptr_t)w->data,
			.read_size = sizeof(in),
			.read_buffer = (uintptr_t)in,
		};
		must(sys_ioctl(fd, BINDER_WRITE_READ, &call), "BINDER_WRITE_READ");
		w->n = 0;
		for (p = in; p < in + call.read_consumed; p += _IOC_SIZE(command)) {
			memcpy(&command, p, sizeof(command));
			p += sizeof(command);
			switch (command) {
			case BR_TRANSACTION:
			case BR_REPLY:
				memcpy(tr, p, sizeof(*tr));
				break;
			case BR_INCREFS:
				put_command(w, BC_INCREFS_DONE, p);
				break;
			case BR_ACQUIRE:
				put_command(w, BC_ACQUIRE_DONE, p);
				break;
			case BR_NOOP:
			case BR_TRANSACTION_COMPLETE:
			case BR_RELEASE:
			case BR_DECREFS:
				break;
			default:
				row_fail("binder: unexpected answer %#x", command);
			}
			found = found || command == wanted;
		}
	}
}

static void flush(int fd, struct pending *w)
{
	struct binder_write_read call = {
		.write_size = w->n,
		.write_buffer = (uintptr_t)w->data,
	};

	must(sys_ioctl(fd, BINDER_WRITE_READ, &call), "BINDER_WRITE_READ");
	w->n = 0;
}

static int binder_new(void)
{
	int fd;

	fd = sys3(SYS_open, (long)"/dev/binder", O_RDWR | O_CLOEXEC, 0);
	if (fd == -ENOENT)
		row_none("there is no /dev/binder");
	must(fd, "open /dev/binder");
	if (mmap(NULL, MAP_SIZE, PROT_READ, MAP_PRIVATE | MAP_NORESERVE, fd, 0) == MAP_FAILED)
		row_fail("cannot map /dev/binder");
	return fd;
}

/*
 * Who is to send needs a handle, and the only handle that one has is that to the
 * context manager: this one remembers one node, and hands it out.
 */
static void manage(int ready)
{
	struct flat_binder_object object = { .hdr.type = BINDER_TYPE_HANDLE };
	static const binder_size_t offset;
	struct binder_transaction_data tr = {};
	uint32_t enter = BC_ENTER_LOOPER;
	struct pending w = {};
	int fd = binder_new();

	must(sys_ioctl(fd, BINDER_SET_CONTEXT_MGR, NULL), "BINDER_SET_CONTEXT_MGR");
	must(write(ready, "", 1), "write");
	put(&w, &enter, sizeof(enter));
	for (;;) {
		talk(fd, &w, BR_TRANSACTION, &tr);
		if (tr.code == CODE_REGISTER) {
			const struct flat_binder_object *got;
			uint32_t handle;

			got = (const void *)(uintptr_t)tr.data.ptr.buffer;
			handle = got->handle;
			object.handle = handle;
			put_command(&w, BC_ACQUIRE, &handle);
			put_free(&w, &tr);
			put_transaction(&w, BC_REPLY, 0, 0, 0, NULL, 0, NULL, 0);
		} else {
			put_free(&w, &tr);
			put_transaction(&w, BC_REPLY, 0, 0, 0, &object, sizeof(object),
					&offset, 1);
		}
	}
}

static void open_channel(struct channel *c, unsigned int depth)
{
	int fds[2];
	char byte;

	(void)depth;
	must(pipe(fds), "pipe");
	c->helper = must(fork(), "fork");
	if (!c->helper) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		manage(fds[1]);
	}
	close(fds[1]);
	if (read(fds[0], &byte, 1) != 1)
		_exit(1);
	close(fds[0]);
}

static void attach(struct channel *c, int end)
{
	struct flat_binder_object object = {
		.hdr.type = BINDER_TYPE_BINDER,
		.flags = FLAT_BINDER_FLAG_ACCEPTS_FDS | 0x7f,
		.binder = NODE,
	};
	static const binder_size_t offset;
	struct binder_transaction_data tr = {};
	struct pending *w = &pending[end];
	uint32_t enter = BC_ENTER_LOOPER;
	uint32_t handle;
	int fd = binder_new();

	c->fd[end][0] = fd;
	w->n = 0;
	received[end] = tr;
	if (end == RECV_END) {
		put(w, &enter, sizeof(enter));
		put_transaction(w, BC_TRANSACTION, 0, CODE_REGISTER, 0, &object,
				sizeof(object), &offset, 1);
		talk(fd, w, BR_REPLY, &tr);
	} else {
		put_transaction(w, BC_TRANSACTION, 0, CODE_LOOKUP, 0, NULL, 0, NULL, 0);
		talk(fd, w, BR_REPLY, &tr);
		handle = ((const struct flat_binder_object *)
			  (uintptr_t)tr.data.ptr.buffer)->handle;
		c->id[end] = handle;
		put_command(w, BC_ACQUIRE, &handle);
	}
	put_free(w, &tr);
	flush(fd, w);
}

static void close_channel(struct channel *c)
{
	close(c->fd[0][0]);
	close(c->fd[1][0]);
	kill(c->helper, SIGKILL);
}

static void send_one(struct channel *c, int end)
{
	put_transaction(&pending[end], BC_TRANSACTION, c->id[end], CODE_DATA, TF_ONE_WAY,
			c->out[end], c->size, NULL, 0);
	talk(c->fd[end][0], &pending[end], BR_TRANSACTION_COMPLETE, NULL);
}

static const void *recv_one(struct channel *c, int end)
{
	struct binder_transaction_data *tr = &received[end];

	talk(c->fd[end][0], &pending[end], BR_TRANSACTION, tr);
	if (tr->data_size < c->size)
		row_fail("binder: not what was sent");
	return (const void *)(uintptr_t)tr->data.ptr.buffer;
}

static void release_one(struct channel *c, int end)
{
	put_free(&pending[end], &received[end]);
	/* Only half of the space is for one-way transactions. */
	if (c->size > MAP_SIZE / 16)
		flush(c->fd[end][0], &pending[end]);
}

static void call(struct channel *c)
{
	struct pending *w = &pending[SEND_END];

	put_free(w, &received[SEND_END]);
	put_transaction(w, BC_TRANSACTION, c->id[SEND_END], CODE_DATA, 0, c->out[SEND_END],
			c->size, NULL, 0);
	talk(c->fd[SEND_END][0], w, BR_REPLY, &received[SEND_END]);
	if (received[SEND_END].data_size != c->size)
		row_fail("binder: not what was answered");
}

static void serve(struct channel *c)
{
	struct pending *w = &pending[RECV_END];

	talk(c->fd[RECV_END][0], w, BR_TRANSACTION, &received[RECV_END]);
	put_free(w, &received[RECV_END]);
	put_transaction(w, BC_REPLY, 0, 0, 0, c->out[RECV_END], c->size, NULL, 0);
}

/* A payload with an object behind it. */
static const void *send_object(struct channel *c, const void *object, size_t n)
{
	static _Alignas(8) char data[256];
	binder_size_t offset = (c->size + 7) & ~7UL;

	memcpy(data, c->out[SEND_END], c->size);
	memcpy(data + offset, object, n);
	put_transaction(&pending[SEND_END], BC_TRANSACTION, c->id[SEND_END], CODE_DATA,
			TF_ONE_WAY, data, offset + n, &offset, 1);
	talk(c->fd[SEND_END][0], &pending[SEND_END], BR_TRANSACTION_COMPLETE, NULL);
	return (const char *)recv_one(c, RECV_END) + offset;
}

static void file(struct channel *c, int fd)
{
	const struct binder_fd_object object = { .hdr.type = BINDER_TYPE_FD, .fd = fd };
	const struct binder_fd_object *got = send_object(c, &object, sizeof(object));

	fd = got->fd;
	release_one(c, RECV_END);
	must(sys3(SYS_close, fd, 0, 0), "close");
}

static uint32_t pass(struct channel *c)
{
	const struct flat_binder_object object = {
		.hdr.type = BINDER_TYPE_BINDER,
		.binder = NODE_PASSED,
	};
	const struct flat_binder_object *got = send_object(c, &object, sizeof(object));
	uint32_t handle = got->handle;

	if (got->hdr.type != BINDER_TYPE_HANDLE)
		row_fail("binder: no handle");
	put_command(&pending[RECV_END], BC_ACQUIRE, &handle);
	release_one(c, RECV_END);
	return handle;
}

/* Somebody else holds the node, too: its owner is not told each time. */
static void handle_init(struct channel *c)
{
	pass(c);
}

static void handle(struct channel *c)
{
	uint32_t id = pass(c);

	put_command(&pending[RECV_END], BC_RELEASE, &id);
}

static void open_close(void)
{
	int fd = must(sys3(SYS_open, (long)"/dev/binder", O_RDWR | O_CLOEXEC, 0),
		      "open /dev/binder");

	must(sys3(SYS_close, fd, 0, 0), "close");
}

const struct transport binder_transport = {
	.name = "binder",
	.open = open_channel,
	.attach = attach,
	.close = close_channel,
	.send = send_one,
	.recv = recv_one,
	.release = release_one,
	.call = call,
	.serve = serve,
	.file = file,
	.handle_init = handle_init,
	.handle = handle,
	.open_close = open_close,
	.max = 1 << 20,
	/* Half of its memory is for one-way transactions. */
	.depth_max = 4096,
};
