// SPDX-License-Identifier: GPL-2.0-only
/*
 * Peers: open, the limits of PEER_QUERY and PEER_RESET, FLUSH, commands that do
 * not exist, fdinfo. How peers leave is in test_disconnect.c.
 */

#include "bus1_test.h"

FIXTURE(peer) {
	struct peer a, b;
};

FIXTURE_SETUP(peer)
{
	PEER_OPEN(&self->a);
	PEER_OPEN(&self->b);
}

FIXTURE_TEARDOWN(peer)
{
	peer_close(&self->a);
	peer_close(&self->b);
}

/* The value of a module parameter, or what the specification says it is. */
static __u32 param(const char *name, __u32 fallback)
{
	unsigned int value = fallback;
	char path[128];
	FILE *f;

	snprintf(path, sizeof(path), "/sys/module/bus1/parameters/%s", name);
	f = fopen(path, "re");
	if (f) {
		if (fscanf(f, "%u", &value) != 1)
			value = fallback;
		fclose(f);
	}
	return value;
}

static void expect_limits(struct __test_metadata *_metadata, int fd,
			  const struct bus1_cmd_peer_reset *limits)
{
	struct bus1_cmd_peer_reset query;

	ASSERT_EQ(0, bus1_query(fd, &query));
	EXPECT_EQ(0, query.flags);
	EXPECT_EQ(0, query.peer_flags);
	EXPECT_EQ(limits->max_slices, query.max_slices);
	EXPECT_EQ(limits->max_handles, query.max_handles);
	EXPECT_EQ(limits->max_inflight_bytes, query.max_inflight_bytes);
	EXPECT_EQ(limits->max_inflight_fds, query.max_inflight_fds);
}

static void default_limits(struct bus1_cmd_peer_reset *limits)
{
	limits->max_slices = param("user_slices_max", 16384);
	limits->max_handles = param("user_handles_max", 65536);
	limits->max_inflight_bytes = param("user_inflight_bytes_max",
					   16 << 20);
	limits->max_inflight_fds = param("user_inflight_fds_max", 4096);
}

/* Limits by number, for loops over all of them. */
static __u32 *limit(struct bus1_cmd_peer_reset *cmd, int i)
{
	switch (i) {
	case 0:
		return &cmd->max_slices;
	case 1:
		return &cmd->max_handles;
	case 2:
		return &cmd->max_inflight_bytes;
	default:
		return &cmd->max_inflight_fds;
	}
}

TEST_F(peer, open_is_connected_and_idle)
{
	EXPECT_EQ(POLLOUT, peer_poll(self->a.fd));
	RECV_NONE(&self->a);
	EXPECT_IDLE(&self->a);
}

TEST_F(peer, each_open_is_a_peer_of_its_own)
{
	__u64 id = 8;

	/* The same ID names different nodes in different peers. */
	ASSERT_EQ(0, bus1_send_str(self->a.fd, id, "a"));
	ASSERT_EQ(0, bus1_send_str(self->b.fd, id, "b"));
	RECV_STR(&self->b, id, "b");
	RECV_STR(&self->a, id, "a");
	RECV_NONE(&self->a);
	RECV_NONE(&self->b);
}

TEST_F(peer, dup_is_the_same_peer)
{
	struct bus1_cmd_recv recv;
	int fd = dup(self->a.fd);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, bus1_send_str(self->a.fd, 8, "x"));
	ASSERT_EQ(0, bus1_recv_wait(fd, 0, &recv));
	EXPECT_EQ(8, recv.msg.destination);
	close(fd);
	EXPECT_EQ(POLLOUT, peer_poll(self->a.fd));
}

TEST_F(peer, read_write_and_seek_are_refused)
{
	char c = 0;

	EXPECT_EQ(-1, read(self->a.fd, &c, 1));
	EXPECT_EQ(-1, write(self->a.fd, &c, 1));
	EXPECT_EQ(POLLOUT, peer_poll(self->a.fd));
}

TEST_F(peer, query_returns_the_limits_of_the_user)
{
	struct bus1_cmd_peer_reset limits;

	default_limits(&limits);
	expect_limits(_metadata, self->a.fd, &limits);
}

TEST_F(peer, query_with_any_flag_is_einval)
{
	struct bus1_cmd_peer_reset query, limits;
	int i;

	for (i = 0; i < 64; i++) {
		memset(&query, 0xa5, sizeof(query));
		query.flags = 1ULL << i;
		EXPECT_EQ(-EINVAL, bus1_ioctl(self->a.fd, BUS1_CMD_PEER_QUERY,
					      &query));
		EXPECT_EQ(SENTINEL, query.peer_flags);
		EXPECT_EQ(SENTINEL32, query.max_slices);
		EXPECT_EQ(SENTINEL32, query.max_inflight_fds);
	}
	default_limits(&limits);
	expect_limits(_metadata, self->a.fd, &limits);
}

TEST_F(peer, query_of_bad_memory_is_efault)
{
	EXPECT_EQ(-EFAULT, bus1_ioctl(self->a.fd, BUS1_CMD_PEER_QUERY,
				      (void *)(uintptr_t)BAD_PTR));
	EXPECT_EQ(POLLOUT, peer_poll(self->a.fd));
}

TEST_F(peer, query_into_read_only_memory_is_efault)
{
	void *page = shared_alloc(page_size());

	ASSERT_NE(NULL, page);
	ASSERT_EQ(0, mprotect(page, page_size(), PROT_READ));
	EXPECT_EQ(-EFAULT, bus1_ioctl(self->a.fd, BUS1_CMD_PEER_QUERY, page));
}

TEST_F(peer, reset_of_bad_memory_is_efault)
{
	struct bus1_cmd_peer_reset limits;

	EXPECT_EQ(-EFAULT, bus1_ioctl(self->a.fd, BUS1_CMD_PEER_RESET,
				      (void *)(uintptr_t)BAD_PTR));
	default_limits(&limits);
	expect_limits(_metadata, self->a.fd, &limits);
}

TEST_F(peer, reset_with_unknown_flags_is_einval)
{
	struct bus1_cmd_peer_reset reset = RESET_KEEP(.max_slices = 1), limits;
	int i;

	for (i = 2; i < 64; i++) {
		reset.flags = 1ULL << i;
		EXPECT_EQ(-EINVAL, bus1_reset(self->a.fd, reset));
	}
	default_limits(&limits);
	expect_limits(_metadata, self->a.fd, &limits);
}

TEST_F(peer, reset_with_peer_flags_is_einval)
{
	const __u64 bad[] = { 0, 1, -2ULL, 0xffffffff, 1ULL << 63 };
	struct bus1_cmd_peer_reset reset = RESET_KEEP(.max_slices = 1), limits;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		reset.peer_flags = bad[i];
		EXPECT_EQ(-EINVAL, bus1_reset(self->a.fd, reset));
	}
	default_limits(&limits);
	expect_limits(_metadata, self->a.fd, &limits);
}

TEST_F(peer, reset_sets_each_limit_alone)
{
	struct bus1_cmd_peer_reset reset, limits;
	int i;

	default_limits(&limits);
	for (i = 0; i < 4; i++) {
		reset = RESET_KEEP();
		*limit(&reset, i) = 1000 + i;
		*limit(&limits, i) = 1000 + i;
		EXPECT_EQ(0, bus1_reset(self->a.fd, reset));
		expect_limits(_metadata, self->a.fd, &limits);
	}
	/* Other peers, of the same user, keep theirs. */
	default_limits(&limits);
	expect_limits(_metadata, self->b.fd, &limits);
}

TEST_F(peer, reset_takes_zero_and_int_max)
{
	struct bus1_cmd_peer_reset reset, limits;
	int i;

	default_limits(&limits);
	for (i = 0; i < 4; i++) {
		reset = RESET_KEEP();
		*limit(&reset, i) = 0;
		*limit(&limits, i) = 0;
		EXPECT_EQ(0, bus1_reset(self->a.fd, reset));
		expect_limits(_metadata, self->a.fd, &limits);
		*limit(&reset, i) = INT32_MAX;
		*limit(&limits, i) = INT32_MAX;
		EXPECT_EQ(0, bus1_reset(self->a.fd, reset));
		expect_limits(_metadata, self->a.fd, &limits);
	}
}

TEST_F(peer, reset_above_int_max_is_einval)
{
	const __u32 bad[] = { 0x80000000, 0x80000001, 0xfffffffe };
	struct bus1_cmd_peer_reset reset, limits;
	size_t i, j;

	default_limits(&limits);
	for (i = 0; i < 4; i++) {
		for (j = 0; j < ARRAY_SIZE(bad); j++) {
			/* The other limits are fine, and must not be set. */
			reset = RESET_KEEP(.max_slices = 1, .max_handles = 1,
					   .max_inflight_bytes = 1,
					   .max_inflight_fds = 1);
			*limit(&reset, i) = bad[j];
			EXPECT_EQ(-EINVAL, bus1_reset(self->a.fd, reset));
			expect_limits(_metadata, self->a.fd, &limits);
		}
	}
}

TEST_F(peer, reset_below_use_takes_nothing_away)
{
	__u64 id = NODE(&self->a, 8);

	ASSERT_EQ(0, bus1_send_str(self->a.fd, id, "1"));
	ASSERT_EQ(0, bus1_send_str(self->a.fd, id, "2"));
	ASSERT_EQ(0, bus1_reset(self->a.fd, RESET_KEEP(.max_slices = 1)));
	EXPECT_EQ(-EDQUOT, bus1_send_str(self->a.fd, id, "3"));
	RECV_STR(&self->a, id, "1");
	/* One is in use, and one is the limit. */
	EXPECT_EQ(-EDQUOT, bus1_send_str(self->a.fd, id, "3"));
	RECV_STR(&self->a, id, "2");
	RECV_NONE(&self->a);
	EXPECT_EQ(0, bus1_send_str(self->a.fd, id, "3"));
	RECV_STR(&self->a, id, "3");
}

TEST_F(peer, limit_of_the_user_applies_beside_that_of_the_peer)
{
	struct bus1_cmd_peer_reset limits;
	__u64 id = NODE(&self->a, 8);
	void *data;
	size_t n;

	default_limits(&limits);
	n = limits.max_inflight_bytes + 8;
	data = shared_alloc(n);
	ASSERT_NE(NULL, data);
	ASSERT_EQ(0, bus1_reset(self->a.fd,
				RESET_KEEP(.max_inflight_bytes = INT32_MAX)));
	EXPECT_EQ(-EDQUOT, bus1_send_data(self->a.fd, id, data, n));
	RECV_NONE(&self->a);
}

/*
 * FLUSH
 */

TEST_F(peer, flush_empties_the_queue)
{
	__u64 id = NODE(&self->a, 8), h = TRANSFER(&self->a, id, &self->b);

	ASSERT_EQ(0, bus1_send_str(self->b.fd, h, "1"));
	ASSERT_EQ(0, bus1_send_str(self->b.fd, h, "2"));
	ASSERT_EQ(POLLIN | POLLOUT, peer_poll(self->a.fd));
	ASSERT_EQ(0, bus1_flush(self->a.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	RECV_NONE(&self->a);
	EXPECT_IDLE(&self->a);
}

TEST_F(peer, flush_destroys_nodes_and_tells_holders_only)
{
	__u64 h1 = TRANSFER(&self->a, 8, &self->b);
	__u64 h2 = TRANSFER(&self->a, 16, &self->b);
	struct bus1_cmd_recv r1, r2;

	ASSERT_EQ(0, bus1_flush(self->a.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	/* One transaction, so the first says that there is more. */
	r1 = RECV(&self->b);
	r2 = RECV(&self->b);
	EXPECT_EQ(BUS1_MSG_NODE_DESTROY, r1.msg.type);
	EXPECT_EQ(BUS1_MSG_NODE_DESTROY, r2.msg.type);
	EXPECT_EQ(BUS1_MSG_FLAG_CONTINUE, r1.msg.flags);
	EXPECT_EQ(0, r2.msg.flags);
	EXPECT_EQ(h1 ^ h2, r1.msg.destination ^ r2.msg.destination);
	EXPECT_TRUE(r1.msg.destination == h1 || r1.msg.destination == h2);
	RECV_NONE(&self->b);
	RECV_NONE(&self->a);
	EXPECT_EQ(-EHOSTUNREACH, bus1_send_str(self->b.fd, h1, "x"));
	EXPECT_EQ(-EHOSTUNREACH, bus1_send_str(self->b.fd, h2, "x"));
}

TEST_F(peer, flush_drops_every_user_reference)
{
	__u64 id = NODE(&self->b, 8), h = TRANSFER(&self->b, id, &self->a);

	TRANSFER(&self->b, id, &self->a);
	ASSERT_EQ(0, bus1_flush(self->a.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	EXPECT_EQ(-ENXIO, bus1_handle_release(self->a.fd, h));
	RECV_RELEASE(&self->b, id);
	RECV_NONE(&self->b);
	EXPECT_IDLE(&self->a);
}

TEST_F(peer, flush_releases_every_slice)
{
	__u64 id = NODE(&self->a, 8);
	struct bus1_cmd_recv recv;

	ASSERT_EQ(0, bus1_send_str(self->a.fd, id, "1"));
	recv = RECV(&self->a);
	ASSERT_EQ(0, bus1_flush(self->a.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	EXPECT_EQ(-ENXIO, bus1_slice_release(self->a.fd, recv.msg.offset));
	EXPECT_IDLE(&self->a);
}

TEST_F(peer, flush_leaves_the_peer_usable_and_ids_free)
{
	__u64 h, old = TRANSFER(&self->a, 8, &self->b);

	ASSERT_EQ(0, bus1_flush(self->a.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	RECV_DESTROY(&self->b, old);
	/* The ID is not in use any more: it names a new node. */
	h = TRANSFER(&self->a, 8, &self->b);
	EXPECT_NE(old, h);
	ASSERT_EQ(0, bus1_send_str(self->b.fd, h, "x"));
	RECV_STR(&self->a, 8, "x");
}

TEST_F(peer, flush_keeps_limits)
{
	struct bus1_cmd_peer_reset limits;

	default_limits(&limits);
	limits.max_slices = 17;
	ASSERT_EQ(0, bus1_reset(self->a.fd, RESET_KEEP(.max_slices = 17)));
	ASSERT_EQ(0, bus1_flush(self->a.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	expect_limits(_metadata, self->a.fd, &limits);
}

TEST_F(peer, flush_of_a_dropped_message_releases_its_handles)
{
	__u64 id = NODE(&self->b, 8), h = TRANSFER(&self->a, 8, &self->b);

	ASSERT_EQ(0, bus1_send_handles(self->b.fd, h, &id, 1));
	RECV_NONE(&self->b);
	ASSERT_EQ(0, bus1_flush(self->a.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	RECV_DESTROY(&self->b, h);
	RECV_RELEASE(&self->b, id);
	RECV_NONE(&self->b);
}

TEST_F(peer, flush_that_fails_changes_nothing)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);
	struct bus1_cmd_peer_reset reset = RESET_KEEP(.max_slices = 1,
				.max_inflight_fds = 0x80000000), limits;

	reset.flags = BUS1_PEER_RESET_FLAG_FLUSH;
	ASSERT_EQ(0, bus1_send_str(self->b.fd, h, "kept"));
	EXPECT_EQ(-EINVAL, bus1_reset(self->a.fd, reset));
	default_limits(&limits);
	expect_limits(_metadata, self->a.fd, &limits);
	RECV_NONE(&self->b);
	RECV_STR(&self->a, 8, "kept");
	EXPECT_EQ(0, bus1_send_str(self->b.fd, h, "alive"));
	RECV_STR(&self->a, 8, "alive");
}

/* Makes a message with @data and the handle @id the seed of @peer. */
static int send_seed(int fd, const char *data, __u64 id)
{
	struct iovec vec = { (void *)data, strlen(data) };
	struct bus1_cmd_send send = {
		.flags = BUS1_SEND_FLAG_SEED,
		.ptr_vecs = ptr(&vec),
		.n_vecs = 1,
		.ptr_handles = ptr(&id),
		.n_handles = 1,
	};

	return bus1_send(fd, &send);
}

TEST_F(peer, flush_keeps_the_seed_and_its_nodes)
{
	__u64 h1 = TRANSFER(&self->a, 8, &self->b);
	__u64 h2 = TRANSFER(&self->a, 16, &self->b);
	struct bus1_cmd_recv recv;

	ASSERT_EQ(0, send_seed(self->a.fd, "seed", 8));
	ASSERT_EQ(0, bus1_flush(self->a.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	RECV_DESTROY(&self->b, h2);
	RECV_NONE(&self->b);
	EXPECT_EQ(0, bus1_send_str(self->b.fd, h1, "alive"));
	RECV_STR(&self->a, 8, "alive");
	ASSERT_EQ(0, bus1_recv(self->a.fd, BUS1_RECV_FLAG_SEED, &recv));
	EXPECT_EQ(BUS1_MSG_DATA, recv.msg.type);
	EXPECT_EQ(4, recv.msg.n_bytes);
	EXPECT_EQ(0, memcmp(self->a.pool + recv.msg.offset, "seed", 4));
	ASSERT_EQ(1, recv.msg.n_handles);
	EXPECT_EQ(8, recv_handle(&self->a, &recv, 0));
}

TEST_F(peer, flush_seed_alone_drops_the_seed_and_nothing_else)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);
	struct bus1_cmd_recv recv;

	ASSERT_EQ(0, send_seed(self->a.fd, "seed", 8));
	ASSERT_EQ(0, bus1_flush(self->a.fd, BUS1_PEER_RESET_FLAG_FLUSH_SEED));
	EXPECT_EQ(-EAGAIN, bus1_recv(self->a.fd, BUS1_RECV_FLAG_SEED, &recv));
	RECV_NONE(&self->b);
	EXPECT_EQ(0, bus1_send_str(self->b.fd, h, "alive"));
	RECV_STR(&self->a, 8, "alive");
}

TEST_F(peer, flush_with_flush_seed_destroys_the_nodes_of_the_seed)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);
	struct bus1_cmd_recv recv;

	ASSERT_EQ(0, send_seed(self->a.fd, "seed", 8));
	ASSERT_EQ(0, bus1_flush(self->a.fd, BUS1_PEER_RESET_FLAG_FLUSH |
					    BUS1_PEER_RESET_FLAG_FLUSH_SEED));
	EXPECT_EQ(-EAGAIN, bus1_recv(self->a.fd, BUS1_RECV_FLAG_SEED, &recv));
	RECV_DESTROY(&self->b, h);
	RECV_NONE(&self->b);
	EXPECT_IDLE(&self->a);
}

TEST_F(peer, flush_of_an_empty_peer_is_fine)
{
	EXPECT_EQ(0, bus1_flush(self->a.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	EXPECT_EQ(0, bus1_flush(self->a.fd, BUS1_PEER_RESET_FLAG_FLUSH_SEED));
	EXPECT_IDLE(&self->a);
}

/*
 * What does not exist
 */

TEST_F(peer, unknown_numbers_are_enotty)
{
	const unsigned int known[] = { 0x00, 0x01, 0x02, 0x10, 0x11, 0x20, 0x30,
				       0x40, 0x50 };
	unsigned int nr;
	__u64 arg[16];
	size_t i;

	for (nr = 0; nr < 256; nr++) {
		for (i = 0; i < ARRAY_SIZE(known); i++)
			if (nr == known[i])
				break;
		if (i < ARRAY_SIZE(known))
			continue;
		memset(arg, 0xa5, sizeof(arg));
		EXPECT_EQ(-ENOTTY, bus1_ioctl(self->a.fd,
					      _IOWR(0x96, nr, __u64), arg));
		EXPECT_EQ(SENTINEL, arg[0]);
	}
}

TEST_F(peer, another_magic_is_enotty)
{
	struct bus1_cmd_peer_reset query;

	memset(&query, 0, sizeof(query));
	EXPECT_EQ(-ENOTTY, bus1_ioctl(self->a.fd,
			_IOWR(0x97, 0x01, struct bus1_cmd_peer_reset), &query));
	EXPECT_EQ(-ENOTTY, bus1_ioctl(self->a.fd,
			_IOWR(0x16, 0x01, struct bus1_cmd_peer_reset), &query));
	EXPECT_EQ(0, query.max_slices);
}

TEST_F(peer, another_size_is_enotty)
{
	const unsigned long cmds[] = {
		_IOWR(0x96, 0x00, __u32), _IOWR(0x96, 0x01, __u64),
		_IOWR(0x96, 0x02, __u64), _IOWR(0x96, 0x10, __u32),
		_IOWR(0x96, 0x11, __u64), _IOWR(0x96, 0x20, __u64),
		_IOWR(0x96, 0x30, __u32), _IOWR(0x96, 0x40, __u64),
		_IOWR(0x96, 0x50, __u64),
	};
	__u64 arg[16];
	size_t i;

	for (i = 0; i < ARRAY_SIZE(cmds); i++) {
		memset(arg, 0, sizeof(arg));
		EXPECT_EQ(-ENOTTY, bus1_ioctl(self->a.fd, cmds[i], arg)) {
			TH_LOG("number %#lx", cmds[i] & 0xff);
		}
	}
	EXPECT_EQ(POLLOUT, peer_poll(self->a.fd));
}

/*
 * fdinfo
 */

TEST_F(peer, fdinfo_follows_use)
{
	__u64 id = NODE(&self->a, 8);
	struct bus1_cmd_recv recv;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bus1_fdinfo_counters); i++) {
		EXPECT_LE(0, bus1_fdinfo(self->a.fd, bus1_fdinfo_counters[i])) {
			TH_LOG("no key %s", bus1_fdinfo_counters[i]);
		}
	}
	ASSERT_EQ(0, bus1_send_data(self->a.fd, id, "12345678", 8));
	EXPECT_EQ(1, bus1_fdinfo(self->a.fd, "bus1-queue"));
	EXPECT_EQ(1, bus1_fdinfo(self->a.fd, "bus1-slices"));
	EXPECT_LE(8, bus1_fdinfo(self->a.fd, "bus1-bytes"));
	recv = RECV(&self->a);
	EXPECT_EQ(0, bus1_fdinfo(self->a.fd, "bus1-queue"));
	EXPECT_EQ(1, bus1_fdinfo(self->a.fd, "bus1-slices"));
	EXPECT_EQ(0, bus1_slice_release(self->a.fd, recv.msg.offset));
	EXPECT_EQ(0, bus1_nodes_destroy(self->a.fd,
				BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES, &id, 1));
	EXPECT_IDLE(&self->a);
}

TEST_F(peer, fdinfo_works_after_disconnect)
{
	ASSERT_EQ(0, bus1_disconnect(self->a.fd));
	EXPECT_LE(0, bus1_fdinfo(self->a.fd, "pos"));
}

TEST_HARNESS_MAIN
