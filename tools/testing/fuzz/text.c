// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs as text. One line is one call, an empty line ends a program:
 *
 *	open p0
 *	open p1 uid=1
 *	transfer p0 id=n0 to=p1
 *	send p1 to=h0 vecs=64,cut.4096 errors=ok
 *	@1 recv p0
 *	@2 c32 fail=3 close p0
 *
 * @ is the thread, c32 makes the call as a 32-bit program does, fail makes the
 * n-th allocation or access to user memory in the kernel fail. What is not
 * mentioned has a value that is good. '#' begins a comment.
 *
 *	h3	the fourth handle that the peer got, counting from the last again
 *		if there are fewer; x3 that of another peer; n3 a node of its own
 *	s3	the fourth slice
 *	call	is SEND_RECV: the arguments of send, and slices=s0,s1 to give back,
 *		room=3 for messages, time=max to wait without a limit
 *	64	as a vector: 64 bytes; cut.64: the end of them cannot be read
 */
#include <limits.h>
#include <linux/bus1.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>

#include "fuzz.h"

struct edge {
	const char *name;
	uint64_t value;
};

struct range {
	char prefix[4];
	unsigned int base;
	unsigned int n;
};

struct symtype {
	struct range ranges[4];
	const struct edge *edges;
	unsigned int n_edges;
};

const uint64_t vec_sizes[32] = {
	64, 0, 1, 7, 8, 9, 15, 63, 100, 255, 1000, 2047, 4088, 4095, 4096, 4097,
	8192, 10000, 16384, 32768, 65535, 65536, 131072, 262144, 1048576, 1048577,
	0x7ffff000, 0x7fffffff, 0x80000000, 0x100000000, 1ULL << 62, -1ULL,
};

static const char *const mem_names[MEM_N] = {
	[MEM_OK] = "ok",
	[MEM_ODD] = "odd",
	[MEM_FIT] = "fit",
	[MEM_CUT] = "cut",
	[MEM_NONE] = "none",
	[MEM_RO] = "ro",
	[MEM_FRESH] = "fresh",
	[MEM_NULL] = "null",
	[MEM_KERNEL] = "kernel",
	[MEM_WILD] = "wild",
	[MEM_POOL] = "pool",
};

#define EDGES(e) .edges = (e), .n_edges = ARRAY_SIZE(e)

static const struct edge id_edges[] = {
	{ "invalid", -1ULL }, { "0", 0 }, { "1", 1 }, { "2", 2 }, { "3", 3 },
	{ "b", 0xb }, { "f", 0xf }, { "13", 0x13 }, { "max-3", -4ULL },
	{ "max-1", -2ULL }, { "max-2", -3ULL }, { "2^63", 1ULL << 63 },
	{ "2^32", 1ULL << 32 }, { "9", 9 }, { "11", 0x11 },
};

static const struct edge to_edges[] = {
	{ "self", -1ULL }, { "closed", 9999 }, { "memfd", 0 }, { "2^31", 1ULL << 31 },
	{ "2^32", 1ULL << 32 }, { "max-1", -2ULL }, { "2^31-1", (1ULL << 31) - 1 },
	{ "socket", 1 }, { "opath", 2 },
};

static const struct edge slice_edges[] = {
	{ "0", 0 }, { "invalid", -1ULL }, { "1", 1 }, { "8", 8 }, { "4096", 4096 },
	{ "2^32", 1ULL << 32 }, { "2^63", 1ULL << 63 },
};

static const struct edge flags_edges[] = {
	{ "4", 4 }, { "8", 8 }, { "2^32", 1ULL << 32 }, { "2^63", 1ULL << 63 },
	{ "all", -1ULL },
};

static const struct edge rflags_edges[] = {
	{ "8", 8 }, { "2^32", 1ULL << 32 }, { "2^63", 1ULL << 63 }, { "all", -1ULL },
};

static const struct edge oflags_edges[] = {
	{ "block", 0 }, { "rdonly", 1 }, { "wronly", 2 }, { "path", 3 },
};

static const struct edge word_edges[] = {
	{ "0", 0 }, { "1", 1 }, { "max", -1ULL }, { "max-1", -2ULL },
	{ "2^32", 1ULL << 32 },
};

static const struct edge limit_edges[] = {
	{ "0", 0 }, { "1", 1 }, { "2", 2 }, { "3", 3 }, { "5", 5 }, { "16", 16 },
	{ "100", 100 }, { "4096", 4096 }, { "65536", 65536 },
	{ "max", INT_MAX }, { "2^31", 1ULL << 31 }, { "2^32-2", 0xfffffffe },
};

static const struct edge count_edges[] = {
	{ "0", 0 }, { "1", 1 }, { "2", 2 }, { "5", 5 }, { "16", 16 }, { "256", 256 },
	{ "257", 257 }, { "1024", 1024 }, { "1025", 1025 }, { "65536", 65536 },
	{ "65537", 65537 }, { "2^20", 1 << 20 }, { "2^20+1", (1 << 20) + 1 },
	{ "2^31-1", INT_MAX }, { "2^31", 1ULL << 31 }, { "2^32", 1ULL << 32 },
	{ "2^32+1", (1ULL << 32) + 1 }, { "2^40", 1ULL << 40 },
	{ "2^61", 1ULL << 61 }, { "2^63", 1ULL << 63 }, { "max", -1ULL },
};

static const struct edge rep_edges[] = {
	{ "2", 2 }, { "3", 3 }, { "5", 5 }, { "9", 9 }, { "33", 33 }, { "40", 40 },
	{ "130", 130 }, { "300", 300 }, { "1100", 1100 },
};

static const struct edge mem_edges[] = {
	{ "odd", MEM_ODD }, { "fit", MEM_FIT }, { "cut", MEM_CUT },
	{ "none", MEM_NONE }, { "ro", MEM_RO }, { "fresh", MEM_FRESH },
	{ "null", MEM_NULL }, { "kernel", MEM_KERNEL }, { "wild", MEM_WILD },
	{ "pool", MEM_POOL },
};

static const struct edge errors_edges[] = {
	{ "ok", MEM_OK }, { "odd", MEM_ODD }, { "fit", MEM_FIT }, { "cut", MEM_CUT },
	{ "none", MEM_NONE }, { "ro", MEM_RO }, { "fresh", MEM_FRESH },
	{ "kernel", MEM_KERNEL }, { "wild", MEM_WILD }, { "pool", MEM_POOL },
};

static const struct edge max_edges[] = {
	{ "0", 0 }, { "1", 1 }, { "8", 8 }, { "64", 64 }, { "4096", 4096 },
	{ "2^20", 1 << 20 }, { "2^32", 1ULL << 32 }, { "2^63", 1ULL << 63 },
};

static const struct edge room_edges[] = {
	{ "64", 64 }, { "1024", 1024 }, { "1025", 1025 }, { "2^32", 1ULL << 32 },
	{ "2^63", 1ULL << 63 }, { "max", -1ULL },
};

/* Up to "later", from now on in nanoseconds; then as they are */
static const struct edge time_edges[] = {
	{ "now", 0 }, { "soon", 50000 }, { "later", 2000000 }, { "1", 1 },
	{ "2^63-1", (1ULL << 63) - 1 }, { "2^63", 1ULL << 63 }, { "max-1", -2ULL },
	{ "max", -1ULL },
};

static const struct edge file_edges[] = {
	{ "peer", 4 }, { "socket", 5 }, { "uring", 6 }, { "-1", 7 }, { "closed", 8 },
	{ "min", 9 }, { "peer1", 10 }, { "inet", 11 },
};

static const struct edge len_edges[] = {
	{ "1", 1 }, { "4096", 4096 }, { "8192", 8192 }, { "65536", 65536 },
	{ "2^24", 1 << 24 }, { "2^32", 1ULL << 32 }, { "2^32+1", (1ULL << 32) + 1 },
	{ "2^46", 1ULL << 46 }, { "0", 0 }, { "max", -1ULL },
};

static const struct edge cmd_edges[] = {
	{ "disconnect32", _IOWR(BUS1_IOCTL_MAGIC, 0, __u32) },
	{ "query0", _IO(BUS1_IOCTL_MAGIC, 1) },
	{ "reset_r", _IOR(BUS1_IOCTL_MAGIC, 2, struct bus1_cmd_peer_reset) },
	{ "nr3", _IOWR(BUS1_IOCTL_MAGIC, 3, __u64) },
	{ "nr12", _IOWR(BUS1_IOCTL_MAGIC, 0x12, __u64) },
	{ "nr1f", _IOWR(BUS1_IOCTL_MAGIC, 0x1f, __u64) },
	{ "nr51", _IOWR(BUS1_IOCTL_MAGIC, 0x51, __u64) },
	{ "nrff", _IOWR(BUS1_IOCTL_MAGIC, 0xff, __u64) },
	{ "send_short", _IOWR(BUS1_IOCTL_MAGIC, 0x40, struct bus1_cmd_recv) },
	{ "recv_long", _IOWR(BUS1_IOCTL_MAGIC, 0x50, struct bus1_cmd_send) },
	{ "magic", _IOWR(0x95, 0x40, struct bus1_cmd_send) },
	{ "zero", 0 }, { "tcgets", 0x5401 }, { "max", 0xffffffff },
};

static const struct symtype types[T_N] = {
	[T_PEER] = { { { "p", 0, 64 } } },
	[T_ID] = { { { "h", 0, 64 }, { "n", 64, 128 }, { "x", 192, 64 } },
		   EDGES(id_edges) },
	[T_TO] = { { { "p", 0, 64 } }, EDGES(to_edges) },
	[T_SLICE] = { { { "s", 0, 64 } }, EDGES(slice_edges) },
	[T_FLAGS] = { { { "", 0, 4 } }, EDGES(flags_edges) },
	[T_RFLAGS] = { { { "", 0, 8 } }, EDGES(rflags_edges) },
	[T_OFLAGS] = { { { "", 0, 1 } }, EDGES(oflags_edges) },
	[T_UID] = { { { "", 0, 4 } } },
	[T_WORD] = { { { "ok", 0, 1 } }, EDGES(word_edges) },
	[T_LIMIT] = { { { "ok", 0, 1 } }, EDGES(limit_edges) },
	[T_COUNT] = { { { "ok", 0, 1 } }, EDGES(count_edges) },
	[T_REP] = { { { "ok", 0, 1 } }, EDGES(rep_edges) },
	[T_MEM] = { { { "ok", 0, 1 } }, EDGES(mem_edges) },
	[T_ERRORS] = { { { "null", 0, 1 } }, EDGES(errors_edges) },
	[T_MAX] = { { { "ok", 0, 1 } }, EDGES(max_edges) },
	[T_ROOM] = { { { "", 0, 16 } }, EDGES(room_edges) },
	[T_TIME] = { { { "0", 0, 1 } }, EDGES(time_edges) },
	[T_FILE] = { { { "f", 0, 4 } }, EDGES(file_edges) },
	[T_LEN] = { { { "ok", 0, 1 } }, EDGES(len_edges) },
	[T_HOW] = { { { "", 0, 256 } } },
	[T_CMD] = { { { "ok", 0, 1 } }, EDGES(cmd_edges) },
};

uint64_t sym_edge(unsigned int type, unsigned int v)
{
	v -= EDGE;
	return types[type].edges[v < types[type].n_edges ? v : 0].value;
}

unsigned int sym_edges(unsigned int type)
{
	return types[type].n_edges;
}

int sym_print(unsigned int type, unsigned int v, char *buf, size_t size)
{
	const struct symtype *t = &types[type];
	const struct range *range;

	if (type == T_VEC) {
		if (v / 32 % MEM_N)
			return snprintf(buf, size, "%s.%llu",
					mem_names[v / 32 % MEM_N],
					(unsigned long long)vec_sizes[v % 32]);
		return snprintf(buf, size, "%llu",
				(unsigned long long)vec_sizes[v % 32]);
	}
	if (v >= EDGE && t->n_edges)
		return snprintf(buf, size, "%s",
				t->edges[v - EDGE < t->n_edges ? v - EDGE : 0].name);
	for (range = t->ranges; range->n; ++range) {
		if (v >= range->base && v < range->base + range->n) {
			if (range->n == 1 && range->prefix[0])
				return snprintf(buf, size, "%s", range->prefix);
			return snprintf(buf, size, "%s%u", range->prefix,
					v - range->base);
		}
	}
	return snprintf(buf, size, "%s0", t->ranges[0].prefix);
}

static int parse_vec(const char *text)
{
	const char *dot = strchr(text, '.');
	unsigned int mem = 0, i;
	uint64_t size;

	if (dot) {
		while (mem < MEM_N && (strncmp(mem_names[mem], text, dot - text) ||
				       mem_names[mem][dot - text]))
			++mem;
		if (mem == MEM_N)
			return -1;
	}
	size = strtoull(dot ? dot + 1 : text, NULL, 10);
	for (i = 0; i < ARRAY_SIZE(vec_sizes); ++i) {
		if (vec_sizes[i] == size)
			return mem * 32 + i;
	}
	return -1;
}

int sym_parse(unsigned int type, const char *text)
{
	const struct symtype *t = &types[type];
	const struct range *range;
	unsigned int i;
	size_t len;
	char *end;

	if (type == T_VEC)
		return parse_vec(text);
	for (i = 0; i < t->n_edges; ++i) {
		if (!strcmp(t->edges[i].name, text))
			return EDGE + i;
	}
	for (range = t->ranges; range->n; ++range) {
		len = strlen(range->prefix);
		if (strncmp(text, range->prefix, len))
			continue;
		if (range->n == 1 && len && !text[len])
			return range->base;
		i = strtoul(text + len, &end, 10);
		if (end != text + len && !*end && i < range->n)
			return range->base + i;
	}
	return -1;
}

static void print_call(const struct call *c, FILE *f)
{
	const struct opdef *def = &ops[c->op];
	unsigned int i, k, at = 0;
	char text[64];

	if (c->thread)
		fprintf(f, "@%u ", c->thread);
	if (c->compat)
		fprintf(f, "c32 ");
	if (c->fail)
		fprintf(f, "fail=%u ", c->fail);
	fprintf(f, "%s", def->name);
	for (i = 0; def->fixed[i].type; ++i) {
		sym_print(def->fixed[i].type, c->fixed[i], text, sizeof(text));
		if (!def->fixed[i].name[0])
			fprintf(f, " %s", text);
		else if (c->fixed[i])
			fprintf(f, " %s=%s", def->fixed[i].name, text);
	}
	for (i = 0; i < N_LISTS && def->lists[i].type; ++i) {
		for (k = 0; k < c->n[i]; ++k) {
			sym_print(def->lists[i].type, c->list[at++], text,
				  sizeof(text));
			fprintf(f, "%s%s", k ? "," : " ", k ? "" : def->lists[i].name);
			fprintf(f, "%s%s", k ? "" : "=", text);
		}
	}
	fputc('\n', f);
}

void prog_print(const struct prog *p, FILE *f)
{
	unsigned int i;

	for (i = 0; i < p->n_calls && i < MAX_CALLS; ++i) {
		if (p->calls[i].op < OP_N &&
		    call_list_total(&p->calls[i]) <= MAX_LIST)
			print_call(&p->calls[i], f);
	}
	fputc('\n', f);
}

/* The elements of a list, which must come in the order of their definition. */
static bool parse_list(struct call *c, unsigned int list, unsigned int type,
		       char *text)
{
	unsigned int at = call_list_total(c);
	char *save, *word;
	int v;

	for (word = strtok_r(text, ",", &save); word;
	     word = strtok_r(NULL, ",", &save)) {
		v = sym_parse(type, word);
		if (v < 0 || at == MAX_LIST)
			return false;
		c->list[at++] = v;
		++c->n[list];
	}
	return true;
}

static bool parse_word(struct call *c, const struct opdef *def, char *word)
{
	char *value = strchr(word, '=');
	unsigned int i;
	int v;

	if (value)
		*value++ = 0;
	for (i = 0; def->fixed[i].type; ++i) {
		if (strcmp(def->fixed[i].name, value ? word : ""))
			continue;
		v = sym_parse(def->fixed[i].type, value ?: word);
		c->fixed[i] = v;
		/* SEND and TRANSFER both have a "to", of different types. */
		return v >= 0;
	}
	for (i = 0; value && i < N_LISTS && def->lists[i].type; ++i) {
		if (!strcmp(def->lists[i].name, word))
			return parse_list(c, i, def->lists[i].type, value);
	}
	return false;
}

static bool parse_call(struct call *c, char *line)
{
	const struct opdef *def = NULL;
	unsigned int op;
	char *save, *word;

	memset(c, 0, sizeof(*c));
	for (word = strtok_r(line, " \t\n", &save); word;
	     word = strtok_r(NULL, " \t\n", &save)) {
		if (def) {
			if (!parse_word(c, def, word))
				return false;
		} else if (word[0] == '@') {
			c->thread = atoi(word + 1);
			if (c->thread >= N_THREADS)
				return false;
		} else if (!strcmp(word, "c32")) {
			c->compat = 1;
		} else if (!strncmp(word, "fail=", 5)) {
			c->fail = atoi(word + 5);
		} else {
			for (op = 0; op < OP_N && strcmp(ops[op].name, word); ++op)
				;
			if (op == OP_N)
				return false;
			c->op = op;
			def = &ops[op];
		}
	}
	return def;
}

int prog_parse(struct prog *p, FILE *f, const char *name, unsigned int *line)
{
	char text[1024], copy[1024];

	p->n_calls = 0;
	while (fgets(text, sizeof(text), f)) {
		++*line;
		if (text[0] == '#')
			continue;
		if (text[strspn(text, " \t\n")] == 0) {
			if (p->n_calls)
				return 1;
			continue;
		}
		strcpy(copy, text);
		if (p->n_calls == MAX_CALLS ||
		    !parse_call(&p->calls[p->n_calls], copy)) {
			fprintf(stderr, "%s:%u: not a call: %s", name, *line, text);
			return -1;
		}
		++p->n_calls;
	}
	return p->n_calls > 0;
}
