/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Transactions 0 and 1 are messages, 2 destroys node 0 of peer 0 (RELEASE: and drops
 * its owner's last reference). Peer 1 has a handle to it, peer 2 gets one only by a
 * message that carries it. REVERSED gives the destruction the lowest ID.
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
