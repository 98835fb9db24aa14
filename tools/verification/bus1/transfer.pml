/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * HANDLE_TRANSFER of node 0 to peer 1, whose result may not be told, and its release,
 * while transaction 1 destroys the node and peer 1 receives message 0, which may carry
 * it as well. REVERSED gives the destruction the lower ID.
 *
 * Not among the models that check.sh takes to hold: a receiver may claim the
 * NODE_DESTROY of a handle whose transfer is then aborted, and so be told of an ID
 * that it was never shown. assert(LIVE()) in Receiver finds that.
 */
#define NQ		2
#define NTX		2
#define DEATHS		2
#define NODE_DEATH	1
#define TO_NODE		0
#ifndef CARRIES
#define CARRIES		0
#endif
#define DEST_0		2
#define DEST_1		0
#ifdef WITH_RELEASE
#define NFIN		4
#define NK		3
#else
#define NFIN		3
#endif
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
