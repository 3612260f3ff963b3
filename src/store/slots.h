/* SPDX-License-Identifier: MIT */
/*
 * What slots.c and slots_fork.c share.  [sigsafe, slots.lock]
 */
#ifndef EM_STORE_SLOTS_H
#define EM_STORE_SLOTS_H

#include "internal.h"

#include "../core/meta.h"

/* An array of `used` elements moved to one of new_cap; NULL on failure, then nothing changed. */
static inline void *em_array_grown(const void *array, uint32_t used, uint32_t new_cap, size_t size)
{
	void *p = em_meta_alloc(new_cap * size);

	if (p && used)
		em_memcpy(p, array, used * size);
	return p;
}

static inline void em_array_free(void *array, uint32_t cap, size_t size)
{
	if (array)
		em_meta_free(array, cap * size);
}

/* ---- slots.c ---------------------------------------------------------------------- */

/* One slot more is free. */
void em_slots_release(struct em_slots *s, struct em_extent *x, uint32_t bit);
/* Lets relatives have an extent that is free as a whole, if we keep another one's worth. */
void em_slots_give_if_empty(struct em_store *st, struct em_extent *x);

/* ---- slots_fork.c ------------------------------------------------------------------- */

/* Was a slot in the hands of a child that still lives?  Given out at fork count born. */
bool em_slots_held_by_child(const struct em_slots *s, uint32_t born, uint32_t freed);
/* The slot is freed, but not free before that child is gone. */
void em_slots_defer(struct em_slots *s, struct em_extent *x, uint32_t bit);
/* Looks which children are gone, and frees what only they kept. */
void em_slots_sweep(struct em_store *st);

#endif
