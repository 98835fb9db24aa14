// SPDX-License-Identifier: GPL-2.0-only
/*
 * User namespaces: budgets belong to the kernel's users, whatever they are called
 * inside; and everybody sees the names that are theirs.
 */
#include "bus1_budget.h"

#define UID_INSIDE	0
#define UID_OVERFLOW	65534

/* Maps @inside of the namespace of @pid to @outside. */
static int map_uid(pid_t pid, uid_t inside, uid_t outside)
{
	char path[64], text[64];
	int fd, n, r;

	snprintf(path, sizeof(path), "/proc/%d/uid_map", pid);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	n = snprintf(text, sizeof(text), "%u %u 1\n", inside, outside);
	r = write(fd, text, n) == n ? 0 : -errno;
	close(fd);
	return r;
}

/* What @key says of the descriptor @fd of the process @pid. */
static long long fdinfo_of(pid_t pid, int fd, const char *key)
{
	char path[64], line[512];
	long long value = -1;
	size_t n = strlen(key);
	FILE *f;

	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", pid, fd);
	f = fopen(path, "re");
	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, n) && line[n] == ':') {
			value = strtoll(line + n + 1, NULL, 0);
			break;
		}
	if (f)
		fclose(f);
	return value;
}

FIXTURE(userns) {
	struct parameters parameters;
	struct peer outside;	/* of UID_A, opened out here */
	struct peer other;	/* of root */
	int mapped, ready, go;	/* events, between parent and children */
	pid_t pid;
};

FIXTURE_SETUP(userns)
{
	PARAMETERS_SAVE(&self->parameters);
	self->mapped = event_new();
	self->go = event_new();
	self->ready = event_new();
	PEER_OPEN_AS(&self->outside, UID_A);
	PEER_OPEN(&self->other);
}

FIXTURE_TEARDOWN(userns)
{
	peer_close(&self->outside);
	peer_close(&self->other);
	close(self->mapped);
	close(self->go);
	close(self->ready);
	parameters_restore(&self->parameters);
}

/*
 * Forks a child in a namespace of its own, where UID_INSIDE stands for @uid. In
 * the child, that is who it is when this returns 0.
 */
static pid_t t_fork_inside(struct __test_metadata *_metadata,
			   FIXTURE_DATA(userns) *self, uid_t uid)
{
	pid_t pid = FORK();

	if (!pid) {
		ASSERT_EQ(0, unshare(CLONE_NEWUSER)) {
			TH_LOG("unshare: %s", strerror(errno));
		}
		event_post(self->ready);
		event_wait(self->mapped);
		ASSERT_EQ(0, syscall(BUS1_SETRESUID, UID_INSIDE, UID_INSIDE,
				     UID_INSIDE));
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		prctl(PR_SET_DUMPABLE, 1);
		return 0;
	}
	event_wait(self->ready);
	ASSERT_EQ(0, map_uid(pid, UID_INSIDE, uid));
	event_post(self->mapped);
	return pid;
}

#define FORK_INSIDE(_uid) t_fork_inside(_metadata, self, _uid)

TEST_F(userns, names_are_those_of_the_reader)
{
	int *fd = shared_alloc(sizeof(*fd));
	struct peer peer;
	pid_t pid;

	ASSERT_NE(NULL, fd);
	pid = FORK_INSIDE(UID_A);
	if (!pid) {
		PEER_OPEN(&peer);
		EXPECT_EQ(UID_INSIDE, bus1_fdinfo(peer.fd, "bus1-user"));
		/* One's own, opened by the same user elsewhere. */
		EXPECT_EQ(UID_INSIDE, bus1_fdinfo(self->outside.fd,
						  "bus1-user"));
		/* One who has no name in here. */
		EXPECT_EQ(UID_OVERFLOW, bus1_fdinfo(self->other.fd,
						    "bus1-user"));
		*fd = peer.fd;
		event_post(self->ready);
		event_wait(self->go);
		_exit(_metadata->exit_code);
	}
	event_wait(self->ready);
	EXPECT_EQ(UID_A, fdinfo_of(pid, *fd, "bus1-user"));
	EXPECT_EQ(UID_A, bus1_fdinfo(self->outside.fd, "bus1-user"));
	EXPECT_EQ(0, bus1_fdinfo(self->other.fd, "bus1-user"));
	event_post(self->go);
	WAIT(pid);
}

TEST_F(userns, names_of_senders_are_those_of_the_reader)
{
	__u64 id;
	pid_t pid;

	id = TRANSFER(&self->other, NODE_B, &self->outside);
	pid = FORK_INSIDE(UID_A);
	if (!pid) {
		ASSERT_EQ(0, bus1_send_str(self->outside.fd, id, "x"));
		EXPECT_EQ(UID_INSIDE, bus1_fdinfo(self->other.fd,
						  "bus1-sender"));
		_exit(_metadata->exit_code);
	}
	WAIT(pid);
	EXPECT_EQ(UID_A, bus1_fdinfo(self->other.fd, "bus1-sender"));
	/* Somebody else inside, who does not know UID_A. */
	pid = FORK_INSIDE(UID_B);
	if (!pid) {
		EXPECT_EQ(UID_OVERFLOW, bus1_fdinfo(self->other.fd,
						    "bus1-sender"));
		_exit(_metadata->exit_code);
	}
	WAIT(pid);
	RECV_STR(&self->other, NODE_B, "x");
	EXPECT_EQ(-1, bus1_fdinfo(self->other.fd, "bus1-sender"));
}

/* Creates nodes until there is no more budget. Their number, or an error. */
static int create_all(int fd)
{
	int n, r;

	for (n = 0;; n++) {
		r = bus1_nodes_create(fd, &(__u64){ 0x10000 + 8 * n }, 1);
		if (r)
			return r == -EDQUOT ? n : r;
	}
}

TEST_F(userns, peers_inside_count_for_the_user_outside)
{
	struct peer peer;
	pid_t pid;

	ASSERT_EQ(0, parameter_set(HANDLES, 24));
	NODE(&self->outside, 0x8);
	pid = FORK_INSIDE(UID_A);
	if (!pid) {
		PEER_OPEN(&peer);
		EXPECT_EQ(0, bus1_fdinfo(peer.fd, "bus1-handles"));
		EXPECT_EQ(1, bus1_fdinfo(peer.fd, "bus1-user-handles"));
		EXPECT_EQ(23, create_all(peer.fd));
		event_post(self->ready);
		event_wait(self->go);
		_exit(_metadata->exit_code);
	}
	event_wait(self->ready);
	EXPECT_EQ(24, bus1_fdinfo(self->outside.fd, "bus1-user-handles"));
	EXPECT_EQ(1, bus1_fdinfo(self->outside.fd, "bus1-handles"));
	EXPECT_EQ(-EDQUOT, bus1_nodes_create(self->outside.fd,
					     &(__u64){ 0x10 }, 1));
	/* It is nobody else's, whatever it is called inside. */
	EXPECT_EQ(0, bus1_fdinfo(self->other.fd, "bus1-user-handles"));
	NODE(&self->other, 0x8);
	event_post(self->go);
	WAIT(pid);
	EXPECT_EQ(1, bus1_fdinfo(self->outside.fd, "bus1-user-handles"));
	EXPECT_EQ(23, create_all(self->outside.fd));
}

TEST_F(userns, same_name_in_two_namespaces_is_two_users)
{
	struct peer peer;
	pid_t pid[2];
	int i;

	ASSERT_EQ(0, parameter_set(HANDLES, 24));
	for (i = 0; i < 2; i++) {
		pid[i] = FORK_INSIDE(i ? UID_B : UID_A);
		if (!pid[i]) {
			PEER_OPEN(&peer);
			EXPECT_EQ(UID_INSIDE, bus1_fdinfo(peer.fd,
							  "bus1-user"));
			EXPECT_EQ(24, create_all(peer.fd));
			event_post(self->ready);
			event_wait(self->go);
			_exit(_metadata->exit_code);
		}
		event_wait(self->ready);
	}
	for (i = 0; i < 2; i++)
		event_post(self->go);
	for (i = 0; i < 2; i++)
		WAIT(pid[i]);
}

/* Nobody without privileges gets a second budget by becoming root inside. */
TEST_F(userns, unprivileged_namespace_is_no_way_out)
{
	pid_t pid;

	ASSERT_EQ(0, parameter_set(HANDLES, 24));
	pid = FORK_AS(UID_A);
	if (!pid) {
		struct peer first, second;

		PEER_OPEN(&first);
		NODE(&first, 8);
		ASSERT_EQ(0, unshare(CLONE_NEWUSER)) {
			TH_LOG("unshare: %s", strerror(errno));
		}
		/* Without a name it still is who it was. */
		PEER_OPEN(&second);
		EXPECT_EQ(UID_OVERFLOW, bus1_fdinfo(second.fd, "bus1-user"));
		EXPECT_EQ(1, bus1_fdinfo(second.fd, "bus1-user-handles"));
		peer_close(&second);
		ASSERT_EQ(0, map_uid(getpid(), UID_INSIDE, UID_A));
		PEER_OPEN(&second);
		EXPECT_EQ(UID_INSIDE, bus1_fdinfo(second.fd, "bus1-user"));
		EXPECT_EQ(23, create_all(second.fd));
		_exit(_metadata->exit_code);
	}
	WAIT(pid);
}

TEST_HARNESS_MAIN
