// SPDX-License-Identifier: GPL-2.0-only
/*
 * greet: a service and a client, with libbus1
 *
 *	cc greet.c $(pkg-config --cflags --libs libbus1)
 *
 * The service owns a node. The client, another process, has a handle to it, sends a name,
 * and gets a greeting as the reply. The tutorial explains it line by line.
 */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bus1/bus1.h>

/* Functions of the library return a negative errno, and can say in words what it means. */
static int check(int r, const char *what)
{
	if (r < 0)
		errx(EXIT_FAILURE, "%s: %s (%s)", what, strerror(-r), bus1_last_reason());
	return r;
}

/* The service: called with each message to its node. */
/* tutorial: handler begin */
static int on_message(struct bus1_message *message, void *userdata)
{
	struct bus1_peer *peer = bus1_message_get_peer(message);
	struct bus1_builder *reply;
	const char *name;
	bool *done = userdata;
	size_t size;

	if (bus1_message_get_type(message) == BUS1_TYPE_NODE_RELEASE) {
		*done = true;		/* the last client is gone */
		return 0;
	}

	/* In place: the kernel has put the bytes into memory that is ours to read. */
	name = bus1_message_get_data(message, &size);

	check(bus1_builder_new(peer, &reply), "new message");
	check(bus1_builder_add_data(reply, "hello, ", 7), "add");
	check(bus1_builder_add_data(reply, name, size), "add");
	/* A client that is gone, or wants no reply, is no reason for the service to end. */
	if (bus1_builder_reply(reply, message) < 0)
		warnx("cannot reply: %s", bus1_last_reason());
	bus1_builder_unref(reply);
	return 0;
}
/* tutorial: handler end */

/* tutorial: client begin */
static void run_client(int fd, uint64_t id)
{
	struct bus1_message *reply;
	struct bus1_builder *request;
	struct bus1_handle *service;
	struct bus1_peer *peer;
	const char *text;
	size_t size;

	/* What the parent has prepared becomes objects of this process. */
	check(bus1_peer_new_fd(fd, &peer), "peer of the client");
	check(bus1_handle_new(peer, id, &service), "handle of the client");

	check(bus1_builder_new(peer, &request), "new message");
	check(bus1_builder_add_data(request, "world", 5), "add");
	check(bus1_builder_add_destination(request, service), "add destination");
	check(bus1_builder_call(request, -1, &reply), "call");

	text = bus1_message_get_data(reply, &size);
	printf("the service says \"%.*s\"\n", (int)size, text);
	if (size != 12 || memcmp(text, "hello, world", 12))
		errx(EXIT_FAILURE, "that is not what it should say");

	bus1_message_unref(reply);
	bus1_builder_unref(request);
	bus1_handle_unref(service);
	bus1_peer_unref(peer);
}
/* tutorial: client end */

/* tutorial: main begin */
int main(void)
{
	struct bus1_peer *peer;
	struct bus1_node *node;
	bool done = false;
	int status, fd, r;
	uint64_t id;
	pid_t pid;

	alarm(300);	/* rather than wait for ever if something is broken */

	/* The service: a peer, and a node in it. */
	check(bus1_peer_new(&peer), "cannot open /dev/bus1");
	check(bus1_node_new(peer, BUS1_ID_AUTO, on_message, &done, &node), "new node");

	/* A peer for the client, which gets a handle to that node: the first one. */
	fd = open("/dev/bus1", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		err(EXIT_FAILURE, "/dev/bus1");
	check(bus1_handle_transfer_fd(bus1_node_get_handle(node), fd, &id), "transfer");

	pid = fork();
	if (pid < 0)
		err(EXIT_FAILURE, "fork");
	if (pid == 0) {
		run_client(fd, id);
		return EXIT_SUCCESS;
	}
	close(fd);

	/* Serve until the node is released: nobody else has a handle to it. */
	while (!done) {
		struct bus1_message *message;

		check(bus1_peer_recv(peer, -1, &message), "receive");
		r = bus1_message_dispatch(message);
		bus1_message_unref(message);
		check(r, "handler");
	}

	if (waitpid(pid, &status, 0) != pid || status)
		errx(EXIT_FAILURE, "the client failed");
	printf("and has no clients any more\n");
	bus1_node_unref(node);
	bus1_peer_unref(peer);
	return EXIT_SUCCESS;
}
/* tutorial: main end */
