// SPDX-License-Identifier: GPL-2.0-only
#include <linux/atomic.h>
#include <linux/bug.h>
#include <linux/cpumask.h>
#include <linux/ktime.h>
#include <linux/list.h>
#include <linux/lockdep.h>
#include <linux/percpu.h>
#include <linux/processor.h>
#include <linux/rbtree.h>
#include <linux/sched.h>
#include <linux/smp.h>
#include <linux/spinlock.h>
#include "queue.h"

/*
 * Ordering
 * ========
 *
 * Rule 1: what a queue hands out goes up in (ts, id). A reader raises the floor
 * to what it hands out before it drops the lock, an entry is added with a
 * timestamp above the floor (commit, or push at stage), and a reader pushes all
 * transactions that are staged with a lower bound above what it hands out.
 *
 * Rule 2: a transaction is one point. There is one word for all of its entries,
 * and sealing it is one compare-and-swap:
 *
 *	CPU 0: sender				CPU 1: reader
 *	spin_lock(lock)
 *	  push(tx, floor)
 *	  add entry
 *	spin_unlock(lock)
 *						spin_lock(lock)
 *						  b = lowest sealed entry
 *						  push(tx, b.ts)	[seal:A]
 *	seal(tx)	[seal:B]		  floor = b.ts
 *						spin_unlock(lock)
 *
 * Either [seal:A] comes first, and [seal:B] seals above b.ts; or [seal:B] comes
 * first, and [seal:A] sees the timestamp and hands out the lower one of both.
 *
 * Rule 3: time. Whoever makes a timestamp visible, be it by returning, by waking
 * up, by handing it out, or in an errno, has first seen the clock pass it. Who
 * enters later reads a clock that is monotonic over all CPUs, and gets a higher
 * timestamp.
 *
 * Labels in brackets name barriers, and what is ordered without any. Each stands
 * where it is, says which one it pairs with, and is argued in internals.rst.
 */

/* How many entries may be looked at before the lock is released once. */
#define BUS1_QUEUE_BATCH	64

/* Transactions entered on this CPU, see bus1_tx_id(). */
static DEFINE_PER_CPU(u64, bus1_tx_counter);

/*
 * Unique IDs without a shared counter: each CPU counts in steps of the number
 * of CPUs, from its own number.
 */
static u64 bus1_tx_id(void)
{
	u64 id;

	id = get_cpu();
	id += __this_cpu_inc_return(bus1_tx_counter) * nr_cpu_ids;
	put_cpu();
	return id;
}

/**
 * bus1_clock_now() - read the machine's clock
 *
 * Context: Any but NMI.
 * Return: Nanoseconds; never lower than what any CPU has read before.
 */
u64 bus1_clock_now(void)
{
	/*
	 * [clock:B] pairs with [clock:A] in bus1_clock_pass() and
	 * bus1_queue_try_pass_locked(): what was loaded
	 * before, and so whatever told of the other transaction, comes before
	 * the clock is read. ktime_get_ns() sees to that.
	 */
	return ktime_get_ns();
}

/**
 * bus1_clock_pass() - wait until a timestamp is in the past
 * @ts: timestamp, in nanoseconds, taken from the clock; 0 if that is done
 *
 * That is the granularity of the clock at most: nothing is ever stamped with a
 * time that the clock has not shown yet.
 *
 * Context: Any but NMI.
 */
void bus1_clock_pass(u64 ts)
{
	if (!ts)
		return;
	/*
	 * [clock:A] pairs with [clock:B] in bus1_clock_now(): what is stored
	 * after this depends on what was read here.
	 */
	while (bus1_clock_now() <= ts)
		cpu_relax();
}

/**
 * bus1_tx_init() - start a transaction
 * @tx: transaction to initialize
 *
 * Context: Any.
 */
void bus1_tx_init(struct bus1_tx *tx)
{
	atomic64_set(&tx->word, 0);
	tx->id = bus1_tx_id();
}

/**
 * bus1_tx_sealed() - ask whether a transaction is sealed
 * @tx: transaction to ask
 * @stamp: where to store its position if it is
 *
 * The position may not be in the past yet: pass it before anybody learns of it.
 *
 * Context: Any.
 * Return: True if it is sealed.
 */
bool bus1_tx_sealed(const struct bus1_tx *tx, struct bus1_stamp *stamp)
{
	/* [told:B] pairs with [told:A] in bus1_tx_seal() */
	u64 word = atomic64_read_acquire(&tx->word);

	if (!(word & 1))
		return false;
	stamp->ts = word >> 1;
	stamp->id = tx->id;
	return true;
}

/**
 * bus1_tx_push() - make sure that a transaction is sealed above a timestamp
 * @tx: transaction to push
 * @ts: timestamp, in nanoseconds
 * @stamp: its position if it is sealed already; else ts is the bound it has now
 *
 * Context: Any.
 * Return: True if it was sealed already, be that above @ts or not.
 */
bool bus1_tx_push(struct bus1_tx *tx, u64 ts, struct bus1_stamp *stamp)
{
	/* [told:B] pairs with [told:A] in bus1_tx_seal() */
	s64 old = atomic64_read_acquire(&tx->word);

	/*
	 * [seal:A] pairs with [seal:B] in bus1_tx_seal(): both change the word by
	 * compare-and-swap. The first look may be outdated: then there was a
	 * bound of @ts or above, and the seal is above that.
	 */
	stamp->id = tx->id;
	do {
		stamp->ts = (u64)old >> 1;
		if (old & 1)
			return true;
		if (stamp->ts >= ts)
			return false;
	} while (!atomic64_try_cmpxchg(&tx->word, &old, ts << 1));

	stamp->ts = ts;
	return false;
}

/**
 * bus1_tx_seal() - commit a transaction on all queues that it is staged on
 * @tx: transaction to seal
 *
 * The caller passes the timestamp before anybody can learn of it, and then
 * settles every queue.
 *
 * Context: Any but NMI. Must not be delayed by user space: nothing that sleeps
 *	or touches user memory comes between the first stage and this.
 * Return: The timestamp, in nanoseconds.
 */
u64 bus1_tx_seal(struct bus1_tx *tx)
{
	s64 old = atomic64_read(&tx->word);
	u64 ts;

	/*
	 * [seal:B] pairs with [seal:A] in bus1_tx_push(): the word only changes
	 * from what the timestamp was computed of.
	 *
	 * [told:A] pairs with [told:B] in bus1_tx_sealed() and bus1_tx_push():
	 * the compare-and-swap is fully ordered, so whoever sees the timestamp
	 * sees all that the caller did before.
	 */
	do {
		ts = max(bus1_clock_now(), ((u64)old >> 1) + 1);
	} while (!atomic64_try_cmpxchg(&tx->word, &old, (ts << 1) | 1));

	return ts;
}

/**
 * bus1_queue_init() - make an empty queue
 * @queue: queue to initialize
 *
 * Context: Any.
 */
void bus1_queue_init(struct bus1_queue *queue)
{
	spin_lock_init(&queue->lock);
	queue->ready = RB_ROOT_CACHED;
	queue->last = NULL;
	INIT_LIST_HEAD(&queue->staged);
	queue->floor = 0;
	queue->n = 0;
	queue->passed = 0;
	queue->closed = false;
}

/**
 * bus1_queue_deinit() - check that a queue is empty
 * @queue: queue that nobody uses any more
 *
 * Context: Any.
 */
void bus1_queue_deinit(struct bus1_queue *queue)
{
	WARN_ON_ONCE(queue->n);
	WARN_ON_ONCE(!RB_EMPTY_ROOT(&queue->ready.rb_root));
	WARN_ON_ONCE(!list_empty(&queue->staged));
}

/**
 * bus1_queue_entry_init() - make an entry that is on no queue
 * @entry: entry to initialize
 * @type: for the user
 *
 * Context: Any.
 */
void bus1_queue_entry_init(struct bus1_queue_entry *entry, u8 type)
{
	RB_CLEAR_NODE(&entry->rb);
	INIT_LIST_HEAD(&entry->group);
	INIT_HLIST_NODE(&entry->sibling);
	entry->siblings = NULL;
	entry->tx = NULL;
	entry->state = BUS1_ENTRY_IDLE;
	entry->leader = false;
	entry->placed = false;
	entry->type = type;
}

static struct bus1_queue_entry *bus1_queue_first_locked(struct bus1_queue *queue)
{
	return rb_entry_safe(rb_first_cached(&queue->ready),
			     struct bus1_queue_entry, rb);
}

/* Put ring @b behind ring @a. Neither has a head. */
static void bus1_queue_join_rings(struct list_head *a, struct list_head *b)
{
	struct list_head *a_last = a->prev, *b_last = b->prev;

	a_last->next = b;
	b->prev = a_last;
	b_last->next = a;
	a->prev = b_last;
}

/* Two groups of one transaction become one. */
static noinline void bus1_queue_join_locked(struct bus1_queue *queue,
					    struct bus1_queue_entry *at,
					    struct bus1_queue_entry *leader,
					    bool front)
{
	if (!front) {
		bus1_queue_join_rings(&at->group, &leader->group);
		leader->leader = false;
		return;
	}

	rb_replace_node_cached(&at->rb, &leader->rb, &queue->ready);
	if (queue->last == &at->rb)
		queue->last = &leader->rb;
	bus1_queue_join_rings(&leader->group, &at->group);
	at->leader = false;
	leader->leader = true;
}

/*
 * Add the group of @leader, whose stamp is set, to the ready ones. If the
 * transaction has a group there already both become one; @front puts @leader
 * before that one rather than behind it.
 */
static void bus1_queue_ready_locked(struct bus1_queue *queue,
				    struct bus1_queue_entry *leader, bool front)
{
	struct rb_node **link = &queue->ready.rb_root.rb_node, *parent = NULL;
	bool leftmost = true, rightmost = true;
	struct bus1_queue_entry *at;
	int cmp;

	lockdep_assert_held(&queue->lock);

	/* Nearly all entries come in order */
	if (queue->last) {
		at = rb_entry(queue->last, struct bus1_queue_entry, rb);
		if (bus1_stamp_cmp(&at->stamp, &leader->stamp) < 0) {
			parent = queue->last;
			link = &parent->rb_right;
			leftmost = false;
		}
	}

	while (*link) {
		parent = *link;
		at = rb_entry(parent, struct bus1_queue_entry, rb);
		cmp = bus1_stamp_cmp(&leader->stamp, &at->stamp);
		if (cmp < 0) {
			link = &parent->rb_left;
			rightmost = false;
		} else if (cmp > 0) {
			link = &parent->rb_right;
			leftmost = false;
		} else {
			bus1_queue_join_locked(queue, at, leader, front);
			return;
		}
	}

	leader->leader = true;
	rb_link_node(&leader->rb, parent, link);
	rb_insert_color_cached(&leader->rb, &queue->ready, leftmost);
	if (rightmost)
		queue->last = &leader->rb;
}

/* A staged group whose transaction is sealed becomes ready. */
static void bus1_queue_settle_locked(struct bus1_queue *queue,
				     struct bus1_queue_entry *leader,
				     const struct bus1_stamp *stamp)
{
	list_del(&leader->link);
	leader->stamp = *stamp;
	leader->tx = NULL;
	bus1_queue_ready_locked(queue, leader, false);
}

/*
 * Entries that are not leaders keep the state they were added with. What counts
 * is their leader's, which is why nobody but this file looks at READY and STAGED
 * apart.
 */
static void bus1_queue_add_locked(struct bus1_queue *queue,
				  struct bus1_queue_entry *entry, u8 state)
{
	entry->state = state;
	if (entry->siblings)
		hlist_add_head(&entry->sibling, entry->siblings);
	WRITE_ONCE(queue->n, queue->n + 1);
}

static bool bus1_queue_is_ready(const struct bus1_queue_entry *leader)
{
	return !leader->tx;
}

static __always_inline void bus1_queue_get_stamp_locked(struct bus1_queue *queue,
							struct bus1_stamp *stamp)
{
	lockdep_assert_held(&queue->lock);

	/*
	 * [gone:A] pairs with [gone:B] in bus1_destroy_seal(): the clock is read
	 * under the lock, so that whatever is staged here later is sealed no
	 * lower.
	 */
	stamp->ts = max(bus1_clock_now(), queue->floor + 1);
	stamp->id = bus1_tx_id();
}

/*
 * See the clock pass @ts, unless it ticks so slowly that it has yet to do so. Then
 * nobody has to look again: neither who commits, nor who reads.
 */
static __always_inline bool bus1_queue_try_pass_locked(struct bus1_queue *queue,
						       u64 ts)
{
	lockdep_assert_held(&queue->lock);

	/*
	 * [clock:A] pairs with [clock:B] in bus1_clock_now(), as in
	 * bus1_clock_pass().
	 *
	 * [passed:A] pairs with
	 * [passed:B] in bus1_queue_now_locked(): that nobody looks again depends
	 * on what was read here.
	 */
	if (bus1_clock_now() <= ts)
		return false;
	queue->passed = max(queue->passed, ts);
	return true;
}

static __always_inline bool
bus1_queue_add_at_locked(struct bus1_queue *queue,
			 const struct bus1_queue_ops *ops,
			 struct bus1_queue_entry *entry,
			 const struct bus1_stamp *stamp)
{
	lockdep_assert_held(&queue->lock);

	if (queue->closed)
		return false;

	entry->stamp = *stamp;
	if (ops->stale(entry, stamp))
		return false;

	entry->tx = NULL;
	bus1_queue_add_locked(queue, entry, BUS1_ENTRY_READY);
	bus1_queue_ready_locked(queue, entry, false);
	return true;
}

/**
 * bus1_queue_stamp_locked() - give a transaction of one entry its position
 * @queue: queue that the entry is for
 * @stamp: where to store the position; to be passed before anybody learns of it
 *
 * Context: Any, with queue->lock held.
 */
void bus1_queue_stamp_locked(struct bus1_queue *queue, struct bus1_stamp *stamp)
{
	bus1_queue_get_stamp_locked(queue, stamp);
}

/**
 * bus1_queue_commit_at_locked() - add an entry of its own, at a position it has
 * @queue: queue to add to
 * @ops: callbacks
 * @entry: idle entry
 * @stamp: position, of bus1_queue_stamp_locked(); nothing was claimed since
 *
 * The entry is a transaction of its own.
 *
 * Context: Any, with queue->lock held.
 * Return: True if added, false if not: the queue is closed, or would drop the
 *	entry at once.
 */
bool bus1_queue_commit_at_locked(struct bus1_queue *queue,
				 const struct bus1_queue_ops *ops,
				 struct bus1_queue_entry *entry,
				 const struct bus1_stamp *stamp)
{
	return bus1_queue_add_at_locked(queue, ops, entry, stamp);
}

/**
 * bus1_queue_commit_locked() - add an entry of its own
 * @queue: queue to add to
 * @ops: callbacks
 * @entry: idle entry
 * @ts: where to store the timestamp, in nanoseconds; to be passed before
 *	anybody learns of the entry, and before the queue's reader is woken up. 0 if
 *	it has passed
 *
 * The entry is a transaction of its own.
 *
 * Context: Any, with queue->lock held.
 * Return: True if added, false if not: the queue is closed, or would drop the
 *	entry at once.
 */
bool bus1_queue_commit_locked(struct bus1_queue *queue,
			      const struct bus1_queue_ops *ops,
			      struct bus1_queue_entry *entry, u64 *ts)
{
	struct bus1_stamp stamp;

	bus1_queue_get_stamp_locked(queue, &stamp);
	*ts = stamp.ts;
	if (!bus1_queue_add_at_locked(queue, ops, entry, &stamp))
		return false;
	if (bus1_queue_try_pass_locked(queue, stamp.ts))
		*ts = 0;
	return true;
}

/*
 * Whether an entry is going to be dropped: its transaction is sealed at @stamp, or
 * will be from now on. The latter may still get a time a little below, read before;
 * then it overlaps with what makes it stale, and may just as well be dropped.
 */
static bool bus1_queue_is_doomed(const struct bus1_queue_ops *ops,
				 struct bus1_queue_entry *entry, bool sealed,
				 const struct bus1_stamp *stamp)
{
	struct bus1_stamp below = { .ts = U64_MAX, .id = U64_MAX };

	if (sealed)
		return ops->stale(entry, stamp);
	/* Mostly nothing makes it stale, ever: that needs no clock */
	if (!ops->stale(entry, &below))
		return false;
	below.ts = bus1_clock_now() - 1;
	return ops->stale(entry, &below);
}

/**
 * bus1_queue_stage_locked() - add an entry of a transaction
 * @queue: queue to add to
 * @ops: callbacks
 * @entry: idle entry
 * @tx: transaction it belongs to; may be sealed, above queue->floor
 * @stamp: position of @tx if it is sealed
 *
 * Context: Any, with queue->lock held.
 * Return: True if @tx was sealed already. The entry is then ready, provided the
 *	caller has made sure that it may come this late. The entry stays idle if
 *	the queue is closed, or is sure to drop it.
 */
bool bus1_queue_stage_locked(struct bus1_queue *queue,
			     const struct bus1_queue_ops *ops,
			     struct bus1_queue_entry *entry,
			     struct bus1_tx *tx, struct bus1_stamp *stamp)
{
	struct bus1_queue_entry *leader;
	bool sealed;

	lockdep_assert_held(&queue->lock);

	sealed = bus1_tx_push(tx, queue->floor, stamp);
	if (queue->closed || bus1_queue_is_doomed(ops, entry, sealed, stamp))
		return sealed;

	entry->stamp = *stamp;
	bus1_queue_add_locked(queue, entry, BUS1_ENTRY_STAGED);

	list_for_each_entry(leader, &queue->staged, link) {
		if (leader->tx == tx) {
			list_add_tail(&entry->group, &leader->group);
			if (sealed)
				bus1_queue_settle_locked(queue, leader, stamp);
			return sealed;
		}
	}

	if (sealed) {
		entry->tx = NULL;
		bus1_queue_ready_locked(queue, entry, false);
	} else {
		entry->tx = tx;
		entry->leader = true;
		list_add_tail(&entry->link, &queue->staged);
	}
	return sealed;
}

/* Leave the others. The next one of the group takes the place of its leader. */
static noinline void bus1_queue_leave_locked(struct bus1_queue *queue,
					     struct bus1_queue_entry *entry)
{
	struct bus1_queue_entry *next;

	lockdep_assert_held(&queue->lock);

	if (!entry->leader) {
		list_del_init(&entry->group);
	} else if (!list_empty(&entry->group)) {
		next = list_next_entry(entry, group);
		list_del_init(&entry->group);
		next->leader = true;
		next->tx = entry->tx;
		next->stamp = entry->stamp;
		if (bus1_queue_is_ready(entry)) {
			rb_replace_node_cached(&entry->rb, &next->rb,
					       &queue->ready);
			if (queue->last == &entry->rb)
				queue->last = &next->rb;
		} else {
			list_replace(&entry->link, &next->link);
		}
	} else if (!bus1_queue_is_ready(entry)) {
		list_del(&entry->link);
	} else {
		if (queue->last == &entry->rb)
			queue->last = rb_prev(&entry->rb);
		rb_erase_cached(&entry->rb, &queue->ready);
	}
}

/* Take an entry off. */
static void bus1_queue_unlink_locked(struct bus1_queue *queue,
				     struct bus1_queue_entry *entry, u8 state)
{
	lockdep_assert_held(&queue->lock);

	if (entry->leader && list_empty(&entry->group) &&
	    bus1_queue_is_ready(entry) &&
	    queue->last == rb_first_cached(&queue->ready)) {
		/* The only one, as is usual where messages are waited for */
		queue->ready = RB_ROOT_CACHED;
		queue->last = NULL;
	} else {
		bus1_queue_leave_locked(queue, entry);
	}

	if (entry->siblings)
		hlist_del_init(&entry->sibling);
	entry->leader = false;
	entry->placed = false;
	entry->tx = NULL;
	entry->state = state;
	WRITE_ONCE(queue->n, queue->n - 1);
}

/**
 * bus1_queue_remove_locked() - take an entry off, wherever it is
 * @queue: queue it may be on
 * @entry: entry to remove
 *
 * Context: Any, with queue->lock held.
 * Return: True if it was on the queue. False if it is idle, or claimed by a
 *	reader, to whom it then belongs.
 */
bool bus1_queue_remove_locked(struct bus1_queue *queue,
			      struct bus1_queue_entry *entry)
{
	lockdep_assert_held(&queue->lock);

	if (entry->state == BUS1_ENTRY_IDLE ||
	    entry->state == BUS1_ENTRY_CLAIMED)
		return false;
	bus1_queue_unlink_locked(queue, entry, BUS1_ENTRY_IDLE);
	return true;
}

/**
 * bus1_queue_settle() - let go of a transaction that is sealed
 * @queue: queue it was staged on
 * @tx: sealed transaction
 *
 * After this the queue does not refer to @tx any more.
 *
 * Context: Any.
 */
void bus1_queue_settle(struct bus1_queue *queue, struct bus1_tx *tx)
{
	struct bus1_queue_entry *leader;
	struct bus1_stamp stamp;

	if (WARN_ON_ONCE(!bus1_tx_sealed(tx, &stamp)))
		return;

	/*
	 * [settle:A] pairs with [settle:B] in bus1_queue_collect_locked() and
	 * bus1_queue_push_locked(): after this section no reader looks at @tx,
	 * which may be on the stack of the caller.
	 */
	spin_lock(&queue->lock);
	list_for_each_entry(leader, &queue->staged, link) {
		if (leader->tx == tx) {
			bus1_queue_settle_locked(queue, leader, &stamp);
			break;
		}
	}
	spin_unlock(&queue->lock);
}

/* Move all groups that were sealed since to the ready ones. */
static noinline void bus1_queue_collect_locked(struct bus1_queue *queue)
{
	struct bus1_queue_entry *leader, *t;
	struct bus1_stamp stamp;

	/* [settle:B] pairs with [settle:A] in bus1_queue_settle() */
	list_for_each_entry_safe(leader, t, &queue->staged, link) {
		if (bus1_tx_sealed(leader->tx, &stamp))
			bus1_queue_settle_locked(queue, leader, &stamp);
	}
}

/*
 * Push everything that is staged above @ts. What turns out to be sealed becomes
 * ready.
 */
static noinline void bus1_queue_push_locked(struct bus1_queue *queue, u64 ts)
{
	struct bus1_queue_entry *leader, *t;
	struct bus1_stamp stamp;

	/* [settle:B] pairs with [settle:A] in bus1_queue_settle() */
	list_for_each_entry_safe(leader, t, &queue->staged, link) {
		if (leader->stamp.ts > ts)
			continue;
		if (bus1_tx_push(leader->tx, ts, &stamp))
			bus1_queue_settle_locked(queue, leader, &stamp);
		else
			leader->stamp.ts = stamp.ts;
	}
}

static noinline void bus1_queue_drop_locked(struct bus1_queue *queue,
					    struct bus1_queue_entry *entry,
					    struct list_head *drops)
{
	bus1_queue_unlink_locked(queue, entry, BUS1_ENTRY_IDLE);
	list_add_tail(&entry->link, drops);
}

/*
 * The clock, or what it has shown before if that is enough to hand out all that is there:
 * nothing is staged, and the last one has passed.
 */
static __always_inline u64 bus1_queue_now_locked(const struct bus1_queue *queue)
{
	lockdep_assert_held(&queue->lock);

	/*
	 * [passed:B] pairs with [passed:A] in bus1_queue_try_pass_locked(): the clock was
	 * read there before the lock was released.
	 */
	if (list_empty(&queue->staged) && queue->last &&
	    rb_entry(queue->last, struct bus1_queue_entry, rb)->stamp.ts <=
	    queue->passed)
		return queue->passed + 1;
	return bus1_clock_now();
}

/*
 * The first entry to hand out now; with @push, with everything that is staged pushed
 * above it. Drops what is stale, and returns NULL with @again set
 * if that was a lot.
 */
static __always_inline struct bus1_queue_entry *
bus1_queue_next_locked(struct bus1_queue *queue,
		       const struct bus1_queue_ops *ops, bool push,
		       struct list_head *drops, bool *again)
{
	struct bus1_queue_entry *entry;
	unsigned int n = 0;
	u64 now;

	*again = false;
	if (!queue->n)
		return NULL;
	now = bus1_queue_now_locked(queue);
	if (!list_empty(&queue->staged))
		bus1_queue_collect_locked(queue);

	/*
	 * Choose the lowest first, then test it against the clock: one that is
	 * not in the past yet must not be skipped in favour of a later one. What
	 * may be handed out comes before @now, so one push is enough, however
	 * many are stale; what it finds sealed may be lower.
	 */
	for (;;) {
		entry = bus1_queue_first_locked(queue);
		if (!entry || entry->stamp.ts >= now)
			return NULL;
		if (push) {
			push = false;
			bus1_queue_push_locked(queue, now - 1);
			continue;
		}
		if (!ops->stale(entry, &entry->stamp))
			return entry;
		bus1_queue_drop_locked(queue, entry, drops);
		if (++n == BUS1_QUEUE_BATCH) {
			*again = true;
			return NULL;
		}
	}
}

/* Whether the first entry is one of the transaction at @stamp. */
static bool bus1_queue_continues_locked(struct bus1_queue *queue,
					const struct bus1_stamp *stamp)
{
	struct bus1_queue_entry *entry = bus1_queue_first_locked(queue);

	return entry && !bus1_stamp_cmp(&entry->stamp, stamp);
}

/* Whether there is one of the transaction at @stamp that is not stale. */
static noinline bool bus1_queue_has_more(struct bus1_queue *queue,
					 const struct bus1_queue_ops *ops,
					 const struct bus1_stamp *stamp,
					 struct list_head *drops)
{
	struct bus1_queue_entry *entry;
	bool more, stale = true;
	unsigned int n;

	do {
		spin_lock(&queue->lock);
		for (n = 0; n < BUS1_QUEUE_BATCH; ++n) {
			more = bus1_queue_continues_locked(queue, stamp);
			if (!more)
				break;
			entry = bus1_queue_first_locked(queue);
			stale = ops->stale(entry, stamp);
			if (!stale)
				break;
			bus1_queue_drop_locked(queue, entry, drops);
		}
		spin_unlock(&queue->lock);
		cond_resched();
	} while (more && stale);

	return more;
}

/**
 * bus1_queue_claim() - take the next entry off, to be put back or received
 * @queue: queue to take it from
 * @ops: callbacks
 * @drops: list that gets the entries, by their link, that were dropped
 * @more: set if another entry of the same transaction could be handed out next
 *
 * The caller makes sure that there is one claimed entry at a time. It calls
 * bus1_queue_done() once the entry was received, or else
 * bus1_queue_unclaim_locked().
 *
 * Context: Process context, may sleep.
 * Return: The entry, or NULL if none is ready.
 */
struct bus1_queue_entry *bus1_queue_claim(struct bus1_queue *queue,
					  const struct bus1_queue_ops *ops,
					  struct list_head *drops, bool *more)
{
	struct bus1_queue_entry *entry;
	bool again, push;

	do {
		/*
		 * [staged:B] pairs with [staged:A] in bus1_destroy_seal(), and
		 * [payload:B] pairs with [payload:A] in bus1_send_copy_one(): who
		 * finds an entry finds what it stands for, and who has learned
		 * of a transaction finds its entry. The lock orders both.
		 */
		spin_lock(&queue->lock);
		push = !list_empty(&queue->staged);
		entry = bus1_queue_next_locked(queue, ops, push, drops, &again);
		if (entry) {
			/* The floor rises before the lock is released */
			queue->floor = max(queue->floor, entry->stamp.ts);
			bus1_queue_unlink_locked(queue, entry,
						 BUS1_ENTRY_CLAIMED);
			*more = bus1_queue_continues_locked(queue,
							    &entry->stamp);
		}
		spin_unlock(&queue->lock);
		if (unlikely(again))
			cond_resched();
	} while (unlikely(again));

	if (entry && *more)
		*more = bus1_queue_has_more(queue, ops, &entry->stamp, drops);
	return entry;
}

/**
 * bus1_queue_unclaim_locked() - put a claimed entry back
 * @queue: queue it was claimed from
 * @entry: claimed entry
 *
 * It is the next one to be claimed again.
 *
 * Context: Any, with queue->lock held.
 */
void bus1_queue_unclaim_locked(struct bus1_queue *queue,
			       struct bus1_queue_entry *entry)
{
	lockdep_assert_held(&queue->lock);
	bus1_queue_add_locked(queue, entry, BUS1_ENTRY_READY);
	bus1_queue_ready_locked(queue, entry, true);
}

/**
 * bus1_queue_peek() - ask whether an entry is ready
 * @queue: queue to look at
 * @ops: callbacks
 * @drops: list that gets the entries, by their link, that were dropped
 *
 * Context: Process context, may sleep.
 * Return: True if bus1_queue_claim() would return one.
 */
bool bus1_queue_peek(struct bus1_queue *queue, const struct bus1_queue_ops *ops,
		     struct list_head *drops)
{
	bool again, ready;

	do {
		spin_lock(&queue->lock);
		ready = bus1_queue_next_locked(queue, ops, false, drops, &again);
		spin_unlock(&queue->lock);
		if (unlikely(again))
			cond_resched();
	} while (unlikely(again));
	return ready;
}

/* Let others have the lock, and the CPU. */
static void bus1_queue_break_locked(struct bus1_queue *queue)
{
	spin_unlock(&queue->lock);
	cond_resched();
	spin_lock(&queue->lock);
}

/* Take the first entry off if it comes before @stamp, and drop or keep it. */
static bool bus1_queue_flush_one_locked(struct bus1_queue *queue,
					const struct bus1_queue_ops *ops,
					const struct bus1_stamp *stamp,
					struct list_head *drops,
					struct list_head *kept)
{
	struct bus1_queue_entry *entry = bus1_queue_first_locked(queue);

	if (!entry || bus1_stamp_cmp(&entry->stamp, stamp) > 0)
		return false;

	if (ops->keep(entry) && !ops->stale(entry, &entry->stamp)) {
		bus1_queue_unlink_locked(queue, entry, BUS1_ENTRY_CLAIMED);
		list_add_tail(&entry->link, kept);
	} else {
		bus1_queue_drop_locked(queue, entry, drops);
	}
	return true;
}

/**
 * bus1_queue_flush() - drop what comes before a position
 * @queue: queue to flush, without a claimed entry; nothing claims one meanwhile
 * @ops: callbacks
 * @stamp: position, in the past
 * @drops: list that gets the entries, by their link
 *
 * Nothing is added below @stamp any more. What is to be kept may be missing for a
 * moment to bus1_queue_peek().
 *
 * Context: Process context, may sleep.
 */
void bus1_queue_flush(struct bus1_queue *queue, const struct bus1_queue_ops *ops,
		      const struct bus1_stamp *stamp, struct list_head *drops)
{
	struct bus1_queue_entry *entry, *t;
	unsigned int n = 0;
	LIST_HEAD(kept);

	spin_lock(&queue->lock);
	queue->floor = max(queue->floor, stamp->ts);
	bus1_queue_push_locked(queue, stamp->ts);
	while (bus1_queue_flush_one_locked(queue, ops, stamp, drops, &kept)) {
		if (++n % BUS1_QUEUE_BATCH == 0)
			bus1_queue_break_locked(queue);
	}
	list_for_each_entry_safe(entry, t, &kept, link) {
		bus1_queue_add_locked(queue, entry, BUS1_ENTRY_READY);
		bus1_queue_ready_locked(queue, entry, false);
		if (++n % BUS1_QUEUE_BATCH == 0)
			bus1_queue_break_locked(queue);
	}
	spin_unlock(&queue->lock);
}

/*
 * The position of an entry, if @ready, or what its transaction was last pushed to. A
 * position does not change any more, so all entries on the way to the leader take a
 * note of it: to ask for those of all entries takes about as many steps as there are,
 * once they are ready. Counts the steps in @n.
 */
static const struct bus1_stamp *
bus1_queue_find_stamp_locked(struct bus1_queue_entry *entry, bool *ready,
			     unsigned int *n)
{
	struct bus1_queue_entry *at = entry;

	while (!at->leader && !at->placed) {
		at = list_next_entry(at, group);
		++*n;
	}
	*ready = at->placed || bus1_queue_is_ready(at);
	for (; *ready && entry != at; entry = list_next_entry(entry, group)) {
		entry->stamp = at->stamp;
		entry->placed = true;
		++*n;
	}
	return &at->stamp;
}

/**
 * bus1_queue_purge() - drop what is stale on a list of siblings
 * @queue: queue to purge
 * @ops: callbacks
 * @siblings: list of siblings to look at
 * @drops: list that gets the entries, by their link
 *
 * What becomes stale without being looked at here is dropped when its turn
 * comes.
 *
 * Context: Process context, may sleep.
 */
void bus1_queue_purge(struct bus1_queue *queue, const struct bus1_queue_ops *ops,
		      struct hlist_head *siblings, struct list_head *drops)
{
	const struct bus1_stamp *stamp;
	struct bus1_queue_entry *entry;
	unsigned int n = 0;
	HLIST_HEAD(todo);
	bool ready;

	spin_lock(&queue->lock);
	bus1_queue_collect_locked(queue);
	hlist_move_list(siblings, &todo);
	while (!hlist_empty(&todo)) {
		entry = hlist_entry(todo.first, struct bus1_queue_entry,
				    sibling);
		stamp = bus1_queue_find_stamp_locked(entry, &ready, &n);
		if (bus1_queue_is_doomed(ops, entry, ready, stamp)) {
			bus1_queue_drop_locked(queue, entry, drops);
		} else {
			hlist_del(&entry->sibling);
			hlist_add_head(&entry->sibling, siblings);
		}
		if (++n >= BUS1_QUEUE_BATCH) {
			bus1_queue_break_locked(queue);
			n = 0;
		}
	}
	spin_unlock(&queue->lock);
}

/**
 * bus1_queue_close() - take no more entries, and drop those that are there
 * @queue: queue to close, without a claimed entry
 * @drops: list that gets the entries, by their link
 *
 * Transactions that are staged here are not held up, nor pushed.
 *
 * Context: Any.
 * Return: True if there may be more to drop: call again.
 */
bool bus1_queue_close(struct bus1_queue *queue, struct list_head *drops)
{
	struct bus1_queue_entry *entry;
	unsigned int n;

	spin_lock(&queue->lock);
	queue->closed = true;
	for (n = 0; n < BUS1_QUEUE_BATCH; ++n) {
		entry = bus1_queue_first_locked(queue);
		if (!entry)
			entry = list_first_entry_or_null(&queue->staged,
							 struct bus1_queue_entry,
							 link);
		if (!entry)
			break;
		bus1_queue_drop_locked(queue, entry, drops);
	}
	spin_unlock(&queue->lock);
	return n == BUS1_QUEUE_BATCH;
}

/**
 * bus1_queue_length() - count the entries
 * @queue: queue to count in
 *
 * Context: Any.
 * Return: Number of entries on the queue, staged ones included.
 */
u64 bus1_queue_length(struct bus1_queue *queue)
{
	u64 n;

	spin_lock(&queue->lock);
	n = queue->n;
	spin_unlock(&queue->lock);
	return n;
}
