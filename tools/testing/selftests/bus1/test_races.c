// SPDX-License-Identifier: GPL-2.0-only
/*
 * Commands that overlap: what one of them does while another is stopped in the
 * middle, by a page that userfaultfd holds back, or at any moment.
 */
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include "bus1_msg.h"

#define N_ROUNDS	2000

FIXTURE(race) {
	struct peer o, p, q;
	__u64 op;		/* node 0x200 of p, as o knows it */
};

FIXTURE_SETUP(race)
{
	PEER_OPEN(&self->o);
	PEER_OPEN(&self->p);
	PEER_OPEN(&self->q);
	NODE(&self->p, 0x200);
	self->op = TRANSFER(&self->p, 0x200, &self->o);
}

FIXTURE_TEARDOWN(race)
{
	peer_close(&self->o);
	peer_close(&self->p);
	peer_close(&self->q);
}

/* A command in a thread, stopped when it touches the page. */
struct stalled {
	int uffd;
	void *page;
	int fd;
	unsigned long cmd;
	void *arg;
	int r;
	pthread_t thread;
};

static void *stalled_run(void *arg)
{
	struct stalled *s = arg;

	s->r = ioctl(s->fd, s->cmd, s->arg) ? -errno : 0;
	return NULL;
}

static int stalled_open(struct stalled *s, __u64 features)
{
	struct uffdio_api api = { .api = UFFD_API, .features = features };

	s->page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	s->uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (s->page == MAP_FAILED)
		return -errno;
	if (s->uffd < 0)
		return errno == ENOSYS ? -EOPNOTSUPP : -errno;
	if (ioctl(s->uffd, UFFDIO_API, &api))
		return errno == EINVAL ? -EOPNOTSUPP : -errno;
	return 0;
}

static int stalled_register(struct stalled *s, __u64 mode)
{
	struct uffdio_register reg = {
		.range = { (unsigned long)s->page, PAGE },
		.mode = mode,
	};

	return ioctl(s->uffd, UFFDIO_REGISTER, &reg) ? -errno : 0;
}

static int stalled_protect(struct stalled *s, bool protect)
{
	struct uffdio_writeprotect wp = {
		.range = { (unsigned long)s->page, PAGE },
		.mode = protect ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(s->uffd, UFFDIO_WRITEPROTECT, &wp) ? -errno : 0;
}

/* Runs a command on @fd until it touches the page. */
static int stalled_run_to_fault(struct stalled *s, int fd, unsigned long cmd,
				void *arg)
{
	struct uffd_msg msg;

	s->fd = fd;
	s->cmd = cmd;
	s->arg = arg;
	if (pthread_create(&s->thread, NULL, stalled_run, s))
		return -EAGAIN;
	return read(s->uffd, &msg, sizeof(msg)) == sizeof(msg) ? 0 : -errno;
}

/* Runs a command whose argument is on the page until it writes its result. */
static int stall_result(struct stalled *s, int fd, unsigned long cmd,
			const void *arg, size_t n)
{
	int r = stalled_open(s, UFFD_FEATURE_PAGEFAULT_FLAG_WP);

	if (r)
		return r;
	memcpy(s->page, arg, n);
	r = stalled_register(s, UFFDIO_REGISTER_MODE_WP);
	if (!r)
		r = stalled_protect(s, true);
	return r ?: stalled_run_to_fault(s, fd, cmd, s->page);
}

#define STALL_RESULT(_s, _fd, _cmd, _arg) do {				\
	int _r = stall_result(_s, _fd, _cmd, _arg, sizeof(*(_arg)));	\
									\
	if (_r == -EOPNOTSUPP)						\
		SKIP(return, "this kernel has no userfaultfd for writes"); \
	ASSERT_EQ(0, _r);						\
} while (0)

/* Lets it go on, and returns what it returns. */
static int stalled_result_end(struct stalled *s)
{
	stalled_protect(s, false);
	pthread_join(s->thread, NULL);
	close(s->uffd);
	return s->r;
}

/* A SEND to nobody, of a handle, whose payload is the page. */
struct stalled_send {
	struct stalled s;
	struct bus1_cmd_send send;
	struct iovec vec;
	__u64 handle;
};

static int stall_send(struct stalled_send *ss, int fd, __u64 handle)
{
	int r = stalled_open(&ss->s, 0);

	if (!r)
		r = stalled_register(&ss->s, UFFDIO_REGISTER_MODE_MISSING);
	if (r)
		return r;
	ss->handle = handle;
	ss->vec = (struct iovec){ ss->s.page, 8 };
	ss->send = (struct bus1_cmd_send){
		.ptr_vecs = (unsigned long)&ss->vec, .n_vecs = 1,
		.ptr_handles = (unsigned long)&ss->handle, .n_handles = 1,
	};
	return stalled_run_to_fault(&ss->s, fd, BUS1_CMD_SEND, &ss->send);
}

static int stalled_send_end(struct stalled_send *ss)
{
	struct uffdio_zeropage zero = {
		.range = { (unsigned long)ss->s.page, PAGE },
	};

	ioctl(ss->s.uffd, UFFDIO_ZEROPAGE, &zero);
	pthread_join(ss->s.thread, NULL);
	close(ss->s.uffd);
	return ss->s.r;
}

/* The flush did not know of a handle that was on its way: it must not be lost. */
static void expect_told(struct __test_metadata *_metadata, struct peer *peer,
			const struct bus1_cmd_handle_transfer *cmd)
{
	if (cmd->dst_handle == BUS1_HANDLE_INVALID) {
		RECV_NONE(peer);
		return;
	}
	RECV_DESTROY(peer, cmd->dst_handle);
	RECV_NONE(peer);
	EXPECT_EQ(0, bus1_handle_release(peer->fd, cmd->dst_handle));
}

TEST_F(race, transfer_into_a_peer_that_flushes)
{
	struct bus1_cmd_handle_transfer cmd = {
		.dst_fd = self->p.fd, .dst_handle = BUS1_HANDLE_INVALID,
	};
	struct stalled s;

	NODE(&self->o, 0x100);
	cmd.src_handle = TRANSFER(&self->o, 0x100, &self->q);
	STALL_RESULT(&s, self->q.fd, BUS1_CMD_HANDLE_TRANSFER, &cmd);
	ASSERT_EQ(0, bus1_node_destroy(self->o.fd, 0x100));
	ASSERT_EQ(0, bus1_flush(self->p.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	ASSERT_EQ(0, stalled_result_end(&s));
	memcpy(&cmd, s.page, sizeof(cmd));
	expect_told(_metadata, &self->p, &cmd);
}

TEST_F(race, transfer_to_an_owner_that_flushes)
{
	struct bus1_cmd_handle_transfer cmd = {
		.dst_fd = self->o.fd, .dst_handle = BUS1_HANDLE_INVALID,
	};
	struct stalled s;

	NODE(&self->o, 0x100);
	cmd.src_handle = TRANSFER(&self->o, 0x100, &self->q);
	STALL_RESULT(&s, self->q.fd, BUS1_CMD_HANDLE_TRANSFER, &cmd);
	ASSERT_EQ(0, bus1_flush(self->o.fd, BUS1_PEER_RESET_FLAG_FLUSH));
	ASSERT_EQ(0, stalled_result_end(&s));
	memcpy(&cmd, s.page, sizeof(cmd));
	expect_told(_metadata, &self->o, &cmd);
}

struct flusher {
	int fd, r, done;
};

static void *flusher_run(void *arg)
{
	struct flusher *f = arg;

	f->r = bus1_flush(f->fd, BUS1_PEER_RESET_FLAG_FLUSH);
	__atomic_store_n(&f->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* Lets q have a node, a new one maybe, and release it. */
static int give_and_take(FIXTURE_DATA(race) *self, __u64 id)
{
	__u64 handle;
	int r;

	r = bus1_handle_transfer(self->o.fd, id, self->q.fd, &handle);
	if (r || handle == BUS1_HANDLE_INVALID)
		return r;
	return bus1_handle_release(self->q.fd, handle);
}

/* Either the flush destroys a node, or it leaves alone what happens to it. */
TEST_F(race, flush_loses_no_release_of_a_node_that_lives)
{
	int i, j, alive, rounds = scaled_rounds(40);
	__u64 ids[4000], id;
	struct bus1_cmd_recv cmd;
	struct flusher f;
	pthread_t thread;

	for (i = 0; i < (int)ARRAY_SIZE(ids); i++)
		ids[i] = 0x1000000 + 8 * i;
	for (i = 0; i < rounds; i++) {
		ASSERT_EQ(0, bus1_nodes_create(self->o.fd, ids,
					       ARRAY_SIZE(ids)));
		f = (struct flusher){ .fd = self->o.fd };
		ASSERT_EQ(0, pthread_create(&thread, NULL, flusher_run, &f));
		for (id = 0xfffff8; !__atomic_load_n(&f.done, __ATOMIC_ACQUIRE);
		     id -= 8) {
			/* Those that came just before, too, once more */
			for (j = 0; j < 4; j++)
				ASSERT_EQ(0, give_and_take(self, id + 8 * j));
		}
		pthread_join(thread, NULL);
		ASSERT_EQ(0, f.r);
		alive = bus1_fdinfo(self->o.fd, "bus1-handles");
		for (j = 0; !bus1_recv(self->o.fd, 0, &cmd); j++)
			ASSERT_EQ(BUS1_MSG_NODE_RELEASE, cmd.msg.type);
		EXPECT_EQ(alive, j);
		ASSERT_EQ(0, bus1_flush(self->o.fd, BUS1_PEER_RESET_FLAG_FLUSH));
		EXPECT_IDLE(&self->o);
	}
}

TEST_F(race, descriptors_that_are_gone_when_files_are_installed)
{
	struct rlimit limit, few;
	struct bus1_cmd_recv recv;
	struct stalled s;
	int fds[2], n, i, fd;
	__u64 handle = 0x300;

	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &limit));
	ASSERT_EQ(0, msg_send(self->o.fd, .dst = &self->op, .n_dst = 1,
			      .handles = &handle, .n_handles = 1,
			      .fds = (int[]){ fds[1], fds[1], fds[1] },
			      .n_fds = 3));
	bus1_recv_init(&recv, BUS1_RECV_FLAG_INSTALL_FDS);
	STALL_RESULT(&s, self->p.fd, BUS1_CMD_RECV, &recv);

	/* There was room for three, now there is for one. */
	n = count_fds();
	fd = dup(fds[0]);
	ASSERT_LE(0, fd);
	close(fd);
	few = limit;
	few.rlim_cur = fd + 1;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &few));
	EXPECT_EQ(-EMFILE, stalled_result_end(&s));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	EXPECT_EQ(n - 1, count_fds());

	/* Nothing is lost, and nothing was counted. */
	EXPECT_EQ(1, bus1_fdinfo(self->p.fd, "bus1-queue"));
	EXPECT_EQ(3, bus1_fdinfo(self->p.fd, "bus1-fds"));
	recv = RECV_FLAGS(&self->p, BUS1_RECV_FLAG_INSTALL_FDS);
	ASSERT_EQ(3, recv.msg.n_fds);
	ASSERT_EQ(1, recv.msg.n_handles);
	EXPECT_EQ(1, bus1_drain_refs(self->p.fd,
				     recv_handle(&self->p, &recv, 0)));
	for (i = 0; i < 3; i++) {
		fd = recv_fd(&self->p, &recv, i);
		EXPECT_TRUE(same_file(fd, fds[1]));
		close(fd);
	}
	close(fds[1]);
	EXPECT_TRUE(pipe_wait_eof(fds[0]));
}

static void *disconnect(void *arg)
{
	bus1_disconnect(*(int *)arg);
	return NULL;
}

/* What o knows of p. */
struct stranger {
	int fd, dst_fd;
	__u64 id;
	int sent;
};

/* Whoever has seen the disconnect can send no more. */
static void *see_disconnect(void *arg)
{
	struct stranger *s = arg;
	__u64 dst;

	while (bus1_handle_transfer(s->fd, s->id, s->dst_fd, &dst) !=
	       -ESHUTDOWN)
		sched_yield();
	s->sent = bus1_send_str(s->fd, s->id, "y");
	return NULL;
}

TEST_F(race, disconnect_is_not_seen_before_it_happens)
{
	struct stranger stranger = {
		self->o.fd, self->p.fd, self->op, 1,
	};
	struct bus1_cmd_recv recv;
	pthread_t t1, t2;
	struct stalled s;
	int i, rounds = scaled_rounds(N_ROUNDS);

	ASSERT_EQ(0, bus1_send_str(self->o.fd, self->op, "x"));
	bus1_recv_init(&recv, 0);
	STALL_RESULT(&s, self->p.fd, BUS1_CMD_RECV, &recv);
	ASSERT_EQ(0, pthread_create(&t1, NULL, disconnect, &self->p.fd));
	ASSERT_EQ(0, pthread_create(&t2, NULL, see_disconnect, &stranger));
	for (i = 0; i < rounds; i++) {
		/* HUP would tell, and sending would still be possible. */
		ASSERT_EQ(0, peer_poll(self->p.fd) & POLLHUP);
		sched_yield();
	}
	EXPECT_EQ(0, stalled_result_end(&s));
	pthread_join(t1, NULL);
	pthread_join(t2, NULL);
	EXPECT_EQ(-EHOSTUNREACH, stranger.sent);
	EXPECT_EQ(POLLHUP, peer_poll(self->p.fd));
}

/* An ID is free when it is gone, though a SEND still works with what it named. */
TEST_F(race, id_of_a_node_in_use_is_free_again)
{
	struct stalled_send ss;
	__u64 n = 0x100;

	NODE(&self->o, n);
	ASSERT_EQ(0, stall_send(&ss, self->o.fd, n));
	ASSERT_EQ(0, bus1_nodes_destroy(self->o.fd,
				BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES, &n, 1));
	EXPECT_EQ(-EBUSY, bus1_handle_release(self->o.fd, n));
	EXPECT_EQ(0, bus1_send_str(self->o.fd, n, "z"));
	EXPECT_EQ(0, bus1_nodes_destroy(self->o.fd,
				BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES, &n, 1));
	EXPECT_EQ(0, stalled_send_end(&ss));
}

TEST_F(race, holder_whose_old_handle_is_in_use_is_told)
{
	struct stalled_send ss;
	__u64 h, id, n = 0x100;

	NODE(&self->o, n);
	h = TRANSFER(&self->o, n, &self->p);
	ASSERT_EQ(0, bus1_send_handles(self->o.fd, self->op, &n, 1));
	ASSERT_EQ(0, stall_send(&ss, self->p.fd, h));
	ASSERT_EQ(0, bus1_handle_release(self->p.fd, h));
	ASSERT_EQ(0, bus1_node_destroy(self->o.fd, n));
	id = RECV_ONE_HANDLE(&self->p);
	EXPECT_NE(BUS1_HANDLE_INVALID, id);
	EXPECT_EQ(0, stalled_send_end(&ss));
	RECV_DESTROY(&self->p, id);
	EXPECT_EQ(0, bus1_handle_release(self->p.fd, id));
}

/* A thread that receives, waiting. */
struct receiver {
	int fd;
	pid_t tid;
	volatile int r;
	pthread_t thread;
};

static void *receiver_run(void *arg)
{
	struct receiver *w = arg;
	struct bus1_cmd_recv recv;

	__atomic_store_n(&w->tid, syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	bus1_recv_init(&recv, 0);
	w->r = ioctl(w->fd, BUS1_CMD_RECV, &recv) ? -errno : 0;
	return NULL;
}

/* Returns once it sleeps. */
static int receiver_start(struct receiver *w, int fd)
{
	pid_t tid;

	*w = (struct receiver){ .fd = fd, .r = 1 };
	if (pthread_create(&w->thread, NULL, receiver_run, w))
		return -EAGAIN;
	do {
		sched_yield();
		tid = __atomic_load_n(&w->tid, __ATOMIC_SEQ_CST);
	} while (!tid);
	wait_asleep(tid);
	return 0;
}

static void on_signal(int sig)
{
}

/* Signals it until it returns. */
static int receiver_interrupt(struct receiver *w)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGUSR1, &action, NULL);
	while (w->r == 1) {
		pthread_kill(w->thread, SIGUSR1);
		sched_yield();
	}
	pthread_join(w->thread, NULL);
	return w->r;
}

TEST_F(race, signal_ends_the_wait_for_another_recv)
{
	struct bus1_cmd_recv recv;
	struct receiver waiter;
	struct stalled s;

	ASSERT_EQ(0, bus1_send_str(self->o.fd, self->op, "x"));
	bus1_recv_init(&recv, 0);
	STALL_RESULT(&s, self->p.fd, BUS1_CMD_RECV, &recv);
	ASSERT_EQ(0, receiver_start(&waiter, self->p.fd));
	EXPECT_EQ(-EINTR, receiver_interrupt(&waiter));
	EXPECT_EQ(0, stalled_result_end(&s));
}

/* One is woken up for a message, and interrupted before it gets it. */
TEST_F(race, interrupted_receiver_leaves_the_message_to_another)
{
	int flags = fcntl(self->p.fd, F_GETFL);
	struct receiver first, second;
	struct bus1_cmd_recv recv;
	struct stalled s;

	ASSERT_EQ(0, fcntl(self->p.fd, F_SETFL, flags & ~O_NONBLOCK));
	ASSERT_EQ(0, msg_send(self->p.fd, .flags = BUS1_SEND_FLAG_SEED));
	ASSERT_EQ(0, receiver_start(&first, self->p.fd));
	ASSERT_EQ(0, receiver_start(&second, self->p.fd));
	bus1_recv_init(&recv, BUS1_RECV_FLAG_SEED);
	STALL_RESULT(&s, self->p.fd, BUS1_CMD_RECV, &recv);
	ASSERT_EQ(0, bus1_send_str(self->o.fd, self->op, "x"));
	EXPECT_EQ(-EINTR, receiver_interrupt(&first));
	EXPECT_EQ(0, stalled_result_end(&s));
	/* If it sleeps on, this never ends. */
	pthread_join(second.thread, NULL);
	EXPECT_EQ(0, second.r);
}

static volatile bool stop;

static void *poller(void *arg)
{
	while (!stop)
		peer_poll(*(int *)arg);
	return NULL;
}

TEST_F(race, poll_does_not_lose_what_recv_is_about_to_make_valid)
{
	struct bus1_cmd_recv recv;
	pthread_t thread;
	__u64 id, n;
	int i, rounds = scaled_rounds(N_ROUNDS);

	ASSERT_EQ(0, pthread_create(&thread, NULL, poller, &self->p.fd));
	for (i = 0; i < rounds; i++) {
		n = 0x1000 + 8 * i;
		ASSERT_EQ(0, bus1_send_handles(self->o.fd, self->op, &n, 1));
		ASSERT_EQ(0, bus1_nodes_destroy(self->o.fd,
				BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES, &n, 1));
		ASSERT_EQ(0, bus1_recv(self->p.fd, 0, &recv));
		id = recv_handle(&self->p, &recv, 0);
		ASSERT_NE(BUS1_HANDLE_INVALID, id);
		ASSERT_EQ(0, bus1_slice_release(self->p.fd, recv.msg.offset));
		ASSERT_EQ(0, bus1_recv(self->p.fd, 0, &recv));
		ASSERT_EQ(BUS1_MSG_NODE_DESTROY, recv.msg.type);
		ASSERT_EQ(0, bus1_handle_release(self->p.fd, id));
	}
	stop = true;
	pthread_join(thread, NULL);
}

TEST_F(race, unreachable_wins_over_a_node_that_cannot_be)
{
	__u64 h, fresh = 0x300;

	NODE(&self->p, 0x100);
	h = TRANSFER(&self->p, 0x100, &self->o);
	ASSERT_EQ(0, bus1_node_destroy(self->p.fd, 0x100));
	ASSERT_EQ(0, set_limits(self->o.fd, KEEP, 0, KEEP, KEEP));
	EXPECT_EQ(-EHOSTUNREACH, bus1_send_to(self->o.fd, &h, 1, NULL, 0,
					      &fresh, 1));
}

/* As many new nodes as a message can name, or almost: they are asked for one by one. */
TEST_F(race, nodes_beyond_the_limit_are_not_even_tried)
{
	size_t i, most = 1 << 20, scaled = scaled_rounds(most);
	size_t n = scaled < most ? scaled : most;
	__u64 *ids = calloc(n, sizeof(*ids));
	long long used = bus1_fdinfo(self->o.fd, "bus1-handles");

	ASSERT_NE(NULL, ids);
	/* Those within the limit are made: let a slow kernel make fewer. */
	if (scaled < most)
		ASSERT_EQ(0, set_limits(self->o.fd, KEEP, 8192, KEEP, KEEP));
	for (i = 0; i < n; i++)
		ids[i] = 0x10000 + 8 * i;
	EXPECT_EQ(-EDQUOT, bus1_send_to(self->o.fd, NULL, 0, NULL, 0, ids, n));
	EXPECT_EQ(used, bus1_fdinfo(self->o.fd, "bus1-handles"));
	ids[n - 1] = 3;
	EXPECT_EQ(-ENXIO, bus1_send_to(self->o.fd, NULL, 0, NULL, 0, ids, n));
	EXPECT_EQ(used, bus1_fdinfo(self->o.fd, "bus1-handles"));
	free(ids);
}

TEST_HARNESS_MAIN
