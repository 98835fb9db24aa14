/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * A file system with one file, served through /dev/fuse by hand. Who touches the
 * file's pages is stopped until the server answers, which is when the test says
 * so. Requests that were not read yet can be given up by a fatal signal, so a test
 * that fails leaves nobody behind.
 */
#ifndef __BUS1_FUSE_H
#define __BUS1_FUSE_H

#include <linux/fuse.h>
#include <sys/mount.h>
#include "bus1_msg.h"

#define FUSE_FS_SIZE	(16 * PAGE)
#define FUSE_FS_CONTENT	0x46

/**
 * struct fuse_fs - the file system
 * @dev: the server's end
 * @dir: where it is mounted
 * @until: the request that the server stops after
 * @n: how many of these are still to be answered
 */
struct fuse_fs {
	int dev;
	char dir[64];
	__u32 until;
	int n;
};

static inline void fuse_reply(struct fuse_fs *fs, __u64 unique, int error,
			      const void *data, size_t n)
{
	struct fuse_out_header out = {
		.len = sizeof(out) + n, .error = error, .unique = unique,
	};
	const struct iovec vecs[] = {
		{ &out, sizeof(out) }, { (void *)data, n },
	};

	while (writev(fs->dev, vecs, n ? 2 : 1) < 0 && errno == EINTR)
		;
}

static inline void fuse_fill_attr(struct fuse_attr *attr, __u64 node)
{
	attr->ino = node;
	attr->mode = node == FUSE_ROOT_ID ? S_IFDIR | 0755 : S_IFREG | 0666;
	attr->nlink = 1;
	attr->size = FUSE_FS_SIZE;
	attr->blksize = PAGE;
}

/* Newer than the header may be: INIT_EXT and PASSTHROUGH, with a depth of 1. */
static inline void fuse_reply_init(struct fuse_fs *fs, __u64 unique)
{
	union {
		struct fuse_init_out out;
		__u32 words[16];
	} u = { .out = {
		.major = FUSE_KERNEL_VERSION,
		.minor = 36,
		.max_readahead = PAGE,
		.flags = 1U << 30,
		.max_background = 64,
		.congestion_threshold = 64,
		/* The server's buffer has to hold that much. */
		.max_write = 4096,
		.max_pages = 1,
	} };

	u.words[8] = 1U << 5;	/* flags2 */
	u.words[9] = 1;		/* max_stack_depth */
	fuse_reply(fs, unique, 0, &u, sizeof(u));
}

static inline void fuse_answer(struct fuse_fs *fs,
			       const struct fuse_in_header *in)
{
	const struct fuse_read_in *read = (const void *)(in + 1);
	struct fuse_entry_out entry = {
		.nodeid = 2, .entry_valid = 3600, .attr_valid = 3600,
	};
	struct fuse_attr_out attr = { .attr_valid = 3600 };
	struct fuse_open_out open = { .fh = 1 };
	__u8 page[PAGE];

	switch (in->opcode) {
	case FUSE_INIT:
		fuse_reply_init(fs, in->unique);
		break;
	case FUSE_LOOKUP:
		fuse_fill_attr(&entry.attr, 2);
		fuse_reply(fs, in->unique, 0, &entry, sizeof(entry));
		break;
	case FUSE_GETATTR:
		fuse_fill_attr(&attr.attr, in->nodeid);
		fuse_reply(fs, in->unique, 0, &attr, sizeof(attr));
		break;
	case FUSE_OPEN:
		fuse_reply(fs, in->unique, 0, &open, sizeof(open));
		break;
	case FUSE_READ:
		memset(page, FUSE_FS_CONTENT, sizeof(page));
		fuse_reply(fs, in->unique, 0, page,
			   read->size < PAGE ? read->size : PAGE);
		break;
	case FUSE_FORGET:
	case FUSE_BATCH_FORGET:
	case FUSE_INTERRUPT:
		break;
	default:
		fuse_reply(fs, in->unique, -ENOSYS, NULL, 0);
	}
}

/* Answers until @fs->n requests of the kind @fs->until are. */
static inline void *fuse_serve(void *arg)
{
	static __thread __u64 buffer[FUSE_MIN_READ_BUFFER / 8 + 1024];
	const struct fuse_in_header *in = (void *)buffer;
	struct fuse_fs *fs = arg;

	while (fs->n > 0) {
		if (read(fs->dev, buffer, sizeof(buffer)) < 0) {
			if (errno == EINTR || errno == ENOENT)
				continue;
			break;
		}
		fuse_answer(fs, in);
		if (in->opcode == fs->until)
			fs->n--;
	}
	return NULL;
}

static inline void fuse_fs_unmount(struct fuse_fs *fs)
{
	if (fs->dir[0]) {
		umount2(fs->dir, MNT_DETACH);
		rmdir(fs->dir);
	}
	fs->dir[0] = 0;
}

/* Ends all requests: who is stopped there gets an error. */
static inline void fuse_fs_abort(struct fuse_fs *fs)
{
	fuse_fs_unmount(fs);
	if (fs->dev >= 0)
		close(fs->dev);
	fs->dev = -1;
}

/* Returns 0 or -errno; -ENOENT or -ENODEV where there is no FUSE. */
static inline int fuse_fs_mount(struct fuse_fs *fs)
{
	char options[128];
	int r;

	fs->dir[0] = 0;
	fs->dev = open("/dev/fuse", O_RDWR | O_CLOEXEC);
	if (fs->dev < 0)
		return -errno;
	strcpy(fs->dir, "/tmp/bus1-fuse-XXXXXX");
	if (!mkdtemp(fs->dir)) {
		fs->dir[0] = 0;
		return -errno;
	}
	snprintf(options, sizeof(options),
		 "fd=%d,rootmode=40000,user_id=0,group_id=0", fs->dev);
	if (mount("bus1-test", fs->dir, "fuse", 0, options)) {
		r = -errno;
		rmdir(fs->dir);
		fs->dir[0] = 0;
		return r;
	}
	fs->until = FUSE_INIT;
	fs->n = 1;
	fuse_serve(fs);
	return 0;
}

/* Opens the file, with another thread as the server. A descriptor or -errno. */
static inline int fuse_fs_open(struct fuse_fs *fs)
{
	pthread_t thread;
	char path[80];
	int fd;

	fs->until = FUSE_OPEN;
	fs->n = 1;
	if (pthread_create(&thread, NULL, fuse_serve, fs))
		return -EAGAIN;
	snprintf(path, sizeof(path), "%s/file", fs->dir);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		fd = -errno;
	pthread_join(thread, NULL);
	return fd;
}

/* Waits until somebody is stopped, and does nothing about it. */
static inline bool fuse_fs_wait(struct fuse_fs *fs)
{
	struct pollfd p = { .fd = fs->dev, .events = POLLIN };
	int r;

	do {
		r = poll(&p, 1, -1);
	} while (r < 0 && errno == EINTR);
	return r == 1 && p.revents == POLLIN;
}

/* Answers the next @n reads, each of a page. */
static inline void fuse_fs_answer_reads(struct fuse_fs *fs, int n)
{
	fs->until = FUSE_READ;
	fs->n = n;
	fuse_serve(fs);
}

#endif /* __BUS1_FUSE_H */
