// SPDX-License-Identifier: GPL-2.0-only
/*
 * Random histories: workers, threads or processes, each with a peer, send to
 * each other at random, pass on handles to mortal nodes, fetch them by
 * HANDLE_TRANSFER, drop them, and destroy the nodes, all at once. Then all stop,
 * and one total order must explain everything that was seen; then they go on.
 *
 * BUS1_STRESS_SCALE makes that longer: 100 is 20 times as long as usual.
 */

#include "bus1_order.h"

#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	3600

/* What a worker does, in shares of all that it does. */
struct mix {
	int unicast;
	int multicast;
	int announce;	/* multicast the handle of a new mortal node */
	int forward;	/* pass on a handle to a mortal node of somebody else */
	int mortal;	/* send to a mortal node, and to others, with CONTINUE */
	int destroy;	/* destroy some of one's own mortal nodes */
	int transfer;	/* fetch a handle to a node of somebody else */
	int rob;	/* destroy a node of somebody else, through its peer */
	int drop;	/* release a handle */
	int drain;
};

/*
 * The mortal nodes of a worker are of kinds that take turns. Those of a group are
 * nodes of another peer, all that this one has, and destroyed together with it.
 */
enum kind { QUIET, TOLD, LOAN, GROUP };

#define GROUP_SIZE	2
#define N_KINDS		8

static const enum kind kinds[N_KINDS] = {
	QUIET, TOLD, LOAN, TOLD, GROUP, GROUP, QUIET, TOLD,
};

/**
 * struct held - what a worker knows of a mortal node
 * @id: its handle, 0 without one
 * @refs: how many references it has
 * @told: that it is destroyed; the handle is still there
 * @gone: its own node: destroyed by itself
 */
struct held {
	__u64 id;
	__u32 refs;
	bool told;
	bool gone;
};

/**
 * struct worker - one thread or process, and its peer
 * @o: the history
 * @index: its number
 * @ops: how many things to do
 * @mix: what to do
 * @peer: its peer
 * @fds: the peers of all workers
 * @base: its handles to the nodes that live for ever, by number
 * @held: mortal nodes
 * @n_made: number of own mortal nodes made so far
 * @group: peer of the group of nodes that was made last, or -1
 * @group_first: first node of that
 * @seed: state of the random numbers
 * @go: event: run another round
 * @idle: event: the round is over
 * @stop: there is no other round
 * @at_barrier: how many workers got to each barrier
 * @round: number of the round
 */
struct worker {
	struct order *o;
	__u32 index;
	__u32 ops;
	const struct mix *mix;
	struct peer peer;
	int fds[ORDER_PEERS];
	__u64 base[ORDER_PEERS * ORDER_BASE];
	struct held *held;
	__u32 n_made;
	int group;
	__u32 group_first;
	__u64 seed;
	int go, idle;
	__u32 *stop;
	__u32 *at_barrier;
	__u32 round;
};

/* Where the IDs of mortal nodes begin. */
#define MORTAL_BASE	0x100000ULL

static __u32 n_mortals(struct worker *w)
{
	return order_n_nodes(w->o);
}

/* The ID that the owner of mortal node @e chose. */
static __u64 mortal_id(struct worker *w, __u32 e)
{
	return MORTAL_BASE + 8 * (__u64)(e % w->o->n_mortals);
}

static __u32 mortal_owner(struct worker *w, __u32 e)
{
	return e / w->o->n_mortals;
}

static __u32 own(struct worker *w, __u32 i)
{
	return w->index * w->o->n_mortals + i;
}

static enum kind mortal_kind(struct worker *w, __u32 e)
{
	return kinds[e % w->o->n_mortals % N_KINDS];
}

static bool is_made(struct worker *w, __u32 e)
{
	return __atomic_load_n(&w->o->nodes[e].made, __ATOMIC_SEQ_CST);
}

static void worker_got_handle(struct worker *w, __u32 e, __u64 id)
{
	struct held *held = &w->held[e];
	struct order *o = w->o;

	/* Destruction was told, so no message after it brings a valid one. */
	ORDER_CHECK(o, !held->told, e);
	ORDER_CHECK(o, !held->id || held->id == id, e);
	ORDER_CHECK(o, (id & 7) == KERNEL_CHOSEN, id);
	held->id = id;
	held->refs++;
}

/* Drops all references to @e; user space knows exactly how many these are. */
static void worker_drop(struct worker *w, __u32 e)
{
	struct held *held = &w->held[e];
	struct order_node *node = &w->o->nodes[e];

	if (!held->id)
		return;
	order_max(&node->dropped, order_stamp(w->o));
	ORDER_CHECK(w->o, bus1_drain_refs(w->peer.fd, held->id) ==
		    (int)held->refs, e);
	order_max(&node->ended, order_stamp(w->o));
	/* What was told stays told. */
	held->id = 0;
	held->refs = 0;
}

static void worker_data(struct worker *w, struct bus1_cmd_recv *recv)
{
	struct order_payload payload;
	struct order_entry entry;
	struct order *o = w->o;
	__u64 id;

	memcpy(&payload, w->peer.pool + recv->msg.offset, sizeof(payload));
	if (payload.tx >= o->n_tx ||
	    (payload.carried != ORDER_NONE && payload.carried >= n_mortals(w))) {
		order_fail(o, __LINE__, payload.tx);
		return;
	}
	entry = (struct order_entry){
		.kind = ORDER_DATA,
		.tx = payload.tx,
		.node = recv->msg.destination >= MORTAL_BASE ? ORDER_MORTAL :
			(recv->msg.destination - ORDER_ID(0)) / 8,
		.cont = recv->msg.flags & BUS1_MSG_FLAG_CONTINUE,
		.mortal = payload.carried,
	};
	ORDER_CHECK(o, recv->msg.n_handles == (payload.carried != ORDER_NONE),
		    recv->msg.n_handles);
	if (entry.node == ORDER_MORTAL)
		ORDER_CHECK(o, recv->msg.destination ==
			    mortal_id(w, o->tx[payload.tx].mortal),
			    recv->msg.destination);
	if (payload.carried != ORDER_NONE) {
		id = recv_handle(&w->peer, recv, 0);
		entry.valid = id != BUS1_HANDLE_INVALID;
		if (entry.valid)
			worker_got_handle(w, payload.carried, id);
		else
			order_seen_dead(o, payload.carried);
	}
	order_log(o, w->index, entry);
	ORDER_CHECK(o, !bus1_slice_release(w->peer.fd, recv->msg.offset), 0);
}

/* The mortal node that the worker calls @id. */
static __u32 worker_find(struct worker *w, __u64 id)
{
	__u32 e;

	if (!(id & BUS1_HANDLE_FLAG_REMOTE))
		return own(w, (id - MORTAL_BASE) / 8);
	for (e = 0; e < n_mortals(w); e++)
		if (w->held[e].id == id)
			return e;
	return ORDER_NONE;
}

static void worker_notification(struct worker *w, struct bus1_cmd_recv *recv)
{
	struct order_entry entry = {
		.cont = recv->msg.flags & BUS1_MSG_FLAG_CONTINUE,
		.mortal = worker_find(w, recv->msg.destination),
	};
	struct order *o = w->o;

	/* Not for what one does not hold. */
	ORDER_CHECK(o, entry.mortal < n_mortals(w), recv->msg.destination);
	if (entry.mortal >= n_mortals(w))
		return;
	if (recv->msg.type == BUS1_MSG_NODE_RELEASE) {
		entry.kind = ORDER_RELEASE;
		ORDER_CHECK(o, mortal_owner(w, entry.mortal) == w->index,
			    entry.mortal);
	} else {
		entry.kind = ORDER_DESTROY;
		w->held[entry.mortal].told = true;
	}
	order_log(o, w->index, entry);
}

/* Receives up to @max messages, and what else is of the last one's transaction. */
static void worker_drain(struct worker *w, __u32 max)
{
	struct bus1_cmd_recv recv;
	bool more = false;
	int r = 0;

	while ((more || max) && !(r = bus1_recv(w->peer.fd, 0, &recv))) {
		max -= !!max;
		more = recv.msg.flags & BUS1_MSG_FLAG_CONTINUE;
		if (recv.msg.type == BUS1_MSG_DATA)
			worker_data(w, &recv);
		else
			worker_notification(w, &recv);
	}
	ORDER_CHECK(w->o, !r || r == -EAGAIN, r);
}

static bool is_full(int error)
{
	return error == -EDQUOT || error == -EXFULL;
}

/* Who was skipped by the transaction @i, as its error array says. */
static void worker_skipped(struct worker *w, __u32 i, const __s32 *error)
{
	struct order *o = w->o;
	struct order_tx *tx = &o->tx[i];
	__u32 j, mask = tx->mask;

	for (j = 0; j < ORDER_PEERS * ORDER_BASE; j++) {
		if (!(mask & 1U << j))
			continue;
		ORDER_CHECK(o, !*error || is_full(*error), *error);
		if (*error++)
			tx->mask &= ~(1U << j);
	}
	if (*error == -EHOSTUNREACH)
		order_seen_dead(o, tx->mortal);
	else
		ORDER_CHECK(o, !*error || is_full(*error), *error);
	if (*error)
		tx->mortal = ORDER_NONE;
}

/*
 * Sends to @mask, and to @mortal if there is one, a handle to @carried if there
 * is one. Room in the receivers may be short: then nothing has happened.
 */
static int worker_send(struct worker *w, __u32 mask, __u32 mortal,
		       __u32 carried)
{
	struct order_payload payload = { .carried = carried };
	__u64 dests[ORDER_PEERS * ORDER_BASE + 1], handle;
	__s32 errors[ORDER_PEERS * ORDER_BASE + 1];
	static const char zeros[8192];
	struct iovec vecs[2] = {
		{ &payload, sizeof(payload) },
		{ (void *)zeros, next_random(&w->seed) % sizeof(zeros) },
	};
	struct bus1_cmd_send send = {
		.ptr_destinations = ptr(dests),
		.ptr_vecs = ptr(vecs), .n_vecs = 2,
		.ptr_handles = ptr(&handle),
		.n_handles = carried != ORDER_NONE,
	};
	struct order *o = w->o;
	__u32 i;
	int r;

	if (next_random(&w->seed) % 16)
		vecs[1].iov_len %= 64;
	if (carried != ORDER_NONE)
		handle = w->held[carried].id ?: mortal_id(w, carried);
	for (i = 0; i < ORDER_PEERS * ORDER_BASE; i++)
		if (mask & 1U << i)
			dests[send.n_destinations++] = w->base[i];
	if (mortal != ORDER_NONE) {
		dests[send.n_destinations++] = w->held[mortal].id;
		send.ptr_errors = ptr(errors);
		send.flags = BUS1_SEND_FLAG_CONTINUE;
		memset(errors, 0xa5, sizeof(errors));
	}
	payload.tx = order_begin(o, mask, mortal);
	r = bus1_send(w->peer.fd, &send);
	if (mortal != ORDER_NONE && !r)
		worker_skipped(w, payload.tx, errors);
	order_end(o, payload.tx, r);
	if (carried != ORDER_NONE)
		order_max(&o->nodes[carried].ended, order_stamp(o));
	ORDER_CHECK(o, !r || is_full(r), r);
	return r;
}

static __u32 worker_random_mask(struct worker *w)
{
	__u32 all = (1ULL << (w->o->n_peers * ORDER_BASE)) - 1;

	return next_random(&w->seed) & all;
}

/* Some mortal node that is held, or ORDER_NONE. */
static __u32 worker_random_held(struct worker *w)
{
	__u32 n = n_mortals(w), i, e;

	if (!n)
		return ORDER_NONE;
	e = next_random(&w->seed) % n;
	for (i = 0; i < n; i++, e = (e + 1) % n)
		if (w->held[e].id)
			return e;
	return ORDER_NONE;
}

/* A node that its owner keeps until the end, of somebody else, or ORDER_NONE. */
static __u32 worker_random_told(struct worker *w)
{
	__u32 n = n_mortals(w), i, e;

	if (!n)
		return ORDER_NONE;
	e = next_random(&w->seed) % n;
	for (i = 0; i < 3 * N_KINDS; i++, e = (e + 1) % n)
		if (mortal_kind(w, e) == TOLD && is_made(w, e) &&
		    mortal_owner(w, e) != w->index)
			return e;
	return ORDER_NONE;
}

/* All nodes but those of the owner of @e: it has its own reference. */
static __u32 worker_but_owner(struct worker *w, __u32 mask, __u32 e)
{
	if (mortal_kind(w, e) == GROUP)
		return mask;
	return mask & ~(((1U << ORDER_BASE) - 1) <<
			(mortal_owner(w, e) * ORDER_BASE));
}

static void worker_forward(struct worker *w, __u32 e)
{
	if (e != ORDER_NONE)
		worker_send(w, worker_but_owner(w, worker_random_mask(w), e),
			    ORDER_NONE, e);
}

/* A transaction that destroys @n nodes, which are those at @e. */
static int worker_destroy(struct worker *w, int fd, __u64 flags,
			  const __u32 *e, __u32 n)
{
	__u32 i, tx = order_begin(w->o, 0, ORDER_NONE);
	__u64 ids[16];
	int r;

	for (i = 0; i < n; i++)
		ids[i] = mortal_id(w, e[i]);
	r = bus1_nodes_destroy(fd, flags, ids, n);
	for (i = 0; !r && i < n; i++)
		order_destroyed(w->o, e[i], tx);
	order_end(w->o, tx, r);
	/* One of them was, by somebody else. */
	if (r == -ESTALE && n == 1)
		order_seen_dead(w->o, e[0]);
	return r;
}

/* Ends the peer of the group, by one of several means. */
static void worker_end_group(struct worker *w)
{
	int how = next_random(&w->seed) % 3, r = 0;
	struct order *o = w->o;
	__u32 tx, i;

	if (w->group < 0)
		return;
	tx = order_begin(o, 0, ORDER_NONE);
	if (how == 0)
		r = bus1_flush(w->group, BUS1_PEER_RESET_FLAG_FLUSH);
	else if (how == 1)
		r = bus1_disconnect(w->group);
	/* Of a process, whose descriptors no other has. */
	if (how == 2)
		close(w->group);
	for (i = 0; i < GROUP_SIZE; i++)
		order_destroyed(o, w->group_first + i, tx);
	order_end(o, tx, r);
	ORDER_CHECK(o, !r, r);
	if (how != 2)
		close(w->group);
	w->group = -1;
}

static void worker_announce_group(struct worker *w)
{
	__u32 e = own(w, w->n_made), i;
	__u64 id;
	int r;

	worker_end_group(w);
	w->group = bus1_open(O_NONBLOCK);
	ORDER_CHECK(w->o, w->group >= 0, w->group);
	if (w->group < 0)
		return;
	w->group_first = e;
	w->n_made += GROUP_SIZE;
	for (i = e; i < e + GROUP_SIZE; i++) {
		r = bus1_handle_transfer(w->group, mortal_id(w, i),
					 w->peer.fd, &id);
		ORDER_CHECK(w->o, !r, r);
		if (!r)
			worker_got_handle(w, i, id);
	}
	for (i = e; i < e + GROUP_SIZE; i++)
		worker_forward(w, i);
}

static void worker_announce(struct worker *w)
{
	__u32 e = own(w, w->n_made), mask;
	struct order_node *node = &w->o->nodes[e];

	if (w->n_made == w->o->n_mortals)
		return;
	if (mortal_kind(w, e) == GROUP) {
		worker_announce_group(w);
		return;
	}
	mask = worker_but_owner(w, worker_random_mask(w), e);
	/* If it fails, no node came to be, and its ID is still free. */
	if (!mask || worker_send(w, mask, ORDER_NONE, e))
		return;
	node->loan = mortal_kind(w, e) == LOAN;
	node->told = mortal_kind(w, e) == TOLD;
	__atomic_store_n(&node->made, true, __ATOMIC_SEQ_CST);
	w->n_made++;
}

/* Destroys @e, all of one kind, that are its own. */
static void worker_destroy_own(struct worker *w, const __u32 *e, __u32 n)
{
	bool told;
	__u32 i;
	int r;

	if (!n)
		return;
	told = mortal_kind(w, e[0]) == TOLD;
	r = worker_destroy(w, w->peer.fd, told ? 0 :
			   BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES, e, n);
	ORDER_CHECK(w->o, !r || (r == -ESTALE && told), r);
	/* All or none: if one of them was robbed, it is done one by one. */
	for (i = 0; r && n > 1 && i < n; i++)
		worker_destroy_own(w, &e[i], 1);
	for (i = 0; i < n; i++)
		w->held[e[i]].gone = true;
}

/* Destroys up to @max of its own, from the node @i on. */
static void worker_destroy_some(struct worker *w, enum kind kind, __u32 i,
				__u32 max)
{
	__u32 nodes[16], n = 0, e;

	for (; i < w->n_made && n < max; i++) {
		e = own(w, i);
		if (mortal_kind(w, e) == kind && !w->held[e].gone)
			nodes[n++] = e;
	}
	worker_destroy_own(w, nodes, n);
}

static void worker_transfer(struct worker *w, __u32 e)
{
	__u64 id;
	int r;

	if (e == ORDER_NONE)
		return;
	r = bus1_handle_transfer(w->fds[mortal_owner(w, e)], mortal_id(w, e),
				 w->peer.fd, &id);
	ORDER_CHECK(w->o, !r, r);
	if (!r && id == BUS1_HANDLE_INVALID)
		order_seen_dead(w->o, e);
	else if (!r)
		worker_got_handle(w, e, id);
}

static void worker_rob(struct worker *w, __u32 e)
{
	int r;

	if (e == ORDER_NONE)
		return;
	r = worker_destroy(w, w->fds[mortal_owner(w, e)], 0, &e, 1);
	ORDER_CHECK(w->o, !r || r == -ESTALE, r);
}

static void worker_mortal(struct worker *w, __u32 e)
{
	/* A peer of a group is nobody's who would receive it. */
	if (e != ORDER_NONE && mortal_kind(w, e) != GROUP)
		worker_send(w, worker_random_mask(w), e, ORDER_NONE);
}

static void worker_step(struct worker *w)
{
	const struct mix *m = w->mix;
	int total = m->unicast + m->multicast + m->announce + m->forward +
		    m->mortal + m->destroy + m->transfer + m->rob + m->drop +
		    m->drain;
	int what = next_random(&w->seed) % total;
	__u32 random = next_random(&w->seed);

	if ((what -= m->unicast) < 0)
		worker_send(w, 1U << random % (w->o->n_peers * ORDER_BASE),
			    ORDER_NONE, ORDER_NONE);
	else if ((what -= m->multicast) < 0)
		worker_send(w, worker_random_mask(w), ORDER_NONE, ORDER_NONE);
	else if ((what -= m->announce) < 0)
		worker_announce(w);
	else if ((what -= m->forward) < 0)
		worker_forward(w, worker_random_held(w));
	else if ((what -= m->mortal) < 0)
		worker_mortal(w, worker_random_held(w));
	else if ((what -= m->destroy) < 0 && w->n_made)
		worker_destroy_some(w, random & 1 ? TOLD : QUIET,
				    (random >> 8) % w->n_made,
				    1 + (random >> 1) % 3);
	else if ((what -= m->transfer) < 0)
		worker_transfer(w, worker_random_told(w));
	else if ((what -= m->rob) < 0)
		worker_rob(w, worker_random_told(w));
	else if ((what -= m->drop) < 0 && n_mortals(w))
		worker_drop(w, random % n_mortals(w));
	else
		worker_drain(w, random % 32);
}

/* Waits for all others, and goes on receiving meanwhile. */
static void worker_barrier(struct worker *w, int which)
{
	__u32 *n = &w->at_barrier[which];

	__atomic_add_fetch(n, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(n, __ATOMIC_SEQ_CST) <
	       w->o->n_peers * (w->round + 1)) {
		worker_drain(w, -1);
		sched_yield();
	}
}

/* What is left when all have stopped. */
static void worker_finish(struct worker *w)
{
	const __u64 release = BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES;
	struct order *o = w->o;
	__u32 e, i;
	__u64 id;

	worker_barrier(w, 0);
	worker_end_group(w);
	for (i = 0; i < w->n_made; i += 16) {
		worker_destroy_some(w, TOLD, 0, 16);
		worker_destroy_some(w, QUIET, 0, 16);
	}
	worker_barrier(w, 1);
	worker_drain(w, -1);
	for (e = 0; e < n_mortals(w); e++) {
		/* Whatever is held was destroyed, and so was told. */
		ORDER_CHECK(o, !w->held[e].id || w->held[e].told ||
			    mortal_kind(w, e) == LOAN, e);
		worker_drop(w, e);
	}
	worker_barrier(w, 2);
	worker_drain(w, -1);
	worker_barrier(w, 3);
	/* What is left are its own, whom nobody else refers to. */
	for (i = 0; i < w->n_made; i++) {
		e = own(w, i);
		id = mortal_id(w, e);
		if (mortal_kind(w, e) == LOAN)
			ORDER_CHECK(o, !bus1_nodes_destroy(w->peer.fd, release,
							   &id, 1), e);
		else if (mortal_kind(w, e) == TOLD)
			ORDER_CHECK(o, !bus1_handle_release(w->peer.fd, id), e);
	}
	memset(w->held, 0, n_mortals(w) * sizeof(*w->held));
	w->n_made = 0;
	w->round++;
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;
	__u32 i;

	order_pin(w->index % 2);
	for (;;) {
		event_wait(w->go);
		if (__atomic_load_n(w->stop, __ATOMIC_SEQ_CST))
			return NULL;
		for (i = 0; i < w->ops && !w->o->error; i++) {
			worker_step(w);
			/* Queues stay short, or all that happens is EDQUOT. */
			if (!(i % 16))
				worker_drain(w, 64);
		}
		worker_finish(w);
		event_post(w->idle);
	}
}

FIXTURE(history) {
	struct order *order;
	struct worker workers[ORDER_PEERS];
	int idle;
	__u32 *shared;	/* four barriers, and whether to stop */
};

FIXTURE_VARIANT(history) {
	int n;
	bool processes;
	int ops;
	int rounds;
	int mortals;
	struct mix mix;
};

FIXTURE_VARIANT_ADD(history, two_threads_unicasts) {
	.n = 2, .ops = 500, .rounds = 8,
	.mix = { .unicast = 4, .multicast = 1, .drain = 2 },
};

FIXTURE_VARIANT_ADD(history, four_threads_multicasts) {
	.n = 4, .ops = 250, .rounds = 8,
	.mix = { .unicast = 1, .multicast = 4, .drain = 2 },
};

FIXTURE_VARIANT_ADD(history, four_processes_multicasts) {
	.n = 4, .ops = 250, .rounds = 8, .processes = true,
	.mix = { .unicast = 1, .multicast = 4, .drain = 2 },
};

FIXTURE_VARIANT_ADD(history, eight_processes) {
	.n = 8, .ops = 150, .rounds = 4, .processes = true,
	.mix = { .unicast = 4, .multicast = 1, .drain = 2 },
};

#define MIX_DESTRUCTIONS						\
	{ .unicast = 1, .multicast = 1, .announce = 2, .forward = 3,	\
	  .mortal = 3, .destroy = 1, .transfer = 2, .rob = 1, .drop = 2,	\
	  .drain = 2 }

FIXTURE_VARIANT_ADD(history, two_threads_destructions) {
	.n = 2, .ops = 500, .rounds = 8, .mortals = 64,
	.mix = MIX_DESTRUCTIONS,
};

FIXTURE_VARIANT_ADD(history, four_threads_destructions) {
	.n = 4, .ops = 300, .rounds = 8, .mortals = 40,
	.mix = MIX_DESTRUCTIONS,
};

FIXTURE_VARIANT_ADD(history, four_processes_destructions) {
	.n = 4, .ops = 300, .rounds = 8, .mortals = 40, .processes = true,
	.mix = MIX_DESTRUCTIONS,
};

FIXTURE_SETUP(history)
{
	int i, j, n = variant->n * variant->mortals + 1;
	struct worker *w;

	/* Every worker ends with a few destructions. */
	self->order = order_new(variant->n, variant->n *
				(2 * variant->ops + variant->mortals + 16),
				variant->mortals);
	ASSERT_NE(NULL, self->order);
	self->shared = shared_alloc(5 * sizeof(*self->shared));
	ASSERT_NE(NULL, self->shared);
	self->idle = event_new();
	for (i = 0; i < variant->n; i++) {
		w = &self->workers[i];
		w->o = self->order;
		w->index = i;
		w->ops = variant->ops;
		w->mix = &variant->mix;
		w->seed = i + 1;
		w->group = -1;
		w->idle = self->idle;
		w->go = event_new();
		w->at_barrier = self->shared;
		w->stop = &self->shared[4];
		w->held = calloc(n, sizeof(*w->held));
		ASSERT_TRUE(w->held && w->go >= 0);
		PEER_OPEN(&w->peer);
	}
	for (i = 0; i < variant->n; i++) {
		for (j = 0; j < variant->n; j++)
			self->workers[i].fds[j] = self->workers[j].peer.fd;
		for (j = 0; j < variant->n * ORDER_BASE; j++)
			self->workers[i].base[j] =
				TRANSFER(&self->workers[j / ORDER_BASE].peer,
					 ORDER_ID(j % ORDER_BASE),
					 &self->workers[i].peer);
	}
}

FIXTURE_TEARDOWN(history)
{
	int i;

	for (i = 0; i < variant->n; i++) {
		peer_close(&self->workers[i].peer);
		close(self->workers[i].go);
		free(self->workers[i].held);
	}
	close(self->idle);
	munmap(self->shared, 5 * sizeof(*self->shared));
	order_free(self->order);
}

TEST_F(history, has_a_total_order)
{
	int i, round, rounds = scaled_rounds(variant->rounds);
	struct bus1_cmd_recv recv;
	pthread_t thread[ORDER_PEERS];
	pid_t pid[ORDER_PEERS];
	bool good = true;

	for (i = 0; i < variant->n; i++) {
		if (!variant->processes) {
			ASSERT_EQ(0, pthread_create(&thread[i], NULL,
						    worker_run,
						    &self->workers[i]));
			continue;
		}
		pid[i] = FORK();
		if (!pid[i]) {
			worker_run(&self->workers[i]);
			_exit(0);
		}
	}
	for (round = 0; round < rounds && good; round++) {
		for (i = 0; i < variant->n; i++)
			event_post(self->workers[i].go);
		for (i = 0; i < variant->n; i++)
			event_wait(self->idle);
		good = order_check(self->order);
		order_reset(self->order);
	}
	EXPECT_TRUE(good);
	__atomic_store_n(&self->shared[4], 1, __ATOMIC_SEQ_CST);
	for (i = 0; i < variant->n; i++) {
		event_post(self->workers[i].go);
		if (!variant->processes)
			pthread_join(thread[i], NULL);
		else
			WAIT(pid[i]);
	}
	order_report(self->order);
	if (!good)
		return;
	for (i = 0; i < variant->n; i++)
		RECV_NONE(&self->workers[i].peer);
	/* That lets go of the nodes of others, who are told so. */
	for (i = 0; i < variant->n; i++) {
		ASSERT_EQ(0, bus1_flush(self->workers[i].peer.fd,
					BUS1_PEER_RESET_FLAG_FLUSH));
	}
	for (i = 0; i < variant->n; i++) {
		while (!bus1_recv(self->workers[i].peer.fd, 0, &recv))
			bus1_drain_refs(self->workers[i].peer.fd,
					recv.msg.destination);
		EXPECT_IDLE(&self->workers[i].peer);
	}
}

TEST_HARNESS_MAIN
