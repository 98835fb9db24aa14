// SPDX-License-Identifier: GPL-2.0-only
/*
 * Handles: their IDs, how user references are counted, HANDLE_RELEASE. For
 * HANDLE_TRANSFER see test_transfer.c.
 */

#include "bus1_test.h"

FIXTURE(handle) {
	struct peer a, b, c;
};

FIXTURE_SETUP(handle)
{
	PEER_OPEN(&self->a);
	PEER_OPEN(&self->b);
	PEER_OPEN(&self->c);
}

FIXTURE_TEARDOWN(handle)
{
	peer_close(&self->a);
	peer_close(&self->b);
	peer_close(&self->c);
}

/*
 * IDs that nobody can have chosen, and that the kernel has not given out: it may
 * begin anywhere, but not with bit 2 set, nor where it gets after years.
 */
static const __u64 unknown_ids[] = {
	1, 2, 3, 5, 6, 7, 13, 14, 15, 0x100000007, 1ULL << 63 | 1,
	1ULL << 63 | 3, BUS1_HANDLE_INVALID, BUS1_HANDLE_INVALID - 1,
};

/* IDs that a user may choose. */
static const __u64 user_ids[] = {
	0, 4, 8, 12, 0x100000000, 0x7ffffffffffffffc, 1ULL << 63,
	BUS1_HANDLE_INVALID - 3,
};

/*
 * Whether @peer owns a node that it should not: with room for one handle, one
 * node can be made and a second can't. The peer must hold nothing else.
 */
static void expect_no_nodes(struct __test_metadata *_metadata,
			    struct peer *peer, int line)
{
	const __u64 probe[] = { 0xbadbad00, 0xbadbad10 };
	struct bus1_cmd_peer_reset old;

	ASSERT_EQ(0, bus1_query(peer->fd, &old));
	ASSERT_EQ(0, bus1_reset(peer->fd, RESET_KEEP(.max_handles = 1)));
	EXPECT_EQ(0, bus1_nodes_create(peer->fd, &probe[0], 1)) {
		TH_LOG("called from line %d", line);
	}
	EXPECT_EQ(-EDQUOT, bus1_nodes_create(peer->fd, &probe[1], 1)) {
		TH_LOG("called from line %d", line);
	}
	EXPECT_EQ(0, bus1_nodes_destroy(peer->fd,
			BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES, probe, 1));
	ASSERT_EQ(0, bus1_reset(peer->fd,
				RESET_KEEP(.max_handles = old.max_handles)));
}

#define EXPECT_NO_NODES(_peer) expect_no_nodes(_metadata, _peer, __LINE__)

/*
 * IDs
 */

TEST_F(handle, kernel_ids_are_managed_and_remote_with_bit_2_clear)
{
	__u64 id;
	int i;

	for (i = 0; i < 100; i++) {
		id = TRANSFER(&self->a, i * 4, &self->b);
		EXPECT_EQ(KERNEL_CHOSEN, id & 7);
		EXPECT_NE(BUS1_HANDLE_INVALID, id);
	}
}

TEST_F(handle, kernel_ids_differ)
{
	__u64 ids[100];
	int i, j;

	for (i = 0; i < 100; i++) {
		ids[i] = TRANSFER(&self->a, i * 4, &self->b);
		for (j = 0; j < i; j++)
			EXPECT_NE(ids[j], ids[i]);
	}
}

TEST_F(handle, kernel_ids_are_never_used_twice)
{
	__u64 ids[200];
	int i, j;

	NODE(&self->a, 8);
	for (i = 0; i < 200; i++) {
		ids[i] = TRANSFER(&self->a, 8, &self->b);
		for (j = 0; j < i; j++)
			ASSERT_NE(ids[j], ids[i]);
		ASSERT_EQ(0, bus1_handle_release(self->b.fd, ids[i]));
	}
}

TEST_F(handle, kernel_ids_are_not_used_twice_after_a_flush)
{
	__u64 old = TRANSFER(&self->a, 8, &self->b);

	ASSERT_EQ(0, bus1_flush(self->b.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	EXPECT_EQ(-ENXIO, bus1_send_str(self->b.fd, old, "x"));
	EXPECT_NE(old, TRANSFER(&self->a, 8, &self->b));
}

TEST_F(handle, received_kernel_ids_are_managed_and_remote)
{
	__u64 h = TRANSFER(&self->b, 8, &self->a), id = 16, got;

	ASSERT_EQ(0, bus1_send_handles(self->a.fd, h, &id, 1));
	got = RECV_ONE_HANDLE(&self->b);
	EXPECT_EQ(KERNEL_CHOSEN, got & 7);
	EXPECT_EQ(0, bus1_send_str(self->b.fd, got, "x"));
	RECV_STR(&self->a, id, "x");
}

TEST_F(handle, users_choose_any_id_with_low_bits_clear)
{
	size_t i;
	__u64 h;

	for (i = 0; i < ARRAY_SIZE(user_ids); i++) {
		h = TRANSFER(&self->a, user_ids[i], &self->b);
		ASSERT_EQ(0, bus1_send_str(self->b.fd, h, "x"));
		RECV_STR(&self->a, user_ids[i], "x");
	}
}

TEST_F(handle, ids_are_private_to_a_peer)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	EXPECT_EQ(-ENXIO, bus1_send_str(self->c.fd, h, "x"));
	EXPECT_EQ(-ENXIO, bus1_send_str(self->a.fd, h, "x"));
	RECV_NONE(&self->a);
}

TEST_F(handle, one_handle_per_peer_and_node)
{
	__u64 id = NODE(&self->a, 8), hc, hb, mine = NODE(&self->b, 16), to_b;

	hb = TRANSFER(&self->a, id, &self->b);
	EXPECT_EQ(hb, TRANSFER(&self->a, id, &self->b));
	/* By another way: through c, and in a message. */
	hc = TRANSFER(&self->a, id, &self->c);
	EXPECT_EQ(hb, TRANSFER(&self->c, hc, &self->b));
	to_b = TRANSFER(&self->b, mine, &self->c);
	ASSERT_EQ(0, bus1_send_handles(self->c.fd, to_b, &hc, 1));
	EXPECT_EQ(hb, RECV_ONE_HANDLE(&self->b));
	/* Four times shown, so four references. */
	EXPECT_EQ(4, bus1_drain_refs(self->b.fd, hb));
}

/*
 * Unknown IDs: ENXIO from every command, and nothing happens
 */

TEST_F(handle, release_unknown_is_enxio)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(unknown_ids); i++)
		EXPECT_EQ(-ENXIO, bus1_handle_release(self->a.fd,
						      unknown_ids[i]));
	EXPECT_IDLE(&self->a);
}

TEST_F(handle, transfer_unknown_is_enxio)
{
	size_t i;
	__u64 dst;

	for (i = 0; i < ARRAY_SIZE(unknown_ids); i++) {
		EXPECT_EQ(-ENXIO, bus1_handle_transfer(self->a.fd,
					unknown_ids[i], self->b.fd, &dst));
		EXPECT_EQ(BUS1_HANDLE_INVALID, dst);
		EXPECT_EQ(-ENXIO, bus1_handle_transfer(self->a.fd,
					unknown_ids[i], -1, &dst));
		EXPECT_EQ(BUS1_HANDLE_INVALID, dst);
	}
	EXPECT_IDLE(&self->a);
	EXPECT_IDLE(&self->b);
}

TEST_F(handle, send_to_unknown_is_enxio)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(unknown_ids); i++)
		EXPECT_EQ(-ENXIO, bus1_send_str(self->a.fd, unknown_ids[i],
						"x"));
	RECV_NONE(&self->a);
	EXPECT_IDLE(&self->a);
}

TEST_F(handle, send_of_unknown_handle_is_enxio)
{
	__u64 h = TRANSFER(&self->b, 8, &self->a);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(unknown_ids); i++)
		EXPECT_EQ(-ENXIO, bus1_send_handles(self->a.fd, h,
						    &unknown_ids[i], 1));
	RECV_NONE(&self->b);
	EXPECT_EQ(1, bus1_drain_refs(self->a.fd, h));
}

TEST_F(handle, destroy_of_unknown_is_enxio)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(unknown_ids); i++)
		EXPECT_EQ(-ENXIO, bus1_node_destroy(self->a.fd,
						    unknown_ids[i]));
	EXPECT_IDLE(&self->a);
}

/*
 * Nodes come to be by any command that takes a handle
 */

TEST_F(handle, send_of_a_new_id_creates_the_node)
{
	__u64 h = TRANSFER(&self->b, 8, &self->a), id = 16, got;

	ASSERT_EQ(0, bus1_send_handles(self->a.fd, h, &id, 1));
	got = RECV_ONE_HANDLE(&self->b);
	ASSERT_EQ(0, bus1_send_str(self->b.fd, got, "x"));
	RECV_STR(&self->a, id, "x");
}

TEST_F(handle, send_to_nobody_creates_the_nodes)
{
	const __u64 ids[] = { 8, 16, 24, 16, 8 };
	int i;

	ASSERT_EQ(0, bus1_nodes_create(self->a.fd, ids, ARRAY_SIZE(ids)));
	RECV_NONE(&self->a);
	for (i = 0; i < 3; i++)
		EXPECT_EQ(-EBUSY, bus1_handle_release(self->a.fd, ids[i]));
	EXPECT_EQ(0, bus1_nodes_destroy(self->a.fd,
			BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES, ids, 3));
	RECV_NONE(&self->a);
	EXPECT_IDLE(&self->a);
}

TEST_F(handle, send_to_a_new_id_creates_the_node)
{
	ASSERT_EQ(0, bus1_send_str(self->a.fd, 8, "x"));
	RECV_STR(&self->a, 8, "x");
	EXPECT_EQ(-EBUSY, bus1_handle_release(self->a.fd, 8));
	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, 8));
	RECV_DESTROY(&self->a, 8);
}

TEST_F(handle, new_id_as_destination_and_handle_is_one_node)
{
	__u64 id = 8;

	ASSERT_EQ(0, bus1_send_handles(self->a.fd, id, &id, 1));
	EXPECT_EQ(id, RECV_ONE_HANDLE(&self->a));
	EXPECT_EQ(1, bus1_drain_refs(self->a.fd, id));
	RECV_RELEASE(&self->a, id);
}

TEST_F(handle, transfer_of_a_new_id_creates_the_node)
{
	__u64 dst;

	ASSERT_EQ(0, bus1_handle_transfer(self->a.fd, 8, -1, &dst));
	EXPECT_EQ(8, dst);
	/* The one that was shown, beside the pinned one. */
	EXPECT_EQ(1, bus1_drain_refs(self->a.fd, 8));
	RECV_RELEASE(&self->a, 8);
}

TEST_F(handle, release_of_a_new_id_is_ebusy_and_creates_nothing)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(user_ids); i++)
		EXPECT_EQ(-EBUSY, bus1_handle_release(self->a.fd, user_ids[i]));
	EXPECT_IDLE(&self->a);
	EXPECT_NO_NODES(&self->a);
}

TEST_F(handle, failed_send_creates_nothing)
{
	__u64 dests[2] = { 16, 3 }, id = 8;

	EXPECT_EQ(-ENXIO, bus1_send_to(self->a.fd, dests, 2, "x", 1, &id, 1));
	EXPECT_IDLE(&self->a);
	EXPECT_NO_NODES(&self->a);
	dests[1] = 16;
	EXPECT_EQ(-ENOTUNIQ, bus1_send_to(self->a.fd, dests, 2, "x", 1, &id,
					  1));
	EXPECT_IDLE(&self->a);
	EXPECT_NO_NODES(&self->a);
	RECV_NONE(&self->a);
}

TEST_F(handle, send_that_faults_creates_nothing)
{
	__u64 id = 8;
	struct iovec vec = { (void *)(uintptr_t)BAD_PTR, 1 };
	struct bus1_cmd_send send = {
		.ptr_destinations = ptr(&id), .n_destinations = 1,
		.ptr_vecs = ptr(&vec), .n_vecs = 1,
	};

	EXPECT_EQ(-EFAULT, bus1_send(self->a.fd, &send));
	RECV_NONE(&self->a);
	EXPECT_IDLE(&self->a);
	EXPECT_NO_NODES(&self->a);
}

TEST_F(handle, failed_transfer_creates_nothing)
{
	__u64 dst;

	EXPECT_EQ(-EBADF, bus1_handle_transfer(self->a.fd, 8, -2, &dst));
	EXPECT_IDLE(&self->a);
	EXPECT_NO_NODES(&self->a);
}

TEST_F(handle, transfer_to_a_disconnected_peer_creates_nothing)
{
	__u64 dst;

	ASSERT_EQ(0, bus1_disconnect(self->b.fd));
	EXPECT_EQ(-ESHUTDOWN, bus1_handle_transfer(self->a.fd, 8, self->b.fd,
						   &dst));
	EXPECT_IDLE(&self->a);
	EXPECT_NO_NODES(&self->a);
}

TEST_F(handle, failed_destroy_creates_nothing)
{
	const __u64 ids[] = { 8, 3 }, twice[] = { 8, 8 };

	EXPECT_EQ(-ENXIO, bus1_nodes_destroy(self->a.fd, 0, ids, 2));
	RECV_NONE(&self->a);
	EXPECT_IDLE(&self->a);
	EXPECT_EQ(-ENOTUNIQ, bus1_nodes_destroy(self->a.fd, 0, twice, 2));
	RECV_NONE(&self->a);
	EXPECT_IDLE(&self->a);
	EXPECT_NO_NODES(&self->a);
}

/*
 * User references
 */

TEST_F(handle, each_transfer_adds_one)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);
	int i;

	for (i = 0; i < 9; i++)
		EXPECT_EQ(h, TRANSFER(&self->a, 8, &self->b));
	for (i = 0; i < 10; i++) {
		EXPECT_EQ(0, bus1_send_str(self->b.fd, h, "x"));
		RECV_STR(&self->a, 8, "x");
		EXPECT_EQ(0, bus1_handle_release(self->b.fd, h));
	}
	EXPECT_EQ(-ENXIO, bus1_handle_release(self->b.fd, h));
	EXPECT_EQ(-ENXIO, bus1_send_str(self->b.fd, h, "x"));
}

TEST_F(handle, each_entry_of_a_received_array_adds_one)
{
	__u64 to_b = TRANSFER(&self->b, 8, &self->a);
	const __u64 ids[] = { 16, 24, 16, 16, 24 };
	struct bus1_cmd_recv recv;
	__u64 h[5];
	int i;

	ASSERT_EQ(0, bus1_send_to(self->a.fd, &to_b, 1, "abc", 3, ids, 5));
	recv = RECV(&self->b);
	ASSERT_EQ(5, recv.msg.n_handles);
	for (i = 0; i < 5; i++)
		h[i] = recv_handle(&self->b, &recv, i);
	EXPECT_EQ(h[0], h[2]);
	EXPECT_EQ(h[0], h[3]);
	EXPECT_EQ(h[1], h[4]);
	EXPECT_NE(h[0], h[1]);
	EXPECT_EQ(3, bus1_drain_refs(self->b.fd, h[0]));
	EXPECT_EQ(2, bus1_drain_refs(self->b.fd, h[1]));
}

TEST_F(handle, releasing_the_slice_keeps_the_references)
{
	__u64 to_b = TRANSFER(&self->b, 8, &self->a), id = 16, h;

	ASSERT_EQ(0, bus1_send_handles(self->a.fd, to_b, &id, 1));
	h = RECV_ONE_HANDLE(&self->b);
	EXPECT_EQ(1, bus1_drain_refs(self->b.fd, h));
}

TEST_F(handle, sending_moves_no_count_of_the_sender)
{
	__u64 to_b = TRANSFER(&self->b, 8, &self->a);
	__u64 h = TRANSFER(&self->c, 8, &self->a);
	const __u64 ids[] = { h, h, h };
	int i;

	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, bus1_send_handles(self->a.fd, to_b, ids, 3));
	EXPECT_EQ(1, bus1_drain_refs(self->a.fd, h));
	EXPECT_EQ(1, bus1_drain_refs(self->a.fd, to_b));
}

TEST_F(handle, own_handle_that_comes_back_counts)
{
	__u64 to_b = TRANSFER(&self->b, 8, &self->a);
	__u64 h = TRANSFER(&self->b, 16, &self->a);
	const __u64 ids[] = { h, to_b, h };
	struct bus1_cmd_recv recv;

	ASSERT_EQ(0, bus1_send_handles(self->a.fd, to_b, ids, 3));
	recv = RECV(&self->b);
	ASSERT_EQ(3, recv.msg.n_handles);
	/* The owner gets its own IDs back. */
	EXPECT_EQ(16, recv_handle(&self->b, &recv, 0));
	EXPECT_EQ(8, recv_handle(&self->b, &recv, 1));
	EXPECT_EQ(16, recv_handle(&self->b, &recv, 2));
	EXPECT_EQ(2, bus1_drain_refs(self->b.fd, 16));
	EXPECT_EQ(1, bus1_drain_refs(self->b.fd, 8));
	EXPECT_EQ(-EBUSY, bus1_handle_release(self->b.fd, 16));
	RECV_NONE(&self->b);
}

TEST_F(handle, destruction_by_the_owner_moves_no_count_of_a_holder)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	TRANSFER(&self->a, 8, &self->b);
	TRANSFER(&self->a, 8, &self->b);
	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, 8));
	RECV_DESTROY(&self->b, h);
	EXPECT_EQ(3, bus1_drain_refs(self->b.fd, h));
	RECV_NONE(&self->b);
}

TEST_F(handle, disconnect_of_the_owner_moves_no_count_of_a_holder)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	TRANSFER(&self->a, 8, &self->b);
	ASSERT_EQ(0, bus1_disconnect(self->a.fd));
	EXPECT_EQ(2, bus1_drain_refs(self->b.fd, h));
	RECV_NONE(&self->b);
}

TEST_F(handle, release_by_one_peer_moves_no_count_of_another)
{
	__u64 hb = TRANSFER(&self->a, 8, &self->b);
	__u64 hc = TRANSFER(&self->a, 8, &self->c);

	EXPECT_EQ(1, bus1_drain_refs(self->b.fd, hb));
	EXPECT_EQ(1, bus1_drain_refs(self->c.fd, hc));
}

TEST_F(handle, failed_recv_moves_no_count)
{
	__u64 to_b = TRANSFER(&self->b, 8, &self->a), id = 16, h;
	struct bus1_cmd_recv recv;

	ASSERT_EQ(0, bus1_send_handles(self->a.fd, to_b, &id, 1));
	peer_wait(self->b.fd);
	bus1_recv_init(&recv, 0);
	recv.max_offset = 0;
	EXPECT_EQ(-ERANGE, bus1_ioctl(self->b.fd, BUS1_CMD_RECV, &recv));
	EXPECT_TRUE(bus1_recv_untouched(&recv));
	EXPECT_EQ(POLLIN | POLLOUT, peer_poll(self->b.fd));
	h = RECV_ONE_HANDLE(&self->b);
	EXPECT_EQ(1, bus1_drain_refs(self->b.fd, h));
	RECV_RELEASE(&self->a, id);
}

/*
 * HANDLE_RELEASE
 */

TEST_F(handle, release_of_bad_memory_is_efault)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	EXPECT_EQ(-EFAULT, bus1_ioctl(self->b.fd, BUS1_CMD_HANDLE_RELEASE,
				      (void *)(uintptr_t)BAD_PTR));
	EXPECT_EQ(-EFAULT, bus1_ioctl(self->b.fd, BUS1_CMD_HANDLE_RELEASE,
				      NULL));
	EXPECT_EQ(1, bus1_drain_refs(self->b.fd, h));
}

TEST_F(handle, release_of_the_pinned_reference_is_ebusy)
{
	NODE(&self->a, 8);
	EXPECT_EQ(-EBUSY, bus1_handle_release(self->a.fd, 8));
	EXPECT_EQ(-EBUSY, bus1_handle_release(self->a.fd, 8));
	EXPECT_EQ(0, bus1_send_str(self->a.fd, 8, "alive"));
	RECV_STR(&self->a, 8, "alive");
}

TEST_F(handle, release_of_the_last_extra_own_reference_then_ebusy)
{
	__u64 dst;

	NODE(&self->a, 8);
	ASSERT_EQ(0, bus1_handle_transfer(self->a.fd, 8, -1, &dst));
	EXPECT_EQ(0, bus1_handle_release(self->a.fd, 8));
	EXPECT_EQ(-EBUSY, bus1_handle_release(self->a.fd, 8));
	RECV_RELEASE(&self->a, 8);
}

TEST_F(handle, release_at_zero_the_id_is_gone)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b), dst;

	EXPECT_EQ(0, bus1_handle_release(self->b.fd, h));
	EXPECT_EQ(-ENXIO, bus1_handle_release(self->b.fd, h));
	EXPECT_EQ(-ENXIO, bus1_send_str(self->b.fd, h, "x"));
	EXPECT_EQ(-ENXIO, bus1_send_handles(self->b.fd, 8, &h, 1));
	EXPECT_EQ(-ENXIO, bus1_handle_transfer(self->b.fd, h, -1, &dst));
	EXPECT_EQ(-ENXIO, bus1_node_destroy(self->b.fd, h));
	EXPECT_IDLE(&self->b);
}

TEST_F(handle, release_of_a_destroyed_own_node_frees_its_id)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b), h2;

	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, 8));
	RECV_DESTROY(&self->a, 8);
	/* Not pinned any more. */
	EXPECT_EQ(0, bus1_handle_release(self->a.fd, 8));
	/* Not in use, so it would be a new node. */
	EXPECT_EQ(-EBUSY, bus1_handle_release(self->a.fd, 8));
	RECV_DESTROY(&self->b, h);
	h2 = TRANSFER(&self->a, 8, &self->b);
	EXPECT_NE(h, h2);
	EXPECT_EQ(-EHOSTUNREACH, bus1_send_str(self->b.fd, h, "old"));
	EXPECT_EQ(0, bus1_send_str(self->b.fd, h2, "new"));
	RECV_STR(&self->a, 8, "new");
}

TEST_F(handle, release_of_a_dead_remote_handle_is_fine)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, 8));
	RECV_DESTROY(&self->b, h);
	EXPECT_EQ(0, bus1_handle_release(self->b.fd, h));
	EXPECT_EQ(-ENXIO, bus1_handle_release(self->b.fd, h));
	EXPECT_IDLE(&self->b);
}

TEST_F(handle, everything_released_leaves_nothing)
{
	__u64 ids[64], h;
	int i, j;

	for (i = 0; i < 64; i++) {
		ids[i] = i * 8;
		h = TRANSFER(&self->a, ids[i], &self->b);
		for (j = 0; j < i % 4; j++)
			TRANSFER(&self->b, h, &self->c);
		ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	}
	ASSERT_EQ(0, bus1_nodes_destroy(self->a.fd,
			BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES, ids, 64));
	while (peer_poll(self->c.fd) & POLLIN)
		bus1_drain_refs(self->c.fd, RECV(&self->c).msg.destination);
	RECV_NONE(&self->a);
	EXPECT_IDLE(&self->a);
	EXPECT_IDLE(&self->b);
	EXPECT_IDLE(&self->c);
}

TEST_HARNESS_MAIN
