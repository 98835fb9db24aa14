// SPDX-License-Identifier: GPL-2.0-only
/*
 * Attacks on the order of transactions, round by round: while one CPU is busy with
 * a transaction that goes to many queues, the other one sends, receives and looks
 * around, at a random moment of it. Each is after something that a protocol which is
 * nearly right gets wrong; but all that is seen is checked.
 */

#include "bus1_order.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	3600

/* One after the other, so that the history of these is checked at once. */
#define ROUNDS		100
#define BATCHES		6
#define SLOW		64	/* nodes that make a multicast slow */
#define SLOW_HOLDERS	6	/* peers that make a destruction slow */
#define NODE_BASE	0x100000ULL

/* A node to be destroyed: of two, the second, in this round. */
#define NODE_OF(_round, _second) (2 * (_round) + (_second))

enum { D, E, N_RECEIVERS };

#define TO_D	(1U << (D * ORDER_BASE))
#define TO_E	(1U << (E * ORDER_BASE))

enum what { MULTICAST, DESTROY, FLUSH, DISCONNECT };

/*
 * D and E receive. M does the slow thing: it multicasts to both, and to many others
 * in between; or destroys two nodes, of which D and E hold one each. S sends m1 to
 * D, and then tells X, and X sends m2 to E; they never heard of each other on the
 * bus, nor of M.
 */
FIXTURE(attack) {
	struct order *order;
	struct peer receivers[N_RECEIVERS];
	struct peer m, s, x, slow, holders[SLOW_HOLDERS];
	/* D's first in M's list, E's last, and the other way round */
	__u64 m_dests[2][SLOW + 2];
	__u64 s_dests[N_RECEIVERS], x_dests[N_RECEIVERS];
	/* handles to the first and second node of this round */
	__u64 s_handle, held[N_RECEIVERS][2];
	__u32 refs[N_RECEIVERS][2];
	__u32 round, go, ready, took;
	bool stop;
	__u64 seed;
	int to_x[2], from_x[2];
	int kick, over;
	pthread_t m_thread, x_thread, kick_thread;
};

FIXTURE_VARIANT(attack) {
	enum what what;
	bool pipe;	/* X is another thread, told by a pipe */
	bool backwards;	/* what M does is staged at E first */
	bool preempt;	/* S takes the CPU away from M */
};

FIXTURE_VARIANT_ADD(attack, multicast) {
	.what = MULTICAST,
};

FIXTURE_VARIANT_ADD(attack, multicast_backwards) {
	.what = MULTICAST,
	.backwards = true,
};

FIXTURE_VARIANT_ADD(attack, multicast_pipe) {
	.what = MULTICAST,
	.pipe = true,
};

FIXTURE_VARIANT_ADD(attack, multicast_preempted) {
	.what = MULTICAST,
	.preempt = true,
};

FIXTURE_VARIANT_ADD(attack, destroy_preempted) {
	.what = DESTROY,
	.preempt = true,
};

FIXTURE_VARIANT_ADD(attack, destroy) {
	.what = DESTROY,
};

FIXTURE_VARIANT_ADD(attack, destroy_backwards) {
	.what = DESTROY,
	.backwards = true,
};

FIXTURE_VARIANT_ADD(attack, flush) {
	.what = FLUSH,
};

FIXTURE_VARIANT_ADD(attack, disconnect) {
	.what = DISCONNECT,
};

FIXTURE_SETUP(attack)
{
	int i, j;

	self->order = order_new(N_RECEIVERS, 24 * ROUNDS, ROUNDS);
	ASSERT_NE(NULL, self->order);
	for (i = 0; i < N_RECEIVERS; i++)
		PEER_OPEN(&self->receivers[i]);
	PEER_OPEN(&self->m);
	PEER_OPEN(&self->s);
	PEER_OPEN(&self->x);
	PEER_OPEN(&self->slow);
	for (i = 0; i < SLOW_HOLDERS; i++)
		PEER_OPEN(&self->holders[i]);
	for (i = 0; i < N_RECEIVERS; i++) {
		self->m_dests[0][i * (SLOW + 1)] =
			TRANSFER(&self->receivers[i], ORDER_ID(0), &self->m);
		self->m_dests[1][(1 - i) * (SLOW + 1)] =
			self->m_dests[0][i * (SLOW + 1)];
		self->s_dests[i] = TRANSFER(&self->receivers[i], ORDER_ID(0),
					    &self->s);
		self->x_dests[i] = TRANSFER(&self->receivers[i], ORDER_ID(0),
					    &self->x);
	}
	for (i = 0; i < SLOW; i++)
		for (j = 0; j < 2; j++)
			self->m_dests[j][i + 1] =
				TRANSFER(&self->slow, 8 * i, &self->m);
	self->seed = 1;
	self->kick = event_new();
	self->over = event_new();
	ASSERT_EQ(0, pipe(self->to_x));
	ASSERT_EQ(0, pipe(self->from_x));
}

FIXTURE_TEARDOWN(attack)
{
	int i;

	for (i = 0; i < N_RECEIVERS; i++)
		peer_close(&self->receivers[i]);
	for (i = 0; i < SLOW_HOLDERS; i++)
		peer_close(&self->holders[i]);
	peer_close(&self->m);
	peer_close(&self->s);
	peer_close(&self->x);
	peer_close(&self->slow);
	order_free(self->order);
}

struct attack {
	FIXTURE_DATA(attack) *self;
	const FIXTURE_VARIANT(attack) *variant;
};

/* What M does. */
static void attack_m(struct attack *attack)
{
	FIXTURE_DATA(attack) *self = attack->self;
	__u32 first = NODE_OF(self->round, 0), i, tx;
	bool backwards = attack->variant->backwards;
	struct order *o = self->order;
	__u64 ids[2];
	int r = 0;

	if (attack->variant->what == MULTICAST) {
		order_send(o, self->m.fd, self->m_dests[backwards], SLOW + 2,
			   TO_D | TO_E);
		return;
	}

	for (i = 0; i < 2; i++)
		ids[i ^ backwards] = NODE_BASE + 8 * (first + i);
	tx = order_begin(o, 0, ORDER_NONE);
	if (attack->variant->what == DESTROY)
		r = bus1_nodes_destroy(self->m.fd, 0, ids, 2);
	else if (attack->variant->what == FLUSH)
		r = bus1_flush(self->m.fd, BUS1_PEER_RESET_FLAG_FLUSH);
	else
		r = bus1_disconnect(self->m.fd);
	ORDER_CHECK(o, !r, r);
	order_destroyed(o, first, tx);
	order_destroyed(o, first + 1, tx);
	order_end(o, tx, r);
}

/*
 * Among transactions of equal time the ID decides, and each CPU counts its own. S
 * has more of them than M: let M be ahead now and then.
 */
static void attack_use_ids(FIXTURE_DATA(attack) *self)
{
	int i;

	for (i = 0; i < 10 * ROUNDS; i++)
		bus1_node_destroy(self->x.fd, BUS1_HANDLE_INVALID);
}

static void *m_thread(void *arg)
{
	struct attack *attack = arg;
	FIXTURE_DATA(attack) *self = attack->self;
	struct bus1_cmd_recv recv;
	__u32 round;

	order_pin(1);
	for (round = 1;; round++) {
		if (round % (2 * ROUNDS) == 1)
			attack_use_ids(self);
		while (__atomic_load_n(&self->go, __ATOMIC_ACQUIRE) < round)
			sched_yield();
		if (self->stop)
			return NULL;
		attack_m(attack);
		while (!bus1_recv(self->slow.fd, 0, &recv))
			bus1_slice_release(self->slow.fd, recv.msg.offset);
		__atomic_store_n(&self->ready, round, __ATOMIC_RELEASE);
		if (attack->variant->preempt)
			event_post(self->over);
	}
}

/*
 * Waits for a random moment of what M does in this round: soon, or any. How long it
 * takes is measured now and then.
 */
static void attack_wait(FIXTURE_DATA(attack) *self, __u64 *seed, __u32 round)
{
	__u32 spin = 1;

	if (round % 31 == 1) {
		while (__atomic_load_n(&self->ready, __ATOMIC_ACQUIRE) < round)
			spin++;
		self->took = spin;
	} else if (next_random(seed) & 0x100) {
		order_spin(seed, self->took);
	} else {
		order_spin(seed, 1 << (6 + round % 10));
	}
}

/* Wakes up S, from another CPU. */
static void *kick_thread(void *arg)
{
	FIXTURE_DATA(attack) *self = ((struct attack *)arg)->self;
	__u64 seed = 2;
	__u32 round;

	order_pin(0);
	for (round = 1;; round++) {
		while (__atomic_load_n(&self->go, __ATOMIC_ACQUIRE) < round)
			sched_yield();
		if (self->stop)
			return NULL;
		attack_wait(self, &seed, round);
		event_post(self->kick);
	}
}

/*
 * Sends to @mask, D or E or both; with @carried, a handle of S to the first node of
 * this round goes along.
 */
static void attack_send(FIXTURE_DATA(attack) *self, int fd, const __u64 *to,
			__u32 mask, bool carried)
{
	struct order_payload payload = {
		.carried = carried ? NODE_OF(self->round, 0) : ORDER_NONE,
	};
	struct order *o = self->order;
	__u64 dests[N_RECEIVERS];
	size_t n = 0;
	int r;

	if (mask & TO_D)
		dests[n++] = to[D];
	if (mask & TO_E)
		dests[n++] = to[E];
	payload.tx = order_begin(o, mask, ORDER_NONE);
	r = bus1_send_to(fd, dests, n, &payload, sizeof(payload),
			 &self->s_handle, carried);
	order_end(o, payload.tx, r);
	ORDER_CHECK(o, !r, r);
}

static void *x_thread(void *arg)
{
	FIXTURE_DATA(attack) *self = ((struct attack *)arg)->self;
	char c;

	order_pin(0);
	while (read(self->to_x[0], &c, 1) == 1 && c) {
		attack_send(self, self->x.fd, self->x_dests, TO_E, false);
		if (write(self->from_x[1], &c, 1) != 1)
			break;
	}
	return NULL;
}

static void attack_to_e(struct attack *attack, bool carried)
{
	FIXTURE_DATA(attack) *self = attack->self;
	struct order *o = self->order;
	char c = 1;

	if (!attack->variant->pipe) {
		if (carried)
			attack_send(self, self->s.fd, self->s_dests, TO_E, true);
		else
			attack_send(self, self->x.fd, self->x_dests, TO_E,
				    false);
		return;
	}
	ORDER_CHECK(o, write(self->to_x[1], &c, 1) == 1, 0);
	ORDER_CHECK(o, read(self->from_x[0], &c, 1) == 1, 0);
}

static void attack_got_handle(FIXTURE_DATA(attack) *self, int q, int second,
			      __u64 id)
{
	ORDER_CHECK(self->order, !self->held[q][second] ||
		    self->held[q][second] == id, id);
	self->held[q][second] = id;
	self->refs[q][second]++;
}

static void attack_data(FIXTURE_DATA(attack) *self, int q,
			struct bus1_cmd_recv *recv)
{
	struct order_payload payload;
	struct order_entry entry = {
		.cont = recv->msg.flags & BUS1_MSG_FLAG_CONTINUE,
	};
	struct order *o = self->order;
	__u64 id;

	memcpy(&payload, self->receivers[q].pool + recv->msg.offset,
	       sizeof(payload));
	entry.tx = payload.tx;
	entry.mortal = payload.carried;
	if (payload.carried != ORDER_NONE) {
		id = recv_handle(&self->receivers[q], recv, 0);
		entry.valid = id != BUS1_HANDLE_INVALID;
		if (entry.valid)
			attack_got_handle(self, q, 0, id);
		else
			order_seen_dead(o, entry.mortal);
	}
	order_log(o, q, entry);
	bus1_slice_release(self->receivers[q].fd, recv->msg.offset);
}

static void attack_notification(FIXTURE_DATA(attack) *self, int q,
				struct bus1_cmd_recv *recv)
{
	bool second = recv->msg.destination == self->held[q][1];
	struct order *o = self->order;

	ORDER_CHECK(o, recv->msg.type == BUS1_MSG_NODE_DESTROY, recv->msg.type);
	if (recv->msg.destination != self->held[q][second]) {
		order_fail(o, __LINE__, recv->msg.destination);
		return;
	}
	order_log(o, q, (struct order_entry){
		.kind = ORDER_DESTROY,
		.cont = recv->msg.flags & BUS1_MSG_FLAG_CONTINUE,
		.mortal = NODE_OF(self->round, second),
	});
}

static void attack_drain(FIXTURE_DATA(attack) *self, int q)
{
	struct bus1_cmd_recv recv;
	int r;

	while (!(r = bus1_recv(self->receivers[q].fd, 0, &recv))) {
		if (recv.msg.type == BUS1_MSG_DATA)
			attack_data(self, q, &recv);
		else
			attack_notification(self, q, &recv);
	}
	ORDER_CHECK(self->order, r == -EAGAIN, r);
}

static void attack_drain_some(FIXTURE_DATA(attack) *self, __u32 which)
{
	if (which & 1)
		attack_drain(self, D);
	if (which & 2)
		attack_drain(self, E);
}

/* Asks in two ways whether the first node lives; true if it does not. */
static bool attack_probe(struct attack *attack)
{
	FIXTURE_DATA(attack) *self = attack->self;
	struct order *o = self->order;
	__u32 e = NODE_OF(self->round, 0);
	int q, r;
	__u64 id;

	if (next_random(&self->seed) % 2) {
		r = bus1_send_data(self->s.fd, self->s_handle, "x", 1);
		/* An owner that gets no CPU for long has a full queue */
		ORDER_CHECK(o, !r || r == -EHOSTUNREACH || r == -EDQUOT, r);
		if (r == -EHOSTUNREACH)
			order_seen_dead(o, e);
		return r == -EHOSTUNREACH;
	}
	q = next_random(&self->seed) % N_RECEIVERS;
	r = bus1_handle_transfer(self->s.fd, self->s_handle,
				 self->receivers[q].fd, &id);
	ORDER_CHECK(o, !r, r);
	if (!r && id != BUS1_HANDLE_INVALID) {
		attack_got_handle(self, q, 0, id);
		return false;
	}
	order_seen_dead(o, e);
	return true;
}

/* Some things at random. */
static void attack_random(struct attack *attack)
{
	FIXTURE_DATA(attack) *self = attack->self;
	bool mortal = attack->variant->what != MULTICAST, carried;
	int i, n = 2 + next_random(&self->seed) % 4;
	__u32 random, what;

	for (i = 0; i < n; i++) {
		random = next_random(&self->seed);
		carried = mortal && random & 0x1000;
		what = random % (mortal ? 7 : 5);
		switch (what) {
		case 0:
			attack_send(self, self->s.fd, self->s_dests, TO_D,
				    carried);
			break;
		case 1:
			attack_to_e(attack, carried);
			break;
		case 2:
			attack_send(self, self->s.fd, self->s_dests,
				    TO_D | TO_E, carried);
			break;
		case 3:
		case 4:
			attack_drain(self, what - 3);
			break;
		default:
			attack_probe(attack);
		}
	}
}

/*
 * "It is gone" as the first thing to know: asked until it is so, and then told to
 * those who may not have heard of it.
 */
static void attack_ask(struct attack *attack)
{
	FIXTURE_DATA(attack) *self = attack->self;
	int i;

	/* If M has no CPU to go on, it will not be so. */
	for (i = 0; !attack_probe(attack); i++)
		if (attack->variant->preempt && i == 10)
			return;
	attack_send(self, self->s.fd, self->s_dests, TO_D, false);
	attack_to_e(attack, false);
}

/*
 * E becomes a holder of the first node while that is being destroyed, after it has
 * received what comes after a message that waits at D.
 */
static void attack_join(struct attack *attack)
{
	FIXTURE_DATA(attack) *self = attack->self;
	struct order *o = self->order;
	__u64 id;
	int r;

	attack_send(self, self->s.fd, self->s_dests, TO_D, self->round & 16);
	attack_send(self, self->s.fd, self->s_dests, TO_E, self->round & 8);
	attack_drain(self, E);
	if (self->round & 8)
		return;
	r = bus1_handle_transfer(self->s.fd, self->s_handle,
				 self->receivers[E].fd, &id);
	ORDER_CHECK(o, !r, r);
	if (!r && id != BUS1_HANDLE_INVALID)
		attack_got_handle(self, E, 0, id);
	else
		order_seen_dead(o, NODE_OF(self->round, 0));
}

/*
 * m1, m2, or the other way round; D or E or both in a hurry, or only who gets the
 * second one: what is first still waits then, and M may get in front of it.
 */
static void attack_strangers(struct attack *attack)
{
	FIXTURE_DATA(attack) *self = attack->self;
	__u32 random = next_random(&self->seed);
	bool e_first = random & 0x10;
	__u32 n = random >> 8 & random >> 10 & 3, i;

	if (random & 0x20)
		random = e_first ? 1 << (2 + D) : 1 << (2 + E);
	/* Of logical clocks, that of whoever gets more runs away. */
	for (i = 0; i <= n; i++) {
		if (e_first)
			attack_to_e(attack, false);
		else
			attack_send(self, self->s.fd, self->s_dests, TO_D,
				    false);
	}
	attack_drain_some(self, random & 3);
	if (e_first)
		attack_send(self, self->s.fd, self->s_dests, TO_D, false);
	else
		attack_to_e(attack, false);
	attack_drain_some(self, random >> 2 & 3);
}

/* Nodes of M, and who holds them. */
static void attack_prepare(FIXTURE_DATA(attack) *self, enum what what)
{
	struct order *o = self->order;
	__u64 ids[2], id;
	int i, j, r = 0;

	memset(self->held, 0, sizeof(self->held));
	memset(self->refs, 0, sizeof(self->refs));
	if (what == MULTICAST)
		return;
	if (what == DISCONNECT) {
		close(self->m.fd);
		self->m.fd = bus1_open(O_NONBLOCK);
	}
	for (i = 0; i < 2; i++) {
		ids[i] = NODE_BASE + 8 * NODE_OF(self->round, i);
		/* E is no holder of anything where it is to become one. */
		if (i == D || self->round % 4 != 1) {
			r = bus1_handle_transfer(self->m.fd, ids[i],
						 self->receivers[i].fd, &id);
			ORDER_CHECK(o, !r, r);
			attack_got_handle(self, i, i, id);
		}
		for (j = 0; j < SLOW_HOLDERS; j++)
			r = r ?: bus1_handle_transfer(self->m.fd, ids[i],
						      self->holders[j].fd, &id);
	}
	r = r ?: bus1_handle_transfer(self->m.fd, ids[0], self->s.fd,
				      &self->s_handle);
	ORDER_CHECK(o, !r, r);
}

static void attack_recv_all(struct order *o, int fd, int n)
{
	struct bus1_cmd_recv recv;

	/* Each is told once of each, in one piece. */
	while (!bus1_recv(fd, 0, &recv)) {
		if (recv.msg.type == BUS1_MSG_DATA)
			bus1_slice_release(fd, recv.msg.offset);
		if (recv.msg.type != BUS1_MSG_NODE_DESTROY)
			continue;
		n--;
		ORDER_CHECK(o, recv.msg.flags == (n ? BUS1_MSG_FLAG_CONTINUE : 0),
			    n);
		bus1_drain_refs(fd, recv.msg.destination);
	}
	ORDER_CHECK(o, !n, n);
}

/* The round is over: everybody who held something was told of it once. */
static void attack_finish(FIXTURE_DATA(attack) *self, enum what what)
{
	struct order *o = self->order;
	int q, i;

	attack_drain_some(self, 3);
	if (what == MULTICAST)
		return;
	for (q = 0; q < N_RECEIVERS; q++) {
		for (i = 0; i < 2; i++) {
			if (!self->held[q][i])
				continue;
			ORDER_CHECK(o, bus1_drain_refs(self->receivers[q].fd,
						       self->held[q][i]) ==
				    (int)self->refs[q][i], i);
		}
	}
	attack_recv_all(o, self->s.fd, 1);
	for (i = 0; i < SLOW_HOLDERS; i++)
		attack_recv_all(o, self->holders[i].fd, 2);
	if (what == DESTROY)
		attack_recv_all(o, self->m.fd, 2);
}

/* Waits until M is somewhere in the middle. */
static void attack_begin(struct attack *attack)
{
	FIXTURE_DATA(attack) *self = attack->self;

	__atomic_store_n(&self->go, self->go + 1, __ATOMIC_RELEASE);
	if (attack->variant->preempt)
		event_wait(self->kick);
	else
		attack_wait(self, &self->seed, self->go);
}

/* Waits until M is done. */
static void attack_end(struct attack *attack)
{
	FIXTURE_DATA(attack) *self = attack->self;

	if (attack->variant->preempt)
		event_wait(self->over);
	while (__atomic_load_n(&self->ready, __ATOMIC_ACQUIRE) < self->go)
		sched_yield();
}

/* Of logical clocks, that of D or E is ahead. */
static void attack_push_clock(FIXTURE_DATA(attack) *self)
{
	__u32 random = next_random(&self->seed), i;

	for (i = 0; i < (random >> 8) % 6; i++)
		attack_send(self, self->s.fd, self->s_dests,
			    random & 1 ? TO_D : TO_E, false);
}

/* All that were told of are those that were held. */
static void attack_check_told(FIXTURE_DATA(attack) *self)
{
	struct order *o = self->order;
	__u32 q, i, n = 0, held = 0;

	for (q = 0; q < N_RECEIVERS; q++) {
		for (i = 0; i < o->n_log[q]; i++)
			n += o->log[q][i].kind == ORDER_DESTROY &&
			     o->log[q][i].mortal / 2 == self->round;
		held += !!self->held[q][0] + !!self->held[q][1];
	}
	ORDER_CHECK(o, n == held, n);
}

static bool attack_batch(struct attack *attack)
{
	FIXTURE_DATA(attack) *self = attack->self;
	enum what what = attack->variant->what;
	bool good;

	for (self->round = 0; self->round < ROUNDS; self->round++) {
		attack_prepare(self, what);
		attack_push_clock(self);
		attack_begin(attack);
		if (self->round % 4 == 3)
			attack_random(attack);
		else if (self->round % 4 == 2 && what != MULTICAST)
			attack_ask(attack);
		else if (self->round % 4 == 1 && what != MULTICAST)
			attack_join(attack);
		else
			attack_strangers(attack);
		attack_end(attack);
		attack_finish(self, what);
		attack_check_told(self);
	}
	good = order_check(self->order);
	order_reset(self->order);
	return good;
}

TEST_F(attack, strangers_agree)
{
	const struct sched_param urgent = { .sched_priority = 1 };
	struct attack attack = { self, variant };
	__u32 i, n = scaled_rounds(BATCHES);
	bool good = true;
	char c = 0;

	ASSERT_EQ(0, pthread_create(&self->m_thread, NULL, m_thread, &attack));
	if (variant->pipe)
		ASSERT_EQ(0, pthread_create(&self->x_thread, NULL, x_thread,
					    &attack));
	order_pin(variant->preempt);
	if (variant->preempt) {
		ASSERT_EQ(0, pthread_create(&self->kick_thread, NULL,
					    kick_thread, &attack));
		ASSERT_EQ(0, pthread_setschedparam(pthread_self(), SCHED_FIFO,
						   &urgent));
	}
	for (i = 0; i < n && good; i++)
		good = attack_batch(&attack);
	EXPECT_TRUE(good);
	self->stop = true;
	__atomic_store_n(&self->go, self->go + 1, __ATOMIC_RELEASE);
	ASSERT_EQ(1, write(self->to_x[1], &c, 1));
	pthread_join(self->m_thread, NULL);
	if (variant->pipe)
		pthread_join(self->x_thread, NULL);
	if (variant->preempt)
		pthread_join(self->kick_thread, NULL);
	order_report(self->order);
}

/*
 * Two threads at one queue, or at one node.
 */

#define N	200

FIXTURE(pair) {
	struct peer a, b;
	pthread_t thread;
	int error;
	pid_t tid;
	__u32 n, stop;
	__u64 seed;
};

FIXTURE_SETUP(pair)
{
	PEER_OPEN(&self->b);
	PEER_OPEN_BLOCKING(&self->a);
	self->seed = 1;
}

FIXTURE_TEARDOWN(pair)
{
	peer_close(&self->a);
	peer_close(&self->b);
}

static __u32 pair_count(FIXTURE_DATA(pair) *self)
{
	return __atomic_load_n(&self->n, __ATOMIC_ACQUIRE);
}

/* Receives, waits for more, and counts. */
static void *pair_receiver(void *arg)
{
	FIXTURE_DATA(pair) *self = arg;
	struct bus1_cmd_recv recv;

	/* Of one CPU: whoever is woken up too early runs too early. */
	order_pin(0);
	__atomic_store_n(&self->tid, syscall(SYS_gettid), __ATOMIC_RELEASE);
	while (!bus1_recv(self->a.fd, 0, &recv)) {
		if (recv.msg.type == BUS1_MSG_DATA)
			bus1_slice_release(self->a.fd, recv.msg.offset);
		__atomic_add_fetch(&self->n, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* After SEND has returned, nobody sleeps in front of a message. */
TEST_F(pair, no_receiver_sleeps_in_front_of_a_message)
{
	struct bus1_cmd_recv recv;
	__u64 h[2];
	bool lost = false;
	__u32 i;

	h[0] = TRANSFER(&self->a, 8, &self->b);
	h[1] = TRANSFER(&self->b, 8, &self->b);
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, pair_receiver, self));
	while (!__atomic_load_n(&self->tid, __ATOMIC_ACQUIRE))
		sched_yield();
	order_pin(0);
	for (i = 0; i < N && !lost; i++) {
		/* One that sleeps, or is about to. */
		if (i % 2)
			thread_wait_asleep(self->tid);
		else
			order_spin(&self->seed, 1 << (i % 16));
		/* To one, or to many. */
		ASSERT_EQ(0, bus1_send_to(self->b.fd, h, 1 + i / 2 % 2, "x", 1,
					  NULL, 0));
		while (pair_count(self) <= i && !lost)
			lost = thread_sleeps(self->tid) &&
			       peer_poll(self->a.fd) & POLLIN &&
			       thread_sleeps(self->tid) &&
			       pair_count(self) <= i;
		while (!bus1_recv(self->b.fd, 0, &recv))
			bus1_slice_release(self->b.fd, recv.msg.offset);
	}
	EXPECT_FALSE(lost);
	bus1_disconnect(self->a.fd);
	pthread_join(self->thread, NULL);
}

/* The same for what is told of a destruction. */
TEST_F(pair, no_holder_sleeps_in_front_of_a_notification)
{
	bool lost = false;
	__u64 node, h;
	__u32 i;

	ASSERT_EQ(0, pthread_create(&self->thread, NULL, pair_receiver, self));
	while (!__atomic_load_n(&self->tid, __ATOMIC_ACQUIRE))
		sched_yield();
	order_pin(0);
	for (i = 0; i < N && !lost; i++) {
		node = NODE_BASE + 8 * i;
		h = TRANSFER(&self->b, node, &self->a);
		if (i % 2)
			thread_wait_asleep(self->tid);
		else
			order_spin(&self->seed, 1 << (i % 16));
		ASSERT_EQ(0, bus1_nodes_destroy(self->b.fd,
			BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES, &node, 1));
		while (pair_count(self) <= i && !lost)
			lost = thread_sleeps(self->tid) &&
			       peer_poll(self->a.fd) & POLLIN &&
			       thread_sleeps(self->tid) &&
			       pair_count(self) <= i;
		ASSERT_EQ(0, bus1_handle_release(self->a.fd, h));
	}
	EXPECT_FALSE(lost);
	bus1_disconnect(self->a.fd);
	pthread_join(self->thread, NULL);
}

/* Polls for messages all the time, and notes what it should not get. */
static void *pair_listener(void *arg)
{
	FIXTURE_DATA(pair) *self = arg;
	struct bus1_cmd_recv recv;

	order_pin(0);
	while (!__atomic_load_n(&self->stop, __ATOMIC_ACQUIRE)) {
		if (!bus1_recv(self->b.fd, 0, &recv))
			self->error = recv.msg.type;
		__atomic_add_fetch(&self->n, 1, __ATOMIC_RELEASE);
	}
	return NULL;
}

/* An owner that drops its last reference as it destroys hears nothing of it. */
TEST_F(pair, owner_that_lets_go_is_not_told)
{
	__u64 node, h;
	int i;

	ASSERT_EQ(0, pthread_create(&self->thread, NULL, pair_listener, self));
	while (!pair_count(self))
		sched_yield();
	order_pin(0);
	for (i = 0; i < N && !__atomic_load_n(&self->error,
						  __ATOMIC_RELAXED); i++) {
		node = NODE_BASE + 8 * i;
		h = TRANSFER(&self->b, node, &self->a);
		ASSERT_EQ(0, bus1_nodes_destroy(self->b.fd,
			BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES, &node, 1));
		RECV_DESTROY(&self->a, h);
		ASSERT_EQ(0, bus1_handle_release(self->a.fd, h));
	}
	__atomic_store_n(&self->stop, 1, __ATOMIC_RELEASE);
	pthread_join(self->thread, NULL);
	EXPECT_EQ(0, self->error);
}

/*
 * What somebody lets go of by a flush comes after what it destroys by that, in
 * every queue.
 */
TEST_F(pair, flush_destroys_before_it_releases)
{
	const __u64 mine = 0x100, yours = 0x200;
	__u64 h;
	int i;

	for (i = 0; i < 10; i++) {
		h = TRANSFER(&self->b, mine, &self->a);
		TRANSFER(&self->a, yours + 8 * i, &self->b);
		ASSERT_EQ(0, bus1_flush(self->b.fd,
					BUS1_PEER_RESET_FLAG_FLUSH));
		RECV_DESTROY(&self->a, h);
		RECV_RELEASE(&self->a, yours + 8 * i);
		ASSERT_EQ(0, bus1_handle_release(self->a.fd, h));
	}
}

TEST_HARNESS_MAIN
