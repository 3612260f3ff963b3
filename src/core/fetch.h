/* SPDX-License-Identifier: MIT */
/* Single pages that the service brings in before they are touched.  [service thread, engine] */
#ifndef EM_CORE_FETCH_H
#define EM_CORE_FETCH_H

#include "core.h"

#define EM_FETCHES 16u /* under way at a time */

struct em_fetch {
	struct em_io io;
	struct iovec iov;
	uintptr_t addr;
	em_word_t *wp;
	struct em_fetch *next;
};

/* All of them as a list; NULL without memory.  Nothing is under way. */
struct em_fetch *em_fetch_pool(void);
bool em_fetch_has_room(void); /* in the budget */
/* False: the page is not in the store.  Else f->io is to be submitted. */
bool em_fetch_start(struct em_fetch *f, extmem_page_t page);
/* f->io is complete. */
void em_fetch_finish(struct em_fetch *f);

#endif
