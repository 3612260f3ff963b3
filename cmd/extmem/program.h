/* SPDX-License-Identifier: MIT */
/*
 * Finds the program to run and checks that the preload library can get into it, before
 * anything runs.
 */
#ifndef EXTMEM_PROGRAM_H
#define EXTMEM_PROGRAM_H

#include <stdbool.h>
#include <stddef.h>

struct program {
	char path[4096];
	bool by_shell; /* text without #!: to be run as `/bin/sh path` */
};

/* As execvp would find `name`, and checked.  0, or -EINVAL with a line in err. */
int program_find(const char *name, struct program *p, char *err, size_t err_len);

#endif
