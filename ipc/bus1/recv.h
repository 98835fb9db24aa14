/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_RECV_H
#define __BUS1_RECV_H

/**
 * DOC: Receiving
 *
 * A receive has two halves. The first one, bus1_recv_prepare(), claims the next
 * message, makes handles of what it carries, writes their IDs into the slice,
 * and says whether there is something. It is told by bus1_recv_tell(), and only if
 * that worked bus1_recv_commit() follows; with bus1_recv_abort() everything is as it
 * was before. The peer's recv_mutex is held from the one to the other.
 *
 * The object lives on the stack of the command.
 */

#include <linux/types.h>

struct bus1_handle;
struct bus1_message;
struct bus1_msg;
struct bus1_peer;
struct bus1_queue_entry;

/**
 * struct bus1_recv - a receive
 * @peer: receiver
 * @entry: claimed entry, or NULL for the seed
 * @message: message, or NULL for a notification
 * @handles: what the nodes it carries became, NULL where they are destroyed
 * @fds: memory for descriptors, if they are many
 * @install_fds: install the files
 * @more: the next message belongs to the same transaction
 */
struct bus1_recv {
	struct bus1_peer *peer;
	struct bus1_queue_entry *entry;
	struct bus1_message *message;
	struct bus1_handle **handles;
	int *fds;
	bool install_fds;
	bool more;
};

bool bus1_recv_is_idle(struct bus1_peer *peer);
int bus1_recv_prepare(struct bus1_recv *recv, u64 max_offset, bool seed,
		      bool try);
void bus1_recv_describe(const struct bus1_recv *recv, struct bus1_msg *msg);
int bus1_recv_tell(struct bus1_recv *recv, struct bus1_msg __user *umsg);
int bus1_recv_commit(struct bus1_recv *recv);
void bus1_recv_abort(struct bus1_recv *recv);

#endif /* __BUS1_RECV_H */
