// SPDX-License-Identifier: GPL-2.0-only
/*
 * The memory of a pool is charged to the cgroup of whoever opened the peer, also
 * if it is others that fill it; and when that cgroup has no more, then it is
 * the sender that is told.
 */
#include "bus1_msg.h"

#define CGROUPS		"/sys/fs/cgroup"
#define MIB		(1024 * 1024LL)
/* What the kernel may keep at hand for a cgroup, on all CPUs. */
#define SLACK		(MIB + MIB / 2)
#define CHUNK		65536UL
/*
 * Pages that a CPU may have charged ahead, MEMCG_CHARGE_BATCH of the kernel: they are in
 * memory.current, which does not change when they are used. try_charge_memcg() charges as
 * many anew once there are too few of them; since it looks at gfpflags_allow_spinning()
 * (7.3 does, 6.12 does not), not for pages that are asked for without any reclaim, as the
 * blocks of a pool are. So what a test sees may be less than what it uses, and what is
 * refused on one CPU may be there on another one.
 */
#define AHEAD		64

/* Writes to, or reads from, the file @name of the cgroup @cgroup. */
static int cgroup_write(const char *cgroup, const char *name, const char *text)
{
	char path[256];
	int fd, r;

	snprintf(path, sizeof(path), "%s/%s", cgroup, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	r = write(fd, text, strlen(text)) < 0 ? -errno : 0;
	close(fd);
	return r;
}

static long long cgroup_number(const char *cgroup, const char *name)
{
	char path[256];

	snprintf(path, sizeof(path), "%s/%s", cgroup, name);
	return read_number(path);
}

/* How often did @event happen? */
static long long cgroup_events(const char *cgroup, const char *event)
{
	char path[256], name[64];
	long long n = -1, value;
	FILE *f;

	snprintf(path, sizeof(path), "%s/memory.events", cgroup);
	f = fopen(path, "re");
	while (f && fscanf(f, "%63s %lld", name, &value) == 2)
		if (!strcmp(name, event))
			n = value;
	if (f)
		fclose(f);
	return n;
}

static bool has_memcg(void)
{
	char text[256] = "";
	int fd = open(CGROUPS "/cgroup.controllers", O_RDONLY | O_CLOEXEC);
	bool has;

	has = fd >= 0 && read(fd, text, sizeof(text) - 1) > 0 &&
	      strstr(text, "memory");
	if (fd >= 0)
		close(fd);
	return has;
}

FIXTURE(memcg) {
	char home[192], cgroup[192];
	struct net net;		/* the cgroup pays for b, and for b only */
	__u8 data[CHUNK];
};

/* Where this process is. */
static void t_find_home(struct __test_metadata *_metadata, char *home,
			size_t size)
{
	char line[128] = "";
	FILE *f = fopen("/proc/self/cgroup", "re");

	ASSERT_NE(NULL, f);
	while (fgets(line, sizeof(line), f))
		if (!strncmp(line, "0::/", 4))
			break;
	fclose(f);
	ASSERT_EQ(0, strncmp(line, "0::/", 4));
	line[strcspn(line, "\n")] = 0;
	snprintf(home, size, CGROUPS "%s", line + 3);
}

FIXTURE_SETUP(memcg)
{
	self->net.a.fd = -1;
	self->net.b.fd = -1;
	self->net.c.fd = -1;
	if (!has_memcg())
		SKIP(return, "this kernel has no memory controller in "
		     CGROUPS);
	t_find_home(_metadata, self->home, sizeof(self->home));
	snprintf(self->cgroup, sizeof(self->cgroup), CGROUPS "/bus1-test-%d",
		 getpid());
	ASSERT_EQ(0, cgroup_write(CGROUPS, "cgroup.subtree_control",
				  "+memory"));
	ASSERT_EQ(0, mkdir(self->cgroup, 0755));
	pattern_fill(self->data, sizeof(self->data), 1);

	PEER_OPEN(&self->net.a);
	PEER_OPEN(&self->net.c);
	ASSERT_EQ(0, cgroup_write(self->cgroup, "cgroup.procs", "0"));
	PEER_OPEN(&self->net.b);
	ASSERT_EQ(0, cgroup_write(self->home, "cgroup.procs", "0"));
	NODE(&self->net.b, NODE_B);
	NODE(&self->net.c, NODE_C);
	self->net.ab = TRANSFER(&self->net.b, NODE_B, &self->net.a);
	self->net.ac = TRANSFER(&self->net.c, NODE_C, &self->net.a);
}

FIXTURE_TEARDOWN(memcg)
{
	net_deinit(&self->net);
	cgroup_write(self->home, "cgroup.procs", "0");
	rmdir(self->cgroup);
}

static long long charged(FIXTURE_DATA(memcg) *self)
{
	return cgroup_number(self->cgroup, "memory.current");
}

/* Waits until nearly nothing is charged: some is given back late. */
static void wait_uncharged(FIXTURE_DATA(memcg) *self, long long most)
{
	while (charged(self) > most)
		sched_yield();
}

static int send_chunk(FIXTURE_DATA(memcg) *self)
{
	return bus1_send_data(self->net.a.fd, self->net.ab, self->data, CHUNK);
}

/* Sends until it is refused, on each CPU. The number of messages, or an error. */
static int fill(FIXTURE_DATA(memcg) *self)
{
	int n = 0, before, cpu, r = -EXFULL;
	cpu_set_t all, one;

	if (sched_getaffinity(0, sizeof(all), &all))
		return -errno;
	do {
		before = n;
		for (cpu = 0; cpu < CPU_SETSIZE && r == -EXFULL; cpu++) {
			if (!CPU_ISSET(cpu, &all))
				continue;
			CPU_ZERO(&one);
			CPU_SET(cpu, &one);
			if (sched_setaffinity(0, sizeof(one), &one))
				return -errno;
			while (!(r = send_chunk(self)))
				n++;
		}
	} while (n > before && r == -EXFULL);
	if (sched_setaffinity(0, sizeof(all), &all))
		return -errno;
	return r == -EXFULL ? n : r;
}

static void t_recv_chunks(struct __test_metadata *_metadata,
			  FIXTURE_DATA(memcg) *self, int n)
{
	while (n-- > 0)
		RECV_DATA(&self->net.b, NODE_B, self->data, CHUNK);
}

TEST_F(memcg, receiver_pays_for_its_pool)
{
	long long ahead = AHEAD * getpagesize() * sysconf(_SC_NPROCESSORS_ONLN);
	long long before = charged(self), after;
	int i, n = 4 * MIB / CHUNK;

	ASSERT_LE(0, before);
	for (i = 0; i < n; i++)
		ASSERT_EQ(0, send_chunk(self));
	after = charged(self);
	EXPECT_LE(4 * MIB - ahead, after - before);
	EXPECT_GE(4 * MIB + SLACK, after - before);
	/* Looking at it costs no more, and it is there to be used again. */
	t_recv_chunks(_metadata, self, n);
	EXPECT_GE(4 * MIB + SLACK, charged(self) - before);
	for (i = 0; i < n; i++)
		ASSERT_EQ(0, send_chunk(self));
	EXPECT_GE(4 * MIB + SLACK, charged(self) - before);
	/* It is given back with the peer, whoever still maps it. */
	ASSERT_EQ(0, bus1_disconnect(self->net.b.fd));
	wait_uncharged(self, before + SLACK);
}

TEST_F(memcg, idle_memory_is_given_back)
{
	long long before = charged(self);
	int i, n = 4 * MIB / CHUNK;

	for (i = 0; i < n; i++)
		ASSERT_EQ(0, send_chunk(self));
	t_recv_chunks(_metadata, self, n);
	/* Without any command, after a while. */
	wait_uncharged(self, before + SLACK);
	ASSERT_EQ(0, send_chunk(self));
	t_recv_chunks(_metadata, self, 1);
}

TEST_F(memcg, sender_pays_for_nothing)
{
	long long before;
	int i, n = 4 * MIB / CHUNK;
	pid_t pid;

	/* In the cgroup of b now sits who sends to c. */
	pid = FORK();
	if (!pid) {
		ASSERT_EQ(0, cgroup_write(self->cgroup, "cgroup.procs", "0"));
		/* touches the stack and everything else that it needs */
		ASSERT_EQ(0, bus1_send_data(self->net.a.fd, self->net.ac,
					    self->data, CHUNK));
		before = charged(self);
		for (i = 1; i < n; i++)
			ASSERT_EQ(0, bus1_send_data(self->net.a.fd,
						    self->net.ac, self->data,
						    CHUNK));
		EXPECT_GE(before + SLACK, charged(self));
		_exit(_metadata->exit_code);
	}
	WAIT(pid);
}

TEST_F(memcg, no_memory_is_exfull_and_kills_nobody)
{
	struct net_state before;
	int i, n;

	ASSERT_EQ(0, cgroup_write(self->cgroup, "memory.max", "4194304"));
	n = fill(self);
	ASSERT_LE(MIB / (int)CHUNK, n);
	EXPECT_GE(4 * MIB / (int)CHUNK, n);
	EXPECT_GE(4 * MIB, charged(self));
	before = net_state(&self->net);
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(-EXFULL, send_chunk(self));
		EXPECT_SAME(&self->net, &before);
	}
	EXPECT_EQ(0, cgroup_events(self->cgroup, "oom_kill"));
	EXPECT_LT(0, cgroup_events(self->cgroup, "max"));
	/* Nothing was lost, and what is released can be used again. */
	t_recv_chunks(_metadata, self, n);
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-slices"));
	EXPECT_EQ(0, bus1_fdinfo(self->net.b.fd, "bus1-bytes"));
	for (i = 0; i < n; i++)
		ASSERT_EQ(0, send_chunk(self));
	t_recv_chunks(_metadata, self, n);
	/* More is possible as soon as there is more. */
	ASSERT_EQ(0, cgroup_write(self->cgroup, "memory.max", "max"));
	for (i = 0; i < 2 * n && i < 7 * MIB / (int)CHUNK; i++)
		ASSERT_EQ(0, send_chunk(self));
	EXPECT_EQ(0, cgroup_events(self->cgroup, "oom_kill"));
}

TEST_F(memcg, no_memory_is_skipped_with_continue)
{
	const __u64 dst[] = { self->net.ab, self->net.ac };
	struct iovec vec = { self->data, CHUNK };
	__s32 errors[] = { SENTINEL32, SENTINEL32 };

	ASSERT_EQ(0, cgroup_write(self->cgroup, "memory.max", "4194304"));
	ASSERT_LT(0, fill(self));
	EXPECT_EQ(-EXFULL, msg_send(self->net.a.fd, .dst = dst, .n_dst = 2,
				    .errors = errors, .vecs = &vec,
				    .n_vecs = 1));
	EXPECT_EQ(-EXFULL, errors[0]);
	EXPECT_EQ(0, errors[1]);
	RECV_NONE(&self->net.c);
	EXPECT_EQ(0, msg_send(self->net.a.fd, .flags = BUS1_SEND_FLAG_CONTINUE,
			      .dst = dst, .n_dst = 2, .errors = errors,
			      .vecs = &vec, .n_vecs = 1));
	EXPECT_EQ(-EXFULL, errors[0]);
	EXPECT_EQ(0, errors[1]);
	RECV_DATA(&self->net.c, NODE_C, self->data, CHUNK);
	EXPECT_EQ(0, cgroup_events(self->cgroup, "oom_kill"));
}

TEST_HARNESS_MAIN
