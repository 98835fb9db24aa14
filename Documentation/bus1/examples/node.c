// SPDX-License-Identifier: GPL-2.0-only
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/ioctl.h>

#include <linux/bus1.h>

int main(void)
{
	/* Any numbers do that have bits 0 and 1 clear. */
	uint64_t nodes[] = { 0x100, 0x200 };
	struct bus1_cmd_send create = {
		.ptr_handles = (uintptr_t)nodes,
		.n_handles = 2,
	};
	struct bus1_cmd_nodes_destroy destroy = {
		.ptr_nodes = (uintptr_t)nodes,
		.n_nodes = 2,
	};
	struct bus1_cmd_recv recv = { .max_offset = BUS1_OFFSET_INVALID };
	int fd, i;

	fd = open("/dev/bus1", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		err(1, "/dev/bus1");

	if (ioctl(fd, BUS1_CMD_SEND, &create) < 0)
		err(1, "SEND to nobody");
	if (ioctl(fd, BUS1_CMD_NODES_DESTROY, &destroy) < 0)
		err(1, "NODES_DESTROY");

	for (i = 0; i < 2; i++) {
		if (ioctl(fd, BUS1_CMD_RECV, &recv) < 0)
			err(1, "RECV");
		if (recv.msg.type != BUS1_MSG_NODE_DESTROY)
			errx(1, "this is another message");
		printf("node 0x%llx is destroyed%s\n",
		       (unsigned long long)recv.msg.destination,
		       recv.msg.flags & BUS1_MSG_FLAG_CONTINUE ?
		       ", and at the same time" : "");

		/* The owner's own reference: not pinned any more. */
		if (ioctl(fd, BUS1_CMD_HANDLE_RELEASE, &recv.msg.destination) < 0)
			err(1, "HANDLE_RELEASE");
	}
	return 0;
}
