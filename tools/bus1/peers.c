// SPDX-License-Identifier: GPL-2.0-only
/*
 * bus1 peers: who is on the bus. What peers have is in /proc/PID/fdinfo; several
 * processes may have the same one.
 */
#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "bus1.h"

const char * const resource_names[N_RESOURCES] = {
	"slices", "handles", "bytes", "fds",
};

static void read_text(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	size_t used = 0;
	ssize_t n;

	while (fd >= 0 && used < size - 1 &&
	       (n = read(fd, text + used, size - 1 - used)) > 0)
		used += n;
	text[used] = 0;
	if (fd >= 0)
		close(fd);
}

/* The value of a key of fdinfo, 0 if it is not there. */
static uint64_t info_value(const char *info, const char *key)
{
	size_t n = strlen(key);
	const char *p;

	for (p = info; p; p = strchr(p, '\n')) {
		p += *p == '\n';
		if (!strncmp(p, key, n) && p[n] == ':')
			return strtoull(p + n + 1, NULL, 10);
	}
	return 0;
}

static struct peer *peers_add(struct peers *peers, uint64_t id)
{
	struct peer *peer = (struct peer *)peers_find(peers, id);

	if (peer)
		return peer;
	peers->peers = xrealloc(peers->peers,
				(peers->n + 1) * sizeof(*peers->peers));
	peer = &peers->peers[peers->n++];
	memset(peer, 0, sizeof(*peer));
	peer->id = id;
	return peer;
}

static void peers_read_fd(struct peers *peers, pid_t pid, int fd,
			  const char *command)
{
	char path[64], info[16384], key[48];
	struct holder *holder;
	struct peer *peer;
	uint64_t id;
	int i;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", pid, fd);
	read_text(path, info, sizeof(info));
	id = info_value(info, "bus1-peer");
	if (!id)
		return;

	peer = peers_add(peers, id);
	peer->connected = info_value(info, "bus1-connected");
	peer->uid = info_value(info, "bus1-user");
	peer->nodes = info_value(info, "bus1-nodes");
	peer->queue = info_value(info, "bus1-queue");
	for (i = 0; i < N_RESOURCES; ++i) {
		snprintf(key, sizeof(key), "bus1-%s", resource_names[i]);
		peer->used[i] = info_value(info, key);
		snprintf(key, sizeof(key), "bus1-%s-max", resource_names[i]);
		peer->max[i] = info_value(info, key);
		snprintf(key, sizeof(key), "bus1-user-%s", resource_names[i]);
		peer->user_used[i] = info_value(info, key);
		snprintf(key, sizeof(key), "bus1-user-%s-max", resource_names[i]);
		peer->user_max[i] = info_value(info, key);
	}

	peer->holders = xrealloc(peer->holders, (peer->n_holders + 1) *
				 sizeof(*peer->holders));
	holder = &peer->holders[peer->n_holders++];
	holder->pid = pid;
	holder->fd = fd;
	snprintf(holder->command, sizeof(holder->command), "%s", command);
}

static void peers_read_process(struct peers *peers, pid_t pid)
{
	char path[64], command[32];
	struct dirent *entry;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo", pid);
	dir = opendir(path);
	if (!dir) {
		peers->n_hidden += errno == EACCES || errno == EPERM;
		return;
	}
	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	read_text(path, command, sizeof(command));
	command[strcspn(command, "\n")] = 0;

	while ((entry = readdir(dir))) {
		if (isdigit((unsigned char)entry->d_name[0]))
			peers_read_fd(peers, pid, atoi(entry->d_name), command);
	}
	closedir(dir);
}

static int compare_peers(const void *a, const void *b)
{
	const struct peer *x = a, *y = b;

	return x->id < y->id ? -1 : x->id > y->id;
}

void peers_read(struct peers *peers)
{
	DIR *dir = opendir("/proc");
	struct dirent *entry;

	memset(peers, 0, sizeof(*peers));
	if (!dir)
		die("cannot read /proc: %s", strerror(errno));
	while ((entry = readdir(dir))) {
		if (isdigit((unsigned char)entry->d_name[0]))
			peers_read_process(peers, atoi(entry->d_name));
	}
	closedir(dir);
	if (peers->n)
		qsort(peers->peers, peers->n, sizeof(*peers->peers),
		      compare_peers);
}

void peers_free(struct peers *peers)
{
	size_t i;

	for (i = 0; i < peers->n; ++i)
		free(peers->peers[i].holders);
	free(peers->peers);
}

const struct peer *peers_find(const struct peers *peers, uint64_t id)
{
	size_t i;

	for (i = 0; i < peers->n; ++i) {
		if (peers->peers[i].id == id)
			return &peers->peers[i];
	}
	return NULL;
}

/* In percent, of the budget that is used most: that of the peer, or of its user. */
unsigned int peer_budget(const struct peer *peer, const char **whatp)
{
	uint64_t percent, most = 0;
	int i;

	*whatp = "";
	for (i = 0; i < N_RESOURCES; ++i) {
		percent = peer->max[i] ? peer->used[i] * 100 / peer->max[i] : 0;
		if (peer->user_max[i] &&
		    peer->user_used[i] * 100 / peer->user_max[i] > percent)
			percent = peer->user_used[i] * 100 / peer->user_max[i];
		if (percent > most) {
			most = percent;
			*whatp = resource_names[i];
		}
	}
	return most > 999 ? 999 : most;
}

void print_size(char text[16], uint64_t n)
{
	static const char units[] = "KMGTPE";
	double d = n;
	int i = -1;

	if (n < 10000) {
		snprintf(text, 16, "%u", (unsigned int)n);
		return;
	}
	while (d >= 1024) {
		d /= 1024;
		++i;
	}
	snprintf(text, 16, d < 10 ? "%.1f%c" : "%.0f%c", d, units[i]);
}

static void peers_print(const struct peers *peers)
{
	const struct peer *peer;
	const struct holder *holder;
	char size[16], budget[24];
	const char *what;
	unsigned int percent;
	size_t i, j;

	printf("%6s %7s %6s %6s %7s %6s %6s %6s %-11s %s\n", "PEER", "PID",
	       "UID", "NODES", "HANDLES", "QUEUE", "SLICES", "BYTES", "BUDGET",
	       "COMMAND");
	for (i = 0; i < peers->n; ++i) {
		peer = &peers->peers[i];
		print_size(size, peer->used[BYTES]);
		percent = peer_budget(peer, &what);
		snprintf(budget, sizeof(budget), "%u%% %s", percent, what);
		for (j = 0; j < peer->n_holders; ++j) {
			holder = &peer->holders[j];
			if (j)	/* the same one, in another process */
				printf("%6s %7d %66s", "", holder->pid, "");
			else
				printf("%6llu %7d %6u %6llu %7llu %6llu %6llu %6s %-11s ",
				       (unsigned long long)peer->id, holder->pid,
				       peer->uid,
				       (unsigned long long)peer->nodes,
				       (unsigned long long)peer->used[HANDLES],
				       (unsigned long long)peer->queue,
				       (unsigned long long)peer->used[SLICES],
				       size, budget);
			print_text(stdout, holder->command);
			fputs(peer->connected || j ? "\n" : " (disconnected)\n",
			      stdout);
		}
	}
}

static void print_json_resources(const char *name, const uint64_t *used,
				 const uint64_t *max)
{
	int i;

	printf(", \"%s\": {", name);
	for (i = 0; i < N_RESOURCES; ++i)
		printf("%s\"%s\": {\"used\": %llu, \"max\": %llu}",
		       i ? ", " : "", resource_names[i],
		       (unsigned long long)used[i], (unsigned long long)max[i]);
	printf("}");
}

static void peers_print_json(const struct peers *peers)
{
	const struct peer *peer;
	size_t i, j;

	printf("[");
	for (i = 0; i < peers->n; ++i) {
		peer = &peers->peers[i];
		printf("%s\n {\"peer\": %llu, \"connected\": %s, \"uid\": %u, \"nodes\": %llu, \"queue\": %llu",
		       i ? "," : "", (unsigned long long)peer->id,
		       peer->connected ? "true" : "false", peer->uid,
		       (unsigned long long)peer->nodes,
		       (unsigned long long)peer->queue);
		print_json_resources("budget", peer->used, peer->max);
		print_json_resources("user_budget", peer->user_used,
				     peer->user_max);
		printf(", \"processes\": [");
		for (j = 0; j < peer->n_holders; ++j) {
			printf("%s{\"pid\": %d, \"fd\": %d, \"command\": ",
			       j ? ", " : "", peer->holders[j].pid,
			       peer->holders[j].fd);
			json_string(stdout, peer->holders[j].command);
			printf("}");
		}
		printf("]}");
	}
	printf("%s]\n", peers->n ? "\n" : "");
}

int cmd_peers(int argc, char **argv)
{
	struct peers peers;
	bool json = false;
	int c;

	opterr = 0;
	while ((c = getopt(argc, argv, "o:")) >= 0) {
		if (c != 'o')
			usage("wrong option '-%c'", optopt);
		json = parse_json(optarg);
	}
	if (optind < argc)
		usage("too many arguments: '%s'", argv[optind]);

	bus_check();
	peers_read(&peers);
	if (json)
		peers_print_json(&peers);
	else
		peers_print(&peers);
	if (peers.n_hidden)
		fprintf(stderr, "bus1 peers: %zu processes are not yours to look at; root sees all\n",
			peers.n_hidden);
	peers_free(&peers);
	return EXIT_SUCCESS;
}
