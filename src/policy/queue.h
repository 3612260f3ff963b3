/* SPDX-License-Identifier: MIT */
/*
 * First-in-first-out lists of resident pages, for policies.
 *
 * Memory.  An entry is five bytes: 36 bits of page number and the 4-bit epoch in which
 * it was queued.  Entries live in 4 KiB chunks that all lists share, so that pages
 * moving from one list to another need no memory of their own.
 *
 * Lazy deletion.  A page leaves a list by a change of its tag; the entry stays behind
 * and is skipped when it is reached.  An entry counts only if the page's tag names this
 * list and the entry's epoch.  Each list starts a new epoch after live/8 insertions, so a
 * page that is mapped, queued, unmapped over and over leaves entries of many epochs, of
 * which one epoch's count.  Whenever a chunk fills up and there are more than
 *
 *	entries > 11/8 * resident pages + EM_QUEUE_SLACK
 *
 * a cleaner walks some chunks of every list and squeezes out what does not count, faster
 * than entries are added: at most about 8 bytes per resident page in all.
 *
 * The tag's low four bits are list and flags, the high four the epoch; bits 2 and 3
 * belong to the policy.
 *
 * Context: signal-safe, under the policy lock.
 */
#ifndef EM_POLICY_QUEUE_H
#define EM_POLICY_QUEUE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "extmem/policy.h"

#define EM_TAG_LIST 0x03u /* 0: in no list */
#define EM_TAG_USER 0x0cu
#define EM_TAG_EPOCH_SHIFT 4

#define EM_QUEUE_LISTS 3 /* numbered from 1 */
#define EM_QUEUE_CHUNK_ENTRIES 816
#define EM_QUEUE_SLACK (4 * EM_QUEUE_CHUNK_ENTRIES)

struct em_queue_chunk {
	struct em_queue_chunk *next;
	uint16_t head, tail; /* entries are [head, tail) */
	uint32_t reserved;
	uint32_t low[EM_QUEUE_CHUNK_ENTRIES]; /* page & 0xffffffff */
	uint8_t high[EM_QUEUE_CHUNK_ENTRIES]; /* epoch << 4 | page >> 32 */
};
_Static_assert(sizeof(struct em_queue_chunk) == 4096, "a chunk is a page");

struct em_queue {
	struct em_queue_chunk *first, *last;
	struct em_queue_chunk *cleaned; /* the cleaner did everything up to here */
	uint64_t live;			/* pages in this list */
	uint64_t epoch_left;		/* insertions until the next epoch */
	uint8_t epoch;
};

struct em_queues {
	const struct extmem_policy_host *host;
	struct em_queue list[EM_QUEUE_LISTS + 1];
	struct em_queue_chunk *free;
	struct em_queue_chunk *slab; /* never used so far */
	uint32_t slab_left, slab_next;
	uint64_t entries; /* in all lists, counting or not */
	uint64_t chunks;  /* ever allocated */
	uint64_t lost;	  /* pages that could not be queued for want of memory */
};

/* 0 or -ENOMEM. */
int em_queues_init(struct em_queues *qs, const struct extmem_policy_host *host);

/* Puts a page at the tail of a list with these EM_TAG_USER bits, taking it out of
   whatever list it was in.  0, -ENOENT (no longer managed) or -ENOMEM: then it is in
   no list. */
int em_queue_push(struct em_queues *qs, unsigned list, extmem_page_t page, uint8_t user);

/* Takes the oldest page out of a list; false when there is none.  *user gets its bits. */
bool em_queue_pop(struct em_queues *qs, unsigned list, extmem_page_t *page, uint8_t *user);

/* Takes a page with this tag out of its list, wherever it is. */
void em_queue_remove(struct em_queues *qs, extmem_page_t page, uint8_t tag);

/*
 * For EXTMEM_EV_GONE, for the sake of `live`: the engine has cleared the tag already and
 * tells what it was.
 *
 * GONE and EVICTED may come after the page's next arrival: the engine publishes the new
 * state first, and another thread may fault the page in before the event is sent.  So
 * neither takes a page out of a list by its present tag; that could lose a resident page
 * for good.  At worst a page that left is named once more, which does no harm.
 */
void em_queue_gone(struct em_queues *qs, const struct extmem_event *ev);

/* Was the page with this tag queued among the youngest 3/8 to 1/2 of its list?  Wrong, in
   either direction, for a page that stayed for longer than two turns of the list. */
static inline bool em_queue_is_young(const struct em_queues *qs, uint8_t tag)
{
	const struct em_queue *q = &qs->list[tag & EM_TAG_LIST];

	return ((q->epoch - (tag >> EM_TAG_EPOCH_SHIFT)) & 15) < 4;
}

#endif
