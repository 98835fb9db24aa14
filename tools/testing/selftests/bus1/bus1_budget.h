/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * What the tests of budgets share: the four resources as one table, messages
 * that cost one unit, and module parameters that are restored in any case.
 */
#ifndef __BUS1_BUDGET_H
#define __BUS1_BUDGET_H

#include "bus1_msg.h"

enum resource { SLICES, HANDLES, BYTES, FDS, N_RESOURCES };

struct resource_info {
	const char *parameter;
	const char *fdinfo;
	__u32 unit;
};

static const struct resource_info resources[N_RESOURCES] __unused_fn = {
	[SLICES] = { "user_slices_max", "bus1-slices", 1 },
	[HANDLES] = { "user_handles_max", "bus1-handles", 1 },
	[BYTES] = { "user_inflight_bytes_max", "bus1-bytes", 64 },
	[FDS] = { "user_inflight_fds_max", "bus1-fds", 1 },
};

/* The node that messages carry when handles are counted. */
#define CARGO	0x7000ULL

/*
 * Sends a message with the number @tag that costs one unit of @res. Of the
 * other resources it costs as little as it can.
 */
static inline int send_unit(int fd, __u64 id, enum resource res, __u64 tag)
{
	__u64 data[8] = { tag }, cargo = CARGO;
	struct iovec vec = { data, res == BYTES ? 64 : 8 };
	int stderr_fd = STDERR_FILENO;

	return msg_send(fd, .dst = &id, .n_dst = 1, .vecs = &vec, .n_vecs = 1,
			.handles = &cargo, .n_handles = res == HANDLES,
			.fds = &stderr_fd, .n_fds = res == FDS);
}

/* Receives a message, and gives back everything that it costs. */
static inline __u64 t_recv_unit(struct __test_metadata *_metadata,
				struct peer *peer, int line)
{
	struct bus1_cmd_recv r = t_recv(_metadata, peer, 0, line);
	__u64 tag = -1, i;

	ASSERT_EQ(BUS1_MSG_DATA, r.msg.type) {
		TH_LOG("called from line %d", line);
	}
	memcpy(&tag, slice_bytes(peer, &r), sizeof(tag));
	for (i = 0; i < r.msg.n_handles; i++) {
		EXPECT_EQ(0, bus1_handle_release(peer->fd,
						 recv_handle(peer, &r, i)));
	}
	EXPECT_EQ(0, bus1_slice_release(peer->fd, r.msg.offset));
	return tag;
}

#define RECV_UNIT(_peer) t_recv_unit(_metadata, _peer, __LINE__)

/* Sends units until one is refused. Returns their number, or an error. */
static inline int send_units(int fd, __u64 id, enum resource res, int max)
{
	int n, r;

	for (n = 0; n < max; n++) {
		r = send_unit(fd, id, res, n);
		if (r == -EDQUOT)
			break;
		if (r)
			return r;
	}
	return n;
}

/* Sets one limit of a peer, in what the resource is counted in. */
static inline int set_limit(int fd, enum resource res, __u32 limit)
{
	__u32 limits[N_RESOURCES] = { KEEP, KEEP, KEEP, KEEP };

	limits[res] = limit;
	return set_limits(fd, limits[SLICES], limits[HANDLES], limits[BYTES],
			  limits[FDS]);
}

static inline long long used(int fd, enum resource res)
{
	return bus1_fdinfo(fd, resources[res].fdinfo);
}

/*
 * Parameters of the module
 */

/* The limits, by resource, and the size of pools opened from then on. */
enum { POOL_SIZE_MAX = N_RESOURCES, N_PARAMETERS };

struct parameters {
	long long saved[N_PARAMETERS];
	int alive;
	pid_t guard;
};

static inline void parameter_path(int which, char *path, size_t size)
{
	snprintf(path, size, PARAMETERS "%s", which == POOL_SIZE_MAX ?
		 "pool_size_max" : resources[which].parameter);
}

static inline long long parameter_get(int which)
{
	char path[128];

	parameter_path(which, path, sizeof(path));
	return read_number(path);
}

static inline int parameter_set(int which, long long value)
{
	char path[128], text[32];
	int fd, n, r;

	parameter_path(which, path, sizeof(path));
	n = snprintf(text, sizeof(text), "%lld\n", value);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = write(fd, text, n) == n ? 0 : -errno;
	close(fd);
	return r;
}

/*
 * Remembers all parameters. They are set back by a process of its own, as soon
 * as all those of the test are gone: even if they were killed.
 */
static inline void t_parameters_save(struct __test_metadata *_metadata,
				     struct parameters *p)
{
	int fds[2], i;
	char c;

	for (i = 0; i < N_PARAMETERS; i++) {
		p->saved[i] = parameter_get(i);
		ASSERT_LE(0, p->saved[i]) {
			TH_LOG("no parameter number %d", i);
		}
	}
	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	p->alive = fds[1];
	p->guard = fork();
	ASSERT_LE(0, p->guard);
	if (!p->guard) {
		setsid();
		close(fds[1]);
		while (read(fds[0], &c, 1) < 0 && errno == EINTR)
			;
		for (i = 0; i < N_PARAMETERS; i++)
			parameter_set(i, p->saved[i]);
		_exit(0);
	}
	close(fds[0]);
}

#define PARAMETERS_SAVE(_p) t_parameters_save(_metadata, _p)

static inline void parameters_restore(struct parameters *p)
{
	close(p->alive);
	wait_status(p->guard);
}

#endif /* __BUS1_BUDGET_H */
