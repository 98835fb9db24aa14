// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every byte that reaches user space was meant to. The kernel's free memory is
 * filled with a pattern through other system calls first, as far as that can be
 * done; then results are looked at to the last byte, and pools as far as there is
 * memory behind them, including what no slice covers.
 */
#include <sys/socket.h>
#include "bus1_fuse.h"

#define POISON		0x5b
#define POISON_PAGES	2048
#define SECRET		0xc7
#define N_SOCKETS	16

/* Pages and small objects that are freed with the pattern in them. */
static void poison(void)
{
	static const size_t sizes[] = {
		8, 16, 32, 64, 96, 128, 192, 256, 512, 1024, 2048, 4096, 8192,
	};
	static char data[8192];
	int fds[N_SOCKETS][2], pipes[2];
	size_t i, j, k;
	void *p;

	memset(data, POISON, sizeof(data));
	p = mmap(NULL, POISON_PAGES * PAGE, PROT_READ | PROT_WRITE,
		 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p != MAP_FAILED) {
		memset(p, POISON, POISON_PAGES * PAGE);
		munmap(p, POISON_PAGES * PAGE);
	}
	for (i = 0; i < N_SOCKETS; i++) {
		if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK, 0, fds[i]))
			fds[i][0] = fds[i][1] = -1;
		for (j = 0; j < ARRAY_SIZE(sizes); j++)
			for (k = 0; k < 8; k++)
				send(fds[i][0], data, sizes[j], 0);
	}
	for (i = 0; i < N_SOCKETS; i++) {
		close(fds[i][0]);
		close(fds[i][1]);
	}
	if (!pipe2(pipes, O_NONBLOCK)) {
		while (write(pipes[1], data, PAGE) == (ssize_t)PAGE)
			;
		close(pipes[0]);
		close(pipes[1]);
	}
	/* Names and keys are copied to objects of their size. */
	for (j = 0; j < 12; j++) {
		data[sizes[j] - 1] = 0;
		for (k = 0; k < 64; k++)
			syscall(SYS_openat, AT_FDCWD, data, O_RDONLY);
		data[sizes[j] - 1] = POISON;
	}
}

/* Are the @n bytes at @p all @value? */
static bool all_are(const void *p, __u8 value, size_t n)
{
	const __u8 *bytes = p;
	size_t i;

	for (i = 0; i < n; i++)
		if (bytes[i] != value)
			return false;
	return true;
}

/*
 * Looks through the first @n pages of a pool, but for the @skip bytes at @from:
 * what is there must be zero. Returns the pages that were there; or where it was
 * not, as a negative number.
 */
static long pool_scan(const struct peer *peer, size_t n, size_t from,
		      size_t skip)
{
	size_t page, i, at;
	long there = 0;

	for (page = 0; page < n; page++) {
		if (read_byte(peer->pool + page * PAGE) < 0)
			continue;
		there++;
		if (!pool_read(peer->pool + page * PAGE, PAGE))
			return -(long)(page * PAGE) - 1;
		for (i = 0; i < PAGE; i++) {
			at = page * PAGE + i;
			if (at - from < skip)
				continue;
			if (peer->pool[at])
				return -(long)at - 1;
		}
	}
	return there;
}

/* How often @value stands in the first @n pages of a pool. */
static long pool_count(const struct peer *peer, size_t n, __u8 value)
{
	size_t page, i;
	long count = 0;

	for (page = 0; page < n; page++) {
		if (read_byte(peer->pool + page * PAGE) < 0)
			continue;
		for (i = 0; i < PAGE; i++)
			count += peer->pool[page * PAGE + i] == value;
	}
	return count;
}

FIXTURE(leak) {
	struct net net;
};

FIXTURE_SETUP(leak)
{
	poison();
	NET_INIT(&self->net);
	poison();
}

FIXTURE_TEARDOWN(leak)
{
	net_deinit(&self->net);
}

/* A command's struct, in the middle of bytes that must stay as they are. */
#define ROOM	64

struct room {
	__u8 before[ROOM];
	union {
		struct bus1_cmd_peer_reset reset;
		struct bus1_cmd_handle_transfer transfer;
		struct bus1_cmd_nodes_destroy destroy;
		struct bus1_cmd_send send;
		struct bus1_cmd_recv recv;
		__u64 value;
	};
	__u8 after[ROOM];
};

static void room_init(struct room *room)
{
	memset(room, 0xa5, sizeof(*room));
}

static bool room_kept(const struct room *room, size_t n)
{
	const __u8 *p = (const void *)&room->value;

	return all_are(room->before, 0xa5, ROOM) &&
	       all_are(p + n, 0xa5, (const __u8 *)(room + 1) - p - n);
}

TEST_F(leak, query_writes_what_it_says_and_nothing_else)
{
	struct bus1_cmd_peer_reset want = {
		.max_slices = 16384, .max_handles = 65536,
		.max_inflight_bytes = 16 << 20, .max_inflight_fds = 4096,
	};
	struct room room;

	room_init(&room);
	room.reset.flags = 0;
	ASSERT_EQ(0, bus1_ioctl(self->net.a.fd, BUS1_CMD_PEER_QUERY,
				&room.reset));
	EXPECT_EQ(0, memcmp(&want, &room.reset, sizeof(want)));
	EXPECT_TRUE(room_kept(&room, sizeof(want)));
	/* Nothing at all if it fails. */
	room_init(&room);
	EXPECT_EQ(-EINVAL, bus1_ioctl(self->net.a.fd, BUS1_CMD_PEER_QUERY,
				      &room.reset));
	EXPECT_TRUE(room_kept(&room, 0));
}

TEST_F(leak, commands_without_a_result_write_nothing)
{
	struct bus1_cmd_nodes_destroy destroy = {
		.ptr_nodes = ptr(&(__u64){ 0x500 }), .n_nodes = 1,
	};
	struct bus1_cmd_peer_reset reset = RESET_KEEP();
	struct bus1_cmd_send send = {
		.ptr_destinations = ptr(&self->net.ab), .n_destinations = 1,
	};
	struct room room;
	int i;

	/* The second time, they fail. */
	for (i = 0; i < 2; i++) {
		room_init(&room);
		room.destroy = destroy;
		EXPECT_EQ(i ? -ESTALE : 0,
			  bus1_ioctl(self->net.a.fd, BUS1_CMD_NODES_DESTROY,
				     &room.destroy));
		EXPECT_EQ(0, memcmp(&destroy, &room.destroy, sizeof(destroy)));
		EXPECT_TRUE(room_kept(&room, sizeof(destroy)));

		room_init(&room);
		room.reset = reset;
		room.reset.flags = i ? 1 << 30 : 0;
		EXPECT_EQ(i ? -EINVAL : 0,
			  bus1_ioctl(self->net.a.fd, BUS1_CMD_PEER_RESET,
				     &room.reset));
		room.reset.flags = 0;
		EXPECT_EQ(0, memcmp(&reset, &room.reset, sizeof(reset)));
		EXPECT_TRUE(room_kept(&room, sizeof(reset)));

		room_init(&room);
		room.send = send;
		EXPECT_EQ(i ? -EHOSTUNREACH : 0,
			  bus1_ioctl(self->net.a.fd, BUS1_CMD_SEND,
				     &room.send));
		EXPECT_EQ(0, memcmp(&send, &room.send, sizeof(send)));
		EXPECT_TRUE(room_kept(&room, sizeof(send)));

		room_init(&room);
		room.value = i ? self->net.ab : self->net.ac;
		EXPECT_EQ(0, bus1_ioctl(self->net.a.fd, BUS1_CMD_HANDLE_RELEASE,
					&room.value));
		EXPECT_TRUE(room_kept(&room, sizeof(__u64)));
		EXPECT_EQ(-ENXIO, bus1_ioctl(self->net.a.fd,
					     BUS1_CMD_SLICE_RELEASE,
					     &room.value));
		EXPECT_EQ(i ? self->net.ab : self->net.ac, room.value);
		EXPECT_TRUE(room_kept(&room, sizeof(__u64)));

		if (!i) {
			self->net.ab = TRANSFER(&self->net.b, NODE_B,
						&self->net.a);
			send.ptr_destinations = ptr(&self->net.ab);
			ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd, NODE_B));
		}
	}
}

TEST_F(leak, transfer_writes_one_id)
{
	struct bus1_cmd_handle_transfer want = {
		.src_handle = 0x900, .dst_fd = self->net.b.fd,
		.dst_handle = BUS1_HANDLE_INVALID,
	};
	struct room room;

	/* Fails: nothing is told. */
	room_init(&room);
	want.src_handle = 0x903;
	room.transfer = want;
	EXPECT_EQ(-ENXIO, bus1_ioctl(self->net.a.fd, BUS1_CMD_HANDLE_TRANSFER,
				     &room.transfer));
	EXPECT_EQ(0, memcmp(&want, &room.transfer, sizeof(want)));
	EXPECT_TRUE(room_kept(&room, sizeof(want)));

	want.src_handle = 0x900;
	room.transfer = want;
	ASSERT_EQ(0, bus1_ioctl(self->net.a.fd, BUS1_CMD_HANDLE_TRANSFER,
				&room.transfer));
	/* The first that the kernel chooses for b. */
	want.dst_handle = 8 | KERNEL_CHOSEN;
	EXPECT_EQ(0, memcmp(&want, &room.transfer, sizeof(want)));
	EXPECT_TRUE(room_kept(&room, sizeof(want)));
}

TEST_F(leak, recv_writes_the_message_and_nothing_else)
{
	struct bus1_cmd_recv want;
	struct room room;
	int i;

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "seven77"));
	ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd, NODE_B));
	for (i = 0; i < 4; i++) {
		memset(&want, 0, sizeof(want));
		want.max_offset = BUS1_OFFSET_INVALID;
		want.flags = i == 3 ? BUS1_RECV_FLAG_SEED : 0;
		room_init(&room);
		room.recv.flags = want.flags;
		room.recv.max_offset = want.max_offset;
		if (i < 2) {
			ASSERT_EQ(0, bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV,
						&room.recv));
			want.msg.type = i ? BUS1_MSG_NODE_DESTROY :
					    BUS1_MSG_DATA;
			want.msg.destination = NODE_B;
			want.msg.n_bytes = i ? 0 : 7;
			want.msg.offset = i ? BUS1_OFFSET_INVALID : 0;
		} else {
			ASSERT_EQ(-EAGAIN, bus1_ioctl(self->net.b.fd,
						      BUS1_CMD_RECV,
						      &room.recv));
			memset(&want.msg, 0xa5, sizeof(want.msg));
		}
		EXPECT_EQ(0, memcmp(&want, &room.recv, sizeof(want))) {
			TH_LOG("message %d", i);
		}
		EXPECT_TRUE(room_kept(&room, sizeof(want)));
	}
}

TEST_F(leak, errors_are_errors_and_nothing_else)
{
	const __u64 dst[] = { self->net.ab, self->net.ac, 0x700 };
	__s32 errors[16];
	int i;

	ASSERT_EQ(0, bus1_disconnect(self->net.b.fd));
	for (i = 0; i < 2; i++) {
		memset(errors, 0xa5, sizeof(errors));
		EXPECT_EQ(i ? -EHOSTUNREACH : 0,
			  msg_send(self->net.a.fd,
				   .flags = i ? 0 : BUS1_SEND_FLAG_CONTINUE,
				   .dst = dst, .n_dst = 3,
				   .errors = errors + 4));
		EXPECT_EQ(-EHOSTUNREACH, errors[4]);
		EXPECT_EQ(0, errors[5]);
		EXPECT_EQ(0, errors[6]);
		EXPECT_TRUE(all_are(errors, 0xa5, 16));
		EXPECT_TRUE(all_are(errors + 7, 0xa5, 36));
	}
}

/* A message of every shape, alone in a new pool: all around it is zero. */
TEST_F(leak, new_pools_hold_the_message_and_zeros)
{
	static const size_t sizes[] = {
		0, 1, 7, 8, 9, 4095, 4096, 4097, 65536 - 1, 3 * 65536 + 5,
	};
	static __u8 payload[4 * 65536];
	const int fds[] = { 2, 2, 2 };
	struct bus1_cmd_recv r;
	const __u64 self_id = 0x10;
	__u64 handles[3] = { 0x20, 0x28, 0x30 };
	/* On slow kernels a third of them, with every size, count and pair of counts. */
	size_t i, step = scaled_rounds(5) < 5 ? 3 : 1;
	size_t n_handles, n_fds, used, checked = 0;
	struct iovec vec = { payload, 0 };
	struct peer peer;
	long there;

	memset(payload, SECRET, sizeof(payload));
	for (i = 0; i < ARRAY_SIZE(sizes) * 16; i += step) {
		n_handles = i % 4;
		n_fds = i / 4 % 4;
		vec.iov_len = sizes[i / 16];
		if (i % 8 == 0)
			poison();
		PEER_OPEN(&peer);
		ASSERT_EQ(0, msg_send(peer.fd, .dst = &self_id, .n_dst = 1,
				      .vecs = &vec, .n_vecs = 1,
				      .handles = handles,
				      .n_handles = n_handles,
				      .fds = fds, .n_fds = n_fds));
		r = RECV_FLAGS(&peer, BUS1_RECV_FLAG_INSTALL_FDS);
		ASSERT_EQ(0, r.msg.offset);
		EXPECT_TRUE(all_are(peer.pool, SECRET, vec.iov_len));
		EXPECT_TRUE(slice_padded(&peer, &r));
		used = slice_used(&r);
		if (!n_handles && !n_fds)
			used = vec.iov_len;
		there = pool_scan(&peer, 64, 0, used);
		EXPECT_EQ((used ?: 1) / PAGE + !!((used ?: 1) % PAGE), there) {
			TH_LOG("%zu bytes, %zu handles, %zu files",
			       vec.iov_len, n_handles, n_fds);
		}
		while (n_fds > 0)
			EXPECT_EQ(0, close(recv_fd(&peer, &r, --n_fds)));
		peer_close(&peer);
		checked++;
	}
	TH_LOG("%zu pools looked through", checked);
}

/* What is sent to a pool that was full of something else shows none of it. */
TEST_F(leak, old_bytes_do_not_show_through_padding)
{
	static __u8 payload[65536], small[512];
	struct bus1_cmd_recv r;
	__u64 handles[2] = { 0x20, 0x28 };
	struct iovec vec = { payload, sizeof(payload) };
	const __u64 *ab = &self->net.ab;
	int i, n;

	memset(payload, SECRET, sizeof(payload));
	memset(small, 0x11, sizeof(small));
	for (i = 0; i < 200; i++) {
		vec = (struct iovec){ payload, 64 * (i % 64 + 1) };
		ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = ab, .n_dst = 1,
				      .vecs = &vec, .n_vecs = 1));
		r = RECV(&self->net.b);
		ASSERT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));

		vec = (struct iovec){ small, i };
		n = i % 3;
		ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = ab, .n_dst = 1,
				      .vecs = &vec, .n_vecs = 1,
				      .handles = handles, .n_handles = n));
		r = RECV(&self->net.b);
		EXPECT_TRUE(all_are(slice_bytes(&self->net.b, &r), 0x11, i));
		EXPECT_TRUE(slice_padded(&self->net.b, &r));
		EXPECT_TRUE(all_are(slice_bytes(&self->net.b, &r) + i, 0,
				    align8(i) - i));
		ASSERT_EQ(0, bus1_slice_release(self->net.b.fd, r.msg.offset));
	}
}

/*
 * Of a message that nobody has received, nobody sees a byte later: each way for
 * it to fail, after its payload was copied in part or in whole.
 */
TEST_F(leak, messages_that_nobody_got_leave_zeros)
{
	static __u8 payload[8 * PAGE_MAX];
	const __u64 both[] = { self->net.ab, self->net.ac };
	__u8 *edge = bad_edge(5 * PAGE);
	struct iovec vecs[] = { { payload, 8 * PAGE }, { edge, 6 * PAGE } };
	struct bus1_cmd_recv r;
	int i;

	ASSERT_NE(NULL, edge);
	memset(payload, SECRET, sizeof(payload));
	memset(edge, SECRET, 5 * PAGE);
	for (i = 0; i < 20; i++) {
		/* It ends half way, for one and for both. */
		EXPECT_EQ(-EFAULT, msg_send(self->net.a.fd, .dst = both,
					    .n_dst = 1 + i % 2,
					    .vecs = vecs, .n_vecs = 2));
		/* One of them has no room. */
		ASSERT_EQ(0, set_limits(self->net.c.fd, 0, KEEP, KEEP, KEEP));
		EXPECT_EQ(-EDQUOT, msg_send(self->net.a.fd, .dst = both,
					    .n_dst = 2, .vecs = vecs,
					    .n_vecs = 1));
		ASSERT_EQ(0, set_limits(self->net.c.fd, 16384, KEEP, KEEP,
					KEEP));
		/* Queued, and flushed away with the seed. */
		ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = &self->net.ac,
				      .n_dst = 1, .vecs = vecs, .n_vecs = 1));
		ASSERT_EQ(0, msg_send(self->net.c.fd,
				      .flags = BUS1_SEND_FLAG_SEED,
				      .vecs = vecs, .n_vecs = 1));
		ASSERT_EQ(0, bus1_flush(self->net.c.fd,
					BUS1_PEER_RESET_FLAG_FLUSH |
					BUS1_PEER_RESET_FLAG_FLUSH_SEED));
		RECV_DESTROY(&self->net.a, self->net.ac);
		bus1_drain_refs(self->net.a.fd, self->net.ac);
		self->net.ac = TRANSFER(&self->net.c, NODE_C, &self->net.a);
		((__u64 *)both)[1] = self->net.ac;
		/* Dropped with its node. */
		ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = &self->net.ac,
				      .n_dst = 1, .vecs = vecs, .n_vecs = 1));
		ASSERT_EQ(0, bus1_nodes_destroy(self->net.c.fd,
				BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES,
				&(__u64){ NODE_C }, 1));
		EXPECT_EQ(-EAGAIN, bus1_recv(self->net.c.fd, 0, &r));
		RECV_DESTROY(&self->net.a, self->net.ac);
		bus1_drain_refs(self->net.a.fd, self->net.ac);
		self->net.ac = TRANSFER(&self->net.c, NODE_C, &self->net.a);
		((__u64 *)both)[1] = self->net.ac;

		EXPECT_LE(0, pool_scan(&self->net.b, 64, 0, 0));
		EXPECT_LE(0, pool_scan(&self->net.c, 64, 0, 0));
	}
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-slices"));
	EXPECT_EQ(0, bus1_fdinfo(self->net.c.fd, "bus1-slices"));
}

/* Pages that left a pool come back empty, there or in the pool of another user. */
TEST_F(leak, pages_change_pools_without_their_bytes)
{
	static __u8 payload[1 << 20];
	const __u64 self_id = 0x10;
	struct bus1_cmd_recv r;
	struct peer first, second;
	int i;

	memset(payload, SECRET, sizeof(payload));
	for (i = 0; i < 8; i++) {
		PEER_OPEN_AS(&first, UID_A);
		ASSERT_EQ(0, bus1_send_data(first.fd, self_id, payload,
					    sizeof(payload)));
		r = RECV(&first);
		ASSERT_EQ(sizeof(payload), r.msg.n_bytes);
		EXPECT_LT(0, pool_count(&first, 16, SECRET));
		/* Gives its memory back, with mappings left that were used. */
		ASSERT_EQ(0, bus1_disconnect(first.fd));
		EXPECT_EQ(0, pool_count(&first, 256, SECRET));
		EXPECT_EQ(-1, read_byte(first.pool));

		PEER_OPEN_AS(&second, UID_B);
		memset(payload, 0x11, 9);
		ASSERT_EQ(0, bus1_send_data(second.fd, self_id, payload, 9));
		memset(payload, SECRET, 9);
		r = RECV(&second);
		ASSERT_EQ(9, r.msg.n_bytes);
		EXPECT_EQ(1, pool_scan(&second, 256, 0, 9));
		peer_close(&first);
		peer_close(&second);
	}
}

/* The mappings of one pool never show another, whatever their offset. */
TEST_F(leak, mappings_reach_no_other_pool)
{
	static const __u64 at[] = { 0, 1, 255, 4096, 1 << 18, (1 << 20) - 1 };
	struct bus1_cmd_recv r;
	__u8 byte = SECRET;
	const __u8 *p;
	size_t i;

	ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, &byte, 1));
	r = RECV(&self->net.b);
	EXPECT_EQ(SECRET, read_byte(slice_bytes(&self->net.b, &r)));
	for (i = 0; i < ARRAY_SIZE(at); i++) {
		p = (void *)syscall(
#ifdef SYS_mmap2
				    SYS_mmap2,
#else
				    SYS_mmap,
#endif
				    NULL, PAGE, PROT_READ, MAP_SHARED,
				    self->net.c.fd,
#ifdef SYS_mmap2
				    at[i] * (PAGE / 4096)
#else
				    at[i] * PAGE
#endif
				    );
		ASSERT_NE(MAP_FAILED, (void *)p);
		EXPECT_EQ(-1, read_byte(p));
		munmap((void *)p, PAGE);
	}
}

/* fdinfo has numbers of the peer, and no address of anything. */
TEST_F(leak, fdinfo_tells_small_numbers_only)
{
	unsigned long long n;
	char text[8192], *p, *end;
	int numbers = 0;

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "held"));
	fdinfo_text(self->net.b.fd, text, sizeof(text));
	p = strstr(text, "bus1-peer");
	ASSERT_NE(NULL, p);
	for (; *p; p++) {
		EXPECT_TRUE(*p == '\n' || *p == '\t' ||
			    (*p >= ' ' && *p <= '~'));
		if (*p < '0' || *p > '9' || (p[-1] >= 'a' && p[-1] <= 'z'))
			continue;
		n = strtoull(p, &end, 10);
		/* bytes of a user at most */
		EXPECT_GE(1ULL << 32, n);
		numbers++;
		p = end - 1;
	}
	EXPECT_LT(20, numbers);
}

TEST_HARNESS_MAIN
