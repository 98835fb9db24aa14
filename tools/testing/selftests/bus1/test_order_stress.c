// SPDX-License-Identifier: GPL-2.0-only
/*
 * Random histories: workers, threads or processes, each with a peer, send to
 * each other at random, pass on handles to mortal nodes and destroy those, all at
 * once. Afterwards one total order must explain everything that was seen.
 */

#include "bus1_order.h"

/* What a worker does, in shares of all that it does. */
struct mix {
	int unicast;
	int multicast;
	int announce;	/* multicast the handle of a new mortal node */
	int forward;	/* pass on a handle to a mortal node of somebody else */
	int mortal;	/* send to a mortal node, and to others, with CONTINUE */
	int destroy;	/* destroy some of one's own mortal nodes */
	int drain;
};

/**
 * struct worker - one thread or process, and its peer
 * @o: the history
 * @index: its number
 * @ops: how many things to do
 * @mix: what to do
 * @peer: its peer
 * @base: its handles to the nodes that live for ever, by number
 * @held: its handles to mortal nodes, 0 without one
 * @refs: how many references it has to them
 * @told: that they are destroyed
 * @n_made: number of own mortal nodes made so far
 * @n_gone: number of those, the first ones, that were destroyed
 * @seed: state of the random numbers
 */
struct worker {
	struct order *o;
	__u32 index;
	__u32 ops;
	const struct mix *mix;
	struct peer peer;
	__u64 base[ORDER_PEERS * ORDER_BASE];
	__u64 *held;
	__u32 *refs;
	bool *told;
	__u32 n_made;
	__u32 n_gone;
	__u64 seed;
};

/* Where the IDs of mortal nodes begin. */
#define MORTAL_BASE	0x100000ULL

static __u32 n_mortals(struct worker *w)
{
	return w->o->n_peers * w->o->n_mortals;
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

/* An effect of the destruction of @e was seen, so that had been entered. */
static void worker_saw_death(struct worker *w, __u32 e)
{
	__u32 d = __atomic_load_n(&w->o->destroyed[e], __ATOMIC_SEQ_CST);

	ORDER_CHECK(w->o, d, e);
	if (d)
		order_seen(w->o, d - 1);
}

static void worker_got_handle(struct worker *w, __u32 e, __u64 id)
{
	struct order *o = w->o;

	ORDER_CHECK(o, e < n_mortals(w), e);
	if (e >= n_mortals(w))
		return;
	/* Destruction was told, so no message after it brings a valid one. */
	ORDER_CHECK(o, !w->told[e], e);
	ORDER_CHECK(o, !w->held[e] || w->held[e] == id, e);
	ORDER_CHECK(o, (id & 7) == KERNEL_CHOSEN, id);
	w->held[e] = id;
	w->refs[e]++;
}

static void worker_data(struct worker *w, struct bus1_cmd_recv *recv)
{
	struct order_payload payload;
	struct order_entry entry;
	struct order *o = w->o;
	__u64 id;

	memcpy(&payload, w->peer.pool + recv->msg.offset, sizeof(payload));
	entry = (struct order_entry){
		.tx = payload.tx,
		.node = recv->msg.destination >= MORTAL_BASE ? ORDER_MORTAL :
			(recv->msg.destination - ORDER_ID(0)) / 8,
		.cont = recv->msg.flags & BUS1_MSG_FLAG_CONTINUE,
		.carried = payload.carried,
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
			worker_saw_death(w, payload.carried);
	}
	order_log(o, w->index, entry);
	ORDER_CHECK(o, !bus1_slice_release(w->peer.fd, recv->msg.offset), 0);
}

static void worker_destroyed(struct worker *w, struct bus1_cmd_recv *recv)
{
	struct order *o = w->o;
	struct order_entry entry = {
		.node = ORDER_NOTIFICATION,
		.cont = recv->msg.flags & BUS1_MSG_FLAG_CONTINUE,
		.carried = ORDER_NONE,
	};
	__u32 e;

	for (e = 0; e < n_mortals(w); e++)
		if (w->held[e] == recv->msg.destination)
			break;
	/* Not for what one does not hold, and not twice. */
	ORDER_CHECK(o, e < n_mortals(w), recv->msg.destination);
	if (e == n_mortals(w))
		return;
	ORDER_CHECK(o, o->destroyed[e], e);
	entry.tx = o->destroyed[e] - 1;
	order_log(o, w->index, entry);
	w->told[e] = true;
	/* User space can mirror the count exactly. */
	ORDER_CHECK(o, bus1_drain_refs(w->peer.fd, w->held[e]) ==
		    (int)w->refs[e], e);
	w->held[e] = 0;
	w->refs[e] = 0;
}

static void worker_drain(struct worker *w, __u32 max)
{
	struct bus1_cmd_recv recv;
	int r = 0;

	while (max-- && !(r = bus1_recv(w->peer.fd, 0, &recv))) {
		if (recv.msg.type == BUS1_MSG_DATA)
			worker_data(w, &recv);
		else if (recv.msg.type == BUS1_MSG_NODE_DESTROY)
			worker_destroyed(w, &recv);
		else
			order_fail(w->o, __LINE__, recv.msg.type);
	}
	ORDER_CHECK(w->o, !r || r == -EAGAIN, r);
}

/* Who was skipped by the transaction @i, as its error array says. */
static void worker_skipped(struct worker *w, __u32 i, const __s32 *error)
{
	struct order *o = w->o;
	struct order_tx *tx = &o->tx[i];
	__u32 j, d, mask = tx->mask;

	for (j = 0; j < ORDER_PEERS * ORDER_BASE; j++) {
		if (!(mask & 1U << j))
			continue;
		ORDER_CHECK(o, !*error || *error == -EDQUOT ||
			    *error == -EXFULL, *error);
		if (*error++)
			tx->mask &= ~(1U << j);
	}
	if (*error == -EHOSTUNREACH) {
		worker_saw_death(w, tx->mortal);
	} else {
		ORDER_CHECK(o, !*error || *error == -EDQUOT ||
			    *error == -EXFULL, *error);
		/* Entered after an effect of the destruction was seen? */
		d = o->destroyed[tx->mortal];
		ORDER_CHECK(o, *error || !d ||
			    __atomic_load_n(&o->tx[d - 1].done,
					    __ATOMIC_SEQ_CST) > tx->before, d);
	}
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

	if (next_random(&w->seed) % 4)
		vecs[1].iov_len %= 64;
	if (carried != ORDER_NONE)
		handle = mortal_owner(w, carried) == w->index ?
			 mortal_id(w, carried) : w->held[carried];
	for (i = 0; i < ORDER_PEERS * ORDER_BASE; i++)
		if (mask & 1U << i)
			dests[send.n_destinations++] = w->base[i];
	if (mortal != ORDER_NONE) {
		dests[send.n_destinations++] = w->held[mortal];
		send.ptr_errors = ptr(errors);
		send.flags = BUS1_SEND_FLAG_CONTINUE;
		memset(errors, 0xa5, sizeof(errors));
	}
	payload.tx = order_begin(o, mask, mortal);
	r = bus1_send(w->peer.fd, &send);
	if (mortal != ORDER_NONE && !r)
		worker_skipped(w, payload.tx, errors);
	order_end(o, payload.tx, r);
	ORDER_CHECK(o, !r || r == -EDQUOT || r == -EXFULL, r);
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
		if (w->held[e])
			return e;
	return ORDER_NONE;
}

/* All nodes but those of the owner of @e: it has its own reference. */
static __u32 worker_but_owner(struct worker *w, __u32 mask, __u32 e)
{
	return mask & ~(((1U << ORDER_BASE) - 1) <<
			(mortal_owner(w, e) * ORDER_BASE));
}

static void worker_announce(struct worker *w)
{
	__u32 e = w->index * w->o->n_mortals + w->n_made, mask;

	if (w->n_made == w->o->n_mortals)
		return;
	mask = worker_but_owner(w, worker_random_mask(w), e);
	/* If it fails, no node came to be, and its ID is still free. */
	if (mask && !worker_send(w, mask, ORDER_NONE, e))
		w->n_made++;
}

static void worker_destroy(struct worker *w, __u32 max)
{
	__u64 ids[16];
	__u32 i, e, tx, n = w->n_made - w->n_gone;
	int r;

	n = n < max ? n : max;
	if (!n)
		return;
	tx = order_begin(w->o, 0, ORDER_NONE);
	for (i = 0; i < n; i++) {
		e = w->index * w->o->n_mortals + w->n_gone++;
		ids[i] = mortal_id(w, e);
		__atomic_store_n(&w->o->destroyed[e], tx + 1, __ATOMIC_SEQ_CST);
	}
	r = bus1_nodes_destroy(w->peer.fd,
			       BUS1_NODES_DESTROY_FLAG_RELEASE_HANDLES, ids, n);
	order_end(w->o, tx, r);
	ORDER_CHECK(w->o, !r, r);
}

static void worker_step(struct worker *w)
{
	const struct mix *m = w->mix;
	int total = m->unicast + m->multicast + m->announce + m->forward +
		    m->mortal + m->destroy + m->drain;
	int what = next_random(&w->seed) % total;
	__u32 mask, e;

	if ((what -= m->unicast) < 0) {
		mask = 1U << next_random(&w->seed) %
		       (w->o->n_peers * ORDER_BASE);
		worker_send(w, mask, ORDER_NONE, ORDER_NONE);
	} else if ((what -= m->multicast) < 0) {
		worker_send(w, worker_random_mask(w), ORDER_NONE, ORDER_NONE);
	} else if ((what -= m->announce) < 0) {
		worker_announce(w);
	} else if ((what -= m->forward) < 0) {
		e = worker_random_held(w);
		if (e != ORDER_NONE)
			worker_send(w, worker_but_owner(w,
					worker_random_mask(w), e),
				    ORDER_NONE, e);
	} else if ((what -= m->mortal) < 0) {
		e = worker_random_held(w);
		if (e != ORDER_NONE)
			worker_send(w, worker_random_mask(w), e, ORDER_NONE);
	} else if ((what -= m->destroy) < 0) {
		worker_destroy(w, 1 + next_random(&w->seed) % 4);
	} else {
		worker_drain(w, next_random(&w->seed) % 32);
	}
}

/* Waits for all others, and goes on receiving meanwhile. */
static void worker_barrier(struct worker *w, int which)
{
	__u32 *n = &w->o->at_barrier[which];

	__atomic_add_fetch(n, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(n, __ATOMIC_SEQ_CST) < w->o->n_peers) {
		worker_drain(w, -1);
		sched_yield();
	}
}

static void *worker_run(void *arg)
{
	struct worker *w = arg;
	__u32 i;

	for (i = 0; i < w->ops && !w->o->error; i++) {
		worker_step(w);
		/* Queues stay short, or all that happens is EDQUOT. */
		if (!(i % 16))
			worker_drain(w, 64);
	}
	worker_barrier(w, 0);
	while (w->n_made > w->n_gone)
		worker_destroy(w, 16);
	worker_barrier(w, 1);
	worker_drain(w, -1);
	/* Whatever was held was destroyed, and so was told. */
	for (i = 0; i < n_mortals(w); i++)
		ORDER_CHECK(w->o, !w->held[i], i);
	worker_barrier(w, 2);
	return NULL;
}

FIXTURE(history) {
	struct order *order;
	struct worker workers[ORDER_PEERS];
};

FIXTURE_VARIANT(history) {
	int n;
	bool processes;
	int ops;
	int mortals;
	struct mix mix;
};

FIXTURE_VARIANT_ADD(history, two_threads_unicasts) {
	.n = 2, .ops = 4000,
	.mix = { .unicast = 4, .multicast = 1, .drain = 2 },
};

FIXTURE_VARIANT_ADD(history, four_threads_multicasts) {
	.n = 4, .ops = 2000,
	.mix = { .unicast = 1, .multicast = 4, .drain = 2 },
};

FIXTURE_VARIANT_ADD(history, four_processes_multicasts) {
	.n = 4, .ops = 2000, .processes = true,
	.mix = { .unicast = 1, .multicast = 4, .drain = 2 },
};

FIXTURE_VARIANT_ADD(history, eight_processes) {
	.n = 8, .ops = 600, .processes = true,
	.mix = { .unicast = 4, .multicast = 1, .drain = 2 },
};

FIXTURE_VARIANT_ADD(history, two_threads_destructions) {
	.n = 2, .ops = 4000, .mortals = 500,
	.mix = { .unicast = 1, .announce = 2, .forward = 3, .mortal = 3,
		 .destroy = 1, .drain = 2 },
};

FIXTURE_VARIANT_ADD(history, four_threads_destructions) {
	.n = 4, .ops = 2000, .mortals = 200,
	.mix = { .unicast = 1, .multicast = 1, .announce = 2, .forward = 3,
		 .mortal = 3, .destroy = 1, .drain = 2 },
};

FIXTURE_VARIANT_ADD(history, four_processes_destructions) {
	.n = 4, .ops = 2000, .mortals = 200, .processes = true,
	.mix = { .unicast = 1, .multicast = 1, .announce = 2, .forward = 3,
		 .mortal = 3, .destroy = 1, .drain = 2 },
};

FIXTURE_SETUP(history)
{
	int i, j, n = variant->n * variant->mortals + 1;
	struct worker *w;

	/* Every worker ends with a few destructions. */
	self->order = order_new(variant->n, variant->n *
				(variant->ops + variant->mortals + 16),
				variant->mortals);
	ASSERT_NE(NULL, self->order);
	for (i = 0; i < variant->n; i++) {
		w = &self->workers[i];
		w->o = self->order;
		w->index = i;
		w->ops = variant->ops;
		w->mix = &variant->mix;
		w->seed = i + 1;
		w->held = calloc(n, sizeof(*w->held));
		w->refs = calloc(n, sizeof(*w->refs));
		w->told = calloc(n, sizeof(*w->told));
		ASSERT_TRUE(w->held && w->refs && w->told);
		PEER_OPEN(&w->peer);
	}
	for (i = 0; i < variant->n; i++)
		for (j = 0; j < variant->n * ORDER_BASE; j++)
			self->workers[i].base[j] =
				TRANSFER(&self->workers[j / ORDER_BASE].peer,
					 ORDER_ID(j % ORDER_BASE),
					 &self->workers[i].peer);
}

FIXTURE_TEARDOWN(history)
{
	int i;

	for (i = 0; i < variant->n; i++) {
		peer_close(&self->workers[i].peer);
		free(self->workers[i].held);
		free(self->workers[i].refs);
		free(self->workers[i].told);
	}
	order_free(self->order);
}

TEST_F(history, has_a_total_order)
{
	pthread_t thread[ORDER_PEERS];
	pid_t pid[ORDER_PEERS];
	int i;

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
	for (i = 0; i < variant->n; i++) {
		if (!variant->processes)
			pthread_join(thread[i], NULL);
		else
			WAIT(pid[i]);
	}
	ORDER_EXPECT(self->order);
	for (i = 0; i < variant->n; i++)
		RECV_NONE(&self->workers[i].peer);
	/* That lets go of the nodes of others, who are told so. */
	for (i = 0; i < variant->n; i++) {
		ASSERT_EQ(0, bus1_flush(self->workers[i].peer.fd,
					BUS1_PEER_RESET_FLAG_FLUSH));
	}
	for (i = 0; i < variant->n; i++) {
		struct bus1_cmd_recv recv;

		while (!bus1_recv(self->workers[i].peer.fd, 0, &recv))
			bus1_drain_refs(self->workers[i].peer.fd,
					recv.msg.destination);
		EXPECT_IDLE(&self->workers[i].peer);
	}
}

TEST_HARNESS_MAIN
