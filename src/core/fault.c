/* SPDX-License-Identifier: MIT */
/*
 * The fault engine: what happens when a managed page is touched and is not there, or
 * is write-protected.  The same code serves the upcall, the handler threads and the
 * system-call hooks.  Runs inside an engine section.
 */
#include "core.h"

#include <errno.h>

#include "sys.h"

enum {
	TOUCH_RUN_MAX = 16,   /* 64 KiB a first-touch fault at most */
	TOUCH_GROUP = 16,     /* aligned pages that are filled when half of them have been touched */
	UPGRADE_RUN_MAX = 16, /* pages unprotected by one write fault at most */
	RMW_RUNS = 8,	      /* prefetched runs mapped writable on the strength of one such run */
};

static const char zeros[TOUCH_RUN_MAX * EM_PAGE_SIZE] __attribute__((aligned(4096)));

struct site {
	struct em_thread *t;
	uintptr_t addr; /* page */
	bool write, alone; /* alone: a read with neighbours was refused, perhaps for one of these */
	struct em_block *b;
	em_word_t *wp;
	struct em_region *r;
};

#define region_inc(s, name) __atomic_fetch_add(&(s)->r->stats.name, 1, __ATOMIC_RELAXED)

static struct em_region *region_of(const struct em_block *b, em_word_t w)
{
	return __atomic_load_n(&b->seg[(w & EM_W_SEG) >> EM_W_SEG_SHIFT], __ATOMIC_ACQUIRE);
}

static bool wp_available(void)
{
	return em_uffd.features & EM_FEAT_WP;
}

/* How an ioctl that fills pages failed. */
static enum em_fault_result fill_error(int ret)
{
	return ret == -ENOMEM ? EM_FAULT_NOMEM : EM_FAULT_NOT_OURS;
}

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
static uint32_t touch_run(struct site *s, const struct em_run *r)
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
static uint32_t claim_absent(struct site *s, uint32_t max, em_word_t first)
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
static uint32_t publish_touched(struct site *s, uint32_t n, uint32_t done, int ret)
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
static uint32_t fill(struct site *s, uint32_t max, em_word_t first, uint32_t *n, int *ret)
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
static bool is_dense(const struct site *s, em_word_t *group, em_word_t first)
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
static void fill_around(const struct site *s, em_word_t first)
{
	uint32_t pos = (uint32_t)(s->wp - s->b->word) & (TOUCH_GROUP - 1), n;
	em_word_t *group = s->wp - pos, w;
	int err = 0;

	if (!is_dense(s, group, first))
		return;
	for (uint32_t i = 0; i < TOUCH_GROUP && !err; i++) {
		struct site r = *s;

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

static enum em_fault_result first_touch(struct site *s, em_word_t w)
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
		return fill_error(ret);
	run->next = s->addr + n * EM_PAGE_SIZE;
	run->pages = n;
	if (n == 1)
		fill_around(s, first);
	em_stat_inc(faults_first_touch);
	region_inc(s, faults_first_touch);
	return EM_FAULT_DONE;
}

/* ---- swap-in ------------------------------------------------------------------------ */

/* What one read brings in: n pages from `s` on, whose slots begin with `slot`; the fault is about page
   `mine` of them. */
struct load {
	struct site s;
	em_slot_t slot;
	uint32_t n, mine;
	bool around; /* the others were named for being near, and are not known to be used */
};

static bool claim_swapped(struct load *l, int64_t at)
{
	em_word_t *wp = l->s.wp + at, w = em_word_load(wp);

	return em_word_is_free(w) && em_word_state(w) == EM_SWAPPED &&
	       em_word_slot(w) == l->slot + (em_slot_t)at && em_word_take(wp, &w, EM_FILLING);
}

static uint32_t claim_behind(struct load *l, uint32_t max)
{
	uint32_t left = EM_BLOCK_PAGES - 1 - (uint32_t)(l->s.wp - l->s.b->word), k = 0;

	if (max > left)
		max = left;
	while (k < max && l->n < EM_BOUNCE_PAGES && claim_swapped(l, (int64_t)k + 1)) {
		k++;
		l->n++;
	}
	return k;
}

static void claim_before(struct load *l, uint64_t max)
{
	uint32_t left = (uint32_t)(l->s.wp - l->s.b->word), k = 0;

	if (max > left)
		max = left;
	while (k < max && l->n < EM_BOUNCE_PAGES && claim_swapped(l, -(int64_t)k - 1)) {
		k++;
		l->n++;
	}
	l->mine = k;
	l->s.wp -= k;
	l->s.addr -= k * EM_PAGE_SIZE;
	l->slot -= k;
}

/*
 * What comes in by the same read, as far as the slots lie side by side: in a stream the pages that follow, which
 * the prefetcher has named and which are taken off its range; or the neighbours, when it named a range around the
 * page.  A page that is written stays the first, since that one is mapped writable.
 */
static void claim_named(struct load *l, struct extmem_range *range)
{
	extmem_page_t page = l->s.addr >> EM_PAGE_SHIFT;
	uint32_t k;

	if (range->first == page + 1 && !l->s.alone) {
		k = claim_behind(l, range->npages);
		range->first += k;
		range->npages -= k;
	} else if (range->first <= page && page - range->first < range->npages) {
		l->around = !l->s.alone;
		if (l->around)
			claim_behind(l, range->npages - (uint32_t)(page - range->first) - 1);
		if (l->around && !l->s.write)
			claim_before(l, page - range->first);
		range->npages = 0;
	}
}

/* Publishes page i.  One that was read only is clean and protected, so that it can be dropped
   again without a write. */
static void publish_read(struct load *l, uint32_t i, bool clean)
{
	em_word_t *wp = l->s.wp + i;
	uint32_t distance = l->around && i != l->mine ? UINT32_MAX
						      : em_evict_distance(em_word_load(wp));

	em_word_release(wp, clean ? EM_CLEAN : EM_DIRTY, clean ? l->slot + i : EM_SLOT_NONE, 0, 0);
	if (!clean)
		em_slots_free(em_engine.store, l->slot + i);
	em_event(l->s.addr + i * EM_PAGE_SIZE, EXTMEM_EV_SWAP_IN, distance);
}

/* Maps the pages from the bounce buffer: the first nw writable, the others clean. */
static uint32_t map_read(struct load *l, uint32_t nw, int *err)
{
	const char *from = l->s.t->bounce;
	uintptr_t addr = l->s.addr, off = nw * EM_PAGE_SIZE;
	uint32_t done = 0, done2 = 0;

	*err = nw ? em_uffd_copy(addr, from, nw, false, &done) : 0;
	if (!*err && l->n > nw)
		*err = em_uffd_copy(addr + off, from + off, l->n - nw, true, &done2);
	if (*err == -EEXIST)
		em_panic("extmem: a page that is in the store is mapped as well\n");
	for (uint32_t i = 0; i < l->n; i++) {
		if (i < nw ? i < done : i < nw + done2)
			publish_read(l, i, i >= nw);
		else
			em_word_release(l->s.wp + i, EM_SWAPPED, l->slot + i, 0, 0);
	}
	return done + done2;
}

/* Pages claimed could not be read together: only the one that is missed decides. */
static int read_pages(struct load *l)
{
	int ret = em_store_read_now(em_engine.store, l->slot, l->s.t->bounce, l->n);

	if (!ret)
		return 0;
	for (uint32_t i = 0; i < l->n; i++)
		if (i != l->mine)
			em_word_release(l->s.wp + i, EM_SWAPPED, l->slot + i, 0, 0);
	l->s.wp += l->mine;
	l->s.addr += l->mine * EM_PAGE_SIZE;
	l->slot += l->mine;
	l->mine = 0;
	l->n = 1;
	return em_io_read_again(l->slot, l->s.t->bounce);
}

static enum em_fault_result demand(struct site *s, em_word_t w)
{
	struct load l = { .s = *s, .slot = em_word_slot(w), .n = 1 };
	struct extmem_range range[EM_PREFETCH_RANGES];
	bool failed_before = em_word_state(w) == EM_FAILED;
	uint32_t asked, have;
	size_t nrange;
	int ret;

	if (!em_word_take(s->wp, &w, EM_FILLING))
		return EM_FAULT_DONE;
	nrange = em_host_prefetch(s->t, s->r, s->addr, 1, s->write, false, range);
	if (nrange)
		claim_named(&l, &range[0]);
	/* Before our own read, so that both are under way together. */
	em_host_prefetch_queue(range, nrange);
	asked = l.n;
	em_charge(s->t, asked);
	ret = read_pages(&l);
	em_uncharge(asked - l.n);
	if (ret) {
		em_io_read_failed(s->t, s->addr, l.slot, ret, failed_before);
		em_word_release(s->wp, EM_FAILED, l.slot, 0, 0);
		em_uncharge(1);
		return EM_FAULT_FAILED;
	}
	em_stat_add(bytes_read, l.n * EM_PAGE_SIZE);
	have = map_read(&l, wp_available() ? s->write : l.n, &ret);
	em_uncharge(l.n - have);
	if (!have && l.n > 1) {
		/* A neighbour whose mapping went away unseen says nothing of this page. */
		s->alone = true;
		return EM_FAULT_DONE;
	}
	if (!have)
		return fill_error(ret);
	em_stat_inc(faults_major);
	em_stat_add(pages_in, have);
	region_inc(s, faults_major);
	__atomic_fetch_add(&s->r->stats.pages_in, have, __ATOMIC_RELAXED);
	return EM_FAULT_DONE;
}

/* ---- prefetched pages ------------------------------------------------------------------ */

/* Takes the run of staged pages that lie behind each other in the chunk too. */
static uint32_t claim_staged(struct site *s, uint32_t frame, uint32_t max)
{
	uint32_t left = EM_BLOCK_PAGES - (uint32_t)(s->wp - s->b->word), n = 1;

	if (max > left)
		max = left;
	while (n < max) {
		em_word_t w = em_word_load(s->wp + n);

		if (!em_word_is_free(w) || em_word_state(w) != EM_STAGED ||
		    em_word_slot(w) != frame + n || !em_word_take(s->wp + n, &w, EM_FILLING))
			break;
		n++;
	}
	return n;
}

/* Publishes pages [from, to) of the run as mapped. */
static void publish_staged(struct site *s, struct em_chunk *c, uint32_t pos, uint32_t from,
			   uint32_t to, bool clean)
{
	for (uint32_t i = from; i < to; i++) {
		em_slot_t slot = c->slot[pos + i];
		uint32_t distance = em_evict_distance(em_word_load(s->wp + i));

		em_word_release(s->wp + i, clean ? EM_CLEAN : EM_DIRTY, clean ? slot : EM_SLOT_NONE,
				0, 0);
		if (!clean)
			em_slots_free(em_engine.store, slot);
		em_event(s->addr + i * EM_PAGE_SIZE, EXTMEM_EV_PREFETCH_USED, distance);
	}
}

/* Maps the run that begins with the page at s, which is ours, from frame pos on: all of it writable, or the
   first page only if it is written. */
static uint32_t map_staged_run(struct site *s, struct em_chunk *c, uint32_t pos, bool writable,
			       int *err)
{
	/* The chunk is looked at only now: a smaller budget takes chunks away, and a larger one brings others. */
	uint32_t frame = em_stage_frame(c, pos), done = 0, done2 = 0;
	uint32_t n = claim_staged(s, frame, c->n - pos), nw = writable ? n : s->write;
	const char *src = c->frame + pos * EM_PAGE_SIZE;

	em_charge(s->t, n);
	*err = nw ? em_uffd_copy(s->addr, src, nw, false, &done) : 0;
	if (!*err && n > nw)
		*err = em_uffd_copy(s->addr + nw * EM_PAGE_SIZE, src + nw * EM_PAGE_SIZE, n - nw,
				    true, &done2);
	if (*err == -EEXIST)
		em_panic("extmem: a page that is in the store is mapped as well\n");
	publish_staged(s, c, pos, 0, done, false);
	publish_staged(s, c, pos, nw, nw + done2, true);
	for (uint32_t i = 0; i < n; i++)
		if (i >= (i < nw ? done : nw + done2))
			em_word_release(s->wp + i, EM_STAGED, frame + i, 0, 0);
	em_uncharge(n - done - done2);
	return done + done2;
}

/* What else waits in the chunk: another run costs less here than the fault that it would take.  The chunk, and
   the block that all its pages are in, stay as long as frames of it have not been given back. */
static uint32_t map_staged_rest(const struct site *s, struct em_chunk *c, bool writable)
{
	uint32_t total = 0, done;
	int err = 0;

	for (uint32_t pos = 0; pos < c->n && !err; pos++) {
		struct site r = *s;
		em_word_t w;

		r.addr = c->base + pos * EM_PAGE_SIZE;
		r.wp = &s->b->word[(r.addr >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)];
		r.write = false;
		w = em_word_load(r.wp);
		if (!em_word_is_free(w) || em_word_state(w) != EM_STAGED ||
		    em_word_slot(w) != em_stage_frame(c, pos) || !em_word_take(r.wp, &w, EM_FILLING))
			continue;
		done = map_staged_run(&r, c, pos, writable, &err);
		total += done;
		pos += done ? done - 1 : 0;
	}
	return total;
}

static enum em_fault_result map_staged(struct site *s, em_word_t w)
{
	struct em_chunk *c = em_stage_chunk(em_word_slot(w));
	struct extmem_range range[EM_PREFETCH_RANGES];
	/* Who has been writing page after page gets everything writable; one write gets one page. */
	bool writable = !wp_available() || s->t->rmw;
	uint32_t pos = em_stage_pos(em_word_slot(w)), run, done;
	size_t nrange;
	int err;

	if (!em_word_take(s->wp, &w, EM_FILLING))
		return EM_FAULT_DONE;
	if (s->t->rmw)
		s->t->rmw--; /* now and then a protected run asks whether it is still so */
	run = map_staged_run(s, c, pos, writable, &err);
	if (!run)
		return fill_error(err);
	done = run + map_staged_rest(s, c, writable);
	em_stage_put(c, done);
	em_stat_inc(faults_prefetch_hit);
	em_stat_add(prefetched_used, done);
	em_stat_add(pages_in, done);
	region_inc(s, faults_prefetch_hit);
	__atomic_fetch_add(&s->r->stats.pages_in, done, __ATOMIC_RELAXED);
	nrange = em_host_prefetch(s->t, s->r, s->addr, run, s->write, true, range);
	em_host_prefetch_queue(range, nrange);
	return EM_FAULT_DONE;
}

/* ---- write protection --------------------------------------------------------------------- */

/* How many pages to unprotect at once if the thread writes one after the other, pages that are writable
   already in between: 2, 4 ... 16. */
static uint32_t upgrade_run(struct site *s)
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
static uint32_t claim_protected(struct site *s, em_slot_t *slot)
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
static enum em_fault_result upgrade(struct site *s, em_word_t w)
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
		if (slot[i] != EM_SLOT_NONE)
			em_slots_free(em_engine.store, slot[i]);
		/* A dirty neighbour only comes along: nobody has used it. */
		if (!i || slot[i] != EM_SLOT_NONE)
			em_event(s->addr + i * EM_PAGE_SIZE, EXTMEM_EV_WRITE, 0);
	}
	if (ret)
		return fill_error(ret);
	if (from == EM_DIRTY)
		em_reclaim_gap_lifted();
	em_stat_inc(faults_write_protect);
	region_inc(s, faults_write_protect);
	return EM_FAULT_DONE;
}

/* ---- the decision ---------------------------------------------------------------------------- */

/* One step; EM_FAULT_DONE: the page is usable or worth another look. *again: look again. */
static enum em_fault_result step(struct site *s, em_word_t w, bool *again)
{
	*again = true;
	switch (em_word_state(w)) {
	case EM_HOLE:
		return EM_FAULT_NOT_OURS;
	case EM_ABSENT:
		return first_touch(s, w);
	case EM_SWAPPED:
		return demand(s, w);
	case EM_STAGED:
		return map_staged(s, w);
	case EM_CLEAN:
		if (s->write)
			return upgrade(s, w);
		*again = false;
		return EM_FAULT_DONE;
	case EM_DIRTY:
		if (s->write && (w & EM_W_MAYBE_WP))
			return upgrade(s, w);
		*again = false;
		return EM_FAULT_DONE;
	case EM_WRITEBACK:
		if (s->write)
			return upgrade(s, w);
		*again = false;
		return EM_FAULT_DONE;
	case EM_FAILED:
		/* Perhaps the store has come back.  Not where the kernel has been told to raise SIGBUS
		   by itself: that stays until the page is discarded. */
		if (em_engine.opt.delivery == EM_DELIVERY_UPCALL)
			return demand(s, w);
		return EM_FAULT_FAILED;
	default: /* in transit: em_fault has waited for it */
		return EM_FAULT_DONE;
	}
}

static bool must_wait(em_word_t w)
{
	return (w & EM_W_LOCKED) ||
	       (!em_state_is_stable(em_word_state(w)) && em_word_state(w) != EM_WRITEBACK);
}

enum em_fault_result em_fault(struct em_thread *t, uintptr_t addr, bool write)
{
	struct site s = { .t = t, .addr = em_page_down(addr), .write = write };
	enum em_fault_result res;
	bool nomem, again, waited = false;
	em_word_t w;

	s.b = em_space_block(addr, &nomem);
	if (!s.b)
		return nomem ? EM_FAULT_NOMEM : EM_FAULT_NOT_OURS;
	s.wp = &s.b->word[(addr >> EM_PAGE_SHIFT) & (EM_BLOCK_PAGES - 1)];
	for (;;) {
		w = em_word_load(s.wp);
		if (must_wait(w)) {
			if (!waited)
				em_stat_inc(faults_waited);
			waited = true;
			em_word_wait(s.wp, w);
			continue;
		}
		s.r = region_of(s.b, w);
		if (!s.r && em_word_state(w) != EM_HOLE)
			continue; /* being unmapped under our eyes: the word is about to change */
		res = step(&s, w, &again);
		if (res != EM_FAULT_DONE || !again)
			break;
	}
	/* The mapping went away while we waited: let the access find out by itself. */
	if (res == EM_FAULT_NOT_OURS && waited)
		res = EM_FAULT_DONE;
	return res;
}

/*
 * A page thrown away by a system call that we did not see (another process's process_madvise, a site that
 * could not be patched) is empty, as it would be natively.  If it is mapped after all it
 * can only be protected.
 */
void em_fault_resync(struct em_thread *t, uintptr_t addr)
{
	em_word_t *wp = em_space_word(addr), w;
	uint32_t done;

	if (!wp || !em_word_trylock(wp, &w))
		return;
	if (em_word_state(w) == EM_DIRTY || em_word_state(w) == EM_CLEAN) {
		em_stat_inc(faults_spurious);
		if (em_uffd_zero(em_page_down(addr), 1, &done) == -EEXIST)
			em_word_unlock(wp, em_word_state(w) == EM_DIRTY ? EM_W_MAYBE_WP : 0);
		else
			em_word_unlock(wp, 0);
		return;
	}
	em_word_unlock(wp, 0);
}

/* The kernel may read (write) a page under a hazard in exactly these states. */
static bool usable(em_word_t w, bool write)
{
	enum em_state st = em_word_state(w);

	if (w & EM_W_LOCKED)
		return false;
	if (write)
		return st == EM_DIRTY && !(w & EM_W_MAYBE_WP);
	return st == EM_DIRTY || st == EM_CLEAN || st == EM_WRITEBACK;
}

static int fault_page(struct em_thread *t, uintptr_t a, bool write)
{
	for (;;) {
		em_word_t *wp = em_space_word(a);

		if (wp && usable(em_word_load(wp), write))
			return 0;
		switch (em_fault(t, a, write)) {
		case EM_FAULT_DONE:
			if (!em_space_word(a) || em_word_state(em_word_load(em_space_word(a))) == EM_HOLE)
				return 0;
			continue;
		case EM_FAULT_NOT_OURS:
			return 0;
		case EM_FAULT_NOMEM:
		case EM_FAULT_FULL:
			return -ENOMEM;
		case EM_FAULT_FAILED:
			return -EFAULT;
		}
	}
}

int em_fault_range(struct em_thread *t, uintptr_t addr, size_t len, bool write)
{
	uintptr_t end = em_page_up(addr + len);
	int ret;

	for (uintptr_t a = em_page_down(addr); a < end; a += EM_PAGE_SIZE) {
		if (!em_space_value(a)) {
			a = (a & ~(EM_BLOCK_SIZE - 1)) + EM_BLOCK_SIZE - EM_PAGE_SIZE;
			continue;
		}
		ret = fault_page(t, a, write);
		if (ret)
			return ret;
	}
	return 0;
}

/* ---- from outside a section ------------------------------------------------------------------- */

static long range_for(const long *arg)
{
	struct em_thread *t = em_thread_self();
	long ret;

	em_enter(t, true);
	ret = em_fault_range(t, (uintptr_t)arg[0], (size_t)arg[1], arg[2]);
	em_leave(t, true);
	return ret;
}

int em_fault_in(struct em_thread *t, uintptr_t addr, size_t len, bool write)
{
	const long arg[EM_PROXY_ARGS] = { (long)addr, (long)len, write };

	return (int)em_proxy_call(t, range_for, arg);
}

static long fault_for(const long *arg)
{
	struct em_thread *t = em_thread_self();
	long res;

	em_enter(t, true);
	res = em_fault(t, (uintptr_t)arg[0], arg[1]);
	em_leave(t, true);
	return res;
}

enum em_fault_result em_fault_serve(struct em_thread *t, uintptr_t addr, bool write)
{
	const long arg[EM_PROXY_ARGS] = { (long)addr, write };

	return (enum em_fault_result)em_proxy_call(t, fault_for, arg);
}
