/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * Two destructions by one owner that share a node: 0 is of nodes 0 and 1, 1 is of node 1.
 * Peer 1 has handles to both, and hears of each once.
 */
#define NQ		2
#define NTX		2
#define NN		2
#define NK		1
#define DEATHS		3
#define NODE_DEATH	0
#define NFIN		2
#define TO_NODE		0
#define CARRIES		0
/* The first one was first, or too late: then node 0 stays alive */
#define FIRST		(death[0] == 0 && told[2] && told[3])
#define TOO_LATE	(death[0] == NONE && death[1] == 1 && told[3])
#include "nodes.pml"

init {
	byte i;

	atomic {
		has(0, 0);
		has(0, 1);
		has(1, 0);
		has(1, 1);
		start();
		run Destroyer(0, 3, 0, false);
		run Destroyer(1, 2, 0, false)
	}
}
