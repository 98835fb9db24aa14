// SPDX-License-Identifier: GPL-2.0-only
/*
 * The seed: a message that a peer pins for itself, or for who comes after.
 */
#include "bus1_msg.h"

#define SEED		BUS1_RECV_FLAG_SEED
#define SEED_FILES	(BUS1_RECV_FLAG_SEED | BUS1_RECV_FLAG_INSTALL_FDS)

FIXTURE(seed) {
	struct net net;
	struct peer *peer;
	struct net_state before;
};

FIXTURE_SETUP(seed)
{
	NET_INIT(&self->net);
	self->peer = &self->net.a;
	self->before = net_state(&self->net);
}

FIXTURE_TEARDOWN(seed)
{
	net_deinit(&self->net);
}

static int seed_send(int fd, const char *data, const __u64 *handles,
		     size_t n_handles, const int *fds, size_t n_fds)
{
	struct iovec vec = { (void *)data, strlen(data) };

	return msg_send(fd, .flags = BUS1_SEND_FLAG_SEED, .vecs = &vec,
			.n_vecs = 1, .handles = handles,
			.n_handles = n_handles, .fds = fds, .n_fds = n_fds);
}

/* Does the peer have this seed? Fetches and releases it. */
static bool seed_is(const struct peer *peer, const char *data)
{
	struct bus1_cmd_recv r;
	bool same;

	if (bus1_recv(peer->fd, SEED, &r))
		return false;
	same = r.msg.type == BUS1_MSG_DATA && !r.msg.flags &&
	       r.msg.destination == BUS1_HANDLE_INVALID &&
	       r.msg.n_bytes == strlen(data) &&
	       !memcmp(slice_bytes(peer, &r), data, strlen(data)) &&
	       slice_padded(peer, &r);
	return !bus1_slice_release(peer->fd, r.msg.offset) && same;
}

TEST_F(seed, nothing_there_is_eagain)
{
	struct bus1_cmd_recv r;

	EXPECT_EQ(-EAGAIN, bus1_recv(self->peer->fd, SEED, &r));
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(seed, queued_message_is_no_seed)
{
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, bus1_send_str(self->peer->fd, 0x1000, "x"));
	peer_wait(self->peer->fd);
	EXPECT_EQ(-EAGAIN, bus1_recv(self->peer->fd, SEED, &r));
	RECV_STR(self->peer, 0x1000, "x");
}

TEST_F(seed, destinations_are_einval)
{
	EXPECT_EQ(-EINVAL, msg_send(self->peer->fd,
				    .flags = BUS1_SEND_FLAG_SEED,
				    .dst = &self->net.ab, .n_dst = 1));
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(seed, continue_is_einval)
{
	EXPECT_EQ(-EINVAL, msg_send(self->peer->fd,
				    .flags = BUS1_SEND_FLAG_SEED |
					     BUS1_SEND_FLAG_CONTINUE));
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(seed, is_fetched_as_data_without_destination)
{
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, seed_send(self->peer->fd, "hello", NULL, 0, NULL, 0));
	/* It is no message in the queue. */
	RECV_NONE(self->peer);
	ASSERT_EQ(0, bus1_recv(self->peer->fd, SEED, &r));
	EXPECT_EQ(BUS1_MSG_DATA, r.msg.type);
	EXPECT_EQ(0, r.msg.flags);
	EXPECT_EQ(BUS1_HANDLE_INVALID, r.msg.destination);
	EXPECT_EQ(5, r.msg.n_bytes);
	EXPECT_EQ(0, r.msg.n_handles);
	EXPECT_EQ(0, r.msg.n_fds);
	EXPECT_EQ(0, memcmp(slice_bytes(self->peer, &r), "hello", 5));
	EXPECT_TRUE(slice_padded(self->peer, &r));
}

TEST_F(seed, stays_and_comes_in_a_fresh_slice_each_time)
{
	struct bus1_cmd_recv r[3];
	int i;

	ASSERT_EQ(0, seed_send(self->peer->fd, "hello", NULL, 0, NULL, 0));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, bus1_recv(self->peer->fd, SEED, &r[i]));
	}
	EXPECT_NE(r[0].msg.offset, r[1].msg.offset);
	EXPECT_NE(r[1].msg.offset, r[2].msg.offset);
	EXPECT_NE(r[0].msg.offset, r[2].msg.offset);
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(0, memcmp(slice_bytes(self->peer, &r[i]), "hello",
				    5));
		EXPECT_EQ(0, bus1_slice_release(self->peer->fd,
						r[i].msg.offset));
	}
	EXPECT_TRUE(seed_is(self->peer, "hello"));
}

TEST_F(seed, does_not_hold_up_messages)
{
	ASSERT_EQ(0, seed_send(self->peer->fd, "hello", NULL, 0, NULL, 0));
	ASSERT_EQ(0, bus1_send_str(self->peer->fd, 0x1000, "x"));
	EXPECT_TRUE(seed_is(self->peer, "hello"));
	RECV_STR(self->peer, 0x1000, "x");
	EXPECT_TRUE(seed_is(self->peer, "hello"));
}

TEST_F(seed, new_one_replaces_the_old)
{
	ASSERT_EQ(0, seed_send(self->peer->fd, "old", NULL, 0, NULL, 0));
	ASSERT_EQ(0, seed_send(self->peer->fd, "newer", NULL, 0, NULL, 0));
	EXPECT_TRUE(seed_is(self->peer, "newer"));
}

TEST_F(seed, failed_replacement_keeps_the_old)
{
	const __u64 unknown = 0xffff7;
	const int fd = -1;

	ASSERT_EQ(0, seed_send(self->peer->fd, "old", NULL, 0, NULL, 0));
	self->before = net_state(&self->net);
	EXPECT_EQ(-ENXIO, seed_send(self->peer->fd, "newer", &unknown, 1, NULL,
				    0));
	EXPECT_EQ(-EBADF, seed_send(self->peer->fd, "newer", NULL, 0, &fd, 1));
	EXPECT_SAME(&self->net, &self->before);
	EXPECT_TRUE(seed_is(self->peer, "old"));
}

TEST_F(seed, fault_keeps_the_old)
{
	struct iovec vec = { bad_none(), 10 };

	ASSERT_EQ(0, seed_send(self->peer->fd, "old", NULL, 0, NULL, 0));
	self->before = net_state(&self->net);
	EXPECT_EQ(-EFAULT, msg_send(self->peer->fd,
				    .flags = BUS1_SEND_FLAG_SEED,
				    .vecs = &vec, .n_vecs = 1));
	EXPECT_SAME(&self->net, &self->before);
	EXPECT_TRUE(seed_is(self->peer, "old"));
}

TEST_F(seed, replaced_one_lets_go_of_its_files)
{
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(0, seed_send(self->peer->fd, "old", NULL, 0, &fds[1], 1));
	close(fds[1]);
	EXPECT_TRUE(pipe_open(fds[0]));
	ASSERT_EQ(0, seed_send(self->peer->fd, "new", NULL, 0, NULL, 0));
	EXPECT_TRUE(pipe_wait_eof(fds[0]));
}

TEST_F(seed, replaced_one_lets_go_of_its_handles)
{
	ASSERT_EQ(0, seed_send(self->peer->fd, "old", &self->net.ac, 1, NULL,
			       0));
	EXPECT_EQ(1, bus1_drain_refs(self->peer->fd, self->net.ac));
	RECV_NONE(&self->net.c);
	ASSERT_EQ(0, seed_send(self->peer->fd, "new", NULL, 0, NULL, 0));
	RECV_RELEASE(&self->net.c, NODE_C);
}

TEST_F(seed, handles_count_each_time)
{
	const __u64 ids[] = { 0x1000, self->net.ac };
	struct bus1_cmd_recv r;
	int i;

	ASSERT_EQ(0, seed_send(self->peer->fd, "x", ids, 2, NULL, 0));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, bus1_recv(self->peer->fd, SEED, &r));
		ASSERT_EQ(2, r.msg.n_handles);
		EXPECT_EQ(ids[0], recv_handle(self->peer, &r, 0));
		EXPECT_EQ(ids[1], recv_handle(self->peer, &r, 1));
	}
	EXPECT_EQ(3, bus1_drain_refs(self->peer->fd, ids[0]));
	EXPECT_EQ(4, bus1_drain_refs(self->peer->fd, ids[1]));
}

TEST_F(seed, destroyed_nodes_come_as_invalid)
{
	const __u64 ids[] = { 0x1000, self->net.ac };
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, seed_send(self->peer->fd, "x", ids, 2, NULL, 0));
	ASSERT_EQ(0, bus1_node_destroy(self->net.c.fd, NODE_C));
	RECV_DESTROY(self->peer, self->net.ac);
	EXPECT_EQ(1, bus1_drain_refs(self->peer->fd, self->net.ac));
	ASSERT_EQ(0, bus1_recv(self->peer->fd, SEED, &r));
	ASSERT_EQ(2, r.msg.n_handles);
	EXPECT_EQ(ids[0], recv_handle(self->peer, &r, 0));
	EXPECT_EQ(BUS1_HANDLE_INVALID, recv_handle(self->peer, &r, 1));
}

TEST_F(seed, files_are_installed_anew_each_time)
{
	const int fd = STDERR_FILENO;
	struct bus1_cmd_recv r[2];
	int i, n = count_fds();

	ASSERT_EQ(0, seed_send(self->peer->fd, "x", NULL, 0, &fd, 1));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, bus1_recv(self->peer->fd, SEED_FILES, &r[i]));
		ASSERT_EQ(1, r[i].msg.n_fds);
		EXPECT_TRUE(same_file(fd, recv_fd(self->peer, &r[i], 0)));
		EXPECT_EQ(FD_CLOEXEC, fcntl(recv_fd(self->peer, &r[i], 0),
					    F_GETFD));
	}
	EXPECT_NE(recv_fd(self->peer, &r[0], 0), recv_fd(self->peer, &r[1], 0));
	EXPECT_EQ(n + 2, count_fds());
}

TEST_F(seed, keeps_its_files_without_install)
{
	struct bus1_cmd_recv r;
	int fds[2], n;

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(0, seed_send(self->peer->fd, "x", NULL, 0, &fds[1], 1));
	close(fds[1]);
	n = count_fds();
	ASSERT_EQ(0, bus1_recv(self->peer->fd, SEED, &r));
	EXPECT_EQ(0, r.msg.n_fds);
	EXPECT_EQ(n, count_fds());
	EXPECT_TRUE(pipe_open(fds[0]));
	ASSERT_EQ(0, bus1_recv(self->peer->fd, SEED_FILES, &r));
	ASSERT_EQ(1, r.msg.n_fds);
	EXPECT_EQ(1, write(recv_fd(self->peer, &r, 0), "y", 1));
}

TEST_F(seed, refuses_the_files_that_messages_refuse)
{
	EXPECT_EQ(-EOPNOTSUPP, seed_send(self->peer->fd, "x", NULL, 0,
					 &self->net.b.fd, 1));
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(seed, no_free_descriptors_is_emfile_and_it_stays)
{
	const int fds[] = { 2, 2 };
	struct rlimit saved, few;
	struct bus1_cmd_recv r;
	int n;

	ASSERT_EQ(0, seed_send(self->peer->fd, "x", NULL, 0, fds, 2));
	self->before = net_state(&self->net);
	n = count_fds();
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &saved));
	few = (struct rlimit){ 0, saved.rlim_max };
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &few));
	EXPECT_EQ(-EMFILE, bus1_recv(self->peer->fd, SEED_FILES, &r));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &saved));
	EXPECT_EQ(n, count_fds());
	EXPECT_SAME(&self->net, &self->before);
	ASSERT_EQ(0, bus1_recv(self->peer->fd, SEED_FILES, &r));
	EXPECT_EQ(2, r.msg.n_fds);
}

TEST_F(seed, slice_above_max_offset_is_erange)
{
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, seed_send(self->peer->fd, "hello", NULL, 0, NULL, 0));
	self->before = net_state(&self->net);
	bus1_recv_init(&r, SEED);
	r.max_offset = 0;
	EXPECT_EQ(-ERANGE, bus1_ioctl(self->peer->fd, BUS1_CMD_RECV, &r));
	EXPECT_TRUE(bus1_recv_untouched(&r));
	EXPECT_SAME(&self->net, &self->before);
	EXPECT_TRUE(seed_is(self->peer, "hello"));
}

TEST_F(seed, takes_the_place_of_a_slice_that_is_released)
{
	struct bus1_cmd_recv r;
	int i;

	ASSERT_EQ(0, seed_send(self->net.b.fd, "seed", NULL, 0, NULL, 0));
	bus1_recv_init(&r, BUS1_RECV_FLAG_SEED | BUS1_RECV_FLAG_RELEASE);
	r.msg.offset = BUS1_OFFSET_INVALID;
	/* There is room for one more. */
	ASSERT_EQ(0, set_limits(self->net.b.fd, 2, KEEP, KEEP, KEEP));
	for (i = 0; i < 5; i++) {
		ASSERT_EQ(0, bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV, &r));
		EXPECT_EQ(BUS1_HANDLE_INVALID, r.msg.destination);
	}
	EXPECT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));
}

TEST_F(seed, result_that_cannot_be_written_changes_nothing)
{
	const __u64 id = 0x1000;
	const int fd = 2;
	struct bus1_cmd_recv cmd, *r;
	int n, i;

	ASSERT_EQ(0, seed_send(self->peer->fd, "hello", &id, 1, &fd, 1));
	self->before = net_state(&self->net);
	bus1_recv_init(&cmd, SEED_FILES);
	r = bad_readonly(&cmd, sizeof(cmd));
	ASSERT_TRUE(r);
	n = count_fds();
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(-EFAULT, bus1_ioctl(self->peer->fd, BUS1_CMD_RECV,
					      r));
	}
	EXPECT_EQ(n, count_fds());
	EXPECT_SAME(&self->net, &self->before);
	EXPECT_EQ(0, bus1_drain_refs(self->peer->fd, id));
}

TEST_F(seed, is_charged_to_its_own_peer)
{
	const int fd = 2;
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, set_limits(self->peer->fd, 0, KEEP, KEEP, KEEP));
	self->before = net_state(&self->net);
	EXPECT_EQ(-EDQUOT, seed_send(self->peer->fd, "x", NULL, 0, NULL, 0));
	EXPECT_SAME(&self->net, &self->before);
	EXPECT_EQ(-EAGAIN, bus1_recv(self->peer->fd, SEED, &r));
	ASSERT_EQ(0, set_limits(self->peer->fd, 100, KEEP, KEEP, 0));
	self->before = net_state(&self->net);
	EXPECT_EQ(-EDQUOT, seed_send(self->peer->fd, "x", NULL, 0, &fd, 1));
	EXPECT_SAME(&self->net, &self->before);
	EXPECT_EQ(-EAGAIN, bus1_recv(self->peer->fd, SEED, &r));
	EXPECT_EQ(0, seed_send(self->peer->fd, "x", NULL, 0, NULL, 0));
}

TEST_F(seed, without_room_for_a_slice_is_edquot_and_it_stays)
{
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, seed_send(self->peer->fd, "hello", NULL, 0, NULL, 0));
	ASSERT_EQ(0, set_limits(self->peer->fd, 0, KEEP, KEEP, KEEP));
	self->before = net_state(&self->net);
	EXPECT_EQ(-EDQUOT, bus1_recv(self->peer->fd, SEED, &r));
	EXPECT_SAME(&self->net, &self->before);
	ASSERT_EQ(0, set_limits(self->peer->fd, 100, KEEP, KEEP, KEEP));
	EXPECT_TRUE(seed_is(self->peer, "hello"));
}

TEST_F(seed, everything_is_uncharged_in_the_end)
{
	const int fd = 2;
	int i;

	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, seed_send(self->peer->fd, "hello", &self->net.ab,
				       1, &fd, 1));
		EXPECT_TRUE(seed_is(self->peer, "hello"));
		EXPECT_EQ(0, bus1_handle_release(self->peer->fd,
						 self->net.ab));
	}
	ASSERT_EQ(0, bus1_flush(self->peer->fd,
				BUS1_PEER_RESET_FLAG_FLUSH_SEED));
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(seed, flush_seed_drops_it)
{
	struct bus1_cmd_recv r;
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(0, seed_send(self->peer->fd, "x", NULL, 0, &fds[1], 1));
	close(fds[1]);
	ASSERT_EQ(0, bus1_flush(self->peer->fd,
				BUS1_PEER_RESET_FLAG_FLUSH_SEED));
	EXPECT_EQ(-EAGAIN, bus1_recv(self->peer->fd, SEED, &r));
	EXPECT_TRUE(pipe_wait_eof(fds[0]));
	EXPECT_SAME(&self->net, &self->before);
	/* and once more, with none */
	EXPECT_EQ(0, bus1_flush(self->peer->fd,
				BUS1_PEER_RESET_FLAG_FLUSH_SEED));
}

TEST_F(seed, flush_seed_leaves_messages_and_slices)
{
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, bus1_send_str(self->peer->fd, 0x1000, "one"));
	r = RECV(self->peer);
	ASSERT_EQ(0, bus1_send_str(self->peer->fd, 0x1000, "two"));
	ASSERT_EQ(0, bus1_flush(self->peer->fd,
				BUS1_PEER_RESET_FLAG_FLUSH_SEED));
	RECV_STR(self->peer, 0x1000, "two");
	EXPECT_EQ(0, bus1_slice_release(self->peer->fd, r.msg.offset));
}

TEST_F(seed, flush_keeps_it_and_the_nodes_it_carries)
{
	const __u64 ids[] = { 0x1000, 0x1008 };
	struct bus1_cmd_recv r;
	__u64 kept, gone;

	ASSERT_EQ(0, bus1_nodes_create(self->peer->fd, ids, 2));
	kept = TRANSFER(self->peer, ids[0], &self->net.b);
	gone = TRANSFER(self->peer, ids[1], &self->net.b);
	ASSERT_EQ(0, seed_send(self->peer->fd, "x", ids, 1, NULL, 0));
	ASSERT_EQ(0, bus1_flush(self->peer->fd, BUS1_PEER_RESET_FLAG_FLUSH));
	/* b is told of the release of its own node, too: a held ab */
	do {
		r = RECV(&self->net.b);
	} while (r.msg.type == BUS1_MSG_NODE_RELEASE);
	EXPECT_EQ(BUS1_MSG_NODE_DESTROY, r.msg.type);
	EXPECT_EQ(gone, r.msg.destination);
	EXPECT_EQ(-EHOSTUNREACH, bus1_send_str(self->net.b.fd, gone, "x"));
	ASSERT_EQ(0, bus1_send_str(self->net.b.fd, kept, "still there"));
	RECV_STR(self->peer, ids[0], "still there");
	ASSERT_EQ(0, bus1_recv(self->peer->fd, SEED, &r));
	ASSERT_EQ(1, r.msg.n_handles);
	EXPECT_EQ(ids[0], recv_handle(self->peer, &r, 0));
}

TEST_F(seed, flush_keeps_the_handles_it_carries)
{
	struct bus1_cmd_recv r;
	__u64 id;

	ASSERT_EQ(0, seed_send(self->peer->fd, "x", &self->net.ac, 1, NULL,
			       0));
	ASSERT_EQ(0, bus1_flush(self->peer->fd, BUS1_PEER_RESET_FLAG_FLUSH));
	RECV_RELEASE(&self->net.b, NODE_B);
	RECV_NONE(&self->net.c);
	ASSERT_EQ(0, bus1_recv(self->peer->fd, SEED, &r));
	ASSERT_EQ(1, r.msg.n_handles);
	id = recv_handle(self->peer, &r, 0);
	ASSERT_EQ(0, bus1_send_str(self->peer->fd, id, "x"));
	RECV_STR(&self->net.c, NODE_C, "x");
	EXPECT_EQ(1, bus1_drain_refs(self->peer->fd, id));
}

TEST_F(seed, flush_of_both_leaves_nothing)
{
	const __u64 ids[] = { 0x1000, self->net.ac };
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, seed_send(self->peer->fd, "x", ids, 2, NULL, 0));
	ASSERT_EQ(0, bus1_flush(self->peer->fd,
				BUS1_PEER_RESET_FLAG_FLUSH |
				BUS1_PEER_RESET_FLAG_FLUSH_SEED));
	EXPECT_EQ(-EAGAIN, bus1_recv(self->peer->fd, SEED, &r));
	RECV_RELEASE(&self->net.c, NODE_C);
	EXPECT_IDLE(self->peer);
}

TEST_F(seed, dies_with_its_peer)
{
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(0, seed_send(self->net.b.fd, "x", NULL, 0, &fds[1], 1));
	close(fds[1]);
	peer_close(&self->net.b);
	EXPECT_TRUE(pipe_wait_eof(fds[0]));
}

TEST_F(seed, dies_with_disconnect)
{
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(0, seed_send(self->net.b.fd, "x", NULL, 0, &fds[1], 1));
	close(fds[1]);
	ASSERT_EQ(0, bus1_disconnect(self->net.b.fd));
	EXPECT_TRUE(pipe_wait_eof(fds[0]));
}

TEST_F(seed, restarted_service_fetches_it_again)
{
	const int fd = STDERR_FILENO;
	struct bus1_cmd_recv r;
	pid_t pid;
	int i;

	ASSERT_EQ(0, seed_send(self->peer->fd, "boot", &self->net.ac, 1, &fd,
			       1));
	for (i = 0; i < 3; i++) {
		pid = FORK();
		if (!pid) {
			ASSERT_EQ(0, bus1_recv(self->peer->fd, SEED_FILES, &r));
			ASSERT_EQ(1, r.msg.n_handles);
			ASSERT_EQ(1, r.msg.n_fds);
			EXPECT_TRUE(same_file(fd, recv_fd(self->peer, &r, 0)));
			ASSERT_EQ(0, bus1_send_str(self->peer->fd,
						   recv_handle(self->peer, &r,
							       0), "up"));
			_exit(0);
		}
		WAIT(pid);
		RECV_STR(&self->net.c, NODE_C, "up");
		ASSERT_EQ(0, bus1_flush(self->peer->fd,
					BUS1_PEER_RESET_FLAG_FLUSH));
	}
}

TEST_HARNESS_MAIN
