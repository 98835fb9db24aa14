/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_MESSAGE_H
#define __BUS1_MESSAGE_H

/**
 * DOC: Messages
 *
 * A message is bytes, nodes and files on their way to one receiver. The bytes
 * are in a slice of the receiver's pool from the start; nodes and files travel
 * as cargo, which all receivers of a transaction share, and become handles and
 * descriptors when the message is received. After that the message stands for
 * nothing but its slice, and lives until that is released.
 *
 * What a message costs is charged to its receiver when it is made. Each part is
 * given back when the message is freed, unless it was given back, or handed on
 * to a handle, before: message->cost says what is left.
 */

#include <linux/refcount.h>
#include <linux/types.h>
#include "user.h"
#include "util/pool.h"
#include "util/queue.h"

struct bus1_node;
struct bus1_peer;
struct bus1_share;
struct file;

/* So many nodes and files any cargo has room for, so that it can be used again. */
#define BUS1_CARGO_FEW	((size_t)4)

/**
 * struct bus1_layout - where things are in a slice
 * @n_bytes: bytes of payload, from offset 0
 * @n_handles: number of handle IDs
 * @n_files: number of files
 * @off_handles: offset of the IDs, in bytes
 * @off_files: offset of the descriptors, in bytes
 * @size: size of all that, in bytes
 */
struct bus1_layout {
	u64 n_bytes;
	size_t n_handles;
	size_t n_files;
	u64 off_handles;
	u64 off_files;
	u64 size;
};

/**
 * struct bus1_cargo - what the messages of a transaction carry
 * @ref: number of messages that carry it, and commands that work with it
 * @n_nodes: number of nodes
 * @n_files: number of files
 * @nodes: nodes; each holds a reference and counts one, see bus1_node_get().
 *	NULL where there is none (yet)
 * @files: files; each holds a reference. NULL where there is none (yet)
 * @slots: memory of both arrays
 */
struct bus1_cargo {
	refcount_t ref;
	size_t n_nodes;
	size_t n_files;
	struct bus1_node **nodes;
	struct file **files;
	void *slots[];
};

/**
 * struct bus1_message - a message
 * @entry: in node->owner->queue
 * @slice: in the pool of @peer; of a message that is not used, size 0 means that it
 *	has none, and one that is parked may be gone
 * @peer: the receiver (const)
 * @node: node it is for, holds a reference; NULL for a seed, and once received
 * @cargo: what it carries, holds a reference; NULL if nothing, and once
 *	received
 * @layout: where things are in the slice (const)
 * @share: who is charged (const)
 * @cost: what is still charged
 *
 * A message belongs to whoever made it, then to the queue, then to whoever
 * claimed it, then to the pool. Its owner alone may change it.
 */
struct bus1_message {
	struct bus1_queue_entry entry;
	struct bus1_pool_slice slice;
	struct bus1_peer *peer;
	struct bus1_node *node;
	struct bus1_cargo *cargo;
	struct bus1_layout layout;
	struct bus1_share *share;
	struct bus1_cost cost;
};

int bus1_message_module_init(void);
void bus1_message_module_exit(void);

int bus1_layout_init(struct bus1_layout *layout, u64 n_bytes, u64 n_handles,
		     u64 n_files);

struct bus1_cargo *bus1_cargo_new(struct bus1_peer *peer, size_t n_nodes,
				  size_t n_files);
struct bus1_cargo *bus1_cargo_ref(struct bus1_cargo *cargo);
void bus1_cargo_unref(struct bus1_cargo *cargo, struct bus1_peer *peer);
void bus1_cargo_leave(struct bus1_cargo **cargo);

struct bus1_message *bus1_message_new(struct bus1_peer *peer,
				      struct bus1_user *sender,
				      const struct bus1_layout *layout,
				      struct bus1_cargo *cargo);
void bus1_message_free(struct bus1_message *message);
void bus1_message_free_spare(struct bus1_peer *peer);
int bus1_message_release(struct bus1_peer *peer, u64 offset);
void bus1_message_release_all(struct bus1_peer *peer);
u64 bus1_message_used(const struct bus1_message *message);
u64 bus1_message_end(const struct bus1_message *message);

#endif /* __BUS1_MESSAGE_H */
