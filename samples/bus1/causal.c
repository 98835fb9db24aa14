// SPDX-License-Identifier: GPL-2.0-only
/*
 * causal: hear the cause before the effect
 *
 * Three daemons. A watches the network, B is the policy, C is a DHCP client:
 *
 *	A --- "link is up" ---> B
 *	A --- "link is up" ---> C
 *	                        B --- "get a lease" ---> C
 *
 * B calls C *because* it has heard A. If C gets the call before it has heard
 * of the link, it has to guess: drop the call, or wait for a link that may
 * never come up.
 *
 * With sockets, A announces with one send() after the other. A can be preempted
 * in between, or B be fast on another CPU: then the call overtakes the
 * announcement. Sending to C first would help here, but A does not know who
 * calls whom, and in another pair of daemons it is the other way round. With
 * bus1, A announces with one SEND to both. That is one transaction, one point in
 * the order of all messages, and whatever anybody does because of it is later.
 *
 * Each round starts when C has heard both messages of the round before. The
 * program counts the rounds in which C heard the call first. It fails if that
 * ever happens on bus1, or never happens on sockets. With an argument it does so many
 * rounds on each, which may be too few for sockets to show it.
 */

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>

#include "bus1-sample.h"

#define N_ROUNDS	10000	/* unless the argument says another number */
#define MAX_BATCHES	10	/* of so many each, until sockets show it */
#define TIMEOUT		900	/* seconds; only a broken bus takes that long */

static uint32_t n_rounds = N_ROUNDS;

enum { A, B, C, N_DAEMONS };

enum { LINK_UP, GET_LEASE, NEXT };

struct note {
	uint32_t what;
	uint32_t round;
	char link[16];
};

/* What the daemons need from a bus, and what each of them has to do it with. */
struct bus {
	const char *name;
	void (*setup)(void);
	void (*role)(int who);			/* which daemon this is */
	void (*announce)(const struct note *n);	/* A to B and C */
	void (*call)(const struct note *n);	/* B to C */
	void (*next)(const struct note *n);	/* C to A */
	struct note (*hear)(int who);
};

/*
 * Unix sockets: one connection for each pair of daemons, and whoever has more
 * than one waits with epoll. The kernel reports the connections in the order
 * in which they became readable, and C reads one message from the first of
 * them: this is the order of arrival, the best that C can see.
 */
static struct {
	int ab[2], ac[2], bc[2];
	int epoll;
} sock;

static void sock_setup(void)
{
	if (socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sock.ab) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sock.ac) < 0 ||
	    socketpair(AF_UNIX, SOCK_SEQPACKET, 0, sock.bc) < 0)
		err(EXIT_FAILURE, "socketpair");
}

static void sock_watch(int fd)
{
	struct epoll_event event = { .events = EPOLLIN, .data.fd = fd };

	if (epoll_ctl(sock.epoll, EPOLL_CTL_ADD, fd, &event) < 0)
		err(EXIT_FAILURE, "epoll_ctl");
}

static void sock_role(int who)
{
	if (who != C)
		return;

	sock.epoll = epoll_create1(EPOLL_CLOEXEC);
	if (sock.epoll < 0)
		err(EXIT_FAILURE, "epoll_create1");
	sock_watch(sock.ac[1]);
	sock_watch(sock.bc[1]);
}

static void sock_send(int fd, const struct note *n)
{
	if (send(fd, n, sizeof(*n), MSG_NOSIGNAL) != sizeof(*n))
		err(EXIT_FAILURE, "send");
}

static void sock_announce(const struct note *n)
{
	sock_send(sock.ab[0], n);
	sock_send(sock.ac[0], n);
}

static void sock_call(const struct note *n)
{
	sock_send(sock.bc[0], n);
}

static void sock_next(const struct note *n)
{
	sock_send(sock.ac[1], n);
}

static struct note sock_hear(int who)
{
	struct epoll_event event;
	struct note n;
	int fd;

	if (who == C) {
		if (epoll_wait(sock.epoll, &event, 1, -1) != 1)
			err(EXIT_FAILURE, "epoll_wait");
		fd = event.data.fd;
	} else {
		fd = who == A ? sock.ac[0] : sock.ab[1];
	}

	if (recv(fd, &n, sizeof(n), 0) != sizeof(n))
		err(EXIT_FAILURE, "recv");
	return n;
}

static const struct bus sockets = {
	.name		= "unix sockets: A sends to B, then to C",
	.setup		= sock_setup,
	.role		= sock_role,
	.announce	= sock_announce,
	.call		= sock_call,
	.next		= sock_next,
	.hear		= sock_hear,
};

/*
 * bus1: each daemon has one peer, with one node that the others hold handles
 * to. All that is sent to a daemon arrives in its one queue.
 */
#define MY_NODE	0x100

static struct {
	struct peer peer[N_DAEMONS];
	uint64_t a_to[2];	/* A's handles to B and C */
	uint64_t b_to;		/* B's handle to C */
	uint64_t c_to;		/* C's handle to A */
} bus1;

static void bus1_setup(void)
{
	int i;

	for (i = 0; i < N_DAEMONS; i++)
		peer_open(&bus1.peer[i]);

	bus1.a_to[0] = peer_transfer(&bus1.peer[B], MY_NODE, &bus1.peer[A]);
	bus1.a_to[1] = peer_transfer(&bus1.peer[C], MY_NODE, &bus1.peer[A]);
	bus1.b_to = peer_transfer(&bus1.peer[C], MY_NODE, &bus1.peer[B]);
	bus1.c_to = peer_transfer(&bus1.peer[A], MY_NODE, &bus1.peer[C]);
}

static void bus1_role(int who)
{
	int i;

	for (i = 0; i < N_DAEMONS; i++)
		if (i != who)
			peer_close(&bus1.peer[i]);
}

static void bus1_announce(const struct note *n)
{
	peer_send(&bus1.peer[A], bus1.a_to, 2, n, sizeof(*n), NULL, 0);
}

static void bus1_call(const struct note *n)
{
	peer_send(&bus1.peer[B], &bus1.b_to, 1, n, sizeof(*n), NULL, 0);
}

static void bus1_next(const struct note *n)
{
	peer_send(&bus1.peer[C], &bus1.c_to, 1, n, sizeof(*n), NULL, 0);
}

static struct note bus1_hear(int who)
{
	struct peer *me = &bus1.peer[who];
	struct bus1_cmd_recv cmd = peer_recv(me);
	struct note n;

	if (cmd.msg.type != BUS1_MSG_DATA || cmd.msg.n_bytes != sizeof(n))
		errx(EXIT_FAILURE, "a daemon is gone");
	memcpy(&n, peer_data(me, &cmd), sizeof(n));
	peer_slice_release(me, cmd.msg.offset);
	return n;
}

static const struct bus bus1_bus = {
	.name		= "bus1: A sends once, to B and C",
	.setup		= bus1_setup,
	.role		= bus1_role,
	.announce	= bus1_announce,
	.call		= bus1_call,
	.next		= bus1_next,
	.hear		= bus1_hear,
};

/* The daemons. From here on nothing depends on the bus. */

static void check(const struct note *n, uint32_t round)
{
	if (n->round != round)
		errx(EXIT_FAILURE, "message of round %u in round %u", n->round,
		     round);
}

static void daemon_a(const struct bus *bus)
{
	struct note n = { .what = LINK_UP, .link = "eth0" }, next;

	for (n.round = 0; n.round < n_rounds; n.round++) {
		bus->announce(&n);
		next = bus->hear(A);
		check(&next, n.round);
	}
}

static void daemon_b(const struct bus *bus)
{
	struct note n;
	uint32_t i;

	for (i = 0; i < n_rounds; i++) {
		n = bus->hear(B);
		check(&n, i);
		n.what = GET_LEASE;
		bus->call(&n);
	}
}

static uint32_t daemon_c(const struct bus *bus)
{
	struct note first, second;
	uint32_t i, n_wrong = 0;

	for (i = 0; i < n_rounds; i++) {
		first = bus->hear(C);
		second = bus->hear(C);
		check(&first, i);
		check(&second, i);
		if (first.what == second.what)
			errx(EXIT_FAILURE, "a message came twice");
		if (first.what == GET_LEASE)
			n_wrong++;
		second.what = NEXT;
		bus->next(&second);
	}
	return n_wrong;
}

static pid_t start(const struct bus *bus, int who, uint32_t *n_wrong)
{
	pid_t parent = getpid(), pid = fork();

	if (pid < 0)
		err(EXIT_FAILURE, "fork");
	if (pid > 0)
		return pid;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(EXIT_FAILURE);

	bus->role(who);
	if (who == A)
		daemon_a(bus);
	else if (who == B)
		daemon_b(bus);
	else
		*n_wrong = daemon_c(bus);
	_exit(EXIT_SUCCESS);
}

/* Run one batch in three processes, return how often C heard the call first. */
static uint32_t run(const struct bus *bus)
{
	uint32_t *shared, n_wrong;
	int i, status;

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED)
		err(EXIT_FAILURE, "mmap");

	for (i = 0; i < N_DAEMONS; i++)
		start(bus, i, shared);

	/* Where one fails the others wait in vain: they die with the parent. */
	for (i = 0; i < N_DAEMONS; i++)
		if (wait(&status) < 0 || status != 0)
			errx(EXIT_FAILURE, "a daemon failed");

	n_wrong = *shared;
	munmap(shared, sizeof(*shared));
	return n_wrong;
}

static void print_name(const struct bus *bus)
{
	printf("  %-40s ", bus->name);
	fflush(stdout);		/* the numbers follow some seconds later */
}

static void print_result(uint32_t rounds, uint32_t n_wrong)
{
	printf("%8u %s%20u%s\n", rounds, BOLD, n_wrong, PLAIN);
}

int main(int argc, char **argv)
{
	uint32_t n_sock = 0, n_bus1;
	int batches = 0, max_batches = MAX_BATCHES;

	if (argc > 1) {
		n_rounds = strtoul(argv[1], NULL, 10);
		max_batches = 1;
	}

	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(TIMEOUT);

	printf("  %-40s %8s %20s\n", "", "rounds", "effect before cause");

	/* A race: on a quiet machine one batch may be too few to see it. */
	print_name(&sockets);
	sockets.setup();
	while (n_sock == 0 && batches < max_batches) {
		n_sock += run(&sockets);
		batches++;
	}
	print_result(batches * n_rounds, n_sock);

	print_name(&bus1_bus);
	bus1_bus.setup();
	n_bus1 = run(&bus1_bus);
	print_result(n_rounds, n_bus1);

	if (n_sock == 0 && argc == 1)
		errx(EXIT_FAILURE, "sockets never got it wrong: too few CPUs?");
	if (n_bus1 > 0)
		errx(EXIT_FAILURE, "bus1 broke the order");
	return EXIT_SUCCESS;
}
