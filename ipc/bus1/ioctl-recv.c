// SPDX-License-Identifier: GPL-2.0-only
#include <linux/fs.h>
#include <linux/kernel.h>
#include <linux/sched.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include <linux/wait.h>
#include <uapi/linux/bus1.h>
#include "ioctl-internal.h"
#include "message.h"
#include "peer.h"
#include "recv.h"
#include "util/active.h"

/* Wait until there is something to receive. */
static int bus1_ioctl_recv_wait(struct bus1_peer *peer)
{
	DEFINE_WAIT_FUNC(wait, woken_wake_function);
	int r;

	add_wait_queue_exclusive(&peer->waitq, &wait);
	/* [wake:B] pairs with [wake:A] in bus1_peer_wake() */
	smp_mb();
	for (;;) {
		r = -ESHUTDOWN;
		if (!bus1_active_is_active(&peer->active))
			break;
		r = 0;
		if (bus1_peer_is_ready(peer))
			break;
		r = -ERESTARTSYS;
		if (signal_pending(current))
			break;
		wait_woken(&wait, TASK_INTERRUPTIBLE, MAX_SCHEDULE_TIMEOUT);
	}
	remove_wait_queue(&peer->waitq, &wait);

	/* The one that leaves may have been woken up in place of another */
	if (r < 0)
		bus1_peer_wake(peer);
	return r;
}

/*
 * Give a slice back before a message is received. That it is done is told first: what
 * cannot be told is not done, and a call that is restarted does not do it again.
 */
static int bus1_ioctl_recv_release(struct bus1_ioctl *ctx, u64 offset)
{
	struct bus1_cmd_recv __user *uarg = ctx->uarg;
	int r;

	if (offset == BUS1_OFFSET_INVALID)
		return 0;
	r = put_user(BUS1_OFFSET_INVALID, &uarg->msg.offset);
	if (r < 0)
		return r;
	r = bus1_message_release(ctx->peer, offset);
	if (r < 0 && put_user(offset, &uarg->msg.offset))
		r = -EFAULT;
	return r;
}

/**
 * bus1_ioctl_recv() - BUS1_CMD_RECV
 * @ctx: the command
 *
 * Context: Process context, may sleep.
 * Return: 0, or a negative errno, see bus1(7).
 */
int bus1_ioctl_recv(struct bus1_ioctl *ctx)
{
	struct bus1_cmd_recv __user *uarg = ctx->uarg;
	struct bus1_cmd_recv args;
	bool seed, install_fds, release;
	struct bus1_recv recv;
	int r;

	if (copy_from_user(&args, uarg, sizeof(args)))
		return -EFAULT;
	if (args.flags & ~(BUS1_RECV_FLAG_SEED | BUS1_RECV_FLAG_INSTALL_FDS |
			   BUS1_RECV_FLAG_RELEASE))
		return -EINVAL;
	seed = args.flags & BUS1_RECV_FLAG_SEED;
	install_fds = args.flags & BUS1_RECV_FLAG_INSTALL_FDS;
	release = args.flags & BUS1_RECV_FLAG_RELEASE;

	if (release) {
		r = bus1_ioctl_recv_release(ctx, args.msg.offset);
		if (r < 0)
			return r;
	}

	while ((r = bus1_recv_prepare(&recv, ctx->peer, args.max_offset, seed,
				      install_fds)) == -EAGAIN) {
		/* fcntl() may change it meanwhile: that is before or after this */
		if (seed || data_race(ctx->file->f_flags) & O_NONBLOCK)
			return -EAGAIN;
		r = bus1_ioctl_recv_wait(ctx->peer);
		if (r < 0)
			return r;
	}
	if (r < 0)
		return r;

	args.msg.type = recv.type;
	args.msg.flags = recv.more ? BUS1_MSG_FLAG_CONTINUE : 0;
	args.msg.destination = recv.destination;
	args.msg.offset = recv.offset;
	args.msg.n_bytes = recv.n_bytes;
	args.msg.n_handles = recv.n_handles;
	args.msg.n_fds = recv.n_fds;
	if (copy_to_user(&uarg->msg, &args.msg, sizeof(args.msg))) {
		bus1_recv_abort(&recv);
		r = -EFAULT;
	} else {
		r = bus1_recv_commit(&recv);
	}
	/* It says what was released, whatever was written over it */
	if (r < 0 && release)
		put_user(BUS1_OFFSET_INVALID, &uarg->msg.offset);
	return r;
}
