// SPDX-License-Identifier: GPL-2.0-only
/*
 * What a program has got from the kernel, and what must be true of that: counts of
 * user references can be mirrored exactly, slices do not overlap, budgets add up.
 *
 * With several threads at work only what holds at any time is asked for.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/bus1.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fuzz.h"

void state_reset(struct process *p)
{
	unsigned int i, n = atomic_load(&p->n_states);

	for (i = 0; i < n && i < MAX_STATES; ++i) {
		p->states[i].n_ids = 0;
		p->states[i].n_slices = 0;
		p->states[i].vague = false;
	}
	atomic_store(&p->n_states, 0);
}

static struct known_id *find_id(struct peer_state *s, uint64_t id)
{
	unsigned int i;

	for (i = 0; i < s->n_ids && i < MAX_IDS; ++i) {
		if (s->ids[i].id == id)
			return &s->ids[i];
	}
	return NULL;
}

void state_add_id(struct peer_state *s, uint64_t id)
{
	struct known_id *k = find_id(s, id);

	if (id == BUS1_HANDLE_INVALID)
		return;
	if (k) {
		++k->refs;
	} else if (s->n_ids < MAX_IDS) {
		k = &s->ids[s->n_ids];
		k->id = id;
		k->refs = 1;
		++s->n_ids;
	} else {
		s->vague = true;
	}
}

/* Handles to nodes of others: their counts move by what the peer does, alone. */
void state_check_release(struct process *p, struct peer_state *s, uint64_t id, int r)
{
	struct known_id *k = find_id(s, id);
	int expected;

	if ((id & 3) != (BUS1_HANDLE_FLAG_MANAGED | BUS1_HANDLE_FLAG_REMOTE))
		return;
	expected = k && k->refs ? 0 : ENXIO;
	if (!p->threaded && !s->vague && (r == 0 || r == ENXIO) && r != expected)
		finding("release of handle %#llx: errno %d, %llu references known",
			(unsigned long long)id, r,
			(unsigned long long)(k ? k->refs : 0));
	if (!r && k && k->refs)
		--k->refs;
}

void state_add_slice(struct process *p, struct peer_state *s, uint64_t offset,
		     uint64_t size)
{
	struct known_slice *k;
	unsigned int i;

	size = (size + 7) & ~7ULL;
	if (!size)
		size = 8;
	for (i = 0; i < s->n_slices && !p->threaded && !s->vague; ++i) {
		k = &s->slices[i];
		if (offset < k->offset + k->size && k->offset < offset + size)
			finding("slice %#llx+%#llx overlaps %#llx+%#llx",
				(unsigned long long)offset,
				(unsigned long long)size,
				(unsigned long long)k->offset,
				(unsigned long long)k->size);
	}
	i = s->n_slices;
	if (i >= MAX_SLICES) {
		s->vague = true;
		return;
	}
	s->slices[i].offset = offset;
	s->slices[i].size = size;
	s->n_slices = i + 1;
}

void state_check_slice(struct process *p, struct peer_state *s, uint64_t offset,
		       int r)
{
	unsigned int i, n = s->n_slices;

	if (n > MAX_SLICES)
		n = MAX_SLICES;
	for (i = 0; i < n && s->slices[i].offset != offset; ++i)
		;
	if (!p->threaded && !s->vague && (r == 0 || r == ENXIO) &&
	    r != (i < n ? 0 : ENXIO))
		finding("release of slice %#llx: errno %d, it was %sreceived",
			(unsigned long long)offset, r, i < n ? "" : "not ");
	if (!r && i < n) {
		s->slices[i] = s->slices[n - 1];
		s->n_slices = n - 1;
	}
}

void state_flushed(struct peer_state *s)
{
	unsigned int i;

	for (i = 0; i < s->n_ids && i < MAX_IDS; ++i)
		s->ids[i].refs = 0;
	s->n_slices = 0;
}

/* fdinfo */

enum { SLICES, HANDLES, BYTES, FDS, RESOURCES };

static const char *const resource_names[RESOURCES] = {
	"slices", "handles", "bytes", "fds",
};

struct info {
	unsigned long long connected, queue, user;
	unsigned long long used[RESOURCES], own[RESOURCES], max[RESOURCES];
	unsigned long long user_used[RESOURCES];
	unsigned long long senders[RESOURCES];
};

static bool read_info(int fd, struct info *info)
{
	unsigned long long v, s[RESOURCES];
	char path[64], text[4096], key[64], *line, *save;
	unsigned int i, found = 0;
	ssize_t n;
	int f;

	memset(info, 0, sizeof(*info));
	snprintf(path, sizeof(path), "/proc/thread-self/fdinfo/%d", fd);
	f = open(path, O_RDONLY | O_CLOEXEC);
	if (f < 0)
		return false;
	n = read(f, text, sizeof(text) - 1);
	close(f);
	if (n <= 0)
		return false;
	text[n] = 0;

	for (line = strtok_r(text, "\n", &save); line;
	     line = strtok_r(NULL, "\n", &save)) {
		if (sscanf(line, "bus1-sender:\t%*u %llu %llu %llu %llu", &s[0],
			   &s[1], &s[2], &s[3]) == 4) {
			for (i = 0; i < RESOURCES; ++i)
				info->senders[i] += s[i];
			continue;
		}
		if (sscanf(line, "bus1-%48[a-z-]:\t%llu", key, &v) != 2)
			continue;
		++found;
		if (!strcmp(key, "connected"))
			info->connected = v;
		else if (!strcmp(key, "queue"))
			info->queue = v;
		else if (!strcmp(key, "user"))
			info->user = v;
		for (i = 0; i < RESOURCES; ++i) {
			size_t len = strlen(resource_names[i]);

			if (!strncmp(key, "user-", 5) &&
			    !strcmp(key + 5, resource_names[i]))
				info->user_used[i] = v;
			if (strncmp(key, resource_names[i], len))
				continue;
			if (!key[len])
				info->used[i] = v;
			else if (!strcmp(key + len, "-own"))
				info->own[i] = v;
			else if (!strcmp(key + len, "-max"))
				info->max[i] = v;
		}
	}
	return found >= 10;
}

/*
 * With nobody else at work, what a peer uses is what it took itself and what others
 * hold there; and what a user uses is the sum over the user's peers.
 */
void state_check_budgets(struct process *p)
{
	struct { unsigned long long uid, sum[RESOURCES], total[RESOURCES]; } users[8];
	struct peer_state *seen[N_PEERS];
	unsigned int i, j, k, n_users = 0, n_seen = 0;
	struct info info;
	int fd;

	if (p->hidden)
		return;
	for (i = 0; i < N_PEERS; ++i) {
		fd = atomic_load(&p->slots[i].fd);
		if (fd < 0)
			continue;
		if (p->slots[i].state->vague)
			return;
		for (j = 0; j < n_seen && seen[j] != p->slots[i].state; ++j)
			;
		if (j < n_seen)
			continue;
		seen[n_seen++] = p->slots[i].state;
		if (!read_info(fd, &info))
			return;

		for (j = 0; j < n_users && users[j].uid != info.user; ++j)
			;
		if (j == n_users) {
			memset(&users[j], 0, sizeof(users[j]));
			users[n_users++].uid = info.user;
		}
		for (k = 0; k < RESOURCES; ++k) {
			if (info.used[k] != info.own[k] + info.senders[k])
				finding("fdinfo: %s: %llu used, %llu own, %llu of senders",
					resource_names[k], info.used[k],
					info.own[k], info.senders[k]);
			if (!info.connected && info.used[k])
				finding("fdinfo: %s: %llu used after a disconnect",
					resource_names[k], info.used[k]);
			users[j].sum[k] += info.used[k];
			users[j].total[k] = info.user_used[k];
		}
	}
	for (j = 0; j < n_users; ++j) {
		for (k = 0; k < RESOURCES; ++k) {
			if (users[j].sum[k] != users[j].total[k])
				finding("fdinfo: user %llu: %s: %llu used, peers have %llu",
					users[j].uid, resource_names[k],
					users[j].total[k], users[j].sum[k]);
		}
	}
}

/* When all peers of a user are gone nothing is left. */
bool state_user_is_empty(uint32_t uid, char *text, size_t size)
{
	struct info info;
	unsigned int k;
	bool ok = true;
	int fd;

	if (syscall(SYS_setresuid, uid, -1, -1))
		return true;
	fd = open("/dev/bus1", O_RDWR | O_CLOEXEC);
	syscall(SYS_setresuid, 0, -1, -1);
	if (fd < 0)
		return true;
	if (read_info(fd, &info)) {
		for (k = 0; k < RESOURCES; ++k) {
			if (!info.user_used[k])
				continue;
			snprintf(text, size, "user %u has %llu %s left", uid,
				 info.user_used[k], resource_names[k]);
			ok = false;
		}
	}
	close(fd);
	return ok;
}
