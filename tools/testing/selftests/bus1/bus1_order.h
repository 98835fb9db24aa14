/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A history of transactions, and the check that one total order explains it.
 *
 * Whoever runs a transaction takes a stamp from a counter in shared memory
 * before it enters the kernel, and after it has returned; whoever receives a
 * message of it takes one, too. The counter is the side channel: if A was done
 * at a lower stamp than B was begun, everybody could know, so A must come first.
 *
 * The history is a graph over transactions and stamps:
 *	A -> B		somebody's queue handed out A before B
 *	A -> stamp	A was seen to be done there
 *	stamp -> B	B was entered after it
 *	stamp -> stamp	the next one
 *	M -> D, D -> M	the message M brought a handle to a node valid, or not,
 *			that was destroyed by D
 * Rules 1 to 3 of the specification hold exactly if it has no cycle.
 */
#ifndef __BUS1_ORDER_H
#define __BUS1_ORDER_H

#include "bus1_test.h"

#define ORDER_PEERS	8	/* the most */
#define ORDER_BASE	2	/* nodes of each peer that live for ever */
#define ORDER_NONE	((__u32)-1)
#define ORDER_ID(_i)	(0x1000 + 8 * (_i))

/**
 * struct order_tx - a transaction
 * @before: stamp taken before the call
 * @done: lowest stamp at which its end, or an effect, was seen
 * @mask: nodes it was sent to: bit ORDER_BASE * peer + node
 * @mortal: mortal node it was sent to in addition, or ORDER_NONE
 * @sent: it succeeded
 */
struct order_tx {
	__u64 before;
	__u64 done;
	__u32 mask;
	__u32 mortal;
	bool sent;
};

/**
 * struct order_entry - something received
 * @tx: the transaction
 * @node: 0 to ORDER_BASE - 1, or one of ORDER_MORTAL, ORDER_NOTIFICATION
 * @cont: CONTINUE was set
 * @carried: mortal node that the message carries a handle to, or ORDER_NONE
 * @valid: whether that handle was valid
 */
struct order_entry {
	__u32 tx;
	__u32 node;
	bool cont;
	bool valid;
	__u32 carried;
};

#define ORDER_MORTAL		ORDER_BASE
#define ORDER_NOTIFICATION	(ORDER_BASE + 1)

/**
 * struct order - a history, in memory that processes share
 * @stamp: the counter
 * @n_tx: transactions begun
 * @max_tx: the most
 * @max_log: the most entries per queue
 * @n_peers: number of peers
 * @n_mortals: nodes per peer that get destroyed
 * @error: line where something was wrong first
 * @error_value: and what it was
 * @at_barrier: how many workers got to each barrier
 * @tx: the transactions
 * @destroyed: for each mortal node, 1 + the transaction that destroys it
 * @n_log: number of entries, for each queue
 * @log: the entries
 */
struct order {
	__u64 stamp;
	__u32 n_tx;
	__u32 max_tx;
	__u32 max_log;
	__u32 n_peers;
	__u32 n_mortals;
	int error;
	long long error_value;
	__u32 at_barrier[4];
	struct order_tx *tx;
	__u32 *destroyed;
	__u32 n_log[ORDER_PEERS];
	struct order_entry *log[ORDER_PEERS];
};

/* What every message begins with. */
struct order_payload {
	__u32 tx;
	__u32 carried;
};

static inline struct order *order_new(__u32 n_peers, __u32 max_tx,
				      __u32 n_mortals)
{
	struct order *o = shared_alloc(sizeof(*o));
	__u32 i;

	if (!o)
		return NULL;
	o->n_peers = n_peers;
	o->max_tx = max_tx;
	o->max_log = 2 * max_tx * ORDER_BASE + n_peers * n_mortals;
	o->n_mortals = n_mortals;
	o->tx = shared_alloc(max_tx * sizeof(*o->tx));
	o->destroyed = shared_alloc((n_peers * n_mortals + 1) *
				    sizeof(*o->destroyed));
	if (!o->tx || !o->destroyed)
		return NULL;
	for (i = 0; i < n_peers; i++) {
		o->log[i] = shared_alloc(o->max_log * sizeof(*o->log[i]));
		if (!o->log[i])
			return NULL;
	}
	return o;
}

static inline void order_free(struct order *o)
{
	__u32 i;

	for (i = 0; i < o->n_peers; i++)
		munmap(o->log[i], o->max_log * sizeof(*o->log[i]));
	munmap(o->destroyed, (o->n_peers * o->n_mortals + 1) *
			     sizeof(*o->destroyed));
	munmap(o->tx, o->max_tx * sizeof(*o->tx));
	munmap(o, sizeof(*o));
}

static inline void order_fail(struct order *o, int line, long long value)
{
	int none = 0;

	if (__atomic_compare_exchange_n(&o->error, &none, line, false,
					__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		o->error_value = value;
}

#define ORDER_CHECK(_o, _expr, _value) do {				\
	if (!(_expr))							\
		order_fail(_o, __LINE__, _value);			\
} while (0)

static inline __u64 order_stamp(struct order *o)
{
	return __atomic_add_fetch(&o->stamp, 1, __ATOMIC_SEQ_CST);
}

static inline __u32 order_begin(struct order *o, __u32 mask, __u32 mortal)
{
	__u32 i = __atomic_fetch_add(&o->n_tx, 1, __ATOMIC_SEQ_CST);
	struct order_tx *tx;

	if (i >= o->max_tx) {
		order_fail(o, __LINE__, i);
		i = o->max_tx - 1;
	}
	tx = &o->tx[i];
	tx->done = -1ULL;
	tx->mask = mask;
	tx->mortal = mortal;
	__atomic_store_n(&tx->before, order_stamp(o), __ATOMIC_SEQ_CST);
	return i;
}

/* An effect of @i was seen by now. */
static inline void order_seen(struct order *o, __u32 i)
{
	__u64 now = order_stamp(o);
	__u64 old = __atomic_load_n(&o->tx[i].done, __ATOMIC_SEQ_CST);

	while (now < old &&
	       !__atomic_compare_exchange_n(&o->tx[i].done, &old, now, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

static inline void order_end(struct order *o, __u32 i, int r)
{
	if (!r) {
		order_seen(o, i);
		o->tx[i].sent = true;
	}
}

static inline void order_log(struct order *o, __u32 queue,
			     struct order_entry entry)
{
	if (o->n_log[queue] == o->max_log) {
		order_fail(o, __LINE__, queue);
		return;
	}
	order_seen(o, entry.tx);
	o->log[queue][o->n_log[queue]++] = entry;
}

/*
 * The graph
 */

struct order_graph {
	__u32 n, n_edges, max_edges;
	__u32 *head, *degree, *todo;
	struct {
		__u32 from, to, next;
	} *edge;
};

static inline void order_edge(struct order_graph *g, __u32 from, __u32 to)
{
	if (g->n_edges == g->max_edges) {
		g->max_edges = 2 * g->max_edges + 1024;
		g->edge = realloc(g->edge, g->max_edges * sizeof(*g->edge));
		if (!g->edge)
			abort();
	}
	g->edge[g->n_edges].from = from;
	g->edge[g->n_edges].to = to;
	g->edge[g->n_edges].next = g->head[from];
	g->head[from] = g->n_edges++;
	g->degree[to]++;
}

/* Removes what nothing precedes, again and again; returns how many remain. */
static inline __u32 order_sort(struct order_graph *g)
{
	__u32 i, e, n_todo = 0, n = g->n;

	for (i = 0; i < g->n; i++)
		if (!g->degree[i])
			g->todo[n_todo++] = i;
	while (n_todo) {
		i = g->todo[--n_todo];
		n--;
		for (e = g->head[i]; e != ORDER_NONE; e = g->edge[e].next)
			if (!--g->degree[g->edge[e].to])
				g->todo[n_todo++] = g->edge[e].to;
	}
	return n;
}

/* Prints one of the cycles that are left. */
static inline void order_print_cycle(struct order *o, struct order_graph *g)
{
	__u32 *pred = g->todo, e, i, start, steps;

	for (e = 0; e < g->n_edges; e++)
		if (g->degree[g->edge[e].from] && g->degree[g->edge[e].to])
			pred[g->edge[e].to] = g->edge[e].from;
	for (i = 0; i < g->n && !g->degree[i]; i++)
		;
	for (steps = 0; steps < g->n; steps++)
		i = pred[i];
	start = i;
	steps = 0;
	fprintf(stderr, "# cycle, each is after the next:\n");
	do {
		if (i < o->n_tx)
			fprintf(stderr, "#   transaction %u mask %#x, %llu to %llu\n",
				i, o->tx[i].mask,
				(unsigned long long)o->tx[i].before,
				(unsigned long long)o->tx[i].done);
		i = pred[i];
	} while (i != start && ++steps < 100000);
}

static inline void order_graph_fill(struct order *o, struct order_graph *g)
{
	__u32 q, i, t = o->n_tx, d;
	struct order_entry *en;

	for (i = 0; i + 1 < o->stamp + 1; i++)
		order_edge(g, t + i, t + i + 1);
	for (i = 0; i < o->n_tx; i++) {
		order_edge(g, t + o->tx[i].before, i);
		if (o->tx[i].done != -1ULL)
			order_edge(g, i, t + o->tx[i].done);
	}
	for (q = 0; q < o->n_peers; q++) {
		for (i = 0; i < o->n_log[q]; i++) {
			en = &o->log[q][i];
			if (i && en[-1].tx != en->tx)
				order_edge(g, en[-1].tx, en->tx);
			if (en->node == ORDER_NOTIFICATION)
				continue;
			if (en->carried != ORDER_NONE) {
				d = o->destroyed[en->carried];
				if (en->valid && d)
					order_edge(g, en->tx, d - 1);
				if (!en->valid && d)
					order_edge(g, d - 1, en->tx);
				ORDER_CHECK(o, en->valid || d, en->carried);
			}
			/* Delivered, so before the destruction. */
			if (en->node == ORDER_MORTAL) {
				d = o->destroyed[o->tx[en->tx].mortal];
				if (d)
					order_edge(g, en->tx, d - 1);
			}
		}
	}
}

/* Returns 0 if one total order explains the history. */
static inline __u32 order_check_graph(struct order *o)
{
	struct order_graph g = { .n = o->n_tx + o->stamp + 1 };
	__u32 n;

	g.head = malloc(g.n * sizeof(*g.head));
	g.degree = calloc(g.n, sizeof(*g.degree));
	g.todo = calloc(g.n, sizeof(*g.todo));
	if (!g.head || !g.degree || !g.todo)
		abort();
	memset(g.head, 0xff, g.n * sizeof(*g.head));
	order_graph_fill(o, &g);
	n = order_sort(&g);
	if (n)
		order_print_cycle(o, &g);
	free(g.edge);
	free(g.todo);
	free(g.degree);
	free(g.head);
	return n;
}

/*
 * Each queue for itself: everything that was sent is there once, nothing else;
 * a transaction is in one piece, and CONTINUE says where the piece ends.
 */
static inline void order_check_queue(struct order *o, __u32 q)
{
	__u32 *seen = calloc(o->max_tx, sizeof(*seen)), i, want, owner;
	struct order_entry *en;
	struct order_tx *tx;
	bool same;

	if (!seen)
		abort();
	for (i = 0; i < o->n_log[q]; i++) {
		en = &o->log[q][i];
		tx = &o->tx[en->tx];
		same = i + 1 < o->n_log[q] && en[1].tx == en->tx;
		owner = tx->mortal == ORDER_NONE ? ORDER_NONE :
			tx->mortal / o->n_mortals;
		ORDER_CHECK(o, !same || en->cont, en->tx);
		ORDER_CHECK(o, !en->cont || same || owner == q, en->tx);
		/* In one piece: what was seen of it was just before. */
		ORDER_CHECK(o, !seen[en->tx] || en[-1].tx == en->tx, en->tx);
		if (en->node == ORDER_NOTIFICATION) {
			seen[en->tx] |= 1U << 31;
			continue;
		}
		ORDER_CHECK(o, !(seen[en->tx] & 1U << en->node), en->tx);
		seen[en->tx] |= 1U << en->node;
		ORDER_CHECK(o, tx->sent, en->tx);
	}
	for (i = 0; i < o->n_tx; i++) {
		tx = &o->tx[i];
		want = tx->sent ? tx->mask >> (q * ORDER_BASE) : 0;
		want &= (1U << ORDER_BASE) - 1;
		ORDER_CHECK(o, (seen[i] & ((1U << ORDER_BASE) - 1)) == want,
			    i);
		/* To a mortal node: there, or dropped as it was destroyed. */
		if (tx->mortal == ORDER_NONE ||
		    tx->mortal / o->n_mortals != q)
			ORDER_CHECK(o, !(seen[i] & 1U << ORDER_MORTAL), i);
	}
	free(seen);
}

/* Everything; to be called when nobody runs any more. */
static inline void t_order_check(struct __test_metadata *_metadata,
				 struct order *o)
{
	__u32 q;

	for (q = 0; q < o->n_peers; q++)
		order_check_queue(o, q);
	EXPECT_EQ(0, order_check_graph(o));
	EXPECT_EQ(0, o->error) {
		TH_LOG("%s:%d, value %lld", __FILE__, o->error,
		       o->error_value);
	}
}

#define ORDER_EXPECT(_o) t_order_check(_metadata, _o)

/*
 * Sending and receiving with a log
 */

/* Sends to the nodes in @mask; @ids are the sender's handles, by bit. */
static inline int order_send(struct order *o, int fd, __u32 mask,
			     const __u64 *ids, size_t n_bytes)
{
	struct order_payload payload = { .carried = ORDER_NONE };
	__u64 dests[ORDER_PEERS * ORDER_BASE];
	static const char zeros[65536];
	struct iovec vecs[2] = {
		{ &payload, sizeof(payload) },
		{ (void *)zeros, n_bytes },
	};
	struct bus1_cmd_send send = {
		.ptr_destinations = ptr(dests),
		.ptr_vecs = ptr(vecs), .n_vecs = 2,
	};
	__u32 i;
	int r;

	for (i = 0; i < ORDER_PEERS * ORDER_BASE; i++)
		if (mask & 1U << i)
			dests[send.n_destinations++] = ids[i];
	payload.tx = order_begin(o, mask, ORDER_NONE);
	r = bus1_send(fd, &send);
	order_end(o, payload.tx, r);
	return r;
}

/* Receives everything that is ready at peer number @q, without handles. */
static inline void order_drain(struct order *o, __u32 q, struct peer *peer)
{
	struct order_payload payload;
	struct order_entry entry;
	struct bus1_cmd_recv recv;
	int r;

	while (!(r = bus1_recv(peer->fd, 0, &recv))) {
		if (recv.msg.type != BUS1_MSG_DATA) {
			order_fail(o, __LINE__, recv.msg.type);
			continue;
		}
		memcpy(&payload, peer->pool + recv.msg.offset,
		       sizeof(payload));
		entry = (struct order_entry){
			.tx = payload.tx,
			.node = (recv.msg.destination - ORDER_ID(0)) / 8,
			.cont = recv.msg.flags & BUS1_MSG_FLAG_CONTINUE,
			.carried = ORDER_NONE,
		};
		order_log(o, q, entry);
		bus1_slice_release(peer->fd, recv.msg.offset);
	}
	ORDER_CHECK(o, r == -EAGAIN, r);
}

#endif /* __BUS1_ORDER_H */
