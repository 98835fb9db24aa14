// SPDX-License-Identifier: GPL-2.0-only
/*
 * Many of everything, and processes that are killed in the middle of it. How
 * many is a matter of patience: BUS1_STRESS_SCALE is a percentage of the full
 * counts (10,000 peers, 100,000 nodes, 1,000,000 messages), by default 5.
 */

#include "bus1_test.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	3600

static int scaled(int full)
{
	const char *env = getenv("BUS1_STRESS_SCALE");
	int percent = env ? atoi(env) : 5, n;

	n = (long long)full * (percent > 0 ? percent : 1) / 100;
	return n ?: 1;
}

FIXTURE(stress) {
	struct peer a, b;
};

FIXTURE_SETUP(stress)
{
	PEER_OPEN(&self->a);
	PEER_OPEN(&self->b);
}

FIXTURE_TEARDOWN(stress)
{
	peer_close(&self->a);
	peer_close(&self->b);
}

TEST_F(stress, open_and_close)
{
	int i, n = scaled(10000), fd;

	for (i = 0; i < n; i++) {
		fd = bus1_open(0);
		ASSERT_LE(0, fd);
		if (i % 4 == 1)
			ASSERT_EQ(0, bus1_send_str(fd, 8, "left behind"));
		if (i % 4 == 2)
			ASSERT_EQ(0, bus1_disconnect(fd));
		close(fd);
	}
	EXPECT_IDLE(&self->a);
}

TEST_F(stress, open_many_at_once)
{
	struct peer *peers;
	int i, n = 500;

	peers = calloc(n, sizeof(*peers));
	ASSERT_NE(NULL, peers);
	for (i = 0; i < n; i++) {
		PEER_OPEN(&peers[i]);
		/* So many pools are too much for 32 bits. */
		munmap((void *)peers[i].pool, POOL_SIZE);
		peers[i].pool = NULL;
	}
	/* A ring: each holds a node of the next. */
	for (i = 0; i < n; i++)
		TRANSFER(&peers[(i + 1) % n], 8, &peers[i]);
	for (i = 0; i < n; i++)
		peer_close(&peers[i]);
	free(peers);
	EXPECT_IDLE(&self->a);
}

TEST_F(stress, create_and_destroy_nodes)
{
	const __u64 flags = BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES;
	int i, j, n = scaled(100000);
	__u64 ids[100], h;

	for (i = 0; i < n; i += 100) {
		for (j = 0; j < 100; j++)
			ids[j] = 8 * (i + j);
		ASSERT_EQ(0, bus1_nodes_create(self->a.fd, ids, 100));
		h = TRANSFER(&self->a, ids[i % 99], &self->b);
		ASSERT_EQ(0, bus1_nodes_destroy(self->a.fd, flags, ids, 100));
		RECV_DESTROY(&self->b, h);
		ASSERT_EQ(0, bus1_handle_release(self->b.fd, h));
	}
	RECV_NONE(&self->a);
	RECV_NONE(&self->b);
	EXPECT_IDLE(&self->a);
	EXPECT_IDLE(&self->b);
}

struct flow {
	struct peer *from, *to;
	__u64 dest;
	int n;
	int r;
	__u32 *counter;
};

static void *flow_sender(void *arg)
{
	struct flow *flow = arg;
	static const char data[256];
	__u64 seed = 7, word;
	int i;

	for (i = 0; i < flow->n; i++) {
		struct iovec vecs[2] = {
			{ &word, sizeof(word) },
			{ (void *)data, next_random(&seed) % sizeof(data) },
		};
		struct bus1_cmd_send send = {
			.ptr_destinations = ptr(&flow->dest),
			.n_destinations = 1,
			.ptr_vecs = ptr(vecs), .n_vecs = 2,
		};

		word = i;
		do {
			flow->r = bus1_send(flow->from->fd, &send);
			if (flow->r == -EDQUOT || flow->r == -EXFULL)
				sched_yield();
		} while (flow->r == -EDQUOT || flow->r == -EXFULL);
		if (flow->r)
			break;
	}
	return NULL;
}

TEST_F(stress, messages)
{
	struct flow flow = { .from = &self->b, .to = &self->a };
	int i, n = scaled(1000000);
	struct bus1_cmd_recv recv;
	pthread_t thread;
	__u64 word;

	flow.dest = TRANSFER(&self->a, 8, &self->b);
	flow.n = n;
	ASSERT_EQ(0, pthread_create(&thread, NULL, flow_sender, &flow));
	for (i = 0; i < n; i++) {
		ASSERT_EQ(0, bus1_recv_wait(self->a.fd, 0, &recv));
		ASSERT_EQ(BUS1_MSG_DATA, recv.msg.type);
		memcpy(&word, self->a.pool + recv.msg.offset, sizeof(word));
		ASSERT_EQ(i, word);
		ASSERT_EQ(0, bus1_slice_release(self->a.fd, recv.msg.offset));
	}
	pthread_join(thread, NULL);
	ASSERT_EQ(0, flow.r);
	RECV_NONE(&self->a);
	ASSERT_EQ(0, bus1_handle_release(self->b.fd, flow.dest));
	RECV_RELEASE(&self->a, 8);
	ASSERT_EQ(0, bus1_nodes_destroy(self->a.fd,
			BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES,
			&(__u64){ 8 }, 1));
	EXPECT_IDLE(&self->a);
	EXPECT_IDLE(&self->b);
}

/*
 * SIGKILL. The victims share the peers with this process, and open some of
 * their own; they count what they do, and are killed at a random count.
 */

#define VICTIM_ENOUGH 300

/* Until @counter is at @n, or the process @pid is gone. */
static void victim_wait(pid_t pid, __u32 *counter, __u32 n)
{
	siginfo_t info = {};

	while (__atomic_load_n(counter, __ATOMIC_ACQUIRE) < n) {
		waitid(P_PID, pid, &info, WEXITED | WNOHANG | WNOWAIT);
		if (info.si_pid)
			break;
		sched_yield();
	}
}

/* Sends everything that there is to @dest, for ever. */
static void victim_sender(int fd, __u64 dest, __u32 *counter)
{
	__u64 seed = *counter + 1, handles[4], dst;
	static char data[65536];
	int own = bus1_open(O_NONBLOCK), fds[2], r;
	struct iovec vec = { data, 0 };
	struct bus1_cmd_send send = {
		.ptr_destinations = ptr(&dest), .n_destinations = 1,
		.ptr_vecs = ptr(&vec), .n_vecs = 1,
		.ptr_handles = ptr(handles), .n_handles = 4,
		.ptr_fds = ptr(fds), .n_fds = 2,
	};

	fds[0] = fds[1] = event_new();
	for (;;) {
		handles[0] = handles[1] = 64 + next_random(&seed) % 64 * 8;
		handles[2] = handles[3] = dest;
		vec.iov_len = next_random(&seed) % sizeof(data);
		r = bus1_send(fd, &send);
		/* A node of our own peer, that dies with us. */
		if (!bus1_handle_transfer(own, handles[0], fd, &dst) &&
		    dst != BUS1_HANDLE_INVALID)
			bus1_send_handles(fd, dest, &dst, 1);
		if (next_random(&seed) % 8 == 0)
			bus1_node_destroy(fd, handles[0]);
		__atomic_add_fetch(counter, 1, __ATOMIC_RELEASE);
		if (r && r != -EDQUOT && r != -EXFULL)
			_exit(1);
		if (r)
			sched_yield();
	}
}

static void victim_receiver(int fd, __u32 *counter)
{
	struct bus1_cmd_recv recv;
	int r;

	for (;;) {
		r = bus1_recv(fd, BUS1_RECV_FLAG_INSTALL_FDS, &recv);
		__atomic_add_fetch(counter, 1, __ATOMIC_RELEASE);
		if (r == -EAGAIN)
			peer_wait(fd);
		else if (r == -EMFILE)
			closefrom(64);
		else if (r)
			_exit(1);
		else if (recv.msg.type == BUS1_MSG_DATA)
			bus1_slice_release(fd, recv.msg.offset);
		else if (recv.msg.destination != 8)
			bus1_drain_refs(fd, recv.msg.destination);
	}
}

FIXTURE(kill) {
	struct peer a, b;
	__u32 *counter;
};

FIXTURE_VARIANT(kill) {
	bool sender;
	bool receiver;
};

FIXTURE_VARIANT_ADD(kill, sender) {
	.sender = true,
};

FIXTURE_VARIANT_ADD(kill, receiver) {
	.receiver = true,
};

FIXTURE_VARIANT_ADD(kill, both) {
	.sender = true,
	.receiver = true,
};

FIXTURE_SETUP(kill)
{
	PEER_OPEN(&self->a);
	PEER_OPEN(&self->b);
	self->counter = shared_alloc(2 * sizeof(*self->counter));
	ASSERT_NE(NULL, self->counter);
}

FIXTURE_TEARDOWN(kill)
{
	peer_close(&self->a);
	peer_close(&self->b);
	munmap(self->counter, 2 * sizeof(*self->counter));
}

/* Everything that is left goes, and then nothing is. */
static void kill_clean_up(struct __test_metadata *_metadata,
			  FIXTURE_DATA(kill) *self)
{
	const __u64 flags = BUS1_PEER_RESET_FLAG_FLUSH |
			    BUS1_PEER_RESET_FLAG_FLUSH_SEED;

	ASSERT_EQ(0, bus1_flush(self->a.fd, flags));
	ASSERT_EQ(0, bus1_flush(self->b.fd, flags));
	ASSERT_EQ(0, bus1_flush(self->a.fd, flags));
	RECV_NONE(&self->a);
	RECV_NONE(&self->b);
	EXPECT_IDLE(&self->a);
	EXPECT_IDLE(&self->b);
}

TEST_F(kill, at_random_moments)
{
	int i, n = scaled(200);
	__u64 seed = 3, dest;
	pid_t pid[2];
	bool first;

	for (i = 0; i < n; i++) {
		dest = TRANSFER(&self->a, 8, &self->b);
		self->counter[0] = self->counter[1] = 0;
		pid[0] = FORK();
		if (!pid[0])
			victim_sender(self->b.fd, dest, &self->counter[0]);
		pid[1] = FORK();
		if (!pid[1])
			victim_receiver(self->a.fd, &self->counter[1]);
		/* One dies, the other goes on for a while, or both do. */
		first = variant->receiver;
		victim_wait(pid[first], &self->counter[first],
			    next_random(&seed) % VICTIM_ENOUGH);
		ASSERT_EQ(0, kill(pid[first], SIGKILL));
		if (variant->sender && variant->receiver)
			ASSERT_EQ(0, kill(pid[0], SIGKILL));
		ASSERT_EQ(SIGKILL, wait_status(pid[first]));
		if (!(variant->sender && variant->receiver) &&
		    variant->receiver)
			victim_wait(pid[0], &self->counter[0],
				    self->counter[0] + 20);
		kill(pid[!first], SIGKILL);
		ASSERT_EQ(SIGKILL, wait_status(pid[!first]));
		kill_clean_up(_metadata, self);
		if (_metadata->exit_code)
			break;
	}
}

/* The last reference to a peer goes with the process that is killed. */
TEST_F(kill, of_the_only_owner)
{
	int i, n = scaled(200);
	__u64 seed = 5, dest;
	struct peer own;
	pid_t pid;

	for (i = 0; i < n; i++) {
		PEER_OPEN(&own);
		dest = TRANSFER(variant->receiver ? &own : &self->a, 8,
				variant->sender ? &own : &self->b);
		self->counter[0] = 0;
		pid = FORK();
		if (!pid) {
			if (variant->sender)
				victim_sender(own.fd, dest, self->counter);
			else
				victim_receiver(own.fd, self->counter);
		}
		peer_close(&own);
		if (variant->receiver && !variant->sender)
			bus1_send_str(self->b.fd, dest, "x");
		victim_wait(pid, self->counter, variant->sender ?
			    next_random(&seed) % VICTIM_ENOUGH : 1);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		ASSERT_EQ(SIGKILL, wait_status(pid));
		/* Told that it is gone: nothing is left of it. */
		if (variant->receiver && !variant->sender)
			RECV_DESTROY(&self->b, dest);
		kill_clean_up(_metadata, self);
		if (_metadata->exit_code)
			break;
	}
}

TEST_HARNESS_MAIN
