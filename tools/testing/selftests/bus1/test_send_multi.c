// SPDX-License-Identifier: GPL-2.0-only
/*
 * SEND to many: CONTINUE, the array of errors, and who gets what.
 */
#include "bus1_msg.h"

/* more than fits on any stack, or in one batch */
#define MANY	1500

FIXTURE(multi) {
	struct net net;
	struct peer dead;
	__u64 a_dead;
};

FIXTURE_SETUP(multi)
{
	NET_INIT(&self->net);
	PEER_OPEN(&self->dead);
	NODE(&self->dead, NODE_B);
	self->a_dead = TRANSFER(&self->dead, NODE_B, &self->net.a);
	peer_close(&self->dead);
	RECV_DESTROY(&self->net.a, self->a_dead);
}

FIXTURE_TEARDOWN(multi)
{
	net_deinit(&self->net);
}

TEST_F(multi, everybody_gets_it)
{
	const __u64 dst[] = { self->net.ab, self->net.ac };
	struct iovec vec = { "hello", 5 };

	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = dst, .n_dst = 2,
			      .vecs = &vec, .n_vecs = 1));
	RECV_STR(&self->net.b, NODE_B, "hello");
	RECV_STR(&self->net.c, NODE_C, "hello");
	RECV_NONE(&self->net.a);
	RECV_NONE(&self->net.b);
	RECV_NONE(&self->net.c);
}

TEST_F(multi, errors_are_zero_where_it_arrives)
{
	const __u64 dst[] = { self->net.ab, self->net.ac };
	__s32 errors[] = { SENTINEL32, SENTINEL32, SENTINEL32 };

	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = dst, .n_dst = 2,
			      .errors = errors));
	EXPECT_EQ(0, errors[0]);
	EXPECT_EQ(0, errors[1]);
	EXPECT_EQ(SENTINEL32, errors[2]);
	RECV_DATA(&self->net.b, NODE_B, NULL, 0);
	RECV_DATA(&self->net.c, NODE_C, NULL, 0);
}

TEST_F(multi, continue_skips_dead_and_full_destinations)
{
	const __u64 dst[] = { self->a_dead, self->net.ab, self->net.ac,
			      0x1000 };
	__s32 errors[] = { SENTINEL32, SENTINEL32, SENTINEL32, SENTINEL32,
			   SENTINEL32 };
	struct iovec vec = { "x", 1 };

	ASSERT_EQ(0, set_limits(self->net.b.fd, 0, KEEP, KEEP, KEEP));
	ASSERT_EQ(0, msg_send(self->net.a.fd, .flags = BUS1_SEND_FLAG_CONTINUE,
			      .dst = dst, .n_dst = 4, .errors = errors,
			      .vecs = &vec, .n_vecs = 1));
	EXPECT_EQ(-EHOSTUNREACH, errors[0]);
	EXPECT_EQ(-EDQUOT, errors[1]);
	EXPECT_EQ(0, errors[2]);
	EXPECT_EQ(0, errors[3]);
	EXPECT_EQ(SENTINEL32, errors[4]);
	RECV_NONE(&self->net.b);
	RECV_STR(&self->net.c, NODE_C, "x");
	RECV_STR(&self->net.a, 0x1000, "x");
}

TEST_F(multi, continue_works_without_errors)
{
	const __u64 dst[] = { self->a_dead, self->net.ab };

	ASSERT_EQ(0, msg_send(self->net.a.fd, .flags = BUS1_SEND_FLAG_CONTINUE,
			      .dst = dst, .n_dst = 2));
	RECV_DATA(&self->net.b, NODE_B, NULL, 0);
}

TEST_F(multi, all_destinations_skipped_is_success)
{
	const __u64 dst[] = { self->a_dead, self->net.ab };
	__s32 errors[] = { SENTINEL32, SENTINEL32 };
	const __u64 id = 0x1000;
	long long handles = bus1_fdinfo(self->net.a.fd, "bus1-handles");

	ASSERT_EQ(0, set_limits(self->net.b.fd, 0, KEEP, KEEP, KEEP));
	ASSERT_EQ(0, msg_send(self->net.a.fd, .flags = BUS1_SEND_FLAG_CONTINUE,
			      .dst = dst, .n_dst = 2, .errors = errors,
			      .handles = &id, .n_handles = 1));
	EXPECT_EQ(-EHOSTUNREACH, errors[0]);
	EXPECT_EQ(-EDQUOT, errors[1]);
	EXPECT_EQ(handles + 1, bus1_fdinfo(self->net.a.fd, "bus1-handles"));
	RECV_NONE(&self->net.b);
}

TEST_F(multi, skipped_destinations_stay_uncharged)
{
	const __u64 dst[] = { self->net.ab, self->net.ac };
	struct net_state before, after;
	struct iovec vec = { "12345678", 8 };

	/* b runs out of bytes after it had slices, so a slice is at stake */
	ASSERT_EQ(0, set_limits(self->net.b.fd, KEEP, KEEP, 7, KEEP));
	before = net_state(&self->net);
	ASSERT_EQ(0, msg_send(self->net.a.fd, .flags = BUS1_SEND_FLAG_CONTINUE,
			      .dst = dst, .n_dst = 2, .vecs = &vec,
			      .n_vecs = 1));
	RECV_STR(&self->net.c, NODE_C, "12345678");
	after = net_state(&self->net);
	EXPECT_STREQ(before.text[1], after.text[1]);
}

TEST_F(multi, continue_does_not_skip_unknown_ids)
{
	const __u64 dst[] = { self->net.ab, self->a_dead, 0xffff7 };
	__s32 errors[] = { SENTINEL32, SENTINEL32, SENTINEL32 };
	struct net_state before = net_state(&self->net);

	EXPECT_EQ(-ENXIO, msg_send(self->net.a.fd, .dst = dst, .n_dst = 3,
				   .flags = BUS1_SEND_FLAG_CONTINUE,
				   .errors = errors));
	EXPECT_EQ(SENTINEL32, errors[0]);
	EXPECT_EQ(SENTINEL32, errors[1]);
	EXPECT_EQ(SENTINEL32, errors[2]);
	EXPECT_SAME(&self->net, &before);
}

TEST_F(multi, continue_does_not_skip_duplicates)
{
	const __u64 dst[] = { self->net.ab, self->a_dead, self->net.ab };
	struct net_state before = net_state(&self->net);

	EXPECT_EQ(-ENOTUNIQ, msg_send(self->net.a.fd, .dst = dst, .n_dst = 3,
				      .flags = BUS1_SEND_FLAG_CONTINUE));
	EXPECT_SAME(&self->net, &before);
}

TEST_F(multi, dead_destination_listed_twice_is_enotuniq)
{
	const __u64 dst[] = { self->a_dead, self->a_dead };

	EXPECT_EQ(-ENOTUNIQ, msg_send(self->net.a.fd, .dst = dst, .n_dst = 2,
				      .flags = BUS1_SEND_FLAG_CONTINUE));
}

TEST_F(multi, continue_does_not_skip_faults)
{
	const __u64 dst[] = { self->net.ab, self->net.ac };
	struct iovec vec = { bad_none(), 8 };
	struct net_state before = net_state(&self->net);

	EXPECT_EQ(-EFAULT, msg_send(self->net.a.fd, .dst = dst, .n_dst = 2,
				    .flags = BUS1_SEND_FLAG_CONTINUE,
				    .vecs = &vec, .n_vecs = 1));
	EXPECT_SAME(&self->net, &before);
}

TEST_F(multi, errors_that_cannot_be_written_stop_all)
{
	const __u64 dst[] = { self->net.ab, self->net.ac, 0x1000 };
	const __s32 zero[3] = {};
	const __u64 id = 0x1008;
	const void *bad[] = { bad_none(), bad_readonly(zero, sizeof(zero)),
			      bad_edge(2 * sizeof(__s32)),
			      (void *)(uintptr_t)BAD_PTR };
	struct net_state before = net_state(&self->net);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EFAULT, msg_send(self->net.a.fd, .dst = dst,
					    .n_dst = 3, .errors = bad[i],
					    .handles = &id, .n_handles = 1));
		EXPECT_SAME(&self->net, &before);
		EXPECT_EQ(-EFAULT, msg_send(self->net.a.fd, .dst = dst,
					    .flags = BUS1_SEND_FLAG_CONTINUE,
					    .n_dst = 3, .errors = bad[i],
					    .handles = &id, .n_handles = 1));
		EXPECT_SAME(&self->net, &before);
	}
	RECV_NONE(&self->net.a);
	RECV_NONE(&self->net.b);
	RECV_NONE(&self->net.c);
}

TEST_F(multi, errors_may_be_unaligned)
{
	__u8 errors[2 * sizeof(__s32) + 2];
	const __u64 dst[] = { self->a_dead, self->net.ab };
	__s32 error;

	memset(errors, 0xa5, sizeof(errors));
	ASSERT_EQ(0, msg_send(self->net.a.fd, .flags = BUS1_SEND_FLAG_CONTINUE,
			      .dst = dst, .n_dst = 2, .errors = errors + 1));
	memcpy(&error, errors + 1, sizeof(error));
	EXPECT_EQ(-EHOSTUNREACH, error);
	memcpy(&error, errors + 5, sizeof(error));
	EXPECT_EQ(0, error);
	EXPECT_EQ(0xa5, errors[0]);
	EXPECT_EQ(0xa5, errors[9]);
}

TEST_F(multi, errors_are_ignored_without_destinations)
{
	__s32 error = SENTINEL32;

	EXPECT_EQ(0, msg_send(self->net.a.fd, .errors = &error));
	EXPECT_EQ(SENTINEL32, error);
}

TEST_F(multi, several_nodes_of_one_peer_get_one_message_each)
{
	__u64 dst[3], offset[3];
	struct bus1_cmd_recv r;
	int i;

	for (i = 0; i < 3; i++) {
		NODE(&self->net.b, 0x1000 + 8 * i);
		dst[i] = TRANSFER(&self->net.b, 0x1000 + 8 * i, &self->net.a);
	}
	ASSERT_EQ(0, bus1_send_to(self->net.a.fd, dst, 3, "abc", 3, NULL, 0));
	for (i = 0; i < 3; i++) {
		r = RECV(&self->net.b);
		EXPECT_EQ(BUS1_MSG_DATA, r.msg.type);
		EXPECT_EQ(i < 2 ? BUS1_MSG_FLAG_CONTINUE : 0, r.msg.flags);
		EXPECT_EQ(3, r.msg.n_bytes);
		EXPECT_EQ(0, memcmp(slice_bytes(&self->net.b, &r), "abc", 3));
		EXPECT_EQ(0, r.msg.destination % 8);
		EXPECT_LE(0x1000, r.msg.destination);
		EXPECT_GE(0x1010, r.msg.destination);
		offset[i] = r.msg.offset;
		dst[(r.msg.destination - 0x1000) / 8] = 0;
	}
	EXPECT_EQ(0, dst[0] | dst[1] | dst[2]);
	EXPECT_NE(offset[0], offset[1]);
	EXPECT_NE(offset[1], offset[2]);
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(0, bus1_slice_release(self->net.b.fd, offset[i]));
	}
	RECV_NONE(&self->net.b);
}

TEST_F(multi, many_nodes_of_one_peer)
{
	__u64 *dst = calloc(MANY, sizeof(*dst));
	__u8 *seen = calloc(MANY, 1);
	struct bus1_cmd_recv r;
	__u64 n;
	int i;

	ASSERT_TRUE(dst && seen);
	for (i = 0; i < MANY; i++) {
		NODE(&self->net.b, 0x10000 + 8 * i);
		dst[i] = TRANSFER(&self->net.b, 0x10000 + 8 * i, &self->net.a);
	}
	ASSERT_EQ(0, bus1_send_to(self->net.a.fd, dst, MANY, "x", 1, NULL, 0));
	for (i = 0; i < MANY; i++) {
		r = RECV(&self->net.b);
		n = (r.msg.destination - 0x10000) / 8;
		ASSERT_GT(MANY, n);
		EXPECT_EQ(0, seen[n]++);
		EXPECT_EQ(i < MANY - 1 ? BUS1_MSG_FLAG_CONTINUE : 0,
			  r.msg.flags);
		EXPECT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));
	}
	RECV_NONE(&self->net.b);
	free(dst);
	free(seen);
}

TEST_F(multi, every_second_of_many_destinations_is_dead)
{
	__u64 *dst = calloc(MANY, sizeof(*dst));
	__s32 *errors = calloc(MANY, sizeof(*errors));
	struct bus1_cmd_recv r;
	int i;

	ASSERT_TRUE(dst && errors);
	for (i = 0; i < MANY; i++) {
		errors[i] = SENTINEL32;
		NODE(&self->net.b, 0x10000 + 8 * i);
		dst[i] = TRANSFER(&self->net.b, 0x10000 + 8 * i, &self->net.a);
		if (i % 2) {
			ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd,
						       0x10000 + 8 * i));
		}
	}
	ASSERT_EQ(0, msg_send(self->net.a.fd, .flags = BUS1_SEND_FLAG_CONTINUE,
			      .dst = dst, .n_dst = MANY, .errors = errors));
	for (i = 0; i < MANY; i++) {
		EXPECT_EQ(i % 2 ? -EHOSTUNREACH : 0, errors[i]);
	}
	for (i = 0; i < MANY; i++) {
		r = RECV(&self->net.b);
		if (r.msg.type == BUS1_MSG_NODE_DESTROY)
			continue;
		EXPECT_EQ(0, (r.msg.destination - 0x10000) / 8 % 2);
	}
	RECV_NONE(&self->net.b);
	free(dst);
	free(errors);
}

TEST_F(multi, own_nodes_are_destinations_like_others)
{
	const __u64 dst[] = { 0x1000, self->net.ab, 0x1008 };
	struct bus1_cmd_recv r[2];
	int i;

	ASSERT_EQ(0, bus1_send_to(self->net.a.fd, dst, 3, "x", 1, NULL, 0));
	RECV_STR(&self->net.b, NODE_B, "x");
	for (i = 0; i < 2; i++)
		r[i] = RECV(&self->net.a);
	EXPECT_EQ(BUS1_MSG_FLAG_CONTINUE, r[0].msg.flags);
	EXPECT_EQ(0, r[1].msg.flags);
	EXPECT_EQ(0x2008, r[0].msg.destination + r[1].msg.destination);
	RECV_NONE(&self->net.a);
}

TEST_F(multi, own_new_node_can_be_destination_and_content)
{
	const __u64 id = 0x1000;
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, bus1_send_handles(self->net.a.fd, id, &id, 1));
	r = RECV(&self->net.a);
	EXPECT_EQ(id, r.msg.destination);
	ASSERT_EQ(1, r.msg.n_handles);
	EXPECT_EQ(id, recv_handle(&self->net.a, &r, 0));
	/* The pinned reference stays, the one just shown can be dropped. */
	EXPECT_EQ(1, bus1_drain_refs(self->net.a.fd, id));
}

TEST_F(multi, every_receiver_gets_its_own_handle)
{
	const __u64 dst[] = { self->net.ab, self->net.ac };
	const __u64 id = 0x1000;
	__u64 b, c;

	ASSERT_EQ(0, bus1_send_to(self->net.a.fd, dst, 2, NULL, 0, &id, 1));
	b = RECV_ONE_HANDLE(&self->net.b);
	c = RECV_ONE_HANDLE(&self->net.c);
	ASSERT_EQ(0, bus1_send_str(self->net.b.fd, b, "from b"));
	RECV_STR(&self->net.a, id, "from b");
	ASSERT_EQ(0, bus1_send_str(self->net.c.fd, c, "from c"));
	RECV_STR(&self->net.a, id, "from c");
	EXPECT_EQ(1, bus1_drain_refs(self->net.b.fd, b));
	RECV_NONE(&self->net.a);
	EXPECT_EQ(1, bus1_drain_refs(self->net.c.fd, c));
	RECV_RELEASE(&self->net.a, id);
}

TEST_F(multi, every_receiver_gets_its_own_files)
{
	const __u64 dst[] = { self->net.ab, self->net.ac };
	struct bus1_cmd_recv r;
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = dst, .n_dst = 2,
			      .fds = &fds[1], .n_fds = 1));
	close(fds[1]);
	r = RECV_FLAGS(&self->net.b, BUS1_RECV_FLAG_INSTALL_FDS);
	ASSERT_EQ(1, r.msg.n_fds);
	close(recv_fd(&self->net.b, &r, 0));
	EXPECT_TRUE(pipe_open(fds[0]));
	r = RECV_FLAGS(&self->net.c, BUS1_RECV_FLAG_INSTALL_FDS);
	ASSERT_EQ(1, r.msg.n_fds);
	EXPECT_TRUE(pipe_open(fds[0]));
	close(recv_fd(&self->net.c, &r, 0));
	EXPECT_TRUE(pipe_wait_eof(fds[0]));
}

TEST_F(multi, slices_of_one_transaction_are_released_one_by_one)
{
	const __u64 dst[] = { 0x1000, 0x1008 };
	struct bus1_cmd_recv r[2];

	ASSERT_EQ(0, bus1_send_to(self->net.a.fd, dst, 2, "abcdefgh", 8, NULL,
				  0));
	r[0] = RECV(&self->net.a);
	r[1] = RECV(&self->net.a);
	ASSERT_EQ(0, bus1_slice_release(self->net.a.fd, r[0].msg.offset));
	EXPECT_EQ(0, memcmp(slice_bytes(&self->net.a, &r[1]), "abcdefgh", 8));
	EXPECT_EQ(0, bus1_slice_release(self->net.a.fd, r[1].msg.offset));
	EXPECT_EQ(-ENXIO, bus1_slice_release(self->net.a.fd,
					     r[1].msg.offset));
}

TEST_HARNESS_MAIN
