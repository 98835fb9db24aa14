// SPDX-License-Identifier: GPL-2.0-only
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include <linux/bus1.h>

int main(void)
{
	struct bus1_cmd_peer_reset limits = { 0 };
	struct bus1_cmd_peer_reset reset = {
		.flags = BUS1_PEER_RESET_FLAG_FLUSH,
		.peer_flags = (__u64)-1,
		.max_slices = 16,
		.max_handles = (__u32)-1,	/* stays as it is */
		.max_inflight_bytes = 65536,
		.max_inflight_fds = 0,
	};
	int fd;

	fd = open("/dev/bus1", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		err(1, "/dev/bus1");

	if (ioctl(fd, BUS1_CMD_PEER_RESET, &reset) < 0)
		err(1, "PEER_RESET");
	if (ioctl(fd, BUS1_CMD_PEER_QUERY, &limits) < 0)
		err(1, "PEER_QUERY");
	printf("at most %u slices, %u bytes, %u files\n", limits.max_slices,
	       limits.max_inflight_bytes, limits.max_inflight_fds);
	if (limits.max_slices != 16 || limits.max_handles == (__u32)-1)
		errx(1, "these are not the limits that were set");

	if (ioctl(fd, BUS1_CMD_PEER_DISCONNECT, 0) < 0)
		err(1, "PEER_DISCONNECT");
	if (ioctl(fd, BUS1_CMD_PEER_QUERY, &limits) == 0 || errno != ESHUTDOWN)
		errx(1, "the peer is still there");
	printf("and it has left the bus\n");
	return 0;
}
