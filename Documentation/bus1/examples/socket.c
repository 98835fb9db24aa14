// SPDX-License-Identifier: GPL-2.0-only
#include <err.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

/* The service: a name comes, a greeting goes. */
static void run_service(int fd)
{
	char name[256];
	ssize_t n;

	while ((n = recv(fd, name, sizeof(name), 0)) > 0) {
		struct iovec vecs[] = { { "hello, ", 7 }, { name, n } };
		struct msghdr reply = { .msg_iov = vecs, .msg_iovlen = 2 };

		if (sendmsg(fd, &reply, MSG_NOSIGNAL) < 0)
			err(1, "sendmsg");
	}
}

static void run_client(int fd)
{
	char text[256];
	ssize_t n;

	if (send(fd, "world", 5, MSG_NOSIGNAL) != 5)
		err(1, "send");
	n = recv(fd, text, sizeof(text), 0);
	if (n < 0)
		err(1, "recv");
	printf("the service says \"%.*s\"\n", (int)n, text);
	if (n != 12 || memcmp(text, "hello, world", 12))
		errx(1, "that is not what it should say");
}

int main(void)
{
	int fds[2], status;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, fds) < 0)
		err(1, "socketpair");
	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (pid == 0) {
		close(fds[0]);
		run_client(fds[1]);
		return 0;
	}
	close(fds[1]);
	run_service(fds[0]);
	if (waitpid(pid, &status, 0) != pid || status)
		errx(1, "the client failed");
	return 0;
}
