// SPDX-License-Identifier: GPL-2.0-only
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/bus1.h>

#define POOL_SIZE (1UL << 20)
#define ALIGN8(n) (((n) + 7) & ~7ULL)

int main(void)
{
	uint64_t me = 0x100, object = 0x200, offset;
	char text[] = "see the file", line[16] = "";
	struct iovec vec = { text, sizeof(text) };
	int fd, file, *files;
	struct bus1_cmd_send send = {
		.ptr_destinations = (uintptr_t)&me,
		.n_destinations = 1,
		.ptr_vecs = (uintptr_t)&vec,
		.n_vecs = 1,
		.ptr_handles = (uintptr_t)&object,
		.n_handles = 1,
		.ptr_fds = (uintptr_t)&file,
		.n_fds = 1,
	};
	struct bus1_cmd_recv recv = {
		.flags = BUS1_RECV_FLAG_INSTALL_FDS,
		.max_offset = POOL_SIZE,
	};
	uint64_t *handles;
	char *pool, *slice;

	fd = open("/dev/bus1", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		err(1, "/dev/bus1");
	pool = mmap(NULL, POOL_SIZE, PROT_READ, MAP_SHARED, fd, 0);
	if (pool == MAP_FAILED)
		err(1, "mmap");

	file = memfd_create("example", MFD_CLOEXEC);
	if (file < 0 || pwrite(file, "here it is", 10, 0) != 10)
		err(1, "memfd");

	/* A peer can send to a node of its own. */
	if (ioctl(fd, BUS1_CMD_SEND, &send) < 0)
		err(1, "SEND");
	close(file);
	if (ioctl(fd, BUS1_CMD_RECV, &recv) < 0)
		err(1, "RECV");

	slice = pool + recv.msg.offset;
	handles = (uint64_t *)(slice + ALIGN8(recv.msg.n_bytes));
	files = (int *)(handles + recv.msg.n_handles);
	if (recv.msg.n_handles != 1 || recv.msg.n_fds != 1)
		errx(1, "something is missing");

	if (pread(files[0], line, sizeof(line) - 1, 0) < 0)
		err(1, "pread");
	printf("\"%s\", handle 0x%llx, file \"%s\"\n", slice,
	       (unsigned long long)handles[0], line);
	if (strcmp(slice, text) || handles[0] != object ||
	    strcmp(line, "here it is"))
		errx(1, "this is not what was sent");

	close(files[0]);
	/* The extra reference that the message has brought. */
	if (ioctl(fd, BUS1_CMD_HANDLE_RELEASE, &handles[0]) < 0)
		err(1, "HANDLE_RELEASE");
	offset = recv.msg.offset;
	if (ioctl(fd, BUS1_CMD_SLICE_RELEASE, &offset) < 0)
		err(1, "SLICE_RELEASE");
	return 0;
}
