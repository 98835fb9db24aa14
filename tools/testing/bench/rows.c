// SPDX-License-Identifier: GPL-2.0-only
/* What is measured. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/bus1.h>

#include "rows.h"

#define KIB	1024UL
#define MIB	(1024UL * KIB)

static volatile uint64_t sink;

/* How all of them read a payload. */
__attribute__((noinline))
static uint64_t read_payload(const void *data, size_t n)
{
	const uint64_t *p = data;
	uint64_t sum = 0;

	for (n /= sizeof(*p); n; --n)
		sum += *p++;
	return sum;
}

static void channel_init(struct channel *c, const struct transport *t, size_t size,
			 unsigned int depth)
{
	int end;

	if (size > t->max)
		row_none("the payload is too long");
	if (depth > t->depth_max)
		row_none("the queue is too long");
	if (!size && t->no_empty)
		row_none("it has no empty messages");
	memset(c, 0, sizeof(*c));
	c->t = t;
	c->size = size;
	for (end = 0; end < 2; ++end) {
		c->out[end] = buffer_new(size + 1);
		c->in[end] = buffer_new(size + 1);
	}
	t->open(c, depth);
}

static void channel_attach(struct channel *c, int end)
{
	if (c->t->attach)
		c->t->attach(c, end);
}

/* One task sends, receives, and gives back what it received. */

static void one_way(void *arg)
{
	struct channel *c = arg;

	c->t->send(c, SEND_END);
	c->t->recv(c, RECV_END);
	if (c->t->release)
		c->t->release(c, RECV_END);
}

static void one_way_read(void *arg)
{
	struct channel *c = arg;

	c->t->send(c, SEND_END);
	sink += read_payload(c->t->recv(c, RECV_END), c->size);
	if (c->t->release)
		c->t->release(c, RECV_END);
}

static void run_one_way(const struct row *row, const struct transport *t)
{
	struct op op = { .run = row->read ? one_way_read : one_way, .parts = 1 };
	struct channel c;

	channel_init(&c, t, row->size, 1);
	channel_attach(&c, RECV_END);
	channel_attach(&c, SEND_END);
	op.arg = &c;
	measure(&op);
	t->close(&c);
}

/* Two processes: a request, and an answer. */

static void call(struct channel *c)
{
	if (c->t->call) {
		c->t->call(c);
		return;
	}
	c->t->send(c, SEND_END);
	c->t->recv(c, SEND_END);
	if (c->t->release)
		c->t->release(c, SEND_END);
}

static void call_op(void *arg)
{
	call(arg);
}

static void serve(struct channel *c)
{
	if (c->t->serve) {
		c->t->serve(c);
		return;
	}
	c->t->recv(c, RECV_END);
	if (c->t->release)
		c->t->release(c, RECV_END);
	c->t->send(c, RECV_END);
}

/* Fork a process that serves for ever; return when it is ready. */
static pid_t fork_server(struct channel *c, int cpu)
{
	int fds[2];
	char byte;
	pid_t pid;

	must(pipe(fds), "pipe");
	pid = must(fork(), "fork");
	if (!pid) {
		run_on(cpu);
		channel_attach(c, RECV_END);
		must(write(fds[1], "", 1), "write");
		for (;;)
			serve(c);
	}
	close(fds[1]);
	if (read(fds[0], &byte, 1) != 1)
		row_fail("the server has failed");
	close(fds[0]);
	return pid;
}

static void run_round_trip(const struct row *row, const struct transport *t)
{
	struct op op = { .run = call_op, .parts = 1 };
	struct channel c;

	channel_init(&c, t, row->size, 1);
	fork_server(&c, row->two_cpus);
	channel_attach(&c, SEND_END);
	op.arg = &c;
	measure(&op);
}

/* Several pairs of processes at once, a pair on each CPU. */

/* They go on until they are killed: what it was has been said. */
static void pair_has_failed(int signal)
{
	(void)signal;
	_exit(1);
}

static void pair(const struct row *row, const struct transport *t, int cpu, int ready,
		 int go, unsigned int n)
{
	struct channel c;
	char byte;

	run_on(cpu);
	channel_init(&c, t, row->size, 1);
	fork_server(&c, cpu);
	channel_attach(&c, SEND_END);
	for (;;) {
		unsigned int i;

		must(write(ready, "", 1), "write");
		if (must(read(go, &byte, 1), "read") != 1)
			return;
		for (i = 0; i < n; ++i)
			call(&c);
	}
}

static void wait_for(int fd, unsigned int n)
{
	char byte;

	for (; n; --n)
		if (read(fd, &byte, 1) != 1)
			row_fail("a pair has failed");
}

static void run_pairs(const struct row *row, const struct transport *t)
{
	unsigned int i, j, n = mode == MODE_TIME ? 100 : 200, n_samples = 5;
	int ready[2], go[4][2];
	double samples[8];
	uint64_t start;

	if (t == &binder_transport && row->n > 1)
		row_none("there is one context manager");
	must(pipe(ready), "pipe");
	signal(SIGCHLD, pair_has_failed);
	for (i = 0; i < row->n; ++i) {
		must(pipe(go[i]), "pipe");
		if (!must(fork(), "fork")) {
			pair(row, t, i % n_cpus, ready[1], go[i][0], n);
			_exit(0);
		}
	}
	close(ready[1]);
	wait_for(ready[0], row->n);
	for (j = 0; j < n_samples; ++j) {
		start = now();
		for (i = 0; i < row->n; ++i)
			must(write(go[i][1], "", 1), "write");
		wait_for(ready[0], row->n);
		samples[j] = (double)(now() - start) / n / row->n;
	}
	report(samples, n_samples);
}

/* What the sender pays for each of many receivers. */

struct multicast {
	unsigned int n;
	struct channel *channels;
	int sender, *peers;
	uint64_t *ids;
	char *data;
	size_t size;
};

static void multicast(void *arg)
{
	struct multicast *m = arg;
	unsigned int i;

	for (i = 0; i < m->n; ++i)
		m->channels[i].t->send(&m->channels[i], SEND_END);
}

static void multicast_drain(void *arg)
{
	struct multicast *m = arg;
	unsigned int i;

	for (i = 0; i < m->n; ++i)
		m->channels[i].t->recv(&m->channels[i], RECV_END);
}

static void multicast_bus1(void *arg)
{
	struct multicast *m = arg;

	bus1_send(m->sender, m->ids, m->n, m->data, m->size, NULL, NULL);
}

static void multicast_bus1_drain(void *arg)
{
	struct multicast *m = arg;
	unsigned int i;

	for (i = 0; i < m->n; ++i)
		bus1_drain(m->peers[i]);
}

static void run_multicast(const struct row *row, const struct transport *t)
{
	struct multicast m = { .n = row->n, .size = row->size };
	struct op op = { .arg = &m, .parts = row->n };
	unsigned int i;

	if (t == &binder_transport)
		row_none("there is one context manager");
	if (t == &bus1_transport) {
		m.sender = bus1_open();
		m.peers = calloc(m.n, sizeof(*m.peers));
		m.ids = calloc(m.n, sizeof(*m.ids));
		m.data = buffer_new(m.size);
		for (i = 0; i < m.n; ++i) {
			m.peers[i] = bus1_open();
			m.ids[i] = bus1_give(m.peers[i], 0x100, m.sender);
		}
		op.run = multicast_bus1;
		op.after = multicast_bus1_drain;
	} else {
		m.channels = calloc(m.n, sizeof(*m.channels));
		for (i = 0; i < m.n; ++i) {
			channel_init(&m.channels[i], t, m.size, 1);
			/* One payload for all of them. */
			m.channels[i].out[0] = m.channels[0].out[0];
		}
		op.run = multicast;
		op.after = multicast_drain;
	}
	measure(&op);
}

/* A message that brings something along. */

struct cargo {
	struct channel c;
	int fd;
};

static void send_file(void *arg)
{
	struct cargo *cargo = arg;

	cargo->c.t->file(&cargo->c, cargo->fd);
}

static void send_handle(void *arg)
{
	struct cargo *cargo = arg;

	cargo->c.t->handle(&cargo->c);
}

static void run_cargo(const struct row *row, const struct transport *t)
{
	struct op op = { .run = row->n ? send_handle : send_file, .parts = 1 };
	struct cargo cargo;

	if (row->n ? !t->handle : !t->file)
		row_none("it cannot");
	channel_init(&cargo.c, t, row->size, 1);
	channel_attach(&cargo.c, RECV_END);
	channel_attach(&cargo.c, SEND_END);
	if (row->n && t->handle_init)
		t->handle_init(&cargo.c);
	cargo.fd = must(open("/dev/null", O_RDONLY | O_CLOEXEC), "open /dev/null");
	op.arg = &cargo;
	measure(&op);
}

/* Come and go. */

static void open_close(void *arg)
{
	const struct transport *t = arg;

	t->open_close();
}

static void run_open(const struct row *row, const struct transport *t)
{
	struct op op = { .run = open_close, .arg = (void *)t, .parts = 1 };

	(void)row;
	measure(&op);
}

/* Destroy a node that many hold. */

struct destroy {
	unsigned int n;
	int owner, *holders;
	uint64_t *ids, node;
};

static void destroy_before(void *arg)
{
	struct destroy *d = arg;
	unsigned int i;

	for (i = 0; i < d->n; ++i)
		d->ids[i] = bus1_give(d->owner, d->node, d->holders[i]);
}

static void destroy(void *arg)
{
	struct destroy *d = arg;

	bus1_destroy(d->owner, d->node);
}

static void destroy_after(void *arg)
{
	struct destroy *d = arg;
	unsigned int i;

	bus1_drain(d->owner);
	for (i = 0; i < d->n; ++i) {
		bus1_drain(d->holders[i]);
		must(sys_ioctl(d->holders[i], BUS1_CMD_HANDLE_RELEASE, &d->ids[i]),
		     "HANDLE_RELEASE");
	}
}

static void run_destroy(const struct row *row, const struct transport *t)
{
	struct destroy d = { .n = row->n, .node = 0x100 };
	struct op op = {
		.run = destroy,
		.before = destroy_before,
		.after = destroy_after,
		.arg = &d,
		.parts = row->n,
	};
	unsigned int i;

	(void)t;
	d.owner = bus1_open();
	d.holders = calloc(d.n, sizeof(*d.holders));
	d.ids = calloc(d.n, sizeof(*d.ids));
	for (i = 0; i < d.n; ++i)
		d.holders[i] = bus1_open();
	measure(&op);
}

/* A sender with many handles, of which it uses any. */

struct table {
	struct channel c;
	unsigned int n;
	uint64_t *ids, random;
};

static void table(void *arg)
{
	struct table *t = arg;

	t->random = t->random * 6364136223846793005ULL + 1442695040888963407ULL;
	t->c.id[0] = t->ids[(t->random >> 33) % t->n];
	one_way(&t->c);
}

static void run_table(const struct row *row, const struct transport *t)
{
	struct table table_ = { .n = row->n };
	struct op op = { .run = table, .arg = &table_, .parts = 1 };
	unsigned int i;

	if (row->n > 10000)
		bus1_raise("user_handles_max", 4UL * row->n);
	channel_init(&table_.c, t, row->size, 1);
	channel_attach(&table_.c, RECV_END);
	channel_attach(&table_.c, SEND_END);
	table_.ids = calloc(row->n, sizeof(*table_.ids));
	for (i = 0; i < row->n; ++i)
		table_.ids[i] = bus1_give(table_.c.fd[1][0], 0x1000 + i * 8UL,
					  table_.c.fd[0][0]);
	measure(&op);
}

/* A queue in which there are other messages already. */
static void run_depth(const struct row *row, const struct transport *t)
{
	struct op op = { .run = one_way, .parts = 1 };
	struct channel c;
	unsigned int i;

	channel_init(&c, t, row->size, row->n);
	channel_attach(&c, RECV_END);
	channel_attach(&c, SEND_END);
	for (i = 1; i < row->n; ++i)
		t->send(&c, SEND_END);
	op.arg = &c;
	measure(&op);
}

/* Others are there, and do nothing. */
static void run_idle(const struct row *row, const struct transport *t)
{
	struct channel *idle;
	unsigned int i;

	if (row->n && t == &binder_transport)
		row_none("there is one context manager");
	idle = calloc(row->n + 1, sizeof(*idle));
	for (i = 0; i < row->n; ++i)
		channel_init(&idle[i], t, row->size, 1);
	run_one_way(row, t);
}

/* What nobody can do without. */

static void floor_getppid(void *arg)
{
	(void)arg;
	sys3(SYS_getppid, 0, 0, 0);
}

static void floor_ioctl(void *arg)
{
	if (sys_ioctl(*(int *)arg, _IO(BUS1_IOCTL_MAGIC, 0x7f), NULL) != -ENOTTY)
		row_fail("a command that nobody knows");
}

static void floor_send(void *arg)
{
	bus1_send(*(int *)arg, NULL, 0, NULL, 0, NULL, NULL);
}

struct copy {
	char *from, *to;
	size_t n;
};

/* By the instruction that the kernel uses on this machine. */
static void floor_copy(void *arg)
{
	const struct copy *copy = arg;
	char *from = copy->from, *to = copy->to;
	size_t n = copy->n / 8;

	__asm__ volatile("rep movsq" : "+S"(from), "+D"(to), "+c"(n) : : "memory");
}

static void run_floor(const struct row *row, const struct transport *t)
{
	struct op op = { .parts = 1 };
	struct copy copy;
	int fd;

	(void)t;
	if (row->size) {
		copy.from = buffer_new(row->size);
		copy.to = buffer_new(row->size);
		copy.n = row->size;
		op.run = floor_copy;
		op.arg = &copy;
	} else if (row->n) {
		fd = bus1_open();
		op.run = row->n == 1 ? floor_ioctl : floor_send;
		op.arg = &fd;
	} else {
		op.run = floor_getppid;
	}
	measure(&op);
}

#define ONE_WAY(n, s, ...)	{ .name = "oneway-" n, .run = run_one_way, .size = s, __VA_ARGS__ }
#define ROUND_TRIP(n, s, ...)	{ .name = "rtt-" n, .run = run_round_trip, .size = s, __VA_ARGS__ }
#define MULTICAST(k)		{ .name = "multicast-" #k, .run = run_multicast, .size = KIB, \
				  .n = k, .samples = 65 }
#define TABLE(k)		{ .name = "table-" #k, .run = run_table, .size = 64, .n = k, \
				  .only = &bus1_transport, .no_time = k > 1000 }
#define DEPTH(k)		{ .name = "depth-" #k, .run = run_depth, .size = 64, .n = k, \
				  .no_time = k > 1000 }
#define PAIRS(k)		{ .name = "pairs-" #k, .run = run_pairs, .size = 64, .n = k }
#define FLOOR(s, ...)		{ .name = "floor-" s, .run = run_floor, .floor = true, __VA_ARGS__ }

const struct row rows[] = {
	FLOOR("getppid"),
	FLOOR("ioctl", .n = 1),
	FLOOR("send", .n = 2),
	FLOOR("copy-64", .size = 64),
	FLOOR("copy-4k", .size = 4 * KIB),
	FLOOR("copy-64k", .size = 64 * KIB),
	FLOOR("copy-1m", .size = MIB, .samples = 33),
	ONE_WAY("64-fewer", 64, .fewer = true),
	ONE_WAY("4k-fewer", 4 * KIB, .fewer = true),
	ONE_WAY("64k-fewer", 64 * KIB, .samples = 65, .fewer = true),
	ONE_WAY("1m-fewer", MIB, .samples = 33, .fewer = true),
	ONE_WAY("0", 0),
	ONE_WAY("64", 64),
	ONE_WAY("1k", KIB),
	ONE_WAY("4k", 4 * KIB),
	ONE_WAY("64k", 64 * KIB, .samples = 65),
	ONE_WAY("1m", MIB, .samples = 33),
	ONE_WAY("64-read", 64, .read = true),
	ONE_WAY("1k-read", KIB, .read = true),
	ONE_WAY("4k-read", 4 * KIB, .read = true),
	ONE_WAY("64k-read", 64 * KIB, .read = true, .samples = 65),
	ONE_WAY("1m-read", MIB, .read = true, .samples = 33),
	ROUND_TRIP("64", 64),
	ROUND_TRIP("64-fewer", 64, .fewer = true),
	ROUND_TRIP("4k", 4 * KIB),
	ROUND_TRIP("64-2cpu", 64, .two_cpus = true),
	ROUND_TRIP("4k-2cpu", 4 * KIB, .two_cpus = true),
	MULTICAST(1),
	MULTICAST(4),
	MULTICAST(16),
	MULTICAST(64),
	MULTICAST(256),
	{ .name = "file", .run = run_cargo, .size = 64 },
	{ .name = "handle", .run = run_cargo, .size = 64, .n = 1 },
	{ .name = "open", .run = run_open },
	{ .name = "destroy-1000", .run = run_destroy, .n = 1000, .samples = 9,
	  .no_time = true, .only = &bus1_transport },
	TABLE(10),
	TABLE(1000),
	TABLE(60000),
	DEPTH(1),
	DEPTH(1000),
	DEPTH(16000),
	PAIRS(1),
	PAIRS(2),
	PAIRS(4),
	{ .name = "idle-0", .run = run_idle, .size = 64, .n = 0 },
	{ .name = "idle-1000", .run = run_idle, .size = 64, .n = 1000,
	  .no_time = true },
};

const unsigned int n_rows = ARRAY_SIZE(rows);
