// SPDX-License-Identifier: GPL-2.0-only

#include <kunit/test.h>
#include <linux/err.h>
#include <linux/kref.h>
#include <linux/limits.h>
#include <linux/string.h>
#include <linux/uidgid.h>
#include <linux/uio.h>
#include <uapi/linux/bus1.h>
#include "../destroy.h"
#include "../handle.h"
#include "../message.h"
#include "../node.h"
#include "../peer.h"
#include "../recv.h"
#include "../send.h"
#include "graph.h"

/* Users that nobody else is. */
#define FIRST_UID	0xfffc0000U

/**
 * bus1_graph_new() - make peers that know nothing
 * @test: the test
 * @n_peers: number of peers
 *
 * Context: Process context, may sleep.
 * Return: The graph, to be ended by bus1_graph_end().
 */
struct bus1_graph *bus1_graph_new(struct kunit *test, unsigned int n_peers)
{
	struct bus1_graph *graph;
	struct bus1_peer *peer;

	graph = kunit_kzalloc(test, sizeof(*graph), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, graph);
	graph->test = test;
	memset(graph->ids, 0xff, sizeof(graph->ids));
	while (graph->n_peers < n_peers) {
		peer = bus1_peer_new(KUIDT_INIT(FIRST_UID + graph->n_peers));
		if (IS_ERR(peer)) {
			bus1_graph_end(graph);
			KUNIT_FAIL_AND_ABORT(test, "no peer");
		}
		graph->peers[graph->n_peers++] = peer;
	}
	return graph;
}

/**
 * bus1_graph_end() - all peers leave
 * @graph: the graph
 *
 * Whatever the handles and messages are, once all have left, nothing but this
 * refers to any peer or node.
 *
 * Context: Process context, may sleep.
 */
void bus1_graph_end(struct bus1_graph *graph)
{
	struct kunit *test = graph->test;
	unsigned int i;

	for (i = 0; i < graph->n_peers; ++i) {
		if (!bus1_peer_is_disconnected(graph->peers[i]))
			bus1_graph_leave(graph, i);
	}
	for (i = 0; i < BUS1_GRAPH_NODES; ++i) {
		if (!graph->nodes[i])
			continue;
		KUNIT_EXPECT_EQ_MSG(test, kref_read(&graph->nodes[i]->ref), 1,
				    "references to node %u", i);
		bus1_graph_forget(graph, i);
	}
	for (i = 0; i < graph->n_peers; ++i) {
		KUNIT_EXPECT_EQ_MSG(test, kref_read(&graph->peers[i]->ref), 1,
				    "references to peer %u", i);
		bus1_peer_unref(graph->peers[i]);
	}
	graph->n_peers = 0;
}

/**
 * bus1_graph_create() - make a node
 * @graph: the graph
 * @peer: number of the peer that owns it
 * @node: number that it gets, not in use; its ID is never used again
 *
 * Context: Process context, may sleep.
 */
void bus1_graph_create(struct bus1_graph *graph, unsigned int peer,
		       unsigned int node)
{
	struct kunit *test = graph->test;
	struct bus1_handle *handle;
	static u64 n_ids;
	u64 id = ++n_ids << 3;
	int r;

	r = bus1_handle_pin(graph->peers[peer], id, BUS1_PIN_CREATE, &handle);
	KUNIT_EXPECT_EQ(test, r, 0);
	if (r)
		return;
	bus1_handle_commit_new(handle);
	graph->nodes[node] = bus1_node_ref(handle->node);
	graph->owners[node] = peer;
	graph->ids[peer][node] = id;
	bus1_handle_unpin(handle);
}

/**
 * bus1_graph_forget() - free the number of a node
 * @graph: the graph
 * @node: number of a node that nobody knows any more
 *
 * Context: Process context, may sleep.
 */
void bus1_graph_forget(struct bus1_graph *graph, unsigned int node)
{
	unsigned int i;

	bus1_node_unref(graph->nodes[node]);
	graph->nodes[node] = NULL;
	for (i = 0; i < BUS1_GRAPH_PEERS; ++i)
		graph->ids[i][node] = BUS1_HANDLE_INVALID;
}

/*
 * A peer was shown a handle. The ID of a node that it knew is the one that it
 * had, and that of another one is new.
 */
static void bus1_graph_know(struct bus1_graph *graph, unsigned int peer,
			    unsigned int node, u64 id)
{
	struct kunit *test = graph->test;
	u64 *known = &graph->ids[peer][node];

	if (*known != BUS1_HANDLE_INVALID) {
		KUNIT_EXPECT_EQ(test, id, *known);
		return;
	}
	KUNIT_EXPECT_TRUE(test, id & BUS1_HANDLE_FLAG_MANAGED);
	KUNIT_EXPECT_EQ(test, !!(id & BUS1_HANDLE_FLAG_REMOTE),
			graph->owners[node] != peer);
	KUNIT_EXPECT_GT(test, id, graph->last_ids[peer]);
	graph->last_ids[peer] = id;
	*known = id;
}

/* An ID that stands for nothing any more is forgotten. */
static void bus1_graph_check_known(struct bus1_graph *graph, unsigned int peer,
				   unsigned int node)
{
	if (!bus1_graph_user_refs(graph, peer, node))
		graph->ids[peer][node] = BUS1_HANDLE_INVALID;
}

/**
 * bus1_graph_give() - pass a handle on, at once
 * @graph: the graph
 * @from: number of the peer that has it
 * @node: number of the node
 * @to: number of the peer that gets it
 *
 * Context: Process context, may sleep.
 * Return: True if it got it, false if the node is destroyed.
 */
bool bus1_graph_give(struct bus1_graph *graph, unsigned int from,
		     unsigned int node, unsigned int to)
{
	struct kunit *test = graph->test;
	struct bus1_handle *src, *dst;
	bool given;
	int r;

	r = bus1_peer_transfer(graph->peers[from], graph->ids[from][node],
			       graph->peers[to], &src, &dst);
	KUNIT_EXPECT_EQ(test, r, 0);
	if (r)
		return false;
	given = dst && bus1_handle_import_join(dst);
	if (given) {
		KUNIT_EXPECT_PTR_EQ(test, dst->node, graph->nodes[node]);
		bus1_graph_know(graph, to, node, dst->id);
	}
	bus1_peer_transfer_done(src, given ? dst : NULL, true);
	return given;
}

/**
 * bus1_graph_release() - drop a user reference
 * @graph: the graph
 * @peer: number of the peer that has it
 * @node: number of the node
 *
 * Context: Process context, may sleep.
 * Return: What bus1_handle_release() says.
 */
int bus1_graph_release(struct bus1_graph *graph, unsigned int peer,
		       unsigned int node)
{
	int r;

	r = bus1_handle_release(graph->peers[peer], graph->ids[peer][node]);
	bus1_graph_check_known(graph, peer, node);
	return r;
}

/**
 * bus1_graph_destroy() - destroy nodes, as one transaction
 * @graph: the graph
 * @peer: number of the peer that owns them
 * @nodes: their numbers
 * @n: number of nodes, at most %BUS1_GRAPH_CARGO
 * @release: drop a user reference of each as well
 *
 * Context: Process context, may sleep.
 * Return: What bus1_nodes_destroy() says.
 */
int bus1_graph_destroy(struct bus1_graph *graph, unsigned int peer,
		       const unsigned int *nodes, unsigned int n, bool release)
{
	u64 ids[BUS1_GRAPH_CARGO];
	unsigned int i;
	int r;

	for (i = 0; i < n; ++i)
		ids[i] = graph->ids[peer][nodes[i]];
	r = bus1_nodes_destroy(graph->peers[peer], ids, n, release);
	for (i = 0; i < n; ++i)
		bus1_graph_check_known(graph, peer, nodes[i]);
	return r;
}

/**
 * bus1_graph_send() - send a message
 * @graph: the graph
 * @from: number of the sender
 * @dests: numbers of the nodes that it is for
 * @n_dests: number of these, at most %BUS1_GRAPH_CARGO
 * @carried: numbers of the nodes that it carries
 * @n_carried: number of these, at most %BUS1_GRAPH_CARGO
 *
 * Context: Process context, may sleep.
 * Return: 0, or the first errno there is.
 */
int bus1_graph_send(struct bus1_graph *graph, unsigned int from,
		    const unsigned int *dests, unsigned int n_dests,
		    const unsigned int *carried, unsigned int n_carried)
{
	u64 to[BUS1_GRAPH_CARGO], with[BUS1_GRAPH_CARGO];
	struct bus1_send_params params = {
		.dests = to,
		.n_dests = n_dests,
		.handles = with,
		.n_handles = n_carried,
		.n_bytes = 5,
	};
	struct kvec vec = { .iov_base = "hello", .iov_len = 5 };
	struct bus1_send send;
	struct iov_iter iter;
	unsigned int i;
	int r;

	for (i = 0; i < n_dests; ++i)
		to[i] = graph->ids[from][dests[i]];
	for (i = 0; i < n_carried; ++i)
		with[i] = graph->ids[from][carried[i]];
	iov_iter_kvec(&iter, ITER_SOURCE, &vec, 1, 5);

	r = bus1_send_prepare(&send, graph->peers[from], &params);
	if (r >= 0)
		r = bus1_send_verdict(&send);
	if (r >= 0)
		r = bus1_send_copy(&send, &iter);
	if (r >= 0)
		r = bus1_send_commit(&send);
	bus1_send_deinit(&send);
	return r;
}

static void bus1_graph_forget_all(struct bus1_graph *graph, unsigned int peer)
{
	unsigned int i;

	for (i = 0; i < BUS1_GRAPH_NODES; ++i)
		bus1_graph_check_known(graph, peer, i);
}

/**
 * bus1_graph_flush() - a peer gives up all it has
 * @graph: the graph
 * @peer: number of the peer
 *
 * Context: Process context, may sleep.
 */
void bus1_graph_flush(struct bus1_graph *graph, unsigned int peer)
{
	struct bus1_cost limits;

	memset(&limits, 0xff, sizeof(limits));
	KUNIT_EXPECT_EQ(graph->test, bus1_peer_reset(graph->peers[peer],
						     &limits, true, true), 0);
	bus1_graph_forget_all(graph, peer);
}

/**
 * bus1_graph_leave() - a peer disconnects
 * @graph: the graph
 * @peer: number of the peer
 *
 * Context: Process context, may sleep.
 */
void bus1_graph_leave(struct bus1_graph *graph, unsigned int peer)
{
	KUNIT_EXPECT_EQ(graph->test,
			bus1_peer_disconnect(graph->peers[peer]), 0);
	bus1_graph_forget_all(graph, peer);
}

/* Which node a peer knows by an ID: -1 if none. */
static int bus1_graph_find_id(struct bus1_graph *graph, unsigned int peer,
			      u64 id)
{
	int i;

	for (i = 0; i < BUS1_GRAPH_NODES; ++i) {
		if (graph->nodes[i] && graph->ids[peer][i] == id)
			return i;
	}
	return -1;
}

static int bus1_graph_find_node(struct bus1_graph *graph,
				const struct bus1_node *node)
{
	int i;

	for (i = 0; i < BUS1_GRAPH_NODES; ++i) {
		if (graph->nodes[i] == node)
			return i;
	}
	return -1;
}

/**
 * bus1_graph_receive() - receive what comes next
 * @graph: the graph
 * @peer: number of the receiver
 * @abort: look at it only, and put it back
 *
 * A slice is released at once.
 *
 * Context: Process context, may sleep.
 * Return: What it was.
 */
struct bus1_graph_event bus1_graph_receive(struct bus1_graph *graph,
					   unsigned int peer, bool abort)
{
	struct bus1_graph_event event = {};
	struct bus1_peer *p = graph->peers[peer];
	struct kunit *test = graph->test;
	struct bus1_recv recv = { .peer = p };
	struct bus1_handle *handle;
	struct bus1_msg msg;
	unsigned int i;
	int r, node;

	r = bus1_recv_prepare(&recv, U64_MAX, false, false);
	if (r == -EAGAIN)
		return event;
	KUNIT_EXPECT_EQ(test, r, 0);
	if (r)
		return event;

	bus1_recv_describe(&recv, &msg);
	event.type = msg.type;
	node = bus1_graph_find_id(graph, peer, msg.destination);
	KUNIT_EXPECT_GE_MSG(test, node, 0, "of %llx, which is none",
			    msg.destination);
	event.node = node;
	event.n_carried = min_t(u64, msg.n_handles, BUS1_GRAPH_CARGO);
	for (i = 0; i < event.n_carried; ++i) {
		handle = recv.handles[i];
		event.carried[i] = -1;
		if (!handle)
			continue;
		node = bus1_graph_find_node(graph, handle->node);
		KUNIT_EXPECT_GE_MSG(test, node, 0, "carries what is no node");
		event.carried[i] = node;
		if (node >= 0 && !abort)
			bus1_graph_know(graph, peer, node, handle->id);
	}

	if (abort) {
		bus1_recv_abort(&recv);
		return event;
	}
	KUNIT_EXPECT_EQ(test, bus1_recv_commit(&recv), 0);
	if (msg.offset != BUS1_OFFSET_INVALID)
		KUNIT_EXPECT_EQ(test, bus1_message_release(p, msg.offset), 0);
	return event;
}

/**
 * bus1_graph_user_refs() - count the user references of a peer
 * @graph: the graph
 * @peer: number of the peer
 * @node: number of the node
 *
 * Context: Process context, may sleep.
 * Return: Number of references; 0 if the ID is unknown.
 */
u64 bus1_graph_user_refs(struct bus1_graph *graph, unsigned int peer,
			 unsigned int node)
{
	u64 refs, id = graph->ids[peer][node];
	struct bus1_handle *handle;

	if (id == BUS1_HANDLE_INVALID ||
	    bus1_handle_pin(graph->peers[peer], id, 0, &handle))
		return 0;
	refs = handle->user_refs;
	bus1_handle_unpin(handle);
	return refs;
}

/**
 * bus1_graph_refs() - count what NODE_RELEASE is about
 * @graph: the graph
 * @node: number of the node
 *
 * Context: Process context.
 * Return: Number of references.
 */
long bus1_graph_refs(struct bus1_graph *graph, unsigned int node)
{
	return atomic_long_read(&graph->nodes[node]->refs);
}
