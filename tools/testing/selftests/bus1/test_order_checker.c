// SPDX-License-Identifier: GPL-2.0-only
/*
 * The checker of histories: one that never finds anything proves nothing. Each
 * kind of violation is made up here, as small as it can be, and next to it a
 * history that is nearly the same, and good. None of this needs a device.
 */

#include "bus1_order.h"

/* Two peers with two nodes, and two mortal nodes each: 0 and 1, 2 and 3. */
#define BIT(_peer)	(1U << (ORDER_BASE * (_peer)))
#define ALL		(BIT(0) | BIT(1))

FIXTURE(checker) {
	struct order *order;
};

FIXTURE_VARIANT(checker) {
	bool bad;
};

FIXTURE_VARIANT_ADD(checker, good) {
};

FIXTURE_VARIANT_ADD(checker, bad) {
	.bad = true,
};

FIXTURE_SETUP(checker)
{
	self->order = order_new(3, 16, 2);
	ASSERT_NE(NULL, self->order);
	self->order->quiet = variant->bad;
}

FIXTURE_TEARDOWN(checker)
{
	order_free(self->order);
}

/* A message that was sent, from the next stamp to the one after. */
static __u32 sent(struct order *o, __u32 mask)
{
	__u32 m = order_begin(o, mask, ORDER_NONE);

	order_end(o, m, 0);
	return m;
}

static void got(struct order *o, __u32 q, __u32 tx)
{
	order_log(o, q, (struct order_entry){ .tx = tx, .mortal = ORDER_NONE });
}

static void got_handle(struct order *o, __u32 q, __u32 tx, __u32 e, bool valid)
{
	order_log(o, q, (struct order_entry){ .tx = tx, .mortal = e,
					      .valid = valid });
	if (!valid)
		order_seen_dead(o, e);
}

static void got_mortal(struct order *o, __u32 q, __u32 tx)
{
	order_log(o, q, (struct order_entry){ .tx = tx, .node = ORDER_MORTAL,
					      .mortal = ORDER_NONE });
}

static void got_notification(struct order *o, __u32 q, enum order_kind kind,
			     __u32 e)
{
	order_log(o, q, (struct order_entry){ .kind = kind, .mortal = e });
}

static __u32 destroyed(struct order *o, __u32 e)
{
	__u32 d = order_begin(o, 0, ORDER_NONE);

	order_end(o, d, 0);
	order_destroyed(o, e, d);
	return d;
}

/* There is no cycle, or one of @cycle transactions, and nothing else. */
#define EXPECT_CYCLE(_o, _bad, _cycle) do {				\
	EXPECT_EQ(!(_bad), order_check(_o));				\
	EXPECT_EQ(0, (_o)->error);					\
	EXPECT_EQ((_bad) ? (_cycle) : 0, (_o)->cycle);			\
} while (0)

/* Nothing is wrong, or something that is not a cycle. */
#define EXPECT_ERROR(_o, _bad) do {					\
	EXPECT_EQ(!(_bad), order_check(_o));				\
	EXPECT_EQ(!(_bad), !(_o)->error);				\
	EXPECT_EQ(0, (_o)->cycle);					\
} while (0)

/* The history that the attack on strangers is after. */
TEST_F(checker, strangers)
{
	struct order *o = self->order;
	__u32 m1, m2, m3;

	m3 = order_begin(o, ALL, ORDER_NONE);
	m1 = sent(o, BIT(0));
	m2 = sent(o, BIT(1));
	order_end(o, m3, 0);
	got(o, 0, m3);
	got(o, 0, m1);
	got(o, 1, variant->bad ? m2 : m3);
	got(o, 1, variant->bad ? m3 : m2);
	EXPECT_CYCLE(o, variant->bad, 3);
}

/* What is told by being received rather than by a return. */
TEST_F(checker, strangers_told_by_a_message)
{
	struct order *o = self->order;
	__u32 m1, m2, m3;

	m3 = order_begin(o, ALL, ORDER_NONE);
	m1 = order_begin(o, BIT(0), ORDER_NONE);
	if (variant->bad) {
		got(o, 0, m3);
		got(o, 0, m1);
	}
	m2 = sent(o, BIT(1));
	if (!variant->bad) {
		got(o, 0, m3);
		got(o, 0, m1);
	}
	got(o, 1, m2);
	got(o, 1, m3);
	order_end(o, m1, 0);
	order_end(o, m3, 0);
	/* Good: at D both were received later than m2 was begun. */
	EXPECT_CYCLE(o, variant->bad, 2);
}

TEST_F(checker, program_order)
{
	struct order *o = self->order;
	__u32 m1, m2;

	m1 = order_begin(o, BIT(0), ORDER_NONE);
	if (variant->bad)
		order_end(o, m1, 0);
	m2 = sent(o, BIT(0));
	if (!variant->bad)
		order_end(o, m1, 0);
	got(o, 0, m2);
	got(o, 0, m1);
	EXPECT_CYCLE(o, variant->bad, 2);
}

TEST_F(checker, two_queues_disagree)
{
	struct order *o = self->order;
	__u32 m1 = order_begin(o, ALL, ORDER_NONE);
	__u32 m2 = order_begin(o, ALL, ORDER_NONE);

	order_end(o, m1, 0);
	order_end(o, m2, 0);
	got(o, 0, m1);
	got(o, 0, m2);
	got(o, 1, variant->bad ? m2 : m1);
	got(o, 1, variant->bad ? m1 : m2);
	EXPECT_CYCLE(o, variant->bad, 2);
}

TEST_F(checker, three_queues_disagree)
{
	struct order *o = self->order;
	__u32 m[3], i;

	for (i = 0; i < 3; i++)
		m[i] = order_begin(o, BIT(i) | BIT((i + 1) % 3), ORDER_NONE);
	for (i = 0; i < 3; i++)
		order_end(o, m[i], 0);
	/* Queue i + 1 gets m[i] and m[i + 1]. */
	got(o, 1, m[0]);
	got(o, 1, m[1]);
	got(o, 2, m[1]);
	got(o, 2, m[2]);
	got(o, 0, m[variant->bad ? 2 : 0]);
	got(o, 0, m[variant->bad ? 0 : 2]);
	EXPECT_CYCLE(o, variant->bad, 3);
}

TEST_F(checker, destruction_is_one_point)
{
	struct order *o = self->order;
	__u32 d = order_begin(o, 0, ORDER_NONE);
	__u32 m = sent(o, ALL);

	order_end(o, d, 0);
	order_destroyed(o, 4, d);
	got(o, 0, m);
	got_notification(o, 0, ORDER_DESTROY, 4);
	if (variant->bad)
		got_notification(o, 1, ORDER_DESTROY, 4);
	got(o, 1, m);
	if (!variant->bad)
		got_notification(o, 1, ORDER_DESTROY, 4);
	EXPECT_CYCLE(o, variant->bad, 2);
}

TEST_F(checker, destruction_is_told_late)
{
	struct order *o = self->order;
	__u32 d = order_begin(o, 0, ORDER_NONE), m;

	if (variant->bad)
		order_end(o, d, 0);
	m = sent(o, BIT(0));
	if (!variant->bad)
		order_end(o, d, 0);
	order_destroyed(o, 4, d);
	got(o, 0, m);
	got_notification(o, 0, ORDER_DESTROY, 4);
	EXPECT_CYCLE(o, variant->bad, 2);
}

TEST_F(checker, handle_valid_too_late)
{
	struct order *o = self->order;
	__u32 d = order_begin(o, 0, ORDER_NONE), m;

	if (variant->bad)
		order_end(o, d, 0);
	m = sent(o, BIT(0));
	if (!variant->bad)
		order_end(o, d, 0);
	order_destroyed(o, 4, d);
	got_handle(o, 0, m, 4, true);
	got_notification(o, 0, ORDER_DESTROY, 4);
	EXPECT_CYCLE(o, variant->bad, 2);
}

TEST_F(checker, handle_invalid_too_early)
{
	struct order *o = self->order;
	__u32 m = order_begin(o, BIT(0), ORDER_NONE);

	if (variant->bad)
		order_end(o, m, 0);
	destroyed(o, 4);
	if (!variant->bad)
		order_end(o, m, 0);
	got_handle(o, 0, m, 4, false);
	EXPECT_CYCLE(o, variant->bad, 2);
}

TEST_F(checker, handle_invalid_but_told_later)
{
	struct order *o = self->order;
	__u32 d = order_begin(o, 0, ORDER_NONE), m = sent(o, BIT(0));

	order_end(o, d, 0);
	order_destroyed(o, 4, d);
	if (!variant->bad)
		got_notification(o, 0, ORDER_DESTROY, 4);
	got_handle(o, 0, m, 4, false);
	if (variant->bad)
		got_notification(o, 0, ORDER_DESTROY, 4);
	EXPECT_CYCLE(o, variant->bad, 2);
}

TEST_F(checker, handle_invalid_without_a_destruction)
{
	struct order *o = self->order;
	__u32 d = order_begin(o, 0, ORDER_NONE), m = sent(o, BIT(0));

	if (!variant->bad)
		order_destroyed(o, 4, d);
	got_handle(o, 0, m, 4, false);
	EXPECT_ERROR(o, variant->bad);
}

TEST_F(checker, errno_reveals_a_destruction)
{
	struct order *o = self->order;
	__u32 d = order_begin(o, 0, ORDER_NONE), m;

	if (variant->bad)
		order_seen_dead(o, 4);
	m = sent(o, BIT(0));
	if (!variant->bad)
		order_seen_dead(o, 4);
	order_end(o, d, 0);
	order_destroyed(o, 4, d);
	got(o, 0, m);
	got_notification(o, 0, ORDER_DESTROY, 4);
	EXPECT_CYCLE(o, variant->bad, 2);
}

TEST_F(checker, message_reaches_the_dead)
{
	struct order *o = self->order;
	__u32 d = order_begin(o, 0, ORDER_NONE);
	__u32 m = order_begin(o, BIT(1), 0);

	order_end(o, m, 0);
	order_end(o, d, 0);
	order_destroyed(o, 0, d);
	if (variant->bad)
		got_notification(o, 1, ORDER_DESTROY, 0);
	got_mortal(o, 0, m);
	got(o, 1, m);
	if (!variant->bad)
		got_notification(o, 1, ORDER_DESTROY, 0);
	EXPECT_CYCLE(o, variant->bad, 2);
}

TEST_F(checker, send_to_the_dead)
{
	struct order *o = self->order;
	__u32 m, d = order_begin(o, 0, ORDER_NONE);

	if (variant->bad)
		order_end(o, d, 0);
	m = order_begin(o, 0, 0);
	order_end(o, m, 0);
	if (!variant->bad)
		order_end(o, d, 0);
	order_destroyed(o, 0, d);
	EXPECT_ERROR(o, variant->bad);
}

/* Messages that are older than the destruction are not dropped. */
TEST_F(checker, lost_to_a_later_destruction)
{
	struct order *o = self->order;
	__u32 m = order_begin(o, 0, 0), d;

	if (variant->bad)
		order_end(o, m, 0);
	d = destroyed(o, 0);
	o->nodes[0].told = o->nodes[0].made = true;
	if (!variant->bad)
		order_end(o, m, 0);
	got_notification(o, 0, ORDER_DESTROY, 0);
	ASSERT_NE(m, d);
	EXPECT_ERROR(o, variant->bad);
}

TEST_F(checker, lost_message_to_a_node_that_lives)
{
	struct order *o = self->order;
	__u32 m = order_begin(o, 0, 0);

	order_end(o, m, 0);
	if (!variant->bad)
		got_mortal(o, 0, m);
	EXPECT_ERROR(o, variant->bad);
}

TEST_F(checker, lost_message)
{
	struct order *o = self->order;
	__u32 m = sent(o, ALL);

	got(o, 0, m);
	if (!variant->bad)
		got(o, 1, m);
	EXPECT_ERROR(o, variant->bad);
}

TEST_F(checker, doubled_message)
{
	struct order *o = self->order;
	__u32 m = sent(o, BIT(0));

	if (variant->bad)
		got(o, 0, m);
	got(o, 0, m);
	EXPECT_ERROR(o, variant->bad);
}

TEST_F(checker, message_of_a_send_that_failed)
{
	struct order *o = self->order;
	__u32 m = order_begin(o, BIT(0), ORDER_NONE);

	if (!variant->bad) {
		order_end(o, m, 0);
		got(o, 0, m);
	} else {
		order_end(o, m, -EXFULL);
		got(o, 0, m);
	}
	EXPECT_ERROR(o, variant->bad);
}

TEST_F(checker, not_in_one_piece)
{
	struct order *o = self->order;
	__u32 both = sent(o, BIT(0) | BIT(0) << 1);
	__u32 m = order_begin(o, BIT(0), ORDER_NONE);
	struct order_entry entry = { .tx = both, .mortal = ORDER_NONE };

	entry.cont = true;
	order_log(o, 0, entry);
	if (variant->bad)
		got(o, 0, m);
	entry.cont = false;
	entry.node = 1;
	order_log(o, 0, entry);
	if (!variant->bad)
		got(o, 0, m);
	order_end(o, m, 0);
	EXPECT_EQ(!variant->bad, order_check(o));
	EXPECT_EQ(!variant->bad, !o->error);
}

TEST_F(checker, continue_without_more)
{
	struct order *o = self->order;
	__u32 m = sent(o, BIT(0));

	order_log(o, 0, (struct order_entry){ .tx = m, .mortal = ORDER_NONE,
					      .cont = variant->bad });
	EXPECT_ERROR(o, variant->bad);
}

TEST_F(checker, continue_is_missing)
{
	struct order *o = self->order;
	__u32 both = sent(o, BIT(0) | BIT(0) << 1);
	struct order_entry entry = { .tx = both, .mortal = ORDER_NONE };

	entry.cont = !variant->bad;
	order_log(o, 0, entry);
	entry.cont = false;
	entry.node = 1;
	order_log(o, 0, entry);
	EXPECT_ERROR(o, variant->bad);
}

TEST_F(checker, told_twice)
{
	struct order *o = self->order;

	destroyed(o, 4);
	got_notification(o, 0, ORDER_DESTROY, 4);
	got_notification(o, 1, ORDER_DESTROY, 4);
	if (variant->bad) {
		/* Not in one piece, so that is not what is found. */
		o->log[0][0].cont = true;
		got_notification(o, 0, ORDER_DESTROY, 4);
	}
	EXPECT_ERROR(o, variant->bad);
}

TEST_F(checker, told_of_nothing)
{
	struct order *o = self->order;

	if (!variant->bad)
		destroyed(o, 4);
	got_notification(o, 0, ORDER_DESTROY, 4);
	EXPECT_ERROR(o, variant->bad);
}

TEST_F(checker, owner_is_not_told)
{
	struct order *o = self->order;

	destroyed(o, 0);
	o->nodes[0].made = o->nodes[0].told = true;
	if (!variant->bad)
		got_notification(o, 0, ORDER_DESTROY, 0);
	EXPECT_ERROR(o, variant->bad);
}

TEST_F(checker, owner_is_told_though_it_let_go)
{
	struct order *o = self->order;

	destroyed(o, 0);
	o->nodes[0].made = true;
	if (variant->bad)
		got_notification(o, 0, ORDER_DESTROY, 0);
	EXPECT_ERROR(o, variant->bad);
}

/* A handle to node 0, dropped at the next stamp by somebody. */
static void dropped(struct order *o)
{
	order_max(&o->nodes[0].dropped, order_stamp(o));
	order_max(&o->nodes[0].ended, order_stamp(o));
}

TEST_F(checker, release_before_a_reference_is_dropped)
{
	struct order *o = self->order;

	o->nodes[0].made = o->nodes[0].loan = true;
	dropped(o);
	if (variant->bad)
		got_notification(o, 0, ORDER_RELEASE, 0);
	dropped(o);
	if (!variant->bad)
		got_notification(o, 0, ORDER_RELEASE, 0);
	EXPECT_CYCLE(o, variant->bad, 1);
}

TEST_F(checker, release_overtakes_a_message)
{
	struct order *o = self->order;
	__u32 m = order_begin(o, BIT(0), ORDER_NONE);

	o->nodes[0].made = o->nodes[0].loan = true;
	if (variant->bad)
		order_end(o, m, 0);
	dropped(o);
	if (!variant->bad)
		order_end(o, m, 0);
	got_notification(o, 0, ORDER_RELEASE, 0);
	got(o, 0, m);
	EXPECT_CYCLE(o, variant->bad, 2);
}

TEST_F(checker, release_is_late)
{
	struct order *o = self->order;
	__u32 m;

	o->nodes[0].made = o->nodes[0].loan = true;
	if (variant->bad)
		dropped(o);
	m = sent(o, BIT(0));
	if (!variant->bad)
		dropped(o);
	got(o, 0, m);
	got_notification(o, 0, ORDER_RELEASE, 0);
	EXPECT_CYCLE(o, variant->bad, 2);
}

TEST_F(checker, release_is_missing)
{
	struct order *o = self->order;

	o->nodes[0].made = o->nodes[0].loan = true;
	dropped(o);
	if (!variant->bad)
		got_notification(o, 0, ORDER_RELEASE, 0);
	EXPECT_ERROR(o, variant->bad);
}

TEST_F(checker, release_is_told_twice)
{
	struct order *o = self->order;

	o->nodes[0].made = o->nodes[0].loan = true;
	dropped(o);
	got_notification(o, 0, ORDER_RELEASE, 0);
	if (variant->bad)
		got_notification(o, 0, ORDER_RELEASE, 0);
	EXPECT_ERROR(o, variant->bad);
}

TEST_F(checker, release_of_somebody_elses_node)
{
	struct order *o = self->order;

	dropped(o);
	got_notification(o, variant->bad, ORDER_RELEASE, 0);
	EXPECT_ERROR(o, variant->bad);
}

TEST_F(checker, release_after_the_destruction)
{
	struct order *o = self->order;

	destroyed(o, 0);
	o->nodes[0].made = o->nodes[0].told = true;
	if (!variant->bad)
		got_notification(o, 0, ORDER_RELEASE, 0);
	got_notification(o, 0, ORDER_DESTROY, 0);
	if (variant->bad)
		got_notification(o, 0, ORDER_RELEASE, 0);
	EXPECT_EQ(!variant->bad, order_check(o));
	EXPECT_EQ(!variant->bad, !o->error);
}

/*
 * Long histories: a good one, made by a machine that does one thing after the
 * other, and the same with two neighbours swapped in one queue.
 */

#define LONG_TX		100000
#define LONG_OVERLAP	64

FIXTURE(long_history) {
	struct order *order;
};

FIXTURE_SETUP(long_history)
{
	struct order *o;
	__u32 i, q, mask;
	__u64 seed = 1;

	self->order = order_new(4, LONG_TX, 0);
	ASSERT_NE(NULL, self->order);
	o = self->order;
	/* Transactions take effect as they begin, and return much later. */
	for (i = 0; i < LONG_TX; i++) {
		mask = next_random(&seed) & (BIT(0) | BIT(1) | BIT(2) | BIT(3));
		order_begin(o, mask, ORDER_NONE);
		if (i >= LONG_OVERLAP)
			order_end(o, i - LONG_OVERLAP, 0);
	}
	for (i = LONG_TX - LONG_OVERLAP; i < LONG_TX; i++)
		order_end(o, i, 0);
	for (i = 0; i < LONG_TX; i++)
		for (q = 0; q < 4; q++)
			if (o->tx[i].mask & BIT(q))
				got(o, q, i);
}

FIXTURE_TEARDOWN(long_history)
{
	order_free(self->order);
}

TEST_F(long_history, is_good)
{
	EXPECT_TRUE(order_check(self->order));
}

/* The next two entries of queue 0 that are in queue 1 as well change places. */
TEST_F(long_history, with_a_swap_is_bad)
{
	struct order *o = self->order;
	struct order_entry swap, *log = o->log[0];
	__u32 i = LONG_TX / 4;

	while (!(o->tx[log[i].tx].mask & o->tx[log[i + 1].tx].mask & BIT(1)))
		i++;
	swap = log[i];
	log[i] = log[i + 1];
	log[i + 1] = swap;
	o->quiet = true;
	EXPECT_FALSE(order_check(o));
	EXPECT_EQ(0, o->error);
	EXPECT_EQ(2, o->cycle);
}

/* Two that nothing but their return tells apart. */
TEST_F(long_history, with_a_late_one_is_bad)
{
	struct order *o = self->order;
	struct order_entry swap, *log = o->log[0];
	__u32 i = LONG_TX / 4, j = i + 2 * LONG_OVERLAP;

	swap = log[i];
	memmove(log + i, log + i + 1, (j - i) * sizeof(*log));
	log[j] = swap;
	o->quiet = true;
	EXPECT_FALSE(order_check(o));
	EXPECT_EQ(0, o->error);
	EXPECT_EQ(2, o->cycle);
}

TEST_HARNESS_MAIN
