// SPDX-License-Identifier: GPL-2.0-only
/*
 * The memory of pools: pages, mappings of them, and giving them back
 *
 * The locks are listed in pool.c. The page of an allocated slice never leaves
 * the index. Pages only leave by the hand of a trimmer, which first reserves
 * the range that they are in, like a sender would.
 *
 * A page must not be mapped any more when its range can be allocated again: it
 * would hide the new one. So faults look up and map under map_sem, and trimmers
 * take pages out of the index under it before they unmap them. A fault may need
 * memory for page tables, hence the shrinker only tries map_sem. The others take
 * it before trim_lock, so that no sender waits for a fault.
 */

#include <linux/anon_inodes.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/gfp.h>
#include <linux/log2.h>
#include <linux/module.h>
#include <linux/percpu_counter.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/shrinker.h>
#include "../compat.h"
#include "pool-internal.h"

/* Pages that are asked for (a power of two) and counted in one go. */
#define BUS1_POOL_ORDER		((unsigned int)get_order(BUS1_POOL_RUN_MAX))
#define BUS1_POOL_BLOCK		(1UL << BUS1_POOL_ORDER)
#define BUS1_POOL_CHUNK		64UL
/* Pages that a trimmer reserves and a fault maps at once. */
#define BUS1_POOL_TRIM_CHUNK	64UL
#define BUS1_POOL_FAULT_CHUNK	16UL
/* How long memory must not have been used to be given back, in jiffies. */
#define BUS1_POOL_IDLE		(2 * HZ)
/*
 * Memory is the receiver's, and so is the decision what to do when there is no
 * more: the sender gives up before anybody is killed.
 */
#define BUS1_POOL_GFP	(__GFP_ACCOUNT | __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

static DEFINE_MUTEX(bus1_pool_shrink);
static DEFINE_SPINLOCK(bus1_pool_lock);
/* Pools that had more than BUS1_POOL_KEEP pages (bus1_pool_lock). */
static LIST_HEAD(bus1_pool_list);
/* What pools have above BUS1_POOL_KEEP pages each (per CPU). */
static struct percpu_counter bus1_pool_excess;
static struct shrinker *bus1_pool_shrinker;
static struct workqueue_struct *bus1_pool_wq;

static void bus1_pool_count_page(struct bus1_pool *pool)
{
	unsigned int n = atomic_inc_return(&pool->n_pages);

	if (n <= BUS1_POOL_KEEP)
		return;

	percpu_counter_inc(&bus1_pool_excess);
	if (n > BUS1_POOL_KEEP + 1)
		return;

	spin_lock(&bus1_pool_lock);
	if (list_empty(&pool->link))
		list_add_tail(&pool->link, &bus1_pool_list);
	spin_unlock(&bus1_pool_lock);
}

static void bus1_pool_uncount_page(struct bus1_pool *pool)
{
	if (atomic_dec_return(&pool->n_pages) >= BUS1_POOL_KEEP)
		percpu_counter_dec(&bus1_pool_excess);
}

/*
 * A page knows how many pages of the pool, itself included, lie one behind the other in memory
 * from there on: they are of one allocation, and can be copied to at once. Of what is above
 * an allocated slice this may be wrong, in a slice it is not.
 */
static unsigned long bus1_pool_page_run(struct page *page)
{
	/* [run:B] pairs with [run:A] in bus1_pool_end_runs() */
	return READ_ONCE(page->private);
}

static void bus1_pool_page_set_run(struct page *page, unsigned long n)
{
	WRITE_ONCE(page->private, n);
}

static void bus1_pool_put_page(struct page *page)
{
	bus1_pool_page_set_run(page, 0);
	put_page(page);
}

/*
 * Another page than it seemed is number @index, or will be: no run of the @n pages below goes
 * on there. None of those must leave meanwhile.
 */
static void bus1_pool_end_runs(struct bus1_pool *pool, unsigned long index,
			       unsigned long n)
{
	struct page *page;
	unsigned long i;

	/*
	 * [run:A] pairs with [run:B] in bus1_pool_page_run(): who has a slice on both sides of
	 * @index got it under pool->lock after this, or is who does this. Whoever else reads a
	 * run is not interested in pages behind it.
	 *
	 * Nobody shortens the same run meanwhile: what somebody adds does not go on above its
	 * own slice, where a trimmer begins.
	 */
	for (i = 1; i <= n; ++i) {
		page = xa_load(&pool->pages, index - i);
		if (page && bus1_pool_page_run(page) > i)
			bus1_pool_page_set_run(page, i);
	}
}

/* Add a page; -EEXIST if somebody else was faster. Takes the page over. */
static int bus1_pool_add_page(struct bus1_pool *pool, unsigned long index,
			      struct page *page)
{
	void *old;

	/*
	 * [page:A] pairs with [page:B] in bus1_pool_count_present(),
	 * bus1_pool_pages_first(), bus1_pool_run_is_right(),
	 * bus1_pool_pages_run() and bus1_pool_fault(): who finds the page finds
	 * it zeroed. The index publishes with release.
	 */
	old = xa_cmpxchg(&pool->pages, index, NULL, page,
			 GFP_KERNEL | BUS1_POOL_GFP);
	if (old) {
		bus1_pool_put_page(page);
		return xa_err(old) ?: -EEXIST;
	}

	bus1_pool_count_page(pool);
	return 0;
}

/*
 * Allocate up to *@n pages, and lower *@n to how many it is. They lie one behind the
 * other in memory if that is to be had without effort, which includes reserves and the
 * work of others: then they can be copied to at once. Apart from that they are pages
 * like all others.
 */
static struct page *bus1_pool_alloc_pages(unsigned long *n)
{
	unsigned int order = min_t(unsigned int, ilog2(*n), BUS1_POOL_ORDER);
	struct page *page;

	if (order) {
		page = alloc_pages((GFP_HIGHUSER & ~__GFP_RECLAIM) |
				   __GFP_NOMEMALLOC | __GFP_NORETRY |
				   __GFP_NOWARN | __GFP_ZERO | __GFP_ACCOUNT,
				   order);
		if (page) {
			split_page(page, order);
			*n = 1UL << order;
			return page;
		}
	}
	*n = 1;
	return alloc_page(GFP_HIGHUSER | __GFP_ZERO | BUS1_POOL_GFP);
}

/* Add up to *@n pages from @index on, where there is none; lowers *@n, see above. */
static int bus1_pool_add_pages(struct bus1_pool *pool, unsigned long index,
			       unsigned long *n)
{
	struct page *page = bus1_pool_alloc_pages(n);
	unsigned long i;
	int err, r = 0;

	if (!page)
		return -ENOMEM;
	for (i = 0; i < *n; ++i) {
		bus1_pool_page_set_run(page + i, IS_ENABLED(CONFIG_HIGHMEM) ? 1 : *n - i);
		err = bus1_pool_add_page(pool, index + i, page + i);
		if (!err)
			continue;
		bus1_pool_end_runs(pool, index + i, i);
		if (err != -EEXIST)
			r = err;
	}
	return r;
}

/* How many pages are missing from @index on, of @n. At least one. */
static unsigned long bus1_pool_count_missing(struct bus1_pool *pool,
					     unsigned long index,
					     unsigned long n)
{
	unsigned long next = index;

	if (n > 1 && xa_find(&pool->pages, &next, index + n - 1, XA_PRESENT))
		n = max(next - index, 1UL);
	return n;
}

/* How many pages there are from @index on, up to @n; @pagep gets the first. */
static unsigned long bus1_pool_count_present(struct bus1_pool *pool,
					     unsigned long index,
					     unsigned long n,
					     struct page **pagep)
{
	XA_STATE(xas, &pool->pages, index);
	unsigned long i = 0;
	struct page *page;

	rcu_read_lock();
	/* [page:B] pairs with [page:A] in bus1_pool_add_page() */
	for (page = xas_load(&xas); page; page = xas_next(&xas)) {
		if (xas_retry(&xas, page))
			continue;
		if (!i)
			*pagep = page;
		if (++i == n)
			break;
	}
	rcu_read_unlock();
	return i;
}

/**
 * bus1_pool_pages_first() - find the first page of a slice that has all
 * @pool: the pool
 * @slice: the slice, allocated
 *
 * Context: Any.
 * Return: The page.
 */
struct page *bus1_pool_pages_first(struct bus1_pool *pool,
				   const struct bus1_pool_slice *slice)
{
	struct page *page;

	/* [page:B] pairs with [page:A] in bus1_pool_add_page() */
	page = xa_load(&pool->pages, slice->offset >> PAGE_SHIFT);
	WARN_ON_ONCE(!page);
	return page;
}

/**
 * bus1_pool_pages_populate() - have all pages of a slice
 * @pool: the pool
 * @slice: the slice, allocated; is told its first page
 *
 * What was added stays on failure: it is not lost.
 *
 * Context: Process context, may sleep. Waits for memory of the pool's memory
 *          cgroup, but never for user space.
 * Return: 0 on success, -ENOMEM, -EINTR if the caller was killed meanwhile.
 */
int bus1_pool_pages_populate(struct bus1_pool *pool,
			     struct bus1_pool_slice *slice)
{
	unsigned long index = slice->offset >> PAGE_SHIFT;
	unsigned long end = bus1_pool_slice_end(slice);
	struct page *page, **pagep = &slice->page;
	unsigned long n, wanted, max = BUS1_POOL_CHUNK;
	struct mem_cgroup *old;
	int r;

	for (;;) {
		n = bus1_pool_count_present(pool, index,
					    min(end - index, BUS1_POOL_CHUNK),
					    pagep);
		if (n)
			pagep = &page;
		index += n;
		if (index == end)
			return 0;
		if (fatal_signal_pending(current))
			return -EINTR;
		cond_resched();
		if (n == BUS1_POOL_CHUNK)
			continue;

		wanted = bus1_pool_count_missing(pool, index,
						 min(end - index, max));
		n = wanted;
		old = set_active_memcg(pool->memcg);
		r = bus1_pool_add_pages(pool, index, &n);
		set_active_memcg(old);
		if (r < 0)
			return r;
		/* Where there are no several pages, it is no use to go on asking */
		if (n < wanted && n == 1)
			max = 1;
	}
}

/* Whether the pages of the pool from @pos on are those from @page on. */
static bool bus1_pool_run_is_right(struct bus1_pool *pool, struct page *page,
				   u64 pos, size_t len)
{
	unsigned long i, index = pos >> PAGE_SHIFT;

	/* [page:B] pairs with [page:A] in bus1_pool_add_page() */
	for (i = 0; i << PAGE_SHIFT < offset_in_page(pos) + len; ++i) {
		if (xa_load(&pool->pages, index + i) != page + i)
			return false;
	}
	return true;
}

/**
 * bus1_pool_pages_run() - find memory of an allocated slice
 * @pool: the pool
 * @slice: the slice
 * @pos: a byte of the slice, as an offset in the pool
 * @lenp: how many bytes from there on are wanted, see bus1_pool_run()
 *
 * Context: Any.
 * Return: The page of @pos, as long as the slice is allocated.
 */
noinline struct page *bus1_pool_pages_run(struct bus1_pool *pool,
					  struct bus1_pool_slice *slice, u64 pos, size_t *lenp)
{
	struct page *page = slice->page;
	unsigned long run;

	/* [page:B] pairs with [page:A] in bus1_pool_add_page() */
	if (pos >> PAGE_SHIFT != slice->offset >> PAGE_SHIFT)
		page = xa_load(&pool->pages, pos >> PAGE_SHIFT);
	if (WARN_ON_ONCE(!page))
		return NULL;

	run = bus1_pool_page_run(page);
	if (WARN_ON_ONCE(run - 1 >= BUS1_POOL_BLOCK))
		run = 1;
	*lenp = min_t(size_t, *lenp, run * PAGE_SIZE - offset_in_page(pos));
	if (IS_ENABLED(CONFIG_KASAN))
		WARN_ON_ONCE(!bus1_pool_run_is_right(pool, page, pos, *lenp));
	return page;
}

/*
 * Trimming
 */

/*
 * Reserve the next free populated pages from *@pos on, and move *@pos above
 * what was looked at: ULONG_MAX if there is no more. A slice that is parked there
 * goes. Returns the number of pages reserved, which can be 0 at any time.
 */
static unsigned long bus1_pool_trim_reserve(struct bus1_pool *pool,
					    unsigned long *pos)
{
	struct bus1_pool_slice *slice;
	unsigned long n = 0, index = *pos;
	u64 start, end;

	lockdep_assert_held(&pool->trim_lock);

	if (!xa_find(&pool->pages, &index, ULONG_MAX, XA_PRESENT)) {
		*pos = ULONG_MAX;
		return 0;
	}

	start = (u64)index << PAGE_SHIFT;
	spin_lock(&pool->lock);
	slice = bus1_pool_lookup_locked(pool, start);
	if (slice == pool->parked && bus1_pool_evict_locked(pool))
		slice = bus1_pool_lookup_locked(pool, start);
	if (slice->offset >= start + PAGE_SIZE) {
		n = min_t(u64, BUS1_POOL_TRIM_CHUNK,
			  (slice->offset - start) >> PAGE_SHIFT);
		end = start + ((u64)n << PAGE_SHIFT);
		bus1_pool_insert_locked(pool, slice, &pool->trim, start,
					end - start);
		pool->n_filled = min(pool->n_filled, index);
	} else {
		end = slice->offset + slice->size;
	}
	spin_unlock(&pool->lock);

	*pos = (end + PAGE_SIZE - 1) >> PAGE_SHIFT;
	return n;
}

/*
 * Give back the next chunk of free pages. Returns their number. Releases map_sem,
 * which the caller took.
 */
static unsigned long bus1_pool_trim_chunk(struct bus1_pool *pool,
					  unsigned long *pos)
{
	struct page *page, *pages[BUS1_POOL_TRIM_CHUNK];
	unsigned long i, index, first, n_reserved, n = 0;

	n_reserved = bus1_pool_trim_reserve(pool, pos);
	if (!n_reserved) {
		up_write(&pool->map_sem);
		return 0;
	}

	first = pool->trim.offset >> PAGE_SHIFT;
	xa_for_each_range(&pool->pages, index, page, first,
			  first + n_reserved - 1) {
		xa_erase(&pool->pages, index);
		bus1_pool_uncount_page(pool);
		pages[n++] = page;
	}

	up_write(&pool->map_sem);

	bus1_pool_end_runs(pool, first, min(first, BUS1_POOL_BLOCK - 1));
	unmap_mapping_range(&pool->mapping, pool->trim.offset, pool->trim.size,
			    1);

	for (i = 0; i < n; ++i)
		bus1_pool_put_page(pages[i]);
	/*
	 * [trim:A] pairs with [trim:B] in bus1_pool_alloc(): who gets this range
	 * does not find these pages any more. pool->lock orders it.
	 */
	bus1_pool_unreserve(pool, &pool->trim);
	return n;
}

/* Give back all free pages from number @pos on. */
static void bus1_pool_trim_from(struct bus1_pool *pool, unsigned long pos)
{
	while (pos != ULONG_MAX) {
		down_write(&pool->map_sem);
		mutex_lock(&pool->trim_lock);
		bus1_pool_trim_chunk(pool, &pos);
		mutex_unlock(&pool->trim_lock);
		cond_resched();
	}
}

/*
 * Runs when memory was freed a while ago: what lies above everything that was
 * allocated meanwhile is given back, so all that is free if nothing was.
 */
static void bus1_pool_idle(struct work_struct *work)
{
	struct bus1_pool *pool = container_of(to_delayed_work(work),
					      struct bus1_pool, idle);
	unsigned long pos;
	u64 peak;

	/*
	 * [idle:B] pairs with [idle:A] in bus1_pool_pages_unused(): workqueues
	 * have a full barrier between saying that this is not pending any more
	 * and calling it.
	 */
	spin_lock(&pool->lock);
	peak = pool->peak;
	pool->peak = 0;
	spin_unlock(&pool->lock);

	pos = (peak + PAGE_SIZE - 1) >> PAGE_SHIFT;
	bus1_pool_trim_from(pool, max(pos, BUS1_POOL_KEEP));

	/* Without allocations nothing changes before the next free does. */
	if (peak && atomic_read(&pool->n_pages) > BUS1_POOL_KEEP)
		queue_delayed_work(bus1_pool_wq, &pool->idle, BUS1_POOL_IDLE);
}

/**
 * bus1_pool_pages_unused() - tell that memory may have become unused
 * @pool: the pool
 *
 * Context: Any but interrupts.
 */
void bus1_pool_pages_unused(struct bus1_pool *pool)
{
	/*
	 * [idle:A] pairs with [idle:B] in bus1_pool_idle(): whoever finds the
	 * work pending trusts that it will see what is free now. The look comes
	 * after pool->lock was taken to free it, and that is enough.
	 */
	if (unlikely(atomic_read(&pool->n_pages) > BUS1_POOL_KEEP) &&
	    !delayed_work_pending(&pool->idle))
		queue_delayed_work(bus1_pool_wq, &pool->idle, BUS1_POOL_IDLE);
}

/**
 * bus1_pool_trim() - give back all memory that holds no slice
 * @pool: the pool
 *
 * One that is parked does not count.
 *
 * Reading what was given back through a mapping is SIGBUS then.
 *
 * Context: Process context, may sleep.
 */
void bus1_pool_trim(struct bus1_pool *pool)
{
	bus1_pool_trim_from(pool, 0);
}

/*
 * Memory pressure
 */

static unsigned long bus1_pool_shrink_count(struct shrinker *shrinker,
					    struct shrink_control *sc)
{
	return percpu_counter_sum_positive(&bus1_pool_excess) ?: SHRINK_EMPTY;
}

/* Give back free pages of one pool, and count down *@budget by the work done. */
static unsigned long bus1_pool_shrink_one(struct bus1_pool *pool,
					  unsigned long *budget)
{
	unsigned long n, freed = 0;

	if (!mutex_trylock(&pool->trim_lock)) {
		--*budget;
		return 0;
	}

	/* The end of the pool ends this round, wherever it began. */
	do {
		if (!down_write_trylock(&pool->map_sem)) {
			--*budget;
			break;
		}
		pool->shrink_pos = max(pool->shrink_pos, BUS1_POOL_KEEP);
		n = bus1_pool_trim_chunk(pool, &pool->shrink_pos);
		freed += n;
		*budget -= clamp(n, 1UL, *budget);
	} while (*budget && pool->shrink_pos != ULONG_MAX);

	if (pool->shrink_pos == ULONG_MAX)
		pool->shrink_pos = 0;

	mutex_unlock(&pool->trim_lock);
	return freed;
}

static unsigned long bus1_pool_shrink_scan(struct shrinker *shrinker,
					   struct shrink_control *sc)
{
	unsigned long budget = sc->nr_to_scan, freed = 0;
	struct bus1_pool *pool;

	if (!mutex_trylock(&bus1_pool_shrink))
		return SHRINK_STOP;

	while (budget) {
		spin_lock(&bus1_pool_lock);
		pool = list_first_entry_or_null(&bus1_pool_list,
						struct bus1_pool, link);
		if (pool)
			list_move_tail(&pool->link, &bus1_pool_list);
		spin_unlock(&bus1_pool_lock);
		if (!pool)
			break;

		freed += bus1_pool_shrink_one(pool, &budget);
		cond_resched();
	}

	mutex_unlock(&bus1_pool_shrink);
	/* All there is may be in use: then there is no point in trying on. */
	return freed ?: SHRINK_STOP;
}

/*
 * Mappings
 */

/* Map what there is at and above the fault. What is not there is SIGBUS. */
static vm_fault_t bus1_pool_fault(struct vm_fault *vmf)
{
	struct vm_area_struct *vma = vmf->vma;
	struct bus1_pool *pool = vma->vm_private_data;
	unsigned long i, n_max, addr = vmf->address & PAGE_MASK;
	struct page *page;
	int err, r = -EFAULT;

	n_max = min(BUS1_POOL_FAULT_CHUNK, (vma->vm_end - addr) >> PAGE_SHIFT);

	down_read(&pool->map_sem);
	for (i = 0; i < n_max; ++i) {
		/* [page:B] pairs with [page:A] in bus1_pool_add_page() */
		page = xa_load(&pool->pages, vmf->pgoff + i);
		if (!page)
			break;

		/* Only the first one is needed; any may be mapped already. */
		err = vm_insert_page(vma, addr + i * PAGE_SIZE, page);
		if (i == 0)
			r = err == -EBUSY ? 0 : err;
	}
	up_read(&pool->map_sem);

	return r ? vmf_error(r) : VM_FAULT_NOPAGE;
}

static const struct vm_operations_struct bus1_pool_vm_ops = {
	.fault = bus1_pool_fault,
};

static int bus1_pool_file_release(struct inode *inode, struct file *file)
{
	bus1_pool_unref(file->private_data);
	return 0;
}

static const struct file_operations bus1_pool_fops = {
	.owner = THIS_MODULE,
	.release = bus1_pool_file_release,
};

/**
 * bus1_pool_mmap() - map a pool
 * @pool: the pool
 * @vma: where to; of any length, shared or private, but not writable
 *
 * Afterwards, @vma does not refer to the file that it was created through any
 * more, but to one that holds a reference to the pool. So closing that file
 * is not deferred by mappings, and pages can be unmapped from those of this
 * pool, rather than from those of all that share the inode of a device.
 *
 * Context: Process context, may sleep. From &file_operations.mmap.
 * Return: 0 on success, -EPERM if @vma is writable, -ENOMEM or -ENFILE if there
 *         is no memory for a file.
 */
int bus1_pool_mmap(struct bus1_pool *pool, struct vm_area_struct *vma)
{
	struct file *file;

	if (vma->vm_flags & VM_WRITE)
		return -EPERM;

	file = anon_inode_getfile("[bus1-pool]", &bus1_pool_fops, pool,
				  O_RDONLY | O_CLOEXEC);
	if (IS_ERR(file))
		return PTR_ERR(file);

	bus1_pool_ref(pool);

	/*
	 * Host to all anonymous files, valid for longer than this module. Written
	 * once for each mapping, always with the same value.
	 */
	WRITE_ONCE(pool->mapping.host, file_inode(file));
	file->f_mapping = &pool->mapping;

	vma_set_file(vma, file);
	fput(file);

	vm_flags_clear(vma, VM_MAYWRITE);
	vm_flags_set(vma, VM_MIXEDMAP);
	vma->vm_private_data = pool;
	vma->vm_ops = &bus1_pool_vm_ops;
	return 0;
}

/*
 * Life
 */

/**
 * bus1_pool_pages_init() - initialize the memory of a pool: there is none
 * @pool: the pool, zeroed otherwise
 *
 * Context: Any.
 */
void bus1_pool_pages_init(struct bus1_pool *pool)
{
	xa_init_flags(&pool->pages, XA_FLAGS_ACCOUNT);
	init_rwsem(&pool->map_sem);
	mutex_init(&pool->trim_lock);
	RB_CLEAR_NODE(&pool->trim.rb);
	INIT_DELAYED_WORK(&pool->idle, bus1_pool_idle);
	INIT_LIST_HEAD(&pool->link);
	address_space_init_once(&pool->mapping);
	pool->mapping.a_ops = &empty_aops;
}

/**
 * bus1_pool_pages_deinit() - give back the memory of a pool
 * @pool: the pool, with no reference left, so no mapping; and no slice
 *
 * Context: Process context, may sleep, but not on behalf of memory reclaim.
 */
void bus1_pool_pages_deinit(struct bus1_pool *pool)
{
	unsigned long index;
	struct page *page;
	bool listed;

	/* Without slices, nothing queues it but itself. */
	cancel_delayed_work_sync(&pool->idle);

	/* A shrinker that found the pool in time is done once it let go. */
	spin_lock(&bus1_pool_lock);
	listed = !list_empty(&pool->link);
	list_del_init(&pool->link);
	spin_unlock(&bus1_pool_lock);
	if (listed) {
		mutex_lock(&bus1_pool_shrink);
		mutex_unlock(&bus1_pool_shrink);
	}

	xa_for_each(&pool->pages, index, page) {
		bus1_pool_uncount_page(pool);
		bus1_pool_put_page(page);
		cond_resched();
	}
	xa_destroy(&pool->pages);
	mutex_destroy(&pool->trim_lock);
}

/**
 * bus1_pool_module_init() - prepare what all pools share
 *
 * Context: Process context, may sleep.
 * Return: 0 on success, -ENOMEM.
 */
int bus1_pool_module_init(void)
{
	int r;

	r = percpu_counter_init(&bus1_pool_excess, 0, GFP_KERNEL);
	if (r < 0)
		return r;

	r = -ENOMEM;
	bus1_pool_wq = alloc_workqueue("bus1-pool", WQ_UNBOUND, 0);
	if (!bus1_pool_wq)
		goto error_counter;

	bus1_pool_shrinker = shrinker_alloc(0, "bus1-pool");
	if (!bus1_pool_shrinker)
		goto error_wq;

	bus1_pool_shrinker->count_objects = bus1_pool_shrink_count;
	bus1_pool_shrinker->scan_objects = bus1_pool_shrink_scan;
	bus1_pool_shrinker->seeks = DEFAULT_SEEKS;
	shrinker_register(bus1_pool_shrinker);
	return 0;

error_wq:
	destroy_workqueue(bus1_pool_wq);
error_counter:
	percpu_counter_destroy(&bus1_pool_excess);
	return r;
}

/**
 * bus1_pool_module_exit() - undo bus1_pool_module_init()
 *
 * There must not be pools any more.
 *
 * Context: Process context, may sleep.
 */
void bus1_pool_module_exit(void)
{
	shrinker_free(bus1_pool_shrinker);
	destroy_workqueue(bus1_pool_wq);
	WARN_ON_ONCE(!list_empty(&bus1_pool_list) ||
		     percpu_counter_sum(&bus1_pool_excess));
	percpu_counter_destroy(&bus1_pool_excess);
}
