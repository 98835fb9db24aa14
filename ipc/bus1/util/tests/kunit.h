/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_UTIL_TESTS_KUNIT_H
#define __BUS1_UTIL_TESTS_KUNIT_H

/**
 * DOC: Unit tests
 *
 * What the KUnit suites share: numbers that are random but the same in each run,
 * and crews of threads.
 *
 * Each test of random steps prints the seed of a run that fails; the module
 * parameter kunit_seed shifts all of them, to look for more.
 *
 * A test thread must not use the expectations of KUnit: what is false in it is
 * noted with bus1_crew_expect(), and told by bus1_crew_finish().
 */

#include <kunit/test.h>
#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/prandom.h>
#include <linux/types.h>

struct task_struct;

/* The most threads in a crew. */
#define BUS1_CREW_MAX	8

struct bus1_crew;

/**
 * struct bus1_crew_worker - a thread of a crew
 * @crew: its crew (const)
 * @index: its number (const)
 * @task: the thread, with a reference (const)
 * @done: it will not touch the test any more
 */
struct bus1_crew_worker {
	struct bus1_crew *crew;
	unsigned int index;
	struct task_struct *task;
	struct completion done;
};

/**
 * struct bus1_crew - threads that work on one test
 * @work: what they do (const)
 * @context: for @work (const)
 * @n: number of threads (const)
 * @called_off: there were not as many threads as needed (before @begin)
 * @begin: completed once all of them are there
 * @n_failed: number of expectations that were false (atomic)
 * @failed_line: where the first of them stands (atomic)
 * @workers: the threads
 */
struct bus1_crew {
	void (*work)(struct bus1_crew *crew, unsigned int index);
	void *context;
	unsigned int n;
	bool called_off;
	struct completion begin;
	atomic_t n_failed;
	atomic_t failed_line;
	struct bus1_crew_worker workers[BUS1_CREW_MAX];
};

void bus1_crew_start(struct kunit *test, struct bus1_crew *crew, unsigned int n,
		     void (*work)(struct bus1_crew *crew, unsigned int index),
		     void *context);
void bus1_crew_finish(struct kunit *test, struct bus1_crew *crew);
bool bus1_crew_expect_line(struct bus1_crew *crew, bool is, unsigned int line);

/**
 * bus1_crew_expect() - note what is false, in a thread
 * @crew: crew of the thread
 * @is: what should be true
 *
 * Return: @is.
 */
#define bus1_crew_expect(crew, is) \
	bus1_crew_expect_line(crew, is, __LINE__)

void bus1_rnd_init(struct rnd_state *rnd, u64 seed);

/**
 * bus1_rnd() - a number that is random, but the same in each run
 * @rnd: state of the generator
 * @n: how many numbers there are to choose from, at least 1
 *
 * Return: A number from 0 to @n - 1.
 */
static inline u32 bus1_rnd(struct rnd_state *rnd, u32 n)
{
	return prandom_u32_state(rnd) % n;
}

/**
 * bus1_kunit_failed() - ask whether a test has failed already
 * @test: the test
 *
 * Tests with many steps end at the first that fails.
 *
 * Return: True if it has.
 */
static inline bool bus1_kunit_failed(struct kunit *test)
{
	return READ_ONCE(test->status) == KUNIT_FAILURE;
}

#endif /* __BUS1_UTIL_TESTS_KUNIT_H */
