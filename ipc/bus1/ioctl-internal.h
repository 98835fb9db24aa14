/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_IOCTL_INTERNAL_H
#define __BUS1_IOCTL_INTERNAL_H

/**
 * DOC: Inside of the front end
 *
 * What ioctl.c shares with ioctl-recv.c, which has the commands that receive.
 */

#include <linux/types.h>
#include <linux/uio.h>
#include <uapi/linux/bus1.h>
#include "send.h"

struct bus1_peer;
struct file;

/* Arrays of so many elements are read to the stack. */
#define BUS1_IOCTL_INLINE	BUS1_SEND_INLINE

/**
 * struct bus1_ioctl - a command
 * @peer: peer it is issued on
 * @nr: number of the command
 * @file: its file
 * @uarg: argument, in user space; each field is read once
 * @refused: file of another peer that turned out to disconnect, or NULL
 */
struct bus1_ioctl {
	struct bus1_peer *peer;
	unsigned int nr;
	struct file *file;
	void __user *uarg;
	struct file *refused;
};

/**
 * struct bus1_ioctl_send - the arrays of a SEND
 * @dests: IDs of the destinations
 * @vecs: payload
 * @handles: IDs of the handles
 * @fds: descriptors
 * @n_bytes: bytes in @vecs
 * @few_dests: memory for a few
 * @few_vecs: memory for a few
 * @few_handles: memory for a few
 * @few_fds: memory for a few
 */
struct bus1_ioctl_send {
	void *dests;
	void *vecs;
	void *handles;
	void *fds;
	u64 n_bytes;
	u64 few_dests[BUS1_IOCTL_INLINE];
	struct iovec few_vecs[BUS1_IOCTL_INLINE];
	u64 few_handles[BUS1_IOCTL_INLINE];
	int few_fds[BUS1_IOCTL_INLINE];
};

int bus1_ioctl_ptr(u64 value, void __user **ptrp);
int bus1_ioctl_ids(u64 value, size_t n, u64 *few, void **idsp);
void bus1_ioctl_array_free(void *array, const void *few);

bool bus1_ioctl_send_is_bytes(const struct bus1_cmd_send *args);
int bus1_ioctl_send_bytes_stage(struct bus1_send_bytes *bytes,
				struct bus1_peer *peer,
				const struct bus1_cmd_send *args);

int bus1_ioctl_send_check(const struct bus1_cmd_send *send);
int bus1_ioctl_send_read(const struct bus1_cmd_send *send,
			 struct bus1_ioctl_send *arrays);
void bus1_ioctl_send_free(struct bus1_ioctl_send *arrays);
int bus1_ioctl_send_stage(struct bus1_send *send, struct bus1_peer *peer,
			  const struct bus1_cmd_send *args,
			  const struct bus1_ioctl_send *arrays);

int bus1_ioctl_recv(struct bus1_ioctl *ctx);
int bus1_ioctl_send_recv(struct bus1_ioctl *ctx);

#endif /* __BUS1_IOCTL_INTERNAL_H */
