// SPDX-License-Identifier: GPL-2.0-only

#include <kunit/test.h>
#include <linux/atomic.h>
#include <linux/limits.h>
#include <linux/list.h>
#include <linux/mm.h>
#include <linux/sched.h>
#include <linux/slab.h>
#include <linux/sort.h>
#include <linux/spinlock.h>
#include <linux/string.h>
#include "../queue.h"
#include "kunit.h"

/* An entry that tells by itself whether it is stale. */
struct note {
	struct bus1_queue_entry entry;
	bool stale;
	bool keep;
};

static bool note_is_stale(struct bus1_queue_entry *entry,
			  const struct bus1_stamp *stamp)
{
	return container_of(entry, struct note, entry)->stale;
}

static bool note_is_kept(const struct bus1_queue_entry *entry)
{
	return container_of(entry, struct note, entry)->keep;
}

static const struct bus1_queue_ops note_ops = {
	.stale	= note_is_stale,
	.keep	= note_is_kept,
};

static void notes_init(struct note *notes, size_t n)
{
	size_t i;

	for (i = 0; i < n; ++i) {
		bus1_queue_entry_init(&notes[i].entry, 0);
		notes[i].stale = false;
		notes[i].keep = false;
	}
}

static struct note *notes_new(struct kunit *test, size_t n)
{
	struct note *notes = kunit_kcalloc(test, n, sizeof(*notes), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, notes);
	notes_init(notes, n);
	return notes;
}

static u64 commit(struct bus1_queue *queue, struct note *note)
{
	u64 ts = 0;

	spin_lock(&queue->lock);
	bus1_queue_commit_locked(queue, &note_ops, &note->entry, &ts);
	spin_unlock(&queue->lock);
	bus1_clock_pass(ts);
	return note->entry.stamp.ts;
}

static bool stage(struct bus1_queue *queue, struct note *note,
		  struct bus1_tx *tx)
{
	struct bus1_stamp stamp;
	bool sealed;

	spin_lock(&queue->lock);
	sealed = bus1_queue_stage_locked(queue, &note_ops, &note->entry, tx, &stamp);
	spin_unlock(&queue->lock);
	return sealed;
}

static u64 seal(struct bus1_tx *tx)
{
	u64 ts = bus1_tx_seal(tx);

	bus1_clock_pass(ts);
	return ts;
}

static bool take_out(struct bus1_queue *queue, struct note *note)
{
	bool removed;

	spin_lock(&queue->lock);
	removed = bus1_queue_remove_locked(queue, &note->entry);
	spin_unlock(&queue->lock);
	return removed;
}

static void put_back(struct bus1_queue *queue, struct note *note)
{
	spin_lock(&queue->lock);
	bus1_queue_unclaim_locked(queue, &note->entry);
	spin_unlock(&queue->lock);
}

static void finish(struct bus1_queue *queue, struct note *note)
{
	spin_lock(&queue->lock);
	bus1_queue_done(&note->entry);
	spin_unlock(&queue->lock);
}

/* Claim the next one. None may be dropped on the way, but for @n_drops. */
static struct note *claim(struct kunit *test, struct bus1_queue *queue,
			  unsigned int n_drops, bool *more)
{
	struct bus1_queue_entry *entry;
	struct list_head *link;
	LIST_HEAD(drops);
	bool any = false;

	entry = bus1_queue_claim(queue, &note_ops, &drops, &any);
	list_for_each(link, &drops)
		--n_drops;
	KUNIT_EXPECT_EQ_MSG(test, n_drops, 0, "entries dropped");
	if (more)
		*more = any;
	return entry ? container_of(entry, struct note, entry) : NULL;
}

static struct note *receive(struct kunit *test, struct bus1_queue *queue)
{
	struct note *note = claim(test, queue, 0, NULL);

	if (note)
		finish(queue, note);
	return note;
}

static void check_queue_empty(struct kunit *test, struct bus1_queue *queue)
{
	KUNIT_EXPECT_NULL(test, receive(test, queue));
	KUNIT_EXPECT_EQ(test, bus1_queue_length(queue), 0);
	bus1_queue_deinit(queue);
}

/* A queue for itself: what comes first goes first. */
static void bus1_queue_test_fifo(struct kunit *test)
{
	struct bus1_queue queue;
	struct note notes[8];
	unsigned int i;
	u64 ts, last = 0;

	bus1_queue_init(&queue);
	notes_init(notes, ARRAY_SIZE(notes));
	for (i = 0; i < ARRAY_SIZE(notes); ++i) {
		ts = commit(&queue, &notes[i]);
		KUNIT_EXPECT_GT(test, ts, last);
		last = ts;
	}
	KUNIT_EXPECT_EQ(test, bus1_queue_length(&queue), ARRAY_SIZE(notes));
	for (i = 0; i < ARRAY_SIZE(notes); ++i)
		KUNIT_EXPECT_PTR_EQ(test, receive(test, &queue), &notes[i]);
	check_queue_empty(test, &queue);
}

/*
 * A sender that stops between two stages holds nobody up, and its message comes
 * after all that was received meanwhile, everywhere.
 *
 *	queue 0:  stage m        receive a             receive m
 *	queue 1:          stage m           receive b             receive m
 *	                                          seal
 */
static void bus1_queue_test_stopped_sender(struct kunit *test)
{
	struct note m[2], a, b;
	struct bus1_queue queues[2];
	struct bus1_tx tx;
	u64 ts_a, ts_b, ts;

	bus1_queue_init(&queues[0]);
	bus1_queue_init(&queues[1]);
	notes_init(m, 2);
	notes_init(&a, 1);
	notes_init(&b, 1);

	bus1_tx_init(&tx);
	KUNIT_EXPECT_FALSE(test, stage(&queues[0], &m[0], &tx));
	KUNIT_EXPECT_NULL(test, receive(test, &queues[0]));
	ts_a = commit(&queues[0], &a);
	KUNIT_EXPECT_PTR_EQ(test, receive(test, &queues[0]), &a);
	KUNIT_EXPECT_FALSE(test, stage(&queues[1], &m[1], &tx));
	ts_b = commit(&queues[1], &b);
	KUNIT_EXPECT_PTR_EQ(test, receive(test, &queues[1]), &b);
	KUNIT_EXPECT_NULL(test, receive(test, &queues[0]));
	KUNIT_EXPECT_NULL(test, receive(test, &queues[1]));

	ts = seal(&tx);
	KUNIT_EXPECT_GT(test, ts, ts_a);
	KUNIT_EXPECT_GT(test, ts, ts_b);
	KUNIT_EXPECT_PTR_EQ(test, receive(test, &queues[0]), &m[0]);
	KUNIT_EXPECT_PTR_EQ(test, receive(test, &queues[1]), &m[1]);
	check_queue_empty(test, &queues[0]);
	check_queue_empty(test, &queues[1]);
}

/*
 * Two transactions that cross: staged in different orders, they come in one.
 *
 *	queue 0:  stage x   stage y
 *	queue 1:  stage y   stage x
 */
static void bus1_queue_test_crossing(struct kunit *test)
{
	struct note x[2], y[2];
	struct bus1_queue queues[2];
	struct bus1_tx tx_x, tx_y;

	bus1_queue_init(&queues[0]);
	bus1_queue_init(&queues[1]);
	notes_init(x, 2);
	notes_init(y, 2);
	bus1_tx_init(&tx_x);
	bus1_tx_init(&tx_y);
	stage(&queues[0], &x[0], &tx_x);
	stage(&queues[1], &y[1], &tx_y);
	stage(&queues[1], &x[1], &tx_x);
	stage(&queues[0], &y[0], &tx_y);

	seal(&tx_y);
	bus1_queue_settle(&queues[0], &tx_y);
	KUNIT_EXPECT_PTR_EQ(test, receive(test, &queues[1]), &y[1]);
	seal(&tx_x);
	KUNIT_EXPECT_PTR_EQ(test, receive(test, &queues[1]), &x[1]);
	KUNIT_EXPECT_PTR_EQ(test, receive(test, &queues[0]), &y[0]);
	KUNIT_EXPECT_PTR_EQ(test, receive(test, &queues[0]), &x[0]);
	check_queue_empty(test, &queues[0]);
	check_queue_empty(test, &queues[1]);
}

/*
 * Strangers: m1 is sent to D, behind the staged m3, then, told by other means,
 * m2 to E, before m3 is staged there. With a clock for each queue, D would say
 * m3 < m1 and E m2 < m3, though m1 was there before m2.
 *
 *	D:  stage m3    m1
 *	E:                   (told of m1)    m2    stage m3
 *	                                                     seal m3
 */
static void bus1_queue_test_strangers(struct kunit *test)
{
	struct bus1_queue d, e;
	struct note m1, m2, m3[2];
	struct bus1_tx tx;
	u64 ts1, ts2, ts3;

	bus1_queue_init(&d);
	bus1_queue_init(&e);
	notes_init(&m1, 1);
	notes_init(&m2, 1);
	notes_init(m3, 2);
	bus1_tx_init(&tx);
	stage(&d, &m3[0], &tx);
	ts1 = commit(&d, &m1);
	ts2 = commit(&e, &m2);
	stage(&e, &m3[1], &tx);
	ts3 = seal(&tx);
	KUNIT_EXPECT_LT(test, ts1, ts2);
	KUNIT_EXPECT_LT(test, ts2, ts3);
	KUNIT_EXPECT_PTR_EQ(test, receive(test, &d), &m1);
	KUNIT_EXPECT_PTR_EQ(test, receive(test, &d), &m3[0]);
	KUNIT_EXPECT_PTR_EQ(test, receive(test, &e), &m2);
	KUNIT_EXPECT_PTR_EQ(test, receive(test, &e), &m3[1]);
	check_queue_empty(test, &d);
	check_queue_empty(test, &e);
}

/*
 * What lies in the future is not handed out, and nor is anything behind it,
 * whatever the clock says by then: the lowest is chosen first.
 */
static void bus1_queue_test_future(struct kunit *test)
{
	const u64 ahead = 20 * NSEC_PER_MSEC;
	struct note early, late;
	struct bus1_stamp stamp;
	struct bus1_queue queue;
	struct bus1_tx txs[2];
	u64 ts, start;

	bus1_queue_init(&queue);
	notes_init(&early, 1);
	notes_init(&late, 1);
	bus1_tx_init(&txs[0]);
	bus1_tx_init(&txs[1]);
	stage(&queue, &late, &txs[1]);
	stage(&queue, &early, &txs[0]);
	start = bus1_clock_now();
	KUNIT_EXPECT_FALSE(test, bus1_tx_push(&txs[0], start + ahead, &stamp));
	KUNIT_EXPECT_FALSE(test, bus1_tx_push(&txs[1], start + 2 * ahead,
					      &stamp));
	ts = bus1_tx_seal(&txs[1]);
	KUNIT_EXPECT_EQ(test, ts, start + 2 * ahead + 1);
	ts = bus1_tx_seal(&txs[0]);
	KUNIT_EXPECT_GE(test, ts, start + ahead + 1);

	/* Until the clock has shown more than that */
	for (;;) {
		struct note *note = receive(test, &queue);

		if (note) {
			KUNIT_EXPECT_PTR_EQ(test, note, &early);
			KUNIT_EXPECT_GT(test, bus1_clock_now(), ts);
			break;
		}
		if (bus1_kunit_failed(test))
			break;
	}
	bus1_clock_pass(start + 2 * ahead + 1);
	KUNIT_EXPECT_PTR_EQ(test, receive(test, &queue), &late);
	check_queue_empty(test, &queue);
}

/* Equal timestamps: the ID decides, on each queue alike. */
static void bus1_queue_test_tie(struct kunit *test)
{
	struct note x[2], y[2], *first, *second;
	struct bus1_queue queues[2];
	struct bus1_tx tx_x, tx_y;
	struct bus1_stamp stamp;
	unsigned int i;
	u64 ts;

	bus1_queue_init(&queues[0]);
	bus1_queue_init(&queues[1]);
	notes_init(x, 2);
	notes_init(y, 2);
	bus1_tx_init(&tx_x);
	bus1_tx_init(&tx_y);
	KUNIT_EXPECT_NE(test, tx_x.id, tx_y.id);
	stage(&queues[0], &x[0], &tx_x);
	stage(&queues[0], &y[0], &tx_y);
	stage(&queues[1], &y[1], &tx_y);
	stage(&queues[1], &x[1], &tx_x);
	ts = bus1_clock_now() + 20 * NSEC_PER_MSEC;
	bus1_tx_push(&tx_x, ts, &stamp);
	bus1_tx_push(&tx_y, ts, &stamp);
	KUNIT_EXPECT_EQ(test, bus1_tx_seal(&tx_x), ts + 1);
	KUNIT_EXPECT_EQ(test, bus1_tx_seal(&tx_y), ts + 1);
	bus1_clock_pass(ts + 1);
	for (i = 0; i < 2; ++i) {
		first = tx_x.id < tx_y.id ? &x[i] : &y[i];
		second = tx_x.id < tx_y.id ? &y[i] : &x[i];
		KUNIT_EXPECT_PTR_EQ(test, receive(test, &queues[i]), first);
		KUNIT_EXPECT_PTR_EQ(test, receive(test, &queues[i]), second);
		check_queue_empty(test, &queues[i]);
	}
}

/*
 * Several entries of one transaction in one queue stay together and in order,
 * whichever of them is taken out; and each says whether another one follows.
 *
 *	[0 1 2 3 4 5] [other]		0 leaves: staged; 2 is stale; 5 leaves: ready
 */
static void bus1_queue_test_group(struct kunit *test)
{
	struct note notes[6], other, *note;
	struct bus1_queue queue;
	struct bus1_tx tx;
	unsigned int i;
	bool more;

	bus1_queue_init(&queue);
	notes_init(notes, ARRAY_SIZE(notes));
	notes_init(&other, 1);
	bus1_tx_init(&tx);
	for (i = 0; i < ARRAY_SIZE(notes); ++i)
		stage(&queue, &notes[i], &tx);
	KUNIT_EXPECT_TRUE(test, take_out(&queue, &notes[0]));
	KUNIT_EXPECT_FALSE(test, take_out(&queue, &notes[0]));
	seal(&tx);
	bus1_queue_settle(&queue, &tx);
	commit(&queue, &other);
	KUNIT_EXPECT_EQ(test, bus1_queue_length(&queue), 6);

	notes[2].stale = true;
	note = claim(test, &queue, 1, &more);
	KUNIT_EXPECT_PTR_EQ(test, note, &notes[1]);
	KUNIT_EXPECT_TRUE(test, more);
	KUNIT_EXPECT_FALSE_MSG(test, take_out(&queue, note), "it is claimed");
	put_back(&queue, note);
	KUNIT_EXPECT_PTR_EQ(test, claim(test, &queue, 0, &more), &notes[1]);
	KUNIT_EXPECT_TRUE(test, more);
	finish(&queue, &notes[1]);
	KUNIT_EXPECT_PTR_EQ(test, claim(test, &queue, 0, &more), &notes[3]);
	KUNIT_EXPECT_TRUE(test, more);
	finish(&queue, &notes[3]);
	KUNIT_EXPECT_TRUE(test, take_out(&queue, &notes[5]));
	KUNIT_EXPECT_PTR_EQ(test, claim(test, &queue, 0, &more), &notes[4]);
	KUNIT_EXPECT_FALSE(test, more);
	finish(&queue, &notes[4]);
	KUNIT_EXPECT_PTR_EQ(test, claim(test, &queue, 0, &more), &other);
	KUNIT_EXPECT_FALSE(test, more);
	finish(&queue, &other);
	check_queue_empty(test, &queue);
}

/* Those that follow are all stale: then none does. */
static void bus1_queue_test_no_more(struct kunit *test)
{
	struct bus1_queue queue;
	struct note notes[3];
	struct bus1_tx tx;
	unsigned int i;
	bool more;

	bus1_queue_init(&queue);
	notes_init(notes, ARRAY_SIZE(notes));
	bus1_tx_init(&tx);
	for (i = 0; i < ARRAY_SIZE(notes); ++i)
		stage(&queue, &notes[i], &tx);
	seal(&tx);
	notes[1].stale = true;
	notes[2].stale = true;
	KUNIT_EXPECT_PTR_EQ(test, claim(test, &queue, 2, &more), &notes[0]);
	KUNIT_EXPECT_FALSE(test, more);
	finish(&queue, &notes[0]);
	check_queue_empty(test, &queue);
}

/* However many are stale, what is behind them is found, and all are dropped. */
static void bus1_queue_test_many_stale(struct kunit *test)
{
	const unsigned int n = 300;
	struct note *notes, live;
	struct bus1_queue queue;
	LIST_HEAD(drops);
	unsigned int i;

	notes = notes_new(test, n);
	bus1_queue_init(&queue);
	notes_init(&live, 1);
	for (i = 0; i < n; ++i)
		commit(&queue, &notes[i]);
	commit(&queue, &live);
	for (i = 0; i < n; ++i)
		notes[i].stale = true;
	KUNIT_EXPECT_PTR_EQ(test, claim(test, &queue, n, NULL), &live);
	finish(&queue, &live);
	check_queue_empty(test, &queue);

	/* None behind them: poll must not say so */
	bus1_queue_init(&queue);
	notes_init(notes, n);
	for (i = 0; i < n; ++i)
		commit(&queue, &notes[i]);
	for (i = 0; i < n; ++i)
		notes[i].stale = true;
	KUNIT_EXPECT_FALSE(test, bus1_queue_peek(&queue, &note_ops, &drops));
	KUNIT_EXPECT_EQ(test, list_count_nodes(&drops), n);
	check_queue_empty(test, &queue);
}

/*
 * To purge the nodes of one transaction one after the other takes a step for each:
 * the first one finds the position for all of those behind it.
 */
static void bus1_queue_test_purge_group(struct kunit *test)
{
	const unsigned int n = 200;
	struct hlist_head *nodes;
	struct bus1_queue queue;
	struct note *notes;
	struct bus1_tx tx;
	LIST_HEAD(drops);
	unsigned int i;
	u64 ts;

	nodes = kunit_kcalloc(test, n, sizeof(*nodes), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, nodes);
	notes = notes_new(test, n);
	bus1_queue_init(&queue);
	bus1_tx_init(&tx);
	for (i = 0; i < n; ++i) {
		notes[i].entry.siblings = &nodes[i];
		KUNIT_EXPECT_FALSE(test, stage(&queue, &notes[i], &tx));
	}
	/* Not sealed: nothing to take note of */
	bus1_queue_purge(&queue, &note_ops, &nodes[1], &drops);
	KUNIT_EXPECT_FALSE(test, notes[1].entry.placed);
	ts = seal(&tx);
	bus1_queue_settle(&queue, &tx);

	bus1_queue_purge(&queue, &note_ops, &nodes[10], &drops);
	for (i = 1; i < n; ++i) {
		KUNIT_EXPECT_EQ(test, notes[i].entry.placed, i >= 10);
		if (i >= 10)
			KUNIT_EXPECT_EQ(test, notes[i].entry.stamp.ts, ts);
	}
	KUNIT_EXPECT_TRUE(test, list_empty(&drops));

	/* Every other one goes, and that is forgotten with it */
	for (i = 1; i < n; i += 2) {
		notes[i].stale = true;
		bus1_queue_purge(&queue, &note_ops, &nodes[i], &drops);
		KUNIT_EXPECT_FALSE(test, notes[i].entry.placed);
		KUNIT_EXPECT_TRUE(test, hlist_empty(&nodes[i]));
	}
	KUNIT_EXPECT_EQ(test, list_count_nodes(&drops), n / 2);
	for (i = 0; i < n; i += 2)
		KUNIT_EXPECT_PTR_EQ(test, receive(test, &queue), &notes[i]);
	check_queue_empty(test, &queue);
}

/* What was stale from the start is not added. */
static void bus1_queue_test_stale_at_once(struct kunit *test)
{
	struct bus1_queue queue;
	struct note notes[2];
	struct bus1_tx tx;

	bus1_queue_init(&queue);
	notes_init(notes, ARRAY_SIZE(notes));
	notes[0].stale = true;
	notes[1].stale = true;
	commit(&queue, &notes[0]);
	bus1_tx_init(&tx);
	stage(&queue, &notes[1], &tx);
	KUNIT_EXPECT_EQ(test, notes[0].entry.state, BUS1_ENTRY_IDLE);
	KUNIT_EXPECT_EQ(test, notes[1].entry.state, BUS1_ENTRY_IDLE);
	seal(&tx);
	check_queue_empty(test, &queue);
}

/* A flush drops what comes before it, keeps what is to be kept, and the rest. */
static void bus1_queue_test_flush(struct kunit *test)
{
	const unsigned int n = 200;
	struct note *before, after, open;
	struct bus1_queue queue;
	struct bus1_stamp stamp;
	struct bus1_tx tx;
	LIST_HEAD(drops);
	unsigned int i;

	before = notes_new(test, n);
	bus1_queue_init(&queue);
	notes_init(&after, 1);
	notes_init(&open, 1);
	bus1_tx_init(&tx);
	stage(&queue, &open, &tx);
	for (i = 0; i < n; ++i) {
		before[i].keep = i % 10 == 0;
		commit(&queue, &before[i]);
	}
	before[20].stale = true;
	stamp.ts = bus1_clock_now();
	stamp.id = 0;
	bus1_clock_pass(stamp.ts);
	commit(&queue, &after);
	bus1_queue_flush(&queue, &note_ops, &stamp, &drops);
	KUNIT_EXPECT_EQ(test, list_count_nodes(&drops), 181);
	KUNIT_EXPECT_GT(test, seal(&tx), stamp.ts);

	for (i = 0; i < n; i += 10) {
		if (i != 20)
			KUNIT_EXPECT_PTR_EQ(test, receive(test, &queue),
					    &before[i]);
	}
	KUNIT_EXPECT_PTR_EQ(test, receive(test, &queue), &after);
	KUNIT_EXPECT_PTR_EQ(test, receive(test, &queue), &open);
	check_queue_empty(test, &queue);
}

/* A closed queue lets go of everything, and holds nobody up. */
static void bus1_queue_test_close(struct kunit *test)
{
	const unsigned int n = 70;
	struct note *ready, *staged, late[2];
	struct bus1_queue queue;
	struct bus1_tx tx;
	unsigned int i, n_calls = 1;
	LIST_HEAD(drops);

	ready = notes_new(test, n);
	staged = notes_new(test, n);
	bus1_queue_init(&queue);
	notes_init(late, ARRAY_SIZE(late));
	bus1_tx_init(&tx);
	for (i = 0; i < n; ++i) {
		commit(&queue, &ready[i]);
		stage(&queue, &staged[i], &tx);
	}
	while (bus1_queue_close(&queue, &drops))
		++n_calls;
	KUNIT_EXPECT_GT(test, n_calls, 1);
	KUNIT_EXPECT_EQ(test, list_count_nodes(&drops), 2 * n);
	commit(&queue, &late[0]);
	KUNIT_EXPECT_FALSE(test, stage(&queue, &late[1], &tx));
	KUNIT_EXPECT_EQ(test, late[0].entry.state, BUS1_ENTRY_IDLE);
	KUNIT_EXPECT_EQ(test, late[1].entry.state, BUS1_ENTRY_IDLE);
	seal(&tx);
	bus1_queue_settle(&queue, &tx);
	check_queue_empty(test, &queue);
}

/* IDs are never the same, on whatever CPU they are drawn. */
#define N_IDS	2000

struct id_draw {
	u64 *ids;
};

static void id_draw_work(struct bus1_crew *crew, unsigned int index)
{
	struct id_draw *draw = crew->context;
	struct bus1_tx tx;
	unsigned int i;

	for (i = 0; i < N_IDS; ++i) {
		bus1_tx_init(&tx);
		draw->ids[index * N_IDS + i] = tx.id;
		cond_resched();
	}
}

static int id_cmp(const void *a, const void *b)
{
	u64 x = *(const u64 *)a, y = *(const u64 *)b;

	return x < y ? -1 : x > y;
}

static void bus1_queue_test_ids(struct kunit *test)
{
	struct bus1_crew *crew;
	struct id_draw draw;
	unsigned int i;

	crew = kunit_kzalloc(test, sizeof(*crew), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, crew);
	draw.ids = kvcalloc(4 * N_IDS, sizeof(u64), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, draw.ids);
	bus1_crew_start(test, crew, 4, id_draw_work, &draw);
	bus1_crew_finish(test, crew);
	sort(draw.ids, 4 * N_IDS, sizeof(u64), id_cmp, NULL);
	for (i = 1; i < 4 * N_IDS; ++i)
		KUNIT_EXPECT_NE(test, draw.ids[i - 1], draw.ids[i]);
	kvfree(draw.ids);
}

/*
 * Threads that send to several queues, and one reader for each. A letter goes to
 * one queue or many, or is taken back before it is sealed.
 */
#define N_QUEUES	3
#define N_SENDERS	3
#define N_LETTERS	1000

/**
 * struct letter - a transaction of a sender
 * @tx: the transaction, of a letter to many
 * @notes: an entry for each queue
 * @dests: the queues that it goes to, a bit each
 * @aborted: it was taken back
 * @ts: the timestamp
 * @unpassed: what the sender has to pass
 * @seen: the position that each reader saw, or 0
 */
struct letter {
	struct bus1_tx tx;
	struct note notes[N_QUEUES];
	u8 dests;
	bool aborted;
	u64 ts;
	u64 unpassed;
	struct bus1_stamp seen[N_QUEUES];
};

/**
 * struct post - senders, queues and readers
 * @queues: the queues
 * @letters: the letters of each sender
 * @n_sending: senders that are not done
 * @known: the highest timestamp that anybody has learned of so far
 */
struct post {
	struct bus1_queue queues[N_QUEUES];
	struct letter *letters;
	atomic_t n_sending;
	atomic64_t known;
};

/* Somebody knows of @ts now: what is entered from here on comes after it. */
static void post_learn(struct post *post, u64 ts)
{
	s64 old = atomic64_read(&post->known);

	while ((u64)old < ts && !atomic64_try_cmpxchg(&post->known, &old, ts))
		;
}

static void post_send_one(struct bus1_crew *crew, struct post *post,
			  struct letter *letter, unsigned int q)
{
	struct bus1_queue *queue = &post->queues[q];
	bool added;

	spin_lock(&queue->lock);
	added = bus1_queue_commit_locked(queue, &note_ops, &letter->notes[q].entry,
					 &letter->unpassed);
	letter->ts = letter->notes[q].entry.stamp.ts;
	letter->tx.id = letter->notes[q].entry.stamp.id;
	spin_unlock(&queue->lock);
	bus1_crew_expect(crew, added);
}

static void post_send_many(struct bus1_crew *crew, struct post *post,
			   struct letter *letter, struct rnd_state *rnd)
{
	unsigned int i, q, first = bus1_rnd(rnd, N_QUEUES);

	for (i = 0; i < N_QUEUES; ++i) {
		q = (first + i) % N_QUEUES;
		if (!(letter->dests & BIT(q)))
			continue;
		bus1_crew_expect(crew, !stage(&post->queues[q],
					      &letter->notes[q], &letter->tx));
		if (bus1_rnd(rnd, 4) == 0)
			schedule();
	}
	if (!letter->aborted) {
		letter->ts = bus1_tx_seal(&letter->tx);
		letter->unpassed = letter->ts;
		return;
	}
	for (q = 0; q < N_QUEUES; ++q) {
		if (letter->dests & BIT(q))
			bus1_crew_expect(crew, take_out(&post->queues[q],
							&letter->notes[q]));
	}
}

static void post_send(struct bus1_crew *crew, struct post *post,
		      unsigned int index)
{
	struct letter *letter;
	struct rnd_state rnd;
	unsigned int i, q;
	u64 known;

	bus1_rnd_init(&rnd, index);
	for (i = 0; i < N_LETTERS; ++i) {
		letter = &post->letters[index * N_LETTERS + i];
		notes_init(letter->notes, N_QUEUES);
		bus1_tx_init(&letter->tx);
		known = atomic64_read(&post->known);
		if (bus1_rnd(&rnd, 3) == 0) {
			q = bus1_rnd(&rnd, N_QUEUES);
			letter->dests = BIT(q);
			post_send_one(crew, post, letter, q);
		} else {
			letter->dests = 1 + bus1_rnd(&rnd, BIT(N_QUEUES) - 1);
			letter->aborted = bus1_rnd(&rnd, 8) == 0;
			post_send_many(crew, post, letter, &rnd);
		}
		if (!letter->aborted) {
			bus1_crew_expect(crew, letter->ts > known);
			bus1_clock_pass(letter->unpassed);
			post_learn(post, letter->ts);
			for (q = 0; letter->dests & (letter->dests - 1) &&
			     q < N_QUEUES; ++q) {
				if (letter->dests & BIT(q))
					bus1_queue_settle(&post->queues[q],
							  &letter->tx);
			}
		}
		cond_resched();
	}
	/* What was sent is there for whoever sees that all are done */
	atomic_dec_return(&post->n_sending);
}

/* Receive one, if there is. Now and then put it back, it must come again. */
static bool post_receive_one(struct bus1_crew *crew, struct post *post,
			     unsigned int q, struct bus1_stamp *last, bool retry)
{
	struct bus1_queue *queue = &post->queues[q];
	struct bus1_queue_entry *entry, *again;
	struct letter *letter;
	LIST_HEAD(drops);
	bool ready, more;

	ready = bus1_queue_peek(queue, &note_ops, &drops);
	entry = bus1_queue_claim(queue, &note_ops, &drops, &more);
	bus1_crew_expect(crew, list_empty(&drops));
	bus1_crew_expect(crew, entry || !ready);
	if (!entry)
		return false;
	bus1_crew_expect(crew, entry->stamp.ts < bus1_clock_now());
	bus1_crew_expect(crew, bus1_stamp_cmp(last, &entry->stamp) < 0);
	if (retry) {
		put_back(queue, container_of(entry, struct note, entry));
		again = bus1_queue_claim(queue, &note_ops, &drops, &more);
		bus1_crew_expect(crew, again == entry);
		if (!again)
			return false;
		entry = again;
	}
	*last = entry->stamp;
	post_learn(post, last->ts);
	letter = container_of(entry, struct letter, notes[q].entry);
	bus1_crew_expect(crew, !letter->seen[q].id);
	bus1_crew_expect(crew, !more);
	letter->seen[q] = entry->stamp;
	finish(queue, &letter->notes[q]);
	return true;
}

static void post_receive(struct bus1_crew *crew, struct post *post,
			 unsigned int q)
{
	struct bus1_stamp last = {};
	struct rnd_state rnd;
	bool done;

	bus1_rnd_init(&rnd, 100 + q);
	do {
		done = !atomic_read_acquire(&post->n_sending);
		while (post_receive_one(crew, post, q, &last,
					bus1_rnd(&rnd, 8) == 0))
			cond_resched();
		cond_resched();
	} while (!done);
}

static void post_work(struct bus1_crew *crew, unsigned int index)
{
	struct post *post = crew->context;

	if (index < N_SENDERS)
		post_send(crew, post, index);
	else
		post_receive(crew, post, index - N_SENDERS);
}

/* Each letter arrived everywhere at one position, or nowhere. */
static void check_post_letter(struct kunit *test, const struct letter *letter)
{
	unsigned int q;

	for (q = 0; q < N_QUEUES; ++q) {
		if (letter->aborted || !(letter->dests & BIT(q))) {
			KUNIT_EXPECT_EQ(test, letter->seen[q].ts, 0);
		} else {
			KUNIT_EXPECT_EQ(test, letter->seen[q].ts, letter->ts);
			KUNIT_EXPECT_EQ(test, letter->seen[q].id,
					letter->tx.id);
		}
	}
}

static void bus1_queue_test_threads(struct kunit *test)
{
	struct bus1_crew *crew;
	struct post *post;
	unsigned int i;

	crew = kunit_kzalloc(test, sizeof(*crew), GFP_KERNEL);
	post = kunit_kzalloc(test, sizeof(*post), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, crew);
	KUNIT_ASSERT_NOT_NULL(test, post);
	post->letters = kvcalloc(N_SENDERS * N_LETTERS, sizeof(*post->letters),
				 GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, post->letters);
	for (i = 0; i < N_QUEUES; ++i)
		bus1_queue_init(&post->queues[i]);
	atomic_set(&post->n_sending, N_SENDERS);

	bus1_crew_start(test, crew, N_SENDERS + N_QUEUES, post_work, post);
	bus1_crew_finish(test, crew);

	for (i = 0; i < N_SENDERS * N_LETTERS; ++i)
		check_post_letter(test, &post->letters[i]);
	for (i = 0; i < N_QUEUES; ++i)
		check_queue_empty(test, &post->queues[i]);
	kvfree(post->letters);
}

static struct kunit_case bus1_queue_cases[] = {
	KUNIT_CASE(bus1_queue_test_fifo),
	KUNIT_CASE(bus1_queue_test_stopped_sender),
	KUNIT_CASE(bus1_queue_test_crossing),
	KUNIT_CASE(bus1_queue_test_strangers),
	KUNIT_CASE(bus1_queue_test_future),
	KUNIT_CASE(bus1_queue_test_tie),
	KUNIT_CASE(bus1_queue_test_group),
	KUNIT_CASE(bus1_queue_test_no_more),
	KUNIT_CASE(bus1_queue_test_many_stale),
	KUNIT_CASE(bus1_queue_test_purge_group),
	KUNIT_CASE(bus1_queue_test_stale_at_once),
	KUNIT_CASE(bus1_queue_test_flush),
	KUNIT_CASE(bus1_queue_test_close),
	KUNIT_CASE(bus1_queue_test_ids),
	KUNIT_CASE_SLOW(bus1_queue_test_threads),
	{}
};

static struct kunit_suite bus1_queue_suite = {
	.name = "bus1_queue",
	.test_cases = bus1_queue_cases,
};

kunit_test_suite(bus1_queue_suite);
