/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Peer 0, which owns node 0, flushes (0), while peer 1, which owns node 1, destroys that
 * (1). Peer 1 has a handle to node 0, and gives one to node 1 to peer 0 (TRANSFER), or
 * peer 0 has one (HOLDS=0).
 * WITH_POLL=P: peer P polls.
 */
#define NQ		2
#define NTX		2
#define NN		2
#define OWNER(n)	(n)
#define DEATHS		3
#define NODE_DEATH	0
#define TO_NODE		0
#define CARRIES		0
#define WITH_FLUSH
#ifdef TRANSFER
#define NFIN		3
#else
#define NFIN		2
#endif
/* Peer 0 was told of node 1 before it flushed, or has nothing to be told of */
#define TOLD		(told[H(0, 1 * NK)] && HAS(pred[0], 1))
#define NOT_TOLD	(!told[H(0, 1 * NK)] && gen[T(0, 1)])
/* It got its handle after the flush */
#define AFTER		(told[H(0, 1 * NK)] && HAS(pred[1], 0))
#include "nodes.pml"

init {
	byte i;

	atomic {
		has(0, 0);
		has(1, 0);
		has(1, 1);
#ifdef HOLDS
		has(HOLDS, 1);
#endif
		start();
#ifdef TRANSFER
		run Transfer(1, 0);
#endif
		run Destroyer(1, 2, 1, false);
#ifdef WITH_POLL
		run Poll(WITH_POLL);
#endif
		run Flush(0, 0)
	}
}
