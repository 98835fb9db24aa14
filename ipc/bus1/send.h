/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_SEND_H
#define __BUS1_SEND_H

/**
 * DOC: Sending
 *
 * A send has two halves. The first one finds and checks everything, makes a
 * message for each destination, and copies the payload; it may sleep, it may
 * fail, and leaves no trace when it does. The second one, bus1_send_commit(),
 * cannot fail, and depends on nothing that user space could delay.
 *
 * The object lives on the stack of the command.
 */

#include <linux/types.h>
#include "message.h"

struct bus1_handle;
struct bus1_peer;
struct iov_iter;

/* So many destinations, and handles, need no allocation. */
#define BUS1_SEND_INLINE	4

/**
 * struct bus1_send_dest - a destination
 * @handle: handle to send to; pinned
 * @message: message for it, or NULL
 * @error: 0, or the negative errno of this destination
 */
struct bus1_send_dest {
	struct bus1_handle *handle;
	struct bus1_message *message;
	int error;
};

/**
 * struct bus1_send - a send
 * @peer: sender
 * @do_continue: skip destinations that fail
 * @is_seed: the message becomes the seed of the sender
 * @n_dests: number of destinations that are pinned
 * @n_handles: number of handles that are pinned
 * @n_messages: number of destinations that have a message
 * @any_error: there is a destination that has an error
 * @any_new: there is a handle to a node that may not exist yet
 * @quota_error: -EDQUOT if the sender cannot have a node that it names; what names
 *	such is NULL
 * @dests: destinations
 * @handles: handles that are passed on; pinned
 * @cargo: what the messages carry, or NULL
 * @layout: layout of the slices
 * @seed: the seed
 * @inline_dests: memory for a few destinations
 * @inline_handles: memory for a few handles
 */
struct bus1_send {
	struct bus1_peer *peer;
	bool do_continue;
	bool is_seed;
	size_t n_dests;
	size_t n_handles;
	size_t n_messages;
	bool any_error;
	bool any_new;
	int quota_error;
	struct bus1_send_dest *dests;
	struct bus1_handle **handles;
	struct bus1_cargo *cargo;
	struct bus1_layout layout;
	struct bus1_message *seed;
	struct bus1_send_dest inline_dests[BUS1_SEND_INLINE];
	struct bus1_handle *inline_handles[BUS1_SEND_INLINE];
};

/**
 * struct bus1_send_bytes - a send of nothing but bytes to one node
 * @handle: handle to send to; pinned
 * @message: message for it
 */
struct bus1_send_bytes {
	struct bus1_handle *handle;
	struct bus1_message *message;
};

/**
 * struct bus1_send_params - what to send where
 * @dests: IDs of the destinations
 * @n_dests: number of destinations
 * @handles: IDs of the handles to pass on
 * @n_handles: number of handles
 * @fds: file descriptors to pass on
 * @n_fds: number of descriptors, at most %BUS1_FD_MAX
 * @n_bytes: bytes of payload
 * @do_continue: skip destinations that fail
 * @is_seed: the message becomes the seed; then there are no destinations
 */
struct bus1_send_params {
	const u64 *dests;
	size_t n_dests;
	const u64 *handles;
	size_t n_handles;
	const int *fds;
	size_t n_fds;
	u64 n_bytes;
	bool do_continue;
	bool is_seed;
};

int bus1_send_bytes_prepare(struct bus1_send_bytes *bytes,
			    struct bus1_peer *peer, u64 dest,
			    struct iov_iter *iter);
void bus1_send_bytes_commit(struct bus1_send_bytes *bytes);
void bus1_send_bytes_abort(struct bus1_send_bytes *bytes);

int bus1_send_prepare(struct bus1_send *send, struct bus1_peer *peer,
		      const struct bus1_send_params *params);
int bus1_send_verdict(const struct bus1_send *send);
int bus1_send_copy(struct bus1_send *send, const struct iov_iter *iter);
int bus1_send_commit(struct bus1_send *send);
void bus1_send_deinit(struct bus1_send *send);

#endif /* __BUS1_SEND_H */
