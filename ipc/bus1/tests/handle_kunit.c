// SPDX-License-Identifier: GPL-2.0-only
/*
 * Handles, drawn
 *
 * Peers are letters, and each has a node of the same name. "A>B" is a handle that
 * A has for the node of B.
 */

#include <kunit/test.h>
#include <linux/string.h>
#include <uapi/linux/bus1.h>
#include "graph.h"

/* Draw handles, as "A>B B>C": the owner gives each to whom it points from. */
static struct bus1_graph *draw(struct kunit *test, unsigned int n_peers,
			       const char *edges)
{
	struct bus1_graph *graph = bus1_graph_new(test, n_peers);
	unsigned int i;

	for (i = 0; i < n_peers; ++i)
		bus1_graph_create(graph, i, i);
	for (; *edges; edges += edges[3] ? 4 : 3)
		KUNIT_EXPECT_TRUE(test, bus1_graph_give(graph, edges[2] - 'A',
							edges[2] - 'A',
							edges[0] - 'A'));
	return graph;
}

/* The numbers of the nodes in "ABC". */
static unsigned int name_nodes(const char *names, unsigned int *nodes)
{
	unsigned int n;

	for (n = 0; names[n]; ++n)
		nodes[n] = names[n] - 'A';
	return n;
}

static bool give(struct bus1_graph *graph, char from, char node, char to)
{
	return bus1_graph_give(graph, from - 'A', node - 'A', to - 'A');
}

static int release(struct bus1_graph *graph, char peer, char node)
{
	return bus1_graph_release(graph, peer - 'A', node - 'A');
}

static int destroy(struct bus1_graph *graph, char peer, const char *names)
{
	unsigned int nodes[BUS1_GRAPH_CARGO], n = name_nodes(names, nodes);

	return bus1_graph_destroy(graph, peer - 'A', nodes, n, false);
}

static int destroy_and_release(struct bus1_graph *graph, char peer,
			       const char *names)
{
	unsigned int nodes[BUS1_GRAPH_CARGO], n = name_nodes(names, nodes);

	return bus1_graph_destroy(graph, peer - 'A', nodes, n, true);
}

static int send(struct bus1_graph *graph, char from, const char *to,
		const char *with)
{
	unsigned int dests[BUS1_GRAPH_CARGO], n_dests = name_nodes(to, dests);
	unsigned int nodes[BUS1_GRAPH_CARGO], n = name_nodes(with, nodes);

	return bus1_graph_send(graph, from - 'A', dests, n_dests, nodes, n);
}

static void leave(struct bus1_graph *graph, char peer)
{
	bus1_graph_leave(graph, peer - 'A');
}

static void flush(struct bus1_graph *graph, char peer)
{
	bus1_graph_flush(graph, peer - 'A');
}

static void check_refs(struct bus1_graph *graph, char node, long refs)
{
	KUNIT_EXPECT_EQ_MSG(graph->test, bus1_graph_refs(graph, node - 'A'),
			    refs, "references to %c", node);
}

static void check_user_refs(struct bus1_graph *graph, char peer, char node,
			    u64 refs)
{
	KUNIT_EXPECT_EQ_MSG(graph->test,
			    bus1_graph_user_refs(graph, peer - 'A',
						 node - 'A'),
			    refs, "%c>%c", peer, node);
}

/*
 * What a peer is told, until there is nothing more: "dB" that node B is destroyed,
 * "rB" that nobody else has its own node B, "mB" of a message to B, "mB(AC-)" of
 * one that carries A, C, and one that is destroyed.
 */
static void check_told(struct bus1_graph *graph, char peer, const char *expected)
{
	struct bus1_graph_event event;
	char told[64];
	size_t len = 0;
	unsigned int i;

	told[0] = 0;
	while (len < sizeof(told) - 16) {
		event = bus1_graph_receive(graph, peer - 'A', false);
		if (event.type == BUS1_MSG_NONE)
			break;
		len += scnprintf(told + len, sizeof(told) - len, "%s%c%c",
				 len ? " " : "", " mdr"[event.type],
				 'A' + event.node);
		for (i = 0; i < event.n_carried; ++i)
			len += scnprintf(told + len, sizeof(told) - len, "%s%c",
					 i ? "" : "(", event.carried[i] < 0 ?
					 '-' : 'A' + event.carried[i]);
		if (event.n_carried)
			len += scnprintf(told + len, sizeof(told) - len, ")");
	}
	KUNIT_EXPECT_STREQ(graph->test, told, expected);
}

/*
 *	A ---> B	A lets go: B is told that it has nobody left
 */
static void bus1_handle_test_release(struct kunit *test)
{
	struct bus1_graph *graph = draw(test, 2, "A>B");

	check_refs(graph, 'A', 0);
	check_refs(graph, 'B', 1);
	check_user_refs(graph, 'A', 'B', 1);
	check_user_refs(graph, 'B', 'B', 1);
	check_told(graph, 'B', "");
	KUNIT_EXPECT_EQ(test, release(graph, 'A', 'B'), 0);
	check_refs(graph, 'B', 0);
	check_told(graph, 'B', "rB");
	check_told(graph, 'A', "");
	/* The one of the owner is pinned */
	KUNIT_EXPECT_EQ(test, release(graph, 'B', 'B'), -EBUSY);
	check_user_refs(graph, 'B', 'B', 1);
	bus1_graph_end(graph);
}

/*
 *	A ---> B	twice, then one after the other: only the last one counts
 *	A ---> B
 */
static void bus1_handle_test_count(struct kunit *test)
{
	struct bus1_graph *graph = draw(test, 2, "A>B A>B");

	check_refs(graph, 'B', 1);
	check_user_refs(graph, 'A', 'B', 2);
	KUNIT_EXPECT_EQ(test, release(graph, 'A', 'B'), 0);
	check_user_refs(graph, 'A', 'B', 1);
	check_told(graph, 'B', "");
	KUNIT_EXPECT_EQ(test, release(graph, 'A', 'B'), 0);
	check_told(graph, 'B', "rB");
	/* The ID is gone, it stands for nothing */
	KUNIT_EXPECT_EQ(test, release(graph, 'A', 'B'), -ENXIO);
	bus1_graph_end(graph);
}

/*
 *	A ---> B	A lets go, and gets it again before B has looked
 */
static void bus1_handle_test_take_back(struct kunit *test)
{
	struct bus1_graph *graph = draw(test, 2, "A>B");

	KUNIT_EXPECT_EQ(test, release(graph, 'A', 'B'), 0);
	KUNIT_EXPECT_TRUE(test, give(graph, 'B', 'B', 'A'));
	check_told(graph, 'B', "");
	KUNIT_EXPECT_EQ(test, release(graph, 'A', 'B'), 0);
	check_told(graph, 'B', "rB");
	bus1_graph_end(graph);
}

/*
 *	.-> A		A has more than the pinned one of its own node
 *	'---'
 */
static void bus1_handle_test_own(struct kunit *test)
{
	struct bus1_graph *graph = draw(test, 1, "A>A A>A");

	check_user_refs(graph, 'A', 'A', 3);
	check_refs(graph, 'A', 1);
	KUNIT_EXPECT_EQ(test, release(graph, 'A', 'A'), 0);
	check_told(graph, 'A', "");
	KUNIT_EXPECT_EQ(test, release(graph, 'A', 'A'), 0);
	check_refs(graph, 'A', 0);
	check_told(graph, 'A', "rA");
	KUNIT_EXPECT_EQ(test, release(graph, 'A', 'A'), -EBUSY);
	bus1_graph_end(graph);
}

/*
 *	A ---> D	B got it from A, C from B: three holders, whoever gave it
 *	      ^ ^
 *	B ---/  |
 *	C -----'
 */
static void bus1_handle_test_pass_on(struct kunit *test)
{
	struct bus1_graph *graph = draw(test, 4, "A>D");

	KUNIT_EXPECT_TRUE(test, give(graph, 'A', 'D', 'B'));
	KUNIT_EXPECT_TRUE(test, give(graph, 'B', 'D', 'C'));
	check_refs(graph, 'D', 3);
	KUNIT_EXPECT_EQ(test, release(graph, 'A', 'D'), 0);
	KUNIT_EXPECT_EQ(test, release(graph, 'B', 'D'), 0);
	check_refs(graph, 'D', 1);
	check_told(graph, 'D', "");
	/* Back to the owner, who knows it by its own ID */
	KUNIT_EXPECT_TRUE(test, give(graph, 'C', 'D', 'D'));
	check_user_refs(graph, 'D', 'D', 2);
	check_refs(graph, 'D', 2);
	KUNIT_EXPECT_EQ(test, release(graph, 'C', 'D'), 0);
	check_told(graph, 'D', "");
	KUNIT_EXPECT_EQ(test, release(graph, 'D', 'D'), 0);
	check_told(graph, 'D', "rD");
	bus1_graph_end(graph);
}

/*
 *	A ---> B ---> C		a circle, that nobody ever opens but by leaving
 *	^             |
 *	'-------------'
 */
static void bus1_handle_test_circle(struct kunit *test)
{
	struct bus1_graph *graph = draw(test, 3, "A>B B>C C>A");

	leave(graph, 'B');
	check_told(graph, 'A', "dB");
	check_told(graph, 'C', "rC");
	KUNIT_EXPECT_FALSE(test, give(graph, 'A', 'B', 'C'));
	KUNIT_EXPECT_EQ(test, send(graph, 'A', "B", ""), -EHOSTUNREACH);
	KUNIT_EXPECT_EQ(test, send(graph, 'C', "A", ""), 0);
	check_told(graph, 'A', "mA");
	bus1_graph_end(graph);
}

/*
 *	B ---.
 *	C ---+--> A	A dies: each holder is told once, and so is A
 *	D ---'
 */
static void bus1_handle_test_star(struct kunit *test)
{
	struct bus1_graph *graph = draw(test, 4, "B>A C>A D>A D>A");

	KUNIT_EXPECT_EQ(test, destroy(graph, 'A', "A"), 0);
	/* C lets go of it before it looks: there is nothing to tell any more */
	KUNIT_EXPECT_EQ(test, release(graph, 'C', 'A'), 0);
	check_told(graph, 'A', "dA");
	check_told(graph, 'B', "dA");
	check_told(graph, 'C', "");
	check_told(graph, 'D', "dA");
	KUNIT_EXPECT_EQ(test, destroy(graph, 'A', "A"), -ESTALE);
	KUNIT_EXPECT_FALSE(test, give(graph, 'B', 'A', 'C'));
	/* What they have left can be dropped, even the pinned one */
	check_user_refs(graph, 'D', 'A', 2);
	KUNIT_EXPECT_EQ(test, release(graph, 'D', 'A'), 0);
	KUNIT_EXPECT_EQ(test, release(graph, 'D', 'A'), 0);
	KUNIT_EXPECT_EQ(test, release(graph, 'D', 'A'), -ENXIO);
	KUNIT_EXPECT_EQ(test, release(graph, 'A', 'A'), 0);
	check_user_refs(graph, 'A', 'A', 0);
	check_told(graph, 'A', "");
	bus1_graph_end(graph);
}

/*
 *	B ---> A	A destroys and lets go at once: it is not told itself
 */
static void bus1_handle_test_destroy_quietly(struct kunit *test)
{
	struct bus1_graph *graph = draw(test, 2, "B>A");

	KUNIT_EXPECT_EQ(test, send(graph, 'B', "A", ""), 0);
	KUNIT_EXPECT_EQ(test, destroy_and_release(graph, 'A', "A"), 0);
	check_user_refs(graph, 'A', 'A', 0);
	/* Nor does it get what was sent before: it has no name for it */
	check_told(graph, 'A', "");
	check_told(graph, 'B', "dA");
	bus1_graph_end(graph);
}

/*
 *	A ---> B	what is not one's own is not to be destroyed, nor anything
 *			else that is listed with it
 */
static void bus1_handle_test_destroy_remote(struct kunit *test)
{
	struct bus1_graph *graph = draw(test, 2, "A>B");

	KUNIT_EXPECT_EQ(test, destroy(graph, 'A', "AB"), -EREMOTE);
	KUNIT_EXPECT_EQ(test, destroy(graph, 'A', "AA"), -ENOTUNIQ);
	check_told(graph, 'A', "");
	check_told(graph, 'B', "");
	KUNIT_EXPECT_EQ(test, send(graph, 'A', "B", "A"), 0);
	check_told(graph, 'B', "mB(A)");
	bus1_graph_end(graph);
}

/*
 *	A ---> B	B is on its way to C in a message, and A lets go of it
 *	|
 *	'----> C <- - (B)
 */
static void bus1_handle_test_in_flight(struct kunit *test)
{
	struct bus1_graph *graph = draw(test, 3, "A>B A>C");

	KUNIT_EXPECT_EQ(test, send(graph, 'A', "C", "BB"), 0);
	check_refs(graph, 'B', 3);
	KUNIT_EXPECT_EQ(test, release(graph, 'A', 'B'), 0);
	check_refs(graph, 'B', 2);
	check_told(graph, 'B', "");
	check_told(graph, 'C', "mC(BB)");
	check_user_refs(graph, 'C', 'B', 2);
	check_refs(graph, 'B', 1);
	check_told(graph, 'B', "");
	leave(graph, 'C');
	check_told(graph, 'B', "rB");
	check_told(graph, 'A', "dC");
	bus1_graph_end(graph);
}

/*
 *	A ---> C <- - (B)	B dies on its way. C got its handle before, so it is
 *				told; what is sent later arrives dead
 */
static void bus1_handle_test_dies_in_flight(struct kunit *test)
{
	struct bus1_graph *graph = draw(test, 3, "A>B A>C");

	KUNIT_EXPECT_EQ(test, send(graph, 'A', "C", "B"), 0);
	KUNIT_EXPECT_EQ(test, destroy(graph, 'B', "B"), 0);
	KUNIT_EXPECT_EQ(test, send(graph, 'A', "C", "AB"), 0);
	check_told(graph, 'C', "mC(B) dB mC(A-)");
	check_user_refs(graph, 'C', 'B', 1);
	check_told(graph, 'A', "dB");
	check_told(graph, 'B', "dB");
	bus1_graph_end(graph);
}

/*
 *	A ---> B	A's only handle for itself is in its own queue, and that of B
 *	(B)   (A)	in the queue of B: nobody holds them but messages
 */
static void bus1_handle_test_queued_circle(struct kunit *test)
{
	struct bus1_graph *graph = draw(test, 2, "A>B B>A");

	KUNIT_EXPECT_EQ(test, send(graph, 'A', "B", "AB"), 0);
	KUNIT_EXPECT_EQ(test, send(graph, 'B', "A", "AB"), 0);
	KUNIT_EXPECT_EQ(test, release(graph, 'A', 'B'), 0);
	KUNIT_EXPECT_EQ(test, release(graph, 'B', 'A'), 0);
	check_refs(graph, 'A', 2);
	check_refs(graph, 'B', 2);
	leave(graph, 'A');
	check_refs(graph, 'B', 1);
	/* Sent before A was destroyed, so the handle is valid, and B is told */
	check_told(graph, 'B', "mB(AB) dA");
	check_refs(graph, 'B', 1);
	KUNIT_EXPECT_EQ(test, release(graph, 'B', 'B'), 0);
	check_told(graph, 'B', "rB");
	bus1_graph_end(graph);
}

/*
 *	C ---> A	one message to both, and both destroyed by one that comes
 *	|		after it: nothing is lost
 *	'----> B
 */
static void bus1_handle_test_message_then_destroy(struct kunit *test)
{
	struct bus1_graph *graph = draw(test, 3, "C>A C>B");

	KUNIT_EXPECT_EQ(test, send(graph, 'C', "AB", "C"), 0);
	KUNIT_EXPECT_EQ(test, destroy(graph, 'A', "A"), 0);
	KUNIT_EXPECT_EQ(test, destroy(graph, 'B', "B"), 0);
	KUNIT_EXPECT_EQ(test, send(graph, 'C', "AB", ""), -EHOSTUNREACH);
	check_told(graph, 'A', "mA(C) dA");
	check_told(graph, 'B', "mB(C) dB");
	check_told(graph, 'C', "dA dB");
	check_refs(graph, 'C', 2);
	bus1_graph_end(graph);
}

/*
 *	A ---> B ---> C		B flushes: A is told of its node, C that it is alone,
 *	       ^		and B can begin again
 *	D - - -'
 */
static void bus1_handle_test_flush(struct kunit *test)
{
	struct bus1_graph *graph = draw(test, 4, "A>B B>C D>B");

	KUNIT_EXPECT_EQ(test, send(graph, 'D', "B", "D"), 0);
	KUNIT_EXPECT_EQ(test, release(graph, 'D', 'B'), 0);
	check_refs(graph, 'D', 1);
	flush(graph, 'B');
	check_told(graph, 'A', "dB");
	check_told(graph, 'C', "rC");
	check_told(graph, 'D', "rD");
	check_told(graph, 'B', "");
	check_user_refs(graph, 'B', 'B', 0);
	check_user_refs(graph, 'B', 'C', 0);
	bus1_graph_create(graph, 1, 4);
	KUNIT_EXPECT_TRUE(test, give(graph, 'B', 'E', 'A'));
	KUNIT_EXPECT_EQ(test, send(graph, 'A', "E", ""), 0);
	check_told(graph, 'B', "mE");
	bus1_graph_end(graph);
}

/* What fails leaves no trace: no node, no reference, no message. */
static void bus1_handle_test_nothing(struct kunit *test)
{
	struct bus1_graph *graph = draw(test, 2, "A>B");

	/* A does not know of C, nor B of A */
	KUNIT_EXPECT_EQ(test, send(graph, 'A', "BC", "A"), -ENXIO);
	KUNIT_EXPECT_EQ(test, send(graph, 'A', "B", "BC"), -ENXIO);
	KUNIT_EXPECT_EQ(test, send(graph, 'A', "BB", "A"), -ENOTUNIQ);
	KUNIT_EXPECT_EQ(test, send(graph, 'B', "A", "B"), -ENXIO);
	KUNIT_EXPECT_EQ(test, destroy(graph, 'B', "BA"), -ENXIO);
	KUNIT_EXPECT_EQ(test, release(graph, 'B', 'A'), -ENXIO);
	check_refs(graph, 'A', 0);
	check_refs(graph, 'B', 1);
	check_told(graph, 'A', "");
	check_told(graph, 'B', "");
	bus1_graph_end(graph);
}

static struct kunit_case bus1_handle_cases[] = {
	KUNIT_CASE(bus1_handle_test_release),
	KUNIT_CASE(bus1_handle_test_count),
	KUNIT_CASE(bus1_handle_test_take_back),
	KUNIT_CASE(bus1_handle_test_own),
	KUNIT_CASE(bus1_handle_test_pass_on),
	KUNIT_CASE(bus1_handle_test_circle),
	KUNIT_CASE(bus1_handle_test_star),
	KUNIT_CASE(bus1_handle_test_destroy_quietly),
	KUNIT_CASE(bus1_handle_test_destroy_remote),
	KUNIT_CASE(bus1_handle_test_in_flight),
	KUNIT_CASE(bus1_handle_test_dies_in_flight),
	KUNIT_CASE(bus1_handle_test_queued_circle),
	KUNIT_CASE(bus1_handle_test_message_then_destroy),
	KUNIT_CASE(bus1_handle_test_flush),
	KUNIT_CASE(bus1_handle_test_nothing),
	{}
};

static struct kunit_suite bus1_handle_suite = {
	.name = "bus1_handle",
	.test_cases = bus1_handle_cases,
};

kunit_test_suite(bus1_handle_suite);
