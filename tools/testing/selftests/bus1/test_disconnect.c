// SPDX-License-Identifier: GPL-2.0-only
/*
 * How a peer leaves: PEER_DISCONNECT, the last close, and what others see.
 */

#include "bus1_test.h"

FIXTURE(disconnect) {
	struct peer a, b;
	int event;
};

FIXTURE_SETUP(disconnect)
{
	PEER_OPEN(&self->a);
	PEER_OPEN(&self->b);
	self->event = event_new();
	ASSERT_LE(0, self->event);
}

FIXTURE_TEARDOWN(disconnect)
{
	peer_close(&self->a);
	peer_close(&self->b);
}

TEST_F(disconnect, argument_must_be_zero)
{
	const unsigned long bad[] = { 1, 4096, -1UL, LONG_MAX };
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bad); i++)
		EXPECT_EQ(-EINVAL, bus1_ioctl(self->a.fd,
					      BUS1_CMD_PEER_DISCONNECT,
					      (void *)bad[i]));
	/* Still there. */
	EXPECT_EQ(POLLOUT, peer_poll(self->a.fd));
	EXPECT_EQ(0, bus1_send_str(self->a.fd, 8, "x"));
	RECV_STR(&self->a, 8, "x");
}

TEST_F(disconnect, twice_is_eshutdown)
{
	EXPECT_EQ(0, bus1_disconnect(self->a.fd));
	EXPECT_EQ(-ESHUTDOWN, bus1_disconnect(self->a.fd));
	EXPECT_EQ(-ESHUTDOWN, bus1_disconnect(self->a.fd));
}

TEST_F(disconnect, every_command_is_eshutdown)
{
	struct bus1_cmd_peer_reset query;
	struct bus1_cmd_recv recv;
	__u64 id = 8, dst;

	ASSERT_EQ(0, bus1_disconnect(self->a.fd));
	EXPECT_EQ(-ESHUTDOWN, bus1_query(self->a.fd, &query));
	EXPECT_EQ(SENTINEL, query.peer_flags);
	EXPECT_EQ(-ESHUTDOWN, bus1_flush(self->a.fd, 0));
	EXPECT_EQ(-ESHUTDOWN, bus1_flush(self->a.fd,
					 BUS1_PEER_RESET_FLAG_FLUSH));
	EXPECT_EQ(-ESHUTDOWN, bus1_handle_release(self->a.fd, id));
	EXPECT_EQ(-ESHUTDOWN, bus1_handle_transfer(self->a.fd, id, -1, &dst));
	EXPECT_EQ(BUS1_HANDLE_INVALID, dst);
	EXPECT_EQ(-ESHUTDOWN, bus1_handle_transfer(self->a.fd, id, self->b.fd,
						   &dst));
	EXPECT_EQ(-ESHUTDOWN, bus1_node_destroy(self->a.fd, id));
	EXPECT_EQ(-ESHUTDOWN, bus1_nodes_destroy(self->a.fd, 0, NULL, 0));
	EXPECT_EQ(-ESHUTDOWN, bus1_slice_release(self->a.fd, 0));
	EXPECT_EQ(-ESHUTDOWN, bus1_send_str(self->a.fd, id, "x"));
	EXPECT_EQ(-ESHUTDOWN, bus1_nodes_create(self->a.fd, &id, 1));
	EXPECT_EQ(-ESHUTDOWN, bus1_recv(self->a.fd, 0, &recv));
	EXPECT_EQ(-ESHUTDOWN, bus1_recv(self->a.fd, BUS1_RECV_FLAG_SEED,
					&recv));
	RECV_NONE(&self->b);
}

TEST_F(disconnect, what_is_no_command_stays_enotty)
{
	/* No such number, no such size, another device's. */
	const unsigned int commands[] = {
		_IOWR(0x96, 0x03, __u64), _IOWR(0x96, 0x01, __u32),
		_IOWR(0x97, 0x01, struct bus1_cmd_peer_reset),
	};
	struct bus1_cmd_peer_reset query;
	size_t i;

	memset(&query, 0, sizeof(query));
	ASSERT_EQ(0, bus1_disconnect(self->a.fd));
	for (i = 0; i < ARRAY_SIZE(commands); i++)
		EXPECT_EQ(-ENOTTY, bus1_ioctl(self->a.fd, commands[i], &query));
	EXPECT_EQ(0, query.max_slices);
}

TEST_F(disconnect, poll_says_hup_alone)
{
	ASSERT_EQ(0, bus1_send_str(self->a.fd, 8, "x"));
	ASSERT_EQ(POLLIN | POLLOUT, peer_poll(self->a.fd));
	ASSERT_EQ(0, bus1_disconnect(self->a.fd));
	EXPECT_EQ(POLLHUP, peer_poll(self->a.fd));
}

TEST_F(disconnect, holders_get_node_destroy)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	ASSERT_EQ(0, bus1_disconnect(self->a.fd));
	RECV_DESTROY(&self->b, h);
	RECV_NONE(&self->b);
	EXPECT_EQ(-EHOSTUNREACH, bus1_send_str(self->b.fd, h, "x"));
	EXPECT_EQ(0, bus1_handle_release(self->b.fd, h));
	EXPECT_EQ(-ENXIO, bus1_handle_release(self->b.fd, h));
	EXPECT_IDLE(&self->b);
}

TEST_F(disconnect, all_nodes_go_in_one_transaction)
{
	__u64 id, seen = 0, h[10];
	struct bus1_cmd_recv recv;
	int i, j;

	for (i = 0; i < 10; i++)
		h[i] = TRANSFER(&self->a, 8 * (i + 1), &self->b);
	ASSERT_EQ(0, bus1_disconnect(self->a.fd));
	for (i = 0; i < 10; i++) {
		recv = RECV(&self->b);
		EXPECT_EQ(BUS1_MSG_NODE_DESTROY, recv.msg.type);
		EXPECT_EQ(i < 9 ? BUS1_MSG_FLAG_CONTINUE : 0, recv.msg.flags);
		id = recv.msg.destination;
		for (j = 0; j < 10; j++)
			if (h[j] == id)
				seen |= 1 << j;
	}
	EXPECT_EQ(0x3ff, seen);
	RECV_NONE(&self->b);
}

TEST_F(disconnect, owners_of_held_nodes_get_node_release)
{
	TRANSFER(&self->b, 8, &self->a);
	ASSERT_EQ(0, bus1_disconnect(self->a.fd));
	RECV_RELEASE(&self->b, 8);
	RECV_NONE(&self->b);
}

TEST_F(disconnect, references_in_the_queue_are_let_go)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b), id = 16;

	ASSERT_EQ(0, bus1_send_handles(self->b.fd, h, &id, 1));
	RECV_NONE(&self->b);
	ASSERT_EQ(0, bus1_disconnect(self->a.fd));
	RECV_DESTROY(&self->b, h);
	RECV_RELEASE(&self->b, id);
	RECV_NONE(&self->b);
}

TEST_F(disconnect, messages_sent_earlier_stay_deliverable)
{
	__u64 h = TRANSFER(&self->b, 8, &self->a);

	ASSERT_EQ(0, bus1_send_str(self->a.fd, h, "1"));
	ASSERT_EQ(0, bus1_send_str(self->a.fd, h, "2"));
	ASSERT_EQ(0, bus1_disconnect(self->a.fd));
	RECV_STR(&self->b, 8, "1");
	RECV_STR(&self->b, 8, "2");
	RECV_RELEASE(&self->b, 8);
	RECV_NONE(&self->b);
}

/* The message is ordered before the destruction: both must be seen. */
TEST_F(disconnect, handles_sent_earlier_arrive_then_die)
{
	__u64 h = TRANSFER(&self->b, 8, &self->a), got, id = 16;

	ASSERT_EQ(0, bus1_send_handles(self->a.fd, h, &id, 1));
	ASSERT_EQ(0, bus1_disconnect(self->a.fd));
	got = RECV_ONE_HANDLE(&self->b);
	EXPECT_NE(BUS1_HANDLE_INVALID, got);
	EXPECT_EQ(KERNEL_CHOSEN, got & 7);
	RECV_DESTROY(&self->b, got);
	RECV_RELEASE(&self->b, 8);
	RECV_NONE(&self->b);
}

TEST_F(disconnect, mapping_stays_usable)
{
	struct bus1_cmd_recv recv;
	int c;

	ASSERT_EQ(0, bus1_send_str(self->a.fd, 8, "x"));
	recv = RECV(&self->a);
	ASSERT_EQ('x', self->a.pool[recv.msg.offset]);
	ASSERT_EQ(0, bus1_disconnect(self->a.fd));
	/* Its own old byte, zero, or no memory any more. */
	c = read_byte(self->a.pool + recv.msg.offset);
	EXPECT_TRUE(c == 'x' || c == 0 || c == -1);
}

static void *close_thread(void *arg)
{
	close(*(int *)arg);
	return NULL;
}

TEST_F(disconnect, last_close_disconnects)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);
	int fd = dup(self->a.fd);
	pthread_t thread;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, munmap((void *)self->a.pool, POOL_SIZE));
	self->a.pool = NULL;
	close(self->a.fd);
	self->a.fd = -1;
	RECV_NONE(&self->b);
	/* From any thread. */
	ASSERT_EQ(0, pthread_create(&thread, NULL, close_thread, &fd));
	RECV_DESTROY(&self->b, h);
	pthread_join(thread, NULL);
	RECV_NONE(&self->b);
}

TEST_F(disconnect, last_close_with_a_mapping_disconnects)
{
	__u64 h = TRANSFER(&self->a, 8, &self->b);

	close(self->a.fd);
	self->a.fd = -1;
	RECV_DESTROY(&self->b, h);
	RECV_NONE(&self->b);
	/* There never was memory here, and there is none of anybody else. */
	EXPECT_GE(0, read_byte(self->a.pool));
}

TEST_F(disconnect, exit_of_the_last_process_disconnects)
{
	pid_t pid;
	__u64 h;

	h = TRANSFER(&self->a, 8, &self->b);
	pid = FORK();
	if (!pid) {
		event_wait(self->event);
		_exit(0);
	}
	/* The child has it open as well. */
	peer_close(&self->a);
	RECV_NONE(&self->b);
	event_post(self->event);
	RECV_DESTROY(&self->b, h);
	WAIT(pid);
	RECV_NONE(&self->b);
}

TEST_F(disconnect, sigkill_of_the_last_process_disconnects)
{
	pid_t pid;
	__u64 h;

	h = TRANSFER(&self->a, 8, &self->b);
	pid = FORK();
	if (!pid) {
		event_wait(self->event);
		_exit(1);
	}
	peer_close(&self->a);
	RECV_NONE(&self->b);
	ASSERT_EQ(0, kill(pid, SIGKILL));
	RECV_DESTROY(&self->b, h);
	ASSERT_EQ(SIGKILL, wait_status(pid));
}

/*
 * While commands run
 */

struct blocked {
	int fd;
	int event;
	pid_t tid;
	int r;
};

static void *recv_thread(void *arg)
{
	struct blocked *b = arg;
	struct bus1_cmd_recv recv;

	b->tid = syscall(SYS_gettid);
	event_post(b->event);
	b->r = bus1_recv(b->fd, 0, &recv);
	return NULL;
}

TEST_F(disconnect, wakes_blocked_recv)
{
	struct blocked b[4];
	pthread_t thread[4];
	struct peer p;
	int i;

	PEER_OPEN_BLOCKING(&p);
	for (i = 0; i < 4; i++) {
		b[i] = (struct blocked){ p.fd, self->event, 0, 0 };
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, recv_thread,
					    &b[i]));
		event_wait(self->event);
		thread_wait_asleep(b[i].tid);
	}
	ASSERT_EQ(0, bus1_disconnect(p.fd));
	for (i = 0; i < 4; i++) {
		pthread_join(thread[i], NULL);
		EXPECT_EQ(-ESHUTDOWN, b[i].r);
	}
	EXPECT_EQ(POLLHUP, peer_poll(p.fd));
	peer_close(&p);
}

static void *poll_thread(void *arg)
{
	struct blocked *b = arg;

	b->tid = syscall(SYS_gettid);
	event_post(b->event);
	b->r = peer_wait(b->fd);
	return NULL;
}

TEST_F(disconnect, wakes_poll)
{
	struct blocked b = { self->a.fd, self->event, 0, 0 };
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, poll_thread, &b));
	event_wait(self->event);
	thread_wait_asleep(b.tid);
	ASSERT_EQ(0, bus1_disconnect(self->a.fd));
	pthread_join(thread, NULL);
	EXPECT_EQ(POLLHUP, b.r);
}

struct runner {
	int fd;		/* the peer that runs commands */
	int event;
	__u64 dest;
	int r;		/* the errno that ended it */
	int n;		/* commands before that */
};

/* Every command, until one fails with something else than it may. */
static void *runner_thread(void *arg)
{
	struct bus1_cmd_peer_reset query;
	struct bus1_cmd_recv recv;
	struct runner *run = arg;
	__u64 id, dst;

	for (run->n = 0; ; run->n++) {
		if (run->n == 10)
			event_post(run->event);
		id = 1024 + run->n % 16 * 8;
		run->r = bus1_send_str(run->fd, run->dest, "x");
		if (run->r && run->r != -EDQUOT && run->r != -EXFULL)
			break;
		run->r = bus1_query(run->fd, &query);
		if (run->r)
			break;
		run->r = bus1_handle_transfer(run->fd, id, -1, &dst);
		if (run->r)
			break;
		run->r = bus1_nodes_destroy(run->fd, 0, &id, 1);
		if (run->r && run->r != -ESTALE)
			break;
		run->r = bus1_recv(run->fd, 0, &recv);
		if (run->r && run->r != -EAGAIN)
			break;
		if (!run->r && recv.msg.type == BUS1_MSG_DATA)
			bus1_slice_release(run->fd, recv.msg.offset);
		if (!run->r && recv.msg.type == BUS1_MSG_NODE_DESTROY &&
		    recv.msg.destination != run->dest)
			bus1_drain_refs(run->fd, recv.msg.destination);
	}
	if (run->n < 10)
		event_post(run->event);
	return NULL;
}

TEST_F(disconnect, while_its_own_commands_run)
{
	struct runner run[3];
	pthread_t thread[3];
	struct peer p;
	int i, round;

	for (round = 0; round < 20; round++) {
		PEER_OPEN(&p);
		for (i = 0; i < 3; i++) {
			run[i] = (struct runner){ p.fd, self->event, 8, 0, 0 };
			ASSERT_EQ(0, pthread_create(&thread[i], NULL,
						    runner_thread, &run[i]));
		}
		for (i = 0; i < 3; i++)
			event_wait(self->event);
		ASSERT_EQ(0, bus1_disconnect(p.fd));
		for (i = 0; i < 3; i++) {
			pthread_join(thread[i], NULL);
			EXPECT_EQ(-ESHUTDOWN, run[i].r);
			EXPECT_LE(10, run[i].n);
		}
		EXPECT_IDLE(&p);
		peer_close(&p);
	}
}

TEST_F(disconnect, while_others_send_to_it)
{
	struct runner run;
	pthread_t thread;
	struct peer p;
	int round;

	for (round = 0; round < 50; round++) {
		PEER_OPEN(&p);
		run = (struct runner){
			.fd = self->b.fd,
			.event = self->event,
			.dest = TRANSFER(&p, 8, &self->b),
		};
		ASSERT_EQ(0, pthread_create(&thread, NULL, runner_thread,
					    &run));
		event_wait(self->event);
		ASSERT_EQ(0, bus1_disconnect(p.fd));
		pthread_join(thread, NULL);
		EXPECT_EQ(-EHOSTUNREACH, run.r);
		EXPECT_IDLE(&p);
		peer_close(&p);
	}
	ASSERT_EQ(0, bus1_flush(self->b.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	EXPECT_IDLE(&self->b);
}

static void *disconnect_thread(void *arg)
{
	struct runner *run = arg;

	event_wait(run->event);
	run->r = bus1_disconnect(run->fd);
	return NULL;
}

TEST_F(disconnect, by_many_threads_succeeds_once)
{
	struct runner run[4];
	pthread_t thread[4];
	struct peer p;
	int i, n;

	PEER_OPEN(&p);
	for (i = 0; i < 4; i++) {
		run[i] = (struct runner){ .fd = p.fd, .event = self->event };
		ASSERT_EQ(0, pthread_create(&thread[i], NULL,
					    disconnect_thread, &run[i]));
	}
	for (i = 0; i < 4; i++)
		event_post(self->event);
	for (i = n = 0; i < 4; i++) {
		pthread_join(thread[i], NULL);
		n += !run[i].r;
		EXPECT_TRUE(!run[i].r || run[i].r == -ESHUTDOWN);
	}
	EXPECT_EQ(1, n);
	peer_close(&p);
}

TEST_F(disconnect, transfers_to_it_are_eshutdown)
{
	__u64 id = NODE(&self->b, 8), dst;

	ASSERT_EQ(0, bus1_disconnect(self->a.fd));
	EXPECT_EQ(-ESHUTDOWN, bus1_handle_transfer(self->b.fd, id, self->a.fd,
						   &dst));
	EXPECT_EQ(BUS1_HANDLE_INVALID, dst);
	EXPECT_EQ(0, bus1_drain_refs(self->b.fd, id));
	RECV_NONE(&self->b);
}

TEST_HARNESS_MAIN
