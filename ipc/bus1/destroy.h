/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_DESTROY_H
#define __BUS1_DESTROY_H

/**
 * DOC: Destruction
 *
 * Nodes are destroyed in a transaction, one or many. It is staged on the queue of
 * every peer that holds a handle to one of them, and sealed; from then on messages
 * to these nodes, and handles to them, that come after it are void. Nothing of
 * that can fail: the notification for each handle is part of the handle.
 *
 * Whoever becomes a holder meanwhile stages its notification itself, see
 * bus1_handle_import_join().
 */

#include <linux/types.h>

struct bus1_death;
struct bus1_peer;

int bus1_nodes_destroy(struct bus1_peer *peer, const u64 *ids, size_t n,
		       bool release);
void bus1_destroy_all(struct bus1_peer *peer, struct bus1_death *death);

#endif /* __BUS1_DESTROY_H */
