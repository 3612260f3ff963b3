/* SPDX-License-Identifier: MIT */
/*
 * Range operations: how munmap, mmap over something, mremap, madvise and fork keep the page words and
 * the kernel's mappings in step.
 *
 *   begin   signals blocked, map lock, section; every managed page of the range LOCKED
 *   the system call
 *   finish  each page becomes HOLE or ABSENT, or stays as it was; unlocked
 *
 * A fault on a LOCKED page waits; reclaim passes it by.  Lazy blocks have no pages to lock: one that
 * gets its descriptor between begin and finish (a program that touches what it is unmapping) is
 * locked in finish; range_op of the block tells.
 */
#ifndef EM_CORE_RANGE_H
#define EM_CORE_RANGE_H

#include "core.h"

/* VACATE is UNMAP of what is managed again at once: blocks stay, so that calls which begin meanwhile still find
   the range worth a hazard.  em_space_trim afterwards. */
enum em_range_action { EM_RANGE_KEEP, EM_RANGE_DISCARD, EM_RANGE_UNMAP, EM_RANGE_VACATE };

struct em_range_op {
	struct em_thread *t;
	uint64_t mask; /* signals to restore */
	uint64_t id;
};

/* Signals, map lock, section. */
void em_range_enter(struct em_range_op *op);
bool em_range_try_enter(struct em_range_op *op, uint64_t wait_ms); /* false: not had in time */
void em_range_leave(struct em_range_op *op);
/* The same after [start, end) was discarded or replaced, which calls under way may be using. */
void em_range_leave_refilled(struct em_range_op *op, uintptr_t start, uintptr_t end);

/* present.c: pages of a range that have content, and those of them that are not mapped.  [outside a section] */
struct em_range_content {
	uint64_t pages, away;
};
struct em_range_content em_range_content(uintptr_t start, uintptr_t end);
/* Brings in and holds what has content (what cannot be read apart, if but_failed), then enters and locks.  0, or
   -errno and nothing is entered; -EAGAIN: others discard or page out all the time.  [outside a section] */
int em_range_enter_present(struct em_range_op *op, uintptr_t start, uintptr_t end, bool but_failed);

int em_range_lock(struct em_range_op *op, uintptr_t start, uintptr_t end);
void em_range_finish(struct em_range_op *op, uintptr_t start, uintptr_t end,
		     enum em_range_action action);

/* Registers and adds a fresh range. 0 or -errno; on failure it is left unmanaged. */
int em_range_adopt(uintptr_t start, uintptr_t end, enum em_region_kind kind);

/* Registers (unregisters) with userfaultfd the managed pages of a range; unregistering lifts their write
   protection. 0 or -errno. */
int em_range_register(uintptr_t start, uintptr_t end);
int em_range_unregister(uintptr_t start, uintptr_t end);

/* check.c: compares every word with the counters, slots and regions; panics.  Nothing in other than debug
   builds. [engine, map lock] */
#ifdef EM_DEBUG
void em_space_check(struct em_thread *t);
#else
static inline void em_space_check(struct em_thread *t)
{
	(void)t;
}
#endif

/* fork.c: is something mapped everywhere?  Tells about holes without a look at the pages. */
bool em_range_is_whole(uintptr_t start, uintptr_t end);

/* plain.c: in a forked child that has no userfaultfd all content comes in, and nothing is managed any more. */
void em_plain_child(struct em_range_op *op);

/* Frees what a LOCKED page holds (w: its word): slot, frame; 1 if it was resident. */
uint32_t em_range_free_content(uintptr_t addr, em_word_t w);

/* pin.c: may this much more be pinned?  Brings in and marks. [engine] */
bool em_pin_allowed(uintptr_t start, uintptr_t end);
int em_pin_range(struct em_thread *t, uintptr_t start, uintptr_t end);
void em_pin_unmapped(uintptr_t start, uintptr_t end);

/* The region of a managed page, NULL if it is not managed. */
struct em_region *em_range_region_at(uintptr_t addr);

#endif
