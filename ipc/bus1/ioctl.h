/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_IOCTL_H
#define __BUS1_IOCTL_H

/**
 * DOC: The ioctl front end
 *
 * Commands of /dev/bus1: structs of user space are read, checked and written
 * here, and nowhere else. The core functions get arguments of the kernel.
 */

struct bus1_peer;
struct file;

long bus1_ioctl(struct bus1_peer *peer, struct file *file, unsigned int cmd,
		unsigned long arg);

#endif /* __BUS1_IOCTL_H */
