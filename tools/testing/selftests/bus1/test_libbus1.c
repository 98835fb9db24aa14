// SPDX-License-Identifier: GPL-2.0-only
/*
 * libbus1, over the device: every function, what it fails with, and that the kernel's
 * counters are 0 when objects are gone.
 */
/* The commands of bus1_cmd.h, where the library has functions of that name. */
#define bus1_handle_transfer raw_handle_transfer
#define bus1_node_destroy raw_node_destroy
#include "bus1_test.h"
#undef bus1_handle_transfer
#undef bus1_node_destroy

#include <bus1/bus1.h>
#include <dirent.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/wait.h>

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/lsan_interface.h>
#define lost_memory() __lsan_do_recoverable_leak_check()
#else
#define lost_memory() 0
#endif

#define SECOND	1000000000LL
#define MEMBERS	200

/*
 * Each ioctl() of this program and of the library comes here. Something can be done before
 * or after one of them, as another thread could, or it fails without being tried.
 */
static struct {
	unsigned long request;		/* 0: nothing is asked for */
	void (*before)(void *data);
	void (*after)(void *data);
	void *data;
	int error;
	int n_errors;			/* how often it fails */
} hook;

int __real_ioctl(int fd, unsigned long request, ...);
int __wrap_ioctl(int fd, unsigned long request, ...);

int __wrap_ioctl(int fd, unsigned long request, ...)
{
	void (*before)(void *data), (*after)(void *data);
	va_list args;
	void *arg;
	int r;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (!hook.request || hook.request != request)
		return __real_ioctl(fd, request, arg);
	if (hook.n_errors) {
		hook.n_errors--;
		if (hook.before)
			hook.before(hook.data);
		errno = hook.error;
		return -1;
	}
	/* Once. */
	hook.request = 0;
	before = hook.before;
	after = hook.after;
	if (before)
		before(hook.data);
	r = __real_ioctl(fd, request, arg);
	if (after)
		after(hook.data);
	return r;
}

/* There is no memory of that size. */
static size_t no_memory;

void *__real_malloc(size_t size);
void *__wrap_malloc(size_t size);

void *__wrap_malloc(size_t size)
{
	if (no_memory && size == no_memory) {
		errno = ENOMEM;
		return NULL;
	}
	return __real_malloc(size);
}

static int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	int n = 0;

	if (!dir)
		return -1;
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* What a handler was called with. */
struct log {
	int n;
	int result;
	enum bus1_type type[64];
	char data[64][32];
	uint64_t destination[64];
	struct bus1_node *node[64];
	struct bus1_message *keep;
	bool keeps;
};

static int record(struct bus1_message *m, void *userdata)
{
	struct log *log = userdata;
	int i = log->n++;
	const char *data;
	size_t size;

	if (i >= (int)ARRAY_SIZE(log->type))
		return log->result;
	log->type[i] = bus1_message_get_type(m);
	log->destination[i] = bus1_message_get_destination(m);
	log->node[i] = bus1_message_get_node(m);
	data = bus1_message_get_data(m, &size);
	memset(log->data[i], 0, sizeof(log->data[i]));
	memcpy(log->data[i], data,
	       size < sizeof(log->data[i]) ? size : sizeof(log->data[i]) - 1);
	if (log->keeps) {
		bus1_message_unref(log->keep);
		log->keep = bus1_message_ref(m);
	}
	return log->result;
}

FIXTURE(lib) {
	int n_fds;
	/* a has the handle @to of the node @node of b. */
	struct bus1_peer *a, *b;
	struct bus1_node *node;
	struct bus1_handle *to;
	struct log log;
};

FIXTURE_SETUP(lib)
{
	self->n_fds = count_fds();
	ASSERT_EQ(0, bus1_peer_new(&self->a));
	ASSERT_EQ(0, bus1_peer_new_path(BUS1_PATH, &self->b));
	ASSERT_EQ(0, bus1_node_new(self->b, BUS1_ID_AUTO, record, &self->log, &self->node));
	ASSERT_EQ(0, bus1_handle_transfer(bus1_node_get_handle(self->node), self->a,
					  &self->to));
}

static void t_clean(struct __test_metadata *_metadata, struct bus1_peer *peer, int line)
{
	EXPECT_EQ(0, bus1_peer_trim(peer));
	t_expect_idle(_metadata, bus1_peer_get_fd(peer), line);
}

#define EXPECT_CLEAN(_peer) t_clean(_metadata, _peer, __LINE__)

/* With its objects gone there is nothing in the kernel, before the peer goes. */
FIXTURE_TEARDOWN(lib)
{
	bool dead = bus1_peer_get_fd(self->b) < 0;

	bus1_message_unref(self->log.keep);
	EXPECT_EQ(NULL, bus1_handle_unref(self->to));
	EXPECT_EQ(NULL, bus1_node_unref(self->node));
	if (!dead && bus1_peer_trim(self->a) == 0 && bus1_peer_trim(self->b) == 0) {
		/* Nobody has lost a reference on the way. */
		while (bus1_peer_dispatch(self->a, 0) > 0)
			;
		while (bus1_peer_dispatch(self->b, 0) > 0)
			;
		EXPECT_CLEAN(self->a);
		EXPECT_CLEAN(self->b);
	}
	EXPECT_EQ(NULL, bus1_peer_unref(self->a));
	EXPECT_EQ(NULL, bus1_peer_unref(self->b));
	EXPECT_EQ(self->n_fds, count_fds());
	EXPECT_EQ(0, lost_memory());
}

static long long counter(struct bus1_peer *peer, const char *key)
{
	return bus1_fdinfo(bus1_peer_get_fd(peer), key);
}

/* A node of @from, and the handle of @to to it. */
static struct bus1_node *t_reach(struct __test_metadata *_metadata, struct bus1_peer *from,
				 struct bus1_peer *to, struct log *log,
				 struct bus1_handle **handle)
{
	struct bus1_node *node = NULL;

	ASSERT_EQ(0, bus1_node_new(from, BUS1_ID_AUTO, record, log, &node));
	ASSERT_EQ(0, bus1_handle_transfer(bus1_node_get_handle(node), to, handle));
	return node;
}

#define REACH(_from, _to, _log, _handle) t_reach(_metadata, _from, _to, _log, _handle)

/*
 * Errors
 */

TEST_F(lib, every_error_has_a_reason)
{
	static const struct {
		int command, error;
		const char *word;
	} known[] = {
		{ BUS1_COMMAND_OPEN, ENOENT, "not loaded" },
		{ BUS1_COMMAND_MMAP, EPERM, "reading" },
		{ BUS1_COMMAND_DISCONNECT, ESHUTDOWN, "already" },
		{ BUS1_COMMAND_QUERY, ENOTTY, "/dev/bus1" },
		{ BUS1_COMMAND_RESET, EINVAL, "INT_MAX" },
		{ BUS1_COMMAND_HANDLE_RELEASE, EBUSY, "pinned" },
		{ BUS1_COMMAND_HANDLE_TRANSFER, EDQUOT, "budget" },
		{ BUS1_COMMAND_NODES_DESTROY, EREMOTE, "another peer" },
		{ BUS1_COMMAND_SLICE_RELEASE, ENXIO, "offset" },
		{ BUS1_COMMAND_SEND, EXFULL, "pool" },
		{ BUS1_COMMAND_RECV, ERANGE, "mapped" },
		{ BUS1_COMMAND_CALL, ETIMEDOUT, "reply" },
		{ BUS1_COMMAND_CALL, EDQUOT, "budget" },
		{ BUS1_COMMAND_CALL, EMFILE, "descriptors" },
		{ BUS1_COMMAND_LIBRARY, ECHILD, "forked" },
	};
	const char *text;
	size_t i;
	int c;

	for (i = 0; i < ARRAY_SIZE(known); i++) {
		text = bus1_strerror(known[i].command, known[i].error);
		EXPECT_NE(NULL, strstr(text, known[i].word)) {
			TH_LOG("%zu: %s", i, text);
		}
		EXPECT_EQ(text, bus1_strerror(known[i].command, -known[i].error));
	}
	for (c = -1; c <= BUS1_COMMAND_LIBRARY + 1; c++) {
		EXPECT_EQ(0, strcmp("success", bus1_strerror(c, 0)));
		EXPECT_NE(NULL, strstr(bus1_strerror(c, 9999), "does not know"));
		EXPECT_NE(NULL, strstr(bus1_strerror(c, INT_MIN), "does not know"));
		EXPECT_NE(NULL, bus1_strerror(c, EFAULT));
	}
	EXPECT_EQ(3, sscanf(bus1_version(), "%d.%d.%d", &c, &c, &c));
}

static void *other_reason(void *arg)
{
	*(const char **)arg = bus1_last_reason();
	return NULL;
}

TEST_F(lib, the_last_reason_is_that_of_the_thread)
{
	const char *reason, *other = NULL;
	struct bus1_message *m = NULL;
	struct bus1_limits limits;
	pthread_t thread;

	EXPECT_EQ(-EAGAIN, bus1_peer_recv(self->a, 0, &m));
	EXPECT_EQ(NULL, m);
	reason = bus1_last_reason();
	EXPECT_EQ(0, strcmp("there is no message", reason));
	/* What succeeds leaves it. */
	EXPECT_EQ(0, bus1_peer_get_limits(self->a, &limits));
	EXPECT_EQ(reason, bus1_last_reason());
	ASSERT_EQ(0, pthread_create(&thread, NULL, other_reason, &other));
	pthread_join(thread, NULL);
	EXPECT_EQ(0, strcmp("", other));
}

/*
 * Peers
 */

TEST_F(lib, what_is_no_bus1_device_is_no_peer)
{
	struct bus1_peer *peer = NULL;
	int fd;

	EXPECT_EQ(-ENOENT, bus1_peer_new_path("/dev/no-such-device", &peer));
	EXPECT_NE(NULL, strstr(bus1_last_reason(), "not loaded"));
	EXPECT_EQ(-ENOTTY, bus1_peer_new_path("/dev/null", &peer));
	EXPECT_EQ(-EBADF, bus1_peer_new_fd(-1, &peer));
	fd = open("/dev/null", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, fd);
	EXPECT_EQ(-ENOTTY, bus1_peer_new_fd(fd, &peer));
	/* It is still the caller's. */
	EXPECT_EQ(0, close(fd));
	fd = bus1_open(0);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, bus1_disconnect(fd));
	EXPECT_EQ(-ESHUTDOWN, bus1_peer_new_fd(fd, &peer));
	EXPECT_EQ(0, close(fd));
	EXPECT_EQ(NULL, peer);
}

TEST_F(lib, a_descriptor_becomes_a_peer_and_is_taken_away)
{
	struct bus1_message *m;
	struct bus1_limits limits;
	struct bus1_handle *h;
	struct bus1_node *node;
	struct bus1_peer *peer;
	struct log log = {};
	int fd = bus1_open(O_NONBLOCK);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, bus1_peer_new_fd(fd, &peer));
	EXPECT_EQ(fd, bus1_peer_get_fd(peer));
	EXPECT_EQ(FD_CLOEXEC, fcntl(fd, F_GETFD));
	node = REACH(peer, self->a, &log, &h);
	EXPECT_LE(0, bus1_peer_get_poll_fd(peer));
	EXPECT_EQ(1, bus1_handle_send(h, "x", 1));
	ASSERT_EQ(0, bus1_peer_recv(peer, -1, &m));

	EXPECT_EQ(fd, bus1_peer_steal_fd(peer));
	EXPECT_EQ(-EBADF, bus1_peer_steal_fd(peer));
	EXPECT_EQ(-EBADF, bus1_peer_get_fd(peer));
	EXPECT_EQ(-EBADF, bus1_peer_get_poll_fd(peer));
	EXPECT_EQ(-EBADF, bus1_peer_dispatch(peer, 0));
	EXPECT_EQ(-EBADF, bus1_peer_flush(peer, BUS1_FLUSH_ALL));
	EXPECT_EQ(-EBADF, bus1_peer_trim(peer));
	EXPECT_EQ(-EBADF, bus1_peer_disconnect(peer));
	EXPECT_EQ(-EBADF, bus1_peer_get_limits(peer, &limits));
	EXPECT_EQ(-EBADF, bus1_peer_recv_seed(peer, &m));
	EXPECT_EQ(-EBADF, bus1_node_destroy(node));
	EXPECT_NE(NULL, strstr(bus1_last_reason(), "taken away"));
	bus1_message_unref(m);
	bus1_node_unref(node);
	bus1_peer_unref(peer);

	/* The node lives on, and so does what is queued. */
	EXPECT_EQ(1, bus1_handle_send(h, "y", 1));
	EXPECT_EQ(1, bus1_fdinfo(fd, "bus1-queue"));
	EXPECT_EQ(0, log.n);
	bus1_handle_unref(h);
	ASSERT_EQ(0, bus1_peer_new_fd(fd, &peer));
	EXPECT_EQ(0, bus1_peer_flush(peer, BUS1_FLUSH_ALL | BUS1_FLUSH_SEED));
	EXPECT_CLEAN(peer);
	bus1_peer_unref(peer);
	EXPECT_EQ(-1, fcntl(fd, F_GETFD));
	/* a was told. */
	EXPECT_EQ(0, bus1_peer_dispatch(self->a, 0));
}

TEST_F(lib, limits_are_set_and_read)
{
	struct bus1_limits limits = {
		.slices = 7, .handles = BUS1_LIMIT_KEEP, .bytes = 4096, .fds = 0,
	}, before, after;

	ASSERT_EQ(0, bus1_peer_get_limits(self->b, &before));
	EXPECT_LT(0, before.slices);
	ASSERT_EQ(0, bus1_peer_set_limits(self->b, &limits));
	ASSERT_EQ(0, bus1_peer_get_limits(self->b, &after));
	EXPECT_EQ(7, after.slices);
	EXPECT_EQ(before.handles, after.handles);
	EXPECT_EQ(4096, after.bytes);
	EXPECT_EQ(0, after.fds);
	limits.slices = (uint32_t)INT_MAX + 1;
	EXPECT_EQ(-EINVAL, bus1_peer_set_limits(self->b, &limits));
	EXPECT_NE(NULL, strstr(bus1_last_reason(), "INT_MAX"));
	EXPECT_EQ(-EINVAL, bus1_peer_flush(self->b, 4));
}

TEST_F(lib, after_a_disconnect_nothing_works_and_all_can_go)
{
	struct bus1_message *m;
	struct bus1_limits limits;
	struct bus1_builder *builder;
	struct bus1_handle *h;
	int fds[2];

	ASSERT_EQ(0, pipe(fds));
	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	ASSERT_EQ(0, bus1_builder_add_destination(builder, self->to));
	ASSERT_EQ(0, bus1_builder_add_fd(builder, fds[0]));
	ASSERT_EQ(0, bus1_builder_add_handle(builder, self->to));
	ASSERT_EQ(1, bus1_builder_send(builder, 0));
	ASSERT_EQ(1, bus1_builder_send(builder, 0));
	ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m));
	EXPECT_EQ(0, bus1_peer_disconnect(self->b));
	EXPECT_EQ(-ESHUTDOWN, bus1_peer_disconnect(self->b));
	EXPECT_NE(NULL, strstr(bus1_last_reason(), "already"));
	EXPECT_EQ(-ESHUTDOWN, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(-ESHUTDOWN, bus1_peer_get_limits(self->b, &limits));
	EXPECT_EQ(-ESHUTDOWN, bus1_handle_send(bus1_node_get_handle(self->node), "x", 1));
	EXPECT_EQ(-EHOSTUNREACH, bus1_builder_send(builder, 0));
	EXPECT_EQ(-EHOSTUNREACH, bus1_builder_get_error(builder, 0));
	EXPECT_EQ(-EHOSTUNREACH, bus1_handle_transfer(self->to, self->a, &h));
	EXPECT_EQ(-ESHUTDOWN, bus1_handle_transfer(self->to, self->b, &h));
	bus1_message_unref(m);
	bus1_builder_unref(builder);
	close(fds[0]);
	close(fds[1]);
}

/*
 * Messages
 */

TEST_F(lib, bytes_arrive_where_they_are_read)
{
	struct bus1_message *m;
	struct bus1_builder *builder;
	struct iovec iov[] = { { "bus", 3 }, { "one", 3 } };
	const char *data;
	size_t size;

	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	EXPECT_EQ(builder, bus1_builder_ref(builder));
	EXPECT_EQ(NULL, bus1_builder_unref(builder));
	EXPECT_EQ(0, bus1_builder_add_data(builder, "1234", 4));
	EXPECT_EQ(0, bus1_builder_add_iov(builder, iov, 2));
	EXPECT_EQ(0, bus1_builder_add_iov(builder, NULL, 0));
	EXPECT_EQ(0, bus1_builder_add_destination(builder, self->to));
	EXPECT_EQ(1, bus1_builder_get_n_destinations(builder));
	EXPECT_EQ(-ENODATA, bus1_builder_get_error(builder, 0));
	EXPECT_EQ(-ERANGE, bus1_builder_get_error(builder, 1));
	EXPECT_EQ(1, bus1_builder_send(builder, 0));
	EXPECT_EQ(0, bus1_builder_get_error(builder, 0));

	ASSERT_EQ(0, bus1_peer_recv(self->b, SECOND, &m));
	EXPECT_EQ(BUS1_TYPE_DATA, bus1_message_get_type(m));
	EXPECT_EQ(self->b, bus1_message_get_peer(m));
	EXPECT_EQ(self->node, bus1_message_get_node(m));
	EXPECT_EQ(bus1_node_get_id(self->node), bus1_message_get_destination(m));
	EXPECT_FALSE(bus1_message_is_continued(m));
	EXPECT_EQ(0, bus1_message_get_n_handles(m));
	EXPECT_EQ(0, bus1_message_get_n_fds(m));
	data = bus1_message_get_data(m, &size);
	ASSERT_EQ(10, size);
	EXPECT_EQ(0, (uintptr_t)data % 8);
	EXPECT_EQ(0, memcmp("1234busone", data, 10));
	EXPECT_EQ(data, bus1_message_get_data(m, NULL));

	EXPECT_EQ(data, bus1_message_read(m, 4));
	EXPECT_EQ(NULL, bus1_message_read(m, 7));
	EXPECT_EQ(NULL, bus1_message_read(m, SIZE_MAX));
	EXPECT_EQ(data + 4, bus1_message_read(m, 6));
	EXPECT_EQ(data + 10, bus1_message_read(m, 0));
	EXPECT_EQ(NULL, bus1_message_read(m, 1));
	bus1_message_rewind(m);
	EXPECT_EQ(data, bus1_message_read(m, 10));

	EXPECT_EQ(m, bus1_message_ref(m));
	EXPECT_EQ(NULL, bus1_message_unref(m));
	EXPECT_EQ(1, counter(self->b, "bus1-slices"));
	EXPECT_EQ(0, bus1_message_dispatch(m));
	EXPECT_EQ(1, self->log.n);
	EXPECT_EQ(0, strcmp("1234busone", self->log.data[0]));
	EXPECT_EQ(NULL, bus1_message_unref(m));

	/* Again, with something else. */
	bus1_builder_clear_destinations(builder);
	EXPECT_EQ(0, bus1_builder_get_n_destinations(builder));
	EXPECT_EQ(0, bus1_builder_send(builder, 0));
	bus1_builder_reset(builder);
	EXPECT_EQ(0, bus1_builder_add_destination(builder, self->to));
	EXPECT_EQ(1, bus1_builder_send(builder, 0));
	ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m));
	bus1_message_get_data(m, &size);
	EXPECT_EQ(0, size);
	bus1_message_unref(m);
	bus1_builder_unref(builder);
}

TEST_F(lib, what_cannot_be_sent_is_refused_with_a_reason)
{
	struct bus1_builder *builder;
	struct iovec iov[1025];
	int i;

	for (i = 0; i < 1025; i++)
		iov[i] = (struct iovec){ "x", 1 };
	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	EXPECT_EQ(-EMSGSIZE, bus1_builder_add_iov(builder, iov, 1025));
	EXPECT_EQ(0, bus1_builder_add_iov(builder, iov, 1024));
	EXPECT_EQ(-EMSGSIZE, bus1_builder_add_data(builder, "x", 1));
	EXPECT_NE(NULL, strstr(bus1_last_reason(), "1024 pieces"));
	bus1_builder_reset(builder);

	EXPECT_EQ(-EBADF, bus1_builder_add_fd(builder, -1));
	for (i = 0; i < BUS1_FD_MAX; i++)
		EXPECT_EQ(0, bus1_builder_add_fd(builder, 12345));
	EXPECT_EQ(-EMSGSIZE, bus1_builder_add_fd(builder, 0));
	EXPECT_EQ(0, bus1_builder_add_destination(builder, self->to));
	EXPECT_EQ(-EBADF, bus1_builder_send(builder, 0));
	EXPECT_NE(NULL, strstr(bus1_last_reason(), "file"));
	EXPECT_EQ(-ENODATA, bus1_builder_get_error(builder, 0));
	bus1_builder_reset(builder);
	EXPECT_EQ(0, bus1_builder_add_fd(builder, bus1_peer_get_fd(self->a)));
	EXPECT_EQ(-EOPNOTSUPP, bus1_builder_send(builder, 0));
	bus1_builder_reset(builder);

	EXPECT_EQ(-EXDEV, bus1_builder_add_handle(builder, bus1_node_get_handle(self->node)));
	EXPECT_EQ(-EXDEV, bus1_builder_add_destination(builder,
						       bus1_node_get_handle(self->node)));
	EXPECT_EQ(0, bus1_builder_add_destination(builder, self->to));
	EXPECT_EQ(0, bus1_builder_add_destination(builder, self->to));
	EXPECT_EQ(-ENOTUNIQ, bus1_builder_send(builder, 0));
	EXPECT_EQ(-EINVAL, bus1_builder_send(builder, 2));
	EXPECT_EQ(-EINVAL, bus1_builder_send_seed(builder));
	EXPECT_EQ(-EINVAL, bus1_builder_call(builder, 0, NULL));
	bus1_builder_reset(builder);
	EXPECT_EQ(0, bus1_builder_add_destination(builder, self->to));
	/* Never read by the library. */
	EXPECT_EQ(0, bus1_builder_add_data(builder, (void *)(uintptr_t)BAD_PTR, 1));
	EXPECT_EQ(-EFAULT, bus1_builder_send(builder, 0));
	EXPECT_EQ(-EFAULT, bus1_handle_send(self->to, (void *)(uintptr_t)BAD_PTR, 1));
	bus1_builder_unref(builder);
}

TEST_F(lib, many_receivers_and_what_came_of_each)
{
	struct bus1_peer *peers[MEMBERS];
	struct bus1_handle *handles[MEMBERS];
	struct bus1_node *nodes[MEMBERS];
	struct bus1_limits limits = { BUS1_LIMIT_KEEP, BUS1_LIMIT_KEEP, 0, BUS1_LIMIT_KEEP };
	struct bus1_builder *builder;
	struct log log = {};
	int i;

	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	for (i = 0; i < MEMBERS; i++) {
		ASSERT_EQ(0, bus1_peer_new(&peers[i]));
		nodes[i] = REACH(peers[i], self->a, &log, &handles[i]);
		ASSERT_EQ(0, bus1_builder_add_destination(builder, handles[i]));
	}
	EXPECT_EQ(MEMBERS, bus1_builder_get_n_destinations(builder));
	EXPECT_EQ(0, bus1_builder_add_data(builder, "all", 3));
	EXPECT_EQ(MEMBERS, bus1_builder_send(builder, 0));
	for (i = 0; i < MEMBERS; i++) {
		EXPECT_EQ(0, bus1_builder_get_error(builder, i));
		EXPECT_EQ(1, bus1_peer_dispatch(peers[i], 0));
	}
	EXPECT_EQ(MEMBERS, log.n);

	/* One is destroyed, another takes nothing. */
	EXPECT_EQ(0, bus1_node_destroy(nodes[3]));
	EXPECT_EQ(0, bus1_peer_set_limits(peers[5], &limits));
	EXPECT_EQ(-EHOSTUNREACH, bus1_builder_send(builder, 0));
	EXPECT_EQ(-EHOSTUNREACH, bus1_builder_get_error(builder, 3));
	EXPECT_EQ(-EDQUOT, bus1_builder_get_error(builder, 5));
	EXPECT_EQ(MEMBERS - 2, bus1_builder_send(builder, BUS1_SEND_SKIP));
	for (i = 0; i < MEMBERS; i++) {
		EXPECT_EQ(i == 3 ? -EHOSTUNREACH : i == 5 ? -EDQUOT : 0,
			  bus1_builder_get_error(builder, i));
		EXPECT_EQ(i != 3 && i != 5, bus1_peer_dispatch(peers[i], 0));
	}
	EXPECT_EQ(2 * MEMBERS - 2, log.n);

	bus1_builder_unref(builder);
	for (i = 0; i < MEMBERS; i++) {
		bus1_handle_unref(handles[i]);
		bus1_node_unref(nodes[i]);
		EXPECT_LE(0, bus1_peer_dispatch(peers[i], 0));
		EXPECT_CLEAN(peers[i]);
		bus1_peer_unref(peers[i]);
	}
}

TEST_F(lib, one_message_to_two_nodes_is_continued)
{
	struct bus1_builder *builder;
	struct bus1_handle *second;
	struct bus1_message *m;
	struct bus1_node *node;

	node = REACH(self->b, self->a, &self->log, &second);
	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	EXPECT_EQ(0, bus1_builder_add_destination(builder, self->to));
	EXPECT_EQ(0, bus1_builder_add_destination(builder, second));
	EXPECT_EQ(2, bus1_builder_send(builder, 0));
	ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m));
	EXPECT_TRUE(bus1_message_is_continued(m));
	bus1_message_unref(m);
	ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m));
	EXPECT_FALSE(bus1_message_is_continued(m));
	bus1_message_unref(m);
	bus1_builder_unref(builder);
	bus1_handle_unref(second);
	bus1_node_unref(node);
}

TEST_F(lib, the_pool_is_mapped_as_it_grows)
{
	static const size_t sizes[] = { 100, 3 << 20, 4 << 20, 100 };
	struct bus1_message *m[ARRAY_SIZE(sizes)];
	unsigned char *bytes;
	const unsigned char *data;
	size_t i, j, size;

	bytes = malloc(4 << 20);
	ASSERT_NE(NULL, bytes);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		memset(bytes, 'a' + i, sizes[i]);
		ASSERT_EQ(1, bus1_handle_send(self->to, bytes, sizes[i]));
	}
	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m[i]));
	/* The first ones stay where they were. */
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		data = bus1_message_get_data(m[i], &size);
		ASSERT_EQ(sizes[i], size);
		for (j = 0; j < size; j += 4096 - 7)
			ASSERT_EQ('a' + i, data[j]);
	}
	for (i = 0; i < ARRAY_SIZE(sizes); i++)
		bus1_message_unref(m[i]);
	free(bytes);
	/* What is large is given back at once, and the small ones along with it. */
	EXPECT_EQ(1, counter(self->b, "bus1-slices"));
}

/* How much this process has of it. */
static rlim_t address_space(void)
{
	unsigned long pages = 0;
	FILE *f = fopen("/proc/self/statm", "re");

	if (!f)
		return 0;
	if (fscanf(f, "%lu", &pages) != 1)
		pages = 0;
	fclose(f);
	return (rlim_t)pages * page_size();
}

TEST_F(lib, without_address_space_no_message_is_lost)
{
	struct rlimit none, before;
	struct bus1_message *m = NULL;
	char *bytes;
	size_t size;

	bytes = calloc(1, 3 << 20);
	ASSERT_NE(NULL, bytes);
	ASSERT_EQ(1, bus1_handle_send(self->to, bytes, 3 << 20));
	free(bytes);
	ASSERT_EQ(0, getrlimit(RLIMIT_AS, &before));
	/* Enough for all but another mapping of the pool. */
	none = before;
	none.rlim_cur = address_space() + (512 << 10);
	ASSERT_EQ(0, setrlimit(RLIMIT_AS, &none));
	EXPECT_EQ(-ERANGE, bus1_peer_recv(self->b, -1, &m));
	EXPECT_EQ(-ERANGE, bus1_peer_dispatch(self->b, 0));
	ASSERT_EQ(0, setrlimit(RLIMIT_AS, &before));
	EXPECT_NE(NULL, strstr(bus1_last_reason(), "beyond"));
	EXPECT_EQ(NULL, m);
	ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m));
	bus1_message_get_data(m, &size);
	EXPECT_EQ(3 << 20, size);
	bus1_message_unref(m);
}

TEST_F(lib, slices_of_small_messages_wait_for_the_next_command)
{
	int i;

	for (i = 0; i < 40; i++) {
		EXPECT_EQ(1, bus1_handle_send(self->to, "x", 1));
		EXPECT_EQ(1, bus1_peer_dispatch(self->b, 1));
		EXPECT_GE(16, counter(self->b, "bus1-slices"));
	}
	EXPECT_EQ(40, self->log.n);
	EXPECT_EQ(0, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(0, counter(self->b, "bus1-slices"));
	EXPECT_EQ(1, bus1_handle_send(self->to, "x", 1));
	EXPECT_EQ(1, bus1_peer_dispatch(self->b, 1));
	EXPECT_EQ(1, counter(self->b, "bus1-slices"));
	EXPECT_EQ(0, bus1_peer_trim(self->b));
	EXPECT_EQ(0, counter(self->b, "bus1-slices"));
	EXPECT_EQ(0, bus1_peer_trim(self->b));
}

TEST_F(lib, a_slice_that_somebody_else_released_does_not_matter)
{
	struct bus1_message *m;
	int fd = bus1_peer_get_fd(self->b);
	uint64_t at;

	ASSERT_EQ(1, bus1_handle_send(self->to, "x", 1));
	ASSERT_EQ(1, bus1_handle_send(self->to, "y", 1));
	ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m));
	for (at = 0; at < 4096 && bus1_slice_release(fd, at); at += 8)
		;
	ASSERT_GT(4096, at);
	bus1_message_unref(m);
	ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m));
	EXPECT_EQ('y', *(char *)bus1_message_get_data(m, NULL));
	bus1_message_unref(m);
}

/*
 * Handles
 */

TEST_F(lib, each_handle_is_one_reference_in_the_kernel)
{
	struct bus1_handle *h[3], *same;
	struct bus1_builder *builder;
	struct bus1_message *m;
	uint64_t id;
	int i, n;

	/* The same handle, three times in a message, in ten messages. */
	ASSERT_EQ(0, bus1_builder_new(self->b, &builder));
	ASSERT_EQ(0, bus1_handle_transfer(self->to, self->a, &same));
	EXPECT_EQ(self->to, same);
	bus1_handle_unref(same);
	bus1_builder_unref(builder);

	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	ASSERT_EQ(0, bus1_handle_transfer(self->to, self->a, &h[0]));
	bus1_handle_unref(h[0]);
	for (i = 0; i < 3; i++)
		EXPECT_EQ(0, bus1_builder_add_handle(builder, self->to));
	EXPECT_EQ(0, bus1_builder_add_destination(builder, self->to));
	for (n = 0; n < 10; n++) {
		EXPECT_EQ(1, bus1_builder_send(builder, 0));
		ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m));
		ASSERT_EQ(3, bus1_message_get_n_handles(m));
		for (i = 0; i < 3; i++) {
			ASSERT_EQ(0, bus1_message_get_handle(m, i, &h[i]));
			/* It is the owner's own. */
			EXPECT_EQ(bus1_node_get_handle(self->node), h[i]);
		}
		EXPECT_EQ(0, bus1_message_get_handle(m, 0, &same));
		EXPECT_EQ(h[0], same);
		EXPECT_EQ(-ERANGE, bus1_message_get_handle(m, 3, &same));
		for (i = 0; i < 3; i++)
			bus1_handle_unref(h[i]);
		bus1_handle_unref(same);
		bus1_message_unref(m);
	}
	bus1_builder_unref(builder);

	/* No more than the pinned one is left, and one of a. */
	id = bus1_node_get_id(self->node);
	EXPECT_EQ(-EBUSY, bus1_handle_release(bus1_peer_get_fd(self->b), id));
	id = bus1_handle_get_id(self->to);
	EXPECT_EQ(0, bus1_handle_release(bus1_peer_get_fd(self->a), id));
	EXPECT_EQ(-ENXIO, bus1_handle_release(bus1_peer_get_fd(self->a), id));
	EXPECT_EQ(0, counter(self->a, "bus1-handles"));
	/* What fails for that reason in the library harms nothing. */
	EXPECT_EQ(-ENXIO, bus1_handle_send(self->to, "x", 1));
}

TEST_F(lib, remote_handles_come_and_go)
{
	struct bus1_handle *third, *h, *again;
	struct bus1_builder *builder;
	struct bus1_message *m;
	struct bus1_node *node;
	struct bus1_peer *c;
	struct log log = {};
	int n;

	ASSERT_EQ(0, bus1_peer_new(&c));
	node = REACH(c, self->a, &log, &third);
	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	EXPECT_EQ(0, bus1_builder_add_handle(builder, third));
	EXPECT_EQ(0, bus1_builder_add_handle(builder, third));
	EXPECT_EQ(0, bus1_builder_add_destination(builder, self->to));
	for (n = 0; n < 5; n++) {
		EXPECT_EQ(1, bus1_builder_send(builder, 0));
		ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m));
		/* Not asked for: gone with the message. */
		if (n == 0) {
			EXPECT_EQ(2, counter(self->b, "bus1-handles"));
			bus1_message_unref(m);
			EXPECT_EQ(1, counter(self->b, "bus1-handles"));
			continue;
		}
		ASSERT_EQ(0, bus1_message_get_handle(m, 1, &h));
		EXPECT_EQ(self->b, bus1_handle_get_peer(h));
		ASSERT_EQ(0, bus1_message_get_handle(m, 0, &again));
		EXPECT_EQ(h, again);
		EXPECT_EQ(h, bus1_handle_ref(h));
		bus1_handle_unref(again);
		bus1_message_unref(m);
		/* It outlives the message, and works. */
		EXPECT_EQ(1, bus1_handle_send(h, "hi", 2));
		EXPECT_EQ(1, bus1_peer_dispatch(c, 0));
		bus1_handle_unref(h);
		EXPECT_EQ(2, counter(self->b, "bus1-handles"));
		bus1_handle_unref(h);
		EXPECT_EQ(1, counter(self->b, "bus1-handles"));
	}
	EXPECT_EQ(4, log.n);
	bus1_builder_unref(builder);
	bus1_handle_unref(third);
	/* With all of them gone the owner is told. */
	EXPECT_EQ(1, bus1_peer_dispatch(c, 0));
	EXPECT_EQ(BUS1_TYPE_NODE_RELEASE, log.type[4]);
	EXPECT_EQ(node, log.node[4]);
	EXPECT_EQ(0, bus1_node_destroy(node));
	bus1_node_unref(node);
	EXPECT_CLEAN(c);
	bus1_peer_unref(c);
}

TEST_F(lib, many_handles_are_found_again)
{
	static struct bus1_handle *handles[1000];
	struct bus1_builder *builder;
	struct bus1_message *m;
	struct bus1_handle *h;
	struct bus1_node *nodes[1000];
	struct log log = {};
	int i;

	ASSERT_EQ(0, bus1_builder_new(self->b, &builder));
	for (i = 0; i < 1000; i++)
		nodes[i] = REACH(self->b, self->a, &log, &handles[i]);
	bus1_builder_unref(builder);
	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	for (i = 0; i < 1000; i++)
		EXPECT_EQ(0, bus1_builder_add_handle(builder, handles[i]));
	EXPECT_EQ(0, bus1_builder_add_destination(builder, self->to));
	EXPECT_EQ(1, bus1_builder_send(builder, 0));
	ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m));
	for (i = 0; i < 1000; i++) {
		ASSERT_EQ(0, bus1_message_get_handle(m, i, &h));
		EXPECT_EQ(bus1_node_get_handle(nodes[i]), h);
		bus1_handle_unref(h);
	}
	bus1_message_unref(m);
	bus1_builder_unref(builder);
	for (i = 0; i < 1000; i++)
		bus1_handle_unref(handles[i]);
	EXPECT_EQ(1, counter(self->a, "bus1-handles"));
	/* All of them at once; some are of no use. */
	EXPECT_EQ(0, bus1_nodes_destroy_all(nodes, 1000));
	EXPECT_EQ(1, counter(self->b, "bus1-handles"));
	for (i = 0; i < 1000; i++)
		bus1_node_unref(nodes[i]);
}

TEST_F(lib, a_handle_of_another_process)
{
	struct bus1_handle *h, *again;
	struct bus1_peer *other;
	int fd = bus1_open(0);
	uint64_t id = 0;

	ASSERT_LE(0, fd);
	EXPECT_EQ(-EBADF, bus1_handle_transfer_fd(self->to, -1, &id));
	EXPECT_EQ(-EOPNOTSUPP, bus1_handle_transfer_fd(self->to, STDERR_FILENO, &id));
	EXPECT_EQ(0, id);
	ASSERT_EQ(0, bus1_handle_transfer_fd(self->to, fd, &id));
	ASSERT_EQ(0, bus1_peer_new_fd(fd, &other));
	EXPECT_EQ(-EINVAL, bus1_handle_new(other, BUS1_HANDLE_INVALID, &h));
	ASSERT_EQ(0, bus1_handle_new(other, id, &h));
	EXPECT_EQ(id, bus1_handle_get_id(h));
	EXPECT_EQ(1, bus1_handle_send(h, "other", 5));
	/* A second one. */
	ASSERT_EQ(0, bus1_handle_transfer_fd(self->to, fd, &id));
	ASSERT_EQ(0, bus1_handle_new(other, id, &again));
	EXPECT_EQ(h, again);
	bus1_handle_unref(again);
	bus1_handle_unref(h);
	EXPECT_CLEAN(other);
	bus1_peer_unref(other);
	EXPECT_EQ(1, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(0, strcmp("other", self->log.data[0]));
}

TEST_F(lib, holders_are_told_of_a_destruction_once)
{
	struct bus1_builder *builder;
	struct bus1_message *m;
	struct bus1_handle *h;
	struct log log = {}, rest = {};

	bus1_handle_set_handler(self->to, record, &log);
	bus1_peer_set_handler(self->a, record, &rest);
	EXPECT_FALSE(bus1_handle_is_destroyed(self->to));
	/* What is queued when it is destroyed is not handled. */
	EXPECT_EQ(1, bus1_handle_send(self->to, "late", 4));
	EXPECT_EQ(0, bus1_node_destroy(self->node));
	EXPECT_EQ(-ESTALE, bus1_node_destroy(self->node));
	EXPECT_EQ(0, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(0, self->log.n);
	EXPECT_TRUE(bus1_handle_is_destroyed(bus1_node_get_handle(self->node)));
	/* Nor does it come back. */
	EXPECT_EQ(-ESTALE, bus1_handle_send(bus1_node_get_handle(self->node), "x", 1));
	EXPECT_EQ(-ESTALE, bus1_handle_transfer(bus1_node_get_handle(self->node), self->a, &h));

	EXPECT_EQ(1, bus1_peer_dispatch(self->a, 0));
	EXPECT_EQ(1, log.n);
	EXPECT_EQ(0, rest.n);
	EXPECT_EQ(BUS1_TYPE_NODE_DESTROY, log.type[0]);
	EXPECT_EQ(bus1_handle_get_id(self->to), log.destination[0]);
	EXPECT_EQ(NULL, log.node[0]);
	EXPECT_TRUE(bus1_handle_is_destroyed(self->to));
	EXPECT_EQ(-EHOSTUNREACH, bus1_handle_send(self->to, "x", 1));
	EXPECT_NE(NULL, strstr(bus1_last_reason(), "destroyed"));
	EXPECT_EQ(-EHOSTUNREACH, bus1_handle_transfer(self->to, self->a, &h));

	/* In a message it is none. */
	struct bus1_node *node = REACH(self->b, self->a, &self->log, &h);

	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	EXPECT_EQ(0, bus1_builder_add_handle(builder, self->to));
	EXPECT_EQ(0, bus1_builder_add_destination(builder, h));
	EXPECT_EQ(1, bus1_builder_send(builder, 0));
	bus1_handle_unref(h);
	ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m));
	ASSERT_EQ(1, bus1_message_get_n_handles(m));
	h = NULL;
	EXPECT_EQ(-EHOSTUNREACH, bus1_message_get_handle(m, 0, &h));
	EXPECT_EQ(-EHOSTUNREACH, bus1_message_get_reply_handle(m, &h));
	EXPECT_EQ(NULL, h);
	bus1_message_unref(m);
	bus1_builder_unref(builder);
	bus1_node_unref(node);
}

/*
 * Nodes
 */

TEST_F(lib, ids_of_nodes)
{
	struct bus1_node *one, *two = NULL;

	EXPECT_EQ(-EINVAL, bus1_node_new(self->b, 0x1001, NULL, NULL, &two));
	EXPECT_EQ(-EINVAL, bus1_node_new(self->b, 0x1002, NULL, NULL, &two));
	ASSERT_EQ(0, bus1_node_new(self->b, 0x1000, NULL, &self->log, &one));
	EXPECT_EQ(0x1000, bus1_node_get_id(one));
	EXPECT_EQ(0x1000, bus1_handle_get_id(bus1_node_get_handle(one)));
	EXPECT_EQ(self->b, bus1_node_get_peer(one));
	EXPECT_EQ(&self->log, bus1_node_get_userdata(one));
	EXPECT_EQ(-EEXIST, bus1_node_new(self->b, 0x1000, NULL, NULL, &two));
	EXPECT_EQ(NULL, two);
	EXPECT_EQ(one, bus1_node_ref(one));
	EXPECT_EQ(NULL, bus1_node_unref(one));
	EXPECT_EQ(0, bus1_node_destroy(one));
	bus1_node_unref(one);
	/* The number is free again. */
	ASSERT_EQ(0, bus1_node_new(self->b, 0x1000, NULL, NULL, &two));
	bus1_node_unref(two);
	EXPECT_EQ(1, counter(self->b, "bus1-handles"));
	/* Nothing at all. */
	EXPECT_EQ(NULL, bus1_node_ref(NULL));
	EXPECT_EQ(NULL, bus1_handle_ref(NULL));
	EXPECT_EQ(NULL, bus1_peer_ref(NULL));
	EXPECT_EQ(NULL, bus1_message_ref(NULL));
	EXPECT_EQ(NULL, bus1_builder_ref(NULL));
	EXPECT_EQ(NULL, bus1_node_unref(NULL));
	EXPECT_EQ(NULL, bus1_handle_unref(NULL));
	EXPECT_EQ(NULL, bus1_peer_unref(NULL));
	EXPECT_EQ(NULL, bus1_message_unref(NULL));
	EXPECT_EQ(NULL, bus1_builder_unref(NULL));
}

TEST_F(lib, all_nodes_are_destroyed_or_none)
{
	struct bus1_node *nodes[3], *list[3];
	struct bus1_handle *h[2];
	struct log log = {};

	nodes[0] = REACH(self->b, self->a, &log, &h[0]);
	nodes[1] = REACH(self->b, self->a, &log, &h[1]);
	ASSERT_EQ(0, bus1_node_new(self->a, BUS1_ID_AUTO, NULL, NULL, &nodes[2]));
	list[0] = nodes[0];
	list[1] = nodes[1];
	list[2] = nodes[0];
	EXPECT_EQ(-ENOTUNIQ, bus1_nodes_destroy_all(list, 3));
	EXPECT_EQ(-EXDEV, bus1_nodes_destroy_all(nodes, 3));
	EXPECT_EQ(0, bus1_nodes_destroy_all(nodes, 0));
	EXPECT_EQ(1, bus1_handle_send(h[0], "x", 1));
	EXPECT_EQ(1, bus1_handle_send(h[1], "x", 1));
	EXPECT_EQ(2, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(0, bus1_nodes_destroy_all(nodes, 2));
	EXPECT_EQ(-ESTALE, bus1_nodes_destroy_all(nodes, 2));
	EXPECT_EQ(-EHOSTUNREACH, bus1_handle_send(h[0], "x", 1));
	/* One that the kernel never heard of. */
	EXPECT_EQ(0, bus1_node_destroy(nodes[2]));
	EXPECT_EQ(-ESTALE, bus1_node_destroy(nodes[2]));
	bus1_handle_unref(h[0]);
	bus1_handle_unref(h[1]);
	for (int i = 0; i < 3; i++)
		bus1_node_unref(nodes[i]);
}

TEST_F(lib, a_node_that_another_user_of_the_peer_destroys)
{
	EXPECT_EQ(0, raw_node_destroy(bus1_peer_get_fd(self->b),
				      bus1_node_get_id(self->node)));
	EXPECT_EQ(1, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(1, self->log.n);
	EXPECT_EQ(BUS1_TYPE_NODE_DESTROY, self->log.type[0]);
	EXPECT_EQ(self->node, self->log.node[0]);
	EXPECT_EQ(-ESTALE, bus1_node_destroy(self->node));
	/* The reference that was pinned goes with the object: the teardown sees. */
}

/*
 * Handles of one's own nodes that are gone
 */

TEST_F(lib, a_node_that_was_never_used_does_not_come_back)
{
	struct bus1_builder *builder;
	struct bus1_handle *h, *none = NULL;
	struct bus1_node *node;
	int i;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, bus1_node_new(self->b, BUS1_ID_AUTO, NULL, NULL, &node));
		h = bus1_handle_ref(bus1_node_get_handle(node));
		if (i)
			EXPECT_EQ(0, bus1_node_destroy(node));
		bus1_node_unref(node);
		EXPECT_TRUE(bus1_handle_is_destroyed(h));
		EXPECT_EQ(-ESTALE, bus1_handle_send(h, "x", 1));
		EXPECT_EQ(-ESTALE, bus1_handle_transfer(h, self->a, &none));
		ASSERT_EQ(0, bus1_builder_new(self->b, &builder));
		EXPECT_EQ(0, bus1_builder_add_handle(builder, h));
		EXPECT_EQ(-ESTALE, bus1_builder_send(builder, 0));
		EXPECT_EQ(-ESTALE, bus1_builder_send_seed(builder));
		bus1_builder_unref(builder);
		/* That of the fixture. */
		EXPECT_EQ(1, counter(self->b, "bus1-handles"));
		bus1_handle_unref(h);
	}
	EXPECT_EQ(NULL, none);
}

static void destroy_node(void *data)
{
	bus1_node_destroy(*(struct bus1_node **)data);
}

static void drop_node(void *data)
{
	struct bus1_node **node = data;

	*node = bus1_node_unref(*node);
}

/* Another thread is about to send it when it is destroyed: nothing is left of it. */
TEST_F(lib, a_node_that_is_destroyed_while_it_is_sent_does_not_come_back)
{
	struct bus1_handle *back, *h, *theirs;
	struct bus1_builder *builder;
	struct bus1_message *m;
	struct bus1_node *node, *other;
	struct log log = {};
	int i;

	other = REACH(self->a, self->b, &log, &back);
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, bus1_node_new(self->b, BUS1_ID_AUTO, NULL, NULL, &node));
		h = bus1_handle_ref(bus1_node_get_handle(node));
		if (i & 2)
			/* The kernel knows it already. */
			EXPECT_EQ(1, bus1_handle_send(h, "x", 1));
		hook.request = BUS1_CMD_SEND;
		hook.before = i & 1 ? drop_node : destroy_node;
		hook.after = NULL;
		hook.data = &node;
		ASSERT_EQ(0, bus1_builder_new(self->b, &builder));
		EXPECT_EQ(0, bus1_builder_add_handle(builder, h));
		EXPECT_EQ(0, bus1_builder_add_destination(builder, back));
		EXPECT_EQ(1, bus1_builder_send(builder, 0));
		EXPECT_EQ(0, hook.request);
		bus1_builder_unref(builder);
		/* That of the fixture, and the other one. */
		EXPECT_EQ(2, counter(self->b, "bus1-handles"));
		EXPECT_EQ(-ESTALE, bus1_handle_send(h, "x", 1));
		bus1_handle_unref(h);
		bus1_node_unref(node);

		/* Whoever has got it hears of it. */
		ASSERT_EQ(0, bus1_peer_recv(self->a, 0, &m));
		ASSERT_EQ(0, bus1_message_get_handle(m, 0, &theirs));
		EXPECT_EQ(1, bus1_peer_dispatch(self->a, 0));
		EXPECT_TRUE(bus1_handle_is_destroyed(theirs));
		bus1_handle_unref(theirs);
		bus1_message_unref(m);
		EXPECT_EQ(0, bus1_peer_dispatch(self->b, 0));
	}
	bus1_handle_unref(back);
	bus1_node_unref(other);
}

TEST_F(lib, what_cannot_be_destroyed_is_destroyed_later)
{
	struct bus1_node *node, *again = NULL;
	struct bus1_handle *h;
	struct log log = {};

	bus1_peer_set_handler(self->b, record, &log);
	ASSERT_EQ(0, bus1_node_new(self->b, 0x1000, record, &log, &node));
	ASSERT_EQ(0, bus1_handle_transfer(bus1_node_get_handle(node), self->a, &h));
	hook.request = BUS1_CMD_NODES_DESTROY;
	hook.before = NULL;
	hook.error = ENOMEM;
	hook.n_errors = 3;
	EXPECT_EQ(-ENOMEM, bus1_node_destroy(node));
	bus1_node_unref(node);
	EXPECT_EQ(1, bus1_handle_send(h, "x", 1));
	/* It is not free: that is tried once more. */
	EXPECT_EQ(-EEXIST, bus1_node_new(self->b, 0x1000, NULL, NULL, &again));
	EXPECT_EQ(NULL, again);
	EXPECT_EQ(0, hook.n_errors);
	hook.request = 0;
	EXPECT_EQ(0, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(0, log.n);
	EXPECT_EQ(-EHOSTUNREACH, bus1_handle_send(h, "x", 1));
	EXPECT_EQ(1, counter(self->b, "bus1-handles"));
	bus1_handle_unref(h);

	/* Or never, if the peer is gone before. */
	ASSERT_EQ(0, bus1_node_new(self->a, 0x1000, NULL, NULL, &node));
	ASSERT_EQ(0, bus1_handle_transfer(bus1_node_get_handle(node), self->b, &h));
	hook.request = BUS1_CMD_NODES_DESTROY;
	hook.n_errors = 1;
	bus1_node_unref(node);
	hook.request = 0;
	EXPECT_EQ(0, bus1_peer_flush(self->a, BUS1_FLUSH_ALL));
	ASSERT_EQ(0, bus1_node_new(self->a, 0x1000, NULL, NULL, &node));
	EXPECT_EQ(1, bus1_handle_send(bus1_node_get_handle(node), "x", 1));
	EXPECT_EQ(1, bus1_peer_dispatch(self->a, 0));
	EXPECT_EQ(1, counter(self->a, "bus1-nodes"));
	bus1_node_unref(node);
	bus1_handle_unref(h);
}

/*
 * Notifications and threads
 */

struct regain {
	struct bus1_node *node;
	struct bus1_peer *to;
	struct bus1_handle *handle;
	struct log log;
};

static int give_again(struct bus1_message *m, void *userdata)
{
	struct regain *regain = userdata;

	(void)m;
	return bus1_handle_transfer(bus1_node_get_handle(regain->node), regain->to,
				    &regain->handle);
}

/* What says that nobody has it is not true when it is read, and is not said. */
TEST_F(lib, a_release_that_was_overtaken_is_not_told)
{
	struct bus1_handle *h, *trigger;
	struct regain regain = {};
	struct bus1_node *node;

	regain.to = self->a;
	regain.node = REACH(self->b, self->a, &regain.log, &h);
	ASSERT_EQ(0, bus1_node_new(self->b, BUS1_ID_AUTO, give_again, &regain, &node));
	ASSERT_EQ(0, bus1_handle_transfer(bus1_node_get_handle(node), self->a, &trigger));
	EXPECT_EQ(1, bus1_handle_send(trigger, "x", 1));
	bus1_handle_unref(h);
	/* Both are received at once; the handler of the first one makes the second stale. */
	EXPECT_EQ(1, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(0, regain.log.n);
	ASSERT_NE(NULL, regain.handle);
	bus1_handle_unref(regain.handle);
	EXPECT_EQ(1, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(1, regain.log.n);
	EXPECT_EQ(BUS1_TYPE_NODE_RELEASE, regain.log.type[0]);
	bus1_handle_unref(trigger);
	bus1_node_unref(node);
	bus1_node_unref(regain.node);
}

static void give_away(void *data)
{
	struct regain *regain = data;

	bus1_handle_transfer(bus1_node_get_handle(regain->node), regain->to,
			     &regain->handle);
}

/* Another thread gives it away when the notification is received, and not looked at yet. */
TEST_F(lib, a_release_is_not_told_of_what_another_thread_has_given_away)
{
	struct regain regain = { .to = self->a };
	struct bus1_handle *h;
	int i;

	regain.node = REACH(self->b, self->a, &regain.log, &h);
	for (i = 0; i < 3; i++) {
		hook.request = BUS1_CMD_SEND_RECV;
		hook.before = i == 2 ? give_away : NULL;
		hook.after = i == 2 ? NULL : give_away;
		hook.data = &regain;
		bus1_handle_unref(h);
		regain.handle = NULL;
		EXPECT_EQ(0, bus1_peer_dispatch(self->b, i == 1));
		EXPECT_EQ(0, regain.log.n);
		h = regain.handle;
		ASSERT_NE(NULL, h);
	}
	bus1_handle_unref(h);
	EXPECT_EQ(1, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(1, regain.log.n);
	EXPECT_EQ(BUS1_TYPE_NODE_RELEASE, regain.log.type[0]);
	EXPECT_EQ(0, bus1_peer_dispatch(self->b, 0));
	bus1_node_unref(regain.node);
}

static void dispatch_one(void *data)
{
	bus1_peer_dispatch(data, 1);
}

static int fail_to_destroy(struct bus1_message *m, void *userdata)
{
	struct regain *regain = userdata;
	int r;

	r = give_again(m, regain);
	bus1_handle_unref(regain->handle);
	hook.request = BUS1_CMD_NODES_DESTROY;
	hook.before = dispatch_one;
	hook.data = bus1_message_get_peer(m);
	hook.error = ENOMEM;
	hook.n_errors = 1;
	if (r == 0 && bus1_node_destroy(regain->node) != -ENOMEM)
		r = -EPROTO;
	hook.request = 0;
	return r;
}

/* It is read while another thread is about to destroy the node, which fails; once. */
TEST_F(lib, a_release_is_told_if_the_node_lives_on)
{
	struct regain regain = { .to = self->a };
	struct bus1_handle *h, *trigger;
	struct bus1_node *node;

	regain.node = REACH(self->b, self->a, &regain.log, &h);
	ASSERT_EQ(0, bus1_node_new(self->b, BUS1_ID_AUTO, fail_to_destroy, &regain, &node));
	ASSERT_EQ(0, bus1_handle_transfer(bus1_node_get_handle(node), self->a, &trigger));
	EXPECT_EQ(1, bus1_handle_send(trigger, "x", 1));
	bus1_handle_unref(h);
	/* Both are received at once; the one that is not stale is handled within. */
	EXPECT_EQ(1, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(1, regain.log.n);
	EXPECT_EQ(BUS1_TYPE_NODE_RELEASE, regain.log.type[0]);
	EXPECT_EQ(0, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(1, regain.log.n);
	bus1_handle_unref(trigger);
	bus1_node_unref(node);
	bus1_node_unref(regain.node);
}

struct lose {
	struct bus1_peer *from, *to;
	struct bus1_message *m;
	int n;
};

static void receive_and_drop(void *data)
{
	struct lose *lose = data;

	bus1_peer_dispatch(lose->to, 0);
	bus1_peer_trim(lose->to);
	lose->n += bus1_peer_dispatch(lose->from, 0);
	if (!lose->m)
		bus1_peer_recv(lose->from, 0, &lose->m);
}

/*
 * Another thread hears that it was dropped before the one that has sent it knows that it was
 * sent.
 */
TEST_F(lib, a_release_is_told_if_the_sender_has_not_come_back_yet)
{
	struct lose lose = { .from = self->b, .to = self->a };
	struct bus1_builder *builder;
	struct bus1_handle *back;
	struct bus1_node *other, *node;
	struct log log = {}, sent = {};
	int i;

	other = REACH(self->a, self->b, &log, &back);
	ASSERT_EQ(0, bus1_node_new(self->b, BUS1_ID_AUTO, record, &sent, &node));
	ASSERT_EQ(0, bus1_builder_new(self->b, &builder));
	EXPECT_EQ(0, bus1_builder_add_handle(builder, bus1_node_get_handle(node)));
	EXPECT_EQ(0, bus1_builder_add_destination(builder, back));
	for (i = 1; i <= 3; i++) {
		hook.request = BUS1_CMD_SEND;
		hook.before = NULL;
		hook.after = receive_and_drop;
		hook.data = &lose;
		EXPECT_EQ(1, bus1_builder_send(builder, 0));
		EXPECT_EQ(0, hook.request);
		/* Not while it may not be true. */
		EXPECT_EQ(0, lose.n);
		EXPECT_EQ(NULL, lose.m);
		EXPECT_EQ(1, bus1_peer_dispatch(self->b, 0));
		EXPECT_EQ(i, sent.n);
		EXPECT_EQ(BUS1_TYPE_NODE_RELEASE, sent.type[i - 1]);
		EXPECT_EQ(0, bus1_peer_dispatch(self->b, 0));
	}
	bus1_builder_unref(builder);
	EXPECT_EQ(3, log.n);
	EXPECT_EQ(-EBUSY, bus1_handle_release(bus1_peer_get_fd(self->b),
					      bus1_node_get_id(node)));
	bus1_node_unref(node);
	bus1_handle_unref(back);
	bus1_node_unref(other);
}

static void dispatch_peer(void *data)
{
	bus1_peer_dispatch(data, 0);
}

static void receive_drop_and_dispatch(void *data)
{
	struct lose *lose = data;

	receive_and_drop(lose);
	hook.request = BUS1_CMD_HANDLE_RELEASE;
	hook.before = NULL;
	hook.after = dispatch_peer;
	hook.data = lose->from;
}

/* The answer to what was asked anew comes while it is still asked. */
TEST_F(lib, a_release_is_told_though_the_receiver_is_faster)
{
	struct lose lose = { .from = self->b, .to = self->a };
	struct bus1_builder *builder;
	struct bus1_handle *back;
	struct bus1_node *other, *node;
	struct log log = {}, sent = {};

	other = REACH(self->a, self->b, &log, &back);
	ASSERT_EQ(0, bus1_node_new(self->b, BUS1_ID_AUTO, record, &sent, &node));
	ASSERT_EQ(0, bus1_builder_new(self->b, &builder));
	EXPECT_EQ(0, bus1_builder_add_handle(builder, bus1_node_get_handle(node)));
	EXPECT_EQ(0, bus1_builder_add_destination(builder, back));
	hook.request = BUS1_CMD_SEND;
	hook.before = NULL;
	hook.after = receive_drop_and_dispatch;
	hook.data = &lose;
	EXPECT_EQ(1, bus1_builder_send(builder, 0));
	EXPECT_EQ(0, hook.request);
	EXPECT_EQ(1, sent.n);
	EXPECT_EQ(BUS1_TYPE_NODE_RELEASE, sent.type[0]);
	EXPECT_EQ(0, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(1, sent.n);
	bus1_builder_unref(builder);
	bus1_node_unref(node);
	bus1_handle_unref(back);
	bus1_node_unref(other);
}

struct replace {
	struct bus1_peer *peer;
	struct bus1_node *old, *new;
	struct log log;
};

static int replace_node(struct bus1_message *m, void *userdata)
{
	struct replace *r = userdata;

	(void)m;
	r->old = bus1_node_unref(r->old);
	return bus1_node_new(r->peer, 0x1000, record, &r->log, &r->new);
}

TEST_F(lib, messages_to_a_dead_node_do_not_reach_its_successor)
{
	struct replace replace = { .peer = self->b };
	struct bus1_handle *first, *second;
	struct bus1_node *node;
	struct log log = {};
	int i;

	ASSERT_EQ(0, bus1_node_new(self->b, BUS1_ID_AUTO, replace_node, &replace, &node));
	ASSERT_EQ(0, bus1_handle_transfer(bus1_node_get_handle(node), self->a, &first));
	ASSERT_EQ(0, bus1_node_new(self->b, 0x1000, record, &log, &replace.old));
	ASSERT_EQ(0, bus1_handle_transfer(bus1_node_get_handle(replace.old), self->a,
					  &second));
	/* All are received at once. */
	EXPECT_EQ(1, bus1_handle_send(first, "x", 1));
	for (i = 0; i < 3; i++)
		EXPECT_EQ(1, bus1_handle_send(second, "old", 3));
	EXPECT_EQ(1, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(0, log.n);
	EXPECT_EQ(0, replace.log.n);
	bus1_handle_unref(second);
	ASSERT_EQ(0, bus1_handle_transfer(bus1_node_get_handle(replace.new), self->a,
					  &second));
	EXPECT_EQ(1, bus1_handle_send(second, "new", 3));
	EXPECT_EQ(1, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(1, replace.log.n);
	EXPECT_EQ(0, strcmp("new", replace.log.data[0]));
	bus1_handle_unref(second);
	bus1_handle_unref(first);
	bus1_node_unref(replace.new);
	bus1_node_unref(node);
}

/* Of a handle that nobody has asked for yet. */
TEST_F(lib, a_destruction_is_not_forgotten)
{
	struct bus1_handle *h[3], *third[2];
	struct bus1_builder *builder;
	struct bus1_message *m[3];
	struct bus1_node *nodes[2];
	struct bus1_peer *c;
	struct log log = {}, rest = {};
	int i;

	ASSERT_EQ(0, bus1_peer_new(&c));
	bus1_peer_set_handler(self->b, record, &rest);
	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	for (i = 0; i < 2; i++) {
		nodes[i] = REACH(c, self->a, &log, &third[i]);
		EXPECT_EQ(0, bus1_builder_add_handle(builder, third[i]));
		EXPECT_EQ(0, bus1_builder_add_handle(builder, third[i]));
	}
	EXPECT_EQ(0, bus1_builder_add_destination(builder, self->to));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(1, bus1_builder_send(builder, 0));
		ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m[i]));
	}
	bus1_message_unref(m[1]);
	EXPECT_EQ(0, bus1_node_destroy(nodes[0]));
	EXPECT_EQ(1, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(1, rest.n);
	EXPECT_EQ(BUS1_TYPE_NODE_DESTROY, rest.type[0]);

	ASSERT_EQ(0, bus1_message_get_handle(m[0], 1, &h[0]));
	ASSERT_EQ(0, bus1_message_get_handle(m[2], 0, &h[1]));
	ASSERT_EQ(0, bus1_message_get_handle(m[2], 2, &h[2]));
	EXPECT_EQ(h[0], h[1]);
	EXPECT_EQ(rest.destination[0], bus1_handle_get_id(h[0]));
	EXPECT_TRUE(bus1_handle_is_destroyed(h[0]));
	EXPECT_FALSE(bus1_handle_is_destroyed(h[2]));
	EXPECT_EQ(-EHOSTUNREACH, bus1_handle_send(h[0], "x", 1));
	for (i = 0; i < 3; i++)
		bus1_handle_unref(h[i]);
	/* Two, and one reference of each. */
	EXPECT_EQ(3, counter(self->b, "bus1-handles"));
	bus1_message_unref(m[0]);
	bus1_message_unref(m[2]);
	EXPECT_EQ(1, counter(self->b, "bus1-handles"));
	bus1_builder_unref(builder);
	for (i = 0; i < 2; i++) {
		bus1_handle_unref(third[i]);
		bus1_node_unref(nodes[i]);
	}
	bus1_peer_unref(c);
}

/* Who sets a handler too late, and sees that, may be gone when the rest is dispatched. */
TEST_F(lib, a_handler_that_is_set_after_the_destruction_is_not_called)
{
	struct bus1_message *m;
	struct bus1_handle *h;
	struct bus1_node *node;
	struct log log = {}, late = {}, rest = {};

	bus1_peer_set_handler(self->b, record, &rest);
	node = REACH(self->a, self->b, &log, &h);
	EXPECT_EQ(0, bus1_node_destroy(node));
	ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m));
	bus1_handle_set_handler(h, record, &late);
	EXPECT_TRUE(bus1_handle_is_destroyed(h));
	EXPECT_EQ(0, bus1_message_dispatch(m));
	EXPECT_EQ(0, late.n);
	EXPECT_EQ(1, rest.n);
	EXPECT_EQ(BUS1_TYPE_NODE_DESTROY, rest.type[0]);
	bus1_message_unref(m);
	bus1_handle_unref(h);
	bus1_node_unref(node);
}

TEST_F(lib, no_handler_is_called_after_a_destruction)
{
	struct bus1_message *m[2];
	struct bus1_handle *h;
	struct bus1_node *node;
	struct log log = {}, rest = {};
	int i;

	bus1_peer_set_handler(self->b, record, &rest);
	node = REACH(self->b, self->a, &log, &h);
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(1, bus1_handle_send(h, "x", 1));
		ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m[i]));
	}
	EXPECT_EQ(0, bus1_message_dispatch(m[0]));
	EXPECT_EQ(1, log.n);
	EXPECT_EQ(0, bus1_node_destroy(node));
	EXPECT_EQ(0, bus1_message_dispatch(m[1]));
	EXPECT_EQ(1, log.n);
	EXPECT_EQ(0, rest.n);
	EXPECT_EQ(node, bus1_message_get_node(m[1]));
	for (i = 0; i < 2; i++)
		bus1_message_unref(m[i]);
	bus1_handle_unref(h);
	bus1_node_unref(node);

	/* Of a node that somebody else destroys there is more to tell. */
	node = REACH(self->b, self->a, &log, &h);
	EXPECT_EQ(1, bus1_handle_send(h, "y", 1));
	ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m[0]));
	EXPECT_EQ(0, raw_node_destroy(bus1_peer_get_fd(self->b), bus1_node_get_id(node)));
	EXPECT_EQ(1, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(BUS1_TYPE_NODE_DESTROY, log.type[1]);
	EXPECT_EQ(0, bus1_message_dispatch(m[0]));
	EXPECT_EQ(3, log.n);
	bus1_message_unref(m[0]);
	bus1_handle_unref(h);
	bus1_node_unref(node);
}

static void disconnect_peer(void *data)
{
	bus1_peer_disconnect(data);
}

/* The memory of what another thread has received is gone before it is looked at. */
TEST_F(lib, nothing_is_received_after_a_disconnect)
{
	struct bus1_message *m = NULL;
	int i;

	for (i = 0; i < 2; i++)
		EXPECT_EQ(1, bus1_handle_send(self->to, "x", 1));
	hook.request = BUS1_CMD_SEND_RECV;
	hook.before = NULL;
	hook.after = disconnect_peer;
	hook.data = self->b;
	EXPECT_EQ(-ESHUTDOWN, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(0, self->log.n);
	EXPECT_EQ(-ESHUTDOWN, bus1_peer_recv(self->b, 0, &m));

	hook.request = BUS1_CMD_SEND_RECV;
	hook.data = self->a;
	EXPECT_EQ(-ESHUTDOWN, bus1_peer_recv(self->a, 0, &m));
	EXPECT_EQ(NULL, m);
}

static int destroy_itself(struct bus1_message *m, void *userdata)
{
	struct bus1_node **node = userdata;

	if (bus1_message_get_node(m) != *node)
		return -EPROTO;
	*node = bus1_node_unref(*node);
	return 0;
}

TEST_F(lib, a_handler_can_drop_its_node_and_the_peer)
{
	struct bus1_node *node;
	struct bus1_handle *h;
	struct bus1_peer *peer;

	ASSERT_EQ(0, bus1_peer_new(&peer));
	ASSERT_EQ(0, bus1_node_new(peer, BUS1_ID_AUTO, destroy_itself, &node, &node));
	ASSERT_EQ(0, bus1_handle_transfer(bus1_node_get_handle(node), self->a, &h));
	EXPECT_EQ(1, bus1_handle_send(h, "x", 1));
	EXPECT_EQ(1, bus1_handle_send(h, "y", 1));
	/* What was received along with it goes with the node. */
	EXPECT_EQ(1, bus1_peer_dispatch(peer, 0));
	EXPECT_EQ(NULL, node);
	EXPECT_EQ(-EHOSTUNREACH, bus1_handle_send(h, "x", 1));
	bus1_handle_unref(h);
	EXPECT_CLEAN(peer);
	bus1_peer_unref(peer);
}

/*
 * Loops
 */

static int epoll_ready(int epoll)
{
	struct epoll_event event;

	return epoll_wait(epoll, &event, 1, 0);
}

TEST_F(lib, dispatch_in_somebody_elses_epoll)
{
	struct epoll_event event = { .events = EPOLLIN };
	int epoll = epoll_create1(EPOLL_CLOEXEC), fd, i;

	ASSERT_LE(0, epoll);
	fd = bus1_peer_get_poll_fd(self->b);
	ASSERT_LE(0, fd);
	EXPECT_EQ(fd, bus1_peer_get_poll_fd(self->b));
	EXPECT_EQ(FD_CLOEXEC, fcntl(fd, F_GETFD));
	ASSERT_EQ(0, epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event));
	EXPECT_EQ(0, epoll_ready(epoll));
	for (i = 0; i < 10; i++)
		EXPECT_EQ(1, bus1_handle_send(self->to, "x", 1));
	EXPECT_EQ(1, epoll_ready(epoll));
	EXPECT_EQ(3, bus1_peer_dispatch(self->b, 3));
	EXPECT_EQ(1, epoll_ready(epoll));
	/* A handler fails: what was received along with it is not forgotten. */
	self->log.result = -EPROTO;
	EXPECT_EQ(-EPROTO, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(4, self->log.n);
	EXPECT_EQ(0, counter(self->b, "bus1-queue"));
	EXPECT_EQ(1, epoll_ready(epoll));
	self->log.result = 0;
	EXPECT_EQ(6, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(0, epoll_ready(epoll));
	EXPECT_EQ(0, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(10, self->log.n);
	/* A disconnect is something to look at. */
	EXPECT_EQ(0, bus1_disconnect(bus1_peer_get_fd(self->b)));
	EXPECT_EQ(1, epoll_ready(epoll));
	EXPECT_EQ(-ESHUTDOWN, bus1_peer_dispatch(self->b, 0));
	close(epoll);
}

TEST_F(lib, a_dispatch_without_a_limit_ends)
{
	int i;

	for (i = 0; i < 300; i++)
		EXPECT_EQ(1, bus1_handle_send(self->to, "x", 1));
	EXPECT_EQ(256, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(44, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(0, bus1_peer_dispatch(self->b, 0));
}

TEST_F(lib, what_has_no_handler_goes_to_the_peers)
{
	struct log rest = {};
	struct bus1_handle *h;
	struct bus1_node *node;

	/* Neither: it is dropped. */
	ASSERT_EQ(0, bus1_node_new(self->b, BUS1_ID_AUTO, NULL, NULL, &node));
	ASSERT_EQ(0, bus1_handle_transfer(bus1_node_get_handle(node), self->a, &h));
	EXPECT_EQ(1, bus1_handle_send(h, "x", 1));
	EXPECT_EQ(1, bus1_peer_dispatch(self->b, 0));
	bus1_peer_set_handler(self->b, record, &rest);
	EXPECT_EQ(1, bus1_handle_send(h, "rest", 4));
	EXPECT_EQ(1, bus1_handle_send(self->to, "own", 3));
	EXPECT_EQ(2, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(1, rest.n);
	EXPECT_EQ(0, strcmp("rest", rest.data[0]));
	EXPECT_EQ(node, rest.node[0]);
	EXPECT_EQ(1, self->log.n);
	bus1_handle_unref(h);
	bus1_node_unref(node);
}

static void ignore_signal(int sig)
{
	(void)sig;
}

TEST_F(lib, waiting_ends_by_time_by_a_signal_and_by_a_message)
{
	struct sigaction action = { .sa_handler = ignore_signal };
	struct itimerval timer = { .it_value.tv_usec = 20000, .it_interval.tv_usec = 20000 };
	struct itimerval off = {};
	struct bus1_message *m = NULL;
	int fd = bus1_peer_get_fd(self->b), i;
	pid_t pid;

	/* The flags of the descriptor make no difference. */
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, fcntl(fd, F_SETFL, i ? O_NONBLOCK : 0));
		EXPECT_EQ(-EAGAIN, bus1_peer_recv(self->b, 0, &m));
		EXPECT_EQ(-ETIMEDOUT, bus1_peer_recv(self->b, 1000000, &m));
		EXPECT_EQ(0, bus1_peer_dispatch(self->b, 0));

		ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
		ASSERT_EQ(0, setitimer(ITIMER_REAL, &timer, NULL));
		EXPECT_EQ(-EINTR, bus1_peer_recv(self->b, -1, &m));
		ASSERT_EQ(0, setitimer(ITIMER_REAL, &off, NULL));
		EXPECT_EQ(NULL, m);

		/* In one way they do. */
		action.sa_flags = SA_RESTART;
		ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
		ASSERT_EQ(0, setitimer(ITIMER_REAL, &timer, NULL));
		EXPECT_EQ(i ? -EINTR : -ETIMEDOUT,
			  bus1_peer_recv(self->b, i ? 100 * SECOND : SECOND / 10, &m));
		ASSERT_EQ(0, setitimer(ITIMER_REAL, &off, NULL));
		action.sa_flags = 0;

		pid = FORK();
		if (!pid) {
			wait_asleep(getppid());
			/* The library is not for children; the descriptor is. */
			_exit(bus1_send_data(bus1_peer_get_fd(self->a),
					     bus1_handle_get_id(self->to), "x", 1));
		}
		EXPECT_EQ(0, bus1_peer_recv(self->b, -1, &m));
		bus1_message_unref(m);
		m = NULL;
		WAIT(pid);
	}
}

/*
 * Calls
 */

struct server {
	struct bus1_builder *builder;
	bool replies;
	bool done;
};

static int answer(struct bus1_message *m, void *userdata)
{
	struct server *server = userdata;
	struct bus1_builder *builder = server->builder;
	const char *data;
	size_t size;
	int r;

	/* The client has dropped its handle. */
	if (bus1_message_get_type(m) == BUS1_TYPE_NODE_RELEASE)
		server->done = true;
	if (bus1_message_get_type(m) != BUS1_TYPE_DATA || !server->replies)
		return 0;
	data = bus1_message_get_data(m, &size);
	bus1_builder_reset(builder);
	r = bus1_builder_add_data(builder, "re:", 3);
	if (r == 0)
		r = bus1_builder_add_data(builder, data, size);
	return r < 0 ? r : bus1_builder_reply(builder, m);
}

/* A server in a process of its own, until its node is not wanted any more. */
static pid_t t_server(struct __test_metadata *_metadata, bool replies,
		      struct bus1_peer *client, struct bus1_handle **handle)
{
	struct server server = { .replies = replies };
	struct bus1_node *node;
	struct bus1_peer *peer;
	struct pollfd p;
	int pipes[2];
	uint64_t id;
	pid_t pid;

	ASSERT_EQ(0, pipe2(pipes, O_CLOEXEC));
	pid = FORK();
	if (!pid) {
		ASSERT_EQ(0, bus1_peer_new(&peer));
		ASSERT_EQ(0, bus1_builder_new(peer, &server.builder));
		ASSERT_EQ(0, bus1_node_new(peer, BUS1_ID_AUTO, answer, &server, &node));
		/* The descriptor of the client was inherited. */
		ASSERT_EQ(0, bus1_handle_transfer_fd(bus1_node_get_handle(node),
						     bus1_peer_get_fd(client), &id));
		ASSERT_EQ(sizeof(id), write(pipes[1], &id, sizeof(id)));
		p.fd = bus1_peer_get_poll_fd(peer);
		p.events = POLLIN;
		while (!server.done) {
			ASSERT_EQ(1, poll(&p, 1, -1));
			ASSERT_LE(0, bus1_peer_dispatch(peer, 0));
		}
		bus1_builder_unref(server.builder);
		bus1_node_unref(node);
		EXPECT_LE(0, bus1_peer_dispatch(peer, 0));
		EXPECT_CLEAN(peer);
		bus1_peer_unref(peer);
		_exit(_metadata->exit_code);
	}
	/* A server that fails ends the wait, too. */
	close(pipes[1]);
	ASSERT_EQ(sizeof(id), read(pipes[0], &id, sizeof(id)));
	close(pipes[0]);
	ASSERT_EQ(0, bus1_handle_new(client, id, handle));
	return pid;
}

#define SERVER(_replies, _client, _handle)				\
	t_server(_metadata, _replies, _client, _handle)

TEST_F(lib, calls_are_answered)
{
	struct bus1_builder *builder;
	struct bus1_handle *h;
	struct bus1_message *reply;
	const char *data;
	size_t size;
	char text[16];
	pid_t pid;
	int i, n;

	pid = SERVER(true, self->a, &h);
	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	for (i = 0; i < 100; i++) {
		n = snprintf(text, sizeof(text), "%d", i);
		bus1_builder_reset(builder);
		ASSERT_EQ(0, bus1_builder_add_data(builder, text, n));
		ASSERT_EQ(0, bus1_builder_add_destination(builder, h));
		ASSERT_EQ(0, bus1_builder_call(builder, i % 2 ? -1 : 100 * SECOND, &reply));
		data = bus1_message_get_data(reply, &size);
		ASSERT_EQ(n + 3, size);
		EXPECT_EQ(0, memcmp("re:", data, 3));
		EXPECT_EQ(0, memcmp(text, data + 3, n));
		EXPECT_EQ(NULL, bus1_message_get_node(reply));
		bus1_message_unref(reply);
	}
	bus1_builder_unref(builder);
	bus1_handle_unref(h);
	WAIT(pid);
	EXPECT_EQ(0, bus1_peer_dispatch(self->a, 0));
	EXPECT_EQ(1, counter(self->a, "bus1-handles"));
}

TEST_F(lib, calls_that_nobody_answers_end)
{
	struct bus1_builder *builder;
	struct bus1_handle *h;
	struct bus1_message *reply = NULL;
	struct bus1_node *node;
	pid_t pid;

	/* It drops the message, and so the handle. */
	pid = SERVER(false, self->a, &h);
	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	ASSERT_EQ(0, bus1_builder_add_destination(builder, h));
	EXPECT_EQ(-ECONNRESET, bus1_builder_call(builder, -1, &reply));
	EXPECT_NE(NULL, strstr(bus1_last_reason(), "nobody can reply"));
	bus1_builder_reset(builder);
	bus1_handle_unref(h);
	WAIT(pid);
	ASSERT_EQ(0, bus1_node_new(self->b, BUS1_ID_AUTO, NULL, NULL, &node));
	ASSERT_EQ(0, bus1_handle_transfer(bus1_node_get_handle(node), self->a, &h));
	bus1_node_unref(node);
	ASSERT_EQ(0, bus1_builder_add_destination(builder, h));
	bus1_handle_unref(h);
	EXPECT_EQ(-EHOSTUNREACH, bus1_builder_call(builder, -1, &reply));
	EXPECT_EQ(-EHOSTUNREACH, bus1_builder_get_error(builder, 0));
	bus1_builder_reset(builder);

	/* b does not look. */
	ASSERT_EQ(0, bus1_builder_add_destination(builder, self->to));
	EXPECT_EQ(-ETIMEDOUT, bus1_builder_call(builder, 1000000, &reply));
	EXPECT_NE(NULL, strstr(bus1_last_reason(), "no reply"));
	EXPECT_EQ(-ETIMEDOUT, bus1_builder_call(builder, 0, &reply));
	EXPECT_EQ(NULL, reply);
	/* Two requests; that their senders have left comes with them. */
	EXPECT_EQ(4, bus1_peer_dispatch(self->b, 0));
	EXPECT_EQ(2, self->log.n);
	bus1_builder_unref(builder);
	/* Nothing of it comes later. */
	EXPECT_LE(0, bus1_peer_dispatch(self->a, 0));
	EXPECT_EQ(1, counter(self->a, "bus1-handles"));
}

TEST_F(lib, what_comes_during_a_call_is_kept_in_order)
{
	struct epoll_event event = { .events = EPOLLIN };
	struct bus1_builder *builder;
	struct bus1_handle *h, *back;
	struct bus1_message *reply;
	struct bus1_node *node;
	struct log log = {};
	int epoll = epoll_create1(EPOLL_CLOEXEC), i;
	char c;
	pid_t pid;

	node = REACH(self->a, self->b, &log, &back);
	ASSERT_LE(0, bus1_peer_get_poll_fd(self->a));
	ASSERT_EQ(0, epoll_ctl(epoll, EPOLL_CTL_ADD, bus1_peer_get_poll_fd(self->a), &event));
	pid = SERVER(true, self->a, &h);
	for (i = 0; i < 40; i++) {
		c = 'A' + i;
		EXPECT_EQ(1, bus1_handle_send(back, &c, 1));
	}
	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	ASSERT_EQ(0, bus1_builder_add_destination(builder, h));
	ASSERT_EQ(0, bus1_builder_call(builder, -1, &reply));
	bus1_message_unref(reply);
	EXPECT_EQ(0, counter(self->a, "bus1-queue"));
	EXPECT_EQ(0, log.n);
	EXPECT_EQ(1, epoll_ready(epoll));
	ASSERT_EQ(0, bus1_peer_recv(self->a, 0, &reply));
	EXPECT_EQ('A', *(char *)bus1_message_get_data(reply, NULL));
	bus1_message_unref(reply);
	EXPECT_EQ(39, bus1_peer_dispatch(self->a, 0));
	for (i = 0; i < 39; i++)
		EXPECT_EQ('B' + i, log.data[i][0]);
	EXPECT_EQ(0, epoll_ready(epoll));
	bus1_builder_unref(builder);
	bus1_handle_unref(h);
	bus1_handle_unref(back);
	WAIT(pid);
	close(epoll);
	bus1_node_unref(node);
}

TEST_F(lib, a_message_without_handles_cannot_be_replied_to)
{
	struct bus1_builder *builder;
	struct bus1_message *m;
	struct bus1_handle *h;

	ASSERT_EQ(0, bus1_builder_new(self->b, &builder));
	EXPECT_EQ(1, bus1_handle_send(self->to, "x", 1));
	ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m));
	EXPECT_EQ(-ERANGE, bus1_message_get_reply_handle(m, &h));
	EXPECT_EQ(-ERANGE, bus1_builder_reply(builder, m));
	bus1_message_unref(m);
	bus1_builder_unref(builder);
}

/*
 * Files
 */

TEST_F(lib, files_are_lent_taken_or_closed)
{
	struct bus1_builder *builder;
	struct bus1_message *m;
	int fds[2], i, fd, n;
	char c;

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	EXPECT_EQ(0, bus1_builder_add_destination(builder, self->to));
	for (i = 0; i < 40; i++)
		EXPECT_EQ(0, bus1_builder_add_fd(builder, fds[1]));
	EXPECT_EQ(1, bus1_builder_send(builder, 0));
	n = count_fds();
	ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m));
	ASSERT_EQ(40, bus1_message_get_n_fds(m));
	EXPECT_EQ(n + 40, count_fds());
	fd = bus1_message_get_fd(m, 39);
	ASSERT_LE(0, fd);
	EXPECT_EQ(fd, bus1_message_get_fd(m, 39));
	EXPECT_EQ(FD_CLOEXEC, fcntl(fd, F_GETFD));
	EXPECT_EQ(fd, bus1_message_take_fd(m, 39));
	EXPECT_EQ(-EBADF, bus1_message_take_fd(m, 39));
	EXPECT_EQ(-EBADF, bus1_message_get_fd(m, 39));
	EXPECT_EQ(-ERANGE, bus1_message_get_fd(m, 40));
	EXPECT_EQ(-ERANGE, bus1_message_take_fd(m, SIZE_MAX));
	bus1_message_unref(m);
	EXPECT_EQ(n + 1, count_fds());
	EXPECT_EQ(1, write(fd, "x", 1));
	EXPECT_EQ(1, read(fds[0], &c, 1));
	close(fd);
	bus1_builder_unref(builder);
	close(fds[0]);
	close(fds[1]);
}

TEST_F(lib, out_of_descriptors_nothing_is_lost)
{
	struct bus1_builder *builder;
	struct bus1_message *m;
	struct rlimit few, before;
	int fds[2], i;

	if (getenv("BUS1_VALGRIND"))
		SKIP(return, "the limit that valgrind sets is none of the kernel's");
	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	EXPECT_EQ(0, bus1_builder_add_destination(builder, self->to));
	for (i = 0; i < 40; i++)
		EXPECT_EQ(0, bus1_builder_add_fd(builder, fds[1]));
	EXPECT_EQ(1, bus1_builder_send(builder, 0));
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &before));
	few = before;
	few.rlim_cur = fds[1] + 5;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &few));
	EXPECT_EQ(-EMFILE, bus1_peer_recv(self->b, -1, &m));
	EXPECT_NE(NULL, strstr(bus1_last_reason(), "descriptors"));
	bus1_peer_set_accept_fds(self->b, false);
	ASSERT_EQ(0, bus1_peer_recv(self->b, -1, &m));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &before));
	EXPECT_EQ(0, bus1_message_get_n_fds(m));
	bus1_message_unref(m);
	bus1_peer_set_accept_fds(self->b, true);
	bus1_builder_unref(builder);
	close(fds[0]);
	close(fds[1]);
}

/* The numbers of its files are in the slice only, and that is gone. */
TEST_F(lib, without_memory_the_files_of_others_are_not_closed)
{
	struct bus1_builder *builder;
	struct bus1_message *m;
	int fds[2], lent[40], i, n;

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	EXPECT_EQ(0, bus1_builder_add_destination(builder, self->to));
	for (i = 0; i < 40; i++)
		EXPECT_EQ(0, bus1_builder_add_fd(builder, fds[1]));
	n = count_fds();
	no_memory = sizeof(lent);
	for (i = 0; i < 2; i++) {
		EXPECT_EQ(1, bus1_builder_send(builder, 0));
		ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m));
		/* As long as it is there that does not matter. */
		if (i == 0)
			bus1_message_unref(m);
	}
	no_memory = 0;
	EXPECT_EQ(n + 40, count_fds());
	for (i = 0; i < 40; i++)
		lent[i] = bus1_message_get_fd(m, i);
	EXPECT_EQ(0, bus1_peer_flush(self->b, BUS1_FLUSH_ALL));
	EXPECT_EQ(-ESTALE, bus1_message_get_fd(m, 0));
	bus1_message_unref(m);
	EXPECT_EQ(n + 40, count_fds());
	for (i = 0; i < 40; i++)
		EXPECT_EQ(0, close(lent[i]));
	bus1_builder_unref(builder);
	close(fds[0]);
	close(fds[1]);
}

/*
 * Seed, flush
 */

TEST_F(lib, a_service_is_restarted)
{
	struct bus1_handle *reach, *h, *old;
	struct bus1_builder *builder;
	struct bus1_message *m;
	struct bus1_node *node, *kept;
	struct bus1_peer *service;
	struct log log = {};
	int fd;

	ASSERT_EQ(0, bus1_peer_new(&service));
	EXPECT_EQ(-EAGAIN, bus1_peer_recv_seed(service, &m));
	node = REACH(service, self->a, &log, &reach);
	ASSERT_EQ(0, bus1_builder_new(service, &builder));
	EXPECT_EQ(0, bus1_builder_add_data(builder, "state", 5));
	EXPECT_EQ(0, bus1_builder_add_handle(builder, bus1_node_get_handle(node)));
	EXPECT_EQ(0, bus1_builder_send_seed(builder));
	bus1_builder_unref(builder);
	/* It ends without a word; the supervisor has the descriptor. */
	fd = bus1_peer_steal_fd(service);
	ASSERT_LE(0, fd);
	bus1_node_unref(node);
	bus1_peer_unref(service);
	EXPECT_EQ(1, bus1_handle_send(reach, "lost", 4));

	ASSERT_EQ(0, bus1_peer_new_fd(fd, &service));
	ASSERT_EQ(0, bus1_peer_flush(service, BUS1_FLUSH_ALL));
	EXPECT_EQ(1, bus1_handle_send(reach, "anew", 4));
	ASSERT_EQ(0, bus1_peer_recv_seed(service, &m));
	EXPECT_EQ(BUS1_TYPE_DATA, bus1_message_get_type(m));
	EXPECT_EQ(UINT64_MAX, bus1_message_get_destination(m));
	EXPECT_EQ(0, memcmp("state", bus1_message_get_data(m, NULL), 5));
	ASSERT_EQ(1, bus1_message_get_n_handles(m));
	ASSERT_EQ(0, bus1_message_get_handle(m, 0, &h));
	ASSERT_EQ(0, bus1_node_new(service, bus1_handle_get_id(h), record, &log, &kept));
	EXPECT_EQ(h, bus1_node_get_handle(kept));
	bus1_handle_unref(h);
	bus1_message_unref(m);
	EXPECT_EQ(1, bus1_peer_dispatch(service, 0));
	EXPECT_EQ(0, strcmp("anew", log.data[0]));

	/* It flushes itself: what it had before is of no use. */
	old = bus1_handle_ref(bus1_node_get_handle(kept));
	ASSERT_EQ(0, bus1_peer_flush(service, BUS1_FLUSH_ALL | BUS1_FLUSH_SEED));
	EXPECT_EQ(-ESTALE, bus1_handle_send(old, "x", 1));
	EXPECT_NE(NULL, strstr(bus1_last_reason(), "flushed"));
	EXPECT_EQ(-ESTALE, bus1_node_destroy(kept));
	EXPECT_EQ(-EAGAIN, bus1_peer_recv_seed(service, &m));
	bus1_handle_unref(old);
	bus1_node_unref(kept);
	EXPECT_CLEAN(service);
	bus1_peer_unref(service);
	bus1_handle_unref(reach);
}

TEST_F(lib, what_is_held_over_a_flush_takes_nothing_from_others)
{
	struct bus1_message *before, *after;
	struct bus1_builder *builder;
	struct bus1_handle *h, *reach;
	struct bus1_node *node;
	struct log log = {};

	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	EXPECT_EQ(0, bus1_builder_add_data(builder, "x", 1));
	EXPECT_EQ(0, bus1_builder_add_handle(builder, self->to));
	EXPECT_EQ(0, bus1_builder_add_destination(builder, self->to));
	EXPECT_EQ(1, bus1_builder_send(builder, 0));
	EXPECT_EQ(1, bus1_builder_send(builder, 0));
	bus1_builder_unref(builder);
	ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &before));
	EXPECT_EQ(0, bus1_peer_flush(self->b, BUS1_FLUSH_SEED));
	EXPECT_EQ(0, bus1_peer_flush(self->b, BUS1_FLUSH_ALL));
	EXPECT_EQ(-ESTALE, bus1_message_get_handle(before, 0, &h));

	/* The same place in the pool. */
	node = REACH(self->b, self->a, &log, &reach);
	EXPECT_EQ(1, bus1_handle_send(reach, "y", 1));
	ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &after));
	bus1_message_unref(before);
	EXPECT_EQ(0, bus1_peer_trim(self->b));
	EXPECT_EQ(1, counter(self->b, "bus1-slices"));
	EXPECT_EQ('y', *(char *)bus1_message_get_data(after, NULL));
	bus1_message_unref(after);
	bus1_handle_unref(reach);
	bus1_node_unref(node);
}

/*
 * Processes and threads
 */

TEST_F(lib, children_cannot_harm_the_parents_objects)
{
	struct bus1_builder *builder;
	struct bus1_limits limits;
	struct bus1_message *m, *none = NULL;
	struct bus1_handle *h;
	struct bus1_node *node;
	struct bus1_peer *peer;
	int fds[2];
	pid_t pid;

	ASSERT_EQ(0, pipe2(fds, O_CLOEXEC));
	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	EXPECT_EQ(0, bus1_builder_add_destination(builder, self->to));
	EXPECT_EQ(0, bus1_builder_add_handle(builder, self->to));
	EXPECT_EQ(0, bus1_builder_add_fd(builder, fds[0]));
	EXPECT_EQ(1, bus1_builder_send(builder, 0));
	ASSERT_EQ(0, bus1_peer_recv(self->b, 0, &m));

	pid = FORK();
	if (!pid) {
		EXPECT_EQ(-ECHILD, bus1_handle_send(self->to, "x", 1));
		EXPECT_NE(NULL, strstr(bus1_last_reason(), "forked"));
		EXPECT_EQ(-ECHILD, bus1_builder_send(builder, 0));
		EXPECT_EQ(-ECHILD, bus1_peer_recv(self->b, -1, &none));
		EXPECT_EQ(-ECHILD, bus1_peer_dispatch(self->b, 0));
		EXPECT_EQ(-ECHILD, bus1_peer_get_limits(self->b, &limits));
		EXPECT_EQ(-ECHILD, bus1_peer_get_poll_fd(self->b));
		EXPECT_EQ(-ECHILD, bus1_peer_disconnect(self->b));
		EXPECT_EQ(-ECHILD, bus1_peer_flush(self->b, BUS1_FLUSH_ALL));
		EXPECT_EQ(-ECHILD, bus1_node_destroy(self->node));
		EXPECT_EQ(-ECHILD, bus1_node_new(self->b, 0, NULL, NULL, &node));
		EXPECT_EQ(-ECHILD, bus1_message_get_handle(m, 0, &h));
		EXPECT_EQ(-ECHILD, bus1_message_take_fd(m, 0));
		EXPECT_EQ(-ECHILD, bus1_message_dispatch(m));
		EXPECT_EQ(0, self->log.n);
		EXPECT_EQ(-ECHILD, bus1_builder_new(self->a, &builder));
		bus1_message_unref(m);
		bus1_builder_unref(builder);
		bus1_handle_unref(self->to);
		bus1_node_unref(self->node);
		bus1_peer_unref(self->a);
		bus1_peer_unref(self->b);
		EXPECT_EQ(self->n_fds + 2, count_fds());
		/* Objects of its own are fine. */
		ASSERT_EQ(0, bus1_peer_new(&peer));
		EXPECT_EQ(0, bus1_peer_dispatch(peer, 0));
		bus1_peer_unref(peer);
		EXPECT_EQ(0, lost_memory());
		_exit(_metadata->exit_code);
	}
	WAIT(pid);
	/* All is as it was. */
	EXPECT_EQ(1, counter(self->b, "bus1-slices"));
	EXPECT_LE(0, bus1_message_get_fd(m, 0));
	EXPECT_EQ(0, bus1_message_get_handle(m, 0, &h));
	bus1_handle_unref(h);
	bus1_message_unref(m);
	EXPECT_EQ(1, bus1_builder_send(builder, 0));
	EXPECT_EQ(1, bus1_peer_dispatch(self->b, 0));
	bus1_builder_unref(builder);
	close(fds[0]);
	close(fds[1]);
}

static pid_t forked;

static int fork_once(struct bus1_message *m, void *userdata)
{
	int *n = userdata, status;

	(void)m;
	if ((*n)++)
		return 0;
	forked = fork();
	if (forked > 0 && (waitpid(forked, &status, 0) != forked || status))
		return -EPROTO;
	return forked < 0 ? -errno : 0;
}

TEST_F(lib, a_handler_can_fork)
{
	struct bus1_handle *h;
	struct bus1_node *node;
	int n = 0, r;

	ASSERT_EQ(0, bus1_node_new(self->b, BUS1_ID_AUTO, fork_once, &n, &node));
	ASSERT_EQ(0, bus1_handle_transfer(bus1_node_get_handle(node), self->a, &h));
	ASSERT_LE(0, bus1_peer_get_poll_fd(self->b));
	EXPECT_EQ(1, bus1_handle_send(h, "x", 1));
	EXPECT_EQ(1, bus1_handle_send(h, "y", 1));
	r = bus1_peer_dispatch(self->b, 0);
	if (!forked)
		_exit(r == -ECHILD ? 0 : 1);
	EXPECT_EQ(2, r);
	EXPECT_EQ(2, n);
	/* The child has not touched what both have. */
	struct pollfd p = { .fd = bus1_peer_get_poll_fd(self->b), .events = POLLIN };

	EXPECT_EQ(0, poll(&p, 1, 0));
	bus1_handle_unref(h);
	bus1_node_unref(node);
}

#define THREADS	4

struct work {
	struct bus1_peer *peer;
	struct bus1_handle *to;
	atomic_int *handled;
	int rounds;
	int total;
	int failed;
};

static int count_one(struct bus1_message *m, void *userdata)
{
	struct bus1_handle *h;
	int r = 0;

	if (bus1_message_get_type(m) != BUS1_TYPE_DATA)
		return 0;
	r = bus1_message_get_handle(m, 0, &h);
	if (r == 0)
		bus1_handle_unref(h);
	atomic_fetch_add((atomic_int *)userdata, 1);
	return r;
}

static void *send_some(void *arg)
{
	struct work *work = arg;
	struct bus1_builder *builder;
	int i;

	work->failed = bus1_builder_new(work->peer, &builder);
	if (work->failed)
		return NULL;
	work->failed |= bus1_builder_add_destination(builder, work->to);
	work->failed |= bus1_builder_add_handle(builder, work->to);
	for (i = 0; i < work->rounds; i++) {
		bus1_handle_unref(bus1_handle_ref(work->to));
		work->failed |= bus1_builder_send(builder, 0) != 1;
	}
	bus1_builder_unref(builder);
	return NULL;
}

static void *handle_some(void *arg)
{
	struct work *work = arg;
	struct pollfd p = { .fd = bus1_peer_get_poll_fd(work->peer), .events = POLLIN };

	while (atomic_load(work->handled) < work->total) {
		/* Another one may have taken the last. */
		poll(&p, 1, 10);
		work->failed |= bus1_peer_dispatch(work->peer, work->rounds) < 0;
	}
	return NULL;
}

TEST_F(lib, threads_send_and_dispatch_on_one_peer)
{
	struct work senders[THREADS], workers[THREADS];
	pthread_t threads[2 * THREADS];
	atomic_int handled = 0;
	struct bus1_handle *h;
	struct bus1_node *node;
	int i, n = scaled_rounds(100);

	ASSERT_EQ(0, bus1_node_new(self->b, BUS1_ID_AUTO, count_one, &handled, &node));
	ASSERT_EQ(0, bus1_handle_transfer(bus1_node_get_handle(node), self->a, &h));
	for (i = 0; i < THREADS; i++) {
		senders[i] = (struct work){ .peer = self->a, .to = h, .rounds = n };
		workers[i] = (struct work){ .peer = self->b, .rounds = i, .handled = &handled,
					    .total = n * THREADS };
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, handle_some, &workers[i]));
		ASSERT_EQ(0, pthread_create(&threads[THREADS + i], NULL, send_some,
					    &senders[i]));
	}
	for (i = 0; i < 2 * THREADS; i++)
		pthread_join(threads[i], NULL);
	for (i = 0; i < THREADS; i++) {
		EXPECT_EQ(0, senders[i].failed);
		EXPECT_EQ(0, workers[i].failed);
	}
	EXPECT_EQ(n * THREADS, atomic_load(&handled));
	bus1_handle_unref(h);
	/* The pinned one is the only one left. */
	EXPECT_EQ(-EBUSY, bus1_handle_release(bus1_peer_get_fd(self->b),
					      bus1_node_get_id(node)));
	bus1_node_unref(node);
}

struct giver {
	struct bus1_node *node;
	struct bus1_peer *to;
	atomic_int released;
	atomic_bool done;
	int failed;
};

static int count_releases(struct bus1_message *m, void *userdata)
{
	struct giver *giver = userdata;

	if (bus1_message_get_type(m) == BUS1_TYPE_NODE_RELEASE)
		atomic_fetch_add(&giver->released, 1);
	return 0;
}

static void *hear_of_it(void *arg)
{
	struct giver *giver = arg;
	struct bus1_peer *peer = bus1_node_get_peer(giver->node);
	struct pollfd p = { .fd = bus1_peer_get_poll_fd(peer), .events = POLLIN };

	while (!atomic_load(&giver->done)) {
		poll(&p, 1, 10);
		giver->failed |= bus1_peer_dispatch(peer, 0) < 0;
	}
	return NULL;
}

/* However the two threads meet, it is told each time, in the end. */
TEST_F(lib, threads_hear_of_each_release)
{
	struct giver giver = { .to = self->a };
	int i, n = scaled_rounds(200), before, waited;
	struct bus1_handle *h;
	pthread_t threads[2];

	ASSERT_EQ(0, bus1_node_new(self->b, BUS1_ID_AUTO, count_releases, &giver,
				   &giver.node));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, hear_of_it, &giver));
	for (i = 0; i < n; i++) {
		before = atomic_load(&giver.released);
		ASSERT_EQ(0, bus1_handle_transfer(bus1_node_get_handle(giver.node), self->a,
						  &h));
		bus1_handle_unref(h);
		for (waited = 0; atomic_load(&giver.released) == before; waited++) {
			ASSERT_GT(600000, waited);
			usleep(100);
		}
	}
	atomic_store(&giver.done, true);
	for (i = 0; i < 2; i++)
		pthread_join(threads[i], NULL);
	EXPECT_EQ(0, giver.failed);
	EXPECT_EQ(n, atomic_load(&giver.released));
	bus1_node_unref(giver.node);
}

struct caller {
	struct bus1_builder *builder;
	struct bus1_message *reply;
	int result;
};

static void *call_once(void *arg)
{
	struct caller *caller = arg;

	caller->result = bus1_builder_call(caller->builder, -1, &caller->reply);
	return NULL;
}

TEST_F(lib, a_second_call_at_the_same_time_is_refused)
{
	struct caller caller = {};
	struct bus1_builder *builder;
	struct bus1_message *m;
	pthread_t thread;

	ASSERT_EQ(0, bus1_builder_new(self->a, &caller.builder));
	EXPECT_EQ(0, bus1_builder_add_destination(caller.builder, self->to));
	ASSERT_EQ(0, bus1_builder_new(self->a, &builder));
	EXPECT_EQ(0, bus1_builder_add_destination(builder, self->to));
	ASSERT_EQ(0, pthread_create(&thread, NULL, call_once, &caller));
	ASSERT_EQ(0, bus1_peer_recv(self->b, -1, &m));
	EXPECT_EQ(-EBUSY, bus1_builder_call(builder, -1, &caller.reply));
	EXPECT_NE(NULL, strstr(bus1_last_reason(), "another call"));
	bus1_builder_unref(builder);
	ASSERT_EQ(0, bus1_builder_new(self->b, &builder));
	EXPECT_EQ(1, bus1_builder_reply(builder, m));
	bus1_message_unref(m);
	pthread_join(thread, NULL);
	EXPECT_EQ(0, caller.result);
	bus1_message_unref(caller.reply);
	bus1_builder_unref(caller.builder);
	bus1_builder_unref(builder);
}

TEST_HARNESS_MAIN
