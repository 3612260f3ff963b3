/* SPDX-License-Identifier: MIT */
/*
 * Fetching: single pages anywhere are read by the service and mapped at once, before they are touched.  For pages
 * that lie scattered, each of which would need a chunk of the stage to itself.
 *
 * A page is FILLING as long as its read is under way, so its mapping and its block stay; a fault on it waits.
 */
#include "fetch.h"

#include <errno.h>

#include "meta.h"
#include "range.h"

static struct em_fetch pool[EM_FETCHES];
static char *frames; /* one page each; kept for forked children, who have none under way */

struct em_fetch *em_fetch_pool(void)
{
	struct em_fetch *list = NULL;

	if (!frames)
		frames = em_meta_alloc_frames(EM_FETCHES);
	for (uint32_t i = 0; frames && i < EM_FETCHES; i++) {
		pool[i].iov.iov_base = frames + i * EM_PAGE_SIZE;
		pool[i].next = list;
		list = &pool[i];
	}
	return list;
}

/* Not at the price of a page that is there. */
bool em_fetch_has_room(void)
{
	return em_budget_used() < __atomic_load_n(&em_budget.limit, __ATOMIC_RELAXED);
}

bool em_fetch_start(struct em_fetch *f, extmem_page_t page)
{
	bool possible = !(page >> (EM_ADDR_BITS - EM_PAGE_SHIFT));
	uintptr_t addr = page << EM_PAGE_SHIFT;
	em_word_t *wp = possible ? em_space_word(addr) : NULL, w;

	w = wp ? em_word_load(wp) : 0;
	if (!em_word_is_free(w) || em_word_state(w) != EM_SWAPPED || !em_word_take(wp, &w, EM_FILLING))
		return false;
	__atomic_fetch_add(&em_budget.resident, 1, __ATOMIC_RELAXED);
	f->addr = addr;
	f->wp = wp;
	f->iov.iov_len = EM_PAGE_SIZE;
	f->io = (struct em_io){ .slot = em_word_slot(w), .iov = &f->iov, .iovcnt = 1, .npages = 1,
				.cookie = f, .fetch = true };
	return true;
}

void em_fetch_finish(struct em_fetch *f)
{
	/* Its word is FILLING, so its region stays. */
	struct em_region *r = em_range_region_at(f->addr);
	bool expected = r && em_update_expected(r, f->addr);
	bool clean = (em_uffd.features & EM_FEAT_WP) && !expected;
	uint32_t distance = em_evict_distance(em_word_load(f->wp)) | EXTMEM_NEIGHBOUR, done;
	int err = f->io.result;

	if (!err)
		err = em_uffd_copy(f->addr, f->iov.iov_base, 1, clean, &done);
	if (err == -EEXIST)
		em_panic("extmem: a page that is in the store is mapped as well\n");
	if (err) { /* it is in the store still; who needs it will hear of an error */
		em_word_release(f->wp, EM_SWAPPED, f->io.slot, 0, 0);
		em_uncharge(1);
		return;
	}
	em_word_release(f->wp, clean ? EM_CLEAN : EM_DIRTY, clean ? f->io.slot : EM_SLOT_NONE, 0, 0);
	if (!clean)
		em_slots_free(em_engine.store, f->io.slot);
	else if (r)
		em_update_came(r, f->addr);
	em_event(f->addr, EXTMEM_EV_SWAP_IN, distance);
	em_stat_add(bytes_read, EM_PAGE_SIZE);
	em_stat_inc(pages_in);
	em_stat_inc(fetched);
	if (expected)
		em_stat_inc(writes_expected);
	if (r)
		__atomic_fetch_add(&r->stats.pages_in, 1, __ATOMIC_RELAXED);
}
