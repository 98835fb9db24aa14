// SPDX-License-Identifier: GPL-2.0-only
/*
 * Files in messages: which may travel, and that none is ever left behind.
 */
#include "bus1_msg.h"
#include <linux/memfd.h>
#include <sys/epoll.h>
#include <sys/socket.h>

FIXTURE(files) {
	struct net net;
	struct net_state before;
	int n_fds;
};

FIXTURE_SETUP(files)
{
	NET_INIT(&self->net);
	self->before = net_state(&self->net);
	self->n_fds = count_fds();
}

FIXTURE_TEARDOWN(files)
{
	net_deinit(&self->net);
}

static int send_files(struct net *net, const int *fds, size_t n)
{
	return msg_send(net->a.fd, .dst = &net->ab, .n_dst = 1, .fds = fds,
			.n_fds = n);
}

#define RECV_FILES(_peer) RECV_FLAGS(_peer, BUS1_RECV_FLAG_INSTALL_FDS)

/* Sends one file to b, and returns what b installs. */
static int pass(struct __test_metadata *_metadata, struct net *net, int fd)
{
	struct bus1_cmd_recv r;
	int got;

	ASSERT_EQ(0, send_files(net, &fd, 1));
	r = RECV_FILES(&net->b);
	ASSERT_EQ(1, r.msg.n_fds);
	got = recv_fd(&net->b, &r, 0);
	ASSERT_LE(0, got);
	EXPECT_NE(fd, got);
	EXPECT_EQ(0, bus1_slice_release(net->b.fd, r.msg.offset));
	return got;
}

static void expect_refused(struct __test_metadata *_metadata, struct net *net,
			   struct net_state *before, int fd, int error)
{
	const int fds[] = { STDERR_FILENO, fd, STDERR_FILENO };

	EXPECT_EQ(error, send_files(net, &fd, 1));
	EXPECT_EQ(error, send_files(net, fds, 3));
	EXPECT_SAME(net, before);
}

#define EXPECT_REFUSED(_fd, _error)					\
	expect_refused(_metadata, &self->net, &self->before, _fd, _error)

TEST_F(files, negative_descriptors_are_ebadf)
{
	const int fds[] = { -1, -2, INT_MIN, -100 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fds); i++) {
		EXPECT_REFUSED(fds[i], -EBADF);
	}
}

TEST_F(files, closed_descriptors_are_ebadf)
{
	int fd = dup(STDERR_FILENO);

	ASSERT_LE(0, fd);
	close(fd);
	EXPECT_REFUSED(fd, -EBADF);
	EXPECT_REFUSED(INT_MAX, -EBADF);
	EXPECT_REFUSED(1 << 20, -EBADF);
}

TEST_F(files, peers_are_eopnotsupp)
{
	struct peer other;

	PEER_OPEN(&other);
	EXPECT_REFUSED(other.fd, -EOPNOTSUPP);
	ASSERT_EQ(0, bus1_disconnect(other.fd));
	EXPECT_REFUSED(other.fd, -EOPNOTSUPP);
	peer_close(&other);
}

TEST_F(files, sender_and_receiver_are_eopnotsupp)
{
	EXPECT_REFUSED(self->net.a.fd, -EOPNOTSUPP);
	EXPECT_REFUSED(self->net.b.fd, -EOPNOTSUPP);
}

TEST_F(files, unix_sockets_are_eopnotsupp)
{
	const int types[] = { SOCK_STREAM, SOCK_DGRAM, SOCK_SEQPACKET };
	int fds[2];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(types); i++) {
		ASSERT_EQ(0, socketpair(AF_UNIX, types[i], 0, fds));
		EXPECT_REFUSED(fds[0], -EOPNOTSUPP);
		close(fds[0]);
		close(fds[1]);
	}
	fds[0] = socket(AF_UNIX, SOCK_STREAM, 0);
	ASSERT_LE(0, fds[0]);
	EXPECT_REFUSED(fds[0], -EOPNOTSUPP);
}

TEST_F(files, io_uring_is_eopnotsupp)
{
#ifdef SYS_io_uring_setup
	/* struct io_uring_params, all of it zero */
	__u32 params[30] = {};
	int fd = syscall(SYS_io_uring_setup, 1, params);

	if (fd < 0)
		SKIP(return, "no io_uring");
	EXPECT_REFUSED(fd, -EOPNOTSUPP);
#else
	SKIP(return, "no io_uring");
#endif
}

TEST_F(files, refused_files_keep_no_reference_to_the_others)
{
	int fds[3];

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	fds[2] = self->net.b.fd;
	EXPECT_EQ(-EOPNOTSUPP, send_files(&self->net, &fds[1], 2));
	close(fds[1]);
	EXPECT_TRUE(pipe_wait_eof(fds[0]));
}

TEST_F(files, o_path_files_pass)
{
	int fd = open("/proc", O_PATH | O_CLOEXEC), got;

	ASSERT_LE(0, fd);
	got = pass(_metadata, &self->net, fd);
	EXPECT_TRUE(same_file(fd, got));
	EXPECT_EQ(O_PATH, fcntl(got, F_GETFL) & O_PATH);
}

TEST_F(files, o_path_of_the_device_passes)
{
	/* It cannot make a cycle: there is no peer behind it. */
	int fd = open(BUS1_PATH, O_PATH | O_CLOEXEC), got;

	ASSERT_LE(0, fd);
	got = pass(_metadata, &self->net, fd);
	EXPECT_TRUE(same_file(fd, got));
}

TEST_F(files, memfd_passes_with_its_contents)
{
	int fd = syscall(SYS_memfd_create, "test", MFD_CLOEXEC), got;
	char text[6] = {};

	ASSERT_LE(0, fd);
	ASSERT_EQ(5, write(fd, "hello", 5));
	got = pass(_metadata, &self->net, fd);
	EXPECT_EQ(5, pread(got, text, 5, 0));
	EXPECT_STREQ("hello", text);
	/* It is the same open file: the position is shared. */
	ASSERT_EQ(1, lseek(got, 1, SEEK_SET));
	EXPECT_EQ(1, lseek(fd, 0, SEEK_CUR));
}

TEST_F(files, pipe_works_after_the_sender_closed_it)
{
	int fds[2], got;
	char c = 0;

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	got = pass(_metadata, &self->net, fds[1]);
	close(fds[1]);
	EXPECT_EQ(1, write(got, "x", 1));
	EXPECT_EQ(1, read(fds[0], &c, 1));
	EXPECT_EQ('x', c);
	close(got);
	EXPECT_TRUE(pipe_wait_eof(fds[0]));
}

TEST_F(files, eventfd_and_epoll_pass)
{
	int event = event_new(), epoll = epoll_create1(EPOLL_CLOEXEC), got;

	ASSERT_LE(0, event);
	ASSERT_LE(0, epoll);
	got = pass(_metadata, &self->net, event);
	event_post(got);
	event_wait(event);
	got = pass(_metadata, &self->net, epoll);
	EXPECT_EQ(0, epoll_wait(got, &(struct epoll_event){}, 1, 0));
}

TEST_F(files, read_only_files_stay_read_only)
{
	int fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
	int got = pass(_metadata, &self->net, fd);

	EXPECT_EQ(O_RDONLY, fcntl(got, F_GETFL) & O_ACCMODE);
	EXPECT_EQ(-1, write(got, "x", 1));
}

TEST_F(files, files_may_repeat)
{
	const int fds[] = { 2, 2, 1, 2 };
	struct bus1_cmd_recv r;
	int i, j;

	ASSERT_EQ(0, send_files(&self->net, fds, 4));
	r = RECV_FILES(&self->net.b);
	ASSERT_EQ(4, r.msg.n_fds);
	for (i = 0; i < 4; i++) {
		EXPECT_TRUE(same_file(fds[i], recv_fd(&self->net.b, &r, i)));
		for (j = 0; j < i; j++) {
			EXPECT_NE(recv_fd(&self->net.b, &r, j),
				  recv_fd(&self->net.b, &r, i));
		}
	}
}

TEST_F(files, as_many_as_can_be)
{
	int fds[BUS1_FD_MAX], pipes[2], i;
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, pipe2(pipes, O_CLOEXEC));
	for (i = 0; i < BUS1_FD_MAX; i++)
		fds[i] = pipes[1];
	ASSERT_EQ(0, send_files(&self->net, fds, BUS1_FD_MAX));
	close(pipes[1]);
	EXPECT_EQ(BUS1_FD_MAX, bus1_fdinfo(self->net.b.fd, "bus1-fds"));
	r = RECV_FILES(&self->net.b);
	ASSERT_EQ(BUS1_FD_MAX, r.msg.n_fds);
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-fds"));
	for (i = 0; i < BUS1_FD_MAX; i++) {
		EXPECT_TRUE(pipe_open(pipes[0]));
		EXPECT_EQ(0, close(recv_fd(&self->net.b, &r, i)));
	}
	EXPECT_TRUE(pipe_wait_eof(pipes[0]));
}

TEST_F(files, one_too_many_is_emsgsize)
{
	int fds[BUS1_FD_MAX + 1], i;

	for (i = 0; i <= BUS1_FD_MAX; i++)
		fds[i] = 2;
	EXPECT_EQ(-EMSGSIZE, send_files(&self->net, fds, BUS1_FD_MAX + 1));
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(files, installing_takes_the_lowest_free_descriptors)
{
	int low = dup(STDERR_FILENO);

	close(low);
	EXPECT_EQ(low, pass(_metadata, &self->net, STDERR_FILENO));
}

/*
 * Every way for a queue to end lets go of the files.
 */

FIXTURE(queued) {
	struct net net;
	int pipe;
};

FIXTURE_SETUP(queued)
{
	int fds[2];

	NET_INIT(&self->net);
	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(0, send_files(&self->net, &fds[1], 1));
	close(fds[1]);
	self->pipe = fds[0];
	peer_wait(self->net.b.fd);
	EXPECT_TRUE(pipe_open(self->pipe));
}

FIXTURE_TEARDOWN(queued)
{
	net_deinit(&self->net);
}

TEST_F(queued, close_of_the_receiver_drops_files)
{
	peer_close(&self->net.b);
	EXPECT_TRUE(pipe_wait_eof(self->pipe));
}

TEST_F(queued, disconnect_of_the_receiver_drops_files)
{
	ASSERT_EQ(0, bus1_disconnect(self->net.b.fd));
	EXPECT_TRUE(pipe_wait_eof(self->pipe));
}

TEST_F(queued, flush_of_the_receiver_drops_files)
{
	ASSERT_EQ(0, bus1_flush(self->net.b.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	EXPECT_TRUE(pipe_wait_eof(self->pipe));
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-fds"));
}

TEST_F(queued, release_by_the_owner_drops_files)
{
	const __u64 id = NODE_B;

	/* Nothing more of the node arrives, at the latest at the next RECV. */
	ASSERT_EQ(0, bus1_nodes_destroy(self->net.b.fd,
				BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES,
				&id, 1));
	EXPECT_EQ(0, bus1_drain_refs(self->net.b.fd, id));
	RECV_NONE(&self->net.b);
	EXPECT_TRUE(pipe_wait_eof(self->pipe));
	EXPECT_IDLE(&self->net.b);
}

TEST_F(queued, release_by_the_owner_drops_files_behind_other_messages)
{
	const __u64 id = NODE_B, other = 0x300, queued = 0x500;
	struct net *net = &self->net;
	__u64 h = TRANSFER(&net->b, other, &net->a), handle;
	struct bus1_cmd_recv r;
	int fds[2], i;

	/*
	 * Empty the queue, but keep what a knows; then messages for another
	 * node, and behind each of them one for the node that goes.
	 */
	r = RECV_FILES(&net->b);
	close(recv_fd(&net->b, &r, 0));
	EXPECT_EQ(0, bus1_slice_release(net->b.fd, r.msg.offset));
	EXPECT_TRUE(pipe_wait_eof(self->pipe));
	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, bus1_send_str(net->a.fd, h, "for another"));
		ASSERT_EQ(0, msg_send(net->a.fd, .dst = &net->ab, .n_dst = 1,
				      .fds = &fds[1], .n_fds = 1,
				      .handles = &queued, .n_handles = 1));
	}
	close(fds[1]);
	EXPECT_TRUE(pipe_open(fds[0]));
	ASSERT_EQ(0, bus1_nodes_destroy(net->b.fd,
				BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES,
				&id, 1));
	EXPECT_EQ(0, bus1_drain_refs(net->b.fd, id));

	/* One RECV, whatever it returns, and they are gone: the handle, too. */
	RECV_STR(&net->b, other, "for another");
	EXPECT_TRUE(pipe_wait_eof(fds[0]));
	RECV_DESTROY(&net->a, net->ab);
	RECV_RELEASE(&net->a, queued);
	EXPECT_EQ(0, bus1_fdinfo(net->b.fd, "bus1-fds"));
	EXPECT_EQ(2, bus1_fdinfo(net->b.fd, "bus1-slices"));
	EXPECT_EQ(2, bus1_fdinfo(net->b.fd, "bus1-queue"));

	/* poll says nothing of what is not there. */
	RECV_STR(&net->b, other, "for another");
	RECV_STR(&net->b, other, "for another");
	RECV_NONE(&net->b);
	handle = TRANSFER(&net->b, other, &net->a);
	EXPECT_EQ(h, handle);
	close(fds[0]);
}

TEST_F(queued, failed_recv_lets_go_of_files_too)
{
	const __u64 id = NODE_B, other = 0x300;
	struct net *net = &self->net;
	__u64 h = TRANSFER(&net->b, other, &net->a);
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, bus1_send_str(net->a.fd, h, "behind"));
	ASSERT_EQ(0, bus1_nodes_destroy(net->b.fd,
				BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES,
				&id, 1));
	EXPECT_EQ(0, bus1_drain_refs(net->b.fd, id));
	bus1_recv_init(&r, 0);
	r.max_offset = 0;
	EXPECT_EQ(-ERANGE, bus1_ioctl(net->b.fd, BUS1_CMD_RECV, &r));
	EXPECT_TRUE(pipe_wait_eof(self->pipe));
	RECV_STR(&net->b, other, "behind");
	RECV_NONE(&net->b);
}

TEST_F(queued, close_of_the_sender_drops_nothing)
{
	struct bus1_cmd_recv r;

	peer_close(&self->net.a);
	EXPECT_TRUE(pipe_open(self->pipe));
	r = RECV_FILES(&self->net.b);
	ASSERT_EQ(1, r.msg.n_fds);
	EXPECT_EQ(1, write(recv_fd(&self->net.b, &r, 0), "x", 1));
}

TEST_F(queued, destruction_after_the_message_drops_nothing)
{
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd, NODE_B));
	r = RECV_FILES(&self->net.b);
	EXPECT_EQ(BUS1_MSG_DATA, r.msg.type);
	ASSERT_EQ(1, r.msg.n_fds);
	EXPECT_EQ(1, write(recv_fd(&self->net.b, &r, 0), "x", 1));
	RECV_DESTROY(&self->net.b, NODE_B);
}

TEST_F(queued, death_of_the_receiver_drops_files)
{
	int fds[2], event = event_new();
	__u64 own = 0x1000;
	pid_t pid;

	/* A process with a peer of its own, and a message in its queue. */
	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	pid = FORK();
	if (!pid) {
		struct peer peer;

		PEER_OPEN(&peer);
		ASSERT_EQ(0, msg_send(peer.fd, .dst = &own, .n_dst = 1,
				      .fds = &fds[1], .n_fds = 1));
		event_post(event);
		pause();
		_exit(1);
	}
	close(fds[1]);
	event_wait(event);
	EXPECT_TRUE(pipe_open(fds[0]));
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(SIGKILL, wait_status(pid));
	EXPECT_TRUE(pipe_wait_eof(fds[0]));
}

TEST_HARNESS_MAIN
