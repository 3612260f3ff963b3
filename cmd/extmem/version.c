/* SPDX-License-Identifier: MIT */
#include "cmd.h"

#include <stdio.h>

static int run(int argc, char **argv)
{
	if (argc > 1)
		return cmd_fail("version %.200s: takes no arguments; see `extmem help`", argv[1]);
	printf("extmem %s\n", EXTMEM_VERSION);
	return fflush(stdout)
		       ? cmd_fail("standard output: cannot be written; redirect it elsewhere")
		       : 0;
}

const struct command cmd_version = {
	.name = "version",
	.summary = "print the version",
	.help = "usage: extmem version\n",
	.run = run,
};
