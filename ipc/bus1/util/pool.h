/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_UTIL_POOL_H
#define __BUS1_UTIL_POOL_H

/**
 * DOC: Pools
 *
 * A pool is the memory that messages arrive in: an address space of up to
 * %BUS1_POOL_SIZE_MAX bytes, that user space maps read-only and the kernel
 * writes slices into. It is backed by pages of its own, allocated when the
 * first slice needs them, zeroed, charged to the memory cgroup that the pool
 * was created in, and given back when they have been idle or memory is short.
 *
 * Slices are kept in an rbtree by offset that is augmented with the free gap
 * below each slice. Allocation takes the lowest gap that fits, so that offsets
 * stay small, in logarithmic time, and free memory needs no objects of its own.
 *
 * A pool is reference counted. Its owner holds one reference, and every file
 * behind a mapping one more: a mapping may outlive the owner. Slices are
 * embedded in objects of the user, and must be gone before the last reference.
 */

#include <linux/bits.h>
#include <linux/compiler.h>
#include <linux/rbtree.h>
#include <linux/types.h>

struct file;
struct iov_iter;
struct page;
struct vm_area_struct;

/* The most bytes that a pool can have: offsets fit 32 bits. */
#define BUS1_POOL_SIZE_MAX	BIT_ULL(32)
/* Slices start at multiples of this, in bytes. */
#define BUS1_POOL_SLICE_ALIGN	8

/**
 * struct bus1_pool_slice - a piece of a pool
 * @rb: in pool->slices, by offset (pool->lock)
 * @page: page that it starts in (const while allocated)
 * @offset: offset in the pool, in bytes (const while allocated)
 * @size: size in bytes, a multiple of %BUS1_POOL_SLICE_ALIGN, never 0 (const
 *	while allocated)
 * @gap: free bytes between the slice below and this one (pool->lock)
 * @subtree_gap: largest gap in the subtree (pool->lock)
 * @published: user space may release it (pool->lock to look at it, and to clear it;
 *	set by the owner of the slice, with release)
 * @parked: not used; gone once its room was wanted, which does not show here (owner of
 *	the slice)
 */
struct bus1_pool_slice {
	struct rb_node rb;
	struct page *page;
	u64 offset;
	u64 size;
	u64 gap;
	u64 subtree_gap;
	bool published;
	bool parked;
};

struct bus1_pool;

int bus1_pool_module_init(void);
void bus1_pool_module_exit(void);

struct bus1_pool *bus1_pool_new(u64 size);
struct bus1_pool *bus1_pool_ref(struct bus1_pool *pool);
struct bus1_pool *bus1_pool_unref(struct bus1_pool *pool);
void bus1_pool_trim(struct bus1_pool *pool);

int bus1_pool_alloc(struct bus1_pool *pool, struct bus1_pool_slice *slice,
		    u64 size);
void bus1_pool_free(struct bus1_pool *pool, struct bus1_pool_slice *slice);
bool bus1_pool_keeps(const struct bus1_pool *pool,
		     const struct bus1_pool_slice *slice);
bool bus1_pool_park(struct bus1_pool *pool, struct bus1_pool_slice *slice);
bool bus1_pool_unpark(struct bus1_pool *pool, struct bus1_pool_slice *slice);
void bus1_pool_publish(struct bus1_pool_slice *slice);
struct bus1_pool_slice *bus1_pool_unpublish(struct bus1_pool *pool, u64 offset);
struct bus1_pool_slice *bus1_pool_unpublish_next(struct bus1_pool *pool,
						 u64 *pos);

int bus1_pool_write_iter(struct bus1_pool *pool, struct bus1_pool_slice *slice,
			 u64 offset, struct iov_iter *iter);
void bus1_pool_write(struct bus1_pool *pool, struct bus1_pool_slice *slice,
		     u64 offset, const void *data, size_t n);
void bus1_pool_zero(struct bus1_pool *pool, struct bus1_pool_slice *slice,
		    u64 offset, u64 n);
void bus1_pool_copy(struct bus1_pool *pool, struct bus1_pool_slice *dst,
		    struct bus1_pool_slice *src, u64 n);

int bus1_pool_mmap(struct bus1_pool *pool, struct vm_area_struct *vma);

/**
 * bus1_pool_is_above_gap() - ask whether there is room directly below a slice
 * @slice: the slice, allocated and not parked
 *
 * That changes under pool->lock, and may be otherwise at once.
 *
 * Context: Any.
 * Return: True if there is.
 */
static inline bool bus1_pool_is_above_gap(const struct bus1_pool_slice *slice)
{
	/* Before or after a change: either is an answer */
	return data_race(slice->gap);
}

#endif /* __BUS1_UTIL_POOL_H */
