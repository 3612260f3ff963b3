/* SPDX-License-Identifier: MIT */
#include "cmd.h"

#include <stdio.h>

/* A full disk or closed pipe must not look like success. */
static int flushed(void)
{
	return fflush(stdout)
		       ? cmd_fail("standard output: cannot be written; redirect it elsewhere")
		       : 0;
}

static int help_all(void)
{
	const struct command *c;

	printf("usage: extmem SUBCOMMAND [ARGUMENTS...]\n\n"
	       "Runs unmodified programs under a memory budget of their own: pages that do\n"
	       "not fit go to a swap file, managed in user space.\n\n");
	for (unsigned i = 0; (c = command_at(i)); i++)
		printf("  %-10s %s\n", c->name, c->summary);
	printf("\n`extmem help SUBCOMMAND` tells more, as do the manual pages extmem(1),\n"
	       "extmem-run(1), extmem-ctl(1) and extmem-doctor(1).\n");
	return flushed();
}

static int run(int argc, char **argv)
{
	const struct command *c;

	if (argc < 2)
		return help_all();
	c = argc == 2 ? command_find(argv[1]) : NULL;
	if (!c)
		return cmd_fail("help %.200s: no such subcommand; see `extmem help`", argv[1]);
	fputs(c->help, stdout);
	return flushed();
}

const struct command cmd_help = {
	.name = "help",
	.summary = "tell what the subcommands do",
	.help = "usage: extmem help [SUBCOMMAND]\n",
	.run = run,
};
