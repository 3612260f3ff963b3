/* SPDX-License-Identifier: MIT */
/*
 * Dirty victims are write-protected before they are written: one ioctl a span, which reaches over
 * pages that stay where that is cheaper than another.
 */
#include "standby.h"

#include <errno.h>

/* Nanoseconds: protecting one more page on the way (0.1-0.17 us), a fault that lifts the protection
   again, an ioctl that is not made (1-24 us, by how many processors must hear of it). */
enum { GAP_PAGES = 32, GAP_PAGE_NS = 150, GAP_LIFT_NS = 4000, GAP_SAVES_NS = 12000,
       GAP_ROUND = 2048 };

/* How many pages that stay may be protected to reach the next victim: fewer, the more of them are written
   soon, each at the price of a fault. */
static struct {
	uint32_t passed, lifted, most;
} gaps = { .most = GAP_PAGES };

void em_protect_gap_lifted(void)
{
	__atomic_fetch_add(&gaps.lifted, 1, __ATOMIC_RELAXED);
}

static void note_gaps(uint32_t n)
{
	uint32_t passed = __atomic_add_fetch(&gaps.passed, n, __ATOMIC_RELAXED), lifted, most;

	if (passed < GAP_ROUND)
		return;
	lifted = __atomic_load_n(&gaps.lifted, __ATOMIC_RELAXED);
	most = GAP_SAVES_NS /
	       (GAP_PAGE_NS + (lifted < passed ? lifted : passed) * (uint64_t)GAP_LIFT_NS / passed);
	__atomic_store_n(&gaps.most, most ? most : 1, __ATOMIC_RELAXED);
	/* The past counts half. */
	__atomic_fetch_sub(&gaps.passed, passed / 2, __ATOMIC_RELAXED);
	__atomic_fetch_sub(&gaps.lifted, lifted / 2, __ATOMIC_RELAXED);
}

struct span {
	struct em_batch *b;
	const struct em_hazard_view *hv;
	uintptr_t start, end;
	uint32_t ngap;
};

/* Locks the pages between the span's end and addr, all in one block; gives up on the first that
   cannot be had. */
static bool lock_gap(struct span *s, uintptr_t addr)
{
	uint32_t keep = s->ngap;
	uintptr_t a;

	if (addr - s->end > __atomic_load_n(&gaps.most, __ATOMIC_RELAXED) * EM_PAGE_SIZE ||
	    (addr ^ s->end) >> EM_BLOCK_SHIFT)
		return addr == s->end;
	for (a = s->end; a < addr; a += EM_PAGE_SIZE) {
		em_word_t *wp = em_space_word(a), w;

		if (s->ngap == EM_BATCH_PAGES || !wp || !em_word_trylock(wp, &w))
			break;
		s->b->gap[s->ngap++] = wp;
		/* Where scattered victims are captured, nothing pays for a fault of a page that stays. */
		if (em_word_state(w) == EM_HOLE ||
		    (em_word_state(w) == EM_DIRTY && s->b->captures) ||
		    (em_word_state(w) == EM_DIRTY && em_hazard_covers(s->hv, a)))
			break;
	}
	if (a == addr)
		return true;
	while (s->ngap > keep)
		em_word_unlock(s->b->gap[--s->ngap], 0);
	return false;
}

/* Hazards pushed after the batch's look find LOCKED words and wait, so the view is still good for the
   victims; gap pages are locked after it and need a look of their own. */
static bool gap_is_held(struct span *s)
{
	struct em_hazard_view *hv = &s->b->hv_again;

	if (!s->ngap)
		return false;
	em_hazard_look(hv, s->start, s->end);
	if (!hv->n && !hv->overflow)
		return false;
	for (uintptr_t a = s->start; a < s->end; a += EM_PAGE_SIZE)
		if (em_hazard_covers(hv, a))
			return true;
	return false;
}

static void flush_span(struct span *s, uint32_t first, uint32_t last)
{
	bool held = gap_is_held(s);
	int ret = held ? -EBUSY : em_uffd_protect(s->start, s->end - s->start, true);
	uint32_t passed = 0;

	for (uint32_t i = 0; i < s->ngap; i++) {
		bool dirty = em_word_state(em_word_load(s->b->gap[i])) == EM_DIRTY;

		passed += dirty;
		em_word_unlock(s->b->gap[i], dirty && !held ? EM_W_MAYBE_WP : 0);
	}
	for (uint32_t i = first; i < last; i++) {
		struct em_victim *v = &s->b->v[i];

		if (v->kind != V_DIRTY && v->kind != V_KEPT)
			continue;
		if (ret) { /* part of the span may be protected */
			if (v->kind == V_KEPT)
				em_standby_return(v);
			else
				em_slots_free(em_engine.store, v->slot);
			em_word_unlock(v->wp, held ? 0 : EM_W_MAYBE_WP);
			em_event(v->addr, EXTMEM_EV_EVICT_FAILED, 0);
			v->kind = V_SKIP;
		} else {
			em_word_release(v->wp, v->kind == V_KEPT ? EM_DROPPING : EM_WRITEBACK, v->slot,
					EM_W_MAYBE_WP, 0);
		}
	}
	s->ngap = 0;
	note_gaps(passed);
}

/* All dirty victims are LOCKED, and have slots or frames. */
void em_protect_victims(struct em_batch *b, const struct em_hazard_view *hv)
{
	struct span s = { .b = b, .hv = hv };
	uint32_t first = 0;
	bool open = false;

	for (uint32_t i = 0; i < b->n; i++) {
		if (b->v[i].kind != V_DIRTY && b->v[i].kind != V_KEPT)
			continue;
		if (open && !lock_gap(&s, b->v[i].addr)) {
			flush_span(&s, first, i);
			open = false;
		}
		if (!open) {
			s.start = b->v[i].addr;
			first = i;
			open = true;
		}
		s.end = b->v[i].addr + EM_PAGE_SIZE;
	}
	if (open)
		flush_span(&s, first, b->n);
}
