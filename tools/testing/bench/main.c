// SPDX-License-Identifier: GPL-2.0-only
/*
 * bench [-m MODE] [-r ROUNDS] [-n SAMPLES] [-l LABEL] [-x TRANSPORT]... [ROW...]
 *
 * Measure what a message costs, over bus1 and over what else there is. See rows.c
 * for the rows; ROW is a pattern of the shell. Modes:
 *
 *	icount	for an emulator in which the time stamp counter counts instructions:
 *		each operation is measured by itself
 *	time	nanoseconds: ROUNDS times all rows of all transports after each other
 *	profile	a fixed number of operations between two instructions that do nothing
 *		but are known to profile.c
 *	shared	the same for shared.c: two processes on two CPUs do the same, each with
 *		objects of its own
 *
 * Each line of output is one measurement, with tabs in between:
 *
 *	R row transport label unit median mean p10 p90 samples
 *
 * or says why there is none: "- row transport label reason", or what has failed:
 * "E row transport label error". The last line is "bench: done".
 *
 * Each measurement is a process of its own, so that none finds what another one
 * left behind.
 */
#include <fnmatch.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "bench.h"
#include "rows.h"

#define SAMPLES_MAX	10000
#define SAMPLES		201
#define TIMEOUT		300
#define BATCH_NS	4000000

static const struct transport *const transports[] = {
	&bus1_transport, &seqpacket_transport, &stream_transport, &pipe_transport,
	&mqueue_transport, &binder_transport,
};

enum mode mode;
int n_cpus;
static const char *label = "";
static unsigned int n_samples;
static const struct row *row_now;
static const struct transport *transport_now;
static double samples[SAMPLES_MAX];
static unsigned int *met;	/* by both processes, in the mode `shared' */
static bool is_second;

static void line(char kind)
{
	printf("%c\t%s\t%s\t%s\t", kind, row_now->name,
	       transport_now ? transport_now->name : "", label);
}

void row_fail(const char *fmt, ...)
{
	va_list args;

	line('E');
	va_start(args, fmt);
	vprintf(fmt, args);
	va_end(args);
	putchar('\n');
	fflush(stdout);
	_exit(1);
}

void row_none(const char *why)
{
	line('-');
	puts(why);
	fflush(stdout);
	_exit(0);
}

void run_on(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	must(sched_setaffinity(0, sizeof(set), &set), "sched_setaffinity");
}

void *buffer_new(size_t size)
{
	char *p;

	p = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (p == MAP_FAILED)
		row_fail("no memory");
	memset(p, 0x5a, size);
	return p;
}

static uint64_t time_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ULL + ts.tv_nsec;
}

static uint64_t tsc(void)
{
	uint32_t lo, hi;

	__asm__ volatile("rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (uint64_t)hi << 32 | lo;
}

uint64_t now(void)
{
	return mode == MODE_TIME ? time_ns() : tsc();
}

/* Nothing but for profile.c and shared.c, that know them: nopl 0x62310000 + X(%rax). */
#define MARK(x)	__asm__ volatile(".byte 0x0f, 0x1f, 0x80, " #x ", 0x00, 0x31, 0x62" : : : "memory")

static void profile_begin(void)
{
	MARK(0x01);
}

static void profile_end(void)
{
	MARK(0x02);
}

static void profile_write(unsigned int parts)
{
	for (; parts; --parts)
		MARK(0x04);
	MARK(0x03);
}

static int compare(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

void report(double *v, unsigned int n)
{
	double sum = 0;
	unsigned int i;

	for (i = 0; i < n; ++i)
		sum += v[i];
	qsort(v, n, sizeof(*v), compare);
	line('R');
	printf("%s\t%.1f\t%.1f\t%.1f\t%.1f\t%u\n",
	       mode == MODE_TIME ? "ns" : "instructions", v[n / 2], sum / n,
	       v[n / 10], v[n - 1 - n / 10], n);
	fflush(stdout);
}

static void nothing(void *arg)
{
	(void)arg;
}

static void measure_icount(const struct op *op, unsigned int n)
{
	uint64_t t0, t1, empty = UINT64_MAX;
	unsigned int i;

	/* What it takes to measure. */
	for (i = 0; i < 32; ++i) {
		void (*volatile f)(void *) = nothing;

		t0 = tsc();
		f(op->arg);
		t1 = tsc();
		if (t1 - t0 < empty)
			empty = t1 - t0;
	}
	for (i = 0; i < n; ++i) {
		if (op->before)
			op->before(op->arg);
		t0 = tsc();
		op->run(op->arg);
		t1 = tsc();
		samples[i] = (double)(t1 - t0 - empty) / op->parts;
		if (op->after)
			op->after(op->arg);
	}
	report(samples, n);
}

/* Where something has to be done between operations, a batch is one of them. */
static void measure_time(const struct op *op)
{
	unsigned int i, j, n = 5, batch = 1;
	uint64_t t;

	while (!op->before && !op->after) {
		t = time_ns();
		for (j = 0; j < batch; ++j)
			op->run(op->arg);
		if (time_ns() - t >= BATCH_NS)
			break;
		batch *= 2;
	}
	for (i = 0; i < n; ++i) {
		if (op->before)
			op->before(op->arg);
		t = time_ns();
		for (j = 0; j < batch; ++j)
			op->run(op->arg);
		samples[i] = (double)(time_ns() - t) / batch / op->parts;
		if (op->after)
			op->after(op->arg);
	}
	report(samples, n);
}

static void measure_profile(const struct op *op, unsigned int n)
{
	uint64_t t = 0, t0;
	unsigned int i;

	for (i = 0; i < n; ++i) {
		if (op->before)
			op->before(op->arg);
		profile_begin();
		t0 = tsc();
		op->run(op->arg);
		t += tsc() - t0;
		profile_end();
		if (op->after)
			op->after(op->arg);
	}
	profile_write(op->parts);
	samples[0] = (double)t / n / op->parts;
	report(samples, 1);
}

/* Wait for the other process. */
static void meet(unsigned int n)
{
	__atomic_add_fetch(met, 1, __ATOMIC_SEQ_CST);
	while (__atomic_load_n(met, __ATOMIC_SEQ_CST) < 2 * n)
		sched_yield();
}

static void measure_shared(const struct op *op, unsigned int n)
{
	unsigned int i;

	meet(1);
	for (i = 0; i < n; ++i) {
		if (op->before)
			op->before(op->arg);
		profile_begin();
		op->run(op->arg);
		profile_end();
		if (op->after)
			op->after(op->arg);
	}
	meet(2);
	if (is_second)
		return;
	profile_write(0);
	line('R');
	printf("operations\t%u\n", n);
	fflush(stdout);
}

void measure(const struct op *op)
{
	unsigned int i, n = row_now->samples ? row_now->samples : SAMPLES;

	if (n_samples)
		n = n_samples;

	for (i = 0; i < (n < 50 ? 3 : 64); ++i) {
		if (op->before)
			op->before(op->arg);
		op->run(op->arg);
		if (op->after)
			op->after(op->arg);
	}
	if (mode == MODE_ICOUNT)
		measure_icount(op, n);
	else if (mode == MODE_PROFILE)
		measure_profile(op, n);
	else if (mode == MODE_SHARED)
		measure_shared(op, n);
	else
		measure_time(op);
}

static bool wanted(const struct row *row, char **patterns)
{
	if (mode == MODE_TIME ? row->no_time : row->two_cpus)
		return false;
	if (row->two_cpus && n_cpus < 2)
		return false;
	if (!*patterns)
		return true;
	for (; *patterns; ++patterns)
		if (!fnmatch(*patterns, row->name, 0))
			return true;
	return false;
}

static void run(const struct row *row, const struct transport *t)
{
	int status;
	pid_t pid;

	row_now = row;
	transport_now = t;
	fflush(stdout);
	pid = fork();
	if (!pid) {
		setpgid(0, 0);
		alarm(TIMEOUT);
		if (mode == MODE_SHARED) {
			met = mmap(NULL, 4096, PROT_READ | PROT_WRITE,
				   MAP_SHARED | MAP_ANONYMOUS, -1, 0);
			is_second = !must(fork(), "fork");
		}
		run_on(is_second);
		row->run(row, t);
		_exit(0);
	}
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		err(1, "fork");
	if (WIFSIGNALED(status)) {
		line('E');
		printf("signal %d\n", WTERMSIG(status));
	}
	kill(-pid, SIGKILL);
	while (waitpid(-pid, NULL, 0) > 0)
		;
}

int main(int argc, char **argv)
{
	struct rlimit files = { 65536, 65536 };
	const char *only[8] = {};
	unsigned int i, j, k, n_only = 0, rounds = 1;
	const struct row *row;
	bool skip;
	int c;

	while ((c = getopt(argc, argv, "m:r:n:l:x:")) >= 0) {
		switch (c) {
		case 'm':
			if (!strcmp(optarg, "icount"))
				mode = MODE_ICOUNT;
			else if (!strcmp(optarg, "time"))
				mode = MODE_TIME;
			else if (!strcmp(optarg, "profile"))
				mode = MODE_PROFILE;
			else if (!strcmp(optarg, "shared"))
				mode = MODE_SHARED;
			else
				errx(2, "no mode %s", optarg);
			break;
		case 'r':
			rounds = atoi(optarg);
			break;
		case 'n':
			n_samples = atoi(optarg);
			if (n_samples > SAMPLES_MAX)
				errx(2, "too many samples");
			break;
		case 'l':
			label = optarg;
			break;
		case 'x':
			if (n_only == ARRAY_SIZE(only))
				errx(2, "too many transports");
			only[n_only++] = optarg;
			break;
		default:
			return 2;
		}
	}
	n_cpus = sysconf(_SC_NPROCESSORS_ONLN);
	if (mode == MODE_SHARED && n_cpus < 2)
		errx(2, "this takes two CPUs");
	setrlimit(RLIMIT_NOFILE, &files);
	printf("bench: bus1 %s, %d CPU\n", bus1_version(), n_cpus);

	for (; rounds > 0; --rounds) {
		for (i = 0; i < n_rows; ++i) {
			row = &rows[i];
			if (!wanted(row, argv + optind))
				continue;
			if (row->floor) {
				if (!n_only || !strcmp(only[0], bus1_transport.name))
					run(row, NULL);
				continue;
			}
			for (j = 0; j < ARRAY_SIZE(transports); ++j) {
				if (row->only && row->only != transports[j])
					continue;
				skip = n_only;
				for (k = 0; k < n_only; ++k)
					if (!strcmp(only[k], transports[j]->name))
						skip = false;
				if (skip)
					continue;
				if (row->fewer && transports[j] == &bus1_transport)
					run(row, &bus1_fewer_transport);
				else
					run(row, transports[j]);
			}
		}
	}
	puts("bench: done");
	return 0;
}
