// SPDX-License-Identifier: GPL-2.0-only
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/bus1.h>

#define N 3

int main(void)
{
	char text[] = "to all of you";
	struct iovec vec = { text, sizeof(text) };
	uint64_t to[N];
	int32_t errors[N];
	struct bus1_cmd_send send = {
		.flags = BUS1_SEND_FLAG_CONTINUE,
		.ptr_destinations = (uintptr_t)to,
		.ptr_errors = (uintptr_t)errors,
		.n_destinations = N,
		.ptr_vecs = (uintptr_t)&vec,
		.n_vecs = 1,
	};
	int sender, receivers[N], i;

	sender = open("/dev/bus1", O_RDWR | O_CLOEXEC);
	if (sender < 0)
		err(1, "/dev/bus1");
	for (i = 0; i < N; i++) {
		struct bus1_cmd_handle_transfer transfer = {
			.src_handle = 0x100,
			.dst_fd = sender,
			.dst_handle = BUS1_HANDLE_INVALID,
		};

		receivers[i] = open("/dev/bus1", O_RDWR | O_CLOEXEC);
		if (receivers[i] < 0)
			err(1, "/dev/bus1");
		if (ioctl(receivers[i], BUS1_CMD_HANDLE_TRANSFER, &transfer) < 0)
			err(1, "HANDLE_TRANSFER");
		to[i] = transfer.dst_handle;
	}
	close(receivers[1]);

	if (ioctl(sender, BUS1_CMD_SEND, &send) < 0)
		err(1, "SEND");
	for (i = 0; i < N; i++)
		printf("receiver %d: %s\n", i,
		       errors[i] ? strerror(-errors[i]) : "sent");
	if (errors[0] || errors[1] != -EHOSTUNREACH || errors[2])
		errx(1, "this is not what happened");

	/* Without the flag it is all or nothing. */
	send.flags = 0;
	if (ioctl(sender, BUS1_CMD_SEND, &send) == 0 || errno != EHOSTUNREACH)
		errx(1, "it was sent to somebody who is gone");
	return 0;
}
