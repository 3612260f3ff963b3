/* SPDX-License-Identifier: MIT */
/* Carrying out a plan: shared by start-up (patch_all.c) and dlopen (patch.c). */
#ifndef EM_INTERCEPT_PATCH_H
#define EM_INTERCEPT_PATCH_H

#include "hook.h"
#include "plan.h"

/* Writes trampolines for all planned sites.  Under em_tramp_lock; em_tramp_commit follows. */
void em_patch_emit(struct em_plan *plan, uint64_t bias);

/*
 * Writes the jumps; every page gets the protection prot back (all executable segments of
 * one object, or the one mapping).  Returns the number of sites patched.
 */
unsigned em_patch_write(struct em_plan *plan, uint64_t bias, const struct em_text *text, int prot);

/* Adds the sites of a plan that has been carried out to the report, and names those that were left. */
void em_patch_count(const struct em_plan *plan, unsigned patched, struct em_patch_report *report,
		    em_patch_log_fn log, void *arg, const char *path);

/* entry.S */
long em_call_saving_vectors(long (*fn)(void *), void *arg);

#endif
