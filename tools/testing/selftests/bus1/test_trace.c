// SPDX-License-Identifier: GPL-2.0-only
/*
 * The tracepoint bus1:bus1_quota_refused: whoever gets EDQUOT can find out why.
 */
#include "bus1_budget.h"
#include "bus1_trace.h"

#define EVENT		"events/bus1/bus1_quota_refused/enable"

/* What a line of the trace says. */
struct refusal {
	unsigned long long peer, held;
	char layer[32], resource[16];
	unsigned int uid, asked, limit;
};

FIXTURE(trace) {
	struct parameters parameters;
	struct peer a, b, own;	/* of UID_A; UID_B twice */
	__u64 ab;
	int pipe;
};

FIXTURE_VARIANT(trace) {
	enum resource res;
	const char *name;
};

FIXTURE_VARIANT_ADD(trace, slices) { SLICES, "slices" };
FIXTURE_VARIANT_ADD(trace, handles) { HANDLES, "handles" };
FIXTURE_VARIANT_ADD(trace, bytes) { BYTES, "bytes" };
FIXTURE_VARIANT_ADD(trace, fds) { FDS, "fds" };

FIXTURE_SETUP(trace)
{
	self->a.fd = -1;
	self->b.fd = -1;
	self->own.fd = -1;
	self->pipe = -1;
	PARAMETERS_SAVE(&self->parameters);
	if (!trace_instance[0])
		SKIP(return, "this kernel has no tracing in " TRACEFS);
	self->pipe = trace_start(EVENT);
	ASSERT_LE(0, self->pipe);

	PEER_OPEN_AS(&self->a, UID_A);
	PEER_OPEN_AS(&self->b, UID_B);
	PEER_OPEN_AS(&self->own, UID_B);
	NODE(&self->a, CARGO);
	NODE(&self->own, CARGO);
	self->ab = TRANSFER(&self->b, NODE_B, &self->a);
}

FIXTURE_TEARDOWN(trace)
{
	peer_close(&self->a);
	peer_close(&self->b);
	peer_close(&self->own);
	if (trace_instance[0])
		trace_stop(EVENT, self->pipe);
	parameters_restore(&self->parameters);
}

/* The next refusal in the trace: 0 or -errno, -EAGAIN if there was none. */
static int next_refusal(FIXTURE_DATA(trace) *self, struct refusal *refusal)
{
	static const char name[] = "bus1_quota_refused: ";
	char line[1024];
	const char *p;
	ssize_t n;

	n = read(self->pipe, line, sizeof(line) - 1);
	if (n < 0)
		return -errno;
	line[n] = 0;
	p = strstr(line, name);
	if (!p || sscanf(p + strlen(name),
			 "peer=%llu layer='%31[^']' resource=%15s uid=%u asked=%u held=%llu limit=%u",
			 &refusal->peer, refusal->layer, refusal->resource,
			 &refusal->uid, &refusal->asked, &refusal->held,
			 &refusal->limit) != 7)
		return -EPROTO;
	/* One call reads all the lines that fit. */
	return strstr(p + strlen(name), name) ? -E2BIG : 0;
}

/* Exactly one refusal was traced, for the peer @to. */
static struct refusal t_expect_refusal(struct __test_metadata *_metadata,
				       FIXTURE_DATA(trace) *self,
				       struct peer *to, const char *layer,
				       const char *resource, unsigned int uid,
				       int line)
{
	struct refusal r = {};

	ASSERT_EQ(0, next_refusal(self, &r)) {
		TH_LOG("called from line %d", line);
	}
	EXPECT_EQ(bus1_fdinfo(to->fd, "bus1-peer"), (long long)r.peer);
	EXPECT_STREQ(layer, r.layer);
	EXPECT_STREQ(resource, r.resource);
	EXPECT_EQ(uid, r.uid);
	EXPECT_EQ(-EAGAIN, next_refusal(self, &(struct refusal){}));
	return r;
}

#define EXPECT_REFUSAL(_to, _layer, _uid)				\
	t_expect_refusal(_metadata, self, _to, _layer, variant->name,	\
			 _uid, __LINE__)

TEST_F(trace, success_is_not_traced)
{
	ASSERT_EQ(0, send_unit(self->a.fd, self->ab, variant->res, 1));
	RECV_UNIT(&self->b);
	EXPECT_EQ(-ENXIO, bus1_send_str(self->a.fd, BUS1_HANDLE_INVALID, ""));
	EXPECT_EQ(-EAGAIN, next_refusal(self, &(struct refusal){}));
}

TEST_F(trace, refused_by_the_limit_of_the_peer)
{
	__u32 unit = resources[variant->res].unit;
	__u64 id = TRANSFER(&self->b, NODE_B, &self->own);
	long long base = used(self->b.fd, variant->res);
	struct refusal r;

	/* Of the own user, so that no share comes first. */
	ASSERT_EQ(0, set_limit(self->b.fd, variant->res, base + 3 * unit));
	EXPECT_EQ(3, send_units(self->own.fd, id, variant->res, 10));
	r = EXPECT_REFUSAL(&self->b, "peer limit", UID_B);
	EXPECT_EQ(unit, r.asked);
	EXPECT_EQ(base + 3 * unit, (long long)r.held);
	EXPECT_EQ(base + 3 * unit, r.limit);
}

TEST_F(trace, refused_by_the_share_of_the_sender)
{
	__u32 unit = resources[variant->res].unit;
	long long base = used(self->b.fd, variant->res);
	struct refusal r;
	int n;

	ASSERT_EQ(0, set_limit(self->b.fd, variant->res, base + 16 * unit));
	n = send_units(self->a.fd, self->ab, variant->res, 100);
	ASSERT_LT(0, n);
	r = EXPECT_REFUSAL(&self->b, "sender share", UID_A);
	EXPECT_EQ(unit, r.asked);
	EXPECT_EQ((unsigned long long)n * unit, r.held);
	EXPECT_EQ(base + 16 * unit, r.limit);
}

TEST_F(trace, refused_by_the_share_of_the_sibling)
{
	__u32 unit = resources[variant->res].unit;
	__u64 id = TRANSFER(&self->b, NODE_B, &self->own);
	struct refusal r;
	int n;

	ASSERT_EQ(0, parameter_set(variant->res, 20 * unit));
	n = send_units(self->own.fd, id, variant->res, 100);
	ASSERT_LT(0, n);
	r = EXPECT_REFUSAL(&self->b, "sibling share", UID_B);
	EXPECT_EQ(unit, r.asked);
	EXPECT_EQ((unsigned long long)n * unit, r.held);
	EXPECT_EQ(20 * unit, r.limit);
}

TEST_F(trace, every_refusal_is_traced)
{
	int i;

	ASSERT_EQ(0, set_limit(self->b.fd, variant->res, 0));
	for (i = 0; i < 5; i++) {
		EXPECT_EQ(-EDQUOT, send_unit(self->a.fd, self->ab,
					     variant->res, i));
		EXPECT_REFUSAL(&self->b, "peer limit", UID_A);
	}
}

TEST_F(trace, refused_by_the_limit_of_the_user)
{
	long long base = used(self->b.fd, variant->res);
	/* Just enough handles for one destination. */
	unsigned int limit = variant->res == HANDLES;
	struct refusal r;

	EXPECT_EQ(limit, base);
	ASSERT_EQ(0, parameter_set(variant->res, limit));
	EXPECT_EQ(-EDQUOT, send_unit(self->a.fd, self->ab, variant->res, 1));
	r = EXPECT_REFUSAL(&self->b, "user limit", UID_A);
	EXPECT_EQ(resources[variant->res].unit, r.asked);
	EXPECT_EQ(base, (long long)r.held);
	EXPECT_EQ(limit, r.limit);
}

TEST_HARNESS_MAIN
