// SPDX-License-Identifier: GPL-2.0-only
/*
 * Peers that do their worst, within what they may do, and others that have
 * nothing to do with them. While each adversary is at it, two pairs of peers talk:
 *
 *   near	on the adversary's CPU, with real-time priority, each time that a
 *		timer expires: what it waits for is the longest time that the
 *		kernel does not let go of the CPU
 *   far	on another CPU, all the time: what it waits for is what all peers
 *		share
 *
 * Their worst cases are printed, in microseconds, and not judged: how fast the
 * machine is nobody knows. But both must get on while an adversary is at work, or
 * the test never ends; and all get what they were sent, and nothing else.
 *
 * BUS1_STRESS_SCALE is a percentage of the full counts, by default all of them.
 */
#include <sys/epoll.h>
#include <sys/timerfd.h>
#include <time.h>
#include "bus1_budget.h"
#include "bus1_fuse.h"

#define UID_MANY	70000	/* and those that follow */

/* Rare enough to leave the CPU to the adversary, in nanoseconds. */
#define TICK		5000000

static int scaled(int full)
{
	const char *env = getenv("BUS1_STRESS_SCALE");
	int percent = env ? atoi(env) : 100, n;

	if (percent <= 0 || percent > 100)
		percent = 100;
	n = (long long)full * percent / 100;
	return n > 4 ? n : 4;
}

static __u64 now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* How long @_expr takes, in microseconds. */
#define TIMED(_expr)							\
	({ __u64 _start = now_ns(); _expr; (now_ns() - _start) / 1000; })

static void pin_to(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	sched_setaffinity(0, sizeof(set), &set);
}

/*
 * The others
 */

struct probe {
	int fds[2];
	__u64 ids[2];
	const __u8 *pools[2];
	bool near;
	int stop, r;
	__u64 rounds, worst;
	pthread_t thread;
};

/* From one to the other, to and fro; each time with something else in it. */
static int probe_round(struct probe *probe, __u64 number)
{
	struct bus1_cmd_recv recv;
	__u64 word;
	int i, r;

	for (i = 0; i < 2; i++) {
		word = number * 2 + i;
		r = bus1_send_data(probe->fds[i], probe->ids[i], &word,
				   sizeof(word));
		if (r)
			return r;
		r = bus1_recv_wait(probe->fds[!i], 0, &recv);
		if (r)
			return r;
		memcpy(&word, probe->pools[!i] + recv.msg.offset, sizeof(word));
		if (recv.msg.n_bytes != sizeof(word) || word != number * 2 + i)
			return -EBADMSG;
		r = bus1_slice_release(probe->fds[!i], recv.msg.offset);
		if (r)
			return r;
	}
	return 0;
}

static void probe_done(struct probe *probe, __u64 due)
{
	__u64 took = now_ns() - due;

	if (took > __atomic_load_n(&probe->worst, __ATOMIC_RELAXED))
		__atomic_store_n(&probe->worst, took, __ATOMIC_RELAXED);
	__atomic_add_fetch(&probe->rounds, 1, __ATOMIC_RELEASE);
}

static void probe_near(struct probe *probe)
{
	struct sched_param param = { .sched_priority = 1 };
	__u64 n, number = 0, due = now_ns() + TICK;
	struct itimerspec tick = {
		.it_interval.tv_nsec = TICK,
		.it_value = { due / 1000000000, due % 1000000000 },
	};
	int timer;

	pin_to(0);
	sched_setscheduler(0, SCHED_FIFO, &param);
	timer = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC);
	timerfd_settime(timer, TFD_TIMER_ABSTIME, &tick, NULL);
	while (!__atomic_load_n(&probe->stop, __ATOMIC_ACQUIRE)) {
		/* It is due since the first of @n expirations. */
		if (read(timer, &n, sizeof(n)) != sizeof(n))
			probe->r = -errno;
		else
			probe->r = probe_round(probe, number++);
		if (probe->r)
			break;
		probe_done(probe, due);
		due += n * TICK;
	}
	close(timer);
}

static void probe_far(struct probe *probe)
{
	__u64 start, number = 0;

	pin_to(1);
	while (!__atomic_load_n(&probe->stop, __ATOMIC_ACQUIRE)) {
		start = now_ns();
		probe->r = probe_round(probe, number++);
		if (probe->r)
			break;
		probe_done(probe, start);
	}
}

static void *probe_fn(void *arg)
{
	struct probe *probe = arg;

	if (probe->near)
		probe_near(probe);
	else
		probe_far(probe);
	return NULL;
}

static void t_probe_start(struct __test_metadata *_metadata,
			  struct probe *probe, bool near)
{
	int i;

	probe->near = near;
	for (i = 0; i < 2; i++) {
		probe->fds[i] = bus1_open_as(UID_A + near, O_NONBLOCK);
		ASSERT_LE(0, probe->fds[i]);
		probe->pools[i] = mmap(NULL, 16 * PAGE, PROT_READ, MAP_SHARED,
				       probe->fds[i], 0);
		ASSERT_NE(MAP_FAILED, (void *)probe->pools[i]);
	}
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, bus1_handle_transfer(probe->fds[!i], 8,
						  probe->fds[i],
						  &probe->ids[i]));
	}
	ASSERT_EQ(0, pthread_create(&probe->thread, NULL, probe_fn, probe));
}

FIXTURE(adversary) {
	struct probe near, far;
	struct parameters parameters;
};

/* Those that were there when it began have got on since. */
static void probes_wait(FIXTURE_DATA(adversary) *self, int n)
{
	struct probe *probes[] = { &self->near, &self->far };
	__u64 goal;
	int i;

	for (i = 0; i < 2; i++) {
		goal = __atomic_load_n(&probes[i]->rounds, __ATOMIC_ACQUIRE) + n;
		while (__atomic_load_n(&probes[i]->rounds, __ATOMIC_ACQUIRE) <
		       goal && !__atomic_load_n(&probes[i]->r, __ATOMIC_RELAXED))
			sched_yield();
	}
}

/* Says how it went up to here, and begins anew. */
static void probes_report(FIXTURE_DATA(adversary) *self, const char *what,
			  __u64 own)
{
	/* What is under way counts. */
	probes_wait(self, 1);
	fprintf(stderr, "# worst %-36s near %8llu us, far %8llu us, own %8llu us\n",
		what,
		(long long)__atomic_exchange_n(&self->near.worst, 0,
					       __ATOMIC_RELAXED) / 1000,
		(long long)__atomic_exchange_n(&self->far.worst, 0,
					       __ATOMIC_RELAXED) / 1000,
		(long long)own);
}

FIXTURE_SETUP(adversary)
{
	struct rlimit limit = { 1 << 16, 1 << 16 };

	setrlimit(RLIMIT_NOFILE, &limit);
	PARAMETERS_SAVE(&self->parameters);
	t_probe_start(_metadata, &self->near, true);
	t_probe_start(_metadata, &self->far, false);
	pin_to(0);
	probes_wait(self, 20);
	probes_report(self, "nobody", 0);
}

FIXTURE_TEARDOWN(adversary)
{
	struct probe *probes[] = { &self->near, &self->far };
	int i, j;

	/* While the adversary's remains are still there. */
	probes_wait(self, 20);
	for (i = 0; i < 2; i++) {
		__atomic_store_n(&probes[i]->stop, 1, __ATOMIC_RELEASE);
		pthread_join(probes[i]->thread, NULL);
		EXPECT_EQ(0, probes[i]->r);
		EXPECT_LT(0, probes[i]->rounds);
		for (j = 0; j < 2; j++) {
			EXPECT_EQ(0, bus1_fdinfo(probes[i]->fds[j],
						 "bus1-slices"));
			EXPECT_EQ(2, bus1_fdinfo(probes[i]->fds[j],
						 "bus1-handles"));
			munmap((void *)probes[i]->pools[j], 16 * PAGE);
			close(probes[i]->fds[j]);
		}
	}
	parameters_restore(&self->parameters);
}

static void t_expect_within(struct __test_metadata *_metadata, int fd)
{
	enum resource res;
	char key[64];

	for (res = 0; res < N_RESOURCES; res++) {
		snprintf(key, sizeof(key), "%s-max", resources[res].fdinfo);
		EXPECT_GE(bus1_fdinfo(fd, key), used(fd, res)) {
			TH_LOG("%s", key);
		}
		EXPECT_GE(parameter_get(res), used(fd, res));
	}
}

#define EXPECT_WITHIN(_peer) t_expect_within(_metadata, (_peer)->fd)

/*
 * Floods
 */

TEST_F(adversary, that_never_reads)
{
	struct peer mute, sibling, sender;
	__u64 id, sid, took, worst = 0;
	int i, n = 0, r;

	PEER_OPEN_AS(&mute, UID_C);
	PEER_OPEN_AS(&sibling, UID_C);
	PEER_OPEN_AS(&sender, UID_MANY);
	id = TRANSFER(&mute, NODE_B, &sender);
	sid = TRANSFER(&sibling, NODE_B, &sender);
	do {
		took = TIMED(r = bus1_send_str(sender.fd, id, "unread"));
		worst = took > worst ? took : worst;
	} while (!r && ++n < 1 << 20);
	EXPECT_EQ(-EDQUOT, r);
	EXPECT_LT(0, n);
	EXPECT_WITHIN(&mute);
	/* It fails, again and again. */
	for (i = 0; i < scaled(2000); i++) {
		took = TIMED(r = bus1_send_str(sender.fd, id, "unread"));
		worst = took > worst ? took : worst;
		if (r != -EDQUOT)
			break;
	}
	EXPECT_EQ(-EDQUOT, r);
	probes_wait(self, 20);
	probes_report(self, "a peer that never reads", worst);
	/* Its sibling and its sender do not suffer. */
	ASSERT_EQ(0, bus1_send_str(sender.fd, sid, "on"));
	RECV_STR(&sibling, NODE_B, "on");
	TH_LOG("%d messages unread", n);
	took = TIMED(peer_close(&mute));
	probes_report(self, "its close", took);
	RECV_DESTROY(&sender, id);
	peer_close(&sibling);
	peer_close(&sender);
}

struct flood {
	int fd;
	__u64 id;
	int stop, r;
	__u64 n, refused;
	pthread_t thread;
};

static void *flood_fn(void *arg)
{
	struct flood *flood = arg;
	__u64 data[64];
	int r;

	pin_to(0);
	while (!__atomic_load_n(&flood->stop, __ATOMIC_ACQUIRE)) {
		memset(data, flood->fd, sizeof(data));
		r = bus1_send_data(flood->fd, flood->id, data, sizeof(data));
		if (r == -EDQUOT) {
			flood->refused++;
		} else if (r) {
			flood->r = r;
			break;
		}
		__atomic_add_fetch(&flood->n, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* Four users flood one peer; a fifth has something to say to it. */
TEST_F(adversary, that_floods)
{
	int i, j, n = scaled(500), honest = 0;
	struct flood floods[4] = {};
	struct peer target, sender, peers[4];
	struct bus1_cmd_recv r;
	__u64 id, sent, took, worst = 0, refused = 0;
	const __u8 *p;

	PEER_OPEN_AS(&target, UID_C);
	PEER_OPEN_AS(&sender, UID_MANY);
	/* Less than what siblings leave to a peer: senders share all of it. */
	ASSERT_EQ(0, set_limit(target.fd, SLICES, 1000));
	id = TRANSFER(&target, NODE_B, &sender);
	for (i = 0; i < 4; i++) {
		PEER_OPEN_AS(&peers[i], UID_MANY + 1 + i);
		floods[i].fd = peers[i].fd;
		floods[i].id = TRANSFER(&target, NODE_C, &peers[i]);
		ASSERT_EQ(0, pthread_create(&floods[i].thread, NULL, flood_fn,
					    &floods[i]));
	}
	for (i = 0; i < n || !honest; i++) {
		/* Its share is there, always: it holds nothing else. */
		if (!honest) {
			sent = now_ns();
			ASSERT_EQ(0, bus1_send_str(sender.fd, id, "honest"));
			took = (now_ns() - sent) / 1000;
			worst = took > worst ? took : worst;
			honest = 1;
		}
		r = RECV(&target);
		ASSERT_EQ(BUS1_MSG_DATA, r.msg.type);
		p = slice_bytes(&target, &r);
		if (r.msg.destination == NODE_B) {
			EXPECT_EQ(6, r.msg.n_bytes);
			EXPECT_EQ(0, memcmp(p, "honest", 6));
			honest = 0;
		} else {
			/* One of them sent all of it. */
			ASSERT_EQ(512, r.msg.n_bytes);
			for (j = 1; j < 512; j++)
				ASSERT_EQ(p[0], p[j]);
		}
		ASSERT_EQ(0, bus1_slice_release(target.fd, r.msg.offset));
		if (i % 256 == 0)
			EXPECT_WITHIN(&target);
	}
	n = i;
	probes_wait(self, 20);
	probes_report(self, "four users that flood", worst);
	for (i = 0; i < 4; i++) {
		__atomic_store_n(&floods[i].stop, 1, __ATOMIC_RELEASE);
		pthread_join(floods[i].thread, NULL);
		EXPECT_EQ(0, floods[i].r);
		refused += floods[i].refused;
		peer_close(&peers[i]);
	}
	TH_LOG("%d received, %lld refused", n, (long long)refused);
	took = TIMED(peer_close(&target));
	probes_report(self, "close of what they flooded", took);
	peer_close(&sender);
}

/*
 * Great numbers
 */

#define N_HANDLES	65536

/* As many nodes of @peer as it may have: all handles that there are. */
static int t_nodes(struct __test_metadata *_metadata, struct peer *peer, int n,
		   __u64 *ids)
{
	int i;

	for (i = 0; i < n; i++)
		ids[i] = 8 * (__u64)i;
	ASSERT_EQ(0, bus1_nodes_create(peer->fd, ids, n));
	EXPECT_EQ(n, bus1_fdinfo(peer->fd, "bus1-handles"));
	return n;
}

TEST_F(adversary, that_closes_65536_nodes)
{
	__u64 *ids = calloc(N_HANDLES, sizeof(*ids)), took;
	int n = scaled(N_HANDLES);
	struct peer owner;

	ASSERT_NE(NULL, ids);
	PEER_OPEN_AS(&owner, UID_MANY);
	took = TIMED(t_nodes(_metadata, &owner, n, ids));
	probes_report(self, "SEND that makes 65536 nodes", took);
	/* In one transaction that the owner is told of. */
	took = TIMED(ASSERT_EQ(0, bus1_nodes_destroy(owner.fd, 0, ids, n)));
	EXPECT_EQ(n, bus1_fdinfo(owner.fd, "bus1-queue"));
	probes_report(self, "NODES_DESTROY of 65536", took);
	took = TIMED(peer_close(&owner));
	probes_report(self, "close with 65536 notifications", took);
	free(ids);
}

/* A message with all the handles that there can be, made by @from. */
static void t_handles_pass(struct __test_metadata *_metadata,
			   FIXTURE_DATA(adversary) *self, struct peer *from,
			   struct peer *to, const __u64 *ids, int n)
{
	__u64 took, id = TRANSFER(to, NODE_B, from);
	struct bus1_cmd_recv r;
	int i;

	took = TIMED(ASSERT_EQ(0, bus1_send_handles(from->fd, id, ids, n)));
	probes_report(self, "SEND of 65536 handles", took);
	EXPECT_WITHIN(to);
	took = TIMED(r = RECV(to));
	probes_report(self, "RECV of 65536 handles", took);
	ASSERT_EQ(n, r.msg.n_handles);
	for (i = 0; i < n; i++)
		ASSERT_EQ(((__u64)i + 1) << 3 | KERNEL_CHOSEN,
			  recv_handle(to, &r, i));
	EXPECT_EQ(n + 1, bus1_fdinfo(to->fd, "bus1-handles"));
	ASSERT_EQ(0, bus1_handle_release(from->fd, id));
	RECV_RELEASE(to, NODE_B);
}

TEST_F(adversary, that_closes_65536_handles)
{
	__u64 *ids = calloc(N_HANDLES, sizeof(*ids)), took, first;
	int i, n = scaled(N_HANDLES);
	struct peer owner, holder;
	struct bus1_cmd_recv r;

	ASSERT_NE(NULL, ids);
	/* One user may fill half of what another has. */
	ASSERT_EQ(0, parameter_set(HANDLES, 4 * N_HANDLES));
	PEER_OPEN_AS(&owner, UID_MANY);
	PEER_OPEN_AS(&holder, UID_MANY + 1);
	t_nodes(_metadata, &owner, n, ids);
	t_handles_pass(_metadata, self, &owner, &holder, ids, n);
	took = TIMED(peer_close(&holder));
	probes_wait(self, 20);
	probes_report(self, "close of 65536 handles", took);
	/* The owner is told of each, once. */
	EXPECT_EQ(n, bus1_fdinfo(owner.fd, "bus1-queue"));
	first = now_ns();
	for (i = 0; i < n; i++) {
		ASSERT_EQ(0, bus1_recv(owner.fd, 0, &r));
		ASSERT_EQ(BUS1_MSG_NODE_RELEASE, r.msg.type);
	}
	probes_report(self, "RECV of 65536 NODE_RELEASE",
		      (now_ns() - first) / 1000);
	RECV_NONE(&owner);

	/* The other way round: their owner goes first. */
	PEER_OPEN_AS(&holder, UID_MANY + 1);
	t_handles_pass(_metadata, self, &owner, &holder, ids, n);
	took = TIMED(peer_close(&owner));
	probes_report(self, "close of their owner", took);
	EXPECT_EQ(n, bus1_fdinfo(holder.fd, "bus1-queue"));
	for (i = 0; i < n / 2; i++) {
		ASSERT_EQ(0, bus1_recv(holder.fd, 0, &r));
		ASSERT_EQ(BUS1_MSG_NODE_DESTROY, r.msg.type);
		ASSERT_EQ(BUS1_MSG_FLAG_CONTINUE, r.msg.flags);
	}
	took = TIMED(ASSERT_EQ(0, bus1_flush(holder.fd,
					     BUS1_PEER_RESET_FLAG_FLUSH)));
	probes_report(self, "flush of 65536 handles", took);
	RECV_NONE(&holder);
	EXPECT_IDLE(&holder);
	peer_close(&holder);
	free(ids);
}

struct many {
	int *fds;
	__u64 *ids;
	int n;
};

static void t_many_open(struct __test_metadata *_metadata, struct many *many,
			const struct peer *sender, int n)
{
	int i;

	many->n = n;
	many->fds = calloc(n, sizeof(int));
	many->ids = calloc(n, sizeof(__u64));
	ASSERT_NE(NULL, many->ids);
	for (i = 0; i < n; i++) {
		many->fds[i] = bus1_open_as(UID_MANY + 1, O_NONBLOCK);
		ASSERT_LE(0, many->fds[i]);
		ASSERT_EQ(0, bus1_handle_transfer(many->fds[i], 8, sender->fd,
						  &many->ids[i]));
	}
}

/* 10,000 peers get one message, and know one node, which is then destroyed. */
TEST_F(adversary, that_sends_to_10000_peers)
{
	struct bus1_cmd_recv r;
	const __u64 node = 0x7000;
	struct peer sender;
	struct many many;
	__u64 took, word;
	__u8 *p;
	int i;

	PEER_OPEN_AS(&sender, UID_MANY);
	t_many_open(_metadata, &many, &sender, scaled(10000));
	probes_report(self, "open of 10000 peers", 0);
	took = TIMED(ASSERT_EQ(0, bus1_send_to(sender.fd, many.ids, many.n,
					       &many.n, sizeof(many.n), &node,
					       1)));
	probes_report(self, "multicast to 10000 peers", took);
	for (i = 0; i < many.n; i++) {
		ASSERT_EQ(0, bus1_recv(many.fds[i], 0, &r));
		ASSERT_EQ(sizeof(many.n), r.msg.n_bytes);
		ASSERT_EQ(8, r.msg.destination);
		ASSERT_EQ(1, r.msg.n_handles);
		if (i % 64)
			continue;
		p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, many.fds[i], 0);
		ASSERT_NE(MAP_FAILED, (void *)p);
		memcpy(&word, p + r.msg.offset + 8, sizeof(word));
		EXPECT_EQ(8 | KERNEL_CHOSEN, word);
		EXPECT_EQ(0, memcmp(p + r.msg.offset, &many.n,
				    sizeof(many.n)));
		munmap(p, PAGE);
	}
	took = TIMED(ASSERT_EQ(0, bus1_node_destroy(sender.fd, node)));
	probes_report(self, "destruction known to 10000 holders", took);
	for (i = 0; i < many.n; i++) {
		ASSERT_EQ(0, bus1_recv(many.fds[i], 0, &r));
		ASSERT_EQ(BUS1_MSG_NODE_DESTROY, r.msg.type);
		ASSERT_EQ(8 | KERNEL_CHOSEN, r.msg.destination);
		ASSERT_EQ(-EAGAIN, bus1_recv(many.fds[i], 0, &r));
	}
	probes_wait(self, 20);
	took = TIMED(peer_close(&sender));
	probes_report(self, "close of the sender", took);
	for (i = 0; i < many.n; i++)
		close(many.fds[i]);
	probes_report(self, "close of 10000 peers", 0);
	free(many.fds);
	free(many.ids);
}

/* 10,000 messages of a transaction in one queue, and many of these. */
TEST_F(adversary, that_sends_to_10000_nodes_of_a_peer)
{
	__u64 *ids = calloc(10000, sizeof(*ids)), took, sum = 0;
	int i, n = scaled(10000);
	struct bus1_cmd_recv r;
	struct peer peer;

	ASSERT_NE(NULL, ids);
	/* Half of it is what siblings leave. */
	ASSERT_EQ(0, parameter_set(SLICES, 65536));
	PEER_OPEN_AS(&peer, UID_MANY);
	t_nodes(_metadata, &peer, n, ids);
	took = TIMED(ASSERT_EQ(0, bus1_send_to(peer.fd, ids, n, "x", 1, NULL,
					       0)));
	probes_report(self, "multicast to 10000 nodes", took);
	EXPECT_EQ(n, bus1_fdinfo(peer.fd, "bus1-queue"));
	for (i = 0; i < n; i++) {
		took = TIMED(ASSERT_EQ(0, bus1_recv(peer.fd, 0, &r)));
		sum = took > sum ? took : sum;
		ASSERT_EQ(i + 1 < n ? BUS1_MSG_FLAG_CONTINUE : 0,
			  r.msg.flags);
	}
	probes_report(self, "RECV of these", sum);
	ASSERT_EQ(0, bus1_flush(peer.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	EXPECT_IDLE(&peer);

	/* Many transactions of 256: each node's messages are in all. */
	n = 256;
	t_nodes(_metadata, &peer, n, ids);
	for (i = 0; i < 63; i++)
		ASSERT_EQ(0, bus1_send_to(peer.fd, ids, n, "x", 1, NULL, 0));
	took = TIMED(ASSERT_EQ(0, bus1_nodes_destroy(peer.fd, 0, ids, n)));
	probes_report(self, "destruction under 16128 messages", took);
	ASSERT_EQ(0, bus1_recv(peer.fd, 0, &r));
	took = TIMED(ASSERT_EQ(0, bus1_flush(peer.fd,
					     BUS1_PEER_RESET_FLAG_FLUSH)));
	probes_report(self, "flush of 16127 messages", took);
	EXPECT_IDLE(&peer);
	peer_close(&peer);
	free(ids);
}

/* One message takes all that its receiver may have. */
TEST_F(adversary, that_sends_messages_of_maximum_size)
{
	size_t size = 16 << 20;
	struct iovec vecs[2];
	__u64 took, id;
	struct bus1_cmd_recv r;
	struct peer a, b;
	__u8 *data;
	int i;

	data = mmap(NULL, size, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)data);
	pattern_fill(data, size, 5);
	PEER_OPEN_AS(&a, UID_MANY);
	PEER_OPEN_AS(&b, UID_MANY);
	id = TRANSFER(&b, NODE_B, &a);
	EXPECT_EQ(0, set_limit(b.fd, BYTES, 16 << 20));
	/* Siblings share: a peer alone gets half of it. */
	took = TIMED(ASSERT_EQ(0, bus1_send_data(a.fd, id, data, size / 2)));
	probes_report(self, "SEND of 8 MiB", took);
	EXPECT_EQ(-EDQUOT, bus1_send_data(a.fd, id, data, size));
	EXPECT_WITHIN(&b);
	r = RECV(&b);
	ASSERT_EQ(size / 2, r.msg.n_bytes);
	EXPECT_TRUE(pattern_check(slice_bytes(&b, &r), size / 2, 5));
	ASSERT_EQ(0, bus1_slice_release(b.fd, r.msg.offset));

	/* Where the administrator allows it, as much as there is memory. */
	ASSERT_EQ(0, parameter_set(BYTES, 256 << 20));
	peer_close(&b);
	PEER_OPEN_AS(&b, UID_MANY);
	id = TRANSFER(&b, NODE_B, &a);
	for (i = 0; i < 2; i++)
		vecs[i] = (struct iovec){ data, size };
	took = TIMED(ASSERT_EQ(0, msg_send(a.fd, .dst = &id, .n_dst = 1,
					   .vecs = vecs, .n_vecs = 2)));
	probes_report(self, "SEND of 32 MiB", took);
	took = TIMED(ASSERT_EQ(0, bus1_flush(b.fd,
					     BUS1_PEER_RESET_FLAG_FLUSH)));
	probes_report(self, "flush of 32 MiB", took);
	took = TIMED(peer_close(&b));
	probes_report(self, "close of 32 MiB", took);
	peer_close(&a);
	munmap(data, size);
}

/* 1,000 users want a share of one peer. */

static long long share_of(int fd, uid_t uid, int column)
{
	char path[64], line[256];
	long long v[4], found = 0;
	unsigned int id;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "bus1-sender: %u %lld %lld %lld %lld", &id,
			   &v[0], &v[1], &v[2], &v[3]) == 5 && id == uid)
			found = v[column];
	if (f)
		fclose(f);
	return found;
}

TEST_F(adversary, of_a_thousand_users)
{
	const long long budget = 1 << 24;
	int i, j, r, n = scaled(1000), *held = calloc(n, sizeof(int));
	struct peer target, late;
	int *fds = calloc(n, sizeof(int));
	__u64 *ids = calloc(n, sizeof(__u64)), took, worst = 0;
	long long all = 0, least = -1, most = 0, floor;
	__u64 id;
	__u32 unit;

	ASSERT_NE(NULL, ids);
	/* So that there is something to divide by (n + 1)^2. */
	ASSERT_EQ(0, parameter_set(SLICES, 1 << 30));
	/* Siblings leave half of that to a peer: senders share all of it. */
	ASSERT_EQ(0, parameter_set(BYTES, 4 * budget));
	PEER_OPEN_AS(&target, UID_C);
	ASSERT_EQ(0, set_limit(target.fd, BYTES, budget));
	for (i = 0; i < n; i++) {
		fds[i] = bus1_open_as(UID_MANY + i, O_NONBLOCK);
		ASSERT_LE(0, fds[i]);
		ASSERT_EQ(0, bus1_handle_transfer(target.fd, NODE_B, fds[i],
						  &ids[i]));
	}
	/* Each takes what it gets, in messages that become smaller. */
	for (i = 0; i < n; i++) {
		static __u8 data[1 << 20];
		const long long before = all;

		for (unit = 1 << 20; unit; unit /= 4) {
			for (j = 0; j < 4096; j++) {
				took = TIMED(r = bus1_send_data(fds[i], ids[i],
								data, unit));
				worst = took > worst ? took : worst;
				if (r)
					break;
				held[i] += unit;
			}
			ASSERT_EQ(-EDQUOT, r);
		}
		/* Never more than half of what the others have left. */
		floor = budget / ((i + 2LL) * (i + 2LL));
		EXPECT_TRUE(held[i] <= (budget - before) / 2 ||
			    held[i] <= floor) {
			TH_LOG("user %d", i);
		}
		EXPECT_LE(floor, held[i]) {
			TH_LOG("user %d", i);
		}
		all += held[i];
		most = held[i] > most ? held[i] : most;
		if (least < 0 || held[i] < least)
			least = held[i];
		ASSERT_GE(budget, all);
	}
	EXPECT_EQ(all, used(target.fd, BYTES));
	EXPECT_EQ(held[n - 1], share_of(target.fd, UID_MANY + n - 1, 2));
	EXPECT_EQ(held[0], share_of(target.fd, UID_MANY, 2));
	EXPECT_WITHIN(&target);
	/* After all of them, an honest one. */
	PEER_OPEN_AS(&late, UID_MANY + n);
	id = TRANSFER(&target, NODE_B, &late);
	floor = budget / ((n + 2LL) * (n + 2LL));
	EXPECT_EQ(0, bus1_send_data(late.fd, id, "abcdefghijkl", floor < 12 ?
				    floor : 12));
	probes_wait(self, 20);
	probes_report(self, "1000 users that flood", worst);
	TH_LOG("%d users: %lld bytes at most, %lld at least, %lld of %lld", n,
	       most, least, all, budget);
	took = TIMED(ASSERT_EQ(0, bus1_flush(target.fd,
					     BUS1_PEER_RESET_FLAG_FLUSH)));
	probes_report(self, "flush of what they sent", took);
	for (i = 0; i < n; i++)
		close(fds[i]);
	EXPECT_EQ(0, used(target.fd, BYTES));
	EXPECT_EQ(0, used(target.fd, SLICES));
	peer_close(&late);
	peer_close(&target);
	free(held);
	free(fds);
	free(ids);
}

/* By default a peer has the limits of its user, and can't hold more than half. */
TEST_F(adversary, that_fills_a_peer_with_default_limits)
{
	enum { N = 4 };
	const int budget = parameter_get(SLICES) / 2;
	struct peer target, senders[N];
	struct bus1_cmd_recv r;
	int i, n, sum = 0;
	__u64 ids[N];

	PEER_OPEN_AS(&target, UID_C);
	for (i = 0; i < N; i++) {
		PEER_OPEN_AS(&senders[i], UID_MANY + i);
		ids[i] = TRANSFER(&target, NODE_B, &senders[i]);
	}
	/* The first one takes what it can; the next ones want a share, too. */
	for (i = 0; i < N - 1; i++) {
		n = send_units(senders[i].fd, ids[i], SLICES, 1 << 20);
		TH_LOG("user %d gets %d of %d", i, n, budget);
		EXPECT_GE((budget - sum) / 2, n);
		EXPECT_LE(budget / (i + 2) / (i + 2), n);
		sum += n;
	}
	EXPECT_EQ(sum, used(target.fd, SLICES));
	EXPECT_WITHIN(&target);
	/* What the target gives back is there for the one who has nothing. */
	r = RECV(&target);
	ASSERT_EQ(0, bus1_slice_release(target.fd, r.msg.offset));
	EXPECT_EQ(-EDQUOT, send_unit(senders[0].fd, ids[0], SLICES, 1));
	EXPECT_EQ(0, send_unit(senders[N - 1].fd, ids[N - 1], SLICES, 1));
	EXPECT_EQ(sum, used(target.fd, SLICES));
	probes_wait(self, 20);
	probes_report(self, "a user that fills a peer", 0);
	for (i = 0; i < N; i++)
		peer_close(&senders[i]);
	peer_close(&target);
}

/*
 * Stopped in the middle
 */

struct stopped {
	int fd, r, done;
	__u64 id;
	void *page;
	struct bus1_cmd_recv *recv;
	pthread_t thread;
};

static void *stopped_send(void *arg)
{
	struct stopped *s = arg;

	s->r = bus1_send_data(s->fd, s->id, s->page, PAGE);
	__atomic_store_n(&s->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

static void *stopped_recv(void *arg)
{
	struct stopped *s = arg;

	s->r = bus1_ioctl(s->fd, BUS1_CMD_RECV, s->recv);
	__atomic_store_n(&s->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* 16 senders, each in a page of a file whose server does not answer. */
TEST_F(adversary, that_is_stopped_by_a_file_system)
{
	enum { N = 16 };
	struct stopped s[N] = {}, receiver = {};
	struct peer sender, honest, target;
	struct bus1_cmd_recv r;
	struct fuse_fs fs;
	__u64 id, hid, word;
	__u8 *map;
	int i, j, fd, ret;

	ret = fuse_fs_mount(&fs);
	if (ret == -ENOENT || ret == -ENODEV)
		SKIP(return, "this kernel has no FUSE");
	ASSERT_EQ(0, ret);
	fd = fuse_fs_open(&fs);
	ASSERT_LE(0, fd);
	map = mmap(NULL, FUSE_FS_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd,
		   0);
	ASSERT_NE(MAP_FAILED, (void *)map);
	madvise(map, FUSE_FS_SIZE, MADV_RANDOM);
	PEER_OPEN_AS(&target, UID_C);
	PEER_OPEN_AS(&honest, UID_MANY);
	PEER_OPEN_AS(&sender, UID_MANY + 1);
	id = TRANSFER(&target, NODE_B, &sender);
	hid = TRANSFER(&target, NODE_C, &honest);
	for (i = 0; i < N; i++) {
		s[i].fd = sender.fd;
		s[i].id = id;
		s[i].page = map + i * PAGE;
		ASSERT_EQ(0, pthread_create(&s[i].thread, NULL, stopped_send,
					    &s[i]));
	}
	EXPECT_TRUE(fuse_fs_wait(&fs));
	/* All of them are there when all of them are charged. */
	while (used(target.fd, SLICES) < N)
		sched_yield();
	EXPECT_EQ((long long)(N * PAGE), used(target.fd, BYTES));
	for (i = 0; i < 1000; i++) {
		word = i;
		ASSERT_EQ(0, bus1_send_data(honest.fd, hid, &word, 8));
		r = RECV(&target);
		EXPECT_EQ(NODE_C, r.msg.destination);
		ASSERT_EQ(8, r.msg.n_bytes);
		EXPECT_EQ(0, memcmp(slice_bytes(&target, &r), &word, 8));
		ASSERT_EQ(0, bus1_slice_release(target.fd, r.msg.offset));
	}
	probes_wait(self, 20);
	probes_report(self, "senders stopped by FUSE", 0);
	for (i = 0; i < N; i++)
		EXPECT_FALSE(__atomic_load_n(&s[i].done, __ATOMIC_ACQUIRE));
	/* It answers: they arrive, whole. */
	fuse_fs_answer_reads(&fs, N);
	for (i = 0; i < N; i++) {
		pthread_join(s[i].thread, NULL);
		EXPECT_EQ(0, s[i].r);
	}
	for (i = 0; i < N; i++) {
		r = RECV(&target);
		ASSERT_EQ(PAGE, r.msg.n_bytes);
		for (j = 0; j < (int)PAGE; j++)
			ASSERT_EQ(FUSE_FS_CONTENT,
				  slice_bytes(&target, &r)[j]);
		ASSERT_EQ(0, bus1_slice_release(target.fd, r.msg.offset));
	}
	munmap(map, FUSE_FS_SIZE);

	/* A receiver that is stopped where it reads its command. */
	fuse_fs_abort(&fs);
	close(fd);
	ASSERT_EQ(0, fuse_fs_mount(&fs));
	fd = fuse_fs_open(&fs);
	ASSERT_LE(0, fd);
	map = mmap(NULL, FUSE_FS_SIZE, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd,
		   0);
	ASSERT_NE(MAP_FAILED, (void *)map);
	receiver.fd = target.fd;
	receiver.recv = (void *)map;
	ASSERT_EQ(0, pthread_create(&receiver.thread, NULL, stopped_recv,
				    &receiver));
	EXPECT_TRUE(fuse_fs_wait(&fs));
	for (i = 0; i < 100; i++) {
		ASSERT_EQ(0, bus1_send_str(honest.fd, hid, "on"));
		RECV_STR(&target, NODE_C, "on");
	}
	probes_wait(self, 20);
	probes_report(self, "receiver stopped by FUSE", 0);
	EXPECT_FALSE(__atomic_load_n(&receiver.done, __ATOMIC_ACQUIRE));
	/* The server goes: the receiver fails, and that is all. */
	fuse_fs_abort(&fs);
	pthread_join(receiver.thread, NULL);
	EXPECT_EQ(-EFAULT, receiver.r);
	munmap(map, FUSE_FS_SIZE);
	close(fd);
	EXPECT_EQ(0, used(target.fd, SLICES));
	peer_close(&sender);
	peer_close(&honest);
	peer_close(&target);
}

/*
 * Senders that hardly ever run, so that most of them are stopped somewhere
 * between having a message on one queue and having it on all.
 */

struct idler {
	int fd, stop, r;
	const __u64 *ids;
	int n;
	__u64 rounds;
	pthread_t thread;
};

static void *idler_fn(void *arg)
{
	struct idler *idler = arg;
	int r;

	/* Of this thread only. */
	setpriority(PRIO_PROCESS, syscall(SYS_gettid), 19);
	while (!__atomic_load_n(&idler->stop, __ATOMIC_ACQUIRE)) {
		r = bus1_send_to(idler->fd, idler->ids, idler->n, idler, 8,
				 NULL, 0);
		if (r && r != -EDQUOT) {
			idler->r = r;
			break;
		}
		__atomic_add_fetch(&idler->rounds, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

TEST_F(adversary, of_many_senders_that_hardly_run)
{
	int i, j, n = scaled(50), n_ids = 256, got = 0;
	struct idler *idlers = calloc(n, sizeof(*idlers));
	struct peer target, sink, honest, sender;
	struct bus1_cmd_recv r;
	__u64 *ids, id, took, worst = 0;

	ids = calloc(n_ids, sizeof(*ids));
	ASSERT_NE(NULL, ids);
	PEER_OPEN_AS(&target, UID_C);
	PEER_OPEN_AS(&sink, UID_MANY);
	PEER_OPEN_AS(&sender, UID_MANY);
	PEER_OPEN_AS(&honest, UID_MANY + 1);
	id = TRANSFER(&target, NODE_C, &honest);
	/* The target first, then lots to do. */
	ids[0] = TRANSFER(&target, NODE_B, &sender);
	for (i = 1; i < n_ids; i++)
		ids[i] = TRANSFER(&sink, 8 * i, &sender);
	for (i = 0; i < n; i++) {
		idlers[i].fd = sender.fd;
		idlers[i].ids = ids;
		idlers[i].n = n_ids;
		ASSERT_EQ(0, pthread_create(&idlers[i].thread, NULL, idler_fn,
					    &idlers[i]));
	}
	for (i = 0; i < scaled(50); i++) {
		ASSERT_EQ(0, bus1_send_str(honest.fd, id, "honest"));
		/* Those that came meanwhile first: each is one of theirs. */
		for (;;) {
			took = TIMED(r = RECV(&target));
			worst = took > worst ? took : worst;
			ASSERT_EQ(BUS1_MSG_DATA, r.msg.type);
			ASSERT_EQ(0, bus1_slice_release(target.fd,
							r.msg.offset));
			if (r.msg.destination == NODE_C)
				break;
			ASSERT_EQ(8, r.msg.n_bytes);
			got++;
		}
		/* Or they are refused, and never get that far. */
		for (j = 0; j < n_ids && !bus1_recv(sink.fd, 0, &r); j++)
			ASSERT_EQ(0, bus1_slice_release(sink.fd,
							r.msg.offset));
	}
	probes_wait(self, 20);
	probes_report(self, "senders that hardly run", worst);
	for (i = 0; i < n; i++)
		__atomic_store_n(&idlers[i].stop, 1, __ATOMIC_RELEASE);
	for (i = 0; i < n; i++) {
		pthread_join(idlers[i].thread, NULL);
		EXPECT_EQ(0, idlers[i].r);
	}
	TH_LOG("%d of their messages received", got);
	EXPECT_WITHIN(&target);
	peer_close(&target);
	peer_close(&sink);
	peer_close(&sender);
	peer_close(&honest);
	free(idlers);
	free(ids);
}

/* Everybody who sends wakes whoever watches: the receiver can have many. */
TEST_F(adversary, that_is_watched_by_many)
{
	int i, n = scaled(2000), *fds = calloc(n, sizeof(int));
	struct epoll_event event = { .events = EPOLLIN };
	struct peer target, sender;
	__u64 id, took, worst = 0;

	ASSERT_NE(NULL, fds);
	PEER_OPEN_AS(&target, UID_C);
	PEER_OPEN_AS(&sender, UID_MANY);
	id = TRANSFER(&target, NODE_B, &sender);
	for (i = 0; i < n; i++) {
		fds[i] = epoll_create1(EPOLL_CLOEXEC);
		ASSERT_LE(0, fds[i]);
		ASSERT_EQ(0, epoll_ctl(fds[i], EPOLL_CTL_ADD, target.fd,
				       &event));
	}
	for (i = 0; i < 50; i++) {
		took = TIMED(ASSERT_EQ(0, bus1_send_str(sender.fd, id, "x")));
		worst = took > worst ? took : worst;
		RECV_STR(&target, NODE_B, "x");
	}
	probes_wait(self, 20);
	probes_report(self, "a peer with 2000 epolls", worst);
	for (i = 0; i < n; i++) {
		EXPECT_EQ(0, epoll_wait(fds[i], &event, 1, 0));
		close(fds[i]);
	}
	peer_close(&target);
	peer_close(&sender);
	free(fds);
}

/* Memory that is taken back from a pool is taken from all of its mappings. */
TEST_F(adversary, that_maps_its_pool_many_times)
{
	int i, n = scaled(1000);
	static __u8 data[1 << 20];
	struct bus1_cmd_recv r;
	struct peer peer;
	__u64 took;
	void *p;

	PEER_OPEN_AS(&peer, UID_MANY);
	memset(data, 0x33, sizeof(data));
	ASSERT_EQ(0, bus1_send_data(peer.fd, 8, data, sizeof(data)));
	r = RECV(&peer);
	for (i = 0; i < n; i++) {
		p = mmap(NULL, PAGE, PROT_READ, MAP_SHARED, peer.fd,
			 i % 2 * PAGE);
		if (p == MAP_FAILED)
			break;
		ASSERT_EQ(0x33, read_byte(p));
	}
	EXPECT_EQ(n, i);
	ASSERT_EQ(0, bus1_slice_release(peer.fd, r.msg.offset));
	probes_report(self, "1000 mappings of a pool", 0);
	took = TIMED(ASSERT_EQ(0, bus1_disconnect(peer.fd)));
	probes_report(self, "disconnect of that", took);
	EXPECT_EQ(-1, read_byte(p));
	probes_wait(self, 20);
	peer_close(&peer);
}

TEST_HARNESS_MAIN
