// SPDX-License-Identifier: GPL-2.0-only
/*
 * Programs that others copy: those of samples/bus1, and the examples of the documentation.
 * Each of them checks what it does, and exits with another status than 0 if it was not
 * that.
 */
#include "bus1_test.h"

#include <ftw.h>
#include <sys/wait.h>

FIXTURE(samples) {
	char dir[PATH_MAX];
	int output;
};

FIXTURE_SETUP(samples)
{
	ssize_t n = readlink("/proc/self/exe", self->dir, sizeof(self->dir) - 1);
	char *slash;

	ASSERT_LT(0, n);
	self->dir[n] = '\0';
	slash = strrchr(self->dir, '/');
	ASSERT_NE(NULL, slash);
	*slash = '\0';
	self->output = memfd_create("output", 0);
	ASSERT_LE(0, self->output);
}

FIXTURE_TEARDOWN(samples)
{
	close(self->output);
}

/*
 * Run @name, with an argument or NULL; it must succeed, and must say something. What it
 * prints is shown if not.
 */
static void t_runs(struct __test_metadata *_metadata,
		   struct _test_data_samples *self, const char *name,
		   const char *arg)
{
	char path[PATH_MAX + 64], text[4096] = "";
	int status;
	pid_t pid;

	snprintf(path, sizeof(path), "%s/%s", self->dir, name);
	ASSERT_EQ(0, access(path, X_OK)) {
		TH_LOG("%s: %s", path, strerror(errno));
	}
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		dup2(self->output, STDOUT_FILENO);
		dup2(self->output, STDERR_FILENO);
		execl(path, path, arg, NULL);
		_exit(127);
	}
	ASSERT_EQ(pid, waitpid(pid, &status, 0));
	ASSERT_LE(0, pread(self->output, text, sizeof(text) - 1, 0));
	EXPECT_EQ(0, status) {
		TH_LOG("%s: status %#x:\n%s", name, status, text);
	}
	EXPECT_NE('\0', text[0]);
}

#define RUNS(_name) t_runs(_metadata, self, _name, NULL)

TEST_F(samples, hello)
{
	RUNS("samples/hello");
}

/* Few rounds: whether sockets get it wrong is a matter of time. */
TEST_F(samples, causal)
{
	t_runs(_metadata, self, "samples/causal", "200");
}

TEST_F(samples, greet)
{
	RUNS("samples/greet");
}

TEST_F(samples, broker)
{
	RUNS("samples/broker");
}

TEST_F(samples, supervisor)
{
	RUNS("samples/supervisor");
}

TEST_F(samples, bulk)
{
	RUNS("samples/bulk");
}

TEST_F(samples, publisher)
{
	RUNS("samples/publisher");
}

TEST_F(samples, server)
{
	RUNS("samples/server");
}

TEST_F(samples, example_of_the_manual)
{
	RUNS("examples/manual");
}

#ifdef HAVE_README
TEST_F(samples, example_of_the_readme)
{
	RUNS("examples/readme");
}
#endif

TEST_F(samples, example_of_peer)
{
	RUNS("examples/peer");
}

TEST_F(samples, example_of_node)
{
	RUNS("examples/node");
}

TEST_F(samples, example_of_handle)
{
	RUNS("examples/handle");
}

TEST_F(samples, example_of_send)
{
	RUNS("examples/send");
}

TEST_F(samples, example_of_recv)
{
	RUNS("examples/recv");
}

TEST_F(samples, example_of_send_recv)
{
	RUNS("examples/send_recv");
}

TEST_F(samples, example_of_socket)
{
	RUNS("examples/socket");
}

/* Whoever adds a program adds a test. */
static int n_programs;

static int count_program(const char *path, const struct stat *st, int type,
			 struct FTW *ftw)
{
	n_programs += ftw->level == 1 && type == FTW_F && st->st_mode & 0100;
	return 0;
}

TEST_F(samples, none_is_left_out)
{
	char path[PATH_MAX + 64];

	n_programs = 0;
	snprintf(path, sizeof(path), "%s/samples", self->dir);
	ASSERT_EQ(0, nftw(path, count_program, 8, FTW_PHYS));
	/* And `demo', which runs others. */
	EXPECT_EQ(9, n_programs);

	n_programs = 0;
	snprintf(path, sizeof(path), "%s/examples", self->dir);
	ASSERT_EQ(0, nftw(path, count_program, 8, FTW_PHYS));
#ifdef HAVE_README
	EXPECT_EQ(9, n_programs);
#else
	EXPECT_EQ(8, n_programs);
#endif
}

TEST_HARNESS_MAIN
