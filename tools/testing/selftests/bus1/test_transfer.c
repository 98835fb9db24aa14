// SPDX-License-Identifier: GPL-2.0-only
/*
 * HANDLE_TRANSFER: to every kind of peer, of every kind of node, and each errno.
 */

#include "bus1_test.h"

FIXTURE(transfer) {
	struct peer a, b, c;
};

/* What is transferred: a new ID, an own node, or a remote one. */
FIXTURE_VARIANT(transfer) {
	bool exists;
	bool remote;
};

FIXTURE_VARIANT_ADD(transfer, new_id) {
};

FIXTURE_VARIANT_ADD(transfer, own_node) {
	.exists = true,
};

FIXTURE_VARIANT_ADD(transfer, remote_node) {
	.exists = true,
	.remote = true,
};

FIXTURE_SETUP(transfer)
{
	PEER_OPEN(&self->a);
	PEER_OPEN(&self->b);
	PEER_OPEN(&self->c);
}

FIXTURE_TEARDOWN(transfer)
{
	peer_close(&self->a);
	peer_close(&self->b);
	peer_close(&self->c);
}

/* What a transfers: c's node 8 in the remote variant, else its own. */
static __u64 source(struct __test_metadata *_metadata,
		    FIXTURE_DATA(transfer) *self,
		    const FIXTURE_VARIANT(transfer) *variant)
{
	if (variant->remote)
		return TRANSFER(&self->c, 8, &self->a);
	return variant->exists ? NODE(&self->a, 8) : 8;
}

#define SOURCE() source(_metadata, self, variant)

/* After a failure: no references but the one of SOURCE(), nothing received. */
static void unchanged(struct __test_metadata *_metadata,
		      FIXTURE_DATA(transfer) *self,
		      const FIXTURE_VARIANT(transfer) *variant, __u64 src,
		      __u64 dst, int line)
{
	EXPECT_EQ(BUS1_HANDLE_INVALID, dst) {
		TH_LOG("called from line %d", line);
	}
	RECV_NONE(&self->a);
	RECV_NONE(&self->c);
	EXPECT_EQ(variant->remote ? 1 : 0, bus1_drain_refs(self->a.fd, src)) {
		TH_LOG("called from line %d", line);
	}
	if (variant->remote)
		RECV_RELEASE(&self->c, 8);
	else
		RECV_NONE(&self->a);
	if (!variant->exists)
		EXPECT_IDLE(&self->a);
}

#define UNCHANGED(_src, _dst)						\
	unchanged(_metadata, self, variant, _src, _dst, __LINE__)

TEST_F(transfer, to_another_peer)
{
	__u64 src = SOURCE(), dst;

	ASSERT_EQ(0, bus1_handle_transfer(self->a.fd, src, self->b.fd, &dst));
	EXPECT_EQ(KERNEL_CHOSEN, dst & 7);
	ASSERT_EQ(0, bus1_send_str(self->b.fd, dst, "x"));
	RECV_STR(variant->remote ? &self->c : &self->a, 8, "x");
	EXPECT_EQ(variant->remote ? 1 : 0, bus1_drain_refs(self->a.fd, src));
	EXPECT_EQ(1, bus1_drain_refs(self->b.fd, dst));
}

TEST_F(transfer, to_itself_by_minus_one)
{
	__u64 src = SOURCE(), dst;

	ASSERT_EQ(0, bus1_handle_transfer(self->a.fd, src, -1, &dst));
	EXPECT_EQ(src, dst);
	ASSERT_EQ(0, bus1_handle_transfer(self->a.fd, src, -1, &dst));
	EXPECT_EQ(src, dst);
	EXPECT_EQ(variant->remote ? 3 : 2, bus1_drain_refs(self->a.fd, src));
}

TEST_F(transfer, to_itself_by_descriptor)
{
	__u64 src = SOURCE(), dst;

	ASSERT_EQ(0, bus1_handle_transfer(self->a.fd, src, self->a.fd, &dst));
	EXPECT_EQ(src, dst);
	EXPECT_EQ(variant->remote ? 2 : 1, bus1_drain_refs(self->a.fd, src));
}

TEST_F(transfer, to_itself_by_another_descriptor)
{
	__u64 src = SOURCE(), dst;
	int fd = dup(self->a.fd);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, bus1_handle_transfer(self->a.fd, src, fd, &dst));
	EXPECT_EQ(src, dst);
	EXPECT_EQ(variant->remote ? 2 : 1, bus1_drain_refs(self->a.fd, src));
	close(fd);
}

TEST_F(transfer, to_the_owner_gives_its_own_id)
{
	__u64 src = SOURCE(), via, dst;
	struct peer *owner = variant->remote ? &self->c : &self->a;

	/* From b, that holds it. */
	via = TRANSFER(&self->a, src, &self->b);
	ASSERT_EQ(0, bus1_handle_transfer(self->b.fd, via, owner->fd, &dst));
	EXPECT_EQ(8, dst);
	EXPECT_EQ(1, bus1_drain_refs(owner->fd, 8));
	EXPECT_EQ(1, bus1_drain_refs(self->b.fd, via));
}

TEST_F(transfer, twice_finds_the_same_handle)
{
	__u64 src = SOURCE(), h = TRANSFER(&self->a, src, &self->b);

	EXPECT_EQ(h, TRANSFER(&self->a, src, &self->b));
	EXPECT_EQ(2, bus1_drain_refs(self->b.fd, h));
	EXPECT_EQ(-ENXIO, bus1_handle_release(self->b.fd, h));
}

TEST_F(transfer, with_any_flag_is_einval)
{
	struct bus1_cmd_handle_transfer cmd;
	__u64 src = SOURCE();
	int i;

	for (i = 0; i < 64; i++) {
		cmd = (struct bus1_cmd_handle_transfer){
			1ULL << i, src, self->b.fd, BUS1_HANDLE_INVALID,
		};
		EXPECT_EQ(-EINVAL, bus1_ioctl(self->a.fd,
					BUS1_CMD_HANDLE_TRANSFER, &cmd));
		EXPECT_EQ(BUS1_HANDLE_INVALID, cmd.dst_handle);
	}
	EXPECT_IDLE(&self->b);
	UNCHANGED(src, cmd.dst_handle);
}

TEST_F(transfer, with_dst_handle_set_is_einval)
{
	const __u64 bad[] = { 0, 1, 8, BUS1_HANDLE_INVALID - 1, 1ULL << 63 };
	struct bus1_cmd_handle_transfer cmd;
	__u64 src = SOURCE();
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		cmd = (struct bus1_cmd_handle_transfer){
			0, src, self->b.fd, bad[i],
		};
		EXPECT_EQ(-EINVAL, bus1_ioctl(self->a.fd,
					BUS1_CMD_HANDLE_TRANSFER, &cmd));
		EXPECT_EQ(bad[i], cmd.dst_handle);
	}
	EXPECT_IDLE(&self->b);
	UNCHANGED(src, BUS1_HANDLE_INVALID);
}

TEST_F(transfer, to_a_closed_descriptor_is_ebadf)
{
	__u64 src = SOURCE(), dst;
	int fd = dup(self->b.fd);

	ASSERT_LE(0, fd);
	close(fd);
	EXPECT_EQ(-EBADF, bus1_handle_transfer(self->a.fd, src, fd, &dst));
	EXPECT_IDLE(&self->b);
	UNCHANGED(src, dst);
}

TEST_F(transfer, to_what_is_no_int_is_ebadf)
{
	const __u64 bad[] = {
		-2ULL, 0x80000000, 0xffffffff, 0x7fffffff, 1ULL << 63,
		1ULL << 32 | self->b.fd, 1ULL << 63 | self->b.fd,
	};
	__u64 src = SOURCE(), dst;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		EXPECT_EQ(-EBADF, bus1_handle_transfer(self->a.fd, src, bad[i],
						       &dst)) {
			TH_LOG("dst_fd %#llx", bad[i]);
		}
	}
	EXPECT_IDLE(&self->b);
	UNCHANGED(src, dst);
}

TEST_F(transfer, to_another_kind_of_file_is_eopnotsupp)
{
	__u64 src = SOURCE(), dst;
	int fds[4], pipes[2];
	size_t i;

	ASSERT_EQ(0, pipe(pipes));
	fds[0] = event_new();
	fds[1] = open("/dev/null", O_RDWR);
	fds[2] = open("/", O_RDONLY | O_DIRECTORY);
	fds[3] = pipes[0];
	for (i = 0; i < 4; i++) {
		ASSERT_LE(0, fds[i]);
		EXPECT_EQ(-EOPNOTSUPP, bus1_handle_transfer(self->a.fd, src,
							    fds[i], &dst));
	}
	UNCHANGED(src, dst);
}

TEST_F(transfer, to_a_disconnected_peer_is_eshutdown)
{
	__u64 src = SOURCE(), dst;

	ASSERT_EQ(0, bus1_disconnect(self->b.fd));
	EXPECT_EQ(-ESHUTDOWN, bus1_handle_transfer(self->a.fd, src,
						   self->b.fd, &dst));
	UNCHANGED(src, dst);
}

TEST_F(transfer, to_a_peer_without_budget_is_edquot)
{
	__u64 src = SOURCE(), dst;

	ASSERT_EQ(0, bus1_reset(self->b.fd, RESET_KEEP(.max_handles = 0)));
	EXPECT_EQ(-EDQUOT, bus1_handle_transfer(self->a.fd, src, self->b.fd,
						&dst));
	EXPECT_IDLE(&self->b);
	UNCHANGED(src, dst);
}

TEST_F(transfer, after_edquot_works_with_budget)
{
	__u64 src = SOURCE(), dst;

	ASSERT_EQ(0, bus1_reset(self->b.fd, RESET_KEEP(.max_handles = 0)));
	ASSERT_EQ(-EDQUOT, bus1_handle_transfer(self->a.fd, src, self->b.fd,
						&dst));
	ASSERT_EQ(0, bus1_reset(self->b.fd, RESET_KEEP(.max_handles = 8)));
	ASSERT_EQ(0, bus1_handle_transfer(self->a.fd, src, self->b.fd, &dst));
	EXPECT_EQ(1, bus1_drain_refs(self->b.fd, dst));
}

TEST_F(transfer, from_bad_memory_is_efault)
{
	__u64 src = SOURCE();

	EXPECT_EQ(-EFAULT, bus1_ioctl(self->a.fd, BUS1_CMD_HANDLE_TRANSFER,
				      (void *)(uintptr_t)BAD_PTR));
	UNCHANGED(src, BUS1_HANDLE_INVALID);
}

TEST_F(transfer, whose_result_cannot_be_written_moves_nothing)
{
	struct bus1_cmd_handle_transfer *cmd = shared_alloc(page_size());
	const __u64 to[] = { self->b.fd, self->a.fd, -1ULL };
	__u64 src = SOURCE();
	size_t i;

	ASSERT_NE(NULL, cmd);
	for (i = 0; i < ARRAY_SIZE(to); i++) {
		ASSERT_EQ(0, mprotect(cmd, page_size(),
				      PROT_READ | PROT_WRITE));
		*cmd = (struct bus1_cmd_handle_transfer){
			0, src, to[i], BUS1_HANDLE_INVALID,
		};
		ASSERT_EQ(0, mprotect(cmd, page_size(), PROT_READ));
		EXPECT_EQ(-EFAULT, bus1_ioctl(self->a.fd,
					BUS1_CMD_HANDLE_TRANSFER, cmd));
	}
	EXPECT_IDLE(&self->b);
	UNCHANGED(src, cmd->dst_handle);
}

/* Destroys what a transfers. */
static void kill_source(struct __test_metadata *_metadata,
			FIXTURE_DATA(transfer) *self,
			const FIXTURE_VARIANT(transfer) *variant, __u64 src)
{
	ASSERT_EQ(0, bus1_node_destroy(variant->remote ? self->c.fd :
				       self->a.fd, 8));
	RECV_DESTROY(&self->a, src);
}

TEST_F(transfer, of_a_destroyed_node_gives_invalid)
{
	__u64 src = SOURCE(), dst;

	kill_source(_metadata, self, variant, src);
	EXPECT_EQ(0, bus1_handle_transfer(self->a.fd, src, self->b.fd, &dst));
	EXPECT_EQ(BUS1_HANDLE_INVALID, dst);
	EXPECT_EQ(0, bus1_handle_transfer(self->a.fd, src, -1, &dst));
	EXPECT_EQ(BUS1_HANDLE_INVALID, dst);
	EXPECT_EQ(0, bus1_handle_transfer(self->a.fd, src, self->a.fd, &dst));
	EXPECT_EQ(BUS1_HANDLE_INVALID, dst);
	RECV_NONE(&self->b);
	EXPECT_IDLE(&self->b);
	/* The one it had, and no more. */
	EXPECT_EQ(0, bus1_handle_release(self->a.fd, src));
	EXPECT_EQ(variant->remote ? -ENXIO : -EBUSY,
		  bus1_handle_release(self->a.fd, src));
}

TEST_F(transfer, of_a_destroyed_node_to_a_holder_gives_invalid)
{
	__u64 src = SOURCE(), dst, h = TRANSFER(&self->a, src, &self->b);

	kill_source(_metadata, self, variant, src);
	EXPECT_EQ(0, bus1_handle_transfer(self->a.fd, src, self->b.fd, &dst));
	EXPECT_EQ(BUS1_HANDLE_INVALID, dst);
	RECV_DESTROY(&self->b, h);
	RECV_NONE(&self->b);
	EXPECT_EQ(1, bus1_drain_refs(self->b.fd, h));
}

TEST_F(transfer, after_its_owner_left_gives_invalid)
{
	__u64 src = TRANSFER(&self->c, 8, &self->a), dst;

	ASSERT_EQ(0, bus1_disconnect(self->c.fd));
	EXPECT_EQ(0, bus1_handle_transfer(self->a.fd, src, self->b.fd, &dst));
	EXPECT_EQ(BUS1_HANDLE_INVALID, dst);
	RECV_DESTROY(&self->a, src);
	EXPECT_EQ(1, bus1_drain_refs(self->a.fd, src));
	EXPECT_IDLE(&self->b);
}

TEST_F(transfer, is_charged_to_the_receiving_peer_until_released)
{
	__u64 src = SOURCE(), dst, n, mine;
	int i;

	n = bus1_fdinfo(self->b.fd, "bus1-handles");
	mine = bus1_fdinfo(self->a.fd, "bus1-handles");
	for (i = 0; i < 10; i++) {
		dst = TRANSFER(&self->a, src, &self->b);
		EXPECT_LT(n, bus1_fdinfo(self->b.fd, "bus1-handles"));
		EXPECT_EQ(0, bus1_handle_release(self->b.fd, dst));
		EXPECT_EQ(n, bus1_fdinfo(self->b.fd, "bus1-handles"));
	}
	/* A new node costs its owner one. */
	EXPECT_EQ(mine + !variant->exists,
		  bus1_fdinfo(self->a.fd, "bus1-handles"));
}

TEST_HARNESS_MAIN
