// SPDX-License-Identifier: GPL-2.0-only
/*
 * SEND_RECV: slices given back, a message sent, and messages received, in one call
 * that can be made again after every failure.
 */
#include "bus1_msg.h"

#define NODE_A		0x300ULL
#define ROOM		8
#define MAX_ARRAY	1024
#define FLAG_SEND	BUS1_SEND_RECV_FLAG_SEND

FIXTURE(send_recv) {
	struct net net;
	struct net_state before;
	/* b's handle of the node of a */
	__u64 ba;
	struct bus1_msg msgs[ROOM];
};

FIXTURE_SETUP(send_recv)
{
	NET_INIT(&self->net);
	NODE(&self->net.a, NODE_A);
	self->ba = TRANSFER(&self->net.a, NODE_A, &self->net.b);
	memset(self->msgs, 0xa5, sizeof(self->msgs));
	self->before = net_state(&self->net);
}

FIXTURE_TEARDOWN(send_recv)
{
	net_deinit(&self->net);
}

static bool msg_untouched(const struct bus1_msg *msg)
{
	struct bus1_msg sentinel;

	memset(&sentinel, 0xa5, sizeof(sentinel));
	return !memcmp(msg, &sentinel, sizeof(sentinel));
}

/* Sends a number, and returns the slice that it was received in. */
static __u64 t_slice(struct __test_metadata *_metadata, struct net *net, __u64 n)
{
	ASSERT_EQ(0, bus1_send_data(net->a.fd, net->ab, &n, sizeof(n)));
	return RECV(&net->b).msg.offset;
}

#define SLICE(_net, _n) t_slice(_metadata, _net, _n)

static void t_queue(struct __test_metadata *_metadata, struct net *net, __u64 n)
{
	__u64 i;

	for (i = 0; i < n; i++) {
		ASSERT_EQ(0, bus1_send_data(net->a.fd, net->ab, &i, sizeof(i)));
	}
	peer_wait(net->b.fd);
}

#define QUEUE(_net, _n) t_queue(_metadata, _net, _n)

/*
 * What it does
 */

TEST_F(send_recv, nothing_to_do_is_success)
{
	struct bus1_cmd_send_recv cmd = SEND_RECV();

	EXPECT_EQ(0, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(0, cmd.n_received);
	EXPECT_SAME(&self->net, &self->before);
}

/* How programs find out whether there is such a command. */
TEST_F(send_recv, zeros_are_success)
{
	struct bus1_cmd_send_recv cmd = {};

	EXPECT_EQ(0, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(send_recv, sends)
{
	struct iovec vec = { "hello", 5 };
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.flags = FLAG_SEND, .send = one_message(&self->net.ab, &vec));

	EXPECT_EQ(0, bus1_send_recv(self->net.a.fd, &cmd));
	EXPECT_EQ(0, cmd.flags);
	EXPECT_EQ(0, cmd.n_received);
	RECV_STR(&self->net.b, NODE_B, "hello");
	RECV_NONE(&self->net.b);
	/* Once more, nothing is left to do. */
	EXPECT_EQ(0, bus1_send_recv(self->net.a.fd, &cmd));
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(send_recv, does_not_look_at_what_is_not_to_be_sent)
{
	struct bus1_cmd_send_recv cmd = SEND_RECV();

	memset(&cmd.send, 0xff, sizeof(cmd.send));
	EXPECT_EQ(0, bus1_send_recv(self->net.a.fd, &cmd));
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(send_recv, gives_slices_back)
{
	__u64 slices[ROOM] = {};
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.ptr_slices = ptr(slices), .n_slices = ROOM);
	int i;

	for (i = 0; i < ROOM; i++)
		slices[i] = SLICE(&self->net, i);
	EXPECT_EQ(0, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(0, cmd.n_slices);
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(send_recv, gives_many_slices_back)
{
	static __u64 slices[MAX_ARRAY];
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.ptr_slices = ptr(slices), .n_slices = MAX_ARRAY);
	int i;

	for (i = 0; i < MAX_ARRAY; i++)
		slices[i] = SLICE(&self->net, i);
	EXPECT_EQ(0, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(0, cmd.n_slices);
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(send_recv, receives_all_that_is_ready)
{
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.ptr_messages = ptr(self->msgs), .n_messages = ROOM);
	int i;

	QUEUE(&self->net, ROOM - 2);
	ASSERT_EQ(0, bus1_send_recv(self->net.b.fd, &cmd));
	ASSERT_EQ(ROOM - 2, cmd.n_received);
	for (i = 0; i < ROOM - 2; i++) {
		EXPECT_EQ(BUS1_MSG_DATA, self->msgs[i].type);
		EXPECT_EQ(NODE_B, self->msgs[i].destination);
		EXPECT_EQ(sizeof(__u64), self->msgs[i].n_bytes);
		EXPECT_EQ(i, msg_number(&self->net.b, &self->msgs[i]));
		EXPECT_EQ(0, bus1_slice_release(self->net.b.fd,
						self->msgs[i].offset));
	}
	EXPECT_TRUE(msg_untouched(&self->msgs[i]));
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(send_recv, receives_no_more_than_there_is_room_for)
{
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.ptr_messages = ptr(self->msgs), .n_messages = 3);

	QUEUE(&self->net, 5);
	ASSERT_EQ(0, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(3, cmd.n_received);
	EXPECT_TRUE(msg_untouched(&self->msgs[3]));
	ASSERT_EQ(0, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(2, cmd.n_received);
	EXPECT_EQ(4, msg_number(&self->net.b, &self->msgs[1]));
	RECV_NONE(&self->net.b);
}

TEST_F(send_recv, no_room_receives_nothing_and_does_not_wait)
{
	struct bus1_cmd_send_recv cmd = SEND_RECV();

	set_blocking(self->net.b.fd);
	EXPECT_EQ(0, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(0, cmd.n_received);
	QUEUE(&self->net, 1);
	EXPECT_EQ(0, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(0, cmd.n_received);
	EXPECT_EQ(POLLIN | POLLOUT, peer_poll(self->net.b.fd));
}

TEST_F(send_recv, slices_are_free_before_it_waits)
{
	__u64 slice = SLICE(&self->net, 1);
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.ptr_slices = ptr(&slice), .n_slices = 1,
		.ptr_messages = ptr(self->msgs), .n_messages = 1);

	EXPECT_EQ(-EAGAIN, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(0, cmd.n_slices);
	EXPECT_EQ(0, cmd.n_received);
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(send_recv, nonblock_does_not_wait)
{
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.ptr_messages = ptr(self->msgs), .n_messages = 1);

	EXPECT_EQ(-EAGAIN, bus1_send_recv(self->net.b.fd, &cmd));
	cmd.timeout = 0;
	EXPECT_EQ(-EAGAIN, bus1_send_recv(self->net.b.fd, &cmd));
}

TEST_F(send_recv, to_oneself)
{
	const __u64 to = 0x1000;
	struct iovec vec = { "myself", 6 };
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.flags = FLAG_SEND, .send = one_message(&to, &vec),
		.ptr_messages = ptr(self->msgs), .n_messages = ROOM);

	set_blocking(self->net.c.fd);
	ASSERT_EQ(0, bus1_send_recv(self->net.c.fd, &cmd));
	ASSERT_EQ(1, cmd.n_received);
	EXPECT_EQ(to, self->msgs[0].destination);
	EXPECT_EQ(6, self->msgs[0].n_bytes);
	EXPECT_EQ(0, memcmp(self->net.c.pool + self->msgs[0].offset, "myself",
			    6));
}

TEST_F(send_recv, payload_may_lie_in_a_slice_that_is_given_back)
{
	__u64 slice = SLICE(&self->net, 0x1234567890abcdefULL), n;
	struct iovec vec = { (void *)self->net.b.pool + slice, sizeof(n) };
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.flags = FLAG_SEND, .send = one_message(&self->ba, &vec),
		.ptr_slices = ptr(&slice), .n_slices = 1);

	EXPECT_EQ(0, bus1_send_recv(self->net.b.fd, &cmd));
	n = 0x1234567890abcdefULL;
	RECV_DATA(&self->net.a, NODE_A, &n, sizeof(n));
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(send_recv, sets_a_seed)
{
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.flags = FLAG_SEND, .send.flags = BUS1_SEND_FLAG_SEED);
	struct bus1_cmd_recv r;

	EXPECT_EQ(0, bus1_send_recv(self->net.a.fd, &cmd));
	EXPECT_EQ(0, cmd.flags);
	ASSERT_EQ(0, bus1_recv(self->net.a.fd, BUS1_RECV_FLAG_SEED, &r));
	EXPECT_EQ(BUS1_HANDLE_INVALID, r.msg.destination);
}

TEST_F(send_recv, sends_to_those_who_can_get_it)
{
	const __u64 to[] = { self->net.ab, self->net.ac };
	__s32 errors[] = { SENTINEL32, SENTINEL32 };
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.flags = FLAG_SEND,
		.send.flags = BUS1_SEND_FLAG_CONTINUE,
		.send.ptr_destinations = ptr(to), .send.n_destinations = 2,
		.send.ptr_errors = ptr(errors));

	ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd, NODE_B));
	EXPECT_EQ(0, bus1_send_recv(self->net.a.fd, &cmd));
	EXPECT_EQ(0, cmd.flags);
	EXPECT_EQ(-EHOSTUNREACH, errors[0]);
	EXPECT_EQ(0, errors[1]);
	EXPECT_EQ(NODE_C, RECV(&self->net.c).msg.destination);
}

TEST_F(send_recv, a_transaction_and_notifications_in_one_array)
{
	const __u64 to[] = { 0x1000, 0x1008 };
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.ptr_messages = ptr(self->msgs), .n_messages = ROOM,
		/* notifications are never above it */
		.max_offset = 4096);

	ASSERT_EQ(0, bus1_send_to(self->net.a.fd, to, 2, "x", 1, NULL, 0));
	ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd, NODE_B));
	ASSERT_EQ(0, bus1_handle_release(self->net.b.fd, self->ba));
	peer_wait(self->net.a.fd);
	ASSERT_EQ(0, bus1_send_recv(self->net.a.fd, &cmd));
	ASSERT_EQ(4, cmd.n_received);
	EXPECT_EQ(BUS1_MSG_DATA, self->msgs[0].type);
	EXPECT_EQ(BUS1_MSG_FLAG_CONTINUE, self->msgs[0].flags);
	EXPECT_EQ(BUS1_MSG_DATA, self->msgs[1].type);
	EXPECT_EQ(0, self->msgs[1].flags);
	EXPECT_EQ(BUS1_MSG_NODE_DESTROY, self->msgs[2].type);
	EXPECT_EQ(self->net.ab, self->msgs[2].destination);
	EXPECT_EQ(BUS1_OFFSET_INVALID, self->msgs[2].offset);
	EXPECT_EQ(BUS1_MSG_NODE_RELEASE, self->msgs[3].type);
	EXPECT_EQ(NODE_A, self->msgs[3].destination);
}

/* A message with a file and a handle. */
static int send_file(const struct net *net, int fd)
{
	const __u64 id = 0x1000;

	return msg_send(net->a.fd, .dst = &net->ab, .n_dst = 1, .handles = &id,
			.n_handles = 1, .fds = &fd, .n_fds = 1);
}

TEST_F(send_recv, installs_files)
{
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.flags = BUS1_SEND_RECV_FLAG_INSTALL_FDS,
		.ptr_messages = ptr(self->msgs), .n_messages = ROOM);
	struct bus1_cmd_recv r;
	int i, fd;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, send_file(&self->net, STDERR_FILENO));
	}
	peer_wait(self->net.b.fd);
	ASSERT_EQ(0, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(BUS1_SEND_RECV_FLAG_INSTALL_FDS, cmd.flags);
	ASSERT_EQ(3, cmd.n_received);
	for (i = 0; i < 3; i++) {
		r = msg_as_recv(&self->msgs[i]);
		ASSERT_EQ(1, r.msg.n_fds);
		fd = recv_fd(&self->net.b, &r, 0);
		EXPECT_TRUE(same_file(STDERR_FILENO, fd));
		EXPECT_EQ(FD_CLOEXEC, fcntl(fd, F_GETFD));
		EXPECT_EQ(0, close(fd));
	}
	EXPECT_EQ(3, bus1_drain_refs(self->net.b.fd,
				     recv_handle(&self->net.b, &r, 0)));
}

TEST_F(send_recv, drops_files_that_nobody_asked_for)
{
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.ptr_messages = ptr(self->msgs), .n_messages = ROOM);
	int fds[2];

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(0, send_file(&self->net, fds[1]));
	close(fds[1]);
	peer_wait(self->net.b.fd);
	ASSERT_EQ(0, bus1_send_recv(self->net.b.fd, &cmd));
	ASSERT_EQ(1, cmd.n_received);
	EXPECT_EQ(0, self->msgs[0].n_fds);
	EXPECT_TRUE(pipe_wait_eof(fds[0]));
}

/*
 * Arguments that are wrong: nothing happens
 */

/* A call that would do everything, if nothing were wrong. */
struct all {
	__u64 slices[3];
	__u64 to;
	struct iovec vec;
	struct bus1_cmd_send_recv cmd;
};

/* From b, which has received three messages and has two more, to a. */
static void t_all(struct __test_metadata *_metadata, FIXTURE_DATA(send_recv) *self,
		  struct all *all)
{
	int i;

	for (i = 0; i < 3; i++)
		all->slices[i] = SLICE(&self->net, i);
	QUEUE(&self->net, 2);
	all->to = self->ba;
	all->vec = (struct iovec){ "all", 3 };
	all->cmd = SEND_RECV(
		.flags = FLAG_SEND, .send = one_message(&all->to, &all->vec),
		.ptr_slices = ptr(all->slices), .n_slices = 3,
		.ptr_messages = ptr(self->msgs), .n_messages = ROOM);
	self->before = net_state(&self->net);
}

/* It fails, and there is as much to do as before. */
static void t_all_fails(struct __test_metadata *_metadata,
			FIXTURE_DATA(send_recv) *self, struct all *all,
			int error, int line)
{
	struct bus1_cmd_send_recv before = all->cmd;

	EXPECT_EQ(error, bus1_send_recv(self->net.b.fd, &all->cmd)) {
		TH_LOG("called from line %d", line);
	}
	EXPECT_EQ(before.flags, all->cmd.flags);
	EXPECT_EQ(before.n_slices, all->cmd.n_slices);
	EXPECT_TRUE(msg_untouched(&self->msgs[0]));
	EXPECT_SAME(&self->net, &self->before);
}

static void t_all_works(struct __test_metadata *_metadata,
			FIXTURE_DATA(send_recv) *self, struct all *all)
{
	ASSERT_EQ(0, bus1_send_recv(self->net.b.fd, &all->cmd));
	EXPECT_EQ(0, all->cmd.flags & FLAG_SEND);
	EXPECT_EQ(0, all->cmd.n_slices);
	ASSERT_EQ(2, all->cmd.n_received);
	EXPECT_EQ(2, bus1_fdinfo(self->net.b.fd, "bus1-slices"));
	RECV_STR(&self->net.a, NODE_A, "all");
	RECV_NONE(&self->net.a);
}

#define ALL(_all) t_all(_metadata, self, _all)
#define ALL_FAILS(_all, _error)						\
	t_all_fails(_metadata, self, _all, _error, __LINE__)
#define ALL_WORKS(_all) t_all_works(_metadata, self, _all)

TEST_F(send_recv, unknown_flags_are_einval)
{
	struct all all;
	int bit;

	ALL(&all);
	for (bit = 2; bit < 64; bit++) {
		all.cmd.flags = FLAG_SEND | 1ULL << bit;
		ALL_FAILS(&all, -EINVAL);
	}
	all.cmd.flags = FLAG_SEND;
	ALL_WORKS(&all);
}

TEST_F(send_recv, bad_arguments_of_the_send_are_found_first)
{
	struct all all;

	ALL(&all);
	all.cmd.send.flags = 1ULL << 2;
	ALL_FAILS(&all, -EINVAL);
	all.cmd.send.flags = BUS1_SEND_FLAG_SEED;
	ALL_FAILS(&all, -EINVAL);
	all.cmd.send.flags = 0;
	all.cmd.send.n_vecs = UIO_MAXIOV + 1;
	ALL_FAILS(&all, -EMSGSIZE);
	all.cmd.send.n_vecs = 1;
	ALL_WORKS(&all);
}

TEST_F(send_recv, too_many_slices_are_emsgsize)
{
	struct all all;

	ALL(&all);
	all.cmd.n_slices = MAX_ARRAY + 1;
	ALL_FAILS(&all, -EMSGSIZE);
	all.cmd.n_slices = 1ULL << 32;
	ALL_FAILS(&all, -EMSGSIZE);
	all.cmd.n_slices = -1;
	ALL_FAILS(&all, -EMSGSIZE);
	all.cmd.n_slices = 3;
	ALL_WORKS(&all);
}

TEST_F(send_recv, too_many_messages_are_emsgsize)
{
	struct all all;

	ALL(&all);
	all.cmd.n_messages = MAX_ARRAY + 1;
	ALL_FAILS(&all, -EMSGSIZE);
	all.cmd.n_messages = 1ULL << 32;
	ALL_FAILS(&all, -EMSGSIZE);
	all.cmd.n_messages = -1;
	ALL_FAILS(&all, -EMSGSIZE);
	all.cmd.n_messages = ROOM;
	ALL_WORKS(&all);
}

TEST_F(send_recv, slices_that_cannot_be_read_are_efault)
{
	struct all all;

	ALL(&all);
	all.cmd.ptr_slices = ptr(bad_none());
	ALL_FAILS(&all, -EFAULT);
	all.cmd.ptr_slices = ptr(all.slices) | 1ULL << 63;
	ALL_FAILS(&all, -EFAULT);
	all.cmd.ptr_slices = 0;
	ALL_FAILS(&all, -EFAULT);
	all.cmd.ptr_slices = ptr(all.slices);
	ALL_WORKS(&all);
}

TEST_F(send_recv, messages_at_no_address_are_efault)
{
	struct all all;

	ALL(&all);
	all.cmd.ptr_messages = 1ULL << 63;
	ALL_FAILS(&all, -EFAULT);
	all.cmd.ptr_messages = ptr(self->msgs) | 1ULL << 62;
	ALL_FAILS(&all, -EFAULT);
	all.cmd.ptr_messages = -1;
	ALL_FAILS(&all, -EFAULT);
	all.cmd.ptr_messages = ptr(self->msgs);
	ALL_WORKS(&all);
}

TEST_F(send_recv, arrays_of_the_send_that_cannot_be_read_are_efault)
{
	struct all all;

	ALL(&all);
	all.cmd.send.ptr_destinations = ptr(bad_none());
	ALL_FAILS(&all, -EFAULT);
	all.cmd.send.ptr_destinations = ptr(&all.to);
	all.vec.iov_base = bad_none();
	ALL_FAILS(&all, -EFAULT);
	all.vec.iov_base = "all";
	all.cmd.send.ptr_errors = BAD_PTR;
	ALL_FAILS(&all, -EFAULT);
	all.cmd.send.ptr_errors = 0;
	ALL_WORKS(&all);
}

TEST_F(send_recv, unknown_destination_is_enxio)
{
	struct all all;

	ALL(&all);
	all.to = 0xffff3;
	ALL_FAILS(&all, -ENXIO);
	all.to = self->ba;
	ALL_WORKS(&all);
}

TEST_F(send_recv, destroyed_destination_is_ehostunreach)
{
	__u64 bc = TRANSFER(&self->net.c, NODE_C, &self->net.b);
	__s32 error = SENTINEL32;
	struct all all;

	ASSERT_EQ(0, bus1_node_destroy(self->net.c.fd, NODE_C));
	RECV_DESTROY(&self->net.b, bc);
	ALL(&all);
	all.to = bc;
	all.cmd.send.ptr_errors = ptr(&error);
	ALL_FAILS(&all, -EHOSTUNREACH);
	EXPECT_EQ(-EHOSTUNREACH, error);
	/* What is left can be done without it. */
	all.cmd.flags &= ~FLAG_SEND;
	ASSERT_EQ(0, bus1_send_recv(self->net.b.fd, &all.cmd));
	EXPECT_EQ(0, all.cmd.n_slices);
	EXPECT_EQ(2, all.cmd.n_received);
}

TEST_F(send_recv, receiver_without_budget_is_edquot)
{
	struct all all;

	ALL(&all);
	ASSERT_EQ(0, set_limits(self->net.a.fd, 0, KEEP, KEEP, KEEP));
	self->before = net_state(&self->net);
	ALL_FAILS(&all, -EDQUOT);
	ASSERT_EQ(0, set_limits(self->net.a.fd, 10, KEEP, KEEP, KEEP));
	ALL_WORKS(&all);
}

/* The argument in memory of which only one side of @at can be written. */
static struct bus1_cmd_send_recv *half_readonly(const struct bus1_cmd_send_recv *cmd,
						size_t at, bool head)
{
	__u8 *p = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	memcpy(p + PAGE - at, cmd, sizeof(*cmd));
	if (mprotect(head ? p : p + PAGE, PAGE, PROT_READ))
		return NULL;
	return (void *)(p + PAGE - at);
}

TEST_F(send_recv, argument_that_cannot_be_written_is_efault)
{
	struct bus1_cmd_send_recv *cmd;
	struct all all;
	size_t at;
	int head;

	ALL(&all);
	for (at = 0; at <= sizeof(*cmd); at += 8) {
		for (head = 0; head < 2; head++) {
			/* where n_slices, n_received and flags can be written */
			if (head ? !at : at > offsetof(struct bus1_cmd_send_recv,
						       n_received))
				continue;
			cmd = half_readonly(&all.cmd, at, head);
			ASSERT_TRUE(cmd);
			EXPECT_EQ(-EFAULT, bus1_ioctl(self->net.b.fd,
						      BUS1_CMD_SEND_RECV, cmd)) {
				TH_LOG("%zu, %d", at, head);
			}
			EXPECT_EQ(all.cmd.flags, cmd->flags);
			EXPECT_EQ(all.cmd.n_slices, cmd->n_slices);
			EXPECT_SAME(&self->net, &self->before);
		}
	}
	EXPECT_TRUE(msg_untouched(&self->msgs[0]));
	ALL_WORKS(&all);
}

/*
 * What fails in the middle: the argument says how far it came
 */

TEST_F(send_recv, unknown_slice_is_enxio_and_those_behind_are_given_back)
{
	struct all all;
	__u64 good;

	ALL(&all);
	good = all.slices[1];
	all.slices[1] += 8;
	EXPECT_EQ(-ENXIO, bus1_send_recv(self->net.b.fd, &all.cmd));
	EXPECT_EQ(0, all.cmd.flags);
	EXPECT_EQ(2, all.cmd.n_slices);
	EXPECT_EQ(0, all.cmd.n_received);
	EXPECT_EQ(-ENXIO, bus1_slice_release(self->net.b.fd, all.slices[2]));
	EXPECT_TRUE(msg_untouched(&self->msgs[0]));
	all.slices[1] = good;
	/* The message was sent, once */
	ALL_WORKS(&all);
}

TEST_F(send_recv, payload_in_a_slice_that_is_gone_is_not_sent_again)
{
	__u64 n = 2, other = 99;
	struct all all;

	ALL(&all);
	all.vec.iov_base = (void *)self->net.b.pool + all.slices[2];
	all.vec.iov_len = sizeof(n);
	all.slices[1] += 8;
	EXPECT_EQ(-ENXIO, bus1_send_recv(self->net.b.fd, &all.cmd));
	EXPECT_EQ(2, all.cmd.n_slices);
	/* Other bytes are there now, which the same call must not send */
	ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, &other,
				    sizeof(other)));
	EXPECT_EQ(0, memcmp(all.vec.iov_base, &other, sizeof(other)));
	peer_wait(self->net.b.fd);
	all.slices[1] -= 8;
	EXPECT_EQ(0, bus1_send_recv(self->net.b.fd, &all.cmd));
	EXPECT_EQ(0, all.cmd.n_slices);
	EXPECT_EQ(3, all.cmd.n_received);
	RECV_DATA(&self->net.a, NODE_A, &n, sizeof(n));
	RECV_NONE(&self->net.a);
}

TEST_F(send_recv, slice_that_is_listed_twice_is_enxio)
{
	struct all all;

	ALL(&all);
	all.slices[0] = all.slices[1];
	EXPECT_EQ(-ENXIO, bus1_send_recv(self->net.b.fd, &all.cmd));
	EXPECT_EQ(0, all.cmd.flags);
	EXPECT_EQ(1, all.cmd.n_slices);
	RECV_STR(&self->net.a, NODE_A, "all");
	RECV_NONE(&self->net.a);
	EXPECT_EQ(3, bus1_fdinfo(self->net.b.fd, "bus1-slices"));
}

TEST_F(send_recv, nothing_ready_is_eagain_after_the_send)
{
	struct iovec vec = { "x", 1 };
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.flags = FLAG_SEND, .send = one_message(&self->net.ab, &vec),
		.ptr_messages = ptr(self->msgs), .n_messages = ROOM);
	int i;

	for (i = 0; i < 3; i++) {
		EXPECT_EQ(-EAGAIN, bus1_send_recv(self->net.a.fd, &cmd));
		EXPECT_EQ(0, cmd.flags);
		EXPECT_EQ(0, cmd.n_received);
	}
	RECV_STR(&self->net.b, NODE_B, "x");
	RECV_NONE(&self->net.b);
	ASSERT_EQ(0, bus1_send_str(self->net.b.fd, self->ba, "y"));
	peer_wait(self->net.a.fd);
	EXPECT_EQ(0, bus1_send_recv(self->net.a.fd, &cmd));
	EXPECT_EQ(1, cmd.n_received);
}

TEST_F(send_recv, first_slice_above_max_offset_is_erange)
{
	struct all all;

	ALL(&all);
	all.cmd.max_offset = 0;
	EXPECT_EQ(-ERANGE, bus1_send_recv(self->net.b.fd, &all.cmd));
	EXPECT_EQ(0, all.cmd.flags);
	EXPECT_EQ(0, all.cmd.n_slices);
	EXPECT_EQ(0, all.cmd.n_received);
	EXPECT_TRUE(msg_untouched(&self->msgs[0]));
	EXPECT_EQ(2, bus1_fdinfo(self->net.b.fd, "bus1-queue"));
	all.cmd.max_offset = BUS1_OFFSET_INVALID;
	ALL_WORKS(&all);
}

TEST_F(send_recv, a_later_slice_above_max_offset_ends_it)
{
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.ptr_messages = ptr(self->msgs), .n_messages = ROOM);
	__u64 first = SLICE(&self->net, 0);

	ASSERT_EQ(0, bus1_slice_release(self->net.b.fd, first));
	QUEUE(&self->net, 3);
	cmd.max_offset = first + sizeof(__u64);
	ASSERT_EQ(0, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(1, cmd.n_received);
	EXPECT_TRUE(msg_untouched(&self->msgs[1]));
	EXPECT_EQ(-ERANGE, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(0, cmd.n_received);
	EXPECT_EQ(2, bus1_fdinfo(self->net.b.fd, "bus1-queue"));
}

TEST_F(send_recv, message_that_cannot_be_written_stays)
{
	struct all all;

	ALL(&all);
	all.cmd.ptr_messages = ptr(bad_readonly(self->msgs, sizeof(self->msgs)));
	EXPECT_EQ(-EFAULT, bus1_send_recv(self->net.b.fd, &all.cmd));
	EXPECT_EQ(0, all.cmd.flags);
	EXPECT_EQ(0, all.cmd.n_slices);
	EXPECT_EQ(0, all.cmd.n_received);
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-slices") - 2);
	EXPECT_EQ(2, bus1_fdinfo(self->net.b.fd, "bus1-queue"));
	all.cmd.ptr_messages = ptr(self->msgs);
	ALL_WORKS(&all);
}

TEST_F(send_recv, a_later_message_that_cannot_be_written_ends_it)
{
	struct bus1_cmd_send_recv cmd = SEND_RECV(.n_messages = 3);
	struct bus1_msg *msgs = bad_edge(2 * sizeof(*msgs));

	ASSERT_TRUE(msgs);
	cmd.ptr_messages = ptr(msgs);
	QUEUE(&self->net, 3);
	EXPECT_EQ(0, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(2, cmd.n_received);
	EXPECT_EQ(0, msg_number(&self->net.b, &msgs[0]));
	EXPECT_EQ(1, msg_number(&self->net.b, &msgs[1]));
	EXPECT_EQ(1, bus1_fdinfo(self->net.b.fd, "bus1-queue"));
	EXPECT_EQ(0, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(1, cmd.n_received);
	EXPECT_EQ(2, msg_number(&self->net.b, &msgs[0]));
}

TEST_F(send_recv, descriptors_that_run_out_end_it)
{
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.flags = BUS1_SEND_RECV_FLAG_INSTALL_FDS,
		.ptr_messages = ptr(self->msgs), .n_messages = ROOM);
	struct rlimit saved, few;
	int top, i;

	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, send_file(&self->net, STDERR_FILENO));
	}
	peer_wait(self->net.b.fd);
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &saved));
	/* There is room for two. */
	for (top = 0, i = 0; i < 3; top++)
		if (fcntl(top, F_GETFD) < 0)
			i++;
	few = (struct rlimit){ top - 1, saved.rlim_max };
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &few));
	EXPECT_EQ(0, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(2, cmd.n_received);
	EXPECT_EQ(-EMFILE, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(0, cmd.n_received);
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &saved));
	EXPECT_EQ(0, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(1, cmd.n_received);
	EXPECT_EQ(1, self->msgs[0].n_fds);
}

TEST_F(send_recv, disconnected_peer_is_eshutdown)
{
	struct bus1_cmd_send_recv cmd = SEND_RECV();

	ASSERT_EQ(0, bus1_disconnect(self->net.b.fd));
	EXPECT_EQ(-ESHUTDOWN, bus1_send_recv(self->net.b.fd, &cmd));
	EXPECT_EQ(SENTINEL, cmd.n_received);
}

#define N_SLICES	256
#define N_THREADS	4

/* A thread that gives all slices back that nobody else has given back. */
struct releaser {
	pthread_t thread;
	const __u64 *slices;
	int fd;
	int ret;
	__u64 released;
};

static void *give_back(void *arg)
{
	struct releaser *self = arg;
	struct bus1_cmd_send_recv cmd = SEND_RECV(
		.ptr_slices = ptr(self->slices), .n_slices = N_SLICES);
	__u64 before;

	while (cmd.n_slices) {
		before = cmd.n_slices;
		self->ret = bus1_send_recv(self->fd, &cmd);
		self->released += before - cmd.n_slices;
		/* The last one that is left is the one that was none. */
		if (self->ret == -ENXIO)
			cmd.n_slices--;
		else if (self->ret)
			break;
	}
	return NULL;
}

TEST_F(send_recv, of_many_threads_one_gives_a_slice_back)
{
	struct releaser threads[N_THREADS];
	__u64 slices[N_SLICES] = {}, total = 0;
	int i;

	for (i = 0; i < N_SLICES; i++)
		slices[i] = SLICE(&self->net, i);
	for (i = 0; i < N_THREADS; i++) {
		threads[i] = (struct releaser){ .fd = self->net.b.fd,
						.slices = slices };
		ASSERT_EQ(0, pthread_create(&threads[i].thread, NULL, give_back,
					    &threads[i]));
	}
	for (i = 0; i < N_THREADS; i++) {
		pthread_join(threads[i].thread, NULL);
		EXPECT_TRUE(!threads[i].ret || threads[i].ret == -ENXIO);
		total += threads[i].released;
	}
	EXPECT_EQ(N_SLICES, total);
	EXPECT_SAME(&self->net, &self->before);
}

TEST_HARNESS_MAIN
