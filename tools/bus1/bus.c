// SPDX-License-Identifier: GPL-2.0-only
/*
 * Commands of /dev/bus1.
 */
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>
#include "bus1.h"

#define DEVICE		"/dev/bus1"
#define POOL_SIZE	(32UL << 20)

__attribute__((noreturn)) static void open_failed(void)
{
	if (errno == ENOENT || errno == ENODEV || errno == ENXIO)
		die("there is no " DEVICE ": the module is not loaded; try 'modprobe bus1'");
	if (errno == EACCES || errno == EPERM)
		die("no permission for " DEVICE ": see its mode, or be root");
	die("cannot open " DEVICE ": %s", strerror(errno));
}

/* Fail with a word of help if there is no bus, without being on it. */
void bus_check(void)
{
	if (access(DEVICE, R_OK | W_OK))
		open_failed();
}

/* A peer without its pool, or -1. */
int bus_open_fd(void)
{
	return open(DEVICE, O_RDWR | O_CLOEXEC | O_NONBLOCK);
}

void bus_open(struct bus *bus)
{
	bus->fd = bus_open_fd();
	if (bus->fd < 0)
		open_failed();
	bus->pool_size = POOL_SIZE;
	bus->pool = mmap(NULL, bus->pool_size, PROT_READ, MAP_SHARED, bus->fd, 0);
	if (bus->pool == MAP_FAILED)
		die("cannot map the pool: %s", strerror(errno));
}

void bus_close(struct bus *bus)
{
	munmap((void *)bus->pool, bus->pool_size);
	close(bus->fd);
}

static int bus_ioctl(int fd, unsigned long cmd, void *arg)
{
	return ioctl(fd, cmd, arg) < 0 ? -errno : 0;
}

int bus_transfer(int src_fd, uint64_t id, int dst_fd, uint64_t *idp)
{
	struct bus1_cmd_handle_transfer transfer = {
		.src_handle = id,
		.dst_fd = dst_fd,
		.dst_handle = BUS1_HANDLE_INVALID,
	};
	int r;

	r = bus_ioctl(src_fd, BUS1_CMD_HANDLE_TRANSFER, &transfer);
	*idp = transfer.dst_handle;
	if (!r && *idp == BUS1_HANDLE_INVALID)
		r = -EHOSTUNREACH;
	return r;
}

int bus_send(int fd, const struct bus1_cmd_send *send)
{
	return bus_ioctl(fd, BUS1_CMD_SEND, (void *)send);
}

/* Without @files those of the message are dropped. */
int bus_recv(struct bus *bus, struct bus1_cmd_recv *recv, bool files)
{
	memset(recv, 0, sizeof(*recv));
	recv->flags = files ? BUS1_RECV_FLAG_INSTALL_FDS : 0;
	recv->max_offset = bus->pool_size;
	return bus_ioctl(bus->fd, BUS1_CMD_RECV, recv);
}

int bus_handle_release(int fd, uint64_t id)
{
	return bus_ioctl(fd, BUS1_CMD_HANDLE_RELEASE, &id);
}

int bus_slice_release(int fd, uint64_t offset)
{
	return bus_ioctl(fd, BUS1_CMD_SLICE_RELEASE, &offset);
}

const unsigned char *bus_bytes(const struct bus *bus,
			       const struct bus1_cmd_recv *recv)
{
	return bus->pool + recv->msg.offset;
}

uint64_t bus_handle(const struct bus *bus, const struct bus1_cmd_recv *recv,
		    size_t i)
{
	uint64_t id;

	memcpy(&id, bus_bytes(bus, recv) + ((recv->msg.n_bytes + 7) & ~7ULL) +
	       i * sizeof(id), sizeof(id));
	return id;
}

int bus_file(const struct bus *bus, const struct bus1_cmd_recv *recv, size_t i)
{
	int fd;

	memcpy(&fd, bus_bytes(bus, recv) + ((recv->msg.n_bytes + 7) & ~7ULL) +
	       recv->msg.n_handles * sizeof(uint64_t) + i * sizeof(fd),
	       sizeof(fd));
	return fd;
}
