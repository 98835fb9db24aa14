// SPDX-License-Identifier: GPL-2.0-only
/* Transports that are read from and written to: unix sockets, pipes, POSIX queues. */
#include <errno.h>
#include <fcntl.h>
#include <mqueue.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "bench.h"

/* Sockets: fd[end][0] is for both directions. */

static void sock_open(struct channel *c, int type, unsigned int depth)
{
	/* What a message takes in the kernel beyond its payload is counted. */
	int i, fds[2], size = (c->size + 4096) * (depth + 1) + (64 << 10);

	must(socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds), "socketpair");
	for (i = 0; i < 2; ++i) {
		c->fd[i][0] = fds[i];
		must(setsockopt(fds[i], SOL_SOCKET, SO_SNDBUFFORCE, &size, sizeof(size)),
		     "SO_SNDBUFFORCE");
	}
}

static void seqpacket_open(struct channel *c, unsigned int depth)
{
	sock_open(c, SOCK_SEQPACKET, depth);
}

static void stream_open(struct channel *c, unsigned int depth)
{
	sock_open(c, SOCK_STREAM, depth);
}

static void sock_close(struct channel *c)
{
	close(c->fd[0][0]);
	close(c->fd[1][0]);
}

static void sock_send(struct channel *c, int end)
{
	long r;

	r = sys6(SYS_sendto, c->fd[end][0], (long)c->out[end], c->size, 0, 0, 0);
	if (must(r, "send") != (long)c->size)
		row_fail("send: %ld bytes", r);
}

static const void *sock_recv(struct channel *c, int end)
{
	size_t n = 0;

	/* A stream may hand it out in pieces. */
	do {
		n += must(sys6(SYS_recvfrom, c->fd[end][0], (long)c->in[end] + n,
			       c->size - n, 0, 0, 0), "recv");
	} while (n < c->size);
	return c->in[end];
}

static void sock_file(struct channel *c, int fd)
{
	union {
		struct cmsghdr header;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec vec = { c->out[0], c->size };
	struct msghdr msg = {
		.msg_iov = &vec,
		.msg_iovlen = 1,
		.msg_control = &control,
		.msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	must(sys3(SYS_sendmsg, c->fd[0][0], (long)&msg, 0), "sendmsg");

	vec.iov_base = c->in[1];
	msg.msg_controllen = sizeof(control);
	must(sys3(SYS_recvmsg, c->fd[1][0], (long)&msg, MSG_CMSG_CLOEXEC), "recvmsg");
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS)
		row_fail("recvmsg: no file");
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	must(sys3(SYS_close, fd, 0, 0), "close");
}

static void sock_open_close(int type)
{
	int fds[2];

	must(sys6(SYS_socketpair, AF_UNIX, type | SOCK_CLOEXEC, 0, (long)fds, 0, 0),
	     "socketpair");
	must(sys3(SYS_close, fds[0], 0, 0), "close");
	must(sys3(SYS_close, fds[1], 0, 0), "close");
}

static void seqpacket_open_close(void)
{
	sock_open_close(SOCK_SEQPACKET);
}

static void stream_open_close(void)
{
	sock_open_close(SOCK_STREAM);
}

const struct transport seqpacket_transport = {
	.name = "seqpacket",
	.open = seqpacket_open,
	.close = sock_close,
	.send = sock_send,
	.recv = sock_recv,
	.file = sock_file,
	.open_close = seqpacket_open_close,
	.max = BUFFER_SIZE,
	.depth_max = 1 << 20,
};

const struct transport stream_transport = {
	.name = "stream",
	.open = stream_open,
	.close = sock_close,
	.send = sock_send,
	.recv = sock_recv,
	.file = sock_file,
	.open_close = stream_open_close,
	.max = BUFFER_SIZE,
	.depth_max = 1 << 20,
	.no_empty = true,
};

/* Pipes: fd[end][0] to read from, fd[end][1] to write to. */

static void pipe_open(struct channel *c, unsigned int depth)
{
	int i, fds[2];
	long size = c->size * (depth + 1) + 4096;

	for (i = 0; i < 2; ++i) {
		must(pipe2(fds, O_CLOEXEC), "pipe2");
		if (size > 65536)
			must(fcntl(fds[0], F_SETPIPE_SZ, size), "F_SETPIPE_SZ");
		c->fd[!i][0] = fds[0];
		c->fd[i][1] = fds[1];
	}
}

static void pipe_close(struct channel *c)
{
	int i;

	for (i = 0; i < 4; ++i)
		close(c->fd[i / 2][i % 2]);
}

static void pipe_send(struct channel *c, int end)
{
	long r;

	r = sys3(SYS_write, c->fd[end][1], (long)c->out[end], c->size);
	if (must(r, "write") != (long)c->size)
		row_fail("write: %ld bytes", r);
}

static const void *pipe_recv(struct channel *c, int end)
{
	size_t n = 0;

	do {
		n += must(sys3(SYS_read, c->fd[end][0], (long)c->in[end] + n,
			       c->size - n), "read");
	} while (n < c->size);
	return c->in[end];
}

static void pipe_open_close(void)
{
	int fds[2];

	must(sys3(SYS_pipe2, (long)fds, O_CLOEXEC, 0), "pipe2");
	must(sys3(SYS_close, fds[0], 0, 0), "close");
	must(sys3(SYS_close, fds[1], 0, 0), "close");
}

const struct transport pipe_transport = {
	.name = "pipe",
	.open = pipe_open,
	.close = pipe_close,
	.send = pipe_send,
	.recv = pipe_recv,
	.open_close = pipe_open_close,
	.max = BUFFER_SIZE,
	.depth_max = 1 << 20,
	.no_empty = true,
};

/* POSIX message queues, the same way. */

static int mqueue_new(size_t size, unsigned int depth)
{
	struct mq_attr attr = {
		.mq_maxmsg = depth + 1,
		.mq_msgsize = size ? size : 1,
	};
	char name[32];
	int fd;

	/* Others may be at the same */
	snprintf(name, sizeof(name), "bus1-bench-%d", getpid());
	fd = sys6(SYS_mq_open, (long)name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600,
		  (long)&attr, 0, 0);
	must(fd, "mq_open");
	must(sys3(SYS_mq_unlink, (long)name, 0, 0), "mq_unlink");
	return fd;
}

static void mqueue_open(struct channel *c, unsigned int depth)
{
	struct rlimit limit = { RLIM_INFINITY, RLIM_INFINITY };
	int i, fd;

	must(setrlimit(RLIMIT_MSGQUEUE, &limit), "RLIMIT_MSGQUEUE");
	for (i = 0; i < 2; ++i) {
		fd = mqueue_new(c->size, depth);
		c->fd[!i][0] = fd;
		c->fd[i][1] = fd;
	}
}

static void mqueue_close(struct channel *c)
{
	close(c->fd[0][0]);
	close(c->fd[1][0]);
}

static void mqueue_send(struct channel *c, int end)
{
	must(sys6(SYS_mq_timedsend, c->fd[end][1], (long)c->out[end], c->size, 0, 0, 0),
	     "mq_send");
}

static const void *mqueue_recv(struct channel *c, int end)
{
	long r;

	r = sys6(SYS_mq_timedreceive, c->fd[end][0], (long)c->in[end],
		 c->size ? c->size : 1, 0, 0, 0);
	if (must(r, "mq_receive") != (long)c->size)
		row_fail("mq_receive: %ld bytes", r);
	return c->in[end];
}

static void mqueue_open_close(void)
{
	must(sys3(SYS_close, mqueue_new(64, 10), 0, 0), "close");
}

const struct transport mqueue_transport = {
	.name = "mqueue",
	.open = mqueue_open,
	.close = mqueue_close,
	.send = mqueue_send,
	.recv = mqueue_recv,
	.open_close = mqueue_open_close,
	.max = BUFFER_SIZE,
	.depth_max = 65535,
};
