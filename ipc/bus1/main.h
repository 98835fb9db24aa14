/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_MAIN_H
#define __BUS1_MAIN_H

#include <linux/types.h>

struct bus1_peer;
struct file;

/*
 * The version of everything in this tree. Who else has to name it stands in
 * tools/version, which sets and compares them.
 */
#define BUS1_VERSION "0.1.0"

bool bus1_is_peer_file(struct file *file);
struct bus1_peer *bus1_file_peer(struct file *file);

#endif /* __BUS1_MAIN_H */
