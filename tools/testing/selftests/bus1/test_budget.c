// SPDX-License-Identifier: GPL-2.0-only
/*
 * Limits of peers and of users, to the unit.
 */
#include "bus1_budget.h"

#define N_UNITS		10
#define N_THREADS	4

FIXTURE(limit) {
	struct net net;
	struct net_state before;
	__u32 base;
};

FIXTURE_VARIANT(limit) {
	enum resource res;
};

FIXTURE_VARIANT_ADD(limit, slices) { .res = SLICES };
FIXTURE_VARIANT_ADD(limit, handles) { .res = HANDLES };
FIXTURE_VARIANT_ADD(limit, bytes) { .res = BYTES };
FIXTURE_VARIANT_ADD(limit, fds) { .res = FDS };

FIXTURE_SETUP(limit)
{
	NET_INIT(&self->net);
	NODE(&self->net.a, CARGO);
	/* what b holds by itself: its node */
	ASSERT_LE(0, used(self->net.b.fd, variant->res));
	self->base = used(self->net.b.fd, variant->res);
	self->before = net_state(&self->net);
}

FIXTURE_TEARDOWN(limit)
{
	net_deinit(&self->net);
}

static int limit_units(int fd, enum resource res, __u32 base, __u32 units)
{
	return set_limit(fd, res, base + units * resources[res].unit);
}

#define LIMIT(_units)							\
	ASSERT_EQ(0, limit_units(self->net.b.fd, variant->res, self->base, \
				 _units))
#define SEND_UNIT()							\
	send_unit(self->net.a.fd, self->net.ab, variant->res, 0)
#define SEND_UNITS()							\
	send_units(self->net.a.fd, self->net.ab, variant->res, 10000)

TEST_F(limit, holds_to_the_unit)
{
	struct net_state full;
	int i;

	LIMIT(N_UNITS);
	EXPECT_EQ(N_UNITS, SEND_UNITS());
	EXPECT_EQ(self->base + N_UNITS * resources[variant->res].unit,
		  used(self->net.b.fd, variant->res));
	peer_wait(self->net.b.fd);
	full = net_state(&self->net);
	for (i = 0; i < 5; i++) {
		EXPECT_EQ(-EDQUOT, SEND_UNIT());
	}
	EXPECT_SAME(&self->net, &full);
	/* What is given back can be used again, and no more. */
	for (i = 0; i < 2 * N_UNITS; i++) {
		RECV_UNIT(&self->net.b);
		EXPECT_EQ(0, SEND_UNIT());
		EXPECT_EQ(-EDQUOT, SEND_UNIT());
	}
	for (i = 0; i < N_UNITS; i++)
		RECV_UNIT(&self->net.b);
	RECV_NONE(&self->net.b);
	EXPECT_EQ(self->base, used(self->net.b.fd, variant->res));
}

TEST_F(limit, one_short_of_a_message_is_too_little)
{
	ASSERT_EQ(0, set_limit(self->net.b.fd, variant->res, self->base +
			       N_UNITS * resources[variant->res].unit - 1));
	EXPECT_EQ(N_UNITS - 1, SEND_UNITS());
}

TEST_F(limit, none_is_none)
{
	ASSERT_EQ(0, set_limit(self->net.b.fd, variant->res, 0));
	self->before = net_state(&self->net);
	EXPECT_EQ(-EDQUOT, SEND_UNIT());
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(limit, below_use_takes_nothing_away)
{
	int i;

	LIMIT(N_UNITS);
	ASSERT_EQ(N_UNITS, SEND_UNITS());
	LIMIT(N_UNITS / 2);
	EXPECT_EQ(self->base + N_UNITS * resources[variant->res].unit,
		  used(self->net.b.fd, variant->res));
	EXPECT_EQ(-EDQUOT, SEND_UNIT());
	for (i = 0; i < N_UNITS / 2; i++)
		RECV_UNIT(&self->net.b);
	/* at the limit */
	EXPECT_EQ(-EDQUOT, SEND_UNIT());
	RECV_UNIT(&self->net.b);
	EXPECT_EQ(0, SEND_UNIT());
	EXPECT_EQ(-EDQUOT, SEND_UNIT());
}

TEST_F(limit, of_one_peer_is_not_that_of_another)
{
	ASSERT_EQ(0, set_limit(self->net.b.fd, variant->res, 0));
	EXPECT_EQ(-EDQUOT, SEND_UNIT());
	EXPECT_EQ(0, send_unit(self->net.a.fd, self->net.ac, variant->res, 0));
	EXPECT_EQ(0, RECV_UNIT(&self->net.c));
}

TEST_F(limit, of_the_sender_does_not_matter)
{
	ASSERT_EQ(0, set_limit(self->net.a.fd, variant->res, 0));
	EXPECT_EQ(0, SEND_UNIT());
}

TEST_F(limit, multicast_stops_where_one_receiver_is_full)
{
	const __u64 dst[] = { self->net.ac, self->net.ab };
	__u64 cargo = CARGO, data[8] = {};
	struct iovec vec = { data, sizeof(data) };
	int fd = STDERR_FILENO;

	ASSERT_EQ(0, set_limit(self->net.b.fd, variant->res, 0));
	self->before = net_state(&self->net);
	EXPECT_EQ(-EDQUOT, msg_send(self->net.a.fd, .dst = dst, .n_dst = 2,
				    .vecs = &vec, .n_vecs = 1,
				    .handles = &cargo, .n_handles = 1,
				    .fds = &fd, .n_fds = 1));
	EXPECT_SAME(&self->net, &self->before);
	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = dst, .n_dst = 2,
			      .flags = BUS1_SEND_FLAG_CONTINUE,
			      .vecs = &vec, .n_vecs = 1,
			      .handles = &cargo, .n_handles = 1,
			      .fds = &fd, .n_fds = 1));
	RECV_UNIT(&self->net.c);
	EXPECT_EQ(self->base, used(self->net.b.fd, variant->res));
	RECV_NONE(&self->net.b);
}

TEST_F(limit, flush_gives_everything_back)
{
	LIMIT(N_UNITS);
	ASSERT_EQ(N_UNITS, SEND_UNITS());
	ASSERT_EQ(0, bus1_flush(self->net.b.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	EXPECT_IDLE(&self->net.b);
	NODE(&self->net.b, NODE_B + 8);
	self->net.ab = TRANSFER(&self->net.b, NODE_B + 8, &self->net.a);
	EXPECT_EQ(N_UNITS, SEND_UNITS());
}

TEST_F(limit, received_but_not_released_still_counts)
{
	struct bus1_cmd_recv r[N_UNITS];
	int i;

	LIMIT(N_UNITS);
	ASSERT_EQ(N_UNITS, SEND_UNITS());
	for (i = 0; i < N_UNITS; i++)
		r[i] = RECV(&self->net.b);
	if (variant->res == FDS) {
		/* Files count until they are received. */
		EXPECT_EQ(N_UNITS, SEND_UNITS());
		return;
	}
	if (variant->res == HANDLES) {
		/* All of them arrived as one and the same handle. */
		EXPECT_EQ(self->base + 1, used(self->net.b.fd, HANDLES));
		EXPECT_EQ(N_UNITS - 1, SEND_UNITS());
		return;
	}
	EXPECT_EQ(-EDQUOT, SEND_UNIT());
	ASSERT_EQ(0, bus1_slice_release(self->net.b.fd, r[3].msg.offset));
	EXPECT_EQ(0, SEND_UNIT());
	EXPECT_EQ(-EDQUOT, SEND_UNIT());
}

/* Threads that send, each over a peer of its own, until they are refused. */
struct racer {
	pthread_t thread;
	struct peer peer;
	__u64 id;
	enum resource res;
	pthread_barrier_t *start;
	int sent;
};

static void *race(void *arg)
{
	struct racer *self = arg;

	pthread_barrier_wait(self->start);
	self->sent = send_units(self->peer.fd, self->id, self->res, 10000);
	return NULL;
}

TEST_F(limit, nobody_exceeds_it_by_racing)
{
	struct racer racers[N_THREADS];
	pthread_barrier_t start;
	int round, sent, i;

	ASSERT_EQ(0, pthread_barrier_init(&start, NULL, N_THREADS));
	LIMIT(50);
	for (i = 0; i < N_THREADS; i++) {
		PEER_OPEN(&racers[i].peer);
		NODE(&racers[i].peer, CARGO);
		racers[i].id = TRANSFER(&self->net.b, NODE_B, &racers[i].peer);
		racers[i].res = variant->res;
		racers[i].start = &start;
	}
	for (round = 0; round < 10; round++) {
		for (i = 0; i < N_THREADS; i++) {
			ASSERT_EQ(0, pthread_create(&racers[i].thread, NULL,
						    race, &racers[i]));
		}
		for (sent = 0, i = 0; i < N_THREADS; i++) {
			pthread_join(racers[i].thread, NULL);
			ASSERT_LE(0, racers[i].sent);
			sent += racers[i].sent;
		}
		/* exactly: a refusal is no reason to stay below it either */
		EXPECT_EQ(50, sent);
		EXPECT_EQ(self->base + 50 * resources[variant->res].unit,
			  used(self->net.b.fd, variant->res));
		while (sent--)
			RECV_UNIT(&self->net.b);
		RECV_NONE(&self->net.b);
		EXPECT_EQ(self->base, used(self->net.b.fd, variant->res));
	}
	for (i = 0; i < N_THREADS; i++)
		peer_close(&racers[i].peer);
}

/*
 * Users
 */

FIXTURE(user) {
	struct parameters parameters;
	struct peer a, b;
};

FIXTURE_SETUP(user)
{
	self->a.fd = -1;
	self->b.fd = -1;
	PARAMETERS_SAVE(&self->parameters);
}

FIXTURE_TEARDOWN(user)
{
	parameters_restore(&self->parameters);
	peer_close(&self->a);
	peer_close(&self->b);
}

static int create_nodes(int fd, __u64 first, int max)
{
	__u64 id;
	int n, r;

	for (n = 0; n < max; n++) {
		id = first + 8 * n;
		r = bus1_nodes_create(fd, &id, 1);
		if (r == -EDQUOT)
			break;
		if (r)
			return r;
	}
	return n;
}

TEST_F(user, defaults_are_what_the_manual_says)
{
	EXPECT_EQ(16384, parameter_get(SLICES));
	EXPECT_EQ(65536, parameter_get(HANDLES));
	EXPECT_EQ(16 << 20, parameter_get(BYTES));
	EXPECT_EQ(4096, parameter_get(FDS));
}

TEST_F(user, peer_starts_with_the_limits_of_its_user)
{
	struct bus1_cmd_peer_reset query;
	int i;

	for (i = 0; i < N_RESOURCES; i++) {
		ASSERT_EQ(0, parameter_set(i, 1000 + i));
	}
	PEER_OPEN_AS(&self->a, UID_A);
	ASSERT_EQ(0, parameter_set(SLICES, 500));
	PEER_OPEN_AS(&self->b, UID_A);
	ASSERT_EQ(0, bus1_query(self->a.fd, &query));
	EXPECT_EQ(1000, query.max_slices);
	EXPECT_EQ(1001, query.max_handles);
	EXPECT_EQ(1002, query.max_inflight_bytes);
	EXPECT_EQ(1003, query.max_inflight_fds);
	ASSERT_EQ(0, bus1_query(self->b.fd, &query));
	EXPECT_EQ(500, query.max_slices);
}

TEST_F(user, new_limit_holds_for_charges_from_then_on)
{
	PEER_OPEN_AS(&self->a, UID_A);
	PEER_OPEN_AS(&self->b, UID_A);
	EXPECT_EQ(5, create_nodes(self->a.fd, 0x10000, 5));
	ASSERT_EQ(0, parameter_set(HANDLES, 5));
	EXPECT_EQ(0, create_nodes(self->a.fd, 0x20000, 5));
	EXPECT_EQ(0, create_nodes(self->b.fd, 0x20000, 5));
	ASSERT_EQ(0, parameter_set(HANDLES, 7));
	EXPECT_EQ(2, create_nodes(self->b.fd, 0x20000, 5));
	ASSERT_EQ(0, parameter_set(HANDLES, 0));
	EXPECT_EQ(5, used(self->a.fd, HANDLES));
	EXPECT_EQ(2, used(self->b.fd, HANDLES));
	EXPECT_EQ(0, create_nodes(self->a.fd, 0x30000, 5));
}

TEST_F(user, limit_is_for_all_peers_together)
{
	ASSERT_EQ(0, parameter_set(HANDLES, 20));
	PEER_OPEN_AS(&self->a, UID_A);
	PEER_OPEN_AS(&self->b, UID_A);
	/* What a peer holds by its own commands knows no shares. */
	EXPECT_EQ(15, create_nodes(self->a.fd, 0x10000, 15));
	EXPECT_EQ(5, create_nodes(self->b.fd, 0x10000, 100));
	EXPECT_EQ(0, create_nodes(self->a.fd, 0x20000, 1));
	peer_close(&self->a);
	EXPECT_EQ(15, create_nodes(self->b.fd, 0x20000, 100));
}

TEST_F(user, limit_of_the_user_and_of_the_peer_both_apply)
{
	ASSERT_EQ(0, parameter_set(HANDLES, 20));
	PEER_OPEN_AS(&self->a, UID_A);
	ASSERT_EQ(0, set_limit(self->a.fd, HANDLES, 10));
	EXPECT_EQ(10, create_nodes(self->a.fd, 0x10000, 100));
	ASSERT_EQ(0, set_limit(self->a.fd, HANDLES, 1000));
	EXPECT_EQ(10, create_nodes(self->a.fd, 0x20000, 100));
}

TEST_F(user, one_users_use_is_not_anothers)
{
	ASSERT_EQ(0, parameter_set(HANDLES, 20));
	PEER_OPEN_AS(&self->a, UID_A);
	PEER_OPEN_AS(&self->b, UID_B);
	EXPECT_EQ(20, create_nodes(self->a.fd, 0x10000, 100));
	EXPECT_EQ(20, create_nodes(self->b.fd, 0x10000, 100));
}

TEST_F(user, uids_above_31_bits_are_users_of_their_own)
{
	static const uid_t uids[] = {
		3000000000U, 3000000000U - (1U << 31), 4294967294U,
		4294967294U - (1U << 31), 3000000000U & 0xffff,
	};
	struct peer peers[ARRAY_SIZE(uids)];
	size_t i;

	ASSERT_EQ(0, parameter_set(HANDLES, 20));
	for (i = 0; i < ARRAY_SIZE(uids); i++)
		PEER_OPEN_AS(&peers[i], uids[i]);
	for (i = 0; i < ARRAY_SIZE(uids); i++) {
		EXPECT_EQ(20, create_nodes(peers[i].fd, 0x10000, 100));
	}
	for (i = 0; i < ARRAY_SIZE(uids); i++) {
		EXPECT_EQ(0, create_nodes(peers[i].fd, 0x20000, 100));
	}
	for (i = 0; i < ARRAY_SIZE(uids); i++)
		peer_close(&peers[i]);
}

TEST_F(user, use_is_forgotten_when_the_last_peer_is_gone)
{
	int i;

	ASSERT_EQ(0, parameter_set(HANDLES, 20));
	for (i = 0; i < 20; i++) {
		PEER_OPEN_AS(&self->a, 3000000000U);
		EXPECT_EQ(20, create_nodes(self->a.fd, 0x10000, 100));
		peer_close(&self->a);
	}
}

TEST_F(user, opener_is_charged_whoever_calls)
{
	pid_t pid;

	ASSERT_EQ(0, parameter_set(HANDLES, 20));
	PEER_OPEN_AS(&self->a, UID_A);
	PEER_OPEN_AS(&self->b, UID_A);
	EXPECT_EQ(20, create_nodes(self->a.fd, 0x10000, 100));
	pid = FORK_AS(UID_B);
	if (!pid) {
		EXPECT_EQ(0, create_nodes(self->b.fd, 0x10000, 100));
		_exit(0);
	}
	WAIT(pid);
}

TEST_F(user, child_that_changed_its_uid_is_another_user)
{
	static const uid_t uids[] = { UID_B, 3000000000U, 4294967294U };
	struct peer peer;
	size_t i;
	pid_t pid;

	ASSERT_EQ(0, parameter_set(HANDLES, 20));
	PEER_OPEN_AS(&self->a, UID_A);
	EXPECT_EQ(20, create_nodes(self->a.fd, 0x10000, 100));
	for (i = 0; i < ARRAY_SIZE(uids); i++) {
		pid = FORK_AS(uids[i]);
		if (!pid) {
			PEER_OPEN(&peer);
			EXPECT_EQ(20, create_nodes(peer.fd, 0x10000, 100));
			_exit(0);
		}
		WAIT(pid);
	}
}

TEST_F(user, privileges_do_not_lift_limits)
{
	struct peer peer;

	/* Real user 0 has every capability here. */
	PEER_OPEN(&peer);
	ASSERT_EQ(0, set_limit(peer.fd, HANDLES, 20));
	EXPECT_EQ(20, create_nodes(peer.fd, 0x10000, 100));
	peer_close(&peer);
}

TEST_F(user, fdinfo_tells_who_holds_what)
{
	char text[8192];
	__u64 id;

	PEER_OPEN_AS(&self->a, 3000000001U);
	PEER_OPEN_AS(&self->b, UID_B);
	NODE(&self->b, NODE_B);
	id = TRANSFER(&self->b, NODE_B, &self->a);
	fdinfo_text(self->b.fd, text, sizeof(text));
	EXPECT_FALSE(strstr(text, "3000000001"));
	ASSERT_EQ(0, bus1_send_str(self->a.fd, id, "x"));
	fdinfo_text(self->b.fd, text, sizeof(text));
	EXPECT_TRUE(strstr(text, "3000000001")) {
		TH_LOG("fdinfo:\n%s", text);
	}
	EXPECT_EQ(1, used(self->b.fd, SLICES));
}

/* More than are copied at once. */
#define N_SENDERS	50

TEST_F(user, fdinfo_tells_of_each_of_many_senders_once)
{
	unsigned int uid, slices, told[N_SENDERS] = {}, all = 0;
	struct peer peers[N_SENDERS];
	char path[64], line[256];
	__u64 id;
	FILE *f;
	int i;

	PEER_OPEN_AS(&self->b, UID_B);
	NODE(&self->b, NODE_B);
	for (i = 0; i < N_SENDERS; i++) {
		PEER_OPEN_AS(&peers[i], 3000000001U + i);
		id = TRANSFER(&self->b, NODE_B, &peers[i]);
		/* Every third has a handle and sends nothing. */
		if (i % 3)
			ASSERT_EQ(0, bus1_send_str(peers[i].fd, id, "x"));
	}

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", self->b.fd);
	f = fopen(path, "re");
	ASSERT_NE(NULL, f);
	while (fgets(line, sizeof(line), f)) {
		if (sscanf(line, "bus1-sender: %u %u", &uid, &slices) != 2)
			continue;
		all++;
		if (uid == UID_B)
			continue;
		ASSERT_LE(3000000001U, uid);
		ASSERT_GT(3000000001U + N_SENDERS, uid);
		EXPECT_EQ(1, slices);
		told[uid - 3000000001U]++;
	}
	fclose(f);
	for (i = 0; i < N_SENDERS; i++) {
		EXPECT_EQ(!!(i % 3), told[i]) {
			TH_LOG("sender %d of %u lines", i, all);
		}
		peer_close(&peers[i]);
	}
}

TEST_HARNESS_MAIN
