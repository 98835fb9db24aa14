// SPDX-License-Identifier: GPL-2.0-only
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include <linux/bus1.h>

/* Give the handle @id of the peer @from to the peer @to; its ID there. */
static uint64_t transfer(int from, uint64_t id, int to)
{
	struct bus1_cmd_handle_transfer cmd = {
		.src_handle = id,
		.dst_fd = to,
		.dst_handle = BUS1_HANDLE_INVALID,
	};

	if (ioctl(from, BUS1_CMD_HANDLE_TRANSFER, &cmd) < 0)
		err(1, "HANDLE_TRANSFER");
	return cmd.dst_handle;
}

int main(void)
{
	int server = open("/dev/bus1", O_RDWR | O_CLOEXEC);
	int client = open("/dev/bus1", O_RDWR | O_CLOEXEC);
	uint64_t id;

	if (server < 0 || client < 0)
		err(1, "/dev/bus1");

	id = transfer(server, 0x100, client);	/* creates the node 0x100 */
	printf("the client reaches node 0x100 by 0x%llx\n",
	       (unsigned long long)id);
	if (!(id & BUS1_HANDLE_FLAG_REMOTE))
		errx(1, "this is no node of somebody else");
	if (transfer(server, 0x100, client) != id)
		errx(1, "a second ID for one node");

	if (ioctl(client, BUS1_CMD_HANDLE_RELEASE, &id) < 0 ||
	    ioctl(client, BUS1_CMD_HANDLE_RELEASE, &id) < 0)
		err(1, "HANDLE_RELEASE");
	if (ioctl(client, BUS1_CMD_HANDLE_RELEASE, &id) == 0 || errno != ENXIO)
		errx(1, "the handle is still there");
	printf("released as often as it was shown, it is gone\n");
	return 0;
}
