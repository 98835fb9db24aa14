// SPDX-License-Identifier: GPL-2.0-only
/*
 * NODE_RELEASE: when an owner is told that nobody else can reach its node any
 * more, when it is not, and when the notification is taken back.
 */

#include "bus1_test.h"

FIXTURE(release) {
	struct peer a, b, c;
};

FIXTURE_SETUP(release)
{
	PEER_OPEN(&self->a);
	PEER_OPEN(&self->b);
	PEER_OPEN(&self->c);
}

FIXTURE_TEARDOWN(release)
{
	peer_close(&self->a);
	peer_close(&self->b);
	peer_close(&self->c);
}

TEST_F(release, by_the_only_holder)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	RECV_NONE(&self->a);
	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	RECV_RELEASE(&self->a, 8);
	RECV_NONE(&self->a);
}

TEST_F(release, comes_again_each_time)
{
	__u64 h;
	int i;

	for (i = 0; i < 10; i++) {
		h = TRANSFER(&self->a, 8, &self->b);
		ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
		RECV_RELEASE(&self->a, 8);
		RECV_NONE(&self->a);
	}
}

TEST_F(release, of_a_new_node_does_not_come)
{
	NODE(&self->a, 8);
	RECV_NONE(&self->a);
}

TEST_F(release, of_a_node_that_was_only_sent_to_does_not_come)
{
	ASSERT_EQ(0, bus1_send_str(self->a.fd, 8, "x"));
	RECV_STR(&self->a, 8, "x");
	RECV_NONE(&self->a);
}

TEST_F(release, waits_for_the_last_user_reference)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	TRANSFER(&self->a, 8, &self->b);
	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	RECV_NONE(&self->a);
	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	RECV_RELEASE(&self->a, 8);
}

TEST_F(release, waits_for_the_last_holder)
{
	__u64 hb = TRANSFER(&self->a, 8, &self->b);
	__u64 hc = TRANSFER(&self->b, hb, &self->c);

	ASSERT_EQ(0, bus1_handle_release(self->b.fd, hb));
	RECV_NONE(&self->a);
	ASSERT_EQ(0, bus1_handle_release(self->c.fd, hc));
	RECV_RELEASE(&self->a, 8);
	RECV_NONE(&self->a);
}

TEST_F(release, waits_for_references_in_queues)
{
	__u64 to_b = TRANSFER(&self->b, 8, &self->a), id = 16, h;

	ASSERT_EQ(0, bus1_send_handles(self->a.fd, to_b, &id, 1));
	RECV_NONE(&self->a);
	h = RECV_ONE_HANDLE(&self->b);
	RECV_NONE(&self->a);
	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	RECV_RELEASE(&self->a, id);
}

TEST_F(release, waits_for_a_reference_passed_on)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);
	__u64 to_c = TRANSFER(&self->c, 16, &self->b), hc;

	/* b's own reference goes while c's is still in the queue. */
	ASSERT_EQ(0, bus1_send_handles(self->b.fd, to_c, &h, 1));
	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	RECV_NONE(&self->a);
	hc = RECV_ONE_HANDLE(&self->c);
	RECV_NONE(&self->a);
	ASSERT_EQ(0, bus1_send_str(self->c.fd, hc, "x"));
	RECV_STR(&self->a, 8, "x");
	ASSERT_EQ(0, bus1_handle_release(self->c.fd, hc));
	RECV_RELEASE(&self->a, 8);
}

TEST_F(release, comes_when_the_queue_is_gone)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);
	__u64 to_c = TRANSFER(&self->c, 16, &self->b);

	ASSERT_EQ(0, bus1_send_handles(self->b.fd, to_c, &h, 1));
	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	RECV_NONE(&self->a);
	ASSERT_EQ(0, bus1_disconnect(self->c.fd));
	RECV_RELEASE(&self->a, 8);
	RECV_NONE(&self->a);
}

TEST_F(release, comes_after_a_send_of_the_own_handle_to_itself)
{
	__u64 id = 8;

	ASSERT_EQ(0, bus1_send_handles(self->a.fd, 16, &id, 1));
	EXPECT_EQ(8, RECV_ONE_HANDLE(&self->a));
	RECV_NONE(&self->a);
	ASSERT_EQ(0, bus1_handle_release(self->a.fd, 8));
	RECV_RELEASE(&self->a, 8);
	RECV_NONE(&self->a);
}

TEST_F(release, of_the_owners_own_extra_reference)
{
	TRANSFER(&self->a, 8, &self->a);
	RECV_NONE(&self->a);
	ASSERT_EQ(0, bus1_handle_release(self->a.fd, 8));
	RECV_RELEASE(&self->a, 8);
	RECV_NONE(&self->a);
}

TEST_F(release, waits_for_the_owners_extra_reference)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	TRANSFER(&self->a, 8, &self->a);
	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	RECV_NONE(&self->a);
	ASSERT_EQ(0, bus1_handle_release(self->a.fd, 8));
	RECV_RELEASE(&self->a, 8);
	RECV_NONE(&self->a);
}

TEST_F(release, by_disconnect_of_the_holder)
{
	TRANSFER(&self->a, 8, &self->b);
	ASSERT_EQ(0, bus1_disconnect(self->b.fd));
	RECV_RELEASE(&self->a, 8);
	RECV_NONE(&self->a);
}

TEST_F(release, by_flush_of_the_holder)
{
	TRANSFER(&self->a, 8, &self->b);
	ASSERT_EQ(0, bus1_flush(self->b.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	RECV_RELEASE(&self->a, 8);
	RECV_NONE(&self->a);
}

TEST_F(release, is_taken_back_by_a_new_holder)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	ASSERT_EQ(POLLIN | POLLOUT, peer_poll(self->a.fd));
	h = TRANSFER(&self->a, 8, &self->c);
	RECV_NONE(&self->a);
	ASSERT_EQ(0, bus1_handle_release(self->c.fd, h));
	RECV_RELEASE(&self->a, 8);
	RECV_NONE(&self->a);
}

TEST_F(release, is_taken_back_by_the_owners_own_reference)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	TRANSFER(&self->a, 8, &self->a);
	RECV_NONE(&self->a);
	ASSERT_EQ(0, bus1_handle_release(self->a.fd, 8));
	RECV_RELEASE(&self->a, 8);
}

TEST_F(release, is_taken_back_by_a_message)
{
	__u64 to_c = TRANSFER(&self->c, 16, &self->a);
	__u64 h = TRANSFER(&self->a, 8, &self->b), id = 8;

	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	ASSERT_EQ(0, bus1_send_handles(self->a.fd, to_c, &id, 1));
	RECV_NONE(&self->a);
	h = RECV_ONE_HANDLE(&self->c);
	ASSERT_EQ(0, bus1_handle_release(self->c.fd, h));
	RECV_RELEASE(&self->a, 8);
	RECV_NONE(&self->a);
}

TEST_F(release, is_not_taken_back_by_a_failed_send)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b), id = 8;

	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	EXPECT_EQ(-ENXIO, bus1_send_handles(self->a.fd, 3, &id, 1));
	RECV_RELEASE(&self->a, 8);
	RECV_NONE(&self->a);
}

TEST_F(release, comes_after_the_messages_of_the_last_holder)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	ASSERT_EQ(0, bus1_send_str(self->b.fd, h, "1"));
	ASSERT_EQ(0, bus1_send_str(self->b.fd, h, "2"));
	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	RECV_STR(&self->a, 8, "1");
	RECV_STR(&self->a, 8, "2");
	RECV_RELEASE(&self->a, 8);
	RECV_NONE(&self->a);
}

TEST_F(release, is_before_what_is_sent_later)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);
	__u64 other = TRANSFER(&self->a, 16, &self->c);

	ASSERT_EQ(0, bus1_send_str(self->c.fd, other, "before"));
	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	ASSERT_EQ(0, bus1_send_str(self->c.fd, other, "after"));
	RECV_STR(&self->a, 16, "before");
	RECV_RELEASE(&self->a, 8);
	RECV_STR(&self->a, 16, "after");
	RECV_NONE(&self->a);
}

TEST_F(release, of_a_destroyed_node_does_not_come)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, 8));
	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	RECV_DESTROY(&self->a, 8);
	RECV_NONE(&self->a);
}

/* It may still come before the destruction, as it was ordered before. */
TEST_F(release, is_not_after_the_destruction)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);
	struct bus1_cmd_recv recv;

	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, 8));
	recv = RECV(&self->a);
	EXPECT_EQ(8, recv.msg.destination);
	if (recv.msg.type == BUS1_MSG_NODE_RELEASE)
		recv = RECV(&self->a);
	EXPECT_EQ(BUS1_MSG_NODE_DESTROY, recv.msg.type);
	EXPECT_EQ(8, recv.msg.destination);
	RECV_NONE(&self->a);
	EXPECT_EQ(1, bus1_drain_refs(self->a.fd, 8));
	EXPECT_IDLE(&self->a);
}

TEST_F(release, queued_is_gone_with_the_owners_last_reference)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b), id = 8;

	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	ASSERT_EQ(0, bus1_nodes_destroy(self->a.fd,
			BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES, &id, 1));
	RECV_NONE(&self->a);
	EXPECT_IDLE(&self->a);
}

/* Notifications need no slice and no budget. */
TEST_F(release, comes_without_any_budget)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);
	struct bus1_cmd_recv recv;

	ASSERT_EQ(0, bus1_reset(self->a.fd,
				RESET_KEEP(.max_slices = 0, .max_handles = 0,
					   .max_inflight_bytes = 0)));
	ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	peer_wait(self->a.fd);
	bus1_recv_init(&recv, 0);
	recv.max_offset = 0;
	ASSERT_EQ(0, bus1_ioctl(self->a.fd, BUS1_CMD_RECV, &recv));
	EXPECT_EQ(BUS1_MSG_NODE_RELEASE, recv.msg.type);
	EXPECT_EQ(8, recv.msg.destination);
	ASSERT_EQ(0, bus1_node_destroy(self->a.fd, 8));
	bus1_recv_init(&recv, 0);
	recv.max_offset = 0;
	peer_wait(self->a.fd);
	ASSERT_EQ(0, bus1_ioctl(self->a.fd, BUS1_CMD_RECV, &recv));
	EXPECT_EQ(BUS1_MSG_NODE_DESTROY, recv.msg.type);
	EXPECT_EQ(8, recv.msg.destination);
}

/*
 * Two threads that take and drop the only reference: what is told in the end
 * must agree with what is there.
 */
struct dropper {
	int fd, to_fd;
	int n;
};

static void *drop_thread(void *arg)
{
	struct dropper *d = arg;
	__u64 dst;
	int i;

	for (i = 0; i < d->n; i++)
		if (!bus1_handle_transfer(d->fd, 8, d->to_fd, &dst))
			bus1_handle_release(d->to_fd, dst);
	return NULL;
}

TEST_F(release, races_end_with_exactly_one)
{
	struct dropper d[2] = {
		{ self->a.fd, self->b.fd, 2000 },
		{ self->a.fd, self->c.fd, 2000 },
	};
	struct bus1_cmd_recv recv;
	pthread_t thread[2];
	__u64 dst;
	int i, r;

	NODE(&self->a, 8);
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, drop_thread,
					    &d[i]));
	for (i = 0; i < 2000; i++) {
		r = bus1_recv(self->a.fd, 0, &recv);
		if (r == -EAGAIN)
			continue;
		ASSERT_EQ(0, r);
		EXPECT_EQ(BUS1_MSG_NODE_RELEASE, recv.msg.type);
		EXPECT_EQ(8, recv.msg.destination);
	}
	for (i = 0; i < 2; i++)
		pthread_join(thread[i], NULL);
	/* One more, so that there surely is one to come; whatever is left. */
	dst = TRANSFER(&self->a, 8, &self->b);
	RECV_NONE(&self->a);
	ASSERT_EQ(0, bus1_handle_release(self->b.fd, dst));
	RECV_RELEASE(&self->a, 8);
	RECV_NONE(&self->a);
}

/*
 * A SEND that has much to clean up behind itself: most of its destinations do not
 * exist any more. The receiver meanwhile gets the handle, drops it, and destroys a
 * node of its own: that is the order in which the owner of the handle hears of it.
 */

#define GONE 3000

struct taker {
	struct peer *peer;
	__u64 node;
	int r;
};

static void *taker_thread(void *arg)
{
	struct taker *t = arg;
	struct bus1_cmd_recv recv;
	int fd = t->peer->fd;

	do {
		t->r = bus1_recv(fd, 0, &recv);
	} while (t->r == -EAGAIN);
	if (!t->r)
		t->r = bus1_handle_release(fd, recv_handle(t->peer, &recv, 0));
	if (!t->r)
		t->r = bus1_slice_release(fd, recv.msg.offset);
	if (!t->r)
		t->r = bus1_node_destroy(fd, t->node);
	return NULL;
}

TEST_F(release, does_not_wait_for_the_send_that_gave_the_handle)
{
	static __u64 ids[GONE], dests[GONE + 1];
	struct bus1_cmd_send send = {
		.flags = BUS1_SEND_FLAG_CONTINUE,
		.ptr_destinations = ptr(dests),
		.n_destinations = GONE + 1,
		.n_handles = 1,
	};
	struct taker taker = { .peer = &self->b };
	struct bus1_cmd_recv recv;
	pthread_t thread;
	__u64 own;
	int i;

	for (i = 0; i < GONE; i++) {
		ids[i] = 0x1000 + 4 * i;
		dests[i + 1] = TRANSFER(&self->c, ids[i], &self->a);
	}
	ASSERT_EQ(0, bus1_nodes_destroy(self->c.fd, 0, ids, GONE));
	for (i = 0; i < GONE; i++)
		RECV(&self->a);
	RECV_NONE(&self->a);

	for (i = 0; i < 20; i++) {
		taker.node = 0x100 + 4 * i;
		own = 0x800 + 4 * i;
		NODE(&self->b, taker.node);
		dests[0] = TRANSFER(&self->b, taker.node, &self->a);
		send.ptr_handles = ptr(&own);
		ASSERT_EQ(0, pthread_create(&thread, NULL, taker_thread,
					    &taker));
		EXPECT_EQ(0, bus1_send(self->a.fd, &send));
		pthread_join(thread, NULL);
		ASSERT_EQ(0, taker.r);
		RECV_RELEASE(&self->a, own);
		RECV_DESTROY(&self->a, dests[0]);
		RECV_NONE(&self->a);
		/* Its own notification */
		ASSERT_EQ(0, bus1_recv(self->b.fd, 0, &recv));
		ASSERT_EQ(BUS1_MSG_NODE_DESTROY, recv.msg.type);
		ASSERT_EQ(0, bus1_handle_release(self->a.fd, dests[0]));
	}
}

TEST_HARNESS_MAIN
