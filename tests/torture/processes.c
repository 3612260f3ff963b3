/* SPDX-License-Identifier: MIT */
/* Processes: see proc_life.c, proc_clone.c and proc_tables.c.  processes [TEST...] */
#include "mm.h"

#include <sys/resource.h>

int main(int argc, char **argv)
{
	static const struct mm_test *const groups[] = { proc_life_tests, proc_clone_tests,
						   proc_tables_tests, NULL };
	const struct rlimit none = { 0, 0 };

	setrlimit(RLIMIT_CORE, &none); /* some of the children crash */
	return mm_run(argc, argv, groups);
}
