/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Making commands fail, and finding out what they left behind.
 *
 *   world	some peers, of several users, and pipes whose write ends travel
 *   fault	what goes wrong in one system call: an allocation or a user copy
 *		inside of it, its memory, or the number of its descriptors
 *   state	what fdinfo and poll say of all peers: it costs nothing to look
 *   story	all that can be found out by receiving, using and releasing whatever
 *		there is. Two worlds of which the same story is told are the same.
 */
#ifndef __BUS1_FAULT_H
#define __BUS1_FAULT_H

#include "bus1_budget.h"

#define WORLD_PEERS	18
#define WORLD_FILES	6
#define WORLD_PIPES	3
#define WORLD_IDS	192
#define WORLD_OBJECTS	12

/* The nodes of a peer, as it calls them itself. */
#define WORLD_NODE(_i)	(0x100ULL * ((_i) + 1))

#define TEXT_SIZE	(96 * 1024)

/* Descriptors that the kernel has room for without an allocation. */
#define FULL_TABLE	64

/* A call that has to succeed. Ends the test if it does not. */
#define MUST(_expr) must(_expr, #_expr, __LINE__)

static inline int must(int r, const char *what, int line)
{
	if (r < 0) {
		printf("# line %d: %s: %s\n", line, what, strerror(-r));
		fflush(stdout);
		_exit(1);
	}
	return r;
}

/*
 * Faults
 */

enum fault_kind {
	FAULT_NONE,
	FAULT_NTH,	/* the nth thing that can be made to fail */
	FAULT_TAIL,	/* an object ends in memory that cannot be accessed */
	FAULT_HEAD,	/* an object begins there */
	FAULT_READONLY,	/* an object ends in memory that can only be read */
	FAULT_LIMIT,	/* there is room for n descriptors */
};

/**
 * struct fault - what is to go wrong, once
 * @kind: what it is
 * @n: for FAULT_NTH and FAULT_LIMIT
 * @object: for the others, which of the objects that the call is given
 * @offset: bytes of it that are on the lower side
 * @hit: whether it happened
 */
struct fault {
	enum fault_kind kind;
	unsigned int n;
	int object;
	size_t offset;
	bool hit;
};

/* In which direction the kernel copies an object. */
enum object_mode { OBJECT_IN, OBJECT_OUT, OBJECT_INOUT };

struct object {
	__u8 *p;
	size_t size;
	enum object_mode mode;
};

struct world {
	struct peer p[WORLD_PEERS];
	int n;
	/* p[0]'s handle of the first node of each */
	__u64 to[WORLD_PEERS];
	int pipe_r[WORLD_PIPES], pipe_w[WORLD_PIPES];
	int files[WORLD_FILES];
	/* fdinfo of each peer */
	int info[WORLD_PEERS];

	/* IDs that each has seen, in that order */
	__u64 ids[WORLD_PEERS][WORLD_IDS];
	int n_ids[WORLD_PEERS];

	/* for the scenarios */
	struct bus1_cmd_recv recv[4];
	__u64 id;
	int epoll_fd;
	int fillers[FULL_TABLE];
	int n_fillers;
	void *map;

	struct fault fault;
	int nth_fd;
	struct object objects[WORLD_OBJECTS];
	int n_objects;

	/* leave out this destination; which one was left out */
	int skip, skipped;

	char story[TEXT_SIZE];
	size_t told;
};

/*
 * The memory that system calls are given: one arena for each object, in the midst
 * of memory that cannot be accessed.
 */
#define ARENA_SIZE	(8 * PAGE)

static __u8 *arenas[WORLD_OBJECTS];

static inline void arenas_init(void)
{
	void *p;
	int i;

	for (i = 0; i < WORLD_OBJECTS; i++) {
		p = mmap(NULL, 3 * ARENA_SIZE, PROT_NONE,
			 MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		MUST(p == MAP_FAILED ? -errno : 0);
		arenas[i] = p + ARENA_SIZE;
		MUST(mprotect(arenas[i], ARENA_SIZE, PROT_READ | PROT_WRITE) ?
		     -errno : 0);
		memset(arenas[i], 0, ARENA_SIZE);
	}
}

static inline bool fault_is_cut(const struct fault *fault)
{
	return fault->kind >= FAULT_TAIL && fault->kind <= FAULT_READONLY;
}

/* A copy of @data for the next system call. */
static inline void *user(struct world *w, const void *data, size_t size,
			 enum object_mode mode)
{
	int i = w->n_objects++;
	size_t at = w->fault.offset;
	__u8 *arena, *p;

	MUST(i < WORLD_OBJECTS && size <= ARENA_SIZE ? 0 : -ENOSPC);
	arena = arenas[i];
	p = arena + ARENA_SIZE - align8(size);
	w->objects[i] = (struct object){ p, size, mode };
	if (!fault_is_cut(&w->fault) || w->fault.object != i) {
		if (size)
			memcpy(p, data, size);
		return p;
	}

	w->fault.hit = true;
	switch (w->fault.kind) {
	case FAULT_TAIL:
		p = arena + ARENA_SIZE - at;
		memcpy(p, data, at);
		break;
	case FAULT_HEAD:
		p = arena - at;
		memcpy(arena, data + at, size - at);
		break;
	default:
		p = arena + ARENA_SIZE / 2 - at;
		memcpy(p, data, size);
		MUST(mprotect(arena + ARENA_SIZE / 2, ARENA_SIZE / 2,
			      PROT_READ) ? -errno : 0);
		break;
	}
	return p;
}

/* What the call has made of it, if that can be read. */
static inline void user_back(const struct world *w, void *data, const void *p,
			     size_t size)
{
	if (w->fault.kind != FAULT_TAIL && w->fault.kind != FAULT_HEAD)
		memcpy(data, p, size);
}

#define user_in(_w, _data, _n) user(_w, _data, _n, OBJECT_IN)
#define user_inout(_w, _data, _n) user(_w, _data, _n, OBJECT_INOUT)

/* The lowest descriptor that is not in use. */
static inline int next_fd(void)
{
	int fd = dup(0);

	MUST(fd < 0 ? -errno : 0);
	close(fd);
	return fd;
}

static inline void fault_begin(struct world *w)
{
	struct rlimit limit;
	char text[16];
	int n;

	if (w->fault.kind == FAULT_LIMIT) {
		MUST(getrlimit(RLIMIT_NOFILE, &limit) ? -errno : 0);
		limit.rlim_cur = next_fd() + w->fault.n;
		MUST(setrlimit(RLIMIT_NOFILE, &limit) ? -errno : 0);
	} else if (w->fault.kind == FAULT_NTH) {
		n = snprintf(text, sizeof(text), "%u", w->fault.n);
		MUST(write(w->nth_fd, text, n) == n ? 0 : -errno);
	}
}

static inline void fault_end(struct world *w)
{
	struct rlimit limit;
	char text[16] = "";
	ssize_t n;

	if (w->fault.kind == FAULT_LIMIT) {
		MUST(getrlimit(RLIMIT_NOFILE, &limit) ? -errno : 0);
		limit.rlim_cur = limit.rlim_max;
		MUST(setrlimit(RLIMIT_NOFILE, &limit) ? -errno : 0);
	} else if (w->fault.kind == FAULT_NTH) {
		/* To look, and to disarm, are copies that can be hit as well. */
		n = pread(w->nth_fd, text, sizeof(text) - 1, 0);
		w->fault.hit = n > 0 && !atoi(text);
		while (write(w->nth_fd, "0", 1) != 1)
			MUST(errno == EFAULT ? 0 : -errno);
	} else if (w->fault.kind == FAULT_READONLY && w->fault.hit) {
		MUST(mprotect(arenas[w->fault.object], ARENA_SIZE,
			      PROT_READ | PROT_WRITE) ? -errno : 0);
	}
}

/* The one system call that goes wrong: its result, or -errno. */
#define FAULTY(_w, _call)						\
({									\
	int _r;								\
									\
	fault_begin(_w);						\
	_r = (_call);							\
	if (_r < 0)							\
		_r = -errno;						\
	fault_end(_w);							\
	_r;								\
})

static inline int faulty_ioctl(struct world *w, int i, unsigned long cmd,
			       void *arg)
{
	return FAULTY(w, ioctl(w->p[i].fd, cmd, arg));
}

/*
 * Stories
 */

__attribute__((format(printf, 2, 3)))
static inline void tell(struct world *w, const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	w->told += vsnprintf(w->story + w->told, TEXT_SIZE - w->told, fmt,
			     args);
	va_end(args);
	MUST(w->told < TEXT_SIZE ? 0 : -ENOSPC);
}

/* Adds an ID to those that a peer knows, and returns its number. */
static inline int know(struct world *w, int i, __u64 id)
{
	bool chosen = id & KERNEL_CHOSEN;
	__u64 *ids = w->ids[i];
	int k;

	for (k = 0; k < w->n_ids[i]; k++)
		if (ids[k] == id)
			return k;
	/* A failed command may use up IDs, but none is used twice. */
	for (k = 0; chosen && k < w->n_ids[i]; k++)
		if (ids[k] & KERNEL_CHOSEN && ids[k] >> 3 >= id >> 3)
			tell(w, "%d: ID %#llx comes after %#llx\n", i, id,
			     ids[k]);
	MUST(w->n_ids[i] < WORLD_IDS ? 0 : -ENOSPC);
	ids[w->n_ids[i]] = id;
	return w->n_ids[i]++;
}

/* IDs that the kernel chose are told by when they were seen first. */
static inline void tell_id(struct world *w, int i, __u64 id)
{
	if (id == BUS1_HANDLE_INVALID)
		tell(w, " none");
	else if (id & KERNEL_CHOSEN)
		tell(w, " #%d/%d", know(w, i, id), (int)(id & KERNEL_CHOSEN));
	else
		tell(w, " %#llx/%d", id, know(w, i, id));
}

/* Which pipe a descriptor is of is found out by using it. */
static inline void tell_file(struct world *w, int fd)
{
	char c;
	int k;

	tell(w, " file");
	if (write(fd, "x", 1) != 1)
		tell(w, " %s", strerror(errno));
	if (!(fcntl(fd, F_GETFD) & FD_CLOEXEC))
		tell(w, " inherited");
	for (k = 0; k < WORLD_PIPES; k++)
		if (!pipe_open(w->pipe_r[k]) && read(w->pipe_r[k], &c, 1) == 1)
			tell(w, " %d", k);
	close(fd);
}

/* A message that was received. Its slice is released. */
static inline void tell_message(struct world *w, int i,
				const struct bus1_cmd_recv *r)
{
	const struct peer *p = &w->p[i];
	__u32 hash = 1;
	__u64 k;

	tell(w, "%d: type %llu flags %llu to", i, r->msg.type, r->msg.flags);
	tell_id(w, i, r->msg.destination);
	if (r->msg.type == BUS1_MSG_DATA) {
		for (k = 0; k < r->msg.n_bytes; k++)
			hash = hash * 31 + slice_bytes(p, r)[k];
		tell(w, " bytes %llu %08x", r->msg.n_bytes, hash);
		if (!slice_padded(p, r))
			tell(w, " padded with something");
		for (k = 0; k < r->msg.n_handles; k++)
			tell_id(w, i, recv_handle(p, r, k));
		for (k = 0; k < r->msg.n_fds; k++)
			tell_file(w, recv_fd(p, r, k));
		tell(w, " released %d", bus1_slice_release(p->fd, r->msg.offset));
	}
	tell(w, "\n");
}

static inline void tell_queue(struct world *w, int i)
{
	struct bus1_cmd_recv r;
	int error;

	while (!(error = bus1_recv(w->p[i].fd, BUS1_RECV_FLAG_INSTALL_FDS, &r)))
		tell_message(w, i, &r);
	if (error != -EAGAIN)
		tell(w, "%d: recv %s\n", i, strerror(-error));
}

static inline size_t world_info(const struct world *w, int i, char *text,
				size_t size)
{
	ssize_t n = 0;

	if (w->info[i] >= 0)
		n = pread(w->info[i], text, size - 1, 0);
	MUST(n < 0 ? -errno : 0);
	text[n] = 0;
	return n;
}

static inline void tell_fdinfo(struct world *w, int i)
{
	char text[4096], *line, *save;

	world_info(w, i, text, sizeof(text));
	for (line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save))
		if (strncmp(line, "bus1-peer:", 10) && strncmp(line, "pos:", 4))
			tell(w, "%d: %s\n", i, line);
}

/* Receives everything, and releases everything. */
static inline void tell_all(struct world *w)
{
	struct bus1_cmd_recv r;
	int i, k, error;

	for (i = 0; i < w->n; i++)
		if (w->p[i].fd >= 0)
			tell_fdinfo(w, i);
	for (i = 0; i < w->n; i++) {
		if (w->p[i].fd < 0)
			continue;
		tell_queue(w, i);
		error = bus1_recv(w->p[i].fd, BUS1_RECV_FLAG_SEED |
				  BUS1_RECV_FLAG_INSTALL_FDS, &r);
		tell(w, "%d: seed %d\n", i, error);
		if (!error)
			tell_message(w, i, &r);
	}
	for (i = 0; i < w->n; i++) {
		if (w->p[i].fd < 0)
			continue;
		tell(w, "%d: references", i);
		for (k = 0; k < w->n_ids[i]; k++)
			tell(w, " %d", bus1_drain_refs(w->p[i].fd,
						       w->ids[i][k]));
		tell(w, "\n");
	}
	for (i = 0; i < w->n; i++) {
		if (w->p[i].fd < 0)
			continue;
		tell_queue(w, i);
		tell_fdinfo(w, i);
	}
}

/* The first line in which two stories differ, for whoever has to find out why. */
static inline bool same_text(const char *a, const char *b)
{
	const char *end;

	if (!strcmp(a, b))
		return true;
	while (*a && *b) {
		end = strchrnul(a, '\n');
		if (strncmp(a, b, end - a + 1))
			break;
		a = end + !!*end;
		b = strchrnul(b, '\n') + 1;
	}
	printf("# expected: %.*s\n# but found: %.*s\n",
	       (int)(strchrnul(a, '\n') - a), a,
	       (int)(strchrnul(b, '\n') - b), b);
	fflush(stdout);
	return false;
}

/*
 * Worlds
 */

/* Everybody but the first belongs to one of two other users. */
static inline uid_t world_uid(int i)
{
	return i ? i % 2 ? UID_A : UID_B : 0;
}

static inline void world_adopt(struct world *w, int i, int fd)
{
	struct peer *p = &w->p[i];
	char path[64];

	p->fd = fd;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", p->fd);
	w->info[i] = open(path, O_RDONLY | O_CLOEXEC);
	MUST(w->info[i] < 0 ? -errno : 0);
	p->pool = mmap(NULL, POOL_SIZE, PROT_READ, MAP_SHARED, p->fd, 0);
	MUST((void *)p->pool == MAP_FAILED ? -errno : 0);
}

static inline void world_transfer(struct world *w, int from, __u64 id, int to,
				  __u64 *dst)
{
	__u64 got;

	know(w, from, id);
	MUST(bus1_handle_transfer(w->p[from].fd, id, w->p[to].fd, &got));
	if (got != BUS1_HANDLE_INVALID)
		know(w, to, got);
	if (dst)
		*dst = got;
}

static inline void world_init(struct world *w, int n, int nth_fd)
{
	int i, fds[2];

	memset(w, 0, offsetof(struct world, story));
	w->story[0] = 0;
	w->told = 0;
	w->n = n;
	w->nth_fd = nth_fd;
	w->skip = -1;
	w->skipped = -1;
	w->epoll_fd = -1;
	w->map = MAP_FAILED;
	for (i = 0; i < WORLD_PEERS; i++) {
		w->p[i].fd = -1;
		w->info[i] = -1;
	}
	for (i = 0; i < n; i++)
		world_adopt(w, i,
			    MUST(bus1_open_as(world_uid(i), O_NONBLOCK)));
	for (i = 0; i < n; i++)
		if (i)
			world_transfer(w, i, WORLD_NODE(0), 0, &w->to[i]);
	for (i = 0; i < WORLD_PIPES; i++) {
		MUST(pipe2(fds, O_CLOEXEC) ? -errno : 0);
		w->pipe_r[i] = fds[0];
		w->pipe_w[i] = fds[1];
	}
	for (i = 0; i < WORLD_FILES; i++)
		w->files[i] = w->pipe_w[i % WORLD_PIPES];
}

/* Nobody may have the files any more that this process has closed. */
static inline void world_deinit(struct world *w)
{
	int i;

	for (i = 0; i < WORLD_PEERS; i++) {
		peer_close(&w->p[i]);
		if (w->info[i] >= 0)
			close(w->info[i]);
	}
	if (w->epoll_fd >= 0)
		close(w->epoll_fd);
	if (w->map != MAP_FAILED)
		munmap(w->map, POOL_SIZE);
	while (w->n_fillers)
		close(w->fillers[--w->n_fillers]);
	for (i = 0; i < WORLD_PIPES; i++) {
		close(w->pipe_w[i]);
		MUST(pipe_wait_eof(w->pipe_r[i]) ? 0 : -EPIPE);
		close(w->pipe_r[i]);
	}
}

/* What can be seen without changing it. */
static inline void world_state(const struct world *w, char *text)
{
	struct pollfd polls[WORLD_PEERS];
	size_t n = 0;
	int i;

	for (i = 0; i < w->n; i++)
		polls[i] = (struct pollfd){
			.fd = w->p[i].fd, .events = POLLIN | POLLOUT,
		};
	MUST(poll(polls, w->n, 0) < 0 ? -errno : 0);
	for (i = 0; i < w->n; i++) {
		if (w->p[i].fd >= 0)
			n += world_info(w, i, text + n, TEXT_SIZE - n - 64);
		n += sprintf(text + n, "%d: poll %#x\n", i, polls[i].revents);
		MUST(n < TEXT_SIZE - 4096 ? 0 : -ENOSPC);
	}
	sprintf(text + n, "next descriptor %d\n", next_fd());
}

#endif /* __BUS1_FAULT_H */
