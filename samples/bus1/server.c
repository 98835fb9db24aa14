// SPDX-License-Identifier: GPL-2.0-only
/*
 * server: many threads, one peer, epoll
 *
 *	cc server.c -pthread $(pkg-config --cflags --libs libbus1)
 *
 * The library has no threads of its own: it gives a descriptor, and a function to call
 * when that is readable. So it fits into any event loop, and into several at once. Here four
 * threads wait with epoll for the same peer. Each takes one message at a time, so that no
 * thread sits on messages that another one could handle.
 *
 * Each client has a node of its own at the server: that is how the server knows who asks.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bus1/bus1.h>

#define N_THREADS	4
#define N_CLIENTS	4
#define N_REQUESTS	250

static int check(int r, const char *what)
{
	if (r < 0)
		errx(EXIT_FAILURE, "%s: %s (%s)", what, strerror(-r), bus1_last_reason());
	return r;
}

/*
 * The server
 */

struct client {
	uint32_t number;
	struct bus1_node *node;
	atomic_uint n_requests;
};

static struct client clients[N_CLIENTS];
static atomic_int n_clients = N_CLIENTS;
static struct bus1_peer *peer;
static int epoll, stop;

/* How many messages this thread has handled. */
static _Thread_local unsigned long n_handled;

/* Any of the threads. The data of the client is shared: it counts atomically. */
static int on_message(struct bus1_message *message, void *userdata)
{
	struct client *client = userdata;
	struct bus1_builder *reply;
	const uint32_t *request;
	uint32_t answer[2];
	size_t size;

	n_handled++;
	if (bus1_message_get_type(message) == BUS1_TYPE_NODE_RELEASE) {
		/* This client is gone. After the last one, all threads are told to end. */
		if (atomic_fetch_sub(&n_clients, 1) == 1 && eventfd_write(stop, 1) < 0)
			err(EXIT_FAILURE, "eventfd");
		return 0;
	}
	request = bus1_message_get_data(message, &size);
	if (size != sizeof(*request))
		return 0;

	atomic_fetch_add(&client->n_requests, 1);
	answer[0] = client->number;
	answer[1] = *request * 2;
	check(bus1_builder_new(peer, &reply), "new message");
	check(bus1_builder_add_data(reply, answer, sizeof(answer)), "add");
	/* A client that has gone meanwhile is no error of the server. */
	if (bus1_builder_reply(reply, message) < 0)
		warnx("cannot reply: %s", bus1_last_reason());
	bus1_builder_unref(reply);
	return 0;
}

static void *run_thread(void *arg)
{
	struct epoll_event event;
	int r;

	(void)arg;
	for (;;) {
		r = epoll_wait(epoll, &event, 1, -1);
		if (r < 0 && errno != EINTR)
			err(EXIT_FAILURE, "epoll_wait");
		if (r < 1)
			continue;
		if (event.data.fd == stop)
			return (void *)n_handled;
		/* 0 is fine: another thread was faster. */
		r = bus1_peer_dispatch(peer, 1);
		if (r != -EINTR)
			check(r, "dispatch");
	}
}

static void watch(int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	if (epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		err(EXIT_FAILURE, "epoll_ctl");
}

/*
 * A client
 */

static void run_client(int fd, uint64_t id, uint32_t number)
{
	struct bus1_builder *builder;
	struct bus1_handle *server;
	struct bus1_message *reply;
	struct bus1_peer *me;
	const uint32_t *answer;
	uint32_t request;
	size_t size;

	check(bus1_peer_new_fd(fd, &me), "peer of a client");
	check(bus1_handle_new(me, id, &server), "handle");
	check(bus1_builder_new(me, &builder), "new message");
	check(bus1_builder_add_data(builder, &request, sizeof(request)), "add");
	check(bus1_builder_add_destination(builder, server), "add destination");
	for (request = 0; request < N_REQUESTS; request++) {
		check(bus1_builder_call(builder, -1, &reply), "call");
		answer = bus1_message_get_data(reply, &size);
		if (size != 8 || answer[0] != number || answer[1] != request * 2)
			errx(EXIT_FAILURE, "client %u: wrong answer", number);
		bus1_message_unref(reply);
	}
	bus1_builder_unref(builder);
	bus1_handle_unref(server);
	bus1_peer_unref(me);
}

int main(void)
{
	int fds[N_CLIENTS], status, i, j;
	pthread_t threads[N_THREADS];
	uint64_t ids[N_CLIENTS];
	unsigned long sum = 0;
	void *n;

	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(300);
	check(bus1_peer_new(&peer), "cannot open /dev/bus1");
	for (i = 0; i < N_CLIENTS; i++) {
		clients[i].number = i;
		check(bus1_node_new(peer, BUS1_ID_AUTO, on_message, &clients[i],
				    &clients[i].node), "new node");
		fds[i] = open("/dev/bus1", O_RDWR | O_CLOEXEC);
		if (fds[i] < 0)
			err(EXIT_FAILURE, "/dev/bus1");
		check(bus1_handle_transfer_fd(bus1_node_get_handle(clients[i].node), fds[i],
					      &ids[i]), "transfer");
	}

	/* Before there are threads: fork() copies only one. */
	for (i = 0; i < N_CLIENTS; i++) {
		pid_t pid = fork();

		if (pid < 0)
			err(EXIT_FAILURE, "fork");
		if (pid == 0) {
			alarm(300);
			/* The peers of the others must not outlive them here. */
			for (j = 0; j < N_CLIENTS; j++)
				if (j != i)
					close(fds[j]);
			run_client(fds[i], ids[i], i);
			return EXIT_SUCCESS;
		}
	}
	for (i = 0; i < N_CLIENTS; i++)
		close(fds[i]);

	epoll = epoll_create1(EPOLL_CLOEXEC);
	stop = eventfd(0, EFD_CLOEXEC);
	if (epoll < 0 || stop < 0)
		err(EXIT_FAILURE, "epoll");
	watch(stop);
	watch(check(bus1_peer_get_poll_fd(peer), "poll descriptor"));

	for (i = 0; i < N_THREADS; i++)
		if (pthread_create(&threads[i], NULL, run_thread, NULL))
			errx(EXIT_FAILURE, "pthread_create");
	for (i = 0; i < N_THREADS; i++) {
		pthread_join(threads[i], &n);
		printf("thread %d: %lu messages\n", i, (unsigned long)n);
		sum += (unsigned long)n;
	}

	for (i = 0; i < N_CLIENTS; i++) {
		if (wait(&status) < 0 || status)
			errx(EXIT_FAILURE, "a client failed");
		if (clients[i].n_requests != N_REQUESTS)
			errx(EXIT_FAILURE, "client %d: %u requests", i, clients[i].n_requests);
		bus1_node_unref(clients[i].node);
	}
	printf("server: %d clients, %d requests each, and a notification of each\n", N_CLIENTS,
	       N_REQUESTS);
	if (sum != N_CLIENTS * (N_REQUESTS + 1))
		errx(EXIT_FAILURE, "%lu messages in all", sum);
	close(stop);
	close(epoll);
	bus1_peer_unref(peer);
	return EXIT_SUCCESS;
}
