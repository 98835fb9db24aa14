// SPDX-License-Identifier: GPL-2.0-only
#include <linux/fs.h>
#include <linux/hrtimer.h>
#include <linux/kernel.h>
#include <linux/ktime.h>
#include <linux/minmax.h>
#include <linux/overflow.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/spinlock.h>
#include <linux/time64.h>
#include <linux/time_namespace.h>
#include <linux/timekeeping.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/wait.h>
#include <uapi/linux/bus1.h>
#include "compat.h"
#include "ioctl-internal.h"
#include "message.h"
#include "peer.h"
#include "recv.h"
#include "send.h"
#include "util/active.h"

/* Sleep until woken up, a signal comes, or the clock reaches @deadline. */
static void bus1_ioctl_recv_sleep(struct bus1_peer *peer,
				  struct wait_queue_entry *wait, u64 deadline)
{
	ktime_t expires = deadline;
	bool woken;

	if (deadline == U64_MAX) {
		wait_woken(wait, TASK_INTERRUPTIBLE, MAX_SCHEDULE_TIMEOUT);
		return;
	}

	/* wait_woken() counts in jiffies. Wakers set the flag under this lock */
	spin_lock_irq(&peer->waitq.lock);
	woken = wait->flags & WQ_FLAG_WOKEN;
	wait->flags &= ~WQ_FLAG_WOKEN;
	set_current_state(TASK_INTERRUPTIBLE);
	spin_unlock_irq(&peer->waitq.lock);
	if (!woken)
		schedule_hrtimeout_range(&expires, current->timer_slack_ns,
					 HRTIMER_MODE_ABS);
	__set_current_state(TASK_RUNNING);
}

/* Take who is woken up off the queue, so that it need not do so. */
static int bus1_ioctl_recv_wake(struct wait_queue_entry *wait, unsigned int mode,
				int sync, void *key)
{
	int r = woken_wake_function(wait, mode, sync, key);

	if (r)
		list_del_init_careful(&wait->entry);
	return r;
}

static bool bus1_ioctl_recv_may_wait(const struct file *file)
{
	/* Asked once: fcntl() that changes it meanwhile came before or comes after */
	return !(data_race(file->f_flags) & O_NONBLOCK);
}

/* What there is to do rather than sleep: 0 to receive, or an error; else -EAGAIN. */
static int bus1_ioctl_recv_check(struct bus1_peer *peer, u64 deadline)
{
	if (!bus1_active_is_active(&peer->active))
		return -ESHUTDOWN;
	if (bus1_peer_is_ready(peer))
		return 0;
	if (deadline != U64_MAX && ktime_get_ns() >= deadline)
		return -ETIMEDOUT;
	return signal_pending(current) ? -ERESTARTSYS : -EAGAIN;
}

/*
 * Sleep, once, unless there is something to receive: the caller looks, and if others
 * took it comes back. Not beyond @deadline, in nanoseconds of ktime_get(), or U64_MAX.
 */
static noinline int bus1_ioctl_recv_wait(struct bus1_peer *peer, u64 deadline)
{
	DEFINE_WAIT_FUNC(wait, bus1_ioctl_recv_wake);
	int r;

	add_wait_queue_exclusive(&peer->waitq, &wait);
	/* [wake:B] pairs with [wake:A] in bus1_peer_wake() */
	smp_mb();
	r = bus1_ioctl_recv_check(peer, deadline);
	if (r == -EAGAIN) {
		bus1_ioctl_recv_sleep(peer, &wait, deadline);
		/* Who is still there was woken up by a timer, or a signal */
		r = list_empty_careful(&wait.entry) ? 0 :
			bus1_ioctl_recv_check(peer, deadline);
	}
	if (!list_empty_careful(&wait.entry))
		remove_wait_queue(&peer->waitq, &wait);
	if (r == -EAGAIN)
		return 0;

	/* The one that leaves may have been woken up in place of another */
	if (r < 0)
		bus1_peer_wake(peer);
	return r;
}

/*
 * Give a slice back before a message is received. That it is done is told first: what
 * cannot be told is not done, and a call that is restarted does not do it again.
 */
static int bus1_ioctl_recv_release(struct bus1_peer *peer,
				   struct bus1_cmd_recv __user *uarg, u64 offset)
{
	int r;

	if (offset == BUS1_OFFSET_INVALID)
		return 0;
	r = put_user(BUS1_OFFSET_INVALID, &uarg->msg.offset);
	if (r < 0)
		return r;
	r = bus1_message_release(peer, offset);
	if (r < 0 && put_user(offset, &uarg->msg.offset))
		r = -EFAULT;
	return r;
}

static int bus1_ioctl_recv_one(struct bus1_peer *peer, struct file *file,
			       struct bus1_cmd_recv __user *uarg, u64 flags,
			       u64 max_offset)
{
	bool seed = flags & BUS1_RECV_FLAG_SEED;
	bool may_wait = !seed && bus1_ioctl_recv_may_wait(file);
	struct bus1_recv recv = {
		.peer = peer,
		.install_fds = flags & BUS1_RECV_FLAG_INSTALL_FDS,
	};
	int r;

	for (;;) {
		r = may_wait && bus1_recv_is_idle(peer) ? -EAGAIN :
			bus1_recv_prepare(&recv, max_offset, seed, false);
		if (r != -EAGAIN)
			break;
		if (!may_wait)
			return -EAGAIN;
		r = bus1_ioctl_recv_wait(peer, U64_MAX);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;

	r = bus1_recv_tell(&recv, (void __user *)&uarg->msg);
	if (r >= 0)
		r = bus1_recv_commit(&recv);
	/* It says what was released, whatever was written over it */
	if (r < 0 && flags & BUS1_RECV_FLAG_RELEASE)
		put_user(BUS1_OFFSET_INVALID, &uarg->msg.offset);
	return r;
}

/* Read what matters. That the last field can be read says that all of it can. */
static __always_inline int
bus1_ioctl_recv_get(const struct bus1_cmd_recv __user *uarg, u64 *flags,
		    u64 *max_offset, u64 *offset)
{
	u64 last __maybe_unused;

	/* There are machines that cannot read so much at once */
	if (!IS_ENABLED(CONFIG_64BIT))
		return get_user(*flags, &uarg->flags) ||
		       get_user(*max_offset, &uarg->max_offset) ||
		       get_user(*offset, &uarg->msg.offset) ||
		       get_user(last, &uarg->msg.n_fds) ? -EFAULT : 0;

	if (!user_read_access_begin(uarg, sizeof(*uarg)))
		return -EFAULT;
	unsafe_get_user(*flags, &uarg->flags, error);
	unsafe_get_user(*max_offset, &uarg->max_offset, error);
	unsafe_get_user(*offset, &uarg->msg.offset, error);
	unsafe_get_user(last, &uarg->msg.n_fds, error);
	user_read_access_end();
	return 0;

error:
	user_read_access_end();
	return -EFAULT;
}

/**
 * bus1_ioctl_recv() - BUS1_CMD_RECV
 * @peer: peer that it is issued on
 * @file: its file
 * @uarg: argument
 *
 * Context: Process context, may sleep.
 * Return: 0, or a negative errno, see bus1(7).
 */
noinline __flatten int bus1_ioctl_recv(struct bus1_peer *peer, struct file *file,
				       struct bus1_cmd_recv __user *uarg)
{
	u64 flags, max_offset, offset;
	int r;

	r = bus1_ioctl_recv_get(uarg, &flags, &max_offset, &offset);
	if (r < 0)
		return r;
	if (flags & ~(BUS1_RECV_FLAG_SEED | BUS1_RECV_FLAG_INSTALL_FDS |
		      BUS1_RECV_FLAG_RELEASE))
		return -EINVAL;

	if (flags & BUS1_RECV_FLAG_RELEASE) {
		r = bus1_ioctl_recv_release(peer, uarg, offset);
		if (r < 0)
			return r;
	}
	return bus1_ioctl_recv_one(peer, file, uarg, flags, max_offset);
}

/*
 * SEND_RECV
 * =========
 *
 * The argument always says what is left to do: the kernel reads it again when the
 * call is restarted, and so does the caller who makes it again. Therefore what is
 * done is told first, and done then. First comes what can fail without a trace, then
 * the message is sent and slices are given back, and messages are received last.
 */

/* The whole argument, but n_received, which nobody looks at. */
static __always_inline int
bus1_ioctl_send_recv_get(struct bus1_cmd_send_recv *args,
			 const struct bus1_cmd_send_recv __user *uarg)
{
	/* There are machines that cannot read so much at once */
	if (!IS_ENABLED(CONFIG_64BIT))
		return copy_from_user(args, uarg, sizeof(*args)) ? -EFAULT : 0;

	if (!user_read_access_begin(uarg, sizeof(*uarg)))
		return -EFAULT;
	unsafe_get_user(args->flags, &uarg->flags, error);
	unsafe_get_user(args->ptr_slices, &uarg->ptr_slices, error);
	unsafe_get_user(args->n_slices, &uarg->n_slices, error);
	unsafe_get_user(args->ptr_messages, &uarg->ptr_messages, error);
	unsafe_get_user(args->n_messages, &uarg->n_messages, error);
	unsafe_get_user(args->max_offset, &uarg->max_offset, error);
	unsafe_get_user(args->timeout, &uarg->timeout, error);
	unsafe_get_user(args->send.flags, &uarg->send.flags, error);
	unsafe_get_user(args->send.ptr_destinations,
			&uarg->send.ptr_destinations, error);
	unsafe_get_user(args->send.ptr_errors, &uarg->send.ptr_errors, error);
	unsafe_get_user(args->send.n_destinations, &uarg->send.n_destinations,
			error);
	unsafe_get_user(args->send.ptr_vecs, &uarg->send.ptr_vecs, error);
	unsafe_get_user(args->send.n_vecs, &uarg->send.n_vecs, error);
	unsafe_get_user(args->send.ptr_handles, &uarg->send.ptr_handles, error);
	unsafe_get_user(args->send.n_handles, &uarg->send.n_handles, error);
	unsafe_get_user(args->send.ptr_fds, &uarg->send.ptr_fds, error);
	unsafe_get_user(args->send.n_fds, &uarg->send.n_fds, error);
	user_read_access_end();
	return 0;

error:
	user_read_access_end();
	return -EFAULT;
}

/* Sets *@bytes if there is something to send that is nothing but bytes to one node. */
static int bus1_ioctl_send_recv_check(const struct bus1_cmd_send_recv *args,
				      bool *bytes)
{
	*bytes = false;
	if (args->flags & ~(BUS1_SEND_RECV_FLAG_SEND |
			    BUS1_SEND_RECV_FLAG_INSTALL_FDS))
		return -EINVAL;
	if (args->n_slices > UIO_MAXIOV || args->n_messages > UIO_MAXIOV)
		return -EMSGSIZE;
	if (!(args->flags & BUS1_SEND_RECV_FLAG_SEND))
		return 0;
	*bytes = bus1_ioctl_send_is_bytes(&args->send);
	return *bytes ? 0 : bus1_ioctl_send_check(&args->send);
}

/* Where messages go: whether they can be written there is seen when they are. */
static int bus1_ioctl_send_recv_messages(const struct bus1_cmd_send_recv *args,
					 struct bus1_msg __user **messagesp)
{
	void __user *ptr;
	int r;

	*messagesp = NULL;
	if (!args->n_messages)
		return 0;
	r = bus1_ioctl_ptr(args->ptr_messages, &ptr);
	if (r < 0)
		return r;
	if (!access_ok(ptr, args->n_messages * sizeof(**messagesp)))
		return -EFAULT;
	*messagesp = ptr;
	return 0;
}

/**
 * bus1_ioctl_send_recv_untell() - say that the message is not sent after all
 * @uarg: the argument, in user space
 * @args: what it said; no slice is given back, either
 *
 * Context: Process context, may sleep.
 * Return: 0 or -EFAULT.
 */
noinline int bus1_ioctl_send_recv_untell(struct bus1_cmd_send_recv __user *uarg,
					 const struct bus1_cmd_send_recv *args)
{
	int r;

	r = put_user(args->n_slices, &uarg->n_slices);
	return put_user(args->flags, &uarg->flags) ?: r;
}

/**
 * bus1_ioctl_send_recv_tell() - say that the message is sent, and slices are given back
 * @uarg: the argument, in user space; nothing was received yet
 * @args: what it says
 *
 * Context: Process context, may sleep.
 * Return: 0 or -EFAULT.
 */
int bus1_ioctl_send_recv_tell(struct bus1_cmd_send_recv __user *uarg,
			      const struct bus1_cmd_send_recv *args)
{
	u64 flags = args->flags & ~BUS1_SEND_RECV_FLAG_SEND;

	/* What does not change is not written: another thread may have */
	if (!user_write_access_begin(uarg, sizeof(*uarg)))
		return -EFAULT;
	unsafe_put_user(0, &uarg->n_received, error);
	if (args->n_slices)
		unsafe_put_user(0, &uarg->n_slices, error);
	if (args->flags != flags)
		unsafe_put_user(flags, &uarg->flags, error);
	user_write_access_end();
	return 0;

error:
	user_write_access_end();
	bus1_ioctl_send_recv_untell(uarg, args);
	return -EFAULT;
}

/*
 * Give the slices back, from the last to the first. Where one is none, those before it
 * are left.
 */
static int bus1_ioctl_send_recv_release(struct bus1_peer *peer,
					struct bus1_cmd_send_recv __user *uarg,
					const struct bus1_cmd_send_recv *args,
					const u64 *slices)
{
	u64 n;
	int r;

	for (n = args->n_slices; n > 0; --n) {
		r = bus1_message_release(peer, slices[n - 1]);
		if (r < 0)
			return put_user(n, &uarg->n_slices) ? -EFAULT : r;
		cond_resched();
	}
	return 0;
}

/*
 * All but receiving. The payload may lie in one of the slices: these are given back after
 * the message is sent, so that it never has to be sent again once they are gone.
 */
static int bus1_ioctl_send_recv_out(struct bus1_peer *peer,
				    struct bus1_cmd_send_recv __user *uarg,
				    const struct bus1_cmd_send_recv *args,
				    bool bytes, const u64 *slices)
{
	int r;

	if (!(args->flags & BUS1_SEND_RECV_FLAG_SEND))
		r = bus1_ioctl_send_recv_tell(uarg, args);
	else if (bytes)
		r = bus1_ioctl_send_bytes(peer, args->send.ptr_destinations,
					  args->send.ptr_vecs, uarg, args);
	else
		r = bus1_ioctl_send_any(peer, &args->send, uarg, args);
	if (r < 0)
		return r;
	return bus1_ioctl_send_recv_release(peer, uarg, args, slices);
}

/* What ktime_get_ns() will say when the clock of the caller says @timeout. */
static u64 bus1_ioctl_send_recv_deadline(u64 timeout)
{
	struct timespec64 offset = {};
	s64 deadline;

	if (timeout == U64_MAX)
		return U64_MAX;
	/* Which clock that is depends on the time namespace */
	timens_add_monotonic(&offset);
	if (check_sub_overflow((s64)min_t(u64, timeout, KTIME_MAX),
			       timespec64_to_ns(&offset), &deadline))
		return KTIME_MAX;
	return max_t(s64, deadline, 0);
}

/* Receive a message that @n others came before. Only the first is waited for. */
static int
bus1_ioctl_send_recv_one(struct bus1_peer *peer, struct file *file,
			 struct bus1_cmd_send_recv __user *uarg,
			 const struct bus1_cmd_send_recv *args,
			 struct bus1_msg __user *messages, u64 n, u64 *told)
{
	struct bus1_recv recv = {
		.peer = peer,
		.install_fds = args->flags & BUS1_SEND_RECV_FLAG_INSTALL_FDS,
	};
	bool may_wait = !n && bus1_ioctl_recv_may_wait(file);
	bool patient = may_wait && args->timeout == U64_MAX;
	int r;

	for (;;) {
		r = patient && bus1_recv_is_idle(peer) ? -EAGAIN :
			bus1_recv_prepare(&recv, args->max_offset, false, n);
		if (r != -EAGAIN)
			break;
		if (!may_wait)
			return -EAGAIN;
		r = bus1_ioctl_recv_wait(peer,
					 bus1_ioctl_send_recv_deadline(args->timeout));
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;

	r = bus1_recv_tell(&recv, messages + n);
	if (r < 0)
		return r;
	if (put_user(n + 1, &uarg->n_received)) {
		bus1_recv_abort(&recv);
		return -EFAULT;
	}
	*told = n + 1;
	return bus1_recv_commit(&recv);
}

/* An error is told if nothing was received: else it will be met again. */
static int bus1_ioctl_send_recv_in(struct bus1_peer *peer, struct file *file,
				   struct bus1_cmd_send_recv __user *uarg,
				   const struct bus1_cmd_send_recv *args,
				   struct bus1_msg __user *messages)
{
	u64 n, told = 0;
	int r;

	for (n = 0; n < args->n_messages; ++n) {
		r = bus1_ioctl_send_recv_one(peer, file, uarg, args, messages, n,
					     &told);
		if (r < 0) {
			/* One more may have been told of than was received */
			if (told != n && put_user(n, &uarg->n_received))
				return -EFAULT;
			return n ? 0 : r;
		}
		cond_resched();
	}
	return 0;
}

/**
 * bus1_ioctl_send_recv() - BUS1_CMD_SEND_RECV
 * @peer: peer that it is issued on
 * @file: its file
 * @uarg: argument
 *
 * Context: Process context, may sleep.
 * Return: 0, or a negative errno, see bus1(7).
 */
noinline __flatten int bus1_ioctl_send_recv(struct bus1_peer *peer,
					    struct file *file,
					    struct bus1_cmd_send_recv __user *uarg)
{
	/* What is not read of these is not used */
	struct bus1_cmd_send_recv args __uninitialized;
	struct bus1_msg __user *messages;
	u64 few[BUS1_IOCTL_INLINE] __uninitialized;
	void *slices;
	bool bytes;
	int r;

	r = bus1_ioctl_send_recv_get(&args, uarg);
	if (r < 0)
		return r;
	r = bus1_ioctl_send_recv_check(&args, &bytes);
	if (r < 0)
		return r;
	r = bus1_ioctl_send_recv_messages(&args, &messages);
	if (r < 0)
		return r;
	r = bus1_ioctl_ids(args.ptr_slices, args.n_slices, few, &slices);
	if (r >= 0)
		r = bus1_ioctl_send_recv_out(peer, uarg, &args, bytes, slices);
	bus1_ioctl_array_free(slices, few);
	return r < 0 ? r : bus1_ioctl_send_recv_in(peer, file, uarg, &args,
						   messages);
}
