/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef BENCH_H
#define BENCH_H

/*
 * What the rows of the benchmark (rows.c) and its transports share.
 *
 * Every transport does the same work: a payload goes from a buffer of one task to
 * where another one can read it. All system calls are made by the same inline
 * function, so that no transport pays for a wrapper of the C library that others
 * do not have.
 */

#include <err.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/syscall.h>
#include <sys/types.h>

#define BUFFER_SIZE	(2UL << 20)
#define ARRAY_SIZE(a)	(sizeof(a) / sizeof(*(a)))

static inline long sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long r;

	__asm__ volatile("syscall" : "=a"(r)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return r;
}

static inline long sys3(long nr, long a, long b, long c)
{
	long r;

	__asm__ volatile("syscall" : "=a"(r) : "a"(nr), "D"(a), "S"(b), "d"(c)
			 : "rcx", "r11", "memory");
	return r;
}

static inline int sys_ioctl(int fd, unsigned long cmd, void *arg)
{
	return sys3(SYS_ioctl, fd, cmd, (long)arg);
}

/* A failure in a row is the end of that row, not of the program: see row_fail(). */
__attribute__((noreturn, format(printf, 1, 2)))
void row_fail(const char *fmt, ...);

/* There is nothing to measure here, for that reason. */
__attribute__((noreturn))
void row_none(const char *why);

static inline long must(long r, const char *what)
{
	if (__builtin_expect(r < 0, 0))
		row_fail("%s: error %ld", what, -r);
	return r;
}

enum { SEND_END, RECV_END };

struct transport;

/*
 * A way from one end to the other, and one back. open() makes both ends, attach()
 * is called by the task that will use an end: twice by one and the same, or by each
 * of two processes, the one that is forked first taking RECV_END.
 */
struct channel {
	const struct transport *t;
	size_t size;		/* of the payload */
	int fd[2][2];		/* the end, and what it is used for */
	uint64_t id[2];		/* name of the other end */
	uint64_t at[2];		/* what was received last */
	uint64_t extra[2];
	const char *map[2];
	char *out[2], *in[2];	/* buffers of each end */
	pid_t helper;
	int third;		/* descriptor */
};

struct transport {
	const char *name;
	/* Room for `depth' messages in each direction. */
	void (*open)(struct channel *c, unsigned int depth);
	void (*attach)(struct channel *c, int end);
	void (*close)(struct channel *c);
	/* Send c->size bytes of c->out[end] to the other end. */
	void (*send)(struct channel *c, int end);
	/* Receive that; return where it can be read. */
	const void *(*recv)(struct channel *c, int end);
	/* Give back what was received. */
	void (*release)(struct channel *c, int end);
	/* A request and its answer, both of c->size bytes; or by send and recv. */
	void (*call)(struct channel *c);
	void (*serve)(struct channel *c);
	/* Like send and recv and release, with a file or a handle in the message. */
	void (*file)(struct channel *c, int fd);
	void (*handle_init)(struct channel *c);
	void (*handle)(struct channel *c);
	/* Make what one needs to talk, and destroy it again. */
	void (*open_close)(void);
	size_t max;		/* longest payload */
	unsigned int depth_max;	/* most messages in a queue */
	bool no_empty;		/* there are no messages without payload */
};

extern const struct transport bus1_transport, bus1_fewer_transport, seqpacket_transport,
	stream_transport, pipe_transport, mqueue_transport, binder_transport;

/* bus1.c: what only bus1 has */
int bus1_open(void);
uint64_t bus1_give(int from, uint64_t id, int to);
void bus1_send(int fd, const uint64_t *to, size_t n_to, const void *data, size_t n,
	       const uint64_t *handle, const int *file);
void bus1_drain(int fd);
void bus1_destroy(int fd, uint64_t id);
void bus1_raise(const char *parameter, unsigned long value);
const char *bus1_version(void);

#endif /* BENCH_H */
