// SPDX-License-Identifier: GPL-2.0-only
/*
 * Random graphs, against a model
 *
 * The model counts references and foretells what each peer is told, and in which
 * order, out of what has happened so far. It has one clock: the number of what was
 * done. What belongs to one number may come in any order.
 */

#include <kunit/test.h>
#include <linux/minmax.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <uapi/linux/bus1.h>
#include "../util/tests/kunit.h"
#include "graph.h"

#define N_PEERS		4
#define N_NODES		BUS1_GRAPH_NODES
#define N_EVENTS	256
#define N_CARGOS	64
#define N_STEPS		1200
/* In one thread there is nothing for KCSAN to find, and it makes that very slow. */
#define N_SEEDS		(IS_ENABLED(CONFIG_KCSAN) ? 2 : 6)

/**
 * struct model_node - a node
 * @exists: the number is in use
 * @death: when it was destroyed, or 0
 * @owner: its owner
 * @refs: user references of each peer
 * @notified: the handle of a peer has had its notification
 * @counted: the last count of what NODE_RELEASE is about
 */
struct model_node {
	bool exists;
	unsigned int death;
	unsigned int owner;
	unsigned int refs[N_PEERS];
	bool notified[N_PEERS];
	unsigned int counted;
};

/**
 * struct model_cargo - what the messages of a transaction carry
 * @n_messages: number of messages that carry it
 * @n: number of nodes
 * @nodes: their numbers
 */
struct model_cargo {
	unsigned int n_messages;
	unsigned int n;
	unsigned int nodes[BUS1_GRAPH_CARGO];
};

/**
 * struct model_event - what a peer is going to be told
 * @type: &enum bus1_msg_type, BUS1_MSG_NONE if not in use
 * @peer: who
 * @node: of which node
 * @when: when it has happened
 * @cargo: what comes with it, or NULL
 */
struct model_event {
	u64 type;
	unsigned int peer;
	unsigned int node;
	unsigned int when;
	struct model_cargo *cargo;
};

struct model {
	struct kunit *test;
	struct rnd_state rnd;
	struct bus1_graph *graph;
	unsigned int now;
	struct model_node nodes[N_NODES];
	struct model_cargo cargos[N_CARGOS];
	struct model_event events[N_EVENTS];
	unsigned int n_told[4];
	unsigned int n_dead_handles;
	unsigned int n_taken_back;
};

static void model_event_add(struct model *model, u64 type, unsigned int peer,
			    unsigned int node, unsigned int when,
			    struct model_cargo *cargo)
{
	struct model_event *event;
	unsigned int i;

	for (i = 0; i < N_EVENTS; ++i) {
		event = &model->events[i];
		if (event->type != BUS1_MSG_NONE)
			continue;
		*event = (struct model_event){ type, peer, node, when, cargo };
		if (cargo)
			++cargo->n_messages;
		return;
	}
	KUNIT_FAIL(model->test, "too many events");
}

static void model_event_remove(struct model_event *event)
{
	if (event->cargo)
		--event->cargo->n_messages;
	*event = (struct model_event){};
}

static struct model_event *model_event_find(struct model *model, u64 type,
					    unsigned int peer,
					    unsigned int node)
{
	struct model_event *event;
	unsigned int i;

	for (i = 0; i < N_EVENTS; ++i) {
		event = &model->events[i];
		if (event->type == type && event->peer == peer &&
		    event->node == node)
			return event;
	}
	return NULL;
}

/* A peer drops some references, or all that it has. */
static void model_drop(struct model *model, unsigned int peer,
		       unsigned int node, unsigned int n)
{
	struct model_node *m = &model->nodes[node];
	struct model_event *event;

	m->refs[peer] -= n;
	if (m->refs[peer])
		return;
	/* The handle is gone, with the notification */
	m->notified[peer] = false;
	event = model_event_find(model, BUS1_MSG_NODE_DESTROY, peer, node);
	if (event)
		model_event_remove(event);
	if (peer != m->owner)
		return;
	/* Nobody can tell the owner of messages to it, nor of its release */
	while ((event = model_event_find(model, BUS1_MSG_DATA, peer, node)))
		model_event_remove(event);
	event = model_event_find(model, BUS1_MSG_NODE_RELEASE, peer, node);
	if (event)
		model_event_remove(event);
}

static unsigned int model_count(struct model *model, unsigned int node)
{
	struct model_node *m = &model->nodes[node];
	unsigned int i, j, count = 0;

	for (i = 0; i < N_PEERS; ++i)
		count += m->refs[i] > (i == m->owner);
	for (i = 0; i < N_CARGOS; ++i) {
		if (!model->cargos[i].n_messages)
			continue;
		for (j = 0; j < model->cargos[i].n; ++j)
			count += model->cargos[i].nodes[j] == node;
	}
	return count;
}

/* After each step: which nodes have nobody left, and which have again? */
static void model_update(struct model *model)
{
	struct model_event *event;
	struct model_node *m;
	unsigned int i, j, count, known;

	for (i = 0; i < N_NODES; ++i) {
		m = &model->nodes[i];
		if (!m->exists)
			continue;
		count = model_count(model, i);
		event = model_event_find(model, BUS1_MSG_NODE_RELEASE, m->owner,
					 i);
		if (count && event) {
			model_event_remove(event);
			++model->n_taken_back;
		}
		if (!count && m->counted && !m->death)
			model_event_add(model, BUS1_MSG_NODE_RELEASE, m->owner,
					i, model->now, NULL);
		m->counted = count;

		/* The number of a node that nobody knows is free again */
		for (known = 0, j = 0; j < N_PEERS; ++j)
			known += m->refs[j];
		if (!known && !count) {
			m->exists = false;
			bus1_graph_forget(model->graph, i);
		}
	}
}

static void check_model(struct model *model)
{
	struct kunit *test = model->test;
	unsigned int i, j;

	for (i = 0; i < N_NODES; ++i) {
		if (!model->nodes[i].exists)
			continue;
		KUNIT_EXPECT_EQ(test, bus1_graph_refs(model->graph, i),
				(long)model->nodes[i].counted);
		for (j = 0; j < N_PEERS; ++j)
			KUNIT_EXPECT_EQ(test,
					bus1_graph_user_refs(model->graph, j,
							     i),
					(u64)model->nodes[i].refs[j]);
	}
}

/* A random node that a peer knows, or -1. */
static int pick_known(struct model *model, unsigned int peer)
{
	unsigned int i, n, first = bus1_rnd(&model->rnd, N_NODES);

	for (i = 0; i < N_NODES; ++i) {
		n = (first + i) % N_NODES;
		if (model->nodes[n].exists && model->nodes[n].refs[peer])
			return n;
	}
	return -1;
}

static void step_create(struct model *model, unsigned int peer)
{
	struct model_node *m;
	unsigned int i;

	for (i = 0; i < N_NODES && model->nodes[i].exists; ++i)
		;
	if (i == N_NODES)
		return;
	m = &model->nodes[i];
	*m = (struct model_node){ .exists = true, .owner = peer };
	m->refs[peer] = 1;
	bus1_graph_create(model->graph, peer, i);
}

static void step_give(struct model *model, unsigned int peer)
{
	unsigned int to = bus1_rnd(&model->rnd, N_PEERS);
	int node = pick_known(model, peer);
	bool given;

	if (node < 0)
		return;
	given = bus1_graph_give(model->graph, peer, node, to);
	KUNIT_EXPECT_EQ(model->test, given, !model->nodes[node].death);
	if (given)
		++model->nodes[node].refs[to];
}

static void step_release(struct model *model, unsigned int peer)
{
	int r, node = pick_known(model, peer);
	struct model_node *m;
	bool pinned;

	if (node < 0)
		return;
	m = &model->nodes[node];
	pinned = m->owner == peer && m->refs[peer] == 1 && !m->death;
	r = bus1_graph_release(model->graph, peer, node);
	KUNIT_EXPECT_EQ(model->test, r, pinned ? -EBUSY : 0);
	if (!pinned)
		model_drop(model, peer, node, 1);
}

/* Holders are told; the owner, too, unless that was its last reference. */
static void model_destroy(struct model *model, unsigned int node)
{
	struct model_node *m = &model->nodes[node];
	unsigned int i;

	m->death = model->now;
	for (i = 0; i < N_PEERS; ++i) {
		if (!m->refs[i])
			continue;
		m->notified[i] = true;
		model_event_add(model, BUS1_MSG_NODE_DESTROY, i, node,
				model->now, NULL);
	}
}

static void step_destroy(struct model *model, unsigned int peer)
{
	unsigned int nodes[2], n = 0, i, n_max = 1 + bus1_rnd(&model->rnd, 2);
	bool quietly = bus1_rnd(&model->rnd, 2);
	int node, r, expected = 0;

	while (n < n_max) {
		node = pick_known(model, peer);
		if (node < 0 || (n && node == nodes[0]))
			return;
		nodes[n++] = node;
	}
	for (i = 0; i < n && !expected; ++i) {
		if (model->nodes[nodes[i]].owner != peer)
			expected = -EREMOTE;
	}
	for (i = 0; i < n && !expected; ++i) {
		if (model->nodes[nodes[i]].death)
			expected = -ESTALE;
	}
	r = bus1_graph_destroy(model->graph, peer, nodes, n, quietly);
	KUNIT_EXPECT_EQ(model->test, r, expected);
	for (i = 0; i < n && !expected; ++i) {
		model_destroy(model, nodes[i]);
		if (quietly)
			model_drop(model, peer, nodes[i], 1);
	}
}

static struct model_cargo *model_cargo_new(struct model *model)
{
	unsigned int i;

	for (i = 0; i < N_CARGOS; ++i) {
		if (!model->cargos[i].n_messages)
			return &model->cargos[i];
	}
	return NULL;
}

static void step_send(struct model *model, unsigned int peer)
{
	struct model_cargo *cargo = model_cargo_new(model);
	unsigned int dests[2], n_dests, i, n = 0;
	int node, r, expected = 0;

	if (!cargo)
		return;
	cargo->n = bus1_rnd(&model->rnd, BUS1_GRAPH_CARGO);
	for (i = 0; i < cargo->n; ++i) {
		node = pick_known(model, peer);
		if (node < 0)
			return;
		cargo->nodes[i] = node;
	}
	n_dests = 1 + bus1_rnd(&model->rnd, 2);
	while (n < n_dests) {
		node = pick_known(model, peer);
		if (node < 0 || (n && node == dests[0]))
			return;
		if (model->nodes[node].death)
			expected = -EHOSTUNREACH;
		dests[n++] = node;
	}
	r = bus1_graph_send(model->graph, peer, dests, n, cargo->nodes,
			    cargo->n);
	KUNIT_EXPECT_EQ(model->test, r, expected);
	for (i = 0; i < n && !expected; ++i)
		model_event_add(model, BUS1_MSG_DATA,
				model->nodes[dests[i]].owner, dests[i],
				model->now, cargo);
}

/* What a message carries becomes handles; those of the dead ones do not. */
static void model_import(struct model *model, unsigned int peer,
			 const struct model_event *event,
			 const struct bus1_graph_event *told)
{
	struct kunit *test = model->test;
	struct model_node *m;
	unsigned int i, node;

	KUNIT_EXPECT_EQ(test, told->n_carried, event->cargo->n);
	for (i = 0; i < event->cargo->n; ++i) {
		node = event->cargo->nodes[i];
		m = &model->nodes[node];
		if (m->death && m->death < event->when) {
			KUNIT_EXPECT_EQ(test, told->carried[i], -1);
			++model->n_dead_handles;
			continue;
		}
		KUNIT_EXPECT_EQ(test, told->carried[i], (int)node);
		++m->refs[peer];
		if (!m->death || m->notified[peer])
			continue;
		/* It has joined the holders late, and is still told */
		m->notified[peer] = true;
		model_event_add(model, BUS1_MSG_NODE_DESTROY, peer, node,
				m->death, NULL);
	}
}

/* One of those that are due: nothing that is to come has happened before it. */
static struct model_event *model_due(struct model *model, unsigned int peer,
				     const struct bus1_graph_event *told)
{
	struct model_event *event, *due = NULL;
	unsigned int i, first = U32_MAX;

	for (i = 0; i < N_EVENTS; ++i) {
		event = &model->events[i];
		if (event->type == BUS1_MSG_NONE || event->peer != peer)
			continue;
		first = min(first, event->when);
		if (event->type == told->type && event->node == told->node &&
		    (!due || event->when < due->when))
			due = event;
	}
	if (told->type == BUS1_MSG_NONE)
		KUNIT_EXPECT_EQ_MSG(model->test, first, U32_MAX,
				    "peer %u was told nothing", peer);
	else
		KUNIT_EXPECT_TRUE_MSG(model->test, due && due->when == first,
				      "peer %u was told type %llu of %u",
				      peer, told->type, told->node);
	return due && due->when == first ? due : NULL;
}

static bool step_receive_one(struct model *model, unsigned int peer, bool abort)
{
	struct bus1_graph_event told;
	struct model_event *event, copy;

	told = bus1_graph_receive(model->graph, peer, abort);
	event = model_due(model, peer, &told);
	if (!event)
		return false;
	if (abort)
		return true;
	++model->n_told[told.type];
	/* The handles are counted before the cargo goes */
	copy = *event;
	if (event->cargo)
		model_import(model, peer, &copy, &told);
	model_event_remove(event);
	return true;
}

static void step_receive(struct model *model, unsigned int peer)
{
	step_receive_one(model, peer, bus1_rnd(&model->rnd, 4) == 0);
}

/* First its nodes, then what it held of others; what was sent to it is lost. */
static void step_flush(struct model *model, unsigned int peer)
{
	struct model_event *event;
	unsigned int i;

	if (bus1_rnd(&model->rnd, 4))
		return;
	bus1_graph_flush(model->graph, peer);
	for (i = 0; i < N_NODES; ++i) {
		if (model->nodes[i].exists && model->nodes[i].owner == peer &&
		    !model->nodes[i].death)
			model_destroy(model, i);
	}
	for (i = 0; i < N_NODES; ++i) {
		if (model->nodes[i].exists && model->nodes[i].refs[peer])
			model_drop(model, peer, i, model->nodes[i].refs[peer]);
	}
	for (i = 0; i < N_EVENTS; ++i) {
		event = &model->events[i];
		if (event->type != BUS1_MSG_NONE && event->peer == peer)
			model_event_remove(event);
	}
	/* That there is nobody left is found out after the destruction */
	++model->now;
}

static const struct {
	void (*step)(struct model *model, unsigned int peer);
	unsigned int weight;
} steps[] = {
	{ step_create,		 6 },
	{ step_give,		16 },
	{ step_release,		18 },
	{ step_destroy,		 6 },
	{ step_send,		18 },
	{ step_receive,		30 },
	{ step_flush,		 2 },
};

static void model_step(struct model *model)
{
	unsigned int i, sum = 0, at;

	for (i = 0; i < ARRAY_SIZE(steps); ++i)
		sum += steps[i].weight;
	at = bus1_rnd(&model->rnd, sum);
	for (i = 0; at >= steps[i].weight; ++i)
		at -= steps[i].weight;
	++model->now;
	steps[i].step(model, bus1_rnd(&model->rnd, N_PEERS));
	model_update(model);
}

static void bus1_handle_model_test(struct kunit *test)
{
	struct model *model = kunit_kzalloc(test, sizeof(*model), GFP_KERNEL);
	unsigned int step, i, n_releases = 0, n_taken_back = 0;
	u64 seed;

	KUNIT_ASSERT_NOT_NULL(test, model);
	for (seed = 1; seed <= N_SEEDS; ++seed) {
		memset(model, 0, sizeof(*model));
		model->test = test;
		model->graph = bus1_graph_new(test, N_PEERS);
		bus1_rnd_init(&model->rnd, seed);
		for (step = 0; step < N_STEPS; ++step) {
			model_step(model);
			if (step % 10 == 0)
				check_model(model);
			if (bus1_kunit_failed(test))
				break;
		}
		/* In half of the runs, nobody wants to know the end */
		for (i = 0; seed % 2 && i < N_PEERS; ++i) {
			while (!bus1_kunit_failed(test) &&
			       step_receive_one(model, i, false))
				model_update(model);
		}
		if (!bus1_kunit_failed(test))
			check_model(model);
		if (bus1_kunit_failed(test))
			kunit_err(test, "seed %llu, step %u", seed, step);
		bus1_graph_end(model->graph);
		if (bus1_kunit_failed(test))
			return;
		kunit_info(test, "seed %llu: %u messages, %u destructions, %u releases, %u taken back, %u dead handles",
			   seed, model->n_told[BUS1_MSG_DATA],
			   model->n_told[BUS1_MSG_NODE_DESTROY],
			   model->n_told[BUS1_MSG_NODE_RELEASE],
			   model->n_taken_back, model->n_dead_handles);
		KUNIT_EXPECT_GT(test, model->n_told[BUS1_MSG_DATA], 0);
		KUNIT_EXPECT_GT(test, model->n_told[BUS1_MSG_NODE_DESTROY], 0);
		n_releases += model->n_told[BUS1_MSG_NODE_RELEASE];
		n_taken_back += model->n_taken_back;
	}
	KUNIT_EXPECT_GT(test, n_releases, 0);
	KUNIT_EXPECT_GT(test, n_taken_back, 0);
}

static struct kunit_case bus1_handle_model_cases[] = {
	KUNIT_CASE_SLOW(bus1_handle_model_test),
	{}
};

static struct kunit_suite bus1_handle_model_suite = {
	.name = "bus1_handle_model",
	.test_cases = bus1_handle_model_cases,
};

kunit_test_suite(bus1_handle_model_suite);
