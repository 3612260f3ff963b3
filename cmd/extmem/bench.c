/* SPDX-License-Identifier: MIT */
/* Hands over to the benchmark harness, which is a Python program beside its workloads. */
#include "cmd.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SCRIPT "bench/bench.py"
enum { PATH_LEN = 4096 };

struct places {
	char self[PATH_LEN];
	char script[PATH_LEN + 64];
	char programs[PATH_LEN + 64]; /* the directory in which bench/ holds the workloads */
};

/* False when the name does not fit or there is no such file. */
static bool try_place(struct places *p, const char *scripts, const char *programs)
{
	return (size_t)snprintf(p->script, sizeof(p->script), "%s/%s", scripts, SCRIPT) <
		       sizeof(p->script) &&
	       (size_t)snprintf(p->programs, sizeof(p->programs), "%s", programs) <
		       sizeof(p->programs) &&
	       access(p->script, R_OK) == 0;
}

/* The build directory within the source tree, an installation that was moved, the one configured. */
static bool find(struct places *p)
{
	char dir[PATH_LEN], near[PATH_LEN + 32];
	ssize_t n = readlink("/proc/self/exe", p->self, sizeof(p->self) - 1);
	char *slash;

	p->self[n > 0 ? n : 0] = '\0';
	memcpy(dir, p->self, sizeof(dir));
	slash = strrchr(dir, '/');
	if (slash) {
		*slash = '\0';
		snprintf(near, sizeof(near), "%s/..", dir);
		if (try_place(p, near, dir))
			return true;
		snprintf(near, sizeof(near), "%s/../libexec/extmem", dir);
		if (try_place(p, near, near))
			return true;
	}
	return try_place(p, EXTMEM_LIBEXEC_DIR, EXTMEM_LIBEXEC_DIR);
}

static int run(int argc, char **argv)
{
	static struct places p;
	char **args;
	size_t n = 0;
	int error;

	if (!find(&p))
		return cmd_fail("bench: " SCRIPT " not found in the source tree beside the build "
				"directory nor in " EXTMEM_LIBEXEC_DIR "; install extmem");
	args = calloc((size_t)argc + 8, sizeof(*args));
	if (!args)
		return cmd_fail("bench: out of memory; free some");
	args[n++] = "python3";
	args[n++] = p.script;
	args[n++] = "--build";
	args[n++] = p.programs;
	args[n++] = "--extmem";
	args[n++] = p.self;
	for (int i = 1; i < argc; i++)
		args[n++] = argv[i];
	execvp(args[0], args);
	error = errno;
	free(args);
	return cmd_fail("bench: python3: %s; install it: apt-get install python3", strerror(error));
}

const struct command cmd_bench = {
	.name = "bench",
	.summary = "measure programs natively, under Linux swap and under extmem",
	.help = "usage: extmem bench --list | all | NAME... [OPTIONS...]\n"
		"\n"
		"Runs each program with all the memory it wants, in a memory cgroup with Linux\n"
		"swap, and under `extmem run`, interleaved, and prints medians, spread and\n"
		"ratios.  The swap side needs root.\n"
		"\n"
		"  --list         the benches by name\n"
		"  --quick        smaller sizes, one repetition\n"
		"  --reps N       repetitions (3)\n"
		"  --json FILE    everything measured, and a plot FILE.NAME.svg of each bench\n"
		"  --dir DIR      where swap files and input go (/var/tmp)\n"
		"  --page-cluster N|best   swap read-ahead of 2^N pages\n"
		"\n"
		"`extmem bench --help` lists all options.\n",
	.run = run,
};
