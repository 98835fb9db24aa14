/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A history of transactions, and the check that one total order explains it.
 *
 * Whoever runs a transaction takes a stamp from a counter in shared memory
 * before it enters the kernel, and after it has returned; whoever receives a
 * message of it, or sees its effect in an errno or in a handle, takes one, too.
 * The counter is the side channel: if A was done at a lower stamp than B was
 * begun, everybody could know, so A must come first.
 *
 * The history is a graph over transactions and stamps:
 *	A -> B		somebody's queue handed out A before B
 *	A -> stamp	A was seen to be done there
 *	stamp -> B	B was entered after it
 *	stamp -> stamp	the next one
 *	M -> D, D -> M	the message M brought a handle to a node valid, or not,
 *			that was destroyed by D
 *	M -> D		M was delivered to the node
 * Rules 1 to 3 of the specification hold exactly if it has no cycle. It takes
 * linear time to find that out. What a graph cannot say is checked one by one: that
 * nothing was lost, came twice, or to somebody who should not have got it.
 */
#ifndef __BUS1_ORDER_H
#define __BUS1_ORDER_H

#include "bus1_test.h"

#define ORDER_PEERS	8	/* the most */
#define ORDER_BASE	2	/* nodes of each peer that live for ever */
#define ORDER_NONE	((__u32)-1)
#define ORDER_NEVER	((__u64)-1)
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
 * struct order_node - a mortal node
 * @destroyed: 1 + the transaction that destroyed it
 * @seen: lowest stamp at which an effect of that was seen
 * @dropped: highest stamp before which a reference was not yet dropped
 * @ended: highest stamp at which a command that had a reference was over
 * @made: it exists, or did so
 * @loan: its owner gives references away once, and it is not destroyed: it is
 *	released exactly once, after the last of these was dropped
 * @told: the owner keeps its own reference until the end, so it is told of the
 *	destruction, and no message that came before that may be missing
 */
struct order_node {
	__u32 destroyed;
	__u64 seen;
	__u64 dropped;
	__u64 ended;
	bool made;
	bool loan;
	bool told;
};

enum order_kind { ORDER_DATA, ORDER_DESTROY, ORDER_RELEASE };

/**
 * struct order_entry - something received
 * @kind: what it is
 * @tx: ORDER_DATA: the transaction
 * @node: ORDER_DATA: what it was sent to, 0 to ORDER_BASE - 1 or ORDER_MORTAL
 * @cont: CONTINUE was set
 * @valid: whether the handle that it carries was valid
 * @mortal: ORDER_DATA: mortal node that it carries a handle to, or ORDER_NONE;
 *	else the node it is about
 * @stamp: ORDER_RELEASE: when it was received
 */
struct order_entry {
	enum order_kind kind;
	__u32 tx;
	__u32 node;
	bool cont;
	bool valid;
	__u32 mortal;
	__u64 stamp;
};

#define ORDER_MORTAL		ORDER_BASE

/**
 * struct order - a history, in memory that processes share
 * @stamp: the counter
 * @n_tx: transactions begun
 * @max_tx: the most
 * @max_log: the most entries per queue
 * @n_peers: number of peers
 * @n_mortals: mortal nodes per peer
 * @error: line where something was wrong first
 * @error_value: and what it was
 * @quiet: say nothing about what is found
 * @cycle: length of the cycle that was found: transactions in it
 * @checked_tx: transactions checked, before order_reset()
 * @checked_log: entries of queues checked, before order_reset()
 * @tx: the transactions
 * @nodes: the mortal nodes
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
	bool quiet;
	__u32 cycle;
	__u64 checked_tx;
	__u64 checked_log;
	struct order_tx *tx;
	struct order_node *nodes;
	__u32 n_log[ORDER_PEERS];
	struct order_entry *log[ORDER_PEERS];
};

/* What every message begins with. */
struct order_payload {
	__u32 tx;
	__u32 carried;
};

static inline __u32 order_n_nodes(const struct order *o)
{
	return o->n_peers * o->n_mortals;
}

/* Begin a new history; nobody may use the old one any more. */
static inline void order_reset(struct order *o)
{
	__u32 i;

	o->checked_tx += o->n_tx;
	for (i = 0; i < o->n_peers; i++) {
		o->checked_log += o->n_log[i];
		o->n_log[i] = 0;
	}
	o->n_tx = 0;
	o->stamp = 0;
	for (i = 0; i < order_n_nodes(o); i++)
		o->nodes[i] = (struct order_node){ .seen = ORDER_NEVER };
}

static inline struct order *order_new(__u32 n_peers, __u32 max_tx,
				      __u32 n_mortals)
{
	struct order *o = shared_alloc(sizeof(*o));
	__u32 i;

	if (!o)
		return NULL;
	o->n_peers = n_peers;
	o->max_tx = max_tx;
	o->max_log = 2 * max_tx * ORDER_BASE + 4 * n_peers * n_mortals;
	o->n_mortals = n_mortals;
	o->tx = shared_alloc(max_tx * sizeof(*o->tx));
	o->nodes = shared_alloc((n_peers * n_mortals + 1) * sizeof(*o->nodes));
	if (!o->tx || !o->nodes)
		return NULL;
	for (i = 0; i < n_peers; i++) {
		o->log[i] = shared_alloc(o->max_log * sizeof(*o->log[i]));
		if (!o->log[i])
			return NULL;
	}
	order_reset(o);
	return o;
}

static inline void order_free(struct order *o)
{
	__u32 i;

	for (i = 0; i < o->n_peers; i++)
		munmap(o->log[i], o->max_log * sizeof(*o->log[i]));
	munmap(o->nodes, (order_n_nodes(o) + 1) * sizeof(*o->nodes));
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

static inline __u64 order_read(const __u64 *p)
{
	return __atomic_load_n(p, __ATOMIC_SEQ_CST);
}

static inline void order_min(__u64 *p, __u64 stamp)
{
	__u64 old = order_read(p);

	while (stamp < old &&
	       !__atomic_compare_exchange_n(p, &old, stamp, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

static inline void order_max(__u64 *p, __u64 stamp)
{
	__u64 old = order_read(p);

	while (stamp > old &&
	       !__atomic_compare_exchange_n(p, &old, stamp, false,
					    __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST))
		;
}

static inline __u32 order_begin(struct order *o, __u32 mask, __u32 mortal)
{
	__u32 i = __atomic_fetch_add(&o->n_tx, 1, __ATOMIC_SEQ_CST);
	struct order_tx *tx;

	if (i >= o->max_tx) {
		order_fail(o, __LINE__, i);
		__atomic_fetch_sub(&o->n_tx, 1, __ATOMIC_SEQ_CST);
		i = o->max_tx - 1;
	}
	tx = &o->tx[i];
	tx->done = ORDER_NEVER;
	tx->mask = mask;
	tx->mortal = mortal;
	tx->sent = false;
	__atomic_store_n(&tx->before, order_stamp(o), __ATOMIC_SEQ_CST);
	return i;
}

/* An effect of @i was seen by now. */
static inline void order_seen(struct order *o, __u32 i)
{
	order_min(&o->tx[i].done, order_stamp(o));
}

/* The destruction of @e was seen by now, whoever did it. */
static inline void order_seen_dead(struct order *o, __u32 e)
{
	order_min(&o->nodes[e].seen, order_stamp(o));
}

static inline void order_end(struct order *o, __u32 i, int r)
{
	if (!r) {
		order_seen(o, i);
		o->tx[i].sent = true;
	}
}

/* The transaction @i has destroyed @e. */
static inline void order_destroyed(struct order *o, __u32 e, __u32 i)
{
	__u32 none = 0;

	if (!__atomic_compare_exchange_n(&o->nodes[e].destroyed, &none, i + 1,
					 false, __ATOMIC_SEQ_CST,
					 __ATOMIC_SEQ_CST))
		order_fail(o, __LINE__, e);
}

static inline void order_log(struct order *o, __u32 queue,
			     struct order_entry entry)
{
	if (o->n_log[queue] == o->max_log) {
		order_fail(o, __LINE__, queue);
		return;
	}
	if (entry.kind == ORDER_DATA)
		order_seen(o, entry.tx);
	else if (entry.kind == ORDER_DESTROY)
		order_seen_dead(o, entry.mortal);
	else
		entry.stamp = order_stamp(o);
	o->log[queue][o->n_log[queue]++] = entry;
}

/*
 * The graph
 */

enum order_why {
	ORDER_BY_STAMP,		/* from one stamp to the next */
	ORDER_BEGUN,
	ORDER_DONE,
	ORDER_RECEIVED,		/* in a queue */
	ORDER_CAME_VALID,
	ORDER_CAME_INVALID,
	ORDER_REACHED,		/* the node, before it was destroyed */
	ORDER_DROPPED,		/* a reference, before the release */
};

struct order_edge {
	__u32 from, to, next;
	__u16 why, where;
};

/**
 * struct order_graph - a graph
 * @n: number of vertices: transactions, releases of nodes, stamps
 * @n_tx: number of transactions
 * @n_before_stamps: and of releases
 * @n_edges: number of edges
 * @max_edges: room for edges
 * @head: first edge of each vertex
 * @degree: edges that end at each vertex, from those that are left
 * @todo: room for vertices
 * @edge: the edges
 * @released: mortal node that each release is about
 */
struct order_graph {
	__u32 n, n_tx, n_before_stamps, n_edges, max_edges;
	__u32 *head, *degree, *todo;
	struct order_edge *edge;
	__u32 *released;
};

static inline void order_edge(struct order_graph *g, __u32 from, __u32 to,
			      enum order_why why, __u32 where)
{
	if (g->n_edges == g->max_edges) {
		g->max_edges = 2 * g->max_edges + 1024;
		g->edge = realloc(g->edge, g->max_edges * sizeof(*g->edge));
		if (!g->edge)
			abort();
	}
	g->edge[g->n_edges] = (struct order_edge){
		.from = from, .to = to, .next = g->head[from],
		.why = why, .where = where,
	};
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

/*
 * The shortest way from @start, a vertex that order_sort() left, back to it: the
 * last edge of it, with the edge before each in @last. From stamp to stamp costs
 * nothing. Returns its length.
 */
static inline __u32 order_search(struct order_graph *g, __u32 start,
				 __u32 *last, __u32 *length, __u32 most)
{
	__u32 *now = g->todo, *next = last + g->n, *t, n_now = 1, n_next = 0;
	__u32 i, e, to, far = 1;

	for (i = 0; i < g->n; i++)
		last[i] = ORDER_NONE;
	now[0] = start;
	for (; n_now && far < most; far++) {
		while (n_now) {
			i = now[--n_now];
			for (e = g->head[i]; e != ORDER_NONE;
			     e = g->edge[e].next) {
				to = g->edge[e].to;
				if (!g->degree[to] || last[to] != ORDER_NONE)
					continue;
				last[to] = e;
				if (to == start) {
					*length = far;
					return e;
				}
				if (g->edge[e].why == ORDER_BY_STAMP)
					now[n_now++] = to;
				else
					next[n_next++] = to;
			}
		}
		t = now;
		now = next;
		next = t;
		n_now = n_next;
		n_next = 0;
	}
	return ORDER_NONE;
}

static inline void order_say(struct order *o, struct order_graph *g, __u32 i)
{
	if (i >= g->n_before_stamps) {
		fprintf(stderr, "#   stamp %u", i - g->n_before_stamps);
	} else if (i >= g->n_tx) {
		fprintf(stderr, "#   release of node %u",
			g->released[i - g->n_tx]);
	} else if (!o->tx[i].mask && o->tx[i].mortal == ORDER_NONE) {
		fprintf(stderr, "#   transaction %u, a destruction", i);
	} else {
		fprintf(stderr, "#   transaction %u, sent to %#x", i,
			o->tx[i].mask);
		if (o->tx[i].mortal != ORDER_NONE)
			fprintf(stderr, " and to node %u", o->tx[i].mortal);
	}
}

static inline void order_say_why(struct order *o, struct order_graph *g,
				 const struct order_edge *edge, __u32 begun)
{
	__u32 where = edge->where;

	order_say(o, g, edge->from);
	switch (edge->why) {
	case ORDER_DONE:
		fprintf(stderr, ": done at stamp %u; at %u begins\n",
			edge->to - g->n_before_stamps, begun);
		break;
	case ORDER_RECEIVED:
		fprintf(stderr, ": received by peer %u before\n", where);
		break;
	case ORDER_CAME_VALID:
		fprintf(stderr, ": brought peer %u a valid handle of what is destroyed by\n",
			where);
		break;
	case ORDER_CAME_INVALID:
		fprintf(stderr, ": peer %u got the handle INVALID that comes with\n",
			where);
		break;
	case ORDER_REACHED:
		fprintf(stderr, ": reached its node at peer %u, destroyed by\n",
			where);
		break;
	default:
		fprintf(stderr, ": before\n");
	}
}

/* Says what the edges of a cycle are, @last of order_search() being the last of them. */
static inline void order_say_way(struct order *o, struct order_graph *g,
				 const __u32 *last, __u32 e)
{
	__u32 *way = g->degree, n = 0, i, begun = 0, start = g->edge[e].to;

	/* degree is not needed any more. */
	for (;; e = last[g->edge[e].from]) {
		way[n++] = e;
		if (g->edge[e].from == start || n == g->n)
			break;
	}
	o->cycle = 0;
	if (!o->quiet)
		fprintf(stderr,
			"# cycle, each before the next, the last before the first:\n");
	while (n--) {
		if (g->edge[way[n]].from >= g->n_before_stamps)
			continue;
		o->cycle++;
		if (o->quiet)
			continue;
		for (i = n; i && g->edge[way[i]].to >= g->n_before_stamps; i--)
			begun = g->edge[way[i]].to - g->n_before_stamps;
		order_say_why(o, g, &g->edge[way[n]], begun);
	}
}

/* Finds the shortest cycle among those through what is left, or many of these. */
static inline void order_find_cycle(struct order *o, struct order_graph *g)
{
	__u32 *last = calloc(2 * (size_t)g->n, sizeof(*last));
	__u32 *best = calloc(g->n, sizeof(*best));
	__u32 i, e, length, best_e = ORDER_NONE, most = ORDER_NONE, tries = 0;

	if (!last || !best)
		abort();
	for (i = 0; i < g->n_before_stamps && tries < 200 && most > 3; i++) {
		if (!g->degree[i])
			continue;
		tries++;
		e = order_search(g, i, last, &length, most);
		if (e == ORDER_NONE)
			continue;
		most = length;
		best_e = e;
		memcpy(best, last, g->n * sizeof(*best));
	}
	if (best_e != ORDER_NONE)
		order_say_way(o, g, best, best_e);
	free(best);
	free(last);
}

static inline void order_fill_release(struct order *o, struct order_graph *g,
				      const struct order_entry *en, __u32 v)
{
	const struct order_node *node = &o->nodes[en->mortal];
	__u32 s = g->n_before_stamps;

	g->released[v - g->n_tx] = en->mortal;
	order_edge(g, v, s + en->stamp, ORDER_DONE, 0);
	if (!node->loan)
		return;
	order_edge(g, s + node->dropped, v, ORDER_DROPPED, 0);
	order_edge(g, v, s + node->ended, ORDER_DONE, 0);
}

static inline void order_fill_log(struct order *o, struct order_graph *g,
				  __u32 q, __u32 *release)
{
	__u32 i, d, v, before = ORDER_NONE;
	struct order_entry *en;

	for (i = 0; i < o->n_log[q]; i++, before = v) {
		en = &o->log[q][i];
		d = ORDER_NONE;
		if (en->kind == ORDER_DATA)
			v = en->tx;
		else if (en->kind == ORDER_DESTROY)
			v = o->nodes[en->mortal].destroyed - 1;
		else
			v = g->n_tx + (*release)++;
		if (v == ORDER_NONE) {
			order_fail(o, __LINE__, en->mortal);
			v = before;
			continue;
		}
		if (before != ORDER_NONE && before != v)
			order_edge(g, before, v, ORDER_RECEIVED, q);
		if (en->kind == ORDER_RELEASE)
			order_fill_release(o, g, en, v);
		if (en->kind != ORDER_DATA)
			continue;
		if (en->mortal != ORDER_NONE) {
			d = o->nodes[en->mortal].destroyed;
			if (en->valid && d)
				order_edge(g, v, d - 1, ORDER_CAME_VALID, q);
			if (!en->valid && d)
				order_edge(g, d - 1, v, ORDER_CAME_INVALID, q);
			ORDER_CHECK(o, en->valid || d, en->mortal);
		}
		if (en->node == ORDER_MORTAL) {
			d = o->nodes[o->tx[v].mortal].destroyed;
			if (d)
				order_edge(g, v, d - 1, ORDER_REACHED, q);
		}
	}
}

static inline void order_graph_fill(struct order *o, struct order_graph *g)
{
	__u32 s = g->n_before_stamps, i, release = 0;

	for (i = 0; i < o->stamp; i++)
		order_edge(g, s + i, s + i + 1, ORDER_BY_STAMP, 0);
	for (i = 0; i < o->n_tx; i++) {
		order_edge(g, s + o->tx[i].before, i, ORDER_BEGUN, 0);
		if (o->tx[i].done != ORDER_NEVER)
			order_edge(g, i, s + o->tx[i].done, ORDER_DONE, 0);
	}
	for (i = 0; i < order_n_nodes(o); i++)
		if (o->nodes[i].destroyed && o->nodes[i].seen != ORDER_NEVER)
			order_edge(g, o->nodes[i].destroyed - 1,
				   s + o->nodes[i].seen, ORDER_DONE, 0);
	for (i = 0; i < o->n_peers; i++)
		order_fill_log(o, g, i, &release);
}

/* Returns 0 if one total order explains the history. */
static inline __u32 order_check_graph(struct order *o)
{
	struct order_graph g = { .n_tx = o->n_tx };
	__u32 n, i, q;

	g.n_before_stamps = g.n_tx;
	for (q = 0; q < o->n_peers; q++)
		for (i = 0; i < o->n_log[q]; i++)
			g.n_before_stamps += o->log[q][i].kind == ORDER_RELEASE;
	g.n = g.n_before_stamps + o->stamp + 1;
	g.head = malloc(g.n * sizeof(*g.head));
	g.degree = calloc(g.n, sizeof(*g.degree));
	g.todo = calloc(g.n, sizeof(*g.todo));
	g.released = calloc(g.n_before_stamps + 1, sizeof(*g.released));
	if (!g.head || !g.degree || !g.todo || !g.released)
		abort();
	memset(g.head, 0xff, g.n * sizeof(*g.head));
	order_graph_fill(o, &g);
	n = order_sort(&g);
	if (n)
		order_find_cycle(o, &g);
	free(g.released);
	free(g.edge);
	free(g.todo);
	free(g.degree);
	free(g.head);
	return n;
}

/* What an entry is part of, such that equals are one transaction. */
static inline __u32 order_entry_tx(struct order *o, const struct order_entry *en)
{
	if (en->kind == ORDER_DATA)
		return en->tx;
	if (en->kind == ORDER_DESTROY && o->nodes[en->mortal].destroyed)
		return o->nodes[en->mortal].destroyed - 1;
	return ORDER_NONE;
}

static inline __u32 order_owner(struct order *o, __u32 e)
{
	return e == ORDER_NONE ? ORDER_NONE : e / o->n_mortals;
}

/* Entries are in one piece, and CONTINUE says where it ends. */
static inline void order_check_pieces(struct order *o, __u32 q)
{
	bool *seen = calloc(o->n_tx + 1, sizeof(*seen)), same;
	__u32 i, t, next, before = ORDER_NONE;
	struct order_entry *en;

	if (!seen)
		abort();
	for (i = 0; i < o->n_log[q]; i++, before = t) {
		en = &o->log[q][i];
		t = order_entry_tx(o, en);
		next = i + 1 < o->n_log[q] ? order_entry_tx(o, en + 1) :
					     ORDER_NONE;
		if (t == ORDER_NONE) {
			ORDER_CHECK(o, !en->cont, i);
			continue;
		}
		same = next == t;
		ORDER_CHECK(o, !same || en->cont, t);
		/* What is to the receiver's own node may be gone by then. */
		ORDER_CHECK(o, !en->cont || same ||
			    order_owner(o, o->tx[t].mortal) == q, t);
		ORDER_CHECK(o, !seen[t] || before == t, t);
		seen[t] = true;
	}
	free(seen);
}

/* Everything that was sent is there once, and nothing else. */
static inline void order_check_messages(struct order *o, __u32 q)
{
	__u8 *seen = calloc(o->n_tx + 1, sizeof(*seen));
	const __u8 all = (1U << ORDER_BASE) - 1;
	struct order_node *node;
	struct order_entry *en;
	struct order_tx *tx;
	__u32 i, want;
	__u64 begun;

	if (!seen)
		abort();
	for (i = 0; i < o->n_log[q]; i++) {
		en = &o->log[q][i];
		if (en->kind != ORDER_DATA)
			continue;
		ORDER_CHECK(o, !(seen[en->tx] & 1U << en->node), en->tx);
		seen[en->tx] |= 1U << en->node;
		ORDER_CHECK(o, o->tx[en->tx].sent, en->tx);
	}
	for (i = 0; i < o->n_tx; i++) {
		tx = &o->tx[i];
		want = tx->sent ? tx->mask >> (q * ORDER_BASE) & all : 0;
		ORDER_CHECK(o, (seen[i] & all) == want, i);
		if (order_owner(o, tx->mortal) != q) {
			ORDER_CHECK(o, !(seen[i] & 1U << ORDER_MORTAL), i);
			continue;
		}
		/* There, or dropped since it was destroyed meanwhile. */
		node = &o->nodes[tx->mortal];
		if (!tx->sent || seen[i] & 1U << ORDER_MORTAL)
			continue;
		ORDER_CHECK(o, node->destroyed, i);
		if (!node->told || !node->destroyed)
			continue;
		begun = o->tx[node->destroyed - 1].before;
		ORDER_CHECK(o, tx->done > begun, i);
	}
	free(seen);
}

/* Nobody is told twice, and of nothing that has not happened. */
static inline void order_check_notifications(struct order *o, __u32 q)
{
	__u32 *destroyed = calloc(order_n_nodes(o) + 1, sizeof(*destroyed));
	__u32 *released = calloc(order_n_nodes(o) + 1, sizeof(*released));
	struct order_entry *en;
	struct order_node *n;
	__u32 i;

	if (!destroyed || !released)
		abort();
	for (i = 0; i < o->n_log[q]; i++) {
		en = &o->log[q][i];
		if (en->kind == ORDER_DESTROY) {
			ORDER_CHECK(o, !destroyed[en->mortal]++, en->mortal);
			ORDER_CHECK(o, o->nodes[en->mortal].destroyed,
				    en->mortal);
		} else if (en->kind == ORDER_RELEASE) {
			released[en->mortal]++;
			ORDER_CHECK(o, order_owner(o, en->mortal) == q,
				    en->mortal);
			ORDER_CHECK(o, !destroyed[en->mortal], en->mortal);
		}
	}
	for (i = 0; i < order_n_nodes(o); i++) {
		n = &o->nodes[i];
		if (!n->made || order_owner(o, i) != q)
			continue;
		if (n->loan)
			ORDER_CHECK(o, released[i] == 1, i);
		if (n->destroyed)
			ORDER_CHECK(o, destroyed[i] == n->told, i);
	}
	free(released);
	free(destroyed);
}

/* Nobody can send to what was seen to be destroyed before. */
static inline void order_check_sends(struct order *o)
{
	struct order_tx *tx;
	__u64 seen;
	__u32 i, d;

	for (i = 0; i < o->n_tx; i++) {
		tx = &o->tx[i];
		if (!tx->sent || tx->mortal == ORDER_NONE)
			continue;
		d = o->nodes[tx->mortal].destroyed;
		if (!d)
			continue;
		seen = o->tx[d - 1].done;
		if (o->nodes[tx->mortal].seen < seen)
			seen = o->nodes[tx->mortal].seen;
		ORDER_CHECK(o, seen > tx->before, i);
	}
}

/* Everything, when nobody runs any more. Returns whether nothing was found. */
static inline bool order_check(struct order *o)
{
	__u32 q, n;

	for (q = 0; q < o->n_peers; q++) {
		order_check_pieces(o, q);
		order_check_messages(o, q);
		order_check_notifications(o, q);
	}
	order_check_sends(o);
	n = order_check_graph(o);
	if (o->error && !o->quiet)
		fprintf(stderr, "# bus1_order.h or the test, line %d: value %lld\n",
			o->error, o->error_value);
	return !n && !o->error;
}

#define ORDER_EXPECT(_o) EXPECT_TRUE(order_check(_o))

static inline void order_report(struct order *o)
{
	printf("# order: %llu transactions and %llu messages checked\n",
	       (unsigned long long)o->checked_tx,
	       (unsigned long long)o->checked_log);
	fflush(stdout);
}

/*
 * Sending and receiving with a log
 */

static inline void order_pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	/* Where there is no such CPU, anywhere is fine. */
	sched_setaffinity(0, sizeof(set), &set);
}

/* Burns a random time, up to @max rounds. */
static inline void order_spin(__u64 *seed, __u32 max)
{
	volatile __u32 spin;

	for (spin = next_random(seed) % max; spin; spin--)
		;
}

/* Sends to @dests, which are the nodes in @mask, and maybe some that do not count. */
static inline int order_send(struct order *o, int fd, const __u64 *dests,
			     size_t n, __u32 mask)
{
	struct order_payload payload = { .carried = ORDER_NONE };
	int r;

	payload.tx = order_begin(o, mask, ORDER_NONE);
	r = bus1_send_to(fd, dests, n, &payload, sizeof(payload), NULL, 0);
	order_end(o, payload.tx, r);
	ORDER_CHECK(o, !r, r);
	return r;
}

#endif /* __BUS1_ORDER_H */
