/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_RECV_H
#define __BUS1_RECV_H

/**
 * DOC: Receiving
 *
 * A receive has two halves. The first one, bus1_recv_prepare(), claims the next
 * message, makes handles of what it carries, writes their IDs into the slice,
 * and says what there is to tell. The caller tells it, and only if that worked
 * goes on with bus1_recv_commit(); with bus1_recv_abort() everything is as it
 * was before. The peer's recv_mutex is held from the one to the other.
 *
 * The object lives on the stack of the command.
 */

#include <linux/types.h>

struct bus1_handle;
struct bus1_message;
struct bus1_peer;
struct bus1_queue_entry;

/**
 * struct bus1_recv - a receive
 * @peer: receiver
 * @entry: claimed entry, or NULL for the seed
 * @message: message, or NULL for a notification
 * @handles: what the nodes it carries became, NULL where they are destroyed
 * @install_fds: install the files
 * @type: &enum bus1_msg_type
 * @destination: the receiver's ID of the node, or %BUS1_HANDLE_INVALID
 * @offset: where the slice starts in the pool, or %BUS1_OFFSET_INVALID
 * @n_bytes: bytes of payload
 * @n_handles: number of IDs
 * @n_fds: number of descriptors
 * @more: the next message belongs to the same transaction
 */
struct bus1_recv {
	struct bus1_peer *peer;
	struct bus1_queue_entry *entry;
	struct bus1_message *message;
	struct bus1_handle **handles;
	bool install_fds;
	u64 type;
	u64 destination;
	u64 offset;
	u64 n_bytes;
	u64 n_handles;
	u64 n_fds;
	bool more;
};

int bus1_recv_prepare(struct bus1_recv *recv, struct bus1_peer *peer,
		      u64 max_offset, bool seed, bool install_fds, bool try);
int bus1_recv_commit(struct bus1_recv *recv);
void bus1_recv_abort(struct bus1_recv *recv);

#endif /* __BUS1_RECV_H */
