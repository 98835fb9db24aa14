/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Peer 0 flushes, or disconnects (1), while message 0 goes to its node and to peer 1,
 * which has a handle to the node. DESTROY: it destroys the node (2) at the same time.
 * WITH_POLL=P: peer P polls.
 */
#define NQ		2
#ifdef DESTROY
#define NTX		3
#define DEATHS		6
#define NFIN		3
#else
#define NTX		2
#define DEATHS		2
#define NFIN		2
#endif
#define NODE_DEATH	(death[0] == NONE -> 1 : death[0])
#ifndef TO_NODE
#define TO_NODE		1
#endif
#define CARRIES		0
#define DEST_0		3
#define DEST_1		0
#define WITH_FLUSH
/* The message was received by peer 0 before, or dropped there */
#define RECEIVED	(HAS(pred[1], 0) && told[H(1, 0)])
#define DOOMED		(!HAS(pred[1], 0) && told[H(1, 0)])
/* The other one destroyed the node */
#define NOT_MINE	(death[0] == 2 && told[H(1, 0)])
#include "nodes.pml"

init {
	byte i;

	atomic {
		has(0, 0);
		has(1, 0);
		start();
		run Sender(0);
#ifdef DESTROY
		run Destroyer(2, 1, 0, false);
#endif
#ifdef WITH_POLL
		run Poll(WITH_POLL);
#endif
		run Flush(1, 0)
	}
}
