// SPDX-License-Identifier: GPL-2.0-only

#include <kunit/test.h>
#include <linux/bitmap.h>
#include <linux/err.h>
#include <linux/highmem.h>
#include <linux/limits.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/string.h>
#include <linux/uio.h>
#include <linux/workqueue.h>
#include <linux/xarray.h>
#include "../pool.h"
#include "../pool-internal.h"
#include "kunit.h"

/* A pool small enough to fill it, in units of its alignment. */
#define N_PAGES		32
#define N_UNITS		(N_PAGES * PAGE_SIZE / BUS1_POOL_SLICE_ALIGN)
#define N_SLICES	96

/* What a pool keeps of its pages once they are idle, see pool-pages.c. */
#define N_PAGES_KEPT	4

/* A slice, and what was written into it. */
struct piece {
	struct bus1_pool_slice slice;
	bool allocated;
	u64 n;
	u8 pattern;
};

static struct bus1_pool *pool_new(struct kunit *test, u64 size)
{
	struct bus1_pool *pool = bus1_pool_new(size);

	KUNIT_ASSERT_FALSE(test, IS_ERR(pool));
	return pool;
}

/* Whether all bytes of a slice from @offset on are @byte. Reads as much at once as there is. */
static bool slice_is(struct bus1_pool *pool, struct bus1_pool_slice *slice,
		     u64 offset, u64 n, u8 byte)
{
	u64 pos = slice->offset + offset;
	struct page *page;
	size_t len;
	void *p;

	for (; n; n -= len, pos += len) {
		len = n;
		page = bus1_pool_run(pool, slice, pos, &len);
		if (!page)
			return false;
		p = kmap_local_page(page);
		if (memchr_inv(p + offset_in_page(pos), byte, len)) {
			kunmap_local(p);
			return false;
		}
		kunmap_local(p);
	}
	return true;
}

static void slice_fill(struct bus1_pool *pool, struct bus1_pool_slice *slice,
		       u64 n, u8 byte)
{
	u8 buf[256];
	u64 done;
	size_t len;

	memset(buf, byte, sizeof(buf));
	for (done = 0; done < n; done += len) {
		len = min_t(u64, n - done, sizeof(buf));
		bus1_pool_write(pool, slice, done, buf, len);
	}
}

static u64 child_gap(struct rb_node *rb)
{
	return rb ? rb_entry(rb, struct bus1_pool_slice, rb)->subtree_gap : 0;
}

/* The tree agrees with itself: gaps, and the largest of each subtree. */
static bool pool_tree_is_sound(struct bus1_pool *pool)
{
	struct bus1_pool_slice *slice;
	struct rb_node *rb;
	bool sound = true;
	u64 end = 0, gap;

	spin_lock(&pool->lock);
	for (rb = rb_first(&pool->slices); rb; rb = rb_next(rb)) {
		slice = rb_entry(rb, struct bus1_pool_slice, rb);
		gap = max3(slice->gap, child_gap(rb->rb_left),
			   child_gap(rb->rb_right));
		if (slice->offset % BUS1_POOL_SLICE_ALIGN ||
		    slice->offset < end || slice->gap != slice->offset - end ||
		    slice->subtree_gap != gap)
			sound = false;
		end = slice->offset + slice->size;
	}
	spin_unlock(&pool->lock);
	return sound && end == pool->size;
}

/* Give nothing back behind the back of the test. */
static void pool_stop_idle(struct bus1_pool *pool)
{
	cancel_delayed_work_sync(&pool->idle);
}

static unsigned long pages_indexed(struct bus1_pool *pool)
{
	unsigned long index, n = 0;
	struct page *page;

	xa_for_each(&pool->pages, index, page)
		++n;
	return n;
}

/* Nothing is allocated: one extent, which can be had as a whole. */
static void check_pool_empty(struct kunit *test, struct bus1_pool *pool)
{
	struct bus1_pool_slice slice;

	pool_stop_idle(pool);
	KUNIT_EXPECT_PTR_EQ(test, pool->slices.rb_node, &pool->end.rb);
	KUNIT_EXPECT_EQ(test, pool->end.gap, pool->size);
	KUNIT_EXPECT_EQ(test, pages_indexed(pool),
			(unsigned long)atomic_read(&pool->n_pages));

	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &slice, pool->size), 0);
	KUNIT_EXPECT_EQ(test, slice.offset, 0);
	bus1_pool_free(pool, &slice);

	bus1_pool_trim(pool);
	KUNIT_EXPECT_EQ(test, pages_indexed(pool), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&pool->n_pages), 0);
}

static void bus1_pool_test_limits(struct kunit *test)
{
	struct bus1_pool *pool = pool_new(test, 4 * PAGE_SIZE + 17);
	struct bus1_pool_slice a, b;

	KUNIT_EXPECT_EQ(test, pool->size, 4 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, bus1_pool_alloc(pool, &a, 4 * PAGE_SIZE + 1),
			-EXFULL);
	KUNIT_EXPECT_EQ(test, bus1_pool_alloc(pool, &a, BUS1_POOL_SIZE_MAX),
			-EXFULL);
	KUNIT_EXPECT_EQ(test, bus1_pool_alloc(pool, &a, U64_MAX), -EXFULL);
	KUNIT_EXPECT_EQ(test, bus1_pool_alloc(pool, &a, U64_MAX - 7), -EXFULL);
	check_pool_empty(test, pool);

	/* The last unit, and not one more */
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &a, 4 * PAGE_SIZE - 8), 0);
	KUNIT_EXPECT_EQ(test, bus1_pool_alloc(pool, &b, 9), -EXFULL);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &b, 1), 0);
	KUNIT_EXPECT_EQ(test, b.offset, 4 * PAGE_SIZE - 8);
	KUNIT_EXPECT_EQ(test, b.size, 8);
	KUNIT_EXPECT_TRUE(test, pool_tree_is_sound(pool));
	bus1_pool_free(pool, &a);
	bus1_pool_free(pool, &b);
	check_pool_empty(test, pool);
	bus1_pool_unref(pool);

	/* No room at all */
	pool = pool_new(test, PAGE_SIZE - 1);
	KUNIT_EXPECT_EQ(test, pool->size, 0);
	KUNIT_EXPECT_EQ(test, bus1_pool_alloc(pool, &a, 1), -EXFULL);
	bus1_pool_unref(pool);

	/* The largest there is costs nothing */
	pool = pool_new(test, U64_MAX);
	KUNIT_EXPECT_EQ(test, pool->size, BUS1_POOL_SIZE_MAX);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &a, 1), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&pool->n_pages), 1);
	bus1_pool_free(pool, &a);
	bus1_pool_unref(pool);
}

/*
 * Freed in each order, neighbours grow together. The letters are what is
 * allocated, the points what is free.
 *
 *	[A][B][C]......		free B, then A, then C; and so on
 */
static void bus1_pool_test_coalesce(struct kunit *test)
{
	static const u8 orders[][3] = {
		{ 0, 1, 2 }, { 0, 2, 1 }, { 1, 0, 2 },
		{ 1, 2, 0 }, { 2, 0, 1 }, { 2, 1, 0 },
	};
	struct bus1_pool_slice slices[3], whole;
	struct bus1_pool *pool;
	unsigned int i, j;

	pool = pool_new(test, 3 * PAGE_SIZE);
	for (i = 0; i < ARRAY_SIZE(orders); ++i) {
		for (j = 0; j < 3; ++j) {
			KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &slices[j],
							      PAGE_SIZE), 0);
			KUNIT_EXPECT_EQ(test, slices[j].offset, j * PAGE_SIZE);
		}
		for (j = 0; j < 3; ++j) {
			KUNIT_EXPECT_EQ(test, bus1_pool_alloc(pool, &whole,
							      3 * PAGE_SIZE),
					-EXFULL);
			bus1_pool_free(pool, &slices[orders[i][j]]);
			KUNIT_EXPECT_TRUE(test, pool_tree_is_sound(pool));
		}
		check_pool_empty(test, pool);
	}
	bus1_pool_unref(pool);
}

/*
 * A model: each unit of the pool is a bit. It says where a slice comes to lie,
 * the lowest room that is large enough, and whether there is any.
 */
struct pool_run {
	struct kunit *test;
	struct bus1_pool *pool;
	struct rnd_state rnd;
	unsigned long *map;
	struct piece *pieces;
	unsigned int n_full;
};

static u64 pick_size(struct rnd_state *rnd)
{
	switch (bus1_rnd(rnd, 8)) {
	case 0:
		return 1 + bus1_rnd(rnd, N_PAGES * PAGE_SIZE / 4);
	case 1:
		return PAGE_SIZE;
	case 2 ... 4:
		return 1 + bus1_rnd(rnd, 2 * PAGE_SIZE);
	default:
		return 1 + bus1_rnd(rnd, 200);
	}
}

static void pool_run_alloc(struct pool_run *run, struct piece *piece)
{
	u64 size = pick_size(&run->rnd);
	unsigned long at, units = DIV_ROUND_UP(size, BUS1_POOL_SLICE_ALIGN);
	struct kunit *test = run->test;
	int r;

	/* What a trimmer has reserved would not be the lowest room */
	pool_stop_idle(run->pool);
	at = bitmap_find_next_zero_area(run->map, N_UNITS, 0, units, 0);
	r = bus1_pool_alloc(run->pool, &piece->slice, size);
	if (at >= N_UNITS) {
		++run->n_full;
		KUNIT_EXPECT_EQ(test, r, -EXFULL);
		if (!r)
			bus1_pool_free(run->pool, &piece->slice);
		return;
	}
	KUNIT_EXPECT_EQ(test, r, 0);
	if (r)
		return;
	KUNIT_EXPECT_EQ(test, piece->slice.offset, at * BUS1_POOL_SLICE_ALIGN);
	KUNIT_EXPECT_EQ(test, piece->slice.size, units * BUS1_POOL_SLICE_ALIGN);
	KUNIT_EXPECT_FALSE(test, piece->slice.published);
	bitmap_set(run->map, at, units);
	piece->allocated = true;
	piece->n = size;
	piece->pattern = 1 + bus1_rnd(&run->rnd, 255);
	slice_fill(run->pool, &piece->slice, piece->n, piece->pattern);
}

static void pool_run_free(struct pool_run *run, struct piece *piece)
{
	struct bus1_pool_slice *slice = &piece->slice;

	KUNIT_EXPECT_TRUE_MSG(run->test,
			      slice_is(run->pool, slice, 0, piece->n,
				       piece->pattern),
			      "somebody else wrote to the slice");
	bitmap_clear(run->map, slice->offset / BUS1_POOL_SLICE_ALIGN,
		     slice->size / BUS1_POOL_SLICE_ALIGN);
	bus1_pool_free(run->pool, slice);
	piece->allocated = false;
}

/* All the pages are there that the pool says are there. */
static bool pool_is_filled(struct bus1_pool *pool)
{
	unsigned long i;

	for (i = 0; i < pool->n_filled; ++i) {
		if (!xa_load(&pool->pages, i))
			return false;
	}
	return true;
}

static void pool_run_step(struct pool_run *run)
{
	struct piece *piece = &run->pieces[bus1_rnd(&run->rnd, N_SLICES)];

	if (bus1_rnd(&run->rnd, 50) == 0)
		bus1_pool_trim(run->pool);
	else if (piece->allocated)
		pool_run_free(run, piece);
	else
		pool_run_alloc(run, piece);
}

static void bus1_pool_test_random(struct kunit *test)
{
	struct pool_run run = { .test = test };
	unsigned int seed, step = 0, i;
	unsigned long n_filled = 0;

	run.map = kunit_kzalloc(test, BITS_TO_LONGS(N_UNITS) * sizeof(long),
				GFP_KERNEL);
	run.pieces = kunit_kzalloc(test, N_SLICES * sizeof(*run.pieces),
				   GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, run.map);
	KUNIT_ASSERT_NOT_NULL(test, run.pieces);

	for (seed = 1; seed <= 4 && !bus1_kunit_failed(test); ++seed) {
		bus1_rnd_init(&run.rnd, seed);
		run.pool = pool_new(test, N_PAGES * PAGE_SIZE);
		run.n_full = 0;
		for (step = 0; step < 1200; ++step) {
			pool_run_step(&run);
			if (step % 20 == 0)
				KUNIT_EXPECT_TRUE(test, pool_tree_is_sound(run.pool));
			KUNIT_EXPECT_TRUE(test, pool_is_filled(run.pool));
			n_filled = max(n_filled, run.pool->n_filled);
			if (bus1_kunit_failed(test)) {
				kunit_err(test, "seed %u, step %u", seed, step);
				break;
			}
		}
		KUNIT_EXPECT_GT_MSG(test, run.n_full, 0, "it was never full");
		KUNIT_EXPECT_GT(test, n_filled, N_PAGES / 2);
		for (i = 0; i < N_SLICES; ++i) {
			if (run.pieces[i].allocated)
				pool_run_free(&run, &run.pieces[i]);
		}
		KUNIT_EXPECT_TRUE(test, bitmap_empty(run.map, N_UNITS));
		check_pool_empty(test, run.pool);
		bus1_pool_unref(run.pool);
	}
}

/* Memory comes with the first slice that needs it, zeroed, and goes again. */
static void bus1_pool_test_pages(struct kunit *test)
{
	struct bus1_pool *pool = pool_new(test, 64 * PAGE_SIZE);
	struct bus1_pool_slice low, middle, high;

	KUNIT_EXPECT_EQ(test, atomic_read(&pool->n_pages), 0);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &low, 20 * PAGE_SIZE), 0);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &middle, 100), 0);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &high,
					      20 * PAGE_SIZE - 104), 0);
	KUNIT_EXPECT_EQ(test, atomic_read(&pool->n_pages), 40);
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &low, 0, low.size, 0));
	slice_fill(pool, &low, low.size, 0x11);
	slice_fill(pool, &middle, middle.size, 0x22);
	slice_fill(pool, &high, high.size, 0x33);

	/* Nothing to give back, then all but one page */
	bus1_pool_trim(pool);
	KUNIT_EXPECT_EQ(test, atomic_read(&pool->n_pages), 40);
	bus1_pool_free(pool, &low);
	bus1_pool_free(pool, &high);
	pool_stop_idle(pool);
	bus1_pool_trim(pool);
	KUNIT_EXPECT_EQ(test, atomic_read(&pool->n_pages), 1);
	KUNIT_EXPECT_EQ(test, pages_indexed(pool), 1);
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &middle, 0, middle.size, 0x22));
	KUNIT_EXPECT_TRUE(test, pool_tree_is_sound(pool));

	/* What is new has forgotten what it was */
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &low, 20 * PAGE_SIZE), 0);
	KUNIT_EXPECT_EQ(test, low.offset, 0);
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &low, 0, low.size, 0));

	bus1_pool_free(pool, &middle);
	bus1_pool_free(pool, &low);
	check_pool_empty(test, pool);
	bus1_pool_unref(pool);
}

/* Write @slice in as few pieces as there can be, in each page its number from @first on. */
static void check_slice_writes(struct kunit *test, struct bus1_pool *pool,
			       struct bus1_pool_slice *slice, u8 first)
{
	unsigned long i, n = slice->size >> PAGE_SHIFT;
	struct iov_iter iter;
	struct kvec vec;
	u8 *data;

	data = kunit_kmalloc(test, slice->size, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, data);
	for (i = 0; i < n; ++i)
		memset(data + i * PAGE_SIZE, first + i, PAGE_SIZE);
	vec.iov_base = data;
	vec.iov_len = slice->size;
	iov_iter_kvec(&iter, ITER_SOURCE, &vec, 1, slice->size);
	KUNIT_EXPECT_EQ(test, bus1_pool_write_iter(pool, slice, 0, &iter), 0);
	for (i = 0; i < n; ++i)
		KUNIT_EXPECT_TRUE(test, slice_is(pool, slice, i * PAGE_SIZE,
						 PAGE_SIZE, first + i));
	kunit_kfree(test, data);
}

/* How many pages one can write to at once from page number @index of @slice on. */
static size_t slice_run(struct bus1_pool *pool, struct bus1_pool_slice *slice,
			unsigned long index)
{
	u64 pos = slice->offset + index * PAGE_SIZE;
	size_t len = slice->offset + slice->size - pos;

	return bus1_pool_run(pool, slice, pos, &len) ? len >> PAGE_SHIFT : 0;
}

/*
 * Pages that came in one piece are copied to at once, but not any more when one of them was
 * given back, and another one is there instead.
 */
static void bus1_pool_test_runs(struct kunit *test)
{
	struct bus1_pool *pool = pool_new(test, 64 * PAGE_SIZE);
	struct bus1_pool_slice low, kept, slice;
	struct page *old[16] = {};
	unsigned long i;
	size_t n;

	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &slice, 16 * PAGE_SIZE), 0);
	check_slice_writes(test, pool, &slice, 1);
	n = slice_run(pool, &slice, 0);
	/* What has left stays where it is, so that it does not come again */
	for (i = 0; i < ARRAY_SIZE(old); ++i) {
		old[i] = xa_load(&pool->pages, i);
		if (old[i])
			get_page(old[i]);
		KUNIT_EXPECT_NOT_NULL(test, old[i]);
	}
	bus1_pool_free(pool, &slice);
	pool_stop_idle(pool);

	/* All but the pages 0 to 2, and 7 to 8, are given back */
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &low, 3 * PAGE_SIZE), 0);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &slice, 4 * PAGE_SIZE), 0);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &kept, 2 * PAGE_SIZE), 0);
	bus1_pool_free(pool, &slice);
	pool_stop_idle(pool);
	bus1_pool_trim(pool);
	KUNIT_EXPECT_EQ(test, pages_indexed(pool), 5);
	check_slice_writes(test, pool, &low, 20);
	check_slice_writes(test, pool, &kept, 30);

	bus1_pool_free(pool, &low);
	bus1_pool_free(pool, &kept);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &slice, 24 * PAGE_SIZE), 0);
	KUNIT_EXPECT_EQ(test, slice.offset, 0);
	check_slice_writes(test, pool, &slice, 40);
	for (i = 0; i < ARRAY_SIZE(old); ++i)
		KUNIT_EXPECT_EQ(test, xa_load(&pool->pages, i) == old[i],
				i < 3 || i == 7 || i == 8);
	if (n == 16) {
		KUNIT_EXPECT_EQ(test, slice_run(pool, &slice, 0), 3);
		KUNIT_EXPECT_EQ(test, slice_run(pool, &slice, 2), 1);
		KUNIT_EXPECT_EQ(test, slice_run(pool, &slice, 7), 2);
		KUNIT_EXPECT_EQ(test, slice_run(pool, &slice, 8), 1);
	} else {
		/* So it is with large pages, in high memory, or where memory is in pieces */
		kunit_info(test, "16 pages are not in one piece: %zu are", n);
	}

	bus1_pool_free(pool, &slice);
	for (i = 0; i < ARRAY_SIZE(old); ++i) {
		if (old[i])
			put_page(old[i]);
	}
	check_pool_empty(test, pool);
	bus1_pool_unref(pool);
}

/* What lies idle is given back without being asked for, but for a few pages. */
static void bus1_pool_test_idle(struct kunit *test)
{
	struct bus1_pool *pool = pool_new(test, 64 * PAGE_SIZE);
	struct bus1_pool_slice slice;

	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &slice, 64 * PAGE_SIZE), 0);
	KUNIT_EXPECT_FALSE(test, delayed_work_pending(&pool->idle));
	bus1_pool_free(pool, &slice);
	KUNIT_EXPECT_TRUE(test, delayed_work_pending(&pool->idle));
	/* Each run looks at what was used since the one before */
	while (flush_delayed_work(&pool->idle) ||
	       delayed_work_pending(&pool->idle))
		;
	KUNIT_EXPECT_FALSE(test, delayed_work_pending(&pool->idle));
	KUNIT_EXPECT_EQ(test, atomic_read(&pool->n_pages), N_PAGES_KEPT);
	KUNIT_EXPECT_EQ(test, pages_indexed(pool), N_PAGES_KEPT);

	/* As few as that stay */
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &slice,
					      N_PAGES_KEPT * PAGE_SIZE), 0);
	bus1_pool_free(pool, &slice);
	KUNIT_EXPECT_FALSE(test, delayed_work_pending(&pool->idle));
	check_pool_empty(test, pool);
	bus1_pool_unref(pool);
}

/* Let the idle work run once, and not by itself. */
static void pool_run_idle(struct bus1_pool *pool)
{
	pool_stop_idle(pool);
	schedule_delayed_work(&pool->idle, MAX_JIFFY_OFFSET);
	flush_delayed_work(&pool->idle);
	pool_stop_idle(pool);
}

/* Park a slice, and give nothing back behind the back of the test. */
static bool pool_park(struct bus1_pool *pool, struct bus1_pool_slice *slice)
{
	bool parked = bus1_pool_park(pool, slice);

	pool_stop_idle(pool);
	return parked;
}

/* A slice that is parked stays what it is for as long as nobody wants its room. */
static void bus1_pool_test_park(struct kunit *test)
{
	struct bus1_pool *pool = pool_new(test, 16 * PAGE_SIZE);
	struct bus1_pool_slice a, b, rest;

	/* One of them can be parked, and is the same afterwards */
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &a, 6 * PAGE_SIZE), 0);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &b, 6 * PAGE_SIZE), 0);
	slice_fill(pool, &a, a.size, 0x11);
	slice_fill(pool, &b, b.size, 0x22);
	KUNIT_EXPECT_TRUE(test, pool_park(pool, &a));
	KUNIT_EXPECT_TRUE(test, bus1_pool_park(pool, &a));
	KUNIT_EXPECT_FALSE(test, bus1_pool_park(pool, &b));
	KUNIT_EXPECT_NULL(test, bus1_pool_unpublish(pool, a.offset));
	KUNIT_EXPECT_TRUE(test, bus1_pool_unpark(pool, &a));
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &a, 0, a.size, 0x11));
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &b, 0, b.size, 0x22));

	/* Others go where there is room, and else where it is */
	KUNIT_EXPECT_TRUE(test, pool_park(pool, &a));
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &rest, 4 * PAGE_SIZE), 0);
	KUNIT_EXPECT_EQ(test, rest.offset, 12 * PAGE_SIZE);
	bus1_pool_free(pool, &rest);
	/* In vain if that is not enough */
	KUNIT_EXPECT_EQ(test, bus1_pool_alloc(pool, &rest, 7 * PAGE_SIZE), -EXFULL);
	KUNIT_EXPECT_FALSE(test, bus1_pool_unpark(pool, &a));
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &a, 6 * PAGE_SIZE), 0);
	KUNIT_EXPECT_TRUE(test, pool_park(pool, &a));
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &rest, 6 * PAGE_SIZE), 0);
	KUNIT_EXPECT_EQ(test, rest.offset, 0);
	KUNIT_EXPECT_FALSE(test, bus1_pool_unpark(pool, &a));
	KUNIT_EXPECT_TRUE(test, pool_park(pool, &b));
	KUNIT_EXPECT_TRUE(test, bus1_pool_unpark(pool, &b));
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &b, 0, b.size, 0x22));
	KUNIT_EXPECT_TRUE(test, pool_tree_is_sound(pool));
	bus1_pool_free(pool, &rest);

	/* Free is free, parked or not, or gone */
	KUNIT_EXPECT_TRUE(test, pool_park(pool, &b));
	bus1_pool_free(pool, &b);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &a, 6 * PAGE_SIZE), 0);
	KUNIT_EXPECT_TRUE(test, pool_park(pool, &a));
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &rest, pool->size), 0);
	bus1_pool_free(pool, &a);
	bus1_pool_free(pool, &rest);
	KUNIT_EXPECT_TRUE(test, pool_tree_is_sound(pool));
	check_pool_empty(test, pool);
	bus1_pool_unref(pool);
}

/* It keeps its memory for as long as it is used every now and then, and none is wanted. */
static void bus1_pool_test_park_idle(struct kunit *test)
{
	struct bus1_pool *pool = pool_new(test, 16 * PAGE_SIZE);
	struct bus1_pool_slice a, b;
	unsigned int i;

	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &a, 6 * PAGE_SIZE), 0);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &b, 6 * PAGE_SIZE), 0);
	slice_fill(pool, &a, a.size, 0x11);
	slice_fill(pool, &b, b.size, 0x22);
	for (i = 0; i < 3; ++i) {
		KUNIT_EXPECT_TRUE(test, bus1_pool_park(pool, &b));
		KUNIT_EXPECT_TRUE(test, cancel_delayed_work_sync(&pool->idle));
		pool_run_idle(pool);
		KUNIT_EXPECT_TRUE(test, bus1_pool_unpark(pool, &b));
	}
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &b, 0, b.size, 0x22));
	KUNIT_EXPECT_TRUE(test, bus1_pool_park(pool, &b));
	pool_run_idle(pool);
	pool_run_idle(pool);
	KUNIT_EXPECT_FALSE(test, bus1_pool_unpark(pool, &b));
	KUNIT_EXPECT_EQ(test, pages_indexed(pool), 6);

	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &b, 6 * PAGE_SIZE), 0);
	KUNIT_EXPECT_TRUE(test, pool_park(pool, &b));
	bus1_pool_trim(pool);
	KUNIT_EXPECT_FALSE(test, bus1_pool_unpark(pool, &b));
	KUNIT_EXPECT_EQ(test, pages_indexed(pool), 6);
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &a, 0, a.size, 0x11));
	bus1_pool_free(pool, &a);
	check_pool_empty(test, pool);
	bus1_pool_unref(pool);
}

/* It is not taken back where a new one would not be. */
static void bus1_pool_test_park_low(struct kunit *test)
{
	struct bus1_pool *pool = pool_new(test, 16 * PAGE_SIZE);
	struct bus1_pool_slice low, middle, high;

	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &low, 6 * PAGE_SIZE), 0);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &middle, 2 * PAGE_SIZE), 0);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &high, 6 * PAGE_SIZE), 0);
	/* There is as much room below */
	bus1_pool_free(pool, &low);
	KUNIT_EXPECT_TRUE(test, pool_park(pool, &high));
	KUNIT_EXPECT_FALSE(test, bus1_pool_unpark(pool, &high));
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &low, 6 * PAGE_SIZE), 0);
	KUNIT_EXPECT_EQ(test, low.offset, 0);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &high, 6 * PAGE_SIZE), 0);
	KUNIT_EXPECT_EQ(test, high.offset, 8 * PAGE_SIZE);
	/* There is some directly below */
	bus1_pool_free(pool, &middle);
	KUNIT_EXPECT_TRUE(test, pool_park(pool, &high));
	KUNIT_EXPECT_FALSE(test, bus1_pool_unpark(pool, &high));
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &high, 6 * PAGE_SIZE), 0);
	KUNIT_EXPECT_EQ(test, high.offset, 6 * PAGE_SIZE);
	/* There is none but above */
	KUNIT_EXPECT_TRUE(test, pool_park(pool, &low));
	KUNIT_EXPECT_TRUE(test, bus1_pool_unpark(pool, &low));
	KUNIT_EXPECT_TRUE(test, pool_tree_is_sound(pool));
	bus1_pool_free(pool, &low);
	bus1_pool_free(pool, &high);
	check_pool_empty(test, pool);
	bus1_pool_unref(pool);
}

static void bus1_pool_test_copy(struct kunit *test)
{
	const u64 size = 3 * PAGE_SIZE + 100;
	struct bus1_pool *pool = pool_new(test, N_PAGES * PAGE_SIZE);
	struct bus1_pool_slice pad, a, b, after;
	struct iov_iter iter;
	struct kvec vecs[2];
	u8 *data;

	data = kunit_kzalloc(test, size, GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, data);
	memset(data, 0x5a, size);
	/* So that nothing begins with a page */
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &pad, 40), 0);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &a, size), 0);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &b, size), 0);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &after, 40), 0);
	slice_fill(pool, &pad, pad.size, 0x77);
	slice_fill(pool, &after, after.size, 0x77);
	slice_fill(pool, &a, a.size, 0x11);
	slice_fill(pool, &b, b.size, 0x22);

	/* The middle of it, out of two pieces */
	vecs[0] = (struct kvec){ .iov_base = data, .iov_len = 333 };
	vecs[1] = (struct kvec){ .iov_base = data + 333,
				 .iov_len = 2 * PAGE_SIZE };
	iov_iter_kvec(&iter, ITER_SOURCE, vecs, 2, 333 + 2 * PAGE_SIZE);
	KUNIT_EXPECT_EQ(test, bus1_pool_write_iter(pool, &a, 50, &iter), 0);
	KUNIT_EXPECT_EQ(test, iov_iter_count(&iter), 0);
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &a, 0, 50, 0x11));
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &a, 50, 333 + 2 * PAGE_SIZE,
					 0x5a));
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &a, 383 + 2 * PAGE_SIZE,
					 size - 383 - 2 * PAGE_SIZE, 0x11));

	bus1_pool_copy(pool, &b, &a, 2 * PAGE_SIZE);
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &b, 0, 50, 0x11));
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &b, 50, 2 * PAGE_SIZE - 50,
					 0x5a));
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &b, 2 * PAGE_SIZE,
					 size - 2 * PAGE_SIZE, 0x22));

	bus1_pool_zero(pool, &b, 10, 2 * PAGE_SIZE);
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &b, 0, 10, 0x11));
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &b, 10, 2 * PAGE_SIZE, 0));
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &b, 10 + 2 * PAGE_SIZE,
					 size - 10 - 2 * PAGE_SIZE, 0x22));

	/* Cleared or not, the memory is still there for the next */
	bus1_pool_zero(pool, &b, 0, b.size);
	bus1_pool_free(pool, &a);
	bus1_pool_free(pool, &b);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &a, size), 0);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &b, size), 0);
	KUNIT_EXPECT_FALSE(test, slice_is(pool, &a, 0, size, 0));
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &b, 0, size, 0));

	/* And nothing of all that went beyond its slice */
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &pad, 0, pad.size, 0x77));
	KUNIT_EXPECT_TRUE(test, slice_is(pool, &after, 0, after.size, 0x77));
	bus1_pool_free(pool, &a);
	bus1_pool_free(pool, &b);
	bus1_pool_free(pool, &pad);
	bus1_pool_free(pool, &after);
	check_pool_empty(test, pool);
	bus1_pool_unref(pool);
}

static void bus1_pool_test_publish(struct kunit *test)
{
	struct bus1_pool *pool = pool_new(test, 4 * PAGE_SIZE);
	struct bus1_pool_slice a, b;

	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &a, 64), 0);
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &b, 64), 0);
	KUNIT_EXPECT_NULL(test, bus1_pool_unpublish(pool, a.offset));
	KUNIT_EXPECT_NULL(test, bus1_pool_unpublish(pool, b.offset));

	bus1_pool_publish(&b);
	KUNIT_EXPECT_NULL(test, bus1_pool_unpublish(pool, a.offset));
	KUNIT_EXPECT_NULL(test, bus1_pool_unpublish(pool, b.offset + 8));
	KUNIT_EXPECT_NULL(test, bus1_pool_unpublish(pool, b.offset - 1));
	KUNIT_EXPECT_NULL(test, bus1_pool_unpublish(pool, b.offset + 64));
	KUNIT_EXPECT_NULL(test, bus1_pool_unpublish(pool, pool->size));
	KUNIT_EXPECT_NULL(test, bus1_pool_unpublish(pool, U64_MAX));

	/* Once, and it stays allocated */
	KUNIT_EXPECT_PTR_EQ(test, bus1_pool_unpublish(pool, b.offset), &b);
	KUNIT_EXPECT_NULL(test, bus1_pool_unpublish(pool, b.offset));
	KUNIT_EXPECT_TRUE(test, pool_tree_is_sound(pool));
	bus1_pool_free(pool, &b);
	KUNIT_EXPECT_NULL(test, bus1_pool_unpublish(pool, b.offset));

	/* A new one in that place is not published */
	KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &b, 64), 0);
	KUNIT_EXPECT_NULL(test, bus1_pool_unpublish(pool, b.offset));
	bus1_pool_free(pool, &b);
	bus1_pool_free(pool, &a);
	check_pool_empty(test, pool);
	bus1_pool_unref(pool);
}

/* A walk finds all that are published, in order, each once. */
static void bus1_pool_test_publish_walk(struct kunit *test)
{
	struct bus1_pool *pool = pool_new(test, 16 * PAGE_SIZE);
	struct bus1_pool_slice *slices, *found;
	const unsigned int n = 400;
	struct rnd_state rnd;
	unsigned int i, round;
	u64 pos, from;

	slices = kunit_kcalloc(test, n, sizeof(*slices), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, slices);
	bus1_rnd_init(&rnd, 1);
	for (i = 0; i < n; ++i)
		KUNIT_ASSERT_EQ(test, bus1_pool_alloc(pool, &slices[i], 40), 0);

	for (round = 0; round < 20; ++round) {
		/* From none to all, and long ways between them */
		for (i = 0; i < n; ++i) {
			if (bus1_rnd(&rnd, 200) < round * round)
				bus1_pool_publish(&slices[i]);
		}
		from = round % 3 ? 0 : bus1_rnd(&rnd, n * 40);
		pos = from;
		for (i = DIV_ROUND_UP(from, 40); i < n; ++i) {
			if (!slices[i].published)
				continue;
			found = bus1_pool_unpublish_next(pool, &pos);
			KUNIT_EXPECT_PTR_EQ(test, found, &slices[i]);
			KUNIT_EXPECT_FALSE(test, slices[i].published);
			KUNIT_EXPECT_EQ(test, pos, slices[i].offset + 40);
		}
		KUNIT_EXPECT_NULL(test, bus1_pool_unpublish_next(pool, &pos));
		pos = 0;
		while (bus1_pool_unpublish_next(pool, &pos))
			;
	}
	for (i = 0; i < n; ++i)
		bus1_pool_free(pool, &slices[i]);
	check_pool_empty(test, pool);
	bus1_pool_unref(pool);
}

struct pool_crowd {
	struct bus1_pool *pool;
	atomic_t n_working;
	unsigned int n_steps;
	void *buffers[4];
};

#define POOL_CROWD_MAX	(5 * PAGE_SIZE)

/* One thread in charge of giving back, the others allocate and write. */
static void pool_crowd_trim(struct bus1_crew *crew, struct pool_crowd *crowd)
{
	while (atomic_read(&crowd->n_working)) {
		bus1_pool_trim(crowd->pool);
		cond_resched();
	}
}

static void pool_crowd_work(struct bus1_crew *crew, unsigned int index)
{
	struct pool_crowd *crowd = crew->context;
	struct bus1_pool *pool = crowd->pool;
	struct piece pieces[8] = {}, *piece;
	struct rnd_state rnd;
	struct iov_iter iter;
	struct kvec vec;
	unsigned int i;
	int r;

	if (!index) {
		pool_crowd_trim(crew, crowd);
		return;
	}
	vec.iov_base = crowd->buffers[index];
	bus1_rnd_init(&rnd, index);
	for (i = 0; i < crowd->n_steps + ARRAY_SIZE(pieces); ++i) {
		piece = &pieces[i % ARRAY_SIZE(pieces)];
		if (piece->allocated && (!piece->slice.parked ||
					 bus1_pool_unpark(pool, &piece->slice))) {
			bus1_crew_expect(crew, slice_is(pool, &piece->slice, 0,
							piece->n,
							piece->pattern));
			if (i < crowd->n_steps && !bus1_rnd(&rnd, 4) &&
			    bus1_pool_park(pool, &piece->slice))
				continue;
			bus1_pool_free(pool, &piece->slice);
		}
		piece->allocated = false;
		if (i >= crowd->n_steps)
			continue;
		/* Some are of several pages, so that their neighbours can cut runs short */
		piece->n = 1 + bus1_rnd(&rnd, bus1_rnd(&rnd, 4) ? 2 * PAGE_SIZE : POOL_CROWD_MAX);
		piece->pattern = 1 + bus1_rnd(&rnd, 255);
		r = bus1_pool_alloc(pool, &piece->slice, piece->n);
		bus1_crew_expect(crew, !r || r == -EXFULL);
		if (r)
			continue;
		piece->allocated = true;
		memset(vec.iov_base, piece->pattern, piece->n);
		vec.iov_len = piece->n;
		iov_iter_kvec(&iter, ITER_SOURCE, &vec, 1, piece->n);
		r = bus1_pool_write_iter(pool, &piece->slice, 0, &iter);
		bus1_crew_expect(crew, !r);
		cond_resched();
	}
	atomic_dec(&crowd->n_working);
}

/* Several allocate, and park, while one takes away all memory that it can get. */
static void bus1_pool_test_threads(struct kunit *test)
{
	struct pool_crowd crowd = { .n_steps = 400 };
	struct bus1_crew *crew;
	unsigned int i;

	crew = kunit_kzalloc(test, sizeof(*crew), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, crew);
	for (i = 1; i < ARRAY_SIZE(crowd.buffers); ++i) {
		crowd.buffers[i] = kunit_kzalloc(test, POOL_CROWD_MAX, GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, crowd.buffers[i]);
	}
	crowd.pool = pool_new(test, 24 * PAGE_SIZE);
	atomic_set(&crowd.n_working, 3);
	bus1_crew_start(test, crew, 4, pool_crowd_work, &crowd);
	bus1_crew_finish(test, crew);
	KUNIT_EXPECT_TRUE(test, pool_tree_is_sound(crowd.pool));
	check_pool_empty(test, crowd.pool);
	bus1_pool_unref(crowd.pool);
}

static struct kunit_case bus1_pool_cases[] = {
	KUNIT_CASE(bus1_pool_test_limits),
	KUNIT_CASE(bus1_pool_test_coalesce),
	KUNIT_CASE_SLOW(bus1_pool_test_random),
	KUNIT_CASE(bus1_pool_test_pages),
	KUNIT_CASE(bus1_pool_test_runs),
	KUNIT_CASE(bus1_pool_test_idle),
	KUNIT_CASE(bus1_pool_test_park),
	KUNIT_CASE(bus1_pool_test_park_idle),
	KUNIT_CASE(bus1_pool_test_park_low),
	KUNIT_CASE(bus1_pool_test_copy),
	KUNIT_CASE(bus1_pool_test_publish),
	KUNIT_CASE(bus1_pool_test_publish_walk),
	KUNIT_CASE_SLOW(bus1_pool_test_threads),
	{}
};

static struct kunit_suite bus1_pool_suite = {
	.name = "bus1_pool",
	.test_cases = bus1_pool_cases,
};

kunit_test_suite(bus1_pool_suite);
