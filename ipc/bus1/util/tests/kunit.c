// SPDX-License-Identifier: GPL-2.0-only

#include <linux/atomic.h>
#include <linux/completion.h>
#include <linux/err.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/prandom.h>
#include <linux/sched/task.h>
#include "kunit.h"

static unsigned long bus1_kunit_seed;
module_param_named(kunit_seed, bus1_kunit_seed, ulong, 0444);
MODULE_PARM_DESC(kunit_seed, "Added to the seeds of all random unit tests");

/**
 * bus1_rnd_init() - start a series of random numbers
 * @rnd: state of the generator
 * @seed: which series; the module parameter is added
 *
 * Context: Any.
 */
void bus1_rnd_init(struct rnd_state *rnd, u64 seed)
{
	prandom_seed_state(rnd, (seed + bus1_kunit_seed) * 0x9e3779b97f4a7c15ULL);
}

static int bus1_crew_thread(void *data)
{
	struct bus1_crew_worker *worker = data;
	struct bus1_crew *crew = worker->crew;

	wait_for_completion(&crew->begin);
	if (!crew->called_off)
		crew->work(crew, worker->index);
	complete(&worker->done);
	return 0;
}

/**
 * bus1_crew_start() - start threads
 * @test: the test
 * @crew: crew to initialize
 * @n: number of threads, at most %BUS1_CREW_MAX
 * @work: what each of them does, called with its number
 * @context: stored in the crew
 *
 * To be followed by bus1_crew_finish() in any case.
 *
 * Context: Process context, may sleep.
 */
void bus1_crew_start(struct kunit *test, struct bus1_crew *crew, unsigned int n,
		     void (*work)(struct bus1_crew *crew, unsigned int index),
		     void *context)
{
	struct bus1_crew_worker *worker;
	struct task_struct *task;

	*crew = (struct bus1_crew){
		.work = work,
		.context = context,
	};
	init_completion(&crew->begin);
	while (crew->n < n) {
		worker = &crew->workers[crew->n];
		worker->crew = crew;
		worker->index = crew->n;
		init_completion(&worker->done);
		task = kthread_create(bus1_crew_thread, worker, "bus1-test/%u",
				      crew->n);
		if (IS_ERR(task)) {
			KUNIT_FAIL(test, "no thread: %ld", PTR_ERR(task));
			crew->called_off = true;
			break;
		}
		get_task_struct(task);
		worker->task = task;
		wake_up_process(task);
		++crew->n;
	}
	complete_all(&crew->begin);
}

/**
 * bus1_crew_finish() - wait until all threads are gone
 * @test: the test, which fails if one of them found something
 * @crew: crew that was started
 *
 * Context: Process context, sleeps.
 */
void bus1_crew_finish(struct kunit *test, struct bus1_crew *crew)
{
	struct bus1_crew_worker *worker;
	unsigned int i;

	for (i = 0; i < crew->n; ++i) {
		worker = &crew->workers[i];
		wait_for_completion(&worker->done);
		/* It is about to end, but may still be in this module */
		kthread_stop(worker->task);
		put_task_struct(worker->task);
	}
	KUNIT_EXPECT_EQ_MSG(test, atomic_read(&crew->n_failed), 0,
			    "in threads, the first in line %d",
			    atomic_read(&crew->failed_line));
}

/**
 * bus1_crew_expect_line() - note what is false, in a thread
 * @crew: crew of the thread
 * @is: what should be true
 * @line: where that stands
 *
 * Context: Any.
 * Return: @is.
 */
bool bus1_crew_expect_line(struct bus1_crew *crew, bool is, unsigned int line)
{
	if (!is) {
		atomic_cmpxchg(&crew->failed_line, 0, line);
		atomic_inc(&crew->n_failed);
	}
	return is;
}
