// SPDX-License-Identifier: GPL-2.0-only
/*
 * Running one program, and judging what the kernel answers.
 *
 * Nothing is set up for a program but what it opens itself, and what it has opened
 * is closed by one call, so that programs cost little more than their calls.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <linux/bus1.h>
#include <linux/futex.h>
#include <linux/io_uring.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"
#include "errnos.h"

#define RO_SIZE		(1U << 16)
#define SENTINEL	0xa5

enum { FILE_MEMFD, FILE_PIPE, FILE_EVENT, FILE_OPATH, FILE_SOCKET, FILE_URING,
	FILE_NETLINK, FILE_EPOLL, FILE_N };

_Thread_local struct thread *self;
int mail[2];

struct compat_vec {
	uint32_t base, len;
};

/* System calls */

static int result(long r)
{
	return r < 0 ? errno : 0;
}

/* 0 or an errno. */
static int do_ioctl(const struct call *c, int fd, unsigned int cmd, uint64_t arg)
{
#ifdef __x86_64__
	if (c->compat) {
		long r;

		asm volatile("int $0x80" : "=a"(r)
			     : "a"(54L), "b"((long)fd), "c"((long)cmd),
			       "d"((long)(uint32_t)arg)
			     : "memory", "r8", "r9", "r10", "r11");
		r = (int)r;
		return r < 0 ? -r : 0;
	}
#else
	(void)c;
#endif
	return result(syscall(SYS_ioctl, fd, cmd, arg));
}

#ifdef __x86_64__
/*
 * Does the kernel know system calls of 32-bit programs? This is getpid() of theirs,
 * and to others an invalid writev().
 */
static bool probe_compat(void)
{
	long r;

	if (sigsetjmp(self->jump, 0)) {
		self->can_jump = false;
		return false;
	}
	self->can_jump = true;
	asm volatile("int $0x80" : "=a"(r) : "a"(20L), "D"(-1L), "S"(0L), "d"(0L)
		     : "memory", "r8", "r9", "r10", "r11");
	self->can_jump = false;
	return (int)r == getpid();
}
#else
static bool probe_compat(void)
{
	return false;
}
#endif

static bool in_list(const int *list, int error)
{
	for (; *list; ++list) {
		if (*list == error)
			return true;
	}
	return false;
}

/* Is this an errno that bus1(7) lists for the command? */
bool errno_is_known(unsigned int op, int error)
{
	static const int *const lists[OP_N] = {
		[OP_DISCONNECT] = errnos_BUS1_CMD_PEER_DISCONNECT,
		[OP_QUERY] = errnos_BUS1_CMD_PEER_QUERY,
		[OP_RESET] = errnos_BUS1_CMD_PEER_RESET,
		[OP_RELEASE] = errnos_BUS1_CMD_HANDLE_RELEASE,
		[OP_TRANSFER] = errnos_BUS1_CMD_HANDLE_TRANSFER,
		[OP_DESTROY] = errnos_BUS1_CMD_NODES_DESTROY,
		[OP_SLICE] = errnos_BUS1_CMD_SLICE_RELEASE,
		[OP_SEND] = errnos_BUS1_CMD_SEND,
		[OP_RECV] = errnos_BUS1_CMD_RECV,
		[OP_CALL] = errnos_BUS1_CMD_SEND_RECV,
		[OP_MMAP] = errnos_mmap,
	};

	if (!error || !lists[op])
		return true;
	/* The file may be O_PATH, or closed by another thread. */
	if (error == EBADF)
		return true;
	/* What mmap() itself says of lengths and modes. */
	if (op == OP_MMAP)
		return in_list(lists[op], error) || error == EINVAL ||
		       error == EOVERFLOW;
	return in_list(lists[op], error) || in_list(errnos_common, error);
}

static void check_errno(const struct call *c, int error)
{
	if (!errno_is_known(c->op, error))
		finding("%s: errno %d (%s) is not listed", ops[c->op].name, error,
			strerror(error));
}

/* Memory */

bool safe_copy(void *to, const volatile void *from, size_t n)
{
	if (sigsetjmp(self->jump, 0)) {
		self->can_jump = false;
		return false;
	}
	self->can_jump = true;
	memcpy(to, (const void *)from, n);
	self->can_jump = false;
	return true;
}

static void on_fault(int sig, siginfo_t *info, void *context)
{
	(void)context;
	if (self && self->can_jump)
		siglongjmp(self->jump, 1);
	finding("the fuzzer itself: signal %d at %p", sig, info->si_addr);
	_exit(1);
}

static void on_signal(int sig)
{
	(void)sig;
}

static char *map_memory(size_t size)
{
	char *p;

	/* Where 32-bit programs reach it, and with nothing behind. */
	p = mmap(NULL, size + 65536, PROT_NONE,
		 MAP_PRIVATE | MAP_ANONYMOUS | MAP_32BIT | MAP_NORESERVE, -1, 0);
	if (p == MAP_FAILED || mprotect(p, size, PROT_READ | PROT_WRITE)) {
		perror("mmap");
		_exit(1);
	}
	return p;
}

/* A mapping is unmapped once, and with its own length, whatever threads do. */
static char *map_address(uintptr_t map)
{
	return (char *)(map & ~4095UL);
}

static size_t map_length(uintptr_t map)
{
	unsigned int which = map & 4095;

	return which ? sym_edge(T_LEN, EDGE + which - 1) : MAP_LEN;
}

static char *some_map(struct process *p)
{
	unsigned int i;
	uintptr_t map;

	for (i = 0; i < N_PEERS; ++i) {
		map = atomic_load(&p->slots[i].map);
		if (map)
			return map_address(map);
	}
	return p->none;
}

/* Kinds that hold what was put there, and can be written by the kernel. */
static bool is_plain(unsigned int mem)
{
	return mem == MEM_OK || mem == MEM_ODD || mem == MEM_FIT;
}

static bool is_writable(unsigned int mem)
{
	return is_plain(mem) || mem == MEM_FRESH;
}

/* Put @data somewhere, tell where. */
static uint64_t place(struct thread *t, unsigned int mem, const void *data,
		      size_t size)
{
	char *end = t->memory + MEMORY_SIZE, *at;

	switch (mem) {
	case MEM_OK:
	case MEM_ODD:
		if (t->bump + size + 16 > end - 4096)
			t->bump = t->memory;
		at = t->bump + (mem == MEM_ODD);
		t->bump += (size + 15) & ~7UL;
		memcpy(at, data, size);
		return (uintptr_t)at;
	case MEM_FIT:
		if (size > MEMORY_SIZE)
			return (uintptr_t)end;
		memcpy(end - size, data, size);
		return (uintptr_t)(end - size);
	case MEM_CUT:
		size /= 2;
		if (size > MEMORY_SIZE)
			size = MEMORY_SIZE;
		memcpy(end - size, data, size);
		return (uintptr_t)(end - size);
	case MEM_NONE:
		return (uintptr_t)t->process->none;
	case MEM_RO:
		return (uintptr_t)t->process->ro;
	case MEM_FRESH:
		madvise(t->process->none + 65536, 65536, MADV_DONTNEED);
		/*
		 * A kernel for ARCH=um writes to the page of zeros of everybody if it
		 * cannot get another one.
		 */
		if (t->failing && t->process->is_um)
			memset(t->process->none + 65536, 0, size < 65536 ? size : 65536);
		return (uintptr_t)t->process->none + 65536;
	case MEM_KERNEL:
		return 0xffff888000001000ULL;
	case MEM_WILD:
		return 1ULL << 47;
	case MEM_POOL:
		return (uintptr_t)some_map(t->process);
	default:
		return 0;
	}
}

static unsigned int mem_kind(uint16_t sym)
{
	return sym < EDGE ? MEM_OK : sym_edge(T_MEM, sym);
}

/* Peers */

static struct peer_state *new_state(struct process *p)
{
	unsigned int i = atomic_fetch_add(&p->n_states, 1);

	return &p->states[i < MAX_STATES ? i : MAX_STATES - 1];
}

static struct slot *find_slot(struct process *p, unsigned int v)
{
	unsigned int i;

	for (i = 0; i < N_PEERS; ++i) {
		if (atomic_load(&p->slots[(v + i) % N_PEERS].fd) >= 0)
			return &p->slots[(v + i) % N_PEERS];
	}
	return NULL;
}

static void drop_map(struct slot *slot)
{
	uintptr_t map = atomic_exchange(&slot->map, 0);

	if (map)
		munmap(map_address(map), map_length(map));
}

static void put_slot(struct process *p, unsigned int v, int fd,
		     struct peer_state *state)
{
	struct slot *slot = &p->slots[v % N_PEERS];
	int old;

	drop_map(slot);
	if (!state)
		state = new_state(p);
	slot->state = state;
	old = atomic_exchange(&slot->fd, fd);
	if (old >= 0)
		close(old);
}

/* Where the pool can be read, or NULL. */
static char *slot_map(struct slot *slot, int fd)
{
	uintptr_t map = atomic_load(&slot->map), none = 0;
	char *at;

	if (map)
		return map_length(map) >= MAP_LEN ? map_address(map) : NULL;
	at = mmap(NULL, MAP_LEN, PROT_READ, MAP_SHARED | MAP_32BIT, fd, 0);
	if (at == MAP_FAILED)
		return NULL;
	if (atomic_compare_exchange_strong(&slot->map, &none, (uintptr_t)at))
		return at;
	munmap(at, MAP_LEN);
	return NULL;
}

static uint64_t own_id(unsigned int v, unsigned int rep)
{
	return (v + 1) * 4ULL + rep * 4096ULL;
}

static uint64_t resolve_id(struct process *p, struct peer_state *s, unsigned int v,
			   unsigned int rep)
{
	unsigned int n;

	if (v >= EDGE)
		return sym_edge(T_ID, v);
	if (v >= 192) {
		n = atomic_load(&p->n_states);
		if (n > MAX_STATES)
			n = MAX_STATES;
		s = &p->states[n ? v % n : 0];
		v = (v - 192) / 4;
	} else if (v >= 64) {
		return own_id(v - 64, rep);
	}
	n = s->n_ids;
	if (!n || n > MAX_IDS)
		return own_id(v, rep);
	return s->ids[v % n].id;
}

static uint64_t edge_or(unsigned int type, uint16_t sym, uint64_t usual)
{
	return sym < EDGE ? usual : sym_edge(type, sym);
}

static uint64_t resolve_flags(uint16_t sym)
{
	return edge_or(T_FLAGS, sym, sym & 3);
}

static uint64_t resolve_slice(const struct peer_state *s, uint16_t sym)
{
	unsigned int n = s->n_slices;

	if (sym >= EDGE)
		return sym_edge(T_SLICE, sym);
	return n && n <= MAX_SLICES ? s->slices[sym % n].offset : 8;
}

/* Calls */

static int call_open(struct thread *t, struct call *c)
{
	static const int modes[] = {
		O_RDWR, O_RDONLY | O_NONBLOCK, O_WRONLY | O_NONBLOCK, O_PATH,
	};
	struct process *p = t->process;
	int flags = O_RDWR | O_NONBLOCK, fd, e = 0;
	unsigned int uid = c->fixed[OPEN_UID] & 3;

	if (c->fixed[OPEN_FLAGS] >= EDGE)
		flags = modes[sym_edge(T_OFLAGS, c->fixed[OPEN_FLAGS]) & 3];
	if (flags == O_RDWR)
		p->may_block = true;

	if (uid)
		syscall(SYS_setresuid, p->uid + uid, -1, -1);
	fd = open("/dev/bus1", flags | O_CLOEXEC);
	if (fd < 0)
		e = errno;
	if (uid)
		syscall(SYS_setresuid, p->uid, -1, -1);
	if (fd >= 0)
		put_slot(p, c->fixed[0], fd, NULL);
	else if (e != ENOMEM && e != EMFILE && e != ENFILE && e != EINTR &&
		 /* To read the path is made to fail, too. */
		 !(c->fail && e == EFAULT))
		finding("open: errno %d", e);
	return e;
}

static int call_close(struct thread *t, struct call *c)
{
	struct slot *slot = find_slot(t->process, c->fixed[0]);
	int fd;

	if (!slot)
		return 0;
	drop_map(slot);
	fd = atomic_exchange(&slot->fd, -1);
	return fd >= 0 ? result(close(fd)) : 0;
}

static int call_dup(struct thread *t, struct call *c, struct slot *slot)
{
	int fd = fcntl(atomic_load(&slot->fd), F_DUPFD_CLOEXEC, 0);

	if (fd < 0)
		return errno;
	put_slot(t->process, c->fixed[DUP_TO], fd, slot->state);
	return 0;
}

static int call_disconnect(struct call *c, struct slot *slot, int fd)
{
	uint64_t arg = edge_or(T_WORD, c->fixed[DISCONNECT_ARG], 0);
	int r = do_ioctl(c, fd, BUS1_CMD_PEER_DISCONNECT, arg);

	if (!r) {
		state_flushed(slot->state);
	} else if (r == EINTR) {
		/* It happens when the last command ends. */
		slot->state->vague = true;
	}
	return r;
}

static int call_query(struct thread *t, struct call *c, int fd)
{
	unsigned int mem = mem_kind(c->fixed[QUERY_MEM]);
	struct bus1_cmd_peer_reset arg;
	uint64_t at;
	int r;

	memset(&arg, SENTINEL, sizeof(arg));
	arg.flags = resolve_flags(c->fixed[QUERY_FLAGS]);
	at = place(t, mem, &arg, sizeof(arg));
	r = do_ioctl(c, fd, BUS1_CMD_PEER_QUERY, at);
	if (r || mem == MEM_POOL)
		return r;
	if (!is_writable(mem))
		finding("query: success, but the result cannot have been written");
	else if (!safe_copy(&arg, (void *)at, sizeof(arg)) || arg.peer_flags ||
		 arg.max_slices > INT_MAX || arg.max_handles > INT_MAX ||
		 arg.max_inflight_bytes > INT_MAX || arg.max_inflight_fds > INT_MAX)
		finding("query: bad result");
	return 0;
}

static int call_reset(struct thread *t, struct call *c, struct slot *slot, int fd)
{
	unsigned int mem = mem_kind(c->fixed[RESET_MEM]);
	struct bus1_cmd_peer_reset arg = {
		.flags = resolve_flags(c->fixed[RESET_FLAGS]),
		.peer_flags = edge_or(T_WORD, c->fixed[RESET_PFLAGS], -1),
		.max_slices = edge_or(T_LIMIT, c->fixed[RESET_LIMITS], -1),
		.max_handles = edge_or(T_LIMIT, c->fixed[RESET_LIMITS + 1], -1),
		.max_inflight_bytes = edge_or(T_LIMIT, c->fixed[RESET_LIMITS + 2], -1),
		.max_inflight_fds = edge_or(T_LIMIT, c->fixed[RESET_LIMITS + 3], -1),
	};
	int r = do_ioctl(c, fd, BUS1_CMD_PEER_RESET, place(t, mem, &arg, sizeof(arg)));

	if (!r && !is_plain(mem))
		slot->state->vague = true;
	else if (!r && arg.flags & BUS1_PEER_RESET_FLAG_FLUSH)
		state_flushed(slot->state);
	return r;
}

static int call_release(struct thread *t, struct call *c, struct slot *slot, int fd)
{
	uint64_t id = resolve_id(t->process, slot->state, c->fixed[RELEASE_ID], 0);
	unsigned int mem = mem_kind(c->fixed[RELEASE_MEM]);
	int r = do_ioctl(c, fd, BUS1_CMD_HANDLE_RELEASE, place(t, mem, &id, sizeof(id)));

	if (is_plain(mem))
		state_check_release(t->process, slot->state, id, r);
	else if (!r)
		slot->state->vague = true;
	return r;
}

static int call_transfer(struct thread *t, struct call *c, struct slot *slot, int fd)
{
	struct process *p = t->process;
	uint16_t to = c->fixed[TRANSFER_TO];
	unsigned int mem = mem_kind(c->fixed[TRANSFER_MEM]);
	struct bus1_cmd_handle_transfer arg = {
		.flags = c->fixed[TRANSFER_FLAGS] < EDGE ? 0 :
			 resolve_flags(c->fixed[TRANSFER_FLAGS]),
		.src_handle = resolve_id(p, slot->state, c->fixed[TRANSFER_ID], 0),
		.dst_handle = edge_or(T_WORD, c->fixed[TRANSFER_IN], -1),
	};
	struct slot *dst = slot;
	uint64_t at;
	int r;

	if (to < EDGE) {
		dst = find_slot(p, to) ?: slot;
		arg.dst_fd = atomic_load(&dst->fd);
	} else if (to == EDGE + 2) {
		arg.dst_fd = p->files[FILE_MEMFD];
	} else if (to == EDGE + 7) {
		arg.dst_fd = p->files[FILE_SOCKET];
	} else if (to == EDGE + 8) {
		arg.dst_fd = p->files[FILE_OPATH];
	} else {
		arg.dst_fd = sym_edge(T_TO, to);
	}

	at = place(t, mem, &arg, sizeof(arg));
	r = do_ioctl(c, fd, BUS1_CMD_HANDLE_TRANSFER, at);
	if (r)
		return r;
	if (mem == MEM_POOL)
		dst->state->vague = true;
	else if (!is_writable(mem))
		finding("transfer: success, but the result cannot have been written");
	else if (!safe_copy(&arg, (void *)at, sizeof(arg)))
		finding("transfer: no result");
	else
		state_add_id(dst->state, arg.dst_handle);
	return 0;
}

static int call_destroy(struct thread *t, struct call *c, struct slot *slot, int fd)
{
	unsigned int i, k, n = 0, rep = edge_or(T_REP, c->fixed[DESTROY_REP], 1);
	unsigned int mem = mem_kind(c->fixed[DESTROY_MEM]);
	struct bus1_cmd_nodes_destroy arg;
	static _Thread_local uint64_t ids[MAX_LIST * 1100];
	int r;

	for (k = 0; k < rep; ++k) {
		for (i = 0; i < c->n[0]; ++i)
			ids[n++] = resolve_id(t->process, slot->state, c->list[i], k);
	}
	arg.flags = resolve_flags(c->fixed[DESTROY_FLAGS]);
	arg.ptr_nodes = place(t, mem_kind(c->fixed[DESTROY_AMEM]), ids, n * sizeof(*ids));
	arg.n_nodes = edge_or(T_COUNT, c->fixed[DESTROY_N], n);
	r = do_ioctl(c, fd, BUS1_CMD_NODES_DESTROY, place(t, mem, &arg, sizeof(arg)));
	if (!r && !is_plain(mem))
		slot->state->vague = true;
	return r;
}

static int call_slice(struct thread *t, struct call *c, struct slot *slot, int fd)
{
	struct peer_state *s = slot->state;
	unsigned int mem = mem_kind(c->fixed[SLICE_MEM]);
	uint64_t offset = resolve_slice(s, c->fixed[SLICE_OFFSET]);
	int r;

	r = do_ioctl(c, fd, BUS1_CMD_SLICE_RELEASE,
		     place(t, mem, &offset, sizeof(offset)));
	if (is_plain(mem))
		state_check_slice(t->process, s, offset, r);
	else if (!r)
		s->vague = true;
	return r;
}

static void make_vec(struct process *p, unsigned int v, struct iovec *vec)
{
	char *end = p->payload + PAYLOAD_SIZE;
	size_t size = vec_sizes[v % 32];

	vec->iov_len = size;
	switch (v / 32 % MEM_N) {
	case MEM_OK:
		vec->iov_base = p->payload;
		break;
	case MEM_ODD:
		vec->iov_base = p->payload + 1;
		break;
	case MEM_FIT:
		vec->iov_base = size <= PAYLOAD_SIZE ? end - size : p->payload;
		break;
	case MEM_CUT:
		vec->iov_base = size / 2 <= PAYLOAD_SIZE ? end - size / 2 : p->payload;
		break;
	case MEM_NONE:
		vec->iov_base = p->none;
		break;
	case MEM_RO:
		vec->iov_base = p->ro;
		break;
	case MEM_FRESH:
		/* What a command has written there */
		vec->iov_base = p->none + 65536;
		p->tainted = true;
		break;
	case MEM_KERNEL:
		vec->iov_base = (void *)0xffff888000001000UL;
		break;
	case MEM_WILD:
		vec->iov_base = (void *)(1UL << 47);
		break;
	case MEM_POOL:
		vec->iov_base = some_map(p);
		p->tainted = true;
		break;
	default:
		vec->iov_base = NULL;
		break;
	}
}

static int resolve_file(struct process *p, unsigned int v)
{
	if (v < EDGE)
		return p->files[v % 4];
	switch (sym_edge(T_FILE, v)) {
	case 4:
		return atomic_load(&p->slots[0].fd);
	case 5:
		return p->files[FILE_SOCKET];
	case 6:
		return p->files[FILE_URING];
	case 7:
		return -1;
	case 8:
		return 9999;
	case 9:
		return INT_MIN;
	case 10:
		return atomic_load(&p->slots[1].fd);
	default:
		return p->files[FILE_NETLINK];
	}
}

/* Each entry is what it was before, 0, or an error that a destination can have. */
static void check_send_errors(const struct call *c, uint64_t flags, uint64_t at,
			      unsigned int n, int r)
{
	int32_t error;
	unsigned int i;

	for (i = 0; i < n && i < 64; ++i) {
		if (!safe_copy(&error, (char *)(uintptr_t)at + 4 * i, 4))
			return;
		if (error == (int32_t)0xa5a5a5a5 && r)
			continue;
		if (!error || (error == -EHOSTUNREACH) || error == -EDQUOT ||
		    error == -EXFULL) {
			if (error && !r && !(flags & BUS1_SEND_FLAG_CONTINUE))
				finding("send: success, but errors[%u] is %d", i, error);
			continue;
		}
		/* An error that fails the whole call shows nowhere else. */
		finding("%s: errors[%u] is %d, the call returned %d",
			ops[c->op].name, i, error, r);
	}
}

/* The argument of SEND, in whose arrays are what the call says. */
struct send_args {
	struct bus1_cmd_send arg;
	unsigned int n_dests;
	unsigned int errors;		/* memory of these */
};

static void make_send(struct thread *t, struct call *c, struct slot *slot,
		      struct send_args *args)
{
	static _Thread_local union {
		uint64_t ids[MAX_LIST * 1100];
		int32_t fds[MAX_LIST * 1100];
		struct iovec vecs[MAX_LIST * 1100];
		struct compat_vec compat[MAX_LIST * 1100];
		uint8_t bytes[MAX_LIST * 1100 * 4];
	} u;
	unsigned int rep = edge_or(T_REP, c->fixed[SEND_REP], 1);
	struct process *p = t->process;
	struct bus1_cmd_send arg;
	unsigned int i, k, n;
	struct iovec vec;
	uint16_t *list;

	arg.flags = resolve_flags(c->fixed[SEND_FLAGS]);

	list = call_list(c, SEND_DESTS);
	for (k = 0, n = 0; k < rep; ++k) {
		for (i = 0; i < c->n[SEND_DESTS]; ++i)
			u.ids[n++] = resolve_id(p, slot->state, list[i], k);
	}
	arg.n_destinations = edge_or(T_COUNT, c->fixed[SEND_ND], n);
	arg.ptr_destinations = place(t, mem_kind(c->fixed[SEND_DMEM]), u.ids, 8 * n);
	args->n_dests = n;

	list = call_list(c, SEND_VECS);
	for (k = 0, n = 0; k < rep; ++k) {
		for (i = 0; i < c->n[SEND_VECS]; ++i) {
			make_vec(p, list[i], &vec);
			/* So many of the large ones would take too long. */
			if (rep > 2 && vec.iov_len > 4097 &&
			    vec.iov_len <= PAYLOAD_SIZE)
				vec.iov_len = rep;
			if (c->compat)
				u.compat[n++] = (struct compat_vec){
					(uintptr_t)vec.iov_base, vec.iov_len };
			else
				u.vecs[n++] = vec;
		}
	}
	arg.n_vecs = edge_or(T_COUNT, c->fixed[SEND_NV], n);
	/* Then the vectors, too, are what was there before */
	if (arg.n_vecs > n || !is_plain(mem_kind(c->fixed[SEND_VMEM])))
		p->tainted = true;
	arg.ptr_vecs = place(t, mem_kind(c->fixed[SEND_VMEM]), u.vecs,
			     n * (c->compat ? sizeof(*u.compat) : sizeof(*u.vecs)));

	list = call_list(c, SEND_HANDLES);
	for (k = 0, n = 0; k < rep; ++k) {
		for (i = 0; i < c->n[SEND_HANDLES]; ++i)
			u.ids[n++] = resolve_id(p, slot->state, list[i], k);
	}
	arg.n_handles = edge_or(T_COUNT, c->fixed[SEND_NH], n);
	arg.ptr_handles = place(t, mem_kind(c->fixed[SEND_HMEM]), u.ids, 8 * n);

	list = call_list(c, SEND_FDS);
	for (k = 0, n = 0; k < rep; ++k) {
		for (i = 0; i < c->n[SEND_FDS]; ++i)
			u.fds[n++] = resolve_file(p, list[i]);
	}
	arg.n_fds = edge_or(T_COUNT, c->fixed[SEND_NF], n);
	arg.ptr_fds = place(t, mem_kind(c->fixed[SEND_FMEM]), u.fds, 4 * n);

	arg.ptr_errors = 0;
	args->errors = MEM_NULL;
	if (c->fixed[SEND_ERRORS] >= EDGE) {
		args->errors = sym_edge(T_ERRORS, c->fixed[SEND_ERRORS]);
		n = args->n_dests * 4;
		memset(u.bytes, SENTINEL, n);
		arg.ptr_errors = place(t, args->errors, u.bytes, n);
	}
	args->arg = arg;
}

/* Two at the end of the same memory are one. */
static bool same_end(unsigned int a, unsigned int b)
{
	return (a == MEM_FIT || a == MEM_CUT) && (b == MEM_FIT || b == MEM_CUT);
}

static int call_send(struct thread *t, struct call *c, struct slot *slot, int fd)
{
	unsigned int mem = mem_kind(c->fixed[SEND_MEM]);
	struct send_args send;
	int r;

	make_send(t, c, slot, &send);
	r = do_ioctl(c, fd, BUS1_CMD_SEND,
		     place(t, mem, &send.arg, sizeof(send.arg)));
	if (!is_plain(mem) && !r)
		slot->state->vague = true;
	else if (is_plain(send.errors) && send.arg.n_destinations == send.n_dests &&
		 !same_end(mem, send.errors))
		check_send_errors(c, send.arg.flags, send.arg.ptr_errors,
				  send.n_dests, r);
	return r;
}

/* Bytes of the payload come from the sender; only this process sends here. */
static void check_bytes(struct process *p, const uint8_t *bytes, unsigned int n,
			uint64_t offset)
{
	unsigned int i;

	/* Another thread may have given the slice back, and something else be there. */
	for (i = 0; i < n && !p->tainted && !p->threaded; ++i) {
		if (bytes[i] != p->pattern && bytes[i]) {
			finding("recv: byte %#llx is %#x, nobody sent that",
				(unsigned long long)offset + i, bytes[i]);
			return;
		}
	}
}

static void check_zero(const char *map, uint64_t from, uint64_t to)
{
	uint8_t bytes[8] = { 0 };
	unsigned int i;

	if (to <= from || to - from > 8 || to > MAP_LEN ||
	    !safe_copy(bytes, map + from, to - from))
		return;
	for (i = 0; i < to - from; ++i) {
		if (bytes[i])
			finding("recv: padding at %#llx is %#x",
				(unsigned long long)from + i, bytes[i]);
	}
}

static void check_slice_content(struct process *p, struct slot *slot, int fd,
				const struct bus1_cmd_recv *arg, uint64_t end)
{
	uint64_t handles, fds, id, i;
	struct peer_state *s = slot->state;
	uint8_t bytes[64];
	unsigned int n;
	char *map;

	if (!arg->msg.n_handles && !arg->msg.n_fds &&
	    (arg->msg.n_bytes > 4096 || !atomic_load(&slot->map)))
		return;
	/* What lies beyond the mapping is not looked at. */
	map = end <= MAP_LEN ? slot_map(slot, fd) : NULL;
	if (!map) {
		if (arg->msg.n_handles)
			s->vague = true;
		return;
	}

	n = arg->msg.n_bytes < sizeof(bytes) ? arg->msg.n_bytes : sizeof(bytes);
	if (n && safe_copy(bytes, map + arg->msg.offset, n))
		check_bytes(p, bytes, n, arg->msg.offset);
	i = arg->msg.offset + arg->msg.n_bytes - n;
	if (n && safe_copy(bytes, map + i, n))
		check_bytes(p, bytes, n, i);

	handles = (arg->msg.offset + arg->msg.n_bytes + 7) & ~7ULL;
	fds = handles + 8 * arg->msg.n_handles;
	if (!p->threaded && !s->vague)
		check_zero(map, arg->msg.offset + arg->msg.n_bytes, handles);

	for (i = 0; i < arg->msg.n_handles; ++i) {
		if (!safe_copy(&id, map + handles + 8 * i, 8)) {
			if (!p->threaded && !s->vague)
				finding("recv: handle %llu cannot be read",
					(unsigned long long)i);
			s->vague = true;
			return;
		}
		/* The peer's own ID, or one that the kernel made. */
		if (id != BUS1_HANDLE_INVALID && id & 4 && id & 3 && !s->vague &&
		    !p->threaded)
			finding("recv: handle %llu is %#llx", (unsigned long long)i,
				(unsigned long long)id);
		state_add_id(s, id);
	}
	for (i = 0; i < arg->msg.n_fds && i < 256; ++i) {
		int file = -1;

		if (!safe_copy(&file, map + fds + 4 * i, 4))
			return;
		if (p->threaded || s->vague)
			continue;
		if (file < p->base_fd || !(fcntl(file, F_GETFD) & FD_CLOEXEC))
			finding("recv: descriptor %llu is %d", (unsigned long long)i,
				file);
	}
}

static void check_recv(struct thread *t, struct slot *slot, int fd, uint64_t max,
		       const struct bus1_cmd_recv *arg, bool seed)
{
	struct process *p = t->process;
	struct peer_state *s = slot->state;
	uint64_t end;

	if (arg->msg.type < BUS1_MSG_DATA || arg->msg.type > BUS1_MSG_NODE_RELEASE ||
	    arg->msg.flags & ~BUS1_MSG_FLAG_CONTINUE) {
		finding("recv: type %llu, flags %#llx",
			(unsigned long long)arg->msg.type,
			(unsigned long long)arg->msg.flags);
		return;
	}
	if (arg->msg.type != BUS1_MSG_DATA) {
		if (arg->msg.offset != BUS1_OFFSET_INVALID || arg->msg.n_bytes ||
		    arg->msg.n_handles || arg->msg.n_fds || seed)
			finding("recv: a notification with a slice");
		if (arg->msg.destination == BUS1_HANDLE_INVALID)
			finding("recv: a notification about nothing");
		return;
	}
	if (seed != (arg->msg.destination == BUS1_HANDLE_INVALID) ||
	    (!seed && arg->msg.destination & BUS1_HANDLE_FLAG_REMOTE))
		finding("recv: destination %#llx",
			(unsigned long long)arg->msg.destination);
	if (arg->msg.n_handles > 1 << 20 || arg->msg.n_fds > BUS1_FD_MAX ||
	    arg->msg.n_bytes > INT_MAX) {
		finding("recv: bad sizes");
		return;
	}

	end = (arg->msg.offset + arg->msg.n_bytes + 7) & ~7ULL;
	end += 8 * arg->msg.n_handles + 4 * arg->msg.n_fds;
	if (arg->msg.offset & 7 || arg->msg.offset >= 1ULL << 32 ||
	    end > 1ULL << 32 ||
	    (arg->msg.n_handles + arg->msg.n_fds ? end :
	     arg->msg.offset + arg->msg.n_bytes) > max) {
		finding("recv: slice at %#llx, ends at %#llx, max_offset %#llx",
			(unsigned long long)arg->msg.offset,
			(unsigned long long)end, (unsigned long long)max);
		return;
	}
	state_add_slice(p, s, arg->msg.offset, end - arg->msg.offset);
	check_slice_content(p, slot, fd, arg, end);
}

/* Whether the slice was given back is told, also by a call that fails. */
static void check_recv_release(struct process *p, struct peer_state *s,
			       uint64_t offset, uint64_t at, int r)
{
	struct bus1_cmd_recv arg;

	if (offset == BUS1_OFFSET_INVALID)
		return;
	if (!r) {
		state_check_slice(p, s, offset, 0);
	} else if (!safe_copy(&arg, (void *)at, sizeof(arg))) {
		finding("recv: no result");
	} else if (arg.msg.offset == BUS1_OFFSET_INVALID) {
		state_check_slice(p, s, offset, 0);
	} else if (arg.msg.offset != offset) {
		finding("recv: errno %d, %#llx was to be released, is %#llx now", r,
			(unsigned long long)offset,
			(unsigned long long)arg.msg.offset);
	} else if (r == ENXIO) {
		state_check_slice(p, s, offset, r);
	}
}

static int call_recv(struct thread *t, struct call *c, struct slot *slot, int fd)
{
	struct process *p = t->process;
	unsigned int mem = mem_kind(c->fixed[RECV_MEM]);
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	struct bus1_cmd_recv arg;
	uint64_t at, max;
	int r = EAGAIN;
	bool seed;

	/* Nobody would end the wait. */
	if (p->may_block && !p->threaded && (poll(&poll_fd, 1, 0) < 1))
		return r;

	memset(&arg, SENTINEL, sizeof(arg));
	arg.flags = edge_or(T_RFLAGS, c->fixed[RECV_FLAGS], c->fixed[RECV_FLAGS] & 7);
	arg.max_offset = edge_or(T_MAX, c->fixed[RECV_MAX], -1);
	if (arg.flags & BUS1_RECV_FLAG_RELEASE)
		arg.msg.offset = resolve_slice(slot->state, c->fixed[RECV_SLICE]);
	seed = arg.flags & BUS1_RECV_FLAG_SEED;
	max = arg.max_offset;
	at = place(t, mem, &arg, sizeof(arg));
	r = do_ioctl(c, fd, BUS1_CMD_RECV, at);
	if (arg.flags & BUS1_RECV_FLAG_RELEASE && is_plain(mem))
		check_recv_release(p, slot->state, arg.msg.offset, at, r);
	if (r == EAGAIN && !seed && !p->threaded && !slot->state->vague &&
	    is_plain(mem) && !c->fail && poll(&poll_fd, 1, 0) == 1 &&
	    poll_fd.revents & POLLIN)
		finding("recv: EAGAIN, but poll says IN");
	if (r)
		return r;

	if (mem == MEM_POOL || mem == MEM_FRESH) {
		slot->state->vague = true;
		if (mem == MEM_POOL)
			finding("recv: success, but a pool cannot be written");
	} else if (!is_writable(mem)) {
		finding("recv: success, but the result cannot have been written");
	} else if (!safe_copy(&arg, (void *)at, sizeof(arg))) {
		finding("recv: no result");
	} else {
		check_recv(t, slot, fd, max, &arg, seed);
	}
	return 0;
}

/* SEND_RECV */

struct call_args {
	struct send_args send;
	struct bus1_cmd_send_recv arg;
	uint64_t slices[MAX_LIST];
	unsigned int n_slices;
	unsigned int mem, slices_mem, messages_mem;
};

static uint64_t resolve_time(struct process *p, uint16_t sym)
{
	uint64_t time = edge_or(T_TIME, sym, 0);
	struct timespec now;

	/* Nobody would end the wait. */
	if (p->may_block && !p->threaded && time > 50000)
		time = 50000;
	if (sym < EDGE || time == 1 || time > 2000000)
		return time;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec + time;
}

static void make_call(struct thread *t, struct call *c, struct slot *slot,
		      struct call_args *args)
{
	static _Thread_local struct bus1_msg messages[1024];
	struct bus1_cmd_send_recv *arg = &args->arg;
	uint16_t *list = call_list(c, CALL_SLICES);
	uint64_t room = edge_or(T_ROOM, c->fixed[CALL_ROOM], c->fixed[CALL_ROOM] & 15);

	make_send(t, c, slot, &args->send);
	args->mem = mem_kind(c->fixed[SEND_MEM]);
	args->slices_mem = mem_kind(c->fixed[CALL_SMEM]);
	args->messages_mem = mem_kind(c->fixed[CALL_MMEM]);
	for (args->n_slices = 0; args->n_slices < c->n[CALL_SLICES]; ++args->n_slices)
		args->slices[args->n_slices] = resolve_slice(slot->state,
							     list[args->n_slices]);
	memset(messages, SENTINEL, sizeof(messages));
	memset(arg, SENTINEL, sizeof(*arg));
	arg->flags = resolve_flags(c->fixed[CALL_FLAGS]);
	arg->ptr_slices = place(t, args->slices_mem, args->slices,
				args->n_slices * sizeof(*args->slices));
	arg->n_slices = edge_or(T_COUNT, c->fixed[CALL_NS], args->n_slices);
	arg->ptr_messages = place(t, args->messages_mem, messages,
				  (room < 1024 ? room : 1024) * sizeof(*messages));
	arg->n_messages = room;
	arg->max_offset = edge_or(T_MAX, c->fixed[CALL_MAX], -1);
	arg->timeout = resolve_time(t->process, c->fixed[CALL_TIME]);
	arg->send = args->send.arg;
}

/* The slices that are said to be given back are, and no others. */
static void check_call_slices(struct process *p, struct peer_state *s,
			      const struct call_args *args, uint64_t left, int r)
{
	uint64_t i;

	if (left > args->arg.n_slices || (!r && left)) {
		finding("call: errno %d, %llu of %llu slices are left", r,
			(unsigned long long)left,
			(unsigned long long)args->arg.n_slices);
		return;
	}
	if (args->arg.n_slices > args->n_slices || !is_plain(args->slices_mem) ||
	    args->slices_mem == MEM_FIT) {
		if (left != args->arg.n_slices)
			s->vague = true;
		return;
	}
	for (i = args->arg.n_slices; i > left; --i)
		state_check_slice(p, s, args->slices[i - 1], 0);
	if (r == ENXIO && left && !(args->arg.flags & BUS1_SEND_RECV_FLAG_SEND))
		state_check_slice(p, s, args->slices[left - 1], ENXIO);
}

static void check_call_messages(struct thread *t, struct slot *slot, int fd,
				const struct call_args *args, uint64_t n)
{
	const struct bus1_msg *from = (void *)(uintptr_t)args->arg.ptr_messages;
	struct bus1_cmd_recv recv;
	uint64_t i;

	for (i = 0; i < n; ++i) {
		if (!safe_copy(&recv.msg, &from[i], sizeof(recv.msg))) {
			finding("call: message %llu cannot have been written",
				(unsigned long long)i);
			return;
		}
		check_recv(t, slot, fd, args->arg.max_offset, &recv, false);
	}
	shared->received[t->process->index] += n;
}

/* What the argument says of how far it came. */
static void check_call(struct thread *t, struct call *c, struct slot *slot, int fd,
		       const struct call_args *args, uint64_t at, int r)
{
	const struct bus1_cmd_send_recv *old = &args->arg;
	uint64_t send = old->flags & BUS1_SEND_RECV_FLAG_SEND;
	struct bus1_cmd_send_recv arg;
	unsigned int mem;

	if (!safe_copy(&arg, (void *)at, sizeof(arg))) {
		finding("call: no result");
		return;
	}
	if ((arg.flags | send) != old->flags ||
	    (!r && arg.flags & BUS1_SEND_RECV_FLAG_SEND))
		finding("call: errno %d, flags %#llx were %#llx", r,
			(unsigned long long)arg.flags,
			(unsigned long long)old->flags);
	check_call_slices(t->process, slot->state, args, arg.n_slices, r);

	send &= ~arg.flags;
	shared->sent[t->process->index] += !!send;
	mem = args->send.errors;
	if (old->flags & BUS1_SEND_RECV_FLAG_SEND && is_plain(mem) &&
	    old->send.n_destinations == args->send.n_dests &&
	    !same_end(mem, args->mem) && !same_end(mem, args->messages_mem) &&
	    !same_end(mem, args->slices_mem))
		check_send_errors(c, old->send.flags, old->send.ptr_errors,
				  args->send.n_dests, send ? 0 : r);

	if (r) {
		if (arg.n_received && arg.n_received != old->n_received)
			finding("call: errno %d, but %llu messages", r,
				(unsigned long long)arg.n_received);
		return;
	}
	if (arg.n_received > old->n_messages ||
	    (old->n_messages && !arg.n_received))
		finding("call: %llu messages of %llu",
			(unsigned long long)arg.n_received,
			(unsigned long long)old->n_messages);
	else
		check_call_messages(t, slot, fd, args, arg.n_received);
}

static int call_call(struct thread *t, struct call *c, struct slot *slot, int fd)
{
	struct call_args args;
	uint64_t at;
	int r;

	make_call(t, c, slot, &args);
	at = place(t, args.mem, &args.arg, sizeof(args.arg));
	r = do_ioctl(c, fd, BUS1_CMD_SEND_RECV, at);
	if (is_plain(args.mem) && !same_end(args.mem, args.messages_mem) &&
	    !same_end(args.mem, args.send.errors))
		check_call(t, c, slot, fd, &args, at, r);
	else
		/* It may have done something, whatever it says */
		slot->state->vague = true;
	return r;
}

static int call_mmap(struct call *c, struct slot *slot, int fd)
{
	static const int prots[] = {
		PROT_READ, PROT_READ | PROT_WRITE, PROT_NONE, PROT_READ | PROT_EXEC,
	};
	static const int kinds[] = {
		MAP_SHARED, MAP_PRIVATE, MAP_SHARED | MAP_POPULATE, MAP_SHARED_VALIDATE,
	};
	size_t len = edge_or(T_LEN, c->fixed[MMAP_LEN], MAP_LEN);
	unsigned int which = c->fixed[MMAP_LEN] < EDGE ? 0 :
		c->fixed[MMAP_LEN] - EDGE + 1;
	int prot = prots[c->fixed[MMAP_PROT] < 8 ? 0 : c->fixed[MMAP_PROT] & 3];
	int kind = kinds[c->fixed[MMAP_KIND] < 4 ? 0 : c->fixed[MMAP_KIND] & 3];
	bool shifted = c->fixed[MMAP_KIND] == 9;
	uintptr_t none = 0;
	char *at;

	drop_map(slot);
	/* To fill in nothing takes long, too. */
	if (kind & MAP_POPULATE && len > 1 << 24)
		kind = MAP_SHARED;
	if (len <= 1 << 24)
		kind |= MAP_32BIT;
	at = mmap(NULL, len, prot, kind | MAP_NORESERVE, fd, shifted ? 4096 : 0);
	if (at == MAP_FAILED)
		return errno;
	if (prot & PROT_WRITE)
		finding("mmap: writable");
	/* One that does not show the pool as it is would confuse the checks. */
	if (shifted || !(prot & PROT_READ) ||
	    !atomic_compare_exchange_strong(&slot->map, &none, (uintptr_t)at | which))
		munmap(at, len);
	return 0;
}

static int call_mremap(struct call *c, struct slot *slot)
{
	uintptr_t map = atomic_exchange(&slot->map, 0);
	size_t len = edge_or(T_LEN, c->fixed[1], MAP_LEN);
	char *to;
	int e;

	if (!map)
		return 0;
	if (len > 1ULL << 33 || !len)
		len = MAP_LEN;
	to = mremap(map_address(map), map_length(map), len, MREMAP_MAYMOVE);
	if (to == MAP_FAILED) {
		e = errno;
		munmap(map_address(map), map_length(map));
		return e;
	}
	munmap(to, len);
	return 0;
}

static int call_madvise(struct call *c, struct slot *slot)
{
	static const int advice[] = {
		MADV_DONTNEED, MADV_WILLNEED, MADV_FREE, MADV_REMOVE, MADV_DONTFORK,
		MADV_POPULATE_READ, MADV_POPULATE_WRITE, MADV_PAGEOUT, MADV_COLD,
		MADV_HUGEPAGE, MADV_DOFORK, MADV_MERGEABLE,
	};
	uintptr_t map = atomic_load(&slot->map);
	size_t len = map_length(map);

	if (!map)
		return 0;
	if (len > MAP_LEN)
		len = MAP_LEN;
	return result(madvise(map_address(map), len,
			      advice[c->fixed[1] % ARRAY_SIZE(advice)]));
}

static int call_mprotect(struct process *p, struct call *c, struct slot *slot)
{
	int prot = c->fixed[1] & 1 ? PROT_READ : PROT_READ | PROT_WRITE, r;
	uintptr_t map = atomic_load(&slot->map);

	if (!map || p->threaded)
		return 0;
	r = result(mprotect(map_address(map), 4096, prot));
	if (!r && prot & PROT_WRITE)
		finding("mprotect: writable");
	return r;
}

static int call_touch(struct thread *t, struct call *c, struct slot *slot)
{
	static const unsigned int offsets[] = { 0, 4096, 8192, 65536, MAP_LEN - 4096 };
	char *map = map_address(atomic_load(&slot->map));
	volatile char byte;

	if (!map)
		return 0;
	if (c->fixed[1] & 1) {
		safe_copy((void *)&byte, map + offsets[c->fixed[1] % 5], 1);
		return 0;
	}
	return result(pwrite(t->process->files[FILE_MEMFD],
			     map + offsets[c->fixed[1] % 5], 4096, 0));
}

static int call_poll(struct thread *t, struct call *c, int fd)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT, .data.fd = fd };
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN | POLLOUT };
	struct epoll_event events[8];

	switch (c->fixed[1] % 8) {
	case 1:
		epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &event);
		epoll_wait(t->epoll_fd, events, 8, 0);
		return 0;
	case 2:
		event.events |= EPOLLET;
		return result(epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &event));
	case 3:
		event.events = EPOLLIN | EPOLLEXCLUSIVE;
		return result(epoll_ctl(t->epoll_fd, EPOLL_CTL_ADD, fd, &event));
	case 4:
		epoll_wait(t->epoll_fd, events, 8, 0);
		return 0;
	case 5:
		return result(epoll_ctl(t->epoll_fd, EPOLL_CTL_DEL, fd, NULL));
	default:
		if (poll(&poll_fd, 1, c->fixed[1] == 7) < 0)
			return errno;
		if (poll_fd.revents & POLLHUP && poll_fd.revents != POLLHUP)
			finding("poll: HUP is not alone: %#x", poll_fd.revents);
		return 0;
	}
}

static int call_fileop(struct call *c, int fd)
{
	char byte = 0;
	int n = 0;

	switch (c->fixed[1] % 12) {
	case 0:
		return result(read(fd, &byte, 1));
	case 1:
		return result(write(fd, &byte, 1));
	case 2:
		return result(lseek(fd, 1, SEEK_SET));
	case 3:
		return result(ftruncate(fd, 0));
	case 4:
		return result(fsync(fd));
	case 5:
		return result(ioctl(fd, FIONREAD, &n));
	case 6:
		n = 1;
		return result(ioctl(fd, FIOASYNC, &n));
	case 7:
		return result(pread(fd, &byte, 1, 0));
	case 8:
		return result(fallocate(fd, 0, 0, 1));
	case 9:
		return result(fcntl(fd, F_SETOWN, getpid()));
	case 10:
		return result(fcntl(fd, F_SETFL, O_APPEND | O_NONBLOCK));
	default:
		return result(splice(fd, NULL, fd, NULL, 1, 0));
	}
}

static int send_fd(int sock, int fd)
{
	union { struct cmsghdr h; char space[CMSG_SPACE(sizeof(int))]; } u;
	struct iovec vec = { "", 1 };
	struct msghdr msg = {
		.msg_iov = &vec, .msg_iovlen = 1,
		.msg_control = &u, .msg_controllen = sizeof(u),
	};

	u.h.cmsg_level = SOL_SOCKET;
	u.h.cmsg_type = SCM_RIGHTS;
	u.h.cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(&u.h), &fd, sizeof(int));
	return sendmsg(sock, &msg, MSG_DONTWAIT) < 0 ? -errno : 0;
}

static int recv_fd(int sock)
{
	union { struct cmsghdr h; char space[CMSG_SPACE(sizeof(int))]; } u;
	char byte;
	struct iovec vec = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &vec, .msg_iovlen = 1,
		.msg_control = &u, .msg_controllen = sizeof(u),
	};
	int fd = -1;

	if (recvmsg(sock, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC) < 0)
		return -errno;
	if (msg.msg_controllen >= CMSG_LEN(sizeof(int)) &&
	    u.h.cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(&u.h), sizeof(int));
	return fd;
}

static int call_pass(struct thread *t, struct call *c, struct slot *slot, int fd)
{
	struct process *p = t->process;
	struct peer_state *s = slot->state;
	int pair[2], r;

	switch (c->fixed[2] % 4) {
	case 2:
		if (!p->use_mail)
			return 0;
		s->vague = true;
		p->may_block = true;
		return -send_fd(mail[0], fd);
	case 3:
		if (!p->use_mail)
			return 0;
		r = recv_fd(mail[1]);
		if (r < 0)
			return -r;
		p->may_block = true;
		put_slot(p, c->fixed[1], r, NULL);
		p->slots[c->fixed[1] % N_PEERS].state->vague = true;
		return 0;
	}
	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair))
		return errno;
	r = send_fd(pair[0], fd);
	if (!r && c->fixed[2] % 4 == 0) {
		r = recv_fd(pair[1]);
		if (r >= 0) {
			put_slot(p, c->fixed[1], r, s);
			r = 0;
		}
	}
	close(pair[0]);
	/* Some are left in there, for another time to be closed. */
	if (c->fixed[2] != 5) {
		close(pair[1]);
	} else {
		s->vague = true;
		p->hidden = true;
	}
	return -r;
}

static int call_fork(struct thread *t, struct call *c, struct slot *slot, int fd)
{
	static const uint64_t invalid = -1;
	struct bus1_cmd_recv recv = { .flags = 2, .max_offset = -1 };
	unsigned int how = c->fixed[1] % 6;
	struct pollfd poll_fd = { .fd = fd, .events = POLLIN };
	struct process *p = t->process;
	pid_t pid;

	if (how == 2) {
		/* What this one gets nobody keeps count of. */
		slot->state->vague = true;
		if (p->may_block)
			return 0;
	}
	if (how == 1)
		slot->state->vague = true;
	pid = how == 3 ? fork() : vfork();
	if (!pid) {
		/* No timer is inherited. */
		syscall(SYS_alarm, 1);
		switch (how) {
		case 0:
			syscall(SYS_close_range, p->base_fd, ~0U, 0);
			break;
		case 1:
			syscall(SYS_ioctl, fd, BUS1_CMD_PEER_DISCONNECT, 0);
			break;
		case 2:
			syscall(SYS_ioctl, fd, BUS1_CMD_RECV, &recv);
			break;
		case 4:
			syscall(SYS_poll, &poll_fd, 1, 0);
			break;
		case 5:
			syscall(SYS_ioctl, fd, BUS1_CMD_HANDLE_RELEASE, &invalid);
			break;
		}
		_exit(0);
	}
	if (pid < 0)
		return errno;
	while (waitpid(pid, NULL, __WALL) < 0 && errno == EINTR)
		;
	return 0;
}

static int call_rlimit(struct process *p, struct call *c)
{
	static const int room[] = { N_PEERS + 2, 1, 12, 4096 };
	struct rlimit limit = { p->base_fd + room[c->fixed[1] & 3], 65536 };

	return result(setrlimit(RLIMIT_NOFILE, &limit));
}

static int call_kill(struct process *p, struct call *c)
{
	int tid = p->threads[c->fixed[0] % N_THREADS].tid;

	if (!tid || !p->threaded)
		return 0;
	return result(syscall(SYS_tgkill, getpid(), tid,
			      c->fixed[0] >= N_THREADS ? SIGUSR2 : SIGUSR1));
}

static int dispatch(struct thread *t, struct call *c)
{
	struct process *p = t->process;
	struct slot *slot = NULL;
	int fd = -1, flags, none = EBADF;
	volatile unsigned int i;

	if (c->op == OP_OPEN)
		return call_open(t, c);
	if (c->op == OP_KILL)
		return call_kill(p, c);
	if (c->op == OP_RLIMIT)
		return call_rlimit(p, c);
	if (c->op == OP_CLOSE)
		return call_close(t, c);
	slot = find_slot(p, c->fixed[0]);
	if (slot)
		fd = atomic_load(&slot->fd);
	if (fd < 0)
		return none;

	switch (c->op) {
	case OP_DUP:
		return call_dup(t, c, slot);
	case OP_DISCONNECT:
		return call_disconnect(c, slot, fd);
	case OP_QUERY:
		return call_query(t, c, fd);
	case OP_RESET:
		return call_reset(t, c, slot, fd);
	case OP_RELEASE:
		return call_release(t, c, slot, fd);
	case OP_TRANSFER:
		return call_transfer(t, c, slot, fd);
	case OP_DESTROY:
		return call_destroy(t, c, slot, fd);
	case OP_SLICE:
		return call_slice(t, c, slot, fd);
	case OP_SEND:
		return call_send(t, c, slot, fd);
	case OP_RECV:
		return call_recv(t, c, slot, fd);
	case OP_CALL:
		return call_call(t, c, slot, fd);
	case OP_MMAP:
		return call_mmap(c, slot, fd);
	case OP_MUNMAP:
		drop_map(slot);
		return 0;
	case OP_MREMAP:
		return call_mremap(c, slot);
	case OP_MADVISE:
		return call_madvise(c, slot);
	case OP_MPROTECT:
		return call_mprotect(p, c, slot);
	case OP_TOUCH:
		return call_touch(t, c, slot);
	case OP_POLL:
		return call_poll(t, c, fd);
	case OP_FILEOP:
		return call_fileop(c, fd);
	case OP_FDINFO:
		if (!p->threaded && !p->use_mail)
			state_check_budgets(p);
		return 0;
	case OP_PASS:
		return call_pass(t, c, slot, fd);
	case OP_FORK:
		return call_fork(t, c, slot, fd);
	case OP_NONBLOCK:
		flags = c->fixed[1] & 1 ? 0 : O_NONBLOCK;
		if (!flags)
			p->may_block = true;
		return result(fcntl(fd, F_SETFL, flags));
	case OP_BADIOCTL:
		if (do_ioctl(c, fd, edge_or(T_CMD, c->fixed[1], 0),
			     (uintptr_t)t->memory) == 0)
			finding("badioctl: success");
		return 0;
	case OP_SPIN:
		for (i = 0; i < c->fixed[1] * 50U; ++i)
			;
		return 0;
	}
	return 0;
}

static void run_call(struct thread *t, struct call *c)
{
	struct process *p = t->process;
	sigset_t all, old;
	char text[16];
	int error, n;

	t->bump = t->memory;
	n = c->fail && t->fail_fd >= 0 && c->op != OP_FORK && c->op != OP_RLIMIT &&
		/* Where failing page faults of user space end programs. */
		!(p->is_um && c->op >= OP_MMAP) &&
		!((c->op == OP_RECV || c->op == OP_CALL) &&
		  (p->may_block || p->threaded));
	if (n) {
		/* A signal whose frame cannot be written would end the process. */
		sigfillset(&all);
		sigdelset(&all, SIGSEGV);
		sigdelset(&all, SIGBUS);
		pthread_sigmask(SIG_BLOCK, &all, &old);
		n = snprintf(text, sizeof(text), "%u", c->fail);
		pwrite(t->fail_fd, text, n, 0);
	}
	t->failing = n;
	cover_begin(&t->cover);
	error = dispatch(t, c);
	cover_end(&t->cover, p, c->op, error);
	if (n) {
		n = pread(t->fail_fd, text, sizeof(text), 0);
		if (n > 0 && text[0] == '0')
			++shared->injected[p->index];
		pwrite(t->fail_fd, "0", 1, 0);
		pthread_sigmask(SIG_SETMASK, &old, NULL);
	}
	check_errno(c, error);
	if (!error && c->op == OP_SEND)
		++shared->sent[p->index];
	if (!error && c->op == OP_RECV)
		++shared->received[p->index];
}

/* Threads */

static long futex(atomic_uint *word, int op, unsigned int value,
		  const struct timespec *timeout)
{
	return syscall(SYS_futex, word, op | FUTEX_PRIVATE_FLAG, value, timeout, NULL, 0);
}

static void run_thread(struct thread *t, unsigned int from)
{
	struct prog *prog = &t->process->prog;
	unsigned int i;

	for (i = from; i < prog->n_calls; ++i) {
		if (prog->calls[i].thread == t->index)
			run_call(t, &prog->calls[i]);
	}
}

static unsigned int first_of_threads(const struct prog *prog)
{
	unsigned int i;

	for (i = 0; i < prog->n_calls && !prog->calls[i].thread; ++i)
		;
	/* The call before starts together with it. */
	return i ? i - 1 : 0;
}

static void thread_init(struct thread *t)
{
	long n = sysconf(_SC_NPROCESSORS_ONLN);
	cpu_set_t cpus;

	self = t;
	/*
	 * Threads of one process on different CPUs, or else they seldom meet; and each
	 * always on the same, so that no other CPU has to be told of mappings.
	 */
	CPU_ZERO(&cpus);
	CPU_SET((t->process->index + t->index) % (n > 0 ? n : 1), &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
	t->tid = syscall(SYS_gettid);
	/* Each process is a user of its own: what that one has can be added up. */
	syscall(SYS_setresuid, t->process->uid, -1, -1);
	t->memory = map_memory(MEMORY_SIZE);
	t->bump = t->memory;
	t->fail_fd = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	t->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	cover_open(&t->cover);
	cover_enable(&t->cover);
}

static void *thread_main(void *arg)
{
	struct thread *t = arg;
	unsigned int seen = 0, go;

	thread_init(t);
	atomic_store(&t->done, ~0U);
	futex(&t->done, FUTEX_WAKE, 1, NULL);
	for (;;) {
		go = atomic_load(&t->go);
		if (go == seen) {
			futex(&t->go, FUTEX_WAIT, go, NULL);
			continue;
		}
		seen = go;
		run_thread(t, first_of_threads(&t->process->prog));
		atomic_store(&t->done, go);
		futex(&t->done, FUTEX_WAKE, 1, NULL);
	}
	return NULL;
}

/* Those that wait for a message are told to stop. */
static void join(struct thread *t)
{
	static const struct timespec patience = { .tv_nsec = 3000000 };
	unsigned int done;

	for (;;) {
		done = atomic_load(&t->done);
		if (done == atomic_load(&t->go))
			return;
		if (futex(&t->done, FUTEX_WAIT, done, &patience) < 0 &&
		    errno == ETIMEDOUT)
			syscall(SYS_tgkill, getpid(), t->tid, SIGUSR1);
	}
}

static void run_threads(struct process *p)
{
	unsigned int i, k, first = first_of_threads(&p->prog), used = 0;

	for (i = 0; i < first; ++i)
		run_call(&p->threads[0], &p->prog.calls[i]);
	for (i = first; i < p->prog.n_calls; ++i)
		used |= 1U << p->prog.calls[i].thread;
	for (k = 1; k < N_THREADS; ++k) {
		if (!(used & 1U << k))
			continue;
		atomic_fetch_add(&p->threads[k].go, 1);
		futex(&p->threads[k].go, FUTEX_WAKE, 1, NULL);
	}
	run_thread(&p->threads[0], first);
	for (k = 1; k < N_THREADS; ++k) {
		if (used & 1U << k)
			join(&p->threads[k]);
	}
}

/* Programs */

/* A kernel that is a program of the host? */
static bool probe_um(void)
{
	char text[512] = "";
	int fd = open("/proc/cpuinfo", O_RDONLY | O_CLOEXEC);

	if (fd >= 0) {
		read(fd, text, sizeof(text) - 1);
		close(fd);
	}
	return strstr(text, "User Mode Linux");
}

/* Only to compare programs with each other. */
static uint64_t cycles(void)
{
#ifdef __x86_64__
	return __builtin_ia32_rdtsc();
#else
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
#endif
}

static void cleanup(struct process *p)
{
	unsigned int i;

	for (i = 0; i < N_PEERS; ++i) {
		drop_map(&p->slots[i]);
		atomic_store(&p->slots[i].fd, -1);
	}
	syscall(SYS_close_range, p->base_fd, ~0U, 0);
	for (i = 0; i < p->prog.n_calls; ++i) {
		if (p->prog.calls[i].op == OP_RLIMIT) {
			struct rlimit limit = { 4096, 65536 };

			setrlimit(RLIMIT_NOFILE, &limit);
			break;
		}
	}
}

void exec_run(struct process *p, const struct prog *prog)
{
	struct box *box = &shared->boxes[p->index][p->number % N_BOXES];
	size_t size = offsetof(struct prog, calls) +
		prog->n_calls * sizeof(prog->calls[0]);
	uint64_t start = cycles();
	unsigned int i;

	memcpy(&p->prog, prog, size);
	memcpy(&box->prog, prog, size);
	box->number = p->number;
	box->proc = p->index;
	memcpy(box->magic, BOX_MAGIC, sizeof(box->magic));
	box->running = 1;

	for (i = 0; i < prog->n_calls && !p->has_compat; ++i)
		p->prog.calls[i].compat = 0;
	state_reset(p);
	p->threaded = prog_is_threaded(prog);
	p->tainted = p->use_mail;
	p->may_block = false;
	p->hidden = false;
	p->fresh.n = 0;

	if (p->threaded) {
		run_threads(p);
	} else {
		for (i = 0; i < p->prog.n_calls; ++i)
			run_call(&p->threads[0], &p->prog.calls[i]);
		if (!p->use_mail && p->number % 512 == 0)
			state_check_budgets(p);
	}
	cleanup(p);

	box->running = 0;
	++p->number;
	p->cost = cycles() - start;
	p->usual_cost += ((int64_t)p->cost - (int64_t)p->usual_cost) / 256;
	atomic_fetch_add_explicit(&shared->progs[p->index], 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&shared->calls[p->index], prog->n_calls,
				  memory_order_relaxed);
	if (p->threaded)
		atomic_fetch_add_explicit(&shared->threaded[p->index], 1,
					  memory_order_relaxed);
}

static void open_files(struct process *p)
{
	struct io_uring_params params = { 0 };
	int fds[2];

	p->files[FILE_MEMFD] = memfd_create("fuzz", MFD_CLOEXEC);
	if (pipe2(fds, O_CLOEXEC))
		_exit(1);
	p->files[FILE_PIPE] = fds[0];
	p->files[FILE_EVENT] = eventfd(0, EFD_CLOEXEC);
	p->files[FILE_OPATH] = open("/dev/null", O_PATH | O_CLOEXEC);
	p->files[FILE_SOCKET] = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	p->files[FILE_NETLINK] = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0);
	p->files[FILE_EPOLL] = epoll_create1(EPOLL_CLOEXEC);
	p->files[FILE_URING] = syscall(SYS_io_uring_setup, 1, &params);
	if (p->files[FILE_URING] >= 0)
		fcntl(p->files[FILE_URING], F_SETFD, FD_CLOEXEC);
}

bool exec_init(struct process *p, unsigned int index)
{
	struct sigaction fault = {
		.sa_sigaction = on_fault, .sa_flags = SA_NODEFER | SA_SIGINFO };
	struct sigaction restart = { .sa_handler = on_signal, .sa_flags = SA_RESTART };
	struct sigaction interrupt = { .sa_handler = on_signal };
	static const struct itimerval tick = { { 0, 20000 }, { 0, 20000 } };
	unsigned int i;

	p->index = index;
	p->uid = 1000 + index * 4;
	p->pattern = 0x41 + index;
	for (i = 0; i < N_PEERS; ++i)
		atomic_store(&p->slots[i].fd, -1);

	sigaction(SIGSEGV, &fault, NULL);
	sigaction(SIGBUS, &fault, NULL);
	sigaction(SIGUSR1, &interrupt, NULL);
	sigaction(SIGALRM, &interrupt, NULL);
	sigaction(SIGUSR2, &restart, NULL);
	sigaction(SIGIO, &restart, NULL);

	p->payload = map_memory(PAYLOAD_SIZE);
	memset(p->payload, p->pattern, PAYLOAD_SIZE);
	p->ro = map_memory(RO_SIZE);
	mprotect(p->ro, RO_SIZE, PROT_READ);
	p->none = map_memory(131072);
	mprotect(p->none, 65536, PROT_NONE);

	open_files(p);
	p->is_um = probe_um();
	for (i = 0; i < N_THREADS; ++i) {
		p->threads[i].process = p;
		p->threads[i].index = i;
		if (!i) {
			thread_init(&p->threads[i]);
			p->has_compat = probe_compat();
			continue;
		}
		if (pthread_create(&p->threads[i].pthread, NULL, thread_main,
				   &p->threads[i]))
			return false;
		while (atomic_load(&p->threads[i].done) != ~0U)
			futex(&p->threads[i].done, FUTEX_WAIT, 0, NULL);
		atomic_store(&p->threads[i].done, 0);
	}
	/* Nobody waits for ever: what blocks is interrupted. */
	setitimer(ITIMER_REAL, &tick, NULL);
	p->base_fd = dup(0);
	close(p->base_fd);
	return true;
}
