// SPDX-License-Identifier: GPL-2.0-only
/*
 * Fair shares: between users that send to one peer, and between the peers of
 * one user. Both have the same rules, so both are tested by the same code, with
 * parties that are senders here (fixture `senders`), and receivers there
 * (fixture `siblings`):
 *
 *   at most	half of what the other parties have left of the budget B
 *   at least	B / (n + 1)^2, with n parties that hold something or ask
 *
 * Where they contradict each other the second rule wins: it is the promise.
 */
#include "bus1_budget.h"

#define N_PARTIES	8
#define UID_RECEIVER	62000
#define UID_SENDER	62001	/* and those that follow */

enum layer { SENDERS, SIBLINGS };

/* One that wants a share. */
struct party {
	struct peer peer;
	int from;		/* sends over this descriptor */
	__u64 id;		/* to this handle */
	struct peer *to;	/* arrives here */
	int held;		/* units */
};

/* What both fixtures consist of. */
struct share {
	struct parameters parameters;
	struct peer hub;	/* the receiver of all, or the sender */
	struct party party[N_PARTIES];
	enum layer layer;
	enum resource res;
	int base;		/* what is held besides */
	int budget;		/* B, in units */
};

static void share_init(struct __test_metadata *_metadata, struct share *self,
		       enum layer layer, enum resource res)
{
	int i;

	self->layer = layer;
	self->res = res;
	PARAMETERS_SAVE(&self->parameters);
	self->hub.fd = -1;
	for (i = 0; i < N_PARTIES; i++)
		self->party[i].peer.fd = -1;
	PEER_OPEN_AS(&self->hub, UID_RECEIVER);
	for (i = 0; i < N_PARTIES; i++) {
		struct party *p = &self->party[i];

		if (self->layer == SENDERS) {
			PEER_OPEN_AS(&p->peer, UID_SENDER + i);
			NODE(&p->peer, CARGO);
			p->from = p->peer.fd;
			p->to = &self->hub;
			p->id = TRANSFER(&self->hub, NODE_B, &p->peer);
		} else {
			/* Their own user sends: that one is nobody's guest. */
			PEER_OPEN_AS(&p->peer, UID_RECEIVER);
			NODE(&self->hub, CARGO);
			p->from = self->hub.fd;
			p->to = &p->peer;
			p->id = TRANSFER(&p->peer, NODE_B, &self->hub);
		}
	}
	self->base = used(self->hub.fd, self->res);
	if (self->layer == SIBLINGS)
		for (i = 0; i < N_PARTIES; i++)
			self->base += used(self->party[i].peer.fd,
					   self->res);
}

static void share_deinit(struct share *self)
{
	int i;

	parameters_restore(&self->parameters);
	for (i = 0; i < N_PARTIES; i++)
		peer_close(&self->party[i].peer);
	peer_close(&self->hub);
}

FIXTURE(senders) {
	struct share share;
};

FIXTURE_VARIANT(senders) {
	enum resource res;
};

FIXTURE_VARIANT_ADD(senders, slices) { SLICES };
FIXTURE_VARIANT_ADD(senders, handles) { HANDLES };
FIXTURE_VARIANT_ADD(senders, bytes) { BYTES };
FIXTURE_VARIANT_ADD(senders, fds) { FDS };

FIXTURE_SETUP(senders)
{
	share_init(_metadata, &self->share, SENDERS, variant->res);
}

FIXTURE_TEARDOWN(senders)
{
	share_deinit(&self->share);
}

FIXTURE(siblings) {
	struct share share;
};

FIXTURE_VARIANT(siblings) {
	enum resource res;
};

FIXTURE_VARIANT_ADD(siblings, slices) { SLICES };
FIXTURE_VARIANT_ADD(siblings, handles) { HANDLES };
FIXTURE_VARIANT_ADD(siblings, bytes) { BYTES };
FIXTURE_VARIANT_ADD(siblings, fds) { FDS };

FIXTURE_SETUP(siblings)
{
	share_init(_metadata, &self->share, SIBLINGS, variant->res);
}

FIXTURE_TEARDOWN(siblings)
{
	share_deinit(&self->share);
}

/* A test of one fixture, that sees what is common to both as @self. */
#define TEST_SHARE(_fixture, _name)					\
	static void _fixture##_share_##_name(				\
		struct __test_metadata *_metadata, struct share *self);	\
	TEST_F(_fixture, _name)						\
	{								\
		_fixture##_share_##_name(_metadata, &self->share);	\
	}								\
	static void _fixture##_share_##_name(				\
		struct __test_metadata *_metadata, struct share *self)

/* A test of both. */
#define TEST_SHARES(_name)						\
	static void share_##_name(struct __test_metadata *_metadata,	\
				  struct share *self);			\
	TEST_F(senders, _name)						\
	{								\
		share_##_name(_metadata, &self->share);			\
	}								\
	TEST_F(siblings, _name)						\
	{								\
		share_##_name(_metadata, &self->share);			\
	}								\
	static void share_##_name(struct __test_metadata *_metadata,	\
				  struct share *self)

/* Sets what is there to be shared. */
static int share_budget(struct share *self, int units)
{
	__u32 limit = self->base + units * resources[self->res].unit;

	self->budget = units;
	if (self->layer == SENDERS)
		return set_limit(self->hub.fd, self->res, limit);
	return parameter_set(self->res, limit);
}

#define BUDGET(_units) ASSERT_EQ(0, share_budget(self, _units))

/* What all but one hold. */
static int held_by_others(struct share *self, int but)
{
	int i, sum = 0;

	for (i = 0; i < N_PARTIES; i++)
		if (i != but)
			sum += self->party[i].held;
	return sum;
}

/* How many hold something, or are this one. */
static int holders_with(struct share *self, int with)
{
	int i, n = 0;

	for (i = 0; i < N_PARTIES; i++)
		n += i == with || self->party[i].held;
	return n;
}

/* One party asks for one more unit. Is the answer right? */
static bool ask(struct __test_metadata *_metadata, struct share *self, int i)
{
	struct party *p = &self->party[i];
	/* What the peers hold by themselves may or may not be a part of B. */
	int most = self->budget + self->base - held_by_others(self, i);
	int n = holders_with(self, i);
	int r = send_unit(p->from, p->id, self->res, i);

	if (!r) {
		p->held++;
		EXPECT_TRUE(2 * p->held <= most ||
			    p->held * (n + 1) * (n + 1) <=
			    self->budget + self->base) {
			TH_LOG("party %d got too much, %d others hold %d", i,
			       n - 1, held_by_others(self, i));
		}
		return true;
	}
	EXPECT_EQ(-EDQUOT, r);
	EXPECT_LT(self->budget, (p->held + 1) * (n + 1) * (n + 1)) {
		TH_LOG("party %d holds %d and got no more, %d others hold %d",
		       i, p->held, n - 1, held_by_others(self, i));
	}
	return false;
}

#define ASK(_i) ask(_metadata, self, _i)

/* Asks until the answer is no. */
static void ask_all(struct __test_metadata *_metadata, struct share *self,
		    int i)
{
	while (ask(_metadata, self, i))
		;
}

#define ASK_ALL(_i) ask_all(_metadata, self, _i)

/* The receiver gives back the oldest message, whosever it was. */
static void give_back(struct __test_metadata *_metadata, struct share *self,
		      struct peer *peer)
{
	__u64 i = RECV_UNIT(peer);

	ASSERT_GT(N_PARTIES, i);
	self->party[i].held--;
	ASSERT_LE(0, self->party[i].held);
}

static void give_back_all(struct __test_metadata *_metadata, struct share *self)
{
	int i, use = 0;

	for (i = 0; i < N_PARTIES; i++)
		while (self->party[i].held)
			give_back(_metadata, self, self->party[i].to);
	use = used(self->hub.fd, self->res);
	if (self->layer == SIBLINGS)
		for (i = 0; i < N_PARTIES; i++)
			use += used(self->party[i].peer.fd, self->res);
	EXPECT_EQ(self->base, use);
}

#define GIVE_BACK_ALL() give_back_all(_metadata, self)

TEST_SHARES(one_alone_gets_half_at_most_and_a_quarter_at_least)
{
	BUDGET(64);
	ASK_ALL(0);
	EXPECT_GE(32 + self->base, self->party[0].held);
	EXPECT_LE(16, self->party[0].held);
	GIVE_BACK_ALL();
}

TEST_SHARES(refusals_change_nothing)
{
	char before[8192], after[8192];
	int i;

	BUDGET(64);
	ASK_ALL(0);
	fdinfo_text(self->party[0].to->fd, before, sizeof(before));
	for (i = 0; i < 10; i++) {
		EXPECT_FALSE(ASK(0));
	}
	fdinfo_text(self->party[0].to->fd, after, sizeof(after));
	EXPECT_STREQ(before, after);
	GIVE_BACK_ALL();
}

TEST_SHARES(each_newcomer_gets_its_share_from_the_greedy)
{
	int i;

	BUDGET(810);
	for (i = 0; i < N_PARTIES; i++) {
		ASK_ALL(i);
		EXPECT_LE(810 / (i + 2) / (i + 2), self->party[i].held);
	}
	EXPECT_GE(810 + self->base, held_by_others(self, -1));
	GIVE_BACK_ALL();
}

TEST_SHARES(the_last_gets_its_share_whoever_was_there_first)
{
	__u64 random = 7;
	int round, order[N_PARTIES], i, j, t;

	BUDGET(243);
	for (round = 0; round < 5; round++) {
		for (i = 0; i < N_PARTIES; i++)
			order[i] = i;
		for (i = N_PARTIES - 1; i > 0; i--) {
			j = next_random(&random) % (i + 1);
			t = order[i];
			order[i] = order[j];
			order[j] = t;
		}
		for (i = 0; i < N_PARTIES; i++) {
			ASK_ALL(order[i]);
			EXPECT_LE(243 / (i + 2) / (i + 2),
				  self->party[order[i]].held);
		}
		GIVE_BACK_ALL();
	}
}

TEST_SHARES(taking_turns_is_fair_too)
{
	bool more = true;
	int i;

	BUDGET(324);
	while (more) {
		more = false;
		for (i = 0; i < N_PARTIES; i++)
			more |= ASK(i);
	}
	for (i = 0; i < N_PARTIES; i++) {
		EXPECT_LE(324 / 81, self->party[i].held);
	}
	GIVE_BACK_ALL();
}

TEST_SHARES(random_arrivals_and_departures_keep_the_rules)
{
	__u64 random = 1;
	int step, steps = scaled_rounds(2000), i;

	BUDGET(162);
	for (step = 0; step < steps; step++) {
		i = next_random(&random) % N_PARTIES;
		switch (next_random(&random) % 6) {
		case 0:
			ASK_ALL(i);
			break;
		case 1:
		case 2:
			if (self->party[i].held ||
			    (self->layer == SENDERS &&
			     held_by_others(self, -1)))
				give_back(_metadata, self, self->party[i].to);
			break;
		case 3:
			/* one leaves altogether, sooner or later */
			while (self->party[i].held)
				give_back(_metadata, self, self->party[i].to);
			break;
		default:
			ASK(i);
			break;
		}
	}
	GIVE_BACK_ALL();
}

TEST_SHARES(what_one_gives_back_it_can_have_again)
{
	int round, i;

	BUDGET(162);
	for (round = 0; round < 10; round++) {
		for (i = 0; i < 3; i++) {
			ASK_ALL(i);
			EXPECT_LE(162 / (i + 2) / (i + 2),
				  self->party[i].held);
		}
		GIVE_BACK_ALL();
	}
}

TEST_SHARE(senders, more_than_one_peer_does_not_make_a_user_richer)
{
	struct peer second;
	__u64 id;
	int n;

	BUDGET(64);
	ASK_ALL(0);
	PEER_OPEN_AS(&second, UID_SENDER);
	NODE(&second, CARGO);
	id = TRANSFER(&self->hub, NODE_B, &second);
	n = send_units(second.fd, id, self->res, 1);
	EXPECT_EQ(0, n);
	peer_close(&second);
	GIVE_BACK_ALL();
}

TEST_SHARE(senders, messages_of_a_sender_that_left_still_count)
{
	BUDGET(64);
	ASK_ALL(0);
	peer_close(&self->party[0].peer);
	PEER_OPEN_AS(&self->party[0].peer, UID_SENDER);
	NODE(&self->party[0].peer, CARGO);
	self->party[0].from = self->party[0].peer.fd;
	self->party[0].id = TRANSFER(&self->hub, NODE_B, &self->party[0].peer);
	EXPECT_FALSE(ASK(0));
	/* and the others have no more than what is left */
	ASK_ALL(1);
	if (self->res == HANDLES)
		return; /* the node that left arrives as INVALID */
	GIVE_BACK_ALL();
}

TEST_SHARE(senders, the_receivers_own_user_may_have_it_all)
{
	struct peer own;
	__u64 id;

	PEER_OPEN_AS(&own, UID_RECEIVER);
	NODE(&own, CARGO);
	id = TRANSFER(&self->hub, NODE_B, &own);
	BUDGET(64);
	EXPECT_EQ(64, send_units(own.fd, id, self->res, 1000));
	peer_close(&own);
}

/* A peer can't hold more than half of what its user may: they share that. */
TEST_SHARE(senders, one_leaves_a_share_to_the_next_at_default_limits)
{
	const __u32 unit = resources[self->res].unit;
	struct peer target;
	int i, n, sum = 0;

	ASSERT_EQ(0, parameter_set(self->res, 2 * 810 * unit));
	PEER_OPEN_AS(&target, UID_RECEIVER - 1);
	for (i = 0; i < 3; i++) {
		n = send_units(self->party[i].from,
			       TRANSFER(&target, NODE_B, &self->party[i].peer),
			       self->res, 1000);
		EXPECT_GE((810 - sum) / 2, n);
		EXPECT_LE(810 / (i + 2) / (i + 2), n) {
			TH_LOG("user %d gets %d, others hold %d", i, n, sum);
		}
		sum += n;
	}
	peer_close(&target);
}

/* Siblings may hold so much that what senders share at a peer is not there. */
TEST_SHARE(senders, one_leaves_a_share_to_the_next_beside_a_full_sibling)
{
	const __u32 unit = resources[self->res].unit;
	struct peer target, sibling, own;
	int i, n;

	ASSERT_EQ(0, parameter_set(self->res, 2 * 810 * unit));
	PEER_OPEN_AS(&target, UID_RECEIVER - 1);
	PEER_OPEN_AS(&sibling, UID_RECEIVER - 1);
	PEER_OPEN_AS(&own, UID_RECEIVER - 1);
	NODE(&own, CARGO);
	n = send_units(own.fd, TRANSFER(&sibling, NODE_B, &own), self->res,
		       2 * 810);
	EXPECT_LE(2 * 810 / 4, n);
	/* Two peers hold something: the target may have a ninth at least. */
	for (i = 0; i < N_PARTIES; i++) {
		n = send_units(self->party[i].from,
			       TRANSFER(&target, NODE_B, &self->party[i].peer),
			       self->res, 1000);
		EXPECT_LE(2 * 810 / 9 / (i + 2) / (i + 2), n) {
			TH_LOG("user %d gets %d", i, n);
		}
	}
	peer_close(&own);
	peer_close(&sibling);
	peer_close(&target);
}

TEST_SHARE(siblings, a_peer_that_never_reads_does_not_starve_its_siblings)
{
	__u64 random = 3;
	int i, j;

	BUDGET(162);
	ASK_ALL(0);
	for (i = 0; i < 500; i++) {
		j = 1 + next_random(&random) % (N_PARTIES - 1);
		EXPECT_TRUE(ASK(j));
		give_back(_metadata, self, self->party[j].to);
	}
	GIVE_BACK_ALL();
}

TEST_SHARE(siblings, senders_that_are_guests_fill_no_sibling_either)
{
	struct peer guest;
	int n;

	/* Whoever sent it: the rule between siblings holds for guests, too. */
	BUDGET(64);
	PEER_OPEN_AS(&guest, UID_SENDER);
	NODE(&guest, CARGO);
	n = send_units(guest.fd, TRANSFER(&self->party[0].peer, NODE_B, &guest),
		       self->res, 1000);
	EXPECT_GE(32 + self->base, n);
	ASSERT_LT(0, n);
	self->party[0].held = n;
	/* what is left is enough for a sibling */
	ASK_ALL(1);
	EXPECT_LE(64 / 9, self->party[1].held);
	peer_close(&guest);
}

/* Of what a peer takes by its own commands it may take all that there is. */
FIXTURE(own) {
	struct share share;
};

FIXTURE_SETUP(own)
{
	share_init(_metadata, &self->share, SIBLINGS, HANDLES);
}

FIXTURE_TEARDOWN(own)
{
	share_deinit(&self->share);
}

TEST_F(own, commands_know_no_shares)
{
	int n = 0;
	__u64 id;

	ASSERT_EQ(0, share_budget(&self->share, 64));
	for (;; n++) {
		id = 0x10000 + 8 * n;
		if (bus1_nodes_create(self->share.party[0].peer.fd, &id, 1))
			break;
	}
	EXPECT_EQ(64, n);
}

/* All parties at once, each in a thread, over and over. */
struct contender {
	pthread_t thread;
	struct party *party;
	enum resource res;
	int ret;
};

static void *contend(void *arg)
{
	struct contender *self = arg;
	int i, n;

	for (i = 0; i < 20 && self->ret >= 0; i++) {
		n = send_units(self->party->from, self->party->id, self->res,
			       1000);
		self->ret = n < 0 ? n : self->ret + n;
	}
	return NULL;
}

TEST_SHARES(nobody_gets_more_than_there_is_by_racing)
{
	struct contender contenders[N_PARTIES];
	int i, sum = 0;

	BUDGET(162);
	for (i = 0; i < N_PARTIES; i++) {
		contenders[i] = (struct contender){ .res = self->res,
						    .party = &self->party[i] };
		ASSERT_EQ(0, pthread_create(&contenders[i].thread, NULL,
					    contend, &contenders[i]));
	}
	for (i = 0; i < N_PARTIES; i++) {
		pthread_join(contenders[i].thread, NULL);
		ASSERT_LE(0, contenders[i].ret);
		/* at most half of everything, at any time */
		EXPECT_GE(162 + self->base, 2 * contenders[i].ret);
		/* and after so many tries, what everybody can have */
		EXPECT_LE(162 / 81, contenders[i].ret);
		sum += contenders[i].ret;
	}
	EXPECT_GE(162 + self->base, sum);
	/* Every message says 0 for its number: take them back by hand. */
	for (i = 0; i < N_PARTIES; i++)
		for (; contenders[i].ret > 0; contenders[i].ret--)
			RECV_UNIT(self->party[i].to);
	GIVE_BACK_ALL();
}

TEST_HARNESS_MAIN
