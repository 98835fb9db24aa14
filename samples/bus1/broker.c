// SPDX-License-Identifier: GPL-2.0-only
/*
 * broker: names for services
 *
 *	cc broker.c $(pkg-config --cflags --libs libbus1)
 *
 * The kernel knows no names: who has no handle reaches nobody. A broker is a process that
 * everybody starts with a handle to. Services give it handles under names, and clients ask
 * for them. From then on the two talk directly, and the broker hears nothing of it.
 *
 *	"+NAME", with a handle		register it: reply "ok", "taken" or "gone"
 *	"?NAME"				wait until it is there: reply with the handle
 *
 * A service can have several names. All are free again when the node behind them is
 * destroyed, or its owner gone: the kernel tells the broker. A name is made of letters,
 * digits, and what else can be printed: the broker shows it on a terminal. Who may register
 * or ask for what is up to the broker: this one lets everybody. One that does not would give
 * each client a node of its own, and know by it who asks. Here run a broker, a service
 * "clock" and two clients that come too early.
 */
#include <ctype.h>
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bus1/bus1.h>

#define N_CLIENTS	2

static int check(int r, const char *what)
{
	if (r < 0)
		errx(EXIT_FAILURE, "%s: %s (%s)", what, strerror(-r), bus1_last_reason());
	return r;
}

/*
 * The broker
 */

/* A name that is registered (handle), or that somebody waits for (waiting). */
struct entry {
	struct entry *next;
	char name[64];
	struct bus1_handle *handle;
	struct bus1_message *waiting;
};

static struct entry *entries;
static bool broker_done;

static struct entry *entry_new(const char *name)
{
	struct entry *e = calloc(1, sizeof(*e));

	if (!e)
		err(EXIT_FAILURE, "calloc");
	strcpy(e->name, name);
	e->next = entries;
	entries = e;
	return e;
}

static struct entry *entry_find(const char *name)
{
	struct entry *e;

	for (e = entries; e; e = e->next)
		if (e->handle && !strcmp(e->name, name))
			return e;
	return NULL;
}

static void entry_free(struct entry *entry)
{
	struct entry **e;

	for (e = &entries; *e != entry; e = &(*e)->next)
		;
	*e = entry->next;
	bus1_handle_unref(entry->handle);
	bus1_message_unref(entry->waiting);
	free(entry);
}

/* A client that does not take its reply is no reason for the broker to fail. */
static void reply(struct bus1_message *to, const char *text, struct bus1_handle *handle)
{
	struct bus1_builder *b;

	check(bus1_builder_new(bus1_message_get_peer(to), &b), "new message");
	check(bus1_builder_add_data(b, text, strlen(text)), "add");
	if (handle)
		check(bus1_builder_add_handle(b, handle), "add handle");
	if (bus1_builder_reply(b, to) < 0)
		warnx("broker: cannot reply: %s", bus1_last_reason());
	bus1_builder_unref(b);
}

/* A handle has one handler, and may have many names. */
static int on_service_gone(struct bus1_message *message, void *userdata)
{
	struct bus1_handle *handle = bus1_handle_ref(userdata);
	struct entry *e, *next;

	(void)message;
	for (e = entries; e; e = next) {
		next = e->next;
		if (e->handle != handle)
			continue;
		printf("broker: \"%s\" is gone\n", e->name);
		entry_free(e);
	}
	bus1_handle_unref(handle);
	return 0;
}

static void on_register(struct bus1_message *message, const char *name)
{
	struct bus1_handle *handle;
	struct entry *e, *next;

	/* One handle is the service, and the last one is where to reply to. */
	if (bus1_message_get_n_handles(message) != 2 || entry_find(name))
		return reply(message, "taken", NULL);
	if (bus1_message_get_handle(message, 0, &handle) < 0)
		return reply(message, "gone", NULL);
	/* Only from then on it is called. */
	bus1_handle_set_handler(handle, on_service_gone, handle);
	if (bus1_handle_is_destroyed(handle)) {
		bus1_handle_unref(handle);
		return reply(message, "gone", NULL);
	}

	e = entry_new(name);
	e->handle = handle;
	printf("broker: \"%s\" is registered\n", name);
	reply(message, "ok", NULL);

	for (e = entries; e; e = next) {
		next = e->next;
		if (e->waiting && !strcmp(e->name, name)) {
			reply(e->waiting, "ok", handle);
			entry_free(e);
		}
	}
}

static void on_lookup(struct bus1_message *message, const char *name)
{
	struct entry *e = entry_find(name);

	if (e)
		return reply(message, "ok", e->handle);
	printf("broker: somebody waits for \"%s\"\n", name);
	entry_new(name)->waiting = bus1_message_ref(message);
}

static int on_request(struct bus1_message *message, void *userdata)
{
	char name[sizeof(entries->name)];
	const char *data;
	size_t size, i;

	(void)userdata;
	if (bus1_message_get_type(message) == BUS1_TYPE_NODE_RELEASE) {
		broker_done = true;
		return 0;
	}
	data = bus1_message_get_data(message, &size);
	if (size < 2 || size > sizeof(name))	/* the first byte is not of the name */
		return 0;
	memcpy(name, data + 1, size - 1);
	name[size - 1] = '\0';
	for (i = 0; i < size - 1; i++) {
		if (!isgraph((unsigned char)name[i])) {
			reply(message, "no name", NULL);
			return 0;
		}
	}

	if (data[0] == '+')
		on_register(message, name);
	else if (data[0] == '?')
		on_lookup(message, name);
	return 0;
}

/*
 * Those who use it
 */

/* Ask the broker; the reply has @text, and becomes the caller's. */
static struct bus1_message *ask(struct bus1_handle *broker, const char *request,
				struct bus1_handle *handle, const char *text)
{
	struct bus1_message *answer;
	struct bus1_builder *b;
	const void *data;
	size_t size;

	check(bus1_builder_new(bus1_handle_get_peer(broker), &b), "new message");
	check(bus1_builder_add_data(b, request, strlen(request)), "add");
	if (handle)
		check(bus1_builder_add_handle(b, handle), "add handle");
	check(bus1_builder_add_destination(b, broker), "add destination");
	check(bus1_builder_call(b, -1, &answer), request);
	bus1_builder_unref(b);

	data = bus1_message_get_data(answer, &size);
	if (size != strlen(text) || memcmp(data, text, size))
		errx(EXIT_FAILURE, "%s: reply \"%.*s\"", request, (int)size,
		     (const char *)data);
	return answer;
}

static int n_served;

static int on_time(struct bus1_message *message, void *userdata)
{
	(void)userdata;
	if (bus1_message_get_type(message) == BUS1_TYPE_DATA) {
		reply(message, "a quarter past", NULL);
		n_served++;
	}
	return 0;
}

static void run_service(struct bus1_handle *broker)
{
	struct bus1_peer *peer = bus1_handle_get_peer(broker);
	struct bus1_message *message;
	struct bus1_node *clock;

	check(bus1_node_new(peer, BUS1_ID_AUTO, on_time, NULL, &clock), "new node");
	bus1_message_unref(ask(broker, "+clock", bus1_node_get_handle(clock), "ok"));
	bus1_message_unref(ask(broker, "+clock", bus1_node_get_handle(clock), "taken"));
	bus1_message_unref(ask(broker, "+watch", bus1_node_get_handle(clock), "ok"));
	bus1_message_unref(ask(broker, "+\033[7m", bus1_node_get_handle(clock), "no name"));
	while (n_served < N_CLIENTS) {
		check(bus1_peer_recv(peer, -1, &message), "receive");
		check(bus1_message_dispatch(message), "dispatch");
		bus1_message_unref(message);
	}
	bus1_node_unref(clock);
}

static void run_client(struct bus1_handle *broker)
{
	struct bus1_message *found = ask(broker, "?clock", NULL, "ok");
	struct bus1_handle *clock;

	check(bus1_message_get_handle(found, 0, &clock), "handle of the clock");
	bus1_message_unref(found);
	bus1_message_unref(ask(clock, "what time is it?", NULL, "a quarter past"));
	printf("client: it is a quarter past\n");
	bus1_handle_unref(clock);
}

/* Start a process that has a peer, and in it a handle to @node. */
static void start(struct bus1_node *node, void (*run)(struct bus1_handle *))
{
	int fd = open("/dev/bus1", O_RDWR | O_CLOEXEC);
	struct bus1_handle *broker;
	struct bus1_peer *peer;
	uint64_t id;
	pid_t pid;

	if (fd < 0)
		err(EXIT_FAILURE, "/dev/bus1");
	check(bus1_handle_transfer_fd(bus1_node_get_handle(node), fd, &id), "transfer");
	pid = fork();
	if (pid < 0)
		err(EXIT_FAILURE, "fork");
	if (pid > 0) {
		close(fd);
		return;
	}
	alarm(300);
	check(bus1_peer_new_fd(fd, &peer), "peer");
	check(bus1_handle_new(peer, id, &broker), "handle");
	run(broker);
	bus1_handle_unref(broker);
	bus1_peer_unref(peer);
	exit(EXIT_SUCCESS);
}

/* Receive, until there is nothing left to do for the broker. */
static void serve(struct bus1_peer *peer)
{
	struct bus1_message *message;

	while (!broker_done) {
		check(bus1_peer_recv(peer, -1, &message), "receive");
		check(bus1_message_dispatch(message), "dispatch");
		bus1_message_unref(message);
	}
}

int main(void)
{
	struct bus1_peer *peer;
	struct bus1_node *node;
	int i, status;

	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(300);
	check(bus1_peer_new(&peer), "cannot open /dev/bus1");
	/* Whoever waits could make the broker hold many. */
	bus1_peer_set_accept_fds(peer, false);
	check(bus1_node_new(peer, BUS1_ID_AUTO, on_request, NULL, &node), "new node");

	/* The library's objects stay with this process: children get copies of none. */
	for (i = 0; i < N_CLIENTS; i++)
		start(node, run_client);
	start(node, run_service);
	serve(peer);

	for (i = 0; i < N_CLIENTS + 1; i++)
		if (wait(&status) < 0 || status)
			errx(EXIT_FAILURE, "a process failed");
	if (entries)
		errx(EXIT_FAILURE, "the broker still knows \"%s\"", entries->name);
	printf("broker: nobody is left, and no name\n");
	bus1_node_unref(node);
	bus1_peer_unref(peer);
	return EXIT_SUCCESS;
}
