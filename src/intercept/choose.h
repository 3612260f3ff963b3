/* SPDX-License-Identifier: MIT */
/* Which bytes of a site become the jump: between plan.c and choose.c only. */
#ifndef EM_INTERCEPT_CHOOSE_H
#define EM_INTERCEPT_CHOOSE_H

#include "plan.h"

/* Fills in the form of the patch; sites are to come in ascending order. */
void em_choose(struct em_plan *plan, const struct em_elf *elf, struct em_site *site);

/* Makes sure that the short branches within reach of vaddr are marked. */
void em_plan_cover(struct em_text *text, const struct em_elf *elf, uint64_t vaddr, size_t reach);
struct em_text *em_plan_text_of(const struct em_plan *plan, uint64_t vaddr);

#endif
