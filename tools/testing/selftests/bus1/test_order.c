// SPDX-License-Identifier: GPL-2.0-only
/*
 * The order of transactions: what one thread can see. Attacks on it are in
 * test_order_attack.c, random histories in test_order_stress.c.
 */

#include "bus1_test.h"

FIXTURE(order) {
	struct peer a, b, c;
};

FIXTURE_SETUP(order)
{
	PEER_OPEN(&self->a);
	PEER_OPEN(&self->b);
	PEER_OPEN(&self->c);
}

FIXTURE_TEARDOWN(order)
{
	peer_close(&self->a);
	peer_close(&self->b);
	peer_close(&self->c);
}

TEST_F(order, unicasts_of_one_sender_keep_their_order)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);
	__u32 i;

	for (i = 0; i < 1000; i++)
		ASSERT_EQ(0, bus1_send_data(self->b.fd, h, &i, sizeof(i)));
	for (i = 0; i < 1000; i++)
		RECV_DATA(&self->a, 8, &i, sizeof(i));
	RECV_NONE(&self->a);
}

TEST_F(order, unicasts_of_many_senders_keep_the_order_of_the_calls)
{
	struct peer *from[] = { &self->a, &self->b, &self->c };
	__u64 h[3];
	__u32 i;

	for (i = 0; i < 3; i++)
		h[i] = TRANSFER(&self->a, 8, from[i]);
	for (i = 0; i < 999; i++)
		ASSERT_EQ(0, bus1_send_data(from[i % 3]->fd, h[i % 3], &i,
					    sizeof(i)));
	for (i = 0; i < 999; i++)
		RECV_DATA(&self->a, 8, &i, sizeof(i));
	RECV_NONE(&self->a);
}

TEST_F(order, multicasts_keep_the_order_of_the_calls_in_every_queue)
{
	struct peer *from[] = { &self->a, &self->b, &self->c };
	__u64 h[3][3];
	__u32 i, j;

	for (i = 0; i < 3; i++)
		for (j = 0; j < 3; j++)
			h[i][j] = TRANSFER(from[j], 8, from[i]);
	for (i = 0; i < 300; i++)
		ASSERT_EQ(0, bus1_send_to(from[i % 3]->fd, h[i % 3], 3, &i,
					  sizeof(i), NULL, 0));
	for (j = 0; j < 3; j++) {
		for (i = 0; i < 300; i++)
			RECV_DATA(from[j], 8, &i, sizeof(i));
		RECV_NONE(from[j]);
	}
}

TEST_F(order, multicast_to_two_nodes_of_one_peer_is_in_one_piece)
{
	struct bus1_cmd_recv r1, r2;
	__u64 h[2];

	h[0] = TRANSFER(&self->a, 8, &self->b);
	h[1] = TRANSFER(&self->a, 16, &self->b);
	ASSERT_EQ(0, bus1_send_str(self->b.fd, h[0], "before"));
	ASSERT_EQ(0, bus1_send_to(self->b.fd, h, 2, "x", 1, NULL, 0));
	ASSERT_EQ(0, bus1_send_str(self->b.fd, h[0], "after"));
	RECV_STR(&self->a, 8, "before");
	r1 = RECV(&self->a);
	r2 = RECV(&self->a);
	EXPECT_EQ(BUS1_MSG_FLAG_CONTINUE, r1.msg.flags);
	EXPECT_EQ(0, r2.msg.flags);
	EXPECT_EQ(8 ^ 16, r1.msg.destination ^ r2.msg.destination);
	EXPECT_EQ('x', self->a.pool[r1.msg.offset]);
	EXPECT_EQ('x', self->a.pool[r2.msg.offset]);
	RECV_STR(&self->a, 8, "after");
	RECV_NONE(&self->a);
}

TEST_F(order, continue_is_not_set_between_transactions)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);
	int i;

	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, bus1_send_str(self->b.fd, h, "x"));
	/* RECV_STR() demands that flags are 0. */
	for (i = 0; i < 3; i++)
		RECV_STR(&self->a, 8, "x");
}

TEST_F(order, continue_is_not_set_for_other_receivers)
{
	__u64 h[2];

	h[0] = TRANSFER(&self->a, 8, &self->c);
	h[1] = TRANSFER(&self->b, 8, &self->c);
	ASSERT_EQ(0, bus1_send_to(self->c.fd, h, 2, "x", 1, NULL, 0));
	RECV_STR(&self->a, 8, "x");
	RECV_STR(&self->b, 8, "x");
}

TEST_F(order, continue_ends_when_the_rest_was_destroyed)
{
	struct bus1_cmd_recv recv;
	__u64 h[2], other;

	h[0] = TRANSFER(&self->a, 8, &self->b);
	h[1] = TRANSFER(&self->a, 16, &self->b);
	ASSERT_EQ(0, bus1_send_to(self->b.fd, h, 2, "x", 1, NULL, 0));
	recv = RECV(&self->a);
	EXPECT_EQ(BUS1_MSG_FLAG_CONTINUE, recv.msg.flags);
	other = recv.msg.destination == 8 ? 16 : 8;
	ASSERT_EQ(0, bus1_nodes_destroy(self->a.fd,
			BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES, &other, 1));
	RECV_NONE(&self->a);
}

/* A transaction goes through three queues as one point. */
TEST_F(order, multicasts_and_notifications_interleave_alike)
{
	struct peer *to[] = { &self->a, &self->b, &self->c };
	__u64 base[3], h[2][3], ids[2] = { 80, 88 };
	int i, j;

	for (i = 0; i < 3; i++) {
		base[i] = TRANSFER(to[i], 8, &self->a);
		h[0][i] = TRANSFER(&self->a, ids[0], to[i]);
		h[1][i] = TRANSFER(&self->a, ids[1], to[i]);
	}
	ASSERT_EQ(0, bus1_send_to(self->a.fd, base, 3, "1", 1, NULL, 0));
	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, ids[0]));
	ASSERT_EQ(0, bus1_send_to(self->a.fd, base, 3, "2", 1, NULL, 0));
	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, ids[1]));
	ASSERT_EQ(0, bus1_send_to(self->a.fd, base, 3, "3", 1, NULL, 0));
	for (i = 0; i < 3; i++) {
		for (j = 0; j < 2; j++) {
			RECV_STR(to[i], 8, j ? "2" : "1");
			RECV_DESTROY(to[i], h[j][i]);
		}
		RECV_STR(to[i], 8, "3");
		RECV_NONE(to[i]);
	}
}

TEST_F(order, disconnect_is_between_messages)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);
	__u64 to_b = TRANSFER(&self->b, 8, &self->c);

	ASSERT_EQ(0, bus1_send_str(self->c.fd, to_b, "before"));
	ASSERT_EQ(0, bus1_disconnect(self->a.fd));
	ASSERT_EQ(0, bus1_send_str(self->c.fd, to_b, "after"));
	RECV_STR(&self->b, 8, "before");
	RECV_DESTROY(&self->b, h);
	RECV_STR(&self->b, 8, "after");
	RECV_NONE(&self->b);
}

TEST_HARNESS_MAIN
