// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every command with one thing wrong at a time: the one errno for it, and
 * nothing changed.
 */
#include "bus1_msg.h"
#include <stddef.h>

/* somewhere in the kernel's direct mapping, and its text */
#define KERNEL_DATA	0xffff888000000000ULL
#define KERNEL_TEXT	0xffffffff81000000ULL
#define ONES		((__u64)-1)
#define SIGN		(1ULL << 63)

FIXTURE(bad) {
	struct net net;
	struct net_state before;
	__u8 *none;
};

FIXTURE_SETUP(bad)
{
	self->none = bad_none();
	ASSERT_TRUE(self->none != MAP_FAILED);
	NET_INIT(&self->net);
	self->before = net_state(&self->net);
}

FIXTURE_TEARDOWN(bad)
{
	struct bus1_cmd_recv r;

	/* After all that was tried, everything still works. */
	while (!bus1_recv(self->net.b.fd, 0, &r))
		;
	EXPECT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "alive"));
	RECV_STR(&self->net.b, NODE_B, "alive");
	net_deinit(&self->net);
}

/* One field of a command, what is put there, and what comes of it. */
struct bad_field {
	size_t offset;
	size_t size;
	__u64 value;
	int error;
};

#define BAD(_type, _field, _value, _error)				\
	{ offsetof(_type, _field), sizeof(((_type *)0)->_field),	\
	  (_value), (_error) }

static void try_fields(struct __test_metadata *_metadata, struct net *net,
		       const struct net_state *before, int fd,
		       unsigned long cmd, const void *good, size_t size,
		       const struct bad_field *fields, size_t n)
{
	__u8 arg[256], copy[256];
	size_t i;

	ASSERT_GE(sizeof(arg), size);
	for (i = 0; i < n; i++) {
		memcpy(arg, good, size);
		/* little endian, as everything that this runs on */
		memcpy(arg + fields[i].offset, &fields[i].value,
		       fields[i].size);
		memcpy(copy, arg, size);
		EXPECT_EQ(fields[i].error, bus1_ioctl(fd, cmd, arg)) {
			TH_LOG("command %#lx, field at %zu, value %#llx",
			       cmd & 0xff, fields[i].offset,
			       (unsigned long long)fields[i].value);
		}
		EXPECT_EQ(0, memcmp(copy, arg, size)) {
			TH_LOG("command %#lx, field at %zu, value %#llx",
			       cmd & 0xff, fields[i].offset,
			       (unsigned long long)fields[i].value);
		}
		EXPECT_SAME(net, before);
	}
}

#define TRY(_fd, _cmd, _good, _fields)					\
	try_fields(_metadata, &self->net, &self->before, _fd, _cmd, _good, \
		   sizeof(*(_good)), _fields, ARRAY_SIZE(_fields))

/* What is wrong for every pointer to an array that is needed. */
#define BAD_POINTERS(_type, _field, _good)				\
	BAD(_type, _field, 0, -EFAULT),					\
	BAD(_type, _field, 1, -EFAULT),					\
	BAD(_type, _field, ONES, -EFAULT),				\
	BAD(_type, _field, SIGN, -EFAULT),				\
	BAD(_type, _field, KERNEL_DATA, -EFAULT),			\
	BAD(_type, _field, KERNEL_TEXT, -EFAULT),			\
	BAD(_type, _field, ptr(self->none), -EFAULT),			\
	/* one byte further, the last one of the array is missing */	\
	BAD(_type, _field, (_good) + 1, -EFAULT),			\
	/* does not fit a pointer, but would if it were cut off */	\
	BAD(_type, _field, (_good) | SIGN, -EFAULT),			\
	BAD(_type, _field, (_good) | 1ULL << 62, -EFAULT)

/*
 * The argument itself
 */

static const struct {
	unsigned int cmd;
	size_t size;
} commands[] = {
	{ BUS1_CMD_PEER_QUERY, sizeof(struct bus1_cmd_peer_reset) },
	{ BUS1_CMD_PEER_RESET, sizeof(struct bus1_cmd_peer_reset) },
	{ BUS1_CMD_HANDLE_RELEASE, sizeof(__u64) },
	{ BUS1_CMD_HANDLE_TRANSFER, sizeof(struct bus1_cmd_handle_transfer) },
	{ BUS1_CMD_NODES_DESTROY, sizeof(struct bus1_cmd_nodes_destroy) },
	{ BUS1_CMD_SLICE_RELEASE, sizeof(__u64) },
	{ BUS1_CMD_SEND, sizeof(struct bus1_cmd_send) },
	{ BUS1_CMD_RECV, sizeof(struct bus1_cmd_recv) },
	{ BUS1_CMD_SEND_RECV, sizeof(struct bus1_cmd_send_recv) },
};

TEST_F(bad, argument_nowhere_is_efault)
{
	const unsigned long addresses[] = {
		0, 1, (unsigned long)ONES, 1UL << (sizeof(long) * 8 - 1),
		(unsigned long)KERNEL_DATA, (unsigned long)KERNEL_TEXT,
		(unsigned long)self->none, (unsigned long)self->none + 1,
	};
	size_t i, j;

	for (i = 0; i < ARRAY_SIZE(commands); i++)
		for (j = 0; j < ARRAY_SIZE(addresses); j++) {
			EXPECT_EQ(-EFAULT, bus1_ioctl(self->net.a.fd,
						      commands[i].cmd,
						      (void *)addresses[j])) {
				TH_LOG("command %#x, address %#lx",
				       commands[i].cmd & 0xff, addresses[j]);
			}
		}
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(bad, argument_that_ends_half_way_is_efault)
{
	size_t i, n;
	__u8 *arg;

	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		/* Flags are 0, the rest ones: no other mistake comes first. */
		for (n = 1; n < commands[i].size; n++) {
			arg = bad_edge(n);
			ASSERT_TRUE(arg);
			memset(arg, 0xff, n);
			memset(arg, 0, n < 8 ? n : 8);
			EXPECT_EQ(-EFAULT, bus1_ioctl(self->net.a.fd,
						      commands[i].cmd, arg)) {
				TH_LOG("command %#x, %zu bytes",
				       commands[i].cmd & 0xff, n);
			}
			munmap(arg + n - PAGE, 2 * PAGE);
		}
	}
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(bad, argument_may_be_unaligned)
{
	__u8 buffer[sizeof(struct bus1_cmd_send) + 8];
	struct bus1_cmd_send send = {};
	__u64 id = 0xffff1;

	memcpy(buffer + 1, &send, sizeof(send));
	EXPECT_EQ(0, bus1_ioctl(self->net.a.fd, BUS1_CMD_SEND, buffer + 1));
	memcpy(buffer + 3, &id, sizeof(id));
	EXPECT_EQ(-ENXIO, bus1_ioctl(self->net.a.fd, BUS1_CMD_HANDLE_RELEASE,
				     buffer + 3));
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(bad, unknown_commands_are_enotty)
{
	const __u8 known[] = { 0x00, 0x01, 0x02, 0x10, 0x11, 0x20, 0x30, 0x40,
			       0x50, 0x51 };
	unsigned int nr;

	for (nr = 0; nr < 256; nr++) {
		if (memchr(known, nr, sizeof(known)))
			continue;
		EXPECT_EQ(-ENOTTY, bus1_ioctl(self->net.a.fd,
					      _IOWR(BUS1_IOCTL_MAGIC, nr,
						    __u64), NULL));
		EXPECT_EQ(-ENOTTY, bus1_ioctl(self->net.a.fd,
					      _IOWR(BUS1_IOCTL_MAGIC, nr,
						    struct bus1_cmd_send),
					      NULL));
	}
	for (nr = 0; nr < 256; nr++) {
		EXPECT_EQ(-ENOTTY, bus1_ioctl(self->net.a.fd,
					      _IOWR(0x97, nr, __u64), NULL));
	}
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(bad, read_and_write_are_no_way_to_talk)
{
	char c = 0;

	EXPECT_EQ(-1, read(self->net.b.fd, &c, 1));
	EXPECT_EQ(-1, write(self->net.b.fd, &c, 1));
	EXPECT_SAME(&self->net, &self->before);
}

/*
 * Fields
 */

TEST_F(bad, disconnect)
{
	const unsigned long args[] = {
		1, (unsigned long)ONES, 1UL << (sizeof(long) * 8 - 1),
		(unsigned long)KERNEL_DATA | 8, (unsigned long)self->none,
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(args); i++) {
		EXPECT_EQ(-EINVAL, bus1_ioctl(self->net.a.fd,
					      BUS1_CMD_PEER_DISCONNECT,
					      (void *)args[i]));
	}
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(bad, query)
{
	const struct bus1_cmd_peer_reset good = {};
	const struct bad_field fields[] = {
		BAD(struct bus1_cmd_peer_reset, flags, 1, -EINVAL),
		BAD(struct bus1_cmd_peer_reset, flags, 2, -EINVAL),
		BAD(struct bus1_cmd_peer_reset, flags, ONES, -EINVAL),
		BAD(struct bus1_cmd_peer_reset, flags, SIGN, -EINVAL),
	};

	TRY(self->net.a.fd, BUS1_CMD_PEER_QUERY, &good, fields);
	EXPECT_EQ(-EFAULT, bus1_ioctl(self->net.a.fd, BUS1_CMD_PEER_QUERY,
				      bad_readonly(&good, sizeof(good))));
}

#define BAD_LIMIT(_field)						\
	BAD(struct bus1_cmd_peer_reset, _field, 1U << 31, -EINVAL),	\
	BAD(struct bus1_cmd_peer_reset, _field, 0xfffffffe, -EINVAL),	\
	BAD(struct bus1_cmd_peer_reset, _field, KERNEL_TEXT, -EINVAL)

TEST_F(bad, reset)
{
	const struct bus1_cmd_peer_reset good = {
		.flags = BUS1_PEER_RESET_FLAG_FLUSH, .peer_flags = -1,
		.max_slices = 1, .max_handles = 1, .max_inflight_bytes = 1,
		.max_inflight_fds = 1,
	};
	const struct bad_field fields[] = {
		BAD(struct bus1_cmd_peer_reset, flags, 4, -EINVAL),
		BAD(struct bus1_cmd_peer_reset, flags, 5, -EINVAL),
		BAD(struct bus1_cmd_peer_reset, flags, ONES, -EINVAL),
		BAD(struct bus1_cmd_peer_reset, flags, SIGN, -EINVAL),
		BAD(struct bus1_cmd_peer_reset, peer_flags, 0, -EINVAL),
		BAD(struct bus1_cmd_peer_reset, peer_flags, 1, -EINVAL),
		BAD(struct bus1_cmd_peer_reset, peer_flags, SIGN, -EINVAL),
		BAD(struct bus1_cmd_peer_reset, peer_flags, 0xffffffff,
		    -EINVAL),
		BAD_LIMIT(max_slices),
		BAD_LIMIT(max_handles),
		BAD_LIMIT(max_inflight_bytes),
		BAD_LIMIT(max_inflight_fds),
	};

	TRY(self->net.a.fd, BUS1_CMD_PEER_RESET, &good, fields);
}

TEST_F(bad, handle_release)
{
	const struct bad_field fields[] = {
		{ 0, 8, 0, -EBUSY },
		{ 0, 8, 4, -EBUSY },
		{ 0, 8, SIGN, -EBUSY },
		{ 0, 8, KERNEL_DATA, -EBUSY },
		{ 0, 8, 1, -ENXIO },
		{ 0, 8, 2, -ENXIO },
		{ 0, 8, 3, -ENXIO },
		{ 0, 8, SIGN | 1, -ENXIO },
		{ 0, 8, KERNEL_DATA | 3, -ENXIO },
		{ 0, 8, ONES, -ENXIO },
	};
	__u64 good = 0;

	TRY(self->net.b.fd, BUS1_CMD_HANDLE_RELEASE, &good, fields);
}

TEST_F(bad, handle_transfer)
{
	const struct bus1_cmd_handle_transfer good = {
		.src_handle = self->net.ab,
		.dst_fd = self->net.c.fd,
		.dst_handle = BUS1_HANDLE_INVALID,
	};
	const int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	const int path = open(BUS1_PATH, O_PATH | O_CLOEXEC);
	const struct bad_field fields[] = {
		BAD(struct bus1_cmd_handle_transfer, flags, 1, -EINVAL),
		BAD(struct bus1_cmd_handle_transfer, flags, ONES, -EINVAL),
		BAD(struct bus1_cmd_handle_transfer, flags, SIGN, -EINVAL),
		BAD(struct bus1_cmd_handle_transfer, src_handle, 1, -ENXIO),
		BAD(struct bus1_cmd_handle_transfer, src_handle, 2, -ENXIO),
		BAD(struct bus1_cmd_handle_transfer, src_handle, ONES, -ENXIO),
		BAD(struct bus1_cmd_handle_transfer, src_handle,
		    KERNEL_DATA | 1, -ENXIO),
		BAD(struct bus1_cmd_handle_transfer, dst_fd, null,
		    -EOPNOTSUPP),
		/* An O_PATH descriptor is none to act upon. */
		BAD(struct bus1_cmd_handle_transfer, dst_fd, path, -EBADF),
		BAD(struct bus1_cmd_handle_transfer, dst_fd, 1000000, -EBADF),
		BAD(struct bus1_cmd_handle_transfer, dst_fd, INT_MAX, -EBADF),
		BAD(struct bus1_cmd_handle_transfer, dst_fd, 0xffffffff,
		    -EBADF),
		BAD(struct bus1_cmd_handle_transfer, dst_fd, ONES - 1, -EBADF),
		BAD(struct bus1_cmd_handle_transfer, dst_fd, SIGN, -EBADF),
		BAD(struct bus1_cmd_handle_transfer, dst_fd,
		    self->net.c.fd | 1ULL << 32, -EBADF),
		BAD(struct bus1_cmd_handle_transfer, dst_handle, 0, -EINVAL),
		BAD(struct bus1_cmd_handle_transfer, dst_handle, 1, -EINVAL),
		BAD(struct bus1_cmd_handle_transfer, dst_handle, SIGN,
		    -EINVAL),
		BAD(struct bus1_cmd_handle_transfer, dst_handle, ONES - 1,
		    -EINVAL),
	};

	ASSERT_LE(0, null);
	ASSERT_LE(0, path);
	TRY(self->net.a.fd, BUS1_CMD_HANDLE_TRANSFER, &good, fields);
	EXPECT_EQ(-EFAULT, bus1_ioctl(self->net.a.fd, BUS1_CMD_HANDLE_TRANSFER,
				      bad_readonly(&good, sizeof(good))));
	EXPECT_SAME(&self->net, &self->before);
}

TEST_F(bad, nodes_destroy)
{
	__u64 *id = bad_edge(sizeof(*id));
	const struct bus1_cmd_nodes_destroy good = {
		.ptr_nodes = ptr(id),
		.n_nodes = 1,
	};
	const struct bad_field fields[] = {
		BAD(struct bus1_cmd_nodes_destroy, flags, 2, -EINVAL),
		BAD(struct bus1_cmd_nodes_destroy, flags, ONES, -EINVAL),
		BAD(struct bus1_cmd_nodes_destroy, flags, SIGN, -EINVAL),
		BAD_POINTERS(struct bus1_cmd_nodes_destroy, ptr_nodes, ptr(id)),
		BAD(struct bus1_cmd_nodes_destroy, n_nodes, 2, -EFAULT),
		BAD(struct bus1_cmd_nodes_destroy, n_nodes, ONES, -EINVAL),
		BAD(struct bus1_cmd_nodes_destroy, n_nodes, SIGN, -EINVAL),
		BAD(struct bus1_cmd_nodes_destroy, n_nodes, SIGN >> 2, -EINVAL),
		BAD(struct bus1_cmd_nodes_destroy, n_nodes, 1ULL << 40,
		    -EINVAL),
	};
	const struct {
		__u64 id;
		int error;
	} ids[] = {
		{ 1, -ENXIO }, { 2, -ENXIO }, { 3 | SIGN, -ENXIO },
		{ ONES, -ENXIO }, { KERNEL_DATA | 1, -ENXIO },
		{ self->net.ab, -EREMOTE },
	};
	size_t i;

	ASSERT_TRUE(id);
	*id = 0x1000;
	TRY(self->net.a.fd, BUS1_CMD_NODES_DESTROY, &good, fields);
	for (i = 0; i < ARRAY_SIZE(ids); i++) {
		*id = ids[i].id;
		EXPECT_EQ(ids[i].error, bus1_ioctl(self->net.a.fd,
						   BUS1_CMD_NODES_DESTROY,
						   (void *)&good));
		EXPECT_SAME(&self->net, &self->before);
	}
}

TEST_F(bad, slice_release)
{
	const struct bad_field fields[] = {
		{ 0, 8, 0, -ENXIO },
		{ 0, 8, 1, -ENXIO },
		{ 0, 8, 4, -ENXIO },
		{ 0, 8, SIGN, -ENXIO },
		{ 0, 8, ONES, -ENXIO },
		{ 0, 8, KERNEL_DATA, -ENXIO },
	};
	__u64 good = 0;

	TRY(self->net.b.fd, BUS1_CMD_SLICE_RELEASE, &good, fields);
}

TEST_F(bad, slice_release_beside_a_slice)
{
	struct bus1_cmd_recv r;
	__u64 good = 0;

	ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, self, 64));
	r = RECV(&self->net.b);
	self->before = net_state(&self->net);
	const struct bad_field fields[] = {
		{ 0, 8, r.msg.offset + 1, -ENXIO },
		{ 0, 8, r.msg.offset + 8, -ENXIO },
		{ 0, 8, r.msg.offset - 1, -ENXIO },
		{ 0, 8, r.msg.offset | SIGN, -ENXIO },
		{ 0, 8, r.msg.offset | 1ULL << 32, -ENXIO },
	};
	TRY(self->net.b.fd, BUS1_CMD_SLICE_RELEASE, &good, fields);
}

/*
 * SEND: all arrays have one element, and end where memory ends.
 */
struct send_arrays {
	__u64 *dst;
	__s32 *error;
	struct iovec *vec;
	__u64 *handle;
	int *fd;
	__u8 *payload;
	struct bus1_cmd_send cmd;
};

static void send_arrays(struct __test_metadata *_metadata,
			const struct net *net, struct send_arrays *s)
{
	s->dst = bad_edge(sizeof(*s->dst));
	s->error = bad_edge(sizeof(*s->error));
	s->vec = bad_edge(sizeof(*s->vec));
	s->handle = bad_edge(sizeof(*s->handle));
	s->fd = bad_edge(sizeof(*s->fd));
	s->payload = bad_edge(PAGE + 8);
	ASSERT_TRUE(s->dst && s->error && s->vec && s->handle && s->fd &&
		    s->payload);
	*s->dst = net->ab;
	*s->error = SENTINEL32;
	*s->vec = (struct iovec){ s->payload, PAGE + 8 };
	*s->handle = 0x1000;
	*s->fd = STDERR_FILENO;
	s->cmd = (struct bus1_cmd_send){
		.ptr_destinations = ptr(s->dst),
		.n_destinations = 1,
		.ptr_errors = ptr(s->error),
		.ptr_vecs = ptr(s->vec),
		.n_vecs = 1,
		.ptr_handles = ptr(s->handle),
		.n_handles = 1,
		.ptr_fds = ptr(s->fd),
		.n_fds = 1,
	};
}

/* Bytes alone to one node: the module has a way of its own for these. */
static void send_arrays_bytes(struct send_arrays *s)
{
	s->cmd.ptr_errors = 0;
	s->cmd.n_handles = 0;
	s->cmd.n_fds = 0;
}

#define SEND_BAD(_field, _value, _error)				\
	BAD(struct bus1_cmd_send, _field, _value, _error)

TEST_F(bad, send_flags)
{
	struct send_arrays s;

	send_arrays(_metadata, &self->net, &s);
	const struct bad_field fields[] = {
		SEND_BAD(flags, 2, -EINVAL),
		SEND_BAD(flags, 3, -EINVAL),
		SEND_BAD(flags, 4, -EINVAL),
		SEND_BAD(flags, 5, -EINVAL),
		SEND_BAD(flags, ONES, -EINVAL),
		SEND_BAD(flags, SIGN, -EINVAL),
	};
	TRY(self->net.a.fd, BUS1_CMD_SEND, &s.cmd, fields);
	EXPECT_EQ(SENTINEL32, *s.error);
}

TEST_F(bad, send_counts)
{
	struct send_arrays s;

	send_arrays(_metadata, &self->net, &s);
	const struct bad_field fields[] = {
		SEND_BAD(n_destinations, 2, -EFAULT),
		SEND_BAD(n_destinations, INT_MAX, -EINVAL),
		SEND_BAD(n_destinations, 1ULL << 31, -EMSGSIZE),
		SEND_BAD(n_destinations, 1ULL << 32, -EMSGSIZE),
		SEND_BAD(n_destinations, SIGN >> 2, -EMSGSIZE),
		SEND_BAD(n_destinations, SIGN, -EMSGSIZE),
		SEND_BAD(n_destinations, ONES, -EMSGSIZE),
		SEND_BAD(n_vecs, 2, -EFAULT),
		SEND_BAD(n_vecs, UIO_MAXIOV + 1, -EMSGSIZE),
		SEND_BAD(n_vecs, 1ULL << 32, -EMSGSIZE),
		SEND_BAD(n_vecs, SIGN, -EMSGSIZE),
		SEND_BAD(n_vecs, ONES, -EMSGSIZE),
		SEND_BAD(n_handles, 2, -EFAULT),
		SEND_BAD(n_handles, 1ULL << 32, -EMSGSIZE),
		SEND_BAD(n_handles, 1ULL << 40, -EMSGSIZE),
		SEND_BAD(n_handles, SIGN >> 2, -EMSGSIZE),
		SEND_BAD(n_handles, SIGN, -EMSGSIZE),
		SEND_BAD(n_handles, ONES, -EMSGSIZE),
		SEND_BAD(n_fds, 2, -EFAULT),
		SEND_BAD(n_fds, BUS1_FD_MAX + 1, -EMSGSIZE),
		SEND_BAD(n_fds, 1ULL << 32, -EMSGSIZE),
		SEND_BAD(n_fds, SIGN, -EMSGSIZE),
		SEND_BAD(n_fds, ONES, -EMSGSIZE),
	};
	TRY(self->net.a.fd, BUS1_CMD_SEND, &s.cmd, fields);
	EXPECT_EQ(SENTINEL32, *s.error);
}

TEST_F(bad, send_pointers)
{
	struct send_arrays s;

	send_arrays(_metadata, &self->net, &s);
	const struct bad_field fields[] = {
		BAD_POINTERS(struct bus1_cmd_send, ptr_destinations,
			     ptr(s.dst)),
		BAD_POINTERS(struct bus1_cmd_send, ptr_vecs, ptr(s.vec)),
		BAD_POINTERS(struct bus1_cmd_send, ptr_handles, ptr(s.handle)),
		BAD_POINTERS(struct bus1_cmd_send, ptr_fds, ptr(s.fd)),
	};
	TRY(self->net.a.fd, BUS1_CMD_SEND, &s.cmd, fields);
	EXPECT_EQ(SENTINEL32, *s.error);
}

TEST_F(bad, send_pointers_of_bytes)
{
	struct send_arrays s;

	send_arrays(_metadata, &self->net, &s);
	send_arrays_bytes(&s);
	const struct bad_field fields[] = {
		BAD_POINTERS(struct bus1_cmd_send, ptr_destinations,
			     ptr(s.dst)),
		BAD_POINTERS(struct bus1_cmd_send, ptr_vecs, ptr(s.vec)),
	};
	TRY(self->net.a.fd, BUS1_CMD_SEND, &s.cmd, fields);
}

TEST_F(bad, send_errors_pointer)
{
	struct send_arrays s;
	const __s32 zero = 0;

	send_arrays(_metadata, &self->net, &s);
	/* 0 is no mistake here: nobody wants to know */
	const struct bad_field fields[] = {
		SEND_BAD(ptr_errors, 1, -EFAULT),
		SEND_BAD(ptr_errors, ONES, -EFAULT),
		SEND_BAD(ptr_errors, SIGN, -EFAULT),
		SEND_BAD(ptr_errors, KERNEL_DATA, -EFAULT),
		SEND_BAD(ptr_errors, KERNEL_TEXT, -EFAULT),
		SEND_BAD(ptr_errors, ptr(self->none), -EFAULT),
		SEND_BAD(ptr_errors, ptr(bad_readonly(&zero, 4)), -EFAULT),
		SEND_BAD(ptr_errors, ptr(s.error) + 1, -EFAULT),
		SEND_BAD(ptr_errors, ptr(s.error) | SIGN, -EFAULT),
	};
	TRY(self->net.a.fd, BUS1_CMD_SEND, &s.cmd, fields);
}

static void try_send(struct __test_metadata *_metadata, struct net *net,
		     const struct net_state *before, struct send_arrays *s,
		     int error, int line)
{
	EXPECT_EQ(error, bus1_send(net->a.fd, &s->cmd)) {
		TH_LOG("called from line %d", line);
	}
	EXPECT_SAME(net, before);
}

#define TRY_SEND_TO(_net, _before, _error)				\
	try_send(_metadata, _net, _before, &s, _error, __LINE__)
#define TRY_SEND(_error)						\
	TRY_SEND_TO(&self->net, &self->before, _error)

TEST_F(bad, send_ids)
{
	const __u64 ids[] = { 1, 2, 3, ONES, SIGN | 1, KERNEL_DATA | 2 };
	struct send_arrays s;
	size_t i;

	send_arrays(_metadata, &self->net, &s);
	for (i = 0; i < ARRAY_SIZE(ids); i++) {
		*s.dst = ids[i];
		TRY_SEND(-ENXIO);
	}
	*s.dst = self->net.ab;
	for (i = 0; i < ARRAY_SIZE(ids); i++) {
		*s.handle = ids[i];
		TRY_SEND(-ENXIO);
	}
	EXPECT_EQ(SENTINEL32, *s.error);
}

TEST_F(bad, send_files)
{
	const int fds[] = { -1, -2, INT_MIN, INT_MAX, 1 << 30 };
	struct send_arrays s;
	size_t i;

	send_arrays(_metadata, &self->net, &s);
	for (i = 0; i < ARRAY_SIZE(fds); i++) {
		*s.fd = fds[i];
		TRY_SEND(-EBADF);
	}
	*s.fd = self->net.c.fd;
	TRY_SEND(-EOPNOTSUPP);
	EXPECT_EQ(SENTINEL32, *s.error);
}

static void try_payloads(struct __test_metadata *_metadata, struct net *net,
			 const struct net_state *before, void *none, bool bytes)
{
	const __u64 bases[] = { 0, 1, ONES, SIGN, KERNEL_DATA, KERNEL_TEXT };
	const size_t sizes[] = { SIZE_MAX, SIZE_MAX / 2, SIZE_MAX / 2 + 1,
				 MAX_RW + 1 };
	struct send_arrays s;
	size_t i;

	send_arrays(_metadata, net, &s);
	if (bytes)
		send_arrays_bytes(&s);
	/* cut off to 32 bits these are bad addresses, too */
	for (i = 0; i < ARRAY_SIZE(bases); i++) {
		s.vec->iov_base = (void *)(uintptr_t)bases[i];
		TRY_SEND_TO(net, before, -EFAULT);
	}
	s.vec->iov_base = none;
	TRY_SEND_TO(net, before, -EFAULT);
	/* more than a page is there, and the last byte is not */
	s.vec->iov_base = s.payload + 1;
	TRY_SEND_TO(net, before, -EFAULT);
	s.vec->iov_base = s.payload;
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		s.vec->iov_len = sizes[i];
		TRY_SEND_TO(net, before, -EMSGSIZE);
	}
}

TEST_F(bad, send_payload)
{
	try_payloads(_metadata, &self->net, &self->before, self->none, false);
}

TEST_F(bad, send_payload_of_bytes)
{
	try_payloads(_metadata, &self->net, &self->before, self->none, true);
}

TEST_F(bad, recv)
{
	struct bus1_cmd_recv good;

	bus1_recv_init(&good, BUS1_RECV_FLAG_INSTALL_FDS);
	const struct bad_field fields[] = {
		BAD(struct bus1_cmd_recv, flags, 8, -EINVAL),
		BAD(struct bus1_cmd_recv, flags, 15, -EINVAL),
		/* no slice starts where the sentinel says */
		BAD(struct bus1_cmd_recv, flags, 4, -ENXIO),
		BAD(struct bus1_cmd_recv, flags, 7, -ENXIO),
		BAD(struct bus1_cmd_recv, flags, ONES, -EINVAL),
		BAD(struct bus1_cmd_recv, flags, SIGN, -EINVAL),
		BAD(struct bus1_cmd_recv, max_offset, 0, -ERANGE),
		BAD(struct bus1_cmd_recv, max_offset, 1, -ERANGE),
		BAD(struct bus1_cmd_recv, max_offset, 7, -ERANGE),
		/* no seed */
		BAD(struct bus1_cmd_recv, flags, 1, -EAGAIN),
		BAD(struct bus1_cmd_recv, flags, 3, -EAGAIN),
	};

	ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ab, self, 8));
	peer_wait(self->net.b.fd);
	self->before = net_state(&self->net);
	TRY(self->net.b.fd, BUS1_CMD_RECV, &good, fields);
	RECV_DATA(&self->net.b, NODE_B, self, 8);
}

#define CALL_BAD(_field, _value, _error)				\
	BAD(struct bus1_cmd_send_recv, _field, _value, _error)

TEST_F(bad, send_recv)
{
	__u64 *slice = bad_edge(sizeof(*slice));
	struct bus1_msg *msg = bad_edge(sizeof(*msg));
	struct send_arrays s;

	ASSERT_TRUE(slice && msg);
	send_arrays(_metadata, &self->net, &s);
	memset(msg, 0xa5, sizeof(*msg));
	ASSERT_EQ(0, bus1_send_data(self->net.c.fd, 0x1000, self, 8));
	*slice = RECV(&self->net.c).msg.offset;
	*s.dst = TRANSFER(&self->net.b, NODE_B, &self->net.c);
	*s.handle = 0x2000;
	const struct bus1_cmd_send_recv good = SEND_RECV(
		.flags = BUS1_SEND_RECV_FLAG_SEND,
		.ptr_slices = ptr(slice), .n_slices = 1,
		.ptr_messages = ptr(msg), .n_messages = 1, .send = s.cmd);
	const struct bad_field fields[] = {
		CALL_BAD(flags, 4, -EINVAL),
		CALL_BAD(flags, 5, -EINVAL),
		CALL_BAD(flags, ONES, -EINVAL),
		CALL_BAD(flags, SIGN, -EINVAL),
		BAD_POINTERS(struct bus1_cmd_send_recv, ptr_slices, ptr(slice)),
		CALL_BAD(n_slices, 2, -EFAULT),
		CALL_BAD(n_slices, UIO_MAXIOV, -EFAULT),
		CALL_BAD(n_slices, UIO_MAXIOV + 1, -EMSGSIZE),
		CALL_BAD(n_slices, 1ULL << 32, -EMSGSIZE),
		CALL_BAD(n_slices, SIGN, -EMSGSIZE),
		CALL_BAD(n_slices, ONES, -EMSGSIZE),
		CALL_BAD(ptr_messages, ONES, -EFAULT),
		CALL_BAD(ptr_messages, SIGN, -EFAULT),
		CALL_BAD(ptr_messages, KERNEL_DATA, -EFAULT),
		CALL_BAD(ptr_messages, KERNEL_TEXT, -EFAULT),
		CALL_BAD(ptr_messages, ptr(msg) | SIGN, -EFAULT),
		CALL_BAD(ptr_messages, ptr(msg) | 1ULL << 62, -EFAULT),
		CALL_BAD(n_messages, UIO_MAXIOV + 1, -EMSGSIZE),
		CALL_BAD(n_messages, 1ULL << 32, -EMSGSIZE),
		CALL_BAD(n_messages, SIGN, -EMSGSIZE),
		CALL_BAD(n_messages, ONES, -EMSGSIZE),
		CALL_BAD(send.flags, 4, -EINVAL),
		CALL_BAD(send.flags, ONES, -EINVAL),
		CALL_BAD(send.n_destinations, 2, -EFAULT),
		CALL_BAD(send.n_destinations, ONES, -EMSGSIZE),
		CALL_BAD(send.n_vecs, UIO_MAXIOV + 1, -EMSGSIZE),
		CALL_BAD(send.n_handles, ONES, -EMSGSIZE),
		CALL_BAD(send.n_fds, BUS1_FD_MAX + 1, -EMSGSIZE),
		BAD_POINTERS(struct bus1_cmd_send_recv, send.ptr_destinations,
			     ptr(s.dst)),
		BAD_POINTERS(struct bus1_cmd_send_recv, send.ptr_vecs,
			     ptr(s.vec)),
	};

	self->before = net_state(&self->net);
	TRY(self->net.c.fd, BUS1_CMD_SEND_RECV, &good, fields);
	EXPECT_EQ(-EFAULT, bus1_ioctl(self->net.c.fd, BUS1_CMD_SEND_RECV,
				      bad_readonly(&good, sizeof(good))));
	EXPECT_SAME(&self->net, &self->before);
	EXPECT_EQ(SENTINEL, msg->type);
	EXPECT_EQ(0, bus1_slice_release(self->net.c.fd, *slice));
}

TEST_HARNESS_MAIN
