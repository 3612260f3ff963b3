/* SPDX-License-Identifier: MIT */
#include "cmd.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct command *const commands[] = {
	&cmd_run,
	&cmd_ctl,
	&cmd_doctor,
	&cmd_bench,
	&cmd_help,
	&cmd_version,
};
#define NCOMMANDS (sizeof(commands) / sizeof(commands[0]))

const struct command *command_at(unsigned i)
{
	return i < NCOMMANDS ? commands[i] : NULL;
}

const struct command *command_find(const char *name)
{
	/* The options that every program has. */
	if (!strcmp(name, "--help") || !strcmp(name, "-h"))
		return &cmd_help;
	if (!strcmp(name, "--version") || !strcmp(name, "-V"))
		return &cmd_version;
	if (!strcmp(name, cmd_trial.name))
		return &cmd_trial;
	for (unsigned i = 0; i < NCOMMANDS; i++)
		if (!strcmp(name, commands[i]->name))
			return commands[i];
	return NULL;
}

int cmd_fail(const char *fmt, ...)
{
	char line[2 * CMD_ERR_LEN];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(line, sizeof(line), fmt, ap);
	va_end(ap);
	/* One line, whatever a path or an argument may contain. */
	for (char *p = line; *p; p++)
		if ((unsigned char)*p < ' ' || *p == 127)
			*p = '?';
	fprintf(stderr, "extmem: %s\n", line);
	return CMD_ERROR;
}

int main(int argc, char **argv)
{
	const struct command *c;

	if (argc < 2)
		return cmd_fail("no subcommand given; see `extmem help`");
	c = command_find(argv[1]);
	if (!c && argv[1][0] == '-')
		return cmd_fail("option %.200s: not known; see `extmem help`", argv[1]);
	if (!c)
		return cmd_fail("subcommand %.200s: not known; see `extmem help`", argv[1]);
	return c->run(argc - 1, argv + 1);
}
