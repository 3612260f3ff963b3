/* SPDX-License-Identifier: MIT */
/* See sys.h.  syscalls [TEST...] */
#define _GNU_SOURCE
#include "sys.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ARENA (32 * MIB)

static char *arena;
static size_t used;
static char dir[256];

void sys_reset(void)
{
	if (!arena)
		arena = mm_map(ARENA);
	else if (used)
		madvise(arena, used + 2 * PG, MADV_DONTNEED);
	used = 0;
}

static void *take(size_t at, size_t n)
{
	if (!arena)
		sys_reset();
	used = (at + n + PG - 1) & ~(PG - 1);
	if (used > ARENA) {
		printf("Bail out! the test's arena is too small\n");
		exit(1);
	}
	memset(arena + at, 0, n);
	return arena + at;
}

void *spot(size_t n)
{
	size_t before = n >= 32 ? n / 2 & ~15ul : n / 2;

	if (before > PG)
		before = PG;
	return take(used + 2 * PG - before, n);
}

char *spot_text(const char *text)
{
	char *p = spot(strlen(text) + 1);

	strcpy(p, text);
	return p;
}

char *spot_pages(size_t n)
{
	return take(used + PG, n);
}

void cold(void)
{
	mm_evict(arena, used + PG);
}

const char *sys_dir(void)
{
	return dir;
}

int main(int argc, char **argv)
{
	static const struct mm_test *const groups[] = { sys_io_tests,	sys_socket_tests,
							sys_path_tests, sys_wait_tests,
							sys_misc_tests, sys_every_tests, sys_async_tests, NULL };
	const char *tmp = getenv("TMPDIR");
	int ret;

	if (argc == 3 && strcmp(argv[1], "--echo-arguments") == 0) {
		printf("%s %s\n", argv[2], getenv("SPOT") ? getenv("SPOT") : "");
		return 0;
	}
	snprintf(dir, sizeof(dir), "%s/syscalls-XXXXXX", tmp ? tmp : "/tmp");
	if (!mkdtemp(dir)) {
		perror(dir);
		return 1;
	}
	ret = mm_run(argc, argv, groups);
	if (rmdir(dir) != 0)
		perror(dir);
	return ret;
}
