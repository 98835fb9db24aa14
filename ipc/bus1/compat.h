/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_COMPAT_H
#define __BUS1_COMPAT_H

/**
 * DOC: Older kernels
 *
 * The only file that knows kernel versions. It presents the API of the newest
 * kernel on the older ones that are supported, down to 6.1, so that the rest of
 * the module is written for the newest. Where the kernel's headers give away
 * whether they have something, that is asked, since distributions backport;
 * only the rest goes by version. Each entry says when it can go.
 */

#include <linux/file.h>
#include <linux/mm.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/version.h>

/*
 * receive_fd() with a place to store the descriptor: 6.8. Always NULL here. Goes
 * with 6.1.
 */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
#define receive_fd(file, ufd, flags) receive_fd(file, flags)
#endif

/* What a build with INIT_STACK_ALL_ZERO need not zero: 6.11, and some of 6.1. Goes with 6.1. */
#ifndef __uninitialized
#define __uninitialized
#endif

/* vm_flags_set(), vm_flags_clear(): 6.3. Goes with 6.1. */
#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_set(struct vm_area_struct *vma, unsigned long flags)
{
	vma->vm_flags |= flags;
}

static inline void vm_flags_clear(struct vm_area_struct *vma,
				  unsigned long flags)
{
	vma->vm_flags &= ~flags;
}
#endif

/*
 * shrinker_alloc() and its family: 6.7, with which %SHRINKER_ALLOCATED came.
 * Before, shrinkers are memory of the caller, and registering one can fail. If
 * it does, the shrinker stays unregistered, which unregister_shrinker() knows to
 * expect. The name is only seen with %CONFIG_SHRINKER_DEBUG. Goes with 6.1.
 */
#ifndef SHRINKER_ALLOCATED
static inline __printf(2, 3)
struct shrinker *shrinker_alloc(unsigned int flags, const char *fmt, ...)
{
	struct shrinker *shrinker;

	shrinker = kzalloc(sizeof(*shrinker), GFP_KERNEL);
	if (shrinker) {
		shrinker->flags = flags;
		shrinker->seeks = DEFAULT_SEEKS;
	}
	return shrinker;
}

static inline void shrinker_register(struct shrinker *shrinker)
{
	if (register_shrinker(shrinker, KBUILD_MODNAME))
		pr_warn("cannot register a shrinker\n");
}

static inline void shrinker_free(struct shrinker *shrinker)
{
	if (shrinker) {
		unregister_shrinker(shrinker);
		kfree(shrinker);
	}
}
#endif

#endif /* __BUS1_COMPAT_H */
