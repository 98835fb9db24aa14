// SPDX-License-Identifier: GPL-2.0-only
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <linux/bus1.h>

#define POOL_SIZE	(1UL << 20)
#define ROUNDS		1000

static struct { int fd; char *pool; } server, client;
static uint64_t to_server, to_client;

static void open_peer(int *fd, char **pool)
{
	*fd = open("/dev/bus1", O_RDWR | O_CLOEXEC);
	if (*fd < 0)
		err(1, "/dev/bus1");
	*pool = mmap(NULL, POOL_SIZE, PROT_READ, MAP_SHARED, *fd, 0);
	if (*pool == MAP_FAILED)
		err(1, "mmap");
}

static uint64_t give(int from, int to)
{
	struct bus1_cmd_handle_transfer cmd = {
		.src_handle = 0x100,
		.dst_fd = to,
		.dst_handle = BUS1_HANDLE_INVALID,
	};

	if (ioctl(from, BUS1_CMD_HANDLE_TRANSFER, &cmd) < 0)
		err(1, "HANDLE_TRANSFER");
	return cmd.dst_handle;
}

/* Send numbers, and receive each plus one. Who begins has something to send. */
static uint32_t talk(int fd, const char *pool, uint64_t to, uint64_t begin)
{
	uint32_t number = 0;
	struct iovec vec = { &number, sizeof(number) };
	struct bus1_msg msg;
	uint64_t slice;
	struct bus1_cmd_send_recv cmd = {
		.flags = begin,
		.ptr_slices = (uintptr_t)&slice,
		.ptr_messages = (uintptr_t)&msg,
		.n_messages = 1,
		.max_offset = POOL_SIZE,
		.timeout = (uint64_t)-1,
		.send = {
			.ptr_destinations = (uintptr_t)&to,
			.n_destinations = 1,
			.ptr_vecs = (uintptr_t)&vec,
			.n_vecs = 1,
		},
	};

	while (number < ROUNDS) {
		/* The argument says what is left to do: a signal does no harm. */
		while (ioctl(fd, BUS1_CMD_SEND_RECV, &cmd) < 0)
			if (errno != EINTR)
				err(1, "SEND_RECV");
		if (msg.type != BUS1_MSG_DATA)
			break;			/* the other side is gone */
		memcpy(&number, pool + msg.offset, sizeof(number));
		number++;
		slice = msg.offset;
		cmd.n_slices = 1;
		cmd.flags = BUS1_SEND_RECV_FLAG_SEND;
	}
	return number;
}

int main(void)
{
	uint32_t last;
	int status;
	pid_t pid;

	open_peer(&server.fd, &server.pool);
	open_peer(&client.fd, &client.pool);
	to_server = give(server.fd, client.fd);
	to_client = give(client.fd, server.fd);

	pid = fork();
	if (pid < 0)
		err(1, "fork");
	if (pid == 0) {
		alarm(60);
		close(client.fd);
		talk(server.fd, server.pool, to_client, 0);
		return 0;
	}
	alarm(60);
	close(server.fd);
	last = talk(client.fd, client.pool, to_server, BUS1_SEND_RECV_FLAG_SEND);
	close(client.fd);

	printf("%u messages, one system call of each side for two of them\n",
	       last);
	if (waitpid(pid, &status, 0) != pid || status || last < ROUNDS)
		errx(1, "the conversation ended too early");
	return 0;
}
