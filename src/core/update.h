/* SPDX-License-Identifier: MIT */
/*
 * Look, then write: memory whose pages come in for a read and are nearly always written before they leave.
 *
 * A page that comes in for a read is mapped write-protected, so that it can be dropped without a write; its first
 * write is a fault of its own.  Where that happens to nearly every page (a counter that is looked at and raised,
 * a value that is compared and replaced) the protection costs a fault and spares nothing.  There
 * pages come in writable.  Groups of neighbours chosen by a hash never do: they tell whether it is still so.
 *
 * The protection is never left out where a page is expected to stay as it is: then it would be written in vain.
 * [engine]
 */
#ifndef EM_CORE_UPDATE_H
#define EM_CORE_UPDATE_H

#include <stdbool.h>
#include <stdint.h>

struct em_region;

/* Of one region; relaxed atomics, a lost count does no harm. */
struct em_update {
	uint32_t came, written; /* pages of the control groups: mapped clean, written since */
	bool expected;
};

/* Is the page, which comes in for a read, to be mapped writable? */
bool em_update_expected(const struct em_region *r, uintptr_t addr);

/* The page has been mapped clean. */
void em_update_came(struct em_region *r, uintptr_t addr);

/* The page was clean and is being written. */
void em_update_written(struct em_region *r, uintptr_t addr);

#endif
