// SPDX-License-Identifier: GPL-2.0-only
/*
 * The sequence chart of bus1 trace: peers are columns, transactions are rows, in
 * their order.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include "bus1.h"

#define LEFT		120	/* where the first column is */
#define COLUMN		170
#define TOP		70	/* where the first row is */
#define ROW		34
#define ROWS_MAX	2000

static uint64_t *columns;
static size_t n_columns;

static int compare_ids(const void *a, const void *b)
{
	uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

	return x < y ? -1 : x > y;
}

static void column_add(uint64_t peer)
{
	size_t i;

	for (i = 0; i < n_columns && columns[i] != peer; ++i)
		;
	if (!peer || i < n_columns)
		return;
	columns = xrealloc(columns, (n_columns + 1) * sizeof(*columns));
	columns[n_columns++] = peer;
}

static bool has_column(uint64_t peer)
{
	size_t i;

	for (i = 0; i < n_columns; ++i) {
		if (columns[i] == peer)
			return true;
	}
	return false;
}

static int column_x(uint64_t peer)
{
	size_t i;

	for (i = 0; i < n_columns; ++i) {
		if (columns[i] == peer)
			return LEFT + COLUMN / 2 + COLUMN * i;
	}
	return LEFT;
}

static void escape(FILE *f, const char *s)
{
	for (; *s; ++s) {
		switch (*s) {
		case '<':
			fputs("&lt;", f);
			break;
		case '>':
			fputs("&gt;", f);
			break;
		case '&':
			fputs("&amp;", f);
			break;
		case '"':
			fputs("&quot;", f);
			break;
		default:
			fputc(*s >= ' ' && *s < 0x7f ? *s : '?', f);
		}
	}
}

static void draw_heads(FILE *f, int height)
{
	const struct name *name;
	size_t i;
	int x;

	for (i = 0; i < n_columns; ++i) {
		x = column_x(columns[i]);
		name = name_find(columns[i]);
		fprintf(f, "<line class=\"life\" x1=\"%d\" y1=\"52\" x2=\"%d\" y2=\"%d\"/>\n",
			x, x, height - 16);
		fprintf(f, "<rect class=\"peer\" x=\"%d\" y=\"10\" width=\"%d\" height=\"42\" rx=\"5\"/>\n",
			x - COLUMN / 2 + 10, COLUMN - 20);
		fprintf(f, "<text class=\"head\" x=\"%d\" y=\"28\">", x);
		escape(f, name->command[0] ? name->command : "?");
		fprintf(f, "</text>\n<text class=\"sub\" x=\"%d\" y=\"44\">peer %llu",
			x, (unsigned long long)columns[i]);
		if (name->pid)
			fprintf(f, ", pid %d", name->pid);
		fputs("</text>\n", f);
	}
}

static void draw_label(FILE *f, const struct transaction *t,
		       const struct delivery *d)
{
	switch (d->type) {
	case 'd':
		fputs("destroyed", f);
		break;
	case 'r':
		fputs("released", f);
		break;
	default:
		fprintf(f, "%llu byte%s", (unsigned long long)t->n_bytes,
			t->n_bytes == 1 ? "" : "s");
		if (t->n_handles)
			fprintf(f, " +%llu handle%s",
				(unsigned long long)t->n_handles,
				t->n_handles == 1 ? "" : "s");
		if (t->n_fds)
			fprintf(f, " +%llu file%s", (unsigned long long)t->n_fds,
				t->n_fds == 1 ? "" : "s");
	}
}

/* An arrow, or a loop of the peer to itself; open if nobody has received it. */
static void draw_delivery(FILE *f, const struct transaction *t,
			  const struct delivery *d, int y)
{
	int from = column_x(t->sender ?: d->peer), to = column_x(d->peer);
	int dir = to > from ? 1 : -1;
	char age[24] = "not received";
	const char *class = d->type == 'm' ? "msg" : "note";

	if (d->received)
		print_ns(age, d->age);
	fprintf(f, "<g class=\"%s%s\"><title>tx %llu, node %#llx, %s</title>",
		class, d->received ? "" : " open", (unsigned long long)t->tx,
		(unsigned long long)d->node, age);
	if (from == to) {
		fprintf(f, "<path class=\"line\" d=\"M%d %d h26 v12 h-20\"/><path class=\"tip\" d=\"M%d %d l9 -4 v8 z\"/>",
			from, y - 6, from + 2, y + 6);
		fprintf(f, "<text class=\"label\" x=\"%d\" y=\"%d\">", from + 31, y - 2);
		draw_label(f, t, d);
		fprintf(f, "</text><text class=\"age\" x=\"%d\" y=\"%d\">%s</text></g>\n",
			from + 31, y + 10, age);
		return;
	}
	fprintf(f, "<line class=\"line\" x1=\"%d\" y1=\"%d\" x2=\"%d\" y2=\"%d\"/><path class=\"tip\" d=\"M%d %d l%d -5 v10 z\"/>",
		from, y, to - 8 * dir, y, to, y, -10 * dir);
	/* What it is stands at the sender, how long it took at each receiver */
	fprintf(f, "<text class=\"age %s\" x=\"%d\" y=\"%d\">%s</text></g>\n",
		dir > 0 ? "end" : "start", to - 14 * dir, y + 12, age);
}

static void draw_sender_label(FILE *f, const struct transaction *t, int y)
{
	const struct delivery *d, *one = NULL;
	int from = column_x(t->sender), dir = 0;
	size_t i, n = 0;

	for (i = 0; i < t->n; ++i) {
		d = &t->deliveries[i];
		if (!d->shown || d->peer == t->sender || !t->sender)
			continue;
		++n;
		if (!one || column_x(d->peer) > from) {
			one = d;
			dir = column_x(d->peer) > from ? 1 : -1;
		}
	}
	if (!one)
		return;
	fprintf(f, "<circle class=\"dot %s\" cx=\"%d\" cy=\"%d\" r=\"3.5\"/>\n",
		one->type == 'm' ? "" : "note", from, y);
	fprintf(f, "<text class=\"label %s\" x=\"%d\" y=\"%d\">",
		dir > 0 ? "start" : "end", from + 9 * dir, y - 5);
	draw_label(f, t, one);
	if (n > 1)
		fprintf(f, " to %zu", n);
	fputs("</text>\n", f);
}

static void draw_transaction(FILE *f, const struct transaction *t,
			     uint64_t first, int y)
{
	size_t i;

	fprintf(f, "<text class=\"time\" x=\"%d\" y=\"%d\">%.6f s</text>\n",
		LEFT - 16, y + 4, (t->ts - first) / 1e9);
	if (t->type == 'c') {
		int x = column_x(t->sender);

		fprintf(f, "<path class=\"close\" d=\"M%d %d l12 12 m0 -12 l-12 12\"><title>closed</title></path>\n",
			x - 6, y - 6);
	}
	for (i = 0; i < t->n; ++i) {
		if (t->deliveries[i].shown)
			draw_delivery(f, t, &t->deliveries[i], y);
	}
	draw_sender_label(f, t, y);
}

static const char style[] =
	"text { font: 12px sans-serif; fill: #222; }\n"
	".head { font-weight: bold; text-anchor: middle; }\n"
	".sub { font-size: 10px; text-anchor: middle; fill: #555; }\n"
	".time { font-size: 10px; text-anchor: end; fill: #555; }\n"
	".label { font-size: 10.5px; }\n"
	".age { font-size: 9px; fill: #777; }\n"
	".start { text-anchor: start; }\n"
	".end { text-anchor: end; }\n"
	".life { stroke: #bbb; stroke-dasharray: 3 3; }\n"
	".peer { fill: #eef3fa; stroke: #7d99bf; }\n"
	".row { fill: #f7f7f7; }\n"
	".line { stroke: #2a5da8; stroke-width: 1.5; fill: none; }\n"
	".tip, .dot { fill: #2a5da8; }\n"
	".note .line { stroke: #b3541e; stroke-dasharray: 5 3; }\n"
	".note .tip, .dot.note { fill: #b3541e; }\n"
	".open .tip { fill: #fff; stroke: #2a5da8; }\n"
	".note.open .tip { stroke: #b3541e; }\n"
	".close { stroke: #a02020; stroke-width: 2; fill: none; }\n";

static void draw(FILE *f, struct transaction *const *list, size_t n)
{
	int width = LEFT + COLUMN * (n_columns ?: 1) + 20;
	int height = TOP + ROW * n + 30, y;
	size_t i;

	fprintf(f, "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n"
		"<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"%d\" height=\"%d\" viewBox=\"0 0 %d %d\">\n"
		"<title>bus1 trace</title>\n<style>\n%s</style>\n"
		"<rect width=\"%d\" height=\"%d\" fill=\"#fff\"/>\n",
		width, height, width, height, style, width, height);
	for (i = 0; i < n; i += 2)
		fprintf(f, "<rect class=\"row\" x=\"0\" y=\"%zu\" width=\"%d\" height=\"%d\"/>\n",
			TOP + ROW * i - 4, width, ROW);
	draw_heads(f, height);
	for (i = 0; i < n; ++i) {
		y = TOP + ROW * i + ROW / 2 - 4;
		draw_transaction(f, list[i], list[0]->ts, y);
	}
	fputs("</svg>\n", f);
}

/* 0, or -1 with errno set. */
int svg_write(const char *path, struct transaction *const *list, size_t n)
{
	struct transaction **rows;
	size_t i, j;
	FILE *f;

	if (n > ROWS_MAX) {
		fprintf(stderr, "bus1 trace: the chart has the first %d of %zu transactions\n",
			ROWS_MAX, n);
		n = ROWS_MAX;
	}
	for (i = 0; i < n; ++i) {
		for (j = 0; j < list[i]->n; ++j) {
			if (!list[i]->deliveries[j].shown)
				continue;
			column_add(list[i]->sender);
			column_add(list[i]->deliveries[j].peer);
		}
	}
	if (n_columns)
		qsort(columns, n_columns, sizeof(*columns), compare_ids);

	/* Those who came and went without a word are left out */
	rows = xrealloc(NULL, (n + 1) * sizeof(*rows));
	for (i = 0, j = 0; i < n; ++i) {
		if (has_column(list[i]->sender) || list[i]->type != 'c')
			rows[j++] = list[i];
	}
	n = j;
	/* What was told of late has its place all the same */
	if (n)
		qsort(rows, n, sizeof(*rows), compare_transactions);

	f = fopen(path, "we");
	if (!f)
		return -1;
	draw(f, rows, n);
	free(rows);
	if (ferror(f)) {
		fclose(f);
		errno = EIO;
		return -1;
	}
	return fclose(f);
}
