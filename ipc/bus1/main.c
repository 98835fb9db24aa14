// SPDX-License-Identifier: GPL-2.0-only
/*
 * bus1: a capability-based message bus
 *
 * The module, its character device, and its file operations. There is no logic
 * here: see peer.h for what a file stands for, and ioctl.c for the commands.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/cred.h>
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/init.h>
#include <linux/miscdevice.h>
#include <linux/module.h>
#include <linux/poll.h>
#include <linux/seq_file.h>
#include "compat.h"
#include "handle.h"
#include "ioctl.h"
#include "main.h"
#include "message.h"
#include "node.h"
#include "peer.h"
#include "quota.h"
#include "trace.h"
#include "user.h"
#include "util/active.h"
#include "util/pool.h"

static int bus1_fop_open(struct inode *inode, struct file *file)
{
	struct bus1_peer *peer;

	peer = bus1_peer_new(current_uid());
	if (IS_ERR(peer))
		return PTR_ERR(peer);

	file->private_data = peer;
	trace_bus1_peer_open(peer);
	return stream_open(inode, file);
}

static int bus1_fop_release(struct inode *inode, struct file *file)
{
	struct bus1_peer *peer = bus1_file_peer(file);

	/* No command runs, since each holds a reference to the file */
	bus1_active_deactivate(&peer->active);
	bus1_peer_teardown(peer);
	bus1_peer_unref(peer);
	return 0;
}

static __poll_t bus1_fop_poll(struct file *file, struct poll_table_struct *wait)
{
	struct bus1_peer *peer = bus1_file_peer(file);
	__poll_t mask = EPOLLOUT | EPOLLWRNORM;

	poll_wait(file, &peer->waitq, wait);
	/* [wake:B] pairs with [wake:A] in bus1_peer_wake() */
	smp_mb();

	if (bus1_peer_is_disconnected(peer))
		return EPOLLHUP;
	if (bus1_peer_is_ready(peer))
		mask |= EPOLLIN | EPOLLRDNORM;
	return mask;
}

static __flatten long bus1_fop_ioctl(struct file *file, unsigned int cmd,
				     unsigned long arg)
{
	return bus1_ioctl(bus1_file_peer(file), file, cmd, arg);
}

static int bus1_fop_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct bus1_peer *peer = bus1_file_peer(file);

	if (bus1_peer_is_disconnected(peer))
		return -ESHUTDOWN;
	return bus1_pool_mmap(peer->pool, vma);
}

static void bus1_fop_show_fdinfo(struct seq_file *m, struct file *file)
{
	bus1_peer_show(bus1_file_peer(file), m);
}

static const struct file_operations bus1_fops = {
	.owner			= THIS_MODULE,
	.open			= bus1_fop_open,
	.release		= bus1_fop_release,
	.poll			= bus1_fop_poll,
	.llseek			= noop_llseek,
	.unlocked_ioctl		= bus1_fop_ioctl,
	.compat_ioctl		= compat_ptr_ioctl,
	.mmap			= bus1_fop_mmap,
	.show_fdinfo		= bus1_fop_show_fdinfo,
};

static struct miscdevice bus1_misc = {
	.minor	= MISC_DYNAMIC_MINOR,
	.name	= KBUILD_MODNAME,
	.fops	= &bus1_fops,
	/* A peer reaches nothing but what it was given: anybody may have one */
	.mode	= 0666,
};

/**
 * bus1_is_peer_file() - ask whether a file is a peer
 * @file: any file
 *
 * Context: Any.
 * Return: True if it is an open file of the character device.
 */
bool bus1_is_peer_file(struct file *file)
{
	return file->f_op == &bus1_fops;
}

/**
 * bus1_file_peer() - the peer behind a file
 * @file: file that is a peer
 *
 * Context: Any.
 * Return: The peer, which lives at least as long as the file.
 */
struct bus1_peer *bus1_file_peer(struct file *file)
{
	return file->private_data;
}

static int __init bus1_init(void)
{
	int r;

	r = bus1_user_module_init();
	if (r < 0)
		return r;
	r = bus1_quota_module_init();
	if (r < 0)
		goto error_user;
	r = bus1_pool_module_init();
	if (r < 0)
		goto error_quota;
	r = bus1_node_module_init();
	if (r < 0)
		goto error_pool;
	r = bus1_handle_module_init();
	if (r < 0)
		goto error_node;
	r = bus1_message_module_init();
	if (r < 0)
		goto error_handle;
	/* Last: from here on there are users */
	r = misc_register(&bus1_misc);
	if (r < 0)
		goto error_message;
	return 0;

error_message:
	bus1_message_module_exit();
error_handle:
	bus1_handle_module_exit();
error_node:
	bus1_node_module_exit();
error_pool:
	bus1_pool_module_exit();
error_quota:
	bus1_quota_module_exit();
error_user:
	bus1_user_module_exit();
	return r;
}

static void __exit bus1_exit(void)
{
	misc_deregister(&bus1_misc);
	bus1_message_module_exit();
	bus1_handle_module_exit();
	bus1_node_module_exit();
	bus1_pool_module_exit();
	bus1_quota_module_exit();
	bus1_user_module_exit();
}

module_init(bus1_init);
module_exit(bus1_exit);
MODULE_DESCRIPTION("Capability-based message bus");
MODULE_AUTHOR("The bus1 project");
MODULE_LICENSE("GPL");
MODULE_VERSION(BUS1_VERSION);
