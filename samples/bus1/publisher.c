// SPDX-License-Identifier: GPL-2.0-only
/*
 * publisher: one sends, a thousand receive
 *
 *	cc publisher.c $(pkg-config --cflags --libs libbus1)
 *
 * Subscribers give the publisher a handle to a node of their own. It sends each piece of news
 * once, to all of them: one transaction, which each of them receives or none. With
 * BUS1_SEND_SKIP those who are gone or do not read are left out instead, and each one that
 * was is known by its index: the publisher strikes it off. Nobody else notices.
 *
 * The subscribers are peers of one process here, with one epoll loop for all.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bus1/bus1.h>

#define N_SUBSCRIBERS	1000
#define N_NEWS		15	/* all of them together are within the budget of one user */
#define LAZY		0	/* this one does not read, and has room for a few */
#define LAZY_ROOM	5
#define LEAVES		1	/* this one goes */
#define LEAVES_AFTER	10
#define INSISTS		2	/* this one subscribes three times */

static int check(int r, const char *what)
{
	if (r < 0)
		errx(EXIT_FAILURE, "%s: %s (%s)", what, strerror(-r), bus1_last_reason());
	return r;
}

/*
 * The publisher
 */

static struct bus1_handle *subscribers[N_SUBSCRIBERS];
static size_t n_subscribers;

static int on_subscribe(struct bus1_message *message, void *userdata)
{
	struct bus1_handle *handle;
	size_t i;

	(void)userdata;
	if (bus1_message_get_type(message) != BUS1_TYPE_DATA ||
	    bus1_message_get_handle(message, 0, &handle) < 0)
		return 0;
	/*
	 * Each one once: there is one object for each handle, and a transaction to twice the
	 * same one is refused (-ENOTUNIQ), which would be the end of all news.
	 */
	for (i = 0; i < n_subscribers && subscribers[i] != handle; i++)
		;
	if (i == n_subscribers && n_subscribers < N_SUBSCRIBERS)
		subscribers[n_subscribers++] = handle;
	else
		bus1_handle_unref(handle);
	return 0;
}

/* Send to all, and strike off those who cannot get it. */
static void publish(struct bus1_peer *peer, const void *data, size_t size)
{
	struct bus1_builder *builder;
	size_t i, n = 0;
	int r;

	check(bus1_builder_new(peer, &builder), "new message");
	check(bus1_builder_add_data(builder, data, size), "add");
	for (i = 0; i < n_subscribers; i++)
		check(bus1_builder_add_destination(builder, subscribers[i]), "add");
	check(bus1_builder_send(builder, BUS1_SEND_SKIP), "send");

	for (i = 0; i < n_subscribers; i++) {
		r = bus1_builder_get_error(builder, i);
		if (r == 0) {
			subscribers[n++] = subscribers[i];
			continue;
		}
		printf("publisher: subscriber struck off: %s\n",
		       bus1_strerror(BUS1_COMMAND_SEND, r));
		bus1_handle_unref(subscribers[i]);
	}
	n_subscribers = n;
	bus1_builder_unref(builder);
}

/* One subscriber leaves after some news: the kernel says so. */
static void wait_for_leaver(struct bus1_peer *peer)
{
	struct bus1_message *message;
	enum bus1_type type;

	do {
		check(bus1_peer_recv(peer, -1, &message), "receive");
		type = bus1_message_get_type(message);
		bus1_message_unref(message);
	} while (type != BUS1_TYPE_NODE_DESTROY);
	printf("publisher: one subscriber has left\n");
}

/*
 * The subscribers
 */

struct subscriber {
	struct bus1_peer *peer;
	struct bus1_node *node;
	uint32_t n_heard;
};

static int n_listening;

static void unsubscribe(struct subscriber *s)
{
	s->node = bus1_node_unref(s->node);
	s->peer = bus1_peer_unref(s->peer);
	n_listening--;
}

static int on_news(struct bus1_message *message, void *userdata)
{
	struct subscriber *s = userdata;
	const uint32_t *news;
	size_t size;

	if (bus1_message_get_type(message) != BUS1_TYPE_DATA)
		return 0;
	news = bus1_message_get_data(message, &size);
	if (size != sizeof(*news) || *news != s->n_heard)
		errx(EXIT_FAILURE, "a subscriber has missed something");
	s->n_heard++;
	return 0;
}

/* A peer of a subscriber, that has subscribed, is watched for news. */
static void subscribe(struct subscriber *s, int fd, uint64_t id, int epoll, int number)
{
	int i, n = number == INSISTS ? 3 : 1;
	struct epoll_event event = { .events = EPOLLIN, .data.ptr = s };
	struct bus1_handle *publisher;
	struct bus1_builder *builder;

	check(bus1_peer_new_fd(fd, &s->peer), "peer");
	check(bus1_handle_new(s->peer, id, &publisher), "handle");
	check(bus1_node_new(s->peer, BUS1_ID_AUTO, on_news, s, &s->node), "node");
	if (number == LAZY) {
		struct bus1_limits limits = {
			.slices = LAZY_ROOM,
			.handles = BUS1_LIMIT_KEEP,
			.bytes = BUS1_LIMIT_KEEP,
			.fds = BUS1_LIMIT_KEEP,
		};

		check(bus1_peer_set_limits(s->peer, &limits), "limits");
	} else {
		int poll_fd = check(bus1_peer_get_poll_fd(s->peer), "poll descriptor");

		if (epoll_ctl(epoll, EPOLL_CTL_ADD, poll_fd, &event) < 0)
			err(EXIT_FAILURE, "epoll_ctl");
	}

	check(bus1_builder_new(s->peer, &builder), "new message");
	check(bus1_builder_add_handle(builder, bus1_node_get_handle(s->node)), "add handle");
	check(bus1_builder_add_destination(builder, publisher), "add destination");
	for (i = 0; i < n; i++)
		check(bus1_builder_send(builder, 0), "subscribe");
	bus1_builder_unref(builder);
	bus1_handle_unref(publisher);
	n_listening += number != LAZY;
}

static void run_subscribers(const int *fds, const uint64_t *ids)
{
	static struct subscriber all[N_SUBSCRIBERS];
	int epoll = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event events[64];
	int i, n, r;

	if (epoll < 0)
		err(EXIT_FAILURE, "epoll_create1");
	for (i = 0; i < N_SUBSCRIBERS; i++)
		subscribe(&all[i], fds[i], ids[i], epoll, i);

	while (n_listening > 0) {
		n = epoll_wait(epoll, events, 64, -1);
		if (n < 0 && errno != EINTR)
			err(EXIT_FAILURE, "epoll_wait");
		for (i = 0; i < n; i++) {
			struct subscriber *s = events[i].data.ptr;

			r = bus1_peer_dispatch(s->peer, 0);
			check(r, "dispatch");
			if (s->n_heard == N_NEWS ||
			    (s == &all[LEAVES] && s->n_heard == LEAVES_AFTER))
				unsubscribe(s);
		}
	}
	printf("subscribers: %d have heard all news, in order\n", N_SUBSCRIBERS - 2);
	unsubscribe(&all[LAZY]);
	close(epoll);
}

/* A peer, and in some cases three descriptors for each: more than the soft limit. */
static void raise_limit(void)
{
	struct rlimit limit;

	if (getrlimit(RLIMIT_NOFILE, &limit) < 0)
		err(EXIT_FAILURE, "getrlimit");
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit) < 0)
		err(EXIT_FAILURE, "setrlimit");
}

int main(void)
{
	static uint64_t ids[N_SUBSCRIBERS];
	static int fds[N_SUBSCRIBERS];
	struct bus1_message *message;
	struct bus1_peer *peer;
	struct bus1_node *node;
	int i, status;
	uint32_t news;
	pid_t pid;

	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(300);
	raise_limit();

	check(bus1_peer_new(&peer), "cannot open /dev/bus1");
	/* Files are of no use here, and everybody could send many. */
	bus1_peer_set_accept_fds(peer, false);
	check(bus1_node_new(peer, BUS1_ID_AUTO, on_subscribe, NULL, &node), "new node");
	for (i = 0; i < N_SUBSCRIBERS; i++) {
		fds[i] = open("/dev/bus1", O_RDWR | O_CLOEXEC);
		if (fds[i] < 0)
			err(EXIT_FAILURE, "/dev/bus1");
		check(bus1_handle_transfer_fd(bus1_node_get_handle(node), fds[i], &ids[i]),
		      "transfer");
	}

	pid = fork();
	if (pid < 0)
		err(EXIT_FAILURE, "fork");
	if (pid == 0) {
		alarm(300);
		run_subscribers(fds, ids);
		return EXIT_SUCCESS;
	}
	for (i = 0; i < N_SUBSCRIBERS; i++)
		close(fds[i]);

	while (n_subscribers < N_SUBSCRIBERS) {
		check(bus1_peer_recv(peer, -1, &message), "receive");
		check(bus1_message_dispatch(message), "dispatch");
		bus1_message_unref(message);
	}
	printf("publisher: %zu subscribers\n", n_subscribers);
	for (news = 0; news < N_NEWS; news++) {
		if (news == LEAVES_AFTER)
			wait_for_leaver(peer);
		publish(peer, &news, sizeof(news));
	}

	if (waitpid(pid, &status, 0) != pid || status)
		errx(EXIT_FAILURE, "the subscribers failed");
	if (n_subscribers != N_SUBSCRIBERS - 2)
		errx(EXIT_FAILURE, "%zu were left in the end", n_subscribers);
	while (n_subscribers > 0)
		bus1_handle_unref(subscribers[--n_subscribers]);
	bus1_node_unref(node);
	bus1_peer_unref(peer);
	return EXIT_SUCCESS;
}
