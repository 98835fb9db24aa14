// SPDX-License-Identifier: GPL-2.0-only
/*
 * RECV that waits, is interrupted, or meets others on the same peer.
 */
#include "bus1_msg.h"

#define N_THREADS	4
#define N_MESSAGES	2000

static int handled;

static void on_signal(int sig)
{
	__atomic_add_fetch(&handled, 1, __ATOMIC_SEQ_CST);
}

static void handle_signals(int flags)
{
	struct sigaction action = { .sa_handler = on_signal,
				    .sa_flags = flags };

	sigaction(SIGUSR1, &action, NULL);
}

/* A thread that receives one message, or fails to. */
struct receiver {
	pthread_t thread;
	struct bus1_cmd_recv r;
	__u64 flags;
	/* what it gives back */
	__u64 offset;
	int fd;
	int ret;
	pid_t tid;
	int done;
};

static void *receive(void *arg)
{
	struct receiver *self = arg;

	__atomic_store_n(&self->tid, syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	bus1_recv_init(&self->r, self->flags);
	if (self->flags & BUS1_RECV_FLAG_RELEASE)
		self->r.msg.offset = self->offset;
	self->ret = bus1_ioctl(self->fd, BUS1_CMD_RECV, &self->r);
	__atomic_store_n(&self->done, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

/* Starts a receiver, and returns when it sleeps. */
static int receiver_start_release(struct receiver *self, int fd, __u64 flags,
				  __u64 offset)
{
	*self = (struct receiver){ .fd = fd, .flags = flags, .offset = offset };
	if (pthread_create(&self->thread, NULL, receive, self))
		return -EAGAIN;
	while (!__atomic_load_n(&self->tid, __ATOMIC_SEQ_CST))
		sched_yield();
	while (!__atomic_load_n(&self->done, __ATOMIC_SEQ_CST) &&
	       !thread_sleeps(self->tid))
		sched_yield();
	return 0;
}

static int receiver_start(struct receiver *self, int fd, __u64 flags)
{
	return receiver_start_release(self, fd, flags, BUS1_OFFSET_INVALID);
}

static int receiver_join(struct receiver *self)
{
	pthread_join(self->thread, NULL);
	return self->ret;
}

FIXTURE(wait) {
	struct net net;
	struct receiver receiver[N_THREADS];
};

FIXTURE_SETUP(wait)
{
	int flags;

	handled = 0;
	NET_INIT(&self->net);
	flags = fcntl(self->net.b.fd, F_GETFL);
	ASSERT_EQ(0, fcntl(self->net.b.fd, F_SETFL, flags & ~O_NONBLOCK));
}

FIXTURE_TEARDOWN(wait)
{
	net_deinit(&self->net);
}

TEST_F(wait, message_wakes)
{
	struct receiver *r = &self->receiver[0];

	ASSERT_EQ(0, receiver_start(r, self->net.b.fd, 0));
	EXPECT_EQ(0, __atomic_load_n(&r->done, __ATOMIC_SEQ_CST));
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	ASSERT_EQ(0, receiver_join(r));
	EXPECT_EQ(BUS1_MSG_DATA, r->r.msg.type);
	EXPECT_EQ(NODE_B, r->r.msg.destination);
}

TEST_F(wait, multicast_wakes_everybody)
{
	const __u64 dst[] = { self->net.ab, self->net.ac };
	int flags = fcntl(self->net.c.fd, F_GETFL);

	ASSERT_EQ(0, fcntl(self->net.c.fd, F_SETFL, flags & ~O_NONBLOCK));
	ASSERT_EQ(0, receiver_start(&self->receiver[0], self->net.b.fd, 0));
	ASSERT_EQ(0, receiver_start(&self->receiver[1], self->net.c.fd, 0));
	ASSERT_EQ(0, bus1_send_to(self->net.a.fd, dst, 2, "x", 1, NULL, 0));
	EXPECT_EQ(0, receiver_join(&self->receiver[0]));
	EXPECT_EQ(0, receiver_join(&self->receiver[1]));
	EXPECT_EQ(NODE_B, self->receiver[0].r.msg.destination);
	EXPECT_EQ(NODE_C, self->receiver[1].r.msg.destination);
}

TEST_F(wait, release_notification_wakes)
{
	struct receiver *r = &self->receiver[0];

	ASSERT_EQ(0, receiver_start(r, self->net.b.fd, 0));
	ASSERT_EQ(0, bus1_handle_release(self->net.a.fd, self->net.ab));
	ASSERT_EQ(0, receiver_join(r));
	EXPECT_EQ(BUS1_MSG_NODE_RELEASE, r->r.msg.type);
	EXPECT_EQ(NODE_B, r->r.msg.destination);
}

TEST_F(wait, destroy_notification_wakes)
{
	struct receiver *r = &self->receiver[0];
	__u64 bc = TRANSFER(&self->net.c, NODE_C, &self->net.b);

	ASSERT_EQ(0, receiver_start(r, self->net.b.fd, 0));
	ASSERT_EQ(0, bus1_node_destroy(self->net.c.fd, NODE_C));
	ASSERT_EQ(0, receiver_join(r));
	EXPECT_EQ(BUS1_MSG_NODE_DESTROY, r->r.msg.type);
	EXPECT_EQ(bc, r->r.msg.destination);
}

TEST_F(wait, owner_that_goes_wakes)
{
	struct receiver *r = &self->receiver[0];
	__u64 bc = TRANSFER(&self->net.c, NODE_C, &self->net.b);

	ASSERT_EQ(0, receiver_start(r, self->net.b.fd, 0));
	peer_close(&self->net.c);
	ASSERT_EQ(0, receiver_join(r));
	EXPECT_EQ(BUS1_MSG_NODE_DESTROY, r->r.msg.type);
	EXPECT_EQ(bc, r->r.msg.destination);
}

TEST_F(wait, disconnect_wakes_with_eshutdown)
{
	int i;

	for (i = 0; i < N_THREADS; i++) {
		ASSERT_EQ(0, receiver_start(&self->receiver[i],
					    self->net.b.fd, 0));
	}
	ASSERT_EQ(0, bus1_disconnect(self->net.b.fd));
	for (i = 0; i < N_THREADS; i++) {
		EXPECT_EQ(-ESHUTDOWN, receiver_join(&self->receiver[i]));
	}
}

TEST_F(wait, flush_does_not_end_it)
{
	struct receiver *r = &self->receiver[0];

	ASSERT_EQ(0, receiver_start(r, self->net.b.fd, 0));
	ASSERT_EQ(0, bus1_flush(self->net.b.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	EXPECT_EQ(0, __atomic_load_n(&r->done, __ATOMIC_SEQ_CST));
	ASSERT_EQ(0, bus1_send_str(self->net.b.fd, 0x1000, "x"));
	ASSERT_EQ(0, receiver_join(r));
	EXPECT_EQ(0x1000, r->r.msg.destination);
}

TEST_F(wait, seed_never_blocks)
{
	struct bus1_cmd_recv r;

	EXPECT_EQ(-EAGAIN, bus1_recv(self->net.b.fd, BUS1_RECV_FLAG_SEED, &r));
}

TEST_F(wait, signal_is_eintr)
{
	struct receiver *r = &self->receiver[0];

	handle_signals(0);
	ASSERT_EQ(0, receiver_start(r, self->net.b.fd, 0));
	/* In case that it did not sleep in RECV yet: again until it returns. */
	while (!__atomic_load_n(&r->done, __ATOMIC_SEQ_CST)) {
		pthread_kill(r->thread, SIGUSR1);
		sched_yield();
	}
	EXPECT_EQ(-EINTR, receiver_join(r));
	EXPECT_TRUE(bus1_recv_untouched(&r->r));
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	RECV_STR(&self->net.b, NODE_B, "x");
}

TEST_F(wait, sa_restart_restarts)
{
	struct receiver *r = &self->receiver[0];
	int i;

	handle_signals(SA_RESTART);
	ASSERT_EQ(0, receiver_start(r, self->net.b.fd, 0));
	for (i = 1; i <= 20; i++) {
		pthread_kill(r->thread, SIGUSR1);
		while (__atomic_load_n(&handled, __ATOMIC_SEQ_CST) < i)
			sched_yield();
	}
	EXPECT_EQ(0, __atomic_load_n(&r->done, __ATOMIC_SEQ_CST));
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	ASSERT_EQ(0, receiver_join(r));
	EXPECT_EQ(NODE_B, r->r.msg.destination);
}

TEST_F(wait, release_is_done_before_it_waits_and_not_again)
{
	struct receiver *r = &self->receiver[0];
	struct bus1_cmd_recv first;
	int i;

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	first = RECV(&self->net.b);
	handle_signals(SA_RESTART);
	ASSERT_EQ(0, receiver_start_release(r, self->net.b.fd,
					    BUS1_RECV_FLAG_RELEASE,
					    first.msg.offset));
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-slices"));
	for (i = 1; i <= 20; i++) {
		pthread_kill(r->thread, SIGUSR1);
		while (__atomic_load_n(&handled, __ATOMIC_SEQ_CST) < i)
			sched_yield();
	}
	/* Were it done again, this would fail, or the next one be lost. */
	EXPECT_EQ(0, __atomic_load_n(&r->done, __ATOMIC_SEQ_CST));
	EXPECT_EQ(BUS1_OFFSET_INVALID, r->r.msg.offset);
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "y"));
	ASSERT_EQ(0, receiver_join(r));
	EXPECT_EQ(1, bus1_fdinfo(self->net.b.fd, "bus1-slices"));
	EXPECT_EQ(0, bus1_slice_release(self->net.b.fd, r->r.msg.offset));
}

TEST_F(wait, interrupted_release_says_that_it_is_done)
{
	struct receiver *r = &self->receiver[0];
	struct bus1_cmd_recv first;

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	first = RECV(&self->net.b);
	handle_signals(0);
	ASSERT_EQ(0, receiver_start_release(r, self->net.b.fd,
					    BUS1_RECV_FLAG_RELEASE,
					    first.msg.offset));
	while (!__atomic_load_n(&r->done, __ATOMIC_SEQ_CST)) {
		pthread_kill(r->thread, SIGUSR1);
		sched_yield();
	}
	EXPECT_EQ(-EINTR, receiver_join(r));
	EXPECT_EQ(BUS1_OFFSET_INVALID, r->r.msg.offset);
	EXPECT_EQ(-ENXIO, bus1_slice_release(self->net.b.fd, first.msg.offset));
}

TEST_F(wait, one_message_wakes_one_receiver_and_loses_none)
{
	__u32 seen = 0;
	int i;

	for (i = 0; i < N_THREADS; i++) {
		ASSERT_EQ(0, receiver_start(&self->receiver[i],
					    self->net.b.fd, 0));
	}
	for (i = 0; i < N_THREADS; i++) {
		__u64 n = i;

		ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, &n,
					    sizeof(n)));
	}
	for (i = 0; i < N_THREADS; i++) {
		__u64 n;

		ASSERT_EQ(0, receiver_join(&self->receiver[i]));
		memcpy(&n, slice_bytes(&self->net.b, &self->receiver[i].r),
		       sizeof(n));
		ASSERT_GT(N_THREADS, n);
		EXPECT_EQ(0, seen & 1 << n);
		seen |= 1 << n;
	}
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-queue"));
}

/* A thread that receives until it is told to stop. */
struct drain {
	pthread_t thread;
	struct peer *peer;
	__u8 *seen;
	int ret;
	int interrupted;
	int *left;
};

static void *drain(void *arg)
{
	struct drain *self = arg;
	__u64 n, last = 0;
	struct bus1_cmd_recv r;
	int ret;

	for (;;) {
		ret = bus1_recv(self->peer->fd, 0, &r);
		if (ret == -EINTR) {
			self->interrupted++;
			continue;
		}
		if (ret == -ESHUTDOWN)
			break;
		if (ret) {
			self->ret = ret;
			break;
		}
		memcpy(&n, slice_bytes(self->peer, &r), sizeof(n));
		if (n >= N_MESSAGES + 1 || n <= last ||
		    __atomic_exchange_n(&self->seen[n], 1, __ATOMIC_SEQ_CST))
			self->ret = -EPROTO;
		last = n;
		if (bus1_slice_release(self->peer->fd, r.msg.offset))
			self->ret = -ENXIO;
		__atomic_sub_fetch(self->left, 1, __ATOMIC_SEQ_CST);
	}
	return NULL;
}

static void drain_all(struct __test_metadata *_metadata, struct net *net,
		      int n_threads, bool signals)
{
	struct drain threads[N_THREADS] = {};
	__u8 *seen = calloc(N_MESSAGES + 1, 1);
	int left = N_MESSAGES, ret = 0, i;
	__u64 n;

	ASSERT_TRUE(seen);
	for (i = 0; i < n_threads; i++) {
		threads[i] = (struct drain){ .peer = &net->b, .seen = seen,
					     .left = &left };
		ASSERT_EQ(0, pthread_create(&threads[i].thread, NULL, drain,
					    &threads[i]));
	}
	for (n = 1; n <= N_MESSAGES; n++) {
		ret = bus1_send_data(net->a.fd, net->ab, &n, sizeof(n));
		if (ret)
			break;
		if (signals)
			pthread_kill(threads[n % n_threads].thread, SIGUSR1);
	}
	EXPECT_EQ(0, ret);
	while (!ret && __atomic_load_n(&left, __ATOMIC_SEQ_CST) > 0) {
		if (signals)
			for (i = 0; i < n_threads; i++)
				pthread_kill(threads[i].thread, SIGUSR1);
		sched_yield();
		for (i = 0; i < n_threads; i++)
			if (__atomic_load_n(&threads[i].ret, __ATOMIC_SEQ_CST))
				ret = 1;
	}
	EXPECT_EQ(0, bus1_disconnect(net->b.fd));
	for (i = 0; i < n_threads; i++) {
		pthread_join(threads[i].thread, NULL);
		EXPECT_EQ(0, threads[i].ret);
	}
	EXPECT_EQ(0, left);
	for (n = 1; n <= N_MESSAGES; n++) {
		EXPECT_EQ(1, seen[n]);
	}
	free(seen);
}

TEST_F(wait, overlapping_receivers_get_different_messages_in_order)
{
	drain_all(_metadata, &self->net, N_THREADS, false);
}

TEST_F(wait, one_receiver_gets_all_in_order)
{
	drain_all(_metadata, &self->net, 1, false);
}

TEST_F(wait, signals_lose_no_message)
{
	handle_signals(0);
	drain_all(_metadata, &self->net, 1, true);
}

TEST_F(wait, signals_and_many_receivers_lose_no_message)
{
	handle_signals(0);
	drain_all(_metadata, &self->net, N_THREADS, true);
}

TEST_F(wait, killed_receiver_loses_nothing)
{
	int event = event_new();
	struct bus1_cmd_recv r;
	pid_t pid;

	pid = FORK();
	if (!pid) {
		event_post(event);
		bus1_recv(self->net.b.fd, 0, &r);
		_exit(1);
	}
	event_wait(event);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(SIGKILL, wait_status(pid));
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	RECV_STR(&self->net.b, NODE_B, "x");
}

TEST_HARNESS_MAIN
