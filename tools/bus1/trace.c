// SPDX-License-Identifier: GPL-2.0-only
/*
 * bus1 trace: messages and notifications as they happen, in their global order.
 *
 * Events are collected by transaction. A transaction is printed some time after it
 * happened: by then, those that come before it are known, and most are received. What
 * comes later than that is printed late, and marked. Some time after that it is forgotten.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bus1.h"

#define TABLE_MIN	1024
#define KEEP_MIN	1000000000ULL

/* Of transactions that are not sealed nothing but the id is known. */
static struct transaction **table;	/* by id, open addressing */
static size_t table_size, table_used;

static struct transaction **waiting;	/* to be printed */
static size_t n_waiting;
static struct transaction **done;	/* printed, in order */
static size_t n_done;

static struct name *names;
static size_t n_names;

static struct {
	uint64_t peer, pid, uid, node;
	bool has_peer, has_pid, has_uid, has_node;
	uint64_t hold_ns;
	uint64_t count;
	bool json;
	const char *svg;
} options = { .hold_ns = 500000000 };

static uint64_t first_ts, n_printed;
static volatile sig_atomic_t stopped;

const struct name *name_find(uint64_t peer)
{
	static const struct name unknown = { .command = "" };
	size_t i;

	for (i = 0; i < n_names; ++i) {
		if (names[i].peer == peer)
			return &names[i];
	}
	return &unknown;
}

static struct name *name_of(uint64_t peer)
{
	struct name *name = (struct name *)name_find(peer);

	if (name->peer == peer)
		return name;
	names = xrealloc(names, (n_names + 1) * sizeof(*names));
	name = &names[n_names++];
	memset(name, 0, sizeof(*name));
	name->peer = peer;
	name->uid = UINT32_MAX;
	return name;
}

/* The process that a thread belongs to; itself if it is gone. */
static pid_t process_of(pid_t tid)
{
	char path[64], line[128];
	pid_t pid = tid;
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "Tgid: %d", &pid) == 1)
			break;
	}
	if (f)
		fclose(f);
	return pid;
}

static void command_of(pid_t pid, char command[32])
{
	char path[64];
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	f = fopen(path, "re");
	if (!f || !fgets(command, 32, f))
		command[0] = 0;
	command[strcspn(command, "\n")] = 0;
	if (f)
		fclose(f);
}

/* An event that the peer itself caused tells whose it is. */
static void name_learn(uint64_t peer, const struct event *event)
{
	struct name *name = name_of(peer);

	if (!event->tid || (name->pid && name->command[0]))
		return;
	if (!name->pid)
		name->pid = process_of(event->tid);
	if (event->command[0])
		snprintf(name->command, sizeof(name->command), "%s",
			 event->command);
	else
		command_of(event->tid, name->command);
}

static void names_read(void)
{
	struct peers peers;
	struct name *name;
	size_t i;

	peers_read(&peers);
	for (i = 0; i < peers.n; ++i) {
		name = name_of(peers.peers[i].id);
		name->pid = peers.peers[i].holders[0].pid;
		name->uid = peers.peers[i].uid;
		snprintf(name->command, sizeof(name->command), "%s",
			 peers.peers[i].holders[0].command);
	}
	peers_free(&peers);
}

static struct transaction **table_slot(uint64_t tx)
{
	size_t i = tx * 0x9e3779b97f4a7c15ULL >> 20;

	for (;; ++i) {
		i &= table_size - 1;
		if (!table[i] || table[i]->tx == tx)
			return &table[i];
	}
}

/* Make it one of so many, a power of 2. */
static void table_resize(size_t new_size)
{
	struct transaction **old = table;
	size_t i, size = table_size;

	table_size = new_size;
	table = calloc(table_size, sizeof(*table));
	if (!table)
		die("out of memory");
	for (i = 0; i < size; ++i) {
		if (old[i])
			*table_slot(old[i]->tx) = old[i];
	}
	free(old);
}

static struct transaction *transaction_of(uint64_t tx)
{
	struct transaction **slot, *t;

	if (table_used * 2 >= table_size)
		table_resize(table_size ? table_size * 2 : TABLE_MIN);
	slot = table_slot(tx);
	if (*slot)
		return *slot;
	t = calloc(1, sizeof(*t));
	if (!t)
		die("out of memory");
	t->tx = tx;
	t->seen = now_ns();
	t->type = 'm';
	*slot = t;
	++table_used;
	waiting = xrealloc(waiting, (n_waiting + 1) * sizeof(*waiting));
	waiting[n_waiting++] = t;
	return t;
}

static struct delivery *delivery_of(struct transaction *t, uint64_t peer,
				    uint64_t node, char type)
{
	struct delivery *d;
	size_t i;

	for (i = 0; i < t->n; ++i) {
		d = &t->deliveries[i];
		if (d->peer == peer && d->node == node && d->type == type)
			return d;
	}
	t->deliveries = xrealloc(t->deliveries, (t->n + 1) * sizeof(*d));
	d = &t->deliveries[t->n++];
	*d = (struct delivery){ .peer = peer, .node = node, .type = type };
	return d;
}

static char type_of(const struct event *event)
{
	if (event_is(event, "type", "node_destroy"))
		return 'd';
	return event_is(event, "type", "node_release") ? 'r' : 'm';
}

void print_ns(char text[24], uint64_t ns)
{
	if (ns < 10000)
		snprintf(text, 24, "%llu ns", (unsigned long long)ns);
	else if (ns < 10000000)
		snprintf(text, 24, "%.1f us", ns / 1e3);
	else if (ns < 10000000000)
		snprintf(text, 24, "%.1f ms", ns / 1e6);
	else
		snprintf(text, 24, "%.1f s", ns / 1e9);
}

static bool filter_peer(uint64_t peer)
{
	const struct name *name = name_find(peer);

	return (!options.has_peer || peer == options.peer) &&
	       (!options.has_pid || (uint64_t)name->pid == options.pid) &&
	       (!options.has_uid || name->uid == options.uid);
}

/* Shown is what the sender or the receiver is asked for. */
static bool filter_delivery(const struct transaction *t,
			    const struct delivery *d)
{
	if (options.has_node && d->node != options.node)
		return false;
	/* Who closes is not told of it */
	if (t->type == 'c' && d->peer == t->sender)
		return false;
	return filter_peer(d->peer) || (t->sender && filter_peer(t->sender));
}

static bool filter(struct transaction *t)
{
	bool any = false;
	size_t i;

	for (i = 0; i < t->n; ++i) {
		t->deliveries[i].shown = filter_delivery(t, &t->deliveries[i]);
		any |= t->deliveries[i].shown;
	}
	return any || (t->type == 'c' && !options.has_node &&
		       filter_peer(t->sender));
}

static const char *type_name(char type)
{
	switch (type) {
	case 'd':
		return "destroy";
	case 'r':
		return "release";
	case 'c':
		return "close";
	default:
		return "message";
	}
}

static void print_peer(uint64_t peer)
{
	const struct name *name = name_find(peer);

	if (!peer) {
		fputs("?", stdout);
		return;
	}
	printf("%llu", (unsigned long long)peer);
	if (name->command[0]) {
		putchar('(');
		print_text(stdout, name->command);
		putchar(')');
	}
}

/* Since the first one; one that is late may be before that. */
static void print_time(const struct transaction *t)
{
	bool before = t->ts < first_ts;
	uint64_t at = before ? first_ts - t->ts : t->ts - first_ts;

	printf("%s%*llu.%09llu%s ", before ? "-" : "", before ? 4 : 5,
	       (unsigned long long)(at / 1000000000),
	       (unsigned long long)(at % 1000000000), t->late ? "<" : " ");
}

static void print_delivery(const struct transaction *t,
			   const struct delivery *d, bool first)
{
	char age[24] = "queued";

	if (d->received)
		print_ns(age, d->age);
	if (first)
		print_time(t);
	else
		printf("%15s  ", "");
	printf("%-8s", d->type == 'm' ? "message" : type_name(d->type));
	print_peer(t->sender);
	fputs(" -> ", stdout);
	print_peer(d->peer);
	printf(" node %#llx  ", (unsigned long long)d->node);
	if (d->type == 'm') {
		printf("%llu bytes", (unsigned long long)t->n_bytes);
		if (t->n_handles)
			printf(", %llu handle%s", (unsigned long long)t->n_handles,
			       t->n_handles == 1 ? "" : "s");
		if (t->n_fds)
			printf(", %llu file%s", (unsigned long long)t->n_fds,
			       t->n_fds == 1 ? "" : "s");
		fputs("  ", stdout);
	}
	puts(age);
}

static void print_transaction(struct transaction *t)
{
	bool first = true;
	size_t i;

	if (t->type == 'c') {
		print_time(t);
		printf("close   ");
		print_peer(t->sender);
		putchar('\n');
		first = false;
	}
	for (i = 0; i < t->n; ++i) {
		if (!t->deliveries[i].shown)
			continue;
		print_delivery(t, &t->deliveries[i], first);
		first = false;
	}
}

static void print_json_peer(const char *key, uint64_t peer)
{
	const struct name *name = name_find(peer);

	printf("\"%s\": ", key);
	if (!peer) {
		printf("null");
		return;
	}
	printf("{\"peer\": %llu", (unsigned long long)peer);
	if (name->pid)
		printf(", \"pid\": %d", name->pid);
	if (name->peer && name->uid != UINT32_MAX)
		printf(", \"uid\": %u", name->uid);
	if (name->command[0]) {
		printf(", \"command\": ");
		json_string(stdout, name->command);
	}
	printf("}");
}

static void print_json(struct transaction *t)
{
	const struct delivery *d;
	bool first = true;
	size_t i;

	printf("{\"ts\": %llu, \"tx\": %llu, \"type\": \"%s\", ",
	       (unsigned long long)t->ts, (unsigned long long)t->tx,
	       type_name(t->type));
	print_json_peer("sender", t->sender);
	printf(", \"late\": %s, \"bytes\": %llu, \"handles\": %llu, \"files\": %llu, \"deliveries\": [",
	       t->late ? "true" : "false", (unsigned long long)t->n_bytes,
	       (unsigned long long)t->n_handles, (unsigned long long)t->n_fds);
	for (i = 0; i < t->n; ++i) {
		d = &t->deliveries[i];
		if (!d->shown)
			continue;
		printf("%s{\"type\": \"%s\", ", first ? "" : ", ",
		       type_name(d->type));
		print_json_peer("to", d->peer);
		printf(", \"node\": \"%#llx\", \"latency_ns\": ",
		       (unsigned long long)d->node);
		if (d->received)
			printf("%llu}", (unsigned long long)d->age);
		else
			printf("null}");
		first = false;
	}
	printf("]}\n");
}

static void transaction_print(struct transaction *t)
{
	static struct transaction last;

	t->printed = true;
	t->late = t->ts < last.ts || (t->ts == last.ts && t->tx <= last.tx);
	if (!t->late) {
		last.ts = t->ts;
		last.tx = t->tx;
	}
	if (!filter(t))
		return;
	if (!first_ts)
		first_ts = t->ts;
	if (options.json)
		print_json(t);
	else
		print_transaction(t);
	if (options.svg) {
		done = xrealloc(done, (n_done + 1) * sizeof(*done));
		done[n_done++] = t;
	}
	if (++n_printed == options.count)
		stopped = 1;
}

int compare_transactions(const void *a, const void *b)
{
	const struct transaction *x = *(struct transaction *const *)a;
	const struct transaction *y = *(struct transaction *const *)b;

	if (x->ts != y->ts)
		return x->ts < y->ts ? -1 : 1;
	return x->tx < y->tx ? -1 : x->tx > y->tx;
}

/* What is sealed and old enough; with @all, whatever there is. */
static void print_waiting(bool all)
{
	uint64_t now = now_ns();
	size_t i, n = 0;

	/* Others may be in order before these, but be told of later */
	if (!n_waiting)
		return;
	qsort(waiting, n_waiting, sizeof(*waiting), compare_transactions);
	for (i = 0; i < n_waiting; ++i) {
		struct transaction *t = waiting[i];

		/* Not sealed, or not told of yet: it may come before all others */
		if (!t->ts) {
			if (!all && now < t->seen + options.hold_ns)
				return;
			waiting[n++] = t;
			continue;
		}
		if (!all && now < t->ts + options.hold_ns)
			break;
		if (!stopped || all)
			transaction_print(t);
	}
	memmove(waiting + n, waiting + i, (n_waiting - i) * sizeof(*waiting));
	n_waiting -= i - n;
}

/*
 * Forget what was shown a good while ago, and what has never become a transaction. If it is
 * received after all, it is shown as one of which nothing else is known.
 */
static void forget(void)
{
	static uint64_t next;
	uint64_t now = now_ns(), keep = 16 * options.hold_ns;
	size_t i, n, size = TABLE_MIN;
	struct transaction *t;

	if (keep < KEEP_MIN)
		keep = KEEP_MIN;
	/* A chart shows all of them, in the end */
	if (options.svg || now < next)
		return;
	next = now + keep / 4;

	for (i = n = 0; i < n_waiting; ++i) {
		if (waiting[i]->ts || now < waiting[i]->seen + keep)
			waiting[n++] = waiting[i];
	}
	n_waiting = n;

	for (i = n = 0; i < table_size; ++i) {
		t = table[i];
		if (!t)
			continue;
		if ((t->ts && !t->printed) || now < t->seen + keep) {
			++n;
			continue;
		}
		free(t->deliveries);
		free(t);
		table[i] = NULL;
	}
	table_used = n;
	while (size < 4 * n)
		size *= 2;
	table_resize(size);

	for (i = n = 0; i < n_names; ++i) {
		if (!names[i].closed || now < names[i].closed + keep)
			names[n++] = names[i];
	}
	n_names = n;
}

static void on_commit(const struct event *event)
{
	struct transaction *t = transaction_of(event_number(event, "tx"));

	t->ts = event_number(event, "ts");
	t->sender = event_number(event, "sender");
	t->n_bytes = event_number(event, "n_bytes");
	t->n_handles = event_number(event, "n_handles");
	t->n_fds = event_number(event, "n_fds");
	delivery_of(t, event_number(event, "peer"), event_number(event, "node"),
		    'm');
	name_learn(t->sender, event);
}

static void on_recv(const struct event *event)
{
	uint64_t peer = event_number(event, "peer");
	uint64_t tx = event_number(event, "tx");
	struct transaction *t;
	struct delivery *d;
	char age[24];

	name_learn(peer, event);
	/* The seed is nobody's message */
	if (!tx)
		return;
	t = transaction_of(tx);
	t->ts = event_number(event, "ts");
	d = delivery_of(t, peer, event_number(event, "destination"),
			type_of(event));
	d->received = true;
	d->age = event_number(event, "age");
	if (d->type == 'm')
		t->n_bytes = event_number(event, "n_bytes");
	else if (t->type == 'm')
		t->type = d->type;
	if (!t->printed || !filter_delivery(t, d) || options.json)
		return;
	/* It has its place above */
	print_time(t);
	printf("received by ");
	print_peer(peer);
	printf(" node %#llx, ", (unsigned long long)d->node);
	print_ns(age, d->age);
	printf("after %s\n", age);
}

static void on_notify(const struct event *event)
{
	struct transaction *t = transaction_of(event_number(event, "tx"));
	uint64_t ts = event_number(event, "ts");
	char type = type_of(event);

	t->sender = event_number(event, "owner");
	if (t->type == 'm')
		t->type = type;
	if (ts)
		t->ts = ts;
	/* Who is told knows the node by its handle */
	delivery_of(t, event_number(event, "peer"),
		    event_number(event, "handle"), type);
}

static void on_destroy(const struct event *event, char type)
{
	struct transaction *t = transaction_of(event_number(event, "tx"));

	t->ts = event_number(event, "ts");
	t->sender = event_number(event, "peer");
	if (t->type != 'c')
		t->type = type;
	if (type == 'c')
		name_of(t->sender)->closed = now_ns();
}

static void on_event(const struct event *event)
{
	const char *name = event->name;

	if (!strcmp(name, "stage"))
		transaction_of(event_number(event, "tx"));
	else if (!strcmp(name, "commit"))
		on_commit(event);
	else if (!strcmp(name, "recv"))
		on_recv(event);
	else if (!strcmp(name, "notify"))
		on_notify(event);
	else if (!strcmp(name, "node_destroy"))
		on_destroy(event, 'd');
	else if (!strcmp(name, "peer_close"))
		on_destroy(event, 'c');
	else if (!strcmp(name, "peer_open")) {
		name_of(event_number(event, "peer"))->uid =
			event_number(event, "uid");
		name_learn(event_number(event, "peer"), event);
	} else if (!strcmp(name, "send")) {
		name_of(event_number(event, "peer"))->uid =
			event_number(event, "uid");
		name_learn(event_number(event, "peer"), event);
	}
}

static void on_signal(int sig)
{
	(void)sig;
	stopped = 1;
}

static pid_t command_start(char **argv, int *gatep)
{
	int gate[2];
	pid_t pid;
	char c;

	if (pipe2(gate, O_CLOEXEC))
		die("cannot make a pipe: %s", strerror(errno));
	pid = fork();
	if (pid < 0)
		die("cannot fork: %s", strerror(errno));
	if (!pid) {
		close(gate[1]);
		/* It starts when it is watched */
		if (read(gate[0], &c, 1) != 1)
			_exit(127);
		execvp(argv[0], argv);
		fprintf(stderr, "bus1 trace: cannot run '%s': %s\n", argv[0],
			strerror(errno));
		_exit(127);
	}
	close(gate[0]);
	*gatep = gate[1];
	return pid;
}

static void drain(struct events *events)
{
	struct event event;

	while (events_next(events, &event))
		on_event(&event);
}

static int run(struct events *events, pid_t command, double seconds)
{
	uint64_t end = seconds ? now_ns() + seconds * 1e9 : UINT64_MAX;
	int status = 0;
	pid_t pid = 0;

	while (!stopped && now_ns() < end) {
		poll(NULL, 0, 20);
		/* Look whether it has ended first: then all that it did is there */
		if (command)
			pid = waitpid(command, &status, WNOHANG);
		drain(events);
		print_waiting(false);
		forget();
		if (fflush(stdout) || ferror(stdout))
			stopped = 1;
		if (command && pid == command)
			break;
	}
	if (!options.count || n_printed < options.count) {
		drain(events);
		print_waiting(true);
	}
	if (events->lost)
		fprintf(stderr, "bus1 trace: %llu events were lost: they came too fast\n",
			(unsigned long long)events->lost);
	if (!command || pid != command)
		return EXIT_SUCCESS;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int cmd_trace(int argc, char **argv)
{
	static const char * const events_wanted[] = {
		"bus1_peer_open", "bus1_peer_close", "bus1_node_destroy",
		"bus1_send", "bus1_stage", "bus1_commit", "bus1_recv", "bus1_notify",
		NULL,
	};
	enum { OPT_SVG = 256, OPT_HOLD };
	static const struct option longopts[] = {
		{ "peer", required_argument, NULL, 'P' },
		{ "pid", required_argument, NULL, 'p' },
		{ "uid", required_argument, NULL, 'u' },
		{ "node", required_argument, NULL, 'N' },
		{ "svg", required_argument, NULL, OPT_SVG },
		{ "hold", required_argument, NULL, OPT_HOLD },
		{ }
	};
	static struct events events;
	struct sigaction action = { .sa_handler = on_signal };
	const char *problem;
	double seconds = 0;
	pid_t command = 0;
	int c, gate = -1, r;

	opterr = 0;
	while ((c = getopt_long(argc, argv, "+o:n:t:P:p:u:N:", longopts,
				NULL)) >= 0) {
		switch (c) {
		case 'o':
			options.json = parse_json(optarg);
			break;
		case 'n':
			options.count = parse_number("number of transactions",
						     optarg, UINT64_MAX);
			break;
		case 't':
			seconds = parse_seconds(optarg);
			break;
		case 'P':
			options.peer = parse_number("peer", optarg, UINT64_MAX);
			options.has_peer = true;
			break;
		case 'p':
			options.pid = parse_number("pid", optarg, INT32_MAX);
			options.has_pid = true;
			break;
		case 'u':
			options.uid = parse_number("uid", optarg, UINT32_MAX);
			options.has_uid = true;
			break;
		case 'N':
			options.node = parse_number("node", optarg, UINT64_MAX);
			options.has_node = true;
			break;
		case OPT_SVG:
			options.svg = optarg;
			break;
		case OPT_HOLD:
			options.hold_ns = parse_seconds(optarg) * 1e9;
			break;
		default:
			if (optopt && optopt < 256)
				usage("wrong option '-%c'", optopt);
			usage("wrong option '%s'", argv[optind - 1]);
		}
	}

	bus_check();
	if (optind < argc)
		command = command_start(argv + optind, &gate);
	/* Whatever ends this, the instance of tracing must not stay */
	signal(SIGPIPE, SIG_IGN);
	sigaction(SIGHUP, &action, NULL);
	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
	problem = events_open(&events, events_wanted);
	if (problem)
		die("%s", problem);
	names_read();
	if (command && write(gate, "", 1) != 1)
		die("cannot start the command");

	r = run(&events, command, seconds);
	events_close(&events);
	if (options.svg && svg_write(options.svg, done, n_done))
		die("cannot write '%s': %s", options.svg, strerror(errno));
	return r;
}
