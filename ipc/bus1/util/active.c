// SPDX-License-Identifier: GPL-2.0-only
#include <linux/atomic.h>
#include <linux/sched/signal.h>
#include <linux/wait.h>
#include "active.h"

/**
 * bus1_active_init() - start in service, without references
 * @active: object to initialize
 *
 * Context: Any.
 */
void bus1_active_init(struct bus1_active *active)
{
	atomic_set(&active->count, 0);
	init_waitqueue_head(&active->waitq);
}

/**
 * bus1_active_deactivate() - take an object out of service
 * @active: object to deactivate
 *
 * From here on nobody gets a new reference. Those that exist stay until they
 * are released, see bus1_active_drain().
 *
 * Context: Any.
 * Return: True if this call did it, false if an earlier one had.
 */
bool bus1_active_deactivate(struct bus1_active *active)
{
	int old = atomic_read(&active->count);

	do {
		if (old < 0)
			return false;
	} while (!atomic_try_cmpxchg(&active->count, &old,
				     old + BUS1_ACTIVE_BIAS));
	return true;
}

/**
 * bus1_active_drain() - wait for the last reference
 * @active: deactivated object
 *
 * Context: Process context, sleeps. The caller holds no active reference.
 * Return: 0, or -ERESTARTSYS if a fatal signal came first.
 */
int bus1_active_drain(struct bus1_active *active)
{
	/*
	 * [drain:B] pairs with [drain:A] in bus1_active_release(): what was done
	 * with a reference is seen when it is gone.
	 */
	return wait_event_killable(active->waitq,
		atomic_read_acquire(&active->count) == BUS1_ACTIVE_BIAS);
}
