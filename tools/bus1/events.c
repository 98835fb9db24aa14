// SPDX-License-Identifier: GPL-2.0-only
/*
 * The tracepoints bus1:*, read from a ring buffer of our own.
 */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "bus1.h"

/* The last one that is open, to be removed however the program ends. */
static char events_instance[96];

static void events_remove(void)
{
	if (events_instance[0])
		rmdir(events_instance);
	events_instance[0] = 0;
}

static int events_write(const struct events *events, const char *name,
			const char *text)
{
	char path[384];
	int fd, r = 0;

	snprintf(path, sizeof(path), "%s/%s", events->instance, name);
	fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	if (write(fd, text, strlen(text)) < 0)
		r = -errno;
	close(fd);
	return r;
}

/* Returns what is wrong, or NULL. */
const char *events_open(struct events *events, const char * const *names)
{
	static const char * const places[] = {
		"/sys/kernel/tracing", "/sys/kernel/debug/tracing",
	};
	char path[256];
	size_t i;
	int r = -ENOENT;

	memset(events, 0, offsetof(struct events, buffer));
	for (i = 0; i < ARRAY_SIZE(places) && r == -ENOENT; ++i) {
		snprintf(events->instance, sizeof(events->instance),
			 "%s/instances/bus1-%d", places[i], getpid());
		r = mkdir(events->instance, 0700) ? -errno : 0;
		/* Left behind by one that was killed, and had the same PID */
		if (r == -EEXIST && !rmdir(events->instance))
			r = mkdir(events->instance, 0700) ? -errno : 0;
	}
	if (r == -EACCES || r == -EPERM)
		return "no permission for tracing: be root";
	if (r == -EEXIST)
		return "an instance of tracing with the name of this one is in use";
	if (r < 0)
		return "there is no tracing: is tracefs mounted at /sys/kernel/tracing?";
	strcpy(events_instance, events->instance);
	atexit(events_remove);

	/* One clock for all CPUs */
	events_write(events, "trace_clock", "mono");
	events_write(events, "buffer_size_kb", "4096");
	snprintf(path, sizeof(path), "%s/trace_pipe", events->instance);
	events->fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
	if (events->fd < 0)
		return "cannot read the trace";
	for (; *names; ++names) {
		snprintf(path, sizeof(path), "events/bus1/%s/enable", *names);
		if (events_write(events, path, "1") < 0) {
			events_close(events);
			return "the module has no such events: is it older than this program?";
		}
	}
	return NULL;
}

void events_close(struct events *events)
{
	close(events->fd);
	events_remove();
}

/*
 * A line is "COMMAND-TID [CPU] FLAGS TIME: NAME: FIELDS". Commands may have
 * anything in them, so look for the name first, and for the last dash before it.
 */
static bool event_parse(struct event *event, char *line)
{
	char *name = NULL, *p, *fields;

	/* The last one: a command can have this in it, fields cannot */
	for (p = line; (p = strstr(p, ": bus1_")); ++p)
		name = p;
	if (!name)
		return false;
	fields = strchr(name + 7, ':');
	if (!fields)
		return false;
	*name = *fields = 0;
	snprintf(event->name, sizeof(event->name), "%s", name + 7);
	snprintf(event->fields, sizeof(event->fields), "%s", fields + 1);

	p = strrchr(line, '[');
	event->tid = 0;
	event->command[0] = 0;
	if (!p)
		return true;
	*p = 0;
	p = strrchr(line, '-');
	if (!p)
		return true;
	event->tid = atoi(p + 1);
	*p = 0;
	line += strspn(line, " ");
	/* What the kernel has no name for */
	if (strcmp(line, "<...>"))
		snprintf(event->command, sizeof(event->command), "%s", line);
	return true;
}

/* The next event, if there is one. */
bool events_next(struct events *events, struct event *event)
{
	char *end, *line = events->buffer;
	const char *lost;
	bool found;
	ssize_t n;

	for (;;) {
		line = events->buffer;
		line[events->used] = 0;
		end = strchr(line, '\n');
		if (!end) {
			n = read(events->fd, line + events->used,
				 sizeof(events->buffer) - 1 - events->used);
			if (n <= 0)
				return false;
			events->used += n;
			continue;
		}
		*end = 0;
		/* Lines of events have blanks there, whatever a command calls itself */
		lost = strncmp(line, "CPU:", 4) ? NULL : strstr(line, "[LOST ");
		if (lost)
			events->lost += strtoull(lost + 6, NULL, 10);
		found = event_parse(event, line);
		events->used -= end + 1 - line;
		memmove(line, end + 1, events->used);
		if (found)
			return true;
	}
}

static const char *event_field(const struct event *event, const char *field)
{
	size_t n = strlen(field);
	const char *p;

	for (p = event->fields; (p = strchr(p, ' ')); ++p) {
		if (!strncmp(p + 1, field, n) && p[1 + n] == '=')
			return p + 2 + n;
	}
	return "";
}

uint64_t event_number(const struct event *event, const char *field)
{
	return strtoull(event_field(event, field), NULL, 0);
}

bool event_is(const struct event *event, const char *field, const char *value)
{
	const char *p = event_field(event, field);
	size_t n = strlen(value);

	return !strncmp(p, value, n) && (!p[n] || p[n] == ' ');
}
