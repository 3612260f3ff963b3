/* SPDX-License-Identifier: MIT */
/* extmem run: checks everything, sets the environment, and becomes the program. */
#include "cmd.h"
#include "probe.h"
#include "program.h"
#include "../../src/options.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const char help[] =
	"usage: extmem run [OPTIONS] [--] PROGRAM [ARGS...]\n\n"
	"Runs PROGRAM with at most SIZE of its large anonymous memory resident.\n\n"
	"  --dram SIZE|N%                        budget; N% of RAM or of the memory cgroup's\n"
	"                                        limit (default 50%)          EXTMEM_DRAM\n"
	"  --swap PATH[,size=SIZE][,force]       directory, file or block device for the pages\n"
	"                                        (default TMPDIR or /var/tmp) EXTMEM_SWAP\n"
	"  --policy NAME|FILE.so[,key=value]...  eviction: 2q (default), fifo EXTMEM_POLICY\n"
	"  --prefetch NAME|FILE.so[,key=value]...\n"
	"                                        sequential (default), none   EXTMEM_PREFETCH\n"
	"  --delivery upcall|thread[,n=N]        who serves a fault: the faulting thread\n"
	"                                        (default) or N others        EXTMEM_DELIVERY\n"
	"  --syscalls auto|dispatch|patch        calls that cannot be patched: trapped when there\n"
	"                                        are any, all trapped, or left (default auto)\n"
	"  --min-map SIZE                        smaller mappings stay unmanaged (default 1M)\n"
	"                                                                     EXTMEM_MIN_MAP\n"
	"  --standby N%[,always]                 part of the budget that keeps evicted pages for a\n"
	"                                        while, where that pays (10%; 0: none)\n"
	"                                                                     EXTMEM_STANDBY\n"
	"  --spin USEC                           a thread waits so long awake for a page while\n"
	"                                        processors are idle (200; 0: never) EXTMEM_SPIN\n"
	"  --expect-writes yes|no|always         pages that are read and then nearly always\n"
	"                                        written come in writable (default yes)\n"
	"                                                               EXTMEM_EXPECT_WRITES\n"
	"  --stats FILE                          statistics as JSON at exit, - is stderr\n"
	"                                                                     EXTMEM_STATS\n"
	"  --follow-exec yes|no                  manage the programs that it executes, too\n"
	"                                        (default yes)          EXTMEM_FOLLOW_EXEC\n"
	"  -v, --verbose                         messages on stderr           EXTMEM_VERBOSE=1\n"
	"  -h, --help                            this text\n\n"
	"SIZE is a number with K, M, G or T (binary). A comma within PATH is written \",,\".\n"
	"The exit status is the program's, or 2 with one line on stderr if it was not started.\n";

static const struct option long_options[] = {
	{"dram", required_argument, NULL, 'o'},	    {"swap", required_argument, NULL, 'o'},
	{"policy", required_argument, NULL, 'o'},   {"prefetch", required_argument, NULL, 'o'},
	{"delivery", required_argument, NULL, 'o'}, {"syscalls", required_argument, NULL, 'o'},
	{"min-map", required_argument, NULL, 'o'},  {"spin", required_argument, NULL, 'o'},
	{"standby", required_argument, NULL, 'o'},  {"expect-writes", required_argument, NULL, 'o'},
	{"stats", required_argument, NULL, 'o'},    {"verbose", no_argument, NULL, 'v'},
	{"follow-exec", required_argument, NULL, 'o'},
	{"help", no_argument, NULL, 'h'},	    {NULL, 0, NULL, 0},
};

/* In a cluster such as -xv, optind has not moved on yet: then optopt is all there is. */
static int bad_option(const char *word)
{
	char letter[3] = {'-', (char)optopt, '\0'};

	return cmd_fail("run %.200s: option not known or without value; see `extmem help run`",
			optopt && strncmp(word, "--", 2) ? letter : word);
}

/* 0: go on; else the exit status + 1. */
static int parse(int argc, char **argv, struct em_options *o)
{
	char err[CMD_ERR_LEN];
	int c, which = 0;

	em_options_init(o);
	if (em_options_from_env(o, err, sizeof(err)))
		return cmd_fail("%s", err) + 1;
	/* "+": the first word that is no option is the program, the rest is the program's. */
	while ((c = getopt_long(argc, argv, "+:vh", long_options, &which)) != -1) {
		switch (c) {
		case 'o':
			if (em_options_set(o, long_options[which].name, optarg, err, sizeof(err)))
				return cmd_fail("%s", err) + 1;
			break;
		case 'v':
			o->verbose = true;
			break;
		case 'h':
			fputs(help, stdout);
			return (fflush(stdout) ? CMD_ERROR : 0) + 1;
		case ':':
			return cmd_fail("run %.200s: needs a value; see `extmem help run`",
					argv[optind - 1]) +
			       1;
		default:
			return bad_option(argv[optind - 1]) + 1;
		}
	}
	if (optind >= argc)
		return cmd_fail("run: no program given; write extmem run [OPTIONS] -- PROGRAM "
				"[ARGS...]") +
		       1;
	return 0;
}

static int become(const struct program *p, char **argv)
{
	int argc = 0;
	char **shell;

	if (!p->by_shell) {
		execv(p->path, argv);
		return cmd_fail("program %.400s: cannot be started: %s; check the file", p->path,
				strerror(errno));
	}
	while (argv[argc])
		argc++;
	shell = calloc((size_t)argc + 2, sizeof(*shell));
	if (!shell)
		return cmd_fail("run: out of memory; free some");
	shell[0] = (char *)"/bin/sh";
	shell[1] = (char *)p->path;
	for (int i = 1; i < argc; i++)
		shell[i + 1] = argv[i];
	execv(shell[0], shell);
	free(shell);
	return cmd_fail("interpreter /bin/sh: cannot be started: %s; check the file",
			strerror(errno));
}

static void tell(const struct em_options *o, const struct program *p, const char *library)
{
	fprintf(stderr, "extmem: budget %llu MiB, swap %s, policy %s, prefetch %s, delivery %s\n",
		(unsigned long long)(o->dram_bytes >> 20),
		o->swap_path[0] ? o->swap_path : "(default)", o->policy, o->prefetch,
		o->delivery == EM_DELIVERY_UPCALL ? "upcall" : "thread");
	fprintf(stderr, "extmem: running %s%s with %s\n", p->by_shell ? "/bin/sh " : "", p->path,
		library);
}

static int run(int argc, char **argv)
{
	static struct em_options o; /* 17 KiB: not on the stack */
	char err[CMD_ERR_LEN], library[4096];
	struct program program;
	int rc = parse(argc, argv, &o);

	if (rc)
		return rc - 1;
	argv += optind;
	em_sandbox_adapt(&o);
	if (em_options_absolute(&o, err, sizeof(err)) || em_options_check(&o, err, sizeof(err)) ||
	    program_find(argv[0], &program, err, sizeof(err)) ||
	    library_find(library, sizeof(library), err, sizeof(err)) ||
	    probe_required(&o, err, sizeof(err)) || em_options_try_plugins(&o, err, sizeof(err)))
		return cmd_fail("%s", err);
	/* exec keeps the process id, so this names the program itself, not its children. */
	o.stats_pid = getpid();
	rc = em_options_to_env(&o);
	if (!rc)
		rc = library_preload(library);
	if (rc)
		return cmd_fail("run: environment cannot be set: %s; shorten paths or arguments",
				strerror(-rc));
	if (o.verbose)
		tell(&o, &program, library);
	return become(&program, argv);
}

const struct command cmd_run = {
	.name = "run",
	.summary = "run a program under a memory budget",
	.help = help,
	.run = run,
};
