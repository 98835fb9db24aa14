// SPDX-License-Identifier: GPL-2.0-only
/*
 * Random schedules on many queues, against a model
 *
 * The model knows the rules, and nothing of how they are kept: each entry is an
 * element of an array, with the position of its transaction, and what comes next
 * is found by looking at all of them. One thread does one step after the other, so
 * that whatever happens can be foretold, but for what the clock says: that is
 * read before and after a step, and only what lies between may go either way.
 *
 * Entries are letters to a target, which a transaction can destroy as others
 * destroy a node; letters that come after that are void. Notices are what holders
 * of the target are told by that transaction. They outlive a flush, and are void
 * once a holder is none any more.
 */

#include <kunit/test.h>
#include <linux/atomic.h>
#include <linux/limits.h>
#include <linux/list.h>
#include <linux/minmax.h>
#include <linux/rbtree.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include "../queue.h"
#include "kunit.h"

#define N_BOXES		4
#define N_DEALS		12
#define N_TARGETS	6
#define N_ITEMS		120
#define N_STEPS		2500
#define N_SEEDS		6

/* How far into the future timestamps are pushed at most, in ns. */
#define AHEAD		(2 * NSEC_PER_MSEC)

enum item_place {
	ITEM_IDLE,
	ITEM_QUEUED,
	ITEM_CLAIMED,
};

enum deal_state {
	DEAL_FREE,
	DEAL_OPEN,
	DEAL_SEALED,
};

/**
 * struct box - a queue
 * @queue: the queue
 * @floor: what was received has at most this timestamp
 * @claimed: what is claimed, or NULL
 * @last: position of what was received last
 */
struct box {
	struct bus1_queue queue;
	u64 floor;
	struct item *claimed;
	struct bus1_stamp last;
};

/**
 * struct deal - a transaction over several queues
 * @tx: the transaction
 * @state: where it is
 * @bound: what it was pushed to
 * @stamp: its position, once sealed
 * @unsettled: queues that may refer to it, a bit each
 * @victim: what it destroys, or NULL
 */
struct deal {
	struct bus1_tx tx;
	enum deal_state state;
	u64 bound;
	struct bus1_stamp stamp;
	unsigned long unsettled;
	struct target *victim;
};

/**
 * struct target - what letters are for
 * @box: queue that they go to
 * @death: what destroys it, or NULL
 * @letters: the letters in the queue
 */
struct target {
	struct box *box;
	struct deal *death;
	struct hlist_head letters;
};

/**
 * struct item - an entry, and what the model knows of it
 * @entry: the entry
 * @place: where it is
 * @box: in which queue
 * @deal: the transaction that it is staged in, until that is sealed
 * @stamp: its position, without a @deal
 * @order: its place in the group, among entries at one position
 * @target: what it is for; NULL for a notice
 * @is_void: notice that nobody wants any more
 */
struct item {
	struct bus1_queue_entry entry;
	enum item_place place;
	struct box *box;
	struct deal *deal;
	struct bus1_stamp stamp;
	s64 order;
	struct target *target;
	bool is_void;
};

struct run {
	struct kunit *test;
	struct rnd_state rnd;
	struct box boxes[N_BOXES];
	struct deal deals[N_DEALS];
	struct target targets[N_TARGETS];
	struct item items[N_ITEMS];
	s64 n_ordered;
	unsigned int n_received;
	unsigned int n_dropped;
	unsigned int n_ties;
	unsigned int n_destroyed;
};

static bool model_is_stale(const struct item *item,
			   const struct bus1_stamp *stamp)
{
	const struct deal *death;

	if (!item->target)
		return item->is_void;
	death = item->target->death;
	return death && death->state == DEAL_SEALED &&
	       bus1_stamp_cmp(&death->stamp, stamp) < 0;
}

static bool item_is_stale(struct bus1_queue_entry *entry,
			  const struct bus1_stamp *stamp)
{
	struct item *item = container_of(entry, struct item, entry);
	struct bus1_stamp at;

	if (!item->target)
		return item->is_void;
	return item->target->death &&
	       bus1_tx_sealed(&item->target->death->tx, &at) &&
	       bus1_stamp_cmp(&at, stamp) < 0;
}

static bool item_is_kept(const struct bus1_queue_entry *entry)
{
	return !container_of(entry, struct item, entry)->target;
}

static const struct bus1_queue_ops item_ops = {
	.stale	= item_is_stale,
	.keep	= item_is_kept,
};

/* One of those for which @cond is true, or NULL. */
#define pick(run, array, it, cond) ({ \
	typeof(&(run)->array[0]) it, __found = NULL; \
	u32 __i, __first = bus1_rnd(&(run)->rnd, ARRAY_SIZE((run)->array)); \
	for (__i = 0; !__found && __i < ARRAY_SIZE((run)->array); ++__i) { \
		it = &(run)->array[(__first + __i) % ARRAY_SIZE((run)->array)]; \
		if (cond) \
			__found = it; \
	} \
	__found; \
})

static struct box *pick_box(struct run *run)
{
	return &run->boxes[bus1_rnd(&run->rnd, N_BOXES)];
}

static u64 box_bit(struct run *run, struct box *box)
{
	return BIT(box - run->boxes);
}

static bool model_before(const struct item *a, const struct item *b)
{
	int cmp = bus1_stamp_cmp(&a->stamp, &b->stamp);

	return cmp ? cmp < 0 : a->order < b->order;
}

/* What comes next in a queue, after @from: the lowest that has a position. */
static struct item *model_next(struct run *run, struct box *box,
			       const struct item *from)
{
	struct item *item, *best = NULL;
	unsigned int i;

	for (i = 0; i < N_ITEMS; ++i) {
		item = &run->items[i];
		if (item->place != ITEM_QUEUED || item->box != box ||
		    item->deal || (from && !model_before(from, item)))
			continue;
		if (!best || model_before(item, best))
			best = item;
	}
	return best;
}

/* Whatever is staged in a queue cannot be sealed at or below @ts any more. */
static void model_push(struct run *run, struct box *box, u64 ts)
{
	struct item *item;
	unsigned int i;

	for (i = 0; i < N_ITEMS; ++i) {
		item = &run->items[i];
		if (item->place == ITEM_QUEUED && item->box == box &&
		    item->deal)
			item->deal->bound = max(item->deal->bound, ts);
	}
}

/* The same for some time that a reader took for now, after @before. */
static void model_push_now(struct run *run, struct box *box, u64 before,
			   u64 after)
{
	struct kunit *test = run->test;
	struct item *item;
	unsigned int i;
	u64 bound;

	for (i = 0; i < N_ITEMS; ++i) {
		item = &run->items[i];
		if (item->place != ITEM_QUEUED || item->box != box ||
		    !item->deal)
			continue;
		bound = (u64)atomic64_read(&item->deal->tx.word) >> 1;
		KUNIT_EXPECT_GE(test, bound, max(item->deal->bound,
						 before - 1));
		KUNIT_EXPECT_LE(test, bound, max(item->deal->bound,
						 after - 1));
		item->deal->bound = bound;
	}
}

static void model_seal(struct run *run, struct deal *deal, u64 ts)
{
	struct item *item;
	unsigned int i;

	deal->state = DEAL_SEALED;
	deal->stamp.ts = ts;
	deal->stamp.id = deal->tx.id;
	for (i = 0; i < N_DEALS; ++i)
		run->n_ties += &run->deals[i] != deal &&
			       run->deals[i].state == DEAL_SEALED &&
			       run->deals[i].stamp.ts == ts;
	for (i = 0; i < N_ITEMS; ++i) {
		item = &run->items[i];
		if (item->deal == deal) {
			item->deal = NULL;
			item->stamp = deal->stamp;
		}
	}
}

static void model_add(struct run *run, struct item *item, struct box *box)
{
	item->place = ITEM_QUEUED;
	item->box = box;
	item->order = ++run->n_ordered;
}

static void model_remove(struct item *item)
{
	item->place = ITEM_IDLE;
	item->deal = NULL;
}

/* The next entry of a list of those that were dropped must be @item. */
static void check_dropped(struct run *run, struct list_head *drops,
			  struct item *item)
{
	struct kunit *test = run->test;
	struct bus1_queue_entry *entry;

	entry = list_first_entry_or_null(drops, struct bus1_queue_entry, link);
	KUNIT_EXPECT_PTR_EQ(test, entry, &item->entry);
	if (entry) {
		list_del(&entry->link);
		KUNIT_EXPECT_EQ(test, entry->state, BUS1_ENTRY_IDLE);
	}
	model_remove(item);
	++run->n_dropped;
}

static struct item *new_item(struct run *run, struct target *target)
{
	struct item *item = pick(run, items, it, it->place == ITEM_IDLE);

	if (item) {
		bus1_queue_entry_init(&item->entry, 0);
		item->target = target;
		item->is_void = false;
		item->deal = NULL;
		item->entry.siblings = target ? &target->letters : NULL;
	}
	return item;
}

/* A letter to one. */
static void step_commit(struct run *run)
{
	struct target *target = &run->targets[bus1_rnd(&run->rnd, N_TARGETS)];
	struct item *item = new_item(run, target);
	struct kunit *test = run->test;
	struct box *box = target->box;
	u64 ts, before, after;
	bool added;

	if (!item)
		return;
	before = bus1_clock_now();
	spin_lock(&box->queue.lock);
	added = bus1_queue_commit_locked(&box->queue, &item_ops, &item->entry, &ts);
	spin_unlock(&box->queue.lock);
	after = bus1_clock_now();

	item->stamp = item->entry.stamp;
	if (ts)
		KUNIT_EXPECT_EQ(test, item->stamp.ts, ts);
	else
		KUNIT_EXPECT_LT(test, item->stamp.ts, after);
	KUNIT_EXPECT_GT(test, item->stamp.ts, box->floor);
	KUNIT_EXPECT_GE(test, item->stamp.ts, before);
	KUNIT_EXPECT_LE(test, item->stamp.ts, max(after, box->floor + 1));
	KUNIT_EXPECT_EQ(test, added, !model_is_stale(item, &item->stamp));
	if (added)
		model_add(run, item, box);
	if (bus1_rnd(&run->rnd, 2))
		bus1_clock_pass(ts);
}

static struct deal *new_deal(struct run *run, struct target *victim)
{
	struct deal *deal = pick(run, deals, it, it->state == DEAL_FREE);

	if (deal) {
		bus1_tx_init(&deal->tx);
		deal->state = DEAL_OPEN;
		deal->bound = 0;
		deal->unsettled = 0;
		deal->victim = victim;
	}
	return deal;
}

static void do_stage(struct run *run, struct deal *deal, struct item *item,
		     struct box *box)
{
	bool sealed, is_sealed = deal->state == DEAL_SEALED;
	struct kunit *test = run->test;
	struct bus1_stamp stamp, below = { .id = U64_MAX };
	u64 before, after;

	before = bus1_clock_now();
	spin_lock(&box->queue.lock);
	sealed = bus1_queue_stage_locked(&box->queue, &item_ops, &item->entry, &deal->tx,
					 &stamp);
	spin_unlock(&box->queue.lock);
	after = bus1_clock_now();

	KUNIT_EXPECT_EQ(test, sealed, is_sealed);
	KUNIT_EXPECT_EQ(test, stamp.id, deal->tx.id);
	if (is_sealed) {
		KUNIT_EXPECT_EQ(test, stamp.ts, deal->stamp.ts);
	} else {
		deal->bound = max(deal->bound, box->floor);
		KUNIT_EXPECT_EQ(test, stamp.ts, deal->bound);
	}

	if (item->entry.state == BUS1_ENTRY_IDLE) {
		/* It would be dropped */
		below.ts = after - 1;
		KUNIT_EXPECT_TRUE(test, model_is_stale(item, is_sealed ?
						       &stamp : &below));
		return;
	}
	below.ts = before - 1;
	KUNIT_EXPECT_FALSE(test, model_is_stale(item, is_sealed ? &stamp :
						&below));
	model_add(run, item, box);
	if (is_sealed)
		item->stamp = deal->stamp;
	else
		item->deal = deal;
	deal->unsettled |= box_bit(run, box);
}

/* A letter to one more, of a transaction that may be a new one. */
static void step_stage(struct run *run)
{
	struct target *target = &run->targets[bus1_rnd(&run->rnd, N_TARGETS)];
	struct item *item = new_item(run, target);
	struct deal *deal;

	deal = bus1_rnd(&run->rnd, 3) ? pick(run, deals, it,
					     it->state == DEAL_OPEN) : NULL;
	if (!deal)
		deal = new_deal(run, NULL);
	if (item && deal)
		do_stage(run, deal, item, target->box);
}

/* Somebody joins after the seal, as long as that is not too late. */
static void step_stage_late(struct run *run)
{
	struct box *box = pick_box(run);
	struct deal *deal = pick(run, deals, it, it->state == DEAL_SEALED &&
				 it->stamp.ts > box->floor);
	struct item *item = new_item(run, NULL);

	if (item && deal)
		do_stage(run, deal, item, box);
}

/* The holders of a target, of which its owner is one, are to be told. */
static void step_destroy(struct run *run)
{
	struct target *target = pick(run, targets, it, !it->death);
	unsigned int i, first = bus1_rnd(&run->rnd, N_BOXES);
	struct deal *deal;
	struct item *item;
	struct box *box;

	deal = target ? new_deal(run, target) : NULL;
	if (!deal)
		return;
	target->death = deal;
	for (i = 0; i < N_BOXES; ++i) {
		box = &run->boxes[(first + i) % N_BOXES];
		if (box != target->box && bus1_rnd(&run->rnd, 2))
			continue;
		item = new_item(run, NULL);
		if (item)
			do_stage(run, deal, item, box);
	}
	++run->n_destroyed;
}

static void do_push(struct run *run, struct deal *deal, u64 ts)
{
	struct kunit *test = run->test;
	struct bus1_stamp stamp;
	bool sealed;

	sealed = bus1_tx_push(&deal->tx, ts, &stamp);
	KUNIT_EXPECT_EQ(test, sealed, deal->state == DEAL_SEALED);
	KUNIT_EXPECT_EQ(test, stamp.id, deal->tx.id);
	if (sealed) {
		KUNIT_EXPECT_EQ(test, stamp.ts, deal->stamp.ts);
	} else {
		deal->bound = max(deal->bound, ts);
		KUNIT_EXPECT_EQ(test, stamp.ts, deal->bound);
	}
}

/* Somebody wants it to come later, perhaps later than now. */
static void step_push(struct run *run)
{
	struct deal *deal = pick(run, deals, it, it->state != DEAL_FREE);

	if (deal)
		do_push(run, deal, bus1_clock_now() - AHEAD / 2 +
				   bus1_rnd(&run->rnd, AHEAD * 3 / 2));
}

static void do_seal(struct run *run, struct deal *deal, bool wait)
{
	struct kunit *test = run->test;
	u64 ts, before, after;

	before = bus1_clock_now();
	ts = bus1_tx_seal(&deal->tx);
	after = bus1_clock_now();
	KUNIT_EXPECT_GT(test, ts, deal->bound);
	KUNIT_EXPECT_GE(test, ts, before);
	KUNIT_EXPECT_LE(test, ts, max(after, deal->bound + 1));
	model_seal(run, deal, ts);
	if (wait)
		bus1_clock_pass(ts);
}

static void step_seal(struct run *run)
{
	struct deal *deal = pick(run, deals, it, it->state == DEAL_OPEN);

	if (deal)
		do_seal(run, deal, bus1_rnd(&run->rnd, 2));
}

/* Two that are pushed ahead of the clock alike get equal timestamps. */
static void step_tie(struct run *run)
{
	struct deal *a = pick(run, deals, it, it->state == DEAL_OPEN);
	struct deal *b = pick(run, deals, it, it->state == DEAL_OPEN &&
			      it != a);
	u64 ts = bus1_clock_now() + AHEAD;

	if (!a || !b)
		return;
	do_push(run, a, ts);
	do_push(run, b, ts);
	do_seal(run, a, false);
	do_seal(run, b, bus1_rnd(&run->rnd, 2));
}

/* A transaction is over once nothing can refer to it. */
static void reap_deal(struct run *run, struct deal *deal)
{
	struct target *target = deal->victim;
	unsigned int i;

	if (deal->state != DEAL_SEALED || deal->unsettled)
		return;
	for (i = 0; target && i < N_ITEMS; ++i) {
		if (run->items[i].place != ITEM_IDLE &&
		    run->items[i].target == target)
			return;
	}
	if (target)
		target->death = NULL;
	deal->state = DEAL_FREE;
}

static void do_settle(struct run *run, struct deal *deal, unsigned int box)
{
	bus1_queue_settle(&run->boxes[box].queue, &deal->tx);
	deal->unsettled &= ~BIT(box);
	reap_deal(run, deal);
}

static void step_settle(struct run *run)
{
	struct deal *deal = pick(run, deals, it, it->state == DEAL_SEALED);

	if (deal && deal->unsettled)
		do_settle(run, deal, __ffs(deal->unsettled));
	else if (deal)
		reap_deal(run, deal);
}

static void do_remove(struct run *run, struct item *item)
{
	struct bus1_queue *queue = &item->box->queue;
	bool removed;

	spin_lock(&queue->lock);
	removed = bus1_queue_remove_locked(queue, &item->entry);
	spin_unlock(&queue->lock);
	KUNIT_EXPECT_EQ(run->test, removed, item->place == ITEM_QUEUED);
	if (removed)
		model_remove(item);
}

/* Take one back, wherever it is. What is claimed is not to be had. */
static void step_remove(struct run *run)
{
	struct item *item = pick(run, items, it, it->place != ITEM_IDLE);

	if (item)
		do_remove(run, item);
}

/* A sender gives up before the seal. Destruction does not fail. */
static void step_abort(struct run *run)
{
	struct deal *deal = pick(run, deals, it, it->state == DEAL_OPEN &&
				 !it->victim);
	struct item *item;

	if (!deal)
		return;
	while ((item = pick(run, items, it, it->deal == deal)))
		do_remove(run, item);
	deal->state = DEAL_FREE;
}

/* A holder lets go of what it was going to be told about. */
static void step_void(struct run *run)
{
	struct item *item = pick(run, items, it, it->place == ITEM_QUEUED &&
				 !it->target);

	if (item)
		item->is_void = true;
}

/*
 * What a reader goes through, until it finds what it may hand out, which is
 * returned, or comes to what it takes not to be in the past. @found: whether it
 * says that there is something.
 */
static struct item *model_search(struct run *run, struct box *box,
				 struct list_head *drops, bool found, bool push,
				 u64 before, u64 after)
{
	struct kunit *test = run->test;
	struct item *item;

	for (;;) {
		item = model_next(run, box, NULL);
		if (!item) {
			KUNIT_EXPECT_FALSE(test, found);
			return NULL;
		}
		if (!found && list_empty(drops)) {
			KUNIT_EXPECT_GE_MSG(test, item->stamp.ts, before,
					    "there is something");
			return NULL;
		}
		KUNIT_EXPECT_LT_MSG(test, item->stamp.ts, after,
				    "it is not in the past");
		if (push)
			model_push_now(run, box, before, after);
		push = false;
		if (!model_is_stale(item, &item->stamp))
			return item;
		check_dropped(run, drops, item);
		if (bus1_kunit_failed(test))
			return NULL;
	}
}

/* Whether another of the transaction is next; what is void of it is dropped. */
static bool model_more(struct run *run, struct box *box,
		       const struct bus1_stamp *stamp, struct list_head *drops)
{
	struct item *item;

	while ((item = model_next(run, box, NULL)) &&
	       !bus1_stamp_cmp(&item->stamp, stamp)) {
		if (!model_is_stale(item, stamp))
			return true;
		check_dropped(run, drops, item);
		if (bus1_kunit_failed(run->test))
			return false;
	}
	return false;
}

static void step_claim(struct run *run)
{
	struct box *box = pick_box(run);
	struct kunit *test = run->test;
	struct bus1_queue_entry *entry;
	u64 before, after;
	struct item *item;
	LIST_HEAD(drops);
	bool more = false;

	if (box->claimed)
		return;
	before = bus1_clock_now();
	entry = bus1_queue_claim(&box->queue, &item_ops, &drops, &more);
	after = bus1_clock_now();

	item = model_search(run, box, &drops, entry, true, before, after);
	KUNIT_EXPECT_PTR_EQ(test, entry, item ? &item->entry : NULL);
	if (entry && item && entry == &item->entry) {
		KUNIT_EXPECT_EQ(test, bus1_stamp_cmp(&entry->stamp,
						     &item->stamp), 0);
		KUNIT_EXPECT_LE(test, bus1_stamp_cmp(&box->last, &item->stamp),
				0);
		item->place = ITEM_CLAIMED;
		box->claimed = item;
		box->floor = max(box->floor, item->stamp.ts);
		KUNIT_EXPECT_EQ(test, more, model_more(run, box, &item->stamp,
						       &drops));
	}
	KUNIT_EXPECT_TRUE(test, list_empty(&drops));
}

/* What was claimed is received, or put back. */
static void step_finish(struct run *run)
{
	struct box *box = pick(run, boxes, it, it->claimed);
	bool back = bus1_rnd(&run->rnd, 3) == 0;
	struct item *item, *next;

	if (!box)
		return;
	item = box->claimed;
	box->claimed = NULL;
	spin_lock(&box->queue.lock);
	if (back)
		bus1_queue_unclaim_locked(&box->queue, &item->entry);
	else
		bus1_queue_done(&item->entry);
	spin_unlock(&box->queue.lock);
	if (!back) {
		KUNIT_EXPECT_EQ(run->test, item->entry.state, BUS1_ENTRY_IDLE);
		box->last = item->stamp;
		model_remove(item);
		++run->n_received;
		return;
	}
	/* It is before whatever else there is */
	next = model_next(run, box, NULL);
	KUNIT_EXPECT_TRUE(run->test, !next ||
			  bus1_stamp_cmp(&item->stamp, &next->stamp) <= 0);
	item->place = ITEM_QUEUED;
	item->order = -++run->n_ordered;
}

static void step_peek(struct run *run)
{
	struct box *box = pick_box(run);
	struct kunit *test = run->test;
	u64 before, after;
	struct item *item;
	LIST_HEAD(drops);
	bool ready;

	before = bus1_clock_now();
	ready = bus1_queue_peek(&box->queue, &item_ops, &drops);
	after = bus1_clock_now();
	item = model_search(run, box, &drops, ready, false, before, after);
	KUNIT_EXPECT_EQ(test, ready, !!item);
	KUNIT_EXPECT_TRUE(test, list_empty(&drops));
}

static void step_flush(struct run *run)
{
	struct box *box = pick_box(run);
	struct item *item, *last = NULL;
	struct bus1_stamp stamp;
	LIST_HEAD(drops);

	if (box->claimed)
		return;
	stamp.ts = bus1_clock_now() - bus1_rnd(&run->rnd, AHEAD) - 1;
	stamp.id = bus1_rnd(&run->rnd, 2) ? U64_MAX : 0;
	bus1_queue_flush(&box->queue, &item_ops, &stamp, &drops);
	box->floor = max(box->floor, stamp.ts);
	model_push(run, box, stamp.ts);
	while ((item = model_next(run, box, last)) &&
	       bus1_stamp_cmp(&item->stamp, &stamp) <= 0) {
		if (item->target || item->is_void)
			check_dropped(run, &drops, item);
		last = item;
		if (bus1_kunit_failed(run->test))
			break;
	}
	KUNIT_EXPECT_TRUE(run->test, list_empty(&drops));
}

/* Letters to what is destroyed by now are dropped before their turn comes. */
static void step_purge(struct run *run)
{
	struct target *target = pick(run, targets, it, it->death);
	struct bus1_stamp below = { .id = U64_MAX };
	struct bus1_queue_entry *entry, *t;
	struct kunit *test = run->test;
	u64 before, after;
	struct item *item;
	LIST_HEAD(drops);
	unsigned int i;

	if (!target)
		return;
	before = bus1_clock_now();
	bus1_queue_purge(&target->box->queue, &item_ops, &target->letters, &drops);
	after = bus1_clock_now();

	list_for_each_entry_safe(entry, t, &drops, link) {
		item = container_of(entry, struct item, entry);
		below.ts = after - 1;
		KUNIT_EXPECT_EQ(test, item->place, ITEM_QUEUED);
		KUNIT_EXPECT_PTR_EQ(test, item->target, target);
		KUNIT_EXPECT_TRUE(test, model_is_stale(item, item->deal ?
						       &below : &item->stamp));
		check_dropped(run, &drops, item);
	}
	for (i = 0; i < N_ITEMS; ++i) {
		item = &run->items[i];
		below.ts = before - 1;
		if (item->place == ITEM_QUEUED && item->target == target)
			KUNIT_EXPECT_FALSE(test,
					   model_is_stale(item, item->deal ?
							  &below :
							  &item->stamp));
	}
}

/* The queue's own idea of what is in it, and in which order. */
static void check_box(struct run *run, struct box *box)
{
	struct bus1_queue *queue = &box->queue;
	struct bus1_queue_entry *leader, *entry;
	struct kunit *test = run->test;
	struct item *item = NULL;
	unsigned int n = 0;
	struct rb_node *rb, *last = NULL;

	for (rb = rb_first_cached(&queue->ready); rb; rb = rb_next(rb)) {
		leader = rb_entry(rb, struct bus1_queue_entry, rb);
		entry = leader;
		last = rb;
		KUNIT_EXPECT_TRUE(test, leader->leader);
		do {
			item = model_next(run, box, item);
			/* What is sealed may still be among those staged */
			while (item && &item->entry != entry)
				item = model_next(run, box, item);
			KUNIT_EXPECT_NOT_NULL_MSG(test, item, "out of order");
			if (!item)
				return;
			++n;
			entry = list_next_entry(entry, group);
		} while (entry != leader);
	}
	KUNIT_EXPECT_PTR_EQ(test, queue->last, last);
	list_for_each_entry(leader, &queue->staged, link) {
		KUNIT_EXPECT_TRUE(test, leader->leader);
		n += 1 + list_count_nodes(&leader->group);
	}
	KUNIT_EXPECT_EQ(test, queue->n, n);
}

static void check_run(struct run *run)
{
	struct kunit *test = run->test;
	unsigned int i, n[N_BOXES] = {};
	struct deal *deal;
	u64 word;

	for (i = 0; i < N_ITEMS; ++i) {
		if (run->items[i].place == ITEM_QUEUED)
			++n[run->items[i].box - run->boxes];
	}
	for (i = 0; i < N_BOXES; ++i) {
		KUNIT_EXPECT_EQ(test, run->boxes[i].queue.floor,
				run->boxes[i].floor);
		KUNIT_EXPECT_EQ(test, bus1_queue_length(&run->boxes[i].queue),
				n[i]);
		check_box(run, &run->boxes[i]);
	}
	for (i = 0; i < N_DEALS; ++i) {
		deal = &run->deals[i];
		word = atomic64_read(&deal->tx.word);
		if (deal->state == DEAL_OPEN)
			KUNIT_EXPECT_EQ_MSG(test, word, deal->bound << 1,
					    "it was not pushed as it should be");
		else if (deal->state == DEAL_SEALED)
			KUNIT_EXPECT_EQ(test, word, deal->stamp.ts << 1 | 1);
	}
}

static const struct {
	void (*step)(struct run *run);
	unsigned int weight;
} steps[] = {
	{ step_commit,		14 },
	{ step_stage,		24 },
	{ step_stage_late,	 3 },
	{ step_destroy,		 4 },
	{ step_push,		 6 },
	{ step_seal,		10 },
	{ step_tie,		 2 },
	{ step_settle,		12 },
	{ step_remove,		 3 },
	{ step_abort,		 2 },
	{ step_void,		 2 },
	{ step_claim,		24 },
	{ step_finish,		22 },
	{ step_peek,		 6 },
	{ step_flush,		 1 },
	{ step_purge,		 3 },
};

static void run_step(struct run *run)
{
	unsigned int i, sum = 0, at;

	for (i = 0; i < ARRAY_SIZE(steps); ++i)
		sum += steps[i].weight;
	at = bus1_rnd(&run->rnd, sum);
	for (i = 0; at >= steps[i].weight; ++i)
		at -= steps[i].weight;
	steps[i].step(run);
}

static void run_init(struct run *run, struct kunit *test, u64 seed)
{
	unsigned int i;

	memset(run, 0, sizeof(*run));
	run->test = test;
	bus1_rnd_init(&run->rnd, seed);
	for (i = 0; i < N_BOXES; ++i)
		bus1_queue_init(&run->boxes[i].queue);
	for (i = 0; i < N_TARGETS; ++i) {
		run->targets[i].box = &run->boxes[i % N_BOXES];
		INIT_HLIST_HEAD(&run->targets[i].letters);
	}
}

/* Everything is sealed, and whatever is left comes in the order of the model. */
static void run_drain(struct run *run)
{
	unsigned int i, j, limit;
	struct deal *deal;

	for (i = 0; i < N_DEALS; ++i) {
		deal = &run->deals[i];
		if (deal->state == DEAL_OPEN)
			do_seal(run, deal, true);
		if (deal->state != DEAL_SEALED)
			continue;
		bus1_clock_pass(deal->stamp.ts);
		for (j = 0; j < N_BOXES; ++j)
			do_settle(run, deal, j);
	}
	for (limit = 0; limit < 100 * N_ITEMS; ++limit) {
		if (bus1_kunit_failed(run->test) ||
		    !pick(run, items, it, it->place != ITEM_IDLE))
			break;
		step_claim(run);
		step_finish(run);
	}
	KUNIT_EXPECT_NULL_MSG(run->test,
			      pick(run, items, it, it->place != ITEM_IDLE),
			      "it never came");
	check_run(run);
}

/* All that is left is dropped: ready ones in order, then those that are not. */
static void run_close(struct run *run)
{
	struct kunit *test = run->test;
	struct bus1_queue_entry *entry, *t;
	struct item *item;
	struct box *box;
	LIST_HEAD(drops);
	unsigned int i;

	for (i = 0; i < N_BOXES; ++i) {
		box = &run->boxes[i];
		if (box->claimed) {
			spin_lock(&box->queue.lock);
			bus1_queue_done(&box->claimed->entry);
			spin_unlock(&box->queue.lock);
			model_remove(box->claimed);
		}
		while (bus1_queue_close(&box->queue, &drops))
			;
		list_for_each_entry_safe(entry, t, &drops, link) {
			item = container_of(entry, struct item, entry);
			KUNIT_EXPECT_EQ(test, item->place, ITEM_QUEUED);
			KUNIT_EXPECT_PTR_EQ(test, item->box, box);
			check_dropped(run, &drops, item);
		}
		bus1_queue_deinit(&box->queue);
	}
	KUNIT_EXPECT_NULL(test, pick(run, items, it, it->place != ITEM_IDLE));
}

static void bus1_queue_model_test(struct kunit *test)
{
	struct run *run = kunit_kzalloc(test, sizeof(*run), GFP_KERNEL);
	unsigned int step, n_ties = 0;
	u64 seed;

	KUNIT_ASSERT_NOT_NULL(test, run);
	for (seed = 1; seed <= N_SEEDS; ++seed) {
		run_init(run, test, seed);
		for (step = 0; step < N_STEPS; ++step) {
			run_step(run);
			if (step % 8 == 0)
				check_run(run);
			if (bus1_kunit_failed(test))
				break;
		}
		/* Half of the runs end in the middle of it */
		if (!bus1_kunit_failed(test) && seed % 2)
			run_drain(run);
		if (bus1_kunit_failed(test)) {
			kunit_err(test, "seed %llu, step %u", seed, step);
			return;
		}
		run_close(run);
		kunit_info(test, "seed %llu: %u received, %u dropped, %u destroyed, %u ties",
			   seed, run->n_received, run->n_dropped,
			   run->n_destroyed, run->n_ties);
		KUNIT_EXPECT_GT(test, run->n_received, N_STEPS / 20);
		KUNIT_EXPECT_GT(test, run->n_dropped, 0);
		KUNIT_EXPECT_GT(test, run->n_destroyed, 0);
		n_ties += run->n_ties;
	}
	KUNIT_EXPECT_GT(test, n_ties, 0);
}

static struct kunit_case bus1_queue_model_cases[] = {
	KUNIT_CASE_SLOW(bus1_queue_model_test),
	{}
};

static struct kunit_suite bus1_queue_model_suite = {
	.name = "bus1_queue_model",
	.test_cases = bus1_queue_model_cases,
};

kunit_test_suite(bus1_queue_model_suite);
