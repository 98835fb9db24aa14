// SPDX-License-Identifier: GPL-2.0-only
/*
 * EXFULL: no room in a receiver's pool. The pools of one peer here are tiny, see
 * the parameter pool_size_max of the module.
 */
#include "bus1_budget.h"

/* So little that it is full before there are too many messages without payload. */
#define TINY		(PAGE > 16384 ? PAGE : 16384)
#define UNIT		1024UL
#define N_UNITS		(TINY / UNIT)

FIXTURE(full) {
	struct parameters parameters;
	struct net net;		/* it is b that has the tiny pool */
	__u8 data[8 * PAGE_MAX];
};

/* A peer with a pool of @size bytes. */
static void t_open_sized(struct __test_metadata *_metadata,
			 struct parameters *parameters, struct peer *peer,
			 long long size)
{
	peer->fd = -1;
	ASSERT_EQ(0, parameter_set(POOL_SIZE_MAX, size));
	PEER_OPEN(peer);
	ASSERT_EQ(0, parameter_set(POOL_SIZE_MAX,
				   parameters->saved[POOL_SIZE_MAX]));
}

#define OPEN_SIZED(_peer, _size)					\
	t_open_sized(_metadata, &self->parameters, _peer, _size)

FIXTURE_SETUP(full)
{
	PARAMETERS_SAVE(&self->parameters);
	PEER_OPEN(&self->net.a);
	PEER_OPEN(&self->net.c);
	OPEN_SIZED(&self->net.b, TINY);
	NODE(&self->net.b, NODE_B);
	NODE(&self->net.c, NODE_C);
	self->net.ab = TRANSFER(&self->net.b, NODE_B, &self->net.a);
	self->net.ac = TRANSFER(&self->net.c, NODE_C, &self->net.a);
	pattern_fill(self->data, sizeof(self->data), 1);
}

FIXTURE_TEARDOWN(full)
{
	net_deinit(&self->net);
	parameters_restore(&self->parameters);
}

static int send_bytes(FIXTURE_DATA(full) *self, size_t n)
{
	return bus1_send_data(self->net.a.fd, self->net.ab, self->data, n);
}

/* Sends messages of @n bytes until one is refused. Their number, or an error. */
static int fill(FIXTURE_DATA(full) *self, size_t n)
{
	int sent = 0, r;

	while (!(r = send_bytes(self, n)))
		sent++;
	return r == -EXFULL ? sent : r;
}

/* Receives @n messages of UNIT bytes; where they are goes to @offsets. */
static void t_recv_units(struct __test_metadata *_metadata,
			 FIXTURE_DATA(full) *self, int n, __u64 *offsets)
{
	struct bus1_cmd_recv r;
	int i;

	for (i = 0; i < n; i++) {
		r = RECV(&self->net.b);
		ASSERT_EQ(BUS1_MSG_DATA, r.msg.type);
		ASSERT_EQ(UNIT, r.msg.n_bytes);
		EXPECT_GE(TINY, r.msg.offset + UNIT);
		EXPECT_TRUE(pattern_check(slice_bytes(&self->net.b, &r), UNIT,
					  1));
		offsets[i] = r.msg.offset;
	}
}

static void t_release(struct __test_metadata *_metadata,
		      FIXTURE_DATA(full) *self, __u64 offset)
{
	ASSERT_EQ(0, bus1_slice_release(self->net.b.fd, offset));
}

#define RELEASE(_offset) t_release(_metadata, self, _offset)

/* The message that goes to b alone is refused, and nothing has happened. */
static void t_expect_full(struct __test_metadata *_metadata,
			  FIXTURE_DATA(full) *self, size_t n, int line)
{
	struct net_state before = net_state(&self->net);

	EXPECT_EQ(-EXFULL, send_bytes(self, n)) {
		TH_LOG("called from line %d", line);
	}
	t_expect_same(_metadata, &self->net, &before, line);
}

#define EXPECT_FULL(_n) t_expect_full(_metadata, self, _n, __LINE__)

TEST_F(full, pool_takes_what_it_has_room_for)
{
	__u64 offsets[N_UNITS];
	size_t i, round;

	for (round = 0; round < 3; round++) {
		ASSERT_EQ(N_UNITS, fill(self, UNIT));
		EXPECT_FULL(UNIT);
		EXPECT_FULL(1);
		t_recv_units(_metadata, self, N_UNITS, offsets);
		for (i = 0; i < N_UNITS; i++)
			RELEASE(offsets[i]);
		RECV_NONE(&self->net.b);
	}
}

TEST_F(full, received_slices_take_room_until_they_are_released)
{
	__u64 offsets[N_UNITS];

	ASSERT_EQ(N_UNITS, fill(self, UNIT));
	t_recv_units(_metadata, self, N_UNITS, offsets);
	EXPECT_FULL(UNIT);
	RELEASE(offsets[5]);
	EXPECT_EQ(1, fill(self, UNIT));
	t_recv_units(_metadata, self, 1, &offsets[5]);
	EXPECT_FULL(UNIT);
}

/* The kernel may keep a slice for the next message: that is in nobody's way. */
TEST_F(full, slices_that_were_released_are_room_for_what_is_larger)
{
	__u64 offsets[N_UNITS], pair[2];
	struct bus1_cmd_recv r;
	size_t i, n = 0;

	ASSERT_EQ(N_UNITS, fill(self, UNIT));
	t_recv_units(_metadata, self, N_UNITS, offsets);
	for (i = 0; i < N_UNITS; i++) {
		if (offsets[i] == 5 * UNIT || offsets[i] == 6 * UNIT)
			pair[n++] = offsets[i];
	}
	ASSERT_EQ(2, n);
	for (i = 0; i < 2; i++) {
		RELEASE(pair[i]);
		RELEASE(pair[!i]);
		EXPECT_FULL(2 * UNIT + 1);
		EXPECT_EQ(0, send_bytes(self, 2 * UNIT));
		EXPECT_FULL(1);
		r = RECV(&self->net.b);
		EXPECT_EQ(2 * UNIT, r.msg.n_bytes);
		EXPECT_TRUE(pattern_check(slice_bytes(&self->net.b, &r),
					  2 * UNIT, 1));
		RELEASE(r.msg.offset);
		EXPECT_EQ(2, fill(self, UNIT));
		t_recv_units(_metadata, self, 2, pair);
	}
}

/* None that was kept for the next message is used again with more room than is needed. */
TEST_F(full, slices_that_were_released_are_room_for_what_is_smaller)
{
	__u64 offsets[N_UNITS];
	struct bus1_cmd_recv r;
	int i;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, send_bytes(self, TINY));
		r = RECV(&self->net.b);
		RELEASE(r.msg.offset);
		EXPECT_EQ(0, send_bytes(self, TINY - UNIT));
		r = RECV(&self->net.b);
		RELEASE(r.msg.offset);
		EXPECT_EQ(0, send_bytes(self, TINY - UNIT));
		EXPECT_EQ(1, fill(self, UNIT));
		EXPECT_FULL(1);
		r = RECV(&self->net.b);
		RELEASE(r.msg.offset);
		t_recv_units(_metadata, self, 1, offsets);
		RELEASE(offsets[0]);
	}
}

/* And none is used again above room that would do. */
TEST_F(full, messages_go_to_the_lowest_room)
{
	struct bus1_cmd_recv low, high, r;
	__u64 offsets[1];
	int i;

	ASSERT_EQ(0, send_bytes(self, 4 * UNIT));
	ASSERT_EQ(0, send_bytes(self, UNIT));
	ASSERT_EQ(0, send_bytes(self, 4 * UNIT));
	low = RECV(&self->net.b);
	t_recv_units(_metadata, self, 1, offsets);
	high = RECV(&self->net.b);
	EXPECT_EQ(0, low.msg.offset);
	EXPECT_EQ(4 * UNIT, offsets[0]);
	EXPECT_EQ(5 * UNIT, high.msg.offset);
	/* The first to be released is the one that is kept */
	RELEASE(high.msg.offset);
	RELEASE(low.msg.offset);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, send_bytes(self, 4 * UNIT));
		r = RECV(&self->net.b);
		EXPECT_EQ(0, r.msg.offset);
		EXPECT_TRUE(pattern_check(slice_bytes(&self->net.b, &r),
					  4 * UNIT, 1));
		RELEASE(r.msg.offset);
	}
	EXPECT_EQ(0, send_bytes(self, TINY - 5 * UNIT));
	EXPECT_EQ(0, send_bytes(self, 4 * UNIT));
	EXPECT_FULL(1);
}

/* Where pools are so large that it does so, too. */
TEST_F(full, slice_that_was_released_is_room_for_the_whole_pool)
{
	const size_t size = 256 * PAGE;
	struct peer large;
	__u8 *data;
	__u64 id;
	int i;

	data = calloc(1, size);
	ASSERT_NE(NULL, data);
	OPEN_SIZED(&large, size);
	NODE(&large, NODE_B);
	id = TRANSFER(&large, NODE_B, &self->net.a);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, bus1_send_data(self->net.a.fd, id, data, 100));
		ASSERT_EQ(0, bus1_slice_release(large.fd,
						RECV(&large).msg.offset));
		EXPECT_EQ(0, bus1_send_data(self->net.a.fd, id, data, size));
		EXPECT_EQ(-EXFULL, bus1_send_data(self->net.a.fd, id, data, 1));
		ASSERT_EQ(0, bus1_slice_release(large.fd,
						RECV(&large).msg.offset));
		/* A smaller one, where the first one was */
		ASSERT_EQ(0, bus1_send_data(self->net.a.fd, id, data, 60));
		ASSERT_EQ(0, bus1_slice_release(large.fd,
						RECV(&large).msg.offset));
	}
	peer_close(&large);
	free(data);
}

/* A small message in what was a larger one's slice is all that can be seen of it. */
TEST_F(full, slice_of_an_older_message_shows_nothing_of_it)
{
	static const char none[8];
	struct bus1_cmd_recv r;

	EXPECT_EQ(0, send_bytes(self, 16));
	r = RECV(&self->net.b);
	RELEASE(r.msg.offset);
	EXPECT_EQ(0, send_bytes(self, 9));
	r = RECV(&self->net.b);
	ASSERT_EQ(9, r.msg.n_bytes);
	EXPECT_TRUE(pattern_check(slice_bytes(&self->net.b, &r), 9, 1));
	EXPECT_EQ(0, memcmp(slice_bytes(&self->net.b, &r) + 9, none, 7));
}

TEST_F(full, messages_without_payload_take_room_too)
{
	int n = fill(self, 0);

	ASSERT_LT(0, n);
	EXPECT_GE(TINY / 8, n);
	EXPECT_FULL(0);
	for (; n > 0; n--)
		RECV_DATA(&self->net.b, NODE_B, "", 0);
	EXPECT_EQ(N_UNITS, fill(self, UNIT));
}

TEST_F(full, message_larger_than_the_pool)
{
	struct iovec vec = { self->data, TINY };
	struct net_state before;

	EXPECT_FULL(TINY + 1);
	EXPECT_FULL(2 * TINY);
	/* It is the whole slice that counts. */
	before = net_state(&self->net);
	EXPECT_EQ(-EXFULL, msg_send(self->net.a.fd, .dst = &self->net.ab,
				    .n_dst = 1, .vecs = &vec, .n_vecs = 1,
				    .handles = &self->net.ac, .n_handles = 1));
	EXPECT_SAME(&self->net, &before);
	/* What fits exactly is fine. */
	EXPECT_EQ(0, send_bytes(self, TINY));
	EXPECT_FULL(0);
	RECV_DATA(&self->net.b, NODE_B, self->data, TINY);
}

TEST_F(full, room_in_pieces_is_no_room_for_more_than_a_piece)
{
	__u64 offsets[N_UNITS];
	size_t i;

	ASSERT_EQ(N_UNITS, fill(self, UNIT));
	t_recv_units(_metadata, self, N_UNITS, offsets);
	for (i = 0; i < N_UNITS; i += 2)
		RELEASE(offsets[i]);
	EXPECT_FULL(UNIT + 1);
	EXPECT_FULL(TINY / 2);
	/* Two neighbours make one piece. */
	RELEASE(offsets[1]);
	EXPECT_FULL(3 * UNIT + 1);
	EXPECT_EQ(0, send_bytes(self, 3 * UNIT));
	EXPECT_FULL(UNIT + 1);
	EXPECT_EQ(N_UNITS / 2 - 2, fill(self, UNIT));
	RECV_DATA(&self->net.b, NODE_B, self->data, 3 * UNIT);
}

/* A multicast with something of everything, to the full pool and another. */
static int send_rich(FIXTURE_DATA(full) *self, __u64 flags, const __u64 *dst,
		     size_t n_dst, __s32 *errors, int file)
{
	__u64 handles[] = { 0x4000, self->net.ac };
	struct iovec vec = { self->data, UNIT };

	return msg_send(self->net.a.fd, .flags = flags, .dst = dst,
			.n_dst = n_dst, .errors = errors, .vecs = &vec,
			.n_vecs = 1, .handles = handles, .n_handles = 2,
			.fds = &file, .n_fds = 1);
}

TEST_F(full, one_full_pool_fails_the_whole_send)
{
	const __u64 dst[] = { self->net.ac, self->net.ab };
	__s32 errors[] = { SENTINEL32, SENTINEL32 };
	struct net_state before;
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(N_UNITS, fill(self, UNIT));
	before = net_state(&self->net);
	EXPECT_EQ(-EXFULL, send_rich(self, 0, dst, 2, errors, fds[1]));
	EXPECT_EQ(0, errors[0]);
	EXPECT_EQ(-EXFULL, errors[1]);
	EXPECT_SAME(&self->net, &before);
	RECV_NONE(&self->net.c);
	/* The file went nowhere. */
	close(fds[1]);
	EXPECT_TRUE(pipe_wait_eof(fds[0]));
}

TEST_F(full, continue_skips_the_full_pool)
{
	const __u64 dst[] = { self->net.ab, self->net.ac };
	__s32 errors[] = { SENTINEL32, SENTINEL32 };
	char before[8192], after[8192];
	struct bus1_cmd_recv r;
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(N_UNITS, fill(self, UNIT));
	fdinfo_text(self->net.b.fd, before, sizeof(before));
	EXPECT_EQ(0, bus1_fdinfo(self->net.c.fd, "bus1-queue"));
	EXPECT_EQ(0, send_rich(self, BUS1_SEND_FLAG_CONTINUE, dst, 2, errors,
			       fds[1]));
	EXPECT_EQ(-EXFULL, errors[0]);
	EXPECT_EQ(0, errors[1]);

	r = RECV_FLAGS(&self->net.c, BUS1_RECV_FLAG_INSTALL_FDS);
	EXPECT_EQ(UNIT, r.msg.n_bytes);
	EXPECT_EQ(2, r.msg.n_handles);
	EXPECT_EQ(1, r.msg.n_fds);
	EXPECT_EQ(NODE_C, recv_handle(&self->net.c, &r, 1));
	close(recv_fd(&self->net.c, &r, 0));
	/* Give back all that c got, to compare b: they have one user. */
	EXPECT_EQ(0, bus1_handle_release(self->net.c.fd,
					 recv_handle(&self->net.c, &r, 0)));
	EXPECT_EQ(0, bus1_handle_release(self->net.c.fd, NODE_C));
	EXPECT_EQ(0, bus1_slice_release(self->net.c.fd, r.msg.offset));
	RECV_RELEASE(&self->net.a, 0x4000);
	EXPECT_EQ(0, bus1_nodes_destroy(self->net.a.fd,
			BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES,
			&(__u64){ 0x4000 }, 1));
	fdinfo_text(self->net.b.fd, after, sizeof(after));
	EXPECT_STREQ(before, after);
	close(fds[1]);
	EXPECT_TRUE(pipe_wait_eof(fds[0]));
}

TEST_F(full, continue_with_nothing_but_full_pools_is_success)
{
	__s32 error = SENTINEL32;
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(N_UNITS, fill(self, UNIT));
	EXPECT_EQ(0, send_rich(self, BUS1_SEND_FLAG_CONTINUE, &self->net.ab, 1,
			       &error, fds[1]));
	EXPECT_EQ(-EXFULL, error);
	close(fds[1]);
	EXPECT_TRUE(pipe_wait_eof(fds[0]));
	EXPECT_EQ(N_UNITS, bus1_fdinfo(self->net.b.fd, "bus1-queue"));
}

TEST_F(full, notifications_need_no_room)
{
	__u64 cb = TRANSFER(&self->net.c, 0x300, &self->net.b);
	__u64 offsets[N_UNITS];

	ASSERT_EQ(N_UNITS, fill(self, UNIT));
	ASSERT_EQ(0, bus1_node_destroy(self->net.c.fd, 0x300));
	ASSERT_EQ(0, bus1_handle_release(self->net.a.fd, self->net.ab));
	t_recv_units(_metadata, self, N_UNITS, offsets);
	RECV_DESTROY(&self->net.b, cb);
	RECV_RELEASE(&self->net.b, NODE_B);
}

TEST_F(full, flush_makes_room)
{
	__u64 offset;

	ASSERT_EQ(N_UNITS, fill(self, UNIT));
	t_recv_units(_metadata, self, 1, &offset);
	ASSERT_EQ(0, bus1_flush(self->net.b.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	EXPECT_IDLE(&self->net.b);
	NODE(&self->net.b, NODE_B);
	self->net.ab = TRANSFER(&self->net.b, NODE_B, &self->net.a);
	EXPECT_EQ(N_UNITS, fill(self, UNIT));
}

/*
 * The seed
 */

static int send_seed(FIXTURE_DATA(full) *self, size_t n)
{
	struct iovec vec = { self->data, n };

	return msg_send(self->net.b.fd, .flags = BUS1_SEND_FLAG_SEED,
			.vecs = &vec, .n_vecs = 1);
}

static void t_recv_seed(struct __test_metadata *_metadata,
			FIXTURE_DATA(full) *self, size_t n)
{
	struct bus1_cmd_recv r;

	r = RECV_FLAGS(&self->net.b, BUS1_RECV_FLAG_SEED);
	EXPECT_EQ(BUS1_MSG_DATA, r.msg.type);
	ASSERT_EQ(n, r.msg.n_bytes);
	EXPECT_TRUE(pattern_check(slice_bytes(&self->net.b, &r), n, 1));
	RELEASE(r.msg.offset);
}

/* A RECV of the seed is refused, and nothing has happened. */
static void t_expect_seed_full(struct __test_metadata *_metadata,
			       FIXTURE_DATA(full) *self)
{
	struct net_state before = net_state(&self->net);
	struct bus1_cmd_recv r;

	EXPECT_EQ(-EXFULL, bus1_recv(self->net.b.fd, BUS1_RECV_FLAG_SEED, &r));
	EXPECT_SAME(&self->net, &before);
}

TEST_F(full, seed_that_finds_no_room_for_a_copy_stays)
{
	ASSERT_EQ(0, send_seed(self, TINY / 2));
	ASSERT_EQ(0, send_bytes(self, 1));
	t_expect_seed_full(_metadata, self);
	t_expect_seed_full(_metadata, self);
	/* In the way of nobody else. */
	RECV_DATA(&self->net.b, NODE_B, self->data, 1);
	t_recv_seed(_metadata, self, TINY / 2);
	t_recv_seed(_metadata, self, TINY / 2);
}

TEST_F(full, seed_of_more_than_half_a_pool_is_never_copied)
{
	ASSERT_EQ(0, send_seed(self, TINY / 2 + 8));
	t_expect_seed_full(_metadata, self);
	EXPECT_EQ(0, send_bytes(self, TINY / 2 - 8));
	RECV_DATA(&self->net.b, NODE_B, self->data, TINY / 2 - 8);
	ASSERT_EQ(0, bus1_flush(self->net.b.fd,
				BUS1_PEER_RESET_FLAG_FLUSH_SEED));
	EXPECT_EQ(0, send_bytes(self, TINY));
}

TEST_F(full, seed_that_does_not_fit_replaces_nothing)
{
	struct net_state before;

	ASSERT_EQ(0, send_seed(self, UNIT));
	before = net_state(&self->net);
	EXPECT_EQ(-EXFULL, send_seed(self, TINY + 1));
	EXPECT_SAME(&self->net, &before);
	t_recv_seed(_metadata, self, UNIT);
	ASSERT_EQ(N_UNITS - 1, fill(self, UNIT));
	before = net_state(&self->net);
	EXPECT_EQ(-EXFULL, send_seed(self, UNIT + 1));
	EXPECT_SAME(&self->net, &before);
	RECV_DATA(&self->net.b, NODE_B, self->data, UNIT);
	t_recv_seed(_metadata, self, UNIT);
}

/*
 * Sizes
 */

TEST_F(full, sizes_are_rounded_down_to_pages)
{
	struct peer peer;
	__u64 id;

	OPEN_SIZED(&peer, 2 * PAGE - 1);
	id = TRANSFER(&peer, NODE_B, &self->net.a);
	EXPECT_EQ(-EXFULL, bus1_send_data(self->net.a.fd, id, self->data,
					  PAGE + 1));
	EXPECT_EQ(0, bus1_send_data(self->net.a.fd, id, self->data, PAGE));
	RECV_DATA(&peer, NODE_B, self->data, PAGE);
	peer_close(&peer);
}

TEST_F(full, pool_of_nothing_still_gets_notifications)
{
	struct peer peer;
	__u64 id, held;

	OPEN_SIZED(&peer, PAGE - 1);
	id = TRANSFER(&peer, NODE_B, &self->net.a);
	held = TRANSFER(&self->net.c, 0x300, &peer);
	EXPECT_EQ(-EXFULL, bus1_send_data(self->net.a.fd, id, self->data, 1));
	EXPECT_EQ(-EXFULL, bus1_send_data(self->net.a.fd, id, NULL, 0));
	RECV_NONE(&peer);
	ASSERT_EQ(0, bus1_node_destroy(self->net.c.fd, 0x300));
	RECV_DESTROY(&peer, held);
	peer_close(&peer);
}

/*
 * Races
 */

#define N_SENDERS 4

struct sender {
	pthread_t thread;
	FIXTURE_DATA(full) *full;
	int n, r;
};

static void *sender_fn(void *arg)
{
	struct sender *self = arg;
	int i;

	for (i = 0; i < 100; i++) {
		self->r = send_bytes(self->full, UNIT);
		if (self->r && self->r != -EXFULL)
			break;
		self->n += !self->r;
		self->r = 0;
	}
	return NULL;
}

TEST_F(full, nobody_gets_more_room_by_racing)
{
	struct sender senders[N_SENDERS] = {};
	__u64 offsets[N_UNITS];
	int round, i, n;

	for (round = 0; round < 5; round++) {
		for (i = 0; i < N_SENDERS; i++) {
			senders[i].full = self;
			senders[i].n = 0;
			ASSERT_EQ(0, pthread_create(&senders[i].thread, NULL,
						    sender_fn, &senders[i]));
		}
		for (i = 0, n = 0; i < N_SENDERS; i++) {
			pthread_join(senders[i].thread, NULL);
			EXPECT_EQ(0, senders[i].r);
			n += senders[i].n;
		}
		ASSERT_EQ(N_UNITS, n);
		t_recv_units(_metadata, self, n, offsets);
		while (n > 0)
			RELEASE(offsets[--n]);
	}
	RECV_NONE(&self->net.b);
}

TEST_HARNESS_MAIN
