// SPDX-License-Identifier: GPL-2.0-only
/*
 * SEND: what it refuses, in which order, and that nothing came of it.
 */
#include "bus1_msg.h"

FIXTURE(send) {
	struct net net;
	struct net_state before;
	__u64 unknown;
};

FIXTURE_SETUP(send)
{
	NET_INIT(&self->net);
	self->unknown = 0xfff4 | BUS1_HANDLE_FLAG_MANAGED |
			BUS1_HANDLE_FLAG_REMOTE;
	self->before = net_state(&self->net);
}

FIXTURE_TEARDOWN(send)
{
	net_deinit(&self->net);
}

#define EXPECT_NOTHING_SENT() EXPECT_SAME(&self->net, &self->before)

TEST_F(send, message_arrives_at_the_owner_under_its_own_id)
{
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "hello"));
	RECV_STR(&self->net.b, NODE_B, "hello");
	RECV_NONE(&self->net.b);
	RECV_NONE(&self->net.c);
	EXPECT_NOTHING_SENT();
}

TEST_F(send, unknown_managed_or_remote_destination_is_enxio)
{
	const __u64 ids[] = {
		1, 2, 3, 0x1001, 0x1002, self->unknown, BUS1_HANDLE_INVALID,
		1ULL << 63 | BUS1_HANDLE_FLAG_MANAGED,
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(ids); i++) {
		EXPECT_EQ(-ENXIO, bus1_send_str(self->net.a.fd, ids[i], "x"));
	}
	EXPECT_NOTHING_SENT();
}

TEST_F(send, handle_of_somebody_else_is_enxio)
{
	/* IDs are private to a peer: c never got the ID that a has. */
	EXPECT_EQ(-ENXIO, bus1_send_str(self->net.c.fd, self->net.ab, "x"));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, unknown_handle_in_the_message_is_enxio)
{
	const __u64 ids[] = { self->net.ab, self->unknown };

	EXPECT_EQ(-ENXIO, bus1_send_handles(self->net.a.fd, self->net.ab, ids,
					    2));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, invalid_handle_in_the_message_is_enxio)
{
	const __u64 id = BUS1_HANDLE_INVALID;

	EXPECT_EQ(-ENXIO, bus1_send_handles(self->net.a.fd, self->net.ab, &id,
					    1));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, unused_own_destination_becomes_a_node)
{
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, 0x1000, "me"));
	RECV_STR(&self->net.a, 0x1000, "me");
	ASSERT_EQ(0, bus1_node_destroy(self->net.a.fd, 0x1000));
	EXPECT_EQ(-ESTALE, bus1_node_destroy(self->net.a.fd, 0x1000));
}

TEST_F(send, failed_send_creates_no_node)
{
	const __u64 dst[] = { 0x1000, self->unknown };
	const __u64 id = 0x1008;

	EXPECT_EQ(-ENXIO, msg_send(self->net.a.fd, .dst = dst, .n_dst = 2,
				   .handles = &id, .n_handles = 1));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, no_destinations_creates_nodes_and_sends_nothing)
{
	const __u64 ids[] = { 0x1000, 0x1008 };
	long long handles = bus1_fdinfo(self->net.a.fd, "bus1-handles");

	ASSERT_EQ(0, msg_send(self->net.a.fd, .handles = ids, .n_handles = 2));
	EXPECT_EQ(handles + 2, bus1_fdinfo(self->net.a.fd, "bus1-handles"));
	RECV_NONE(&self->net.a);
	RECV_NONE(&self->net.b);
}

TEST_F(send, no_destinations_and_nothing_else_is_valid)
{
	EXPECT_EQ(0, msg_send(self->net.a.fd));
	EXPECT_EQ(0, msg_send(self->net.a.fd,
			      .flags = BUS1_SEND_FLAG_CONTINUE));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, no_destinations_still_checks_handles)
{
	const __u64 ids[] = { 0x1000, self->unknown };

	EXPECT_EQ(-ENXIO, msg_send(self->net.a.fd, .handles = ids,
				   .n_handles = 2));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, no_destinations_still_checks_files)
{
	const __u64 id = 0x1000;
	const int fd = -1;

	EXPECT_EQ(-EBADF, msg_send(self->net.a.fd, .handles = &id,
				   .n_handles = 1, .fds = &fd, .n_fds = 1));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, no_destinations_still_checks_arrays)
{
	EXPECT_EQ(-EFAULT, msg_send(self->net.a.fd, .vecs = bad_none(),
				    .n_vecs = 1));
	EXPECT_EQ(-EFAULT, msg_send(self->net.a.fd, .handles = bad_none(),
				    .n_handles = 1));
	EXPECT_EQ(-EFAULT, msg_send(self->net.a.fd, .fds = bad_none(),
				    .n_fds = 1));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, unknown_flags_are_einval)
{
	int bit;

	for (bit = 2; bit < 64; bit++) {
		EXPECT_EQ(-EINVAL, msg_send(self->net.a.fd,
					    .flags = 1ULL << bit,
					    .dst = &self->net.ab, .n_dst = 1));
	}
	EXPECT_NOTHING_SENT();
}

TEST_F(send, too_many_vectors_is_emsgsize)
{
	struct iovec *vecs = calloc(UIO_MAXIOV + 1, sizeof(*vecs));

	ASSERT_TRUE(vecs);
	EXPECT_EQ(-EMSGSIZE, msg_send(self->net.a.fd, .dst = &self->net.ab,
				      .n_dst = 1, .vecs = vecs,
				      .n_vecs = UIO_MAXIOV + 1));
	EXPECT_NOTHING_SENT();
	EXPECT_EQ(0, msg_send(self->net.a.fd, .dst = &self->net.ab, .n_dst = 1,
			      .vecs = vecs, .n_vecs = UIO_MAXIOV));
	free(vecs);
}

TEST_F(send, too_many_files_is_emsgsize)
{
	int fds[BUS1_FD_MAX + 1];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(fds); i++)
		fds[i] = STDERR_FILENO;
	EXPECT_EQ(-EMSGSIZE, msg_send(self->net.a.fd, .dst = &self->net.ab,
				      .n_dst = 1, .fds = fds,
				      .n_fds = ARRAY_SIZE(fds)));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, more_than_int_max_destinations_is_emsgsize)
{
	const __u64 counts[] = { 1ULL + INT_MAX, 1ULL << 40, 1ULL << 63,
				 (__u64)-1 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(counts); i++) {
		EXPECT_EQ(-EMSGSIZE, msg_send(self->net.a.fd,
					      .dst = &self->net.ab,
					      .n_dst = counts[i]));
	}
	EXPECT_NOTHING_SENT();
}

TEST_F(send, more_destinations_than_the_users_limit_is_einval)
{
	long long max = read_number(PARAMETERS "user_handles_max");
	__u64 *dst;
	__s64 i;

	ASSERT_LT(0, max);
	dst = malloc((max + 1) * sizeof(*dst));
	ASSERT_TRUE(dst);
	for (i = 0; i <= max; i++)
		dst[i] = 0x1000 + 8 * i;
	EXPECT_EQ(-EINVAL, msg_send(self->net.a.fd, .dst = dst,
				    .n_dst = max + 1));
	EXPECT_EQ(-EINVAL, msg_send(self->net.a.fd, .dst = dst,
				    .n_dst = INT_MAX));
	EXPECT_NOTHING_SENT();
	free(dst);
}

TEST_F(send, message_that_no_pool_can_hold_is_emsgsize)
{
	const __u64 counts[] = { 1ULL << 40, 1ULL << 32, 1ULL << 61,
				 1ULL << 63, (__u64)-1 };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(counts); i++) {
		EXPECT_EQ(-EMSGSIZE, msg_send(self->net.a.fd,
					      .dst = &self->net.ab, .n_dst = 1,
					      .handles = &self->net.ab,
					      .n_handles = counts[i]));
	}
	EXPECT_NOTHING_SENT();
}

TEST_F(send, payload_above_max_rw_count_is_emsgsize)
{
	/* Nothing is read from here: sizes are checked first. */
	struct iovec vecs[] = {
		{ (void *)BAD_PTR, 0x40000000UL },
		{ (void *)BAD_PTR, MAX_RW - 0x40000000UL + 1 },
	};

	EXPECT_EQ(-EMSGSIZE, msg_send(self->net.a.fd, .dst = &self->net.ab,
				      .n_dst = 1, .vecs = vecs, .n_vecs = 2));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, payload_of_one_huge_vector_is_emsgsize)
{
	const size_t sizes[] = { MAX_RW + 1, SIZE_MAX / 2, SIZE_MAX / 2 + 1,
				 SIZE_MAX };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		struct iovec vec = { (void *)BAD_PTR, sizes[i] };

		EXPECT_EQ(-EMSGSIZE, msg_send(self->net.a.fd,
					      .dst = &self->net.ab, .n_dst = 1,
					      .vecs = &vec, .n_vecs = 1)) {
			TH_LOG("size %#zx", sizes[i]);
		}
	}
	EXPECT_NOTHING_SENT();
}

TEST_F(send, payload_whose_sum_wraps_is_emsgsize)
{
	struct iovec vecs[3] = {};
	int i;

	for (i = 0; i < 3; i++) {
		vecs[i].iov_base = (void *)BAD_PTR;
		vecs[i].iov_len = SIZE_MAX / 3 + 1;
	}
	EXPECT_EQ(-EMSGSIZE, msg_send(self->net.a.fd, .dst = &self->net.ab,
				      .n_dst = 1, .vecs = vecs, .n_vecs = 3));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, payload_of_max_rw_count_is_a_matter_of_budgets)
{
	/* Low enough: it must not end above what user space can have */
	struct iovec vec = { (void *)0x10000UL, MAX_RW };

	EXPECT_EQ(-EDQUOT, msg_send(self->net.a.fd, .dst = &self->net.ab,
				    .n_dst = 1, .vecs = &vec, .n_vecs = 1));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, destination_listed_twice_is_enotuniq)
{
	const __u64 dst[] = { self->net.ab, self->net.ac, self->net.ab };

	EXPECT_EQ(-ENOTUNIQ, msg_send(self->net.a.fd, .dst = dst, .n_dst = 3));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, new_node_listed_twice_is_enotuniq)
{
	const __u64 dst[] = { 0x1000, 0x1000 };

	EXPECT_EQ(-ENOTUNIQ, msg_send(self->net.a.fd, .dst = dst, .n_dst = 2));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, destroyed_destination_is_ehostunreach)
{
	ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd, NODE_B));
	peer_wait(self->net.b.fd);
	peer_wait(self->net.a.fd);
	self->before = net_state(&self->net);
	EXPECT_EQ(-EHOSTUNREACH, bus1_send_str(self->net.a.fd, self->net.ab,
					       "x"));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, own_destroyed_destination_is_ehostunreach)
{
	ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd, NODE_B));
	peer_wait(self->net.a.fd);
	peer_wait(self->net.b.fd);
	self->before = net_state(&self->net);
	EXPECT_EQ(-EHOSTUNREACH, bus1_send_str(self->net.b.fd, NODE_B, "x"));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, disconnected_owner_is_ehostunreach)
{
	ASSERT_EQ(0, bus1_disconnect(self->net.b.fd));
	peer_wait(self->net.a.fd);
	self->before = net_state(&self->net);
	EXPECT_EQ(-EHOSTUNREACH, bus1_send_str(self->net.a.fd, self->net.ab,
					       "x"));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, closed_owner_is_ehostunreach)
{
	peer_close(&self->net.b);
	EXPECT_EQ(-EHOSTUNREACH, bus1_send_str(self->net.a.fd, self->net.ab,
					       "x"));
	RECV_DESTROY(&self->net.a, self->net.ab);
	EXPECT_EQ(-EHOSTUNREACH, bus1_send_str(self->net.a.fd, self->net.ab,
					       "x"));
}

TEST_F(send, disconnected_sender_is_eshutdown)
{
	ASSERT_EQ(0, bus1_disconnect(self->net.a.fd));
	peer_wait(self->net.a.fd);
	EXPECT_EQ(-ESHUTDOWN, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	EXPECT_EQ(-ESHUTDOWN, msg_send(self->net.a.fd));
	/* All that reaches the others is that the sender has let go of them. */
	RECV_RELEASE(&self->net.c, NODE_C);
	RECV_NONE(&self->net.c);
}

TEST_F(send, receiver_without_slices_is_edquot)
{
	ASSERT_EQ(0, set_limits(self->net.b.fd, 0, KEEP, KEEP, KEEP));
	self->before = net_state(&self->net);
	EXPECT_EQ(-EDQUOT, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, receiver_without_bytes_is_edquot)
{
	ASSERT_EQ(0, set_limits(self->net.b.fd, KEEP, KEEP, 0, KEEP));
	self->before = net_state(&self->net);
	EXPECT_EQ(-EDQUOT, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, receiver_without_handles_is_edquot)
{
	const __u64 id = 0x1000;

	ASSERT_EQ(0, set_limits(self->net.b.fd, KEEP, 0, KEEP, KEEP));
	self->before = net_state(&self->net);
	EXPECT_EQ(-EDQUOT, bus1_send_handles(self->net.a.fd, self->net.ab, &id,
					     1));
	EXPECT_NOTHING_SENT();
	EXPECT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
}

TEST_F(send, receiver_without_files_is_edquot)
{
	const int fd = STDERR_FILENO;

	ASSERT_EQ(0, set_limits(self->net.b.fd, KEEP, KEEP, KEEP, 0));
	self->before = net_state(&self->net);
	EXPECT_EQ(-EDQUOT, msg_send(self->net.a.fd, .dst = &self->net.ab,
				    .n_dst = 1, .fds = &fd, .n_fds = 1));
	EXPECT_NOTHING_SENT();
	EXPECT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
}

TEST_F(send, sender_without_handles_creates_no_node)
{
	ASSERT_EQ(0, set_limits(self->net.a.fd, KEEP, 0, KEEP, KEEP));
	self->before = net_state(&self->net);
	EXPECT_EQ(-EDQUOT, bus1_send_handles(self->net.a.fd, self->net.ab,
					     (__u64[]){ 0x1000 }, 1));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, one_dead_destination_stops_all)
{
	const __u64 dst[] = { self->net.ab, 0x1000, self->net.ac };
	const __u64 id = 0x1008;

	ASSERT_EQ(0, bus1_node_destroy(self->net.c.fd, NODE_C));
	peer_wait(self->net.a.fd);
	peer_wait(self->net.c.fd);
	self->before = net_state(&self->net);
	EXPECT_EQ(-EHOSTUNREACH, msg_send(self->net.a.fd, .dst = dst,
					  .n_dst = 3, .handles = &id,
					  .n_handles = 1));
	EXPECT_NOTHING_SENT();
	RECV_NONE(&self->net.b);
}

TEST_F(send, one_full_destination_stops_all)
{
	const __u64 dst[] = { self->net.ab, 0x1000, self->net.ac };
	const __u64 id = 0x1008;
	const int fd = STDERR_FILENO;

	ASSERT_EQ(0, set_limits(self->net.c.fd, 0, KEEP, KEEP, KEEP));
	self->before = net_state(&self->net);
	EXPECT_EQ(-EDQUOT, msg_send(self->net.a.fd, .dst = dst, .n_dst = 3,
				    .handles = &id, .n_handles = 1,
				    .fds = &fd, .n_fds = 1));
	EXPECT_NOTHING_SENT();
	RECV_NONE(&self->net.a);
	RECV_NONE(&self->net.b);
}

TEST_F(send, payload_that_is_not_there_is_efault)
{
	EXPECT_EQ(-EFAULT, bus1_send_data(self->net.a.fd, self->net.ab,
					  bad_none(), 100));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, payload_that_ends_half_way_is_efault)
{
	const __u64 dst[] = { self->net.ab, self->net.ac, 0x1000 };
	__u8 *data = bad_edge(3 * PAGE + 100);
	struct iovec vecs[] = { { data, 200 }, { data, 3 * PAGE + 101 } };

	ASSERT_TRUE(data);
	EXPECT_EQ(-EFAULT, msg_send(self->net.a.fd, .dst = dst, .n_dst = 3,
				    .vecs = vecs, .n_vecs = 2));
	EXPECT_NOTHING_SENT();
	EXPECT_EQ(-EFAULT, msg_send(self->net.a.fd, .dst = dst, .n_dst = 3,
				    .flags = BUS1_SEND_FLAG_CONTINUE,
				    .vecs = vecs, .n_vecs = 2));
	EXPECT_NOTHING_SENT();
	vecs[1].iov_len--;
	EXPECT_EQ(0, msg_send(self->net.a.fd, .dst = dst, .n_dst = 3,
			      .vecs = vecs, .n_vecs = 2));
}

TEST_F(send, arrays_that_end_half_way_are_efault)
{
	__u64 *ids = bad_edge(2 * sizeof(*ids));
	int *fds = bad_edge(2 * sizeof(*fds));
	struct iovec *vecs = bad_edge(2 * sizeof(*vecs));

	ASSERT_TRUE(ids && fds && vecs);
	ids[0] = 0x1000;
	ids[1] = 0x1008;
	fds[0] = fds[1] = STDERR_FILENO;
	EXPECT_EQ(-EFAULT, msg_send(self->net.a.fd, .dst = ids, .n_dst = 3));
	EXPECT_EQ(-EFAULT, msg_send(self->net.a.fd, .dst = &self->net.ab,
				    .n_dst = 1, .handles = ids,
				    .n_handles = 3));
	EXPECT_EQ(-EFAULT, msg_send(self->net.a.fd, .dst = &self->net.ab,
				    .n_dst = 1, .fds = fds, .n_fds = 3));
	EXPECT_EQ(-EFAULT, msg_send(self->net.a.fd, .dst = &self->net.ab,
				    .n_dst = 1, .vecs = vecs, .n_vecs = 3));
	EXPECT_NOTHING_SENT();
}

/*
 * The order of errors: each test offers two mistakes.
 */

TEST_F(send, flags_come_before_sizes)
{
	EXPECT_EQ(-EINVAL, msg_send(self->net.a.fd, .flags = 4,
				    .n_fds = BUS1_FD_MAX + 1));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, sizes_come_before_arrays)
{
	EXPECT_EQ(-EMSGSIZE, msg_send(self->net.a.fd, .dst = bad_none(),
				      .n_dst = 1, .n_fds = BUS1_FD_MAX + 1));
	EXPECT_EQ(-EMSGSIZE, msg_send(self->net.a.fd, .dst = bad_none(),
				      .n_dst = 1, .n_vecs = UIO_MAXIOV + 1));
	EXPECT_EQ(-EINVAL, msg_send(self->net.a.fd, .dst = bad_none(),
				    .n_dst = INT_MAX));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, arrays_come_before_ids)
{
	EXPECT_EQ(-EFAULT, msg_send(self->net.a.fd, .dst = &self->unknown,
				    .n_dst = 1, .fds = bad_none(), .n_fds = 1));
	EXPECT_EQ(-EFAULT, msg_send(self->net.a.fd, .dst = &self->unknown,
				    .n_dst = 1, .handles = bad_none(),
				    .n_handles = 1));
	EXPECT_EQ(-EFAULT, msg_send(self->net.a.fd, .dst = &self->unknown,
				    .n_dst = 1, .vecs = bad_none(),
				    .n_vecs = 1));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, arrays_come_before_files)
{
	const int fd = -1;

	EXPECT_EQ(-EFAULT, msg_send(self->net.a.fd, .dst = bad_none(),
				    .n_dst = 1, .fds = &fd, .n_fds = 1));
	EXPECT_NOTHING_SENT();
}

TEST_F(send, ids_and_files_come_before_dead_destinations)
{
	const int fd = -1;

	peer_close(&self->net.b);
	EXPECT_EQ(-EBADF, msg_send(self->net.a.fd, .dst = &self->net.ab,
				   .n_dst = 1, .fds = &fd, .n_fds = 1));
	EXPECT_EQ(-ENXIO, msg_send(self->net.a.fd, .dst = &self->net.ab,
				   .n_dst = 1, .handles = &self->unknown,
				   .n_handles = 1));
	EXPECT_EQ(-ENXIO, msg_send(self->net.a.fd, .n_dst = 2, .dst =
				   (__u64[]){ self->net.ab, self->unknown }));
	EXPECT_EQ(-ENOTUNIQ, msg_send(self->net.a.fd, .n_dst = 2, .dst =
				      (__u64[]){ self->net.ab, self->net.ab }));
}

TEST_F(send, dead_destinations_come_before_budgets)
{
	const __u64 dst[] = { self->net.ab, self->net.ac };

	ASSERT_EQ(0, set_limits(self->net.b.fd, 0, KEEP, KEEP, KEEP));
	ASSERT_EQ(0, bus1_node_destroy(self->net.c.fd, NODE_C));
	EXPECT_EQ(-EHOSTUNREACH, msg_send(self->net.a.fd, .dst = dst,
					  .n_dst = 2));
	EXPECT_EQ(-EHOSTUNREACH, msg_send(self->net.a.fd, .n_dst = 2, .dst =
					  (__u64[]){ dst[1], dst[0] }));
	RECV_NONE(&self->net.b);
}

TEST_F(send, files_come_before_budgets)
{
	const int fd = -1;

	ASSERT_EQ(0, set_limits(self->net.b.fd, 0, KEEP, KEEP, KEEP));
	self->before = net_state(&self->net);
	EXPECT_EQ(-EBADF, msg_send(self->net.a.fd, .dst = &self->net.ab,
				   .n_dst = 1, .fds = &fd, .n_fds = 1));
	EXPECT_NOTHING_SENT();
}

TEST_HARNESS_MAIN
