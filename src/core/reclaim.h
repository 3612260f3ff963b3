/* SPDX-License-Identifier: MIT */
/*
 * What the files of reclaim share: reclaim.c leads a batch through its steps, protect.c and writeback.c
 * are two of them, lift.c stands in for protect.c.  [engine]
 */
#ifndef EM_CORE_RECLAIM_H
#define EM_CORE_RECLAIM_H

#include "core.h"

/* What is still to be done with a victim. */
enum victim_kind {
	V_SKIP = 0,
	V_CLEAN,
	V_DIRTY, /* written where it is */
	V_LIFTED,
	V_KEPT,	   /* dirty, goes to standby as it is */
	V_STANDBY, /* is there, and written from there */
};

/* The victim stays: it was only LOCKED / it has a slot and may be in WRITEBACK. */
void em_victim_let_go(struct em_victim *v);
void em_victim_undo(struct em_victim *v);
/* It has left memory, for the statistics of its region. */
void em_victim_count(const struct em_victim *v, bool clean);
/* By address. */
void em_reclaim_sort(extmem_page_t *page, size_t n);

/* Dirty victims, LOCKED: those with slots to WRITEBACK, those with frames to DROPPING, or they stay. */
void em_protect_victims(struct em_batch *b, const struct em_hazard_view *hv);

/* ---- writeback.c, in this order ------------------------------------------------------ */

void em_writeback_assign_slots(struct em_batch *b);
void em_writeback_build(struct em_batch *b);
/* The requests, one after the other; the service thread submits them instead. */
void em_writeback_now(struct em_batch *b);
/* The requests have results: what failed is tried in other ways, and each victim gets its err. */
void em_writeback_settle(struct em_batch *b);
/* Copies a page that only the kernel can read. 0 or -errno. */
int em_read_forced(uintptr_t addr, void *buf);

#endif
