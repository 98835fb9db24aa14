// SPDX-License-Identifier: GPL-2.0-only
/*
 * The tracepoints bus1:*, as Documentation/bus1/tracing.rst has them: which events
 * there are, in which order, and what their fields say.
 */
#include "bus1_msg.h"
#include "bus1_trace.h"

#define ALL_EVENTS	"events/bus1/enable"
#define EVENTS_MAX	512

/* A line of the trace, from the name of the event on. */
struct event {
	char text[400];
};

FIXTURE(events) {
	struct net net;
	unsigned long long a, b, c;	/* the ids of its peers */
	int pipe;
	size_t n;
	struct event *events;
};

FIXTURE_SETUP(events)
{
	self->net.a.fd = -1;
	self->net.b.fd = -1;
	self->net.c.fd = -1;
	self->pipe = -1;
	if (!trace_instance[0])
		SKIP(return, "this kernel has no tracing in " TRACEFS);
	self->events = calloc(EVENTS_MAX, sizeof(*self->events));
	ASSERT_NE(NULL, self->events);

	NET_INIT(&self->net);
	self->a = bus1_fdinfo(self->net.a.fd, "bus1-peer");
	self->b = bus1_fdinfo(self->net.b.fd, "bus1-peer");
	self->c = bus1_fdinfo(self->net.c.fd, "bus1-peer");

	self->pipe = trace_start(ALL_EVENTS);
	ASSERT_LE(0, self->pipe);
}

FIXTURE_TEARDOWN(events)
{
	if (trace_instance[0])
		trace_stop(ALL_EVENTS, self->pipe);
	net_deinit(&self->net);
	free(self->events);
}

/* Read what was traced since the last time. */
static void t_read_events(struct __test_metadata *_metadata,
			  FIXTURE_DATA(events) *self)
{
	char buffer[16384], *line, *end, *name;
	ssize_t n;

	self->n = 0;
	while ((n = read(self->pipe, buffer, sizeof(buffer) - 1)) > 0) {
		buffer[n] = 0;
		/* Whole lines are read, as many as fit. */
		for (line = buffer; (end = strchr(line, '\n')); line = end + 1) {
			*end = 0;
			name = strstr(line, ": bus1_");
			ASSERT_NE(NULL, name) {
				TH_LOG("not an event: %s", line);
			}
			ASSERT_GT(EVENTS_MAX, self->n);
			snprintf(self->events[self->n].text,
				 sizeof(self->events->text), "%s", name + 2);
			++self->n;
		}
	}
	ASSERT_TRUE(!n || errno == EAGAIN);
}

#define READ_EVENTS() t_read_events(_metadata, self)

/* The field of an event, as text; empty if there is none. */
static const char *event_text(const struct event *event, const char *field)
{
	static char value[64];
	char key[32];
	const char *p;

	snprintf(key, sizeof(key), " %s=", field);
	value[0] = 0;
	p = strstr(event->text, key);
	if (p)
		sscanf(p + strlen(key), "%63s", value);
	return value;
}

static unsigned long long event_value(const struct event *event,
				      const char *field)
{
	return strtoull(event_text(event, field), NULL, 0);
}

static const struct event *t_event(struct __test_metadata *_metadata,
				   FIXTURE_DATA(events) *self, size_t i,
				   const char *name, int line)
{
	ASSERT_GT(self->n, i) {
		TH_LOG("no event %zu, called from line %d", i, line);
	}
	ASSERT_EQ(0, strncmp(self->events[i].text, name, strlen(name))) {
		TH_LOG("event %zu is no %s but %s, called from line %d", i,
		       name, self->events[i].text, line);
	}
	ASSERT_EQ(':', self->events[i].text[strlen(name)]);
	return &self->events[i];
}

/* The event at a place is one of that name. */
#define EVENT(_i, _name) t_event(_metadata, self, _i, _name, __LINE__)

#define EXPECT_FIELD(_event, _field, _value)				\
	EXPECT_EQ((unsigned long long)(_value), event_value(_event, _field)) { \
		TH_LOG("%s of %s", _field, (_event)->text);		\
	}

static unsigned long long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

TEST_F(events, nothing_is_traced_when_they_are_off)
{
	ASSERT_EQ(0, trace_write(ALL_EVENTS, "0"));
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "x"));
	RECV_STR(&self->net.b, NODE_B, "x");
	READ_EVENTS();
	EXPECT_EQ(0, self->n);
}

TEST_F(events, open_and_close)
{
	const struct event *e;
	struct peer peer;
	unsigned long long id, before = now_ns();

	PEER_OPEN_AS(&peer, UID_A);
	id = bus1_fdinfo(peer.fd, "bus1-peer");
	peer_close(&peer);
	READ_EVENTS();
	ASSERT_EQ(2, self->n);
	e = EVENT(0, "bus1_peer_open");
	EXPECT_FIELD(e, "peer", id);
	EXPECT_FIELD(e, "uid", UID_A);
	e = EVENT(1, "bus1_peer_close");
	EXPECT_FIELD(e, "peer", id);
	EXPECT_NE(0, event_value(e, "tx"));
	EXPECT_LE(before, event_value(e, "ts"));
	EXPECT_GE(now_ns(), event_value(e, "ts"));
}

TEST_F(events, disconnect_is_traced_once)
{
	ASSERT_EQ(0, bus1_disconnect(self->net.a.fd));
	peer_close(&self->net.a);
	READ_EVENTS();
	/* The last holders of both nodes go. */
	ASSERT_EQ(5, self->n);
	EVENT(0, "bus1_handle_release");
	EVENT(1, "bus1_notify");
	EVENT(2, "bus1_handle_release");
	EVENT(3, "bus1_notify");
	EXPECT_FIELD(EVENT(4, "bus1_peer_close"), "peer", self->a);
}

TEST_F(events, of_a_node)
{
	const struct event *e, *destroyed;

	NODE(&self->net.a, 8);
	ASSERT_EQ(0, bus1_node_destroy(self->net.a.fd, 8));
	RECV_DESTROY(&self->net.a, 8);
	READ_EVENTS();
	ASSERT_EQ(6, self->n);
	e = EVENT(0, "bus1_node_create");
	EXPECT_FIELD(e, "peer", self->a);
	EXPECT_FIELD(e, "node", 8);
	e = EVENT(1, "bus1_handle_acquire");
	EXPECT_FIELD(e, "peer", self->a);
	EXPECT_FIELD(e, "handle", 8);
	EXPECT_FIELD(e, "owner", self->a);
	EXPECT_FIELD(e, "node", 8);
	EXPECT_FIELD(e, "refs", 1);
	EVENT(2, "bus1_send");
	destroyed = EVENT(4, "bus1_node_destroy");
	EXPECT_FIELD(destroyed, "peer", self->a);
	EXPECT_FIELD(destroyed, "node", 8);
	e = EVENT(3, "bus1_notify");
	EXPECT_FIELD(e, "peer", self->a);
	EXPECT_FIELD(e, "handle", 8);
	EXPECT_FIELD(e, "owner", self->a);
	EXPECT_FIELD(e, "node", 8);
	EXPECT_FIELD(e, "tx", event_value(destroyed, "tx"));
	EXPECT_FIELD(e, "ts", 0);
	EXPECT_STREQ("node_destroy", event_text(e, "type"));
	e = EVENT(5, "bus1_recv");
	EXPECT_STREQ("node_destroy", event_text(e, "type"));
	EXPECT_FIELD(e, "destination", 8);
	EXPECT_FIELD(e, "tx", event_value(destroyed, "tx"));
	EXPECT_FIELD(e, "ts", event_value(destroyed, "ts"));
}

TEST_F(events, of_handles)
{
	const struct event *e, *told;
	unsigned long long i;
	__u64 h;

	NODE(&self->net.a, 8);
	READ_EVENTS();
	h = TRANSFER(&self->net.a, 8, &self->net.b);
	ASSERT_EQ(h, TRANSFER(&self->net.a, 8, &self->net.b));
	ASSERT_EQ(0, bus1_handle_release(self->net.b.fd, h));
	ASSERT_EQ(0, bus1_handle_release(self->net.b.fd, h));
	RECV_RELEASE(&self->net.a, 8);
	READ_EVENTS();
	ASSERT_EQ(6, self->n);
	for (i = 0; i < 4; i++) {
		e = EVENT(i, i < 2 ? "bus1_handle_acquire" :
				     "bus1_handle_release");
		EXPECT_FIELD(e, "peer", self->b);
		EXPECT_FIELD(e, "handle", h);
		EXPECT_FIELD(e, "owner", self->a);
		EXPECT_FIELD(e, "node", 8);
		EXPECT_FIELD(e, "refs", i < 2 ? i + 1 : 3 - i);
	}
	told = EVENT(4, "bus1_notify");
	EXPECT_STREQ("node_release", event_text(told, "type"));
	EXPECT_FIELD(told, "peer", self->a);
	EXPECT_FIELD(told, "handle", 8);
	EXPECT_NE(0, event_value(told, "ts"));
	e = EVENT(5, "bus1_recv");
	EXPECT_STREQ("node_release", event_text(e, "type"));
	EXPECT_FIELD(e, "tx", event_value(told, "tx"));
	EXPECT_FIELD(e, "ts", event_value(told, "ts"));
}

TEST_F(events, of_a_message)
{
	const struct event *e, *sent;
	unsigned long long before = now_ns(), ts, tx;
	struct bus1_cmd_recv recv;

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "hello"));
	recv = RECV(&self->net.b);
	READ_EVENTS();
	ASSERT_EQ(3, self->n);
	e = EVENT(0, "bus1_send");
	EXPECT_FIELD(e, "peer", self->a);
	EXPECT_FIELD(e, "uid", getuid());
	EXPECT_FIELD(e, "n_bytes", 5);
	EXPECT_FIELD(e, "n_handles", 0);
	EXPECT_FIELD(e, "n_fds", 0);
	EXPECT_FIELD(e, "n_destinations", 1);
	EXPECT_FIELD(e, "n_skipped", 0);
	EXPECT_FIELD(e, "flags", 0);
	sent = EVENT(1, "bus1_commit");
	ts = event_value(sent, "ts");
	tx = event_value(sent, "tx");
	EXPECT_FIELD(sent, "sender", self->a);
	EXPECT_FIELD(sent, "peer", self->b);
	EXPECT_FIELD(sent, "node", NODE_B);
	EXPECT_FIELD(sent, "n_bytes", 5);
	EXPECT_LE(before, ts);
	EXPECT_NE(0, tx);
	e = EVENT(2, "bus1_recv");
	EXPECT_STREQ("data", event_text(e, "type"));
	EXPECT_FIELD(e, "peer", self->b);
	EXPECT_FIELD(e, "destination", recv.msg.destination);
	EXPECT_FIELD(e, "tx", tx);
	EXPECT_FIELD(e, "ts", ts);
	EXPECT_FIELD(e, "n_bytes", 5);
	EXPECT_FIELD(e, "flags", 0);
	EXPECT_LT(0, event_value(e, "age"));
	EXPECT_GE(now_ns(), ts + event_value(e, "age"));
}

TEST_F(events, of_what_a_message_carries)
{
	const __u64 dst = self->net.ab, handle = self->net.ac;
	const struct event *e;
	const int fd = self->pipe;

	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = &dst, .n_dst = 1,
			      .handles = &handle, .n_handles = 1, .fds = &fd,
			      .n_fds = 1));
	RECV_FLAGS(&self->net.b, BUS1_RECV_FLAG_INSTALL_FDS);
	READ_EVENTS();
	ASSERT_EQ(4, self->n);
	e = EVENT(0, "bus1_send");
	EXPECT_FIELD(e, "n_handles", 1);
	EXPECT_FIELD(e, "n_fds", 1);
	e = EVENT(1, "bus1_commit");
	EXPECT_FIELD(e, "n_handles", 1);
	EXPECT_FIELD(e, "n_fds", 1);
	e = EVENT(2, "bus1_recv");
	EXPECT_FIELD(e, "n_handles", 1);
	EXPECT_FIELD(e, "n_fds", 1);
	e = EVENT(3, "bus1_handle_acquire");
	EXPECT_FIELD(e, "peer", self->b);
	EXPECT_FIELD(e, "owner", self->c);
	EXPECT_FIELD(e, "node", NODE_C);
	EXPECT_FIELD(e, "refs", 1);
}

TEST_F(events, of_a_multicast)
{
	const __u64 dst[] = { self->net.ab, self->net.ac };
	const struct event *e, *first;
	int i;

	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = dst, .n_dst = 2));
	RECV_STR(&self->net.b, NODE_B, "");
	RECV_STR(&self->net.c, NODE_C, "");
	READ_EVENTS();
	/* One of each for each receiver, and two slices that are given back. */
	ASSERT_EQ(7, self->n);
	e = EVENT(0, "bus1_send");
	EXPECT_FIELD(e, "n_destinations", 2);
	first = EVENT(3, "bus1_commit");
	for (i = 0; i < 2; i++) {
		e = EVENT(1 + i, "bus1_stage");
		EXPECT_FIELD(e, "sender", self->a);
		EXPECT_FIELD(e, "peer", i ? self->c : self->b);
		EXPECT_FIELD(e, "node", i ? NODE_C : NODE_B);
		EXPECT_FIELD(e, "tx", event_value(first, "tx"));
		e = EVENT(3 + i, "bus1_commit");
		EXPECT_FIELD(e, "sender", self->a);
		EXPECT_FIELD(e, "peer", i ? self->c : self->b);
		EXPECT_FIELD(e, "node", i ? NODE_C : NODE_B);
		EXPECT_FIELD(e, "tx", event_value(first, "tx"));
		EXPECT_FIELD(e, "ts", event_value(first, "ts"));
		e = EVENT(5 + i, "bus1_recv");
		EXPECT_FIELD(e, "peer", i ? self->c : self->b);
		EXPECT_FIELD(e, "tx", event_value(first, "tx"));
		EXPECT_FIELD(e, "ts", event_value(first, "ts"));
	}
}

TEST_F(events, of_a_destination_that_is_skipped)
{
	const __u64 dst[] = { self->net.ab, self->net.ac };
	const struct event *e;

	ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd, NODE_B));
	READ_EVENTS();
	ASSERT_EQ(0, msg_send(self->net.a.fd, .flags = BUS1_SEND_FLAG_CONTINUE,
			      .dst = dst, .n_dst = 2));
	READ_EVENTS();
	ASSERT_EQ(2, self->n);
	e = EVENT(0, "bus1_send");
	EXPECT_FIELD(e, "n_destinations", 2);
	EXPECT_FIELD(e, "n_skipped", 1);
	EXPECT_FIELD(e, "flags", BUS1_SEND_FLAG_CONTINUE);
	EXPECT_FIELD(EVENT(1, "bus1_commit"), "peer", self->c);
}

TEST_F(events, of_the_seed)
{
	const struct event *e;

	ASSERT_EQ(0, msg_send(self->net.a.fd, .flags = BUS1_SEND_FLAG_SEED));
	RECV_FLAGS(&self->net.a, BUS1_RECV_FLAG_SEED);
	READ_EVENTS();
	ASSERT_EQ(2, self->n);
	e = EVENT(0, "bus1_send");
	EXPECT_FIELD(e, "n_destinations", 0);
	EXPECT_FIELD(e, "n_skipped", 0);
	EXPECT_FIELD(e, "flags", BUS1_SEND_FLAG_SEED);
	e = EVENT(1, "bus1_recv");
	EXPECT_FIELD(e, "destination", BUS1_HANDLE_INVALID);
	EXPECT_FIELD(e, "tx", 0);
	EXPECT_FIELD(e, "ts", 0);
	EXPECT_FIELD(e, "age", 0);
}

TEST_F(events, of_commands_that_fail)
{
	static const struct {
		unsigned long cmd;
		int error;
	} fails[] = {
		{ BUS1_CMD_HANDLE_RELEASE, -ENXIO },
		{ BUS1_CMD_SLICE_RELEASE, -ENXIO },
		{ BUS1_CMD_SEND, -ENXIO },
		{ BUS1_CMD_RECV, -EAGAIN },
	};
	const struct event *e;
	struct bus1_cmd_recv recv;
	int fd = self->net.a.fd;
	size_t i;

	ASSERT_EQ(-ENXIO, bus1_handle_release(fd, KERNEL_CHOSEN));
	ASSERT_EQ(-ENXIO, bus1_slice_release(fd, 0));
	ASSERT_EQ(-ENXIO, bus1_send_str(fd, KERNEL_CHOSEN, ""));
	ASSERT_EQ(-EAGAIN, bus1_recv(fd, 0, &recv));
	READ_EVENTS();
	ASSERT_EQ(ARRAY_SIZE(fails), self->n);
	for (i = 0; i < self->n; i++) {
		e = EVENT(i, "bus1_command_failed");
		EXPECT_FIELD(e, "peer", self->a);
		EXPECT_FIELD(e, "uid", getuid());
		EXPECT_FIELD(e, "command", _IOC_NR(fails[i].cmd));
		EXPECT_FIELD(e, "error", (unsigned long long)fails[i].error);
	}
}

TEST_F(events, timestamps_are_the_order_of_each_receiver)
{
	const __u64 dst[] = { self->net.ab, self->net.ac };
	unsigned long long ts, tx, last_ts[2] = {}, last_tx[2] = {};
	const struct event *e;
	int i, n[2] = {}, of;

	for (i = 0; i < 30; i++)
		ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = dst + i % 3 / 2,
				      .n_dst = i % 3 ? 1 : 2));
	READ_EVENTS();
	/* Ten times: send, stage and commit of two; twice send and commit. */
	ASSERT_EQ(90, self->n);
	for (i = 0; i < 20; i++) {
		RECV(&self->net.c);
		RECV(&self->net.b);
	}
	READ_EVENTS();
	ASSERT_EQ(40, self->n);
	for (i = 0; i < 40; i++) {
		e = EVENT(i, "bus1_recv");
		of = event_value(e, "peer") == self->c;
		ts = event_value(e, "ts");
		tx = event_value(e, "tx");
		EXPECT_TRUE(ts > last_ts[of] ||
			    (ts == last_ts[of] && tx > last_tx[of]));
		last_ts[of] = ts;
		last_tx[of] = tx;
		n[of]++;
	}
	EXPECT_EQ(20, n[0]);
	EXPECT_EQ(20, n[1]);
}

TEST_HARNESS_MAIN
