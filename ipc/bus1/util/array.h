/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_UTIL_ARRAY_H
#define __BUS1_UTIL_ARRAY_H

/**
 * DOC: Arrays
 *
 * Arrays whose length user space picks, within a limit. They are charged to the
 * memory cgroup of the caller, and need no contiguous memory.
 */

#include <linux/types.h>

void *bus1_array_new(size_t n, size_t size);
int bus1_array_check_unique(const u64 *array, size_t n);

#endif /* __BUS1_UTIL_ARRAY_H */
