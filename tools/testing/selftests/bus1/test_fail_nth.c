// SPDX-License-Identifier: GPL-2.0-only
/*
 * Every allocation, every user copy and every descriptor that a system call needs
 * is made to fail, one at a time. Each time the errno must be one that the manual
 * has, nothing else may have happened, and the same call must succeed afterwards.
 *
 * Allocations fail on kernels with fault injection only. Memory that is not there,
 * and limits on descriptors, are tested on all. BUS1_STRESS_SCALE below 5 cuts memory at
 * fewer places.
 */
#include <dirent.h>

#include "bus1_fault_calls.h"

/* What kmemleak does makes all of this several times slower. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	3600

/*
 * Everything, by command
 */

#define CALL(_name, _n_peers, _prepare, _run, ...)			\
	{								\
		.name = _name, .n_peers = _n_peers,			\
		.prepare = _prepare, .run = _run, ##__VA_ARGS__		\
	}
#define ERRORS(...) .errors = { __VA_ARGS__ }

static const struct scenario open_scenarios[] = {
	CALL("a user's second peer", 2, NULL, run_open,
	     ERRORS(ENOMEM, EFAULT), .n_fds = 1),
	CALL("a user's first peer", 2, NULL, run_open_new_user,
	     ERRORS(ENOMEM, EFAULT), .n_fds = 1),
	{}
};

static const struct scenario query_scenarios[] = {
	CALL("query", 2, NULL, run_query, ERRORS(EFAULT)),
	{}
};

static const struct scenario reset_scenarios[] = {
	CALL("limits", 2, prepare_everything, run_reset, ERRORS(EFAULT)),
	CALL("flush", 4, prepare_everything, run_flush, ERRORS(ENOMEM, EFAULT)),
	CALL("flush of the seed", 3, prepare_everything, run_flush_seed,
	     ERRORS(EFAULT)),
	CALL("flush of all", 4, prepare_everything, run_flush_all,
	     ERRORS(ENOMEM, EFAULT)),
	CALL("flush with holders", 6, prepare_holders, run_flush,
	     ERRORS(ENOMEM, EFAULT)),
	{}
};

/* There is nobody who could be told of an error. */
static const struct scenario disconnect_scenarios[] = {
	CALL("disconnect", 4, prepare_everything, run_disconnect),
	CALL("disconnect with holders", 6, prepare_holders, run_disconnect),
	CALL("close", 4, prepare_mapped, run_close),
	CALL("close with holders", 6, prepare_holders, run_close),
	{}
};

static const struct scenario handle_release_scenarios[] = {
	CALL("the last reference", 2, NULL, run_handle_release, ERRORS(EFAULT)),
	CALL("one of two references", 2, prepare_two_references,
	     run_handle_release, ERRORS(EFAULT)),
	CALL("the owner's second reference", 2, prepare_two_references,
	     run_handle_release_own, ERRORS(EFAULT)),
	CALL("with messages to it", 3, prepare_everything, run_handle_release,
	     ERRORS(EFAULT)),
	{}
};

static const struct scenario handle_transfer_scenarios[] = {
	CALL("new node", 3, NULL, run_transfer_new, ERRORS(ENOMEM, EFAULT)),
	CALL("new node, to its owner", 3, NULL, run_transfer_new_to_self,
	     ERRORS(ENOMEM, EFAULT)),
	CALL("handle of another", 3, NULL, run_transfer_on,
	     ERRORS(ENOMEM, EFAULT)),
	CALL("handle of another, to its owner", 3, NULL, run_transfer_home,
	     ERRORS(EFAULT)),
	CALL("known there", 3, prepare_everything, run_transfer_on,
	     ERRORS(ENOMEM, EFAULT)),
	CALL("destroyed node", 3, prepare_node_destroy, run_transfer_on,
	     ERRORS(ENOMEM, EFAULT)),
	{}
};

static const struct scenario nodes_destroy_scenarios[] = {
	CALL("two nodes", 3, NULL, run_destroy_few, ERRORS(ENOMEM, EFAULT)),
	CALL("many nodes", 6, prepare_holders, run_destroy,
	     ERRORS(ENOMEM, EFAULT)),
	CALL("many nodes, and release", 6, prepare_holders, run_destroy_release,
	     ERRORS(ENOMEM, EFAULT)),
	CALL("nodes in messages and in the seed", 4, prepare_everything,
	     run_destroy, ERRORS(ENOMEM, EFAULT)),
	{}
};

static const struct scenario slice_release_scenarios[] = {
	CALL("slice", 3, prepare_everything, run_slice_release, ERRORS(EFAULT)),
	{}
};

static const struct scenario send_scenarios[] = {
	CALL("nothing", 2, NULL, run_send_empty,
	     ERRORS(ENOMEM, EFAULT, EXFULL)),
	CALL("bytes", 2, NULL, run_send_bytes, ERRORS(ENOMEM, EFAULT, EXFULL)),
	CALL("bytes, behind others", 3, prepare_everything, run_send_bytes,
	     ERRORS(ENOMEM, EFAULT, EXFULL)),
	CALL("pages of bytes", 2, NULL, run_send_bytes_large,
	     ERRORS(ENOMEM, EFAULT, EXFULL)),
	CALL("bytes, to a new node of its own", 2, NULL, run_send_bytes_to_self,
	     ERRORS(ENOMEM, EFAULT, EXFULL)),
	CALL("bytes, the rest of the pool", 2, prepare_nearly_full,
	     run_send_bytes_3_pages, ERRORS(ENOMEM, EFAULT, EXFULL),
	     .pool_pages = 8),
	CALL("few of everything, to two", 3, NULL, run_send_few,
	     ERRORS(ENOMEM, EFAULT, EXFULL)),
	CALL("vectors, handles, files", 3, NULL, run_send_rich,
	     ERRORS(ENOMEM, EFAULT, EXFULL)),
	CALL("behind others", 3, prepare_everything, run_send_rich,
	     ERRORS(ENOMEM, EFAULT, EXFULL)),
	CALL("eight pages", 2, NULL, run_send_large,
	     ERRORS(ENOMEM, EFAULT, EXFULL)),
	CALL("many handles", 5, NULL, run_send_handles,
	     ERRORS(ENOMEM, EFAULT, EXFULL)),
	CALL("arrays of pages", 2, NULL, run_send_lots_of_handles,
	     ERRORS(ENOMEM, EFAULT, EXFULL)),
	CALL("to itself", 2, NULL, run_send_to_self,
	     ERRORS(ENOMEM, EFAULT, EXFULL)),
	CALL("to nobody", 3, NULL, run_send_nobody, ERRORS(ENOMEM, EFAULT)),
	CALL("seed", 3, NULL, run_send_seed, ERRORS(ENOMEM, EFAULT, EXFULL)),
	CALL("another seed", 3, prepare_everything, run_send_seed_again,
	     ERRORS(ENOMEM, EFAULT, EXFULL)),
	CALL("the rest of the pool", 2, prepare_nearly_full, run_send_3_pages,
	     ERRORS(ENOMEM, EFAULT, EXFULL), .pool_pages = 8),
	{}
};

static const struct scenario multicast_scenarios[] = {
	CALL("to many", WORLD_PEERS, NULL, run_send_all,
	     ERRORS(ENOMEM, EFAULT, EXFULL)),
	CALL("to those who can get it", 6, NULL, run_send_continue,
	     ERRORS(ENOMEM, EFAULT)),
	{}
};

static const struct scenario recv_scenarios[] = {
	CALL("no files", 3, prepare_message, run_recv, ERRORS(ENOMEM, EFAULT)),
	CALL("files", 3, prepare_message, run_recv_fds,
	     ERRORS(ENOMEM, EFAULT), .n_fds = 6),
	CALL("files, and no room in the table", 3, prepare_full_table,
	     run_recv_fds, ERRORS(ENOMEM, EFAULT), .fork = true),
	CALL("six pages", 2, prepare_large_message, run_recv, ERRORS(EFAULT)),
	CALL("many handles", 6, prepare_many_handles, run_recv,
	     ERRORS(ENOMEM, EFAULT)),
	CALL("arrays of pages", 2, prepare_lots_of_handles, run_recv,
	     ERRORS(ENOMEM, EFAULT)),
	CALL("known handles", 4, prepare_everything, run_recv_fds,
	     ERRORS(ENOMEM, EFAULT), .n_fds = 6),
	CALL("part of a multicast", 4, prepare_multicast, run_recv_fds,
	     ERRORS(ENOMEM, EFAULT), .n_fds = 6),
	CALL("dead handles", 4, prepare_dead_handles, run_recv,
	     ERRORS(ENOMEM, EFAULT)),
	CALL("seed", 3, prepare_everything, run_recv_seed,
	     ERRORS(ENOMEM, EFAULT, EXFULL)),
	CALL("seed with files", 3, prepare_seed, run_recv_seed_fds,
	     ERRORS(ENOMEM, EFAULT, EXFULL), .n_fds = 3),
	CALL("NODE_DESTROY", 3, prepare_node_destroy, run_recv_0,
	     ERRORS(EFAULT)),
	CALL("NODE_RELEASE", 2, prepare_node_release, run_recv, ERRORS(EFAULT)),
	{}
};

static const struct scenario recv_release_scenarios[] = {
	CALL("behind others", 4, prepare_everything, run_recv_release,
	     ERRORS(EFAULT)),
	CALL("with files", 4, prepare_everything, run_recv_release_fds,
	     ERRORS(EFAULT)),
	CALL("a seed", 3, prepare_everything, run_recv_release_seed,
	     ERRORS(EFAULT)),
	{}
};

/* After an error that leaves something done, the rest is done by the same call. */
static const struct scenario send_recv_scenarios[] = {
	CALL("nothing", 2, NULL, run_send_recv_nothing, ERRORS(EFAULT)),
	CALL("a slice", 3, prepare_everything, run_send_recv_slice,
	     ERRORS(EFAULT)),
	CALL("a message", 3, NULL, run_send_recv_send,
	     ERRORS(ENOMEM, EFAULT, EXFULL)),
	CALL("two messages received", 4, prepare_everything, run_send_recv_recv,
	     ERRORS(ENOMEM, EFAULT)),
	CALL("all of it", 4, prepare_everything, run_send_recv_all,
	     ERRORS(ENOMEM, EFAULT, EXFULL)),
	{}
};

static const struct scenario poll_scenarios[] = {
	CALL("poll", 4, prepare_everything, run_poll, ERRORS(ENOMEM, EFAULT)),
	CALL("epoll", 3, prepare_epoll, run_epoll_add, ERRORS(ENOMEM, EFAULT)),
	CALL("fdinfo", 4, prepare_everything, run_fdinfo,
	     ERRORS(ENOMEM, EFAULT)),
	{}
};

static const struct scenario mmap_scenarios[] = {
	CALL("mapping", 3, prepare_everything, run_mmap, ERRORS(ENOMEM)),
	CALL("first touch", 3, prepare_mapped, run_touch),
	CALL("first touch by the kernel", 3, prepare_mapped, run_copy_from_pool,
	     ERRORS(ENOMEM, EFAULT)),
	{}
};

/*
 * Sums, over all tests: each of them is a process of its own
 */

/**
 * struct sums - what was survived
 * @failed: calls that failed with one of these because something was injected
 * @ignored: calls that succeeded although something was injected
 * @cuts: calls that were given memory that is not there
 * @limits: calls that had too few descriptors
 */
struct sums {
	unsigned int failed[3], ignored, cuts, limits;
};

static const int sums_errors[] = { ENOMEM, EFAULT, EXFULL };

static struct sums *total;

static __attribute__((constructor)) void total_init(void)
{
	total = shared_alloc(sizeof(*total));
}

static void sums_count(struct sums *sums, int r)
{
	size_t i;

	for (i = 0; i < ARRAY_SIZE(sums_errors); i++) {
		if (r == -sums_errors[i]) {
			sums->failed[i]++;
			return;
		}
	}
	sums->ignored++;
}

static unsigned int sums_injected(const struct sums *sums)
{
	return sums->failed[0] + sums->failed[1] + sums->failed[2] +
	       sums->ignored;
}

static void sums_print(const char *name, const struct sums *sums)
{
	if (sums_injected(sums))
		printf("# %s: %u injected failures survived: ENOMEM %u, EFAULT %u, EXFULL %u, no effect %u\n",
		       name, sums_injected(sums), sums->failed[0],
		       sums->failed[1], sums->failed[2], sums->ignored);
	if (sums->cuts)
		printf("# %s: %u bad pointers survived\n", name, sums->cuts);
	if (sums->limits)
		printf("# %s: %u calls without descriptors survived\n", name,
		       sums->limits);
	fflush(stdout);
}

/* What one test has found out. */
static void sums_end(const char *name, const struct sums *sums)
{
	size_t i;

	sums_print(name, sums);
	for (i = 0; i < ARRAY_SIZE(sums_errors); i++)
		total->failed[i] += sums->failed[i];
	total->ignored += sums->ignored;
	total->cuts += sums->cuts;
	total->limits += sums->limits;
}

/*
 * Knobs of fault injection, which do nothing while nobody asks for a fault. They
 * are set back by a process of its own, as soon as the test is gone.
 */

#define KNOBS	"/sys/kernel/debug/"
#define CACHES	"/sys/kernel/slab/"

static const struct {
	const char *path, *value;
} knobs[] = {
	{ KNOBS "failslab/ignore-gfp-wait", "N" },
	{ KNOBS "failslab/cache-filter", "N" },
	{ KNOBS "failslab/verbose", "0" },
	{ KNOBS "failslab/times", NULL },
	{ KNOBS "fail_page_alloc/ignore-gfp-wait", "N" },
	{ KNOBS "fail_page_alloc/ignore-gfp-highmem", "N" },
	{ KNOBS "fail_page_alloc/min-order", "0" },
	{ KNOBS "fail_page_alloc/verbose", "0" },
	{ KNOBS "fail_page_alloc/times", NULL },
	{ KNOBS "fail_usercopy/verbose", "0" },
	{ KNOBS "fail_usercopy/times", NULL },
};

struct saved_knobs {
	char text[ARRAY_SIZE(knobs)][32];
	int alive;
	pid_t guard;
	bool spared;
};

static void knob_read(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	n = fd < 0 ? -1 : read(fd, text, size - 1);
	text[n < 0 ? 0 : n] = 0;
	if (fd >= 0)
		close(fd);
}

static bool knob_write(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool done = fd >= 0 && write(fd, text, strlen(text)) > 0;

	if (fd >= 0)
		close(fd);
	return done;
}

/*
 * kmemleak allocates an object of its own for each allocation, and has a reserve if it
 * cannot: to make that fail shows nothing. Let all caches but its own fail there, or, if
 * that cannot be, all of them.
 */
static bool spare_kmemleak(void)
{
	char path[PATH_MAX];
	struct dirent *entry;
	bool done = true;
	DIR *dir;

	if (access(CACHES "kmemleak_object", F_OK))
		return false;
	dir = opendir(CACHES);
	if (!dir)
		return false;
	while (done && (entry = readdir(dir))) {
		if (entry->d_name[0] == '.' ||
		    !strncmp(entry->d_name, "kmemleak_", 9))
			continue;
		snprintf(path, sizeof(path), CACHES "%s/failslab", entry->d_name);
		done = knob_write(path, "1");
	}
	closedir(dir);
	return done && knob_write(KNOBS "failslab/cache-filter", "Y");
}

static void knobs_set(struct saved_knobs *saved)
{
	int fds[2];
	size_t i;
	char c;

	for (i = 0; i < ARRAY_SIZE(knobs); i++)
		knob_read(knobs[i].path, saved->text[i],
			  sizeof(saved->text[i]));
	MUST(pipe2(fds, O_CLOEXEC) ? -errno : 0);
	saved->alive = fds[1];
	saved->guard = fork();
	MUST(saved->guard < 0 ? -errno : 0);
	if (!saved->guard) {
		setsid();
		close(fds[1]);
		while (read(fds[0], &c, 1) < 0 && errno == EINTR)
			;
		for (i = 0; i < ARRAY_SIZE(knobs); i++)
			if (saved->text[i][0])
				knob_write(knobs[i].path, saved->text[i]);
		_exit(0);
	}
	close(fds[0]);
	for (i = 0; i < ARRAY_SIZE(knobs); i++)
		if (saved->text[i][0] && knobs[i].value)
			MUST(knob_write(knobs[i].path, knobs[i].value) ?
			     0 : -EIO);
	saved->spared = spare_kmemleak();
}

static void knobs_restore(struct saved_knobs *saved)
{
	close(saved->alive);
	wait_status(saved->guard);
}

/*
 * Running
 */

/* The peers that watch what their users have. */
#define N_WATCHERS	3

FIXTURE(fault) {
	struct world w;
	int nth_fd;
	int watchers[N_WATCHERS];
	char watched[TEXT_SIZE], before[TEXT_SIZE], after[TEXT_SIZE];
	/* what is told if the call succeeds, and if it was not made at all */
	char done[TEXT_SIZE], left[TEXT_SIZE], skipped[TEXT_SIZE];
	char told[TEXT_SIZE];
	struct parameters parameters;
	struct saved_knobs knobs;
	struct sums *sums;
};

FIXTURE_VARIANT(fault) {
	const char *name;
	const struct scenario *scenarios;
};

#define FAULT_VARIANT(_name, _text)					\
	FIXTURE_VARIANT_ADD(fault, _name) {				\
		.name = _text, .scenarios = _name##_scenarios,		\
	}

FAULT_VARIANT(open, "open");
FAULT_VARIANT(query, "PEER_QUERY");
FAULT_VARIANT(reset, "PEER_RESET");
FAULT_VARIANT(disconnect, "PEER_DISCONNECT, close");
FAULT_VARIANT(handle_release, "HANDLE_RELEASE");
FAULT_VARIANT(handle_transfer, "HANDLE_TRANSFER");
FAULT_VARIANT(nodes_destroy, "NODES_DESTROY");
FAULT_VARIANT(slice_release, "SLICE_RELEASE");
FAULT_VARIANT(send, "SEND");
FAULT_VARIANT(multicast, "SEND to many");
FAULT_VARIANT(recv, "RECV");
FAULT_VARIANT(recv_release, "RECV that releases");
FAULT_VARIANT(send_recv, "SEND_RECV");
FAULT_VARIANT(poll, "poll, epoll, fdinfo");
FAULT_VARIANT(mmap, "mmap");

#define ME	FIXTURE_DATA(fault)

static int nth_open(void)
{
	return open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
}

static void watch(ME *self, char *text)
{
	size_t n = 0;
	int i;

	for (i = 0; i < N_WATCHERS; i++) {
		fdinfo_text(self->watchers[i], text + n, TEXT_SIZE - n);
		n += strlen(text + n);
	}
	sprintf(text + n, "next descriptor %d\n", next_fd());
}

FIXTURE_SETUP(fault)
{
	int i;

	PARAMETERS_SAVE(&self->parameters);
	knobs_set(&self->knobs);
	arenas_init();
	self->sums = shared_alloc(sizeof(*self->sums));
	ASSERT_NE(NULL, self->sums);
	pattern_fill(payload, sizeof(payload), 7);
	self->nth_fd = nth_open();
	for (i = 0; i < N_WATCHERS; i++)
		self->watchers[i] = MUST(bus1_open_as(world_uid(i), 0));
	watch(self, self->watched);
	/* Page faults of this process itself are not what shall fail. */
	ASSERT_EQ(0, mlockall(MCL_CURRENT));
}

FIXTURE_TEARDOWN(fault)
{
	int i;

	for (i = 0; i < N_WATCHERS; i++)
		close(self->watchers[i]);
	if (self->nth_fd >= 0)
		close(self->nth_fd);
	knobs_restore(&self->knobs);
	parameters_restore(&self->parameters);
}

static void begin(ME *self, const struct scenario *s)
{
	struct world *w = &self->w;

	if (s->pool_pages)
		MUST(parameter_set(POOL_SIZE_MAX, s->pool_pages * PAGE));
	world_init(w, s->n_peers, self->nth_fd);
	if (s->pool_pages)
		MUST(parameter_set(POOL_SIZE_MAX,
				   self->parameters.saved[POOL_SIZE_MAX]));
	if (s->prepare)
		s->prepare(w);
}

/* Whatever was in the world is gone with it. */
static bool end(ME *self)
{
	world_deinit(&self->w);
	watch(self, self->after);
	return same_text(self->watched, self->after);
}

/* Tells all there is, and how it ends. */
static bool finish(ME *self, char *story)
{
	tell_all(&self->w);
	strcpy(story, self->w.story);
	return end(self);
}

/* Tells how it should be: with the call, without the call, or for all but one. */
static void rehearse(ME *self, const struct scenario *s, bool run, int skip,
		     char *story)
{
	begin(self, s);
	self->w.skip = skip;
	if (run)
		MUST(s->run(&self->w));
	MUST(finish(self, story) ? 0 : -EPROTO);
}

static bool is_expected(const struct scenario *s, int r)
{
	size_t i;

	for (i = 0; i < ERRORS_MAX; i++)
		if (s->errors[i] && r == -s->errors[i])
			return true;
	return false;
}

/* Makes the call. If it fails, nothing may have happened. */
static int try_faulty(ME *self, const struct scenario *s, struct fault *fault)
{
	struct world *w = &self->w;
	int r;

	world_state(w, self->before);
	w->fault = *fault;
	r = s->run(w);
	*fault = w->fault;
	w->fault.kind = FAULT_NONE;
	if (!r)
		return 0;
	world_state(w, self->after);
	return same_text(self->before, self->after) ? r : -EPROTO;
}

enum outcome { BAD = 1, GOOD, GOOD_END };

/* The nth of all that can fail does. Then call again, or look what there is. */
static enum outcome nth_once(ME *self, const struct scenario *s, unsigned int n,
			     bool again)
{
	struct fault fault = { .kind = FAULT_NTH, .n = n };
	const char *expected = self->done;
	bool good = true;
	int r, skipped;

	begin(self, s);
	r = try_faulty(self, s, &fault);
	skipped = self->w.skipped;
	if (fault.hit)
		sums_count(self->sums, r);
	if (r && (!fault.hit || !is_expected(s, r))) {
		printf("# the call: %s\n", strerror(-r));
		good = false;
	}
	if (r && again) {
		r = s->run(&self->w);
		if (r) {
			printf("# the same once more: %s\n", strerror(-r));
			good = false;
		}
	}
	good = finish(self, self->told) && good;
	if (r) {
		expected = self->left;
	} else if (skipped >= 0) {
		rehearse(self, s, true, skipped, self->skipped);
		expected = self->skipped;
	}
	good = same_text(expected, self->told) && good;
	return !good ? BAD : fault.hit ? GOOD : GOOD_END;
}

static enum outcome nth_fork(ME *self, const struct scenario *s, unsigned int n,
			     bool again)
{
	int status;
	pid_t pid;

	if (!s->fork)
		return nth_once(self, s, n, again);

	fflush(stdout);
	pid = fork();
	MUST(pid < 0 ? -errno : 0);
	if (!pid) {
		MUST(mlockall(MCL_CURRENT) ? -errno : 0);
		close(self->nth_fd);
		self->nth_fd = MUST(nth_open());
		status = nth_once(self, s, n, again);
		fflush(stdout);
		_exit(status);
	}
	status = wait_status(pid);
	return WIFEXITED(status) ? WEXITSTATUS(status) : BAD;
}

static bool nth_all(ME *self, const struct scenario *s)
{
	enum outcome outcome = GOOD;
	unsigned int n;

	for (n = 1; outcome == GOOD; n++) {
		outcome = nth_fork(self, s, n, true);
		if (outcome != BAD && nth_fork(self, s, n, false) == BAD)
			outcome = BAD;
	}
	if (outcome == BAD)
		printf("# '%s' with fail-nth %u\n", s->name, n - 1);
	return outcome != BAD;
}

/*
 * Where to cut objects: everywhere, but not in the midst of long ones. On slow kernels
 * at every third byte, and at the last.
 */
static size_t next_cut(size_t at, size_t size, bool all)
{
	size_t step = scaled_rounds(5) < 5 ? 3 : 1;

	if (!all)
		return at + size / 2 + 1;
	if (at >= 32 && at + 32 < size)
		return at + 97;
	if (at + 1 < size && at + step >= size)
		return size - 1;
	return at + step;
}

static bool cut_at(ME *self, const struct scenario *s, struct fault fault)
{
	int r = try_faulty(self, s, &fault);

	self->sums->cuts++;
	if (fault.hit && r == -EFAULT)
		return true;
	printf("# '%s' with object %d cut at %zu, kind %d: %s\n", s->name,
	       fault.object, fault.offset, fault.kind, strerror(-r));
	return false;
}

static bool cut_object(ME *self, const struct scenario *s, int i,
		       const struct object *object, bool all)
{
	struct fault fault = { .object = i };
	bool good = true;
	size_t at;

	for (at = 0; good && at < object->size; at = next_cut(at, object->size,
							      all)) {
		fault.offset = at;
		fault.kind = FAULT_TAIL;
		good = cut_at(self, s, fault);
		fault.kind = FAULT_READONLY;
		if (good && object->mode != OBJECT_IN)
			good = cut_at(self, s, fault);
		fault.kind = FAULT_HEAD;
		fault.offset = at + 1;
		if (good && at % 4 == 3)
			good = cut_at(self, s, fault);
	}
	return good;
}

/* Nothing happens however often, and then all of it. */
static bool cut_all(ME *self, const struct scenario *s, bool again)
{
	struct object objects[WORLD_OBJECTS];
	struct world *w = &self->w;
	bool good = true;
	int i, n;

	begin(self, s);
	MUST(s->run(w));
	n = w->n_objects;
	memcpy(objects, w->objects, sizeof(objects));
	MUST(end(self) ? 0 : -EPROTO);

	begin(self, s);
	for (i = 0; good && i < n; i++)
		good = cut_object(self, s, i, &objects[i], again);
	if (again && s->run(w)) {
		printf("# '%s' fails at last\n", s->name);
		good = false;
	}
	good = finish(self, self->told) && good;
	return same_text(again ? self->done : self->left, self->told) && good;
}

static bool limit_all(ME *self, const struct scenario *s, bool again)
{
	struct fault fault = { .kind = FAULT_LIMIT };
	bool good = true;
	int r = 0;

	begin(self, s);
	for (; good && fault.n < s->n_fds; fault.n++) {
		r = try_faulty(self, s, &fault);
		good = r == -EMFILE;
		self->sums->limits++;
	}
	if (again) {
		r = try_faulty(self, s, &fault);
		good = !r && good;
	}
	if (!good)
		printf("# '%s' with %u descriptors: %s\n", s->name,
		       fault.n, strerror(-r));
	good = finish(self, self->told) && good;
	return same_text(again ? self->done : self->left, self->told) && good;
}

TEST_F(fault, everything_in_the_kernel)
{
	const struct scenario *s;

	if (self->nth_fd < 0)
		SKIP(return, "no /proc/thread-self/fail-nth: no fault injection");
	if (self->knobs.spared)
		printf("# allocations of kmemleak do not fail\n");

	for (s = variant->scenarios; s->name; s++) {
		rehearse(self, s, true, -1, self->done);
		rehearse(self, s, false, -1, self->left);
		EXPECT_TRUE(nth_all(self, s)) {
			TH_LOG("%s: %s", variant->name, s->name);
		}
	}
	sums_end(variant->name, self->sums);
}

TEST_F(fault, memory_of_the_caller)
{
	const struct scenario *s;

	for (s = variant->scenarios; s->name; s++) {
		if (s->fork)
			continue;
		rehearse(self, s, true, -1, self->done);
		rehearse(self, s, false, -1, self->left);
		EXPECT_TRUE(cut_all(self, s, true));
		EXPECT_TRUE(cut_all(self, s, false));
	}
	sums_end(variant->name, self->sums);
}

TEST_F(fault, descriptors_of_the_caller)
{
	const struct scenario *s;

	for (s = variant->scenarios; s->name; s++) {
		if (s->fork)
			continue;
		rehearse(self, s, true, -1, self->done);
		rehearse(self, s, false, -1, self->left);
		EXPECT_TRUE(limit_all(self, s, true));
		EXPECT_TRUE(limit_all(self, s, false));
	}
	sums_end(variant->name, self->sums);
}

FIXTURE(sum) {};
FIXTURE_SETUP(sum) {}
FIXTURE_TEARDOWN(sum) {}

TEST_F(sum, something_was_survived)
{
	sums_print("total", total);
	EXPECT_LT(0, total->cuts + total->limits + sums_injected(total));
}

TEST_HARNESS_MAIN
