/* SPDX-License-Identifier: MIT */
/*
 * Swap-in: a page that is in the store is read, together with what the prefetcher names and the
 * same read can bring; one that was prefetched is mapped from its frame.
 */
#include "fault.h"

#include "standby.h"

static bool wp_available(void)
{
	return em_uffd.features & EM_FEAT_WP;
}

/* ---- demand read ------------------------------------------------------------------------ */

/* What one read brings in: n pages from `s` on, whose slots begin with `slot`; the fault is about page
   `mine` of them. */
struct load {
	struct em_site s;
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
 * page.
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
		if (l->around)
			claim_before(l, page - range->first);
		range->npages = 0;
	}
}

/* Publishes page i.  One that was read only is clean and protected, so that it can be dropped
   again without a write. */
static void publish_read(struct load *l, uint32_t i, bool clean)
{
	em_word_t *wp = l->s.wp + i;
	uint32_t distance = em_evict_distance(em_word_load(wp));

	if (l->around && i != l->mine)
		distance |= EXTMEM_NEIGHBOUR;

	em_word_release(wp, clean ? EM_CLEAN : EM_DIRTY, clean ? l->slot + i : EM_SLOT_NONE, 0, 0);
	if (clean)
		em_update_came(l->s.r, l->s.addr + i * EM_PAGE_SIZE);
	else
		em_slots_free(em_engine.store, l->slot + i);
	em_event(l->s.addr + i * EM_PAGE_SIZE, EXTMEM_EV_SWAP_IN, distance);
}

/* Maps pages [from, end) from the bounce buffer; how many.  What an error leaves out is in the store still. */
static uint32_t map_part(struct load *l, uint32_t from, uint32_t end, bool clean, int *err)
{
	uint32_t done = 0;

	if (from < end && !*err)
		*err = em_uffd_copy(l->s.addr + from * EM_PAGE_SIZE,
				    l->s.t->bounce + from * EM_PAGE_SIZE, end - from, clean, &done);
	if (*err == -EEXIST)
		em_panic("extmem: a page that is in the store is mapped as well\n");
	for (uint32_t i = from; i < end; i++) {
		if (i < from + done)
			publish_read(l, i, clean);
		else
			em_word_release(l->s.wp + i, EM_SWAPPED, l->slot + i, 0, 0);
	}
	return done;
}

/* The page that is written, or is expected to be, is mapped writable; its neighbours clean, but for those
   of a stream where the same is expected of them. */
static uint32_t map_read(struct load *l, bool write, int *err)
{
	bool expected = em_update_expected(l->s.r, l->s.addr + l->mine * EM_PAGE_SIZE);
	uint32_t have;

	*err = 0;
	if (!write && expected)
		em_stat_add(writes_expected, l->around ? 1 : l->n);
	if (!wp_available() || (expected && !l->around))
		return map_part(l, 0, l->n, false, err);
	if (!write && !expected)
		return map_part(l, 0, l->n, true, err);
	have = map_part(l, l->mine, l->mine + 1, false, err);
	have += map_part(l, 0, l->mine, true, err);
	return have + map_part(l, l->mine + 1, l->n, true, err);
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

enum em_fault_result em_swapin_demand(struct em_site *s, em_word_t w)
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
	have = map_read(&l, s->write, &ret);
	em_uncharge(l.n - have);
	if (!have && l.n > 1) {
		/* A neighbour whose mapping went away unseen says nothing of this page. */
		s->alone = true;
		return EM_FAULT_DONE;
	}
	if (!have)
		return em_fault_error(ret);
	s->served = have == l.n;
	em_stat_inc(faults_major);
	em_stat_add(pages_in, have);
	em_site_inc(s, faults_major);
	__atomic_fetch_add(&s->r->stats.pages_in, have, __ATOMIC_RELAXED);
	em_host_content(s->t, l.s.addr, s->t->bounce, l.n);
	return EM_FAULT_DONE;
}

/* ---- prefetched pages ------------------------------------------------------------------ */

/* Takes the run of staged pages that lie behind each other in the chunk too. */
static uint32_t claim_staged(struct em_site *s, uint32_t frame, uint32_t max)
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
static void publish_staged(struct em_site *s, struct em_chunk *c, uint32_t pos, uint32_t from,
			   uint32_t to, bool clean)
{
	for (uint32_t i = from; i < to; i++) {
		em_slot_t slot = c->slot[pos + i];
		uint32_t distance = em_evict_distance(em_word_load(s->wp + i));

		em_word_release(s->wp + i, clean ? EM_CLEAN : EM_DIRTY, clean ? slot : EM_SLOT_NONE,
				0, 0);
		if (clean)
			em_update_came(s->r, s->addr + i * EM_PAGE_SIZE);
		else
			em_slots_free(em_engine.store, slot);
		em_event(s->addr + i * EM_PAGE_SIZE, EXTMEM_EV_PREFETCH_USED, distance);
	}
}

/* Maps the run that begins with the page at s, which is ours, from frame pos on: all of it writable, or the
   first page only if it is written. */
static uint32_t map_staged_run(struct em_site *s, struct em_chunk *c, uint32_t pos, bool writable,
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
static uint32_t map_staged_rest(const struct em_site *s, struct em_chunk *c, bool writable)
{
	uint32_t total = 0, done;
	int err = 0;

	for (uint32_t pos = 0; pos < c->n && !err; pos++) {
		struct em_site r = *s;
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

/* ---- pages on standby ------------------------------------------------------------------ */

static enum em_fault_result map_standby(struct em_site *s, em_word_t w)
{
	uint32_t frame = em_word_slot(w), done = 0;
	struct extmem_range range[EM_PREFETCH_RANGES];
	em_slot_t slot;
	bool writable;
	size_t nrange;
	int err;

	if (!em_word_take(s->wp, &w, EM_FILLING))
		return EM_FAULT_DONE;
	slot = em_standby_slot(frame);
	writable = s->write || slot == EM_SLOT_NONE || em_update_expected(s->r, s->addr);
	em_charge(s->t, 1);
	err = em_uffd_copy(s->addr, em_standby_content(frame), 1, !writable, &done);
	if (err == -EEXIST)
		em_panic("extmem: a page that is in the store is mapped as well\n");
	if (err) {
		em_word_release(s->wp, EM_STAGED, frame, 0, 0);
		em_uncharge(1);
		return em_fault_error(err);
	}
	em_standby_put(frame, true);
	em_word_release(s->wp, writable ? EM_DIRTY : EM_CLEAN, writable ? EM_SLOT_NONE : slot, 0, 0);
	if (!writable)
		em_update_came(s->r, s->addr);
	else if (slot != EM_SLOT_NONE)
		em_slots_free(em_engine.store, slot);
	/* It had not left memory: distance 0. */
	em_event(s->addr, EXTMEM_EV_SWAP_IN, 0);
	s->served = true;
	em_stat_inc(faults_standby);
	nrange = em_host_prefetch(s->t, s->r, s->addr, 1, s->write, true, range);
	em_host_prefetch_queue(range, nrange);
	return EM_FAULT_DONE;
}

enum em_fault_result em_swapin_staged(struct em_site *s, em_word_t w)
{
	struct em_chunk *c;
	struct extmem_range range[EM_PREFETCH_RANGES];
	/* Who has been writing page after page gets everything writable; one write gets one page. */
	bool expected = em_update_expected(s->r, s->addr);
	bool writable = !wp_available() || s->t->rmw || expected;
	uint32_t pos = em_stage_pos(em_word_slot(w)), run, done;
	size_t nrange;
	int err;

	if (em_frame_is_standby(em_word_slot(w)))
		return map_standby(s, w);
	c = em_stage_chunk(em_word_slot(w));
	if (!em_word_take(s->wp, &w, EM_FILLING))
		return EM_FAULT_DONE;
	if (s->t->rmw)
		s->t->rmw--; /* now and then a protected run asks whether it is still so */
	run = map_staged_run(s, c, pos, writable, &err);
	if (!run)
		return em_fault_error(err);
	s->served = true;
	done = run + map_staged_rest(s, c, writable);
	if (expected)
		em_stat_add(writes_expected, done);
	em_stage_put(c, done);
	em_stat_inc(faults_prefetch_hit);
	em_stat_add(prefetched_used, done);
	em_stat_add(pages_in, done);
	em_site_inc(s, faults_prefetch_hit);
	__atomic_fetch_add(&s->r->stats.pages_in, done, __ATOMIC_RELAXED);
	nrange = em_host_prefetch(s->t, s->r, s->addr, run, s->write, true, range);
	em_host_prefetch_queue(range, nrange);
	return EM_FAULT_DONE;
}
