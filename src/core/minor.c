/* SPDX-License-Identifier: MIT */
/*
 * Minor faults: nothing has to be read.  Memory that was never touched becomes zeros; a page that
 * is mapped write-protected becomes writable.
 */
#include "fault.h"

enum {
	TOUCH_RUN_MAX = 16,   /* 64 KiB a first-touch fault at most */
	TOUCH_GROUP = 16,     /* aligned pages that are filled when half of them have been touched */
	UPGRADE_RUN_MAX = 16, /* pages unprotected by one write fault at most */
	RMW_RUNS = 8,	      /* prefetched runs mapped writable on the strength of one such run */
};

static const char zeros[TOUCH_RUN_MAX * EM_PAGE_SIZE] __attribute__((aligned(4096)));

/* ---- first touch ---------------------------------------------------------------- */

/* The run that the thread is in, or the least recently started one to begin anew. */
static struct em_run *find_run(struct em_thread *t, uintptr_t addr)
{
	for (uint32_t i = 0; i < EM_TOUCH_RUNS; i++)
		if (t->touch[i].next == addr)
			return &t->touch[i];
	t->touch_victim = (t->touch_victim + 1) % EM_TOUCH_RUNS;
	t->touch[t->touch_victim].pages = 0;
	return &t->touch[t->touch_victim];
}

/* Pages to fill at once: doubles while a thread touches new memory in order (in a few places at a time), so
   that sparse touching costs no memory. */
static uint32_t touch_run(struct em_site *s, const struct em_run *r)
{
	uint32_t left = EM_BLOCK_PAGES - (uint32_t)(s->wp - s->b->word);
	uint32_t most = (uint32_t)(em_budget.limit / 64), run = r->pages ? r->pages * 2 : 1;

	if (most > TOUCH_RUN_MAX)
		most = TOUCH_RUN_MAX;
	if (run > most)
		run = most ? most : 1;
	return run < left ? run : left;
}

/* Takes up to max ABSENT pages of one region from s->wp on; the first is taken already. */
static uint32_t claim_absent(struct em_site *s, uint32_t max, em_word_t first)
{
	uint32_t n = 1;

	while (n < max) {
		em_word_t w = em_word_load(s->wp + n);

		if (!em_word_is_free(w) || em_word_state(w) != EM_ABSENT ||
		    ((w ^ first) & EM_W_SEG) || !em_word_take(s->wp + n, &w, EM_FILLING))
			break;
		n++;
	}
	return n;
}

/* done pages were mapped by us; -EEXIST: the next one was mapped before it was managed, and may have been
   protected together with its neighbours. */
static uint32_t publish_touched(struct em_site *s, uint32_t n, uint32_t done, int ret)
{
	uint32_t have = ret == -EEXIST && done < n ? done + 1 : done;

	for (uint32_t i = 0; i < n; i++)
		em_word_release(s->wp + i, i < have ? EM_DIRTY : EM_ABSENT, EM_SLOT_NONE, 0,
				i >= done && i < have ? EM_W_MAYBE_WP : 0);
	for (uint32_t i = 0; i < have; i++)
		em_event(s->addr + i * EM_PAGE_SIZE, EXTMEM_EV_FIRST_TOUCH, s->write);
	return have;
}

/* Fills up to max pages from s on, the first of which is taken: how many were filled; *n: how many taken. */
static uint32_t fill(struct em_site *s, uint32_t max, em_word_t first, uint32_t *n, int *ret)
{
	uint32_t done = 0, have;

	*n = claim_absent(s, max, first);
	em_charge(s->t, *n);
	*ret = s->write ? em_uffd_copy(s->addr, zeros, *n, false, &done)
			: em_uffd_zero(s->addr, *n, &done);
	have = publish_touched(s, *n, done, *ret);
	em_uncharge(*n - have);
	em_stat_add(first_touch_pages, have);
	return have;
}

/* Of the TOUCH_GROUP pages around s that belong to its mapping, have at least half been touched? */
static bool is_dense(const struct em_site *s, em_word_t *group, em_word_t first)
{
	uint32_t touched = 0;

	for (uint32_t i = 0; i < TOUCH_GROUP; i++) {
		em_word_t w = em_word_load(group + i);

		touched += em_word_state(w) != EM_ABSENT && em_word_state(w) != EM_HOLE &&
			   !((w ^ first) & EM_W_SEG);
	}
	return touched >= TOUCH_GROUP / 2 &&
	       em_budget_used() + TOUCH_GROUP < em_budget.limit / 4 * 3;
}

/* Memory touched in no order, but all of it: when half of an aligned group is there, the rest is filled as well,
   which saves half of the faults.  Not near the end of the budget, where a page in vain costs another. */
static void fill_around(const struct em_site *s, em_word_t first)
{
	uint32_t pos = (uint32_t)(s->wp - s->b->word) & (TOUCH_GROUP - 1), n;
	em_word_t *group = s->wp - pos, w;
	int err = 0;

	if (!is_dense(s, group, first))
		return;
	for (uint32_t i = 0; i < TOUCH_GROUP && !err; i++) {
		struct em_site r = *s;

		r.wp = group + i;
		r.addr = s->addr + i * EM_PAGE_SIZE - pos * EM_PAGE_SIZE;
		w = em_word_load(r.wp);
		if (!em_word_is_free(w) || em_word_state(w) != EM_ABSENT ||
		    ((w ^ first) & EM_W_SEG) || !em_word_take(r.wp, &w, EM_FILLING))
			continue;
		fill(&r, TOUCH_GROUP - i, first, &n, &err);
		i += n - 1;
	}
}

enum em_fault_result em_minor_first_touch(struct em_site *s, em_word_t w)
{
	struct em_run *run;
	em_word_t first = w;
	uint32_t n;
	int ret;

	if (em_budget_refuses(s->t, 1))
		return EM_FAULT_FULL;
	if (!em_word_take(s->wp, &w, EM_FILLING))
		return EM_FAULT_DONE; /* somebody was faster: look again */
	run = find_run(s->t, s->addr);
	if (!fill(s, touch_run(s, run), first, &n, &ret))
		return em_fault_error(ret);
	s->served = !ret;
	run->next = s->addr + n * EM_PAGE_SIZE;
	run->pages = n;
	if (n == 1)
		fill_around(s, first);
	em_stat_inc(faults_first_touch);
	em_site_inc(s, faults_first_touch);
	return EM_FAULT_DONE;
}

/* ---- write protection --------------------------------------------------------------------- */

/* How many pages to unprotect at once if the thread writes one after the other, pages that are writable
   already in between: 2, 4 ... 16. */
static uint32_t upgrade_run(struct em_site *s)
{
	struct em_run *run = &s->t->upgrade;
	bool onward = s->addr - run->next <= UPGRADE_RUN_MAX * EM_PAGE_SIZE;

	if (!onward)
		run->pages = 1;
	else if (run->pages < UPGRADE_RUN_MAX)
		run->pages *= 2;
	else
		s->t->rmw = RMW_RUNS;
	return run->pages;
}

/* Takes the pages behind the one that is written: clean ones, and dirty ones that were protected
   because they lay between victims. */
static uint32_t claim_protected(struct em_site *s, em_slot_t *slot)
{
	uint32_t left = EM_BLOCK_PAGES - (uint32_t)(s->wp - s->b->word), n = 1;
	uint32_t max = upgrade_run(s);

	if (max > left)
		max = left;
	for (; n < max; n++) {
		em_word_t w = em_word_load(s->wp + n);
		enum em_state st = em_word_state(w);

		if (!em_word_is_free(w) || (st != EM_CLEAN && st != EM_DIRTY))
			break;
		slot[n] = st == EM_CLEAN ? em_word_slot(w) : EM_SLOT_NONE;
		if (!em_word_take_slot(s->wp + n, &w, EM_UPGRADE, EM_SLOT_NONE))
			break;
	}
	s->t->upgrade.next = s->addr + n * EM_PAGE_SIZE;
	return n;
}

/* The pages are ours (UPGRADE) until the protection is really gone: were they DIRTY before, reclaim
   could protect and write them again, and a late lift would let a write slip past the copy.  A page stolen
   from WRITEBACK stays alone: its slot is reclaim's to give back. */
enum em_fault_result em_minor_upgrade(struct em_site *s, em_word_t w)
{
	enum em_state from = em_word_state(w);
	em_slot_t slot[UPGRADE_RUN_MAX] = { from == EM_CLEAN ? em_word_slot(w) : EM_SLOT_NONE };
	uint32_t n = 1;
	int ret;

	if (!em_word_take_slot(s->wp, &w, EM_UPGRADE, EM_SLOT_NONE))
		return EM_FAULT_DONE;
	if (from != EM_WRITEBACK)
		n = claim_protected(s, slot);
	ret = em_uffd_protect(s->addr, n * EM_PAGE_SIZE, false);
	for (uint32_t i = 0; i < n; i++) {
		/* Refused: perhaps protected still. */
		em_word_release(s->wp + i, EM_DIRTY, EM_SLOT_NONE, EM_W_MAYBE_WP,
				ret ? EM_W_MAYBE_WP : 0);
		if (slot[i] != EM_SLOT_NONE) {
			em_slots_free(em_engine.store, slot[i]);
			em_update_written(s->r, s->addr + i * EM_PAGE_SIZE);
		}
		/* A dirty neighbour only comes along: nobody has used it. */
		if (!i || slot[i] != EM_SLOT_NONE)
			em_event(s->addr + i * EM_PAGE_SIZE, EXTMEM_EV_WRITE, 0);
	}
	if (ret)
		return em_fault_error(ret);
	s->served = true;
	if (from == EM_DIRTY)
		em_protect_gap_lifted();
	em_stat_inc(faults_write_protect);
	em_site_inc(s, faults_write_protect);
	return EM_FAULT_DONE;
}
