// SPDX-License-Identifier: GPL-2.0-only
/*
 * The command bus1, which stands next to this program: what it shows of peers and
 * messages that are known, what it does for a shell, and what it says when it cannot.
 */
#include "bus1_msg.h"
#include <dirent.h>
#include <stdarg.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include "bus1_trace.h"

#define TEXT_MAX	65536
/* No command takes a tenth of that, also where everything is checked. */
#define SHELL_SECONDS	300

FIXTURE(tool) {
	struct net net;
	unsigned long long a, b, c;	/* the ids of its peers */
	char dir[64];
	char *text;			/* what the last command has printed */
};

/* The directory of this program. */
static const char *program_dir(void)
{
	static char path[256];
	ssize_t n = readlink("/proc/self/exe", path, sizeof(path) - 1);

	path[n < 0 ? 0 : n] = 0;
	if (strrchr(path, '/'))
		*strrchr(path, '/') = 0;
	return path;
}

FIXTURE_SETUP(tool)
{
	char path[512];

	self->net.a.fd = -1;
	self->net.b.fd = -1;
	self->net.c.fd = -1;
	snprintf(path, sizeof(path), "%s/bus1", program_dir());
	if (access(path, X_OK))
		SKIP(return, "there is no program bus1 next to this one");
	snprintf(path, sizeof(path), "%s:/usr/bin:/bin", program_dir());
	setenv("PATH", path, 1);

	self->text = malloc(TEXT_MAX);
	ASSERT_NE(NULL, self->text);
	snprintf(self->dir, sizeof(self->dir), "/tmp/bus1-tool-XXXXXX");
	ASSERT_NE(NULL, mkdtemp(self->dir));
	ASSERT_EQ(0, chdir(self->dir));
	setenv("XDG_RUNTIME_DIR", self->dir, 1);

	NET_INIT(&self->net);
	self->a = bus1_fdinfo(self->net.a.fd, "bus1-peer");
	self->b = bus1_fdinfo(self->net.b.fd, "bus1-peer");
	self->c = bus1_fdinfo(self->net.c.fd, "bus1-peer");
}

static int shell(char *text, const char *fmt, ...);

FIXTURE_TEARDOWN(tool)
{
	net_deinit(&self->net);
	if (self->text)
		shell(self->text, "rm -r %s", self->dir);
	free(self->text);
}

/* Run @command, printing to @out, and end what it leaves behind; how it ended. */
static int shell_run(const char *command, int out)
{
	pid_t pid = fork();
	struct pollfd p = { .events = POLLIN };
	int r;

	if (!pid) {
		/* A group of its own, which also those in the background are in */
		setpgid(0, 0);
		dup2(out, STDOUT_FILENO);
		execl("/bin/sh", "sh", "-c", command, NULL);
		_exit(127);
	}
	if (pid < 0)
		return -errno;
	setpgid(pid, pid);
	p.fd = syscall(SYS_pidfd_open, pid, 0);
	do {
		r = poll(&p, 1, SHELL_SECONDS * 1000);
	} while (r < 0 && errno == EINTR);
	close(p.fd);
	if (!r)
		dprintf(out, "[no end after %d seconds]\n", SHELL_SECONDS);
	/* Nobody has waited for it: the group is still there. */
	kill(-pid, SIGKILL);
	return wait_status(pid);
}

/*
 * Run a command of the shell; its exit status, and what it has printed. That is a file: of a
 * pipe the end would come when those in the background end, too, who may wait for ever if
 * something has failed.
 */
__attribute__((format(printf, 2, 3)))
static int shell(char *text, const char *fmt, ...)
{
	int out = memfd_create("output", MFD_CLOEXEC), status;
	char command[4096];
	va_list args;
	ssize_t n;

	text[0] = 0;
	if (out < 0)
		return -errno;
	va_start(args, fmt);
	vsnprintf(command, sizeof(command), fmt, args);
	va_end(args);
	status = shell_run(command, out);
	n = pread(out, text, TEXT_MAX - 1, 0);
	text[n < 0 ? 0 : n] = 0;
	close(out);
	if (status < 0)
		return status;
	return WIFEXITED(status) ? WEXITSTATUS(status) : -WTERMSIG(status);
}

#define EXPECT_SHELL(_status, ...)					\
	EXPECT_EQ(_status, shell(self->text, __VA_ARGS__)) {		\
		TH_LOG("it printed: %s", self->text);			\
	}

static size_t count(const char *text, const char *what)
{
	size_t n = 0;

	while ((text = strstr(text, what))) {
		text += strlen(what);
		n++;
	}
	return n;
}

/*
 * JSON: the end of the value, or NULL if it is none.
 */
static const char *json_end(const char *p);

static const char *json_skip(const char *p)
{
	return p + strspn(p, " \t\r\n");
}

static const char *json_list(const char *p, char end, bool keys)
{
	p = json_skip(p + 1);
	if (*p == end)
		return p + 1;
	for (;;) {
		if (keys) {
			if (*p != '"')
				return NULL;
			p = json_end(p);
			if (!p)
				return NULL;
			p = json_skip(p);
			if (*p++ != ':')
				return NULL;
		}
		p = json_end(json_skip(p));
		if (!p)
			return NULL;
		p = json_skip(p);
		if (*p == end)
			return p + 1;
		if (*p++ != ',')
			return NULL;
		p = json_skip(p);
	}
}

static const char *json_end(const char *p)
{
	static const char * const words[] = { "true", "false", "null" };
	char *end;
	size_t i;

	if (*p == '{' || *p == '[')
		return json_list(p, *p + 2, *p == '{');
	if (*p == '"') {
		for (p++; *p != '"'; p++) {
			if ((unsigned char)*p < ' ' || (*p == '\\' && !*++p))
				return NULL;
		}
		return p + 1;
	}
	for (i = 0; i < ARRAY_SIZE(words); i++) {
		if (!strncmp(p, words[i], strlen(words[i])))
			return p + strlen(words[i]);
	}
	strtod(p, &end);
	return end == p ? NULL : end;
}

static bool json_valid(const char *text)
{
	const char *p = json_end(json_skip(text));

	return p && !*json_skip(p);
}

/* Each line by itself. */
static bool json_lines_valid(char *text)
{
	char *end;
	bool valid = true;

	for (; *text && (end = strchr(text, '\n')); text = end + 1) {
		*end = 0;
		valid &= json_valid(text);
		*end = '\n';
	}
	return valid && !*text;
}

/* Are tags closed as they were opened? */
static bool xml_balanced(const char *text)
{
	char stack[32][16];
	size_t depth = 0, n;
	const char *p, *end;

	for (p = text; (p = strchr(p, '<')); p = end + 1) {
		end = strchr(p, '>');
		if (!end)
			return false;
		if (p[1] == '?' || end[-1] == '/')
			continue;
		n = strcspn(p + 1 + (p[1] == '/'), " >");
		if (n >= sizeof(stack[0]))
			return false;
		if (p[1] != '/') {
			if (depth == ARRAY_SIZE(stack))
				return false;
			memcpy(stack[depth], p + 1, n);
			stack[depth++][n] = 0;
		} else if (!depth-- || strncmp(stack[depth], p + 2, n) ||
			   stack[depth][n]) {
			return false;
		}
	}
	return !depth;
}

TEST_F(tool, json_and_xml_are_told_from_others)
{
	EXPECT_TRUE(json_valid("[{\"a\": 1, \"b\": [null, true, \"\\\"x\"]}, {}, []]\n"));
	EXPECT_FALSE(json_valid("[1, ]"));
	EXPECT_FALSE(json_valid("{\"a\" 1}"));
	EXPECT_FALSE(json_valid("[1"));
	EXPECT_FALSE(json_valid("[1] 2"));
	EXPECT_TRUE(xml_balanced("<?xml?><a><b c=\"d\"/><e f=\"g\">h</e></a>"));
	EXPECT_FALSE(xml_balanced("<a><b></a></b>"));
	EXPECT_FALSE(xml_balanced("<a>"));
}

TEST_F(tool, wrong_command_lines)
{
	static const char * const lines[] = {
		"", "nonsense", "peers extra", "peers -x", "peers -o yaml",
		"peers -o", "top -n many", "top -s z", "top extra", "trace -x",
		"trace --nonsense", "trace -t -1", "trace -P x", "send",
		"send -x name", "recv", "recv a b", "recv -n -3 a", "recv -M 9 a",
		"serve", "serve name", "serve name --", "bench extra",
		"bench -t soon",
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(lines); i++) {
		EXPECT_SHELL(2, "bus1 %s 2>&1 >/dev/null", lines[i]);
		/* One line that helps, and nothing on stdout. */
		EXPECT_EQ(1, count(self->text, "\n")) {
			TH_LOG("bus1 %s: %s", lines[i], self->text);
		}
		EXPECT_NE(NULL, strstr(self->text, "; see bus1(1)"));
		EXPECT_SHELL(2, "bus1 %s 2>/dev/null", lines[i]);
		EXPECT_STREQ("", self->text);
	}
	EXPECT_SHELL(0, "bus1 --help");
	EXPECT_SHELL(0, "bus1 --version");
}

TEST_F(tool, without_the_module)
{
	static const char * const lines[] = {
		"peers", "top -b", "trace", "send -m x ./n", "recv ./n",
		"serve ./n true", "bench",
	};
	size_t i;
	pid_t pid;

	pid = FORK();
	if (!pid) {
		ASSERT_EQ(0, unshare(CLONE_NEWNS));
		ASSERT_EQ(0, mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
		ASSERT_EQ(0, mount("none", "/dev", "tmpfs", 0, NULL));
		for (i = 0; i < ARRAY_SIZE(lines); i++) {
			EXPECT_SHELL(1, "bus1 %s 2>&1", lines[i]);
			EXPECT_EQ(1, count(self->text, "\n"));
			EXPECT_NE(NULL, strstr(self->text, "modprobe bus1")) {
				TH_LOG("bus1 %s: %s", lines[i], self->text);
			}
		}
		_exit(!__test_passed(_metadata));
	}
	WAIT(pid);
}

TEST_F(tool, without_permission)
{
	pid_t pid;

	if (!trace_instance[0])
		SKIP(return, "this kernel has no tracing in " TRACEFS);
	ASSERT_EQ(0, chmod(self->dir, 0777));
	pid = FORK_AS(UID_A);
	if (!pid) {
		EXPECT_SHELL(1, "bus1 trace 2>&1");
		EXPECT_STREQ("bus1 trace: no permission for tracing: be root\n",
			     self->text);
		/* It shows what it can, and says so. */
		EXPECT_SHELL(0, "bus1 top -b -n 1 -d 0.1");
		EXPECT_NE(NULL, strstr(self->text, "tracing is for root"));
		EXPECT_SHELL(0, "bus1 peers 2>&1 >/dev/null");
		EXPECT_NE(NULL, strstr(self->text, "not yours to look at"));
		_exit(!__test_passed(_metadata));
	}
	WAIT(pid);
}

TEST_F(tool, peers)
{
	char line[256];
	pid_t pid;

	/* One is also in another process: it is one peer, all the same. */
	pid = FORK();
	if (!pid) {
		pause();
		_exit(0);
	}
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "hello"));
	NODE(&self->net.a, 8);
	NODE(&self->net.a, 16);
	EXPECT_SHELL(0, "bus1 peers -o json");
	EXPECT_TRUE(json_valid(self->text));
	snprintf(line, sizeof(line),
		 "{\"peer\": %llu, \"connected\": true, \"uid\": 0, \"nodes\": 2, \"queue\": 0, \"budget\": {\"slices\": {\"used\": 0, \"max\": 16384}, \"handles\": {\"used\": 4,",
		 self->a);
	EXPECT_EQ(1, count(self->text, line)) {
		TH_LOG("%s", self->text);
	}
	snprintf(line, sizeof(line),
		 "{\"peer\": %llu, \"connected\": true, \"uid\": 0, \"nodes\": 1, \"queue\": 1, \"budget\": {\"slices\": {\"used\": 1,",
		 self->b);
	EXPECT_EQ(1, count(self->text, line));
	snprintf(line, sizeof(line), "{\"pid\": %d, \"fd\": %d, ", getpid(),
		 self->net.a.fd);
	EXPECT_EQ(1, count(self->text, line));
	snprintf(line, sizeof(line), "{\"pid\": %d, \"fd\": %d, ", pid,
		 self->net.a.fd);
	EXPECT_EQ(1, count(self->text, line));

	EXPECT_SHELL(0, "bus1 peers");
	EXPECT_NE(NULL, strstr(self->text, "PEER"));
	snprintf(line, sizeof(line), "%6llu %7d %6u %6u %7u %6u %6u %6u ",
		 self->b, getpid(), 0, 1, 1, 1, 1, 5);
	EXPECT_NE(NULL, strstr(self->text, line)) {
		TH_LOG("no '%s' in %s", line, self->text);
	}

	ASSERT_EQ(0, bus1_node_destroy(self->net.a.fd, 8));
	ASSERT_EQ(0, bus1_disconnect(self->net.c.fd));
	EXPECT_SHELL(0, "bus1 peers -o json");
	snprintf(line, sizeof(line),
		 "{\"peer\": %llu, \"connected\": true, \"uid\": 0, \"nodes\": 1,",
		 self->a);
	EXPECT_NE(NULL, strstr(self->text, line));
	snprintf(line, sizeof(line), "{\"peer\": %llu, \"connected\": false,",
		 self->c);
	EXPECT_NE(NULL, strstr(self->text, line));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

TEST_F(tool, top)
{
	char line[128];

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "hello"));
	EXPECT_SHELL(0, "bus1 top -b -n 2 -d 0.1 -s u");
	EXPECT_EQ(2, count(self->text, "PEER"));
	snprintf(line, sizeof(line), "\n%5llu %7d %5u %5u %6u %6u %5u ",
		 self->b, getpid(), 0, 1, 1, 1, 5);
	EXPECT_EQ(2, count(self->text, line)) {
		TH_LOG("no '%s' in %s", line, self->text);
	}
	EXPECT_EQ(2, count(self->text, "1 queued, 5 bytes"));
	/* Without a terminal it is not told how to draw on one. */
	EXPECT_EQ(0, count(self->text, "\033"));
}

/* Run "bus1 trace" with some options, until t_trace_end(). */
struct trace {
	pid_t pid;
	int start, end;
};

static void t_trace_begin(struct __test_metadata *_metadata, char *text,
			  struct trace *trace, const char *options)
{
	struct pollfd p[2] = { { .events = POLLIN }, { .events = POLLIN } };
	char command[512];

	unlink("start");
	unlink("end");
	ASSERT_EQ(0, mkfifo("start", 0600));
	ASSERT_EQ(0, mkfifo("end", 0600));
	snprintf(command, sizeof(command),
		 "exec bus1 trace %s -- sh -c 'echo >start; cat end' >out 2>err",
		 options);
	trace->pid = FORK();
	if (!trace->pid) {
		execl("/bin/sh", "sh", "-c", command, NULL);
		_exit(127);
	}
	/* It has begun to look when the command runs; or it has ended, and will not. */
	trace->start = open("start", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, trace->start);
	p[0].fd = trace->start;
	p[1].fd = syscall(SYS_pidfd_open, trace->pid, 0);
	ASSERT_LT(0, poll(p, 2, -1));
	close(p[1].fd);
	ASSERT_EQ(POLLIN, p[0].revents) {
		shell(text, "cat err");
		TH_LOG("bus1 trace has ended: %s", text);
	}
	trace->end = open("end", O_WRONLY | O_CLOEXEC);
	ASSERT_LE(0, trace->end);
}

static void t_trace_end(struct __test_metadata *_metadata, FIXTURE_DATA(tool) *self,
			struct trace *trace)
{
	close(trace->start);
	close(trace->end);
	ASSERT_EQ(0, wait_status(trace->pid));
	EXPECT_SHELL(0, "cat err");
	EXPECT_STREQ("", self->text);
	EXPECT_SHELL(0, "cat out");
}

/*
 * The same, with a known scenario: one message from a to b, one from a to b and c, and the
 * end of the node of b. The last one to c is never received.
 */
static void t_traced(struct __test_metadata *_metadata,
		     FIXTURE_DATA(tool) *self, const char *options)
{
	const __u64 dst[] = { self->net.ab, self->net.ac };
	struct iovec vec = { "xyz", 3 };
	struct trace trace;
	char held[128];

	/* Nothing is printed before the end: however long it takes, it is complete by then. */
	snprintf(held, sizeof(held), "--hold 3600 %s", options);
	t_trace_begin(_metadata, self->text, &trace, held);
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "12345"));
	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = dst, .n_dst = 2,
			      .vecs = &vec, .n_vecs = 1));
	ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd, NODE_B));
	RECV(&self->net.b);
	RECV(&self->net.b);
	RECV(&self->net.b);
	RECV_DESTROY(&self->net.a, self->net.ab);
	t_trace_end(_metadata, self, &trace);
}

/* Of what was printed, the line that has both in it; NULL if there is none. */
static const char *line_with(const char *text, const char *a, const char *b)
{
	static char line[1024];

	for (; *text; text += strcspn(text, "\n"), text += *text == '\n') {
		snprintf(line, sizeof(line), "%.*s", (int)strcspn(text, "\n"),
			 text);
		if (strstr(line, a) && strstr(line, b))
			return text;
	}
	return NULL;
}

TEST_F(tool, trace_as_json)
{
	const char *one, *two, *three, *p;
	unsigned long long ts[3], tx;
	char to_b[64], to_c[64];

	if (!trace_instance[0])
		SKIP(return, "this kernel has no tracing in " TRACEFS);
	t_traced(_metadata, self, "-o json");
	EXPECT_TRUE(json_lines_valid(self->text)) {
		TH_LOG("%s", self->text);
	}
	EXPECT_EQ(3, count(self->text, "\n")) {
		TH_LOG("%s", self->text);
	}
	snprintf(to_b, sizeof(to_b), "\"to\": {\"peer\": %llu, \"pid\": %d,",
		 self->b, getpid());
	snprintf(to_c, sizeof(to_c), "\"to\": {\"peer\": %llu, \"pid\": %d,",
		 self->c, getpid());
	one = line_with(self->text, "\"bytes\": 5,", to_b);
	two = line_with(self->text, "\"bytes\": 3,", to_b);
	three = line_with(self->text, "\"type\": \"destroy\", \"sender\"", to_b);
	ASSERT_NE(NULL, one);
	ASSERT_NE(NULL, two);
	ASSERT_NE(NULL, three);
	ASSERT_EQ(two, line_with(self->text, "\"bytes\": 3,", to_c));
	/* In their order. */
	EXPECT_LT(one, two);
	EXPECT_LT(two, three);
	ASSERT_EQ(2, sscanf(one, "{\"ts\": %llu, \"tx\": %llu,", &ts[0], &tx));
	ASSERT_EQ(2, sscanf(two, "{\"ts\": %llu, \"tx\": %llu,", &ts[1], &tx));
	ASSERT_EQ(2, sscanf(three, "{\"ts\": %llu, \"tx\": %llu,", &ts[2], &tx));
	EXPECT_LE(ts[0], ts[1]);
	EXPECT_LE(ts[1], ts[2]);
	/* Five were received; it is known how long that took. One was not. */
	EXPECT_EQ(1, count(self->text, "\"latency_ns\": null"));
	EXPECT_EQ(5, count(self->text, "\"latency_ns\": ")) {
		TH_LOG("%s", self->text);
	}
	for (p = self->text; (p = strstr(p, "\"latency_ns\": ")); p++)
		EXPECT_NE('0', p[strlen("\"latency_ns\": ")]);
}

TEST_F(tool, trace_as_text_and_chart)
{
	const char *one, *two;

	if (!trace_instance[0])
		SKIP(return, "this kernel has no tracing in " TRACEFS);
	t_traced(_metadata, self, "--svg chart");
	one = line_with(self->text, "message", "5 bytes");
	two = line_with(self->text, "message", "3 bytes");
	ASSERT_NE(NULL, one);
	ASSERT_NE(NULL, two);
	EXPECT_LT(one, two);
	EXPECT_EQ(2, count(self->text, "3 bytes"));
	EXPECT_EQ(2, count(self->text, "destroy"));
	EXPECT_EQ(1, count(self->text, "queued"));

	EXPECT_SHELL(0, "cat chart");
	EXPECT_TRUE(xml_balanced(self->text));
	/* Two arrows of one message, one of the other, and one that is open. */
	EXPECT_EQ(2, count(self->text, "<g class=\"msg\">"));
	EXPECT_EQ(1, count(self->text, "<g class=\"msg open\">"));
	EXPECT_EQ(2, count(self->text, "<g class=\"note\">"));
	EXPECT_EQ(3, count(self->text, "class=\"peer\""));
	EXPECT_EQ(1, count(self->text, "3 bytes to 2"));
}

TEST_F(tool, trace_filters)
{
	char options[64];

	if (!trace_instance[0])
		SKIP(return, "this kernel has no tracing in " TRACEFS);
	snprintf(options, sizeof(options), "-o json --peer %llu", self->c);
	t_traced(_metadata, self, options);
	EXPECT_EQ(1, count(self->text, "\n")) {
		TH_LOG("%s", self->text);
	}
	EXPECT_EQ(1, count(self->text, "\"latency_ns\""));
	EXPECT_EQ(1, count(self->text, "\"bytes\": 3,"));
}

/* Waits until @what is in what it prints. */
static void t_trace_prints(struct __test_metadata *_metadata, char *text,
			   const struct trace *trace, const char *what)
{
	do {
		ASSERT_EQ(0, waitpid(trace->pid, NULL, WNOHANG));
		usleep(20000);
		ASSERT_EQ(0, shell(text, "cat out"));
	} while (!strstr(text, what));
}

#define T_TRACE_PRINTS(_what)						\
	t_trace_prints(_metadata, self->text, &trace, _what)

/* What has happened long ago is not remembered, unless a chart is to be drawn of it. */
TEST_F(tool, trace_forgets)
{
	struct trace trace;
	int i;

	if (!trace_instance[0])
		SKIP(return, "this kernel has no tracing in " TRACEFS);
	for (i = 0; i < 2; i++) {
		t_trace_begin(_metadata, self->text, &trace,
			      i ? "--hold 0.01 --svg chart" : "--hold 0.01");
		ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ac, "12345"));
		T_TRACE_PRINTS("5 bytes");
		/* After a second it is of no use, and a quarter later it is looked for. */
		usleep(1500000);
		/* Who prints this has forgotten the other one by then. */
		ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "1234567"));
		T_TRACE_PRINTS("7 bytes");
		RECV(&self->net.c);
		t_trace_end(_metadata, self, &trace);
		EXPECT_NE(NULL, line_with(self->text, "5 bytes", "queued")) {
			TH_LOG("%s", self->text);
		}
		EXPECT_EQ(i, !!line_with(self->text, "received by", "after")) {
			TH_LOG("%s", self->text);
		}
		EXPECT_EQ(!i, !!line_with(self->text, "< message ? -> ", "5 bytes")) {
			TH_LOG("%s", self->text);
		}
		EXPECT_EQ(3, count(self->text, "\n"));
	}
}

/* A process calls itself what it likes. */
TEST_F(tool, trace_knows_what_is_lost)
{
	struct trace trace;

	if (!trace_instance[0])
		SKIP(return, "this kernel has no tracing in " TRACEFS);
	t_trace_begin(_metadata, self->text, &trace, "");
	ASSERT_EQ(0, prctl(PR_SET_NAME, "CPU:0 [LOST 12 "));
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ac, "12345"));
	RECV(&self->net.c);
	/* Nothing is on its standard error. */
	t_trace_end(_metadata, self, &trace);
	EXPECT_EQ(1, count(self->text, "5 bytes"));
}

/* One that was killed has left its instance, and another one has its PID now. */
TEST_F(tool, trace_takes_over)
{
	if (!trace_instance[0])
		SKIP(return, "this kernel has no tracing in " TRACEFS);
	EXPECT_SHELL(0, "cd " TRACEFS "/instances && before=$(echo *)\n"
		     "sh -c 'mkdir bus1-$$ && exec bus1 trace -t 0.1 2>&1'\n"
		     "[ \"$before\" = \"$(echo *)\" ]");
	EXPECT_STREQ("", self->text);
}

TEST_F(tool, messages)
{
	/* Each command waits for the others; the last line waits for all. */
	EXPECT_SHELL(0,
		     "bus1 recv -n 2 one >one.out & one=$!\n"
		     "bus1 recv -n 2 -o json ./two >two.out & two=$!\n"
		     "bus1 serve -n 2 caps -- sh -c 'tr a-z A-Z; [ $BUS1_FILES = 0 ] || cat <&3' & caps=$!\n"
		     "echo content >file\n"
		     "bus1 send -w 60 -m 'to both' one ./two || exit 11\n"
		     "printf 'from stdin' | bus1 send one || exit 12\n"
		     "bus1 send -w 60 -m 'say \"hi\"' ./two || exit 13\n"
		     "bus1 send -w 60 -r -m shout caps || exit 14\n"
		     "bus1 send -w 60 -r -m more -f file caps || exit 15\n"
		     "wait $one && wait $two && wait $caps\n");
	EXPECT_STREQ("SHOUTMOREcontent\n", self->text);
	EXPECT_SHELL(0, "cat one.out");
	EXPECT_STREQ("to bothfrom stdin", self->text);
	EXPECT_SHELL(0, "cat two.out");
	EXPECT_TRUE(json_lines_valid(self->text));
	EXPECT_EQ(2, count(self->text, "\n"));
	EXPECT_EQ(1, count(self->text, "\"data\": \"to both\"}"));
	EXPECT_EQ(1, count(self->text, "\"data\": \"say \\\"hi\\\"\"}"));
	/* Nothing is left of them. */
	EXPECT_SHELL(0, "ls");
	EXPECT_EQ(0, count(self->text, "two\n") + count(self->text, "bus1-one"));
}

TEST_F(tool, messages_that_go_wrong)
{
	EXPECT_SHELL(1, "bus1 send -m x nobody 2>&1");
	EXPECT_STREQ("bus1 send: nobody serves 'nobody'\n", self->text);
	EXPECT_SHELL(1, "bus1 recv -t 0.1 name 2>&1");
	EXPECT_STREQ("bus1 recv: no message came\n", self->text);
	/* One socket was left behind, by somebody who was killed. */
	EXPECT_SHELL(0,
		     "bus1 recv name & pid=$!\n"
		     "bus1 send -w 60 -m x name && kill -9 $pid; wait $pid\n"
		     "[ -S bus1-name ] || exit 11\n"
		     "bus1 recv -n 1 name & pid=$!\n"
		     "bus1 send -w 60 -m y name && wait $pid\n");
	/* A command that fails does not reply, and does not end the server. */
	EXPECT_SHELL(0,
		     "bus1 serve -n 2 name -- sh -c 'read x; [ \"$x\" = good ] && echo $x' 2>/dev/null &\n"
		     "bus1 send -w 60 -r -m bad name 2>/dev/null; [ $? = 1 ] || exit 11\n"
		     "echo good | bus1 send -w 60 -r name || exit 12\n"
		     "wait\n");
	EXPECT_STREQ("good\n", self->text);
	/* Nobody takes the name of somebody who is there. */
	EXPECT_SHELL(1,
		     "bus1 recv -n 1 name & pid=$!\n"
		     "while ! [ -S bus1-name ]; do sleep 0.05; done\n"
		     "bus1 recv name 2>/dev/null; r=$?\n"
		     "bus1 send -w 60 -m x name; wait $pid\n"
		     "exit $r\n");
}

/* Who connects, sends nothing and goes does not make it wait for longer. */
TEST_F(tool, visitors_are_no_messages)
{
	EXPECT_SHELL(0,
		     "(bus1 recv -t 1 name 2>err; echo $? >ended) &\n"
		     "until [ -e ended ]; do bus1 send -m x name ./bus1-name 2>/dev/null; done\n"
		     "wait; cat ended err\n");
	EXPECT_STREQ("1\nbus1 recv: no message came\n", self->text);
}

/* A message has more files than there can be descriptors. */
TEST_F(tool, files_that_are_too_many)
{
	char files[30 * 8 + 1] = "";
	int i;

	for (i = 0; i < 30; i++)
		strcat(files, "-f file ");
	EXPECT_SHELL(0,
		     "echo content >file\n"
		     "(ulimit -n 24; exec bus1 recv -n 2 -o json one >one.out 2>one.err) & one=$!\n"
		     "(ulimit -S -n 24; exec bus1 recv -n 1 -o json two >two.out 2>two.err) & two=$!\n"
		     "bus1 send -w 60 -m many %s one || exit 11\n"
		     "bus1 send -w 60 -m one -f file one || exit 12\n"
		     "bus1 send -w 60 -m many %s two || exit 13\n"
		     "wait $one && wait $two || exit 14\n"
		     "cat one.out one.err two.out two.err\n", files, files);
	EXPECT_EQ(1, count(self->text, "\"files\": 0, \"data\": \"many\""));
	EXPECT_EQ(1, count(self->text, "\"files\": 1, \"data\": \"one\""));
	EXPECT_EQ(1, count(self->text, "bus1 recv: the files of a message are dropped: "));
	EXPECT_EQ(1, count(self->text, "\"files\": 30, \"data\": \"many\""));
	EXPECT_EQ(4, count(self->text, "\n")) {
		TH_LOG("%s", self->text);
	}

	/* Who runs a command needs a few for that. */
	EXPECT_SHELL(0,
		     "(ulimit -n 54; exec bus1 serve -n 1 one sh -c 'echo $BUS1_FILES; cat <&32') & one=$!\n"
		     "bus1 send -w 60 -r -m x %s one || exit 11\n"
		     "wait $one || exit 12\n"
		     "(ulimit -n 40; exec bus1 serve -n 2 two sh -c 'echo $BUS1_FILES' 2>two.err) & two=$!\n"
		     "bus1 send -w 60 -r -m x %s two || exit 13\n"
		     "bus1 send -w 60 -r -m x -f file two || exit 14\n"
		     "wait $two || exit 15\n"
		     "(ulimit -S -n 20; exec bus1 serve -n 1 three sh -c 'echo $BUS1_FILES; ulimit -S -n') & three=$!\n"
		     "bus1 send -w 60 -r -m x %s three || exit 16\n"
		     "wait $three || exit 17\n"
		     "cat two.err\n", files, files, files);
	EXPECT_STREQ("30\ncontent\n0\n1\n30\n20\n"
		     "bus1 serve: the files of a message are dropped: Too many open files\n",
		     self->text);
}

/* What a socket is, and whose. */
TEST_F(tool, names_and_who_has_them)
{
	int dir;

	/*
	 * Two begin at once where one was left behind: one of them gets it. What the last two
	 * have said must be gone before: else the message may be there, and its receiver gone,
	 * before the other one of these two has begun.
	 */
	EXPECT_SHELL(0,
		     "bus1 recv name & pid=$!\n"
		     "bus1 send -w 60 -m x name && kill -9 $pid; wait $pid\n"
		     "for i in 1 2 3; do\n"
		     "	rm -f a.out b.out; touch a.out b.out\n"
		     "	bus1 recv -n 1 name >>a.out 2>&1 & a=$!\n"
		     "	bus1 recv -n 1 name >>b.out 2>&1 & b=$!\n"
		     "	n=0\n"
		     "	while ! grep -q 'served already' a.out b.out; do\n"
		     "		sleep 0.05; n=$((n + 1))\n"
		     "		[ $n -lt 600 ] || { kill $a $b; cat a.out b.out; exit 10; }\n"
		     "	done\n"
		     "	bus1 send -w 60 -m $i- name || exit 11\n"
		     "	wait $a; r=$?; wait $b\n"
		     "	[ $((r + $?)) = 1 ] || exit 12\n"
		     "	cat a.out b.out\n"
		     "	bus1 recv name >/dev/null & pid=$!\n"
		     "	bus1 send -w 60 -m x name || exit 13\n"
		     "	kill -9 $pid; wait $pid\n"
		     "done 2>/dev/null; true\n");
	EXPECT_EQ(3, count(self->text, "bus1 recv: 'name' is being served already\n"));
	EXPECT_EQ(3, count(self->text, "-"));

	/* Who locks the directory where the sockets are does not keep others from serving. */
	dir = open(self->dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ASSERT_LE(0, dir);
	ASSERT_EQ(0, flock(dir, LOCK_EX | LOCK_NB));
	EXPECT_SHELL(0,
		     "bus1 recv -n 2 name >a.out & pid=$!\n"
		     "bus1 send -w 60 -m 1 name || exit 11\n"
		     "bus1 recv name 2>&1 && exit 12\n"
		     "bus1 send -w 60 -m 2 name && wait $pid || exit 13\n"
		     "cat a.out\n");
	EXPECT_STREQ("bus1 recv: 'name' is being served already\n12", self->text);
	close(dir);

	/* It removes its own only. */
	EXPECT_SHELL(0,
		     "listening() { [ $(grep -c '00010000 .* ./mine$' /proc/net/unix) = $1 ]; }\n"
		     "bus1 recv -n 1 ./mine >a.out & a=$!\n"
		     "while ! listening 1; do sleep 0.05; done\n"
		     "rm mine; bus1 recv -n 1 ./mine >b.out & b=$!\n"
		     "while ! listening 2; do sleep 0.05; done\n"
		     "kill $a; wait $a || exit 11\n"
		     "[ -S mine ] || exit 12\n"
		     "bus1 send -w 60 -m x ./mine && wait $b || exit 13\n"
		     "! [ -S mine ]\n");
}

TEST_F(tool, who_does_not_answer)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX, .sun_path = "mute" };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, bind(fd, (struct sockaddr *)&address, sizeof(address)));
	ASSERT_EQ(0, listen(fd, 5));
	EXPECT_SHELL(1, "bus1 send -w 0.1 -m x ./mute 2>&1");
	EXPECT_STREQ("bus1 send: './mute' does not answer\n", self->text);
	close(fd);

	/* Who is at work does. */
	EXPECT_SHELL(0,
		     "bus1 serve -n 2 busy sh -c 'read x; [ $x = 2 ] || touch run; while ! [ -e go ]; do sleep 0.05; done; echo $x' & pid=$!\n"
		     "echo 1 | bus1 send -w 60 -r busy & one=$!\n"
		     "while ! [ -e run ]; do sleep 0.05; done\n"
		     "echo 2 | bus1 send -w 60 busy || exit 11\n"
		     "touch go\n"
		     "wait $one && wait $pid\n");
	EXPECT_STREQ("1\n2\n", self->text);
}

/* The handle that the process @pid gives to whoever connects, in the peer @fd. */
static __u64 t_handle_of(struct __test_metadata *_metadata, pid_t pid, const char *path,
			 int fd)
{
	struct sockaddr_un address = { .sun_family = AF_UNIX };
	int sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), courier;
	char control[CMSG_SPACE(sizeof(int))];
	__u64 theirs, id;
	struct iovec vec = { &theirs, sizeof(theirs) };
	struct msghdr msg = {
		.msg_iov = &vec, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};

	snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
	while (connect(sock, (struct sockaddr *)&address, sizeof(address))) {
		ASSERT_EQ(0, waitpid(pid, NULL, WNOHANG));
		usleep(20000);
	}
	ASSERT_EQ(sizeof(theirs), recvmsg(sock, &msg, MSG_CMSG_CLOEXEC));
	memcpy(&courier, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(courier));
	EXPECT_EQ(0, bus1_handle_transfer(courier, theirs, fd, &id));
	close(courier);
	close(sock);
	return id;
}

/* Somebody wants the reply to be sent to the one who replies. */
TEST_F(tool, serve_does_not_reply_to_itself)
{
	int status;
	__u64 id;
	pid_t pid;

	pid = FORK();
	if (!pid) {
		execl("/bin/sh", "sh", "-c",
		      "exec bus1 serve -n 2 ./echo sh -c 'tee -a log; echo; echo >>log' 2>err >out",
		      NULL);
		_exit(127);
	}
	id = t_handle_of(_metadata, pid, "echo", self->net.a.fd);
	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = &id, .n_dst = 1,
			      .vecs = &(struct iovec){ "one", 3 }, .n_vecs = 1,
			      .handles = &id, .n_handles = 1));
	while (access("log", F_OK)) {
		ASSERT_EQ(0, waitpid(pid, NULL, WNOHANG));
		usleep(20000);
	}
	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, id, "two"));
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	EXPECT_EQ(0, status);
	EXPECT_SHELL(0, "cat log err");
	EXPECT_STREQ("one\ntwo\nbus1 serve: no reply: the handle is that of './echo'\n",
		     self->text);
	EXPECT_EQ(0, bus1_handle_release(self->net.a.fd, id));
}

/* What somebody has sent is no command for a terminal, whatever it takes for characters. */
TEST_F(tool, recv_on_a_terminal)
{
	static const struct {
		const char *locale, *shown;
	} cases[] = {
		/* The second byte of the letter e with a caron is CSI where there is no UTF-8. */
		{ "C.UTF-8", "a?[31mb?c??\td \304\233 ?? \342\202\254 ???\r\n?" },
		{ "C", "a?[31mb?c??\td ?? ?? ??? ???\r\n?" },
	};
	char text[256], path[64];
	int terminal, fd;
	size_t i, n;
	ssize_t r;
	pid_t pid;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		terminal = posix_openpt(O_RDWR | O_NOCTTY | O_CLOEXEC);
		if (terminal < 0 && errno == ENOENT)
			SKIP(return, "this kernel has no terminals");
		ASSERT_LE(0, terminal);
		ASSERT_EQ(0, grantpt(terminal));
		ASSERT_EQ(0, unlockpt(terminal));
		ASSERT_EQ(0, ptsname_r(terminal, path, sizeof(path)));
		pid = FORK();
		if (!pid) {
			fd = open(path, O_RDWR | O_NOCTTY);
			dup2(fd, STDOUT_FILENO);
			unsetenv("LC_ALL");
			unsetenv("LC_CTYPE");
			setenv("LANG", cases[i].locale, 1);
			execlp("bus1", "bus1", "recv", "-n", "2", "./terminal", NULL);
			_exit(127);
		}
		EXPECT_SHELL(0, "printf 'a\\033[31mb\\233c\\r\\177\\td \\304\\233 \\302\\233 \\342\\202\\254 \\355\\240\\200\\n' | bus1 send -w 60 ./terminal");
		EXPECT_SHELL(0, "printf '\\303' | bus1 send -w 60 ./terminal");
		/* It ends with an error when nobody has the other side any more. */
		for (n = 0; n < sizeof(text) - 1; n += r) {
			r = read(terminal, text + n, sizeof(text) - 1 - n);
			if (r <= 0)
				break;
		}
		text[n] = 0;
		WAIT(pid);
		EXPECT_STREQ(cases[i].shown, text);
		close(terminal);
	}
}

/* The child of a process, or 0. */
static pid_t child_of(pid_t parent)
{
	char path[64];
	struct dirent *entry;
	DIR *dir = opendir("/proc");
	pid_t pid = 0;
	int found;
	FILE *f;

	while (dir && !pid && (entry = readdir(dir))) {
		snprintf(path, sizeof(path), "/proc/%d/stat", atoi(entry->d_name));
		f = atoi(entry->d_name) > 0 ? fopen(path, "re") : NULL;
		if (!f)
			continue;
		if (fscanf(f, "%*d (%*[^)]) %*c %d", &found) == 1 && found == parent)
			pid = atoi(entry->d_name);
		fclose(f);
	}
	if (dir)
		closedir(dir);
	return pid;
}

/* Nobody may have waited for it. */
static bool has_ended(pid_t pid)
{
	return strchr("ZX", task_state(pid));
}

/* Starts one, and waits until it has a child; false if it ended, and none was seen. */
static bool t_bench_begin(struct __test_metadata *_metadata, pid_t *pid, pid_t *child)
{
	int status;

	*pid = FORK();
	if (!*pid) {
		execl("/bin/sh", "sh", "-c", "exec bus1 bench -t 0.5 >out", NULL);
		_exit(127);
	}
	while (!(*child = child_of(*pid))) {
		if (waitpid(*pid, &status, WNOHANG) == *pid) {
			ASSERT_EQ(0, status);
			return false;
		}
		usleep(50000);
	}
	return true;
}

TEST_F(tool, bench_leaves_nobody_behind)
{
	pid_t pid, child;
	int i;

	/* It has children for three seconds: who looks too rarely looks once more. */
	for (i = 0; !t_bench_begin(_metadata, &pid, &child); i++) {
		ASSERT_GT(10, i);
	}
	EXPECT_EQ(0, kill(pid, SIGKILL));
	EXPECT_EQ(pid, waitpid(pid, NULL, 0));
	for (i = 0; i < 3000 && !has_ended(child); i++)
		usleep(20000);
	EXPECT_TRUE(has_ended(child)) {
		kill(child, SIGKILL);
	}
}

TEST_F(tool, bench)
{
	EXPECT_SHELL(0, "bus1 bench -t 0 -o json");
	EXPECT_TRUE(json_valid(self->text));
	EXPECT_EQ(5, count(self->text, "\"bus1\": "));
	EXPECT_EQ(5, count(self->text, "\"unix socket\": "));
	EXPECT_EQ(0, count(self->text, ": 0"));
}

TEST_HARNESS_MAIN
