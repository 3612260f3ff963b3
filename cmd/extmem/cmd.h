/* SPDX-License-Identifier: MIT */
/*
 * The command `extmem`: a table of subcommands, one file each.
 */
#ifndef EXTMEM_CMD_H
#define EXTMEM_CMD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CMD_ERROR 2 /* exit status: usage, or something is wrong before anything ran */
#define CMD_ERR_LEN 1024

struct command {
	const char *name;
	const char *summary;
	const char *help;		   /* what `extmem help NAME` prints */
	int (*run)(int argc, char **argv); /* argv[0] is the subcommand; returns exit status */
};

extern const struct command cmd_run, cmd_ctl, cmd_doctor, cmd_bench, cmd_help, cmd_version;
/* Not for people: what `extmem doctor` runs to see whether it works. */
extern const struct command cmd_trial;

/* NULL if there is none. */
const struct command *command_find(const char *name);
/* The i-th, NULL past the end. */
const struct command *command_at(unsigned i);

/* Prints "extmem: " and one line to stderr; returns CMD_ERROR. */
int cmd_fail(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

/* The preload library: next to the executable, in ../lib, or where it was configured to
   be installed.  0 or -errno with a line in err. */
int library_find(char *path, size_t len, char *err, size_t err_len);
/* The path of this executable; false: not known. */
bool library_self(char *path, size_t len);
/* Puts the library into LD_PRELOAD.  0 or -errno. */
int library_preload(const char *library);

#endif
