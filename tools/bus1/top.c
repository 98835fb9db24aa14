// SPDX-License-Identifier: GPL-2.0-only
/*
 * bus1 top: the peers, live. What they have is read as by bus1 peers; how many
 * messages go in and out is counted from the tracepoints.
 */
#include <errno.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <unistd.h>
#include "bus1.h"

struct rate {
	uint64_t peer;
	uint64_t in, out;	/* since the last time */
};

static struct rate *rates;
static size_t n_rates;
static double interval_s;	/* what they were counted in */
static char order = 'r';
static struct termios termios_before;
static bool is_raw;
static volatile sig_atomic_t stopped, resized;

static struct rate *rate_of(uint64_t peer)
{
	size_t i;

	for (i = 0; i < n_rates; ++i) {
		if (rates[i].peer == peer)
			return &rates[i];
	}
	rates = xrealloc(rates, (n_rates + 1) * sizeof(*rates));
	rates[n_rates] = (struct rate){ .peer = peer };
	return &rates[n_rates++];
}

static void rates_count(struct events *events)
{
	struct event event;

	while (events_next(events, &event)) {
		if (!strcmp(event.name, "commit")) {
			++rate_of(event_number(&event, "sender"))->out;
			++rate_of(event_number(&event, "peer"))->in;
		}
	}
}

static uint64_t peer_key(const struct peer *peer)
{
	const struct rate *rate;
	const char *what;

	switch (order) {
	case 'm':
		return peer->used[BYTES];
	case 'u':
		return peer->queue;
	case 'b':
		return peer_budget(peer, &what);
	default:
		rate = rate_of(peer->id);
		return rate->in + rate->out;
	}
}

/* The most comes first; peers are listed by their ids without anything else. */
static int compare_keys(const void *a, const void *b)
{
	const struct peer *x = a, *y = b;
	uint64_t kx = 0, ky = 0;

	if (order != 'p') {
		kx = peer_key(x);
		ky = peer_key(y);
	}
	if (kx != ky)
		return kx > ky ? -1 : 1;
	return x->id < y->id ? -1 : x->id > y->id;
}

/* How wide a column is that has numbers up to @n */
static int width_of(uint64_t n, int least)
{
	char text[24];

	return snprintf(text, sizeof(text), "%*llu", least,
			(unsigned long long)n);
}

static void print_rate(char text[16], uint64_t n, bool known)
{
	if (!known)
		strcpy(text, "-");
	else
		print_size(text, n / interval_s + 0.5);
}

/* At most @rows lines, of at most @columns characters. */
static void top_print(struct peers *peers, bool known, int rows, int columns)
{
	static const char * const orders[] = {
		"rrate", "mmemory", "uqueue", "bbudget", "ppeer",
	};
	char size[16], in[16], out[16], budget[24], command[64], line[256];
	uint64_t queue = 0, bytes = 0, n_in = 0, id_max = 0, uid_max = 0;
	int id_width, uid_width;
	const char *what, *by = "";
	const struct peer *peer;
	size_t i, j, shown;

	for (i = 0; i < peers->n; ++i) {
		peer = &peers->peers[i];
		queue += peer->queue;
		bytes += peer->used[BYTES];
		n_in += rate_of(peer->id)->in;
		if (peer->id > id_max)
			id_max = peer->id;
		if (peer->uid > uid_max)
			uid_max = peer->uid;
	}
	id_width = width_of(id_max, 5);
	uid_width = width_of(uid_max, 5);
	for (i = 0; i < ARRAY_SIZE(orders); ++i) {
		if (orders[i][0] == order)
			by = orders[i] + 1;
	}
	if (peers->n)
		qsort(peers->peers, peers->n, sizeof(*peers->peers),
		      compare_keys);

	print_size(size, bytes);
	print_rate(in, n_in, known);
	snprintf(line, sizeof(line),
		 "%zu peers, %llu queued, %s bytes, %s messages/s; by %s",
		 peers->n, (unsigned long long)queue, size, in, by);
	printf("%.*s\n", columns, line);
	if (!known)
		snprintf(line, sizeof(line), "no rates: tracing is for root");
	else if (peers->n_hidden)
		snprintf(line, sizeof(line), "%zu processes are not yours to look at",
			 peers->n_hidden);
	else
		line[0] = 0;
	printf("%.*s\n", columns, line);

	snprintf(line, sizeof(line), "%*s %7s %*s %5s %6s %6s %5s %-12s %5s %5s %s",
		 id_width, "PEER", "PID", uid_width, "UID", "NODES", "HANDLE",
		 "QUEUE", "BYTES", "BUDGET", "IN/s", "OUT/s", "COMMAND");
	printf(is_raw ? "\033[7m%-*.*s\033[0m\n" : "%-*.*s\n",
	       is_raw ? columns : 0, columns, line);

	shown = rows > 3 && (size_t)rows - 3 < peers->n ? (size_t)rows - 3 :
							  peers->n;
	for (i = 0; i < shown; ++i) {
		peer = &peers->peers[i];
		print_size(size, peer->used[BYTES]);
		print_rate(in, rate_of(peer->id)->in, known);
		print_rate(out, rate_of(peer->id)->out, known);
		j = peer_budget(peer, &what);
		snprintf(budget, sizeof(budget), "%3zu%% %s", j, what);
		for (j = 0; peer->holders[0].command[j]; ++j) {
			char c = peer->holders[0].command[j];

			command[j] = c >= ' ' && c < 0x7f ? c : '?';
		}
		command[j] = 0;
		if (peer->n_holders > 1)
			snprintf(command + j, sizeof(command) - j, " +%zu",
				 peer->n_holders - 1);
		snprintf(line, sizeof(line),
			 "%*llu %7d %*u %5llu %6llu %6llu %5s %-12s %5s %5s %s",
			 id_width, (unsigned long long)peer->id,
			 peer->holders[0].pid, uid_width, peer->uid,
			 (unsigned long long)peer->nodes,
			 (unsigned long long)peer->used[HANDLES],
			 (unsigned long long)peer->queue, size, budget, in, out,
			 command);
		printf("%.*s\n", columns, line);
	}
}

static void on_signal(int sig)
{
	if (sig == SIGWINCH)
		resized = 1;
	else
		stopped = 1;
}

static void terminal_leave(void)
{
	if (!is_raw)
		return;
	is_raw = false;
	tcsetattr(STDIN_FILENO, TCSANOW, &termios_before);
	fputs("\033[?25h\033[?1049l", stdout);
	fflush(stdout);
}

static void terminal_enter(void)
{
	struct termios t;

	if (tcgetattr(STDIN_FILENO, &termios_before))
		return;
	t = termios_before;
	t.c_lflag &= ~(ICANON | ECHO);
	tcsetattr(STDIN_FILENO, TCSANOW, &t);
	is_raw = true;
	atexit(terminal_leave);
	/* A screen of our own, without a cursor */
	fputs("\033[?1049h\033[?25l", stdout);
}

static void terminal_size(int *rows, int *columns)
{
	struct winsize size;

	*rows = 24;
	*columns = 80;
	if (!ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) && size.ws_row && size.ws_col) {
		*rows = size.ws_row;
		*columns = size.ws_col;
	}
}

static void on_key(char key)
{
	if (key == 'q')
		stopped = 1;
	else if (strchr("rmubp", key))
		order = key;
}

/* Until @until, count what comes, and listen to the keyboard. */
static void top_wait(struct events *events, uint64_t until)
{
	struct pollfd fds[] = {
		{ .fd = is_raw ? STDIN_FILENO : -1, .events = POLLIN },
	};
	uint64_t now;
	char key;
	int ms;

	while (!stopped && !resized && (now = now_ns()) < until) {
		/* Look often, so that the buffer does not overflow */
		ms = (until - now) / 1000000 + 1;
		if (events && ms > 100)
			ms = 100;
		if (poll(fds, 1, ms) > 0) {
			if (read(STDIN_FILENO, &key, 1) != 1)
				stopped = 1;
			else
				on_key(key);
			break;
		}
		if (events)
			rates_count(events);
	}
	if (events)
		rates_count(events);
}

int cmd_top(int argc, char **argv)
{
	static const char * const names[] = { "bus1_commit", NULL };
	static struct events events;
	struct sigaction action = { .sa_handler = on_signal };
	bool batch = !isatty(STDOUT_FILENO) || !isatty(STDIN_FILENO);
	uint64_t rounds = 0, i, start, now;
	double delay = 1;
	struct peers peers;
	const char *problem;
	int c, rows, columns;

	opterr = 0;
	while ((c = getopt(argc, argv, "bd:n:s:")) >= 0) {
		switch (c) {
		case 'b':
			batch = true;
			break;
		case 'd':
			delay = parse_seconds(optarg);
			break;
		case 'n':
			rounds = parse_number("number of rounds", optarg, UINT32_MAX);
			break;
		case 's':
			order = optarg[0];
			if (!order || !strchr("rmubp", order) || optarg[1])
				usage("'%s' is no order: r, m, u, b or p", optarg);
			break;
		default:
			usage("wrong option '-%c'", optopt);
		}
	}
	if (optind < argc)
		usage("too many arguments: '%s'", argv[optind]);
	if (delay < 0.1)
		delay = 0.1;

	bus_check();
	/* Whatever ends this, the instance of tracing must not stay */
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGHUP, &action, NULL);
	sigaction(SIGQUIT, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	problem = events_open(&events, names);
	sigaction(SIGWINCH, &action, NULL);
	if (!batch)
		terminal_enter();

	start = now_ns();
	for (i = 0; !stopped && (!rounds || i < rounds); ++i) {
		/* The first table does not take long, or it seems to hang */
		top_wait(problem ? NULL : &events,
			 now_ns() + (i || delay < 1 ? delay : 1) * 1e9);
		if (stopped)
			break;
		resized = 0;
		/* What comes while /proc is read counts in the next one */
		now = now_ns();
		interval_s = (now - start) / 1e9;
		peers_read(&peers);
		terminal_size(&rows, &columns);
		if (is_raw) {
			/* The last line stays empty, or the screen would scroll */
			fputs("\033[H\033[J", stdout);
			top_print(&peers, !problem, rows - 2, columns);
			printf("\n%.*s", columns, "q quit   sort by: r rate  m memory  u queue  b budget  p peer");
		} else {
			if (i)
				putchar('\n');
			top_print(&peers, !problem, 0, 256);
		}
		if (fflush(stdout) || ferror(stdout))
			stopped = 1;
		peers_free(&peers);
		/* A key shows what has come by then, and does not take it away */
		if (now - start >= delay * 1e9) {
			n_rates = 0;
			start = now;
		}
	}
	terminal_leave();
	if (!problem)
		events_close(&events);
	return EXIT_SUCCESS;
}
