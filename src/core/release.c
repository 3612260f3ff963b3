/* SPDX-License-Identifier: MIT */
/*
 * Memory that is given back to the kernel for good, because somebody else has to decide what its missing
 * pages are: the kernel at fork (MADV_WIPEONFORK), or the program with a userfaultfd of its own.
 *
 * What is in the store comes back first; what was never touched stays untouched, so that a
 * userfaultfd of the program sees its faults.
 */
#include <errno.h>

#include "range.h"

int em_range_release(uintptr_t start, uintptr_t end)
{
	struct em_range_op op;
	int ret;

	if (em_range_content(start, end).pages > (uint64_t)em_budget.limit * 3 / 4)
		return -ENOMEM;
	ret = em_range_enter_present(&op, start, end, false);
	if (ret)
		return ret;
	ret = em_range_unregister(start, end);
	em_range_finish(&op, start, end, ret ? EM_RANGE_KEEP : EM_RANGE_UNMAP);
	em_range_leave(&op);
	return ret;
}
