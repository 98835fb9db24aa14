/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_TESTS_GRAPH_H
#define __BUS1_TESTS_GRAPH_H

/**
 * DOC: Graphs of peers, for tests
 *
 * Peers as they are behind a file, but without one. In a graph, peers and nodes
 * have numbers. Each peer remembers under which ID it knows which node.
 *
 * A node that is shown to a peer under an ID which was another one's, or under a
 * second one, fails the test: see bus1_graph_know().
 */

#include <kunit/test.h>
#include <linux/types.h>

#define BUS1_GRAPH_PEERS	6
#define BUS1_GRAPH_NODES	16
#define BUS1_GRAPH_CARGO	4

struct bus1_node;
struct bus1_peer;

/**
 * struct bus1_graph - peers, nodes and who knows which
 * @test: the test
 * @n_peers: number of peers
 * @peers: the peers
 * @owners: the number of the owner of each node
 * @nodes: the nodes, with a reference each, or NULL
 * @ids: what each peer calls each node, or %BUS1_HANDLE_INVALID
 * @last_ids: highest ID that the kernel has chosen for each peer
 */
struct bus1_graph {
	struct kunit *test;
	unsigned int n_peers;
	struct bus1_peer *peers[BUS1_GRAPH_PEERS];
	unsigned int owners[BUS1_GRAPH_NODES];
	struct bus1_node *nodes[BUS1_GRAPH_NODES];
	u64 ids[BUS1_GRAPH_PEERS][BUS1_GRAPH_NODES];
	u64 last_ids[BUS1_GRAPH_PEERS];
};

/**
 * struct bus1_graph_event - what a peer was told
 * @type: &enum bus1_msg_type, BUS1_MSG_NONE if there was nothing
 * @node: number of the node that it is about, or for
 * @n_carried: number of nodes that came with it
 * @carried: their numbers, -1 for one that is destroyed
 */
struct bus1_graph_event {
	u64 type;
	unsigned int node;
	unsigned int n_carried;
	int carried[BUS1_GRAPH_CARGO];
};

struct bus1_graph *bus1_graph_new(struct kunit *test, unsigned int n_peers);
void bus1_graph_end(struct bus1_graph *graph);

void bus1_graph_create(struct bus1_graph *graph, unsigned int peer,
		       unsigned int node);
void bus1_graph_forget(struct bus1_graph *graph, unsigned int node);
bool bus1_graph_give(struct bus1_graph *graph, unsigned int from,
		     unsigned int node, unsigned int to);
int bus1_graph_release(struct bus1_graph *graph, unsigned int peer,
		       unsigned int node);
int bus1_graph_destroy(struct bus1_graph *graph, unsigned int peer,
		       const unsigned int *nodes, unsigned int n, bool release);
int bus1_graph_send(struct bus1_graph *graph, unsigned int from,
		    const unsigned int *dests, unsigned int n_dests,
		    const unsigned int *carried, unsigned int n_carried);
void bus1_graph_flush(struct bus1_graph *graph, unsigned int peer);
void bus1_graph_leave(struct bus1_graph *graph, unsigned int peer);
struct bus1_graph_event bus1_graph_receive(struct bus1_graph *graph,
					   unsigned int peer, bool abort);
u64 bus1_graph_user_refs(struct bus1_graph *graph, unsigned int peer,
			 unsigned int node);
long bus1_graph_refs(struct bus1_graph *graph, unsigned int node);

#endif /* __BUS1_TESTS_GRAPH_H */
