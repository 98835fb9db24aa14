// SPDX-License-Identifier: GPL-2.0-only
/*
 * bus1 bench: the quick comparison with sockets and pipes, on this machine as it is.
 * Documentation/bus1/performance.rst has the careful one.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bus1.h"

#define NODE		0x1000ULL
#define SIZE_MAX_BENCH	65536

static char buffer[SIZE_MAX_BENCH];
static uint64_t duration = 200000000;

/* Two ends of something that carries messages both ways. */
struct link {
	int fds[2][2];			/* to read, and to write, of each end */
	struct bus bus[2];
	uint64_t dest[2];
};

static void fail(const char *what, int error)
{
	die("%s: %s", what, strerror(error));
}

static void bus_link(struct link *link)
{
	int i, r;

	for (i = 0; i < 2; ++i)
		bus_open(&link->bus[i]);
	for (i = 0; i < 2; ++i) {
		r = bus_transfer(link->bus[!i].fd, NODE, link->bus[i].fd,
				 &link->dest[i]);
		if (r)
			fail("transfer", -r);
	}
}

static void socket_link(struct link *link)
{
	int fds[2], i;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds))
		fail("socketpair", errno);
	for (i = 0; i < 2; ++i)
		link->fds[i][0] = link->fds[i][1] = fds[i];
}

static void pipe_link(struct link *link)
{
	int fds[2], i;

	for (i = 0; i < 2; ++i) {
		if (pipe2(fds, O_CLOEXEC))
			fail("pipe", errno);
		link->fds[!i][0] = fds[0];
		link->fds[i][1] = fds[1];
	}
}

static void bus_put(struct link *link, int end, size_t n)
{
	struct iovec vec = { buffer, n };
	struct bus1_cmd_send send = {
		.ptr_destinations = (uintptr_t)&link->dest[end],
		.n_destinations = 1,
		.ptr_vecs = (uintptr_t)&vec,
		.n_vecs = 1,
	};
	int r = bus_send(link->bus[end].fd, &send);

	if (r)
		fail("send", -r);
}

static void bus_get(struct link *link, int end, size_t n)
{
	struct pollfd fd = { .fd = link->bus[end].fd, .events = POLLIN };
	struct bus1_cmd_recv recv;
	int r;

	while ((r = bus_recv(&link->bus[end], &recv, true)) == -EAGAIN)
		poll(&fd, 1, -1);
	if (r)
		fail("receive", -r);
	if (recv.msg.n_bytes != n)
		die("a message came short");
	bus_slice_release(link->bus[end].fd, recv.msg.offset);
}

static void fd_put(struct link *link, int end, size_t n)
{
	size_t done;
	ssize_t r;

	for (done = 0; done < n; done += r) {
		r = write(link->fds[end][1], buffer + done, n - done);
		if (r <= 0)
			fail("write", errno);
	}
}

static void fd_get(struct link *link, int end, size_t n)
{
	size_t done;
	ssize_t r;

	for (done = 0; done < n; done += r) {
		r = read(link->fds[end][0], buffer + done, n - done);
		if (r <= 0)
			fail("read", r ? errno : EPIPE);
	}
}

static const struct transport {
	const char *name;
	void (*open)(struct link *link);
	void (*put)(struct link *link, int end, size_t n);
	void (*get)(struct link *link, int end, size_t n);
} transports[] = {
	{ "bus1", bus_link, bus_put, bus_get },
	{ "unix socket", socket_link, fd_put, fd_get },
	{ "pipe", pipe_link, fd_put, fd_get },
};

/* One thread sends and receives; nanoseconds each. */
static double measure_oneway(const struct transport *t, struct link *link,
			     size_t size)
{
	uint64_t start, now, n = 0;
	int i;

	start = now_ns();
	do {
		for (i = 0; i < 16; ++i) {
			t->put(link, 0, size);
			t->get(link, 1, size);
		}
		n += 16;
		now = now_ns();
	} while (now - start < duration);
	return (double)(now - start) / n;
}

/* Another process sends all back; nanoseconds there and back. */
static double measure_roundtrip(const struct transport *t, struct link *link,
				size_t size)
{
	uint64_t start, now, n = 0;
	pid_t parent = getpid(), pid;

	fflush(stdout);
	pid = fork();
	if (pid < 0)
		fail("fork", errno);
	if (!pid) {
		/* Nobody else would end it */
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		if (getppid() != parent)
			_exit(EXIT_FAILURE);
		for (;;) {
			t->get(link, 1, size);
			t->put(link, 1, size);
		}
	}
	start = now_ns();
	do {
		t->put(link, 0, size);
		t->get(link, 0, size);
		++n;
		now = now_ns();
	} while (now - start < duration);
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	return (double)(now - start) / n;
}

static const struct {
	const char *name;
	double (*measure)(const struct transport *t, struct link *link, size_t size);
	size_t size;
} rows[] = {
	{ "one way, 64 bytes", measure_oneway, 64 },
	{ "one way, 4 KiB", measure_oneway, 4096 },
	{ "one way, 64 KiB", measure_oneway, 65536 },
	{ "round trip, 64 bytes", measure_roundtrip, 64 },
	{ "round trip, 4 KiB", measure_roundtrip, 4096 },
};

int cmd_bench(int argc, char **argv)
{
	struct link links[ARRAY_SIZE(transports)];
	bool json = false;
	size_t i, j;
	double ns;
	int c;

	opterr = 0;
	while ((c = getopt(argc, argv, "o:t:")) >= 0) {
		switch (c) {
		case 'o':
			json = parse_json(optarg);
			break;
		case 't':
			duration = parse_seconds(optarg) * 1e9;
			break;
		default:
			usage("wrong option '-%c'", optopt);
		}
	}
	if (optind < argc)
		usage("too many arguments: '%s'", argv[optind]);

	bus_check();
	for (j = 0; j < ARRAY_SIZE(transports); ++j)
		transports[j].open(&links[j]);
	if (json)
		printf("[");
	else
		printf("%-22s", "nanoseconds each");
	for (j = 0; !json && j < ARRAY_SIZE(transports); ++j)
		printf("%13s", transports[j].name);
	for (i = 0; i < ARRAY_SIZE(rows); ++i) {
		if (json)
			printf("%s\n {\"row\": \"%s\"", i ? "," : "", rows[i].name);
		else
			printf("\n%-22s", rows[i].name);
		for (j = 0; j < ARRAY_SIZE(transports); ++j) {
			ns = rows[i].measure(&transports[j], &links[j], rows[i].size);
			if (json)
				printf(", \"%s\": %.0f", transports[j].name, ns);
			else
				printf("%13.0f", ns);
			fflush(stdout);
		}
		if (json)
			printf("}");
	}
	puts(json ? "\n]" : "");
	return EXIT_SUCCESS;
}
