/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of messages share: a SEND in one line, slices taken apart, a
 * little net of three peers, and its state as text, to be compared before and
 * after a command that has to fail.
 */
#ifndef __BUS1_MSG_H
#define __BUS1_MSG_H

#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <limits.h>
#include <sys/resource.h>
#include "bus1_test.h"

/* The size of a page, and the most that it can be, for what is reserved. */
#define PAGE		page_size()
#if defined(__x86_64__) || defined(__i386__)
#define PAGE_MAX	4096UL
#else
#define PAGE_MAX	65536UL
#endif
#define NODE_B		0x100ULL
#define NODE_C		0x200ULL
/* The most that one system call reads or writes: MAX_RW_COUNT. */
#define MAX_RW		(0x80000000UL - PAGE)
#define PARAMETERS	"/sys/module/bus1/parameters/"

/* The arguments of SEND, by their types. */
struct msg {
	__u64 flags;
	const __u64 *dst;
	__u64 n_dst;
	const void *errors;
	const struct iovec *vecs;
	__u64 n_vecs;
	const __u64 *handles;
	__u64 n_handles;
	const int *fds;
	__u64 n_fds;
};

static inline int msg_send_struct(int fd, const struct msg *m)
{
	struct bus1_cmd_send cmd = {
		.flags = m->flags,
		.ptr_destinations = ptr(m->dst),
		.ptr_errors = ptr(m->errors),
		.n_destinations = m->n_dst,
		.ptr_vecs = ptr(m->vecs),
		.n_vecs = m->n_vecs,
		.ptr_handles = ptr(m->handles),
		.n_handles = m->n_handles,
		.ptr_fds = ptr(m->fds),
		.n_fds = m->n_fds,
	};

	return bus1_send(fd, &cmd);
}

#define msg_send(fd, ...) msg_send_struct(fd, &(struct msg){ __VA_ARGS__ })

#define KEEP ((__u32)-1)

static inline int set_limits(int fd, __u32 slices, __u32 handles, __u32 bytes,
			     __u32 fds)
{
	struct bus1_cmd_peer_reset cmd = {
		.peer_flags = -1,
		.max_slices = slices,
		.max_handles = handles,
		.max_inflight_bytes = bytes,
		.max_inflight_fds = fds,
	};

	return bus1_reset(fd, cmd);
}

/*
 * Slices
 */

static inline __u64 align8(__u64 n)
{
	return (n + 7) & ~7ULL;
}

static inline const __u8 *slice_bytes(const struct peer *p,
				      const struct bus1_cmd_recv *r)
{
	return p->pool + r->msg.offset;
}

/* Where the padding behind all contents starts. */
static inline __u64 slice_used(const struct bus1_cmd_recv *r)
{
	return align8(r->msg.n_bytes) + r->msg.n_handles * sizeof(__u64) +
	       r->msg.n_fds * sizeof(int);
}

static inline __u64 slice_size(const struct bus1_cmd_recv *r)
{
	return align8(slice_used(r));
}

/* Is all padding of the slice zero? */
static inline bool slice_padded(const struct peer *p,
				const struct bus1_cmd_recv *r)
{
	const __u8 *slice = slice_bytes(p, r);
	__u64 i;

	for (i = r->msg.n_bytes; i < align8(r->msg.n_bytes); i++)
		if (slice[i])
			return false;
	for (i = slice_used(r); i < slice_size(r); i++)
		if (slice[i])
			return false;
	return true;
}

static inline __u8 pattern(__u32 seed, size_t i)
{
	__u32 x = (seed + 1) * 2654435761U + (__u32)i * 40503U;

	return (__u8)(x >> 13) | 1;
}

/* Never writes a 0. */
static inline void pattern_fill(void *buf, size_t n, __u32 seed)
{
	__u8 *p = buf;
	size_t i;

	for (i = 0; i < n; i++)
		p[i] = pattern(seed, i);
}

static inline bool pattern_check(const void *buf, size_t n, __u32 seed)
{
	const __u8 *p = buf;
	size_t i;

	for (i = 0; i < n; i++)
		if (p[i] != pattern(seed, i))
			return false;
	return true;
}

/*
 * The net: a knows the node of b as ab, and that of c as ac.
 */

struct net {
	struct peer a, b, c;
	__u64 ab, ac;
};

static inline void t_net_init(struct __test_metadata *_metadata,
			      struct net *net)
{
	PEER_OPEN(&net->a);
	PEER_OPEN(&net->b);
	PEER_OPEN(&net->c);
	NODE(&net->b, NODE_B);
	NODE(&net->c, NODE_C);
	net->ab = TRANSFER(&net->b, NODE_B, &net->a);
	net->ac = TRANSFER(&net->c, NODE_C, &net->a);
}

#define NET_INIT(_net) t_net_init(_metadata, _net)

static inline void net_deinit(struct net *net)
{
	peer_close(&net->a);
	peer_close(&net->b);
	peer_close(&net->c);
}

/* Everything that fdinfo and poll say of the three peers. */
struct net_state {
	char text[3][8192];
	short revents[3];
};

static inline void fdinfo_text(int fd, char *text, size_t size)
{
	char path[64];
	size_t used = 0;
	ssize_t n;
	int info;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	info = open(path, O_RDONLY | O_CLOEXEC);
	while (info >= 0) {
		n = read(info, text + used, size - 1 - used);
		if (n <= 0)
			break;
		used += n;
	}
	text[used] = 0;
	if (info >= 0)
		close(info);
}

static inline struct net_state net_state(const struct net *net)
{
	const int fds[] = { net->a.fd, net->b.fd, net->c.fd };
	struct net_state state;
	int i;

	for (i = 0; i < 3; i++) {
		fdinfo_text(fds[i], state.text[i], sizeof(state.text[i]));
		state.revents[i] = peer_poll(fds[i]);
	}
	return state;
}

/* After a command that failed: limits, use and queues are what they were. */
static inline void t_expect_same(struct __test_metadata *_metadata,
				 const struct net *net,
				 const struct net_state *before, int line)
{
	struct net_state now = net_state(net);
	int i;

	for (i = 0; i < 3; i++) {
		EXPECT_STREQ(before->text[i], now.text[i]) {
			TH_LOG("peer %c, called from line %d", 'a' + i, line);
		}
		EXPECT_EQ(before->revents[i], now.revents[i]) {
			TH_LOG("peer %c, called from line %d", 'a' + i, line);
		}
	}
}

#define EXPECT_SAME(_net, _before)					\
	t_expect_same(_metadata, _net, _before, __LINE__)

/*
 * SEND_RECV
 */

static inline void set_blocking(int fd)
{
	fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) & ~O_NONBLOCK);
}

/* A message of some bytes to one node: what @to and @vec point to must last. */
static inline struct bus1_cmd_send one_message(const __u64 *to,
					       struct iovec *vec)
{
	return (struct bus1_cmd_send){
		.ptr_destinations = ptr(to), .n_destinations = 1,
		.ptr_vecs = ptr(vec), .n_vecs = 1,
	};
}

/* The number that is the payload. */
static inline __u64 msg_number(const struct peer *peer,
			       const struct bus1_msg *msg)
{
	__u64 n;

	memcpy(&n, peer->pool + msg->offset, sizeof(n));
	return n;
}

/*
 * Bad memory
 */

/* Two pages that cannot be accessed. */
static inline void *bad_none(void)
{
	return mmap(NULL, 2 * PAGE, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, 0);
}

/* The last @n bytes before memory that is not there. */
static inline void *bad_edge(size_t n)
{
	size_t size = (n + PAGE - 1) / PAGE * PAGE;
	__u8 *p = mmap(NULL, size + PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	munmap(p + size, PAGE);
	mmap(p + size, PAGE, PROT_NONE,
	     MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE, -1, 0);
	return p + size - n;
}

/* A copy of @n bytes that can be read, but not written. */
static inline void *bad_readonly(const void *data, size_t n)
{
	void *p = mmap(NULL, PAGE, PROT_READ | PROT_WRITE,
		       MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	if (p == MAP_FAILED)
		return NULL;
	memcpy(p, data, n);
	mprotect(p, PAGE, PROT_READ);
	return p;
}

/*
 * Files and parameters
 */

/* The number in a file, -1 if there is none. */
static inline long long read_number(const char *path)
{
	long long n = -1;
	FILE *f = fopen(path, "re");

	if (!f)
		return -1;
	if (fscanf(f, "%lld", &n) != 1)
		n = -1;
	fclose(f);
	return n;
}

/* How many descriptors this process has. */
static inline int count_fds(void)
{
	int fd, n = 0;

	for (fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

/* Are both descriptors of one file in a file system? */
static inline bool same_file(int a, int b)
{
	struct stat sa, sb;

	return !fstat(a, &sa) && !fstat(b, &sb) && sa.st_dev == sb.st_dev &&
	       sa.st_ino == sb.st_ino;
}

/*
 * Waits until nobody has the write end of a pipe any more. The last reference
 * may be dropped by a worker of the kernel, so this has to wait.
 */
static inline bool pipe_wait_eof(int fd)
{
	char c;
	ssize_t n;

	do {
		n = read(fd, &c, 1);
	} while (n < 0 && errno == EINTR);
	return !n;
}

/* Does somebody still have the write end? */
static inline bool pipe_open(int fd)
{
	struct pollfd p = { .fd = fd, .events = POLLIN };

	return !poll(&p, 1, 0);
}

#endif /* __BUS1_MSG_H */
