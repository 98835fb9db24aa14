// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pools: how they are mapped, and that every byte is where it belongs.
 */
#include "bus1_msg.h"

#define N_SLICES	64
#define N_STEPS		3000

FIXTURE(pool) {
	struct net net;
};

FIXTURE_SETUP(pool)
{
	NET_INIT(&self->net);
}

FIXTURE_TEARDOWN(pool)
{
	net_deinit(&self->net);
}

FIXTURE(map) {
	struct net net;
};

FIXTURE_VARIANT(map) {
	int flags;
};

FIXTURE_VARIANT_ADD(map, shared) { .flags = MAP_SHARED };
FIXTURE_VARIANT_ADD(map, private) { .flags = MAP_PRIVATE };

FIXTURE_SETUP(map)
{
	NET_INIT(&self->net);
}

FIXTURE_TEARDOWN(map)
{
	net_deinit(&self->net);
}

TEST_F(map, reads_what_was_sent_before_and_after)
{
	struct bus1_cmd_recv r;
	const __u8 *p;

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "before"));
	r = RECV(&self->net.b);
	p = mmap(NULL, POOL_SIZE, PROT_READ, variant->flags, self->net.b.fd, 0);
	ASSERT_TRUE(p != MAP_FAILED);
	EXPECT_EQ(0, memcmp(p + r.msg.offset, "before", 6));
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "after"));
	r = RECV(&self->net.b);
	EXPECT_EQ(0, memcmp(p + r.msg.offset, "after", 5));
	munmap((void *)p, POOL_SIZE);
}

TEST_F(map, sees_memory_that_is_reused)
{
	struct bus1_cmd_recv r;
	const __u8 *p;
	int i;

	p = mmap(NULL, POOL_SIZE, PROT_READ, variant->flags, self->net.b.fd, 0);
	ASSERT_TRUE(p != MAP_FAILED);
	for (i = 0; i < 100; i++) {
		ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, &i,
					    sizeof(i)));
		r = RECV(&self->net.b);
		EXPECT_EQ(0, memcmp(p + r.msg.offset, &i, sizeof(i)));
		ASSERT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));
	}
}

TEST_F(map, write_is_eperm)
{
	void *p;

	p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, variant->flags,
		 self->net.b.fd, 0);
	EXPECT_TRUE(p == MAP_FAILED);
	EXPECT_EQ(EPERM, errno);
	p = mmap(NULL, PAGE, PROT_WRITE, variant->flags, self->net.b.fd, 0);
	EXPECT_TRUE(p == MAP_FAILED);
	EXPECT_EQ(EPERM, errno);
}

TEST_F(map, later_write_is_eacces)
{
	void *p = mmap(NULL, PAGE, PROT_READ, variant->flags, self->net.b.fd,
		       0);

	ASSERT_TRUE(p != MAP_FAILED);
	EXPECT_EQ(-1, mprotect(p, PAGE, PROT_READ | PROT_WRITE));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(-1, mprotect(p, PAGE, PROT_WRITE));
	EXPECT_EQ(EACCES, errno);
	EXPECT_EQ(0, mprotect(p, PAGE, PROT_NONE));
	EXPECT_EQ(0, mprotect(p, PAGE, PROT_READ));
}

TEST_F(map, any_length)
{
	const size_t sizes[] = { 1, 100, PAGE, PAGE + 1, 3 * PAGE, 1UL << 20,
				 1UL << 30 };
	struct bus1_cmd_recv r;
	const __u8 *p;
	size_t i;

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "hello"));
	r = RECV(&self->net.b);
	ASSERT_GT(PAGE, r.msg.offset + 5);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		p = mmap(NULL, sizes[i], PROT_READ, variant->flags,
			 self->net.b.fd, 0);
		ASSERT_TRUE(p != MAP_FAILED) {
			TH_LOG("length %zu", sizes[i]);
		}
		EXPECT_EQ(0, memcmp(p + r.msg.offset, "hello", 5));
		/* the far end: nothing was ever there */
		if (sizes[i] > PAGE) {
			EXPECT_GE(0, read_byte(p + sizes[i] - 1));
		}
		EXPECT_EQ(0, munmap((void *)p, sizes[i]));
	}
}

TEST_F(map, a_part_shows_that_part)
{
	__u8 data[3 * PAGE];
	struct bus1_cmd_recv r;
	const __u8 *p;
	size_t at;

	pattern_fill(data, sizeof(data), 1);
	ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, data,
				    sizeof(data)));
	r = RECV(&self->net.b);
	at = (r.msg.offset + PAGE) / PAGE * PAGE;
	p = mmap(NULL, PAGE, PROT_READ, variant->flags, self->net.b.fd, at);
	ASSERT_TRUE(p != MAP_FAILED);
	EXPECT_EQ(0, memcmp(p, data + at - r.msg.offset, PAGE));
}

TEST_F(map, hole_is_zero_or_sigbus)
{
	const __u8 *p = mmap(NULL, 1UL << 28, PROT_READ, variant->flags,
			     self->net.c.fd, 0);
	size_t i;

	ASSERT_TRUE(p != MAP_FAILED);
	for (i = 0; i < 1UL << 28; i += (1UL << 20) + 123) {
		EXPECT_GE(0, read_byte(p + i));
	}
}

TEST_F(map, system_calls_survive_holes)
{
	const __u8 *p = mmap(NULL, 1UL << 20, PROT_READ, variant->flags,
			     self->net.c.fd, 0);
	int fds[2];

	ASSERT_TRUE(p != MAP_FAILED);
	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	/* The kernel reads it for us: a byte, or EFAULT. */
	if (write(fds[1], p + PAGE, 1) != 1) {
		EXPECT_EQ(EFAULT, errno);
	}
	if (bus1_send_data(self->net.a.fd, self->net.ab, p, PAGE)) {
		EXPECT_EQ(EFAULT, errno);
	}
}

TEST_F(map, is_inherited_by_children)
{
	int sent = event_new(), received = event_new();
	struct bus1_cmd_recv r, *shared = shared_alloc(sizeof(r));
	const __u8 *p;
	pid_t pid;

	p = mmap(NULL, POOL_SIZE, PROT_READ, variant->flags, self->net.b.fd, 0);
	ASSERT_TRUE(p != MAP_FAILED && shared);
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "before"));
	r = RECV(&self->net.b);
	pid = FORK();
	if (!pid) {
		EXPECT_EQ(0, memcmp(p + r.msg.offset, "before", 6));
		event_wait(sent);
		EXPECT_EQ(0, memcmp(p + shared->msg.offset, "after", 5));
		_exit(0);
	}
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "after"));
	*shared = RECV(&self->net.b);
	event_post(sent);
	WAIT(pid);
	EXPECT_EQ(0, memcmp(p + r.msg.offset, "before", 6));
	close(sent);
	close(received);
}

TEST_F(map, can_be_moved_and_cut)
{
	__u8 data[3 * PAGE], *p, *q;
	struct bus1_cmd_recv r;

	p = mmap(NULL, 1UL << 20, PROT_READ, variant->flags, self->net.b.fd, 0);
	q = mmap(NULL, 1UL << 20, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1,
		 0);
	ASSERT_TRUE(p != MAP_FAILED && q != MAP_FAILED);
	pattern_fill(data, sizeof(data), 2);
	ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, data,
				    sizeof(data)));
	r = RECV(&self->net.b);
	EXPECT_EQ(0, memcmp(p + r.msg.offset, data, sizeof(data)));
	ASSERT_TRUE(mremap(p, 1UL << 20, 1UL << 20,
			   MREMAP_MAYMOVE | MREMAP_FIXED, q) == q);
	EXPECT_EQ(0, memcmp(q + r.msg.offset, data, sizeof(data)));
	ASSERT_TRUE(mremap(q, 1UL << 20, 1UL << 19, 0) == q);
	EXPECT_EQ(0, memcmp(q + r.msg.offset, data, sizeof(data)));
	ASSERT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));
	/* and what comes later is seen at the new place */
	pattern_fill(data, sizeof(data), 3);
	ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, data,
				    sizeof(data)));
	r = RECV(&self->net.b);
	EXPECT_EQ(0, memcmp(q + r.msg.offset, data, sizeof(data)));
}

TEST_F(map, outlives_the_descriptor)
{
	struct bus1_cmd_recv r;
	const __u8 *p;
	int byte, i;

	p = mmap(NULL, 1UL << 20, PROT_READ, variant->flags, self->net.b.fd, 0);
	ASSERT_TRUE(p != MAP_FAILED);
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "hello"));
	r = RECV(&self->net.b);
	peer_close(&self->net.b);
	/* Other pools need memory meanwhile. */
	for (i = 0; i < 50; i++) {
		__u8 data[PAGE];

		memset(data, 0xee, sizeof(data));
		ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ac, data,
					    sizeof(data)));
	}
	byte = read_byte(p + r.msg.offset);
	EXPECT_TRUE(byte == 'h' || byte == 0 || byte == -1);
	EXPECT_GE(0, read_byte(p + (1UL << 19)));
	EXPECT_EQ(0, munmap((void *)p, 1UL << 20));
}

TEST_F(map, outlives_disconnect)
{
	struct bus1_cmd_recv r;
	const __u8 *p;
	int byte;

	p = mmap(NULL, 1UL << 20, PROT_READ, variant->flags, self->net.b.fd, 0);
	ASSERT_TRUE(p != MAP_FAILED);
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "hello"));
	r = RECV(&self->net.b);
	ASSERT_EQ(0, bus1_disconnect(self->net.b.fd));
	byte = read_byte(p + r.msg.offset);
	EXPECT_TRUE(byte == 'h' || byte == 0 || byte == -1);
}

TEST_F(pool, unmapping_does_not_release_slices)
{
	struct bus1_cmd_recv r;
	void *p;

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "hello"));
	r = RECV(&self->net.b);
	ASSERT_EQ(0, munmap((void *)self->net.b.pool, POOL_SIZE));
	p = mmap(NULL, POOL_SIZE, PROT_READ, MAP_SHARED, self->net.b.fd, 0);
	ASSERT_TRUE(p != MAP_FAILED);
	self->net.b.pool = p;
	EXPECT_EQ(0, memcmp(slice_bytes(&self->net.b, &r), "hello", 5));
	EXPECT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));
}

TEST_F(pool, needs_no_mapping)
{
	struct bus1_cmd_recv r;
	int fd = bus1_open(O_NONBLOCK);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, bus1_send_str(fd, 0x1000, "x"));
	ASSERT_EQ(0, bus1_recv_wait(fd, 0, &r));
	EXPECT_EQ(0, bus1_slice_release(fd, r.msg.offset));
	close(fd);
}

TEST_F(pool, low_offsets_are_used_again)
{
	__u64 first = 0, max = 0;
	struct bus1_cmd_recv r;
	int i;

	for (i = 0; i < 2000; i++) {
		ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, self,
					    sizeof(*self)));
		r = RECV(&self->net.b);
		if (!i)
			first = r.msg.offset;
		if (r.msg.offset > max)
			max = r.msg.offset;
		ASSERT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));
	}
	/* One slice at a time needs the room of a few. */
	EXPECT_GE(first + 16 * PAGE, max);
}

/* Not even a SEND that fails leaves anything in the way of who maps little. */
TEST_F(pool, low_offsets_are_used_after_a_failed_send)
{
	struct bus1_cmd_recv r = { .max_offset = 4096 };
	static __u8 bytes[3000];
	struct iovec vecs[2] = { { bytes, 1500 }, { NULL, 1500 } };
	int i;

	NODE(&self->net.b, 0x400);
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, bytes,
					    sizeof(bytes)));
		ASSERT_EQ(-EFAULT, msg_send(self->net.a.fd, .dst = &self->net.ab,
					    .n_dst = 1, .vecs = vecs,
					    .n_vecs = 2));
		ASSERT_EQ(0, bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV, &r));
		EXPECT_EQ(0, r.msg.offset);
		ASSERT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));
	}
}

/* In whatever order slices are released, the next one is the first of the pool. */
TEST_F(pool, low_offsets_are_used_after_any_release)
{
	static const int orders[][3] = {
		{ 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 }, { 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 },
	};
	static const __u8 bytes[3000];
	struct bus1_cmd_recv r[3];
	size_t i, k;

	NODE(&self->net.b, 0x400);
	for (i = 0; i < ARRAY_SIZE(orders); i++) {
		for (k = 0; k < 3; k++)
			ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, bytes,
						    sizeof(bytes)));
		for (k = 0; k < 3; k++) {
			r[k] = (struct bus1_cmd_recv){ .max_offset = UINT64_MAX };
			ASSERT_EQ(0, bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV, &r[k]));
		}
		EXPECT_EQ(0, r[0].msg.offset);
		for (k = 0; k < 3; k++)
			ASSERT_EQ(0, bus1_slice_release(self->net.b.fd,
							r[orders[i][k]].msg.offset));
	}
}

/* Nor if the third does not fit where the first one was, and the second one stays longer. */
TEST_F(pool, low_offsets_are_used_after_other_sizes)
{
	static const size_t sizes[] = { 1000, 1000, 2000, 2000 };
	static const __u8 bytes[2000];
	struct bus1_cmd_recv r[4];
	size_t i;

	NODE(&self->net.b, 0x400);
	for (i = 0; i < 4; i++) {
		if (i == 2)
			ASSERT_EQ(0, bus1_slice_release(self->net.b.fd, r[0].msg.offset));
		if (i == 3) {
			ASSERT_EQ(0, bus1_slice_release(self->net.b.fd, r[2].msg.offset));
			ASSERT_EQ(0, bus1_slice_release(self->net.b.fd, r[1].msg.offset));
		}
		ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, bytes, sizes[i]));
		r[i] = (struct bus1_cmd_recv){ .max_offset = UINT64_MAX };
		ASSERT_EQ(0, bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV, &r[i]));
	}
	EXPECT_EQ(0, r[3].msg.offset);
}

/* What is alive in the pool of a peer. */
struct live {
	struct bus1_cmd_recv r;
	__u32 seed;
	size_t size;
};

struct live_set {
	struct live live[N_SLICES];
	size_t n;
	__u64 random;
	__u32 seed;
	__u8 *data;
	size_t max;
};

static void live_check(struct __test_metadata *_metadata, struct peer *peer,
		       const struct live *live)
{
	EXPECT_TRUE(pattern_check(slice_bytes(peer, &live->r), live->size,
				  live->seed)) {
		TH_LOG("slice of %zu bytes at %llu", live->size,
		       (unsigned long long)live->r.msg.offset);
	}
	EXPECT_TRUE(slice_padded(peer, &live->r));
}

static void live_add(struct __test_metadata *_metadata, struct net *net,
		     struct live_set *set)
{
	struct live *live = &set->live[set->n];
	size_t i;

	live->seed = set->seed++;
	live->size = next_random(&set->random) %
		     (next_random(&set->random) % 8 ? 600 : set->max);
	pattern_fill(set->data, live->size, live->seed);
	ASSERT_EQ(0, bus1_send_data(net->a.fd, net->ab, set->data,
				    live->size));
	live->r = RECV(&net->b);
	ASSERT_EQ(live->size, live->r.msg.n_bytes);
	/* It overlaps with no other. */
	for (i = 0; i < set->n; i++) {
		EXPECT_TRUE(live->r.msg.offset >= set->live[i].r.msg.offset +
			    slice_size(&set->live[i].r) ||
			    set->live[i].r.msg.offset >= live->r.msg.offset +
			    slice_size(&live->r));
	}
	set->n++;
}

static void live_remove(struct __test_metadata *_metadata, struct net *net,
			struct live_set *set)
{
	size_t i = next_random(&set->random) % set->n;

	live_check(_metadata, &net->b, &set->live[i]);
	ASSERT_EQ(0, bus1_slice_release(net->b.fd, set->live[i].r.msg.offset));
	set->live[i] = set->live[--set->n];
}

FIXTURE(churn) {
	struct net net;
	struct live_set set;
};

FIXTURE_SETUP(churn)
{
	NET_INIT(&self->net);
	self->set = (struct live_set){ .random = 42, .max = 70000 };
	self->set.data = malloc(self->set.max);
	ASSERT_TRUE(self->set.data);
}

FIXTURE_TEARDOWN(churn)
{
	free(self->set.data);
	net_deinit(&self->net);
}

TEST_F(churn, random_sizes_in_random_order_stay_right)
{
	int i;

	for (i = 0; i < N_STEPS; i++) {
		if (!self->set.n || (self->set.n < N_SLICES &&
				     next_random(&self->set.random) % 2))
			live_add(_metadata, &self->net, &self->set);
		else
			live_remove(_metadata, &self->net, &self->set);
	}
	while (self->set.n)
		live_remove(_metadata, &self->net, &self->set);
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-slices"));
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-bytes"));
}

static void drop_caches(void)
{
	int fd = open("/proc/sys/vm/drop_caches", O_WRONLY | O_CLOEXEC);

	if (fd < 0)
		return;
	if (write(fd, "2", 1) < 0)
		perror("drop_caches");
	close(fd);
}

TEST_F(churn, memory_that_is_taken_back_comes_again)
{
	int round;
	size_t i;

	for (round = 0; round < 10; round++) {
		while (self->set.n < N_SLICES)
			live_add(_metadata, &self->net, &self->set);
		while (self->set.n > (round % 2 ? 0 : 5))
			live_remove(_metadata, &self->net, &self->set);
		drop_caches();
		for (i = 0; i < self->set.n; i++)
			live_check(_metadata, &self->net.b,
				   &self->set.live[i]);
	}
}

/* Nothing in the first bytes of the pool but zeros and the two given. */
static void expect_only(struct __test_metadata *_metadata, struct peer *peer,
			size_t size, __u8 one, __u8 two)
{
	size_t i;
	int byte;

	for (i = 0; i < size; i++) {
		/* no memory at all: skip the page */
		if (i % PAGE == 0 && read_byte(peer->pool + i) < 0) {
			i += PAGE - 1;
			continue;
		}
		byte = peer->pool[i];
		if (byte && byte != one && byte != two) {
			EXPECT_EQ(one, byte) {
				TH_LOG("at offset %zu", i);
			}
			return;
		}
	}
}

TEST_F(pool, no_bytes_of_other_peers_show_through)
{
	__u8 *secret = malloc(1UL << 20);
	struct bus1_cmd_recv r;
	int i;

	ASSERT_TRUE(secret);
	memset(secret, 0x5e, 1UL << 20);
	for (i = 0; i < 8; i++) {
		ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ac,
					    secret, 1UL << 20));
		r = RECV(&self->net.c);
		ASSERT_EQ(0, bus1_slice_release(self->net.c.fd, r.msg.offset));
	}
	peer_close(&self->net.c);
	/* The memory is free: b gets some of it, for very small messages. */
	for (i = 0; i < 1000; i++) {
		ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab,
					    "bbbbb", 5));
	}
	expect_only(_metadata, &self->net.b, 1UL << 20, 'b', 'b');
	free(secret);
}

TEST_F(pool, bytes_that_were_never_sent_do_not_show)
{
	__u8 *edge = bad_edge(PAGE);
	struct iovec vecs[2];
	int i;

	/* Sends that fail half way leave their own bytes at most. */
	ASSERT_TRUE(edge);
	memset(edge, 'a', PAGE);
	vecs[0] = (struct iovec){ edge, PAGE };
	vecs[1] = (struct iovec){ edge + PAGE, 1 };
	for (i = 0; i < 20; i++) {
		EXPECT_EQ(-EFAULT, msg_send(self->net.a.fd,
					    .dst = &self->net.ab, .n_dst = 1,
					    .vecs = vecs, .n_vecs = 2));
	}
	for (i = 0; i < 100; i++) {
		ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, "b",
					    1));
	}
	expect_only(_metadata, &self->net.b, 1UL << 18, 'a', 'b');
	for (i = 0; i < 100; i++) {
		struct bus1_cmd_recv r = RECV(&self->net.b);

		EXPECT_EQ('b', *slice_bytes(&self->net.b, &r));
		EXPECT_TRUE(slice_padded(&self->net.b, &r));
	}
}

TEST_F(pool, slices_of_many_threads_do_not_mix)
{
	struct bus1_cmd_recv r;
	pid_t pids[4];
	int i, j;
	__u32 seed;

	/* Four processes send to b at once, through a's descriptor. */
	for (i = 0; i < 4; i++) {
		pids[i] = FORK();
		if (pids[i])
			continue;
		for (j = 0; j < 200; j++) {
			__u32 data[256];

			seed = i * 1000 + j;
			data[0] = seed;
			pattern_fill(data + 1, sizeof(data) - 4, seed);
			ASSERT_EQ(0, bus1_send_data(self->net.a.fd,
						    self->net.ab, data,
						    sizeof(data) - j));
		}
		_exit(0);
	}
	for (j = 0; j < 800; j++) {
		r = RECV(&self->net.b);
		memcpy(&seed, slice_bytes(&self->net.b, &r), sizeof(seed));
		EXPECT_EQ(1024 - seed % 1000, r.msg.n_bytes);
		EXPECT_TRUE(pattern_check(slice_bytes(&self->net.b, &r) + 4,
					  r.msg.n_bytes - 4, seed));
		EXPECT_TRUE(slice_padded(&self->net.b, &r));
		if (j % 2) {
			ASSERT_EQ(0, bus1_slice_release(self->net.b.fd,
							r.msg.offset));
		}
	}
	for (i = 0; i < 4; i++) {
		WAIT(pids[i]);
	}
}

TEST_HARNESS_MAIN
