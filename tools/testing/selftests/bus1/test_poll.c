// SPDX-License-Identifier: GPL-2.0-only
/*
 * poll, select and epoll on a peer.
 */
#include "bus1_msg.h"
#include <sys/epoll.h>
#include <sys/select.h>

#define ALL	(POLLIN | POLLPRI | POLLOUT | POLLRDNORM | POLLRDBAND |	\
		 POLLWRNORM | POLLWRBAND | POLLRDHUP)
#define IDLE	(POLLOUT | POLLWRNORM)
#define READY	(POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM)
#define ROUNDS	200

FIXTURE(poll) {
	struct net net;
	int epoll;
};

FIXTURE_SETUP(poll)
{
	NET_INIT(&self->net);
	self->epoll = epoll_create1(EPOLL_CLOEXEC);
	ASSERT_LE(0, self->epoll);
}

FIXTURE_TEARDOWN(poll)
{
	net_deinit(&self->net);
	close(self->epoll);
}

static short poll_all(int fd)
{
	struct pollfd p = { .fd = fd, .events = ALL };

	return poll(&p, 1, 0) < 0 ? POLLNVAL : p.revents;
}

static int epoll_add(int epoll, int fd, __u32 events)
{
	struct epoll_event event = { .events = events, .data.fd = fd };

	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
}

/* What epoll says of its only file; timeout as in epoll_wait(). */
static __u32 epoll_get(int epoll, int timeout)
{
	struct epoll_event event = {};
	int n;

	do {
		n = epoll_wait(epoll, &event, 1, timeout);
	} while (n < 0 && errno == EINTR);
	return n == 1 ? event.events : 0;
}

TEST_F(poll, idle_peer_is_writable)
{
	EXPECT_EQ(IDLE, poll_all(self->net.b.fd));
}

TEST_F(poll, message_makes_it_readable)
{
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	peer_wait(self->net.b.fd);
	EXPECT_EQ(READY, poll_all(self->net.b.fd));
	EXPECT_EQ(IDLE, poll_all(self->net.a.fd));
	EXPECT_EQ(IDLE, poll_all(self->net.c.fd));
	RECV_STR(&self->net.b, NODE_B, "x");
	EXPECT_EQ(IDLE, poll_all(self->net.b.fd));
}

TEST_F(poll, readable_means_that_recv_returns_a_message)
{
	struct bus1_cmd_recv r;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
		peer_wait(self->net.b.fd);
		ASSERT_EQ(0, bus1_recv(self->net.b.fd, 0, &r));
		ASSERT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));
		ASSERT_EQ(IDLE, poll_all(self->net.b.fd));
	}
}

TEST_F(poll, notification_makes_it_readable)
{
	ASSERT_EQ(0, bus1_handle_release(self->net.a.fd, self->net.ab));
	peer_wait(self->net.b.fd);
	EXPECT_EQ(READY, poll_all(self->net.b.fd));
	RECV_RELEASE(&self->net.b, NODE_B);
	EXPECT_EQ(IDLE, poll_all(self->net.b.fd));
}

TEST_F(poll, seed_does_not_make_it_readable)
{
	ASSERT_EQ(0, msg_send(self->net.b.fd, .flags = BUS1_SEND_FLAG_SEED));
	EXPECT_EQ(IDLE, poll_all(self->net.b.fd));
}

TEST_F(poll, full_receiver_leaves_the_sender_writable)
{
	ASSERT_EQ(0, set_limits(self->net.b.fd, 0, 0, 0, 0));
	EXPECT_EQ(-EDQUOT, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	EXPECT_EQ(IDLE, poll_all(self->net.a.fd));
	EXPECT_EQ(IDLE, poll_all(self->net.b.fd));
}

TEST_F(poll, disconnected_peer_hangs_up_and_nothing_else)
{
	ASSERT_EQ(0, bus1_disconnect(self->net.b.fd));
	EXPECT_EQ(POLLHUP, poll_all(self->net.b.fd));
}

TEST_F(poll, disconnect_with_messages_hangs_up_and_nothing_else)
{
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	peer_wait(self->net.b.fd);
	ASSERT_EQ(0, bus1_disconnect(self->net.b.fd));
	EXPECT_EQ(POLLHUP, poll_all(self->net.b.fd));
}

static void *wait_for_events(void *arg)
{
	struct pollfd p = { .fd = *(int *)arg, .events = POLLIN };

	while (poll(&p, 1, -1) < 0 && errno == EINTR)
		;
	return (void *)(long)p.revents;
}

TEST_F(poll, disconnect_wakes_a_sleeping_poll)
{
	pthread_t thread;
	void *revents;

	ASSERT_EQ(0, pthread_create(&thread, NULL, wait_for_events,
				    &self->net.b.fd));
	ASSERT_EQ(0, bus1_disconnect(self->net.b.fd));
	ASSERT_EQ(0, pthread_join(thread, &revents));
	EXPECT_EQ(POLLHUP, (long)revents);
}

TEST_F(poll, message_wakes_a_sleeping_poll)
{
	pthread_t thread;
	void *revents;
	int i;

	for (i = 0; i < ROUNDS; i++) {
		ASSERT_EQ(0, pthread_create(&thread, NULL, wait_for_events,
					    &self->net.b.fd));
		ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
		ASSERT_EQ(0, pthread_join(thread, &revents));
		ASSERT_EQ(POLLIN, (long)revents);
		RECV_STR(&self->net.b, NODE_B, "x");
	}
}

TEST_F(poll, select_says_the_same)
{
	fd_set in, out, ex;
	struct timeval now = {};

	FD_ZERO(&in);
	FD_ZERO(&out);
	FD_ZERO(&ex);
	FD_SET(self->net.b.fd, &in);
	FD_SET(self->net.b.fd, &out);
	FD_SET(self->net.b.fd, &ex);
	ASSERT_EQ(1, select(self->net.b.fd + 1, &in, &out, &ex, &now));
	EXPECT_FALSE(FD_ISSET(self->net.b.fd, &in));
	EXPECT_TRUE(FD_ISSET(self->net.b.fd, &out));
	EXPECT_FALSE(FD_ISSET(self->net.b.fd, &ex));

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	FD_SET(self->net.b.fd, &in);
	ASSERT_EQ(1, select(self->net.b.fd + 1, &in, NULL, NULL, NULL));
	EXPECT_TRUE(FD_ISSET(self->net.b.fd, &in));
}

TEST_F(poll, level_triggered_epoll_repeats)
{
	int i;

	ASSERT_EQ(0, epoll_add(self->epoll, self->net.b.fd, EPOLLIN));
	EXPECT_EQ(0, epoll_get(self->epoll, 0));
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	EXPECT_EQ(EPOLLIN, epoll_get(self->epoll, -1));
	for (i = 0; i < 5; i++) {
		EXPECT_EQ(EPOLLIN, epoll_get(self->epoll, 0));
	}
	RECV_STR(&self->net.b, NODE_B, "x");
	EXPECT_EQ(0, epoll_get(self->epoll, 0));
}

TEST_F(poll, edge_triggered_epoll_wakes_at_each_change_to_ready)
{
	struct bus1_cmd_recv r;
	int i;

	ASSERT_EQ(0, epoll_add(self->epoll, self->net.b.fd,
			       EPOLLIN | EPOLLET));
	EXPECT_EQ(0, epoll_get(self->epoll, 0));
	for (i = 0; i < ROUNDS; i++) {
		ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
		ASSERT_EQ(EPOLLIN, epoll_get(self->epoll, -1));
		/* Drained, as users of edges must. */
		ASSERT_EQ(0, bus1_recv(self->net.b.fd, 0, &r));
		ASSERT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));
		ASSERT_EQ(-EAGAIN, bus1_recv(self->net.b.fd, 0, &r));
	}
}

TEST_F(poll, edge_triggered_epoll_wakes_for_multicasts)
{
	const __u64 dst[] = { self->net.ab, self->net.ac };
	int i;

	ASSERT_EQ(0, epoll_add(self->epoll, self->net.b.fd,
			       EPOLLIN | EPOLLET));
	for (i = 0; i < ROUNDS; i++) {
		ASSERT_EQ(0, bus1_send_to(self->net.a.fd, dst, 2, "x", 1, NULL,
					  0));
		ASSERT_EQ(EPOLLIN, epoll_get(self->epoll, -1));
		RECV_STR(&self->net.b, NODE_B, "x");
		RECV_STR(&self->net.c, NODE_C, "x");
		RECV_NONE(&self->net.b);
	}
}

TEST_F(poll, edge_triggered_epoll_wakes_for_notifications)
{
	__u64 id;
	int i;

	ASSERT_EQ(0, epoll_add(self->epoll, self->net.c.fd,
			       EPOLLIN | EPOLLET));
	for (i = 0; i < ROUNDS; i++) {
		NODE(&self->net.a, 0x1000 + 8 * i);
		id = TRANSFER(&self->net.a, 0x1000 + 8 * i, &self->net.c);
		ASSERT_EQ(0, bus1_node_destroy(self->net.a.fd, 0x1000 + 8 * i));
		ASSERT_EQ(EPOLLIN, epoll_get(self->epoll, -1));
		RECV_DESTROY(&self->net.c, id);
		RECV_NONE(&self->net.c);
	}
}

/* Sends, from a thread of its own, until everything was sent. */
struct sender {
	struct net *net;
	int ret;
};

static void *send_many(void *arg)
{
	struct sender *self = arg;
	__u64 i;

	for (i = 0; i < 20 * ROUNDS && !self->ret; i++)
		self->ret = bus1_send_data(self->net->a.fd, self->net->ab, &i,
					   sizeof(i));
	return NULL;
}

TEST_F(poll, edge_triggered_epoll_loses_no_wakeup_in_a_race)
{
	struct sender sender = { .net = &self->net };
	struct bus1_cmd_recv r;
	pthread_t thread;
	__u64 n = 0;
	int ret;

	ASSERT_EQ(0, epoll_add(self->epoll, self->net.b.fd,
			       EPOLLIN | EPOLLET));
	ASSERT_EQ(0, pthread_create(&thread, NULL, send_many, &sender));
	while (n < 20 * ROUNDS) {
		ASSERT_EQ(EPOLLIN, epoll_get(self->epoll, -1));
		while (!(ret = bus1_recv(self->net.b.fd, 0, &r))) {
			ASSERT_EQ(0, memcmp(slice_bytes(&self->net.b, &r), &n,
					    sizeof(n)));
			ASSERT_EQ(0, bus1_slice_release(self->net.b.fd,
							r.msg.offset));
			n++;
		}
		ASSERT_EQ(-EAGAIN, ret);
	}
	pthread_join(thread, NULL);
	EXPECT_EQ(0, sender.ret);
}

TEST_F(poll, epoll_reports_a_hangup)
{
	ASSERT_EQ(0, epoll_add(self->epoll, self->net.b.fd,
			       EPOLLIN | EPOLLOUT | EPOLLET));
	EXPECT_EQ(EPOLLOUT, epoll_get(self->epoll, 0));
	ASSERT_EQ(0, bus1_disconnect(self->net.b.fd));
	EXPECT_EQ(EPOLLHUP, epoll_get(self->epoll, -1));
}

TEST_F(poll, closed_peer_leaves_epoll)
{
	ASSERT_EQ(0, epoll_add(self->epoll, self->net.b.fd, EPOLLIN));
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	EXPECT_EQ(EPOLLIN, epoll_get(self->epoll, -1));
	peer_close(&self->net.b);
	EXPECT_EQ(0, epoll_get(self->epoll, 0));
}

TEST_F(poll, message_of_a_released_node_is_not_readable)
{
	const __u64 id = NODE_B;

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	peer_wait(self->net.b.fd);
	ASSERT_EQ(0, bus1_nodes_destroy(self->net.b.fd,
				BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES,
				&id, 1));
	EXPECT_EQ(0, bus1_drain_refs(self->net.b.fd, id));
	EXPECT_EQ(IDLE, poll_all(self->net.b.fd));
	RECV_NONE(&self->net.b);
	EXPECT_IDLE(&self->net.b);
}

TEST_F(poll, dropped_message_does_not_hide_the_next)
{
	const __u64 id = NODE_B;

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	ASSERT_EQ(0, bus1_send_str(self->net.b.fd, 0x1000, "y"));
	ASSERT_EQ(0, bus1_nodes_destroy(self->net.b.fd,
				BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES,
				&id, 1));
	EXPECT_EQ(0, bus1_drain_refs(self->net.b.fd, id));
	peer_wait(self->net.b.fd);
	EXPECT_EQ(READY, poll_all(self->net.b.fd));
	RECV_STR(&self->net.b, 0x1000, "y");
	EXPECT_EQ(IDLE, poll_all(self->net.b.fd));
	RECV_NONE(&self->net.b);
}

TEST_F(poll, release_taken_back_is_not_readable)
{
	ASSERT_EQ(0, bus1_handle_release(self->net.a.fd, self->net.ab));
	peer_wait(self->net.b.fd);
	EXPECT_EQ(READY, poll_all(self->net.b.fd));
	self->net.ab = TRANSFER(&self->net.b, NODE_B, &self->net.a);
	EXPECT_EQ(IDLE, poll_all(self->net.b.fd));
	RECV_NONE(&self->net.b);
}

TEST_F(poll, destruction_of_a_released_handle_is_not_readable)
{
	ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd, NODE_B));
	peer_wait(self->net.a.fd);
	EXPECT_EQ(READY, poll_all(self->net.a.fd));
	RECV_DESTROY(&self->net.a, self->net.ab);
	EXPECT_EQ(IDLE, poll_all(self->net.a.fd));
	EXPECT_EQ(1, bus1_drain_refs(self->net.a.fd, self->net.ab));
	EXPECT_EQ(IDLE, poll_all(self->net.a.fd));
}

TEST_HARNESS_MAIN
