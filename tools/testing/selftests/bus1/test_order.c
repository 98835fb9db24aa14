// SPDX-License-Identifier: GPL-2.0-only
/*
 * The order of transactions: what one thread can see, and a targeted attack on
 * the order between peers that never heard of each other. Random histories are
 * in test_order_stress.c.
 */

#include "bus1_order.h"

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

/*
 * The checker itself: one that never finds anything proves nothing. These need
 * no device.
 */

FIXTURE(checker) {
	struct order *order;
};

FIXTURE_SETUP(checker)
{
	self->order = order_new(2, 16, 0);
	ASSERT_NE(NULL, self->order);
}

FIXTURE_TEARDOWN(checker)
{
	order_free(self->order);
}

/* The history that the attack below is after; @bad: it succeeded. */
static void checker_history(struct order *o, bool bad)
{
	struct order_entry entry = { .carried = ORDER_NONE };
	__u32 m1, m2, m3;

	m3 = order_begin(o, 1 | 1 << ORDER_BASE, ORDER_NONE);
	m1 = order_begin(o, 1, ORDER_NONE);
	order_end(o, m1, 0);
	m2 = order_begin(o, 1 << ORDER_BASE, ORDER_NONE);
	order_end(o, m2, 0);
	order_end(o, m3, 0);
	entry.tx = m3;
	order_log(o, 0, entry);
	entry.tx = m1;
	order_log(o, 0, entry);
	entry.tx = bad ? m2 : m3;
	order_log(o, 1, entry);
	entry.tx = bad ? m3 : m2;
	order_log(o, 1, entry);
}

TEST_F(checker, accepts_a_good_history)
{
	checker_history(self->order, false);
	ORDER_EXPECT(self->order);
}

TEST_F(checker, finds_a_cycle)
{
	checker_history(self->order, true);
	order_check_queue(self->order, 0);
	order_check_queue(self->order, 1);
	EXPECT_EQ(0, self->order->error);
	EXPECT_NE(0, order_check_graph(self->order));
}

TEST_F(checker, finds_a_lost_message)
{
	checker_history(self->order, false);
	self->order->n_log[1]--;
	order_check_queue(self->order, 1);
	EXPECT_NE(0, self->order->error);
}

TEST_F(checker, finds_a_doubled_message)
{
	struct order *o = self->order;

	checker_history(o, false);
	order_log(o, 1, o->log[1][0]);
	order_check_queue(o, 1);
	EXPECT_NE(0, o->error);
}

TEST_F(checker, finds_a_wrong_continue)
{
	checker_history(self->order, false);
	self->order->log[0][0].cont = true;
	order_check_queue(self->order, 0);
	EXPECT_NE(0, self->order->error);
}

/*
 * The attack: D and E receive; M multicasts m3 to both, and to many others in
 * between to be slow; S sends m1 to D, tells X, and X sends m2 to E. S and X
 * never heard of each other on the bus. Not "m3, m1" at D with "m2, m3" at E.
 */
#define ATTACK_ROUNDS	1000
#define ATTACK_SLOW	64	/* nodes of the peer that makes m3 slow */

enum { D, E, N_RECEIVERS };

FIXTURE(attack) {
	struct order *order;
	struct peer receivers[N_RECEIVERS];
	struct peer m, s, x, slow;
	/* D's first in M's list, E's last, and the other way round */
	__u64 m_dests[2][ATTACK_SLOW + 2];
	__u64 s_dest, x_dest;
	__u32 go, ready;
	int to_x[2], from_x[2];
	pthread_t m_thread, x_thread;
};

FIXTURE_VARIANT(attack) {
	bool pipe;	/* X is another thread, told by a pipe */
	bool backwards;	/* m3 is staged at E first */
};

FIXTURE_VARIANT_ADD(attack, one_thread) {
};

FIXTURE_VARIANT_ADD(attack, one_thread_backwards) {
	.backwards = true,
};

FIXTURE_VARIANT_ADD(attack, pipe) {
	.pipe = true,
};

FIXTURE_VARIANT_ADD(attack, pipe_backwards) {
	.pipe = true,
	.backwards = true,
};

static void pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	/* Where there is no such CPU, anywhere is fine. */
	sched_setaffinity(0, sizeof(set), &set);
}

FIXTURE_SETUP(attack)
{
	__u64 d, e;
	int i;

	self->order = order_new(N_RECEIVERS, 3 * ATTACK_ROUNDS + 8, 0);
	ASSERT_NE(NULL, self->order);
	for (i = 0; i < N_RECEIVERS; i++)
		PEER_OPEN(&self->receivers[i]);
	PEER_OPEN(&self->m);
	PEER_OPEN(&self->s);
	PEER_OPEN(&self->x);
	PEER_OPEN(&self->slow);
	d = TRANSFER(&self->receivers[D], ORDER_ID(0), &self->m);
	e = TRANSFER(&self->receivers[E], ORDER_ID(0), &self->m);
	for (i = 0; i < ATTACK_SLOW; i++)
		self->m_dests[0][i + 1] = self->m_dests[1][i + 1] =
			TRANSFER(&self->slow, 8 * i, &self->m);
	self->m_dests[0][0] = self->m_dests[1][ATTACK_SLOW + 1] = d;
	self->m_dests[1][0] = self->m_dests[0][ATTACK_SLOW + 1] = e;
	self->s_dest = TRANSFER(&self->receivers[D], ORDER_ID(0), &self->s);
	self->x_dest = TRANSFER(&self->receivers[E], ORDER_ID(0), &self->x);
	ASSERT_EQ(0, pipe(self->to_x));
	ASSERT_EQ(0, pipe(self->from_x));
}

FIXTURE_TEARDOWN(attack)
{
	int i;

	for (i = 0; i < N_RECEIVERS; i++)
		peer_close(&self->receivers[i]);
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

/* m1, m2, or m3. */
static void attack_send(struct order *o, int fd, const __u64 *dests, size_t n,
			__u32 mask)
{
	struct order_payload payload = { .carried = ORDER_NONE };
	int r;

	payload.tx = order_begin(o, mask, ORDER_NONE);
	r = bus1_send_to(fd, dests, n, &payload, sizeof(payload), NULL, 0);
	order_end(o, payload.tx, r);
	ORDER_CHECK(o, !r, r);
}

static void *m_thread(void *arg)
{
	struct attack *attack = arg;
	FIXTURE_DATA(attack) *self = attack->self;
	struct bus1_cmd_recv recv;
	__u32 round;

	pin(1);
	for (round = 1; round <= ATTACK_ROUNDS; round++) {
		while (__atomic_load_n(&self->go, __ATOMIC_ACQUIRE) < round)
			sched_yield();
		attack_send(self->order, self->m.fd,
			    self->m_dests[attack->variant->backwards],
			    ATTACK_SLOW + 2,
			    1U << (D * ORDER_BASE) | 1U << (E * ORDER_BASE));
		while (!bus1_recv(self->slow.fd, 0, &recv))
			bus1_slice_release(self->slow.fd, recv.msg.offset);
		__atomic_store_n(&self->ready, round, __ATOMIC_RELEASE);
	}
	return NULL;
}

static void *x_thread(void *arg)
{
	FIXTURE_DATA(attack) *self = ((struct attack *)arg)->self;
	char c;

	pin(0);
	while (read(self->to_x[0], &c, 1) == 1 && c) {
		attack_send(self->order, self->x.fd, &self->x_dest, 1,
			    1U << (E * ORDER_BASE));
		if (write(self->from_x[1], &c, 1) != 1)
			break;
	}
	return NULL;
}

TEST_F(attack, strangers_agree)
{
	struct attack attack = { self, variant };
	struct order *o = self->order;
	volatile __u32 spin;
	__u64 seed = 1;
	__u32 round;
	char c = 1;
	int i;

	ASSERT_EQ(0, pthread_create(&self->m_thread, NULL, m_thread, &attack));
	if (variant->pipe)
		ASSERT_EQ(0, pthread_create(&self->x_thread, NULL, x_thread,
					    &attack));
	pin(0);
	for (round = 1; round <= ATTACK_ROUNDS; round++) {
		__atomic_store_n(&self->go, round, __ATOMIC_RELEASE);
		/* Land anywhere within the time that m3 takes. */
		for (spin = next_random(&seed) % 65536; spin; spin--)
			;
		attack_send(o, self->s.fd, &self->s_dest, 1,
			    1U << (D * ORDER_BASE));
		if (variant->pipe) {
			ASSERT_EQ(1, write(self->to_x[1], &c, 1));
			ASSERT_EQ(1, read(self->from_x[0], &c, 1));
		} else {
			attack_send(o, self->x.fd, &self->x_dest, 1,
				    1U << (E * ORDER_BASE));
		}
		/* Readers hurry the slow one, in half of the rounds. */
		for (i = 0; round % 2 && i < N_RECEIVERS; i++)
			order_drain(o, i, &self->receivers[i]);
		while (__atomic_load_n(&self->ready, __ATOMIC_ACQUIRE) < round)
			sched_yield();
		for (i = 0; i < N_RECEIVERS; i++)
			order_drain(o, i, &self->receivers[i]);
	}
	c = 0;
	ASSERT_EQ(1, write(self->to_x[1], &c, 1));
	pthread_join(self->m_thread, NULL);
	if (variant->pipe)
		pthread_join(self->x_thread, NULL);
	ORDER_EXPECT(o);
}

TEST_HARNESS_MAIN
