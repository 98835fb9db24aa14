/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_UTIL_QUEUE_H
#define __BUS1_UTIL_QUEUE_H

/**
 * DOC: Ordered queues
 *
 * A queue hands out entries in the order of their timestamps. Timestamps are
 * those of a hybrid logical clock (Lamport 1978; Kulkarni et al. 2014: "Logical
 * Physical Clocks"): at least the machine's monotonic time, above everything
 * that the queue has handed out before, and in the past before anything that
 * carries them becomes visible. All queues together therefore hand out their
 * entries in one total order, that of the pairs (timestamp, ID), which agrees
 * with real time, although no two queues share anything.
 *
 * An entry for a single queue gets its timestamp when it is committed. A
 * transaction over several queues is a &struct bus1_tx: its entries are staged
 * on each queue first, and appear on all of them at the instant that one
 * compare-and-swap seals the transaction. Nobody waits for a sender: a reader
 * that wants to hand out an entry pushes every transaction which is staged and
 * not yet sealed above it.
 *
 * Entries of one transaction on one queue form a group. One of them, the
 * leader, stands for all of them in the queue's data structures, so that the
 * cost of a step does not depend on the size of the group.
 *
 * Entries are embedded in objects of the user. A queue holds no reference to
 * anything: who adds an entry keeps it alive until it was handed out, removed,
 * or returned in a list of dropped entries. A transaction must stay alive until
 * bus1_queue_settle() was called on every queue it was staged on, or every
 * entry was removed.
 */

#include <linux/atomic.h>
#include <linux/compiler.h>
#include <linux/list.h>
#include <linux/rbtree.h>
#include <linux/spinlock.h>
#include <linux/types.h>

struct bus1_queue;
struct bus1_queue_entry;

/**
 * struct bus1_stamp - position in the total order
 * @ts: timestamp, in nanoseconds of the monotonic clock
 * @id: ID of the transaction, breaks ties
 */
struct bus1_stamp {
	u64 ts;
	u64 id;
};

/**
 * struct bus1_tx - a transaction over several queues
 * @word: unsealed: a lower bound of the timestamp to come; sealed: the
 *	timestamp. Shifted left by one; bit 0 says sealed. (atomic)
 * @id: unique on this machine, never used again (const)
 */
struct bus1_tx {
	atomic64_t word;
	u64 id;
};

/**
 * enum bus1_entry_state - where an entry is
 * @BUS1_ENTRY_IDLE: on no queue
 * @BUS1_ENTRY_STAGED: on a queue, as part of an unsealed transaction
 * @BUS1_ENTRY_READY: on a queue, with a timestamp
 * @BUS1_ENTRY_CLAIMED: taken off by a reader that may still put it back
 */
enum bus1_entry_state {
	BUS1_ENTRY_IDLE,
	BUS1_ENTRY_STAGED,
	BUS1_ENTRY_READY,
	BUS1_ENTRY_CLAIMED,
};

/**
 * struct bus1_queue_entry - something in a queue
 * @rb: leader of a ready group: in queue->ready (queue->lock)
 * @link: leader of a staged group: in queue->staged (queue->lock). Entry that
 *	was dropped: in the list of dropped entries (whoever dropped it)
 * @group: ring of the entries of one transaction, in the order they were added
 *	(queue->lock)
 * @sibling: in @siblings while on a queue (queue->lock)
 * @siblings: list to be in while on a queue, or NULL (const while on a queue)
 * @tx: leader of a staged group: its transaction (queue->lock)
 * @stamp: leader of a ready group, claimed or @placed entry: its position. Leader of a
 *	staged group: what the transaction was last pushed to, in ts
 *	(queue->lock)
 * @state: &enum bus1_entry_state (queue->lock)
 * @leader: whether this entry stands for its group (queue->lock)
 * @placed: whether @stamp is the position, though this is no leader (queue->lock)
 * @type: for the user of the queue (const while on a queue)
 */
struct bus1_queue_entry {
	union {
		struct rb_node rb;
		struct list_head link;
	};
	struct list_head group;
	struct hlist_node sibling;
	struct hlist_head *siblings;
	struct bus1_tx *tx;
	struct bus1_stamp stamp;
	u8 state;
	bool leader;
	bool placed;
	u8 type;
};

/**
 * struct bus1_queue_ops - what a queue asks its user
 *
 * The same for all calls on a queue. They come with each call, and are known to the
 * compiler there, as &struct rhashtable_params are: where messages go through it, nothing
 * is called through a pointer.
 *
 * @stale: whether an entry at this position is to be dropped rather than
 *	handed out. Called with queue->lock held; must not sleep.
 * @keep: whether an entry that is not stale outlives bus1_queue_flush(). Called
 *	with queue->lock held; must not sleep.
 */
struct bus1_queue_ops {
	bool (*stale)(struct bus1_queue_entry *entry,
		      const struct bus1_stamp *stamp);
	bool (*keep)(const struct bus1_queue_entry *entry);
};

/**
 * struct bus1_queue - an ordered queue
 * @lock: protects the queue and its entries; nests inside everything but pool
 *	and user locks
 * @ready: leaders of groups with a timestamp, by position (lock)
 * @last: the last node of @ready (lock)
 * @staged: leaders of groups that may be unsealed, unordered (lock)
 * @floor: what was handed out has at most this timestamp, what is added gets a
 *	higher one (lock)
 * @passed: the clock has shown a higher time than this (lock)
 * @n: number of entries, without claimed ones (lock to change; read without)
 * @closed: no entry is added any more (lock)
 */
struct bus1_queue {
	spinlock_t lock; /* see above */
	struct rb_root_cached ready;
	struct rb_node *last;
	struct list_head staged;
	u64 floor;
	u64 passed;
	unsigned long n;
	bool closed;
};

u64 bus1_clock_now(void);
void bus1_clock_pass(u64 ts);

void bus1_tx_init(struct bus1_tx *tx);
bool bus1_tx_push(struct bus1_tx *tx, u64 ts, struct bus1_stamp *stamp);
bool bus1_tx_sealed(const struct bus1_tx *tx, struct bus1_stamp *stamp);
u64 bus1_tx_seal(struct bus1_tx *tx);

/**
 * bus1_stamp_cmp() - compare two positions
 * @a: a position
 * @b: another one
 *
 * Context: Any.
 * Return: Less than, equal to, or above 0, as @a comes before, is, or comes
 *	after @b.
 */
static inline int bus1_stamp_cmp(const struct bus1_stamp *a,
				 const struct bus1_stamp *b)
{
	if (a->ts != b->ts)
		return a->ts < b->ts ? -1 : 1;
	if (a->id != b->id)
		return a->id < b->id ? -1 : 1;
	return 0;
}

void bus1_queue_init(struct bus1_queue *queue);
void bus1_queue_deinit(struct bus1_queue *queue);
void bus1_queue_entry_init(struct bus1_queue_entry *entry, u8 type);

void bus1_queue_stamp_locked(struct bus1_queue *queue,
			     struct bus1_stamp *stamp);
bool bus1_queue_commit_at_locked(struct bus1_queue *queue,
				 const struct bus1_queue_ops *ops,
				 struct bus1_queue_entry *entry,
				 const struct bus1_stamp *stamp);
bool bus1_queue_commit_locked(struct bus1_queue *queue,
			      const struct bus1_queue_ops *ops,
			      struct bus1_queue_entry *entry, u64 *ts);
bool bus1_queue_stage_locked(struct bus1_queue *queue,
			     const struct bus1_queue_ops *ops,
			     struct bus1_queue_entry *entry,
			     struct bus1_tx *tx, struct bus1_stamp *stamp);
bool bus1_queue_remove_locked(struct bus1_queue *queue,
			      struct bus1_queue_entry *entry);
void bus1_queue_settle(struct bus1_queue *queue, struct bus1_tx *tx);

struct bus1_queue_entry *bus1_queue_claim(struct bus1_queue *queue,
					  const struct bus1_queue_ops *ops,
					  struct list_head *drops, bool *more);
void bus1_queue_unclaim_locked(struct bus1_queue *queue,
			       struct bus1_queue_entry *entry);
bool bus1_queue_peek(struct bus1_queue *queue, const struct bus1_queue_ops *ops,
		     struct list_head *drops);
void bus1_queue_flush(struct bus1_queue *queue, const struct bus1_queue_ops *ops,
		      const struct bus1_stamp *stamp, struct list_head *drops);
void bus1_queue_purge(struct bus1_queue *queue, const struct bus1_queue_ops *ops,
		      struct hlist_head *siblings, struct list_head *drops);
bool bus1_queue_close(struct bus1_queue *queue, struct list_head *drops);
u64 bus1_queue_length(struct bus1_queue *queue);

/**
 * bus1_queue_is_empty() - ask whether there is nothing in a queue
 * @queue: queue to ask
 *
 * Nor was there, if this is so, anything on it that the caller could know of. What is claimed,
 * or off the queue for a moment, does not count; what is staged, or stale, does.
 *
 * Context: Any. To be called after a full barrier by those who must not miss an entry.
 * Return: True if so.
 */
static inline bool bus1_queue_is_empty(const struct bus1_queue *queue)
{
	/* [known:B] pairs with [known:A] in bus1_peer_wake() */
	return !READ_ONCE(queue->n);
}

/**
 * bus1_queue_done() - a claimed entry was received
 * @entry: claimed entry, idle afterwards
 *
 * Context: Any. With queue->lock held, if others may try to remove the entry.
 */
static inline void bus1_queue_done(struct bus1_queue_entry *entry)
{
	entry->state = BUS1_ENTRY_IDLE;
}

#endif /* __BUS1_UTIL_QUEUE_H */
