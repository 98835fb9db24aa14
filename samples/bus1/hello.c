// SPDX-License-Identifier: GPL-2.0-only
/*
 * hello: two processes say hello over bus1
 *
 * The client holds a handle to a node of the server. It sends a message there,
 * and a handle to a node of its own along with it, for the answer. Every line
 * is printed before the step that lets the other process go on, so the lines
 * come out in order.
 */

#include <inttypes.h>
#include <string.h>
#include <sys/wait.h>

#include "bus1-sample.h"

/* Any number does that has bits 0 and 1 clear: it is the peer's own choice. */
#define SERVER_NODE	0x100
#define CLIENT_NODE	0x200

#define say(who, ...)						\
	do {							\
		printf("  %s%-8s%s ", BOLD, who, PLAIN);	\
		printf(__VA_ARGS__);				\
		putchar('\n');					\
	} while (0)

static const char *type_name(uint64_t type)
{
	static const char * const names[] = {
		[BUS1_MSG_NONE]		= "NONE",
		[BUS1_MSG_DATA]		= "DATA",
		[BUS1_MSG_NODE_DESTROY]	= "NODE_DESTROY",
		[BUS1_MSG_NODE_RELEASE]	= "NODE_RELEASE",
	};

	return type <= BUS1_MSG_NODE_RELEASE ? names[type] : "?";
}

/* Insist on what this program knows must come next. */
static struct bus1_cmd_recv check(struct bus1_cmd_recv m, uint64_t type,
				  uint64_t id)
{
	if (m.msg.type != type || m.msg.destination != id)
		errx(EXIT_FAILURE, "expected %s for %#" PRIx64 ", got %s for %#" PRIx64,
		     type_name(type), id, type_name(m.msg.type),
		     (uint64_t)m.msg.destination);
	return m;
}

static struct bus1_cmd_recv expect(struct peer *me, uint64_t type, uint64_t id)
{
	return check(peer_recv(me), type, id);
}

static void run_server(struct peer *me)
{
	struct bus1_cmd_recv m = expect(me, BUS1_MSG_DATA, SERVER_NODE);
	uint64_t answer_to = peer_handles(me, &m)[0];

	say("server", "message to node %#x: %d bytes, %d handle, in a slice of its pool",
	    SERVER_NODE, (int)m.msg.n_bytes, (int)m.msg.n_handles);
	say("server", "reads \"%.*s\" there, at offset %#" PRIx64 ", and releases the slice",
	    (int)m.msg.n_bytes, peer_data(me, &m), (uint64_t)m.msg.offset);
	peer_slice_release(me, m.msg.offset);

	say("server", "answers through handle %#" PRIx64 ", drops it, and destroys node %#x",
	    answer_to, SERVER_NODE);
	peer_send(me, &answer_to, 1, "hello yourself", 14, NULL, 0);
	peer_handle_release(me, answer_to);
	peer_node_destroy(me, SERVER_NODE);
}

static void run_client(struct peer *me, uint64_t server)
{
	uint64_t answer_to = CLIENT_NODE;
	struct bus1_cmd_recv m;

	say("client", "sends \"hello\", and with it a handle to its own new node %#x",
	    CLIENT_NODE);
	/* One system call sends it, and waits for what comes first. */
	m = check(peer_call(me, server, "hello", 5, &answer_to, 1),
		  BUS1_MSG_DATA, CLIENT_NODE);
	say("client", "message to node %#x: \"%.*s\"", CLIENT_NODE,
	    (int)m.msg.n_bytes, peer_data(me, &m));
	peer_slice_release(me, m.msg.offset);

	m = expect(me, BUS1_MSG_NODE_RELEASE, CLIENT_NODE);
	say("client", "notification %s: nobody else holds node %#x any more",
	    type_name(m.msg.type), CLIENT_NODE);

	m = expect(me, BUS1_MSG_NODE_DESTROY, server);
	say("client", "notification %s: handle %#" PRIx64 " leads nowhere any more",
	    type_name(m.msg.type), server);
	peer_handle_release(me, server);
}

int main(void)
{
	struct peer server, client;
	uint64_t to_server;
	int status;
	pid_t pid;

	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(60);	/* if a process dies, the other does not wait for ever */

	/*
	 * There is no registry to look up a name in: the first handle has to
	 * come from somebody who can reach both sides. Here that is the parent
	 * of both processes.
	 */
	peer_open(&server);
	peer_open(&client);
	say("peer", "server and client have opened /dev/bus1, once each");
	to_server = peer_transfer(&server, SERVER_NODE, &client);
	say("node", "node %#x is the server's: messages to it go to the server",
	    SERVER_NODE);
	say("handle", "handle %#" PRIx64 " is the client's right to reach that node",
	    to_server);

	pid = fork();
	if (pid < 0)
		err(EXIT_FAILURE, "fork");
	if (pid == 0) {
		alarm(60);
		peer_close(&server);
		run_client(&client, to_server);
		return EXIT_SUCCESS;
	}
	peer_close(&client);
	run_server(&server);

	if (waitpid(pid, &status, 0) != pid || status != 0)
		errx(EXIT_FAILURE, "the client failed");
	peer_close(&server);
	return EXIT_SUCCESS;
}
