// SPDX-License-Identifier: GPL-2.0-only
/*
 * Commands that are stopped in the middle, for as long as user space likes: they
 * touch memory whose page faults a userfaultfd reports, and nobody answers them.
 * What others do must not wait for that.
 */
#include <linux/userfaultfd.h>
#include "bus1_msg.h"

/* A page that stops whoever touches it, until it is resolved. */
struct stall {
	int uffd;
	__u8 *page;
};

static int stall_register(int uffd, void *page)
{
	struct uffdio_register reg = {
		.range = { ptr(page), PAGE },
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};

	return ioctl(uffd, UFFDIO_REGISTER, &reg) ? -errno : 0;
}

/* Returns 0, or -errno: -ENOSYS if the kernel has no userfaultfd. */
static int stall_init(struct stall *stall)
{
	struct uffdio_api api = { .api = UFFD_API };

	stall->page = MAP_FAILED;
	stall->uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (stall->uffd < 0)
		return -errno;
	stall->page = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stall->page == MAP_FAILED || ioctl(stall->uffd, UFFDIO_API, &api))
		return -errno;
	return stall_register(stall->uffd, stall->page);
}

/* Who is stopped then finds that there is no page. */
static void stall_deinit(struct stall *stall)
{
	if (stall->page != MAP_FAILED)
		munmap(stall->page, PAGE);
	if (stall->uffd >= 0)
		close(stall->uffd);
	stall->uffd = -1;
	stall->page = MAP_FAILED;
}

/* Waits until somebody is stopped. */
static int stall_wait(struct stall *stall)
{
	struct uffd_msg msg;
	ssize_t n;

	do {
		n = read(stall->uffd, &msg, sizeof(msg));
	} while (n < 0 && errno == EINTR);
	return n == sizeof(msg) && msg.event == UFFD_EVENT_PAGEFAULT ? 0 : -EIO;
}

/* Puts @content, a page, there; and all go on that were stopped. */
static int stall_resolve(struct stall *stall, const void *content)
{
	struct uffdio_copy copy = {
		.dst = ptr(stall->page), .src = ptr(content), .len = PAGE,
	};

	return ioctl(stall->uffd, UFFDIO_COPY, &copy) ? -errno : 0;
}

/* The next one that touches the page is stopped again. */
static int stall_rearm(struct stall *stall)
{
	return madvise(stall->page, PAGE, MADV_DONTNEED) ? -errno : 0;
}

static bool done(const int *flag)
{
	return __atomic_load_n(flag, __ATOMIC_ACQUIRE);
}

/*
 * Senders
 */

enum where { COMMAND, DESTINATIONS, VECS, HANDLES, FILES, PAYLOAD, ERRORS };

FIXTURE(sender) {
	struct net net;
	struct peer other;	/* knows b and c, too */
	__u64 ob, oc;
	struct stall stall;
	pthread_t thread;
	__u8 content[PAGE_MAX];
	struct bus1_cmd_send *cmd;
	struct bus1_cmd_send send;
	__u64 dests[2], handle;
	__s32 errors[2];
	struct iovec vec;
	int file;
	int done, r;
};

FIXTURE_VARIANT(sender) {
	enum where where;
};

FIXTURE_VARIANT_ADD(sender, command) { COMMAND };
FIXTURE_VARIANT_ADD(sender, destinations) { DESTINATIONS };
FIXTURE_VARIANT_ADD(sender, vecs) { VECS };
FIXTURE_VARIANT_ADD(sender, handles) { HANDLES };
FIXTURE_VARIANT_ADD(sender, fds) { FILES };
FIXTURE_VARIANT_ADD(sender, payload) { PAYLOAD };
FIXTURE_VARIANT_ADD(sender, errors) { ERRORS };

static void *sender_fn(void *arg)
{
	FIXTURE_DATA(sender) *self = arg;

	self->r = bus1_ioctl(self->net.a.fd, BUS1_CMD_SEND, self->cmd);
	__atomic_store_n(&self->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

/* Moves @size bytes at @data to the page that stops whoever reads them. */
static void *stall_move(FIXTURE_DATA(sender) *self, const void *data,
			size_t size)
{
	memcpy(self->content, data, size);
	return self->stall.page;
}

static const char payload[] = "what was stopped";

/* A message of a to b and c, one part of which is on the page. */
static void sender_compose(FIXTURE_DATA(sender) *self, enum where where)
{
	struct bus1_cmd_send *send = &self->send;

	self->cmd = send;
	self->dests[0] = self->net.ab;
	self->dests[1] = self->net.ac;
	self->handle = 0x4000;
	self->vec = (struct iovec){ (void *)payload, strlen(payload) };
	if (where == PAYLOAD)
		self->vec.iov_base = stall_move(self, payload, strlen(payload));
	*send = (struct bus1_cmd_send){
		.ptr_destinations = ptr(self->dests), .n_destinations = 2,
		.ptr_errors = ptr(self->errors),
		.ptr_vecs = ptr(&self->vec), .n_vecs = 1,
		.ptr_handles = ptr(&self->handle), .n_handles = 1,
		.ptr_fds = ptr(&self->file), .n_fds = 1,
	};
	switch (where) {
	case COMMAND:
		self->cmd = stall_move(self, send, sizeof(*send));
		break;
	case DESTINATIONS:
		send->ptr_destinations = ptr(stall_move(self, self->dests,
							sizeof(self->dests)));
		break;
	case VECS:
		send->ptr_vecs = ptr(stall_move(self, &self->vec,
						sizeof(self->vec)));
		break;
	case HANDLES:
		send->ptr_handles = ptr(stall_move(self, &self->handle,
						   sizeof(self->handle)));
		break;
	case FILES:
		send->ptr_fds = ptr(stall_move(self, &self->file,
					       sizeof(self->file)));
		break;
	case PAYLOAD:
		break;
	case ERRORS:
		send->ptr_errors = ptr(self->stall.page);
		break;
	}
}

FIXTURE_SETUP(sender)
{
	int r;

	self->net.a.fd = -1;
	self->net.b.fd = -1;
	self->net.c.fd = -1;
	self->other.fd = -1;
	r = stall_init(&self->stall);
	if (r == -ENOSYS)
		SKIP(return, "this kernel has no userfaultfd");
	ASSERT_EQ(0, r);
	NET_INIT(&self->net);
	PEER_OPEN(&self->other);
	self->ob = TRANSFER(&self->net.b, NODE_B, &self->other);
	self->oc = TRANSFER(&self->net.c, NODE_C, &self->other);
	self->file = event_new();
	ASSERT_LE(0, self->file);
	sender_compose(self, variant->where);
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, sender_fn, self));
	ASSERT_EQ(0, stall_wait(&self->stall));
}

FIXTURE_TEARDOWN(sender)
{
	stall_deinit(&self->stall);
	net_deinit(&self->net);
	peer_close(&self->other);
	close(self->file);
}

/* Lets the sender go on; what SEND returns. */
static int sender_finish(FIXTURE_DATA(sender) *self)
{
	int r;

	if (done(&self->done))
		return -EPROTO;
	r = stall_resolve(&self->stall, self->content);
	if (r)
		return r;
	pthread_join(self->thread, NULL);
	return self->r;
}

/* Receives what was stopped, and gives back all that came with it. */
static void t_recv_stopped(struct __test_metadata *_metadata,
			   struct peer *peer)
{
	struct bus1_cmd_recv r = RECV_FLAGS(peer, BUS1_RECV_FLAG_INSTALL_FDS);

	ASSERT_EQ(BUS1_MSG_DATA, r.msg.type);
	ASSERT_EQ(strlen(payload), r.msg.n_bytes);
	EXPECT_EQ(0, memcmp(slice_bytes(peer, &r), payload, strlen(payload)));
	ASSERT_EQ(1, r.msg.n_handles);
	EXPECT_EQ(0, bus1_handle_release(peer->fd, recv_handle(peer, &r, 0)));
	ASSERT_EQ(1, r.msg.n_fds);
	EXPECT_EQ(0, close(recv_fd(peer, &r, 0)));
	EXPECT_EQ(0, bus1_slice_release(peer->fd, r.msg.offset));
}

TEST_F(sender, stopped_delays_nobody_elses_messages)
{
	const __u64 both[] = { self->oc, self->ob };
	int i;

	for (i = 0; i < 10; i++) {
		RECV_NONE(&self->net.b);
		ASSERT_EQ(0, bus1_send_str(self->other.fd, self->ob, "one"));
		EXPECT_EQ(POLLIN | POLLOUT, peer_poll(self->net.b.fd));
		RECV_STR(&self->net.b, NODE_B, "one");
		ASSERT_EQ(0, bus1_send_to(self->other.fd, both, 2, "all", 3,
					  NULL, 0));
		EXPECT_EQ(POLLIN | POLLOUT, peer_poll(self->net.b.fd));
		EXPECT_EQ(POLLIN | POLLOUT, peer_poll(self->net.c.fd));
		RECV_STR(&self->net.b, NODE_B, "all");
		RECV_STR(&self->net.c, NODE_C, "all");
	}
	/* Those that came meanwhile come first, also if they wait. */
	ASSERT_EQ(0, bus1_send_str(self->other.fd, self->ob, "before"));
	ASSERT_EQ(0, sender_finish(self));
	RECV_STR(&self->net.b, NODE_B, "before");
	t_recv_stopped(_metadata, &self->net.b);
	t_recv_stopped(_metadata, &self->net.c);
	RECV_NONE(&self->net.b);
	RECV_NONE(&self->net.c);
	RECV_RELEASE(&self->net.a, self->handle);
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-slices"));
	EXPECT_EQ(0, bus1_fdinfo(self->net.c.fd, "bus1-slices"));
}

TEST_F(sender, stopped_delays_no_other_command_of_its_own_peer)
{
	__u64 id;

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "mine"));
	RECV_STR(&self->net.b, NODE_B, "mine");
	id = TRANSFER(&self->net.a, 0x500, &self->net.b);
	ASSERT_EQ(0, bus1_send_str(self->net.b.fd, id, "answer"));
	RECV_STR(&self->net.a, 0x500, "answer");
	ASSERT_EQ(0, bus1_node_destroy(self->net.a.fd, 0x500));
	RECV_DESTROY(&self->net.a, 0x500);
	RECV_DESTROY(&self->net.b, id);
	ASSERT_EQ(0, sender_finish(self));
	t_recv_stopped(_metadata, &self->net.b);
	t_recv_stopped(_metadata, &self->net.c);
}

TEST_F(sender, stopped_delays_no_destruction)
{
	bool evaluated = variant->where == PAYLOAD || variant->where == ERRORS;
	int r;

	ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd, NODE_B));
	RECV_DESTROY(&self->net.b, NODE_B);
	RECV_DESTROY(&self->net.a, self->net.ab);
	RECV_DESTROY(&self->other, self->ob);
	r = sender_finish(self);
	/* It is told, unless it looked before: then the message is dropped. */
	if (r != -EHOSTUNREACH) {
		EXPECT_TRUE(evaluated);
		ASSERT_EQ(0, r);
		t_recv_stopped(_metadata, &self->net.c);
	}
	RECV_NONE(&self->net.b);
	RECV_NONE(&self->net.c);
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-slices"));
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-fds"));
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-bytes"));
	EXPECT_EQ(0, bus1_fdinfo(self->net.c.fd, "bus1-slices"));
}

TEST_F(sender, stopped_delays_no_disconnect_of_a_receiver)
{
	int r;

	ASSERT_EQ(0, bus1_disconnect(self->net.b.fd));
	RECV_DESTROY(&self->net.a, self->net.ab);
	r = sender_finish(self);
	if (r != -EHOSTUNREACH) {
		ASSERT_EQ(0, r);
		t_recv_stopped(_metadata, &self->net.c);
	}
	RECV_NONE(&self->net.c);
	EXPECT_IDLE(&self->net.b);
}

TEST_F(sender, stopped_makes_the_disconnect_of_its_own_peer_wait)
{
	pid_t pid;
	int r;

	/* In a process that can be watched; the peer is the same. */
	pid = FORK();
	if (!pid)
		_exit(bus1_disconnect(self->net.a.fd) ? 1 : 0);
	wait_asleep(pid);
	EXPECT_EQ(0, waitpid(pid, NULL, WNOHANG));
	/* Nobody is told before it happens. */
	EXPECT_EQ(0, peer_poll(self->net.a.fd) & POLLHUP);
	ASSERT_EQ(0, bus1_send_str(self->other.fd, self->ob, "others go on"));
	RECV_STR(&self->net.b, NODE_B, "others go on");
	EXPECT_EQ(0, waitpid(pid, NULL, WNOHANG));
	r = sender_finish(self);
	WAIT(pid);
	/* It had begun before. */
	ASSERT_EQ(0, r);
	EXPECT_IDLE(&self->net.a);
	RECV_FLAGS(&self->net.b, 0);
	RECV_FLAGS(&self->net.c, 0);
}

TEST_F(sender, stopped_for_good_fails_and_leaves_nothing)
{
	/* The page goes, and nothing takes its place. */
	stall_deinit(&self->stall);
	pthread_join(self->thread, NULL);
	EXPECT_EQ(-EFAULT, self->r);
	RECV_NONE(&self->net.b);
	RECV_NONE(&self->net.c);
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-slices"));
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-fds"));
	EXPECT_EQ(0, bus1_fdinfo(self->net.c.fd, "bus1-bytes"));
}

/*
 * Receivers. The command is read when RECV begins, and written to at its end:
 * a receiver that waits in between can be made to stop at its result.
 */

FIXTURE(receiver) {
	struct net net;
	struct stall stall;
	pthread_t thread;
	struct bus1_cmd_recv *cmd;
	__u8 content[PAGE_MAX];
	int done, r;
	pid_t tid;
};

static void *receiver_fn(void *arg)
{
	FIXTURE_DATA(receiver) *self = arg;

	__atomic_store_n(&self->tid, syscall(SYS_gettid), __ATOMIC_RELEASE);
	self->r = bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV, self->cmd);
	__atomic_store_n(&self->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

/*
 * It is stopped once there is something to receive: the command is on a page that
 * is there until the receiver sleeps.
 */
static void t_receiver_start(struct __test_metadata *_metadata,
			     FIXTURE_DATA(receiver) *self)
{
	struct bus1_cmd_recv cmd;

	self->done = 0;
	self->tid = 0;
	bus1_recv_init(&cmd, 0);
	memcpy(self->content, &cmd, sizeof(cmd));
	ASSERT_EQ(0, stall_resolve(&self->stall, self->content));
	self->cmd = (void *)self->stall.page;
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, receiver_fn, self));
	while (!__atomic_load_n(&self->tid, __ATOMIC_ACQUIRE))
		sched_yield();
	thread_wait_asleep(self->tid);
	ASSERT_EQ(0, stall_rearm(&self->stall));
}

FIXTURE_SETUP(receiver)
{
	int r;

	self->net.a.fd = -1;
	self->net.b.fd = -1;
	self->net.c.fd = -1;
	r = stall_init(&self->stall);
	if (r == -ENOSYS)
		SKIP(return, "this kernel has no userfaultfd");
	ASSERT_EQ(0, r);
	PEER_OPEN(&self->net.a);
	PEER_OPEN_BLOCKING(&self->net.b);
	PEER_OPEN(&self->net.c);
	NODE(&self->net.b, NODE_B);
	NODE(&self->net.c, NODE_C);
	self->net.ab = TRANSFER(&self->net.b, NODE_B, &self->net.a);
	self->net.ac = TRANSFER(&self->net.c, NODE_C, &self->net.a);
	t_receiver_start(_metadata, self);
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "first"));
	ASSERT_EQ(0, stall_wait(&self->stall));
}

FIXTURE_TEARDOWN(receiver)
{
	stall_deinit(&self->stall);
	net_deinit(&self->net);
}

static int receiver_finish(FIXTURE_DATA(receiver) *self)
{
	int r;

	if (done(&self->done))
		return -EPROTO;
	r = stall_resolve(&self->stall, self->content);
	if (r)
		return r;
	pthread_join(self->thread, NULL);
	return self->r;
}

/* What the stopped receiver has got. */
static void t_expect_first(struct __test_metadata *_metadata,
			   FIXTURE_DATA(receiver) *self)
{
	const struct bus1_cmd_recv *cmd = self->cmd;

	EXPECT_EQ(BUS1_MSG_DATA, cmd->msg.type);
	EXPECT_EQ(NODE_B, cmd->msg.destination);
	ASSERT_EQ(5, cmd->msg.n_bytes);
	EXPECT_EQ(0, memcmp(slice_bytes(&self->net.b, cmd), "first", 5));
	EXPECT_EQ(0, bus1_slice_release(self->net.b.fd, cmd->msg.offset));
}

TEST_F(receiver, stopped_delays_neither_senders_nor_poll)
{
	const __u64 both[] = { self->net.ab, self->net.ac };
	int i;

	for (i = 0; i < 10; i++) {
		ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab,
					   "more"));
		EXPECT_EQ(POLLIN | POLLOUT, peer_poll(self->net.b.fd));
		ASSERT_EQ(0, bus1_send_to(self->net.a.fd, both, 2, "all", 3,
					  NULL, 0));
		RECV_STR(&self->net.c, NODE_C, "all");
		EXPECT_EQ(POLLIN | POLLOUT, peer_poll(self->net.b.fd));
	}
	ASSERT_EQ(0, receiver_finish(self));
	t_expect_first(_metadata, self);
	for (i = 0; i < 10; i++) {
		RECV_STR(&self->net.b, NODE_B, "more");
		RECV_STR(&self->net.b, NODE_B, "all");
	}
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-queue"));
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-slices"));
}

TEST_F(receiver, stopped_delays_nobody_who_destroys_or_disconnects)
{
	__u64 node = 0x300, cb, cc;

	cb = TRANSFER(&self->net.c, node, &self->net.b);
	ASSERT_EQ(0, bus1_node_destroy(self->net.c.fd, node));
	RECV_DESTROY(&self->net.c, node);
	ASSERT_EQ(0, bus1_disconnect(self->net.c.fd));
	RECV_DESTROY(&self->net.a, self->net.ac);
	/* Its own sends, transfers and releases go on. */
	cc = TRANSFER(&self->net.b, 0x700, &self->net.a);
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, cc, "second"));
	ASSERT_EQ(0, receiver_finish(self));
	t_expect_first(_metadata, self);
	RECV_DESTROY(&self->net.b, cb);
	RECV_STR(&self->net.b, 0x700, "second");
}

/* The receiver goes on, and is then started once more. */
static void t_receiver_restart(struct __test_metadata *_metadata,
			       FIXTURE_DATA(receiver) *self)
{
	ASSERT_EQ(0, receiver_finish(self));
	t_expect_first(_metadata, self);
	ASSERT_EQ(0, stall_rearm(&self->stall));
	t_receiver_start(_metadata, self);
}

/* It is stopped when it receives that the last handle was released. */
static void t_receiver_stop_released(struct __test_metadata *_metadata,
				     FIXTURE_DATA(receiver) *self)
{
	t_receiver_restart(_metadata, self);
	ASSERT_EQ(0, bus1_handle_release(self->net.a.fd, self->net.ab));
	ASSERT_EQ(0, stall_wait(&self->stall));
	self->net.ab = TRANSFER(&self->net.b, NODE_B, &self->net.a);
	ASSERT_EQ(0, bus1_handle_release(self->net.a.fd, self->net.ab));
}

static void t_expect_release(struct __test_metadata *_metadata,
			     FIXTURE_DATA(receiver) *self)
{
	ASSERT_EQ(0, receiver_finish(self));
	EXPECT_EQ(BUS1_MSG_NODE_RELEASE, self->cmd->msg.type);
	EXPECT_EQ(NODE_B, self->cmd->msg.destination);
}

TEST_F(receiver, stopped_in_a_release_gets_the_next_one_before_the_destruction)
{
	t_receiver_stop_released(_metadata, self);
	ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd, NODE_B));
	t_expect_release(_metadata, self);
	RECV_RELEASE(&self->net.b, NODE_B);
	RECV_DESTROY(&self->net.b, NODE_B);
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-queue"));
}

TEST_F(receiver, stopped_in_a_release_gets_no_other_that_is_taken_back)
{
	t_receiver_stop_released(_metadata, self);
	self->net.ab = TRANSFER(&self->net.b, NODE_B, &self->net.a);
	t_expect_release(_metadata, self);
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-queue"));
	ASSERT_EQ(0, bus1_handle_release(self->net.a.fd, self->net.ab));
	RECV_RELEASE(&self->net.b, NODE_B);
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-queue"));
}

/* The owner drops its last reference while it is about to get another. */
TEST_F(receiver, stopped_with_a_handle_of_its_own_loses_no_message)
{
	__u64 carried = TRANSFER(&self->net.b, 0x700, &self->net.a);

	t_receiver_restart(_metadata, self);
	ASSERT_EQ(0, bus1_send_to(self->net.a.fd, &self->net.ab, 1, "first", 5,
				  &carried, 1));
	ASSERT_EQ(0, stall_wait(&self->stall));
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, carried, "second"));
	ASSERT_EQ(0, bus1_nodes_destroy(self->net.b.fd,
					BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES,
					(__u64[]){ 0x700 }, 1));
	RECV_DESTROY(&self->net.a, carried);
	ASSERT_EQ(0, receiver_finish(self));
	EXPECT_EQ(1, self->cmd->msg.n_handles);
	t_expect_first(_metadata, self);
	RECV_STR(&self->net.b, 0x700, "second");
	RECV_DESTROY(&self->net.b, 0x700);
	EXPECT_EQ(0, bus1_handle_release(self->net.b.fd, 0x700));
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-queue"));
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-slices"));
}

TEST_F(receiver, stopped_makes_the_disconnect_of_its_peer_wait)
{
	pid_t pid;

	pid = FORK();
	if (!pid)
		_exit(bus1_disconnect(self->net.b.fd) ? 1 : 0);
	wait_asleep(pid);
	EXPECT_EQ(0, peer_poll(self->net.b.fd) & POLLHUP);
	/* Whoever sends to it is not held up; nobody will get this. */
	EXPECT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "too late"));
	EXPECT_EQ(0, waitpid(pid, NULL, WNOHANG));
	ASSERT_EQ(0, receiver_finish(self));
	WAIT(pid);
	EXPECT_EQ(BUS1_MSG_DATA, self->cmd->msg.type);
	EXPECT_EQ(POLLHUP, peer_poll(self->net.b.fd));
	RECV_DESTROY(&self->net.a, self->net.ab);
	EXPECT_IDLE(&self->net.b);
}

/* A second receiver that does not wait for messages. */
struct impatient {
	int fd;
	bool by_send_recv;
	struct bus1_cmd_recv recv;
	struct bus1_cmd_send_recv send_recv;
	pid_t tid;
	int done, r;
};

static void *impatient_fn(void *arg)
{
	struct impatient *i = arg;

	__atomic_store_n(&i->tid, syscall(SYS_gettid), __ATOMIC_RELEASE);
	if (i->by_send_recv)
		i->r = bus1_ioctl(i->fd, BUS1_CMD_SEND_RECV, &i->send_recv);
	else
		i->r = bus1_ioctl(i->fd, BUS1_CMD_RECV, &i->recv);
	__atomic_store_n(&i->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

/*
 * The message that it is stopped with stays where it was, so it was there all the time:
 * nobody may be told that there is none.
 */
static void t_impatient(struct __test_metadata *_metadata,
			FIXTURE_DATA(receiver) *self, bool by_send_recv)
{
	struct impatient i = { .fd = self->net.b.fd, .by_send_recv = by_send_recv };
	pthread_t thread;

	bus1_recv_init(&i.recv, 0);
	i.send_recv.ptr_messages = ptr(&i.recv.msg);
	i.send_recv.n_messages = 1;
	i.send_recv.max_offset = BUS1_OFFSET_INVALID;
	ASSERT_EQ(0, pthread_create(&thread, NULL, impatient_fn, &i));
	while (!__atomic_load_n(&i.tid, __ATOMIC_ACQUIRE))
		sched_yield();
	/* It is done at once, or sleeps: then only this goes on */
	while (!done(&i.done) && !strchr("SZX", task_state(i.tid)))
		sched_yield();
	EXPECT_FALSE(done(&i.done));

	stall_deinit(&self->stall);
	pthread_join(self->thread, NULL);
	EXPECT_EQ(-EFAULT, self->r);
	pthread_join(thread, NULL);
	ASSERT_EQ(0, i.r);
	self->cmd = &i.recv;
	t_expect_first(_metadata, self);
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-queue"));
}

TEST_F(receiver, stopped_that_fails_is_waited_for_by_one_that_does_not_block)
{
	ASSERT_EQ(0, fcntl(self->net.b.fd, F_SETFL, O_RDWR | O_NONBLOCK));
	t_impatient(_metadata, self, false);
}

TEST_F(receiver, stopped_that_fails_is_waited_for_by_one_whose_time_is_over)
{
	t_impatient(_metadata, self, true);
}

TEST_F(receiver, stopped_for_good_loses_no_message)
{
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "second"));
	stall_deinit(&self->stall);
	pthread_join(self->thread, NULL);
	EXPECT_EQ(-EFAULT, self->r);
	EXPECT_EQ(POLLIN | POLLOUT, peer_poll(self->net.b.fd));
	EXPECT_EQ(-EFAULT, bus1_ioctl(self->net.b.fd, BUS1_CMD_RECV,
				      bad_readonly(&(struct bus1_cmd_recv){
					.max_offset = BUS1_OFFSET_INVALID },
					sizeof(r))));
	RECV_STR(&self->net.b, NODE_B, "first");
	RECV_STR(&self->net.b, NODE_B, "second");
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-queue"));
}

/*
 * Transfers. The command lies on two pages: it is read from both, and stops as the
 * result is written to the second one, which is protected against that.
 */

FIXTURE(transferrer) {
	struct net net;
	struct peer p;		/* gets a handle to NODE_B */
	__u64 pb;		/* that it has already, or 0 */
	char before[8192];
	struct stall stall;
	pthread_t thread;
	struct bus1_cmd_handle_transfer *cmd;
	int fd;
	int done, r;
};

FIXTURE_VARIANT(transferrer) {
	bool own;		/* the owner does it, or who has a handle */
	bool holds;		/* p knows the node */
};

FIXTURE_VARIANT_ADD(transferrer, of_owner_to_stranger) { .own = true };
FIXTURE_VARIANT_ADD(transferrer, of_owner_to_holder) { true, true };
FIXTURE_VARIANT_ADD(transferrer, of_holder_to_stranger) {};
FIXTURE_VARIANT_ADD(transferrer, of_holder_to_holder) { .holds = true };

/*
 * Two pages that are there; whoever writes to the second one is stopped once that is
 * protected. -EOPNOTSUPP if the kernel has no userfaultfd that does it.
 */
static int stall_init_write(struct stall *stall)
{
	struct uffdio_api api = {
		.api = UFFD_API,
		.features = UFFD_FEATURE_PAGEFAULT_FLAG_WP,
	};
	struct uffdio_register reg = { .mode = UFFDIO_REGISTER_MODE_WP };

	stall->page = MAP_FAILED;
	stall->uffd = syscall(SYS_userfaultfd, O_CLOEXEC);
	if (stall->uffd < 0)
		return errno == ENOSYS ? -EOPNOTSUPP : -errno;
	if (ioctl(stall->uffd, UFFDIO_API, &api))
		return errno == EINVAL ? -EOPNOTSUPP : -errno;
	stall->page = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
			   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (stall->page == MAP_FAILED)
		return -errno;
	memset(stall->page, 0, 2 * PAGE);
	reg.range = (struct uffdio_range){ ptr(stall->page) + PAGE, PAGE };
	return ioctl(stall->uffd, UFFDIO_REGISTER, &reg) ? -errno : 0;
}

/* Lets the write go on that was stopped, or stops the next one. */
static int stall_protect(struct stall *stall, bool on)
{
	struct uffdio_writeprotect protect = {
		.range = { ptr(stall->page) + PAGE, PAGE },
		.mode = on ? UFFDIO_WRITEPROTECT_MODE_WP : 0,
	};

	return ioctl(stall->uffd, UFFDIO_WRITEPROTECT, &protect) ? -errno : 0;
}

static void *transferrer_fn(void *arg)
{
	FIXTURE_DATA(transferrer) *self = arg;

	self->r = bus1_ioctl(self->fd, BUS1_CMD_HANDLE_TRANSFER, self->cmd);
	__atomic_store_n(&self->done, 1, __ATOMIC_RELEASE);
	return NULL;
}

FIXTURE_SETUP(transferrer)
{
	size_t first = offsetof(struct bus1_cmd_handle_transfer, dst_handle);
	int r;

	self->net.a.fd = -1;
	self->net.b.fd = -1;
	self->net.c.fd = -1;
	self->p.fd = -1;
	r = stall_init_write(&self->stall);
	if (r == -EOPNOTSUPP)
		SKIP(return, "this kernel has no userfaultfd for writes");
	ASSERT_EQ(0, r);
	NET_INIT(&self->net);
	PEER_OPEN(&self->p);
	if (variant->holds)
		self->pb = TRANSFER(&self->net.b, NODE_B, &self->p);
	fdinfo_text(self->p.fd, self->before, sizeof(self->before));
	self->fd = variant->own ? self->net.b.fd : self->net.a.fd;
	self->cmd = (void *)(self->stall.page + PAGE - first);
	*self->cmd = (struct bus1_cmd_handle_transfer){
		.src_handle = variant->own ? NODE_B : self->net.ab,
		.dst_fd = self->p.fd,
		.dst_handle = BUS1_HANDLE_INVALID,
	};
	ASSERT_EQ(0, stall_protect(&self->stall, true));
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, transferrer_fn, self));
	ASSERT_EQ(0, stall_wait(&self->stall));
	EXPECT_EQ(BUS1_HANDLE_INVALID, self->cmd->dst_handle);
}

FIXTURE_TEARDOWN(transferrer)
{
	if (self->stall.uffd >= 0)
		close(self->stall.uffd);
	if (self->stall.page != MAP_FAILED)
		munmap(self->stall.page, 2 * PAGE);
	net_deinit(&self->net);
	peer_close(&self->p);
}

/* Lets it go on; what HANDLE_TRANSFER returns. */
static int transferrer_finish(FIXTURE_DATA(transferrer) *self)
{
	int r;

	if (done(&self->done))
		return -EPROTO;
	r = stall_protect(&self->stall, false);
	if (r)
		return r;
	pthread_join(self->thread, NULL);
	return self->r;
}

/* What it waits for cannot be: the page can only be read from now on. */
static int transferrer_fail(FIXTURE_DATA(transferrer) *self)
{
	if (done(&self->done))
		return -EPROTO;
	if (mprotect(self->stall.page, 2 * PAGE, PROT_READ))
		return -errno;
	close(self->stall.uffd);
	self->stall.uffd = -1;
	pthread_join(self->thread, NULL);
	return self->r;
}

/* Destroys the node; p is told if it knows that, and of nothing else. */
static void t_transferrer_destroy(struct __test_metadata *_metadata,
				  FIXTURE_DATA(transferrer) *self)
{
	ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd, NODE_B));
	RECV_DESTROY(&self->net.b, NODE_B);
	RECV_DESTROY(&self->net.a, self->net.ab);
	if (self->pb)
		RECV_DESTROY(&self->p, self->pb);
	RECV_NONE(&self->p);
}

/* Nothing was given to p, and it has what it had. */
static void t_expect_nothing_given(struct __test_metadata *_metadata,
				   FIXTURE_DATA(transferrer) *self)
{
	char now[sizeof(self->before)];

	EXPECT_EQ(BUS1_HANDLE_INVALID, self->cmd->dst_handle);
	RECV_NONE(&self->p);
	fdinfo_text(self->p.fd, now, sizeof(now));
	EXPECT_STREQ(self->before, now);
	if (self->pb)
		EXPECT_EQ(1, bus1_drain_refs(self->p.fd, self->pb));
	EXPECT_IDLE(&self->p);
}

TEST_F(transferrer, stopped_is_told_that_the_node_was_destroyed)
{
	t_transferrer_destroy(_metadata, self);
	ASSERT_EQ(0, transferrer_finish(self));
	t_expect_nothing_given(_metadata, self);
}

TEST_F(transferrer, stopped_for_good_gives_no_destroyed_node)
{
	t_transferrer_destroy(_metadata, self);
	ASSERT_EQ(-EFAULT, transferrer_fail(self));
	t_expect_nothing_given(_metadata, self);
}

/* What an owner gives back is gone, though it may be about to get it again. */
TEST_F(transferrer, stopped_does_not_keep_what_its_owner_gives_back)
{
	__u64 id = NODE_B;

	/* The same again, to the owner */
	ASSERT_EQ(0, transferrer_finish(self));
	self->done = 0;
	self->cmd->dst_fd = self->net.b.fd;
	self->cmd->dst_handle = BUS1_HANDLE_INVALID;
	ASSERT_EQ(0, stall_protect(&self->stall, true));
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, transferrer_fn, self));
	ASSERT_EQ(0, stall_wait(&self->stall));

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "late"));
	ASSERT_EQ(0, bus1_nodes_destroy(self->net.b.fd,
					BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES,
					&id, 1));
	RECV_NONE(&self->net.b);
	ASSERT_EQ(0, transferrer_finish(self));
	EXPECT_EQ(BUS1_HANDLE_INVALID, self->cmd->dst_handle);
	RECV_NONE(&self->net.b);
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-queue"));
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-slices"));
}

struct poller {
	int fd;
	int stop;
};

static void *poller_fn(void *arg)
{
	struct poller *poller = arg;

	while (!__atomic_load_n(&poller->stop, __ATOMIC_ACQUIRE))
		peer_poll(poller->fd);
	return NULL;
}

/*
 * p gives its handle back while it is about to get it by a transfer, which waits, and
 * by a message, which comes before the destruction and brings it as the last of so many
 * that poll() finds the notification of the old one, which is void.
 */
TEST_F(transferrer, stopped_does_not_cost_a_notification)
{
	const size_t n = 8000;
	struct poller poller = { .fd = self->p.fd };
	struct bus1_cmd_recv cmd;
	const __u64 *handles;
	pthread_t thread;
	__u64 *ids, pn;
	size_t i;

	if (!variant->holds)
		SKIP(return, "there is nothing to release");
	ids = calloc(n + 1, sizeof(*ids));
	ASSERT_NE(NULL, ids);
	for (i = 0; i < n; i++)
		ids[i] = 0x10000 + 8 * i;
	ids[n] = self->net.ab;
	NODE(&self->p, 0x700);
	pn = TRANSFER(&self->p, 0x700, &self->net.a);
	ASSERT_EQ(0, bus1_send_handles(self->net.a.fd, pn, ids, n + 1));
	ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd, NODE_B));
	ASSERT_EQ(0, pthread_create(&thread, NULL, poller_fn, &poller));
	ASSERT_EQ(0, bus1_handle_release(self->p.fd, self->pb));
	bus1_recv_init(&cmd, 0);
	ASSERT_EQ(0, bus1_ioctl(self->p.fd, BUS1_CMD_RECV, &cmd));
	__atomic_store_n(&poller.stop, 1, __ATOMIC_RELEASE);
	pthread_join(thread, NULL);
	ASSERT_EQ(n + 1, cmd.msg.n_handles);
	handles = (void *)(self->p.pool + cmd.msg.offset);
	ASSERT_NE(BUS1_HANDLE_INVALID, handles[n]);
	RECV_DESTROY(&self->p, handles[n]);
	ASSERT_EQ(0, transferrer_finish(self));
	EXPECT_EQ(BUS1_HANDLE_INVALID, self->cmd->dst_handle);
	EXPECT_EQ(0, bus1_handle_release(self->p.fd, handles[n]));
	RECV_NONE(&self->p);
	free(ids);
}

/* What p gives back meanwhile is no business of p's any more. */
TEST_F(transferrer, stopped_does_not_hold_what_is_released)
{
	if (!variant->holds)
		SKIP(return, "there is nothing to release");
	ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd, NODE_B));
	ASSERT_EQ(0, bus1_handle_release(self->p.fd, self->pb));
	RECV_NONE(&self->p);
	ASSERT_EQ(0, transferrer_finish(self));
	EXPECT_EQ(BUS1_HANDLE_INVALID, self->cmd->dst_handle);
	RECV_NONE(&self->p);
	EXPECT_EQ(-ENXIO, bus1_handle_release(self->p.fd, self->pb));
	EXPECT_IDLE(&self->p);
}

TEST_F(transferrer, stopped_for_good_gives_nothing)
{
	ASSERT_EQ(-EFAULT, transferrer_fail(self));
	RECV_NONE(&self->p);
	t_transferrer_destroy(_metadata, self);
	t_expect_nothing_given(_metadata, self);
}

TEST_F(transferrer, stopped_gives_what_is_alive)
{
	__u64 id;

	RECV_NONE(&self->p);
	ASSERT_EQ(0, transferrer_finish(self));
	id = self->cmd->dst_handle;
	ASSERT_NE(BUS1_HANDLE_INVALID, id);
	if (self->pb)
		EXPECT_EQ(self->pb, id);
	self->pb = id;
	ASSERT_EQ(0, bus1_send_str(self->p.fd, id, "x"));
	RECV_STR(&self->net.b, NODE_B, "x");
	t_transferrer_destroy(_metadata, self);
	EXPECT_EQ(variant->holds ? 2 : 1, bus1_drain_refs(self->p.fd, id));
	EXPECT_IDLE(&self->p);
}

/*
 * Others
 */

FIXTURE(other) {
	struct net net;
	struct stall stall;
	pthread_t thread;
	__u8 content[PAGE_MAX];
	int r;
};

FIXTURE_SETUP(other)
{
	int r;

	self->net.a.fd = -1;
	self->net.b.fd = -1;
	self->net.c.fd = -1;
	r = stall_init(&self->stall);
	if (r == -ENOSYS)
		SKIP(return, "this kernel has no userfaultfd");
	ASSERT_EQ(0, r);
	NET_INIT(&self->net);
	pattern_fill(self->content, PAGE, 1);
}

FIXTURE_TEARDOWN(other)
{
	stall_deinit(&self->stall);
	net_deinit(&self->net);
}

static int send_page(int fd, __u64 flags, const __u64 *dst, size_t n_dst,
		     void *page)
{
	struct iovec vec = { page, PAGE };

	return msg_send(fd, .flags = flags, .dst = dst, .n_dst = n_dst,
			.vecs = &vec, .n_vecs = 1);
}

static void *seed_fn(void *arg)
{
	FIXTURE_DATA(other) *self = arg;

	self->r = send_page(self->net.b.fd, BUS1_SEND_FLAG_SEED, NULL, 0,
			    self->stall.page);
	return NULL;
}

struct two {
	struct bus1_cmd_send_recv *cmd;
	int fd;
	int r;
};

static void *two_fn(void *arg)
{
	struct two *two = arg;

	two->r = bus1_ioctl(two->fd, BUS1_CMD_SEND_RECV, two->cmd);
	return NULL;
}

/*
 * The second of two messages is told of on the page that stops; meanwhile the
 * argument becomes read-only. The first one was received, and that was told.
 */
TEST_F(other, stopped_receiver_of_two_keeps_the_first_though_it_cannot_tell_more)
{
	struct bus1_msg *messages;
	struct two two = { .fd = self->net.b.fd };
	struct bus1_cmd_recv first;
	__u8 *pages;

	/* The page that stops comes behind one that does not */
	pages = mmap(NULL, 2 * PAGE, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, pages);
	pages[0] = 1;
	ASSERT_EQ(0, munmap(self->stall.page, PAGE));
	self->stall.page = pages + PAGE;
	ASSERT_EQ(0, stall_register(self->stall.uffd, self->stall.page));
	messages = (void *)(self->stall.page - sizeof(*messages));
	two.cmd = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	ASSERT_NE(MAP_FAILED, two.cmd);
	*two.cmd = SEND_RECV(.ptr_messages = ptr(messages), .n_messages = 2);

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "one"));
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "two"));
	ASSERT_EQ(0, pthread_create(&self->thread, NULL, two_fn, &two));
	ASSERT_EQ(0, stall_wait(&self->stall));
	ASSERT_EQ(0, mprotect(two.cmd, PAGE, PROT_READ));
	ASSERT_EQ(0, stall_resolve(&self->stall, self->content));
	pthread_join(self->thread, NULL);
	EXPECT_EQ(0, two.r);
	EXPECT_EQ(1, two.cmd->n_received);
	first = msg_as_recv(&messages[0]);
	EXPECT_EQ(3, first.msg.n_bytes);
	EXPECT_EQ(0, memcmp("one", slice_bytes(&self->net.b, &first), 3));
	RECV_STR(&self->net.b, NODE_B, "two");
	ASSERT_EQ(0, bus1_slice_release(self->net.b.fd, first.msg.offset));
	munmap(two.cmd, PAGE);
	munmap(pages, PAGE);
}

TEST_F(other, stopped_sender_of_a_seed_delays_no_message)
{
	struct bus1_cmd_recv r;

	ASSERT_EQ(0, pthread_create(&self->thread, NULL, seed_fn, self));
	ASSERT_EQ(0, stall_wait(&self->stall));
	EXPECT_EQ(-EAGAIN, bus1_recv(self->net.b.fd, BUS1_RECV_FLAG_SEED, &r));
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "on"));
	RECV_STR(&self->net.b, NODE_B, "on");
	ASSERT_EQ(0, stall_resolve(&self->stall, self->content));
	pthread_join(self->thread, NULL);
	ASSERT_EQ(0, self->r);
	r = RECV_FLAGS(&self->net.b, BUS1_RECV_FLAG_SEED);
	ASSERT_EQ(PAGE, r.msg.n_bytes);
	EXPECT_TRUE(pattern_check(slice_bytes(&self->net.b, &r), PAGE, 1));
}

TEST_F(other, sender_killed_while_stopped_leaves_nothing)
{
	int ready = event_new(), i;
	struct stall stall;
	pid_t pid;

	for (i = 0; i < 10; i++) {
		pid = FORK();
		if (!pid) {
			/* Of its own, as memory is. */
			const __u64 dst[] = { self->net.ab, self->net.ac };
			pid_t parent = getpid();

			ASSERT_EQ(0, stall_init(&stall));
			if (!fork()) {
				/* Has the file, so can see who stops there. */
				prctl(PR_SET_PDEATHSIG, SIGKILL);
				if (getppid() == parent &&
				    !stall_wait(&stall))
					event_post(ready);
				pause();
			}
			send_page(self->net.a.fd, 0, dst, 2, stall.page);
			_exit(1);
		}
		event_wait(ready);
		ASSERT_EQ(0, kill(pid, SIGKILL));
		ASSERT_EQ(SIGKILL, wait_status(pid));
		RECV_NONE(&self->net.b);
		RECV_NONE(&self->net.c);
		EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-slices"));
		EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-bytes"));
		EXPECT_EQ(0, bus1_fdinfo(self->net.c.fd, "bus1-bytes"));
	}
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "alive"));
	RECV_STR(&self->net.b, NODE_B, "alive");
}

TEST_HARNESS_MAIN
