// SPDX-License-Identifier: LGPL-2.1-or-later
/*
 * Peers: the descriptor, the pool, the queue, receiving
 */
#include <assert.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <time.h>
#include <unistd.h>

#include "internal.h"

/* The first mapping of a pool; more of it is mapped when messages arrive there. */
#define MAP_FIRST	((size_t)1 << 20)
/* All of a pool, where that fits. */
#define MAP_LAST	((size_t)1 << (sizeof(size_t) > 4 ? 32 : 31))
/* The most messages of a dispatch that has no limit. */
#define DISPATCH_MAX	256

/* Counts the forks that lead to this process. */
unsigned int bus1__generation;

static pthread_once_t once = PTHREAD_ONCE_INIT;
static int once_result;

static void count_fork(void)
{
	bus1__generation++;
}

static void watch_forks(void)
{
	once_result = -pthread_atfork(NULL, NULL, count_fork);
}

int bus1__ioctl(const struct bus1_peer *peer, unsigned long request, void *argument)
{
	return ioctl(peer->fd, request, argument) < 0 ? -errno : 0;
}

/* Can commands be issued? */
int bus1__check(const struct bus1_peer *peer)
{
	if (bus1__forked(peer))
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ECHILD);
	if (peer->fd < 0)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -EBADF);
	return 0;
}

/* Has the kernel to be told when an object of @epoch goes? */
bool bus1__tell(const struct bus1_peer *peer, unsigned int epoch)
{
	return !bus1__forked(peer) && peer->fd >= 0 && epoch == peer->epoch &&
	       !peer->disconnected;
}

/*
 * The pool
 */

static struct map *map_new(int fd, size_t length)
{
	struct map *map;
	int error;

	map = malloc(sizeof(*map));
	if (!map)
		return NULL;
	map->address = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, 0);
	if (map->address == MAP_FAILED) {
		error = errno;
		free(map);
		errno = error;
		return NULL;
	}
	atomic_init(&map->refs, 1);
	map->length = length;
	return map;
}

void bus1__map_unref(struct map *map)
{
	if (map && atomic_fetch_sub(&map->refs, 1) == 1) {
		munmap(map->address, map->length);
		free(map);
	}
}

size_t bus1__map_length(struct bus1_peer *peer)
{
	size_t length;

	pthread_mutex_lock(&peer->lock);
	length = peer->map->length;
	pthread_mutex_unlock(&peer->lock);
	return length;
}

/* More than the @length that was too short is mapped, unless it is already. */
int bus1__map_grow(struct bus1_peer *peer, size_t length)
{
	struct map *map;
	int r = 0;

	pthread_mutex_lock(&peer->lock);
	map = peer->map;
	if (map->length > length)
		goto out;
	r = -ERANGE;
	if (length > MAP_LAST / 2)
		goto out;
	length *= 2;
	if (mremap(map->address, map->length, length, 0) != MAP_FAILED) {
		map->length = length;
		r = 0;
		goto out;
	}
	map = map_new(peer->fd, length);
	if (!map) {
		/* A peer that is disconnected, say so; or no room. */
		r = errno == ESHUTDOWN || errno == ENFILE ? -errno : -ERANGE;
		goto out;
	}
	bus1__map_unref(peer->map);
	peer->map = map;
	r = 0;
out:
	pthread_mutex_unlock(&peer->lock);
	return r;
}

/*
 * Peers
 */

static uint64_t first_id(void)
{
	struct timespec now;
	uint64_t id = 0;

	/* That of the next process must be another one, if it uses the same peer. */
	if (getrandom(&id, sizeof(id), GRND_NONBLOCK) != sizeof(id)) {
		clock_gettime(CLOCK_REALTIME, &now);
		id = ((uint64_t)now.tv_sec * 1000000000 + now.tv_nsec) << 24;
		id ^= (uint64_t)getpid() << 3;
	}
	return id & ~(uint64_t)7;
}

static int new_fd(int fd, enum bus1_command command, struct bus1_peer **result)
{
	struct bus1_cmd_peer_reset query = { 0 };
	struct bus1_peer *peer;
	int r;

	pthread_once(&once, watch_forks);
	if (once_result)
		return bus1__fail(BUS1_COMMAND_LIBRARY, once_result);
	if (ioctl(fd, BUS1_CMD_PEER_QUERY, &query) < 0) {
		/* Who knows what others say. */
		r = errno == EBADF || errno == ESHUTDOWN ? -errno : -ENOTTY;
		return bus1__fail(command, r);
	}

	peer = calloc(1, sizeof(*peer));
	if (!peer)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ENOMEM);
	peer->n_buckets = 16;
	peer->buckets = calloc(peer->n_buckets, sizeof(*peer->buckets));
	if (!peer->buckets) {
		free(peer);
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ENOMEM);
	}
	peer->map = map_new(fd, MAP_FIRST);
	if (!peer->map) {
		r = -errno;
		free(peer->buckets);
		free(peer);
		return bus1__fail(BUS1_COMMAND_MMAP, r);
	}

	atomic_init(&peer->refs, 1);
	atomic_init(&peer->epoch, 0);
	atomic_init(&peer->disconnected, false);
	atomic_init(&peer->accept_fds, true);
	peer->generation = bus1__generation;
	peer->fd = fd;
	peer->next_id = first_id();
	peer->last = &peer->first;
	peer->poll_fd = -1;
	peer->event_fd = -1;
	pthread_mutex_init(&peer->lock, NULL);
	*result = peer;
	return 0;
}

EXPORT int bus1_peer_new_fd(int fd, struct bus1_peer **peer)
{
	return new_fd(fd, BUS1_COMMAND_QUERY, peer);
}

EXPORT int bus1_peer_new_path(const char *path, struct bus1_peer **peer)
{
	int fd, r;

	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return bus1__fail(BUS1_COMMAND_OPEN, -errno);
	r = new_fd(fd, BUS1_COMMAND_OPEN, peer);
	if (r < 0)
		close(fd);
	return r;
}

EXPORT int bus1_peer_new(struct bus1_peer **peer)
{
	return bus1_peer_new_path("/dev/bus1", peer);
}

EXPORT struct bus1_peer *bus1_peer_ref(struct bus1_peer *peer)
{
	if (peer)
		atomic_fetch_add(&peer->refs, 1);
	return peer;
}

static void drop_queue(struct bus1_peer *peer, struct bus1_message *message)
{
	struct bus1_message *next;

	for (; message; message = next) {
		next = message->next;
		bus1__message_drop(peer, message);
	}
}

/* To be dropped, without the lock. */
static struct bus1_message *take_queue_locked(struct bus1_peer *peer)
{
	struct bus1_message *queue = peer->first;

	peer->first = NULL;
	peer->last = &peer->first;
	bus1__update_event_locked(peer);
	return queue;
}

static void close_descriptors(struct bus1_peer *peer)
{
	if (peer->poll_fd >= 0)
		close(peer->poll_fd);
	if (peer->event_fd >= 0)
		close(peer->event_fd);
	peer->poll_fd = -1;
	peer->event_fd = -1;
}

EXPORT struct bus1_peer *bus1_peer_unref(struct bus1_peer *peer)
{
	struct bus1_message *message;

	if (!peer || atomic_fetch_sub(&peer->refs, 1) != 1)
		return NULL;

	/* The kernel drops all of it, or others have the descriptor, and care. */
	peer->epoch++;
	drop_queue(peer, peer->first);
	bus1__forget_doomed_locked(peer);
	while ((message = peer->spare)) {
		peer->spare = message->next;
		free(message);
	}
	bus1__map_unref(peer->map);
	close_descriptors(peer);
	if (peer->fd >= 0)
		close(peer->fd);
	pthread_mutex_destroy(&peer->lock);
	free(peer->buckets);
	free(peer);
	return NULL;
}

EXPORT int bus1_peer_get_fd(struct bus1_peer *peer)
{
	return peer->fd >= 0 ? peer->fd : bus1__fail(BUS1_COMMAND_LIBRARY, -EBADF);
}

/* Makes the descriptor that event loops look at tell whether the queue is empty. */
void bus1__update_event_locked(struct bus1_peer *peer)
{
	uint64_t value = 1;
	ssize_t n;

	if (peer->event_fd < 0 || peer->event_set == !!peer->first)
		return;
	if (peer->first)
		n = write(peer->event_fd, &value, sizeof(value));
	else
		n = read(peer->event_fd, &value, sizeof(value));
	if (n == sizeof(value))
		peer->event_set = !peer->event_set;
}

static int make_poll_fd(struct bus1_peer *peer)
{
	struct epoll_event event = { .events = EPOLLIN };

	peer->event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	if (peer->event_fd < 0)
		return -errno;
	peer->poll_fd = epoll_create1(EPOLL_CLOEXEC);
	if (peer->poll_fd < 0 ||
	    epoll_ctl(peer->poll_fd, EPOLL_CTL_ADD, peer->fd, &event) < 0 ||
	    epoll_ctl(peer->poll_fd, EPOLL_CTL_ADD, peer->event_fd, &event) < 0)
		return -errno;
	peer->event_set = false;
	bus1__update_event_locked(peer);
	return 0;
}

EXPORT int bus1_peer_get_poll_fd(struct bus1_peer *peer)
{
	int r;

	r = bus1__check(peer);
	if (r < 0)
		return r;
	pthread_mutex_lock(&peer->lock);
	if (peer->poll_fd < 0) {
		r = make_poll_fd(peer);
		if (r < 0)
			close_descriptors(peer);
	}
	if (r == 0)
		r = peer->poll_fd;
	pthread_mutex_unlock(&peer->lock);
	return r < 0 ? bus1__fail(BUS1_COMMAND_LIBRARY, r) : r;
}

EXPORT int bus1_peer_steal_fd(struct bus1_peer *peer)
{
	struct bus1_message *queue;
	int fd, r;

	r = bus1__check(peer);
	if (r < 0)
		return r;
	pthread_mutex_lock(&peer->lock);
	queue = peer->first;
	peer->first = NULL;
	peer->last = &peer->first;
	pthread_mutex_unlock(&peer->lock);
	drop_queue(peer, queue);
	bus1_peer_trim(peer);
	fd = peer->fd;
	peer->fd = -1;
	close_descriptors(peer);
	return fd;
}

EXPORT int bus1_peer_disconnect(struct bus1_peer *peer)
{
	struct bus1_message *queue;
	int r;

	r = bus1__check(peer);
	if (r < 0)
		return r;
	/*
	 * The memory that these are in will be gone, and that of what another thread is
	 * receiving, too. It cannot fail to happen: a signal ends no more than the wait
	 * for commands that are still running.
	 */
	pthread_mutex_lock(&peer->lock);
	peer->disconnected = true;
	queue = take_queue_locked(peer);
	pthread_mutex_unlock(&peer->lock);
	drop_queue(peer, queue);
	r = bus1__ioctl(peer, BUS1_CMD_PEER_DISCONNECT, NULL);
	return bus1__fail(BUS1_COMMAND_DISCONNECT, r);
}

EXPORT int bus1_peer_flush(struct bus1_peer *peer, unsigned int flags)
{
	struct bus1_cmd_peer_reset reset = {
		.peer_flags = -1,
		.max_slices = -1,
		.max_handles = -1,
		.max_inflight_bytes = -1,
		.max_inflight_fds = -1,
	};
	struct bus1_message *queue;
	int r;

	r = bus1__check(peer);
	if (r < 0)
		return r;
	if (flags & ~(unsigned int)(BUS1_FLUSH_ALL | BUS1_FLUSH_SEED))
		return bus1__fail(BUS1_COMMAND_RESET, -EINVAL);
	reset.flags = (flags & BUS1_FLUSH_ALL ? BUS1_PEER_RESET_FLAG_FLUSH : 0) |
		      (flags & BUS1_FLUSH_SEED ? BUS1_PEER_RESET_FLAG_FLUSH_SEED : 0);
	r = bus1__ioctl(peer, BUS1_CMD_PEER_RESET, &reset);
	if (r < 0 || !(flags & BUS1_FLUSH_ALL))
		return bus1__fail(BUS1_COMMAND_RESET, r);

	/* What there was is gone, and its numbers will be used again. */
	pthread_mutex_lock(&peer->lock);
	peer->epoch++;
	bus1__handles_forget_locked(peer);
	bus1__forget_doomed_locked(peer);
	peer->n_slices = 0;
	peer->n_slice_bytes = 0;
	queue = take_queue_locked(peer);
	pthread_mutex_unlock(&peer->lock);
	drop_queue(peer, queue);
	return 0;
}

EXPORT int bus1_peer_get_limits(struct bus1_peer *peer, struct bus1_limits *limits)
{
	struct bus1_cmd_peer_reset query = { 0 };
	int r;

	r = bus1__check(peer);
	if (r < 0)
		return r;
	r = bus1__ioctl(peer, BUS1_CMD_PEER_QUERY, &query);
	if (r < 0)
		return bus1__fail(BUS1_COMMAND_QUERY, r);
	limits->slices = query.max_slices;
	limits->handles = query.max_handles;
	limits->bytes = query.max_inflight_bytes;
	limits->fds = query.max_inflight_fds;
	return 0;
}

EXPORT int bus1_peer_set_limits(struct bus1_peer *peer, const struct bus1_limits *limits)
{
	struct bus1_cmd_peer_reset reset = {
		.peer_flags = -1,
		.max_slices = limits->slices,
		.max_handles = limits->handles,
		.max_inflight_bytes = limits->bytes,
		.max_inflight_fds = limits->fds,
	};
	int r;

	r = bus1__check(peer);
	if (r < 0)
		return r;
	r = bus1__ioctl(peer, BUS1_CMD_PEER_RESET, &reset);
	return bus1__fail(BUS1_COMMAND_RESET, r);
}

EXPORT void bus1_peer_set_accept_fds(struct bus1_peer *peer, bool accept)
{
	peer->accept_fds = accept;
}

EXPORT void bus1_peer_set_handler(struct bus1_peer *peer, bus1_handler_t handler,
				  void *userdata)
{
	peer->handler = handler;
	peer->userdata = userdata;
}

/*
 * Slices
 */

/* Gives slices back; what cannot be is nothing that is left to do. */
static int release_slices(struct bus1_peer *peer, uint64_t *slices, size_t n)
{
	struct bus1_cmd_send_recv cmd = {
		.ptr_slices = (uintptr_t)slices,
		.n_slices = n,
	};
	int r = 0;

	while (cmd.n_slices) {
		r = bus1__ioctl(peer, BUS1_CMD_SEND_RECV, &cmd);
		if (r == -ENXIO && cmd.n_slices)
			cmd.n_slices--;
		else if (r != -EINTR)
			break;
	}
	return r;
}

/* The slice of a message that is gone. */
void bus1__slice_release(struct bus1_peer *peer, const struct bus1_msg *msg)
{
	size_t size = msg->n_bytes + msg->n_handles * sizeof(uint64_t) +
		      msg->n_fds * sizeof(int);
	uint64_t slices[PENDING_MAX + 1];
	size_t n = 0;

	pthread_mutex_lock(&peer->lock);
	if (size <= PENDING_LARGE && peer->n_slices < PENDING_MAX &&
	    peer->n_slice_bytes + size <= PENDING_BYTES) {
		peer->slices[peer->n_slices++] = msg->offset;
		peer->n_slice_bytes += size;
	} else {
		n = peer->n_slices;
		memcpy(slices, peer->slices, n * sizeof(*slices));
		slices[n++] = msg->offset;
		peer->n_slices = 0;
		peer->n_slice_bytes = 0;
	}
	pthread_mutex_unlock(&peer->lock);
	if (n)
		release_slices(peer, slices, n);
}

EXPORT int bus1_peer_trim(struct bus1_peer *peer)
{
	uint64_t slices[PENDING_MAX];
	size_t n;
	int r;

	r = bus1__check(peer);
	if (r < 0)
		return r;
	bus1__destroy_doomed(peer);
	pthread_mutex_lock(&peer->lock);
	n = peer->n_slices;
	memcpy(slices, peer->slices, n * sizeof(*slices));
	peer->n_slices = 0;
	peer->n_slice_bytes = 0;
	pthread_mutex_unlock(&peer->lock);
	r = release_slices(peer, slices, n);
	return bus1__fail(BUS1_COMMAND_SLICE_RELEASE, r == -ENXIO ? 0 : r);
}

/*
 * Receiving
 */

/* The time of CLOCK_MONOTONIC at which to give up, as the kernel wants it. */
uint64_t bus1__deadline(int64_t timeout_ns)
{
	struct timespec now;

	if (timeout_ns < 0)
		return -1;
	if (timeout_ns == 0)
		return 0;
	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec + timeout_ns;
}

/* Waits as the kernel does not where the descriptor is O_NONBLOCK. */
static int wait_readable(struct bus1_peer *peer, uint64_t deadline)
{
	struct pollfd poll = { .fd = peer->fd, .events = POLLIN };
	struct timespec now, left, *timeout = NULL;
	uint64_t ns;
	int r;

	if (deadline != (uint64_t)-1) {
		clock_gettime(CLOCK_MONOTONIC, &now);
		ns = (uint64_t)now.tv_sec * 1000000000 + now.tv_nsec;
		ns = deadline > ns ? deadline - ns : 0;
		left.tv_sec = ns / 1000000000;
		left.tv_nsec = ns % 1000000000;
		timeout = &left;
	}
	r = ppoll(&poll, 1, timeout, NULL);
	if (r < 0)
		return -errno;
	return r ? 0 : -ETIMEDOUT;
}

/*
 * Takes messages of the kernel into the queue, and to the call that waits for them. @clock is
 * that of before they were received.
 */
static void enqueue(struct bus1_peer *peer, struct bus1_message **messages,
		    const struct bus1_msg *msgs, size_t n, uint64_t clock)
{
	struct bus1_message *drop = NULL, *message;
	struct call *call;
	size_t i;

	pthread_mutex_lock(&peer->lock);
	if (peer->disconnected) {
		/* Another thread has, meanwhile: there is no memory to look at. */
		pthread_mutex_unlock(&peer->lock);
		for (i = 0; i < n; i++)
			bus1__message_recycle(peer, messages[i]);
		return;
	}
	call = peer->call;
	for (i = 0; i < n; i++) {
		message = messages[i];
		bus1__message_fill_locked(peer, message, &msgs[i], clock);
		if (call && message->msg.destination == call->id) {
			if (message->msg.type == BUS1_MSG_DATA && !call->reply) {
				call->reply = message;
				continue;
			}
			if (message->msg.type != BUS1_MSG_DATA)
				call->reset = true;
			message->next = drop;
			drop = message;
			continue;
		}
		*peer->last = message;
		peer->last = &message->next;
	}
	pthread_mutex_unlock(&peer->lock);
	drop_queue(peer, drop);
}

/*
 * Receives up to @n messages into the queue, and waits for the first one as @cmd says,
 * which has everything else: what to send, and until when to wait. If there is something to
 * send, sent() is called with @data once it was, before anything is received.
 *
 * Returns the number of messages, or what the kernel said; -ETIMEDOUT and not -EAGAIN if
 * there are none.
 */
int bus1__receive(struct bus1_peer *peer, struct bus1_cmd_send_recv *cmd, size_t n,
		  void (*sent)(void *), void *data)
{
	struct bus1_message *messages[BATCH];
	struct bus1_msg msgs[BATCH];
	uint64_t slices[PENDING_MAX], clock, send;
	size_t i, got = 0, length;
	bool doomed;
	int r;

	for (i = 0; i < n; i++) {
		messages[i] = bus1__message_new(peer);
		if (!messages[i])
			break;
	}
	n = i;
	if (n == 0)
		return -ENOMEM;
	/* For checkers that do not know what the kernel writes. */
	memset(msgs, 0, n * sizeof(*msgs));

	pthread_mutex_lock(&peer->lock);
	memcpy(slices, peer->slices, peer->n_slices * sizeof(*slices));
	cmd->n_slices = peer->n_slices;
	peer->n_slices = 0;
	peer->n_slice_bytes = 0;
	length = peer->map->length;
	clock = peer->clock;
	doomed = peer->doomed;
	pthread_mutex_unlock(&peer->lock);
	if (doomed)
		bus1__destroy_doomed(peer);

	cmd->ptr_slices = (uintptr_t)slices;
	cmd->ptr_messages = (uintptr_t)msgs;
	cmd->n_messages = n;
	if (peer->accept_fds)
		cmd->flags |= BUS1_SEND_RECV_FLAG_INSTALL_FDS;

	for (;;) {
		cmd->max_offset = length;
		cmd->n_received = 0;
		send = cmd->flags & BUS1_SEND_RECV_FLAG_SEND;
		r = bus1__ioctl(peer, BUS1_CMD_SEND_RECV, cmd);
		if (send && !(cmd->flags & BUS1_SEND_RECV_FLAG_SEND) && sent)
			sent(data);
		if (r == 0) {
			got = cmd->n_received;
			break;
		}
		if (cmd->flags & BUS1_SEND_RECV_FLAG_SEND)
			break;
		if (r == -ERANGE) {
			r = bus1__map_grow(peer, length);
			if (r < 0)
				break;
			length = bus1__map_length(peer);
		} else if (r == -ENXIO && cmd->n_slices) {
			/* Somebody else has released that one. */
			cmd->n_slices--;
		} else if (r == -EAGAIN) {
			r = wait_readable(peer, cmd->timeout);
			if (r < 0)
				break;
		} else if (r != -EINTR || cmd->timeout != 0) {
			break;
		}
	}

	enqueue(peer, messages, msgs, got, clock);
	for (i = got; i < n; i++)
		bus1__message_recycle(peer, messages[i]);
	/* What was not done is left to the next call. */
	for (i = 0; i < cmd->n_slices; i++)
		bus1__slice_release(peer, &(struct bus1_msg){ .offset = slices[i] });
	cmd->n_slices = 0;
	return r < 0 ? r : (int)got;
}

/* The next message of the queue, to be handed out, or NULL. */
static struct bus1_message *dequeue(struct bus1_peer *peer)
{
	struct bus1_message *message;
	struct delivery delivery;

	do {
		pthread_mutex_lock(&peer->lock);
		message = peer->first;
		if (message) {
			peer->first = message->next;
			if (!peer->first)
				peer->last = &peer->first;
			message->next = NULL;
			bus1__message_deliver_locked(peer, message, &delivery);
		}
		pthread_mutex_unlock(&peer->lock);
	} while (message && !bus1__message_delivered(peer, message, &delivery));
	return message;
}

static void update_event(struct bus1_peer *peer)
{
	/* A handler may have forked: the descriptor is the parent's, too. */
	if (bus1__forked(peer))
		return;
	pthread_mutex_lock(&peer->lock);
	bus1__update_event_locked(peer);
	pthread_mutex_unlock(&peer->lock);
}

EXPORT int bus1_peer_dispatch(struct bus1_peer *peer, unsigned int max)
{
	struct bus1_cmd_send_recv cmd;
	struct bus1_message *message;
	unsigned int n = 0;
	int r;

	r = bus1__check(peer);
	if (r < 0)
		return r;
	if (max == 0)
		max = DISPATCH_MAX;
	if (max > INT_MAX)
		max = INT_MAX;

	/* A handler may drop the last reference of the program. */
	bus1_peer_ref(peer);
	while (n < max) {
		message = dequeue(peer);
		if (message) {
			n++;
			r = bus1_message_dispatch(message);
			bus1_message_unref(message);
			if (r < 0)
				break;
			/* A handler may have done anything. */
			r = bus1__check(peer);
			if (r < 0)
				break;
			continue;
		}
		memset(&cmd, 0, sizeof(cmd));
		r = bus1__receive(peer, &cmd, max - n < BATCH ? max - n : BATCH, NULL, NULL);
		if (r < 0) {
			/* What has been handled is told first; it comes again. */
			if (r == -ETIMEDOUT || n > 0)
				r = 0;
			else
				bus1__fail(BUS1_COMMAND_RECV, r);
			break;
		}
	}
	update_event(peer);
	bus1_peer_unref(peer);
	return r < 0 ? r : (int)n;
}

EXPORT int bus1_peer_recv(struct bus1_peer *peer, int64_t timeout_ns,
			  struct bus1_message **result)
{
	uint64_t deadline = bus1__deadline(timeout_ns);
	struct bus1_cmd_send_recv cmd;
	struct bus1_message *message;
	int r;

	r = bus1__check(peer);
	if (r < 0)
		return r;
	while (!(message = dequeue(peer))) {
		memset(&cmd, 0, sizeof(cmd));
		cmd.timeout = deadline;
		r = bus1__receive(peer, &cmd, 1, NULL, NULL);
		if (r < 0)
			break;
	}
	update_event(peer);
	if (!message) {
		if (r == -ETIMEDOUT && timeout_ns == 0)
			r = -EAGAIN;
		return bus1__fail(BUS1_COMMAND_RECV, r);
	}
	*result = message;
	return 0;
}

EXPORT int bus1_peer_recv_seed(struct bus1_peer *peer, struct bus1_message **result)
{
	struct bus1_cmd_recv recv;
	struct bus1_message *message;
	struct bus1_msg msg;
	size_t length;
	int r;

	r = bus1__check(peer);
	if (r < 0)
		return r;
	message = bus1__message_new(peer);
	if (!message)
		return bus1__fail(BUS1_COMMAND_LIBRARY, -ENOMEM);
	for (;;) {
		length = bus1__map_length(peer);
		memset(&recv, 0, sizeof(recv));
		recv.flags = BUS1_RECV_FLAG_SEED;
		if (peer->accept_fds)
			recv.flags |= BUS1_RECV_FLAG_INSTALL_FDS;
		recv.max_offset = length;
		r = bus1__ioctl(peer, BUS1_CMD_RECV, &recv);
		if (r == -ERANGE) {
			r = bus1__map_grow(peer, length);
			if (r == 0)
				continue;
		}
		if (r != -EINTR)
			break;
	}
	if (r < 0) {
		bus1__message_recycle(peer, message);
		return bus1__fail(BUS1_COMMAND_RECV, r);
	}
	static_assert(sizeof(msg) == sizeof(recv.msg), "they are the same");
	memcpy(&msg, &recv.msg, sizeof(msg));
	pthread_mutex_lock(&peer->lock);
	if (peer->disconnected)
		r = -ESHUTDOWN;
	else
		bus1__message_fill_locked(peer, message, &msg, 0);
	pthread_mutex_unlock(&peer->lock);
	if (r < 0) {
		bus1__message_recycle(peer, message);
		return bus1__fail(BUS1_COMMAND_RECV, r);
	}
	bus1__message_deliver(peer, message);
	*result = message;
	return 0;
}
