/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * HANDLE_TRANSFER of node 0 to peer 1, whose result may not be told, and (WITH_RELEASE)
 * HANDLE_RELEASE by peer 1 of what it has, while transaction 1 destroys the node and peer
 * 1 receives message 0, which may carry it as well, or (DEST_0=0) nothing. REVERSED gives
 * the destruction the lower ID.
 */
#define NQ		2
#define NTX		2
#define DEATHS		2
#define NODE_DEATH	1
#define TO_NODE		0
#ifndef CARRIES
#define CARRIES		0
#endif
#ifndef DEST_0
#define DEST_0		2
#endif
#define DEST_1		0
#ifdef WITH_RELEASE
#define NFIN		4
#define NK		3
#else
#define NFIN		3
#endif
/* What is to be seen at the end: peer 1 was told, or has nothing to be told of. */
#define TOLD		told[H(1, 0)]
#define NOT_TOLD	(gen[T(1, 0)] && !told[H(1, 0)])
/* A message and a transfer gave two references, and then it was told */
#define BOTH		(user[H(1, 0)] == 2 && told[H(1, 0)])
#include "nodes.pml"

init {
	byte i;

	atomic {
		has(0, 0);
		start();
		run Sender(0);
		run Destroyer(1, 1, false);
#ifdef WITH_RELEASE
		run Release(1);
#endif
		run Transfer(1)
	}
}
