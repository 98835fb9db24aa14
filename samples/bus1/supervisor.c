// SPDX-License-Identifier: GPL-2.0-only
/*
 * supervisor: a service that crashes, and nobody notices
 *
 *	cc supervisor.c $(pkg-config --cflags --libs libbus1)
 *
 * The supervisor owns the descriptor of the service's peer. While that is open the peer
 * lives, whatever happens to the process that uses it. The seed of the peer is a message to
 * itself: it carries the node that clients have handles to, and what the service has to
 * remember. A new process of the service flushes what the old one has left, fetches the
 * seed, and goes on. The handle of the client stays good all the time.
 *
 * The service counts. It kills itself now and then, in the middle of a request; the client
 * asks again, and sees no number twice and none left out.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bus1/bus1.h>

#define N_REQUESTS	10
#define CRASH_EVERY	3

/* What the service remembers. */
struct state {
	uint64_t request;	/* the last one that was done */
	uint64_t sum;
};

static int check(int r, const char *what)
{
	if (r < 0)
		errx(EXIT_FAILURE, "%s: %s (%s)", what, strerror(-r), bus1_last_reason());
	return r;
}

/* The message that the peer keeps: the node, and the state. It replaces the last one. */
static void set_seed(struct bus1_peer *peer, struct bus1_node *node, const struct state *state)
{
	struct bus1_builder *seed;

	check(bus1_builder_new(peer, &seed), "new message");
	check(bus1_builder_add_data(seed, state, sizeof(*state)), "add");
	check(bus1_builder_add_handle(seed, bus1_node_get_handle(node)), "add handle");
	check(bus1_builder_send_seed(seed), "seed");
	bus1_builder_unref(seed);
}

/*
 * The service
 */

static struct state state;

static int on_request(struct bus1_message *message, void *userdata)
{
	struct bus1_peer *peer = bus1_message_get_peer(message);
	struct bus1_builder *reply;
	const uint64_t *request;
	size_t size;

	(void)userdata;
	if (bus1_message_get_type(message) != BUS1_TYPE_DATA)
		return 0;
	request = bus1_message_get_data(message, &size);
	if (size != sizeof(*request))
		return 0;

	/* A client that asks again may have been served before: then it is only told. */
	if (*request != state.request) {
		state.request = *request;
		state.sum += *request;
		set_seed(peer, bus1_message_get_node(message), &state);
		if (*request % CRASH_EVERY == 0) {
			printf("service: crashes in request %d\n", (int)*request);
			raise(SIGKILL);
		}
	}

	check(bus1_builder_new(peer, &reply), "new message");
	check(bus1_builder_add_data(reply, &state.sum, sizeof(state.sum)), "add");
	if (bus1_builder_reply(reply, message) < 0)
		warnx("cannot reply: %s", bus1_last_reason());
	bus1_builder_unref(reply);
	return 0;
}

static void run_service(int fd)
{
	struct bus1_message *seed, *message;
	struct bus1_handle *handle;
	struct bus1_peer *peer;
	struct bus1_node *node;
	const void *data;
	size_t size;

	check(bus1_peer_new_fd(fd, &peer), "peer of the service");
	/* All that the last process had, but for the seed and the node in it. */
	check(bus1_peer_flush(peer, BUS1_FLUSH_ALL), "flush");

	check(bus1_peer_recv_seed(peer, &seed), "seed");
	data = bus1_message_get_data(seed, &size);
	if (size != sizeof(state))
		errx(EXIT_FAILURE, "this is not our seed");
	memcpy(&state, data, size);
	check(bus1_message_get_handle(seed, 0, &handle), "handle of the node");
	check(bus1_node_new(peer, bus1_handle_get_id(handle), on_request, NULL, &node), "node");
	bus1_handle_unref(handle);
	bus1_message_unref(seed);
	printf("service: begins after request %d\n", (int)state.request);

	for (;;) {
		check(bus1_peer_recv(peer, -1, &message), "receive");
		check(bus1_message_dispatch(message), "dispatch");
		bus1_message_unref(message);
	}
}

/*
 * The client
 */

static void run_client(int fd, uint64_t id)
{
	uint64_t request, sum = 0, retries = 0;
	struct bus1_builder *builder;
	struct bus1_message *reply;
	struct bus1_handle *service;
	struct bus1_peer *peer;
	const uint64_t *result;
	size_t size;
	int r;

	check(bus1_peer_new_fd(fd, &peer), "peer of the client");
	check(bus1_handle_new(peer, id, &service), "handle");
	check(bus1_builder_new(peer, &builder), "new message");
	check(bus1_builder_add_data(builder, &request, sizeof(request)), "add");
	check(bus1_builder_add_destination(builder, service), "add destination");

	for (request = 1; request <= N_REQUESTS; request++) {
		/* Whoever could reply is gone: the service has lost the request. */
		while ((r = bus1_builder_call(builder, -1, &reply)) == -ECONNRESET)
			retries++;
		check(r, "call");
		sum += request;
		result = bus1_message_get_data(reply, &size);
		if (size != sizeof(*result) || *result != sum)
			errx(EXIT_FAILURE, "request %llu: wrong sum",
			     (unsigned long long)request);
		bus1_message_unref(reply);
	}
	printf("client: %d requests, %d of them asked again, the sum is right: %d\n", N_REQUESTS,
	       (int)retries, (int)sum);
	/* One more can be lost to the flush of the first service. */
	if (retries < N_REQUESTS / CRASH_EVERY)
		errx(EXIT_FAILURE, "there were not as many crashes");
	bus1_builder_unref(builder);
	bus1_handle_unref(service);
	bus1_peer_unref(peer);
}

/*
 * The supervisor
 */

static pid_t start(void)
{
	pid_t pid = fork();

	if (pid < 0)
		err(EXIT_FAILURE, "fork");
	if (pid == 0)
		alarm(300);
	return pid;
}

int main(void)
{
	pid_t client, service, pid;
	struct bus1_peer *peer;
	struct bus1_node *node;
	int fd, client_fd, status;
	uint64_t id;

	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(300);

	/* The node, a client's handle to it, and the seed; then the descriptor alone. */
	check(bus1_peer_new(&peer), "cannot open /dev/bus1");
	check(bus1_node_new(peer, BUS1_ID_AUTO, NULL, NULL, &node), "new node");
	client_fd = open("/dev/bus1", O_RDWR | O_CLOEXEC);
	if (client_fd < 0)
		err(EXIT_FAILURE, "/dev/bus1");
	check(bus1_handle_transfer_fd(bus1_node_get_handle(node), client_fd, &id), "transfer");
	set_seed(peer, node, &state);
	fd = check(bus1_peer_steal_fd(peer), "descriptor");
	bus1_node_unref(node);
	bus1_peer_unref(peer);

	client = start();
	if (client == 0) {
		close(fd);
		run_client(client_fd, id);
		return EXIT_SUCCESS;
	}
	close(client_fd);

	do {
		service = start();
		if (service == 0)
			run_service(fd);
		while ((pid = wait(&status)) == client) {
			if (status)
				errx(EXIT_FAILURE, "the client failed");
			printf("supervisor: the client is done, the service can end\n");
			kill(service, SIGTERM);
		}
		if (pid != service)
			err(EXIT_FAILURE, "wait");
	} while (WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);

	if (!WIFSIGNALED(status) || WTERMSIG(status) != SIGTERM)
		errx(EXIT_FAILURE, "the service failed");
	close(fd);
	return EXIT_SUCCESS;
}
