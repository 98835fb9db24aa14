/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * What the files of libbus1 share.
 *
 * References in the kernel
 *	A handle object owns one user reference (or none, if it is that of a node object:
 *	the pinned one goes with the node). An entry of a message owns one until somebody
 *	asks for it; then it becomes that of a new object, or is dropped if there is one.
 *	So each reference is dropped once, and the kernel's counts stay at 1.
 *
 * Releases
 *	A notification that nobody has a node any more is about the moment at which it was
 *	received. By the time it is handed out another thread may have given a handle away,
 *	and the order of the two cannot be seen where the commands overlap. So each message
 *	has the clock of before it was received, and each node that of after it was last
 *	given away. If that is later, or a command is under way, the notification is
 *	dropped, and the kernel asked for another one: it sends that when the last reference
 *	goes, and one that the owner takes for a moment is one, too.
 *
 * Destruction
 *	To the kernel any use of an ID that is free makes a node. So a handle of one's own
 *	node is not used any more from the moment at which that is about to be destroyed,
 *	and if commands were using it then it is destroyed once more when they are through.
 *
 * Locks
 *	One per peer. It protects the table of handles, the queue, and what else says so.
 *	No command is issued under it. Counts of objects that the table finds go from 1 to 0
 *	under it only, so what is found there can be referenced.
 */
#ifndef LIBBUS1_INTERNAL_H
#define LIBBUS1_INTERNAL_H

#include <errno.h>
#include <limits.h>
#include <linux/bus1.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "bus1.h"

#define EXPORT __attribute__((__visibility__("default")))

/* The most messages that are received at once. */
#define BATCH		16
/* The most that is given back together, in slices and in bytes; and the largest one. */
#define PENDING_MAX	16
#define PENDING_BYTES	(64 * 1024)
#define PENDING_LARGE	4096
/* Message objects that are kept to be used again. */
#define SPARE_MAX	32

/**
 * struct map - a mapping of a pool
 * @refs: the peer's, and those of messages
 * @address: where it is
 * @length: its length, under the lock of the peer
 *
 * Where it cannot grow in place there is another one, and the old one stays until its
 * messages are gone.
 */
struct map {
	atomic_uint refs;
	uint8_t *address;
	size_t length;
};

/**
 * struct call - a bus1_builder_call() that is running
 * @id: the node that replies go to
 * @reply: the reply, once there is one
 * @reset: there will be none
 */
struct call {
	uint64_t id;
	struct bus1_message *reply;
	bool reset;
};

/**
 * struct bus1_peer
 * @refs: those of users, and of all nodes, handles, messages and builders
 * @generation: of the process that made it
 * @fd: the descriptor, or -1 when it was taken away
 * @epoch: objects of an older one are dead
 * @disconnected: this process has disconnected it
 * @accept_fds: files become descriptors
 * @handler: for what has no other
 * @userdata: for @handler
 * @lock: protects what follows
 * @next_id: of the next node
 * @buckets: the table of handles, by ID
 * @n_buckets: a power of 2
 * @n_handles: in the table
 * @map: the newest mapping
 * @first: the queue of messages that were received, and not handed out
 * @last: its end
 * @spare: message objects, not in use
 * @n_spare: their number
 * @slices: to be given back with the next command
 * @n_slices: their number
 * @n_slice_bytes: about as much memory
 * @call: the call that is running
 * @clock: counts commands that have given handles of nodes of this peer to others
 * @out: messages with handles, that were handed out
 * @doomed: nodes that could not be destroyed when they had to, see bus1__destroy_doomed()
 * @poll_fd: epoll of @fd and @event_fd, or -1
 * @event_fd: readable while the queue is not empty, if anybody looks
 * @event_set: it is readable
 */
struct bus1_peer {
	atomic_uint refs;
	unsigned int generation;
	int fd;
	atomic_uint epoch;
	atomic_bool disconnected;
	atomic_bool accept_fds;
	bus1_handler_t handler;
	void *userdata;

	pthread_mutex_t lock;
	uint64_t next_id;
	struct bus1_handle **buckets;
	size_t n_buckets;
	size_t n_handles;
	struct map *map;
	struct bus1_message *first;
	struct bus1_message **last;
	struct bus1_message *spare;
	size_t n_spare;
	uint64_t slices[PENDING_MAX];
	size_t n_slices;
	size_t n_slice_bytes;
	struct call *call;
	uint64_t clock;
	struct bus1_message *out;
	struct bus1_node *doomed;
	int poll_fd;
	int event_fd;
	bool event_set;
};

/**
 * struct bus1_handle
 * @refs: references
 * @epoch: that of the peer when it was made
 * @peer: who has the handle
 * @id: its ID
 * @destroyed: the node is known to be destroyed
 * @referenced: it owns one user reference in the kernel; under the lock, as what follows
 * @listed: it is in the table
 * @used: the kernel may know the ID; as what follows, of the owner's handles only
 * @busy: commands that use it now
 * @rearming: how many of them are of bus1__handle_rearm()
 * @shared: the clock when it was given to others last
 * @rearm: when it is not busy any more ask the kernel anew who has it
 * @destroying: this process destroys the node now
 * @again: commands were using it then, which may have made the node anew
 * @next: in the table
 * @node: the object of the node, if this is the owner's handle and there is one
 * @handler: for the destruction of the node
 * @userdata: for @handler
 */
struct bus1_handle {
	atomic_uint refs;
	unsigned int epoch;
	struct bus1_peer *peer;
	uint64_t id;
	atomic_bool destroyed;
	bool referenced;
	bool listed;
	bool used;
	unsigned int busy;
	unsigned int rearming;
	uint64_t shared;
	bool rearm;
	bool destroying;
	bool again;
	struct bus1_handle *next;
	struct bus1_node *node;
	bus1_handler_t handler;
	void *userdata;
};

/**
 * struct bus1_node
 * @refs: references
 * @handle: the owner's handle
 * @handler: for messages
 * @userdata: for @handler
 * @gone: it is destroyed, or about to be; under the lock, as what follows
 * @silent: this process has destroyed it: @handler is not called any more
 * @next: in the list of those that are doomed
 * @id: its ID there, where it has no handle any more
 * @trying: a thread tries to destroy it, and takes it off the list
 */
struct bus1_node {
	atomic_uint refs;
	struct bus1_handle *handle;
	bus1_handler_t handler;
	void *userdata;
	bool gone;
	bool silent;
	struct bus1_node *next;
	uint64_t id;
	bool trying;
};

/**
 * struct delivery - what is to be done when a message was handed out, without the lock
 * @n_surplus: references of the kernel that are to be dropped
 * @handle: to be rearmed, or NULL
 * @stale: it is not true any more
 */
struct delivery {
	size_t n_surplus;
	struct bus1_handle *handle;
	bool stale;
};

/**
 * struct bus1_message
 * @refs: references
 * @epoch: that of the peer when it was received
 * @peer: the receiver; NULL in the queue
 * @next: in the queue; later, of those that were handed out
 * @pprev: what points to it there; NULL if it is not
 * @clock: that of the peer before it was received
 * @msg: what the kernel said of it
 * @map: where the slice is
 * @data: the slice
 * @cursor: of bus1_message_read()
 * @node: what it was sent to, or is about; set when it is handed out
 * @handle: of a node that is destroyed
 * @handles: those of its handles that were asked for; under the lock
 * @meta: its IDs, and then its descriptors, that are needed when the slice is gone
 * @taken: a bit for each descriptor that was taken; under the lock
 * @small: @meta of most messages
 */
struct bus1_message {
	atomic_uint refs;
	unsigned int epoch;
	struct bus1_peer *peer;
	struct bus1_message *next;
	struct bus1_message **pprev;
	uint64_t clock;
	struct bus1_msg msg;
	struct map *map;
	const uint8_t *data;
	size_t cursor;
	struct bus1_node *node;
	struct bus1_handle *handle;
	struct bus1_handle **handles;
	const uint8_t *meta;
	uint32_t taken[BUS1_FD_MAX / 32];
	uint64_t small[4];
};

/* error.c */
int bus1__fail(enum bus1_command command, int error);

/* peer.c */
extern unsigned int bus1__generation;

/* The process of @peer is another one, its parent or so. */
static inline bool bus1__forked(const struct bus1_peer *peer)
{
	return peer->generation != bus1__generation;
}

int bus1__check(const struct bus1_peer *peer);
bool bus1__tell(const struct bus1_peer *peer, unsigned int epoch);
int bus1__ioctl(const struct bus1_peer *peer, unsigned long request, void *argument);
uint64_t bus1__deadline(int64_t timeout_ns);
int bus1__map_grow(struct bus1_peer *peer, size_t length);
size_t bus1__map_length(struct bus1_peer *peer);
void bus1__map_unref(struct map *map);
void bus1__update_event_locked(struct bus1_peer *peer);
void bus1__slice_release(struct bus1_peer *peer, const struct bus1_msg *msg);
int bus1__receive(struct bus1_peer *peer, struct bus1_cmd_send_recv *cmd, size_t n,
		  void (*sent)(void *), void *data);

/* handle.c */
int bus1__handle_get(struct bus1_peer *peer, uint64_t id, bool referenced,
		     struct bus1_handle **handle);
struct bus1_handle *bus1__handle_new_locked(struct bus1_peer *peer, uint64_t id);
bool bus1__handle_adopt_locked(struct bus1_handle *handle);
int bus1__handle_check(const struct bus1_handle *handle);
int bus1__handles_use(struct bus1_handle *const *handles, size_t n);
void bus1__handles_used(struct bus1_handle *const *handles, size_t n, bool shared);
bool bus1__handle_rearm_locked(struct bus1_handle *handle);
void bus1__handle_rearm(struct bus1_handle *handle);
struct bus1_handle *bus1__handle_find_locked(struct bus1_peer *peer, uint64_t id);
void bus1__handle_release(struct bus1_peer *peer, uint64_t id);
void bus1__handles_forget_locked(struct bus1_peer *peer);
void bus1__destroy_doomed(struct bus1_peer *peer);
void bus1__forget_doomed_locked(struct bus1_peer *peer);
bool bus1__dec_unless_last(atomic_uint *refs);

/* message.c */
struct bus1_message *bus1__message_new(struct bus1_peer *peer);
void bus1__message_recycle(struct bus1_peer *peer, struct bus1_message *message);
void bus1__message_fill_locked(struct bus1_peer *peer, struct bus1_message *message,
			       const struct bus1_msg *msg, uint64_t clock);
void bus1__message_drop(struct bus1_peer *peer, struct bus1_message *message);
void bus1__message_deliver_locked(struct bus1_peer *peer, struct bus1_message *message,
				  struct delivery *delivery);
bool bus1__message_delivered(struct bus1_peer *peer, struct bus1_message *message,
			     struct delivery *delivery);
void bus1__message_deliver(struct bus1_peer *peer, struct bus1_message *message);

#endif /* LIBBUS1_INTERNAL_H */
