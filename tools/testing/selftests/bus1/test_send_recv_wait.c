// SPDX-License-Identifier: GPL-2.0-only
/*
 * SEND_RECV that waits: deadlines, signals and restarts, many threads on one peer.
 */
#include "bus1_msg.h"
#include <time.h>

#define NODE_A		0x300ULL
#define ROOM		8
#define FLAG_SEND	BUS1_SEND_RECV_FLAG_SEND

FIXTURE(send_recv_wait) {
	struct net net;
	/* b's handle of the node of a */
	__u64 ba;
	struct bus1_msg msgs[ROOM];
};

FIXTURE_SETUP(send_recv_wait)
{
	NET_INIT(&self->net);
	NODE(&self->net.a, NODE_A);
	self->ba = TRANSFER(&self->net.a, NODE_A, &self->net.b);
	set_blocking(self->net.a.fd);
	set_blocking(self->net.b.fd);
}

FIXTURE_TEARDOWN(send_recv_wait)
{
	net_deinit(&self->net);
}

static __u64 clock_now(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

/*
 * Time
 */

TEST_F(send_recv_wait, no_timeout_does_not_wait)
{
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.ptr_messages = ptr(self->msgs), .n_messages = 1, .timeout = 0);

	EXPECT_EQ(-ETIMEDOUT, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(0, cmd.n_received);
	cmd.timeout = 1;
	EXPECT_EQ(-ETIMEDOUT, bus1_send_recv(self->net.b.fd, &cmd));
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	peer_wait(self->net.b.fd);
	EXPECT_EQ(0, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(1, cmd.n_received);
}

TEST_F(send_recv_wait, does_not_return_before_the_deadline)
{
	struct iovec vec = { "x", 1 };
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.flags = FLAG_SEND, .send = one_message(&self->net.ab, &vec),
		.ptr_messages = ptr(self->msgs), .n_messages = 1);
	int i;

	for (i = 0; i < 20; i++) {
		cmd.timeout = clock_now() + i * 1000003;
		EXPECT_EQ(-ETIMEDOUT, bus1_send_recv(self->net.a.fd, &cmd));
		EXPECT_LE(cmd.timeout, clock_now());
		EXPECT_EQ(0, cmd.flags);
	}
	RECV_STR(&self->net.b, NODE_B, "x");
	RECV_NONE(&self->net.b);
}

/* Far ahead of the clock of the machine, and yet nearly there. */
static void check_namespace(struct __test_metadata *_metadata,
			    FIXTURE_DATA(send_recv_wait) *self, __u64 offset)
{
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.ptr_messages = ptr(self->msgs), .n_messages = 1);

	cmd.timeout = clock_now() + 1000000;
	ASSERT_LE(offset, cmd.timeout);
	EXPECT_EQ(-ETIMEDOUT, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_LE(cmd.timeout, clock_now());
	/* Before that clock began */
	cmd.timeout = offset / 2;
	EXPECT_EQ(-ETIMEDOUT, bus1_send_recv(self->net.b.fd, &cmd));
}

TEST_F(send_recv_wait, deadlines_are_those_of_the_time_namespace)
{
	static const char text[] = "monotonic 86400000 0";
	pid_t pid, inner;
	int fd;

	pid = FORK();
	if (!pid) {
		ASSERT_EQ(0, unshare(0x80 /* CLONE_NEWTIME */)) {
			TH_LOG("unshare: %s", strerror(errno));
		}
		fd = open("/proc/self/timens_offsets", O_WRONLY);
		ASSERT_EQ(sizeof(text) - 1, write(fd, text, sizeof(text) - 1));
		inner = FORK();
		if (!inner) {
			check_namespace(_metadata, self, 86400000000000000ULL);
			_exit(_metadata->exit_code);
		}
		WAIT(inner);
		_exit(0);
	}
	WAIT(pid);
}

/*
 * Threads and signals
 */

#define N_THREADS	4
#define N_MESSAGES	1000

static int handled;

static void on_signal(int sig)
{
	__atomic_add_fetch(&handled, 1, __ATOMIC_SEQ_CST);
}

static void handle_signals(int flags)
{
	struct sigaction action = { .sa_handler = on_signal, .sa_flags = flags };

	handled = 0;
	sigaction(SIGUSR1, &action, NULL);
}

/* A thread that makes one call. */
struct caller {
	pthread_t thread;
	struct bus1_cmd_send_recv cmd;
	struct bus1_msg msgs[ROOM];
	__u64 to;
	struct iovec vec;
	int fd;
	int ret;
	pid_t tid;
	int done;
};

static void *call(void *arg)
{
	struct caller *self = arg;

	__atomic_store_n(&self->tid, syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	self->ret = bus1_ioctl(self->fd, BUS1_CMD_SEND_RECV, &self->cmd);
	__atomic_store_n(&self->done, 1, __ATOMIC_SEQ_CST);
	return NULL;
}

static bool caller_done(struct caller *self)
{
	return __atomic_load_n(&self->done, __ATOMIC_SEQ_CST);
}

static void caller_init(struct caller *self, int fd, __u64 to, __u64 timeout)
{
	*self = (struct caller){ .fd = fd, .to = to, .vec = { "x", 1 } };
	self->cmd = SEND_RECV(.ptr_messages = ptr(self->msgs),
			      .n_messages = ROOM, .timeout = timeout);
	if (to != BUS1_HANDLE_INVALID) {
		self->cmd.flags = FLAG_SEND;
		self->cmd.send = one_message(&self->to, &self->vec);
	}
}

/* Returns when it sleeps, which it does not before the message is sent. */
static int caller_start(struct caller *self)
{
	volatile __u64 *flags = &self->cmd.flags;

	if (pthread_create(&self->thread, NULL, call, self))
		return -EAGAIN;
	while (!__atomic_load_n(&self->tid, __ATOMIC_SEQ_CST))
		sched_yield();
	while (!caller_done(self) &&
	       (*flags & FLAG_SEND || !thread_sleeps(self->tid)))
		sched_yield();
	return 0;
}

static int caller_join(struct caller *self)
{
	pthread_join(self->thread, NULL);
	return self->ret;
}

FIXTURE(waiting) {
	struct net net;
	__u64 ba;
	struct caller callers[N_THREADS];
};

/* Until when: for ever, or so long that it comes to the same. */
FIXTURE_VARIANT(waiting) {
	__u64 timeout;
};

FIXTURE_VARIANT_ADD(waiting, without_limit) { .timeout = -1 };
FIXTURE_VARIANT_ADD(waiting, very_long) { .timeout = (__u64)-2 };
FIXTURE_VARIANT_ADD(waiting, long_enough) { .timeout = 1ULL << 60 };

FIXTURE_SETUP(waiting)
{
	NET_INIT(&self->net);
	NODE(&self->net.a, NODE_A);
	self->ba = TRANSFER(&self->net.a, NODE_A, &self->net.b);
	set_blocking(self->net.a.fd);
	set_blocking(self->net.b.fd);
}

FIXTURE_TEARDOWN(waiting)
{
	net_deinit(&self->net);
}

#define INIT(_caller, _peer, _to)					\
	caller_init(_caller, (_peer)->fd, _to, variant->timeout)
#define START(_caller, _peer, _to)					\
do {									\
	INIT(_caller, _peer, _to);					\
	ASSERT_EQ(0, caller_start(_caller));				\
} while (0)

TEST_F(waiting, the_answer_wakes)
{
	struct caller *a = &self->callers[0];

	START(a, &self->net.a, self->net.ab);
	EXPECT_FALSE(caller_done(a));
	RECV_STR(&self->net.b, NODE_B, "x");
	ASSERT_EQ(0, bus1_send_str(self->net.b.fd, self->ba, "y"));
	ASSERT_EQ(0, caller_join(a));
	EXPECT_EQ(1, a->cmd.n_received);
	EXPECT_EQ(NODE_A, a->msgs[0].destination);
}

TEST_F(waiting, disconnect_wakes_with_eshutdown)
{
	int i;

	for (i = 0; i < N_THREADS; i++) {
		START(&self->callers[i], &self->net.a, self->net.ab);
	}
	ASSERT_EQ(0, bus1_disconnect(self->net.a.fd));
	for (i = 0; i < N_THREADS; i++) {
		EXPECT_EQ(-ESHUTDOWN, caller_join(&self->callers[i]));
		EXPECT_EQ(0, self->callers[i].cmd.flags);
	}
	/* What was sent before stays. */
	for (i = 0; i < N_THREADS; i++)
		RECV_STR(&self->net.b, NODE_B, "x");
	RECV_DESTROY(&self->net.b, self->ba);
}

TEST_F(waiting, flush_does_not_end_it)
{
	struct caller *a = &self->callers[0];

	START(a, &self->net.a, BUS1_HANDLE_INVALID);
	ASSERT_EQ(0, bus1_flush(self->net.a.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	EXPECT_FALSE(caller_done(a));
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, 0x1000, "x"));
	ASSERT_EQ(0, caller_join(a));
	EXPECT_EQ(0x1000, a->msgs[0].destination);
}

TEST_F(waiting, signal_is_eintr_and_the_same_call_does_not_send_again)
{
	struct caller *a = &self->callers[0];

	handle_signals(0);
	START(a, &self->net.a, self->net.ab);
	while (!caller_done(a)) {
		pthread_kill(a->thread, SIGUSR1);
		sched_yield();
	}
	EXPECT_EQ(-EINTR, caller_join(a));
	EXPECT_EQ(0, a->cmd.flags);
	EXPECT_EQ(0, a->cmd.n_received);
	RECV_STR(&self->net.b, NODE_B, "x");
	ASSERT_EQ(0, bus1_send_str(self->net.b.fd, self->ba, "y"));
	EXPECT_EQ(0, bus1_send_recv(self->net.a.fd, &a->cmd));
	EXPECT_EQ(1, a->cmd.n_received);
	RECV_NONE(&self->net.b);
}

TEST_F(waiting, restarted_call_does_not_send_again)
{
	struct caller *a = &self->callers[0];
	__u64 slices[2];
	int i;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, bus1_send_str(self->net.b.fd, self->ba, "y"));
		slices[i] = RECV(&self->net.a).msg.offset;
	}
	handle_signals(SA_RESTART);
	INIT(a, &self->net.a, self->net.ab);
	a->cmd.ptr_slices = ptr(slices);
	a->cmd.n_slices = 2;
	ASSERT_EQ(0, caller_start(a));
	for (i = 1; i <= 20; i++) {
		pthread_kill(a->thread, SIGUSR1);
		while (__atomic_load_n(&handled, __ATOMIC_SEQ_CST) < i)
			sched_yield();
	}
	EXPECT_FALSE(caller_done(a));
	RECV_STR(&self->net.b, NODE_B, "x");
	RECV_NONE(&self->net.b);
	ASSERT_EQ(0, bus1_send_str(self->net.b.fd, self->ba, "y"));
	ASSERT_EQ(0, caller_join(a));
	EXPECT_EQ(1, a->cmd.n_received);
	RECV_NONE(&self->net.b);
	EXPECT_EQ(0, a->cmd.n_slices);
	EXPECT_EQ(1, bus1_fdinfo(self->net.a.fd, "bus1-slices"));
}

TEST_F(waiting, one_message_wakes_one_and_none_is_lost)
{
	__u64 n, total = 0;
	int i;

	for (i = 0; i < N_THREADS; i++) {
		START(&self->callers[i], &self->net.b, BUS1_HANDLE_INVALID);
	}
	/* The next is sent when the one before was received. */
	for (n = 0; n < N_THREADS; n++) {
		ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, &n,
					    sizeof(n)));
		while (bus1_fdinfo(self->net.b.fd, "bus1-queue"))
			sched_yield();
	}
	for (i = 0; i < N_THREADS; i++) {
		ASSERT_EQ(0, caller_join(&self->callers[i]));
		ASSERT_EQ(1, self->callers[i].cmd.n_received);
		total += 1 << msg_number(&self->net.b,
					 &self->callers[i].msgs[0]);
	}
	EXPECT_EQ((1 << N_THREADS) - 1, total);
}

TEST_F(waiting, killed_one_loses_nothing)
{
	struct bus1_cmd_send_recv *cmd = shared_alloc(2 * PAGE);
	struct bus1_msg *msgs = (void *)cmd + PAGE;
	pid_t pid;

	ASSERT_TRUE(cmd);
	*cmd = SEND_RECV(.ptr_messages = ptr(msgs), .n_messages = 1,
			 .timeout = variant->timeout);
	pid = FORK();
	if (!pid) {
		bus1_ioctl(self->net.b.fd, BUS1_CMD_SEND_RECV, cmd);
		_exit(1);
	}
	wait_asleep(pid);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(SIGKILL, wait_status(pid));
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	RECV_STR(&self->net.b, NODE_B, "x");
}

/*
 * Many at once
 */

/* A thread that receives until it is told to stop. */
struct drain {
	pthread_t thread;
	struct peer *peer;
	__u8 *seen;
	bool hurried;
	int ret, expired, interrupted;
	int *left;
};

static void drain_one(struct drain *self, const struct bus1_msg *msg, __u64 *last)
{
	__u64 n = msg_number(self->peer, msg);

	if (n > N_MESSAGES || n <= *last ||
	    __atomic_exchange_n(&self->seen[n], 1, __ATOMIC_SEQ_CST))
		self->ret = -EPROTO;
	*last = n;
	__atomic_sub_fetch(self->left, 1, __ATOMIC_SEQ_CST);
}

/* What was received is given back by the next call. */
static void *drain(void *arg)
{
	struct drain *self = arg;
	struct bus1_msg msgs[ROOM];
	__u64 slices[ROOM] = {}, last = 0, i;
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.ptr_slices = ptr(slices), .ptr_messages = ptr(msgs),
		.n_messages = 3);
	int r;

	for (;;) {
		if (self->hurried)
			cmd.timeout = clock_now() + 30000;
		r = bus1_send_recv(self->peer->fd, &cmd);
		if (r == -EINTR || r == -ETIMEDOUT) {
			self->interrupted += r == -EINTR;
			self->expired += r == -ETIMEDOUT;
			if (cmd.n_slices)
				self->ret = -EPROTO;
			continue;
		}
		if (r) {
			if (r != -ESHUTDOWN)
				self->ret = r;
			return NULL;
		}
		for (i = 0; i < cmd.n_received; i++) {
			drain_one(self, &msgs[i], &last);
			slices[i] = msgs[i].offset;
		}
		cmd.n_slices = cmd.n_received;
	}
}

static void drain_all(struct __test_metadata *_metadata, struct net *net,
		      bool signals, bool hurried)
{
	struct drain threads[N_THREADS] = {};
	__u8 *seen = calloc(N_MESSAGES + 1, 1);
	int left = N_MESSAGES, ret = 0, i;
	__u64 n;

	ASSERT_TRUE(seen);
	for (i = 0; i < N_THREADS; i++) {
		threads[i] = (struct drain){ .peer = &net->b, .seen = seen,
					     .left = &left, .hurried = hurried };
		ASSERT_EQ(0, pthread_create(&threads[i].thread, NULL, drain,
					    &threads[i]));
	}
	for (n = 1; n <= N_MESSAGES && !ret; n++) {
		ret = bus1_send_data(net->a.fd, net->ab, &n, sizeof(n));
		if (signals)
			pthread_kill(threads[n % N_THREADS].thread, SIGUSR1);
		/* Let them find nothing, now and then. */
		while (n % 7 == 0 && !ret &&
		       __atomic_load_n(&left, __ATOMIC_SEQ_CST) >
		       (int)(N_MESSAGES - n)) {
			for (i = 0; i < N_THREADS; i++)
				ret = ret ?: __atomic_load_n(&threads[i].ret,
							     __ATOMIC_SEQ_CST);
			sched_yield();
		}
	}
	EXPECT_EQ(0, ret);
	while (!ret && __atomic_load_n(&left, __ATOMIC_SEQ_CST) > 0) {
		for (i = 0; i < N_THREADS; i++)
			ret = ret ?: __atomic_load_n(&threads[i].ret,
						     __ATOMIC_SEQ_CST);
		sched_yield();
	}
	EXPECT_EQ(0, bus1_disconnect(net->b.fd));
	for (i = 0; i < N_THREADS; i++) {
		pthread_join(threads[i].thread, NULL);
		EXPECT_EQ(0, threads[i].ret);
	}
	EXPECT_EQ(0, left);
	for (n = 1; n <= N_MESSAGES; n++) {
		EXPECT_EQ(1, seen[n]);
	}
	free(seen);
}

TEST_F(send_recv_wait, many_threads_get_different_messages_in_order)
{
	drain_all(_metadata, &self->net, false, false);
}

TEST_F(send_recv_wait, many_threads_and_signals_lose_nothing)
{
	handle_signals(0);
	drain_all(_metadata, &self->net, true, false);
}

TEST_F(send_recv_wait, many_threads_and_timeouts_lose_nothing)
{
	handle_signals(0);
	drain_all(_metadata, &self->net, false, true);
}

TEST_F(send_recv_wait, many_threads_timeouts_and_restarts_lose_nothing)
{
	handle_signals(SA_RESTART);
	drain_all(_metadata, &self->net, true, true);
}

/* Answers with what it was sent, from where that lies, until it is disconnected. */
static void echo(struct peer *peer, __u64 to)
{
	struct bus1_msg msg;
	__u64 slice = 0;
	struct iovec vec;
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.ptr_messages = ptr(&msg), .n_messages = 1,
		.ptr_slices = ptr(&slice), .send = one_message(&to, &vec));

	while (!bus1_send_recv(peer->fd, &cmd)) {
		slice = msg.offset;
		vec = (struct iovec){ (void *)peer->pool + slice, msg.n_bytes };
		cmd.n_slices = 1;
		cmd.flags = FLAG_SEND;
	}
}

TEST_F(send_recv_wait, one_call_per_side_of_a_round_trip)
{
	__u64 i, slice = 0, rounds = scaled_rounds(200);
	struct iovec vec = { &i, sizeof(i) };
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.ptr_messages = ptr(self->msgs), .n_messages = 1,
		.ptr_slices = ptr(&slice),
		.send = one_message(&self->net.ab, &vec));
	pid_t pid;

	pid = FORK();
	if (!pid) {
		echo(&self->net.b, self->ba);
		_exit(0);
	}
	for (i = 0; i < rounds; i++) {
		cmd.flags = FLAG_SEND;
		ASSERT_EQ(0, bus1_send_recv(self->net.a.fd, &cmd));
		ASSERT_EQ(1, cmd.n_received);
		ASSERT_EQ(i, msg_number(&self->net.a, &self->msgs[0]));
		slice = self->msgs[0].offset;
		cmd.n_slices = 1;
	}
	ASSERT_EQ(0, bus1_disconnect(self->net.b.fd));
	WAIT(pid);
}

TEST_HARNESS_MAIN
