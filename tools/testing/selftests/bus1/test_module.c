// SPDX-License-Identifier: GPL-2.0-only
/*
 * The module cannot be unloaded while anything of it is in use. That it can be
 * afterwards is tested by whoever runs all the tests.
 */
#include <sys/socket.h>
#include "bus1_test.h"

/*
 * Tries to unload the module, without waiting: 0 or -errno. It would succeed if
 * nothing was in use, so each test has made sure of something that is.
 */
static int module_unload(void)
{
	return syscall(SYS_delete_module, "bus1", O_NONBLOCK) ? -errno : 0;
}

FIXTURE(module) {
	char none;
};

FIXTURE_SETUP(module)
{
	/* Built into the kernel there is nothing to unload. */
	if (access("/sys/module/bus1/refcnt", F_OK))
		SKIP(return, "bus1 is not a module here");
}

FIXTURE_TEARDOWN(module)
{
	struct peer peer;

	/* Nothing has happened: it still works. */
	PEER_OPEN(&peer);
	NODE(&peer, 8);
	EXPECT_EQ(0, bus1_send_str(peer.fd, 8, "still here"));
	RECV_STR(&peer, 8, "still here");
	peer_close(&peer);
}

TEST_F(module, is_in_use_while_a_peer_is_open)
{
	int fd = bus1_open(0);

	ASSERT_LE(0, fd);
	EXPECT_EQ(-EWOULDBLOCK, module_unload());
	ASSERT_EQ(0, bus1_send_str(fd, 8, "x"));
	EXPECT_EQ(-EWOULDBLOCK, module_unload());
	close(fd);
}

TEST_F(module, is_in_use_while_a_disconnected_peer_is_open)
{
	int fd = bus1_open(0);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, bus1_disconnect(fd));
	EXPECT_EQ(-EWOULDBLOCK, module_unload());
	close(fd);
}

TEST_F(module, is_in_use_while_only_a_mapping_is_left)
{
	struct peer peer;
	struct bus1_cmd_recv r;

	PEER_OPEN(&peer);
	ASSERT_EQ(0, bus1_send_str(peer.fd, 8, "x"));
	r = RECV(&peer);
	EXPECT_EQ('x', read_byte(peer.pool + r.msg.offset));
	close(peer.fd);
	EXPECT_EQ(-EWOULDBLOCK, module_unload());
	/* There may be memory still, but nothing that crashes. */
	read_byte(peer.pool + r.msg.offset);
	EXPECT_EQ(-EWOULDBLOCK, module_unload());
	ASSERT_EQ(0, munmap((void *)peer.pool, POOL_SIZE));
}

TEST_F(module, is_in_use_while_only_a_child_has_a_mapping)
{
	int ready = event_new(), go = event_new();
	struct peer peer;
	pid_t pid;

	PEER_OPEN(&peer);
	pid = FORK();
	if (!pid) {
		close(peer.fd);
		event_post(ready);
		event_wait(go);
		_exit(0);
	}
	peer_close(&peer);
	event_wait(ready);
	EXPECT_EQ(-EWOULDBLOCK, module_unload());
	event_post(go);
	WAIT(pid);
}

TEST_F(module, is_in_use_while_a_peer_is_on_its_way)
{
	char control[CMSG_SPACE(sizeof(int))] = {}, byte = 0;
	struct iovec vec = { &byte, 1 };
	struct msghdr msg = {
		.msg_iov = &vec, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	int fd = bus1_open(0), sockets[2];

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0,
				sockets));
	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	ASSERT_EQ(1, sendmsg(sockets[0], &msg, 0));
	close(fd);
	EXPECT_EQ(-EWOULDBLOCK, module_unload());

	ASSERT_EQ(1, recvmsg(sockets[1], &msg, MSG_CMSG_CLOEXEC));
	memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof(fd));
	EXPECT_EQ(0, bus1_disconnect(fd));
	EXPECT_EQ(-EWOULDBLOCK, module_unload());
	close(fd);
	close(sockets[0]);
	close(sockets[1]);
}

TEST_F(module, is_unloaded_by_root_only)
{
	int fd = bus1_open(0);
	pid_t pid;

	ASSERT_LE(0, fd);
	pid = FORK_AS(UID_A);
	if (!pid) {
		EXPECT_EQ(-EPERM, module_unload());
		_exit(_metadata->exit_code);
	}
	WAIT(pid);
	close(fd);
}

TEST_HARNESS_MAIN
