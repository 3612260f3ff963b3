/* SPDX-License-Identifier: MIT */
/*
 * Standby: what reclaim unmaps is kept in frames for a while.  A page that is touched again meanwhile comes
 * back by a copy instead of a read, and its policy learns that it is in use (segmented FIFO: R. Turner,
 * H. Levy, SIGMETRICS 1981; the free and modified lists of VAX/VMS, H. Levy, P. Lipman, Computer 1982).
 * What was dirty is written only when its frame is about to be needed.
 *
 * Such a page is STAGED like a prefetched one; frames from EM_STANDBY_FRAME on are these, those below are the
 * stage's.
 */
#ifndef EM_CORE_STANDBY_H
#define EM_CORE_STANDBY_H

#include "reclaim.h"

#define EM_STANDBY_FRAME (1u << 31)

static inline bool em_frame_is_standby(uint32_t frame)
{
	return frame >= EM_STANDBY_FRAME;
}

/* Most frames, as a part of the budget; at any time. [engine, or alone] */
void em_standby_set_budget(uint64_t budget_pages);
/* Frames with memory; they are charged to the budget. [any] */
uint32_t em_standby_pages(void);

/* ---- reclaim -------------------------------------------------------------------------- */

/* Frames for the victims, as far as there are: victim->frame, else EM_SLOT_NONE. */
void em_standby_assign(struct em_batch *b);
/* The victims of one kind, in DROPPING and still mapped, are copied into their frames.  One that cannot be
   read loses its frame. */
void em_standby_copy(struct em_batch *b, enum victim_kind kind);
/* The victim is unmapped: DROPPING to STAGED, its slot, if it has one, kept for it. */
void em_standby_publish(struct em_victim *v, em_word_t stamp);
/* The frame of a victim that stays mapped. */
void em_standby_return(struct em_victim *v);

/* ---- pages on standby [owner of the page] ----------------------------------------------- */

char *em_standby_content(uint32_t frame);
/* EM_SLOT_NONE: not written. */
em_slot_t em_standby_slot(uint32_t frame);
/* The page does not need its frame any more; used: it is mapped again. */
void em_standby_put(uint32_t frame, bool used);
/* mremap: the page is at another address now. */
void em_standby_moved(uint32_t frame, uintptr_t to);

/* ---- frames ----------------------------------------------------------------------------- */

/* Should pages that were dirty be written now, so that frames can be had? */
bool em_standby_low(void);
/* Takes the oldest of them: requests to be submitted in b.  False: there are none. */
bool em_standby_clean_start(struct em_batch *b);
void em_standby_clean_finish(struct em_batch *b);
/* The victim of such a batch is STAGED again, on standby; slot: EM_SLOT_NONE if it could not be written. */
void em_standby_let_go(struct em_victim *v, em_slot_t slot);
/* Gives memory of at most n frames back, the oldest pages first; written ones only.  How many. [engine] */
uint32_t em_standby_shrink(uint32_t n);
/* Everything to the store. [engine, in a thread of the engine's] */
void em_standby_flush(void);
/* Service: gives back what a smaller budget or standby does not allow, some at a time; is there more? */
bool em_standby_settle(void);
/* Checks at a quiet point: npages words are on standby. */
bool em_standby_is_valid(uint32_t npages);

#endif
