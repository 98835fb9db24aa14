/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef __BUS1_UTIL_ACTIVE_H
#define __BUS1_UTIL_ACTIVE_H

/**
 * DOC: Active references
 *
 * An active reference does not keep an object in memory, but keeps it in
 * service: it can be taken as long as the object is active, and whoever
 * deactivates the object can wait until the last one is gone. The object must
 * be kept in memory by other means while anybody may call these functions.
 */

#include <linux/atomic.h>
#include <linux/limits.h>
#include <linux/sched.h>
#include <linux/types.h>
#include <linux/wait.h>

/* Added to the count by deactivation. */
#define BUS1_ACTIVE_BIAS	INT_MIN

/**
 * struct bus1_active - active references
 * @count: number of references, plus %BUS1_ACTIVE_BIAS once deactivated
 *	(atomic)
 * @waitq: who waits for the last reference
 */
struct bus1_active {
	atomic_t count;
	wait_queue_head_t waitq;
};

void bus1_active_init(struct bus1_active *active);
bool bus1_active_deactivate(struct bus1_active *active);
int bus1_active_drain(struct bus1_active *active);

/**
 * bus1_active_acquire() - take an active reference
 * @active: object to take it of
 *
 * Context: Any.
 * Return: True if taken, false if the object was deactivated.
 */
static inline bool bus1_active_acquire(struct bus1_active *active)
{
	return atomic_inc_unless_negative(&active->count);
}

/**
 * bus1_active_release() - drop an active reference
 * @active: object to drop it of
 *
 * The caller still needs a reference that keeps the object in memory.
 *
 * Context: Any.
 * Return: True if that was the last one of a deactivated object.
 */
static inline bool bus1_active_release(struct bus1_active *active)
{
	/* [drain:A] pairs with [drain:B] in bus1_active_drain() */
	if (atomic_dec_return(&active->count) != BUS1_ACTIVE_BIAS)
		return false;
	wake_up_all(&active->waitq);
	return true;
}

/**
 * bus1_active_is_active() - ask whether an object is in service
 * @active: object to ask
 *
 * Context: Any.
 * Return: True until it is deactivated.
 */
static inline bool bus1_active_is_active(struct bus1_active *active)
{
	return atomic_read(&active->count) >= 0;
}

#endif /* __BUS1_UTIL_ACTIVE_H */
