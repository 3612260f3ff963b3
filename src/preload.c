/* SPDX-License-Identifier: MIT */
/*
 * libextmem-preload.so: glue only.  The constructor reads the environment and starts the engine;
 * what cannot work ends the program before its main, with one line and status 2: a program
 * that was meant to run within a budget must not run without.
 */
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "core/start.h"
#include "options.h"

static void fail(const char *line)
{
	fprintf(stderr, "extmem: %s\n", line);
	_exit(2);
}

__attribute__((constructor)) static void preload_start(void)
{
	static struct em_options o; /* too large for the stack of an early constructor */
	char err[512] = "";

	em_options_init(&o);
	if (em_options_from_env(&o, err, sizeof(err)))
		fail(err);
	if (o.stats_path[0] && !o.stats_pid) {
		o.stats_pid = getpid();
		snprintf(err, sizeof(err), "%ld", o.stats_pid);
		setenv("EXTMEM_STATS_PID", err, 1);
	}
	if (em_engine_start(&o, err, sizeof(err)))
		fail(err);
}
