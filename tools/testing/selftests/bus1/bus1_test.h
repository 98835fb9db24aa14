/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What all bus1 selftests share. Three layers:
 *
 *   bus1_*()	0 or -errno, one command each in bus1_cmd.h; no assertions, so they
 *		are fine in threads and in helper processes
 *   t_*()	helpers that assert; they take _metadata, and are usable where
 *		ASSERT_EQ() is: in TEST_F() and in the processes that it forks
 *		(the harness shares _metadata with them), but not in threads
 *   CAPITALS()	the same, passing _metadata along
 *
 * Use TEST_F() rather than TEST(): only its _metadata is shared with children.
 */
#ifndef __BUS1_TEST_H
#define __BUS1_TEST_H

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/capability.h>
#include <poll.h>
#include <pthread.h>
#include <sched.h>
#include <setjmp.h>
#include <signal.h>
#include <stdint.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "bus1_cmd.h"
#include "kselftest_harness.h"

/* Emulated machines with every debug option on are slow. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	600

#define __unused_fn __attribute__((__unused__))

#define POOL_SIZE	(32UL << 20)
/* An address that no process can read or write. */
#define BAD_PTR		((__u64)8)

#define KERNEL_CHOSEN	(BUS1_HANDLE_FLAG_MANAGED | BUS1_HANDLE_FLAG_REMOTE)

/* Users that own nothing else in the machine. */
#define UID_A		61001
#define UID_B		61002
#define UID_C		61003

/*
 * Peers
 */

/**
 * struct peer - a file descriptor of /dev/bus1 and the mapping of its pool
 * @fd: the descriptor
 * @pool: the pool, POOL_SIZE bytes
 */
struct peer {
	int fd;
	const unsigned char *pool;
};

/* The fd of @fd is taken over, also on failure. */
static inline void t_peer_adopt(struct __test_metadata *_metadata,
				struct peer *peer, int fd)
{
	peer->fd = fd;
	ASSERT_LE(0, fd) {
		TH_LOG("open " BUS1_PATH ": %s", strerror(-fd));
	}
	peer->pool = mmap(NULL, POOL_SIZE, PROT_READ, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, (void *)peer->pool);
}

/* Without O_NONBLOCK, RECV() still works: it polls first. */
#define PEER_OPEN(_peer) t_peer_adopt(_metadata, _peer, bus1_open(O_NONBLOCK))
#define PEER_OPEN_BLOCKING(_peer) t_peer_adopt(_metadata, _peer, bus1_open(0))
#define PEER_OPEN_AS(_peer, _uid)					\
	t_peer_adopt(_metadata, _peer, bus1_open_as(_uid, O_NONBLOCK))

static inline void peer_close(struct peer *peer)
{
	if (peer->pool && (void *)peer->pool != MAP_FAILED)
		munmap((void *)peer->pool, POOL_SIZE);
	if (peer->fd >= 0)
		close(peer->fd);
	peer->pool = NULL;
	peer->fd = -1;
}

/* What poll() says right now. */
static inline short peer_poll(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN | POLLOUT };

	return poll(&p, 1, 0) < 0 ? POLLNVAL : p.revents;
}

/* Waits until RECV would return a message, or the peer is disconnected. */
static inline short peer_wait(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };
	int r;

	do {
		r = poll(&p, 1, -1);
	} while (r < 0 && errno == EINTR);
	return p.revents;
}

static inline int bus1_recv_wait(int fd, __u64 flags,
				 struct bus1_cmd_recv *recv)
{
	int r;

	while ((r = bus1_recv(fd, flags, recv)) == -EAGAIN)
		peer_wait(fd);
	return r;
}

/*
 * Asserting helpers
 */

/*
 * Has the kernel read @n bytes of a pool, too, if it can: they are the same. KMSAN sees
 * nothing of what user space reads through a mapping, but it sees this.
 */
static inline bool pool_read(const unsigned char *p, size_t n)
{
	unsigned char copy[4096];
	struct iovec to = { .iov_base = copy }, from;
	ssize_t done;
	size_t len;

	for (; n; n -= len, p += len) {
		len = n < sizeof(copy) ? n : sizeof(copy);
		to.iov_len = len;
		from = (struct iovec){ (void *)p, len };
		done = process_vm_readv(getpid(), &to, 1, &from, 1, 0);
		/* CONFIG_CROSS_MEMORY_ATTACH */
		if (done < 0 && errno == ENOSYS)
			return true;
		if (done != (ssize_t)len || memcmp(copy, p, len))
			return false;
	}
	return true;
}

/* The bytes of a slice, up to and including its padding. */
static inline size_t recv_size(const struct bus1_cmd_recv *recv)
{
	size_t tail = recv->msg.n_handles * sizeof(__u64) +
		      recv->msg.n_fds * sizeof(int);

	return ((recv->msg.n_bytes + 7) & ~7ULL) + ((tail + 7) & ~7ULL);
}

/* The next message; waits for it. */
static inline struct bus1_cmd_recv t_recv(struct __test_metadata *_metadata,
					  struct peer *peer, __u64 flags,
					  int line)
{
	struct bus1_cmd_recv recv;

	/* That poll says so first is part of the test. */
	if (!(flags & BUS1_RECV_FLAG_SEED))
		peer_wait(peer->fd);
	ASSERT_EQ(0, bus1_recv_wait(peer->fd, flags, &recv)) {
		TH_LOG("called from line %d", line);
	}
	EXPECT_EQ(0, recv.msg.flags & ~BUS1_MSG_FLAG_CONTINUE);
	if (recv.msg.type == BUS1_MSG_DATA) {
		EXPECT_EQ(0, recv.msg.offset % 8);
		EXPECT_GE(POOL_SIZE, recv.msg.offset + recv.msg.n_bytes);
		EXPECT_TRUE(pool_read(peer->pool + recv.msg.offset,
				      recv_size(&recv))) {
			TH_LOG("called from line %d", line);
		}
	} else {
		EXPECT_EQ(BUS1_OFFSET_INVALID, recv.msg.offset);
		EXPECT_EQ(0, recv.msg.n_bytes);
		EXPECT_EQ(0, recv.msg.n_handles);
		EXPECT_EQ(0, recv.msg.n_fds);
	}
	return recv;
}

#define RECV(_peer) t_recv(_metadata, _peer, 0, __LINE__)
#define RECV_FLAGS(_peer, _flags) t_recv(_metadata, _peer, _flags, __LINE__)

static inline __u64 recv_handle(const struct peer *peer,
				const struct bus1_cmd_recv *recv, size_t i)
{
	__u64 at = recv->msg.offset + ((recv->msg.n_bytes + 7) & ~7ULL), id;

	memcpy(&id, peer->pool + at + i * sizeof(id), sizeof(id));
	return id;
}

static inline int recv_fd(const struct peer *peer,
			  const struct bus1_cmd_recv *recv, size_t i)
{
	__u64 at = recv->msg.offset + ((recv->msg.n_bytes + 7) & ~7ULL) +
		   recv->msg.n_handles * sizeof(__u64);
	int fd;

	memcpy(&fd, peer->pool + at + i * sizeof(fd), sizeof(fd));
	return fd;
}

/* Nothing is ready, and poll agrees. */
static inline void t_recv_none(struct __test_metadata *_metadata,
			       struct peer *peer, int line)
{
	struct bus1_cmd_recv recv;

	EXPECT_EQ(POLLOUT, peer_poll(peer->fd)) {
		TH_LOG("called from line %d", line);
	}
	if (fcntl(peer->fd, F_GETFL) & O_NONBLOCK) {
		EXPECT_EQ(-EAGAIN, bus1_recv(peer->fd, 0, &recv)) {
			TH_LOG("called from line %d", line);
		}
	}
}

#define RECV_NONE(_peer) t_recv_none(_metadata, _peer, __LINE__)

/* The next message is of @type, for the receiver's own @id; no more than that. */
static inline struct bus1_cmd_recv
t_recv_type(struct __test_metadata *_metadata, struct peer *peer, __u64 type,
	    __u64 id, __u64 flags, int line)
{
	struct bus1_cmd_recv recv = t_recv(_metadata, peer, 0, line);

	EXPECT_EQ(type, recv.msg.type) {
		TH_LOG("called from line %d", line);
	}
	EXPECT_EQ(id, recv.msg.destination) {
		TH_LOG("called from line %d", line);
	}
	EXPECT_EQ(flags, recv.msg.flags) {
		TH_LOG("called from line %d", line);
	}
	return recv;
}

#define RECV_DESTROY(_peer, _id)					\
	t_recv_type(_metadata, _peer, BUS1_MSG_NODE_DESTROY, _id, 0, __LINE__)
#define RECV_DESTROY_CONTINUE(_peer, _id)				\
	t_recv_type(_metadata, _peer, BUS1_MSG_NODE_DESTROY, _id,	\
		    BUS1_MSG_FLAG_CONTINUE, __LINE__)
#define RECV_RELEASE(_peer, _id)					\
	t_recv_type(_metadata, _peer, BUS1_MSG_NODE_RELEASE, _id, 0, __LINE__)

/* The next message is data for @id with exactly this payload, no handles. */
static inline void t_recv_data(struct __test_metadata *_metadata,
			       struct peer *peer, __u64 id, const void *data,
			       size_t n_bytes, __u64 flags, int line)
{
	struct bus1_cmd_recv recv;

	recv = t_recv_type(_metadata, peer, BUS1_MSG_DATA, id, flags, line);
	ASSERT_EQ(n_bytes, recv.msg.n_bytes) {
		TH_LOG("called from line %d", line);
	}
	EXPECT_EQ(0, recv.msg.n_handles);
	EXPECT_EQ(0, recv.msg.n_fds);
	EXPECT_EQ(0, memcmp(peer->pool + recv.msg.offset, data, n_bytes)) {
		TH_LOG("called from line %d", line);
	}
	EXPECT_EQ(0, bus1_slice_release(peer->fd, recv.msg.offset));
}

#define RECV_DATA(_peer, _id, _data, _n)				\
	t_recv_data(_metadata, _peer, _id, _data, _n, 0, __LINE__)
#define RECV_DATA_CONTINUE(_peer, _id, _data, _n)			\
	t_recv_data(_metadata, _peer, _id, _data, _n,			\
		    BUS1_MSG_FLAG_CONTINUE, __LINE__)
#define RECV_STR(_peer, _id, _str) RECV_DATA(_peer, _id, _str, strlen(_str))

static inline int bus1_send_str(int fd, __u64 dest, const char *str)
{
	return bus1_send_data(fd, dest, str, strlen(str));
}

/* The next message is data with exactly one handle; returns its ID. */
static inline __u64 t_recv_one_handle(struct __test_metadata *_metadata,
				      struct peer *peer, int line)
{
	struct bus1_cmd_recv recv = t_recv(_metadata, peer, 0, line);
	__u64 id;

	ASSERT_EQ(BUS1_MSG_DATA, recv.msg.type) {
		TH_LOG("called from line %d", line);
	}
	ASSERT_EQ(1, recv.msg.n_handles) {
		TH_LOG("called from line %d", line);
	}
	id = recv_handle(peer, &recv, 0);
	EXPECT_EQ(0, bus1_slice_release(peer->fd, recv.msg.offset));
	return id;
}

#define RECV_ONE_HANDLE(_peer) t_recv_one_handle(_metadata, _peer, __LINE__)

/* Transfers @id of @from to @to, and returns the ID there. */
static inline __u64 t_transfer(struct __test_metadata *_metadata,
			       struct peer *from, __u64 id, struct peer *to,
			       int line)
{
	__u64 dst;

	ASSERT_EQ(0, bus1_handle_transfer(from->fd, id, to->fd, &dst)) {
		TH_LOG("called from line %d", line);
	}
	return dst;
}

#define TRANSFER(_from, _id, _to)					\
	t_transfer(_metadata, _from, _id, _to, __LINE__)

/* A new node of @peer, with an ID that the kernel never chooses. */
static inline __u64 t_node(struct __test_metadata *_metadata,
			   struct peer *peer, __u64 id, int line)
{
	ASSERT_EQ(0, bus1_nodes_create(peer->fd, &id, 1)) {
		TH_LOG("called from line %d", line);
	}
	return id;
}

#define NODE(_peer, _id) t_node(_metadata, _peer, _id, __LINE__)

/*
 * Drops every user reference of @id that can be dropped, and returns how many
 * they were: the pinned reference of an own node stays and is not counted. The
 * ID of a remote node is gone afterwards.
 */
static inline int bus1_drain_refs(int fd, __u64 id)
{
	int n, r;

	for (n = 0; !(r = bus1_handle_release(fd, id)); n++)
		if (n > 1 << 20)
			return -EPROTO;
	return r == -ENXIO || r == -EBUSY ? n : r;
}

/*
 * Memory that may not be there
 */

static sigjmp_buf on_bus_error;

static inline void bus_error(int sig)
{
	siglongjmp(on_bus_error, sig);
}

/* The byte at p, or -1 where no memory is. */
static inline int read_byte(const volatile void *p)
{
	struct sigaction action = { .sa_handler = bus_error }, saved;
	volatile int byte = -1;

	sigaction(SIGBUS, &action, &saved);
	if (!sigsetjmp(on_bus_error, 1))
		byte = *(const volatile unsigned char *)p;
	sigaction(SIGBUS, &saved, NULL);
	return byte;
}

/*
 * fdinfo: lines of "key:\tvalue"
 */

/* The value of @key in the fdinfo of @fd, or -1 if there is none. */
static inline long long bus1_fdinfo(int fd, const char *key)
{
	char path[64], line[512];
	long long value = -1;
	size_t n = strlen(key);
	FILE *f;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	f = fopen(path, "re");
	if (!f)
		return -1;
	while (fgets(line, sizeof(line), f)) {
		if (!strncmp(line, key, n) && line[n] == ':') {
			value = strtoll(line + n + 1, NULL, 0);
			break;
		}
	}
	fclose(f);
	return value;
}

/* The counters that are 0 in a peer that holds nothing. */
static const char * const bus1_fdinfo_counters[] __unused_fn = {
	"bus1-queue", "bus1-slices", "bus1-handles", "bus1-bytes", "bus1-fds",
};

static inline void t_expect_idle(struct __test_metadata *_metadata, int fd,
				 int line)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(bus1_fdinfo_counters); i++) {
		EXPECT_EQ(0, bus1_fdinfo(fd, bus1_fdinfo_counters[i])) {
			TH_LOG("%s, called from line %d",
			       bus1_fdinfo_counters[i], line);
		}
	}
}

#define EXPECT_IDLE(_peer) t_expect_idle(_metadata, (_peer)->fd, __LINE__)

/*
 * Processes and privileges
 */

/*
 * The state of a process or thread, as /proc tells it; 'X' if it is gone, '?' if that cannot
 * be said now: for want of descriptors or memory, which some tests exhaust.
 */
static inline char task_state(pid_t tid)
{
	char path[64], line[512], state = '?', *p;
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	file = fopen(path, "re");
	if (!file)
		return errno == ENOENT || errno == ESRCH ? 'X' : '?';
	errno = 0;
	p = fgets(line, sizeof(line), file);
	if (p)
		p = strrchr(line, ')');
	else if (errno == ESRCH)
		state = 'X';
	if (p && p[1] && p[2])
		state = p[2];
	fclose(file);
	return state;
}

/*
 * Returns once the process or thread sleeps. One that has ended never will: what the test
 * expects of it then says so.
 */
static inline void wait_asleep(pid_t tid)
{
	while (!strchr("SDZX", task_state(tid)))
		sched_yield();
}

/* Gives up every capability of this process, for good. */
static inline int drop_capabilities(void)
{
	struct __user_cap_header_struct header = {
		.version = _LINUX_CAPABILITY_VERSION_3,
	};
	struct __user_cap_data_struct data[_LINUX_CAPABILITY_U32S_3] = {};

	return syscall(SYS_capset, &header, data) ? -errno : 0;
}

/* Becomes the user @uid without any privilege, for good. */
static inline int become(uid_t uid)
{
	if (syscall(BUS1_SETGROUPS, 0, NULL) ||
	    syscall(BUS1_SETRESGID, uid, uid, uid) ||
	    syscall(BUS1_SETRESUID, uid, uid, uid))
		return -errno;
	/* Cleared by the change of credentials. */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_DUMPABLE, 1);
	return drop_capabilities();
}

/*
 * Forks a helper process that dies with its parent. It may use ASSERT_*(), and
 * must end with _exit(0). Wait for it with WAIT(), that asserts its success.
 */
static inline pid_t t_fork(struct __test_metadata *_metadata)
{
	pid_t parent = getpid(), pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(1);
	}
	return pid;
}

#define FORK() t_fork(_metadata)

static inline pid_t t_fork_as(struct __test_metadata *_metadata, uid_t uid)
{
	pid_t pid = t_fork(_metadata);

	if (!pid)
		ASSERT_EQ(0, become(uid));
	return pid;
}

#define FORK_AS(_uid) t_fork_as(_metadata, _uid)

static inline int wait_status(pid_t pid)
{
	int status;

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			return -errno;
	return status;
}

#define WAIT(_pid) ASSERT_EQ(0, wait_status(_pid))

/* Runs fn(_metadata, arg) as the user @uid in a process of its own. */
static inline void t_run_as(struct __test_metadata *_metadata, uid_t uid,
			    void (*fn)(struct __test_metadata *, void *),
			    void *arg)
{
	pid_t pid = t_fork_as(_metadata, uid);

	if (!pid) {
		fn(_metadata, arg);
		_exit(_metadata->exit_code);
	}
	WAIT(pid);
}

#define RUN_AS(_uid, _fn, _arg) t_run_as(_metadata, _uid, _fn, _arg)

static inline unsigned long page_size(void)
{
	static unsigned long size;

	if (!size)
		size = sysconf(_SC_PAGESIZE);
	return size;
}

/* Memory that forked processes share. */
static inline void *shared_alloc(size_t size)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE,
		       MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return p == MAP_FAILED ? NULL : p;
}

/*
 * Synchronization: an eventfd that counts
 */

static inline int event_new(void)
{
	return eventfd(0, EFD_CLOEXEC | EFD_SEMAPHORE);
}

static inline void event_post(int fd)
{
	__u64 one = 1;

	while (write(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

static inline void event_wait(int fd)
{
	__u64 one;

	while (read(fd, &one, sizeof(one)) < 0 && errno == EINTR)
		;
}

/* Is the thread @tid of this process asleep in the kernel? */
static inline bool thread_sleeps(pid_t tid)
{
	return task_state(tid) == 'S';
}

/* Returns then, or when it has ended. */
static inline void thread_wait_asleep(pid_t tid)
{
	while (!strchr("SZX", task_state(tid)))
		sched_yield();
}

/*
 * How many rounds to do, @n as usual. BUS1_STRESS_SCALE, 5 as usual, makes that more,
 * or less on a kernel that is slow.
 */
static inline __u32 scaled_rounds(__u32 n)
{
	const char *env = getenv("BUS1_STRESS_SCALE");
	__u64 percent = env ? strtoul(env, NULL, 10) : 5;

	n = n * percent / 5;
	return n ? n : 1;
}

/* A generator of one's own, so that runs can be repeated. */
static inline __u32 next_random(__u64 *state)
{
	*state = *state * 6364136223846793005ULL + 1442695040888963407ULL;
	return *state >> 33;
}

#endif /* __BUS1_TEST_H */
