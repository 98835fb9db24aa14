/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_IOCTL_INTERNAL_H
#define __BUS1_IOCTL_INTERNAL_H

/**
 * DOC: Inside of the front end
 *
 * What ioctl.c shares with ioctl-recv.c, which has the commands that receive.
 */

#include <linux/types.h>
#include <uapi/linux/bus1.h>
#include "send.h"

struct bus1_peer;
struct file;

/* Arrays of so many elements are read to the stack. */
#define BUS1_IOCTL_INLINE	BUS1_SEND_INLINE

/**
 * struct bus1_ioctl - a command other than SEND and those that receive
 * @peer: peer it is issued on
 * @uarg: argument, in user space; each field is read once
 * @refused: file of another peer that turned out to disconnect, or NULL
 */
struct bus1_ioctl {
	struct bus1_peer *peer;
	void __user *uarg;
	struct file *refused;
};

int bus1_ioctl_ptr(u64 value, void __user **ptrp);
int bus1_ioctl_ids(u64 value, size_t n, u64 *few, void **idsp);
void bus1_ioctl_array_free(void *array, const void *few);

bool bus1_ioctl_send_is_bytes(const struct bus1_cmd_send *args);
int bus1_ioctl_send_bytes(struct bus1_peer *peer, u64 ptr_dest, u64 ptr_vec,
			  struct bus1_cmd_send_recv __user *uarg,
			  const struct bus1_cmd_send_recv *args);
int bus1_ioctl_send_recv_tell(struct bus1_cmd_send_recv __user *uarg,
			      const struct bus1_cmd_send_recv *args);
int bus1_ioctl_send_recv_untell(struct bus1_cmd_send_recv __user *uarg,
				const struct bus1_cmd_send_recv *args);

int bus1_ioctl_send_check(const struct bus1_cmd_send *send);
int bus1_ioctl_send_any(struct bus1_peer *peer, const struct bus1_cmd_send *args,
			struct bus1_cmd_send_recv __user *uarg,
			const struct bus1_cmd_send_recv *more);

int bus1_ioctl_recv(struct bus1_peer *peer, struct file *file,
		    struct bus1_cmd_recv __user *uarg);
int bus1_ioctl_send_recv(struct bus1_peer *peer, struct file *file,
			 struct bus1_cmd_send_recv __user *uarg);

#endif /* __BUS1_IOCTL_INTERNAL_H */
