// SPDX-License-Identifier: GPL-2.0-only
/*
 * The command bus1, which stands next to this program: what it shows of peers and
 * messages that are known, what it does for a shell, and what it says when it cannot.
 */
#include "bus1_msg.h"
#include <stdarg.h>
#include <sys/mount.h>
#include "bus1_trace.h"

#define TEXT_MAX	65536

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

/* Run a command of the shell; its exit status, and what it has printed. */
__attribute__((format(printf, 2, 3)))
static int shell(char *text, const char *fmt, ...)
{
	char command[4096];
	size_t used = 0, n;
	va_list args;
	int status;
	FILE *f;

	va_start(args, fmt);
	vsnprintf(command, sizeof(command), fmt, args);
	va_end(args);
	text[0] = 0;
	f = popen(command, "r");
	if (!f)
		return -errno;
	while ((n = fread(text + used, 1, TEXT_MAX - 1 - used, f)) > 0)
		used += n;
	text[used] = 0;
	status = pclose(f);
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

/*
 * Run "bus1 trace" with some options while a known scenario goes on: one message from
 * a to b, one from a to b and c, and the end of the node of b. The last one to c
 * is never received.
 */
static void t_traced(struct __test_metadata *_metadata,
		     FIXTURE_DATA(tool) *self, const char *options)
{
	const __u64 dst[] = { self->net.ab, self->net.ac };
	char command[512];
	struct iovec vec = { "xyz", 3 };
	pid_t pid;
	int start, end;
	char c;

	unlink("start");
	unlink("end");
	ASSERT_EQ(0, mkfifo("start", 0600));
	ASSERT_EQ(0, mkfifo("end", 0600));
	snprintf(command, sizeof(command),
		 "exec bus1 trace %s -- sh -c 'echo >start; cat end' >out",
		 options);
	pid = FORK();
	if (!pid) {
		execl("/bin/sh", "sh", "-c", command, NULL);
		_exit(127);
	}
	/* It has begun to look when the command runs. */
	start = open("start", O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, start);
	ASSERT_EQ(1, read(start, &c, 1));
	end = open("end", O_WRONLY | O_CLOEXEC);
	ASSERT_LE(0, end);

	ASSERT_EQ(0, bus1_send_str(self->net.a.fd, self->net.ab, "12345"));
	ASSERT_EQ(0, msg_send(self->net.a.fd, .dst = dst, .n_dst = 2,
			      .vecs = &vec, .n_vecs = 1));
	ASSERT_EQ(0, bus1_node_destroy(self->net.b.fd, NODE_B));
	RECV(&self->net.b);
	RECV(&self->net.b);
	RECV(&self->net.b);
	RECV_DESTROY(&self->net.a, self->net.ab);

	close(start);
	close(end);
	ASSERT_EQ(0, wait_status(pid));
	EXPECT_SHELL(0, "cat out");
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
	t_traced(_metadata, self, "-o json --hold 0.5");
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
		     "bus1 send -m 'say \"hi\"' ./two || exit 13\n"
		     "bus1 send -w 60 -r -m shout caps || exit 14\n"
		     "bus1 send -r -m more -f file caps || exit 15\n"
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
		     "echo good | bus1 send -r name || exit 12\n"
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

TEST_F(tool, bench)
{
	EXPECT_SHELL(0, "bus1 bench -t 0 -o json");
	EXPECT_TRUE(json_valid(self->text));
	EXPECT_EQ(5, count(self->text, "\"bus1\": "));
	EXPECT_EQ(5, count(self->text, "\"unix socket\": "));
	EXPECT_EQ(0, count(self->text, ": 0"));
}

TEST_HARNESS_MAIN
