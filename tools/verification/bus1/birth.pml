/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Peer 0 flushes, or disconnects (1), while it gives peer 1 a handle to a node that does
 * not exist yet. Then message 0 goes to the node, and to peer 1.
 */
#define NQ		2
#define NTX		2
#define DEATHS		2
#define NFIN		3
#define NODE_DEATH	1
#define TO_NODE		1
#define CARRIES		0
#define DEST_0		3
#define DEST_1		0
#define WITH_FLUSH
#define WITH_BIRTH
/* The node was destroyed, and the message dropped or received; or it was born later */
#define DOOMED		(!HAS(pred[1], 0) && told[H(1, 0)])
#define RECEIVED	(HAS(pred[1], 0) && told[H(1, 0)])
#define LATE_BORN	(death[0] == NONE && user[H(0, 0)] && user[H(1, 0)])
#include "nodes.pml"

init {
	byte i;

	atomic {
		start();
		run Transfer(0, 1);
		run Flush(1, 0)
	}
}
