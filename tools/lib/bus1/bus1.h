/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * libbus1: bus1(7) for programs
 *
 * Peers, nodes, handles and messages of /dev/bus1 as objects. Compile and link with
 * `pkg-config --cflags --libs libbus1`.
 *
 * Errors
 *	Functions that return an int return 0 or more on success, and a negative errno
 *	on failure. What that errno means there is told in words by bus1_last_reason().
 *	Results that are returned through a pointer are left alone by a failure.
 *
 * Reference counts
 *	Objects are made with one reference, that the caller owns. *_ref() adds one, and
 *	*_unref() drops one; both accept NULL, and unref returns NULL always:
 *	`node = bus1_node_unref(node)`. Nodes, handles, messages and builders keep their
 *	peer; the peer is closed when it and all of them are gone. What *_get_*() returns
 *	through its return value is lent: it is good as long as the object that it was
 *	asked of. What is returned through a pointer is a reference of the caller's own.
 *
 * Threads
 *	The library has no threads and no locks that users see. Each function says one of:
 *	 - any thread: can be called at any time, by several threads, on the same object.
 *	   Dropping the last reference while somebody else uses the object without a
 *	   reference of his own is a mistake, as everywhere.
 *	 - one thread: not two threads at the same time on the same object; it can be
 *	   another thread each time.
 *	Handlers run in the thread that dispatches, without any lock held: they can call
 *	everything, bus1_peer_dispatch() and the dropping of their own node included. What
 *	a handler or bus1_peer_recv() is told with %BUS1_TYPE_NODE_RELEASE is true at that
 *	moment, whatever other threads do: nobody else has a handle, and none is on its way.
 *	If they give the handle away meanwhile, it is told later.
 *	Where several threads receive, what two of them have received at the same time may
 *	be handed out in another order; then it can be missed that the node of a handle in
 *	one is destroyed by the other, until the handle is used.
 *
 * Processes
 *	Objects belong to the process that made them. In a child of fork() the functions
 *	fail with -ECHILD, or return nothing, and dropping references frees memory and
 *	closes descriptors, but tells the kernel nothing: the parent's objects stay as they
 *	are. A handler may fork: bus1_peer_dispatch() returns -ECHILD in the child when the
 *	handler has returned. Children that were made by clone() or vfork() itself must not
 *	use them at all.
 *	Descriptors are close-on-exec, all of them.
 *
 * Cancellation
 *	No function is a cancellation point that keeps its promises: do not cancel threads
 *	in them.
 */
#ifndef LIBBUS1_BUS1_H
#define LIBBUS1_BUS1_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/uio.h>

#ifdef __cplusplus
extern "C" {
#endif

/* An open file of /dev/bus1, and all that arrives there. */
struct bus1_peer;
/* An object of a peer, that messages are sent to. */
struct bus1_node;
/* The right of a peer to send to a node. */
struct bus1_handle;
/* A message, or a notification, that was received. */
struct bus1_message;
/* A message that is put together to be sent. */
struct bus1_builder;

/**
 * enum bus1_type - what a received message is
 * @BUS1_TYPE_DATA: a message somebody sent
 * @BUS1_TYPE_NODE_DESTROY: the node behind a handle was destroyed, or its owner is gone
 * @BUS1_TYPE_NODE_RELEASE: nobody else holds a handle to a node of this peer any more
 *
 * The numbers are those of &enum bus1_msg_type of <linux/bus1.h>.
 */
enum bus1_type {
	BUS1_TYPE_DATA		= 1,
	BUS1_TYPE_NODE_DESTROY	= 2,
	BUS1_TYPE_NODE_RELEASE	= 3
};

/**
 * typedef bus1_handler_t - somebody to call with a message
 * @message: the message; good until the handler returns, or for as long as the handler
 *	takes a reference of it
 * @userdata: what was given with the handler
 *
 * Return: 0, or a negative errno, which bus1_peer_dispatch() returns then. The message is
 * done with in either case.
 */
typedef int (*bus1_handler_t)(struct bus1_message *message, void *userdata);

/*
 * Errors
 */

/**
 * enum bus1_command - what may have failed
 * @BUS1_COMMAND_OPEN: opening the device
 * @BUS1_COMMAND_MMAP: mapping the pool
 * @BUS1_COMMAND_DISCONNECT: leaving the bus
 * @BUS1_COMMAND_QUERY: reading limits
 * @BUS1_COMMAND_RESET: setting limits, flushing
 * @BUS1_COMMAND_HANDLE_RELEASE: dropping a reference of a handle
 * @BUS1_COMMAND_HANDLE_TRANSFER: giving a handle to a peer
 * @BUS1_COMMAND_NODES_DESTROY: destroying nodes
 * @BUS1_COMMAND_SLICE_RELEASE: giving back the memory of a message
 * @BUS1_COMMAND_SEND: sending
 * @BUS1_COMMAND_RECV: receiving
 * @BUS1_COMMAND_CALL: sending, and waiting for the reply
 * @BUS1_COMMAND_LIBRARY: what the library refuses by itself
 */
enum bus1_command {
	BUS1_COMMAND_OPEN,
	BUS1_COMMAND_MMAP,
	BUS1_COMMAND_DISCONNECT,
	BUS1_COMMAND_QUERY,
	BUS1_COMMAND_RESET,
	BUS1_COMMAND_HANDLE_RELEASE,
	BUS1_COMMAND_HANDLE_TRANSFER,
	BUS1_COMMAND_NODES_DESTROY,
	BUS1_COMMAND_SLICE_RELEASE,
	BUS1_COMMAND_SEND,
	BUS1_COMMAND_RECV,
	BUS1_COMMAND_CALL,
	BUS1_COMMAND_LIBRARY
};

/**
 * bus1_strerror() - what an errno means for a command
 * @command: the command
 * @error: the errno, negative or positive
 *
 * bus1(7) lists the same. For an errno that the command is not known to fail with it is a
 * sentence that holds for all commands.
 *
 * Any thread.
 *
 * Return: a sentence without a full stop, never NULL. It need not be freed.
 */
const char *bus1_strerror(enum bus1_command command, int error);

/**
 * bus1_last_reason() - why the last function of this library that failed did
 *
 * It is about the calling thread, whatever the object. Functions that succeed do not
 * change it.
 *
 * Any thread.
 *
 * Return: a sentence without a full stop, never NULL; "" if nothing has failed yet. It
 * need not be freed.
 */
const char *bus1_last_reason(void);

/**
 * bus1_version() - the version of the library
 *
 * Any thread.
 *
 * Return: three numbers with dots between them.
 */
const char *bus1_version(void);

/*
 * Peers
 */

/**
 * bus1_peer_new() - open /dev/bus1
 * @peer: where the new peer is stored
 *
 * Any thread.
 *
 * Return: 0, -ENOENT or -ENODEV if the module is not loaded, -EACCES, -EMFILE, -ENFILE,
 * -ENOMEM.
 */
int bus1_peer_new(struct bus1_peer **peer);

/**
 * bus1_peer_new_path() - open a device that lies elsewhere
 * @path: its path
 * @peer: where the new peer is stored
 *
 * Any thread.
 *
 * Return: as bus1_peer_new(), and -ENOTTY if that is not a bus1 device.
 */
int bus1_peer_new_path(const char *path, struct bus1_peer **peer);

/**
 * bus1_peer_new_fd() - use a descriptor of /dev/bus1 that one has
 * @fd: the descriptor, open for reading and writing
 * @peer: where the new peer is stored
 *
 * The peer owns @fd from then on, and closes it at its end. On failure it stays the
 * caller's. The descriptor may have been used before: then bus1_peer_flush() gets rid of
 * what others left there. Its flags are left alone; O_NONBLOCK makes no difference to
 * any function, but that each signal with a handler ends a wait (-EINTR), SA_RESTART or
 * not.
 *
 * No more than one &struct bus1_peer should be used on an open file, in all processes
 * together: each would receive what is meant for the other.
 *
 * Any thread.
 *
 * Return: 0, -EBADF, -ENOTTY if it is not of a bus1 device, -ESHUTDOWN if it is
 * disconnected, -ENFILE, -ENOMEM.
 */
int bus1_peer_new_fd(int fd, struct bus1_peer **peer);

/**
 * bus1_peer_ref() - take a reference
 * @peer: the peer, or NULL
 *
 * Any thread.
 *
 * Return: @peer
 */
struct bus1_peer *bus1_peer_ref(struct bus1_peer *peer);

/**
 * bus1_peer_unref() - drop a reference
 * @peer: the peer, or NULL
 *
 * With the last one, and that of the last node, handle, message and builder, the
 * descriptor is closed: that destroys the nodes, and drops what is queued.
 *
 * Any thread.
 *
 * Return: NULL
 */
struct bus1_peer *bus1_peer_unref(struct bus1_peer *peer);

/**
 * bus1_peer_get_fd() - the descriptor of /dev/bus1
 * @peer: the peer
 *
 * To be given away, to fork() or over a unix socket, or for bus1_handle_transfer_fd() in
 * another process. It stays the peer's. It is not what to poll: see
 * bus1_peer_get_poll_fd().
 *
 * Any thread.
 *
 * Return: the descriptor, or -EBADF after bus1_peer_steal_fd().
 */
int bus1_peer_get_fd(struct bus1_peer *peer);

/**
 * bus1_peer_get_poll_fd() - a descriptor for event loops
 * @peer: the peer
 *
 * It is readable (POLLIN, EPOLLIN; level-triggered or edge-triggered) when
 * bus1_peer_dispatch() has something to do, messages that the library has received
 * already included, or when the peer is disconnected. It is good for poll(), epoll,
 * sd_event_add_io() and g_unix_fd_add(), and for nothing else. It stays the peer's, and
 * is made when first asked for.
 *
 * Any thread.
 *
 * Return: the descriptor, or -EMFILE, -ENFILE, -ENOMEM, -ECHILD, -EBADF.
 */
int bus1_peer_get_poll_fd(struct bus1_peer *peer);

/**
 * bus1_peer_steal_fd() - take the descriptor away from a peer
 * @peer: the peer
 *
 * All objects of the peer are dead from then on: their functions fail with -EBADF, and
 * dropping them tells the kernel nothing, so that nodes, handles and what is queued stay
 * for the next user of the descriptor. What the library has received and not handed out is
 * dropped. Nobody else may use the peer meanwhile. The next user begins with a flush, or
 * else slices of messages that are held now are never given back.
 *
 * One thread.
 *
 * Return: the descriptor, which is the caller's; or -EBADF, -ECHILD.
 */
int bus1_peer_steal_fd(struct bus1_peer *peer);

/**
 * bus1_peer_disconnect() - leave the bus
 * @peer: the peer
 *
 * Destroys all nodes, drops the seed and what is queued, as one transaction. Everything
 * fails with -ESHUTDOWN then. Data of messages that are still held must not be read any
 * more. A bus1_peer_recv() that waits in another thread returns -ESHUTDOWN; what another
 * thread is about to receive is dropped, and descriptors that came with it stay open:
 * nobody can tell which these are.
 *
 * Any thread.
 *
 * Return: 0, -ESHUTDOWN, -EBADF, -ECHILD; -EINTR if a signal has ended the wait for commands
 * of other threads: the peer is disconnected all the same.
 */
int bus1_peer_disconnect(struct bus1_peer *peer);

/**
 * enum bus1_flush_flags - what bus1_peer_flush() drops
 * @BUS1_FLUSH_ALL: every node that the seed does not carry, every handle, what is queued,
 *	and every slice
 * @BUS1_FLUSH_SEED: the seed
 */
enum bus1_flush_flags {
	BUS1_FLUSH_ALL	= 1,
	BUS1_FLUSH_SEED	= 2
};

/**
 * bus1_peer_flush() - begin anew on a peer
 * @peer: the peer
 * @flags: &enum bus1_flush_flags, or-ed
 *
 * After %BUS1_FLUSH_ALL every node, handle and message that this process had of the peer
 * is dead: their functions fail with -ESTALE, and the data of messages must not be read
 * any more. Nodes that the seed carries live on in the kernel: bus1_node_new() with their
 * IDs makes objects for them. Nobody else may use the peer meanwhile.
 *
 * One thread.
 *
 * Return: 0, -EINVAL, -ESHUTDOWN, -EBADF, -ECHILD.
 */
int bus1_peer_flush(struct bus1_peer *peer, unsigned int flags);

/* In struct bus1_limits: leave it as it is. */
#define BUS1_LIMIT_KEEP	UINT32_MAX

/**
 * struct bus1_limits - the most that a peer may hold
 * @slices: messages that it has not given back
 * @handles: handles, those to its own nodes included
 * @bytes: bytes of messages that it has not given back
 * @fds: files of messages that it has not received
 */
struct bus1_limits {
	uint32_t slices;
	uint32_t handles;
	uint32_t bytes;
	uint32_t fds;
};

/**
 * bus1_peer_get_limits() - the peer's own limits
 * @peer: the peer
 * @limits: where they are stored
 *
 * Those of the user apply as well.
 *
 * Any thread.
 *
 * Return: 0, -ESHUTDOWN, -EBADF, -ECHILD.
 */
int bus1_peer_get_limits(struct bus1_peer *peer, struct bus1_limits *limits);

/**
 * bus1_peer_set_limits() - set the peer's own limits
 * @peer: the peer
 * @limits: the new ones; %BUS1_LIMIT_KEEP leaves one as it is
 *
 * Any thread.
 *
 * Return: 0, -EINVAL if one is above INT_MAX, -ESHUTDOWN, -EBADF, -ECHILD.
 */
int bus1_peer_set_limits(struct bus1_peer *peer, const struct bus1_limits *limits);

/**
 * bus1_peer_set_accept_fds() - take files, or not
 * @peer: the peer
 * @accept: whether files of messages become descriptors of this process; they do unless
 *	this function says otherwise
 *
 * Without, files of messages are closed, unseen. It holds for what is received from then
 * on. A process that has no descriptors left receives nothing (-EMFILE) until it has, or
 * until it takes none.
 *
 * Any thread.
 */
void bus1_peer_set_accept_fds(struct bus1_peer *peer, bool accept);

/**
 * bus1_peer_set_handler() - whom to call with what belongs to no handler
 * @peer: the peer
 * @handler: called with messages to nodes, and notifications about nodes and handles,
 *	that have no handler of their own or no object in this process; or NULL
 * @userdata: given to @handler
 *
 * One thread.
 */
void bus1_peer_set_handler(struct bus1_peer *peer, bus1_handler_t handler, void *userdata);

/**
 * bus1_peer_dispatch() - receive what is there, and call handlers; does not wait
 * @peer: the peer
 * @max: the most messages; 0: as many as there are when it is called, and not endlessly
 *	many
 *
 * This is what to call when the descriptor of bus1_peer_get_poll_fd() is readable.
 * Messages without a handler are dropped. With a handler's error it stops; what has been
 * received and not been handled is handled by the next call, in order.
 *
 * Several threads can dispatch the same peer. Each message is handled once; the order is
 * that in which they were received, as far as threads have one. With @max 1 no thread
 * holds messages that another could handle.
 *
 * Any thread.
 *
 * Return: how many messages were received, 0 if there are none; or the error of a
 * handler; or -EMFILE, -ENFILE, -ENOMEM, -ERANGE (the address space has no room to map
 * more of the pool), -EINTR, -ESHUTDOWN, -EBADF, -ECHILD. After an error no message is
 * lost.
 */
int bus1_peer_dispatch(struct bus1_peer *peer, unsigned int max);

/**
 * bus1_peer_recv() - the next message, without calling handlers
 * @peer: the peer
 * @timeout_ns: how long to wait, in nanoseconds; 0 does not wait, -1 waits for ever
 * @message: where the message is stored
 *
 * Any thread.
 *
 * Return: 0; -EAGAIN if there is none and @timeout_ns is 0; -ETIMEDOUT; -EINTR after a
 * signal whose handler was not installed with SA_RESTART, or after any that has a handler
 * if the descriptor is O_NONBLOCK; or as bus1_peer_dispatch().
 */
int bus1_peer_recv(struct bus1_peer *peer, int64_t timeout_ns, struct bus1_message **message);

/**
 * bus1_peer_recv_seed() - the seed of the peer
 * @peer: the peer
 * @message: where it is stored
 *
 * It stays the seed. Handles in it to nodes of the peer itself can be made into nodes of
 * this process: bus1_node_new() with their IDs.
 *
 * Any thread.
 *
 * Return: 0; -EAGAIN if there is none; -EDQUOT; -EXFULL; or as bus1_peer_recv().
 */
int bus1_peer_recv_seed(struct bus1_peer *peer, struct bus1_message **message);

/**
 * bus1_peer_trim() - give back what messages have left behind, now
 * @peer: the peer
 *
 * Small slices of messages that are gone are given back together with the next command,
 * at most 16 of them and 64 KiB in all. A program that receives nothing for a while, and
 * does not call bus1_peer_dispatch() until that returns 0, may want to do that earlier.
 *
 * Any thread.
 *
 * Return: 0, -ESHUTDOWN, -EBADF, -ECHILD.
 */
int bus1_peer_trim(struct bus1_peer *peer);

/*
 * Nodes
 */

/* Let the library choose an ID. */
#define BUS1_ID_AUTO	((uint64_t)0)

/**
 * bus1_node_new() - a node of a peer
 * @peer: the peer
 * @id: %BUS1_ID_AUTO, or the ID of the node: one whose lowest two bits are 0, such as the
 *	ID of a handle in a seed
 * @handler: called with messages to the node, with %BUS1_TYPE_NODE_RELEASE when all others
 *	have dropped their handles, and with %BUS1_TYPE_NODE_DESTROY should somebody else
 *	who uses the peer destroy it; or NULL
 * @userdata: given to @handler
 * @node: where the new node is stored
 *
 * The kernel hears of a new node with the first command that uses its handle. Each node
 * that the library chooses the ID of has one of its own, in all processes that ever used
 * the peer. An ID of one's own choice can be used again when the node is destroyed and all
 * references of its handle are dropped. If other threads receive then, what they have
 * received for the old node may be taken for a message to the new one.
 *
 * Any thread.
 *
 * Return: 0, -EINVAL if @id is none that an owner can choose, -EEXIST if this process has a
 * node with that ID, or the kernel could not destroy one yet that was dropped, -ESTALE if
 * it has a handle of a destroyed one, -ENOMEM, -EBADF,
 * -ECHILD.
 */
int bus1_node_new(struct bus1_peer *peer, uint64_t id, bus1_handler_t handler,
		  void *userdata, struct bus1_node **node);

/**
 * bus1_node_ref() - take a reference
 * @node: the node, or NULL
 *
 * Any thread.
 *
 * Return: @node
 */
struct bus1_node *bus1_node_ref(struct bus1_node *node);

/**
 * bus1_node_unref() - drop a reference
 * @node: the node, or NULL
 *
 * With the last one the node is destroyed, if it is not yet, and what the library has
 * received for it is dropped. A message that was handed out keeps the node that it is for.
 * If the kernel has no memory to destroy it, that is tried again with each receiving, and
 * by bus1_peer_trim(); bus1_node_destroy() tells.
 *
 * Any thread.
 *
 * Return: NULL
 */
struct bus1_node *bus1_node_unref(struct bus1_node *node);

/**
 * bus1_node_destroy() - destroy a node
 * @node: the node
 *
 * Holders are notified. Its handler is not called again, but for calls that other threads
 * are in: not for what was received before, either. Its handle cannot be used any more.
 *
 * Any thread.
 *
 * Return: 0, -ESTALE if it is destroyed already, -EDQUOT, -ENOMEM, -ESHUTDOWN, -EBADF,
 * -ECHILD.
 */
int bus1_node_destroy(struct bus1_node *node);

/**
 * bus1_nodes_destroy_all() - destroy several nodes, as one transaction
 * @nodes: the nodes, all of the same peer, none twice
 * @n_nodes: their number
 *
 * All are destroyed or none.
 *
 * Any thread.
 *
 * Return: as bus1_node_destroy(); -ENOTUNIQ if one is listed twice; -EXDEV if they are of
 * different peers; -EINVAL if they are more than the user's limit of handles; -ENOMEM.
 */
int bus1_nodes_destroy_all(struct bus1_node *const *nodes, size_t n_nodes);

/**
 * bus1_node_get_handle() - the handle of the owner
 * @node: the node
 *
 * To be added to messages, and to be transferred. It is lent. References of it do not
 * count as references of others: %BUS1_TYPE_NODE_RELEASE does not wait for them.
 *
 * Any thread.
 *
 * Return: the handle
 */
struct bus1_handle *bus1_node_get_handle(struct bus1_node *node);

/**
 * bus1_node_get_peer() - the owner
 * @node: the node
 *
 * Any thread.
 *
 * Return: the peer
 */
struct bus1_peer *bus1_node_get_peer(struct bus1_node *node);

/**
 * bus1_node_get_id() - the ID, which means something to its peer only
 * @node: the node
 *
 * Any thread.
 *
 * Return: the ID
 */
uint64_t bus1_node_get_id(struct bus1_node *node);

/**
 * bus1_node_get_userdata() - what was given with the handler
 * @node: the node
 *
 * Any thread.
 *
 * Return: the pointer
 */
void *bus1_node_get_userdata(struct bus1_node *node);

/*
 * Handles
 *
 * A peer has one object for each of its handles. It stands for one reference in the
 * kernel; others that the kernel counts are dropped as they come.
 */

/**
 * bus1_handle_new() - an object for a handle whose ID one knows
 * @peer: the peer
 * @id: the ID, as bus1_handle_transfer_fd() returned it to another process
 * @handle: where the handle is stored
 *
 * The object takes over one reference of the kernel, which must be there. An ID that no
 * handle has is noticed when it is used (-ENXIO).
 *
 * Any thread.
 *
 * Return: 0, -EINVAL if @id is that of no handle, -ENOMEM, -EBADF, -ECHILD.
 */
int bus1_handle_new(struct bus1_peer *peer, uint64_t id, struct bus1_handle **handle);

/**
 * bus1_handle_ref() - take a reference
 * @handle: the handle, or NULL
 *
 * Any thread.
 *
 * Return: @handle
 */
struct bus1_handle *bus1_handle_ref(struct bus1_handle *handle);

/**
 * bus1_handle_unref() - drop a reference
 * @handle: the handle, or NULL
 *
 * With the last one the peer gives up its right to send to the node.
 *
 * Any thread.
 *
 * Return: NULL
 */
struct bus1_handle *bus1_handle_unref(struct bus1_handle *handle);

/**
 * bus1_handle_transfer() - give a handle to another peer of this process
 * @handle: the handle
 * @to: the other peer
 * @result: where the handle of @to is stored
 *
 * Any thread.
 *
 * Return: 0; -EHOSTUNREACH if the node is destroyed; -EDQUOT, -ENXIO, -ENOMEM, -ESTALE,
 * -ESHUTDOWN, -EBADF, -ECHILD.
 */
int bus1_handle_transfer(struct bus1_handle *handle, struct bus1_peer *to,
			 struct bus1_handle **result);

/**
 * bus1_handle_transfer_fd() - give a handle to a peer whose descriptor one has
 * @handle: the handle
 * @fd: the descriptor, which stays the caller's
 * @id: where the ID in that peer is stored, for bus1_handle_new() in the process that
 *	uses it
 *
 * Any thread.
 *
 * Return: as bus1_handle_transfer(), and -EOPNOTSUPP if @fd is not of /dev/bus1.
 */
int bus1_handle_transfer_fd(struct bus1_handle *handle, int fd, uint64_t *id);

/**
 * bus1_handle_set_handler() - whom to call when the node is destroyed
 * @handle: the handle
 * @handler: called with %BUS1_TYPE_NODE_DESTROY, once; or NULL
 * @userdata: given to @handler
 *
 * It is called as long as the object is there. Handles to nodes of the same peer that
 * have a &struct bus1_node call that one's handler instead. A handle whose notification
 * was received before this function is called does not call @handler: whoever depends on
 * it asks bus1_handle_is_destroyed() afterwards.
 *
 * Any thread.
 */
void bus1_handle_set_handler(struct bus1_handle *handle, bus1_handler_t handler,
			     void *userdata);

/**
 * bus1_handle_send() - send some bytes
 * @handle: where to
 * @data: the bytes
 * @size: their number
 *
 * For what is more than that there is &struct bus1_builder.
 *
 * Any thread.
 *
 * Return: as bus1_builder_send()
 */
int bus1_handle_send(struct bus1_handle *handle, const void *data, size_t size);

/**
 * bus1_handle_is_destroyed() - has the notification been received?
 * @handle: the handle
 *
 * Any thread.
 *
 * Return: true once %BUS1_TYPE_NODE_DESTROY was received, or this process has destroyed
 * the node.
 */
bool bus1_handle_is_destroyed(struct bus1_handle *handle);

/**
 * bus1_handle_get_peer() - the peer that has the handle
 * @handle: the handle
 *
 * Any thread.
 *
 * Return: the peer
 */
struct bus1_peer *bus1_handle_get_peer(struct bus1_handle *handle);

/**
 * bus1_handle_get_id() - the ID, which means something to its peer only
 * @handle: the handle
 *
 * Any thread.
 *
 * Return: the ID
 */
uint64_t bus1_handle_get_id(struct bus1_handle *handle);

/*
 * Messages that were received
 *
 * Data lies in the pool, where the kernel has put it: nothing is copied. It does not
 * change, and is good as long as the message. Senders are not to be trusted: what the
 * data says of itself has to be checked.
 */

/**
 * bus1_message_ref() - take a reference
 * @message: the message, or NULL
 *
 * Any thread.
 *
 * Return: @message
 */
struct bus1_message *bus1_message_ref(struct bus1_message *message);

/**
 * bus1_message_unref() - drop a reference
 * @message: the message, or NULL
 *
 * With the last one its slice is given back (see bus1_peer_trim()), descriptors that nobody
 * has taken are closed, and handles that nobody has asked for are dropped.
 *
 * Any thread.
 *
 * Return: NULL
 */
struct bus1_message *bus1_message_unref(struct bus1_message *message);

/**
 * bus1_message_dispatch() - call the handler of a message
 * @message: the message, from bus1_peer_recv()
 *
 * Any thread.
 *
 * Return: what the handler returns, or 0 if there is none, or if its node was destroyed by
 * this process; -ECHILD.
 */
int bus1_message_dispatch(struct bus1_message *message);

/**
 * bus1_message_get_type() - what it is
 * @message: the message
 *
 * Any thread.
 *
 * Return: &enum bus1_type
 */
enum bus1_type bus1_message_get_type(struct bus1_message *message);

/**
 * bus1_message_is_continued() - is the next message part of the same transaction?
 * @message: the message
 *
 * Any thread.
 *
 * Return: true if the next message of the peer belongs to the same transaction, such as
 * a message to two nodes of this peer. It is the truth of when the message was received.
 */
bool bus1_message_is_continued(struct bus1_message *message);

/**
 * bus1_message_get_peer() - the receiver
 * @message: the message
 *
 * Any thread.
 *
 * Return: the peer
 */
struct bus1_peer *bus1_message_get_peer(struct bus1_message *message);

/**
 * bus1_message_get_node() - the node that it was sent to, or that it is about
 * @message: the message
 *
 * Any thread.
 *
 * Return: the node; NULL if this process has no object for it.
 */
struct bus1_node *bus1_message_get_node(struct bus1_message *message);

/**
 * bus1_message_get_destination() - the ID of where it was sent to, or what it is about
 * @message: the message
 *
 * Any thread.
 *
 * Return: the ID of a node of the peer; with %BUS1_TYPE_NODE_DESTROY, of any handle of the
 * peer; with the seed, all ones.
 */
uint64_t bus1_message_get_destination(struct bus1_message *message);

/**
 * bus1_message_get_data() - the bytes
 * @message: the message
 * @size: where their number is stored, or NULL
 *
 * Any thread.
 *
 * Return: the first one, at an address that is a multiple of 8; not NULL.
 */
const void *bus1_message_get_data(struct bus1_message *message, size_t *size);

/**
 * bus1_message_read() - the next bytes
 * @message: the message
 * @size: how many
 *
 * Goes through the data from its beginning, without copying it.
 *
 * One thread.
 *
 * Return: the first one of them; NULL if there are not so many left, and then the next
 * ones stay the next ones. What follows odd numbers of bytes is not aligned.
 */
const void *bus1_message_read(struct bus1_message *message, size_t size);

/**
 * bus1_message_rewind() - let bus1_message_read() begin anew
 * @message: the message
 *
 * One thread.
 */
void bus1_message_rewind(struct bus1_message *message);

/**
 * bus1_message_get_n_handles() - how many handles it has
 * @message: the message
 *
 * Any thread.
 *
 * Return: the number
 */
size_t bus1_message_get_n_handles(struct bus1_message *message);

/**
 * bus1_message_get_handle() - one of its handles
 * @message: the message
 * @index: which, from 0 on
 * @handle: where the handle is stored, with a reference for the caller
 *
 * Any thread.
 *
 * If the node was destroyed later, and that was received before anybody has asked for the
 * handle, it is one that bus1_handle_is_destroyed().
 *
 * Return: 0; -ERANGE if there are not so many; -EHOSTUNREACH if its node was destroyed
 * before the message was sent; -ENOMEM, -ESTALE, -ESHUTDOWN, -EBADF, -ECHILD.
 */
int bus1_message_get_handle(struct bus1_message *message, size_t index,
			    struct bus1_handle **handle);

/**
 * bus1_message_get_reply_handle() - where to reply to
 * @message: the message, that was sent with bus1_builder_call()
 * @handle: where the handle is stored, with a reference for the caller
 *
 * That is the last one of its handles. Any message with a handle has one: whether its
 * sender waits for a reply is something that the two have agreed on.
 *
 * Any thread.
 *
 * Return: as bus1_message_get_handle()
 */
int bus1_message_get_reply_handle(struct bus1_message *message, struct bus1_handle **handle);

/**
 * bus1_message_get_n_fds() - how many descriptors it has
 * @message: the message
 *
 * Any thread.
 *
 * Return: the number
 */
size_t bus1_message_get_n_fds(struct bus1_message *message);

/**
 * bus1_message_get_fd() - one of its descriptors, lent
 * @message: the message
 * @index: which, from 0 on
 *
 * Any thread.
 *
 * Return: the descriptor, which is closed with the message; -ERANGE if there are not so
 * many; -EBADF if somebody has taken it; -ESTALE if the peer was disconnected; -ECHILD.
 */
int bus1_message_get_fd(struct bus1_message *message, size_t index);

/**
 * bus1_message_take_fd() - one of its descriptors, for good
 * @message: the message
 * @index: which, from 0 on
 *
 * Any thread.
 *
 * Return: the descriptor, close-on-exec, that the caller has to close; -ERANGE if there are
 * not so many; -EBADF if somebody has taken it before; -ESTALE if the peer was disconnected;
 * -ECHILD.
 */
int bus1_message_take_fd(struct bus1_message *message, size_t index);

/*
 * Messages to send
 *
 * A builder collects pointers. Bytes are read when it is sent, straight from where they
 * are, and descriptors must be open until then; both stay the caller's. Handles are kept
 * by the builder. It can be sent again, and be changed in between.
 */

/**
 * bus1_builder_new() - an empty message
 * @peer: who sends it
 * @builder: where the new builder is stored
 *
 * Any thread.
 *
 * Return: 0, -ENOMEM, -ECHILD.
 */
int bus1_builder_new(struct bus1_peer *peer, struct bus1_builder **builder);

/**
 * bus1_builder_ref() - take a reference
 * @builder: the builder, or NULL
 *
 * Any thread.
 *
 * Return: @builder
 */
struct bus1_builder *bus1_builder_ref(struct bus1_builder *builder);

/**
 * bus1_builder_unref() - drop a reference
 * @builder: the builder, or NULL
 *
 * Any thread.
 *
 * Return: NULL
 */
struct bus1_builder *bus1_builder_unref(struct bus1_builder *builder);

/**
 * bus1_builder_reset() - make it empty again
 * @builder: the builder
 *
 * Its memory is kept for what comes next.
 *
 * One thread.
 */
void bus1_builder_reset(struct bus1_builder *builder);

/**
 * bus1_builder_add_data() - bytes, behind those that are there
 * @builder: the builder
 * @data: the bytes, which must stay where they are
 * @size: their number
 *
 * They may lie in a message that was received, if that is held until this is sent.
 *
 * One thread.
 *
 * Return: 0, -ENOMEM, -EMSGSIZE if that is more than 1024 pieces.
 */
int bus1_builder_add_data(struct bus1_builder *builder, const void *data, size_t size);

/**
 * bus1_builder_add_iov() - bytes in several places, behind those that are there
 * @builder: the builder
 * @iov: the places; the array itself need not stay
 * @n_iov: their number
 *
 * One thread.
 *
 * Return: as bus1_builder_add_data()
 */
int bus1_builder_add_iov(struct bus1_builder *builder, const struct iovec *iov, size_t n_iov);

/**
 * bus1_builder_add_handle() - a handle to pass on
 * @builder: the builder
 * @handle: a handle of the same peer, bus1_node_get_handle() for one's own node
 *
 * One thread.
 *
 * Return: 0, -ENOMEM, -EXDEV if the handle is of another peer.
 */
int bus1_builder_add_handle(struct bus1_builder *builder, struct bus1_handle *handle);

/**
 * bus1_builder_add_fd() - a file to pass on
 * @builder: the builder
 * @fd: the descriptor; it stays the caller's, and must be open until this is sent
 *
 * One thread.
 *
 * Return: 0, -EBADF if it is negative, -EMSGSIZE if there are 256 already, -ENOMEM.
 */
int bus1_builder_add_fd(struct bus1_builder *builder, int fd);

/**
 * bus1_builder_add_destination() - somebody to send it to
 * @builder: the builder
 * @handle: a handle of the same peer
 *
 * One thread.
 *
 * Return: 0, -ENOMEM, -EXDEV if the handle is of another peer.
 */
int bus1_builder_add_destination(struct bus1_builder *builder, struct bus1_handle *handle);

/**
 * bus1_builder_clear_destinations() - forget whom to send it to, and nothing else
 * @builder: the builder
 *
 * One thread.
 */
void bus1_builder_clear_destinations(struct bus1_builder *builder);

/**
 * enum bus1_send_options - how to send
 * @BUS1_SEND_SKIP: leave out destinations that are destroyed (-EHOSTUNREACH), out of
 *	budget (-EDQUOT) or full (-EXFULL), rather than send to nobody
 */
enum bus1_send_options {
	BUS1_SEND_SKIP	= 1
};

/**
 * bus1_builder_send() - send it to all destinations, as one transaction
 * @builder: the builder
 * @flags: &enum bus1_send_options, or-ed
 *
 * Without %BUS1_SEND_SKIP either each destination gets it or none. It does not wait for
 * room. Why a destination did not get it is told by bus1_builder_get_error(), after
 * failures, too.
 *
 * One thread; the same peer can be sent from by many.
 *
 * Return: the number of destinations that have got it; or -EHOSTUNREACH, -EDQUOT, -EXFULL
 * (one of them cannot be sent to); -ENOTUNIQ (one is listed twice); -ENXIO, -EBADF,
 * -EOPNOTSUPP (a kind of file that cannot be sent), -EMSGSIZE, -EINVAL, -EFAULT, -ENOMEM,
 * -ESTALE, -ESHUTDOWN, -ECHILD.
 */
int bus1_builder_send(struct bus1_builder *builder, unsigned int flags);

/**
 * bus1_builder_get_n_destinations() - how many destinations it has
 * @builder: the builder
 *
 * One thread.
 *
 * Return: the number
 */
size_t bus1_builder_get_n_destinations(struct bus1_builder *builder);

/**
 * bus1_builder_get_error() - what came of one destination
 * @builder: the builder
 * @index: which, from 0 on, in the order in which they were added
 *
 * One thread.
 *
 * Return: 0, or -EHOSTUNREACH, -EDQUOT, -EXFULL, as of the last time that it was sent and
 * that the kernel looked at all of them. -ERANGE if there are not so many; -ENODATA if
 * it was not sent yet, or has failed before they were looked at.
 */
int bus1_builder_get_error(struct bus1_builder *builder, size_t index);

/**
 * bus1_builder_send_seed() - make it the seed of its peer
 * @builder: the builder, without destinations
 *
 * One thread.
 *
 * Return: 0, or -EINVAL if there are destinations, or as bus1_builder_send().
 */
int bus1_builder_send_seed(struct bus1_builder *builder);

/**
 * bus1_builder_call() - send it, and wait for the reply
 * @builder: the builder, with one destination
 * @timeout_ns: how long to wait, in nanoseconds; -1 waits for ever
 * @reply: where the reply is stored
 *
 * A handle to a node that is made for this call is added behind the others; whoever
 * replies sends to it (bus1_builder_reply()). The node is destroyed before this returns,
 * so no late answer can be taken for that of another call. What else the peer receives
 * meanwhile is kept, in order, for bus1_peer_dispatch() and bus1_peer_recv(). Nothing is
 * dispatched here.
 *
 * One thread, and no other thread may receive on the same peer meanwhile: it could be the
 * one that receives the reply, which would then be noticed when this one is woken.
 *
 * Return: 0; -ETIMEDOUT; -ECONNRESET if nobody can reply any more, as all handles to that
 * node were dropped; -EINTR; -EINVAL if there is not one destination; -EBUSY if another
 * thread is in a call of the same peer; or as
 * bus1_builder_send() and bus1_peer_recv(). After -ETIMEDOUT, -ECONNRESET, -EINTR the
 * request may have been received.
 */
int bus1_builder_call(struct bus1_builder *builder, int64_t timeout_ns,
		      struct bus1_message **reply);

/**
 * bus1_builder_reply() - send it as the reply to a message
 * @builder: the builder; its destinations are replaced
 * @message: the message, that was sent with bus1_builder_call()
 *
 * One thread.
 *
 * Return: as bus1_builder_send() and bus1_message_get_reply_handle()
 */
int bus1_builder_reply(struct bus1_builder *builder, struct bus1_message *message);

#ifdef __cplusplus
}
#endif

#endif /* LIBBUS1_BUS1_H */
