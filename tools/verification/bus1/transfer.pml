/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * HANDLE_TRANSFER of node 0 to peer TO_PEER, whose result may not be told, and
 * (WITH_RELEASE) HANDLE_RELEASE by peer 1 of what it has, while transaction 1 destroys
 * the node (RELEASE: and drops its owner's last reference). Message 0 may carry the node
 * to peer 1 as well, or be for the node, or (DEST_0=0) there is none. HOLDS is a peer
 * that has a handle to it from the start. REVERSED gives the destruction the lower ID.
 * WITH_POLL=P: peer P polls.
 */
#define NQ		2
#define NTX		2
#define DEATHS		2
#define NODE_DEATH	1
#ifndef TO_NODE
#define TO_NODE		0
#endif
#ifndef CARRIES
#define CARRIES		0
#endif
#ifndef DEST_0
#define DEST_0		2
#endif
#define DEST_1		0
#ifdef WITH_RELEASE
#define NFIN		4
#else
#define NFIN		3
#endif
/* What is to be seen at the end: peer 1 was told, or has nothing to be told of. */
#define TOLD		told[H(1, 0)]
#define NOT_TOLD	(gen[T(1, 0)] && !told[H(1, 0)])
/* A message and a transfer gave two references, and then it was told */
#define BOTH		(user[H(1, 0)] == 2 && told[H(1, 0)])
/* It was about to be told, and gave the handle back before */
#define GIVEN_BACK	(isn[H(1, 0)] && !told[H(1, 0)] && cur[T(1, 0)] == NK)
/* What a RECV that failed had joined was undone, and then another one was told */
#define UNDONE		(gen[T(1, 0)] == 2 && told[H(1, 1)])
/* Its last reference was dropped, and the notification; then it got another handle */
#define ANEW		(isn[H(1, 0)] && !told[H(1, 0)] && user[H(1, 1)] && told[H(1, 1)])
/* The owner dropped its last reference, and got the ID again before it was too late */
#define AGAIN		(user[H(0, 0)] && told[H(0, 0)] && (RELEASE))
/* The owner dropped it for good, and a message to the node with it */
#define GONE		(cur[T(0, 0)] == NK && !HAS(pred[1], 0))
#ifndef RELEASE
#define RELEASE		false
#endif
#ifndef TO_PEER
#define TO_PEER		1
#endif
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
		run Destroyer(1, 1, 0, RELEASE);
#ifdef WITH_RELEASE
		run Release(0, 1);
#endif
#ifdef WITH_POLL
		run Poll(WITH_POLL);
#endif
		run Transfer(0, TO_PEER)
	}
}
