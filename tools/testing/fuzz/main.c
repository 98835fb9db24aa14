// SPDX-License-Identifier: GPL-2.0-only
/*
 * bus1-fuzz run SECONDS PROCESSES SEED [FILE...]
 *	Run the programs of the files, then new ones made of them, in so many
 *	processes. Programs that reach new code are printed at the end.
 *
 * bus1-fuzz replay TIMES [FILE...]
 *	Run the programs of the files, so many times.
 *
 * bus1-fuzz sweep [FILE...]
 *	Run each program of one thread with each point that can fail in each of its
 *	calls failing in turn.
 *
 * bus1-fuzz distill [FILE...]
 *	Print the programs that are needed to reach what all of them reach.
 *
 * bus1-fuzz load MODULE
 *	Load the module with each allocation failing in turn.
 *
 * bus1-fuzz check [FILE...]
 *	Only read the files, and see whether what is written can be read.
 *
 * bus1-fuzz extract FILE
 *	Print what was running, and what ran before, from the memory of a machine.
 *
 * Something that should not be is printed as "FINDING: ...", with the program.
 */
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "fuzz.h"

#define STATUS_SECONDS	10
#define CHECK_SECONDS	30	/* from one look at what is left over to the next */
#define SETTLE_SECONDS	30	/* until what is freed late must be free */
#define HANG_SECONDS	60	/* without any progress of a process */
#define MAX_FINDINGS	20
#define MAX_SWEEP	200	/* points of one call */

struct shared *shared;

static unsigned int n_procs = 4;
static unsigned int n_loaded;
static pid_t pids[MAX_PROCS];
static struct process process;

static uint64_t now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

static void pause_ms(unsigned int ms)
{
	struct timespec ts = { ms / 1000, ms % 1000 * 1000000 };

	nanosleep(&ts, NULL);
}

static bool write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	bool ok;

	if (fd < 0)
		return false;
	ok = write(fd, text, strlen(text)) >= 0;
	close(fd);
	return ok;
}

/* Print as one piece. */
static void print_locked(const char *text)
{
	while (atomic_flag_test_and_set(&shared->printing))
		sched_yield();
	fputs(text, stdout);
	fflush(stdout);
	atomic_flag_clear(&shared->printing);
}

void finding(const char *fmt, ...)
{
	char *text = NULL, *what = NULL;
	size_t size;
	va_list args;
	FILE *f;

	if (atomic_fetch_add(&shared->findings, 1) >= MAX_FINDINGS)
		return;
	va_start(args, fmt);
	if (vasprintf(&what, fmt, args) < 0)
		what = NULL;
	va_end(args);
	f = open_memstream(&text, &size);
	fprintf(f, "FINDING: %s\n", what ?: "?");
	if (self)
		prog_print(&self->process->prog, f);
	fclose(f);
	print_locked(text);
	free(text);
	free(what);
}

/* Corpus */

static bool add_to_corpus(const struct prog *prog, bool is_new, uint64_t cost)
{
	unsigned int i = atomic_fetch_add(&shared->n_corpus, 1);

	if (i >= MAX_CORPUS) {
		atomic_store(&shared->n_corpus, MAX_CORPUS);
		return false;
	}
	shared->corpus[i].prog = *prog;
	shared->corpus[i].is_new = is_new;
	atomic_store(&shared->corpus[i].cost, cost);
	atomic_store(&shared->corpus[i].ready, true);
	return true;
}

static bool load_file(const char *name)
{
	struct prog prog;
	unsigned int line = 0;
	FILE *f;
	int r;

	f = fopen(name, "re");
	if (!f) {
		perror(name);
		return false;
	}
	while ((r = prog_parse(&prog, f, name, &line)) > 0)
		add_to_corpus(&prog, false, 0);
	fclose(f);
	return !r;
}

static bool load_files(char **names)
{
	for (; *names; ++names) {
		if (!load_file(*names))
			return false;
	}
	n_loaded = atomic_load(&shared->n_corpus);
	return true;
}

/*
 * Any program, but those that take long the more rarely, so that each gets about the
 * same time.
 */
static const struct prog *pick(struct process *p)
{
	unsigned int n = atomic_load(&shared->n_corpus), tries;
	struct corpus_entry *e = NULL;
	uint64_t cost;

	if (!n)
		return NULL;
	if (n > MAX_CORPUS)
		n = MAX_CORPUS;
	for (tries = 0; tries < 16; ++tries) {
		e = &shared->corpus[rnd(&p->rng, n)];
		if (!atomic_load(&e->ready))
			continue;
		cost = atomic_load(&e->cost) / (p->usual_cost + 1);
		if (cost < 2 || one_in(&p->rng, cost > 1 << 20 ? 1 << 20 : cost))
			return &e->prog;
	}
	return NULL;
}

/* Does the program show the same again? */
static unsigned int probe(struct process *p, const struct prog *prog,
			  const struct signals *want)
{
	cover_probe(p, want);
	exec_run(p, prog);
	return cover_probe_end(p);
}

/* Keep what is new of a program, without the calls that do not matter. */
static void learn(struct process *p, const struct prog *prog)
{
	struct signals want = p->fresh;
	struct prog best = *prog, less;
	unsigned int n, m, i;
	uint64_t cost;

	n = probe(p, &best, &want);
	cost = p->cost;
	m = probe(p, &best, &want);
	if (m < n)
		n = m;
	/* What threads show by chance is not worth much, but it is not nothing. */
	if (!n) {
		if (prog_is_threaded(prog) && one_in(&p->rng, 8))
			add_to_corpus(prog, true, p->cost);
		return;
	}
	for (i = best.n_calls; i-- > 0 && best.n_calls > 1; ) {
		less = best;
		prog_remove(&less, i);
		if (probe(p, &less, &want) < n)
			continue;
		best = less;
		cost = p->cost;
	}
	add_to_corpus(&best, true, cost);
}

/* Processes */

static void park(struct process *p)
{
	(void)p;
	atomic_fetch_add(&shared->parked, 1);
	while (atomic_load(&shared->pause) && !atomic_load(&shared->stop))
		pause_ms(5);
	atomic_fetch_sub(&shared->parked, 1);
}

static void start_process(unsigned int index, uint64_t seed)
{
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	process.rng.s = seed * 0x9e3779b97f4a7c15ULL + index + 1;
	process.use_mail = index % 2 == 1;
	if (!exec_init(&process, index)) {
		finding("cannot start process %u", index);
		_exit(1);
	}
}

static void replay_share(struct process *p, unsigned int index)
{
	unsigned int i;

	for (i = index; i < n_loaded && !atomic_load(&shared->stop); i += n_procs) {
		exec_run(p, &shared->corpus[i].prog);
		atomic_store(&shared->corpus[i].cost, p->cost);
		if (atomic_load(&shared->pause))
			park(p);
	}
}

static void fuzz(unsigned int index, uint64_t seed)
{
	struct process *p = &process;
	const struct prog *from, *other;
	struct prog prog;

	start_process(index, seed);
	replay_share(p, index);
	while (!atomic_load(&shared->stop)) {
		if (atomic_load(&shared->pause))
			park(p);
		from = pick(p);
		if (!from || one_in(&p->rng, 5)) {
			prog_generate(&prog, &p->rng);
		} else {
			prog = *from;
			other = pick(p);
			prog_mutate(&prog, other ?: from, &p->rng);
		}
		exec_run(p, &prog);
		if (p->fresh.n)
			learn(p, &prog);
	}
	_exit(0);
}

static void replay(unsigned int index, unsigned int times)
{
	start_process(index, 1);
	while (times-- && !atomic_load(&shared->stop))
		replay_share(&process, index);
	_exit(0);
}

static void sweep_share(struct process *p, unsigned int index)
{
	unsigned int i, k, n;
	struct prog prog;
	uint64_t before;

	for (i = index; i < n_loaded; i += n_procs) {
		prog = shared->corpus[i].prog;
		if (prog_is_threaded(&prog))
			continue;
		for (k = 0; k < prog.n_calls; ++k) {
			for (n = 1; n < MAX_SWEEP && !atomic_load(&shared->stop); ++n) {
				before = atomic_load(&shared->injected[index]);
				prog.calls[k].fail = n;
				exec_run(p, &prog);
				if (atomic_load(&shared->injected[index]) == before)
					break;
			}
			prog.calls[k].fail = shared->corpus[i].prog.calls[k].fail;
		}
	}
}

static void sweep(unsigned int index)
{
	start_process(index, 1);
	sweep_share(&process, index);
	_exit(0);
}

/* What is left over when everything is closed */

static unsigned long slab_objects(char *text, size_t size)
{
	unsigned long n, total = 0;
	char line[512], name[64], path[128];
	FILE *f = fopen("/proc/slabinfo", "re");

	text[0] = 0;
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63s %lu", name, &n) != 2 ||
		    strncmp(name, "bus1", 4))
			continue;
		/* What a CPU keeps at hand counts as used. */
		snprintf(path, sizeof(path), "/sys/kernel/slab/%s/shrink", name);
		write_file(path, "1");
		if (n)
			snprintf(text + strlen(text), size - strlen(text), " %s=%lu",
				 name, n);
		total += n;
	}
	if (f)
		fclose(f);
	return total;
}

static void empty_mail(void)
{
	char byte;

	/* Descriptors that nobody asks for are closed. */
	while (recv(mail[1], &byte, 1, MSG_DONTWAIT) >= 0)
		;
}

static void check_left_over(void)
{
	uint64_t end = now_ms() + SETTLE_SECONDS * 1000;
	char text[512];
	unsigned int i;

	empty_mail();
	while (slab_objects(text, sizeof(text))) {
		if (now_ms() > end) {
			finding("left over:%s", text);
			break;
		}
		pause_ms(20);
	}
	for (i = 0; i < n_procs * 4; ++i) {
		if (!state_user_is_empty(1000 + i, text, sizeof(text)))
			finding("%s", text);
	}
}

/* Watching */

static uint64_t total(_Atomic uint64_t *counts)
{
	uint64_t n = 0;
	unsigned int i;

	for (i = 0; i < n_procs; ++i)
		n += atomic_load(&counts[i]);
	return n;
}

static void print_status(uint64_t start)
{
	uint64_t ms = now_ms() - start, progs = total(shared->progs);
	uint64_t calls = total(shared->calls);
	char text[320];

	snprintf(text, sizeof(text),
		 "fuzz: %llu s: %llu executions (%llu/s), %llu with threads, %llu calls (%llu/s), %llu sent, %llu received, %llu injected failures, %u points, %u signals, corpus %u\n",
		 (unsigned long long)ms / 1000, (unsigned long long)progs,
		 (unsigned long long)(progs * 1000 / (ms + 1)),
		 (unsigned long long)total(shared->threaded),
		 (unsigned long long)calls,
		 (unsigned long long)(calls * 1000 / (ms + 1)),
		 (unsigned long long)total(shared->sent),
		 (unsigned long long)total(shared->received),
		 (unsigned long long)total(shared->injected),
		 atomic_load(&shared->n_pcs), atomic_load(&shared->n_signals),
		 atomic_load(&shared->n_corpus));
	print_locked(text);
}

/* The address space of pools decides whether EXFULL or EDQUOT comes first. */
static void set_pool_size(bool large)
{
	write_file("/sys/module/bus1/parameters/pool_size_max",
		   large ? "4294967296" : "262144");
}

static void print_box(unsigned int proc, FILE *f)
{
	unsigned int i;
	struct box *box;

	for (i = 0; i < N_BOXES; ++i) {
		box = &shared->boxes[proc][i];
		if (box->running)
			prog_print(&box->prog, f);
	}
}

/* What a process was running that does not answer any more. */
static void report(unsigned int proc, const char *what, int how)
{
	char *text = NULL;
	size_t size;
	FILE *f;

	atomic_fetch_add(&shared->findings, 1);
	f = open_memstream(&text, &size);
	fprintf(f, "FINDING: process %u %s (%#x)\n", proc, what, how);
	print_box(proc, f);
	fclose(f);
	print_locked(text);
	free(text);
}

static unsigned int reap(void)
{
	unsigned int i, alive = 0;
	int status;

	for (i = 0; i < n_procs; ++i) {
		if (pids[i] <= 0)
			continue;
		if (waitpid(pids[i], &status, WNOHANG) == pids[i]) {
			if (!WIFEXITED(status) || WEXITSTATUS(status))
				report(i, "ended", status);
			pids[i] = 0;
		} else {
			++alive;
		}
	}
	return alive;
}

static void pause_and_check(void)
{
	uint64_t end = now_ms() + HANG_SECONDS * 1000;

	atomic_store(&shared->pause, true);
	while (atomic_load(&shared->parked) < reap() &&
	       now_ms() < end && !atomic_load(&shared->stop))
		pause_ms(1);
	if (atomic_load(&shared->parked) == reap())
		check_left_over();
	atomic_store(&shared->pause, false);
}

static void watch(uint64_t start, unsigned int seconds)
{
	uint64_t seen[MAX_PROCS] = { 0 }, since[MAX_PROCS], n, next, check;
	unsigned int i, round = 0;

	for (i = 0; i < n_procs; ++i)
		since[i] = start;
	next = start + STATUS_SECONDS * 1000;
	check = start + CHECK_SECONDS * 1000;
	while (reap()) {
		/* To switch to another process takes time from it that it needs. */
		pause_ms(seconds ? 250 : 50);
		for (i = 0; i < n_procs; ++i) {
			n = atomic_load(&shared->progs[i]);
			if (n != seen[i] || !pids[i]) {
				seen[i] = n;
				since[i] = now_ms();
			} else if (now_ms() - since[i] > HANG_SECONDS * 1000) {
				/* The stacks are in the kernel's log. */
				write_file("/proc/sysrq-trigger", "t");
				report(i, "hangs", 0);
				return;
			}
		}
		if (now_ms() >= next) {
			print_status(start);
			next += STATUS_SECONDS * 1000;
		}
		if (seconds && now_ms() >= check && !atomic_load(&shared->stop)) {
			pause_and_check();
			set_pool_size(++round % 2);
			check = now_ms() + CHECK_SECONDS * 1000;
			for (i = 0; i < n_procs; ++i)
				since[i] = now_ms();
		}
		if ((seconds && now_ms() - start >= seconds * 1000ULL) ||
		    atomic_load(&shared->findings) >= MAX_FINDINGS)
			atomic_store(&shared->stop, true);
	}
}

/* Let calls fail that wait for memory, too, and do so silently. */
static void set_up_faults(void)
{
	static const char *const names[] = { "failslab", "fail_page_alloc",
					     "fail_usercopy" };
	char path[128];
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(names); ++i) {
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/verbose", names[i]);
		write_file(path, "0");
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/ignore-gfp-wait",
			 names[i]);
		write_file(path, "N");
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/ignore-gfp-highmem",
			 names[i]);
		write_file(path, "N");
		snprintf(path, sizeof(path), "/sys/kernel/debug/%s/min-order", names[i]);
		write_file(path, "0");
	}
}

static void set_up(void)
{
	struct rlimit limit = { 4096, 65536 };

	setrlimit(RLIMIT_NOFILE, &limit);
	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, mail))
		perror("socketpair");
	set_up_faults();
}

static void print_new(void)
{
	unsigned int i, n = atomic_load(&shared->n_corpus);

	for (i = 0; i < n && i < MAX_CORPUS; ++i) {
		if (!shared->corpus[i].is_new)
			continue;
		printf("@program\n");
		prog_print(&shared->corpus[i].prog, stdout);
	}
	printf("@programs end\n");
}

static int run(char mode, unsigned int count, uint64_t seed)
{
	unsigned int i, seconds = mode == 'f' ? count : 0;
	uint64_t start = now_ms();

	set_up();
	for (i = 0; i < n_procs; ++i) {
		fflush(stdout);
		pids[i] = fork();
		if (pids[i])
			continue;
		if (mode == 'f')
			fuzz(i, seed);
		if (mode == 's')
			sweep(i);
		replay(i, count);
	}
	watch(start, seconds);
	if (!reap())
		check_left_over();
	set_pool_size(true);
	print_status(start);
	if (mode == 'f')
		print_new();
	printf("fuzz: %u findings\n", atomic_load(&shared->findings));
	return atomic_load(&shared->findings) ? 1 : 0;
}

static int by_size(const void *a, const void *b)
{
	const struct corpus_entry *x = a, *y = b;

	return (int)x->prog.n_calls - (int)y->prog.n_calls;
}

/* Calls of 32-bit programs cannot show here what they are for. */
static bool is_beyond(const struct prog *prog)
{
	unsigned int i;

	for (i = 0; i < prog->n_calls && !process.has_compat; ++i) {
		if (prog->calls[i].compat)
			return true;
	}
	return false;
}

/* The short ones first: keep each that shows something more. */
static int distill(void)
{
	unsigned int i, kept = 0;

	set_up();
	start_process(0, 1);
	qsort(shared->corpus, n_loaded, sizeof(shared->corpus[0]), by_size);
	for (i = 0; i < n_loaded; ++i) {
		unsigned int n_pcs = atomic_load(&shared->n_pcs);

		exec_run(&process, &shared->corpus[i].prog);
		/* A single step that is new is worth no place in a repository. */
		if (process.fresh.n < 4 && n_pcs == atomic_load(&shared->n_pcs) &&
		    !is_beyond(&shared->corpus[i].prog))
			continue;
		printf("@program\n");
		prog_print(&shared->corpus[i].prog, stdout);
		++kept;
	}
	printf("@programs end\n");
	printf("fuzz: %u of %u programs, %u points\n", kept, n_loaded,
	       atomic_load(&shared->n_pcs));
	printf("fuzz: %u findings\n", atomic_load(&shared->findings));
	return atomic_load(&shared->findings) ? 1 : 0;
}

/* Load the module with the n-th allocation failing, until none is left to fail. */
static int load_module(const char *path)
{
	unsigned int n, failed = 0;
	int fd, fail, r, e = 0;
	char text[16];

	set_up_faults();
	fd = open(path, O_RDONLY | O_CLOEXEC);
	fail = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (fd < 0 || fail < 0) {
		perror(path);
		return 1;
	}
	for (n = 1; n < 20000; ++n) {
		snprintf(text, sizeof(text), "%u", n);
		pwrite(fail, text, strlen(text), 0);
		r = syscall(SYS_finit_module, fd, "", 0);
		e = r ? errno : 0;
		memset(text, 0, sizeof(text));
		pread(fail, text, sizeof(text) - 1, 0);
		pwrite(fail, "0", 1, 0);
		if (!r && syscall(SYS_delete_module, "bus1", O_NONBLOCK)) {
			perror("delete_module");
			return 1;
		}
		/* It was not used up: there are no more. */
		if (atoi(text))
			break;
		++failed;
	}
	printf("fuzz: loading survived %u injected failures\n", failed);
	return e || !failed;
}

/* On the host: find the boxes in the memory of the machine, one page each. */
static int extract(const char *path)
{
	struct stat st;
	const char *mem;
	const struct box *box;
	uint64_t newest[MAX_PROCS] = { 0 };
	unsigned int found = 0, pass;
	off_t at;
	int fd;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st)) {
		perror(path);
		return 1;
	}
	mem = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (mem == MAP_FAILED) {
		perror(path);
		return 1;
	}
	for (pass = 0; pass < 3; ++pass) {
		for (at = 0; at + (off_t)sizeof(*box) <= st.st_size; at += 4096) {
			box = (const struct box *)(mem + at);
			if (memcmp(box->magic, BOX_MAGIC, sizeof(box->magic)) ||
			    box->proc >= MAX_PROCS || box->prog.n_calls > MAX_CALLS)
				continue;
			if (!pass) {
				if (box->number > newest[box->proc])
					newest[box->proc] = box->number;
				continue;
			}
			/* What was running comes first, then what ran before. */
			if ((pass == 1) != (box->running && box->number ==
					    newest[box->proc]))
				continue;
			++found;
			printf("# process %u, program %llu%s\n", box->proc,
			       (unsigned long long)box->number,
			       pass == 1 ? ", was running" : "");
			prog_print(&box->prog, stdout);
		}
	}
	return !found;
}

/* What is written of a program is the program: or else no finding can be run again. */
static int check_text(void)
{
	struct prog prog, other, copy;
	struct rng r = { 1 };
	unsigned int i, line;
	char *a, *b;
	size_t size;
	FILE *f;

	prog_generate(&other, &r);
	for (i = 0; i < 5000; ++i) {
		prog_generate(&prog, &r);
		prog_mutate(&prog, &other, &r);
		other = prog;
		f = open_memstream(&a, &size);
		prog_print(&prog, f);
		fclose(f);
		line = 0;
		f = fmemopen(a, size, "r");
		if (prog_parse(&copy, f, "generated", &line) != 1)
			return 1;
		fclose(f);
		f = open_memstream(&b, &size);
		prog_print(&copy, f);
		fclose(f);
		if (strcmp(a, b)) {
			fprintf(stderr, "written:\n%sread:\n%s", a, b);
			return 1;
		}
		free(a);
		free(b);
	}
	return 0;
}

static int usage(void)
{
	fprintf(stderr, "usage: bus1-fuzz run|replay|sweep|distill|load|check|extract ...\n");
	return 2;
}

int main(int argc, char **argv)
{
	const char *mode = argc > 1 ? argv[1] : "";

	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE,
		      MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	if (shared == MAP_FAILED) {
		perror("mmap");
		return 1;
	}
	if (!strcmp(mode, "extract") && argc == 3)
		return extract(argv[2]);
	if (!strcmp(mode, "load") && argc == 3)
		return load_module(argv[2]);
	if (!strcmp(mode, "check"))
		return !load_files(argv + 2) || check_text();
	if (!strcmp(mode, "distill"))
		return load_files(argv + 2) ? distill() : 1;
	if (!strcmp(mode, "replay") && argc >= 3) {
		if (!load_files(argv + 3))
			return 1;
		return run('r', atoi(argv[2]), 1);
	}
	if (!strcmp(mode, "sweep"))
		return load_files(argv + 2) ? run('s', 0, 1) : 1;
	if (!strcmp(mode, "run") && argc >= 5) {
		n_procs = atoi(argv[3]);
		if (n_procs < 1 || n_procs > MAX_PROCS)
			return usage();
		if (!load_files(argv + 5))
			return 1;
		return run('f', atoi(argv[2]), strtoull(argv[4], NULL, 0));
	}
	return usage();
}
