// SPDX-License-Identifier: GPL-2.0-only
/*
 * demo: run hello and causal, and say how to go on from there
 *
 * The two are looked for next to this program. Nothing else is needed: neither
 * a shell, nor /proc.
 */

#include <errno.h>
#include <string.h>
#include <sys/wait.h>

#include "bus1-sample.h"

static const char hello_text[] =
	"Hello: two processes, one message each way";
static const char causal_text[] =
	"Cause before effect: A tells B and C that a link is up; B, hearing it, calls C";
static const char load_text[] =
	"On your own machine, in this source tree:";
static const char load_help[] =
	"  make modules && sudo make install      build bus1.ko for the running kernel\n"
	"  sudo modprobe bus1             load it: /dev/bus1 appears\n"
	"  make -C samples/bus1           build these programs, and run them:\n"
	"  samples/bus1/demo\n"
	"  Secure Boot, permissions, troubleshooting: README.md\n";

static void title(const char *text)
{
	printf("\n%s%s%s\n", BOLD, text, PLAIN);
}

/* Run the program @name of our own directory, and wait for it. */
static void run(const char *self, const char *name)
{
	const char *slash = strrchr(self, '/');
	char path[4096];
	int len, status;
	pid_t pid;

	len = snprintf(path, sizeof(path), "%.*s%s",
		       slash ? (int)(slash - self + 1) : 0, self, name);
	if (len < 0 || len >= (int)sizeof(path))
		errx(EXIT_FAILURE, "the path of this program is too long");

	pid = fork();
	if (pid < 0)
		err(EXIT_FAILURE, "fork");
	if (pid == 0) {
		execl(path, name, NULL);
		err(EXIT_FAILURE, "cannot run %s", path);
	}

	while (waitpid(pid, &status, 0) < 0)
		if (errno != EINTR)
			err(EXIT_FAILURE, "waitpid");
	if (status != 0)
		errx(EXIT_FAILURE, "%s failed", name);
}

int main(int argc, char **argv)
{
	const char *self = argc > 0 ? argv[0] : "";

	setvbuf(stdout, NULL, _IOLBF, 0);

	title(hello_text);
	run(self, "hello");

	title(causal_text);
	run(self, "causal");

	title(load_text);
	fputs(load_help, stdout);
	return EXIT_SUCCESS;
}
