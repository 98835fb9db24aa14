/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_UTIL_POOL_INTERNAL_H
#define __BUS1_UTIL_POOL_INTERNAL_H

/**
 * DOC: Inside of pools
 *
 * What the two halves of a pool know of each other: pool.c deals with slices,
 * pool-pages.c with the memory behind them. The locks are listed in pool.c.
 */

#include <linux/atomic.h>
#include <linux/bug.h>
#include <linux/fs.h>
#include <linux/kref.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/mutex.h>
#include <linux/rbtree.h>
#include <linux/rwsem.h>
#include <linux/sizes.h>
#include <linux/spinlock.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include "pool.h"

/**
 * struct bus1_pool - memory that messages arrive in
 * @ref: the owner, and each file behind a mapping (atomic)
 * @size: bytes, a multiple of the page size (const)
 * @keep: up to there, in bytes, slices may stay that are not used; 0 in a small pool (const)
 * @memcg: whom memory is charged to, or NULL (const)
 * @pages: page number to page (xa lock; RCU to read)
 * @n_pages: number of entries in @pages (atomic)
 * @lock: protects slices
 * @slices: all slices by offset, @trim and @end included (pool->lock)
 * @parked: one of @slices that gives way to whoever wants its room, or NULL (pool->lock)
 * @n_filled: so many pages at least, from the lowest on, are there without a gap
 *	(pool->lock)
 * @peak: end of the highest slice allocated, or taken back, since the idle work ran, in
 *	bytes (pool->lock)
 * @end: carries the gap above the highest slice (pool->lock)
 * @map_sem: keeps pages in @pages while they are mapped
 * @trim_lock: protects @trim
 * @trim: what a trimmer reserved; not in @slices when there is none
 *	(trim_lock; linked under pool->lock)
 * @shrink_pos: page where the shrinker goes on (trim_lock)
 * @idle: gives back memory that is not used (internal lock)
 * @link: in bus1_pool_list, once the pool was worth it (bus1_pool_lock)
 * @mapping: all mappings of this pool, to unmap pages from them (internal lock)
 */
struct bus1_pool {
	struct kref ref;
	u64 size;
	u64 keep;
	struct mem_cgroup *memcg;
	struct xarray pages;
	atomic_t n_pages;
	spinlock_t lock; /* see above */
	struct rb_root slices;
	struct bus1_pool_slice *parked;
	unsigned long n_filled;
	u64 peak;
	struct bus1_pool_slice end;
	struct rw_semaphore map_sem;
	struct mutex trim_lock; /* see above */
	struct bus1_pool_slice trim;
	unsigned long shrink_pos;
	struct delayed_work idle;
	struct list_head link;
	struct address_space mapping;
};

/* The number of the page behind the last one that a slice is in. */
static inline unsigned long bus1_pool_slice_end(const struct bus1_pool_slice *slice)
{
	return (slice->offset + slice->size + PAGE_SIZE - 1) >> PAGE_SHIFT;
}

struct page *bus1_pool_pages_run(struct bus1_pool *pool,
				 struct bus1_pool_slice *slice, u64 pos, size_t *lenp);

/* Pages that a pool keeps once it has them, at its lower end. */
#define BUS1_POOL_KEEP		4UL
/* Bytes that are copied without a look at signals and the scheduler. */
#define BUS1_POOL_RUN_MAX	SZ_64K

/**
 * bus1_pool_run() - find memory of an allocated slice
 * @pool: the pool
 * @slice: the slice
 * @pos: a byte of the slice, as an offset in the pool
 * @lenp: how many bytes from there on are wanted, all in the slice; lowered to
 *	what lies one behind the other in the kernel's addresses
 *
 * Context: Any.
 * Return: The page of @pos, as long as the slice is allocated; with
 *	kmap_local_page() it is that of @lenp bytes.
 */
static inline struct page *bus1_pool_run(struct bus1_pool *pool,
					 struct bus1_pool_slice *slice,
					 u64 pos, size_t *lenp)
{
	/* Nearly all slices are in one page */
	if (pos >> PAGE_SHIFT == slice->offset >> PAGE_SHIFT &&
	    offset_in_page(pos) + *lenp <= PAGE_SIZE)
		return slice->page;
	return bus1_pool_pages_run(pool, slice, pos, lenp);
}

struct bus1_pool_slice *bus1_pool_lookup_locked(struct bus1_pool *pool,
						u64 offset);
void bus1_pool_insert_locked(struct bus1_pool *pool,
			     struct bus1_pool_slice *next,
			     struct bus1_pool_slice *slice,
			     u64 offset, u64 size);
bool bus1_pool_evict_locked(struct bus1_pool *pool);
void bus1_pool_unreserve(struct bus1_pool *pool, struct bus1_pool_slice *slice);

void bus1_pool_pages_init(struct bus1_pool *pool);
void bus1_pool_pages_deinit(struct bus1_pool *pool);
struct page *bus1_pool_pages_first(struct bus1_pool *pool,
				   const struct bus1_pool_slice *slice);
int bus1_pool_pages_populate(struct bus1_pool *pool,
			     struct bus1_pool_slice *slice);
void bus1_pool_pages_unused(struct bus1_pool *pool);

#endif /* __BUS1_UTIL_POOL_INTERNAL_H */
