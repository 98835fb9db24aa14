// SPDX-License-Identifier: GPL-2.0-only
/*
 * The command bus1: see what happens on the bus, and try it.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>
#include "bus1.h"

static const struct {
	const char *name;
	int (*fn)(int argc, char **argv);
	const char *help;
} commands[] = {
	{ "peers", cmd_peers, "list the peers of this machine" },
	{ "top", cmd_top, "the same, live, with rates" },
	{ "trace", cmd_trace, "show messages as they happen" },
	{ "send", cmd_send, "send a message" },
	{ "recv", cmd_recv, "receive messages, and print them" },
	{ "serve", cmd_serve, "run a command for each message" },
	{ "bench", cmd_bench, "compare with sockets" },
};

static const char *command_name;

static void complain(const char *fmt, va_list args)
{
	fflush(stdout);
	fprintf(stderr, "bus1%s%s: ", command_name ? " " : "",
		command_name ?: "");
	vfprintf(stderr, fmt, args);
}

void die(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	complain(fmt, args);
	va_end(args);
	fputc('\n', stderr);
	exit(EXIT_FAILURE);
}

void usage(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	complain(fmt, args);
	va_end(args);
	fputs("; see bus1(1)\n", stderr);
	exit(EXIT_USAGE);
}

void warning(const char *fmt, ...)
{
	va_list args;

	va_start(args, fmt);
	complain(fmt, args);
	va_end(args);
	fputc('\n', stderr);
}

void *xrealloc(void *p, size_t size)
{
	p = realloc(p, size);
	if (!p)
		die("out of memory");
	return p;
}

uint64_t parse_number(const char *what, const char *text, uint64_t max)
{
	unsigned long long n;
	char *end;

	errno = 0;
	n = strtoull(text, &end, 0);
	if (!isdigit((unsigned char)text[0]) || *end || errno || n > max)
		usage("'%s' is no %s", text, what);
	return n;
}

double parse_seconds(const char *text)
{
	char *end;
	double s = strtod(text, &end);

	if (end == text || *end || !(s >= 0 && s <= 1e9))
		usage("'%s' is no number of seconds", text);
	return s;
}

bool parse_json(const char *text)
{
	if (!strcmp(text, "json"))
		return true;
	if (strcmp(text, "text"))
		usage("'%s' is no format: text or json", text);
	return false;
}

uint64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

/* Bytes that are no ASCII are taken for Latin-1: the result is valid in any case. */
void json_string(FILE *f, const char *s)
{
	fputc('"', f);
	for (; *s; ++s) {
		unsigned char c = *s;

		if (c == '"' || c == '\\')
			fprintf(f, "\\%c", c);
		else if (c < 0x20 || c >= 0x7f)
			fprintf(f, "\\u%04x", c);
		else
			fputc(c, f);
	}
	fputc('"', f);
}

/* A process chooses its name: nothing of it may reach the terminal as a command. */
void print_text(FILE *f, const char *s)
{
	for (; *s; ++s)
		fputc(isprint((unsigned char)*s) ? *s : '?', f);
}

static void help(FILE *f)
{
	size_t i;

	fputs("usage: bus1 COMMAND [ARGUMENT...]\n\n", f);
	for (i = 0; i < ARRAY_SIZE(commands); ++i)
		fprintf(f, "  %-8s %s\n", commands[i].name, commands[i].help);
	fputs("\nbus1(1) has the arguments of each.\n", f);
}

int main(int argc, char **argv)
{
	size_t i;
	int fd, r;

	/* Who has started this may not care for children; this does */
	signal(SIGCHLD, SIG_DFL);
	/* What is opened later must not be taken for one of the first three */
	do {
		fd = open("/dev/null", O_RDONLY);
	} while (fd >= 0 && fd <= STDERR_FILENO);
	close(fd);

	if (argc < 2)
		usage("no command is given");
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h") ||
	    !strcmp(argv[1], "help")) {
		help(stdout);
		return EXIT_SUCCESS;
	}
	if (!strcmp(argv[1], "--version")) {
		puts("bus1 " VERSION);
		return EXIT_SUCCESS;
	}
	for (i = 0; i < ARRAY_SIZE(commands); ++i) {
		if (strcmp(argv[1], commands[i].name))
			continue;
		command_name = argv[1];
		r = commands[i].fn(argc - 1, argv + 1);
		if (fflush(stdout) || ferror(stdout))
			die("cannot write: %s", strerror(errno));
		return r;
	}
	usage("there is no command '%s'", argv[1]);
}
