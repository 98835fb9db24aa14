// SPDX-License-Identifier: GPL-2.0-only
/*
 * Pools: mappable memory that messages arrive in
 *
 * Locks, outermost first: whoever holds one may only take those below it.
 *
 * | # | lock              | kind     | protects                               |
 * |---|-------------------|----------|----------------------------------------|
 * | 1 | bus1_pool_shrink  | mutex    | pools that the shrinker works on, from |
 * |   |                   |          | being destroyed                        |
 * | 2 | pool->map_sem     | rwsem    | pages that a fault maps, from leaving  |
 * | 3 | pool->trim_lock   | mutex    | pool->trim, the one reservation of a   |
 * |   |                   |          | trimmer; pool->shrink_pos              |
 * | 4 | (mapping i_mmap)  | rwsem    | the kernel's: the mappings of a pool   |
 * | 5 | bus1_pool_lock    | spinlock | the list of pools that can be shrunk   |
 * | 6 | pool->lock        | spinlock | slices, gaps, publication              |
 * | 7 | pool->pages (xa)  | spinlock | which pages there are                  |
 *
 * Direct reclaim gets to 1 to 3 through the shrinker, and only tries them, 2
 * inside of 3 there. Only faults allocate (page tables) while they hold one, 2.
 * So whoever has 3 always gets on, and a sender that needs the reservation of a
 * trimmer waits for one chunk, or for as many as the shrinker was asked for, and
 * never for a fault.
 * 5 to 7 do not nest in each other, and none is taken in interrupt context.
 * The kernel's mmap_lock is outside of all: a fault takes 2 under it, and
 * reclaim on behalf of a fault what reclaim takes.
 *
 * The page of an allocated slice never leaves the index, so pages of a slice
 * are found and copied to without any lock. Pages only leave by the hand of a
 * trimmer, which first reserves the range they are in, like a sender would.
 */

#include <linux/err.h>
#include <linux/highmem.h>
#include <linux/memcontrol.h>
#include <linux/rbtree_augmented.h>
#include <linux/sched/signal.h>
#include <linux/slab.h>
#include <linux/uio.h>
#include "pool-internal.h"

/* So large is a pool at least in which unused slices may stay, in bytes. */
#define BUS1_POOL_KEEP_MIN	(64 * BUS1_POOL_KEEP * PAGE_SIZE)
/* Slices that are looked at while pool->lock is held once. */
#define BUS1_POOL_WALK_CHUNK	64

/*
 * Slices
 */

#define bus1_pool_slice_gap(_slice) ((_slice)->gap)
RB_DECLARE_CALLBACKS_MAX(static, bus1_pool_augment, struct bus1_pool_slice, rb,
			 u64, subtree_gap, bus1_pool_slice_gap)

static struct bus1_pool_slice *bus1_pool_slice_of(struct rb_node *rb)
{
	return rb_entry_safe(rb, struct bus1_pool_slice, rb);
}

/**
 * bus1_pool_lookup_locked() - find the lowest slice that ends above an offset
 * @pool: the pool
 * @offset: in bytes
 *
 * Context: Any. Caller holds pool->lock.
 * Return: The slice, which may be the end of the pool; NULL beyond that.
 */
struct bus1_pool_slice *bus1_pool_lookup_locked(struct bus1_pool *pool,
						u64 offset)
{
	struct bus1_pool_slice *slice, *found = NULL;
	struct rb_node *rb = pool->slices.rb_node;

	lockdep_assert_held(&pool->lock);

	while (rb) {
		slice = bus1_pool_slice_of(rb);
		if (slice->offset + slice->size > offset) {
			found = slice;
			rb = rb->rb_left;
		} else {
			rb = rb->rb_right;
		}
	}
	return found;
}

/* Find the slice above the lowest gap of at least @size bytes, or NULL. */
static struct bus1_pool_slice *
bus1_pool_find_gap_locked(struct bus1_pool *pool, u64 size)
{
	struct bus1_pool_slice *slice, *left;

	lockdep_assert_held(&pool->lock);

	slice = bus1_pool_slice_of(pool->slices.rb_node);
	if (slice->subtree_gap < size)
		return NULL;

	for (;;) {
		left = bus1_pool_slice_of(slice->rb.rb_left);
		if (left && left->subtree_gap >= size)
			slice = left;
		else if (slice->gap < size)
			slice = bus1_pool_slice_of(slice->rb.rb_right);
		else
			return slice;
	}
}

/**
 * bus1_pool_insert_locked() - put a slice into a gap
 * @pool: the pool
 * @next: the slice above the gap
 * @slice: the slice, not in use
 * @offset: where to, in bytes; in the gap
 * @size: bytes, which fit there
 *
 * Context: Any. Caller holds pool->lock.
 */
void bus1_pool_insert_locked(struct bus1_pool *pool,
			     struct bus1_pool_slice *next,
			     struct bus1_pool_slice *slice,
			     u64 offset, u64 size)
{
	struct rb_node *parent = &next->rb, **link = &parent->rb_left;

	lockdep_assert_held(&pool->lock);

	slice->offset = offset;
	slice->size = size;
	slice->gap = offset - (next->offset - next->gap);
	slice->subtree_gap = slice->gap;
	slice->published = false;
	slice->parked = false;

	next->gap = next->offset - (offset + size);
	bus1_pool_augment_propagate(&next->rb, NULL);

	while (*link) {
		parent = *link;
		link = &parent->rb_right;
	}
	rb_link_node(&slice->rb, parent, link);
	bus1_pool_augment_propagate(parent, NULL);
	rb_insert_augmented(&slice->rb, &pool->slices, &bus1_pool_augment);
}

/* Give the range of @slice to the gap below the slice above it. */
static void bus1_pool_remove_locked(struct bus1_pool *pool,
				    struct bus1_pool_slice *slice)
{
	struct bus1_pool_slice *next = bus1_pool_slice_of(rb_next(&slice->rb));

	lockdep_assert_held(&pool->lock);

	next->gap += slice->gap + slice->size;
	bus1_pool_augment_propagate(&next->rb, NULL);
	rb_erase_augmented(&slice->rb, &pool->slices, &bus1_pool_augment);
	RB_CLEAR_NODE(&slice->rb);
}

/**
 * bus1_pool_evict_locked() - give back the range of the slice that is parked
 * @pool: the pool
 *
 * Its owner is told by bus1_pool_unpark(), if it asks.
 *
 * Context: Any. Caller holds pool->lock.
 * Return: True if there was one.
 */
bool bus1_pool_evict_locked(struct bus1_pool *pool)
{
	struct bus1_pool_slice *slice = pool->parked;

	lockdep_assert_held(&pool->lock);

	if (!slice)
		return false;
	pool->parked = NULL;
	bus1_pool_remove_locked(pool, slice);
	return true;
}

/*
 * Returns 0, -EXFULL, or -EAGAIN if a trimmer may be what is in the way. Sets *@filled
 * if all pages are there: none of a slice leaves.
 */
static int bus1_pool_reserve(struct bus1_pool *pool,
			     struct bus1_pool_slice *slice, u64 size,
			     bool *filled)
{
	struct bus1_pool_slice *next;
	int r = 0;

	spin_lock(&pool->lock);
	next = bus1_pool_find_gap_locked(pool, size);
	/* Not if a trimmer is in the way, who is not for long */
	if (unlikely(!next) && RB_EMPTY_NODE(&pool->trim.rb) &&
	    bus1_pool_evict_locked(pool))
		next = bus1_pool_find_gap_locked(pool, size);
	if (likely(next)) {
		bus1_pool_insert_locked(pool, next, slice,
					next->offset - next->gap, size);
		pool->peak = max(pool->peak, slice->offset + size);
		*filled = bus1_pool_slice_end(slice) <= pool->n_filled;
	} else {
		r = RB_EMPTY_NODE(&pool->trim.rb) ? -EXFULL : -EAGAIN;
	}
	spin_unlock(&pool->lock);
	return r;
}

/* All pages of @slice are there. */
static void bus1_pool_fill(struct bus1_pool *pool,
			   const struct bus1_pool_slice *slice)
{
	spin_lock(&pool->lock);
	if (slice->offset >> PAGE_SHIFT <= pool->n_filled)
		pool->n_filled = max(pool->n_filled, bus1_pool_slice_end(slice));
	spin_unlock(&pool->lock);
}

/**
 * bus1_pool_unreserve() - give back the range of a slice
 * @pool: the pool
 * @slice: the slice, in the pool
 *
 * Context: Any but interrupts. Takes pool->lock.
 */
void bus1_pool_unreserve(struct bus1_pool *pool, struct bus1_pool_slice *slice)
{
	spin_lock(&pool->lock);
	bus1_pool_remove_locked(pool, slice);
	spin_unlock(&pool->lock);
}

/*
 * Life
 */

/**
 * bus1_pool_new() - create a pool
 * @size: bytes; rounded down to whole pages, and to %BUS1_POOL_SIZE_MAX
 *
 * The pool has no memory yet. What it gets is charged to the memory cgroup of
 * the caller.
 *
 * Context: Process context, may sleep.
 * Return: The pool, with one reference, or ERR_PTR(-ENOMEM).
 */
struct bus1_pool *bus1_pool_new(u64 size)
{
	struct bus1_pool *pool;

	pool = kzalloc(sizeof(*pool), GFP_KERNEL_ACCOUNT);
	if (!pool)
		return ERR_PTR(-ENOMEM);

	kref_init(&pool->ref);
	pool->size = round_down(min(size, BUS1_POOL_SIZE_MAX), PAGE_SIZE);
	pool->keep = pool->size < BUS1_POOL_KEEP_MIN ? 0 : BUS1_POOL_KEEP * PAGE_SIZE;
	pool->memcg = get_mem_cgroup_from_mm(current->mm);
	spin_lock_init(&pool->lock);
	bus1_pool_pages_init(pool);

	pool->slices = RB_ROOT;
	pool->end.offset = pool->size;
	pool->end.gap = pool->size;
	pool->end.subtree_gap = pool->size;
	rb_link_node(&pool->end.rb, NULL, &pool->slices.rb_node);
	rb_insert_augmented(&pool->end.rb, &pool->slices, &bus1_pool_augment);
	return pool;
}

static void bus1_pool_free_pool(struct kref *ref)
{
	struct bus1_pool *pool = container_of(ref, struct bus1_pool, ref);

	WARN_ON_ONCE(pool->slices.rb_node != &pool->end.rb ||
		     pool->end.gap != pool->size);
	bus1_pool_pages_deinit(pool);
	mem_cgroup_put(pool->memcg);
	kfree(pool);
}

/**
 * bus1_pool_ref() - take a reference
 * @pool: the pool, or NULL
 *
 * Context: Any.
 * Return: @pool.
 */
struct bus1_pool *bus1_pool_ref(struct bus1_pool *pool)
{
	if (pool)
		kref_get(&pool->ref);
	return pool;
}

/**
 * bus1_pool_unref() - drop a reference
 * @pool: the pool, or NULL
 *
 * With the last one, the pool goes. There must not be slices by then.
 *
 * Context: Process context, may sleep, but not on behalf of memory reclaim.
 * Return: NULL.
 */
struct bus1_pool *bus1_pool_unref(struct bus1_pool *pool)
{
	if (pool)
		kref_put(&pool->ref, bus1_pool_free_pool);
	return NULL;
}

/*
 * Use
 */

/**
 * bus1_pool_alloc() - allocate a slice
 * @pool: the pool
 * @slice: the slice, not in use
 * @size: bytes, at least 1; rounded up to %BUS1_POOL_SLICE_ALIGN
 *
 * Finds the lowest room for a slice, and the memory for it. The slice is not
 * published, and holds what was there before. If there is no room otherwise, the slice
 * that is parked makes some. On failure nothing is allocated.
 *
 * Context: Process context, may sleep. Waits for memory of the pool's memory
 *          cgroup, but never for user space.
 * Return: 0 on success, -EXFULL if there is no room in the pool, or no memory
 *         for it; -EINTR if the caller was killed meanwhile.
 */
int bus1_pool_alloc(struct bus1_pool *pool, struct bus1_pool_slice *slice,
		    u64 size)
{
	bool filled = false;
	int r;

	if (WARN_ON_ONCE(!size))
		return -EINVAL;
	if (size > pool->size)
		return -EXFULL;

	size = ALIGN(size, BUS1_POOL_SLICE_ALIGN);
	r = bus1_pool_reserve(pool, slice, size, &filled);
	if (unlikely(r == -EAGAIN)) {
		/* With the lock of trimmers nothing of theirs is in the way. */
		mutex_lock(&pool->trim_lock);
		r = bus1_pool_reserve(pool, slice, size, &filled);
		mutex_unlock(&pool->trim_lock);
	}
	if (r < 0)
		return r;

	/* [trim:B] pairs with [trim:A] in bus1_pool_trim_chunk() */
	if (filled) {
		slice->page = bus1_pool_pages_first(pool, slice);
		return 0;
	}
	r = bus1_pool_pages_populate(pool, slice);
	if (r < 0) {
		bus1_pool_free(pool, slice);
		return r == -ENOMEM ? -EXFULL : r;
	}
	bus1_pool_fill(pool, slice);
	return 0;
}

/**
 * bus1_pool_free() - free a slice
 * @pool: the pool
 * @slice: the slice, allocated or parked
 *
 * What it holds stays there. What nobody was meant to see must be cleared before,
 * with bus1_pool_zero(). One that is parked is free afterwards, whether it had to go or not.
 *
 * Context: Any that pool->lock may be taken in: not interrupts.
 */
void bus1_pool_free(struct bus1_pool *pool, struct bus1_pool_slice *slice)
{
	spin_lock(&pool->lock);
	if (!slice->parked)
		bus1_pool_remove_locked(pool, slice);
	else if (pool->parked == slice)
		bus1_pool_evict_locked(pool);
	spin_unlock(&pool->lock);
	slice->parked = false;
	bus1_pool_pages_unused(pool);
}

static bool bus1_pool_published_locked(const struct bus1_pool *pool,
				       const struct bus1_pool_slice *slice)
{
	lockdep_assert_held(&pool->lock);
	/* [publish:B] pairs with [publish:A] in bus1_pool_publish() */
	return smp_load_acquire(&slice->published);
}

/**
 * bus1_pool_keeps() - ask whether a slice may as well stay when it is not used
 * @pool: the pool
 * @slice: the slice, allocated or parked; or one of size 0, for which any answer will do
 *
 * Who uses it again has to see by bus1_pool_is_above_gap() that it is not high without need.
 * A slice of which this is true need not be parked, and is not.
 *
 * Context: Any.
 * Return: True if the pool would keep its memory anyway, and has so much room that
 *	it is in nobody's way; others can only be parked.
 */
bool bus1_pool_keeps(const struct bus1_pool *pool,
		     const struct bus1_pool_slice *slice)
{
	return slice->offset + slice->size <= pool->keep;
}

/**
 * bus1_pool_park() - leave a slice where it is until it is used again
 * @pool: the pool
 * @slice: the slice, allocated and not published; or one that is parked
 *
 * There may be one such slice in a pool. It is in nobody's way: it goes when there is no
 * other room for a slice, and with all other memory that is not used. Its owner may only
 * ask for it by bus1_pool_unpark(), or free it.
 *
 * Context: Any but interrupts. Takes pool->lock.
 * Return: True if it is parked, or was, and had to go since; false if another one is, and
 *	@slice as it was.
 */
bool bus1_pool_park(struct bus1_pool *pool, struct bus1_pool_slice *slice)
{
	if (slice->parked)
		return true;

	spin_lock(&pool->lock);
	if (!pool->parked) {
		pool->parked = slice;
		slice->parked = true;
	}
	spin_unlock(&pool->lock);

	if (slice->parked)
		bus1_pool_pages_unused(pool);
	return slice->parked;
}

/* Whether a new slice of that size would have to be where this one is, or above. */
static bool bus1_pool_is_lowest_locked(struct bus1_pool *pool,
				       const struct bus1_pool_slice *slice)
{
	const struct bus1_pool_slice *next;

	lockdep_assert_held(&pool->lock);

	next = bus1_pool_find_gap_locked(pool, slice->size);
	return !slice->gap && (!next || next->offset > slice->offset);
}

/**
 * bus1_pool_unpark() - take a slice back
 * @pool: the pool
 * @slice: the slice, parked
 *
 * It goes now, too, if bus1_pool_alloc() would find lower room: offsets, and the memory up to
 * there, would stay high for as long as it is used again.
 *
 * Context: Any but interrupts. Takes pool->lock.
 * Return: True if it is allocated, with what it held; false if it is not any more.
 */
bool bus1_pool_unpark(struct bus1_pool *pool, struct bus1_pool_slice *slice)
{
	bool there;

	spin_lock(&pool->lock);
	there = pool->parked == slice;
	if (there && bus1_pool_is_lowest_locked(pool, slice)) {
		pool->parked = NULL;
		pool->peak = max(pool->peak, slice->offset + slice->size);
	} else if (there) {
		there = false;
		bus1_pool_evict_locked(pool);
	}
	spin_unlock(&pool->lock);
	slice->parked = false;
	return there;
}

/**
 * bus1_pool_publish() - let user space release a slice
 * @slice: the slice, allocated
 *
 * From now on, @slice is whoever's it is that gets it from
 * bus1_pool_unpublish() or bus1_pool_unpublish_next().
 *
 * Context: Any.
 */
void bus1_pool_publish(struct bus1_pool_slice *slice)
{
	/*
	 * [publish:A] pairs with [publish:B] in bus1_pool_published_locked():
	 * whoever finds it published finds all that was done to it before.
	 */
	smp_store_release(&slice->published, true);
}

/**
 * bus1_pool_unpublish() - take a published slice back
 * @pool: the pool
 * @offset: where it starts, in bytes; any value
 *
 * Context: Any but interrupts. Takes pool->lock.
 * Return: The slice, still allocated, to one caller only. NULL if no published
 *         slice starts at @offset.
 */
struct bus1_pool_slice *bus1_pool_unpublish(struct bus1_pool *pool, u64 offset)
{
	struct bus1_pool_slice *slice;

	spin_lock(&pool->lock);
	slice = bus1_pool_lookup_locked(pool, offset);
	if (slice && slice->offset == offset &&
	    bus1_pool_published_locked(pool, slice))
		slice->published = false;
	else
		slice = NULL;
	spin_unlock(&pool->lock);
	return slice;
}

/**
 * bus1_pool_unpublish_next() - take the next published slice back
 * @pool: the pool
 * @pos: where to start looking, in bytes; moved above the slice found
 *
 * Context: Process context, may sleep.
 * Return: The slice, still allocated, to one caller only. NULL if there is no
 *         published slice at or above *@pos.
 */
struct bus1_pool_slice *bus1_pool_unpublish_next(struct bus1_pool *pool,
						 u64 *pos)
{
	struct bus1_pool_slice *slice;
	unsigned int i;

	do {
		spin_lock(&pool->lock);
		slice = bus1_pool_lookup_locked(pool, *pos);
		if (slice && slice->offset < *pos)
			slice = bus1_pool_slice_of(rb_next(&slice->rb));
		for (i = 0; slice && i < BUS1_POOL_WALK_CHUNK; ++i) {
			*pos = slice->offset + slice->size;
			if (bus1_pool_published_locked(pool, slice)) {
				slice->published = false;
				spin_unlock(&pool->lock);
				return slice;
			}
			slice = bus1_pool_slice_of(rb_next(&slice->rb));
		}
		spin_unlock(&pool->lock);
		cond_resched();
	} while (slice);

	return NULL;
}

static bool bus1_pool_has(struct bus1_pool_slice *slice, u64 offset, u64 n)
{
	return !WARN_ON_ONCE(offset > slice->size || n > slice->size - offset);
}

/* Copy to what is in one piece of *@lenp bytes at @pos. Returns how much. */
static size_t bus1_pool_copy_run(struct bus1_pool *pool,
				 struct bus1_pool_slice *slice, u64 pos,
				 size_t *lenp, struct iov_iter *iter)
{
	struct page *page = bus1_pool_run(pool, slice, pos, lenp);
	size_t copied, done;
	void *addr;

	if (!page)
		return 0;

	addr = kmap_local_page(page);
	/* All of it is ours: without a check of what it is that is copied to */
	copied = _copy_from_iter(addr + offset_in_page(pos), *lenp, iter);
	kunmap_local(addr);
	/* Compilers do not see that elsewhere this does nothing */
	if (ARCH_IMPLEMENTS_FLUSH_DCACHE_PAGE) {
		for (done = 0; done < offset_in_page(pos) + *lenp; done += PAGE_SIZE)
			flush_dcache_page(page + (done >> PAGE_SHIFT));
	}
	return copied;
}

/**
 * bus1_pool_write_iter() - copy into a slice, from user space or elsewhere
 * @pool: the pool
 * @slice: the slice, allocated
 * @offset: where in the slice to, in bytes
 * @iter: what; all of it, it must fit
 *
 * Copies straight to the pages, without any lock.
 *
 * Context: Process context, may sleep, and for as long as user space likes if
 *          @iter is of user memory.
 * Return: 0 on success, -EFAULT if @iter cannot be read, -EINTR if the caller
 *         was killed. How much was copied is unknown then.
 */
int bus1_pool_write_iter(struct bus1_pool *pool, struct bus1_pool_slice *slice,
			 u64 offset, struct iov_iter *iter)
{
	u64 pos = slice->offset + offset;
	size_t len, copied;

	if (!bus1_pool_has(slice, offset, iov_iter_count(iter)))
		return -EFAULT;

	while ((len = iov_iter_count(iter))) {
		copied = bus1_pool_copy_run(pool, slice, pos, &len, iter);
		if (copied != len)
			return -EFAULT;
		pos += len;
		if (!iov_iter_count(iter))
			break;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
	}
	return 0;
}

/**
 * bus1_pool_write() - copy into a slice from kernel memory
 * @pool: the pool
 * @slice: the slice, allocated
 * @offset: where in the slice to, in bytes
 * @data: what
 * @n: bytes; they must fit
 *
 * Context: Process context, may sleep.
 */
void bus1_pool_write(struct bus1_pool *pool, struct bus1_pool_slice *slice,
		     u64 offset, const void *data, size_t n)
{
	u64 pos = slice->offset + offset;
	struct page *page;
	size_t len;

	if (!bus1_pool_has(slice, offset, n))
		return;

	for (; n; n -= len, pos += len, data += len) {
		len = min_t(size_t, n, PAGE_SIZE - offset_in_page(pos));
		page = bus1_pool_run(pool, slice, pos, &len);
		if (page)
			memcpy_to_page(page, offset_in_page(pos), data, len);
		cond_resched();
	}
}

/**
 * bus1_pool_zero() - clear a part of a slice
 * @pool: the pool
 * @slice: the slice, allocated
 * @offset: where in the slice, in bytes
 * @n: bytes; they must be in the slice
 *
 * Context: Process context, may sleep.
 */
noinline void bus1_pool_zero(struct bus1_pool *pool, struct bus1_pool_slice *slice,
			     u64 offset, u64 n)
{
	u64 pos = slice->offset + offset;
	struct page *page;
	size_t len;

	if (!bus1_pool_has(slice, offset, n))
		return;

	for (; n; n -= len, pos += len) {
		len = min_t(u64, n, PAGE_SIZE - offset_in_page(pos));
		page = bus1_pool_run(pool, slice, pos, &len);
		if (page)
			memzero_page(page, offset_in_page(pos), len);
		cond_resched();
	}
}

/**
 * bus1_pool_copy() - copy from one slice to another of the same pool
 * @pool: the pool
 * @dst: where to, from its start on
 * @src: where from, from its start on
 * @n: bytes; both slices must have as many
 *
 * Context: Process context, may sleep.
 */
void bus1_pool_copy(struct bus1_pool *pool, struct bus1_pool_slice *dst,
		    struct bus1_pool_slice *src, u64 n)
{
	u64 to = dst->offset, from = src->offset;
	struct page *to_page, *from_page;
	size_t len;

	if (!bus1_pool_has(dst, 0, n) || !bus1_pool_has(src, 0, n))
		return;

	for (; n; n -= len, to += len, from += len) {
		len = min_t(u64, n, PAGE_SIZE - offset_in_page(to));
		len = min_t(u64, len, PAGE_SIZE - offset_in_page(from));
		to_page = bus1_pool_run(pool, dst, to, &len);
		from_page = bus1_pool_run(pool, src, from, &len);
		if (to_page && from_page)
			memcpy_page(to_page, offset_in_page(to), from_page,
				    offset_in_page(from), len);
		cond_resched();
	}
}
