// SPDX-License-Identifier: GPL-2.0-only
/*
 * What calls there are, and how programs are made and changed.
 */
#include <string.h>

#include "fuzz.h"

const struct opdef ops[OP_N] = {
	[OP_OPEN] = { "open", 12, {
		{ "", T_PEER }, { "flags", T_OFLAGS }, { "uid", T_UID } } },
	[OP_CLOSE] = { "close", 12, { { "", T_PEER } } },
	[OP_DUP] = { "dup", 6, { { "", T_PEER }, { "to", T_PEER } } },
	[OP_DISCONNECT] = { "disconnect", 10, {
		{ "", T_PEER }, { "arg", T_WORD } } },
	[OP_QUERY] = { "query", 3, {
		{ "", T_PEER }, { "flags", T_FLAGS }, { "mem", T_MEM } } },
	[OP_RESET] = { "reset", 20, {
		{ "", T_PEER }, { "flags", T_FLAGS }, { "pflags", T_WORD },
		{ "slices", T_LIMIT }, { "handles", T_LIMIT },
		{ "bytes", T_LIMIT }, { "fds", T_LIMIT }, { "mem", T_MEM } } },
	[OP_RELEASE] = { "release", 40, {
		{ "", T_PEER }, { "id", T_ID }, { "mem", T_MEM } } },
	[OP_TRANSFER] = { "transfer", 50, {
		{ "", T_PEER }, { "id", T_ID }, { "to", T_TO },
		{ "flags", T_FLAGS }, { "in", T_WORD }, { "mem", T_MEM } } },
	[OP_DESTROY] = { "destroy", 30, {
		{ "", T_PEER }, { "flags", T_FLAGS }, { "n", T_COUNT },
		{ "amem", T_MEM }, { "rep", T_REP }, { "mem", T_MEM } },
		{ { "nodes", T_ID } } },
	[OP_SLICE] = { "slice", 25, {
		{ "", T_PEER }, { "offset", T_SLICE }, { "mem", T_MEM } } },
	[OP_SEND] = { "send", 120, {
		{ "", T_PEER }, { "flags", T_FLAGS }, { "nd", T_COUNT },
		{ "nv", T_COUNT }, { "nh", T_COUNT }, { "nf", T_COUNT },
		{ "dmem", T_MEM }, { "vmem", T_MEM }, { "hmem", T_MEM },
		{ "fmem", T_MEM }, { "errors", T_ERRORS }, { "rep", T_REP },
		{ "mem", T_MEM } },
		{ { "to", T_ID }, { "vecs", T_VEC }, { "handles", T_ID },
		  { "files", T_FILE } } },
	[OP_RECV] = { "recv", 120, {
		{ "", T_PEER }, { "flags", T_RFLAGS }, { "max", T_MAX },
		{ "mem", T_MEM }, { "slice", T_SLICE } } },
	[OP_CALL] = { "call", 120, {
		{ "", T_PEER }, { "sflags", T_FLAGS }, { "nd", T_COUNT },
		{ "nv", T_COUNT }, { "nh", T_COUNT }, { "nf", T_COUNT },
		{ "dmem", T_MEM }, { "vmem", T_MEM }, { "hmem", T_MEM },
		{ "fmem", T_MEM }, { "errors", T_ERRORS }, { "rep", T_REP },
		{ "mem", T_MEM }, { "flags", T_FLAGS }, { "ns", T_COUNT },
		{ "smem", T_MEM }, { "room", T_ROOM }, { "mmem", T_MEM },
		{ "max", T_MAX }, { "time", T_TIME } },
		{ { "to", T_ID }, { "vecs", T_VEC }, { "handles", T_ID },
		  { "files", T_FILE }, { "slices", T_SLICE } } },
	[OP_MMAP] = { "mmap", 6, {
		{ "", T_PEER }, { "len", T_LEN }, { "prot", T_HOW },
		{ "kind", T_HOW } } },
	[OP_MUNMAP] = { "munmap", 3, { { "", T_PEER } } },
	[OP_MREMAP] = { "mremap", 2, { { "", T_PEER }, { "len", T_LEN } } },
	[OP_MADVISE] = { "madvise", 3, { { "", T_PEER }, { "how", T_HOW } } },
	[OP_MPROTECT] = { "mprotect", 1, { { "", T_PEER }, { "how", T_HOW } } },
	[OP_TOUCH] = { "touch", 4, { { "", T_PEER }, { "how", T_HOW } } },
	[OP_POLL] = { "poll", 10, { { "", T_PEER }, { "how", T_HOW } } },
	[OP_FILEOP] = { "fileop", 2, { { "", T_PEER }, { "how", T_HOW } } },
	[OP_FDINFO] = { "fdinfo", 1, { { "", T_PEER } } },
	[OP_PASS] = { "pass", 3, {
		{ "", T_PEER }, { "to", T_PEER }, { "how", T_HOW } } },
	[OP_FORK] = { "fork", 1, { { "", T_PEER }, { "how", T_HOW } } },
	[OP_NONBLOCK] = { "nonblock", 2, { { "", T_PEER }, { "how", T_HOW } } },
	[OP_BADIOCTL] = { "badioctl", 3, {
		{ "", T_PEER }, { "cmd", T_CMD }, { "mem", T_MEM } } },
	[OP_KILL] = { "kill", 3, { { "", T_PEER } } },
	[OP_SPIN] = { "spin", 3, { { "", T_PEER }, { "how", T_HOW } } },
	[OP_RLIMIT] = { "rlimit", 2, { { "", T_PEER }, { "how", T_HOW } } },
};

/* The first of the list, and how many elements all lists have together. */
uint16_t *call_list(struct call *c, unsigned int list)
{
	unsigned int i, at = 0;

	for (i = 0; i < list; ++i)
		at += c->n[i];
	return c->list + at;
}

unsigned int call_list_total(const struct call *c)
{
	unsigned int i, total = 0;

	for (i = 0; i < N_LISTS; ++i)
		total += c->n[i];
	return total;
}

bool prog_is_threaded(const struct prog *p)
{
	unsigned int i;

	for (i = 0; i < p->n_calls; ++i) {
		if (p->calls[i].thread)
			return true;
	}
	return false;
}

/* Small numbers are the most likely: that is where programs meet. */
static unsigned int small(struct rng *r, unsigned int n)
{
	unsigned int v = rnd(r, n);

	return one_in(r, 4) ? v : rnd(r, v + 1);
}

static unsigned int make_vec(struct rng *r)
{
	unsigned int size, mem = MEM_OK;

	/* Copying takes time that calls could have. */
	size = small(r, 11);
	if (one_in(r, 6))
		size = small(r, 21);
	if (one_in(r, 400))
		size = rnd(r, ARRAY_SIZE(vec_sizes));
	if (one_in(r, 10))
		mem = rnd(r, MEM_N);
	return mem * 32 + size;
}

static unsigned int make_sym(unsigned int type, struct rng *r)
{
	unsigned int edges = sym_edges(type);

	switch (type) {
	case T_PEER:
		return small(r, N_PEERS);
	case T_ID:
		if (one_in(r, 16))
			return EDGE + rnd(r, edges);
		if (one_in(r, 12))
			return 192 + small(r, 32);
		return one_in(r, 3) ? 64 + small(r, 32) : small(r, 32);
	case T_TO:
		return one_in(r, 14) ? EDGE + rnd(r, edges) : small(r, N_PEERS);
	case T_SLICE:
		return one_in(r, 10) ? EDGE + rnd(r, edges) : small(r, 16);
	case T_FLAGS:
		if (one_in(r, 30))
			return EDGE + rnd(r, edges);
		return one_in(r, 2) ? 0 : rnd(r, 4);
	case T_RFLAGS:
		if (one_in(r, 30))
			return EDGE + rnd(r, edges);
		return one_in(r, 2) ? 0 : rnd(r, 8);
	case T_UID:
		return one_in(r, 4) ? rnd(r, 4) : 0;
	case T_OFLAGS:
		return one_in(r, 12) ? EDGE + rnd(r, edges) : 0;
	case T_WORD:
		return one_in(r, 30) ? EDGE + rnd(r, edges) : 0;
	case T_LIMIT:
		return one_in(r, 3) ? EDGE + rnd(r, edges) : 0;
	case T_COUNT:
		return one_in(r, 300) ? EDGE + rnd(r, edges) : 0;
	case T_REP:
		return !one_in(r, 40) ? 0 :
			EDGE + rnd(r, one_in(r, 50) ? edges : edges - 3);
	case T_MEM:
		return one_in(r, 40) ? EDGE + rnd(r, edges) : 0;
	case T_ERRORS:
		if (one_in(r, 3))
			return EDGE;
		return one_in(r, 30) ? EDGE + rnd(r, edges) : 0;
	case T_MAX:
		return one_in(r, 12) ? EDGE + rnd(r, edges) : 0;
	case T_ROOM:
		return one_in(r, 30) ? EDGE + rnd(r, edges) : small(r, 6);
	case T_TIME:
		return one_in(r, 2) ? EDGE + rnd(r, edges) : 0;
	case T_VEC:
		return make_vec(r);
	case T_FILE:
		return one_in(r, 8) ? EDGE + rnd(r, edges) : small(r, 4);
	case T_LEN:
		return one_in(r, 2) ? EDGE + rnd(r, edges) : 0;
	case T_HOW:
		return one_in(r, 3) ? 0 : rnd(r, 12);
	case T_CMD:
		return EDGE + rnd(r, edges);
	default:
		return 0;
	}
}

static unsigned int list_length(struct rng *r, unsigned int op, unsigned int i)
{
	if (one_in(r, 40))
		return rnd(r, 9);
	if (op == OP_DESTROY)
		return 1 + small(r, 3);
	switch (i) {
	case SEND_DESTS:
		return one_in(r, 12) ? 0 : 1 + small(r, 4);
	case SEND_VECS:
		return small(r, 4);
	case SEND_HANDLES:
		return one_in(r, 2) ? small(r, 5) : 0;
	case CALL_SLICES:
		return one_in(r, 2) ? 1 + small(r, 3) : 0;
	default:
		return one_in(r, 6) ? 1 + small(r, 3) : 0;
	}
}

static unsigned int make_op(struct rng *r)
{
	static unsigned int total;
	unsigned int op, at;

	if (!total) {
		for (op = 0; op < OP_N; ++op)
			total += ops[op].weight;
	}
	at = rnd(r, total);
	for (op = 0; at >= ops[op].weight; ++op)
		at -= ops[op].weight;
	return op;
}

static void make_call(struct call *c, unsigned int op, struct rng *r)
{
	const struct opdef *def = &ops[op];
	unsigned int i, k;

	memset(c, 0, sizeof(*c));
	c->op = op;
	for (i = 0; def->fixed[i].type; ++i)
		c->fixed[i] = make_sym(def->fixed[i].type, r);
	for (i = 0; def->lists[i].type; ++i) {
		c->n[i] = list_length(r, op, i);
		if (call_list_total(c) > MAX_LIST)
			c->n[i] = 0;
		for (k = 0; k < c->n[i]; ++k)
			call_list(c, i)[k] = make_sym(def->lists[i].type, r);
	}
	if (one_in(r, 25))
		c->compat = 1;
	if (one_in(r, 25))
		c->fail = 1 + small(r, 40);
}

static struct call *append(struct prog *p)
{
	struct call *c = &p->calls[p->n_calls++];

	memset(c, 0, sizeof(*c));
	return c;
}

/* The calls from @first on are made by several threads at once. */
static void spread(struct prog *p, unsigned int first, struct rng *r)
{
	unsigned int i, n = 2 + one_in(r, 3);

	for (i = first; i < p->n_calls; ++i)
		p->calls[i].thread = rnd(r, n);
}

/* Peers that know each other, and then anything. */
void prog_generate(struct prog *p, struct rng *r)
{
	unsigned int i, n_peers, n, first;
	struct call *c;

	p->n_calls = 0;
	n_peers = 1 + small(r, 4);
	if (one_in(r, 4))
		n_peers = 2;
	for (i = 0; i < n_peers; ++i) {
		c = append(p);
		make_call(c, OP_OPEN, r);
		c->fixed[0] = i;
		c->fail = 0;
	}
	if (one_in(r, 8)) {
		c = append(p);
		c->op = OP_MMAP;
		c->fixed[0] = rnd(r, n_peers);
	}
	n = small(r, 5);
	for (i = 0; i < n; ++i) {
		c = append(p);
		c->op = OP_TRANSFER;
		c->fixed[0] = rnd(r, n_peers);
		c->fixed[TRANSFER_ID] = 64 + small(r, 4);
		c->fixed[TRANSFER_TO] = rnd(r, n_peers);
	}
	first = p->n_calls;

	do {
		make_call(append(p), make_op(r), r);
	} while (p->n_calls < MAX_CALLS - 4 && !one_in(r, 7));

	if (one_in(r, 12))
		spread(p, first, r);
}

void prog_remove(struct prog *p, unsigned int i)
{
	memmove(&p->calls[i], &p->calls[i + 1],
		(p->n_calls - i - 1) * sizeof(p->calls[0]));
	--p->n_calls;
}

static void insert(struct prog *p, unsigned int i, const struct call *c)
{
	if (p->n_calls == MAX_CALLS)
		prog_remove(p, p->n_calls - 1);
	if (i > p->n_calls)
		i = p->n_calls;
	memmove(&p->calls[i + 1], &p->calls[i],
		(p->n_calls - i) * sizeof(p->calls[0]));
	p->calls[i] = *c;
	++p->n_calls;
}

/* Put another value into one of the lists, take one out, or change one. */
static void mutate_list(struct call *c, unsigned int list, unsigned int type,
			struct rng *r)
{
	uint16_t *begin = call_list(c, list);
	unsigned int at = begin - c->list, total = call_list_total(c);

	if (c->n[list] && one_in(r, 3)) {
		at += rnd(r, c->n[list]);
		memmove(c->list + at, c->list + at + 1,
			(total - at - 1) * sizeof(*c->list));
		--c->n[list];
	} else if (c->n[list] && one_in(r, 2)) {
		begin[rnd(r, c->n[list])] = make_sym(type, r);
	} else if (total < MAX_LIST) {
		at += rnd(r, c->n[list] + 1);
		memmove(c->list + at + 1, c->list + at,
			(total - at) * sizeof(*c->list));
		c->list[at] = make_sym(type, r);
		++c->n[list];
	}
}

static void mutate_call(struct call *c, struct rng *r)
{
	const struct opdef *def = &ops[c->op];
	unsigned int i, n_fixed = 0, n_lists = 0;

	while (def->fixed[n_fixed].type)
		++n_fixed;
	while (n_lists < N_LISTS && def->lists[n_lists].type)
		++n_lists;

	switch (rnd(r, 12)) {
	case 0:
		c->fail = c->fail && one_in(r, 2) ? 0 : 1 + small(r, 40);
		break;
	case 1:
		c->compat = !c->compat;
		break;
	default:
		if (n_lists && one_in(r, 2)) {
			i = rnd(r, n_lists);
			mutate_list(c, i, def->lists[i].type, r);
			break;
		}
		i = rnd(r, n_fixed);
		/* Back to what is usual is a step, too. */
		if (c->fixed[i] >= EDGE && one_in(r, 2))
			c->fixed[i] = 0;
		else
			c->fixed[i] = make_sym(def->fixed[i].type, r);
		break;
	}
}

void prog_mutate(struct prog *p, const struct prog *other, struct rng *r)
{
	unsigned int i, j, n = 1 + small(r, 5);
	struct call c;

	while (n--) {
		i = rnd(r, p->n_calls);
		switch (rnd(r, 16)) {
		case 0:
			if (p->n_calls > 1)
				prog_remove(p, i);
			break;
		case 1:
			c = p->calls[i];
			insert(p, rnd(r, p->n_calls + 1), &c);
			break;
		case 2:
			j = rnd(r, p->n_calls);
			c = p->calls[i];
			p->calls[i] = p->calls[j];
			p->calls[j] = c;
			break;
		case 3:
			/* The end of another one */
			if (!other->n_calls)
				break;
			j = rnd(r, other->n_calls);
			p->n_calls = i + 1;
			while (j < other->n_calls && p->n_calls < MAX_CALLS)
				p->calls[p->n_calls++] = other->calls[j++];
			break;
		case 4:
			if (one_in(r, 3))
				spread(p, i, r);
			else
				p->calls[i].thread = 0;
			break;
		case 5:
			p->calls[i].thread = 0;
			break;
		case 6:
		case 7:
		case 8:
		case 9:
			make_call(&c, make_op(r), r);
			c.thread = p->calls[i].thread;
			insert(p, i + 1, &c);
			break;
		default:
			mutate_call(&p->calls[i], r);
			break;
		}
	}
}
