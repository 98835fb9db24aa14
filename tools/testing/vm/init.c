// SPDX-License-Identifier: GPL-2.0-only
/*
 * The first and only process of a test machine.
 *
 * It reads /plan, one step a line, and does one after the other:
 *
 *	load FILE		load a module
 *	builtin			instead of load: it is part of the kernel
 *	try FILE		load a module, it is all right if that fails
 *	slack KB		so much memory may be missing at the end
 *	kunit			print the results of unit tests, which ran when the module
 *				was loaded; it is a failure if there are none
 *	env NAME VALUE		set a variable for the programs that follow
 *	test SECONDS NAME PATH [ARGUMENT...]
 *				run a test program
 *	or SECONDS NAME PATH [ARGUMENT...]
 *				the same, but only if all have passed since the last
 *				`test', that one included
 *	demo SECONDS PATH [ARGUMENT...]
 *				run a program; what it prints is left as it is
 *	unload			unload the module, whatever state it is in
 *	shell			run a shell on the second serial port
 *	finish			prove that nothing is left over, unload the module
 *
 * Three serial ports keep apart what must not be mixed: the first is the
 * kernel's log, on the second is what the programs print, and on the third the
 * verdict: one line a step, and "done" as the last. Where these two are not ttyS1
 * and ttyS2, OUTPUT= and VERDICT= on the kernel's command line name them.
 *
 * After each program everything is killed that it left running. As the first
 * process it inherits all orphans, so what can't be reaped then is stuck.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#define MODULE		"bus1"
#define KUNIT_RESULTS	"/sys/kernel/debug/kunit"
/* These are reached by what hangs only, however slow the machine is. */
#define REAP_MS		120000	/* until a killed process must be gone */
#define SETTLE_MS	120000	/* until what is freed late must be free */

static int output = -1;
static int verdict = -1;
static bool failed;	/* a program, since the last `test' */
static bool builtin;
static long memory_before;
static long memory_slack = 16 * 1024;

static long long now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000LL + ts.tv_nsec / 1000000;
}

/* Wait a little before a condition is tested again. */
static void pause_ms(int ms)
{
	poll(NULL, 0, ms);
}

static void write_all(int fd, const char *p, size_t n)
{
	ssize_t r;

	for (; n; p += r, n -= r) {
		r = write(fd, p, n);
		if (r < 0 && errno != EINTR)
			return;
		if (r < 0)
			r = 0;
	}
}

__attribute__((format(printf, 2, 3)))
static void say(int fd, const char *fmt, ...)
{
	char line[1024];
	va_list args;
	int n;

	va_start(args, fmt);
	n = vsnprintf(line, sizeof(line), fmt, args);
	va_end(args);
	if (n >= (int)sizeof(line))
		n = sizeof(line) - 1;
	write_all(fd, line, n);
}

static void write_file(const char *path, const char *text)
{
	int fd;

	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return;
	write_all(fd, text, strlen(text));
	close(fd);
}

/* A mark in the kernel's log tells which step a message belongs to. */
static void mark(const char *what, const char *name)
{
	char line[256];

	snprintf(line, sizeof(line), "<6>init: %s %s\n", what, name);
	write_file("/dev/kmsg", line);
}

static int open_port(const char *variable, const char *name)
{
	struct termios t;
	char path[64];
	int fd;

	/* What the kernel does not know becomes a variable of the first process. */
	if (getenv(variable))
		name = getenv(variable);
	snprintf(path, sizeof(path), "/dev/%s", name);
	unsetenv(variable);
	fd = open(path, O_RDWR | O_NOCTTY | O_CLOEXEC);
	if (fd >= 0 && !tcgetattr(fd, &t)) {
		cfmakeraw(&t);
		tcsetattr(fd, TCSANOW, &t);
	}
	return fd;
}

static void mount_all(void)
{
	static const struct {
		const char *type, *path;
	} mounts[] = {
		{ "devtmpfs", "/dev" },
		{ "proc", "/proc" },
		{ "sysfs", "/sys" },
		{ "tmpfs", "/tmp" },
		{ "tmpfs", "/dev/shm" },
		{ "devpts", "/dev/pts" },
		{ "mqueue", "/dev/mqueue" },
		{ "debugfs", "/sys/kernel/debug" },
		{ "tracefs", "/sys/kernel/tracing" },
		{ "cgroup2", "/sys/fs/cgroup" },
	};
	size_t i;

	for (i = 0; i < sizeof(mounts) / sizeof(*mounts); ++i) {
		mkdir(mounts[i].path, 0755);
		mount(mounts[i].type, mounts[i].path, mounts[i].type, 0, NULL);
	}
	chmod("/tmp", 01777);
	chmod("/dev/shm", 01777);

	symlink("/proc/self/fd", "/dev/fd");
	symlink("/proc/self/fd/0", "/dev/stdin");
	symlink("/proc/self/fd/1", "/dev/stdout");
	symlink("/proc/self/fd/2", "/dev/stderr");
	write_file("/proc/sys/kernel/hung_task_timeout_secs", "60");
	write_file("/proc/sys/kernel/hung_task_warnings", "-1");
	write_file("/sys/fs/cgroup/cgroup.subtree_control", "+memory +pids");
}

/* Pages that CPUs keep for themselves are free, but MemFree leaves them out. */
static long memory_free_per_cpu(void)
{
	char line[128];
	long n, pages = 0;
	FILE *f;

	f = fopen("/proc/zoneinfo", "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, " count: %ld", &n) == 1)
			pages += n;
	if (f)
		fclose(f);
	return pages * (sysconf(_SC_PAGESIZE) / 1024);
}

static long memory_free(void)
{
	char line[128];
	long kb = 0;
	FILE *f;

	sync();
	write_file("/proc/sys/vm/drop_caches", "3");
	f = fopen("/proc/meminfo", "re");
	while (f && fgets(line, sizeof(line), f))
		if (sscanf(line, "MemFree: %ld", &kb) == 1)
			break;
	if (f)
		fclose(f);
	return kb + memory_free_per_cpu();
}

static int load(const char *path)
{
	int fd, r;

	fd = open(path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = syscall(SYS_finit_module, fd, "", 0) ? -errno : 0;
	close(fd);
	return r;
}

/* Kill everything but this process, wait until it is gone. */
static bool kill_all(void)
{
	long long end = now_ms() + REAP_MS;
	pid_t pid;

	kill(-1, SIGKILL);
	do {
		pid = waitpid(-1, NULL, WNOHANG);
		if (pid < 0 && errno == ECHILD)
			return true;
		if (pid == 0) {
			kill(-1, SIGKILL);
			pause_ms(10);
		}
	} while (now_ms() < end);

	/* Show where in the kernel they hang. */
	write_file("/proc/sysrq-trigger", "w");
	return false;
}

static pid_t start(char **argv, int out, bool tty)
{
	char *slash, dir[256];
	pid_t pid;
	int in;

	pid = fork();
	if (pid)
		return pid;

	setsid();
	if (tty) {
		in = out;
		ioctl(out, TIOCSCTTY, 1);
	} else {
		in = open("/dev/null", O_RDONLY | O_CLOEXEC);
	}
	dup2(in, 0);
	dup2(out, 1);
	dup2(out, 2);
	snprintf(dir, sizeof(dir), "%s", argv[0]);
	slash = strrchr(dir, '/');
	if (slash && slash != dir && !tty) {
		*slash = 0;
		chdir(dir);
	}
	execv(argv[0], argv);
	say(1, "cannot run %s: %s\n", argv[0], strerror(errno));
	_exit(127);
}

/* Copy what a program prints to the second port, return false at its end. */
static bool copy(int from, char *last)
{
	char buf[4096];
	ssize_t n;

	n = read(from, buf, sizeof(buf));
	if (n <= 0)
		return n < 0 && errno == EINTR;
	write_all(output, buf, n);
	*last = buf[n - 1];
	return true;
}

/* Run a program, say how it ended, and see to it that nothing of it remains. */
static void run(const char *kind, const char *name, int seconds, char **argv)
{
	long long left, begin = now_ms(), end = begin + seconds * 1000LL;
	bool framed = !strcmp(kind, "test");
	bool timeout = false, exited = false, stuck;
	int status = 0, fds[2], pidfd;
	struct pollfd polls[2];
	char last = '\n';
	pid_t pid;

	mark("run", name);
	if (framed)
		say(output, "@begin %s\n", name);
	if (pipe2(fds, O_CLOEXEC)) {
		say(verdict, "%s %s pipe\n", kind, name);
		failed = true;
		return;
	}
	pid = start(argv, fds[1], false);
	close(fds[1]);
	pidfd = syscall(SYS_pidfd_open, pid, 0);

	polls[0] = (struct pollfd){ .fd = fds[0], .events = POLLIN };
	polls[1] = (struct pollfd){ .fd = pidfd, .events = POLLIN };
	while (!exited && !timeout) {
		left = end - now_ms();
		timeout = left <= 0;
		if (timeout || poll(polls, 2, left) <= 0)
			continue;
		if (polls[0].revents && !copy(fds[0], &last))
			polls[0].fd = -1;
		else if (polls[1].revents)
			exited = waitpid(pid, &status, WNOHANG) == pid;
	}

	stuck = !kill_all();
	failed = stuck || timeout || status;
	fcntl(fds[0], F_SETFL, O_NONBLOCK);
	while (copy(fds[0], &last))
		;
	close(fds[0]);
	close(pidfd);

	if (framed && last != '\n')
		say(output, "\n");
	if (stuck)
		say(verdict, "%s %s stuck\n", kind, name);
	else if (timeout)
		say(verdict, "%s %s timeout %d\n", kind, name, seconds);
	else if (WIFSIGNALED(status))
		say(verdict, "%s %s signal %d\n", kind, name, WTERMSIG(status));
	else
		say(verdict, "%s %s exit %d\n", kind, name, WEXITSTATUS(status));
	if (!framed)
		return;
	say(output, "@took %s %lld\n", name, now_ms() - begin);
	if (stuck || timeout)
		say(output, "@end %s %s\n", name, stuck ? "stuck" : "timeout");
	else if (WIFSIGNALED(status))
		say(output, "@end %s signal %d\n", name, WTERMSIG(status));
	else
		say(output, "@end %s exit %d\n", name, WEXITSTATUS(status));
}

/*
 * Print the cases of a suite as if it were a program. They are indented: what is
 * not is about the suite as a whole, and what is more belongs to a case.
 */
static void kunit_suite(const char *suite)
{
	const char *name = suite + strlen(MODULE "_");
	char path[512], line[1024];
	FILE *f;

	say(output, "@begin kunit/%s\n", name);
	snprintf(path, sizeof(path), KUNIT_RESULTS "/%s/results", suite);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (!strncmp(line, "    ", 4))
			say(output, "%s", line + 4);
	}
	if (f)
		fclose(f);
	say(output, "@end kunit/%s exit 0\n", name);
}

static void kunit(void)
{
	struct dirent **suites = NULL;
	int i, n, n_suites = 0;

	n = scandir(KUNIT_RESULTS, &suites, NULL, alphasort);
	for (i = 0; i < n; ++i) {
		if (!strncmp(suites[i]->d_name, MODULE "_", strlen(MODULE "_"))) {
			kunit_suite(suites[i]->d_name);
			++n_suites;
		}
		free(suites[i]);
	}
	free(suites);
	say(verdict, "step kunit %s %d suites\n", n_suites ? "ok" : "fail",
	    n_suites);
}

static void shell(void)
{
	char *argv[] = { "/bin/sh", "-l", NULL };
	struct termios t;
	int status;
	pid_t pid;

	if (!tcgetattr(output, &t)) {
		t.c_iflag |= ICRNL | IXON;
		t.c_oflag |= OPOST | ONLCR;
		t.c_lflag |= ISIG | ICANON | ECHO | ECHOE | ECHOK | IEXTEN;
		tcsetattr(output, TCSANOW, &t);
	}
	pid = start(argv, output, true);
	waitpid(pid, &status, 0);
	kill_all();
}

/* Count the live objects in the module's caches, list them in @text. */
static int slab_objects(char *text, size_t size, int *n_caches)
{
	char line[512], name[64], path[128];
	unsigned long active;
	size_t used = 0;
	int n = 0;
	FILE *f;

	*n_caches = 0;
	text[0] = 0;
	f = fopen("/proc/slabinfo", "re");
	while (f && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%63s %lu", name, &active) != 2 ||
		    strncmp(name, MODULE, strlen(MODULE)))
			continue;
		++*n_caches;
		/* Free objects that a CPU keeps at hand count as active. */
		snprintf(path, sizeof(path), "/sys/kernel/slab/%s/shrink", name);
		write_file(path, "1");
		if (active && used < size)
			used += snprintf(text + used, size - used, " %s=%lu",
					 name, active);
		n += active;
	}
	if (f)
		fclose(f);
	return n;
}

static bool module_loaded(void)
{
	return !access("/sys/module/" MODULE, F_OK);
}

static void check_slabs(void)
{
	long long end = now_ms() + SETTLE_MS;
	char text[512];
	int n, caches;

	/* What RCU and work queues free late has to be given time. */
	while ((n = slab_objects(text, sizeof(text), &caches)) && now_ms() < end)
		pause_ms(20);
	if (n)
		say(verdict, "step slabs-empty fail%s\n", text);
	else
		say(verdict, "step slabs-empty ok %d caches\n", caches);
}

static int unload(void)
{
	long long end = now_ms() + SETTLE_MS;
	int r;

	/* The last reference to a file may be dropped late, by a kernel thread. */
	do {
		r = syscall(SYS_delete_module, MODULE, O_NONBLOCK) ? errno : 0;
		if (r)
			pause_ms(20);
	} while ((r == EAGAIN || r == EBUSY) && now_ms() < end);
	return r;
}

static void check_unload(void)
{
	char text[512];
	int r, caches;

	r = unload();
	if (r)
		say(verdict, "step unload fail %s\n", strerror(r));
	else
		say(verdict, "step unload ok\n");

	slab_objects(text, sizeof(text), &caches);
	if (caches || module_loaded() || !access("/dev/" MODULE, F_OK))
		say(verdict, "step gone fail %d caches left\n", caches);
	else
		say(verdict, "step gone ok\n");
}

static void check_memory(void)
{
	long long end = now_ms() + SETTLE_MS;
	long after, lost;

	for (;;) {
		after = memory_free();
		lost = memory_before - after;
		if (lost <= memory_slack || now_ms() >= end)
			break;
		pause_ms(100);
	}
	say(verdict, "step memory %s %ld kB free before, %ld kB after\n",
	    lost > memory_slack || !after ? "fail" : "ok",
	    memory_before, after);
}

/* Where the kernel looks for leaks itself, ask it. */
static void check_kmemleak(void)
{
	static const char path[] = "/sys/kernel/debug/kmemleak";
	char buf[4096];
	ssize_t n;
	int fd, i;

	fd = open(path, O_RDWR | O_CLOEXEC);
	if (fd < 0 || write(fd, "scan", 4) != 4)
		goto out;
	/* An object must be unreferenced for some seconds to be reported. */
	for (i = 0; i < 2; ++i) {
		pause_ms(6000);
		write_all(fd, "scan", 4);
	}
	lseek(fd, 0, SEEK_SET);
	n = read(fd, buf, sizeof(buf));
	if (n > 0)
		write_all(output, buf, n);
	say(verdict, "step kmemleak %s\n", n > 0 ? "fail" : "ok");
out:
	if (fd >= 0)
		close(fd);
}

static void finish(void)
{
	mark("run", "finish");
	say(verdict, "step processes %s\n", kill_all() ? "ok" : "fail");
	if (!module_loaded()) {
		say(verdict, "step unload fail it was not loaded\n");
		return;
	}
	check_slabs();
	if (!builtin)
		check_unload();
	check_memory();
	check_kmemleak();
}

static void do_line(char *line)
{
	static const char blank[] = " \n";
	char *argv[32], *save = NULL, *word;
	int n = 0, r;

	for (word = strtok_r(line, blank, &save); word && n < 31;
	     word = strtok_r(NULL, blank, &save))
		argv[n++] = word;
	argv[n] = NULL;
	if (!n)
		return;

	if (!strcmp(argv[0], "load") && n == 2) {
		if (!memory_before)
			memory_before = memory_free();
		mark("load", argv[1]);
		r = load(argv[1]);
		if (r)
			say(verdict, "step load fail %s\n", strerror(-r));
		else
			say(verdict, "step load ok\n");
	} else if (!strcmp(argv[0], "builtin") && n == 1) {
		builtin = true;
		memory_before = memory_free();
		say(verdict, "step load %s\n",
		    access("/dev/" MODULE, F_OK) ? "fail no device" : "ok");
	} else if (!strcmp(argv[0], "try") && n == 2) {
		load(argv[1]);
	} else if (!strcmp(argv[0], "slack") && n == 2) {
		memory_slack = atol(argv[1]);
	} else if (!strcmp(argv[0], "kunit") && n == 1) {
		kunit();
	} else if (!strcmp(argv[0], "env") && n == 3) {
		setenv(argv[1], argv[2], 1);
	} else if (!strcmp(argv[0], "test") && n >= 4) {
		run("test", argv[2], atoi(argv[1]), argv + 3);
	} else if (!strcmp(argv[0], "or") && n >= 4) {
		if (!failed)
			run("test", argv[2], atoi(argv[1]), argv + 3);
	} else if (!strcmp(argv[0], "demo") && n >= 3) {
		run("demo", argv[2], atoi(argv[1]), argv + 2);
	} else if (!strcmp(argv[0], "unload")) {
		kill_all();
		r = unload();
		say(verdict, "step unload %s\n", r ? strerror(r) : "ok");
	} else if (!strcmp(argv[0], "shell")) {
		shell();
	} else if (!strcmp(argv[0], "finish")) {
		finish();
	} else {
		say(verdict, "step plan fail %s\n", argv[0]);
	}
}

int main(void)
{
	char line[1024];
	FILE *plan;
	int fd;

	mount_all();
	fd = open("/dev/null", O_RDWR);
	dup2(fd, 0);
	output = open_port("OUTPUT", "ttyS1");
	verdict = open_port("VERDICT", "ttyS2");

	setenv("PATH", "/bin:/sbin:/usr/bin:/usr/sbin", 1);
	setenv("HOME", "/", 1);
	setenv("TERM", "linux", 1);
	setenv("PS1", "bus1:\\w# ", 1);
	sethostname("bus1", 4);

	plan = fopen("/plan", "re");
	while (plan && fgets(line, sizeof(line), plan))
		do_line(line);

	say(verdict, "done\n");
	tcdrain(output);
	tcdrain(verdict);
	sync();
	/* QEMU takes it for its end, and it works where there is no ACPI. */
	reboot(RB_AUTOBOOT);
	return 1;
}
