/* SPDX-License-Identifier: MIT */
/* mmap and friends: see mm.h.  mm_semantics [TEST...] */
#include "mm.h"

int main(int argc, char **argv)
{
	static const struct mm_test *const groups[] = { mm_map_tests,	 mm_protect_tests,
							mm_remap_tests,	 mm_advise_tests,
							mm_misc_tests,	 mm_kernel_tests,
							NULL };

	return mm_run(argc, argv, groups);
}
