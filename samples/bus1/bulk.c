// SPDX-License-Identifier: GPL-2.0-only
/*
 * bulk: large data goes as a file
 *
 *	cc bulk.c $(pkg-config --cflags --libs libbus1)
 *
 * A message is copied once, into the pool of each receiver, and counts against its budget.
 * What is large is better put into a memfd: the message carries the file, nothing is copied,
 * and many receivers can map the same memory. It has to be sealed. Then the receiver knows
 * that nobody changes or truncates it while it looks: without, a sender could do both.
 */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <bus1/bus1.h>

#define SIZE	(16UL << 20)
#define SEALS	(F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL)

static int check(int r, const char *what)
{
	if (r < 0)
		errx(EXIT_FAILURE, "%s: %s (%s)", what, strerror(-r), bus1_last_reason());
	return r;
}

/* The sum of all words: shows that the whole of it has arrived. */
static uint64_t sum(const uint64_t *words, size_t size)
{
	uint64_t s = 0;
	size_t i;

	for (i = 0; i < size / sizeof(*words); i++)
		s += words[i];
	return s;
}

/* A file in memory with something in it, that cannot change any more. */
static int make_file(uint64_t *result)
{
	int fd = memfd_create("bulk", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	uint64_t *words;
	size_t i;

	if (fd < 0 || ftruncate(fd, SIZE) < 0)
		err(EXIT_FAILURE, "memfd");
	words = mmap(NULL, SIZE, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (words == MAP_FAILED)
		err(EXIT_FAILURE, "mmap");
	for (i = 0; i < SIZE / sizeof(*words); i++)
		words[i] = i * i;
	*result = sum(words, SIZE);

	/* The seal is refused as long as somebody has it mapped for writing. */
	munmap(words, SIZE);
	if (fcntl(fd, F_ADD_SEALS, SEALS) < 0)
		err(EXIT_FAILURE, "seal");
	return fd;
}

static void run_sender(int peer_fd, uint64_t id)
{
	struct bus1_builder *builder;
	struct bus1_handle *receiver;
	struct bus1_message *reply;
	struct bus1_peer *peer;
	uint64_t expected, got;
	const void *data;
	size_t size;
	int fd;

	check(bus1_peer_new_fd(peer_fd, &peer), "peer of the sender");
	check(bus1_handle_new(peer, id, &receiver), "handle");
	fd = make_file(&expected);

	/* This has no file, and no handle to reply to: it helps nobody, and harms nobody. */
	check(bus1_handle_send(receiver, "rude", 4), "send");

	check(bus1_builder_new(peer, &builder), "new message");
	check(bus1_builder_add_fd(builder, fd), "add file");
	check(bus1_builder_add_destination(builder, receiver), "add destination");
	check(bus1_builder_call(builder, -1, &reply), "call");
	close(fd);

	data = bus1_message_get_data(reply, &size);
	if (size != sizeof(got))
		errx(EXIT_FAILURE, "the receiver did not like it");
	memcpy(&got, data, size);
	printf("sender: %lu MiB sent as a file, the sum %s\n", SIZE >> 20,
	       got == expected ? "agrees" : "does not agree");
	if (got != expected)
		exit(EXIT_FAILURE);
	bus1_message_unref(reply);
	bus1_builder_unref(builder);
	bus1_handle_unref(receiver);
	bus1_peer_unref(peer);
}

/* Look at the file of a message. Senders are not to be trusted: check, then map. */
static int look(struct bus1_message *message, uint64_t *result)
{
	int fd = bus1_message_get_fd(message, 0);
	struct stat st;
	void *map;
	int seals;

	if (fd < 0)
		return fd;
	seals = fcntl(fd, F_GET_SEALS);
	if (seals < 0 || (seals & SEALS) != SEALS)
		return -1;
	if (fstat(fd, &st) < 0 || st.st_size == 0 || st.st_size > (off_t)SIZE)
		return -1;
	map = mmap(NULL, st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (map == MAP_FAILED)
		return -1;
	*result = sum(map, st.st_size);
	munmap(map, st.st_size);
	return 0;
}

static int on_message(struct bus1_message *message, void *userdata)
{
	struct bus1_builder *reply;
	bool *done = userdata;
	uint64_t result;

	if (bus1_message_get_type(message) != BUS1_TYPE_DATA) {
		*done = true;
		return 0;
	}
	check(bus1_builder_new(bus1_message_get_peer(message), &reply), "new message");
	if (look(message, &result) == 0)
		check(bus1_builder_add_data(reply, &result, sizeof(result)), "add");
	/* What comes of a sender must not end the receiver. */
	if (bus1_builder_reply(reply, message) < 0)
		printf("receiver: cannot reply: %s\n", bus1_last_reason());
	bus1_builder_unref(reply);
	return 0;
}

int main(void)
{
	struct bus1_message *message;
	struct bus1_peer *peer;
	struct bus1_node *node;
	bool done = false;
	int fd, status;
	uint64_t id;
	pid_t pid;

	setvbuf(stdout, NULL, _IOLBF, 0);
	alarm(300);
	check(bus1_peer_new(&peer), "cannot open /dev/bus1");
	check(bus1_node_new(peer, BUS1_ID_AUTO, on_message, &done, &node), "new node");
	fd = open("/dev/bus1", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		err(EXIT_FAILURE, "/dev/bus1");
	check(bus1_handle_transfer_fd(bus1_node_get_handle(node), fd, &id), "transfer");

	pid = fork();
	if (pid < 0)
		err(EXIT_FAILURE, "fork");
	if (pid == 0) {
		alarm(300);
		run_sender(fd, id);
		return EXIT_SUCCESS;
	}
	close(fd);
	while (!done) {
		check(bus1_peer_recv(peer, -1, &message), "receive");
		check(bus1_message_dispatch(message), "dispatch");
		bus1_message_unref(message);
	}
	if (waitpid(pid, &status, 0) != pid || status)
		errx(EXIT_FAILURE, "the sender failed");
	bus1_node_unref(node);
	bus1_peer_unref(peer);
	return EXIT_SUCCESS;
}
