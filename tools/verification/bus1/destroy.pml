/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Transaction 0 is a message to node 0 of peer 0, 1 one that carries the node to peer 1,
 * and 2 destroys the node (RELEASE: and drops its owner's last reference). HOLDS is a
 * peer that has a handle to it from the start; WITH_RELEASE: peer 1 gives its one back.
 * WITH_POLL=P: peer P polls. REVERSED gives the destruction the lowest ID.
 */
#ifndef NQ
#define NQ		2
#endif
#define NTX		3
#define DEATHS		4
#define NODE_DEATH	2
#ifdef WITH_RELEASE
#define NFIN		4
#else
#define NFIN		3
#endif
#ifndef RELEASE
#define RELEASE		false
#endif
/* What is to be seen at the end: the handle of the message was told of, or is INVALID */
#define TOLD		told[H(1, 0)]
#define INVALID		(gen[T(1, 0)] && !user[H(1, 0)])
/* The message to the node was dropped, or received */
#define DOOMED		(!HAS(pred[2], 0) && user[H(1, 0)])
/* What a RECV that failed had joined was undone, and then another one was told */
#define UNDONE		(gen[T(1, 0)] == 2 && told[H(1, 1)])
/* The last reference was dropped, and the notification; then it got another handle */
#define ANEW		(isn[H(1, 0)] && !told[H(1, 0)] && user[H(1, 1)] && told[H(1, 1)])
/* The owner, alone with NQ=1, gave its ID back and got another one */
#define ANOTHER		(gen[T(0, 0)] > 1 && told[H(0, 1)])
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
		send(0);
		send(1);
#ifdef WITH_RELEASE
		run Release(0, 1);
#endif
#ifdef WITH_POLL
		run Poll(WITH_POLL);
#endif
		run Destroyer(2, 1, 0, RELEASE)
	}
}
