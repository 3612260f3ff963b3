/* SPDX-License-Identifier: MIT */
/*
 * A batch of victims, and what the files of reclaim share: reclaim.c leads a batch through its steps; capture.c,
 * protect.c, standby.c and writeback.c are some of them, lift.c stands in for protect.c.  [engine]
 */
#ifndef EM_CORE_RECLAIM_H
#define EM_CORE_RECLAIM_H

#include "core.h"

#define EM_BATCH_PAGES 256u
#define EM_BATCH_IOS 32u
struct em_batch {
	struct em_batch *next;
	uint32_t n;			/* victims */
	uint32_t nio, io_done;
	uint32_t dropped;		/* clean ones, gone at the start already */
	uint32_t captured;		/* their content is in frames and not in the store yet */
	uint32_t lifted;		/* gone by em_lift_settle */
	bool captures;			/* scattered victims, see capture.c */
	bool of_standby;		/* pages on standby are being written */
	uintptr_t lift_base;		/* where pages are lifted to, 0: not mapped yet */
	struct em_frames {		/* or captured, see capture.c */
		uintptr_t base;		/* 0: none */
		uint32_t pages;
	} frames;
	struct em_victim {
		uintptr_t addr;
		em_word_t *wp;
		em_slot_t slot;		/* of dirty victims: assigned */
		int err;		/* of their write */
		uint8_t kind;		/* enum victim_kind */
		bool far;		/* not expected back soon: not for standby */
		uint32_t frame;		/* see standby.h */
	} v[EM_BATCH_PAGES];
	struct iovec *iov;		/* EM_BATCH_PAGES, dirty victims in slot order */
	struct iovec *copy_from, *copy_to; /* as many, into standby: */
	struct em_victim *copied[EM_BATCH_PAGES];
	struct em_io io[EM_BATCH_IOS];
	/* Scratch: the signal stack is too small for it. */
	extmem_page_t page[EM_BATCH_PAGES];
	em_word_t *gap[EM_BATCH_PAGES];	/* locked pages between victims */
	uint16_t take[EM_BATCH_PAGES];	/* victims that are captured, see capture.h */
	bool ok[EM_BATCH_PAGES];
	struct em_hazard_view hv, hv_again;
};
struct em_batch *em_batch_get(void);
void em_batch_put(struct em_batch *b);

/* The service's asynchronous halves. */
bool em_batch_start(struct em_batch *b, uint32_t want);	     /* false: nothing to evict */
uint32_t em_batch_finish(struct em_batch *b);
/* Victims that are charged until it is finished. */
static inline uint32_t em_batch_leaving(const struct em_batch *b)
{
	return b->n - b->dropped - b->captured;
}

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
