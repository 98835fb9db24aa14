/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What tests read from tracefs: a ring buffer of their own, so that nobody else's
 * events are in there.
 */
#ifndef __BUS1_TRACE_H
#define __BUS1_TRACE_H

#include "bus1_test.h"

#define TRACEFS		"/sys/kernel/tracing"

/* The buffer. Making one takes a while, so all tests of a program share it. */
static char trace_instance[128];
static pid_t trace_owner;

__attribute__((constructor)) static void trace_instance_new(void)
{
	if (access(TRACEFS "/instances", W_OK))
		return;
	snprintf(trace_instance, sizeof(trace_instance),
		 TRACEFS "/instances/bus1-test-%d", getpid());
	if (mkdir(trace_instance, 0700))
		trace_instance[0] = 0;
	else
		trace_owner = getpid();
}

__attribute__((destructor)) static void trace_instance_free(void)
{
	if (trace_owner == getpid())
		rmdir(trace_instance);
}

static inline int trace_file(const char *name, int flags)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s/%s", trace_instance, name);
	fd = open(path, flags | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

static inline int trace_write(const char *name, const char *text)
{
	int fd = trace_file(name, O_WRONLY), r = 0;

	if (fd < 0)
		return fd;
	if (write(fd, text, strlen(text)) < 0)
		r = -errno;
	close(fd);
	return r;
}

/* Turn the @events on: what is traced from then on is read from the pipe. */
static inline int trace_start(const char *events)
{
	int fd, r;

	/* One clock for all CPUs. */
	r = trace_write("trace_clock", "mono");
	if (r < 0)
		return r;
	fd = trace_file("trace", O_WRONLY | O_TRUNC);
	if (fd < 0)
		return fd;
	close(fd);
	fd = trace_file("trace_pipe", O_RDONLY | O_NONBLOCK);
	if (fd < 0)
		return fd;
	r = trace_write(events, "1");
	if (r < 0) {
		close(fd);
		return r;
	}
	return fd;
}

/* Turn them off again. */
static inline void trace_stop(const char *events, int pipe)
{
	trace_write(events, "0");
	if (pipe >= 0)
		close(pipe);
}

#endif /* __BUS1_TRACE_H */
