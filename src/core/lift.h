/* SPDX-License-Identifier: MIT */
/*
 * Eviction without write protection (kernels before 5.7, or masked): a dirty page is moved out of
 * the program's address space before it is written, so that nobody can change it meanwhile.
 * [engine]
 */
#ifndef EM_CORE_LIFT_H
#define EM_CORE_LIFT_H

#include "reclaim.h"

/* Moves the V_DIRTY victims of b out; those that cannot be moved stay. */
void em_lift_victims(struct em_batch *b);
void *em_lift_frame(struct em_batch *b, uint32_t index);
/* After the write: SWAPPED, or moved back when err. */
void em_lift_settle(struct em_batch *b, struct em_victim *v, int err);
/* Gives the frames back, returns the number of pages that left. */
uint32_t em_lift_finish(struct em_batch *b);

#endif
