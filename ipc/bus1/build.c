// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module as one translation unit, like kernel/sched/build_policy.c: all but the
 * tracepoints, and the unit tests.
 *
 * A message is a little work in each of many places, and much of what it cost was to get
 * from one to the next. So the commands that there are many of are __flatten: what they
 * call becomes part of them, wherever it is. What is rare is noinline, so that it does not.
 * Each file still includes what it needs, and could be compiled by itself.
 */
#include "main.c"
#include "ioctl.c"
#include "ioctl-recv.c"
#include "peer.c"
#include "destroy.c"
#include "handle.c"
#include "node.c"
#include "message.c"
#include "recv.c"
#include "send.c"
#include "quota.c"
#include "user.c"
#include "util/active.c"
#include "util/array.c"
#include "util/fair.c"
#include "util/pool.c"
#include "util/pool-pages.c"
#include "util/queue.c"
