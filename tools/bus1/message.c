// SPDX-License-Identifier: GPL-2.0-only
/*
 * bus1 send, recv, serve: try the bus from a shell.
 *
 * There are no names on the bus. Who receives listens on a unix socket. To whoever
 * connects it sends a courier: a new peer that holds nothing but a handle to its
 * node. The other side moves the handle to its own peer, and closes the courier.
 * Neither of both gets its hands on the other's peer.
 */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bus1.h"

#define NODE		0x1000ULL	/* where messages, or replies, arrive */
#define NAMES_MAX	256
#define FILES_MAX	BUS1_FD_MAX

static volatile sig_atomic_t stopped;
static char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)];

/* A name stands for a socket where only the user can make one. */
static void socket_address(const char *name, struct sockaddr_un *address)
{
	const char *dir = getenv("XDG_RUNTIME_DIR");
	int n;

	memset(address, 0, sizeof(*address));
	address->sun_family = AF_UNIX;
	if (!*name)
		usage("a name is empty");
	if (strchr(name, '/')) {
		n = snprintf(address->sun_path, sizeof(address->sun_path), "%s",
			     name);
	} else {
		if (!dir || !*dir)
			dir = getuid() ? NULL : "/run";
		if (!dir)
			die("there is no XDG_RUNTIME_DIR for '%s': use a path, as ./%s",
			    name, name);
		n = snprintf(address->sun_path, sizeof(address->sun_path),
			     "%s/bus1-%s", dir, name);
	}
	if (n >= (int)sizeof(address->sun_path))
		usage("the name '%s' is too long", name);
}

static int socket_new(void)
{
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	if (fd < 0)
		die("cannot make a socket: %s", strerror(errno));
	return fd;
}

static void socket_remove(void)
{
	unlink(socket_path);
}

static int socket_listen(const char *name, mode_t mode)
{
	struct sockaddr_un address;
	struct stat st;
	mode_t mask;
	int fd, r;

	socket_address(name, &address);
	fd = socket_new();
	/* One that nobody listens on any more was left behind */
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
		die("'%s' is being served already", name);
	if (errno == ECONNREFUSED && !lstat(address.sun_path, &st) &&
	    S_ISSOCK(st.st_mode))
		unlink(address.sun_path);
	close(fd);

	fd = socket_new();
	mask = umask(0777 & ~mode);
	r = bind(fd, (struct sockaddr *)&address, sizeof(address));
	umask(mask);
	if (r || listen(fd, 64))
		die("cannot listen on %s: %s", address.sun_path, strerror(errno));
	strcpy(socket_path, address.sun_path);
	atexit(socket_remove);
	return fd;
}

/* Give whoever connects a courier. */
static void socket_serve(int listener, const struct bus *bus)
{
	char control[CMSG_SPACE(sizeof(int))] = {};
	struct iovec vec;
	struct msghdr msg = {
		.msg_iov = &vec, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	struct timeval timeout = { .tv_sec = 1 };
	struct bus courier;
	uint64_t id;
	int fd;

	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0)
		return;
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	bus_open(&courier);
	if (!bus_transfer(bus->fd, NODE, courier.fd, &id)) {
		vec.iov_base = &id;
		vec.iov_len = sizeof(id);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &courier.fd, sizeof(int));
		/* Who does not take it gets none */
		if (sendmsg(fd, &msg, MSG_NOSIGNAL) < 0)
			errno = 0;
	}
	bus_close(&courier);
	close(fd);
}

/* Connect, and wait until somebody listens, if that is asked for. */
static int socket_connect(const char *name, double wait)
{
	uint64_t end = now_ns() + wait * 1e9;
	struct sockaddr_un address;
	int fd;

	socket_address(name, &address);
	for (;;) {
		fd = socket_new();
		if (!connect(fd, (struct sockaddr *)&address, sizeof(address)))
			return fd;
		if ((errno != ENOENT && errno != ECONNREFUSED) ||
		    now_ns() >= end)
			break;
		close(fd);
		poll(NULL, 0, 20);
	}
	if (errno == ENOENT || errno == ECONNREFUSED)
		die("nobody serves '%s'", name);
	die("cannot connect to %s: %s", address.sun_path, strerror(errno));
}

/* The handle to the node of whoever serves the name. */
static uint64_t handle_get(const struct bus *bus, const char *name, double wait)
{
	char control[CMSG_SPACE(sizeof(int))];
	uint64_t theirs, id;
	struct iovec vec = { &theirs, sizeof(theirs) };
	struct msghdr msg = {
		.msg_iov = &vec, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg;
	int fd, courier, r;

	fd = socket_connect(name, wait);
	if (recvmsg(fd, &msg, MSG_CMSG_CLOEXEC) != sizeof(theirs))
		die("'%s' gives no handle", name);
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS ||
	    cmsg->cmsg_len != CMSG_LEN(sizeof(int)))
		die("'%s' gives no handle", name);
	memcpy(&courier, CMSG_DATA(cmsg), sizeof(courier));
	r = bus_transfer(courier, theirs, bus->fd, &id);
	if (r)
		die("'%s' gives no handle: %s", name, strerror(-r));
	close(courier);
	close(fd);
	return id;
}

static void *read_all(int fd, size_t *np)
{
	char *data = NULL;
	size_t size = 0;
	ssize_t n;

	*np = 0;
	for (;;) {
		if (*np == size) {
			size = size ? size * 2 : 65536;
			data = xrealloc(data, size);
		}
		n = read(fd, data + *np, size - *np);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			die("cannot read: %s", strerror(errno));
		if (!n)
			return data;
		*np += n;
	}
}

/* Wait for a message; false if none came in time, or a signal did. */
static bool message_wait(struct bus *bus, int listener, double seconds,
			 struct bus1_cmd_recv *recv)
{
	uint64_t now, end = seconds < 0 ? UINT64_MAX : now_ns() + seconds * 1e9;
	struct pollfd fds[] = {
		{ .fd = bus->fd, .events = POLLIN },
		{ .fd = listener, .events = POLLIN },
	};
	int r, ms;

	while (!stopped) {
		r = bus_recv(bus, recv);
		if (!r)
			return true;
		if (r == -ERANGE)
			die("a message does not fit into the pool");
		if (r != -EAGAIN)
			die("cannot receive: %s", strerror(-r));
		now = now_ns();
		if (now >= end)
			return false;
		ms = -1;
		if (end != UINT64_MAX)
			ms = (end - now) / 1000000 >= 1000 ? 1000 :
			     (end - now) / 1000000 + 1;
		if (poll(fds, 2, ms) > 0 && fds[1].revents)
			socket_serve(listener, bus);
	}
	return false;
}

/* Let go of all that came with a message. */
static void message_done(struct bus *bus, const struct bus1_cmd_recv *recv)
{
	size_t i;
	uint64_t id;

	if (recv->msg.type != BUS1_MSG_DATA)
		return;
	for (i = 0; i < recv->msg.n_fds; ++i)
		close(bus_file(bus, recv, i));
	for (i = 0; i < recv->msg.n_handles; ++i) {
		id = bus_handle(bus, recv, i);
		if (id != BUS1_HANDLE_INVALID)
			bus_handle_release(bus->fd, id);
	}
	bus_slice_release(bus->fd, recv->msg.offset);
}

static void write_out(const void *data, size_t n)
{
	fwrite(data, 1, n, stdout);
	fflush(stdout);
	if (ferror(stdout))
		die("cannot write: %s", strerror(errno));
}

static const char *send_problem(int error)
{
	switch (error) {
	case -EHOSTUNREACH:
		return "a receiver is gone";
	case -EDQUOT:
		return "a receiver is out of budget, see 'bus1 peers'";
	case -EXFULL:
		return "the pool of a receiver is full";
	case -EMSGSIZE:
		return "the message is too long";
	case -ENOTUNIQ:
		return "two of the names are one";
	case -EOPNOTSUPP:
		return "such a file cannot be sent";
	default:
		return strerror(-error);
	}
}

int cmd_send(int argc, char **argv)
{
	uint64_t dests[NAMES_MAX], node = NODE;
	const char *text = NULL;
	struct bus1_cmd_recv recv;
	struct iovec vec;
	struct bus1_cmd_send send = {
		.ptr_destinations = (uintptr_t)dests,
		.ptr_vecs = (uintptr_t)&vec,
		.n_vecs = 1,
	};
	int files[FILES_MAX], c, r;
	double wait = 0, timeout = -1;
	bool reply = false;
	struct bus bus;

	opterr = 0;
	while ((c = getopt(argc, argv, "f:m:rt:w:")) >= 0) {
		switch (c) {
		case 'f':
			if (send.n_fds == FILES_MAX)
				usage("too many files");
			files[send.n_fds] = open(optarg, O_RDONLY | O_CLOEXEC);
			if (files[send.n_fds] < 0)
				die("cannot open '%s': %s", optarg, strerror(errno));
			++send.n_fds;
			break;
		case 'm':
			text = optarg;
			break;
		case 'r':
			reply = true;
			break;
		case 't':
			timeout = parse_seconds(optarg);
			break;
		case 'w':
			wait = parse_seconds(optarg);
			break;
		default:
			usage("wrong option '-%c'", optopt);
		}
	}
	if (optind == argc)
		usage("no receiver is given");
	if (argc - optind > NAMES_MAX)
		usage("too many receivers");

	bus_open(&bus);
	for (; optind < argc; ++optind)
		dests[send.n_destinations++] = handle_get(&bus, argv[optind], wait);
	if (text) {
		vec = (struct iovec){ (void *)text, strlen(text) };
	} else {
		vec.iov_base = read_all(STDIN_FILENO, &vec.iov_len);
	}
	send.ptr_fds = (uintptr_t)files;
	if (reply) {
		send.ptr_handles = (uintptr_t)&node;
		send.n_handles = 1;
	}
	r = bus_send(bus.fd, &send);
	if (r)
		die("cannot send: %s", send_problem(r));

	/* One reply from each; who lets go of the handle will not reply */
	while (reply && send.n_destinations--) {
		if (!message_wait(&bus, -1, timeout, &recv))
			die("no reply");
		if (recv.msg.type != BUS1_MSG_DATA)
			die("no reply");
		write_out(bus_bytes(&bus, &recv), recv.msg.n_bytes);
		message_done(&bus, &recv);
	}
	return EXIT_SUCCESS;
}

static void on_signal(int sig)
{
	(void)sig;
	stopped = 1;
}

static void catch_signals(void)
{
	struct sigaction action = { .sa_handler = on_signal };

	sigaction(SIGINT, &action, NULL);
	sigaction(SIGTERM, &action, NULL);
}

static mode_t parse_mode(const char *text)
{
	char *end;
	unsigned long mode = strtoul(text, &end, 8);

	if (end == text || *end || mode > 0777)
		usage("'%s' is no mode", text);
	return mode;
}

static void recv_print_json(const struct bus *bus,
			    const struct bus1_cmd_recv *recv)
{
	const unsigned char *bytes = bus_bytes(bus, recv);
	size_t i;

	printf("{\"bytes\": %llu, \"handles\": %llu, \"files\": %llu, \"data\": \"",
	       (unsigned long long)recv->msg.n_bytes,
	       (unsigned long long)recv->msg.n_handles,
	       (unsigned long long)recv->msg.n_fds);
	for (i = 0; i < recv->msg.n_bytes; ++i) {
		if (bytes[i] == '"' || bytes[i] == '\\')
			printf("\\%c", bytes[i]);
		else if (bytes[i] < 0x20 || bytes[i] >= 0x7f)
			printf("\\u%04x", bytes[i]);
		else
			putchar(bytes[i]);
	}
	puts("\"}");
	fflush(stdout);
}

int cmd_recv(int argc, char **argv)
{
	uint64_t count = UINT64_MAX;
	struct bus1_cmd_recv recv;
	bool json = false;
	double timeout = -1;
	mode_t mode = 0600;
	struct bus bus;
	int c, listener;

	opterr = 0;
	while ((c = getopt(argc, argv, "M:n:o:t:")) >= 0) {
		switch (c) {
		case 'M':
			mode = parse_mode(optarg);
			break;
		case 'n':
			count = parse_number("number of messages", optarg,
					     UINT64_MAX);
			break;
		case 'o':
			json = parse_json(optarg);
			break;
		case 't':
			timeout = parse_seconds(optarg);
			break;
		default:
			usage("wrong option '-%c'", optopt);
		}
	}
	if (optind + 1 != argc)
		usage(optind == argc ? "no name is given" : "too many arguments");

	bus_open(&bus);
	catch_signals();
	/* The node exists, before somebody can ask for it, from the first transfer */
	listener = socket_listen(argv[optind], mode);
	while (count) {
		if (!message_wait(&bus, listener, timeout, &recv)) {
			if (stopped)
				break;
			die("no message came");
		}
		/* That the last sender is gone is no message */
		if (recv.msg.type != BUS1_MSG_DATA)
			continue;
		if (json)
			recv_print_json(&bus, &recv);
		else
			write_out(bus_bytes(&bus, &recv), recv.msg.n_bytes);
		message_done(&bus, &recv);
		--count;
	}
	return EXIT_SUCCESS;
}

/* A file without a name, to be read from its start. */
static int temporary_file(void)
{
	FILE *f = tmpfile();
	int fd = f ? fcntl(fileno(f), F_DUPFD_CLOEXEC, 0) : -1;

	if (fd < 0)
		die("cannot make a temporary file: %s", strerror(errno));
	fclose(f);
	return fd;
}

static int payload_file(const struct bus *bus, const struct bus1_cmd_recv *recv)
{
	const unsigned char *p = bus_bytes(bus, recv);
	size_t left = recv->msg.n_bytes;
	int fd = temporary_file();
	ssize_t n;

	for (; left; p += n, left -= n) {
		n = write(fd, p, left);
		if (n < 0)
			die("cannot write: %s", strerror(errno));
	}
	lseek(fd, 0, SEEK_SET);
	return fd;
}

/* In the child: the payload is stdin, files that came along are 3, 4, and so on. */
static void serve_child(const struct bus *bus, const struct bus1_cmd_recv *recv,
			int in, int out, char **command)
{
	int high[FILES_MAX];
	char number[24];
	size_t i;

	/* Out of the way first: what is moved must not be overwritten */
	for (i = 0; i < recv->msg.n_fds; ++i) {
		high[i] = fcntl(bus_file(bus, recv, i), F_DUPFD_CLOEXEC, 300);
		if (high[i] < 0)
			_exit(126);
	}
	in = fcntl(in, F_DUPFD_CLOEXEC, 300);
	out = fcntl(out, F_DUPFD_CLOEXEC, 300);
	if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0)
		_exit(126);
	for (i = 0; i < recv->msg.n_fds; ++i) {
		if (dup2(high[i], 3 + i) < 0)
			_exit(126);
	}
	snprintf(number, sizeof(number), "%llu",
		 (unsigned long long)recv->msg.n_fds);
	setenv("BUS1_FILES", number, 1);
	execvp(command[0], command);
	fprintf(stderr, "bus1 serve: cannot run '%s': %s\n", command[0],
		strerror(errno));
	_exit(127);
}

/* What the command prints goes to the first handle that came with the message. */
static void serve_reply(struct bus *bus, const struct bus1_cmd_recv *recv, int out)
{
	uint64_t to = bus_handle(bus, recv, 0);
	struct iovec vec;
	struct bus1_cmd_send send = {
		.ptr_destinations = (uintptr_t)&to, .n_destinations = 1,
		.ptr_vecs = (uintptr_t)&vec, .n_vecs = 1,
	};
	int r;

	lseek(out, 0, SEEK_SET);
	vec.iov_base = read_all(out, &vec.iov_len);
	r = bus_send(bus->fd, &send);
	/* Who has gone does not wait for it any more */
	if (r && r != -EHOSTUNREACH)
		fprintf(stderr, "bus1 serve: cannot reply: %s\n", send_problem(r));
	free(vec.iov_base);
}

static void serve_one(struct bus *bus, const struct bus1_cmd_recv *recv,
		      char **command)
{
	int in = payload_file(bus, recv), out, status;
	bool reply = recv->msg.n_handles &&
		     bus_handle(bus, recv, 0) != BUS1_HANDLE_INVALID;
	pid_t pid;

	out = reply ? temporary_file() : fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		die("cannot fork: %s", strerror(errno));
	if (!pid)
		serve_child(bus, recv, in, out, command);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	if (WIFSIGNALED(status))
		fprintf(stderr, "bus1 serve: the command was killed by signal %d\n",
			WTERMSIG(status));
	else if (WEXITSTATUS(status))
		fprintf(stderr, "bus1 serve: the command has failed with %d\n",
			WEXITSTATUS(status));
	/* One that has failed does not reply: the other side sees the handle go */
	if (reply && !status)
		serve_reply(bus, recv, out);
	close(in);
	close(out);
}

int cmd_serve(int argc, char **argv)
{
	uint64_t count = UINT64_MAX;
	struct bus1_cmd_recv recv;
	mode_t mode = 0600;
	struct bus bus;
	int c, listener;
	char **command;

	opterr = 0;
	while ((c = getopt(argc, argv, "+M:n:")) >= 0) {
		switch (c) {
		case 'M':
			mode = parse_mode(optarg);
			break;
		case 'n':
			count = parse_number("number of messages", optarg,
					     UINT64_MAX);
			break;
		default:
			usage("wrong option '-%c'", optopt);
		}
	}
	if (optind == argc)
		usage("no name is given");
	command = argv + optind + 1;
	if (*command && !strcmp(*command, "--"))
		++command;
	if (!*command)
		usage("no command is given");

	bus_open(&bus);
	catch_signals();
	listener = socket_listen(argv[optind], mode);
	while (count && message_wait(&bus, listener, -1, &recv)) {
		if (recv.msg.type != BUS1_MSG_DATA)
			continue;
		serve_one(&bus, &recv, command);
		message_done(&bus, &recv);
		--count;
	}
	return EXIT_SUCCESS;
}
