/* SPDX-License-Identifier: GPL-2.0-only */
/*
 * The command bus1: what its parts share.
 */
#ifndef BUS1_TOOL_H
#define BUS1_TOOL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>
#include <linux/bus1.h>

#define EXIT_USAGE	2

#define ARRAY_SIZE(_a)	(sizeof(_a) / sizeof((_a)[0]))

/* main.c: one line to stderr, and the end, but for a warning */
__attribute__((noreturn, format(printf, 1, 2))) void die(const char *fmt, ...);
__attribute__((noreturn, format(printf, 1, 2))) void usage(const char *fmt, ...);
__attribute__((format(printf, 1, 2))) void warning(const char *fmt, ...);
void *xrealloc(void *p, size_t size);
uint64_t parse_number(const char *what, const char *text, uint64_t max);
double parse_seconds(const char *text);
bool parse_json(const char *text);
uint64_t now_ns(void);
void json_string(FILE *f, const char *s);
void print_text(FILE *f, const char *s);

int cmd_peers(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_trace(int argc, char **argv);
int cmd_send(int argc, char **argv);
int cmd_recv(int argc, char **argv);
int cmd_serve(int argc, char **argv);
int cmd_bench(int argc, char **argv);

/* bus.c: commands of /dev/bus1; 0 or -errno */
struct bus {
	int fd;
	const unsigned char *pool;
	size_t pool_size;
};

void bus_check(void);
int bus_open_fd(void);
void bus_open(struct bus *bus);
void bus_close(struct bus *bus);
int bus_transfer(int src_fd, uint64_t id, int dst_fd, uint64_t *idp);
int bus_send(int fd, const struct bus1_cmd_send *send);
int bus_recv(struct bus *bus, struct bus1_cmd_recv *recv, bool files);
int bus_handle_release(int fd, uint64_t id);
int bus_slice_release(int fd, uint64_t offset);
const unsigned char *bus_bytes(const struct bus *bus,
			       const struct bus1_cmd_recv *recv);
uint64_t bus_handle(const struct bus *bus, const struct bus1_cmd_recv *recv,
		    size_t i);
int bus_file(const struct bus *bus, const struct bus1_cmd_recv *recv, size_t i);

/* peers.c: all peers that there are */
enum { SLICES, HANDLES, BYTES, FDS, N_RESOURCES };

struct holder {
	pid_t pid;
	int fd;
	char command[32];
};

struct peer {
	uint64_t id;
	bool connected;
	uint32_t uid;
	uint64_t nodes, queue;
	uint64_t used[N_RESOURCES], max[N_RESOURCES];
	uint64_t user_used[N_RESOURCES], user_max[N_RESOURCES];
	struct holder *holders;
	size_t n_holders;
};

struct peers {
	struct peer *peers;
	size_t n;
	size_t n_hidden;	/* processes that may not be looked at */
};

extern const char * const resource_names[N_RESOURCES];

void peers_read(struct peers *peers);
void peers_free(struct peers *peers);
const struct peer *peers_find(const struct peers *peers, uint64_t id);
unsigned int peer_budget(const struct peer *peer, const char **whatp);
void print_size(char text[16], uint64_t n);

/* events.c: the tracepoints */
struct event {
	char name[32];		/* without bus1_ */
	char command[32];
	pid_t tid;
	char fields[512];
};

struct events {
	char instance[96];
	int fd;
	size_t used;
	uint64_t lost;
	char buffer[65536];
};

const char *events_open(struct events *events, const char * const *names);
void events_close(struct events *events);
bool events_next(struct events *events, struct event *event);
uint64_t event_number(const struct event *event, const char *field);
bool event_is(const struct event *event, const char *field, const char *value);

/* trace.c, svg.c: what happened */
struct delivery {
	uint64_t peer, node;
	char type;		/* 'm'essage, 'd'estroy, 'r'elease */
	bool received, shown;
	uint64_t age;
};

struct transaction {
	uint64_t tx, ts;	/* ts is 0 until it is known */
	uint64_t seen;		/* when it was heard of first */
	uint64_t sender;	/* 0: not known */
	char type;		/* 'm', 'd', 'r', 'c'lose */
	uint64_t n_bytes, n_handles, n_fds;
	struct delivery *deliveries;
	size_t n;
	bool printed, late;
};

/* What is known of a peer. */
struct name {
	uint64_t peer;
	pid_t pid;
	uint32_t uid;
	char command[32];
	uint64_t closed;	/* when, if it is */
};

const struct name *name_find(uint64_t peer);
int compare_transactions(const void *a, const void *b);
void print_ns(char text[24], uint64_t ns);
int svg_write(const char *path, struct transaction *const *list, size_t n);

#endif /* BUS1_TOOL_H */
