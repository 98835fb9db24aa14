// SPDX-License-Identifier: GPL-2.0-only
/*
 * SEND: what a message carries arrives: payload from anywhere, and handles.
 */
#include "bus1_msg.h"

#define N_HANDLES	2000

FIXTURE(data) {
	struct net net;
};

FIXTURE_SETUP(data)
{
	NET_INIT(&self->net);
}

FIXTURE_TEARDOWN(data)
{
	net_deinit(&self->net);
}

FIXTURE(size) {
	struct net net;
};

FIXTURE_VARIANT(size) {
	size_t n;
};

#define SIZE_VARIANT(_n) FIXTURE_VARIANT_ADD(size, _##_n) { .n = _n }
SIZE_VARIANT(0);
SIZE_VARIANT(1);
SIZE_VARIANT(7);
SIZE_VARIANT(8);
SIZE_VARIANT(9);
SIZE_VARIANT(255);
SIZE_VARIANT(4088);
SIZE_VARIANT(4095);
SIZE_VARIANT(4096);
SIZE_VARIANT(4097);
SIZE_VARIANT(65536);
SIZE_VARIANT(1048575);
SIZE_VARIANT(3145728);

FIXTURE_SETUP(size)
{
	NET_INIT(&self->net);
}

FIXTURE_TEARDOWN(size)
{
	net_deinit(&self->net);
}

TEST_F(size, payload_arrives_whole)
{
	__u8 *data = malloc(variant->n + 1);
	struct bus1_cmd_recv r;
	int i;

	ASSERT_TRUE(data);
	for (i = 0; i < 3; i++) {
		pattern_fill(data, variant->n, i);
		ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, data,
					    variant->n));
		r = RECV(&self->net.b);
		ASSERT_EQ(variant->n, r.msg.n_bytes);
		EXPECT_EQ(0, r.msg.n_handles);
		EXPECT_EQ(0, r.msg.n_fds);
		EXPECT_TRUE(pattern_check(slice_bytes(&self->net.b, &r),
					  variant->n, i));
		EXPECT_TRUE(slice_padded(&self->net.b, &r));
		EXPECT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));
	}
	free(data);
}

TEST_F(size, payload_in_many_vectors_arrives_whole)
{
	__u8 *data = malloc(variant->n + 1);
	struct iovec vecs[100];
	struct bus1_cmd_recv r;
	size_t i, at;

	ASSERT_TRUE(data);
	pattern_fill(data, variant->n, 77);
	for (i = 0; i < ARRAY_SIZE(vecs); i++) {
		at = variant->n * i / ARRAY_SIZE(vecs);
		vecs[i].iov_base = data + at;
		vecs[i].iov_len = variant->n * (i + 1) / ARRAY_SIZE(vecs) - at;
	}
	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = &self->net.ab, .n_dst = 1,
			      .vecs = vecs, .n_vecs = ARRAY_SIZE(vecs)));
	r = RECV(&self->net.b);
	ASSERT_EQ(variant->n, r.msg.n_bytes);
	EXPECT_TRUE(pattern_check(slice_bytes(&self->net.b, &r), variant->n,
				  77));
	free(data);
}

TEST_F(size, payload_goes_to_many_receivers)
{
	const __u64 dst[] = { self->net.ab, self->net.ac, 0x1000 };
	struct peer *peers[] = { &self->net.b, &self->net.c, &self->net.a };
	__u8 *data = malloc(variant->n + 1);
	struct bus1_cmd_recv r;
	size_t i;

	ASSERT_TRUE(data);
	pattern_fill(data, variant->n, 99);
	ASSERT_EQ(0, bus1_send_to(self->net.a.fd, dst, 3, data, variant->n,
				  NULL, 0));
	for (i = 0; i < ARRAY_SIZE(peers); i++) {
		r = RECV(peers[i]);
		ASSERT_EQ(variant->n, r.msg.n_bytes);
		EXPECT_TRUE(pattern_check(slice_bytes(peers[i], &r),
					  variant->n, 99));
	}
	free(data);
}

TEST_F(data, max_vectors_are_gathered_in_order)
{
	struct iovec *vecs = calloc(UIO_MAXIOV, sizeof(*vecs));
	__u8 *data = malloc(UIO_MAXIOV * 16);
	struct bus1_cmd_recv r;
	size_t at = 0, i;

	ASSERT_TRUE(vecs && data);
	for (i = 0; i < UIO_MAXIOV; i++) {
		vecs[i].iov_base = data + at;
		vecs[i].iov_len = i % 17;
		at += vecs[i].iov_len;
	}
	pattern_fill(data, at, 5);
	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = &self->net.ab, .n_dst = 1,
			      .vecs = vecs, .n_vecs = UIO_MAXIOV));
	r = RECV(&self->net.b);
	ASSERT_EQ(at, r.msg.n_bytes);
	EXPECT_TRUE(pattern_check(slice_bytes(&self->net.b, &r), at, 5));
	free(vecs);
	free(data);
}

TEST_F(data, vectors_may_straddle_pages_and_overlap)
{
	__u8 *data = mmap(NULL, 16 * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct iovec vecs[] = {
		{ data + PAGE - 1, 2 },
		{ data + 3 * PAGE - 5, PAGE + 10 },
		{ data + PAGE - 1, 2 },
		{ data, 3 * PAGE },
		{ data + 8 * PAGE + 1, 1 },
	};
	__u8 expected[16 * PAGE];
	struct bus1_cmd_recv r;
	size_t at = 0, i;

	ASSERT_TRUE(data != MAP_FAILED);
	pattern_fill(data, 16 * PAGE, 6);
	for (i = 0; i < ARRAY_SIZE(vecs); i++) {
		memcpy(expected + at, vecs[i].iov_base, vecs[i].iov_len);
		at += vecs[i].iov_len;
	}
	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = &self->net.ab, .n_dst = 1,
			      .vecs = vecs, .n_vecs = ARRAY_SIZE(vecs)));
	r = RECV(&self->net.b);
	ASSERT_EQ(at, r.msg.n_bytes);
	EXPECT_EQ(0, memcmp(slice_bytes(&self->net.b, &r), expected, at));
}

TEST_F(data, vectors_of_no_length_are_nothing)
{
	struct iovec vecs[] = {
		{ NULL, 0 }, { "ab", 2 }, { (void *)BAD_PTR, 0 }, { "c", 1 },
		{ NULL, 0 },
	};

	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = &self->net.ab, .n_dst = 1,
			      .vecs = vecs, .n_vecs = ARRAY_SIZE(vecs)));
	RECV_STR(&self->net.b, NODE_B, "abc");
}

TEST_F(data, payload_may_come_from_untouched_memory)
{
	__u8 *data = mmap(NULL, 4 * PAGE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	static const __u8 zero[4 * PAGE_MAX];

	ASSERT_TRUE(data != MAP_FAILED);
	ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, data,
				    4 * PAGE));
	RECV_DATA(&self->net.b, NODE_B, zero, 4 * PAGE);
}

TEST_F(data, payload_may_come_from_a_pool)
{
	struct bus1_cmd_recv r;
	__u8 data[3 * PAGE];

	pattern_fill(data, sizeof(data), 7);
	ASSERT_EQ(0, bus1_send_data(self->net.a.fd, 0x1000, data,
				    sizeof(data)));
	r = RECV(&self->net.a);
	/* from one's own slice to somebody else, and to oneself */
	ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab,
				    slice_bytes(&self->net.a, &r),
				    sizeof(data)));
	RECV_DATA(&self->net.b, NODE_B, data, sizeof(data));
	ASSERT_EQ(0, bus1_send_data(self->net.a.fd, 0x1000,
				    slice_bytes(&self->net.a, &r),
				    sizeof(data)));
	RECV_DATA(&self->net.a, 0x1000, data, sizeof(data));
}

TEST_F(data, payload_is_copied_when_it_is_sent)
{
	char data[] = "before";

	ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, data, 6));
	memcpy(data, "later!", 6);
	RECV_STR(&self->net.b, NODE_B, "before");
}

TEST_F(data, handle_of_the_receiver_arrives_as_its_own_id)
{
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, bus1_send_handles(self->net.a.fd, self->net.ab,
				       &self->net.ab, 1));
	r = RECV(&self->net.b);
	ASSERT_EQ(1, r.msg.n_handles);
	EXPECT_EQ(NODE_B, recv_handle(&self->net.b, &r, 0));
	EXPECT_EQ(1, bus1_drain_refs(self->net.b.fd, NODE_B));
}

TEST_F(data, handle_of_a_third_peer_is_passed_on)
{
	__u64 id;

	ASSERT_EQ(0, bus1_send_handles(self->net.a.fd, self->net.ab,
				       &self->net.ac, 1));
	id = RECV_ONE_HANDLE(&self->net.b);
	EXPECT_EQ(KERNEL_CHOSEN, id & 7);
	ASSERT_EQ(0, bus1_send_str(self->net.b.fd, id, "x"));
	RECV_STR(&self->net.c, NODE_C, "x");
}

TEST_F(data, new_own_handle_becomes_a_node)
{
	const __u64 own = 0x1000;
	__u64 id;

	ASSERT_EQ(0, bus1_send_handles(self->net.a.fd, self->net.ab, &own, 1));
	id = RECV_ONE_HANDLE(&self->net.b);
	EXPECT_EQ(KERNEL_CHOSEN, id & 7);
	ASSERT_EQ(0, bus1_send_str(self->net.b.fd, id, "x"));
	RECV_STR(&self->net.a, own, "x");
	/* Sending showed nothing to a, so it has the pinned reference only. */
	EXPECT_EQ(0, bus1_drain_refs(self->net.a.fd, own));
}

TEST_F(data, handles_may_repeat)
{
	const __u64 ids[] = { 0x1000, self->net.ac, 0x1000, self->net.ab,
			      self->net.ac, 0x1000 };
	struct bus1_cmd_recv r;
	__u64 got[6];
	int i;

	ASSERT_EQ(0, bus1_send_handles(self->net.a.fd, self->net.ab, ids, 6));
	r = RECV(&self->net.b);
	ASSERT_EQ(6, r.msg.n_handles);
	for (i = 0; i < 6; i++)
		got[i] = recv_handle(&self->net.b, &r, i);
	EXPECT_EQ(got[0], got[2]);
	EXPECT_EQ(got[0], got[5]);
	EXPECT_EQ(got[1], got[4]);
	EXPECT_EQ(NODE_B, got[3]);
	EXPECT_NE(got[0], got[1]);
	/* every entry counts */
	EXPECT_EQ(3, bus1_drain_refs(self->net.b.fd, got[0]));
	EXPECT_EQ(2, bus1_drain_refs(self->net.b.fd, got[1]));
	EXPECT_EQ(1, bus1_drain_refs(self->net.b.fd, NODE_B));
	RECV_RELEASE(&self->net.a, 0x1000);
}

TEST_F(data, known_handle_arrives_under_the_known_id)
{
	__u64 known = TRANSFER(&self->net.c, NODE_C, &self->net.b);
	__u64 id;

	ASSERT_EQ(0, bus1_send_handles(self->net.a.fd, self->net.ab,
				       &self->net.ac, 1));
	id = RECV_ONE_HANDLE(&self->net.b);
	EXPECT_EQ(known, id);
	EXPECT_EQ(2, bus1_drain_refs(self->net.b.fd, known));
}

TEST_F(data, thousands_of_handles_in_one_message)
{
	__u64 *ids = calloc(N_HANDLES, sizeof(*ids));
	__u8 *seen = calloc(N_HANDLES, 1);
	struct bus1_cmd_recv r, echo;
	__u64 n;
	int i;

	ASSERT_TRUE(ids && seen);
	for (i = 0; i < N_HANDLES; i++)
		ids[i] = 0x10000 + 8 * i;
	ASSERT_EQ(0, bus1_send_to(self->net.a.fd, &self->net.ab, 1, "abc", 3,
				  ids, N_HANDLES));
	r = RECV(&self->net.b);
	ASSERT_EQ(N_HANDLES, r.msg.n_handles);
	for (i = 0; i < N_HANDLES; i++)
		ids[i] = recv_handle(&self->net.b, &r, i);
	/* All are different and in order: each message names its node. */
	for (i = 0; i < N_HANDLES; i++) {
		ASSERT_EQ(KERNEL_CHOSEN, ids[i] & 7);
		ASSERT_EQ(0, bus1_send_data(self->net.b.fd, ids[i], &i,
					    sizeof(i)));
		echo = RECV(&self->net.a);
		n = (echo.msg.destination - 0x10000) / 8;
		EXPECT_EQ(i, n);
		EXPECT_EQ(0, bus1_slice_release(self->net.a.fd,
						echo.msg.offset));
	}
	for (i = 0; i < N_HANDLES; i++) {
		ASSERT_EQ(0, bus1_handle_release(self->net.b.fd, ids[i]));
	}
	for (i = 0; i < N_HANDLES; i++) {
		r = RECV(&self->net.a);
		ASSERT_EQ(BUS1_MSG_NODE_RELEASE, r.msg.type);
		n = (r.msg.destination - 0x10000) / 8;
		ASSERT_GT(N_HANDLES, n);
		EXPECT_EQ(0, seen[n]++);
	}
	RECV_NONE(&self->net.a);
	free(ids);
	free(seen);
}

TEST_F(data, handles_in_flight_count_as_references)
{
	const __u64 own = 0x1000;
	__u64 id;

	/* The only handle but the pinned one is in a queue. */
	ASSERT_EQ(0, bus1_send_handles(self->net.a.fd, self->net.ab, &own, 1));
	peer_wait(self->net.b.fd);
	RECV_NONE(&self->net.a);
	id = RECV_ONE_HANDLE(&self->net.b);
	RECV_NONE(&self->net.a);
	ASSERT_EQ(0, bus1_handle_release(self->net.b.fd, id));
	RECV_RELEASE(&self->net.a, own);
	RECV_NONE(&self->net.a);
}

TEST_F(data, handle_in_flight_outlives_the_senders)
{
	__u64 id;

	/* a passes on a handle of c, and lets go of its own. */
	ASSERT_EQ(0, bus1_send_handles(self->net.a.fd, self->net.ab,
				       &self->net.ac, 1));
	EXPECT_EQ(1, bus1_drain_refs(self->net.a.fd, self->net.ac));
	RECV_NONE(&self->net.c);
	id = RECV_ONE_HANDLE(&self->net.b);
	ASSERT_EQ(0, bus1_send_str(self->net.b.fd, id, "x"));
	RECV_STR(&self->net.c, NODE_C, "x");
	ASSERT_EQ(0, bus1_handle_release(self->net.b.fd, id));
	RECV_RELEASE(&self->net.c, NODE_C);
}

TEST_F(data, dropped_message_lets_go_of_its_handles)
{
	const __u64 own = 0x1000;
	struct bus1_cmd_recv r;
	int i, seen = 0;

	ASSERT_EQ(0, bus1_send_handles(self->net.a.fd, self->net.ab, &own, 1));
	peer_close(&self->net.b);
	/* a is told of two nodes, in whichever order */
	for (i = 0; i < 2; i++) {
		r = RECV(&self->net.a);
		if (r.msg.type == BUS1_MSG_NODE_DESTROY &&
		    r.msg.destination == self->net.ab)
			seen |= 1;
		if (r.msg.type == BUS1_MSG_NODE_RELEASE &&
		    r.msg.destination == own)
			seen |= 2;
	}
	EXPECT_EQ(3, seen);
	RECV_NONE(&self->net.a);
}

TEST_F(data, messages_of_a_sender_that_left_stay_deliverable)
{
	const __u64 ids[] = { 0x1000, self->net.ac };
	struct bus1_cmd_recv r;
	__u64 id;

	ASSERT_EQ(0, bus1_send_to(self->net.a.fd, &self->net.ab, 1, "bye", 3,
				  ids, 2));
	peer_close(&self->net.a);
	r = RECV(&self->net.b);
	EXPECT_EQ(BUS1_MSG_DATA, r.msg.type);
	EXPECT_EQ(0, memcmp(slice_bytes(&self->net.b, &r), "bye", 3));
	ASSERT_EQ(2, r.msg.n_handles);
	/* The node of a died after it was sent: b will be told. */
	id = recv_handle(&self->net.b, &r, 0);
	EXPECT_NE(BUS1_HANDLE_INVALID, id);
	r.msg.destination = recv_handle(&self->net.b, &r, 1);
	ASSERT_EQ(0, bus1_send_str(self->net.b.fd, r.msg.destination, "x"));
	RECV_STR(&self->net.c, NODE_C, "x");
	/* a was the last holder of b's node. */
	r = RECV(&self->net.b);
	if (r.msg.type == BUS1_MSG_NODE_RELEASE)
		r = RECV(&self->net.b);
	EXPECT_EQ(BUS1_MSG_NODE_DESTROY, r.msg.type);
	EXPECT_EQ(id, r.msg.destination);
}

TEST_F(data, message_can_be_all_there_is)
{
	const __u64 ids[] = { 0x1000, self->net.ac };
	const int fds[] = { STDERR_FILENO, STDERR_FILENO, STDERR_FILENO };
	struct iovec vecs[] = { { "hel", 3 }, { "lo", 2 } };
	struct bus1_cmd_recv r;
	int i;

	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = &self->net.ab, .n_dst = 1,
			      .vecs = vecs, .n_vecs = 2, .handles = ids,
			      .n_handles = 2, .fds = fds, .n_fds = 3));
	r = RECV_FLAGS(&self->net.b, BUS1_RECV_FLAG_INSTALL_FDS);
	EXPECT_EQ(NODE_B, r.msg.destination);
	EXPECT_EQ(5, r.msg.n_bytes);
	EXPECT_EQ(2, r.msg.n_handles);
	ASSERT_EQ(3, r.msg.n_fds);
	EXPECT_EQ(0, memcmp(slice_bytes(&self->net.b, &r), "hello", 5));
	EXPECT_TRUE(slice_padded(&self->net.b, &r));
	for (i = 0; i < 3; i++) {
		EXPECT_TRUE(same_file(STDERR_FILENO,
				      recv_fd(&self->net.b, &r, i)));
	}
}

TEST_HARNESS_MAIN
