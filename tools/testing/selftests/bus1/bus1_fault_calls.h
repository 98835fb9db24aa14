/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The system calls that test_fail_nth.c makes fail, and the situations in which it
 * does. A function prepare_*() makes a situation. A function run_*() makes one
 * call, which may go wrong, and tells its result if it succeeds.
 */
#ifndef __BUS1_FAULT_CALLS_H
#define __BUS1_FAULT_CALLS_H

#include "bus1_fault.h"
#include <sys/epoll.h>

#define ERRORS_MAX	4

/**
 * struct scenario - one system call in one situation
 * @name: what it is about
 * @n_peers: peers in the world
 * @prepare: makes the situation, or NULL
 * @run: makes the call, and tells its result if it succeeds
 * @errors: what it may fail with when resources are short
 * @n_fds: descriptors that the call needs
 * @pool_pages: size of all pools, in pages, 0 for the usual one
 * @fork: fails again only in a process of its own
 */
struct scenario {
	const char *name;
	int n_peers;
	void (*prepare)(struct world *w);
	int (*run)(struct world *w);
	int errors[ERRORS_MAX];
	unsigned int n_fds;
	__u64 pool_pages;
	bool fork;
};

/*
 * Building blocks
 */

static __u8 payload[6 * PAGE_MAX];

/* IDs of p[0] that are not in use before a message names them. */
#define FRESH(_i)	(0x10000ULL + 0x10 * (_i))
#define MANY		41
/* An array of so many is larger than a page. */
#define LOTS		600

struct mail {
	__u64 flags;
	__u64 dst[WORLD_PEERS];
	int n_dst;
	int n_vecs;
	size_t vec_size;
	__u64 handles[LOTS];
	int n_handles;
	int n_fds;
	bool errors;
};

static void mail_read_errors(struct world *w, const struct object *object,
			     int n_dst)
{
	__s32 error;
	int k;

	for (k = 0; k < n_dst; k++) {
		memcpy(&error, object->p + k * sizeof(error), sizeof(error));
		if (error == -EXFULL && w->skipped < 0)
			w->skipped = k;
		else if (error)
			tell(w, "destination %d: %s\n", k, strerror(-error));
	}
}

/* The argument of SEND, whose arrays are objects, and which of them has errors. */
static struct bus1_cmd_send mail_cmd(struct world *w, const struct mail *m,
				     int *errors_at)
{
	__s32 errors[WORLD_PEERS];
	struct bus1_cmd_send cmd = {
		.flags = m->flags,
		.n_vecs = m->n_vecs,
		.n_handles = m->n_handles,
		.n_fds = m->n_fds,
	};
	__u64 dst[WORLD_PEERS];
	struct iovec vecs[6];
	int k;

	for (k = 0; k < m->n_dst; k++)
		if (k != w->skip)
			dst[cmd.n_destinations++] = m->dst[k];
	for (k = 0; k < WORLD_PEERS; k++)
		errors[k] = SENTINEL32;

	*errors_at = -1;
	cmd.ptr_destinations = ptr(user_in(w, dst, cmd.n_destinations *
					   sizeof(*dst)));
	for (k = 0; k < m->n_vecs; k++) {
		vecs[k].iov_base = user_in(w, payload + k, m->vec_size);
		vecs[k].iov_len = m->vec_size;
	}
	cmd.ptr_vecs = ptr(user_in(w, vecs, m->n_vecs * sizeof(*vecs)));
	cmd.ptr_handles = ptr(user_in(w, m->handles,
				      m->n_handles * sizeof(__u64)));
	cmd.ptr_fds = ptr(user_in(w, w->files, m->n_fds * sizeof(int)));
	if (m->errors) {
		*errors_at = w->n_objects;
		cmd.ptr_errors = ptr(user(w, errors,
					  cmd.n_destinations * sizeof(__s32),
					  OBJECT_OUT));
	}
	return cmd;
}

static void mail_sent(struct world *w, int from, const struct mail *m)
{
	int k;

	for (k = 0; k < m->n_handles; k++)
		know(w, from, m->handles[k]);
	for (k = 0; k < m->n_dst; k++)
		know(w, from, m->dst[k]);
}

static int send_mail(struct world *w, int from, const struct mail *m)
{
	struct bus1_cmd_send cmd;
	int r, at;

	w->n_objects = 0;
	cmd = mail_cmd(w, m, &at);
	r = faulty_ioctl(w, from, BUS1_CMD_SEND, user_in(w, &cmd, sizeof(cmd)));
	if (r)
		return r;

	mail_sent(w, from, m);
	if (at >= 0)
		mail_read_errors(w, &w->objects[at], cmd.n_destinations);
	return 0;
}

static int recv_faulty(struct world *w, int i, __u64 flags)
{
	struct bus1_cmd_recv recv;
	void *arg;
	int r;

	bus1_recv_init(&recv, flags);
	w->n_objects = 0;
	arg = user_inout(w, &recv, sizeof(recv));
	r = faulty_ioctl(w, i, BUS1_CMD_RECV, arg);
	user_back(w, &recv, arg, sizeof(recv));
	if (!r)
		tell_message(w, i, &recv);
	else if (!fault_is_cut(&w->fault) && !bus1_recv_untouched(&recv))
		r = -EPROTO;
	return r;
}

/*
 * As RECV, and the slice that p[@i] has is given back before. If that is done when
 * the call fails, it is made again.
 */
static int recv_release_faulty(struct world *w, int i, __u64 flags)
{
	__u64 offset = w->recv[0].msg.offset;
	struct bus1_cmd_recv recv;
	int r;

	bus1_recv_init(&recv, flags | BUS1_RECV_FLAG_RELEASE);
	recv.msg.offset = offset;
	w->n_objects = 0;
	r = faulty_ioctl(w, i, BUS1_CMD_RECV, &recv);
	if (r && recv.msg.offset == offset)
		return r;
	if (r && recv.msg.offset != BUS1_OFFSET_INVALID)
		return -EPROTO;
	if (r)
		r = bus1_ioctl(w->p[i].fd, BUS1_CMD_RECV, &recv);
	if (!r)
		tell_message(w, i, &recv);
	return r;
}

/*
 * SEND_RECV of p[@i]. What it has done when it fails is done: then it is made again,
 * with what is left, until all is done.
 */
static int send_recv_faulty(struct world *w, int i, const struct mail *m,
			    struct bus1_cmd_send_recv cmd)
{
	struct bus1_msg msgs[8];
	struct bus1_cmd_recv recv;
	__u64 k, n = 0, wanted = cmd.n_messages;
	__u64 flags = cmd.flags, n_slices = cmd.n_slices;
	void *arg;
	int r, at;

	w->n_objects = 0;
	if (m)
		cmd.send = mail_cmd(w, m, &at);
	if (n_slices)
		cmd.ptr_slices = ptr(user_in(w, (void *)(uintptr_t)cmd.ptr_slices,
					     n_slices * sizeof(__u64)));
	cmd.ptr_messages = ptr(msgs);
	cmd.n_received = 0;
	arg = user_in(w, &cmd, sizeof(cmd));
	r = faulty_ioctl(w, i, BUS1_CMD_SEND_RECV, arg);
	user_back(w, &cmd, arg, sizeof(cmd));
	for (;;) {
		if (r && cmd.flags == flags && cmd.n_slices == n_slices)
			return r;
		/* Nothing but these two is told by errors. */
		if (r && cmd.n_received)
			return -EPROTO;
		for (k = 0; k < cmd.n_received; k++) {
			memcpy(&recv.msg, &msgs[k], sizeof(msgs[k]));
			tell_message(w, i, &recv);
		}
		n += cmd.n_received;
		if (!r && n == wanted)
			break;
		cmd.n_messages = wanted - n;
		memcpy(arg, &cmd, sizeof(cmd));
		r = MUST(bus1_ioctl(w->p[i].fd, BUS1_CMD_SEND_RECV, arg));
		memcpy(&cmd, arg, sizeof(cmd));
	}
	if (cmd.flags & BUS1_SEND_RECV_FLAG_SEND || cmd.n_slices)
		return -EPROTO;
	if (m)
		mail_sent(w, i, m);
	return 0;
}

/* Without effect on those that are not in the table of p[@i]. */
static int value_faulty(struct world *w, int i, unsigned long cmd, __u64 value)
{
	w->n_objects = 0;
	return faulty_ioctl(w, i, cmd, user_in(w, &value, sizeof(value)));
}

static int transfer_faulty(struct world *w, int from, __u64 id, int to)
{
	struct bus1_cmd_handle_transfer cmd = {
		.src_handle = id,
		.dst_fd = to < 0 ? -1 : w->p[to].fd,
		.dst_handle = BUS1_HANDLE_INVALID,
	};
	void *arg;
	int r;

	w->n_objects = 0;
	arg = user_inout(w, &cmd, sizeof(cmd));
	r = faulty_ioctl(w, from, BUS1_CMD_HANDLE_TRANSFER, arg);
	user_back(w, &cmd, arg, sizeof(cmd));
	if (r && cmd.dst_handle != BUS1_HANDLE_INVALID)
		return -EPROTO;
	if (!r) {
		know(w, from, id);
		tell(w, "transferred");
		tell_id(w, to < 0 ? from : to, cmd.dst_handle);
		tell(w, "\n");
	}
	return r;
}

static int destroy_faulty(struct world *w, int i, __u64 flags, const __u64 *ids,
			  int n)
{
	struct bus1_cmd_nodes_destroy cmd = { .flags = flags, .n_nodes = n };
	int k, r;

	w->n_objects = 0;
	cmd.ptr_nodes = ptr(user_in(w, ids, n * sizeof(*ids)));
	r = faulty_ioctl(w, i, BUS1_CMD_NODES_DESTROY,
			 user_in(w, &cmd, sizeof(cmd)));
	for (k = 0; !r && k < n; k++)
		know(w, i, ids[k]);
	return r;
}

static int reset_faulty(struct world *w, int i, struct bus1_cmd_peer_reset reset)
{
	w->n_objects = 0;
	return faulty_ioctl(w, i, BUS1_CMD_PEER_RESET,
			    user_in(w, &reset, sizeof(reset)));
}

/*
 * Situations
 */

/* New nodes, nodes of others, and both again. */
static void mail_add_handles(struct world *w, struct mail *m, int n)
{
	int k;

	m->n_handles = n;
	for (k = 0; k < n; k++) {
		if (k % 4 < 2)
			m->handles[k] = FRESH(k);
		else if (k % 4 == 2)
			m->handles[k] = w->to[1 + k / 4 % (w->n - 1)];
		else
			m->handles[k] = m->handles[k - 3];
	}
}

static struct mail mail_to(struct world *w, int n_dst)
{
	struct mail m = { .n_dst = n_dst };
	int k;

	for (k = 0; k < n_dst; k++)
		m.dst[k] = w->to[1 + k];
	return m;
}

static struct mail mail_rich(struct world *w, int n_dst)
{
	struct mail m = mail_to(w, n_dst);

	m.n_vecs = 3;
	m.vec_size = 700;
	m.n_fds = WORLD_FILES;
	mail_add_handles(w, &m, 11);
	return m;
}

static void prepare_message(struct world *w)
{
	struct mail m = mail_rich(w, 1);

	MUST(send_mail(w, 0, &m));
}

static void prepare_large_message(struct world *w)
{
	struct mail m = mail_to(w, 1);

	m.n_vecs = 2;
	m.vec_size = 3 * PAGE - 5;
	MUST(send_mail(w, 0, &m));
}

static void prepare_many_handles(struct world *w)
{
	struct mail m = mail_to(w, 1);

	mail_add_handles(w, &m, MANY);
	MUST(send_mail(w, 0, &m));
}

/* One handle, over and over. */
static void mail_add_one_handle(struct world *w, struct mail *m)
{
	for (m->n_handles = 0; m->n_handles < LOTS; m->n_handles++)
		m->handles[m->n_handles] = w->to[1];
}

static void prepare_lots_of_handles(struct world *w)
{
	struct mail m = mail_to(w, 1);

	mail_add_one_handle(w, &m);
	MUST(send_mail(w, 0, &m));
}

/* p[1] has a seed that carries nodes of its own and files. */
static void prepare_seed(struct world *w)
{
	struct mail m = {
		.flags = BUS1_SEND_FLAG_SEED,
		.n_vecs = 1,
		.vec_size = 5000,
		.handles = { WORLD_NODE(0), WORLD_NODE(1), WORLD_NODE(2),
			     WORLD_NODE(1), WORLD_NODE(3), WORLD_NODE(4) },
		.n_handles = 6,
		.n_fds = 3,
	};

	MUST(send_mail(w, 1, &m));
}

/* p[1] has a seed, two messages, one that it received, and more references. */
static void prepare_everything(struct world *w)
{
	struct mail m = mail_rich(w, 1);
	size_t k;

	MUST(send_mail(w, 0, &m));
	MUST(bus1_recv(w->p[1].fd, 0, &w->recv[0]));
	for (k = 0; k < w->recv[0].msg.n_handles; k++)
		know(w, 1, recv_handle(&w->p[1], &w->recv[0], k));
	m = mail_rich(w, w->n - 1);
	MUST(send_mail(w, 0, &m));
	MUST(send_mail(w, 0, &m));
	world_transfer(w, 0, FRESH(0), 1, &w->id);
	world_transfer(w, 1, WORLD_NODE(3), 2, NULL);
	prepare_seed(w);
}

/* All know some nodes of p[1], which have messages, and are in messages. */
static void prepare_holders(struct world *w)
{
	struct mail m = { .n_vecs = 1, .vec_size = 100 };
	int i, k;

	for (k = 0; k < 8; k++)
		for (i = 0; i < w->n; i++)
			if (i != 1)
				world_transfer(w, 1, WORLD_NODE(k), i,
					       i ? NULL : &m.dst[k]);
	m.n_dst = 8;
	MUST(send_mail(w, 0, &m));
	m.n_handles = 8;
	memcpy(m.handles, m.dst, sizeof(m.dst));
	m.n_dst = 1;
	m.dst[0] = w->to[2];
	MUST(send_mail(w, 0, &m));
}

/* p[1] was sent handles of nodes that are gone by now, before or after. */
static void prepare_dead_handles(struct world *w)
{
	MUST(bus1_node_destroy(w->p[2].fd, WORLD_NODE(0)));
	prepare_message(w);
	MUST(bus1_node_destroy(w->p[0].fd, FRESH(0)));
}

static void prepare_node_destroy(struct world *w)
{
	const __u64 ids[] = { WORLD_NODE(0), WORLD_NODE(1) };

	world_transfer(w, 1, WORLD_NODE(1), 0, NULL);
	MUST(bus1_nodes_destroy(w->p[1].fd, 0, ids, ARRAY_SIZE(ids)));
}

static void prepare_node_release(struct world *w)
{
	MUST(bus1_handle_release(w->p[0].fd, w->to[1]));
}

static void prepare_two_references(struct world *w)
{
	world_transfer(w, 1, WORLD_NODE(0), 0, NULL);
	world_transfer(w, 1, WORLD_NODE(0), 1, NULL);
}

static void prepare_multicast(struct world *w)
{
	struct mail m = mail_rich(w, w->n - 1);

	/* One of them gets it twice. */
	world_transfer(w, 1, WORLD_NODE(1), 0, &m.dst[m.n_dst++]);
	MUST(send_mail(w, 0, &m));
}

/* There is room for 3 pages. */
static void prepare_nearly_full(struct world *w)
{
	struct mail m = mail_to(w, 1);

	m.n_vecs = 1;
	m.vec_size = 5 * PAGE;
	MUST(send_mail(w, 0, &m));
}

static void prepare_mapped(struct world *w)
{
	prepare_everything(w);
	w->map = mmap(NULL, POOL_SIZE, PROT_READ, MAP_SHARED, w->p[1].fd, 0);
	MUST(w->map == MAP_FAILED ? -errno : 0);
}

static void prepare_epoll(struct world *w)
{
	prepare_message(w);
	w->epoll_fd = epoll_create1(EPOLL_CLOEXEC);
	MUST(w->epoll_fd < 0 ? -errno : 0);
}

/* So many descriptors that six more do not fit into the table that is used first. */
static void prepare_full_table(struct world *w)
{
	prepare_message(w);
	while (next_fd() < FULL_TABLE - 3)
		w->fillers[w->n_fillers++] = MUST(dup(0));
}

/*
 * Calls
 */

static int run_open_as(struct world *w, uid_t uid)
{
	static const char path[] = BUS1_PATH;
	const char *arg;
	int fd;

	w->n_objects = 0;
	arg = user_in(w, path, sizeof(path));
	MUST(syscall(BUS1_SETRESUID, uid, -1, -1) ? -errno : 0);
	fd = FAULTY(w, syscall(SYS_openat, AT_FDCWD, arg, O_RDWR | O_CLOEXEC |
			       O_NONBLOCK));
	MUST(syscall(BUS1_SETRESUID, 0, -1, -1) ? -errno : 0);
	if (fd < 0)
		return fd;
	/* It is closed with the rest. */
	world_adopt(w, w->n++, fd);
	return 0;
}

static int run_open(struct world *w)
{
	return run_open_as(w, UID_A);
}

static int run_open_new_user(struct world *w)
{
	return run_open_as(w, UID_C);
}

static int run_query(struct world *w)
{
	struct bus1_cmd_peer_reset query;
	void *arg;
	int r;

	memset(&query, 0xa5, sizeof(query));
	query.flags = 0;
	w->n_objects = 0;
	arg = user_inout(w, &query, sizeof(query));
	r = faulty_ioctl(w, 1, BUS1_CMD_PEER_QUERY, arg);
	user_back(w, &query, arg, sizeof(query));
	if (!r)
		tell(w, "limits %u %u %u %u flags %llu\n", query.max_slices,
		     query.max_handles, query.max_inflight_bytes,
		     query.max_inflight_fds, query.peer_flags);
	else if (!fault_is_cut(&w->fault) && query.peer_flags != SENTINEL)
		r = -EPROTO;
	return r;
}

static int run_reset(struct world *w)
{
	return reset_faulty(w, 1, RESET_KEEP(.max_slices = 100,
					     .max_handles = 200,
					     .max_inflight_bytes = 300000,
					     .max_inflight_fds = 400));
}

static int run_flush(struct world *w)
{
	return reset_faulty(w, 1, RESET_KEEP(.flags = BUS1_PEER_RESET_FLAG_FLUSH,
					     .max_slices = 50));
}

static int run_flush_seed(struct world *w)
{
	return reset_faulty(w, 1, RESET_KEEP(.flags = BUS1_PEER_RESET_FLAG_FLUSH_SEED));
}

static int run_flush_all(struct world *w)
{
	return reset_faulty(w, 1, RESET_KEEP(.flags = BUS1_PEER_RESET_FLAG_FLUSH |
						      BUS1_PEER_RESET_FLAG_FLUSH_SEED));
}

static int run_disconnect(struct world *w)
{
	w->n_objects = 0;
	return faulty_ioctl(w, 1, BUS1_CMD_PEER_DISCONNECT, NULL);
}

static int run_close(struct world *w)
{
	int r;

	/* The mapping may outlive the descriptor; here it does. */
	w->n_objects = 0;
	r = FAULTY(w, close(w->p[1].fd));
	w->p[1].fd = -1;
	return r;
}

static int run_handle_release(struct world *w)
{
	return value_faulty(w, 0, BUS1_CMD_HANDLE_RELEASE, w->to[1]);
}

static int run_handle_release_own(struct world *w)
{
	return value_faulty(w, 1, BUS1_CMD_HANDLE_RELEASE, WORLD_NODE(0));
}

static int run_slice_release(struct world *w)
{
	return value_faulty(w, 1, BUS1_CMD_SLICE_RELEASE, w->recv[0].msg.offset);
}

static int run_transfer_new(struct world *w)
{
	return transfer_faulty(w, 0, FRESH(0), 1);
}

static int run_transfer_new_to_self(struct world *w)
{
	return transfer_faulty(w, 0, FRESH(0), -1);
}

static int run_transfer_on(struct world *w)
{
	return transfer_faulty(w, 0, w->to[1], 2);
}

static int run_transfer_home(struct world *w)
{
	return transfer_faulty(w, 0, w->to[1], 1);
}

static int run_destroy(struct world *w)
{
	const __u64 ids[] = { WORLD_NODE(0), WORLD_NODE(1), WORLD_NODE(2),
			      WORLD_NODE(3), WORLD_NODE(40), WORLD_NODE(4),
			      WORLD_NODE(5), WORLD_NODE(41), WORLD_NODE(6) };

	return destroy_faulty(w, 1, 0, ids, ARRAY_SIZE(ids));
}

static int run_destroy_few(struct world *w)
{
	const __u64 ids[] = { WORLD_NODE(0), WORLD_NODE(40) };

	return destroy_faulty(w, 1, 0, ids, ARRAY_SIZE(ids));
}

static int run_destroy_release(struct world *w)
{
	const __u64 ids[] = { WORLD_NODE(0), WORLD_NODE(1), WORLD_NODE(2),
			      WORLD_NODE(40), WORLD_NODE(7) };

	return destroy_faulty(w, 1, BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES,
			      ids, ARRAY_SIZE(ids));
}

static int run_send_empty(struct world *w)
{
	struct mail m = mail_to(w, 1);

	return send_mail(w, 0, &m);
}

static int run_send_rich(struct world *w)
{
	struct mail m = mail_rich(w, 1);

	return send_mail(w, 0, &m);
}

static int run_send_large(struct world *w)
{
	struct mail m = mail_to(w, 1);

	m.n_vecs = 6;
	m.vec_size = PAGE + 900;
	return send_mail(w, 0, &m);
}

/* Bytes alone, by one vector, to one node. */
static int send_bytes(struct world *w, __u64 dst, size_t size)
{
	struct mail m = {
		.dst = { dst }, .n_dst = 1, .n_vecs = 1, .vec_size = size,
	};

	return send_mail(w, 0, &m);
}

static int run_send_bytes(struct world *w)
{
	return send_bytes(w, w->to[1], 40);
}

static int run_send_bytes_large(struct world *w)
{
	return send_bytes(w, w->to[1], 5 * PAGE + 900);
}

static int run_send_bytes_3_pages(struct world *w)
{
	return send_bytes(w, w->to[1], 3 * PAGE);
}

static int run_send_bytes_to_self(struct world *w)
{
	return send_bytes(w, FRESH(50), 40);
}

static int run_send_handles(struct world *w)
{
	struct mail m = mail_to(w, 1);

	mail_add_handles(w, &m, MANY);
	return send_mail(w, 0, &m);
}

static int run_send_lots_of_handles(struct world *w)
{
	struct mail m = mail_to(w, 1);

	mail_add_one_handle(w, &m);
	return send_mail(w, 0, &m);
}

static int run_send_few(struct world *w)
{
	struct mail m = mail_to(w, 2);

	m.n_vecs = 2;
	m.vec_size = 20;
	m.n_fds = 2;
	mail_add_handles(w, &m, 3);
	return send_mail(w, 0, &m);
}

/* A node of its own, one that does not exist yet, and one of somebody else. */
static int run_send_to_self(struct world *w)
{
	struct mail m = {
		.dst = { FRESH(50), FRESH(51), w->to[1] },
		.n_dst = 3, .n_vecs = 1, .vec_size = 10, .n_fds = 1,
	};

	mail_add_handles(w, &m, 5);
	return send_mail(w, 0, &m);
}

static int run_send_nobody(struct world *w)
{
	struct mail m = mail_rich(w, 0);

	return send_mail(w, 0, &m);
}

static int run_send_seed(struct world *w)
{
	struct mail m = mail_rich(w, 0);

	m.flags = BUS1_SEND_FLAG_SEED;
	return send_mail(w, 0, &m);
}

/* The handles are nobody else's. */
static int run_send_seed_again(struct world *w)
{
	struct mail m = mail_rich(w, 0);

	m.flags = BUS1_SEND_FLAG_SEED;
	m.n_handles = 2;
	return send_mail(w, 1, &m);
}

static int run_send_3_pages(struct world *w)
{
	struct mail m = mail_to(w, 1);

	m.n_vecs = 3;
	m.vec_size = PAGE;
	m.n_fds = 1;
	m.vec_size -= 8;
	m.n_handles = 1;
	m.handles[0] = FRESH(0);
	return send_mail(w, 0, &m);
}

static int run_send_all(struct world *w)
{
	struct mail m = mail_rich(w, w->n - 1);

	m.errors = true;
	return send_mail(w, 0, &m);
}

static int run_send_continue(struct world *w)
{
	struct mail m = mail_rich(w, w->n - 1);

	m.flags = BUS1_SEND_FLAG_CONTINUE;
	m.errors = true;
	return send_mail(w, 0, &m);
}

static int run_recv(struct world *w)
{
	return recv_faulty(w, 1, 0);
}

static int run_recv_fds(struct world *w)
{
	return recv_faulty(w, 1, BUS1_RECV_FLAG_INSTALL_FDS);
}

static int run_recv_0(struct world *w)
{
	return recv_faulty(w, 0, 0);
}

static int run_recv_seed(struct world *w)
{
	return recv_faulty(w, 1, BUS1_RECV_FLAG_SEED);
}

static int run_recv_seed_fds(struct world *w)
{
	return recv_faulty(w, 1, BUS1_RECV_FLAG_SEED |
				 BUS1_RECV_FLAG_INSTALL_FDS);
}

static int run_recv_release(struct world *w)
{
	return recv_release_faulty(w, 1, 0);
}

static int run_recv_release_fds(struct world *w)
{
	return recv_release_faulty(w, 1, BUS1_RECV_FLAG_INSTALL_FDS);
}

static int run_recv_release_seed(struct world *w)
{
	return recv_release_faulty(w, 1, BUS1_RECV_FLAG_SEED);
}

static int run_send_recv_nothing(struct world *w)
{
	return send_recv_faulty(w, 1, NULL, SEND_RECV());
}

static int run_send_recv_slice(struct world *w)
{
	return send_recv_faulty(w, 1, NULL, SEND_RECV(
		.ptr_slices = ptr(&w->recv[0].msg.offset), .n_slices = 1));
}

static int run_send_recv_send(struct world *w)
{
	struct mail m = mail_rich(w, 2);

	return send_recv_faulty(w, 0, &m, SEND_RECV(
		.flags = BUS1_SEND_RECV_FLAG_SEND));
}

static int run_send_recv_recv(struct world *w)
{
	return send_recv_faulty(w, 1, NULL, SEND_RECV(.n_messages = 2));
}

/* A message of p[1] to itself, while it has two. */
static int run_send_recv_all(struct world *w)
{
	struct mail m = {
		.dst = { WORLD_NODE(0), WORLD_NODE(6) }, .n_dst = 2,
		.n_vecs = 2, .vec_size = 300, .n_fds = 2,
		.handles = { WORLD_NODE(2), WORLD_NODE(5) }, .n_handles = 2,
	};

	return send_recv_faulty(w, 1, &m, SEND_RECV(
		.flags = BUS1_SEND_RECV_FLAG_SEND,
		.ptr_slices = ptr(&w->recv[0].msg.offset), .n_slices = 1,
		.n_messages = 4));
}

static int run_poll(struct world *w)
{
	struct pollfd polls[WORLD_PEERS];
	void *arg;
	int i, r;

	for (i = 0; i < w->n; i++)
		polls[i] = (struct pollfd){ w->p[i].fd, POLLIN | POLLOUT, -1 };
	w->n_objects = 0;
	arg = user_inout(w, polls, w->n * sizeof(*polls));
	r = FAULTY(w, poll(arg, w->n, 0));
	user_back(w, polls, arg, w->n * sizeof(*polls));
	for (i = 0; r >= 0 && i < w->n; i++)
		tell(w, "%d: revents %#x\n", i, polls[i].revents);
	return r < 0 ? r : 0;
}

static int run_epoll_add(struct world *w)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLOUT | EPOLLET };
	int r;

	w->n_objects = 0;
	r = FAULTY(w, epoll_ctl(w->epoll_fd, EPOLL_CTL_ADD, w->p[1].fd,
				user_in(w, &event, sizeof(event))));
	if (!r) {
		r = epoll_wait(w->epoll_fd, &event, 1, 0);
		tell(w, "%d events %#x\n", r, event.events);
		r = 0;
	}
	return r;
}

static int run_fdinfo(struct world *w)
{
	char path[64], text[4096] = {};
	int info, r;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", w->p[1].fd);
	info = open(path, O_RDONLY | O_CLOEXEC);
	MUST(info < 0 ? -errno : 0);
	w->n_objects = 0;
	r = FAULTY(w, read(info, text, sizeof(text) - 1));
	close(info);
	if (r > 0) {
		/* It ends with what depends on nothing but the situation. */
		text[r] = 0;
		tell(w, "%s\n", strstr(text, "bus1-connected") ?: "nothing");
	}
	return r < 0 ? r : 0;
}

static void tell_pool(struct world *w, const __u8 *p)
{
	__u32 hash = 1;
	size_t k;

	for (k = 0; k < w->recv[0].msg.n_bytes; k++)
		hash = hash * 31 + p[w->recv[0].msg.offset + k];
	tell(w, "pool %08x\n", hash);
}

static int run_mmap(struct world *w)
{
	int r;

	w->n_objects = 0;
	fault_begin(w);
	w->map = mmap(NULL, POOL_SIZE, PROT_READ, MAP_SHARED, w->p[1].fd, 0);
	r = w->map == MAP_FAILED ? -errno : 0;
	fault_end(w);
	if (!r)
		tell_pool(w, w->map);
	return r;
}

/* A fault that finds no memory for page tables is tried again. */
static int run_touch(struct world *w)
{
	w->n_objects = 0;
	fault_begin(w);
	read_byte(w->map + w->recv[0].msg.offset);
	fault_end(w);
	tell_pool(w, w->map);
	return 0;
}

/* A system call can be told of it. */
static int run_copy_from_pool(struct world *w)
{
	__u8 copy[200];
	int r;

	w->n_objects = 0;
	r = FAULTY(w, write(w->pipe_w[0], w->map + w->recv[0].msg.offset,
			    sizeof(copy)));
	if (r < 0)
		return r;
	MUST(read(w->pipe_r[0], copy, sizeof(copy)) == r ? 0 : -EPIPE);
	MUST(memcmp(copy, w->map + w->recv[0].msg.offset, r) ? -EPROTO : 0);
	tell_pool(w, w->map);
	return 0;
}

#endif /* __BUS1_FAULT_CALLS_H */
