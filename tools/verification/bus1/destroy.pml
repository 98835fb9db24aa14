/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Transaction 0 is a message to node 0 of peer 0, 1 one that carries the node to peer 1,
 * and 2 destroys the node (RELEASE: and drops its owner's last reference). HOLDS is a
 * peer that has a handle to it from the start. REVERSED gives the destruction the lowest
 * ID.
 */
#ifndef NQ
#define NQ		2
#endif
#define NTX		3
#define DEATHS		4
#define NODE_DEATH	2
#define NFIN		3
#ifndef RELEASE
#define RELEASE		false
#endif
/* What is to be seen at the end: the handle of the message was told of, or is INVALID */
#define TOLD		told[H(1, 0)]
#define INVALID		(gen[T(1, 0)] && !user[H(1, 0)])
/* The message to the node was dropped, or received */
#define DOOMED		(!HAS(pred[2], 0) && user[H(1, 0)])
#define RECEIVED	(HAS(pred[2], 0) && HAS(pred[2], 1))
#include "nodes.pml"

init {
	byte i;

	atomic {
		has(0, 0);
#ifdef HOLDS
		has(HOLDS, 0);
#endif
		start();
		run Sender(0);
		run Sender(1);
		run Destroyer(2, 1, RELEASE)
	}
}
