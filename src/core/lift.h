/* SPDX-License-Identifier: MIT */
/*
 * Eviction without write protection (kernels before 5.7, or masked): a dirty page is moved out of
 * the program's address space before it is written, so that nobody can change it meanwhile.
 * [engine]
 */
#ifndef EM_CORE_LIFT_H
#define EM_CORE_LIFT_H

#include "core.h"

enum victim_kind { V_SKIP = 0, V_CLEAN, V_DIRTY, V_LIFTED };

/* Moves the V_DIRTY victims of b out; those that cannot be moved stay. */
void em_lift_victims(struct em_batch *b);
void *em_lift_frame(struct em_batch *b, uint32_t index);
/* After the write: SWAPPED, or moved back when err. */
void em_lift_settle(struct em_batch *b, struct em_victim *v, int err);
/* Gives the frames back, returns the number of pages that left. */
uint32_t em_lift_finish(struct em_batch *b);

/* Shared by reclaim.c. */
void *em_victim_source(struct em_batch *b, const struct em_victim *v);
void em_victim_undo(struct em_victim *v);
/* Writes one page that only the kernel can read (PROT_NONE), through /proc/self/mem. */
int em_store_write_copied(uintptr_t addr, em_slot_t slot);

#endif
