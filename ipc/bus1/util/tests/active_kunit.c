// SPDX-License-Identifier: GPL-2.0-only

#include <kunit/test.h>
#include <linux/atomic.h>
#include <linux/compiler.h>
#include <linux/sched.h>
#include "../active.h"
#include "kunit.h"

/* Threads that use an object, and how often it is taken out of service. */
#define N_USERS		4
#define N_ROUNDS	40
/* Some of them try to do that, all at once; the others stay as long as they can. */
#define N_CLOSERS	2

static void bus1_active_test_life(struct kunit *test)
{
	struct bus1_active active;

	bus1_active_init(&active);
	KUNIT_EXPECT_TRUE(test, bus1_active_is_active(&active));
	KUNIT_EXPECT_TRUE(test, bus1_active_acquire(&active));
	KUNIT_EXPECT_TRUE(test, bus1_active_acquire(&active));
	KUNIT_EXPECT_FALSE(test, bus1_active_release(&active));
	KUNIT_EXPECT_TRUE(test, bus1_active_is_active(&active));

	/* One is left: it stays, and there is no other */
	KUNIT_EXPECT_TRUE(test, bus1_active_deactivate(&active));
	KUNIT_EXPECT_FALSE(test, bus1_active_is_active(&active));
	KUNIT_EXPECT_FALSE(test, bus1_active_acquire(&active));
	KUNIT_EXPECT_FALSE(test, bus1_active_deactivate(&active));
	KUNIT_EXPECT_FALSE(test, bus1_active_acquire(&active));

	KUNIT_EXPECT_TRUE(test, bus1_active_release(&active));
	KUNIT_EXPECT_EQ(test, bus1_active_drain(&active), 0);
	KUNIT_EXPECT_FALSE(test, bus1_active_is_active(&active));
	KUNIT_EXPECT_FALSE(test, bus1_active_acquire(&active));
	KUNIT_EXPECT_FALSE(test, bus1_active_deactivate(&active));
}

static void bus1_active_test_unused(struct kunit *test)
{
	struct bus1_active active;

	bus1_active_init(&active);
	KUNIT_EXPECT_TRUE(test, bus1_active_deactivate(&active));
	KUNIT_EXPECT_EQ(test, bus1_active_drain(&active), 0);
	KUNIT_EXPECT_FALSE(test, bus1_active_acquire(&active));
}

/* As many as there can be tasks. */
static void bus1_active_test_many(struct kunit *test)
{
	const unsigned int n = 100000;
	unsigned int i, n_last = 0;
	struct bus1_active active;

	bus1_active_init(&active);
	for (i = 0; i < n; ++i)
		KUNIT_ASSERT_TRUE(test, bus1_active_acquire(&active));
	KUNIT_EXPECT_TRUE(test, bus1_active_deactivate(&active));
	for (i = 0; i < n; ++i)
		n_last += bus1_active_release(&active);
	KUNIT_EXPECT_EQ_MSG(test, n_last, 1, "told that it was the last one");
	KUNIT_EXPECT_EQ(test, bus1_active_drain(&active), 0);
}

struct house {
	struct bus1_active active;
	atomic_t n_inside;
	atomic_t n_staying;
	atomic_t n_closing;
	atomic_t n_closed;
	atomic_t n_last;
	bool is_empty;
};

static void house_leave(struct bus1_crew *crew, struct house *house)
{
	bus1_crew_expect(crew, !READ_ONCE(house->is_empty));
	atomic_dec(&house->n_inside);
	if (bus1_active_release(&house->active))
		atomic_inc(&house->n_last);
}

/* Be inside until the door is shut, and for a while after that. */
static void house_stay(struct house *house)
{
	unsigned int i;

	atomic_inc(&house->n_staying);
	while (bus1_active_is_active(&house->active))
		cond_resched();
	for (i = 0; i < 20; ++i)
		schedule();
}

/* Shut the door, at the same time as others, once somebody is staying. */
static void house_close(struct house *house)
{
	atomic_inc(&house->n_closing);
	while (atomic_read(&house->n_closing) < N_CLOSERS ||
	       atomic_read(&house->n_staying) < N_USERS - N_CLOSERS)
		cond_resched();
	if (bus1_active_deactivate(&house->active))
		atomic_inc(&house->n_closed);
}

/* Go in and out until the door is shut. */
static void house_visit(struct bus1_crew *crew, unsigned int index)
{
	struct house *house = crew->context;
	unsigned int n = 0;

	while (bus1_active_acquire(&house->active)) {
		atomic_inc(&house->n_inside);
		bus1_crew_expect(crew, !READ_ONCE(house->is_empty));
		if (n++ % 3 == 0)
			cond_resched();
		if (n == 20 && index >= N_CLOSERS)
			house_stay(house);
		house_leave(crew, house);
		if (n == 20 && index < N_CLOSERS)
			house_close(house);
	}
	bus1_crew_expect(crew, !bus1_active_acquire(&house->active));
}

/*
 * Several try to take it out of service: one succeeds. Whoever waits then finds
 * that all are gone, and nobody comes any more.
 */
static void bus1_active_test_threads(struct kunit *test)
{
	struct house *house;
	struct bus1_crew *crew;
	unsigned int round;

	house = kunit_kzalloc(test, sizeof(*house), GFP_KERNEL);
	crew = kunit_kzalloc(test, sizeof(*crew), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, house);
	KUNIT_ASSERT_NOT_NULL(test, crew);

	for (round = 0; round < N_ROUNDS && !bus1_kunit_failed(test); ++round) {
		*house = (struct house){};
		bus1_active_init(&house->active);
		bus1_crew_start(test, crew, N_USERS, house_visit, house);
		while (bus1_active_is_active(&house->active) &&
		       !crew->called_off)
			cond_resched();
		if (crew->called_off)
			bus1_active_deactivate(&house->active);

		KUNIT_EXPECT_EQ(test, bus1_active_drain(&house->active), 0);
		WRITE_ONCE(house->is_empty, true);
		KUNIT_EXPECT_EQ(test, atomic_read(&house->n_inside), 0);

		bus1_crew_finish(test, crew);
		KUNIT_EXPECT_EQ(test, atomic_read(&house->n_inside), 0);
		KUNIT_EXPECT_EQ(test, atomic_read(&house->n_closed), 1);
		/* Those who stayed were the last, and one of them was told so */
		KUNIT_EXPECT_EQ(test, atomic_read(&house->n_last), 1);
		KUNIT_EXPECT_EQ(test, bus1_active_drain(&house->active), 0);
	}
}

static struct kunit_case bus1_active_cases[] = {
	KUNIT_CASE(bus1_active_test_life),
	KUNIT_CASE(bus1_active_test_unused),
	KUNIT_CASE(bus1_active_test_many),
	KUNIT_CASE_SLOW(bus1_active_test_threads),
	{}
};

static struct kunit_suite bus1_active_suite = {
	.name = "bus1_active",
	.test_cases = bus1_active_cases,
};

kunit_test_suite(bus1_active_suite);
