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
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>
#include "bus1.h"

#define NODE		0x1000ULL	/* where messages, or replies, arrive */
#define NAMES_MAX	256
#define FILES_MAX	BUS1_FD_MAX
#define RESERVE		8	/* descriptors that a message leaves free */

static volatile sig_atomic_t stopped;
static char socket_path[sizeof(((struct sockaddr_un *)0)->sun_path)];
static struct stat socket_stat;
static struct rlimit files_limit;	/* as it was */

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

/*
 * Two that begin to serve the same name must not take each other's socket for one that was
 * left behind: the directory is locked, while the descriptor is open. If somebody else locks
 * it for long, or it cannot be, as in a kernel without locks, they have to do without.
 */
static int socket_lock(const char *path)
{
	const char *end = strrchr(path, '/');
	char dir[sizeof(socket_path)];
	int fd, i;

	snprintf(dir, sizeof(dir), "%.*s", end == path ? 1 : (int)(end - path), path);
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	for (i = 0; fd >= 0 && i < 50 && flock(fd, LOCK_EX | LOCK_NB); ++i) {
		if (errno != EWOULDBLOCK && errno != EINTR)
			break;
		poll(NULL, 0, 20);
	}
	return fd;
}

/* By now it may be that of somebody else. */
static void socket_remove(void)
{
	int lock = socket_lock(socket_path);
	struct stat st;

	if (!lstat(socket_path, &st) && st.st_dev == socket_stat.st_dev &&
	    st.st_ino == socket_stat.st_ino)
		unlink(socket_path);
	close(lock);
}

static int socket_listen(const char *name, mode_t mode)
{
	struct sockaddr_un address;
	struct stat st;
	mode_t mask;
	struct timeval timeout = { .tv_sec = 1 };
	int fd, lock, r;

	socket_address(name, &address);
	lock = socket_lock(address.sun_path);
	fd = socket_new();
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	/* One that nobody listens on any more was left behind */
	if (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ||
	    errno == EAGAIN)
		die("'%s' is being served already", name);
	if (errno == ECONNREFUSED && !lstat(address.sun_path, &st) &&
	    S_ISSOCK(st.st_mode))
		unlink(address.sun_path);
	close(fd);

	fd = socket_new();
	mask = umask(0777 & ~mode);
	r = bind(fd, (struct sockaddr *)&address, sizeof(address));
	umask(mask);
	if (r || lstat(address.sun_path, &socket_stat) || listen(fd, 64))
		die("cannot listen on %s: %s", address.sun_path, strerror(errno));
	strcpy(socket_path, address.sun_path);
	atexit(socket_remove);
	close(lock);
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
	int courier, fd;
	uint64_t id;

	fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
	if (fd < 0) {
		/* Who is out of something now is asked again at once */
		if (errno != EAGAIN && errno != EINTR && errno != ECONNABORTED)
			poll(NULL, 0, 20);
		return;
	}
	setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &timeout, sizeof(timeout));
	courier = bus_open_fd();
	if (courier >= 0 && !bus_transfer(bus->fd, NODE, courier, &id)) {
		vec.iov_base = &id;
		vec.iov_len = sizeof(id);
		cmsg->cmsg_level = SOL_SOCKET;
		cmsg->cmsg_type = SCM_RIGHTS;
		cmsg->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(cmsg), &courier, sizeof(int));
		/* Who does not take it gets none */
		if (sendmsg(fd, &msg, MSG_NOSIGNAL) < 0)
			errno = 0;
	}
	close(courier);
	close(fd);
}

/* How long to wait for an answer: what is left, or ten seconds if nothing else is said. */
static struct timeval answer_time(double wait, uint64_t end)
{
	uint64_t now = now_ns();

	if (wait < 0)
		return (struct timeval){ .tv_sec = 10 };
	return (struct timeval){
		.tv_sec = now < end ? 1 + (end - now) / 1000000000 : 1,
	};
}

/*
 * Connect, and wait until somebody listens, if that is asked for: @wait is not negative. Then
 * an answer must come in that time, too.
 */
static int socket_connect(const char *name, double wait)
{
	uint64_t end = now_ns() + (wait < 0 ? 0 : wait) * 1e9;
	struct sockaddr_un address;
	struct timeval answer;
	int fd, r;

	socket_address(name, &address);
	for (;;) {
		fd = socket_new();
		answer = answer_time(wait, end);
		setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &answer, sizeof(answer));
		/* With a timeout, who was stopped and goes on sees that */
		do {
			r = connect(fd, (struct sockaddr *)&address, sizeof(address));
		} while (r < 0 && errno == EINTR);
		if (!r) {
			answer = answer_time(wait, end);
			setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &answer, sizeof(answer));
			return fd;
		}
		if ((errno != ENOENT && errno != ECONNREFUSED) ||
		    now_ns() >= end)
			break;
		close(fd);
		poll(NULL, 0, 20);
	}
	if (errno == ENOENT || errno == ECONNREFUSED)
		die("nobody serves '%s'", name);
	if (errno == EAGAIN)
		die("'%s' does not answer", name);
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
	ssize_t n;

	fd = socket_connect(name, wait);
	do {
		n = recvmsg(fd, &msg, MSG_CMSG_CLOEXEC);
	} while (n < 0 && errno == EINTR);
	if (n < 0 && errno == EAGAIN)
		die("'%s' does not answer", name);
	if (n != sizeof(theirs))
		die("'%s' gives no handle", name);
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_level != SOL_SOCKET || cmsg->cmsg_type != SCM_RIGHTS ||
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

/* As poll(), but it does not miss a signal that comes before it waits. */
static int poll_stoppable(struct pollfd *fds, nfds_t n, int ms)
{
	struct timespec timeout = { ms / 1000, ms % 1000 * 1000000L };
	sigset_t signals, before;
	int r = -1;

	sigemptyset(&signals);
	sigaddset(&signals, SIGINT);
	sigaddset(&signals, SIGTERM);
	sigprocmask(SIG_BLOCK, &signals, &before);
	if (!stopped)
		r = ppoll(fds, n, ms < 0 ? NULL : &timeout, &before);
	sigprocmask(SIG_SETMASK, &before, NULL);
	return r;
}

/*
 * Wait for a message; false if none came in time, or a signal did. Who listens does not get
 * notifications: somebody connects, and goes away without a word. That is no reason to wait
 * for longer.
 */
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
		/* However many messages there are, who wants to send one gets a handle */
		if (poll(&fds[1], 1, 0) > 0)
			socket_serve(listener, bus);
		r = bus_recv(bus, recv, true);
		/* Who sends files to somebody who cannot have them must not end him */
		if (r == -EMFILE || r == -ENFILE) {
			warning("the files of a message are dropped: %s", strerror(-r));
			r = bus_recv(bus, recv, false);
		}
		if (!r && (listener < 0 || recv->msg.type == BUS1_MSG_DATA))
			return true;
		if (r == -ERANGE)
			die("a message does not fit into the pool");
		if (r && r != -EAGAIN)
			die("cannot receive: %s", strerror(-r));
		now = now_ns();
		if (now >= end)
			return false;
		if (!r)
			continue;
		ms = -1;
		if (end != UINT64_MAX)
			ms = (end - now) / 1000000 >= 1000 ? 1000 :
			     (end - now) / 1000000 + 1;
		if (poll_stoppable(fds, 2, ms) > 0 && fds[1].revents)
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

/* Which characters a terminal shows is said by the first of these that is set. */
static bool terminal_has_utf8(void)
{
	static const char *const names[] = { "LC_ALL", "LC_CTYPE", "LANG" };
	const char *value;
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); ++i) {
		value = getenv(names[i]);
		if (value && *value)
			return strcasestr(value, ".utf-8") || strcasestr(value, ".utf8");
	}
	return false;
}

/*
 * How many bytes are a character that can be shown; 0 if they are none. To a terminal without
 * UTF-8 parts of characters would be commands.
 */
static size_t printable(const unsigned char *p, size_t n, bool utf8)
{
	size_t len, i;

	if (*p < 0x80)
		return (*p >= 0x20 && *p < 0x7f) || *p == '\n' || *p == '\t';
	if (!utf8)
		return 0;
	len = *p < 0xc2 ? 0 : *p < 0xe0 ? 2 : *p < 0xf0 ? 3 : *p < 0xf5 ? 4 : 0;
	if (len == 0 || len > n)
		return 0;
	for (i = 1; i < len; ++i) {
		if ((p[i] & 0xc0) != 0x80)
			return 0;
	}
	/* Control characters of two bytes, and what is no UTF-8 after all */
	if ((p[0] == 0xc2 && p[1] < 0xa0) || (p[0] == 0xe0 && p[1] < 0xa0) ||
	    (p[0] == 0xed && p[1] >= 0xa0) || (p[0] == 0xf0 && p[1] < 0x90) ||
	    (p[0] == 0xf4 && p[1] >= 0x90))
		return 0;
	return len;
}

static void flush_out(void)
{
	fflush(stdout);
	if (ferror(stdout))
		die("cannot write: %s", strerror(errno));
}

/* What others have sent must not reach a terminal as a command. */
static void write_out(const void *data, size_t n)
{
	const unsigned char *p = data;
	bool utf8 = false;
	size_t len;

	if (isatty(STDOUT_FILENO)) {
		utf8 = terminal_has_utf8();
	} else {
		fwrite(data, 1, n, stdout);
		n = 0;
	}
	for (; n > 0; p += len, n -= len) {
		len = printable(p, n, utf8);
		fwrite(len ? (const char *)p : "?", 1, len ? len : 1, stdout);
		len += !len;
	}
	flush_out();
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
	double wait = -1, timeout = -1;
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
	flush_out();
}

/* Somebody who receives under a name. */
struct receiver {
	const char *name;
	uint64_t count;
	mode_t mode;
	bool json;
	double timeout;
	struct bus bus;
	int listener;
	int reserve[RESERVE];
};

/* Options, of which a command has those in @known, and the name. */
static void receiver_parse(struct receiver *receiver, int argc, char **argv,
			   const char *known)
{
	int c;

	*receiver = (struct receiver){
		.count = UINT64_MAX, .mode = 0600, .timeout = -1,
	};
	opterr = 0;
	while ((c = getopt(argc, argv, known)) >= 0) {
		switch (c) {
		case 'M':
			receiver->mode = parse_mode(optarg);
			break;
		case 'n':
			receiver->count = parse_number("number of messages", optarg,
						       UINT64_MAX);
			break;
		case 'o':
			receiver->json = parse_json(optarg);
			break;
		case 't':
			receiver->timeout = parse_seconds(optarg);
			break;
		default:
			usage("wrong option '-%c'", optopt);
		}
	}
	if (optind == argc)
		usage("no name is given");
	receiver->name = argv[optind++];
}

static void reserve_make(struct receiver *receiver)
{
	int i;

	for (i = 0; i < RESERVE; ++i) {
		receiver->reserve[i] = fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
		if (receiver->reserve[i] < 0)
			die("too few descriptors: %s", strerror(errno));
	}
}

static void reserve_use(struct receiver *receiver)
{
	int i;

	for (i = 0; i < RESERVE; ++i)
		close(receiver->reserve[i]);
}

static void receiver_open(struct receiver *receiver)
{
	struct rlimit limit;

	/* A message has 256 files at most: that many, if one may */
	getrlimit(RLIMIT_NOFILE, &files_limit);
	limit = files_limit;
	limit.rlim_cur = limit.rlim_max;
	setrlimit(RLIMIT_NOFILE, &limit);

	bus_open(&receiver->bus);
	catch_signals();
	/* The node exists, before somebody can ask for it, from the first transfer */
	receiver->listener = socket_listen(receiver->name, receiver->mode);
}

int cmd_recv(int argc, char **argv)
{
	struct receiver receiver;
	struct bus *bus = &receiver.bus;
	struct bus1_cmd_recv recv;

	receiver_parse(&receiver, argc, argv, "M:n:o:t:");
	if (optind < argc)
		usage("too many arguments");

	receiver_open(&receiver);
	while (receiver.count) {
		if (!message_wait(bus, receiver.listener, receiver.timeout, &recv)) {
			if (stopped)
				break;
			die("no message came");
		}
		if (receiver.json)
			recv_print_json(bus, &recv);
		else
			write_out(bus_bytes(bus, &recv), recv.msg.n_bytes);
		message_done(bus, &recv);
		--receiver.count;
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

/*
 * Make them 3, 4, and so on. One that is in the way of another is moved first, so that there
 * need not be many more descriptors than these.
 */
static bool files_place(int *fds, size_t n)
{
	size_t i, j;
	int to;

	for (i = 0; i < n; ++i) {
		to = 3 + i;
		for (j = i + 1; j < n; ++j) {
			if (fds[j] != to)
				continue;
			fds[j] = fcntl(to, F_DUPFD_CLOEXEC, 3 + (int)n);
			if (fds[j] < 0)
				return false;
		}
		if (fds[i] == to) {
			fcntl(to, F_SETFD, 0);
			continue;
		}
		if (dup2(fds[i], to) < 0)
			return false;
		close(fds[i]);
	}
	return true;
}

/* In the child: the payload is stdin, files that came along are 3, 4, and so on. */
static void serve_child(const struct bus *bus, const struct bus1_cmd_recv *recv,
			int in, int out, char **command)
{
	size_t n = recv->msg.n_fds, i;
	int fds[FILES_MAX];
	char number[24];

	for (i = 0; i < n; ++i)
		fds[i] = bus_file(bus, recv, i);
	/* All that there is are above those two */
	if (dup2(in, STDIN_FILENO) < 0 || dup2(out, STDOUT_FILENO) < 0 ||
	    !files_place(fds, n)) {
		warning("cannot pass %zu files on: %s", n, strerror(errno));
		_exit(126);
	}
	snprintf(number, sizeof(number), "%zu", n);
	setenv("BUS1_FILES", number, 1);
	setrlimit(RLIMIT_NOFILE, &files_limit);
	execvp(command[0], command);
	warning("cannot run '%s': %s", command[0], strerror(errno));
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
		warning("cannot reply: %s", send_problem(r));
	free(vec.iov_base);
}

/* Wait for the command. Who asks for a handle meanwhile need not. */
static int serve_wait(struct receiver *receiver, pid_t pid)
{
	struct pollfd fds[] = {
		{ .fd = syscall(SYS_pidfd_open, pid, 0), .events = POLLIN },
		{ .fd = receiver->listener, .events = POLLIN },
	};
	int status = -1;

	while (fds[0].fd >= 0 && !stopped) {
		if (poll_stoppable(fds, 2, -1) <= 0)
			continue;
		if (fds[0].revents)
			break;
		socket_serve(receiver->listener, &receiver->bus);
	}
	close(fds[0].fd);
	while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
		;
	return status;
}

static void serve_one(struct receiver *receiver, const struct bus1_cmd_recv *recv,
		      char **command)
{
	struct bus *bus = &receiver->bus;
	int in = payload_file(bus, recv), out, status;
	uint64_t to = BUS1_HANDLE_INVALID;
	bool reply;
	pid_t pid;

	if (recv->msg.n_handles)
		to = bus_handle(bus, recv, 0);
	/* One of our own node would make the reply the next message */
	reply = to != BUS1_HANDLE_INVALID && to & BUS1_HANDLE_FLAG_REMOTE;
	if (to != BUS1_HANDLE_INVALID && !reply)
		warning("no reply: the handle is that of '%s'", receiver->name);
	out = reply ? temporary_file() : fcntl(STDOUT_FILENO, F_DUPFD_CLOEXEC, 3);
	fflush(stdout);
	pid = fork();
	if (pid < 0)
		die("cannot fork: %s", strerror(errno));
	if (!pid)
		serve_child(bus, recv, in, out, command);
	status = serve_wait(receiver, pid);
	if (WIFSIGNALED(status))
		warning("the command was killed by signal %d", WTERMSIG(status));
	else if (WEXITSTATUS(status))
		warning("the command has failed with %d", WEXITSTATUS(status));
	/* One that has failed does not reply: the other side sees the handle go */
	if (reply && !status)
		serve_reply(bus, recv, out);
	close(in);
	close(out);
}

int cmd_serve(int argc, char **argv)
{
	struct bus1_cmd_recv recv;
	struct receiver receiver;
	char **command;

	receiver_parse(&receiver, argc, argv, "+M:n:");
	command = argv + optind;
	if (*command && !strcmp(*command, "--"))
		++command;
	if (!*command)
		usage("no command is given");

	receiver_open(&receiver);
	/* Whatever files a message has, enough is left to run the command */
	reserve_make(&receiver);
	while (receiver.count &&
	       message_wait(&receiver.bus, receiver.listener, -1, &recv)) {
		reserve_use(&receiver);
		serve_one(&receiver, &recv, command);
		message_done(&receiver.bus, &recv);
		reserve_make(&receiver);
		--receiver.count;
	}
	return EXIT_SUCCESS;
}
