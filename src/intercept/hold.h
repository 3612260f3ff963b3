/* SPDX-License-Identifier: MIT */
/*
 * Holding a system call's managed buffers: resident, writable where the kernel writes, and out of
 * reclaim's reach until the call has returned.
 */
#ifndef EM_INTERCEPT_HOLD_H
#define EM_INTERCEPT_HOLD_H

#include "calls.h"
#include "hook.h"

struct em_hold {
	struct em_thread *t;
	uintptr_t sp;
	uint32_t mark;
	uint32_t n; /* ranges held */
	int err;    /* -EFAULT, -ENOMEM: the call cannot be made */
};

void em_hold_begin(struct em_hold *h, uintptr_t sp);
/* Holds [addr, addr + len) if any of it may be managed. */
void em_hold_range(struct em_hold *h, uintptr_t addr, size_t len, enum em_ptr_dir dir);
/* Holds what the table says of the call. */
void em_hold_call(struct em_hold *h, const struct em_call *c, const long *arg);
void em_hold_end(struct em_hold *h);

/* Quick: does the call point at managed memory at all? */
bool em_hold_needed(const struct em_call *c, const long *arg);

#endif
