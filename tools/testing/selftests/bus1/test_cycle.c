// SPDX-License-Identifier: GPL-2.0-only
/*
 * Files that keep each other open: a peer whose file is kept by another file,
 * which travels in a message to that same peer, would stay for ever, and so would
 * all that is in its queue. Each route there is known is really built here, for
 * one peer, and for two that keep each other. Then every descriptor is closed,
 * and the end of a pipe, whose other end is in the queues, tells that all is gone.
 *
 * Routes through what only an administrator can set up are listed in bus1(7).
 */
#include <linux/android/binder.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/io_uring.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/epoll.h>
#include <sys/fanotify.h>
#include <sys/inotify.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "bus1_fuse.h"

#ifndef SYS_pidfd_getfd
#define SYS_pidfd_getfd	438
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open	434
#endif

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	120

#define N_PEERS		2
#define NODE_SELF	0x10ULL

/* What a file that keeps a peer needs beside itself; -1 where there is nothing. */
struct keeper {
	int fd;
	int other;
	pid_t pid;
	struct fuse_fs fuse;
	void *map;
};

static void keeper_init(struct keeper *k)
{
	memset(k, 0, sizeof(*k));
	k->fd = -1;
	k->other = -1;
	k->fuse.dev = -1;
}

/* All of it but k->fd, which travels. */
static void keeper_leave(struct keeper *k)
{
	if (k->map)
		munmap(k->map, 1 << 20);
	if (k->other >= 0)
		close(k->other);
	if (k->pid > 0) {
		kill(k->pid, SIGKILL);
		wait_status(k->pid);
	}
	if (k->fuse.dir[0])
		fuse_fs_unmount(&k->fuse);
	k->other = -1;
	k->pid = 0;
}

/* Sends @what over the unix socket @fd. */
static int unix_pass(int fd, int what)
{
	char control[CMSG_SPACE(sizeof(int))] = {}, byte = 0;
	struct iovec vec = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &vec, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &what, sizeof(int));
	return sendmsg(fd, &msg, 0) == 1 ? 0 : -errno;
}

/* Unix sockets are looked through for cycles when one of them is closed. */
static bool wait_eof(int fd)
{
	int sock;

	while (pipe_open(fd)) {
		sock = socket(AF_UNIX, SOCK_STREAM, 0);
		if (sock < 0)
			return false;
		close(sock);
		sched_yield();
	}
	return pipe_wait_eof(fd);
}

/* The routes: each makes k->fd, a file that keeps @peer, or at least refers to it. */

static int keep_itself(struct keeper *k, int peer)
{
	k->fd = fcntl(peer, F_DUPFD_CLOEXEC, 0);
	return 0;
}

static int keep_unix(struct keeper *k, int peer, int type)
{
	int fds[2];

	if (socketpair(AF_UNIX, type | SOCK_CLOEXEC, 0, fds))
		return -errno;
	k->fd = fds[0];
	k->other = fds[1];
	return unix_pass(fds[1], peer);
}

static int keep_unix_stream(struct keeper *k, int peer)
{
	return keep_unix(k, peer, SOCK_STREAM);
}

static int keep_unix_dgram(struct keeper *k, int peer)
{
	return keep_unix(k, peer, SOCK_DGRAM);
}

static int keep_unix_seqpacket(struct keeper *k, int peer)
{
	return keep_unix(k, peer, SOCK_SEQPACKET);
}

/* A connection that nobody has accepted holds the peer. */
static int keep_unix_listener(struct keeper *k, int peer)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	socklen_t size = sizeof(address);

	k->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	k->other = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	/* The kernel chooses a name. */
	if (bind(k->fd, (void *)&address, sizeof(sa_family_t)) ||
	    listen(k->fd, 1) ||
	    getsockname(k->fd, (void *)&address, &size) ||
	    connect(k->other, (void *)&address, size))
		return -errno;
	return unix_pass(k->other, peer);
}

/* Its own queue holds the socket, and the peer: unix sockets can undo that. */
static int keep_unix_cycle(struct keeper *k, int peer)
{
	int fds[2], r;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds))
		return -errno;
	r = unix_pass(fds[1], fds[0]);
	if (!r)
		r = unix_pass(fds[0], fds[1]);
	if (!r)
		r = unix_pass(fds[1], peer);
	k->fd = fds[0];
	k->other = fds[1];
	return r;
}

#ifdef SYS_io_uring_setup
static int keep_uring(struct keeper *k, int peer)
{
	struct io_uring_params params = {};

	k->fd = syscall(SYS_io_uring_setup, 4, &params);
	if (k->fd < 0)
		return -errno;
	return syscall(SYS_io_uring_register, k->fd, IORING_REGISTER_FILES,
		       &peer, 1) < 0 ? -errno : 0;
}

/* A poll that does not end holds the peer. */
static int keep_uring_poll(struct keeper *k, int peer)
{
	struct io_uring_params params = {};
	struct io_uring_sqe *sqes;
	__u8 *ring;
	int r;

	k->fd = syscall(SYS_io_uring_setup, 4, &params);
	if (k->fd < 0)
		return -errno;
	ring = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd,
		    IORING_OFF_SQ_RING);
	sqes = mmap(NULL, PAGE, PROT_READ | PROT_WRITE, MAP_SHARED, k->fd,
		    IORING_OFF_SQES);
	if (ring == MAP_FAILED || sqes == MAP_FAILED)
		return -errno;
	memset(sqes, 0, sizeof(*sqes));
	sqes->opcode = IORING_OP_POLL_ADD;
	sqes->fd = peer;
	sqes->poll32_events = POLLERR;
	*(__u32 *)(ring + params.sq_off.array) = 0;
	__atomic_store_n((__u32 *)(ring + params.sq_off.tail), 1,
			 __ATOMIC_RELEASE);
	r = syscall(SYS_io_uring_enter, k->fd, 1, 0, 0, NULL, 0);
	munmap(ring, PAGE);
	munmap(sqes, PAGE);
	return r == 1 ? 0 : -EIO;
}
#endif

static int watch(int epoll, int fd)
{
	struct epoll_event event = { .events = EPOLLIN };

	return epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) ? -errno : 0;
}

static int keep_epoll(struct keeper *k, int peer)
{
	k->fd = epoll_create1(EPOLL_CLOEXEC);
	return watch(k->fd, peer);
}

static int keep_epoll_nested(struct keeper *k, int peer)
{
	k->fd = epoll_create1(EPOLL_CLOEXEC);
	k->other = epoll_create1(EPOLL_CLOEXEC);
	return watch(k->other, peer) ?: watch(k->fd, k->other) ?:
	       watch(k->fd, peer);
}

/* It watches a unix socket, that holds the peer. */
static int keep_epoll_unix(struct keeper *k, int peer)
{
	int r, fd;

	r = keep_unix(k, peer, SOCK_STREAM);
	if (r)
		return r;
	fd = k->fd;
	k->fd = epoll_create1(EPOLL_CLOEXEC);
	r = watch(k->fd, fd);
	close(fd);
	return r;
}

/*
 * A process that has the peer, its mapping, a unix socket and an io_uring that
 * hold it, and has mapped the latter. It makes a file that is about itself.
 */
static int process_files(int peer)
{
	struct keeper k;

	keeper_init(&k);
	if (keep_unix(&k, peer, SOCK_STREAM))
		return -1;
#ifdef SYS_io_uring_setup
	keeper_init(&k);
	if (!keep_uring(&k, peer))
		mmap(NULL, PAGE, PROT_READ, MAP_SHARED, k.fd,
		     IORING_OFF_SQ_RING);
#endif
	return 0;
}

static int process_start(struct keeper *k, int peer, int (*fn)(void))
{
	pid_t parent = getpid();
	int *fd, ready = event_new();

	fd = shared_alloc(sizeof(*fd));
	if (!fd)
		return -ENOMEM;
	*fd = -1;
	k->pid = fork();
	if (!k->pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent || process_files(peer))
			_exit(1);
		if (fn)
			*fd = fn();
		event_post(ready);
		pause();
		_exit(1);
	}
	event_wait(ready);
	close(ready);
	k->other = syscall(SYS_pidfd_open, k->pid, 0);
	if (fn && *fd >= 0)
		k->fd = syscall(SYS_pidfd_getfd, k->other, *fd, 0);
	munmap(fd, sizeof(*fd));
	return k->other < 0 || (fn && k->fd < 0) ? -ENOSYS : 0;
}

static int keep_pidfd(struct keeper *k, int peer)
{
	int r = process_start(k, peer, NULL);

	k->fd = k->other;
	k->other = -1;
	return r;
}

static int process_uffd(void)
{
	return syscall(SYS_userfaultfd, O_CLOEXEC);
}

static int keep_userfaultfd(struct keeper *k, int peer)
{
	return process_start(k, peer, process_uffd);
}

static int keep_proc(struct keeper *k, int peer, const char *what, int flags)
{
	char path[64];
	int r;

	r = process_start(k, peer, NULL);
	if (r)
		return r;
	snprintf(path, sizeof(path), "/proc/%d/%s", k->pid, what);
	k->fd = open(path, flags | O_CLOEXEC);
	return k->fd < 0 ? -ENOSYS : 0;
}

static int keep_proc_mem(struct keeper *k, int peer)
{
	return keep_proc(k, peer, "mem", O_RDWR);
}

static int keep_proc_maps(struct keeper *k, int peer)
{
	return keep_proc(k, peer, "maps", O_RDONLY);
}

static int keep_proc_fd(struct keeper *k, int peer)
{
	return keep_proc(k, peer, "fd", O_RDONLY | O_DIRECTORY);
}

/* It cannot be opened without opening another peer: but its path can. */
static int keep_o_path(struct keeper *k, int peer)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/self/fd/%d", peer);
	k->fd = open(path, O_PATH | O_CLOEXEC);
	return k->fd < 0 ? -errno : 0;
}

static int process_namespace(void)
{
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS))
		return -1;
	return open("/proc/self/ns/mnt", O_RDONLY | O_CLOEXEC);
}

static int keep_namespace(struct keeper *k, int peer)
{
	return process_start(k, peer, process_namespace);
}

/* What pause() does, which is not a system call on all architectures. */
#ifdef SYS_pause
#define PAUSE_CALL	SYS_pause
#else
#define PAUSE_CALL	SYS_ppoll
#endif

/* Stops the process in the middle of a system call, until somebody answers. */
static int process_seccomp(void)
{
	struct sock_filter filter[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, PAUSE_CALL, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_USER_NOTIF),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog program = { ARRAY_SIZE(filter), filter };

	prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
	return syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER,
		       SECCOMP_FILTER_FLAG_NEW_LISTENER, &program);
}

static int keep_seccomp(struct keeper *k, int peer)
{
	return process_start(k, peer, process_seccomp);
}

/* An event about the opening of a peer waits in there. */
static int keep_fanotify(struct keeper *k, int peer)
{
	int fd;

	k->fd = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK,
			      O_RDWR);
	if (k->fd < 0)
		return -ENOSYS;
	if (fanotify_mark(k->fd, FAN_MARK_ADD, FAN_OPEN | FAN_CLOSE, AT_FDCWD,
			  BUS1_PATH))
		return -errno;
	fd = bus1_open(0);
	close(fd);
	return fd < 0 ? fd : 0;
}

static int keep_inotify(struct keeper *k, int peer)
{
	int fd;

	k->fd = inotify_init1(IN_CLOEXEC);
	if (k->fd < 0)
		return -ENOSYS;
	if (inotify_add_watch(k->fd, BUS1_PATH, IN_ALL_EVENTS) < 0)
		return -errno;
	fd = bus1_open(0);
	close(fd);
	return fd < 0 ? fd : 0;
}

/* As a file that is passed through to, where the kernel has that. */
static int keep_fuse(struct keeper *k, int peer)
{
	struct { __s32 fd; __u32 flags; __u64 padding; } map = { .fd = peer };
	int r;

	r = fuse_fs_mount(&k->fuse);
	if (r)
		return r == -ENOENT || r == -ENODEV ? -ENOSYS : r;
	if (ioctl(k->fuse.dev, _IOW(229, 1, map), &map) >= 0)
		return -EPROTO;
	k->fd = k->fuse.dev;
	return 0;
}

/* A file on a file system whose server is gone, and its mount, too. */
static int keep_fuse_file(struct keeper *k, int peer)
{
	int r;

	r = keep_fuse(k, peer);
	if (r)
		return r;
	k->fd = fuse_fs_open(&k->fuse);
	/* Or closing the file would wait for an answer. */
	fuse_fs_abort(&k->fuse);
	return k->fd < 0 ? k->fd : 0;
}

/* Binder: a transaction with the peer in it, that its receiver does not read. */

static int binder_send(int fd, int what)
{
	struct binder_fd_object object = {
		.hdr = { .type = BINDER_TYPE_FD }, .fd = what,
	};
	binder_size_t offset = 0;
	struct {
		__u32 cmd;
		struct binder_transaction_data data;
	} __attribute__((packed)) command = {
		.cmd = BC_TRANSACTION,
		.data = {
			.flags = TF_ONE_WAY | TF_ACCEPT_FDS,
			.data_size = sizeof(object),
			.offsets_size = sizeof(offset),
			.data.ptr = {
				.buffer = ptr(&object), .offsets = ptr(&offset),
			},
		},
	};
	__u32 result[32] = {};
	struct binder_write_read io = {
		.write_size = sizeof(command), .write_buffer = ptr(&command),
		.read_size = sizeof(result), .read_buffer = ptr(result),
	};

	if (mmap(NULL, PAGE, PROT_READ, MAP_PRIVATE, fd, 0) == MAP_FAILED ||
	    ioctl(fd, BINDER_WRITE_READ, &io))
		return -errno;
	/* After a BR_NOOP */
	return result[1] == BR_TRANSACTION_COMPLETE ? 0 : -EPROTO;
}

static int keep_binder(struct keeper *k, int peer)
{
	struct flat_binder_object manager = {
		.flags = FLAT_BINDER_FLAG_ACCEPTS_FDS,
	};
	pid_t pid;
	int fd;

	k->fd = open("/dev/binder", O_RDWR | O_CLOEXEC);
	if (k->fd < 0)
		return -ENOSYS;
	/* One manager in the machine: the second peer uses another way. */
	if (ioctl(k->fd, _IOW('b', 13, manager), &manager))
		return errno == EBUSY ? 0 : -errno;
	k->map = mmap(NULL, 1 << 20, PROT_READ, MAP_PRIVATE, k->fd, 0);
	if (k->map == MAP_FAILED)
		return -errno;
	/* Nobody sends to himself there. */
	pid = fork();
	if (!pid) {
		fd = open("/dev/binder", O_RDWR | O_CLOEXEC);
		_exit(binder_send(fd, peer) ? 1 : 0);
	}
	return wait_status(pid) ? -EIO : 0;
}

/*
 * The rings
 */

struct route {
	const char *name;
	int (*keep)(struct keeper *k, int peer);
	bool refused;
	int n;
};

FIXTURE(cycle) {
	struct peer peers[N_PEERS];
	struct keeper keepers[N_PEERS];
	int pipes[N_PEERS][2];
};

FIXTURE_VARIANT(cycle) {
	int (*keep)(struct keeper *k, int peer);
	bool refused;
};

#define ROUTE(_name, _refused)						\
	FIXTURE_VARIANT_ADD(cycle, _name) { keep_##_name, _refused }

ROUTE(itself, true);
ROUTE(unix_stream, true);
ROUTE(unix_dgram, true);
ROUTE(unix_seqpacket, true);
ROUTE(unix_listener, true);
ROUTE(unix_cycle, true);
#ifdef SYS_io_uring_setup
ROUTE(uring, true);
ROUTE(uring_poll, true);
#endif
ROUTE(binder, true);
ROUTE(epoll, false);
ROUTE(epoll_nested, false);
ROUTE(epoll_unix, false);
ROUTE(pidfd, false);
ROUTE(userfaultfd, false);
ROUTE(proc_mem, false);
ROUTE(proc_maps, false);
ROUTE(proc_fd, false);
ROUTE(o_path, false);
ROUTE(namespace, false);
ROUTE(seccomp, false);
ROUTE(fanotify, false);
ROUTE(inotify, false);
ROUTE(fuse, false);
ROUTE(fuse_file, false);

FIXTURE_SETUP(cycle)
{
	int i;

	for (i = 0; i < N_PEERS; i++)
		keeper_init(&self->keepers[i]);
	for (i = 0; i < N_PEERS; i++) {
		PEER_OPEN(&self->peers[i]);
		NODE(&self->peers[i], NODE_SELF);
		ASSERT_EQ(0, pipe2(self->pipes[i], O_CLOEXEC));
	}
}

FIXTURE_TEARDOWN(cycle)
{
	int i;

	for (i = 0; i < N_PEERS; i++) {
		keeper_leave(&self->keepers[i]);
		peer_close(&self->peers[i]);
	}
}

static int load(const struct peer *peer, int pipe, int file, __u64 flags)
{
	const int fds[] = { pipe, file };
	const __u64 self = NODE_SELF;
	bool seed = flags & BUS1_SEND_FLAG_SEED;

	return msg_send(peer->fd, .flags = flags, .dst = &self,
			.n_dst = !seed, .fds = fds, .n_fds = file < 0 ? 1 : 2);
}

/* Each peer is kept by a file on its way to the next one of @n. */
static void t_ring(struct __test_metadata *_metadata,
		   FIXTURE_DATA(cycle) *self, const struct route *route,
		   __u64 flags)
{
	struct keeper *k;
	struct peer *next;
	int i, r, n = route->n;

	for (i = 0; i < n; i++) {
		k = &self->keepers[i];
		next = &self->peers[(i + 1) % n];
		r = route->keep(k, self->peers[i].fd);
		if (r == -ENOSYS) {
			SKIP(goto out, "the kernel has no such file");
		}
		ASSERT_EQ(0, r);
		ASSERT_LE(0, k->fd);
		r = load(next, self->pipes[i][1], k->fd, flags);
		ASSERT_EQ(route->refused ? -EOPNOTSUPP : 0, r);
		if (route->refused) {
			ASSERT_EQ(0, load(next, self->pipes[i][1], -1, flags));
		}
	}
out:
	/* Who has left is told of by nobody: what is left keeps itself. */
	for (i = 0; i < N_PEERS; i++) {
		EXPECT_EQ(0, close(self->pipes[i][1]));
		if (i < n && self->keepers[n - 1].fd >= 0)
			EXPECT_TRUE(pipe_open(self->pipes[i][0]));
	}
	for (i = 0; i < N_PEERS; i++) {
		k = &self->keepers[i];
		/* It says so if a server has gone. */
		if (k->fd >= 0)
			close(k->fd);
		k->fd = -1;
	}
	for (i = 0; i < N_PEERS; i++)
		peer_close(&self->peers[i]);
	for (i = 0; i < N_PEERS; i++)
		keeper_leave(&self->keepers[i]);
	for (i = 0; i < N_PEERS; i++)
		EXPECT_TRUE(wait_eof(self->pipes[i][0]));
}

TEST_F(cycle, of_one_peer)
{
	const struct route route = {
		.keep = variant->keep, .refused = variant->refused, .n = 1,
	};

	t_ring(_metadata, self, &route, 0);
}

TEST_F(cycle, of_two_peers)
{
	const struct route route = {
		.keep = variant->keep, .refused = variant->refused, .n = 2,
	};

	t_ring(_metadata, self, &route, 0);
}

TEST_F(cycle, in_the_seed)
{
	const struct route route = {
		.keep = variant->keep, .refused = variant->refused, .n = 1,
	};

	t_ring(_metadata, self, &route, BUS1_SEND_FLAG_SEED);
}

/*
 * Beside the rings
 */

FIXTURE(beside) {
	struct peer peer;
	int pipe[2];
};

FIXTURE_SETUP(beside)
{
	PEER_OPEN(&self->peer);
	NODE(&self->peer, NODE_SELF);
	ASSERT_EQ(0, pipe2(self->pipe, O_CLOEXEC));
}

FIXTURE_TEARDOWN(beside)
{
	peer_close(&self->peer);
}

/* A path of what is refused is no such file itself. */
TEST_F(beside, o_path_of_what_is_refused_passes)
{
	struct keeper k;
	char path[64];
	int fd;

	keeper_init(&k);
#ifdef SYS_io_uring_setup
	if (keep_uring(&k, self->peer.fd))
		SKIP(return, "no io_uring");
#else
	SKIP(return, "no io_uring");
#endif
	ASSERT_EQ(-EOPNOTSUPP, load(&self->peer, self->pipe[1], k.fd, 0));
	snprintf(path, sizeof(path), "/proc/self/fd/%d", k.fd);
	fd = open(path, O_PATH | O_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, load(&self->peer, self->pipe[1], fd, 0));
	close(fd);
	close(k.fd);
	close(self->pipe[1]);
	EXPECT_TRUE(pipe_open(self->pipe[0]));
	peer_close(&self->peer);
	EXPECT_TRUE(pipe_wait_eof(self->pipe[0]));
}

/* A unix socket that keeps itself and a peer is undone by the kernel. */
TEST_F(beside, peer_in_a_cycle_of_unix_sockets_goes_with_it)
{
	struct keeper k;

	keeper_init(&k);
	ASSERT_EQ(0, load(&self->peer, self->pipe[1], -1, 0));
	close(self->pipe[1]);
	ASSERT_EQ(0, keep_unix_cycle(&k, self->peer.fd));
	close(k.fd);
	close(k.other);
	peer_close(&self->peer);
	EXPECT_TRUE(wait_eof(self->pipe[0]));
}

/* A mapping of the pool keeps the pool, and nothing else. */
TEST_F(beside, mapping_in_a_process_keeps_no_peer)
{
	pid_t pid;

	ASSERT_EQ(0, load(&self->peer, self->pipe[1], -1, 0));
	close(self->pipe[1]);
	pid = FORK();
	if (!pid) {
		close(self->peer.fd);
		pause();
		_exit(1);
	}
	wait_asleep(pid);
	peer_close(&self->peer);
	EXPECT_TRUE(pipe_wait_eof(self->pipe[0]));
	EXPECT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(SIGKILL, wait_status(pid));
}

TEST_HARNESS_MAIN
