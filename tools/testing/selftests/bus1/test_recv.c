// SPDX-License-Identifier: GPL-2.0-only
/*
 * RECV and SLICE_RELEASE: what comes out, and that a failure loses nothing.
 */
#include "bus1_msg.h"

FIXTURE(recv) {
	struct net net;
	struct net_state before;
};

FIXTURE_SETUP(recv)
{
	NET_INIT(&self->net);
	self->before = net_state(&self->net);
}

FIXTURE_TEARDOWN(recv)
{
	net_deinit(&self->net);
}

static int recv_max(int fd, __u64 flags, __u64 max_offset,
		    struct bus1_cmd_recv *r)
{
	bus1_recv_init(r, flags);
	r->max_offset = max_offset;
	return bus1_ioctl(fd, BUS1_CMD_RECV, r);
}

TEST_F(recv, nothing_there_is_eagain)
{
	struct bus1_cmd_recv r;

	EXPECT_EQ(-EAGAIN, bus1_recv(self->net.b.fd, 0, &r));
	EXPECT_EQ(-EAGAIN, bus1_recv(self->net.b.fd,
				     BUS1_RECV_FLAG_INSTALL_FDS, &r));
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(recv, nonblock_can_be_switched_on_later)
{
	struct bus1_cmd_recv r;
	int flags = fcntl(self->net.b.fd, F_GETFL);

	ASSERT_EQ(0, fcntl(self->net.b.fd, F_SETFL, flags & ~O_NONBLOCK));
	ASSERT_EQ(0, fcntl(self->net.b.fd, F_SETFL, flags | O_NONBLOCK));
	EXPECT_EQ(-EAGAIN, bus1_recv(self->net.b.fd, 0, &r));
}

TEST_F(recv, unknown_flags_are_einval)
{
	struct bus1_cmd_recv r;
	int bit;

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	peer_wait(self->net.b.fd);
	self->before = net_state(&self->net);
	for (bit = 3; bit < 64; bit++) {
		EXPECT_EQ(-EINVAL, bus1_recv(self->net.b.fd, 1ULL << bit, &r));
	}
	EXPECT_SAME(&self->net, &self->before);
	RECV_STR(&self->net.b, NODE_B, "x");
}

TEST_F(recv, disconnected_peer_is_eshutdown)
{
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, bus1_disconnect(self->net.b.fd));
	EXPECT_EQ(-ESHUTDOWN, bus1_recv(self->net.b.fd, 0, &r));
	EXPECT_EQ(-ESHUTDOWN, bus1_recv(self->net.b.fd, BUS1_RECV_FLAG_SEED,
					&r));
	EXPECT_EQ(-ESHUTDOWN, bus1_slice_release(self->net.b.fd, 0));
}

TEST_F(recv, messages_come_in_the_order_they_were_sent)
{
	__u64 i;

	for (i = 0; i < 500; i++) {
		ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, &i,
					    sizeof(i)));
	}
	for (i = 0; i < 500; i++)
		RECV_DATA(&self->net.b, NODE_B, &i, sizeof(i));
	RECV_NONE(&self->net.b);
}

TEST_F(recv, slice_above_max_offset_is_erange_and_the_message_stays)
{
	struct bus1_cmd_recv r;
	int i;

	ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, "12345678",
				    8));
	peer_wait(self->net.b.fd);
	self->before = net_state(&self->net);
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(-ERANGE, recv_max(self->net.b.fd, 0, 0, &r));
		EXPECT_TRUE(bus1_recv_untouched(&r));
	}
	EXPECT_EQ(-ERANGE, recv_max(self->net.b.fd, 0, 7, &r));
	EXPECT_SAME(&self->net, &self->before);
	RECV_DATA(&self->net.b, NODE_B, "12345678", 8);
}

TEST_F(recv, slice_that_ends_at_max_offset_is_received)
{
	struct bus1_cmd_recv r;
	__u64 end;

	ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, "12345678",
				    8));
	r = RECV(&self->net.b);
	end = r.msg.offset + slice_size(&r);
	ASSERT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));
	/* the same again, at the same offset */
	ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, "12345678",
				    8));
	peer_wait(self->net.b.fd);
	EXPECT_EQ(-ERANGE, recv_max(self->net.b.fd, 0, end - 1, &r));
	EXPECT_EQ(0, recv_max(self->net.b.fd, 0, end, &r));
}

TEST_F(recv, erange_installs_nothing)
{
	const int fd = STDERR_FILENO;
	const __u64 id = 0x1000;
	struct bus1_cmd_recv r;
	int n;

	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = &self->net.ab, .n_dst = 1,
			      .handles = &id, .n_handles = 1, .fds = &fd,
			      .n_fds = 1));
	peer_wait(self->net.b.fd);
	self->before = net_state(&self->net);
	n = count_fds();
	EXPECT_EQ(-ERANGE, recv_max(self->net.b.fd, BUS1_RECV_FLAG_INSTALL_FDS,
				    0, &r));
	EXPECT_EQ(n, count_fds());
	EXPECT_SAME(&self->net, &self->before);
	r = RECV_FLAGS(&self->net.b, BUS1_RECV_FLAG_INSTALL_FDS);
	ASSERT_EQ(1, r.msg.n_handles);
	ASSERT_EQ(1, r.msg.n_fds);
	EXPECT_EQ(1, bus1_drain_refs(self->net.b.fd,
				     recv_handle(&self->net.b, &r, 0)));
}

TEST_F(recv, notifications_are_never_erange)
{
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd, NODE_B));
	peer_wait(self->net.a.fd);
	ASSERT_EQ(0, recv_max(self->net.a.fd, 0, 0, &r));
	EXPECT_EQ(BUS1_MSG_NODE_DESTROY, r.msg.type);
	EXPECT_EQ(self->net.ab, r.msg.destination);
	EXPECT_EQ(BUS1_OFFSET_INVALID, r.msg.offset);
	EXPECT_EQ(0, r.msg.n_bytes);
	EXPECT_EQ(0, r.msg.n_handles);
	EXPECT_EQ(0, r.msg.n_fds);
}

/* Sends and checks one message of this shape, under full slices of garbage. */
static void check_layout(struct __test_metadata *_metadata, struct net *net,
			 size_t n_bytes, size_t n_handles, size_t n_fds)
{
	__u64 ids[5] = { 0x1000, 0x1008, 0x1010, 0x1018, 0x1020 };
	int fds[5] = { 2, 2, 2, 2, 2 };
	struct iovec vec;
	struct bus1_cmd_recv r;
	__u8 data[64];
	size_t i;

	pattern_fill(data, n_bytes, n_bytes);
	vec = (struct iovec){ data, n_bytes };
	ASSERT_EQ(0, msg_send(net->a.fd, .dst = &net->ab, .n_dst = 1,
			      .vecs = &vec, .n_vecs = 1, .handles = ids,
			      .n_handles = n_handles, .fds = fds,
			      .n_fds = n_fds));
	r = RECV_FLAGS(&net->b, BUS1_RECV_FLAG_INSTALL_FDS);
	ASSERT_EQ(n_bytes, r.msg.n_bytes);
	ASSERT_EQ(n_handles, r.msg.n_handles);
	ASSERT_EQ(n_fds, r.msg.n_fds);
	EXPECT_EQ(0, r.msg.offset % 8);
	EXPECT_TRUE(pattern_check(slice_bytes(&net->b, &r), n_bytes, n_bytes));
	EXPECT_TRUE(slice_padded(&net->b, &r)) {
		TH_LOG("%zu bytes, %zu handles, %zu files", n_bytes, n_handles,
		       n_fds);
	}
	for (i = 0; i < n_handles; i++) {
		EXPECT_EQ(KERNEL_CHOSEN, recv_handle(&net->b, &r, i) & 7);
	}
	for (i = 0; i < n_fds; i++) {
		EXPECT_LT(2, recv_fd(&net->b, &r, i));
		EXPECT_TRUE(same_file(2, recv_fd(&net->b, &r, i)));
		EXPECT_EQ(0, close(recv_fd(&net->b, &r, i)));
	}
	EXPECT_EQ(0, bus1_slice_release(net->b.fd, r.msg.offset));
}

TEST_F(recv, slice_is_bytes_then_handles_then_files)
{
	size_t n_bytes, n_handles, n_fds;

	for (n_bytes = 0; n_bytes <= 17; n_bytes++)
		for (n_handles = 0; n_handles <= 3; n_handles++)
			for (n_fds = 0; n_fds <= 3; n_fds++)
				check_layout(_metadata, &self->net, n_bytes,
					     n_handles, n_fds);
}

TEST_F(recv, padding_is_zero_where_older_messages_were)
{
	__u8 *old = malloc(64 * 1024);
	struct bus1_cmd_recv r;
	size_t i;

	ASSERT_TRUE(old);
	memset(old, 0xff, 64 * 1024);
	for (i = 0; i < 50; i++) {
		ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, old,
					    64 * 1024));
		r = RECV(&self->net.b);
		ASSERT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));
		check_layout(_metadata, &self->net, i % 16 + 1, i % 4,
			     i % 3 + 1);
	}
	free(old);
}

TEST_F(recv, padding_is_zero_without_installed_files)
{
	const int fd = 2;
	struct iovec vec = { "x", 1 };
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = &self->net.ab, .n_dst = 1,
			      .vecs = &vec, .n_vecs = 1, .fds = &fd,
			      .n_fds = 1));
	r = RECV(&self->net.b);
	EXPECT_EQ(0, r.msg.n_fds);
	EXPECT_TRUE(slice_padded(&self->net.b, &r));
}

TEST_F(recv, handle_of_a_node_destroyed_before_is_invalid_and_free)
{
	const __u64 ids[] = { self->net.ac, 0x1000 };
	long long handles;
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, bus1_node_destroy(self->net.c.fd, NODE_C));
	handles = bus1_fdinfo(self->net.b.fd, "bus1-handles");
	ASSERT_EQ(0, bus1_send_handles(self->net.a.fd, self->net.ab, ids, 2));
	r = RECV(&self->net.b);
	ASSERT_EQ(2, r.msg.n_handles);
	EXPECT_EQ(BUS1_HANDLE_INVALID, recv_handle(&self->net.b, &r, 0));
	EXPECT_NE(BUS1_HANDLE_INVALID, recv_handle(&self->net.b, &r, 1));
	EXPECT_EQ(handles + 1, bus1_fdinfo(self->net.b.fd, "bus1-handles"));
	/* b never held it, so there is nothing to tell. */
	RECV_NONE(&self->net.b);
}

TEST_F(recv, handle_of_a_node_destroyed_later_is_valid_until_told)
{
	__u64 id;

	ASSERT_EQ(0, bus1_send_handles(self->net.a.fd, self->net.ab,
				       &self->net.ac, 1));
	ASSERT_EQ(0, bus1_node_destroy(self->net.c.fd, NODE_C));
	id = RECV_ONE_HANDLE(&self->net.b);
	EXPECT_NE(BUS1_HANDLE_INVALID, id);
	RECV_DESTROY(&self->net.b, id);
	EXPECT_EQ(-EHOSTUNREACH, bus1_send_str(self->net.b.fd, id, "x"));
	EXPECT_EQ(1, bus1_drain_refs(self->net.b.fd, id));
}

/* A message with everything, and what must not have moved. */
static void send_full(struct __test_metadata *_metadata, struct net *net)
{
	const __u64 ids[] = { 0x1000, net->ac };
	const int fds[] = { 2, 2 };
	struct iovec vec = { "hello", 5 };

	ASSERT_EQ(0, msg_send(net->a.fd, .dst = &net->ab, .n_dst = 1,
			      .vecs = &vec, .n_vecs = 1, .handles = ids,
			      .n_handles = 2, .fds = fds, .n_fds = 2));
	peer_wait(net->b.fd);
}

static void check_full(struct __test_metadata *_metadata, struct net *net)
{
	struct bus1_cmd_recv r;
	int i;

	r = RECV_FLAGS(&net->b, BUS1_RECV_FLAG_INSTALL_FDS);
	EXPECT_EQ(BUS1_MSG_DATA, r.msg.type);
	EXPECT_EQ(NODE_B, r.msg.destination);
	ASSERT_EQ(5, r.msg.n_bytes);
	EXPECT_EQ(0, memcmp(slice_bytes(&net->b, &r), "hello", 5));
	EXPECT_TRUE(slice_padded(&net->b, &r));
	ASSERT_EQ(2, r.msg.n_handles);
	ASSERT_EQ(2, r.msg.n_fds);
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(1, bus1_drain_refs(net->b.fd,
					     recv_handle(&net->b, &r, i)));
		EXPECT_EQ(0, close(recv_fd(&net->b, &r, i)));
	}
	RECV_NONE(&net->b);
}

TEST_F(recv, result_that_cannot_be_written_leaves_the_message)
{
	struct bus1_cmd_recv cmd, *r;
	int n, i;

	bus1_recv_init(&cmd, BUS1_RECV_FLAG_INSTALL_FDS);
	r = bad_readonly(&cmd, sizeof(cmd));
	ASSERT_TRUE(r);
	send_full(_metadata, &self->net);
	self->before = net_state(&self->net);
	n = count_fds();
	for (i = 0; i < 5; i++) {
		EXPECT_EQ(-EFAULT, bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV,
					      r));
		EXPECT_EQ(n, count_fds());
		EXPECT_SAME(&self->net, &self->before);
	}
	check_full(_metadata, &self->net);
}

TEST_F(recv, argument_that_cannot_be_read_leaves_the_message)
{
	send_full(_metadata, &self->net);
	self->before = net_state(&self->net);
	EXPECT_EQ(-EFAULT, bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV,
				      bad_none()));
	EXPECT_EQ(-EFAULT, bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV, NULL));
	EXPECT_SAME(&self->net, &self->before);
	check_full(_metadata, &self->net);
}

TEST_F(recv, argument_that_ends_half_way_leaves_the_message)
{
	struct bus1_cmd_recv *r;
	size_t n;

	send_full(_metadata, &self->net);
	self->before = net_state(&self->net);
	for (n = 1; n < sizeof(*r); n += 7) {
		r = bad_edge(n);
		ASSERT_TRUE(r);
		memset(r, 0xff, n);
		memset(r, 0, n < sizeof(r->flags) ? n : sizeof(r->flags));
		EXPECT_EQ(-EFAULT, bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV,
					      r));
	}
	EXPECT_SAME(&self->net, &self->before);
	check_full(_metadata, &self->net);
}

TEST_F(recv, notification_that_cannot_be_written_stays)
{
	struct bus1_cmd_recv cmd, *r;

	bus1_recv_init(&cmd, 0);
	r = bad_readonly(&cmd, sizeof(cmd));
	ASSERT_TRUE(r);
	ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd, NODE_B));
	peer_wait(self->net.a.fd);
	EXPECT_EQ(-EFAULT, bus1_ioctl(self->net.a.fd, BUS1_CMD_RECV, r));
	EXPECT_EQ(-EFAULT, bus1_ioctl(self->net.a.fd, BUS1_CMD_RECV, r));
	RECV_DESTROY(&self->net.a, self->net.ab);
	RECV_NONE(&self->net.a);
}

TEST_F(recv, release_that_cannot_be_written_stays)
{
	struct bus1_cmd_recv cmd, *r;

	bus1_recv_init(&cmd, 0);
	r = bad_readonly(&cmd, sizeof(cmd));
	ASSERT_TRUE(r);
	ASSERT_EQ(0, bus1_handle_release(self->net.a.fd, self->net.ab));
	peer_wait(self->net.b.fd);
	EXPECT_EQ(-EFAULT, bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV, r));
	RECV_RELEASE(&self->net.b, NODE_B);
	RECV_NONE(&self->net.b);
}

TEST_F(recv, installed_files_are_close_on_exec)
{
	const int fd = dup(STDERR_FILENO);
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, fcntl(fd, F_SETFD, 0));
	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = &self->net.ab, .n_dst = 1,
			      .fds = &fd, .n_fds = 1));
	r = RECV_FLAGS(&self->net.b, BUS1_RECV_FLAG_INSTALL_FDS);
	ASSERT_EQ(1, r.msg.n_fds);
	EXPECT_EQ(FD_CLOEXEC, fcntl(recv_fd(&self->net.b, &r, 0), F_GETFD));
	EXPECT_EQ(0, fcntl(fd, F_GETFD));
}

TEST_F(recv, no_free_descriptors_is_emfile_and_the_message_stays)
{
	const int fds[] = { 2, 2, 2, 2 };
	struct rlimit saved, few;
	struct bus1_cmd_recv r;
	int n, i, top;

	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = &self->net.ab, .n_dst = 1,
			      .fds = fds, .n_fds = 4));
	peer_wait(self->net.b.fd);
	self->before = net_state(&self->net);
	n = count_fds();
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &saved));
	/* Two descriptors are free below the limit, where four are needed. */
	for (top = 0, i = 0; i < 3; top++)
		if (fcntl(top, F_GETFD) < 0)
			i++;
	few = (struct rlimit){ top - 1, saved.rlim_max };
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &few));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(-EMFILE, bus1_recv(self->net.b.fd,
					     BUS1_RECV_FLAG_INSTALL_FDS, &r));
	}
	EXPECT_EQ(n, count_fds());
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &saved));
	EXPECT_SAME(&self->net, &self->before);
	r = RECV_FLAGS(&self->net.b, BUS1_RECV_FLAG_INSTALL_FDS);
	ASSERT_EQ(4, r.msg.n_fds);
	EXPECT_EQ(n + 4, count_fds());
	for (i = 0; i < 4; i++) {
		EXPECT_TRUE(same_file(2, recv_fd(&self->net.b, &r, i)));
	}
}

TEST_F(recv, without_install_the_files_are_dropped)
{
	struct bus1_cmd_recv r;
	int fds[2], n;

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = &self->net.ab, .n_dst = 1,
			      .fds = &fds[1], .n_fds = 1));
	close(fds[1]);
	peer_wait(self->net.b.fd);
	EXPECT_TRUE(pipe_open(fds[0]));
	n = count_fds();
	r = RECV(&self->net.b);
	EXPECT_EQ(0, r.msg.n_fds);
	EXPECT_EQ(n, count_fds());
	EXPECT_TRUE(pipe_wait_eof(fds[0]));
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-fds"));
}

TEST_F(recv, install_without_files_is_fine)
{
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	r = RECV_FLAGS(&self->net.b, BUS1_RECV_FLAG_INSTALL_FDS);
	EXPECT_EQ(0, r.msg.n_fds);
}

TEST_F(recv, continue_joins_the_messages_of_a_transaction_only)
{
	const __u64 dst[] = { 0x1000, 0x1008 };
	int i;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, bus1_send_to(self->net.a.fd, dst, 2, "x", 1, NULL,
					  0));
	}
	for (i = 0; i < 6; i++) {
		struct bus1_cmd_recv r = RECV(&self->net.a);

		EXPECT_EQ(i % 2 ? 0 : BUS1_MSG_FLAG_CONTINUE, r.msg.flags);
	}
	RECV_NONE(&self->net.a);
}

TEST_F(recv, continue_joins_notifications_of_a_transaction)
{
	const __u64 ids[] = { 0x1000, 0x1008 };
	struct bus1_cmd_recv r[2];
	__u64 b[2];

	NODE(&self->net.a, ids[0]);
	NODE(&self->net.a, ids[1]);
	b[0] = TRANSFER(&self->net.a, ids[0], &self->net.b);
	b[1] = TRANSFER(&self->net.a, ids[1], &self->net.b);
	ASSERT_EQ(0, bus1_nodes_destroy(self->net.a.fd, 0, ids, 2));
	r[0] = RECV(&self->net.b);
	r[1] = RECV(&self->net.b);
	EXPECT_EQ(BUS1_MSG_NODE_DESTROY, r[0].msg.type);
	EXPECT_EQ(BUS1_MSG_NODE_DESTROY, r[1].msg.type);
	EXPECT_EQ(BUS1_MSG_FLAG_CONTINUE, r[0].msg.flags);
	EXPECT_EQ(0, r[1].msg.flags);
	EXPECT_EQ(b[0] + b[1], r[0].msg.destination + r[1].msg.destination);
	RECV_NONE(&self->net.b);
}

TEST_F(recv, slice_released_twice_is_enxio)
{
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	r = RECV(&self->net.b);
	EXPECT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));
	EXPECT_EQ(-ENXIO, bus1_slice_release(self->net.b.fd, r.msg.offset));
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(recv, middle_of_a_slice_is_enxio)
{
	struct bus1_cmd_recv r = {};
	__u64 i;

	ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, &r, 64));
	r = RECV(&self->net.b);
	self->before = net_state(&self->net);
	for (i = 1; i <= 72; i++) {
		EXPECT_EQ(-ENXIO, bus1_slice_release(self->net.b.fd,
						     r.msg.offset + i));
	}
	EXPECT_SAME(&self->net, &self->before);
	EXPECT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));
}

TEST_F(recv, slice_of_a_queued_message_is_enxio)
{
	struct bus1_cmd_recv r;
	__u64 i;

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	peer_wait(self->net.b.fd);
	self->before = net_state(&self->net);
	for (i = 0; i < 128; i += 8) {
		EXPECT_EQ(-ENXIO, bus1_slice_release(self->net.b.fd, i));
	}
	EXPECT_SAME(&self->net, &self->before);
	r = RECV(&self->net.b);
	EXPECT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));
}

TEST_F(recv, slice_of_a_failed_recv_is_enxio)
{
	struct bus1_cmd_recv cmd, r, *bad;

	bus1_recv_init(&cmd, 0);
	bad = bad_readonly(&cmd, sizeof(cmd));
	ASSERT_TRUE(bad);
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	r = RECV(&self->net.b);
	ASSERT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));
	/* The next one gets the same offset, but is not received. */
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "y"));
	peer_wait(self->net.b.fd);
	EXPECT_EQ(-EFAULT, bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV, bad));
	EXPECT_EQ(-ENXIO, bus1_slice_release(self->net.b.fd, r.msg.offset));
	RECV_STR(&self->net.b, NODE_B, "y");
}

TEST_F(recv, offsets_that_never_were_are_enxio)
{
	const __u64 offsets[] = {
		0, 8, 4096, 1ULL << 31, 1ULL << 32, 1ULL << 63,
		BUS1_OFFSET_INVALID,
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		EXPECT_EQ(-ENXIO, bus1_slice_release(self->net.b.fd,
						     offsets[i]));
	}
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(recv, slices_survive_until_released)
{
	struct bus1_cmd_recv r[20];
	__u8 data[512];
	int i;

	for (i = 0; i < 20; i++) {
		pattern_fill(data, sizeof(data), i);
		ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, data,
					    sizeof(data)));
		r[i] = RECV(&self->net.b);
	}
	for (i = 0; i < 20; i++) {
		EXPECT_TRUE(pattern_check(slice_bytes(&self->net.b, &r[i]),
					  sizeof(data), i));
		EXPECT_EQ(0, bus1_slice_release(self->net.b.fd,
						r[i].msg.offset));
	}
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(recv, flush_releases_slices_and_empties_the_queue)
{
	struct bus1_cmd_recv r;
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	r = RECV(&self->net.b);
	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = &self->net.ab, .n_dst = 1,
			      .fds = &fds[1], .n_fds = 1));
	close(fds[1]);
	ASSERT_EQ(0, bus1_flush(self->net.b.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	EXPECT_EQ(-ENXIO, bus1_slice_release(self->net.b.fd, r.msg.offset));
	RECV_NONE(&self->net.b);
	EXPECT_TRUE(pipe_wait_eof(fds[0]));
	EXPECT_IDLE(&self->net.b);
	RECV_DESTROY(&self->net.a, self->net.ab);
}

/*
 * BUS1_RECV_FLAG_RELEASE
 */

static int recv_release(int fd, __u64 flags, __u64 offset,
			struct bus1_cmd_recv *r)
{
	bus1_recv_init(r, flags | BUS1_RECV_FLAG_RELEASE);
	r->msg.offset = offset;
	return bus1_ioctl(fd, BUS1_CMD_RECV, r);
}

/* Nothing was written but that the slice is released, or is not. */
static bool recv_only_offset(struct bus1_cmd_recv *r, __u64 offset)
{
	bool same = r->msg.offset == offset;

	r->msg.offset = SENTINEL;
	return same && bus1_recv_untouched(r);
}

/* A slice that b has received, and a message that is queued there. */
static __u64 t_slice_and_message(struct __test_metadata *_metadata,
				 struct net *net)
{
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, bus1_send_str(net->a.fd, net->ab, "one"));
	r = RECV(&net->b);
	ASSERT_EQ(0, bus1_send_str(net->a.fd, net->ab, "two"));
	peer_wait(net->b.fd);
	return r.msg.offset;
}

#define SLICE_AND_MESSAGE() t_slice_and_message(_metadata, &self->net)

TEST_F(recv, release_and_the_next_one)
{
	__u64 offset = SLICE_AND_MESSAGE();
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, recv_release(self->net.b.fd, 0, offset, &r));
	EXPECT_EQ(BUS1_MSG_DATA, r.msg.type);
	EXPECT_EQ(NODE_B, r.msg.destination);
	EXPECT_NE(offset, r.msg.offset);
	EXPECT_EQ(0, memcmp(slice_bytes(&self->net.b, &r), "two", 3));
	EXPECT_EQ(-ENXIO, bus1_slice_release(self->net.b.fd, offset));
	EXPECT_EQ(1, bus1_fdinfo(self->net.b.fd, "bus1-slices"));
	EXPECT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(recv, release_goes_on_with_what_was_returned)
{
	struct bus1_cmd_recv r;
	__u64 i, n;

	for (i = 0; i < 100; i++) {
		ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, &i,
					    sizeof(i)));
	}
	bus1_recv_init(&r, BUS1_RECV_FLAG_RELEASE);
	r.msg.offset = BUS1_OFFSET_INVALID;
	for (i = 0; i < 100; i++) {
		peer_wait(self->net.b.fd);
		ASSERT_EQ(0, bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV, &r));
		memcpy(&n, slice_bytes(&self->net.b, &r), sizeof(n));
		EXPECT_EQ(i, n);
	}
	EXPECT_EQ(-EAGAIN, bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV, &r));
	EXPECT_EQ(BUS1_OFFSET_INVALID, r.msg.offset);
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(recv, release_of_nothing_releases_nothing)
{
	__u64 offset = SLICE_AND_MESSAGE();
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, recv_release(self->net.b.fd, 0, BUS1_OFFSET_INVALID, &r));
	EXPECT_EQ(2, bus1_fdinfo(self->net.b.fd, "bus1-slices"));
	EXPECT_EQ(0, bus1_slice_release(self->net.b.fd, offset));
}

TEST_F(recv, release_of_no_slice_is_enxio_and_the_message_stays)
{
	__u64 offset = SLICE_AND_MESSAGE();
	/* 1: how programs find out whether there is such a flag */
	const __u64 offsets[] = { offset + 8, offset + 1, 1, 1ULL << 32,
				  1ULL << 63, BUS1_OFFSET_INVALID - 1 };
	struct bus1_cmd_recv r;
	size_t i;

	self->before = net_state(&self->net);
	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		EXPECT_EQ(-ENXIO, recv_release(self->net.b.fd, 0, offsets[i],
					       &r));
		EXPECT_TRUE(recv_only_offset(&r, offsets[i]));
	}
	EXPECT_SAME(&self->net, &self->before);
	RECV_STR(&self->net.b, NODE_B, "two");
}

TEST_F(recv, release_comes_first_if_nothing_is_there)
{
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	r = RECV(&self->net.b);
	EXPECT_EQ(-EAGAIN, recv_release(self->net.b.fd, 0, r.msg.offset, &r));
	EXPECT_TRUE(recv_only_offset(&r, BUS1_OFFSET_INVALID));
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(recv, release_comes_first_if_the_next_one_is_above_max_offset)
{
	__u64 offset = SLICE_AND_MESSAGE();
	struct bus1_cmd_recv r;

	bus1_recv_init(&r, BUS1_RECV_FLAG_RELEASE);
	r.msg.offset = offset;
	r.max_offset = 0;
	EXPECT_EQ(-ERANGE, bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV, &r));
	EXPECT_TRUE(recv_only_offset(&r, BUS1_OFFSET_INVALID));
	EXPECT_EQ(-ENXIO, bus1_slice_release(self->net.b.fd, offset));
	RECV_STR(&self->net.b, NODE_B, "two");
}

TEST_F(recv, release_that_cannot_be_told_is_efault_and_does_not_happen)
{
	__u64 offset = SLICE_AND_MESSAGE();
	struct bus1_cmd_recv cmd, *r;

	bus1_recv_init(&cmd, BUS1_RECV_FLAG_RELEASE);
	cmd.msg.offset = offset;
	r = bad_readonly(&cmd, sizeof(cmd));
	ASSERT_TRUE(r);
	self->before = net_state(&self->net);
	EXPECT_EQ(-EFAULT, bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV, r));
	EXPECT_EQ(offset, r->msg.offset);
	EXPECT_SAME(&self->net, &self->before);
	EXPECT_EQ(0, bus1_slice_release(self->net.b.fd, offset));
	RECV_STR(&self->net.b, NODE_B, "two");
}

/* The offset can be written, what comes behind it in the argument cannot. */
TEST_F(recv, release_is_still_told_if_the_message_cannot_be)
{
	__u8 *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct bus1_cmd_recv *r = (void *)(p + PAGE -
		offsetof(struct bus1_cmd_recv, msg.n_bytes));
	__u64 offset = SLICE_AND_MESSAGE();

	ASSERT_NE(MAP_FAILED, (void *)p);
	bus1_recv_init(r, BUS1_RECV_FLAG_RELEASE);
	r->msg.offset = offset;
	ASSERT_EQ(0, mprotect(p + PAGE, PAGE, PROT_READ));
	EXPECT_EQ(-EFAULT, bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV, r));
	EXPECT_EQ(BUS1_OFFSET_INVALID, r->msg.offset);
	EXPECT_EQ(-ENXIO, bus1_slice_release(self->net.b.fd, offset));
	RECV_STR(&self->net.b, NODE_B, "two");
}

TEST_F(recv, without_the_flag_the_offset_is_ignored)
{
	__u64 offset = SLICE_AND_MESSAGE();
	struct bus1_cmd_recv r;

	bus1_recv_init(&r, 0);
	r.msg.offset = offset;
	ASSERT_EQ(0, bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV, &r));
	EXPECT_EQ(2, bus1_fdinfo(self->net.b.fd, "bus1-slices"));
	EXPECT_EQ(0, bus1_slice_release(self->net.b.fd, offset));
}

TEST_HARNESS_MAIN
