// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * What errors mean, as bus1(7) lists them
 */
#include "internal.h"

struct text {
	int error;
	const char *text;
};

/* For commands that say nothing else. */
static const struct text common[] = {
	{ 0, "success" },
	{ EBADF, "no such file descriptor" },
	{ EFAULT, "memory of the caller cannot be read or written" },
	{ EINTR, "a signal came" },
	{ EINVAL, "an unknown flag, or a wrong argument" },
	{ ENOMEM, "there is no memory for what the caller needs" },
	{ ENOTTY, "the descriptor is not one of /dev/bus1, or the module is too old" },
	{ ESHUTDOWN, "the peer is disconnected" },
	{ }
};

static const struct text open_texts[] = {
	{ EACCES, "a rule of this system does not let the caller open the device" },
	{ EMFILE, "the process has too many open descriptors" },
	{ ENFILE, "the system has too many open files" },
	{ ENODEV, "there is no such device: the module is not loaded" },
	{ ENOENT, "there is no such device: the module is not loaded" },
	{ ENOTTY, "this is not a device of bus1" },
	{ ENXIO, "there is no such device: the module is not loaded" },
	{ }
};

static const struct text mmap_texts[] = {
	{ EACCES, "the pool can only be mapped for reading" },
	{ ENFILE, "the system has too many open files" },
	{ ENOMEM, "there is no memory, or no address space, to map the pool" },
	{ EPERM, "the pool can only be mapped for reading" },
	{ }
};

static const struct text disconnect_texts[] = {
	{ EINVAL, "the argument is not 0" },
	{ ESHUTDOWN, "the peer is disconnected already" },
	{ }
};

static const struct text reset_texts[] = {
	{ EINVAL, "an unknown flag, or a limit above INT_MAX" },
	{ }
};

static const struct text handle_release_texts[] = {
	{ EBUSY, "only the pinned reference of a live node of the caller is left" },
	{ ENXIO, "there is no such handle" },
	{ }
};

static const struct text handle_transfer_texts[] = {
	{ EBADF, "the other peer is no open file descriptor" },
	{ EDQUOT, "the handle budget of the other peer, or of the caller, is used up" },
	{ EHOSTUNREACH, "the node is destroyed" },
	{ ENXIO, "there is no such handle" },
	{ EOPNOTSUPP, "the descriptor is not one of /dev/bus1" },
	{ ESHUTDOWN, "the peer, or the one that was to get the handle, is disconnected" },
	{ }
};

static const struct text nodes_destroy_texts[] = {
	{ EDQUOT, "the handle budget of the caller is used up" },
	{ EINVAL, "more nodes than the user's limit of handles" },
	{ ENOTUNIQ, "a node is listed twice" },
	{ ENXIO, "there is no such node" },
	{ EREMOTE, "a node belongs to another peer" },
	{ ESTALE, "a node is destroyed already" },
	{ }
};

static const struct text slice_release_texts[] = {
	{ ENXIO, "no received message starts at that offset" },
	{ }
};

static const struct text send_texts[] = {
	{ EBADF, "a file to pass on is no open file descriptor" },
	{ EDQUOT, "a receiver, or the sender's share of it, is out of budget: see its fdinfo" },
	{ EFAULT, "the payload cannot be read" },
	{ EHOSTUNREACH, "a node is destroyed, or its owner is gone" },
	{ EINVAL, "a seed with destinations, or more of them than the limit of handles" },
	{ EMSGSIZE, "it is larger than any receiver takes, or more than 1024 pieces or 256 files" },
	{ ENOTUNIQ, "a destination is listed twice" },
	{ ENXIO, "there is no such handle among the destinations, or those to pass on" },
	{ EOPNOTSUPP, "files of bus1, binder, unix sockets and io_uring cannot be sent" },
	{ EXFULL, "a receiver's pool is full, or its memory cgroup is" },
	{ }
};

static const struct text recv_texts[] = {
	{ EACCES, "a security module keeps a file of the message from this process" },
	{ EAGAIN, "there is no message" },
	{ EDQUOT, "the peer is out of budget for its seed" },
	{ EINTR, "a signal ended the wait" },
	{ EMFILE, "the process has too many open descriptors for the files of the message" },
	{ ENFILE, "the system has too many open files for those of the message" },
	{ ENXIO, "a message that was to be given back is not there" },
	{ ERANGE, "the message lies beyond what can be mapped of the pool" },
	{ ETIMEDOUT, "no message came in time" },
	{ EXFULL, "there is no room in the pool for the seed" },
	{ }
};

/* As sending and receiving, and: */
static const struct text call_texts[] = {
	{ ECONNRESET, "nobody can reply any more: all handles to reply to were dropped" },
	{ EINTR, "a signal ended the wait for the reply" },
	{ ETIMEDOUT, "no reply came in time" },
	{ }
};

static const struct text library_texts[] = {
	{ EBADF, "the descriptor was taken away" },
	{ EBUSY, "another call of the same peer waits for its reply" },
	{ ECHILD, "the object belongs to the process that forked this one" },
	{ EEXIST, "there is an object for a node with that ID" },
	{ EHOSTUNREACH, "the node was destroyed before the message was sent" },
	{ EINVAL, "a wrong argument" },
	{ EMFILE, "the process has too many open descriptors" },
	{ ENFILE, "the system has too many open files" },
	{ ENODATA, "it was not sent, or failed before destinations were looked at" },
	{ ERANGE, "there are not so many" },
	{ ESTALE, "the peer was flushed, or the node destroyed, since the object was made" },
	{ EXDEV, "the objects belong to different peers" },
	{ }
};

static const struct text *const texts[] = {
	[BUS1_COMMAND_OPEN] = open_texts,
	[BUS1_COMMAND_MMAP] = mmap_texts,
	[BUS1_COMMAND_DISCONNECT] = disconnect_texts,
	[BUS1_COMMAND_QUERY] = common,
	[BUS1_COMMAND_RESET] = reset_texts,
	[BUS1_COMMAND_HANDLE_RELEASE] = handle_release_texts,
	[BUS1_COMMAND_HANDLE_TRANSFER] = handle_transfer_texts,
	[BUS1_COMMAND_NODES_DESTROY] = nodes_destroy_texts,
	[BUS1_COMMAND_SLICE_RELEASE] = slice_release_texts,
	[BUS1_COMMAND_SEND] = send_texts,
	[BUS1_COMMAND_RECV] = recv_texts,
	[BUS1_COMMAND_CALL] = call_texts,
	[BUS1_COMMAND_LIBRARY] = library_texts,
};

static __thread const char *last_reason;

static const char *find(const struct text *text, int error)
{
	for (; text->text; text++)
		if (text->error == error)
			return text->text;
	return NULL;
}

EXPORT const char *bus1_strerror(enum bus1_command command, int error)
{
	const char *text = NULL;

	/* The smallest int has no other sign. */
	if (error < 0 && error >= -INT_MAX)
		error = -error;
	if ((unsigned int)command < sizeof(texts) / sizeof(*texts))
		text = find(texts[command], error);
	if (!text && command == BUS1_COMMAND_CALL)
		text = find(send_texts, error);
	if (!text && command == BUS1_COMMAND_CALL)
		text = find(recv_texts, error);
	if (!text)
		text = find(common, error);
	return text ? text : "an error that bus1 does not know of";
}

EXPORT const char *bus1_last_reason(void)
{
	return last_reason ? last_reason : "";
}

/* Remembers what @error, if it is one, means; returns it. */
int bus1__fail(enum bus1_command command, int error)
{
	if (error < 0)
		last_reason = bus1_strerror(command, error);
	return error;
}

EXPORT const char *bus1_version(void)
{
	return BUS1_LIBRARY_VERSION;
}
