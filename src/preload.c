/* SPDX-License-Identifier: MIT */
/*
 * libextmem-preload.so: glue only.  The constructor reads the environment and starts the engine;
 * what cannot work ends the program before its main, with one line and status 2: a program
 * that was meant to run within a budget must not run without.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/start.h"
#include "options.h"

static void fail(const char *line)
{
	fprintf(stderr, "extmem: %s\n", line);
	_exit(2);
}

static bool is_our_name(const char *name, size_t n)
{
	static const char own[] = "libextmem-preload.so";
	const size_t len = sizeof(own) - 1;

	return n >= len && !memcmp(name + n - len, own, len) && (n == len || name[n - len - 1] == '/');
}

/* What the program executes then finds no trace of us. */
static void leave_environment(void)
{
	char *list = getenv("LD_PRELOAD"), *to = list;
	extern char **environ;

	for (char *p = list; p && *p; p += strspn(p, ": ")) {
		size_t n = strcspn(p, ": ");

		if (!is_our_name(p, n)) {
			memmove(to, p, n);
			to += n;
			*to++ = ':';
		}
		p += n;
	}
	if (to > list)
		to[-1] = '\0';
	else if (list)
		unsetenv("LD_PRELOAD");
	for (char **e = environ; *e;) {
		char name[64];
		size_t n = strcspn(*e, "=");

		if (strncmp(*e, "EXTMEM_", 7) || n >= sizeof(name)) {
			e++;
			continue;
		}
		memcpy(name, *e, n);
		name[n] = '\0';
		unsetenv(name); /* the next entry moves here */
	}
}

__attribute__((constructor)) static void preload_start(void)
{
	static struct em_options o; /* too large for the stack of an early constructor */
	char err[512] = "";

	em_options_init(&o);
	if (em_options_from_env(&o, err, sizeof(err)))
		fail(err);
	em_sandbox_adapt(&o);
	if (o.stats_path[0] && !o.stats_pid) {
		o.stats_pid = getpid();
		snprintf(err, sizeof(err), "%ld", o.stats_pid);
		setenv("EXTMEM_STATS_PID", err, 1);
	}
	if (em_engine_start(&o, err, sizeof(err)))
		fail(err);
	if (!o.follow_exec)
		leave_environment();
}
