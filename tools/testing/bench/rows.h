/* SPDX-License-Identifier: GPL-2.0-only */
#ifndef ROWS_H
#define ROWS_H

#include "bench.h"

enum mode { MODE_ICOUNT, MODE_TIME, MODE_PROFILE, MODE_SHARED };

/**
 * struct row - one kind of work
 * @name: its name
 * @run: do it, in a process of its own
 * @size: length of the payload
 * @n: how many, of whatever the row is about
 * @samples: how often, if not as often as others
 * @read: the receiver reads the payload
 * @floor: it is about no transport
 * @two_cpus: it needs two CPUs
 * @no_time: it takes too long to be repeated
 * @fewer: bus1 takes as few system calls as there can be
 * @only: the only transport that can
 */
struct row {
	const char *name;
	void (*run)(const struct row *row, const struct transport *t);
	size_t size;
	unsigned int n;
	unsigned int samples;
	bool read;
	bool floor;
	bool two_cpus;
	bool no_time;
	bool fewer;
	const struct transport *only;
};

/**
 * struct op - what is measured
 * @run: this, and nothing else
 * @before: what has to be done before each
 * @after: what has to be done after each
 * @arg: argument of all
 * @parts: the result is divided by this
 */
struct op {
	void (*run)(void *arg);
	void (*before)(void *arg);
	void (*after)(void *arg);
	void *arg;
	unsigned int parts;
};

extern const struct row rows[];
extern const unsigned int n_rows;
extern enum mode mode;
extern int n_cpus;

void measure(const struct op *op);
void report(double *v, unsigned int n);
uint64_t now(void);
void run_on(int cpu);
void *buffer_new(size_t size);

#endif /* ROWS_H */
