// SPDX-License-Identifier: GPL-2.0-only
/*
 * NODES_DESTROY: each errno, all or none, RELEASE_HANDLES, who is told, and what
 * becomes of handles in flight. NODE_RELEASE is in test_release.c.
 */

#include "bus1_test.h"

#define RELEASE_HANDLES BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES

FIXTURE(node) {
	struct peer a, b, c;
};

FIXTURE_SETUP(node)
{
	PEER_OPEN(&self->a);
	PEER_OPEN(&self->b);
	PEER_OPEN(&self->c);
}

FIXTURE_TEARDOWN(node)
{
	peer_close(&self->a);
	peer_close(&self->b);
	peer_close(&self->c);
}

/* The node @id of a is alive: b can reach it by @h. */
#define EXPECT_ALIVE(_id, _h) do {					\
	RECV_NONE(&self->b);						\
	EXPECT_EQ(0, bus1_send_str(self->b.fd, _h, "alive"));		\
	RECV_STR(&self->a, _id, "alive");				\
} while (0)

/*
 * Errors
 */

TEST_F(node, destroy_with_unknown_flags_is_einval)
{
	__u64 id = 8, h = TRANSFER(&self->a, id, &self->b);
	int i;

	for (i = 1; i < 64; i++)
		EXPECT_EQ(-EINVAL, bus1_nodes_destroy(self->a.fd, 1ULL << i,
						      &id, 1));
	EXPECT_ALIVE(id, h);
}

TEST_F(node, destroy_from_bad_memory_is_efault)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	EXPECT_EQ(-EFAULT, bus1_ioctl(self->a.fd, BUS1_CMD_NODES_DESTROY,
				      (void *)(uintptr_t)BAD_PTR));
	EXPECT_ALIVE(8, h);
}

TEST_F(node, destroy_of_ids_in_bad_memory_is_efault)
{
	struct bus1_cmd_nodes_destroy cmd = {
		.ptr_nodes = BAD_PTR, .n_nodes = 1,
	};

	EXPECT_EQ(-EFAULT, bus1_ioctl(self->a.fd, BUS1_CMD_NODES_DESTROY,
				      &cmd));
	RECV_NONE(&self->a);
	EXPECT_IDLE(&self->a);
}

TEST_F(node, destroy_of_ids_that_end_in_bad_memory_is_efault)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b), *ids;
	size_t page = page_size();
	char *map = shared_alloc(2 * page);

	ASSERT_NE(NULL, map);
	ASSERT_EQ(0, mprotect(map + page, page, PROT_NONE));
	ids = (void *)(map + page - sizeof(*ids));
	ids[0] = 8;
	EXPECT_EQ(-EFAULT, bus1_nodes_destroy(self->a.fd, 0, ids, 2));
	EXPECT_ALIVE(8, h);
}

TEST_F(node, destroy_of_another_address_space_is_efault)
{
	struct bus1_cmd_nodes_destroy cmd = {
		.ptr_nodes = 0xffff800000000000, .n_nodes = 1,
	};

	EXPECT_EQ(-EFAULT, bus1_ioctl(self->a.fd, BUS1_CMD_NODES_DESTROY,
				      &cmd));
	EXPECT_IDLE(&self->a);
}

TEST_F(node, destroy_of_more_than_the_handle_limit_is_einval)
{
	const __u64 bad[] = { 65537, 1ULL << 31, 1ULL << 32, 1ULL << 40,
			      1ULL << 61, (1ULL << 61) + 1, -1ULL };
	__u64 id = 8, h = TRANSFER(&self->a, id, &self->b);
	struct bus1_cmd_nodes_destroy cmd;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		cmd = (struct bus1_cmd_nodes_destroy){ 0, ptr(&id), bad[i] };
		EXPECT_EQ(-EINVAL, bus1_ioctl(self->a.fd,
					      BUS1_CMD_NODES_DESTROY, &cmd));
	}
	EXPECT_ALIVE(id, h);
}

/* Each kind of bad ID, behind a good one: the good one stays. */
TEST_F(node, destroy_of_an_unknown_id_is_enxio_for_all)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);
	const __u64 ids[] = { 8, 3 }, other[] = { 1, 8 };

	EXPECT_EQ(-ENXIO, bus1_nodes_destroy(self->a.fd, 0, ids, 2));
	EXPECT_EQ(-ENXIO, bus1_nodes_destroy(self->a.fd, RELEASE_HANDLES,
					     other, 2));
	EXPECT_ALIVE(8, h);
}

TEST_F(node, destroy_of_a_remote_node_is_eremote_for_all)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);
	__u64 hc = TRANSFER(&self->c, 8, &self->a);
	const __u64 ids[] = { 8, hc };

	EXPECT_EQ(-EREMOTE, bus1_nodes_destroy(self->a.fd, 0, ids, 2));
	EXPECT_EQ(-EREMOTE, bus1_nodes_destroy(self->a.fd, RELEASE_HANDLES,
					       ids, 2));
	EXPECT_ALIVE(8, h);
	RECV_NONE(&self->c);
	EXPECT_EQ(1, bus1_drain_refs(self->a.fd, hc));
	EXPECT_EQ(0, bus1_drain_refs(self->a.fd, 8));
}

TEST_F(node, destroy_of_a_destroyed_node_is_estale_for_all)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);
	const __u64 ids[] = { 8, 16 };

	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, 16));
	RECV_DESTROY(&self->a, 16);
	EXPECT_EQ(-ESTALE, bus1_nodes_destroy(self->a.fd, 0, ids, 2));
	EXPECT_EQ(-ESTALE, bus1_nodes_destroy(self->a.fd, RELEASE_HANDLES,
					      ids, 2));
	RECV_NONE(&self->a);
	EXPECT_ALIVE(8, h);
	EXPECT_EQ(1, bus1_drain_refs(self->a.fd, 16));
}

TEST_F(node, destroy_of_one_node_twice_is_enotuniq_for_all)
{
	__u64 h8 = TRANSFER(&self->a, 8, &self->b);
	__u64 h16 = TRANSFER(&self->a, 16, &self->b);
	const __u64 ids[] = { 8, 16, 8 };

	EXPECT_EQ(-ENOTUNIQ, bus1_nodes_destroy(self->a.fd, 0, ids, 3));
	EXPECT_ALIVE(8, h8);
	EXPECT_ALIVE(16, h16);
}

TEST_F(node, destroy_of_no_nodes_is_nothing)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	EXPECT_EQ(0, bus1_nodes_destroy(self->a.fd, 0, NULL, 0));
	EXPECT_EQ(0, bus1_nodes_destroy(self->a.fd, RELEASE_HANDLES, NULL, 0));
	RECV_NONE(&self->a);
	EXPECT_ALIVE(8, h);
}

/*
 * Who is told
 */

TEST_F(node, destroy_tells_each_holder_and_the_owner_once)
{
	__u64 hb = TRANSFER(&self->a, 8, &self->b);
	__u64 hc = TRANSFER(&self->b, hb, &self->c);

	/* However many references they have. */
	TRANSFER(&self->a, 8, &self->b);
	TRANSFER(&self->a, 8, &self->a);
	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, 8));
	RECV_DESTROY(&self->a, 8);
	RECV_DESTROY(&self->b, hb);
	RECV_DESTROY(&self->c, hc);
	RECV_NONE(&self->a);
	RECV_NONE(&self->b);
	RECV_NONE(&self->c);
	EXPECT_EQ(2, bus1_drain_refs(self->a.fd, 8));
	EXPECT_EQ(2, bus1_drain_refs(self->b.fd, hb));
	EXPECT_EQ(1, bus1_drain_refs(self->c.fd, hc));
	EXPECT_IDLE(&self->a);
	EXPECT_IDLE(&self->b);
	EXPECT_IDLE(&self->c);
}

TEST_F(node, destroy_of_many_is_one_transaction)
{
	const __u64 ids[] = { 8, 16, 24 };
	struct peer *peers[] = { &self->a, &self->b, &self->c };
	__u64 h[3][3], sum;
	struct bus1_cmd_recv recv;
	int i, j;

	for (i = 0; i < 3; i++) {
		h[0][i] = ids[i];
		h[1][i] = TRANSFER(&self->a, ids[i], &self->b);
		h[2][i] = TRANSFER(&self->a, ids[i], &self->c);
	}
	ASSERT_EQ(0, bus1_nodes_destroy(self->a.fd, 0, ids, 3));
	for (j = 0; j < 3; j++) {
		for (sum = i = 0; i < 3; i++) {
			recv = RECV(peers[j]);
			EXPECT_EQ(BUS1_MSG_NODE_DESTROY, recv.msg.type);
			EXPECT_EQ(i < 2 ? BUS1_MSG_FLAG_CONTINUE : 0,
				  recv.msg.flags);
			sum += recv.msg.destination;
		}
		EXPECT_EQ(h[j][0] + h[j][1] + h[j][2], sum);
		RECV_NONE(peers[j]);
	}
}

TEST_F(node, destroyed_is_ehostunreach_for_all)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, 8));
	EXPECT_EQ(-EHOSTUNREACH, bus1_send_str(self->b.fd, h, "x"));
	EXPECT_EQ(-EHOSTUNREACH, bus1_send_str(self->a.fd, 8, "x"));
	RECV_DESTROY(&self->a, 8);
	RECV_DESTROY(&self->b, h);
	EXPECT_EQ(-EHOSTUNREACH, bus1_send_str(self->b.fd, h, "x"));
	EXPECT_EQ(-EHOSTUNREACH, bus1_send_str(self->a.fd, 8, "x"));
	RECV_NONE(&self->a);
}

TEST_F(node, unused_id_is_created_and_destroyed)
{
	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, 8));
	RECV_DESTROY(&self->a, 8);
	EXPECT_EQ(-ESTALE, bus1_node_destroy(self->a.fd, 8));
	EXPECT_EQ(0, bus1_handle_release(self->a.fd, 8));
	EXPECT_IDLE(&self->a);
}

TEST_F(node, unused_id_with_release_handles_leaves_nothing)
{
	__u64 id = 8;

	ASSERT_EQ(0, bus1_nodes_destroy(self->a.fd, RELEASE_HANDLES, &id, 1));
	RECV_NONE(&self->a);
	EXPECT_IDLE(&self->a);
	/* So it can be done again. */
	ASSERT_EQ(0, bus1_nodes_destroy(self->a.fd, RELEASE_HANDLES, &id, 1));
	EXPECT_IDLE(&self->a);
}

/*
 * RELEASE_HANDLES
 */

TEST_F(node, release_handles_of_the_last_reference_is_silent)
{
	__u64 id = 8, h = TRANSFER(&self->a, id, &self->b);

	ASSERT_EQ(0, bus1_nodes_destroy(self->a.fd, RELEASE_HANDLES, &id, 1));
	RECV_NONE(&self->a);
	RECV_DESTROY(&self->b, h);
	/* The ID is free. */
	EXPECT_EQ(-EBUSY, bus1_handle_release(self->a.fd, id));
	EXPECT_IDLE(&self->a);
}

TEST_F(node, release_handles_drops_one_reference)
{
	__u64 id = 8;

	TRANSFER(&self->a, id, &self->a);
	TRANSFER(&self->a, id, &self->a);
	ASSERT_EQ(0, bus1_nodes_destroy(self->a.fd, RELEASE_HANDLES, &id, 1));
	RECV_DESTROY(&self->a, id);
	RECV_NONE(&self->a);
	EXPECT_EQ(2, bus1_drain_refs(self->a.fd, id));
	EXPECT_IDLE(&self->a);
}

TEST_F(node, release_handles_drops_queued_messages)
{
	__u64 id = 8, h = TRANSFER(&self->a, id, &self->b);

	ASSERT_EQ(0, bus1_send_str(self->b.fd, h, "1"));
	ASSERT_EQ(0, bus1_send_str(self->b.fd, h, "2"));
	ASSERT_EQ(0, bus1_nodes_destroy(self->a.fd, RELEASE_HANDLES, &id, 1));
	RECV_NONE(&self->a);
	EXPECT_IDLE(&self->a);
}

TEST_F(node, release_handles_keeps_messages_to_other_nodes)
{
	__u64 id = 8, h8 = TRANSFER(&self->a, 8, &self->b);
	__u64 h16 = TRANSFER(&self->a, 16, &self->b);

	ASSERT_EQ(0, bus1_send_str(self->b.fd, h8, "1"));
	ASSERT_EQ(0, bus1_send_str(self->b.fd, h16, "2"));
	ASSERT_EQ(0, bus1_send_str(self->b.fd, h8, "3"));
	ASSERT_EQ(0, bus1_nodes_destroy(self->a.fd, RELEASE_HANDLES, &id, 1));
	RECV_STR(&self->a, 16, "2");
	RECV_NONE(&self->a);
}

/*
 * Order, seen from one thread
 */

TEST_F(node, messages_before_the_destruction_are_delivered_before_it)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	ASSERT_EQ(0, bus1_send_str(self->b.fd, h, "1"));
	ASSERT_EQ(0, bus1_send_str(self->b.fd, h, "2"));
	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, 8));
	RECV_STR(&self->a, 8, "1");
	RECV_STR(&self->a, 8, "2");
	RECV_DESTROY(&self->a, 8);
	RECV_NONE(&self->a);
}

TEST_F(node, notification_is_between_messages_in_every_queue)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);
	__u64 to_b = TRANSFER(&self->b, 16, &self->c);
	__u64 to_a = TRANSFER(&self->a, 24, &self->c);

	ASSERT_EQ(0, bus1_send_str(self->c.fd, to_b, "before"));
	ASSERT_EQ(0, bus1_send_str(self->c.fd, to_a, "before"));
	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, 8));
	ASSERT_EQ(0, bus1_send_str(self->c.fd, to_b, "after"));
	ASSERT_EQ(0, bus1_send_str(self->c.fd, to_a, "after"));
	RECV_STR(&self->b, 16, "before");
	RECV_DESTROY(&self->b, h);
	RECV_STR(&self->b, 16, "after");
	RECV_STR(&self->a, 24, "before");
	RECV_DESTROY(&self->a, 8);
	RECV_STR(&self->a, 24, "after");
}

TEST_F(node, owner_that_dropped_the_last_reference_gets_nothing_more)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	ASSERT_EQ(0, bus1_send_str(self->b.fd, h, "1"));
	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, 8));
	ASSERT_EQ(0, bus1_handle_release(self->a.fd, 8));
	RECV_NONE(&self->a);
	EXPECT_IDLE(&self->a);
	RECV_DESTROY(&self->b, h);
}

TEST_F(node, holder_that_released_before_gets_nothing)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, 8));
	RECV_NONE(&self->b);
	EXPECT_IDLE(&self->b);
}

TEST_F(node, holder_that_releases_while_it_is_queued_gets_nothing)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, 8));
	ASSERT_EQ(POLLIN | POLLOUT, peer_poll(self->b.fd));
	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	RECV_NONE(&self->b);
	EXPECT_IDLE(&self->b);
}

TEST_F(node, continue_ends_when_the_rest_was_released)
{
	const __u64 ids[] = { 8, 16 };
	__u64 h[2], first, other;
	struct bus1_cmd_recv recv;

	h[0] = TRANSFER(&self->a, 8, &self->b);
	h[1] = TRANSFER(&self->a, 16, &self->b);
	ASSERT_EQ(0, bus1_nodes_destroy(self->a.fd, 0, ids, 2));
	recv = RECV(&self->b);
	first = recv.msg.destination;
	EXPECT_EQ(BUS1_MSG_FLAG_CONTINUE, recv.msg.flags);
	other = h[0] == first ? h[1] : h[0];
	ASSERT_EQ(0, bus1_handle_release(self->b.fd, other));
	RECV_NONE(&self->b);
}

/*
 * Handles in flight
 */

TEST_F(node, handle_sent_before_the_destruction_is_valid_then_dies)
{
	__u64 to_b = TRANSFER(&self->b, 8, &self->a), id = 16, h;

	ASSERT_EQ(0, bus1_send_handles(self->a.fd, to_b, &id, 1));
	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, id));
	h = RECV_ONE_HANDLE(&self->b);
	EXPECT_EQ(KERNEL_CHOSEN, h & 7);
	EXPECT_NE(BUS1_HANDLE_INVALID, h);
	EXPECT_EQ(-EHOSTUNREACH, bus1_send_str(self->b.fd, h, "x"));
	RECV_DESTROY(&self->b, h);
	RECV_NONE(&self->b);
	EXPECT_EQ(1, bus1_drain_refs(self->b.fd, h));
}

TEST_F(node, handle_sent_after_the_destruction_is_invalid)
{
	__u64 to_b = TRANSFER(&self->b, 8, &self->a), id = 16;
	__u64 to_c = TRANSFER(&self->c, 8, &self->a);
	__u64 hc = TRANSFER(&self->a, id, &self->c);
	__u64 c_to_b = TRANSFER(&self->b, 8, &self->c);

	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, id));
	/* From the owner, and from a holder that was not told yet. */
	ASSERT_EQ(0, bus1_send_handles(self->a.fd, to_b, &id, 1));
	ASSERT_EQ(0, bus1_send_handles(self->c.fd, c_to_b, &hc, 1));
	EXPECT_EQ(BUS1_HANDLE_INVALID, RECV_ONE_HANDLE(&self->b));
	EXPECT_EQ(BUS1_HANDLE_INVALID, RECV_ONE_HANDLE(&self->b));
	RECV_NONE(&self->b);
	/* To a holder too. */
	ASSERT_EQ(0, bus1_send_handles(self->a.fd, to_c, &id, 1));
	RECV_DESTROY(&self->c, hc);
	EXPECT_EQ(BUS1_HANDLE_INVALID, RECV_ONE_HANDLE(&self->c));
	EXPECT_EQ(1, bus1_drain_refs(self->c.fd, hc));
	/* It costs nothing. */
	EXPECT_EQ(0, bus1_flush(self->b.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	EXPECT_IDLE(&self->b);
}

TEST_F(node, invalid_and_valid_handles_in_one_message)
{
	__u64 to_b = TRANSFER(&self->b, 8, &self->a), h;
	const __u64 ids[] = { 16, 24, 16, 24 };
	struct bus1_cmd_recv recv;

	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, 24));
	ASSERT_EQ(0, bus1_send_to(self->a.fd, &to_b, 1, "abc", 3, ids, 4));
	recv = RECV(&self->b);
	ASSERT_EQ(4, recv.msg.n_handles);
	h = recv_handle(&self->b, &recv, 0);
	EXPECT_EQ(BUS1_HANDLE_INVALID, recv_handle(&self->b, &recv, 1));
	EXPECT_EQ(h, recv_handle(&self->b, &recv, 2));
	EXPECT_EQ(BUS1_HANDLE_INVALID, recv_handle(&self->b, &recv, 3));
	EXPECT_EQ(2, bus1_drain_refs(self->b.fd, h));
	RECV_NONE(&self->b);
}

TEST_F(node, one_destruction_between_two_messages)
{
	__u64 to_b = TRANSFER(&self->b, 8, &self->a), id = 16, h;

	ASSERT_EQ(0, bus1_send_handles(self->a.fd, to_b, &id, 1));
	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, id));
	ASSERT_EQ(0, bus1_send_handles(self->a.fd, to_b, &id, 1));
	h = RECV_ONE_HANDLE(&self->b);
	EXPECT_NE(BUS1_HANDLE_INVALID, h);
	RECV_DESTROY(&self->b, h);
	EXPECT_EQ(BUS1_HANDLE_INVALID, RECV_ONE_HANDLE(&self->b));
	RECV_NONE(&self->b);
	EXPECT_EQ(1, bus1_drain_refs(self->b.fd, h));
}

TEST_F(node, handle_of_an_owner_that_left_is_invalid)
{
	__u64 to_b = TRANSFER(&self->b, 8, &self->a);
	__u64 h = TRANSFER(&self->c, 8, &self->a);

	ASSERT_EQ(0, bus1_disconnect(self->c.fd));
	ASSERT_EQ(0, bus1_send_handles(self->a.fd, to_b, &h, 1));
	EXPECT_EQ(BUS1_HANDLE_INVALID, RECV_ONE_HANDLE(&self->b));
	RECV_NONE(&self->b);
}

/* Dropped with the node that it was sent to, at the latest by RECV. */
TEST_F(node, dropped_message_lets_go_of_its_handles)
{
	__u64 id = 8, h = TRANSFER(&self->a, id, &self->b), mine = 16;
	struct bus1_cmd_recv recv;

	ASSERT_EQ(0, bus1_send_handles(self->b.fd, h, &mine, 1));
	ASSERT_EQ(0, bus1_nodes_destroy(self->a.fd, RELEASE_HANDLES, &id, 1));
	EXPECT_EQ(POLLOUT, peer_poll(self->a.fd));
	EXPECT_EQ(-EAGAIN, bus1_recv(self->a.fd, 0, &recv));
	RECV_DESTROY(&self->b, h);
	RECV_RELEASE(&self->b, mine);
	RECV_NONE(&self->b);
}

/*
 * Many
 */

#define MANY 10000

TEST_F(node, ten_thousand_nodes_with_two_holders)
{
	struct peer *peers[] = { &self->a, &self->b, &self->c };
	__u64 *ids = calloc(MANY, sizeof(*ids)), dst;
	struct bus1_cmd_recv recv;
	int i, j;

	ASSERT_NE(NULL, ids);
	for (i = 0; i < MANY; i++) {
		ids[i] = 8 * (i + 1);
		for (j = 1; j < 3; j++)
			ASSERT_EQ(0, bus1_handle_transfer(self->a.fd, ids[i],
							  peers[j]->fd, &dst));
	}
	ASSERT_EQ(0, bus1_nodes_destroy(self->a.fd, 0, ids, MANY));
	for (j = 0; j < 3; j++) {
		for (i = 0; i < MANY; i++) {
			recv = RECV(peers[j]);
			ASSERT_EQ(BUS1_MSG_NODE_DESTROY, recv.msg.type);
			ASSERT_EQ(i < MANY - 1 ? BUS1_MSG_FLAG_CONTINUE : 0,
				  recv.msg.flags);
			/* Fails the second time: so each is told once. */
			ASSERT_EQ(0, bus1_handle_release(peers[j]->fd,
							recv.msg.destination));
		}
		RECV_NONE(peers[j]);
		EXPECT_IDLE(peers[j]);
	}
	free(ids);
}

TEST_HARNESS_MAIN
