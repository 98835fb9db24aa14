/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_IOCTL_INTERNAL_H
#define __BUS1_IOCTL_INTERNAL_H

/**
 * DOC: Inside of the front end
 *
 * What ioctl.c shares with ioctl-recv.c, which has the commands that receive.
 */

#include <linux/types.h>

struct bus1_peer;
struct file;

/**
 * struct bus1_ioctl - a command
 * @peer: peer it is issued on
 * @file: its file
 * @uarg: argument, in user space; read once, with its size as a constant, which
 *	spares a look at what the memory is that it is copied to
 * @refused: file of another peer that turned out to disconnect, or NULL
 */
struct bus1_ioctl {
	struct bus1_peer *peer;
	struct file *file;
	void __user *uarg;
	struct file *refused;
};

int bus1_ioctl_recv(struct bus1_ioctl *ctx);

#endif /* __BUS1_IOCTL_INTERNAL_H */
